//! Databases in places and under names that invite a wrong backup, and what is said of them.

use crate::oracle;
use crate::oracle::Place;
use crate::oracle::names_in;
use crate::oracle::with_suffix;
use rusqlite::Connection;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const NOBODY: u32 = 65_534;
const AS_NOBODY: [&str; 4] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
];

/// Runs statements one by one, also those that return rows.
fn batch(conn: &Connection, statements: &[&str]) {
    for sql in statements {
        let mut statement = conn.prepare(sql).unwrap();
        let mut rows = statement.query([]).unwrap();
        while rows.next().unwrap().is_some() {}
    }
}

/// Opens a new database with a write-ahead log and a row in its file.
fn in_wal_mode(path: &Path) -> Connection {
    let conn = Connection::open(path).unwrap();
    batch(
        &conn,
        &[
            "PRAGMA journal_mode = wal",
            "PRAGMA wal_autocheckpoint = 0",
            "CREATE TABLE t (x)",
            "INSERT INTO t VALUES (1)",
            "PRAGMA wal_checkpoint(TRUNCATE)",
        ],
    );
    conn
}

fn rows_in(path: &Path) -> i64 {
    let conn = Connection::open(path).unwrap();
    conn.query_row("SELECT count(*) FROM t", [], |row| row.get(0))
        .unwrap()
}

fn run(place: &Place, args: &[&str], exit: i32) {
    let output = place.run(args);
    let said = oracle::stderr(&output);
    assert_eq!(output.status.code(), Some(exit), "{args:?}: {said}");
}

fn records(place: &Place) -> Vec<serde_json::Value> {
    let output = place.run(&["show", "latest", "--json"]);
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    shown["databases"].as_array().cloned().unwrap_or_default()
}

/// SQLite looks for the log beside the name that it opens.
#[test]
fn a_log_is_read_whatever_other_names_its_database_has() {
    for (live, linked) in [("b.db", "a.db"), ("a.db", "b.db")] {
        let place = Place::new();
        let conn = in_wal_mode(&place.app(live));
        fs::hard_link(place.app(live), place.app(linked)).unwrap();
        batch(
            &conn,
            &["INSERT INTO t VALUES (2)", "INSERT INTO t VALUES (3)"],
        );

        for rows in [3, 4] {
            run(&place, &["backup", "app"], 0);

            let target = place.restore("latest");
            assert_eq!(rows_in(&target.path().join(live)), rows, "{live}");
            assert!(target.path().join(linked).exists());
            let mut names = names_in(&place.path("app"));
            names.retain(|name| name.starts_with(linked));
            assert_eq!(names, [linked]);
            batch(&conn, &["INSERT INTO t VALUES (4)"]);
        }
    }
}

#[test]
fn names_with_a_log_each_are_all_captured_with_their_own() {
    let place = Place::new();
    let conn = in_wal_mode(&place.app("a.db"));
    fs::hard_link(place.app("a.db"), place.app("b.db")).unwrap();
    batch(&conn, &["INSERT INTO t VALUES (2)"]);
    fs::copy(place.app("a.db-wal"), place.app("b.db-wal")).unwrap();
    batch(&conn, &["INSERT INTO t VALUES (3)"]);

    run(&place, &["backup", "app"], 0);

    let target = place.restore("latest");
    assert_eq!(rows_in(&target.path().join("a.db")), 3);
    assert_eq!(rows_in(&target.path().join("b.db")), 2);
}

