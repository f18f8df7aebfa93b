//! Writes a tree below one root and never outside it, whatever the snapshot or another user says.
//!
//! Every call resolves its path from the root, or from a directory opened that way before, without
//! following a symlink. Files and special nodes are made under a temporary name in their final
//! directory and renamed when they are complete. Durability is one `sync` at the end; what to
//! write, in which order, and what to do about what is in the way are the caller's decisions.
//!
//! Invariants: I9 (see `attributes`); nothing that exists is ever opened for writing, so no hard
//! link or symlink planted in the tree can lead a write elsewhere.

mod aside;
mod exchange;
mod new_file;

pub use new_file::NewFile;

use crate::context::Random;
use crate::context::SystemRandom;
use crate::disk::attributes;
use crate::disk::attributes::Handle;
use crate::disk::beneath;
use crate::disk::beneath::Beneath;
use crate::disk::beneath::PLACE;
use crate::disk::node::Attributes;
use crate::disk::node::Kind;
use crate::disk::node::Problem;
use crate::disk::node::Stat;
use crate::error::Error;
use crate::error::Result;
use crate::safeguard::Safeguard;
use rustix::fd::AsFd;
use rustix::fd::BorrowedFd;
use rustix::fd::OwnedFd;
use rustix::fs::AtFlags;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::RenameFlags;
use rustix::io::Errno;
use std::fs::DirBuilder;
use std::fs::File;
use std::fs::Permissions;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// What temporary names start with; after a crash they may be left over.
pub const TEMP_PREFIX: &str = ".statekeep-";

/// The directory in a root that holds what is about to take the place of what is there. No walk
/// lists one.
pub const STAGE_NAME: &str = ".statekeep-restore";
/// The file in it that is there while names change hands.
pub const JOURNAL_NAME: &str = "journal";

const CACHED_DIRS_MAX: usize = 32;

/// What to do about a node that has the name already. A directory that is not empty is never
/// replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    Never,
    Existing,
}

/// A root directory below which nodes are made. May be used from several threads at once.
#[derive(Debug)]
pub struct Jail {
    beneath: Beneath,
    /// Most recently used last.
    dirs: Mutex<Vec<(Vec<u8>, Arc<OwnedFd>)>>,
    temp_number: AtomicU64,
}

impl Jail {
    /// Opens the root, which is made (0700) if it is missing.
    pub fn open(root: &Path) -> Result<Jail> {
        if !root.is_dir() {
            let mut builder = DirBuilder::new();
            let created = builder.mode(0o700).recursive(true).create(root);
            created.map_err(Error::io("create", root))?;
            // The umask may have taken our own access away.
            std::fs::set_permissions(root, Permissions::from_mode(0o700))
                .map_err(Error::io("set the mode of", root))?;
        }
        let mut start = [0; 8];
        SystemRandom.fill(&mut start)?;
        Ok(Jail {
            beneath: Beneath::open_root(root)?,
            dirs: Mutex::default(),
            temp_number: AtomicU64::new(u64::from_ne_bytes(start)),
        })
    }

    /// Makes a directory that only its maker may enter. One that exists is left as it is.
    pub fn make_dir(&self, path: &[u8], replace: Replace) -> Result<()> {
        if path.is_empty() {
            return Ok(());
        }
        let (dir, name) = self.place(path)?;
        let make = || rustix::fs::mkdirat(&dir, name, Mode::RWXU);
        match make() {
            Err(Errno::EXIST) => {
                let existing = beneath::lstat(&dir, name);
                match existing.map_err(|errno| self.error("read", path, errno))? {
                    existing if existing.is_dir() => return Ok(()),
                    _ if replace == Replace::Never => return Err(self.exists(path)),
                    _ => {}
                }
                rustix::fs::unlinkat(&dir, name, AtFlags::empty())
                    .and_then(|()| make())
                    .map_err(|errno| self.error("replace", path, errno))?;
            }
            result => result.map_err(|errno| self.error("create", path, errno))?,
        }
        self.forget(path);
        let made = open_name(&dir, name, PLACE).map_err(|errno| self.error("open", path, errno))?;
        let mode = beneath::fstat(&made).map_err(|errno| self.error("read", path, errno))?;
        if mode.mode & 0o700 != 0o700 {
            // The umask took our own access away; an O_PATH handle needs none.
            Handle::path_only(made.as_fd())
                .set_mode(0o700)
                .map_err(|errno| self.error("set the mode of", path, errno))?;
        }
        Ok(())
    }

