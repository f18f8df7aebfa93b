//! What every store must do. A new store is one new test here.

use statekeep::disk::RealDisk;
use statekeep::disk::SimulatedDisk;
use statekeep::store::DirStore;
use statekeep::store::FaultyStore;
use statekeep::store::Folder;
use statekeep::store::Key;
use statekeep::store::MemoryStore;
use statekeep::store::Put;
use statekeep::store::StagedStore;
use statekeep::store::Store;
use std::cell::Cell;
use std::env;
use std::io;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Barrier;
use std::thread;

#[test]
fn memory_store_keeps_the_contract() {
    check_contract(&|| Box::new(MemoryStore::new()));
}

#[test]
fn faulty_store_without_faults_keeps_the_contract() {
    check_contract(&|| Box::new(FaultyStore::new(Arc::new(MemoryStore::new()))));
}

#[test]
fn a_staged_store_keeps_the_contract() {
    let room = tempfile::tempdir().unwrap();
    check_contract(&|| {
        let below = Arc::new(MemoryStore::new());
        Box::new(StagedStore::over(below, room.path()).unwrap())
    });
}

#[test]
fn what_is_staged_is_seen_above_and_not_below() {
    let room = tempfile::tempdir().unwrap();
    let below = Arc::new(MemoryStore::new());
    let (old, new) = (Key::slot(1), Key::slot(2));
    below.put_new(&old, b"old").unwrap();
    let staged = StagedStore::over(below.clone(), room.path()).unwrap();

    assert_eq!(staged.put_new(&old, b"other").unwrap(), Put::Taken);
    assert_eq!(staged.put_new(&new, b"new").unwrap(), Put::Created);
    assert!(staged.delete(&old).is_err());

    assert_eq!(staged.get(&old).unwrap().unwrap(), b"old");
    assert_eq!(staged.get_range(&new, 1..9).unwrap().unwrap(), b"ew");
    assert_eq!(staged.list(Folder::Log).unwrap().len(), 2);
    assert_eq!(below.get(&new).unwrap(), None);
    assert_eq!(std::fs::read_dir(room.path()).unwrap().count(), 0);
}

#[test]
fn dir_store_on_the_real_disk_keeps_the_contract() {
    let scratch = tempfile::tempdir().unwrap();
    let made = Cell::new(0);
    check_contract(&|| {
        made.set(made.get() + 1);
        let path = scratch.path().join(made.get().to_string());
        Box::new(DirStore::create(Arc::new(RealDisk), &path).unwrap())
    });
}

#[test]
fn dir_store_on_a_simulated_disk_keeps_the_contract() {
    check_contract(&|| simulated_store(SimulatedDisk::new()));
}

#[test]
fn dir_store_without_hard_links_keeps_the_contract() {
    check_contract(&|| simulated_store(SimulatedDisk::new().without_links()));
}

fn simulated_store(disk: SimulatedDisk) -> Box<dyn Store> {
    Box::new(DirStore::create(Arc::new(disk), Path::new("/repo")).unwrap())
}

/// Runs every check on a fresh store of its own.
fn check_contract(make: &dyn Fn() -> Box<dyn Store>) {
    put_never_replaces(&*make());
    absent_objects_are_none(&*make());
    ranges_are_cut_at_the_end(&*make());
    listings_are_complete_and_exact(&*make());
    delete_is_idempotent_and_frees_the_name(&*make());
    large_objects_come_back(&*make());
    racing_puts_have_one_winner(&*make());
}

fn put_never_replaces(store: &dyn Store) {
    for folder in Folder::ALL {
        let key = Key::new(folder, "config").unwrap();

        assert_eq!(store.put_new(&key, b"first").unwrap(), Put::Created);
        assert_eq!(store.put_new(&key, b"second").unwrap(), Put::Taken);
        assert_eq!(store.put_new(&key, b"").unwrap(), Put::Taken);
        assert_eq!(store.get(&key).unwrap().unwrap(), b"first", "{key}");
        store.sync(folder).unwrap();
    }
}

