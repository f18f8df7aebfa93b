//! What is told of two states of a SQLite database is what SQLite itself says of them, whatever
//! happened in between; and it costs about what changed.

use crate::support;
use crate::support::Seeded;
use crate::support::context;
use rusqlite::Connection;
use rusqlite::types::Value;
use statekeep::ops::backup::BackupReport;
use statekeep::ops::diff;
use statekeep::ops::diff::DatabaseDiff;
use statekeep::ops::diff::DiffOptions;
use statekeep::ops::diff::RowChange;
use statekeep::ops::diff::RowKey;
use statekeep::ops::diff::TableDiffs;
use statekeep::repo::Repo;
use statekeep::repo::chunks::Chunks;
use statekeep::store::MemoryStore;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

/// A database, and a repository in memory.
struct Place {
    dir: TempDir,
    repo: Repo,
}

impl Place {
    fn new() -> Place {
        let repo = support::create(Arc::new(MemoryStore::new()), true, None);
        let place = Place {
            dir: TempDir::new().unwrap(),
            repo,
        };
        std::fs::create_dir(place.dir.path().join("app")).unwrap();
        place
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("app/a.db")
    }

    fn backup(&self) -> BackupReport {
        support::backup(&self.repo, &self.dir.path().join("app")).unwrap()
    }

    /// Returns how the database differs, `None` if it does not.
    fn diff(&self, before: &BackupReport, after: &BackupReport) -> Option<DatabaseDiff> {
        let state = self.repo.read_state(&context()).unwrap();
        let chunks = Chunks::open(&self.repo, &state.packs).unwrap();
        let options = DiffOptions {
            rows_max: 5,
            temp_dir: self.dir.path().to_path_buf(),
            ..DiffOptions::default()
        };
        let mut found = None;
        let (before, after) = (&before.manifest, &after.manifest);
        diff::diff(&context(), &chunks, before, after, &options, &mut |one| {
            if one.path == b"a.db" {
                found.clone_from(&one.database);
            }
            Ok(())
        })
        .unwrap();
        found
    }

    fn tables(&self, before: &BackupReport, after: &BackupReport) -> TableDiffs {
        match self.diff(before, after) {
            Some(DatabaseDiff::Understood(tables)) => tables,
            other => panic!("{other:?}"),
        }
    }
}

/// The rows of a table by key, each as its values.
type Rows = BTreeMap<String, Vec<String>>;

/// What SQLite says of a database.
#[derive(Default)]
struct Truth {
    tables: BTreeMap<String, Rows>,
    schema: BTreeMap<(String, String), String>,
    user_version: i32,
}

fn text(value: &Value) -> String {
    format!("{value:?}")
}

fn truth(conn: &Connection) -> Truth {
    let mut truth = Truth {
        user_version: conn
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .unwrap(),
        ..Truth::default()
    };
    let sql = "SELECT type, name, coalesce(sql, '') FROM sqlite_schema";
    let mut statement = conn.prepare(sql).unwrap();
    let rows = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap();
    for row in rows {
        let (kind, name, sql): (String, String, String) = row.unwrap();
        if kind == "table" {
            truth
                .tables
                .insert(name.clone(), rows_of(conn, &name, &sql));
        }
        truth.schema.insert((kind, name), sql);
    }
    truth
}

fn rows_of(conn: &Connection, name: &str, sql: &str) -> Rows {
    // Tables without row numbers have two columns of key here.
    let (select, keys) = match sql.contains("WITHOUT ROWID") {
        true => (format!("SELECT * FROM \"{name}\""), 2),
        false => (format!("SELECT rowid, * FROM \"{name}\""), 1),
    };
    let mut statement = conn.prepare(&select).unwrap();
    let columns = statement.column_count();
    let mut rows = statement.query([]).unwrap();
    let mut found = Rows::new();
    while let Some(row) = rows.next().unwrap() {
        let values = (0..columns).map(|at| text(&row.get::<_, Value>(at).unwrap()));
        let mut values: Vec<String> = values.collect();
        // A column that was added later is NULL in rows that are older.
        while values.last().is_some_and(|value| value == "Null") {
            values.pop();
        }
        let key = values[..keys.min(values.len())].join("|");
        assert!(found.insert(key, values).is_none());
    }
    found
}

