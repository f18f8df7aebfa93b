//! `restore --in-place` and `undo`: what the plan shows is done once somebody named the place.

use crate::cli::args::RestoreArgs;
use crate::cli::args::UndoArgs;
use crate::cli::command::DAMAGE;
use crate::cli::command::DONE;
use crate::cli::command::WARNINGS;
use crate::cli::command::restore;
use crate::cli::environment;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::json;
use crate::cli::session::Session;
use crate::cli::text;
use crate::config::OnVersion;
use crate::config::Profile;
use crate::format::manifest::Manifest;
use crate::ops::hook;
use crate::ops::hook::Argv;
use crate::ops::in_place;
use crate::ops::in_place::Application;
use crate::ops::in_place::InPlaceOptions;
use crate::ops::in_place::InPlacePlan;
use crate::ops::in_place::InPlaceReport;
use crate::ops::in_place::Surplus;
use crate::ops::snapshots::Snapshot;
use crate::ops::snapshots::split_path;
use crate::repo::Repo;
use crate::repo::chunks::Chunks;
use serde::Serialize;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

/// Processes named.
const USERS_SHOWN: usize = 5;
/// For an application to say its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Serialize)]
struct Summary {
    op: &'static str,
    status: &'static str,
    dry_run: bool,
    snapshot: String,
    target: json::PathField,
    plan: restore::PlanBody,
    surplus_files: u64,
    running: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    unfinished: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<DoneBody>,
    exit: u8,
}

#[derive(Serialize)]
struct DoneBody {
    #[serde(flatten)]
    restored: restore::DoneBody,
    removed_files: u64,
    checked_databases: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    safety_snapshot: Option<String>,
    aftermath: Vec<String>,
}

/// One restore in place, as it was asked for.
pub(super) struct Request<'s> {
    op: &'static str,
    snapshot: &'s Snapshot,
    pub options: InPlaceOptions,
    on_version: OnVersion,
}

impl<'s> Request<'s> {
    /// With what the profile of the snapshot says, if it is configured here.
    pub(super) fn new(
        session: &'s Session,
        op: &'static str,
        snapshot: &'s Snapshot,
        only: Vec<String>,
        surplus: Surplus,
    ) -> Outcome<Request<'s>> {
        let mut options = InPlaceOptions {
            root: PathBuf::from(OsStr::from_bytes(&snapshot.manifest.root_path)),
            only,
            surplus,
            host: environment::host_name(),
            ..InPlaceOptions::default()
        };
        let mut on_version = OnVersion::default();
        if let Some(profile) = profile_of(session, &snapshot.manifest)? {
            // One that moved is restored to where it is now.
            options.root.clone_from(&profile.root);
            options.application = application(profile);
            on_version = profile.restore.on_version;
            options.app_version = match (app_version(session, profile)?, on_version) {
                (Ok(version), _) => version,
                (Err(problem), OnVersion::Warn) => {
                    session.reporter.warn("app-version", b"", &problem);
                    String::new()
                }
                (Err(problem), OnVersion::Refuse) => {
                    return Err(Failure::new("app-version", 2, problem)
                        .hint("on-version = \"warn\" in the profile would go on"));
                }
            };
        }
        Ok(Request {
            op,
            snapshot,
            options,
            on_version,
        })
    }

    /// Returns whether the snapshot is known to be of another version of the application.
    fn is_other_version(&self) -> bool {
        let then = &self.snapshot.manifest.app_version;
        let now = &self.options.app_version;
        !then.is_empty() && !now.is_empty() && then != now
    }
}

/// Returns the profile a snapshot belongs to, if it is configured here.
pub(super) fn profile_of<'s>(
    session: &'s Session,
    manifest: &Manifest,
) -> Outcome<Option<&'s Profile>> {
    match manifest.profile.is_empty() {
        true => Ok(None),
        false => Ok(session.config()?.profiles.get(&manifest.profile)),
    }
}

