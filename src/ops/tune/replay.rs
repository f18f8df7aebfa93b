//! The replay: every way in turns, step by step, until the steps or the time are at their end.

use crate::context::Context;
use crate::context::Event;
use crate::error::Error;
use crate::error::Result;
use crate::ops::restore;
use crate::ops::restore::Replace;
use crate::ops::restore::RestoreOptions;
use crate::ops::restore::Sync;
use crate::ops::restore::surplus;
use crate::ops::scratch;
use crate::ops::scratch::Scratch;
use crate::ops::snapshots::Snapshot;
use crate::ops::tune::PassDone;
use crate::ops::tune::Runner;
use crate::ops::tune::Subject;
use crate::ops::tune::TuneOptions;
use crate::ops::tune::TunePlan;
use crate::ops::tune::deadline::Deadline;
use crate::ops::tune::judge::Measured;
use crate::ops::tune::judge::Round;
use crate::ops::tune::pass::Pass;
use crate::ops::tune::pass::Target;
use crate::repo::chunks::Chunks;
use crate::source::files::Item;
use crate::source::files::Tree;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;

/// More rounds would only take time.
const ROUNDS_MAX: usize = 3;
/// Restores of each way in a round.
const RESTORES: usize = 2;

/// One replay under way.
struct Replay<'a> {
    deadline: &'a Deadline,
    subject: Subject<'a>,
    plan: &'a TunePlan,
    dir: &'a Path,
    measured: Vec<Measured>,
    runner: &'a Runner<'a>,
}

/// Replays a plan; the first of what is returned is the way that counts now.
pub(super) fn replay(
    deadline: &Deadline,
    subject: Subject<'_>,
    options: &TuneOptions,
    plan: &TunePlan,
    scratch: &Scratch,
    runner: &Runner<'_>,
) -> Result<Vec<Measured>> {
    let ways = plan.changes.iter();
    let measured = ways.map(|change| Measured {
        change: *change,
        way: change.of(&options.current),
        rounds: Vec::new(),
    });
    let mut replay = Replay {
        deadline,
        subject,
        plan,
        dir: scratch.path(),
        measured: measured.collect(),
        runner,
    };
    deadline.cx.progress.event(Event::Phase("replay"));
    let mut steps_max = match subject {
        Subject::Snapshots { .. } => plan.sample.snapshots.len().saturating_sub(1),
        Subject::Paths(_) => 1,
    };
    for round in 0..ROUNDS_MAX {
        let left_ns = deadline.left_ns();
        let rounds = match replay.round(round, steps_max) {
            Ok(rounds) => rounds,
            // An answer from the rounds that are done is better than none.
            Err(Error::Cancelled) if round > 0 => break,
            Err(error) => return Err(error),
        };
        // All rounds count the same, so all of them have the same steps.
        let steps = rounds.first().map_or(0, |first| first.step_bytes.len());
        if round > 0 && steps < steps_max {
            break;
        }
        steps_max = steps;
        for (measured, round) in replay.measured.iter_mut().zip(rounds) {
            measured.rounds.push(round);
        }
        let took_ns = left_ns - deadline.left_ns();
        // What is there now is no history: it would be another one in each round.
        let is_live = matches!(subject, Subject::Paths(_)) && steps > 0;
        if is_live || deadline.left_ns() < took_ns + took_ns / 8 {
            break;
        }
    }
    Ok(replay.measured)
}

