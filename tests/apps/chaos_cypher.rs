//! Chaos Cypher: one SQLite database for each knowledge base, with a full-text index and vectors,
//! beside uploads, models and logs; and a migration that is pending.

use super::LEDGER;
use super::Running;
use super::judge_ledger;
use super::last;
use super::note;
use super::number;
use super::wal;
use super::write;
use crate::support::Seeded;
use rusqlite::Connection;
use rusqlite::params;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

pub(crate) const BASES: [&str; 2] = ["default", "research"];
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS alembic_version (version_num TEXT PRIMARY KEY);
    CREATE TABLE IF NOT EXISTS nodes (id INTEGER PRIMARY KEY, label TEXT);
    CREATE TABLE IF NOT EXISTS edges (
        source INTEGER REFERENCES nodes (id), target INTEGER REFERENCES nodes (id));
    CREATE TABLE IF NOT EXISTS settings (key TEXT PRIMARY KEY, value TEXT);
    CREATE TABLE IF NOT EXISTS auth_tokens (hash BLOB PRIMARY KEY);
    CREATE TABLE IF NOT EXISTS chunks (id INTEGER PRIMARY KEY, text TEXT, embedding BLOB);
    CREATE VIRTUAL TABLE IF NOT EXISTS chunk_search
        USING fts5 (text, content = 'chunks', content_rowid = 'id');
    CREATE TRIGGER IF NOT EXISTS chunk_added AFTER INSERT ON chunks BEGIN
        INSERT INTO chunk_search (rowid, text) VALUES (new.id, new.text); END;
    CREATE TRIGGER IF NOT EXISTS chunk_gone AFTER DELETE ON chunks BEGIN
        INSERT INTO chunk_search (chunk_search, rowid, text)
        VALUES ('delete', old.id, old.text); END;";
/// Chunks that are kept.
const WINDOW: u64 = 60;
const EMBEDDING_BYTES: usize = 384 * 4;
const OLD: &str = "4f1c2a";
const NEW: &str = "9be07d";

pub(crate) struct ChaosCypher {
    bases: Vec<Connection>,
    n: u64,
}

/// Returns the path of the database of a knowledge base.
pub(crate) fn database(root: &Path, base: &str) -> PathBuf {
    root.join("databases").join(base).join("app.db")
}

impl ChaosCypher {
    pub(crate) fn open(root: &Path) -> ChaosCypher {
        let bases: Vec<Connection> = BASES
            .iter()
            .map(|base| wal(&database(root, base), SCHEMA))
            .collect();
        for (base, db) in BASES.iter().zip(&bases) {
            db.execute_batch(LEDGER).unwrap();
            if number(db, "SELECT count(*) FROM alembic_version") == 0 {
                let sql = format!(
                    "INSERT INTO alembic_version VALUES ('{OLD}');
                     INSERT INTO settings VALUES ('provider', 'ollama');
                     INSERT INTO auth_tokens VALUES (zeroblob(32));
                     INSERT INTO nodes VALUES (0, 'root'); PRAGMA user_version = 7"
                );
                db.execute_batch(&sql).unwrap();
                let upload = format!("databases/{base}/uploads/paper.pdf");
                write(&root.join(upload), "%PDF: re-upload me");
            }
        }
        write(&root.join("models/embed.gguf"), "weights");
        write(&root.join("logs/cortex.log"), "noise");
        write(&root.join("backups/README"), "not for backups");
        std::fs::create_dir_all(root.join("backups/default")).unwrap();
        let n = last(&bases[0]);
        // Whoever was killed between the two has the second one behind.
        if last(&bases[1]) < n {
            commit(&bases[1], n);
        }
        ChaosCypher { bases, n }
    }
}

impl Running for ChaosCypher {
    fn commit(&mut self, attempt: &mut dyn FnMut(u64)) -> u64 {
        self.n += 1;
        attempt(self.n);
        for db in &self.bases {
            commit(db, self.n);
        }
        self.n
    }
}

