//! The working keys of an open repository, all derived from its keyring.
//!
//! Ids are keyed by repository and by kind, so that an id tells nothing to whoever has no key and a
//! chunk is never taken for one of another kind.

use crate::codec::cipher::Suite;
use crate::error::Result;
use crate::format::container::DataKeys;
use crate::format::key::Keyring;
use crate::format::manifest;
use crate::format::pack::ChunkKind;
use crate::id::ChunkId;
use crate::id::SnapshotId;
use zeroize::Zeroizing;

/// The working keys.
pub struct Secrets {
    data_keys: DataKeys,
    id_keys: [Zeroizing<[u8; 32]>; 3],
    manifest_key: Zeroizing<[u8; 32]>,
    cut_key: Zeroizing<[u8; 32]>,
}

impl Secrets {
    /// Derives the keys.
    pub fn new(suite: Suite, keyring: &Keyring) -> Result<Secrets> {
        let derived =
            |context: &str| Zeroizing::new(blake3::derive_key(context, &keyring.id_secret));
        let data_keys = DataKeys::new(suite, keyring.generations.clone());
        Ok(Secrets {
            data_keys: data_keys.map_err(|malformed| malformed.of("the keyring"))?,
            id_keys: [
                derived("statekeep 2026-11 id of data"),
                derived("statekeep 2026-11 id of a list"),
                derived("statekeep 2026-11 id of a tree"),
            ],
            manifest_key: derived("statekeep 2026-11 id of a manifest"),
            cut_key: derived("statekeep 2026-11 cuts"),
        })
    }

    /// Returns the id of a chunk.
    pub fn chunk_id(&self, kind: ChunkKind, plain: &[u8]) -> ChunkId {
        let key = match kind {
            ChunkKind::Data => &self.id_keys[0],
            ChunkKind::List => &self.id_keys[1],
            ChunkKind::Tree => &self.id_keys[2],
        };
        ChunkId(*blake3::keyed_hash(key, plain).as_bytes())
    }

    /// Returns the id of the snapshot with this manifest.
    pub fn snapshot_id(&self, manifest: &[u8]) -> SnapshotId {
        manifest::snapshot_id(&self.manifest_key, manifest)
    }

    /// Returns the key of snapshot ids.
    pub fn manifest_key(&self) -> &[u8; 32] {
        &self.manifest_key
    }

    /// Returns the key that decides where streams and trees are cut.
    pub fn cut_key(&self) -> &[u8; 32] {
        &self.cut_key
    }

    /// Returns the keys that seal objects.
    pub fn data_keys(&self) -> &DataKeys {
        &self.data_keys
    }
}
