//! Archives that common tools read and write: tar, bare or compressed, and zip.
//!
//! `bytes` decrypts, `blocks` compresses on all cores; `tar_writer` and `zip_writer` write members;
//! `members` reads them one after the other; `listing` judges an archive as a whole before anybody
//! acts on it, and `unpack` then puts it on the disk; `verify` tells whether it is what it was. No
//! idea what a snapshot is.

pub(super) mod blocks;
pub mod bytes;
pub mod checksum;
pub mod findings;
mod limits;
pub mod listing;
pub mod manifest;
mod members;
pub mod place;
mod tar_reader;
pub(super) mod tar_writer;
pub mod unpack;
pub mod verify;
mod zip_reader;
pub(super) mod zip_writer;

pub use members::Archive;
pub(super) use members::read_error;

use crate::format::tree::FileTime;
use std::fmt;

/// The ways to pack many files into one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A tar, compressed by gzip.
    TarGz,
    /// A tar, compressed by zstd.
    TarZst,
    /// A tar.
    Tar,
    /// A zip.
    Zip,
}

impl Format {
    /// Returns how the names of such files end.
    pub fn extension(self) -> &'static str {
        match self {
            Format::TarGz => "tar.gz",
            Format::TarZst => "tar.zst",
            Format::Tar => "tar",
            Format::Zip => "zip",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.extension())
    }
}

/// What a member of an archive is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file of this length.
    File(u64),
    /// A symbolic link to this.
    Symlink(Vec<u8>),
    /// Another name of the member with this path.
    HardLink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice(u32, u32),
    /// A block device.
    BlockDevice(u32, u32),
}

/// A member of an archive without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Relative, with `/` between its parts and none at either end.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// The twelve permission bits.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// When the content changed last.
    pub modified: FileTime,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}
