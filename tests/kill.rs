//! The real binary, killed, starved of space and run beside itself.
//!
//! CI runs a short slice. The long runs:
//! `STATEKEEP_KILLS=1000 cargo test --release kill_ -- --nocapture`

use crate::support;
use crate::support::Model;
use crate::support::Seeded;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;

/// A place with a repository of its own, as a user has it.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Place {
        let place = Place {
            dir: TempDir::new().unwrap(),
        };
        fs::create_dir(place.path("app")).unwrap();
        place
    }

    fn with_repo() -> Place {
        let place = Place::new();
        assert_done(&place.run(&["init"]));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_statekeep"));
        command
            .arg("-r")
            .arg(self.path("repo"))
            .args(args)
            .current_dir(self.dir.path())
            .env("HOME", self.dir.path())
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("STATEKEEP_CACHE_DIR", self.path("cache"))
            .stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn spawn(&self, args: &[&str]) -> Child {
        let mut command = self.command(args);
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Returns the full ids of all snapshots.
    fn snapshots(&self) -> Vec<String> {
        let output = self.run(&["list", "--json"]);
        assert_done(&output);
        let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let items = list["items"].as_array().unwrap().iter();
        items
            .map(|item| item["id"].as_str().unwrap().to_string())
            .collect()
    }

    fn restored(&self, snapshot: &str) -> Model {
        let target = TempDir::new_in(self.dir.path()).unwrap();
        let to = target.path().join("out");
        assert_done(&self.run(&[
            "restore",
            snapshot,
            "--to",
            to.to_str().unwrap(),
            "--confirm",
        ]));
        support::model_of(&to)
    }
}

fn assert_done(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {said}", output.status);
}

fn grow(root: &Path, random: &mut Seeded) {
    for _ in 0..=random.below(8) {
        let path = root.join(format!("f{}", random.below(60)));
        let len = random.below(4000) as usize;
        fs::write(path, random.text(len)).unwrap();
    }
    let path = root.join("large");
    let mut content = fs::read(&path).unwrap_or_else(|_| random.bytes(3_000_000));
    let at = random.below(content.len() as u64) as usize;
    content[at] ^= 0xff;
    fs::write(path, content).unwrap();
}

/// I6, I7, I10: SIGKILL at a random moment, then everything that was ever saved restores.
#[test]
fn kill_at_random_moments_loses_nothing_that_was_saved() {
    let kills = std::env::var("STATEKEEP_KILLS").map_or(25, |text| text.parse().unwrap());
    let place = Place::with_repo();
    let mut random = Seeded::new(77);
    let mut saved: BTreeMap<String, Model> = BTreeMap::new();
    let mut committed = 0;
    for kill in 0..kills {
        grow(&place.path("app"), &mut random);
        let model = support::model_of(&place.path("app"));
        let mut child = place.spawn(&["backup", "app"]);
        std::thread::sleep(Duration::from_micros(random.below(70_000)));
        child.kill().unwrap();
        let was_done = child.wait().unwrap().success();

        let found = place.snapshots();
        let new: Vec<_> = found
            .iter()
            .filter(|id| !saved.contains_key(*id))
            .cloned()
            .collect();
        assert!(
            new.len() <= 1 && (new.len() == 1 || !was_done),
            "kill {kill}"
        );
        saved.extend(new.into_iter().map(|id| (id, model.clone())));
        assert_eq!(found.len(), saved.len(), "kill {kill}: a snapshot is gone");
        // The newest, and one at random: all of them, over the run.
        let picks = [
            saved.len().saturating_sub(1),
            random.below(saved.len() as u64) as usize,
        ];
        for pick in picks.into_iter().filter(|_| !saved.is_empty()) {
            let (id, model) = saved.iter().nth(pick).unwrap();
            assert!(place.restored(id) == *model, "kill {kill}: {id} differs");
        }
        committed = saved.len();
    }
    assert_done(&place.run(&["backup", "app"]));
    assert_done(&place.run(&["check", "--read-data"]));
    for (id, model) in &saved {
        assert!(place.restored(id) == *model, "{id} differs at the end");
    }
    eprintln!("{kills} kills, {committed} snapshots saved in spite of them");
}

#[test]
fn two_processes_back_up_while_a_third_checks() {
    let place = Place::with_repo();
    let mut random = Seeded::new(5);
    for name in ["a", "b"] {
        fs::create_dir(place.path(name)).unwrap();
        grow(&place.path(name), &mut random);
    }
    for _ in 0..6 {
        let writers: Vec<_> = ["a", "b"].map(|name| place.spawn(&["backup", name])).into();
        let check = place.run(&["check", "--read-data"]);
        assert_done(&check);
        for mut writer in writers {
            assert!(writer.wait().unwrap().success());
        }
        grow(&place.path("a"), &mut random);
        grow(&place.path("b"), &mut random);
    }
    assert_eq!(place.snapshots().len(), 12);
    assert_done(&place.run(&["check", "--read-data"]));
}

/// Mounts a small file system, if this process may.
pub(crate) struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    pub(crate) fn mount(at: PathBuf, options: &str) -> Option<SmallDisk> {
        fs::create_dir_all(&at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(&at)
            .stderr(Stdio::null())
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then_some(SmallDisk { at })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

/// T-34: the disk is full after every further 4 KiB; nothing is lost, and space makes it work.
#[test]
fn a_disk_that_fills_up_anywhere_loses_nothing() {
    let place = Place::new();
    let Some(_disk) = SmallDisk::mount(place.path("repo"), "size=4m") else {
        eprintln!("SKIPPED: mounting a small tmpfs needs root");
        return;
    };
    let mut random = Seeded::new(6);
    fs::write(place.path("app/data"), random.bytes(300_000)).unwrap();
    assert_done(&place.run(&["init"]));
    assert_done(&place.run(&["backup", "app"]));
    let saved = place.snapshots();
    let first = support::model_of(&place.path("app"));
    let ballast = place.path("repo/ballast");
    let (mut room, mut refusals) = (0, 0);
    loop {
        // What was stored for nothing before must not be what fails now.
        let taken = 4 << 20;
        let mut used = 0;
        for entry in walk(&place.path("repo")) {
            used += entry.metadata().unwrap().len().div_ceil(4096) * 4096;
        }
        fs::write(&ballast, vec![1; (taken - used - room) as usize]).unwrap_or_default();
        fs::write(place.path("app/data"), random.bytes(300_000)).unwrap();
        let output = place.run(&["backup", "app"]);
        fs::remove_file(&ballast).unwrap();
        assert!(place.restored(&saved[0]) == first, "room {room}");
        if output.status.success() {
            break;
        }
        assert_eq!(
            output.status.code(),
            Some(16),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(place.snapshots().len(), 1);
        room += 16 * 1024;
        refusals += 1;
        assert!(refusals < 60);
    }
    assert!(refusals > 5, "{refusals}");
    assert_done(&place.run(&["check", "--read-data"]));
}

fn walk(dir: &Path) -> Vec<fs::DirEntry> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(walk(&entry.path())),
            false => found.push(entry),
        }
    }
    found
}
