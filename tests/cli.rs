//! The command as people and programs meet it: the real binary, its outputs and exit codes.

use serde_json::Value;
use std::fs;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_statekeep");

/// A home of its own, and a place for a repository.
struct Home {
    scratch: TempDir,
}

impl Home {
    fn new() -> Home {
        Home {
            scratch: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.path(name), text).unwrap();
        self.text(name)
    }

    /// The command with nothing of the environment of the tests.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command
            .env_clear()
            .envs(crate::support::taken_away())
            .env("HOME", self.path("home"))
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("STATEKEEP_REPO", self.path("repo"))
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(exit(&output), 0, "{arguments:?}: {}", stderr(&output));
        stdout(&output)
    }

    fn keys(&self) -> Vec<PathBuf> {
        files(&self.path("home/.config/statekeep/keys"))
    }

    fn kits(&self) -> Vec<PathBuf> {
        let mut files = files(&self.path("home/.config/statekeep"));
        files.retain(|path| path.is_file());
        files
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).map(|entries| entries.map(|e| e.unwrap().path()).collect());
    entries.unwrap_or_default()
}

fn exit(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Standard output as JSON lines; standard error must be empty.
fn json_lines(output: &Output) -> Vec<Value> {
    assert_eq!(stderr(output), "");
    let lines = stdout(output);
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(lines.iter().all(|line| line["v"] == 1), "{lines:?}");
    lines
}

#[test]
fn init_leaves_a_key_file_and_a_kit_that_only_the_owner_reads() {
    let home = Home::new();

    let text = home.done(&["init"]);

    let (keys, kits) = (home.keys(), home.kits());
    assert_eq!((keys.len(), kits.len()), (1, 1));
    assert_eq!((mode(&keys[0]), mode(&kits[0])), (0o600, 0o600));
    for dir in ["home/.config/statekeep/keys", "home/.config/statekeep"] {
        assert_eq!(mode(&home.path(dir)), 0o700, "{dir}");
    }
    assert!(text.contains(keys[0].to_str().unwrap()), "{text}");
    assert!(text.contains(kits[0].to_str().unwrap()), "{text}");
    let secret = |path: &Path| {
        let text = fs::read_to_string(path).unwrap();
        let lines = text.lines().filter(|line| line.starts_with("key-"));
        lines.map(String::from).collect::<Vec<_>>()
    };
    assert_eq!(secret(&keys[0]).len(), 4);
    assert_eq!(secret(&keys[0]), secret(&kits[0]));
    assert!(!text.contains(&secret(&keys[0])[0]), "{text}");
    home.done(&["key", "verify", kits[0].to_str().unwrap()]);
}

#[test]
fn the_kit_opens_the_repository_when_the_key_file_is_lost() {
    let home = Home::new();
    home.done(&["init"]);
    let kit = home.kits().remove(0).display().to_string();
    fs::remove_file(&home.keys()[0]).unwrap();

    let without = home.run(&["key", "add", "--new-key-file", &home.text("k")]);
    home.done(&[
        "--key-file",
        &kit,
        "key",
        "add",
        "--new-key-file",
        &home.text("k"),
    ]);
    home.done(&["key", "import", &kit]);
    home.done(&["key", "export", "-o", &home.text("kit")]);

    assert_eq!(exit(&without), 12);
    assert!(stderr(&without).contains("error[wrong-key]"), "{without:?}");
    assert!(stderr(&without).contains("hint: --key-file"), "{without:?}");
    assert_eq!(home.keys().len(), 1);
    assert_eq!(mode(&home.path("k")), 0o600);
    home.done(&["key", "verify", &home.text("kit")]);
    home.done(&["key", "verify", &home.text("k")]);
}

#[test]
fn a_mistyped_kit_is_refused_and_the_line_named() {
    let home = Home::new();
    home.done(&["init"]);
    let kit = fs::read_to_string(&home.kits()[0]).unwrap();
    let at = kit.find("key-2: ").unwrap() + "key-2: ".len();
    let mut bad = kit.clone();
    bad.replace_range(at..at + 1, if &kit[at..=at] == "0" { "1" } else { "0" });
    let bad = home.write("bad", &bad);

    let output = home.run(&["key", "verify", &bad]);
    let foreign = home.run(&["--key-file", &home.write("x", "hello"), "key", "rotate"]);

    assert_eq!((exit(&output), exit(&foreign)), (12, 12));
    assert!(stderr(&output).contains("`key-2`"), "{output:?}");
    assert!(stderr(&foreign).contains("it holds no key"), "{foreign:?}");
}

#[test]
fn a_passphrase_opens_and_a_wrong_one_does_not_even_beside_the_key_file() {
    let home = Home::new();
    let right = home.write("right", "correct horse\n");
    let wrong = home.write("wrong", "correct horse \n");
    home.done(&["init", "--password-file", &right]);
    let add = ["key", "add", "-n", "--new-password-file"];
    let add_with = |option: &str, value: &str| {
        let mut arguments = vec![option, value];
        arguments.extend(add);
        arguments.push(&right);
        exit(&home.run(&arguments))
    };

    assert_eq!(add_with("--password-file", &right), 0);
    assert_eq!(add_with("--password-command", &format!("cat '{right}'")), 0);
    assert_eq!(add_with("--password-file", &wrong), 12);
    assert_eq!(add_with("--password-command", "false"), 2);
    assert_eq!(add_with("--password-file", &home.text("absent")), 2);
    assert_eq!(add_with("--password-file", &home.write("empty", "\n")), 2);
    let from_environment = |name: &str, value: &str| {
        let arguments = [&add[..], &[right.as_str()]].concat();
        let output = home.command(&arguments).env(name, value).output().unwrap();
        exit(&output)
    };
    assert_eq!(from_environment("STATEKEEP_PASSWORD", "correct horse"), 0);
    assert_eq!(from_environment("STATEKEEP_PASSWORD", "other"), 12);
    assert_eq!(from_environment("STATEKEEP_PASSWORD", ""), 2);
    assert_eq!(from_environment("STATEKEEP_PASSWORD_FILE", &right), 0);
    let command = format!("cat {right}");
    assert_eq!(from_environment("STATEKEEP_PASSWORD_COMMAND", &command), 0);
    // Two that contradict each other.
    let both = home
        .command(&[&add[..], &[right.as_str()]].concat())
        .env("STATEKEEP_PASSWORD", "x")
        .env("STATEKEEP_PASSWORD_FILE", &right)
        .output();
    assert_eq!(exit(&both.unwrap()), 2);
}

#[test]
fn a_changed_passphrase_replaces_the_old_one_only() {
    let home = Home::new();
    let (old, new) = (home.write("old", "old"), home.write("new", "new"));
    home.done(&["init", "--password-file", &old]);

    let change = ["key", "change-password", "--new-password-file", &new];
    let by_key_file = home.run(&change);
    home.done(&[&["--password-file", &old], &change[..]].concat());

    assert_eq!(exit(&by_key_file), 2);
    let export = |file: &str| home.run(&["--password-file", file, "key", "rotate", "-n"]);
    assert_eq!((exit(&export(&old)), exit(&export(&new))), (12, 0));
    let listed = home.done(&["key", "list"]);
    assert_eq!(listed.matches("passphrase").count(), 2, "{listed}");
    assert_eq!(listed.lines().count(), 3, "{listed}");
}

#[test]
fn removing_and_rotating_keys_must_be_confirmed() {
    let home = Home::new();
    let pass = home.write("pass", "pass word");
    home.done(&["init", "--password-file", &pass]);
    let keys: Value = serde_json::from_str(&home.done(&["key", "list", "--json"])).unwrap();
    let items = keys["items"].as_array().unwrap();
    let name = |kind: &str| {
        let key = items.iter().find(|key| key["kind"] == kind).unwrap();
        key["name"].as_str().unwrap().to_string()
    };
    let (passphrase, key_file) = (name("passphrase"), name("key-file"));

    let asked = home.run(&["key", "remove", &passphrase]);
    let rotate = home.run(&["key", "rotate", "--json"]);
    assert_eq!((exit(&asked), exit(&rotate)), (14, 14));
    let command = format!("hint: statekeep key remove {passphrase} --confirm");
    assert!(stderr(&asked).contains(&command), "{asked:?}");

    home.done(&["key", "rotate", "--confirm"]);
    let gone = home.run(&["--password-file", &pass, "key", "rotate", "-n"]);
    assert_eq!(exit(&gone), 12);
    assert_eq!(exit(&home.run(&["key", "remove", &key_file, "-y"])), 13);
    let last = home.done(&["key", "list"]);
    let last = last.lines().nth(1).unwrap().split(' ').next().unwrap();
    let output = home.run(&["key", "remove", last, "-y"]);
    assert_eq!(exit(&output), 2);
    assert!(stderr(&output).contains("last key"), "{output:?}");
}

#[test]
fn a_damaged_key_is_found_by_check_and_can_be_replaced() {
    let home = with_snapshot();
    let pass = home.write("pass", "correct");
    home.done(&["key", "add", "--new-password-file", &pass]);
    let slots = files(&home.path("repo/keys"));
    let holds_passphrase = |slot: &&PathBuf| fs::read(slot).unwrap()[9] == 1;
    let slot = slots.iter().find(holds_passphrase).unwrap();
    let mut bytes = fs::read(slot).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(slot, bytes).unwrap();
    let name = slot.file_name().unwrap().to_str().unwrap();

    let check = home.run(&["check"]);
    let list = home.done(&["key", "list"]);
    let removed = home.done(&["key", "remove", &name[..8], "--confirm"]);

    assert_eq!(exit(&check), 4);
    let told = format!("keys/{name}: the key opens nothing any more");
    assert!(stdout(&check).contains(&told), "{check:?}");
    assert!(stdout(&check).contains(&format!("`key remove {}`", &name[..8])));
    assert!(list.contains("damaged"), "{list}");
    assert!(removed.contains("is removed"), "{removed}");
    home.done(&["check"]);
}

#[test]
fn of_racing_inits_one_wins_and_the_others_leave_nothing() {
    let home = Home::new();
    let start = || {
        home.command(&["init", "--json"])
            .stdout(Stdio::piped())
            .spawn()
    };
    let children: Vec<_> = (0..6).map(|_| start().unwrap()).collect();

    let outputs = children.into_iter().map(|child| child.wait_with_output());
    let outputs: Vec<Output> = outputs.map(Result::unwrap).collect();

    let exits: Vec<i32> = outputs.iter().map(exit).collect();
    assert_eq!(
        exits.iter().filter(|&&exit| exit == 0).count(),
        1,
        "{exits:?}"
    );
    assert_eq!(
        exits.iter().filter(|&&exit| exit == 1).count(),
        5,
        "{exits:?}"
    );
    for lost in outputs.iter().filter(|output| exit(output) == 1) {
        let lines: Vec<Value> = stdout(lost)
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.last().unwrap()["code"], "repo-exists");
    }
    assert_eq!((home.keys().len(), home.kits().len()), (1, 1));
    assert_eq!(files(&home.path("repo/keys")).len(), 1);
    home.done(&["key", "verify", home.keys()[0].to_str().unwrap()]);
}

