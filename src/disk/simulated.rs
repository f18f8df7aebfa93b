//! A disk in memory that can lose power, for tests. Deterministic.
//!
//! It promises less than any real file system: file content is durable only by `sync` of the file,
//! a name (made, moved or removed) only by `sync_dir` of its directory, and what is not durable is
//! lost or kept item by item, in any combination.

mod state;

pub use state::Loss;

use self::state::DirNode;
use self::state::FileNode;
use self::state::Node;
use self::state::State;
use super::Disk;
use super::FileEntry;
use super::Link;
use super::NewFile;
use super::Published;
use super::SYNC_DIRECTORY;
use crate::context::Timestamp;
use crate::error::Error;
use crate::error::Result;
use rustix::io::Errno;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// What goes wrong at a chosen mutating operation, which then has no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails with an I/O error, once. A failed file sync never succeeds later.
    Io,
    /// It fails because the disk is full, once.
    NoSpace,
    /// The process is killed: it and all later operations of this process fail.
    Kill,
}

/// One process's view of a disk in memory. Clones are the same process.
#[derive(Clone, Default)]
pub struct SimulatedDisk {
    state: Arc<Mutex<State>>,
    process: Arc<Mutex<Process>>,
}

/// Faults and counts belong to a process, content to the disk.
#[derive(Default)]
struct Process {
    mutations: u64,
    fault: Option<(u64, Fault)>,
    is_dead: bool,
}

impl SimulatedDisk {
    /// Returns an empty disk.
    pub fn new() -> SimulatedDisk {
        SimulatedDisk::default()
    }

    /// Returns another process on the same disk, without faults.
    pub fn process(&self) -> SimulatedDisk {
        SimulatedDisk {
            state: Arc::clone(&self.state),
            process: Arc::default(),
        }
    }

    /// Returns an independent copy, without faults.
    pub fn fork(&self) -> SimulatedDisk {
        SimulatedDisk::with_state(self.state().clone())
    }

    /// Returns an independent copy as it is after power loss, without faults.
    pub fn crash(&self, loss: Loss) -> SimulatedDisk {
        SimulatedDisk::with_state(self.state().clone().after(loss))
    }

    /// Returns how many mutating operations this process has tried. Syncs count.
    pub fn mutations(&self) -> u64 {
        self.lock_process().mutations
    }

    /// Lets this process meet a fault at its `nth` mutating operation from now, 0 being the next.
    pub fn fail_at(&self, nth: u64, fault: Fault) {
        let mut process = self.lock_process();
        process.fault = Some((process.mutations + nth, fault));
    }

    /// Sets the time that files written from now on are stamped with.
    pub fn set_now(&self, now: Timestamp) {
        self.state().now = now;
    }

