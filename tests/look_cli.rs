//! `find` and `diff` as people and programs meet them.

use crate::oracle::Place;
use crate::oracle::stderr;
use rusqlite::Connection;
use serde_json::Value;
use std::fs;
use std::process::Output;

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Returns the one document that was printed.
fn document(output: &Output) -> Value {
    assert_eq!(text(output).lines().count(), 1, "{}", text(output));
    serde_json::from_str(&text(output)).unwrap()
}

fn prepared() -> (Place, Connection) {
    let place = Place::new();
    fs::create_dir_all(place.app("config")).unwrap();
    fs::write(place.app("config/app.toml"), "a = 1\n").unwrap();
    let db = Connection::open(place.app("app.db")).unwrap();
    let sql = "PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY, v);
        INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')";
    db.execute_batch(sql).unwrap();
    backup(&place);
    (place, db)
}

fn backup(place: &Place) {
    let app = place.path("app");
    let output = place.run(&["backup", app.to_str().unwrap()]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
}

#[test]
fn diff_tells_files_and_rows_and_says_so_by_its_exit_code() {
    let (place, db) = prepared();
    let same = place.run(&["diff", "latest"]);
    db.execute_batch(
        "UPDATE t SET v = 'x' WHERE id = 2; DELETE FROM t WHERE id = 3; INSERT INTO t VALUES (7, 'd');
        CREATE TABLE \"new\x1b[2J\" (a); PRAGMA user_version = 4",
    )
    .unwrap();
    fs::write(place.app("config/app.toml"), "a = 2\n").unwrap();
    fs::create_dir(place.app("plugins")).unwrap();
    fs::write(place.app("plugins/a"), "0123456789").unwrap();
    let log = fs::read(place.app("app.db-wal")).unwrap();

    let live = place.run(&["diff", "latest", "--rows"]);

    assert_eq!(fs::read(place.app("app.db-wal")).unwrap(), log);
    backup(&place);
    let between = place.run(&["diff", "latest~1", "latest", "--rows"]);
    let json = document(&place.run(&["diff", "latest~1", "latest", "--rows=2", "--json"]));
    let live_json = document(&place.run(&["diff", "latest~1", "--json", "--", "./config/"]));
    let narrowed = place.run(&["diff", "latest~1:config", "latest"]);
    assert_eq!((code(&same), text(&same).trim()), (0, "No differences"));
    let expected = "\
~ app.db  8 KiB → 12 KiB
    user_version 0 → 4
    table new\\u{1b}[2J added
    t: rows 1 added, 1 removed, 1 changed
      ~ rowid 2
      - rowid 3
      + rowid 7
~ config/app.toml  6 B
+ plugins/  1 file, 10 B
2 added, 2 changed
";
    assert_eq!((code(&between), text(&between)), (5, expected.to_string()));
    assert_eq!(
        (code(&live), text(&live)),
        (5, expected.to_string()),
        "{}",
        stderr(&live)
    );
    assert_eq!(text(&narrowed), "~ config/app.toml  6 B\n1 changed\n");
    assert_eq!((&json["v"], &json["type"]), (&1.into(), &"diff".into()));
    assert_eq!(json["complete"], true);
    let database = &json["items"][0]["database"];
    assert_eq!(database["user_version_after"], 4);
    assert_eq!(database["schema"][0]["kind"], "table");
    let table = database["tables"]
        .as_array()
        .unwrap()
        .iter()
        .find(|t| t["name"] == "t");
    assert_eq!(table.unwrap()["rows"].as_array().unwrap().len(), 2);
    assert_eq!(json["summary"]["added"], 2);
    assert_eq!(
        (&live_json["after"], &live_json["summary"]["changed"]),
        (&Value::Null, &1.into())
    );
}

#[test]
fn diff_refuses_what_makes_no_sense() {
    let (place, db) = prepared();
    let other = place.path("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("x"), "x").unwrap();
    let output = place.run(&["backup", other.to_str().unwrap()]);
    assert_eq!(code(&output), 0);

    let unlike = place.run(&["diff", "latest~1", "latest"]);
    let twice = place.run(&["diff", "latest~1:a", "latest:b"]);
    let none = place.run(&["diff", "feed", "--json"]);
    let nowhere = place.run(&["diff", "latest", "--", "no/such/path"]);
    drop(db);
    fs::remove_dir_all(place.path("other")).unwrap();
    let gone = place.run(&["diff", "latest"]);

    assert!(code(&unlike) == 2 && stderr(&unlike).contains("nothing in common"));
    assert!(code(&twice) == 2 && stderr(&twice).contains("hint:"));
    assert_eq!(
        (code(&none), &document(&none)["code"]),
        (13, &"not-found".into())
    );
    assert!(code(&nowhere) == 13 && stderr(&nowhere).contains("no/such/path"));
    assert_eq!(code(&gone), 13, "{}", stderr(&gone));
}

#[test]
fn find_tells_where_something_was_and_when_it_changed() {
    let (place, _db) = prepared();
    fs::write(place.app("config/app.toml"), "a = 22\n").unwrap();
    backup(&place);
    backup(&place);

    let found = place.run(&["find", "app.toml"]);
    let json = document(&place.run(&["find", "*.toml", "--json"]));
    let one = document(&place.run(&["find", "*.toml", "--in", "latest", "--json"]));
    let nothing = place.run(&["find", "nothing-*"]);
    let wrong = place.run(&["find", "[a"]);

    let said = text(&found);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(code(&found), 0);
    assert_eq!(lines[0], "config/app.toml");
    assert!(lines[1].starts_with("  in 3 of 3 snapshots, ") && lines[1].ends_with(", 2 versions"));
    assert!(lines[2].ends_with("2 snapshots, 7 B") && lines[3].ends_with("1 snapshot, 6 B"));
    assert!(
        lines.iter().all(|line| line.chars().count() <= 80),
        "{said}"
    );
    let versions = &json["series"][0]["paths"][0]["versions"];
    assert_eq!(
        (&versions[0]["snapshots"], &versions[1]["size_bytes"]),
        (&2.into(), &6.into())
    );
    assert_eq!(one["series"][0]["snapshots"], 1);
    assert_eq!((code(&nothing), code(&wrong)), (13, 2));
    assert!(stderr(&nothing).contains("error[not-found]") && stderr(&nothing).contains("hint:"));
}
