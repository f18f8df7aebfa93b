//! The manifest: what one snapshot is. It stands in the log entry that adds the snapshot.
//!
//! `docs/format.md`, section "Manifest". Everything that grows with the source stays in chunks the
//! manifest names, so that the log can hold manifests whole and a list needs nothing but the log.

use crate::context::Timestamp;
use crate::format::tree::TreeRoot;
use crate::format::wire;
use crate::format::wire::Decoded;
use crate::format::wire::Malformed;
use crate::format::wire::Reader;
use crate::id::ChunkId;
use crate::id::SnapshotId;

/// One snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest {
    /// When the backup began.
    pub started_at: Timestamp,
    /// How long it took.
    pub duration_ms: u64,
    /// The machine.
    pub host: String,
    /// The profile; empty for paths given by hand.
    pub profile: String,
    /// The part of the profile; empty for all of it.
    pub scope: String,
    /// The directory all paths are relative to.
    pub root_path: Vec<u8>,
    /// What below the root was asked for; empty means all of it.
    pub included: Vec<Vec<u8>>,
    /// What was left out, and what was kept apart.
    pub rules: Rules,
    /// Whether everything asked for is in it (I8).
    pub partial: bool,
    /// The tree of files.
    pub tree: TreeRoot,
    /// The records of the databases in it (`format::database`); `None` if there are none.
    pub databases: Option<ChunkId>,
    /// The snapshot the backup compared with.
    pub parent: Option<SnapshotId>,
    /// What was known to be lost when it was made, by `Lost::digest`: it needs nothing of that.
    pub without: Option<[u8; 16]>,
    /// What was counted.
    pub figures: Figures,
    /// Names given by people.
    pub tags: Vec<String>,
    /// The program that wrote it.
    pub program: String,
    /// The version of the application, as it said itself; empty if nobody asked.
    pub app_version: String,
}

/// The rules of a backup: whoever makes another one of the same place needs them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    /// Patterns of what was taken; `None` for everything.
    pub taken: Option<Vec<String>>,
    /// Patterns of what was left out.
    pub exclude: Vec<String>,
    /// Patterns of what is never compressed together with others.
    pub secrets: Vec<String>,
    /// Whether other file systems below the root were left out.
    pub one_file_system: bool,
    /// Whether directories marked by a `CACHEDIR.TAG` were left out.
    pub skip_cache_dirs: bool,
}

const ONE_FILE_SYSTEM: u64 = 1;
const SKIP_CACHE_DIRS: u64 = 2;
const ONLY_TAKEN: u64 = 4;

impl Rules {
    fn flags(&self) -> u64 {
        let one_file_system = u64::from(self.one_file_system) * ONE_FILE_SYSTEM;
        let skip_cache_dirs = u64::from(self.skip_cache_dirs) * SKIP_CACHE_DIRS;
        let only_taken = u64::from(self.taken.is_some()) * ONLY_TAKEN;
        one_file_system | skip_cache_dirs | only_taken
    }
}

/// What a backup counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Entries that are regular files.
    pub files: u64,
    /// Entries that are directories.
    pub directories: u64,
    /// Bytes of all files.
    pub total_bytes: u64,
    /// Bytes that had to be read.
    pub read_bytes: u64,
    /// Plain bytes of chunks that were new to the repository.
    pub new_bytes: u64,
    /// Bytes of the packs written.
    pub stored_bytes: u64,
    /// Files that were new.
    pub new_files: u64,
    /// Files that differed from the parent.
    pub changed_files: u64,
    /// Sources that could not be read as they should.
    pub warnings: u64,
}

