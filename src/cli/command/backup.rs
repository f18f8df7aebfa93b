//! `backup`: saves profiles, or paths, as snapshots.

mod profile;

pub(super) use profile::note_version;

use crate::cli::args::BackupArgs;
use crate::cli::args::CutsArg;
use crate::cli::command::DONE;
use crate::cli::command::WARNINGS;
use crate::cli::command::backup::profile::run_profile;
use crate::cli::command::status;
use crate::cli::environment;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::json;
use crate::cli::json::FailureBody;
use crate::cli::json::FiguresBody;
use crate::cli::session::Session;
use crate::cli::text;
use crate::config;
use crate::config::Profile;
use crate::config::Scope;
use crate::format::database::DatabaseRecord;
use crate::format::database::Method;
use crate::ops::backup;
use crate::ops::backup::BackupOptions;
use crate::ops::backup::BackupReport;
use crate::ops::backup::DatabaseCuts;
use crate::ops::backup::FreePages;
use crate::ops::backup::Priority;
use crate::repo::Repo;
use serde::Serialize;

/// A summary of one snapshot.
#[derive(Serialize)]
struct Summary {
    op: &'static str,
    #[serde(flatten)]
    body: SummaryBody,
    exit: u8,
}

/// What became of one snapshot.
#[derive(Serialize)]
struct SummaryBody {
    status: &'static str,
    dry_run: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    profile: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    scope: String,
    snapshot: Option<String>,
    #[serde(flatten)]
    figures: FiguresBody,
    packs: u64,
    databases: u64,
    seconds: f64,
}

/// A summary of several profiles.
#[derive(Serialize)]
struct SummaryOfAll<'a> {
    op: &'static str,
    status: &'static str,
    dry_run: bool,
    profiles: Vec<ProfileBody<'a>>,
    exit: u8,
}

/// One of several profiles.
#[derive(Serialize)]
#[serde(untagged)]
enum ProfileBody<'a> {
    Done {
        #[serde(flatten)]
        body: SummaryBody,
        exit: u8,
    },
    Failed {
        status: &'static str,
        profile: &'a str,
        error: FailureBody<'a>,
        exit: u8,
    },
}

/// One snapshot that was made.
struct Done {
    report: BackupReport,
    exit: u8,
}

/// Backs up.
pub(super) fn run(session: &Session, args: &BackupArgs) -> Outcome<u8> {
    check_tags(&args.tag)?;
    if !args.paths.is_empty() {
        refuse_profiles(session, args)?;
        let options = of_paths(session, args)?;
        session.start("backup")?;
        let repo = session.open_repo()?;
        let done = back_up(session, &repo, &options)?;
        return tell(session, &done);
    }
    let profiles = chosen(session)?;
    let options = profiles
        .iter()
        .map(|profile| of_profile(session, args, profile));
    let options = options.collect::<Outcome<Vec<_>>>()?;
    session.start("backup")?;
    match (&profiles[..], &options[..]) {
        ([profile], [options]) => {
            let end = run_profile(session, profile, options);
            status::measure(session);
            tell(session, &end?)
        }
        _ => run_all(session, &profiles, &options),
    }
}

