//! A rehearsal: restores a snapshot where nobody needs it, judges what came back, and has the log
//! say so.
//!
//! Every chunk is verified as it is read (I3); every database is checked by its engine, in full.
//! What came out is a proof in the log: `list` shows it, and retention keeps the last that passed.
//! A drill that fails takes the place of an earlier proof: what was proven then is not true now.

use crate::context::Context;
use crate::context::Event;
use crate::error::Error;
use crate::error::Result;
use crate::format::note::Note;
use crate::format::note::Proof;
use crate::id::SnapshotId;
use crate::ops::inspect;
use crate::ops::judge;
use crate::ops::judge::Assertion;
use crate::ops::judge::Judged;
use crate::ops::judge::Verdict;
use crate::ops::judge::Whose;
use crate::ops::notes;
use crate::ops::restore;
use crate::ops::restore::RestoreOptions;
use crate::ops::restore::RestorePlan;
use crate::ops::restore::Sync;
use crate::ops::scratch::Scratch;
use crate::ops::snapshots::Snapshot;
use crate::ops::words;
use crate::repo::Repo;
use crate::repo::chunks::Chunks;
use std::io;
use std::path::Path;
use std::path::PathBuf;

/// How the names of private directories begin.
const PREFIX: &str = "statekeep-drill-";
/// How long the first reason of a failure may be in the log, in characters.
const REASON_CHARS_MAX: usize = 300;

/// How a snapshot is proven.
#[derive(Debug, Clone, Default)]
pub struct DrillOptions {
    /// An existing directory with room for all of it.
    pub scratch: PathBuf,
    /// What must hold of the databases.
    pub assertions: Vec<Assertion>,
}

/// What a drill would do.
#[derive(Debug, Clone, Default)]
pub struct DrillPlan {
    /// What is restored, and how much room there is for it.
    pub restore: RestorePlan,
    /// Paths of the databases that are checked.
    pub databases: Vec<Vec<u8>>,
    /// Claims that are judged.
    pub assertions: u64,
}

/// What a drill found.
#[derive(Debug, Clone)]
pub struct DrillReport {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Whether it lacks something that was asked for when it was made.
    pub partial: bool,
    /// Files restored.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What was found out about each database.
    pub databases: Vec<Judged>,
    /// Claims that were judged.
    pub assertions: u64,
    /// All that is wrong; none if it is proven.
    pub failures: Vec<String>,
    /// What the log says now.
    pub result: String,
    /// How long it took.
    pub duration_ms: u64,
}

impl DrillReport {
    /// Returns a report that says nothing yet.
    fn of(snapshot: &Snapshot) -> DrillReport {
        DrillReport {
            snapshot: snapshot.id,
            partial: snapshot.manifest.partial,
            files: 0,
            bytes: 0,
            databases: Vec::new(),
            assertions: 0,
            failures: Vec::new(),
            result: String::new(),
            duration_ms: 0,
        }
    }

    /// Returns whether everything was as it should be.
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }
}

/// Says what a drill would do. Changes nothing.
pub fn plan(
    cx: &Context,
    chunks: &Chunks<'_>,
    snapshot: &Snapshot,
    options: &DrillOptions,
) -> Result<DrillPlan> {
    let target = RestoreOptions::new(options.scratch.join(PREFIX));
    let databases = inspect::databases(chunks, &snapshot.manifest)?.into_iter();
    Ok(DrillPlan {
        restore: restore::plan(cx, chunks, &snapshot.manifest, &target)?,
        databases: databases.map(|record| record.path).collect(),
        assertions: options.assertions.len() as u64,
    })
}

/// Proves that a snapshot can be restored and that its databases are sound, or that not.
pub fn drill(
    cx: &Context,
    repo: &Repo,
    chunks: &Chunks<'_>,
    snapshot: &Snapshot,
    options: &DrillOptions,
) -> Result<DrillReport> {
    let began = cx.clock.now();
    let scratch = Scratch::create(&options.scratch, PREFIX)?;
    let outcome = rehearse(cx, chunks, snapshot, options, &scratch);
    let removed = scratch.remove();
    let mut report = match outcome {
        Ok(report) => report,
        Err(error @ (Error::Corrupt { .. } | Error::Missing { .. })) => {
            let mut report = DrillReport::of(snapshot);
            report.failures.push(error.to_string());
            report
        }
        Err(error) => return Err(error),
    };
    let duration_ns = cx.clock.now().since_ns(began).max(0);
    report.duration_ms = duration_ns.cast_unsigned() / 1_000_000;
    report.result = result(&report);
    let proof = Proof {
        at: cx.clock.now(),
        result: report.result.clone(),
    };
    let about = [snapshot.id].into();
    notes::add(cx, repo, &about, &[Note::Proof(snapshot.id, proof)])?;
    removed?;
    Ok(report)
}

