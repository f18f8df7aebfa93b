//! `backup`: saves paths as a snapshot.

use crate::cli::args::BackupArgs;
use crate::cli::args::CutsArg;
use crate::cli::command::DONE;
use crate::cli::command::WARNINGS;
use crate::cli::environment;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::json;
use crate::cli::json::FiguresBody;
use crate::cli::session::Session;
use crate::cli::text;
use crate::error::Result;
use crate::format::database::DatabaseRecord;
use crate::format::database::Method;
use crate::ops::backup;
use crate::ops::backup::BackupOptions;
use crate::ops::backup::BackupReport;
use crate::ops::backup::DatabaseCuts;
use crate::ops::backup::FreePages;
use serde::Serialize;

#[derive(Serialize)]
struct Summary {
    op: &'static str,
    status: &'static str,
    dry_run: bool,
    snapshot: Option<String>,
    #[serde(flatten)]
    figures: FiguresBody,
    packs: u64,
    databases: u64,
    seconds: f64,
    exit: u8,
}

/// Backs up.
pub(super) fn run(session: &Session, args: BackupArgs) -> Outcome<u8> {
    let options = options(session, args)?;
    session.start("backup")?;
    let repo = session.open_repo()?;
    let report = backup::backup(&session.cx, &repo, &options)?;
    session.reporter.finish();
    for warning in &report.warnings {
        session
            .reporter
            .warn(warning.code, &warning.path, &warning.message);
    }
    let exit = match report.manifest.partial {
        true => WARNINGS,
        false => DONE,
    };
    tell(session, &report, exit)?;
    Ok(exit)
}

fn options(session: &Session, args: BackupArgs) -> Outcome<BackupOptions> {
    // A colon ends the name in `tag:NAME:path`.
    let is_name = |tag: &&String| !tag.is_empty() && !tag.contains([':', ',']);
    let is_good = |tag: &&String| is_name(tag) && !tag.chars().any(char::is_control);
    if let Some(tag) = args.tag.iter().find(|tag| !is_good(tag)) {
        let message = format!("{tag:?} is no name for a snapshot");
        return Err(Failure::usage(message).hint("letters, digits and dashes are best"));
    }
    let paths = args.paths.iter().map(|path| environment::absolute(path));
    Ok(BackupOptions {
        paths: paths.collect::<Outcome<_>>()?,
        root: None,
        files: None,
        databases: Vec::new(),
        profile: String::new(),
        scope: String::new(),
        host: args.host.unwrap_or_else(environment::host_name),
        exclude: args.exclude,
        secrets: args.secret,
        one_file_system: args.one_file_system,
        skip_cache_dirs: args.exclude_caches,
        free_pages: match args.exact {
            true => FreePages::Exact,
            false => FreePages::Zeroed,
        },
        database_cuts: match args.database_cuts {
            CutsArg::Groups => DatabaseCuts::Groups,
            CutsArg::Content => DatabaseCuts::Content,
        },
        tags: args.tag,
        replaced: None,
        dry_run: session.global.dry_run,
        holders: Vec::new(),
    })
}

fn tell(session: &Session, report: &BackupReport, exit: u8) -> Result<()> {
    let output = &session.output;
    if output.is_json() {
        let summary = Summary {
            op: "backup",
            status: if exit == DONE { "ok" } else { "partial" },
            dry_run: report.snapshot.is_none(),
            snapshot: report.snapshot.map(|id| id.to_string()),
            figures: (&report.manifest.figures).into(),
            packs: report.packs,
            databases: report.databases.len() as u64,
            seconds: json::seconds(report.manifest.duration_ms),
            exit,
        };
        return output.json(&json::document("summary", summary));
    }
    if output.is_quiet {
        return Ok(());
    }
    for line in summary_lines(report) {
        output.line(line)?;
    }
    Ok(())
}

fn summary_lines(report: &BackupReport) -> Vec<String> {
    let manifest = &report.manifest;
    let figures = &manifest.figures;
    let duration = text::duration(manifest.duration_ms);
    let mut lines = vec![match report.snapshot {
        Some(id) => format!("Snapshot {} saved in {duration}", id.short()),
        None => "Dry run: nothing was saved. A backup would".to_string(),
    }];
    lines.push(format!(
        "  read {}, new {} ({}), stored {}",
        text::size(figures.read_bytes),
        text::size(figures.new_bytes),
        text::percent(figures.new_bytes, figures.total_bytes),
        text::size(figures.stored_bytes)
    ));
    let same = figures
        .files
        .saturating_sub(figures.new_files + figures.changed_files);
    lines.push(format!(
        "  {} new, {} changed, {same} same",
        text::count(figures.new_files, "file", "files"),
        figures.changed_files
    ));
    lines.extend(database_line(report));
    if manifest.partial {
        lines.push(format!(
            "  PARTIAL: {} with warnings, see above",
            text::count(figures.warnings, "path", "paths")
        ));
    }
    lines
}

fn database_line(report: &BackupReport) -> Option<String> {
    let all = report.databases.iter();
    let captured: Vec<_> = all
        .filter(|record| record.method != Method::PlainFiles)
        .collect();
    let is_same = |record: &&&DatabaseRecord| record.captured_at < report.manifest.started_at;
    let same = captured.iter().filter(is_same).count();
    let databases = text::count(captured.len() as u64, "database", "databases");
    (!captured.is_empty()).then(|| format!("  {databases} captured consistently, {same} same"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::manifest::Figures;
    use crate::format::manifest::Manifest;
    use crate::id::SnapshotId;

    #[test]
    fn a_summary_is_calm_and_says_when_something_is_missing() {
        let figures = Figures {
            files: 47,
            total_bytes: 570_113_945,
            read_bytes: 570_113_945,
            new_bytes: 4_089_446,
            stored_bytes: 1_258_291,
            changed_files: 1,
            warnings: 2,
            ..Figures::default()
        };
        let mut report = BackupReport {
            snapshot: Some(SnapshotId([0x7c; 32])),
            manifest: Manifest {
                duration_ms: 2100,
                figures,
                ..Manifest::default()
            },
            warnings: Vec::new(),
            packs: 1,
            databases: Vec::new(),
        };

        assert_eq!(
            summary_lines(&report),
            [
                "Snapshot 7c7c7c7c saved in 2.1 s",
                "  read 543.7 MiB, new 3.9 MiB (0.7 %), stored 1.2 MiB",
                "  0 files new, 1 changed, 46 same",
            ]
        );
        report.manifest.partial = true;
        report.snapshot = None;
        let lines = summary_lines(&report);
        assert!(lines[0].contains("nothing was saved") && lines[3].contains("PARTIAL: 2 paths"));
    }
}
