//! What a backup does to the files of an application, as the kernel sees it (I12), and what the
//! application notices of it.

use crate::oracle;
use crate::oracle::Place;
use crate::writers::Habit;
use crate::writers::Spec;
use crate::writers::Writer;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

const TRACED: &str = "trace=open,openat,openat2,creat,write,writev,pwrite64,pwritev,pwritev2,\
    truncate,ftruncate,fallocate,unlink,unlinkat,rename,renameat,renameat2,link,linkat,symlinkat,\
    mkdirat,chmod,fchmod,fchmodat,chown,fchown,fchownat,utimensat,fcntl,flock,mmap,\
    copy_file_range,sendfile,splice,ioctl";

/// The calls that only matter with certain arguments; all others may not touch the source.
const OPENS: [&str; 3] = ["open", "openat", "openat2"];

/// Returns the lines of a trace that break I12 for a database at `path`.
fn violations(trace: &str, path: &Path) -> Vec<String> {
    let path = path.to_str().unwrap();
    let dir = Path::new(path).parent().unwrap().to_str().unwrap();
    let broken = trace.lines().filter(|line| breaks(line, path, dir));
    broken.map(String::from).collect()
}

fn breaks(line: &str, path: &str, dir: &str) -> bool {
    // A process id comes first, and what resumes was judged when it began.
    let line = line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
    let Some((call, arguments)) = line.split_once('(') else {
        return false;
    };
    // Descriptors are shown as `5</path>`, names in quotes, some relative to a directory.
    let file = |suffix: &str| {
        let file = format!("{path}{suffix}");
        let name = Path::new(&file).file_name().unwrap().to_str().unwrap();
        arguments.contains(&format!("<{file}>"))
            || arguments.contains(&format!("\"{file}\""))
            || (arguments.contains(dir) && arguments.contains(&format!("\"{name}\"")))
    };
    let at_database = file("");
    let at_log = file("-wal") || file("-journal");
    if !at_database && !at_log {
        return false;
    }
    let says = |word: &str| arguments.contains(word);
    match call {
        _ if OPENS.contains(&call) => {
            let writes = says("O_RDWR") || says("O_WRONLY") || says("O_TRUNC");
            // SQLite opens a log to read it as if it would write, and may leave an empty one.
            says("O_TRUNC") || (at_database && writes)
        }
        // A descriptor that only reads cannot have a write lock: asking changes nothing.
        "fcntl" => says("F_WRLCK") && says("SETLK") && !says("= -1 EBADF"),
        // As root, SQLite gives each log it opens the owner that its database has.
        "fchown" => at_database,
        "flock" => says("LOCK_EX"),
        "mmap" => says("PROT_WRITE") && says("MAP_SHARED"),
        "ioctl" => false,
        // What is read out of the source is its first argument.
        "copy_file_range" | "sendfile" | "splice" => call == "sendfile",
        _ => true,
    }
}

/// Runs a command under strace and returns what it did, or says why that is impossible.
fn traced(place: &Place, test: &str) -> Option<String> {
    let log = place.path("trace");
    let probe = Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .stderr(Stdio::null())
        .status();
    if !probe.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED {test}: strace is missing or may not trace");
        return None;
    }
    let tool = strace(log.to_str().unwrap());
    let mut command = place.command_under(&tool, &["backup", "app"]);
    let output = command.output().unwrap();
    let code = output.status.code();
    assert!(matches!(code, Some(0 | 3)), "{}", oracle::stderr(&output));
    Some(fs::read_to_string(log).unwrap())
}

fn strace(log: &str) -> [&str; 9] {
    ["strace", "-f", "-y", "-s", "300", "-e", TRACED, "-o", log]
}

fn spec_of(place: &Place, journal: &str) -> Spec {
    let path = fs::canonicalize(place.path("app")).unwrap().join("app.db");
    Spec {
        rows: 3000,
        ..Spec::sqlite(&path, journal).with(&[Habit::Checkpoints])
    }
}

#[test]
fn a_backup_of_a_live_database_writes_and_locks_nothing_of_it() {
    let name = "a_backup_of_a_live_database_writes_and_locks_nothing_of_it";
    for journal in ["wal", "delete", "persist"] {
        let place = Place::new();
        let spec = spec_of(&place, journal);
        let mut writer = Writer::start(&spec);
        writer.wait_acked(5);
        let Some(trace) = traced(&place, name) else {
            return;
        };
        let broken = violations(&trace, &spec.path);
        assert!(broken.is_empty(), "{journal}:\n{}", broken.join("\n"));
        assert!(trace.contains("app.db"), "{journal}: nothing was traced");
        let acked = writer.acked();
        writer.wait_acked(acked + 5);
    }
}