/// Says what is wrong with what was told.
fn check(told: &TableDiffs, before: &Truth, after: &Truth, what: &str) {
    assert_eq!(
        told.user_version,
        (before.user_version, after.user_version),
        "{what}"
    );
    let names: BTreeSet<_> = before.schema.keys().chain(after.schema.keys()).collect();
    let expected: Vec<_> = names
        .into_iter()
        .filter(|name| before.schema.get(name) != after.schema.get(name))
        .map(|name| {
            (
                name.clone(),
                before.schema.get(name).cloned(),
                after.schema.get(name).cloned(),
            )
        })
        .collect();
    let schema = told.schema.iter().cloned();
    let schema: Vec<_> = schema
        .map(|s| ((s.kind, s.name), s.before, s.after))
        .collect();
    assert_eq!(schema, expected, "{what}");
    let tables: BTreeSet<_> = before.tables.keys().chain(after.tables.keys()).collect();
    let nothing = Rows::new();
    for name in tables {
        let old = before.tables.get(name).unwrap_or(&nothing);
        let new = after.tables.get(name).unwrap_or(&nothing);
        let added = new.keys().filter(|key| !old.contains_key(*key)).count() as u64;
        let removed = old.keys().filter(|key| !new.contains_key(*key)).count() as u64;
        let is_other =
            |(key, row): &(&String, &Vec<String>)| new.get(*key).is_some_and(|n| n != *row);
        let changed = old.iter().filter(is_other).count() as u64;
        let rows = told.tables.iter().find(|table| table.name == *name);
        let rows = rows.map(|table| (table.rows.added, table.rows.removed, table.rows.changed));
        assert_eq!(
            rows.unwrap_or_default(),
            (added, removed, changed),
            "{what}, table {name}"
        );
    }
}

/// An application that does anything to its database.
struct Changer {
    random: Seeded,
    number: u64,
    done: Vec<String>,
}

impl Changer {
    fn run(&mut self, conn: &Connection, sql: &str) {
        conn.execute_batch(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        self.done.push(sql.to_string());
    }

    fn create(&mut self, conn: &Connection) {
        let page = [512, 1024, 4096][self.random.below(3) as usize];
        let vacuum = self.random.below(3);
        let journal = ["DELETE", "WAL"][self.random.below(2) as usize];
        self.run(
            conn,
            &format!("PRAGMA page_size = {page}; PRAGMA auto_vacuum = {vacuum}"),
        );
        self.run(conn, &format!("PRAGMA journal_mode = {journal}"));
        for number in 0..3 {
            self.table(conn, number);
        }
        for _ in 0..6 {
            self.rows(conn, 400);
        }
    }

    fn table(&mut self, conn: &Connection, number: u64) {
        let sql = match self.random.below(3) {
            0 => format!("CREATE TABLE IF NOT EXISTS t{number} (id INTEGER PRIMARY KEY, v, w)"),
            1 => format!("CREATE TABLE IF NOT EXISTS t{number} (id, v, w)"),
            _ => format!(
                "CREATE TABLE IF NOT EXISTS t{number} (id, v, w, PRIMARY KEY (id, v)) WITHOUT ROWID"
            ),
        };
        self.run(conn, &sql);
    }

    fn any_table(&mut self, conn: &Connection) -> Option<String> {
        let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE 't%'";
        let mut statement = conn.prepare(sql).unwrap();
        let names = statement
            .query_map([], |row| row.get::<_, String>(0))
            .unwrap();
        let names: Vec<String> = names.map(Result::unwrap).collect();
        let at = self.random.below(names.len() as u64) as usize;
        names.get(at).cloned()
    }

    fn rows(&mut self, conn: &Connection, most: u64) {
        let Some(table) = self.any_table(conn) else {
            return;
        };
        let count = 1 + self.random.below(most);
        let (from, len) = (self.number, [20, 200, 3000][self.random.below(3) as usize]);
        self.number += count;
        // Keys all over the place; values that are never the same again.
        let sql = format!(
            "INSERT OR IGNORE INTO {table} (id, v, w) WITH RECURSIVE n (i) AS (SELECT {from} UNION ALL
            SELECT i + 1 FROM n WHERE i < {from} + {count} - 1)
            SELECT i * 7919 % 100003, 'v' || i, hex(zeroblob(i * 31 % {len})) || i FROM n"
        );
        self.run(conn, &sql);
    }

