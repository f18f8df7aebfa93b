//! Reading a pinned SQLite database into a stream of whole pages.
//!
//! Pages stay where they are until a VACUUM, so by default the stream is cut every so many bytes,
//! and each group leans on the one that stood there. The choice is to cut by content, at the end of
//! a page: what moved as a whole is then found again (`docs/decisions/0016-database-cuts.md`).
//!
//! The read transaction lasts as long as reading does, and not as long as storing: what cannot be
//! stored in time waits in a spool. A writer in rollback mode is stalled while we read, so there
//! the spool is used at once; a write-ahead log only grows, so there once storing turns out slow.

use crate::chunker;
use crate::chunker::Cutter;
use crate::context::Context;
use crate::context::Event;
use crate::disk::unnamed_file;
use crate::error::Error;
use crate::error::Result;
use crate::format::list::Flavour;
use crate::format::list::Stream;
use crate::format::list::StreamKind;
use crate::ops::backup::DatabaseCuts;
use crate::ops::backup::Priority;
use crate::ops::backup::databases::Io;
use crate::ops::backup::databases::group::Refusal;
use crate::ops::backup::pending::PendingStream;
use crate::source::sqlite;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes of a group: small enough for a delta to find what moved within it, large enough to cost
/// little bookkeeping.
const GROUP_BYTES: u32 = 256 << 10;
const SMALL_GROUP_BYTES: u32 = 64 << 10;
const LARGE_GROUP_BYTES: u32 = 1 << 20;
/// How long a transaction on a write-ahead log is held before its end is foreseen.
const HELD_NS: i64 = 250_000_000;
/// What may then be left without a spool: the log grows by what the application writes meanwhile,
/// and nobody waits. A spool costs each byte a write and a read more.
const LEFT_NS: u128 = 1_000_000_000;
/// No more than this goes into a spool: beyond it the disk would be slower than storing is.
const SPOOL_BYTES_MAX: u64 = 4 << 30;
/// Databases in rollback mode up to this length are stored faster than a spool is set up.
const STALL_BYTES: u64 = 4 << 20;
/// Images up to this length are checked as they were captured.
const CHECK_BYTES_MAX: u64 = 8 << 20;

/// An image that was read.
pub(super) struct Image {
    pub stream: Stream,
    pub size_bytes: u64,
    pub duration_us: u64,
    pub wal_growth_bytes: u64,
    /// The whole of it, if it is short enough to be checked.
    pub bytes: Option<Vec<u8>>,
}

/// Reads the pinned state to its end and lets go of it.
pub(super) fn store<'a>(
    io: &mut Io<'_, 'a>,
    database: &mut sqlite::Database,
    free: sqlite::FreeLeaves,
    cuts: DatabaseCuts,
    old: Option<(Stream, u64)>,
) -> Result<Result<Image, Refusal>> {
    let began = io.cx.clock.now();
    let wal_before = database.wal_bytes();
    if let Err(refusal) = database.prepare(free) {
        return Ok(Err(Refusal::Sqlite(refusal)));
    }
    let facts = database.facts();
    let size_bytes = facts.image_bytes();
    // Threads that let everybody go first may not store for a while, whatever the length.
    let is_fast = size_bytes <= STALL_BYTES && io.priority == Priority::Normal;
    let stalls_writers = !facts.wal && !is_fast;
    let cuts = Cuts::new(cuts, io.chunks.repo().secrets().cut_key(), facts.page_bytes);
    let mut stream = PendingStream::begin(cuts.flavour(), io.predecessors(old));
    stream.kind = StreamKind::Sqlite;
    let mut reading = Reading {
        stream,
        cuts,
        bytes: (size_bytes <= CHECK_BYTES_MAX).then(Vec::new),
        read_bytes: 0,
        size_bytes,
        held: None,
    };
    let mut may_spool = true;
    while reading.left_bytes() > 0 {
        io.cx.check()?;
        if may_spool
            && (stalls_writers || reading.is_slow(io.cx.clock.now().since_ns(began)))
            && reading.left_bytes() <= io.spool_bytes_max.min(SPOOL_BYTES_MAX)
        {
            let file = match reading.spool(io, database)? {
                Spooled::Whole(file) => file,
                Spooled::NoRoom => {
                    may_spool = false;
                    continue;
                }
                Spooled::Refused(refusal) => return reading.give_up(io, refusal),
            };
            reading.held = Some(hold_ended(io.cx, began, wal_before, database));
            reading.finish_from(io, &file)?;
            break;
        }
        let mut group = io.pool.buffer();
        if let Err(refusal) = reading.read_group(database, &mut group) {
            return reading.give_up(io, refusal);
        }
        reading.push(io, group)?;
    }
    let (duration_us, wal_growth_bytes) = match reading.held {
        Some(held) => held,
        None => hold_ended(io.cx, began, wal_before, database),
    };
    let stream = reading.stream.finish(io.pool, io.totals)?;
    Ok(Ok(Image {
        stream,
        size_bytes,
        duration_us,
        wal_growth_bytes,
        bytes: reading.bytes,
    }))
}

