//! HomeCore: a registry in redb with typed tables, a history in SQLite that keeps a window, and
//! rules in TOML that are edited while it runs.

use super::LEDGER;
use super::Running;
use super::judge_ledger;
use super::last;
use super::note;
use super::number;
use super::wal;
use super::write;
use crate::writers::link;
use redb::Database;
use redb::ReadableDatabase;
use redb::ReadableTable;
use redb::ReadableTableMetadata;
use redb::TableDefinition;
use rusqlite::Connection;
use rusqlite::params;
use std::path::Path;
use std::path::PathBuf;

/// Device → how often it was changed, and what it says.
const DEVICES: TableDefinition<'_, &str, (u64, &str)> = TableDefinition::new("devices");
/// Name → role and hash of the password.
const USERS: TableDefinition<'_, &str, (&str, &[u8])> = TableDefinition::new("users");
const SCENES: TableDefinition<'_, &str, &str> = TableDefinition::new("scenes");
const AREAS: TableDefinition<'_, u16, &str> = TableDefinition::new("areas");
/// Rule → its revision, and whether it is enabled.
const RULES: TableDefinition<'_, &str, (u64, bool)> = TableDefinition::new("rules");
const COMMITS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("commits");

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS attribute_history (
        id INTEGER PRIMARY KEY, n INTEGER, device TEXT, attribute TEXT, value REAL);
    CREATE INDEX IF NOT EXISTS history_n ON attribute_history (n);";

const DEVICE_COUNT: u64 = 300;
const ROWS_PER_COMMIT: u64 = 3;
/// Commits whose rows are kept.
const WINDOW: u64 = 200;
const COMMITS_PER_EDIT: u64 = 10;
const NAMES: [&str; 4] = ["away", "lights", "heating", "shutters"];

pub(crate) struct HomeCore {
    root: PathBuf,
    state: Database,
    history: Connection,
    n: u64,
}

impl HomeCore {
    pub(crate) fn open(root: &Path) -> HomeCore {
        let history = wal(&root.join("data/history.db"), SCHEMA);
        history.execute_batch(LEDGER).unwrap();
        let state = Database::create(root.join("data/state.redb")).unwrap();
        let mut app = HomeCore {
            root: root.to_path_buf(),
            n: last(&history),
            state,
            history,
        };
        if app.n == 0 {
            app.create().unwrap();
        }
        // Whoever was killed between the two has the second one behind.
        if app.state_last().unwrap() < app.n {
            app.commit_state(app.n).unwrap();
        }
        app
    }

    fn create(&mut self) -> Result<(), redb::Error> {
        write(&self.root.join("config/homecore.toml"), "port = 8080\n");
        write(&self.root.join("config/modes.toml"), "[modes.away]\n");
        let tx = self.state.begin_write()?;
        for device in 0..DEVICE_COUNT {
            let says = says(device, 0);
            tx.open_table(DEVICES)?
                .insert(&*name(device), (0, &*says))?;
        }
        tx.open_table(USERS)?.insert("admin", ("Admin", &[7][..]))?;
        tx.open_table(USERS)?
            .insert("backup", ("Admin", &[9][..]))?;
        tx.open_table(SCENES)?.insert("evening", "lights = 0.4")?;
        tx.open_table(AREAS)?.insert(1, "kitchen")?;
        for rule in NAMES {
            write(&rule_path(&self.root, rule), rule_text(rule, 0));
            tx.open_table(RULES)?.insert(rule, (0, true))?;
        }
        tx.open_table(COMMITS)?;
        tx.commit()?;
        Ok(())
    }

    fn state_last(&self) -> Result<u64, redb::Error> {
        let commits = self.state.begin_read()?.open_table(COMMITS)?;
        Ok(commits.last()?.map_or(0, |(n, _)| n.value()))
    }

    fn commit_history(&self, n: u64) {
        let db = &self.history;
        db.execute_batch("BEGIN IMMEDIATE").unwrap();
        let sql = "INSERT INTO attribute_history (n, device, attribute, value)
                   VALUES (?1, ?2, 'temperature', ?3)";
        for row in 0..ROWS_PER_COMMIT {
            let device = name((n * 7 + row) % DEVICE_COUNT);
            db.execute(sql, params![n as i64, device, (n % 400) as f64 / 10.0])
                .unwrap();
        }
        let sql = "DELETE FROM attribute_history WHERE n <= ?1";
        db.execute(sql, [n as i64 - WINDOW as i64]).unwrap();
        note(db, n);
        db.execute_batch("COMMIT").unwrap();
    }

