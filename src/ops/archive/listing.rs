//! Judges an archive as a whole, by reading it once, before anything of it is used.
//!
//! Whoever made it may mean harm. It is refused if a path is absolute, leads upward or is given
//! twice, lies below something that is no directory, or is longer than paths can be; if a link
//! leads out of the tree; if it has devices; if it unpacks to more than there is room for, or to
//! far more than such files do. Its own manifest must be true.
//!
//! Invariant: every path in a listing is plain, and what it lies below is a directory.

use crate::codec::sha256::Sha256Hasher;
use crate::codec::sha256::Sha256Sum;
use crate::context::Context;
use crate::context::Event;
use crate::error::Error;
use crate::error::Result;
use crate::format::tree::is_plain_path;
use crate::ops::archive::Kind;
use crate::ops::archive::Member;
use crate::ops::archive::findings::Findings;
use crate::ops::archive::limits::Bounds;
pub use crate::ops::archive::limits::FREE_OF_RATIO;
pub use crate::ops::archive::limits::Limits;
pub use crate::ops::archive::limits::OutsideLinks;
pub use crate::ops::archive::limits::Sums;
use crate::ops::archive::manifest;
use crate::ops::archive::manifest::ArchiveManifest;
use crate::ops::archive::members::Archive;
use crate::ops::archive::members::damaged;
use crate::ops::archive::members::read_error;
use crate::ops::archive::members::refused;
use crate::safeguard::Safeguard;
use crate::source::sqlite;
use std::collections::HashMap;
use std::io;
use std::io::ErrorKind;
use std::io::Read;

const BUFFER_BYTES: usize = 256 << 10;
/// Longer paths can be given to no program.
const PATH_BYTES_MAX: usize = 4095;
const NAME_BYTES_MAX: usize = 255;
/// So much of a path is shown: it may be an attack on whoever reads it.
const SHOWN_BYTES_MAX: usize = 200;

/// A member that was judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its path is plain.
    pub member: Member,
    /// The sum of a file.
    pub sha256: Option<Sha256Sum>,
    /// Whether a file begins like a SQLite database.
    pub is_sqlite: bool,
    /// Whether its content cannot be read.
    pub is_damaged: bool,
}

/// What is in an archive.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Everything but our own manifest, in the order of the archive.
    pub members: Vec<Listed>,
    /// What its manifest says, if it has one.
    pub manifest: Option<ArchiveManifest>,
    /// Plain bytes of all files.
    pub plain_bytes: u64,
    places: HashMap<Vec<u8>, Place>,
    /// The path of our own manifest.
    pub(super) own_manifest: Option<Vec<u8>>,
    /// Whether more may lie behind what could not be read.
    pub is_cut: bool,
}

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A member: its number.
    Member(usize),
    /// A directory that only others lie in.
    Implied,
}

impl Listing {
    /// Returns the member with this path.
    pub fn find(&self, path: &[u8]) -> Option<&Listed> {
        match self.places.get(path) {
            Some(Place::Member(index)) => self.members.get(*index),
            _ => None,
        }
    }
}

/// Reads an archive and judges it.
pub fn list(cx: &Context, archive: &Archive, limits: &Limits) -> Result<Listing> {
    let name = archive.name();
    let mut judge = Judge::new(cx, &name, archive, limits);
    archive.read(&mut |member, content| judge.take(member, content))?;
    let listing = judge.listing;
    if let Some(manifest) = &listing.manifest
        && limits.sums == Sums::Verified
    {
        manifest::verify(&name, manifest, &listing)?;
    }
    Ok(listing)
}

/// Reads an archive and judges it; damage does not end that, as far as there is a way on. Adds
/// everything that is damaged or not as its manifest says.
pub fn list_damaged(
    cx: &Context,
    archive: &Archive,
    limits: &Limits,
    findings: &mut Findings,
) -> Result<Listing> {
    let name = archive.name();
    let mut judge = Judge::new(cx, &name, archive, limits);
    judge.findings = Some(Findings::default());
    let read = archive.read(&mut |member, content| judge.take(member, content));
    let Judge {
        mut listing,
        findings: found,
        ..
    } = judge;
    *findings = found.unwrap_or_default();
    match read {
        Err(Error::Corrupt { reason, .. }) => {
            listing.is_cut = true;
            findings.add(b"", format!("it cannot be read to its end: {reason}"));
        }
        read => read?,
    }
    if let Some(manifest) = &listing.manifest {
        manifest::compare(manifest, &listing, manifest.standard(), findings);
    }
    Ok(listing)
}