/// Returns the commands of the application of a profile.
pub(super) fn application(profile: &Profile) -> Application {
    let restore = &profile.restore;
    Application {
        running: restore.running.clone(),
        stop: restore.stop.clone(),
        start: restore.start.clone(),
        after: restore.after.clone(),
    }
}

/// Asks the application of a profile for its version. It is empty if the profile knows no way; the
/// inner error is why it was not told.
pub(super) fn app_version(session: &Session, profile: &Profile) -> Outcome<Result<String, String>> {
    let Some(command) = &profile.restore.app_version else {
        return Ok(Ok(String::new()));
    };
    let (end, said) = hook::ask(&session.cx, command, VERSION_TIMEOUT)?;
    let version = said.lines().next().unwrap_or_default().trim().to_string();
    let problem = match end.problem() {
        None if version.is_empty() => "it printed nothing".to_string(),
        None => return Ok(Ok(version)),
        Some(problem) => problem,
    };
    let command = command.join(" ");
    Ok(Err(format!(
        "the version of the application is not known: `{command}`: {problem}"
    )))
}

/// Restores to where a snapshot came from.
pub(super) fn run(session: &Session, args: &RestoreArgs) -> Outcome<u8> {
    session.start("restore")?;
    let (reference, path) = split_path(args.reference.as_bytes());
    let repo = session.open_repo()?;
    let (state, snapshots) = session.snapshots(&repo)?;
    let snapshot = session.resolve(&snapshots, reference)?;
    let chunks = Chunks::open_following(&session.cx, &repo, &state.packs)?;
    let mut only = restore::patterns(args, path)?;
    only.extend(restore::named_patterns(session, args, &chunks, snapshot)?);
    let surplus = match args.delete {
        true => Surplus::Removed,
        false => Surplus::Kept,
    };
    let request = Request::new(session, "restore", snapshot, only, surplus)?;
    go(session, &repo, &chunks, &request)
}

/// Puts back what the last restore in place replaced.
pub(super) fn undo(session: &Session, args: &UndoArgs) -> Outcome<u8> {
    session.start("undo")?;
    let repo = session.open_repo()?;
    let (state, snapshots) = session.snapshots(&repo)?;
    let host = environment::host_name();
    let root = args
        .path
        .as_deref()
        .map(environment::absolute)
        .transpose()?;
    let root = root.as_ref().map(|root| root.as_os_str().as_bytes());
    let (snapshot, replaced) = in_place::last_replaced(&snapshots, &host, root)
        .map_err(|error| Failure::from(error).hint(session.command_hint("list")))?;
    let chunks = Chunks::open_following(&session.cx, &repo, &state.packs)?;
    let only = replaced.only.clone();
    let mut request = Request::new(session, "undo", snapshot, only, Surplus::Removed)?;
    // Where that restore was, wherever the profile is by now.
    request.options.root = PathBuf::from(OsStr::from_bytes(&snapshot.manifest.root_path));
    go(session, &repo, &chunks, &request)
}

pub(super) fn go(
    session: &Session,
    repo: &Repo,
    chunks: &Chunks<'_>,
    request: &Request<'_>,
) -> Outcome<u8> {
    let Request {
        snapshot, options, ..
    } = request;
    let plan = in_place::plan(&session.cx, chunks, snapshot, options)?;
    chunks.save_index();
    session.reporter.finish();
    if !session.output.is_json() && (!session.output.is_quiet || !session.global.yes) {
        for line in plan_lines(session, request, &plan) {
            session.output.line(line)?;
        }
    }
    if session.global.dry_run {
        tell(session, request, &plan, None)?;
        return Ok(DONE);
    }
    refuse(options, &plan)?;
    refuse_version(request)?;
    session.confirm_by_name(&name(snapshot))?;
    let report = in_place::apply(&session.cx, repo, chunks, snapshot, options)?;
    session.reporter.finish();
    let restored = &report.restored;
    for warning in restored
        .warnings
        .sample
        .iter()
        .chain(&restored.failures.sample)
    {
        let (code, path, message) = (warning.code, &warning.path, &warning.message);
        session.reporter.warn(code, path, message);
    }
    for message in &report.aftermath {
        session.reporter.warn("aftermath", b"", message);
    }
    tell(session, request, &plan, Some(&report))?;
    Ok(exit_code(&report))
}

