//! Decides which records are stored against another base, so that what snapshots that are gone left
//! behind can go too. Pure; `docs/decisions/0053-thinning-by-trees.md` has the measurements.
//!
//! Kept records form trees by their bases, and trees grow on one another where a chunk was stored
//! whole. Along the links the bytes of the deltas add up to a place on a line: how far a version is
//! from the first one; the snapshots say which of two is older. The further they are apart, the
//! larger the delta between them, until it is as large as the whole chunk. With that as estimate
//! every record that leans on a mere base is given the nearest older version that a snapshot names,
//! and a tree is thinned if what goes is worth what is written.
//!
//! Invariant (I13): the new height of a record is below its old one, and above that of its base as
//! planned. So the new record is the one readers take, no circle can close, and what leaned on the
//! old one still finds the new one below it.

use crate::ops::prune::records::Entry;
use crate::ops::prune::records::Records;
use std::collections::HashSet;

/// What a record takes beside its bytes: a row of the table of its pack, and the frame.
const ROW_BYTES: u64 = 48;
/// A tree is thinned if that gives back this part of what has to be written.
const GAIN_SHARE: u64 = 8;
/// Versions that are tried as base, the nearest first.
const TRIED_MAX: usize = 64;

/// Stands on nothing.
const NO_BASE: u32 = u32::MAX;

/// A record that is to be stored again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reencode {
    /// Its place among the records.
    pub(super) at: usize,
    /// The record whose chunk it is to lean on, and the height that one will have at most; `None`
    /// stores it whole.
    pub(super) base: Option<(usize, u8)>,
}

impl Reencode {
    /// Returns the height the new record has at most.
    fn height(&self) -> u8 {
        self.base.map_or(0, |(_, height)| height + 1)
    }
}

/// What can be done about one tree.
#[derive(Debug, Default)]
pub(super) struct Choice {
    pub(super) records: Vec<Reencode>,
    /// Bytes that are written.
    pub(super) cost_bytes: u64,
    /// Bytes the repository is smaller by afterwards.
    pub(super) gain_bytes: u64,
}

impl Choice {
    /// Returns the gain beyond what is asked for the work.
    fn worth(&self) -> Option<u64> {
        if self.records.is_empty() {
            return None;
        }
        let wanted = self.cost_bytes / GAIN_SHARE;
        self.gain_bytes.checked_sub(wanted).filter(|more| *more > 0)
    }
}

/// Returns what can be done, the best first.
pub(super) fn choices(records: &Records) -> Vec<Choice> {
    let is_mere_base = |entry: &Entry| entry.is_kept() && !entry.is_named();
    if !records.entries().iter().any(is_mere_base) {
        return Vec::new();
    }
    let trees = Trees::of(records);
    let mut choices: Vec<Choice> = (trees.order)
        .chunk_by(|a, b| trees.root[*a as usize] == trees.root[*b as usize])
        .filter_map(|members| trees.best(members))
        .collect();
    choices.sort_by_key(|choice| {
        let permille = choice.gain_bytes.saturating_mul(1000) / choice.cost_bytes.max(1);
        (std::cmp::Reverse(permille), choice.records[0].at)
    });
    choices
}

/// All kept records, by the trees they form.
struct Trees<'a> {
    records: &'a Records,
    /// By record: the one it stands on, along first bases.
    base: Vec<u32>,
    /// By record: the one that stands for its tree.
    root: Vec<u32>,
    /// By record: how far it is from there.
    place: Vec<u32>,
    /// Kept records, tree by tree, each in the order of versions.
    order: Vec<u32>,
}

