//! Walks what a snapshot needs: tree nodes, bundles, lists, chunks, records of databases.
//!
//! Whoever deletes, copies, counts or checks asks here, so that there is one answer. Invariant:
//! what is not visited no reader of the snapshot ever asks for. Bases are not part of it: they
//! belong to records, not to snapshots. Whether something is gone into again, what of a tree is
//! wanted, and whether the walk goes on where it cannot, is up to the visitor; unless it says
//! otherwise the first thing that cannot be read ends the walk: nobody may act on half of it.

use crate::context::Context;
use crate::error::Error;
use crate::error::Result;
use crate::format::list::Children;
use crate::format::list::HOLE;
use crate::format::list::ListNode;
use crate::format::list::Stream;
use crate::format::manifest::Manifest;
use crate::format::pack::ChunkKind;
use crate::format::tree::Content;
use crate::format::tree::Entry;
use crate::format::tree::Kind;
use crate::format::tree::Leaf;
use crate::format::tree::Node;
use crate::format::tree::TreeRoot;
use crate::id::ChunkId;
use crate::repo::chunks::Chunks;
use crate::repo::chunks::Scratch;
use std::collections::HashSet;
use std::hash::DefaultHasher;
use std::hash::Hash;
use std::hash::Hasher;

/// Whoever wants to know what is needed.
pub trait Visitor {
    /// Called for a chunk that is needed, possibly several times. Returns whether to go into it, if
    /// it is a node.
    fn visit(&mut self, kind: ChunkKind, id: &ChunkId) -> Result<bool>;

    /// Called before a chunk of a stream is visited. What stands at the same place of the same path
    /// has the same number in every snapshot, and hardly anything else has it.
    fn place(&mut self, _place: u64) {}

    /// Returns whether the content of this entry is wanted.
    fn wants(&self, _entry: &Entry) -> bool {
        true
    }

    /// Called for a node that cannot be read. What it returns ends the walk, or leaves out what is
    /// below.
    fn unreadable(&mut self, error: Error) -> Result<()> {
        Err(error)
    }
}

/// Called for a chunk that is needed, possibly several times.
pub type Visit<'v> = dyn FnMut(ChunkKind, &ChunkId) -> Result<()> + 'v;

/// A walk over several snapshots that reads what they share once.
pub struct Reach<'a> {
    walk: Walk<'a>,
    /// Nodes that were read, by kind: their ids differ anyhow. Chunks of data are not remembered;
    /// there may be a thousand times as many.
    nodes: HashSet<ChunkId>,
}

impl<'a> Reach<'a> {
    /// Begins a walk.
    pub fn begin(chunks: &'a Chunks<'a>) -> Reach<'a> {
        Reach {
            walk: Walk::begin(chunks),
            nodes: HashSet::new(),
        }
    }

    /// Visits what the snapshot with this manifest needs and no snapshot before it did.
    pub fn visit(
        &mut self,
        cx: &Context,
        manifest: &Manifest,
        visit: &mut Visit<'_>,
    ) -> Result<()> {
        let nodes = &mut self.nodes;
        self.walk.snapshot(cx, manifest, &mut Once { nodes, visit })
    }
}

/// Goes into every node once.
struct Once<'o, 'v> {
    nodes: &'o mut HashSet<ChunkId>,
    visit: &'o mut Visit<'v>,
}

impl Visitor for Once<'_, '_> {
    fn visit(&mut self, kind: ChunkKind, id: &ChunkId) -> Result<bool> {
        let is_new = kind == ChunkKind::Data || self.nodes.insert(*id);
        if is_new {
            (self.visit)(kind, id)?;
        }
        Ok(is_new)
    }
}

/// The walk itself, which remembers nothing but buffers.
pub struct Walk<'a> {
    chunks: &'a Chunks<'a>,
    scratch: Scratch,
}

