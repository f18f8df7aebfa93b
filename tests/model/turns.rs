//! Several clients of one store, interleaved by a seed: every call of the store is a turn.
//!
//! Each client is a thread, or several. A call waits until all clients that still run wait as well;
//! then the seed says whose oldest call is next, and what becomes of it: it is done, its reply is
//! lost, it takes effect later, or twice. Between two calls of a client nobody else does anything,
//! so the seed decides the whole history, as far as a client's own threads do not race.

use crate::support::Seeded;
use statekeep::error::Error;
use statekeep::error::Result;
use statekeep::store::Folder;
use statekeep::store::Key;
use statekeep::store::Listed;
use statekeep::store::Put;
use statekeep::store::Store;
use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// Turns after which what is late takes effect.
const LATE_MAX: u64 = 60;

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Done,
    /// It fails and has no effect.
    Lost,
    /// It takes effect and seems to fail.
    ReplyLost,
    /// It seems to fail, and takes effect later.
    Late,
    /// It takes effect, and again later.
    Twice,
    /// It fails, and so does all that follows: the client was killed.
    Killed,
}

const FATES: [Fate; 5] = [
    Fate::Lost,
    Fate::ReplyLost,
    Fate::Late,
    Fate::Twice,
    Fate::Killed,
];

/// A change of the store.
#[derive(Clone)]
enum Change {
    Put(Key, Vec<u8>),
    Delete(Key),
}

/// Called before an object goes.
pub(crate) type Guard = Box<dyn FnMut(&dyn Store, &Key) + Send>;

/// The clients, and whose turn it is.
pub(crate) struct Turns {
    inner: Arc<dyn Store>,
    table: Mutex<Table>,
    changed: Condvar,
}

struct Table {
    random: Seeded,
    /// Calls that wait, by client.
    waiting: BTreeMap<usize, VecDeque<u64>>,
    /// Clients that run, with the number of the call that meets a fault.
    running: BTreeMap<usize, Client>,
    granted: Option<u64>,
    tickets: u64,
    turns: u64,
    late: Vec<(u64, Change)>,
    guard: Option<Guard>,
    trace: blake3::Hasher,
}

#[derive(Default)]
struct Client {
    calls: u64,
    fault_at: Option<u64>,
    is_dead: bool,
    /// The fault it met.
    met: Option<Fate>,
}

