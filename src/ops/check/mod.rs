//! Checks a repository without writing anything: packs, chains, trees, and as much data as asked.
//!
//! Every problem is collected, none ends the check, and each says which snapshots and which paths
//! it concerns. Only a store that cannot even be listed is an error. A pack is believed missing
//! only when asking for it by name says so (I14).

mod databases;
mod findings;
mod keys;
pub mod last;
pub mod log;
mod overlaps;
mod packs;
pub mod repair;
mod rotation;
mod trees;

use crate::context::Context;
use crate::context::Event;
use crate::error::Result;
use crate::format::entry::PackBytes;
use crate::format::manifest::Manifest;
use crate::format::note::Loss;
use crate::id::ChunkId;
use crate::id::PackId;
use crate::id::SnapshotId;
use crate::ops::Tally;
use crate::ops::check::findings::Findings;
use crate::ops::check::packs::PackCheck;
use crate::ops::check::rotation::Rotation;
use crate::ops::check::trees::Trees;
use crate::ops::marks::Marks;
use crate::ops::marks::Owner;
use crate::ops::thread_count;
use crate::repo::Repo;
use crate::repo::chunks::Chunks;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;

/// How much of the data is read and verified. Tables, lists and trees always are.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum ReadData {
    /// None: chunks of files only have to be there.
    #[default]
    No,
    /// So many of a hundred bytes: the packs that this machine has not read for longest.
    Percent(f64),
    /// Every record of every pack.
    All,
}

/// What a check found.
#[derive(Debug, Clone, Default)]
pub struct CheckReport {
    /// Packs of the log, all of which were opened.
    pub packs: u64,
    /// Packs that were read from end to end.
    pub read_packs: u64,
    /// Records that were decoded in them.
    pub read_records: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Leaves of their trees, each counted once.
    pub leaves: u64,
    /// List nodes of their files, each counted once.
    pub lists: u64,
    /// Packs in the store that the log does not name: of a running or a killed backup. No problem.
    pub orphans: Tally,
    /// Records that lean on what no pack has. No problem unless a snapshot needs them, which is
    /// reported as one: what was stored again leaves them behind.
    pub broken_records: u64,
    /// What the snapshots need, and what none needs; `None` if only some of them were checked.
    pub usage: Option<Usage>,
    /// Whether there were more extents than could be compared with each other.
    pub has_unchecked_extents: bool,
    /// What is wrong, by object.
    pub problems: Vec<CheckProblem>,
    /// Packs of the log that are missing or not what they were: nobody may rely on them.
    pub damaged_packs: BTreeSet<PackId>,
    /// Packs that cannot be opened: nothing can be read from them.
    pub unopened_packs: BTreeSet<PackId>,
    /// Packs that were read from end to end and are what they are named after.
    pub whole_packs: BTreeSet<PackId>,
    /// Chunks that snapshots need and no pack has; the first ten thousand.
    pub lost_chunks: BTreeSet<ChunkId>,
    /// What each snapshot that is not whole lacks.
    pub losses: BTreeMap<SnapshotId, Loss>,
    /// Something that could not be read for a reason that may pass: what is said to be lost because
    /// of it may not be.
    pub unsure: Option<String>,
    /// How long it took.
    pub duration_ms: u64,
}

impl CheckReport {
    /// Returns whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Bytes of records and who needs them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Stored bytes of records that snapshots need, directly or to lean on.
    pub needed_bytes: u64,
    /// Stored bytes of the other records.
    pub unneeded_bytes: u64,
    /// All records.
    pub records: u64,
    /// Packs of which no record is needed.
    pub unneeded_packs: u64,
    /// Their bytes.
    pub unneeded_pack_bytes: u64,
}

/// What is checked.
#[derive(Debug, Clone, Default)]
pub struct CheckOptions {
    /// How much of the data is read.
    pub read_data: ReadData,
    /// Packs that are taken as absent, and not reported: is all there without them?
    pub without: BTreeSet<PackId>,
    /// Whether the snapshots are all there are, so that the rest is needed by nobody.
    pub scope: Scope,
}

/// Which snapshots are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// All of the repository.
    #[default]
    Everything,
    /// Some: only packs that they need are read.
    Some,
}

/// Something that is wrong with one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckProblem {
    /// The object by name.
    pub object: String,
    /// What is wrong with it.
    pub message: String,
    /// Snapshots that cannot be restored whole because of it.
    pub snapshots: Vec<SnapshotId>,
    /// What cannot be restored, once for each version of its part of the tree.
    pub paths: Tally,
}

/// Checks the packs and snapshots of a state of the log.
pub fn check(
    cx: &Context,
    repo: &Repo,
    packs: &BTreeMap<PackId, PackBytes>,
    snapshots: &[(SnapshotId, Manifest)],
    read_data: ReadData,
) -> Result<CheckReport> {
    let options = CheckOptions {
        read_data,
        ..CheckOptions::default()
    };
    check_with(cx, repo, packs, snapshots, &options)
}

