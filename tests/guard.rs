//! Migrations with a way back, with the real binary: one that fails, or breaks a database, leaves
//! nothing behind; one that succeeds stays, and can be taken back.

use crate::drill::configure;
use crate::drill::ends;
use crate::drill::place;
use crate::oracle::Place;
use crate::oracle::stderr;
use rusqlite::Connection;
use std::fs;
use std::process::Output;

/// Returns the rows, the version, and whether what migrations make is there.
fn found(place: &Place) -> (Vec<i64>, i64, bool) {
    let db = Connection::open(place.app("app.db")).unwrap();
    let mut rows = db.prepare("SELECT x FROM t ORDER BY x").unwrap();
    let rows = rows.query_map([], |row| row.get(0)).unwrap();
    let rows = rows.map(Result::unwrap).collect();
    let version = db.query_row("PRAGMA user_version", [], |row| row.get(0));
    (rows, version.unwrap(), place.app("new").exists())
}

/// A migration to files that were made before, since no other program here writes databases.
fn migrated_files(place: &Place) {
    let to = place.path("after.db");
    fs::copy(place.app("app.db"), &to).unwrap();
    let db = Connection::open(&to).unwrap();
    let sql = "INSERT INTO t VALUES (9); PRAGMA user_version = 4; PRAGMA journal_mode = delete";
    db.execute_batch(sql).unwrap();
}

fn guard(place: &Place, script: &str) -> Output {
    place.run(&["guard", "-p", "app", "--", "sh", "-c", script])
}

const MIGRATE: &str = "cp after.db app/app.db && touch app/new";

#[test]
fn a_migration_that_fails_leaves_nothing_behind() {
    let place = place("");
    migrated_files(&place);

    let output = guard(&place, &format!("{MIGRATE}; rm app/app.toml; exit 3"));

    ends(&output, 1);
    let said = stderr(&output);
    assert!(
        said.contains("migration-failed") && said.contains("exit status: 3"),
        "{said}"
    );
    assert_eq!(found(&place), (vec![1, 2], 3, false));
    assert_eq!(fs::read_to_string(place.app("app.toml")).unwrap(), "x = 1");
    let tags = place.snapshots()[0]["tags"].to_string();
    assert!(
        tags.contains("pre-migration") && tags.contains("pre-3-20"),
        "{tags}"
    );
    assert!(place.snapshots()[0]["hold"].is_object());
}

#[test]
fn a_migration_that_breaks_or_loses_a_database_is_taken_back() {
    let place = place("");
    migrated_files(&place);

    for script in [
        "printf 'no database at all' > app/app.db",
        "rm app/state.redb",
    ] {
        let output = guard(&place, script);

        ends(&output, 1);
        assert!(stderr(&output).contains("damaged"), "{}", stderr(&output));
        assert_eq!(found(&place), (vec![1, 2], 3, false));
        assert!(place.app("state.redb").exists());
    }
}

#[test]
fn a_migration_that_succeeds_stays_until_it_is_taken_back() {
    let place = place("");
    migrated_files(&place);

    ends(&guard(&place, MIGRATE), 0);

    assert_eq!(found(&place), (vec![1, 2, 9], 4, true));
    let status = place.run(&["guard", "status"]);
    ends(&status, 0);
    let said = String::from_utf8(status.stdout).unwrap();
    assert!(said.contains("app.db: from version 3 to 4"), "{said}");
    ends(&place.run(&["guard", "rollback"]), 14);
    assert_eq!(found(&place).1, 4);
    ends(&place.run(&["guard", "rollback", "--confirm"]), 0);
    assert_eq!(found(&place), (vec![1, 2], 3, false));
}

#[test]
fn what_the_profile_does_not_take_is_not_put_back() {
    let place = place("files = [\"*.toml\"]\ndatabases = [\"app.db\"]\n");
    migrated_files(&place);
    fs::create_dir(place.app("models")).unwrap();
    fs::write(place.app("models/large"), "model").unwrap();

    ends(&guard(&place, "echo log > app/migration.log; exit 1"), 1);

    assert!(place.app("models/large").exists() && place.app("migration.log").exists());
    assert_eq!(found(&place), (vec![1, 2], 3, false));
}

#[test]
fn an_application_that_was_stopped_is_started_even_if_nothing_is_restored() {
    let restore = "[profile.app.restore]\nrunning = [\"test\", \"-e\", \"@/runs\"]\n\
        stop = [\"sh\", \"-c\", \"rm @/runs; echo stop >> @/calls\"]\n\
        start = [\"sh\", \"-c\", \"touch @/runs; echo start >> @/calls\"]\n\
        after = [[\"sh\", \"-c\", \"echo after >> @/calls\"]]\n";
    let place = place(restore);
    ends(&place.run(&["backup", "-p", "app"]), 0);
    fs::write(place.path("runs"), "").unwrap();
    fs::remove_file(place.app("app.toml")).unwrap();
    let back = ["restore", "latest", "--in-place", "--confirm"];

    ends(&place.run(&back), 0);
    let calls = || fs::read_to_string(place.path("calls")).unwrap();
    assert_eq!(calls(), "stop\nafter\nstart\n");

    // A snapshot that cannot be read replaces nothing.
    fs::remove_file(place.app("app.toml")).unwrap();
    let id = place.snapshots()[0]["id"].as_str().unwrap().to_string();
    for pack in fs::read_dir(place.path("repo/packs")).unwrap() {
        fs::write(pack.unwrap().path(), "gone").unwrap();
    }
    let failed = place.run(&["restore", &id, "--in-place", "--confirm"]);
    assert_ne!(failed.status.code(), Some(0));
    assert!(place.path("runs").exists());
}

#[test]
fn a_snapshot_of_another_version_is_refused_if_the_profile_says_so() {
    let restore = |on: &str| {
        format!(
            "[profile.app.restore]\napp-version = [\"cat\", \"@/version\"]\non-version = \"{on}\"\n"
        )
    };
    let place = place(&restore("refuse"));
    fs::write(place.path("version"), "1.0\n").unwrap();
    ends(&place.run(&["backup", "-p", "app"]), 0);
    fs::write(place.path("version"), "2.0\n").unwrap();
    fs::write(place.app("app.toml"), "x = 2").unwrap();
    let back = ["restore", "latest", "--in-place", "--confirm"];

    let refused = place.run(&back);

    ends(&refused, 2);
    let said = stderr(&refused);
    assert!(said.contains("1.0") && said.contains("2.0"), "{said}");
    assert_eq!(fs::read_to_string(place.app("app.toml")).unwrap(), "x = 2");
    configure(&place, &restore("warn"));
    ends(&place.run(&back), 0);
    assert_eq!(fs::read_to_string(place.app("app.toml")).unwrap(), "x = 1");
}