impl Turns {
    pub(crate) fn new(inner: Arc<dyn Store>, seed: u64) -> Arc<Turns> {
        Arc::new(Turns {
            inner,
            table: Mutex::new(Table {
                random: Seeded::new(seed),
                waiting: BTreeMap::new(),
                running: BTreeMap::new(),
                granted: None,
                tickets: 0,
                turns: 0,
                late: Vec::new(),
                guard: None,
                trace: blake3::Hasher::new(),
            }),
            changed: Condvar::new(),
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets who is asked before an object goes.
    pub(crate) fn guard(&self, guard: Guard) {
        self.table().guard = Some(guard);
    }

    /// Returns a client. All clients of a round are made before the first of them runs. The call
    /// with this number meets a fault.
    pub(crate) fn client(self: &Arc<Turns>, number: usize, fault_at: Option<u64>) -> TurnStore {
        let client = Client {
            fault_at,
            ..Client::default()
        };
        self.table().running.insert(number, client);
        TurnStore {
            turns: Arc::clone(self),
            number,
        }
    }

    /// Lets everything take effect that is late.
    pub(crate) fn catch_up(&self) {
        let mut table = self.table();
        for (_, change) in std::mem::take(&mut table.late) {
            self.change(&mut table, &change);
        }
    }

    /// Returns how many turns there were.
    pub(crate) fn turns(&self) -> u64 {
        self.table().turns
    }

    /// Returns the hash of who did what in which order.
    pub(crate) fn trace(&self) -> [u8; 32] {
        *self.table().trace.finalize().as_bytes()
    }

    fn change(&self, table: &mut Table, change: &Change) -> Option<Put> {
        match change {
            Change::Put(key, bytes) => Some(self.inner.put_new(key, bytes).unwrap()),
            Change::Delete(key) => {
                if let Some(guard) = &mut table.guard {
                    guard(&*self.inner, key);
                }
                self.inner.delete(key).unwrap();
                None
            }
        }
    }

    /// Waits for the turn of this client and says what becomes of its call.
    fn enter(&self, number: usize, what: &str) -> (MutexGuard<'_, Table>, Fate) {
        let mut table = self.table();
        let ticket = table.tickets;
        table.tickets += 1;
        table.waiting.entry(number).or_default().push_back(ticket);
        loop {
            self.grant(&mut table);
            if table.granted == Some(ticket) {
                break;
            }
            table = self
                .changed
                .wait(table)
                .unwrap_or_else(PoisonError::into_inner);
        }
        table.granted = None;
        table.turns += 1;
        let (turns, mut due) = (table.turns, Vec::new());
        table.late.retain(|(at, change)| {
            let is_due = *at <= turns;
            due.extend(is_due.then(|| change.clone()));
            !is_due
        });
        for change in due {
            self.change(&mut table, &change);
        }
        table.trace.update(&[number as u8]).update(what.as_bytes());
        let fate = table.fate(number);
        // Another thread of this client may wait already, and this one never call again.
        self.grant(&mut table);
        (table, fate)
    }

    /// Gives the next turn to somebody, if nobody has it and everybody waits.
    fn grant(&self, table: &mut Table) {
        let is_waiting = |number: &usize| table.waiting.get(number).is_some_and(|w| !w.is_empty());
        if table.granted.is_some() || !table.running.keys().all(is_waiting) {
            return;
        }
        let clients: Vec<usize> = table.running.keys().copied().collect();
        let Some(chosen) = clients.get(table.random.below(clients.len() as u64) as usize) else {
            return;
        };
        let waiting = table.waiting.get_mut(chosen).unwrap();
        table.granted = waiting.pop_front();
        self.changed.notify_all();
    }

    fn leave(&self, number: usize) -> Option<Fate> {
        let mut table = self.table();
        let met = table.running.remove(&number).and_then(|client| client.met);
        table.waiting.remove(&number);
        self.grant(&mut table);
        met
    }
}

impl Table {
    fn fate(&mut self, number: usize) -> Fate {
        let pick = FATES[self.random.below(FATES.len() as u64) as usize];
        let client = self.running.get_mut(&number).unwrap();
        let call = client.calls;
        client.calls += 1;
        if client.is_dead {
            return Fate::Killed;
        }
        if client.fault_at != Some(call) {
            return Fate::Done;
        }
        client.met = Some(pick);
        client.is_dead = pick == Fate::Killed;
        pick
    }

    fn later(&mut self, change: Change) {
        let at = self.turns + 1 + self.random.below(LATE_MAX);
        self.late.push((at, change));
    }
}

/// The store as one client sees it. Dropping it is the end of the client.
pub(crate) struct TurnStore {
    turns: Arc<Turns>,
    number: usize,
}

impl TurnStore {
    fn read<T>(&self, what: &str, key: String, read: impl FnOnce() -> Result<T>) -> Result<T> {
        let (_table, fate) = self.turns.enter(self.number, what);
        match fate {
            Fate::Done | Fate::Twice => read(),
            _ => Err(failed(key)),
        }
    }

    fn write(&self, what: &str, change: Change) -> Result<Option<Put>> {
        let (mut table, fate) = self.turns.enter(self.number, what);
        let key = match &change {
            Change::Put(key, _) | Change::Delete(key) => key.to_string(),
        };
        match fate {
            Fate::Done => Ok(self.turns.change(&mut table, &change)),
            Fate::Lost | Fate::Killed => Err(failed(key)),
            Fate::ReplyLost => {
                self.turns.change(&mut table, &change);
                Err(failed(key))
            }
            Fate::Late => {
                table.later(change);
                Err(failed(key))
            }
            Fate::Twice => {
                let put = self.turns.change(&mut table, &change);
                table.later(change);
                Ok(put)
            }
        }
    }
}

fn failed(object: String) -> Error {
    Error::Store {
        action: "answer for",
        object,
        reason: "injected".into(),
    }
}

impl Drop for TurnStore {
    fn drop(&mut self) {
        self.turns.leave(self.number);
    }
}

impl Store for TurnStore {
    fn put_new(&self, key: &Key, bytes: &[u8]) -> Result<Put> {
        let put = self.write("put", Change::Put(key.clone(), bytes.to_vec()))?;
        Ok(put.expect("a put says how it ended"))
    }

    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>> {
        self.read("get", key.to_string(), || self.turns.inner.get(key))
    }

    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Vec<u8>>> {
        let read = || self.turns.inner.get_range(key, range);
        self.read("range", key.to_string(), read)
    }

    fn stored_bytes(&self, key: &Key) -> Result<Option<u64>> {
        let read = || self.turns.inner.stored_bytes(key);
        self.read("length", key.to_string(), read)
    }

    fn list(&self, folder: Folder) -> Result<Vec<Listed>> {
        let read = || self.turns.inner.list(folder);
        self.read("list", folder.name().into(), read)
    }

    fn delete(&self, key: &Key) -> Result<()> {
        self.write("delete", Change::Delete(key.clone())).map(drop)
    }

    fn sync(&self, folder: Folder) -> Result<()> {
        let read = || self.turns.inner.sync(folder);
        self.read("sync", folder.name().into(), read)
    }

    fn location(&self) -> String {
        self.turns.inner.location()
    }
}
