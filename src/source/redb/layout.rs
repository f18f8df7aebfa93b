//! The header of a redb file: which commit to take, and where pages lie.
//!
//! Follows `docs/design.md` of redb 4.4 and the choice its recovery makes between the two commit
//! slots. Whether the trees of a slot are whole is for the walk to find out.
//!
//! ```text
//! magic 9 | god byte | 2 unused | page bytes u32 | header pages per region u32
//! data pages per region u32 | full regions u32 | data pages of the last region u32 | unused to 64
//! 2 slots of 128: version u8 | user root? u8 | system root? u8 | 5 unused
//!                 user root 32 | system root 32 | 32 unused | transaction u64 | XXH3-128
//! root: page number u64 | XXH3-128 of the page | rows u64
//! ```

use super::page::Link;
use super::page::Shape;
use super::refusal::Damage;
use super::refusal::Refusal;
use super::refusal::Unknown;
use xxhash_rust::xxh3::xxh3_128;

/// The first bytes of every redb file.
pub const MAGIC: &[u8; 9] = b"redb\x1A\x0A\xA9\x0D\x0A";
/// The only size that redb 2.6 to 4.x use outside their own tests.
pub(super) const PAGE_BYTES: u32 = 4096;
pub(super) const HEADER_BYTES: usize = 320;

const GOD_BYTE: usize = 9;
const PRIMARY: u8 = 1;
const RECOVERY_REQUIRED: u8 = 2;
const TWO_PHASE: u8 = 4;
const GEOMETRY_AT: usize = 12;
const SLOTS_AT: usize = 64;
const SLOT_BYTES: usize = 128;
const ROOTS: [(usize, usize); 2] = [(1, 8), (2, 40)];
const TRANSACTION_AT: usize = 104;
const SLOT_CHECKSUM_AT: usize = 112;
const VERSION: u8 = 3;
/// A page number has 20 bits for the region and 20 for the index in it.
const INDEX_MASK: u64 = 0xF_FFFF;
const REGION_PAGES_MAX: u32 = 1 << 20;
/// A page of order n has 2^n times the bytes of a page of order 0.
const ORDER_MAX: u32 = 20;

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn u128_at(bytes: &[u8], at: usize) -> Option<u128> {
    Some(u128::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// One of the two records of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    bytes: [u8; SLOT_BYTES],
}

impl Slot {
    fn is_whole(&self) -> bool {
        let checksum = u128_at(&self.bytes, SLOT_CHECKSUM_AT);
        checksum == Some(xxh3_128(&self.bytes[..SLOT_CHECKSUM_AT]))
    }

    pub(super) fn version(&self) -> u8 {
        self.bytes[0]
    }

    pub(super) fn transaction(&self) -> u64 {
        u64_at(&self.bytes, TRANSACTION_AT).unwrap_or(0)
    }

    /// Returns the roots of the user tree and the system tree, as far as there are any.
    pub(super) fn roots(&self) -> impl Iterator<Item = Link> {
        let shapes = [Shape::user_tables(), Shape::system_tables()];
        let roots = ROOTS.into_iter().zip(shapes);
        roots.filter_map(|((present_at, at), shape)| {
            let is_present = self.bytes[present_at] != 0;
            Link::at(&self.bytes, at, shape).filter(|_| is_present)
        })
    }
}

/// A commit that may be the newest, and what follows if it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) slot: Slot,
    pub(super) geometry: Geometry,
}

/// Where pages lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    region_header_pages: u32,
    region_data_pages: u32,
    full_regions: u32,
    last_region_pages: u32,
}

/// The bytes of one page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

impl Geometry {
    /// Fits regions into a file, as redb does when it has to recover.
    fn fit(&self, file_bytes: u64) -> Option<Geometry> {
        let page_bytes = u64::from(PAGE_BYTES);
        let pages = (file_bytes / page_bytes).checked_sub(1)?;
        let full_regions = u32::try_from(pages / self.region_pages()).ok()?;
        let last_pages = pages % self.region_pages();
        let last_data_pages = last_pages.checked_sub(u64::from(self.region_header_pages));
        let geometry = Geometry {
            full_regions,
            // Less than a region, hence below 2^21.
            last_region_pages: last_data_pages.unwrap_or(0) as u32,
            ..*self
        };
        (geometry.is_possible() && geometry.file_bytes() == file_bytes).then_some(geometry)
    }

    fn is_possible(&self) -> bool {
        let regions = u64::from(self.full_regions) + u64::from(self.last_region_pages > 0);
        self.last_region_pages <= self.region_data_pages && (1..=INDEX_MASK + 1).contains(&regions)
    }

