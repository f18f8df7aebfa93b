//! Walking the source beside the parent, and deciding for every node what is to be done.

use crate::context::Context;
use crate::context::Event;
use crate::error::Result;
use crate::format::list::Stream;
use crate::format::tree::Attributes;
use crate::format::tree::Class;
use crate::format::tree::Content;
use crate::format::tree::Entry;
use crate::format::tree::FileTime;
use crate::format::tree::Kind;
use crate::format::tree::SMALL_FILE_BYTES_MAX;
use crate::ops::backup::Totals;
use crate::ops::backup::builder::Builder;
use crate::ops::backup::builder::Known;
use crate::ops::backup::builder::NewContent;
use crate::ops::backup::builder::NewEntry;
use crate::ops::backup::databases::Captured;
use crate::ops::backup::databases::Databases;
use crate::ops::backup::large::Expect;
use crate::ops::backup::large::LargeFiles;
use crate::ops::backup::parent::Old;
use crate::ops::backup::parent::Parent;
use crate::ops::backup::pool::Pool;
use crate::ops::backup::seen::Fingerprint;
use crate::ops::backup::source::Source;
use crate::safeguard::Safeguard;
use crate::source::files;
use crate::source::files::Item;
use crate::source::files::Problem;
use crate::source::files::Stat;
use crate::source::files::Walk;
use std::collections::HashMap;
use std::sync::Arc;

/// Nodes between two events of progress.
const NODES_PER_EVENT: u64 = 256;

/// Everything a scan works with.
pub(super) struct Scan<'s, 'a> {
    pub cx: &'s Context,
    pub pool: &'s mut Pool,
    pub totals: &'s mut Totals,
    pub parent: &'s mut Parent<'a>,
    pub builder: &'s mut Builder<'a>,
    pub large: &'s mut LargeFiles<'a>,
    pub source: &'s Source,
    pub databases: &'s mut Databases,
    /// First path of each file with several names and what it looked like there, by device and
    /// inode.
    pub links: HashMap<(u64, u64), (Vec<u8>, Fingerprint)>,
}

