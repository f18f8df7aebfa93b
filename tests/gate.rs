//! Databases that did not change are not read, and a change of any kind is noticed.

use crate::support;
use redb::Database;
use redb::ReadableDatabase;
use redb::ReadableTable;
use redb::TableDefinition;
use rusqlite::Connection;
use statekeep::format::tree::path_order;
use statekeep::repo::Repo;
use statekeep::store::MemoryStore;
use std::cmp::Ordering;
use std::fs;
use std::fs::File;
use std::fs::FileTimes;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

const NUMBERS: TableDefinition<u64, u64> = TableDefinition::new("numbers");

/// An application's directory and a repository with a cache.
struct Place {
    app: TempDir,
    _cache: TempDir,
    repo: Repo,
}

impl Place {
    fn new() -> Place {
        let cache = TempDir::new().unwrap();
        let repo = support::create(Arc::new(MemoryStore::new()), true, Some(cache.path()));
        Place {
            app: TempDir::new().unwrap(),
            _cache: cache,
            repo,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.app.path().join(name)
    }

    /// Backs up, checks that it is complete, and returns how much was read and what it holds.
    fn backup(&self) -> (u64, support::Model) {
        let report = support::backup(&self.repo, self.app.path()).unwrap();
        assert_eq!(report.warnings, []);
        let model = support::model_in(&self.repo, &report.snapshot.unwrap()).unwrap();
        assert!(
            !model
                .keys()
                .any(|path| path.ends_with(b"-wal") || path.ends_with(b"-shm"))
        );
        (report.manifest.figures.read_bytes, model)
    }
}

fn sqlite(path: &Path, journal: &str) -> Connection {
    let conn = Connection::open(path).unwrap();
    conn.execute_batch(&format!(
        "PRAGMA journal_mode = {journal};
         CREATE TABLE t(v INTEGER, filler BLOB);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50)
         INSERT INTO t SELECT i, randomblob(500) FROM n;"
    ))
    .unwrap();
    conn
}

fn sum(conn: &Connection) -> i64 {
    let sum = conn.query_row("SELECT total(v) + count(*) FROM t", [], |row| {
        row.get::<_, f64>(0)
    });
    sum.unwrap() as i64
}

/// Returns the sum in a database as a snapshot has it.
fn sum_in(model: &support::Model, name: &str) -> i64 {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("copy");
    fs::write(&path, &model[name.as_bytes()].2).unwrap();
    let conn = Connection::open(&path).unwrap();
    let verdict: String = conn
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(verdict, "ok");
    sum(&conn)
}

/// Puts the times of a file back to what they were, as archivers and careless tools do.
fn with_times_kept(path: &Path, change: impl FnOnce()) {
    let meta = fs::metadata(path).unwrap();
    let times = FileTimes::new()
        .set_modified(meta.modified().unwrap())
        .set_accessed(meta.accessed().unwrap());
    change();
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_times(times)
        .unwrap();
}

type Change = fn(&Path, &Connection);

const CHANGES: [(&str, Change); 8] = [
    ("a commit", |_, conn| {
        run(conn, "INSERT INTO t VALUES(1000, NULL)")
    }),
    ("an update in place", |_, conn| {
        run(conn, "UPDATE t SET v = v + 1 WHERE v = 7")
    }),
    ("VACUUM after deletes", |_, conn| {
        run(conn, "DELETE FROM t WHERE v < 30; VACUUM")
    }),
    ("another page size", |_, conn| {
        run(
            conn,
            "PRAGMA journal_mode = delete; PRAGMA page_size = 1024; VACUUM;
             UPDATE t SET v = v + 2",
        );
    }),
    ("another journal mode", |_, conn| {
        run(
            conn,
            "PRAGMA journal_mode = truncate; DELETE FROM t WHERE v = 9",
        );
    }),
    ("a checkpoint of old commits", |_, conn| {
        run(conn, "UPDATE t SET v = 5; PRAGMA wal_checkpoint(TRUNCATE)");
    }),
    ("a swapped file with the old times", |path, conn| {
        run(conn, "PRAGMA journal_mode = delete");
        let other = path.with_extension("new");
        fs::copy(path, &other).unwrap();
        run(&Connection::open(&other).unwrap(), "UPDATE t SET v = v + 3");
        with_times_kept(path, || fs::rename(&other, path).unwrap());
    }),
    ("an overwritten file with the old times", |path, conn| {
        run(conn, "PRAGMA journal_mode = delete");
        with_times_kept(path, || run(conn, "UPDATE t SET v = v + 4"));
    }),
];

