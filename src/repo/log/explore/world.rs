//! The store of the exploration: small, cheap to clone, with power loss and lost replies.
//!
//! Pack k is `PackId([k; 32])` and bit k of `packs`. A manifest is a name followed by the numbers
//! of the packs the snapshot needs.

use crate::format::checkpoint::State;
use crate::format::entry::AddedPack;
use crate::format::entry::AddedSnapshot;
use crate::format::entry::Change;
use crate::format::entry::Entry;
use crate::format::entry::PackBytes;
use crate::id::PackId;
use crate::id::SlotHash;
use crate::id::WriterId;
use crate::repo::log::fold::Applied;
use crate::repo::log::rules::Rules;
use crate::repo::log::step::Put;
use crate::repo::log::step::Reply;
use crate::repo::log::step::Request;
use crate::repo::log::step::Slot;
use crate::repo::log::step::StoredCheckpoint;
use crate::repo::log::step::StoredPack;
use crate::store::Folder;
use std::collections::BTreeMap;
use std::hash::Hash;
use std::hash::Hasher;
use std::sync::Arc;

/// The pack of the snapshot that is there at the start.
pub(super) const FIRST_PACK: u8 = 0;
/// The name of that snapshot.
pub(super) const FIRST_NAME: u8 = b'S';
/// The client that removes it.
pub(super) const FORGET_NAME: u8 = b'F';

/// Everything outside the actors.
#[derive(Clone)]
pub(super) struct World {
    pub(super) rules: Rules,
    pub(super) packs: u32,
    /// Each slot, and whether it survives power loss.
    pub(super) slots: BTreeMap<u64, (Arc<Slot>, bool)>,
    pub(super) checkpoints: BTreeMap<u64, Arc<State>>,
    /// A put whose sender was told that it failed, still on its way.
    pub(super) delayed: Option<(u64, Arc<Slot>)>,
    /// How many replies may still get lost.
    pub(super) losses_left: u8,
    /// How many power losses may still come.
    pub(super) crashes_left: u8,
    /// Names of the backups reported as successful, and that of the forgetter.
    pub(super) acknowledged: Vec<u8>,
}

impl Hash for World {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.packs.hash(hasher);
        for (number, (slot, durable)) in &self.slots {
            (number, &slot.object_hash[..16], durable).hash(hasher);
        }
        for (position, state) in &self.checkpoints {
            (position, state.log_hash()).hash(hasher);
        }
        let delayed = self.delayed.as_ref();
        delayed
            .map(|(number, slot)| (number, slot.object_hash))
            .hash(hasher);
        (self.losses_left, self.crashes_left, &self.acknowledged).hash(hasher);
    }
}

impl World {
    /// A repository with one snapshot, which a checkpoint holds.
    pub(super) fn new(rules: Rules) -> World {
        let change = Change {
            add_snapshots: vec![snapshot(FIRST_NAME, &[FIRST_PACK])],
            add_packs: vec![added(FIRST_PACK)],
            ..Change::default()
        };
        let entry = Entry {
            previous: SlotHash([0; 32]),
            writer: WriterId([0; 16]),
            written_at: Default::default(),
            change,
        };
        let mut state = State::default();
        state.apply(&sealed(entry), rules);
        state.read = Default::default();
        state.read.since = 1;
        state.read.settled = 1;
        state.read.exact = 1;
        state.read.proved = 1;
        World {
            rules,
            packs: 1 << FIRST_PACK,
            slots: BTreeMap::new(),
            checkpoints: [(1, Arc::new(state))].into(),
            delayed: None,
            losses_left: 0,
            crashes_left: 0,
            acknowledged: Vec::new(),
        }
    }

    /// Does one operation whose reply arrives; `PutSlot` is not one of these.
    pub(super) fn answer(&mut self, request: &Request) -> Reply {
        match request {
            Request::ListCheckpoints => {
                let newest_first = self.checkpoints.keys().rev();
                let row = |position: &u64| StoredCheckpoint {
                    position: *position,
                    modified_ns: 0,
                };
                Reply::Checkpoints(newest_first.map(row).collect())
            }
            Request::GetCheckpoint(position) => {
                Reply::Checkpoint(self.checkpoints.get(position).cloned().map(Ok))
            }
            Request::PutCheckpoint(state) => {
                // As it would be read back.
                let mut stored = State::clone(state);
                stored.read = Default::default();
                stored.read.since = stored.position;
                stored.read.settled = stored.position;
                stored.read.exact = stored.position;
                stored.read.proved = stored.position;
                stored.gone.clear();
                let stored = Arc::new(stored);
                self.checkpoints.entry(state.position).or_insert(stored);
                Reply::Done
            }
            Request::DeleteCheckpoint(position) => {
                self.checkpoints.remove(position);
                Reply::Done
            }
            Request::ListSlots => Reply::Slots(self.slots.keys().copied().collect()),
            Request::GetSlot(number) => {
                Reply::Slot(self.slots.get(number).map(|(slot, _)| slot.clone()))
            }
            Request::DeleteSlot(number) => {
                self.slots.remove(number);
                Reply::Done
            }
            Request::ListPacks => {
                let there = (0..32).filter(|bit| self.packs & (1 << bit) != 0);
                let row = |bit| StoredPack {
                    id: pack(bit),
                    stored_bytes: 1,
                    modified_ns: 0,
                };
                Reply::Packs(there.map(row).collect())
            }
            Request::PackExists(id) => Reply::Exists(self.packs & bit(id) != 0),
            Request::DeletePack(id) => {
                self.packs &= !bit(id);
                Reply::Done
            }
            Request::Sync(folder) => {
                if *folder == Folder::Log {
                    self.sync();
                }
                Reply::Done
            }
            Request::PutSlot(..) => unreachable!("the caller decides what becomes of it"),
        }
    }

