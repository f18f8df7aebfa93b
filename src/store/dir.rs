//! A store in a directory of a file system, shared by processes and, over NFS, by hosts.
//!
//! The layout is that of the keys: `config` and one flat directory per folder. How a file becomes
//! durable is left to `disk`. Files whose names are no keys (temps, `lost+found`) are not seen.
//!
//! Invariant: after a sync of a directory failed, nothing is called durable (decision 0093).

use super::Folder;
use super::Key;
use super::Listed;
use super::Put;
use super::Store;
use crate::context::Timestamp;
use crate::disk::Disk;
use crate::disk::Published;
use crate::disk::SYNC_DIRECTORY;
use crate::disk::create_dirs;
use crate::disk::publish_new;
use crate::disk::remove_stale_temps;
use crate::error::Error;
use crate::error::Result;
use crate::safeguard::Safeguard;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;

/// A store in a directory.
pub struct DirStore {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    failed_sync: OnceLock<FailedSync>,
}

/// How a sync of a directory failed. The system tells that once: the next sync may succeed without
/// having written what the failed one was to write, and is no proof of anything.
struct FailedSync {
    path: PathBuf,
    kind: io::ErrorKind,
    errno: Option<i32>,
}

impl DirStore {
    /// Makes the directories, durably, where they are not there yet. Whose repository it becomes
    /// is decided by who creates the `config` object.
    pub fn create(disk: Arc<dyn Disk>, path: &Path) -> Result<DirStore> {
        create_dirs(&*disk, path)?;
        for folder in Folder::ALL.into_iter().filter(|&f| f != Folder::Top) {
            disk.create_dir(&path.join(folder.name()))?;
        }
        if Safeguard::FolderSync.holds() {
            disk.sync_dir(path)?;
        }
        // A link and its target must be one place to whoever compares locations.
        let root = match Safeguard::OnePlace.holds() {
            true => disk.canonical(path)?,
            false => path.to_path_buf(),
        };
        Ok(DirStore::at(disk, root))
    }

    fn at(disk: Arc<dyn Disk>, root: PathBuf) -> DirStore {
        DirStore {
            disk,
            root,
            failed_sync: OnceLock::new(),
        }
    }

    /// Returns the store at this path; fails unless a `config` object is there.
    pub fn open(disk: Arc<dyn Disk>, path: &Path) -> Result<DirStore> {
        let no_repo = || Error::NoRepo {
            location: path.display().to_string(),
        };
        let root = disk.canonical(path).map_err(|error| match error {
            Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => no_repo(),
            error => error,
        })?;
        let store = DirStore::at(disk, root);
        match store.stored_bytes(&Key::config())? {
            Some(_) => Ok(store),
            None => Err(no_repo()),
        }
    }

    fn folder_path(&self, folder: Folder) -> PathBuf {
        match folder {
            // Joining an empty name would add a slash, and the paths show up in messages.
            Folder::Top => self.root.clone(),
            folder => self.root.join(folder.name()),
        }
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.folder_path(key.folder()).join(key.name())
    }

    /// Does what makes something durable, unless that cannot be told any more.
    fn durably<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        if let Some(failed) = self.failed_sync.get() {
            let source = match failed.errno {
                Some(errno) => io::Error::from_raw_os_error(errno),
                None => failed.kind.into(),
            };
            return Err(Error::io(SYNC_DIRECTORY, &failed.path)(source));
        }
        act().inspect_err(|error| {
            if let Error::Io {
                action: SYNC_DIRECTORY,
                path,
                source,
            } = error
            {
                let _ = self.failed_sync.set(FailedSync {
                    path: path.clone(),
                    kind: source.kind(),
                    errno: source.raw_os_error(),
                });
            }
        })
    }
}

impl Store for DirStore {
    fn put_new(&self, key: &Key, bytes: &[u8]) -> Result<Put> {
        let dir = self.folder_path(key.folder());
        let published = self.durably(|| publish_new(&*self.disk, &dir, key.name(), bytes))?;
        Ok(match published {
            Published::Created => Put::Created,
            Published::Taken => Put::Taken,
        })
    }

    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>> {
        self.disk.read(&self.path(key))
    }

    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Vec<u8>>> {
        self.disk.read_range(&self.path(key), range)
    }

    fn stored_bytes(&self, key: &Key) -> Result<Option<u64>> {
        self.disk.file_bytes(&self.path(key))
    }

