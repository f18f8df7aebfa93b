//! `report`: one HTML page about a repository, written whole or not at all.
//!
//! Only its owner may read it: names of files and profiles are in it.

use crate::cli::args::ReportArgs;
use crate::cli::command::DAMAGE;
use crate::cli::command::DONE;
use crate::cli::command::prune;
use crate::cli::command::status;
use crate::cli::environment::absolute;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::failure::STDOUT;
use crate::cli::json;
use crate::cli::session::Session;
use crate::cli::text;
use crate::config::Profile;
use crate::disk::output::Existing;
use crate::disk::output::OutputFile;
use crate::disk::output::Readers;
use crate::error::Error;
use crate::ops::report;
use crate::ops::report::ReportOptions;
use crate::ops::stats;
use crate::ops::stats::Detail;
use crate::ops::stats::StatsOptions;
use serde::Serialize;
use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;

#[derive(Serialize)]
struct Summary {
    op: &'static str,
    dry_run: bool,
    status: &'static str,
    #[serde(flatten)]
    path: Option<json::PathField>,
    page_bytes: u64,
    verdict: &'static str,
    exit: u8,
}

/// Writes the page.
pub(super) fn run(session: &Session, args: &ReportArgs) -> Outcome<u8> {
    let is_stream = args.output.as_deref() == Some(Path::new("-"));
    if is_stream {
        if io::stdout().is_terminal() {
            let message = "a page is nothing to show on a terminal";
            return Err(Failure::usage(message).hint("give a file: -o FILE, or a pipe"));
        }
        session.output.give_stdout_to_data();
    }
    session.start("report")?;
    let file = match is_stream {
        true => None,
        false => Some(begin(session, args)?),
    };
    let (page, verdict, exit) = make(session)?;
    session.reporter.finish();
    let path = match file {
        // What was begun has no name yet and goes.
        Some((_, path)) if session.global.dry_run => Some(path),
        None if session.global.dry_run => None,
        None => {
            let mut stdout = io::stdout();
            let written = stdout
                .write_all(page.as_bytes())
                .and_then(|()| stdout.flush());
            written.map_err(Error::io("write", STDOUT))?;
            None
        }
        Some((mut file, path)) => {
            let written = file.write_all(page.as_bytes());
            written.map_err(Error::io("write", &path))?;
            file.finish()?;
            Some(path)
        }
    };
    let output = &session.output;
    if output.is_json() {
        let path = path.as_ref();
        let summary = Summary {
            op: "report",
            dry_run: session.global.dry_run,
            status: if exit == DONE { "ok" } else { "damaged" },
            path: path.map(|path| json::PathField::new(path.as_os_str().as_bytes())),
            page_bytes: page.len() as u64,
            verdict,
            exit,
        };
        output.json(&json::document("summary", summary))?;
        return Ok(exit);
    }
    if let Some(path) = path {
        let (size, path) = (text::size(page.len() as u64), text::quote(path.as_os_str()));
        output.line(match session.global.dry_run {
            true => format!("Would write {path} ({size}). Nothing was done (dry run)."),
            false => format!("Wrote {path} ({size}); only you can read it."),
        })?;
    }
    if exit == DAMAGE {
        output.line("Some of it cannot be read, so its figures are too low")?;
        output.line(format!("What to do: {}", session.command_hint("check")))?;
    }
    Ok(exit)
}

/// Begins the file before the work: a name that is taken should not cost minutes.
fn begin(session: &Session, args: &ReportArgs) -> Outcome<(OutputFile, PathBuf)> {
    let path = match &args.output {
        Some(path) => absolute(path)?,
        None => {
            let now = text::instant(session.cx.clock.now()).to_zoned(session.zone.clone());
            let name = now
                .strftime("statekeep-report-%Y%m%d-%H%M%S.html")
                .to_string();
            absolute(Path::new(&name))?
        }
    };
    let existing = match args.overwrite {
        true => Existing::Replace,
        false => Existing::Keep,
    };
    let file = OutputFile::create(&path, Readers::Owner, existing).map_err(|error| {
        let is_refused = matches!(error, Error::Refused { .. });
        let failure = Failure::from(error);
        match is_refused {
            true => failure.hint("--overwrite replaces it"),
            false => failure,
        }
    })?;
    Ok((file, path))
}

/// Returns the page, the verdict in it, and the exit code.
fn make(session: &Session) -> Outcome<(String, &'static str, u8)> {
    let target = session.target(None)?;
    let (repo, _) = session.open_target(&target)?;
    let (state, mut snapshots) = session.snapshots(&repo)?;
    let now = session.cx.clock.now();
    let profiles = &session.config()?.profiles;
    let is_in = |profile: &&Profile| status::is_expected_in(session, profile, &target);
    let expected: Vec<&Profile> = profiles.values().filter(is_in).collect();
    let judged = status::of_repo(session, &repo, &state, &snapshots, &expected);
    snapshots.retain(|snapshot| session.is_meant(&snapshot.manifest));
    if judged.series.is_empty() && !session.profile_names().is_empty() {
        let names = session.profile_names().join(", ");
        let message = format!("no snapshot is of profile {names:?}");
        let hint = session.command_hint("status");
        return Err(Failure::new("not-found", 13, message).hint(hint));
    }
    let manifests: Vec<_> = snapshots
        .iter()
        .map(|one| (one.id, one.manifest.clone()))
        .collect();
    let counted = StatsOptions {
        files: Detail::Count,
        tables: Detail::Count,
    };
    let temp_dir = &session.environment.temp_dir;
    let counted = stats::stats(&session.cx, &repo, &state, &manifests, counted, temp_dir)?;
    let policies = profiles.values().filter_map(|profile| {
        let keep = profile.keep.as_ref()?;
        Some((profile.name.clone(), prune::policy_of(keep)))
    });
    let options = ReportOptions {
        name: status::name_of(&target),
        policies: policies.collect(),
    };
    let exit = match counted.unreadable {
        0 => DONE,
        _ => DAMAGE,
    };
    let report = report::gather(judged, counted, &snapshots, &options, &session.zone, now);
    let verdict = report.verdict().code();
    Ok((report::render(&report), verdict, exit))
}
