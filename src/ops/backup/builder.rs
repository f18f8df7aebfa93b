//! Building the new tree: entries come in order, leaves and inner nodes go out.
//!
//! A leaf waits until the contents of its files are stored; meanwhile the scan goes on. What a file
//! really was is known only once it was read, so entries are completed here and not by the scan.

use crate::chunker::NameHasher;
use crate::error::Result;
use crate::format::pack::ChunkKind;
use crate::format::tree::Bundle;
use crate::format::tree::Class;
use crate::format::tree::Content;
use crate::format::tree::Entry;
use crate::format::tree::Inner;
use crate::format::tree::Kind;
use crate::format::tree::LEAF_BYTES_MAX;
use crate::format::tree::LEAF_BYTES_MIN;
use crate::format::tree::Leaf;
use crate::format::tree::TreeRoot;
use crate::ops::backup::Totals;
use crate::ops::backup::bundle;
use crate::ops::backup::bundle::OldPlace;
use crate::ops::backup::bundle::SmallItem;
use crate::ops::backup::complete;
use crate::ops::backup::complete::Completed;
use crate::ops::backup::large::LargeFiles;
use crate::ops::backup::parent::Parent;
use crate::ops::backup::pending::PendingStream;
use crate::ops::backup::pool::Job;
use crate::ops::backup::pool::Pool;
use crate::ops::backup::pool::Ticket;
use crate::ops::backup::seen::Fingerprint;
use crate::ops::backup::seen::SeenWriter;
use std::collections::HashMap;
use std::collections::VecDeque;

/// A leaf ends before a name whose hash has these bits zero.
const LEAF_MASK: u64 = 0x1ff;
/// A leaf that turns out to be this much longer than it should is divided, wherever it may be.
const LEAF_BYTES_HEAVY: usize = 4 << 20;
/// An inner node ends before a leaf whose first name has these bits zero too.
const INNER_MASK: u64 = 0x7f << 16;
const INNER_CHILDREN_MIN: usize = 16;
const INNER_CHILDREN_MAX: usize = 1024;
/// Leaves that may wait for contents before the scan waits for the first of them.
const LEAVES_AHEAD_MAX: usize = 4;

/// An entry on its way into the tree.
pub(super) struct NewEntry<'a> {
    pub entry: Entry,
    pub fingerprint: Fingerprint,
    pub content: NewContent<'a>,
    /// Whether the parent has another version: for the figures.
    pub known: Known,
}

/// How an entry compares with the parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    New,
    Changed,
    Same,
}

/// What is still missing of an entry.
pub(super) enum NewContent<'a> {
    /// Nothing.
    Complete,
    /// A small file: it goes into a bundle.
    Small {
        old: Option<OldPlace>,
        unchanged: bool,
    },
    /// A large file whose chunks are on their way.
    Stream(Box<PendingStream<'a>>),
}

struct PendingLeaf<'a> {
    /// `None` for what is gone.
    entries: Vec<Option<NewEntry<'a>>>,
    bundles: Vec<PendingBundle>,
}

enum PendingBundle {
    Reused(Bundle),
    Made {
        ticket: Ticket,
        entries: Vec<usize>,
        class: Class,
    },
}

/// The tree so far.
pub(super) struct Builder<'a> {
    names: NameHasher,
    entries: Vec<NewEntry<'a>>,
    small: Vec<SmallItem>,
    row_bytes: usize,
    pending: VecDeque<PendingLeaf<'a>>,
    /// First path of each node that has no parent yet, by level, with its chunk.
    levels: Vec<Vec<(Vec<u8>, Ticket)>>,
    seen: Option<SeenWriter>,
    /// Paths at which not the file was found that the scan saw there, and where it was instead.
    moved: HashMap<Vec<u8>, Option<(Vec<u8>, Fingerprint)>>,
}