struct Judge<'j> {
    cx: &'j Context,
    name: &'j str,
    limits: &'j Limits,
    bounds: Bounds,
    /// Bytes of paths and attributes, which stay in memory.
    held_bytes: u64,
    listing: Listing,
    buffer: Vec<u8>,
    is_first: bool,
    has_root: bool,
    /// Where damaged contents are told, if they are no reason to stop.
    findings: Option<Findings>,
}

impl<'j> Judge<'j> {
    fn new(cx: &'j Context, name: &'j str, archive: &Archive, limits: &'j Limits) -> Judge<'j> {
        Judge {
            cx,
            name,
            limits,
            bounds: Bounds::of(limits, archive.archive_bytes),
            held_bytes: 0,
            listing: Listing::default(),
            buffer: vec![0; BUFFER_BYTES],
            is_first: true,
            has_root: false,
            findings: None,
        }
    }
}

impl Judge<'_> {
    fn take(&mut self, mut member: Member, content: &mut dyn Read) -> Result<()> {
        self.cx.check()?;
        let is_first = std::mem::replace(&mut self.is_first, false);
        member.path = self.plain(&member)?;
        // The directory itself, as `tar -c .` has it.
        if member.path.is_empty() {
            let had_root = std::mem::replace(&mut self.has_root, true);
            return match member.kind {
                Kind::Directory if !had_root => Ok(()),
                Kind::Directory => Err(self.refuse("it has its own directory twice")),
                _ => Err(self.refuse("it has a file without a name")),
            };
        }
        self.place(&member)?;
        self.check_kind(&member)?;
        self.hold(&member)?;
        if let Kind::File(size_bytes) = member.kind
            && manifest::may_be(&member.path)
            && size_bytes <= self.bounds.manifest_bytes_max
        {
            return self.take_manifest(member, content, is_first);
        }
        let Kind::File(size_bytes) = member.kind else {
            self.push(member, None, false);
            return Ok(());
        };
        match (
            self.sum(&member.path, size_bytes, content),
            &mut self.findings,
        ) {
            (Err(Error::Corrupt { reason, .. }), Some(findings)) => {
                findings.add(&member.path, reason);
                self.push(member, None, false);
                if let Some(listed) = self.listing.members.last_mut() {
                    listed.is_damaged = true;
                }
            }
            (summed, _) => {
                let (sum, head) = summed?;
                self.push(member, Some(sum), head.starts_with(&sqlite::MAGIC[..]));
            }
        }
        Ok(())
    }

    fn push(&mut self, member: Member, sha256: Option<Sha256Sum>, is_sqlite: bool) {
        self.listing.members.push(Listed {
            member,
            sha256,
            is_sqlite,
            is_damaged: false,
        });
        self.cx.progress.event(Event::Done { files: 1, bytes: 0 });
    }

    /// Counts what of a member stays in memory.
    fn hold(&mut self, member: &Member) -> Result<()> {
        let link_bytes = match &member.kind {
            Kind::Symlink(target) | Kind::HardLink(target) => target.len(),
            _ => 0,
        };
        let of_xattrs = |(name, value): &(Vec<u8>, Vec<u8>)| name.len() + value.len();
        let xattr_bytes: usize = member.xattrs.iter().map(of_xattrs).sum();
        // The path is in two places.
        self.held_bytes += (2 * member.path.len() + link_bytes + xattr_bytes) as u64;
        match self.held_bytes > self.bounds.held_bytes_max {
            true => Err(self.refuse("its names and attributes take far more than its length")),
            false => Ok(()),
        }
    }

    fn take_manifest(
        &mut self,
        member: Member,
        content: &mut dyn Read,
        is_first: bool,
    ) -> Result<()> {
        let Kind::File(size_bytes) = member.kind else {
            return Ok(());
        };
        let mut bytes = Vec::new();
        let mut content = content.take(size_bytes);
        content
            .read_to_end(&mut bytes)
            .map_err(read_error(self.name))?;
        let (sum, _) = self.sum(&member.path, size_bytes, &mut &bytes[..])?;
        let manifest = match manifest::parse(self.name, &bytes) {
            Err(error) if self.limits.sums == Sums::Verified => return Err(error),
            manifest => manifest.ok().flatten(),
        };
        match manifest {
            Some(manifest) if manifest.is_own() && is_first => {
                self.listing.places.remove(&member.path);
                self.listing.own_manifest = Some(member.path);
                self.listing.manifest = Some(manifest);
                return Ok(());
            }
            // One of the application's own, or just a file.
            Some(manifest) if self.listing.manifest.is_none() => {
                self.listing.manifest = Some(manifest);
            }
            _ => {}
        }
        self.push(member, Some(sum), false);
        Ok(())
    }