    fn region_pages(&self) -> u64 {
        u64::from(self.region_header_pages) + u64::from(self.region_data_pages)
    }

    /// Returns how long a file with these regions is.
    pub(super) fn file_bytes(&self) -> u64 {
        let last_pages = match self.last_region_pages {
            0 => 0,
            pages => u64::from(self.region_header_pages) + u64::from(pages),
        };
        let pages = 1 + u64::from(self.full_regions) * self.region_pages() + last_pages;
        u64::from(PAGE_BYTES) * pages
    }

    /// Returns where a page lies, if it lies within a region.
    pub(super) fn place(&self, number: u64) -> Option<Place> {
        let order = (number >> 59) as u32;
        if order > ORDER_MAX {
            return None;
        }
        let index = number & (INDEX_MASK >> order);
        let region = (number >> 20) & INDEX_MASK;
        let region_data_pages = match region.cmp(&u64::from(self.full_regions)) {
            std::cmp::Ordering::Less => self.region_data_pages,
            std::cmp::Ordering::Equal => self.last_region_pages,
            std::cmp::Ordering::Greater => 0,
        };
        if (index + 1) << order > u64::from(region_data_pages) {
            return None;
        }
        let header_pages = u64::from(self.region_header_pages);
        let pages_before = 1 + region * self.region_pages() + header_pages + (index << order);
        let page_bytes = u64::from(PAGE_BYTES);
        Some(Place {
            offset: page_bytes * pages_before,
            bytes: page_bytes << order,
        })
    }
}

/// The header as it was read once, with the length the file had then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    bytes: [u8; HEADER_BYTES],
    file_bytes: u64,
}

impl Header {
    pub(super) fn new(bytes: [u8; HEADER_BYTES], file_bytes: u64) -> Header {
        Header { bytes, file_bytes }
    }

    /// Returns true if the same commits are in the same slots; the file may have grown.
    pub(super) fn same_commits(&self, other: &Header) -> bool {
        self.bytes == other.bytes
    }

    /// Returns the commits that redb would recover, the preferred one first. Only if the trees of
    /// that one are not whole is it the other.
    pub(super) fn candidates(&self) -> Result<Vec<Candidate>, Refusal> {
        if !self.bytes.starts_with(MAGIC) {
            return Err(Refusal::NotADatabase);
        }
        self.written_geometry()?;
        let primary_index = usize::from(self.bytes[GOD_BYTE] & PRIMARY);
        let [primary, secondary] = [self.slot(primary_index), self.slot(1 - primary_index)];
        let is_two_phase = self.bytes[GOD_BYTE] & TWO_PHASE != 0;
        let is_newer = secondary.transaction() > primary.transaction();
        // With two-phase commit what stands in the other slot may be a lie, however valid.
        let mut slots = match (is_two_phase, primary.is_whole() && secondary.is_whole()) {
            (true, _) => vec![primary],
            (false, true) if primary == secondary => vec![primary],
            (false, true) if is_newer => vec![secondary, primary],
            (false, _) => vec![primary, secondary],
        };
        slots.retain(Slot::is_whole);
        let Some(first) = slots.first() else {
            return match [primary, secondary].map(|slot| slot.version()) {
                [version @ (1 | 2), _] => Err(Refusal::OldFormat { version }),
                _ => Refusal::corrupt(Damage::Slots),
            };
        };
        match first.version() {
            VERSION => slots.retain(|slot| slot.version() == VERSION),
            version @ (1 | 2) => return Err(Refusal::OldFormat { version }),
            version => return Refusal::unsupported(Unknown::Version(version)),
        }
        let geometry = self.geometry()?;
        let candidates = slots.into_iter().map(|slot| Candidate { slot, geometry });
        Ok(candidates.collect())
    }

    fn slot(&self, index: usize) -> Slot {
        let mut bytes = [0; SLOT_BYTES];
        bytes.copy_from_slice(&self.bytes[SLOTS_AT + SLOT_BYTES * index..][..SLOT_BYTES]);
        Slot { bytes }
    }

    fn written_geometry(&self) -> Result<Geometry, Refusal> {
        let number = |i: usize| u32_at(&self.bytes, GEOMETRY_AT + 4 * i).unwrap_or(0);
        let page_bytes = number(0);
        if page_bytes != PAGE_BYTES {
            return Refusal::unsupported(Unknown::PageBytes(page_bytes));
        }
        let geometry = Geometry {
            region_header_pages: number(1),
            region_data_pages: number(2),
            full_regions: number(3),
            last_region_pages: number(4),
        };
        let data_pages = geometry.region_data_pages;
        if data_pages == 0 || data_pages.max(geometry.region_header_pages) > REGION_PAGES_MAX {
            return Refusal::corrupt(Damage::Geometry {
                header_pages: geometry.region_header_pages,
                data_pages,
            });
        }
        Ok(geometry)
    }

