//! Walks a snapshot and says, in postfix order, what its copy is made of.
//!
//! The copy has the shape of the original: the same chunks, lists and nodes at the same places,
//! only their ids differ (decision 0064). So what a snapshot shares with an earlier one whose copy
//! is there is found by walking the earlier one and its copy side by side, only where the new one
//! differs: the ids at the same place mean the same content.

use crate::context::Context;
use crate::error::Error;
use crate::format::list::Stream;
use crate::format::manifest::Manifest;
use crate::format::pack::ChunkKind;
use crate::format::tree::Class;
use crate::format::tree::Content;
use crate::format::tree::Inner;
use crate::format::tree::Kind;
use crate::format::tree::Leaf;
use crate::format::tree::Node;
use crate::format::tree::path_order;
use crate::id::ChunkId;
use crate::ops::copy::Fault;
use crate::ops::copy::Faulty;
use crate::ops::copy::stream::OldStream;
use crate::repo::chunks::Chunks;
use crate::repo::chunks::Scratch;
use std::collections::HashMap;

/// One step of putting a copy together: leaves an id on top of a stack.
pub(super) enum Op {
    /// The copy is there already.
    Known(ChunkId),
    /// A chunk of data, and what stood in its place in the target.
    Chunk {
        id: ChunkId,
        predecessor: Option<ChunkId>,
    },
    /// A node, which takes the ids of its children from the stack.
    Node {
        id: ChunkId,
        node: Template,
        predecessor: Option<ChunkId>,
    },
}

/// A node as it is in the source, with the ids that it has there.
pub(super) enum Template {
    List(crate::format::list::ListNode),
    Leaf(Leaf),
    Inner(Inner),
}

/// Takes the steps.
pub(super) trait Sink {
    /// Returns the copy of a node of the source.
    fn find(&self, id: &ChunkId) -> Option<ChunkId>;
    /// Is told of the copy of a node.
    fn learn(&mut self, id: ChunkId, copy: ChunkId);
    /// Takes the next step.
    fn push(&mut self, op: Op) -> Faulty<()>;
}

/// An earlier snapshot and its copy.
pub(super) struct Twin<'m> {
    pub original: &'m Manifest,
    pub copy: &'m Manifest,
}

/// A node of the tree of the earlier snapshot, and its copy.
#[derive(Clone)]
struct OldNode {
    level: u8,
    first_path: Vec<u8>,
    id: ChunkId,
    copy: ChunkId,
}

/// What the leaves of the earlier snapshot hold where the new one differs.
#[derive(Default)]
struct OldContents {
    /// Copies of bundles.
    bundles: HashMap<ChunkId, ChunkId>,
    /// The copy of the bundle that a file lay in. What is secret is no base for what is not.
    places: HashMap<Vec<u8>, (Class, ChunkId)>,
    streams: HashMap<Vec<u8>, OldStream>,
}

