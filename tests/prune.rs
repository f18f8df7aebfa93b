//! Giving back space: nothing a kept snapshot needs ever goes, whatever fails and whoever writes.

use crate::support;
use crate::support::Model;
use crate::support::Seeded;
use jiff::tz::TimeZone;
use statekeep::disk::Fault;
use statekeep::disk::Loss;
use statekeep::disk::SimulatedDisk;
use statekeep::error::Error;
use statekeep::error::Result;
use statekeep::format::entry::AddedPack;
use statekeep::format::entry::AddedSnapshot;
use statekeep::format::entry::Change;
use statekeep::format::manifest::Manifest;
use statekeep::format::note::HoldUntil;
use statekeep::format::note::Lost;
use statekeep::format::note::Note;
use statekeep::id::PackId;
use statekeep::id::SnapshotId;
use statekeep::ops::backup;
use statekeep::ops::check;
use statekeep::ops::check::ReadData;
use statekeep::ops::keep::Policy;
use statekeep::ops::notes;
use statekeep::ops::prune;
use statekeep::ops::prune::Limits;
use statekeep::ops::prune::PruneOptions;
use statekeep::ops::prune::PruneReport;
use statekeep::ops::snapshots;
use statekeep::repo::Repo;
use statekeep::repo::chunks::Chunks;
use statekeep::repo::log::Draft;
use statekeep::repo::log::Outcome;
use statekeep::repo::reach::Reach;
use statekeep::repo::reserve;
use statekeep::store::DirStore;
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
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use tempfile::TempDir;

/// What every snapshot held when it was made.
type Saved = BTreeMap<SnapshotId, Model>;

fn options(last: u32, limits: Limits) -> PruneOptions {
    PruneOptions {
        policy: (last > 0).then(|| Policy {
            last,
            ..Policy::default()
        }),
        profile: None,
        host: None,
        zone: TimeZone::UTC,
        limits,
        grace_ns: 0,
    }
}

/// Not a byte unused.
const ZEALOUS: Limits = Limits {
    unused_permille: 0,
    repack_bytes_max: u64::MAX,
};

/// Only what takes no rewriting.
const LAZY: Limits = Limits {
    unused_permille: 0,
    repack_bytes_max: 0,
};

/// Keeps the newest so many, or with zero only gives back space.
fn run(repo: &Repo, last: u32, limits: Limits) -> Result<PruneReport> {
    let (cx, options) = (support::context(), options(last, limits));
    let plan = prune::plan(&cx, repo, &options)?;
    prune::apply(&cx, repo, &options, plan)
}

/// Changes a few of many bytes, some small files, and moves content about between names.
fn change(dir: &Path, random: &mut Seeded) {
    let large = dir.join("large");
    let mut content = fs::read(&large).unwrap_or_else(|_| random.bytes(300_000));
    for _ in 0..3 {
        let at = random.below(content.len() as u64) as usize;
        content[at] ^= 0x55;
    }
    fs::write(&large, content).unwrap();
    for _ in 0..4 {
        let name = format!("small-{}", random.below(12));
        let len = random.below(3000) as usize;
        fs::write(dir.join(name), random.text(len)).unwrap();
    }
    if random.below(4) == 0 {
        let moved = format!("moved-{}", random.below(3));
        fs::copy(&large, dir.join(moved)).unwrap();
    }
}

fn back_up(repo: &Repo, dir: &Path, saved: &mut Saved) {
    let report = support::backup(repo, dir).unwrap();
    saved.insert(report.snapshot.unwrap(), support::model_of(dir));
}

/// A repository with so many snapshots of a directory that changes.
fn history(repo: &Repo, dir: &Path, count: usize, seed: u64) -> Saved {
    let (mut random, mut saved) = (Seeded::new(seed), Saved::new());
    for _ in 0..count {
        change(dir, &mut random);
        back_up(repo, dir, &mut saved);
    }
    saved
}

fn there(repo: &Repo) -> BTreeSet<SnapshotId> {
    let state = repo.read_state(&support::context()).unwrap();
    state.snapshots.keys().copied().collect()
}

/// Every snapshot that is there holds what it did.
fn assert_whole(repo: &Repo, saved: &Saved, what: &str) {
    for id in there(repo) {
        assert!(
            support::model_in(repo, &id).unwrap() == saved[&id],
            "{what}: {id} differs"
        );
    }
}

