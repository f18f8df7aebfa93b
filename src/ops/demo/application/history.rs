//! The readings and sessions of the sample application: a SQLite database with a write-ahead log.

use super::Dice;
use super::Link;
use super::Work;
use super::failed;
use super::link;
use crate::error::Result;
use rusqlite::Connection;
use rusqlite::params;
use std::path::Path;
use std::path::PathBuf;

/// The database below the application's directory.
pub(in crate::ops::demo) const FILE: &str = "data/history.db";

const SCHEMA: &str = "
    CREATE TABLE ledger (
        n INTEGER PRIMARY KEY, session INTEGER NOT NULL, device INTEGER NOT NULL,
        readings INTEGER NOT NULL, link BLOB NOT NULL);
    CREATE TABLE session (
        id INTEGER PRIMARY KEY, user TEXT NOT NULL, changes INTEGER NOT NULL, state TEXT NOT NULL);
    CREATE TABLE reading (
        id INTEGER PRIMARY KEY, n INTEGER NOT NULL, at INTEGER NOT NULL, device INTEGER NOT NULL,
        kind TEXT NOT NULL, value REAL NOT NULL, note TEXT NOT NULL);
    CREATE INDEX reading_of_device ON reading (device, at);";

const KINDS: [&str; 6] = [
    "temperature",
    "humidity",
    "power",
    "motion",
    "contact",
    "battery",
];
const NOTES: [&str; 5] = ["", "", "ok", "low signal, repeated", "calibrated"];
const PAGES: [&str; 4] = ["/dashboard", "/devices", "/rules/edit", "/history?range=7d"];
const USERS: [&str; 6] = ["ada", "grace", "edsger", "barbara", "donald", "leslie"];

/// What most sessions have alike.
const SETTINGS: &str = "\
    \"language\":\"en\",\"layout\":[[0,0,4,2],[4,0,4,2],[0,2,8,3]],\
    \"filters\":{\"rooms\":[\"kitchen\",\"hall\",\"attic\"],\"only_active\":true}";

/// Per MiB of the whole application.
const SESSIONS_PER_MIB: u64 = 800;
const READINGS_PER_MIB: u64 = 10_000;
/// Readings come from so many devices.
const SENSORS: u64 = 150;
/// 2026-11-20, and a reading every second since.
const EPOCH: u64 = 1_795_132_800;

/// The database of a running application.
pub(super) struct History {
    conn: Connection,
    path: PathBuf,
    sessions: u64,
    next_at: u64,
}

impl History {
    pub(super) fn create(dir: &Path, size_mib: u64, dice: &mut Dice) -> Result<History> {
        let path = dir.join(FILE);
        let parent = path.parent().unwrap_or(dir);
        std::fs::create_dir_all(parent).map_err(failed("create", parent))?;
        let conn = Connection::open(&path).map_err(failed("open", &path))?;
        let mut history = History {
            conn,
            path,
            sessions: SESSIONS_PER_MIB * size_mib,
            next_at: EPOCH,
        };
        let filled = history.fill(READINGS_PER_MIB * size_mib, dice);
        filled.map_err(failed("fill", &history.path))?;
        Ok(history)
    }

    pub(super) fn sessions(&self) -> u64 {
        self.sessions
    }

    fn fill(&mut self, readings: u64, dice: &mut Dice) -> rusqlite::Result<()> {
        // What applications commonly set: a log, and a sync when it is folded back.
        self.conn
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL")?;
        self.conn.execute_batch("BEGIN")?;
        self.conn.execute_batch(SCHEMA)?;
        for id in 0..self.sessions {
            let mut insert = self
                .conn
                .prepare_cached("INSERT INTO session VALUES (?1, ?2, 0, ?3)")?;
            insert.execute(params![id.cast_signed(), dice.of(&USERS), state(dice)])?;
        }
        for _ in 0..readings {
            self.add_reading(0, dice)?;
        }
        self.conn
            .execute_batch("COMMIT; PRAGMA wal_checkpoint(TRUNCATE)")
    }

