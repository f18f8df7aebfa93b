//! Reading chunks: look up, fetch, open, decode, verify.
//!
//! Invariant I3: bytes leave here only after their id matched. Invariant I13: a base is looked for
//! only among records of lower height, so decoding ends whatever the packs claim.
//! Finished packs of a running backup are added here before the log names them. Who only reads can
//! follow the log: then a prune beside it that stores records elsewhere is not noticed.

use crate::codec::zstd::Decoder;
use crate::safeguard::Safeguard;
mod decode;
mod follow;

use crate::error::Error;
use crate::error::Result;
use crate::format::container;
use crate::format::container::ObjectKind;
use crate::format::container::Opener;
use crate::format::container::SEGMENT_BYTES;
use crate::format::entry::PackBytes;
use crate::format::pack;
use crate::format::pack::BaseId;
use crate::format::pack::Encoding;
use crate::format::pack::Row;
use crate::id::ChunkId;
use crate::id::PackId;
use crate::repo::Repo;
use crate::repo::index::Bases;
use crate::repo::index::Index;
use crate::repo::index::Record;
use crate::repo::segments::SegmentCache;
use crate::store::Key;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::RwLock;

/// Every chunk a repository holds as of a state of its log.
pub struct Chunks<'r> {
    repo: &'r Repo,
    index: Index,
    packs: RwLock<HashMap<PackId, PackEntry>>,
    segments: SegmentCache,
    /// Packs in which nothing is looked for.
    absent: BTreeSet<PackId>,
    /// Packs whose table cannot be read, and why.
    unreadable: Mutex<BTreeMap<PackId, Error>>,
    /// Packs because of which a chunk could not be read.
    suspect: Mutex<BTreeSet<PackId>>,
    /// How the log is read again when packs are gone; `None` for who holds on to one state.
    follow: Option<follow::Follow>,
}

#[derive(Clone)]
struct PackEntry {
    bytes: PackBytes,
    opener: Option<Arc<Opener>>,
}

/// What one thread needs to decode: contexts and buffers that are kept.
#[derive(Default)]
pub struct Scratch {
    decoder: Decoder,
    stored: Vec<u8>,
    spare: Vec<Vec<u8>>,
    /// Packs that records were read from since somebody cleared it.
    pub touched: BTreeSet<PackId>,
    /// Packs of records that did not decode.
    failed: BTreeSet<PackId>,
}

impl<'r> Chunks<'r> {
    /// Opens the chunks of these packs. Tables that the local index lacks are read from the packs.
    pub fn open(repo: &'r Repo, packs: &BTreeMap<PackId, PackBytes>) -> Result<Chunks<'r>> {
        Chunks::open_without(repo, packs, &BTreeSet::new())
    }

    /// Opens the chunks of these packs as if some of them were not there. What the local index
    /// knows of those stays in it: it may be all that is left of their tables.
    pub fn open_without(
        repo: &'r Repo,
        packs: &BTreeMap<PackId, PackBytes>,
        absent: &BTreeSet<PackId>,
    ) -> Result<Chunks<'r>> {
        let index_dir = repo.cache_dir().map(|dir| dir.join("index"));
        let index = Index::open(index_dir.as_deref());
        if Safeguard::IndexFollowsLog.holds() {
            index.retain_packs(&|pack| packs.contains_key(pack));
        }
        let entry = |(pack, bytes): (&PackId, &PackBytes)| {
            (
                *pack,
                PackEntry {
                    bytes: *bytes,
                    opener: None,
                },
            )
        };
        let chunks = Chunks {
            repo,
            index,
            packs: RwLock::new(packs.iter().map(entry).collect()),
            segments: SegmentCache::default(),
            absent: absent.clone(),
            unreadable: Mutex::default(),
            suspect: Mutex::default(),
            follow: None,
        };
        chunks.load_missing_tables()?;
        Ok(chunks)
    }

