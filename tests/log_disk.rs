//! The log over a simulated disk: clients killed or failing at every disk operation, then power
//! loss, then fresh clients.
//!
//! What must hold afterwards: acknowledged snapshots are there with all their packs (I2, I4, I6,
//! I7), and the next clients succeed without help (I10). A client killed between making its slot
//! visible and syncing the directory leaves an entry that the next one builds on and power loss may
//! take; clients that live through the server's power loss are in `src/repo/log/explore`.

use statekeep::codec::cipher::Suite;
use statekeep::context::Context;
use statekeep::context::Random;
use statekeep::context::Timestamp;
use statekeep::disk::Fault;
use statekeep::disk::Loss;
use statekeep::disk::SimulatedDisk;
use statekeep::error::Error;
use statekeep::error::Result;
use statekeep::format::container::DataKeys;
use statekeep::format::entry::AddedPack;
use statekeep::format::entry::AddedSnapshot;
use statekeep::format::entry::Change;
use statekeep::format::entry::PackBytes;
use statekeep::format::note::Note;
use statekeep::id::PackId;
use statekeep::id::SnapshotId;
use statekeep::repo::log;
use statekeep::repo::log::Draft;
use statekeep::repo::log::LogKeys;
use statekeep::repo::log::Outcome;
use statekeep::repo::log::Outdated;
use statekeep::repo::log::State;
use statekeep::store::DirStore;
use statekeep::store::Folder;
use statekeep::store::Key;
use statekeep::store::MemoryStore;
use statekeep::store::Store;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

const REPO: &str = "/srv/backups/repo";
const LOSSES: [Loss; 5] = [
    Loss::Everything,
    Loss::Nothing,
    Loss::Random(1),
    Loss::Random(2),
    Loss::Random(3),
];
/// A note of this length makes the tail of the log worth a checkpoint.
const LONG_NOTE_BYTES: usize = 70_000;

/// What a client does in one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    /// Stores a pack and a snapshot of it.
    Backup,
    /// Makes a snapshot of a pack that is there.
    Reuse,
    /// Removes all snapshots but the newest, drops what is not needed, deletes it.
    Prune,
    /// Makes a snapshot, then a checkpoint, then trims.
    Checkpoint,
}

const JOBS: [Job; 4] = [Job::Backup, Job::Reuse, Job::Prune, Job::Checkpoint];

/// Random enough to be unique, and the same in every run.
struct Counter(AtomicU64);

impl Random for Counter {
    fn fill(&self, buffer: &mut [u8]) -> Result<()> {
        let count = self.0.fetch_add(1, Ordering::Relaxed);
        let hash = blake3::hash(&count.to_le_bytes());
        let bytes = hash.as_bytes().iter().cycle();
        buffer
            .iter_mut()
            .zip(bytes)
            .for_each(|(to, from)| *to = *from);
        Ok(())
    }
}

/// The outside of all clients: what they were promised.
struct Clients {
    cx: Context,
    keys: LogKeys,
    acknowledged: BTreeSet<SnapshotId>,
    removed: BTreeSet<SnapshotId>,
    remembered: Option<Arc<State>>,
}

impl Clients {
    fn new() -> Clients {
        let cx = Context {
            random: Arc::new(Counter(AtomicU64::new(0))),
            ..Context::new()
        };
        Clients {
            cx,
            keys: LogKeys {
                data: DataKeys::new(Suite::Plain, vec![(1, [1; 32])]).unwrap(),
                manifest: [2; 32],
            },
            acknowledged: BTreeSet::new(),
            removed: BTreeSet::new(),
            remembered: None,
        }
    }

    fn read(&self, store: &dyn Store) -> Result<Arc<State>> {
        log::read_state(&self.cx, store, &self.keys, self.remembered.clone())
    }

    fn run(&mut self, store: &dyn Store, job: Job) -> Result<()> {
        match job {
            Job::Backup => self.back_up(store, true, 0),
            Job::Reuse => self.back_up(store, false, 0),
            Job::Prune => self.prune(store),
            Job::Checkpoint => self.back_up(store, true, LONG_NOTE_BYTES),
        }
    }

