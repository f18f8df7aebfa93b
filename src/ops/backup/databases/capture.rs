//! One capture: what is to be done about each database, and doing it.

mod directories;

use crate::context::Timestamp;
use crate::error::Error;
use crate::error::Result;
use crate::format::database::DatabaseRecord;
use crate::format::database::Engine;
use crate::format::database::Method;
use crate::format::database::Verdict;
use crate::format::list::Stream;
use crate::format::tree::Content;
use crate::format::tree::Kind;
use crate::ops::backup::FreePages;
use crate::ops::backup::databases::Before;
use crate::ops::backup::databases::Captured;
use crate::ops::backup::databases::Databases;
use crate::ops::backup::databases::Io;
use crate::ops::backup::databases::Look;
use crate::ops::backup::databases::SIDECARS;
use crate::ops::backup::databases::facts;
use crate::ops::backup::databases::find::Finder;
use crate::ops::backup::databases::find::FoundPaths;
use crate::ops::backup::databases::find::Sniffed;
use crate::ops::backup::databases::gate::Gate;
use crate::ops::backup::databases::gate::Looks;
use crate::ops::backup::databases::group;
use crate::ops::backup::databases::group::Handle;
use crate::ops::backup::databases::group::Member;
use crate::ops::backup::databases::group::Pinned;
use crate::ops::backup::databases::group::Refusal;
use crate::ops::backup::databases::names;
use crate::ops::backup::databases::names::Due;
use crate::ops::backup::databases::open;
use crate::ops::backup::databases::read_redb;
use crate::ops::backup::databases::read_sled;
use crate::ops::backup::databases::read_sqlite;
use crate::ops::inspect;
use crate::repo::chunks::Scratch;
use crate::safeguard::Safeguard;
use crate::source;
use crate::source::files::Problem;
use std::collections::BTreeMap;

/// A capture on its way.
pub(super) struct Capture<'s> {
    before: Before<'s>,
    known: BTreeMap<Vec<u8>, DatabaseRecord>,
    gate: Gate,
    finder: Finder<'s>,
    databases: Databases,
    idle: Vec<(Vec<u8>, Looks)>,
    members: Vec<Member>,
    /// When the others were pinned, if there are any.
    pinned_at: Option<Timestamp>,
    /// Other names of databases, each with the one it is captured under.
    twins: Vec<(Due, Vec<u8>)>,
}