fn assert_clean(repo: &Repo, what: &str) {
    let cx = support::context();
    let (state, snapshots) = snapshots::list(&cx, repo).unwrap();
    let manifests: Vec<_> = snapshots.into_iter().map(|s| (s.id, s.manifest)).collect();
    let report = check::check(&cx, repo, &state.packs, &manifests, ReadData::All).unwrap();
    assert!(report.is_clean(), "{what}: {:?}", report.problems);
}

fn copy_of(store: &dyn Store) -> Arc<MemoryStore> {
    let copy = MemoryStore::new();
    for folder in Folder::ALL {
        for row in store.list(folder).unwrap() {
            let key = Key::new(folder, row.name).unwrap();
            copy.put_new(&key, &store.get(&key).unwrap().unwrap())
                .unwrap();
        }
    }
    Arc::new(copy)
}

fn stored_bytes(store: &dyn Store) -> u64 {
    let packs = store.list(Folder::Packs).unwrap();
    packs.iter().map(|pack| pack.stored_bytes).sum()
}

#[test]
fn prune_keeps_what_it_says_and_gives_back_the_rest() {
    let dir = TempDir::new().unwrap();
    let store = Arc::new(MemoryStore::new());
    let repo = support::create(store.clone(), false, None);
    let saved = history(&repo, dir.path(), 12, 1);
    let before = stored_bytes(&*store);

    let report = run(&repo, 2, ZEALOUS).unwrap();

    assert_eq!((there(&repo).len(), report.removed.len()), (2, 10));
    assert_whole(&repo, &saved, "after");
    assert_clean(&repo, "after");
    let state = repo.read_state(&support::context()).unwrap();
    let listed: BTreeSet<PackId> = (store.list(Folder::Packs).unwrap().iter())
        .map(|row| row.name.parse().unwrap())
        .collect();
    assert_eq!(listed, state.packs.keys().copied().collect());
    assert!(stored_bytes(&*store) < before);
    assert!(state.notes.figures.is_some());
}

/// What is not marked really is not needed: everything else is taken away and all restores.
#[test]
fn all_that_a_snapshot_needs_is_marked() {
    let dir = TempDir::new().unwrap();
    let database = dir.path().join("state.db");
    let connection = rusqlite::Connection::open(&database).unwrap();
    connection
        .execute_batch("create table t(x); insert into t values(randomblob(900000));")
        .unwrap();
    let holes = fs::File::create(dir.path().join("holes")).unwrap();
    holes.set_len(5 << 20).unwrap();
    fs::hard_link(&database, dir.path().join("link.db")).unwrap();
    fs::write(dir.path().join("empty"), b"").unwrap();
    let store = Arc::new(MemoryStore::new());
    let repo = support::create(store.clone(), false, None);
    let mut saved = history(&repo, dir.path(), 4, 2);
    let cx = support::context();
    let with_secret = backup::BackupOptions {
        secrets: vec!["small-*".into()],
        ..support::options(dir.path())
    };
    let report = backup::backup(&cx, &repo, &with_secret).unwrap();
    saved.insert(report.snapshot.unwrap(), support::model_of(dir.path()));
    assert!(report.manifest.databases.is_some());
    let mut spared = 0;

    for keep in there(&repo) {
        let state = repo.read_state(&cx).unwrap();
        let chunks = Chunks::open(&repo, &state.packs).unwrap();
        let manifest = Manifest::decode(&state.snapshots[&keep]).unwrap();
        let mut needed = BTreeSet::new();
        let mut count = 0;
        let mut visit = |_, id: &_| {
            count += 1;
            let records = chunks.find(id);
            needed.extend(chunks.needed_packs(&records[0])?);
            Ok(())
        };
        Reach::begin(&chunks)
            .visit(&cx, &manifest, &mut visit)
            .unwrap();
        assert!(count > 5, "{count}");
        spared += state.packs.len() - needed.len();

        let reduced = copy_of(&*store);
        for pack in state.packs.keys().filter(|pack| !needed.contains(pack)) {
            reduced.delete(&Key::pack(pack)).unwrap();
        }
        let reduced = support::open(reduced, None).unwrap();

        // A read of the store, not of the captured database: links have the same content.
        let model = support::model_in(&reduced, &keep).unwrap();
        let names: Vec<_> = saved[&keep].keys().collect();
        assert_eq!(model.keys().collect::<Vec<_>>(), names);
        let only: Vec<_> = vec![(keep, manifest)];
        let packs = needed.iter().map(|id| (*id, state.packs[id])).collect();
        let report = check::check(&cx, &reduced, &packs, &only, ReadData::All).unwrap();
        let lost: Vec<_> = (report.problems.iter())
            .filter(|problem| !problem.snapshots.is_empty())
            .collect();
        assert!(lost.is_empty(), "{lost:?}");
        let records = statekeep::ops::inspect::databases(
            &Chunks::open(&reduced, &packs).unwrap(),
            &only[0].1,
        );
        assert!(records.is_ok(), "{records:?}");
    }
    assert!(spared > 0);
}

