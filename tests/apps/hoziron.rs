//! Hoziron: a tree of definitions, keys that nobody else may read, agents' memory, and an audit
//! trail whose events are chained and whose batches have Merkle roots.

use super::LEDGER;
use super::Running;
use super::judge_ledger;
use super::last;
use super::make_private;
use super::mode;
use super::note;
use super::number;
use super::wal;
use super::write;
use crate::oracle::is_sound;
use rusqlite::Connection;
use rusqlite::params;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

const AUDIT: &str = "
    CREATE TABLE IF NOT EXISTS events (
        seq INTEGER PRIMARY KEY, actor TEXT, action TEXT, detail TEXT, hash BLOB);
    CREATE TABLE IF NOT EXISTS roots (first INTEGER PRIMARY KEY, root BLOB);";
const KEYS: &str = "
    CREATE TABLE IF NOT EXISTS api_keys (
        id TEXT PRIMARY KEY, role TEXT, hash BLOB, uses INTEGER);";
const MEMORY: &str = "
    CREATE TABLE IF NOT EXISTS kv (
        agent TEXT, key TEXT, value TEXT, PRIMARY KEY (agent, key));
    CREATE TABLE IF NOT EXISTS sessions (id INTEGER PRIMARY KEY, agent TEXT, turn TEXT);";
const AGENTS: [&str; 3] = ["researcher", "writer", "critic"];
/// Events with one root.
const BATCH: u64 = 8;
const TREE: [(&str, &str); 8] = [
    ("config.toml", CONFIG),
    (".env", "ANTHROPIC_API_KEY=sk-secret\n"),
    ("data/memory/notes.md", "# Notes\n"),
    ("data/workflows/daily.toml", "[[step]]\nagent = 'writer'\n"),
    ("data/schedules/nightly.toml", "cron = '0 3 * * *'\n"),
    ("data/competencies/search/manifest.toml", "version = '1'\n"),
    ("data/skills/summarise/SKILL.md", "Summarise.\n"),
    ("data/integrations/github.toml", "server = 'mcp-github'\n"),
];
const CONFIG: &str = "[server]\nport = 4200\n[backup]\nschedule = \"0 2 * * *\"\nretention = 7\n";

pub(crate) struct Hoziron {
    root: PathBuf,
    audit: Connection,
    keys: Connection,
    memory: Connection,
    n: u64,
}

impl Hoziron {
    pub(crate) fn open(root: &Path) -> Hoziron {
        let memory = wal(&root.join("data/hoziron.db"), MEMORY);
        memory.execute_batch(LEDGER).unwrap();
        let keys = wal(&root.join("keys.db"), KEYS);
        make_private(&root.join("keys.db"));
        let app = Hoziron {
            root: root.to_path_buf(),
            audit: wal(&root.join("audit.db"), AUDIT),
            n: last(&memory),
            keys,
            memory,
        };
        if app.n == 0 {
            app.create();
        }
        if last_event(&app.audit) < app.n {
            app.commit_event(app.n);
        }
        app
    }

    fn create(&self) {
        for (path, text) in TREE {
            write(&self.root.join(path), text);
        }
        make_private(&self.root.join(".env"));
        for agent in AGENTS {
            let dir = self.root.join("data/agents").join(agent);
            write(&dir.join("agent.toml"), format!("name = '{agent}'\n"));
            write(&dir.join("state.json"), state_text(0));
        }
        let sql = "INSERT INTO api_keys VALUES ('admin', 'admin', zeroblob(32), 0)";
        self.keys.execute_batch(sql).unwrap();
        write(&self.root.join("backups/older.tar.gz"), "not for backups");
    }

    fn commit_memory(&self, n: u64) {
        let db = &self.memory;
        let agent = AGENTS[n as usize % AGENTS.len()];
        db.execute_batch("BEGIN IMMEDIATE").unwrap();
        let sql = "INSERT OR REPLACE INTO kv VALUES (?1, ?2, ?3)";
        let (key, value) = (format!("fact.{}", n % 50), format!("as of {n}"));
        db.execute(sql, params![agent, key, value]).unwrap();
        let sql = "INSERT INTO sessions VALUES (?1, ?2, hex(randomblob(150)))";
        db.execute(sql, params![n as i64, agent]).unwrap();
        note(db, n);
        db.execute_batch("COMMIT").unwrap();
        let state = format!("data/agents/{agent}/state.json");
        write(&self.root.join(state), state_text(n));
    }