    fn step(&mut self, conn: &Connection) {
        let table = self.any_table(conn);
        self.number += 1;
        let (number, some) = (self.number, 1 + self.random.below(40));
        match (self.random.below(16), table) {
            (0 | 1, _) => self.rows(conn, 30),
            (2 | 3, Some(table)) => {
                let sql =
                    format!("UPDATE {table} SET w = 'w' || id || {number} WHERE id % 37 = {some}");
                self.run(conn, &sql);
            }
            (4, Some(table)) => {
                self.run(conn, &format!("DELETE FROM {table} WHERE id % 23 = {some}"));
            }
            (5, Some(table)) => {
                // The same length, and only the end differs: the page of the row stays as it is.
                let end = format!("{number:08}");
                let sql = format!(
                    "UPDATE {table} SET w = substr(w, 1, length(w) - 8) || '{end}'
                    WHERE typeof(w) = 'text' AND length(w) > 400 AND id % 5 = {}",
                    some % 5
                );
                self.run(conn, &sql);
            }
            (6, Some(table)) if some < 10 => self.run(conn, &format!("DELETE FROM {table}")),
            (7, Some(table)) if some < 12 => self.run(conn, &format!("DROP TABLE {table}")),
            (8, _) => self.table(conn, number % 6),
            (9, Some(table)) => {
                self.run(conn, &format!("CREATE INDEX i{number} ON {table} (w, v)"));
            }
            (10, Some(table)) => self.run(
                conn,
                &format!(
                    "CREATE VIEW s{number} AS SELECT v FROM {table};
                    DROP VIEW s{number}; PRAGMA user_version = {some}"
                ),
            ),
            (11, Some(table)) => {
                self.run(conn, &format!("ALTER TABLE {table} ADD COLUMN c{number}"));
            }
            (12, _) => self.run(conn, "VACUUM"),
            (13, _) if some < 15 => {
                let page = [512, 1024, 2048, 8192][self.random.below(4) as usize];
                // The size of pages stays while there is a log.
                let sql =
                    format!("PRAGMA journal_mode = DELETE; PRAGMA page_size = {page}; VACUUM");
                self.run(conn, &sql);
            }
            (14, _) => self.run(conn, "PRAGMA incremental_vacuum(5)"),
            (15, Some(table)) => {
                let sql = format!(
                    "UPDATE {table} SET w = hex(zeroblob({number} * 13)) || id WHERE id % 97 < 3"
                );
                self.run(conn, &sql);
            }
            _ => {}
        }
    }
}

fn compare_with_sqlite(seed: u64) {
    let place = Place::new();
    let conn = Connection::open(place.path()).unwrap();
    let mut changer = Changer {
        random: Seeded::new(seed),
        number: 1,
        done: Vec::new(),
    };
    changer.create(&conn);
    let (mut before, mut old) = (truth(&conn), place.backup());
    for _ in 0..4 {
        changer.done.clear();
        for _ in 0..1 + changer.random.below(4) {
            changer.step(&conn);
        }
        let (after, new) = (truth(&conn), place.backup());
        let what = format!("seed {seed}, after {:#?}", changer.done);

        match place.diff(&old, &new) {
            Some(DatabaseDiff::Understood(told)) => check(&told, &before, &after, &what),
            Some(other) => panic!("{what}: {other:?}"),
            None => check(
                &TableDiffs {
                    user_version: (before.user_version, after.user_version),
                    ..TableDiffs::default()
                },
                &before,
                &after,
                &what,
            ),
        }
        // The other way round, what was added is removed.
        if let Some(DatabaseDiff::Understood(told)) = place.diff(&new, &old) {
            check(&told, &after, &before, &format!("{what}, backwards"));
        }
        (before, old) = (after, new);
    }
}

