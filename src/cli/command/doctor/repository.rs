//! A repository: reachable, writable, opened by a key that is kept well, undamaged, with room.

use crate::cli::command::DAMAGE;
use crate::cli::command::doctor::Finding;
use crate::cli::command::status;
use crate::cli::command::status::Place;
use crate::cli::command::status::lines::flag;
use crate::cli::command::status::lines::hint;
use crate::cli::credentials;
use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::cli::text;
use crate::config::Profile;
use crate::ops::doctor::clock;
use crate::ops::doctor::room;
use crate::ops::doctor::room::Room;
use crate::ops::doctor::secrets;
use crate::ops::doctor::secrets::Secret;
use crate::ops::in_place;
use crate::ops::snapshots::Snapshot;
use crate::ops::status::Problem;
use crate::ops::status::RepoStatus;
use crate::ops::status::SeriesStatus;
use crate::repo::Repo;
use crate::repo::reserve;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// So many of the newest backups tell how large the next one is.
const RECENT: usize = 20;

/// Tests a repository as far as it can be opened.
pub(super) fn look(session: &Session, place: &Place<'_>, findings: &mut Vec<Finding>) {
    let at = status::name_of(&place.target);
    let path = &place.target.path;
    writable(path, &at, findings);
    let repo = match session.open_target(&place.target) {
        Ok((repo, _)) => repo,
        Err(failure) => return findings.push(unopened(at, failure)),
    };
    keys(session, &repo, &at, findings);
    let snapshots = match session.snapshots(&repo) {
        Ok((state, snapshots)) => {
            let of_repo = status::of_repo(session, &repo, &state, &snapshots, &place.expected);
            judged(session, &of_repo, &place.expected, &at, findings);
            snapshots
        }
        Err(failure) => {
            let finding = Finding::failed("log", at, failure);
            return findings.push(finding.because("what is stored is known from the log"));
        }
    };
    clock(session, &snapshots, &at, findings);
    free_room(path, &repo, &snapshots, &at, findings);
}

fn unopened(at: String, failure: Failure) -> Finding {
    let (check, why) = match failure.exit {
        18 => (
            "version",
            "a newer program wrote it; this one would misread it",
        ),
        12 => ("key", "nothing can be backed up or restored without a key"),
        DAMAGE => ("repository", "it is not what it was"),
        _ => ("repository", "nothing can be backed up or restored"),
    };
    Finding::failed(check, at, failure).because(why)
}

fn writable(path: &Path, at: &str, findings: &mut Vec<Finding>) {
    if !path.is_dir() {
        return;
    }
    let quoted = text::quote(path.as_os_str());
    let folders = ["", "packs", "log"].map(|name| path.join(name));
    if folders.iter().all(|dir| room::is_writable(dir)) {
        return findings.push(Finding::ok("writable", at, "this user may write there"));
    }
    let message = "this user may read it and not write to it, or its disk is read-only";
    let finding =
        Finding::problem("writable", at, message, 1).because("restores work, and backups do not");
    findings.push(finding.hint(format!("ls -ld {quoted} {quoted}/*")));
}

fn keys(session: &Session, repo: &Repo, at: &str, findings: &mut Vec<Finding>) {
    let id = repo.id();
    let message = format!("repository {} opens", id.short());
    findings.push(Finding::ok("key", at, message));
    if repo.config().public_secret.is_some() {
        let finding = Finding::warning("encryption", at, "it is not encrypted");
        return findings.push(finding.because("whoever can read it can read every backup in it"));
    }
    let Some(key_file) = credentials::key_file_path(&session.environment, id) else {
        return;
    };
    let kit = session.environment.config_dir.as_ref();
    let kit = kit.map(|dir| dir.join(format!("{id}-recovery-kit.txt")));
    for (check, path) in [("key-file", Some(key_file)), ("recovery-kit", kit)] {
        let Some(path) = path else { continue };
        let (shown, quoted) = (path.display().to_string(), text::quote(path.as_os_str()));
        match secrets::look(&path) {
            Secret::Fine if check == "recovery-kit" => findings.push(
                Finding::warning(check, shown, "the recovery kit is still on this machine")
                    .because("if this disk is lost, so is the kit: keep a copy elsewhere")
                    .hint(format!("cp {quoted} /media/STICK/")),
            ),
            Secret::Fine => findings.push(Finding::ok(check, shown, "only its owner reads it")),
            Secret::Exposed(mode) => findings.push(
                Finding::warning(
                    check,
                    shown,
                    format!("others may read it (mode {mode:03o})"),
                )
                .because("whoever has it can read every backup")
                .hint(format!("chmod 600 {quoted}")),
            ),
            // Moved away is where a kit belongs; a key file may be another one.
            Secret::Missing => {}
            Secret::Unreadable => findings.push(
                Finding::warning(check, shown, "this user may not read it")
                    .hint(format!("ls -l {quoted}")),
            ),
        }
    }
}

