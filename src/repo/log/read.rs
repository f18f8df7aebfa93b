//! Reading the state: the newest readable checkpoint, then slots up to the first gap.
//!
//! What is returned is exact and settled. Exact: none of the slots it was read from can have been
//! trimmed and made a second time, because at the end there were still too few checkpoints for
//! anybody to trim them. Settled: every slot was seen, then synced, then seen again, so it survives
//! power loss. Both were holes in the first design: `docs/decisions/0003`, `0004`.

use crate::error::Error;
use crate::error::Result;
use crate::format::checkpoint::RECENT_MAX;
use crate::format::checkpoint::State;
use crate::id::SlotHash;
use crate::repo::log::fold;
use crate::repo::log::rules::Rule;
use crate::repo::log::rules::Rules;
use crate::repo::log::settle::Settle;
use crate::repo::log::step::Machine;
use crate::repo::log::step::Reply;
use crate::repo::log::step::Request;
use crate::repo::log::step::Slot;
use crate::repo::log::step::Step;
use crate::repo::log::step::StoredCheckpoint;
use crate::safeguard::Safeguard;
use crate::store::Key;
use std::sync::Arc;

/// How often reading starts over because checkpoints were written meanwhile. Each round needs
/// several new ones, so this many mean something is wrong with the store.
const ROUNDS_MAX: u8 = 16;

/// So far behind the newest checkpoint a remembered state is still the better start: who has packs
/// of an unfinished backup must have read every entry since they were put.
const REMEMBERED_BEHIND_MAX: u64 = RECENT_MAX as u64;

/// Reads the state.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ReadState {
    rules: Rules,
    remembered: Option<Arc<State>>,
    watched: Option<(u64, SlotHash)>,
    watched_is_there: bool,
    rounds: u8,
    /// The newest checkpoint in the list, readable or not: the log is at least that long.
    newest: u64,
    /// The newest checkpoint when something was missing that may have been trimmed meanwhile. If it
    /// is missing again and there is no newer one, nobody trimmed it.
    doubted: Option<u64>,
    phase: Phase,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    List,
    /// Is the slot the remembered state ended with still the same?
    Remembered(Vec<StoredCheckpoint>),
    /// The checkpoint to be read, then those to try if it is damaged.
    Checkpoint(Vec<StoredCheckpoint>),
    Slots(Arc<State>),
    /// The next slot is missing; is there one after it?
    BeyondGap(Arc<State>),
    /// There is. Is the next one really missing?
    GapAgain(Arc<State>),
    Settle(Settle),
    Closing(Arc<State>),
}

/// What was read.
#[derive(Debug, Clone)]
pub struct ReadOutcome {
    /// The state.
    pub state: Arc<State>,
    /// Whether the log has the hash at the position that was asked about.
    pub watched_is_there: bool,
}

impl ReadState {
    /// Reads the state; what is remembered from an earlier run saves work and uncovers a rollback.
    pub fn new(rules: Rules, remembered: Option<Arc<State>>) -> ReadState {
        ReadState {
            rules,
            remembered: remembered.filter(|state| is_whole(state)),
            watched: None,
            watched_is_there: false,
            rounds: 0,
            newest: 0,
            doubted: None,
            phase: Phase::List,
        }
    }

    /// Reads the state and finds out whether the log had this hash at this position.
    pub(crate) fn watching(rules: Rules, position: u64, hash: SlotHash) -> ReadState {
        ReadState {
            watched: Some((position, hash)),
            ..ReadState::new(rules, None)
        }
    }

    fn restart(&mut self) -> Result<Step<ReadOutcome>> {
        self.rounds += 1;
        if self.rounds == ROUNDS_MAX {
            return Err(Error::Busy {
                what: "the log".into(),
                reason: "it changes faster than it can be read".into(),
            });
        }
        self.watched_is_there = false;
        self.phase = Phase::List;
        Ok(Step::Ask(Request::ListCheckpoints))
    }

    /// Starts over, or fails with this if that was tried and nothing has changed.
    fn restart_or(&mut self, error: Error) -> Result<Step<ReadOutcome>> {
        if self.doubted == Some(self.newest) {
            return Err(error);
        }
        self.doubted = Some(self.newest);
        self.restart()
    }