#[test]
fn init_never_touches_what_is_there() {
    let home = Home::new();
    home.done(&["init"]);
    let again = home.run(&["init"]);
    fs::create_dir(home.path("full")).unwrap();
    home.write("full/photo.jpg", "x");
    let full = home.run(&["init", "-r", &home.text("full")]);
    home.write("key", "precious");
    let key = home.run(&[
        "init",
        "-r",
        &home.text("r2"),
        "--key-file",
        &home.text("key"),
    ]);
    let two = home.run(&["init", &home.text("a"), "-r", &home.text("b")]);

    assert_eq!(exit(&again), 1);
    assert!(stderr(&again).contains("error[repo-exists]"), "{again:?}");
    assert_eq!((exit(&full), exit(&key), exit(&two)), (2, 2, 2));
    assert_eq!(files(&home.path("full")).len(), 1);
    assert_eq!(fs::read_to_string(home.path("key")).unwrap(), "precious");
    assert!(!home.path("r2/config").exists());
    assert_eq!((home.keys().len(), home.kits().len()), (1, 1));
}

#[test]
fn a_dry_init_makes_nothing() {
    let home = Home::new();

    home.done(&["init", "-n"]);

    assert!(!home.path("repo").exists() && !home.path("home").exists());
}

#[test]
fn a_plain_repository_says_so_and_takes_no_key() {
    let home = Home::new();
    let text = home.done(&["init", "--plain"]);
    let info = home.done(&["repo", "info"]);
    let pass = home.write("pass", "x");
    let with_key = home.run(&["--password-file", &pass, "key", "rotate"]);

    assert!(
        text.contains("NOT ENCRYPTED") && text.contains("can read"),
        "{text}"
    );
    assert!(info.contains("none: whoever can read"), "{info}");
    assert!(home.keys().is_empty() && home.kits().is_empty());
    assert_eq!(exit(&with_key), 4);
    assert!(
        stderr(&with_key).contains("error[not-encrypted]"),
        "{with_key:?}"
    );
}

