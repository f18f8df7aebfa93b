//! A private directory for what is restored only to be looked at. It goes with its owner, and what
//! an owner that was killed left goes with the next one.

use crate::error::Error;
use crate::error::Result;
use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

/// The directory.
pub(super) struct Scratch {
    path: PathBuf,
    /// Holds a lock for as long as the directory is in use, whatever becomes of the process.
    lock: File,
}

impl Scratch {
    /// Makes a directory that nobody else may enter (I9), and removes those that nobody uses.
    /// Their names begin with the prefix, and nobody else has such names.
    pub(super) fn create(base: &Path, prefix: &str) -> Result<Scratch> {
        remove_leftovers(base, prefix);
        for number in 0..u32::MAX {
            let path = base.join(format!("{prefix}{}-{number}", std::process::id()));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(Error::io("make", &path)(error)),
            }
            // Somebody who found it before it was locked took it for a leftover.
            if let Some(lock) = lock(&path) {
                return Ok(Scratch { path, lock });
            }
        }
        Err(Error::io("make a directory in", base)(
            io::ErrorKind::AlreadyExists.into(),
        ))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it. What was restored is private, so that failing to is an error.
    pub(super) fn remove(self) -> Result<()> {
        let removed = remove_tree(&self.path);
        drop(self.lock);
        removed.map_err(Error::io("remove", &self.path))
    }
}

/// Returns a lock on a directory of this user; `None` if somebody has one or it went meanwhile.
fn lock(path: &Path) -> Option<File> {
    let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::NOFOLLOW;
    let flags = i32::try_from(flags.bits()).ok()?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .ok()?;
    file.try_lock().ok()?;
    let (held, there) = (file.metadata().ok()?, path.symlink_metadata().ok()?);
    let is_same = (held.dev(), held.ino()) == (there.dev(), there.ino());
    let is_own = held.uid() == rustix::process::geteuid().as_raw();
    (is_same && is_own).then_some(file)
}

fn remove_leftovers(base: &Path, prefix: &str) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let is_ours = entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(prefix.as_bytes());
        // One that cannot be removed stands in nobody's way but that of the disk.
        if is_ours && let Some(_lock) = lock(&entry.path()) {
            let _ = remove_tree(&entry.path());
        }
    }
}

/// Removes a tree in which directories may have lost their owner's rights, as restored ones can.
pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            fs::remove_dir_all(path)
        }
        result => result,
    }
}

fn open_up(dir: &Path) -> io::Result<()> {
    fs::set_permissions(dir, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "statekeep-test-";

    #[test]
    fn what_nobody_uses_goes_and_what_somebody_uses_stays() {
        let base = tempfile::tempdir().unwrap();
        let left = base.path().join(format!("{PREFIX}1-0"));
        fs::create_dir_all(left.join("content/closed")).unwrap();
        fs::set_permissions(left.join("content/closed"), Permissions::from_mode(0o000)).unwrap();
        fs::create_dir(base.path().join("other")).unwrap();

        let first = Scratch::create(base.path(), PREFIX).unwrap();
        let second = Scratch::create(base.path(), PREFIX).unwrap();

        assert!(!left.exists());
        assert!(first.path().exists() && second.path().exists());
        let mode = first.path().metadata().unwrap().mode();
        assert_eq!(mode & 0o777, 0o700);
        first.remove().unwrap();
        second.remove().unwrap();
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1);
    }
}
