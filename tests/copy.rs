//! Copies between repositories: byte for byte, only what is missing, whatever fails and whoever
//! writes meanwhile.

use crate::interrupted::Hook;
use crate::interrupted::Interrupted;
use crate::support;
use crate::support::Model;
use crate::support::Seeded;
use jiff::tz::TimeZone;
use rusqlite::Connection;
use statekeep::error::Error;
use statekeep::error::Result;
use statekeep::format::manifest::Manifest;
use statekeep::format::note::CopiedFrom;
use statekeep::format::note::HoldUntil;
use statekeep::format::note::Note;
use statekeep::format::note::Proof;
use statekeep::id::RepoId;
use statekeep::id::SnapshotId;
use statekeep::ops::check;
use statekeep::ops::check::ReadData;
use statekeep::ops::copy;
use statekeep::ops::copy::CopyReport;
use statekeep::ops::notes;
use statekeep::ops::prune;
use statekeep::ops::prune::Limits;
use statekeep::ops::prune::PruneOptions;
use statekeep::ops::snapshots;
use statekeep::repo::Access;
use statekeep::repo::Repo;
use statekeep::store::FaultyStore;
use statekeep::store::Folder;
use statekeep::store::Key;
use statekeep::store::MemoryStore;
use statekeep::store::Method;
use statekeep::store::Repeat;
use statekeep::store::Store;
use statekeep::store::StoreFault;
use statekeep::store::When;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// A plain repository under another name than the encrypted one of `support`.
fn plain(store: Arc<dyn Store>, cache: Option<&Path>) -> Repo {
    let cx = support::context();
    Repo::create(&cx, store, RepoId([6; 16]), Access::Plain, cache).unwrap()
}

fn all(repo: &Repo) -> Vec<SnapshotId> {
    let state = repo.read_state(&support::context()).unwrap();
    state.snapshots.keys().copied().collect()
}

fn copy_all(source: &Repo, target: &Repo) -> Result<CopyReport> {
    copy::copy(&support::context(), source, target, &all(source))
}

fn assert_clean(repo: &Repo, what: &str) {
    let cx = support::context();
    let (state, snapshots) = snapshots::list(&cx, repo).unwrap();
    let manifests: Vec<_> = snapshots.into_iter().map(|s| (s.id, s.manifest)).collect();
    let report = check::check(&cx, repo, &state.packs, &manifests, ReadData::All).unwrap();
    assert!(report.is_clean(), "{what}: {:?}", report.problems);
}

/// Returns what each snapshot is a copy of.
fn copies(target: &Repo) -> BTreeMap<SnapshotId, SnapshotId> {
    let state = target.read_state(&support::context()).unwrap();
    let copied = state.notes.copied.iter();
    copied.map(|(copy, from)| (from.snapshot, *copy)).collect()
}

/// Every copy holds what its original held, and the source has no snapshot that was not copied.
fn assert_copied(source: &Repo, target: &Repo, saved: &BTreeMap<SnapshotId, Model>, what: &str) {
    let copies = copies(target);
    for (original, copy) in &copies {
        let model = support::model_in(target, copy).unwrap();
        assert!(model == saved[original], "{what}: {original} differs");
    }
    for id in all(source) {
        assert!(copies.contains_key(&id), "{what}: {id} was not copied");
    }
}

/// A large file cut by content, a database, small files, and a secret.
fn change(dir: &Path, random: &mut Seeded) {
    let large = dir.join("large");
    let mut content = fs::read(&large).unwrap_or_else(|_| random.bytes(600_000));
    let at = random.below(content.len() as u64) as usize;
    content[at] ^= 0x55;
    if random.below(3) == 0 {
        let inserted = random.bytes(100);
        content.splice(at..at, inserted);
    }
    fs::write(&large, content).unwrap();
    for _ in 0..3 {
        let name = format!("small-{}", random.below(9));
        let len = random.below(3000) as usize;
        fs::write(dir.join(name), random.text(len)).unwrap();
    }
    fs::write(dir.join(".env"), random.text(40)).unwrap();
    let database = Connection::open(dir.join("app.db")).unwrap();
    let sql = "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, v BLOB)";
    database.execute(sql, ()).unwrap();
    let blob = random.bytes(20_000);
    let insert = "INSERT INTO t(v) VALUES (?1)";
    database.execute(insert, [blob]).unwrap();
}

