//! `check --repair`: says in the log what is lost, so that backups store it again, and takes that
//! back once nothing that is kept needs it any more.
//!
//! ```text
//! damage is found ── mark: nobody relies on the pack ── the next backup of each series looks
//! everything up, without the pack, and stores what it misses ── all snapshots are whole without
//! the pack: the mark is lifted, and the pack dropped from the log
//! ```
//! Nothing is deleted here. A damaged pack stays where it is, and readers go on reading from it
//! what still opens; it is out of the way of writers only. `docs/decisions/0060-damage.md`.
//!
//! Invariant: a mark is lifted only if every snapshot of the very state it is lifted from was
//! walked and is whole without the pack, or if the pack itself was read from end to end and is
//! sound. An entry that drops packs is refused if another one was written meanwhile, so what is
//! added later is walked too.

use crate::context::Context;
use crate::context::Timestamp;
use crate::error::Error;
use crate::error::Result;
use crate::format::entry::Change;
use crate::format::manifest::Manifest;
use crate::format::note::Loss;
use crate::format::note::Lost;
use crate::format::note::Note;
use crate::id::PackId;
use crate::id::SnapshotId;
use crate::ops::check;
use crate::ops::check::CheckOptions;
use crate::ops::check::CheckReport;
use crate::ops::check::ReadData;
use crate::ops::check::Scope;
use crate::ops::check::log;
use crate::ops::check::log::LogReport;
use crate::ops::notes;
use crate::repo::Repo;
use crate::repo::chunks::Chunks;
use crate::repo::log::Draft;
use crate::repo::log::Outcome;
use crate::repo::log::State;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Half-written files younger than this may belong to a writer that is still at work.
const LEFTOVER_AGE_NS: i64 = 48 * 3600 * 1_000_000_000;

/// What was found, and what it takes to say it in the log.
#[derive(Debug, Clone, Default)]
pub struct RepairPlan {
    /// What is wrong.
    pub report: CheckReport,
    /// What is lost and not marked yet.
    pub mark: Lost,
    /// What was marked and is sound again, or not needed any more.
    pub heal: Lost,
    /// Damaged packs that no snapshot needs: the log forgets them.
    pub drop: BTreeSet<PackId>,
    /// Snapshots of which other things are lost than the log says; none takes it back.
    pub losses: BTreeMap<SnapshotId, Loss>,
    /// Checkpoints that cannot be read and are written again.
    pub checkpoints: BTreeSet<u64>,
    /// Why marks stay.
    pub waiting: Option<Waiting>,
    /// What the log consists of.
    pub log: LogReport,
}

/// Why a mark cannot be lifted yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// Snapshots lack what was in it. They have to be backed up again, or forgotten.
    Needed,
    /// All can be restored, but some snapshots read what still opens in it.
    StillRead,
    /// Nothing seems to need it, but only reading all data tells.
    ReadData,
}

impl RepairPlan {
    /// Returns whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        let has_notes = !self.mark.is_empty() || !self.heal.is_empty() || !self.losses.is_empty();
        !has_notes && self.drop.is_empty() && self.checkpoints.is_empty()
    }

    /// Returns whether all is well once this is done.
    pub fn heals(&self) -> bool {
        let is_solved = |object: &str| {
            let pack = object.strip_prefix("packs/").and_then(|id| id.parse().ok());
            pack.is_some_and(|pack| self.drop.contains(&pack))
        };
        let mut problems = self.report.problems.iter();
        self.waiting.is_none() && problems.all(|problem| is_solved(&problem.object))
    }
}

/// What a repair did.
#[derive(Debug, Clone, Default)]
pub struct RepairReport {
    /// Checkpoints written again.
    pub checkpoints: u64,
    /// Half-written files removed.
    pub leftovers: u64,
    /// Whether the local index was made anew.
    pub is_index_rebuilt: bool,
}

/// Checks a state of the log, and says what has to be said about it. Writes nothing.
pub fn plan(
    cx: &Context,
    repo: &Repo,
    state: &State,
    snapshots: &[(SnapshotId, Manifest)],
    read_data: ReadData,
) -> Result<RepairPlan> {
    let marked = &state.notes.lost;
    let log = log::inspect(cx, repo)?;
    let report = check::check(cx, repo, &state.packs, snapshots, read_data)?;
    refuse_unless_sure(&report, &marked.packs)?;
    let mut plan = RepairPlan {
        checkpoints: log.lost_checkpoints.keys().copied().collect(),
        log,
        ..RepairPlan::default()
    };
    let sound: BTreeSet<PackId> = marked
        .packs
        .iter()
        .filter(|pack| report.whole_packs.contains(*pack))
        .copied()
        .collect();
    let mut doubted: BTreeSet<PackId> = &report.damaged_packs | &marked.packs;
    doubted.retain(|pack| state.packs.contains_key(pack) && !sound.contains(pack));
    let gone = |pack: &&PackId| !state.packs.contains_key(*pack);
    plan.heal.packs = marked.packs.iter().filter(gone).copied().collect();
    plan.heal.packs.extend(&sound);
    if doubted.is_empty() && report.lost_chunks.is_empty() {
        plan.heal.chunks.clone_from(&marked.chunks);
        plan.losses = changed_losses(state, &report, &report, read_data);
        plan.report = report;
        return Ok(plan);
    }
    let options = CheckOptions {
        without: doubted.clone(),
        scope: Scope::Everything,
        read_data: ReadData::No,
    };
    let without = check::check_with(cx, repo, &state.packs, snapshots, &options)?;
    refuse_unless_sure(&without, &doubted)?;
    let is_needed = !without.losses.is_empty() || !without.lost_chunks.is_empty();
    // What still opens may be the only copy that can be read: the others must have been.
    let opens = |pack: &PackId| !report.unopened_packs.contains(pack);
    let is_read = read_data == ReadData::All || !doubted.iter().any(opens);
    match (is_needed, is_read) {
        (false, true) => {
            plan.heal.packs.extend(marked.packs.intersection(&doubted));
            plan.heal.chunks.clone_from(&marked.chunks);
            plan.drop = doubted;
        }
        (is_needed, _) => {
            plan.mark.packs = &doubted - &marked.packs;
            plan.mark.chunks = &report.lost_chunks - &marked.chunks;
            plan.waiting = Some(match is_needed {
                true if report.losses.is_empty() && is_read => Waiting::StillRead,
                true => Waiting::Needed,
                false => Waiting::ReadData,
            });
        }
    }
    plan.losses = changed_losses(state, &report, &without, read_data);
    plan.report = report;
    Ok(plan)
}