#[test]
fn a_mark_that_cannot_read_something_deletes_nothing() {
    let dir = TempDir::new().unwrap();
    let store = Arc::new(MemoryStore::new());
    let repo = support::create(store.clone(), false, None);
    history(&repo, dir.path(), 5, 3);
    let state = repo.read_state(&support::context()).unwrap();
    let mut refusals = 0;

    for lost in state.packs.keys() {
        let damaged = copy_of(&*store);
        damaged.delete(&Key::pack(lost)).unwrap();
        let before = damaged.list(Folder::Packs).unwrap().len();
        let repo = support::open(damaged.clone(), None).unwrap();
        let readable: BTreeSet<SnapshotId> = (there(&repo).into_iter())
            .filter(|id| support::model_in(&repo, id).is_ok())
            .collect();

        match run(&repo, 3, ZEALOUS) {
            Err(error) => {
                assert!(
                    matches!(error, Error::Missing { .. } | Error::Corrupt { .. }),
                    "{error}"
                );
                assert_eq!(damaged.list(Folder::Packs).unwrap().len(), before);
                assert_eq!(there(&repo).len(), 5);
                refusals += 1;
            }
            // What is lost was needed by nothing that stays.
            Ok(_) => {
                let stays = there(&repo);
                assert!(stays.is_subset(&readable), "{lost}");
            }
        }
    }

    assert!(refusals > 0);
}

/// A, B: each stores what the other has as a base as a delta against what the other has whole.
fn two_hosts(dir: &Path) -> (Arc<MemoryStore>, Vec<SnapshotId>, Saved) {
    let mut random = Seeded::new(4);
    let base = random.bytes(250_000);
    let mut changed = base.clone();
    changed[77_777] ^= 1;
    let first = Arc::new(MemoryStore::new());
    support::create(first.clone(), false, None);
    let second = copy_of(&*first);
    let mut saved = Saved::new();
    let mut ids = Vec::new();
    let contents = [[&base, &changed], [&changed, &base]];
    for (store, contents) in [&first, &second].into_iter().zip(contents) {
        let repo = support::open(store.clone(), None).unwrap();
        let options = backup::BackupOptions {
            host: format!("host-{}", ids.len()),
            ..support::options(dir)
        };
        for content in contents {
            fs::write(dir.join("data"), content).unwrap();
            let report = backup::backup(&support::context(), &repo, &options).unwrap();
            ids.push(report.snapshot.unwrap());
            saved.insert(report.snapshot.unwrap(), support::model_of(dir));
        }
    }
    // As if both had read the log before the other wrote.
    let cx = support::context();
    let merged = support::open(first.clone(), None).unwrap();
    let theirs = support::open(second.clone(), None)
        .unwrap()
        .read_state(&cx)
        .unwrap();
    for pack in theirs.packs.keys() {
        let object = second.get(&Key::pack(pack)).unwrap().unwrap();
        first.put_new(&Key::pack(pack), &object).unwrap();
    }
    let state = merged.read_state(&cx).unwrap();
    let added = |(id, bytes): (&PackId, &_)| AddedPack {
        id: *id,
        bytes: *bytes,
    };
    let manifest =
        |raw: &Arc<[u8]>| AddedSnapshot::new(merged.secrets().manifest_key(), Arc::clone(raw));
    let draft = Draft {
        change: Change {
            add_packs: theirs.packs.iter().map(added).collect(),
            add_snapshots: theirs.snapshots.values().map(manifest).collect(),
            ..Change::default()
        },
        packs_since: state.position,
        ..Draft::default()
    };
    let outcome = merged.append(&cx, state, draft).unwrap();
    assert!(matches!(outcome, Outcome::Committed(_)));
    (first, ids, saved)
}

