//! `copy`: copies snapshots to another repository and tells what that took.

use crate::cli::args::CopyArgs;
use crate::cli::command::DAMAGE;
use crate::cli::command::DONE;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::json;
use crate::cli::session::Session;
use crate::cli::text;
use crate::error::Error;
use crate::id::SnapshotId;
use crate::ops::copy;
use crate::ops::copy::CopyPlan;
use crate::ops::copy::CopyReport;
use crate::repo::Repo;
use serde::Serialize;

#[derive(Serialize)]
struct Summary {
    op: &'static str,
    status: &'static str,
    dry_run: bool,
    /// The id of the repository that is copied to.
    to: String,
    snapshots: Vec<SnapshotBody>,
    /// Snapshots that were there before.
    present: u64,
    removed: Vec<String>,
    damaged: Vec<DamagedBody>,
    read_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored_bytes: Option<u64>,
    seconds: f64,
    exit: u8,
}

#[derive(Serialize)]
struct SnapshotBody {
    snapshot: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    copy: Option<String>,
    read_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored_bytes: Option<u64>,
}

#[derive(Serialize)]
struct DamagedBody {
    snapshot: String,
    message: String,
}

/// Copies.
pub(super) fn run(session: &Session, args: &CopyArgs) -> Outcome<u8> {
    session.start("copy")?;
    let source = session.open_repo()?;
    let target = session.open_repo_to(&args.to, &args.key)?;
    let wanted = wanted(session, &source, args)?;
    if session.global.dry_run {
        let plan = copy::plan(&session.cx, &source, &target, &wanted);
        let plan = plan.map_err(|error| failure(session, args, error))?;
        return tell_plan(session, &target, &plan);
    }
    let report = copy::copy(&session.cx, &source, &target, &wanted);
    let report = report.map_err(|error| failure(session, args, error))?;
    session.reporter.finish();
    tell(session, &target, &report)
}

/// Returns the snapshots that are meant.
fn wanted(session: &Session, source: &Repo, args: &CopyArgs) -> Outcome<Vec<SnapshotId>> {
    let (_, snapshots) = session.snapshots(source)?;
    if args.references.is_empty() {
        let meant = snapshots
            .iter()
            .filter(|one| session.is_meant(&one.manifest));
        return Ok(meant.map(|snapshot| snapshot.id).collect());
    }
    let references = args.references.iter();
    let found = references.map(|reference| {
        let snapshot = session.resolve(&snapshots, reference.as_encoded_bytes())?;
        Ok(snapshot.id)
    });
    found.collect()
}

fn failure(session: &Session, args: &CopyArgs, error: Error) -> Failure {
    let to = text::quote(&args.to);
    let failure = Failure::from(error);
    match failure.code {
        "no-space" => failure.hint(format!(
            "make room there, or statekeep -r {to} prune; run it again then, it goes on"
        )),
        "copy-failed" => failure.hint(format!(
            "statekeep -r {to} check; then run it again: it goes on where it was"
        )),
        "damaged" | "missing" => failure.or_hint(|| session.command_hint("check")),
        _ => failure,
    }
}

fn exit(damaged: &[(SnapshotId, String)]) -> (u8, &'static str) {
    match damaged {
        [] => (DONE, "ok"),
        [..] => (DAMAGE, "damaged"),
    }
}

fn damaged_bodies(damaged: &[(SnapshotId, String)]) -> Vec<DamagedBody> {
    let body = |(snapshot, message): &(SnapshotId, String)| DamagedBody {
        snapshot: snapshot.to_string(),
        message: message.clone(),
    };
    damaged.iter().map(body).collect()
}

fn tell_damaged(session: &Session, damaged: &[(SnapshotId, String)]) -> Outcome<()> {
    for (snapshot, message) in damaged {
        let message = text::safe(message);
        let line = format!("NOT COPIED  {}  damaged: {message}", snapshot.short());
        session.output.line(line)?;
    }
    if !damaged.is_empty() {
        let check = session.command_hint("check --read-data");
        session
            .output
            .remark(format!("  what else is damaged: {check}"));
    }
    Ok(())
}

