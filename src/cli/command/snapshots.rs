//! `list`: the snapshots of a repository.

use crate::cli::args::ListArgs;
use crate::cli::command::DONE;
use crate::cli::failure::Outcome;
use crate::cli::json;
use crate::cli::json::SnapshotBody;
use crate::cli::session::Session;
use crate::cli::text;
use crate::cli::text::Align;
use crate::context::Timestamp;
use crate::ops::snapshots::Snapshot;
use jiff::tz::TimeZone;
use serde::Serialize;

/// Rows for people unless they ask for more.
const ROWS: usize = 20;

#[derive(Serialize)]
struct Items {
    items: Vec<SnapshotBody>,
    damaged: Vec<json::LossBody>,
}

/// Lists snapshots, newest first.
pub(super) fn list(session: &Session, args: &ListArgs) -> Outcome<u8> {
    let repo = session.open_repo()?;
    let (state, snapshots) = session.snapshots(&repo)?;
    let wanted = |s: &&Snapshot| {
        session.is_meant(&s.manifest)
            && args
                .host
                .as_ref()
                .is_none_or(|host| *host == s.manifest.host)
            && args.tag.as_ref().is_none_or(|tag| s.tags.contains(tag))
    };
    let all: Vec<&Snapshot> = snapshots.iter().rev().filter(wanted).collect();
    let output = &session.output;
    let limit = match args.limit {
        Some(0) => usize::MAX,
        Some(limit) => limit,
        None if output.is_json() => usize::MAX,
        None => ROWS,
    };
    let shown = &all[..all.len().min(limit)];
    let losses = &state.notes.losses;
    if output.is_json() {
        let items = shown.iter().map(|&snapshot| snapshot.into()).collect();
        let lost = shown
            .iter()
            .filter_map(|s| Some((s.id, losses.get(&s.id)?)));
        let damaged = lost.map(|(id, loss)| json::loss(&id, loss)).collect();
        output.json(&json::document("snapshots", Items { items, damaged }))?;
        return Ok(DONE);
    }
    if all.is_empty() {
        output.line("No snapshots.")?;
        return Ok(DONE);
    }
    for line in rows(shown, session.cx.clock.now(), &session.zone) {
        output.line(line)?;
    }
    for snapshot in shown {
        if let Some(loss) = losses.get(&snapshot.id) {
            let id = snapshot.id.short();
            output.line(format!("DAMAGED  {id}: {}", text::loss(loss)))?;
        }
    }
    if shown.len() < all.len() {
        let more = all.len() - shown.len();
        output.line(format!(
            "… {more} more ({})",
            session.command_hint("list --limit 0")
        ))?;
    }
    let total = all.iter().map(|s| s.manifest.figures.total_bytes).sum();
    let stored = state.packs.values().map(|pack| pack.stored_bytes).sum();
    match all.len() == snapshots.len() {
        true => output.line(sum(all.len() as u64, total, stored))?,
        false => output.line(format!("{} of {} snapshots", all.len(), snapshots.len()))?,
    }
    Ok(DONE)
}

fn rows(snapshots: &[&Snapshot], now: Timestamp, zone: &TimeZone) -> Vec<String> {
    let created = format!("CREATED ({})", text::zone_name(now, zone));
    let head = [
        "ID", &created, "AGE", "SIZE", "STORED", "HOST", "WHAT", "NOTE",
    ];
    let mut rows = vec![head.map(String::from).to_vec()];
    for snapshot in snapshots {
        let manifest = &snapshot.manifest;
        let age = now.since_ns(manifest.started_at) / 1_000_000_000;
        rows.push(vec![
            snapshot.id.short(),
            text::local(manifest.started_at, zone),
            text::age(age),
            text::size(manifest.figures.total_bytes),
            text::size(manifest.figures.stored_bytes),
            text::safe(&manifest.host),
            what(snapshot),
            note(snapshot),
        ]);
    }
    use Align::Left;
    use Align::Right;
    text::table(&[Left, Left, Right, Right, Right, Left, Left, Left], &rows)
}

fn what(snapshot: &Snapshot) -> String {
    let manifest = &snapshot.manifest;
    match (&*manifest.profile, &manifest.included[..]) {
        ("", [only]) => {
            let root = text::path(&manifest.root_path);
            format!("{}/{}", root.trim_end_matches('/'), text::path(only))
        }
        ("", _) => text::path(&manifest.root_path),
        (profile, _) if manifest.scope.is_empty() => text::safe(profile),
        (profile, _) => format!("{}, {}", text::safe(profile), text::safe(&manifest.scope)),
    }
}

fn note(snapshot: &Snapshot) -> String {
    let partial = snapshot.manifest.partial.then_some("partial".to_string());
    let held = snapshot.hold.map(|_| "held".to_string());
    let proven = snapshot.proof.as_ref();
    let proven = proven.map(|proof| match proof.passed() {
        true => "proven".to_string(),
        false => "DRILL FAILED".to_string(),
    });
    let tags = snapshot.tags.iter().map(|tag| text::safe(tag));
    let said = partial.into_iter().chain(held).chain(proven);
    said.chain(tags).collect::<Vec<_>>().join(", ")
}

fn sum(count: u64, total_bytes: u64, stored_bytes: u64) -> String {
    let mut text = format!(
        "{} {} {} in {}",
        text::count(count, "snapshot", "snapshots"),
        if count == 1 { "holds" } else { "hold" },
        text::size(total_bytes),
        text::size(stored_bytes)
    );
    if stored_bytes > 0 && stored_bytes < total_bytes {
        let ratio = total_bytes as f64 / stored_bytes as f64;
        text.push_str(&format!(", {ratio:.1} times smaller"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::manifest::Figures;
    use crate::format::manifest::Manifest;
    use crate::id::SnapshotId;

    fn example() -> Snapshot {
        let figures = Figures {
            files: 49,
            directories: 1,
            total_bytes: 570_113_945,
            stored_bytes: 1_258_291,
            warnings: 1,
            ..Figures::default()
        };
        Snapshot {
            id: SnapshotId([0x7c; 32]),
            manifest: Manifest {
                started_at: Timestamp(1_795_140_000_000_000_000),
                duration_ms: 2100,
                host: "nas1".into(),
                root_path: b"/opt".to_vec(),
                included: vec![b"home\x1bcore".to_vec()],
                partial: true,
                figures,
                ..Manifest::default()
            },
            tags: vec!["weekly".into()],
            hold: None,
            proof: None,
            replaced: None,
        }
    }

    #[test]
    fn a_row_tells_what_matters_and_nothing_that_fools_a_terminal() {
        let snapshot = example();
        let now = Timestamp(snapshot.manifest.started_at.0 + 6 * 3_600_000_000_000);
        let zone = TimeZone::posix("CET-1").unwrap();

        assert_eq!(
            rows(&[&snapshot], now, &zone),
            [
                "ID        CREATED (CET)     AGE       SIZE   STORED  HOST  WHAT                 \
                 NOTE",
                "7c7c7c7c  2026-11-20 03:00  6 h  543.7 MiB  1.2 MiB  nas1  /opt/home\\u{1b}core  \
                 partial, weekly",
            ]
        );
        assert_eq!(
            sum(27, 15_247_143_731, 721_420_288),
            "27 snapshots hold 14.2 GiB in 688.0 MiB, 21.1 times smaller"
        );
    }
}
