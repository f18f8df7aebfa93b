//! `check`: verifies the repository and names what any damage hurts.

mod repair;

use crate::cli::args::CheckArgs;
use crate::cli::command::DAMAGE;
use crate::cli::command::DONE;
use crate::cli::command::check_archive;
use crate::cli::command::restore_archive;
use crate::cli::failure::Outcome;
use crate::cli::json;
use crate::cli::session::Session;
use crate::cli::text;
use crate::format::manifest::Manifest;
use crate::id::SnapshotId;
use crate::ops::Tally;
use crate::ops::check;
use crate::ops::check::CheckOptions;
use crate::ops::check::CheckProblem;
use crate::ops::check::CheckReport;
use crate::ops::check::ReadData;
use crate::ops::check::Scope;
use crate::ops::check::Usage;
use crate::ops::check::last;
use crate::ops::check::last::LastCheck;
use crate::ops::check::log;
use crate::ops::check::log::LogReport;
use crate::ops::snapshots;
use crate::repo::Repo;
use crate::repo::log::State;
use crate::store::Key;
use serde::Serialize;

/// Snapshots and paths named with each problem.
const EXAMPLES: usize = 3;

#[derive(Serialize)]
struct Summary {
    op: &'static str,
    status: &'static str,
    snapshots: u64,
    packs: u64,
    read_packs: u64,
    orphan_packs: u64,
    orphan_bytes: u64,
    #[serde(flatten)]
    usage: Option<UsageBody>,
    problems: Vec<ProblemBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repair: Option<repair::RepairBody>,
    seconds: f64,
    exit: u8,
}

#[derive(Serialize)]
struct UsageBody {
    records: u64,
    needed_bytes: u64,
    unneeded_bytes: u64,
    unneeded_packs: u64,
    unneeded_pack_bytes: u64,
}

#[derive(Serialize)]
struct ProblemBody {
    object: String,
    message: String,
    snapshots: Vec<String>,
    path_count: u64,
    paths: Vec<json::PathField>,
}

/// Checks.
pub(super) fn run(session: &Session, args: &CheckArgs) -> Outcome<u8> {
    let path = args.reference.as_deref();
    if let Some(path) = path.and_then(restore_archive::archive_path) {
        return check_archive::run(session, args, &path);
    }
    session.start("check")?;
    let repo = session.open_repo()?;
    let read_data = match args.read_data {
        None => ReadData::No,
        Some(percent) if percent >= 100.0 => ReadData::All,
        Some(percent) => ReadData::Percent(percent),
    };
    if args.repair {
        return repair::run(session, &repo, read_data);
    }
    let (state, mut snapshots) = session.snapshots(&repo)?;
    let log = log::inspect(&session.cx, &repo)?;
    let mut options = CheckOptions {
        read_data,
        ..CheckOptions::default()
    };
    if let Some(reference) = &args.reference {
        let one = session.resolve(&snapshots, reference.as_encoded_bytes())?;
        snapshots = vec![one.clone()];
        options.scope = Scope::Some;
    }
    let manifests = manifests(snapshots);
    let report = check::check_with(&session.cx, &repo, &state.packs, &manifests, &options)?;
    session.reporter.finish();
    let mut report = with_log(with_marks(report, &state, &manifests, read_data), &log);
    if options.scope == Scope::Some {
        report
            .problems
            .retain(|problem| !problem.snapshots.is_empty());
    }
    if options.scope == Scope::Everything {
        let problems = report.problems.len() as u64;
        remember(session, &repo, problems, read_data);
    }
    let exit = match report.problems.is_empty() {
        true => DONE,
        false => DAMAGE,
    };
    if session.output.is_json() {
        let summary = json::document("summary", summary(&report, None, exit));
        session.output.json(&summary)?;
        return Ok(exit);
    }
    tell(session, &report, &log)?;
    if exit != DONE {
        session.output.line(format!(
            "What to do: {}",
            session.command_hint("check --repair -n")
        ))?;
    }
    Ok(exit)
}

/// Remembers on this machine what came of it, for `status`.
fn remember(session: &Session, repo: &Repo, problems: u64, read_data: ReadData) {
    let read_percent = match read_data {
        ReadData::No => 0,
        ReadData::Percent(percent) => percent.clamp(0.0, 100.0) as u8,
        ReadData::All => 100,
    };
    let check = LastCheck {
        at: session.cx.clock.now(),
        read_percent,
        problems,
    };
    last::remember(repo, &check);
}

/// Adds what is wrong with the log.
fn with_log(mut report: CheckReport, log: &LogReport) -> CheckReport {
    for (object, message) in log.problems() {
        report.problems.push(CheckProblem {
            object,
            message,
            snapshots: Vec::new(),
            paths: Tally::default(),
        });
    }
    report
}

/// Adds what the log says is lost and this check did not come upon: it may have read less.
fn with_marks(
    mut report: CheckReport,
    state: &State,
    snapshots: &[(SnapshotId, Manifest)],
    read_data: ReadData,
) -> CheckReport {
    let marked = state.notes.lost.packs.iter().map(Key::pack);
    for pack in marked.map(|key| key.to_string()) {
        if report.problems.iter().all(|problem| problem.object != pack) {
            report.problems.push(CheckProblem {
                object: pack,
                message: "an earlier check marked it as lost".to_string(),
                snapshots: Vec::new(),
                paths: Tally::default(),
            });
        }
    }
    let may_be_lost = snapshots.iter().filter(|_| read_data != ReadData::All);
    for (id, _) in may_be_lost {
        let known = state.notes.losses.get(id);
        if let Some(loss) = known.filter(|_| !report.losses.contains_key(id)) {
            report.problems.push(CheckProblem {
                object: format!("snapshot {}", id.short()),
                message: "an earlier check found that it is not whole".to_string(),
                snapshots: vec![*id],
                paths: Tally {
                    count: loss.count,
                    bytes: 0,
                    sample: loss.paths.clone(),
                },
            });
        }
    }
    report
}

