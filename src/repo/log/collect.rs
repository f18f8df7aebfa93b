//! The collector's two ends: what lies in the store besides the log, and deleting what was dropped.
//!
//! In between the caller marks, plans and appends the drop. Invariant I14: a listing may find work
//! or miss it; that a listing lacks something is never believed.

use crate::context::Timestamp;
use crate::error::Result;
use crate::format::checkpoint::State;
use crate::id::PackId;
use crate::repo::log::read;
use crate::repo::log::rules::Rule;
use crate::repo::log::rules::Rules;
use crate::repo::log::step::Machine;
use crate::repo::log::step::Reply;
use crate::repo::log::step::Request;
use crate::repo::log::step::Step;
use crate::repo::log::step::StoredPack;
use crate::safeguard::Safeguard;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Compares the packs in the store with those in the log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Survey {
    state: Arc<State>,
    stored_before_ns: i64,
    asked: Vec<PackId>,
    report: SurveyReport,
}

/// What the store holds besides the log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct SurveyReport {
    /// Packs in no entry, stored before the time asked for. A drop entry may name them.
    pub orphans: Vec<StoredPack>,
    /// Dropped packs that are deleted. An entry may name them as gone.
    pub gone: Vec<PackId>,
    /// Dropped packs that are still there.
    pub dropped: Vec<StoredPack>,
}

impl Survey {
    /// Finds packs in no entry that were stored before this time by the store's clock. The delay is
    /// kindness to running backups: their packs are in no entry yet.
    pub fn new(state: Arc<State>, stored_before_ns: i64) -> Survey {
        Survey {
            state,
            stored_before_ns,
            asked: Vec::new(),
            report: SurveyReport::default(),
        }
    }

    fn listed(&mut self, packs: Vec<StoredPack>) -> Result<Step<SurveyReport>> {
        let listed: BTreeSet<PackId> = packs.iter().map(|pack| pack.id).collect();
        for pack in packs {
            if self.state.dropped.contains_key(&pack.id) {
                self.report.dropped.push(pack);
            } else if !self.state.packs.contains_key(&pack.id)
                && pack.modified_ns < self.stored_before_ns
            {
                self.report.orphans.push(pack);
            }
        }
        // Each is asked for by name, because a listing may lag.
        let dropped = self.state.dropped.keys();
        self.asked = dropped.filter(|id| !listed.contains(id)).copied().collect();
        self.ask()
    }

    fn ask(&mut self) -> Result<Step<SurveyReport>> {
        Ok(match self.asked.last() {
            Some(id) => Step::Ask(Request::PackExists(*id)),
            None => Step::Done(std::mem::take(&mut self.report)),
        })
    }
}

impl Machine for Survey {
    type Output = SurveyReport;

    fn step(&mut self, reply: Option<Reply>) -> Result<Step<SurveyReport>> {
        match reply {
            None => Ok(Step::Ask(Request::ListPacks)),
            Some(Reply::Packs(packs)) => self.listed(packs),
            Some(Reply::Exists(exists)) => {
                let is_there = exists && Safeguard::GoneAskedFor.holds();
                let id = self.asked.pop().filter(|_| !is_there);
                self.report.gone.extend(id);
                self.ask()
            }
            Some(reply) => unreachable!("{reply:?} is not what a survey asks for"),
        }
    }
}

/// Deletes dropped packs, one's own and those another collector left behind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sweep {
    rules: Rules,
    state: Arc<State>,
    dropped_before: Timestamp,
    report: SweepReport,
    phase: Phase,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    Begin,
    Checkpoints,
    Packs,
    Delete(Vec<StoredPack>),
}

/// What was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SweepReport {
    /// Packs deleted.
    pub packs: u64,
    /// Their stored bytes.
    pub stored_bytes: u64,
    /// The state given turned out not to be the log, so nothing was deleted: read it again.
    pub outdated: bool,
}

