//! `restore`: shows what would be done, and does it once somebody confirmed.

use crate::cli::args::RestoreArgs;
use crate::cli::command::DAMAGE;
use crate::cli::command::DONE;
use crate::cli::command::WARNINGS;
use crate::cli::command::backup::scope_of;
use crate::cli::command::restore_archive;
use crate::cli::environment::absolute;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::json;
use crate::cli::session::Session;
use crate::cli::text;
use crate::error::Error;
use crate::ops::Tally;
use crate::ops::in_place;
use crate::ops::inspect;
use crate::ops::restore;
use crate::ops::restore::Replace;
use crate::ops::restore::RestoreOptions;
use crate::ops::restore::RestorePlan;
use crate::ops::restore::RestoreReport;
use crate::ops::snapshots::Snapshot;
use crate::ops::snapshots::split_path;
use crate::repo::chunks::Chunks;
use serde::Serialize;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Paths named of each kind.
pub(super) const EXAMPLES: usize = 5;

#[derive(Serialize)]
pub(super) struct PlanBody {
    create_files: u64,
    replace_files: u64,
    update_files: u64,
    equal_files: u64,
    kept_files: u64,
    removed_files: u64,
    conflicts: u64,
    lost_files: u64,
    write_bytes: u64,
    free_bytes: u64,
}

#[derive(Serialize)]
struct Summary {
    op: &'static str,
    status: &'static str,
    dry_run: bool,
    snapshot: String,
    target: json::PathField,
    plan: PlanBody,
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<DoneBody>,
    exit: u8,
}

#[derive(Serialize)]
pub(super) struct DoneBody {
    files: u64,
    others: u64,
    equal_files: u64,
    written_bytes: u64,
    warnings: u64,
    failures: u64,
    seconds: f64,
}

/// Restores.
pub(super) fn run(session: &Session, args: &RestoreArgs) -> Outcome<u8> {
    if let Some(path) = restore_archive::archive_path(&args.reference) {
        return restore_archive::run(session, args, &path);
    }
    let (reference, path) = split_path(args.reference.as_bytes());
    let mut options = options(args, path)?;
    session.start("restore")?;
    let repo = session.open_repo()?;
    let (state, snapshots) = session.snapshots(&repo)?;
    let snapshot = session.resolve(&snapshots, reference)?;
    let chunks = Chunks::open_following(&session.cx, &repo, &state.packs)?;
    options
        .only
        .extend(named_patterns(session, args, &chunks, snapshot)?);
    let plan = restore::plan(&session.cx, &chunks, &snapshot.manifest, &options)?;
    chunks.save_index();
    session.reporter.finish();
    if !session.output.is_json() && (!session.output.is_quiet || !session.global.yes) {
        for line in plan_lines(session, snapshot, &options.target, &plan) {
            session.output.line(line)?;
        }
        if let Some(loss) = state.notes.losses.get(&snapshot.id) {
            let line = format!("  DAMAGED   {}", text::loss(loss));
            session.output.line(line)?;
        }
    }
    if session.global.dry_run {
        tell(session, snapshot, &options.target, &plan, None)?;
        return Ok(DONE);
    }
    if plan.conflicts.count > 0 {
        let number = text::count(plan.conflicts.count, "path differs", "paths differ");
        let logs = match plan.conflicting_logs {
            0 => "",
            _ => "; SQLite would replay logs that are there into a restored database",
        };
        let message = format!(
            "{number} in {}, and nothing is replaced{logs}",
            options.target.display()
        );
        let failure = Failure::new("refused", 2, message);
        return Err(failure.hint("add --overwrite, or restore into another directory"));
    }
    if plan.replace.count + plan.remove.count > 0 {
        let records = inspect::databases(&chunks, &snapshot.manifest)?;
        let paths: Vec<Vec<u8>> = records.into_iter().map(|record| record.path).collect();
        refuse_if_used(&paths, &options.target)?;
    }
    session.confirm("Go on?")?;
    let report = restore::apply(&session.cx, &chunks, &snapshot.manifest, &options, &plan)?;
    session.reporter.finish();
    for warning in report.warnings.sample.iter().chain(&report.failures.sample) {
        session
            .reporter
            .warn(warning.code, &warning.path, &warning.message);
    }
    tell(session, snapshot, &options.target, &plan, Some(&report))?;
    Ok(exit_code(&plan, &report))
}

fn options(args: &RestoreArgs, path: Option<&[u8]>) -> Outcome<RestoreOptions> {
    let Some(to) = &args.to else {
        return Err(Failure::usage("no place to restore to is given")
            .hint("--to DIR, or --in-place to where it came from"));
    };
    let mut options = RestoreOptions::new(absolute(to)?);
    options.only = patterns(args, path)?;
    if args.overwrite {
        options.replace = Replace::Changed;
    }
    Ok(options)
}

