//! The clients of the exploration: each runs the real machines, and decides what callers decide.

use super::world;
use super::world::World;
use crate::context::Timestamp;
use crate::format::checkpoint::State;
use crate::format::entry::Change;
use crate::id::PackId;
use crate::id::WriterId;
use crate::repo::log::append::Append;
use crate::repo::log::append::Draft;
use crate::repo::log::append::Outcome;
use crate::repo::log::append::Outdated;
use crate::repo::log::checkpoint::Checkpoint;
use crate::repo::log::collect::Survey;
use crate::repo::log::collect::SurveyReport;
use crate::repo::log::collect::Sweep;
use crate::repo::log::read::ReadState;
use crate::repo::log::rules::Rules;
use crate::repo::log::step::Machine;
use crate::repo::log::step::Reply;
use crate::repo::log::step::Request;
use crate::repo::log::step::Step;
use crate::repo::log::trim::Trim;
use std::collections::BTreeSet;
use std::sync::Arc;

/// How often a client plans again before it gives up, and how many packs a backup stores.
const ATTEMPTS_MAX: u8 = 3;
const UPLOADS_MAX: u8 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Backup,
    Forget,
    Collect,
    /// Writes a checkpoint and trims, so often.
    Checkpoint(u8),
}

#[derive(Debug, Clone, Hash)]
pub(super) struct Actor {
    pub(super) name: u8,
    pub(super) kind: Kind,
    attempts: u8,
    uploads: u8,
    /// Backup: the pack it has stored itself, and the position it knew before that.
    own: Option<(u8, u64)>,
    /// Its put can be seen, but the store has not answered yet.
    pub(super) syncing: bool,
    pub(super) job: Job,
    pub(super) asked: Option<Asked>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Asked {
    Store(Request),
    PutPack(u8),
}

#[derive(Debug, Clone, Hash)]
pub(super) enum Job {
    Read(ReadState),
    Upload(Arc<State>),
    Append(Append),
    Survey(Arc<State>, Survey),
    Sweep(Sweep),
    Checkpoint(Checkpoint),
    Trim(Trim),
    Done,
}

/// What comes of a step: the client as it goes on, and whether its work was acknowledged.
/// Several if the client has a choice; an error if the protocol says the repository is broken.
pub(super) type Steps = Result<Vec<(Actor, bool)>, String>;

impl Actor {
    /// A client that begins by reading, or one that has read this state and went to sleep.
    pub(super) fn new(name: u8, kind: Kind, rules: Rules, read: Option<Arc<State>>) -> Vec<Actor> {
        let actor = Actor {
            name,
            kind,
            attempts: 0,
            uploads: 0,
            own: None,
            syncing: false,
            job: Job::Done,
            asked: None,
        };
        let started = match read {
            Some(state) => actor.plan(state, rules),
            None => actor.read(rules),
        };
        let started = started.expect("nothing is wrong at the start");
        started.into_iter().map(|(actor, _)| actor).collect()
    }

    /// Goes on with the reply to what was asked.
    pub(super) fn resume(mut self, reply: Option<Reply>, rules: Rules) -> Steps {
        self.asked = None;
        match std::mem::replace(&mut self.job, Job::Done) {
            Job::Read(mut read) => match step(&mut read, reply)? {
                Step::Ask(request) => self.asks(Job::Read(read), request),
                Step::Done(outcome) => self.plan(outcome.state, rules),
            },
            Job::Upload(state) => self.append_backup(state, rules),
            Job::Append(mut append) => match step(&mut append, reply)? {
                Step::Ask(request) => self.asks(Job::Append(append), request),
                Step::Done(outcome) => self.appended(outcome, rules),
            },
            Job::Survey(state, mut survey) => match step(&mut survey, reply)? {
                Step::Ask(request) => self.asks(Job::Survey(state, survey), request),
                Step::Done(report) => self.surveyed(state, &report, rules),
            },
            Job::Sweep(mut sweep) => match step(&mut sweep, reply)? {
                Step::Ask(request) => self.asks(Job::Sweep(sweep), request),
                Step::Done(_) => Ok(vec![(self, false)]),
            },
            Job::Checkpoint(mut checkpoint) => match step(&mut checkpoint, reply)? {
                Step::Ask(request) => self.asks(Job::Checkpoint(checkpoint), request),
                Step::Done(false) => self.again(rules),
                Step::Done(true) => {
                    self.job = Job::Trim(Trim::new(rules, i64::MAX));
                    self.resume(None, rules)
                }
            },
            Job::Trim(mut trim) => match step(&mut trim, reply)? {
                Step::Ask(request) => self.asks(Job::Trim(trim), request),
                Step::Done(_) => self.again(rules),
            },
            Job::Done => Ok(vec![(self, false)]),
        }
    }

    fn asks(mut self, job: Job, request: Request) -> Steps {
        self.job = job;
        self.asked = Some(Asked::Store(request));
        Ok(vec![(self, false)])
    }

    fn read(mut self, rules: Rules) -> Steps {
        self.job = Job::Read(ReadState::new(rules, None));
        self.resume(None, rules)
    }

    fn again(mut self, rules: Rules) -> Steps {
        self.attempts += 1;
        match self.kind {
            Kind::Checkpoint(rounds) if self.attempts < rounds => self.read(rules),
            _ => Ok(vec![(self, false)]),
        }
    }

