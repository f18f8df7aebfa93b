//! The databases of a source: found, held together at one instant, read, before any file is.
//!
//! ```text
//! known from the parent, or found ─┬─ unchanged: the parent's stream and record
//!                                  ├─ pinned together, read: a stream and a record
//!                                  └─ refused by its engine: a plain file, and said
//! ```
//! The scan then takes what was captured where it comes to the path, and passes by the logs.

mod capture;
mod facts;
mod find;
mod gate;
mod group;
mod names;
mod open;
mod read_redb;
mod read_sled;
mod read_sqlite;

pub(in crate::ops) use find::Finder;
pub(in crate::ops) use find::Sniffed;
pub(super) use find::is_database;

use crate::context::Context;
use crate::context::Timestamp;
use crate::error::Result;
use crate::format::database;
use crate::format::database::DatabaseRecord;
use crate::format::database::Engine;
use crate::format::list::Stream;
use crate::format::list::StreamKind;
use crate::format::manifest::Manifest;
use crate::format::pack::ChunkKind;
use crate::format::tree::TreeRoot;
use crate::id::ChunkId;
use crate::ops::backup::BackupOptions;
use crate::ops::backup::Priority;
use crate::ops::backup::Totals;
use crate::ops::backup::databases::capture::Capture;
use crate::ops::backup::databases::gate::Gate;
use crate::ops::backup::databases::read_sled::Directories;
use crate::ops::backup::pool::Pool;
use crate::ops::backup::predecessors::Predecessors;
use crate::ops::backup::source::Source;
use crate::ops::inspect;
use crate::repo::chunks::Chunks;
use crate::source::files::Problem;
use crate::source::files::Stat;
use crate::source::files::Xattrs;
use crate::source::private::COPY_PREFIX;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;

/// Files beside a SQLite database that are part of it.
const SIDECARS: [&str; 3] = ["-wal", "-shm", "-journal"];
/// SQLite's name of a journal of journals ends with `-mj` and nine hexadecimal digits.
const SUPER_JOURNAL_CHARS: usize = 12;
/// What waits on the local disk at most, however much room there is.
const SPOOL_BYTES_MAX: u64 = 64 << 30;
/// Of what is free there, so much is left to others.
const FREE_SHARE: u64 = 2;

/// What storing a database works with.
pub(super) struct Io<'s, 'a> {
    pub cx: &'s Context,
    pub pool: &'s mut Pool,
    pub totals: &'s mut Totals,
    pub chunks: &'a Chunks<'a>,
    pub cut_key: &'a [u8; 32],
    /// Where temporary files may be, and how much of them.
    pub room: &'s Path,
    pub spool_bytes_max: u64,
    /// How fast what is read is stored.
    pub priority: Priority,
}

impl<'s, 'a> Io<'s, 'a> {
    pub(super) fn new(
        cx: &'s Context,
        pool: &'s mut Pool,
        totals: &'s mut Totals,
        chunks: &'a Chunks<'a>,
        cut_key: &'a [u8; 32],
        room: &'s Path,
        priority: Priority,
    ) -> Io<'s, 'a> {
        Io {
            cx,
            pool,
            totals,
            chunks,
            cut_key,
            room,
            spool_bytes_max: spool_bytes(room),
            priority,
        }
    }

    fn predecessors(&self, old: Option<(Stream, u64)>) -> Predecessors<'a> {
        match old {
            Some((stream, size_bytes)) => Predecessors::of(self.chunks, &stream, size_bytes),
            None => Predecessors::none(),
        }
    }
}

/// What the capture starts from.
#[derive(Clone, Copy)]
pub(super) struct Before<'s> {
    pub options: &'s BackupOptions,
    pub source: &'s Source,
    pub parent: Option<&'s Manifest>,
    /// Whether files that look as they did can be taken for unchanged.
    pub gate_path: Option<&'s Path>,
    /// Whether to look for databases that the parent does not know.
    pub look: Look,
}

/// Where databases are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Look {
    /// Where the parent had them. The scan notices others.
    AtKnown,
    /// In the whole source.
    Everywhere,
    /// In the whole source, and not again.
    Finally,
}

impl Look {
    /// Returns where to look after the scan met one that was not captured.
    pub(super) fn again(self) -> Look {
        match self {
            Look::AtKnown => Look::Everywhere,
            Look::Everywhere | Look::Finally => Look::Finally,
        }
    }

    /// Returns what is to be done about one that only the scan notices.
    pub(super) fn unknown(self) -> Unknown {
        match self {
            Look::AtKnown | Look::Everywhere => Unknown::LookAgain,
            Look::Finally => Unknown::CopyPlainly,
        }
    }
}

