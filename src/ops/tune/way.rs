//! Ways to store, and which of them are compared.
//!
//! Only what may differ from backup to backup is varied, one thing at a time: so what comes out can
//! be had at once, in the same repository, and is due to that one thing.

use crate::ops::backup::DatabaseCuts;
use crate::ops::tune::sample::Sample;
use crate::repo::writer::Effort;
use serde::Deserialize;
use serde::Serialize;

/// A way to store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Way {
    /// Where SQLite databases are cut.
    pub cuts: DatabaseCuts,
    /// How hard to compress, and how far deltas lean on each other.
    pub effort: Effort,
}

/// What makes a way differ from the one that counts now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is that one.
    Nothing,
    /// Another level of compression.
    Level(i32),
    /// Other runs of deltas.
    RunLen(usize),
    /// Other cuts of SQLite databases.
    Cuts(DatabaseCuts),
}

const LEVELS: [i32; 4] = [1, 3, 6, 12];
const RUN_LENS: [usize; 3] = [16, 32, 64];
const CUTS: [DatabaseCuts; 4] = [
    DatabaseCuts::Groups,
    DatabaseCuts::SmallGroups,
    DatabaseCuts::LargeGroups,
    DatabaseCuts::Content,
];

impl Change {
    /// Ways there are at most.
    pub(super) const COUNT_MAX: usize = 1 + LEVELS.len() + RUN_LENS.len() + CUTS.len();

    /// Returns what can make a difference to a sample; the first is no change.
    pub(super) fn all(current: &Way, sample: &Sample) -> Vec<Change> {
        let mut all = vec![Change::Nothing];
        all.extend(LEVELS.map(Change::Level));
        // With one backup alone there are no deltas.
        if sample.snapshots.len() != 1 {
            all.extend(RUN_LENS.map(Change::RunLen));
        }
        if sample.has_sqlite {
            all.extend(CUTS.map(Change::Cuts));
        }
        all.retain(|change| *change == Change::Nothing || change.of(current) != *current);
        all
    }

    /// Returns the way that this makes of one.
    pub fn of(self, way: &Way) -> Way {
        let mut way = *way;
        match self {
            Change::Nothing => {}
            Change::Level(level) => way.effort.level = level,
            Change::RunLen(run_len) => way.effort.run_len = run_len,
            Change::Cuts(cuts) => way.cuts = cuts,
        }
        way
    }
}