    fn listed(&mut self, checkpoints: Vec<StoredCheckpoint>) -> Result<Step<ReadOutcome>> {
        self.newest = checkpoints.first().map_or(0, |c| c.position);
        if let Some(state) = &self.remembered {
            let position = state.position;
            let is_near = self.newest <= position + REMEMBERED_BEHIND_MAX;
            if is_near && self.rules.trim_floor(&checkpoints) <= position {
                self.phase = Phase::Remembered(checkpoints);
                return Ok(Step::Ask(Request::GetSlot(position)));
            }
        }
        self.begin_at_checkpoint(checkpoints)
    }

    fn begin_at_checkpoint(&mut self, rest: Vec<StoredCheckpoint>) -> Result<Step<ReadOutcome>> {
        match rest.first() {
            Some(checkpoint) => {
                let ask = Request::GetCheckpoint(checkpoint.position);
                self.phase = Phase::Checkpoint(rest);
                Ok(Step::Ask(ask))
            }
            None => self.begin_at(Arc::default()),
        }
    }

    fn begin_at(&mut self, state: Arc<State>) -> Result<Step<ReadOutcome>> {
        if let Some(seen) = &self.remembered
            && state.hash_at(seen.position).unwrap_or(seen.log_hash()) != seen.log_hash()
            && Safeguard::RollbackNoticed.holds()
        {
            return Err(rolled_back(seen));
        }
        if let Some((position, hash)) = self.watched
            && state.hash_at(position) == Some(hash)
        {
            self.watched_is_there = true;
        }
        self.next_slot(state)
    }

    fn next_slot(&mut self, state: Arc<State>) -> Result<Step<ReadOutcome>> {
        let ask = Request::GetSlot(state.position + 1);
        self.phase = Phase::Slots(state);
        Ok(Step::Ask(ask))
    }

    fn check_remembered(
        &mut self,
        checkpoints: Vec<StoredCheckpoint>,
        slot: Option<Arc<Slot>>,
    ) -> Result<Step<ReadOutcome>> {
        let seen = self.remembered.clone();
        let seen = seen.expect("invariant: this phase needs a remembered state");
        let before = seen.hash_at(seen.position - 1);
        match (slot, before) {
            (Some(slot), Some(before)) => {
                if fold::next_hash(before, &slot.object_hash) != seen.log_hash()
                    && Safeguard::RollbackNoticed.holds()
                {
                    return Err(rolled_back(&seen));
                }
                // It is exact and settled as it is; `since` stays, for whoever has put packs.
                self.begin_at(seen)
            }
            // Its last slot was trimmed; a checkpoint stands for it.
            _ if self.newest >= seen.position => self.begin_at_checkpoint(checkpoints),
            // It may have been trimmed since the list was made; then the next list says so.
            _ => self.restart_or(rolled_back(&seen)),
        }
    }

    fn slot(&mut self, mut state: Arc<State>, slot: &Slot) -> Result<Step<ReadOutcome>> {
        Arc::make_mut(&mut state).apply(slot, self.rules);
        if self.watched == Some((state.position, state.log_hash())) {
            self.watched_is_there = true;
        }
        self.next_slot(state)
    }

    fn gap(&mut self, state: Arc<State>) -> Result<Step<ReadOutcome>> {
        let ask = Request::GetSlot(state.position + 2);
        self.phase = Phase::BeyondGap(state);
        Ok(Step::Ask(ask))
    }

    /// No slot is written before the one below it is durable, so a slot beyond a gap means that
    /// slots were deleted: by `Trim` meanwhile, or by somebody who may not.
    fn torn(&mut self, state: &State) -> Result<Step<ReadOutcome>> {
        self.restart_or(Error::Missing {
            object: Key::slot(state.position + 1).to_string(),
        })
    }

