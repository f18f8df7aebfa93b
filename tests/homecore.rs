//! HomeCore's own document on backup and restore, walked through from top to bottom with the real
//! binary and a HomeCore that commits meanwhile. What needs its HTTP server is for `serve`.

use crate::apps;
use crate::apps::App;
use crate::apps::Machine;
use crate::apps::ends;
use crate::apps::homecore::LEFT_ALONE;
use crate::apps::homecore::revision;
use crate::apps::text;
use crate::oracle::stderr;
use crate::transcripts;
use serde_json::Value;
use std::fs;
use std::path::Path;

const PROFILE: &str = r#"
[profile.homecore]
root = "/opt/homecore"
files = ["config/*.toml", "rules/**/*.toml"]
databases = ["data/state.redb", "data/history.db"]
schedule = "0 2 * * *"
keep-within = "30d"
"#;
const COMMANDS: &str = r#"
[profile.homecore.restore]
running = ["systemctl", "is-active", "--quiet", "homecore"]
stop = ["systemctl", "stop", "homecore"]
start = ["systemctl", "start", "homecore"]
"#;

fn machine() -> Machine {
    Machine::with_profile(App::HomeCore, PROFILE)
}

fn judge(root: &Path) -> u64 {
    apps::judge(App::HomeCore, root, 0..=u64::MAX)
}

fn backup(machine: &Machine) -> Value {
    machine.json(&["backup", "-p", "homecore"])
}

/// "The backup runs while HomeCore is live — no shutdown needed."
#[test]
fn whats_in_a_backup_is_there_though_homecore_goes_on() {
    let machine = machine();
    let mut app = machine.start();
    app.wait_acked(30);

    let acked = app.acked();
    backup(&machine);
    let tried = app.tried();
    app.wait_acked(tried + 30);
    let later = app.acked();
    backup(&machine);
    let all = later..=app.tried();
    machine.done(&["restore", "latest~1", "--to", "first", "--confirm"]);
    machine.done(&["restore", "latest", "--to", "second", "--confirm"]);

    apps::judge(App::HomeCore, &machine.path("first"), acked..=tried);
    apps::judge(App::HomeCore, &machine.path("second"), all);
    let listed = machine.done(&["ls", "latest"]);
    for path in [
        "data/state.redb",
        "data/history.db",
        "config/homecore.toml",
        "config/modes.toml",
        "rules/lights.toml",
    ] {
        assert!(listed.contains(path), "{listed}");
    }
    assert!(!listed.contains("-wal"), "{listed}");
    assert!(app.is_running());
}

