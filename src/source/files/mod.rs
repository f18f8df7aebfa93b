//! Reads a tree of files: what there is (`Walk`), and the content and attributes of each node.
//!
//! A node that cannot be read is a `Problem`, never an error; only a root that cannot be read is.
//! Whether anything changed since the last backup is for the caller to decide from the `Stat`s.
//!
//! Invariant: below the root no symlink is followed and only regular files and directories are
//! opened for reading.

mod patterns;
mod reader;
mod rules;
mod walk;

pub use crate::disk::node::FileTime;
pub use crate::disk::node::Kind;
pub use crate::disk::node::Problem;
pub use crate::disk::node::Stat;
pub use crate::disk::node::Xattrs;
pub use patterns::Fit;
pub use patterns::Patterns;
pub use reader::FileReader;
pub use rules::Rules;
pub use walk::CacheDirs;
pub use walk::FileSystems;
pub use walk::Item;
pub use walk::Walk;
pub use walk::WalkOptions;

use crate::disk::attributes::Handle;
use crate::disk::beneath;
use crate::disk::beneath::Beneath;
use crate::error::Result;
use rustix::fd::AsFd;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::path::Path;

/// A root directory to read below. May be used from several threads at once.
#[derive(Debug)]
pub struct Tree {
    beneath: Beneath,
}

impl Tree {
    /// Opens the root, which must be a directory that can be read.
    pub fn open(root: &Path) -> Result<Tree> {
        let beneath = Beneath::open_root(root)?;
        Ok(Tree { beneath })
    }

    /// Opens a regular file.
    pub fn open_file(&self, path: &[u8]) -> Result<FileReader, Problem> {
        FileReader::open(&self.beneath, path)
    }

    /// Returns what stands under a path without opening it, `None` if nothing does.
    pub fn stat(&self, path: &[u8]) -> Result<Option<Stat>, Problem> {
        match self
            .beneath
            .open(path, OFlags::PATH)
            .and_then(beneath::fstat)
        {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(Problem::read(path, "look at", errno)),
        }
    }

    /// Returns the target of a symlink.
    pub fn read_link(&self, path: &[u8]) -> Result<Vec<u8>, Problem> {
        let target = self
            .beneath
            .open(path, OFlags::PATH)
            .and_then(|link| rustix::fs::readlinkat(link, "", Vec::new()));
        match target {
            Ok(target) => Ok(target.into_bytes()),
            // What is there now is no symlink.
            Err(Errno::INVAL) => Err(Problem::read(path, "read the link", Errno::NOENT)),
            Err(errno) => Err(Problem::read(path, "read the link", errno)),
        }
    }

    /// Returns the extended attributes of any node without opening it for reading. For a file
    /// that is open anyway, `FileReader::xattrs` is cheaper.
    pub fn xattrs(&self, path: &[u8]) -> Result<Xattrs, Problem> {
        self.beneath
            .open(path, OFlags::PATH)
            .and_then(|node| Handle::path_only(node.as_fd()).xattrs())
            .map_err(|errno| Problem::read(path, "read the extended attributes", errno))
    }
}
