//! Appending one entry: the heart of the protocol. `docs/protocol.md`, section "Append".
//!
//! A draft says what it changes and what it relies on. Whoever loses the race for a slot reads on,
//! and goes on itself only if everything the draft relies on still holds; otherwise the caller
//! plans again. Success means: the entry is in the log of every later reader, durably (I6).

use crate::context::Timestamp;
use crate::error::Error;
use crate::error::Result;
use crate::format::checkpoint::State;
use crate::format::entry::Change;
use crate::format::entry::Entry;
use crate::id::PackId;
use crate::id::SnapshotId;
use crate::id::WriterId;
use crate::repo::log::fold::Applied;
use crate::repo::log::read;
use crate::repo::log::read::ReadOutcome;
use crate::repo::log::read::ReadState;
use crate::repo::log::rules::Rule;
use crate::repo::log::rules::Rules;
use crate::repo::log::settle::Settle;
use crate::repo::log::step::Machine;
use crate::repo::log::step::Put;
use crate::repo::log::step::Reply;
use crate::repo::log::step::Request;
use crate::repo::log::step::Slot;
use crate::repo::log::step::Step;
use crate::store::Folder;
use std::collections::BTreeSet;
use std::sync::Arc;

/// How often one slot is put while the store fails and the slot is not there.
const PUTS_MAX: u8 = 3;
/// How often others may win. Each time one of them has made progress, so this is not a deadlock.
const LOSSES_MAX: u16 = 1000;

/// An entry to be, with what it relies on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Draft {
    /// What it changes.
    pub change: Change,
    /// Packs in which the new snapshots and packs found chunks: all but those it adds itself.
    pub relies_on_packs: BTreeSet<PackId>,
    /// Snapshots whose subtrees or names it uses.
    pub relies_on_snapshots: BTreeSet<SnapshotId>,
    /// The position of a state that was read before the first of the added packs was put. An entry
    /// that drops such a pack can only come later, so whoever has read on from there has seen it.
    pub packs_since: u64,
}

impl Draft {
    /// Returns true if it takes something away, so that it must know of every other entry.
    fn removes(&self) -> bool {
        !self.change.drop_packs.is_empty() || !self.change.remove_snapshots.is_empty()
    }
}

/// How appending ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The entry is in the log, durably. The state has it, and possibly later entries.
    Committed(Arc<State>),
    /// The entry does not fit the log as it is now: plan again from this state.
    ///
    /// `Outdated::Recycled` alone leaves open whether the entry is in the log.
    Outdated(Arc<State>, Outdated),
    /// The store keeps failing. The entry may or may not be in the log, whole or not at all.
    Unsettled,
}

/// Why a draft does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outdated {
    /// A pack it relies on is not part of the repository any more.
    PackDropped,
    /// A pack it adds was dropped. It must not be named again: store its content anew.
    OwnPackDropped,
    /// A snapshot it relies on is not there any more.
    SnapshotRemoved,
    /// Entries were trimmed that it did not read, so its packs may have been dropped. They must not
    /// be named again: store their content anew.
    Skipped,
    /// It removes something, and others wrote meanwhile.
    Overtaken,
    /// Its slot was one that had been trimmed, or was trimmed before this could be told apart.
    Recycled,
}

/// Appends one entry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Append {
    rules: Rules,
    draft: Arc<Draft>,
    writer: WriterId,
    written_at: Timestamp,
    state: Arc<State>,
    overtaken: bool,
    puts: u8,
    losses: u16,
    phase: Phase,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    Begin,
    Settle(Settle),
    Put(Arc<Entry>),
    /// The slot was taken. By whom?
    Taken(Arc<Entry>),
    /// The outcome is unknown. Who has the slot?
    Unknown(Arc<Entry>),
    /// It is ours. Is it there after a sync?
    SyncOwn(Arc<Entry>),
    OwnAgain(Arc<Entry>),
    ReadOn,
    /// The slots to read on from are trimmed.
    Reread(Box<ReadState>),
    PostCheck(Arc<State>),
    /// There are so many new checkpoints that the slot may have been a trimmed one.
    Verify(Box<ReadState>),
}

type AppendStep = Result<Step<Outcome>>;

impl Append {
    /// Appends a draft to this state. The writer id must be fresh for each draft: by it a writer
    /// recognises its own slot.
    pub fn new(
        rules: Rules,
        state: Arc<State>,
        draft: Draft,
        writer: WriterId,
        written_at: Timestamp,
    ) -> Append {
        Append {
            rules,
            draft: Arc::new(draft),
            writer,
            written_at,
            state,
            overtaken: false,
            puts: 0,
            losses: 0,
            phase: Phase::Begin,
        }
    }

