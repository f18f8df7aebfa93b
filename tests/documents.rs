//! Every command in every document, run as it stands there. A document that is new is found.
//!
//! Commands stand in blocks of `sh statekeep`; in `sh statekeep elsewhere` they run as on another
//! machine. A comment that says `exit N` names the exit code that is meant. Documents whose commands
//! other tests run, with an application that goes on writing, are named in `ELSEWHERE`.

use crate::apps::App;
use crate::apps::Machine;
use crate::apps::ends;
use crate::apps::read;
use crate::apps::text;
use crate::oracle::stderr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::process::Output;
use std::sync::Mutex;

/// Documents that are run by other tests, line by line, and documents that programs write.
const ELSEWHERE: [&str; 9] = [
    "README.md",
    "docs/apps/chaos-cypher.md",
    "docs/apps/homecore.md",
    "docs/apps/hoziron.md",
    "docs/reference.md",
    "docs/transcripts/captures.md",
    "docs/transcripts/chaos-cypher.md",
    "docs/transcripts/homecore.md",
    "docs/transcripts/hoziron.md",
];
/// With nothing but tar.
const WITHOUT: &str = "docs/without-statekeep.md";

const CONFIG: &str = r#"
version = 1
[repo.main]
url = "/mnt/backups"
[repo.offsite]
url = "/mnt/offsite"
[defaults]
repo = "main"
keep = { last = 3, daily = 14 }
[profile.homecore]
root = "/opt/homecore"
[profile.chaos-cypher]
root = "/data"
exclude = ["backups/**"]
"#;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the paths of all documents for people, relative to the root. Decisions are history.
fn documents() -> Vec<String> {
    let mut found = vec!["README.md".to_string(), "contrib/README.md".to_string()];
    let mut todo = vec![root().join("docs")];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root()).unwrap().to_str().unwrap();
            match path.is_dir() {
                true if name != "docs/decisions" => todo.push(path),
                false if name.ends_with(".md") => found.push(name.to_string()),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// Returns the fenced blocks of a text, each with what stands behind its fence.
fn blocks(text: &str) -> Vec<(&str, String)> {
    let mut blocks: Vec<(&str, String)> = Vec::new();
    let mut is_open = false;
    for line in text.lines() {
        match (line.strip_prefix("```"), is_open) {
            (Some(_), true) => is_open = false,
            (Some(info), false) => {
                blocks.push((info, String::new()));
                is_open = true;
            }
            (None, true) => {
                let (_, block) = blocks.last_mut().unwrap();
                block.push_str(line);
                block.push('\n');
            }
            (None, false) => {}
        }
    }
    blocks
}

fn is_command(line: &str) -> bool {
    let is_ours = line.starts_with("statekeep ") && !line.starts_with("statekeep = ");
    is_ours || line.starts_with("$ ") || line.starts_with("sudo ")
}

/// What only Rust developers run; the README's is run by CI.
fn is_cargo(line: &str) -> bool {
    let mut words = line.split_whitespace();
    words.find(|word| !word.contains('=')) == Some("cargo")
}

#[test]
fn no_command_stands_where_nobody_runs_it() {
    for document in documents() {
        if ELSEWHERE.contains(&document.as_str()) && document != "README.md" {
            continue;
        }
        for (info, block) in blocks(&read(&document)) {
            let mut lines = block.lines().filter(|line| !line.is_empty());
            let is_fine = match info {
                "sh statekeep" | "sh statekeep elsewhere" => true,
                "sh" => document == WITHOUT || lines.all(is_cargo),
                "" => false,
                _ => !lines.any(is_command),
            };
            assert!(
                is_fine,
                "{document}: a block of `{info}` is not run:\n{block}"
            );
        }
    }
}

#[test]
fn every_document_is_in_the_index_and_every_link_leads_somewhere() {
    let index = read("docs/README.md");
    for document in documents() {
        let name = document.trim_start_matches("docs/");
        let is_listed = index.contains(&format!("({name})")) || name == "README.md";
        assert!(is_listed || name == "contrib/README.md", "{document}");
        let text = read(&document);
        let here = root().join(&document);
        for link in text.split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let target = here.parent().unwrap().join(target);
            assert!(target.exists(), "{document}: {}", target.display());
        }
    }
}

/// Returns a script that ends well if each line ends as its comment says.
fn expecting(script: &str) -> String {
    let mut out = String::new();
    for line in script.lines() {
        let code = line.split_once('#').and_then(|(command, comment)| {
            let (_, code) = comment.split_once("exit ")?;
            let digits = code.bytes().take_while(u8::is_ascii_digit).count();
            Some((command, &code[..digits]))
        });
        match code {
            Some((command, code)) => out.push_str(&format!(
                "set +e; {command}; code=$?; set -e\ntest $code = {code}\n"
            )),
            None => out.push_str(&format!("{line}\n")),
        }
    }
    out
}