/// Lets go of the state, and says for how long it was held and what that cost.
fn hold_ended(
    cx: &Context,
    began: crate::context::Timestamp,
    wal_before: u64,
    database: &mut sqlite::Database,
) -> (u64, u64) {
    let wal_growth_bytes = database.wal_bytes().saturating_sub(wal_before);
    database.unpin();
    let held_ns = cx.clock.now().since_ns(began).max(0).cast_unsigned();
    (held_ns / 1000, wal_growth_bytes)
}

/// What came of a spool.
enum Spooled {
    /// All that was left is in it, and need not be held any more.
    Whole(File),
    /// It could not be written. The state is held and read for as long as storing it takes: the
    /// disk of the spool is not that of the store, and no reason to save nothing.
    NoRoom,
    Refused(Refusal),
}

/// Where the stream is cut.
enum Cuts {
    /// After so many bytes.
    Groups { group_bytes: u32 },
    /// Where the content says so, rounded up to the end of a page.
    Content {
        cutter: Cutter,
        page_bytes: usize,
        /// What was read and not cut yet.
        ahead: Vec<u8>,
    },
}

impl Cuts {
    fn new(cuts: DatabaseCuts, cut_key: &[u8; 32], page_bytes: u32) -> Cuts {
        match cuts {
            DatabaseCuts::Groups => Cuts::Groups {
                group_bytes: GROUP_BYTES,
            },
            DatabaseCuts::SmallGroups => Cuts::Groups {
                group_bytes: SMALL_GROUP_BYTES,
            },
            DatabaseCuts::LargeGroups => Cuts::Groups {
                group_bytes: LARGE_GROUP_BYTES,
            },
            DatabaseCuts::Content => Cuts::Content {
                cutter: Cutter::new(cut_key),
                page_bytes: page_bytes as usize,
                ahead: Vec::new(),
            },
        }
    }

    fn flavour(&self) -> Flavour {
        match self {
            Cuts::Groups { group_bytes } => Flavour::Even {
                unit_bytes: *group_bytes,
            },
            Cuts::Content { .. } => Flavour::Cut,
        }
    }

    /// Returns how much is read at once.
    fn read_bytes(&self) -> u64 {
        match self {
            Cuts::Groups { group_bytes } => u64::from(*group_bytes),
            Cuts::Content { .. } => u64::from(GROUP_BYTES),
        }
    }
}

struct Reading<'a> {
    stream: PendingStream<'a>,
    cuts: Cuts,
    bytes: Option<Vec<u8>>,
    /// Bytes read so far; some of them may not be in the stream yet.
    read_bytes: u64,
    size_bytes: u64,
    /// For how long the state was held, and by how much the log grew, once that is over.
    held: Option<(u64, u64)>,
}

