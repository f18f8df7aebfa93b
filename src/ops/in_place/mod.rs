//! Restores a snapshot to where it came from: all of it or nothing, and so that it can be undone.
//!
//! ```text
//! nobody uses it? ── safety snapshot, read back ── logs merged ── stage beside, check databases
//!    ── journal ── names change hands, one rename each ── links, directories ── done
//! ```
//! Before the journal nothing of the application was changed but logs that SQLite merged, as the
//! next start of the application would have. After it every crash can be finished, and an error is
//! taken back. `docs/decisions/0070-restore-in-place.md` has the argument.

mod application;
mod journal;
mod plan;
mod publish;
mod running;
mod safety;
mod stage;

pub use application::Application;
pub use journal::unfinished;
pub use plan::InPlacePlan;
pub use plan::SchemaChange;
pub use plan::plan;
pub use running::User;
pub use running::users;

use crate::context::Context;
use crate::context::Event;
use crate::disk::jail::Jail;
use crate::error::Error;
use crate::error::Result;
use crate::format::manifest::Manifest;
use crate::format::note::HoldUntil;
use crate::format::note::Note;
use crate::format::note::Replaced;
use crate::id::SnapshotId;
use crate::ops::in_place::journal::Journal;
use crate::ops::in_place::journal::Phase;
use crate::ops::in_place::journal::Stage;
use crate::ops::in_place::safety::Safety;
use crate::ops::in_place::stage::Staging;
use crate::ops::notes;
use crate::ops::restore;
use crate::ops::restore::Replace;
use crate::ops::restore::RestoreOptions;
use crate::ops::restore::RestoreReport;
use crate::ops::restore::select::Only;
use crate::ops::snapshots::Snapshot;
use crate::repo::Repo;
use crate::repo::chunks::Chunks;
use std::path::PathBuf;

/// What to restore in place, and how.
#[derive(Debug, Clone, Default)]
pub struct InPlaceOptions {
    /// Where it came from.
    pub root: PathBuf,
    /// Patterns of what is restored; none for everything.
    pub only: Vec<String>,
    /// What happens to what the snapshot lacks.
    pub surplus: Surplus,
    /// This machine, for the safety snapshot.
    pub host: String,
    /// The version of the application that is there now; empty if it is not known.
    pub app_version: String,
    /// How the application is stopped and started.
    pub application: Application,
}

impl InPlaceOptions {
    fn restore_options(&self) -> RestoreOptions {
        let mut options = RestoreOptions::new(&self.root);
        options.only.clone_from(&self.only);
        options.replace = Replace::Changed;
        options
    }
}

/// What happens to what is there and would have been backed up, and is not in the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Surplus {
    /// It stays.
    #[default]
    Kept,
    /// It goes.
    Removed,
}

/// What a restore in place did.
#[derive(Debug, Clone, Default)]
pub struct InPlaceReport {
    /// The snapshot of what was there before; `None` if there was nothing.
    pub safety: Option<SnapshotId>,
    /// What was put in place.
    pub restored: RestoreReport,
    /// Files removed.
    pub removed: u64,
    /// Databases that were checked before they were put in place.
    pub checked_databases: u64,
    /// What went wrong after everything was in place.
    pub aftermath: Vec<String>,
}

/// Restores in place what a plan showed. Plans again by itself: what it does is what the state of
/// the place asks for once nobody uses it.
pub fn apply(
    cx: &Context,
    repo: &Repo,
    chunks: &Chunks<'_>,
    snapshot: &Snapshot,
    options: &InPlaceOptions,
) -> Result<InPlaceReport> {
    // Made if it is missing.
    drop(Jail::open(&options.root)?);
    if plan::spares_databases(chunks, &snapshot.manifest, options)? {
        return restore(cx, repo, chunks, snapshot, options);
    }
    let databases = plan::database_paths(chunks, &snapshot.manifest)?;
    let was_stopped = options.application.stop(cx, &options.root, &databases)?;
    let mut outcome = restore(cx, repo, chunks, snapshot, options);
    let after = outcome.as_ref().ok();
    let after = after.and_then(|_| options.application.after(cx));
    let start = was_stopped.then(|| options.application.start()).flatten();
    match &mut outcome {
        Ok(report) => report.aftermath.extend(after.into_iter().chain(start)),
        Err(_) => application::tell(cx, start),
    }
    outcome
}

