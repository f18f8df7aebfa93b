//! Which chunk of the last version stood where a chunk stands now.
//!
//! Old chunks are walked in step with the new ones. While both agree, offsets agree; after an
//! insertion they are shifted, and the shift is learned from the next chunk that is found again.

use crate::format::list::HOLE;
use crate::format::list::Stream;
use crate::id::ChunkId;
use crate::repo::chunks::Chunks;
use crate::repo::chunks::Scratch;
use crate::repo::stream::NodeAt;
use crate::repo::stream::Piece;
use crate::repo::stream::Pieces;
use std::collections::VecDeque;

/// How far behind and ahead of its place an old chunk is looked for.
const WINDOW_BYTES: u64 = 16 << 20;

/// The old version of a stream, if there is one.
pub(super) struct Predecessors<'a> {
    pieces: Option<Pieces<'a>>,
    scratch: Scratch,
    window: VecDeque<Piece>,
    nodes: Vec<NodeAt>,
    /// Old offset minus new offset.
    shift: i64,
}

impl<'a> Predecessors<'a> {
    /// Returns the predecessors a file has that was not there before.
    pub(super) fn none() -> Predecessors<'a> {
        Predecessors {
            pieces: None,
            scratch: Scratch::default(),
            window: VecDeque::new(),
            nodes: Vec::new(),
            shift: 0,
        }
    }

    /// Begins with an old stream.
    pub(super) fn of(chunks: &'a Chunks<'a>, stream: &Stream, size_bytes: u64) -> Predecessors<'a> {
        let pieces = Some(Pieces::begin(chunks, stream, size_bytes));
        Predecessors {
            pieces,
            ..Predecessors::none()
        }
    }

    /// Returns the old chunk with the same mark, else the one that shares most with the new one at
    /// this place.
    pub(super) fn at(&mut self, offset: u64, len: u64, mark: u32) -> Option<ChunkId> {
        let start = offset.saturating_add_signed(self.shift);
        let end = start.saturating_add(len);
        self.pull(end.saturating_add(WINDOW_BYTES));
        if mark != 0 {
            let near = |piece: &&Piece| piece.offset.abs_diff(start);
            let same = self.window.iter().filter(|piece| piece.mark == mark);
            if let Some(found) = same.min_by_key(near) {
                let id = found.id;
                self.shift = found.offset.wrapping_sub(offset).cast_signed();
                return Some(id);
            }
        }
        let overlap = |piece: &Piece| {
            let piece_end = piece.offset + piece.plain_bytes;
            piece_end.min(end).saturating_sub(piece.offset.max(start))
        };
        let best = self.window.iter().max_by_key(|piece| overlap(piece))?;
        (overlap(best) > 0 && best.id != HOLE).then_some(best.id)
    }

    /// Learns where the new chunk at this offset stood before.
    pub(super) fn observe(&mut self, offset: u64, id: &ChunkId) {
        let expected = offset.saturating_add_signed(self.shift);
        let near = |piece: &&Piece| piece.offset.abs_diff(expected);
        let found = self
            .window
            .iter()
            .filter(|piece| piece.id == *id)
            .min_by_key(near);
        if let Some(found) = found {
            self.shift = found.offset.wrapping_sub(offset).cast_signed();
        }
        self.pass(offset);
    }

    /// Forgets what lies too far behind a new chunk at this offset.
    pub(super) fn pass(&mut self, offset: u64) {
        let expected = offset.saturating_add_signed(self.shift);
        let passed = expected.saturating_sub(WINDOW_BYTES);
        while self
            .window
            .front()
            .is_some_and(|old| old.offset + old.plain_bytes < passed)
        {
            self.window.pop_front();
        }
    }

    /// Returns the old list node of this level that lists what a new one lists that begins here.
    /// Those before it are forgotten: offsets ascend from call to call.
    pub(super) fn node(&mut self, level: u8, offset: u64) -> Option<ChunkId> {
        let start = offset.saturating_add_signed(self.shift);
        let is_before = |node: &&NodeAt| node.level == level && node.offset <= start;
        let found = *self.nodes.iter().rfind(is_before)?;
        self.nodes
            .retain(|node| node.level != level || node.offset >= found.offset);
        Some(found.id)
    }

    fn pull(&mut self, until: u64) {
        while self
            .window
            .back()
            .is_none_or(|last| last.offset + last.plain_bytes < until)
        {
            let Some(pieces) = &mut self.pieces else {
                return;
            };
            // An old version that cannot be read is no help, and no harm: `check` reports it.
            let next = pieces.next(&mut self.scratch).unwrap_or(None);
            self.nodes.extend(pieces.nodes.drain(..));
            match next {
                Some(piece) => self.window.push_back(piece),
                None => self.pieces = None,
            }
        }
    }
}
