//! What a machine may ask of the store, and what it may be told.
//!
//! Requests name slots, checkpoints and packs, not bytes: sealing, opening and damage are the
//! driver's, so that exploring the machines needs no cryptography.

use crate::error::Result;
use crate::format::checkpoint::State;
use crate::format::entry::Entry;
use crate::id::PackId;
use crate::store::Folder;
use std::sync::Arc;

/// One operation on the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Request {
    /// Which checkpoints are there? Answered by `Checkpoints`.
    ListCheckpoints,
    /// What does the checkpoint at this position say? Answered by `Checkpoint`.
    GetCheckpoint(u64),
    /// Store a checkpoint. Answered by `Done`, also if there was one.
    PutCheckpoint(Arc<State>),
    /// Delete a checkpoint. Answered by `Done`.
    DeleteCheckpoint(u64),
    /// Which slots are there? Answered by `Slots`.
    ListSlots,
    /// What is in this slot? Answered by `Slot`.
    GetSlot(u64),
    /// Create this slot. Answered by `Put`.
    PutSlot(u64, Arc<Entry>),
    /// Delete a slot. Answered by `Done`.
    DeleteSlot(u64),
    /// Which packs are there? Answered by `Packs`.
    ListPacks,
    /// Is this pack there? Answered by `Exists`.
    PackExists(PackId),
    /// Delete a pack. Answered by `Done`.
    DeletePack(PackId),
    /// Make durable whatever can be seen in a folder. Answered by `Done`.
    Sync(Folder),
}

/// The answer to a request. A failing store ends the machine, except for `PutSlot`.
#[derive(Debug, Clone)]
pub enum Reply {
    /// The checkpoints, newest first.
    Checkpoints(Vec<StoredCheckpoint>),
    /// A checkpoint: `None` if there is none, an error if it cannot be read.
    Checkpoint(Option<Result<Arc<State>, Damaged>>),
    /// The numbers of the slots, in no particular order.
    Slots(Vec<u64>),
    /// A slot.
    Slot(Option<Arc<Slot>>),
    /// How a put ended.
    Put(Put),
    /// The packs, in no particular order.
    Packs(Vec<StoredPack>),
    /// Whether it is there.
    Exists(bool),
    /// It is done.
    Done,
}

/// A checkpoint that is there but cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Damaged;

/// How putting a slot ended.
#[derive(Debug, Clone)]
pub enum Put {
    /// The slot is there, durably, and this call made it.
    Created(Arc<Slot>),
    /// There was one before.
    Taken,
    /// The store failed, and the slot may or may not be there.
    Unknown,
}

/// A slot as stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Slot {
    /// The hash of the stored object.
    pub object_hash: [u8; 32],
    /// The length of the stored object.
    pub stored_bytes: u64,
    /// What it says.
    pub entry: Entry,
}

/// One row of the list of checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StoredCheckpoint {
    /// The position it was made at.
    pub position: u64,
    /// When it was stored, by the store's clock.
    pub modified_ns: i64,
}

/// One row of the list of packs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StoredPack {
    /// The pack.
    pub id: PackId,
    /// The length of the stored object.
    pub stored_bytes: u64,
    /// When it was stored, by the store's clock.
    pub modified_ns: i64,
}

/// What a machine wants next.
#[derive(Debug, Clone)]
pub enum Step<T> {
    /// Ask the store and come back with the reply.
    Ask(Request),
    /// It is over.
    Done(T),
}

/// A protocol that is advanced one operation at a time.
pub trait Machine {
    /// What it is for.
    type Output;

    /// Begins when there is no reply yet, and else goes on with the reply to what it asked.
    fn step(&mut self, reply: Option<Reply>) -> Result<Step<Self::Output>>;
}
