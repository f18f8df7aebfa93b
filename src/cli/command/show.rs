//! `show`: one snapshot in full, with the databases in it.

use crate::cli::args::ShowArgs;
use crate::cli::command::DONE;
use crate::cli::failure::Outcome;
use crate::cli::json;
use crate::cli::json::DatabaseBody;
use crate::cli::json::SnapshotBody;
use crate::cli::session::Session;
use crate::cli::text;
use crate::cli::text::Align;
use crate::context::Timestamp;
use crate::error::Error;
use crate::format::database::DatabaseRecord;
use crate::format::database::Engine;
use crate::format::database::Method;
use crate::format::database::Verdict;
use crate::format::note::Export;
use crate::format::note::HoldUntil;
use crate::ops::inspect;
use crate::ops::snapshots::Snapshot;
use crate::repo::chunks::Chunks;
use jiff::tz::TimeZone;
use serde::Serialize;

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    snapshot: SnapshotBody,
    databases: Vec<DatabaseBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    damage: Option<json::LossBody>,
    exports: Vec<ExportBody>,
    /// The sum of the archive it was made of.
    #[serde(skip_serializing_if = "Option::is_none")]
    imported_sha256: Option<String>,
    /// The snapshot that it is a copy of.
    #[serde(skip_serializing_if = "Option::is_none")]
    copied_from: Option<CopiedFromBody>,
}

#[derive(Serialize)]
struct CopiedFromBody {
    repo: String,
    snapshot: String,
}

/// An archive that was made of it.
#[derive(Serialize)]
struct ExportBody {
    at: String,
    name: String,
    sha256: String,
    archive_bytes: u64,
}

/// Shows one snapshot in full.
pub(super) fn run(session: &Session, args: &ShowArgs) -> Outcome<u8> {
    let repo = session.open_repo()?;
    let (state, snapshots) = session.snapshots(&repo)?;
    let snapshot = session.resolve(&snapshots, args.reference.as_bytes())?;
    let loss = state.notes.losses.get(&snapshot.id);
    let databases = match snapshot.manifest.databases {
        None => Vec::new(),
        Some(_) => {
            let chunks = Chunks::open_following(&session.cx, &repo, &state.packs)?;
            match inspect::databases(&chunks, &snapshot.manifest) {
                // What is lost is told below; the rest is worth showing.
                Err(Error::Missing { .. } | Error::Corrupt { .. }) if loss.is_some() => Vec::new(),
                databases => databases?,
            }
        }
    };
    let notes = &state.notes;
    let exports = notes
        .exports
        .iter()
        .filter(|((id, _), _)| *id == snapshot.id);
    let mut exports: Vec<&Export> = exports.map(|(_, export)| export).collect();
    exports.sort_by_key(|export| export.at);
    let imported = notes.imports.get(&snapshot.id);
    let copied = notes.copied.get(&snapshot.id);
    let output = &session.output;
    if output.is_json() {
        let shown = Shown {
            snapshot: snapshot.into(),
            databases: databases.iter().map(DatabaseBody::from).collect(),
            damage: loss.map(|loss| json::loss(&snapshot.id, loss)),
            exports: exports.iter().copied().map(ExportBody::from).collect(),
            imported_sha256: imported.map(ToString::to_string),
            copied_from: copied.map(|from| CopiedFromBody {
                repo: from.repo.to_string(),
                snapshot: from.snapshot.to_string(),
            }),
        };
        output.json(&json::document("snapshot", shown))?;
        return Ok(DONE);
    }
    for line in details(snapshot, session.cx.clock.now(), &session.zone) {
        output.line(line)?;
    }
    if let Some(loss) = loss {
        output.line(format!("DAMAGED   {}", text::loss(loss)))?;
    }
    if let Some(sha256) = imported {
        output.line(format!("made of   an archive with sha256 {sha256}"))?;
    }
    if let Some(from) = copied {
        let (snapshot, repo) = (from.snapshot.short(), from.repo.short());
        output.line(format!(
            "copy of   snapshot {snapshot} of repository {repo}"
        ))?;
    }
    for export in exports {
        let at = text::local_with_zone(export.at, &session.zone);
        let size = text::size(export.archive_bytes);
        output.line(format!(
            "exported  {}, {size}, {at}",
            text::safe(&export.name)
        ))?;
        output.line(format!("          sha256 {}", export.sha256))?;
    }
    for line in database_lines(&databases) {
        output.line(line)?;
    }
    Ok(DONE)
}

impl From<&Export> for ExportBody {
    fn from(export: &Export) -> ExportBody {
        ExportBody {
            at: text::rfc3339(export.at),
            name: export.name.clone(),
            sha256: export.sha256.to_string(),
            archive_bytes: export.archive_bytes,
        }
    }
}