    fn back_up(&mut self, store: &dyn Store, upload: bool, note_bytes: usize) -> Result<()> {
        let mut state = self.read(store)?;
        for _ in 0..5 {
            let mut draft = Draft {
                packs_since: state.position,
                ..Draft::default()
            };
            let pack = match state.packs.keys().next_back().filter(|_| !upload) {
                Some(id) => *id,
                None => {
                    let id = PackId(self.cx.random_bytes()?);
                    store.put_new(&Key::pack(&id), b"pack")?;
                    draft.change.add_packs.push(AddedPack {
                        id,
                        bytes: PackBytes {
                            stored_bytes: 4,
                            table_bytes: 1,
                        },
                    });
                    id
                }
            };
            draft.relies_on_packs.insert(pack);
            let unique: [u8; 8] = self.cx.random_bytes()?;
            let manifest = [&pack.0[..], &unique].concat();
            let added = AddedSnapshot::new(&self.keys.manifest, manifest);
            let snapshot = added.id;
            draft.change.add_snapshots.push(added);
            if note_bytes > 0 {
                let note = Note::Unknown(1000, vec![0; note_bytes]);
                draft.change.notes.push(note);
            }
            match log::append(&self.cx, store, &self.keys, state, draft)? {
                Outcome::Committed(after) => {
                    self.acknowledged.insert(snapshot);
                    self.remembered = Some(after.clone());
                    log::checkpoint(&self.cx, store, &self.keys, after)?;
                    log::trim(&self.cx, store, &self.keys, i64::MAX)?;
                    return Ok(());
                }
                Outcome::Outdated(now, _) => state = now,
                Outcome::Unsettled => unreachable!("the driver returns the error"),
            }
        }
        unreachable!("nobody else is there");
    }

    fn prune(&mut self, store: &dyn Store) -> Result<()> {
        let mut state = self.read(store)?;
        for _ in 0..5 {
            let found = log::survey(&self.cx, store, &self.keys, state.clone(), i64::MAX)?;
            let kept: Vec<SnapshotId> = state.snapshots.keys().take(1).copied().collect();
            let needed: BTreeSet<PackId> = kept.iter().map(|id| pack_of(&state, id)).collect();
            let removed = state.snapshots.keys().filter(|id| !kept.contains(id));
            let removed: Vec<SnapshotId> = removed.copied().collect();
            let unneeded = state
                .packs
                .keys()
                .filter(|id| !needed.contains(id))
                .copied();
            let drop_packs = unneeded.chain(found.orphans.iter().map(|pack| pack.id));
            let change = Change {
                drop_packs: drop_packs.collect(),
                remove_snapshots: removed.clone(),
                gone_packs: found.gone,
                ..Change::default()
            };
            let draft = Draft {
                change,
                ..Draft::default()
            };
            // From here on they may be gone, whatever the outcome.
            self.removed.extend(removed);
            match log::append(&self.cx, store, &self.keys, state, draft)? {
                Outcome::Committed(after) => {
                    let all = Timestamp(i64::MAX);
                    let swept = log::sweep(&self.cx, store, &self.keys, after.clone(), all)?;
                    assert!(!swept.outdated);
                    self.remembered = Some(after);
                    return Ok(());
                }
                Outcome::Outdated(now, _) => state = now,
                Outcome::Unsettled => unreachable!("the driver returns the error"),
            }
        }
        unreachable!("nobody else is there");
    }

    /// Returns what was promised and is not there.
    fn violations(&self, store: &dyn Store) -> Vec<String> {
        let state = match self.read(store) {
            Ok(state) => state,
            Err(error) => return vec![format!("cannot be read: {error}")],
        };
        let mut found = Vec::new();
        for id in state.snapshots.keys() {
            let pack = pack_of(&state, id);
            if store.stored_bytes(&Key::pack(&pack)).unwrap().is_none() {
                found.push(format!("{id:?} lost {pack:?}"));
            }
        }
        for id in self.acknowledged.difference(&self.removed) {
            if !state.snapshots.contains_key(id) {
                found.push(format!("{id:?} was acknowledged and is lost"));
            }
        }
        found
    }
}

fn pack_of(state: &State, id: &SnapshotId) -> PackId {
    PackId::from_slice(&state.snapshots[id][..32]).unwrap()
}

fn store(disk: &SimulatedDisk) -> DirStore {
    DirStore::open(Arc::new(disk.clone()), Path::new(REPO)).unwrap()
}

/// A repository with two snapshots of two packs.
fn repo() -> (SimulatedDisk, Clients) {
    let disk = SimulatedDisk::new();
    let store = DirStore::create(Arc::new(disk.clone()), Path::new(REPO)).unwrap();
    store.put_new(&Key::config(), b"config").unwrap();
    let mut clients = Clients::new();
    clients.run(&store, Job::Backup).unwrap();
    clients.run(&store, Job::Backup).unwrap();
    (disk, clients)
}

/// What the clients were promised, to go on from in each of many futures.
fn fork(clients: &Clients) -> Clients {
    Clients {
        cx: clients.cx.clone(),
        keys: clients.keys.clone(),
        acknowledged: clients.acknowledged.clone(),
        removed: clients.removed.clone(),
        remembered: clients.remembered.clone(),
    }
}

