//! Every record of every pack as a fixed entry of 40 bytes, sorted by chunk and height, and the
//! mark.
//!
//! Read from the tables of the packs themselves: the local index is only a hint, and what is
//! decided here is deleted. Ten million records take 400 MB, 60 MB to know what followed what, and
//! for a moment 40 MB for the order of heights.
//!
//! Two bits matter. A chunk is *named* if a snapshot reaches it, and *kept* if it is named or a
//! base of what is kept. Invariant (I13): of every kept chunk one record of the least height is
//! kept among those that can be decoded at all; as heights fall along base links, each base of a
//! kept record has one too, below it. Which of several is taken cannot close a circle.

use crate::context::Context;
use crate::error::Error;
use crate::error::Result;
use crate::format::entry::PackBytes;
use crate::format::note::Lost;
use crate::format::pack;
use crate::id::ChunkId;
use crate::id::PackId;
use crate::ops::prune::thin::Reencode;
use crate::repo::chunks;
use crate::repo::chunks::Chunks;
use crate::safeguard::Safeguard;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::ops::Range;

/// Every base, theirs too, has a record below that can be decoded.
const WHOLE: u8 = 1;
/// A snapshot reaches its chunk.
const NAMED: u8 = 2;
/// The record that stays for its chunk.
const KEPT: u8 = 4;
/// It is kept, and is to be stored again against another base.
const REENCODE: u8 = 8;

/// The first half of an id: two chunks that share it are kept together.
type Name = [u64; 2];

/// One record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    name: Name,
    /// The start of the id of the first base.
    base: u64,
    /// The place of its pack in `packs`.
    pub(super) pack: u32,
    /// Where it begins in the pack.
    pub(super) offset: u32,
    /// Its length there.
    pub(super) stored_bytes: u32,
    /// Above that of its bases.
    pub(super) height: u8,
    base_count: u8,
    flags: u8,
}

impl Entry {
    /// Returns the start of the id of its chunk.
    pub(super) fn start(&self) -> [u8; 8] {
        self.name[0].to_be_bytes()
    }

    fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Returns whether it stays in its pack or wherever that is copied to.
    pub(super) fn is_copied(&self) -> bool {
        self.is(KEPT) && !self.is(REENCODE)
    }

    /// Returns whether it is kept.
    pub(super) fn is_kept(&self) -> bool {
        self.is(KEPT)
    }

    /// Returns whether it is kept for a snapshot, not only as a base.
    pub(super) fn is_named(&self) -> bool {
        self.is(KEPT) && self.is(NAMED)
    }
}

/// A pack.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pack {
    pub(super) id: PackId,
    pub(super) bytes: PackBytes,
    /// Stored by this prune and in no entry of the log yet.
    pub(super) is_own: bool,
    /// Its table cannot be read, or the log calls it lost: nothing of it is relied on, and it stays
    /// for whoever repairs.
    pub(super) is_unreadable: bool,
    /// How much of it snapshots reach, in thousandths.
    rank: u16,
}

/// All records of a repository.
#[derive(Default)]
pub(super) struct Records {
    pub(super) packs: Vec<Pack>,
    entries: Vec<Entry>,
    /// By entry: the first snapshot of those that were marked that names its chunk.
    firsts: Vec<u16>,
    /// By entry, the first of its chunk: what stood in its place in the snapshot before.
    before: Vec<u32>,
    /// Bases beyond the first, by pack and offset.
    more_bases: BTreeMap<(u32, u32), Vec<u64>>,
}

impl Records {
    /// Returns no records, with room for so many: growing by itself, it would take twice as much.
    pub(super) fn with_room(count: u64) -> Records {
        let mut records = Records::default();
        let count = usize::try_from(count).unwrap_or(0);
        let _ = records.entries.try_reserve_exact(count);
        records
    }

