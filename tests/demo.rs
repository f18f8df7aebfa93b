//! `demo`, small: what it shows, what it says to programs, and that it leaves nothing behind.

use rustix::process::Pid;
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_statekeep");
const SMALL: [&str; 4] = ["--size-mib", "2", "--backups", "3"];

fn demo(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command
        .env_clear()
        .envs(crate::support::taken_away())
        .env("TMPDIR", home)
        .arg("demo")
        .args(SMALL)
        .args(arguments)
        .stdin(Stdio::null());
    command
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().next().is_none()
}

#[test]
fn a_demo_shows_backups_that_come_back_whole_and_leaves_nothing_behind() {
    let home = TempDir::new().unwrap();

    let output = demo(home.path(), &[]).output().unwrap();

    let (said, errors) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert_eq!(output.status.code(), Some(0), "{said}{errors}");
    assert_eq!(errors, "");
    let back: Vec<&str> = said
        .lines()
        .filter(|l| l.starts_with("  backup "))
        .collect();
    assert_eq!(back.len(), 2, "{said}");
    assert!(back.iter().all(|line| line.contains("ok: commits 1..")));
    assert!(back[1].starts_with("  backup 3 "), "{said}");
    assert!(
        said.lines().all(|line| line.chars().count() <= 110),
        "{said}"
    );
    assert!(is_empty(home.path()));
}

#[test]
fn a_demo_for_programs_is_one_line_for_each_step_and_a_summary() {
    let home = TempDir::new().unwrap();

    let output = demo(home.path(), &["--json"]).output().unwrap();

    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let kinds: Vec<&str> = lines
        .iter()
        .map(|line| line["type"].as_str().unwrap())
        .collect();
    let backups = ["backup"; 3];
    let restores = ["restore"; 4];
    let expected = [&["start"][..], &backups, &restores, &["summary"]].concat();
    assert_eq!(kinds, expected, "{text}");
    let schemas = crate::schemas::schemas();
    let faults = lines
        .iter()
        .flat_map(|line| crate::schemas::judge(&schemas, line).1);
    assert_eq!(faults.collect::<Vec<_>>(), [""; 0]);
    let number = |line: &Value, name: &str| line[name].as_u64().unwrap();
    for line in &lines[1..4] {
        assert!(
            number(line, "stored_bytes") > 0 && number(line, "targz_bytes") > 0,
            "{text}"
        );
    }
    for line in lines[4..8]
        .iter()
        .filter(|line| line["origin"] == "snapshot")
    {
        let acknowledged = number(line, "acknowledged_commits");
        let (sqlite, redb) = (number(line, "sqlite_commits"), number(line, "redb_commits"));
        assert!(line["ok"] == true && 0 < acknowledged, "{text}");
        assert!(
            acknowledged <= redb && redb <= sqlite && sqlite <= redb + 1,
            "{text}"
        );
    }
    assert_eq!(
        (&lines[8]["status"], &lines[8]["exit"]),
        (&"ok".into(), &0.into())
    );
}

#[test]
fn what_a_demo_keeps_opens_with_its_key_and_is_sound() {
    let home = TempDir::new().unwrap();
    let dir = home.path().join("kept");
    let run = |arguments: &[&str]| {
        let output = Command::new(BINARY)
            .current_dir(&dir)
            .env("HOME", home.path())
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };

    let output = demo(home.path(), &["--dir", dir.to_str().unwrap()])
        .output()
        .unwrap();

    assert!(output.status.success(), "{output:?}");
    run(&["-r", "repo", "--key-file", "key", "check", "--read-data"]);
    // The judge finds no fault where there is none.
    let at_rest = run(&["demo-application", "--judge", "app"]);
    assert!(
        at_rest.contains("history ") && !at_rest.contains("fault"),
        "{at_rest}"
    );
    let again = demo(home.path(), &["--dir", dir.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(again.status.code(), Some(2));
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() {
    let home = TempDir::new().unwrap();
    let mut child = demo(home.path(), &[])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines
        .find(|line| line.as_ref().unwrap().starts_with("     1 "))
        .unwrap()
        .unwrap();
    let pid = Pid::from_child(&child);

    rustix::process::kill_process(pid, Signal::INT).unwrap();

    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(is_empty(home.path()));
}

#[test]
fn the_application_of_a_killed_demo_ends_by_itself() {
    let home = TempDir::new().unwrap();
    let mut application = Command::new(BINARY)
        .arg("demo-application")
        .arg(home.path().join("app"))
        .args(["--size-mib", "1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(application.stdout.take().unwrap()).lines();
    lines
        .find(|line| line.as_ref().unwrap().starts_with("ack 3 "))
        .unwrap()
        .unwrap();

    drop(application.stdin.take());

    let began = Instant::now();
    while application.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(5));
    }
}