impl<'a> Builder<'a> {
    pub(super) fn begin(cut_key: &[u8; 32], seen: Option<SeenWriter>) -> Builder<'a> {
        Builder {
            names: NameHasher::new(cut_key),
            entries: Vec::new(),
            small: Vec::new(),
            row_bytes: 0,
            pending: VecDeque::new(),
            levels: Vec::new(),
            seen,
            moved: HashMap::new(),
        }
    }

    /// Takes the next entry in order.
    pub(super) fn push(
        &mut self,
        pool: &mut Pool,
        totals: &mut Totals,
        parent: &mut Parent<'_>,
        large: &mut LargeFiles<'a>,
        new: NewEntry<'a>,
    ) -> Result<()> {
        let hash = self.names.hash(&new.entry.path);
        let by_name = self.row_bytes >= LEAF_BYTES_MIN && hash & LEAF_MASK == 0;
        if by_name || self.row_bytes >= LEAF_BYTES_MAX {
            self.end_leaf(pool)?;
            self.settle(pool, totals, parent, large, LEAVES_AHEAD_MAX)?;
        }
        if let (NewContent::Small { old, unchanged }, Some(class), Kind::File { size_bytes, .. }) =
            (&new.content, new.entry.class(), &new.entry.kind)
        {
            self.small.push(SmallItem {
                entry: self.entries.len(),
                path: new.entry.path.clone(),
                size_bytes: *size_bytes,
                class,
                name_hash: hash,
                old: *old,
                unchanged: *unchanged,
            });
        }
        self.row_bytes += complete::row_bytes(&new.entry);
        self.entries.push(new);
        Ok(())
    }

    fn end_leaf(&mut self, pool: &mut Pool) -> Result<()> {
        self.row_bytes = 0;
        let entries = std::mem::take(&mut self.entries);
        let entries = entries.into_iter().map(Some).collect();
        let mut bundles = Vec::new();
        for group in bundle::group(std::mem::take(&mut self.small)) {
            bundles.push(match bundle::reusable(&group) {
                Some(bundle) => PendingBundle::Reused(bundle),
                None => PendingBundle::Made {
                    ticket: pool.submit(Job::Bundle(bundle::job(&group)))?,
                    entries: group.iter().map(|item| item.entry).collect(),
                    class: group[0].class,
                },
            });
        }
        self.pending.push_back(PendingLeaf { entries, bundles });
        Ok(())
    }

    fn settle(
        &mut self,
        pool: &mut Pool,
        totals: &mut Totals,
        parent: &mut Parent<'_>,
        large: &mut LargeFiles<'a>,
        most: usize,
    ) -> Result<()> {
        while self.pending.len() > most {
            let Some(leaf) = self.pending.pop_front() else {
                break;
            };
            self.complete_leaf(pool, totals, parent, large, leaf)?;
        }
        Ok(())
    }

    fn complete_leaf(
        &mut self,
        pool: &mut Pool,
        totals: &mut Totals,
        parent: &mut Parent<'_>,
        large: &mut LargeFiles<'a>,
        pending: PendingLeaf<'a>,
    ) -> Result<()> {
        let mut entries = pending.entries;
        let mut leaf = Leaf {
            bundles: self.complete_bundles(pool, totals, large, &mut entries, pending.bundles)?,
            entries: Vec::new(),
        };
        let weigh = |entries: &[Option<NewEntry<'_>>]| {
            complete::weights(entries.iter().flatten().map(|new| &new.entry))
        };
        let mut weights = weigh(&entries);
        if weights.iter().sum::<usize>() > LEAF_BYTES_HEAVY {
            // It must be divided, and bundles cannot be: each file stands alone.
            leaf.bundles.clear();
            for slot in &mut entries {
                self.take_from_bundle(pool, totals, large, slot)?;
            }
            weights = weigh(&entries);
        }
        let mut bytes = 0;
        for (new, weight) in entries.into_iter().flatten().zip(weights) {
            bytes += weight;
            if bytes > LEAF_BYTES_HEAVY {
                self.store_leaf(pool, totals, parent, std::mem::take(&mut leaf))?;
                bytes = weight;
            }
            self.complete_entry(pool, totals, large, &mut leaf, new)?;
        }
        self.store_leaf(pool, totals, parent, leaf)
    }

    /// Waits for the bundles of a leaf and enters what the files were. Those that are gone are
    /// taken out.
    fn complete_bundles(
        &mut self,
        pool: &mut Pool,
        totals: &mut Totals,
        large: &mut LargeFiles<'a>,
        entries: &mut [Option<NewEntry<'a>>],
        pending: Vec<PendingBundle>,
    ) -> Result<Vec<Bundle>> {
        let mut bundles = Vec::new();
        for bundle in pending {
            let (ticket, members, class) = match bundle {
                PendingBundle::Reused(bundle) => {
                    bundles.push(bundle);
                    continue;
                }
                PendingBundle::Made {
                    ticket,
                    entries,
                    class,
                } => (ticket, entries, class),
            };
            let done = pool.wait_bundle(ticket)?;
            totals.count_stored(done.plain_bytes, done.stored_bytes);
            totals.figures.read_bytes += done.read_bytes;
            let mut files = 0;
            for (&member, file) in members.iter().zip(done.files) {
                let complete = |new: &mut _| complete::small(pool, totals, large, new, file);
                if let Completed::InBundle = self.complete_file(&mut entries[member], complete)? {
                    files += 1;
                }
            }
            if files > 0 {
                bundles.push(Bundle {
                    id: done.id,
                    files,
                    class,
                });
            }
        }
        Ok(bundles)
    }

    fn take_from_bundle(
        &mut self,
        pool: &mut Pool,
        totals: &mut Totals,
        large: &mut LargeFiles<'a>,
        slot: &mut Option<NewEntry<'a>>,
    ) -> Result<()> {
        let is_small = |new: &NewEntry<'_>| matches!(new.content, NewContent::Small { .. });
        if slot.as_ref().is_some_and(is_small) {
            self.complete_file(slot, |new| complete::stream(pool, totals, large, new))?;
        }
        Ok(())
    }

    /// Completes a file by reading it, and notes if it was not the one that the scan saw there.
    fn complete_file(
        &mut self,
        slot: &mut Option<NewEntry<'a>>,
        complete: impl FnOnce(&mut NewEntry<'a>) -> Result<Completed>,
    ) -> Result<Completed> {
        let Some(new) = slot else {
            return Ok(Completed::Gone);
        };
        let scanned = new.fingerprint;
        let completed = complete(new)?;
        let is_gone = matches!(completed, Completed::Gone);
        if is_gone || !scanned.is_same_node(&new.fingerprint) {
            self.moved.insert(new.entry.path.clone(), None);
        }
        if is_gone {
            *slot = None;
        }
        Ok(completed)
    }

    fn store_leaf(
        &mut self,
        pool: &mut Pool,
        totals: &mut Totals,
        parent: &mut Parent<'_>,
        leaf: Leaf,
    ) -> Result<()> {
        let Some(first) = leaf.entries.first() else {
            return Ok(());
        };
        let first_path = first.path.clone();
        let plain = leaf.encode();
        let predecessor = parent.leaf_at(&first_path);
        let ticket = pool.submit_chunk(ChunkKind::Tree, plain, predecessor)?;
        self.push_node(pool, totals, parent, 0, (first_path, ticket))
    }

    fn complete_entry(
        &mut self,
        pool: &mut Pool,
        totals: &mut Totals,
        large: &mut LargeFiles<'a>,
        leaf: &mut Leaf,
        mut new: NewEntry<'a>,
    ) -> Result<()> {
        if let Completed::Gone = self.complete_link(pool, totals, large, &mut new)? {
            return Ok(());
        }
        let NewEntry {
            mut entry,
            fingerprint,
            content,
            known,
        } = new;
        if let (
            NewContent::Stream(stream),
            Kind::File {
                content,
                size_bytes,
            },
        ) = (content, &mut entry.kind)
        {
            *size_bytes = stream.size_bytes;
            *content = Content::Stream(stream.finish(pool, totals)?);
        }
        totals.count_entry(&entry, known);
        if let Some(seen) = &mut self.seen
            && seen.push(Some(&fingerprint)).is_err()
        {
            self.seen = None;
        }
        leaf.entries.push(entry);
        Ok(())
    }

    /// Reads a further name of a file that turned out not to be under its first one any more.
    fn complete_link(
        &mut self,
        pool: &mut Pool,
        totals: &mut Totals,
        large: &mut LargeFiles<'a>,
        new: &mut NewEntry<'a>,
    ) -> Result<Completed> {
        let Kind::HardLink { path: first } = &mut new.entry.kind else {
            return Ok(Completed::Elsewhere);
        };
        match self.moved.get(first) {
            None => return Ok(Completed::Elsewhere),
            Some(Some((path, node))) if node.is_same_node(&new.fingerprint) => {
                first.clone_from(path);
                return Ok(Completed::Elsewhere);
            }
            Some(_) => {}
        }
        let first = std::mem::take(first);
        let scanned = new.fingerprint;
        let completed = complete::stream(pool, totals, large, new)?;
        if matches!(completed, Completed::Elsewhere) && scanned.is_same_node(&new.fingerprint) {
            let here = Some((new.entry.path.clone(), scanned));
            self.moved.insert(first, here);
        }
        Ok(completed)
    }

    fn push_node(
        &mut self,
        pool: &mut Pool,
        totals: &mut Totals,
        parent: &Parent<'_>,
        level: usize,
        node: (Vec<u8>, Ticket),
    ) -> Result<()> {
        if self.levels.len() == level {
            self.levels.push(Vec::new());
        }
        let children = self.levels[level].len();
        let hash = self.names.hash(&node.0);
        // Every level looks at other bits, or all levels would end where the lowest ends.
        let by_name = (hash.rotate_right(7 * level as u32)) & INNER_MASK == 0;
        if children >= INNER_CHILDREN_MAX || (children >= INNER_CHILDREN_MIN && by_name) {
            self.end_inner(pool, totals, parent, level)?;
        }
        self.levels[level].push(node);
        Ok(())
    }

    fn end_inner(
        &mut self,
        pool: &mut Pool,
        totals: &mut Totals,
        parent: &Parent<'_>,
        level: usize,
    ) -> Result<()> {
        let mut children = Vec::new();
        for (path, ticket) in std::mem::take(&mut self.levels[level]) {
            let stored = pool.wait_chunk(ticket)?;
            totals.count_record(stored.stored_bytes);
            children.push((path, stored.id));
        }
        let Some((first_path, _)) = children.first().cloned() else {
            return Ok(());
        };
        let inner = Inner {
            level: level as u8 + 1,
            children,
        };
        let predecessor = parent.inner_at(inner.level, &first_path);
        let ticket = pool.submit_chunk(ChunkKind::Tree, inner.encode(), predecessor)?;
        self.push_node(pool, totals, parent, level + 1, (first_path, ticket))
    }

    /// Waits for everything and returns the root. A tree has at least its own root directory.
    pub(super) fn finish(
        mut self,
        pool: &mut Pool,
        totals: &mut Totals,
        parent: &mut Parent<'_>,
        large: &mut LargeFiles<'a>,
    ) -> Result<(TreeRoot, Option<SeenWriter>)> {
        self.end_leaf(pool)?;
        self.settle(pool, totals, parent, large, 0)?;
        let mut level = 0;
        loop {
            let above = self
                .levels
                .iter()
                .skip(level + 1)
                .map(Vec::len)
                .sum::<usize>();
            let here = self.levels.get(level).map_or(0, Vec::len);
            if above == 0 && here <= 1 {
                let ticket = match self.levels.get_mut(level).and_then(Vec::pop) {
                    Some((_, ticket)) => ticket,
                    // Nothing could be read at all: an empty leaf says so.
                    None => pool.submit_chunk(ChunkKind::Tree, Leaf::default().encode(), None)?,
                };
                let stored = pool.wait_chunk(ticket)?;
                totals.count_record(stored.stored_bytes);
                return Ok((
                    TreeRoot {
                        id: stored.id,
                        level: level as u8,
                    },
                    self.seen,
                ));
            }
            if here > 0 {
                self.end_inner(pool, totals, parent, level)?;
            }
            level += 1;
        }
    }
}
