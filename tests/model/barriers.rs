//! A simulated disk on which one barrier is left out, to see that a history notices.

use statekeep::disk::Disk;
use statekeep::disk::FileEntry;
use statekeep::disk::Link;
use statekeep::disk::NewFile;
use statekeep::disk::Published;
use statekeep::disk::SimulatedDisk;
use statekeep::error::Result;
use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;

/// What is left out in one folder of the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Barrier {
    /// Nothing.
    None,
    /// Syncing the content of files.
    Content(&'static str),
    /// Syncing the directory.
    Names(&'static str),
    /// Writing beside the name and linking afterwards: the name can be seen first.
    Aside(&'static str),
}

impl Barrier {
    fn is(self, barrier: fn(&'static str) -> Barrier, dir: &Path) -> bool {
        let name = dir.file_name().and_then(std::ffi::OsStr::to_str);
        ["packs", "log", "state"]
            .into_iter()
            .any(|folder| name == Some(folder) && self == barrier(folder))
    }
}

/// The disk without this barrier.
#[derive(Clone)]
pub(crate) struct Leaky {
    pub(crate) disk: SimulatedDisk,
    pub(crate) barrier: Barrier,
}

struct Unsynced(Box<dyn NewFile>);

impl NewFile for Unsynced {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write(bytes)
    }

    fn sync(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Disk for Leaky {
    fn create(&self, path: &Path) -> Result<Box<dyn NewFile>> {
        let file = self.disk.create(path)?;
        let dir = path.parent().unwrap_or(path);
        Ok(match self.barrier.is(Barrier::Content, dir) {
            true => Box::new(Unsynced(file)),
            false => file,
        })
    }

    fn link_new(&self, from: &Path, to: &Path) -> Result<Link> {
        let dir = to.parent().unwrap_or(to);
        if !self.barrier.is(Barrier::Aside, dir) {
            return self.disk.link_new(from, to);
        }
        // As if the bytes were written under the name itself.
        let bytes = self.disk.read(from)?.unwrap_or_default();
        if self.disk.exists(to)? {
            return Ok(Link::Exists);
        }
        let mut file = self.disk.create(to)?;
        let (first, rest) = bytes.split_at(bytes.len() / 2);
        file.write(first)?;
        file.write(rest)?;
        file.sync()?;
        Ok(Link::Made)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> Result<Published> {
        self.disk.rename_new(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.disk.remove(path)
    }

    fn create_dir(&self, path: &Path) -> Result<Published> {
        self.disk.create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        match self.barrier.is(Barrier::Names, path) {
            true => Ok(()),
            false => self.disk.sync_dir(path),
        }
    }

    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        self.disk.read(path)
    }

    fn read_range(&self, path: &Path, range: Range<u64>) -> Result<Option<Vec<u8>>> {
        self.disk.read_range(path, range)
    }

    fn file_bytes(&self, path: &Path) -> Result<Option<u64>> {
        self.disk.file_bytes(path)
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        self.disk.exists(path)
    }

    fn list(&self, dir: &Path) -> Result<Vec<FileEntry>> {
        self.disk.list(dir)
    }

    fn canonical(&self, path: &Path) -> Result<PathBuf> {
        self.disk.canonical(path)
    }

    fn unique(&self) -> Result<u64> {
        self.disk.unique()
    }
}
