//! The journal of a restore in place: what is about to take which name, so that whoever comes
//! after a crash can finish it or take it back.
//!
//! Order: it is durable before the first name changes hands, and goes after the last one did.

use crate::disk;
use crate::disk::RealDisk;
use crate::disk::jail::JOURNAL_NAME;
use crate::disk::jail::STAGE_NAME;
use crate::error::Error;
use crate::error::Result;
use crate::id;
use crate::id::SnapshotId;
use crate::safeguard::Safeguard;
use serde::Deserialize;
use serde::Serialize;
use std::fs::DirBuilder;
use std::fs::File;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;

const VERSION: u32 = 1;
const LOCK: &str = "lock";

/// Where staged nodes wait, below the root.
pub(super) const NEW: &[u8] = b".statekeep-restore/new";
/// Where replaced nodes keep a name until all is done.
pub(super) const OLD: &[u8] = b".statekeep-restore/old";

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Phase {
    /// Names are changing hands. All that is staged is complete, so it can be finished.
    Publishing,
    /// Something failed, and names are given back.
    TakingBack,
}

/// A path as text: names may be any bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(super) struct PathBytes(pub Vec<u8>);

impl From<PathBytes> for String {
    fn from(path: PathBytes) -> String {
        id::hex(&path.0)
    }
}

impl TryFrom<String> for PathBytes {
    type Error = &'static str;

    fn try_from(text: String) -> Result<PathBytes, &'static str> {
        id::from_hex(&text).map(PathBytes).ok_or("not hex")
    }
}

/// A file that waits for its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Staged {
    pub path: PathBytes,
    /// Whether nothing has the name before.
    pub is_new: bool,
}

/// What a restore in place is about to do, paths relative to the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Journal {
    version: u32,
    pub phase: Phase,
    /// The snapshot that is restored.
    pub snapshot: String,
    /// The snapshot of what was there before, if there was anything.
    pub safety: Option<String>,
    /// Patterns of what is restored.
    pub only: Vec<String>,
    /// Logs that must not reach the databases that come, and could not be merged.
    pub logs: Vec<PathBytes>,
    /// Nodes that go, those in a directory before it.
    pub removes: Vec<PathBytes>,
    /// Files that are staged.
    pub files: Vec<Staged>,
}

impl Journal {
    pub(super) fn new(snapshot: &SnapshotId, safety: Option<&SnapshotId>) -> Journal {
        Journal {
            version: VERSION,
            phase: Phase::Publishing,
            snapshot: snapshot.to_string(),
            safety: safety.map(SnapshotId::to_string),
            only: Vec::new(),
            logs: Vec::new(),
            removes: Vec::new(),
            files: Vec::new(),
        }
    }
}

/// The directory of one restore in place, locked for as long as this lives.
pub(super) struct Stage {
    dir: PathBuf,
    _lock: File,
}

impl Stage {
    /// Makes the directory in a root, or takes over one that a killed run left.
    pub(super) fn open(root: &Path) -> Result<Stage> {
        let dir = root.join(STAGE_NAME);
        match DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Error::io("create", &dir)(error));
            }
            _ => {}
        }
        let path = dir.join(LOCK);
        let mut options = File::options();
        let opened = options.create(true).truncate(false).write(true).open(&path);
        let lock = opened.map_err(Error::io("open", &path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Stage { dir, _lock: lock }),
            Err(std::fs::TryLockError::WouldBlock) => Err(Error::Busy {
                what: root.display().to_string(),
                reason: "another restore in place is at work there".to_string(),
            }),
            Err(std::fs::TryLockError::Error(error)) => Err(Error::io("lock", &path)(error)),
        }
    }

    /// Returns where files are staged.
    pub(super) fn new_dir(&self) -> PathBuf {
        self.dir.join("new")
    }

    /// Returns the journal that a killed run left, if it came that far.
    pub(super) fn journal(&self) -> Result<Option<Journal>> {
        read(&self.dir)
    }

    /// Makes the journal durable.
    pub(super) fn write(&self, journal: &Journal) -> Result<()> {
        let path = self.dir.join(JOURNAL_NAME);
        let bytes = serde_json::to_vec(journal)
            .map_err(|error| Error::io("encode", &path)(error.into()))?;
        disk::replace(&RealDisk, &path, &bytes)
    }

    /// Removes everything: the journal first and durably, because without it nobody acts on the
    /// rest.
    pub(super) fn remove(self) -> Result<()> {
        let path = self.dir.join(JOURNAL_NAME);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &path)(error));
            }
            _ => {}
        }
        if Safeguard::JournalGoneSync.holds() {
            let dir = File::open(&self.dir).and_then(|dir| dir.sync_all());
            dir.map_err(Error::io("sync", &self.dir))?;
        }
        std::fs::remove_dir_all(&self.dir).map_err(Error::io("remove", &self.dir))
    }

    /// Empties what a run left that had not begun to publish.
    pub(super) fn clear(&self) -> Result<()> {
        for name in ["new", "old"] {
            let path = self.dir.join(name);
            match std::fs::remove_dir_all(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", &path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Returns the journal in a stage directory.
fn read(dir: &Path) -> Result<Option<Journal>> {
    let path = dir.join(JOURNAL_NAME);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", &path)(error)),
    };
    let journal: Journal = serde_json::from_slice(&bytes)
        .map_err(|error| Error::corrupt(path.display().to_string(), error.to_string()))?;
    match journal.version {
        VERSION => Ok(Some(journal)),
        version => Err(Error::TooNew {
            object: path.display().to_string(),
            reason: format!("it is a journal of version {version}"),
        }),
    }
}

/// Returns which snapshot a restore in place was restoring that was interrupted while names changed
/// hands: what is there is neither the old state nor the new one.
pub fn unfinished(root: &Path) -> Result<Option<SnapshotId>> {
    let journal = read(&root.join(STAGE_NAME))?;
    Ok(journal.and_then(|journal| journal.snapshot.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_comes_back_and_the_stage_has_one_owner() {
        let root = tempfile::tempdir().unwrap();
        let stage = Stage::open(root.path()).unwrap();
        let mut journal = Journal::new(&SnapshotId([7; 32]), None);
        journal.files = vec![Staged {
            path: PathBytes(b"a/\xff".to_vec()),
            is_new: true,
        }];
        assert_eq!(stage.journal().unwrap(), None);

        stage.write(&journal).unwrap();

        assert_eq!(stage.journal().unwrap(), Some(journal));
        assert_eq!(unfinished(root.path()).unwrap(), Some(SnapshotId([7; 32])));
        let second = Stage::open(root.path());
        assert!(matches!(second.err(), Some(Error::Busy { .. })));
        stage.remove().unwrap();
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