    /// Returns a path as trees have it, or refuses it.
    fn plain(&self, member: &Member) -> Result<Vec<u8>> {
        let refuse = |reason: &str| Err(self.refuse_path(&member.path, reason));
        let mut path = &member.path[..];
        while let Some(rest) = path.strip_prefix(b"./") {
            path = rest;
        }
        if !Safeguard::PlainPaths.holds() {
            return Ok(path.to_vec());
        }
        if path.starts_with(b"/") {
            return refuse("it is absolute");
        }
        if member.kind == Kind::Directory {
            path = path.strip_suffix(b"/").unwrap_or(path);
            path = if path == b"." { b"" } else { path };
        }
        if path.split(|byte| *byte == b'/').any(|part| part == b"..") {
            return refuse("it leads upward");
        }
        if !is_plain_path(path) {
            return refuse("it is no path");
        }
        let mut parts = path.split(|byte| *byte == b'/');
        if path.len() > PATH_BYTES_MAX || parts.any(|part| part.len() > NAME_BYTES_MAX) {
            return refuse("it is longer than paths can be");
        }
        Ok(path.to_vec())
    }

    /// Gives a member its place, which must be free, and below directories.
    fn place(&mut self, member: &Member) -> Result<()> {
        let path = &member.path;
        if self.listing.places.len() >= self.bounds.members_max && Safeguard::MembersBounded.holds()
        {
            return Err(self.refuse("it has more members than it may"));
        }
        // From below: what has its place lies below directories already.
        let slashes = path.iter().enumerate().rev();
        for (end, _) in slashes.filter(|(_, byte)| **byte == b'/') {
            let above = &path[..end];
            match self.listing.places.get(above) {
                None => {
                    self.held_bytes += above.len() as u64;
                    self.listing.places.insert(above.to_vec(), Place::Implied);
                }
                Some(Place::Implied) => break,
                Some(Place::Member(index)) => {
                    let found = self.listing.members.get(*index);
                    if found.is_none_or(|found| found.member.kind != Kind::Directory)
                        && Safeguard::BelowDirectories.holds()
                    {
                        let reason = "it lies below something that is no directory";
                        return Err(self.refuse_path(path, reason));
                    }
                    break;
                }
            }
        }
        let number = self.listing.members.len();
        let before = self
            .listing
            .places
            .insert(path.clone(), Place::Member(number));
        match before {
            None => Ok(()),
            Some(Place::Implied) if member.kind == Kind::Directory => Ok(()),
            Some(Place::Implied) => {
                Err(self.refuse_path(path, "it is no directory, and others lie below it"))
            }
            Some(Place::Member(_)) if !Safeguard::PathsOnce.holds() => Ok(()),
            Some(Place::Member(_)) => Err(self.refuse_path(path, "it is there twice")),
        }
    }

