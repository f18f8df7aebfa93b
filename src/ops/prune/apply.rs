//! Does what a plan says. `docs/decisions/0051-order-of-a-prune.md` has the argument for the order.

use crate::context::Context;
use crate::context::Event;
use crate::context::Timestamp;
use crate::error::Error;
use crate::error::Result;
use crate::format::entry::AddedPack;
use crate::format::entry::Change;
use crate::format::entry::PackBytes;
use crate::format::note::Note;
use crate::id::PackId;
use crate::id::SnapshotId;
use crate::ops::notes;
use crate::ops::prune::Given;
use crate::ops::prune::PruneOptions;
use crate::ops::prune::PrunePlan;
use crate::ops::prune::plan_from;
use crate::ops::prune::rewrite;
use crate::repo::Repo;
use crate::repo::log;
use crate::repo::log::Draft;
use crate::repo::log::Outcome;
use crate::repo::log::Outdated;
use crate::repo::log::State;
use crate::repo::reserve;
use crate::safeguard::Safeguard;
use crate::store::Key;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Plans that may be overtaken before a prune gives up.
const ATTEMPTS_MAX: usize = 20;
/// States that may turn out not to be the log before deleting is left to the next run.
const SWEEPS_MAX: usize = 3;
/// Names of deleted packs are forgotten along with other changes, or when there are so many.
const GONE_MAX: usize = 1000;
/// The log is shortened behind checkpoints this old: a kindness to slow readers.
const TRIM_AGE_NS: i64 = 24 * 3600 * 1_000_000_000;

/// What a prune did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PruneReport {
    /// Snapshots that were removed.
    pub removed: Vec<SnapshotId>,
    /// Packs that were deleted.
    pub deleted_packs: u64,
    /// Their bytes.
    pub deleted_bytes: u64,
    /// Packs that were written.
    pub written_packs: u64,
    /// Their bytes.
    pub written_bytes: u64,
    /// Records that were copied.
    pub copied: u64,
    /// Records that were stored against another base.
    pub reencoded: u64,
    /// Plans that others overtook.
    pub overtaken: u64,
    /// There was no room to rewrite packs; what could be dropped without it was.
    pub no_room: bool,
    /// How long it took.
    pub duration_ms: u64,
}

/// How an attempt ended.
enum Ended {
    Done(Arc<State>),
    /// Plan again from this state.
    Outdated(Arc<State>, Outdated),
}

/// Does what the plan says. Where others wrote meanwhile it plans again and does what both plans
/// say, so that nothing goes that nobody agreed to.
pub fn apply(
    cx: &Context,
    repo: &Repo,
    options: &PruneOptions,
    plan: PrunePlan,
) -> Result<PruneReport> {
    let started_at = cx.clock.now();
    let mut run = Run {
        cx,
        repo,
        options,
        report: PruneReport::default(),
        given: Given {
            own: BTreeMap::new(),
            agreed: Some(plan.removed().into_iter().collect()),
        },
        since: plan.state.position,
    };
    let mut plan = plan;
    for _ in 0..ATTEMPTS_MAX {
        match run.attempt(&plan)? {
            Ended::Done(state) => {
                run.tidy(state);
                let took_ns = cx.clock.now().since_ns(started_at);
                run.report.duration_ms = u64::try_from(took_ns / 1_000_000).unwrap_or(0);
                return Ok(run.report);
            }
            Ended::Outdated(now, why) => {
                run.report.overtaken += 1;
                if matches!(why, Outdated::OwnPackDropped | Outdated::Skipped) {
                    run.given.own.clear();
                }
                if run.given.own.is_empty() {
                    run.since = now.position;
                }
                drop(plan);
                plan = plan_from(cx, repo, options, now, &run.given)?;
            }
        }
    }
    Err(Error::Busy {
        what: format!("repository {}", repo.id().short()),
        reason: "others kept writing while space was collected; try again".to_string(),
    })
}

struct Run<'a> {
    cx: &'a Context,
    repo: &'a Repo,
    options: &'a PruneOptions,
    report: PruneReport,
    given: Given,
    /// The position of a state read before the first of the own packs was put.
    since: u64,
}