impl<'a> Scan<'_, 'a> {
    /// Walks to the end.
    pub(super) fn run(&mut self, walk: Walk<'_>) -> Result<()> {
        let (mut nodes, mut files, mut bytes) = (0_u64, 0, 0);
        for found in walk {
            match found {
                Ok(item) => {
                    self.parts(Some(&item.path))?;
                    if item.stat.kind == files::Kind::File && !self.databases.hides(&item.path) {
                        files += 1;
                        let node = (item.stat.device, item.stat.inode);
                        bytes += match self.links.contains_key(&node) {
                            true => 0,
                            false => item.stat.size_bytes,
                        };
                    }
                    self.item(item)?;
                    if self.totals.found_database {
                        return Ok(());
                    }
                }
                // Logs come and go while their database is in use.
                Err(problem) if self.databases.hides(&problem.path) => {}
                Err(problem) => self.totals.warnings.push(problem),
            }
            nodes += 1;
            if nodes % NODES_PER_EVENT == 0 {
                self.cx.check()?;
                let files = std::mem::take(&mut files);
                self.cx.progress.event(Event::Done { files, bytes: 0 });
            }
        }
        self.parts(None)?;
        // What was read as a stream, databases before the walk began, has been told as it was read.
        let bytes = bytes.saturating_sub(self.totals.told_bytes);
        self.cx.progress.event(Event::Done { files, bytes });
        Ok(())
    }

    /// Enters files of databases of several files, which were all captured at one instant.
    fn parts(&mut self, before: Option<&[u8]>) -> Result<()> {
        while let Some((path, captured)) = self.databases.next_part(before) {
            let old = self.parent.find(&path)?;
            let stat = captured.stat;
            self.database(Item { path, stat }, old.as_ref(), &captured)?;
        }
        Ok(())
    }

    fn item(&mut self, item: Item) -> Result<()> {
        if self.databases.hides(&item.path) || self.is_log_of_excluded(&item) {
            return Ok(());
        }
        if item.stat.is_dir() {
            self.databases.enter(&item.path);
        }
        let old = self.parent.find(&item.path)?;
        if item.stat.kind == files::Kind::File
            && let Some(captured) = self.databases.take(&item.path)
        {
            return self.database(item, old.as_ref(), &captured);
        }
        let fingerprint = Fingerprint::of(&item.stat);
        // Status changes move the change time, so equal fingerprints mean equal attributes too.
        let same = old.as_ref().is_some_and(|old| {
            old.fingerprint == Some(fingerprint) && looks_same(&old.entry, &item.stat)
        });
        if !same && self.databases.is_idle_part(&item.path) {
            self.totals.found_database = true;
            return Ok(());
        }
        let made = match self.make(&item, old.as_ref(), same) {
            Ok(made) => made?,
            Err(problem) => {
                self.totals.warnings.push(problem);
                return Ok(());
            }
        };
        let Some((kind, content, attributes, stat)) = made else {
            return Ok(());
        };
        let known = match &old {
            None => Known::New,
            Some(old) if same || looks_same(&old.entry, &item.stat) => Known::Same,
            Some(_) => Known::Changed,
        };
        let entry = Entry {
            path: item.path,
            attributes,
            modified: file_time(&stat),
            kind,
        };
        let fingerprint = Fingerprint::of(&stat);
        let new = NewEntry {
            entry,
            fingerprint,
            content,
            known,
        };
        self.builder
            .push(self.pool, self.totals, self.parent, self.large, new)
    }

    /// Whether this is the log of a database that a pattern leaves out: it is part of that, and by
    /// itself only does harm. A file that just has such a name begins differently.
    fn is_log_of_excluded(&self, item: &Item) -> bool {
        let log = [&b"-wal"[..], b"-journal"];
        let name = log.iter().find_map(|log| item.path.strip_suffix(*log));
        item.stat.kind == files::Kind::File
            && name.is_some_and(|name| self.source.excludes(name))
            && self.large.is_database(&item.path)
    }

    /// Enters a database that was captured before the scan began.
    fn database(&mut self, item: Item, old: Option<&Old>, captured: &Captured) -> Result<()> {
        let kind = Kind::File {
            size_bytes: captured.size_bytes,
            content: Content::Stream(captured.stream),
        };
        let xattrs = match &captured.xattrs {
            Some(xattrs) => Ok(xattrs.clone()),
            None => self.source.tree.xattrs(&item.path),
        };
        let xattrs = match xattrs {
            Ok(xattrs) => xattrs,
            Err(problem) => {
                self.totals.warnings.push(problem);
                return Ok(());
            }
        };
        let looks = Fingerprint::of(&item.stat);
        if item.stat.links > 1 {
            let node = (item.stat.device, item.stat.inode);
            self.links.insert(node, (item.path.clone(), looks));
        }
        let known = match old {
            None => Known::New,
            Some(old) if old.entry.kind == kind => Known::Same,
            Some(_) => Known::Changed,
        };
        let entry = Entry {
            path: item.path,
            attributes: attributes(&item.stat, xattrs),
            modified: file_time(&captured.stat),
            kind,
        };
        let new = NewEntry {
            entry,
            fingerprint: match captured.is_settled {
                true => looks,
                false => looks.forgotten(),
            },
            content: NewContent::Complete,
            known,
        };
        self.builder
            .push(self.pool, self.totals, self.parent, self.large, new)
    }

    /// The outer result is the source's, the inner one the store's. `None`: left out, and said.
    fn make(&mut self, item: &Item, old: Option<&Old>, same: bool) -> Result<Made<'a>, Problem> {
        let (path, stat) = (&item.path, &item.stat);
        let attributes = match old.filter(|_| same) {
            Some(old) => Arc::clone(&old.entry.attributes),
            None if stat.kind == files::Kind::File => attributes(stat, Vec::new()),
            None => attributes(stat, self.source.tree.xattrs(path)?),
        };
        let complete = |kind| {
            Ok(Ok(Some((
                kind,
                NewContent::Complete,
                attributes.clone(),
                *stat,
            ))))
        };
        let (major, minor) = stat.rdev;
        match stat.kind {
            files::Kind::Directory => complete(Kind::Directory),
            files::Kind::Fifo => complete(Kind::Fifo),
            files::Kind::Socket => complete(Kind::Socket),
            files::Kind::CharDevice => complete(Kind::CharDevice { major, minor }),
            files::Kind::BlockDevice => complete(Kind::BlockDevice { major, minor }),
            files::Kind::Symlink => match old.filter(|_| same).map(|old| &old.entry.kind) {
                Some(kind) => complete(kind.clone()),
                None => complete(Kind::Symlink {
                    target: self.source.tree.read_link(path)?,
                }),
            },
            files::Kind::File => {
                if stat.links > 1 {
                    let (node, looks) = ((stat.device, stat.inode), Fingerprint::of(stat));
                    match self.links.get(&node) {
                        Some((first, then)) if *then == looks => {
                            let path = first.clone();
                            return complete(Kind::HardLink { path });
                        }
                        // Touched since, it may be another file that got the same number.
                        _ => drop(self.links.insert(node, (path.clone(), looks))),
                    }
                }
                Ok(self.file(item, old, same, attributes))
            }
        }
    }

    fn file(
        &mut self,
        item: &Item,
        old: Option<&Old>,
        same: bool,
        attributes: Arc<Attributes>,
    ) -> Made<'a> {
        let (path, stat, size_bytes) = (&item.path, item.stat, item.stat.size_bytes);
        let is_secret = self.source.is_secret(path);
        let is_plain = self.databases.is_plain(path);
        let is_stream = is_plain || self.databases.is_idle_part(path);
        if size_bytes <= SMALL_FILE_BYTES_MAX && !is_stream {
            return Ok(Some(small_file(stat, old, same, is_secret, attributes)));
        }
        let old_stream: Option<(&Stream, u64)> = old.and_then(|old| match &old.entry.kind {
            Kind::File {
                size_bytes,
                content: Content::Stream(stream),
            } => Some((stream, *size_bytes)),
            _ => None,
        });
        if let (true, Some((stream, size_bytes))) = (same, old_stream) {
            let kind = Kind::File {
                size_bytes,
                content: Content::Stream(*stream),
            };
            return Ok(Some((kind, NewContent::Complete, attributes, stat)));
        }
        // Secrets are never a prefix of other data, nor other data of them.
        let base = old_stream.filter(|_| !is_secret);
        let node = (stat.device, stat.inode);
        let expect = match is_plain {
            true => Expect::Anything,
            false => Expect::NoDatabase,
        };
        let read = self
            .large
            .read(self.pool, self.totals, path, base, expect)?;
        let Some(mut file) = read else {
            // The next name of the file has to stand for it.
            self.links.remove(&node);
            return Ok(None);
        };
        if (file.stat.device, file.stat.inode) != node {
            self.links.remove(&node);
        } else if let Some((_, looks)) = self.links.get_mut(&node) {
            *looks = Fingerprint::of(&file.stat);
        }
        if is_plain {
            file.stream.kind = self.databases.kind_of_plain(path);
        }
        // A placeholder until the last chunk is stored; the builder enters the real one.
        let kind = Kind::File {
            size_bytes,
            content: Content::Bundled(Class::Ordinary),
        };
        let attributes = self::attributes(&file.stat, file.xattrs);
        Ok(Some((
            kind,
            NewContent::Stream(Box::new(file.stream)),
            attributes,
            file.stat,
        )))
    }
}