    /// Returns the repository these chunks are in.
    pub fn repo(&self) -> &'r Repo {
        self.repo
    }

    /// Keeps the index for the next run.
    pub fn save_index(&self) {
        self.index.save();
    }

    fn load_missing_tables(&self) -> Result<()> {
        let known = self.index.packs();
        let packs: Vec<PackId> = {
            let packs = self.packs.read().unwrap_or_else(PoisonError::into_inner);
            packs
                .keys()
                .filter(|pack| !known.contains(pack) && !self.absent.contains(pack))
                .copied()
                .collect()
        };
        for pack in packs {
            match self.table(&pack) {
                Ok(rows) => self.index.insert_pack(pack, records(pack, &rows)),
                // One damaged pack must not keep the others from being used: what lies in it is
                // missing to whoever asks for it, and a backup stores it again.
                Err(error @ (Error::Missing { .. } | Error::Corrupt { .. })) => {
                    self.lock_unreadable().insert(pack, error);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Returns about how many records there are, those of packs dropped lately included.
    pub fn record_count(&self) -> u64 {
        self.index.stats().entry_count
    }

    /// Returns what is wrong with packs whose tables could not be read.
    pub fn unreadable_packs(&self) -> Vec<(PackId, String)> {
        let unreadable = self.lock_unreadable();
        unreadable
            .iter()
            .map(|(pack, error)| (*pack, error.to_string()))
            .collect()
    }

    /// Returns why the tables of packs could not be read, once.
    pub fn unreadable(&self) -> Vec<(PackId, Error)> {
        let unreadable = std::mem::take(&mut *self.lock_unreadable());
        unreadable.into_iter().collect()
    }

    /// Returns the packs because of which a chunk could not be read from any of its records.
    pub fn suspect_packs(&self) -> BTreeSet<PackId> {
        let suspect = self.suspect.lock().unwrap_or_else(PoisonError::into_inner);
        suspect.clone()
    }

    fn lock_unreadable(&self) -> MutexGuard<'_, BTreeMap<PackId, Error>> {
        self.unreadable
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a finished pack that is durable in the store.
    pub fn add_pack(&self, pack: PackId, bytes: PackBytes, rows: &[Row]) {
        let entry = PackEntry {
            bytes,
            opener: None,
        };
        self.packs
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(pack, entry);
        self.index.insert_pack(pack, records(pack, rows));
    }

    /// Reads the table of a pack.
    pub fn table(&self, pack: &PackId) -> Result<Vec<Row>> {
        let (opener, bytes) = self.opener(pack)?;
        let end = opener.plain_bytes();
        let start = end.checked_sub(bytes.table_bytes);
        let start = start.ok_or_else(|| damaged(pack, "its table is longer than it"))?;
        let table = self.fetch(pack, &opener, start..end)?;
        pack::decode_table(&table).map_err(|malformed| malformed.of(Key::pack(pack).to_string()))
    }

    /// Returns the records of a chunk, the least height first.
    pub fn find(&self, id: &ChunkId) -> Vec<Record> {
        let mut found = self.index.find(id);
        found.retain(|record| self.is_there(record));
        found
    }

    /// Returns the records that a record of this height may mean by this name of a base.
    pub fn find_base(&self, base: &BaseId, below_height: u8) -> Vec<Record> {
        let mut found = self.index.find_base(base, below_height);
        found.retain(|record| self.is_there(record));
        found
    }

    fn is_there(&self, record: &Record) -> bool {
        self.absent.is_empty() || !self.absent.contains(&record.pack)
    }

    /// Replaces `out` by the stored bytes of a record. They are authentic, and not decoded.
    pub fn read_stored(&self, record: &Record, out: &mut Vec<u8>) -> Result<()> {
        out.clear();
        if record.stored_bytes == 0 {
            return Ok(());
        }
        let (opener, _) = self.opener(&record.pack)?;
        let start = u64::from(record.offset);
        let end = start + u64::from(record.stored_bytes);
        if end > opener.plain_bytes() {
            return Err(damaged(&record.pack, "a record lies outside it"));
        }
        let segment_bytes = SEGMENT_BYTES as u64;
        for segment in start / segment_bytes..end.div_ceil(segment_bytes) {
            let first = segment * segment_bytes;
            let plain = match self.segments.get(&record.pack, segment) {
                Some(plain) => plain,
                None => {
                    // One request for all that is missing from here on, not one each.
                    let last = end.div_ceil(segment_bytes) * segment_bytes;
                    let range = first..last.min(opener.plain_bytes());
                    let fetched = self.fetch(&record.pack, &opener, range)?;
                    self.segments.put(&record.pack, segment, &fetched)
                }
            };
            let from = start.max(first) - first;
            let to = end.min(first + plain.len() as u64) - first;
            out.extend_from_slice(&plain[from as usize..to as usize]);
        }
        Ok(())
    }

    /// Reads and opens a range of the plain stream of a pack.
    fn fetch(
        &self,
        pack: &PackId,
        opener: &Opener,
        plain: std::ops::Range<u64>,
    ) -> Result<Vec<u8>> {
        let key = Key::pack(pack);
        let named = |malformed: crate::format::wire::Malformed| malformed.of(key.to_string());
        let range = opener.stored_range(&plain).map_err(named)?;
        let bytes = self.repo.store().get_range(&key, range)?;
        let mut bytes = bytes.ok_or_else(|| Error::Missing {
            object: key.to_string(),
        })?;
        opener.unseal_range(&plain, &mut bytes).map_err(named)?;
        Ok(bytes)
    }

    fn opener(&self, pack: &PackId) -> Result<(Arc<Opener>, PackBytes)> {
        let key = Key::pack(pack);
        let entry = {
            let packs = self.packs.read().unwrap_or_else(PoisonError::into_inner);
            packs.get(pack).cloned()
        };
        let entry = entry.ok_or_else(|| Error::Missing {
            object: key.to_string(),
        })?;
        if let Some(opener) = entry.opener {
            return Ok((opener, entry.bytes));
        }
        let opener = Arc::new(open_pack(self.repo, pack, entry.bytes.stored_bytes)?);
        let mut packs = self.packs.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = packs.get_mut(pack) {
            entry.opener = Some(Arc::clone(&opener));
        }
        Ok((opener, entry.bytes))
    }
}

impl Scratch {
    /// Returns an empty buffer, one that was used before if there is any.
    fn spare(&mut self) -> Vec<u8> {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer
    }

    /// Takes back a buffer.
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < 4 {
            self.spare.push(buffer);
        }
    }
}

/// Reads the header of a pack of this length. What seems to be of a later version is damaged if it
/// is not what the pack is named after: one flipped bit must not keep everything from being read.
pub fn open_pack(repo: &Repo, pack: &PackId, stored_bytes: u64) -> Result<Opener> {
    let key = Key::pack(pack);
    let missing = || Error::Missing {
        object: key.to_string(),
    };
    let header = 0..container::HEADER_BYTES as u64;
    let head = repo.store().get_range(&key, header)?.ok_or_else(missing)?;
    let keys = repo.secrets().data_keys();
    let opened = Opener::begin(keys, ObjectKind::Pack, &head, stored_bytes);
    match opened.map_err(|malformed| malformed.of(key.to_string())) {
        Err(Error::TooNew { .. }) if !is_named_after_its_bytes(repo, pack, stored_bytes)? => {
            Err(Error::corrupt(key.to_string(), "its header was changed"))
        }
        result => result,
    }
}

fn is_named_after_its_bytes(repo: &Repo, pack: &PackId, stored_bytes: u64) -> Result<bool> {
    let object = repo.store().get_range(&Key::pack(pack), 0..stored_bytes)?;
    Ok(object.is_some_and(|object| blake3::hash(&object).as_bytes() == pack.as_bytes()))
}

/// Returns how a record is stored.
pub fn encoding(record: &Record) -> Result<Encoding> {
    Encoding::from_byte(record.codec)
        .map_err(|malformed| malformed.of(Key::pack(&record.pack).to_string()))
}

/// Returns the records of a pack, from its table.
pub fn records(pack: PackId, rows: &[Row]) -> Vec<Record> {
    let mut offset = 0;
    let mut record = |row: &Row| {
        let record = Record {
            id: row.id,
            height: row.height,
            pack,
            offset,
            stored_bytes: row.stored_bytes,
            plain_bytes: row.plain_bytes,
            codec: row.encoding.byte(),
            bases: Bases::new(&row.bases),
        };
        offset = offset.saturating_add(row.stored_bytes);
        record
    };
    rows.iter().map(&mut record).collect()
}

fn damaged(pack: &PackId, reason: &str) -> Error {
    Error::corrupt(Key::pack(pack).to_string(), reason)
}
