//! Collects what is wrong, by cause, and where it was met.

use crate::error::Error;
use crate::format::note::LOSS_PATHS_MAX;
use crate::format::note::Loss;
use crate::id::ChunkId;
use crate::id::PackId;
use crate::id::SnapshotId;
use crate::ops::Tally;
use crate::ops::check::CheckProblem;
use crate::store::Key;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// Messages kept for one cause.
const MESSAGES_MAX: usize = 5;
/// Lost chunks remembered by name. More tell nobody anything new.
const LOST_CHUNKS_MAX: usize = 10_000;
/// A fault of the disk, unlike one of rights or limits.
const EIO: i32 = 5;

/// Why something cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Cause {
    /// The bytes of a pack are missing or wrong.
    Pack(PackId),
    /// No pack that can be opened has it.
    Lost,
    /// A node, or another object, that says what cannot be.
    Object(String),
}

/// What snapshots reach: the tree nodes, and records of databases, at which something is wrong.
pub(super) type Reached = HashMap<ChunkId, BTreeSet<SnapshotId>>;

#[derive(Default)]
pub(super) struct Findings {
    by_cause: Mutex<BTreeMap<Cause, Finding>>,
    bad_packs: Mutex<BTreeSet<PackId>>,
    /// Packs that were not what they have to be, rather than out of reach just now.
    damaged: Mutex<BTreeSet<PackId>>,
    lost_chunks: Mutex<BTreeSet<ChunkId>>,
    /// The first thing that could not be read for a reason that may pass.
    unsure: Mutex<Option<String>>,
    /// Paths by the node at which they were found lost.
    lost_at: Mutex<HashMap<ChunkId, LostPaths>>,
}

/// Distinct paths, the first of them by name.
#[derive(Default)]
struct LostPaths {
    seen: HashSet<u64>,
    first: BTreeSet<Vec<u8>>,
}

#[derive(Default)]
struct Finding {
    messages: BTreeSet<String>,
    /// Tree nodes, and records of databases, at which it was met.
    nodes: HashSet<ChunkId>,
    paths: Tally,
}

impl Findings {
    /// Notes that something is wrong.
    pub(super) fn note(&self, cause: &Cause, message: impl Into<String>) {
        let mut by_cause = lock(&self.by_cause);
        let messages = &mut by_cause.entry(cause.clone()).or_default().messages;
        if messages.len() < MESSAGES_MAX {
            messages.insert(message.into());
        }
    }

    /// Notes a pack of which nothing can be used.
    pub(super) fn bad_pack(&self, pack: PackId, error: &Error) {
        lock(&self.bad_packs).insert(pack);
        if is_damage(error) {
            lock(&self.damaged).insert(pack);
        }
        self.note(&Cause::Pack(pack), cause_of(error).1);
    }

    /// Notes a pack whose bytes are not its own: what was in it may be anywhere, or nowhere.
    pub(super) fn rotten(&self, pack: PackId, message: impl Into<String>) {
        lock(&self.bad_packs).insert(pack);
        self.damaged(pack, message);
    }

    /// Notes a pack that is not what it has to be.
    pub(super) fn damaged(&self, pack: PackId, message: impl Into<String>) {
        lock(&self.damaged).insert(pack);
        self.note(&Cause::Pack(pack), message);
    }

    /// Notes an error and returns its cause.
    pub(super) fn error(&self, error: &Error) -> Cause {
        let (cause, message) = cause_of(error);
        match (&cause, error) {
            (_, error) if !is_damage(error) => {
                lock(&self.unsure).get_or_insert_with(|| error.to_string());
            }
            (Cause::Pack(pack), _) => {
                lock(&self.damaged).insert(*pack);
            }
            (Cause::Lost, Error::Missing { object }) => {
                let id = object.rsplit(' ').next().and_then(|id| id.parse().ok());
                id.iter().for_each(|id| self.lost_chunk(id));
            }
            _ => {}
        }
        self.note(&cause, message);
        cause
    }

    /// Remembers a chunk that no pack has.
    pub(super) fn lost_chunk(&self, id: &ChunkId) {
        let mut lost = lock(&self.lost_chunks);
        if lost.len() < LOST_CHUNKS_MAX {
            lost.insert(*id);
        }
    }

    /// Returns the chunks that no pack has.
    pub(super) fn lost_chunks(&self) -> BTreeSet<ChunkId> {
        lock(&self.lost_chunks).clone()
    }

    /// Returns what could not be read for a reason that may pass.
    pub(super) fn unsure(&self) -> Option<String> {
        lock(&self.unsure).clone()
    }

    /// Returns the packs of which something is wrong for certain.
    pub(super) fn damaged_packs(&self) -> BTreeSet<PackId> {
        lock(&self.damaged).clone()
    }

