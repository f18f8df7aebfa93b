//! What no other test noticed when it was taken away.

use crate::oracle::Place;
use crate::oracle::stderr;
use crate::support;
use crate::support::Seeded;
use crate::support::TestClock;
use crate::support::copy_of;
use jiff::tz::TimeZone;
use rusqlite::Connection;
use statekeep::context::Context;
use statekeep::context::Event;
use statekeep::context::Progress;
use statekeep::context::Timestamp;
use statekeep::disk::Fault;
use statekeep::disk::Loss;
use statekeep::disk::SimulatedDisk;
use statekeep::error::Result;
use statekeep::format::key::Derivation;
use statekeep::id::RepoId;
use statekeep::id::SnapshotId;
use statekeep::ops::backup;
use statekeep::ops::in_place;
use statekeep::ops::in_place::InPlaceOptions;
use statekeep::ops::keep::Policy;
use statekeep::ops::prune;
use statekeep::ops::prune::Limits;
use statekeep::ops::prune::PruneOptions;
use statekeep::ops::snapshots;
use statekeep::repo::Access;
use statekeep::repo::NewKey;
use statekeep::repo::Repo;
use statekeep::repo::chunks::Chunks;
use statekeep::repo::read_config;
use statekeep::store::DirStore;
use statekeep::store::FaultyStore;
use statekeep::store::Folder;
use statekeep::store::Key;
use statekeep::store::Listed;
use statekeep::store::MemoryStore;
use statekeep::store::Put;
use statekeep::store::Repeat;
use statekeep::store::Store;
use statekeep::store::StoreFault;
use statekeep::store::When;
use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

fn key() -> NewKey {
    NewKey {
        credential: support::credential(),
        derivation: Derivation::Secret,
        label: "test".to_string(),
    }
}

#[test]
fn a_rotation_of_keys_that_is_cut_off_anywhere_locks_nobody_out() {
    let fresh = MemoryStore::new();
    let fresh: Arc<dyn Store> = Arc::new(fresh);
    support::create(fresh.clone(), false, None);
    for after_calls in 0.. {
        let store = copy_of(&*fresh);
        let faulty = Arc::new(FaultyStore::new(store.clone()));
        let mut repo = support::open(faulty.clone(), None).unwrap();
        faulty.fail(StoreFault {
            method: None,
            after_calls,
            when: When::Before,
            repeat: Repeat::Sticky,
        });

        let rotated = repo.rotate_keys(&support::context(), &[key()]);

        assert!(support::open(store, None).is_ok(), "cut at {after_calls}");
        if rotated.is_ok() {
            assert!(after_calls > 2);
            return;
        }
    }
}

/// Two objects of one key and one salt would share their keystream.
#[test]
fn no_two_objects_are_sealed_with_one_salt() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(MemoryStore::new()));
    let repo = support::create(store.clone(), false, None);
    let mut random = Seeded::new(1);
    for number in 0..4 {
        fs::write(dir.path().join(format!("{number}")), random.bytes(200_000)).unwrap();
        support::backup(&repo, dir.path()).unwrap();
    }

    let (mut salts, mut objects) = (BTreeSet::new(), 0);
    for folder in [Folder::Packs, Folder::Log, Folder::State] {
        for listed in store.list(folder).unwrap() {
            let key = Key::new(folder, listed.name).unwrap();
            // Where it is: docs/format.md, "Container".
            let salt = store.get_range(&key, 16..40).unwrap().unwrap();
            objects += 1;
            salts.insert(salt);
        }
    }

    assert!(objects >= 8);
    assert_eq!(salts.len(), objects);
}

/// A store that flips a bit of every pack on its way.
struct Flipping {
    inner: Arc<MemoryStore>,
    is_on: AtomicBool,
}

impl Store for Flipping {
    fn put_new(&self, key: &Key, bytes: &[u8]) -> Result<Put> {
        let mut bytes = bytes.to_vec();
        if key.folder() == Folder::Packs && self.is_on.load(Ordering::Relaxed) {
            bytes[100] ^= 1;
        }
        self.inner.put_new(key, &bytes)
    }

    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>> {
        self.inner.get(key)
    }

    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Vec<u8>>> {
        self.inner.get_range(key, range)
    }