    /// Sets how many bytes all files together may hold.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().quirks.capacity_bytes = bytes;
    }

    /// Takes hard links away, as on FAT.
    pub fn without_links(self) -> SimulatedDisk {
        self.state().quirks.lacks_links = true;
        self
    }

    /// Makes file syncs do nothing, so that a test can show that it would notice.
    pub fn without_file_sync(self) -> SimulatedDisk {
        self.state().quirks.ignores_file_sync = true;
        self
    }

    /// Makes directory syncs do nothing, so that a test can show that it would notice.
    pub fn without_dir_sync(self) -> SimulatedDisk {
        self.state().quirks.ignores_dir_sync = true;
        self
    }

    fn with_state(state: State) -> SimulatedDisk {
        SimulatedDisk {
            state: Arc::new(Mutex::new(state)),
            process: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inspect<T>(
        &self,
        action: &'static str,
        path: &Path,
        operation: impl FnOnce(&State) -> io::Result<T>,
    ) -> Result<T> {
        let alive = self.lock_process().check_alive();
        alive
            .and_then(|()| operation(&self.state()))
            .map_err(Error::io(action, path))
    }

    fn mutate<T>(
        &self,
        action: &'static str,
        path: &Path,
        operation: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> Result<T> {
        let admitted = self.lock_process().admit();
        admitted
            .and_then(|()| operation(&mut self.state()))
            .map_err(Error::io(action, path))
    }
}

impl Process {
    fn check_alive(&self) -> io::Result<()> {
        match self.is_dead {
            true => Err(io::Error::other("the process was killed")),
            false => Ok(()),
        }
    }

    fn admit(&mut self) -> io::Result<()> {
        self.check_alive()?;
        let number = self.mutations;
        self.mutations += 1;
        let Some((_, fault)) = self.fault.filter(|(at, _)| *at == number) else {
            return Ok(());
        };
        match fault {
            Fault::Io => Err(Errno::IO.into()),
            Fault::NoSpace => Err(Errno::NOSPC.into()),
            Fault::Kill => {
                self.is_dead = true;
                self.check_alive()
            }
        }
    }
}

struct SimulatedFile {
    disk: SimulatedDisk,
    node: u64,
    path: PathBuf,
}

impl NewFile for SimulatedFile {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.disk.mutate("write", &self.path, |state| {
            let room = state.room_bytes();
            let now = state.now;
            let file = state.file(self.node)?;
            let fits = usize::try_from(room).map_or(bytes.len(), |room| room.min(bytes.len()));
            file.bytes.extend_from_slice(&bytes[..fits]);
            file.modified = now;
            match fits == bytes.len() {
                true => Ok(()),
                false => Err(Errno::NOSPC.into()),
            }
        })
    }

    fn sync(&mut self) -> Result<()> {
        let synced = self.disk.mutate("sync", &self.path, |state| {
            let is_ignored = state.quirks.ignores_file_sync;
            let file = state.file(self.node)?;
            if !file.sync_failed && !is_ignored {
                file.durable_len = file.bytes.len();
            }
            Ok(())
        });
        if synced.is_err()
            && let Ok(file) = self.disk.state().file(self.node)
        {
            // Linux marks the pages clean all the same: a later sync reports success, wrongly.
            file.sync_failed = true;
        }
        synced
    }
}

impl Disk for SimulatedDisk {
    fn create(&self, path: &Path) -> Result<Box<dyn NewFile>> {
        let node = self.mutate("create", path, |state| {
            let file = FileNode {
                modified: state.now,
                ..FileNode::default()
            };
            state.insert(path, Node::File(file))
        })?;
        Ok(Box::new(SimulatedFile {
            disk: self.clone(),
            node,
            path: path.to_path_buf(),
        }))
    }

    fn link_new(&self, from: &Path, to: &Path) -> Result<Link> {
        self.mutate("link", to, |state| {
            let node = state.find(from)?;
            if state.quirks.lacks_links {
                return Ok(Link::Unsupported);
            }
            if state.try_find(to)?.is_some() {
                return Ok(Link::Exists);
            }
            state.set_entry(to, Some(node))?;
            Ok(Link::Made)
        })
    }

    fn rename_new(&self, from: &Path, to: &Path) -> Result<Published> {
        self.mutate("rename without replacing", to, |state| {
            let node = state.find(from)?;
            if state.try_find(to)?.is_some() {
                return Ok(Published::Taken);
            }
            state.set_entry(from, None)?;
            state.set_entry(to, Some(node))?;
            Ok(Published::Created)
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.mutate("rename", to, |state| {
            let node = state.find(from)?;
            state.set_entry(from, None)?;
            state.set_entry(to, Some(node))
        })
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.mutate("remove", path, |state| match state.try_find(path)? {
            None => Ok(()),
            Some(node) => {
                state.file(node)?;
                state.set_entry(path, None)
            }
        })
    }

    fn create_dir(&self, path: &Path) -> Result<Published> {
        self.mutate("create directory", path, |state| {
            if let Some(node) = state.try_find(path)? {
                state.dir(node)?;
                return Ok(Published::Taken);
            }
            state.insert(path, Node::Dir(DirNode::default()))?;
            Ok(Published::Created)
        })
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.mutate(SYNC_DIRECTORY, path, |state| {
            let is_ignored = state.quirks.ignores_dir_sync;
            let node = state.find(path)?;
            let dir = state.dir_mut(node)?;
            if !is_ignored {
                dir.durable = dir.entries.clone();
            }
            Ok(())
        })
    }

    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        self.read_range(path, 0..u64::MAX)
    }

    fn read_range(&self, path: &Path, range: Range<u64>) -> Result<Option<Vec<u8>>> {
        self.inspect("read", path, |state| {
            let Some(file) = state.try_file(path)? else {
                return Ok(None);
            };
            let at = |offset| usize::try_from(offset).unwrap_or(usize::MAX);
            let end = at(range.end).min(file.bytes.len());
            let start = at(range.start).min(end);
            Ok(Some(file.bytes[start..end].to_vec()))
        })
    }

    fn file_bytes(&self, path: &Path) -> Result<Option<u64>> {
        self.inspect("stat", path, |state| {
            let file = state.try_file(path)?;
            Ok(file.map(|file| file.bytes.len() as u64))
        })
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        self.inspect("stat", path, |state| Ok(state.try_find(path)?.is_some()))
    }

    fn list(&self, dir: &Path) -> Result<Vec<FileEntry>> {
        self.inspect("list", dir, |state| {
            let entries = &state.dir(state.find(dir)?)?.entries;
            let rows = entries.iter().filter_map(|(name, node)| {
                let Node::File(file) = state.nodes.get(node)? else {
                    return None;
                };
                Some(FileEntry {
                    name: name.clone(),
                    file_bytes: file.bytes.len() as u64,
                    modified: file.modified,
                })
            });
            Ok(rows.collect())
        })
    }

    fn canonical(&self, path: &Path) -> Result<PathBuf> {
        self.inspect("find", path, |state| {
            state.find(path).map(|_| path.components().collect())
        })
    }

    fn unique(&self) -> Result<u64> {
        let mut state = self.state();
        state.uniques += 1;
        Ok(state.uniques)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const PATH: &str = "/file";

    /// A file whose first half is durable and whose name is.
    fn half_synced() -> (SimulatedDisk, Box<dyn NewFile>) {
        let disk = SimulatedDisk::new();
        let mut file = disk.create(Path::new(PATH)).expect("create");
        file.write(b"1234").expect("write");
        file.sync().expect("sync");
        disk.sync_dir(Path::new("/")).expect("sync");
        file.write(b"5678").expect("write");
        (disk, file)
    }

    fn after(disk: &SimulatedDisk, loss: Loss) -> Vec<u8> {
        let read = disk.crash(loss).read(Path::new(PATH));
        read.expect("read").expect("durable name")
    }

    #[test]
    fn power_loss_leaves_every_kind_of_damage_and_nothing_else() {
        let (disk, _file) = half_synced();

        let seeded: BTreeSet<_> = (0..200).map(|s| after(&disk, Loss::Random(s))).collect();

        let possible: [&[u8]; 6] = [
            b"1234",
            b"1234\0\0\0\0",
            b"12345",
            b"123456",
            b"1234567",
            b"12345678",
        ];
        assert!(seeded.iter().map(Vec::as_slice).eq(possible), "{seeded:?}");
        assert_eq!(after(&disk, Loss::Everything), b"1234");
        assert_eq!(after(&disk, Loss::Nothing), b"12345678");
    }

    #[test]
    fn a_sync_after_a_failed_sync_reports_success_and_does_nothing() {
        let (disk, mut file) = half_synced();
        disk.fail_at(0, Fault::Io);

        let synced = [file.sync().is_ok(), file.sync().is_ok()];

        assert_eq!(synced, [false, true]);
        assert_eq!(after(&disk, Loss::Everything), b"1234");
    }

    #[test]
    fn a_killed_process_can_do_nothing_more_and_others_can() {
        let (disk, _file) = half_synced();
        let killed = disk.process();

        killed.fail_at(0, Fault::Kill);

        assert!(killed.sync_dir(Path::new("/")).is_err());
        assert!(killed.read(Path::new(PATH)).is_err());
        assert!(disk.read(Path::new(PATH)).is_ok());
    }
}
