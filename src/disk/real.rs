//! The disk of the machine. Each method is one system call or close to it; orders are in `mod.rs`.

use super::Disk;
use super::FileEntry;
use super::Link;
use super::NewFile;
use super::Published;
use super::SYNC_DIRECTORY;
use crate::context::Timestamp;
use crate::error::Error;
use crate::error::Result;
use crate::safeguard::Safeguard;
use rustix::fs::CWD;
use rustix::fs::RenameFlags;
use rustix::io::Errno;
use std::fs;
use std::fs::DirBuilder;
use std::fs::File;
use std::fs::Metadata;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;

/// The disk of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

struct RealFile {
    file: File,
    path: PathBuf,
}

impl NewFile for RealFile {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all(bytes)
            .map_err(Error::io("write", &self.path))
    }

    fn sync(&mut self) -> Result<()> {
        self.file.sync_all().map_err(Error::io("sync", &self.path))
    }
}

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> Result<Box<dyn NewFile>> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(Safeguard::ObjectsPrivate.mode(FILE_MODE))
            .open(path)
            .map_err(Error::io("create", path))?;
        let path = path.to_path_buf();
        Ok(Box::new(RealFile { file, path }))
    }

    fn link_new(&self, from: &Path, to: &Path) -> Result<Link> {
        match rustix::fs::link(from, to) {
            Ok(()) => Ok(Link::Made),
            // NFS may repeat a request whose answer was lost and then meet its own link.
            Err(Errno::EXIST) if is_same_file(from, to) => Ok(Link::Made),
            Err(Errno::EXIST) => Ok(Link::Exists),
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(Link::Unsupported),
            Err(error) => Err(Error::io("link", to)(error.into())),
        }
    }

    fn rename_new(&self, from: &Path, to: &Path) -> Result<Published> {
        match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(Published::Created),
            Err(Errno::EXIST) => Ok(Published::Taken),
            Err(error) => Err(Error::io("rename without replacing", to)(error.into())),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to).map_err(Error::io("rename", to))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let removed = missing_is_none(fs::remove_file(path));
        removed.map(drop).map_err(Error::io("remove", path))
    }

    fn create_dir(&self, path: &Path) -> Result<Published> {
        match DirBuilder::new().mode(DIR_MODE).create(path) {
            Ok(()) => Ok(Published::Created),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {
                Ok(Published::Taken)
            }
            Err(error) => Err(Error::io("create directory", path)(error)),
        }
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        File::open(path)
            .and_then(|dir| dir.sync_all())
            .map_err(Error::io(SYNC_DIRECTORY, path))
    }

    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        missing_is_none(fs::read(path)).map_err(Error::io("read", path))
    }

    fn read_range(&self, path: &Path, range: Range<u64>) -> Result<Option<Vec<u8>>> {
        missing_is_none(read_range(path, range)).map_err(Error::io("read", path))
    }

    fn file_bytes(&self, path: &Path) -> Result<Option<u64>> {
        let metadata = missing_is_none(fs::metadata(path)).map_err(Error::io("stat", path))?;
        Ok(metadata.map(|metadata| metadata.len()))
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        path.try_exists().map_err(Error::io("stat", path))
    }

    fn list(&self, dir: &Path) -> Result<Vec<FileEntry>> {
        list(dir).map_err(Error::io("list", dir))
    }

    fn canonical(&self, path: &Path) -> Result<PathBuf> {
        fs::canonicalize(path).map_err(Error::io("find", path))
    }

    fn unique(&self) -> Result<u64> {
        getrandom::u64()
            .map_err(|error| Error::io("read", "the system's random generator")(error.into()))
    }
}

fn missing_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| fs::symlink_metadata(path).map(|m| (m.dev(), m.ino()));
    matches!((identity(one), identity(other)), (Ok(one), Ok(other)) if one == other)
}

fn read_range(path: &Path, range: Range<u64>) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let end = range.end.min(file.metadata()?.len());
    let len = usize::try_from(end.saturating_sub(range.start)).map_err(io::Error::other)?;
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes)
}

