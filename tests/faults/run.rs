//! Runs the rows of the table: each test with its safeguard, which must pass, and without, which
//! must not.

use super::table::ROWS;
use super::table::Row;
use super::table::Tests;
use crate::support::TAKEN_AWAY;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

/// What takes longer has noticed too: nobody would wait for it.
const TIME_MAX: Duration = Duration::from_secs(240);

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Passed,
    Failed,
    Never,
    /// There is no such test.
    Nothing,
}

struct Binaries {
    main: PathBuf,
    unit: Option<PathBuf>,
}

impl Binaries {
    fn find() -> Binaries {
        let main = std::env::current_exe().unwrap();
        let unit = newest_unit_tests(main.parent().unwrap());
        Binaries { main, unit }
    }

    /// Runs the test of a row. `None`: its binary was not built.
    fn run(&self, row: &Row, taken_away: &str) -> Option<Ended> {
        let binary = match row.tests {
            Tests::Main => &self.main,
            Tests::Unit => self.unit.as_ref()?,
            Tests::Nobody => return None,
        };
        // A file, not a pipe: processes that a killed test left would keep that open.
        let mut said = tempfile::tempfile().unwrap();
        let mut command = Command::new(binary);
        command
            .args([row.test, "--exact", "--include-ignored"])
            .env(TAKEN_AWAY, taken_away)
            .stdin(Stdio::null())
            .stdout(said.try_clone().unwrap())
            .stderr(Stdio::null());
        let ended = wait(command.spawn().unwrap());
        let mut text = String::new();
        std::io::Seek::rewind(&mut said).unwrap();
        std::io::Read::read_to_string(&mut said, &mut text).unwrap();
        match ended {
            Ended::Passed if !text.contains("1 passed") => Some(Ended::Nothing),
            ended => Some(ended),
        }
    }
}

/// The unit tests are built by `cargo test --lib` beside these, under a name that is not known.
fn newest_unit_tests(dir: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries
        .filter(|path| path.extension().is_none())
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| is_named(&name.to_string_lossy()))
        })
        .map(|path| (fs::metadata(&path).unwrap().modified().unwrap(), path))
        .collect();
    found.sort();
    let is_with_faults = |path: &PathBuf| {
        let list = Command::new(path).arg("--list").output();
        let list = String::from_utf8_lossy(&list.unwrap().stdout).into_owned();
        list.contains("safeguard::tests::what_is_not_named_holds: test")
    };
    found
        .into_iter()
        .rev()
        .map(|(_, path)| path)
        .find(is_with_faults)
}

fn is_named(name: &str) -> bool {
    name.strip_prefix("statekeep-")
        .is_some_and(|hash| hash.len() == 16)
}

fn wait(mut child: Child) -> Ended {
    let began = Instant::now();
    loop {
        match child.try_wait().unwrap() {
            Some(status) if status.success() => return Ended::Passed,
            Some(_) => return Ended::Failed,
            None if began.elapsed() > TIME_MAX => {
                child.kill().unwrap();
                child.wait().unwrap();
                return Ended::Never;
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Runs these rows, says what came of each, and fails unless every test did what its row says.
fn score(rows: &[&Row]) {
    let binaries = Binaries::find();
    let mut sound: BTreeSet<&str> = BTreeSet::new();
    let (mut noticed, mut wrong) = (0, Vec::new());
    for row in rows {
        if row.tests == Tests::Nobody {
            eprintln!("-- {} is missed by nothing yet", row.safeguard);
            continue;
        }
        let began = Instant::now();
        if !sound.contains(row.test) {
            match binaries.run(row, "") {
                Some(Ended::Passed) => drop(sound.insert(row.test)),
                ended => {
                    wrong.push(format!(
                        "{}: with it, {} ended: {ended:?}",
                        row.safeguard, row.test
                    ));
                    eprintln!("?? {}", wrong.last().unwrap());
                    continue;
                }
            }
        }
        let ended = binaries.run(row, row.safeguard);
        let secs = began.elapsed().as_secs_f64();
        match ended {
            Some(Ended::Failed | Ended::Never) => {
                noticed += 1;
                eprintln!(
                    "ok {} {secs:.1}s {:?} {}",
                    row.safeguard,
                    ended.unwrap(),
                    row.test
                );
            }
            ended => {
                wrong.push(format!(
                    "{}: without it, {} ended: {ended:?}",
                    row.safeguard, row.test
                ));
                eprintln!("!! {}", wrong.last().unwrap());
            }
        }
    }
    eprintln!(
        "{noticed} of {} safeguards are missed by a test",
        rows.len()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// `STATEKEEP_FAULTS=LogRead,FrameSalts` runs some.
#[test]
#[ignore = "minutes; docs/testing.md says how"]
fn all() {
    let only = std::env::var("STATEKEEP_FAULTS").unwrap_or_default();
    let is_wanted = |row: &&Row| only.is_empty() || only.split(',').any(|one| one == row.safeguard);
    let rows: Vec<&Row> = ROWS.iter().filter(is_wanted).collect();

    score(&rows);
}

#[test]
fn some_that_cost_little_are_missed() {
    let rows: Vec<&Row> = ROWS.iter().filter(|row| row.is_quick()).collect();

    assert!(rows.len() >= 10);
    score(&rows);
}