impl Reading<'_> {
    fn left_bytes(&self) -> u64 {
        self.size_bytes - self.read_bytes
    }

    /// Returns true if what is left would be held too long at the pace so far.
    fn is_slow(&self, held_ns: i64) -> bool {
        let read_bytes = u128::from(self.read_bytes).max(1);
        let left_ns =
            u128::from(self.left_bytes()) * u128::from(held_ns.max(0).cast_unsigned()) / read_bytes;
        held_ns >= HELD_NS && left_ns > LEFT_NS
    }

    fn read_group(
        &self,
        database: &mut sqlite::Database,
        group: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let len = self.left_bytes().min(self.cuts.read_bytes());
        group.resize(len as usize, 0);
        let read = database.read_at(self.read_bytes, group);
        read.map_err(Refusal::Sqlite)
    }

    /// Takes in a group that was read.
    fn push(&mut self, io: &mut Io<'_, '_>, group: Vec<u8>) -> Result<()> {
        let bytes = group.len() as u64;
        io.totals.figures.read_bytes += bytes;
        io.totals.told_bytes += bytes;
        io.cx.progress.event(Event::Done { files: 0, bytes });
        self.read_bytes += bytes;
        if let Some(all) = &mut self.bytes {
            all.extend_from_slice(&group);
        }
        let is_last = self.left_bytes() == 0;
        let Cuts::Content {
            cutter,
            page_bytes,
            ahead,
        } = &mut self.cuts
        else {
            return push_piece(io, &mut self.stream, group);
        };
        ahead.extend_from_slice(&group);
        let mut used = 0;
        while ahead.len() - used >= chunker::MAX_BYTES || is_last && used < ahead.len() {
            let rest = &ahead[used..];
            // Whole pages: what follows then begins with a page, wherever that page moves.
            let len = cutter.cut(rest).next_multiple_of(*page_bytes);
            let len = len.min(rest.len());
            let mut chunk = io.pool.buffer();
            chunk.extend_from_slice(&rest[..len]);
            push_piece(io, &mut self.stream, chunk)?;
            used += len;
        }
        ahead.drain(..used);
        Ok(())
    }

    /// Copies what is left at the speed of the disk.
    fn spool(&self, io: &Io<'_, '_>, database: &mut sqlite::Database) -> Result<Spooled> {
        let Ok(file) = unnamed_file(io.room) else {
            return Ok(Spooled::NoRoom);
        };
        let mut group = vec![0; 4 * GROUP_BYTES as usize];
        let mut offset = self.read_bytes;
        while offset < self.size_bytes {
            io.cx.check()?;
            let len = (self.size_bytes - offset).min(group.len() as u64) as usize;
            if let Err(refusal) = database.read_at(offset, &mut group[..len]) {
                return Ok(Spooled::Refused(Refusal::Sqlite(refusal)));
            }
            let written = file.write_all_at(&group[..len], offset - self.read_bytes);
            if written.is_err() {
                return Ok(Spooled::NoRoom);
            }
            offset += len as u64;
        }
        Ok(Spooled::Whole(file))
    }

    fn finish_from(&mut self, io: &mut Io<'_, '_>, file: &File) -> Result<()> {
        let start = self.read_bytes;
        while self.left_bytes() > 0 {
            io.cx.check()?;
            let mut group = io.pool.buffer();
            group.resize(self.left_bytes().min(self.cuts.read_bytes()) as usize, 0);
            let read = file.read_exact_at(&mut group, self.read_bytes - start);
            read.map_err(spool_failed(io))?;
            self.push(io, group)?;
        }
        Ok(())
    }

    fn give_up<T>(self, io: &mut Io<'_, '_>, refusal: Refusal) -> Result<Result<T, Refusal>> {
        self.stream.discard(io.pool, io.totals)?;
        Ok(Err(refusal))
    }
}

fn push_piece(io: &mut Io<'_, '_>, stream: &mut PendingStream<'_>, piece: Vec<u8>) -> Result<()> {
    match piece.iter().all(|&byte| byte == 0) {
        true => stream.push_hole(io.pool, io.totals, piece.len() as u64),
        false => stream.push_chunk(io.pool, io.totals, piece, 0),
    }
}

fn spool_failed(io: &Io<'_, '_>) -> impl Fn(std::io::Error) -> Error {
    let path = io.room.to_path_buf();
    move |source| Error::Io {
        action: "use a temporary file in",
        path: path.clone(),
        source,
    }
}
