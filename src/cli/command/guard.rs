//! `guard`: runs a migration with a way back, names the way, and goes it.

use crate::cli::args::BackupArgs;
use crate::cli::args::GuardArgs;
use crate::cli::args::GuardCommand;
use crate::cli::command::DONE;
use crate::cli::command::backup;
use crate::cli::command::drill;
use crate::cli::command::hooks::HookFacts;
use crate::cli::command::hooks::run_hooks;
use crate::cli::command::in_place;
use crate::cli::command::in_place::Request;
use crate::cli::environment;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::json;
use crate::cli::session::Session;
use crate::cli::text;
use crate::config::Profile;
use crate::context::Context;
use crate::ops::guard;
use crate::ops::guard::GuardOptions;
use crate::ops::guard::GuardReport;
use crate::ops::guard::Moved;
use crate::ops::guard::Rollback;
use crate::ops::hook;
use crate::ops::hook::Output;
use crate::ops::in_place::Surplus;
use crate::ops::snapshots::Snapshot;
use crate::repo::chunks::Chunks;
use serde::Serialize;

#[derive(Serialize)]
struct Summary {
    op: &'static str,
    status: &'static str,
    dry_run: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    databases: Vec<drill::DatabaseBody>,
    exit: u8,
}

#[derive(Serialize)]
struct Status {
    snapshot: String,
    tags: Vec<String>,
    time: String,
    root: json::PathField,
    databases: Vec<MovedBody>,
}

#[derive(Serialize)]
struct MovedBody {
    #[serde(flatten)]
    path: json::PathField,
    user_version_then: u32,
    user_version_now: Option<u32>,
}

/// Guards.
pub(super) fn run(session: &Session, args: &GuardArgs) -> Outcome<u8> {
    match args.command {
        None => migrate(session, args),
        Some(_) if !args.paths.is_empty() || args.revision.is_some() => {
            Err(Failure::usage("--path and --revision are for a migration"))
        }
        Some(GuardCommand::Status) => status(session),
        Some(GuardCommand::Rollback) => rollback(session),
    }
}

fn migrate(session: &Session, args: &GuardArgs) -> Outcome<u8> {
    let (profile, mut options) = options(session, args)?;
    let words = args.migration.iter().map(|word| word.to_string_lossy());
    let command = words.collect::<Vec<_>>().join(" ");
    session.start("guard")?;
    if session.global.dry_run {
        return tell_plan(session, &options, &command);
    }
    let repo = match profile {
        Some(profile) => session.open_repo_for(profile)?,
        None => session.open_repo()?,
    };
    if let Some(profile) = profile {
        backup::note_version(session, profile, &mut options.backup)?;
    }
    let before = profile.map_or(&[][..], |profile| &profile.before);
    let mut facts = HookFacts {
        when: "before",
        profile: &options.backup.profile,
        ..HookFacts::default()
    };
    let begun = run_hooks(session, &session.cx, before, &facts);
    let guarded = begun.and_then(|_| {
        let mut run = || {
            session.reporter.finish();
            let output = match session.output.is_json() {
                true => Output::ToStandardError,
                false => Output::Inherited,
            };
            let end = hook::attach(&session.cx, &args.migration, output);
            match end.map_err(|error| error.to_string())?.problem() {
                None => Ok(()),
                Some(problem) => Err(format!("`{command}`: {problem}")),
            }
        };
        Ok(guard::guard(&session.cx, &repo, &options, &mut run)?)
    });
    session.reporter.finish();
    // What was stopped before is started again, whatever came between.
    let after = profile.map_or(&[][..], |profile| &profile.after);
    facts.when = "after";
    facts.exit = Some(match &guarded {
        Ok(_) => DONE,
        Err(failure) => failure.exit,
    });
    let ended = run_hooks(session, &Context::new(), after, &facts);
    let report = guarded?;
    ended?;
    tell(session, &report)
}

/// Returns the profile that is meant, unless paths are given, and what is guarded.
fn options<'s>(
    session: &'s Session,
    args: &GuardArgs,
) -> Outcome<(Option<&'s Profile>, GuardOptions)> {
    let mut flags = BackupArgs {
        paths: args.paths.clone(),
        ..BackupArgs::default()
    };
    let profile = match (args.paths.is_empty(), session.profile_names().is_empty()) {
        (true, _) => session.profile()?,
        (false, true) => None,
        (false, false) => {
            let message = "both --path and a profile say what is backed up";
            return Err(Failure::usage(message).hint("leave one of them out"));
        }
    };
    let Some(profile) = profile else {
        if args.paths.is_empty() {
            return Err(Failure::usage("nothing says what the migration changes")
                .hint("-p NAME for a profile, or --path PATH"));
        }
        let options = GuardOptions {
            backup: backup::of_paths(session, &flags)?,
            revision: args.revision.clone(),
            ..GuardOptions::default()
        };
        return Ok((None, options));
    };
    flags.paths.clear();
    let options = GuardOptions {
        backup: backup::of_profile(session, &flags, profile)?,
        revision: args.revision.clone(),
        assertions: drill::assertions(profile),
        application: in_place::application(profile),
    };
    Ok((Some(profile), options))
}

