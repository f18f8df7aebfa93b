//! Differences of files, between snapshots and with what is there now.

use crate::repair::World;
use crate::support::Seeded;
use crate::support::context;
use statekeep::ops::backup::BackupReport;
use statekeep::ops::diff;
use statekeep::ops::diff::Change;
use statekeep::ops::diff::DatabaseDiff;
use statekeep::ops::diff::DiffOptions;
use statekeep::ops::diff::DiffReport;
use statekeep::ops::diff::Live;
use statekeep::ops::diff::LiveOptions;
use statekeep::repo::chunks::Chunks;
use statekeep::store::Store;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;

type Told = Vec<(String, Change)>;

fn options(world: &World) -> DiffOptions {
    DiffOptions {
        temp_dir: world.scratch.path().to_path_buf(),
        ..DiffOptions::default()
    }
}

fn between(world: &World, old: &BackupReport, new: &BackupReport) -> (Told, DiffReport) {
    let repo = world.repo();
    let state = repo.read_state(&context()).unwrap();
    let chunks = Chunks::open(&repo, &state.packs).unwrap();
    let mut told = Told::new();
    let (old, new, options) = (&old.manifest, &new.manifest, options(world));
    let report = diff::diff(&context(), &chunks, old, new, &options, &mut |one| {
        told.push((String::from_utf8_lossy(&one.path).into_owned(), one.change));
        Ok(())
    });
    (told, report.unwrap())
}

fn with_live(world: &World, old: &BackupReport) -> (Told, Vec<Option<DatabaseDiff>>) {
    let repo = world.repo();
    let state = repo.read_state(&context()).unwrap();
    let live = LiveOptions {
        root: world.source(),
        host: "host".into(),
        temp_dir: world.scratch.path().to_path_buf(),
    };
    let live = Live::read(&context(), &repo, &state, &old.manifest, &live).unwrap();
    let chunks = live.chunks().unwrap();
    let (mut told, mut databases) = (Told::new(), Vec::new());
    let (old, new, options) = (&old.manifest, &live.manifest, options(world));
    diff::diff(&context(), &chunks, old, new, &options, &mut |one| {
        told.push((String::from_utf8_lossy(&one.path).into_owned(), one.change));
        databases.push(one.database.clone());
        Ok(())
    })
    .unwrap();
    (told, databases)
}

fn named(told: &Told) -> Vec<(&str, Change)> {
    let told = told.iter().filter(|(path, _)| !path.is_empty());
    told.map(|(path, change)| (&path[..], *change)).collect()
}

/// Makes one change of every kind.
fn change_everything(world: &World) {
    let at = |name: &str| world.source().join(name);
    fs::write(at("new"), b"new").unwrap();
    fs::remove_file(at("gone")).unwrap();
    fs::write(at("small"), b"other").unwrap();
    fs::set_permissions(at("mode"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(at("type")).unwrap();
    fs::create_dir(at("type")).unwrap();
    fs::remove_file(at("link")).unwrap();
    symlink("elsewhere", at("link")).unwrap();
    let mut large = fs::read(at("large")).unwrap();
    large[150_000] ^= 1;
    fs::write(at("large"), large).unwrap();
    // The same bytes at another time are no difference.
    fs::write(at("touched"), b"touched").unwrap();
}

fn prepared() -> World {
    let world = World::new(false);
    for name in ["gone", "small", "mode", "type", "touched", "same"] {
        world.write(name, name.as_bytes());
    }
    world.write("large", &Seeded::new(1).bytes(300_000));
    symlink("nowhere", world.source().join("link")).unwrap();
    world
}

const EXPECTED: [(&str, Change); 7] = [
    ("gone", Change::Removed),
    ("large", Change::Content),
    ("link", Change::Content),
    ("mode", Change::Attributes),
    ("new", Change::Added),
    ("small", Change::Content),
    ("type", Change::Type),
];

#[test]
fn every_kind_of_change_is_told_and_nothing_else() {
    let world = prepared();
    let old = world.backup();
    let same = world.backup();
    assert_eq!(between(&world, &old, &same).0, []);
    change_everything(&world);
    let new = world.backup();

    let (told, report) = between(&world, &old, &new);

    assert_eq!(named(&told), EXPECTED);
    assert_eq!(report.touched, 1);
    let (told, _) = between(&world, &new, &old);
    assert_eq!(told.len(), EXPECTED.len());
}

#[test]
fn what_is_there_now_is_compared_and_leaves_no_trace() {
    let world = prepared();
    let db = rusqlite::Connection::open(world.source().join("a.db")).unwrap();
    let sql = "PRAGMA journal_mode = WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1)";
    db.execute_batch(sql).unwrap();
    let old = world.backup();
    assert_eq!(with_live(&world, &old).0, []);
    change_everything(&world);
    db.execute_batch("INSERT INTO t VALUES (2)").unwrap();
    let objects = || {
        let folders = statekeep::store::Folder::ALL;
        let listed = folders.map(|folder| world.store.list(folder).unwrap().len());
        listed.iter().sum::<usize>()
    };
    let before = objects();

    let (told, databases) = with_live(&world, &old);

    assert_eq!(told[0], ("a.db".into(), Change::Content));
    assert_eq!(named(&told)[1..], EXPECTED);
    match &databases[0] {
        Some(DatabaseDiff::Understood(tables)) => {
            assert_eq!((tables.tables.len(), tables.tables[0].rows.added), (1, 1));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(objects(), before, "nothing is stored");
    // The next backup sees what it would have seen.
    let new = world.backup();
    assert_eq!(with_live(&world, &new).0, []);
}

#[test]
fn paths_and_patterns_narrow_what_is_told() {
    let world = prepared();
    let old = world.backup();
    change_everything(&world);
    let new = world.backup();
    let repo = world.repo();
    let state = repo.read_state(&context()).unwrap();
    let chunks = Chunks::open(&repo, &state.packs).unwrap();
    let count = |options: DiffOptions| {
        let (old, new) = (&old.manifest, &new.manifest);
        let report = diff::diff(&context(), &chunks, old, new, &options, &mut |_| Ok(()));
        report.unwrap().differences()
    };

    let paths = DiffOptions {
        paths: vec![b"small".to_vec(), b"type".to_vec()],
        ..options(&world)
    };
    let only = DiffOptions {
        only: vec!["l*".into()],
        ..options(&world)
    };

    assert_eq!((count(paths), count(only)), (2, 2));
}

#[test]
fn the_cost_is_that_of_the_difference() {
    let world = World::new(true);
    for dir in 0..40 {
        fs::create_dir(world.source().join(format!("d{dir}"))).unwrap();
        for file in 0..100 {
            let name = format!("d{dir}/a-rather-long-name-of-a-file-{file}");
            world.write(&name, format!("{dir} {file}").as_bytes());
        }
    }
    let old = world.backup();
    world.write("d7/a-rather-long-name-of-a-file-5", b"other");
    let new = world.backup();

    let (told, report) = between(&world, &old, &new);
    let (_, same) = between(&world, &old, &old);

    assert_eq!(
        told,
        [("d7/a-rather-long-name-of-a-file-5".into(), Change::Content)]
    );
    // A root and a leaf on each side.
    assert!(report.nodes <= 4, "{} nodes", report.nodes);
    assert_eq!(same.nodes, 0);
}
