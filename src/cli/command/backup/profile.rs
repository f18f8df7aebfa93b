//! One profile: what runs before and after its backup, and who is told how it ended.

use crate::cli::command::DONE;
use crate::cli::command::WARNINGS;
use crate::cli::command::backup::Done;
use crate::cli::command::backup::back_up;
use crate::cli::command::hooks::HookFacts;
use crate::cli::command::hooks::run_hooks;
use crate::cli::command::in_place;
use crate::cli::failure::Outcome;
use crate::cli::json;
use crate::cli::memory;
use crate::cli::memory::LastRun;
use crate::cli::notify;
use crate::cli::notify::News;
use crate::cli::session::Session;
use crate::cli::text;
use crate::config::Profile;
use crate::context::Context;
use crate::ops::backup::BackupOptions;
use crate::ops::notify::Event;

/// Backs up a profile, remembers how that ended, and tells whom the profile says.
pub(super) fn run_profile(
    session: &Session,
    profile: &Profile,
    options: &BackupOptions,
) -> Outcome<Done> {
    if options.dry_run {
        return back_up(session, &session.open_repo_for(profile)?, options);
    }
    let is_whole = options.scope.is_empty();
    if is_whole {
        notify::begun(session, profile);
    }
    let end = run_with_hooks(session, profile, options);
    session.reporter.finish();
    let news = news(&end, profile, options);
    if is_whole {
        let run = LastRun::new(session.cx.clock.now(), news.exit);
        memory::remember(session, memory::RUNS, &profile.name, &run);
    }
    notify::ended(session, profile, &news);
    end
}

/// Returns how a backup ended, for others.
fn news(end: &Outcome<Done>, profile: &Profile, options: &BackupOptions) -> News {
    let report = end.as_ref().ok().map(|done| &done.report);
    let manifest = report.map(|report| &report.manifest);
    let (exit, message) = match end {
        Ok(done) if done.exit == DONE => (DONE, "saved".to_string()),
        Ok(done) if done.report.manifest.partial => {
            let count = done.report.manifest.figures.warnings;
            let paths = text::count(count, "path is", "paths are");
            (done.exit, format!("saved, but {paths} not whole"))
        }
        Ok(done) => (done.exit, "saved, with warnings".to_string()),
        Err(failure) => (failure.exit, failure.message.clone()),
    };
    News {
        event: if exit == DONE {
            Event::Success
        } else {
            Event::Failure
        },
        op: "backup",
        profile: profile.name.clone(),
        scope: options.scope.clone(),
        exit,
        message,
        error: end.as_ref().err().map(|failure| failure.code.to_string()),
        snapshot: report.and_then(|report| Some(report.snapshot?.to_string())),
        figures: manifest.map(|manifest| (&manifest.figures).into()),
        seconds: manifest.map(|manifest| json::seconds(manifest.duration_ms)),
        problems: Vec::new(),
    }
}

fn run_with_hooks(session: &Session, profile: &Profile, options: &BackupOptions) -> Outcome<Done> {
    let mut options = options.clone();
    let scope = options.scope.clone();
    let mut facts = HookFacts {
        when: "before",
        profile: &profile.name,
        scope: &scope,
        ..HookFacts::default()
    };
    let knows_version = note_version(session, profile, &mut options)?;
    let before = run_hooks(session, &session.cx, &profile.before, &facts);
    let done = match before {
        Ok(warned) => session.open_repo_for(profile).and_then(|repo| {
            let mut done = back_up(session, &repo, &options)?;
            let warned = warned || !knows_version;
            done.exit = done.exit.max(if warned { WARNINGS } else { DONE });
            Ok(done)
        }),
        Err(failure) => Err(failure),
    };
    facts.when = "after";
    facts.exit = Some(match &done {
        Ok(done) => done.exit,
        Err(failure) => failure.exit,
    });
    let snapshot = done.as_ref().ok().and_then(|done| done.report.snapshot);
    facts.snapshot = snapshot.map(|id| id.to_string());
    // What was stopped before is started again, whatever came between.
    let after = run_hooks(session, &Context::new(), &profile.after, &facts);
    let mut done = done?;
    if after? {
        done.exit = done.exit.max(WARNINGS);
    }
    Ok(done)
}

/// Has the snapshot say the version of the application. Returns false if it is not known and ought
/// to be: a backup is made all the same.
pub(in crate::cli::command) fn note_version(
    session: &Session,
    profile: &Profile,
    options: &mut BackupOptions,
) -> Outcome<bool> {
    match in_place::app_version(session, profile)? {
        Ok(version) => {
            options.app_version = version;
            Ok(true)
        }
        Err(problem) => {
            session.reporter.warn("app-version", b"", &problem);
            Ok(false)
        }
    }
}