/// One after the other. One that fails does not stand in the way of the next.
fn run_all(session: &Session, profiles: &[&Profile], options: &[BackupOptions]) -> Outcome<u8> {
    let mut ends = Vec::new();
    for (profile, options) in profiles.iter().zip(options) {
        let output = &session.output;
        if !output.is_json() && !output.is_quiet {
            output.line(format!("{}:", profile.name))?;
            output.flush()?;
        }
        let end = run_profile(session, profile, options).map_err(|failure| Failure {
            message: format!("profile {}: {}", profile.name, failure.message),
            ..failure
        });
        match &end {
            Ok(done) if !output.is_json() => drop(tell(session, done)?),
            // Whoever interrupts one of them means all.
            Err(failure) if failure.code == "interrupted" => {
                return end.map(|done| done.exit);
            }
            Err(failure) if !output.is_json() => output.failure(failure),
            _ => {}
        }
        ends.push(end);
    }
    let exit = worst(&ends);
    status::measure(session);
    if session.output.is_json() {
        let bodies = profiles.iter().zip(&ends).map(|(profile, end)| match end {
            Ok(done) => ProfileBody::Done {
                body: summary(done),
                exit: done.exit,
            },
            Err(failure) => ProfileBody::Failed {
                status: "failed",
                profile: &profile.name,
                error: json::failure_body(failure),
                exit: failure.exit,
            },
        });
        let summary = SummaryOfAll {
            op: "backup",
            status: match exit {
                DONE => "ok",
                WARNINGS => "partial",
                _ => "failed",
            },
            dry_run: session.global.dry_run,
            profiles: bodies.collect(),
            exit,
        };
        session.output.json(&json::document("summary", summary))?;
    }
    Ok(exit)
}

/// A failure is worse than a warning, and a rarer code says more than a common one.
fn worst(ends: &[Outcome<Done>]) -> u8 {
    let exits = ends.iter().map(|end| match end {
        Ok(done) => (false, done.exit),
        Err(failure) => (true, failure.exit),
    });
    exits.max().map_or(DONE, |(_, exit)| exit)
}

/// Makes one snapshot, and tells its warnings.
fn back_up(session: &Session, repo: &Repo, options: &BackupOptions) -> Outcome<Done> {
    let report = backup::backup(&session.cx, repo, options)?;
    session.reporter.finish();
    session.explain_backup(&report);
    for warning in &report.warnings {
        session
            .reporter
            .warn(warning.code, &warning.path, &warning.message);
    }
    let exit = match report.manifest.partial {
        true => WARNINGS,
        false => DONE,
    };
    Ok(Done { report, exit })
}

fn check_tags(tags: &[String]) -> Outcome<()> {
    // A colon ends the name in `tag:NAME:path`.
    let is_name = |tag: &&String| !tag.is_empty() && !tag.contains([':', ',']);
    let is_good = |tag: &&String| is_name(tag) && !tag.chars().any(char::is_control);
    match tags.iter().find(|tag| !is_good(tag)) {
        None => Ok(()),
        Some(tag) => {
            let message = format!("{tag:?} is no name for a snapshot");
            Err(Failure::usage(message).hint("letters, digits and dashes are best"))
        }
    }
}

/// A profile says what is backed up, and so do paths.
fn refuse_profiles(session: &Session, args: &BackupArgs) -> Outcome<()> {
    let given = match (&session.global.profile[..], session.global.all, &args.scope) {
        ([], false, None) => return Ok(()),
        ([], false, Some(_)) => "--scope",
        ([], true, _) => "--all",
        ([..], _, _) => "-p",
    };
    let message = format!("both PATH and {given} say what to back up");
    Err(Failure::usage(message).hint("leave one of them out"))
}

fn chosen(session: &Session) -> Outcome<Vec<&Profile>> {
    let profiles = session.profiles()?;
    if !profiles.is_empty() {
        return Ok(profiles);
    }
    let names: Vec<&str> = session
        .config()?
        .profiles
        .keys()
        .map(String::as_str)
        .collect();
    Err(match names.is_empty() {
        true => {
            Failure::usage("there is nothing to back up: no PATH, and no profile is configured")
                .hint("statekeep backup PATH, or make a profile: statekeep profile detect PATH")
        }
        false => Failure::usage("no profile is named, and there are several")
            .hint(format!("-p NAME, one of {}; or --all", names.join(", "))),
    })
}

pub(super) fn of_paths(session: &Session, args: &BackupArgs) -> Outcome<BackupOptions> {
    let paths = args.paths.iter().map(|path| environment::absolute(path));
    Ok(BackupOptions {
        paths: paths.collect::<Outcome<_>>()?,
        ..of_flags(session, args)
    })
}

