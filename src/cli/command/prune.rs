//! `prune` and `gc`: show what would go and why, and do it once somebody confirmed.

use crate::cli::args::GcArgs;
use crate::cli::args::PruneArgs;
use crate::cli::args::SpaceArgs;
use crate::cli::command::DONE;
use crate::cli::command::WARNINGS;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::json;
use crate::cli::session::Session;
use crate::cli::text;
use crate::cli::text::Align;
use crate::config::Keep;
use crate::error::Error;
use crate::ops::keep::Policy;
use crate::ops::keep::Rule;
use crate::ops::keep::Verdict;
use crate::ops::prune;
use crate::ops::prune::PruneFigures;
use crate::ops::prune::PruneOptions;
use crate::ops::prune::PrunePlan;
use crate::ops::prune::PruneReport;
use crate::ops::snapshots::Snapshot;
use jiff::tz::TimeZone;
use serde::Serialize;

#[derive(Serialize)]
struct Summary {
    op: &'static str,
    status: &'static str,
    dry_run: bool,
    kept: u64,
    removed: u64,
    snapshots: Vec<JudgedBody>,
    plan: PlanBody,
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<DoneBody>,
    exit: u8,
}

#[derive(Serialize)]
struct JudgedBody {
    id: String,
    created_at: String,
    host: String,
    profile: String,
    keep: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    goes: Option<String>,
}

#[derive(Serialize)]
struct PlanBody {
    stored_bytes: u64,
    named_bytes: u64,
    base_bytes: u64,
    unused_bytes: u64,
    drop_packs: u64,
    drop_bytes: u64,
    rewrite_packs: u64,
    rewrite_bytes: u64,
    copy_bytes: u64,
    reencoded_chunks: u64,
    orphan_packs: u64,
    orphan_bytes: u64,
    leftover_packs: u64,
    leftover_bytes: u64,
    unreadable_packs: u64,
}

#[derive(Serialize)]
struct DoneBody {
    removed_snapshots: u64,
    deleted_packs: u64,
    deleted_bytes: u64,
    written_packs: u64,
    written_bytes: u64,
    overtaken: u64,
    no_room: bool,
    seconds: f64,
}

/// Applies a policy.
pub(super) fn run(session: &Session, args: &PruneArgs) -> Outcome<u8> {
    let mut options = options(session, &args.space);
    options.policy = args.policy.policy();
    // A policy given by hand needs no configuration.
    options.profile = match (&options.policy, &session.profile_names()[..]) {
        (Some(_), []) => None,
        (Some(_), [one]) => Some((*one).to_string()),
        _ => {
            let profile = session.profile()?;
            options.policy = profile
                .and_then(|profile| profile.keep.as_ref())
                .map(policy_of);
            profile.map(|profile| profile.name.clone())
        }
    };
    if options.policy.is_none() {
        let example = "prune -n --keep-last 3 --keep-daily 14 --keep-weekly 8";
        return Err(Failure::usage("nothing says what to keep").hint(session.command_hint(example)));
    }
    options.host.clone_from(&args.host);
    act(session, "prune", &options)
}

/// Returns the policy that a configuration asks for.
pub(super) fn policy_of(keep: &Keep) -> Policy {
    Policy {
        last: keep.last.unwrap_or_default(),
        hourly: keep.hourly.unwrap_or_default(),
        daily: keep.daily.unwrap_or_default(),
        weekly: keep.weekly.unwrap_or_default(),
        monthly: keep.monthly.unwrap_or_default(),
        yearly: keep.yearly.unwrap_or_default(),
        within: keep.within.map(Into::into),
        tags: Vec::new(),
    }
}

/// Gives back space.
pub(super) fn gc(session: &Session, args: &GcArgs) -> Outcome<u8> {
    act(session, "gc", &options(session, &args.space))
}

fn options(session: &Session, space: &SpaceArgs) -> PruneOptions {
    PruneOptions {
        policy: None,
        profile: None,
        host: None,
        zone: session.zone.clone(),
        limits: space.limits(),
        grace_ns: 0,
    }
}

