//! Decides which packs are dropped and which are worth rewriting. Pure.

use crate::error::Result;
use crate::ops::prune::records::Records;
use crate::ops::prune::thin;
use crate::ops::prune::thin::Reencode;
use crate::safeguard::Safeguard;
use std::collections::BTreeSet;

/// A pack below this is tiny: small backups leave one each.
const TINY_BYTES: u64 = 4 << 20;
/// So many tiny packs may lie about before they are merged.
const TINY_MAX: usize = 32;
/// Storing against other bases has to give back this part of what may be unused.
const THIN_SHARE: u64 = 8;

/// How far rewriting may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// What nobody needs may take so many thousandths of what is needed; and an eighth of that,
    /// what could be given back of what is needed only as a base.
    pub unused_permille: u64,
    /// Rewrites no more than about so many bytes at a time.
    pub repack_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            unused_permille: 100,
            repack_bytes_max: u64::MAX,
        }
    }
}

/// What is to be done, by the places of packs and entries in `Records`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Work {
    /// Packs of which nothing is kept.
    pub(super) drop: BTreeSet<u32>,
    /// Packs of which everything kept is stored again elsewhere, then they are dropped.
    pub(super) rewrite: BTreeSet<u32>,
    /// Entries that are stored against another base, each after what it will lean on.
    pub(super) reencode: Vec<Reencode>,
    /// Packs of an earlier attempt that no entry names yet and that hold something kept.
    pub(super) add: BTreeSet<u32>,
}

impl Work {
    /// Returns whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.drop.is_empty()
            && self.rewrite.is_empty()
            && self.reencode.is_empty()
            && self.add.is_empty()
    }
}

/// What is kept of a pack.
#[derive(Debug, Clone, Copy, Default)]
struct Use {
    records: u64,
    bytes: u64,
    unused_bytes: u64,
}

/// Decides. Marks in the records what is stored against another base.
pub(super) fn work(records: &mut Records, limits: &Limits) -> Result<Work> {
    let uses = uses(records);
    let mut work = Work::default();
    for (at, pack) in (0_u32..).zip(&records.packs) {
        let is_used = uses[at as usize].records > 0;
        match (is_used, pack.is_own) {
            (true, true) => drop(work.add.insert(at)),
            (false, false) if !pack.is_unreadable || !Safeguard::UnreadableStays.holds() => {
                work.drop.insert(at);
            }
            _ => {}
        }
    }
    let mut budget = limits.repack_bytes_max;
    if budget > 0 {
        thin(records, limits, &mut budget, &mut work)?;
        repack(records, limits, &mut budget, &mut work);
    }
    Ok(work)
}

fn uses(records: &Records) -> Vec<Use> {
    let mut uses = vec![Use::default(); records.packs.len()];
    for entry in records.entries() {
        let used = &mut uses[entry.pack as usize];
        let bytes = u64::from(entry.stored_bytes);
        match entry.is_copied() {
            true => {
                used.records += 1;
                used.bytes += bytes;
            }
            false => used.unused_bytes += bytes,
        }
    }
    uses
}

/// Stores against other bases what leans on mere bases, where that gives back enough: a tree at a
/// time, the best first, as long as the budget lasts.
fn thin(records: &mut Records, limits: &Limits, budget: &mut u64, work: &mut Work) -> Result<()> {
    let kept_bytes = records.copied_bytes();
    let (mut left, mut cost_bytes) = (*budget, 0);
    for choice in thin::choices(records) {
        let Some(now_left) = left.checked_sub(choice.cost_bytes) else {
            continue;
        };
        left = now_left;
        cost_bytes += choice.cost_bytes;
        work.reencode.extend(choice.records);
    }
    let moved = work.reencode.iter().map(|moved| moved.at);
    moved.for_each(|at| records.reencode(at));
    records.choose();
    // A little is left for the next time: each time costs a pack.
    let wanted_bytes = share(kept_bytes, limits) / THIN_SHARE;
    if records.copied_bytes() + cost_bytes + wanted_bytes < kept_bytes {
        *budget = left;
        records.prove_moves(&work.reencode)?;
        return records.prove();
    }
    work.reencode.clear();
    records.reencode_nothing();
    records.choose();
    records.prove()
}

/// Rewrites the emptiest packs until little enough is unused, then merges tiny ones.
fn repack(records: &Records, limits: &Limits, budget: &mut u64, work: &mut Work) {
    let uses = uses(records);
    let has_content = |at: &u32| !records.packs[*at as usize].is_own && !work.drop.contains(at);
    let is_readable = |at: &u32| !records.packs[*at as usize].is_unreadable;
    let all = 0..records.packs.len() as u32;
    let mut packs: Vec<u32> = all.filter(has_content).filter(is_readable).collect();
    let unused = |at: u32| uses[at as usize].unused_bytes;
    let used = |at: u32| uses[at as usize].bytes;
    let mut left_unused: u64 = packs.iter().map(|&at| unused(at)).sum();
    let total: u64 = packs.iter().map(|&at| used(at)).sum();
    packs.sort_by_key(|&at| {
        let all = (unused(at) + used(at)).max(1);
        (std::cmp::Reverse(unused(at) * 1000 / all), at)
    });
    let mut take = |at: u32| {
        let left = budget.checked_sub(used(at));
        *budget = left.unwrap_or(*budget);
        left.is_some()
    };
    for &at in &packs {
        // What holds only records that move costs nothing more.
        let is_empty = uses[at as usize].records == 0;
        let is_due = left_unused > share(total, limits) && unused(at) > 0;
        if (is_empty || is_due) && take(at) {
            left_unused -= unused(at);
            work.rewrite.insert(at);
        }
    }
    let is_tiny = |at: &&u32| {
        records.packs[**at as usize].bytes.stored_bytes < TINY_BYTES && !work.rewrite.contains(at)
    };
    let mut tiny: Vec<u32> = packs.iter().filter(is_tiny).copied().collect();
    if tiny.len() > TINY_MAX {
        tiny.sort_by_key(|&at| used(at));
        work.rewrite
            .extend(tiny.into_iter().take_while(|&at| take(at)));
    }
}

fn share(bytes: u64, limits: &Limits) -> u64 {
    let permille = u128::from(bytes) * u128::from(limits.unused_permille) / 1000;
    u64::try_from(permille).unwrap_or(u64::MAX)
}