fn rehearse(
    cx: &Context,
    chunks: &Chunks<'_>,
    snapshot: &Snapshot,
    options: &DrillOptions,
    scratch: &Scratch,
) -> Result<DrillReport> {
    let manifest = &snapshot.manifest;
    // The directory itself keeps its mode, whatever the root of the snapshot has.
    let target = scratch.path().join("content");
    let mut restored = RestoreOptions::new(&target);
    restored.sync = Sync::Never;
    let plan = restore::plan(cx, chunks, manifest, &restored)?;
    if !plan.has_room() {
        return Err(no_room(&plan, &options.scratch));
    }
    let done = restore::apply(cx, chunks, manifest, &restored, &plan)?;
    let mut failures = Vec::new();
    for problem in &done.failures.sample {
        let path = String::from_utf8_lossy(&problem.path);
        failures.push(format!("{path}: {}", problem.message));
    }
    if failures.is_empty() && plan.lost.count > 0 {
        let path = plan.lost.sample.first().map(Vec::as_slice);
        let path = String::from_utf8_lossy(path.unwrap_or_default()).into_owned();
        failures.push(format!("{path}: it cannot be restored"));
    }
    cx.progress.event(Event::Phase("judge"));
    let records = inspect::databases(chunks, manifest)?;
    let databases = judge::judge(cx, &target, &records, Whose::Ours)?;
    for Judged { path, verdict, .. } in &databases {
        let path = String::from_utf8_lossy(path);
        match verdict {
            Verdict::Damaged(reason) => failures.push(format!("database {path}: {reason}")),
            Verdict::Sound | Verdict::Unknown(_) => {}
        }
    }
    cx.check()?;
    failures.extend(judge::broken(&target, &options.assertions, Whose::Ours));
    Ok(DrillReport {
        files: done.files,
        bytes: done.bytes,
        databases,
        assertions: options.assertions.len() as u64,
        failures,
        ..DrillReport::of(snapshot)
    })
}

fn no_room(plan: &RestorePlan, scratch: &Path) -> Error {
    let reason = format!(
        "{} bytes are needed and {} are free",
        plan.write_bytes, plan.free_bytes
    );
    let source = io::Error::new(io::ErrorKind::StorageFull, reason);
    Error::io("restore into", scratch)(source)
}

/// Returns what the log says: in one line what was proven, or the first reason why not.
fn result(report: &DrillReport) -> String {
    if let Some(first) = report.failures.first() {
        let first = first.replace(char::is_control, " ");
        let first: String = first.chars().take(REASON_CHARS_MAX).collect();
        return match report.failures.len() - 1 {
            0 => format!("failed: {first}"),
            more => format!("failed: {first} (and {more} more)"),
        };
    }
    let databases = &report.databases;
    let is_unknown = |judged: &&Judged| matches!(judged.verdict, Verdict::Unknown(_));
    let unknown = databases.iter().filter(is_unknown).count();
    let rows: u64 = databases.iter().map(Judged::row_count).sum();
    let files = words::count(report.files, "file", "files");
    let judged = (databases.len() - unknown) as u64;
    let judged = words::count(judged, "database", "databases");
    let mut text = format!("{}: {files}, {judged}", Proof::OK);
    if unknown > 0 {
        text.push_str(&format!(" ({unknown} more not checked)"));
    }
    let rows = words::count(rows, "row", "rows");
    text.push_str(&format!(", {rows}"));
    if report.assertions > 0 {
        let assertions = words::count(report.assertions, "assertion", "assertions");
        text.push_str(&format!(", {assertions}"));
    }
    let tenths = report.duration_ms.div_ceil(100);
    text.push_str(&format!(" in {}.{} s", tenths / 10, tenths % 10));
    if report.partial {
        text.push_str("; of a partial snapshot");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_one_line_that_says_whether_it_passed() {
        let mut report = DrillReport {
            files: 3,
            duration_ms: 1210,
            assertions: 2,
            partial: true,
            snapshot: SnapshotId([1; 32]),
            bytes: 0,
            databases: Vec::new(),
            failures: Vec::new(),
            result: String::new(),
        };
        let at = crate::context::Timestamp(0);
        let passed = |result: String| Proof { at, result }.passed();

        let said = result(&report);
        assert_eq!(
            said,
            "ok: 3 files, 0 databases, 0 rows, 2 assertions in 1.3 s; of a partial snapshot"
        );
        assert!(passed(said));
        (report.files, report.assertions, report.partial) = (1, 1, false);
        assert_eq!(
            result(&report),
            "ok: 1 file, 0 databases, 0 rows, 1 assertion in 1.3 s"
        );
        report.failures = vec!["a\nb".into(), "c".into()];
        let said = result(&report);
        assert_eq!(said, "failed: a b (and 1 more)");
        assert!(!passed(said));
    }
}
