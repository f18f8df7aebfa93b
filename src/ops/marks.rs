//! Who needs which record: every snapshot, file or series is a *group*, and a record belongs to the
//! one group that needs it, to several, or to none.
//!
//! One pass over the trees: a node that is needed by several groups already, or by the same one, is
//! not gone into again, so every node is read twice at most however many snapshots share it. What
//! a record leans on is needed by whoever needs it. Of several records of a chunk the one counts
//! that readers take, that of least height.
//!
//! Memory: 48 bytes for each record in the repository, so 48 MB for a million, which are 250 GB of
//! different content. What cannot be read is passed over: `check` is who reports it.

use crate::context::Context;
use crate::error::Error;
use crate::error::Result;
use crate::format::entry::PackBytes;
use crate::format::list::Stream;
use crate::format::manifest::Manifest;
use crate::format::pack::ChunkKind;
use crate::format::pack::Encoding;
use crate::format::pack::Row;
use crate::format::tree::Leaf;
use crate::id::ChunkId;
use crate::id::PackId;
use crate::ops::check::Usage;
use crate::repo::chunks::Chunks;
use crate::repo::reach::Visitor;
use crate::repo::reach::Walk;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;

/// Whoever needs a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Nobody,
    /// The group with this number.
    One(u32),
    Several,
}

/// A record, and what is known of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marked {
    key: [u8; 16],
    base: Base,
    owner: Owner,
    /// Whether a snapshot names it, so that it is not only leaned on.
    pub is_named: bool,
    /// The number of its pack.
    pub pack: u32,
    pub encoding: Encoding,
    pub height: u8,
    pub plain_bytes: u32,
    pub stored_bytes: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    None,
    One(u32),
    /// In `more`.
    More,
    /// No pack has it.
    Missing,
}

/// All records of some packs.
pub(super) struct Marks<'a> {
    cx: &'a Context,
    chunks: &'a Chunks<'a>,
    /// By id, least height first.
    rows: Vec<Marked>,
    more: HashMap<u32, Vec<u32>>,
    packs: Vec<PackId>,
    /// Nodes that could not be read.
    pub unreadable: u64,
}

/// Marks for one group what a walk comes to, and goes into what is new to it.
struct Marking<'m, 'a> {
    marks: &'m mut Marks<'a>,
    group: Owner,
}

impl Visitor for Marking<'_, '_> {
    fn visit(&mut self, _kind: ChunkKind, id: &ChunkId) -> Result<bool> {
        Ok(self.marks.mark(id, self.group))
    }

    fn unreadable(&mut self, _error: Error) -> Result<()> {
        self.marks.unreadable += 1;
        Ok(())
    }
}

/// Goes into every node once, and marks nothing.
struct Seeing<'m, 'a> {
    marks: &'m mut Marks<'a>,
    seen: &'m mut HashSet<ChunkId>,
}

impl Visitor for Seeing<'_, '_> {
    fn visit(&mut self, _kind: ChunkKind, id: &ChunkId) -> Result<bool> {
        Ok(self.seen.insert(*id))
    }

    fn unreadable(&mut self, _error: Error) -> Result<()> {
        self.marks.unreadable += 1;
        Ok(())
    }
}

