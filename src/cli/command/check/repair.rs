//! `check --repair`: shows what would be said in the log, asks, and says it.

use crate::cli::command::DAMAGE;
use crate::cli::command::DONE;
use crate::cli::command::check;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::json;
use crate::cli::session::Session;
use crate::cli::text;
use crate::error::Error;
use crate::id::PackId;
use crate::id::SnapshotId;
use crate::ops::check::ReadData;
use crate::ops::check::log;
use crate::ops::check::repair;
use crate::ops::check::repair::RepairPlan;
use crate::ops::check::repair::RepairReport;
use crate::ops::check::repair::Waiting;
use crate::repo::Repo;
use serde::Serialize;
use std::collections::BTreeSet;

/// Snapshots named.
const EXAMPLES: usize = 5;

/// What a repair says, or would say.
#[derive(Serialize)]
pub(super) struct RepairBody {
    done: bool,
    marked_packs: Vec<String>,
    marked_chunk_count: u64,
    healed_packs: Vec<String>,
    dropped_packs: Vec<String>,
    damaged_snapshots: Vec<json::LossBody>,
    whole_snapshots: Vec<String>,
    checkpoints: Vec<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_for: Option<&'static str>,
}

/// Repairs.
pub(super) fn run(session: &Session, repo: &Repo, read_data: ReadData) -> Outcome<u8> {
    mend_log(session, repo)?;
    let (state, snapshots) = session.snapshots(repo)?;
    let manifests = check::manifests(snapshots);
    let plan = repair::plan(&session.cx, repo, &state, &manifests, read_data);
    let plan = plan.map_err(|error| match error {
        Error::Refused { .. } => {
            Failure::from(error).hint("see to it that this user can read it, and run it again")
        }
        error => error.into(),
    })?;
    session.reporter.finish();
    let exit = match plan.heals() {
        true => DONE,
        false => DAMAGE,
    };
    let output = &session.output;
    if !output.is_json() {
        let report = check::with_marks(plan.report.clone(), &state, &manifests, read_data);
        let report = check::with_log(report, &plan.log);
        check::tell(session, &report, &plan.log)?;
        for line in plan_lines(&plan) {
            output.line(line)?;
        }
    }
    let mut done = None;
    if !session.global.dry_run {
        if !plan.is_empty() {
            session.confirm("Write this into the log?")?;
        }
        done = Some(repair::apply(&session.cx, repo, &state, &plan)?);
        // What is still wrong the log says now.
        check::remember(session, repo, 0, read_data);
    }
    if output.is_json() {
        let body = body(&plan, done.is_some());
        let summary = check::summary(&plan.report, Some(body), exit);
        output.json(&json::document("summary", summary))?;
        return Ok(exit);
    }
    for line in done
        .iter()
        .flat_map(|done| done_lines(session, &plan, done))
    {
        output.line(line)?;
    }
    Ok(exit)
}

/// Makes the log readable, if it is not for everybody.
fn mend_log(session: &Session, repo: &Repo) -> Outcome<()> {
    let report = log::inspect(&session.cx, repo)?;
    let plan = log::plan(repo, &report)?;
    let Some(state) = &plan.checkpoint else {
        // Whether it can be read all the same is about to be seen.
        return match session.snapshots(repo) {
            Ok(_) => Ok(()),
            Err(failure) if plan.unsolved.is_empty() => Err(failure),
            Err(failure) => Err(failure.hint(
                "this machine remembers nothing that stands for it: run the same on one that has \
                 used the repository since, or put the object back from a copy (docs/check.md)",
            )),
        };
    };
    let output = &session.output;
    if !output.is_json() {
        for (object, why) in report.problems() {
            output.line(format!("DAMAGED  {object}: {}", text::safe(&why)))?;
        }
        output.line(format!(
            "Repair: store what this machine remembers of the log, up to {}, as a checkpoint: {} \
             and {}",
            state.position,
            text::count(state.snapshots.len() as u64, "snapshot", "snapshots"),
            text::count(state.packs.len() as u64, "pack", "packs"),
        ))?;
    }
    if session.global.dry_run {
        let message = "the log cannot be read by everybody, and the rest is checked after that";
        return Err(Failure::new("damaged", 4, message).hint("nothing was changed; leave -n out"));
    }
    session.confirm("Make the log readable?")?;
    Ok(log::apply(&session.cx, repo, &plan)?)
}

