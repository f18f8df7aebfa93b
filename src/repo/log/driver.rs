//! Runs the machines over a store: seals and opens what they name, and nothing else.

use crate::context::Context;
use crate::context::Timestamp;
use crate::error::Error;
use crate::error::Result;
use crate::format::checkpoint::POSITION_MAX;
use crate::format::checkpoint::State;
use crate::format::container;
use crate::format::container::DataKeys;
use crate::format::container::ObjectKind;
use crate::format::entry::Entry;
use crate::id::PackId;
use crate::id::WriterId;
use crate::repo::log::append::Append;
use crate::repo::log::append::Draft;
use crate::repo::log::append::Outcome;
use crate::repo::log::checkpoint::Checkpoint;
use crate::repo::log::collect::Survey;
use crate::repo::log::collect::SurveyReport;
use crate::repo::log::collect::Sweep;
use crate::repo::log::collect::SweepReport;
use crate::repo::log::read::ReadState;
use crate::repo::log::rules::Rules;
use crate::repo::log::step::Damaged;
use crate::repo::log::step::Machine;
use crate::repo::log::step::Put;
use crate::repo::log::step::Reply;
use crate::repo::log::step::Request;
use crate::repo::log::step::Slot;
use crate::repo::log::step::Step;
use crate::repo::log::step::StoredCheckpoint;
use crate::repo::log::step::StoredPack;
use crate::repo::log::trim::Trim;
use crate::repo::log::trim::TrimReport;
use crate::store;
use crate::store::Folder;
use crate::store::Key;
use crate::store::Listed;
use crate::store::Store;
use std::sync::Arc;

/// What opens and seals the objects of the log.
#[derive(Clone)]
pub struct LogKeys {
    /// Seals slots and checkpoints.
    pub data: DataKeys,
    /// Makes manifests into snapshot ids.
    pub manifest: [u8; 32],
}

/// Reads the state of the repository. A state remembered from an earlier run saves reading, and
/// one that is not part of the log any more is reported as `Error::RolledBack`.
pub fn read_state(
    cx: &Context,
    store: &dyn Store,
    keys: &LogKeys,
    remembered: Option<Arc<State>>,
) -> Result<Arc<State>> {
    let read = ReadState::new(Rules::NORMAL, remembered);
    Ok(run(cx, store, keys, read)?.state)
}

/// Appends an entry to the log. After `Outcome::Outdated` the caller plans again.
pub fn append(
    cx: &Context,
    store: &dyn Store,
    keys: &LogKeys,
    state: Arc<State>,
    draft: Draft,
) -> Result<Outcome> {
    let writer = WriterId(cx.random_bytes()?);
    let append = Append::new(Rules::NORMAL, state, draft, writer, cx.clock.now());
    run(cx, store, keys, append)
}

/// Writes a checkpoint if the state is worth one; returns whether it did.
pub fn checkpoint(
    cx: &Context,
    store: &dyn Store,
    keys: &LogKeys,
    state: Arc<State>,
) -> Result<bool> {
    match state.wants_checkpoint() {
        true => run(cx, store, keys, Checkpoint::new(Rules::NORMAL, state)),
        false => Ok(false),
    }
}

/// Deletes slots and checkpoints nobody needs, judging by checkpoints stored before this time.
pub fn trim(
    cx: &Context,
    store: &dyn Store,
    keys: &LogKeys,
    stored_before_ns: i64,
) -> Result<TrimReport> {
    run(cx, store, keys, Trim::new(Rules::NORMAL, stored_before_ns))
}

/// Finds packs in no entry that were stored before this time, and dropped ones that are gone.
pub fn survey(
    cx: &Context,
    store: &dyn Store,
    keys: &LogKeys,
    state: Arc<State>,
    stored_before_ns: i64,
) -> Result<SurveyReport> {
    run(cx, store, keys, Survey::new(state, stored_before_ns))
}

/// Deletes the packs that were dropped up to this time, whoever dropped them.
pub fn sweep(
    cx: &Context,
    store: &dyn Store,
    keys: &LogKeys,
    state: Arc<State>,
    dropped_before: Timestamp,
) -> Result<SweepReport> {
    let sweep = Sweep::new(Rules::NORMAL, state, dropped_before);
    run(cx, store, keys, sweep)
}

fn run<M>(cx: &Context, store: &dyn Store, keys: &LogKeys, machine: M) -> Result<M::Output>
where
    M: Machine,
    M::Output: IsUnsettled,
{
    let mut session = Session::new(cx, store, keys);
    let mut machine = machine;
    let mut reply = None;
    loop {
        match machine.step(reply)? {
            Step::Done(output) => {
                match session.put_error.take().filter(|_| output.is_unsettled()) {
                    Some(error) => return Err(error),
                    None => return Ok(output),
                }
            }
            Step::Ask(request) => {
                cx.check()?;
                reply = Some(session.answer(&request)?);
            }
        }
    }
}

/// An output that leaves open what the store did; then the store's error says why.
trait IsUnsettled {
    fn is_unsettled(&self) -> bool {
        false
    }
}

impl IsUnsettled for Outcome {
    fn is_unsettled(&self) -> bool {
        matches!(self, Outcome::Unsettled)
    }
}
impl IsUnsettled for crate::repo::log::read::ReadOutcome {}
impl IsUnsettled for bool {}
impl IsUnsettled for TrimReport {}
impl IsUnsettled for SurveyReport {}
impl IsUnsettled for SweepReport {}

/// Answers requests from a store.
pub(crate) struct Session<'a> {
    cx: &'a Context,
    store: &'a dyn Store,
    keys: &'a LogKeys,
    /// Why the last put ended as unknown.
    put_error: Option<Error>,
    /// The last slot sealed: putting it again puts the same bytes.
    sealed: Option<(u64, Entry, Vec<u8>)>,
}

