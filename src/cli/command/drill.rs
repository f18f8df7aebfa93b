//! `drill`: rehearses a restore and tells what the log says of it now.

use crate::cli::args::DrillArgs;
use crate::cli::command::DAMAGE;
use crate::cli::command::DONE;
use crate::cli::command::in_place;
use crate::cli::environment::absolute;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::json;
use crate::cli::session::Session;
use crate::cli::text;
use crate::config::Profile;
use crate::error::Error;
use crate::ops::drill;
use crate::ops::drill::DrillOptions;
use crate::ops::drill::DrillPlan;
use crate::ops::drill::DrillReport;
use crate::ops::judge::Assertion;
use crate::ops::judge::Judged;
use crate::ops::judge::Verdict;
use crate::ops::snapshots::Snapshot;
use crate::repo::chunks::Chunks;
use serde::Serialize;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;

#[derive(Serialize)]
struct Summary {
    op: &'static str,
    status: &'static str,
    dry_run: bool,
    snapshot: String,
    scratch: String,
    need_bytes: u64,
    free_bytes: u64,
    files: u64,
    databases: Vec<DatabaseBody>,
    assertions: u64,
    failures: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<String>,
    seconds: f64,
    exit: u8,
}

/// One database, as `drill` and `guard` tell it.
#[derive(Serialize)]
pub(super) struct DatabaseBody {
    #[serde(flatten)]
    path: json::PathField,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    dangling_rows: u64,
    tables: Vec<TableBody>,
}

#[derive(Serialize)]
struct TableBody {
    name: String,
    rows: u64,
}

/// Drills.
pub(super) fn run(session: &Session, args: &DrillArgs) -> Outcome<u8> {
    let scratch = scratch(session, args.scratch.as_deref())?;
    session.start("drill")?;
    let repo = session.open_repo()?;
    let (state, snapshots) = session.snapshots(&repo)?;
    let snapshot = session.resolve(&snapshots, args.reference.as_bytes())?;
    let chunks = Chunks::open_following(&session.cx, &repo, &state.packs)?;
    let profile = in_place::profile_of(session, &snapshot.manifest)?;
    let options = DrillOptions {
        scratch,
        assertions: profile.map(assertions).unwrap_or_default(),
    };
    let plan = match drill::plan(&session.cx, &chunks, snapshot, &options) {
        Ok(plan) => plan,
        // That a snapshot cannot even be planned with is for the drill to find and note.
        Err(Error::Corrupt { .. } | Error::Missing { .. }) if !session.global.dry_run => {
            DrillPlan::default()
        }
        Err(error) => return Err(error.into()),
    };
    if session.global.dry_run {
        return tell(session, snapshot, &options, &plan, None);
    }
    if !plan.restore.has_room() {
        let needed = text::size(plan.restore.write_bytes);
        let free = text::size(plan.restore.free_bytes);
        let place = options.scratch.display();
        let message = format!("{needed} are restored into {place}, and {free} are free");
        return Err(
            Failure::new("no-space", 16, message).hint("--scratch DIR: a directory with more room")
        );
    }
    let report = drill::drill(&session.cx, &repo, &chunks, snapshot, &options)?;
    chunks.save_index();
    session.reporter.finish();
    tell(session, snapshot, &options, &plan, Some(&report))
}

/// Returns where it is restored to: a place that is meant for what can go.
pub(super) fn scratch(session: &Session, given: Option<&Path>) -> Outcome<PathBuf> {
    let environment = &session.environment;
    if let Some(dir) = given {
        let dir = absolute(dir)?;
        return match dir.is_dir() {
            true => Ok(dir),
            false => {
                let message = format!("{} is no directory to restore into", dir.display());
                Err(Failure::usage(message).hint("make it first, on a disk with room"))
            }
        };
    }
    let Some(dir) = &environment.cache_dir else {
        return Ok(environment.temp_dir.clone());
    };
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(Error::io("make", dir))?;
    Ok(dir.clone())
}

/// Returns what a profile claims of its databases.
pub(super) fn assertions(profile: &Profile) -> Vec<Assertion> {
    let asserts = profile.drill.asserts.iter().map(|assert| Assertion {
        database: assert.database.clone(),
        sql: assert.sql.clone(),
        expect: assert.expect.clone(),
    });
    asserts.collect()
}

