//! Completions and the manual page, used as people use them: by the shells, and by groff.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

const BINARY: &str = env!("CARGO_BIN_EXE_statekeep");

fn printed(arguments: &[&str]) -> String {
    let output = Command::new(BINARY).args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a script in a shell that reads no files of the user; `None` if there is no such shell.
fn run(dir: &Path, shell: &[&str], script: &str) -> Option<Output> {
    let program = shell[0];
    if Command::new(program).arg("--version").output().is_err() {
        eprintln!("SKIPPED: there is no {program} to try completions in");
        return None;
    }
    let output = Command::new(program)
        .args(&shell[1..])
        .args(["-c", script])
        .current_dir(dir)
        .env("HOME", dir)
        .env("TERM", "dumb")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {said}");
    assert_eq!(said, "", "{program}");
    Some(output)
}

/// A directory with the completions of a shell in a file.
fn script(shell: &str, name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(name), printed(&["completions", shell])).unwrap();
    dir
}

#[test]
fn bash_completes_commands_options_and_values() {
    let dir = script("bash", "statekeep.bash");
    // What bash does at a tab, without a terminal.
    let complete = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let (last, count) = (words.last().unwrap(), words.len() - 1);
        let before = words[count - 1];
        let quoted = words.iter().map(|word| format!("'{word}'"));
        let quoted = quoted.collect::<Vec<_>>().join(" ");
        let text = format!(
            "source ./statekeep.bash; COMP_WORDS=({quoted}); COMP_CWORD={count}; \
             _statekeep statekeep '{last}' '{before}'; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let output = run(dir.path(), &["bash", "--norc", "--noprofile"], &text).unwrap();
        String::from_utf8(output.stdout).unwrap()
    };

    assert_eq!(complete("statekeep ba"), "backup\n");
    assert_eq!(complete("statekeep doc"), "doctor\n");
    assert_eq!(complete("statekeep key chan"), "change-password\n");
    assert!(complete("statekeep restore --in-").contains("--in-place"));
    assert!(complete("statekeep --progress ").contains("plain"));
    assert!(complete("statekeep completions ").contains("fish"));
    assert!(!complete("statekeep demo-").contains("demo-application"));
}

#[test]
fn zsh_loads_what_it_completes_with() {
    let dir = script("zsh", "_statekeep");
    let text = "fpath=($PWD $fpath); autoload -Uz compinit; compinit -u -D; \
                autoload +X _statekeep; print -r -- ${_comps[statekeep]} $+functions[_statekeep]";

    if let Some(output) = run(dir.path(), &["zsh", "-f"], text) {
        assert_eq!(String::from_utf8_lossy(&output.stdout), "_statekeep 1\n");
    }
}

#[test]
fn fish_completes_commands_and_options() {
    let dir = script("fish", "statekeep.fish");
    let complete = |line: &str| {
        let text = format!("source ./statekeep.fish; complete -C '{line}'");
        let output = run(dir.path(), &["fish", "--no-config"], &text)?;
        Some(String::from_utf8(output.stdout).unwrap())
    };

    let Some(commands) = complete("statekeep ba") else {
        return;
    };

    assert!(commands.starts_with("backup\t"), "{commands}");
    assert!(
        complete("statekeep restore --in-")
            .unwrap()
            .contains("--in-place")
    );
    assert!(
        complete("statekeep key ch")
            .unwrap()
            .starts_with("change-password")
    );
}

#[test]
fn the_manual_page_is_sound_roff() {
    let dir = tempfile::tempdir().unwrap();
    let page = printed(&["man"]);
    fs::write(dir.path().join("statekeep.1"), &page).unwrap();
    assert!(page.contains("doctor"), "a command is missing");

    let output = Command::new("groff")
        .args(["-man", "-ww", "-Tutf8", "statekeep.1"])
        .current_dir(dir.path())
        .output();

    let Ok(output) = output else {
        return eprintln!("SKIPPED: there is no groff to format the manual page");
    };
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.lines().count() > 200, "{text}");
}

/// Returns every command by its words, from the help of the program itself.
fn commands(above: &[String]) -> Vec<Vec<String>> {
    let mut words: Vec<&str> = above.iter().map(String::as_str).collect();
    words.push("--help");
    let text = printed(&words);
    let list = text.split("\nCommands:\n").nth(1).unwrap_or_default();
    let list = list.lines().take_while(|line| !line.is_empty());
    let names = list.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let mut found = vec![above.to_vec()];
    for name in names.filter_map(|line| line.split_whitespace().next()) {
        let path = [above, &[name.to_string()]].concat();
        found.extend(commands(&path));
    }
    found
}

/// Lines too long for a terminal are broken in the middle of words by it.
#[test]
fn the_help_of_every_command_begins_with_examples_and_fits() {
    for command in commands(&[]) {
        let text = |columns: &str| {
            let output = Command::new(BINARY)
                .args(&command)
                .arg("--help")
                .env("COLUMNS", columns)
                .output();
            String::from_utf8(output.unwrap().stdout).unwrap()
        };
        // The example of `repo info` stands in the help of `repo`; `version` has nothing to show.
        let is_bare = command == ["version"] || command == ["repo", "info"];
        assert!(is_bare || text("80").starts_with("Example"), "{command:?}");
        for columns in [60, 80, 120] {
            let text = text(&columns.to_string());
            let long = text.lines().find(|line| line.chars().count() > columns);
            // A word that is longer than what is left stays whole.
            let long = long.filter(|line| line.trim().contains(' '));
            // clap never wraps the line that tells the order of arguments.
            let long = long.filter(|line| !line.starts_with("Usage: "));
            assert_eq!(long, None, "{command:?} at {columns}");
        }
    }
}