/// What to do about a database that only the scan notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unknown {
    /// Begin again, looking everywhere.
    LookAgain,
    /// They keep coming, or the engines would not know them: copy them, and say so.
    CopyPlainly,
}

/// A database that was captured.
#[derive(Clone)]
pub(super) struct Captured {
    pub stat: Stat,
    pub stream: Stream,
    pub size_bytes: u64,
    /// If they were captured too.
    pub xattrs: Option<Xattrs>,
    /// Whether a file that looks like this is this one: the next backup need not look closer.
    pub is_settled: bool,
}

/// What the scan has to know, and what is kept for the next backup.
#[derive(Default)]
pub(super) struct Databases {
    captured: BTreeMap<Vec<u8>, Captured>,
    hidden: BTreeSet<Vec<u8>>,
    plain: BTreeSet<Vec<u8>>,
    records: BTreeMap<Vec<u8>, DatabaseRecord>,
    gate: Gate,
    directories: Directories,
    /// The chunk of the records.
    pub records_id: Option<ChunkId>,
}

impl Databases {
    /// Takes what was captured at this path.
    pub(super) fn take(&mut self, path: &[u8]) -> Option<Captured> {
        self.captured.remove(path)
    }

    /// Whether something here was recognised as a database, however it is stored.
    pub(super) fn is_known(&self, path: &[u8]) -> bool {
        self.records.contains_key(path) || self.plain.contains(path)
    }

    /// Whether this is part of a database that was captured, and no file.
    pub(super) fn hides(&self, path: &[u8]) -> bool {
        self.hidden.contains(path) || self.directories.hides(path) || self.hides_super_journal(path)
    }

    /// A transaction over several databases has a journal of journals, which comes and goes while
    /// the application works. What it is needed for was done when the database was captured.
    fn hides_super_journal(&self, path: &[u8]) -> bool {
        let Some((database, end)) = path.split_last_chunk::<SUPER_JOURNAL_CHARS>() else {
            return false;
        };
        let is_number = |digit: &u8| digit.is_ascii_digit() || (b'A'..=b'F').contains(digit);
        end.starts_with(b"-mj")
            && end[3..].iter().all(is_number)
            && self.hidden.contains(&[database, b"-journal"].concat())
    }

    /// Whether this is a file of a database of several files that is taken for unchanged.
    pub(super) fn is_idle_part(&self, path: &[u8]) -> bool {
        self.directories.is_idle(path)
    }

    /// Tells that the scan came to a directory.
    pub(super) fn enter(&mut self, dir: &[u8]) {
        self.directories.enter(dir);
    }

    /// Returns the next file of a database of several files that stands before this path, or the
    /// next at all. What is there now does not count.
    pub(super) fn next_part(&mut self, before: Option<&[u8]>) -> Option<(Vec<u8>, Captured)> {
        self.directories.next(before)
    }

    /// Whether this is a database that has to be copied as a plain file.
    pub(super) fn is_plain(&self, path: &[u8]) -> bool {
        self.plain.contains(path)
    }

    /// Returns what a file that is copied plainly is: beside a SQLite database no log of another
    /// state may be left when it is restored, whatever its own logs are.
    pub(super) fn kind_of_plain(&self, path: &[u8]) -> StreamKind {
        match self.records.get(path) {
            Some(record) if record.engine == Engine::Sqlite => StreamKind::Sqlite,
            _ => StreamKind::File,
        }
    }

    /// Keeps what the databases looked like for the next backup.
    pub(super) fn remember(&self, path: &Path, tree: &TreeRoot, looked_at: Timestamp) {
        let _ = self.gate.write(path, tree, looked_at);
    }

    /// Returns what is known of all databases in the source.
    pub(super) fn into_records(self) -> Vec<DatabaseRecord> {
        self.records.into_values().collect()
    }

    /// Sees to what was captured and not met by the scan: it went meanwhile, or other things are
    /// backed up than last time.
    pub(super) fn end_scan(&self, totals: &mut Totals, look: Look) {
        let missed = self.captured.keys();
        match look.unknown() {
            Unknown::LookAgain => totals.found_database |= missed.len() > 0,
            Unknown::CopyPlainly => totals.warnings.extend(missed.map(|path| Problem {
                path: path.clone(),
                code: "gone",
                message: "went away after it was captured; left out".to_string(),
            })),
        }
    }

    fn forget(&mut self, path: &[u8]) {
        self.captured.remove(path);
        self.records.remove(path);
        self.gate.remove(path);
        self.show_sidecars(path);
    }

    fn show_sidecars(&mut self, path: &[u8]) {
        for suffix in SIDECARS {
            self.hidden.remove(&[path, suffix.as_bytes()].concat());
        }
    }

