//! The application over SQLite. All state is in the database: writers may share it, and a killed
//! one goes on where it was.

use super::ACCOUNTS;
use super::Habit;
use super::Spec;
use super::link;
use super::weight;
use crate::support::Seeded;
use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::params;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

const SCHEMA: &str = "
    CREATE TABLE ledger (n INTEGER PRIMARY KEY, chain BLOB NOT NULL, digest INTEGER NOT NULL);
    CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
    CREATE TABLE item (id INTEGER PRIMARY KEY, tag TEXT NOT NULL, body BLOB NOT NULL);
    CREATE INDEX item_tag ON item (tag);
    CREATE TABLE note (
        id INTEGER PRIMARY KEY,
        item INTEGER NOT NULL REFERENCES item (id) ON DELETE CASCADE
    );
    CREATE INDEX note_item ON note (item);";

/// Longer than any test: one writer without a pause can keep another out for a minute.
const BUSY: Duration = Duration::from_secs(3600);
const PAGE_BYTES: [u32; 5] = [512, 1024, 4096, 16_384, 65_536];

pub(crate) struct SqliteApp {
    conn: Connection,
    spec: Spec,
    random: Seeded,
    /// The change of the sum over all rows that the open transaction makes.
    digest: u64,
}

/// Returns the database that commits together with this one.
pub(crate) fn twin_of(path: &Path) -> PathBuf {
    path.with_extension("twin")
}

impl SqliteApp {
    pub(crate) fn open(spec: &Spec) -> SqliteApp {
        let conn = Connection::open(&spec.path).unwrap();
        conn.busy_timeout(BUSY).unwrap();
        set(&conn, "page_size", &spec.page_bytes.to_string());
        if spec.has(Habit::Exclusive) {
            set(&conn, "locking_mode", "exclusive");
        }
        if spec.has(Habit::Attached) {
            let sql = "ATTACH ?1 AS twin";
            let path = twin_of(&spec.path);
            conn.execute(sql, [path.to_str().unwrap()]).unwrap();
        }
        set(&conn, "journal_mode", &spec.journal);
        // What a killed process wrote, the kernel has. But without syncs, SQLite keeps no journal
        // over several databases.
        let synchronous = match spec.has(Habit::Attached) {
            true => "normal",
            false => "off",
        };
        set(&conn, "synchronous", synchronous);
        set(&conn, "foreign_keys", "on");
        set(
            &conn,
            "wal_autocheckpoint",
            &spec.checkpoint_pages.to_string(),
        );
        let mut app = SqliteApp {
            conn,
            spec: spec.clone(),
            random: Seeded::new(spec.seed),
            digest: 0,
        };
        app.create();
        // A restarted writer must not repeat itself.
        app.random = Seeded::new(spec.seed ^ (app.last() << 20));
        app
    }

    fn create(&mut self) {
        let count = "SELECT count(*) FROM sqlite_schema WHERE name = 'ledger'";
        // A writer that is at work already might not let another one in.
        if self.number(count) > 0 {
            return;
        }
        self.run("BEGIN IMMEDIATE");
        if self.number(count) == 0 {
            self.conn.execute_batch(SCHEMA).unwrap();
            if self.spec.has(Habit::Attached) {
                self.run("CREATE TABLE twin.follower (n INTEGER PRIMARY KEY, body BLOB)");
            }
            if self.spec.has(Habit::Search) {
                self.run("CREATE VIRTUAL TABLE search USING fts5 (text)");
            }
            for id in 0..ACCOUNTS {
                let sql = "INSERT INTO account VALUES (?1, 1000)";
                self.conn.execute(sql, [id as i64]).unwrap();
                self.digest = self.digest.wrapping_add(account_weight(id as i64, 1000));
            }
            for id in (0..self.spec.rows as i64).step_by(2) {
                self.put_item(id);
            }
            self.append(0, &[]);
        }
        self.run("COMMIT");
    }

    fn run(&self, sql: &str) {
        self.conn.execute_batch(sql).unwrap();
    }

