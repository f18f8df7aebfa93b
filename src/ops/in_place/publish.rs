//! Gives staged files their names, and takes that back if it fails.
//!
//! Each file changes hands by one rename over the old one, which keeps a second name until all is
//! done. So a name has the old file or the new one at any time, and a database is one of the two
//! as a whole: what lay in its log was merged into it before (`source::sqlite::merge_log`).
//! Everything may be done again after a crash: what has its name is left alone.

use crate::disk::beneath;
use crate::disk::jail::Jail;
use crate::disk::jail::Replace;
use crate::disk::node::Stat;
use crate::error::Error;
use crate::error::Result;
use crate::ops::in_place::journal::Journal;
use crate::ops::in_place::journal::NEW;
use crate::ops::in_place::journal::OLD;
use crate::ops::in_place::journal::Phase;
use crate::ops::in_place::journal::Stage;
use crate::ops::in_place::journal::Staged;
use crate::safeguard::Safeguard;

/// Does what the journal says, or what is left of it.
pub(super) fn publish(jail: &Jail, journal: &Journal) -> Result<()> {
    for log in &journal.logs {
        set_aside(jail, &log.0)?;
    }
    if !journal.logs.is_empty() && Safeguard::LogsGoneSync.holds() {
        // Order: a log is gone for good before a database comes that it would be replayed into.
        jail.sync()?;
    }
    for path in &journal.removes {
        // Directories go at the end, when nothing has to be taken back any more.
        if exists(jail, &path.0)?.is_some_and(|stat| !stat.is_dir()) {
            set_aside(jail, &path.0)?;
        }
    }
    for Staged { path, .. } in &journal.files {
        let staged = below(NEW, &path.0);
        if jail.stat(&staged)?.is_none() {
            // It has its name since an earlier run.
            continue;
        }
        make_parents(jail, &path.0)?;
        match exists(jail, &path.0)? {
            // Only an empty one can be there: others are in the way before anything begins.
            Some(stat) if stat.is_dir() => jail.remove(&path.0)?,
            Some(_) if Safeguard::ReplacedKept.holds() => {
                let kept = below(OLD, &path.0);
                make_parents(jail, &kept)?;
                jail.keep(&path.0, &kept)?;
            }
            Some(_) | None => {}
        }
        jail.move_over(&staged, &path.0)?;
    }
    match Safeguard::PublishedSync.holds() {
        true => jail.sync(),
        false => Ok(()),
    }
}

/// Removes the directories of the journal that have become empty.
pub(super) fn remove_dirs(jail: &Jail, journal: &Journal) -> Result<()> {
    for path in &journal.removes {
        if exists(jail, &path.0)?.is_some_and(|stat| stat.is_dir()) {
            match jail.remove(&path.0) {
                // Something that stays is in it.
                Err(Error::Refused { .. }) => {}
                removed => removed?,
            }
        }
    }
    Ok(())
}

/// Gives every name back to what had it. The journal says so first: after a crash in here the
/// staged files are no longer all there.
pub(super) fn take_back(jail: &Jail, stage: &Stage, journal: &mut Journal) -> Result<()> {
    journal.phase = Phase::TakingBack;
    stage.write(journal)?;
    for Staged { path, is_new } in journal.files.iter().rev() {
        let is_staged = jail.stat(&below(NEW, &path.0))?.is_some();
        match is_new {
            false => give_back(jail, &path.0)?,
            true if is_staged => {}
            true => jail.remove(&path.0)?,
        }
    }
    for path in journal.removes.iter().rev() {
        give_back(jail, &path.0)?;
    }
    // Order: the databases are the old ones again before their logs come back.
    if Safeguard::TakenBackSync.holds() {
        jail.sync()?;
    }
    for log in &journal.logs {
        give_back(jail, &log.0)?;
    }
    match Safeguard::TakenBackLogsSync.holds() {
        true => jail.sync(),
        false => Ok(()),
    }
}

fn give_back(jail: &Jail, path: &[u8]) -> Result<()> {
    let kept = below(OLD, path);
    match exists(jail, &kept)? {
        // It was made for what is kept in it. The directory itself never went: in its place, this
        // one would have neither its mode nor its owner.
        Some(stat) if stat.is_dir() => Ok(()),
        Some(_) => jail.move_over(&kept, path),
        None => Ok(()),
    }
}

/// Moves a node away under the same path below `OLD`, if it is there.
fn set_aside(jail: &Jail, path: &[u8]) -> Result<()> {
    if exists(jail, path)?.is_none() {
        return Ok(());
    }
    let kept = below(OLD, path);
    make_parents(jail, &kept)?;
    jail.move_over(path, &kept)
}

/// Returns what has a name. Below something that is no directory there is nothing.
fn exists(jail: &Jail, path: &[u8]) -> Result<Option<Stat>> {
    match jail.stat(path) {
        Err(Error::Refused { .. }) => Ok(None),
        stat => stat,
    }
}

fn make_parents(jail: &Jail, path: &[u8]) -> Result<()> {
    let (parent, _) = beneath::split(path);
    if exists(jail, parent)?.is_some_and(|stat| stat.is_dir()) {
        return Ok(());
    }
    let ends = (0..parent.len()).filter(|&end| parent[end] == b'/');
    for end in ends.chain([parent.len()]) {
        jail.make_dir(&parent[..end], Replace::Never)?;
    }
    Ok(())
}

fn below(dir: &[u8], path: &[u8]) -> Vec<u8> {
    [dir, b"/", path].concat()
}
