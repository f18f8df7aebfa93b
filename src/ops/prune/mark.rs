//! Marks what snapshots reach.

use crate::context::Context;
use crate::error::Result;
use crate::format::manifest::Manifest;
use crate::format::pack::ChunkKind;
use crate::id::ChunkId;
use crate::ops::prune::records::Records;
use crate::repo::chunks::Chunks;
use crate::repo::reach::Visitor;
use crate::repo::reach::Walk;
use std::collections::HashMap;
use std::collections::HashSet;

/// Marks every chunk these snapshots need, and chooses the records that stay for them. Fails on the
/// first thing that cannot be read: what is below it is not known, and would be deleted.
pub(super) fn mark(
    cx: &Context,
    chunks: &Chunks<'_>,
    kept: &[Manifest],
    records: &mut Records,
) -> Result<()> {
    let mut walk = Walk::begin(chunks);
    let mut marker = Marker {
        records,
        nodes: HashSet::new(),
        snapshot: 0,
        place: None,
        before: HashMap::new(),
    };
    for (number, manifest) in kept.iter().enumerate() {
        marker.snapshot = u16::try_from(number).unwrap_or(u16::MAX);
        walk.snapshot(cx, manifest, &mut marker)?;
    }
    records.rank();
    records.choose();
    records.prove()
}

/// Marks what is come to, and says what followed what in the same place.
struct Marker<'m> {
    records: &'m mut Records,
    nodes: HashSet<ChunkId>,
    snapshot: u16,
    place: Option<u64>,
    /// By place: the record of what stood there last.
    before: HashMap<u64, u32>,
}

impl Visitor for Marker<'_> {
    fn visit(&mut self, kind: ChunkKind, id: &ChunkId) -> Result<bool> {
        let place = self.place.take();
        if kind != ChunkKind::Data && !self.nodes.insert(*id) {
            return Ok(false);
        }
        let at = self.records.mark_named(id, self.snapshot)?;
        if let Some(place) = place
            && let Some(before) = self.before.insert(place, at)
        {
            self.records.follows(at, before);
        }
        Ok(true)
    }

    fn place(&mut self, place: u64) {
        self.place = Some(place);
    }
}
