//! Databases nobody writes to, in every awkward state they are found in: backed up, restored and
//! compared row by row, or byte by byte where they are no databases.

use crate::oracle;
use crate::oracle::Place;
use crate::oracle::Source;
use crate::oracle::judge;
use crate::oracle::names_in;
use crate::oracle::with_suffix;
use crate::support::Seeded;
use crate::writers::Engine;
use crate::writers::Habit;
use crate::writers::Spec;
use crate::writers::Writer;
use rusqlite::Connection;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use tempfile::TempDir;

/// Somebody who owns nothing.
const NOBODY: u32 = 65_534;
const AS_NOBODY: [&str; 4] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
];

/// Fills a new database with one of each kind of thing.
fn fill(path: &Path, pragmas: &str) {
    let conn = Connection::open(path).unwrap();
    let sql = "
        CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB, x REAL);
        CREATE TABLE w (a TEXT, b INTEGER, c BLOB, PRIMARY KEY (a, b)) WITHOUT ROWID;
        CREATE INDEX t_x ON t (x DESC) WHERE x > 0;
        CREATE VIEW v AS SELECT id, x FROM t;
        CREATE TRIGGER g AFTER DELETE ON t BEGIN INSERT INTO w VALUES ('gone', old.id, NULL); END;
        CREATE VIRTUAL TABLE f USING fts5 (text);
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 700)
        INSERT INTO t SELECT i, zeroblob(i % 5 * 400) || hex(i * 7919), i / 3.0 FROM n;
        INSERT INTO w SELECT 'key ' || id % 10, id, body FROM t;
        INSERT INTO f SELECT 'word' || id || ' and ' || id * 3 FROM t;
        UPDATE t SET body = zeroblob(300000) WHERE id = 333;
        DELETE FROM t WHERE id % 3 = 0 AND id <> 333;
        PRAGMA user_version = 77;
        PRAGMA application_id = 1234;";
    batch(&conn, pragmas);
    batch(&conn, sql);
}

/// Runs statements, also those that return rows.
fn batch(conn: &Connection, sql: &str) {
    for sql in split(sql) {
        let mut statement = conn.prepare(&sql).unwrap();
        let mut rows = statement.query([]).unwrap();
        while rows.next().unwrap().is_some() {}
    }
}

/// Statements end with a semicolon at the end of a line.
fn split(sql: &str) -> Vec<String> {
    let parts = sql.split(";\n").map(|part| part.trim().to_string());
    parts.filter(|part| !part.is_empty()).collect()
}

/// Returns everything a database holds, as text.
fn dump(path: &Path) -> Vec<String> {
    let conn = Connection::open(path).unwrap();
    let mut lines = vec![];
    for name in [
        "page_size",
        "auto_vacuum",
        "user_version",
        "application_id",
        "encoding",
        "integrity_check",
    ] {
        let sql = format!("PRAGMA {name}");
        let value: rusqlite::types::Value = conn.query_row(&sql, [], |row| row.get(0)).unwrap();
        lines.push(format!("{name} {value:?}"));
    }
    let tables = rows(&conn, "SELECT name FROM sqlite_schema WHERE type = 'table'");
    lines.extend(rows(&conn, "SELECT type, name, sql FROM sqlite_schema"));
    for table in tables {
        let name = table
            .trim_start_matches("[Text(\"")
            .trim_end_matches("\")]");
        let mut found = rows(&conn, &format!("SELECT * FROM \"{name}\""));
        found.sort();
        lines.extend(found.into_iter().map(|row| format!("{name} {row}")));
    }
    lines
}

fn rows(conn: &Connection, sql: &str) -> Vec<String> {
    let mut statement = conn.prepare(sql).unwrap();
    let width = statement.column_count();
    let rows = statement.query_map([], |row| {
        let values = (0..width).map(|i| row.get::<_, rusqlite::types::Value>(i));
        values.collect::<Result<Vec<_>, _>>()
    });
    let text = rows.unwrap().map(|row| format!("{:?}", row.unwrap()));
    text.collect()
}

