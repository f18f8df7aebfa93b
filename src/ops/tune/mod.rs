//! Replays what was backed up under other settings, and says which of them would pay.
//!
//! ```text
//! for each round: for each snapshot, oldest first: restore it aside
//!                   └─ for each way to store, in turns: back it up into a repository of its own
//!                 for each way, in turns: restore the newest
//! ```
//! What is measured is the real thing: restores, captures, backups and repositories, in a private
//! directory that goes with its owner. The user's repository is only read. Time is bounded: an
//! answer comes from what was done until then (`docs/decisions/0065-tuning.md`).

mod deadline;
mod judge;
mod pass;
mod process;
mod replay;
mod sample;
mod way;

pub use judge::Gain;
pub use judge::Measured;
pub use judge::Round;
pub use judge::Summary;
pub use judge::Verdict;
pub use judge::verdict;
pub use pass::Pass;
pub use pass::PassDone;
pub use pass::Target;
pub use pass::run as run_pass;
pub use process::be_child;
pub use process::run_apart;
pub use sample::Sample;
pub use way::Change;
pub use way::Way;

use crate::context::Context;
use crate::context::Timestamp;
use crate::error::Error;
use crate::error::Result;
use crate::ops::scratch::Scratch;
use crate::ops::snapshots::Snapshot;
use crate::ops::tune::deadline::Deadline;
use crate::repo::chunks::Chunks;
use std::path::PathBuf;
use std::time::Duration;

/// How the names of private directories begin.
const PREFIX: &str = "statekeep-tune-";

/// What is replayed.
#[derive(Clone, Copy)]
pub enum Subject<'s> {
    /// Snapshots of one series, oldest first; of many the newest are taken.
    Snapshots {
        /// Where their content is.
        chunks: &'s Chunks<'s>,
        /// The snapshots.
        snapshots: &'s [Snapshot],
    },
    /// What is there now, and again if it changes meanwhile.
    Paths(&'s [PathBuf]),
}

/// How to replay.
#[derive(Debug, Clone)]
pub struct TuneOptions {
    /// The way that counts now.
    pub current: Way,
    /// When it began.
    pub began: Timestamp,
    /// How long it may take from then on.
    pub budget: Duration,
    /// An existing directory with room for what is restored and stored.
    pub scratch: PathBuf,
}

/// What would be replayed.
#[derive(Debug, Clone)]
pub struct TunePlan {
    /// What of the subject.
    pub sample: Sample,
    /// What is compared; the first is the way that counts now.
    pub changes: Vec<Change>,
    /// Bytes that are needed in the private directory at most.
    pub need_bytes: u64,
    /// Bytes that are free there.
    pub free_bytes: u64,
}

/// What came out.
#[derive(Debug, Clone)]
pub struct TuneReport {
    /// What was replayed.
    pub sample: Sample,
    /// Backups after the first that every way made in every round.
    pub steps: u64,
    /// Times all of it was replayed.
    pub rounds: u64,
    /// Every way; the first is the one that counts now.
    pub measured: Vec<Measured>,
    /// What to do about it.
    pub verdict: Verdict,
}

/// Runs one pass: here, or in a process of its own, whose memory then is its alone.
pub type Runner<'r> = dyn Fn(&Context, &Pass) -> Result<PassDone> + 'r;

/// Says what would be replayed. Changes nothing.
pub fn plan(cx: &Context, subject: Subject<'_>, options: &TuneOptions) -> Result<TunePlan> {
    let deadline = Deadline::new(cx, options.began, options.budget);
    let planned = plan_within(&deadline.cx, subject, options);
    planned.map_err(|error| deadline.explain(cx, error))
}

fn plan_within(cx: &Context, subject: Subject<'_>, options: &TuneOptions) -> Result<TunePlan> {
    let free_bytes = free_bytes(options)?;
    let limits = sample::Limits {
        budget: options.budget,
        // What is restored, what is restored again, and as much once more for each way.
        bytes_max: free_bytes / 2 / (2 + Change::COUNT_MAX as u64),
    };
    let sample = sample::choose(cx, subject, limits)?;
    let changes = Change::all(&options.current, &sample);
    let need_bytes = sample.bytes * (2 + changes.len() as u64);
    Ok(TunePlan {
        sample,
        changes,
        need_bytes,
        free_bytes,
    })
}

/// Replays a plan and judges what came out. Leaves nothing behind.
pub fn tune(
    cx: &Context,
    subject: Subject<'_>,
    options: &TuneOptions,
    plan: TunePlan,
    runner: &Runner<'_>,
) -> Result<TuneReport> {
    let deadline = Deadline::new(cx, options.began, options.budget);
    let scratch = Scratch::create(&options.scratch, PREFIX)?;
    let replayed = replay::replay(&deadline, subject, options, &plan, &scratch, runner);
    let removed = scratch.remove();
    let measured = replayed.map_err(|error| deadline.explain(cx, error))?;
    removed?;
    // What was cut short by whoever waits for it is no answer.
    cx.check()?;
    let rounds = measured
        .first()
        .map_or(0, |first| first.rounds.len() as u64);
    let first_round = measured.first().and_then(|first| first.rounds.first());
    Ok(TuneReport {
        steps: first_round.map_or(0, |round| round.step_bytes.len() as u64),
        rounds,
        verdict: judge::verdict(&measured),
        measured,
        sample: plan.sample,
    })
}

fn free_bytes(options: &TuneOptions) -> Result<u64> {
    let stat = rustix::fs::statvfs(&options.scratch)
        .map_err(|errno| Error::io("look at", &options.scratch)(errno.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
