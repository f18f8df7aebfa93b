//! Checks packs: that they are there, that log, length, tail and table agree, that every record
//! finds its bases below it (I13), and, when asked, that every record decodes to its chunk.

use crate::codec::zstd::Decoder;
use crate::context::Context;
use crate::context::Event;
use crate::error::Error;
use crate::error::Result;
use crate::format::container::HEADER_BYTES;
use crate::format::container::ObjectKind;
use crate::format::container::Opener;
use crate::format::entry::PackBytes;
use crate::format::extents;
use crate::format::pack;
use crate::format::pack::ChunkKind;
use crate::format::pack::Codec;
use crate::format::pack::Row;
use crate::format::pack::TAIL_BYTES;
use crate::format::wire::Decoded;
use crate::id::PackId;
use crate::ops::budget::Budget;
use crate::ops::check::CheckReport;
use crate::ops::check::findings::Cause;
use crate::ops::check::findings::Findings;
use crate::ops::check::findings::cause_of;
use crate::ops::check::for_each;
use crate::ops::check::overlaps::ExtentEnds;
use crate::ops::inspect;
use crate::repo::Repo;
use crate::repo::chunks;
use crate::repo::chunks::Chunks;
use crate::repo::chunks::Scratch;
use crate::repo::index::Record;
use crate::store::Folder;
use crate::store::Key;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// Bytes of packs that all threads together hold while they read them from end to end.
const HELD_BYTES_MAX: u64 = 48 << 20;

/// Records that do not decode, by pack and offset, and why.
pub(super) type Damaged = HashMap<(PackId, u32), Cause>;

/// Opens every pack and returns those whose table can be used.
pub(super) fn open_all(
    cx: &Context,
    repo: &Repo,
    packs: &BTreeMap<PackId, PackBytes>,
    findings: &Findings,
    without: &BTreeSet<PackId>,
    report: &mut CheckReport,
) -> Result<BTreeMap<PackId, PackBytes>> {
    let mut listed = BTreeMap::new();
    for row in repo.store().list(Folder::Packs)? {
        match row
            .name
            .parse::<PackId>()
            .ok()
            .filter(|pack| packs.contains_key(pack))
        {
            Some(pack) => {
                listed.insert(pack, row.stored_bytes);
            }
            None => report.orphans.add(row.name.as_bytes(), row.stored_bytes),
        }
    }
    let readable = Mutex::new(BTreeMap::new());
    let wanted = packs.iter().filter(|(pack, _)| !without.contains(pack));
    let all: Vec<_> = wanted.collect();
    for_each(cx, &all, |(pack, bytes), _| {
        match open_pack(repo, pack, bytes, listed.get(pack).copied()) {
            Ok(_) => {
                let mut readable = readable.lock().unwrap_or_else(PoisonError::into_inner);
                readable.insert(**pack, **bytes);
            }
            Err(error) => findings.bad_pack(**pack, &error),
        }
        cx.progress.event(Event::Done { files: 1, bytes: 0 });
        Ok(())
    })?;
    Ok(readable
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner))
}

/// Returns the table of a pack if everything that is said about it agrees.
fn open_pack(
    repo: &Repo,
    pack: &PackId,
    bytes: &PackBytes,
    listed: Option<u64>,
) -> Result<Vec<Row>> {
    let key = Key::pack(pack);
    let object = || key.to_string();
    let missing = || Error::Missing { object: object() };
    // A listing may lack what is there (I14).
    let stored_bytes = match listed {
        Some(stored_bytes) => stored_bytes,
        None => repo.store().stored_bytes(&key)?.ok_or_else(missing)?,
    };
    if stored_bytes != bytes.stored_bytes {
        let wanted = bytes.stored_bytes;
        let reason = format!("it has {stored_bytes} bytes where the log says {wanted}");
        return Err(Error::corrupt(object(), reason));
    }
    let get = |range: Range<u64>| repo.store().get_range(&key, range)?.ok_or_else(missing);
    let opener = chunks::open_pack(repo, pack, stored_bytes)?;
    let fetch = |range: Range<u64>| {
        let stored = opener
            .stored_range(&range)
            .map_err(|malformed| malformed.of(object()))?;
        let mut bytes = get(stored)?;
        let opened = opener.unseal_range(&range, &mut bytes);
        opened.map_err(|malformed| malformed.of(object()))?;
        Ok::<_, Error>(bytes)
    };
    let end = opener.plain_bytes();
    let tail = fetch(end.saturating_sub(TAIL_BYTES as u64)..end)?;
    let short = |_| Error::corrupt(object(), "it has no tail");
    let tail: [u8; TAIL_BYTES] = tail.try_into().map_err(short)?;
    let table_bytes = pack::table_bytes(&tail, end).map_err(|malformed| malformed.of(object()))?;
    if table_bytes != bytes.table_bytes {
        let wanted = bytes.table_bytes;
        let reason = format!("its table has {table_bytes} bytes where the log says {wanted}");
        return Err(Error::corrupt(object(), reason));
    }
    let table = fetch(end - table_bytes..end)?;
    pack::decode_table(&table).map_err(|malformed| malformed.of(object()))
}