type Parts<'a> = (Kind, NewContent<'a>, Arc<Attributes>, Stat);

/// `None`: the node is left out, and the warnings say why.
type Made<'a> = Result<Option<Parts<'a>>>;

/// A file that goes into a bundle.
fn small_file<'a>(
    stat: Stat,
    old: Option<&Old>,
    same: bool,
    is_secret: bool,
    attributes: Arc<Attributes>,
) -> Parts<'a> {
    let class = if is_secret && Safeguard::SecretsApart.holds() {
        Class::Secret
    } else {
        Class::Ordinary
    };
    let old_class = old.and_then(|old| old.entry.class());
    let unchanged = same && old_class == Some(class);
    let place = old
        .filter(|_| old_class == Some(class))
        .and_then(|old| old.place);
    let kind = Kind::File {
        size_bytes: stat.size_bytes,
        content: Content::Bundled(class),
    };
    let content = NewContent::Small {
        old: place,
        unchanged,
    };
    (kind, content, attributes, stat)
}

fn attributes(stat: &Stat, xattrs: files::Xattrs) -> Arc<Attributes> {
    let (mode, uid, gid) = (stat.mode, stat.uid, stat.gid);
    Arc::new(Attributes {
        mode,
        uid,
        gid,
        xattrs,
    })
}

/// Returns the time of the last change of content, as trees keep it.
pub(super) fn file_time(stat: &Stat) -> FileTime {
    FileTime {
        seconds: stat.mtime.secs,
        nanoseconds: stat.mtime.nanos,
    }
}

/// Whether a person would call it unchanged. It may have been read all the same, in doubt.
fn looks_same(old: &Entry, stat: &Stat) -> bool {
    same_kind(&old.kind, stat.kind)
        && old.modified == file_time(stat)
        && has_size(&old.kind, stat.size_bytes)
}

/// Some files, the kernel's for example, say another length than they have when they are read.
fn has_size(old: &Kind, now: u64) -> bool {
    match old {
        Kind::File { size_bytes, .. } => *size_bytes == now,
        _ => true,
    }
}

fn same_kind(old: &Kind, new: files::Kind) -> bool {
    matches!(
        (old, new),
        (Kind::File { .. } | Kind::HardLink { .. }, files::Kind::File)
            | (Kind::Directory, files::Kind::Directory)
            | (Kind::Symlink { .. }, files::Kind::Symlink)
            | (Kind::Fifo, files::Kind::Fifo)
            | (Kind::Socket, files::Kind::Socket)
            | (Kind::CharDevice { .. }, files::Kind::CharDevice)
            | (Kind::BlockDevice { .. }, files::Kind::BlockDevice)
    )
}
