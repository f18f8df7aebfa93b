//! Power loss, kills and errors at every mutating operation of the durable writes.
//!
//! Each enumeration collects violations instead of asserting, so that the same one shows that a
//! disk which ignores a sync is found out.

use crate::support;
use statekeep::context::Timestamp;
use statekeep::disk::Disk;
use statekeep::disk::Fault;
use statekeep::disk::Loss;
use statekeep::disk::SimulatedDisk;
use statekeep::disk::replace;
use statekeep::disk::replace_cache;
use statekeep::format::key::Credential;
use statekeep::format::key::Derivation;
use statekeep::repo::NewKey;
use statekeep::store::DirStore;
use statekeep::store::Folder;
use statekeep::store::Key;
use statekeep::store::Put;
use statekeep::store::Store;
use std::path::Path;
use std::sync::Arc;

const SEEDS: u64 = 200;
const REPO: &str = "/srv/backups/repo";
const MINE: &[u8] = b"what the killed process writes";
const RIVAL: &[u8] = b"what another process writes meanwhile";

#[test]
fn put_new_survives_power_loss_at_every_operation() {
    assert_eq!(put_violations(&repo()), Vec::<String>::new());
}

#[test]
fn put_new_without_hard_links_survives_power_loss_at_every_operation() {
    assert_eq!(
        put_violations(&repo().without_links()),
        Vec::<String>::new()
    );
}

#[test]
fn put_new_with_a_sync_left_out_is_found_out() {
    let file = put_violations(&repo().without_file_sync());
    let dir = put_violations(&repo().without_dir_sync());

    assert!(file.iter().any(|v| v.contains("in part")), "{file:?}");
    assert!(dir.iter().any(|v| v.contains("is lost")), "{dir:?}");
    // The rival that finds the name taken relies on a sync of its own.
    assert!(dir.iter().any(|v| v.contains("Taken)) is lost")), "{dir:?}");
}

#[test]
fn creating_a_repository_survives_power_loss_at_every_operation() {
    assert_eq!(
        create_violations(&SimulatedDisk::new()),
        Vec::<String>::new()
    );
}

#[test]
fn created_directories_are_durable_or_the_creation_fails() {
    let create = |disk: &SimulatedDisk| DirStore::create(Arc::new(disk.clone()), Path::new(REPO));
    let disk = SimulatedDisk::new();

    create(&disk).unwrap();

    for folder in Folder::ALL {
        let dir = Path::new(REPO).join(folder.name());
        assert!(disk.crash(Loss::Everything).exists(&dir).unwrap());
    }
    for at in 0..disk.mutations() {
        let failing = SimulatedDisk::new();
        failing.fail_at(at, Fault::Io);
        assert!(create(&failing).is_err(), "at {at}");
        assert!(create(&failing).is_ok(), "at {at}");
    }
}

#[test]
fn creating_a_repository_with_a_sync_left_out_is_found_out() {
    assert!(!create_violations(&SimulatedDisk::new().without_file_sync()).is_empty());
    assert!(!create_violations(&SimulatedDisk::new().without_dir_sync()).is_empty());
}

#[test]
fn replace_leaves_the_old_or_the_new_content() {
    let disk = SimulatedDisk::new();

    assert_eq!(replace_violations(&disk.fork()), Vec::<String>::new());
    assert!(!replace_violations(&disk.fork().without_file_sync()).is_empty());
    assert!(!replace_violations(&disk.without_dir_sync()).is_empty());
}

#[test]
fn a_killed_cache_write_leaves_the_old_or_the_new_content() {
    let path = Path::new("/index");
    let disk = SimulatedDisk::new();
    replace_cache(&disk, path, b"old").unwrap();

    for cut in 0..4 {
        let after = disk.fork();
        let writer = after.process();
        writer.fail_at(cut, Fault::Kill);
        let replaced = replace_cache(&writer, path, b"new").is_ok();

        let content = after.read(path).unwrap().unwrap();
        assert_eq!(content == b"new", replaced, "cut {cut}");
        assert!(replaced || content == b"old", "cut {cut}");
    }
}

