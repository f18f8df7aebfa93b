//! The tree of a snapshot: leaves of entries sorted by path, inner nodes above them.

use crate::format::wire::Decoded;
use crate::format::wire::Reader;
use crate::id::ChunkId;

/// The top node of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeRoot {
    /// The node.
    pub id: ChunkId,
    /// Zero for a leaf.
    pub level: u8,
}

impl TreeRoot {
    /// Returns the bytes of this reference.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.id.0.to_vec();
        out.push(self.level);
        out
    }

    /// Reads a reference.
    pub fn decode(bytes: &[u8]) -> Decoded<TreeRoot> {
        let mut reader = Reader::new(bytes);
        let root = TreeRoot {
            id: ChunkId(reader.array()?),
            level: reader.byte()?,
        };
        reader.finish()?;
        Ok(root)
    }
}
