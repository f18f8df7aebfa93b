//! `copy` as a user runs it: keys of the second repository, codes, a kill, a full disk.

use crate::support;
use crate::support::Seeded;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;

/// A plain repository `repo` with snapshots of `app`, and an encrypted one `far`.
struct Home(TempDir);

impl Home {
    fn with_snapshots(count: u64, large_bytes: usize) -> Home {
        let home = Home(TempDir::new().unwrap());
        fs::create_dir(home.path("app")).unwrap();
        fs::write(home.path("pass"), "correct horse\n").unwrap();
        home.done(&["init", "--plain"]);
        let mut random = Seeded::new(count);
        let mut large = random.bytes(large_bytes);
        for number in 0..count {
            let at = random.below(large_bytes as u64) as usize;
            large[at] ^= 1;
            fs::write(home.path("app/large"), &large).unwrap();
            fs::write(home.path("app/number"), number.to_string()).unwrap();
            home.done(&["backup", "app"]);
        }
        home
    }

    fn with_far(count: u64, large_bytes: usize) -> Home {
        let home = Home::with_snapshots(count, large_bytes);
        home.done(&["-r", "far", "init", "--password-file", "pass"]);
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_statekeep"));
        command
            .env_clear()
            .envs(crate::support::taken_away())
            .env("HOME", self.0.path())
            .env("STATEKEEP_REPO", self.path("repo"))
            .current_dir(self.0.path())
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs what must end with this code, and returns the last line of its JSON.
    fn ends(&self, arguments: &[&str], exit: i32) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {said}");
        serde_json::from_str(said.lines().last().unwrap()).unwrap()
    }

    fn count(&self, repo: &str) -> usize {
        let list = self.ends(&["-r", repo, "list"], 0);
        list["items"].as_array().unwrap().len()
    }

    /// Every snapshot of the one restores to the same as its copy in the other.
    fn assert_same(&self) {
        let list = self.ends(&["-r", "far", "list"], 0);
        for item in list["items"].as_array().unwrap() {
            let copy = item["id"].as_str().unwrap();
            let shown = self.ends(&["-r", "far", "show", copy], 0);
            let original = shown["copied_from"]["snapshot"].as_str().unwrap();
            let out = TempDir::new_in(self.0.path()).unwrap();
            let models = [("repo", original), ("far", copy)].map(|(repo, id)| {
                let to = out.path().join(repo);
                let to = to.to_str().unwrap();
                self.done(&["-r", repo, "restore", id, "--to", to, "--confirm"]);
                support::model_of(&out.path().join(repo))
            });
            assert!(models[0] == models[1], "{copy}");
        }
        self.done(&["-r", "far", "check", "--read-data"]);
    }
}

#[test]
fn a_plain_repository_is_copied_to_an_encrypted_one() {
    let home = Home::with_far(3, 400_000);

    let plan = home.ends(&["copy", "--to", "far", "-n"], 0);
    let summary = home.ends(&["copy", "--to", "far"], 0);
    let again = home.ends(&["copy", "--to", "far"], 0);

    assert_eq!(
        (&plan["op"], &plan["dry_run"]),
        (&"copy".into(), &true.into())
    );
    assert_eq!(plan["snapshots"].as_array().unwrap().len(), 3);
    assert_eq!(plan["read_bytes"], summary["read_bytes"]);
    assert_eq!(summary["snapshots"].as_array().unwrap().len(), 3);
    assert!(summary["stored_bytes"].as_u64().unwrap() > 400_000);
    assert_eq!(
        (&again["present"], &again["read_bytes"]),
        (&3.into(), &0.into())
    );
    home.assert_same();
    let text = home.done(&["copy", "--to", "far", "latest"]);
    assert!(
        text.starts_with("Copied 0 snapshots to repository"),
        "{text}"
    );
}

#[test]
fn the_second_repository_has_keys_of_its_own() {
    let home = Home::with_far(1, 1000);
    // What the password opens, and nothing of the first repository.
    fs::write(home.path("wrong"), "no\n").unwrap();

    let wrong = home.ends(&["copy", "--to", "far", "--to-password-file", "wrong"], 12);
    let missing = home.ends(&["copy", "--to", "nowhere"], 10);
    let same = home.ends(&["copy", "--to", "repo"], 2);
    let both = [
        "copy",
        "--to",
        "far",
        "--to-password-file",
        "a",
        "--to-key-file",
        "b",
    ];
    home.ends(&both, 2);
    home.ends(&["copy", "--to", "far", "0000"], 13);

    assert!(
        wrong["hint"]
            .as_str()
            .unwrap()
            .contains("--to-password-file")
    );
    assert!(missing["message"].as_str().unwrap().contains("nowhere"));
    assert!(
        same["message"]
            .as_str()
            .unwrap()
            .contains("the same repository")
    );
    assert_eq!(home.count("far"), 0);
    fs::create_dir_all(home.path(".config/statekeep")).unwrap();
    let config = "version = 1\n[repo.offsite]\nurl = \"FAR\"\npassword-file = \"PASS\"\n";
    let config = config.replace("FAR", home.path("far").to_str().unwrap());
    let config = config.replace("PASS", home.path("pass").to_str().unwrap());
    fs::write(home.path(".config/statekeep/config.toml"), config).unwrap();
    home.done(&["copy", "--to", "offsite"]);
    home.done(&["copy", "--to", "far", "--to-password-file", "pass"]);
    assert_eq!(home.count("far"), 1);
}

