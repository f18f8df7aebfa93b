//! Checks that what snapshots name is there: inner nodes, leaves, lists, chunks, and that lengths
//! agree all the way down.
//!
//! Each node is read once per run, however many snapshots share it. What was seen is held in
//! memory: about 100 bytes for each distinct leaf and 80 for each list node, so some 30 MB for a
//! thousand snapshots of a tree with a million files of which few change. Chunks of data are looked
//! up each time they are listed; remembering them would cost more than asking again.

use crate::context::Context;
use crate::context::Event;
use crate::error::Error;
use crate::error::Result;
use crate::format::list::Children;
use crate::format::list::Flavour;
use crate::format::list::HOLE;
use crate::format::list::ListNode;
use crate::format::list::Stream;
use crate::format::list::StreamKind;
use crate::format::manifest::Manifest;
use crate::format::pack::ChunkKind;
use crate::format::tree::Content;
use crate::format::tree::Kind;
use crate::format::tree::Leaf;
use crate::format::tree::Node;
use crate::format::tree::path_order;
use crate::id::ChunkId;
use crate::id::PackId;
use crate::id::SnapshotId;
use crate::ops::check::CheckReport;
use crate::ops::check::findings::Cause;
use crate::ops::check::findings::Findings;
use crate::ops::check::findings::Reached;
use crate::ops::check::for_each;
use crate::ops::check::overlaps::ExtentEnds;
use crate::ops::check::overlaps::Overlaps;
use crate::ops::check::packs;
use crate::ops::check::packs::Damaged;
use crate::repo::chunks::Chunks;
use crate::repo::chunks::Scratch;
use crate::repo::index::Record;
use crate::repo::stream;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// What is wrong below a list node; nothing mostly.
type Causes = Arc<BTreeSet<Cause>>;

/// A node of a stream as its parent describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Listed {
    id: ChunkId,
    level: u8,
    plain_bytes: u64,
    /// How long the file is, if chunks hold extents of it.
    scattered: Option<u64>,
}

/// A tree node, the first path its parent gives it, and the one the next node begins with.
struct TreeNode {
    id: ChunkId,
    level: u8,
    first: Vec<u8>,
    end: Option<Vec<u8>>,
}

pub(super) struct Trees<'a> {
    cx: &'a Context,
    chunks: &'a Chunks<'a>,
    findings: &'a Findings,
    /// `None` while there is no reason to doubt any record.
    damaged: Option<Damaged>,
    overlaps: Overlaps<'a>,
    records: Mutex<HashMap<(PackId, u32), Option<Cause>>>,
    lists: Mutex<HashMap<Listed, Causes>>,
    clean: Causes,
}

