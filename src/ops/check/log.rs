//! The objects of the log: are all slots and checkpoints there and sound, and if not, what still
//! stands for them?
//!
//! A slot that cannot be read stops every reader, unless a checkpoint at or after it can be read.
//! Its content cannot be made up: the hash of the log covers the stored bytes, so whatever is put
//! in its place voids all that follows. But a state that some machine remembers from before is the
//! fold of exactly these slots. Stored as a checkpoint it stands for them, and nothing is lost
//! (`docs/decisions/0061-damaged-slots.md`).
//!
//! Invariant: no slot is deleted here. A writer that was asleep could put another in its place, and
//! nobody would ever read that. A slot that is missing is filled with bytes that nobody can read.

use crate::context::Context;
use crate::error::Error;
use crate::error::Result;
use crate::format::checkpoint::RECENT_MAX;
use crate::format::checkpoint::State;
use crate::format::container;
use crate::format::container::ObjectKind;
use crate::format::entry::Entry;
use crate::id::SlotHash;
use crate::repo::Repo;
use crate::repo::log::hash_after;
use crate::store::Folder;
use crate::store::Key;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What is put where a slot is missing.
const FILLER: &[u8] = b"This slot of the log was lost. A checkpoint in state/ stands for it.\n";

/// What the log consists of.
#[derive(Debug, Clone, Default)]
pub struct LogReport {
    /// Slots that can be read.
    pub slots: u64,
    /// Checkpoints that can be read.
    pub checkpoints: BTreeSet<u64>,
    /// Slots that stop readers, and what is wrong with them.
    pub lost_slots: BTreeMap<u64, String>,
    /// Slots that cannot be read, for which a checkpoint stands.
    pub covered_slots: BTreeMap<u64, String>,
    /// Checkpoints that cannot be read, and why.
    pub lost_checkpoints: BTreeMap<u64, String>,
    hashes: BTreeMap<u64, [u8; 32]>,
}

impl LogReport {
    /// Returns what is wrong, by object. Slots for which a checkpoint stands do no harm.
    pub fn problems(&self) -> Vec<(String, String)> {
        let slots = self.lost_slots.iter();
        let slots = slots.map(|(number, why)| (Key::slot(*number).to_string(), why.clone()));
        let checkpoints = self.lost_checkpoints.iter();
        let checkpoints =
            checkpoints.map(|(number, why)| (Key::checkpoint(*number).to_string(), why.clone()));
        slots.chain(checkpoints).collect()
    }
}

/// Reads all of the log.
pub fn inspect(cx: &Context, repo: &Repo) -> Result<LogReport> {
    let mut report = LogReport::default();
    for number in numbers(repo, Folder::State)? {
        cx.check()?;
        match read_checkpoint(repo, number)? {
            Ok(_) => drop(report.checkpoints.insert(number)),
            Err(why) => drop(report.lost_checkpoints.insert(number, why)),
        }
    }
    let listed = numbers(repo, Folder::Log)?;
    let covered = report.checkpoints.last().copied().unwrap_or(0);
    let remembered = repo.remembered_state().map_or(0, |state| state.position);
    let known = [
        listed.last().copied(),
        report.lost_checkpoints.keys().last().copied(),
        Some(remembered),
    ];
    let end = known.into_iter().flatten().max().unwrap_or(0);
    // Below the newest checkpoint slots may have been trimmed; above it none may be missing.
    let wanted = (covered + 1..=end).chain(listed.into_iter().filter(|n| *n <= covered));
    for number in wanted {
        cx.check()?;
        match read_slot(repo, number)? {
            Ok(hash) => {
                report.slots += 1;
                report.hashes.insert(number, hash);
            }
            Err(why) if number <= covered => drop(report.covered_slots.insert(number, why)),
            Err(why) => drop(report.lost_slots.insert(number, why)),
        }
    }
    Ok(report)
}

fn numbers(repo: &Repo, folder: Folder) -> Result<BTreeSet<u64>> {
    let listed = repo.store().list(folder)?;
    let number = |name: &str| {
        let number: u64 = name.parse().ok()?;
        (name == format!("{number:012}")).then_some(number)
    };
    Ok(listed.iter().filter_map(|row| number(&row.name)).collect())
}

/// The outer result is the store's; what a newer program wrote is for a newer program to judge.
fn read_checkpoint(repo: &Repo, number: u64) -> Result<Result<State, String>> {
    let key = Key::checkpoint(number);
    let Some(object) = repo.store().get(&key)? else {
        return Ok(Err("it is missing".to_string()));
    };
    let keys = repo.log_keys();
    let state = container::unseal(&keys.data, ObjectKind::Checkpoint, &object)
        .and_then(|plain| State::decode(&keys.manifest, &plain))
        .map_err(|malformed| malformed.of(key.to_string()));
    match state {
        Ok(state) if state.position == number => Ok(Ok(state)),
        Ok(_) => Ok(Err("it is another one".to_string())),
        Err(error) => judged(error).map(Err),
    }
}

