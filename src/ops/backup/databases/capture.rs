//! One capture: what is to be done about each database, and doing it.

mod directories;

use crate::context::Timestamp;
use crate::disk::unnamed_file;
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
use crate::ops::backup::databases::read_redb;
use crate::ops::backup::databases::read_sled;
use crate::ops::backup::databases::read_sqlite;
use crate::ops::inspect;
use crate::repo::chunks::Scratch;
use crate::source;
use crate::source::files::Problem;
use crate::source::files::Stat;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long one try to open or pin a database waits for a lock.
const PATIENCE: Duration = Duration::from_millis(200);
/// Files beside a SQLite database that are part of it.
const SIDECARS: [&str; 3] = ["-wal", "-shm", "-journal"];

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
        if due.iter().any(|(.., sniffed)| *sniffed == Sniffed::Sqlite) {
            source::sqlite::library_version_is_safe()
                .map_err(|reason| Error::Refused { reason })?;
        }
        // Order: all are looked into before any is opened by its engine. Closing a descriptor
        // drops the locks of this process on the file, under whatever name it has them.
        for (path, looks, stat, sniffed) in due {
            self.open(io, path, looks, stat, sniffed);
        }
        self.pin_and_store(io)?;
        for copy in copies {
            self.store_sled(io, copy)?;
        }
        Ok(self.databases)
    }

    fn all_known(&self) -> FoundPaths {
        let is_directory = |path: &&Vec<u8>| self.known[*path].engine == Engine::Sled;
        let directories = self.known.keys().filter(is_directory).cloned().collect();
        let files = self.known.keys().filter(|path| !is_directory(path));
        FoundPaths {
            files: files.cloned().collect(),
            directories,
        }
    }

    /// Takes what did not change, and returns what has to be captured.
    fn consider(
        &mut self,
        io: &Io<'_, '_>,
        path: Vec<u8>,
    ) -> Option<(Vec<u8>, Looks, Stat, Sniffed)> {
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
            self.idle.push((path.clone(), looks.clone()));
            self.keep(path, looks, captured, record);
            return None;
        }
        let sniffed = self.finder.sniff(&path, &stat).ok()?;
        (sniffed != Sniffed::Other).then_some((path, looks, stat, sniffed))
    }

    /// Opens a database, to be pinned with the others.
    fn open(
        &mut self,
        io: &mut Io<'_, '_>,
        path: Vec<u8>,
        looks: Looks,
        stat: Stat,
        sniffed: Sniffed,
    ) {
        let opened = match sniffed {
            Sniffed::Other => return,
            Sniffed::Opaque => {
                let why =
                    "it looks like an encrypted database, which only its application can read";
                return self.copy_plainly(io, path, Engine::Sqlite, ("encrypted", why.to_string()));
            }
            Sniffed::Sqlite => self.open_sqlite(io, &path),
            Sniffed::Redb => self.open_redb(io, &path),
        };
        match opened {
            Ok((handle, method)) => {
                // Order: after it was opened, for SQLite run by root touches the log then, and
                // before it is pinned, so that nothing can change unseen in between. A private
                // copy is as old as the first look.
                let again = Looks::of(&self.before.source.tree, &path).ok().flatten();
                let (looks, stat) = match again {
                    Some(again) if method != Method::PrivateCopy => again,
                    _ => (looks, stat),
                };
                self.members.push(Member {
                    path,
                    looks,
                    stat,
                    method,
                    handle,
                    holder: self.finder.holder(&stat),
                    pinned_at: None,
                });
            }
            Err(refusal) => self.refuse(io, path, &refusal),
        }
    }

    fn open_sqlite(&self, io: &Io<'_, '_>, path: &[u8]) -> Result<(Handle, Method), Refusal> {
        let absolute = self.before.source.absolute(path);
        let opened = source::sqlite::Database::open(&absolute, PATIENCE);
        // A first pin tells whether it can be read where it is.
        let tried = opened.and_then(|mut database| {
            match database.pin() {
                Ok(()) | Err(source::sqlite::Refusal::Busy { .. }) => database.unpin(),
                Err(refusal) => return Err(refusal),
            }
            Ok((database, Method::Transaction))
        });
        let opened = match tried {
            Err(source::sqlite::Refusal::NeedsCopy { .. }) => return self.copy_sqlite(io, path),
            other => other,
        };
        let (database, method) = opened.map_err(Refusal::Sqlite)?;
        Ok((Handle::Sqlite(Box::new(database)), method))
    }

    fn copy_sqlite(&self, io: &Io<'_, '_>, path: &[u8]) -> Result<(Handle, Method), Refusal> {
        let absolute = self.before.source.absolute(path);
        let copied = source::sqlite::Database::open_copy(&absolute, io.room, PATIENCE);
        let pinned = copied.and_then(|mut database| {
            database.pin()?;
            Ok(database)
        });
        let database = pinned.map_err(Refusal::Sqlite)?;
        Ok((Handle::Sqlite(Box::new(database)), Method::PrivateCopy))
    }

    fn open_redb(&self, io: &Io<'_, '_>, path: &[u8]) -> Result<(Handle, Method), Refusal> {
        let file = self.before.source.tree.open_file(path);
        let file = file.map_err(|problem| {
            let cause = std::io::Error::other(problem.message);
            Refusal::Redb(source::redb::Refusal::Unreadable { cause })
        })?;
        let spool = unnamed_file(io.room).map_err(|error| {
            let cause = std::io::Error::other(error.to_string());
            Refusal::Redb(source::redb::Refusal::NoSpool { cause })
        })?;
        let file = file.into_file();
        let opened = source::redb::Database::open(file, spool).map_err(Refusal::Redb)?;
        Ok((Handle::Redb(Box::new(opened)), Method::Walk))
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
                        self.open(io, path, looks, stat, sniffed);
                    }
                }
            }
        };
        let mut members = std::mem::take(&mut self.members);
        let mut copies = Vec::new();
        let pinned_at = io.cx.clock.now();
        let has_others = !members.is_empty() || !refused.is_empty() || !self.idle.is_empty();
        self.pinned_at = has_others.then_some(pinned_at);
        for (member, refusal) in refused {
            let Member {
                path, looks, stat, ..
            } = member;
            // Whoever keeps it locked may leave its files alone long enough to copy them.
            let copied = match refusal.is_busy() {
                true => self.copy_sqlite(io, &path),
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
                }),
                Err(refusal) => self.refuse(io, path, &refusal),
            }
        }
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
                describe_sqlite(&mut record, database.facts());
                if database.facts().free_list_damaged {
                    warn_of_damage(
                        io,
                        &member.path,
                        "its list of free pages contradicts itself",
                    );
                }
                read_sqlite::store(io, database, free, base)?.map(|read| {
                    record.duration_us = read.duration_us;
                    record.wal_growth_bytes = read.wal_growth_bytes;
                    image = read.bytes;
                    (read.stream, read.size_bytes)
                })
            }
            Handle::Redb(database) => {
                describe_redb(&mut record, database.facts());
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

fn warn_of_damage(io: &mut Io<'_, '_>, path: &[u8], reason: &str) {
    io.totals.warnings.push(Problem {
        path: path.to_vec(),
        code: "corrupt",
        message: format!("captured as it is, but it is damaged at its source: {reason}"),
    });
}

fn describe_sqlite(record: &mut DatabaseRecord, facts: &source::sqlite::Facts) {
    record.engine = Engine::Sqlite;
    record.page_bytes = u64::from(facts.page_bytes);
    record.pages = facts.pages;
    record.version = u64::from(facts.version);
    record.user_version = facts.user_version;
    record.application_id = facts.application_id;
    record.wal = facts.wal;
}

fn describe_redb(record: &mut DatabaseRecord, facts: &source::redb::Facts) {
    record.engine = Engine::Redb;
    record.page_bytes = u64::from(facts.page_bytes);
    record.pages = facts.pages;
    record.version = u64::from(facts.version);
}