    fn list(&self, folder: Folder) -> Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for entry in self.disk.list(&self.folder_path(folder))? {
            let name = entry.name.into_string().ok();
            if let Some(key) = name.and_then(|name| Key::new(folder, name)) {
                listed.push(Listed {
                    name: key.name,
                    stored_bytes: entry.file_bytes,
                    modified_ns: entry.modified.0,
                });
            }
        }
        Ok(listed)
    }

    /// Power loss may bring the object back until the folder is synced.
    fn delete(&self, key: &Key) -> Result<()> {
        self.disk.remove(&self.path(key))
    }

    /// The content of an object is durable before anybody can see it, so its name is what is left.
    fn sync(&self, folder: Folder) -> Result<()> {
        match Safeguard::StoreSync.holds() {
            true => self.durably(|| self.disk.sync_dir(&self.folder_path(folder))),
            false => Ok(()),
        }
    }

    fn remove_leftovers(&self, before: Timestamp) -> Result<u64> {
        let remove = |folder| remove_stale_temps(&*self.disk, &self.folder_path(folder), before);
        Folder::ALL.into_iter().map(remove).sum()
    }

    fn location(&self) -> String {
        self.root.display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Fault;
    use crate::disk::RealDisk;
    use crate::disk::SimulatedDisk;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn real() -> Arc<dyn Disk> {
        Arc::new(RealDisk)
    }

    #[test]
    fn a_directory_without_config_is_no_repository() {
        let scratch = tempfile::tempdir().expect("tempdir");
        let path = scratch.path().join("repo");

        let absent = DirStore::open(real(), &path).err();
        DirStore::create(real(), &path).expect("create");
        let empty = DirStore::open(real(), &path).err();

        assert!(matches!(absent, Some(Error::NoRepo { .. })), "{absent:?}");
        assert!(matches!(empty, Some(Error::NoRepo { .. })), "{empty:?}");
    }

    #[test]
    fn every_path_to_a_directory_is_one_location() {
        let scratch = tempfile::tempdir().expect("tempdir");
        let path = scratch.path().join("repo");
        let link = scratch.path().join("link");
        let store = DirStore::create(real(), &path).expect("create");
        store.put_new(&Key::config(), b"config").expect("put");
        symlink(&path, &link).expect("link");

        for other in [link, scratch.path().join("repo/../repo/")] {
            let opened = DirStore::open(real(), &other).expect("open");
            let created = DirStore::create(real(), &other).expect("create");

            assert_eq!(opened.location(), store.location());
            assert_eq!(created.location(), store.location());
        }
    }

    #[test]
    fn after_a_failed_sync_of_a_directory_nothing_is_called_durable() {
        let disk = SimulatedDisk::new();
        let store = DirStore::create(Arc::new(disk.process()), Path::new("/repo")).expect("create");
        drop(store);
        let process = disk.process();
        let store = DirStore::create(Arc::new(process.clone()), Path::new("/repo")).expect("again");
        // Create, write and sync a temp, link it, sync the directory.
        process.fail_at(4, Fault::Io);

        let failed = store.put_new(&Key::slot(1), b"entry");
        let again = store.put_new(&Key::slot(1), b"entry");
        let synced = store.sync(Folder::Packs);

        for result in [failed.map(drop), again.map(drop), synced] {
            let is_told =
                matches!(&result, Err(Error::Io { action, .. }) if *action == SYNC_DIRECTORY);
            assert!(is_told, "{result:?}");
        }
        let next = DirStore::create(Arc::new(disk.process()), Path::new("/repo")).expect("next");
        assert!(next.put_new(&Key::slot(1), b"entry").is_ok());
    }

    #[test]
    fn foreign_files_and_temps_are_not_listed() {
        let scratch = tempfile::tempdir().expect("tempdir");
        let store = DirStore::create(real(), scratch.path()).expect("create");
        store.put_new(&Key::slot(1), b"entry").expect("put");
        for name in [".tmp-0", ".nfs01", "Capital", "a b"] {
            fs::write(scratch.path().join("log").join(name), b"x").expect("write");
        }
        fs::create_dir(scratch.path().join("log/lost+found")).expect("mkdir");
        fs::create_dir(scratch.path().join("log/plain")).expect("mkdir");

        let log = store.list(Folder::Log).expect("list");
        let top = store.list(Folder::Top).expect("list");
        let removed = store.remove_leftovers(Timestamp(i64::MAX));

        assert_eq!(log.len(), 1);
        assert_eq!((&*log[0].name, log[0].stored_bytes), ("000000000001", 5));
        assert!(0 < log[0].modified_ns);
        assert!(top.is_empty());
        assert_eq!(removed.expect("remove"), 1);
    }
}