/// Tells people what was found.
fn tell(session: &Session, report: &CheckReport, log: &LogReport) -> Outcome<()> {
    let output = &session.output;
    for line in report.problems.iter().flat_map(problem_lines) {
        output.line(line)?;
    }
    if report.problems.is_empty() && output.is_quiet {
        return Ok(());
    }
    output.line(format!(
        "Checked {} and {}, {} of them read through, in {}",
        text::count(report.snapshots, "snapshot", "snapshots"),
        text::count(report.packs, "pack", "packs"),
        report.read_packs,
        text::duration(report.duration_ms)
    ))?;
    if let Some(usage) = &report.usage {
        output.line(usage_line(usage))?;
    }
    if report.orphans.count > 0 {
        let packs = text::count(report.orphans.count, "pack", "packs");
        let bytes = text::size(report.orphans.bytes);
        output.line(format!(
            "{packs} that no snapshot is made of yet or any more, {bytes}: no harm"
        ))?;
    }
    for number in log.covered_slots.keys() {
        output.line(format!(
            "log/{number:012} cannot be read; a checkpoint stands for it, no harm"
        ))?;
    }
    if report.has_unchecked_extents {
        output.line("Too many pages of redb databases to tell whether any two overlap")?;
    }
    match report.problems.len() as u64 {
        0 => output.line("No problems found")?,
        count => output.line(format!(
            "{} found",
            text::count(count, "problem", "problems")
        ))?,
    }
    Ok(())
}

fn usage_line(usage: &Usage) -> String {
    let needed = text::size(usage.needed_bytes);
    match usage.unneeded_bytes {
        0 => format!("Snapshots need all {needed} of records"),
        unneeded => {
            let packs = text::count(usage.unneeded_packs, "whole pack", "whole packs");
            let unneeded = text::size(unneeded);
            format!("Snapshots need {needed} of records; nobody needs {unneeded}, among it {packs}")
        }
    }
}

fn summary(report: &CheckReport, repair: Option<repair::RepairBody>, exit: u8) -> Summary {
    let body = |problem: &CheckProblem| ProblemBody {
        object: problem.object.clone(),
        message: problem.message.clone(),
        snapshots: problem
            .snapshots
            .iter()
            .map(SnapshotId::to_string)
            .collect(),
        path_count: problem.paths.count,
        paths: problem
            .paths
            .sample
            .iter()
            .map(|path| json::PathField::new(path))
            .collect(),
    };
    let usage = |usage: Usage| UsageBody {
        records: usage.records,
        needed_bytes: usage.needed_bytes,
        unneeded_bytes: usage.unneeded_bytes,
        unneeded_packs: usage.unneeded_packs,
        unneeded_pack_bytes: usage.unneeded_pack_bytes,
    };
    Summary {
        op: "check",
        status: if exit == DONE { "ok" } else { "damaged" },
        snapshots: report.snapshots,
        packs: report.packs,
        read_packs: report.read_packs,
        orphan_packs: report.orphans.count,
        orphan_bytes: report.orphans.bytes,
        usage: report.usage.map(usage),
        problems: report.problems.iter().map(body).collect(),
        repair,
        seconds: json::seconds(report.duration_ms),
        exit,
    }
}

/// Returns the manifests of snapshots.
fn manifests(snapshots: Vec<snapshots::Snapshot>) -> Vec<(SnapshotId, Manifest)> {
    snapshots.into_iter().map(|s| (s.id, s.manifest)).collect()
}

fn problem_lines(problem: &CheckProblem) -> Vec<String> {
    let (object, message) = (text::safe(&problem.object), text::safe(&problem.message));
    let mut lines = vec![format!("DAMAGED  {object}: {message}")];
    if !problem.snapshots.is_empty() {
        let shown = problem
            .snapshots
            .iter()
            .take(EXAMPLES)
            .map(SnapshotId::short);
        let mut text = shown.collect::<Vec<_>>().join(", ");
        if let Some(more @ 1..) = problem.snapshots.len().checked_sub(EXAMPLES) {
            text.push_str(&format!(" and {more} more"));
        }
        lines.push(format!("  in snapshots {text}"));
    }
    for path in problem.paths.sample.iter().take(EXAMPLES) {
        lines.push(format!("  {}", text::path(path)));
    }
    if let Some(more @ 1..) = problem.paths.count.checked_sub(EXAMPLES as u64) {
        lines.push(format!("  and {more} more paths"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_what_is_lost_with_it() {
        let problem = CheckProblem {
            object: "packs/3f".into(),
            message: "cut short".into(),
            snapshots: vec![SnapshotId([1; 32])],
            paths: Tally {
                count: 5,
                bytes: 0,
                sample: vec![b"a".to_vec(), b"b".to_vec(), b"c".to_vec(), b"d".to_vec()],
            },
        };

        assert_eq!(
            problem_lines(&problem),
            [
                "DAMAGED  packs/3f: cut short",
                "  in snapshots 01010101",
                "  a",
                "  b",
                "  c",
                "  and 2 more paths",
            ]
        );
    }
}
