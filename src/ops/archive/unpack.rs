//! Puts an archive that was judged on the disk, below one root and nowhere else, and sees that it
//! is still the one that was judged.

use crate::codec::sha256::Sha256Hasher;
use crate::codec::sha256::Sha256Sum;
use crate::context::Context;
use crate::context::Event;
use crate::disk::beneath;
use crate::disk::jail::Jail;
use crate::disk::jail::NewFile;
use crate::disk::jail::Replace;
use crate::disk::node::Attributes;
use crate::disk::node::FileTime;
use crate::disk::node::Problem;
use crate::error::Error;
use crate::error::Result;
use crate::ops::archive::Kind;
use crate::ops::archive::Member;
use crate::ops::archive::listing::Listing;
use crate::ops::archive::listing::plain_link;
use crate::ops::archive::members::Archive;
use crate::ops::archive::members::damaged;
use crate::ops::archive::members::read_error;
use std::collections::HashSet;
use std::io::ErrorKind;
use std::io::Read;

const BUFFER_BYTES: usize = 256 << 10;
/// Runs of zeroes of this length become holes.
const HOLE_BYTES: usize = 64 << 10;
/// What lies beside a SQLite database and belongs to its content.
pub(in crate::ops) const SIDECARS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// What was unpacked.
#[derive(Debug, Clone, Default)]
pub struct Unpacked {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Directories, links, pipes.
    pub others: u64,
    /// Attributes that could not be set, and links that could not be made.
    pub problems: Vec<Problem>,
}

/// Unpacks the members that are wanted.
pub fn unpack(
    cx: &Context,
    archive: &Archive,
    listing: &Listing,
    jail: &Jail,
    replace: Replace,
    wants: &dyn Fn(&Member) -> bool,
) -> Result<Unpacked> {
    let mut unpacker = Unpacker {
        cx,
        name: archive.name(),
        listing,
        jail,
        replace,
        next: 0,
        dirs: HashSet::new(),
        buffer: vec![0; BUFFER_BYTES],
        done: Unpacked::default(),
    };
    archive.read(&mut |member, content| {
        let path = unpacker.expect(&member)?;
        match path {
            Some(index) if wants(&listing.members[index].member) => unpacker.put(index, content),
            _ => Ok(()),
        }
    })?;
    if unpacker.next != listing.members.len() {
        return Err(unpacker.changed());
    }
    unpacker.finish_dirs(wants)?;
    let mut done = unpacker.done;
    done.problems = summed_up(done.problems);
    Ok(done)
}

/// Owners are lost one like the other when somebody unpacks who is not the superuser.
fn summed_up(problems: Vec<Problem>) -> Vec<Problem> {
    let (owners, mut others): (Vec<_>, Vec<_>) = problems
        .into_iter()
        .partition(|problem| problem.code == "owner");
    if let Some(first) = owners.first() {
        let count = owners.len();
        let message = format!("{count} paths lose their owners: only the superuser can keep them");
        others.push(Problem::new(&first.path, "owner", message));
    }
    others
}

struct Unpacker<'u> {
    cx: &'u Context,
    name: String,
    listing: &'u Listing,
    jail: &'u Jail,
    replace: Replace,
    /// The member of the listing that comes next.
    next: usize,
    /// Directories that are there.
    dirs: HashSet<Vec<u8>>,
    buffer: Vec<u8>,
    done: Unpacked,
}

