//! Chunks of a stream whose pieces lie anywhere in the file: where each goes, then the bytes.
//!
//! `docs/format.md`, section "Extents". A database that moves its pages at every commit is stored
//! in an order that stays, so what does not change stays a chunk. Between extents a file is zero.

use crate::format::wire::Decoded;
use crate::format::wire::Malformed;
use crate::format::wire::Reader;

/// Bytes of the table for each extent.
pub const EXTENT_ROW_BYTES: usize = 12;
/// Bytes before the rows.
pub const EXTENT_COUNT_BYTES: usize = 4;
/// Every extent begins at a multiple of so many bytes. So of two in one block, one lies over the
/// other.
pub const EXTENT_BLOCK_BYTES: u64 = 4096;
/// No file system has longer files.
const FILE_BYTES_MAX: u64 = i64::MAX as u64;

/// Some bytes and where in the file they lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent<'a> {
    /// Where they begin: at a block.
    pub offset: u64,
    /// The bytes; at least one.
    pub bytes: &'a [u8],
}

/// Returns the plain bytes of the chunk that holds these extents.
pub fn encode(extents: &[Extent<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    put(extents, &mut out);
    out
}

/// Appends the plain bytes of the chunk that holds these extents.
pub fn put(extents: &[Extent<'_>], out: &mut Vec<u8>) {
    let bytes: usize = extents.iter().map(|extent| extent.bytes.len()).sum();
    out.reserve(EXTENT_COUNT_BYTES + EXTENT_ROW_BYTES * extents.len() + bytes);
    // By columns of fixed width: a delta finds them again however few of them changed.
    out.extend_from_slice(&(extents.len() as u32).to_le_bytes());
    for extent in extents {
        out.extend_from_slice(&extent.offset.to_le_bytes());
    }
    for extent in extents {
        out.extend_from_slice(&(extent.bytes.len() as u32).to_le_bytes());
    }
    for extent in extents {
        out.extend_from_slice(extent.bytes);
    }
}

/// Reads a chunk. That extents lie within the file and not over each other is for the caller to
/// see to.
pub fn decode(bytes: &[u8]) -> Decoded<Vec<Extent<'_>>> {
    let mut reader = Reader::new(bytes);
    let count = reader.u32()? as usize;
    if count == 0 || count > reader.rest().len() / (EXTENT_ROW_BYTES + 1) {
        return Err(Malformed::Bytes("a count exceeds the object"));
    }
    let mut offsets = Reader::new(reader.take(8 * count)?);
    let mut lengths = Reader::new(reader.take(4 * count)?);
    let mut extents = Vec::with_capacity(count);
    for _ in 0..count {
        let (offset, len) = (offsets.u64()?, lengths.u32()?);
        let is_aligned = offset.is_multiple_of(EXTENT_BLOCK_BYTES);
        if len == 0 || !is_aligned || offset > FILE_BYTES_MAX - u64::from(len) {
            return Err(Malformed::Bytes("an extent is impossible"));
        }
        let bytes = reader.take(len as usize)?;
        extents.push(Extent { offset, bytes });
    }
    reader.finish()?;
    Ok(extents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn extents_round_trip(parts: Vec<(u32, Vec<u8>)>) {
            let parts: Vec<_> = parts.iter().filter(|(_, bytes)| !bytes.is_empty()).collect();
            let place = |offset: &u32| u64::from(*offset) * EXTENT_BLOCK_BYTES;
            let extent = |(offset, bytes): &&'_ (u32, Vec<u8>)| (place(offset), bytes.clone());
            let owned: Vec<(u64, Vec<u8>)> = parts.iter().map(extent).collect();
            let extents: Vec<Extent<'_>> = owned
                .iter()
                .map(|(offset, bytes)| Extent { offset: *offset, bytes })
                .collect();

            let encoded = encode(&extents);

            prop_assert_eq!(decode(&encoded).ok(), (!extents.is_empty()).then_some(extents));
        }

        #[test]
        fn any_bytes_are_refused_or_read_back_alike(bytes: Vec<u8>) {
            if let Ok(extents) = decode(&bytes) {
                prop_assert_eq!(encode(&extents), bytes);
            }
        }
    }

    #[test]
    fn what_lies_beyond_any_file_or_within_a_block_is_refused() {
        let decodes = |offset, bytes| decode(&encode(&[Extent { offset, bytes }])).is_ok();

        assert!(decodes(0, &[1]) && decodes(1 << 62, &[1]));
        assert!(!decodes(!4095, &[1]));
        assert!(!decodes(1 << 63, &[1]));
        assert!(decodes((1 << 63) - 4096, &[0; 4095]) && !decodes((1 << 63) - 4096, &[0; 4096]));
        assert!(!decodes(512, &[1]) && !decodes(4095, &[1]));
        assert!(!decodes(0, &[]));
        assert!(decode(&encode(&[])).is_err());
    }
}