    fn at_end(&mut self, state: Arc<State>) -> Result<Step<ReadOutcome>> {
        if state.position < self.newest {
            // A checkpoint says the log is longer. Trimmed meanwhile, or damaged.
            return self.restart_or(self.unreadable());
        }
        if self.rules.omit(Rule::SettleRead) {
            return self.close(state);
        }
        self.settle(Settle::new(state), None)
    }

    fn settle(&mut self, mut settle: Settle, reply: Option<Reply>) -> Result<Step<ReadOutcome>> {
        match settle.step(reply)? {
            Step::Ask(request) => {
                self.phase = Phase::Settle(settle);
                Ok(Step::Ask(request))
            }
            Step::Done(Some(state)) => self.close(state),
            Step::Done(None) => self.restart(),
        }
    }

    fn unreadable(&self) -> Error {
        Error::corrupt(
            Key::checkpoint(self.newest).to_string(),
            "it cannot be read, and the slots it stands for may not be there",
        )
    }

    fn close(&mut self, state: Arc<State>) -> Result<Step<ReadOutcome>> {
        self.phase = Phase::Closing(state);
        Ok(Step::Ask(Request::ListCheckpoints))
    }
}

impl Machine for ReadState {
    type Output = ReadOutcome;

    fn step(&mut self, reply: Option<Reply>) -> Result<Step<ReadOutcome>> {
        let Some(reply) = reply else {
            return Ok(Step::Ask(Request::ListCheckpoints));
        };
        match (std::mem::replace(&mut self.phase, Phase::List), reply) {
            (Phase::List, Reply::Checkpoints(list)) => self.listed(list),
            (Phase::Remembered(list), Reply::Slot(slot)) => self.check_remembered(list, slot),
            (Phase::Checkpoint(mut rest), Reply::Checkpoint(read)) => match read {
                Some(Ok(state)) => self.begin_at(state),
                Some(Err(_)) => {
                    rest.remove(0);
                    self.begin_at_checkpoint(rest)
                }
                None => self.restart(),
            },
            (Phase::Slots(state), Reply::Slot(Some(slot))) => self.slot(state, &slot),
            (Phase::Slots(state), Reply::Slot(None)) => self.gap(state),
            (Phase::BeyondGap(state), Reply::Slot(None)) => self.at_end(state),
            (Phase::BeyondGap(state), Reply::Slot(Some(_))) => {
                let ask = Request::GetSlot(state.position + 1);
                self.phase = Phase::GapAgain(state);
                Ok(Step::Ask(ask))
            }
            (Phase::GapAgain(state), Reply::Slot(Some(slot))) => self.slot(state, &slot),
            (Phase::GapAgain(state), Reply::Slot(None)) => self.torn(&state),
            (Phase::Settle(settle), reply) => self.settle(settle, Some(reply)),
            (Phase::Closing(mut state), Reply::Checkpoints(list)) => {
                let newest = list.first().map_or(0, |checkpoint| checkpoint.position);
                let is_exact = is_exact(self.rules, &state, &list);
                if !is_exact && !self.rules.omit(Rule::ExactRead) {
                    // Newer ones were written meanwhile, or the newest could not be read.
                    return self.restart_or(self.unreadable());
                }
                let whole = Arc::make_mut(&mut state);
                whole.read.checkpoint = newest;
                if is_exact {
                    whole.read.exact = whole.position;
                }
                Ok(Step::Done(ReadOutcome {
                    state,
                    watched_is_there: self.watched_is_there,
                }))
            }
            (phase, reply) => unreachable!("{reply:?} does not answer {phase:?}"),
        }
    }
}

/// Returns true if no slot the state was read from can have been trimmed before it was read.
pub(crate) fn is_exact(rules: Rules, state: &State, checkpoints: &[StoredCheckpoint]) -> bool {
    rules.trim_floor(checkpoints) <= state.read.exact
}

/// Returns true for a state that is worth remembering. That of an outdated draft may not be.
fn is_whole(state: &State) -> bool {
    let read = state.read;
    0 < state.position && state.position == read.exact && state.position == read.settled
}

fn rolled_back(seen: &State) -> Error {
    Error::RolledBack {
        reason: format!(
            "{} is not the one this machine has seen before",
            Key::slot(seen.position)
        ),
    }
}
