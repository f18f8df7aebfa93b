//! Every durable file write: primitive operations behind a trait, and the orders that make it safe.
//!
//! `Disk` has one method per system call, so that a simulated disk can cut between any two of them.
//! The functions here compose them; nobody else spells out a durability order. A file appears under
//! its final name only when it is complete. Temporary names start with a dot: no object has one.

pub(crate) mod attributes;
pub(crate) mod beneath;
pub mod jail;
pub mod node;
pub mod output;
mod real;
mod simulated;
mod unnamed;

pub use real::RealDisk;
pub use simulated::Fault;
pub use simulated::Loss;
pub use simulated::SimulatedDisk;
pub use unnamed::unnamed_file;

use crate::context::Timestamp;
use crate::error::Error;
use crate::error::Result;
use crate::safeguard::Safeguard;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;

const TEMP_PREFIX: &str = ".tmp-";
/// What a disk calls making the names in a directory durable, when that fails.
pub(crate) const SYNC_DIRECTORY: &str = "sync directory";

/// How a creation that never replaces ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// This call made it.
    Created,
    /// The name was taken; what is there is untouched.
    Taken,
}

/// How a hard link ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// The file has the new name too.
    Made,
    /// The new name was taken.
    Exists,
    /// This file system has no hard links.
    Unsupported,
}

/// A regular file in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// The name within the directory.
    pub name: OsString,
    /// The length of the file.
    pub file_bytes: u64,
    /// When its content was last written.
    pub modified: Timestamp,
}

/// Primitive file operations on absolute paths. None is durable unless it says so.
pub trait Disk: Send + Sync {
    /// Creates an empty file, readable by its owner only; fails with `AlreadyExists`.
    fn create(&self, path: &Path) -> Result<Box<dyn NewFile>>;

    /// Gives the file a second name, replacing nothing.
    fn link_new(&self, from: &Path, to: &Path) -> Result<Link>;

    /// Renames the file, replacing nothing. For file systems without hard links.
    fn rename_new(&self, from: &Path, to: &Path) -> Result<Published>;

    /// Renames the file, replacing what has that name.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;

    /// Removes the file; removing what is not there is fine.
    fn remove(&self, path: &Path) -> Result<()>;

    /// Creates a directory that only its owner may enter; `Taken` if there is one.
    fn create_dir(&self, path: &Path) -> Result<Published>;

    /// Makes the names in the directory durable; a failure is called `SYNC_DIRECTORY`.
    fn sync_dir(&self, path: &Path) -> Result<()>;

    /// Returns the whole file, `None` if there is none.
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>>;

    /// Returns this range, cut off where the file ends, `None` if there is no file.
    fn read_range(&self, path: &Path, range: Range<u64>) -> Result<Option<Vec<u8>>>;

    /// Returns the length of the file, `None` if there is none.
    fn file_bytes(&self, path: &Path) -> Result<Option<u64>>;

    /// Returns true if there is something, following symbolic links.
    fn exists(&self, path: &Path) -> Result<bool>;

    /// Returns the regular files of a directory, in no particular order.
    fn list(&self, dir: &Path) -> Result<Vec<FileEntry>>;

    /// Returns the one path that everybody reaches this place by; fails if it is not there.
    fn canonical(&self, path: &Path) -> Result<PathBuf>;

    /// Returns a number that no caller on any host got before.
    fn unique(&self) -> Result<u64>;
}

/// A file being written. It is synced through the handle that wrote it: a handle opened later
/// may not be told of a failed write-back.
pub trait NewFile: Send {
    /// Appends all of these bytes.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;

    /// Makes the content durable, but not the name.
    fn sync(&mut self) -> Result<()>;
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    Durable,
    Disposable,
}

impl Content {
    fn durable(sync: Safeguard) -> Content {
        match sync.holds() {
            true => Content::Durable,
            false => Content::Disposable,
        }
    }
}

/// Creates a file with this content unless the name is taken.
///
/// On success the file survives power loss, whoever made it; of several callers exactly one gets
/// `Created`. After an error the file may or may not be there, but never in part.
pub fn publish_new(disk: &dyn Disk, dir: &Path, name: &str, bytes: &[u8]) -> Result<Published> {
    // Order: content, name, directory. The content must be durable before the name can be seen,
    // or a crash leaves the name with part of the bytes.
    let temp = write_temp(disk, dir, bytes, Content::durable(Safeguard::ContentSync))?;
    let published = place_new(disk, &temp, &dir.join(name)).and_then(|published| {
        // Order: also when taken. Whoever made the name may have been killed before its own sync,
        // and our caller will build on what it found.
        let sync = match published {
            Published::Created => Safeguard::NameSync,
            Published::Taken => Safeguard::TakenNameSync,
        };
        if sync.holds() {
            disk.sync_dir(dir)?;
        }
        Ok(published)
    });
    // The outcome is settled; a temp that stays is waste, which `remove_stale_temps` collects.
    let _ = disk.remove(&temp);
    published
}

