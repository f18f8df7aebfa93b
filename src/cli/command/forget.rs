//! `forget`: removes snapshots by name.

use crate::cli::args::ForgetArgs;
use crate::cli::command::DONE;
use crate::cli::command::prune::no_space_hint;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::json;
use crate::cli::session::Session;
use crate::cli::terminal::Terminal;
use crate::cli::text;
use crate::id::RepoId;
use crate::id::SnapshotId;
use crate::ops::keep;
use crate::ops::prune;
use crate::ops::snapshots::Snapshot;
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Serialize)]
struct Summary {
    op: &'static str,
    status: &'static str,
    dry_run: bool,
    removed: Vec<String>,
    kept: u64,
    exit: u8,
}

/// Removes snapshots.
pub(super) fn run(session: &Session, args: &ForgetArgs) -> Outcome<u8> {
    session.start("forget")?;
    let repo = session.open_repo()?;
    let (_, snapshots) = session.snapshots(&repo)?;
    let mut named: BTreeMap<SnapshotId, &Snapshot> = BTreeMap::new();
    for reference in &args.references {
        let snapshot = session.resolve(&snapshots, reference.as_bytes())?;
        named.insert(snapshot.id, snapshot);
    }
    let now = session.cx.clock.now();
    if let Some(held) = named.values().find(|one| keep::is_held(one, now)) {
        let message = format!("snapshot {} is held", held.id.short());
        let release = format!("hold --release {}", held.id.short());
        return Err(Failure::new("refused", 2, message).hint(session.command_hint(&release)));
    }
    let (output, kept) = (&session.output, snapshots.len() - named.len());
    if !(output.is_json() || output.is_quiet && session.global.yes) {
        for snapshot in named.values() {
            let created = text::local_with_zone(snapshot.manifest.started_at, &session.zone);
            output.line(format!("GO  {}  {created}", snapshot.id.short()))?;
        }
        let count = text::count(named.len() as u64, "snapshot", "snapshots");
        output.line(format!("{count} of {}, {kept} kept", snapshots.len()))?;
    }
    let mut summary = Summary {
        op: "forget",
        status: "ok",
        dry_run: session.global.dry_run,
        removed: named.keys().map(SnapshotId::to_string).collect(),
        kept: kept as u64,
        exit: DONE,
    };
    if session.global.dry_run {
        match output.is_json() {
            true => output.json(&json::document("summary", summary))?,
            false => output.line("Nothing was changed (dry run).")?,
        }
        return Ok(DONE);
    }
    match kept {
        0 => confirm_nothing_left(session, args, repo.id())?,
        _ => session.confirm("Remove them?")?,
    }
    let ids = named.into_keys().collect();
    let state = prune::forget(&session.cx, &repo, &ids);
    let state = state.map_err(|error| no_space_hint(session, error))?;
    summary.kept = state.snapshots.len() as u64;
    if output.is_json() {
        output.json(&json::document("summary", summary))?;
        return Ok(DONE);
    }
    if !output.is_quiet {
        let count = text::count(ids.len() as u64, "snapshot", "snapshots");
        output.line(format!("Removed {count}; their space is still taken"))?;
        output.remark(format!("  give it back: {}", session.command_hint("gc")));
    }
    Ok(DONE)
}

/// What leaves nothing takes more than a yes.
fn confirm_nothing_left(session: &Session, args: &ForgetArgs, repo: RepoId) -> Outcome<()> {
    let message = "no snapshot would be left, so the id of the repository is needed";
    let needed = || {
        let option = format!("--leave-nothing {repo}");
        session.confirmation_needed(&format!("{message}; nothing was changed"), &option)
    };
    let is_repo = |id: &str| id == repo.to_string() || id == repo.short();
    match &args.leave_nothing {
        Some(id) if is_repo(id) => return Ok(()),
        Some(id) => {
            let message = format!("{id} is not the id of this repository");
            return Err(Failure::new("refused", 2, message).hint(session.command_hint("repo info")));
        }
        None => {}
    }
    let terminal = match session.output.is_json() {
        true => None,
        false => Terminal::open(),
    };
    let terminal = terminal.ok_or_else(needed)?;
    session.output.flush()?;
    let question = format!("No snapshot would be left. Id of the repository ({repo}): ");
    match is_repo(&terminal.ask_word(&session.cx, &question)?) {
        true => Ok(()),
        false => Err(needed()),
    }
}