/// Returns what SQLite itself would find, without touching the original.
fn dump_of_copy(path: &Path) -> Vec<String> {
    let scratch = TempDir::new().unwrap();
    let copy = scratch.path().join("copy");
    fs::copy(path, &copy).unwrap();
    for suffix in ["-wal", "-journal"] {
        let _ = fs::copy(with_suffix(path, suffix), with_suffix(&copy, suffix));
    }
    dump(&copy)
}

/// Backs up, and returns the exit code after the rules for all outcomes hold.
fn backed_up(place: &Place, exits: &[i32]) -> Output {
    let before = Source::look(&place.path("app"));
    let output = place.backup();
    assert_eq!(Source::look(&place.path("app")), before);
    check_outcome(place, output, exits)
}

fn check_outcome(place: &Place, output: Output, exits: &[i32]) -> Output {
    let code = output.status.code().unwrap();
    assert!(exits.contains(&code), "{code}: {}", oracle::stderr(&output));
    let newest = place.snapshots().pop().unwrap();
    assert_eq!(newest["partial"], code == 3, "{newest}");
    // Whoever is warned learns of what.
    assert!(code == 0 || oracle::stderr(&output).contains("app.db"));
    output
}

/// Backs up the databases in `app` and compares what is restored, which is nothing else.
fn databases_come_back(place: &Place, names: &[&str], exits: &[i32]) {
    let wanted: Vec<_> = names.iter().map(|n| dump_of_copy(&place.app(n))).collect();
    backed_up(place, exits);
    assert_restored(place, names, &wanted);
}

fn assert_restored(place: &Place, names: &[&str], wanted: &[Vec<String>]) {
    let target = place.restore("latest");
    assert_eq!(names_in(target.path()), names);
    for (name, wanted) in names.iter().zip(wanted) {
        let found = dump(&target.path().join(name));
        assert!(found == *wanted, "{name} differs");
    }
}

/// Backs up files that are no databases, or broken ones: every byte counts.
fn bytes_come_back(name: &str, content: &[u8], exits: &[i32]) {
    let place = Place::new();
    fs::write(place.app(name), content).unwrap();
    backed_up(&place, exits);
    let target = place.restore("latest");
    assert_eq!(names_in(target.path()), [name]);
    let restored = fs::read(target.path().join(name)).unwrap();
    assert!(restored == content, "{name} differs");
}

#[test]
fn databases_of_every_page_size_come_back_row_by_row() {
    for mode in ["delete", "wal"] {
        for shift in 9..=16 {
            let place = Place::new();
            let pragmas = format!(
                "PRAGMA page_size = {};\nPRAGMA journal_mode = {mode}",
                1 << shift
            );
            fill(&place.app("app.db"), &pragmas);
            databases_come_back(&place, &["app.db"], &[0]);
        }
    }
}

#[test]
fn databases_of_every_vacuum_mode_and_encoding_come_back_row_by_row() {
    let place = Place::new();
    let names = ["app.db0", "app.db1", "app.db2", "notes.txt", "utf16"];
    for (vacuum, name) in names.iter().enumerate().take(3) {
        let pragmas = format!("PRAGMA auto_vacuum = {vacuum}");
        fill(&place.app(name), &pragmas);
    }
    fill(&place.app("notes.txt"), "PRAGMA journal_mode = wal");
    fill(&place.app("utf16"), "PRAGMA encoding = 'UTF-16be'");

    databases_come_back(&place, &names, &[0]);
}

#[test]
fn a_long_database_comes_back_whether_its_writers_are_stalled_or_not() {
    for mode in ["delete", "wal"] {
        let place = Place::new();
        let path = place.app("app.db");
        fill(&path, &format!("PRAGMA journal_mode = {mode}"));
        let conn = Connection::open(&path).unwrap();
        // Longer than what is read without a spool, and than what is checked in memory.
        conn.execute_batch(
            "CREATE TABLE long(id INTEGER PRIMARY KEY, noise BLOB);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
             INSERT INTO long SELECT i, randomblob(4000) FROM n;",
        )
        .unwrap();
        drop(conn);

        databases_come_back(&place, &["app.db"], &[0]);
    }
}