#[test]
fn a_plain_repository_in_the_place_of_an_encrypted_one_is_refused() {
    let home = Home::new();
    home.done(&["init"]);
    // Somebody with access to the store, who has a home of their own.
    fs::remove_dir_all(home.path("repo")).unwrap();
    let mut attack = home.command(&["init", "--plain"]);
    let attack = attack.env("HOME", home.path("attacker")).output().unwrap();
    assert_eq!(exit(&attack), 0);

    let refused = home.run(&["key", "rotate", "--confirm"]);
    assert_eq!(exit(&refused), 4);
    assert!(
        stderr(&refused).contains("error[not-encrypted]"),
        "{refused:?}"
    );

    // The owner did it after all.
    let key = home.keys().remove(0);
    fs::rename(&key, key.with_extension("key.old")).unwrap();
    let plain = home.run(&["key", "rotate", "--confirm"]);
    assert!(
        stderr(&plain).contains("a plain repository has no keys"),
        "{plain:?}"
    );
}

#[test]
fn an_altered_config_opens_with_no_key() {
    let home = Home::new();
    home.done(&["init"]);
    let other = Home::new();
    other.done(&["init"]);
    fs::copy(other.path("repo/config"), home.path("repo/config")).unwrap();

    assert_eq!(exit(&home.run(&["key", "rotate", "-n"])), 12);

    home.write("repo/config", "stconf but not really");
    let damaged = home.run(&["key", "rotate", "-n"]);
    assert_eq!(exit(&damaged), 4);
    assert!(
        stderr(&damaged).contains("error[damaged]: config"),
        "{damaged:?}"
    );
}