    /// Begins a regular file under a temporary name, readable by nobody else (0600).
    pub fn begin_file(&self, path: &[u8]) -> Result<NewFile<'_>> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(Safeguard::NewFilesPrivate.mode(0o600));
        let (temp, fd) =
            self.make_temp(path, |dir, name| rustix::fs::openat(dir, name, flags, mode))?;
        Ok(NewFile { temp, fd })
    }

    /// Makes a symlink; the target is only stored.
    pub fn make_symlink(
        &self,
        path: &[u8],
        target: &[u8],
        attributes: &Attributes,
        replace: Replace,
    ) -> Result<Vec<Problem>> {
        self.make_node(path, attributes, replace, |dir, name| {
            rustix::fs::symlinkat(target, dir, name)
        })
    }

    /// Makes `path` another name of `to_path`, which exists in the jail; a symlink is not followed.
    pub fn make_hard_link(&self, path: &[u8], to_path: &[u8], replace: Replace) -> Result<()> {
        let (to_dir, to_name) = self.place(to_path)?;
        let (mut temp, ()) = self.make_temp(path, |dir, name| {
            rustix::fs::linkat(&to_dir, to_name, dir, name, AtFlags::empty())
        })?;
        temp.publish(replace)?;
        // Renaming between two names of one file does nothing, so the temporary one may be left.
        temp.published = false;
        Ok(())
    }

    /// Makes a named pipe.
    pub fn make_fifo(
        &self,
        path: &[u8],
        attributes: &Attributes,
        replace: Replace,
    ) -> Result<Vec<Problem>> {
        let mode = Mode::RUSR | Mode::WUSR;
        self.make_node(path, attributes, replace, |dir, name| {
            rustix::fs::mknodat(dir, name, FileType::Fifo, mode, 0)
        })
    }

    /// Makes a device node. Without the privilege to do so nothing is made and a problem says so.
    pub fn make_device(
        &self,
        path: &[u8],
        kind: Kind,
        rdev: (u32, u32),
        attributes: &Attributes,
        replace: Replace,
    ) -> Result<Vec<Problem>> {
        let file_type = match kind {
            Kind::CharDevice => FileType::CharacterDevice,
            Kind::BlockDevice => FileType::BlockDevice,
            _ => return Err(self.refused(path, "it is not a device")),
        };
        let device = rustix::fs::makedev(rdev.0, rdev.1);
        let made = self.make_node(path, attributes, replace, |dir, name| {
            rustix::fs::mknodat(dir, name, file_type, Mode::RUSR | Mode::WUSR, device)
        });
        match made {
            Err(Error::Io { source, .. })
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                let message = format!("cannot create the device: {source}");
                Ok(vec![Problem::new(path, "device", message)])
            }
            made => made,
        }
    }

    /// Returns what is at the path, without following a symlink; `None` if nothing is.
    pub fn stat(&self, path: &[u8]) -> Result<Option<Stat>> {
        if path.is_empty() {
            let stat = beneath::fstat(self.beneath.root());
            return stat
                .map(Some)
                .map_err(|errno| self.error("read", path, errno));
        }
        let (dir, name) = match self.place(path) {
            Err(error) if is_missing(&error) => return Ok(None),
            place => place?,
        };
        match beneath::lstat(&dir, name) {
            Err(Errno::NOENT) => Ok(None),
            stat => stat
                .map(Some)
                .map_err(|errno| self.error("read", path, errno)),
        }
    }

    /// Opens a file for comparison; `None` if there is nothing or something else.
    pub fn read_file(&self, path: &[u8]) -> Result<Option<File>> {
        match self.stat(path)? {
            Some(stat) if stat.kind == Kind::File => {}
            _ => return Ok(None),
        }
        let (dir, name) = self.place(path)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let opened = beneath::quietly(|flags| open_name(&dir, name, flags), flags)
            .and_then(|fd| Ok((beneath::fstat(&fd)?, fd)));
        match opened {
            Ok((stat, fd)) if stat.kind == Kind::File => Ok(Some(File::from(fd))),
            Ok(_) | Err(Errno::NOENT | Errno::LOOP) => Ok(None),
            Err(errno) => Err(self.error("read", path, errno)),
        }
    }

    /// Removes a node, a directory only if it is empty. What is gone already is fine.
    pub fn remove(&self, path: &[u8]) -> Result<()> {
        let (dir, name) = match self.place(path) {
            Err(error) if is_missing(&error) => return Ok(()),
            place => place?,
        };
        self.forget(path);
        let result = match rustix::fs::unlinkat(&dir, name, AtFlags::empty()) {
            // POSIX says EPERM for a directory, Linux EISDIR.
            Err(Errno::ISDIR | Errno::PERM) => rustix::fs::unlinkat(&dir, name, AtFlags::REMOVEDIR),
            result => result,
        };
        match result {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                Err(self.refused(path, "the directory is not empty"))
            }
            Err(errno) => Err(self.error("remove", path, errno)),
        }
    }

    /// Sets the attributes of a directory, or of a file that has no other name: with another name
    /// it may be a file outside. Directories want theirs last and deepest first.
    pub fn set_attributes(&self, path: &[u8], attributes: &Attributes) -> Result<Vec<Problem>> {
        let error = |errno| self.error("set the attributes of", path, errno);
        let node = match path.is_empty() {
            true => self.beneath.open(path, OFlags::PATH).map_err(error)?,
            false => {
                let (dir, name) = self.place(path)?;
                open_name(&dir, name, OFlags::PATH).map_err(error)?
            }
        };
        let stat = beneath::fstat(&node).map_err(error)?;
        match stat.kind {
            Kind::Directory => {}
            Kind::File if stat.links == 1 => {}
            Kind::File => return Err(self.refused(path, "the file has several names")),
            _ => return Err(self.refused(path, "it is not a file or directory")),
        }
        let handle = Handle::path_only(node.as_fd());
        Ok(attributes::apply(&handle, &stat, path, attributes))
    }

    /// Makes everything written so far survive a power loss.
    pub fn sync(&self) -> Result<()> {
        rustix::fs::syncfs(self.beneath.root()).map_err(|errno| self.error("sync", &[], errno))
    }

    /// Returns the directory a path is in, and its name there.
    fn place<'p>(&self, path: &'p [u8]) -> Result<(Arc<OwnedFd>, &'p [u8])> {
        beneath::check_path(path).map_err(|reason| self.refused(path, reason))?;
        let (dir, name) = beneath::split(path);
        let mut dirs = self.dirs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = dirs.iter().position(|(cached, _)| cached == dir) {
            dirs[index..].rotate_left(1);
            let found = dirs.last().map(|(_, fd)| Arc::clone(fd));
            return Ok((found.expect("invariant: found at an index"), name));
        }
        let opened = self.beneath.open(dir, PLACE);
        let fd = Arc::new(opened.map_err(|errno| self.error("open", dir, errno))?);
        if dirs.len() == CACHED_DIRS_MAX {
            dirs.remove(0);
        }
        dirs.push((dir.to_vec(), Arc::clone(&fd)));
        Ok((fd, name))
    }

    /// Drops cached directories that may no longer be what their path says.
    fn forget(&self, path: &[u8]) {
        let mut dirs = self.dirs.lock().unwrap_or_else(PoisonError::into_inner);
        dirs.retain(|(dir, _)| !beneath::is_within(dir, path));
    }

    fn make_node(
        &self,
        path: &[u8],
        attributes: &Attributes,
        replace: Replace,
        make: impl Fn(BorrowedFd, &[u8]) -> Result<(), Errno>,
    ) -> Result<Vec<Problem>> {
        let (mut temp, ()) = self.make_temp(path, make)?;
        let error = |errno| self.error("set the attributes of", path, errno);
        let node = open_name(&temp.dir, &temp.name, OFlags::PATH).map_err(error)?;
        let stat = beneath::fstat(&node).map_err(error)?;
        let handle = Handle::path_only(node.as_fd());
        let problems = attributes::apply(&handle, &stat, path, attributes);
        temp.publish(replace)?;
        Ok(problems)
    }

    /// Makes something under a temporary name beside the path.
    fn make_temp<T>(
        &self,
        path: &[u8],
        make: impl Fn(BorrowedFd, &[u8]) -> Result<T, Errno>,
    ) -> Result<(Temp<'_>, T)> {
        let (dir, _) = self.place(path)?;
        loop {
            let number = self.temp_number.fetch_add(1, Ordering::Relaxed);
            let name = format!("{TEMP_PREFIX}{number:016x}").into_bytes();
            match make(dir.as_fd(), &name) {
                Err(Errno::EXIST) => continue,
                Err(errno) => return Err(self.error("create", path, errno)),
                Ok(made) => {
                    let temp = Temp {
                        jail: self,
                        dir,
                        name,
                        path: path.to_vec(),
                        published: false,
                    };
                    return Ok((temp, made));
                }
            }
        }
    }

    fn error(&self, action: &'static str, path: &[u8], errno: Errno) -> Error {
        match errno {
            Errno::LOOP | Errno::NOTDIR | Errno::XDEV => {
                self.refused(path, "a symlink or a file is where a directory is needed")
            }
            _ => Error::io(action, self.beneath.display(path))(errno.into()),
        }
    }

    fn exists(&self, path: &[u8]) -> Error {
        self.refused(path, "it exists")
    }

    fn refused(&self, path: &[u8], reason: &str) -> Error {
        let path = String::from_utf8_lossy(path);
        let reason = format!(
            "not writing \"{path}\" below {}: {reason}",
            self.beneath.display(&[]).display()
        );
        Error::Refused { reason }
    }
}

