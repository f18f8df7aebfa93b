//! Rehearsals with the real binary: what is sound is proven, what is not is said, and nothing of
//! either is left lying about.

use crate::oracle::Place;
use crate::oracle::stderr;
use rusqlite::Connection;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

const PROFILE: &str = "[profile.app]\nroot = \"@/app\"\n";

/// A profile with a database of two rows, and a snapshot of it.
pub(crate) fn place(rest: &str) -> Place {
    let place = Place::new();
    configure(&place, rest);
    let db = Connection::open(place.app("app.db")).unwrap();
    let sql = "PRAGMA journal_mode = wal; CREATE TABLE t (x); INSERT INTO t VALUES (1), (2);
        PRAGMA user_version = 3";
    db.execute_batch(sql).unwrap();
    drop(db);
    redb::Database::create(place.app("state.redb")).unwrap();
    fs::write(place.app("app.toml"), "x = 1").unwrap();
    place
}

pub(crate) fn configure(place: &Place, rest: &str) {
    let dir = place.path("config/statekeep");
    fs::create_dir_all(&dir).unwrap();
    let text = format!("version = 1\n{PROFILE}{rest}");
    let text = text.replace('@', &place.path("").display().to_string());
    fs::write(dir.join("config.toml"), text).unwrap();
}

pub(crate) fn ends(output: &Output, exit: i32) {
    assert_eq!(output.status.code(), Some(exit), "{}", stderr(output));
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn last_line(output: &Output) -> Value {
    serde_json::from_str(text(output).lines().last().unwrap()).unwrap()
}

fn scratch_dirs(place: &Place) -> usize {
    let names = fs::read_dir(place.path("cache")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name());
    names
        .filter(|name| name.to_str().unwrap().starts_with("statekeep-drill-"))
        .count()
}

#[test]
fn a_sound_snapshot_is_proven_and_list_and_show_say_so() {
    let place = place("");
    ends(&place.run(&["backup", "-p", "app"]), 0);
    // As a drill leaves it that was killed.
    fs::create_dir_all(place.path("cache/statekeep-drill-1-0/content")).unwrap();

    let output = place.run(&["drill", "--json"]);

    ends(&output, 0);
    let summary = last_line(&output);
    let rows = &summary["databases"][0]["tables"][0]["rows"];
    assert_eq!(
        (summary["status"].as_str(), rows.as_u64()),
        (Some("ok"), Some(2))
    );
    assert_eq!(summary["databases"][1]["verdict"], "sound");
    let proof = place.snapshots()[0]["proof"].to_string();
    assert!(
        proof.contains("ok: 3 files, 2 databases, 2 rows"),
        "{proof}"
    );
    assert!(text(&place.run(&["list"])).contains("proven"));
    assert!(text(&place.run(&["show", "latest"])).contains("ok: 3 files"));
    assert_eq!(scratch_dirs(&place), 0);
}

#[test]
fn a_dry_run_proves_nothing() {
    let place = place("");
    ends(&place.run(&["backup", "-p", "app"]), 0);

    ends(&place.run(&["drill", "-n"]), 0);

    assert!(place.snapshots()[0]["proof"].is_null());
    ends(&place.run(&["drill", "--scratch", "no/such"]), 2);
}

#[test]
fn damage_is_found_and_takes_the_place_of_an_earlier_proof() {
    let place = place("");
    ends(&place.run(&["backup", "-p", "app"]), 0);
    ends(&place.run(&["drill"]), 0);
    for pack in fs::read_dir(place.path("repo/packs")).unwrap() {
        let path = pack.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        bytes[200] ^= 1;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, bytes).unwrap();
    }

    let output = place.run(&["drill"]);

    ends(&output, 4);
    assert!(
        text(&output).contains("NOT proven: failed: "),
        "{}",
        text(&output)
    );
    assert!(
        place.snapshots()[0]["proof"]
            .to_string()
            .contains("failed: ")
    );
    assert!(text(&place.run(&["list"])).contains("DRILL FAILED"));
    assert_eq!(scratch_dirs(&place), 0);
}

#[test]
fn an_assertion_that_does_not_hold_is_named() {
    let assert = "[[profile.app.drill.assert]]\ndatabase = \"app.db\"\n\
        sql = \"SELECT count(*) FROM t\"\nexpect = ";
    let place = place(&format!("{assert}\"2\"\n"));
    ends(&place.run(&["backup", "-p", "app"]), 0);

    ends(&place.run(&["drill"]), 0);
    configure(&place, &format!("{assert}\"3\"\n"));
    let output = place.run(&["drill"]);

    ends(&output, 4);
    let said = text(&output);
    assert!(
        said.contains("SELECT count(*) FROM t") && said.contains("it is \"2\""),
        "{said}"
    );
}
