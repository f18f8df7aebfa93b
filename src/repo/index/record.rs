//! What the index knows about one stored encoding of a chunk, and its 64-byte form in a segment.
//!
//! ```text
//! entry   id 32 | height u8 | codec u8 | base count u8 | 0 | pack ordinal u32 | offset u32
//!         | stored bytes u32 | plain bytes u32 | first base 8 | 0 × 4        little-endian
//! ```
//! Entries sort by their first 33 bytes: id, then height. Whether an entry can be believed is
//! decided by the checksum of its block, not here.

use crate::id::ChunkId;
use crate::id::PackId;
use std::slice;

/// The first bytes of a chunk id, by which a record names a base.
pub type IdPrefix = [u8; 8];

/// The form of a record in a segment.
pub(super) type Entry = [u8; ENTRY_BYTES];

pub(super) const ENTRY_BYTES: usize = 64;

/// How much of an entry decides its place.
const SORT_BYTES: usize = ChunkId::LEN + 1;

/// One stored encoding of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// The chunk.
    pub id: ChunkId,
    /// 0 without base, else one more than the greatest height among the bases.
    pub height: u8,
    /// The pack that holds it.
    pub pack: PackId,
    /// Where it begins in the plain stream of the pack.
    pub offset: u32,
    /// Its length there.
    pub stored_bytes: u32,
    /// The length of the chunk.
    pub plain_bytes: u32,
    /// Codec, kind and flags; the index only carries it.
    pub codec: u8,
    /// What it is encoded against.
    pub bases: Bases,
}

/// The bases of a record: complete up to one, else the pack's table knows the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bases {
    // Invariant: `first` is zero when `count` is.
    count: u8,
    first: IdPrefix,
}

impl Bases {
    /// Of a record that stands alone.
    pub const NONE: Bases = Bases {
        count: 0,
        first: [0; 8],
    };

    /// Keeps what has room: the number and the first of at most 255 bases.
    pub fn new(prefixes: &[IdPrefix]) -> Bases {
        Bases {
            count: u8::try_from(prefixes.len()).unwrap_or(u8::MAX),
            first: prefixes.first().copied().unwrap_or_default(),
        }
    }

    /// Returns how many there are.
    pub fn count(&self) -> u8 {
        self.count
    }

    /// Returns all of them, or nothing if only the pack's table has all.
    pub fn all(&self) -> Option<&[IdPrefix]> {
        match self.count {
            0 => Some(&[]),
            1 => Some(slice::from_ref(&self.first)),
            _ => None,
        }
    }

    /// Returns the first one.
    pub fn first(&self) -> Option<&IdPrefix> {
        (self.count != 0).then_some(&self.first)
    }
}

impl Record {
    /// Returns the record that sorts before all whose id begins with the prefix.
    pub(super) fn lowest(prefix: &[u8]) -> Record {
        let mut id = ChunkId([0; 32]);
        id.0[..prefix.len()].copy_from_slice(prefix);
        Record {
            id,
            height: 0,
            pack: PackId([0; 32]),
            offset: 0,
            stored_bytes: 0,
            plain_bytes: 0,
            codec: 0,
            bases: Bases::NONE,
        }
    }

    pub(super) fn encode(&self, ordinal: u32) -> Entry {
        let mut entry = [0; ENTRY_BYTES];
        entry[..32].copy_from_slice(&self.id.0);
        entry[32] = self.height;
        entry[33] = self.codec;
        entry[34] = self.bases.count;
        set_ordinal(&mut entry, ordinal);
        entry[40..44].copy_from_slice(&self.offset.to_le_bytes());
        entry[44..48].copy_from_slice(&self.stored_bytes.to_le_bytes());
        entry[48..52].copy_from_slice(&self.plain_bytes.to_le_bytes());
        entry[52..60].copy_from_slice(&self.bases.first);
        entry
    }

    pub(super) fn decode(entry: &Entry, pack: PackId) -> Record {
        Record {
            id: ChunkId(array(entry, 0)),
            height: entry[32],
            pack,
            offset: u32::from_le_bytes(array(entry, 40)),
            stored_bytes: u32::from_le_bytes(array(entry, 44)),
            plain_bytes: u32::from_le_bytes(array(entry, 48)),
            codec: entry[33],
            bases: Bases {
                count: entry[34],
                first: array(entry, 52),
            },
        }
    }
}

pub(super) fn id(entry: &Entry) -> &[u8] {
    &entry[..ChunkId::LEN]
}

pub(super) fn height(entry: &Entry) -> u8 {
    entry[32]
}

pub(super) fn sort_key(entry: &Entry) -> &[u8] {
    &entry[..SORT_BYTES]
}

/// Returns which pack of the segment's list holds the record.
pub(super) fn ordinal(entry: &Entry) -> u32 {
    u32::from_le_bytes(array(entry, 36))
}

pub(super) fn set_ordinal(entry: &mut Entry, ordinal: u32) {
    entry[36..40].copy_from_slice(&ordinal.to_le_bytes());
}

/// Returns the first eight bytes as a number that sorts like them.
pub(super) fn leading(id: &[u8]) -> u64 {
    u64::from_be_bytes(array(id, 0))
}

/// Returns `N` bytes of a buffer known to be long enough.
pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_round_trips_and_says_when_bases_are_elsewhere() {
        let lowest = Record::lowest(&[7; 8]);
        let record = Record {
            height: 3,
            offset: 0x0102_0304,
            stored_bytes: 5,
            plain_bytes: u32::MAX,
            codec: 9,
            bases: Bases::new(&[[1; 8], [2; 8]]),
            ..lowest
        };

        let entry = record.encode(77);

        assert_eq!(Record::decode(&entry, record.pack), record);
        assert_eq!((ordinal(&entry), height(&entry)), (77, 3));
        assert_eq!(Bases::NONE.all(), Some(&[][..]));
        assert_eq!(Bases::new(&[[1; 8]]).all(), Some(&[[1; 8]][..]));
        assert_eq!(record.bases.all(), None);
        assert_eq!(
            (record.bases.count(), record.bases.first()),
            (2, Some(&[1; 8]))
        );
    }
}
