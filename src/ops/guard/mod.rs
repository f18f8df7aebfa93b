//! A migration with a way back: a snapshot before it, checks after it, and a restore in place if
//! either says that it failed.
//!
//! ```text
//! back up, tag, hold ── judge ── migrate ── judge ──┬─ sound: done, the snapshot stays
//!                                                   └─ not: everything is put back
//! ```
//! The migration is a closure: the command runs a program, an application that embeds this runs
//! its own. It must have closed the databases when it returns: nobody may have them open while
//! they are put back.

use crate::context::Context;
use crate::context::Event;
use crate::context::Timestamp;
use crate::error::Error;
use crate::error::Result;
use crate::format::database::DatabaseRecord;
use crate::format::database::Engine;
use crate::format::note::HoldUntil;
use crate::format::note::Note;
use crate::id::SnapshotId;
use crate::ops::backup;
use crate::ops::backup::BackupOptions;
use crate::ops::in_place;
use crate::ops::in_place::Application;
use crate::ops::in_place::InPlaceOptions;
use crate::ops::in_place::InPlaceReport;
use crate::ops::in_place::Surplus;
use crate::ops::inspect;
use crate::ops::judge;
use crate::ops::judge::Assertion;
use crate::ops::judge::Judged;
use crate::ops::judge::Verdict;
use crate::ops::judge::Whose;
use crate::ops::notes;
use crate::ops::snapshots;
use crate::ops::snapshots::Snapshot;
use crate::repo::Repo;
use crate::repo::chunks::Chunks;
use crate::source::sqlite::Image;
use jiff::tz::TimeZone;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The tag of the snapshots made before a migration.
pub const TAG: &str = "pre-migration";

/// How long such a snapshot is held: thirty days, in which a migration shows what it broke.
const HELD_NS: i64 = 30 * 24 * 3600 * 1_000_000_000;

/// What is guarded.
#[derive(Debug, Clone, Default)]
pub struct GuardOptions {
    /// What is backed up before.
    pub backup: BackupOptions,
    /// What the migration starts from; the version of the first SQLite database if nobody says.
    pub revision: Option<String>,
    /// What must hold of the databases afterwards.
    pub assertions: Vec<Assertion>,
    /// How the application is stopped and started, should it run when everything is put back.
    pub application: Application,
}

/// What came of a migration.
#[derive(Debug)]
pub struct GuardReport {
    /// The snapshot of what was there before.
    pub snapshot: SnapshotId,
    /// Its own tag.
    pub name: String,
    /// What was found out about each database afterwards.
    pub databases: Vec<Judged>,
    /// Why it failed; none if it did not.
    pub failures: Vec<String>,
    /// What was done about it.
    pub rollback: Rollback,
}

/// What was done about a migration that failed.
#[derive(Debug)]
pub enum Rollback {
    /// It did not fail.
    NotNeeded,
    /// Everything is as it was.
    Done(Box<InPlaceReport>),
    /// It could not be put back; the snapshot is there.
    Failed(Error),
}

/// A SQLite database and its version before a migration and now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// The database.
    pub path: Vec<u8>,
    /// Before.
    pub then: u32,
    /// Now; `None` if it cannot be read.
    pub now: Option<u32>,
}

/// Runs a migration with a way back. Fails if it was not begun: nothing was changed then.
pub fn guard(
    cx: &Context,
    repo: &Repo,
    options: &GuardOptions,
    migrate: &mut dyn FnMut() -> Result<(), String>,
) -> Result<GuardReport> {
    let mut backed_up = options.backup.clone();
    backed_up.tags.push(TAG.to_string());
    let report = backup::backup(cx, repo, &backed_up)?;
    let id = report.snapshot.ok_or_else(|| Error::Refused {
        reason: "a dry run has no way back".to_string(),
    })?;
    if let Some(problem) = report.warnings.first() {
        let path = String::from_utf8_lossy(&problem.path);
        let reason = format!(
            "the snapshot {} is partial, and no way back ({path}: {}); nothing was run",
            id.short(),
            problem.message
        );
        return Err(Error::Refused { reason });
    }
    let manifest = &report.manifest;
    let root = PathBuf::from(OsStr::from_bytes(&manifest.root_path));
    let revision = options.revision.clone();
    let revision = revision.unwrap_or_else(|| revision_of(&report.databases));
    let name = name(&revision, manifest.started_at);
    let until = Timestamp(manifest.started_at.0.saturating_add(HELD_NS));
    let said = [
        Note::Tag(id, name.clone()),
        Note::Hold(id, HoldUntil::Time(until)),
    ];
    notes::add(cx, repo, &[id].into(), &said)?;
    let before = judge::judge(cx, &root, &report.databases, Whose::Theirs)?;
    if let Some(damage) = before.iter().find_map(damage) {
        let reason = format!("{damage} before the migration; nothing was run");
        return Err(Error::corrupt("the application", reason));
    }
    cx.check()?;
    cx.progress.event(Event::Phase("migrate"));
    let migrated = migrate();
    // Whoever interrupted the migration wants what was there before, not half of it.
    let cx = &Context {
        cancel: Arc::new(AtomicBool::new(false)),
        ..cx.clone()
    };
    cx.progress.event(Event::Phase("judge"));
    let (databases, mut failures) = match migrated {
        Err(reason) => (Vec::new(), vec![reason]),
        Ok(()) => judge_after(cx, &root, options, &before, &report.databases),
    };
    failures.truncate(FAILURES_MAX);
    let rollback = match failures.is_empty() {
        true => Rollback::NotNeeded,
        false => match put_back(cx, repo, options, id) {
            Ok(report) => Rollback::Done(Box::new(report)),
            Err(error) => Rollback::Failed(error),
        },
    };
    Ok(GuardReport {
        snapshot: id,
        name,
        databases,
        failures,
        rollback,
    })
}