    /// Reads the tables of all packs. What the log calls lost counts as not there.
    pub(super) fn read(
        cx: &Context,
        chunks: &Chunks<'_>,
        packs: &BTreeMap<PackId, PackBytes>,
        own: &BTreeMap<PackId, PackBytes>,
        lost: &Lost,
    ) -> Result<Records> {
        let mut records = Records::with_room(chunks.record_count());
        for (id, bytes) in packs.iter().chain(own) {
            cx.check()?;
            let rows = match chunks.table(id) {
                Ok(rows) => Some(rows),
                Err(Error::Missing { .. } | Error::Corrupt { .. }) => None,
                Err(error) => return Err(error),
            };
            let is_lost = lost.packs.contains(id);
            records.packs.push(Pack {
                id: *id,
                bytes: *bytes,
                is_own: own.contains_key(id),
                is_unreadable: rows.is_none() || is_lost,
                rank: 0,
            });
            let rows = rows.unwrap_or_default();
            records.add(&rows, |id| is_lost || lost.chunks.contains(id));
        }
        records.finish();
        Ok(records)
    }

    /// Adds the records of the last pack.
    fn add(&mut self, rows: &[pack::Row], is_lost: impl Fn(&ChunkId) -> bool) {
        let pack = self.packs.len() as u32 - 1;
        let found = chunks::records(self.packs[pack as usize].id, rows);
        for (row, record) in rows.iter().zip(found) {
            if is_lost(&row.id) {
                continue;
            }
            if row.bases.len() > 1 {
                let more = row.bases[1..].iter().map(|base| u64::from_be_bytes(*base));
                self.more_bases
                    .insert((pack, record.offset), more.collect());
            }
            self.entries.push(Entry {
                name: name(&row.id),
                base: row
                    .bases
                    .first()
                    .map_or(0, |base| u64::from_be_bytes(*base)),
                pack,
                offset: record.offset,
                stored_bytes: row.stored_bytes,
                height: row.height,
                base_count: row.bases.len() as u8,
                flags: 0,
            });
        }
    }

    /// Adds a pack by hand.
    #[cfg(test)]
    pub(super) fn add_pack(&mut self, id: PackId, stored_bytes: u64, rows: &[pack::Row]) {
        self.packs.push(Pack {
            id,
            bytes: PackBytes {
                stored_bytes,
                table_bytes: 0,
            },
            is_own: false,
            is_unreadable: false,
            rank: 0,
        });
        self.add(rows, |_| false);
    }

    /// Sorts, and finds out which records can be decoded, from the lowest up.
    pub(super) fn finish(&mut self) {
        self.entries
            .sort_unstable_by_key(|e| (e.name, e.height, e.pack, e.offset));
        self.firsts = vec![u16::MAX; self.entries.len()];
        self.before = vec![u32::MAX; self.entries.len()];
        let mut heights = [0_usize; 257];
        for entry in &self.entries {
            heights[usize::from(entry.height) + 1] += 1;
        }
        (1..heights.len()).for_each(|height| heights[height] += heights[height - 1]);
        let mut order = vec![0_u32; self.entries.len()];
        for (at, entry) in self.entries.iter().enumerate() {
            let place = &mut heights[usize::from(entry.height)];
            order[*place] = at as u32;
            *place += 1;
        }
        for at in order {
            let at = at as usize;
            let height = self.entries[at].height;
            let is_below = |e: &Entry| e.is(WHOLE) && e.height < height;
            let has_below = |base: u64| self.entries[self.with_start(base)].iter().any(is_below);
            if self.bases(at).all(has_below) {
                self.entries[at].flags |= WHOLE;
            }
        }
    }

    fn bases(&self, at: usize) -> impl Iterator<Item = u64> {
        let entry = &self.entries[at];
        let first = (entry.base_count > 0).then_some(entry.base);
        let more = match entry.base_count {
            0 | 1 => None,
            _ => self.more_bases.get(&(entry.pack, entry.offset)),
        };
        first.into_iter().chain(more.into_iter().flatten().copied())
    }

    /// Returns the records whose ids begin so.
    fn with_start(&self, start: u64) -> Range<usize> {
        let from = self.entries.partition_point(|e| e.name[0] < start);
        let len = self.entries[from..].partition_point(|e| e.name[0] == start);
        from..from + len
    }

