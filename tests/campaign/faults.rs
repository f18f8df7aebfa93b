//! SIGKILL and failures at single system calls of every operation, injected by strace.
//!
//! Short writes cannot be injected: strace alters results, not how much was written. `limits` has
//! them, at full disks and at the greatest length of a file.

use super::operations::Operation;
use super::sample;
use super::wanted;
use super::world::World;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

/// Calls that change something or make it durable.
const CHANGES: &str = "write,pwrite64,writev,pwritev,fsync,fdatasync,syncfs,link,linkat,rename,\
    renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,openat,ftruncate,fallocate,chmod,fchmod,\
    fchmodat,fchown,fchownat,utimensat,symlinkat,mknodat,copy_file_range,ioctl,fsetxattr,setxattr";

/// Calls after which something has to be durable.
const SYNCS: [&str; 3] = ["fsync", "fdatasync", "syncfs"];

/// Returns whether strace is there and may trace; says so if not.
pub(crate) fn can_trace(test: &str) -> bool {
    let probe = Command::new("strace")
        .args([
            "-o",
            "/dev/null",
            "-e",
            "inject=fsync:signal=KILL:when=9",
            "true",
        ])
        .stderr(Stdio::null())
        .status();
    let can = probe.is_ok_and(|status| status.success());
    if !can {
        eprintln!("SKIPPED {test}: strace is missing or may not trace");
    }
    can
}

/// One call of one thread, by its number among those of its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Call {
    name: String,
    number: usize,
}

/// Returns the calls of an operation that change something, each with how it looked.
fn calls(world: &World, operation: &Operation) -> BTreeMap<Call, String> {
    world.lay();
    let log = world.path("tmp/trace");
    let trace = format!("trace={CHANGES}");
    let tool = [
        "strace",
        "-f",
        "-y",
        "-s",
        "0",
        "-e",
        &trace,
        "-e",
        "signal=none",
        "-o",
    ];
    let tool = [&tool[..], &[log.to_str().unwrap()]].concat();
    let output = world.command(&tool, operation.args).output().unwrap();
    assert!(
        output.status.success(),
        "{}: {}",
        operation.name,
        super::world::said(&output)
    );
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut found = BTreeMap::new();
    for line in fs::read_to_string(&log).unwrap().lines() {
        let Some((thread, rest)) = line.split_once(' ') else {
            continue;
        };
        let Some((name, args)) = rest.trim_start().split_once('(') else {
            continue;
        };
        if name.contains(' ') || name.contains('<') {
            continue;
        }
        let number = counts
            .entry((thread.to_string(), name.to_string()))
            .or_default();
        *number += 1;
        let is_change = match name {
            "openat" => args.contains("O_CREAT") || args.contains("O_TMPFILE"),
            "ioctl" => args.contains("FICLONE"),
            _ => !args.contains("/dev/") && !args.contains("eventfd"),
        };
        if is_change {
            let call = Call {
                name: name.to_string(),
                number: *number,
            };
            found
                .entry(call)
                .or_insert_with(|| rest.trim().chars().take(150).collect());
        }
    }
    found
}

/// What happens at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    Fails(&'static str),
}

const FAULTS: [Fault; 4] = [
    Fault::Kill,
    Fault::Fails("EIO"),
    Fault::Fails("ENOSPC"),
    Fault::Fails("EINTR"),
];

impl Fault {
    /// Whether a call can end so at all.
    fn fits(self, call: &Call) -> bool {
        match self {
            Fault::Kill | Fault::Fails("EIO") => true,
            Fault::Fails("EINTR") => [
                "write",
                "pwrite64",
                "openat",
                "fsync",
                "ftruncate",
                "fallocate",
            ]
            .contains(&&*call.name),
            Fault::Fails(_) => {
                !["unlink", "unlinkat", "rmdir", "chmod", "fchmod", "fchown"].contains(&&*call.name)
            }
        }
    }

    fn run(self, world: &World, operation: &Operation, call: &Call) -> Output {
        let how = match self {
            Fault::Kill => "signal=KILL".to_string(),
            Fault::Fails(errno) => format!("error={errno}"),
        };
        let inject = format!("inject={}:{how}:when={}", call.name, call.number);
        let trace = format!("trace={}", call.name);
        let tool = [
            "strace",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            &trace,
            "-e",
            "signal=none",
        ];
        let tool = [&tool[..], &["-e", &inject]].concat();
        world.command(&tool, operation.args).output().unwrap()
    }
}

/// Whether a call makes names durable that are to last. The content of a file that could not be synced
/// is written anew into another one, which proves what it says.
fn is_lasting_sync(world: &World, call: &Call, line: &str) -> bool {
    let path = line
        .split_once('<')
        .and_then(|(_, rest)| rest.split_once('>'));
    let path = Path::new(path.map_or("", |(path, _)| path));
    let passing = ["cache", "tmp"].map(|name| world.path(name));
    SYNCS.contains(&&*call.name)
        && path.is_dir()
        && !passing.iter().any(|dir| path.starts_with(dir))
}

/// I6, I7, I10.
#[test]
fn a_fault_at_any_call_loses_nothing_and_is_never_called_success() {
    if !can_trace("a_fault_at_any_call") {
        return;
    }
    let world = World::new();
    let (mut total, mut wrong) = (0, BTreeSet::new());
    for (salt, operation) in wanted(2) {
        let calls = calls(&world, operation);
        let cases: Vec<(&Call, &String, Fault)> = calls
            .iter()
            .flat_map(|(call, line)| FAULTS.map(|fault| (call, line, fault)))
            .filter(|(call, _, fault)| fault.fits(call))
            .collect();
        let chosen = sample(cases.len(), 1, salt * 7919);
        let (cuts, mut refused) = (chosen.len(), 0);
        for index in chosen {
            let (call, line, fault) = cases[index];
            world.lay();
            let output = fault.run(&world, operation, call);
            refused += usize::from(!output.status.success());
            let mut faults = world.judge(operation, &output, fault == Fault::Kill);
            let is_io = fault == Fault::Fails("EIO");
            if is_io && output.status.success() && is_lasting_sync(&world, call, line) {
                faults.push("a failed sync was called success".to_string());
            }
            for text in faults {
                let case = format!("{} {fault:?} {} {}", operation.name, call.name, call.number);
                eprintln!("{case}: {text}\n    {line}");
                wrong.insert(format!("{case}: {text}"));
            }
        }
        total += cuts;
        eprintln!(
            "{}: {} calls, {cuts} faults, {refused} refused",
            operation.name,
            calls.len()
        );
    }
    assert!(wrong.is_empty(), "{} of {total}", wrong.len());
}