impl Replay<'_> {
    fn cx(&self) -> &Context {
        &self.deadline.cx
    }

    /// Replays all of it once, or fewer steps if there is no time for more.
    fn round(&mut self, round: usize, steps_max: usize) -> Result<Vec<Round>> {
        let mut rounds = vec![Round::default(); self.measured.len()];
        let began_ns = self.deadline.left_ns();
        let paths = self.prepare(0)?;
        let restored_ns = began_ns - self.deadline.left_ns();
        for (way, done) in self.step(round, 0, &paths)? {
            let into = &mut rounds[way];
            into.first_bytes = done.stored_bytes;
            into.first_ns = done.duration_ns;
            into.peak_bytes = done.peak_bytes;
        }
        // Ways share the processor with nobody, as the first restore did.
        let reserve_ns = restored_ns * self.measured.len() as i64;
        let mut step_ns = 0;
        for step in 1..=steps_max {
            let left_ns = self.deadline.left_ns();
            if left_ns < reserve_ns + step_ns + step_ns / 4 {
                break;
            }
            let done = self
                .prepare(step)
                .and_then(|paths| self.step(round, step, &paths));
            let done = match done {
                // A step that not every way made counts for none.
                Err(Error::Cancelled) => break,
                done => done?,
            };
            if matches!(self.subject, Subject::Paths(_))
                && done.iter().all(|(_, done)| done.stored_bytes == 0)
            {
                break;
            }
            for (way, done) in done {
                let into = &mut rounds[way];
                into.step_bytes.push(done.stored_bytes);
                into.step_ns.push(done.duration_ns);
                into.peak_bytes = into.peak_bytes.max(done.peak_bytes);
            }
            step_ns = left_ns - self.deadline.left_ns();
        }
        match self.restores(round, &mut rounds) {
            Ok(()) | Err(Error::Cancelled) => {}
            Err(error) => return Err(error),
        }
        for way in 0..self.measured.len() {
            remove(&self.way_dir(round, way))?;
        }
        Ok(rounds)
    }

    /// Restores what is backed up in this step, and returns where it is.
    fn prepare(&self, step: usize) -> Result<Vec<PathBuf>> {
        let (chunks, snapshots) = match self.subject {
            Subject::Paths(paths) => return Ok(paths.to_vec()),
            Subject::Snapshots { chunks, snapshots } => (chunks, snapshots),
        };
        let id = self.plan.sample.snapshots[step];
        let snapshot = snapshots.iter().find(|snapshot| snapshot.id == id);
        let snapshot = snapshot.ok_or_else(|| Error::NotFound {
            what: format!("snapshot {}", id.short()),
        })?;
        let tree = self.dir.join("tree");
        if step == 0 {
            remove(&tree)?;
        }
        self.restore(chunks, snapshot, &tree)?;
        Ok(vec![tree])
    }

    fn restore(&self, chunks: &Chunks<'_>, snapshot: &Snapshot, tree: &Path) -> Result<()> {
        let manifest = &snapshot.manifest;
        let mut options = RestoreOptions::new(tree);
        options.only.clone_from(&self.plan.sample.only);
        options.replace = Replace::Changed;
        options.sync = Sync::Never;
        if tree.is_dir() {
            let mut gone = Vec::new();
            let opened = Tree::open(tree)?;
            let everything = surplus::everything(Vec::new());
            let mut visit = |item: Item| gone.push(item);
            surplus::visit(self.cx(), chunks, manifest, &opened, everything, &mut visit)?;
            // What lies in a directory comes behind it.
            for item in gone.iter().rev() {
                let path = tree.join(OsStr::from_bytes(&item.path));
                let removed = match item.stat.is_dir() {
                    true => fs::remove_dir(&path),
                    false => fs::remove_file(&path),
                };
                removed.map_err(Error::io("remove", &path))?;
            }
        }
        let plan = restore::plan(self.cx(), chunks, manifest, &options)?;
        let done = restore::apply(self.cx(), chunks, manifest, &options, &plan)?;
        match done.failures.sample.first() {
            None => Ok(()),
            Some(problem) => {
                let path = String::from_utf8_lossy(&problem.path);
                Err(Error::Refused {
                    reason: format!(
                        "snapshot {} cannot be replayed: {path}: {}",
                        snapshot.id.short(),
                        problem.message
                    ),
                })
            }
        }
    }

    /// Has every way back it up, another one first in each step.
    fn step(&self, round: usize, step: usize, paths: &[PathBuf]) -> Result<Vec<(usize, PassDone)>> {
        let target = Target::Backup {
            paths: paths.to_vec(),
            secrets: self.plan.sample.secrets.clone(),
        };
        let turns = self.turns(round + step);
        turns
            .map(|way| {
                self.deadline.check()?;
                Ok((way, self.pass(round, step, way, target.clone())?))
            })
            .collect()
    }

    /// Restores the newest of every way, in turns.
    fn restores(&self, round: usize, rounds: &mut [Round]) -> Result<()> {
        for number in 0..RESTORES {
            let began_ns = self.deadline.left_ns();
            let mut took = Vec::new();
            for way in self.turns(round + number) {
                self.deadline.check()?;
                let to = self.dir.join("restored");
                let done = self.pass(round, number, way, Target::Restore(to.clone()));
                remove(&to)?;
                took.push((way, done?.duration_ns));
            }
            for (way, duration_ns) in took {
                rounds[way].restore_ns.push(duration_ns);
            }
            let left_ns = self.deadline.left_ns();
            if left_ns < (began_ns - left_ns) * 2 {
                break;
            }
        }
        Ok(())
    }

    fn turns(&self, first: usize) -> impl Iterator<Item = usize> + use<> {
        let count = self.measured.len();
        (0..count).map(move |turn| (first + turn) % count)
    }

    fn pass(&self, round: usize, step: usize, way: usize, target: Target) -> Result<PassDone> {
        let dir = self.way_dir(round, way);
        let made = fs::create_dir_all(&dir);
        made.map_err(Error::io("make", &dir))?;
        let pass = Pass {
            dir,
            way: self.measured[way].way,
            seed: (round as u64, step as u64),
            target,
        };
        (self.runner)(self.cx(), &pass)
    }

    fn way_dir(&self, round: usize, way: usize) -> PathBuf {
        self.dir.join(format!("way-{round}-{way}"))
    }
}

fn remove(dir: &Path) -> Result<()> {
    match scratch::remove_tree(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", dir)(error))
        }
        _ => Ok(()),
    }
}