    fn hide_sidecars(&mut self, path: &[u8], sidecars: &[&str]) {
        let names = sidecars
            .iter()
            .map(|suffix| [path, suffix.as_bytes()].concat());
        self.hidden.extend(names);
    }
}

/// Returns whether a directory is a sled database.
pub(super) fn is_sled(source: &Source, dir: &[u8]) -> bool {
    read_sled::find(source, dir).is_some()
}

/// Returns where a repository keeps temporary files.
pub(super) fn room(cache_dir: Option<&Path>) -> PathBuf {
    cache_dir.unwrap_or(Path::new("/var/tmp")).to_path_buf()
}

/// Removes the private copies of runs that were killed: nobody else would, and they hold data.
fn remove_leftovers(room: &Path) {
    for entry in std::fs::read_dir(room).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| {
            let (pid, number) = name.strip_prefix(COPY_PREFIX)?.split_once('-')?;
            let _: u32 = number.parse().ok()?;
            pid.parse::<u32>().ok()
        });
        let is_gone = |pid| !Path::new(&format!("/proc/{pid}")).exists();
        if pid.is_some_and(is_gone) {
            // A directory of somebody else stays; a symlink is not followed.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Returns how much may wait there.
fn spool_bytes(room: &Path) -> u64 {
    let free = rustix::fs::statvfs(room).map_or(0, |fs| fs.f_bavail.saturating_mul(fs.f_frsize));
    (free / FREE_SHARE).min(SPOOL_BYTES_MAX)
}

/// Captures all databases of the source.
pub(super) fn capture(io: &mut Io<'_, '_>, before: Before<'_>) -> Result<Databases> {
    remove_leftovers(io.room);
    let known = known(io, before.parent);
    let mut databases = Capture::begin(before, known).run(io)?;
    databases.records_id = store_records(io, &databases, before.parent)?;
    Ok(databases)
}

/// Returns the records of the parent. Without them everything is looked for again.
fn known(io: &Io<'_, '_>, parent: Option<&Manifest>) -> BTreeMap<Vec<u8>, DatabaseRecord> {
    let id = parent.and_then(|parent| parent.databases);
    let records = id.map(|id| inspect::databases_at(io.chunks, &id));
    let records = records.and_then(Result::ok).unwrap_or_default();
    records
        .into_iter()
        .map(|record| (record.path.clone(), record))
        .collect()
}

fn store_records(
    io: &mut Io<'_, '_>,
    databases: &Databases,
    parent: Option<&Manifest>,
) -> Result<Option<ChunkId>> {
    if databases.records.is_empty() {
        return Ok(None);
    }
    let records: Vec<DatabaseRecord> = databases.records.values().cloned().collect();
    let plain = database::encode(&records);
    let old = parent.and_then(|parent| parent.databases);
    let ticket = io.pool.submit_chunk(ChunkKind::Data, plain, old)?;
    let stored = io.pool.wait_chunk(ticket)?;
    io.totals.count_record(stored.stored_bytes);
    Ok(Some(stored.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_copies_of_dead_processes_are_removed() {
        let room = tempfile::tempdir().unwrap();
        let own = format!("{COPY_PREFIX}{}-0", std::process::id());
        let dead = format!("{COPY_PREFIX}4294967295-0");
        let others = ["sqlite-4294967295-1", "sled-4294967295-1", &own];
        let names = others.into_iter().chain([&dead[..]]);
        names.for_each(|name| std::fs::create_dir(room.path().join(name)).unwrap());

        remove_leftovers(room.path());

        assert!(others.iter().all(|name| room.path().join(name).is_dir()));
        assert!(!room.path().join(dead).exists());
    }

    #[test]
    fn a_journal_of_journals_is_part_of_a_captured_database_only() {
        let mut databases = Databases::default();
        databases.hide_sidecars(b"d/app.db", &SIDECARS);
        databases.hide_sidecars(b"d/plain.db", &["-shm"]);

        assert!(databases.hides(b"d/app.db-mj8EC315963"));
        for other in [
            &b"d/plain.db-mj8EC315963"[..],
            b"d/app.db-mj8EC31596",
            b"d/app.db-mj8ec315963",
            b"d/app.db-mj8EC3159630",
            b"app.db-mj8EC315963",
            b"-mj8EC315963",
        ] {
            assert!(!databases.hides(other), "{}", other.escape_ascii());
        }
    }

    #[test]
    fn what_was_forgotten_hides_nothing() {
        let mut databases = Databases::default();
        databases.hide_sidecars(b"app.db", &SIDECARS);

        databases.forget(b"app.db");

        assert!(!databases.hides(b"app.db-wal"));
    }
}