#[test]
fn where_no_repository_is_there_is_a_hint_how_to_make_one() {
    let home = Home::new();
    let mut command = home.command(&["-r", "/tmp/no such/repo", "list"]);
    let output = command.output().unwrap();

    assert_eq!(exit(&output), 10);
    assert_eq!(
        stderr(&output),
        "error[no-repo]: there is no repository at /tmp/no such/repo\n  \
         hint: make one: statekeep -r '/tmp/no such/repo' init\n"
    );
    let unset = home
        .command(&["list"])
        .env_remove("STATEKEEP_REPO")
        .output()
        .unwrap();
    let empty = home
        .command(&["list"])
        .env("STATEKEEP_REPO", "")
        .output()
        .unwrap();
    let url = home.run(&["-r", "s3://bucket/x", "list"]);
    assert_eq!((exit(&unset), exit(&empty), exit(&url)), (2, 2, 2));
}

#[test]
fn with_json_every_failure_is_one_final_error_object_and_nothing_else() {
    let home = Home::new();
    home.done(&["init", "--plain"]);
    let absent = home.text("absent");
    let table: &[(&[&str], &str, i32)] = &[
        (&["--json"], "usage", 2),
        (&["--json", "frobnicate"], "usage", 2),
        (&["list", "--json", "--frobnicate"], "usage", 2),
        (&["list", "--json", "--limit", "x"], "usage", 2),
        (&["backup", "--json"], "usage", 2),
        (&["backup", "--json", "--tag", "a:b", "/tmp"], "usage", 2),
        (&["restore", "latest", "--json"], "usage", 2),
        (
            &["restore", "latest", "--in-place", "--json"],
            "not-found",
            13,
        ),
        (&["cat", "latest:x", "--json"], "usage", 2),
        (&["man", "--json"], "usage", 2),
        (&["init", "--json"], "repo-exists", 1),
        (&["list", "--json", "-r", &absent], "no-repo", 10),
        (&["backup", "--json", "-r", &absent, "/tmp"], "no-repo", 10),
        (&["check", "--json", "-r", &absent], "no-repo", 10),
        (&["key", "list", "--json", "-r", &absent], "no-repo", 10),
        (&["key", "verify", "--json", &absent], "io", 1),
    ];
    for (arguments, code, expected) in table {
        let output = home.run(arguments);
        let lines = json_lines(&output);
        let (last, before) = lines.split_last().unwrap();
        assert_eq!(last["type"], "error", "{arguments:?}");
        assert_eq!(
            (&last["code"], exit(&output)),
            (&Value::from(*code), *expected)
        );
        assert_eq!(last["exit"], *expected, "{arguments:?}");
        assert!(!last["message"].as_str().unwrap().is_empty());
        assert!(before.iter().all(|line| line["type"] == "start") && before.len() <= 1);
    }
}