#[test]
fn files_that_only_look_like_databases_come_back_byte_by_byte() {
    let mut random = Seeded::new(40);
    bytes_come_back("app.db", b"", &[0]);
    bytes_come_back("app.db", b"a text, in spite of its name\n", &[0]);
    bytes_come_back("app.db", b"SQLite format 3\0abcd", &[0, 3]);
    bytes_come_back("app.redb", b"redb\x1A\x0A\xA9\x0D\x0A", &[0, 3]);
    // Noise of whole pages under this name is what an encrypted database looks like.
    bytes_come_back("app.db", &random.bytes(4096 * 50), &[3]);
    bytes_come_back("app.bin", &random.bytes(4096 * 50), &[0]);
    bytes_come_back("app.db", &random.bytes(4096 * 50 + 1), &[0]);
    // Whose these are, nobody knows.
    bytes_come_back("app.db-wal", &random.bytes(4000), &[0]);
    bytes_come_back("app.db-journal", b"", &[0]);
}

#[test]
fn a_plain_copy_of_a_database_is_restored_without_a_log_that_is_not_its_own() {
    let place = Place::new();
    let noise = Seeded::new(44).bytes(4096 * 50);
    fs::write(place.app("app.db"), &noise).unwrap();
    check_outcome(&place, place.backup(), &[3]);
    // What the application did since then.
    fs::write(place.app("app.db"), Seeded::new(45).bytes(4096 * 60)).unwrap();
    fs::write(place.app("app.db-wal"), b"commits of another state").unwrap();

    let app = place.path("app");
    let to = ["restore", "latest", "--confirm", "--overwrite", "--to"];
    let output = place.run(&[&to[..], &[app.to_str().unwrap()]].concat());

    assert!(output.status.success(), "{}", oracle::stderr(&output));
    assert_eq!(names_in(&app), ["app.db"]);
    assert_eq!(fs::read(place.app("app.db")).unwrap(), noise);
}

#[test]
fn a_broken_database_comes_back_byte_by_byte() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("app.db");
    // Without free pages, no byte may be left out.
    fill(&path, "PRAGMA auto_vacuum = 1");
    let sound = fs::read(&path).unwrap();
    let broken = |at: usize, with: &[u8]| {
        let mut bytes = sound.clone();
        bytes[at..at + with.len()].copy_from_slice(with);
        bytes
    };
    let pages = broken(4096 * 20, &Seeded::new(41).bytes(4096 * 3));
    bytes_come_back("app.db", &pages, &[0, 3]);
    bytes_come_back("app.db", &broken(16, &[0, 3]), &[0, 3]);
    bytes_come_back("app.db", &broken(0, b"XQL"), &[0]);
    bytes_come_back("app.db", &sound[..sound.len() / 2 + 100], &[0, 3]);
}

#[test]
fn an_encrypted_database_comes_back_with_its_log() {
    let place = Place::new();
    let mut random = Seeded::new(42);
    fs::write(place.app("app.db"), random.bytes(4096 * 30)).unwrap();
    let mut wal = vec![0x37, 0x7f, 0x06, 0x82];
    wal.extend(random.bytes(28 + 3 * 4120));
    fs::write(place.app("app.db-wal"), wal).unwrap();
    let before = Source::look(&place.path("app"));

    backed_up(&place, &[0, 3]);

    let target = place.restore("latest");
    let content = |dir: &Path| ["app.db", "app.db-wal"].map(|n| fs::read(dir.join(n)).unwrap());
    assert!(content(target.path()) == content(&place.path("app")));
    assert_eq!(Source::look(&place.path("app")), before);
}