    fn stored_bytes(&self, key: &Key) -> Result<Option<u64>> {
        self.inner.stored_bytes(key)
    }

    fn list(&self, folder: Folder) -> Result<Vec<Listed>> {
        self.inner.list(folder)
    }

    fn delete(&self, key: &Key) -> Result<()> {
        self.inner.delete(key)
    }

    fn sync(&self, folder: Folder) -> Result<()> {
        self.inner.sync(folder)
    }

    fn location(&self) -> String {
        self.inner.location()
    }
}

/// What was there is the only good copy then.
#[test]
fn a_store_that_spoils_what_a_prune_rewrites_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Flipping {
        inner: Arc::new(MemoryStore::new()),
        is_on: AtomicBool::new(false),
    });
    let repo = support::create(store.clone(), true, None);
    let mut random = Seeded::new(1);
    for number in 0..6 {
        // Half of what a backup stores is gone with the next one.
        fs::write(dir.path().join("passing"), random.bytes(100_000)).unwrap();
        fs::write(dir.path().join(format!("{number}")), random.bytes(100_000)).unwrap();
        support::backup(&repo, dir.path()).unwrap();
    }
    store.is_on.store(true, Ordering::Relaxed);
    let mut options = keep_last_one();
    options.limits.unused_permille = 0;

    let pruned = prune_now(&repo, &options);

    assert!(pruned.is_err(), "{pruned:?}");
    store.is_on.store(false, Ordering::Relaxed);
    let (state, listed) = snapshots::list(&support::context(), &repo).unwrap();
    let chunks = Chunks::open(&repo, &state.packs).unwrap();
    assert!(chunks.unreadable_packs().is_empty());
    for snapshot in listed {
        let found = support::model_in(&repo, &snapshot.id).unwrap();
        assert!(found.contains_key(&b"passing"[..]));
    }
    assert!(prune_now(&repo, &options).unwrap().written_packs > 0);
}

fn prune_now(repo: &Repo, options: &PruneOptions) -> Result<prune::PruneReport> {
    let cx = support::context();
    let plan = prune::plan(&cx, repo, options)?;
    prune::apply(&cx, repo, options, plan)
}

/// Changes a file once what was there has been saved and is being read back.
struct Meddler(PathBuf);

impl Progress for Meddler {
    fn event(&self, event: Event) {
        if event == Event::Phase("verify") {
            fs::write(&self.0, "written meanwhile").unwrap();
        }
    }
}

#[test]
fn what_changed_since_it_was_saved_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    let repo = support::create(Arc::new(MemoryStore::new()), true, None);
    fs::write(&file, "old").unwrap();
    support::backup(&repo, dir.path()).unwrap();
    fs::write(&file, "newer").unwrap();
    let cx = support::context();
    let (state, mut listed) = snapshots::list(&cx, &repo).unwrap();
    let chunks = Chunks::open(&repo, &state.packs).unwrap();
    let cx = Context {
        progress: Arc::new(Meddler(file.clone())),
        ..cx
    };
    let options = InPlaceOptions {
        root: dir.path().to_path_buf(),
        host: "host".to_string(),
        ..InPlaceOptions::default()
    };

    let done = in_place::apply(&cx, &repo, &chunks, &listed.remove(0), &options);

    assert!(done.is_err());
    assert_eq!(fs::read_to_string(&file).unwrap(), "written meanwhile");
}

/// The snapshot says itself that it was damaged at its source.
#[test]
fn a_database_that_is_not_sound_takes_the_place_of_none() {
    let place = Place::new();
    let path = place.app("app.db");
    let db = Connection::open(&path).unwrap();
    let rows = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 2000)
        INSERT INTO t SELECT i, hex(randomblob(50)) FROM n";
    db.execute_batch("CREATE TABLE t (x INTEGER PRIMARY KEY, y)")
        .unwrap();
    db.execute_batch(rows).unwrap();
    drop(db);
    let sound = fs::read(&path).unwrap();
    let mut damaged = sound.clone();
    damaged[8192..8292].fill(0xff);
    fs::write(&path, &damaged).unwrap();
    assert_eq!(place.backup().status.code(), Some(3));
    fs::write(&path, &sound).unwrap();
    let id = place.snapshots()[0]["id"].as_str().unwrap().to_string();

    let output = place.run(&["restore", &id, "--in-place", "--confirm"]);

    assert_ne!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(fs::read(&path).unwrap() == sound);
}

