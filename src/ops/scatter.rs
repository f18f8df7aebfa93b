//! Streams whose chunks hold extents (`format::extents`): each lies within the file and over no
//! other one, whatever the chunks claim.
//!
//! What is covered is held as one bit for each block: 512 bytes for every 16 MiB that an extent
//! lies in, however long the file says it is.

use crate::error::Error;
use crate::error::Result;
use crate::format::extents;
use crate::format::extents::EXTENT_BLOCK_BYTES;
use crate::format::extents::Extent;
use crate::format::list::HOLE;
use crate::format::list::Stream;
use crate::format::list::StreamKind;
use crate::id::ChunkId;
use crate::ops::inspect;
use crate::repo::chunks::Chunks;
use crate::repo::chunks::Scratch;
use crate::repo::stream::Piece;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// Blocks of an area: 16 MiB.
const AREA_BLOCKS: u64 = 64 * 64;
/// Areas that extents of one file may lie in: 2 TiB of data, 64 MiB of bits. A forged stream could
/// spread a few bytes over each of more.
const AREAS_MAX: usize = 1 << 17;

/// Which blocks of a file were given extents so far. May be used from several threads at once.
pub(super) struct Covered {
    size_bytes: u64,
    marks: Mutex<Marks>,
}

#[derive(Default)]
struct Marks {
    areas: BTreeMap<u64, Box<[u64; 64]>>,
    bytes: u64,
}

impl Covered {
    /// Returns the empty cover of a file of this length; `None` if the bytes of the stream are
    /// those of the file in their order.
    pub(super) fn of(stream: &Stream, size_bytes: u64) -> Option<Covered> {
        match stream.kind {
            StreamKind::Redb { .. } => Some(Covered {
                size_bytes,
                marks: Mutex::default(),
            }),
            StreamKind::File | StreamKind::Sqlite | StreamKind::Sled => None,
        }
    }