/// "Verify contents: unzip -l", and "Restore from backup" with nothing but unzip and cp.
#[test]
fn the_zip_is_what_the_document_unpacks_by_hand() {
    if !has("unzip") {
        eprintln!("SKIPPED the_zip_is_what_the_document_unpacks_by_hand: there is no unzip");
        return;
    }
    let machine = machine();
    machine.make(40);
    backup(&machine);

    machine.done(&["export", "latest", "--layout", "app", "-o", "var/backups"]);

    let listed = machine.shows("unzip -l /var/backups/homecore-backup-*.zip");
    let members = [
        "data/state.redb",
        "data/history.db",
        "config/homecore.toml",
        "config/modes.toml",
        "rules/away.toml",
    ];
    assert!(members.iter().all(|name| listed.contains(name)), "{listed}");
    let name = only_name(&machine.path("var/backups"), ".zip");
    let digits = name.replace(|c: char| c.is_ascii_digit(), "9");
    assert_eq!(digits, "homecore-backup-99999999-999999.zip");
    machine.shows("cd /var/backups && sha256sum -c *.zip.sha256");
    fs::remove_dir_all(machine.root()).unwrap();
    machine.shows(
        "sudo systemctl stop homecore
         unzip /var/backups/homecore-backup-*.zip -d /tmp/hc-restore
         mkdir -p /opt/homecore/data /opt/homecore/config /opt/homecore/rules
         cp /tmp/hc-restore/data/state.redb /opt/homecore/data/
         cp /tmp/hc-restore/data/history.db /opt/homecore/data/
         cp /tmp/hc-restore/config/*.toml /opt/homecore/config/
         cp /tmp/hc-restore/rules/*.toml /opt/homecore/rules/
         sudo systemctl start homecore",
    );
    assert_eq!(judge(&machine.root()), 40);
}

/// The document copies a database beside the log of another one, which SQLite then replays into
/// it. "The -wal and -shm sidecar files are safe to delete when HomeCore is stopped": after a crash
/// they hold commits.
#[test]
fn after_a_crash_the_documents_way_restores_something_else_and_ours_what_was_saved() {
    let machine = machine();
    machine.make(40);
    backup(&machine);
    machine.done(&["restore", "latest", "--to", "tmp/hc-restore", "--confirm"]);
    let mut app = machine.start();
    app.wait_acked(60);
    machine.kill(&mut app);
    let log = machine.root().join("data/history.db-wal");
    assert!(fs::metadata(log).unwrap().len() > 0);

    let theirs = "rm -rf copy; cp -r opt/homecore copy
        cp /tmp/hc-restore/data/* copy/data/
        cp /tmp/hc-restore/rules/* copy/rules/";
    machine.shows(theirs);
    let copy = machine.path("copy");
    let theirs = std::panic::catch_unwind(|| judge(&copy));
    machine.done(&["restore", "latest", "--in-place", "--confirm"]);

    assert_ne!(theirs.ok(), Some(40), "the copy is what was saved");
    assert_eq!(judge(&machine.root()), 40);
    // What was there when it crashed, its log included, is a snapshot.
    machine.done(&["undo", "--confirm"]);
    assert!(judge(&machine.root()) >= app.acked());
}

/// "HomeCore must be stopped before restoring" — and "Make a backup of the current state first".
#[test]
fn a_restore_is_refused_while_it_runs_or_stops_it_and_keeps_what_was_there() {
    let machine = machine();
    machine.make(20);
    backup(&machine);
    let mut app = machine.start();
    app.wait_acked(30);

    let refused = machine.run(&["restore", "latest", "--in-place", "--confirm"]);
    ends(&refused, 15, "while it runs");
    app.wait_acked(app.acked() + 10);
    machine.done(&["restore", "latest", "--in-place", "-n"]);
    let repo = "version = 1\n[repo.main]\nurl = \"/var/backups/statekeep\"\n";
    machine.configure(&format!("{repo}{PROFILE}repo = \"main\"\n{COMMANDS}"));
    let unconfirmed = machine.run(&["restore", "latest", "--in-place"]);
    ends(&unconfirmed, 14, "nobody confirmed");
    assert!(app.is_running(), "{}", machine.calls());
    machine.calls();

    machine.done(&["restore", "latest", "--in-place", "--confirm"]);

    let calls = machine.calls();
    let calls: Vec<&str> = calls.lines().filter(|call| !call.contains("is-")).collect();
    assert_eq!(
        calls,
        ["systemctl stop homecore", "systemctl start homecore"]
    );
    assert_eq!(judge(&machine.root()), 20);
    let safety = &machine.json(&["list"])["items"][0];
    assert_eq!(safety["tags"][0], "pre-restore");
    machine.done(&["undo", "--confirm"]);
    assert!(judge(&machine.root()) >= app.acked());
}

/// "They are hot-reloaded": a rule that was spoilt comes back without a stop.
#[test]
fn the_rules_are_restored_alone_while_it_runs() {
    let machine = machine();
    machine.make(50);
    backup(&machine);
    let old = revision(&machine.root(), "heating");
    let mut app = machine.start();
    app.wait_acked(60);
    let rule = machine.root().join("rules/away.toml");
    let left_alone = machine.root().join(LEFT_ALONE);
    fs::write(&left_alone, "").unwrap();
    fs::write(&rule, "spoilt").unwrap();

    machine.done(&[
        "restore",
        "latest:rules/away.toml",
        "--in-place",
        "--confirm",
    ]);

    assert!(fs::read_to_string(&rule).unwrap().contains("revision"));
    fs::remove_file(left_alone).unwrap();
    let acked = app.acked();
    // So long that it has edited each rule once more.
    app.wait_acked(acked + 50);
    assert!(revision(&machine.root(), "heating") > old);
    let refused = machine.run(&["restore", "latest:data", "--in-place", "--confirm"]);
    ends(&refused, 15, "databases");
    let refused = machine.run(&["restore", "latest", "--in-place", "--confirm"]);
    ends(&refused, 15, "everything");
    app.stop();
    assert!(judge(&machine.root()) >= acked);
}

/// "Wipe everything", "wipe only the device/rule state", "wipe only the history": a wipe comes back,
/// each alone.
#[test]
fn what_was_wiped_comes_back_each_alone() {
    let machine = machine();
    machine.make(20);
    backup(&machine);
    apps::make(App::HomeCore, &machine.root(), 1);
    let data = machine.root().join("data");
    fs::remove_file(data.join("history.db")).unwrap();

    machine.done(&[
        "restore",
        "latest",
        "--in-place",
        "--db",
        "history.db",
        "--confirm",
    ]);
    machine.done(&[
        "restore",
        "latest",
        "--in-place",
        "--db",
        "state.redb",
        "--confirm",
    ]);
    assert_eq!(judge(&machine.root()), 20);
    fs::remove_dir_all(&data).unwrap();
    machine.done(&["restore", "latest:data", "--in-place", "--confirm"]);

    assert_eq!(judge(&machine.root()), 20);
}

/// "Automated daily backup": what the script of the document has gathered is taken in, and thirty
/// days are kept.
#[test]
fn the_archives_of_the_daily_script_become_snapshots_and_age_out() {
    if !has("zip") {
        eprintln!("SKIPPED the_archives_of_the_daily_script: there is no zip");
        return;
    }
    let machine = machine();
    let days = ["20260101", "20260210", "20260301", "20260302"];
    for (at, day) in days.iter().enumerate() {
        apps::make(App::HomeCore, &machine.root(), 5);
        machine.shows(&format!(
            "mkdir -p /var/backups/homecore; cd /opt/homecore
             zip -qr /var/backups/homecore/homecore-{day}.zip data config rules"
        ));
        assert!(at < days.len());
    }
    let import = ["import", "var/backups/homecore", "-p", "homecore"];
    let root = machine.root();
    let import = [&import[..], &["--root", root.to_str().unwrap()]].concat();

    let imported = machine.json(&import);
    let again = machine.json(&import);
    machine.done(&["restore", "2026-02-10", "--to", "back", "--confirm"]);
    let pruned = machine.json(&["prune", "-p", "homecore", "--confirm"]);

    assert_eq!(imported["imported"], 4, "{imported}");
    assert_eq!(again["known"], 4, "{again}");
    assert_eq!(judge(&machine.path("back")), 10);
    assert_eq!(pruned["status"], "ok", "{pruned}");
    let left = machine.json(&["list"]);
    let left: Vec<&str> = left["items"].as_array().unwrap().iter().map(time).collect();
    assert_eq!(left, ["2026-03-02", "2026-03-01", "2026-02-10"]);
}

fn time(snapshot: &Value) -> &str {
    &snapshot["created_at"].as_str().unwrap()[..10]
}

#[test]
fn the_how_to_works_as_it_stands_there() {
    if !has("unzip") || !has("zip") {
        eprintln!("SKIPPED the how-to of HomeCore: there is no zip and unzip");
        return;
    }
    let machine = Machine::new(App::HomeCore);
    machine.make(10);
    fs::write(machine.root().join(LEFT_ALONE), "").unwrap();
    machine.shows(
        "mkdir -p /var/backups/homecore; cd /opt/homecore
         zip -qr /var/backups/homecore/homecore-20260328.zip data config rules",
    );
    let mut app = machine.start();
    app.wait_acked(20);

    let seen = machine.follow("docs/apps/homecore.md");

    transcripts::compare("homecore", &seen);
    assert!(!app.is_running(), "the how-to stops it");
    // It ends with `undo` of the whole restore: nothing that was acknowledged is lost.
    assert!(judge(&machine.root()) >= app.acked());
}

pub(crate) fn has(program: &str) -> bool {
    let found = std::process::Command::new(program).arg("--help").output();
    found.is_ok()
}

/// Returns the name of the only file with this end.
pub(crate) fn only_name(dir: &Path, end: &str) -> String {
    let names = fs::read_dir(dir).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: Vec<String> = names.filter(|name| name.ends_with(end)).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    names[0].clone()
}

#[test]
fn a_refusal_says_what_to_do() {
    let machine = machine();
    machine.make(5);
    backup(&machine);
    let _app = machine.start();

    let refused = machine.run(&["restore", "latest", "--in-place", "--confirm"]);

    let said = stderr(&refused);
    assert!(
        said.contains("error[app-running]") && said.contains("hint: stop it"),
        "{said}"
    );
    assert_eq!(text(&machine.run(&["undo", "--json"])).lines().count(), 2);
}

/// With nothing but tar, sha256sum and jq.
#[test]
fn everything_comes_back_without_statekeep() {
    if !has("jq") || !has("tar") {
        eprintln!("SKIPPED everything_comes_back_without_statekeep: there is no jq or tar");
        return;
    }
    let machine = machine();
    machine.make(20);
    backup(&machine);
    let mut app = machine.start();
    app.wait_acked(30);
    machine.kill(&mut app);

    let scripts = machine.scripts("docs/without-statekeep.md");
    for script in &scripts {
        machine.shows(script);
    }

    assert!(scripts.len() > 3);
    assert_eq!(judge(&machine.root()), 20);
    // What the crash left is there to look at, whole.
    assert!(judge(&machine.path("opt/homecore.old")) >= app.acked());
}