fn absent_objects_are_none(store: &dyn Store) {
    let key = Key::slot(1);

    assert_eq!(store.get(&key).unwrap(), None);
    assert_eq!(store.get_range(&key, 0..1).unwrap(), None);
    assert_eq!(store.stored_bytes(&key).unwrap(), None);
    for folder in Folder::ALL {
        assert_eq!(store.list(folder).unwrap(), []);
        store.sync(folder).unwrap();
    }
}

fn ranges_are_cut_at_the_end(store: &dyn Store) {
    let bytes: Vec<u8> = (0..100).collect();
    store.put_new(&Key::slot(1), &bytes).unwrap();
    store.put_new(&Key::slot(2), b"").unwrap();

    #[rustfmt::skip]
    let cases = [
        (0..100, 0..100), (0..0, 0..0), (0..1, 0..1), (99..100, 99..100), (50..50, 50..50),
        (7..42, 7..42), (100..100, 100..100), (99..101, 99..100), (0..u64::MAX, 0..100),
        (100..200, 100..100), (101..200, 100..100), (u64::MAX - 1..u64::MAX, 100..100),
    ];
    for (range, expected) in cases {
        let part = store.get_range(&Key::slot(1), range.clone()).unwrap();
        assert_eq!(part.unwrap(), bytes[expected], "{range:?}");
    }
    for range in [0..0, 0..1, 1..2, 0..u64::MAX] {
        let part = store.get_range(&Key::slot(2), range).unwrap();
        assert_eq!(part.unwrap(), b"");
    }
    assert_eq!(store.stored_bytes(&Key::slot(1)).unwrap(), Some(100));
    assert_eq!(store.stored_bytes(&Key::slot(2)).unwrap(), Some(0));
    assert_eq!(store.get(&Key::slot(2)).unwrap().unwrap(), b"");
}

fn listings_are_complete_and_exact(store: &dyn Store) {
    let count = 300;
    store.put_new(&Key::config(), b"config").unwrap();
    store.put_new(&Key::checkpoint(7), b"state").unwrap();
    for number in 0..count {
        let bytes = vec![1; usize::try_from(number).unwrap()];
        store.put_new(&Key::slot(number), &bytes).unwrap();
    }
    store.put_new(&Key::slot(0), b"taken").unwrap();

    let listed = sorted(store, Folder::Log);

    let expected: Vec<_> = (0..count).map(|n| (format!("{n:012}"), n)).collect();
    assert_eq!(listed, expected);
    assert_eq!(sorted(store, Folder::Top), [("config".into(), 6)]);
    assert_eq!(
        sorted(store, Folder::State),
        [("000000000007".to_string(), 5)]
    );
    assert_eq!(sorted(store, Folder::Packs), []);
}

fn delete_is_idempotent_and_frees_the_name(store: &dyn Store) {
    let key = Key::slot(1);
    store.delete(&key).unwrap();
    store.put_new(&Key::slot(2), b"bystander").unwrap();

    for bytes in [b"one", b"two"] {
        assert_eq!(store.put_new(&key, bytes).unwrap(), Put::Created);
        assert_eq!(store.get(&key).unwrap().unwrap(), bytes);
        store.delete(&key).unwrap();
        store.delete(&key).unwrap();
        assert_eq!(store.get(&key).unwrap(), None);
        assert_eq!(sorted(store, Folder::Log), [("000000000002".into(), 9)]);
    }
}

fn large_objects_come_back(store: &dyn Store) {
    let key = Key::new(Folder::Packs, "large").unwrap();
    let bytes: Vec<u8> = (0..20u32 << 18).flat_map(u32::to_le_bytes).collect();

    assert_eq!(store.put_new(&key, &bytes).unwrap(), Put::Created);

    assert!(store.get(&key).unwrap().unwrap() == bytes);
    let tail = store.get_range(&key, 20_000_000..u64::MAX).unwrap();
    assert!(tail.unwrap() == bytes[20_000_000..]);
    assert_eq!(store.stored_bytes(&key).unwrap(), Some(20 << 20));
}