impl Run<'_> {
    fn attempt(&mut self, plan: &PrunePlan) -> Result<Ended> {
        let mut state = Arc::clone(&plan.state);
        let mut expected = state.position;
        if !Safeguard::DropBeforeDelete.holds() {
            for at in &plan.work.drop {
                let pack = plan.records.packs[*at as usize].id;
                self.repo.store().delete(&Key::pack(&pack))?;
            }
        }
        if let Some(draft) = self.first_draft(plan) {
            let removed = draft.change.remove_snapshots.clone();
            expected += 1;
            state = match append_on_full_disk(self.cx, self.repo, &state, &draft)? {
                Outcome::Committed(now) => now,
                Outcome::Outdated(now, why) => return Ok(Ended::Outdated(now, why)),
                Outcome::Unsettled => return Err(notes::unsettled(self.repo)),
            };
            self.report.removed.extend(removed);
            let add = draft.change.add_packs.iter();
            self.report.written_packs += draft.change.add_packs.len() as u64;
            self.report.written_bytes += add.map(|pack| pack.bytes.stored_bytes).sum::<u64>();
        }
        // What no entry names now is not needed. It is left to be collected as orphans: whether an
        // entry that was outdated stands in the log after all is not always known.
        self.given.own.clear();
        // Order (I4): the drop is durable before the first pack goes; and space is given back
        // before any is taken, so that rewriting has room on a disk that was full.
        state = self.sweep(state)?;
        if plan.work.rewrite.is_empty() && plan.work.reencode.is_empty() {
            return Ok(Ended::Done(state));
        }
        // Invariant: what is dropped in the place of copies was planned from this very state.
        if state.position != expected {
            return Ok(Ended::Outdated(state, Outdated::Overtaken));
        }
        self.since = state.position;
        match rewrite::rewrite(self.cx, self.repo, plan, &state, &mut self.given.own) {
            Ok(done) => {
                self.report.copied += done.copied;
                self.report.reencoded += done.reencoded;
            }
            Err(error) => {
                self.give_up_own();
                return self.rewrite_failed(state, error);
            }
        }
        let draft = self.second_draft(plan, &state);
        match append_on_full_disk(self.cx, self.repo, &state, &draft)? {
            Outcome::Committed(now) => {
                self.report.written_packs += self.given.own.len() as u64;
                let bytes = self.given.own.values().map(|bytes| bytes.stored_bytes);
                self.report.written_bytes += bytes.sum::<u64>();
                self.given.own.clear();
                Ok(Ended::Done(self.sweep(now)?))
            }
            Outcome::Outdated(now, why) => Ok(Ended::Outdated(now, why)),
            Outcome::Unsettled => Err(notes::unsettled(self.repo)),
        }
    }

    fn rewrite_failed(&mut self, state: Arc<State>, error: Error) -> Result<Ended> {
        if error.is_no_space() {
            self.report.no_room = true;
            return Ok(Ended::Done(state));
        }
        if let Error::Missing { .. } | Error::Corrupt { .. } = error {
            // Another prune may have deleted what was being read: then the log says so.
            let now = self.repo.read_state(self.cx)?;
            if now.position != state.position {
                return Ok(Ended::Outdated(now, Outdated::Overtaken));
            }
        }
        Err(error)
    }

    /// Everything that needs no rewriting; `None` if that is nothing.
    fn first_draft(&self, plan: &PrunePlan) -> Option<Draft> {
        let pack = |at: &u32| &plan.records.packs[*at as usize];
        let mut change = Change {
            remove_snapshots: plan.removed(),
            ..Change::default()
        };
        change
            .remove_snapshots
            .retain(|id| plan.state.snapshots.contains_key(id));
        change.drop_packs = plan.work.drop.iter().map(|at| pack(at).id).collect();
        let orphans = plan.survey.orphans.iter().map(|orphan| orphan.id);
        let is_foreign = |id: &PackId| !self.given.own.contains_key(id);
        change.drop_packs.extend(orphans.filter(is_foreign));
        let add = plan.work.add.iter().map(pack);
        change.add_packs = add.map(|pack| added(pack.id, pack.bytes)).collect();
        let changes_little = change.remove_snapshots.is_empty()
            && change.drop_packs.is_empty()
            && change.add_packs.is_empty();
        if changes_little && plan.survey.gone.len() <= GONE_MAX {
            return None;
        }
        change.gone_packs.clone_from(&plan.survey.gone);
        change.notes = vec![Note::Figures(plan.figures.note())];
        Some(self.draft(plan, &plan.state, change))
    }

    /// What was rewritten, in the place of where it was.
    fn second_draft(&self, plan: &PrunePlan, state: &State) -> Draft {
        let own = self.given.own.iter();
        let pack = |at: &u32| plan.records.packs[*at as usize].id;
        let change = Change {
            add_packs: own.map(|(id, bytes)| added(*id, *bytes)).collect(),
            drop_packs: plan.work.rewrite.iter().map(pack).collect(),
            ..Change::default()
        };
        self.draft(plan, state, change)
    }

    fn draft(&self, plan: &PrunePlan, state: &State, change: Change) -> Draft {
        let mut relies_on_packs = BTreeSet::new();
        if !change.add_packs.is_empty() {
            // Bases of what is added may be anywhere in what stays.
            relies_on_packs.extend(state.packs.keys());
            change.drop_packs.iter().for_each(|id| {
                relies_on_packs.remove(id);
            });
        }
        Draft {
            change,
            relies_on_packs,
            relies_on_snapshots: BTreeSet::new(),
            packs_since: match self.given.own.is_empty() {
                true => plan.state.position,
                false => self.since,
            },
        }
    }

    /// Deletes whatever was dropped, by whom and when ever.
    fn sweep(&mut self, mut state: Arc<State>) -> Result<Arc<State>> {
        let now = self.cx.clock.now();
        let dropped_before = match self.options.grace_ns {
            0 => Timestamp(i64::MAX),
            grace_ns => Timestamp(now.0.saturating_sub(grace_ns)),
        };
        self.cx.progress.event(Event::Phase("delete"));
        let keys = self.repo.log_keys();
        for _ in 0..SWEEPS_MAX {
            let store = self.repo.store();
            let swept = log::sweep(self.cx, store, &keys, Arc::clone(&state), dropped_before)?;
            self.report.deleted_packs += swept.packs;
            self.report.deleted_bytes += swept.stored_bytes;
            if !swept.outdated {
                break;
            }
            state = self.repo.read_state(self.cx)?;
        }
        Ok(state)
    }

    /// Deletes what was just stored and no draft ever named: nobody else can know of it.
    fn give_up_own(&mut self) {
        for id in std::mem::take(&mut self.given.own).keys() {
            // One that stays is an orphan, and is collected as such.
            let _ = self.repo.store().delete(&Key::pack(id));
        }
    }

    /// Leaves the repository as the next one likes to find it. None of this is needed.
    fn tidy(&self, state: Arc<State>) {
        let (store, keys) = (self.repo.store(), self.repo.log_keys());
        let _ = log::checkpoint(self.cx, store, &keys, state);
        let before = self.cx.clock.now().0.saturating_sub(TRIM_AGE_NS);
        let _ = log::trim(self.cx, store, &keys, before);
        let _ = reserve::ensure(self.cx, store);
    }
}

fn added(id: PackId, bytes: PackBytes) -> AddedPack {
    AddedPack { id, bytes }
}

/// Appends an entry; where the disk has no room even for that, the reserve makes it.
pub(super) fn append_on_full_disk(
    cx: &Context,
    repo: &Repo,
    state: &Arc<State>,
    draft: &Draft,
) -> Result<Outcome> {
    match repo.append(cx, Arc::clone(state), draft.clone()) {
        Err(error) if error.is_no_space() && reserve::spend(repo.store())? => {
            repo.append(cx, Arc::clone(state), draft.clone())
        }
        outcome => outcome,
    }
}
