//! Profiles and the configuration as people and programs meet them: the real binary on small
//! imitations of the applications that are known.

use serde_json::Value;
use statekeep::config;
use statekeep::config::EXAMPLES;
use statekeep::config::Place;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use tempfile::TempDir;

/// A home of its own, with a configuration.
struct Home {
    scratch: TempDir,
}

impl Home {
    /// With a plain repository `main` that is there already.
    fn new(rest: &str) -> Home {
        let home = Home {
            scratch: tempfile::tempdir().unwrap(),
        };
        home.configure(&format!(
            "[repo.main]\nurl = \"{}\"\n{rest}",
            home.text("repo")
        ));
        home.done(&["-r", "main", "init", "--plain"]);
        home
    }

    fn configure(&self, rest: &str) {
        let dir = self.path("home/.config/statekeep");
        fs::create_dir_all(&dir).unwrap();
        let rest = rest.replace("@", &self.scratch.path().display().to_string());
        fs::write(dir.join("config.toml"), format!("version = 1\n{rest}")).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    fn database(&self, name: &str) {
        self.write(name, "");
        let connection = rusqlite::Connection::open(self.path(name)).unwrap();
        connection
            .execute_batch(
                "PRAGMA journal_mode = wal; CREATE TABLE t (x); INSERT INTO t VALUES (1)",
            )
            .unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_statekeep"));
        command
            .env_clear()
            .envs(crate::support::taken_away())
            .env("HOME", self.path("home"))
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .current_dir(self.scratch.path())
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{arguments:?}: {}",
            stderr(&output)
        );
        stdout(&output)
    }

    /// The one document of a query.
    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.done(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap()
    }

    /// The paths in a snapshot.
    fn paths(&self, profile: &str) -> BTreeSet<String> {
        let files = self.json(&["-p", profile, "ls", "latest"]);
        let items = files["items"].as_array().unwrap();
        items
            .iter()
            .map(|item| item["path"].as_str().unwrap().to_string())
            .collect()
    }

    fn home_core(&self) {
        self.database("homecore/data/history.db");
        redb::Database::create(self.path("homecore/data/state.redb")).unwrap();
        for name in [
            "config/homecore.toml",
            "config/modes.toml",
            "rules/light.toml",
        ] {
            self.write(&format!("homecore/{name}"), "x = 1");
        }
        self.write("homecore/logs/homecore.log", "noise");
    }

    fn hoziron(&self) {
        for name in ["keys.db", "audit.db", "data/hoziron.db"] {
            self.database(&format!("home/.hoziron/{name}"));
        }
        for name in [
            "config.toml",
            ".env",
            "data/agents/a/m.toml",
            "data/memory/x",
            "data/skills/s",
        ] {
            self.write(&format!("home/.hoziron/{name}"), "x");
        }
        self.write("home/.hoziron/backups/old.tar.gz", "old");
    }