/// Checks the packs and snapshots of a state of the log, in whatever way.
pub fn check_with(
    cx: &Context,
    repo: &Repo,
    packs: &BTreeMap<PackId, PackBytes>,
    snapshots: &[(SnapshotId, Manifest)],
    options: &CheckOptions,
) -> Result<CheckReport> {
    let started_at = cx.clock.now();
    let findings = Findings::default();
    let mut report = CheckReport {
        packs: packs.len() as u64,
        snapshots: snapshots.len() as u64,
        ..CheckReport::default()
    };
    cx.progress.event(Event::Phase("check packs"));
    cx.progress.event(Event::Total {
        files: packs.len() as u64,
        bytes: 0,
    });
    let readable = packs::open_all(cx, repo, packs, &findings, &options.without, &mut report)?;
    let is_absent = |pack: &&PackId| !readable.contains_key(*pack);
    let absent = packs.keys().filter(is_absent).copied().collect();
    let chunks = Chunks::open_without(repo, packs, &absent)?;
    for (pack, error) in chunks.unreadable() {
        findings.bad_pack(pack, &error);
    }
    report.unopened_packs = findings.bad_packs();
    let pack_check = PackCheck::new(cx, &chunks, &findings);
    pack_check.chains(&readable)?;
    if options.read_data != ReadData::No {
        cx.progress.event(Event::Phase("read packs"));
        let in_scope = in_scope(cx, &chunks, &readable, snapshots, options.scope)?;
        let mut rotation = Rotation::open(repo);
        let taken = rotation.sample(cx, &in_scope, options.read_data)?;
        pack_check.read(&taken)?;
        pack_check.count(&mut report);
        if options.scope == Scope::Everything {
            rotation.remember(&in_scope, &taken, &report.whole_packs);
        }
    }
    pack_check.count(&mut report);

    cx.progress.event(Event::Phase("check snapshots"));
    let trees = Trees::new(cx, &chunks, &findings, pack_check.finish());
    trees.check(snapshots, &mut report)?;
    databases::check(cx, &chunks, &findings, snapshots)?;
    let mut attributed = trees.attribute(snapshots)?;
    databases::attribute(&findings, snapshots, &mut attributed);
    report.losses = findings.losses(&attributed);
    report.lost_chunks = findings.lost_chunks();
    report.unsure = findings.unsure();
    report.damaged_packs = findings.damaged_packs();
    report.damaged_packs.retain(|pack| packs.contains_key(pack));
    report.problems = findings.into_problems(&attributed);
    if options.scope == Scope::Everything && options.without.is_empty() {
        report.usage = Some(usage(cx, &chunks, &readable, snapshots)?);
        report.problems.extend(keys::problems(repo)?);
    }
    let took_ns = cx.clock.now().since_ns(started_at);
    report.duration_ms = u64::try_from(took_ns / 1_000_000).unwrap_or(0);
    Ok(report)
}

/// Returns the packs that are read if all of the data is.
fn in_scope(
    cx: &Context,
    chunks: &Chunks<'_>,
    packs: &BTreeMap<PackId, PackBytes>,
    snapshots: &[(SnapshotId, Manifest)],
    scope: Scope,
) -> Result<BTreeMap<PackId, PackBytes>> {
    if scope == Scope::Everything {
        return Ok(packs.clone());
    }
    let marks = marked(cx, chunks, packs, snapshots)?;
    let needed = marks.rows().filter(|(_, owner)| *owner != Owner::Nobody);
    let needed: BTreeSet<u32> = needed.map(|(row, _)| row.pack).collect();
    let packs = packs.iter().zip(0..);
    let needed = packs.filter(|(_, number)| needed.contains(number));
    Ok(needed.map(|((pack, bytes), _)| (*pack, *bytes)).collect())
}

fn marked<'c>(
    cx: &'c Context,
    chunks: &'c Chunks<'c>,
    packs: &BTreeMap<PackId, PackBytes>,
    snapshots: &[(SnapshotId, Manifest)],
) -> Result<Marks<'c>> {
    let mut marks = Marks::load(cx, chunks, packs)?;
    for (_, manifest) in snapshots {
        marks.snapshot(manifest, Owner::Several)?;
    }
    Ok(marks)
}

fn usage(
    cx: &Context,
    chunks: &Chunks<'_>,
    packs: &BTreeMap<PackId, PackBytes>,
    snapshots: &[(SnapshotId, Manifest)],
) -> Result<Usage> {
    cx.progress.event(Event::Phase("count what is needed"));
    Ok(marked(cx, chunks, packs, snapshots)?.usage(packs))
}

/// Does something to every item on all cores. The first error ends it.
fn for_each<T: Sync>(
    cx: &Context,
    items: &[T],
    work: impl Fn(&T, &mut crate::repo::chunks::Scratch) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Ok(()));
    thread::scope(|scope| {
        for _ in 0..thread_count().min(items.len()) {
            scope.spawn(|| {
                let mut scratch = crate::repo::chunks::Scratch::default();
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    scratch.touched.clear();
                    if let Err(error) = cx.check().and_then(|()| work(item, &mut scratch)) {
                        next.store(items.len(), Ordering::Relaxed);
                        *failed.lock().unwrap_or_else(PoisonError::into_inner) = Err(error);
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner)
}