fn tell(
    session: &Session,
    snapshot: &Snapshot,
    options: &DrillOptions,
    plan: &DrillPlan,
    report: Option<&DrillReport>,
) -> Outcome<u8> {
    let output = &session.output;
    let exit = match report {
        Some(report) if !report.passed() => DAMAGE,
        _ => DONE,
    };
    if output.is_json() {
        let summary = Summary {
            op: "drill",
            status: if exit == DONE { "ok" } else { "damaged" },
            dry_run: report.is_none(),
            snapshot: snapshot.id.to_string(),
            scratch: options.scratch.display().to_string(),
            need_bytes: plan.restore.write_bytes,
            free_bytes: plan.restore.free_bytes,
            files: report.map_or(0, |report| report.files),
            databases: report.map_or(Vec::new(), |report| bodies(&report.databases)),
            assertions: options.assertions.len() as u64,
            failures: report.map_or(Vec::new(), |report| report.failures.clone()),
            proof: report.map(|report| report.result.clone()),
            seconds: report.map_or(0.0, |report| json::seconds(report.duration_ms)),
            exit,
        };
        output.json(&json::document("summary", summary))?;
        return Ok(exit);
    }
    let lines = match report {
        None => plan_lines(snapshot, &options.scratch, plan),
        Some(report) => report_lines(report),
    };
    for line in lines.iter().filter(|_| !output.is_quiet || exit != DONE) {
        output.line(line)?;
    }
    Ok(exit)
}

fn plan_lines(snapshot: &Snapshot, scratch: &Path, plan: &DrillPlan) -> Vec<String> {
    let room = match plan.restore.has_room() {
        true => "",
        false => ": NOT ENOUGH",
    };
    vec![
        format!(
            "Plan: restore snapshot {} aside and judge it",
            snapshot.id.short()
        ),
        format!("  scratch   a private directory in {}", scratch.display()),
        format!(
            "  space     {} needed, {} free{room}",
            text::size(plan.restore.write_bytes),
            text::size(plan.restore.free_bytes)
        ),
        format!(
            "  checks    {}, {}",
            text::count(plan.databases.len() as u64, "database", "databases"),
            text::count(plan.assertions, "assertion", "assertions")
        ),
        "Nothing was done (dry run).".to_string(),
    ]
}

fn report_lines(report: &DrillReport) -> Vec<String> {
    let mut lines: Vec<String> = report.databases.iter().map(database_line).collect();
    let failures = report.failures.iter();
    lines.extend(failures.map(|failure| format!("  FAILED    {}", text::safe(failure))));
    if report.partial {
        lines.push("  PARTIAL   this snapshot lacks what could not be read".to_string());
    }
    let verdict = match report.passed() {
        true => "is proven",
        false => "is NOT proven",
    };
    lines.push(format!(
        "Snapshot {} {verdict}: {}",
        report.snapshot.short(),
        text::safe(&report.result)
    ));
    lines
}

/// Returns the line of one database.
pub(super) fn database_line(judged: &Judged) -> String {
    let path = text::path(&judged.path);
    let dangling = match judged.dangling_rows {
        0 => String::new(),
        rows => format!(", {rows} of them refer to rows that are not there"),
    };
    match &judged.verdict {
        Verdict::Sound => format!(
            "  sound     {path}: {} in {}{dangling}",
            text::count(judged.row_count(), "row", "rows"),
            text::count(judged.rows.len() as u64, "table", "tables")
        ),
        Verdict::Unknown(reason) => format!("  unchecked {path}: {}", text::safe(reason)),
        Verdict::Damaged(reason) => format!("  DAMAGED   {path}: {}", text::safe(reason)),
    }
}

/// Returns the databases for programs.
pub(super) fn bodies(databases: &[Judged]) -> Vec<DatabaseBody> {
    let body = |judged: &Judged| {
        let (verdict, reason) = match &judged.verdict {
            Verdict::Sound => ("sound", None),
            Verdict::Unknown(reason) => ("unchecked", Some(reason.clone())),
            Verdict::Damaged(reason) => ("damaged", Some(reason.clone())),
        };
        let tables = judged.rows.iter().map(|(name, rows)| TableBody {
            name: name.clone(),
            rows: *rows,
        });
        DatabaseBody {
            path: json::PathField::new(&judged.path),
            verdict,
            reason,
            dangling_rows: judged.dangling_rows,
            tables: tables.collect(),
        }
    };
    databases.iter().map(body).collect()
}