fn details(snapshot: &Snapshot, now: Timestamp, zone: &TimeZone) -> Vec<String> {
    let manifest = &snapshot.manifest;
    let figures = &manifest.figures;
    let age = now.since_ns(manifest.started_at) / 1_000_000_000;
    let mut lines = vec![
        format!("Snapshot  {}", snapshot.id),
        format!(
            "created   {} ({} ago), in {}",
            text::local_with_zone(manifest.started_at, zone),
            text::age(age),
            text::duration(manifest.duration_ms)
        ),
        format!("host      {}", text::safe(&manifest.host)),
    ];
    if !manifest.profile.is_empty() {
        lines.push(format!("profile   {}", text::safe(&manifest.profile)));
    }
    if !manifest.scope.is_empty() {
        lines.push(format!("scope     {}", text::safe(&manifest.scope)));
    }
    lines.push(format!("root      {}", text::path(&manifest.root_path)));
    for path in &manifest.included {
        lines.push(format!("  with    {}", text::path(path)));
    }
    if !snapshot.tags.is_empty() {
        let tags: Vec<String> = snapshot.tags.iter().map(|tag| text::safe(tag)).collect();
        lines.push(format!("tags      {}", tags.join(", ")));
    }
    lines.extend(snapshot.hold.map(|hold| match hold {
        HoldUntil::Released => "held      until it is released".to_string(),
        HoldUntil::Time(time) => format!("held      until {}", text::local_with_zone(time, zone)),
    }));
    lines.extend(snapshot.proof.as_ref().map(|proof| {
        let at = text::local_with_zone(proof.at, zone);
        format!("drill     {}, {at}", text::safe(&proof.result))
    }));
    lines.push(format!(
        "content   {} in {} and {}",
        text::size(figures.total_bytes),
        text::count(figures.files, "file", "files"),
        text::count(figures.directories, "directory", "directories")
    ));
    lines.push(format!(
        "cost      read {}, new {}, stored {}",
        text::size(figures.read_bytes),
        text::size(figures.new_bytes),
        text::size(figures.stored_bytes)
    ));
    match (manifest.partial, figures.warnings) {
        (false, 0) => lines.push("complete  yes".to_string()),
        (false, warnings) => {
            let warnings = text::count(warnings, "warning", "warnings");
            lines.push(format!("complete  yes, with {warnings}"));
        }
        (true, warnings) => {
            let warnings = text::count(warnings, "warning", "warnings");
            lines.push(format!("complete  no, partial: {warnings}"));
        }
    }
    if let Some(parent) = &manifest.parent {
        lines.push(format!("parent    {}", parent.short()));
    }
    lines.push(format!("program   {}", text::safe(&manifest.program)));
    lines
}

fn database_lines(databases: &[DatabaseRecord]) -> Vec<String> {
    if databases.is_empty() {
        return Vec::new();
    }
    let head = ["DATABASE", "ENGINE", "SIZE", "HELD", "HOW", "CHECK"];
    let mut rows = vec![head.map(String::from).to_vec()];
    for record in databases {
        let is_captured = record.method != Method::PlainFiles;
        let unless_plain = |text: String| match is_captured {
            true => text,
            false => "-".to_string(),
        };
        rows.push(vec![
            text::path(&record.path),
            engine(record),
            unless_plain(text::size(record.pages.saturating_mul(record.page_bytes))),
            unless_plain(text::duration(record.duration_us / 1000)),
            how(record),
            check(record.verdict).to_string(),
        ]);
    }
    use Align::Left;
    use Align::Right;
    let mut lines = vec![String::new()];
    lines.extend(text::table(&[Left, Left, Right, Right, Left, Left], &rows));
    lines
}

fn engine(record: &DatabaseRecord) -> String {
    match (record.engine, record.version) {
        (Engine::Sqlite, 0) => "SQLite".to_string(),
        (Engine::Sqlite, number) => {
            let (major, minor) = (number / 1_000_000, number / 1000 % 1000);
            format!("SQLite {major}.{minor}.{}", number % 1000)
        }
        (Engine::Redb, version) => format!("redb format {version}"),
        (Engine::Sled, 0) => "sled".to_string(),
        (Engine::Sled, version) => format!("sled 0.{version}"),
    }
}

fn how(record: &DatabaseRecord) -> String {
    let how = match record.method {
        Method::Transaction if record.wal => "read transaction, WAL",
        Method::Transaction => "read transaction",
        Method::Walk => "verified walk",
        Method::PrivateCopy if record.engine == Engine::Sled => "private copy of one instant",
        Method::PrivateCopy => "recovered private copy",
        Method::PlainFiles => "plain files, may not be consistent",
    };
    let mut how = how.to_string();
    if record.skew_us > 0 {
        let skew = text::duration(record.skew_us.div_ceil(1000));
        how.push_str(&format!(", within {skew} of others"));
    }
    if record.wal_growth_bytes > 0 {
        let growth = text::size(record.wal_growth_bytes);
        how.push_str(&format!(" (its log grew by {growth})"));
    }
    how
}

fn check(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Unchecked => "-",
        Verdict::Passed => "passed",
        Verdict::Failed => "FAILED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::manifest::Manifest;
    use crate::id::SnapshotId;

    #[test]
    fn a_partial_snapshot_says_so_and_a_database_how_it_was_captured() {
        let snapshot = Snapshot {
            id: SnapshotId([0x7c; 32]),
            manifest: Manifest {
                partial: true,
                ..Manifest::default()
            },
            tags: Vec::new(),
            hold: None,
            proof: None,
            replaced: None,
        };
        let record = DatabaseRecord {
            path: b"data/app.db".to_vec(),
            page_bytes: 4096,
            pages: 512,
            version: 3_054_001,
            duration_us: 12_000,
            wal: true,
            verdict: Verdict::Passed,
            ..DatabaseRecord::default()
        };

        let lines = details(&snapshot, Timestamp(0), &TimeZone::UTC);

        assert!(lines.contains(&"complete  no, partial: 0 warnings".into()));
        let lines = database_lines(&[record]);
        assert!(lines[2].starts_with("data/app.db  SQLite 3.54.1  2.0 MiB"));
        assert!(lines[2].ends_with("read transaction, WAL  passed"));
    }
}