struct History {
    dir: TempDir,
    random: Seeded,
    saved: BTreeMap<SnapshotId, Model>,
}

impl History {
    fn begin(seed: u64) -> History {
        History {
            dir: TempDir::new().unwrap(),
            random: Seeded::new(seed),
            saved: BTreeMap::new(),
        }
    }

    fn back_up(&mut self, repo: &Repo) -> SnapshotId {
        change(self.dir.path(), &mut self.random);
        let mut options = support::options(self.dir.path());
        options.secrets = vec![".env".into()];
        let report = statekeep::ops::backup::backup(&support::context(), repo, &options).unwrap();
        let id = report.snapshot.unwrap();
        self.saved.insert(id, support::model_in(repo, &id).unwrap());
        id
    }
}

/// Keeps the newest so many and leaves not a byte unused.
pub(crate) fn prune_to(repo: &Repo, last: u32) -> Result<()> {
    let policy = statekeep::ops::keep::Policy {
        last,
        ..Default::default()
    };
    let options = PruneOptions {
        policy: Some(policy),
        profile: None,
        host: None,
        zone: TimeZone::UTC,
        limits: Limits {
            unused_permille: 0,
            repack_bytes_max: u64::MAX,
        },
        grace_ns: 0,
    };
    let cx = support::context();
    let plan = prune::plan(&cx, repo, &options)?;
    prune::apply(&cx, repo, &options, plan).map(drop)
}

#[test]
fn a_copy_is_the_same_snapshot_under_other_keys() {
    let (source, target) = (MemoryStore::new(), MemoryStore::new());
    let source = plain(Arc::new(source), None);
    let target = support::create(Arc::new(target), false, None);
    let mut history = History::begin(1);
    let (first, second) = (history.back_up(&source), history.back_up(&source));
    let cx = support::context();
    let proof = Proof {
        at: statekeep::context::Timestamp(1),
        result: "ok".into(),
    };
    let said = [
        Note::Tag(first, "golden".into()),
        Note::Hold(first, HoldUntil::Released),
        Note::Proof(first, proof),
    ];
    notes::add(&cx, &source, &[first].into(), &said).unwrap();

    let report = copy_all(&source, &target).unwrap();

    assert_copied(&source, &target, &history.saved, "copy");
    assert_clean(&target, "copy");
    assert_eq!(report.copied.len(), 2);
    let (_, found) = snapshots::list(&cx, &target).unwrap();
    let (_, originals) = snapshots::list(&cx, &source).unwrap();
    for (copy, original) in found.iter().zip(&originals) {
        let expected = Manifest {
            tree: copy.manifest.tree,
            databases: copy.manifest.databases,
            parent: copy.manifest.parent,
            ..original.manifest.clone()
        };
        assert_eq!(copy.manifest, expected);
        assert_ne!(copy.manifest.tree.id, original.manifest.tree.id);
        assert_eq!((&copy.tags, copy.hold), (&original.tags, original.hold));
        // It was restored from the other repository, not from this one.
        assert_eq!(copy.proof, None);
    }
    assert_eq!(found[1].manifest.parent, Some(found[0].id));
    assert_eq!(found[1].id, copies(&target)[&second]);
    let records = |repo: &Repo, manifest: &Manifest| {
        let packs = &repo.read_state(&cx).unwrap().packs;
        let chunks = statekeep::repo::chunks::Chunks::open(repo, packs).unwrap();
        statekeep::ops::inspect::databases(&chunks, manifest).unwrap()
    };
    let copied = records(&target, &found[1].manifest);
    assert_eq!(copied, records(&source, &originals[1].manifest));
    assert_eq!(copied.len(), 1);
}

#[test]
fn a_copy_of_a_copy_is_known_by_its_first_original() {
    let a = plain(Arc::new(MemoryStore::new()), None);
    let b = support::create(Arc::new(MemoryStore::new()), false, None);
    let c = Repo::create(
        &support::context(),
        Arc::new(MemoryStore::new()),
        RepoId([9; 16]),
        Access::Plain,
        None,
    )
    .unwrap();
    let mut history = History::begin(2);
    let id = history.back_up(&a);

    copy_all(&a, &b).unwrap();
    copy_all(&b, &c).unwrap();
    let again = [
        copy_all(&a, &c).unwrap(),
        copy_all(&c, &a).unwrap(),
        copy_all(&b, &a).unwrap(),
    ];

    for report in again {
        assert_eq!((report.present, report.copied.len()), (1, 0));
    }
    let from = CopiedFrom {
        repo: a.id(),
        snapshot: id,
    };
    let state = c.read_state(&support::context()).unwrap();
    assert_eq!(state.notes.copied.values().collect::<Vec<_>>(), [&from]);
    assert!(matches!(copy_all(&a, &a), Err(Error::Refused { .. })));
}