    /// Reads the chunk of a piece and hands its extents out, once it is known that all of them may
    /// be where they say. Returns how many bytes they have.
    pub(super) fn read(
        &self,
        chunks: &Chunks<'_>,
        scratch: &mut Scratch,
        piece: &Piece,
        visit: &mut dyn FnMut(&Extent<'_>) -> Result<()>,
    ) -> Result<u64> {
        if piece.id == HOLE {
            let reason = "it has a hole where a chunk has to be";
            return Err(Error::corrupt("a stream of extents", reason));
        }
        let plain = inspect::read_piece(chunks, scratch, piece)?;
        let mut bytes = 0;
        for extent in self.place(&piece.id, &plain)? {
            visit(&extent)?;
            bytes += extent.bytes.len() as u64;
        }
        inspect::recycle(scratch, plain);
        Ok(bytes)
    }

    fn place<'b>(&self, id: &ChunkId, plain: &'b [u8]) -> Result<Vec<Extent<'b>>> {
        let name = || format!("chunk {id}");
        let wrong = |reason| Err(Error::corrupt(name(), reason));
        let extents = extents::decode(plain).map_err(|malformed| malformed.of(name()))?;
        if extents.iter().any(|extent| end(extent) > self.size_bytes) {
            return wrong("an extent lies beyond the end of the file");
        }
        let mut marks = self.lock();
        for extent in &extents {
            // Invariant: extents begin at blocks, so two in one block lie over each other.
            let blocks =
                extent.offset / EXTENT_BLOCK_BYTES..end(extent).div_ceil(EXTENT_BLOCK_BYTES);
            for block in blocks {
                if !marks.set(block)? {
                    return wrong("an extent lies over another one");
                }
            }
            marks.bytes += extent.bytes.len() as u64;
        }
        Ok(extents)
    }

    /// Takes the blocks of an extent whose place was seen before; returns whether all were free.
    pub(super) fn claim(&self, blocks: Range<u64>) -> Result<bool> {
        let mut marks = self.lock();
        for block in blocks {
            if !marks.set(block)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns how long the file is.
    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Returns the bytes of all extents so far.
    pub(super) fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// Visits runs of blocks without extents, in order, for as long as that returns true. Returns
    /// whether it always did.
    pub(super) fn gaps(&self, mut visit: impl FnMut(Range<u64>) -> bool) -> bool {
        let marks = self.lock();
        let mut gap_start = 0;
        for (number, area) in &marks.areas {
            for place in 0..AREA_BLOCKS {
                if area[place as usize / 64] >> (place % 64) & 1 == 0 {
                    continue;
                }
                let start = (number * AREA_BLOCKS + place) * EXTENT_BLOCK_BYTES;
                if gap_start < start && !visit(gap_start..start) {
                    return false;
                }
                gap_start = start + EXTENT_BLOCK_BYTES;
            }
        }
        gap_start >= self.size_bytes || visit(gap_start..self.size_bytes)
    }

    fn lock(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Marks {
    /// Marks a block; returns false if it was marked before.
    fn set(&mut self, block: u64) -> Result<bool> {
        let number = block / AREA_BLOCKS;
        if self.areas.len() >= AREAS_MAX && !self.areas.contains_key(&number) {
            let reason = "extents are spread over more of a file than can be kept track of";
            return Err(Error::Refused {
                reason: reason.to_string(),
            });
        }
        let area = self.areas.entry(number);
        let area = area.or_insert_with(|| Box::new([0; 64]));
        let place = block % AREA_BLOCKS;
        let (word, bit) = (&mut area[place as usize / 64], 1 << (place % 64));
        let is_new = *word & bit == 0;
        *word |= bit;
        Ok(is_new)
    }
}

/// Returns where an extent ends; the decoder has seen to it that there is such a number.
pub(super) fn end(extent: &Extent<'_>) -> u64 {
    extent.offset + extent.bytes.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(size_bytes: u64) -> Covered {
        Covered {
            size_bytes,
            marks: Mutex::default(),
        }
    }

    fn place(covered: &Covered, extents: &[(u64, usize)]) -> Result<()> {
        let zeroes = vec![0; 1 << 21];
        let extent = |&(offset, len): &(u64, usize)| Extent {
            offset,
            bytes: &zeroes[..len],
        };
        let extents: Vec<_> = extents.iter().map(extent).collect();
        let plain = extents::encode(&extents);
        covered.place(&HOLE, &plain).map(drop)
    }

    fn gaps(covered: &Covered) -> Vec<Range<u64>> {
        let mut found = Vec::new();
        covered.gaps(|gap| {
            found.push(gap);
            true
        });
        found
    }

    #[test]
    fn extents_may_touch_but_not_lie_over_each_other() {
        let file = covered(1 << 40);

        place(&file, &[(8192, 4096), (0, 4096), (4096, 1)]).unwrap();
        place(&file, &[(1 << 30, 1 << 20), ((1 << 30) + (1 << 20), 5000)]).unwrap();

        assert_eq!(file.bytes(), 4096 + 4096 + 1 + (1 << 20) + 5000);
        for overlap in [
            (0, 1),
            (4096, 1),
            (8192, 4096),
            ((1 << 30) - 4096, 4097),
            ((1 << 30) + (1 << 20) + 4096, 4096),
        ] {
            assert!(place(&file, &[overlap]).is_err(), "{overlap:?}");
        }
        assert!(place(&covered(1 << 20), &[(0, 4097), (4096, 1)]).is_err());
    }

    #[test]
    fn extents_end_where_the_file_does() {
        assert!(place(&covered(5000), &[(4096, 904)]).is_ok());
        assert!(place(&covered(5000), &[(4096, 905)]).is_err());
        assert!(place(&covered(0), &[(0, 1)]).is_err());
    }

    #[test]
    fn gaps_are_what_is_left() {
        let file = covered((64 << 20) + 10);
        place(&file, &[(4096, 4097), (16 << 20, 1 << 20), (40 << 20, 1)]).unwrap();

        let found = gaps(&file);

        let mib = |n: u64| n << 20;
        let wanted = [
            0..4096,
            12288..mib(16),
            mib(17)..mib(40),
            mib(40) + 4096..mib(64) + 10,
        ];
        assert_eq!(found, wanted);
        assert_eq!(gaps(&covered(9)), vec![Range { start: 0, end: 9 }]);
        assert!(gaps(&covered(0)).is_empty());
        let end = covered(5000);
        place(&end, &[(0, 1), (4096, 1)]).unwrap();
        assert!(gaps(&end).is_empty());
    }

    #[test]
    fn a_few_bytes_spread_over_everything_are_refused_in_bounded_memory() {
        let file = covered(1 << 62);
        let offsets: Vec<_> = (0..=AREAS_MAX as u64).map(|n| (n << 24, 1)).collect();

        assert!(place(&file, &offsets[..AREAS_MAX]).is_ok());
        assert!(matches!(
            place(&file, &offsets[AREAS_MAX..]),
            Err(Error::Refused { .. })
        ));
    }
}
