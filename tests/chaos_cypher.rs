//! Chaos Cypher's own document on backup and restore, walked through from top to bottom with the
//! real binary and a Chaos Cypher that commits meanwhile. What needs its HTTP server is for `serve`.

use crate::apps;
use crate::apps::App;
use crate::apps::Machine;
use crate::apps::chaos_cypher::BASES;
use crate::apps::chaos_cypher::database;
use crate::apps::chaos_cypher::judge_base;
use crate::apps::chaos_cypher::migrated;
use crate::apps::ends;
use crate::homecore::only_name;
use crate::oracle::stderr;
use crate::transcripts;
use std::fs;
use std::path::Path;

const PROFILE: &str = r#"
[profile.chaos-cypher]
root = "/data"
databases = ["databases/*/app.db"]
exclude = ["backups/**", "models/**", "logs/**"]
schedule = "0 2 * * *"
keep-within = "14d"
"#;
const COMMANDS: &str = r#"
[profile.chaos-cypher.restore]
stop = ["docker", "compose", "stop", "chaoscypher"]
start = ["docker", "compose", "start", "chaoscypher"]
after = [["chaoscypher", "upgrade"]]
"#;
const REPO: &str = "version = 1\n[repo.main]\nurl = \"/var/backups/statekeep\"\n[defaults]\n\
    repo = \"main\"\n";

fn machine() -> Machine {
    Machine::with_profile(App::ChaosCypher, PROFILE)
}

fn judge(root: &Path) -> u64 {
    apps::judge(App::ChaosCypher, root, 0..=u64::MAX)
}

/// Judges the root itself, which has what backups leave out.
fn judge_bases(machine: &Machine) -> u64 {
    let newest = BASES.map(|base| judge_base(&database(&machine.root(), base)));
    assert!(
        newest[1] == newest[0] || newest[1] + 1 == newest[0],
        "{newest:?}"
    );
    newest[0]
}

fn back_up(machine: &Machine) {
    machine.done(&["backup", "-p", "chaos-cypher"]);
}

/// "Back up a live, actively-used database without stopping the container": every knowledge base,
/// all at one instant, with its search index and its vectors.
#[test]
fn a_backup_captures_every_knowledge_base_while_it_is_used() {
    let machine = machine();
    let mut app = machine.start();
    app.wait_acked(70);

    let acked = app.acked();
    back_up(&machine);
    let tried = app.tried();
    machine.done(&["restore", "latest", "--to", "back", "--confirm"]);

    apps::judge(App::ChaosCypher, &machine.path("back"), acked..=tried);
    // Uploads, which its own backups lack, come along unless they are left out.
    let upload = "databases/default/uploads/paper.pdf";
    assert!(machine.path("back").join(upload).exists());
    let without = PROFILE.replace("\"logs/**\"", "\"logs/**\", \"databases/*/uploads/**\"");
    machine.configure(&format!("{REPO}{without}"));
    back_up(&machine);
    let listed = machine.done(&["ls", "latest"]);
    assert!(!listed.contains("paper.pdf") && listed.contains("research/app.db"));
    assert!(app.is_running());
}

/// "Creates a clean, compacted copy": one file that SQLite opens as it is, by the name it would
/// have; usable with `cp` alone.
#[test]
fn one_database_is_exported_compacted_and_restored_by_hand() {
    let machine = machine();
    // Most of what it wrote was deleted since.
    machine.make(200);
    back_up(&machine);
    let base = "latest:databases/default";

    let export = ["export", base, "--layout", "app", "-o"];
    machine.done(&[&export[..], &["data/backups/default", "--compact"]].concat());
    machine.done(&[&export[..], &["mnt"]].concat());

    let whole = machine
        .path("mnt")
        .join(only_name(&machine.path("mnt"), ".db"));
    let dir = machine.root().join("backups/default");
    let name = only_name(&dir, ".db");
    let digits = name.replace(|c: char| c.is_ascii_digit(), "9");
    assert_eq!(digits, "app_99999999_999999.db");
    let bytes = |path: &Path| fs::metadata(path).unwrap().len();
    assert!(bytes(&dir.join(&name)) < bytes(&whole));
    let mut app = machine.start();
    app.wait_acked(220);
    machine.kill(&mut app);
    machine.shows(
        "docker compose stop chaoscypher
         cp /data/backups/default/app_*.db /data/databases/default/app.db
         rm -f /data/databases/default/app.db-wal /data/databases/default/app.db-shm
         docker compose start chaoscypher",
    );
    assert_eq!(judge_base(&database(&machine.root(), "default")), 200);
}

