//! Backups of real directories, read back by a reader that owes nothing to restore.

use crate::support;
use crate::support::Model;
use crate::support::Seeded;
use statekeep::disk::Fault;
use statekeep::disk::Loss;
use statekeep::disk::SimulatedDisk;
use statekeep::error::Error;
use statekeep::format::manifest::Manifest;
use statekeep::id::SnapshotId;
use statekeep::store::DirStore;
use statekeep::store::FaultyStore;
use statekeep::store::Folder;
use statekeep::store::MemoryStore;
use statekeep::store::Method;
use statekeep::store::Repeat;
use statekeep::store::Store;
use statekeep::store::StoreFault;
use statekeep::store::When;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

/// Returns a place where a file may come to be, or already is.
fn name(root: &Path, random: &mut Seeded) -> PathBuf {
    let dir = root.join(format!("d{}", random.below(4)));
    if !dir.is_dir() {
        let _ = fs::remove_file(&dir);
        fs::create_dir(&dir).unwrap();
    }
    let odd = std::ffi::OsStr::from_bytes(b"f\xff-");
    let path = dir.join(format!("{}{}", odd.to_string_lossy(), random.below(40)));
    let _ = fs::remove_dir_all(&path);
    path
}

/// Returns one of the nodes of a kind.
fn existing(root: &Path, random: &mut Seeded, kind: &str) -> Option<PathBuf> {
    let model = support::model_of(root);
    let is_meant = |(path, node): &(&Vec<u8>, &support::Node)| node.1 == kind && !path.is_empty();
    let nodes: Vec<_> = model.iter().filter(is_meant).collect();
    let (path, _) = nodes.get(random.below(nodes.len() as u64) as usize)?;
    Some(root.join(std::ffi::OsStr::from_bytes(path)))
}