/// A machine with a HomeCore, a few snapshots of it, and whatever the documents name.
fn machine() -> (Machine, [String; 2]) {
    let machine = Machine::new(App::HomeCore);
    machine.make(4);
    machine.configure(CONFIG);
    for dir in [
        "srv/app/config",
        "mnt/stick",
        "mnt/big",
        "data/backups/default",
    ] {
        fs::create_dir_all(machine.path(dir)).unwrap();
    }
    for dir in ["etc/systemd/system", "etc/cron.d"] {
        fs::create_dir_all(machine.path(dir)).unwrap();
    }
    symlink(root().join("contrib"), machine.path("contrib")).unwrap();
    for name in ["journalctl", "chaoscypher"] {
        machine.program(name, "#!/bin/sh\n");
    }
    let app = machine.root();
    fs::write(app.join("config/app.toml"), "port = 8080\n").unwrap();
    fs::write(machine.path("srv/app/config/app.toml"), "port = 8080\n").unwrap();
    fs::write(machine.path("pass"), "correct horse battery\n").unwrap();
    machine.done(&["init"]);
    machine.done(&[
        "key",
        "export",
        "-o",
        machine.path("mnt/stick/kit.txt").to_str().unwrap(),
    ]);
    machine.shows(
        "mv srv/app/config srv/app/kept; cp -r srv/app/kept srv/app/config
         printf '#!/bin/sh\\n' > srv/app/migrate.sh; chmod +x srv/app/migrate.sh
         cp opt/homecore/data/history.db data/app.db
         cp opt/homecore/data/history.db data/backups/default/app_20260101_000000.db
         tar -czf hoziron-backup-20260605_020000.tar.gz -C opt/homecore config
         statekeep -r mnt/offsite init; statekeep backup -p chaos-cypher",
    );
    for round in 0..4 {
        machine.make(6 + round);
        fs::write(app.join("config/app.toml"), format!("port = {round}\n")).unwrap();
        let tag: &[&str] = match round {
            0 => &["--tag", "golden"],
            _ => &[],
        };
        machine.done(&[&["backup", "-p", "homecore"], tag].concat());
    }
    machine.shows("statekeep export latest -p homecore -o homecore-20260328.zip");
    fs::write(app.join("config/app.toml"), "port = 9090\n").unwrap();
    let listed = machine.json(&["list", "-p", "homecore"]);
    let items = listed["items"].as_array().unwrap();
    let mut ids: Vec<&str> = items.iter().map(|i| i["id"].as_str().unwrap()).collect();
    ids.sort_by_key(|id| items.iter().find(|i| i["id"] == **id).unwrap()["created_at"].to_string());
    let ids = [ids[0][..12].to_string(), ids[1][..12].to_string()];
    (machine, ids)
}

fn follow(document: &str) -> Result<(), String> {
    let (machine, ids) = machine();
    let mut was_elsewhere = false;
    for (info, script) in blocks(&read(document)) {
        let script = script.replace("7c41e2", "7c41").replace("7c41", &ids[0]);
        let script = expecting(&script.replace("9a3f10", &ids[1]));
        let output: Output = match info {
            "sh statekeep" => {
                if !machine.root().exists() {
                    fs::rename(machine.path("opt/old"), machine.root()).unwrap();
                }
                machine.shell(&script)
            }
            "sh statekeep elsewhere" => {
                if !was_elsewhere {
                    fs::rename(machine.root(), machine.path("opt/old")).unwrap();
                }
                was_elsewhere = true;
                machine.shell_elsewhere(&script)
            }
            _ => continue,
        };
        if !output.status.success() {
            let said = format!("{}{}", text(&output), stderr(&output));
            return Err(format!("{document}: {}\n{script}\n{said}", output.status));
        }
    }
    Ok(())
}

#[test]
fn every_command_in_every_document_works() {
    let is_ours = |name: &String| !ELSEWHERE.contains(&name.as_str()) && name != WITHOUT;
    let has_commands = |name: &String| {
        blocks(&read(name))
            .iter()
            .any(|(info, _)| info.starts_with("sh state"))
    };
    let todo: Vec<String> = documents().into_iter().filter(is_ours).collect();
    let todo: Vec<String> = todo.into_iter().filter(has_commands).collect();
    assert!(todo.len() > 12, "{todo:?}");
    // A replay takes the time it is given, a minute for each; `tests/tune.rs` has shorter ones.
    let only = std::env::var("STATEKEEP_DOCUMENT").ok();
    let is_wanted = |name: &String| match &only {
        Some(only) => name.contains(only.as_str()),
        None => name != "docs/tune.md",
    };
    let todo = Mutex::new(todo.into_iter().filter(is_wanted));
    let failures = Mutex::new(Vec::new());

    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                loop {
                    let next = todo.lock().unwrap().next();
                    let Some(document) = next else { break };
                    let followed = std::panic::catch_unwind(|| follow(&document));
                    let failed = followed.unwrap_or_else(|_| Err(format!("{document} panicked")));
                    failures.lock().unwrap().extend(failed.err());
                }
            });
        }
    });

    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// Returns the help of a command and of all below it.
