//! Databases restored over others: no log of what was there before may reach them.

use crate::bench_repo::BenchRepo;
use crate::bench_repo::New;
use crate::bench_repo::Part;
use crate::bench_repo::What;
use crate::bench_repo::dir;
use crate::bench_repo::hard_link;
use crate::bench_repo::large;
use crate::bench_repo::small;
use rusqlite::Connection;
use statekeep::error::Result;
use statekeep::format::list::StreamKind;
use statekeep::format::manifest::Manifest;
use statekeep::format::tree::Content;
use statekeep::format::tree::Kind;
use statekeep::ops::restore;
use statekeep::ops::restore::Replace;
use statekeep::ops::restore::RestoreOptions;
use statekeep::ops::restore::RestorePlan;
use statekeep::ops::restore::RestoreReport;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// A database captured through its engine.
fn captured(repo: &BenchRepo, path: &str, bytes: &[u8]) -> New {
    let mut node = large(path, vec![Part::Bytes(bytes.to_vec())]);
    let mut kind = repo.entry(&node).kind;
    if let Kind::File {
        content: Content::Stream(stream),
        ..
    } = &mut kind
    {
        stream.kind = StreamKind::Sqlite;
    }
    node.what = What::Other(kind);
    node
}

fn fill(db: &Connection, from: i64, rows: i64) {
    for id in from..from + rows {
        let text = format!("row {id} ").repeat(40);
        db.execute("insert or replace into t values (?1, ?2)", (id, text))
            .unwrap();
    }
}

fn open(path: &Path) -> Connection {
    let db = Connection::open(path).unwrap();
    db.execute_batch("create table if not exists t (id integer primary key, x text)")
        .unwrap();
    db
}

/// Returns what the integrity check says and which rows there are.
fn ids(path: &Path) -> rusqlite::Result<(String, Vec<i64>)> {
    let db = Connection::open(path)?;
    let verdict = db.query_row("pragma integrity_check", [], |row| row.get(0))?;
    let mut rows = db.prepare("select id from t order by id")?;
    let ids = rows.query_map([], |row| row.get(0))?;
    Ok((verdict, ids.collect::<rusqlite::Result<_>>()?))
}

