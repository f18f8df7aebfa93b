//! A machine with one of the applications: where the documents say it is, below a directory of
//! its own, with the programs that the documents name.

use super::App;
use super::Role;
use crate::oracle::stderr;
use crate::writers::VARIABLE;
use crate::writers::Writer;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use tempfile::TempDir;

/// Directories that documents name, which are below the machine's own here.
const PLACES: [&str; 7] = ["/opt", "/var", "/etc", "/mnt", "/data", "/tmp", "/srv"];

/// What `systemctl`, `docker` and `hoziron` do here: say what they were called for, and stop the
/// application as hard as can be. `@` is the machine's directory.
const SERVICE: &str = r#"#!/bin/sh
echo "$(basename "$0") $*" >> @/calls
case "$*" in
*is-active*) test -e @/pid ;;
*stop*)
    test -e @/pid || exit 0
    pid=$(cat @/pid)
    rm @/pid
    kill -KILL "$pid"
    while [ -n "$(ls "/proc/$pid/fd" 2>&1 | grep '^[0-9]')" ]; do sleep 0.01; done ;;
esac
"#;

pub(crate) struct Machine {
    app: App,
    scratch: TempDir,
}

impl Machine {
    /// Without a repository and a configuration.
    pub(crate) fn new(app: App) -> Machine {
        let machine = Machine {
            app,
            scratch: TempDir::new().unwrap(),
        };
        for dir in ["home", "bin", "opt", "var/backups", "mnt", "tmp"] {
            fs::create_dir_all(machine.path(dir)).unwrap();
        }
        for name in ["systemctl", "docker", "hoziron"] {
            machine.program(name, SERVICE);
        }
        machine.program("sudo", "#!/bin/sh\nexec \"$@\"\n");
        let role = Role::Call(app, machine.root(), "WORDS".into());
        let role = serde_json::to_string(&role).unwrap();
        let tests = std::env::current_exe().unwrap();
        let call = format!(
            "#!/bin/sh\n{VARIABLE}=$(echo '{role}' | sed \"s/WORDS/$*/\")\nexport {VARIABLE}\n\
             exec {} --exact apps::child --ignored --nocapture\n",
            tests.display()
        );
        machine.program("chaoscypher", &call);
        machine
    }

    /// With the configuration that a document shows, and a repository in its place.
    pub(crate) fn with_profile(app: App, profile: &str) -> Machine {
        let machine = Machine::new(app);
        let repo = "[repo.main]\nurl = \"/var/backups/statekeep\"\n[defaults]\nrepo = \"main\"\n";
        machine.configure(&format!("version = 1\n{repo}{profile}"));
        machine.done(&["init", "--plain"]);
        machine
    }