#[test]
fn an_error_at_any_operation_leaves_no_temp_and_a_put_that_can_be_repeated() {
    let base = repo();
    let mutations = mutations_of_put(&base);
    for fault in [Fault::Io, Fault::NoSpace] {
        for at in 0..mutations {
            let disk = base.fork();
            let store = open(&disk);

            disk.fail_at(at, fault);
            let first = store.put_new(&Key::slot(2), MINE);
            let temps = temps(&disk);
            let second = store.put_new(&Key::slot(2), MINE);

            // The last operation removes the temp; its failure is no failure of the put.
            let is_last = at + 1 == mutations;
            assert_eq!(first.is_ok(), is_last, "{fault:?} at {at}");
            assert_eq!(temps, usize::from(is_last), "{fault:?} at {at}");
            // Nor does a sync that succeeds after a failed one prove anything (decision 0093): whoever
            // opens the store anew can repeat the put.
            let is_sync = at + 2 == mutations;
            assert_eq!(second.is_err(), is_sync, "{fault:?} at {at}: {second:?}");
            let again = open(&disk).put_new(&Key::slot(2), MINE);
            assert!(again.is_ok(), "{fault:?} at {at}: {again:?}");
            let no_space = first.is_err_and(|error| error.is_no_space());
            assert_eq!(no_space, fault == Fault::NoSpace && !is_last, "at {at}");
            let after = open(&disk.crash(Loss::Everything));
            assert_eq!(after.get(&Key::slot(2)).unwrap().unwrap(), MINE, "at {at}");
        }
    }
}

#[test]
fn a_full_disk_refuses_the_put_and_stays_usable() {
    let disk = repo();
    let store = open(&disk);
    disk.set_capacity(Some(100));

    let refused = store.put_new(&Key::slot(2), &[1; 200]).unwrap_err();
    let fits = store.put_new(&Key::slot(2), &[1; 50]);

    assert!(refused.is_no_space(), "{refused}");
    assert_eq!(fits.unwrap(), Put::Created);
    assert_eq!(temps(&disk), 0);
}

#[test]
fn temps_of_killed_writers_are_removed_when_they_are_old() {
    let disk = repo();
    for (at, time) in [(1, 10), (2, 20)] {
        disk.set_now(Timestamp(time));
        let writer = disk.process();
        writer.fail_at(at, Fault::Kill);
        open(&writer).put_new(&Key::slot(2), MINE).unwrap_err();
    }

    let store = open(&disk);
    assert_eq!(temps(&disk), 2);
    assert_eq!(store.list(Folder::Log).unwrap().len(), 1);
    assert_eq!(store.remove_leftovers(Timestamp(20)).unwrap(), 1);
    assert_eq!(temps(&disk), 1);
    assert_eq!(store.remove_leftovers(Timestamp(21)).unwrap(), 1);
    assert_eq!(store.get(&Key::slot(1)).unwrap().unwrap(), b"bystander");
}

/// A repository that is durable as a whole, with one object in the log.
fn repo() -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let store = DirStore::create(Arc::new(disk.clone()), Path::new(REPO)).unwrap();
    store.put_new(&Key::config(), b"config").unwrap();
    store.put_new(&Key::slot(1), b"bystander").unwrap();
    // Removed temps come back unless their removal is synced.
    store.sync(Folder::Top).unwrap();
    store.sync(Folder::Log).unwrap();
    disk.crash(Loss::Everything)
}

fn open(disk: &SimulatedDisk) -> DirStore {
    DirStore::open(Arc::new(disk.clone()), Path::new(REPO)).unwrap()
}

fn temps(disk: &SimulatedDisk) -> usize {
    let entries = disk.list(&Path::new(REPO).join("log")).unwrap();
    let is_temp = |name: &str| name.starts_with('.');
    let names = entries.iter().map(|entry| entry.name.to_str().unwrap());
    names.filter(|name| is_temp(name)).count()
}

fn losses() -> impl Iterator<Item = Loss> {
    let seeded = (0..SEEDS).map(Loss::Random);
    [Loss::Everything, Loss::Nothing].into_iter().chain(seeded)
}

fn mutations_of_put(base: &SimulatedDisk) -> u64 {
    let disk = base.fork();
    open(&disk).put_new(&Key::slot(2), MINE).unwrap();
    disk.mutations()
}

/// Kills `put_new` at every operation, lets a rival put the same key or not, cuts the power.
fn put_violations(base: &SimulatedDisk) -> Vec<String> {
    let mut violations = Vec::new();
    for cut in 0..=mutations_of_put(base) {
        for has_rival in [false, true] {
            let disk = base.fork();
            let process = disk.process();
            process.fail_at(cut, Fault::Kill);
            let mine = open(&process).put_new(&Key::slot(2), MINE).ok();
            let rival = has_rival.then(|| open(&disk).put_new(&Key::slot(2), RIVAL).unwrap());
            for loss in losses() {
                for violation in after_put(&disk.crash(loss), mine, rival) {
                    violations.push(format!("cut {cut}, {loss:?}: {violation}"));
                }
            }
        }
    }
    violations
}