/// Refuses to take databases away under a program that has them open: it would go on writing into
/// files that nobody finds again.
pub(super) fn refuse_if_used(databases: &[Vec<u8>], target: &Path) -> Outcome<()> {
    let mut users = in_place::users(target, databases).into_iter();
    match users.find(|user| user.is_database) {
        None => Ok(()),
        Some(user) => {
            let path = text::path(&user.path);
            let error = Error::Running {
                what: format!("{} (process {})", text::safe(&user.name), user.pid),
                reason: format!("it has {path} open"),
            };
            Err(Failure::from(error).hint("stop it, or restore into another directory"))
        }
    }
}

/// Returns the patterns of what is asked for, of one path or of `--only`.
pub(super) fn patterns(args: &RestoreArgs, path: Option<&[u8]>) -> Outcome<Vec<String>> {
    match path {
        None | Some(b"") => Ok(args.only.clone()),
        Some(_) if !args.only.is_empty() => {
            let message = "a path behind the snapshot and --only contradict each other";
            Err(Failure::usage(message).hint("give one of them"))
        }
        Some(path) => Ok(vec![exactly(path)?]),
    }
}

/// Returns the patterns of the databases and of the scope that are asked for.
pub(super) fn named_patterns(
    session: &Session,
    args: &RestoreArgs,
    chunks: &Chunks<'_>,
    snapshot: &Snapshot,
) -> Outcome<Vec<String>> {
    let mut patterns = Vec::new();
    for name in &args.db {
        patterns.push(exactly(&database(chunks, snapshot, name)?)?);
    }
    if let Some(name) = &args.scope {
        let profile = session.profile_named(&snapshot.manifest.profile)?;
        let scope = scope_of(profile, name)?;
        // Patterns of a profile begin at its root.
        let all = scope.files.iter().flatten().chain(&scope.databases);
        patterns.extend(all.map(|pattern| format!("/{}", pattern.trim_start_matches('/'))));
    }
    Ok(patterns)
}

/// Returns the path of the database that is meant by its path, its file name, or that without the
/// end.
fn database(chunks: &Chunks<'_>, snapshot: &Snapshot, name: &str) -> Outcome<Vec<u8>> {
    let records = inspect::databases(chunks, &snapshot.manifest)?;
    let paths = records.into_iter().map(|record| record.path);
    let is_meant = |path: &Vec<u8>| {
        let path = Path::new(OsStr::from_bytes(path));
        let names = [Some(path.as_os_str()), path.file_name(), path.file_stem()];
        names.contains(&Some(OsStr::new(name)))
    };
    let (meant, others): (Vec<Vec<u8>>, Vec<Vec<u8>>) = paths.partition(is_meant);
    let list = |paths: &[Vec<u8>]| {
        let paths: Vec<String> = paths.iter().map(|path| text::path(path)).collect();
        paths.join(", ")
    };
    match &meant[..] {
        [one] => Ok(one.clone()),
        [] => Err(
            Failure::new("not-found", 13, format!("no database {name:?} is in it"))
                .hint(format!("it has: {}", list(&others))),
        ),
        several => {
            let message = format!("{name:?} could be {}", list(several));
            Err(Failure::new("ambiguous", 2, message).hint("give the whole path"))
        }
    }
}