#[test]
fn a_backup_of_a_database_left_behind_writes_and_locks_nothing_of_it() {
    let name = "a_backup_of_a_database_left_behind_writes_and_locks_nothing_of_it";
    for (journal, habit) in [
        ("wal", Habit::Schema),
        ("wal", Habit::Spill),
        ("delete", Habit::Spill),
    ] {
        let place = Place::new();
        let mut spec = spec_of(&place, journal).with(&[habit]);
        spec.commits = Some(20);
        let mut writer = Writer::start(&spec);
        writer.wait_idle();
        writer.kill();
        let Some(trace) = traced(&place, name) else {
            return;
        };
        let broken = violations(&trace, &spec.path);
        assert!(broken.is_empty(), "{journal}:\n{}", broken.join("\n"));
    }
}

/// The read locks of SQLite are what keeps a copy whole: on the file, or on its -shm.
#[test]
fn a_backup_of_a_live_database_holds_a_read_lock() {
    for (journal, file) in [("wal", "app.db-shm>"), ("delete", "app.db>")] {
        let place = Place::new();
        let mut writer = Writer::start(&spec_of(&place, journal));
        writer.wait_acked(5);
        let Some(trace) = traced(&place, "a_backup_of_a_live_database_holds_a_read_lock") else {
            return;
        };
        let mut lines = trace.lines();
        let locked = lines.any(|l| l.contains(file) && l.contains("F_RDLCK"));
        assert!(locked, "{journal}: no read lock");
    }
}

/// The control: an application breaks every rule, and the same eyes see it.
#[test]
fn the_trace_of_a_writer_is_condemned() {
    for (journal, wanted) in [
        ("wal", &["pwrite64(", "O_RDWR"][..]),
        ("delete", &["pwrite64(", "unlink(", "F_WRLCK", "O_RDWR"]),
    ] {
        let place = Place::new();
        let log = place.path("trace");
        if traced(&place, "the_trace_of_a_writer_is_condemned").is_none() {
            return;
        }
        let mut spec = spec_of(&place, journal);
        spec.commits = Some(30);
        Writer::start_with(&spec, |command| {
            let program = command.get_program().to_owned();
            let arguments: Vec<_> = command.get_args().map(|a| a.to_owned()).collect();
            let variable = ("STATEKEEP_WRITER", serde_json::to_string(&spec).unwrap());
            let tool = strace(log.to_str().unwrap());
            *command = Command::new(tool[0]);
            command.args(&tool[1..]).arg(program).args(arguments);
            command.env(variable.0, variable.1);
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
        })
        .stop_when_idle();
        let trace = fs::read_to_string(&log).unwrap();
        let broken = violations(&trace, &spec.path).join("\n");
        for call in wanted {
            assert!(broken.contains(call), "{journal}: {call} is not seen");
        }
    }
}

/// Prints what an application notices of backups: no time is asserted.
#[test]
#[ignore = "a measurement: run alone, with --release and --nocapture"]
fn the_impact_on_a_writer_is_printed() {
    for (journal, rows) in [
        ("wal", 3000),
        ("wal", 60_000),
        ("delete", 3000),
        ("delete", 60_000),
    ] {
        let place = Place::new();
        let spec = Spec {
            rows,
            ..spec_of(&place, journal)
        };
        let mut writer = Writer::start(&spec);
        writer.wait_acked(50);
        for round in ["without", "during", "without", "during"] {
            writer.take_latencies_us();
            let (began, mut backups) = (Instant::now(), 0);
            while began.elapsed() < Duration::from_secs(4) {
                if round == "during" {
                    place.backup();
                    backups += 1;
                } else {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            let mut all = writer.take_latencies_us();
            all.sort_unstable();
            let at = |share: usize| all[(all.len() - 1) * share / 1000];
            let bytes = fs::metadata(&spec.path).unwrap().len() >> 20;
            eprintln!(
                "{journal}, {bytes} MiB, {round}: {} commits, p50 {} us, p99 {} us, max {} us, \
                 {backups} backups",
                all.len(),
                at(500),
                at(990),
                at(1000),
            );
        }
    }
}
