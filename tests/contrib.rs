//! What lies in `contrib`: units that systemd accepts, a line that cron accepts, and the commands in
//! both work; a file for containers that holds what is promised of it.

use crate::apps::App;
use crate::apps::Machine;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::slice;

const UNITS: [&str; 8] = [
    "statekeep-backup@.service",
    "statekeep-backup@.timer",
    "statekeep-failed@.service",
    "statekeep-prune@.service",
    "statekeep-prune@.timer",
    "statekeep-shutdown@.service",
    "statekeep-status.service",
    "statekeep-status.timer",
];
/// What `systemd-analyze security` may say of a service at most, in tenths; less is better.
const EXPOSURE_MAX: u32 = 26;

fn contrib(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("contrib").join(name)
}

/// The program is found in the path, which is that of the machine.
fn unit(name: &str) -> String {
    let text = fs::read_to_string(contrib("systemd").join(name)).unwrap();
    let own = format!("{} ", env!("CARGO_BIN_EXE_statekeep"));
    text.replace("=statekeep ", &format!("={own}"))
        .replace("=-statekeep ", &format!("=-{own}"))
}

/// Writes the units as those of the profile `app`, and returns their names.
fn written(dir: &Path) -> Vec<String> {
    for name in UNITS {
        fs::write(dir.join(name.replace('@', "@app")), unit(name)).unwrap();
    }
    let service = "[Service]\nExecStart=/bin/true\n";
    fs::write(dir.join("app.service"), service).unwrap();
    UNITS.map(|name| name.replace('@', "@app")).to_vec()
}

fn systemd_analyze(dir: &Path, arguments: &[&str], names: &[String]) -> Option<Output> {
    let analyzed = Command::new("systemd-analyze")
        .args(arguments)
        .args(names.iter().map(|name| dir.join(name)))
        .env("SYSTEMD_UNIT_PATH", format!("{}:", dir.display()))
        .output();
    let analyzed = analyzed.ok();
    if analyzed.is_none() {
        eprintln!("SKIPPED what systemd says of units: there is no systemd-analyze");
    }
    analyzed
}

#[test]
fn systemd_accepts_the_units() {
    let dir = tempfile::tempdir().unwrap();
    let names = written(dir.path());
    // As docs/operate.md has it.
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operate.md");
    let document = fs::read_to_string(document).unwrap();
    let (_, credentials) = document.split_once("```ini\n").unwrap();
    let drop_in = dir.path().join("statekeep-backup@app.service.d");
    fs::create_dir(&drop_in).unwrap();
    let credentials = credentials.split("```").next().unwrap();
    fs::write(drop_in.join("credentials.conf"), credentials).unwrap();

    let arguments = ["verify", "--man=no", "--recursive-errors=no"];
    let Some(verified) = systemd_analyze(dir.path(), &arguments, &names) else {
        return;
    };

    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && said.is_empty(), "{said}");
}

