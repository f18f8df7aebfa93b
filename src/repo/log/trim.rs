//! Deleting slots that the checkpoints make unnecessary, and old checkpoints.
//!
//! Order: slots go only when both newest checkpoints cover them, are durable and were read: if one
//! is damaged later, the other and the slots after it still yield the state. `Rules::trim_floor`
//! is the other side of this: from the list of checkpoints everybody can tell what may be trimmed.

use crate::error::Result;
use crate::repo::log::rules::Rules;
use crate::repo::log::step::Machine;
use crate::repo::log::step::Reply;
use crate::repo::log::step::Request;
use crate::repo::log::step::Step;
use crate::repo::log::step::StoredCheckpoint;
use crate::store::Folder;

/// Deletes what is not needed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Trim {
    rules: Rules,
    stored_before_ns: i64,
    kept: Vec<StoredCheckpoint>,
    old: Vec<StoredCheckpoint>,
    floor: u64,
    report: TrimReport,
    phase: Phase,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    List,
    Sync,
    /// Reads the kept checkpoint with this index.
    Read(usize),
    Slots,
    Delete(Vec<Request>),
}

/// What was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TrimReport {
    /// Slots deleted.
    pub slots: u64,
    /// Checkpoints deleted.
    pub checkpoints: u64,
}

impl Trim {
    /// Deletes what checkpoints cover that were stored before this time by the store's clock: a
    /// kindness to slow readers, not needed for safety.
    pub fn new(rules: Rules, stored_before_ns: i64) -> Trim {
        Trim {
            rules,
            stored_before_ns,
            kept: Vec::new(),
            old: Vec::new(),
            floor: 0,
            report: TrimReport::default(),
            phase: Phase::List,
        }
    }

    fn listed(&mut self, mut checkpoints: Vec<StoredCheckpoint>) -> Result<Step<TrimReport>> {
        let is_old = |c: &StoredCheckpoint| c.modified_ns < self.stored_before_ns;
        let kept = self.rules.checkpoints_kept;
        if checkpoints.len() < kept || !checkpoints[..kept].iter().all(is_old) {
            return Ok(Step::Done(self.report));
        }
        self.floor = self.rules.trim_floor(&checkpoints);
        self.old = checkpoints.split_off(kept);
        self.kept = checkpoints;
        self.phase = Phase::Sync;
        Ok(Step::Ask(Request::Sync(Folder::State)))
    }

    fn read(&mut self, index: usize) -> Result<Step<TrimReport>> {
        let Some(checkpoint) = self.kept.get(index) else {
            self.phase = Phase::Slots;
            return Ok(Step::Ask(Request::ListSlots));
        };
        self.phase = Phase::Read(index);
        Ok(Step::Ask(Request::GetCheckpoint(checkpoint.position)))
    }

    fn delete(&mut self, mut slots: Vec<u64>) -> Result<Step<TrimReport>> {
        slots.retain(|number| *number <= self.floor);
        slots.sort_unstable_by(|a, b| b.cmp(a));
        // Taken from the back: old checkpoints first, so that a reader that still finds one also
        // finds the slots after it; then slots from the lowest.
        let mut requests: Vec<Request> = slots.into_iter().map(Request::DeleteSlot).collect();
        let old = self.old.iter();
        requests.extend(old.map(|c| Request::DeleteCheckpoint(c.position)));
        self.delete_next(requests)
    }

    fn delete_next(&mut self, mut requests: Vec<Request>) -> Result<Step<TrimReport>> {
        let Some(request) = requests.pop() else {
            return Ok(Step::Done(self.report));
        };
        match request {
            Request::DeleteSlot(_) => self.report.slots += 1,
            _ => self.report.checkpoints += 1,
        }
        self.phase = Phase::Delete(requests);
        Ok(Step::Ask(request))
    }
}

impl Machine for Trim {
    type Output = TrimReport;

    fn step(&mut self, reply: Option<Reply>) -> Result<Step<TrimReport>> {
        match (std::mem::replace(&mut self.phase, Phase::List), reply) {
            (Phase::List, None) => Ok(Step::Ask(Request::ListCheckpoints)),
            (Phase::List, Some(Reply::Checkpoints(list))) => self.listed(list),
            (Phase::Sync, Some(Reply::Done)) => self.read(0),
            (Phase::Read(index), Some(Reply::Checkpoint(read))) => match read {
                Some(Ok(_)) => self.read(index + 1),
                _ => Ok(Step::Done(self.report)),
            },
            (Phase::Slots, Some(Reply::Slots(slots))) => self.delete(slots),
            (Phase::Delete(rest), Some(Reply::Done)) => self.delete_next(rest),
            (phase, reply) => unreachable!("{reply:?} does not answer {phase:?}"),
        }
    }
}