/// Checks what is in the packs.
pub(super) struct PackCheck<'a> {
    cx: &'a Context,
    chunks: &'a Chunks<'a>,
    findings: &'a Findings,
    damaged: Mutex<Damaged>,
    extent_ends: Mutex<ExtentEnds>,
    broken_records: AtomicU64,
    whole: Mutex<BTreeSet<PackId>>,
    read_packs: AtomicU64,
    read_records: AtomicU64,
}

impl<'a> PackCheck<'a> {
    pub(super) fn new(
        cx: &'a Context,
        chunks: &'a Chunks<'a>,
        findings: &'a Findings,
    ) -> PackCheck<'a> {
        PackCheck {
            cx,
            chunks,
            findings,
            damaged: Mutex::default(),
            extent_ends: Mutex::default(),
            broken_records: AtomicU64::new(0),
            whole: Mutex::default(),
            read_packs: AtomicU64::new(0),
            read_records: AtomicU64::new(0),
        }
    }

    /// Checks that every base of every record has a record of lower height. As that is then true
    /// of the base's record too, every chain ends.
    pub(super) fn chains(&self, packs: &BTreeMap<PackId, PackBytes>) -> Result<()> {
        let all: Vec<_> = packs.keys().collect();
        for_each(self.cx, &all, |pack, _| {
            match self.chunks.table(pack) {
                Ok(rows) => rows.iter().for_each(|row| self.chain(row)),
                Err(error) => {
                    self.findings.error(&error);
                }
            }
            Ok(())
        })
    }

    /// Counts what leans on nothing below it. That is no damage by itself: what was stored again
    /// leaves such records behind, and a base that went may come back higher up. Whether anybody
    /// needs them is found out with the trees.
    fn chain(&self, row: &Row) {
        let stands = |base| !self.chunks.find_base(base, row.height).is_empty();
        let broken = row.bases.iter().filter(|base| !stands(base)).count();
        self.broken_records
            .fetch_add(broken as u64, Ordering::Relaxed);
    }

    /// Reads packs from end to end.
    pub(super) fn read(&self, packs: &[(PackId, PackBytes)]) -> Result<()> {
        let budget = Budget::new(HELD_BYTES_MAX);
        let (files, bytes) = (
            packs.len() as u64,
            packs.iter().map(|p| p.1.stored_bytes).sum(),
        );
        self.cx.progress.event(Event::Total { files, bytes });
        for_each(self.cx, packs, |(pack, bytes), scratch| {
            let _share = budget.take(bytes.stored_bytes);
            if let Err(error) = self.read_pack(scratch, pack) {
                self.cx.check()?;
                self.findings.error(&error);
            }
            self.read_packs.fetch_add(1, Ordering::Relaxed);
            let bytes = bytes.stored_bytes;
            self.cx.progress.event(Event::Done { files: 1, bytes });
            Ok(())
        })
    }

    fn read_pack(&self, scratch: &mut Scratch, pack: &PackId) -> Result<()> {
        let (key, repo) = (Key::pack(pack), self.chunks.repo());
        let object = repo.store().get(&key)?;
        let object = object.ok_or_else(|| Error::Missing {
            object: key.to_string(),
        })?;
        if blake3::hash(&object).as_bytes() != pack.as_bytes() {
            // What was in it is lost unless it turns up elsewhere.
            let message = "its bytes are not those it is named after";
            self.findings.rotten(*pack, message);
        } else {
            let mut whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
            whole.insert(*pack);
        }
        let plain = match open_in_place(repo, object) {
            Ok(plain) => Some(plain),
            // Segment by segment it may still be told which records are lost.
            Err(malformed) => {
                self.findings.error(&malformed.of(key.to_string()));
                None
            }
        };
        let rows = self.chunks.table(pack)?;
        let mut decoder = Decoder::new();
        for (row, record) in rows.iter().zip(chunks::records(*pack, &rows)) {
            self.cx.check()?;
            let done = match &plain {
                Some(plain) if row.encoding.codec != Codec::Delta => {
                    self.decode(&mut decoder, plain, row, &record)
                }
                _ => self.chunks.read_record(scratch, row.encoding.kind, &record),
            };
            match done {
                Ok(plain) => {
                    if row.encoding.kind == ChunkKind::Data
                        && let Ok(extents) = extents::decode(&plain)
                    {
                        self.extent_ends().learn(row.id, &extents);
                    }
                    scratch.recycle(plain);
                }
                Err(error) => {
                    let cause = match self.chunks.needed_packs(&record) {
                        Err(Error::Missing { .. }) => Cause::Lost,
                        _ => self.findings.error(&error),
                    };
                    let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
                    damaged.insert((*pack, record.offset), cause);
                }
            }
            self.read_records.fetch_add(1, Ordering::Relaxed);
        }
        self.extent_ends().read_through(*pack);
        Ok(())
    }

    fn extent_ends(&self) -> MutexGuard<'_, ExtentEnds> {
        let ends = self.extent_ends.lock();
        ends.unwrap_or_else(PoisonError::into_inner)
    }

    fn decode(
        &self,
        decoder: &mut Decoder,
        pack_plain: &[u8],
        row: &Row,
        record: &Record,
    ) -> Result<Vec<u8>> {
        let wrong = |reason: &str| {
            let reason = format!("chunk {} {reason}", row.id);
            Error::corrupt(Key::pack(&record.pack).to_string(), reason)
        };
        let (offset, len) = (u64::from(record.offset), u64::from(row.stored_bytes));
        let range = inspect::within(pack_plain, offset, len);
        let stored = &pack_plain[range.ok_or_else(|| wrong("lies outside it"))?];
        let mut plain = Vec::new();
        if row.encoding.codec == Codec::Raw {
            plain.extend_from_slice(stored);
        } else {
            let decoded = decoder.decode(stored, &[], row.plain_bytes as usize, &mut plain);
            decoded.map_err(|_| wrong("does not decompress"))?;
        }
        let id = self
            .chunks
            .repo()
            .secrets()
            .chunk_id(row.encoding.kind, &plain);
        match id == row.id {
            true => Ok(plain),
            false => Err(wrong("is not what it is named after")),
        }
    }

    pub(super) fn count(&self, report: &mut CheckReport) {
        report.read_packs = self.read_packs.load(Ordering::Relaxed);
        report.read_records = self.read_records.load(Ordering::Relaxed);
        report.broken_records = self.broken_records.load(Ordering::Relaxed);
        let whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        report.whole_packs.clone_from(&whole);
    }

    /// Returns the records that do not decode, `None` if every record found can be relied on, and
    /// what was learned of extents.
    pub(super) fn finish(self) -> (Option<Damaged>, ExtentEnds) {
        let damaged = self
            .damaged
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let broken = self.broken_records.into_inner() > 0;
        let is_whole = damaged.is_empty() && !broken && !self.findings.has_bad_packs();
        let ends = self.extent_ends.into_inner();
        let ends = ends.unwrap_or_else(PoisonError::into_inner);
        ((!is_whole).then_some(damaged), ends)
    }
}

/// Opens a whole pack without a second copy of it.
fn open_in_place(repo: &Repo, mut object: Vec<u8>) -> Decoded<Vec<u8>> {
    let (keys, stored_bytes) = (repo.secrets().data_keys(), object.len() as u64);
    let opener = Opener::begin(keys, ObjectKind::Pack, &object, stored_bytes)?;
    object.drain(..HEADER_BYTES);
    opener.unseal_range(&(0..opener.plain_bytes()), &mut object)?;
    Ok(object)
}

/// Returns the cause of an error without noting it.
pub(super) fn quietly(error: &Error) -> Cause {
    cause_of(error).0
}