fn act(session: &Session, op: &'static str, options: &PruneOptions) -> Outcome<u8> {
    session.start(op)?;
    let repo = session.open_repo()?;
    let plan = prune::plan(&session.cx, &repo, options).map_err(|error| match error {
        // A policy that is refused: the one thing that helps is another.
        Error::Refused { .. } => Failure::from(error).hint("add --keep-last N, or correct the tag"),
        // What a snapshot lacks may come back; until then nobody knows what is needed for it.
        Error::Missing { .. } | Error::Corrupt { .. } => Failure::from(error).hint(format!(
            "nothing was removed. {} names the snapshots that lack something: back up what they \
             are of, or forget them, and try again",
            session.command_hint("check --repair")
        )),
        error => error.into(),
    })?;
    session.reporter.finish();
    let (output, figures) = (&session.output, plan.figures);
    let is_filtered = options.profile.is_some() || options.host.is_some();
    if plan.judged.is_empty() && is_filtered {
        let what = "a snapshot of this profile and machine".to_string();
        let failure = Failure::from(Error::NotFound { what });
        return Err(failure.hint(session.command_hint("list")));
    }
    if !(output.is_json() || output.is_quiet && session.global.yes) {
        for line in plan_lines(&plan, &session.zone, session.cx.clock.now()) {
            output.line(line)?;
        }
    }
    let judged: Vec<JudgedBody> = plan.judged.iter().map(judged_body).collect();
    let (kept, removed) = (plan.kept_count, plan.removed().len() as u64);
    let mut summary = Summary {
        op,
        status: "ok",
        dry_run: session.global.dry_run,
        kept,
        removed,
        snapshots: judged,
        plan: plan_body(&figures),
        done: None,
        exit: DONE,
    };
    if session.global.dry_run || plan.is_empty() {
        match output.is_json() {
            true => output.json(&json::document("summary", summary))?,
            false if plan.is_empty() => output.line("Nothing to do.")?,
            false => output.line("Nothing was changed (dry run).")?,
        }
        return Ok(DONE);
    }
    session.confirm("Go on?")?;
    let done = prune::apply(&session.cx, &repo, options, plan);
    let report = done.map_err(|error| no_space_hint(session, error))?;
    session.reporter.finish();
    summary.exit = match report.no_room {
        true => WARNINGS,
        false => DONE,
    };
    if output.is_json() {
        summary.status = if report.no_room { "partial" } else { "ok" };
        summary.done = Some(done_body(&report));
        output.json(&json::document("summary", &summary))?;
        return Ok(summary.exit);
    }
    if !output.is_quiet {
        output.line(done_line(&report))?;
    }
    if report.no_room {
        output.remark(format!(
            "there was no room to rewrite half-empty packs; once there is: {}",
            session.command_hint("gc")
        ));
    }
    Ok(summary.exit)
}

/// Says what to do on a disk without room for a single slot.
pub(super) fn no_space_hint(session: &Session, error: Error) -> Failure {
    let is_no_space = error.is_no_space();
    let failure = Failure::from(error);
    let path = session.target(None).map(|target| target.path);
    let path = path.unwrap_or_default();
    match is_no_space {
        false => failure,
        true => failure.hint(format!(
            "free 1 MiB on that file system, but never by deleting files in {}, and run it again",
            text::quote(path.as_os_str())
        )),
    }
}

fn plan_lines(plan: &PrunePlan, zone: &TimeZone, now: crate::context::Timestamp) -> Vec<String> {
    let mut lines = Vec::new();
    if !plan.judged.is_empty() {
        let created = format!("CREATED ({})", text::zone_name(now, zone));
        let head = ["", "ID", &created, "HOST", "WHAT", "WHY"];
        let mut rows = vec![head.map(String::from).to_vec()];
        rows.extend(plan.judged.iter().rev().map(|judged| row(judged, zone)));
        lines = text::table(&[Align::Left; 6], &rows);
        let removed = plan.removed().len() as u64;
        lines.push(format!(
            "{}, {} kept",
            match removed {
                0 => "No snapshot goes".to_string(),
                1 => "1 snapshot goes".to_string(),
                many => format!("{many} snapshots go"),
            },
            plan.kept_count
        ));
    }
    lines.extend(space_lines(&plan.figures));
    lines
}

fn row((snapshot, verdict): &(Snapshot, Verdict), zone: &TimeZone) -> Vec<String> {
    let manifest = &snapshot.manifest;
    vec![
        if verdict.is_kept() { "keep" } else { "GO" }.to_string(),
        snapshot.id.short(),
        text::local(manifest.started_at, zone),
        text::safe(&manifest.host),
        match manifest.profile.is_empty() {
            true => text::path(&manifest.root_path),
            false => text::safe(&manifest.profile),
        },
        text::safe(&why(verdict)),
    ]
}