    fn commit_state(&self, n: u64) -> Result<(), redb::Error> {
        let tx = self.state.begin_write()?;
        {
            let mut devices = tx.open_table(DEVICES)?;
            let name = name(n % DEVICE_COUNT);
            let changes = devices.get(&*name)?.map_or(0, |found| found.value().0) + 1;
            devices.insert(&*name, (changes, &*says(n % DEVICE_COUNT, changes)))?;
            if n.is_multiple_of(COMMITS_PER_EDIT) && !is_left_alone(&self.root) {
                let rule = NAMES[(n / COMMITS_PER_EDIT) as usize % NAMES.len()];
                write(&rule_path(&self.root, rule), rule_text(rule, n));
                tx.open_table(RULES)?.insert(rule, (n, true))?;
            }
            let mut commits = tx.open_table(COMMITS)?;
            let previous = commits.get(n - 1)?.map(|link| link.value().to_vec());
            let link = link(&previous.unwrap_or_default(), n, n);
            commits.insert(n, &*link)?;
        }
        tx.commit()?;
        Ok(())
    }
}

impl Running for HomeCore {
    fn commit(&mut self, attempt: &mut dyn FnMut(u64)) -> u64 {
        self.n += 1;
        attempt(self.n);
        self.commit_history(self.n);
        self.commit_state(self.n).unwrap();
        self.n
    }
}

fn name(device: u64) -> String {
    format!("zigbee.{device:04}")
}

fn says(device: u64, changes: u64) -> String {
    let (room, battery) = (device % 9, (device + changes) % 100);
    format!(r#"{{"room":{room},"battery":{battery},"seen":{changes},"model":"TH-200"}}"#)
}

/// Nobody edits rules while this file is there: a restore of one refuses to replace what changed
/// after it was saved, and here that is every few milliseconds.
pub(crate) const LEFT_ALONE: &str = "config/rules-are-final.toml";

fn is_left_alone(root: &Path) -> bool {
    root.join(LEFT_ALONE).exists()
}

fn rule_path(root: &Path, rule: &str) -> PathBuf {
    root.join(format!("rules/{rule}.toml"))
}

fn rule_text(rule: &str, revision: u64) -> String {
    format!("name = \"{rule}\"\nrevision = {revision}\n[trigger]\ndevice = \"zigbee.0001\"\n")
}

/// Returns the revision of a rule.
pub(crate) fn revision(root: &Path, rule: &str) -> i64 {
    let text = std::fs::read_to_string(rule_path(root, rule)).unwrap();
    let rule: toml::Table = text.parse().unwrap();
    rule["revision"].as_integer().unwrap()
}

/// Returns the newest commit in the history.
pub(crate) fn judge(root: &Path) -> u64 {
    let db = Connection::open(root.join("data/history.db")).unwrap();
    let n = judge_ledger(&db);
    let first = n.saturating_sub(WINDOW) + 1;
    let sql = "SELECT count(*) FROM attribute_history";
    let rows = number(&db, sql) as u64;
    assert_eq!(rows, (n + 1 - first) * ROWS_PER_COMMIT, "the window");
    let (state, changes) = judge_state(&root.join("data/state.redb")).unwrap();
    // It commits to the history first, and both are held at one instant.
    assert!(state == n || state + 1 == n, "{state} is not {n}");
    assert_eq!(changes, state);
    for rule in NAMES.into_iter().filter(|_| !is_left_alone(root)) {
        // Files are read after the databases.
        let revision = revision(root, rule) as u64;
        assert!(
            revision + COMMITS_PER_EDIT * NAMES.len() as u64 >= state,
            "{rule}: {revision}"
        );
    }
    n
}

/// Returns the newest commit of a registry, and how often devices were changed.
fn judge_state(path: &Path) -> Result<(u64, u64), redb::Error> {
    let mut db = Database::open(path)?;
    assert!(db.check_integrity().unwrap());
    let tx = db.begin_read()?;
    let (mut n, mut previous) = (0, Vec::new());
    for row in tx.open_table(COMMITS)?.iter()? {
        let (number, found) = row?;
        n += 1;
        assert_eq!(number.value(), n);
        previous = link(&previous, n, n);
        assert_eq!(found.value(), previous, "{n}");
    }
    let mut changes = 0;
    for row in tx.open_table(DEVICES)?.iter()? {
        changes += row?.1.value().0;
    }
    assert_eq!(tx.open_table(DEVICES)?.len()?, DEVICE_COUNT);
    assert_eq!(tx.open_table(USERS)?.len()?, 2);
    assert_eq!(tx.open_table(RULES)?.len()?, NAMES.len() as u64);
    Ok((n, changes))
}
