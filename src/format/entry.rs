//! One entry of the log: what a writer adds to and takes from the state of the repository.
//!
//! `docs/format.md`, section "Log entry". One schema serves backup, forget, prune, repack, proof
//! and every note. What an entry means is in `repo/log/fold.rs`; when one may be written is in
//! `repo/log/append.rs`.
//!
//! A manifest is kept as the bytes it was written in: its id is their hash, and fields this program
//! does not know survive. An even field of an entry that is not known here is skipped, so such a
//! field may never carry what a later entry or a checkpoint builds on; notes are the place to grow.

use crate::context::Timestamp;
use crate::format::manifest;
use crate::format::note::Note;
use crate::format::wire;
use crate::format::wire::Decoded;
use crate::format::wire::Malformed;
use crate::format::wire::Reader;
use crate::id::PackId;
use crate::id::SlotHash;
use crate::id::SnapshotId;
use crate::id::WriterId;
use std::sync::Arc;

const ID_BYTES: usize = 32;

/// The content of one slot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The hash of the log before this entry: of all slots its writer had read.
    pub previous: SlotHash,
    /// Who wrote it. Together with the rest it tells a writer whether a slot is its own.
    pub writer: WriterId,
    /// When it was written, by the writer's clock. Never used for safety.
    pub written_at: Timestamp,
    /// What it changes.
    pub change: Change,
}

/// What an entry changes, in the order in which it takes effect.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Change {
    /// Snapshots that are no more.
    pub remove_snapshots: Vec<SnapshotId>,
    /// Snapshots that are new.
    pub add_snapshots: Vec<AddedSnapshot>,
    /// Packs that are now part of the repository.
    pub add_packs: Vec<AddedPack>,
    /// Packs that are no more: from here on they may be deleted, and never be named again.
    pub drop_packs: Vec<PackId>,
    /// Dropped packs that were seen to be deleted, and need not be remembered any longer.
    pub gone_packs: Vec<PackId>,
    /// Everything else.
    pub notes: Vec<Note>,
}

/// A snapshot as an entry adds it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AddedSnapshot {
    /// The keyed hash of the manifest.
    pub id: SnapshotId,
    /// The manifest as it was written.
    pub manifest: Arc<[u8]>,
}

impl AddedSnapshot {
    /// Returns the snapshot with this manifest.
    pub fn new(manifest_key: &[u8; 32], manifest: impl Into<Arc<[u8]>>) -> AddedSnapshot {
        let manifest = manifest.into();
        AddedSnapshot {
            id: manifest::snapshot_id(manifest_key, &manifest),
            manifest,
        }
    }
}

/// A pack as an entry adds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddedPack {
    /// The pack.
    pub id: PackId,
    /// What the repository remembers of it.
    pub bytes: PackBytes,
}

/// How long a pack is, so that nobody needs a listing to know and one ranged read gets the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PackBytes {
    /// The length of the object.
    pub stored_bytes: u64,
    /// The length of the table, which ends the plain stream.
    pub table_bytes: u64,
}

impl Entry {
    /// Returns the plain bytes of the slot.
    pub fn encode(&self) -> Vec<u8> {
        let change = &self.change;
        let mut out = Vec::with_capacity(512);
        wire::put_field(&mut out, 1, self.previous.as_bytes());
        wire::put_field(&mut out, 3, self.writer.as_bytes());
        wire::put_field(&mut out, 4, &self.written_at.0.to_le_bytes());
        put_ids(&mut out, 5, change.remove_snapshots.iter().map(|id| &id.0));
        for snapshot in &change.add_snapshots {
            wire::put_field(&mut out, 7, &snapshot.manifest);
        }
        if !change.add_packs.is_empty() {
            let mut packs = Vec::new();
            for pack in &change.add_packs {
                put_pack(&mut packs, &pack.id, pack.bytes);
            }
            wire::put_field(&mut out, 9, &packs);
        }
        put_ids(&mut out, 11, change.drop_packs.iter().map(|id| &id.0));
        put_ids(&mut out, 13, change.gone_packs.iter().map(|id| &id.0));
        for note in &change.notes {
            wire::put_field(&mut out, 15, &note.encode());
        }
        out
    }

    /// Reads the plain bytes of a slot. `manifest_key` is the repository's key for manifest ids.
    pub fn decode(manifest_key: &[u8; 32], bytes: &[u8]) -> Decoded<Entry> {
        let (mut previous, mut writer) = (None, None);
        let mut written_at = Timestamp::default();
        let mut change = Change::default();
        let mut reader = Reader::new(bytes);
        while let Some((number, field)) = reader.field()? {
            match number {
                1 => previous = Some(SlotHash(wire::array(field)?)),
                3 => writer = Some(WriterId(wire::array(field)?)),
                4 => written_at = Timestamp(i64::from_le_bytes(wire::array(field)?)),
                5 => change.remove_snapshots.extend(ids(field)?.map(SnapshotId)),
                7 => {
                    let added = AddedSnapshot::new(manifest_key, field);
                    change.add_snapshots.push(added);
                }
                9 => {
                    let mut packs = Reader::new(field);
                    while !packs.is_empty() {
                        change.add_packs.push(take_pack(&mut packs)?);
                    }
                }
                11 => change.drop_packs.extend(ids(field)?.map(PackId)),
                13 => change.gone_packs.extend(ids(field)?.map(PackId)),
                15 => change.notes.push(Note::decode(field)?),
                other => wire::unknown_field(other)?,
            }
        }
        Ok(Entry {
            previous: previous.ok_or(Malformed::Bytes("an entry names no previous one"))?,
            writer: writer.ok_or(Malformed::Bytes("an entry names no writer"))?,
            written_at,
            change,
        })
    }
}

