//! The unit in which a segment is read: 4096 bytes that prove they are the ones that were written.
//!
//! ```text
//! block   checksum 8 | segment name 8 | block number u64 | 0 × 40 | 63 entries of 64 bytes
//! ```
//! The checksum (BLAKE3, its first 8 bytes) covers the rest of the block. Name and number are in
//! it because a file system may return a block of another file, or of another place, after a crash.

use super::record::ENTRY_BYTES;
use super::record::Entry;
use super::record::array;

pub(super) const BLOCK_BYTES: usize = 4096;

/// Entries in every block but the last.
pub(super) const BLOCK_ENTRIES: usize = (BLOCK_BYTES - HEADER_BYTES) / ENTRY_BYTES;

const HEADER_BYTES: usize = 64;
const CHECKSUM_BYTES: usize = 8;

/// A block and how many of its entries are in use.
pub(super) struct Block {
    pub(super) bytes: [u8; BLOCK_BYTES],
    len: usize,
}

impl Block {
    pub(super) fn new() -> Block {
        Block {
            bytes: [0; BLOCK_BYTES],
            len: 0,
        }
    }

    pub(super) fn entries(&self) -> &[Entry] {
        let used = HEADER_BYTES + self.len * ENTRY_BYTES;
        self.bytes[HEADER_BYTES..used].as_chunks().0
    }

    pub(super) fn is_full(&self) -> bool {
        self.len == BLOCK_ENTRIES
    }

    /// Adds an entry to a block that is not full.
    pub(super) fn push(&mut self, entry: &Entry) {
        let at = HEADER_BYTES + self.len * ENTRY_BYTES;
        self.bytes[at..at + ENTRY_BYTES].copy_from_slice(entry);
        self.len += 1;
    }

    /// Completes the header; the block is ready to be written.
    pub(super) fn seal(&mut self, segment: u64, number: u64) {
        self.bytes[8..16].copy_from_slice(&segment.to_le_bytes());
        self.bytes[16..24].copy_from_slice(&number.to_le_bytes());
        let checksum = checksum(&self.bytes[CHECKSUM_BYTES..]);
        self.bytes[..CHECKSUM_BYTES].copy_from_slice(&checksum);
    }

    /// Returns true, with `len` entries in use, if the bytes are those of this block.
    pub(super) fn unseal(&mut self, segment: u64, number: u64, len: usize) -> bool {
        self.len = len.min(BLOCK_ENTRIES);
        self.bytes[..CHECKSUM_BYTES] == checksum(&self.bytes[CHECKSUM_BYTES..])
            && array(&self.bytes, 8) == segment.to_le_bytes()
            && array(&self.bytes, 16) == number.to_le_bytes()
    }
}

pub(super) fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    array(blake3::hash(bytes).as_bytes(), 0)
}