/// More say no more.
const FAILURES_MAX: usize = 100;

/// Returns the last snapshot before a migration on this machine, of those that are meant.
pub fn last<'s>(
    snapshots: &'s [Snapshot],
    host: &str,
    is_meant: &dyn Fn(&Snapshot) -> bool,
) -> Result<&'s Snapshot> {
    let meant = snapshots.iter().filter(|snapshot| {
        let is_tagged = snapshot.tags.iter().any(|tag| tag == TAG);
        is_tagged && snapshot.manifest.host == host && is_meant(snapshot)
    });
    let last = meant.max_by_key(|snapshot| (snapshot.manifest.started_at, snapshot.id));
    last.ok_or_else(|| Error::NotFound {
        what: "a snapshot from before a migration on this machine".to_string(),
    })
}

/// Returns where the versions of the SQLite databases of a snapshot are now. Changes nothing.
pub fn moved(chunks: &Chunks<'_>, snapshot: &Snapshot, root: &Path) -> Result<Vec<Moved>> {
    let mut records = inspect::databases(chunks, &snapshot.manifest)?;
    records.retain(|record| record.engine == Engine::Sqlite);
    let moved = records.into_iter().map(|record| {
        let path = root.join(OsStr::from_bytes(&record.path));
        let image = Image::open_in_place(&path).ok();
        let now = image.and_then(|image| image.value("PRAGMA user_version").ok()?);
        Moved {
            path: record.path,
            then: record.user_version,
            // SQLite shows it as signed.
            now: now.and_then(|now| now.parse::<i32>().ok().map(i32::cast_unsigned)),
        }
    });
    Ok(moved.collect())
}

/// Returns what is there now and what is wrong with it. That nothing can be found out is wrong too.
fn judge_after(
    cx: &Context,
    root: &Path,
    options: &GuardOptions,
    before: &[Judged],
    records: &[DatabaseRecord],
) -> (Vec<Judged>, Vec<String>) {
    let after = match judge::judge(cx, root, records, Whose::Theirs) {
        Ok(after) => after,
        Err(error) => return (Vec::new(), vec![error.to_string()]),
    };
    let mut failures: Vec<String> = after.iter().filter_map(damage).collect();
    for (before, after) in before.iter().zip(&after) {
        if let Some(more @ 1..) = after.dangling_rows.checked_sub(before.dangling_rows) {
            let path = String::from_utf8_lossy(&after.path);
            failures.push(format!(
                "database {path}: {more} more rows refer to rows that are not there"
            ));
        }
    }
    failures.extend(judge::broken(root, &options.assertions, Whose::Theirs));
    (after, failures)
}

fn damage(judged: &Judged) -> Option<String> {
    let path = String::from_utf8_lossy(&judged.path);
    match &judged.verdict {
        Verdict::Damaged(reason) => Some(format!("database {path} is damaged: {reason}")),
        Verdict::Sound | Verdict::Unknown(_) => None,
    }
}

fn put_back(
    cx: &Context,
    repo: &Repo,
    options: &GuardOptions,
    id: SnapshotId,
) -> Result<InPlaceReport> {
    let (state, snapshots) = snapshots::list(cx, repo)?;
    let snapshot = snapshots.iter().find(|snapshot| snapshot.id == id);
    let snapshot = snapshot.ok_or_else(|| Error::NotFound {
        what: format!("snapshot {}", id.short()),
    })?;
    let chunks = Chunks::open(repo, &state.packs)?;
    let place = InPlaceOptions {
        root: PathBuf::from(OsStr::from_bytes(&snapshot.manifest.root_path)),
        only: Vec::new(),
        surplus: Surplus::Removed,
        host: options.backup.host.clone(),
        app_version: options.backup.app_version.clone(),
        application: Application {
            // What is run after a restore is a migration: the one that just failed.
            after: Vec::new(),
            ..options.application.clone()
        },
    };
    in_place::apply(cx, repo, &chunks, snapshot, &place)
}

fn revision_of(records: &[DatabaseRecord]) -> String {
    let sqlite = records
        .iter()
        .find(|record| record.engine == Engine::Sqlite);
    sqlite.map_or("unknown".to_string(), |record| {
        record.user_version.to_string()
    })
}

/// Returns the tag of one snapshot: a colon would end it in `tag:NAME:path`.
fn name(revision: &str, at: Timestamp) -> String {
    let is_bad = |c: char| c.is_control() || c.is_whitespace() || matches!(c, ':' | ',');
    let revision = revision.replace(is_bad, "-");
    let time = jiff::Timestamp::from_nanosecond(i128::from(at.0)).unwrap_or_default();
    let time = time.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%S");
    format!("pre-{revision}-{time}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_the_revision_and_the_time_and_nothing_that_ends_a_tag() {
        let at = Timestamp(1_763_600_000_000_000_001);

        assert_eq!(name("2b: c", at), "pre-2b--c-20251120T005320");
        assert_eq!(revision_of(&[]), "unknown");
    }
}