#[test]
fn with_json_queries_print_one_document_and_operations_end_in_a_summary() {
    let home = Home::new();
    let init = json_lines(&home.run(&["init", "--json"]));
    let info = json_lines(&home.run(&["repo", "info", "--json"]));
    let keys = json_lines(&home.run(&["key", "list", "--json"]));
    let version = json_lines(&home.run(&["version", "--json"]));
    let flag = json_lines(&home.run(&["-V", "--json"]));
    let help = json_lines(&home.run(&["--help", "--json"]));

    assert_eq!(
        (&init[0]["type"], &init[0]["op"]),
        (&"start".into(), &"init".into())
    );
    assert_eq!((init.len(), &init[1]["type"]), (2, &"summary".into()));
    assert_eq!(init[1]["repo"].as_str().unwrap().len(), 32);
    assert_eq!(info[0]["id"], init[1]["repo"]);
    assert!(Path::new(init[1]["recovery_kit"].as_str().unwrap()).is_file());
    assert_eq!(keys[0]["items"][0]["kind"], "key-file");
    assert_eq!(version, flag);
    assert_eq!(version[0]["version"], env!("CARGO_PKG_VERSION"));
    assert!(
        [info, keys, version, help]
            .iter()
            .all(|document| document.len() == 1)
    );
}

#[test]
fn completions_help_and_the_manual_need_no_repository_and_no_home() {
    let home = Home::new();
    for arguments in [
        &["completions", "bash"][..],
        &["completions", "zsh"],
        &["completions", "fish"],
        &["man"],
        &["--help"],
        &["help"],
        &["restore", "--help"],
        &["-h"],
        &["version"],
        &["--version"],
    ] {
        let output = home
            .command(arguments)
            .env_clear()
            .envs(crate::support::taken_away())
            .output()
            .unwrap();
        if arguments == ["help"] {
            assert_eq!(exit(&output), 2);
            continue;
        }
        assert_eq!(exit(&output), 0, "{arguments:?}: {output:?}");
        assert!(stdout(&output).contains("statekeep"), "{arguments:?}");
        assert_eq!(stderr(&output), "");
    }
    let help = home.done(&["--help"]);
    let (examples, usage) = (help.find("Examples:"), help.find("Usage:"));
    assert!(examples.unwrap() < usage.unwrap(), "{help}");
}

#[test]
fn colour_is_used_only_where_it_is_wanted() {
    let home = Home::new();
    let has_colour = |arguments: &[&str], no_color: &str| {
        let mut command = home.command(arguments);
        let output = command.env("NO_COLOR", no_color).output().unwrap();
        stderr(&output).contains('\x1b')
    };

    assert!(!has_colour(&["list"], ""));
    assert!(!has_colour(&["list"], "1"));
    assert!(has_colour(&["list", "--color", "always"], "1"));
    assert!(!has_colour(&["list", "--color", "never"], ""));
    assert!(!has_colour(&["--frobnicate"], ""));
}

/// A pipe that nobody reads from any more.
fn closed_pipe() -> std::io::PipeWriter {
    let (_, writer) = std::io::pipe().unwrap();
    writer
}