/// Nothing to copy: the logs are read and nothing else. A step of one file: about the step.
#[test]
fn a_copy_costs_what_is_missing() {
    let cache = TempDir::new().unwrap();
    let stores: [Arc<FaultyStore>; 2] =
        [(); 2].map(|()| Arc::new(FaultyStore::new(Arc::new(MemoryStore::new()))));
    let source = plain(stores[0].clone(), Some(cache.path()));
    let target = support::create(stores[1].clone(), false, Some(cache.path()));
    let (dir, mut random) = (TempDir::new().unwrap(), Seeded::new(3));
    let mut large = random.text(12_000_000);
    fs::write(dir.path().join("large"), &large).unwrap();
    for number in 0..600 {
        let text = random.text(2000);
        fs::write(dir.path().join(format!("file-{number}")), text).unwrap();
    }
    support::backup(&source, dir.path()).unwrap();
    let first = copy_all(&source, &target).unwrap();
    large[6_000_000] ^= 1;
    fs::write(dir.path().join("large"), &large).unwrap();
    fs::write(dir.path().join("file-300"), random.text(2000)).unwrap();
    support::backup(&source, dir.path()).unwrap();
    let plan = copy::plan(&support::context(), &source, &target, &all(&source)).unwrap();
    let puts = stores[1].calls(Method::PutNew);

    let step = copy_all(&source, &target).unwrap();

    assert!(first.copied[0].read_bytes > 13_000_000);
    let one = step.copied[0];
    assert!(one.read_bytes < 1_500_000, "{one:?}");
    assert!(one.stored_bytes < 40_000, "{one:?}");
    assert_eq!(
        stores[1].calls(Method::PutNew) - puts,
        2,
        "a pack and a slot"
    );
    assert_eq!((plan.snapshots.len(), plan.present), (1, 1));
    assert_eq!(plan.snapshots[0].read_bytes, one.read_bytes);

    let wanted = all(&source);
    let before: Vec<_> = stores.iter().map(|store| store.total_calls()).collect();
    let nothing = copy::copy(&support::context(), &source, &target, &wanted).unwrap();
    assert_eq!((nothing.present, nothing.copied.len()), (2, 0));
    let after = stores.iter().map(|store| store.total_calls());
    for (before, after) in before.into_iter().zip(after) {
        assert!(after - before <= 5, "{} calls", after - before);
    }
    assert_eq!(stores[1].calls(Method::PutNew) - puts, 2);
}

/// Histories with backups, removals and copies in any order, with or without local caches.
#[test]
fn random_histories_copy_byte_for_byte() {
    let rounds = std::env::var("STATEKEEP_COPIES").map_or(3, |text| text.parse().unwrap());
    for seed in 0..rounds {
        let cache = TempDir::new().unwrap();
        let cached = (seed % 2 == 0).then_some(cache.path());
        let source = plain(Arc::new(MemoryStore::new()), cached);
        let target = support::create(Arc::new(MemoryStore::new()), seed % 4 > 1, None);
        let mut history = History::begin(seed + 10);
        let mut copied = BTreeMap::new();
        for step in 0..10 {
            let what = format!("seed {seed}, step {step}");
            match history.random.below(6) {
                0 => prune_to(&source, 2).unwrap(),
                1 => prune_to(&target, 1).unwrap(),
                2 | 3 => {
                    copy_all(&source, &target).unwrap();
                    assert_copied(&source, &target, &history.saved, &what);
                    copied = copies(&target);
                }
                _ => drop(history.back_up(&source)),
            }
        }
        let report = copy_all(&source, &target).unwrap();
        assert!(report.damaged.is_empty() && report.removed.is_empty());
        let what = format!("seed {seed}, {} copied before", copied.len());
        assert_copied(&source, &target, &history.saved, &what);
        assert_clean(&source, &what);
        assert_clean(&target, &what);
    }
}