/// Who is neither the owner nor root would create a log that the owner cannot write.
#[test]
fn a_backup_by_another_user_locks_no_application_out() {
    let place = Place::new();
    let path = place.app("app.db");
    drop(in_wal_mode(&path));
    let chmod = |name: &str, mode| {
        fs::set_permissions(place.path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    let mut chown = Command::new("chown");
    let chown = chown.arg("-R").arg(NOBODY.to_string()).arg(place.path("."));
    let is_root = chown.output().is_ok_and(|output| output.status.success());
    let mut list = place.command_under(&AS_NOBODY, &["list"]);
    chmod(".", 0o755);
    if !is_root || !list.output().is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: it needs root, setpriv and a binary that others may run");
        return;
    }
    std::os::unix::fs::lchown(&path, Some(1000), Some(1000)).unwrap();
    chmod("app", 0o777);
    chmod("app/app.db", 0o644);

    let mut backup = place.command_under(&AS_NOBODY, &["backup", "app"]);
    let output = backup.output().unwrap();

    assert_eq!(output.status.code(), Some(0), "{}", oracle::stderr(&output));
    for suffix in ["-wal", "-shm"] {
        let owner = fs::metadata(with_suffix(&path, suffix)).map_or(1000, |stat| stat.uid());
        assert_eq!(owner, 1000, "{suffix}");
    }
    assert_eq!(rows_in(&place.restore("latest").path().join("app.db")), 1);
}

#[test]
fn a_database_that_is_left_out_is_neither_read_nor_recorded() {
    let place = Place::new();
    let kept = in_wal_mode(&place.app("kept.db"));
    let secret = in_wal_mode(&place.app("secret.db"));
    run(&place, &["backup", "app"], 0);
    for _ in 0..2 {
        let sql = "INSERT INTO t VALUES (randomblob(1000000))";
        batch(&secret, &[sql]);
        batch(&kept, &["INSERT INTO t VALUES (2)"]);
        let before = oracle_size(&place.path("repo"));

        // Its log is part of it, and no reason to warn.
        run(&place, &["backup", "app", "--exclude", "secret.db"], 0);

        let paths: Vec<_> = records(&place)
            .iter()
            .map(|one| one["path"].clone())
            .collect();
        assert_eq!(paths, ["kept.db"]);
        assert!(oracle_size(&place.path("repo")) < before + 100_000);
        let mut names = names_in(place.restore("latest").path());
        names.retain(|name| !name.ends_with("-shm"));
        assert_eq!(names, ["kept.db"]);
    }
}

fn oracle_size(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().flatten();
    let sizes = entries.map(|entry| match entry.path().is_dir() {
        true => oracle_size(&entry.path()),
        false => entry.metadata().map_or(0, |stat| stat.len()),
    });
    sizes.sum()
}

#[test]
fn what_is_recorded_of_a_database_comes_from_its_log_too() {
    let place = Place::new();
    let conn = in_wal_mode(&place.app("app.db"));
    batch(&conn, &["PRAGMA user_version = 77"]);

    run(&place, &["backup", "app"], 0);

    assert_eq!(records(&place)[0]["user_version"], 77);
}

#[test]
fn every_byte_is_kept_from_the_time_it_is_asked_for() {
    let place = Place::new();
    let conn = Connection::open(place.app("app.db")).unwrap();
    let statements = [
        "PRAGMA secure_delete = off",
        "CREATE TABLE t (x)",
        "CREATE TABLE gone (x)",
        "INSERT INTO gone VALUES (zeroblob(50000) || 'REMAINS')",
        "INSERT INTO gone VALUES (replace(hex(zeroblob(50000)), '00', 'REMAINS'))",
        "DROP TABLE gone",
    ];
    batch(&conn, &statements);
    drop(conn);
    // Before, what changed just now would be read anyway.
    std::thread::sleep(Duration::from_millis(2500));
    for _ in 0..2 {
        run(&place, &["backup", "app"], 0);
    }

    run(&place, &["backup", "app", "--exact"], 0);

    let restored = fs::read(place.restore("latest").path().join("app.db")).unwrap();
    assert!(restored == fs::read(place.app("app.db")).unwrap());
    assert!(restored.windows(7).any(|bytes| bytes == b"REMAINS"));
}

#[test]
fn damage_that_stays_is_said_again() {
    let place = Place::new();
    let path = place.app("app.db");
    let conn = Connection::open(&path).unwrap();
    let rows = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 999)
        INSERT INTO t SELECT hex(zeroblob(100)) || i FROM n";
    batch(&conn, &["CREATE TABLE t (x)", rows]);
    drop(conn);
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096 * 5..4096 * 6].fill(0x55);
    fs::write(&path, bytes).unwrap();
    std::thread::sleep(Duration::from_millis(2500));

    for _ in 0..3 {
        run(&place, &["backup", "app"], 3);
    }
}

/// The place for temporary files is not that of the repository.
#[test]
fn without_a_spool_a_database_is_read_all_the_same() {
    let place = Place::new();
    let conn = Connection::open(place.app("app.db")).unwrap();
    let sql = "INSERT INTO t VALUES (zeroblob(6000000))";
    batch(&conn, &["CREATE TABLE t (x)", sql]);
    drop(conn);
    let mut chown = Command::new("chown");
    let chown = chown.arg("-R").arg(NOBODY.to_string()).arg(place.path("."));
    let is_root = chown.output().is_ok_and(|output| output.status.success());
    fs::set_permissions(place.path("."), fs::Permissions::from_mode(0o755)).unwrap();
    let mut list = place.command_under(&AS_NOBODY, &["list"]);
    if !is_root || !list.output().is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: it needs root, setpriv and a binary that others may run");
        return;
    }
    for entry in fs::read_dir(place.path("cache")).unwrap().flatten() {
        std::os::unix::fs::lchown(entry.path(), Some(0), Some(0)).unwrap();
        fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o555)).unwrap();
    }

    let mut backup = place.command_under(&AS_NOBODY, &["backup", "app"]);
    let output = backup.output().unwrap();

    assert_eq!(output.status.code(), Some(0), "{}", oracle::stderr(&output));
    assert_eq!(rows_in(&place.restore("latest").path().join("app.db")), 1);
}
