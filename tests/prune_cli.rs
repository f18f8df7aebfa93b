//! `prune`, `forget`, `hold` and `gc` as people and programs meet them.

use serde_json::Value;
use std::fs;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use tempfile::TempDir;

struct Home(TempDir);

impl Home {
    /// A repository with so many snapshots.
    fn with(snapshots: usize) -> Home {
        let home = Home(TempDir::new().unwrap());
        fs::create_dir(home.0.path().join("app")).unwrap();
        home.done(&["init", "--plain"]);
        for number in 0..snapshots {
            fs::write(home.0.path().join("app/file"), number.to_string()).unwrap();
            home.done(&["backup", "app"]);
        }
        home
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_statekeep"));
        command
            .env_clear()
            .envs(crate::support::taken_away())
            .env("HOME", self.0.path())
            .env("STATEKEEP_REPO", self.0.path().join("repo"))
            .current_dir(self.0.path())
            .args(arguments)
            .stdin(Stdio::null());
        command.output().unwrap()
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs what must fail with this code, and returns the one error it tells.
    fn fails(&self, arguments: &[&str], exit: i32) -> Value {
        let mut arguments = arguments.to_vec();
        arguments.push("--json");
        let output = self.run(&arguments);
        assert_eq!(output.status.code(), Some(exit), "{arguments:?}");
        let error = lines(&output).pop().unwrap();
        assert_eq!(error["type"], "error");
        assert_eq!(error["exit"], exit);
        error
    }

    fn ids(&self) -> Vec<String> {
        let list: Value = serde_json::from_str(&self.done(&["list", "--json"])).unwrap();
        let items = list["items"].as_array().unwrap().iter();
        items
            .map(|item| item["id"].as_str().unwrap().to_string())
            .collect()
    }
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn prune_shows_asks_and_tells() {
    let home = Home::with(3);

    let plan = home.done(&["prune", "-n", "--keep-last", "2"]);
    let asked = home.fails(&["prune", "--keep-last", "2"], 14);
    assert_eq!(home.ids().len(), 3, "nothing was changed");
    let done = home.run(&["prune", "--keep-last", "2", "--confirm", "--json"]);

    assert!(
        plan.contains("GO    ") && plan.contains("last, newest"),
        "{plan}"
    );
    assert!(plan.contains("1 snapshot goes, 2 kept"), "{plan}");
    let hint = asked["hint"].as_str().unwrap();
    assert!(
        hint.ends_with("prune --keep-last 2 --json --confirm"),
        "{hint}"
    );
    let [start, summary] = &lines(&done)[..] else {
        panic!("{done:?}");
    };
    assert_eq!(
        (&start["type"], &start["op"]),
        (&"start".into(), &"prune".into())
    );
    assert_eq!(summary["done"]["removed_snapshots"], 1);
    assert_eq!(
        (&summary["kept"], &summary["removed"]),
        (&2.into(), &1.into())
    );
    assert_eq!(summary["snapshots"].as_array().unwrap().len(), 3);
    assert_eq!(home.ids().len(), 2);
    assert_eq!(home.done(&["gc"]), "Nothing to do.\n");
    home.done(&["check", "--read-data"]);
}

#[test]
fn policies_that_make_no_sense_are_refused() {
    let home = Home::with(2);

    for (arguments, code) in [
        (&["prune"][..], "usage"),
        (&["prune", "--keep-last", "0"], "refused"),
        (&["prune", "--keep-tag", "dialy"], "refused"),
        (&["prune", "--keep-within", "3x"], "usage"),
        (&["prune", "--keep-last", "1", "--max-unused", "x"], "usage"),
        (&["hold", "latest", "--until", "2020-01-01"], "usage"),
        (&["hold", "latest", "--until", "soon"], "usage"),
        (&["hold", "latest", "--release"], "refused"),
    ] {
        assert_eq!(home.fails(arguments, 2)["code"], code, "{arguments:?}");
    }

    home.fails(&["prune", "--keep-last", "1", "--host", "nobody"], 13);
    let hint = home.fails(&["prune"], 2)["hint"].to_string();
    assert!(hint.contains("prune -n --keep-last"), "{hint}");
    assert_eq!(home.ids().len(), 2);
    let empty = Home::with(0);
    empty.done(&["prune", "--keep-last", "1"]);
}

#[test]
fn what_is_held_stays_until_it_is_released() {
    let home = Home::with(3);
    let oldest = home.ids().pop().unwrap();

    home.done(&["hold", &oldest[..12]]);
    home.done(&["prune", "--keep-last", "1", "--confirm"]);
    let held = home.fails(&["forget", &oldest[..12], "--confirm"], 2);
    assert_eq!(home.ids().len(), 2);
    home.done(&["hold", "--release", &oldest[..12]]);
    home.done(&["forget", &oldest[..12], "--confirm"]);

    assert!(held["hint"].as_str().unwrap().contains("hold --release"));
    assert_eq!(home.ids().len(), 1);
}

#[test]
fn forgetting_the_last_snapshot_takes_the_id_of_the_repository() {
    let home = Home::with(1);

    let asked = home.fails(&["forget", "latest", "--confirm"], 14);
    home.fails(&["forget", "latest", "--leave-nothing", "00000000"], 2);
    assert_eq!(home.ids().len(), 1);
    let hint = asked["hint"].as_str().unwrap();
    let id = hint.rsplit(' ').next().unwrap();
    home.done(&["forget", "latest", "--leave-nothing", id]);
    home.done(&["gc", "--confirm"]);

    assert!(home.ids().is_empty());
    let packs = fs::read_dir(home.0.path().join("repo/packs")).unwrap();
    assert_eq!(packs.count(), 0);
    home.done(&["backup", "app"]);
    home.done(&["check", "--read-data"]);
}