#[test]
fn a_closed_pipe_ends_quietly_and_a_full_disk_does_not() {
    let home = Home::new();
    let output = home
        .command(&["man"])
        .stdout(closed_pipe())
        .output()
        .unwrap();
    assert_eq!((exit(&output), &*stderr(&output)), (141, ""));

    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = home.command(&["version"]).stdout(full).output().unwrap();
    assert_eq!(exit(&output), 16);
    assert!(stderr(&output).contains("error[no-space]"), "{output:?}");
}

/// Runs a command at a terminal of its own and answers a question when it is asked.
fn at_terminal(home: &Home, arguments: &str, answers: &[(&str, &str)]) -> Option<(i32, String)> {
    let line = format!("{BINARY} {arguments}");
    let mut script = Command::new("script");
    script
        .args(["-qec", &line, "/dev/null"])
        .env_clear()
        .envs(crate::support::taken_away());
    script.env("HOME", home.path("home"));
    script.env("PATH", std::env::var_os("PATH")?);
    script.env("STATEKEEP_REPO", home.path("repo"));
    script.stdin(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut child) = script.spawn() else {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: there is no `script` to test prompts with"
        );
        return None;
    };
    let mut input = child.stdin.take().unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut seen = Vec::new();
    for (question, answer) in answers {
        let from = seen.len();
        while !String::from_utf8_lossy(&seen[from..]).contains(question) {
            let mut buffer = [0; 256];
            let count = output.read(&mut buffer).unwrap();
            assert!(
                count > 0,
                "{question:?}: {:?}",
                String::from_utf8_lossy(&seen)
            );
            seen.extend_from_slice(&buffer[..count]);
        }
        input.write_all(answer.as_bytes()).unwrap();
    }
    output.read_to_end(&mut seen).unwrap();
    let status = child.wait().unwrap();
    Some((
        status.code().unwrap(),
        String::from_utf8_lossy(&seen).into_owned(),
    ))
}

#[test]
fn a_passphrase_is_asked_for_at_a_terminal_and_not_shown() {
    let home = Home::new();
    let pass = home.write("pass", "correct horse");
    home.done(&["init", "--password-file", &pass]);
    fs::remove_file(&home.keys()[0]).unwrap();
    let ask = |answer: &str| at_terminal(&home, "key rotate -n", &[("Passphrase", answer)]);

    // A mistyped character is taken back, then a whole line.
    let Some(right) = ask("wrong\x15correct horsf\x7fe\r") else {
        return;
    };
    let wrong = ask("incorrect\r").unwrap();
    let interrupted = ask("corr\x03").unwrap();

    assert_eq!(right.0, 0, "{right:?}");
    assert!(!right.1.contains("horse"), "{right:?}");
    assert_eq!(wrong.0, 12, "{wrong:?}");
    assert_eq!(interrupted.0, 130, "{interrupted:?}");
}

#[test]
fn a_new_passphrase_is_asked_for_twice_and_a_removal_once() {
    let home = Home::new();
    home.done(&["init"]);
    let add = |again: &str| {
        let answers = [("New passphrase", "one two\r"), ("Again", again)];
        at_terminal(&home, "key add --label desk", &answers)
    };
    let Some(differs) = add("one too\r") else {
        return;
    };
    let added = add("one two\r").unwrap();
    let pass = home.write("pass", "one two");
    home.done(&["--password-file", &pass, "key", "rotate", "-n"]);
    let listed = home.done(&["key", "list"]);
    let desk = listed.lines().find(|line| line.contains("desk")).unwrap();
    let remove = format!("key remove {}", desk.split(' ').next().unwrap());
    let no = at_terminal(&home, &remove, &[("[y/N]", "\r")]).unwrap();
    let yes = at_terminal(&home, &remove, &[("[y/N]", "yes\r")]).unwrap();

    assert_eq!((differs.0, added.0), (2, 0), "{differs:?} {added:?}");
    assert_eq!((no.0, yes.0), (14, 0), "{no:?} {yes:?}");
    assert!(!home.done(&["key", "list"]).contains("desk"));
}

