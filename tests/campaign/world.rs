//! A machine with an application, a repository, and everything an operation may need; it is put
//! back for each fault, and judged after it.

use crate::support;
use crate::support::Model;
use crate::support::Node;
use crate::support::Seeded;
use rusqlite::Connection;
use statekeep::disk::RealDisk;
use statekeep::format::key::Credential;
use statekeep::format::keyfile::KeyFile;
use statekeep::id::SnapshotId;
use statekeep::repo::Repo;
use statekeep::store::DirStore;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::sync::Arc;
use tempfile::TempDir;

use super::operations::Operation;

/// Exit codes that say how a command failed because of the machine it ran on.
const FAILED: [i32; 7] = [1, 3, 11, 16, 17, 19, 20];

/// Where one fault after the other happens.
pub(super) struct World {
    /// The place itself, which may be another file system, and the state it is put back to.
    at: PathBuf,
    kept: PathBuf,
    _dir: TempDir,
    /// What each snapshot holds, oldest first.
    pub(super) saved: Vec<(String, Model)>,
    /// The application as it is now, before any operation.
    pub(super) app: Model,
    files: BTreeSet<PathBuf>,
    /// What stands for `{…}` in arguments.
    words: BTreeMap<&'static str, String>,
}

impl World {
    pub(super) fn new() -> World {
        let dir = TempDir::new().unwrap();
        let at = dir.path().join("world");
        fs::create_dir(&at).unwrap();
        World::make(dir, at)
    }

    /// Makes it in a directory that something is mounted at.
    pub(super) fn make(dir: TempDir, at: PathBuf) -> World {
        let mut world = World {
            kept: dir.path().join("kept"),
            at,
            _dir: dir,
            saved: Vec::new(),
            app: Model::new(),
            files: BTreeSet::new(),
            words: BTreeMap::new(),
        };
        world.fill();
        copy_tree(&world.at, &world.kept);
        world
    }

    fn fill(&mut self) {
        let app = self.path("app");
        fs::create_dir_all(app.join("sub")).unwrap();
        fs::create_dir(self.path("tmp")).unwrap();
        let mut random = Seeded::new(31);
        for number in 0..12 {
            fs::write(app.join(format!("sub/f{number}")), random.text(900)).unwrap();
        }
        fs::write(app.join("large"), random.bytes(700_000)).unwrap();
        let config = format!(
            "version = 1\n[repo.main]\nurl = {:?}\n[defaults]\nrepo = \"main\"\n\
             keep = {{ last = 2 }}\n[profile.app]\nroot = {:?}\nfiles = [\"**\"]\n\
             databases = [\"state.db\"]\n",
            self.path("repo"),
            app
        );
        fs::write(self.path("c.toml"), config).unwrap();
        self.must(&["init"]);
        for version in 1..=3 {
            self.become_version(version);
            self.must(&["backup", "-p", "app"]);
        }
        self.become_version(4);
        self.must(&["-r", "repo2", "init", "--plain"]);
        self.must(&["export", "latest", "-o", "e.tar.gz"]);
        self.must(&["key", "add", "--new-key-file", "k2"]);
        self.app = support::model_of(&app);
        self.saved = self.snapshots().unwrap().into_iter().collect();
        let list: serde_json::Value =
            serde_json::from_slice(&self.run(&["list", "--json"]).stdout).unwrap();
        let ids: Vec<&str> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .rev()
            .map(|item| item["id"].as_str().unwrap())
            .collect();
        self.saved
            .sort_by_key(|(id, _)| ids.iter().position(|known| known == id));
        let keys: serde_json::Value =
            serde_json::from_slice(&self.run(&["key", "list", "--json"]).stdout).unwrap();
        let second = keys["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|key| key["label"].as_str() != Some("key file"))
            .unwrap();
        self.words = BTreeMap::from([
            ("{oldest}", self.saved[0].0.clone()),
            ("{newest}", self.saved[2].0.clone()),
            ("{key2}", second["name"].as_str().unwrap().to_string()),
            ("{app}", app.to_str().unwrap().to_string()),
        ]);
        self.files = self.beside();
    }

    fn become_version(&self, version: u32) {
        let app = self.path("app");
        let db = Connection::open(app.join("state.db")).unwrap();
        let sql = format!(
            "CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, x INTEGER, body BLOB);
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)
             INSERT OR REPLACE INTO t SELECT i, {version}, randomblob(200) FROM n
             WHERE {version} = 1 OR i % 7 = {version}"
        );
        db.execute_batch(&sql).unwrap();
        fs::write(app.join("sub/f3"), format!("version {version}\n")).unwrap();
        let mut large = fs::read(app.join("large")).unwrap();
        large[version as usize * 100_000] ^= 1;
        fs::write(app.join("large"), large).unwrap();
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.at.join(name)
    }