/// Returns the hash of the stored bytes.
fn read_slot(repo: &Repo, number: u64) -> Result<Result<[u8; 32], String>> {
    let key = Key::slot(number);
    let Some(object) = repo.store().get(&key)? else {
        return Ok(Err("it is missing".to_string()));
    };
    let keys = repo.log_keys();
    let entry = container::unseal(&keys.data, ObjectKind::Slot, &object)
        .and_then(|plain| Entry::decode(&keys.manifest, &plain))
        .map_err(|malformed| malformed.of(key.to_string()));
    match entry {
        Ok(_) => Ok(Ok(*blake3::hash(&object).as_bytes())),
        Err(error) => judged(error).map(Err),
    }
}

fn judged(error: Error) -> Result<String> {
    match error {
        Error::Corrupt { reason, .. } => Ok(reason),
        error => Err(error),
    }
}

/// How a log that cannot be read is made readable.
#[derive(Debug, Clone, Default)]
pub struct LogPlan {
    /// The state this machine remembers, to be stored as a checkpoint.
    pub checkpoint: Option<Arc<State>>,
    /// Missing slots that are filled, so that nobody puts others in their place.
    pub fill: Vec<u64>,
    /// Slots nothing stands for that this machine knows.
    pub unsolved: Vec<u64>,
}

impl LogPlan {
    /// Returns whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.checkpoint.is_none() && self.unsolved.is_empty()
    }
}

/// Says what makes the log readable again. Writes nothing.
pub fn plan(repo: &Repo, report: &LogReport) -> Result<LogPlan> {
    let mut plan = LogPlan::default();
    let lost: Vec<u64> = report.lost_slots.keys().copied().collect();
    let Some(last) = lost.last() else {
        return Ok(plan);
    };
    let memory = repo.remembered_state();
    match memory.filter(|state| *last <= state.position) {
        Some(state)
            if is_of_this_log(report, &state)
                && (is_followed(repo, report, *last)? || names_what_is_there(repo, &state)?) =>
        {
            for number in lost {
                if repo.store().stored_bytes(&Key::slot(number))?.is_none() {
                    plan.fill.push(number);
                }
            }
            plan.checkpoint = Some(state);
        }
        _ => plan.unsolved = lost,
    }
    Ok(plan)
}

/// Whether every slot that can be read and that the state remembers a hash of is the one it was
/// folded from.
fn is_of_this_log(report: &LogReport, state: &State) -> bool {
    let first = state.position.saturating_sub(RECENT_MAX as u64 - 1).max(1);
    (first..=state.position).all(|number| {
        let before: Option<SlotHash> = state.hash_at(number - 1);
        let (Some(hash), Some(before)) = (report.hashes.get(&number), before) else {
            return true;
        };
        state.hash_at(number) == Some(hash_after(before, hash))
    })
}

/// Whether the last lost slot has left a trace in the store: its bytes, or slots after it.
fn is_followed(repo: &Repo, report: &LogReport, last: u64) -> Result<bool> {
    let is_before_others = report.hashes.keys().next_back().is_some_and(|n| last < *n);
    Ok(is_before_others || repo.store().stored_bytes(&Key::slot(last))?.is_some())
}

/// Whether every pack of a state is there. A repository that was put back from an older copy has
/// neither the last slots nor their packs, and its log must not speak of those.
fn names_what_is_there(repo: &Repo, state: &State) -> Result<bool> {
    let listed = repo.store().list(Folder::Packs)?;
    let listed: BTreeSet<String> = listed.into_iter().map(|row| row.name).collect();
    for pack in state.packs.keys() {
        let key = Key::pack(pack);
        if !listed.contains(key.name()) && repo.store().stored_bytes(&key)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes the log readable again.
pub fn apply(cx: &Context, repo: &Repo, plan: &LogPlan) -> Result<()> {
    if let Some(state) = &plan.checkpoint {
        put_checkpoint(cx, repo, state)?;
        for number in &plan.fill {
            repo.store().put_new(&Key::slot(*number), FILLER)?;
        }
    }
    Ok(())
}

/// Deletes checkpoints that cannot be read, once another one says all that they said: nobody could
/// put a good one in their place. `state` is settled and exact, as `read_state` returns it.
pub fn replace_checkpoints(
    cx: &Context,
    repo: &Repo,
    state: &State,
    report: &LogReport,
) -> Result<u64> {
    let mut replaced = 0;
    for number in report.lost_checkpoints.keys() {
        // The log could be read without it, so whatever it stood for is known.
        if state.position < *number {
            continue;
        }
        if *number < state.position {
            put_checkpoint(cx, repo, state)?;
        }
        repo.store().delete(&Key::checkpoint(*number))?;
        repo.store().sync(Folder::State)?;
        if *number == state.position {
            put_checkpoint(cx, repo, state)?;
        }
        replaced += 1;
    }
    Ok(replaced)
}

/// Stores a state. One that is there and cannot be read makes way for it.
fn put_checkpoint(cx: &Context, repo: &Repo, state: &State) -> Result<()> {
    let key = Key::checkpoint(state.position);
    if repo.store().stored_bytes(&key)?.is_some() {
        if read_checkpoint(repo, state.position)?.is_ok() {
            return Ok(());
        }
        repo.store().delete(&key)?;
    }
    let keys = repo.log_keys();
    let salt = cx.random_bytes()?;
    let object = container::seal(&keys.data, ObjectKind::Checkpoint, salt, &state.encode());
    // Taken by whoever wrote the same just now: a checkpoint is a pure function of the log.
    repo.store().put_new(&key, &object).map(drop)
}