    fn commit_event(&self, n: u64) {
        let db = &self.audit;
        db.execute_batch("BEGIN IMMEDIATE").unwrap();
        let sql = "SELECT hash FROM events WHERE seq = ?1";
        let hash_of = |seq: u64| -> Vec<u8> {
            let found = db.query_row(sql, [seq as i64], |row| row.get(0));
            found.unwrap_or_default()
        };
        let (actor, action) = (AGENTS[n as usize % AGENTS.len()], "memory.write");
        let detail = format!("commit {n}");
        let hash = event_hash(&hash_of(n - 1), n, actor, action, &detail);
        let sql_insert = "INSERT INTO events VALUES (?1, ?2, ?3, ?4, ?5)";
        let values = params![n as i64, actor, action, detail, hash];
        db.execute(sql_insert, values).unwrap();
        if n.is_multiple_of(BATCH) {
            let first = n + 1 - BATCH;
            let leaves = (first..=n).map(hash_of).collect();
            let sql = "INSERT INTO roots VALUES (?1, ?2)";
            db.execute(sql, params![first as i64, merkle(leaves)])
                .unwrap();
        }
        db.execute_batch("COMMIT").unwrap();
    }
}

impl Running for Hoziron {
    fn commit(&mut self, attempt: &mut dyn FnMut(u64)) -> u64 {
        self.n += 1;
        attempt(self.n);
        self.commit_memory(self.n);
        self.commit_event(self.n);
        let sql = "UPDATE api_keys SET uses = ?1";
        self.keys.execute(sql, [self.n as i64]).unwrap();
        self.n
    }
}

fn state_text(n: u64) -> String {
    format!(r#"{{"lifecycle":"running","commit":{n}}}"#)
}

fn last_event(db: &Connection) -> u64 {
    number(db, "SELECT ifnull(max(seq), 0) FROM events") as u64
}

fn event_hash(previous: &[u8], seq: u64, actor: &str, action: &str, detail: &str) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(previous).update(&seq.to_le_bytes());
    for text in [actor, action, detail] {
        hasher.update(text.as_bytes()).update(&[0]);
    }
    hasher.finalize().as_bytes().to_vec()
}

fn merkle(mut row: Vec<Vec<u8>>) -> Vec<u8> {
    while row.len() > 1 {
        let pairs = row.chunks(2).map(|pair| pair.concat());
        row = pairs
            .map(|pair| blake3::hash(&pair).as_bytes().to_vec())
            .collect();
    }
    row.remove(0)
}

/// Returns the newest commit in the memory of a full copy.
pub(crate) fn judge(root: &Path) -> u64 {
    let n = judge_agents(root);
    let audited = judge_audit(&root.join("audit.db"));
    // It commits to the memory first, and both are held at one instant.
    assert!(audited == n || audited + 1 == n, "{audited} is not {n}");
    let keys = Connection::open(root.join("keys.db")).unwrap();
    is_sound(&keys).unwrap();
    let uses = number(&keys, "SELECT uses FROM api_keys") as u64;
    assert!(uses == audited || uses + 1 == audited, "{uses} uses");
    for (path, text) in TREE {
        assert_eq!(fs::read_to_string(root.join(path)).unwrap(), text);
    }
    assert_eq!(mode(&root.join(".env")), 0o600);
    assert_eq!(mode(&root.join("keys.db")), 0o600);
    n
}

/// Returns the newest commit in the memory of a copy of the agents alone.
pub(crate) fn judge_agents(root: &Path) -> u64 {
    let db = Connection::open(root.join("data/hoziron.db")).unwrap();
    let n = judge_ledger(&db);
    assert_eq!(number(&db, "SELECT count(*) FROM sessions") as u64, n);
    for agent in AGENTS {
        let dir = root.join("data/agents").join(agent);
        let state = fs::read_to_string(dir.join("state.json")).unwrap();
        let state: serde_json::Value = serde_json::from_str(&state).unwrap();
        // Files are read after the databases.
        let commit = state["commit"].as_u64().unwrap();
        assert!(
            commit + AGENTS.len() as u64 >= n,
            "{agent}: {commit} of {n}"
        );
        assert!(dir.join("agent.toml").exists());
    }
    n
}

fn judge_audit(path: &Path) -> u64 {
    let db = Connection::open(path).unwrap();
    is_sound(&db).unwrap();
    let mut statement = db.prepare("SELECT * FROM events ORDER BY seq").unwrap();
    let mut rows = statement.query([]).unwrap();
    let mut hashes: Vec<Vec<u8>> = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        let text = |column: usize| row.get::<_, String>(column).unwrap();
        let previous = hashes.last().cloned().unwrap_or_default();
        let seq = hashes.len() as u64 + 1;
        assert_eq!(row.get::<_, i64>(0).unwrap() as u64, seq);
        let hash = event_hash(&previous, seq, &text(1), &text(2), &text(3));
        assert_eq!(row.get::<_, Vec<u8>>(4).unwrap(), hash, "event {seq}");
        hashes.push(hash);
    }
    for batch in hashes.chunks_exact(BATCH as usize).enumerate() {
        let first = batch.0 as u64 * BATCH + 1;
        let sql = "SELECT root FROM roots WHERE first = ?1";
        let root: Vec<u8> = db.query_row(sql, [first as i64], |row| row.get(0)).unwrap();
        assert_eq!(root, merkle(batch.1.to_vec()), "batch {first}");
    }
    hashes.len() as u64
}