impl<'a> Trees<'a> {
    pub(super) fn new(
        cx: &'a Context,
        chunks: &'a Chunks<'a>,
        findings: &'a Findings,
        (damaged, extent_ends): (Option<Damaged>, ExtentEnds),
    ) -> Trees<'a> {
        Trees {
            cx,
            chunks,
            findings,
            damaged,
            overlaps: Overlaps::new(chunks, findings, extent_ends),
            records: Mutex::default(),
            lists: Mutex::default(),
            clean: Causes::default(),
        }
    }

    /// Checks everything the snapshots reach.
    pub(super) fn check(
        &self,
        snapshots: &[(SnapshotId, Manifest)],
        report: &mut CheckReport,
    ) -> Result<()> {
        let leaves = self.leaves(snapshots)?;
        report.leaves = leaves.len() as u64;
        let files = report.leaves;
        self.cx.progress.event(Event::Total { files, bytes: 0 });
        for_each(self.cx, &leaves, |node, scratch| {
            self.leaf(scratch, node);
            self.cx.progress.event(Event::Done { files: 1, bytes: 0 });
            Ok(())
        })?;
        report.lists = lock(&self.lists).len() as u64;
        report.has_unchecked_extents = self.overlaps.ends.is_cut();
        Ok(())
    }

    /// Reads the inner nodes of all trees and returns the distinct leaves below them.
    fn leaves(&self, snapshots: &[(SnapshotId, Manifest)]) -> Result<Vec<TreeNode>> {
        let mut scratch = Scratch::default();
        let mut seen = HashSet::new();
        let mut leaves = Vec::new();
        for (_, manifest) in snapshots {
            let mut ahead = vec![TreeNode {
                id: manifest.tree.id,
                level: manifest.tree.level,
                first: Vec::new(),
                end: None,
            }];
            while let Some(node) = ahead.pop() {
                self.cx.check()?;
                if !seen.insert(node.id) {
                    continue;
                }
                if node.level == 0 {
                    leaves.push(node);
                    continue;
                }
                match self.children(&mut scratch, &node) {
                    Ok(children) => ahead.extend(children),
                    Err(error) => self.lose(&node, &error),
                }
            }
        }
        Ok(leaves)
    }

    fn children(&self, scratch: &mut Scratch, node: &TreeNode) -> Result<Vec<TreeNode>> {
        let Node::Inner(inner) = self.node(scratch, node)? else {
            return Err(contradiction(node, "its level contradicts its parent"));
        };
        if inner.level != node.level {
            return Err(contradiction(node, "its level contradicts its parent"));
        }
        let firsts: Vec<Vec<u8>> = inner
            .children
            .iter()
            .map(|(path, _)| path.clone())
            .collect();
        check_bounds(node, firsts.first(), firsts.last())?;
        let ends = firsts
            .into_iter()
            .skip(1)
            .map(Some)
            .chain([node.end.clone()]);
        let children = inner.children.into_iter().zip(ends);
        let child = |((first, id), end)| TreeNode {
            id,
            level: node.level - 1,
            first,
            end,
        };
        Ok(children.map(child).collect())
    }

    fn leaf(&self, scratch: &mut Scratch, node: &TreeNode) {
        let leaf = match self.node(scratch, node) {
            Ok(Node::Leaf(leaf)) => leaf,
            Ok(Node::Inner(_)) => {
                let error = contradiction(node, "its level contradicts its parent");
                return self.lose(node, &error);
            }
            Err(error) => return self.lose(node, &error),
        };
        let first = leaf.entries.first().map(|entry| &entry.path);
        let last = leaf.entries.last().map(|entry| &entry.path);
        if let Err(error) = check_bounds(node, first, last) {
            self.lose(node, &error);
        }
        self.bundles(node, &leaf);
        for entry in &leaf.entries {
            let Kind::File {
                size_bytes,
                content: Content::Stream(stream),
            } = &entry.kind
            else {
                continue;
            };
            let causes = self.stream(scratch, stream, *size_bytes);
            for cause in causes.iter() {
                self.findings.affects(cause, &node.id, &entry.path);
            }
            if causes.is_empty()
                && let Some(cause) = self.overlaps.find(scratch, stream, *size_bytes)
            {
                self.findings.affects(&cause, &node.id, &entry.path);
            }
        }
    }

    /// Checks that every bundle of a leaf is there and as long as the files in it.
    fn bundles(&self, node: &TreeNode, leaf: &Leaf) {
        let places = leaf.places();
        let mut sums = vec![0_u64; leaf.bundles.len()];
        for place in places.iter().flatten() {
            sums[place.bundle] = sums[place.bundle].saturating_add(place.size_bytes);
        }
        for (number, (bundle, sum)) in leaf.bundles.iter().zip(sums).enumerate() {
            // Nobody reads the content of nothing but empty files.
            let cause = (sum > 0)
                .then(|| self.chunk(&bundle.id, sum, None))
                .flatten();
            let Some(cause) = cause else { continue };
            for (entry, place) in leaf.entries.iter().zip(&places) {
                if place.is_some_and(|place| place.bundle == number && place.size_bytes > 0) {
                    self.findings.affects(&cause, &node.id, &entry.path);
                }
            }
        }
    }

    fn stream(&self, scratch: &mut Scratch, stream: &Stream, size_bytes: u64) -> Causes {
        let root = Listed {
            id: stream.root,
            level: stream.level,
            plain_bytes: stream.plain_bytes(size_bytes),
            scattered: matches!(stream.kind, StreamKind::Redb { .. }).then_some(size_bytes),
        };
        match root.plain_bytes {
            0 => Arc::clone(&self.clean),
            _ => self.list(scratch, &stream.flavour, root),
        }
    }

    fn list(&self, scratch: &mut Scratch, flavour: &Flavour, listed: Listed) -> Causes {
        if listed.id == HOLE && listed.scattered.is_none() {
            return Arc::clone(&self.clean);
        }
        if listed.level == 0 || listed.id == HOLE {
            return match self.chunk(&listed.id, listed.plain_bytes, listed.scattered) {
                None => Arc::clone(&self.clean),
                Some(cause) => Arc::new(BTreeSet::from([cause])),
            };
        }
        // A flavour is not part of the name, but a node that is read as another one is refused.
        if let Some(known) = lock(&self.lists).get(&listed) {
            return Arc::clone(known);
        }
        let causes = match self.list_children(scratch, flavour, &listed) {
            Ok(children) => {
                let mut all = BTreeSet::new();
                for child in children {
                    let causes = self.list(scratch, flavour, child);
                    all.extend(causes.iter().cloned());
                }
                all
            }
            Err(error) => BTreeSet::from([self.findings.error(&error)]),
        };
        let causes = match causes.is_empty() {
            true => Arc::clone(&self.clean),
            false => Arc::new(causes),
        };
        lock(&self.lists).insert(listed, Arc::clone(&causes));
        causes
    }

    fn list_children(
        &self,
        scratch: &mut Scratch,
        flavour: &Flavour,
        listed: &Listed,
    ) -> Result<Vec<Listed>> {
        let name = || format!("list {}", listed.id);
        let wrong = || Error::corrupt(name(), "its lengths contradict the stream");
        let bytes = self.chunks.read(scratch, ChunkKind::List, &listed.id)?;
        let node = ListNode::decode(&bytes).map_err(|malformed| malformed.of(name()))?;
        scratch.recycle(bytes);
        scratch.touched.clear();
        let level = listed.level - 1;
        let children: Vec<Listed> = match (node.children, flavour) {
            _ if node.level != listed.level => return Err(wrong()),
            (Children::Cut(children), Flavour::Cut)
            | (Children::Marked(children), Flavour::Marked) => {
                let child = |child: &crate::format::list::Child| Listed {
                    id: child.id,
                    level,
                    plain_bytes: child.plain_bytes,
                    scattered: listed.scattered,
                };
                children.iter().map(child).collect()
            }
            (Children::Even { unit_bytes, ids }, Flavour::Even { unit_bytes: unit })
                if unit_bytes == *unit =>
            {
                let per_child = stream::even_child_bytes(*unit, listed.level);
                let mut left = listed.plain_bytes;
                let mut child = |id| {
                    let plain_bytes = left.min(per_child);
                    left -= plain_bytes;
                    Listed {
                        id,
                        level,
                        plain_bytes,
                        scattered: listed.scattered,
                    }
                };
                ids.into_iter().map(&mut child).collect()
            }
            _ => return Err(wrong()),
        };
        let sum = children.iter().try_fold(0_u64, |sum, child| {
            (child.plain_bytes > 0).then(|| sum.checked_add(child.plain_bytes))?
        });
        match sum == Some(listed.plain_bytes) {
            true => Ok(children),
            false => Err(wrong()),
        }
    }

    /// Returns why a chunk of data cannot be read, as far as can be told without reading it.
    fn chunk(&self, id: &ChunkId, plain_bytes: u64, scattered: Option<u64>) -> Option<Cause> {
        let wrong = |reason: String| {
            let cause = Cause::Object(format!("chunk {id}"));
            self.findings.note(&cause, reason);
            Some(cause)
        };
        if *id == HOLE {
            return wrong("a stream of extents has a hole".to_string());
        }
        let mut cause = Cause::Lost;
        for record in self.chunks.find(id) {
            match self.record(&record) {
                None if u64::from(record.plain_bytes) == plain_bytes => {
                    let ends = &self.overlaps.ends;
                    let reason = scattered.and_then(|size| ends.wrong(id, &record.pack, size))?;
                    return wrong(reason.to_string());
                }
                None => {
                    let length = record.plain_bytes;
                    let reason = format!("it has {length} bytes where {plain_bytes} are listed");
                    return wrong(reason);
                }
                Some(why) => cause = why,
            }
        }
        if cause == Cause::Lost {
            self.findings.lost_chunk(id);
        }
        Some(cause)
    }

    /// Returns why a record cannot be decoded. Ends because heights fall (I13).
    fn record(&self, record: &Record) -> Option<Cause> {
        let damaged = self.damaged.as_ref()?;
        let place = (record.pack, record.offset);
        if let Some(cause) = damaged.get(&place) {
            return Some(cause.clone());
        }
        if let Some(known) = lock(&self.records).get(&place) {
            return known.clone();
        }
        let cause = match self.chunks.bases(record) {
            Err(error) => Some(packs::quietly(&error)),
            Ok(bases) => bases.iter().find_map(|base| {
                let mut cause = Some(Cause::Lost);
                for candidate in self.chunks.find_base(base, record.height) {
                    cause = self.record(&candidate);
                    if cause.is_none() {
                        break;
                    }
                }
                cause
            }),
        };
        lock(&self.records).insert(place, cause.clone());
        cause
    }

    fn node(&self, scratch: &mut Scratch, node: &TreeNode) -> Result<Node> {
        let bytes = self.chunks.read(scratch, ChunkKind::Tree, &node.id)?;
        let decoded = Node::decode(&bytes);
        scratch.recycle(bytes);
        scratch.touched.clear();
        decoded.map_err(|malformed| malformed.of(format!("tree node {}", node.id)))
    }

    /// Notes a node that cannot be used, under the first path it should have.
    fn lose(&self, node: &TreeNode, error: &Error) {
        let cause = self.findings.error(error);
        self.findings.affects(&cause, &node.id, &node.first);
    }

    /// Returns which snapshots reach each tree node at which something is wrong. Reads inner nodes
    /// again, once each; with nothing wrong, none.
    pub(super) fn attribute(&self, snapshots: &[(SnapshotId, Manifest)]) -> Result<Reached> {
        let bad = self.findings.nodes();
        let mut reached = Reached::new();
        if bad.is_empty() {
            return Ok(reached);
        }
        let mut scratch = Scratch::default();
        let mut known = HashMap::new();
        for (snapshot, manifest) in snapshots {
            let root = TreeNode {
                id: manifest.tree.id,
                level: manifest.tree.level,
                first: Vec::new(),
                end: None,
            };
            for node in self
                .bad_below(&mut scratch, &bad, &mut known, &root)?
                .iter()
            {
                reached.entry(*node).or_default().insert(*snapshot);
            }
        }
        Ok(reached)
    }

    fn bad_below(
        &self,
        scratch: &mut Scratch,
        bad: &HashSet<ChunkId>,
        known: &mut HashMap<ChunkId, Arc<HashSet<ChunkId>>>,
        node: &TreeNode,
    ) -> Result<Arc<HashSet<ChunkId>>> {
        self.cx.check()?;
        if let Some(known) = known.get(&node.id) {
            return Ok(Arc::clone(known));
        }
        let mut found = HashSet::new();
        if bad.contains(&node.id) {
            found.insert(node.id);
        }
        // What cannot be read is bad itself.
        let children = match node.level {
            0 => Vec::new(),
            _ => self.children(scratch, node).unwrap_or_default(),
        };
        for child in &children {
            match child.level {
                0 if bad.contains(&child.id) => {
                    found.insert(child.id);
                }
                0 => {}
                _ => found.extend(self.bad_below(scratch, bad, known, child)?.iter()),
            }
        }
        let found = Arc::new(found);
        known.insert(node.id, Arc::clone(&found));
        Ok(found)
    }
}

/// What is below a node lies between its first path and that of the next one.
fn check_bounds(node: &TreeNode, first: Option<&Vec<u8>>, last: Option<&Vec<u8>>) -> Result<()> {
    let is_low = first.is_some_and(|path| path_order(path, &node.first) == Ordering::Less);
    let is_high = node
        .end
        .as_ref()
        .is_some_and(|end| last.is_some_and(|path| path_order(path, end) != Ordering::Less));
    match is_low || is_high {
        true => Err(contradiction(
            node,
            "its paths are not where its parent says",
        )),
        false => Ok(()),
    }
}

fn contradiction(node: &TreeNode, reason: &str) -> Error {
    Error::corrupt(format!("tree node {}", node.id), reason)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