/// Returns what has to be typed: the profile, or the last part of the path.
fn name(snapshot: &Snapshot) -> String {
    let manifest = &snapshot.manifest;
    match manifest.profile.is_empty() {
        false => manifest.profile.clone(),
        true => {
            let root = Path::new(OsStr::from_bytes(&manifest.root_path));
            root.file_name()
                .map_or("/".into(), |name| name.to_string_lossy().into_owned())
        }
    }
}

/// Refuses what cannot work before anybody is asked.
fn refuse(options: &InPlaceOptions, plan: &InPlacePlan) -> Outcome<()> {
    let root = options.root.display();
    if plan.restore.conflicts.count > 0 {
        let number = text::count(plan.restore.conflicts.count, "path", "paths");
        let message = format!("{number} in {root} cannot be replaced: directories are in the way");
        return Err(Failure::new("refused", 2, message).hint("move them away, and try again"));
    }
    if !plan.restore.has_room() {
        let needed = text::size(plan.restore.write_bytes);
        let free = text::size(plan.restore.free_bytes);
        let message = format!("{needed} are written beside what is there, and {free} are free");
        return Err(Failure::new("no-space", 16, message).hint(format!(
            "free space on the file system of {root}, or restore part with --only"
        )));
    }
    if plan.is_running() && options.application.stop.is_none() {
        let who = plan.users.iter().find(|user| user.is_database);
        let who = who.map_or("its own command says so".to_string(), |user| {
            let path = text::path(&user.path);
            format!(
                "{} (process {}) has {path} open",
                text::safe(&user.name),
                user.pid
            )
        });
        let message = format!("the application in {root} is running: {who}");
        return Err(Failure::new("app-running", 15, message)
            .hint("stop it, and try again; --to DIR restores beside it at any time"));
    }
    Ok(())
}

fn refuse_version(request: &Request<'_>) -> Outcome<()> {
    if request.on_version == OnVersion::Warn || !request.is_other_version() {
        return Ok(());
    }
    let (then, now) = (
        &request.snapshot.manifest.app_version,
        &request.options.app_version,
    );
    let message =
        format!("the snapshot is of version {then} of the application, and {now} is here");
    Err(Failure::new("app-version", 2, message).hint(format!(
        "install {then}, or let `after` commands of the profile migrate it and set \
         on-version = \"warn\"; --to DIR restores beside it"
    )))
}

fn exit_code(report: &InPlaceReport) -> u8 {
    let restored = &report.restored;
    match (
        restored.failures.count,
        restored.warnings.count,
        report.aftermath.len(),
    ) {
        (0, 0, 0) => DONE,
        (0, _, _) => WARNINGS,
        _ => DAMAGE,
    }
}