/// Any call of either store fails, once or for good, before or after its effect.
#[test]
fn a_store_that_fails_anywhere_costs_nothing_but_another_run() {
    let stride = std::env::var("STATEKEEP_COPIES").map_or(11, |_| 1);
    let stores: [Arc<MemoryStore>; 2] = [(); 2].map(|()| Arc::new(MemoryStore::new()));
    let source = plain(stores[0].clone(), None);
    let target = support::create(stores[1].clone(), false, None);
    let mut history = History::begin(4);
    history.back_up(&source);
    copy_all(&source, &target).unwrap();
    history.back_up(&source);
    history.back_up(&source);
    for side in 0..2 {
        for number in (0..).step_by(stride) {
            let faulty = |store: &MemoryStore| Arc::new(FaultyStore::new(support::copy_of(store)));
            let [from, to] = [faulty(&stores[0]), faulty(&stores[1])];
            let cache = TempDir::new().unwrap();
            let open = |store: &Arc<FaultyStore>| {
                support::open(store.clone(), Some(cache.path())).unwrap()
            };
            let (source, target) = (open(&from), open(&to));
            let hurt = [&from, &to][side];
            hurt.fail(StoreFault {
                method: None,
                after_calls: number,
                when: if number % 2 == 0 {
                    When::Before
                } else {
                    When::After
                },
                repeat: if number % 3 == 0 {
                    Repeat::Sticky
                } else {
                    Repeat::Once
                },
            });
            let wanted: Vec<_> = history.saved.keys().copied().collect();
            let ended = copy::copy(&support::context(), &source, &target, &wanted);
            hurt.heal();
            match (&ended, side) {
                (Ok(_), _) | (Err(Error::Store { .. }), 0) => {}
                (Err(Error::CopyFailed { .. }), 1) => {}
                (Err(error), _) => panic!("side {side}, call {number}: {error:?}"),
            }
            let what = format!("side {side}, call {number}");
            copy_all(&source, &target).unwrap();
            assert_copied(&source, &target, &history.saved, &what);
            assert_eq!(all(&target).len(), 3, "{what}");
            assert_clean(&target, &what);
            if ended.is_ok() && hurt.total_calls() < number {
                break;
            }
        }
    }
}

/// What was stored before a failure is not stored again.
#[test]
fn a_copy_that_was_cut_off_goes_on_with_what_it_stored() {
    let cache = TempDir::new().unwrap();
    let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
    let source = plain(Arc::new(MemoryStore::new()), None);
    let target = support::create(store.clone(), false, Some(cache.path()));
    let (dir, mut random) = (TempDir::new().unwrap(), Seeded::new(5));
    fs::write(dir.path().join("large"), random.bytes(40_000_000)).unwrap();
    support::backup(&source, dir.path()).unwrap();
    store.fail(StoreFault {
        method: Some(Method::PutNew),
        after_calls: 2,
        when: When::Before,
        repeat: Repeat::Sticky,
    });
    copy_all(&source, &target).unwrap_err();
    store.heal();
    let packs = store.list(Folder::Packs).unwrap().len();

    let report = copy_all(&source, &target).unwrap();

    assert_eq!(packs, 2);
    assert!(report.copied[0].stored_bytes < 12_000_000, "{report:?}");
    let stored = store.list(Folder::Packs).unwrap();
    let stored_bytes: u64 = stored.iter().map(|row| row.stored_bytes).sum();
    assert!(stored_bytes < 42_000_000, "{stored_bytes}");
    assert_clean(&target, "after");
}