fn plan_lines(plan: &RepairPlan) -> Vec<String> {
    let packs = |count: usize| text::count(count as u64, "pack", "packs");
    let chunks = |count: usize| text::count(count as u64, "chunk", "chunks");
    let mut steps = Vec::new();
    if !plan.mark.packs.is_empty() {
        steps.push(format!(
            "mark {} as lost; backups store again what their sources still have",
            packs(plan.mark.packs.len())
        ));
    }
    if !plan.mark.chunks.is_empty() {
        steps.push(format!("mark {} as lost", chunks(plan.mark.chunks.len())));
    }
    match (plan.heal.packs.len(), plan.heal.chunks.len()) {
        (0, 0) => {}
        (0, count) => steps.push(format!("lift the mark of {}", chunks(count))),
        (count, _) => steps.push(format!("lift the mark of {}", packs(count))),
    }
    if !plan.drop.is_empty() {
        let count = packs(plan.drop.len());
        steps.push(format!("drop {count} that no snapshot needs"));
    }
    for (snapshot, loss) in plan.losses.iter().take(EXAMPLES) {
        let id = snapshot.short();
        steps.push(match loss.count {
            0 => format!("snapshot {id} is whole again"),
            count => {
                let paths = text::count(count, "path", "paths");
                format!("mark snapshot {id}, which lacks {paths}")
            }
        });
    }
    if let Some(more @ 1..) = plan.losses.len().checked_sub(EXAMPLES) {
        steps.push(format!("the same for {more} more snapshots"));
    }
    for number in &plan.checkpoints {
        steps.push(format!("write state/{number:012} again"));
    }
    let mut lines: Vec<String> = steps.iter().map(|step| format!("Repair: {step}")).collect();
    if plan.is_empty() {
        lines.push("Nothing to repair".to_string());
    }
    lines.extend(plan.waiting.map(|waiting| {
        match waiting {
            Waiting::Needed => {
                "Then: back up every source and repair again. What no source has any \
                            more stays lost until its snapshots are forgotten"
                    .to_string()
            }
            Waiting::StillRead => {
                "Every snapshot can be restored, but some read from damaged packs: \
                               these stay until those snapshots are forgotten"
                    .to_string()
            }
            Waiting::ReadData => "Nothing needs the damaged packs any more: check --repair \
                              --read-data makes sure, and drops them"
                .to_string(),
        }
    }));
    lines
}

fn done_lines(session: &Session, plan: &RepairPlan, done: &RepairReport) -> Vec<String> {
    let mut lines = Vec::new();
    if !plan.is_empty() {
        lines.push("Repaired.".to_string());
    }
    if done.leftovers > 0 {
        let files = text::count(done.leftovers, "half-written file", "half-written files");
        lines.push(format!("Removed {files}."));
    }
    if done.is_index_rebuilt && session.global.verbose {
        lines.push("The local index was made anew.".to_string());
    }
    lines
}

fn body(plan: &RepairPlan, done: bool) -> RepairBody {
    let names = |packs: &BTreeSet<PackId>| packs.iter().map(ToString::to_string).collect();
    let (damaged, whole): (Vec<_>, Vec<_>) =
        plan.losses.iter().partition(|(_, loss)| loss.count > 0);
    let damaged = damaged.into_iter();
    let damaged = damaged.map(|(snapshot, loss)| json::loss(snapshot, loss));
    RepairBody {
        done,
        marked_packs: names(&plan.mark.packs),
        marked_chunk_count: plan.mark.chunks.len() as u64,
        healed_packs: names(&plan.heal.packs),
        dropped_packs: names(&plan.drop),
        damaged_snapshots: damaged.collect(),
        whole_snapshots: whole
            .into_iter()
            .map(|(snapshot, _)| SnapshotId::to_string(snapshot))
            .collect(),
        checkpoints: plan.checkpoints.iter().copied().collect(),
        waiting_for: plan.waiting.map(|waiting| match waiting {
            Waiting::Needed => "backups",
            Waiting::StillRead => "forget",
            Waiting::ReadData => "read-data",
        }),
    }
}