fn run(conn: &Connection, sql: &str) {
    conn.execute_batch(sql).unwrap();
}

#[test]
fn a_sqlite_database_is_read_again_after_a_change_of_any_kind_and_only_then() {
    for journal in ["wal", "delete"] {
        for (name, change) in CHANGES {
            let place = Place::new();
            let path = place.path("app.db");
            let conn = sqlite(&path, journal);
            place.backup();
            let (read, before) = place.backup();
            assert_eq!(read, 0, "{journal}: nothing changed");

            change(&path, &conn);

            let (read, after) = place.backup();
            assert!(read > 0, "{journal}: {name}");
            let live = Connection::open(&path).unwrap();
            assert_eq!(sum_in(&after, "app.db"), sum(&live), "{journal}: {name}");
            assert_ne!(
                after[&b"app.db"[..]],
                before[&b"app.db"[..]],
                "{journal}: {name}"
            );
            drop(live);
            place.backup();
            assert_eq!(place.backup().0, 0, "{journal}: {name}, then nothing");
        }
    }
}

#[test]
fn a_redb_database_is_read_again_after_a_commit_and_only_then() {
    let place = Place::new();
    let database = Database::create(place.path("app.redb")).unwrap();
    let mut commits = 0..;
    let mut commit = || {
        let write = database.begin_write().unwrap();
        let n = commits.next().unwrap();
        write.open_table(NUMBERS).unwrap().insert(n, n * n).unwrap();
        write.commit().unwrap();
    };
    commit();
    place.backup();

    assert_eq!(place.backup().0, 0);
    commit();
    assert!(place.backup().0 > 0);
    assert_eq!(place.backup().0, 0);

    let rows = database.begin_read().unwrap();
    let rows = rows.open_table(NUMBERS).unwrap();
    assert_eq!(rows.iter().unwrap().count(), 2);
}

#[test]
fn a_database_that_became_another_kind_of_file_is_that_file() {
    let place = Place::new();
    let path = place.path("app.db");
    drop(sqlite(&path, "delete"));
    place.backup();

    fs::write(&path, "no database any more").unwrap();
    let (_, model) = place.backup();
    assert_eq!(model[&b"app.db"[..]].2, b"no database any more");

    // And back, with another one beside it that nobody told us of.
    fs::remove_file(&path).unwrap();
    drop(sqlite(&path, "wal"));
    drop(Database::create(place.path("new")).unwrap());
    let (_, model) = place.backup();
    assert_eq!(sum_in(&model, "app.db"), 50 * 51 / 2 + 50);
    assert_eq!(model.len(), 3);
    assert_eq!(path_order(b"app.db", b"new"), Ordering::Less);
}

#[test]
fn free_pages_are_zeroes_unless_every_byte_is_asked_for() {
    use statekeep::ops::backup;
    use statekeep::ops::backup::FreePages;
    let place = Place::new();
    let path = place.path("app.db");
    let conn = sqlite(&path, "delete");
    run(
        &conn,
        "CREATE TABLE gone(v); INSERT INTO gone SELECT 'secret-' || hex(filler) FROM t;",
    );
    run(&conn, "DROP TABLE gone");
    drop(conn);
    let has_secret = |bytes: &[u8]| bytes.windows(7).any(|window| window == b"secret-");
    let live = fs::read(&path).unwrap();
    assert!(has_secret(&live));

    let (_, model) = place.backup();
    assert!(!has_secret(&model[&b"app.db"[..]].2));
    assert_eq!(sum_in(&model, "app.db"), 50 * 51 / 2 + 50);

    let other = Place::new();
    let mut options = support::options(place.app.path());
    options.free_pages = FreePages::Exact;
    let report = backup::backup(&support::context(), &other.repo, &options).unwrap();
    let model = support::model_in(&other.repo, &report.snapshot.unwrap()).unwrap();
    assert_eq!(model[&b"app.db"[..]].2, live);
}