fn restore(
    cx: &Context,
    repo: &Repo,
    chunks: &Chunks<'_>,
    snapshot: &Snapshot,
    options: &InPlaceOptions,
) -> Result<InPlaceReport> {
    let manifest = &snapshot.manifest;
    let stage = Stage::open(&options.root)?;
    let stage = match stage.journal()? {
        Some(journal) => {
            resume(cx, repo, chunks, options, stage, journal)?;
            Stage::open(&options.root)?
        }
        None => stage,
    };
    stage.clear()?;
    let prepared = prepare(cx, repo, chunks, snapshot, options, &stage);
    let (staging, safety) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            // Nothing of the application was replaced. What stays here is cleared by the next run.
            let _ = stage.remove();
            return Err(error);
        }
    };
    let mut journal = Journal::new(&snapshot.id, safety.as_ref().map(|safety| &safety.id));
    journal.only.clone_from(&options.only);
    journal.logs = staging.logs;
    journal.removes = staging.removes;
    journal.files = staging.files;
    cx.progress.event(Event::Phase("publish"));
    stage.write(&journal)?;
    let jail = Jail::open(&options.root)?;
    // From here on nobody is asked whether to stop: it takes moments, and half is worse.
    if let Err(error) = publish::publish(&jail, &journal) {
        publish::take_back(&jail, &stage, &mut journal)?;
        stage.remove()?;
        return Err(error);
    }
    publish::remove_dirs(&jail, &journal)?;
    let rest = finish(&Context::new(), chunks, manifest, options)?;
    let removed = journal.removes.len() as u64;
    stage.remove()?;
    let mut restored = staging.report;
    restored.others += rest.others;
    restored.warnings.count += rest.warnings.count;
    restored.warnings.sample.extend(rest.warnings.sample);
    restored.failures = rest.failures;
    restored.duration_ms += rest.duration_ms;
    let late = match plan::spares_databases(chunks, manifest, options)? {
        true => Vec::new(),
        false => users(&options.root, &[]),
    };
    let late = late.into_iter().map(|user| {
        let path = String::from_utf8_lossy(&user.path).into_owned();
        format!(
            "{} ({}) opened {path} meanwhile: restart it",
            user.name, user.pid
        )
    });
    Ok(InPlaceReport {
        safety: safety.map(|safety| safety.id),
        restored,
        removed,
        checked_databases: staging.checked_databases,
        aftermath: late.collect(),
    })
}

/// Does everything that replaces nothing: saves, merges logs, stages and checks.
fn prepare<'r>(
    cx: &Context,
    repo: &'r Repo,
    chunks: &Chunks<'_>,
    snapshot: &Snapshot,
    options: &InPlaceOptions,
    stage: &Stage,
) -> Result<(Staging, Option<Safety<'r>>)> {
    let manifest = &snapshot.manifest;
    let only = Only::parse(&options.only)?;
    let replaced = Replaced {
        at: cx.clock.now(),
        by: snapshot.id,
        only: options.only.clone(),
    };
    let safety = safety::take(cx, repo, options, manifest, Some(replaced))?;
    if let Some(safety) = &safety {
        safety::read_back(cx, &safety.chunks, &safety.manifest, &only)?;
    }
    let staging = stage::stage(cx, chunks, manifest, options, &only, stage)?;
    stage::check_saved(safety.as_ref(), options, &staging)?;
    if !plan::spares_databases(chunks, manifest, options)? {
        let databases = plan::database_paths(chunks, manifest)?;
        application::refuse_if_used(&options.root, &databases)?;
    }
    Ok((staging, safety))
}

/// Makes what is no file: links, special nodes, directories and their attributes.
fn finish(
    cx: &Context,
    chunks: &Chunks<'_>,
    manifest: &Manifest,
    options: &InPlaceOptions,
) -> Result<RestoreReport> {
    let options = options.restore_options();
    let plan = restore::plan(cx, chunks, manifest, &options)?;
    restore::apply(cx, chunks, manifest, &options, &plan)
}

/// Finishes what a killed run began, or goes on taking it back. What is there now is saved first:
/// the application may have written since.
fn resume(
    cx: &Context,
    repo: &Repo,
    chunks: &Chunks<'_>,
    options: &InPlaceOptions,
    stage: Stage,
    mut journal: Journal,
) -> Result<()> {
    let (_, snapshots) = crate::ops::snapshots::list(cx, repo)?;
    let id: Option<SnapshotId> = journal.snapshot.parse().ok();
    let known = snapshots.iter().find(|snapshot| Some(snapshot.id) == id);
    if let Some(known) = known {
        let databases = plan::database_paths(chunks, &known.manifest)?;
        application::refuse_if_used(&options.root, &databases)?;
        let safety = safety::take(cx, repo, options, &known.manifest, None)?;
        if let Some(safety) = safety {
            let hold = Note::Hold(safety.id, HoldUntil::Released);
            notes::add(cx, repo, &[safety.id].into(), &[hold])?;
        }
    }
    let jail = Jail::open(&options.root)?;
    match journal.phase {
        Phase::Publishing => {
            publish::publish(&jail, &journal)?;
            publish::remove_dirs(&jail, &journal)?;
            if let Some(known) = known {
                let options = InPlaceOptions {
                    only: journal.only.clone(),
                    ..options.clone()
                };
                finish(cx, chunks, &known.manifest, &options)?;
            }
        }
        Phase::TakingBack => publish::take_back(&jail, &stage, &mut journal)?,
    }
    stage.remove()
}

/// Returns the snapshot that undoes the last restore in place on this machine, of one root or of
/// any, with what it has to be restored with.
pub fn last_replaced<'s>(
    snapshots: &'s [Snapshot],
    host: &str,
    root: Option<&[u8]>,
) -> Result<(&'s Snapshot, &'s Replaced)> {
    let of_host = snapshots.iter().filter(|snapshot| {
        let manifest = &snapshot.manifest;
        manifest.host == host && root.is_none_or(|root| manifest.root_path == root)
    });
    let made_for = of_host.filter_map(|snapshot| Some((snapshot, snapshot.replaced.as_ref()?)));
    let last = made_for.max_by_key(|(_, replaced)| replaced.at);
    last.ok_or_else(|| Error::NotFound {
        what: "a restore in place on this machine".to_string(),
    })
}
