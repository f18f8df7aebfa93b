//! Restores in place with the real binary: whoever looks at any moment finds the old state or the
//! new one of each database, and everything can be undone.
//!
//! CI cuts at a sample of the calls. `STATEKEEP_CUTS=all cargo test --release in_place:: --
//! --nocapture` cuts at every one.

use crate::campaign::can_trace;
use crate::oracle::Place;
use crate::oracle::stderr;
use crate::support::model_of;
use crate::writers::Spec;
use crate::writers::Writer;
use redb::ReadableDatabase;
use redb::TableDefinition;
use rusqlite::Connection;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::process::Output;

const TABLE: TableDefinition<'_, u64, u64> = TableDefinition::new("t");

/// Calls that change something or make it durable.
const CHANGES: [&str; 14] = [
    "linkat",
    "rename",
    "renameat",
    "renameat2",
    "unlinkat",
    "mkdirat",
    "syncfs",
    "fsync",
    "fdatasync",
    "openat",
    "pwrite64",
    "write",
    "unlink",
    "rmdir",
];

/// Which of the two states of the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Old,
    New,
}

impl Version {
    fn number(self) -> u64 {
        match self {
            Version::Old => 1,
            Version::New => 2,
        }
    }
}

/// Brings the application to a version and leaves it as a killed process does: commits in a log,
/// a transaction in a journal.
fn become_version(app: &Path, version: Version) {
    let number = version.number();
    fs::create_dir_all(app.join("data")).unwrap();
    fs::create_dir_all(app.join("config")).unwrap();
    let live = app.join("live");
    fs::create_dir_all(&live).unwrap();
    for (name, mode) in [("wal.db", "wal"), ("roll.db", "delete")] {
        let path = app.join("data").join(name);
        for suffix in ["", "-wal", "-journal"] {
            let from = beside(&path, suffix);
            if from.exists() {
                fs::rename(from, beside(&live.join(name), suffix)).unwrap();
            }
        }
        let db = Connection::open(live.join(name)).unwrap();
        db.pragma_update(None, "journal_mode", mode).unwrap();
        db.execute_batch(
            "PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = 5;
             CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, x INTEGER, filler)",
        )
        .unwrap();
        let sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
            INSERT OR REPLACE INTO t SELECT i, ?1, randomblob(200) FROM n";
        db.execute(sql, [number as i64]).unwrap();
        // What is not committed must never be seen.
        db.execute_batch("BEGIN; UPDATE t SET x = -1, filler = randomblob(300)")
            .unwrap();
        for suffix in ["", "-wal", "-journal"] {
            let from = beside(&live.join(name), suffix);
            if from.exists() {
                fs::copy(from, beside(&path, suffix)).unwrap();
            }
        }
    }
    fs::remove_dir_all(&live).unwrap();
    let db = redb::Database::create(app.join("data/state.redb")).unwrap();
    let write = db.begin_write().unwrap();
    for key in 0..200 {
        write
            .open_table(TABLE)
            .unwrap()
            .insert(key, number)
            .unwrap();
    }
    write.commit().unwrap();
    drop(db);
    fs::write(app.join("config/app.toml"), format!("version = {number}\n")).unwrap();
    let secret = app.join(".env");
    fs::write(&secret, format!("KEY={number}")).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    match version {
        Version::Old => {
            fs::write(app.join("config/old.toml"), "old").unwrap();
            symlink("app.toml", app.join("config/link")).unwrap();
        }
        Version::New => {
            fs::remove_file(app.join("config/old.toml")).unwrap();
            fs::remove_file(app.join("config/link")).unwrap();
            fs::create_dir(app.join("config/more")).unwrap();
            fs::write(app.join("config/more/new.toml"), "new").unwrap();
        }
    }
}

fn beside(path: &Path, suffix: &str) -> std::path::PathBuf {
    crate::oracle::with_suffix(path, suffix)
}

