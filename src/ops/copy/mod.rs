//! Copying snapshots to another repository, with other keys: only what is missing, oldest first.
//!
//! A copy is a backup whose source is a snapshot. Everything read is verified (I3), everything is
//! stored as new content of the target, against what stood in its place there. The log of the
//! target says what each copy is a copy of, so it is made once. Any number of copies, backups and
//! prunes of either side may run at once; one that is killed goes on with what it had stored.
//! Decision 0064.

mod assemble;
mod choose;
mod plan;
mod session;
mod stream;
mod walk;

pub use plan::CopyPlan;
pub use plan::PlannedSnapshot;
pub use plan::plan;

use crate::context::Context;
use crate::context::Event;
use crate::error::Error;
use crate::error::Result;
use crate::id::SnapshotId;
use crate::ops::copy::choose::Copies;
use crate::ops::copy::session::Ended;
use crate::ops::copy::session::Start;
use crate::ops::unfinished::Unfinished;
use crate::repo::Repo;
use crate::repo::log::State;
use crate::repo::writer::Trust;
use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

/// How often others may be in the way of one snapshot before a copy gives up.
const ATTEMPTS_MAX: usize = 10;

/// What a copy did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CopyReport {
    /// What was copied, oldest first.
    pub copied: Vec<CopiedSnapshot>,
    /// Snapshots that were there already.
    pub present: u64,
    /// Snapshots that somebody removed from the source before they were copied.
    pub removed: Vec<SnapshotId>,
    /// Snapshots that cannot be copied whole and were left out, and why (I8).
    pub damaged: Vec<(SnapshotId, String)>,
    /// How long it took.
    pub duration_ms: u64,
}

/// A snapshot that was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopiedSnapshot {
    /// What it is called in the source.
    pub snapshot: SnapshotId,
    /// What it is called in the target.
    pub copy: SnapshotId,
    /// Plain bytes that were read.
    pub read_bytes: u64,
    /// Bytes of records that were written.
    pub stored_bytes: u64,
}

/// An error, and in which repository it happened.
#[derive(Debug)]
enum Fault {
    /// In the one that is read.
    Source(Error),
    /// In the one that is written.
    Target(Error),
}

type Faulty<T> = std::result::Result<T, Fault>;

/// Copies these snapshots. An error of the target is `Error::CopyFailed`, any other one of the
/// source; what was copied before it stays.
pub fn copy(
    cx: &Context,
    source: &Repo,
    target: &Repo,
    wanted: &[SnapshotId],
) -> Result<CopyReport> {
    let started_at = cx.clock.now();
    refuse_same(source, target)?;
    let from = source.read_state(cx)?;
    let to = read_target(cx, target)?;
    let chosen = choose(source, &from, &Copies::of(target.id(), &to), wanted)?;
    let mut report = CopyReport {
        present: chosen.present,
        removed: chosen.removed,
        damaged: chosen.damaged,
        ..CopyReport::default()
    };
    if !chosen.left.is_empty() {
        announce(cx, &from, &chosen.left);
        copy_all(cx, (source, from), (target, to), chosen.left, &mut report)?;
    }
    let took_ns = cx.clock.now().since_ns(started_at);
    report.duration_ms = u64::try_from(took_ns / 1_000_000).unwrap_or(0);
    Ok(report)
}

