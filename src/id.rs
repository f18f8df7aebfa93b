//! The names of things: fixed-length identifiers as types of their own, printed as lower-case hex.
//!
//! What a name is the hash of is decided by whoever makes it; this file only keeps the kinds apart.

use std::fmt;
use std::str::FromStr;

/// The text is not the hex form of an identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an identifier")]
pub struct NotAnId;

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $len:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Bytes in this kind of identifier.
            pub const LEN: usize = $len;

            /// Returns the raw bytes.
            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Returns the identifier with these bytes, if there are exactly enough.
            pub fn from_slice(bytes: &[u8]) -> Option<$name> {
                bytes.try_into().ok().map($name)
            }

            /// Returns the first eight hex digits, enough for people.
            pub fn short(&self) -> String {
                hex(&self.0[..4])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<$name, NotAnId> {
                let bytes = from_hex(text).ok_or(NotAnId)?;
                $name::from_slice(&bytes).ok_or(NotAnId)
            }
        }
    };
}

id_type!(
    /// Names the plain bytes of a chunk: a BLAKE3 keyed by repository and kind.
    ChunkId,
    32
);
id_type!(
    /// Names a pack: the hash of the whole stored object.
    PackId,
    32
);
id_type!(
    /// Names a snapshot: the keyed hash of its manifest.
    SnapshotId,
    32
);
id_type!(
    /// The hash of the log up to and with a slot, by which the next entry names what it builds on.
    SlotHash,
    32
);
id_type!(
    /// Names a repository for ever, wherever it is moved and by whatever path it is reached.
    RepoId,
    16
);
id_type!(
    /// Names one run of one writer, so that a writer recognises its own slot.
    WriterId,
    16
);

/// Returns lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Returns the bytes of an even number of hex digits.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_refuses_what_is_not_hex() {
        let id = RepoId([0x0f; 16]);

        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.short(), "0f0f0f0f");
        assert_eq!("0f".parse::<RepoId>(), Err(NotAnId));
        assert_eq!(from_hex("0g"), None);
        assert_eq!(from_hex("é1"), None);
    }
}
