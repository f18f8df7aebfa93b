//! Operations that run out of space, of names, of length of a file, of memory and of handles.
//!
//! Full disks and `RLIMIT_FSIZE` cut writes short, as strace cannot.

use super::operations;
use super::operations::Operation;
use super::sample;
use super::wanted;
use super::world::World;
use crate::kill::SmallDisk;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

const LARGE: &str = "size=64m,nr_inodes=4000";

/// A world on a file system of its own, whose size changes under it.
struct SmallWorld {
    /// Unmounted before the directory goes.
    _disk: SmallDisk,
    world: World,
    at: std::path::PathBuf,
}

impl SmallWorld {
    fn new(test: &str) -> Option<SmallWorld> {
        let dir = TempDir::new().unwrap();
        let at = dir.path().join("world");
        let Some(disk) = SmallDisk::mount(at.clone(), LARGE) else {
            eprintln!("SKIPPED {test}: mounting a small tmpfs needs root");
            return None;
        };
        Some(SmallWorld {
            _disk: disk,
            world: World::make(dir, at.clone()),
            at,
        })
    }

    fn remount(&self, options: &str) {
        remount(&self.at, options);
    }

    /// Returns how many units are in use: of 4 KiB, or inodes.
    fn used(&self, limit: Limit) -> u64 {
        let stat = rustix::fs::statvfs(&self.at).unwrap();
        match limit {
            Limit::Space => (stat.f_blocks - stat.f_bfree) * stat.f_frsize / 4096,
            Limit::Names => stat.f_files - stat.f_ffree,
        }
    }

    /// Runs an operation with so many units left. Returns whether it succeeded.
    fn run(&self, operation: &Operation, limit: Limit, left: u64, wrong: &mut Vec<String>) -> bool {
        self.world.lay();
        let most = self.used(limit) + left;
        self.remount(&match limit {
            Limit::Space => format!("size={}", most * 4096),
            Limit::Names => format!("nr_inodes={most}"),
        });
        let output = self.world.command(&[], operation.args).output().unwrap();
        self.remount(LARGE);
        let mut faults = self.world.judge(operation, &output, false);
        if !output.status.success() && !matches!(output.status.code(), Some(16 | 3)) {
            faults.push(format!("ended with {}, not 16", output.status));
        }
        let case = format!("{} with {left} left of {limit:?}", operation.name);
        for fault in faults {
            eprintln!("{case}: {fault}");
            wrong.push(format!("{case}: {fault}"));
        }
        output.status.success()
    }
}

fn remount(at: &Path, options: &str) {
    let status = Command::new("mount")
        .args(["-o", &format!("remount,{options}")])
        .arg(at)
        .status();
    assert!(status.unwrap().success(), "{options}");
}

#[derive(Debug, Clone, Copy)]
enum Limit {
    /// Of 4 KiB.
    Space,
    /// Inodes.
    Names,
}

/// What needs no room by its nature, or makes no promise of it, is not asked for an error.
#[test]
fn a_disk_that_is_full_after_any_block_or_name_loses_nothing() {
    let Some(small) = SmallWorld::new("a_disk_that_is_full") else {
        return;
    };
    let (mut runs, mut refused, mut wrong) = (0, 0, Vec::new());
    for (salt, operation) in wanted(3) {
        for limit in [Limit::Space, Limit::Names] {
            // How much it wants at the most: twice as much until it is enough. Less is sampled below.
            let mut enough = 16;
            while enough < 8192 && !small.run(operation, limit, enough, &mut wrong) {
                enough *= 2;
                runs += 1;
                refused += 1;
            }
            runs += 1;
            let count = usize::try_from(enough).unwrap();
            for left in sample(count, 1, salt) {
                runs += 1;
                let done = small.run(operation, limit, left as u64, &mut wrong);
                refused += u64::from(!done);
            }
        }
    }
    eprintln!("{runs} full disks, {refused} refused");
    assert!(wrong.is_empty(), "{} of {runs}", wrong.len());
}

/// Memory that runs out ends the process at once, which is as good as a kill; what is promised is
/// that nothing is lost, and that so much is enough.
#[test]
fn small_limits_of_the_process_lose_nothing() {
    let world = World::new();
    let (mut runs, mut wrong) = (0, Vec::new());
    let wanted = wanted(1).into_iter().map(|(_, operation)| operation);
    let limits = [
        (
            "--fsize",
            vec![0, 100, 4096, 20_000, 300_000, 700_000],
            false,
        ),
        ("--nofile", vec![4, 6, 7, 8, 9, 10, 12, 14], false),
        (
            "--data",
            vec![4 << 20, 8 << 20, 16 << 20, 24 << 20, 32 << 20, 48 << 20],
            true,
        ),
        ("--as", vec![24 << 20, 32 << 20, 48 << 20], true),
    ];
    let cases: Vec<(&Operation, &str, u64, bool)> = wanted
        .flat_map(|operation| {
            limits.iter().flat_map(move |(name, values, is_kill)| {
                values
                    .iter()
                    .map(move |value| (operation, *name, *value, *is_kill))
            })
        })
        .collect();
    for index in sample(cases.len(), 4, 5) {
        let (operation, name, value, is_kill) = cases[index];
        world.lay();
        let limit = format!("{name}={value}");
        let tool = ["prlimit", "--core=0", &limit];
        let output = world.command(&tool, operation.args).output().unwrap();
        runs += 1;
        let is_aborted = output.status.code() == Some(134) || output.status.code() == Some(127);
        let mut faults = world.judge(operation, &output, is_kill);
        faults.retain(|fault| !(is_kill && is_aborted && fault.starts_with("ended with")));
        for fault in faults {
            eprintln!("{} {limit}: {fault}", operation.name);
            wrong.push(fault);
        }
    }
    eprintln!("{runs} runs with small limits");
    assert!(wrong.is_empty(), "{} of {runs}", wrong.len());
}

/// What a backup, a check, a prune and a restore need is bounded, whatever is in the repository.
#[test]
fn sixty_four_mebibytes_of_memory_are_enough() {
    let world = World::new();
    let wanted = ["backup", "prune", "repair", "restore"];
    for operation in operations::ALL.iter().filter(|o| wanted.contains(&o.name)) {
        world.lay();
        let tool = ["prlimit", "--core=0", &format!("--data={}", 64 << 20)];
        let output = world.command(&tool, operation.args).output().unwrap();
        let said = super::world::said(&output);
        assert!(output.status.success(), "{}: {said}", operation.name);
        assert_eq!((operation.done)(&world), Ok(()), "{}", operation.name);
    }
}
