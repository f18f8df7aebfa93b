//! Judges restored databases: they must be a prefix of what their writer committed, whole.
//!
//! Integrity checks alone prove little: an old log beside a new file passes them. So every commit
//! carries its number, a chain over all numbers, and a sum over all rows; all are computed again.

use crate::writers::App;
use crate::writers::Engine;
use crate::writers::MONEY;
use crate::writers::Spec;
use crate::writers::link;
use crate::writers::redb_ledger_of;
use crate::writers::sqlite_digest_of;
use redb::Database;
use redb::ReadableDatabase;
use rusqlite::Connection;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use tempfile::TempDir;

pub(crate) const SIDECARS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Returns a fault unless the condition holds.
macro_rules! needs {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err(format!($($text)*));
        }
    };
}

/// A directory with an application in `app` and a repository beside it.
pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Place {
        let place = Place {
            dir: TempDir::new().unwrap(),
        };
        fs::create_dir(place.path("app")).unwrap();
        let output = place.run(&["init", "--plain"]);
        assert!(output.status.success(), "{}", stderr(&output));
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn app(&self, name: &str) -> PathBuf {
        self.path("app").join(name)
    }

    /// The command, with the tool it runs under (`strace`, `setpriv`) before it.
    pub(crate) fn command_under(&self, tool: &[&str], args: &[&str]) -> Command {
        let binary = env!("CARGO_BIN_EXE_statekeep");
        let (first, rest) = tool.split_first().unwrap_or((&binary, &[]));
        let mut command = Command::new(first);
        command.args(rest);
        if !tool.is_empty() {
            command.arg(binary);
        }
        command
            .arg("-r")
            .arg(self.path("repo"))
            .args(args)
            .current_dir(self.dir.path())
            .env("HOME", self.dir.path())
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("STATEKEEP_CACHE_DIR", self.path("cache"))
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command_under(&[], args).output().unwrap()
    }

    pub(crate) fn backup(&self) -> Output {
        self.run(&["backup", "app"])
    }

    pub(crate) fn spawn_backup(&self) -> Child {
        let mut command = self.command_under(&[], &["backup", "app"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    }

    /// Restores a snapshot to a new directory.
    pub(crate) fn restore(&self, snapshot: &str) -> TempDir {
        let target = TempDir::new_in(self.dir.path()).unwrap();
        let to = target.path().to_str().unwrap();
        let output = self.run(&["restore", snapshot, "--to", to, "--confirm"]);
        assert!(output.status.success(), "{}", stderr(&output));
        target
    }

    /// Returns the snapshots, oldest first.
    pub(crate) fn snapshots(&self) -> Vec<serde_json::Value> {
        let output = self.run(&["list", "--json"]);
        assert!(output.status.success(), "{}", stderr(&output));
        let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let mut items = list["items"].as_array().unwrap().clone();
        items.reverse();
        items
    }
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Returns the newest number in a restored database, or what is wrong with it. Writes to it.
pub(crate) fn judge(engine: Engine, path: &Path) -> Result<u64, String> {
    // A broken page may well make the library panic: then the database is broken.
    let path = path.to_path_buf();
    let judged = std::panic::catch_unwind(move || match engine {
        Engine::Sqlite => judge_sqlite(&path),
        Engine::Redb => judge_redb(&path),
    });
    judged.unwrap_or_else(|_| Err("reading it panics".into()))
}

fn judge_sqlite(path: &Path) -> Result<u64, String> {
    let newest = {
        let conn = Connection::open(path).map_err(text)?;
        is_sound(&conn)?;
        check_sqlite_rows(&conn)?
    };
    // A free list or a map of pointers that is wrong shows when it is used.
    let mut spec = Spec::sqlite(path, "delete");
    spec.seed = newest;
    let mut app = App::open(&spec);
    for _ in 0..10 {
        app.commit(&mut |_| ());
    }
    drop(app);
    let conn = Connection::open(path).map_err(text)?;
    is_sound(&conn).map_err(|fault| format!("after ten more commits: {fault}"))?;
    Ok(newest)
}

/// Checks what SQLite itself can check.
pub(crate) fn is_sound(conn: &Connection) -> Result<(), String> {
    let check: String = conn
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .map_err(text)?;
    needs!(check == "ok", "integrity_check: {check}");
    let mut statement = conn.prepare("PRAGMA foreign_key_check").map_err(text)?;
    let broken = statement.exists([]).map_err(text)?;
    needs!(!broken, "foreign_key_check finds rows");
    Ok(())
}

fn check_sqlite_rows(conn: &Connection) -> Result<u64, String> {
    let money: i64 = conn
        .query_row("SELECT sum(balance) FROM account", [], |row| row.get(0))
        .map_err(text)?;
    needs!(money as u64 == MONEY, "the money is {money}");
    let sql = "SELECT n, chain, digest FROM ledger ORDER BY n";
    let mut statement = conn.prepare(sql).map_err(text)?;
    let lines = statement
        .query_map([], |row| {
            let (n, digest): (i64, i64) = (row.get(0)?, row.get(2)?);
            Ok((n as u64, row.get(1)?, digest as u64))
        })
        .map_err(text)?;
    let lines: Vec<_> = lines.collect::<Result<_, _>>().map_err(text)?;
    check_lines(&lines, sqlite_digest_of(conn).map_err(text)?)
}

/// Returns the newest number of a ledger without gaps whose last line fits the rows.
fn check_lines(lines: &[(u64, Vec<u8>, u64)], digest: u64) -> Result<u64, String> {
    let mut previous: &[u8] = &[];
    for (index, (n, chain, digest)) in lines.iter().enumerate() {
        needs!(*n == index as u64, "line {index} of the ledger is {n}");
        needs!(
            *chain == link(previous, *n, *digest),
            "the chain breaks at {n}"
        );
        previous = chain;
    }
    let (n, _, wanted) = lines.last().ok_or("the ledger is empty")?;
    needs!(*wanted == digest, "the rows are not those of commit {n}");
    Ok(*n)
}

fn judge_redb(path: &Path) -> Result<u64, String> {
    // A copy: opening repairs, and the restored file may be wanted as evidence.
    let scratch = TempDir::new().unwrap();
    let copy = scratch.path().join("copy.redb");
    fs::copy(path, &copy).map_err(text)?;
    let mut db = Database::open(&copy).map_err(text)?;
    let sound = db.check_integrity().map_err(text)?;
    needs!(sound, "check_integrity is false");
    let newest = check_redb_rows(&db)?;
    check_savepoints(&db, newest)?;
    drop(db);
    let mut app = App::open(&Spec::redb(&copy));
    for _ in 0..10 {
        app.commit(&mut |_| ());
    }
    drop(app);
    let mut db = Database::open(&copy).map_err(text)?;
    let sound = db.check_integrity().map_err(text)?;
    needs!(sound, "after more commits, check_integrity is false");
    Ok(newest)
}

fn check_redb_rows(db: &Database) -> Result<u64, String> {
    let tx = db.begin_read().map_err(text)?;
    let ledger = redb_ledger_of(&tx).map_err(text)?;
    needs!(ledger.money == MONEY, "the money is {}", ledger.money);
    let newest = check_lines(&ledger.lines, ledger.digest)?;
    needs!(ledger.newest == newest, "`newest` is {}", ledger.newest);
    Ok(newest)
}

/// Goes back to each persistent savepoint, newest first, and judges what is there.
fn check_savepoints(db: &Database, newest: u64) -> Result<(), String> {
    let tx = db.begin_write().map_err(text)?;
    let mut ids: Vec<u64> = tx.list_persistent_savepoints().map_err(text)?.collect();
    tx.abort().map_err(text)?;
    ids.sort_unstable();
    let mut bound = newest;
    for id in ids.into_iter().rev() {
        let mut tx = db.begin_write().map_err(text)?;
        let savepoint = tx.get_persistent_savepoint(id).map_err(text)?;
        tx.restore_savepoint(&savepoint).map_err(text)?;
        tx.commit().map_err(text)?;
        let n = check_redb_rows(db).map_err(|fault| format!("savepoint {id}: {fault}"))?;
        needs!(n <= bound, "savepoint {id} is {n}, after {bound}");
        bound = n;
    }
    Ok(())
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Returns the names of sidecars in a restored directory: there must be none.
pub(crate) fn sidecars_in(dir: &Path) -> Vec<String> {
    let mut names = names_in(dir);
    names.retain(|name| SIDECARS.iter().any(|suffix| name.ends_with(suffix)));
    names
}

pub(crate) fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// What a backup must leave as it was.
#[derive(Debug, PartialEq)]
pub(crate) struct Source {
    files: Vec<(String, Option<Print>)>,
}

#[derive(Debug, PartialEq)]
struct Print {
    inode: u64,
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    hash: blake3::Hash,
}

impl Source {
    /// Looks at files that nobody has open here (I12). What may appear is left out.
    pub(crate) fn look(dir: &Path) -> Source {
        let mut names = names_in(dir);
        names.retain(|name| {
            let is_empty = fs::symlink_metadata(dir.join(name)).unwrap().len() == 0;
            !(name.ends_with("-shm") || name.ends_with("-wal") && is_empty)
        });
        let files = names.into_iter().map(|name| {
            let print = print_of(&dir.join(&name));
            (name, print)
        });
        Source {
            files: files.collect(),
        }
    }
}

fn print_of(path: &Path) -> Option<Print> {
    let meta = fs::symlink_metadata(path).unwrap();
    meta.is_file().then(|| Print {
        inode: meta.ino(),
        mode: meta.mode(),
        owner: (meta.uid(), meta.gid()),
        modified: (meta.mtime(), meta.mtime_nsec()),
        hash: blake3::hash(&fs::read(path).unwrap()),
    })
}

/// Checks that sidecars have the owner and the mode of their database (I12).
pub(crate) fn sidecars_belong(path: &Path) -> Result<(), String> {
    let database = fs::metadata(path).map_err(text)?;
    for suffix in SIDECARS {
        // The application may remove it at any moment.
        let Ok(meta) = fs::metadata(with_suffix(path, suffix)) else {
            continue;
        };
        let wanted = (database.mode(), database.uid(), database.gid());
        let found = (meta.mode(), meta.uid(), meta.gid());
        needs!(wanted == found, "{suffix} is {found:?}, not {wanted:?}");
    }
    Ok(())
}
