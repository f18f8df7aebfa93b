//! The numbers of the protocol, and its rules by name so that tests can leave one out.
//!
//! Invariant: outside tests every rule holds. The only constructor that omits one is in the tests.

use crate::repo::log::step::StoredCheckpoint;

/// How a repository keeps its log. Part of the format: from it everybody tells what others may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rules {
    /// How many checkpoints stay; slots that all of these cover may be deleted.
    pub(crate) checkpoints_kept: usize,
    /// How many of the newest slots stay in any case.
    pub(crate) slots_kept: u64,
    omitted: u32,
}

/// One rule of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Rule {
    /// A draft relies only on packs that are still in the repository, and none of its own was
    /// dropped.
    Fence,
    /// A writer that did not read every entry since its packs were put does not name them.
    JumpCheck,
    /// Whoever removes or drops plans again after any other entry.
    NewMark,
    /// A slot counts only after a look whether slots of its number were trimmed before.
    PostCheck,
    /// A draft relies only on snapshots that are still there.
    ParentCheck,
    /// An entry is written only on top of one that is known to be durable.
    SettleBeforePut,
    /// A slot found to be one's own is made durable before it counts.
    SettleOwn,
    /// What was read is durable before it is acted on: a drop, before the first pack is deleted.
    SettleRead,
    /// A state is acted on only if none of the slots it was read from can have been trimmed.
    ExactBeforeDelete,
    /// The same for a checkpoint.
    ExactBeforeCheckpoint,
    /// After an unknown outcome the slot is read back: it may be somebody else's.
    UnknownIsNotSuccess,
    /// After an unknown outcome the slot is read back: it may be one's own.
    UnknownIsNotFailure,
    /// An entry that does not continue the log changes nothing.
    VoidEntries,
    /// A checkpoint holds the dropped packs.
    RememberDrops,
    /// Reading starts over when slots it read may have been trimmed meanwhile.
    ExactRead,
}

impl Rules {
    /// The rules of every repository.
    pub const NORMAL: Rules = Rules {
        checkpoints_kept: 2,
        slots_kept: 1000,
        omitted: 0,
    };

    /// Returns true if this rule is left out. Only tests do that.
    pub(crate) fn omit(self, rule: Rule) -> bool {
        self.omitted & (1 << rule as u32) != 0
    }

    /// Returns the position up to which slots may have been trimmed, given the checkpoints there
    /// are. Whoever trims has seen these two positions or earlier ones, and neither ever goes back.
    pub(crate) fn trim_floor(self, newest_first: &[StoredCheckpoint]) -> u64 {
        let Some(oldest_kept) = newest_first.get(self.checkpoints_kept - 1) else {
            return 0;
        };
        let newest = newest_first[0].position;
        oldest_kept
            .position
            .min(newest.saturating_sub(self.slots_kept))
    }
}

#[cfg(test)]
impl Rules {
    /// Everybody trims as soon as possible: no slot stays below the newest checkpoint.
    pub(crate) const EAGER: Rules = Rules {
        checkpoints_kept: 1,
        slots_kept: 0,
        omitted: 0,
    };

    pub(crate) fn without(self, rule: Rule) -> Rules {
        Rules {
            omitted: self.omitted | 1 << rule as u32,
            ..self
        }
    }
}