impl<'a> Marks<'a> {
    /// Reads the tables of these packs. A pack that cannot be read has no records.
    pub(super) fn load(
        cx: &'a Context,
        chunks: &'a Chunks<'a>,
        packs: &BTreeMap<PackId, PackBytes>,
    ) -> Result<Marks<'a>> {
        let mut rows = Vec::new();
        let mut bases: Vec<([u8; 16], u32, Row)> = Vec::new();
        for (number, pack) in packs.keys().enumerate() {
            cx.check()?;
            let table = match chunks.table(pack) {
                Ok(table) => table,
                Err(Error::Missing { .. } | Error::Corrupt { .. }) => continue,
                Err(error) => return Err(error),
            };
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            for row in table {
                rows.push(marked(&row, number));
                if !row.bases.is_empty() {
                    bases.push((key(&row.id), number, row));
                }
            }
        }
        rows.sort_unstable_by_key(|row| (row.key, row.height, row.pack));
        let mut marks = Marks {
            cx,
            chunks,
            rows,
            more: HashMap::new(),
            packs: packs.keys().copied().collect(),
            unreadable: 0,
        };
        for (key, pack, row) in bases {
            marks.link(&key, pack, &row);
        }
        Ok(marks)
    }

    /// Finds what a record leans on.
    fn link(&mut self, key: &[u8; 16], pack: u32, row: &Row) {
        let wanted = (*key, row.height, pack);
        let at = self
            .rows
            .partition_point(|row| (row.key, row.height, row.pack) < wanted);
        let found: Option<Vec<u32>> = row
            .bases
            .iter()
            .map(|base| self.find_base(base, row.height))
            .collect();
        let base = match found.as_deref() {
            None => Base::Missing,
            Some([one]) => Base::One(*one),
            Some(several) => {
                self.more.insert(at as u32, several.to_vec());
                Base::More
            }
        };
        if let Some(marked) = self.rows.get_mut(at) {
            marked.base = base;
        }
    }

    fn find_base(&self, base: &[u8; 8], below: u8) -> Option<u32> {
        let from = self.rows.partition_point(|row| row.key[..8] < base[..]);
        let same = self.rows[from..].iter().zip(from as u32..);
        let same = same.take_while(|(row, _)| row.key[..8] == base[..]);
        let lower = same.filter(|(row, _)| row.height < below);
        lower.min_by_key(|(row, _)| row.height).map(|(_, at)| at)
    }

    /// Returns the record that readers take for this chunk.
    pub(super) fn find(&self, id: &ChunkId) -> Option<u32> {
        let key = key(id);
        let from = self.rows.partition_point(|row| row.key < key);
        let same = self.rows[from..].iter().zip(from as u32..);
        let mut same = same.take_while(|(row, _)| row.key == key);
        let found = same.find(|(row, _)| row.base != Base::Missing);
        found.map(|(_, at)| at)
    }

    /// Returns a record.
    pub(super) fn row(&self, at: u32) -> &Marked {
        &self.rows[at as usize]
    }

    /// Says that a group needs a chunk. Returns whether anybody new needs it now.
    fn mark(&mut self, id: &ChunkId, group: Owner) -> bool {
        let Some(at) = self.find(id) else {
            return false;
        };
        self.rows[at as usize].is_named = true;
        let mut ahead = vec![at];
        let mut is_new = false;
        while let Some(at) = ahead.pop() {
            let row = &mut self.rows[at as usize];
            let joined = row.owner.and(group);
            if joined == row.owner {
                continue;
            }
            row.owner = joined;
            is_new = true;
            match row.base {
                Base::One(base) => ahead.push(base),
                Base::More => ahead.extend(self.more.get(&at).into_iter().flatten()),
                Base::None | Base::Missing => {}
            }
        }
        is_new
    }

    /// Marks all that a snapshot needs.
    pub(super) fn snapshot(&mut self, manifest: &Manifest, group: Owner) -> Result<()> {
        let (cx, mut walk) = (self.cx, Walk::begin(self.chunks));
        walk.snapshot(cx, manifest, &mut Marking { marks: self, group })
    }

    /// Marks the content of a stream.
    pub(super) fn stream(&mut self, stream: &Stream, group: Owner) -> Result<()> {
        let (cx, mut walk) = (self.cx, Walk::begin(self.chunks));
        walk.stream(cx, stream, &mut Marking { marks: self, group })
    }

    /// Marks one chunk.
    pub(super) fn chunk(&mut self, id: &ChunkId, group: Owner) {
        self.mark(id, group);
    }

    /// Calls `visit` with each leaf of a tree that was not seen before.
    pub(super) fn leaves(
        &mut self,
        manifest: &Manifest,
        seen: &mut HashSet<ChunkId>,
        visit: &mut dyn FnMut(&mut Self, &Leaf) -> Result<()>,
    ) -> Result<()> {
        let (cx, mut walk) = (self.cx, Walk::begin(self.chunks));
        let mut seeing = Seeing { marks: self, seen };
        walk.leaves(cx, &manifest.tree, &mut seeing, &mut |_, seeing, leaf| {
            visit(seeing.marks, leaf)
        })
    }

    /// Returns every record with who needs it.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&Marked, Owner)> {
        self.rows.iter().map(|row| (row, row.owner))
    }

    /// Counts what is needed, by whomever.
    pub(super) fn usage(&self, packs: &BTreeMap<PackId, PackBytes>) -> Usage {
        let mut usage = Usage::default();
        let mut is_needed = vec![false; self.packs.len()];
        for (row, owner) in self.rows() {
            usage.records += 1;
            let stored_bytes = u64::from(row.stored_bytes);
            match owner {
                Owner::Nobody => usage.unneeded_bytes += stored_bytes,
                _ => {
                    usage.needed_bytes += stored_bytes;
                    if let Some(is_needed) = is_needed.get_mut(row.pack as usize) {
                        *is_needed = true;
                    }
                }
            }
        }
        for (pack, is_needed) in self.packs.iter().zip(is_needed) {
            if let Some(bytes) = packs.get(pack).filter(|_| !is_needed) {
                usage.unneeded_packs += 1;
                usage.unneeded_pack_bytes += bytes.stored_bytes;
            }
        }
        usage
    }

    /// Forgets who needs what, to mark by other groups.
    pub(super) fn clear(&mut self) {
        for row in &mut self.rows {
            row.owner = Owner::Nobody;
            row.is_named = false;
        }
    }

    /// Returns the stored bytes that each of so many groups needs alone.
    pub(super) fn alone(&self, groups: usize) -> Vec<u64> {
        let mut sums = vec![0_u64; groups];
        for (row, owner) in self.rows() {
            if let Owner::One(group) = owner
                && let Some(sum) = sums.get_mut(group as usize)
            {
                *sum += u64::from(row.stored_bytes);
            }
        }
        sums
    }
}

impl Owner {
    fn and(self, other: Owner) -> Owner {
        match (self, other) {
            (Owner::Nobody, other) | (other, Owner::Nobody) => other,
            (one, other) if one == other => one,
            _ => Owner::Several,
        }
    }
}

fn key(id: &ChunkId) -> [u8; 16] {
    *id.0.first_chunk().expect("invariant: 16 of 32 bytes")
}

fn marked(row: &Row, pack: u32) -> Marked {
    Marked {
        key: key(&row.id),
        base: Base::None,
        owner: Owner::Nobody,
        is_named: false,
        pack,
        encoding: row.encoding,
        height: row.height,
        plain_bytes: row.plain_bytes,
        stored_bytes: row.stored_bytes,
    }
}
