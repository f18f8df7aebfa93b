//! What this machine remembers of its last check of a repository.
//!
//! In the local cache, as what was read is (`rotation`): a check writes nothing to what it looks
//! at. Who deletes the cache is told that no check is known, never that one was clean.

use crate::context::Timestamp;
use crate::disk;
use crate::disk::RealDisk;
use crate::repo::Repo;
use serde::Deserialize;
use serde::Serialize;

const FILE: &str = "last-check";
const VERSION: u32 = 1;

/// A check of the whole repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastCheck {
    /// When it was done.
    pub at: Timestamp,
    /// How much of the data was read and verified, by bytes asked for.
    pub read_percent: u8,
    /// Objects that were found to be wrong.
    pub problems: u64,
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    version: u32,
    at_ns: i64,
    read_percent: u8,
    problems: u64,
}

/// Remembers a check. Failing to costs that `status` does not know of it.
pub fn remember(repo: &Repo, check: &LastCheck) {
    let remembered = Remembered {
        version: VERSION,
        at_ns: check.at.0,
        read_percent: check.read_percent,
        problems: check.problems,
    };
    let bytes = serde_json::to_vec(&remembered);
    if let (Some(dir), Ok(bytes)) = (repo.cache_dir(), bytes) {
        let _ = disk::replace_cache(&RealDisk, &dir.join(FILE), &bytes);
    }
}

/// Returns the last check of this machine, if it remembers one.
pub fn remembered(repo: &Repo) -> Option<LastCheck> {
    let bytes = std::fs::read(repo.cache_dir()?.join(FILE)).ok()?;
    let remembered: Remembered = serde_json::from_slice(&bytes).ok()?;
    (remembered.version == VERSION).then_some(LastCheck {
        at: Timestamp(remembered.at_ns),
        read_percent: remembered.read_percent,
        problems: remembered.problems,
    })
}
