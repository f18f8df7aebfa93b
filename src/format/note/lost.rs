//! What is lost: packs and chunks that the log says cannot be read.

use crate::format::wire;
use crate::format::wire::Decoded;
use crate::format::wire::Reader;
use crate::id::ChunkId;
use crate::id::PackId;
use std::collections::BTreeSet;

/// What was found to be unreadable.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Lost {
    /// Whole packs.
    pub packs: BTreeSet<PackId>,
    /// Single chunks.
    pub chunks: BTreeSet<ChunkId>,
}

impl Lost {
    /// Returns true if nothing is lost.
    pub fn is_empty(&self) -> bool {
        self.packs.is_empty() && self.chunks.is_empty()
    }

    /// Returns a name for exactly this, by which a manifest says what it was made without; `None`
    /// if nothing is lost.
    pub fn digest(&self) -> Option<[u8; 16]> {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        let hash = blake3::hash(&bytes);
        let half = hash.as_bytes().first_chunk().copied();
        half.filter(|_| !self.is_empty())
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        wire::put_varint(out, self.packs.len() as u64);
        for id in &self.packs {
            out.extend_from_slice(id.as_bytes());
        }
        wire::put_varint(out, self.chunks.len() as u64);
        for id in &self.chunks {
            out.extend_from_slice(id.as_bytes());
        }
    }

    pub(super) fn decode(reader: &mut Reader) -> Decoded<Lost> {
        let mut lost = Lost::default();
        for _ in 0..reader.count(PackId::LEN)? {
            lost.packs.insert(PackId(reader.array()?));
        }
        for _ in 0..reader.count(ChunkId::LEN)? {
            lost.chunks.insert(ChunkId(reader.array()?));
        }
        Ok(lost)
    }
}
