//! One file that somebody asked for by name, written as a whole: until it is finished there is
//! nothing under its name, and if the process dies nothing is left of it where the file system
//! can keep files without names.

use crate::context::Random;
use crate::context::SystemRandom;
use crate::disk::jail::TEMP_PREFIX;
use crate::error::Error;
use crate::error::Result;
use crate::safeguard::Safeguard;
use rustix::fd::AsRawFd;
use rustix::fs::AtFlags;
use rustix::fs::CWD;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::RenameFlags;
use rustix::io::Errno;
use std::fs::File;
use std::fs::Metadata;
use std::fs::Permissions;
use std::io;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

/// Who may read the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Its owner alone (I9).
    Owner,
    /// Whoever the umask allows.
    All,
}

/// What to do about a file that has the name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and the new one is not made.
    Keep,
    /// It is replaced.
    Replace,
}

/// A file that is being written.
#[derive(Debug)]
pub struct OutputFile {
    file: File,
    dir: PathBuf,
    path: PathBuf,
    /// The name it has meanwhile, where it needs one.
    temp: Option<PathBuf>,
    existing: Existing,
}

impl OutputFile {
    /// Begins a file. Fails at once if the name is taken and may not be.
    pub fn create(path: &Path, readers: Readers, existing: Existing) -> Result<OutputFile> {
        let dir = match path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir.to_path_buf(),
            _ => PathBuf::from("."),
        };
        let existing = match Safeguard::OutputReplacesNothing.holds() {
            true => existing,
            false => Existing::Replace,
        };
        if existing == Existing::Keep && path.symlink_metadata().is_ok() {
            return Err(exists(path));
        }
        let mode = match readers {
            Readers::Owner if Safeguard::OutputPrivate.holds() => Mode::RUSR | Mode::WUSR,
            Readers::Owner | Readers::All => Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH,
        };
        let (file, temp) = open(&dir, mode)?;
        Ok(OutputFile {
            file,
            dir,
            path: path.to_path_buf(),
            temp,
            existing,
        })
    }

    /// Gives it the owner and the mode of another file, whose place it is to take.
    pub fn take_after(&self, other: &Metadata) -> Result<()> {
        let own = self
            .file
            .metadata()
            .map_err(Error::io("look at", &self.path))?;
        let (uid, gid) = (other.uid(), other.gid());
        // Order: the owner first, for a change of it may clear bits of the mode.
        if (own.uid(), own.gid()) != (uid, gid) {
            std::os::unix::fs::fchown(&self.file, Some(uid), Some(gid))
                .map_err(Error::io("keep the owner of", &self.path))?;
        }
        let kept = self.file.set_permissions(other.permissions());
        kept.map_err(Error::io("keep the mode of", &self.path))
    }

    /// Gives it a mode, whatever the umask.
    pub fn set_mode(&self, permissions: Permissions) -> Result<()> {
        let kept = self.file.set_permissions(permissions);
        kept.map_err(Error::io("set the mode of", &self.path))
    }

    /// Makes the file durable and gives it its name, durably too (I6).
    pub fn finish(mut self) -> Result<()> {
        // Order: content, name, directory.
        if Safeguard::OutputSync.holds() {
            let synced = self.file.sync_all();
            synced.map_err(Error::io("sync", &self.path))?;
        }
        if self.temp.is_none() && !self.link(&self.path.clone())? {
            let temp = temp_path(&self.dir)?;
            match self.link(&temp)? {
                true => self.temp = Some(temp),
                false => return Err(exists(&temp)),
            }
        }
        if let Some(temp) = self.temp.take() {
            let renamed = self.rename(&temp);
            if renamed.is_err() {
                self.temp = Some(temp);
            }
            renamed?;
        }
        if !Safeguard::OutputNameSync.holds() {
            return Ok(());
        }
        let dir = File::open(&self.dir).map_err(Error::io("open", &self.dir))?;
        dir.sync_all().map_err(Error::io("sync", &self.dir))
    }

    /// Gives the file without a name one. Returns false if it is taken and may be replaced.
    fn link(&self, path: &Path) -> Result<bool> {
        let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        match rustix::fs::linkat(CWD, own, CWD, path, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) if self.existing == Existing::Replace => Ok(false),
            Err(Errno::EXIST) => Err(exists(path)),
            Err(errno) => Err(Error::io("create", path)(errno.into())),
        }
    }

    fn rename(&self, temp: &Path) -> Result<()> {
        let path = &self.path;
        let renamed = match self.existing {
            Existing::Replace => rustix::fs::rename(temp, path),
            Existing::Keep => {
                match rustix::fs::renameat_with(CWD, temp, CWD, path, RenameFlags::NOREPLACE) {
                    // File systems without the flag have hard links.
                    Err(Errno::INVAL | Errno::NOSYS) => {
                        rustix::fs::link(temp, path).and_then(|()| rustix::fs::unlink(temp))
                    }
                    renamed => renamed,
                }
            }
        };
        match renamed {
            Err(Errno::EXIST) => Err(exists(path)),
            renamed => renamed.map_err(|errno| Error::io("create", path)(errno.into())),
        }
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if let Some(temp) = &self.temp {
            // Nothing to do about a failure; the prefix tells what is left over.
            let _ = std::fs::remove_file(temp);
        }
    }
}