/// Runs this job with a fault at each of its disk operations, and lastly without one.
fn each_fault(
    disk: &SimulatedDisk,
    clients: &Clients,
    job: Job,
    fault: Fault,
    mut then: impl FnMut(SimulatedDisk, Clients, u64),
) {
    for at in 0.. {
        let (disk, mut clients) = (disk.fork(), fork(clients));
        disk.fail_at(at, fault);
        let before = disk.mutations();
        let done = clients.run(&store(&disk), job);
        let is_over = disk.mutations() - before <= at;
        assert!(
            !is_over || done.is_ok(),
            "{job:?} fails by itself: {done:?}"
        );
        then(disk.process(), clients, at);
        if is_over {
            break;
        }
    }
}

/// Returns what is wrong after power loss, and after the next clients have done their work.
fn violations_after_power_loss(disk: &SimulatedDisk, clients: &Clients, loss: Loss) -> Vec<String> {
    let (disk, mut clients) = (disk.crash(loss), fork(clients));
    let store = store(&disk);
    let mut found = clients.violations(&store);
    for job in [Job::Reuse, Job::Prune, Job::Backup] {
        if let Err(error) = clients.run(&store, job) {
            found.push(format!("then {job:?} fails: {error}"));
        }
        found.extend(clients.violations(&store));
    }
    found
}

#[test]
fn one_client_and_power_loss_at_every_disk_operation() {
    let (disk, clients) = repo();

    for job in JOBS {
        for fault in [Fault::Kill, Fault::Io] {
            each_fault(&disk, &clients, job, fault, |disk, clients, at| {
                for loss in LOSSES {
                    let found = violations_after_power_loss(&disk, &clients, loss);
                    assert!(
                        found.is_empty(),
                        "{job:?} {fault:?} {at} {loss:?}: {found:?}"
                    );
                }
            });
        }
    }
}

#[test]
fn a_client_on_top_of_a_killed_one_and_power_loss_at_every_disk_operation() {
    let (disk, clients) = repo();

    let mut runs = 0;
    for first in JOBS {
        each_fault(&disk, &clients, first, Fault::Kill, |disk, clients, k| {
            for second in [Job::Backup, Job::Reuse, Job::Prune] {
                each_fault(&disk, &clients, second, Fault::Kill, |disk, clients, l| {
                    for loss in [Loss::Everything, Loss::Random(k * 64 + l)] {
                        runs += 1;
                        let found = violations_after_power_loss(&disk, &clients, loss);
                        let when = format!("{first:?} {k}, {second:?} {l}, {loss:?}");
                        assert!(found.is_empty(), "{when}: {found:?}");
                    }
                });
            }
        });
    }
    assert!(runs > 1000, "{runs}");
}

#[test]
fn a_disk_that_ignores_directory_syncs_is_found_out() {
    let (disk, clients) = repo();
    let disk = disk.without_dir_sync();

    let mut found = Vec::new();
    each_fault(
        &disk,
        &clients,
        Job::Backup,
        Fault::Kill,
        |disk, clients, _| {
            found.extend(violations_after_power_loss(
                &disk,
                &clients,
                Loss::Everything,
            ));
        },
    );

    assert!(
        found
            .iter()
            .any(|v| v.contains("is lost") || v.contains("back in time"))
    );
}

#[test]
fn slots_are_trimmed_and_the_state_stays_the_same() {
    let store = MemoryStore::new();
    let mut clients = Clients::new();
    for _ in 0..2 {
        for _ in 0..520 {
            clients.run(&store, Job::Reuse).unwrap();
        }
        clients.run(&store, Job::Checkpoint).unwrap();
    }
    clients.run(&store, Job::Checkpoint).unwrap();

    let fresh = log::read_state(&clients.cx, &store, &clients.keys, None).unwrap();

    assert_eq!(fresh.position, 1043);
    assert_eq!(fresh.snapshots.len(), 1043);
    let names = |folder| store.list(folder).unwrap().into_iter().map(|row| row.name);
    let newest: u64 = names(Folder::State).max().unwrap().parse().unwrap();
    let lowest: u64 = names(Folder::Log).min().unwrap().parse().unwrap();
    assert_eq!(names(Folder::State).count(), 2);
    assert!(newest > 1000);
    assert_eq!(lowest, newest - 1000 + 1);
    assert_eq!(clients.violations(&store), Vec::<String>::new());
}