#[test]
fn no_order_of_pruning_loses_what_two_hosts_lean_on_in_a_circle() {
    let dir = TempDir::new().unwrap();
    let (store, ids, saved) = two_hosts(dir.path());
    let repo = support::open(store.clone(), None).unwrap();
    let state = repo.read_state(&support::context()).unwrap();
    let chunks = Chunks::open(&repo, &state.packs).unwrap();
    let heights = |id: &_| chunks.find(id).iter().map(|r| r.height).collect::<Vec<_>>();
    let mut circle = 0;
    for pack in state.packs.keys() {
        for row in chunks.table(pack).unwrap() {
            circle += usize::from(heights(&row.id) == [0, 1]);
        }
    }
    assert!(
        circle >= 4,
        "the fixture has both chunks whole and as deltas of each other"
    );

    for limits in [LAZY, Limits::default(), ZEALOUS] {
        for order in permutations(&ids) {
            let repo = support::open(copy_of(&*store), None).unwrap();
            for gone in &order[..3] {
                let ids = BTreeSet::from([*gone]);
                prune::forget(&support::context(), &repo, &ids).unwrap();
                run(&repo, 0, limits).unwrap();
                assert_whole(&repo, &saved, &format!("{order:?}"));
            }
            assert_clean(&repo, &format!("{order:?}"));
        }
    }
}

fn permutations(ids: &[SnapshotId]) -> Vec<Vec<SnapshotId>> {
    let [first, rest @ ..] = ids else {
        return vec![vec![]];
    };
    let mut all = Vec::new();
    for shorter in permutations(rest) {
        for place in 0..=shorter.len() {
            let mut order = shorter.clone();
            order.insert(place, *first);
            all.push(order);
        }
    }
    all
}

/// A history of which only the first and the last snapshots are left, before anything is given
/// back: the last ones stand on what only those in between had.
fn history_with_a_gap(repo: &Repo, dir: &Path) -> Saved {
    let (mut random, mut saved) = (Seeded::new(7), Saved::new());
    let mut content = random.bytes(40_000);
    let mut ids = Vec::new();
    for _ in 0..12 {
        content[..2000].copy_from_slice(&random.bytes(2000));
        fs::write(dir.join("data"), &content).unwrap();
        let id = support::backup(repo, dir).unwrap().snapshot.unwrap();
        saved.insert(id, support::model_of(dir));
        ids.push(id);
    }
    let between: BTreeSet<SnapshotId> = ids[1..10].iter().copied().collect();
    prune::forget(&support::context(), repo, &between).unwrap();
    saved
}

/// Every store call fails, before or after its effect, for good: what is kept restores, and the
/// next prune comes to the same end.
fn fail_at_any_call(store: &MemoryStore, saved: &Saved, last: u32) -> PruneReport {
    let counted = Arc::new(FaultyStore::new(copy_of(store)));
    let counting = support::open(counted.clone(), None).unwrap();
    let before = counted.total_calls();
    let report = run(&counting, last, ZEALOUS).unwrap();
    let calls = counted.total_calls() - before;
    let stays = there(&counting);

    for after_calls in 0..calls {
        for when in [When::Before, When::After] {
            let inner = copy_of(store);
            let faulty = Arc::new(FaultyStore::new(inner.clone()));
            let repo = support::open(faulty.clone(), None).unwrap();
            let repeat = Repeat::Sticky;
            faulty.fail(StoreFault {
                method: None,
                after_calls,
                when,
                repeat,
            });
            let _ = run(&repo, last, ZEALOUS);

            let what = format!("{when:?} at {after_calls}");
            let repo = support::open(inner.clone(), None).unwrap();
            assert!(there(&repo).is_superset(&stays), "{what}");
            assert_whole(&repo, saved, &what);
            run(&repo, last, ZEALOUS).unwrap();
            assert_eq!(there(&repo), stays, "{what}");
            assert_whole(&repo, saved, &what);
        }
    }
    report
}

#[test]
fn a_prune_that_fails_at_any_call_harms_nothing_and_the_next_one_finishes() {
    let dir = TempDir::new().unwrap();
    let store = Arc::new(MemoryStore::new());
    let repo = support::create(store.clone(), true, None);
    let saved = history(&repo, dir.path(), 4, 5);

    let report = fail_at_any_call(&store, &saved, 1);

    assert!(
        report.written_packs > 0 && report.deleted_packs > 1,
        "{report:?}"
    );
}