    fn with_name(&self, name: Name) -> Range<usize> {
        let from = self.entries.partition_point(|e| e.name < name);
        let rest = self.entries[from..].iter();
        let len = rest.take_while(|e| e.name == name).count();
        from..from + len
    }

    /// Marks a chunk as named. Fails if no record of it can be decoded: whoever deletes stops here.
    /// Snapshots are numbered as they are marked, the oldest first.
    /// Returns a number for the chunk.
    pub(super) fn mark_named(&mut self, id: &ChunkId, snapshot: u16) -> Result<u32> {
        let range = self.with_name(name(id));
        for first in &mut self.firsts[range.clone()] {
            *first = snapshot.min(*first);
        }
        let chunk = range.start as u32;
        let found = &mut self.entries[range];
        if !found.iter().any(|entry| entry.is(WHOLE)) && Safeguard::MarkComplete.holds() {
            let object = format!("chunk {id}");
            return Err(Error::Missing { object });
        }
        found.iter_mut().for_each(|entry| entry.flags |= NAMED);
        Ok(chunk)
    }

    /// Ranks packs by how much of them snapshots reach: of equal records, the one stays that was
    /// just rewritten, else the one in the fuller pack.
    pub(super) fn rank(&mut self) {
        let mut sums = vec![(0_u64, 0_u64); self.packs.len()];
        for entry in &self.entries {
            let (named, all) = &mut sums[entry.pack as usize];
            *all += u64::from(entry.stored_bytes);
            *named += u64::from(entry.stored_bytes) * u64::from(entry.is(NAMED));
        }
        for (pack, (named, all)) in self.packs.iter_mut().zip(sums) {
            pack.rank = (named * 1000).checked_div(all).unwrap_or(0) as u16;
        }
    }

    /// Chooses the records that are kept: of every named chunk, and of every base of what is kept.
    /// What is stored again against another base needs its old bases no longer.
    pub(super) fn choose(&mut self) {
        self.entries.iter_mut().for_each(|e| e.flags &= !KEPT);
        let mut ahead = Vec::new();
        let mut at = 0;
        while at < self.entries.len() {
            if self.entries[at].is(NAMED) {
                ahead.push(self.entries[at].name);
            }
            while let Some(name) = ahead.pop() {
                self.choose_one(name, &mut ahead);
            }
            let name = self.entries[at].name;
            while self.entries.get(at).is_some_and(|e| e.name == name) {
                at += 1;
            }
        }
    }

    fn choose_one(&mut self, name: Name, ahead: &mut Vec<Name>) {
        let range = self.with_name(name);
        if self.entries[range.clone()].iter().any(Entry::is_kept) {
            return;
        }
        let whole = range.filter(|&at| self.entries[at].is(WHOLE));
        let best = whole.min_by_key(|&at| {
            let entry = &self.entries[at];
            let pack = &self.packs[entry.pack as usize];
            let fullness = std::cmp::Reverse(pack.rank);
            (
                entry.height,
                !pack.is_own,
                fullness,
                entry.pack,
                entry.offset,
            )
        });
        let Some(best) = best else { return };
        self.entries[best].flags |= KEPT;
        if self.entries[best].is(REENCODE) || !Safeguard::BasesKept.holds() {
            return;
        }
        let bases: Vec<u64> = self.bases(best).collect();
        for base in bases {
            let found = self.entries[self.with_start(base)].iter();
            let mut names: Vec<Name> = found.filter(|e| e.is(WHOLE)).map(|e| e.name).collect();
            names.dedup();
            ahead.extend(names);
        }
    }