#[test]
fn a_link_to_a_database_stays_a_link() {
    let place = Place::new();
    fill(&place.app("app.db"), "");
    std::os::unix::fs::symlink("app.db", place.app("link.db")).unwrap();
    fs::hard_link(place.app("app.db"), place.app("same.db")).unwrap();

    databases_come_back(&place, &["app.db", "link.db", "same.db"], &[0]);

    let target = place.restore("latest");
    let link = fs::read_link(target.path().join("link.db")).unwrap();
    assert_eq!(link, Path::new("app.db"));
}

/// Runs a writer for 20 commits and kills it. Returns where its database is.
fn left_behind(place: &Place, name: &str, journal: &str, habits: &[Habit]) -> PathBuf {
    let mut spec = Spec::sqlite(&place.app(name), journal).with(habits);
    spec.commits = Some(20);
    spec.checkpoint_pages = 0;
    let mut writer = Writer::start(&spec);
    match habits.contains(&Habit::Spill) {
        true => writer.wait_spilled(),
        false => writer.wait_idle(),
    }
    writer.kill();
    spec.path
}

#[test]
fn a_log_that_a_killed_writer_left_is_restored_into_its_database() {
    for (name, habits) in [
        ("app.db", &[][..]),
        ("app.db.txt", &[Habit::Search]),
        // Frames without a commit behind them.
        ("app.db", &[Habit::Spill]),
    ] {
        let place = Place::new();
        let path = left_behind(&place, name, "wal", habits);
        assert!(fs::metadata(with_suffix(&path, "-wal")).unwrap().len() > 4096);

        databases_come_back(&place, &[name], &[0]);
        // The next one finds an -shm, or none.
        databases_come_back(&place, &[name], &[0]);

        let target = place.restore("latest");
        assert_eq!(judge(Engine::Sqlite, &target.path().join(name)), Ok(20));
    }
}

#[test]
fn a_hot_journal_is_rolled_back_in_the_backup_and_left_alone_in_the_source() {
    for journal in ["delete", "truncate", "persist"] {
        let place = Place::new();
        let path = left_behind(&place, "app.db", journal, &[Habit::Spill]);
        assert!(fs::metadata(with_suffix(&path, "-journal")).unwrap().len() > 4096);
        let lone = place.path("lone");
        fs::copy(&path, &lone).unwrap();
        assert!(judge(Engine::Sqlite, &lone).is_err(), "nothing was spilled");

        databases_come_back(&place, &["app.db"], &[0, 3]);

        let target = place.restore("latest");
        let file = target.path().join("app.db");
        assert_eq!(judge(Engine::Sqlite, &file), Ok(20));
    }
}

#[test]
fn an_empty_or_finished_journal_is_not_restored() {
    for journal in ["truncate", "persist"] {
        let place = Place::new();
        let path = left_behind(&place, "app.db", journal, &[]);
        assert!(with_suffix(&path, "-journal").exists());

        databases_come_back(&place, &["app.db"], &[0]);
    }
}

#[test]
fn a_database_that_is_locked_for_good_is_copied_while_its_holder_is_idle() {
    for (journal, habit) in [
        ("wal", Habit::Exclusive),
        ("delete", Habit::Exclusive),
        ("delete", Habit::Spill),
    ] {
        let place = Place::new();
        fs::write(place.app("notes"), "kept").unwrap();
        let mut spec = Spec::sqlite(&place.app("app.db"), journal).with(&[habit]);
        spec.commits = Some(20);
        let mut writer = Writer::start(&spec);
        writer.wait_idle();

        let output = place.backup();

        assert!(writer.is_running());
        check_outcome(&place, output, &[0]);
        let target = place.restore("latest");
        assert_eq!(fs::read(target.path().join("notes")).unwrap(), b"kept");
        let judged = judge(Engine::Sqlite, &target.path().join("app.db"));
        assert_eq!(judged, Ok(20), "{journal}, {habit:?}");
        // Free again, it is captured.
        writer.stop();
        fs::remove_file(place.app("notes")).unwrap();
        databases_come_back(&place, &["app.db"], &[0]);
    }
}