#[test]
fn a_thinning_that_fails_at_any_call_harms_nothing_and_the_next_one_finishes() {
    let dir = TempDir::new().unwrap();
    let store = Arc::new(MemoryStore::new());
    let repo = support::create(store.clone(), true, None);
    let saved = history_with_a_gap(&repo, dir.path());

    let report = fail_at_any_call(&store, &saved, 0);

    assert!(report.reencoded > 0, "{report:?}");
}

/// The same with a process that is killed at every operation of the disk, then power loss.
fn kill_at_any_write(past: impl Fn(&Repo) -> Saved, last: u32) -> PruneReport {
    let root = Path::new("/repo");
    let disk = SimulatedDisk::new();
    let open = |disk: &SimulatedDisk| -> Repo {
        let store = DirStore::open(Arc::new(disk.clone()), root).unwrap();
        support::open(Arc::new(store), None).unwrap()
    };
    let store = DirStore::create(Arc::new(disk.clone()), root).unwrap();
    let repo = support::create(Arc::new(store), true, None);
    let saved = past(&repo);
    let disk = disk.crash(Loss::Nothing);
    let counter = disk.fork();
    let report = run(&open(&counter), last, ZEALOUS).unwrap();
    let stays = there(&open(&counter));

    for at in 0..=counter.mutations() {
        let killed = disk.fork();
        let process = killed.process();
        process.fail_at(at, Fault::Kill);
        let _ = run(&open(&process), last, ZEALOUS);
        for loss in [Loss::Everything, Loss::Nothing, Loss::Random(at)] {
            let after = open(&killed.crash(loss));
            let what = format!("{loss:?} at {at}");
            assert_whole(&after, &saved, &what);
            run(&after, last, ZEALOUS).unwrap();
            assert_eq!(there(&after), stays, "{what}");
            assert_whole(&after, &saved, &what);
        }
    }
    report
}

#[test]
fn a_prune_killed_at_any_write_with_power_loss_harms_nothing() {
    let dir = TempDir::new().unwrap();

    kill_at_any_write(|repo| history(repo, dir.path(), 3, 6), 1);
}

#[test]
fn a_thinning_killed_at_any_write_with_power_loss_harms_nothing() {
    let dir = TempDir::new().unwrap();

    let report = kill_at_any_write(|repo| history_with_a_gap(repo, dir.path()), 0);

    assert!(report.reencoded > 0, "{report:?}");
}

