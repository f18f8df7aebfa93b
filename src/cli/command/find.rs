//! `find`: paths in all snapshots.

use crate::cli::args::FindArgs;
use crate::cli::command::DONE;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::json;
use crate::cli::json::PathField;
use crate::cli::session::Session;
use crate::cli::text;
use crate::context::Timestamp;
use crate::format::history::SeriesName;
use crate::format::tree::FileTime;
use crate::ops::find;
use crate::ops::find::FindReport;
use crate::ops::find::FoundPath;
use crate::ops::find::Place;
use crate::ops::find::Run;
use crate::ops::snapshots::Snapshot;
use crate::repo::chunks::Chunks;
use serde::Serialize;
use std::os::unix::ffi::OsStrExt;

#[derive(Serialize)]
struct Body {
    series: Vec<SeriesBody>,
}

#[derive(Serialize)]
struct SeriesBody {
    host: String,
    profile: String,
    root: PathField,
    snapshots: u64,
    paths: Vec<PathBody>,
}

#[derive(Serialize)]
struct PathBody {
    #[serde(flatten)]
    path: PathField,
    versions: Vec<RunBody>,
}

#[derive(Serialize)]
struct RunBody {
    kind: &'static str,
    size_bytes: u64,
    modified_at: String,
    snapshots: u64,
    newest: PlaceBody,
    oldest: PlaceBody,
}

#[derive(Serialize)]
struct PlaceBody {
    snapshot: String,
    created_at: String,
}

/// Looks for paths.
pub(super) fn run(session: &Session, args: &FindArgs) -> Outcome<u8> {
    let repo = session.open_repo()?;
    let (state, snapshots) = session.snapshots(&repo)?;
    let meant: Vec<&Snapshot> = match &args.references[..] {
        [] => snapshots
            .iter()
            .filter(|s| session.is_meant(&s.manifest))
            .collect(),
        references => {
            let resolve =
                |reference: &std::ffi::OsString| session.resolve(&snapshots, reference.as_bytes());
            let mut found = references
                .iter()
                .map(resolve)
                .collect::<Outcome<Vec<_>>>()?;
            found.sort_by_key(|snapshot| snapshot.id);
            found.dedup_by_key(|snapshot| snapshot.id);
            found
        }
    };
    let chunks = Chunks::open(&repo, &state.packs)?;
    let temp_dir = &session.environment.temp_dir;
    let report = find::find(&session.cx, &chunks, &meant, &args.patterns, temp_dir);
    chunks.save_index();
    let report = report?;
    session.reporter.finish();
    if report.series.is_empty() {
        let snapshots = text::count(meant.len() as u64, "snapshot", "snapshots");
        let message = format!("nothing in {snapshots} fits {}", args.patterns.join(" "));
        let hint =
            "a pattern with a '/' is a path from the root; '**/' before it finds it anywhere";
        return Err(Failure::new("not-found", 13, message).hint(hint));
    }
    let output = &session.output;
    if output.is_json() {
        output.json(&json::document("found", body(&report)))?;
        return Ok(DONE);
    }
    let is_several = report.series.len() > 1;
    for (number, series) in report.series.iter().enumerate() {
        if is_several {
            if number > 0 {
                output.line("")?;
            }
            output.line(format!("{}:", series_name(&series.series)))?;
        }
        for path in &series.paths {
            for line in path_lines(path, series.snapshots, session) {
                output.line(line)?;
            }
        }
    }
    Ok(DONE)
}

fn series_name(series: &SeriesName) -> String {
    let root = text::path(&series.root_path);
    let host = text::safe(&series.host);
    match series.profile.is_empty() {
        true => format!("{root} on {host}"),
        false => format!("{} on {host}, {root}", text::safe(&series.profile)),
    }
}

fn path_lines(found: &FoundPath, of: u64, session: &Session) -> Vec<String> {
    let is_dir = found
        .runs
        .first()
        .is_some_and(|run| run.kind == "directory");
    let slash = if is_dir { "/" } else { "" };
    let snapshots: u64 = found.runs.iter().map(|run| run.snapshots).sum();
    let (Some(newest), Some(oldest)) = (found.runs.first(), found.runs.last()) else {
        return Vec::new();
    };
    let mut lines = vec![format!("{}{slash}", text::path(&found.path))];
    let mut summary = format!(
        "  in {snapshots} of {}",
        text::count(of, "snapshot", "snapshots")
    );
    summary.push_str(&format!(
        ", {}",
        span(&oldest.oldest, &newest.newest, session)
    ));
    if found.runs.len() > 1 {
        summary.push_str(&format!(", {} versions", found.runs.len()));
        lines.push(summary);
        lines.extend(found.runs.iter().map(|run| run_line(run, session)));
    } else {
        lines.push(summary);
    }
    lines
}

fn run_line(run: &Run, session: &Session) -> String {
    let what = match run.kind {
        "file" => text::size(run.size_bytes),
        kind => kind.to_string(),
    };
    let snapshots = text::count(run.snapshots, "snapshot", "snapshots");
    let span = span(&run.oldest, &run.newest, session);
    format!("    {}  {span}, {snapshots}, {what}", run.newest.id.short())
}

fn span(oldest: &Place, newest: &Place, session: &Session) -> String {
    let time = |place: &Place| text::local(place.created_at, &session.zone);
    let (oldest, newest) = (time(oldest), time(newest));
    match oldest == newest {
        true => newest,
        false => format!("{oldest} … {newest}"),
    }
}

fn body(report: &FindReport) -> Body {
    let series = report.series.iter().map(|found| SeriesBody {
        host: found.series.host.clone(),
        profile: found.series.profile.clone(),
        root: PathField::new(&found.series.root_path),
        snapshots: found.snapshots,
        paths: found.paths.iter().map(path_body).collect(),
    });
    Body {
        series: series.collect(),
    }
}

fn path_body(found: &FoundPath) -> PathBody {
    let versions = found.runs.iter().map(|run| RunBody {
        kind: run.kind,
        size_bytes: run.size_bytes,
        modified_at: text::rfc3339(timestamp(run.modified)),
        snapshots: run.snapshots,
        newest: place_body(&run.newest),
        oldest: place_body(&run.oldest),
    });
    PathBody {
        path: PathField::new(&found.path),
        versions: versions.collect(),
    }
}

fn place_body(place: &Place) -> PlaceBody {
    PlaceBody {
        snapshot: place.id.to_string(),
        created_at: text::rfc3339(place.created_at),
    }
}

fn timestamp(time: FileTime) -> Timestamp {
    let seconds_ns = time.seconds.saturating_mul(1_000_000_000);
    Timestamp(seconds_ns.saturating_add(i64::from(time.nanoseconds)))
}