    /// Fails unless everything kept can be decoded from what is kept. It always can; nothing is
    /// deleted if a fault of this program makes it otherwise.
    pub(super) fn prove(&self) -> Result<()> {
        if !Safeguard::ProvedFirst.holds() {
            return Ok(());
        }
        for (at, entry) in self.entries.iter().enumerate() {
            let is_first = at == 0 || self.entries[at - 1].name != entry.name;
            if entry.is(NAMED) && is_first {
                let found = &self.entries[self.with_name(entry.name)];
                if !found.iter().any(Entry::is_kept) {
                    return Err(broken("a chunk that a snapshot needs is not kept"));
                }
            }
            if !entry.is_copied() {
                continue;
            }
            let is_below = |e: &Entry| e.is(KEPT) && e.height < entry.height;
            let has_below = |base: u64| self.entries[self.with_start(base)].iter().any(is_below);
            if !self.bases(at).all(has_below) {
                return Err(broken("a base of a kept record is not kept below it"));
            }
        }
        Ok(())
    }

    /// Says that a record is to be stored again against another base.
    pub(super) fn reencode(&mut self, at: usize) {
        self.entries[at].flags |= REENCODE;
    }

    /// Takes all of that back.
    pub(super) fn reencode_nothing(&mut self) {
        self.entries.iter_mut().for_each(|e| e.flags &= !REENCODE);
    }

    /// Returns the bytes of the records that are kept as they are.
    pub(super) fn copied_bytes(&self) -> u64 {
        let copied = self.entries.iter().filter(|entry| entry.is_copied());
        copied.map(|entry| u64::from(entry.stored_bytes)).sum()
    }

    /// Returns the record that a kept one stands on, along first bases.
    pub(super) fn kept_base(&self, at: usize) -> Option<usize> {
        let entry = &self.entries[at];
        if entry.base_count == 0 {
            return None;
        }
        let is_base =
            |at: &usize| self.entries[*at].is(KEPT) && self.entries[*at].height < entry.height;
        let below = self.with_start(entry.base).filter(is_base);
        below.min_by_key(|at| self.entries[*at].height)
    }

    /// Fails unless each of these leans on something that is kept, below it, and not above what
    /// was planned; and unless it comes to stand lower than it does.
    pub(super) fn prove_moves(&self, moves: &[Reencode]) -> Result<()> {
        let mut planned: HashMap<usize, u8> = HashMap::new();
        for moved in moves {
            let Some((base, base_height)) = moved.base else {
                planned.insert(moved.at, 0);
                continue;
            };
            let base_entry = &self.entries[base];
            let stands_at = planned.get(&base).copied().unwrap_or(base_entry.height);
            if !base_entry.is_named() || stands_at > base_height {
                return Err(broken(
                    "the new base of a record is not kept where it should be",
                ));
            }
            if base_height + 1 >= self.entries[moved.at].height {
                return Err(broken("a record would not come to stand lower"));
            }
            planned.insert(moved.at, base_height + 1);
        }
        Ok(())
    }

    /// Returns all records.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Says that a chunk stands where another one stood before.
    pub(super) fn follows(&mut self, chunk: u32, before: u32) {
        if chunk != before && self.before[chunk as usize] == u32::MAX {
            self.before[chunk as usize] = before;
        }
    }

    /// Returns the kept record of what stood before in the place of this record.
    pub(super) fn kept_before(&self, at: usize) -> Option<usize> {
        let chunk = self.with_name(self.entries[at].name).start;
        let before = self.entries.get(self.before[chunk] as usize)?;
        self.with_name(before.name)
            .find(|at| self.entries[*at].is_kept())
    }

    /// Returns the first snapshot that names the chunk of a record, the greatest number if none.
    pub(super) fn first(&self, at: usize) -> u16 {
        self.firsts[at]
    }

    /// Returns the record of a chunk at this place.
    pub(super) fn at(&self, id: &ChunkId, pack: u32, offset: u32) -> Option<&Entry> {
        let found = self.entries[self.with_name(name(id))].iter();
        found
            .into_iter()
            .find(|e| e.pack == pack && e.offset == offset)
    }
}

fn name(id: &ChunkId) -> Name {
    let half = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&id.0[at..at + 8]);
        u64::from_be_bytes(bytes)
    };
    [half(0), half(8)]
}

fn broken(reason: &str) -> Error {
    Error::Refused {
        reason: format!("nothing was deleted, because the plan is wrong: {reason}; please report"),
    }
}
