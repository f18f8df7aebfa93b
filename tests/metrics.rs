//! The file for Prometheus: read by a parser that is stricter than any collector.

use crate::oracle::stderr;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use tempfile::TempDir;

type Labels = BTreeMap<String, String>;

/// Returns samples by name, or what is wrong with the text.
fn parse(text: &str) -> Result<BTreeMap<String, Vec<(Labels, f64)>>, String> {
    let mut families: BTreeMap<String, Vec<(Labels, f64)>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut open: Option<(String, bool)> = None;
    if !text.ends_with('\n') {
        return Err("it does not end with a line".into());
    }
    for line in text.lines() {
        let wrong = |why: &str| Err(format!("{why}: {line:?}"));
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, about) = help.split_once(' ').ok_or("a HELP without words")?;
            if !is_name(name) || about.is_empty() || families.contains_key(name) {
                return wrong("a HELP that is wrong or comes twice");
            }
            families.insert(name.into(), Vec::new());
            open = Some((name.into(), false));
            continue;
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            match (&mut open, kind.split_once(' ')) {
                (Some((name, typed @ false)), Some((of, "gauge"))) if name == of => *typed = true,
                _ => return wrong("a TYPE that is wrong"),
            }
            continue;
        }
        let Some((name, true)) = &open else {
            return wrong("a sample without HELP and TYPE");
        };
        let rest = line
            .strip_prefix(name.as_str())
            .ok_or("a sample of another name")?;
        let rest = rest.strip_prefix('{').ok_or("no labels")?;
        let (labels, rest) = labels(rest).ok_or_else(|| format!("labels: {line:?}"))?;
        let value = rest.strip_prefix(' ').ok_or("no value")?;
        let value: f64 = value
            .parse()
            .map_err(|error| format!("{error}: {line:?}"))?;
        if !value.is_finite() || !seen.insert((name.clone(), labels.clone())) {
            return wrong("no number, or a sample that comes twice");
        }
        families.get_mut(name).unwrap().push((labels, value));
    }
    match families.iter().find(|(_, samples)| samples.is_empty()) {
        Some((name, _)) => Err(format!("{name} has no samples")),
        None => Ok(families),
    }
}

fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    chars.next().is_some_and(|c| c.is_ascii_lowercase()) && chars.all(is_part)
}

/// Returns the labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Option<(Labels, &str)> {
    let mut labels = Labels::new();
    if let Some(rest) = rest.strip_prefix('}') {
        return Some((labels, rest));
    }
    loop {
        let (name, value) = rest.split_once("=\"")?;
        let mut chars = value.char_indices();
        let mut plain = String::new();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => plain.push(match chars.next()?.1 {
                    '\\' => '\\',
                    '"' => '"',
                    'n' => '\n',
                    _ => return None,
                }),
                (_, c) => plain.push(c),
            }
        };
        let is_new = is_name(name) && labels.insert(name.into(), plain).is_none();
        rest = &value[end + 1..];
        match (is_new, rest.chars().next()?) {
            (true, ',') => rest = &rest[1..],
            (true, '}') => return Some((labels, &rest[1..])),
            _ => return None,
        }
    }
}

struct Home {
    scratch: TempDir,
}

