//! Logs beside SQLite databases: `-wal`, `-journal`, and `-shm`.
//!
//! A snapshot holds a database that was captured through its engine without them: everything is in
//! the one file. Those in the target belong to what was there before, and SQLite would replay them
//! into the restored database at the next opening, which destroys it. So none may stay beside it.
//! A database that was captured as plain files has its logs as entries of their own.

use crate::disk::jail::Jail;
use crate::error::Error;
use crate::error::Result;
use crate::format::list::StreamKind;
use crate::format::tree::Content;
use crate::format::tree::Kind;
use crate::format::tree::TreeRoot;
use crate::ops::inspect;
use crate::ops::restore::Replace;
use crate::ops::restore::run;
use crate::ops::restore::run::Run;
use crate::ops::restore::select::Only;
use crate::ops::restore::target::Target;
use crate::repo::chunks::Chunks;
use crate::repo::chunks::Scratch;
use crate::safeguard::Safeguard;

const SUFFIXES: [&[u8]; 3] = [b"-wal", b"-journal", b"-shm"];

/// A log that must not stay.
pub(super) struct Stale {
    pub path: Vec<u8>,
    pub bytes: u64,
}

/// Returns whether a file is a database that has all it needs in itself. Size and time say nothing
/// about one in the target: commits in a log changed neither, and a capture has them in the file.
pub(super) fn is_database(kind: &Kind) -> bool {
    let Kind::File {
        content: Content::Stream(stream),
        ..
    } = kind
    else {
        return false;
    };
    stream.kind == StreamKind::Sqlite
}

/// Returns the logs in the target that would be replayed into the database at this path. What is
/// restored itself is none of them.
pub(super) fn stale(
    chunks: &Chunks<'_>,
    root: &TreeRoot,
    only: &Only,
    target: &Target,
    database: &[u8],
) -> Result<Vec<Stale>> {
    let mut found = Vec::new();
    for suffix in SUFFIXES {
        let path = [database, suffix].concat();
        let Some(stat) = target.stat(&path)?.filter(|stat| !stat.is_dir()) else {
            continue;
        };
        let is_restored = match inspect::find_in(chunks, &mut Scratch::default(), root, &path) {
            Ok(Some((at, index))) => only.wants(&path, &at.leaf.entries[index].kind),
            Ok(None) => false,
            Err(error) if run::is_fatal(&error) => return Err(error),
            // What cannot be read is not restored.
            Err(_) => false,
        };
        if !is_restored && Safeguard::StaleLogsGo.holds() {
            let bytes = stat.size_bytes;
            found.push(Stale { path, bytes });
        }
    }
    Ok(found)
}

/// Logs that have other names until the database they do not belong to has its own. Dropped, they
/// get theirs back.
#[must_use]
pub(super) struct SetAside<'r> {
    jail: &'r Jail,
    /// The names they had and have.
    moved: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Sets the logs beside a database aside. To be called before the database gets its name.
pub(super) fn set_aside<'r>(run: &Run<'r>, database: &[u8]) -> Result<SetAside<'r>> {
    let mut aside = SetAside {
        jail: &run.target.jail,
        moved: Vec::new(),
    };
    for stale in stale(run.chunks, run.root, run.only, run.target, database)? {
        if run.options.replace == Replace::Never {
            let log = String::from_utf8_lossy(&stale.path);
            let reason = format!("\"{log}\" would be replayed into the restored database");
            return Err(Error::Refused { reason });
        }
        // Order: logs lose their names before the database gets its own. A crash in between leaves
        // what was there, whose log a person can rename back; the reverse would leave the restored
        // database beside a log of another one, and destroy it at the next opening. Nothing is
        // synced in between: content is not durable before the end of the restore either (I6).
        let now = aside.jail.set_aside(&stale.path)?;
        aside.moved.push((stale.path, now));
    }
    Ok(aside)
}

impl SetAside<'_> {
    /// Removes the logs, once the database has its name.
    pub(super) fn discard(mut self) -> Result<()> {
        let moved = std::mem::take(&mut self.moved);
        let mut removed = moved.iter().map(|(_, now)| self.jail.remove(now));
        removed.try_for_each(|removed| removed)
    }
}

impl Drop for SetAside<'_> {
    fn drop(&mut self) {
        for (before, now) in &self.moved {
            // If that fails the new name tells what it is.
            let _ = self.jail.rename(now, before);
        }
    }
}
