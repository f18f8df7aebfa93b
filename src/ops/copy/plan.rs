//! What a copy would do: which snapshots, and how much would be read for each.
//!
//! It is the walk of the copy itself, from the source into the source: the copy of everything is
//! itself, and what would be read is counted.

use crate::context::Context;
use crate::context::Event;
use crate::error::Error;
use crate::error::Result;
use crate::format::manifest::Manifest;
use crate::id::ChunkId;
use crate::id::SnapshotId;
use crate::ops::copy::Fault;
use crate::ops::copy::Faulty;
use crate::ops::copy::choose;
use crate::ops::copy::choose::Copies;
use crate::ops::copy::choose::Earlier;
use crate::ops::copy::walk::Op;
use crate::ops::copy::walk::Sink;
use crate::ops::copy::walk::Twin;
use crate::ops::copy::walk::Walk;
use crate::repo::Repo;
use crate::repo::chunks::Chunks;
use std::collections::HashSet;

/// What a copy would do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CopyPlan {
    /// What would be copied, oldest first.
    pub snapshots: Vec<PlannedSnapshot>,
    /// Snapshots that are there already.
    pub present: u64,
    /// Snapshots that cannot be copied, and why.
    pub damaged: Vec<(SnapshotId, String)>,
}

/// A snapshot that would be copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedSnapshot {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// What it is.
    pub manifest: Manifest,
    /// Plain bytes that would be read: what the snapshots before it do not have.
    pub read_bytes: u64,
}

/// Plans to copy these snapshots. Reads the logs, and lists and trees of the source.
pub fn plan(cx: &Context, source: &Repo, target: &Repo, wanted: &[SnapshotId]) -> Result<CopyPlan> {
    super::refuse_same(source, target)?;
    let from = source.read_state(cx)?;
    let to = super::read_target(cx, target)?;
    let mut copies = Copies::of(target.id(), &to);
    let chosen = super::choose(source, &from, &copies, wanted)?;
    let mut plan = CopyPlan {
        present: chosen.present,
        damaged: chosen.damaged,
        ..CopyPlan::default()
    };
    if chosen.left.is_empty() {
        return Ok(plan);
    }
    cx.progress.event(Event::Phase("plan"));
    let chunks = Chunks::open(source, &from.packs)?;
    // The copy of everything is itself.
    let mut earlier = Earlier::default();
    for id in from.snapshots.keys() {
        let origin = choose::origin(source.id(), &from, *id);
        if copies.find(&origin).is_some() {
            copies.add(origin, *id);
            if let Ok(Some(manifest)) = choose::manifest(&from, id) {
                earlier.add(manifest, *id);
            }
        }
    }
    let mut counter = Counter {
        chunks: &chunks,
        nodes: HashSet::new(),
        read_bytes: 0,
    };
    for id in chosen.left {
        let Some(manifest) = choose::manifest(&from, &id)? else {
            continue;
        };
        let mut walk = Walk::begin(cx, &chunks, &chunks);
        let nearest = earlier.nearest(&manifest).map(|(nearest, _)| Twin {
            original: nearest,
            copy: nearest,
        });
        counter.read_bytes = 0;
        match walk.snapshot(&mut counter, &manifest, nearest.as_ref()) {
            Ok(()) => {
                plan.snapshots.push(PlannedSnapshot {
                    snapshot: id,
                    manifest: manifest.clone(),
                    read_bytes: counter.read_bytes + walk.read_bytes,
                });
                earlier.add(manifest, id);
            }
            Err(Fault::Source(error @ (Error::Missing { .. } | Error::Corrupt { .. }))) => {
                plan.damaged.push((id, error.to_string()));
            }
            Err(Fault::Source(error) | Fault::Target(error)) => return Err(error),
        }
    }
    chunks.save_index();
    Ok(plan)
}

/// Counts what would be read.
struct Counter<'a> {
    chunks: &'a Chunks<'a>,
    nodes: HashSet<ChunkId>,
    read_bytes: u64,
}

impl Sink for Counter<'_> {
    fn find(&self, id: &ChunkId) -> Option<ChunkId> {
        self.nodes.get(id).copied()
    }

    fn learn(&mut self, id: ChunkId, _: ChunkId) {
        self.nodes.insert(id);
    }

    fn push(&mut self, op: Op) -> Faulty<()> {
        match op {
            Op::Known(_) => {}
            Op::Chunk { id, .. } => {
                let record = self.chunks.find(&id).into_iter().next();
                let record = record.ok_or_else(|| {
                    let object = format!("chunk {id}");
                    Fault::Source(Error::Missing { object })
                })?;
                self.read_bytes += u64::from(record.plain_bytes);
            }
            Op::Node { id, .. } => self.learn(id, id),
        }
        Ok(())
    }
}
