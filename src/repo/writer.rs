//! Storing chunks: known or new, whole or as a delta, verified, into the open pack.
//!
//! Any number of threads store at once. A finished pack goes to whoever was named at the beginning,
//! who makes it durable and then calls `Chunks::add_pack` and `Writer::forget`.
//!
//! Chain policy: deltas lean on their predecessor in runs; the first of a run leans on the first of
//! the run before; after so many runs a chunk is stored whole. It bounds how much a read decodes.
//! Content that kept little of what stood in its place is stored whole as well: a later run would
//! begin with a delta against what stood there, and cost all of it again
//! (`docs/decisions/0017-delta-policy.md`).

mod rewrite;

pub use rewrite::PlannedBase;

use crate::codec::zstd::Encoder;
use crate::context::Context;
use crate::error::Error;
use crate::error::Result;
use crate::format::container::ObjectKind;
use crate::format::container::Sealer;
use crate::format::entry::PackBytes;
use crate::format::pack;
use crate::format::pack::BaseId;
use crate::format::pack::ChunkKind;
use crate::format::pack::Codec;
use crate::format::pack::Encoding;
use crate::format::pack::Row;
use crate::id::ChunkId;
use crate::id::PackId;
use crate::repo::chunks;
use crate::repo::chunks::Chunks;
use crate::repo::chunks::Scratch;
use crate::repo::index::Record;
use crate::safeguard::Safeguard;
use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeSet;
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// A pack is finished once it holds so many records, so that its table stays small beside it.
const PACK_ROWS: usize = 64 << 10;
/// Deltas of a run at most: with as many runs as there may be, heights stay far below the highest.
const RUN_LEN_MAX: usize = 64;
/// Runs before a chunk is stored whole again.
const RUNS_MAX: usize = 32;

/// A pack that no longer grows, sealed and named.
pub struct FinishedPack {
    /// The hash of the object.
    pub id: PackId,
    /// The object.
    pub object: Vec<u8>,
    /// How long it and its table are.
    pub bytes: PackBytes,
    /// Its table.
    pub rows: Vec<Row>,
}

/// What became of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Its name.
    pub id: ChunkId,
    /// Bytes of its record; `None` if it was there before.
    pub stored_bytes: Option<u32>,
}

/// How chunks are stored. Every choice is read by every release, and may differ from backup to
/// backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effort {
    /// The level of zstd, from 1 to 19.
    pub level: i32,
    /// Deltas of a run that each lean on the one before, at most 64.
    pub run_len: usize,
    /// A pack is finished once it holds so many bytes of records.
    pub pack_bytes: u64,
}

impl Default for Effort {
    fn default() -> Effort {
        Effort {
            level: 3,
            run_len: 32,
            pack_bytes: 16 << 20,
        }
    }
}

/// Stores chunks on behalf of one backup.
pub struct Writer<'c, 'r> {
    cx: &'c Context,
    chunks: &'c Chunks<'r>,
    effort: Effort,
    open: Mutex<Option<OpenPack>>,
    /// Chunks of this run whose pack is not in the index yet.
    claimed: Mutex<HashSet<ChunkId>>,
    /// Room for packs, used again: as long as they are, they would scatter through the heap.
    spare: Mutex<Vec<Vec<u8>>>,
    finished: &'c (dyn Fn(FinishedPack) -> Result<()> + Sync),
    trust: Trust,
}

/// Whether what the parent snapshot names can be taken to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// The log says so, and nothing speaks against it.
    Parent,
    /// Something is damaged: every chunk is looked up, and stored again if it is not found.
    Nothing,
}

struct OpenPack {
    sealer: Sealer,
    rows: Vec<Row>,
}

/// What one storing thread keeps: contexts, buffers, and the packs its work relies on.
pub struct WriterScratch {
    /// For decoding bases.
    pub read: Scratch,
    encoder: Encoder,
    encoded: Vec<u8>,
    verified: Vec<u8>,
    decoder: crate::codec::zstd::Decoder,
}