/// Backs up at this time, and returns what was read and what the snapshot has.
fn backup_at(repo: &Repo, dir: &Path, now: Timestamp) -> (u64, Vec<u8>) {
    let cx = Context {
        clock: Arc::new(TestClock::at(now)),
        ..support::context()
    };
    let report = backup::backup(&cx, repo, &support::options(dir)).unwrap();
    let stored = support::model_in(repo, &report.snapshot.unwrap()).unwrap();
    let read_bytes = report.manifest.figures.read_bytes;
    (read_bytes, stored[&b"file"[..]].2.clone())
}

/// The clock of a file system may stand still for two seconds.
#[test]
fn a_file_that_could_have_changed_unseen_is_read() {
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let repo = support::create(Arc::new(MemoryStore::new()), true, Some(cache.path()));
    fs::write(dir.path().join("file"), "one").unwrap();
    let changed = fs::metadata(dir.path().join("file")).unwrap();
    let changed_ns = changed.ctime() * 1_000_000_000 + changed.ctime_nsec();
    let after_ms = |ms: i64| Timestamp(changed_ns + ms * 1_000_000);

    let read = [1000, 2500, 60_000].map(|ms| backup_at(&repo, dir.path(), after_ms(ms)).0);

    assert_eq!(read, [3, 3, 0]);
}

#[test]
fn a_file_whose_time_was_put_back_is_read() {
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let repo = support::create(Arc::new(MemoryStore::new()), true, Some(cache.path()));
    let path = dir.path().join("file");
    fs::write(&path, "one").unwrap();
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let now = Context::new().clock.now();
    let later = Timestamp(now.0 + 60_000_000_000);
    backup_at(&repo, dir.path(), later);

    fs::write(&path, "two").unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(modified).unwrap();
    let (_, stored) = backup_at(&repo, dir.path(), later);

    assert_eq!(stored, b"two");
}

const REPO: &str = "/srv/repo";

fn dir_store(disk: &SimulatedDisk) -> DirStore {
    DirStore::create(Arc::new(disk.clone()), Path::new(REPO)).unwrap()
}

/// Whoever read a slot builds on it, and may be told so by nothing but its own sync.
#[test]
fn what_a_killed_writer_left_is_durable_once_somebody_synced_it() {
    let disk = SimulatedDisk::new();
    dir_store(&disk);
    let mut seen = 0;
    for cut in 0..8 {
        let disk = disk.fork();
        let writer = disk.process();
        let store = dir_store(&writer);
        writer.fail_at(cut, Fault::Kill);
        let killed = store.put_new(&Key::slot(1), b"slot");
        let reader = dir_store(&disk.process());
        if killed.is_ok() || reader.get(&Key::slot(1)).unwrap().is_none() {
            continue;
        }

        reader.sync(Folder::Log).unwrap();

        seen += 1;
        let after = dir_store(&disk.crash(Loss::Everything));
        let found = after.get(&Key::slot(1)).unwrap();
        assert_eq!(found.as_deref(), Some(&b"slot"[..]), "cut {cut}");
    }
    assert!(seen > 0);
}

#[test]
fn a_creation_that_is_cut_off_anywhere_leaves_no_repository_without_a_key() {
    for after_calls in 0.. {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let faulty = Arc::new(FaultyStore::new(store.clone()));
        faulty.fail(StoreFault {
            method: None,
            after_calls,
            when: When::Before,
            repeat: Repeat::Sticky,
        });
        let access = Access::Encrypted(vec![key()]);
        let id = RepoId([5; 16]);

        let made = Repo::create(&support::context(), faulty.clone(), id, access, None);

        if read_config(&*store).is_ok() {
            let opened = Repo::open(store, &[support::credential()], None);
            assert!(opened.is_ok(), "cut at {after_calls}");
        }
        if made.is_ok() {
            assert!(after_calls > 1);
            return;
        }
    }
}

