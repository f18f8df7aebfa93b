//! Checks a repository without writing anything: packs, chains, trees, and as much data as asked.
//!
//! Every problem is collected, none ends the check, and each says which snapshots and which paths
//! it concerns. Only a store that cannot even be listed is an error. A pack is believed missing
//! only when asking for it by name says so (I14).

mod databases;
mod findings;
mod packs;
mod trees;

use crate::context::Context;
use crate::context::Event;
use crate::error::Result;
use crate::format::entry::PackBytes;
use crate::format::manifest::Manifest;
use crate::id::PackId;
use crate::id::SnapshotId;
use crate::ops::Tally;
use crate::ops::check::findings::Findings;
use crate::ops::check::packs::PackCheck;
use crate::ops::check::trees::Trees;
use crate::ops::thread_count;
use crate::repo::Repo;
use crate::repo::chunks::Chunks;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;

/// How much of the data is read and verified. Tables, lists and trees always are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ReadData {
    /// None: chunks of files only have to be there.
    No,
    /// So many of a hundred packs, drawn anew each time.
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
    /// What is wrong, by object.
    pub problems: Vec<CheckProblem>,
    /// How long it took.
    pub duration_ms: u64,
}

impl CheckReport {
    /// Returns whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }
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
    let readable = packs::open_all(cx, repo, packs, &findings, &mut report)?;
    let chunks = Chunks::open(repo, &readable)?;
    for (pack, message) in chunks.unreadable_packs() {
        findings.bad_pack(pack, message);
    }
    let pack_check = PackCheck::new(cx, &chunks, &findings);
    pack_check.chains(&readable)?;
    if read_data != ReadData::No {
        cx.progress.event(Event::Phase("read packs"));
        pack_check.read(&packs::sample(cx, &readable, read_data)?)?;
    }
    pack_check.count(&mut report);

    cx.progress.event(Event::Phase("check snapshots"));
    let trees = Trees::new(cx, &chunks, &findings, pack_check.finish());
    trees.check(snapshots, &mut report)?;
    databases::check(cx, &chunks, &findings, snapshots)?;
    let mut attributed = trees.attribute(snapshots)?;
    databases::attribute(&findings, snapshots, &mut attributed);
    report.problems = findings.into_problems(&attributed);
    let took_ns = cx.clock.now().since_ns(started_at);
    report.duration_ms = u64::try_from(took_ns / 1_000_000).unwrap_or(0);
    Ok(report)
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
