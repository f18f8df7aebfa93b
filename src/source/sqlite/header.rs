//! The header of a database file: the fields that a capture needs, and whether they can be true.

/// The first bytes of every SQLite database.
pub const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Bytes of the header.
pub(super) const HEADER_BYTES: usize = 100;

/// Where the lock bytes lie; SQLite never uses the page that holds this offset.
const LOCK_BYTE: u64 = 1 << 30;

/// The fields of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) page_bytes: u32,
    /// Bytes at the end of each page that an extension keeps for itself.
    pub(super) reserved_bytes: u32,
    pub(super) change_counter: u32,
    /// Pages of the database, unless a version before 3.7.0 wrote last.
    pub(super) pages: Option<u32>,
    pub(super) first_trunk: u32,
    pub(super) free_pages: u32,
    pub(super) user_version: u32,
    pub(super) application_id: u32,
    pub(super) version: u32,
}

impl Header {
    /// Reads a header, or says what is wrong with it.
    pub(super) fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Header, &'static str> {
        let word = |at: usize| {
            u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        if !bytes.starts_with(MAGIC) {
            return Err("its header is not that of a database");
        }
        let page_bytes = match u32::from(u16::from_be_bytes([bytes[16], bytes[17]])) {
            1 => 65536,
            other => other,
        };
        if !is_page_size(page_bytes) {
            return Err("its page size is impossible");
        }
        let reserved_bytes = u32::from(bytes[20]);
        if page_bytes - reserved_bytes < 480 {
            return Err("its pages have too little room");
        }
        // Since 3.7.0 the size stands in the header; an older version leaves a stale one, which
        // shows in the counters.
        let pages = Some(word(28)).filter(|&pages| pages != 0 && word(24) == word(92));
        Ok(Header {
            page_bytes,
            reserved_bytes,
            change_counter: word(24),
            pages,
            first_trunk: word(32),
            free_pages: word(36),
            user_version: word(60),
            application_id: word(68),
            version: word(96),
        })
    }
}

/// Returns true if a page may have this size.
pub(super) fn is_page_size(bytes: u32) -> bool {
    bytes.is_power_of_two() && (512..=65536).contains(&bytes)
}

/// Returns the number of the page that holds the lock bytes. Pages count from 1.
pub(super) fn lock_page(page_bytes: u32) -> u64 {
    LOCK_BYTE / u64::from(page_bytes) + 1
}