impl Sweep {
    /// Deletes packs that were dropped up to this time: a grace for readers, not needed for safety.
    pub fn new(rules: Rules, state: Arc<State>, dropped_before: Timestamp) -> Sweep {
        Sweep {
            rules,
            state,
            dropped_before,
            report: SweepReport::default(),
            phase: Phase::Begin,
        }
    }

    fn ask(&mut self, phase: Phase, request: Request) -> Result<Step<SweepReport>> {
        self.phase = phase;
        Ok(Step::Ask(request))
    }

    fn outdated(&mut self) -> Result<Step<SweepReport>> {
        self.report.outdated = true;
        Ok(Step::Done(self.report))
    }

    fn begin(&mut self) -> Result<Step<SweepReport>> {
        // Order: the drop must be durable before the first pack goes (I4). The state may hold
        // entries of others, so this is not implied by an append of one's own.
        let is_settled = self.state.position <= self.state.read.settled;
        match is_settled || self.rules.omit(Rule::SettleRead) {
            true => self.ask(Phase::Checkpoints, Request::ListCheckpoints),
            false => self.outdated(),
        }
    }

    fn listed(&mut self, mut packs: Vec<StoredPack>) -> Result<Step<SweepReport>> {
        packs.retain(|pack| {
            let dropped = self.state.dropped.get(&pack.id);
            let is_dropped = dropped.is_some_and(|at| *at <= self.dropped_before);
            let is_unknown = dropped.is_none() && !self.state.packs.contains_key(&pack.id);
            is_dropped || is_unknown && !Safeguard::SweepOnlyDropped.holds()
        });
        packs.sort_by_key(|pack| pack.id);
        self.delete_next(packs)
    }

    fn delete_next(&mut self, mut packs: Vec<StoredPack>) -> Result<Step<SweepReport>> {
        let Some(pack) = packs.pop() else {
            return Ok(Step::Done(self.report));
        };
        self.report.packs += 1;
        self.report.stored_bytes += pack.stored_bytes;
        self.ask(Phase::Delete(packs), Request::DeletePack(pack.id))
    }
}

impl Machine for Sweep {
    type Output = SweepReport;

    fn step(&mut self, reply: Option<Reply>) -> Result<Step<SweepReport>> {
        match (std::mem::replace(&mut self.phase, Phase::Begin), reply) {
            (Phase::Begin, None) => self.begin(),
            (Phase::Checkpoints, Some(Reply::Checkpoints(list))) => {
                let is_exact = read::is_exact(self.rules, &self.state, &list);
                match is_exact || self.rules.omit(Rule::ExactBeforeDelete) {
                    true => self.ask(Phase::Packs, Request::ListPacks),
                    false => self.outdated(),
                }
            }
            (Phase::Packs, Some(Reply::Packs(packs))) => self.listed(packs),
            (Phase::Delete(rest), Some(Reply::Done)) => self.delete_next(rest),
            (phase, reply) => unreachable!("{reply:?} does not answer {phase:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// I14: a listing may lag.
    #[test]
    fn a_dropped_pack_that_a_listing_lacks_is_gone_only_if_it_is_not_there() {
        for exists in [true, false] {
            let id = PackId([1; 32]);
            let mut state = State::default();
            state.dropped.insert(id, Timestamp(0));
            let mut survey = Survey::new(Arc::new(state), 0);

            let asked = survey.step(None).unwrap();
            assert!(matches!(asked, Step::Ask(Request::ListPacks)));
            let asked = survey.step(Some(Reply::Packs(Vec::new()))).unwrap();
            assert!(matches!(asked, Step::Ask(Request::PackExists(of)) if of == id));
            let done = survey.step(Some(Reply::Exists(exists))).unwrap();

            let Step::Done(report) = done else {
                panic!("{done:?}");
            };
            assert_eq!(report.gone.is_empty(), exists);
        }
    }
}