impl<'s> Capture<'s> {
    pub(super) fn begin(
        before: Before<'s>,
        known: BTreeMap<Vec<u8>, DatabaseRecord>,
    ) -> Capture<'s> {
        Capture {
            before,
            known,
            gate: match (before.gate_path, before.parent) {
                (Some(path), Some(parent)) => Gate::read(path, &parent.tree),
                _ => Gate::default(),
            },
            finder: Finder::new(before.source, &before.options.holders),
            databases: Databases::default(),
            idle: Vec::new(),
            members: Vec::new(),
            pinned_at: None,
            twins: Vec::new(),
        }
    }

    pub(super) fn run(mut self, io: &mut Io<'_, '_>) -> Result<Databases> {
        let found = match self.before.look {
            Look::AtKnown => self.all_known(),
            Look::Everywhere | Look::Finally => self.finder.all(io.cx)?,
        };
        let copies = self.copy_sled(io, found.directories)?;
        let mut due = Vec::new();
        for path in found.files {
            due.extend(self.consider(io, path));
        }
        if due.iter().any(|due| due.sniffed == Sniffed::Sqlite) {
            source::sqlite::library_version_is_safe()
                .map_err(|reason| Error::Refused { reason })?;
        }
        // Of the names of one file the one with the logs is opened.
        due.sort_by_key(|due| names::rank(&self.before.source.tree, due));
        // Order: all are looked into before any is opened by its engine. Closing a descriptor
        // drops the locks of this process on the file, under whatever name it has them.
        for due in due {
            self.open(io, due);
        }
        self.pin_and_store(io)?;
        for copy in copies {
            self.store_sled(io, copy)?;
        }
        self.keep_twins(io);
        Ok(self.databases)
    }

    fn all_known(&self) -> FoundPaths {
        let wanted = self
            .known
            .keys()
            .filter(|path| self.before.source.wants(path));
        let is_directory = |path: &Vec<u8>| self.known[path].engine == Engine::Sled;
        let (directories, files): (Vec<_>, Vec<_>) = wanted.cloned().partition(is_directory);
        FoundPaths {
            files,
            directories: directories.into_iter().collect(),
        }
    }

    /// Takes what did not change, and returns what has to be captured.
    fn consider(&mut self, io: &mut Io<'_, '_>, path: Vec<u8>) -> Option<Due> {
        // What is not there, or cannot be read, is for the scan to report.
        let (looks, stat) = Looks::of(&self.before.source.tree, &path).ok()??;
        let record = self.known.get(&path).cloned();
        if let Some(record) = record.filter(|record| record.method != Method::PlainFiles)
            && self.gate.is_unchanged(&path, &looks)
            && let Some((stream, size_bytes)) = self.old(io, &path)
        {
            let captured = Captured {
                stat,
                stream,
                size_bytes,
                xattrs: None,
                is_settled: false,
            };
            warn_again(io, &record);
            self.idle.push((path.clone(), looks.clone()));
            self.keep(path, looks, captured, record);
            return None;
        }
        let sniffed = self.finder.sniff(&path, &stat).ok()?;
        (sniffed != Sniffed::Other).then_some(Due {
            path,
            looks,
            stat,
            sniffed,
        })
    }

    /// Opens a database, to be pinned with the others.
    fn open(&mut self, io: &mut Io<'_, '_>, due: Due) {
        let other = names::other(&self.members, &self.idle, &due);
        if let Some((name, is_like)) = &other
            && (*is_like || !due.looks.has_logs())
        {
            return self.twins.push((due, name.clone()));
        }
        if due.sniffed == Sniffed::Opaque {
            let why = "it looks like an encrypted database, which only its application can read";
            return self.copy_plainly(io, due.path, Engine::Sqlite, ("encrypted", why.to_string()));
        }
        let began = io.cx.clock.now();
        let mut due = due;
        match open::open(self.before.source, io, &mut due, other.is_some()) {
            Ok((handle, method)) => {
                // Order: after it was opened, for SQLite run by root touches the log then, and
                // before it is pinned, so that nothing can change unseen in between. A private
                // copy is as old as the first look.
                let again = Looks::of(&self.before.source.tree, &due.path);
                let (looks, stat) = match again {
                    Ok(Some((looks, stat)))
                        if method != Method::PrivateCopy && looks.is_same_file(&due.looks) =>
                    {
                        (looks, stat)
                    }
                    _ => (due.looks, due.stat),
                };
                self.members.push(Member {
                    path: due.path,
                    looks,
                    stat,
                    method,
                    handle,
                    holder: self.finder.holder(&stat),
                    pinned_at: None,
                    copied_at: (method == Method::PrivateCopy).then_some(began),
                });
            }
            Err(refusal) => self.refuse(io, due.path, &refusal),
        }
    }

    /// Enters what was captured under another name.
    fn keep_twins(&mut self, io: &mut Io<'_, '_>) {
        for (due, other) in std::mem::take(&mut self.twins) {
            let captured = self.databases.captured.get(&other).cloned();
            let record = self.databases.records.get(&other).cloned();
            let Due {
                path, looks, stat, ..
            } = due;
            let (Some(captured), Some(record)) = (captured, record) else {
                let why = "it could not be captured under its other name".to_string();
                self.copy_plainly(io, path, Engine::Sqlite, ("hard-link", why));
                continue;
            };
            let record = DatabaseRecord {
                path: path.clone(),
                ..record
            };
            self.keep(path, looks, Captured { stat, ..captured }, record);
        }
    }

    fn pin_and_store(&mut self, io: &mut Io<'_, '_>) -> Result<()> {
        let mut refused = Vec::new();
        let skew_us = loop {
            let tree = &self.before.source.tree;
            let (members, idle) = (&mut self.members, &self.idle);
            match group::pin(io.cx, tree, members, idle, io.spool_bytes_max, &mut refused)? {
                Pinned::Together { skew_us } => break skew_us,
                Pinned::Moved { path } => {
                    self.idle.retain(|(idle, _)| *idle != path);
                    self.databases.forget(&path);
                    let engine = self.known.get(&path).map(|record| record.engine);
                    let sniffed = match engine {
                        Some(Engine::Redb) => Sniffed::Redb,
                        _ => Sniffed::Sqlite,
                    };
                    if let Ok(Some((looks, stat))) = Looks::of(tree, &path) {
                        let due = Due {
                            path,
                            looks,
                            stat,
                            sniffed,
                        };
                        self.open(io, due);
                    }
                }
            }
        };
        let mut members = std::mem::take(&mut self.members);
        let pinned_at = io.cx.clock.now();
        let has_others = !members.is_empty() || !refused.is_empty() || !self.idle.is_empty();
        self.pinned_at = has_others.then_some(pinned_at);
        let copies = self.copy_refused(io, refused);
        // Whoever stalls its writers is read first.
        members.sort_by_key(|member| match &member.handle {
            Handle::Sqlite(database) => 1 + u8::from(database.facts().wal),
            Handle::Redb(_) => 3,
        });
        for member in members {
            self.store(io, member, skew_us)?;
        }
        // What was copied in the end belongs to a later instant than the rest.
        let late_us = io
            .cx
            .clock
            .now()
            .since_ns(pinned_at)
            .max(1000)
            .cast_unsigned()
            / 1000;
        for member in copies {
            self.store(io, member, late_us)?;
        }
        Ok(())
    }

    /// Copies what refused to be pinned and may be left alone for long enough.
    fn copy_refused(
        &mut self,
        io: &mut Io<'_, '_>,
        refused: Vec<(Member, Refusal)>,
    ) -> Vec<Member> {
        let mut copies = Vec::new();
        for (member, refusal) in refused {
            let Member {
                path,
                mut looks,
                mut stat,
                ..
            } = member;
            if refusal.is_changed()
                && let Ok(Some(now)) = Looks::of(&self.before.source.tree, &path)
            {
                (looks, stat) = now;
            }
            // Whoever keeps it locked may leave its files alone long enough to copy them.
            let copied = match refusal.is_busy() || refusal.is_changed() {
                true => open::copy_sqlite(self.before.source, io, &path, &stat),
                false => Err(refusal),
            };
            match copied {
                Ok((handle, method)) => copies.push(Member {
                    path,
                    looks,
                    stat,
                    method,
                    handle,
                    holder: None,
                    pinned_at: Some(io.cx.clock.now()),
                    copied_at: None,
                }),
                Err(refusal) => self.refuse(io, path, &refusal),
            }
        }
        copies
    }

    fn store(&mut self, io: &mut Io<'_, '_>, mut member: Member, skew_us: u64) -> Result<()> {
        let is_secret = self.before.source.is_secret(&member.path);
        let old = self.old(io, &member.path);
        // Secrets are never a prefix of other data, nor other data of them.
        let base = old.filter(|_| !is_secret);
        let mut record = DatabaseRecord {
            path: member.path.clone(),
            method: member.method,
            captured_at: member.pinned_at.unwrap_or_default(),
            skew_us,
            ..DatabaseRecord::default()
        };
        let mut image = None;
        let stored = match &mut member.handle {
            Handle::Sqlite(database) => {
                let free = match self.before.options.free_pages {
                    FreePages::Zeroed => source::sqlite::FreeLeaves::Zeroed,
                    FreePages::Exact => source::sqlite::FreeLeaves::Exact,
                };
                let cuts = self.before.options.database_cuts;
                let read = read_sqlite::store(io, database, free, cuts, base)?;
                // Order: until it was read, the header of the file may be older than the log.
                facts::of_sqlite(&mut record, database.facts());
                if database.facts().free_list_damaged {
                    let why = "its list of free pages contradicts itself";
                    warn_of_damage(io, &member.path, why);
                }
                read.map(|read| {
                    record.duration_us = read.duration_us;
                    record.wal_growth_bytes = read.wal_growth_bytes;
                    image = read.bytes;
                    (read.stream, read.size_bytes)
                })
            }
            Handle::Redb(database) => {
                facts::of_redb(&mut record, database.facts());
                let size_bytes = database.facts().file_bytes;
                let began = io.cx.clock.now();
                let stored = read_redb::store(io, database, base)?;
                let ns = io.cx.clock.now().since_ns(began).max(0).cast_unsigned();
                record.duration_us = ns / 1000;
                // Every page was verified against its parent on the way.
                record.verdict = Verdict::Passed;
                stored.map(|stream| (stream, size_bytes))
            }
        };
        let (stream, size_bytes) = match stored {
            Ok(stored) => stored,
            Err(refusal) => {
                self.refuse(io, member.path, &refusal);
                return Ok(());
            }
        };
        if old == Some((stream, size_bytes))
            && let Some(known) = self.known.get(&member.path)
        {
            // The same content: what is known of it stays as it was, and so does its chunk.
            record = known.clone();
            warn_again(io, &record);
        } else if let Some(image) = image {
            self.check(io, &mut record, image);
        }
        let Member {
            path, looks, stat, ..
        } = member;
        let captured = Captured {
            stat,
            stream,
            size_bytes,
            xattrs: None,
            is_settled: false,
        };
        self.keep(path, looks, captured, record);
        Ok(())
    }

    /// Checks the bytes as they were captured.
    fn check(&self, io: &mut Io<'_, '_>, record: &mut DatabaseRecord, image: Vec<u8>) {
        if !Safeguard::CaptureChecked.holds() {
            record.verdict = Verdict::Passed;
            return;
        }
        record.verdict = match source::sqlite::quick_check(image) {
            source::sqlite::Health::Sound => Verdict::Passed,
            source::sqlite::Health::Unknown(_) => Verdict::Unchecked,
            source::sqlite::Health::Damaged(reason) => {
                warn_of_damage(io, &record.path, &reason);
                Verdict::Failed
            }
        };
    }

    fn keep(&mut self, path: Vec<u8>, looks: Looks, captured: Captured, record: DatabaseRecord) {
        let databases = &mut self.databases;
        if record.engine == Engine::Sqlite {
            databases.hide_sidecars(&path, &SIDECARS);
        }
        databases.gate.insert(path.clone(), looks);
        databases.records.insert(path.clone(), record);
        databases.captured.insert(path, captured);
    }

    /// Returns the stream the parent has at this path, with the length of the file.
    fn old(&self, io: &Io<'_, '_>, path: &[u8]) -> Option<(Stream, u64)> {
        let parent = self.before.parent?;
        let mut scratch = Scratch::default();
        let found = inspect::find_in(io.chunks, &mut scratch, &parent.tree, path);
        let (at, index) = found.ok()??;
        match at.leaf.entries[index].kind {
            Kind::File {
                size_bytes,
                content: Content::Stream(stream),
            } => Some((stream, size_bytes)),
            _ => None,
        }
    }

    /// A database that its engine does not let us capture.
    fn refuse(&mut self, io: &mut Io<'_, '_>, path: Vec<u8>, refusal: &Refusal) {
        let engine = match refusal {
            Refusal::Sqlite(_) => Engine::Sqlite,
            Refusal::Redb(_) => Engine::Redb,
        };
        self.copy_plainly(io, path, engine, refusal.describe());
    }

    /// Leaves a database to the scan. Its logs are files too then: without them it would lack what
    /// was committed last.
    fn copy_plainly(
        &mut self,
        io: &mut Io<'_, '_>,
        path: Vec<u8>,
        engine: Engine,
        (code, why): (&'static str, String),
    ) {
        let message = format!("{why}; copied as a plain file, which may not be consistent");
        io.totals.warnings.push(Problem {
            path: path.clone(),
            code,
            message,
        });
        let databases = &mut self.databases;
        if engine == Engine::Sqlite {
            databases.hide_sidecars(&path, &["-shm"]);
            for log in ["-wal", "-journal"] {
                databases.plain.insert([&path, log.as_bytes()].concat());
            }
        }
        if engine == Engine::Sled {
            databases.plain.extend(read_sled::marks(&path));
        }
        let record = DatabaseRecord {
            path: path.clone(),
            engine,
            method: Method::PlainFiles,
            ..DatabaseRecord::default()
        };
        databases.records.insert(path.clone(), record);
        databases.plain.insert(path);
    }
}

/// Damage does not go away by being known.
fn warn_again(io: &mut Io<'_, '_>, record: &DatabaseRecord) {
    if record.verdict == Verdict::Failed {
        warn_of_damage(io, &record.path, "it is as it was when that was found");
    }
}

fn warn_of_damage(io: &mut Io<'_, '_>, path: &[u8], reason: &str) {
    io.totals.warnings.push(Problem {
        path: path.to_vec(),
        code: "corrupt",
        message: format!("captured as it is, but it is damaged at its source: {reason}"),
    });
}
