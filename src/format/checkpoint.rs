//! A checkpoint: the stored fold of the log up to a position.
//!
//! `docs/format.md`, section "Checkpoint". It is a pure function of slots 1 to n, so it does not
//! matter who writes it or whether two do. How entries are folded is in `repo/log/fold.rs`.

use crate::context::Timestamp;
use crate::format::entry;
use crate::format::entry::AddedSnapshot;
use crate::format::entry::PackBytes;
use crate::format::note::Note;
use crate::format::note::Notes;
use crate::format::wire;
use crate::format::wire::Decoded;
use crate::format::wire::Malformed;
use crate::format::wire::Reader;
use crate::id::PackId;
use crate::id::SlotHash;
use crate::id::SnapshotId;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::hash::Hash;
use std::hash::Hasher;
use std::sync::Arc;

/// How many hashes of the log a state remembers, so that a writer or a cache a little behind can
/// be told whether what it saw is still part of the log.
pub const RECENT_MAX: usize = 64;

/// No log is longer, so that no arithmetic on positions can overflow.
pub const POSITION_MAX: u64 = 1 << 48;

/// The state of the repository at a position of the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// The number of the last slot folded; zero before the first.
    pub position: u64,
    /// The hashes of the log at the last positions; the last one is that at `position`.
    pub recent: Vec<SlotHash>,
    /// The snapshots by id, each with its manifest as it was written.
    pub snapshots: BTreeMap<SnapshotId, Arc<[u8]>>,
    /// The packs that snapshots may rely on.
    pub packs: BTreeMap<PackId, PackBytes>,
    /// Packs that were dropped, when, and are not known to be deleted.
    pub dropped: BTreeMap<PackId, Timestamp>,
    /// Everything else the log says.
    pub notes: Notes,
    /// How this copy was read. Not stored.
    pub read: Read,
    /// Packs that entries read since `read.since` called gone. Not stored.
    pub gone: BTreeSet<PackId>,
}

/// How a copy of the state came to this process. It says nothing about the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Read {
    /// Every slot after this position was read by this process, one by one.
    pub since: u64,
    /// No slot up to this position was trimmed and written again before it was read.
    pub exact: u64,
    /// Every slot up to this position is known to survive power loss.
    pub settled: u64,
    /// The last slot whose entry took effect.
    pub proved: u64,
    /// The position of the newest checkpoint, when the list was last read.
    pub checkpoint: u64,
    /// About how long a checkpoint is.
    pub checkpoint_bytes: u64,
    /// The stored bytes of the slots after this position are counted in `tail_bytes`.
    pub counted_since: u64,
    /// Stored bytes of the slots counted.
    pub tail_bytes: u64,
}

/// The hash of the log covers everything below, so hashing it again would only cost time.
impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.position.hash(hasher);
        self.log_hash().hash(hasher);
        let read = self.read;
        (read.since, read.exact, read.settled, read.proved).hash(hasher);
    }
}

impl State {
    /// Returns true if an entry read dropped this pack, even if it is forgotten since.
    pub fn was_dropped(&self, id: &PackId) -> bool {
        self.dropped.contains_key(id) || self.gone.contains(id)
    }

    /// Returns the hash of the log up to and with `position`; all zero before the first slot.
    pub fn log_hash(&self) -> SlotHash {
        self.recent.last().copied().unwrap_or(SlotHash([0; 32]))
    }

    /// Returns the hash of the log at an earlier position, if it is not too long ago.
    pub fn hash_at(&self, position: u64) -> Option<SlotHash> {
        if position == 0 {
            return Some(SlotHash([0; 32]));
        }
        let back = usize::try_from(self.position.checked_sub(position)?).ok()?;
        let index = self.recent.len().checked_sub(back + 1)?;
        Some(self.recent[index])
    }