    /// Puts everything back to how it was made.
    pub(super) fn lay(&self) {
        for entry in fs::read_dir(&self.at).unwrap() {
            let path = entry.unwrap().path();
            match path.symlink_metadata().unwrap().is_dir() {
                true if path.ends_with("lost+found") => {}
                true => fs::remove_dir_all(path).unwrap(),
                false => fs::remove_file(path).unwrap(),
            }
        }
        copy_tree(&self.kept, &self.at);
    }

    /// Returns the command, with the tool it runs under before it.
    pub(super) fn command(&self, tool: &[&str], args: &[&str]) -> Command {
        let binary = env!("CARGO_BIN_EXE_statekeep");
        // Nothing may hang for ever because of a fault.
        let mut command = Command::new("timeout");
        command.args(["-k", "5", "120"]).args(tool).arg(binary);
        command.args(["-c", "c.toml", "--progress", "none"]);
        command.args(args.iter().map(|arg| {
            self.words
                .iter()
                .fold(arg.to_string(), |text, (word, value)| {
                    text.replace(word, value)
                })
        }));
        command
            .current_dir(&self.at)
            .env("HOME", &self.at)
            .env("TMPDIR", self.path("tmp"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("STATEKEEP_CACHE_DIR", self.path("cache"))
            .stdin(Stdio::null());
        command
    }

    pub(super) fn run(&self, args: &[&str]) -> Output {
        self.command(&[], args).output().unwrap()
    }

    fn must(&self, args: &[&str]) {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", said(&output));
    }

    /// Opens a repository with the key file that is there, by the library.
    fn open(&self, name: &str) -> Result<Repo, String> {
        let store = DirStore::open(Arc::new(RealDisk), &self.path(name)).map_err(text)?;
        let mut credentials = Vec::new();
        if name == "repo" {
            let keys = fs::read_dir(self.path("config/statekeep/keys")).map_err(text)?;
            for key in keys
                .flatten()
                .filter(|key| key.path().extension().is_some())
            {
                let file = fs::read_to_string(key.path()).map_err(text)?;
                let file = KeyFile::decode(&file).map_err(text)?;
                credentials.push(Credential::Secret(file.secret.clone()));
            }
        }
        Repo::open(Arc::new(store), &credentials, None).map_err(text)
    }

    /// Returns what each snapshot holds, read chunk by chunk.
    fn snapshots(&self) -> Result<BTreeMap<String, Model>, String> {
        self.snapshots_in("repo")
    }

    pub(super) fn snapshots_in(&self, name: &str) -> Result<BTreeMap<String, Model>, String> {
        let repo = self.open(name)?;
        let state = repo.read_state(&support::context()).map_err(text)?;
        let ids: Vec<SnapshotId> = state.snapshots.keys().copied().collect();
        let read = |id: SnapshotId| {
            let model = support::model_in(&repo, &id).map_err(|error| format!("{id}: {error}"))?;
            Ok((id.to_string(), model))
        };
        ids.into_iter().map(read).collect()
    }

    /// Judges what a fault left, and what a second run makes of it. Returns everything wrong.
    pub(super) fn judge(
        &self,
        operation: &Operation,
        output: &Output,
        is_kill: bool,
    ) -> Vec<String> {
        let mut faults = Vec::new();
        let mut note = |result: Result<(), String>| faults.extend(result.err());
        note(self.is_told(operation, output, is_kill));
        note(self.holds_everything(operation));
        note(self.app_is_whole(operation));
        if output.status.success() {
            note((operation.done)(self).map_err(|error| format!("reported done, but {error}")));
        } else if !is_kill {
            note(self.has_no_litter(operation));
        }
        let again = self.run(operation.args);
        let code = again.status.code().unwrap_or(-1);
        let again = match (operation.name, code) {
            // What is there in part differs, and is replaced only if one says so.
            ("restore", 2) => self.run(&[operation.args, &["--overwrite"]].concat()),
            // So is a key file that opens nothing: the hint is to remove it.
            ("key-add" | "key-export", 2) => {
                for made in operation.makes {
                    let _ = fs::remove_file(self.path(made));
                }
                self.run(operation.args)
            }
            _ => again,
        };
        let code = again.status.code().unwrap_or(-1);
        if !(code == 0 || operation.again.contains(&code)) {
            note(Err(format!("repeated: {}: {}", again.status, said(&again))));
        }
        note((operation.done)(self).map_err(|error| format!("repeated, but {error}")));
        note(
            self.holds_everything(operation)
                .map_err(|error| format!("repeated, but {error}")),
        );
        note(
            self.has_no_litter(operation)
                .map_err(|error| format!("repeated, but {error}")),
        );
        faults
    }

    /// A command that fails says so with a code of the documentation, and what to do.
    fn is_told(&self, operation: &Operation, output: &Output, is_kill: bool) -> Result<(), String> {
        let said = said(output);
        // What could not be said on standard error was not.
        let is_said = said.is_empty() || said.contains("hint:");
        match output.status.code() {
            Some(0 | 3) => Ok(()),
            Some(code) if operation.fails.contains(&code) => Ok(()),
            Some(code) if FAILED.contains(&code) && is_said => Ok(()),
            Some(code) if FAILED.contains(&code) => Err(format!("no hint: {said}")),
            _ if is_kill && is_killed(output) => Ok(()),
            _ => Err(format!("ended with {}: {said}", output.status)),
        }
    }

    fn holds_everything(&self, operation: &Operation) -> Result<(), String> {
        let found = self.snapshots()?;
        for (number, (id, model)) in self.saved.iter().enumerate() {
            match found.get(id) {
                Some(there) if there == model => {}
                Some(_) => return Err(format!("snapshot {number} differs")),
                None if operation.removes.contains(&number) => {}
                None => return Err(format!("snapshot {number} is gone")),
            }
        }
        let check = self.run(&["check", "--read-data"]);
        match check.status.success() {
            true => Ok(()),
            false => Err(format!("check: {}", said(&check))),
        }
    }

    /// Each file is what it was, or what the operation is to make of it.
    fn app_is_whole(&self, operation: &Operation) -> Result<(), String> {
        let now = support::model_of(&self.path("app"));
        let newer = operation.becomes.map(|number| &self.saved[number].1);
        for (path, node) in &now {
            let name = String::from_utf8_lossy(path);
            let is_old = self.app.get(path) == Some(node);
            let is_new = newer.is_some_and(|newer| same(newer.get(path), node));
            let is_own = operation.becomes.is_some()
                && (name.starts_with(".statekeep-restore") || name.contains("-shm"));
            if !(is_old || is_new || is_own) {
                return Err(format!("{name} of the application is neither old nor new"));
            }
        }
        match self.app.keys().find(|path| !now.contains_key(*path)) {
            Some(path) => Err(format!("{} is gone", String::from_utf8_lossy(path))),
            None => Ok(()),
        }
    }

    /// Files beside the repository, the application, the cache and the keys.
    fn beside(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        let mut todo = vec![self.at.clone()];
        while let Some(dir) = todo.pop() {
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                let path = entry.path();
                let name = path.strip_prefix(&self.at).unwrap().to_path_buf();
                if ["app", "repo", "repo2", "cache", "lost+found", "new"]
                    .iter()
                    .any(|o| name.starts_with(o))
                {
                    continue;
                }
                if entry.file_type().unwrap().is_dir() {
                    todo.push(path);
                }
                found.insert(name);
            }
        }
        found
    }

    fn has_no_litter(&self, operation: &Operation) -> Result<(), String> {
        let is_made = |path: &PathBuf| operation.makes.iter().any(|made| path.starts_with(made));
        let now = self.beside();
        let litter: Vec<_> = now
            .difference(&self.files)
            .filter(|path| !is_made(path))
            .collect();
        match litter.is_empty() {
            true => Ok(()),
            false => Err(format!("litter: {litter:?}")),
        }
    }

    pub(super) fn becomes(&self, number: usize) -> Result<(), String> {
        self.is_restored("app", number)
    }

    /// Returns whether a directory holds exactly the files of a snapshot.
    pub(super) fn is_restored(&self, dir: &str, number: usize) -> Result<(), String> {
        let there = support::model_of(&self.path(dir));
        for (path, node) in &self.saved[number].1 {
            if path.is_empty() {
                continue;
            }
            match there.get(path) {
                Some(found) if same(Some(node), found) => {}
                _ => return Err(format!("{} differs", String::from_utf8_lossy(path))),
            }
        }
        Ok(())
    }
}

/// Free pages of databases are zeroes in a snapshot; there are none here.
fn same(wanted: Option<&Node>, found: &Node) -> bool {
    wanted == Some(found)
}

fn is_killed(output: &Output) -> bool {
    // `timeout` and `strace` die of what killed their child, or say it as a shell does.
    output.status.signal() == Some(9) || output.status.code() == Some(137)
}

pub(super) fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    text.trim().replace('\n', " | ")
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let status = Command::new("cp").arg("-aT").arg(from).arg(to).status();
    assert!(status.unwrap().success());
}