    /// Notes that a path is lost, and at which node of a tree that was found.
    pub(super) fn affects(&self, cause: &Cause, node: &ChunkId, path: &[u8]) {
        let mut by_cause = lock(&self.by_cause);
        let finding = by_cause.entry(cause.clone()).or_default();
        finding.nodes.insert(*node);
        finding.paths.add(path, 0);
        drop(by_cause);
        let hash = blake3::hash(path);
        let hash = hash.as_bytes().first_chunk().copied().unwrap_or_default();
        let mut lost_at = lock(&self.lost_at);
        let lost = lost_at.entry(*node).or_default();
        if lost.seen.insert(u64::from_le_bytes(hash)) {
            lost.first.insert(path.to_vec());
            if lost.first.len() > LOSS_PATHS_MAX {
                lost.first.pop_last();
            }
        }
    }

    /// Returns what each snapshot cannot be restored with, by what snapshots reach.
    pub(super) fn losses(&self, reached: &Reached) -> BTreeMap<SnapshotId, Loss> {
        let mut losses: BTreeMap<SnapshotId, Loss> = BTreeMap::new();
        for (node, lost) in lock(&self.lost_at).iter() {
            for snapshot in reached.get(node).into_iter().flatten() {
                let loss = losses.entry(*snapshot).or_default();
                loss.count += lost.seen.len() as u64;
                loss.paths.extend(lost.first.iter().cloned());
            }
        }
        for loss in losses.values_mut() {
            loss.paths.sort_unstable();
            loss.paths.truncate(LOSS_PATHS_MAX);
        }
        losses
    }

    /// Returns the packs of which nothing can be used.
    pub(super) fn bad_packs(&self) -> BTreeSet<PackId> {
        lock(&self.bad_packs).clone()
    }

    pub(super) fn has_bad_packs(&self) -> bool {
        !lock(&self.bad_packs).is_empty()
    }

    /// Returns all tree nodes at which something is wrong.
    pub(super) fn nodes(&self) -> HashSet<ChunkId> {
        let by_cause = lock(&self.by_cause);
        by_cause
            .values()
            .flat_map(|finding| &finding.nodes)
            .copied()
            .collect()
    }

    /// Returns the problems, each with the snapshots that reach it.
    pub(super) fn into_problems(self, reached: &Reached) -> Vec<CheckProblem> {
        let unlocked = |poisoned: PoisonError<_>| poisoned.into_inner();
        let mut by_cause = self.by_cause.into_inner().unwrap_or_else(unlocked);
        let bad_packs = self
            .bad_packs
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        // A pack that cannot be opened does not tell what was in it. If there is only one, what is
        // lost was in it; among several, nobody knows.
        if bad_packs.len() == 1
            && let Some(pack) = bad_packs.first()
            && let Some(lost) = by_cause.remove(&Cause::Lost)
        {
            let finding = by_cause.entry(Cause::Pack(*pack)).or_default();
            finding.nodes.extend(lost.nodes);
            finding.paths.merge(lost.paths);
        }
        let problem = |(cause, finding): (Cause, Finding)| {
            let nodes = finding.nodes.iter();
            let snapshots = nodes
                .filter_map(|node| reached.get(node))
                .flatten()
                .copied();
            let snapshots: BTreeSet<SnapshotId> = snapshots.collect();
            let messages: Vec<String> = finding.messages.into_iter().collect();
            CheckProblem {
                object: match cause {
                    Cause::Pack(pack) => Key::pack(&pack).to_string(),
                    Cause::Lost => "chunks".to_string(),
                    Cause::Object(object) => object,
                },
                message: match messages.is_empty() {
                    true => "no pack that can be read holds what snapshots need".to_string(),
                    false => messages.join("; "),
                },
                snapshots: snapshots.into_iter().collect(),
                paths: finding.paths,
            }
        };
        by_cause.into_iter().map(problem).collect()
    }
}

/// Returns whether an error means that bytes are gone. Others pass, with the rights of another user
/// or another day, and nobody is to give up a pack for them.
fn is_damage(error: &Error) -> bool {
    match error {
        Error::Corrupt { .. } | Error::Missing { .. } => true,
        Error::Io { source, .. } => source.raw_os_error() == Some(EIO),
        _ => false,
    }
}

/// Returns which object an error is about, and what is wrong with it.
pub(super) fn cause_of(error: &Error) -> (Cause, String) {
    let of = |object: &str| match object.strip_prefix("packs/").map(str::parse) {
        Some(Ok(pack)) => Cause::Pack(pack),
        _ => Cause::Object(object.to_string()),
    };
    match error {
        Error::Corrupt { object, reason } => (of(object), reason.clone()),
        Error::TooNew { object, .. } | Error::Store { object, .. } => {
            (of(object), error.to_string())
        }
        Error::Missing { object } => match of(object) {
            Cause::Pack(pack) => (Cause::Pack(pack), "it is missing".to_string()),
            _ => (
                Cause::Lost,
                format!("{object} is in no pack that can be read"),
            ),
        },
        Error::Io { path, source, .. } => {
            let name = path.file_name().and_then(std::ffi::OsStr::to_str);
            let cause = match name.and_then(|name| name.parse().ok()) {
                Some(pack) => Cause::Pack(pack),
                None => Cause::Object(path.display().to_string()),
            };
            (cause, format!("{error}: {source}"))
        }
        other => (
            Cause::Object("the repository".to_string()),
            other.to_string(),
        ),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