fn tell_plan(session: &Session, options: &GuardOptions, command: &str) -> Outcome<u8> {
    let output = &session.output;
    if output.is_json() {
        let summary = Summary {
            op: "guard",
            status: "ok",
            dry_run: true,
            snapshot: None,
            name: None,
            databases: Vec::new(),
            exit: DONE,
        };
        output.json(&json::document("summary", summary))?;
        return Ok(DONE);
    }
    for path in &options.backup.paths {
        output.line(format!("Plan: back up {}", path.display()))?;
    }
    output.line(format!("  run       {}", text::safe(command)))?;
    output.line("  then      check its databases; if anything failed, put everything back")?;
    output.line("Nothing was done (dry run).")?;
    Ok(DONE)
}

fn tell(session: &Session, report: &GuardReport) -> Outcome<u8> {
    let id = report.snapshot.short();
    let failures = report.failures.join("; ");
    match &report.rollback {
        Rollback::NotNeeded => {}
        Rollback::Done(restored) => {
            for message in &restored.aftermath {
                session.reporter.warn("aftermath", b"", message);
            }
            let message = format!(
                "the migration failed, and everything is as it was before it, in snapshot {id}: \
                 {failures}"
            );
            let hint = match restored.safety {
                Some(safety) => format!("what it left is snapshot {}, to look at", safety.short()),
                None => "run it again once it is mended".to_string(),
            };
            return Err(Failure::new("migration-failed", 1, message).hint(hint));
        }
        Rollback::Failed(error) => {
            let message = format!(
                "the migration failed ({failures}), and what was there before it could not be put \
                 back: {error}"
            );
            let next = session.command_hint("guard rollback");
            let hint = format!("stop the application, then: {next} (snapshot {id})");
            return Err(Failure::new("rollback-failed", 1, message).hint(hint));
        }
    }
    let output = &session.output;
    if output.is_json() {
        let summary = Summary {
            op: "guard",
            status: "ok",
            dry_run: false,
            snapshot: Some(report.snapshot.to_string()),
            name: Some(report.name.clone()),
            databases: drill::bodies(&report.databases),
            exit: DONE,
        };
        output.json(&json::document("summary", summary))?;
    } else if !output.is_quiet {
        for judged in &report.databases {
            output.line(drill::database_line(judged))?;
        }
        output.line(format!(
            "Migrated. The way back is snapshot {id}, {}, held for 30 days: {}",
            text::safe(&report.name),
            session.command_hint("guard rollback")
        ))?;
    }
    Ok(DONE)
}

fn last<'s>(session: &Session, snapshots: &'s [Snapshot]) -> Outcome<&'s Snapshot> {
    let is_meant = |snapshot: &Snapshot| session.is_meant(&snapshot.manifest);
    let last = guard::last(snapshots, &environment::host_name(), &is_meant);
    last.map_err(|error| Failure::from(error).hint(session.command_hint("guard -- COMMAND")))
}

fn status(session: &Session) -> Outcome<u8> {
    let repo = session.open_repo()?;
    let (state, snapshots) = session.snapshots(&repo)?;
    let snapshot = last(session, &snapshots)?;
    let chunks = Chunks::open(&repo, &state.packs)?;
    let request = Request::new(
        session,
        "guard-rollback",
        snapshot,
        Vec::new(),
        Surplus::Removed,
    )?;
    let moved = guard::moved(&chunks, snapshot, &request.options.root)?;
    let output = &session.output;
    let manifest = &snapshot.manifest;
    if output.is_json() {
        let body = |moved: &Moved| MovedBody {
            path: json::PathField::new(&moved.path),
            user_version_then: moved.then,
            user_version_now: moved.now,
        };
        let status = Status {
            snapshot: snapshot.id.to_string(),
            tags: snapshot.tags.clone(),
            time: text::rfc3339(manifest.started_at),
            root: json::PathField::new(&manifest.root_path),
            databases: moved.iter().map(body).collect(),
        };
        output.json(&json::document("guard-status", status))?;
        return Ok(DONE);
    }
    output.line(format!(
        "Before the last migration: snapshot {} ({}) of {}",
        snapshot.id.short(),
        text::local_with_zone(manifest.started_at, &session.zone),
        text::path(&manifest.root_path)
    ))?;
    let tags: Vec<String> = snapshot.tags.iter().map(|tag| text::safe(tag)).collect();
    output.line(format!("  tags      {}", tags.join(", ")))?;
    for Moved { path, then, now } in &moved {
        let path = text::path(path);
        output.line(match now {
            None => format!("  unread    {path}: at version {then} before"),
            Some(now) if now == then => format!("  same      {path}: at version {then}"),
            Some(now) => format!("  moved     {path}: from version {then} to {now}"),
        })?;
    }
    output.line(format!(
        "Put it back: {}",
        session.command_hint("guard rollback")
    ))?;
    Ok(DONE)
}

fn rollback(session: &Session) -> Outcome<u8> {
    session.start("guard-rollback")?;
    let repo = session.open_repo()?;
    let (state, snapshots) = session.snapshots(&repo)?;
    let snapshot = last(session, &snapshots)?;
    let chunks = Chunks::open(&repo, &state.packs)?;
    let surplus = Surplus::Removed;
    let mut request = Request::new(session, "guard-rollback", snapshot, Vec::new(), surplus)?;
    // What is run after a restore is a migration: the one that is taken back.
    request.options.application.after.clear();
    in_place::go(session, &repo, &chunks, &request)
}