fn plan_lines(session: &Session, request: &Request<'_>, plan: &InPlacePlan) -> Vec<String> {
    let Request {
        op,
        snapshot,
        options,
        ..
    } = request;
    let mut lines = restore::plan_lines(session, snapshot, &options.root, &plan.restore);
    if let Some(replaced) = snapshot.replaced.as_ref().filter(|_| *op == "undo") {
        let at = text::local_with_zone(replaced.at, &session.zone);
        lines.insert(
            1,
            format!("  undoes    the restore of {} on {at}", replaced.by.short()),
        );
    }
    if snapshot.manifest.host != options.host {
        let host = text::safe(&snapshot.manifest.host);
        lines.push(format!(
            "  ATTENTION this snapshot is of another machine, {host}"
        ));
    }
    let root = &snapshot.manifest.root_path;
    if options.root.as_os_str().as_bytes() != &root[..] {
        let root = text::path(root);
        lines.push(format!(
            "  ATTENTION it is of {root}; its profile is there by now"
        ));
    }
    if request.is_other_version() {
        let then = text::safe(&snapshot.manifest.app_version);
        let now = text::safe(&options.app_version);
        lines.push(format!(
            "  ATTENTION it is of version {then} of the application, and {now} is here"
        ));
    }
    lines.extend(command_lines(&options.application, plan));
    if let Some(unfinished) = &plan.unfinished {
        let id = unfinished.short();
        lines.push(format!(
            "  first     the restore of {id} that was interrupted is finished"
        ));
    }
    restore::tally(&mut lines, "DELETE", &plan.removes, restore::EXAMPLES);
    for change in &plan.schemas {
        lines.push(format!(
            "  schema    {} is at version {} now, and at {} in the snapshot",
            text::path(&change.path),
            change.now,
            change.then
        ));
    }
    if plan.spares_databases {
        lines.push("  running   nothing is stopped: there is no database in this part".into());
    }
    for user in plan.users.iter().take(USERS_SHOWN) {
        let mark = match user.is_database && !plan.spares_databases {
            true => "RUNNING",
            false => "open",
        };
        let (name, path) = (text::safe(&user.name), text::path(&user.path));
        lines.push(format!(
            "  {mark:<9} {name} (process {}) has {path}",
            user.pid
        ));
    }
    lines.push("  safety    what is there now becomes a snapshot first; undo puts it back".into());
    lines
}

/// Returns which programs are run.
fn command_lines(application: &Application, plan: &InPlacePlan) -> Vec<String> {
    let line = |name: &str, argv: &Argv| format!("  {name:<9} {}", text::safe(&argv.join(" ")));
    let is_stopped = plan.is_running() && application.stop.is_some();
    let stop = application.stop.iter().filter(|_| is_stopped);
    let start = application.start.iter().filter(|_| is_stopped);
    let stop = stop.map(|argv| line("stop", argv));
    let after = application.after.iter();
    let after = after.filter(|_| !plan.spares_databases);
    let after = after.map(|argv| line("after", argv));
    let start = start.map(|argv| line("start", argv));
    stop.chain(after).chain(start).collect()
}

fn tell(
    session: &Session,
    request: &Request<'_>,
    plan: &InPlacePlan,
    report: Option<&InPlaceReport>,
) -> Outcome<()> {
    let output = &session.output;
    let exit = report.map_or(DONE, exit_code);
    let safety = |report: &InPlaceReport| report.safety.map(|id| id.to_string());
    if output.is_json() {
        let root = request.options.root.as_os_str().as_bytes();
        let summary = Summary {
            op: request.op,
            status: match exit {
                DONE => "ok",
                DAMAGE => "damaged",
                _ => "partial",
            },
            dry_run: report.is_none(),
            snapshot: request.snapshot.id.to_string(),
            target: json::PathField::new(root),
            plan: restore::plan_body(&plan.restore),
            surplus_files: plan.removes.count,
            running: plan.is_running(),
            unfinished: plan.unfinished.map(|id| id.to_string()),
            done: report.map(|report| DoneBody {
                restored: restore::done_body(&report.restored),
                removed_files: report.removed,
                checked_databases: report.checked_databases,
                safety_snapshot: safety(report),
                aftermath: report.aftermath.clone(),
            }),
            exit,
        };
        output.json(&json::document("summary", summary))?;
        return Ok(());
    }
    let Some(report) = report else {
        output.line("Nothing was changed (dry run).")?;
        return Ok(());
    };
    if output.is_quiet {
        return Ok(());
    }
    let mut done = format!(
        "Restored {} ({}) in {}",
        text::count(report.restored.files, "file", "files"),
        text::size(report.restored.bytes),
        text::duration(report.restored.duration_ms),
    );
    if report.checked_databases > 0 {
        let databases = text::count(report.checked_databases, "database", "databases");
        done.push_str(&format!(", {databases} checked first"));
    }
    output.line(done)?;
    if let Some(id) = report.safety {
        output.line(format!(
            "What was there is snapshot {} (held). Put it back: {}",
            id.short(),
            session.command_hint("undo")
        ))?;
    }
    Ok(())
}