impl<'a> Session<'a> {
    pub(crate) fn new(cx: &'a Context, store: &'a dyn Store, keys: &'a LogKeys) -> Session<'a> {
        Session {
            cx,
            store,
            keys,
            put_error: None,
            sealed: None,
        }
    }

    /// Does one operation.
    pub(crate) fn answer(&mut self, request: &Request) -> Result<Reply> {
        let store = self.store;
        Ok(match request {
            Request::ListCheckpoints => Reply::Checkpoints(self.checkpoints()?),
            Request::GetCheckpoint(position) => Reply::Checkpoint(self.get_checkpoint(*position)?),
            Request::PutCheckpoint(state) => {
                let plain = state.encode();
                let object = self.seal(ObjectKind::Checkpoint, &plain)?;
                store.put_new(&Key::checkpoint(state.position), &object)?;
                Reply::Done
            }
            Request::DeleteCheckpoint(position) => {
                store.delete(&Key::checkpoint(*position))?;
                Reply::Done
            }
            Request::ListSlots => {
                let listed = store.list(Folder::Log)?;
                Reply::Slots(listed.iter().filter_map(number).collect())
            }
            Request::GetSlot(number) => Reply::Slot(self.get_slot(*number)?),
            Request::PutSlot(number, entry) => Reply::Put(self.put_slot(*number, entry)?),
            Request::DeleteSlot(number) => {
                store.delete(&Key::slot(*number))?;
                Reply::Done
            }
            Request::ListPacks => {
                let listed = store.list(Folder::Packs)?;
                Reply::Packs(listed.iter().filter_map(stored_pack).collect())
            }
            Request::PackExists(id) => Reply::Exists(store.stored_bytes(&Key::pack(id))?.is_some()),
            Request::DeletePack(id) => {
                store.delete(&Key::pack(id))?;
                Reply::Done
            }
            Request::Sync(folder) => {
                store.sync(*folder)?;
                Reply::Done
            }
        })
    }

    fn checkpoints(&self) -> Result<Vec<StoredCheckpoint>> {
        let listed = self.store.list(Folder::State)?;
        let mut checkpoints: Vec<StoredCheckpoint> = listed
            .iter()
            .filter_map(|listed| {
                Some(StoredCheckpoint {
                    position: number(listed)?,
                    modified_ns: listed.modified_ns,
                })
            })
            .collect();
        checkpoints.sort_by_key(|checkpoint| std::cmp::Reverse(checkpoint.position));
        Ok(checkpoints)
    }

    fn get_checkpoint(&self, position: u64) -> Result<Option<Result<Arc<State>, Damaged>>> {
        let key = Key::checkpoint(position);
        let Some(object) = self.store.get(&key)? else {
            return Ok(None);
        };
        let state = container::unseal(&self.keys.data, ObjectKind::Checkpoint, &object)
            .and_then(|plain| State::decode(&self.keys.manifest, &plain))
            .map_err(|malformed| malformed.of(key.to_string()));
        match state {
            Ok(state) if state.position == position => Ok(Some(Ok(Arc::new(state)))),
            // Going on without what a newer program wrote would be guessing.
            Err(error @ Error::TooNew { .. }) => Err(error),
            _ => Ok(Some(Err(Damaged))),
        }
    }

    fn get_slot(&self, number: u64) -> Result<Option<Arc<Slot>>> {
        let key = Key::slot(number);
        let Some(object) = self.store.get(&key)? else {
            return Ok(None);
        };
        let entry = container::unseal(&self.keys.data, ObjectKind::Slot, &object)
            .and_then(|plain| Entry::decode(&self.keys.manifest, &plain))
            .map_err(|malformed| malformed.of(key.to_string()))?;
        Ok(Some(Arc::new(slot(&object, entry))))
    }

    fn put_slot(&mut self, number: u64, entry: &Entry) -> Result<Put> {
        let sealed = self.sealed.take();
        let again = sealed.filter(|(n, sealed, _)| *n == number && sealed == entry);
        let object = match again {
            Some((_, _, object)) => object,
            None => self.seal(ObjectKind::Slot, &entry.encode())?,
        };
        let put = match self.store.put_new(&Key::slot(number), &object) {
            Ok(store::Put::Created) => Put::Created(Arc::new(slot(&object, entry.clone()))),
            Ok(store::Put::Taken) => Put::Taken,
            Err(error) => {
                self.put_error = Some(error);
                Put::Unknown
            }
        };
        self.sealed = Some((number, entry.clone(), object));
        Ok(put)
    }

    fn seal(&self, kind: ObjectKind, plain: &[u8]) -> Result<Vec<u8>> {
        let salt = self.cx.random_bytes()?;
        Ok(container::seal(&self.keys.data, kind, salt, plain))
    }
}

fn slot(object: &[u8], entry: Entry) -> Slot {
    Slot {
        object_hash: *blake3::hash(object).as_bytes(),
        stored_bytes: object.len() as u64,
        entry,
    }
}

/// Returns the number an object is named by; what has no number is none of ours.
fn number(listed: &Listed) -> Option<u64> {
    let number: u64 = listed.name.parse().ok()?;
    (listed.name == format!("{number:012}") && number <= POSITION_MAX).then_some(number)
}

fn stored_pack(listed: &Listed) -> Option<StoredPack> {
    Some(StoredPack {
        id: listed.name.parse::<PackId>().ok()?,
        stored_bytes: listed.stored_bytes,
        modified_ns: listed.modified_ns,
    })
}