/// Returns the version of every part of the application as the next start of it would find it, by
/// opening copies.
fn versions(app: &Path) -> Vec<u64> {
    let temp = tempfile::tempdir().unwrap();
    let mut found = vec![];
    for name in ["wal.db", "roll.db"] {
        for suffix in ["", "-wal", "-journal"] {
            let from = beside(&app.join("data").join(name), suffix);
            if from.exists() {
                fs::copy(from, beside(&temp.path().join(name), suffix)).unwrap();
            }
        }
        let db = Connection::open(temp.path().join(name)).unwrap();
        let verdict: String = db
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .unwrap();
        assert_eq!(verdict, "ok", "{name}");
        let sql = "SELECT min(x), max(x), count(*) FROM t";
        let row = db.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        let (min, max, count): (i64, i64, i64) = row.unwrap();
        assert_eq!((min, count), (max, 300), "{name}");
        found.push(min as u64);
    }
    let copy = temp.path().join("state.redb");
    fs::copy(app.join("data/state.redb"), &copy).unwrap();
    let mut db = redb::Database::open(&copy).unwrap();
    db.check_integrity().unwrap();
    let table = db.begin_read().unwrap().open_table(TABLE).unwrap();
    let values: Vec<u64> = (0..200)
        .map(|key| table.get(key).unwrap().unwrap().value())
        .collect();
    assert!(values.iter().all(|value| *value == values[0]));
    found.push(values[0]);
    found
}

/// Returns the version all parts are at, files included.
fn version(app: &Path) -> Version {
    let found = versions(app);
    let version = match found[0] {
        1 => Version::Old,
        _ => Version::New,
    };
    assert_eq!(found, [version.number(); 3]);
    let text = fs::read_to_string(app.join("config/app.toml")).unwrap();
    assert_eq!(text, format!("version = {}\n", version.number()));
    let is_old = version == Version::Old;
    assert_eq!(app.join("config/old.toml").exists(), is_old);
    assert_eq!(app.join("config/link").is_symlink(), is_old);
    assert_eq!(app.join("config/more").exists(), !is_old);
    let env = fs::metadata(app.join(".env")).unwrap();
    assert_eq!(env.permissions().mode() & 0o777, 0o600);
    assert!(!app.join(".statekeep-restore").exists());
    version
}

/// A place whose application is at the new version, with a snapshot of the old one.
fn moved_on() -> Place {
    let place = Place::new();
    become_version(&place.path("app"), Version::Old);
    done(&place.backup());
    become_version(&place.path("app"), Version::New);
    place
}

fn done(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
}

/// The oldest snapshot is the one that `moved_on` made.
const BACK: [&str; 5] = [
    "restore",
    "2020-01-01",
    "--in-place",
    "--delete",
    "--confirm",
];

fn back(place: &Place) -> Vec<String> {
    let snapshots = place.snapshots();
    let id = snapshots[0]["id"].as_str().unwrap().to_string();
    let mut args: Vec<String> = BACK.iter().map(|arg| arg.to_string()).collect();
    args[1] = id;
    args
}

fn run(place: &Place, args: &[String]) -> Output {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    place.run(&args)
}

#[test]
fn in_place_goes_back_and_undo_forth_again() {
    let place = moved_on();
    let app = place.path("app");

    done(&run(&place, &back(&place)));
    assert_eq!(version(&app), Version::Old);
    let restored = model_of(&app);

    done(&place.run(&["undo", "--confirm"]));
    assert_eq!(version(&app), Version::New);
    done(&place.run(&["undo", "--confirm"]));
    assert_eq!(version(&app), Version::Old);
    assert_eq!(model_of(&app), restored);
    let snapshots = place.snapshots();
    assert_eq!(snapshots.len(), 4);
    for safety in &snapshots[1..] {
        assert!(safety["hold"].is_object() && safety["tags"][0] == "pre-restore");
    }
    done(&place.run(&["check", "--read-data"]));
}

#[test]
fn a_second_run_finds_everything_in_place_and_stores_next_to_nothing() {
    let place = moved_on();
    done(&run(&place, &back(&place)));

    let mut args = back(&place);
    args.push("--json".to_string());
    let output = run(&place, &args);

    done(&output);
    let text = String::from_utf8(output.stdout).unwrap();
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["done"]["files"], 0);
    assert_eq!(last["done"]["removed_files"], 0);
    let stored = place.snapshots()[2]["stored_bytes"].as_u64().unwrap();
    assert!(stored < 2000, "{stored}");
}