/// More with `STATEKEEP_DIFF_SEEDS=FIRST..END`.
#[test]
fn what_is_told_is_what_sqlite_says() {
    let range = std::env::var("STATEKEEP_DIFF_SEEDS").unwrap_or("0..10".into());
    let (first, end) = range.split_once("..").unwrap();
    for seed in first.parse::<u64>().unwrap()..end.parse().unwrap() {
        compare_with_sqlite(seed);
    }
}

/// Returns a place with a database of so many rows, and its backup.
fn filled(rows: u32) -> (Place, Connection, BackupReport) {
    let place = Place::new();
    let conn = Connection::open(place.path()).unwrap();
    let sql = format!(
        "PRAGMA journal_mode = WAL; CREATE TABLE kv (k INTEGER PRIMARY KEY, v);
        CREATE TABLE other (a, b); INSERT INTO other VALUES (1, 2);
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
        INSERT INTO kv SELECT i, hex(randomblob(100)) FROM n; PRAGMA wal_checkpoint"
    );
    conn.execute_batch(&sql).unwrap();
    let report = place.backup();
    (place, conn, report)
}

#[test]
fn a_few_rows_cost_a_few_chunks_whatever_the_size() {
    let cost = |rows| {
        let (place, conn, old) = filled(rows);
        conn.execute_batch("UPDATE kv SET v = 'x' WHERE k IN (17, 18, 5000)")
            .unwrap();
        let new = place.backup();
        let told = place.tables(&old, &new);
        assert_eq!(told.tables.len(), 1);
        assert_eq!(
            (told.tables[0].rows.changed, told.tables[0].rows.added),
            (3, 0)
        );
        (
            told.read_bytes,
            std::fs::metadata(place.path()).unwrap().len(),
        )
    };

    let (small_read, small_bytes) = cost(20_000);
    let (large_read, large_bytes) = cost(90_000);

    assert!(large_bytes > 3 * small_bytes && large_bytes > 16 << 20);
    // The chunks of two pages of rows, of the first page, and of the way to them, twice each.
    assert!(large_read <= 12 * 262_144, "{large_read} of {large_bytes}");
    assert!(
        large_read <= small_read + 2 * 262_144,
        "{small_read}, then {large_read}"
    );
}

/// One row on every page: everything that differs has to be read, and only once.
#[test]
fn rows_everywhere_are_read_once_from_each_side() {
    let (place, conn, old) = filled(60_000);
    conn.execute_batch("UPDATE kv SET v = 'x' || k WHERE k % 100 = 0; CREATE INDEX i ON other (a)")
        .unwrap();
    let new = place.backup();

    let told = place.tables(&old, &new);

    let bytes = std::fs::metadata(place.path()).unwrap().len();
    assert_eq!((told.tables.len(), told.tables[0].rows.changed), (1, 600));
    assert!(
        told.read_bytes <= 2 * bytes + (4 << 20),
        "{} of {bytes}",
        told.read_bytes
    );
}

#[test]
fn rows_are_named_by_their_numbers_and_keys() {
    let (place, conn, _) = filled(10);
    conn.execute_batch(
        "CREATE TABLE w (a, b, c, PRIMARY KEY (b, a)) WITHOUT ROWID;
        INSERT INTO w VALUES (1, 'x', 1), (2, 'y', 2)",
    )
    .unwrap();
    let old = place.backup();
    conn.execute_batch(
        "DELETE FROM kv WHERE k = 3; INSERT INTO kv VALUES (-4, 0); UPDATE kv SET v = 1 WHERE k = 9;
        UPDATE w SET c = 5 WHERE a = 2; INSERT INTO w VALUES (3, 'z', 0)",
    )
    .unwrap();
    let new = place.backup();

    let told = place.tables(&old, &new);

    let rows = |name: &str| {
        let table = told.tables.iter().find(|table| table.name == name);
        table.unwrap().rows.examples.clone()
    };
    let values = |text: &str| RowKey::Values(text.into());
    assert_eq!(
        rows("kv"),
        [
            (RowKey::Rowid(-4), RowChange::Added),
            (RowKey::Rowid(3), RowChange::Removed),
            (RowKey::Rowid(9), RowChange::Changed),
        ]
    );
    assert_eq!(
        rows("w"),
        [
            (values("y, 2"), RowChange::Changed),
            (values("z, 3"), RowChange::Added),
        ]
    );
}

