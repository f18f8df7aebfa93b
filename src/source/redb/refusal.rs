//! Why a database cannot be captured. Says what is wrong with it, not what to do about it.

use std::io;

/// Why a database could not be captured; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("its format, version {version}, is older than redb 2.6 can write")]
    OldFormat { version: u8 },
    #[error("it is not a redb database")]
    NotADatabase,
    #[error("it changed faster than it could be read, {passes} times in a row")]
    Busy { passes: u32 },
    #[error("it is damaged: {reason}")]
    Corrupt { reason: Damage },
    #[error("it holds {what}, which is not understood")]
    Unsupported { what: Unknown },
    #[error("cannot read it: {cause}")]
    Unreadable { cause: io::Error },
    #[error("cannot use the spool: {cause}")]
    NoSpool { cause: io::Error },
    #[error("more than {bytes_max} bytes of spool are needed")]
    SpoolFull { bytes_max: u64 },
    #[error("the caller stopped the capture")]
    Stopped,
}

impl Refusal {
    /// Returns a word that stays the same for programs to tell refusals apart.
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::OldFormat { .. } => "old-format",
            Refusal::NotADatabase => "not-a-database",
            Refusal::Busy { .. } => "busy",
            Refusal::Corrupt { .. } => "corrupt",
            Refusal::Unsupported { .. } => "unsupported",
            Refusal::Unreadable { .. } => "unreadable",
            Refusal::NoSpool { .. } | Refusal::SpoolFull { .. } => "no-spool",
            Refusal::Stopped => "stopped",
        }
    }

    pub(super) fn unsupported<T>(what: Unknown) -> Result<T, Refusal> {
        Err(Refusal::Unsupported { what })
    }

    pub(super) fn corrupt<T>(reason: Damage) -> Result<T, Refusal> {
        Err(Refusal::Corrupt { reason })
    }
}

/// What is wrong with a damaged database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("neither commit slot is whole")]
    Slots,
    #[error("regions of {header_pages} and {data_pages} pages are impossible")]
    Geometry { header_pages: u32, data_pages: u32 },
    #[error("no redb file has a length of {file_bytes} bytes")]
    Length { file_bytes: u64 },
    #[error("the page at offset {offset} does not match its checksum")]
    Page { offset: u64 },
    #[error("page number {number:#x} lies outside the file")]
    Number { number: u64 },
    #[error("the page at offset {offset} matches its checksum and is malformed")]
    Malformed { offset: u64 },
    #[error("the page at offset {offset} overlaps another")]
    Overlap { offset: u64 },
    #[error("its trees are too deep, too wide or circular near offset {offset}")]
    Endless { offset: u64 },
}

/// What is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    #[error("format version {0}")]
    Version(u8),
    #[error("pages of {0} bytes")]
    PageBytes(u32),
    #[error("a table of type {0}")]
    Table(u8),
    #[error("a table with keys or values aligned to more than a byte")]
    Alignment,
    #[error("a savepoint of version {0}")]
    Savepoint(u8),
    #[error("a list of values of type {0}")]
    List(u8),
    #[error("a page with {used_bytes} bytes of routes or tables")]
    Page { used_bytes: u64 },
}