#[test]
fn a_plain_repository_is_refused_to_whoever_has_a_key() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    support::create(store.clone(), true, None);

    assert!(Repo::open(store.clone(), &[], None).is_ok());
    assert!(Repo::open(store, &[support::credential()], None).is_err());
}

fn keep_last_one() -> PruneOptions {
    PruneOptions {
        policy: Some(Policy {
            last: 1,
            ..Policy::default()
        }),
        profile: None,
        host: None,
        zone: TimeZone::UTC,
        limits: Limits::default(),
        grace_ns: 0,
    }
}

/// Two snapshots that have nothing in common, so that a pack goes as a whole with the first.
fn two_of_nothing_in_common(store: &Arc<MemoryStore>, dir: &Path) -> Repo {
    let repo = support::create(store.clone(), true, None);
    let mut random = Seeded::new(1);
    for name in ["one", "two"] {
        fs::write(dir.join(name), random.bytes(100_000)).unwrap();
        support::backup(&repo, dir).unwrap();
        fs::remove_file(dir.join(name)).unwrap();
    }
    repo
}

#[test]
fn a_prune_that_fails_anywhere_leaves_every_listed_snapshot_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    two_of_nothing_in_common(&store, dir.path());
    for after_calls in 0.. {
        let store = copy_of(&*store);
        let faulty = Arc::new(FaultyStore::new(store.clone()));
        let repo = support::open(faulty.clone(), None).unwrap();
        faulty.fail(StoreFault {
            method: None,
            after_calls,
            when: When::Before,
            repeat: Repeat::Sticky,
        });

        let pruned = prune_now(&repo, &keep_last_one());

        let repo = support::open(store, None).unwrap();
        let (_, listed) = snapshots::list(&support::context(), &repo).unwrap();
        for snapshot in &listed {
            let found = support::model_in(&repo, &snapshot.id);
            assert!(found.is_ok(), "cut at {after_calls}");
        }
        if pruned.is_ok() && listed.len() == 1 && faulty.total_calls() < after_calls {
            return;
        }
    }
}

/// Whoever repairs may still read what is left of it.
#[test]
fn a_pack_whose_table_cannot_be_read_is_not_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let sound = Arc::new(MemoryStore::new());
    let repo = two_of_nothing_in_common(&sound, dir.path());
    let (_, listed) = snapshots::list(&support::context(), &repo).unwrap();
    let state = repo.read_state(&support::context()).unwrap();
    let damaged: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let pack = Key::pack(state.packs.keys().next().unwrap());
    for folder in Folder::ALL {
        for object in sound.list(folder).unwrap() {
            let key = Key::new(folder, object.name).unwrap();
            let mut bytes = sound.get(&key).unwrap().unwrap();
            if key == pack {
                let last = bytes.len() - 1;
                bytes[last] ^= 1;
            }
            damaged.put_new(&key, &bytes).unwrap();
        }
    }
    let repo = support::open(damaged.clone(), None).unwrap();
    let broken = |id: &SnapshotId| support::model_in(&repo, id).is_err();
    let lost: BTreeSet<SnapshotId> = listed.iter().map(|one| one.id).filter(broken).collect();
    assert_eq!(lost.len(), 1);
    prune::forget(&support::context(), &repo, &lost).unwrap();
    let options = PruneOptions {
        policy: None,
        ..keep_last_one()
    };

    prune_now(&repo, &options).unwrap();

    assert!(damaged.get(&pack).unwrap().is_some());
}