/// Replaces a file, or makes it. A crash leaves the old or the new content; on success the new.
pub fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<()> {
    let dir = directory_of(path)?;
    // Order: content, name, directory; see `publish_new`.
    let temp = write_temp(disk, dir, bytes, Content::durable(Safeguard::JournalSync))?;
    rename_temp(disk, &temp, path)?;
    match Safeguard::JournalNameSync.holds() {
        true => disk.sync_dir(dir),
        false => Ok(()),
    }
}

/// Replaces a file that can be made again at any time. Other processes see the old or the new
/// content; after power loss it may be damaged, so the reader must be able to tell.
pub fn replace_cache(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<()> {
    let temp = write_temp(disk, directory_of(path)?, bytes, Content::Disposable)?;
    rename_temp(disk, &temp, path)
}

/// Creates a directory and its parents, durably; fine if they exist.
pub fn create_dirs(disk: &dyn Disk, dir: &Path) -> Result<()> {
    let parent = match dir.parent() {
        None => return Ok(()),
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
    };
    if parent != Path::new(".") {
        create_dirs(disk, parent)?;
    }
    let created = match disk.exists(dir)? {
        true => Published::Taken,
        false => disk.create_dir(dir)?,
    };
    // Order: also when it exists, all the way up, for another process may have made it just now
    // and died. If so, the parent can be synced; a parent that cannot is older than both.
    if !Safeguard::ParentSync.holds() {
        return Ok(());
    }
    match disk.sync_dir(parent) {
        Err(error) if created == Published::Taken && cannot_change(&error) => Ok(()),
        synced => synced,
    }
}

/// Removes the temps that were last written before this time and returns how many.
///
/// A live writer whose temp is removed fails and its caller tries again, so any limit is safe; one
/// longer than a write can take is kind.
pub fn remove_stale_temps(disk: &dyn Disk, dir: &Path, before: Timestamp) -> Result<u64> {
    let mut removed = 0;
    for entry in disk.list(dir)? {
        if is_temp(&entry.name) && entry.modified < before {
            disk.remove(&dir.join(&entry.name))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Returns true for the ways in which directories that we cannot write to refuse a sync: no right
/// to read them, a read-only file system, or one without syncs (autofs, squashfs).
fn cannot_change(error: &Error) -> bool {
    match error {
        Error::Io { source, .. } => matches!(
            source.kind(),
            io::ErrorKind::PermissionDenied
                | io::ErrorKind::ReadOnlyFilesystem
                | io::ErrorKind::InvalidInput
        ),
        _ => false,
    }
}

fn is_temp(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(TEMP_PREFIX.as_bytes())
}

fn directory_of(path: &Path) -> Result<&Path> {
    path.parent()
        .ok_or_else(|| Error::io("replace", path)(io::Error::from(io::ErrorKind::InvalidInput)))
}

/// The name must be unique for ever, not only while it exists: a writer that found its temp
/// removed and another's in its place would publish the other's bytes.
fn write_temp(disk: &dyn Disk, dir: &Path, bytes: &[u8], content: Content) -> Result<PathBuf> {
    let temp = dir.join(format!("{TEMP_PREFIX}{:016x}", disk.unique()?));
    let mut file = disk.create(&temp)?;
    let written = file.write(bytes).and_then(|()| match content {
        Content::Durable => match file.sync() {
            Err(_) if !Safeguard::SyncFailureHeeded.holds() => Ok(()),
            synced => synced,
        },
        Content::Disposable => Ok(()),
    });
    match written {
        Ok(()) => Ok(temp),
        Err(error) => {
            let _ = disk.remove(&temp);
            Err(error)
        }
    }
}

fn place_new(disk: &dyn Disk, temp: &Path, path: &Path) -> Result<Published> {
    if !Safeguard::PutNeverReplaces.holds() {
        return disk.rename(temp, path).map(|()| Published::Created);
    }
    match disk.link_new(temp, path)? {
        Link::Made => Ok(Published::Created),
        Link::Exists => Ok(Published::Taken),
        Link::Unsupported => disk.rename_new(temp, path),
    }
}

fn rename_temp(disk: &dyn Disk, temp: &Path, path: &Path) -> Result<()> {
    disk.rename(temp, path).inspect_err(|_| {
        let _ = disk.remove(temp);
    })
}
