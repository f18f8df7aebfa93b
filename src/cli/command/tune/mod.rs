//! `tune`: replays what was backed up under other settings, and says which would pay.
//!
//! The hidden `tune-pass` is one backup or restore of that: the program starts itself with it, so
//! that its memory can be told.

mod apply;
mod told;

use crate::cli::args::TuneArgs;
use crate::cli::command::DONE;
use crate::cli::command::drill;
use crate::cli::command::in_place;
use crate::cli::command::tune::apply::Applied;
use crate::cli::environment::absolute;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::session::Session;
use crate::cli::text;
use crate::config::Profile;
use crate::context::Context;
use crate::error::Error;
use crate::ops::snapshots::Snapshot;
use crate::ops::tune;
use crate::ops::tune::Pass;
use crate::ops::tune::Subject;
use crate::ops::tune::TuneOptions;
use crate::ops::tune::Verdict;
use crate::ops::tune::Way;
use crate::repo::chunks::Chunks;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// Replays and tells.
pub(super) fn run(session: &Session, args: &TuneArgs) -> Outcome<u8> {
    let mut options = TuneOptions {
        current: Way::default(),
        began: session.cx.clock.now(),
        budget: args.budget,
        scratch: drill::scratch(session, args.scratch.as_deref())?,
    };
    let paths = paths(&args.what)?;
    if args.apply && !paths.is_empty() {
        let message = "--apply writes to a profile of the configuration, and paths are in none";
        return Err(Failure::usage(message).hint("statekeep tune -p NAME --apply"));
    }
    session.start("tune")?;
    if !paths.is_empty() {
        return replay(session, args, &options, Subject::Paths(&paths), None);
    }
    let repo = session.open_repo()?;
    let (state, all) = session.snapshots(&repo)?;
    let snapshots = chosen(session, &args.what, &all)?;
    let profile = match snapshots.last() {
        Some(newest) => in_place::profile_of(session, &newest.manifest)?,
        None => None,
    };
    if let Some(profile) = profile {
        options.current = Way {
            cuts: profile.database_cuts,
            effort: profile.effort,
        };
    }
    let chunks = Chunks::open(&repo, &state.packs)?;
    let subject = Subject::Snapshots {
        chunks: &chunks,
        snapshots: &snapshots,
    };
    replay(session, args, &options, subject, profile)
}

/// Is one pass, for the process that asks on its standard input.
pub(super) fn pass(session: &Session) -> Outcome<u8> {
    tune::be_child(
        &session.cx,
        &mut io::stdin().lock(),
        &mut session.output.writer(),
    )?;
    Ok(DONE)
}

fn replay(
    session: &Session,
    args: &TuneArgs,
    options: &TuneOptions,
    subject: Subject<'_>,
    profile: Option<&Profile>,
) -> Outcome<u8> {
    // Whoever waits a minute for nothing wants to know before.
    let file = match args.apply {
        true => Some(apply::writable(session, profile)?),
        false => None,
    };
    let longer = |failure: Failure| failure.or_hint(|| "--budget 5m gives it more time".into());
    let plan = tune::plan(&session.cx, subject, options);
    let plan = plan.map_err(|error| longer(error.into()))?;
    if plan.need_bytes > plan.free_bytes {
        let (need, free) = (text::size(plan.need_bytes), text::size(plan.free_bytes));
        let message = format!("{need} are needed aside at most, and {free} are free");
        let hint = "--scratch DIR: a directory with more room";
        return Err(Failure::new("no-space", 16, message).hint(hint));
    }
    if session.global.dry_run {
        told::plan(session, options, &plan)?;
        return Ok(DONE);
    }
    let program = std::env::current_exe().map_err(Error::io("find", "this program"))?;
    let runner = |cx: &Context, pass: &Pass| {
        let mut command = Command::new(&program);
        command.args(["--progress", "none", "tune-pass"]);
        tune::run_apart(cx, command, pass)
    };
    let report = tune::tune(&session.cx, subject, options, plan, &runner);
    let report = report.map_err(|error| match error {
        Error::Cancelled => {
            Failure::from(Error::Cancelled).hint("nothing of the replay is left behind")
        }
        error => longer(error.into()),
    })?;
    session.reporter.finish();
    let applied = match (file, report.verdict) {
        (Some(file), Verdict::Change { index, .. }) => {
            let change = report.measured[index].change;
            apply::apply(session, &file, change).map(Some)
        }
        _ => Ok(None),
    };
    match applied {
        // What was found out in a minute is worth telling all the same.
        Err(failure) if !session.output.is_json() => {
            told::report(session, options, &report, profile, None)?;
            Err(failure)
        }
        applied => {
            told::report(session, options, &report, profile, applied?.as_ref())?;
            Ok(DONE)
        }
    }
}

/// Returns what is named if it is there: files and directories, and no references.
fn paths(what: &[OsString]) -> Outcome<Vec<PathBuf>> {
    let is_path = |name: &&OsString| Path::new(name).symlink_metadata().is_ok();
    let paths = what.iter().filter(is_path);
    let paths = paths
        .map(|path| absolute(Path::new(path)))
        .collect::<Outcome<Vec<_>>>()?;
    match paths.len() == what.len() || paths.is_empty() {
        true => Ok(paths),
        false => {
            let message =
                "some of these are files, and some are not: snapshots or paths are replayed";
            Err(Failure::usage(message).hint("name either, or nothing for all of a profile"))
        }
    }
}

/// Returns the snapshots that are meant, oldest first: those named, or all complete ones of the
/// series of the newest.
fn chosen(session: &Session, what: &[OsString], all: &[Snapshot]) -> Outcome<Vec<Snapshot>> {
    if !what.is_empty() {
        let mut chosen = Vec::new();
        for reference in what {
            let found = session.resolve(all, reference.as_encoded_bytes())?;
            if !chosen.iter().any(|other: &Snapshot| other.id == found.id) {
                chosen.push(found.clone());
            }
        }
        chosen.sort_by_key(|snapshot| snapshot.manifest.started_at);
        return Ok(chosen);
    }
    let of_series = |one: &Snapshot, other: &Snapshot| {
        let (one, other) = (&one.manifest, &other.manifest);
        (&one.profile, &one.scope, &one.host, &one.root_path)
            == (&other.profile, &other.scope, &other.host, &other.root_path)
    };
    let whole = all.iter().filter(|snapshot| !snapshot.manifest.partial);
    let meant: Vec<&Snapshot> = whole.filter(|s| session.is_meant(&s.manifest)).collect();
    let Some(newest) = meant.last() else {
        let message = "there is no complete snapshot to replay";
        let failure = Failure::new("not-found", 13, message);
        return Err(failure.hint("make a few backups first, or name a PATH"));
    };
    let chosen = meant.iter().filter(|snapshot| of_series(snapshot, newest));
    Ok(chosen.map(|snapshot| (*snapshot).clone()).collect())
}
