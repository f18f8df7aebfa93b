//! What a capture says about the state that it holds.

use super::header::Header;

/// What is known about a held state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Bytes of a page.
    pub page_bytes: u32,
    /// Pages of the image.
    pub pages: u64,
    /// The number of the SQLite library that wrote last.
    pub version: u32,
    /// The application's own version.
    pub user_version: u32,
    /// Whose file it is.
    pub application_id: u32,
    /// Counts transactions, but not each one while there is a write-ahead log.
    pub change_counter: u32,
    /// Whether it has a write-ahead log.
    pub wal: bool,
    /// Frames of the log that belong to the state.
    pub log_frames: u32,
    /// Which generation of the log they are from.
    pub log_salts: [u8; 8],
    /// Pages on the free list.
    pub free_pages: u32,
    /// How many of them read as zeroes.
    pub zeroed_pages: u64,
    /// The free list contradicts itself, so that nothing of it reads as zeroes: the database is
    /// damaged, if only in a part that holds no data.
    pub free_list_damaged: bool,
}

impl Facts {
    /// Returns the bytes of the image.
    pub fn image_bytes(&self) -> u64 {
        self.pages * u64::from(self.page_bytes)
    }

    /// Takes over what the header says, but for the sizes.
    pub(super) fn note(&mut self, header: &Header) {
        self.version = header.version;
        self.user_version = header.user_version;
        self.application_id = header.application_id;
        self.change_counter = header.change_counter;
        self.free_pages = header.free_pages;
    }
}