    fn number(&self, sql: &str) -> i64 {
        self.conn.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    pub(crate) fn last(&self) -> u64 {
        self.number("SELECT max(n) FROM ledger") as u64
    }

    fn append(&self, n: u64, previous: &[u8]) {
        let chain = link(previous, n, self.digest);
        let sql = "INSERT INTO ledger VALUES (?1, ?2, ?3)";
        let values = params![n as i64, chain, self.digest as i64];
        self.conn.execute(sql, values).unwrap();
    }

    /// Commits the next number and returns it.
    pub(crate) fn commit(&mut self, attempt: &mut dyn FnMut(u64)) -> u64 {
        self.habits();
        self.run("BEGIN IMMEDIATE");
        let sql = "SELECT n, chain, digest FROM ledger ORDER BY n DESC LIMIT 1";
        let last = self.conn.query_row(sql, [], |row| {
            Ok((
                row.get::<_, i64>(0)?,
                row.get::<_, Vec<u8>>(1)?,
                row.get(2)?,
            ))
        });
        let (n, chain, digest): (i64, Vec<u8>, i64) = last.unwrap();
        self.digest = digest as u64;
        self.work();
        let n = n as u64 + 1;
        self.append(n, &chain);
        if self.spec.has(Habit::Attached) {
            let sql = "INSERT INTO twin.follower VALUES (?1, randomblob(2000))";
            self.conn.execute(sql, [n as i64]).unwrap();
        }
        attempt(n);
        self.run("COMMIT");
        n
    }

    fn work(&mut self) {
        self.move_money();
        for _ in 0..=self.random.below(5) {
            let id = self.random.below(self.spec.rows) as i64;
            match self.random.below(3) {
                0 => self.remove_item(id),
                1 => self.put_item(id),
                _ => self.add_note(id),
            }
        }
        if self.spec.has(Habit::Search) && self.random.below(3) == 0 {
            self.change_search();
        }
        if self.spec.has(Habit::Schema) && self.random.below(25) == 0 {
            let name = format!("extra_{}", self.random.below(4));
            let sql = match self.random.below(2) {
                0 => format!("DROP TABLE IF EXISTS {name}"),
                _ => format!(
                    "CREATE TABLE IF NOT EXISTS {name} (a, b);
                     INSERT INTO {name} SELECT id, tag FROM item LIMIT 20;
                     CREATE INDEX IF NOT EXISTS {name}_b ON {name} (b, a)"
                ),
            };
            self.run(&sql);
        }
    }

    fn move_money(&mut self) {
        let from = self.random.below(ACCOUNTS) as i64;
        let to = (from + 1 + self.random.below(ACCOUNTS - 1) as i64) % ACCOUNTS as i64;
        let amount = self.random.below(30) as i64;
        for (id, change) in [(from, -amount), (to, amount)] {
            let sql = format!("SELECT balance FROM account WHERE id = {id}");
            let old = self.number(&sql);
            let sql = "UPDATE account SET balance = ?1 WHERE id = ?2";
            self.conn.execute(sql, [old + change, id]).unwrap();
            self.exchange(account_weight(id, old), account_weight(id, old + change));
        }
    }

    fn exchange(&mut self, old: u64, new: u64) {
        self.digest = self.digest.wrapping_sub(old).wrapping_add(new);
    }

    fn remove_item(&mut self, id: i64) {
        let sql = "SELECT tag, body FROM item WHERE id = ?1";
        let old: Option<(String, Vec<u8>)> = self
            .conn
            .query_row(sql, [id], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
            .unwrap();
        let Some((tag, body)) = old else {
            return;
        };
        let sql = format!("SELECT id FROM note WHERE item = {id}");
        let notes: Vec<i64> = self.column(&sql);
        for note in notes {
            self.exchange(note_weight(note, id), 0);
        }
        let sql = "DELETE FROM item WHERE id = ?1";
        self.conn.execute(sql, [id]).unwrap();
        self.exchange(item_weight(id, &tag, &body), 0);
    }

    fn column(&self, sql: &str) -> Vec<i64> {
        let mut statement = self.conn.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }

    fn put_item(&mut self, id: i64) {
        self.remove_item(id);
        let most = match self.random.below(40) {
            0 => 40_000,
            _ => 1600,
        };
        let len = self.random.below(most) as usize;
        let body = match self.random.below(2) {
            0 => self.random.bytes(len),
            _ => self.random.text(len),
        };
        let tag = format!("tag {}", self.random.below(100));
        let sql = "INSERT INTO item VALUES (?1, ?2, ?3)";
        self.conn.execute(sql, params![id, tag, body]).unwrap();
        self.exchange(0, item_weight(id, &tag, &body));
    }

    fn add_note(&mut self, item: i64) {
        let sql = "INSERT INTO note (item) SELECT id FROM item WHERE id = ?1";
        if self.conn.execute(sql, [item]).unwrap() == 1 {
            let id = self.conn.last_insert_rowid();
            self.exchange(0, note_weight(id, item));
        }
    }

    fn change_search(&mut self) {
        let id = self.random.below(200) as i64;
        let sql = "SELECT text FROM search WHERE rowid = ?1";
        let old: Option<String> = self
            .conn
            .query_row(sql, [id], |row| row.get(0))
            .optional()
            .unwrap();
        if let Some(old) = old {
            let sql = "DELETE FROM search WHERE rowid = ?1";
            self.conn.execute(sql, [id]).unwrap();
            return self.exchange(search_weight(id, &old), 0);
        }
        let text = String::from_utf8(self.random.text(300)).unwrap();
        let sql = "INSERT INTO search (rowid, text) VALUES (?1, ?2)";
        self.conn.execute(sql, params![id, text]).unwrap();
        self.exchange(0, search_weight(id, &text));
    }

    /// Does what is no commit. A reader may be in the way: then not this time.
    fn habits(&mut self) {
        self.conn.busy_timeout(Duration::from_millis(100)).unwrap();
        if self.spec.has(Habit::Checkpoints) && self.random.below(20) == 0 {
            let kinds = ["PASSIVE", "FULL", "RESTART", "TRUNCATE"];
            let kind = kinds[self.random.below(4) as usize];
            let sql = format!("PRAGMA wal_checkpoint({kind})");
            let _ = self.conn.query_row(&sql, [], |_| Ok(()));
        }
        if self.spec.has(Habit::Vacuum) && self.random.below(100) == 0 {
            let page_bytes = PAGE_BYTES[self.random.below(5) as usize];
            set(&self.conn, "page_size", &page_bytes.to_string());
            let _ = self.conn.execute_batch("VACUUM");
        }
        self.conn.busy_timeout(BUSY).unwrap();
    }

    /// Leaves a transaction open that has already written into the database file.
    pub(crate) fn spill(&mut self) {
        set(&self.conn, "cache_size", "10");
        set(&self.conn, "cache_spill", "on");
        self.run("BEGIN IMMEDIATE");
        self.run("UPDATE item SET body = randomblob(length(body)), tag = 'lost'");
        self.run("DELETE FROM ledger WHERE n % 3 = 1");
    }
}

fn set(conn: &Connection, name: &str, value: &str) {
    let sql = format!("PRAGMA {name} = {value}");
    let mut statement = conn.prepare(&sql).unwrap();
    let mut rows = statement.query([]).unwrap();
    while rows.next().unwrap().is_some() {}
}

fn account_weight(id: i64, balance: i64) -> u64 {
    weight("account", id as u64, &[&balance.to_le_bytes()])
}

fn item_weight(id: i64, tag: &str, body: &[u8]) -> u64 {
    weight("item", id as u64, &[tag.as_bytes(), body])
}

fn note_weight(id: i64, item: i64) -> u64 {
    weight("note", id as u64, &[&item.to_le_bytes()])
}

fn search_weight(id: i64, text: &str) -> u64 {
    weight("search", id as u64, &[text.as_bytes()])
}

/// Returns the sum over all rows, as the newest line of the ledger must have it.
pub(crate) fn digest_of(conn: &Connection) -> rusqlite::Result<u64> {
    let mut sum = 0u64;
    let mut add = |weight: u64| sum = sum.wrapping_add(weight);
    let mut statement = conn.prepare("SELECT id, balance FROM account")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        add(account_weight(row.get(0)?, row.get(1)?));
    }
    let mut statement = conn.prepare("SELECT id, tag, body FROM item")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (tag, body): (String, Vec<u8>) = (row.get(1)?, row.get(2)?);
        add(item_weight(row.get(0)?, &tag, &body));
    }
    let mut statement = conn.prepare("SELECT id, item FROM note")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        add(note_weight(row.get(0)?, row.get(1)?));
    }
    let count = "SELECT count(*) FROM sqlite_schema WHERE name = 'search'";
    if conn.query_row(count, [], |row| row.get::<_, i64>(0))? == 1 {
        let mut statement = conn.prepare("SELECT rowid, text FROM search")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let text: String = row.get(1)?;
            add(search_weight(row.get(0)?, &text));
        }
    }
    Ok(sum)
}