/// A node under a temporary name, removed on drop unless it was published.
#[derive(Debug)]
struct Temp<'a> {
    jail: &'a Jail,
    dir: Arc<OwnedFd>,
    name: Vec<u8>,
    path: Vec<u8>,
    published: bool,
}

impl Temp<'_> {
    fn publish(&mut self, replace: Replace) -> Result<()> {
        let (_, name) = beneath::split(&self.path);
        let (dir, temp) = (&self.dir, &self.name[..]);
        let result = match replace {
            Replace::Never => rename_new(dir, temp, name),
            Replace::Existing => match rustix::fs::renameat(dir, temp, dir, name) {
                Err(Errno::ISDIR) => {
                    self.jail.forget(&self.path);
                    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
                        .and_then(|()| rustix::fs::renameat(dir, temp, dir, name))
                }
                result => result,
            },
        };
        match result {
            Ok(()) => self.published = true,
            Err(Errno::EXIST) if replace == Replace::Never => {
                return Err(self.jail.exists(&self.path));
            }
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                let reason = "a directory that is not empty is in the way";
                return Err(self.jail.refused(&self.path, reason));
            }
            Err(errno) => return Err(self.jail.error("publish", &self.path, errno)),
        }
        Ok(())
    }
}

impl Drop for Temp<'_> {
    fn drop(&mut self) {
        if !self.published {
            // Nothing to do about a failure; the prefix tells what is left over.
            let _ = rustix::fs::unlinkat(&self.dir, &self.name[..], AtFlags::empty());
        }
    }
}

/// Renames within a directory; an existing name is an error.
fn rename_new(dir: &OwnedFd, from: &[u8], to: &[u8]) -> Result<(), Errno> {
    match rustix::fs::renameat_with(dir, from, dir, to, RenameFlags::NOREPLACE) {
        // File systems without the flag have hard links.
        Err(Errno::INVAL | Errno::NOSYS) => {
            rustix::fs::linkat(dir, from, dir, to, AtFlags::empty())
                .and_then(|()| rustix::fs::unlinkat(dir, from, AtFlags::empty()))
        }
        result => result,
    }
}

/// Opens a name in a directory, whatever it is, but never through a symlink.
fn open_name(dir: &OwnedFd, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

fn is_missing(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}
