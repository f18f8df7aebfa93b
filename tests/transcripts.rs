//! What a person sees, recorded: the walk-throughs of the three applications, and the main outputs
//! on a terminal of 80 and of 120 columns. `STATEKEEP_RECORD=1` records again.
//!
//! Ids, times, sizes and other numbers differ from run to run, so what is compared is the words: a
//! recording that says other words, or in another order, is old.

use crate::apps::App;
use crate::apps::Machine;
use crate::homecore::has;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

fn path(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("docs/transcripts").join(format!("{name}.md"))
}

fn is_recording() -> bool {
    std::env::var_os("STATEKEEP_RECORD").is_some()
}

/// Returns the words of a text, without those that differ from run to run, line by line. Lines that
/// are alike and follow each other count once: there may be one or two of them.
fn shape(text: &str) -> Vec<String> {
    const UNITS: [&str; 12] = [
        "B", "KiB", "MiB", "GiB", "TiB", "ns", "ms", "s", "min", "h", "ago", "just",
    ];
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let is_word = |word: &&str| {
            let is_plain = word
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_uppercase());
            let is_id = word.len() >= 8 && word.bytes().all(|b| b.is_ascii_hexdigit());
            is_plain && !is_id && !UNITS.contains(word)
        };
        let trim = |c: char| !c.is_alphanumeric() && c != '$';
        let words = line.split_whitespace().map(|word| word.trim_matches(trim));
        let words: Vec<String> = words
            .filter(|word| !word.is_empty())
            .filter(is_word)
            .map(|word| word.trim_end_matches('s').to_string())
            .collect();
        let words = words.join(" ");
        if !words.is_empty() && lines.last() != Some(&words) {
            lines.push(words);
        }
    }
    lines
}

/// Fails unless what was seen has the words of the recording; or records it.
pub(crate) fn compare(name: &str, seen: &str) {
    let (title, about) = match name {
        "homecore" => ("HomeCore", "docs/apps/homecore.md"),
        "hoziron" => ("Hoziron", "docs/apps/hoziron.md"),
        _ => ("Chaos Cypher", "docs/apps/chaos-cypher.md"),
    };
    let link = about.trim_start_matches("docs/");
    let made = format!(
        "# {title}, from the first backup to a restore and back\n\nThe commands of \
         [{about}](../{link}) as the test of that document ran them, on an imitation of {title} that \
         goes on committing until it is stopped. Its directories are those of a machine of its own; \
         nothing else was changed. `STATEKEEP_RECORD=1 cargo test --test main the_how_to` records \
         again; each run compares the words.\n\n```text\n{}\n```\n",
        seen.trim_end()
    );
    record(&path(name), &made);
    let there = fs::read_to_string(path(name)).unwrap_or_default();
    let (old, new) = (by_command(&there), by_command(&made));
    let commands = |of: &[(String, Vec<String>)]| -> Vec<String> {
        of.iter().map(|(command, _)| command.clone()).collect()
    };
    assert_eq!(commands(&old), commands(&new), "{name}: other commands");
    // The application goes on writing, so that a line may be there or not.
    for ((command, old), (_, new)) in old.iter().zip(&new) {
        let shared = old.iter().filter(|line| new.contains(line)).count();
        let all = old.len().max(new.len());
        assert!(
            3 * shared >= 2 * all,
            "{name}: {command}\n{old:#?}\n{new:#?}"
        );
    }
}

/// Returns each command of a transcript with the words that it said.
fn by_command(text: &str) -> Vec<(String, Vec<String>)> {
    let mut commands: Vec<(String, Vec<String>)> = Vec::new();
    let mut said = String::new();
    for line in text.lines().rev().filter(|line| !line.starts_with("```")) {
        match line.strip_prefix("$ ") {
            Some(command) => {
                commands.push((command.to_string(), shape(&said)));
                said.clear();
            }
            None => said = format!("{line}\n{said}"),
        }
    }
    commands.reverse();
    commands
}

fn record(path: &Path, made: &str) {
    if is_recording() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, made).unwrap();
    }
}

fn settle(path: &Path, made: &str) {
    record(path, made);
    let there = fs::read_to_string(path).unwrap_or_default();
    let (there, made) = (shape(&there), shape(made));
    for (number, (old, new)) in there.iter().zip(&made).enumerate() {
        assert_eq!(old, new, "{}, line {number} of words", path.display());
    }
    assert_eq!(there.len(), made.len(), "{} is old", path.display());
}