impl Home {
    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_statekeep"))
            .env_clear()
            .env("HOME", self.scratch.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .args(arguments)
            .current_dir(self.scratch.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn ends(&self, arguments: &[&str], exit: i32) -> Output {
        let output = self.run(arguments);
        assert_eq!(
            output.status.code(),
            Some(exit),
            "{arguments:?}: {}",
            stderr(&output)
        );
        output
    }
}

#[test]
fn the_parser_is_strict() {
    let good = "# HELP a An a\n# TYPE a gauge\na{} 1\na{b=\"c\\n\\\"\\\\\",d=\"}\"} 1.5\n";
    let samples = parse(good).unwrap();
    assert_eq!(samples["a"][1].0["b"], "c\n\"\\");

    for bad in [
        "a{} 1\n",
        "# HELP a An a\na{} 1\n",
        "# HELP a An a\n# TYPE a gauge\n",
        "# HELP a An a\n# TYPE a gauge\na{} 1",
        "# HELP a An a\n# TYPE a gauge\na{} 1\na{} 2\n",
        "# HELP a An a\n# TYPE a gauge\na{b=\"\\x\"} 1\n",
        "# HELP a An a\n# TYPE a gauge\na{b=\"c\",} 1\n",
        "# HELP a An a\n# TYPE a gauge\na{} NaN\n",
        "# HELP a An a\n# TYPE a gauge\nb{} 1\n",
        "# HELP a An a\n# TYPE a gauge\na{} 1\n# HELP a An a\n# TYPE a gauge\na{} 1\n",
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_backup_writes_the_file_for_all_profiles_and_a_failed_one_too() {
    let home = Home {
        scratch: tempfile::tempdir().unwrap(),
    };
    let config = "version = 1\nmetrics-file = \"statekeep.prom\"\n[repo.main]\nurl = \"repo\"\n\
        [profile.one]\nroot = \"one\"\n[profile.two]\nroot = \"two\"\n\
        after = [{ command = [\"false\"] }]\n";
    let dir = home.path(".config/statekeep");
    fs::create_dir_all(&dir).unwrap();
    for name in ["one", "two"] {
        fs::create_dir(dir.join(name)).unwrap();
        fs::write(dir.join(name).join("file"), "content").unwrap();
    }
    fs::write(dir.join("config.toml"), config).unwrap();
    home.ends(&["init", "--plain"], 0);

    home.ends(&["backup", "-p", "one"], 0);
    let path = dir.join("statekeep.prom");
    let first = parse(&fs::read_to_string(&path).unwrap()).unwrap();
    home.ends(&["backup", "-p", "two"], 1);
    home.ends(&["drill", "-p", "one"], 0);
    home.ends(&["check"], 0);
    home.ends(&["status", "--notify"], 0);

    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o644);
    let text = fs::read_to_string(&path).unwrap();
    let all = parse(&text).unwrap();
    let of = |all: &BTreeMap<String, Vec<(Labels, f64)>>, name: &str, profile: &str| {
        let mut samples = all[name].iter();
        let found = samples.find(|(labels, _)| labels["profile"] == profile);
        found.map(|(_, value)| *value)
    };
    assert_eq!(of(&first, "statekeep_overdue", "one"), Some(0.0));
    assert_eq!(of(&first, "statekeep_overdue", "two"), Some(1.0));
    assert_eq!(of(&all, "statekeep_overdue", "two"), Some(0.0));
    assert_eq!(of(&all, "statekeep_last_run_exit_code", "one"), Some(0.0));
    assert_eq!(of(&all, "statekeep_last_run_exit_code", "two"), Some(1.0));
    assert_eq!(of(&all, "statekeep_drill_passed", "one"), Some(1.0));
    assert_eq!(of(&all, "statekeep_backup_read_bytes", "one"), Some(7.0));
    assert_eq!(all["statekeep_check_problems"][0].1, 0.0);
    assert_eq!(all["statekeep_repository_up"][0].1, 1.0);
    let late = of(&all, "statekeep_backup_late_time_seconds", "one").unwrap();
    let made = of(&all, "statekeep_backup_time_seconds", "one").unwrap();
    assert_eq!(late - made, 2.0 * 24.0 * 3600.0);
    let listed = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operate.md"));
    let listed = listed.unwrap();
    for name in all.keys() {
        assert!(
            listed.contains(&format!("`{name}`")),
            "docs/operate.md lacks {name}"
        );
    }
    assert_promtool_agrees(&text);

    // A file that cannot be written changes nothing.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let output = home.ends(&["backup", "-p", "one"], 0);
    assert!(
        stderr(&output).contains("warning[no-metrics]"),
        "{output:?}"
    );
}

#[test]
fn names_that_are_odd_stay_within_their_labels() {
    let home = Home {
        scratch: tempfile::tempdir().unwrap(),
    };
    let root = home.path("a\"b\\c\nd é");
    fs::create_dir(&root).unwrap();
    home.ends(&["-r", "re\"po", "init", "--plain"], 0);
    home.ends(&["-r", "re\"po", "backup", root.to_str().unwrap()], 0);

    let output = home.ends(&["-r", "re\"po", "status", "--metrics", "-"], 0);

    let text = String::from_utf8(output.stdout).unwrap();
    let all = parse(&text).unwrap();
    let (labels, _) = &all["statekeep_backup_time_seconds"][0];
    assert_eq!(Path::new(&labels["root"]), root);
    assert!(labels["repository"].ends_with("re\"po"), "{labels:?}");
    assert_promtool_agrees(&text);
    home.ends(&["-r", "re\"po", "status", "--metrics", "-", "--json"], 2);
    home.ends(&["-r", "re\"po", "status", "--metrics", "none/file"], 1);
}

fn assert_promtool_agrees(text: &str) {
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = spawned else {
        eprintln!("SKIPPED what promtool says: there is none");
        return;
    };
    let mut stdin = promtool.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, text.as_bytes()).unwrap();
    drop(stdin);
    let output = promtool.wait_with_output().unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        stderr(&output)
    );
    assert!(output.status.success() && said.is_empty(), "{said}");
}