/// A repository with one snapshot of a small directory.
fn with_snapshot() -> Home {
    let home = Home::new();
    home.done(&["init"]);
    fs::create_dir_all(home.path("app/config")).unwrap();
    home.write("app/config/a.toml", "a = 1\n");
    home.write("app/data.bin", &"0123456789".repeat(50_000));
    home.done(&[
        "backup",
        &home.text("app"),
        "--tag",
        "first",
        "--host",
        "nas1",
    ]);
    home
}

#[test]
fn what_was_backed_up_is_listed_shown_read_and_restored() {
    let home = with_snapshot();
    home.write("app/config/b.toml", "b = 2\n");
    let second = home.done(&["backup", &home.text("app"), "--host", "nas1"]);

    assert!(
        second.starts_with("Snapshot ") && second.contains(" saved in "),
        "{second}"
    );
    assert!(second.contains("1 file new, 0 changed, 2 same"), "{second}");
    let list = home.done(&["list"]);
    assert_eq!(list.lines().count(), 4, "{list}");
    assert!(list.lines().nth(2).unwrap().contains("nas1"), "{list}");
    assert!(list.contains("2 snapshots hold"), "{list}");
    assert!(home.done(&["show", "tag:first"]).contains("2 files and"));
    assert!(
        home.done(&["ls", "latest:config"])
            .contains("config/b.toml")
    );
    assert_eq!(home.done(&["cat", "latest~1:config/a.toml"]), "a = 1\n");
    assert_eq!(exit(&home.run(&["cat", "latest~1:config/b.toml"])), 13);
    assert_eq!(exit(&home.run(&["show", "deadbeef"])), 13);

    let to = home.text("out");
    let planned = home.run(&["restore", "latest", "--to", &to]);
    assert_eq!(exit(&planned), 14);
    assert!(
        stdout(&planned).contains("Plan: put snapshot"),
        "{planned:?}"
    );
    let command = format!("hint: statekeep restore latest --to {to} --confirm");
    assert!(stderr(&planned).contains(&command), "{planned:?}");
    home.done(&["restore", "latest", "--to", &to, "-n"]);
    assert!(!home.path("out").exists());
    home.done(&["restore", "latest", "--to", &to, "--confirm"]);
    for name in ["config/a.toml", "config/b.toml", "data.bin"] {
        let read = |root: &str| fs::read(home.path(root).join(name)).unwrap();
        assert_eq!(read("app"), read("out"), "{name}");
    }

    home.done(&[
        "restore",
        "latest:config/b.toml",
        "--to",
        &home.text("one"),
        "-y",
    ]);
    assert_eq!(files(&home.path("one")).len(), 1);
    assert_eq!(
        files(&home.path("one/config")),
        [home.path("one/config/b.toml")]
    );
    home.write("out/data.bin", "mine");
    let conflict = home.run(&["restore", "latest", "--to", &to, "--confirm"]);
    assert_eq!(exit(&conflict), 2, "{conflict:?}");
    assert_eq!(
        fs::read_to_string(home.path("out/data.bin")).unwrap(),
        "mine"
    );
}