/// Copies what is left, from new states of both repositories whenever others get in the way.
fn copy_all(
    cx: &Context,
    (source, mut from): (&Repo, Arc<State>),
    (target, mut to): (&Repo, Arc<State>),
    mut left: VecDeque<SnapshotId>,
    report: &mut CopyReport,
) -> Result<()> {
    let own = Unfinished::begin(cx, target, &to).map_err(|error| failed(target, error))?;
    let own = Mutex::new(own);
    let mut suspect_packs = BTreeSet::new();
    let (mut trust, mut attempts) = (Trust::Parent, 0);
    while attempts < ATTEMPTS_MAX {
        let before = left.len();
        let start = Start {
            cx,
            source,
            target,
            from: &from,
            to: to.clone(),
            suspect_packs: &suspect_packs,
            trust,
        };
        let ended = session::run(start, &own, &mut left, &mut report.copied);
        match ended.map_err(|fault| fault.into_error(target))? {
            Ended::Done => break,
            Ended::Unreadable(error) => {
                let now = source.read_state(cx)?;
                set_aside(&mut left, report, &error, (&from, &now));
                from = now;
                to = read_target(cx, target)?;
            }
            Ended::Outdated(now) => to = now,
            Ended::Doubt(mut packs) => {
                // They may also just have been dropped.
                suspect_packs.append(&mut packs);
                trust = Trust::Nothing;
                to = read_target(cx, target)?;
            }
        }
        attempts = if left.len() < before { 0 } else { attempts + 1 };
    }
    if !left.is_empty() {
        let what = format!("repository {}", target.id().short());
        let reason = "others kept removing what this copy relied on; try again".to_string();
        return Err(failed(target, Error::Busy { what, reason }));
    }
    let own = own.into_inner().unwrap_or_else(PoisonError::into_inner);
    own.finish();
    Ok(())
}

/// Judges a snapshot that could not be read. A prune may have moved what was being read: then the
/// log says so, and it is tried again. If the log does not, it is damage.
fn set_aside(
    left: &mut VecDeque<SnapshotId>,
    report: &mut CopyReport,
    error: &Error,
    (then, now): (&State, &State),
) {
    let Some(id) = left.front().copied() else {
        return;
    };
    if !now.snapshots.contains_key(&id) {
        report.removed.push(id);
        left.pop_front();
    } else if now.position == then.position {
        report.damaged.push((id, error.to_string()));
        left.pop_front();
    }
}

fn read_target(cx: &Context, target: &Repo) -> Result<Arc<State>> {
    let state = target.read_state(cx);
    state.map_err(|error| failed(target, error))
}

impl Fault {
    fn into_error(self, target: &Repo) -> Error {
        match self {
            Fault::Source(error) => error,
            Fault::Target(error) => failed(target, error),
        }
    }
}

/// Says that it was the target that failed.
fn failed(target: &Repo, error: Error) -> Error {
    match error {
        Error::Cancelled => Error::Cancelled,
        error => Error::CopyFailed {
            location: target.store().location(),
            source: Box::new(error),
        },
    }
}

fn refuse_same(source: &Repo, target: &Repo) -> Result<()> {
    match source.id() == target.id() {
        true => Err(Error::Refused {
            reason: format!(
                "{} and {} are the same repository, {}",
                source.store().location(),
                target.store().location(),
                source.id().short()
            ),
        }),
        false => Ok(()),
    }
}

/// What is to be done.
struct Chosen {
    /// Oldest first.
    left: VecDeque<SnapshotId>,
    present: u64,
    removed: Vec<SnapshotId>,
    damaged: Vec<(SnapshotId, String)>,
}

fn choose(source: &Repo, from: &State, copies: &Copies, wanted: &[SnapshotId]) -> Result<Chosen> {
    let mut chosen = Chosen {
        left: VecDeque::new(),
        present: 0,
        removed: Vec::new(),
        damaged: Vec::new(),
    };
    let mut left = Vec::new();
    let wanted: BTreeSet<SnapshotId> = wanted.iter().copied().collect();
    for id in wanted {
        let Some(manifest) = choose::manifest(from, &id)? else {
            chosen.removed.push(id);
            continue;
        };
        if copies
            .find(&choose::origin(source.id(), from, id))
            .is_some()
        {
            chosen.present += 1;
        } else if let Some(loss) = from.notes.losses.get(&id) {
            let paths = loss.count;
            let reason = format!("{paths} of its paths cannot be restored any more");
            chosen.damaged.push((id, reason));
        } else {
            left.push((manifest.started_at, id));
        }
    }
    left.sort_unstable();
    chosen.left = left.into_iter().map(|(_, id)| id).collect();
    Ok(chosen)
}

fn announce(cx: &Context, from: &State, left: &VecDeque<SnapshotId>) {
    let manifests = left.iter().map(|id| choose::manifest(from, id));
    let files = manifests.flatten().flatten().map(|m| m.figures.files).sum();
    cx.progress.event(Event::Phase("copy"));
    cx.progress.event(Event::Total { files, bytes: 0 });
}