#[test]
fn a_database_that_is_locked_and_written_is_reported_unless_it_came_whole() {
    for journal in ["wal", "delete"] {
        let place = Place::new();
        let spec = Spec::sqlite(&place.app("app.db"), journal).with(&[Habit::Exclusive]);
        let mut writer = Writer::start(&spec);
        writer.wait_acked(20);

        let output = place.backup();

        assert!(writer.is_running());
        let output = check_outcome(&place, output, &[0, 3]);
        let target = place.restore("latest");
        if output.status.code() == Some(0) {
            let judged = judge(Engine::Sqlite, &target.path().join("app.db"));
            assert!(judged.is_ok_and(|newest| newest >= 20), "{journal}");
        }
    }
}

fn chown(path: &Path, owner: u32) {
    std::os::unix::fs::lchown(path, Some(owner), Some(owner)).unwrap();
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Returns a place that nobody may use, if this process can become somebody else.
fn place_of_nobody(test: &str) -> Option<Place> {
    let place = Place::new();
    chmod(&place.path("."), 0o755);
    let owner = format!("{NOBODY}:{NOBODY}");
    let mut chown = Command::new("chown");
    let owned = chown.arg("-R").arg(owner).arg(place.path(".")).output();
    let mut command = place.command_under(&AS_NOBODY, &["list"]);
    if owned.is_ok_and(|o| o.status.success()) && command.output().is_ok_and(|o| o.status.success())
    {
        return Some(place);
    }
    eprintln!("SKIPPED {test}: it needs root, setpriv and a binary that others may run");
    None
}

fn backup_as_nobody(place: &Place) -> Output {
    let mut command = place.command_under(&AS_NOBODY, &["backup", "app"]);
    command.output().unwrap()
}

#[test]
fn a_database_nobody_may_read_is_reported() {
    let Some(place) = place_of_nobody("a_database_nobody_may_read_is_reported") else {
        return;
    };
    fill(&place.app("app.db"), "");
    chmod(&place.app("app.db"), 0o600);
    fs::write(place.app("notes"), "kept").unwrap();

    let output = backup_as_nobody(&place);

    check_outcome(&place, output, &[3]);
    assert_eq!(names_in(place.restore("latest").path()), ["notes"]);
}

#[test]
fn a_read_only_directory_stays_as_it_is_and_its_databases_come_back() {
    for journal in ["wal", "delete"] {
        let Some(place) = place_of_nobody("a_read_only_directory") else {
            return;
        };
        let path = left_behind(&place, "app.db", journal, &[]);
        fill(&place.app("closed.db"), "PRAGMA journal_mode = wal");
        let _ = fs::remove_file(with_suffix(&path, "-shm"));
        chown(&place.path("app"), 0);
        chmod(&place.path("app"), 0o555);
        let wanted = ["app.db", "closed.db"].map(|name| dump_of_copy(&place.app(name)));
        let names = names_in(&place.path("app"));
        let before = Source::look(&place.path("app"));

        let output = backup_as_nobody(&place);

        check_outcome(&place, output, &[0, 3]);
        assert_eq!(names_in(&place.path("app")), names);
        assert_eq!(Source::look(&place.path("app")), before);
        chmod(&place.path("app"), 0o755);
        assert_restored(&place, &["app.db", "closed.db"], &wanted);
    }
}

/// What root leaves beside the database of another user would lock that user out.
#[test]
fn what_appears_beside_a_database_belongs_to_its_owner() {
    if place_of_nobody("what_appears_beside_a_database_belongs_to_its_owner").is_none() {
        return;
    }
    let place = Place::new();
    let path = left_behind(&place, "app.db", "wal", &[]);
    let _ = fs::remove_file(with_suffix(&path, "-shm"));
    for path in [path.clone(), with_suffix(&path, "-wal")] {
        chown(&path, NOBODY);
        chmod(&path, 0o640);
    }

    databases_come_back(&place, &["app.db"], &[0]);

    oracle::sidecars_belong(&path).unwrap();
}
