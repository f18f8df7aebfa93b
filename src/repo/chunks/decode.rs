//! Decoding: which records a chunk leans on, and turning them into its bytes.
//!
//! The quick way takes the first record each name of a base may mean and verifies the end. Only if
//! that is wrong are other records tried, each verified on its own.

use crate::error::Error;
use crate::error::Result;
use crate::format::pack;
use crate::format::pack::BaseId;
use crate::format::pack::ChunkKind;
use crate::format::pack::Codec;
use crate::id::ChunkId;
use crate::id::PackId;
use crate::repo::chunks::Chunks;
use crate::repo::chunks::Scratch;
use crate::repo::chunks::damaged;
use crate::repo::chunks::encoding;
use crate::repo::index::Record;
use crate::safeguard::Safeguard;
use std::collections::BTreeSet;
use std::sync::PoisonError;

/// Records that reading one chunk may decode. A chain has 64; several bases of several bases could
/// otherwise take for ever. Format: a writer stays below.
const RECORDS_MAX: usize = 4096;

impl Chunks<'_> {
    /// Returns a record and those it leans on, first bases only, down to one that stands alone.
    pub fn chain(&self, record: &Record) -> Result<Vec<Record>> {
        let mut chain = vec![*record];
        let mut last = *record;
        while let Some(base) = last.bases.first() {
            let found = self.find_base(base, last.height).into_iter().next();
            last = found.ok_or_else(|| missing_base(&last.id))?;
            chain.push(last);
        }
        Ok(chain)
    }

    /// Returns the packs that reading this record needs.
    pub fn needed_packs(&self, record: &Record) -> Result<BTreeSet<PackId>> {
        let mut needed = BTreeSet::new();
        self.add_needed_packs(record, &mut needed, &mut RECORDS_MAX.clone())?;
        Ok(needed)
    }

    fn add_needed_packs(
        &self,
        record: &Record,
        needed: &mut BTreeSet<PackId>,
        budget: &mut usize,
    ) -> Result<()> {
        for record in &self.chain(record)? {
            spend(budget, record)?;
            needed.insert(record.pack);
            if record.bases.count() > 1 {
                for base in self.bases(record)?.iter().skip(1) {
                    let other = self.find_base(base, record.height).into_iter().next();
                    let other = other.ok_or_else(|| missing_base(&record.id))?;
                    self.add_needed_packs(&other, needed, budget)?;
                }
            }
        }
        Ok(())
    }

    /// Reads a chunk.
    pub fn read(&self, scratch: &mut Scratch, kind: ChunkKind, id: &ChunkId) -> Result<Vec<u8>> {
        let mut seen = self.log_seen();
        let read = loop {
            match self.read_once(scratch, kind, id) {
                Err(Error::Missing { .. } | Error::Corrupt { .. }) if self.log_moved(&mut seen) => {
                }
                read => break read,
            }
        };
        if let Err(Error::Missing { .. } | Error::Corrupt { .. }) = &read {
            let mut suspect = self.suspect.lock().unwrap_or_else(PoisonError::into_inner);
            suspect.append(&mut scratch.failed);
        }
        read
    }

    fn read_once(&self, scratch: &mut Scratch, kind: ChunkKind, id: &ChunkId) -> Result<Vec<u8>> {
        scratch.failed.clear();
        match self.read_indexed(scratch, kind, id) {
            // The index is a cache: what it lacks is asked of the packs themselves, once.
            Err(Error::Missing { .. } | Error::Corrupt { .. }) if self.index.is_damaged() => {
                self.load_missing_tables()?;
                self.read_indexed(scratch, kind, id)
            }
            result => result,
        }
    }

    fn read_indexed(
        &self,
        scratch: &mut Scratch,
        kind: ChunkKind,
        id: &ChunkId,
    ) -> Result<Vec<u8>> {
        let mut failed = Error::Missing {
            object: format!("chunk {id}"),
        };
        for record in self.find(id) {
            match self.read_record(scratch, kind, &record) {
                Ok(plain) => return Ok(plain),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Reads a chunk from this record of it.
    pub fn read_record(
        &self,
        scratch: &mut Scratch,
        kind: ChunkKind,
        record: &Record,
    ) -> Result<Vec<u8>> {
        let mut budget = RECORDS_MAX;
        let plain = self
            .chain(record)
            .and_then(|chain| self.decode_chain(scratch, &chain, &mut budget));
        if let Ok(plain) = plain {
            if self.repo.secrets().chunk_id(kind, &plain) == record.id
                || !Safeguard::IdChecked.holds()
            {
                return Ok(plain);
            }
            scratch.recycle(plain);
        } else if record.bases.count() == 0 {
            return plain;
        }
        // Another chunk may answer to the short name of a base: try what there is, verifying each.
        let mut budget = RECORDS_MAX;
        self.decode_carefully(scratch, kind, record, &mut budget)
    }

    /// Decodes a chain from its end. Only the caller knows whether the result is right.
    fn decode_chain(
        &self,
        scratch: &mut Scratch,
        chain: &[Record],
        budget: &mut usize,
    ) -> Result<Vec<u8>> {
        let mut prefix = scratch.spare();
        for record in chain.iter().rev() {
            if record.bases.count() > 1 {
                for base in self.bases(record)?.iter().skip(1) {
                    let other = self.find_base(base, record.height).into_iter().next();
                    let other = other.ok_or_else(|| missing_base(&record.id))?;
                    let plain = self.decode_chain(scratch, &self.chain(&other)?, budget)?;
                    prefix.extend_from_slice(&plain);
                    scratch.recycle(plain);
                }
            }
            spend(budget, record)?;
            let plain = self.decode(scratch, record, &prefix)?;
            scratch.recycle(std::mem::replace(&mut prefix, plain));
        }
        Ok(prefix)
    }

    fn decode_carefully(
        &self,
        scratch: &mut Scratch,
        kind: ChunkKind,
        record: &Record,
        budget: &mut usize,
    ) -> Result<Vec<u8>> {
        let mut choices: Vec<Vec<Record>> = Vec::new();
        for base in self.bases(record)? {
            choices.push(self.find_base(&base, record.height));
        }
        // The fault is not this pack's.
        if choices.iter().any(Vec::is_empty) {
            return Err(missing_base(&record.id));
        }
        let combinations = choices
            .iter()
            .try_fold(1_usize, |product, choice| product.checked_mul(choice.len()))
            .unwrap_or(usize::MAX);
        let mut failed = damaged(
            &record.pack,
            &format!("chunk {} does not decode", record.id),
        );
        for number in 0..combinations {
            spend(budget, record)?;
            let mut prefix = Vec::new();
            let mut rest = number;
            let mut complete = true;
            for candidates in &choices {
                let candidate = &candidates[rest % candidates.len()];
                rest /= candidates.len();
                let kind = encoding(candidate)?.kind;
                match self.decode_carefully(scratch, kind, candidate, budget) {
                    Ok(plain) => prefix.extend_from_slice(&plain),
                    Err(error) => {
                        failed = error;
                        complete = false;
                    }
                }
            }
            if complete {
                let plain = self.decode(scratch, record, &prefix)?;
                if self.repo.secrets().chunk_id(kind, &plain) == record.id {
                    return Ok(plain);
                }
            }
        }
        Err(failed)
    }

    /// Returns the names of all bases of a record.
    pub fn bases(&self, record: &Record) -> Result<Vec<BaseId>> {
        if let Some(all) = record.bases.all() {
            return Ok(all.to_vec());
        }
        let mut offset = 0;
        for row in self.table(&record.pack)? {
            if offset == u64::from(record.offset) && row.id == record.id {
                return Ok(row.bases);
            }
            offset += u64::from(row.stored_bytes);
        }
        Err(damaged(&record.pack, "a record is not in its table"))
    }

    fn decode(&self, scratch: &mut Scratch, record: &Record, prefix: &[u8]) -> Result<Vec<u8>> {
        if prefix.len() > pack::PREFIX_BYTES_MAX {
            return Err(damaged(&record.pack, "the bases of a record are too long"));
        }
        scratch.touched.insert(record.pack);
        let mut plain = scratch.spare();
        let mut stored = std::mem::take(&mut scratch.stored);
        let done = self.read_stored(record, &mut stored).and_then(|()| {
            let plain_bytes = record.plain_bytes as usize;
            let prefix = match encoding(record)?.codec {
                Codec::Raw => {
                    plain.extend_from_slice(&stored);
                    return Ok(());
                }
                Codec::Zstd => &[],
                Codec::Delta => prefix,
            };
            let decoded = scratch
                .decoder
                .decode(&stored, prefix, plain_bytes, &mut plain);
            decoded.map_err(|error| damaged(&record.pack, &format!("chunk {}: {error}", record.id)))
        });
        scratch.stored = stored;
        if done.is_err() {
            scratch.failed.insert(record.pack);
        }
        done.map(|()| plain)
    }
}

/// Counts one more record against what reading a chunk may take.
fn spend(budget: &mut usize, record: &Record) -> Result<()> {
    let left = budget.checked_sub(1);
    *budget = left.ok_or_else(|| damaged(&record.pack, "a chunk leans on too many records"))?;
    Ok(())
}

fn missing_base(id: &ChunkId) -> Error {
    Error::Missing {
        object: format!("a base of chunk {id}"),
    }
}
