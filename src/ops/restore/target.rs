//! Compares entries with what is in the target now.

use crate::disk::jail::Jail;
use crate::disk::jail::TEMP_PREFIX;
use crate::disk::node;
use crate::disk::node::Stat;
use crate::error::Error;
use crate::error::Result;
use crate::format::tree::Entry;
use crate::format::tree::FileTime;
use crate::format::tree::Kind;
use crate::source::files::Tree;
use std::path::Path;

/// How an entry compares with what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing has the name.
    Absent,
    /// There is nothing to do.
    Equal,
    /// The content is right, mode or owner are not.
    Attributes,
    /// The content is right, extended attributes are not.
    Xattrs,
    /// Something else is there.
    Different,
}

/// The target directory, which exists.
pub(super) struct Target {
    pub jail: Jail,
    tree: Tree,
    /// Whether owners can be given. Where they cannot, a wrong one is no difference: it would be
    /// found again in every run.
    privileged: bool,
}

impl Target {
    /// Opens the target; the root is made if it is missing.
    pub(super) fn open(root: &Path) -> Result<Target> {
        Ok(Target {
            jail: Jail::open(root)?,
            tree: Tree::open(root)?,
            privileged: rustix::process::geteuid().is_root(),
        })
    }

    /// Returns the target as a tree to walk.
    pub(super) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Compares an entry that is no hard link.
    pub(super) fn compare(&self, entry: &Entry) -> Result<State> {
        let Some(stat) = self.stat(&entry.path)? else {
            return Ok(State::Absent);
        };
        let path = &entry.path[..];
        let same_attributes = self.same_owner(&stat, entry) && self.same_mode(&stat, entry);
        let rest = match (&entry.kind, stat.kind) {
            (Kind::Directory, node::Kind::Directory) => same_time(stat.mtime, entry.modified),
            (Kind::File { size_bytes, .. }, node::Kind::File)
                if stat.size_bytes == *size_bytes && same_time(stat.mtime, entry.modified) =>
            {
                true
            }
            (Kind::Symlink { target }, node::Kind::Symlink)
                if self.tree.read_link(path).is_ok_and(|now| now == *target)
                    && self.same_owner(&stat, entry) =>
            {
                return Ok(State::Equal);
            }
            (Kind::Fifo, node::Kind::Fifo) | (Kind::Socket, node::Kind::Socket)
                if same_attributes =>
            {
                return Ok(State::Equal);
            }
            (Kind::CharDevice { major, minor }, node::Kind::CharDevice)
            | (Kind::BlockDevice { major, minor }, node::Kind::BlockDevice)
                if stat.rdev == (*major, *minor) && same_attributes =>
            {
                return Ok(State::Equal);
            }
            _ => return Ok(State::Different),
        };
        Ok(match (rest && same_attributes, self.same_xattrs(entry)) {
            (true, true) => State::Equal,
            (true, false) => State::Xattrs,
            (false, _) => State::Attributes,
        })
    }

    /// Compares a hard link with the entry of the name it links to.
    pub(super) fn compare_link(&self, path: &[u8], first: &[u8]) -> Result<State> {
        let Some(stat) = self.stat(path)? else {
            return Ok(State::Absent);
        };
        Ok(match self.stat(first)? {
            Some(other) if (stat.device, stat.inode) == (other.device, other.inode) => State::Equal,
            _ => State::Different,
        })
    }

    /// Returns what is at the path. Below something that is no directory there is nothing.
    pub(super) fn stat(&self, path: &[u8]) -> Result<Option<Stat>> {
        match self.jail.stat(path) {
            Err(Error::Refused { .. }) => Ok(None),
            stat => stat,
        }
    }

    fn same_owner(&self, stat: &Stat, entry: &Entry) -> bool {
        let wanted = (entry.attributes.uid, entry.attributes.gid);
        !self.privileged || (stat.uid, stat.gid) == wanted
    }

    fn same_mode(&self, stat: &Stat, entry: &Entry) -> bool {
        let owned = (stat.uid, stat.gid) == (entry.attributes.uid, entry.attributes.gid);
        // Without the right owner the jail leaves the special bits out.
        let mask = if owned { 0o7777 } else { 0o1777 };
        stat.mode & mask == entry.attributes.mode & mask
    }

    fn same_xattrs(&self, entry: &Entry) -> bool {
        let Ok(now) = self.tree.xattrs(&entry.path) else {
            return false;
        };
        // What the system itself adds, such as a security label, is no difference.
        let is_ours = |name: &[u8]| name.starts_with(b"user.") || name.starts_with(b"system.posix");
        let missing = entry
            .attributes
            .xattrs
            .iter()
            .any(|wanted| !now.contains(wanted));
        let stray = now
            .iter()
            .any(|one| is_ours(&one.0) && !entry.attributes.xattrs.contains(one));
        !missing && !stray
    }
}

/// Returns whether a name is one the jail gives to what is not finished.
pub(super) fn is_leftover(path: &[u8]) -> bool {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    let number = name.strip_prefix(TEMP_PREFIX.as_bytes());
    number.is_some_and(|number| number.len() == 16 && number.iter().all(u8::is_ascii_hexdigit))
}

/// Returns the attributes of an entry as they are set on a node.
pub(super) fn node_attributes(entry: &Entry) -> node::Attributes {
    node::Attributes {
        mode: entry.attributes.mode,
        uid: entry.attributes.uid,
        gid: entry.attributes.gid,
        mtime: node::FileTime {
            secs: entry.modified.seconds,
            nanos: entry.modified.nanoseconds,
        },
        xattrs: entry.attributes.xattrs.clone(),
    }
}

fn same_time(now: node::FileTime, wanted: FileTime) -> bool {
    (now.secs, now.nanos) == (wanted.seconds, wanted.nanoseconds)
}
