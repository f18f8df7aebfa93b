//! `diff`: two snapshots, or a snapshot and what is there now.

mod json;
mod lines;

use crate::cli::args::DiffArgs;
use crate::cli::command::DIFFERENT;
use crate::cli::command::DONE;
use crate::cli::command::in_place;
use crate::cli::environment;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::session::Session;
use crate::context::Context;
use crate::format::manifest::Manifest;
use crate::ops::diff;
use crate::ops::diff::DiffOptions;
use crate::ops::diff::Live;
use crate::ops::diff::LiveOptions;
use crate::ops::snapshots::Snapshot;
use crate::ops::snapshots::split_path;
use crate::repo::chunks::Chunks;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Compares.
pub(super) fn run(session: &Session, args: &DiffArgs) -> Outcome<u8> {
    let (reference, path) = split_path(args.before.as_bytes());
    let options = options(session, args, path);
    let repo = session.open_repo()?;
    let (state, snapshots) = session.snapshots(&repo)?;
    let before = session.resolve(&snapshots, reference)?;
    match &args.after {
        Some(after) => {
            let (reference, path) = split_path(after.as_bytes());
            if path.is_some() {
                let message = "a path stands behind the first snapshot, and is meant of both";
                return Err(Failure::usage(message).hint("statekeep diff REF:PATH REF2"));
            }
            let after = session.resolve(&snapshots, reference)?;
            refuse_others(before, after)?;
            let chunks = Chunks::open(&repo, &state.packs)?;
            let end = compare(session, &chunks, before, After::Snapshot(after), &options);
            chunks.save_index();
            end
        }
        None => {
            let live = LiveOptions {
                root: root(session, &before.manifest)?,
                host: environment::host_name(),
                temp_dir: session.environment.temp_dir.clone(),
            };
            let live = Live::read(&context(session), &repo, &state, &before.manifest, &live)?;
            let chunks = live.chunks()?;
            compare(session, &chunks, before, After::Live(&live), &options)
        }
    }
}

/// Programs get one document and nothing beside it.
fn context(session: &Session) -> Context {
    match session.output.is_json() {
        true => Context {
            progress: Context::new().progress,
            ..session.cx.clone()
        },
        false => session.cx.clone(),
    }
}

/// What a snapshot is compared with.
#[derive(Clone, Copy)]
enum After<'a> {
    Snapshot(&'a Snapshot),
    Live(&'a Live),
}

impl<'a> After<'a> {
    fn manifest(self) -> &'a Manifest {
        match self {
            After::Snapshot(snapshot) => &snapshot.manifest,
            After::Live(live) => &live.manifest,
        }
    }
}

fn options(session: &Session, args: &DiffArgs, path: Option<&[u8]>) -> DiffOptions {
    let paths = args.paths.iter().map(|path| trimmed(path.as_bytes()));
    let mut paths: Vec<Vec<u8>> = paths.collect();
    paths.extend(path.map(<[u8]>::to_vec));
    // Whoever names the root means everything.
    if paths.iter().any(Vec::is_empty) {
        paths.clear();
    }
    DiffOptions {
        paths,
        only: args.only.clone(),
        rows_max: usize::from(args.rows),
        temp_dir: session.environment.temp_dir.clone(),
    }
}

/// Shells complete paths to `./config/`.
fn trimmed(path: &[u8]) -> Vec<u8> {
    let path = path.strip_prefix(b"./").unwrap_or(path);
    let path = if path == b"." { b"" } else { path };
    let start = path
        .iter()
        .position(|&byte| byte != b'/')
        .unwrap_or(path.len());
    let end = path
        .iter()
        .rposition(|&byte| byte != b'/')
        .map_or(start, |at| at + 1);
    path[start..end].to_vec()
}

/// Returns where what a snapshot was made of is now.
fn root(session: &Session, manifest: &Manifest) -> Outcome<PathBuf> {
    Ok(match in_place::profile_of(session, manifest)? {
        Some(profile) => profile.root.clone(),
        None => PathBuf::from(OsString::from(OsStr::from_bytes(&manifest.root_path))),
    })
}

/// Paths of two applications have nothing to do with each other.
fn refuse_others(before: &Snapshot, after: &Snapshot) -> Outcome<()> {
    let (old, new) = (&before.manifest, &after.manifest);
    let is_alike = match (&old.profile[..], &new.profile[..]) {
        ("", "") => old.root_path == new.root_path,
        (old, new) => old == new,
    };
    if is_alike {
        return Ok(());
    }
    let name = |manifest: &Manifest| match manifest.profile.is_empty() {
        true => String::from_utf8_lossy(&manifest.root_path).into_owned(),
        false => manifest.profile.clone(),
    };
    let message = format!(
        "{} is of {}, and {} of {}: they have nothing in common",
        before.id.short(),
        name(old),
        after.id.short(),
        name(new)
    );
    Err(Failure::usage(message).hint("-p NAME says which application is meant"))
}

fn compare(
    session: &Session,
    chunks: &Chunks<'_>,
    before: &Snapshot,
    after: After<'_>,
    options: &DiffOptions,
) -> Outcome<u8> {
    let warnings = match after {
        After::Snapshot(_) => &[][..],
        After::Live(live) => &live.warnings[..],
    };
    let output = &session.output;
    let old = &before.manifest;
    let report = match output.is_json() {
        true => json::write(session, before, after, warnings, &mut |visit| {
            diff::diff(&session.cx, chunks, old, after.manifest(), options, visit)
        })?,
        false => {
            // Before anything is told: a difference may be nothing but what could not be read.
            for problem in warnings {
                let (path, message) = (&problem.path, &problem.message);
                session.reporter.warn(problem.code, path, message);
            }
            session.reporter.finish();
            let mut lines = lines::Lines::new(output, session.global.verbose);
            let report = diff::diff(
                &session.cx,
                chunks,
                old,
                after.manifest(),
                options,
                &mut |difference| lines.difference(difference),
            )?;
            lines.finish(&report)?;
            report
        }
    };
    Ok(match report.differences() {
        0 => DONE,
        _ => DIFFERENT,
    })
}