fn helps(words: &[&str], out: &mut String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_statekeep"))
        .args(words)
        .arg("--help")
        .env_clear()
        .output()
        .unwrap();
    ends(&output, 0, &words.join(" "));
    let said = text(&output);
    let commands = said.split("\nCommands:\n").nth(1);
    let commands = commands.map(|rest| rest.split("\n\n").next().unwrap());
    let lines = commands.into_iter().flat_map(str::lines);
    let names: Vec<&str> = lines
        .filter(|line| line.starts_with("  ") && !line.starts_with("    "))
        .map(|line| line.split_whitespace().next().unwrap())
        .collect();
    // What every command has is told once.
    let (own, _) = match words {
        [] => (said.as_str(), ""),
        _ => said.split_once("\nGlobal options:").unwrap_or((&said, "")),
    };
    let own: String = own
        .trim_end()
        .lines()
        .map(|l| format!("{}\n", l.trim_end()))
        .collect();
    let heading = match words {
        [] => "statekeep".to_string(),
        words => format!("statekeep {}", words.join(" ")),
    };
    out.push_str(&format!("\n## {heading}\n\n```text\n{own}```\n"));
    for name in names.into_iter().filter(|name| *name != "help") {
        helps(&[words, &[name]].concat(), out);
    }
}

const VARIABLES: &str = "\n## Environment variables

A flag goes before the environment, and that before the configuration. One that is set and empty is an error.

| variable | |
|---|---|
| `STATEKEEP_REPO` | as `-r` |
| `STATEKEEP_PROFILE` | as `-p`; several with commas |
| `STATEKEEP_CONFIG` | as `-c` |
| `STATEKEEP_PASSWORD` | the passphrase itself |
| `STATEKEEP_PASSWORD_FILE` | as `--password-file` |
| `STATEKEEP_PASSWORD_COMMAND` | as `--password-command` |
| `STATEKEEP_KEY_FILE` | as `--key-file` |
| `STATEKEEP_CACHE_DIR` | what makes the next run fast; else below `XDG_CACHE_HOME` or `~/.cache` |
| `XDG_CONFIG_HOME`, `XDG_CACHE_HOME`, `HOME` | where keys and configuration are, and the cache |
| `TMPDIR` | short-lived files |
| `PATH` | where programs of hooks and commands are looked for |
| `NO_COLOR`, `TERM` | no colour; `TERM=dumb`: no colour and no bars |
";

/// `STATEKEEP_RECORD=1` writes it.
#[test]
fn the_reference_is_what_the_program_says() {
    let mut made = String::from(
        "# Reference\n\nWritten from the program itself by `tests/documents.rs`; `--help` says the \
         same. Global options stand once, under `statekeep`.\n",
    );
    made.push_str(VARIABLES);
    helps(&[], &mut made);
    let path = root().join("docs/reference.md");
    if std::env::var_os("STATEKEEP_RECORD").is_some() {
        fs::write(&path, &made).unwrap();
    }

    let there = fs::read_to_string(&path).unwrap_or_default();

    assert!(
        there == made,
        "docs/reference.md is old: run this with STATEKEEP_RECORD=1"
    );
    let code = fs::read_to_string(root().join("src/cli/environment.rs")).unwrap();
    let code = code.split("#[cfg(test)]").next().unwrap();
    for name in code.split('"').filter(|word| is_variable(word)) {
        assert!(made.contains(&format!("`{name}`")), "{name}");
    }
}

fn is_variable(word: &str) -> bool {
    word.len() > 3
        && word
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

#[test]
fn the_index_is_reached_from_the_readme() {
    assert!(read("README.md").contains("(docs/README.md)"));
    assert!(Path::new(&root().join("docs/README.md")).exists());
}

#[test]
fn the_picture_shows_the_figures_of_the_benchmarks() {
    let checked = std::process::Command::new("python3")
        .arg(root().join("benches/picture.py"))
        .arg("--check")
        .output();
    let Ok(checked) = checked else {
        eprintln!("SKIPPED the_picture_shows_the_figures_of_the_benchmarks: there is no python3");
        return;
    };
    ends(&checked, 0, "benches/picture.py --check");
}