#[test]
fn damage_of_the_log_is_named_and_never_guessed_around() {
    let filled = || {
        let store = MemoryStore::new();
        let mut clients = Clients::new();
        for job in [
            Job::Backup,
            Job::Reuse,
            Job::Reuse,
            Job::Checkpoint,
            Job::Reuse,
        ] {
            clients.run(&store, job).unwrap();
        }
        clients.remembered = None;
        (store, clients)
    };
    let replace = |store: &MemoryStore, key: &Key, bytes: &[u8]| {
        store.delete(key).unwrap();
        store.put_new(key, bytes).unwrap();
    };

    let (store, clients) = filled();
    replace(&store, &Key::slot(5), b"rubbish");
    let error = clients.read(&store).unwrap_err().to_string();
    assert!(error.starts_with("log/000000000005 is damaged"), "{error}");

    // The checkpoint is only a shortcut as long as the slots are there.
    let (store, clients) = filled();
    replace(&store, &Key::checkpoint(4), b"rubbish");
    assert_eq!(clients.read(&store).unwrap().position, 5);
    store.delete(&Key::slot(4)).unwrap();
    store.delete(&Key::slot(5)).unwrap();
    let error = clients.read(&store).unwrap_err().to_string();
    assert!(
        error.starts_with("state/000000000004 is damaged"),
        "{error}"
    );

    // A slot that is missing in the middle is not the end of the log.
    let (store, mut clients) = filled();
    clients.run(&store, Job::Reuse).unwrap();
    clients.remembered = None;
    store.delete(&Key::slot(5)).unwrap();
    let error = clients.read(&store).unwrap_err();
    assert!(matches!(&error, Error::Missing { object } if object == "log/000000000005"));
}

#[test]
fn a_repository_set_back_to_an_older_state_is_reported() {
    let older = MemoryStore::new();
    let mut clients = Clients::new();
    clients.run(&older, Job::Backup).unwrap();
    let slot = older.get(&Key::slot(1)).unwrap().unwrap();
    clients.run(&older, Job::Backup).unwrap();

    // It ends before what was seen.
    let store = MemoryStore::new();
    store.put_new(&Key::slot(1), &slot).unwrap();
    let error = clients.read(&store).unwrap_err();
    assert!(matches!(error, Error::RolledBack { .. }), "{error}");

    // It went on differently.
    let seen = clients.remembered.take();
    clients.run(&store, Job::Backup).unwrap();
    clients.run(&store, Job::Backup).unwrap();
    clients.remembered = seen;
    let error = clients.read(&store).unwrap_err();
    assert!(matches!(error, Error::RolledBack { .. }), "{error}");
}

#[test]
fn a_checkpoint_is_written_when_the_tail_is_long_and_not_again_at_once() {
    let store = MemoryStore::new();
    let mut clients = Clients::new();
    let checkpoints = || store.list(Folder::State).unwrap().len();

    clients.run(&store, Job::Checkpoint).unwrap();
    clients.run(&store, Job::Reuse).unwrap();
    assert_eq!(checkpoints(), 1);

    // Every run begins with what the one before left on disk, which does not know the tail.
    for _ in 0..400 {
        clients.run(&store, Job::Reuse).unwrap();
        let plain = clients.remembered.take().unwrap().encode();
        let again = State::decode(&clients.keys.manifest, &plain).unwrap();
        clients.remembered = Some(Arc::new(again));
    }
    assert_eq!(checkpoints(), 2);
}

#[test]
fn a_remembered_state_saves_reading_and_changes_nothing() {
    let store = MemoryStore::new();
    let mut clients = Clients::new();
    for job in [Job::Backup, Job::Reuse, Job::Checkpoint, Job::Reuse] {
        clients.run(&store, job).unwrap();
        let remembered = clients.read(&store).unwrap();
        let fresh = log::read_state(&clients.cx, &store, &clients.keys, None).unwrap();

        assert_eq!(remembered.encode(), fresh.encode());
    }
}

#[test]
fn packs_of_a_long_backup_are_accepted_as_long_as_every_entry_was_read() {
    let store = MemoryStore::new();
    let mut clients = Clients::new();
    clients.run(&store, Job::Backup).unwrap();
    let before = clients.remembered.clone().unwrap();
    let id = PackId([7; 32]);
    let bytes = PackBytes {
        stored_bytes: 4,
        table_bytes: 1,
    };
    store.put_new(&Key::pack(&id), b"pack").unwrap();
    let draft = Draft {
        packs_since: before.position,
        change: Change {
            add_packs: vec![AddedPack { id, bytes }],
            ..Change::default()
        },
        ..Draft::default()
    };
    for _ in 0..3 {
        clients.run(&store, Job::Checkpoint).unwrap();
    }

    let read_on = log::read_state(&clients.cx, &store, &clients.keys, Some(before)).unwrap();
    let fresh = log::read_state(&clients.cx, &store, &clients.keys, None).unwrap();
    let append = |state| log::append(&clients.cx, &store, &clients.keys, state, draft.clone());

    let refused = append(fresh).unwrap();
    assert!(matches!(refused, Outcome::Outdated(_, Outdated::Skipped)));
    assert!(matches!(append(read_on).unwrap(), Outcome::Committed(_)));
}
