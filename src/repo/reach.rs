//! Walks everything a snapshot needs: tree nodes, bundles, lists, chunks, records of databases.
//!
//! Whoever deletes, copies or checks asks here, so that there is one answer. Invariant: what is
//! not visited no reader of the snapshot ever asks for. What cannot be read ends the walk with an
//! error: nobody may act on half of it. Bases are not part of it: they belong to records, not to
//! snapshots.

use crate::context::Context;
use crate::error::Error;
use crate::error::Result;
use crate::format::list::Children;
use crate::format::list::HOLE;
use crate::format::list::ListNode;
use crate::format::manifest::Manifest;
use crate::format::pack::ChunkKind;
use crate::format::tree::Content;
use crate::format::tree::Kind;
use crate::format::tree::Leaf;
use crate::format::tree::Node;
use crate::id::ChunkId;
use crate::repo::chunks::Chunks;
use crate::repo::chunks::Scratch;
use std::collections::HashSet;

/// Called for a chunk that is needed, possibly several times.
pub type Visit<'v> = dyn FnMut(ChunkKind, &ChunkId) -> Result<()> + 'v;

/// A walk over several snapshots that reads what they share once.
pub struct Reach<'a> {
    chunks: &'a Chunks<'a>,
    scratch: Scratch,
    /// Nodes that were read, by kind: their ids differ anyhow. Chunks of data are not remembered;
    /// there may be a thousand times as many.
    nodes: HashSet<ChunkId>,
}

impl<'a> Reach<'a> {
    /// Begins a walk.
    pub fn begin(chunks: &'a Chunks<'a>) -> Reach<'a> {
        Reach {
            chunks,
            scratch: Scratch::default(),
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
        if let Some(records) = &manifest.databases {
            visit(ChunkKind::Data, records)?;
        }
        let mut ahead = vec![(manifest.tree.level, manifest.tree.id)];
        while let Some((level, id)) = ahead.pop() {
            if !self.nodes.insert(id) {
                continue;
            }
            cx.check()?;
            visit(ChunkKind::Tree, &id)?;
            let bytes = self.chunks.read(&mut self.scratch, ChunkKind::Tree, &id)?;
            let object = || format!("tree node {id}");
            let node = Node::decode(&bytes).map_err(|malformed| malformed.of(object()))?;
            self.recycle(bytes);
            match node {
                Node::Leaf(leaf) if level == 0 => self.leaf(cx, &leaf, visit)?,
                Node::Inner(inner) if level == inner.level => {
                    ahead.extend(inner.children.iter().map(|(_, child)| (level - 1, *child)));
                }
                _ => return Err(Error::corrupt(object(), "its level contradicts its parent")),
            }
        }
        Ok(())
    }

    fn leaf(&mut self, cx: &Context, leaf: &Leaf, visit: &mut Visit<'_>) -> Result<()> {
        let mut is_read = vec![false; leaf.bundles.len()];
        for place in leaf.places().iter().flatten() {
            is_read[place.bundle] |= place.size_bytes > 0;
        }
        // A bundle of nothing but empty files need not be there.
        let bundles = leaf.bundles.iter().zip(is_read);
        for (bundle, _) in bundles.filter(|(_, is_read)| *is_read) {
            visit(ChunkKind::Data, &bundle.id)?;
        }
        for entry in &leaf.entries {
            if let Kind::File {
                size_bytes,
                content: Content::Stream(stream),
            } = &entry.kind
                && stream.plain_bytes(*size_bytes) > 0
            {
                self.stream(cx, stream.level, stream.root, visit)?;
            }
        }
        Ok(())
    }

    fn stream(
        &mut self,
        cx: &Context,
        level: u8,
        root: ChunkId,
        visit: &mut Visit<'_>,
    ) -> Result<()> {
        let mut ahead = vec![(level, root)];
        while let Some((level, id)) = ahead.pop() {
            if id == HOLE {
                continue;
            }
            if level == 0 {
                visit(ChunkKind::Data, &id)?;
                continue;
            }
            if !self.nodes.insert(id) {
                continue;
            }
            cx.check()?;
            visit(ChunkKind::List, &id)?;
            let bytes = self.chunks.read(&mut self.scratch, ChunkKind::List, &id)?;
            let object = || format!("list {id}");
            let node = ListNode::decode(&bytes).map_err(|malformed| malformed.of(object()))?;
            self.recycle(bytes);
            if node.level != level {
                return Err(Error::corrupt(object(), "its level contradicts its parent"));
            }
            match node.children {
                Children::Cut(children) | Children::Marked(children) => {
                    ahead.extend(children.iter().map(|child| (level - 1, child.id)));
                }
                Children::Even { ids, .. } => ahead.extend(ids.iter().map(|id| (level - 1, *id))),
            }
        }
        Ok(())
    }

    fn recycle(&mut self, bytes: Vec<u8>) {
        self.scratch.recycle(bytes);
        self.scratch.touched.clear();
    }
}
