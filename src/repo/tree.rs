//! Walks the leaves of a tree in the order of paths, from any path on.

use crate::error::Error;
use crate::error::Result;
use crate::format::pack::ChunkKind;
use crate::format::tree::Leaf;
use crate::format::tree::Node;
use crate::format::tree::TreeRoot;
use crate::format::tree::path_order;
use crate::id::ChunkId;
use crate::repo::chunks::Chunks;
use crate::repo::chunks::Scratch;
use std::cmp::Ordering;

const MISPLACED: &str = "its first path is not the one its parent says";

/// A leaf and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafAt {
    /// The chunk that holds it.
    pub id: ChunkId,
    /// Its entries.
    pub leaf: Leaf,
}

/// An inner node that was read, by the first path below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InnerAt {
    /// One above leaves.
    pub level: u8,
    /// The first path below it.
    pub first_path: Vec<u8>,
    /// The node.
    pub id: ChunkId,
}

/// The leaves of one tree.
pub struct Leaves<'a> {
    chunks: &'a Chunks<'a>,
    /// What is still to come, the next one last.
    ahead: Vec<(u8, ChunkId, Option<Vec<u8>>)>,
    from: Vec<u8>,
    last_path: Option<Vec<u8>>,
    /// Inner nodes read since somebody took them.
    pub inner: Vec<InnerAt>,
}

impl<'a> Leaves<'a> {
    /// Begins at the first leaf.
    pub fn begin(chunks: &'a Chunks<'a>, root: &TreeRoot) -> Leaves<'a> {
        Leaves::begin_at(chunks, root, &[])
    }

    /// Begins at the leaf that holds this path, or would.
    pub fn begin_at(chunks: &'a Chunks<'a>, root: &TreeRoot, path: &[u8]) -> Leaves<'a> {
        let ahead = vec![(root.level, root.id, None)];
        Leaves {
            chunks,
            ahead,
            from: path.to_vec(),
            last_path: None,
            inner: Vec::new(),
        }
    }

    /// Returns the next leaf, `None` at the end. Paths ascend from leaf to leaf.
    pub fn next(&mut self, scratch: &mut Scratch) -> Result<Option<LeafAt>> {
        while let Some((level, id, first_path)) = self.ahead.pop() {
            let bytes = self.chunks.read(scratch, ChunkKind::Tree, &id)?;
            let node = Node::decode(&bytes).map_err(|malformed| malformed.of(tree(&id)))?;
            scratch.recycle(bytes);
            match node {
                Node::Leaf(leaf) if level == 0 => {
                    // An empty leaf may only be a whole tree: others could be without end.
                    let first = leaf.entries.first().map(|entry| &entry.path);
                    if first_path.is_some() && first != first_path.as_ref() {
                        return Err(Error::corrupt(tree(&id), MISPLACED));
                    }
                    self.check_order(&id, &leaf)?;
                    return Ok(Some(LeafAt { id, leaf }));
                }
                Node::Inner(inner) if level == inner.level => {
                    let children = inner.children;
                    let first = children.first().map(|(path, _)| path);
                    if first_path.is_some() && first != first_path.as_ref() {
                        return Err(Error::corrupt(tree(&id), MISPLACED));
                    }
                    // The last child that begins at or before the path holds it.
                    let after = children.partition_point(|(path, _)| {
                        path_order(path, &self.from) != Ordering::Greater
                    });
                    for (path, child) in children.into_iter().skip(after.max(1) - 1).rev() {
                        self.ahead.push((level - 1, child, Some(path)));
                    }
                    self.inner.push(InnerAt {
                        level,
                        first_path: first_path.unwrap_or_default(),
                        id,
                    });
                }
                _ => {
                    return Err(Error::corrupt(
                        tree(&id),
                        "its level contradicts its parent",
                    ));
                }
            }
        }
        Ok(None)
    }

    /// Within a leaf the decoder looks; here it is the step from one leaf to the next.
    fn check_order(&mut self, id: &ChunkId, leaf: &Leaf) -> Result<()> {
        let first = leaf.entries.first().map(|entry| &entry.path);
        if let (Some(last), Some(first)) = (&self.last_path, first)
            && path_order(last, first) != Ordering::Less
        {
            return Err(Error::corrupt(tree(id), "its paths are not in order"));
        }
        if let Some(last) = leaf.entries.last() {
            self.last_path = Some(last.path.clone());
        }
        Ok(())
    }
}

fn tree(id: &ChunkId) -> String {
    format!("tree node {id}")
}