impl<'a> Walk<'a> {
    /// Begins a walk.
    pub fn begin(chunks: &'a Chunks<'a>) -> Walk<'a> {
        Walk {
            chunks,
            scratch: Scratch::default(),
        }
    }

    /// Visits what the snapshot with this manifest needs.
    pub fn snapshot(
        &mut self,
        cx: &Context,
        manifest: &Manifest,
        visitor: &mut dyn Visitor,
    ) -> Result<()> {
        if let Some(records) = &manifest.databases {
            visitor.visit(ChunkKind::Data, records)?;
        }
        self.leaves(cx, &manifest.tree, visitor, &mut |walk, visitor, leaf| {
            walk.content(cx, leaf, visitor)
        })
    }

    /// Visits the nodes of a tree, and calls `each` with every leaf among them.
    pub fn leaves<V: Visitor + ?Sized>(
        &mut self,
        cx: &Context,
        root: &TreeRoot,
        visitor: &mut V,
        each: &mut dyn FnMut(&mut Walk<'a>, &mut V, &Leaf) -> Result<()>,
    ) -> Result<()> {
        let mut ahead = vec![(root.level, root.id)];
        while let Some((level, id)) = ahead.pop() {
            cx.check()?;
            if !visitor.visit(ChunkKind::Tree, &id)? {
                continue;
            }
            match self.node(level, &id) {
                Ok(Node::Leaf(leaf)) => each(self, visitor, &leaf)?,
                Ok(Node::Inner(inner)) => {
                    ahead.extend(inner.children.iter().map(|(_, child)| (level - 1, *child)));
                }
                Err(error) => unreadable(visitor, error)?,
            }
        }
        Ok(())
    }

    fn node(&mut self, level: u8, id: &ChunkId) -> Result<Node> {
        let object = || format!("tree node {id}");
        let bytes = self.chunks.read(&mut self.scratch, ChunkKind::Tree, id);
        let bytes = self.done(bytes)?;
        let node = Node::decode(&bytes).map_err(|malformed| malformed.of(object()))?;
        self.scratch.recycle(bytes);
        let found = match &node {
            Node::Leaf(_) => 0,
            Node::Inner(inner) => inner.level,
        };
        match found == level {
            true => Ok(node),
            false => Err(Error::corrupt(object(), "its level contradicts its parent")),
        }
    }

    /// Visits the content of what is wanted of a leaf.
    fn content(&mut self, cx: &Context, leaf: &Leaf, visitor: &mut dyn Visitor) -> Result<()> {
        let mut is_read = vec![false; leaf.bundles.len()];
        for (entry, place) in leaf.entries.iter().zip(leaf.places()) {
            if let Some(place) = place
                && place.size_bytes > 0
                && !is_read[place.bundle]
            {
                is_read[place.bundle] = visitor.wants(entry);
            }
        }
        // A bundle of nothing but empty files need not be there.
        let bundles = leaf.bundles.iter().zip(is_read);
        for (bundle, _) in bundles.filter(|(_, is_read)| *is_read) {
            visitor.visit(ChunkKind::Data, &bundle.id)?;
        }
        for entry in &leaf.entries {
            if let Kind::File {
                size_bytes,
                content: Content::Stream(stream),
            } = &entry.kind
                && stream.plain_bytes(*size_bytes) > 0
                && visitor.wants(entry)
            {
                self.stream_at(cx, stream, place_of(&entry.path), visitor)?;
            }
        }
        Ok(())
    }

    /// Visits the content of a stream that is not empty.
    pub fn stream<V: Visitor + ?Sized>(
        &mut self,
        cx: &Context,
        stream: &Stream,
        visitor: &mut V,
    ) -> Result<()> {
        self.stream_at(cx, stream, 0, visitor)
    }

    fn stream_at<V: Visitor + ?Sized>(
        &mut self,
        cx: &Context,
        stream: &Stream,
        place: u64,
        visitor: &mut V,
    ) -> Result<()> {
        let mut ahead = vec![(stream.level, stream.root, place)];
        while let Some((level, id, place)) = ahead.pop() {
            if id == HOLE {
                continue;
            }
            cx.check()?;
            if level == 0 {
                visitor.place(place);
                visitor.visit(ChunkKind::Data, &id)?;
                continue;
            }
            if !visitor.visit(ChunkKind::List, &id)? {
                continue;
            }
            match self.list(level, &id) {
                Ok(children) => {
                    let below = ids(children).into_iter().enumerate().rev();
                    ahead.extend(below.map(|(at, id)| (level - 1, id, place_of(&(place, at)))));
                }
                Err(error) => unreadable(visitor, error)?,
            }
        }
        Ok(())
    }

    fn list(&mut self, level: u8, id: &ChunkId) -> Result<Children> {
        let object = || format!("list {id}");
        let bytes = self.chunks.read(&mut self.scratch, ChunkKind::List, id);
        let bytes = self.done(bytes)?;
        let node = ListNode::decode(&bytes).map_err(|malformed| malformed.of(object()))?;
        self.scratch.recycle(bytes);
        match node.level == level {
            true => Ok(node.children),
            false => Err(Error::corrupt(object(), "its level contradicts its parent")),
        }
    }

    fn done<T>(&mut self, read: Result<T>) -> Result<T> {
        self.scratch.touched.clear();
        read
    }
}

fn ids(children: Children) -> Vec<ChunkId> {
    match children {
        Children::Cut(children) | Children::Marked(children) => {
            children.into_iter().map(|child| child.id).collect()
        }
        Children::Even { ids, .. } => ids,
    }
}

fn place_of(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

fn unreadable<V: Visitor + ?Sized>(visitor: &mut V, error: Error) -> Result<()> {
    match error {
        Error::Missing { .. } | Error::Corrupt { .. } => visitor.unreadable(error),
        error => Err(error),
    }
}