#[test]
fn with_json_backup_restore_and_queries_are_pure_on_a_pipe_and_on_a_terminal() {
    let home = with_snapshot();
    let app = home.text("app");
    let out = home.text("out");
    let operations: &[&[&str]] = &[
        &["backup", &app],
        &["backup", &app, "-n"],
        &["backup", &app, "--progress", "plain", "-q"],
        &["restore", "latest", "--to", &out, "-n"],
        &["restore", "latest", "--to", &out, "-y"],
    ];
    for arguments in operations {
        let lines = json_lines(&home.run(&[arguments, &["--json"][..]].concat()));
        assert_eq!(lines[0]["type"], "start", "{arguments:?}");
        let (last, middle) = lines[1..].split_last().unwrap();
        assert_eq!(
            (&last["type"], &last["exit"]),
            (&"summary".into(), &0.into())
        );
        assert_eq!(last["dry_run"], arguments.contains(&"-n"), "{arguments:?}");
        assert!(
            middle.iter().all(|line| line["type"] == "progress"),
            "{middle:?}"
        );
    }
    for (arguments, kind) in [
        ("list", "snapshots"),
        ("snapshots --limit 1", "snapshots"),
        ("show latest", "snapshot"),
        ("ls latest", "files"),
        ("repo info", "repo"),
        ("key list", "keys"),
    ] {
        let words: Vec<&str> = arguments.split(' ').chain(["--json"]).collect();
        let lines = json_lines(&home.run(&words));
        assert_eq!(
            (lines.len(), &lines[0]["type"]),
            (1, &kind.into()),
            "{arguments}"
        );
        let Some((exit, text)) = at_terminal(&home, &format!("{arguments} --json"), &[]) else {
            continue;
        };
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((exit, &document["type"]), (0, &kind.into()), "{arguments}");
    }
    let files: Value = serde_json::from_str(&home.done(&["ls", "latest", "--json"])).unwrap();
    let paths: Vec<&str> = files["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["path"].as_str().unwrap())
        .collect();
    assert_eq!(paths, ["", "config", "config/a.toml", "data.bin"]);
    assert_eq!(files["complete"], true);
}

#[test]
fn a_source_that_cannot_be_read_makes_the_snapshot_partial() {
    let home = with_snapshot();
    let absent = home.text("absent");

    let output = home.run(&["backup", &home.text("app"), &absent]);
    let json = home.run(&["backup", &home.text("app"), &absent, "--json"]);

    // Whether a missing path is a warning or an error is the operation's choice; both are told.
    match exit(&output) {
        3 => {
            assert!(stderr(&output).contains("warning["), "{output:?}");
            assert!(stdout(&output).contains("PARTIAL"), "{output:?}");
            assert!(home.done(&["list"]).contains("partial"));
            let lines = json_lines(&json);
            assert!(lines.iter().any(|line| line["type"] == "warning"));
            assert_eq!(lines.last().unwrap()["exit"], 3);
        }
        code => assert!(code == 13 || code == 1 || code == 2, "{output:?}"),
    }
}

#[test]
fn an_interrupted_backup_says_so_and_the_next_one_works() {
    let home = with_snapshot();
    home.write(
        "app/more.bin",
        &format!("{:?}", (0..3_000_000).collect::<Vec<u32>>()),
    );
    let app = home.text("app");
    let mut command = home.command(&["backup", &app, "--json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    // The first line comes after the signals are watched.
    let mut first = [0; 1];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut first)
        .unwrap();
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );

    let output = child.wait_with_output().unwrap();

    // On a fast machine it may be through already.
    let text = stdout(&output);
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    match exit(&output) {
        0 => assert_eq!(last["type"], "summary"),
        code => assert_eq!((code, &last["code"]), (143, &"interrupted".into())),
    }
    home.done(&["backup", &app]);
}

#[test]
fn a_list_cut_short_by_its_reader_ends_quietly() {
    let home = with_snapshot();
    for arguments in [
        &["list"][..],
        &["ls", "latest"],
        &["cat", "latest:data.bin"],
    ] {
        let output = home
            .command(arguments)
            .stdout(closed_pipe())
            .output()
            .unwrap();
        assert_eq!(
            (exit(&output), &*stderr(&output)),
            (141, ""),
            "{arguments:?}"
        );
    }
}

#[test]
fn a_check_finds_damage_and_exits_with_four() {
    let home = with_snapshot();
    let clean = home.done(&["check", "--read-data"]);
    let pack = files(&home.path("repo/packs")).remove(0);
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::set_permissions(&pack, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&pack, bytes).unwrap();

    let damaged = home.run(&["check", "--read-data=100%"]);
    let json = home.run(&["check", "--read-data", "--json"]);

    assert!(
        clean.contains("Checked 1 snapshot") && clean.contains("No problems"),
        "{clean}"
    );
    assert_eq!((exit(&damaged), exit(&json)), (4, 4), "{damaged:?}");
    assert!(stdout(&damaged).contains("DAMAGED  packs/"), "{damaged:?}");
    let last = json_lines(&json).pop().unwrap();
    assert_eq!(
        (&last["type"], &last["exit"]),
        (&"summary".into(), &4.into())
    );
    assert!(!last["problems"].as_array().unwrap().is_empty());
    for arguments in [&["check", "--read-data=0"][..], &["check", "--read-data=x"]] {
        assert_eq!(exit(&home.run(arguments)), 2);
    }
}