/// Threads with repositories of their own, as processes have: backups and prunes in a directory.
#[test]
fn backups_and_prunes_race_and_nothing_is_lost() {
    let place = TempDir::new().unwrap();
    let disk: Arc<dyn statekeep::disk::Disk> = Arc::new(statekeep::disk::RealDisk);
    let root = place.path().join("repo");
    let store = DirStore::create(Arc::clone(&disk), &root).unwrap();
    support::create(Arc::new(store), true, None);
    let open = |cache: &str| {
        let store = DirStore::open(Arc::clone(&disk), &root).unwrap();
        support::open(Arc::new(store), Some(&place.path().join(cache))).unwrap()
    };
    let is_over = AtomicBool::new(false);

    let mut saved = Saved::new();
    std::thread::scope(|scope| {
        let pruner = |cache: &'static str, limits: Limits| {
            let (open, is_over) = (&open, &is_over);
            move || {
                let (repo, mut removed) = (open(cache), 0);
                while !is_over.load(Ordering::Relaxed) {
                    match run(&repo, 3, limits) {
                        Ok(report) => removed += report.removed.len(),
                        Err(Error::Busy { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                removed
            }
        };
        let pruners = [
            scope.spawn(pruner("p", ZEALOUS)),
            scope.spawn(pruner("q", Limits::default())),
        ];
        let writers = [1_u64, 2].map(|seed| {
            let (open, place) = (&open, &place);
            scope.spawn(move || {
                let dir = place.path().join(format!("app-{seed}"));
                fs::create_dir(&dir).unwrap();
                let repo = open(&format!("w{seed}"));
                history(&repo, &dir, 12, seed)
            })
        });
        for writer in writers {
            saved.extend(writer.join().unwrap());
        }
        is_over.store(true, Ordering::Relaxed);
        let removed: usize = pruners.map(|pruner| pruner.join().unwrap()).iter().sum();
        assert!(removed > 0);
    });
    let repo = open("last");
    run(&repo, 3, ZEALOUS).unwrap();

    assert_eq!(there(&repo).len(), 6);
    assert_whole(&repo, &saved, "in the end");
    assert_clean(&repo, "in the end");
}

fn random_history(seed: u64, steps: usize) {
    let dir = TempDir::new().unwrap();
    let store = Arc::new(MemoryStore::new());
    let repo = support::create(store.clone(), seed.is_multiple_of(2), None);
    let mut random = Seeded::new(seed);
    let mut saved = history(&repo, dir.path(), 2, seed);
    for step in 0..steps {
        let what = format!("seed {seed}, step {step}");
        match random.below(6) {
            0..=2 => {
                // Sometimes back to what was there before: a chunk may come back after it went.
                if random.below(3) == 0
                    && let Some(model) = saved.values().nth(random.below(4) as usize)
                    && let Some((_, _, large)) = model.get(&b"large"[..])
                {
                    fs::write(dir.path().join("large"), large).unwrap();
                }
                change(dir.path(), &mut random);
                back_up(&repo, dir.path(), &mut saved);
            }
            3 if there(&repo).len() > 1 => {
                let there = there(&repo);
                let pick = random.below(there.len() as u64) as usize;
                let ids = there.into_iter().skip(pick).take(1).collect();
                prune::forget(&support::context(), &repo, &ids).unwrap();
            }
            other => {
                let limits = [LAZY, ZEALOUS, Limits::default()][random.below(3) as usize];
                let last = if other == 4 {
                    1 + random.below(6) as u32
                } else {
                    0
                };
                run(&repo, last, limits).unwrap();
            }
        }
        assert_whole(&repo, &saved, &what);
    }
    run(&repo, 0, ZEALOUS).unwrap();
    assert_whole(&repo, &saved, &format!("seed {seed}, in the end"));
    assert_clean(&repo, &format!("seed {seed}"));
}

#[test]
fn any_history_of_backups_forgets_and_prunes_keeps_every_byte() {
    (0..6).for_each(|seed| random_history(seed, 16));
}

/// `cargo test --release --test main prune::a_long -- --ignored`
#[test]
#[ignore = "minutes"]
fn a_long_campaign_of_histories_keeps_every_byte() {
    (100..300).for_each(|seed| random_history(seed, 60));
}

#[test]
fn a_prune_with_nothing_to_do_reads_and_writes_nothing() {
    let dir = TempDir::new().unwrap();
    let inner = Arc::new(MemoryStore::new());
    let store = Arc::new(FaultyStore::new(inner.clone()));
    let repo = support::create(store.clone(), false, None);
    history(&repo, dir.path(), 3, 7);
    run(&repo, 3, ZEALOUS).unwrap();
    let packs = inner.list(Folder::Packs).unwrap().len() as u64;
    let position = repo.read_state(&support::context()).unwrap().position;
    let count = |method| store.calls(method);
    let (puts, deletes, lists, ranges) = (
        count(Method::PutNew),
        count(Method::Delete),
        count(Method::List),
        count(Method::GetRange),
    );

    let report = run(&repo, 3, ZEALOUS).unwrap();

    assert_eq!(report.deleted_packs + report.written_packs, 0);
    let state = repo.read_state(&support::context()).unwrap();
    assert_eq!(state.position, position);
    assert_eq!(count(Method::PutNew) - puts, 0);
    assert_eq!(count(Method::Delete) - deletes, 0);
    // Two to read the log, one each for packs and checkpoints before nothing is deleted, one for
    // orphans, one to trim; and two to read the log here.
    assert_eq!(count(Method::List) - lists, 8);
    // Header and table of each pack, for the mark and for the index, which has no directory here,
    // and at most one read for each node of three trees.
    assert!(count(Method::GetRange) - ranges <= 3 * packs + 12);
}

#[test]
fn what_somebody_holds_meanwhile_stays_and_what_nobody_agreed_to_stays_too() {
    let dir = TempDir::new().unwrap();
    let repo = support::create(Arc::new(MemoryStore::new()), true, None);
    let mut saved = history(&repo, dir.path(), 4, 8);
    let (cx, options) = (support::context(), options(2, ZEALOUS));
    let plan = prune::plan(&cx, &repo, &options).unwrap();
    let removed = plan.removed();
    assert_eq!(removed.len(), 2);

    let held = removed[0];
    let note = Note::Hold(held, HoldUntil::Released);
    notes::add(&cx, &repo, &BTreeSet::from([held]), &[note]).unwrap();
    // Two more: by the policy the two that were to be kept would go now.
    change(dir.path(), &mut Seeded::new(9));
    back_up(&repo, dir.path(), &mut saved);
    change(dir.path(), &mut Seeded::new(10));
    back_up(&repo, dir.path(), &mut saved);
    let report = prune::apply(&cx, &repo, &options, plan).unwrap();

    assert_eq!(report.removed, [removed[1]]);
    assert_eq!(report.overtaken, 1);
    assert_eq!(there(&repo).len(), 5);
    assert_whole(&repo, &saved, "after");
}

#[test]
fn with_a_grace_dropped_packs_stay_for_a_while() {
    let dir = TempDir::new().unwrap();
    let store = Arc::new(MemoryStore::new());
    let repo = support::create(store.clone(), true, None);
    let saved = history(&repo, dir.path(), 4, 16);
    let packs = || store.list(Folder::Packs).unwrap().len();
    let before = packs();
    let cx = support::context();
    let graceful = PruneOptions {
        grace_ns: 24 * 3600 * 1_000_000_000,
        ..options(1, LAZY)
    };
    let ids = there(&repo).into_iter().collect();
    prune::forget(&cx, &repo, &ids).unwrap();

    let plan = prune::plan(&cx, &repo, &graceful).unwrap();
    let report = prune::apply(&cx, &repo, &graceful, plan).unwrap();
    let then = packs();
    let leftover = prune::plan(&cx, &repo, &options(0, LAZY)).unwrap();
    run(&repo, 0, LAZY).unwrap();

    assert_eq!((report.deleted_packs, then), (0, before));
    assert_eq!(leftover.figures.leftover_packs as usize, before);
    assert_eq!(packs(), 0);
    assert_eq!(saved.len(), 4);
}

#[test]
fn what_the_log_calls_lost_is_not_relied_on() {
    let dir = TempDir::new().unwrap();
    let store = Arc::new(MemoryStore::new());
    let repo = support::create(store.clone(), true, None);
    history(&repo, dir.path(), 3, 17);
    let cx = support::context();
    let state = repo.read_state(&cx).unwrap();
    let lost = Lost {
        packs: state.packs.keys().copied().collect(),
        ..Lost::default()
    };
    notes::add(&cx, &repo, &BTreeSet::new(), &[Note::Damage(lost)]).unwrap();

    let refused = run(&repo, 1, ZEALOUS);

    assert!(matches!(refused, Err(Error::Missing { .. })), "{refused:?}");
    assert_eq!(there(&repo).len(), 3);
    assert_eq!(store.list(Folder::Packs).unwrap().len(), state.packs.len());
}

#[test]
fn forgetting_what_is_held_or_is_not_there_is_refused() {
    let dir = TempDir::new().unwrap();
    let repo = support::create(Arc::new(MemoryStore::new()), true, None);
    let saved = history(&repo, dir.path(), 2, 11);
    let cx = support::context();
    let ids: Vec<SnapshotId> = saved.keys().copied().collect();
    let note = Note::Hold(ids[0], HoldUntil::Released);
    notes::add(&cx, &repo, &BTreeSet::from([ids[0]]), &[note]).unwrap();

    let held = prune::forget(&cx, &repo, &ids.iter().copied().collect());
    let absent = prune::forget(&cx, &repo, &BTreeSet::from([SnapshotId([9; 32])]));

    assert!(matches!(held, Err(Error::Refused { .. })));
    assert!(matches!(absent, Err(Error::NotFound { .. })));
    assert_eq!(there(&repo).len(), 2);
}

#[test]
fn on_a_full_disk_the_reserve_goes_first_and_comes_back() {
    let dir = TempDir::new().unwrap();
    let root = Path::new("/repo");
    let disk = SimulatedDisk::new();
    let store = Arc::new(DirStore::create(Arc::new(disk.clone()), root).unwrap());
    let repo = support::create(store.clone(), true, None);
    let saved = history(&repo, dir.path(), 6, 12);
    reserve::ensure(&support::context(), &*store).unwrap();
    let used: u64 = (Folder::ALL.into_iter())
        .flat_map(|folder| store.list(folder).unwrap())
        .map(|row| row.stored_bytes)
        .sum();
    disk.set_capacity(Some(used));

    let refused = support::backup(&repo, dir.path()).unwrap_err();
    let report = run(&repo, 2, ZEALOUS).unwrap();

    assert!(refused.is_no_space(), "{refused}");
    assert_eq!(report.removed.len(), 4);
    assert!(report.deleted_packs > 0);
    assert_whole(&repo, &saved, "after");
    // There may be no room to rewrite yet; there is once the disk has some.
    disk.set_capacity(Some(used * 2));
    run(&repo, 2, ZEALOUS).unwrap();
    let key = Key::new(Folder::Top, "reserve").unwrap();
    assert_eq!(store.stored_bytes(&key).unwrap(), Some(1 << 20));
    assert_whole(&repo, &saved, "in the end");
    assert_clean(&repo, "in the end");
}

#[test]
fn without_reserve_a_full_disk_is_said_and_nothing_changes() {
    let dir = TempDir::new().unwrap();
    let root = Path::new("/repo");
    let disk = SimulatedDisk::new();
    let store = Arc::new(DirStore::create(Arc::new(disk.clone()), root).unwrap());
    let repo = support::create(store.clone(), true, None);
    let saved = history(&repo, dir.path(), 4, 13);
    disk.set_capacity(Some(1));

    let refused = run(&repo, 2, ZEALOUS).unwrap_err();

    assert!(refused.is_no_space(), "{refused}");
    assert_eq!(there(&repo).len(), 4);
    assert_whole(&repo, &saved, "after");
}

#[test]
fn orphans_go_after_two_days_and_not_before() {
    let dir = TempDir::new().unwrap();
    let store = Arc::new(MemoryStore::new());
    let repo = support::create(store.clone(), true, None);
    let saved = history(&repo, dir.path(), 2, 14);
    let orphan = Key::pack(&PackId([3; 32]));
    store
        .put_new(&orphan, b"of a backup that was killed")
        .unwrap();

    run(&repo, 0, LAZY).unwrap();
    assert!(store.get(&orphan).unwrap().is_some(), "it is young");
    let cx = support::context();
    let later = statekeep::context::Timestamp(cx.clock.now().0 + 49 * 3600 * 1_000_000_000);
    let cx = statekeep::context::Context {
        clock: Arc::new(support::TestClock::at(later)),
        ..cx
    };
    let options = options(0, LAZY);
    let plan = prune::plan(&cx, &repo, &options).unwrap();
    prune::apply(&cx, &repo, &options, plan).unwrap();

    assert!(store.get(&orphan).unwrap().is_none());
    assert_whole(&repo, &saved, "after");
}

/// Returns whether anything was stored against another base.
fn thin_once(seed: u64) -> bool {
    let dir = TempDir::new().unwrap();
    let store = Arc::new(MemoryStore::new());
    let repo = support::create(store.clone(), true, None);
    let (mut random, mut saved) = (Seeded::new(seed), Saved::new());
    let mut content = random.bytes(300_000);
    for _ in 0..30 {
        for _ in 0..1500 {
            let at = random.below(300_000 - 16) as usize;
            content[at..at + 16].copy_from_slice(&random.bytes(16));
        }
        fs::write(dir.path().join("data"), &content).unwrap();
        back_up(&repo, dir.path(), &mut saved);
    }
    let bytes = stored_bytes(&*store);
    // Records to decode for the two newest snapshots.
    let depth = || {
        let cx = support::context();
        let (state, all) = snapshots::list(&cx, &repo).unwrap();
        let chunks = Chunks::open(&repo, &state.packs).unwrap();
        let (mut reach, mut sum) = (Reach::begin(&chunks), 0);
        for snapshot in all.iter().rev().take(2) {
            let mut visit = |_, id: &_| {
                sum += chunks.chain(&chunks.find(id)[0])?.len();
                Ok(())
            };
            reach.visit(&cx, &snapshot.manifest, &mut visit).unwrap();
        }
        sum
    };
    let before = depth();

    let report = run(&repo, 2, Limits::default()).unwrap();

    if report.reencoded > 0 {
        assert!(depth() < before, "{} of {before}", depth());
    }
    assert!(stored_bytes(&*store) < bytes, "{bytes}");
    assert_whole(&repo, &saved, "after");
    assert_clean(&repo, "after");
    report.reencoded > 0
}

#[test]
fn thinning_frees_what_was_only_a_base_and_chains_get_shorter() {
    // Where runs of deltas begin depends on the key of the repository: now and then one begins just
    // before the end, and there is nothing to gain.
    assert!((15..21).any(thin_once));
}