/// Appends a field of concatenated ids, unless there are none.
pub(crate) fn put_ids<'a>(
    out: &mut Vec<u8>,
    number: u64,
    ids: impl Iterator<Item = &'a [u8; ID_BYTES]>,
) {
    let bytes: Vec<u8> = ids.flatten().copied().collect();
    if !bytes.is_empty() {
        wire::put_field(out, number, &bytes);
    }
}

/// Takes concatenated ids apart.
pub(crate) fn ids(field: &[u8]) -> Decoded<impl Iterator<Item = [u8; ID_BYTES]>> {
    let (ids, rest) = field.as_chunks::<ID_BYTES>();
    match rest {
        [] => Ok(ids.iter().copied()),
        _ => Err(Malformed::Bytes("a field has the wrong length")),
    }
}

/// Appends a pack.
pub(crate) fn put_pack(out: &mut Vec<u8>, id: &PackId, bytes: PackBytes) {
    out.extend_from_slice(id.as_bytes());
    wire::put_varint(out, bytes.stored_bytes);
    wire::put_varint(out, bytes.table_bytes);
}

/// Takes a pack.
pub(crate) fn take_pack(reader: &mut Reader) -> Decoded<AddedPack> {
    Ok(AddedPack {
        id: PackId(reader.array()?),
        bytes: PackBytes {
            stored_bytes: reader.varint()?,
            table_bytes: reader.varint()?,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::cipher::Suite;
    use crate::format::container;
    use crate::format::container::DataKeys;
    use crate::format::container::ObjectKind;
    use crate::format::manifest::Figures;
    use crate::format::manifest::Manifest;
    use proptest::prelude::*;

    const KEY: [u8; 32] = [5; 32];

    fn example() -> Entry {
        Entry {
            previous: SlotHash([1; 32]),
            writer: WriterId([2; 16]),
            written_at: Timestamp(-3),
            change: Change {
                remove_snapshots: vec![SnapshotId([4; 32]), SnapshotId([5; 32])],
                add_snapshots: vec![AddedSnapshot::new(&KEY, &b"any bytes"[..])],
                add_packs: vec![AddedPack {
                    id: PackId([6; 32]),
                    bytes: PackBytes {
                        stored_bytes: 1 << 40,
                        table_bytes: 7,
                    },
                }],
                drop_packs: vec![PackId([8; 32])],
                gone_packs: vec![PackId([9; 32])],
                notes: vec![Note::Untag(SnapshotId([4; 32]), "weekly".into())],
            },
        }
    }

    #[test]
    fn entries_round_trip_and_skip_what_is_new_to_them() {
        let mut bytes = example().encode();
        wire::put_field(&mut bytes, 100, b"from the future");

        assert_eq!(Entry::decode(&KEY, &bytes), Ok(example()));

        wire::put_field(&mut bytes, 101, b"that must be understood");
        assert_eq!(
            Entry::decode(&KEY, &bytes),
            Err(Malformed::Unknown("field", 101))
        );
    }

    #[test]
    fn an_entry_without_predecessor_or_writer_is_refused() {
        assert!(Entry::decode(&KEY, &[]).is_err());
        let mut bytes = Vec::new();
        wire::put_field(&mut bytes, 1, &[0; 32]);
        assert!(Entry::decode(&KEY, &bytes).is_err());
    }

    #[test]
    fn a_snapshot_with_nothing_changed_is_a_slot_of_about_400_bytes() {
        let manifest = Manifest {
            started_at: Timestamp(1_763_600_000_000_000_001),
            duration_ms: 12,
            host: "nas1.example.org".into(),
            profile: "homecore".into(),
            root_path: b"/opt/homecore".to_vec(),
            parent: Some(SnapshotId([8; 32])),
            figures: Figures {
                files: 10_000,
                directories: 300,
                total_bytes: 1 << 38,
                ..Figures::default()
            },
            program: "statekeep 0.1.0".into(),
            ..Manifest::default()
        };
        let entry = Entry {
            change: Change {
                add_snapshots: vec![AddedSnapshot::new(&KEY, manifest.encode())],
                ..Change::default()
            },
            ..example()
        };
        let keys = DataKeys::new(Suite::Plain, vec![(1, [1; 32])]).unwrap();

        let object = container::seal(&keys, ObjectKind::Slot, [0; 24], &entry.encode());

        assert_eq!(object.len(), 305);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = Entry::decode(&KEY, &bytes);
        }

        #[test]
        fn any_damage_of_an_entry_is_read_or_refused(at in 0..400_usize, value: u8) {
            let mut bytes = example().encode();
            let at = at % bytes.len();
            bytes[at] = value;
            let _ = Entry::decode(&KEY, &bytes);
        }
    }
}