/// Returns the pattern that matches this path and nothing else.
pub(super) fn exactly(path: &[u8]) -> Outcome<String> {
    let path = std::str::from_utf8(path)
        .map_err(|_| Failure::usage("the path is not UTF-8").hint("use --only with a pattern"))?;
    let mut pattern = String::from("/");
    for c in path.chars() {
        if r"*?[]{},!\ ".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    Ok(pattern)
}

fn exit_code(plan: &RestorePlan, report: &RestoreReport) -> u8 {
    match (
        plan.lost.count,
        report.failures.count,
        report.warnings.count,
    ) {
        (0, 0, 0) => DONE,
        (0, _, _) => WARNINGS,
        _ => DAMAGE,
    }
}

pub(super) fn plan_lines(
    session: &Session,
    snapshot: &Snapshot,
    target: &Path,
    plan: &RestorePlan,
) -> Vec<String> {
    let started_at = snapshot.manifest.started_at;
    let age = session.cx.clock.now().since_ns(started_at) / 1_000_000_000;
    let mut lines = vec![format!(
        "Plan: put snapshot {} ({}, {} old) into {}",
        snapshot.id.short(),
        text::local_with_zone(started_at, &session.zone),
        text::age(age),
        text::path(target.as_os_str().as_bytes())
    )];
    if snapshot.manifest.partial {
        lines.push("  PARTIAL   this snapshot lacks what could not be read".to_string());
    }
    tally(&mut lines, "create", &plan.create, 0);
    tally(&mut lines, "replace", &plan.replace, EXAMPLES);
    tally(&mut lines, "update", &plan.update, 0);
    tally(&mut lines, "unchanged", &plan.equal, 0);
    tally(&mut lines, "remove", &plan.remove, EXAMPLES);
    tally(&mut lines, "keep", &plan.kept, EXAMPLES);
    tally(&mut lines, "differs", &plan.conflicts, EXAMPLES);
    tally(&mut lines, "LOST", &plan.lost, EXAMPLES);
    lines.push(format!(
        "  space     {} needed, {} free{}",
        text::size(plan.write_bytes),
        text::size(plan.free_bytes),
        if plan.has_room() { "" } else { ": NOT ENOUGH" }
    ));
    lines
}

pub(super) fn tally(lines: &mut Vec<String>, name: &str, tally: &Tally, examples: usize) {
    if tally.count == 0 {
        return;
    }
    let (count, size) = (
        text::count(tally.count, "path", "paths"),
        text::size(tally.bytes),
    );
    lines.push(format!("  {name:<9} {count}, {size}"));
    let shown = tally.sample.len().min(examples);
    for path in &tally.sample[..shown] {
        lines.push(format!("            {}", text::path(path)));
    }
    if shown > 0 && (shown as u64) < tally.count {
        lines.push(format!("            … {} more", tally.count - shown as u64));
    }
}

fn tell(
    session: &Session,
    snapshot: &Snapshot,
    target: &Path,
    plan: &RestorePlan,
    report: Option<&RestoreReport>,
) -> Outcome<()> {
    let output = &session.output;
    let exit = report.map_or(DONE, |report| exit_code(plan, report));
    if output.is_json() {
        let summary = Summary {
            op: "restore",
            status: match exit {
                DONE => "ok",
                DAMAGE => "damaged",
                _ => "partial",
            },
            dry_run: report.is_none(),
            snapshot: snapshot.id.to_string(),
            target: json::PathField::new(target.as_os_str().as_bytes()),
            plan: plan_body(plan),
            done: report.map(done_body),
            exit,
        };
        output.json(&json::document("summary", summary))?;
        return Ok(());
    }
    match report {
        None => output.line("Nothing was changed (dry run).")?,
        Some(_) if output.is_quiet => {}
        Some(report) => output.line(format!(
            "Restored {} ({}) in {}, {} were there already",
            text::count(report.files, "file", "files"),
            text::size(report.bytes),
            text::duration(report.duration_ms),
            report.equal
        ))?,
    }
    if let Some(report) = report.filter(|report| report.failures.count > 0) {
        let number = text::count(report.failures.count, "path", "paths");
        output.line(format!("  PARTIAL: {number} could not be restored"))?;
    }
    Ok(())
}

pub(super) fn plan_body(plan: &RestorePlan) -> PlanBody {
    PlanBody {
        create_files: plan.create.count,
        replace_files: plan.replace.count,
        update_files: plan.update.count,
        equal_files: plan.equal.count,
        kept_files: plan.kept.count,
        removed_files: plan.remove.count,
        conflicts: plan.conflicts.count,
        lost_files: plan.lost.count,
        write_bytes: plan.write_bytes,
        free_bytes: plan.free_bytes,
    }
}

pub(super) fn done_body(report: &RestoreReport) -> DoneBody {
    DoneBody {
        files: report.files,
        others: report.others,
        equal_files: report.equal,
        written_bytes: report.bytes,
        warnings: report.warnings.count,
        failures: report.failures.count,
        seconds: json::seconds(report.duration_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_becomes_a_pattern_of_itself_alone() {
        assert_eq!(exactly(b"data/x").unwrap(), "/data/x");
        assert_eq!(exactly(b"a*[b] !").unwrap(), r"/a\*\[b\]\ \!");
        assert!(exactly(b"\xff").is_err());
    }

    #[test]
    fn a_tally_names_a_few_examples() {
        let sample: Vec<Vec<u8>> = (0..9).map(|n| vec![b'a' + n]).collect();
        let (mut lines, count, bytes) = (Vec::new(), 9, 2048);
        let nine = Tally {
            count,
            bytes,
            sample,
        };

        tally(&mut lines, "replace", &nine, 2);
        tally(&mut lines, "keep", &Tally::default(), 2);

        assert_eq!(lines[0], "  replace   9 paths, 2 KiB");
        assert_eq!(
            lines[1..],
            ["            a", "            b", "            … 7 more"]
        );
    }
}