    fn chaos_cypher(&self) {
        for name in ["default", "two"] {
            self.database(&format!("data/databases/{name}/app.db"));
            self.write(&format!("data/databases/{name}/uploads/paper.pdf"), "pdf");
        }
        self.database("data/backups/default/app_20260601_143022.db");
        self.write("data/models/m.gguf", "weights");
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Paths apart from the root, which is in every snapshot.
fn set(paths: &str) -> BTreeSet<&str> {
    paths.split_whitespace().chain([""]).collect()
}

fn refs(paths: &BTreeSet<String>) -> BTreeSet<&str> {
    paths.iter().map(String::as_str).collect()
}

/// The examples on imitations, which lie elsewhere than the real applications.
fn examples(home: &Home) -> String {
    let blocks: String = EXAMPLES.iter().map(|(_, _, block)| *block).collect();
    let at = home.scratch.path().display();
    let blocks = blocks.replace("\"/opt/homecore\"", &format!("\"{at}/homecore\""));
    format!(
        "[repo.main]\nurl = \"{at}/repo\"\n{}",
        blocks.replace("\"/data\"", &format!("\"{at}/data\""))
    )
}

// What each example takes of its imitation.
const HOME_CORE: &str = "\
    config config/homecore.toml config/modes.toml data data/history.db \
    data/state.redb rules rules/light.toml";
const HOZIRON: &str = "\
    .env audit.db config.toml data data/agents data/agents/a data/agents/a/m.toml \
    data/hoziron.db data/memory data/memory/x data/skills data/skills/s keys.db";
const CHAOS_CYPHER: &str = "\
    backups databases databases/default databases/default/app.db \
    databases/default/uploads databases/default/uploads/paper.pdf databases/two \
    databases/two/app.db databases/two/uploads databases/two/uploads/paper.pdf \
    models";
const AGENTS: &str = "\
    data data/agents data/agents/a data/agents/a/m.toml data/hoziron.db data/memory \
    data/memory/x";

#[test]
fn the_examples_back_up_what_their_documents_describe() {
    let home = Home::new("");
    home.configure(&examples(&home));
    home.home_core();
    home.hoziron();
    home.chaos_cypher();

    let said = home.done(&["backup", "--all"]);
    let home_core = home.paths("homecore");
    let hoziron = home.paths("hoziron");
    let chaos_cypher = home.paths("chaos-cypher");
    home.done(&["backup", "-p", "hoziron", "--scope", "agents"]);
    let agents = home.paths("hoziron");

    assert!(
        said.contains("chaos-cypher:\nSnapshot ") && !said.contains("PARTIAL"),
        "{said}"
    );
    assert_eq!(refs(&home_core), set(HOME_CORE));
    assert_eq!(refs(&hoziron), set(HOZIRON));
    assert_eq!(refs(&chaos_cypher), set(CHAOS_CYPHER));
    assert_eq!(refs(&agents), set(AGENTS));
    let shown = home.json(&["-p", "hoziron", "show", "latest"]);
    assert_eq!(
        (&shown["scope"], &shown["profile"]),
        (&"agents".into(), &"hoziron".into())
    );
    assert_eq!(shown["databases"][0]["method"], "transaction");
    home.done(&[
        "-p",
        "homecore",
        "restore",
        "latest",
        "--to",
        "back",
        "--confirm",
    ]);
    assert_eq!(
        fs::read(home.path("back/rules/light.toml")).unwrap(),
        b"x = 1"
    );
}

#[test]
fn what_is_detected_is_right_and_passes_the_check() {
    let home = Home::new("");
    home.home_core();
    home.hoziron();
    home.chaos_cypher();
    home.database("other/my[1].db");
    home.write("other/tls/server.key", "secret");
    home.write("other/notes.txt", "text");
    home.write("other/app.log", "noise");
    home.write("other/node_modules/x/index.js", "code");
    home.write("other/store/config", "");
    home.write("other/store/log/1", "");
    home.write("other/store/packs/1", "");
    let roots = ["homecore", "home/.hoziron", "data", "other"].map(|root| home.text(root));

    let found = roots
        .each_ref()
        .map(|root| home.json(&["profile", "detect", root]));
    let blocks: Vec<&str> = found
        .iter()
        .map(|found| found["toml"].as_str().unwrap())
        .collect();
    home.configure(&format!(
        "[repo.main]\nurl = \"@/repo\"\n{}",
        blocks.concat()
    ));

    let names = found
        .each_ref()
        .map(|found| found["profile"].as_str().unwrap());
    assert_eq!(names, ["homecore", "hoziron", "chaos-cypher", "other"]);
    assert_eq!(found[3]["application"], Value::Null);
    let other = blocks[3];
    assert!(
        other.contains("databases = [\"my\\\\[1\\\\].db\"]\n"),
        "{other}"
    );
    let exclude = "exclude = [\"*.log\", \"node_modules/\", \"store/**\"]\n";
    assert!(other.contains(exclude), "{other}");
    assert!(
        other.contains("secrets = [\"tls/server.key\"]\n"),
        "{other}"
    );
    assert!(
        blocks[0].contains("exclude = [\"logs/**\"]\n"),
        "{}",
        blocks[0]
    );
    assert!(home.done(&["config", "check"]).contains("no problems"));
    home.done(&["backup", "--all"]);
    let fresh = Home {
        scratch: tempfile::tempdir().unwrap(),
    };
    fresh.database("app/x.db");
    let file = fresh.done(&["profile", "detect", "app"]);
    assert!(
        file.starts_with("version = 1\n"),
        "a file of its own: {file}"
    );
}

#[test]
fn flags_go_before_the_environment_before_the_file() {
    let home = Home::new(
        "[repo.second]\nurl = \"@/second\"\n[repo.third]\nurl = \"@/third\"\n\
                          [defaults]\nrepo = \"main\"\n[profile.a]\nroot = \"@/a\"\nrepo = \"second\"\n",
    );
    let repo = |arguments: &[&str], variable: Option<&str>| {
        let mut command = home.command(&[arguments, &["config", "show", "--json"]].concat());
        if let Some(repo) = variable {
            command.env("STATEKEEP_REPO", repo);
        }
        let text = stdout(&command.output().unwrap());
        let shown: Value = serde_json::from_str(&text).unwrap();
        let items = shown["items"].as_array().unwrap().iter();
        let mut items = items.filter(|item| item["key"] == "repo");
        let item = items.next().unwrap().clone();
        let path = PathBuf::from(item["value"].as_str().unwrap());
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, item["origin"]["kind"].as_str().unwrap().to_string())
    };
    let is = |name: &str, kind: &str| (name.to_string(), kind.to_string());

    assert_eq!(repo(&[], None), is("repo", "file"));
    assert_eq!(repo(&["-p", "a"], None), is("second", "file"));
    assert_eq!(
        repo(&["-p", "a"], Some("third")),
        is("third", "environment")
    );
    assert_eq!(
        repo(&["-p", "a", "-r", "main"], Some("third")),
        is("repo", "flag")
    );
    assert_eq!(repo(&["-r", "./third"], None), is("third", "flag"));
    home.write("own.toml", "version = 1\n[repo.x]\nurl = \"x\"\n");
    home.write("other.toml", "version = 1\n[repo.y]\nurl = \"y\"\n");
    let mut command = home.command(&["-c", "own.toml", "config", "show"]);
    let flag = stdout(
        &command
            .env("STATEKEEP_CONFIG", "other.toml")
            .output()
            .unwrap(),
    );
    let mut command = home.command(&["config", "show"]);
    let variable = stdout(
        &command
            .env("STATEKEEP_CONFIG", "other.toml")
            .output()
            .unwrap(),
    );
    assert!(
        flag.contains("repo.x.url") && variable.contains("repo.y.url"),
        "{flag}{variable}"
    );
}

#[test]
fn a_passphrase_of_the_file_opens_and_one_of_a_flag_goes_before() {
    let home = Home::new("");
    let config = |how: &str| {
        home.configure(&format!("[repo.safe]\nurl = \"@/safe\"\n{how}\n"));
    };
    home.write("home/.config/statekeep/pass", "sesame\n");
    home.write("wrong", "wrong\n");
    config("password-file = \"pass\"");

    let warned = home.run(&["init"]);
    fs::remove_dir_all(home.path("home/.config/statekeep/keys")).unwrap();
    let by_file = home.run(&["list"]);
    let by_flag = home.run(&["list", "--password-file", "wrong"]);
    config("password-command = [\"printf\", \"sesame\"]");
    let by_command = home.run(&["list"]);
    config("password-command = [\"printf sesame\"]");
    let by_shell = home.run(&["list"]);

    assert!(
        stderr(&warned).contains("warning[exposed-password]"),
        "{}",
        stderr(&warned)
    );
    let codes = [&warned, &by_file, &by_flag, &by_command, &by_shell];
    let codes = codes.map(|output| output.status.code().unwrap());
    assert_eq!(codes, [0, 0, 12, 0, 2], "{}", stderr(&by_command));
    let mode = fs::Permissions::from_mode(0o600);
    fs::set_permissions(home.path("home/.config/statekeep/pass"), mode).unwrap();
    config("password-file = \"pass\"");
    assert_eq!(stderr(&home.run(&["list"])), "");
}

#[test]
fn one_profile_that_fails_stops_no_other_and_there_is_one_summary() {
    let home = Home::new(
        "[profile.a]\nroot = \"@/gone\"\n[profile.b]\nroot = \"@/b\"\n\
                          files = [\"x\", \"missing\"]\n[profile.c]\nroot = \"@/c\"\n",
    );
    home.write("b/x", "x");
    home.write("c/x", "x");

    let output = home.run(&["backup", "--all", "--json"]);
    let two = home.run(&["backup", "-p", "c", "-p", "b"]);
    let text = home.run(&["backup", "--all", "-q"]);
    let none = home.run(&["backup"]);

    let lines: Vec<Value> = stdout(&output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let types: Vec<&str> = lines
        .iter()
        .map(|line| line["type"].as_str().unwrap())
        .collect();
    assert_eq!(types, ["start", "warning", "summary"]);
    let summary = &lines[2];
    let of = |at: usize, key: &str| summary["profiles"][at][key].clone();
    assert_eq!(
        (of(0, "profile"), of(0, "status")),
        ("a".into(), "failed".into())
    );
    assert_eq!(summary["profiles"][0]["error"]["code"], "not-found");
    assert_eq!(
        (of(1, "profile"), of(1, "status"), of(1, "exit")),
        ("b".into(), "partial".into(), 3.into())
    );
    assert_eq!(
        (of(2, "profile"), of(2, "status")),
        ("c".into(), "ok".into())
    );
    assert_eq!(
        (summary["exit"].clone(), output.status.code()),
        (13.into(), Some(13))
    );
    assert_eq!(two.status.code(), Some(3));
    assert!(
        stderr(&text).contains("error[not-found]: profile a: "),
        "{}",
        stderr(&text)
    );
    assert_eq!(none.status.code(), Some(2));
    assert!(
        stderr(&none).contains("one of a, b, c"),
        "{}",
        stderr(&none)
    );
}

#[test]
fn programs_are_told_what_they_run_for_and_no_passphrase() {
    let home = Home::new("");
    let write = "env | grep ^STATEKEEP_ | sort > @/$STATEKEEP_HOOK";
    home.configure(&format!(
        "[repo.main]\nurl = \"@/repo\"\n[profile.a]\nroot = \"@/a\"\nscope.part = {{}}\n\
         before = [{{ command = [\"sh\", \"-c\", \"{write}\"] }}]\n\
         after = [{{ command = [\"sh\", \"-c\", \"{write}\"] }}]\n"
    ));
    home.write("a/x", "x");

    let mut command = home.command(&["backup", "--scope", "part", "--json"]);
    let output = command
        .env("STATEKEEP_CACHE_DIR", home.path("c"))
        .output()
        .unwrap();
    let said = |name: &str| fs::read_to_string(home.path(name)).unwrap();
    let (before, after) = (said("before"), said("after"));
    fs::rename(home.path("a"), home.path("gone")).unwrap();
    let failed = home.run(&["backup"]);

    let summary: Value = serde_json::from_str(stdout(&output).lines().last().unwrap()).unwrap();
    let cache = format!("STATEKEEP_CACHE_DIR={}\n", home.text("c"));
    let of = "STATEKEEP_HOOK_PROFILE=a\nSTATEKEEP_HOOK_SCOPE=part\n";
    assert_eq!(before, format!("{cache}STATEKEEP_HOOK=before\n{of}"));
    let id = summary["snapshot"].as_str().unwrap();
    let exit = "STATEKEEP_HOOK_EXIT=0\n";
    let (profile, scope) = of.split_at("STATEKEEP_HOOK_PROFILE=a\n".len());
    assert_eq!(
        after,
        format!(
            "{cache}STATEKEEP_HOOK=after\n{exit}{profile}{scope}STATEKEEP_HOOK_SNAPSHOT={id}\n"
        )
    );
    let exit = format!("STATEKEEP_HOOK_EXIT={}\n", failed.status.code().unwrap());
    assert!(said("after").contains(&exit) && said("after").contains("SNAPSHOT=\n"));
}

#[test]
fn a_program_that_takes_too_long_ends_with_all_it_started() {
    let home = Home::new("");
    // The one in the background would say so if it outlived the other: it keeps the pipe open.
    home.configure(
        "[repo.main]\nurl = \"@/repo\"\n[profile.a]\nroot = \"@/a\"\n\
         before = [{ command = [\"sh\", \"-c\", \"sleep 600 & echo $! > @/pid; wait\"], \
         timeout = \"1s\", on-failure = \"warn\" }]\n",
    );
    home.write("a/x", "x");

    // Its end closes standard error, which both inherited: `output` returns after all of them.
    let output = home.run(&["backup"]);

    assert_eq!(output.status.code(), Some(3));
    assert!(
        stderr(&output).contains("took longer than 1 s"),
        "{}",
        stderr(&output)
    );
    assert!(home.done(&["list"]).contains("1 snapshot"));
}

#[test]
fn programs_run_around_a_backup_and_what_they_stopped_is_started() {
    let with = |before: &str| {
        let home = Home::new(&format!(
            "[profile.a]\nroot = \"@/a\"\nbefore = [{before}]\n\
             after = [{{ command = [\"touch\", \"@/after\"] }}]\n"
        ));
        home.write("a/x", "x");
        home
    };
    let fine = with("{ command = [\"touch\", \"@/before\"] }, { command = [\"echo\", \"noise\"] }");
    let broken = with("{ command = [\"false\"] }");
    let warned = with("{ command = [\"false\"], on-failure = \"warn\" }");

    let dry = fine.run(&["backup", "-n", "--json"]);
    let touched_dry = fine.path("before").exists();
    let output = fine.run(&["backup", "--json"]);
    let failed = broken.run(&["backup"]);
    let went_on = warned.run(&["backup"]);

    assert_eq!((dry.status.code(), touched_dry), (Some(0), false));
    assert!(fine.path("before").exists() && fine.path("after").exists());
    assert!(
        stdout(&output)
            .lines()
            .all(|line| serde_json::from_str::<Value>(line).is_ok())
    );
    assert_eq!(failed.status.code(), Some(1));
    assert!(
        stderr(&failed).contains("error[hook-failed]: false failed"),
        "{}",
        stderr(&failed)
    );
    assert!(broken.path("after").exists());
    assert!(broken.done(&["list"]).contains("No snapshots"));
    assert_eq!(went_on.status.code(), Some(3));
    assert!(warned.done(&["list"]).contains("1 snapshot"));
}

#[test]
fn the_check_finds_what_reading_the_file_cannot() {
    let home = Home::new(
        "password-file = \"no-such\"\n[repo.new]\nurl = \"@/new\"\n\
                          [profile.a]\nroot = \"@/a\"\ndatabases = [\"app.db\"]\n\
                          restore.stop = [\"/no/such/program\"]\n[profile.b]\nroot = \"@/gone\"\n\
                          [profile.c]\nroot = \"@\"\nrepo = \"main\"\n",
    );
    home.write("a/x", "x");

    let output = home.run(&["config", "check"]);
    home.configure("[profile.a]\nroot = \"@/a\"\n[repo.main]\nurl = \"@/repo\"\n");
    let sound = home.run(&["config", "check", "--json"]);
    home.configure("shedule = 1\n");
    let faulty = home.run(&["config", "check", "--json"]);

    let text = stdout(&output);
    for line in [
        "error: repo.main: cannot read ",
        "error: repo.new: there is no repository at ",
        "  hint: statekeep -r new init",
        "warning: profile.a: app.db is named and not there",
        "error: profile.a: there is no program /no/such/program",
        "warning: profile.a: it names no repository",
        "error: profile.b: ",
        "error: profile.c: repository main lies in what is backed up",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(sound.status.code(), Some(0), "{}", stdout(&sound));
    let faulty: Value = serde_json::from_str(&stdout(&faulty)).unwrap();
    assert!(
        faulty["problems"][0]["at"]
            .as_str()
            .unwrap()
            .ends_with("config.toml:2")
    );
    assert_eq!(faulty["type"], "config-check");
}

#[test]
fn a_broken_file_stands_in_the_way_of_nothing_that_does_not_need_it() {
    let home = Home::new("");
    home.write("a/x", "x");
    home.configure("colour = 1\n");

    home.done(&["-r", "./repo", "backup", "a"]);
    home.done(&["-r", "./repo", "ls", "latest"]);
    home.done(&["version"]);
    home.done(&["config", "path"]);
    home.done(&["config", "schema"]);
    let needed = home.run(&["list"]);
    let named = home.run(&["-c", "no-such", "list"]);

    assert_eq!(
        (needed.status.code(), named.status.code()),
        (Some(2), Some(2))
    );
    assert!(
        stderr(&needed).contains("config.toml:2: unknown key `colour`"),
        "{needed:?}"
    );
    assert!(
        stderr(&named).contains("error[config]: cannot read"),
        "{named:?}"
    );
}

#[test]
fn references_and_names_are_those_of_the_profile() {
    let home = Home::new("[profile.a]\nroot = \"@/a\"\n[profile.b]\nroot = \"@/b\"\n");
    home.write("a/of-a", "x");
    home.write("b/of-b", "x");
    home.done(&["backup", "-p", "a"]);
    home.done(&["backup", "-p", "b"]);

    let of_a = home.done(&["-p", "a", "cat", "latest:of-a"]);
    let list = home.json(&["list", "-p", "a"]);
    let before = home.run(&["-p", "a", "ls", "latest~1"]);
    let typo = home.run(&["backup", "-p", "aa"]);
    let scope = home.run(&["backup", "-p", "a", "--scope", "x"]);
    let both = home.run(&["backup", "-p", "a", "b"]);
    let repo = home.run(&["-r", "mian", "list"]);
    // Where nothing is configured the snapshots are there all the same.
    fs::remove_file(home.path("home/.config/statekeep/config.toml")).unwrap();
    let elsewhere = home.done(&["-r", "repo", "-p", "a", "cat", "latest:of-a"]);

    assert_eq!((&*of_a, &*elsewhere), ("x", "x"));
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    assert_eq!(before.status.code(), Some(13));
    for (output, message) in [
        (&typo, "did you mean \"a\"?"),
        (&scope, "profile a has no scope \"x\""),
        (&both, "both PATH and -p"),
    ] {
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(output).contains(message), "{}", stderr(output));
    }
    assert!(
        stderr(&repo).contains("did you mean -r main?"),
        "{}",
        stderr(&repo)
    );
}

#[test]
fn blocks_of_the_documentation_are_sound() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = fs::read_to_string(docs).unwrap();
    let place = Place {
        file: "/etc/statekeep/config.toml".into(),
        home: Some("/home/ada".into()),
    };

    let blocks: Vec<&str> = text.split("```toml\n").skip(1).collect();
    for block in &blocks {
        let block = block.split("```").next().unwrap();
        let config = config::parse(block, &place).unwrap_or_else(|faults| panic!("{faults:#?}"));
        assert!(!config.profiles.is_empty());
    }

    assert_eq!(blocks.len(), 2);
    let shown = blocks[1].replace('\n', "");
    for (_, _, block) in EXAMPLES {
        assert!(shown.contains(&block.replace('\n', "")), "{block}");
    }
}