/// The index of one machine knows a pack that another machine had dropped.
#[test]
fn what_another_machine_dropped_is_stored_again_and_not_leaned_on() {
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repo = support::create(store.clone(), true, Some(cache.path()));
    let bytes = Seeded::new(1).bytes(100_000);
    fs::write(dir.path().join("one"), &bytes).unwrap();
    support::backup(&repo, dir.path()).unwrap();
    fs::remove_file(dir.path().join("one")).unwrap();
    support::backup(&repo, dir.path()).unwrap();
    let other = support::open(store, None).unwrap();
    let pruned = prune_now(&other, &keep_last_one()).unwrap();
    assert!(pruned.deleted_packs > 0);
    fs::write(dir.path().join("two"), &bytes).unwrap();

    let report = support::backup(&repo, dir.path()).unwrap();

    assert!(report.manifest.figures.stored_bytes > 90_000);
    let found = support::model_in(&other, &report.snapshot.unwrap()).unwrap();
    assert!(found[&b"two"[..]].2 == bytes);
}

/// Writes to a file whenever something of it was read.
struct Writer(PathBuf);

impl Progress for Writer {
    fn event(&self, event: Event) {
        if matches!(event, Event::Done { bytes, .. } if bytes > 0) {
            let mut file = fs::File::options().append(true).open(&self.0).unwrap();
            std::io::Write::write_all(&mut file, b"more").unwrap();
        }
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let repo = support::create(Arc::new(MemoryStore::new()), true, None);
    let path = dir.path().join("file");
    fs::write(&path, Seeded::new(1).bytes(3_000_000)).unwrap();
    let cx = Context {
        progress: Arc::new(Writer(path)),
        ..support::context()
    };

    let report = backup::backup(&cx, &repo, &support::options(dir.path())).unwrap();

    let codes: Vec<&str> = report.warnings.iter().map(|problem| problem.code).collect();
    assert_eq!(codes, ["changed"]);
    assert!(report.manifest.partial);
}

#[test]
fn a_database_that_could_have_changed_unseen_is_read() {
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let repo = support::create(Arc::new(MemoryStore::new()), true, Some(cache.path()));
    let path = dir.path().join("file");
    let db = Connection::open(&path).unwrap();
    db.execute_batch("CREATE TABLE t (x)").unwrap();
    drop(db);
    let changed = fs::metadata(&path).unwrap();
    let changed_ns = changed.ctime() * 1_000_000_000 + changed.ctime_nsec();
    let after_ms = |ms: i64| Timestamp(changed_ns + ms * 1_000_000);

    let read = [1000, 2500, 60_000].map(|ms| backup_at(&repo, dir.path(), after_ms(ms)).0);

    assert_eq!(read, [8192, 8192, 0]);
}

/// What was committed last is only in its log.
#[test]
fn a_database_that_came_since_the_last_backup_is_captured_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let repo = support::create(Arc::new(MemoryStore::new()), true, None);
    fs::write(dir.path().join("text"), "text").unwrap();
    support::backup(&repo, dir.path()).unwrap();
    let db = Connection::open(dir.path().join("app.db")).unwrap();
    let sql = "PRAGMA journal_mode = wal; CREATE TABLE t (x); INSERT INTO t VALUES (1)";
    db.execute_batch(sql).unwrap();

    let report = support::backup(&repo, dir.path()).unwrap();

    assert_eq!(report.databases.len(), 1);
    let target = tempfile::tempdir().unwrap();
    support::restore(&repo, &report, target.path());
    let restored = Connection::open(target.path().join("app.db")).unwrap();
    let rows: i64 = restored
        .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 1);
}

/// The tree of the parent can be read, and what it names cannot.
#[test]
fn what_the_parent_lost_is_stored_again_and_not_named_again() {
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Arc::new(MemoryStore::new());
    let repo = support::create(store.clone(), true, Some(cache.path()));
    let path = dir.path().join("file");
    fs::write(&path, Seeded::new(1).bytes(5000)).unwrap();
    support::backup(&repo, dir.path()).unwrap();
    let first = repo.read_state(&support::context()).unwrap();
    // Another tree, the same content.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    support::backup(&repo, dir.path()).unwrap();
    for pack in first.packs.keys() {
        store.delete(&Key::pack(pack)).unwrap();
    }
    repo.forget_index();

    let report = support::backup(&repo, dir.path()).unwrap();

    let found = support::model_in(&repo, &report.snapshot.unwrap()).unwrap();
    assert!(found[&b"file"[..]].2 == fs::read(&path).unwrap());
}
