//! `check`: verifies the repository and tells every problem.

use crate::cli::args::CheckArgs;
use crate::cli::command::DAMAGE;
use crate::cli::command::DONE;
use crate::cli::failure::Outcome;
use crate::cli::json;
use crate::cli::session::Session;
use crate::cli::text;
use crate::id::SnapshotId;
use crate::ops::check;
use crate::ops::check::CheckProblem;
use crate::ops::check::CheckReport;
use crate::ops::check::ReadData;
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
    problems: Vec<ProblemBody>,
    seconds: f64,
    exit: u8,
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
    session.start("check")?;
    let repo = session.open_repo()?;
    let (state, snapshots) = session.snapshots(&repo)?;
    let read_data = match args.read_data {
        None => ReadData::No,
        Some(percent) if percent >= 100.0 => ReadData::All,
        Some(percent) => ReadData::Percent(percent),
    };
    let manifests = snapshots.into_iter().map(|s| (s.id, s.manifest));
    let snapshots: Vec<_> = manifests.collect();
    let report = check::check(&session.cx, &repo, &state.packs, &snapshots, read_data)?;
    session.reporter.finish();
    let exit = match report.problems.is_empty() {
        true => DONE,
        false => DAMAGE,
    };
    let output = &session.output;
    if output.is_json() {
        output.json(&json::document("summary", summary(&report, exit)))?;
        return Ok(exit);
    }
    for line in report.problems.iter().flat_map(problem_lines) {
        output.line(line)?;
    }
    if exit == DONE && output.is_quiet {
        return Ok(exit);
    }
    output.line(format!(
        "Checked {} and {}, {} of them read through, in {}",
        text::count(report.snapshots, "snapshot", "snapshots"),
        text::count(report.packs, "pack", "packs"),
        report.read_packs,
        text::duration(report.duration_ms)
    ))?;
    match report.problems.len() as u64 {
        0 => output.line("No problems found")?,
        count => output.line(format!(
            "{} found",
            text::count(count, "problem", "problems")
        ))?,
    }
    Ok(exit)
}

fn summary(report: &CheckReport, exit: u8) -> Summary {
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
    Summary {
        op: "check",
        status: if exit == DONE { "ok" } else { "damaged" },
        snapshots: report.snapshots,
        packs: report.packs,
        read_packs: report.read_packs,
        orphan_packs: report.orphans.count,
        orphan_bytes: report.orphans.bytes,
        problems: report.problems.iter().map(body).collect(),
        seconds: json::seconds(report.duration_ms),
        exit,
    }
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
    use crate::ops::Tally;

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
