//! Building the new tree: entries come in order, leaves and inner nodes go out.
//!
//! A leaf waits until the contents of its files are stored; meanwhile the scan goes on. What a file
//! really was is known only once it was read, so entries are completed here and not by the scan.

use crate::chunker::NameHasher;
use crate::error::Result;
use crate::format::pack::ChunkKind;
use crate::format::tree::Attributes;
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
use crate::ops::backup::large::LargeFiles;
use crate::ops::backup::parent::Parent;
use crate::ops::backup::pool::Job;
use crate::ops::backup::pool::Pool;
use crate::ops::backup::pool::Ticket;
use crate::ops::backup::read::SmallFile;
use crate::ops::backup::seen::Fingerprint;
use crate::ops::backup::seen::SeenWriter;
use crate::ops::backup::stream::PendingStream;
use crate::source::files::Problem;
use crate::source::files::Stat;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;

/// A leaf ends before a name whose hash has these bits zero.
const LEAF_MASK: u64 = 0x1ff;
/// An inner node ends before a leaf whose first name has these bits zero too.
const INNER_MASK: u64 = 0x7f << 16;
const INNER_CHILDREN_MIN: usize = 16;
const INNER_CHILDREN_MAX: usize = 1024;
/// Extended attributes of one leaf are no longer: it must fit a chunk.
const XATTR_BYTES_MAX: usize = 8 << 20;
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
    entries: Vec<NewEntry<'a>>,
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
        // About what the row takes; the exact length is not needed to cut where names say so.
        let xattrs = new.entry.attributes.xattrs.iter();
        let xattr_bytes: usize = xattrs
            .map(|(name, value)| name.len() + value.len() + 4)
            .sum();
        self.row_bytes += new.entry.path.len() / 2 + 24 + xattr_bytes;
        self.entries.push(new);
        Ok(())
    }

    fn end_leaf(&mut self, pool: &mut Pool) -> Result<()> {
        self.row_bytes = 0;
        let entries = std::mem::take(&mut self.entries);
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
        let PendingLeaf {
            mut entries,
            bundles,
        } = pending;
        let mut leaf = Leaf::default();
        let mut is_gone = vec![false; entries.len()];
        for bundle in bundles {
            let (ticket, members, class) = match bundle {
                PendingBundle::Reused(bundle) => {
                    leaf.bundles.push(bundle);
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
                let new = &mut entries[member];
                let scanned = new.fingerprint;
                let completed = complete_small(pool, totals, large, new, file)?;
                if !scanned.is_same_node(&new.fingerprint) {
                    self.moved.insert(new.entry.path.clone(), None);
                }
                match completed {
                    Completed::InBundle => files += 1,
                    Completed::Elsewhere => {}
                    Completed::Gone => is_gone[member] = true,
                }
            }
            if files > 0 {
                leaf.bundles.push(Bundle {
                    id: done.id,
                    files,
                    class,
                });
            }
        }
        let mut xattr_bytes = 0;
        for (mut new, is_gone) in entries.into_iter().zip(is_gone) {
            bound_xattrs(totals, &mut new.entry, &mut xattr_bytes);
            match is_gone {
                true => drop(self.moved.insert(new.entry.path, None)),
                false => self.complete_entry(pool, totals, large, &mut leaf, new)?,
            }
        }
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
        let Some(file) = large.read(pool, totals, &new.entry.path, None)? else {
            return Ok(Completed::Gone);
        };
        let found = Fingerprint::of(&file.stat);
        if found.is_same_node(&new.fingerprint) {
            let here = Some((new.entry.path.clone(), found));
            self.moved.insert(std::mem::take(first), here);
        }
        new.entry.kind = Kind::File {
            size_bytes: 0,
            content: Content::Bundled(Class::Ordinary),
        };
        enter(new, &file.stat, file.xattrs);
        new.content = NewContent::Stream(Box::new(file.stream));
        Ok(Completed::Elsewhere)
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

/// Leaves out extended attributes that would make the leaf longer than a chunk may be.
fn bound_xattrs(totals: &mut Totals, entry: &mut Entry, xattr_bytes: &mut usize) {
    let xattrs = entry.attributes.xattrs.iter();
    *xattr_bytes += xattrs
        .map(|(name, value)| name.len() + value.len())
        .sum::<usize>();
    if *xattr_bytes <= XATTR_BYTES_MAX || entry.attributes.xattrs.is_empty() {
        return;
    }
    totals.warnings.push(Problem {
        path: entry.path.clone(),
        code: "xattr",
        message: "its extended attributes are left out: there are too many around here".into(),
    });
    let xattrs = Vec::new();
    entry.attributes = Arc::new(Attributes {
        xattrs,
        ..*entry.attributes
    });
}

enum Completed {
    InBundle,
    Elsewhere,
    Gone,
}

/// Enters what a small file was when it was read.
fn complete_small<'a>(
    pool: &mut Pool,
    totals: &mut Totals,
    large: &mut LargeFiles<'a>,
    new: &mut NewEntry<'a>,
    file: Option<SmallFile>,
) -> Result<Completed> {
    match file {
        None => Ok(Completed::InBundle),
        Some(SmallFile::Read {
            stat,
            xattrs,
            size_bytes,
            problem,
        }) => {
            totals.warnings.extend(problem);
            enter(new, &stat, xattrs);
            if let Kind::File {
                size_bytes: entered,
                ..
            } = &mut new.entry.kind
            {
                *entered = size_bytes;
            }
            Ok(Completed::InBundle)
        }
        Some(SmallFile::Grown) => match large.read(pool, totals, &new.entry.path, None)? {
            Some(file) => {
                enter(new, &file.stat, file.xattrs);
                new.content = NewContent::Stream(Box::new(file.stream));
                Ok(Completed::Elsewhere)
            }
            None => Ok(Completed::Gone),
        },
        Some(SmallFile::Failed(problem)) => {
            totals.warnings.push(problem);
            Ok(Completed::Gone)
        }
    }
}

fn enter(new: &mut NewEntry<'_>, stat: &Stat, xattrs: Vec<(Vec<u8>, Vec<u8>)>) {
    let (mode, uid, gid) = (stat.mode, stat.uid, stat.gid);
    let attributes = Attributes {
        mode,
        uid,
        gid,
        xattrs,
    };
    if *new.entry.attributes != attributes {
        new.entry.attributes = Arc::new(attributes);
    }
    new.entry.modified = crate::ops::backup::scan::file_time(stat);
    new.fingerprint = Fingerprint::of(stat);
}
