//! What `tune` tells: a table and a sentence for people, one summary for programs.

use crate::cli::command::DONE;
use crate::cli::command::tune::Applied;
use crate::cli::command::tune::apply;
use crate::cli::failure::Outcome;
use crate::cli::json;
use crate::cli::session::Session;
use crate::cli::text;
use crate::cli::text::Align;
use crate::config::Profile;
use crate::config::write;
use crate::ops::tune::Change;
use crate::ops::tune::Gain;
use crate::ops::tune::Measured;
use crate::ops::tune::Sample;
use crate::ops::tune::Summary;
use crate::ops::tune::TuneOptions;
use crate::ops::tune::TunePlan;
use crate::ops::tune::TuneReport;
use crate::ops::tune::Verdict;
use crate::ops::tune::Way;
use serde::Serialize;

#[derive(Serialize)]
struct SummaryBody {
    op: &'static str,
    status: &'static str,
    dry_run: bool,
    budget_seconds: f64,
    seconds: f64,
    #[serde(flatten)]
    sample: SampleBody,
    steps: u64,
    rounds: u64,
    ways: Vec<WayBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<VerdictBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    applied: Option<AppliedBody>,
    exit: u8,
}

#[derive(Serialize)]
struct SampleBody {
    snapshots: Vec<String>,
    snapshots_available: u64,
    sample_bytes: u64,
    total_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    largest_left_out: Option<json::PathField>,
}

#[derive(Serialize)]
struct WayBody {
    compression: i32,
    delta_run: usize,
    database_cuts: &'static str,
    current: bool,
    recommended: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(flatten)]
    figures: Option<FiguresBody>,
}

#[derive(Serialize)]
struct FiguresBody {
    first_bytes: u64,
    step_bytes: Option<u64>,
    first_seconds: f64,
    step_seconds: Option<f64>,
    restore_seconds: Option<f64>,
    peak_memory_bytes: Option<u64>,
}

#[derive(Serialize)]
struct VerdictBody {
    change: bool,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    saved_share: Option<f64>,
}

#[derive(Serialize)]
struct AppliedBody {
    file: String,
    line: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    old: Option<String>,
    new: String,
}

/// Tells what would be replayed.
pub(super) fn plan(session: &Session, options: &TuneOptions, plan: &TunePlan) -> Outcome<()> {
    let output = &session.output;
    let ways = plan.changes.iter();
    if output.is_json() {
        let ways = ways.map(|change| way_body(&change.of(&options.current), *change, false, None));
        let body = SummaryBody {
            op: "tune",
            status: "ok",
            dry_run: true,
            budget_seconds: options.budget.as_secs_f64(),
            seconds: seconds_since(session, options),
            sample: sample_body(&plan.sample),
            steps: 0,
            rounds: 0,
            ways: ways.collect(),
            verdict: None,
            applied: None,
            exit: DONE,
        };
        return Ok(output.json(&json::document("summary", body))?);
    }
    let names: Vec<String> = ways.map(|change| name(*change)).collect();
    for line in sample_lines(&plan.sample, plan.sample.snapshots.len() as u64) {
        output.line(format!("Would replay {line}"))?;
    }
    output.line(format!("  settings  {}", names.join(", ")))?;
    output.line(format!(
        "  time      {} s at most",
        options.budget.as_secs_f64()
    ))?;
    output.line(format!(
        "  space     {} at most in a private directory in {}, {} free",
        text::size(plan.need_bytes),
        options.scratch.display(),
        text::size(plan.free_bytes)
    ))?;
    Ok(output.line("Nothing was done (dry run).")?)
}

/// Tells what came out.
pub(super) fn report(
    session: &Session,
    options: &TuneOptions,
    report: &TuneReport,
    profile: Option<&Profile>,
    applied: Option<&Applied>,
) -> Outcome<()> {
    let output = &session.output;
    let recommended = recommended(report);
    if output.is_json() {
        let ways = report.measured.iter().enumerate().map(|(index, measured)| {
            let figures = figures_body(&measured.summary());
            let is_it = recommended == Some(index);
            way_body(&measured.way, measured.change, is_it, Some(figures))
        });
        let body = SummaryBody {
            op: "tune",
            status: "ok",
            dry_run: session.global.dry_run,
            budget_seconds: options.budget.as_secs_f64(),
            seconds: seconds_since(session, options),
            sample: sample_body(&report.sample),
            steps: report.steps,
            rounds: report.rounds,
            ways: ways.collect(),
            verdict: Some(verdict_body(report)),
            applied: applied.map(applied_body),
            exit: DONE,
        };
        return Ok(output.json(&json::document("summary", body))?);
    }
    if !output.is_quiet {
        for line in lines(report) {
            output.line(line)?;
        }
    }
    for line in verdict_lines(report, profile, applied) {
        output.line(line)?;
    }
    Ok(())
}