    /// Creates a slot; it can be seen, but survives power loss only after a sync.
    pub(super) fn put(&mut self, number: u64, slot: Arc<Slot>, durable: bool) -> Put {
        if self.slots.contains_key(&number) {
            return Put::Taken;
        }
        self.slots.insert(number, (slot.clone(), durable));
        Put::Created(slot)
    }

    pub(super) fn sync(&mut self) {
        self.slots
            .values_mut()
            .for_each(|(_, durable)| *durable = true);
    }

    /// Returns every world that power loss can leave.
    pub(super) fn crashed(&self) -> Vec<World> {
        let at_risk = self.slots.iter().filter(|(_, (_, durable))| !durable);
        let at_risk: Vec<u64> = at_risk.map(|(number, _)| *number).collect();
        let mut worlds = Vec::new();
        for kept in 0..1_u32 << at_risk.len() {
            let mut world = self.clone();
            world.crashes_left -= 1;
            for (index, number) in at_risk.iter().enumerate() {
                if kept & (1 << index) == 0 {
                    world.slots.remove(number);
                }
            }
            world.sync();
            worlds.push(world);
        }
        worlds
    }

    /// Returns what is wrong, if anything.
    pub(super) fn violation(&self) -> Option<String> {
        let (state, writers) = self.history();
        for manifest in state.snapshots.values() {
            let needed = manifest[1..].iter().fold(0, |mask, k| mask | 1_u32 << k);
            if needed & !self.packs != 0 {
                let name = char::from(manifest[0]);
                return Some(format!("snapshot {name} lost a pack"));
            }
        }
        let is_there = |name| state.snapshots.values().any(|manifest| manifest[0] == name);
        if self.acknowledged.contains(&FORGET_NAME) && is_there(FIRST_NAME) {
            return Some("a forgotten snapshot is there again".to_string());
        }
        for name in self
            .acknowledged
            .iter()
            .filter(|name| **name != FORGET_NAME)
        {
            if !state
                .snapshots
                .values()
                .any(|manifest| manifest[0] == *name)
            {
                let name = char::from(*name);
                return Some(format!("snapshot {name} was acknowledged and is not there"));
            }
        }
        let mut unique = writers.clone();
        unique.dedup();
        (unique != writers).then(|| "an entry is in the log twice".to_string())
    }

    /// Returns what a reader reads that is alone in the world, and the writers of valid entries.
    fn history(&self) -> (State, Vec<WriterId>) {
        let newest = self.checkpoints.values().next_back();
        let mut state = newest.map_or_else(State::default, |state| State::clone(state));
        let mut writers = Vec::new();
        while let Some((slot, _)) = self.slots.get(&(state.position + 1)) {
            if state.apply(slot, self.rules) == Applied::Valid {
                writers.push(slot.entry.writer);
            }
        }
        writers.sort();
        (state, writers)
    }
}

pub(super) fn pack(number: u8) -> PackId {
    PackId([number; 32])
}

pub(super) fn bit(id: &PackId) -> u32 {
    1 << id.0[0]
}

pub(super) fn added(number: u8) -> AddedPack {
    AddedPack {
        id: pack(number),
        bytes: PackBytes {
            stored_bytes: 1,
            table_bytes: 1,
        },
    }
}

pub(super) fn snapshot(name: u8, packs: &[u8]) -> AddedSnapshot {
    let manifest = [&[name], packs].concat();
    AddedSnapshot::new(&[0; 32], manifest)
}

/// Returns the slot with this entry. Sealing again gives the same object: the random salt only
/// matters for entries that are the same, and each has a writer of its own.
pub(super) fn sealed(entry: Entry) -> Slot {
    Slot {
        object_hash: *blake3::hash(&entry.encode()).as_bytes(),
        stored_bytes: 1,
        entry,
    }
}
