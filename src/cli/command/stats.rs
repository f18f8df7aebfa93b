//! `stats`: what is stored, what it costs, and how fast it grows.

mod json;
mod tables;

use crate::cli::args::StatsArgs;
use crate::cli::args::StatsBy;
use crate::cli::command::DAMAGE;
use crate::cli::command::DONE;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::json as documents;
use crate::cli::session::Session;
use crate::cli::text;
use crate::ops::snapshots::Snapshot;
use crate::ops::stats;
use crate::ops::stats::Detail;
use crate::ops::stats::StatsOptions;
use crate::ops::stats::StatsReport;

/// Shows figures.
pub(super) fn run(session: &Session, args: &StatsArgs) -> Outcome<u8> {
    let repo = session.open_repo()?;
    let (state, mut snapshots) = session.snapshots(&repo)?;
    let all = snapshots.len();
    if let Some(reference) = &args.reference {
        let one = session.resolve(&snapshots, reference.as_encoded_bytes())?;
        snapshots = vec![one.clone()];
    }
    snapshots.retain(|snapshot| session.is_meant(&snapshot.manifest));
    if snapshots.is_empty() && !session.profile_names().is_empty() {
        let names = session.profile_names().join(", ");
        let message = format!("no snapshot is of profile {names:?}");
        let hint = session.command_hint("stats");
        return Err(Failure::new("not-found", 13, message).hint(hint));
    }
    let is_part = snapshots.len() < all;
    let count = |is_wanted| {
        if is_wanted {
            Detail::Count
        } else {
            Detail::Skip
        }
    };
    let options = StatsOptions {
        files: count(matches!(args.by, StatsBy::File | StatsBy::Database)),
        tables: count(args.by == StatsBy::Table),
    };
    let manifests: Vec<_> = snapshots
        .into_iter()
        .map(|Snapshot { id, manifest, .. }| (id, manifest))
        .collect();
    let temp_dir = &session.environment.temp_dir;
    let report = stats::stats(&session.cx, &repo, &state, &manifests, options, temp_dir)?;
    session.reporter.finish();
    let exit = match report.unreadable {
        0 => DONE,
        _ => DAMAGE,
    };
    let output = &session.output;
    if output.is_json() {
        let body = json::body(&report, is_part, exit);
        output.json(&documents::document("stats", body))?;
        return Ok(exit);
    }
    for line in totals(&report, is_part) {
        output.line(line)?;
    }
    let limit = match args.limit {
        0 => usize::MAX,
        limit => limit,
    };
    output.line("")?;
    for line in tables::lines(&report, args.by, limit, &session.zone) {
        output.line(line)?;
    }
    if report.unreadable > 0 {
        let nodes = text::count(report.unreadable, "node", "nodes");
        output.line(format!("{nodes} cannot be read, so all of this is too low"))?;
        output.line(format!("What to do: {}", session.command_hint("check")))?;
    }
    Ok(exit)
}

fn totals(report: &StatsReport, is_part: bool) -> Vec<String> {
    let totals = &report.totals;
    let mut lines = vec![format!(
        "{}: {} of files, {} of them different",
        text::count(totals.snapshots, "snapshot", "snapshots"),
        text::size(totals.total_bytes),
        text::size(totals.unique_bytes),
    )];
    if is_part {
        let needed = text::size(totals.usage.needed_bytes);
        lines.push(format!("stored    {needed} that these snapshots need"));
    } else {
        lines.push(format!(
            "stored    {} in {}, {:.1} times less; nobody needs {}",
            text::size(totals.pack_bytes),
            text::count(totals.packs, "pack", "packs"),
            totals.factor(),
            text::size(totals.usage.unneeded_bytes),
        ));
    }
    lines.push(format!(
        "factors   used {:.1} times over · compressed {:.1} times · as deltas {:.1} times",
        totals.dedup_factor(),
        report.codecs[1].factor(),
        report.codecs[2].factor(),
    ));
    let names = ["raw", "compressed", "delta"];
    let codecs = names.iter().zip(&report.codecs);
    let codecs = codecs.map(|(name, codec)| {
        let stored = text::size(codec.stored_bytes);
        format!("{} {name} ({stored})", codec.records)
    });
    lines.push(format!(
        "records   {}",
        codecs.collect::<Vec<_>>().join(" · ")
    ));
    if let Some((deepest, _)) = report.heights.last_key_value() {
        let records: u64 = report.heights.values().sum();
        let sum: u64 = report.heights.iter().map(|(h, n)| u64::from(*h) * n).sum();
        let mean = sum as f64 / records.max(1) as f64;
        lines.push(format!(
            "chains    {mean:.1} deep on average, {deepest} at most"
        ));
    }
    let growth = &report.growth;
    lines.push(match growth.day_bytes {
        Some(bytes) => format!(
            "growth    {} a day (median of {} days): {} in 30 days, {} in a year, before pruning",
            text::size(bytes),
            growth.days,
            text::size(growth.forecast(30).unwrap_or(0)),
            text::size(growth.forecast(365).unwrap_or(0)),
        ),
        None => "growth    three days with backups are needed to tell".to_string(),
    });
    lines
}
