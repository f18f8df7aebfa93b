//! Marks what snapshots reach.

use crate::context::Context;
use crate::error::Result;
use crate::format::manifest::Manifest;
use crate::ops::prune::records::Records;
use crate::repo::chunks::Chunks;
use crate::repo::reach::Reach;

/// Marks every chunk these snapshots need, and chooses the records that stay for them. Fails on the
/// first thing that cannot be read: what is below it is not known, and would be deleted.
pub(super) fn mark(
    cx: &Context,
    chunks: &Chunks<'_>,
    kept: &[Manifest],
    records: &mut Records,
) -> Result<()> {
    let mut reach = Reach::begin(chunks);
    for manifest in kept {
        reach.visit(cx, manifest, &mut |_, id| records.mark_named(id))?;
    }
    records.rank();
    records.choose();
    records.prove()
}