/// Returns what a terminal of this width shows of a command, without the codes for colour.
fn on_terminal(machine: &Machine, columns: u32, line: &str) -> String {
    let quoted = format!("stty cols {columns} rows 50; {line}").replace('\'', r"'\''");
    let script = format!("TERM=xterm script -qec '{quoted}' typescript || true");
    let shown = machine.shell(&script);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let mut plain = String::new();
    let mut rest = shown.as_str();
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        let end = after.find(|c: char| c.is_ascii_alphabetic());
        rest = end.map_or("", |end| &after[end + 1..]);
    }
    plain.push_str(rest);
    let lines = plain.replace("\r\n", "\n");
    let lines = lines
        .lines()
        .map(|l| l.rsplit('\r').find(|part| !part.is_empty()).unwrap_or(l));
    let here = machine.path("").display().to_string();
    let lines: Vec<String> = lines
        .map(|l| l.replace(&here, "").trim_end().to_string())
        .collect();
    lines.join("\n")
}

const CAPTURED: [&str; 18] = [
    "statekeep backup -p homecore",
    "statekeep list",
    "statekeep status",
    "statekeep show latest",
    "statekeep ls latest",
    "statekeep restore latest --to ./look -n",
    "statekeep restore latest --in-place -n",
    "statekeep diff latest~1 latest --rows",
    "statekeep find history.db",
    "statekeep drill",
    "statekeep check",
    "statekeep stats",
    "statekeep stats --by snapshot",
    "statekeep prune -n --keep-last 2",
    "statekeep export latest -o app.tar.gz",
    "statekeep restore nothing --to ./look",
    "statekeep -r /mnt/nothing list",
    "echo n | statekeep prune --keep-last 2",
];

#[test]
fn the_captures_are_what_a_terminal_shows() {
    let works = Command::new("script")
        .args(["-qec", "true", "/dev/null"])
        .stdin(Stdio::null())
        .status();
    if !works.is_ok_and(|status| status.success()) || !has("stty") {
        eprintln!("SKIPPED the_captures_are_what_a_terminal_shows: there is no script and stty");
        return;
    }
    let profile = "[profile.homecore]\nroot = \"/opt/homecore\"\n";
    let machine = Machine::with_profile(App::HomeCore, profile);
    for round in 1..4 {
        machine.make(5 * round);
        machine.done(&["backup", "-p", "homecore"]);
    }
    machine.make(40);

    let mut made = String::from(
        "# What it looks like\n\nOn a pseudo-terminal of 80 and of 120 columns, colours left out; what is the same at both is \
         shown once. Recorded by `STATEKEEP_RECORD=1 cargo test --test main captures`, from a repository of \
         HomeCore. Each run compares the words.\n",
    );
    for line in CAPTURED {
        let narrow = on_terminal(&machine, 80, line);
        let _ = fs::remove_file(machine.path("app.tar.gz"));
        let _ = fs::remove_file(machine.path("app.tar.gz.sha256"));
        let wide = on_terminal(&machine, 120, line);
        made.push_str(&format!("\n## `{line}`\n\n```text\n{narrow}\n```\n"));
        // What looks the same at both widths is shown once.
        if shape(&narrow) != shape(&wide) || narrow.lines().count() != wide.lines().count() {
            made.push_str(&format!("\nAt 120 columns:\n\n```text\n{wide}\n```\n"));
        }
        let is_coloured = narrow.contains('\u{1b}');
        assert!(!is_coloured, "{line}");
    }
    let help = on_terminal(&machine, 80, "statekeep drill --help");
    let widest = help.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(80), "{help}");

    settle(&path("captures"), &made);
}

#[test]
fn without_colour_nothing_but_text_reaches_a_terminal() {
    let machine = Machine::new(App::HomeCore);
    for (setting, has_codes) in [("NO_COLOR=1", false), ("NO_COLOR=", true)] {
        let line = format!(
            "{setting} TERM=xterm script -qec 'statekeep -r /mnt/nothing list' typescript || true"
        );
        let output = machine.shell(&line);
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        if shown.is_empty() {
            eprintln!("SKIPPED without_colour_nothing_but_text_reaches_a_terminal: no script");
            return;
        }
        assert_eq!(shown.contains('\u{1b}'), has_codes, "{setting} {shown:?}");
        assert!(shown.contains("error[no-repo]"), "{shown:?}");
    }
}