fn commit(db: &Connection, n: u64) {
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    let n = n as i64;
    let sql = "INSERT INTO nodes (id, label) VALUES (?1, 'concept ' || ?1)";
    db.execute(sql, [n]).unwrap();
    db.execute("INSERT INTO edges VALUES (?1 - 1, ?1)", [n])
        .unwrap();
    let embedding = Seeded::new(n as u64).bytes(EMBEDDING_BYTES);
    let sql = "INSERT INTO chunks VALUES (?1, 'the word' || ?1 || ' of chunk', ?2)";
    db.execute(sql, params![n, embedding]).unwrap();
    let sql = "DELETE FROM chunks WHERE id <= ?1";
    db.execute(sql, [n - WINDOW as i64]).unwrap();
    note(db, n as u64);
    db.execute_batch("COMMIT").unwrap();
}

/// The program `chaoscypher`: `upgrade` migrates, and with `broken` fails after the first base.
pub(crate) fn call(root: &Path, words: &str) {
    for base in BASES {
        let db = Connection::open(database(root, base)).unwrap();
        if revision(&db) == NEW {
            continue;
        }
        let sql = format!(
            "BEGIN; ALTER TABLE nodes ADD COLUMN confidence REAL DEFAULT 1.0;
             UPDATE alembic_version SET version_num = '{NEW}'; PRAGMA user_version = 8; COMMIT"
        );
        db.execute_batch(&sql).unwrap();
        assert!(!words.contains("broken"), "IntegrityError: {base}");
    }
}

fn revision(db: &Connection) -> String {
    let sql = "SELECT version_num FROM alembic_version";
    db.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// Returns whether each knowledge base has the new schema.
pub(crate) fn migrated(root: &Path) -> Vec<bool> {
    let is_new = |base: &&str| {
        let db = Connection::open(database(root, base)).unwrap();
        let sql = "SELECT count(*) FROM pragma_table_info('nodes') WHERE name = 'confidence'";
        let has_column = number(&db, sql) == 1;
        assert_eq!(has_column, revision(&db) == NEW, "half a migration");
        has_column
    };
    BASES.iter().map(is_new).collect()
}

/// Returns the newest commit in the first knowledge base.
pub(crate) fn judge(root: &Path) -> u64 {
    let newest: Vec<u64> = BASES
        .iter()
        .map(|base| judge_base(&database(root, base)))
        .collect();
    // It commits to the first one first, and all are held at one instant.
    assert!(
        newest[1] == newest[0] || newest[1] + 1 == newest[0],
        "{newest:?}"
    );
    for left_out in ["models/embed.gguf", "logs/cortex.log"] {
        assert!(!root.join(left_out).exists(), "{left_out}");
    }
    newest[0]
}

/// Returns the newest commit in a copy of one knowledge base.
pub(crate) fn judge_base(path: &Path) -> u64 {
    assert!(fs::metadata(path).unwrap().is_file());
    let db = Connection::open(path).unwrap();
    let n = judge_ledger(&db);
    let sql = "INSERT INTO chunk_search (chunk_search, rank) VALUES ('integrity-check', 1)";
    db.execute(sql, []).unwrap();
    assert_eq!(number(&db, "SELECT max(id) FROM nodes") as u64, n);
    let kept = number(&db, "SELECT count(*) FROM chunks") as u64;
    assert_eq!(kept, n.min(WINDOW));
    let sql = format!("SELECT count(*) FROM chunk_search WHERE chunk_search MATCH 'word{n}'");
    assert_eq!(number(&db, &sql), i64::from(n > 0));
    let sql = "SELECT embedding FROM chunks ORDER BY id DESC LIMIT 1";
    let found = db.query_row(sql, [], |row| row.get::<_, Vec<u8>>(0));
    assert_eq!(found.unwrap(), Seeded::new(n).bytes(EMBEDDING_BYTES));
    n
}