fn copy(from: &Path, to: &Path, suffixes: &[&str]) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    for suffix in suffixes {
        fs::copy(beside(from, suffix), beside(to, suffix)).unwrap();
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

/// Leaves the database of a killed writer that had not checkpointed.
fn leave_wal(target: &Path) {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("db");
    let db = open(&path);
    db.pragma_update(None, "journal_mode", "wal").unwrap();
    fill(&db, 0, 300);
    db.execute_batch("pragma wal_checkpoint(truncate); pragma wal_autocheckpoint = 0")
        .unwrap();
    fill(&db, 5000, 300);
    copy(&path, target, &["", "-wal", "-shm"]);
}

/// Leaves the database of a writer that was killed in the middle of a transaction.
fn leave_journal(target: &Path) {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("db");
    let db = open(&path);
    fill(&db, 0, 300);
    db.execute_batch("pragma cache_size = 2; pragma cache_spill = 1; begin immediate")
        .unwrap();
    fill(&db, 100, 2000);
    copy(&path, target, &["", "-journal"]);
}

/// Returns the bytes of a database with these rows and nothing beside it.
fn snapshot_bytes(rows: i64) -> Vec<u8> {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("db");
    fill(&open(&path), 0, rows);
    fs::read(path).unwrap()
}

fn plan(repo: &BenchRepo, manifest: &Manifest, options: &RestoreOptions) -> RestorePlan {
    restore::plan(&repo.cx, &repo.chunks, manifest, options).unwrap()
}

fn run(repo: &BenchRepo, manifest: &Manifest, options: &RestoreOptions) -> Result<RestoreReport> {
    let plan = plan(repo, manifest, options);
    restore::apply(&repo.cx, &repo.chunks, manifest, options, &plan)
}

fn overwriting(target: &Path) -> RestoreOptions {
    let mut options = RestoreOptions::new(target);
    options.replace = Replace::Changed;
    options
}

fn names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_log_of_the_database_before_does_not_reach_the_restored_one() {
    let repo = BenchRepo::new();
    let bytes = snapshot_bytes(1000);
    let manifest = repo.snapshot(vec![dir(""), dir("d"), captured(&repo, "d/db", &bytes)]);
    let leave = [
        (leave_wal as fn(&Path), &["d/db-shm", "d/db-wal"][..]),
        (leave_journal, &["d/db-journal"]),
    ];
    for (leave, logs) in leave {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("d/db");
        let wanted = ("ok".to_string(), (0..1000).collect());
        // That it matters: the bytes of the snapshot beside the log are another database.
        leave(&path);
        fs::write(&path, &bytes).unwrap();
        assert_ne!(ids(&path).as_ref(), Ok(&wanted));
        fs::remove_dir_all(temp.path().join("d")).unwrap();
        leave(&path);
        fs::write(temp.path().join("d/db-other"), "mine").unwrap();
        let options = overwriting(temp.path());

        let planned = plan(&repo, &manifest, &options);
        let report = run(&repo, &manifest, &options).unwrap();

        let mut removed = planned.remove.sample.clone();
        removed.sort();
        let logs: Vec<_> = logs.iter().map(|log| log.as_bytes()).collect();
        assert_eq!(removed, logs);
        assert_eq!(planned.kept.sample, [b"d/db-other"]);
        assert_eq!(report.failures.count, 0, "{:?}", report.failures);
        assert_eq!(names(&temp.path().join("d")), ["db", "db-other"]);
        assert!(fs::read(&path).unwrap() == bytes);
        assert_eq!(ids(&path).unwrap(), wanted);
    }
}

#[test]
fn without_leave_to_replace_a_log_is_in_the_way() {
    let repo = BenchRepo::new();
    let bytes = snapshot_bytes(100);
    let manifest = repo.snapshot(vec![dir(""), captured(&repo, "db", &bytes)]);
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("db");
    let options = RestoreOptions::new(temp.path());
    // Neither beside a file that is missing nor beside one that is as it should be.
    for is_there in [false, true] {
        fs::write(beside(&path, "-wal"), "log").unwrap();

        let planned = plan(&repo, &manifest, &options);
        let error = run(&repo, &manifest, &options).unwrap_err();

        assert_eq!(planned.conflicts.sample, [b"db-wal"], "{is_there}");
        assert_eq!((planned.conflicting_logs, planned.remove.count), (1, 0));
        assert_eq!(planned.kept.count, 0);
        assert!(error.to_string().contains("db-wal"), "{error}");
        assert!(error.to_string().contains("would be replayed"), "{error}");
        assert_eq!(fs::read(beside(&path, "-wal")).unwrap(), b"log");
        assert_eq!(path.exists(), is_there);
        fs::remove_file(beside(&path, "-wal")).unwrap();
        run(&repo, &manifest, &options).unwrap();
    }
}

#[test]
fn a_log_beside_a_database_that_is_as_it_should_be_is_removed_too() {
    let repo = BenchRepo::new();
    let bytes = snapshot_bytes(100);
    let manifest = repo.snapshot(vec![
        dir(""),
        captured(&repo, "db", &bytes),
        hard_link("other", "db"),
    ]);
    let temp = tempfile::tempdir().unwrap();
    let options = overwriting(temp.path());
    run(&repo, &manifest, &options).unwrap();
    for name in ["db-wal", "db-shm", "other-journal"] {
        fs::write(temp.path().join(name), "log").unwrap();
    }
    fs::create_dir(temp.path().join("other-wal")).unwrap();

    let planned = plan(&repo, &manifest, &options);
    let report = run(&repo, &manifest, &options).unwrap();

    assert_eq!((planned.remove.count, report.files), (3, 0));
    assert_eq!(names(temp.path()), ["db", "other", "other-wal"]);
    assert_eq!(plan(&repo, &manifest, &options).remove.count, 0);
}

#[test]
fn logs_that_are_entries_are_restored_with_their_database() {
    let repo = BenchRepo::new();
    let temp = tempfile::tempdir().unwrap();
    let bytes = snapshot_bytes(100);
    let plain = |wal: &str| {
        vec![
            dir(""),
            large("db", vec![Part::Bytes(bytes.clone())]),
            small("db-journal", "journal"),
            small("db-wal", wal),
        ]
    };
    let fallback = repo.snapshot(plain("wal"));
    let mut both = plain("another wal");
    both[1] = captured(&repo, "db", &bytes);
    let both = repo.snapshot(both);
    let mut options = overwriting(temp.path());
    fs::write(temp.path().join("db-wal"), "old").unwrap();
    fs::write(temp.path().join("db-shm"), "old").unwrap();

    run(&repo, &fallback, &options).unwrap();
    assert_eq!(names(temp.path()), ["db", "db-journal", "db-shm", "db-wal"]);
    assert_eq!(fs::read(temp.path().join("db-wal")).unwrap(), b"wal");

    let planned = plan(&repo, &both, &options);
    run(&repo, &both, &options).unwrap();
    assert_eq!(planned.remove.sample, [b"db-shm"]);
    assert_eq!(names(temp.path()), ["db", "db-journal", "db-wal"]);
    let wal = fs::read(temp.path().join("db-wal")).unwrap();
    assert_eq!(wal, b"another wal");

    // What is not asked for belongs to what was there before.
    options.only = vec!["/db".into()];
    run(&repo, &both, &options).unwrap();
    assert_eq!(names(temp.path()), ["db"]);
}

#[test]
fn a_database_that_cannot_be_restored_keeps_its_log() {
    let repo = BenchRepo::new();
    let bytes = snapshot_bytes(100);
    let manifest = repo.snapshot(vec![dir(""), captured(&repo, "db", &bytes)]);
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir_all(temp.path().join("db/full")).unwrap();
    fs::write(temp.path().join("db-wal"), "log").unwrap();
    let options = overwriting(temp.path());

    let planned = plan(&repo, &manifest, &options);
    let report = run(&repo, &manifest, &options).unwrap();

    assert_eq!((planned.remove.count, planned.conflicts.count), (0, 1));
    assert_eq!(report.failures.count, 1);
    assert_eq!(names(temp.path()), ["db", "db-wal"]);
    assert_eq!(fs::read(temp.path().join("db-wal")).unwrap(), b"log");
}

#[test]
fn logs_with_long_names_make_way() {
    let repo = BenchRepo::new();
    let bytes = snapshot_bytes(100);
    let name = "n".repeat(247);
    let manifest = repo.snapshot(vec![dir(""), captured(&repo, &name, &bytes)]);
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join(format!("{name}-journal")), "log").unwrap();

    run(&repo, &manifest, &overwriting(temp.path())).unwrap();

    assert_eq!(names(temp.path()), [name]);
}

