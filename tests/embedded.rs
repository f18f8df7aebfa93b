//! An application that embeds this library and backs itself up: databases that are open in the
//! very process that captures them.

use crate::support;
use redb::ReadableDatabase;
use redb::ReadableTable;
use redb::TableDefinition;
use rusqlite::Connection;
use statekeep::format::database::Engine;
use statekeep::format::database::Method;
use statekeep::ops::backup;
use statekeep::ops::backup::BackupOptions;
use statekeep::ops::backup::Holder;
use statekeep::store::MemoryStore;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

const ROWS: TableDefinition<u64, u64> = TableDefinition::new("rows");
const KEYS: u64 = 20_000;
const BACKUPS: u64 = 50;

/// Sets the process in a test to run as the other one, see `second_process`.
const PATH: &str = "STATEKEEP_EMBEDDED_PATH";

/// Commits without a pause; each commit keeps the sum of all rows at zero and is then counted.
fn write_on(database: &redb::Database, acknowledged: &AtomicU64, stop: &AtomicBool) {
    let mut random = support::Seeded::new(11);
    while !stop.load(Ordering::Relaxed) {
        let transaction = database.begin_write().unwrap();
        let mut rows = transaction.open_table(ROWS).unwrap();
        let seq = rows.get(0).unwrap().map_or(0, |row| row.value()) + 1;
        for _ in 0..10 {
            let (more, less) = (1 + random.below(KEYS - 1), 1 + random.below(KEYS - 1));
            let amount = random.below(1 << 20);
            for (key, change) in [(more, amount), (less, amount.wrapping_neg())] {
                let old = rows.get(key).unwrap().map_or(0, |row| row.value());
                rows.insert(key, old.wrapping_add(change)).unwrap();
            }
        }
        rows.insert(0, seq).unwrap();
        drop(rows);
        transaction.commit().unwrap();
        acknowledged.store(seq, Ordering::Release);
    }
}

/// Returns the number of the last commit, if the image is one of a commit.
fn judge(path: &Path) -> u64 {
    let mut database = redb::Database::open(path).unwrap();
    assert!(database.check_integrity().unwrap());
    let read = database.begin_read().unwrap();
    let rows = read.open_table(ROWS).unwrap();
    let seq = rows.get(0).unwrap().unwrap().value();
    let sum = rows
        .range(1..)
        .unwrap()
        .fold(0_u64, |sum, row| sum.wrapping_add(row.unwrap().1.value()));
    assert_eq!(sum, 0, "commit {seq}");
    seq
}

#[test]
fn a_redb_handle_lends_its_pages_to_a_backup_beside_a_writer_without_pause() {
    let dir = tempfile::tempdir().unwrap();
    let app = dir.path().join("app");
    std::fs::create_dir(&app).unwrap();
    let path = app.join("state.redb");
    let database = Arc::new(redb::Database::create(&path).unwrap());
    let holder: Holder = database.clone();
    let options = BackupOptions {
        holders: vec![(path, holder)],
        ..support::options(&app)
    };
    let repo = support::create(Arc::new(MemoryStore::default()), true, Some(dir.path()));
    let (acknowledged, stop) = (AtomicU64::new(0), AtomicBool::new(false));

    std::thread::scope(|scope| {
        scope.spawn(|| write_on(&database, &acknowledged, &stop));
        while acknowledged.load(Ordering::Acquire) < 20 {
            std::thread::yield_now();
        }
        for number in 0..BACKUPS {
            let floor = acknowledged.load(Ordering::Acquire);
            let report = backup::backup(&support::context(), &repo, &options).unwrap();
            let ceiling = acknowledged.load(Ordering::Acquire) + 1;

            assert!(report.warnings.is_empty(), "{:?}", report.warnings);
            assert_eq!(report.databases[0].engine, Engine::Redb);
            assert_eq!(report.databases[0].method, Method::Walk);
            let target = dir.path().join(format!("restored-{number}"));
            support::restore(&repo, &report, &target);
            let seq = judge(&target.join("state.redb"));
            std::fs::remove_dir_all(&target).unwrap();
            assert!((floor..=ceiling).contains(&seq), "{floor} {seq} {ceiling}");
        }
        stop.store(true, Ordering::Relaxed);
    });

    // The lock of the handle survived all that.
    assert!(redb::Database::open(app.join("state.redb")).is_err());
}

#[test]
fn a_redb_database_of_our_own_process_is_known_without_its_handle() {
    let dir = tempfile::tempdir().unwrap();
    let app = dir.path().join("app");
    std::fs::create_dir(&app).unwrap();
    let database = redb::Database::create(app.join("state.redb")).unwrap();
    let stop = AtomicBool::new(true);
    write_on(&database, &AtomicU64::new(0), &stop);
    let repo = support::create(Arc::new(MemoryStore::default()), true, None);

    let report = support::backup(&repo, &app).unwrap();

    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    assert_eq!(report.databases[0].engine, Engine::Redb);
}

/// Not a test: what another process tries while the application holds a write transaction.
#[test]
#[ignore = "runs in a process of its own"]
fn second_process() {
    let Ok(path) = std::env::var(PATH) else {
        return;
    };
    let conn = Connection::open(path).unwrap();
    conn.busy_timeout(Duration::from_millis(50)).unwrap();
    let begun = conn.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (9); COMMIT");
    assert!(begun.is_err(), "the application holds a lock");
}

fn others_are_kept_out(path: &Path) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "embedded::second_process", "--include-ignored"])
        .env(PATH, path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}

#[test]
fn locks_of_our_own_sqlite_connections_survive_a_backup() {
    for mode in ["WAL", "DELETE"] {
        let dir = tempfile::tempdir().unwrap();
        let app = dir.path().join("app");
        std::fs::create_dir(&app).unwrap();
        let path = app.join("app.db");
        let conn = Connection::open(&path).unwrap();
        conn.pragma_update(None, "journal_mode", mode).unwrap();
        let sql = "CREATE TABLE t (x); INSERT INTO t VALUES (1); \
                   BEGIN IMMEDIATE; INSERT INTO t VALUES (2)";
        conn.execute_batch(sql).unwrap();
        let cache = dir.path().join("cache");
        std::fs::create_dir(&cache).unwrap();
        let repo = support::create(Arc::new(MemoryStore::default()), true, Some(&cache));
        others_are_kept_out(&path);

        for _ in 0..2 {
            let report = support::backup(&repo, &app).unwrap();

            assert!(report.warnings.is_empty(), "{mode} {:?}", report.warnings);
            assert_eq!(report.databases[0].method, Method::Transaction, "{mode}");
            others_are_kept_out(&path);
        }
        conn.execute_batch("COMMIT").unwrap();
        let count: i64 = conn
            .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
            .unwrap();
        assert_eq!(count, 2);
        let report = support::backup(&repo, &app).unwrap();
        let target = dir.path().join("restored");
        support::restore(&repo, &report, &target);
        let count: i64 = Connection::open(target.join("app.db"))
            .unwrap()
            .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
            .unwrap();
        assert_eq!(count, 2, "{mode}");
    }
}
