//! Opens what lies below a directory, never following a symlink on the way and never leaving it.
//!
//! Paths are bytes joined by '/', relative to the root and of any length. One `openat2` does the
//! work where the kernel has it; elsewhere every component is opened by itself with `O_NOFOLLOW`.
//!
//! Invariant: a path with an empty, '.' or '..' component is refused, so no path leads upward.

use crate::disk::node::Stat;
use crate::error::Error;
use crate::error::Result;
use crate::safeguard::Safeguard;
use rustix::fd::AsFd;
use rustix::fd::BorrowedFd;
use rustix::fd::OwnedFd;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::ResolveFlags;
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;

/// Paths longer than this are opened in several steps: the kernel takes 4,095 bytes at a time.
const STEP_BYTES_MAX: usize = 4000;

/// Opens only a name, for use as the place of other calls: needs no read permission.
pub(crate) const PLACE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY);

/// A root directory.
#[derive(Debug)]
pub(crate) struct Beneath {
    root: OwnedFd,
    path: PathBuf,
    one_call: bool,
}

impl Beneath {
    /// Opens the root. Symlinks in the root's own path are followed: the caller chose it.
    pub(crate) fn open_root(path: &Path) -> Result<Beneath> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|errno| Error::io("open", path)(errno.into()))?;
        // Old kernels and some sandboxes refuse the call; what it does then has to be done by hand.
        let probe = rustix::fs::openat2(
            &root,
            ".",
            PLACE | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH,
        );
        Ok(Beneath {
            root,
            path: path.to_path_buf(),
            one_call: probe.is_ok(),
        })
    }

    /// Makes every component be opened by itself, as on systems without `openat2`.
    #[cfg(test)]
    pub(crate) fn open_by_component(&mut self) {
        self.one_call = false;
    }

    /// Returns the root.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Returns the path for people: the root's own path and the rest.
    pub(crate) fn display(&self, path: &[u8]) -> PathBuf {
        match path.is_empty() {
            true => self.path.clone(),
            false => self.path.join(OsStr::from_bytes(path)),
        }
    }

    /// Opens the node at the path; the empty path is the root.
    pub(crate) fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if path.is_empty() {
            return rustix::fs::openat(&self.root, ".", flags, Mode::empty());
        }
        check_path(path).map_err(|_| Errno::INVAL)?;
        let mut place: Option<OwnedFd> = None;
        let mut rest = path;
        loop {
            let from = place.as_ref().unwrap_or(&self.root).as_fd();
            let Some(end) = self.step(rest) else {
                return self.open_step(from, rest, flags);
            };
            let next = self.open_step(from, &rest[..end], PLACE | flags & OFlags::CLOEXEC)?;
            place = Some(next);
            rest = &rest[end + 1..];
        }
    }

    /// Returns where the first step ends if the path needs more than one.
    fn step(&self, path: &[u8]) -> Option<usize> {
        let slash = |byte: &u8| *byte == b'/';
        match self.one_call {
            true if path.len() <= STEP_BYTES_MAX => None,
            true => path[..STEP_BYTES_MAX].iter().rposition(slash),
            false => path.iter().position(slash),
        }
    }

    fn open_step(&self, from: BorrowedFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        if !Safeguard::LinksRefused.holds() {
            let flags = flags.difference(OFlags::NOFOLLOW);
            return rustix::fs::openat(from, path, flags, Mode::empty());
        }
        if !self.one_call {
            return rustix::fs::openat(from, path, flags | OFlags::NOFOLLOW, Mode::empty());
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        // Spurious: the kernel could not rule out that a concurrent rename led outside.
        for _ in 0..16 {
            match rustix::fs::openat2(from, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return result,
            }
        }
        Err(Errno::AGAIN)
    }
}

/// Says what is wrong with a path that could lead out of the root or that no file can have.
pub(crate) fn check_path(path: &[u8]) -> Result<(), &'static str> {
    if !Safeguard::PathsChecked.holds() {
        return Ok(());
    }
    if path.contains(&0) {
        return Err("it contains a NUL byte");
    }
    if path.first() == Some(&b'/') {
        return Err("it is absolute");
    }
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" => return Err("it has an empty component"),
            b"." | b".." => return Err("it has a '.' or '..' component"),
            _ => {}
        }
    }
    Ok(())
}

/// Returns the path of the directory and the name in it.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// Returns true if `path` is `ancestor` or lies below it.
pub(crate) fn is_within(path: &[u8], ancestor: &[u8]) -> bool {
    match path.strip_prefix(ancestor) {
        Some(rest) => ancestor.is_empty() || matches!(rest.first(), None | Some(b'/')),
        None => false,
    }
}

/// Opens for reading without leaving a trace in the access time, where that is allowed.
pub(crate) fn quietly(
    open: impl Fn(OFlags) -> Result<OwnedFd, Errno>,
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    match open(flags | OFlags::NOATIME) {
        Err(Errno::PERM) => open(flags),
        result => result,
    }
}

/// Returns what an open node is.
pub(crate) fn fstat(fd: impl AsFd) -> Result<Stat, Errno> {
    rustix::fs::fstat(fd).map(Stat::from)
}

/// Returns what the name in a directory is, without following it.
pub(crate) fn lstat(dir: impl AsFd, name: &[u8]) -> Result<Stat, Errno> {
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW | rustix::fs::AtFlags::NO_AUTOMOUNT;
    rustix::fs::statat(dir, name, flags).map(Stat::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn no_path_leads_through_a_symlink_or_upward() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("a/b/file"), "x").unwrap();
        symlink("b", dir.path().join("a/link")).unwrap();
        symlink("/", dir.path().join("root")).unwrap();
        let mut beneath = Beneath::open_root(dir.path()).unwrap();

        for _ in 0..2 {
            let open = |path: &[u8]| beneath.open(path, OFlags::RDONLY).map(drop);
            assert_eq!(open(b""), Ok(()));
            assert_eq!(open(b"a/b/file"), Ok(()));
            for path in [&b"a/link"[..], b"a/link/file", b"root/etc", b"a/b/file/c"] {
                assert!(matches!(open(path), Err(Errno::LOOP | Errno::NOTDIR)));
            }
            for path in [
                &b"/etc"[..],
                b"..",
                b"a/../a",
                b"a//b",
                b"a/",
                b"./a",
                b"a\0",
            ] {
                assert_eq!(open(path), Err(Errno::INVAL));
            }
            let link = beneath.open(b"a/link", OFlags::PATH).unwrap();
            assert_eq!(fstat(link).unwrap().kind, crate::disk::node::Kind::Symlink);
            beneath.open_by_component();
        }
    }

    #[test]
    fn paths_longer_than_the_kernel_takes_are_opened_in_steps() {
        let dir = tempfile::tempdir().unwrap();
        let mut beneath = Beneath::open_root(dir.path()).unwrap();
        let mut path = Vec::new();
        for byte in b'a'..=b'z' {
            let parent = beneath.open(&path, PLACE).unwrap();
            let name = vec![byte; 255];
            rustix::fs::mkdirat(parent, &name[..], Mode::RWXU).unwrap();
            path.extend_from_slice(if path.is_empty() { b"" } else { b"/" });
            path.extend_from_slice(&name);
        }
        assert!(6000 < path.len());

        let once = fstat(beneath.open(&path, PLACE).unwrap()).unwrap();
        beneath.open_by_component();
        let again = fstat(beneath.open(&path, PLACE).unwrap()).unwrap();

        assert_eq!(once.inode, again.inode);
    }
}
