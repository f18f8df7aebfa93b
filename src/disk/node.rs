//! What is known about one node of a file tree without reading its content, and what may be wrong
//! with it. Shared by reading (`source::files`) and writing (`disk::jail`); makes no system call.

use rustix::fs::FileType;
use rustix::io::Errno;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

/// A point in time as file systems keep it; the range is wider than that of `Timestamp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FileTime {
    /// Seconds since 1970, negative before.
    pub secs: i64,
    /// Nanoseconds to add, below 10⁹.
    pub nanos: u32,
}

/// What `stat` says about a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    pub kind: Kind,
    /// The 12 permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size_bytes: u64,
    pub mtime: FileTime,
    pub ctime: FileTime,
    pub device: u64,
    pub inode: u64,
    pub links: u64,
    /// Major and minor number if the node is a device.
    pub rdev: (u32, u32),
    /// Units of 512 bytes on disk.
    pub blocks: u64,
}

impl Stat {
    /// Returns true if nothing suggests that the content differs between the two.
    pub fn same_content(&self, other: &Stat) -> bool {
        self.kind == other.kind
            && self.device == other.device
            && self.inode == other.inode
            && self.size_bytes == other.size_bytes
            && self.mtime == other.mtime
            && self.ctime == other.ctime
    }

    /// Returns true if the node is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == Kind::Directory
    }
}

impl From<rustix::fs::Stat> for Stat {
    #[allow(
        clippy::unnecessary_cast,
        reason = "the widths differ between machines"
    )]
    fn from(raw: rustix::fs::Stat) -> Stat {
        let kind = match FileType::from_raw_mode(raw.st_mode) {
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::CharacterDevice => Kind::CharDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            _ => Kind::File,
        };
        let time = |secs: i64, nanos: u64| FileTime {
            secs,
            nanos: nanos as u32,
        };
        Stat {
            kind,
            mode: raw.st_mode as u32 & 0o7777,
            uid: raw.st_uid,
            gid: raw.st_gid,
            size_bytes: raw.st_size as u64,
            mtime: time(raw.st_mtime as i64, raw.st_mtime_nsec as u64),
            ctime: time(raw.st_ctime as i64, raw.st_ctime_nsec as u64),
            device: raw.st_dev as u64,
            inode: raw.st_ino as u64,
            links: raw.st_nlink as u64,
            rdev: (
                rustix::fs::major(raw.st_rdev),
                rustix::fs::minor(raw.st_rdev),
            ),
            blocks: raw.st_blocks as u64,
        }
    }
}

/// The extended attributes of a node, ACLs included: (name, value), sorted by name.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// What can be set on a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attributes {
    /// The 12 permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: FileTime,
    pub xattrs: Xattrs,
}

/// Something that is wrong with one node and does not stop the work on the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which node, relative to the root.
    pub path: Vec<u8>,
    /// Reading: `vanished`, `denied`, `changed`, `unreadable`.
    /// Writing: `owner`, `mode`, `xattr`, `mtime`, `device`.
    pub code: &'static str,
    /// What was tried and why it failed.
    pub message: String,
}

impl Problem {
    /// Returns the problem of a node that could not be read.
    pub(crate) fn read(path: &[u8], action: &str, errno: Errno) -> Problem {
        let code = match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE => "vanished",
            Errno::ACCESS | Errno::PERM => "denied",
            _ => "unreadable",
        };
        Problem::new(path, code, format!("cannot {action}: {errno}"))
    }

    pub(crate) fn new(path: &[u8], code: &'static str, message: String) -> Problem {
        Problem {
            path: path.to_vec(),
            code,
            message,
        }
    }
}