/// What `status` finds and time does not mend.
fn judged(
    session: &Session,
    status: &RepoStatus,
    expected: &[&Profile],
    at: &str,
    findings: &mut Vec<Finding>,
) {
    const LOST: &str = "what is lost cannot be restored, and what is there must be known";
    let before = findings.len();
    if status.has_damage() {
        let finding = Finding::problem("damage", at, status.damage_words(), DAMAGE);
        let hint = session.command_hint("check --read-data");
        findings.push(finding.because(LOST).hint(hint));
    }
    let now = session.cx.clock.now();
    for one in &status.series {
        let name = crate::ops::status::label(&one.name);
        for problem in one.problems.iter().filter(|_| one.is_judged) {
            let words = problem.words(one, now, &session.zone);
            let flag = flag(one);
            findings.push(match problem {
                Problem::Damaged(..) => Finding::problem("damage", &name, words, DAMAGE)
                    .because(LOST)
                    .hint(session.command_hint("check --read-data")),
                Problem::DrillFailed(_) => Finding::problem("drill", &name, words, DAMAGE)
                    .because("a backup that does not restore is none")
                    .hint(session.command_hint(&format!("drill{flag}"))),
                Problem::Unfinished => Finding::problem("unfinished", &name, words, 1)
                    .because("what is there is neither the old state nor the new one")
                    .hint(restore_again(session, one, expected)),
                _ => {
                    let next = hint(session, one, problem);
                    let next = next.unwrap_or_else(|| session.command_hint("status"));
                    Finding::warning("backup", &name, words).hint(next)
                }
            });
        }
        if one.guard.is_some() {
            let hint = session.command_hint(&format!("guard status{}", flag(one)));
            let message = "the way back of a migration is held";
            findings.push(Finding::ok("guard", name, message).hint(hint));
        }
    }
    if findings.len() == before {
        let snapshots = text::count(status.snapshots, "snapshot", "snapshots");
        let packs = text::count(status.packs, "pack", "packs");
        let message = format!("its log reads: {snapshots} in {packs}, no damage is known");
        findings.push(Finding::ok("log", at, message));
    }
}

/// The same restore again finishes one that was interrupted.
fn restore_again(session: &Session, one: &SeriesStatus, expected: &[&Profile]) -> String {
    let profile = expected.iter().find(|each| each.name == one.name.profile);
    let root = profile.map_or(
        Path::new(OsStr::from_bytes(&one.name.root_path)),
        |profile| profile.root.as_path(),
    );
    let snapshot = in_place::unfinished(root).ok().flatten();
    let reference = snapshot.map_or("latest".to_string(), |id| id.short());
    session.command_hint(&format!("restore {reference} --in-place{}", flag(one)))
}

fn clock(session: &Session, snapshots: &[Snapshot], at: &str, findings: &mut Vec<Finding>) {
    let Some(ahead) = clock::ahead(snapshots, session.cx.clock.now()) else {
        return;
    };
    let message = format!(
        "{} dated after now, the latest {} at {}",
        text::count(ahead.count, "snapshot is", "snapshots are"),
        ahead.snapshot.short(),
        text::local_with_zone(ahead.at, &session.zone)
    );
    let finding = Finding::warning("clock", at, message)
        .because("the clock is behind now or was ahead then: ages and retention go by it");
    findings.push(finding.hint("timedatectl"));
}

fn free_room(
    path: &Path,
    repo: &Repo,
    snapshots: &[Snapshot],
    at: &str,
    findings: &mut Vec<Finding>,
) {
    const CHECK: &str = "room";
    let quoted = text::quote(path.as_os_str());
    let recent = snapshots.iter().rev().take(RECENT);
    let largest = recent.map(|one| one.manifest.figures.stored_bytes).max();
    let free = match room::free_bytes(path) {
        Ok(free) => free,
        Err(error) => return findings.push(Finding::warning(CHECK, at, error.to_string())),
    };
    let largest = largest.unwrap_or(0);
    let message = format!(
        "{} are free; the largest of the last backups stored {}",
        text::size(free),
        text::size(largest)
    );
    let hint = format!("df -h {quoted}");
    findings.push(match room::judge(free, largest) {
        Room::Enough => Finding::ok(CHECK, at, message),
        Room::Little => Finding::warning(CHECK, at, message)
            .because("soon there is no room for a backup")
            .hint(hint),
        Room::None => Finding::problem(CHECK, at, message, 16)
            .because("the next backup may not fit")
            .hint(hint),
    });
    if let Ok(false) = reserve::is_there(repo.store()) {
        findings.push(
            Finding::warning("reserve", at, "the megabyte kept for a full disk is gone")
                .because("on a full disk nothing can be removed without it; a prune makes it again")
                .hint(format!("statekeep -r {quoted} gc")),
        );
    }
}