    fn ask(&mut self, phase: Phase, request: Request) -> AppendStep {
        self.phase = phase;
        Ok(Step::Ask(request))
    }

    fn outdated(&self, why: Outdated) -> AppendStep {
        Ok(Step::Done(Outcome::Outdated(self.state.clone(), why)))
    }

    /// Returns what stands against putting the draft on top of the state.
    fn objection(&self) -> Option<Outdated> {
        let (draft, state) = (&self.draft, &self.state);
        let applies = |rule| !self.rules.omit(rule);
        let packs = &draft.change.add_packs;
        let is_own = |id: &PackId| packs.iter().any(|pack| pack.id == *id);
        let is_stored = |id: &PackId| state.packs.contains_key(id) || is_own(id);
        let mut parents = draft.relies_on_snapshots.iter();
        if self.overtaken && draft.removes() && applies(Rule::NewMark) {
            return Some(Outdated::Overtaken);
        }
        if !draft.relies_on_packs.iter().all(is_stored) && applies(Rule::Fence) {
            return Some(Outdated::PackDropped);
        }
        if packs.iter().any(|pack| state.was_dropped(&pack.id)) && applies(Rule::Fence) {
            return Some(Outdated::OwnPackDropped);
        }
        let skipped = draft.packs_since < state.read.since;
        if !packs.is_empty() && skipped && applies(Rule::JumpCheck) {
            return Some(Outdated::Skipped);
        }
        if !parents.all(|id| state.snapshots.contains_key(id)) && applies(Rule::ParentCheck) {
            return Some(Outdated::SnapshotRemoved);
        }
        None
    }

    /// Goes on at the end of the log: settles it, checks the draft, puts the slot.
    fn at_end(&mut self) -> AppendStep {
        if self.state.read.settled < self.state.position && !self.rules.omit(Rule::SettleBeforePut)
        {
            // Order: a slot never stands on one that power loss can take away.
            return self.settle(Settle::new(self.state.clone()), None);
        }
        if let Some(why) = self.objection() {
            return self.outdated(why);
        }
        self.put(Arc::new(Entry {
            previous: self.state.log_hash(),
            writer: self.writer,
            written_at: self.written_at,
            change: self.draft.change.clone(),
        }))
    }

    fn settle(&mut self, mut settle: Settle, reply: Option<Reply>) -> AppendStep {
        match settle.step(reply)? {
            Step::Ask(request) => self.ask(Phase::Settle(settle), request),
            Step::Done(Some(state)) => {
                self.state = state;
                self.at_end()
            }
            Step::Done(None) => self.reread(),
        }
    }

    fn put(&mut self, entry: Arc<Entry>) -> AppendStep {
        self.puts += 1;
        let request = Request::PutSlot(self.state.position + 1, entry.clone());
        self.ask(Phase::Put(entry), request)
    }

    fn put_ended(&mut self, entry: Arc<Entry>, put: Put) -> AppendStep {
        let look = Request::GetSlot(self.state.position + 1);
        match put {
            Put::Created(slot) => self.created(&slot),
            Put::Taken => self.ask(Phase::Taken(entry), look),
            Put::Unknown => self.ask(Phase::Unknown(entry), look),
        }
    }

    fn taken(&mut self, entry: Arc<Entry>, slot: Option<Arc<Slot>>) -> AppendStep {
        match slot {
            Some(slot) if self.is_own(&entry, &slot) => self.own(entry, &slot),
            Some(slot) => self.foreign(&slot),
            None => self.reread(),
        }
    }

    fn unknown(&mut self, entry: Arc<Entry>, slot: Option<Arc<Slot>>) -> AppendStep {
        match slot {
            Some(slot) if self.rules.omit(Rule::UnknownIsNotSuccess) => self.created(&slot),
            Some(slot) if self.is_own(&entry, &slot) => self.own(entry, &slot),
            Some(slot) => self.foreign(&slot),
            None if self.puts < PUTS_MAX => self.put(entry),
            None => Ok(Step::Done(Outcome::Unsettled)),
        }
    }

    fn is_own(&self, entry: &Entry, slot: &Slot) -> bool {
        slot.entry == *entry && !self.rules.omit(Rule::UnknownIsNotFailure)
    }

