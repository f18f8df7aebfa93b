//! The pages that an image has but does not use: leaves of the free list, and what lies behind
//! the entries of its trunks. SQLite never reads them, so a capture may leave them out, and with
//! them what was deleted.
//!
//! Invariant: a list that contradicts itself or the header clears nothing.

use super::Refusal;
use super::header::Header;
use super::header::lock_page;

/// Bytes of a trunk before its entries: the next trunk, and how many entries there are.
const TRUNK_HEADER_BYTES: usize = 8;

/// Reads bytes of the image at an offset.
pub(super) type ReadAt<'a> = dyn FnMut(u64, &mut [u8]) -> Result<(), Refusal> + 'a;

/// The unused pages of an image.
#[derive(Debug)]
pub(super) struct FreePages {
    page_bytes: u64,
    /// One bit per page, leaves and trunks alike while the list is read, then leaves only.
    leaves: Vec<u64>,
    leaf_count: u64,
    /// Sorted by page.
    trunks: Vec<Trunk>,
}

/// A page that lists others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Trunk {
    page: u32,
    used_bytes: u32,
}

impl FreePages {
    /// Follows the list of an image. Returns none if it cannot be right.
    pub(super) fn read(
        header: &Header,
        pages: u64,
        read_at: &mut ReadAt<'_>,
    ) -> Result<Option<FreePages>, Refusal> {
        let mut list = FreePages {
            page_bytes: u64::from(header.page_bytes),
            leaves: Vec::new(),
            leaf_count: 0,
            trunks: Vec::new(),
        };
        if header.first_trunk == 0 {
            return Ok(Some(list).filter(|_| header.free_pages == 0));
        }
        if pages <= u64::from(header.free_pages) {
            return Ok(None);
        }
        list.leaves = vec![0; (pages / 64 + 1) as usize];
        let lock_page = lock_page(header.page_bytes);
        let is_possible = |page: u32| {
            let page = u64::from(page);
            1 < page && page <= pages && page != lock_page
        };
        let usable_bytes = (header.page_bytes - header.reserved_bytes) as usize;
        let mut bytes = vec![0; usable_bytes];
        let mut next = header.first_trunk;
        // Each round marks a page that was not marked, so a list that bites its tail ends too.
        while next != 0 {
            let trunk = next;
            if !is_possible(trunk) || !list.mark(trunk) {
                return Ok(None);
            }
            read_at((u64::from(trunk) - 1) * list.page_bytes, &mut bytes)?;
            next = word(&bytes, 0);
            let count = word(&bytes, 4) as usize;
            if usable_bytes - TRUNK_HEADER_BYTES < count.saturating_mul(4) {
                return Ok(None);
            }
            let used_bytes = TRUNK_HEADER_BYTES + 4 * count;
            for at in (TRUNK_HEADER_BYTES..used_bytes).step_by(4) {
                let leaf = word(&bytes, at);
                if !is_possible(leaf) || !list.mark(leaf) {
                    return Ok(None);
                }
            }
            list.leaf_count += count as u64;
            list.trunks.push(Trunk {
                page: trunk,
                used_bytes: used_bytes as u32,
            });
        }
        if list.leaf_count + list.trunks.len() as u64 != u64::from(header.free_pages) {
            return Ok(None);
        }
        for index in 0..list.trunks.len() {
            let page = list.trunks[index].page;
            list.leaves[page as usize / 64] &= !(1 << (page % 64));
        }
        list.trunks.sort_unstable();
        Ok(Some(list))
    }

    /// Returns the number of leaves.
    pub(super) fn leaf_count(&self) -> u64 {
        self.leaf_count
    }

    /// Zeroes what of these bytes of the image is unused.
    pub(super) fn clear(&self, start: u64, buffer: &mut [u8]) {
        if self.trunks.is_empty() {
            return;
        }
        let end = start + buffer.len() as u64;
        let mut zero = |from: u64, until: u64| {
            let from = from.max(start);
            let until = until.min(end);
            if from < until {
                buffer[(from - start) as usize..(until - start) as usize].fill(0);
            }
        };
        let first = start / self.page_bytes + 1;
        let last = end.div_ceil(self.page_bytes);
        for page in first..=last {
            let bits = self.leaves.get((page / 64) as usize).unwrap_or(&0);
            if bits & (1 << (page % 64)) != 0 {
                zero((page - 1) * self.page_bytes, page * self.page_bytes);
            }
        }
        let from = self
            .trunks
            .partition_point(|trunk| u64::from(trunk.page) < first);
        for trunk in &self.trunks[from..] {
            let page = u64::from(trunk.page);
            if last < page {
                break;
            }
            let used_bytes = u64::from(trunk.used_bytes);
            zero(
                (page - 1) * self.page_bytes + used_bytes,
                page * self.page_bytes,
            );
        }
    }

    /// Marks a page. Returns false if it is marked already.
    fn mark(&mut self, page: u32) -> bool {
        let word = &mut self.leaves[page as usize / 64];
        let bit = 1 << (page % 64);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
