//! Checks the chunks in which snapshots say what is known of their databases.

use crate::context::Context;
use crate::error::Result;
use crate::format::database;
use crate::format::manifest::Manifest;
use crate::format::pack::ChunkKind;
use crate::id::ChunkId;
use crate::id::SnapshotId;
use crate::ops::check::findings::Findings;
use crate::ops::check::findings::Reached;
use crate::repo::chunks::Chunks;
use crate::repo::chunks::Scratch;
use std::collections::HashSet;

/// What a report says instead of a path.
const RECORDS: &[u8] = b"(database records)";

/// Reads the records of every snapshot, each chunk of them once.
pub(super) fn check(
    cx: &Context,
    chunks: &Chunks<'_>,
    findings: &Findings,
    snapshots: &[(SnapshotId, Manifest)],
) -> Result<()> {
    let mut scratch = Scratch::default();
    let mut seen = HashSet::new();
    for id in snapshots.iter().filter_map(|(_, one)| one.databases) {
        cx.check()?;
        if !seen.insert(id) {
            continue;
        }
        if let Err(error) = read(chunks, &mut scratch, &id) {
            let cause = findings.error(&error);
            findings.affects(&cause, &id, RECORDS);
        }
        scratch.touched.clear();
    }
    Ok(())
}

fn read(chunks: &Chunks<'_>, scratch: &mut Scratch, id: &ChunkId) -> Result<()> {
    let plain = chunks.read(scratch, ChunkKind::Data, id)?;
    let records = database::decode(&plain);
    records.map_err(|malformed| malformed.of(format!("chunk {id}")))?;
    scratch.recycle(plain);
    Ok(())
}

/// Adds the snapshots that name records with which something is wrong.
pub(super) fn attribute(
    findings: &Findings,
    snapshots: &[(SnapshotId, Manifest)],
    reached: &mut Reached,
) {
    let bad = findings.nodes();
    for (snapshot, manifest) in snapshots {
        if let Some(id) = manifest.databases.filter(|id| bad.contains(id)) {
            reached.entry(id).or_default().insert(*snapshot);
        }
    }
}
