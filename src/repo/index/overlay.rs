//! The records that are not in a segment yet, in memory.

use super::record::Record;
use super::segment::Segment;
use super::writer::Writer;
use crate::id::PackId;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;

/// Packs and all of their records.
#[derive(Default)]
pub(super) struct Overlay {
    pub(super) packs: BTreeSet<PackId>,
    pub(super) records: BTreeSet<Record>,
}

impl Overlay {
    /// Adds the records of a pack, whatever pack they say they are in.
    pub(super) fn insert(&mut self, pack: PackId, records: impl IntoIterator<Item = Record>) {
        self.packs.insert(pack);
        let records = records.into_iter();
        self.records
            .extend(records.map(|record| Record { pack, ..record }));
    }

    /// Adds what the other one has.
    pub(super) fn absorb(&mut self, other: &Overlay) {
        self.packs.extend(&other.packs);
        self.records.extend(&other.records);
    }

    /// Returns the records whose id begins with the prefix.
    pub(super) fn find(&self, prefix: &[u8]) -> impl Iterator<Item = &Record> {
        (self.records.range(Record::lowest(prefix)..))
            .take_while(move |record| record.id.0.starts_with(prefix))
    }

    pub(super) fn remove_packs(&mut self, dead: &BTreeSet<PackId>) {
        self.packs.retain(|pack| !dead.contains(pack));
        self.records.retain(|record| !dead.contains(&record.pack));
    }

    /// Writes everything into a new segment.
    pub(super) fn write(&self, dir: &Path) -> io::Result<Segment> {
        let packs: Vec<PackId> = self.packs.iter().copied().collect();
        let mut writer = Writer::create(dir, self.records.len() as u64)?;
        for record in &self.records {
            // Invariant: every record is of a listed pack, so nothing is left out here.
            let ordinal = packs.binary_search(&record.pack).ok();
            if let Some(ordinal) = ordinal.and_then(|ordinal| u32::try_from(ordinal).ok()) {
                writer.push(&record.encode(ordinal))?;
            }
        }
        writer.finish(packs)
    }
}
