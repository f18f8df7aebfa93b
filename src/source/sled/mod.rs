//! Captures a sled database (0.29 to 0.34): a directory with `conf`, `db`, `snap.*` and `blobs`.
//!
//! sled lets nobody else in while it runs, and its recovery says nothing of what it misses: it
//! ends at the first hole of the log, and takes a part that was written over meanwhile for one
//! that was given up. So a copy counts only if no file changed while it was made; then it is what
//! a crash at that instant would have left, with every commit that was flushed before. A copy that
//! is not exact may lack the newest commits, or keep some and lack older ones, and is never more
//! than a best effort, even if it opens.
//!
//! Opening a copy changes it. The copy that is stored is opened only after it was read.

mod conf;
mod copy;
#[cfg(feature = "sled")]
mod stream;
mod verify;

pub use conf::Conf;
pub use conf::is_alpha_cookie;
pub use copy::Copied;
pub use copy::Listing;
pub use copy::Original;
pub use copy::PrivateCopy;
pub use copy::Refusal;
#[cfg(feature = "sled")]
pub use stream::export;
#[cfg(feature = "sled")]
pub use stream::import;
pub use verify::Health;
pub use verify::check;

/// The file by which a database is recognised.
pub const CONF: &[u8] = b"conf";
/// The same of sled 1.0, which has had no release yet.
pub const ALPHA_COOKIE: &[u8] = b"durability_cookie";
/// More than any file has that is one of these two.
pub const SMALL_BYTES_MAX: usize = 128;

/// What a file in the directory of a database is to sled, by its name within that directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Where the pages were at some point of the log.
    Snapshot,
    /// A value too large for the log.
    Blob,
    /// The log.
    Log,
    Conf,
    /// A snapshot that is being written, and counts for nothing.
    Unfinished,
}

impl Part {
    /// Returns what a file is; `None` if it is none of sled's.
    pub fn of(name: &[u8]) -> Option<Part> {
        if let Some(number) = name.strip_prefix(b"blobs/") {
            let is_number = !number.is_empty() && number.iter().all(u8::is_ascii_digit);
            return is_number.then_some(Part::Blob);
        }
        if let Some(number) = name.strip_prefix(b"snap.") {
            return match number.iter().all(u8::is_ascii_hexdigit) {
                true => Some(Part::Snapshot),
                false => number.ends_with(b".generating").then_some(Part::Unfinished),
            };
        }
        match name {
            b"db" => Some(Part::Log),
            b"conf" => Some(Part::Conf),
            _ => None,
        }
    }
}

#[cfg(feature = "sled")]
#[cfg(test)]
mod tests;