    fn add_reading(&mut self, n: u64, dice: &mut Dice) -> rusqlite::Result<()> {
        self.next_at += 1 + dice.below(2);
        let (n, at) = (n.cast_signed(), self.next_at.cast_signed());
        let value = dice.below(100_000) as f64 / 100.0;
        let mut insert = self.conn.prepare_cached(
            "INSERT INTO reading (n, at, device, kind, value, note)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        let device = dice.below(SENSORS).cast_signed();
        let (kind, note) = (dice.of(&KINDS), dice.of(&NOTES));
        insert.execute(params![n, at, device, kind, value, note])?;
        Ok(())
    }

    /// Commits one number.
    pub(super) fn commit(&mut self, work: &Work, dice: &mut Dice) -> Result<()> {
        let committed = self.try_commit(work, dice);
        committed.map_err(failed("commit to", &self.path))
    }

    fn try_commit(&mut self, work: &Work, dice: &mut Dice) -> rusqlite::Result<()> {
        self.conn.execute_batch("BEGIN IMMEDIATE")?;
        for _ in 0..work.readings {
            self.add_reading(work.n, dice)?;
        }
        let sql = "UPDATE session SET changes = changes + 1, state = ?2 WHERE id = ?1";
        let mut update = self.conn.prepare_cached(sql)?;
        update.execute(params![work.session.cast_signed(), state(dice)])?;
        let sql = "INSERT INTO ledger VALUES (?1, ?2, ?3, ?4, ?5)";
        let mut insert = self.conn.prepare_cached(sql)?;
        let numbers = [work.n, work.session, work.device, work.readings];
        let [n, session, device, readings] = numbers.map(u64::cast_signed);
        insert.execute(params![n, session, device, readings, work.link])?;
        self.conn.execute_batch("COMMIT")
    }
}

fn state(dice: &mut Dice) -> String {
    let (page, token, since) = (dice.of(&PAGES), dice.next(), dice.below(1_000_000));
    let theme = dice.of(&["light", "dark"]);
    let who = format!(r#""page":"{page}","token":"{token:016x}","since":{since}"#);
    format!(r#"{{{who},"theme":"{theme}",{SETTINGS}}}"#)
}

/// Returns the ledger of a copy, or what is wrong with the copy.
pub(super) fn judge(dir: &Path) -> Result<Vec<Link>, String> {
    let path = dir.join(FILE);
    let judged = try_judge(&path).map_err(|error| error.to_string());
    judged
        .and_then(|judged| judged)
        .map_err(|fault| format!("{FILE}: {fault}"))
}

fn try_judge(path: &Path) -> rusqlite::Result<Result<Vec<Link>, String>> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE;
    let conn = Connection::open_with_flags(path, flags)?;
    let check = |row: &rusqlite::Row<'_>| row.get::<_, String>(0);
    let verdict: String = conn.query_row("PRAGMA integrity_check(1)", [], check)?;
    if verdict != "ok" {
        // A first line only names the database.
        let found = verdict.lines().last().unwrap_or(&verdict);
        return Ok(Err(format!("integrity_check: {found}")));
    }
    let mut select =
        conn.prepare("SELECT n, session, device, readings, link FROM ledger ORDER BY n")?;
    let mut rows = select.query([])?;
    let mut ledger: Vec<Link> = Vec::new();
    let mut readings: Vec<u64> = Vec::new();
    while let Some(row) = rows.next()? {
        let work = Work {
            n: number(row, 0)?,
            session: number(row, 1)?,
            device: number(row, 2)?,
            readings: number(row, 3)?,
            link: row.get(4)?,
        };
        let previous = ledger.last().copied().unwrap_or_default();
        if work.n != ledger.len() as u64 + 1 || work.link != link(&previous, &work) {
            return Ok(Err(format!("the ledger breaks at commit {}", work.n)));
        }
        ledger.push(work.link);
        readings.push(work.readings);
    }
    Ok(judge_rows(&conn, &readings)?.map(|()| ledger))
}

/// SQLite has signed numbers only; none of ours is negative.
fn number(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

/// Every commit must be there with all of its rows, and nothing without its commit.
fn judge_rows(conn: &Connection, readings: &[u64]) -> rusqlite::Result<Result<(), String>> {
    let mut counted = vec![0; readings.len()];
    let mut select = conn.prepare("SELECT n, count(*) FROM reading WHERE n > 0 GROUP BY n")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let (n, count) = (number(row, 0)?, number(row, 1)?);
        match counted.get_mut(n as usize - 1) {
            Some(counted) => *counted = count,
            None => {
                return Ok(Err(format!(
                    "a reading is of commit {n}, which is not there"
                )));
            }
        }
    }
    if counted != readings {
        return Ok(Err(
            "a commit is there without all of its readings".to_string()
        ));
    }
    let sql = "SELECT count(*) FROM session LEFT JOIN
                   (SELECT session, count(*) AS changes FROM ledger GROUP BY session) AS told
                   ON told.session = session.id
               WHERE session.changes != ifnull(told.changes, 0)";
    let differing = conn.query_row(sql, [], |row| number(row, 0))?;
    Ok(match differing {
        0 => Ok(()),
        many => Err(format!("{many} sessions are not as the ledger has them")),
    })
}