/// A prune that rewrites everything, of the source or of the target, before any call of a copy.
#[test]
fn a_prune_of_either_side_at_any_moment_is_no_harm() {
    let stride = std::env::var("STATEKEEP_COPIES").map_or(7, |_| 1);
    let stores: [Arc<MemoryStore>; 2] = [(); 2].map(|()| Arc::new(MemoryStore::new()));
    let source = plain(stores[0].clone(), None);
    let target = support::create(stores[1].clone(), false, None);
    let mut history = History::begin(6);
    history.back_up(&source);
    history.back_up(&source);
    copy_all(&source, &target).unwrap();
    history.back_up(&source);
    history.back_up(&source);
    let (mut removed, mut moments) = (0, 0);
    for (side, keep) in [(0, 1), (0, 3), (1, 1)] {
        for number in (1..).step_by(stride) {
            let inner = [support::copy_of(&*stores[0]), support::copy_of(&*stores[1])];
            let pruned: Arc<dyn Store> = inner[side].clone();
            let interrupted = Arc::new(Interrupted::new(pruned.clone()));
            let open = |at: usize| match at == side {
                true => support::open(interrupted.clone(), None).unwrap(),
                false => support::open(inner[at].clone(), None).unwrap(),
            };
            let (source, target) = (open(0), open(1));
            let wanted = all(&source);
            let hook: Hook = Box::new(move || {
                let repo = support::open(pruned, None).unwrap();
                prune_to(&repo, keep).unwrap();
            });
            interrupted.before_call(number, hook);

            let report = copy::copy(&support::context(), &source, &target, &wanted);

            let what = format!("side {side}, keeping {keep}, call {number}");
            let was_pruned = interrupted.disarm();
            match report {
                Ok(report) => {
                    assert!(report.damaged.is_empty(), "{what}: {report:?}");
                    removed += report.removed.len();
                }
                Err(error) => panic!("{what}: {error:?}"),
            }
            let again = copy_all(&source, &target).unwrap();
            assert!(again.damaged.is_empty(), "{what}");
            assert_copied(&source, &target, &history.saved, &what);
            assert_clean(&target, &what);
            moments += 1;
            if !was_pruned {
                break;
            }
        }
    }
    assert!(removed > 0 && moments > 10, "{removed} {moments}");
}

#[test]
fn what_is_damaged_is_left_out_and_named_and_the_rest_is_copied() {
    let store = Arc::new(MemoryStore::new());
    let source = plain(store.clone(), None);
    let target = support::create(Arc::new(MemoryStore::new()), false, None);
    let mut history = History::begin(7);
    let made = [history.back_up(&source), history.back_up(&source)];
    // Another directory, which needs nothing of what goes.
    let mut other = History::begin(8);
    let sound = other.back_up(&source);
    let state = source.read_state(&support::context()).unwrap();
    let chunks = statekeep::repo::chunks::Chunks::open(&source, &state.packs).unwrap();
    let manifest = Manifest::decode(&state.snapshots[&made[1]]).unwrap();
    // The pack of the second backup: it has the root of its tree.
    for record in chunks.find(&manifest.tree.id) {
        store.delete(&Key::pack(&record.pack)).unwrap();
    }

    let plan = copy::plan(&support::context(), &source, &target, &all(&source)).unwrap();
    let report = copy_all(&source, &target).unwrap();

    let named: Vec<_> = report.damaged.iter().map(|(id, _)| *id).collect();
    assert_eq!(named, [made[1]]);
    assert_eq!(plan.damaged.len(), 1);
    let copied: Vec<_> = report.copied.iter().map(|one| one.snapshot).collect();
    assert_eq!(copied.len(), 2);
    assert!(copied.contains(&made[0]) && copied.contains(&sound));
    history.saved.append(&mut other.saved);
    for (original, copy) in copies(&target) {
        let model = support::model_in(&target, &copy).unwrap();
        assert!(model == history.saved[&original]);
    }
    assert_clean(&target, "rest");
}

/// Nothing new is built on a copy that is damaged.
#[test]
fn a_damaged_copy_is_not_built_on() {
    let store = Arc::new(MemoryStore::new());
    let source = plain(Arc::new(MemoryStore::new()), None);
    let mut history = History::begin(9);
    history.back_up(&source);
    for is_cached in [false, true] {
        let cache = TempDir::new().unwrap();
        let store = support::copy_of(&*store);
        let cached = is_cached.then_some(cache.path());
        let target = support::create(store.clone(), false, cached);
        copy_all(&source, &target).unwrap();
        for row in store.list(Folder::Packs).unwrap() {
            let key = Key::new(Folder::Packs, row.name).unwrap();
            store.delete(&key).unwrap();
        }
        let second = history.back_up(&source);

        copy_all(&source, &target).unwrap();

        let copy = copies(&target)[&second];
        let model = support::model_in(&target, &copy).unwrap();
        assert!(model == history.saved[&second], "cached: {is_cached}");
    }
}