/// A write-ahead log is part of a captured database, and the file alone keeps size and time while
/// commits go to the log: it only looks like the database that was captured.
#[test]
fn a_database_whose_commits_were_in_its_log_is_not_taken_for_restored() {
    let repo = BenchRepo::new();
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("db");
    leave_wal(&path);
    let file_alone = fs::read(&path).unwrap();
    let merged = temp.path().join("merged");
    copy(&path, &merged, &["", "-wal"]);
    let db = Connection::open(&merged).unwrap();
    db.execute_batch("vacuum").unwrap();
    drop(db);
    let mut bytes = fs::read(&merged).unwrap();
    fs::remove_file(&merged).unwrap();
    // What was captured has the length of the file here: SQLite keeps room for its rows.
    bytes.resize(bytes.len().max(file_alone.len()), 0);
    fs::write(
        &path,
        [&file_alone[..], &vec![0; bytes.len() - file_alone.len()]].concat(),
    )
    .unwrap();
    let manifest = repo.snapshot(vec![dir(""), captured(&repo, "db", &bytes)]);
    let options = overwriting(temp.path());
    let wanted = repo.entry(&captured(&repo, "db", &bytes)).modified;
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(wanted.seconds as u64);
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(at + std::time::Duration::from_nanos(wanted.nanoseconds.into()))
        .unwrap();

    let planned = plan(&repo, &manifest, &options);
    let report = run(&repo, &manifest, &options).unwrap();

    assert_eq!((planned.replace.count, report.files), (1, 1));
    assert_eq!(names(temp.path()), ["db"]);
    assert!(fs::read(&path).unwrap() == bytes);
}