#[test]
fn while_the_application_has_a_database_open_nothing_happens() {
    let place = Place::new();
    let path = place.app("app.db");
    let mut writer = Writer::start(&Spec::sqlite(&path, "wal"));
    done(&place.backup());
    writer.wait_acked(writer.acked() + 5);

    let args = ["restore", "latest", "--in-place", "--confirm"];
    let output = place.run(&args);

    assert_eq!(output.status.code(), Some(15), "{}", stderr(&output));
    assert!(stderr(&output).contains("app.db"), "{}", stderr(&output));
    // Nor by the other way.
    let over = [
        "restore",
        "latest",
        "--to",
        "app",
        "--overwrite",
        "--confirm",
    ];
    let output = place.run(&over);
    assert_eq!(output.status.code(), Some(15), "{}", stderr(&output));
    writer.wait_acked(writer.acked() + 5);
    assert_eq!(place.snapshots().len(), 1);
    writer.stop();
    done(&place.run(&args));
    assert_eq!(place.snapshots().len(), 2);
}

#[test]
fn part_is_restored_and_the_rest_is_left_alone() {
    let place = moved_on();
    let app = place.path("app");
    let id = back(&place)[1].clone();

    done(&place.run(&["restore", &id, "--in-place", "--db", "state", "--confirm"]));
    assert_eq!(versions(&app), [2, 2, 1]);
    let only = [
        "restore",
        &id,
        "--in-place",
        "--only",
        "/config",
        "--delete",
        "--confirm",
    ];
    done(&place.run(&only));

    assert_eq!(versions(&app), [2, 2, 1]);
    assert!(app.join("config/old.toml").exists() && !app.join("config/more").exists());
    assert_eq!(fs::read_to_string(app.join(".env")).unwrap(), "KEY=2");
    // Only what that restore did is undone.
    done(&place.run(&["undo", "--confirm"]));
    assert_eq!(versions(&app), [2, 2, 1]);
    assert!(!app.join("config/old.toml").exists() && app.join("config/more/new.toml").exists());
}

#[test]
fn what_backups_leave_out_is_not_removed() {
    let place = Place::new();
    let app = place.path("app");
    fs::write(app.join("kept"), "old").unwrap();
    done(&place.run(&["backup", "--exclude", "/models", "app"]));
    fs::create_dir(app.join("models")).unwrap();
    fs::write(app.join("models/large"), "model").unwrap();
    fs::write(app.join("stray"), "stray").unwrap();
    fs::write(app.join("kept"), "new").unwrap();

    done(&run(&place, &back(&place)));

    assert_eq!(fs::read_to_string(app.join("kept")).unwrap(), "old");
    assert!(app.join("models/large").exists() && !app.join("stray").exists());
    // Nor was it saved.
    let ls = place.run(&["ls", "tag:pre-restore"]);
    assert!(!String::from_utf8_lossy(&ls.stdout).contains("models"));
}

#[test]
fn what_a_profile_does_not_take_is_neither_saved_nor_removed() {
    let place = Place::new();
    let app = place.path("app");
    fs::create_dir(app.join("config")).unwrap();
    fs::write(app.join("config/app.toml"), "old").unwrap();
    fs::write(app.join("program"), "binary").unwrap();
    let config = format!(
        "version = 1\n[profile.app]\nroot = {:?}\nfiles = [\"config/**\"]\ndatabases = []\n\
         scope.one = {{ files = [\"config/one/**\"] }}\n",
        app.to_str().unwrap()
    );
    fs::write(place.path("config.toml"), config).unwrap();
    done(&place.run(&["-c", "config.toml", "backup", "-p", "app"]));
    fs::write(app.join("config/app.toml"), "new").unwrap();
    fs::write(app.join("config/stray.toml"), "stray").unwrap();

    done(&run(&place, &back(&place)));

    assert_eq!(
        fs::read_to_string(app.join("config/app.toml")).unwrap(),
        "old"
    );
    assert!(app.join("program").exists() && !app.join("config/stray.toml").exists());
    let ls = place.run(&["ls", "tag:pre-restore"]);
    assert!(!String::from_utf8_lossy(&ls.stdout).contains("program"));

    // A scope of it, beside.
    let id = back(&place)[1].clone();
    let to = [
        "-c",
        "config.toml",
        "restore",
        &id,
        "--scope",
        "one",
        "--to",
        "one",
        "--confirm",
    ];
    let output = place.run(&to);
    assert_eq!(output.status.code(), Some(13), "{}", stderr(&output));
    fs::create_dir(app.join("config/one")).unwrap();
    fs::write(app.join("config/one/a.toml"), "a").unwrap();
    done(&place.run(&["-c", "config.toml", "backup", "-p", "app"]));
    let mut to = to;
    to[3] = "latest";
    done(&place.run(&to));
    assert!(place.path("one/config/one/a.toml").exists());
    assert!(!place.path("one/config/app.toml").exists());
}