fn why(verdict: &Verdict) -> String {
    let rules: Vec<String> = verdict.rules.iter().map(Rule::to_string).collect();
    match &verdict.goes {
        Some(goes) => goes.to_string(),
        None if rules.is_empty() => "was not part of the plan".to_string(),
        None => rules.join(", "),
    }
}

fn space_lines(figures: &PruneFigures) -> Vec<String> {
    let packs = |count, bytes| {
        let count = text::count(count, "pack", "packs");
        format!("{count}, {}", text::size(bytes))
    };
    let mut lines = Vec::new();
    let mut line = |name: &str, what: String| lines.push(format!("  {name:<9} {what}"));
    if figures.drop_packs > 0 {
        line("delete", packs(figures.drop_packs, figures.drop_bytes));
    }
    if figures.rewrite_packs + figures.reencoded > 0 {
        let what = packs(figures.rewrite_packs, figures.rewrite_bytes);
        let copied = text::size(figures.copy_bytes);
        let mut what = format!("{what}, of which {copied} are copied");
        if figures.reencoded > 0 {
            let chunks = text::count(figures.reencoded, "chunk is", "chunks are");
            what.push_str(&format!("; {chunks} stored against another base"));
        }
        line("rewrite", what);
    }
    if figures.orphan_packs > 0 {
        let what = packs(figures.orphan_packs, figures.orphan_bytes);
        line("orphans", format!("{what}, of backups that never ended"));
    }
    if figures.leftover_packs > 0 {
        let what = packs(figures.leftover_packs, figures.leftover_bytes);
        line("leftover", format!("{what}, of a run that was cut off"));
    }
    if figures.unreadable_packs > 0 {
        let what = text::count(figures.unreadable_packs, "pack", "packs");
        line(
            "DAMAGED",
            format!("{what} cannot be read and stay; see check"),
        );
    }
    lines
}

fn done_line(report: &PruneReport) -> String {
    format!(
        "Removed {}, deleted {} ({}), wrote {} ({}) in {}",
        text::count(report.removed.len() as u64, "snapshot", "snapshots"),
        text::count(report.deleted_packs, "pack", "packs"),
        text::size(report.deleted_bytes),
        report.written_packs,
        text::size(report.written_bytes),
        text::duration(report.duration_ms)
    )
}

fn judged_body((snapshot, verdict): &(Snapshot, Verdict)) -> JudgedBody {
    JudgedBody {
        id: snapshot.id.to_string(),
        created_at: text::rfc3339(snapshot.manifest.started_at),
        host: snapshot.manifest.host.clone(),
        profile: snapshot.manifest.profile.clone(),
        keep: verdict.rules.iter().map(Rule::to_string).collect(),
        goes: verdict.goes.as_ref().map(ToString::to_string),
    }
}

fn plan_body(figures: &PruneFigures) -> PlanBody {
    PlanBody {
        stored_bytes: figures.stored_bytes,
        named_bytes: figures.named_bytes,
        base_bytes: figures.base_bytes,
        unused_bytes: figures.unused_bytes,
        drop_packs: figures.drop_packs,
        drop_bytes: figures.drop_bytes,
        rewrite_packs: figures.rewrite_packs,
        rewrite_bytes: figures.rewrite_bytes,
        copy_bytes: figures.copy_bytes,
        reencoded_chunks: figures.reencoded,
        orphan_packs: figures.orphan_packs,
        orphan_bytes: figures.orphan_bytes,
        leftover_packs: figures.leftover_packs,
        leftover_bytes: figures.leftover_bytes,
        unreadable_packs: figures.unreadable_packs,
    }
}

fn done_body(report: &PruneReport) -> DoneBody {
    DoneBody {
        removed_snapshots: report.removed.len() as u64,
        deleted_packs: report.deleted_packs,
        deleted_bytes: report.deleted_bytes,
        written_packs: report.written_packs,
        written_bytes: report.written_bytes,
        overtaken: report.overtaken,
        no_room: report.no_room,
        seconds: json::seconds(report.duration_ms),
    }
}