fn racing_puts_have_one_winner(store: &dyn Store) {
    let racers = 8;
    for round in 0..20 {
        let key = Key::slot(round);
        let start = Barrier::new(racers);

        let puts: Vec<_> = thread::scope(|scope| {
            let race = |racer: usize| {
                start.wait();
                store.put_new(&key, &racer_bytes(racer)).unwrap()
            };
            let threads: Vec<_> = (0..racers)
                .map(|racer| scope.spawn(move || race(racer)))
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });

        let winners: Vec<_> = (0..racers).filter(|&r| puts[r] == Put::Created).collect();
        assert_eq!(winners.len(), 1, "round {round}: {puts:?}");
        let bytes = store.get(&key).unwrap().unwrap();
        assert!(bytes == racer_bytes(winners[0]), "round {round}");
    }
    assert_eq!(store.list(Folder::Log).unwrap().len(), 20);
}

/// Different in length and in every byte, so that a mixture shows.
fn racer_bytes(racer: usize) -> Vec<u8> {
    vec![u8::try_from(racer).unwrap(); 10_000 + racer]
}

fn sorted(store: &dyn Store, folder: Folder) -> Vec<(String, u64)> {
    let listed = store.list(folder).unwrap();
    let mut rows: Vec<_> = listed
        .into_iter()
        .map(|row| (row.name, row.stored_bytes))
        .collect();
    rows.sort();
    rows
}

const RACE_REPO: &str = "STATEKEEP_TEST_RACE_REPO";
const RACE_NUMBER: &str = "STATEKEEP_TEST_RACE_NUMBER";

/// The parent gives a sign per object, so that the racers stay abreast.
#[test]
fn racing_processes_have_one_winner_per_object() {
    let scratch = tempfile::tempdir().unwrap();
    let repo = scratch.path().join("repo");
    let mut racers: Vec<_> = (0..4).map(|number| start_racer(&repo, number)).collect();

    for slot in 0..100 {
        for racer in &mut racers {
            racer.stdin.as_mut().unwrap().write_all(b".").unwrap();
        }
        let wins = racers.iter_mut().map(|racer| {
            let mut win = [0];
            let answer = racer.stderr.as_mut().unwrap();
            answer.read_exact(&mut win).unwrap();
            win[0] == b'+'
        });
        let wins: Vec<_> = wins.collect();

        let winners: Vec<_> = (0..racers.len()).filter(|&racer| wins[racer]).collect();
        assert_eq!(winners.len(), 1, "slot {slot}: {winners:?}");
        let store = DirStore::create(Arc::new(RealDisk), &repo).unwrap();
        let bytes = store.get(&Key::slot(slot)).unwrap().unwrap();
        assert!(bytes == racer_bytes(winners[0]), "slot {slot}");
        assert_eq!(store.list(Folder::Log).unwrap().len() as u64, slot + 1);
    }
    for mut racer in racers {
        drop(racer.stdin.take());
        assert!(racer.wait().unwrap().success());
    }
}

fn start_racer(repo: &Path, number: usize) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "contract::race_in_a_child_process"])
        .env(RACE_REPO, repo)
        .env(RACE_NUMBER, number.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// One racer of the test above; nothing when it is run as a test of its own.
#[test]
fn race_in_a_child_process() {
    let Some(repo) = env::var_os(RACE_REPO) else {
        return;
    };
    let number: usize = env::var(RACE_NUMBER).unwrap().parse().unwrap();

    for slot in 0.. {
        if io::stdin().read(&mut [0]).unwrap() == 0 {
            break;
        }
        // The first time, the directories are part of the race.
        let store = DirStore::create(Arc::new(RealDisk), Path::new(&repo)).unwrap();
        let put = store.put_new(&Key::slot(slot), &racer_bytes(number));
        let answer = match put.unwrap() {
            Put::Created => b"+",
            Put::Taken => b"-",
        };
        io::stderr().write_all(answer).unwrap();
    }
}
