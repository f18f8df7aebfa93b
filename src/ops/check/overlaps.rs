//! Extents of a stream that lie over each other, or beyond their file.
//!
//! Whoever restores such a stream refuses it; here it is found before. Only chunks that were read
//! are compared, so it is complete when all data was.

use crate::format::extents::EXTENT_BLOCK_BYTES;
use crate::format::extents::Extent;
use crate::format::list::Stream;
use crate::id::ChunkId;
use crate::id::PackId;
use crate::ops::check::findings::Cause;
use crate::ops::check::findings::Findings;
use crate::ops::scatter;
use crate::ops::scatter::Covered;
use crate::repo::chunks::Chunks;
use crate::repo::chunks::Scratch;
use crate::repo::stream::Piece;
use crate::repo::stream::Pieces;
use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::PoisonError;

/// Extents whose places are held to find those that overlap: 32 MB, for 16 GB of different pages.
const EXTENTS_HELD_MAX: usize = 4 << 20;

/// What was learned of chunks of data on the way: of those that hold extents, where in a file the
/// last one ends. Which streams a chunk is part of is found out later, so every chunk is tried.
#[derive(Default)]
pub(super) struct ExtentEnds {
    /// Packs that were read from end to end.
    packs: HashSet<PackId>,
    ends: HashMap<ChunkId, u64>,
    /// Which blocks of its file each extent of a chunk takes.
    blocks: HashMap<ChunkId, Box<[Blocks]>>,
    held: usize,
    /// Whether there were more than can be held.
    is_cut: bool,
}

/// The first block of an extent and the one behind it.
pub(super) type Blocks = (u32, u32);

impl ExtentEnds {
    /// Returns what is wrong with the chunk of a stream of extents in a file of this length, if its
    /// pack was read.
    pub(super) fn wrong(&self, id: &ChunkId, pack: &PackId, size_bytes: u64) -> Option<&str> {
        match self.ends.get(id) {
            _ if !self.packs.contains(pack) => None,
            Some(end) if *end <= size_bytes => None,
            Some(_) => Some("an extent lies beyond the end of the file"),
            None => Some("it does not hold extents"),
        }
    }

    /// Returns the blocks that the extents of a chunk take, if it was read.
    pub(super) fn blocks(&self, id: &ChunkId) -> &[Blocks] {
        self.blocks.get(id).map_or(&[], |blocks| &blocks[..])
    }

    /// Returns whether nothing was read.
    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Returns whether there were more extents than could be kept, so that not all were compared.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Says that every chunk of a pack was learned of.
    pub(super) fn read_through(&mut self, pack: PackId) {
        self.packs.insert(pack);
    }

    /// Learns where the extents of a chunk lie.
    pub(super) fn learn(&mut self, id: ChunkId, extents: &[Extent<'_>]) {
        let end = extents.iter().map(scatter::end).max().unwrap_or(0);
        self.ends.insert(id, end);
        let number = |block: u64| u32::try_from(block).ok();
        let of = |extent: &Extent<'_>| {
            let first = number(extent.offset / EXTENT_BLOCK_BYTES)?;
            Some((
                first,
                number(scatter::end(extent).div_ceil(EXTENT_BLOCK_BYTES))?,
            ))
        };
        let blocks: Option<Box<[Blocks]>> = extents.iter().map(of).collect();
        match blocks {
            Some(blocks) if self.held + blocks.len() <= EXTENTS_HELD_MAX => {
                if self.blocks.insert(id, blocks).is_none() {
                    self.held += extents.len();
                }
            }
            _ => self.is_cut = true,
        }
    }
}

/// Compares the extents of streams.
pub(super) struct Overlaps<'a> {
    chunks: &'a Chunks<'a>,
    findings: &'a Findings,
    /// What was learned of chunks.
    pub ends: ExtentEnds,
    /// Streams that were compared, and what came out.
    compared: Mutex<HashMap<(ChunkId, u64), Option<Cause>>>,
}

impl<'a> Overlaps<'a> {
    pub(super) fn new(
        chunks: &'a Chunks<'a>,
        findings: &'a Findings,
        ends: ExtentEnds,
    ) -> Overlaps<'a> {
        Overlaps {
            chunks,
            findings,
            ends,
            compared: Mutex::default(),
        }
    }

    /// Returns why a stream cannot be put together, if its extents lie over each other. Each stream
    /// is looked at once.
    pub(super) fn find(
        &self,
        scratch: &mut Scratch,
        stream: &Stream,
        size_bytes: u64,
    ) -> Option<Cause> {
        let covered = Covered::of(stream, size_bytes)?;
        if self.ends.is_empty() {
            return None;
        }
        let name = (stream.root, size_bytes);
        let compared = || {
            let compared = self.compared.lock();
            compared.unwrap_or_else(PoisonError::into_inner)
        };
        if let Some(known) = compared().get(&name) {
            return known.clone();
        }
        let mut pieces = Pieces::begin(self.chunks, stream, size_bytes);
        let found = loop {
            let next = pieces.next(scratch);
            pieces.nodes.clear();
            scratch.touched.clear();
            match next {
                Ok(None) => break None,
                Err(error) => break Some(self.findings.error(&error)),
                Ok(Some(piece)) => {
                    if let Some(reason) = self.claim(&covered, &piece) {
                        let cause = Cause::Object(format!("stream {}", stream.root));
                        self.findings.note(&cause, reason);
                        break Some(cause);
                    }
                }
            }
        };
        compared().insert(name, found.clone());
        found
    }

    fn claim(&self, covered: &Covered, piece: &Piece) -> Option<String> {
        for (first, end) in self.ends.blocks(&piece.id) {
            match covered.claim(u64::from(*first)..u64::from(*end)) {
                Ok(true) => {}
                Ok(false) => return Some("an extent lies over another one".to_string()),
                Err(error) => return Some(error.to_string()),
            }
        }
        None
    }
}