impl Trees<'_> {
    fn of(records: &Records) -> Trees<'_> {
        let entries = records.entries();
        let is_kept = |at: &u32| entries[*at as usize].is_kept();
        let mut order: Vec<u32> = (0..entries.len() as u32).filter(is_kept).collect();
        order.sort_unstable_by_key(|&at| (entries[at as usize].height, at));
        let mut base = vec![NO_BASE; entries.len()];
        for at in order.iter().map(|at| *at as usize) {
            base[at] = records.kept_base(at).map_or(NO_BASE, |base| base as u32);
        }
        let mut root: Vec<u32> = (0..entries.len() as u32).collect();
        // A base is lower, so what it says is there already.
        for at in order.iter().map(|at| *at as usize) {
            if base[at] != NO_BASE {
                root[at] = root[base[at] as usize];
            }
        }
        // Where a chunk was stored whole, what stood there before is near all the same.
        for at in order.iter().map(|at| *at as usize) {
            if let Some(before) = records.kept_before(at) {
                let (one, other) = (top(&root, at), top(&root, before));
                root[one.max(other)] = one.min(other) as u32;
            }
        }
        for at in order.iter().map(|at| *at as usize) {
            root[at] = top(&root, at) as u32;
        }
        // A base is older than the first version that stands on it.
        let mut first: Vec<u16> = (0..entries.len()).map(|at| records.first(at)).collect();
        for at in order.iter().rev().map(|at| *at as usize) {
            if base[at] != NO_BASE {
                let base = base[at] as usize;
                first[base] = first[base].min(first[at]);
            }
        }
        order.sort_unstable_by_key(|&at| {
            let entry = &entries[at as usize];
            (root[at as usize], first[at as usize], entry.height, at)
        });
        let mut place = vec![0_u32; entries.len()];
        let mut last = (u32::MAX, 0_u32);
        for at in order.iter().map(|at| *at as usize) {
            let above = match base[at] {
                NO_BASE => 0,
                base => place[base as usize].saturating_add(entries[at].stored_bytes),
            };
            // The first of a run leans far back: it is not before the run that it follows.
            place[at] = match last.0 == root[at] {
                true => above.max(last.1),
                false => above,
            };
            last = (root[at], place[at]);
        }
        Trees {
            records,
            base,
            root,
            place,
            order,
        }
    }

    fn base(&self, at: usize) -> Option<usize> {
        (self.base[at] != NO_BASE).then_some(self.base[at] as usize)
    }

    /// Returns the better of two ways, if either is worth it: to store again only what finds a
    /// base, or also to store whole what finds none.
    fn best(&self, members: &[u32]) -> Option<Choice> {
        let entries = self.records.entries();
        let is_mere_base = |at: &u32| !entries[*at as usize].is_named();
        if !members.iter().any(is_mere_base) {
            return None;
        }
        let ways = [false, true].map(|with_whole| self.choice(members, with_whole));
        let worth = ways.into_iter().filter(|choice| choice.worth().is_some());
        worth.max_by_key(Choice::worth)
    }

    fn choice(&self, members: &[u32], with_whole: bool) -> Choice {
        let entries = self.records.entries();
        let is_whole = |at: &&u32| self.base(**at as usize).is_none();
        let whole = members.iter().find(is_whole);
        let whole_bytes = whole.map_or(0, |at| u64::from(entries[*at as usize].stored_bytes));
        let mut choice = Choice::default();
        let mut moved = HashSet::new();
        // Versions that snapshots name, each with the height it will have.
        let mut named: Vec<(usize, u8)> = Vec::new();
        for at in members.iter().map(|at| *at as usize) {
            if !entries[at].is_named() {
                continue;
            }
            let found = match self.leans_on_mere_base(at) {
                true => self.new_base(at, &named, whole_bytes),
                false => None,
            };
            match found.filter(|(new, _)| with_whole || new.base.is_some()) {
                Some((new, cost_bytes)) => {
                    choice.records.push(new);
                    choice.cost_bytes += cost_bytes + ROW_BYTES;
                    moved.insert(at);
                    named.push((at, new.height()));
                }
                None => named.push((at, entries[at].height)),
            }
        }
        let old_bytes: u64 = moved.iter().map(|at| self.bytes(*at)).sum();
        let freed_bytes = old_bytes + self.freed_bytes(members, &moved);
        choice.gain_bytes = freed_bytes.saturating_sub(choice.cost_bytes);
        choice
    }

    fn leans_on_mere_base(&self, at: usize) -> bool {
        let entries = self.records.entries();
        let base = self.base(at);
        entries[at].height < u8::MAX && base.is_some_and(|base| !entries[base].is_named())
    }

    /// Returns the nearest version before this one that is low enough, and what the delta to it
    /// takes; or none, where that would be about as long as the whole chunk.
    fn new_base(
        &self,
        at: usize,
        named: &[(usize, u8)],
        whole_bytes: u64,
    ) -> Option<(Reencode, u64)> {
        let height = self.records.entries()[at].height;
        let mut tried = named.iter().rev().take(TRIED_MAX);
        let low = tried.find(|(_, planned)| u16::from(*planned) + 1 < u16::from(height));
        if let Some(&(base, planned)) = low {
            let apart = self.place[at].saturating_sub(self.place[base]);
            let cost_bytes = delta_bytes(u64::from(apart), whole_bytes);
            if cost_bytes <= whole_bytes / 16 * 15 {
                let base = Some((base, planned));
                return Some((Reencode { at, base }, cost_bytes));
            }
        }
        (height > 0).then_some((Reencode { at, base: None }, whole_bytes))
    }

    /// Returns the bytes of mere bases that nothing stands on once these records moved away.
    fn freed_bytes(&self, members: &[u32], moved: &HashSet<usize>) -> u64 {
        let entries = self.records.entries();
        let mut needed = HashSet::new();
        for at in members.iter().map(|at| *at as usize) {
            if !entries[at].is_named() || moved.contains(&at) {
                continue;
            }
            let mut below = self.base(at);
            while let Some(base) = below.filter(|base| !entries[*base].is_named()) {
                if !needed.insert(base) {
                    break;
                }
                below = self.base(base);
            }
        }
        let mere = members.iter().map(|at| *at as usize);
        let freed = mere.filter(|at| !entries[*at].is_named() && !needed.contains(at));
        freed.map(|at| self.bytes(at)).sum()
    }

    fn bytes(&self, at: usize) -> u64 {
        u64::from(self.records.entries()[at].stored_bytes) + ROW_BYTES
    }
}

fn top(root: &[u32], mut at: usize) -> usize {
    while root[at] as usize != at {
        at = root[at] as usize;
    }
    at
}

/// Estimates a delta over many steps from the sum of their deltas: what is changed twice counts
/// once, and it all ends at the whole chunk. This is 1 - e^-x for changes at random.
fn delta_bytes(apart_bytes: u64, whole_bytes: u64) -> u64 {
    let whole = whole_bytes.max(1) as f64;
    let share = 1.0 - (-(apart_bytes as f64) / whole).exp();
    (whole * share) as u64
}