/// Returns what flags say alone.
fn of_flags(session: &Session, args: &BackupArgs) -> BackupOptions {
    BackupOptions {
        host: args.host.clone().unwrap_or_else(environment::host_name),
        exclude: args.exclude.clone(),
        secrets: args.secret.clone(),
        one_file_system: args.one_file_system,
        skip_cache_dirs: args.exclude_caches,
        free_pages: match args.exact {
            true => FreePages::Exact,
            false => FreePages::Zeroed,
        },
        database_cuts: match args.database_cuts {
            Some(CutsArg::Content) => DatabaseCuts::Content,
            Some(CutsArg::SmallGroups) => DatabaseCuts::SmallGroups,
            Some(CutsArg::LargeGroups) => DatabaseCuts::LargeGroups,
            Some(CutsArg::Groups) | None => DatabaseCuts::Groups,
        },
        priority: match args.nice {
            true => Priority::Idle,
            false => Priority::Normal,
        },
        memory_bytes: args.memory,
        tags: args.tag.clone(),
        dry_run: session.global.dry_run,
        ..BackupOptions::default()
    }
}

/// Returns what a profile says, and flags beside it: lists are added to, and the rest is replaced.
pub(super) fn of_profile(
    session: &Session,
    args: &BackupArgs,
    profile: &Profile,
) -> Outcome<BackupOptions> {
    let mut options = of_flags(session, args);
    let (files, databases) = match &args.scope {
        None => (&profile.files, &profile.databases),
        Some(scope) => {
            let found = scope_of(profile, scope)?;
            (&found.files, &found.databases)
        }
    };
    options.paths = vec![profile.root.clone()];
    options.files.clone_from(files);
    options.databases.clone_from(databases);
    options.profile.clone_from(&profile.name);
    options.scope = args.scope.clone().unwrap_or_default();
    options
        .exclude
        .splice(0..0, profile.exclude.iter().cloned());
    options
        .secrets
        .splice(0..0, profile.secrets.iter().cloned());
    options.tags.splice(0..0, profile.tags.iter().cloned());
    options.tags.sort();
    options.tags.dedup();
    options.one_file_system |= profile.one_file_system;
    options.skip_cache_dirs |= profile.exclude_caches;
    if profile.exact {
        options.free_pages = FreePages::Exact;
    }
    if args.database_cuts.is_none() {
        options.database_cuts = profile.database_cuts;
    }
    options.effort = profile.effort;
    if profile.nice {
        options.priority = Priority::Idle;
    }
    Ok(options)
}

/// Returns a part of a profile.
pub(super) fn scope_of<'p>(profile: &'p Profile, name: &str) -> Outcome<&'p Scope> {
    profile.scopes.get(name).ok_or_else(|| {
        let names = || profile.scopes.keys().map(String::as_str);
        let message = format!("profile {} has no scope {name:?}", profile.name);
        Failure::usage(message).hint(match config::nearest(name, names()) {
            Some(meant) => format!("did you mean {meant:?}?"),
            None if profile.scopes.is_empty() => "it has none at all".to_string(),
            None => format!("it has {}", names().collect::<Vec<_>>().join(", ")),
        })
    })
}

fn summary(done: &Done) -> SummaryBody {
    let report = &done.report;
    SummaryBody {
        status: if done.exit == DONE { "ok" } else { "partial" },
        dry_run: report.snapshot.is_none(),
        profile: report.manifest.profile.clone(),
        scope: report.manifest.scope.clone(),
        snapshot: report.snapshot.map(|id| id.to_string()),
        figures: (&report.manifest.figures).into(),
        packs: report.packs,
        databases: report.databases.len() as u64,
        seconds: json::seconds(report.manifest.duration_ms),
    }
}

fn tell(session: &Session, done: &Done) -> Outcome<u8> {
    let output = &session.output;
    if output.is_json() {
        let summary = Summary {
            op: "backup",
            body: summary(done),
            exit: done.exit,
        };
        output.json(&json::document("summary", summary))?;
    } else if !output.is_quiet {
        for line in summary_lines(&done.report) {
            output.line(line)?;
        }
    }
    Ok(done.exit)
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