#[test]
fn the_services_are_as_little_exposed_as_the_document_says() {
    let dir = tempfile::tempdir().unwrap();
    let services: Vec<String> = written(dir.path())
        .into_iter()
        .filter(|name| name.ends_with(".service"))
        .collect();
    for service in services {
        let arguments = ["security", "--offline=true", "--no-pager"];
        let Some(analyzed) = systemd_analyze(dir.path(), &arguments, slice::from_ref(&service))
        else {
            return;
        };
        let said = String::from_utf8_lossy(&analyzed.stdout);
        let level = said.split_once("Overall exposure level for ");
        let Some(level) = level.and_then(|(_, rest)| rest.split_whitespace().nth(1)) else {
            eprintln!("SKIPPED the exposure of units: this systemd cannot judge files");
            return;
        };
        let tenths: u32 = level.replace('.', "").parse().unwrap();
        assert!(tenths <= EXPOSURE_MAX, "{service}: {level}");
    }
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
    let mut commands: Vec<&str> = lines
        .filter(|line| line.starts_with("Exec") && line.contains("statekeep "))
        .collect();
    // What looks at backups comes after what makes them.
    commands.sort_by_key(|line| line.contains("statekeep status"));
    assert_eq!(commands.len(), 5);

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

/// Returns the instructions of the last stage, each on one line.
fn last_stage() -> Vec<(String, String)> {
    let text = fs::read_to_string(contrib("container/Containerfile")).unwrap();
    let text = text.replace("\\\n", " ");
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let instructions: Vec<(String, String)> = lines
        .map(|line| {
            let (name, rest) = line.split_once(' ').unwrap();
            (
                name.to_string(),
                rest.split_whitespace().collect::<Vec<_>>().join(" "),
            )
        })
        .collect();
    let stages = instructions
        .iter()
        .filter(|(name, _)| name == "FROM")
        .count();
    assert_eq!(stages, 2);
    let last = instructions.iter().rposition(|(name, _)| name == "FROM");
    instructions[last.unwrap()..].to_vec()
}

#[test]
fn the_container_file_keeps_its_promises() {
    let stage = last_stage();
    let of = |name: &str| -> Vec<&str> {
        let found = stage.iter().filter(|(other, _)| other == name);
        found.map(|(_, rest)| rest.as_str()).collect()
    };

    // Nobody in particular, by number, so that an orchestrator sees that it is not root.
    let users = of("USER");
    let user = users.last().unwrap();
    let mut ids = user.split(':').map(|id| id.parse::<u32>().unwrap());
    assert!(ids.all(|id| id >= 1000), "{user}");
    // No compiler comes along, and nothing is written but in the two volumes.
    assert!(of("FROM")[0].ends_with("-slim"));
    let volumes: Vec<String> = serde_json::from_str(of("VOLUME")[0]).unwrap();
    assert_eq!(volumes, ["/var/cache/statekeep", "/var/backups/statekeep"]);
    let variables = of("ENV").join(" ");
    for pair in variables.split_whitespace() {
        let (name, value) = pair.split_once('=').unwrap();
        let is_in_volume = value.starts_with("/var/cache/statekeep");
        assert!(is_in_volume || name == "STATEKEEP_CONFIG", "{pair}");
    }
    let (_, check) = of("HEALTHCHECK")[0].split_once("CMD ").unwrap();
    let check: Vec<String> = serde_json::from_str(check).unwrap();
    assert_eq!(check[..2], ["/usr/local/bin/statekeep", "status"]);
    // What is copied is there, and lists of arguments need no shell.
    for copied in of("COPY") {
        let words: Vec<&str> = copied
            .split(' ')
            .filter(|word| !word.starts_with("--"))
            .collect();
        let is_built = copied.contains("--from=build");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(words[0]);
        assert!(is_built || source.exists(), "{copied}");
    }
    let entry: Vec<String> = serde_json::from_str(of("ENTRYPOINT")[0]).unwrap();
    assert_eq!(entry, ["/usr/local/bin/entry"]);
    assert!(serde_json::from_str::<Vec<String>>(of("CMD")[0]).is_ok());
}

#[test]
fn the_entry_backs_up_again_and_again_until_it_is_told_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    // Says that it runs; the third time it runs until a signal comes, and says so.
    let program = format!(
        "#!/bin/sh\necho \"$*\" >> {0}\ntest $(wc -l < {0}) -lt 3 && exit 1\n\
         trap 'echo stopped >> {0}; exit 143' TERM\necho up > {0}.pipe\n\
         while :; do read x < {0}.never; done\n",
        log.display()
    );
    let statekeep = dir.path().join("statekeep");
    fs::write(&statekeep, program).unwrap();
    fs::set_permissions(&statekeep, fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["log.pipe", "log.never"] {
        let made = Command::new("mkfifo").arg(dir.path().join(name)).status();
        assert!(made.unwrap().success());
    }
    let path = format!(
        "{}:{}",
        dir.path().display(),
        std::env::var("PATH").unwrap()
    );
    let entry = |arguments: &[&str]| {
        let mut command = Command::new(contrib("container/entry"));
        command.args(arguments).env("PATH", &path);
        command
    };

    let mut child = entry(&["every", "0"]).spawn().unwrap();
    assert_eq!(
        fs::read_to_string(dir.path().join("log.pipe")).unwrap(),
        "up\n"
    );
    let id = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    let status = child.wait().unwrap();

    assert_eq!(status.code(), Some(143));
    let said = fs::read_to_string(&log).unwrap();
    let backup = "backup --all --progress none\n";
    assert_eq!(said, format!("{}stopped\n", backup.repeat(3)));
    fs::write(&statekeep, "#!/bin/sh\necho \"$*\"; exit 20\n").unwrap();
    let other = entry(&["status", "--json"]).output().unwrap();
    assert_eq!(
        (other.status.code(), &*other.stdout),
        (Some(20), &b"status --json\n"[..])
    );
    let wrong = entry(&["every", "soon", "status"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
}