    /// The slot is ours, but it is only seen, not known to be durable.
    fn own(&mut self, entry: Arc<Entry>, slot: &Slot) -> AppendStep {
        if self.rules.omit(Rule::SettleOwn) {
            return self.created(slot);
        }
        self.ask(Phase::SyncOwn(entry), Request::Sync(Folder::Log))
    }

    fn own_again(&mut self, entry: Arc<Entry>, slot: Option<Arc<Slot>>) -> AppendStep {
        match slot {
            Some(slot) if slot.entry == *entry => self.created(&slot),
            other => self.unknown(entry, other),
        }
    }

    /// Somebody else was first.
    fn foreign(&mut self, slot: &Slot) -> AppendStep {
        if self.puts > 0 {
            self.losses += 1;
        }
        if self.losses == LOSSES_MAX {
            return Err(Error::Busy {
                what: "the log".into(),
                reason: "others kept winning the race for the next slot".into(),
            });
        }
        self.puts = 0;
        self.overtaken = true;
        Arc::make_mut(&mut self.state).apply(slot, self.rules);
        let next = Request::GetSlot(self.state.position + 1);
        self.ask(Phase::ReadOn, next)
    }

    fn reread(&mut self) -> AppendStep {
        self.overtaken = true;
        self.puts = 0;
        let read = ReadState::new(self.rules, None);
        self.phase = Phase::Reread(Box::new(read));
        self.step(None)
    }

    fn reread_ended(&mut self, read: ReadOutcome) -> AppendStep {
        self.state = read.state;
        self.at_end()
    }

    /// The slot is there, durably, and it is ours. Is it one that readers look at?
    fn created(&mut self, slot: &Slot) -> AppendStep {
        let mut after = self.state.clone();
        let state = Arc::make_mut(&mut after);
        if state.apply(slot, self.rules) == Applied::Void {
            return self.outdated(Outdated::Recycled);
        }
        state.read.settled = state.position;
        if self.rules.omit(Rule::PostCheck) {
            return Ok(Step::Done(Outcome::Committed(after)));
        }
        self.ask(Phase::PostCheck(after), Request::ListCheckpoints)
    }

    fn verify(&mut self, after: &State) -> AppendStep {
        let read = ReadState::watching(self.rules, after.position, after.log_hash());
        self.phase = Phase::Verify(Box::new(read));
        self.step(None)
    }

    fn verified(&mut self, read: ReadOutcome) -> AppendStep {
        if read.watched_is_there {
            return Ok(Step::Done(Outcome::Committed(read.state)));
        }
        self.state = read.state;
        self.outdated(Outdated::Recycled)
    }
}

impl Machine for Append {
    type Output = Outcome;

    fn step(&mut self, reply: Option<Reply>) -> AppendStep {
        match (std::mem::replace(&mut self.phase, Phase::Begin), reply) {
            (Phase::Begin, None) => self.at_end(),
            (Phase::Settle(settle), reply) => self.settle(settle, reply),
            (Phase::Put(entry), Some(Reply::Put(put))) => self.put_ended(entry, put),
            (Phase::Taken(entry), Some(Reply::Slot(slot))) => self.taken(entry, slot),
            (Phase::Unknown(entry), Some(Reply::Slot(slot))) => self.unknown(entry, slot),
            (Phase::SyncOwn(entry), Some(Reply::Done)) => {
                let again = Request::GetSlot(self.state.position + 1);
                self.ask(Phase::OwnAgain(entry), again)
            }
            (Phase::OwnAgain(entry), Some(Reply::Slot(slot))) => self.own_again(entry, slot),
            (Phase::ReadOn, Some(Reply::Slot(Some(slot)))) => self.foreign(&slot),
            (Phase::ReadOn, Some(Reply::Slot(None))) => self.at_end(),
            (Phase::PostCheck(mut after), Some(Reply::Checkpoints(list))) => {
                match read::is_exact(self.rules, &after, &list) {
                    true => {
                        let state = Arc::make_mut(&mut after);
                        state.read.exact = state.position;
                        Ok(Step::Done(Outcome::Committed(after)))
                    }
                    false => self.verify(&after),
                }
            }
            (Phase::Reread(mut read), reply) => match read.step(reply)? {
                Step::Done(outcome) => self.reread_ended(outcome),
                Step::Ask(request) => self.ask(Phase::Reread(read), request),
            },
            (Phase::Verify(mut read), reply) => match read.step(reply)? {
                Step::Done(outcome) => self.verified(outcome),
                Step::Ask(request) => self.ask(Phase::Verify(read), request),
            },
            (phase, reply) => unreachable!("{reply:?} does not answer {phase:?}"),
        }
    }
}
