//! The private copy of the pages that were verified, each at the offset it has in the database.
//!
//! Invariant: a place is *sealed* only while it holds a page that matched its checksum and whose
//! whole subtree had been sealed before it. A later page may take the place of one in that
//! subtree, so a seal says what to look at, and only a walk of all pages proves a tree.

use super::layout::PAGE_BYTES;
use super::layout::Place;
use super::load::Medium;
use super::load::read_at;
use super::refusal::Refusal;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Pages of one block of a set, one bit each.
type Block = [u64; 64];

/// A set of pages of a file. Takes a bit per page where there are any: the length a file claims
/// to have costs nothing.
#[derive(Debug, Default)]
pub(super) struct Pages {
    blocks: HashMap<u64, Box<Block>>,
}

impl Pages {
    fn position(offset: u64) -> (u64, usize, u64) {
        let page = offset / u64::from(PAGE_BYTES);
        (page >> 12, (page >> 6 & 63) as usize, 1 << (page & 63))
    }

    fn offsets(offset: u64, bytes: u64) -> impl Iterator<Item = u64> {
        (offset..offset + bytes).step_by(PAGE_BYTES as usize)
    }

    pub(super) fn holds(&self, offset: u64) -> bool {
        let (block, word, bit) = Pages::position(offset);
        let block = self.blocks.get(&block);
        block.is_some_and(|words| words[word] & bit != 0)
    }

    pub(super) fn holds_any(&self, offset: u64, bytes: u64) -> bool {
        Pages::offsets(offset, bytes).any(|offset| self.holds(offset))
    }

    /// Returns how many of the pages were not in it.
    pub(super) fn insert(&mut self, offset: u64, bytes: u64) -> u64 {
        let mut added = 0;
        for offset in Pages::offsets(offset, bytes) {
            let (block, word, bit) = Pages::position(offset);
            let block = self.blocks.entry(block);
            let words = block.or_insert_with(|| Box::new([0; 64]));
            added += u64::from(words[word] & bit == 0);
            words[word] |= bit;
        }
        added
    }

    fn remove(&mut self, offset: u64, bytes: u64) {
        for offset in Pages::offsets(offset, bytes) {
            let (block, word, bit) = Pages::position(offset);
            if let Some(words) = self.blocks.get_mut(&block) {
                words[word] &= !bit;
            }
        }
    }
}

/// Pages that were compared lately, so that the next attempt need not read them again: 4 MiB.
const RECENT_COUNT: usize = 1 << 18;

/// The private copy.
#[derive(Debug)]
pub(super) struct Spool {
    file: File,
    /// Offset and half of the checksum, by hash of the offset.
    recent: Vec<(u64, u64)>,
    sealed: Pages,
    written: Pages,
    written_bytes: u64,
    pub(super) bytes_max: u64,
}

impl Spool {
    pub(super) fn new(file: File) -> Spool {
        Spool {
            file,
            recent: vec![(0, 0); RECENT_COUNT],
            sealed: Pages::default(),
            written: Pages::default(),
            written_bytes: 0,
            bytes_max: 0,
        }
    }

    pub(super) fn is_sealed(&self, place: Place) -> bool {
        self.sealed.holds(place.offset)
    }

    /// Writes a part of a page, which is not sealed then.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Refusal> {
        let len = bytes.len() as u64;
        self.sealed.remove(offset, len);
        let pages = self.written.insert(offset, len);
        self.written_bytes += pages * u64::from(PAGE_BYTES);
        if self.bytes_max < self.written_bytes {
            let bytes_max = self.bytes_max;
            return Err(Refusal::SpoolFull { bytes_max });
        }
        let written = self.file.write_all_at(bytes, offset);
        written.map_err(|cause| Refusal::NoSpool { cause })
    }

    /// Says that a page and all below it are in the spool.
    pub(super) fn seal(&mut self, offset: u64, checksum: u128) {
        self.sealed.insert(offset, 1);
        self.remember(offset, checksum);
    }

    /// Says that a sealed page matched its checksum.
    pub(super) fn remember(&mut self, offset: u64, checksum: u128) {
        self.recent[Spool::slot(offset)] = (offset, checksum as u64);
    }

    /// Returns true if a sealed page matched this checksum a short while ago. A hint: the end of a
    /// long page may have been overwritten since.
    pub(super) fn is_recent(&self, place: Place, checksum: u128) -> bool {
        let recent = self.recent[Spool::slot(place.offset)];
        recent == (place.offset, checksum as u64) && self.is_sealed(place)
    }

    fn slot(offset: u64) -> usize {
        (offset / u64::from(PAGE_BYTES)) as usize % RECENT_COUNT
    }
}

impl Medium for &Spool {
    fn read(&mut self, buffer: &mut [u8], offset: u64) -> Result<usize, Refusal> {
        read_at(&self.file, buffer, offset).map_err(|cause| Refusal::NoSpool { cause })
    }

    fn pass(&mut self, _: u64, _: &[u8]) -> Result<(), Refusal> {
        Ok(())
    }
}

/// A database of which a page is looked at.
pub(super) struct Peek<'a>(pub(super) &'a File);

impl Medium for Peek<'_> {
    fn read(&mut self, buffer: &mut [u8], offset: u64) -> Result<usize, Refusal> {
        read_at(self.0, buffer, offset).map_err(|cause| Refusal::Unreadable { cause })
    }

    fn pass(&mut self, _: u64, _: &[u8]) -> Result<(), Refusal> {
        Ok(())
    }
}

/// A database that is copied to the spool where its pages are too large to be held.
pub(super) struct Copy<'a> {
    pub(super) file: &'a File,
    pub(super) spool: &'a mut Spool,
    /// Counts what is read.
    pub(super) read_bytes: &'a mut u64,
}

impl Medium for Copy<'_> {
    fn read(&mut self, buffer: &mut [u8], offset: u64) -> Result<usize, Refusal> {
        let unreadable = |cause: io::Error| Refusal::Unreadable { cause };
        let len = read_at(self.file, buffer, offset).map_err(unreadable)?;
        *self.read_bytes += len as u64;
        Ok(len)
    }

    fn pass(&mut self, offset: u64, piece: &[u8]) -> Result<(), Refusal> {
        self.spool.write(offset, piece)
    }
}