/// Changes a tree in a random way that a backup could get wrong.
fn mutate(root: &Path, random: &mut Seeded) {
    let name = |random: &mut Seeded| name(root, random);
    let existing = |random: &mut Seeded| existing(root, random, "file");
    let is_rare = random.below(400) == 0;
    match if is_rare { 16 } else { random.below(16) } {
        0 | 1 => {
            let len = [0, 1, 100, 5_000, 65_535, 65_536, 65_537][random.below(7) as usize];
            let path = name(random);
            let _ = fs::remove_file(&path);
            fs::write(&path, random.text(len)).unwrap();
        }
        2 => {
            let path = name(random);
            let _ = fs::remove_file(&path);
            let len = 200_000 + random.below(3_000_000) as usize;
            fs::write(&path, random.bytes(len)).unwrap();
        }
        3 | 4 => {
            let Some(path) = existing(random) else { return };
            let mut content = fs::read(&path).unwrap();
            for _ in 0..=random.below(5) {
                let at = random.below(content.len() as u64 + 1) as usize;
                let patch = random.bytes(10);
                match random.below(3) {
                    0 => drop(content.splice(at..at, patch)),
                    1 => content.truncate(at),
                    _ => content
                        .iter_mut()
                        .skip(at)
                        .zip(patch)
                        .for_each(|(old, new)| *old = new),
                }
            }
            fs::write(&path, content).unwrap();
        }
        5 => {
            let Some(path) = existing(random) else { return };
            fs::remove_file(path).unwrap();
        }
        6 => {
            let (Some(from), to) = (existing(random), name(random)) else {
                return;
            };
            let _ = fs::rename(from, to);
        }
        7 => {
            let Some(path) = existing(random) else { return };
            let mode = [0o600, 0o644, 0o755, 0o604][random.below(4) as usize];
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        8 => {
            let path = name(random);
            let _ = fs::remove_file(&path);
            symlink("../somewhere", &path).unwrap();
        }
        9 => {
            let (Some(from), to) = (existing(random), name(random)) else {
                return;
            };
            let _ = fs::hard_link(from, to);
        }
        kind => mutate_oddly(root, random, kind),
    }
}

/// The rarer ways.
fn mutate_oddly(root: &Path, random: &mut Seeded, kind: u64) {
    let name = |random: &mut Seeded| name(root, random);
    let directory = |random: &mut Seeded| existing(root, random, "dir");
    match kind {
        10 => {
            // A file becomes a directory, or a directory a file.
            let path = match random.below(2) {
                0 => existing(root, random, "file"),
                _ => directory(random),
            };
            let Some(path) = path else { return };
            if path.is_dir() {
                fs::remove_dir_all(&path).unwrap();
                fs::write(&path, "once a directory").unwrap();
                return;
            }
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
            fs::write(path.join("below"), random.text(3000)).unwrap();
        }
        11 => {
            let Some(from) = directory(random) else {
                return;
            };
            let to = root.join(format!("d{}", random.below(6)));
            let _ = fs::rename(from, to);
        }
        12 => {
            let mode = [0o700, 0o755, 0o750, 0o1777][random.below(4) as usize];
            let Some(path) = directory(random) else {
                return;
            };
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        13..16 => mutate_contents(root, random, kind),
        _ => {
            // More names than one leaf takes.
            let dir = name(random);
            let _ = fs::remove_file(&dir);
            fs::create_dir(&dir).unwrap();
            for i in 0..2500 {
                let long = "x".repeat(random.below(60) as usize);
                fs::write(dir.join(format!("{i}{long}")), random.text(20)).unwrap();
            }
        }
    }
}

/// Changes whole contents, in ways that are easy to miss.
fn mutate_contents(root: &Path, random: &mut Seeded, kind: u64) {
    let existing = |random: &mut Seeded| existing(root, random, "file");
    match kind {
        13 => {
            // Another content of the same length with the time of the old one, or in its place.
            let Some(path) = existing(random) else { return };
            let (before, len) = (fs::metadata(&path).unwrap(), fs::read(&path).unwrap().len());
            if random.below(2) == 0 {
                fs::remove_file(&path).unwrap();
            }
            fs::write(&path, random.bytes(len)).unwrap();
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(before.modified().unwrap()).unwrap();
        }
        14 => {
            // A copy, or two files change places.
            let (Some(one), Some(other)) = (existing(random), existing(random)) else {
                return;
            };
            if random.below(2) == 0 || one == other {
                let to = name(root, random);
                let _ = fs::remove_file(&to);
                let _ = fs::copy(one, to);
                return;
            }
            let aside = root.join("aside");
            fs::rename(&one, &aside).unwrap();
            fs::rename(&other, &one).unwrap();
            fs::rename(&aside, &other).unwrap();
        }
        _ => {
            // Appending, cutting to nothing, and holes at the start, the end and in the middle.
            let Some(path) = existing(random) else { return };
            let file = fs::File::options().write(true).open(&path).unwrap();
            let len = file.metadata().unwrap().len();
            let len = match random.below(4) {
                0 => 0,
                1 => len + random.below(2_000_000),
                2 => len / 2,
                _ => len,
            };
            file.set_len(len).unwrap();
            let patch_len = random.below(300_000) as usize;
            let patch = random.bytes(patch_len);
            match random.below(3) {
                0 => file.write_all_at(&patch, len).unwrap(),
                1 => file.write_all_at(&patch, len + 500_000).unwrap(),
                _ => {}
            }
        }
    }
}

fn history(seed: u64, steps: u64) {
    let mut random = Seeded::new(seed);
    let (dir, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let root = dir.path().join("app");
    fs::create_dir(&root).unwrap();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    drop(support::create(
        Arc::clone(&store),
        seed.is_multiple_of(2),
        Some(cache.path()),
    ));
    let mut wanted: Vec<(SnapshotId, Model)> = Vec::new();
    for step in 0..steps {
        (0..random.below(6)).for_each(|_| mutate(&root, &mut random));
        if random.below(8) == 0 {
            fs::remove_dir_all(cache.path()).unwrap();
        }
        let repo = support::open(Arc::clone(&store), Some(cache.path())).unwrap();
        let report = support::backup(&repo, &root).unwrap();

        assert_eq!(report.warnings, [], "seed {seed} step {step}");
        wanted.push((report.snapshot.unwrap(), support::model_of(&root)));
    }
    let repo = support::open(store, None).unwrap();
    for (number, (snapshot, model)) in wanted.iter().enumerate() {
        let found = support::model_in(&repo, snapshot).unwrap();
        let differs = |path: &&Vec<u8>| found.get(*path) != model.get(*path);
        let wrong: Vec<_> = model.keys().chain(found.keys()).filter(differs).collect();
        assert!(wrong.is_empty(), "seed {seed} snapshot {number}: {wrong:?}");
    }
}

#[test]
fn every_snapshot_of_random_histories_reads_back_as_it_was() {
    (0..12).for_each(|seed| history(seed, 12));
}

#[test]
#[ignore = "the long run: STATEKEEP_SEEDS=1000 cargo test -r long_random -- --ignored"]
fn long_random_histories_read_back_as_they_were() {
    let seeds = std::env::var("STATEKEEP_SEEDS").map_or(200, |text| text.parse().unwrap());
    (1000..1000 + seeds).for_each(|seed| history(seed, 40));
}

fn small_tree() -> TempDir {
    let dir = TempDir::new().unwrap();
    let mut random = Seeded::new(1);
    for i in 0..50 {
        fs::write(dir.path().join(format!("f{i}")), random.text(500)).unwrap();
    }
    fs::write(dir.path().join("large"), random.bytes(1_500_000)).unwrap();
    dir
}

/// Cost is pinned by counting what the store is asked, not by the clock.
#[test]
fn an_unchanged_backup_is_one_put_of_400_bytes_and_a_small_one_is_two_puts() {
    let (dir, cache) = (small_tree(), TempDir::new().unwrap());
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let store = Arc::new(FaultyStore::new(Arc::clone(&memory)));
    support::create(Arc::clone(&memory), false, Some(cache.path()));
    let backup = || {
        let repo = support::open(Arc::clone(&store) as Arc<dyn Store>, Some(cache.path()));
        support::backup(&repo.unwrap(), dir.path()).unwrap();
    };
    let stored = || -> u64 {
        let sum = |folder| {
            memory
                .list(folder)
                .unwrap()
                .iter()
                .map(|o| o.stored_bytes)
                .sum::<u64>()
        };
        Folder::ALL.into_iter().map(sum).sum()
    };
    backup();
    backup();

    let (puts, lists, bytes) = (
        store.calls(Method::PutNew),
        store.calls(Method::List),
        stored(),
    );
    backup();
    assert_eq!(store.calls(Method::PutNew) - puts, 1);
    assert!(stored() - bytes <= 400, "{}", stored() - bytes);
    // Keys to open; checkpoints before and after reading the log, and for the post-check.
    let lists = store.calls(Method::List) - lists;
    assert!(lists <= 4, "{lists} lists");

    fs::write(dir.path().join("f7"), "changed").unwrap();
    let puts = store.calls(Method::PutNew);
    backup();
    assert_eq!(store.calls(Method::PutNew) - puts, 2);
}

/// The budget of the design: everything but the deltas themselves, for each changed chunk.
#[test]
fn bookkeeping_of_a_changed_chunk_is_at_most_80_bytes() {
    let (dir, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut content = Seeded::new(3).bytes(160 << 20);
    let path = dir.path().join("data");
    fs::write(&path, &content).unwrap();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repo = support::create(Arc::clone(&store), false, Some(cache.path()));
    support::backup(&repo, dir.path()).unwrap();
    let stored = || -> u64 {
        let sum = |folder| {
            store
                .list(folder)
                .unwrap()
                .iter()
                .map(|o| o.stored_bytes)
                .sum::<u64>()
        };
        [Folder::Packs, Folder::Log].into_iter().map(sum).sum()
    };
    let before = stored();
    (0..content.len())
        .step_by(100_000)
        .for_each(|at| content[at] ^= 0xff);
    fs::write(&path, &content).unwrap();

    support::backup(&repo, dir.path()).unwrap();

    let state = repo.read_state(&support::context()).unwrap();
    let chunks = statekeep::repo::chunks::Chunks::open(&repo, &state.packs).unwrap();
    let tables = state.packs.keys().map(|pack| chunks.table(pack).unwrap());
    let deltas: Vec<_> = tables.flatten().filter(|row| row.height == 1).collect();
    let is_data = |row: &&statekeep::format::pack::Row| {
        row.encoding.kind == statekeep::format::pack::ChunkKind::Data
    };
    let changed = deltas.iter().filter(is_data).count() as u64;
    let payload: u64 = deltas
        .iter()
        .filter(is_data)
        .map(|row| u64::from(row.stored_bytes))
        .sum();
    let each = (stored() - before - payload) / changed;
    assert!(changed > 400, "{changed}");
    assert!(
        each <= 80,
        "{each} bytes for each of {changed} changed chunks"
    );
}

fn crash_disk(seed: u64) -> Loss {
    match seed {
        0 => Loss::Everything,
        1 => Loss::Nothing,
        seed => Loss::Random(seed),
    }
}

/// I2, I6, I7, I10: power loss at every mutating operation of a backup.
#[test]
fn power_loss_anywhere_in_a_backup_keeps_every_snapshot_and_the_next_run_succeeds() {
    let dir = small_tree();
    let disk = SimulatedDisk::new();
    let place = Path::new("/repo");
    let store = |disk: &SimulatedDisk| -> Arc<dyn Store> {
        Arc::new(DirStore::open(Arc::new(disk.clone()), place).unwrap())
    };
    let made = DirStore::create(Arc::new(disk.clone()), place).unwrap();
    let repo = support::create(Arc::new(made), false, None);
    let first = support::backup(&repo, dir.path())
        .unwrap()
        .snapshot
        .unwrap();
    let first_model = support::model_of(dir.path());
    fs::write(dir.path().join("f3"), "new").unwrap();
    let second_model = support::model_of(dir.path());
    let mut cuts = 0;
    for at in 0.. {
        let tried = disk.fork();
        tried.fail_at(at, Fault::Kill);
        let outcome =
            support::open(store(&tried), None).and_then(|repo| support::backup(&repo, dir.path()));
        for seed in 0..6 {
            let after = tried.crash(crash_disk(seed));
            let repo = support::open(store(&after), None).unwrap();
            assert_eq!(
                support::model_in(&repo, &first).unwrap(),
                first_model,
                "cut {at}"
            );
            if let Ok(report) = &outcome {
                let id = report.snapshot.unwrap();
                assert_eq!(
                    support::model_in(&repo, &id).unwrap(),
                    second_model,
                    "cut {at}"
                );
            }
            let again = support::backup(&repo, dir.path())
                .unwrap()
                .snapshot
                .unwrap();
            assert_eq!(
                support::model_in(&repo, &again).unwrap(),
                second_model,
                "cut {at}"
            );
            cuts += 1;
        }
        if outcome.is_ok() {
            break;
        }
    }
    assert!(cuts > 50, "{cuts}");
}

/// T-26: a store that fails once, before or after the call took effect, at every call.
#[test]
fn a_store_error_at_any_call_is_an_error_or_leaves_a_whole_snapshot() {
    let dir = small_tree();
    let model = support::model_of(dir.path());
    for when in [When::Before, When::After] {
        for after_calls in 0.. {
            let memory: Arc<dyn Store> = Arc::new(MemoryStore::new());
            support::create(Arc::clone(&memory), true, None);
            let store = Arc::new(FaultyStore::new(Arc::clone(&memory)));
            let fault = StoreFault {
                method: None,
                after_calls,
                when,
                repeat: Repeat::Once,
            };
            store.fail(fault);
            let total = store.total_calls();
            let outcome = support::open(Arc::clone(&store) as Arc<dyn Store>, None)
                .and_then(|repo| support::backup(&repo, dir.path()));
            let was_hit = store.total_calls() - total > after_calls;
            store.heal();
            let repo = support::open(memory, None).unwrap();
            if let Ok(report) = outcome {
                let id = report.snapshot.unwrap();
                assert_eq!(support::model_in(&repo, &id).unwrap(), model);
            }
            for id in repo
                .read_state(&support::context())
                .unwrap()
                .snapshots
                .keys()
            {
                assert_eq!(support::model_in(&repo, id).unwrap(), model);
            }
            let again = support::backup(&repo, dir.path())
                .unwrap()
                .snapshot
                .unwrap();
            assert_eq!(support::model_in(&repo, &again).unwrap(), model);
            if !was_hit {
                break;
            }
        }
    }
}

#[test]
fn an_interrupted_backup_continues_where_it_was() {
    let (dir, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut random = Seeded::new(9);
    for i in 0..6 {
        fs::write(dir.path().join(format!("f{i}")), random.bytes(10 << 20)).unwrap();
    }
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::new());
    support::create(Arc::clone(&memory), true, Some(cache.path()));
    let store = Arc::new(FaultyStore::new(Arc::clone(&memory)));
    let (method, repeat) = (Some(Method::PutNew), Repeat::Sticky);
    store.fail(StoreFault {
        method,
        after_calls: 2,
        when: When::Before,
        repeat,
    });
    let repo = support::open(Arc::clone(&store) as Arc<dyn Store>, Some(cache.path())).unwrap();
    assert!(support::backup(&repo, dir.path()).is_err());
    let packs = memory.list(Folder::Packs).unwrap();
    assert_eq!(packs.len(), 2);
    store.heal();

    let report = support::backup(&repo, dir.path()).unwrap();

    let stored: u64 = packs.iter().map(|pack| pack.stored_bytes).sum();
    assert!(
        report.manifest.figures.stored_bytes + stored < 61 << 20,
        "nothing is stored twice"
    );
    let state = repo.read_state(&support::context()).unwrap();
    assert_eq!(state.packs.len(), memory.list(Folder::Packs).unwrap().len());
    let id = report.snapshot.unwrap();
    assert_eq!(
        support::model_in(&repo, &id).unwrap(),
        support::model_of(dir.path())
    );
}

/// T-31: a damaged repository heals where the source still has the bytes.
#[test]
fn what_a_lost_pack_held_is_stored_again() {
    let dir = small_tree();
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repo = support::create(Arc::clone(&memory), false, None);
    support::backup(&repo, dir.path()).unwrap();
    fs::write(dir.path().join("f1"), "other").unwrap();
    support::backup(&repo, dir.path()).unwrap();
    for pack in memory.list(Folder::Packs).unwrap() {
        let key = statekeep::store::Key::new(Folder::Packs, pack.name).unwrap();
        let before = memory.get(&key).unwrap().unwrap();
        memory.delete(&key).unwrap();

        let healed = support::backup(&repo, dir.path())
            .unwrap()
            .snapshot
            .unwrap();

        let found = support::model_in(&repo, &healed).unwrap();
        assert!(found == support::model_of(dir.path()), "{key}");
        memory.put_new(&key, &before).unwrap();
    }
}

#[test]
fn backups_at_the_same_time_all_commit_and_read_back() {
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::new());
    support::create(Arc::clone(&memory), false, None);
    let done: Vec<(SnapshotId, Model)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|seed| {
                let memory = Arc::clone(&memory);
                scope.spawn(move || {
                    let dir = small_tree();
                    let mut random = Seeded::new(seed);
                    let mut done = Vec::new();
                    for _ in 0..5 {
                        (0..3).for_each(|_| mutate(dir.path(), &mut random));
                        let repo = support::open(Arc::clone(&memory), None).unwrap();
                        let report = support::backup(&repo, dir.path()).unwrap();
                        done.push((report.snapshot.unwrap(), support::model_of(dir.path())));
                    }
                    done
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });

    let repo = support::open(memory, None).unwrap();
    assert_eq!(done.len(), 20);
    for (snapshot, model) in &done {
        assert!(support::model_in(&repo, snapshot).unwrap() == *model);
    }
}

#[test]
fn a_source_that_is_not_there_is_an_error_and_stores_nothing() {
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repo = support::create(Arc::clone(&memory), true, None);

    let outcome = support::backup(&repo, Path::new("/does/not/exist"));

    assert!(matches!(outcome, Err(Error::NotFound { .. })));
    assert!(memory.list(Folder::Log).unwrap().is_empty());
}

#[test]
fn holes_of_sparse_files_are_not_stored() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("sparse");
    let file = fs::File::create(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"end", 1 << 30).unwrap();
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repo = support::create(memory, true, None);

    let report = support::backup(&repo, dir.path()).unwrap();

    assert_eq!(report.manifest.figures.total_bytes, (1 << 30) + 3);
    assert!(report.manifest.figures.read_bytes < 1 << 20);
    assert!(report.manifest.figures.stored_bytes < 4096);
}

#[test]
fn secrets_lie_in_bundles_of_their_own_without_bases() {
    let (dir, cache) = (small_tree(), TempDir::new().unwrap());
    fs::write(dir.path().join(".env"), "TOKEN=1").unwrap();
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repo = support::create(memory, false, Some(cache.path()));
    let options = statekeep::ops::backup::BackupOptions {
        secrets: vec![".env".to_string()],
        ..support::options(dir.path())
    };
    for content in ["TOKEN=1", "TOKEN=2"] {
        fs::write(dir.path().join(".env"), content).unwrap();
        let cx = support::context();
        let report = statekeep::ops::backup::backup(&cx, &repo, &options).unwrap();
        let id = report.snapshot.unwrap();
        assert_eq!(
            support::model_in(&repo, &id).unwrap(),
            support::model_of(dir.path())
        );
        let state = repo.read_state(&cx).unwrap();
        let manifest = Manifest::decode(&state.snapshots[&id]).unwrap();
        let chunks = statekeep::repo::chunks::Chunks::open(&repo, &state.packs).unwrap();
        let mut leaves = statekeep::repo::tree::Leaves::begin(&chunks, &manifest.tree);
        let at = leaves.next(&mut Default::default()).unwrap().unwrap();
        let secret = at
            .leaf
            .bundles
            .iter()
            .find(|bundle| bundle.class == statekeep::format::tree::Class::Secret);
        let secret = secret.unwrap();
        assert_eq!(secret.files, 1);
        assert!(
            chunks
                .find(&secret.id)
                .iter()
                .all(|record| record.height == 0)
        );
    }
}