/// Fails if something cannot be read for a reason that may pass: only what is lost is marked.
fn refuse_unless_sure(report: &CheckReport, marked: &BTreeSet<PackId>) -> Result<()> {
    if let Some(reason) = &report.unsure {
        return Err(Error::Refused {
            reason: format!("{reason}. That may pass, and only what is lost is marked"),
        });
    }
    let unsure = |pack: &&PackId| !report.damaged_packs.contains(*pack) && !marked.contains(*pack);
    let Some(pack) = report.unopened_packs.iter().find(unsure) else {
        return Ok(());
    };
    let object = format!("packs/{pack}");
    let mut problems = report.problems.iter();
    let found = problems.find(|problem| problem.object == object);
    let reason = found.map_or("it cannot be read", |problem| &problem.message);
    Err(Error::Refused {
        reason: format!("{object}: {reason}. That may pass, and only what is lost is marked"),
    })
}

/// Returns what the log has to say of snapshots that it does not say yet. A check that read less
/// than the one before knows less: it never takes back what is not there without the doubted packs.
fn changed_losses(
    state: &State,
    report: &CheckReport,
    without: &CheckReport,
    read_data: ReadData,
) -> BTreeMap<SnapshotId, Loss> {
    let said = &state.notes.losses;
    let all_read = read_data == ReadData::All;
    let mut changed = BTreeMap::new();
    for (snapshot, loss) in &report.losses {
        let is_news = match said.get(snapshot) {
            None => true,
            Some(known) => {
                known != loss && (read_data == ReadData::All || known.count < loss.count)
            }
        };
        if is_news {
            changed.insert(*snapshot, loss.clone());
        }
    }
    for snapshot in said.keys() {
        let is_sure = all_read || !without.losses.contains_key(snapshot);
        if is_sure && !report.losses.contains_key(snapshot) {
            changed.insert(*snapshot, Loss::default());
        }
    }
    changed
}

/// Does exactly the plan. Others who wrote meanwhile make it out of date, and nothing is done.
pub fn apply(
    cx: &Context,
    repo: &Repo,
    state: &Arc<State>,
    plan: &RepairPlan,
) -> Result<RepairReport> {
    let mut state = Arc::clone(state);
    let mut notes = Vec::new();
    if !plan.mark.is_empty() {
        notes.push(Note::Damage(plan.mark.clone()));
    }
    if !plan.heal.is_empty() {
        notes.push(Note::Healed(plan.heal.clone()));
    }
    // A pack that a prune dropped meanwhile is missing too, and nothing is lost with it.
    let mut relies_on_packs = plan.report.damaged_packs.clone();
    relies_on_packs.retain(|pack| state.packs.contains_key(pack) && !plan.drop.contains(pack));
    let losses = plan.losses.iter();
    notes.extend(losses.map(|(snapshot, loss)| Note::Loss(*snapshot, loss.clone())));
    if !notes.is_empty() || !plan.drop.is_empty() {
        let draft = Draft {
            change: Change {
                drop_packs: plan.drop.iter().copied().collect(),
                notes,
                ..Change::default()
            },
            relies_on_packs,
            relies_on_snapshots: plan.losses.keys().copied().collect(),
            packs_since: state.position,
        };
        state = match repo.append(cx, state, draft)? {
            Outcome::Committed(state) => state,
            Outcome::Outdated(..) => {
                return Err(Error::Busy {
                    what: format!("repository {}", repo.id().short()),
                    reason: "others wrote to it meanwhile, so what was found may not be so any \
                             more; run it again"
                        .to_string(),
                });
            }
            Outcome::Unsettled => return Err(notes::unsettled(repo)),
        };
    }
    let mut report = RepairReport {
        checkpoints: log::replace_checkpoints(cx, repo, &state, &plan.log)?,
        ..RepairReport::default()
    };
    let before = Timestamp(cx.clock.now().0.saturating_sub(LEFTOVER_AGE_NS));
    report.leftovers = repo.store().remove_leftovers(before)?;
    // A pack that does not open any more may have the last copy of its table in the index.
    if plan.report.unopened_packs.is_empty() && repo.cache_dir().is_some() {
        repo.forget_index();
        let chunks = Chunks::open_without(repo, &state.packs, &state.notes.lost.packs)?;
        chunks.save_index();
        report.is_index_rebuilt = true;
    }
    Ok(report)
}