fn recommended(report: &TuneReport) -> Option<usize> {
    match report.verdict {
        Verdict::Change { index, .. } => Some(index),
        Verdict::Noise | Verdict::Stay => None,
    }
}

fn lines(report: &TuneReport) -> Vec<String> {
    let backups = report.steps + 1;
    let mut lines: Vec<String> = sample_lines(&report.sample, backups)
        .into_iter()
        .map(|line| format!("Replayed {line}"))
        .collect();
    lines.push(match report.rounds {
        1 => "  once: small differences mean nothing".to_string(),
        rounds => format!("  {rounds} times; figures are medians"),
    });
    lines.push(String::new());
    let head = [
        "SETTING", "FIRST", "STEP", "BACKUP", "RESTORE", "MEMORY", "",
    ];
    let mut rows = vec![head.map(String::from).to_vec()];
    let recommended = recommended(report);
    for (index, measured) in report.measured.iter().enumerate() {
        rows.push(row(measured, recommended == Some(index)));
    }
    let mut align = vec![Align::Left];
    align.extend([Align::Right; 5]);
    align.push(Align::Left);
    lines.extend(text::table(&align, &rows));
    lines.push(String::new());
    lines
}

fn row(measured: &Measured, is_recommended: bool) -> Vec<String> {
    let summary = measured.summary();
    let size = |bytes: Option<u64>| bytes.map_or("-".to_string(), text::size);
    let time = |ns: Option<u64>| ns.map_or("-".to_string(), time);
    let first = match measured.change {
        Change::Nothing => described(&measured.way),
        change => name(change),
    };
    vec![
        first,
        text::size(summary.first_bytes),
        size(summary.step_bytes),
        time(summary.step_ns.or(Some(summary.first_ns))),
        time(summary.restore_ns),
        size(summary.peak_bytes),
        match (measured.change, is_recommended) {
            (Change::Nothing, _) => "now",
            (_, true) => "recommended",
            _ => "",
        }
        .to_string(),
    ]
}

/// Returns the whole of a way in few columns.
fn described(way: &Way) -> String {
    let cuts = apply::cuts_name(way.cuts);
    format!("{} / {} / {cuts}", way.effort.level, way.effort.run_len)
}

fn name(change: Change) -> String {
    match change {
        Change::Nothing => "as it is now".to_string(),
        Change::Level(level) => format!("compression {level}"),
        Change::RunLen(run_len) => format!("delta-run {run_len}"),
        Change::Cuts(cuts) => format!("cuts {}", apply::cuts_name(cuts)),
    }
}

fn time(ns: u64) -> String {
    format!("{:.2} s", ns as f64 / 1e9)
}

fn sample_lines(sample: &Sample, backups: u64) -> Vec<String> {
    let share = match sample.left_out {
        None => format!("all {} of files", text::size(sample.total_bytes)),
        Some(_) => format!(
            "{} of {} of files ({})",
            text::size(sample.bytes),
            text::size(sample.total_bytes),
            text::percent(sample.bytes, sample.total_bytes)
        ),
    };
    let of = match sample.snapshot_count {
        0 => "what is there now".to_string(),
        count => format!(
            "{backups} of {}",
            text::count(count, "snapshot", "snapshots")
        ),
    };
    let mut lines = vec![format!("{of}, {share}")];
    if let Some((path, bytes)) = &sample.left_out {
        let (path, bytes) = (text::path(path), text::size(*bytes));
        lines.push(format!(
            "nothing of {path} ({bytes}) and others: --budget gives more time"
        ));
    }
    lines
}