fn list(dir: &Path) -> io::Result<Vec<FileEntry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // What is removed while we look is not listed.
        let Some(metadata) = missing_is_none(entry.metadata())? else {
            continue;
        };
        if metadata.is_file() {
            entries.push(FileEntry {
                name: entry.file_name(),
                file_bytes: metadata.len(),
                modified: modified(&metadata),
            });
        }
    }
    Ok(entries)
}

fn modified(metadata: &Metadata) -> Timestamp {
    let seconds_ns = metadata.mtime().saturating_mul(1_000_000_000);
    Timestamp(seconds_ns.saturating_add(metadata.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::super::create_dirs;
    use super::super::publish_new;
    use super::super::remove_stale_temps;
    use super::super::replace;
    use super::super::replace_cache;
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = RealDisk.list(dir).expect("list");
        let mut names: Vec<_> = entries
            .into_iter()
            .map(|entry| entry.name.into_string().expect("utf-8"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn published_files_are_private_and_leave_no_temp() {
        let scratch = tempfile::tempdir().expect("tempdir");
        let dir = scratch.path().join("a/b");
        create_dirs(&RealDisk, &dir).expect("create");

        let first = publish_new(&RealDisk, &dir, "x", b"one").expect("publish");
        let second = publish_new(&RealDisk, &dir, "x", b"two").expect("publish");
        replace(&RealDisk, &dir.join("y"), b"old").expect("replace");
        replace(&RealDisk, &dir.join("y"), b"new").expect("replace");
        replace_cache(&RealDisk, &dir.join("z"), b"cache").expect("replace");

        assert_eq!((first, second), (Published::Created, Published::Taken));
        assert_eq!(fs::read(dir.join("x")).expect("read"), b"one");
        assert_eq!(fs::read(dir.join("y")).expect("read"), b"new");
        assert_eq!(names(&dir), ["x", "y", "z"]);
        for (path, mode) in [("x", FILE_MODE), ("y", FILE_MODE), ("", DIR_MODE)] {
            let metadata = fs::metadata(dir.join(path)).expect("stat");
            assert_eq!(metadata.mode() & 0o777, mode, "{path}");
        }
    }

    #[test]
    fn rename_new_replaces_nothing() {
        let scratch = tempfile::tempdir().expect("tempdir");
        let path = |name: &str| scratch.path().join(name);
        fs::write(path("a"), b"a").expect("write");
        fs::write(path("b"), b"b").expect("write");

        let taken = RealDisk.rename_new(&path("a"), &path("b")).expect("rename");
        let created = RealDisk.rename_new(&path("a"), &path("c")).expect("rename");

        assert_eq!((taken, created), (Published::Taken, Published::Created));
        assert_eq!(fs::read(path("b")).expect("read"), b"b");
        assert_eq!(names(scratch.path()), ["b", "c"]);
    }

    #[test]
    fn link_that_is_there_already_by_our_own_hand_counts_as_made() {
        let scratch = tempfile::tempdir().expect("tempdir");
        let path = |name: &str| scratch.path().join(name);
        fs::write(path("a"), b"a").expect("write");
        fs::write(path("b"), b"b").expect("write");

        let links = [("a", "c"), ("a", "c"), ("a", "b")]
            .map(|(from, to)| RealDisk.link_new(&path(from), &path(to)).expect("link"));

        assert_eq!(links, [Link::Made, Link::Made, Link::Exists]);
    }

    #[test]
    fn only_old_temps_are_removed() {
        let scratch = tempfile::tempdir().expect("tempdir");
        fs::write(scratch.path().join(".tmp-1"), b"").expect("write");
        fs::write(scratch.path().join("object"), b"").expect("write");

        let none = remove_stale_temps(&RealDisk, scratch.path(), Timestamp(0)).expect("remove");
        let one = remove_stale_temps(&RealDisk, scratch.path(), Timestamp(i64::MAX));

        assert_eq!((none, one.expect("remove")), (0, 1));
        assert_eq!(names(scratch.path()), ["object"]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_device_is_recognised() {
        let mut file = RealFile {
            file: File::options().write(true).open("/dev/full").expect("open"),
            path: "/dev/full".into(),
        };

        let error = file.write(b"x").expect_err("full");

        assert!(error.is_no_space(), "{error}");
    }
}