impl Manifest {
    /// Returns the bytes whose keyed hash is the snapshot's id.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        wire::put_field(&mut out, 1, &self.tree.encode());
        wire::put_field(&mut out, 2, &self.started_at.0.to_le_bytes());
        wire::put_number_field(&mut out, 4, self.duration_ms);
        for (number, text) in [(6, &self.host), (8, &self.profile), (20, &self.program)] {
            if !text.is_empty() {
                wire::put_field(&mut out, number, text.as_bytes());
            }
        }
        wire::put_field(&mut out, 10, &self.root_path);
        for path in &self.included {
            wire::put_field(&mut out, 12, path);
        }
        wire::put_number_field(&mut out, 14, u64::from(self.partial));
        if let Some(parent) = &self.parent {
            wire::put_field(&mut out, 16, parent.as_bytes());
        }
        for tag in &self.tags {
            wire::put_field(&mut out, 18, tag.as_bytes());
        }
        wire::put_field(&mut out, 22, &self.figures.encode());
        if !self.scope.is_empty() {
            wire::put_field(&mut out, 24, self.scope.as_bytes());
        }
        if let Some(without) = &self.without {
            wire::put_field(&mut out, 34, without);
        }
        if let Some(databases) = &self.databases {
            // Odd: whoever does not know of this chunk must not collect garbage.
            wire::put_field(&mut out, 25, databases.as_bytes());
        }
        for pattern in &self.rules.exclude {
            wire::put_field(&mut out, 28, pattern.as_bytes());
        }
        for pattern in &self.rules.secrets {
            wire::put_field(&mut out, 30, pattern.as_bytes());
        }
        if self.rules.flags() != 0 {
            wire::put_number_field(&mut out, 32, self.rules.flags());
        }
        if !self.app_version.is_empty() {
            wire::put_field(&mut out, 40, self.app_version.as_bytes());
        }
        for pattern in self.rules.taken.iter().flatten() {
            wire::put_field(&mut out, 36, pattern.as_bytes());
        }
        out
    }

    /// Reads a manifest.
    pub fn decode(bytes: &[u8]) -> Decoded<Manifest> {
        let mut manifest = Manifest::default();
        let mut has_tree = false;
        let mut reader = Reader::new(bytes);
        while let Some((number, field)) = reader.field()? {
            match number {
                1 => {
                    manifest.tree = TreeRoot::decode(field)?;
                    has_tree = true;
                }
                2 => manifest.started_at = Timestamp(i64::from_le_bytes(wire::array(field)?)),
                4 => manifest.duration_ms = wire::number(field)?,
                6 => manifest.host = wire::text(field)?,
                8 => manifest.profile = wire::text(field)?,
                10 => manifest.root_path = field.to_vec(),
                12 => manifest.included.push(field.to_vec()),
                14 => manifest.partial = wire::number(field)? != 0,
                16 => manifest.parent = Some(SnapshotId(wire::array(field)?)),
                18 => manifest.tags.push(wire::text(field)?),
                20 => manifest.program = wire::text(field)?,
                22 => manifest.figures = Figures::decode(field)?,
                24 => manifest.scope = wire::text(field)?,
                25 => manifest.databases = Some(ChunkId(wire::array(field)?)),
                28 => manifest.rules.exclude.push(wire::text(field)?),
                30 => manifest.rules.secrets.push(wire::text(field)?),
                32 => {
                    let flags = wire::number(field)?;
                    manifest.rules.one_file_system = flags & ONE_FILE_SYSTEM != 0;
                    manifest.rules.skip_cache_dirs = flags & SKIP_CACHE_DIRS != 0;
                    if flags & ONLY_TAKEN != 0 {
                        manifest.rules.taken.get_or_insert_default();
                    }
                }
                36 => {
                    let taken = manifest.rules.taken.get_or_insert_default();
                    taken.push(wire::text(field)?);
                }
                34 => manifest.without = Some(wire::array(field)?),
                40 => manifest.app_version = wire::text(field)?,
                other => wire::unknown_field(other)?,
            }
        }
        match has_tree {
            true => Ok(manifest),
            false => Err(Malformed::Bytes("a manifest names no tree")),
        }
    }
}

impl Figures {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        for value in [
            self.files,
            self.directories,
            self.total_bytes,
            self.read_bytes,
            self.new_bytes,
            self.stored_bytes,
            self.new_files,
            self.changed_files,
            self.warnings,
        ] {
            wire::put_varint(&mut out, value);
        }
        out
    }

    /// Numbers may only be appended: an old reader ignores the rest, a new one reads zeroes.
    fn decode(bytes: &[u8]) -> Decoded<Figures> {
        let mut reader = Reader::new(bytes);
        let mut next = || {
            if reader.is_empty() {
                Ok(0)
            } else {
                reader.varint()
            }
        };
        Ok(Figures {
            files: next()?,
            directories: next()?,
            total_bytes: next()?,
            read_bytes: next()?,
            new_bytes: next()?,
            stored_bytes: next()?,
            new_files: next()?,
            changed_files: next()?,
            warnings: next()?,
        })
    }
}

/// Returns the id of the manifest with these bytes; `key` is the repository's for manifests.
pub fn snapshot_id(key: &[u8; 32], manifest: &[u8]) -> SnapshotId {
    SnapshotId(*blake3::keyed_hash(key, manifest).as_bytes())
}

impl Default for TreeRoot {
    fn default() -> TreeRoot {
        TreeRoot {
            id: ChunkId([0; 32]),
            level: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Manifest {
        Manifest {
            started_at: Timestamp(1_763_600_000_000_000_001),
            duration_ms: 12,
            host: "nas1".into(),
            scope: "agents".into(),
            root_path: b"/opt/homecore".to_vec(),
            included: vec![b"rules".to_vec()],
            rules: Rules {
                taken: Some(vec!["config/**".into()]),
                exclude: vec!["*.tmp".into(), "/models/**".into()],
                secrets: vec![".env".into()],
                one_file_system: false,
                skip_cache_dirs: true,
            },
            partial: true,
            tree: TreeRoot {
                id: ChunkId([7; 32]),
                level: 2,
            },
            databases: Some(ChunkId([9; 32])),
            parent: Some(SnapshotId([8; 32])),
            without: Some([6; 16]),
            figures: Figures {
                files: 3,
                warnings: 9,
                ..Figures::default()
            },
            tags: vec!["before-upgrade".into(), "ü".into()],
            program: "statekeep 0.1.0".into(),
            app_version: "2.4.1".into(),
            ..Manifest::default()
        }
    }

    #[test]
    fn manifests_round_trip_and_skip_what_is_new_to_them() {
        let mut bytes = example().encode();
        wire::put_field(&mut bytes, 1000, b"from the future");

        assert_eq!(Manifest::decode(&bytes), Ok(example()));

        wire::put_field(&mut bytes, 1001, b"that must be understood");
        assert_eq!(
            Manifest::decode(&bytes),
            Err(Malformed::Unknown("field", 1001))
        );
    }

    #[test]
    fn a_cut_manifest_is_refused_or_lacks_only_whole_fields() {
        let bytes = example().encode();
        for len in 0..bytes.len() {
            if let Ok(manifest) = Manifest::decode(&bytes[..len]) {
                assert_eq!(manifest.tree, example().tree);
            }
        }
    }
}