fn tell_plan(session: &Session, target: &Repo, plan: &CopyPlan) -> Outcome<u8> {
    let output = &session.output;
    let (exit, status) = exit(&plan.damaged);
    let read_bytes = plan.snapshots.iter().map(|one| one.read_bytes).sum();
    session.reporter.finish();
    if output.is_json() {
        let snapshots = plan.snapshots.iter().map(|one| SnapshotBody {
            snapshot: one.snapshot.to_string(),
            copy: None,
            read_bytes: one.read_bytes,
            stored_bytes: None,
        });
        let summary = Summary {
            op: "copy",
            status,
            dry_run: true,
            to: target.id().to_string(),
            snapshots: snapshots.collect(),
            present: plan.present,
            removed: Vec::new(),
            damaged: damaged_bodies(&plan.damaged),
            read_bytes,
            stored_bytes: None,
            seconds: 0.0,
            exit,
        };
        output.json(&json::document("summary", summary))?;
        return Ok(exit);
    }
    tell_damaged(session, &plan.damaged)?;
    if output.is_quiet {
        return Ok(exit);
    }
    for one in &plan.snapshots {
        let created = text::local_with_zone(one.manifest.started_at, &session.zone);
        let (id, read) = (one.snapshot.short(), text::size(one.read_bytes));
        output.line(format!("COPY  {id}  {created}  {read} to read"))?;
    }
    output.line(format!(
        "{} to copy, {} to read; {} there already",
        text::count(plan.snapshots.len() as u64, "snapshot", "snapshots"),
        text::size(read_bytes),
        plan.present
    ))?;
    output.line("Nothing was changed (dry run).")?;
    Ok(exit)
}

fn tell(session: &Session, target: &Repo, report: &CopyReport) -> Outcome<u8> {
    let output = &session.output;
    let (exit, status) = exit(&report.damaged);
    let read_bytes = report.copied.iter().map(|one| one.read_bytes).sum();
    let stored_bytes = report.copied.iter().map(|one| one.stored_bytes).sum();
    if output.is_json() {
        let snapshots = report.copied.iter().map(|one| SnapshotBody {
            snapshot: one.snapshot.to_string(),
            copy: Some(one.copy.to_string()),
            read_bytes: one.read_bytes,
            stored_bytes: Some(one.stored_bytes),
        });
        let summary = Summary {
            op: "copy",
            status,
            dry_run: false,
            to: target.id().to_string(),
            snapshots: snapshots.collect(),
            present: report.present,
            removed: report.removed.iter().map(SnapshotId::to_string).collect(),
            damaged: damaged_bodies(&report.damaged),
            read_bytes,
            stored_bytes: Some(stored_bytes),
            seconds: json::seconds(report.duration_ms),
            exit,
        };
        output.json(&json::document("summary", summary))?;
        return Ok(exit);
    }
    tell_damaged(session, &report.damaged)?;
    if output.is_quiet {
        return Ok(exit);
    }
    for id in &report.removed {
        let id = id.short();
        output.line(format!("not copied  {id}  somebody removed it meanwhile"))?;
    }
    if session.global.verbose {
        for one in &report.copied {
            let (id, copy) = (one.snapshot.short(), one.copy.short());
            let (read, stored) = (text::size(one.read_bytes), text::size(one.stored_bytes));
            output.line(format!(
                "copied  {id} as {copy}: read {read}, stored {stored}"
            ))?;
        }
    }
    output.line(format!(
        "Copied {} to repository {} in {}: read {}, stored {}; {} there already",
        text::count(report.copied.len() as u64, "snapshot", "snapshots"),
        target.id().short(),
        text::duration(report.duration_ms),
        text::size(read_bytes),
        text::size(stored_bytes),
        report.present
    ))?;
    Ok(exit)
}
