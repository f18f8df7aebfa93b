//! Imitations of the three applications whose documents statekeep answers, and a machine to run
//! them on.
//!
//! Each application keeps what its document says, commits numbers without a pause worth the name,
//! and says so, in a process of its own. It keeps ledgers whose links are hashes of all before, so
//! what comes back is judged by what it says of itself.

pub(crate) mod chaos_cypher;
pub(crate) mod homecore;
pub(crate) mod hoziron;
mod machine;

pub(crate) use machine::Machine;
pub(crate) use machine::ends;
pub(crate) use machine::read;
pub(crate) use machine::text;

use crate::apps::chaos_cypher::ChaosCypher;
use crate::apps::homecore::HomeCore;
use crate::apps::hoziron::Hoziron;
use crate::oracle::is_sound;
use crate::writers::VARIABLE;
use crate::writers::link;
use crate::writers::say;
use crate::writers::watch_input;
use rusqlite::Connection;
use rusqlite::params;
use serde::Deserialize;
use serde::Serialize;
use std::fs;
use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum App {
    HomeCore,
    Hoziron,
    ChaosCypher,
}

/// What a process of this binary does.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Role {
    /// Is the application.
    Serve(App, PathBuf),
    /// Is its program, called with these words.
    Call(App, PathBuf, String),
}

/// An application that can commit the next number.
trait Running {
    /// Returns the number it committed, after `attempt` was told of it.
    fn commit(&mut self, attempt: &mut dyn FnMut(u64)) -> u64;
}

fn open(app: App, root: &Path) -> Box<dyn Running> {
    match app {
        App::HomeCore => Box::new(HomeCore::open(root)),
        App::Hoziron => Box::new(Hoziron::open(root)),
        App::ChaosCypher => Box::new(ChaosCypher::open(root)),
    }
}

/// Makes an application that has made so many commits, and does not run.
pub(crate) fn make(app: App, root: &Path, commits: u64) {
    let mut running = open(app, root);
    for _ in 0..commits {
        running.commit(&mut |_| ());
    }
}

/// Returns the newest commit that a copy of an application holds, of at most so many that were
/// begun. What it lacks or has too much fails the test.
pub(crate) fn judge(app: App, root: &Path, commits: RangeInclusive<u64>) -> u64 {
    let newest = match app {
        App::HomeCore => homecore::judge(root),
        App::Hoziron => hoziron::judge(root),
        App::ChaosCypher => chaos_cypher::judge(root),
    };
    assert!(commits.contains(&newest), "{newest} is not in {commits:?}");
    newest
}

#[test]
#[ignore = "a process that other tests start"]
fn child() {
    let Ok(role) = std::env::var(VARIABLE) else {
        return;
    };
    let (app, root) = match serde_json::from_str(&role).unwrap() {
        Role::Serve(app, root) => (app, root),
        Role::Call(App::ChaosCypher, root, words) => return chaos_cypher::call(&root, &words),
        Role::Call(app, _, words) => panic!("{app:?} has no command {words:?}"),
    };
    let ended = watch_input();
    let mut running = open(app, &root);
    // A newline first: the harness has begun the line.
    say("\nready");
    while !ended.load(Ordering::Relaxed) {
        let began = Instant::now();
        let n = running.commit(&mut |n| say(&format!("try {n}")));
        say(&format!("ack {n} {}", began.elapsed().as_micros()));
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn write(path: &Path, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    // As applications do it: nobody ever reads half of it. Where no backup looks: one that meets a
    // name and then finds no file is partial, rightly, and these tests ask for whole ones.
    let new = tempfile::NamedTempFile::new().unwrap();
    fs::write(new.path(), content).unwrap();
    fs::set_permissions(new.path(), fs::Permissions::from_mode(0o644)).unwrap();
    new.persist(path).unwrap();
}

fn make_private(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Opens a database in WAL mode. The kernel has what a killed process wrote; nobody pulls the plug.
fn wal(path: &Path, schema: &str) -> Connection {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let db = Connection::open(path).unwrap();
    db.busy_timeout(Duration::from_secs(60)).unwrap();
    db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF")
        .unwrap();
    db.execute_batch(schema).unwrap();
    db
}

const LEDGER: &str = "CREATE TABLE IF NOT EXISTS ledger (n INTEGER PRIMARY KEY, link BLOB);";

fn last(db: &Connection) -> u64 {
    let sql = "SELECT ifnull(max(n), 0) FROM ledger";
    number(db, sql) as u64
}

fn number(db: &Connection, sql: &str) -> i64 {
    db.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// Adds a number to the ledger, in the transaction that is open.
fn note(db: &Connection, n: u64) {
    let sql = "SELECT link FROM ledger WHERE n = ?1 - 1";
    let previous: Vec<u8> = match n {
        1 => Vec::new(),
        _ => db.query_row(sql, [n as i64], |row| row.get(0)).unwrap(),
    };
    let sql = "INSERT INTO ledger VALUES (?1, ?2)";
    db.execute(sql, params![n as i64, link(&previous, n, n)])
        .unwrap();
}

/// Returns the newest number of a sound database with a ledger without gaps.
fn judge_ledger(db: &Connection) -> u64 {
    is_sound(db).unwrap();
    let mut statement = db.prepare("SELECT n, link FROM ledger ORDER BY n").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    let mut previous = (0, Vec::new());
    for row in rows.unwrap() {
        let (n, found): (i64, Vec<u8>) = row.unwrap();
        assert_eq!(n as u64, previous.0 + 1);
        assert_eq!(found, link(&previous.1, n as u64, n as u64), "{n}");
        previous = (n as u64, found);
    }
    previous.0
}