    /// Returns the plain bytes of the checkpoint.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 * self.snapshots.len() + 40 * self.packs.len());
        wire::put_number_field(&mut out, 1, self.position);
        entry::put_ids(&mut out, 3, self.recent.iter().map(|hash| &hash.0));
        for manifest in self.snapshots.values() {
            wire::put_field(&mut out, 5, manifest);
        }
        let mut packs = Vec::with_capacity(40 * self.packs.len());
        for (id, bytes) in &self.packs {
            entry::put_pack(&mut packs, id, *bytes);
        }
        wire::put_field(&mut out, 7, &packs);
        let mut dropped = Vec::with_capacity(40 * self.dropped.len());
        for (id, at) in &self.dropped {
            dropped.extend_from_slice(id.as_bytes());
            dropped.extend_from_slice(&at.0.to_le_bytes());
        }
        wire::put_field(&mut out, 9, &dropped);
        for note in self.notes.to_list() {
            wire::put_field(&mut out, 11, &note.encode());
        }
        out
    }

    /// Reads the plain bytes of a checkpoint. `manifest_key` is the repository's key for manifests.
    pub fn decode(manifest_key: &[u8; 32], bytes: &[u8]) -> Decoded<State> {
        let mut state = State::default();
        let mut reader = Reader::new(bytes);
        while let Some((number, field)) = reader.field()? {
            let mut items = Reader::new(field);
            match number {
                1 => state.position = wire::number(field)?,
                3 => state.recent = entry::ids(field)?.map(SlotHash).collect(),
                5 => {
                    let added = AddedSnapshot::new(manifest_key, field);
                    state.snapshots.insert(added.id, added.manifest);
                }
                7 => {
                    while !items.is_empty() {
                        let pack = entry::take_pack(&mut items)?;
                        state.packs.insert(pack.id, pack.bytes);
                    }
                }
                9 => {
                    while !items.is_empty() {
                        let id = PackId(items.array()?);
                        let at = Timestamp(i64::from_le_bytes(items.array()?));
                        state.dropped.insert(id, at);
                    }
                }
                11 => state.notes.apply(&Note::decode(field)?),
                other => wire::unknown_field(other)?,
            }
        }
        let expected = state.position.min(RECENT_MAX as u64);
        let is_possible = (1..=POSITION_MAX).contains(&state.position);
        if !is_possible || state.recent.len() as u64 != expected {
            return Err(Malformed::Bytes("a checkpoint does not fit its position"));
        }
        state.read = Read {
            since: state.position,
            exact: state.position,
            settled: state.position,
            proved: state.position,
            checkpoint: state.position,
            checkpoint_bytes: bytes.len() as u64,
            counted_since: state.position,
            tail_bytes: 0,
        };
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: [u8; 32] = [5; 32];

    fn example() -> State {
        let added = AddedSnapshot::new(&KEY, &b"any bytes"[..]);
        let bytes = PackBytes {
            stored_bytes: 1000,
            table_bytes: 10,
        };
        let mut notes = Notes::default();
        notes.apply(&Note::Tag(added.id, "weekly".into()));
        notes.apply(&Note::Unknown(1000, vec![1]));
        State {
            position: 2,
            recent: vec![SlotHash([1; 32]), SlotHash([2; 32])],
            snapshots: [(added.id, added.manifest)].into(),
            packs: [(PackId([3; 32]), bytes)].into(),
            dropped: [(PackId([4; 32]), Timestamp(-5))].into(),
            notes,
            read: Read::default(),
            gone: BTreeSet::new(),
        }
    }

    fn decoded(bytes: &[u8]) -> Decoded<State> {
        State::decode(&KEY, bytes).map(|state| State {
            read: Read::default(),
            ..state
        })
    }

    #[test]
    fn checkpoints_round_trip_and_skip_what_is_new_to_them() {
        let mut bytes = example().encode();
        wire::put_field(&mut bytes, 100, b"from the future");

        assert_eq!(decoded(&bytes), Ok(example()));

        wire::put_field(&mut bytes, 101, b"that must be understood");
        assert_eq!(decoded(&bytes), Err(Malformed::Unknown("field", 101)));
    }

    #[test]
    fn a_checkpoint_without_its_hashes_is_refused() {
        assert!(State::decode(&KEY, &[]).is_err());
        let mut lacking = example();
        lacking.recent.pop();
        assert!(State::decode(&KEY, &lacking.encode()).is_err());
    }

    #[test]
    fn a_checkpoint_at_an_impossible_position_is_refused() {
        let mut state = example();
        state.recent = vec![SlotHash([1; 32]); RECENT_MAX];
        state.position = POSITION_MAX;
        assert!(State::decode(&KEY, &state.encode()).is_ok());
        state.position = u64::MAX;
        assert!(State::decode(&KEY, &state.encode()).is_err());
    }

    #[test]
    fn recent_hashes_are_found_by_position() {
        let state = example();

        assert_eq!(state.hash_at(2), Some(SlotHash([2; 32])));
        assert_eq!(state.hash_at(1), Some(SlotHash([1; 32])));
        assert_eq!(state.hash_at(0), Some(SlotHash([0; 32])));
        assert_eq!(state.hash_at(3), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = State::decode(&KEY, &bytes);
        }

        #[test]
        fn any_damage_of_a_checkpoint_is_read_or_refused(at in 0..400_usize, value: u8) {
            let mut bytes = example().encode();
            let at = at % bytes.len();
            bytes[at] = value;
            let _ = State::decode(&KEY, &bytes);
        }
    }
}