/// Opens a file without a name, or with a temporary one where there is no other way.
fn open(dir: &Path, mode: Mode) -> Result<(File, Option<PathBuf>)> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::open(dir, flags | OFlags::TMPFILE, mode) {
        Ok(fd) => return Ok((File::from(fd), None)),
        // File systems and kernels that do not know the flag take it for that of a directory.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {}
        Err(errno) => return Err(Error::io("create a file in", dir)(errno.into())),
    }
    let temp = temp_path(dir)?;
    let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    match rustix::fs::open(&temp, flags, mode) {
        Ok(fd) => Ok((File::from(fd), Some(temp))),
        Err(errno) => Err(Error::io("create a file in", dir)(errno.into())),
    }
}

fn temp_path(dir: &Path) -> Result<PathBuf> {
    let mut number = [0; 8];
    SystemRandom.fill(&mut number)?;
    Ok(dir.join(format!("{TEMP_PREFIX}{:016x}", u64::from_ne_bytes(number))))
}

fn exists(path: &Path) -> Error {
    let reason = format!("{} exists, and is not replaced", path.display());
    Error::Refused { reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn names(dir: &Path) -> usize {
        std::fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");

        let mut file = OutputFile::create(&path, Readers::Owner, Existing::Keep).unwrap();
        file.write_all(b"abc").unwrap();
        drop(file);
        assert_eq!(names(dir.path()), 0);

        let mut file = OutputFile::create(&path, Readers::Owner, Existing::Keep).unwrap();
        file.write_all(b"abc").unwrap();
        file.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"abc");
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o600);
        assert_eq!(names(dir.path()), 1);
    }

    #[test]
    fn a_file_that_exists_is_replaced_only_if_that_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let begin = |existing| OutputFile::create(&path, Readers::All, existing);
        let mut late = begin(Existing::Keep).unwrap();
        late.write_all(b"late").unwrap();
        std::fs::write(&path, "old").unwrap();

        assert!(matches!(begin(Existing::Keep), Err(Error::Refused { .. })));
        assert!(matches!(late.finish(), Err(Error::Refused { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"old");

        let mut file = begin(Existing::Replace).unwrap();
        file.write_all(b"new").unwrap();
        file.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        let like = std::fs::Permissions::from_mode(0o640);
        std::fs::set_permissions(&path, like).unwrap();
        let file = begin(Existing::Replace).unwrap();
        file.take_after(&path.metadata().unwrap()).unwrap();
        file.finish().unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o640);
        assert_eq!(names(dir.path()), 1);
    }
}