fn verdict_lines(
    report: &TuneReport,
    profile: Option<&Profile>,
    applied: Option<&Applied>,
) -> Vec<String> {
    let Verdict::Change { index, gain, saved } = report.verdict else {
        let reason = match report.verdict {
            Verdict::Noise => "Nothing differs by more than chance",
            _ => "What would help helps too little, or costs too much",
        };
        return vec![format!("{reason}: leave the settings as they are.")];
    };
    let (now, other) = (report.measured[0].summary(), &report.measured[index]);
    let then = other.summary();
    let Some((key, value)) = apply::setting(other.change) else {
        return Vec::new();
    };
    let percent = (saved * 100.0).round();
    let time_of = |summary: &Summary| time(summary.step_ns.unwrap_or(summary.first_ns));
    let (before, after) = (time_of(&now), time_of(&then));
    let mut lines = vec![match gain {
        Gain::Bytes => format!(
            "Recommended: {key} = {value} stores {percent} % less in a month of daily backups; \
             one takes {after} instead of {before}."
        ),
        Gain::Time => format!(
            "Recommended: {key} = {value} makes backups {percent} % faster, {after} instead of \
             {before}, and stores about the same."
        ),
    }];
    if matches!(other.change, Change::Cuts(_)) {
        lines.push(
            "It counts from the next backup on, which stores large parts of SQLite databases \
             again: cut otherwise, chunks are not the same."
                .to_string(),
        );
    }
    match (applied, profile) {
        (Some(applied), _) => lines.extend(diff_lines(applied)),
        (None, Some(profile)) => lines.push(format!(
            "To use it: the same command with --apply, or {key} = {value} in [profile.{}].",
            write::name(&profile.name)
        )),
        (None, None) => lines.push(format!(
            "To use it: {key} = {value} in a profile of the configuration."
        )),
    }
    lines
}

fn diff_lines(applied: &Applied) -> Vec<String> {
    let edited = &applied.edited;
    let mut lines = vec![format!("{}, line {}:", applied.path.display(), edited.line)];
    let old = edited.old_line.iter();
    lines.extend(old.map(|line| format!("- {}", text::safe(line))));
    lines.push(format!("+ {}", text::safe(&edited.new_line)));
    lines
}

fn seconds_since(session: &Session, options: &TuneOptions) -> f64 {
    seconds(
        session
            .cx
            .clock
            .now()
            .since_ns(options.began)
            .max(0)
            .cast_unsigned(),
    )
}

fn seconds(ns: u64) -> f64 {
    // Microseconds: more digits say nothing.
    (ns / 1000) as f64 / 1e6
}

fn sample_body(sample: &Sample) -> SampleBody {
    SampleBody {
        snapshots: sample.snapshots.iter().map(ToString::to_string).collect(),
        snapshots_available: sample.snapshot_count,
        sample_bytes: sample.bytes,
        total_bytes: sample.total_bytes,
        largest_left_out: sample
            .left_out
            .as_ref()
            .map(|(path, _)| json::PathField::new(path)),
    }
}

fn way_body(way: &Way, change: Change, recommended: bool, figures: Option<FiguresBody>) -> WayBody {
    WayBody {
        compression: way.effort.level,
        delta_run: way.effort.run_len,
        database_cuts: apply::cuts_name(way.cuts),
        current: change == Change::Nothing,
        recommended,
        figures,
    }
}

fn figures_body(summary: &Summary) -> FiguresBody {
    FiguresBody {
        first_bytes: summary.first_bytes,
        step_bytes: summary.step_bytes,
        first_seconds: seconds(summary.first_ns),
        step_seconds: summary.step_ns.map(seconds),
        restore_seconds: summary.restore_ns.map(seconds),
        peak_memory_bytes: summary.peak_bytes,
    }
}

fn verdict_body(report: &TuneReport) -> VerdictBody {
    let (change, reason, saved_share) = match report.verdict {
        Verdict::Change { index, gain, saved } => {
            let reason = match gain {
                Gain::Bytes => "stores-less",
                Gain::Time => "faster",
            };
            (Some(report.measured[index].change), reason, Some(saved))
        }
        Verdict::Noise => (None, "within-noise", None),
        Verdict::Stay => (None, "does-not-pay", None),
    };
    let setting = change.and_then(apply::setting);
    VerdictBody {
        change: change.is_some(),
        reason,
        key: setting.as_ref().map(|(key, _)| *key),
        value: setting.map(|(_, value)| value.trim_matches('"').to_string()),
        saved_share,
    }
}

fn applied_body(applied: &Applied) -> AppliedBody {
    let edited = &applied.edited;
    AppliedBody {
        file: applied.path.display().to_string(),
        line: edited.line,
        old: edited.old_line.clone(),
        new: edited.new_line.clone(),
    }
}