impl Default for WriterScratch {
    fn default() -> WriterScratch {
        WriterScratch::new(&Effort::default())
    }
}

impl WriterScratch {
    /// Returns what a thread needs that stores with this effort.
    pub fn new(effort: &Effort) -> WriterScratch {
        WriterScratch::with(Encoder::new(effort.level))
    }

    /// Returns one that takes the time to make records small: for what is stored once more and
    /// stays for months.
    pub fn thorough() -> WriterScratch {
        WriterScratch::with(Encoder::thorough())
    }

    fn with(encoder: Encoder) -> WriterScratch {
        WriterScratch {
            read: Scratch::default(),
            encoder,
            encoded: Vec::new(),
            verified: Vec::new(),
            decoder: crate::codec::zstd::Decoder::new(),
        }
    }

    /// Returns the packs that what was stored relies on (rule a of the log).
    pub fn relied_packs(&self) -> &BTreeSet<PackId> {
        &self.read.touched
    }
}

/// A base with its place in a chain.
struct Base {
    record: Record,
    plain: Vec<u8>,
    run_head: bool,
}

impl<'c, 'r> Writer<'c, 'r> {
    /// Begins to store; `finished` gets every pack that is complete, from any thread.
    pub fn begin(
        cx: &'c Context,
        chunks: &'c Chunks<'r>,
        finished: &'c (dyn Fn(FinishedPack) -> Result<()> + Sync),
        trust: Trust,
    ) -> Writer<'c, 'r> {
        Writer {
            cx,
            chunks,
            effort: Effort::default(),
            open: Mutex::default(),
            claimed: Mutex::default(),
            spare: Mutex::default(),
            finished,
            trust,
        }
    }

    /// Has it store with another effort.
    pub fn with_effort(self, effort: Effort) -> Writer<'c, 'r> {
        let run_len = effort.run_len.clamp(1, RUN_LEN_MAX);
        let effort = Effort { run_len, ..effort };
        Writer { effort, ..self }
    }

    /// Stores a chunk unless it is known. `predecessor` is what stood in its place before: a chunk
    /// of the parent snapshot, which the log keeps readable, and the base to lean on.
    pub fn store(
        &self,
        scratch: &mut WriterScratch,
        kind: ChunkKind,
        plain: &[u8],
        predecessor: Option<&ChunkId>,
    ) -> Result<Stored> {
        // A record that long would make the table of its pack unreadable.
        if plain.len() > pack::CHUNK_BYTES_MAX as usize {
            let reason = format!("a chunk of {} bytes is longer than any may be", plain.len());
            return Err(Error::Refused { reason });
        }
        let id = self.chunks.repo().secrets().chunk_id(kind, plain);
        let known = Stored {
            id,
            stored_bytes: None,
        };
        let is_parents = predecessor == Some(&id) && self.trust == Trust::Parent;
        if is_parents || self.lean_on_known(scratch, &id)? {
            return Ok(known);
        }
        if !lock(&self.claimed).insert(id) {
            return Ok(known);
        }
        let mut row = Row {
            id,
            encoding: Encoding {
                codec: Codec::Raw,
                kind,
                run_head: true,
            },
            height: 0,
            plain_bytes: plain.len() as u32,
            stored_bytes: 0,
            bases: Vec::new(),
        };
        let base = predecessor.and_then(|predecessor| self.base(scratch, kind, predecessor));
        let saving = match kind {
            ChunkKind::Data => Saving::Quarter,
            ChunkKind::List | ChunkKind::Tree => Saving::Little,
        };
        encode(scratch, plain, base.as_ref(), saving, &mut row);
        Safeguard::EncoderSound.spoil(&mut scratch.encoded);
        self.verify(scratch, plain, base.as_ref(), &row)?;
        if let Some(base) = base {
            scratch.read.recycle(base.plain);
        }
        let stored_bytes = row.stored_bytes;
        let encoded = std::mem::take(&mut scratch.encoded);
        let appended = match row.encoding.codec {
            Codec::Raw => self.append(row, plain),
            Codec::Zstd | Codec::Delta => self.append(row, &encoded),
        };
        scratch.encoded = encoded;
        appended?;
        Ok(Stored {
            id,
            stored_bytes: Some(stored_bytes),
        })
    }