    fn plan(mut self, state: Arc<State>, rules: Rules) -> Steps {
        match self.kind {
            Kind::Backup => self.choose(&state, rules),
            Kind::Forget => {
                let first = world::snapshot(world::FIRST_NAME, &[world::FIRST_PACK]);
                if !state.snapshots.contains_key(&first.id) {
                    return Ok(vec![(self, false)]);
                }
                let change = Change {
                    remove_snapshots: vec![first.id],
                    ..Change::default()
                };
                self.append(state, change, Draft::default(), rules)
            }
            Kind::Collect => {
                self.job = Job::Survey(state.clone(), Survey::new(state, i64::MAX));
                self.resume(None, rules)
            }
            Kind::Checkpoint(_) => {
                self.job = Job::Checkpoint(Checkpoint::new(rules, state));
                self.resume(None, rules)
            }
        }
    }

    /// A backup may rely on any pack, on any snapshot, on the pack it has stored before, or store
    /// one now.
    fn choose(self, state: &Arc<State>, rules: Rules) -> Steps {
        let mut steps = Vec::new();
        for id in state.packs.keys() {
            let draft = Draft {
                relies_on_packs: [*id].into(),
                ..Draft::default()
            };
            steps.extend(self.clone().back_up(state, &[id.0[0]], draft, rules)?);
        }
        for (id, manifest) in &state.snapshots {
            let draft = Draft {
                relies_on_snapshots: [*id].into(),
                ..Draft::default()
            };
            steps.extend(self.clone().back_up(state, &manifest[1..], draft, rules)?);
        }
        if self.own.is_some() {
            steps.extend(self.clone().append_backup(state.clone(), rules)?);
        }
        if self.uploads < UPLOADS_MAX {
            let mut actor = self;
            let number = 1 + (actor.name - b'A') * UPLOADS_MAX + actor.uploads;
            actor.own = Some((number, state.position));
            actor.uploads += 1;
            actor.job = Job::Upload(state.clone());
            actor.asked = Some(Asked::PutPack(number));
            steps.push((actor, false));
        }
        Ok(steps)
    }

    fn append_backup(self, state: Arc<State>, rules: Rules) -> Steps {
        let (number, since) = self.own.expect("it has stored a pack");
        let draft = Draft {
            packs_since: since,
            change: Change {
                add_packs: vec![world::added(number)],
                ..Change::default()
            },
            ..Draft::default()
        };
        self.back_up(&state, &[number], draft, rules)
    }

    fn back_up(self, state: &Arc<State>, packs: &[u8], draft: Draft, rules: Rules) -> Steps {
        let change = Change {
            add_snapshots: vec![world::snapshot(self.name, packs)],
            ..draft.change.clone()
        };
        self.append(state.clone(), change, draft, rules)
    }

    fn append(mut self, state: Arc<State>, change: Change, draft: Draft, rules: Rules) -> Steps {
        let mut writer = [self.name; 16];
        writer[0] = self.attempts;
        let draft = Draft { change, ..draft };
        let at = Timestamp::default();
        self.job = Job::Append(Append::new(rules, state, draft, WriterId(writer), at));
        self.resume(None, rules)
    }

    fn appended(mut self, outcome: Outcome, rules: Rules) -> Steps {
        match outcome {
            Outcome::Committed(state) if self.kind == Kind::Collect => self.sweep(state, rules),
            Outcome::Committed(_) => Ok(vec![(self, true)]),
            Outcome::Unsettled => Ok(vec![(self, false)]),
            Outcome::Outdated(state, why) => {
                self.attempts += 1;
                // A caller knows that it must not name this pack again; whether its packs were put
                // too long ago is for the machine to find out.
                if why == Outdated::OwnPackDropped {
                    self.own = None;
                }
                match self.attempts < ATTEMPTS_MAX {
                    true => self.plan(state, rules),
                    false => Ok(vec![(self, false)]),
                }
            }
        }
    }

    fn surveyed(self, state: Arc<State>, report: &SurveyReport, rules: Rules) -> Steps {
        let manifests = state.snapshots.values();
        let needed: BTreeSet<u8> = manifests.flat_map(|m| m[1..].to_vec()).collect();
        let stored = state.packs.keys().copied();
        let orphans = report.orphans.iter().map(|pack| pack.id);
        let mut garbage: Vec<PackId> = stored.chain(orphans).collect();
        garbage.retain(|id| !needed.contains(&id.0[0]));
        if garbage.is_empty() && report.gone.is_empty() {
            return self.sweep(state, rules);
        }
        let change = Change {
            drop_packs: garbage,
            gone_packs: report.gone.clone(),
            ..Change::default()
        };
        self.append(state, change, Draft::default(), rules)
    }

    fn sweep(mut self, state: Arc<State>, rules: Rules) -> Steps {
        self.job = Job::Sweep(Sweep::new(rules, state, Timestamp(i64::MAX)));
        self.resume(None, rules)
    }

    /// Returns true if it may still write or trim checkpoints.
    pub(super) fn may_trim(&self) -> bool {
        matches!(self.kind, Kind::Checkpoint(_)) && self.asked.is_some()
    }

    /// Returns true if what it asks for is the same whenever it is asked, so that the order does
    /// not matter: it may be done at once.
    pub(super) fn is_free(&self, world: &World, may_trim: bool) -> bool {
        let lasts = |number: &u64| world.slots.get(number).is_some_and(|(_, durable)| *durable);
        match &self.asked {
            Some(Asked::Store(Request::Sync(_))) => world.crashes_left == 0,
            Some(Asked::Store(Request::ListCheckpoints | Request::GetCheckpoint(_))) => !may_trim,
            Some(Asked::Store(Request::GetSlot(number))) => !may_trim && lasts(number),
            _ => false,
        }
    }
}

fn step<M: Machine>(machine: &mut M, reply: Option<Reply>) -> Result<Step<M::Output>, String> {
    machine.step(reply).map_err(|error| error.to_string())
}
