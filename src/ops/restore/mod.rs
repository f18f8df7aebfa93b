//! Restores a snapshot, or part of one, below a directory.
//!
//! `plan` only reads and says what would happen; `apply` does it. Content is verified chunk by
//! chunk before it is written (I3), a file gets its name when it is complete, and nothing is ever
//! written outside the target (`disk::jail`). What cannot be restored is reported by path and the
//! rest goes on; a full disk or a failing store ends the operation. A second run takes up where
//! the first one ended, because a file that has its size and time is complete.

mod apply;
mod compare;
mod content;
mod large;
mod plan;
mod queue;
mod run;
pub(super) mod select;
mod sidecars;
pub(super) mod surplus;
mod target;

pub use apply::apply;
pub(super) use apply::looks_like;
pub use apply::stage;
pub use plan::RestorePlan;
pub use plan::plan;

use crate::disk::node::Problem;
use std::path::PathBuf;

/// What to restore, where to, and how.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// The directory that becomes the root of the snapshot. Made if it is missing.
    pub target: PathBuf,
    /// Patterns like those that exclude; empty for everything.
    pub only: Vec<String>,
    /// What to do about what is there and differs.
    pub replace: Replace,
    /// How to see that a file is as it was.
    pub compare: Compare,
    /// What to do about zeroes.
    pub sparse: Sparse,
    /// When to make it durable.
    pub sync: Sync,
}

impl RestoreOptions {
    /// Returns the options of a careful restore of everything.
    pub fn new(target: impl Into<PathBuf>) -> RestoreOptions {
        RestoreOptions {
            target: target.into(),
            only: Vec::new(),
            replace: Replace::Never,
            compare: Compare::Stat,
            sparse: Sparse::Holes,
            sync: Sync::Once,
        }
    }
}

/// What to do about files that are in the target and differ from the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// Refuse, before anything is written.
    Never,
    /// Replace them. What the snapshot lacks stays.
    Changed,
}

/// How to see that a file in the target is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// By type, size and time.
    Stat,
    /// By its bytes too.
    Content,
}

/// What to do about holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sparse {
    /// Holes, and chunks of nothing but zeroes, take no room on the disk.
    Holes,
    /// Everything is written out.
    Filled,
}

/// When restored files are made to survive a power loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// At the end, all at once.
    Once,
    /// Not at all.
    Never,
}

/// What a restore did.
#[derive(Debug, Clone, Default)]
pub struct RestoreReport {
    /// Files written.
    pub files: u64,
    /// Bytes written, or left as holes.
    pub bytes: u64,
    /// Directories, links and other nodes made.
    pub others: u64,
    /// Nodes that were as they should be already.
    pub equal: u64,
    /// Attributes that could not be set, and sockets.
    pub warnings: Problems,
    /// What could not be restored (I8).
    pub failures: Problems,
    /// How long it took.
    pub duration_ms: u64,
}

/// So many problems and the first of them.
#[derive(Debug, Clone, Default)]
pub struct Problems {
    /// How many there were.
    pub count: u64,
    /// The first ones.
    pub sample: Vec<Problem>,
}

impl Problems {
    /// Problems kept; the others are only counted and sent as events.
    const SAMPLE_MAX: usize = 1000;

    fn add(&mut self, problem: Problem) {
        self.count += 1;
        if self.sample.len() < Problems::SAMPLE_MAX {
            self.sample.push(problem);
        }
    }
}