#[test]
fn a_snapshot_that_is_damaged_replaces_nothing() {
    let place = moved_on();
    let app = place.path("app");
    let before = model_of(&app);
    let packs = fs::read_dir(place.path("repo/packs")).unwrap();
    for pack in packs {
        let path = pack.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        bytes[2000] ^= 1;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, bytes).unwrap();
    }

    let output = run(&place, &back(&place));

    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(!app.join(".statekeep-restore").exists());
    let after = model_of(&app);
    let names = |model: &crate::support::Model| model.keys().cloned().collect::<Vec<_>>();
    // Logs may have been merged, as the next start of the application would.
    assert!(names(&after).iter().all(|name| before.contains_key(name)));
    assert_eq!(version(&app), Version::New);
}

#[test]
fn a_place_that_is_gone_is_made_again() {
    let place = moved_on();
    let app = place.path("app");
    fs::remove_dir_all(&app).unwrap();

    done(&run(&place, &back(&place)));

    assert_eq!(version(&app), Version::Old);
    assert_eq!(place.snapshots().len(), 1);
}

fn copy_tree(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(status.unwrap().success());
}

/// Kills the restore at the n-th such call of a thread. Returns whether it came to its end before.
fn cut(place: &Place, args: &[String], call: &str, n: u64) -> bool {
    let inject = format!("inject={call}:signal=KILL:when={n}");
    let trace = format!("trace={call}");
    let tool = [
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        &trace,
        "-e",
        &inject,
    ];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let output = place.command_under(&tool, &args).output().unwrap();
    output.status.success()
}

/// Cuts at every so many of these calls, from the first on. Returns how many cuts there were, and how
/// many while names changed hands.
fn cut_often(call: &str, first: u64, step: usize) -> (u64, u64) {
    let place = moved_on();
    let (app, kept) = (place.path("app"), place.path("kept"));
    fs::create_dir(&kept).unwrap();
    for name in ["app", "repo", "cache"] {
        copy_tree(&place.path(name), &kept.join(name));
    }
    // As people type it: what the cut run saved before it replaced anything is not the latest.
    let mut args = back(&place);
    args[1] = "latest".to_string();
    let (mut cuts, mut finished_later) = (0, 0);
    for n in (first..).step_by(step) {
        for name in ["app", "repo", "cache"] {
            fs::remove_dir_all(place.path(name)).unwrap();
            copy_tree(&kept.join(name), &place.path(name));
        }
        if cut(&place, &args, call, n) {
            break;
        }
        cuts += 1;
        // As the application would find it, were it started now.
        for found in versions(&app) {
            assert!(found == 1 || found == 2, "{call} {n}: {found}");
        }
        finished_later += u64::from(app.join(".statekeep-restore/journal").exists());
        let output = run(&place, &args);
        assert_eq!(
            output.status.code(),
            Some(0),
            "cut {n}: {}",
            stderr(&output)
        );
        assert_eq!(version(&app), Version::Old, "{call} {n}");
    }
    done(&place.run(&["undo", "--confirm"]));
    assert_eq!(version(&app), Version::New);
    eprintln!("{call}: {cuts} cuts, {finished_later} while names changed hands");
    (cuts, finished_later)
}

#[test]
fn killed_at_any_call_each_database_is_old_or_new_and_the_next_run_finishes() {
    if !can_trace("killed_at_any_call") {
        return;
    }
    let is_long = std::env::var("STATEKEEP_CUTS").is_ok_and(|cuts| cuts == "all");
    let counts: Vec<(u64, u64)> = match is_long {
        true => CHANGES.iter().map(|call| cut_often(call, 1, 1)).collect(),
        false => ["linkat", "renameat"]
            .map(|call| cut_often(call, 2, 3))
            .to_vec(),
    };
    let late: u64 = counts.iter().map(|(_, late)| late).sum();
    assert!(late > 1, "{counts:?}");
}