    pub(crate) fn configure(&self, text: &str) {
        let path = self.path("etc/statekeep/config.toml");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, relocated(text, &self.path(""))).unwrap();
    }

    /// Has a program of this name, instead of any other.
    pub(crate) fn program(&self, name: &str, text: &str) {
        let path = self.path("bin").join(name);
        let at = self.scratch.path().display().to_string();
        fs::write(&path, text.replace("@/", &format!("{at}/"))).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        match name {
            "" => self.scratch.path().to_path_buf(),
            name => self.scratch.path().join(name),
        }
    }

    /// Where the application is.
    pub(crate) fn root(&self) -> PathBuf {
        self.path(match self.app {
            App::HomeCore => "opt/homecore",
            App::Hoziron => "home/.hoziron",
            App::ChaosCypher => "data",
        })
    }

    /// Makes the application, with so many commits.
    pub(crate) fn make(&self, commits: u64) {
        super::make(self.app, &self.root(), commits);
    }

    /// Starts the application.
    pub(crate) fn start(&self) -> Writer {
        let role = Role::Serve(self.app, self.root());
        let role = serde_json::to_string(&role).unwrap();
        let writer = Writer::begin("apps::child", &role, |_| ());
        fs::write(self.path("pid"), writer.pid().to_string()).unwrap();
        writer
    }

    /// Stops it without warning: its logs lie about.
    pub(crate) fn kill(&self, writer: &mut Writer) {
        writer.kill();
        fs::remove_file(self.path("pid")).unwrap();
    }

    fn prepared(&self, mut command: Command) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let binary = Path::new(env!("CARGO_BIN_EXE_statekeep")).parent().unwrap();
        let bin = self.path("bin");
        let path = format!("{}:{}:{path}", bin.display(), binary.display());
        command
            .env_clear()
            .envs(crate::support::taken_away())
            .env("PATH", path)
            .env("HOME", self.path("home"))
            .env("STATEKEEP_CONFIG", self.path("etc/statekeep/config.toml"))
            .current_dir(self.scratch.path())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.prepared(Command::new(env!("CARGO_BIN_EXE_statekeep")));
        command.args(arguments).output().unwrap()
    }

    /// Runs it, and returns what it says.
    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        ends(&output, 0, &arguments.join(" "));
        text(&output)
    }

    /// Returns the last document it prints.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let said = self.done(&[arguments, &["--json"]].concat());
        serde_json::from_str(said.lines().last().unwrap()).unwrap()
    }

    /// Runs what a document shows. Its places are those of this machine.
    pub(crate) fn shell(&self, script: &str) -> Output {
        let mut command = self.prepared(Command::new("sh"));
        let below = self.path("");
        let script = relocated(script, &below);
        let mut paths = script
            .split_whitespace()
            .filter(|word| word.starts_with('/'));
        assert!(
            paths.all(|word| Path::new(word).starts_with(&below)),
            "{script}"
        );
        command.args(["-euc", &script]).output().unwrap()
    }

    /// Runs what a document shows as somebody else's machine would: the same places, another home.
    pub(crate) fn shell_elsewhere(&self, script: &str) -> Output {
        fs::create_dir_all(self.path("elsewhere")).unwrap();
        self.shell(&format!("HOME=$PWD/elsewhere; export HOME\n{script}"))
    }

    /// Runs it, and returns what it says.
    pub(crate) fn shows(&self, script: &str) -> String {
        let output = self.shell(script);
        ends(&output, 0, script);
        text(&output)
    }

    /// Returns what the programs of the application were called for, and forgets it.
    pub(crate) fn calls(&self) -> String {
        let calls = fs::read_to_string(self.path("calls")).unwrap_or_default();
        let _ = fs::remove_file(self.path("calls"));
        calls
    }

    /// Returns the commands of a document, block by block.
    pub(crate) fn scripts(&self, document: &str) -> Vec<String> {
        blocks(&read(document), "sh")
    }

    /// Runs the commands of a document as they stand there, one block after the other, with the
    /// configuration that it shows first. Returns what a person at the terminal would have seen.
    pub(crate) fn follow(&self, document: &str) -> String {
        self.configure(&blocks(&read(document), "toml")[0]);
        let scripts = self.scripts(document);
        assert!(!scripts.is_empty());
        let mut seen = String::new();
        for script in scripts {
            let output = self.shell(&aloud(&script));
            ends(&output, 0, &script);
            seen.push_str(&self.as_seen(&text(&output)));
            seen.push('\n');
        }
        seen
    }

    /// Returns what was said with the places of the documents, and without what is of the tests: the
    /// name of this process, which stands for the application, and what it says of itself.
    fn as_seen(&self, said: &str) -> String {
        let here = self.path("").display().to_string();
        let said = said.replace(&format!("{here}/home/"), "~/");
        let said = said.replace(&here, "");
        let exe = std::env::current_exe().unwrap();
        let comm: String = exe.file_name().unwrap().to_str().unwrap().into();
        let name = match self.app {
            App::HomeCore => "homecore",
            App::Hoziron => "hoziron",
            App::ChaosCypher => "chaoscypher",
        };
        let said = said.replace(&comm[..comm.len().min(15)], name);
        let starts = ["running 1 test", "test apps::child", "test result: "];
        let is_ours = |line: &&str| !starts.iter().any(|start| line.starts_with(start));
        let mut lines: Vec<&str> = said.lines().filter(is_ours).collect();
        lines.dedup_by(|line, before| line.is_empty() && before.is_empty());
        lines.join("\n") + "\n"
    }
}

pub(crate) fn read(document: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    fs::read_to_string(path).unwrap()
}

/// Returns a text with the places it names below a directory.
fn relocated(text: &str, below: &Path) -> String {
    let below = below.display().to_string();
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        let is_whole = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric());
        let names = |place: &&str| text[at..].strip_prefix(*place).is_some_and(is_whole);
        let starts = || PLACES.iter().any(names);
        let is_start = || match text[..at].chars().next_back() {
            None => true,
            Some(before) => " \n\t\"'=(".contains(before),
        };
        if c == '/' && is_start() && starts() {
            out.push_str(&below);
        }
        out.push(c);
    }
    out
}

/// Returns a script that shows each line before it runs it, all in the order it is said.
fn aloud(script: &str) -> String {
    let mut out = String::from("exec 2>&1\n");
    for line in script.lines() {
        let shown = line.split(" #").next().unwrap_or(line).trim_end();
        let quoted = shown.replace('\'', r"'\''");
        out.push_str(&format!("printf '%s\\n' '$ {quoted}'\n{line}\n"));
    }
    out
}

fn blocks(text: &str, info: &str) -> Vec<String> {
    let fence = format!("```{info}\n");
    let parts = text.split(&fence).skip(1);
    parts
        .map(|part| part.split("```").next().unwrap().to_string())
        .collect()
}

pub(crate) fn ends(output: &Output, exit: i32, what: &str) {
    let said = format!("{}{}", text(output), stderr(output));
    assert_eq!(output.status.code(), Some(exit), "{what}\n{said}");
}

pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn no_command_of_a_document_reaches_the_real_machine() {
    let at = |text: &str| relocated(text, Path::new("/m"));

    assert_eq!(at("cd /mnt && ls"), "cd /m/mnt && ls");
    assert_eq!(
        at("cp /tmp/x/data/* /data/y"),
        "cp /m/tmp/x/data/* /m/data/y"
    );
    assert_eq!(
        at("\"/var/lib\" '/opt' (/etc)"),
        "\"/m/var/lib\" '/m/opt' (/m/etc)"
    );
    assert_eq!(at("/data\n--root=/data"), "/m/data\n--root=/m/data");
    assert_eq!(
        at("/dev/null ~/data x/tmp /database"),
        "/dev/null ~/data x/tmp /database"
    );
}