    /// The regions that the header tells are those of the commit that was written last, which
    /// with two-phase commit is not yet the primary and may need fewer. But the file grows before
    /// a commit that needs more, and shrinks only when one that needs fewer is in force: it always
    /// has what the primary needs, and what it has beyond that does no harm.
    fn geometry(&self) -> Result<Geometry, Refusal> {
        let written = self.written_geometry()?;
        let is_whole = written.is_possible() && written.file_bytes() <= self.file_bytes;
        let fitted = written.fit(self.file_bytes);
        let geometry = fitted.or(is_whole.then_some(written));
        geometry.ok_or(Refusal::Corrupt {
            reason: Damage::Length {
                file_bytes: self.file_bytes,
            },
        })
    }
}

impl Candidate {
    /// Returns the header of the image. With one commit in both slots and recovery required, no
    /// other can be chosen and nothing that was left out is relied on.
    pub(super) fn header(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..MAGIC.len()].copy_from_slice(MAGIC);
        bytes[GOD_BYTE] = RECOVERY_REQUIRED;
        let geometry = [
            PAGE_BYTES,
            self.geometry.region_header_pages,
            self.geometry.region_data_pages,
            self.geometry.full_regions,
            self.geometry.last_region_pages,
        ];
        for (bytes, number) in bytes[GEOMETRY_AT..].chunks_exact_mut(4).zip(geometry) {
            bytes.copy_from_slice(&number.to_le_bytes());
        }
        for bytes in bytes[SLOTS_AT..].chunks_exact_mut(SLOT_BYTES) {
            bytes.copy_from_slice(&self.slot.bytes);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn geometry() -> impl Strategy<Value = Geometry> {
        let pages = (0..9u32, 1..=64u32, 0..5u32, 0..64u32);
        pages.prop_filter_map("no regions", |(header, data, full, last)| {
            let geometry = Geometry {
                region_header_pages: header,
                region_data_pages: data,
                full_regions: full,
                last_region_pages: last % data,
            };
            geometry.is_possible().then_some(geometry)
        })
    }

    proptest! {
        #[test]
        fn regions_are_found_again_from_the_length(geometry in geometry()) {
            prop_assert_eq!(geometry.fit(geometry.file_bytes()), Some(geometry));
        }

        #[test]
        fn pages_lie_within_the_file(geometry in geometry(), number: u64, region in 0..6u64) {
            // Few regions and low orders, else no page lies within.
            let number = number & 0x1800_0000_0000_003F | region << 20;
            if let Some(place) = geometry.place(number) {
                prop_assert!(place.offset >= u64::from(PAGE_BYTES));
                prop_assert!(place.offset + place.bytes <= geometry.file_bytes());
            }
        }

        #[test]
        fn any_header_is_read_or_refused(
            god_byte: u8,
            numbers in prop::collection::vec(0..5000u32, 5),
            extremes: [bool; 5],
            versions: [u8; 2],
            rest in prop::collection::vec(any::<u8>(), 256),
            file_bytes: u64,
        ) {
            let mut bytes = [0; HEADER_BYTES];
            bytes[..9].copy_from_slice(MAGIC);
            bytes[9] = god_byte;
            for (i, number) in numbers.into_iter().enumerate() {
                let number = if i == 0 { PAGE_BYTES } else { number };
                let number = if extremes[i] && i > 0 { u32::MAX - number } else { number };
                bytes[GEOMETRY_AT + 4 * i..][..4].copy_from_slice(&number.to_le_bytes());
            }
            bytes[SLOTS_AT..].copy_from_slice(&rest);
            for (slot, version) in bytes[SLOTS_AT..].chunks_exact_mut(SLOT_BYTES).zip(versions) {
                slot[0] = version % 5;
                let checksum = xxh3_128(&slot[..SLOT_CHECKSUM_AT]);
                slot[SLOT_CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
            }

            for candidate in Header::new(bytes, file_bytes).candidates().unwrap_or_default() {
                prop_assert_eq!(candidate.slot.version(), VERSION);
                let image = Header::new(candidate.header(), candidate.geometry.file_bytes());
                prop_assert_eq!(image.candidates().unwrap(), vec![candidate]);
            }
        }
    }
}