#[test]
fn of_a_table_that_was_made_anew_with_another_key_everything_went_and_came() {
    let (place, conn, _) = filled(10);
    let sql = "CREATE TABLE a (k PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO a VALUES (1, 2);
        CREATE TABLE b (k, v, PRIMARY KEY (k, v)) WITHOUT ROWID; INSERT INTO b VALUES (1, 2), (1, 3)";
    conn.execute_batch(sql).unwrap();
    let old = place.backup();
    let sql =
        "DROP TABLE a; CREATE TABLE a (k INTEGER PRIMARY KEY, v); INSERT INTO a VALUES (1, 2);
        DROP TABLE b; CREATE TABLE b (k PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO b VALUES (1, 2)";
    conn.execute_batch(sql).unwrap();
    let new = place.backup();

    let told = place.tables(&old, &new);
    let back = place.tables(&new, &old);

    let counts = |told: &TableDiffs| {
        let counts = told.tables.iter();
        let counts = counts.map(|t| (t.name.clone(), t.rows.added, t.rows.removed, t.rows.changed));
        counts.collect::<Vec<_>>()
    };
    assert_eq!(
        counts(&told),
        [("a".into(), 1, 1, 0), ("b".into(), 1, 2, 0)]
    );
    assert_eq!(
        counts(&back),
        [("a".into(), 1, 1, 0), ("b".into(), 2, 1, 0)]
    );
}

/// The page of the row is the same on both sides; only where it goes on something changed.
#[test]
fn a_change_far_inside_a_long_value_is_found() {
    for vacuum in 0..3 {
        let place = Place::new();
        let conn = Connection::open(place.path()).unwrap();
        let sql = format!(
            "PRAGMA auto_vacuum = {vacuum}; CREATE TABLE t (id INTEGER PRIMARY KEY, v);
            INSERT INTO t VALUES (1, zeroblob(100000)), (2, zeroblob(100000)), (3, 'x')"
        );
        conn.execute_batch(&sql).unwrap();
        let old = place.backup();
        let sql = "UPDATE t SET v = CAST(zeroblob(70000) || x'01' || zeroblob(29999) AS BLOB) \
             WHERE id = 2";
        conn.execute_batch(sql).unwrap();
        let new = place.backup();

        let told = place.tables(&old, &new);

        let rows = &told.tables[0].rows;
        assert_eq!(
            rows.examples,
            [(RowKey::Rowid(2), RowChange::Changed)],
            "{vacuum}"
        );
    }
}

#[test]
fn a_damaged_database_is_said_to_be_and_ends_no_comparison() {
    let (place, conn, old) = filled(3000);
    drop(conn);
    let bytes = std::fs::read(place.path()).unwrap();
    let mut random = Seeded::new(11);
    for round in 0..25 {
        let mut other = bytes.clone();
        for _ in 0..1 + random.below(60) {
            // The header says what is a database at all.
            let at = 100 + random.below(other.len() as u64 - 100) as usize;
            other[at] = random.next() as u8;
        }
        // Links to other pages, most of them to the wrong ones.
        for _ in 0..random.below(20) {
            let at = random.below(other.len() as u64 / 4096) as usize * 4096;
            let at = (at + random.below(16) as usize).max(100);
            other[at] = random.below(40) as u8;
        }
        std::fs::write(place.path(), &other).unwrap();
        let new = place.backup();

        // It ends, and says something or nothing.
        let _ = place.diff(&old, &new);
        assert!(place.diff(&new, &new).is_none(), "round {round}");
    }
}

#[test]
fn what_is_no_database_inside_is_compared_as_a_file() {
    let (place, conn, old) = filled(1000);
    drop(conn);
    let mut bytes = std::fs::read(place.path()).unwrap();
    // The root of the schema.
    bytes[100] = 77;
    std::fs::write(place.path(), &bytes).unwrap();
    let new = place.backup();

    let told = place.diff(&old, &new);

    assert!(
        matches!(told, Some(DatabaseDiff::NotUnderstood(_)) | None),
        "{told:?}"
    );
}