fn after_put(disk: &SimulatedDisk, mine: Option<Put>, rival: Option<Put>) -> Vec<String> {
    let mut violations = Vec::new();
    let mut check = |holds: bool, violation: String| {
        if !holds {
            violations.push(violation);
        }
    };
    let store = open(disk);
    let found = store.get(&Key::slot(2)).unwrap();
    let is_mine = found.as_deref() == Some(MINE);
    let is_rival = found.as_deref() == Some(RIVAL);
    let is_absent = found.is_none();

    check(is_absent || is_mine || is_rival, "there in part".into());
    check(mine != Some(Put::Created) || is_mine, "mine is lost".into());
    check(
        rival.is_none() || !is_absent,
        format!("rival ({rival:?}) is lost"),
    );
    check(
        rival != Some(Put::Created) || is_rival,
        "rival's is not there".into(),
    );
    check(
        rival == Some(Put::Created) || !is_rival,
        "a refused put is there".into(),
    );
    let bystander = store.get(&Key::slot(1)).unwrap();
    check(
        bystander.as_deref() == Some(b"bystander"),
        "bystander is hurt".into(),
    );

    let listed = |store: &DirStore| store.list(Folder::Log).unwrap().len();
    check(
        listed(&store) == 1 + usize::from(!is_absent),
        "listing is wrong".into(),
    );
    let again = store.put_new(&Key::slot(2), b"again").unwrap();
    let expected = if is_absent { Put::Created } else { Put::Taken };
    check(again == expected, format!("a later put was {again:?}"));
    check(listed(&store) == 2, "a later put is not listed".into());
    violations
}

/// Kills the creation of a repository at every operation, cuts the power, creates it again.
fn create_violations(base: &SimulatedDisk) -> Vec<String> {
    let create = |disk: &SimulatedDisk| {
        let store = DirStore::create(Arc::new(disk.clone()), Path::new(REPO))?;
        store.put_new(&Key::config(), b"config")
    };
    let counter = base.fork();
    create(&counter).unwrap();

    let mut violations = Vec::new();
    for cut in 0..=counter.mutations() {
        let disk = base.fork();
        let process = disk.process();
        process.fail_at(cut, Fault::Kill);
        let first = create(&process);
        // Another process that finds the work half done must be able to rely on all of it.
        for second in [None, Some(disk.process())] {
            let second = second.map(|process| create(&process).unwrap());
            for loss in losses() {
                let after = disk.crash(loss);
                let config = Path::new(REPO).join("config");
                let found = after.read(&config).unwrap();
                let is_promised = first.is_ok() || second.is_some();
                let is_good = found
                    .as_ref()
                    .map_or(!is_promised, |bytes| bytes == b"config");
                if !is_good || create(&after).is_err() || open(&after).list(Folder::Log).is_err() {
                    violations.push(format!("cut {cut}, {loss:?}: {found:?}"));
                }
            }
        }
    }
    violations
}

/// Kills `replace` at every operation and cuts the power.
fn replace_violations(base: &SimulatedDisk) -> Vec<String> {
    let path = Path::new("/settings");
    let mut violations = Vec::new();
    replace(base, path, b"old content").unwrap();
    let base = base.crash(Loss::Nothing);
    for cut in 0..=5 {
        let disk = base.fork();
        disk.fail_at(cut, Fault::Kill);
        let replaced = replace(&disk, path, b"new").is_ok();
        for loss in losses() {
            let found = disk.crash(loss).read(path).unwrap();
            let is_new = found.as_deref() == Some(b"new");
            let is_old = found.as_deref() == Some(b"old content");
            if !(is_new || is_old && !replaced) {
                violations.push(format!("cut {cut}, {loss:?}: {found:?}"));
            }
        }
    }
    violations
}

/// I6: who was told that a key opens nothing any more must not find it back after power loss.
#[test]
fn a_key_that_was_removed_stays_removed_after_power_loss() {
    for rotates in [false, true] {
        let disk = SimulatedDisk::new();
        let store = DirStore::create(Arc::new(disk.process()), Path::new("/repo")).unwrap();
        let mut repo = support::create(Arc::new(store), false, None);
        let new_key = |byte: u8| NewKey {
            credential: Credential::Secret([byte; 32].into()),
            derivation: Derivation::Secret,
            label: "second".to_string(),
        };
        let cx = support::context();
        let second = repo.add_key(&cx, &new_key(9)).unwrap();

        match rotates {
            true => drop(repo.rotate_keys(&cx, &[new_key(8)]).unwrap()),
            false => drop(repo.remove_key(second.name()).unwrap()),
        }

        let after = Arc::new(disk.crash(Loss::Everything));
        let after = DirStore::open(after, Path::new("/repo")).unwrap();
        let left = statekeep::repo::keys::list(&after).unwrap();
        assert_eq!(left.len(), 1, "rotates: {rotates}");
        assert!(left[0].name != second.name());
    }
}
