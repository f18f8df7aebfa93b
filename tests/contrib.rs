//! What lies in `contrib`: units that systemd accepts, a line that cron accepts, and the commands in
//! both work.

use crate::apps::App;
use crate::apps::Machine;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

const UNITS: [&str; 3] = [
    "statekeep-backup@.service",
    "statekeep-backup@.timer",
    "statekeep-shutdown@.service",
];
const INSTALLED: &str = "/usr/local/bin/statekeep";

fn contrib(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("contrib").join(name)
}

fn unit(name: &str) -> String {
    let text = fs::read_to_string(contrib("systemd").join(name)).unwrap();
    text.replace(INSTALLED, env!("CARGO_BIN_EXE_statekeep"))
}

#[test]
fn systemd_accepts_the_units() {
    let dir = tempfile::tempdir().unwrap();
    for name in UNITS {
        let name = name.replace('@', "@app");
        let text = unit(&name.replace("@app", "@"));
        fs::write(dir.path().join(name), text).unwrap();
    }
    let service = "[Service]\nExecStart=/bin/true\n";
    fs::write(dir.path().join("app.service"), service).unwrap();

    let verified = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .args(UNITS.map(|name| dir.path().join(name.replace('@', "@app"))))
        .env("SYSTEMD_UNIT_PATH", format!("{}:", dir.path().display()))
        .output();

    let Ok(verified) = verified else {
        eprintln!("SKIPPED systemd_accepts_the_units: there is no systemd-analyze");
        return;
    };
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && said.is_empty(), "{said}");
}

/// Returns what follows `statekeep` in a line, for this profile.
fn words<'a>(line: &'a str, profile: &'a str) -> Vec<&'a str> {
    let (_, rest) = line.split_once("statekeep ").unwrap();
    let words = rest.split_whitespace();
    words
        .map(|word| if word == "%i" { profile } else { word })
        .collect()
}

#[test]
fn the_commands_of_units_and_cron_back_up_and_prune_without_a_word() {
    let profile = "[profile.homecore]\nroot = \"/opt/homecore\"\nretention = 2\n";
    let machine = Machine::with_profile(App::HomeCore, profile);
    machine.make(2);
    let texts: Vec<String> = UNITS
        .iter()
        .map(|name| fs::read_to_string(contrib("systemd").join(name)).unwrap())
        .collect();
    let lines = texts.iter().flat_map(|text| text.lines());
    let commands: Vec<&str> = lines.filter(|line| line.contains(INSTALLED)).collect();
    assert_eq!(commands.len(), 2);

    for command in commands {
        machine.done(&words(command, "homecore"));
    }
    let shutdown = machine.json(&["list", "--tag", "shutdown"]);
    assert_eq!(shutdown["items"].as_array().unwrap().len(), 1);
    machine.done(&words("statekeep backup -p %i", "homecore"));
    let cron = fs::read_to_string(contrib("statekeep.cron")).unwrap();
    let jobs = cron
        .lines()
        .filter(|line| line.starts_with(char::is_numeric));
    for job in jobs {
        let fields: Vec<&str> = job.split_whitespace().take(5).collect();
        let schedule: Result<statekeep::config::Schedule, _> = fields.join(" ").parse();
        assert!(schedule.is_ok(), "{job}");
        let output = machine.run(&words(job, ""));
        assert_eq!(output.status.code(), Some(0), "{job}: {output:?}");
        assert!(
            output.stdout.is_empty() && output.stderr.is_empty(),
            "{output:?}"
        );
    }
    let left = machine.json(&["list"]);
    assert_eq!(left["items"].as_array().unwrap().len(), 2);
}