/// The walk.
pub(super) struct Walk<'a> {
    pub(super) cx: &'a Context,
    pub(super) source: &'a Chunks<'a>,
    /// Where the copies of earlier snapshots are.
    pub(super) target: &'a Chunks<'a>,
    pub(super) scratch: Scratch,
    pub(super) target_scratch: Scratch,
    /// Bytes of nodes of the source that were read.
    pub(super) read_bytes: u64,
    /// Something of the earlier snapshot or its copy is not as it should be: none of this counts.
    pub(super) doubt: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn begin(
        cx: &'a Context,
        source: &'a Chunks<'a>,
        target: &'a Chunks<'a>,
    ) -> Walk<'a> {
        Walk {
            cx,
            source,
            target,
            scratch: Scratch::default(),
            target_scratch: Scratch::default(),
            read_bytes: 0,
            doubt: false,
        }
    }

    /// Walks a snapshot. In the end the stack has the copy of its tree, and above it that of the
    /// records of its databases if there are any.
    pub(super) fn snapshot(
        &mut self,
        sink: &mut dyn Sink,
        manifest: &Manifest,
        twin: Option<&Twin<'_>>,
    ) -> Faulty<()> {
        let old = twin.map(|twin| (twin.original.tree, twin.copy.tree));
        let old = old.map(|(original, copy)| {
            self.doubt |= original.level != copy.level;
            sink.learn(original.id, copy.id);
            OldNode {
                level: original.level,
                first_path: Vec::new(),
                id: original.id,
                copy: copy.id,
            }
        });
        let root = manifest.tree;
        self.tree(sink, root.level, root.id, old.as_slice())?;
        let Some(id) = manifest.databases else {
            return Ok(());
        };
        let predecessor = twin.and_then(|twin| twin.copy.databases);
        let is_same = twin.is_some_and(|twin| twin.original.databases == Some(id));
        sink.push(match predecessor.filter(|_| is_same) {
            Some(copy) => Op::Known(copy),
            None => Op::Chunk { id, predecessor },
        })
    }

    fn tree(
        &mut self,
        sink: &mut dyn Sink,
        level: u8,
        id: ChunkId,
        olds: &[OldNode],
    ) -> Faulty<()> {
        if let Some(copy) = sink.find(&id) {
            return sink.push(Op::Known(copy));
        }
        self.cx.check().map_err(Fault::Source)?;
        let is_here = |old: &&OldNode| old.level == level;
        let predecessor = olds.iter().find(is_here).map(|old| old.copy);
        let inner = match self.read_tree(id, level).map_err(Fault::Source)? {
            Node::Leaf(leaf) => return self.leaf(sink, id, leaf, olds),
            Node::Inner(inner) => inner,
        };
        let olds = self.lower(sink, olds, level - 1)?;
        for (at, (path, child)) in inner.children.iter().enumerate() {
            let end = inner.children.get(at + 1).map(|(path, _)| &path[..]);
            self.tree(sink, level - 1, *child, overlapping(&olds, path, end))?;
        }
        let node = Template::Inner(inner);
        sink.push(Op::Node {
            id,
            node,
            predecessor,
        })
    }

    /// Opens nodes of the earlier snapshot until none is above this level.
    fn lower(&mut self, sink: &mut dyn Sink, olds: &[OldNode], level: u8) -> Faulty<Vec<OldNode>> {
        let mut ahead: Vec<OldNode> = olds.iter().rev().cloned().collect();
        let mut lowered = Vec::new();
        while let Some(old) = ahead.pop() {
            if old.level <= level {
                lowered.push(old);
                continue;
            }
            let Some((Node::Inner(original), Node::Inner(copy))) = self.read_old_tree(&old)? else {
                continue;
            };
            let is_alike = original.children.len() == copy.children.len();
            self.doubt |= !is_alike;
            let children = original.children.into_iter().zip(copy.children);
            for ((first_path, id), (path, copy)) in children.rev().filter(|_| is_alike) {
                self.doubt |= first_path != path;
                sink.learn(id, copy);
                ahead.push(OldNode {
                    level: old.level - 1,
                    first_path,
                    id,
                    copy,
                });
            }
        }
        Ok(lowered)
    }

    fn leaf(
        &mut self,
        sink: &mut dyn Sink,
        id: ChunkId,
        leaf: Leaf,
        olds: &[OldNode],
    ) -> Faulty<()> {
        let olds = self.lower(sink, olds, 0)?;
        let old = self.old_contents(&olds)?;
        let mut is_read = vec![false; leaf.bundles.len()];
        let mut predecessors = vec![None; leaf.bundles.len()];
        for (entry, place) in leaf.entries.iter().zip(leaf.places()) {
            let Some(place) = place.filter(|place| place.size_bytes > 0) else {
                continue;
            };
            is_read[place.bundle] = true;
            let class = leaf.bundles[place.bundle].class;
            let before = old.places.get(&entry.path);
            let before = before.filter(|(of, _)| *of == class).map(|(_, copy)| *copy);
            predecessors[place.bundle] = predecessors[place.bundle].or(before);
        }
        for ((bundle, is_read), predecessor) in leaf.bundles.iter().zip(is_read).zip(predecessors) {
            let id = bundle.id;
            sink.push(match (is_read, old.bundles.get(&id)) {
                // A bundle of nothing but empty files need not be there.
                (false, _) => Op::Known(self.nothing()),
                (true, Some(copy)) => Op::Known(*copy),
                (true, None) => Op::Chunk { id, predecessor },
            })?;
        }
        for entry in &leaf.entries {
            if let Some((stream, size_bytes)) = stream_of(&entry.kind) {
                self.stream(sink, stream, size_bytes, old.streams.get(&entry.path))?;
            }
        }
        let predecessor = olds.first().map(|old| old.copy);
        let node = Template::Leaf(leaf);
        sink.push(Op::Node {
            id,
            node,
            predecessor,
        })
    }

    fn nothing(&self) -> ChunkId {
        let secrets = self.target.repo().secrets();
        secrets.chunk_id(ChunkKind::Data, &[])
    }

    fn old_contents(&mut self, olds: &[OldNode]) -> Faulty<OldContents> {
        let mut old = OldContents::default();
        for node in olds {
            let Some((Node::Leaf(original), Node::Leaf(copy))) = self.read_old_tree(node)? else {
                continue;
            };
            let is_alike = original.bundles.len() == copy.bundles.len()
                && original.entries.len() == copy.entries.len();
            self.doubt |= !is_alike;
            if !is_alike {
                continue;
            }
            for (original, copy) in original.bundles.iter().zip(&copy.bundles) {
                old.bundles.insert(original.id, copy.id);
            }
            let places = copy.places();
            let entries = original.entries.into_iter().zip(&copy.entries).zip(places);
            for ((original, copied), place) in entries {
                self.doubt |= original.path != copied.path;
                if let Some(place) = place {
                    let bundle = copy.bundles[place.bundle];
                    let at = (bundle.class, bundle.id);
                    old.places.insert(original.path, at);
                } else if let (Some((original_stream, size_bytes)), Some((copy, _))) =
                    (stream_of(&original.kind), stream_of(&copied.kind))
                {
                    let stream = OldStream {
                        original: *original_stream,
                        copy: copy.root,
                        size_bytes,
                    };
                    old.streams.insert(original.path, stream);
                }
            }
        }
        Ok(old)
    }

    fn read_tree(&mut self, id: ChunkId, level: u8) -> Result<Node, Error> {
        let bytes = self.source.read(&mut self.scratch, ChunkKind::Tree, &id)?;
        self.read_bytes += bytes.len() as u64;
        let node = decode_tree(&bytes, &id, level);
        self.scratch.recycle(bytes);
        self.scratch.touched.clear();
        node
    }

    /// Reads a node of the earlier snapshot and its copy; `None` if one of them is not there.
    fn read_old_tree(&mut self, old: &OldNode) -> Faulty<Option<(Node, Node)>> {
        let original = self.read_tree(old.id, old.level);
        let Some(original) = self.unless_damaged(original).map_err(Fault::Source)? else {
            return Ok(None);
        };
        let target = self.target;
        let copy = target.read(&mut self.target_scratch, ChunkKind::Tree, &old.copy);
        let copy = copy.and_then(|bytes| decode_tree(&bytes, &old.copy, old.level));
        self.target_scratch.touched.clear();
        let copy = self.unless_damaged(copy).map_err(Fault::Target)?;
        Ok(copy.map(|copy| (original, copy)))
    }

    /// What is wrong with an earlier snapshot is no fault of this one.
    pub(super) fn unless_damaged<T>(&mut self, read: Result<T, Error>) -> Result<Option<T>, Error> {
        match read {
            Ok(node) => Ok(Some(node)),
            Err(Error::Missing { .. } | Error::Corrupt { .. }) => {
                self.doubt = true;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

fn decode_tree(bytes: &[u8], id: &ChunkId, level: u8) -> Result<Node, Error> {
    let object = || format!("tree node {id}");
    match Node::decode(bytes).map_err(|malformed| malformed.of(object()))? {
        Node::Leaf(leaf) if level == 0 => Ok(Node::Leaf(leaf)),
        Node::Inner(inner) if level > 0 && level == inner.level => Ok(Node::Inner(inner)),
        _ => Err(Error::corrupt(object(), "its level contradicts its parent")),
    }
}

/// Returns the stream of a file that has one.
pub(super) fn stream_of(kind: &Kind) -> Option<(&Stream, u64)> {
    match kind {
        Kind::File {
            size_bytes,
            content: Content::Stream(stream),
        } => Some((stream, *size_bytes)),
        _ => None,
    }
}

/// Returns the nodes that hold paths from one on, and before another.
fn overlapping<'o>(olds: &'o [OldNode], path: &[u8], end: Option<&[u8]>) -> &'o [OldNode] {
    let start = olds.partition_point(|old| path_order(&old.first_path, path).is_le());
    let end = end.map_or(olds.len(), |end| {
        olds.partition_point(|old| path_order(&old.first_path, end).is_lt())
    });
    let start = start.saturating_sub(1);
    &olds[start..end.max(start)]
}
