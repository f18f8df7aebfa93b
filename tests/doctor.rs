//! `doctor`: each thing that may be wrong, brought about, found by the real binary, and told with
//! a command that a shell takes. Nothing it looks at changes.

use crate::support;
use crate::support::TestClock;
use serde_json::Value;
use statekeep::context::Context;
use statekeep::context::Timestamp;
use statekeep::disk::RealDisk;
use statekeep::ops::backup;
use statekeep::repo::Repo;
use statekeep::store::DirStore;
use std::fs;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::sync::Arc;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_statekeep");

/// A home with a repository, an application and a configuration; names have spaces and quotes.
struct Home {
    scratch: TempDir,
}

impl Home {
    fn new() -> Home {
        let home = Home {
            scratch: tempfile::tempdir().unwrap(),
        };
        fs::create_dir_all(home.path("the app/sub")).unwrap();
        fs::write(home.path("the app/a.toml"), "a = 1\n").unwrap();
        home.configure("");
        let output = home.run(&["init"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Writes the configuration, with more keys for the profile.
    fn configure(&self, more: &str) {
        let text = format!(
            "version = 1\n[repo.main]\nurl = {:?}\n[defaults]\nrepo = \"main\"\n\
             [profile.app]\nroot = {:?}\n{more}",
            self.path("it's a repo"),
            self.path("the app")
        );
        fs::write(self.path("config.toml"), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command
            .env_clear()
            .env("HOME", self.path("home"))
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("STATEKEEP_CONFIG", self.path("config.toml"))
            .current_dir(self.scratch.path())
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn back_up(&self) {
        let output = self.run(&["backup", "-p", "app"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }

    /// Returns the document; it says the exit code and shells take its commands.
    fn doctor(&self) -> Value {
        self.document(self.command(&["doctor", "--json"]))
    }

    fn document(&self, mut command: Command) -> Value {
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            document["exit"],
            output.status.code().unwrap(),
            "{document}"
        );
        assert_eq!(document["type"], "doctor");
        for finding in document["findings"].as_array().unwrap() {
            let is_fine = finding["level"] == "ok";
            assert!(is_fine || finding["why"].is_string() || finding["hint"].is_string());
            // What a command says that cannot open a repository names options, and is no command.
            let is_own = finding["check"] != "key";
            if let Some(hint) = finding["hint"].as_str().filter(|_| is_own) {
                let parsed = Command::new("sh").args(["-nc", hint]).status().unwrap();
                assert!(parsed.success(), "{hint}");
            }
        }
        document
    }

    fn key_file(&self) -> PathBuf {
        let keys = fs::read_dir(self.path("home/.config/statekeep/keys")).unwrap();
        keys.map(|entry| entry.unwrap().path()).next().unwrap()
    }
}

/// Returns the finding of a test, which must be of this level.
fn finding<'d>(document: &'d Value, check: &str, level: &str) -> &'d Value {
    let findings = document["findings"].as_array().unwrap();
    let found = findings
        .iter()
        .find(|one| one["check"] == check && one["level"] == level);
    found.unwrap_or_else(|| panic!("no {level} of {check} in {document:#}"))
}

/// Returns every path with its content, mode and times.
fn tree(root: &Path) -> Vec<(PathBuf, Vec<u8>, std::time::SystemTime, u32)> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let content = match meta.is_dir() {
            true => {
                todo.extend(
                    fs::read_dir(&path)
                        .unwrap()
                        .map(|entry| entry.unwrap().path()),
                );
                Vec::new()
            }
            false => fs::read(&path).unwrap(),
        };
        found.push((
            path,
            content,
            meta.modified().unwrap(),
            meta.permissions().mode(),
        ));
    }
    found.sort();
    found
}

#[test]
fn a_sound_setup_has_no_problem_and_nothing_is_changed() {
    let home = Home::new();
    let database = rusqlite::Connection::open(home.path("the app/x.db")).unwrap();
    let sql = "pragma journal_mode = wal; create table t(a); insert into t values(1)";
    database.execute_batch(sql).unwrap();
    home.back_up();
    let before = [tree(&home.path("it's a repo")), tree(&home.path("the app"))];

    let document = home.doctor();

    assert_eq!(document["problem_count"], 0, "{document:#}");
    assert_eq!(document["exit"], 0);
    for check in [
        "config", "cache", "writable", "key", "key-file", "log", "room", "source",
    ] {
        finding(&document, check, "ok");
    }
    // A kit that is still beside the key file saves nobody.
    let kit = finding(&document, "recovery-kit", "warning");
    assert!(kit["hint"].as_str().unwrap().starts_with("cp "));
    let after = [tree(&home.path("it's a repo")), tree(&home.path("the app"))];
    assert!(before == after, "doctor changed something");
    drop(database);
}

#[test]
fn the_screen_tells_what_why_and_what_to_type() {
    let home = Home::new();
    fs::set_permissions(home.key_file(), Permissions::from_mode(0o644)).unwrap();

    let loud = home.run(&["doctor"]);
    let quiet = home.run(&["doctor", "-q"]);

    let text = String::from_utf8(loud.stdout).unwrap();
    assert!(
        text.contains("WARNING") && text.contains("(mode 644)"),
        "{text}"
    );
    assert!(
        text.contains("whoever has it can read every backup"),
        "{text}"
    );
    assert!(text.contains("\n  hint: chmod 600 "), "{text}");
    assert!(text.contains("0 problems, "), "{text}");
    let text = String::from_utf8(quiet.stdout).unwrap();
    assert!(!text.contains("ok  ") && text.contains("WARNING"), "{text}");
}

#[test]
fn a_configuration_with_faults_is_told_first() {
    let home = Home::new();
    fs::write(home.path("config.toml"), "version = 1\n[profle.x]\n").unwrap();

    let document = home.doctor();

    let found = finding(&document, "config", "problem");
    assert!(
        found["message"].as_str().unwrap().contains("profle"),
        "{found}"
    );
    assert_eq!(document["exit"], 2);
    finding(&document, "cache", "ok");
}

#[test]
fn a_repository_that_is_gone_has_the_exit_code_of_other_commands() {
    let home = Home::new();
    fs::rename(home.path("it's a repo"), home.path("elsewhere")).unwrap();

    let document = home.doctor();

    finding(&document, "repository", "problem");
    assert_eq!(document["exit"], 10);
    // What needs no repository is tested all the same.
    finding(&document, "source", "ok");
}

#[test]
fn a_lost_key_is_told() {
    let home = Home::new();
    fs::remove_file(home.key_file()).unwrap();

    let document = home.doctor();

    finding(&document, "key", "problem");
    assert_eq!(document["exit"], 12);
}

#[test]
fn a_format_that_is_newer_is_told() {
    let home = Home::new();
    let path = home.path("it's a repo/config");
    let mut config = fs::read(&path).unwrap();
    // The version follows the magic number, see docs/format.md.
    config[8] = 99;
    fs::remove_file(&path).unwrap();
    fs::write(&path, config).unwrap();

    let document = home.doctor();

    let exit = document["exit"].as_i64().unwrap();
    assert!([4, 18].contains(&exit), "{document:#}");
    assert_eq!(document["status"], "problems");
}

#[test]
fn a_log_that_is_damaged_is_told() {
    let home = Home::new();
    home.back_up();
    let log = home.path("it's a repo/log");
    let mut slots: Vec<PathBuf> = fs::read_dir(log)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    slots.sort();
    let slot = slots.last().unwrap();
    let mut bytes = fs::read(slot).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(slot).unwrap();
    fs::write(slot, bytes).unwrap();
    // What this machine remembers would hide it.
    fs::remove_dir_all(home.path("home/.cache")).unwrap();

    let document = home.doctor();

    finding(&document, "log", "problem");
    assert_eq!(document["exit"], 4);
}

#[test]
fn roots_and_programs_that_are_not_there_are_told() {
    let home = Home::new();
    // A program with a space in its name is refused by the configuration.
    let plain = home.path("plain");
    home.configure(&format!(
        "before = [{{ command = [\"no-such-program-9\", \"x\"] }}, {{ command = [{plain:?}] }}]\n"
    ));
    fs::write(plain, "").unwrap();

    let document = home.doctor();

    let findings = document["findings"].as_array().unwrap();
    let programs = findings.iter().filter(|one| one["check"] == "program");
    assert_eq!(programs.count(), 2, "{document:#}");
    assert_eq!(document["exit"], 2);

    home.configure("");
    fs::remove_dir_all(home.path("the app")).unwrap();
    let document = home.doctor();
    finding(&document, "config", "problem");
    assert_eq!(document["exit"], 2);
}

#[test]
fn a_reserve_that_was_spent_and_a_place_without_a_home_are_told() {
    let home = Home::new();
    fs::remove_file(home.path("it's a repo/reserve")).unwrap();

    finding(&home.doctor(), "reserve", "warning");

    fs::write(home.path("no directory"), "").unwrap();
    let mut command = home.command(&["doctor", "--json"]);
    command.env("STATEKEEP_CACHE_DIR", home.path("no directory/cache"));
    finding(&home.document(command), "cache", "warning");
}

#[test]
fn a_schedule_without_anything_that_starts_it_is_told() {
    let home = Home::new();
    home.configure("schedule = \"0 2 * * *\"\n");
    let machine = home.doctor();
    let findings = machine["findings"].as_array().unwrap();
    let timer = findings.iter().find(|one| one["check"] == "timer").unwrap();
    // This machine may have one of its own.
    if timer["level"] == "warning" {
        assert!(
            timer["hint"]
                .as_str()
                .unwrap()
                .contains("statekeep-backup@app.timer")
        );
    }

    let units = home.path("home/.config/systemd/user/timers.target.wants");
    fs::create_dir_all(&units).unwrap();
    fs::write(units.join("statekeep-backup@app.timer"), "[Timer]\n").unwrap();

    finding(&home.doctor(), "timer", "ok");
}

#[test]
fn what_this_user_may_not_read_or_write_is_told() {
    if rustix::process::geteuid().is_root() {
        let skipped = "SKIPPED: root may read and write everything";
        eprintln!("{skipped}");
        return;
    }
    let home = Home::new();
    fs::set_permissions(home.path("the app/a.toml"), Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(home.path("it's a repo"), Permissions::from_mode(0o500)).unwrap();

    let document = home.doctor();

    finding(&document, "writable", "problem");
    finding(&document, "source", "problem");
    assert_eq!(document["exit"], 1);
    fs::set_permissions(home.path("it's a repo"), Permissions::from_mode(0o700)).unwrap();
}

/// Dated ahead by the library, whose clock can be set.
#[test]
fn a_snapshot_from_the_future_is_told() {
    let home = Home::new();
    let plain = home.path("plain");
    let at = plain.to_str().unwrap();
    assert!(home.run(&["init", "--plain", at]).status.success());
    let store = DirStore::open(Arc::new(RealDisk), &plain).unwrap();
    let repo = Repo::open(Arc::new(store), &[], None).unwrap();
    let tomorrow = Timestamp(Context::new().clock.now().0 + 86_400_000_000_000);
    let cx = Context {
        clock: Arc::new(TestClock::at(tomorrow)),
        ..Context::new()
    };
    let options = support::options(&home.path("the app"));
    backup::backup(&cx, &repo, &options).unwrap();

    let document = home.document(home.command(&["-r", at, "doctor", "--json"]));

    let clock = finding(&document, "clock", "warning");
    assert_eq!(clock["hint"], "timedatectl");
    finding(&document, "encryption", "warning");
}

#[test]
fn a_restore_that_was_interrupted_is_told() {
    let home = Home::new();
    home.back_up();
    let listed = home.run(&["list", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let dir = home.path("the app/.statekeep-restore");
    fs::create_dir(&dir).unwrap();
    let journal = serde_json::json!({
        "version": 1, "phase": "Publishing", "snapshot": listed["items"][0]["id"],
        "safety": null, "only": [], "logs": [], "removes": [], "files": [],
    });
    fs::write(dir.join("journal"), journal.to_string()).unwrap();

    let document = home.doctor();

    let found = finding(&document, "unfinished", "problem");
    let id = &listed["items"][0]["id"].as_str().unwrap()[..8];
    let again = format!("statekeep restore {id} --in-place -p app");
    assert_eq!(found["hint"], again.as_str());
    assert_eq!(document["exit"], 1);
}
