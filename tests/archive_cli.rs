//! `export`, `import` and `restore ARCHIVE` as people and programs meet them.

use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use tempfile::TempDir;

pub(crate) struct Home {
    scratch: TempDir,
}

impl Home {
    /// A home with a snapshot of `app`.
    pub(crate) fn new() -> Home {
        let home = Home {
            scratch: tempfile::tempdir().unwrap(),
        };
        fs::create_dir_all(home.path("app/data")).unwrap();
        fs::write(home.path("app/config.toml"), "port = 1\n").unwrap();
        fs::write(home.path("app/data/notes"), "notes\n").unwrap();
        home.done(&["init", "--plain"]);
        home.done(&["backup", "app"]);
        home
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_statekeep"))
            .env_clear()
            .envs(crate::support::taken_away())
            .env("HOME", self.path("home"))
            .env("STATEKEEP_REPO", self.path("repo"))
            .current_dir(self.scratch.path())
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        self.exits(arguments, 0)
    }

    /// Runs and returns both outputs.
    pub(crate) fn exits(&self, arguments: &[&str], code: i32) -> String {
        let output = self.run(arguments);
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        text
    }
}

pub(crate) fn last_line(output: &[u8]) -> Value {
    let text = std::str::from_utf8(output).unwrap();
    serde_json::from_str(text.lines().next_back().unwrap()).unwrap()
}

#[test]
fn an_export_to_standard_output_is_data_and_all_words_go_elsewhere() {
    let home = Home::new();

    let piped = home.run(&["export", "latest", "-o", "-", "--format", "tar", "--json"]);
    home.done(&["export", "latest", "-o", "a.tar"]);

    assert!(piped.status.success());
    assert!(piped.stdout == fs::read(home.path("a.tar")).unwrap());
    let summary = last_line(&piped.stderr);
    assert_eq!(
        (&summary["op"], &summary["status"]),
        (&"export".into(), &"ok".into())
    );
    assert_eq!(summary["archive_bytes"], piped.stdout.len());
    let shown = home.run(&["show", "latest", "--json"]);
    let shown = last_line(&shown.stdout);
    // Both are the same bytes, so they are one export; the name is that of the last.
    assert_eq!(shown["exports"].as_array().unwrap().len(), 1);
    assert_eq!(shown["exports"][0]["name"], "a.tar");
    assert_eq!(shown["exports"][0]["sha256"], summary["sha256"]);
}

#[test]
fn wrong_exports_say_what_to_do() {
    let home = Home::new();
    home.done(&["export", "latest", "-o", "a.zip"]);

    let table: [(&[&str], i32, &str); 6] = [
        (&["export", "latest", "-o", "a.zip"], 2, "--overwrite"),
        (
            &["export", "latest", "--encrypt"],
            2,
            "--encrypt-password-file",
        ),
        (&["export", "latest:nothing"], 13, "not found"),
        (&["export", "latest:data", "--only", "x"], 2, "contradict"),
        (&["export", "latest", "--layout", "app"], 2, "no layout"),
        (
            &["export", "latest", "-o", "no/such/dir/a.zip"],
            1,
            "cannot",
        ),
    ];
    for (arguments, code, word) in table {
        let text = home.exits(arguments, code);
        assert!(text.contains(word), "{arguments:?}: {text}");
    }
    home.done(&["export", "latest", "-o", "a.zip", "--overwrite"]);
    home.done(&["export", "latest", "-o", "b.zip", "-n"]);
    assert!(!home.path("b.zip").exists());
}

#[test]
fn an_import_is_told_once_for_all_and_the_exit_code_is_that_of_the_first_failure() {
    let home = Home::new();
    fs::create_dir(home.path("old")).unwrap();
    home.done(&["export", "latest", "-o", "old/a.tar.gz"]);
    fs::write(home.path("old/b.zip"), "no zip").unwrap();

    let planned = home.exits(&["import", "old/a.tar.gz", "-n"], 0);
    let both = home.run(&["import", "old", "--json"]);
    let again = home.exits(&["import", "old/a.tar.gz"], 0);

    assert!(planned.contains("would be a snapshot"));
    assert_eq!(both.status.code(), Some(2));
    let summary = last_line(&both.stdout);
    assert_eq!(
        (&summary["imported"], &summary["failed"]),
        (&1.into(), &1.into())
    );
    assert_eq!(summary["archives"][1]["code"], "refused");
    assert!(again.contains("already"));
    let restored = ["restore", "tag:import:a.tar.gz", "--to", "new", "--confirm"];
    home.done(&restored);
    assert_eq!(fs::read(home.path("new/data/notes")).unwrap(), b"notes\n");
}

#[test]
fn an_archive_is_restored_once_that_is_confirmed_and_its_sum_is_right() {
    let home = Home::new();
    home.done(&["export", "latest", "-o", "a.tar.gz"]);
    fs::remove_dir_all(home.path("repo")).unwrap();

    let asked = home.exits(&["restore", "a.tar.gz", "--to", "new"], 14);
    assert!(asked.contains("create") && !home.path("new").exists());
    home.done(&["restore", "a.tar.gz", "--to", "new", "--confirm"]);
    assert_eq!(
        fs::read(home.path("new/config.toml")).unwrap(),
        b"port = 1\n"
    );
    let refused = home.exits(&["restore", "a.tar.gz", "--to", "new", "--confirm"], 2);
    assert!(refused.contains("--overwrite"));

    let sum = fs::read_to_string(home.path("a.tar.gz.sha256")).unwrap();
    let wrong = sum.replacen(|c: char| c != '0', "0", 1);
    fs::write(home.path("a.tar.gz.sha256"), wrong).unwrap();
    let arguments = ["restore", "a.tar.gz", "--to", "other", "--confirm"];
    let damaged = home.exits(&arguments, 4);
    assert!(damaged.contains("--no-verify") && !home.path("other").exists());
    home.done(&[&arguments[..], &["--no-verify"]].concat());
}
