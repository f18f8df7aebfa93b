//! Where objects live: create-only puts, ranged gets, lists, deletes. Nothing is ever overwritten.
//!
//! Invariant I1: an object is written once; `put_new` is the only write and never replaces.
//! Invariant I6: when `put_new` says `Created`, the object survives power loss from that instant.
//! What the bytes mean is none of a store's business. `tests/contract.rs` tells what it must do.

mod dir;
mod faulty;
mod memory;
mod staged;

pub use dir::DirStore;
pub use faulty::FaultyStore;
pub use faulty::Method;
pub use faulty::Repeat;
pub use faulty::StoreFault;
pub use faulty::When;
pub use memory::MemoryStore;
pub use staged::StagedStore;

use crate::context::Timestamp;
use crate::error::Result;
use std::fmt;
use std::ops::Range;

/// The folders of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Folder {
    /// The top, which holds only `config`.
    Top,
    /// Key slots.
    Keys,
    /// Packs of records.
    Packs,
    /// Log slots by number.
    Log,
    /// Checkpoints by number.
    State,
}

impl Folder {
    /// All folders, in the order they are made.
    pub const ALL: [Folder; 5] = [
        Folder::Top,
        Folder::Keys,
        Folder::Packs,
        Folder::Log,
        Folder::State,
    ];

    /// Returns the name of the folder within the repository, empty for the top.
    pub fn name(self) -> &'static str {
        match self {
            Folder::Top => "",
            Folder::Keys => "keys",
            Folder::Packs => "packs",
            Folder::Log => "log",
            Folder::State => "state",
        }
    }
}

/// The name of an object: a folder and a plain file name (`[a-z0-9._-]`, not starting with a dot).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    folder: Folder,
    name: String,
}

impl Key {
    /// Returns the key, unless the name could mean something to a file system.
    pub fn new(folder: Folder, name: impl Into<String>) -> Option<Key> {
        let name = name.into();
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        let fits = !name.is_empty() && name.len() <= 200 && !name.starts_with('.');
        (fits && name.bytes().all(is_plain)).then_some(Key { folder, name })
    }

    /// Returns the key of the repository's configuration.
    pub fn config() -> Key {
        Key {
            folder: Folder::Top,
            name: "config".into(),
        }
    }

    /// Returns the key of a pack.
    pub fn pack(id: &crate::id::PackId) -> Key {
        Key {
            folder: Folder::Packs,
            name: id.to_string(),
        }
    }

    /// Returns the key of a log slot. Numbers are padded so that a listing reads in order.
    pub fn slot(number: u64) -> Key {
        Key {
            folder: Folder::Log,
            name: format!("{number:012}"),
        }
    }

    /// Returns the key of a checkpoint.
    pub fn checkpoint(number: u64) -> Key {
        Key {
            folder: Folder::State,
            name: format!("{number:012}"),
        }
    }

    /// Returns the folder.
    pub fn folder(&self) -> Folder {
        self.folder
    }

    /// Returns the name within the folder.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.folder {
            Folder::Top => f.write_str(&self.name),
            folder => write!(f, "{}/{}", folder.name(), self.name),
        }
    }
}

/// How a create-only put ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The object is there now, durably, and this call made it.
    Created,
    /// An object of this name was there before; it is untouched.
    Taken,
}

/// One row of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The name within the folder.
    pub name: String,
    /// The length of the object.
    pub stored_bytes: u64,
    /// When it was stored, by the store's clock, in nanoseconds since 1970. For kindness, never
    /// for safety.
    pub modified_ns: i64,
}

/// A place for objects, shared by threads and by processes.
///
/// An error of `put_new` leaves open whether the object was made: whoever cares reads it back.
pub trait Store: Send + Sync {
    /// Creates an object; durable when it returns `Created`.
    fn put_new(&self, key: &Key, bytes: &[u8]) -> Result<Put>;

    /// Returns the whole object, `None` if there is none.
    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>>;

    /// Returns this range of the object, cut off where the object ends; `None` if there is none.
    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Vec<u8>>>;

    /// Returns the length of the object, `None` if there is none.
    fn stored_bytes(&self, key: &Key) -> Result<Option<u64>>;

    /// Returns all objects of a folder, in no particular order.
    fn list(&self, folder: Folder) -> Result<Vec<Listed>>;

    /// Removes an object; removing what is not there is fine.
    fn delete(&self, key: &Key) -> Result<()>;

    /// Makes durable whatever can be seen in a folder, whoever wrote it.
    fn sync(&self, folder: Folder) -> Result<()>;

    /// Removes what writers that were killed left behind before this time, and returns how many
    /// pieces. Objects are never touched. Nothing to do where a write is all or nothing.
    fn remove_leftovers(&self, before: Timestamp) -> Result<u64> {
        let _ = before;
        Ok(0)
    }

    /// Returns the place in words a person can use.
    fn location(&self) -> String;
}