impl Unpacker<'_> {
    /// Returns the number of the member in the listing, `None` for what is not listed: the root
    /// and our own manifest.
    fn expect(&mut self, member: &Member) -> Result<Option<usize>> {
        self.cx.check()?;
        let mut path = plain_link(&member.path);
        if member.kind == Kind::Directory {
            let trimmed = path.strip_suffix(b"/").unwrap_or(&path);
            path = if trimmed == b"." {
                Vec::new()
            } else {
                trimmed.to_vec()
            };
        }
        if path.is_empty() || self.listing.own_manifest.as_ref() == Some(&path) {
            return Ok(None);
        }
        let expected = self.listing.members.get(self.next);
        let is_same = expected.is_some_and(|expected| {
            expected.member.path == path
                && expected.member.kind == member.kind
                && expected.member.mode == member.mode
        });
        if !is_same {
            return Err(self.changed());
        }
        self.next += 1;
        Ok(Some(self.next - 1))
    }

    fn put(&mut self, index: usize, content: &mut dyn Read) -> Result<()> {
        let listed = &self.listing.members[index];
        let (member, jail, replace) = (&listed.member, self.jail, self.replace);
        self.make_parents(&member.path)?;
        let attributes = attributes(member);
        let problems = match &member.kind {
            Kind::Directory => {
                jail.make_dir(&member.path, replace)?;
                self.dirs.insert(member.path.clone());
                Vec::new()
            }
            Kind::File(size_bytes) => {
                let file = jail.begin_file(&member.path)?;
                let sum = self.copy(&file, *size_bytes, content)?;
                if listed.sha256 != Some(sum) {
                    return Err(self.changed());
                }
                self.publish(file, member, listed.is_sqlite, &attributes)?
            }
            Kind::Symlink(target) => {
                jail.make_symlink(&member.path, target, &attributes, replace)?
            }
            Kind::HardLink(first) => self.link(member, &plain_link(first))?,
            Kind::Fifo => jail.make_fifo(&member.path, &attributes, replace)?,
            Kind::CharDevice(..) | Kind::BlockDevice(..) => return Err(self.changed()),
        };
        match &member.kind {
            Kind::File(size_bytes) => {
                self.done.files += 1;
                self.done.bytes += size_bytes;
            }
            _ => self.done.others += 1,
        }
        self.done.problems.extend(problems);
        self.cx.progress.event(Event::Done { files: 1, bytes: 0 });
        Ok(())
    }

    /// Gives a file its name. Logs beside a database belong to what was there before, and SQLite
    /// would replay them into the new one.
    fn publish(
        &mut self,
        file: NewFile<'_>,
        member: &Member,
        is_sqlite: bool,
        attributes: &Attributes,
    ) -> Result<Vec<Problem>> {
        let mut aside = Vec::new();
        if is_sqlite && self.replace == Replace::Existing {
            for suffix in SIDECARS {
                let path = [&member.path[..], suffix.as_bytes()].concat();
                if self.jail.stat(&path)?.is_some() && self.listing.find(&path).is_none() {
                    aside.push(self.jail.set_aside(&path)?);
                }
            }
        }
        let problems = file.finish(attributes, self.replace)?;
        for path in aside {
            self.jail.remove(&path)?;
        }
        Ok(problems)
    }

    fn link(&self, member: &Member, first: &[u8]) -> Result<Vec<Problem>> {
        if self.jail.stat(first)?.is_none() {
            let first = String::from_utf8_lossy(first);
            let message = format!("a hard link to \"{first}\", which was not asked for");
            return Ok(vec![Problem::new(&member.path, "hard-link", message)]);
        }
        self.jail
            .make_hard_link(&member.path, first, self.replace)?;
        Ok(Vec::new())
    }

    fn copy(
        &mut self,
        file: &NewFile<'_>,
        size_bytes: u64,
        content: &mut dyn Read,
    ) -> Result<Sha256Sum> {
        let mut hasher = Sha256Hasher::new();
        let mut offset = 0;
        loop {
            let len = match content.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(read_error(&self.name)(error)),
            };
            let bytes = &self.buffer[..len];
            hasher.update(bytes);
            let is_hole = |run: &&[u8]| run.len() == HOLE_BYTES && run.iter().all(|b| *b == 0);
            for (number, run) in bytes.chunks(HOLE_BYTES).enumerate() {
                if !is_hole(&run) {
                    file.write_at(offset + (number * HOLE_BYTES) as u64, run)?;
                }
            }
            offset += len as u64;
            self.cx.check()?;
            self.cx.progress.event(Event::Done {
                files: 0,
                bytes: len as u64,
            });
        }
        file.set_len(size_bytes)?;
        Ok(hasher.sum())
    }

    /// Makes directories that are no members, or come later.
    fn make_parents(&mut self, path: &[u8]) -> Result<()> {
        let (parent, _) = beneath::split(path);
        if parent.is_empty() || self.dirs.contains(parent) {
            return Ok(());
        }
        for (end, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            if self.dirs.insert(path[..end].to_vec()) {
                self.jail.make_dir(&path[..end], self.replace)?;
            }
        }
        Ok(())
    }

    /// Gives directories their attributes, each after all that is below it.
    fn finish_dirs(&mut self, wants: &dyn Fn(&Member) -> bool) -> Result<()> {
        let members = self.listing.members.iter().map(|listed| &listed.member);
        let dirs = members.filter(|member| member.kind == Kind::Directory && wants(member));
        let mut dirs: Vec<&Member> = dirs.collect();
        dirs.sort_by(|a, b| b.path.cmp(&a.path));
        for dir in dirs {
            let problems = self.jail.set_attributes(&dir.path, &attributes(dir))?;
            self.done.problems.extend(problems);
        }
        Ok(())
    }

    fn changed(&self) -> Error {
        damaged(&self.name, "it changed while it was read")
    }
}

/// Returns the attributes that a member gets.
pub(in crate::ops) fn attributes(member: &Member) -> Attributes {
    Attributes {
        mode: member.mode,
        uid: member.uid,
        gid: member.gid,
        mtime: FileTime {
            secs: member.modified.seconds,
            nanos: member.modified.nanoseconds,
        },
        xattrs: member.xattrs.clone(),
    }
}