/// "Restoring a backup": validated, a safety copy, no stale logs, replaced. The document keeps one
/// safety copy of the main file alone; ours is complete, and the next restore does not replace it.
#[test]
fn a_restore_keeps_every_state_it_replaces_with_its_log() {
    let machine = machine();
    machine.make(70);
    back_up(&machine);
    let mut app = machine.start();
    app.wait_acked(90);
    machine.kill(&mut app);
    let log = machine.root().join("databases/default/app.db-wal");
    assert!(fs::metadata(log).unwrap().len() > 0);
    let restore = ["restore", "latest", "--in-place", "--confirm"];

    // As the document makes it: `app.db.pre_restore`.
    fs::create_dir(machine.path("theirs")).unwrap();
    let theirs = machine.path("theirs/app.db");
    fs::copy(database(&machine.root(), "default"), &theirs).unwrap();
    machine.done(&restore);
    assert_eq!(judge_bases(&machine), 70);
    apps::make(App::ChaosCypher, &machine.root(), 1);
    machine.done(&restore);
    assert_eq!(judge_bases(&machine), 70);

    let theirs = std::panic::catch_unwind(|| judge_base(&theirs));
    assert!(
        theirs.is_err() || theirs.unwrap() < app.acked(),
        "it lacks nothing"
    );
    let copies = machine.json(&["list", "--tag", "pre-restore"]);
    let copies = copies["items"].as_array().unwrap();
    let ids: Vec<&str> = copies
        .iter()
        .map(|copy| copy["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), 2);
    machine.done(&["restore", ids[1], "--to", "first", "--confirm"]);
    assert!(judge(&machine.path("first")) >= app.acked());
    machine.done(&["restore", ids[0], "--to", "second", "--confirm"]);
    apps::judge(App::ChaosCypher, &machine.path("second"), 71..=71);
}

/// One knowledge base comes back; the other goes on with what it has.
#[test]
fn one_knowledge_base_is_restored_alone() {
    let machine = machine();
    machine.make(20);
    back_up(&machine);
    apps::make(App::ChaosCypher, &machine.root(), 5);

    let path = "databases/research/app.db";
    machine.done(&["restore", "latest", "--in-place", "--db", path, "--confirm"]);

    assert_eq!(judge_base(&database(&machine.root(), "research")), 20);
    assert_eq!(judge_base(&database(&machine.root(), "default")), 25);
}

/// "Cortex automatically creates a backup before applying any pending migration": and puts it back
/// by itself if the migration fails.
#[test]
fn a_migration_that_fails_halfway_is_taken_back_in_every_knowledge_base() {
    let machine = machine();
    machine.make(20);
    let guard = ["guard", "-p", "chaos-cypher", "--revision", "9be07d", "--"];
    let with = |words: &[&'static str]| machine.run(&[&guard[..], words].concat());

    let failed = with(&["chaoscypher", "upgrade", "broken"]);

    ends(&failed, 1, "a migration that fails");
    let said = stderr(&failed);
    assert!(said.contains("error[migration-failed]"), "{said}");
    assert_eq!(migrated(&machine.root()), [false, false]);
    assert_eq!(judge_bases(&machine), 20);
    let held = &machine.json(&["list", "--tag", "pre-migration"])["items"][0];
    let tags = held["tags"].to_string();
    assert!(tags.contains("pre-9be07d-20"), "{tags}");
    ends(&with(&["chaoscypher", "upgrade"]), 0, "one that does not");
    assert_eq!(migrated(&machine.root()), [true, true]);
    let status = machine.done(&["guard", "status", "-p", "chaos-cypher"]);
    assert!(status.contains("from version 7 to 8"), "{status}");
    ends(
        &machine.run(&["guard", "rollback", "-p", "chaos-cypher"]),
        14,
        "no confirmation",
    );
    machine.done(&["guard", "rollback", "-p", "chaos-cypher", "--confirm"]);
    assert_eq!(migrated(&machine.root()), [false, false]);
}

/// "Run chaoscypher upgrade to ensure the schema is current if the backup predates a migration":
/// between stop and start, by the profile.
#[test]
fn a_backup_from_before_a_migration_is_upgraded_after_it_is_restored() {
    let machine = machine();
    machine.configure(&format!("{REPO}{PROFILE}{COMMANDS}"));
    machine.make(20);
    back_up(&machine);
    machine.shows("chaoscypher upgrade");
    let mut app = machine.start();
    app.wait_acked(25);

    machine.done(&["restore", "latest", "--in-place", "--confirm"]);

    let calls = machine.calls();
    let stop = "docker compose stop chaoscypher\ndocker compose start chaoscypher\n";
    assert_eq!(calls, stop);
    assert_eq!(migrated(&machine.root()), [true, true]);
    assert_eq!(judge_bases(&machine), 20);
    assert!(!app.is_running());
}

/// "Listing", "deletes backups older than 14 days", "delete a specific backup": backups that exist
/// already are taken in, each with its date and its knowledge base.
#[test]
fn backups_that_exist_become_snapshots_and_age_out() {
    let machine = machine();
    let dir = machine.root().join("backups/default");
    fs::create_dir_all(&dir).unwrap();
    for (n, day) in [10, 24, 25, 26].iter().enumerate() {
        apps::make(App::ChaosCypher, &machine.root(), 2);
        let to = dir.join(format!("app_202606{day}_143022.db"));
        fs::copy(database(&machine.root(), "default"), to).unwrap();
        assert!(n < 4);
    }
    let root = machine.root();
    let root = root.to_str().unwrap();

    machine.done(&[
        "import",
        "data/backups/default",
        "-p",
        "chaos-cypher",
        "--root",
        root,
    ]);
    machine.done(&["restore", "2026-06-10", "--to", "old", "--confirm"]);
    machine.done(&["prune", "-p", "chaos-cypher", "--confirm"]);

    assert_eq!(judge_base(&database(&machine.path("old"), "default")), 2);
    let left = machine.json(&["list"]);
    let items = left["items"].as_array().unwrap();
    let days: Vec<&str> = items
        .iter()
        .map(|item| &item["created_at"].as_str().unwrap()[..10])
        .collect();
    assert_eq!(days, ["2026-06-26", "2026-06-25", "2026-06-24"]);
    let second = items[1]["id"].as_str().unwrap();
    machine.done(&["forget", second, "--confirm"]);
    machine.done(&["gc", "--confirm"]);
    machine.done(&["check", "--read-data"]);
    machine.done(&["restore", "latest", "--to", "new", "--confirm"]);
    assert_eq!(judge_base(&database(&machine.path("new"), "default")), 8);
}

/// A drill is what the document asks people to do by hand, and what nobody does.
#[test]
fn a_drill_judges_every_knowledge_base() {
    let machine = machine();
    let assert = "[[profile.chaos-cypher.drill.assert]]\ndatabase = \"databases/default/app.db\"\n\
        sql = \"SELECT count(*) FROM nodes WHERE id > 0\"\nexpect = \"10\"\n";
    machine.configure(&format!("{REPO}{PROFILE}{assert}"));
    machine.make(10);
    back_up(&machine);

    let drilled = machine.json(&["drill", "-p", "chaos-cypher"]);

    assert_eq!(drilled["status"], "ok", "{drilled}");
    assert_eq!(drilled["databases"].as_array().unwrap().len(), 2);
    assert!(machine.done(&["list"]).contains("proven"));
}

#[test]
fn the_how_to_works_as_it_stands_there() {
    let machine = Machine::new(App::ChaosCypher);
    machine.make(10);
    let dir = machine.root().join("backups/default");
    let to = dir.join("app_20260601_143022.db");
    fs::copy(database(&machine.root(), "default"), to).unwrap();
    let mut app = machine.start();
    app.wait_acked(20);

    let seen = machine.follow("docs/apps/chaos-cypher.md");

    transcripts::compare("chaos-cypher", &seen);
    assert!(!app.is_running(), "the how-to stops it");
    assert!(judge_bases(&machine) >= app.acked());
}