    fn check_kind(&self, member: &Member) -> Result<()> {
        let path = &member.path;
        match &member.kind {
            Kind::CharDevice(..) | Kind::BlockDevice(..) if Safeguard::DevicesRefused.holds() => {
                Err(self.refuse_path(path, "it is a device"))
            }
            Kind::HardLink(first) => {
                let first = plain_link(first);
                let target = self.listing.find(&first).map(|target| &target.member.kind);
                match target {
                    Some(Kind::File(_)) => Ok(()),
                    _ if !Safeguard::HardLinksInside.holds() => Ok(()),
                    _ => {
                        let reason = "it is a hard link to no file that comes before it";
                        Err(self.refuse_path(path, reason))
                    }
                }
            }
            Kind::Symlink(target) if target.is_empty() || target.contains(&0) => {
                Err(self.refuse_path(path, "it is a symlink to nothing"))
            }
            Kind::Symlink(target) if target.len() > PATH_BYTES_MAX => {
                Err(self.refuse_path(path, "it is a symlink to what is longer than paths can be"))
            }
            Kind::Symlink(target) if self.limits.outside == OutsideLinks::Refused => {
                match leads_out(path, target) && Safeguard::SymlinksInside.holds() {
                    true => Err(self.refuse_path(path, "it is a symlink that may lead out of it")),
                    false => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// Reads a file to its end and returns its sum and its first bytes.
    fn sum(
        &mut self,
        path: &[u8],
        size_bytes: u64,
        content: &mut dyn Read,
    ) -> Result<(Sha256Sum, Vec<u8>)> {
        let mut hasher = Sha256Hasher::new();
        let mut head = Vec::new();
        let mut bytes = 0;
        loop {
            let len = match content.read(&mut self.buffer) {
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    let error = read_error(self.name)(error);
                    return Err(self.about(path, error));
                }
            };
            if len == 0 {
                break;
            }
            self.cx.check()?;
            bytes += len as u64;
            self.listing.plain_bytes += len as u64;
            self.check_bytes()?;
            if head.is_empty() {
                head.extend_from_slice(&self.buffer[..len.min(sqlite::MAGIC.len())]);
            }
            hasher.update(&self.buffer[..len]);
            self.cx.progress.event(Event::Done {
                files: 0,
                bytes: len as u64,
            });
        }
        match bytes == size_bytes {
            true => Ok((hasher.sum(), head)),
            false => Err(self.about(path, damaged(self.name, "it is not as long as it says"))),
        }
    }

    /// Names the member whose content is damaged, unless that is told beside it.
    fn about(&self, path: &[u8], error: Error) -> Error {
        match error {
            Error::Corrupt { object, reason } if self.findings.is_none() => {
                let path = String::from_utf8_lossy(path);
                let reason = format!("\"{path}\": {reason}");
                Error::Corrupt { object, reason }
            }
            error => error,
        }
    }

    fn check_bytes(&self) -> Result<()> {
        if self.listing.plain_bytes > self.limits.plain_bytes_max {
            let full = io::Error::from(ErrorKind::StorageFull);
            return Err(Error::io("unpack", self.name)(full));
        }
        let is_bomb = self.listing.plain_bytes > self.bounds.plain_bytes_max;
        match is_bomb && Safeguard::BytesBounded.holds() {
            true => Err(self.refuse("it unpacks to far more than its length")),
            false => Ok(()),
        }
    }

    fn refuse(&self, reason: &str) -> Error {
        refused(self.name, reason)
    }

    fn refuse_path(&self, path: &[u8], reason: &str) -> Error {
        let (shown, more) = match path.len() {
            ..=SHOWN_BYTES_MAX => (path, ""),
            _ => (&path[..SHOWN_BYTES_MAX], "…"),
        };
        let shown = String::from_utf8_lossy(shown);
        self.refuse(&format!("\"{shown}{more}\": {reason}"))
    }
}

/// Returns the path that a hard link in an archive means.
pub(super) fn plain_link(mut first: &[u8]) -> Vec<u8> {
    while let Some(rest) = first.strip_prefix(b"./") {
        first = rest;
    }
    first.to_vec()
}

/// Returns whether a symlink could lead out of the tree. Only steps up at the beginning are
/// certain: further on, what comes before them may be a symlink itself.
fn leads_out(path: &[u8], target: &[u8]) -> bool {
    let depth = path.iter().filter(|byte| **byte == b'/').count();
    let is_here = |part: &&[u8]| part.is_empty() || *part == b".";
    let parts: Vec<&[u8]> = target.split(|byte| *byte == b'/').collect();
    let parts: Vec<&[u8]> = parts.into_iter().filter(|part| !is_here(part)).collect();
    let up = parts.iter().take_while(|part| **part == b"..").count();
    target.starts_with(b"/") || up > depth || parts[up..].contains(&&b".."[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symlinks_stay_in_the_tree_or_may_lead_out() {
        for inside in [
            "b", "./b", "../b", "../../b", "c/d", "..", "../..", "c//d/.",
        ] {
            assert!(!leads_out(b"x/y/a", inside.as_bytes()), "{inside}");
        }
        for outside in ["/b", "../../../b", "c/../d", "../c/../../../b"] {
            assert!(leads_out(b"x/y/a", outside.as_bytes()), "{outside}");
        }
        assert!(leads_out(b"a", b".."));
    }
}