#[test]
fn a_second_repository_that_fails_is_code_19_and_the_first_is_fine() {
    let home = Home::with_far(1, 100_000);
    fs::rename(home.path("far/packs"), home.path("far/moved")).unwrap();
    fs::write(home.path("far/packs"), "no directory").unwrap();

    let failed = home.ends(&["copy", "--to", "far"], 19);

    assert_eq!(failed["code"], "copy-failed");
    assert!(failed["hint"].as_str().unwrap().contains("check"));
    home.done(&["check", "--read-data"]);
    fs::remove_file(home.path("far/packs")).unwrap();
    fs::rename(home.path("far/moved"), home.path("far/packs")).unwrap();
    home.done(&["copy", "--to", "far"]);
    home.assert_same();
}

#[test]
fn damage_is_code_4_and_names_the_snapshot() {
    let home = Home::with_far(2, 100_000);
    let list = home.ends(&["list"], 0);
    let packs = fs::read_dir(home.path("repo/packs")).unwrap();
    for pack in packs {
        let path = pack.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
    }

    let summary = home.ends(&["copy", "--to", "far"], 4);

    let damaged = summary["damaged"].as_array().unwrap();
    assert_eq!(damaged.len(), 2);
    let ids: Vec<_> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["id"])
        .collect();
    assert!(damaged.iter().all(|one| ids.contains(&&one["snapshot"])));
    assert_eq!(home.count("far"), 0);
}

/// I7, I10: killed at any moment, the next run goes on, and nothing is copied twice.
#[test]
fn a_copy_that_is_killed_is_continued() {
    let kills = std::env::var("STATEKEEP_KILLS").map_or(12, |text| text.parse().unwrap());
    let home = Home::with_far(4, 3_000_000);
    let (mut random, mut there) = (Seeded::new(3), 0);
    for kill in 0..kills {
        let mut child = home.command(&["copy", "--to", "far"]);
        let child = child.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = child.spawn().unwrap();
        std::thread::sleep(Duration::from_micros(random.below(60_000)));
        child.kill().unwrap();
        child.wait().unwrap();

        let now = home.count("far");
        assert!(
            (there..=4).contains(&now),
            "kill {kill}: {there}, then {now}"
        );
        there = now;
    }
    home.done(&["copy", "--to", "far"]);

    assert_eq!(home.count("far"), 4);
    home.assert_same();
    home.done(&["check", "--read-data"]);
    eprintln!("{kills} kills, {there} of 4 snapshots copied in spite of them");
}

#[test]
fn a_full_disk_is_code_16_and_room_makes_it_work() {
    let home = Home::with_snapshots(3, 1_500_000);
    fs::create_dir(home.path("disk")).unwrap();
    let mount = |options: &str| {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "tmpfs"]);
        let status = command
            .arg(home.path("disk"))
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success())
    };
    if !mount("size=4m") {
        eprintln!("SKIPPED: mounting a small tmpfs needs root");
        return;
    }
    struct Unmount(PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }
    let _unmount = Unmount(home.path("disk"));
    std::os::unix::fs::symlink(home.path("disk/far"), home.path("far")).unwrap();
    home.done(&["-r", "disk/far", "init"]);
    let ballast = vec![0; 64 << 10];
    let mut number = 0;
    // Less room than one snapshot takes.
    while free_bytes(&home.path("disk")) > 1_000_000 {
        fs::write(home.path(&format!("disk/ballast-{number}")), &ballast).unwrap();
        number += 1;
    }

    let full = home.ends(&["copy", "--to", "far"], 16);

    assert_eq!(full["code"], "no-space");
    assert!(
        full["message"]
            .as_str()
            .unwrap()
            .contains("first repository")
    );
    assert_eq!(home.count("repo"), 3);
    for number in 0..number {
        fs::remove_file(home.path(&format!("disk/ballast-{number}"))).unwrap();
    }
    home.done(&["copy", "--to", "far"]);
    home.assert_same();
}

fn free_bytes(path: &std::path::Path) -> u64 {
    let output = Command::new("stat")
        .args(["-f", "-c", "%a %S"])
        .arg(path)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let numbers: Vec<u64> = text
        .split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect();
    numbers[0] * numbers[1]
}
