//! What an index has at one moment: an overlay, one on its way to a segment, and segments.
//!
//! No input or output here, so that the lock around it is held for moments only.
//!
//! Invariant: a pack is live in one place at most. Whatever comes second is taken as not live.

use super::IndexStats;
use super::overlay::Overlay;
use super::record::Entry;
use super::record::ordinal;
use super::segment::Segment;
use crate::id::PackId;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

#[derive(Default)]
pub(super) struct State {
    pub(super) overlay: Overlay,
    /// What is being written into a segment; else empty.
    pub(super) frozen: Arc<Overlay>,
    /// The heaviest first.
    pub(super) tables: Arc<Vec<Table>>,
}

/// A segment and which of its packs count.
#[derive(Clone)]
pub(super) struct Table {
    pub(super) segment: Arc<Segment>,
    /// By ordinal.
    pub(super) live: Vec<bool>,
}

impl State {
    pub(super) fn packs(&self) -> impl Iterator<Item = &PackId> {
        let fresh = self.overlay.packs.iter().chain(&self.frozen.packs);
        fresh.chain(self.tables.iter().flat_map(Table::live_packs))
    }

    pub(super) fn has_pack(&self, pack: &PackId) -> bool {
        self.overlay.packs.contains(pack)
            || self.frozen.packs.contains(pack)
            || self.tables.iter().any(|table| table.has_pack(pack))
    }

    /// Adds a segment; returns it if nothing in it is new.
    pub(super) fn add(&mut self, segment: Segment) -> Option<Arc<Segment>> {
        let is_new = |pack| !self.has_pack(pack);
        let table = Table {
            live: segment.packs.iter().map(is_new).collect(),
            segment: Arc::new(segment),
        };
        if table.live_packs().next().is_none() {
            return Some(table.segment);
        }
        let mut tables = self.tables.to_vec();
        let heavier = |other: &Table| table.weight() <= other.weight();
        tables.insert(tables.partition_point(heavier), table);
        self.tables = Arc::new(tables);
        None
    }

    /// Puts a merged segment in place of its inputs; returns it if nothing in it is new.
    pub(super) fn replace(&mut self, inputs: &[Table], merged: Segment) -> Option<Arc<Segment>> {
        for input in inputs {
            self.remove(&input.segment);
        }
        self.add(merged)
    }

    pub(super) fn remove(&mut self, segment: &Arc<Segment>) {
        let mut tables = self.tables.to_vec();
        tables.retain(|table| !Arc::ptr_eq(&table.segment, segment));
        self.tables = Arc::new(tables);
    }

    /// Removes packs from the overlay and the segments, not from what is being written; returns
    /// the segments in which nothing is left.
    pub(super) fn remove_packs(&mut self, dead: &BTreeSet<PackId>) -> Vec<Arc<Segment>> {
        self.overlay.remove_packs(dead);
        let mut tables = self.tables.to_vec();
        for table in &mut tables {
            for (pack, is_live) in table.segment.packs.iter().zip(&mut table.live) {
                *is_live &= !dead.contains(pack);
            }
        }
        let is_empty = |table: &mut Table| table.live_packs().next().is_none();
        let emptied = tables
            .extract_if(.., is_empty)
            .map(|table| table.segment)
            .collect();
        self.tables = Arc::new(tables);
        emptied
    }

    pub(super) fn stats(&self) -> IndexStats {
        let fresh_count = self.overlay.records.len() + self.frozen.records.len();
        let mut stats = IndexStats {
            entry_count: fresh_count as u64,
            segment_count: self.tables.len() as u64,
            memory_bytes: 0,
            read_count: 0,
        };
        for Table { segment, live } in self.tables.iter() {
            stats.entry_count += segment.entry_count;
            stats.memory_bytes += segment.memory_bytes() + live.len() as u64;
            stats.read_count += segment.read_count.load(Ordering::Relaxed);
        }
        stats
    }
}

impl Table {
    pub(super) fn live_packs(&self) -> impl Iterator<Item = &PackId> {
        let packs = self.segment.packs.iter().zip(&self.live);
        packs.filter_map(|(pack, is_live)| is_live.then_some(pack))
    }

    fn has_pack(&self, pack: &PackId) -> bool {
        (self.segment.packs.binary_search(pack)).is_ok_and(|ordinal| self.live[ordinal])
    }

    /// Returns the pack of the entry, if it counts.
    pub(super) fn live_pack(&self, entry: &Entry) -> Option<&PackId> {
        let ordinal = ordinal(entry) as usize;
        let is_live = self.live.get(ordinal).copied().unwrap_or_default();
        is_live.then(|| &self.segment.packs[ordinal])
    }

    /// Returns what merging it costs. Never 0, so that segments of empty packs are merged too.
    pub(super) fn weight(&self) -> u64 {
        self.segment.entry_count + self.segment.packs.len() as u64
    }
}