    /// Finishes the open pack, if there is one.
    pub fn finish(&self) -> Result<()> {
        let open = lock(&self.open).take();
        match open {
            Some(open) => (self.finished)(seal(open)),
            None => Ok(()),
        }
    }

    /// Forgets the chunks of a pack that is in the index now, and takes its room back.
    pub fn forget(&self, pack: FinishedPack) {
        let mut claimed = lock(&self.claimed);
        pack.rows.iter().for_each(|row| {
            claimed.remove(&row.id);
        });
        drop(claimed);
        lock(&self.spare).push(pack.object);
    }

    /// Returns whether the repository has the chunk, and notes the packs that reading it needs.
    fn lean_on_known(&self, scratch: &mut WriterScratch, id: &ChunkId) -> Result<bool> {
        for record in self.chunks.find(id) {
            // A chain that is broken is no reason to fail: the chunk is stored anew, and heals.
            if let Ok(needed) = self.chunks.needed_packs(&record) {
                scratch.read.touched.extend(needed);
                return Ok(true);
            }
            if !Safeguard::ChainLookedUp.holds() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the base the chain policy wants. `None` stores the chunk whole: the policy says so,
    /// or the predecessor cannot be read, which is damage that `check` reports.
    fn base(
        &self,
        scratch: &mut WriterScratch,
        kind: ChunkKind,
        predecessor: &ChunkId,
    ) -> Option<Base> {
        let record = self.chunks.find(predecessor).into_iter().next()?;
        let chain = self.chunks.chain(&record).ok()?;
        let (record, run_head) = choose_base(&chain, self.effort.run_len)?;
        if record.height == u8::MAX || record.plain_bytes as usize > pack::PREFIX_BYTES_MAX {
            return None;
        }
        let plain = self
            .chunks
            .read_record(&mut scratch.read, kind, &record)
            .ok()?;
        Some(Base {
            record,
            plain,
            run_head,
        })
    }

    /// What is encoded is decoded and compared before it counts: a fault of the library or of the
    /// memory must not become a backup that cannot be read.
    fn verify(
        &self,
        scratch: &mut WriterScratch,
        plain: &[u8],
        base: Option<&Base>,
        row: &Row,
    ) -> Result<()> {
        if !Safeguard::EncodedCompared.holds() {
            return Ok(());
        }
        let prefix = match (row.encoding.codec, base) {
            (Codec::Raw, _) => return Ok(()),
            (Codec::Delta, Some(base)) => &base.plain[..],
            _ => &[],
        };
        let WriterScratch {
            decoder,
            encoded,
            verified,
            ..
        } = scratch;
        match decoder.decode(encoded, prefix, plain.len(), verified) {
            Ok(()) if verified == plain => Ok(()),
            _ => Err(Error::corrupt(
                format!("chunk {}", row.id),
                "it did not decode to what was encoded; this points to faulty memory",
            )),
        }
    }

    fn append(&self, row: Row, bytes: &[u8]) -> Result<()> {
        let pack_bytes = self.effort.pack_bytes;
        let full = {
            let mut slot = lock(&self.open);
            let mut open = match slot.take() {
                Some(open) => open,
                None => self.open_pack()?,
            };
            open.sealer.push(bytes);
            open.rows.push(row);
            let is_full = open.sealer.plain_bytes() >= pack_bytes || open.rows.len() >= PACK_ROWS;
            match is_full {
                true => Some(open),
                false => {
                    *slot = Some(open);
                    None
                }
            }
        };
        let Some(full) = full else {
            return Ok(());
        };
        let sealed = seal(full);
        // While this one waits to be taken nobody fills another: threads that store faster than
        // the store takes must not heap up packs, one each.
        let _open = lock(&self.open);
        (self.finished)(sealed)
    }

    fn open_pack(&self) -> Result<OpenPack> {
        let keys = self.chunks.repo().secrets().data_keys();
        let salt = self.cx.random_bytes()?;
        let room_bytes = self.effort.pack_bytes + self.effort.pack_bytes / 16;
        let sealer = match lock(&self.spare).pop() {
            Some(room) => Sealer::begin_in(keys, ObjectKind::Pack, salt, room),
            // Memory that is reserved and not used costs nothing.
            None => Sealer::begin(keys, ObjectKind::Pack, salt, room_bytes),
        };
        Ok(OpenPack {
            sealer,
            rows: Vec::new(),
        })
    }
}

/// Returns what the next delta leans on, given the chain of its predecessor and how long runs are,
/// and whether it is the first of a run. `None`: store it whole.
fn choose_base(chain: &[Record], run_len_max: usize) -> Option<(Record, bool)> {
    let is_head =
        |record: &Record| chunks::encoding(record).is_ok_and(|encoding| encoding.run_head);
    let run_len = 1 + chain.iter().position(is_head)?;
    let runs = chain.iter().filter(|record| is_head(record)).count();
    // Chunks that change in every step would otherwise all begin their runs in the same one.
    let whole = chain.last()?;
    let jitter = usize::from(whole.id.0[0]) % run_len_max;
    let limit = match runs {
        1 => run_len_max - jitter,
        _ => run_len_max,
    };
    match run_len < limit {
        true => Some((chain[0], false)),
        false if runs < RUNS_MAX => Some((chain[run_len - 1], true)),
        false => None,
    }
}

/// What a delta has to save to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Saving {
    /// The base may go out of use, and would stay for this record alone.
    Quarter,
    /// The base stays anyway, or there is little of it.
    Little,
}

/// Leaves the best encoding in `scratch.encoded` and completes the row.
fn encode(
    scratch: &mut WriterScratch,
    plain: &[u8],
    base: Option<&Base>,
    saving: Saving,
    row: &mut Row,
) {
    let WriterScratch {
        encoder, encoded, ..
    } = scratch;
    encoded.clear();
    if let Some(base) = base {
        encoded.extend_from_slice(encoder.delta(plain, &base.plain));
        row.encoding.codec = Codec::Delta;
    }
    // A delta that saves little is not worth leaning on something.
    if base.is_none() || encoded.len() > plain.len() / 8 {
        let whole = encoder.whole(plain);
        let delta_bytes_max = match saving {
            Saving::Quarter => whole.len() / 4 * 3,
            Saving::Little => whole.len() / 32 * 31,
        };
        if base.is_none() || encoded.len() > delta_bytes_max {
            encoded.clear();
            encoded.extend_from_slice(whole);
            row.encoding.codec = Codec::Zstd;
        }
    }
    if encoded.len() >= plain.len() {
        row.encoding.codec = Codec::Raw;
    }
    row.stored_bytes = match row.encoding.codec {
        Codec::Raw => plain.len() as u32,
        Codec::Zstd | Codec::Delta => encoded.len() as u32,
    };
    if let (Codec::Delta, Some(base)) = (row.encoding.codec, base) {
        row.encoding.run_head = base.run_head;
        // Invariant I13: the height falls along the link.
        row.height = base.record.height + 1;
        let name: BaseId = base.record.id.0[..8]
            .try_into()
            .expect("invariant: eight of 32");
        row.bases = vec![name];
    }
}

fn seal(open: OpenPack) -> FinishedPack {
    let OpenPack { mut sealer, rows } = open;
    let table = pack::encode_table(&rows);
    sealer.push(&table);
    let object = sealer.finish();
    let id = PackId(*blake3::hash(&object).as_bytes());
    let bytes = PackBytes {
        stored_bytes: object.len() as u64,
        table_bytes: table.len() as u64,
    };
    FinishedPack {
        id,
        object,
        bytes,
        rows,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
