//! How an entry changes the state. Deterministic: all readers of the same slots agree.
//!
//! The hash of the log at slot n covers the stored bytes of slots 1 to n. An entry names the hash
//! its writer knew. If that is not the hash of what is really before it, the writer decided on
//! something else than what everybody reads, and the entry is void: it keeps its number and changes
//! nothing. `docs/decisions/0002-the-hash-covers-the-whole-log.md`.

use crate::format::checkpoint::RECENT_MAX;
use crate::format::checkpoint::State;
use crate::format::entry::Change;
use crate::id::SlotHash;
use crate::repo::log::rules::Rule;
use crate::repo::log::rules::Rules;
use crate::repo::log::step::Slot;

/// Below this many bytes of log a checkpoint is not worth an object.
const CHECKPOINT_TAIL_MIN_BYTES: u64 = 64 * 1024;
/// About how long a slot is that was not read, because a remembered state covers it.
const SLOT_TYPICAL_BYTES: u64 = 400;

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It took effect.
    Valid,
    /// It changed nothing.
    Void,
}

impl State {
    /// Folds the next slot into the state.
    pub fn apply(&mut self, slot: &Slot, rules: Rules) -> Applied {
        let continues = slot.entry.previous == self.log_hash() || rules.omit(Rule::VoidEntries);
        // A pack that was dropped may be deleted at any time, so nothing may bring it back. No
        // writer does; a reader does not depend on that.
        let revives = |change: &Change| {
            let mut added = change.add_packs.iter();
            added.any(|pack| self.dropped.contains_key(&pack.id)) && !rules.omit(Rule::Fence)
        };
        let applied = match continues && !revives(&slot.entry.change) {
            true => Applied::Valid,
            false => Applied::Void,
        };
        let hash = next_hash(self.log_hash(), &slot.object_hash);
        self.position += 1;
        if self.recent.len() == RECENT_MAX {
            self.recent.remove(0);
        }
        self.recent.push(hash);
        self.read.tail_bytes += slot.stored_bytes;
        if applied == Applied::Valid {
            self.read.proved = self.position;
            self.change(slot);
        }
        applied
    }

    /// Returns true if reading the log costs so much more than a checkpoint would that somebody
    /// should write one: the tail is longer than half of the last one.
    pub fn wants_checkpoint(&self) -> bool {
        CHECKPOINT_TAIL_MIN_BYTES.max(self.read.checkpoint_bytes / 2) < self.tail_bytes()
    }

    /// Returns about how many bytes of slots a reader without memory has to read.
    fn tail_bytes(&self) -> u64 {
        let read = self.read;
        let counted = self.position.saturating_sub(read.counted_since).max(1);
        let wanted = self.position.saturating_sub(read.checkpoint);
        match wanted.checked_sub(counted) {
            Some(uncounted) => read.tail_bytes + uncounted * SLOT_TYPICAL_BYTES,
            None => read.tail_bytes / counted * wanted,
        }
    }

    fn change(&mut self, slot: &Slot) {
        let change = &slot.entry.change;
        for id in &change.remove_snapshots {
            let removed = self.snapshots.remove(id);
            self.notes.forget_snapshot(id, removed.as_deref());
        }
        for added in &change.add_snapshots {
            self.snapshots.insert(added.id, added.manifest.clone());
        }
        for added in &change.add_packs {
            self.packs.insert(added.id, added.bytes);
        }
        for id in &change.drop_packs {
            self.packs.remove(id);
            self.dropped.entry(*id).or_insert(slot.entry.written_at);
        }
        for id in &change.gone_packs {
            self.dropped.remove(id);
            self.gone.insert(*id);
        }
        for note in &change.notes {
            self.notes.apply(note);
        }
    }
}

/// Returns the hash of the log with one more slot, of which this is the hash of the stored bytes.
pub fn hash_after(previous: SlotHash, object_hash: &[u8; 32]) -> SlotHash {
    next_hash(previous, object_hash)
}

/// Returns the hash of the log with one more slot.
pub(crate) fn next_hash(previous: SlotHash, object_hash: &[u8; 32]) -> SlotHash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(previous.as_bytes()).update(object_hash);
    SlotHash(*hasher.finalize().as_bytes())
}
