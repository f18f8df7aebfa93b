//! Why a database cannot be captured, in words for people and codes for programs.

use rusqlite::ffi;
use std::fmt;
use std::time::Duration;

/// Why a database cannot be captured, or not in this way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Somebody held a lock for longer than the patience lasted.
    Busy {
        /// How long was waited, at least.
        patience: Duration,
    },
    /// The file is encrypted, or something else than an SQLite database.
    NotADatabase,
    /// SQLite itself could not read it.
    Corrupt {
        /// What is wrong.
        reason: String,
    },
    /// It can be read from a private copy only (`Database::open_copy`).
    NeedsCopy {
        /// What stands in the way.
        why: Obstacle,
    },
    /// The operating system would not let it be read.
    Unreadable {
        /// What failed.
        reason: String,
    },
    /// The private copy could not be written.
    NoRoom {
        /// What failed.
        reason: String,
    },
    /// Its files kept changing, or were replaced, while they were read.
    Changed,
}

/// What makes a private copy necessary: reading in place would change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// A writer died in a transaction, and the database is torn until that is rolled back.
    HotJournal,
    /// The directory cannot be written, and the write-ahead log needs files next to it.
    ReadOnlyDirectory,
    /// The `-shm` or `-wal` file can be neither used nor created.
    NoSharedMemory,
    /// The database file is empty but has a log, which SQLite would delete.
    OrphanedLog,
    /// What would appear beside it would belong to us, and lock its owner out.
    OtherOwner,
}

impl Refusal {
    /// Returns a short name that stays the same.
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::Busy { .. } => "busy",
            Refusal::NotADatabase => "not-a-database",
            Refusal::Corrupt { .. } => "corrupt",
            Refusal::NeedsCopy { .. } => "needs-copy",
            Refusal::Unreadable { .. } => "unreadable",
            Refusal::NoRoom { .. } => "no-room",
            Refusal::Changed => "changed",
        }
    }

    /// Returns what a result code means while a transaction begins or its files are read.
    pub(super) fn from_code(code: i32, patience: Duration) -> Refusal {
        let needs_copy = |why| Refusal::NeedsCopy { why };
        match code {
            ffi::SQLITE_READONLY_ROLLBACK => return needs_copy(Obstacle::HotJournal),
            ffi::SQLITE_READONLY_DIRECTORY => return needs_copy(Obstacle::ReadOnlyDirectory),
            ffi::SQLITE_READONLY_DBMOVED => return Refusal::Changed,
            _ => {}
        }
        match code & 0xff {
            ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED | ffi::SQLITE_PROTOCOL => {
                Refusal::Busy { patience }
            }
            ffi::SQLITE_NOTADB => Refusal::NotADatabase,
            ffi::SQLITE_CORRUPT => Refusal::Corrupt {
                reason: describe(code),
            },
            // The database itself is open by then, so what cannot be opened is a sidecar.
            ffi::SQLITE_READONLY | ffi::SQLITE_CANTOPEN => needs_copy(Obstacle::NoSharedMemory),
            _ => Refusal::Unreadable {
                reason: describe(code),
            },
        }
    }

    /// Returns what an error of a statement means.
    pub(super) fn from_error(error: &rusqlite::Error, patience: Duration) -> Refusal {
        match error {
            rusqlite::Error::SqliteFailure(failure, _) => {
                Refusal::from_code(failure.extended_code, patience)
            }
            other => Refusal::Unreadable {
                reason: other.to_string(),
            },
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Busy { patience } => write!(
                out,
                "the database stayed locked for more than {} ms",
                patience.as_millis()
            ),
            Refusal::NotADatabase => write!(out, "this is no SQLite database, or it is encrypted"),
            Refusal::Corrupt { reason } => write!(out, "the database is damaged: {reason}"),
            Refusal::NeedsCopy { why } => write!(out, "it cannot be read in place: {why}"),
            Refusal::Unreadable { reason } => write!(out, "cannot read the database: {reason}"),
            Refusal::NoRoom { reason } => write!(out, "cannot write a private copy: {reason}"),
            Refusal::Changed => write!(out, "the database kept changing while it was read"),
        }
    }
}

impl std::error::Error for Refusal {}

impl fmt::Display for Obstacle {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Obstacle::HotJournal => {
                "a writer died in a transaction, which its application must roll back first"
            }
            Obstacle::ReadOnlyDirectory => {
                "its write-ahead log needs a directory that can be written"
            }
            Obstacle::NoSharedMemory => "its -shm or -wal file can be neither used nor created",
            Obstacle::OtherOwner => {
                "its write-ahead log would belong to somebody else than it does"
            }
            Obstacle::OrphanedLog => "the file is empty, but its write-ahead log is still there",
        })
    }
}

fn describe(code: i32) -> String {
    format!("{} (SQLite code {code})", ffi::code_to_str(code))
}
