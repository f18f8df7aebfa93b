//! Walks two trees side by side and visits the paths that may differ, in order.
//!
//! A node that both trees have is not opened: its name is that of its content, paths included. So
//! the cost is that of what lies in nodes only one of them has.

use crate::context::Context;
use crate::error::Error;
use crate::error::Result;
use crate::format::pack::ChunkKind;
use crate::format::tree::Entry;
use crate::format::tree::Leaf;
use crate::format::tree::Node;
use crate::format::tree::Place;
use crate::format::tree::TreeRoot;
use crate::format::tree::path_order;
use crate::id::ChunkId;
use crate::repo::chunks::Chunks;
use crate::repo::chunks::Scratch;
use std::cmp::Ordering;
use std::collections::HashSet;
use std::rc::Rc;

/// A leaf that was read.
pub(in crate::ops) struct ReadLeaf {
    pub id: ChunkId,
    pub leaf: Leaf,
    /// Where the contents of small files are.
    pub places: Vec<Option<Place>>,
}

impl ReadLeaf {
    pub(in crate::ops) fn new(id: ChunkId, leaf: Leaf) -> ReadLeaf {
        ReadLeaf {
            id,
            places: leaf.places(),
            leaf,
        }
    }
}

/// An entry, and the leaf that says where its content is.
#[derive(Clone)]
pub(in crate::ops) struct At {
    pub leaf: Rc<ReadLeaf>,
    pub index: usize,
}

impl At {
    pub(in crate::ops) fn entry(&self) -> &Entry {
        &self.leaf.leaf.entries[self.index]
    }
}

/// A path in either tree or both. What is the same in both may be visited too.
pub(in crate::ops) struct Pair {
    pub before: Option<At>,
    pub after: Option<At>,
}

/// Calls `visit` for every path that may differ. `None` is a tree with nothing in it. Returns how
/// many nodes were read.
pub(in crate::ops) fn walk(
    cx: &Context,
    chunks: &Chunks<'_>,
    before: Option<&TreeRoot>,
    after: Option<&TreeRoot>,
    visit: &mut dyn FnMut(Pair) -> Result<()>,
) -> Result<u64> {
    let mut reader = Reader {
        cx,
        chunks,
        scratch: Scratch::default(),
        nodes: 0,
    };
    let (before, after) = reader.leaves(before, after)?;
    let mut before = Entries::new(before);
    let mut after = Entries::new(after);
    loop {
        let (old, new) = (before.peek(&mut reader)?, after.peek(&mut reader)?);
        let order = match (&old, &new) {
            (None, None) => return Ok(reader.nodes),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => path_order(&old.entry().path, &new.entry().path),
        };
        let pair = Pair {
            before: old.filter(|_| order != Ordering::Greater),
            after: new.filter(|_| order != Ordering::Less),
        };
        before.step(pair.before.is_some());
        after.step(pair.after.is_some());
        visit(pair)?;
    }
}

struct Reader<'a> {
    cx: &'a Context,
    chunks: &'a Chunks<'a>,
    scratch: Scratch,
    nodes: u64,
}

impl Reader<'_> {
    /// Returns the leaves that only one of the trees has, in order: level by level, from the top.
    fn leaves(
        &mut self,
        before: Option<&TreeRoot>,
        after: Option<&TreeRoot>,
    ) -> Result<(Vec<ChunkId>, Vec<ChunkId>)> {
        let height = |root: Option<&TreeRoot>| root.map_or(0, |root| root.level);
        let mut level = height(before).max(height(after));
        let (mut old, mut new) = (Vec::new(), Vec::new());
        loop {
            old.extend(
                before
                    .filter(|root| root.level == level)
                    .map(|root| root.id),
            );
            new.extend(after.filter(|root| root.level == level).map(|root| root.id));
            forget_common(&mut old, &mut new);
            if level == 0 {
                return Ok((old, new));
            }
            old = self.children(&old, level)?;
            new = self.children(&new, level)?;
            level -= 1;
        }
    }

    fn children(&mut self, nodes: &[ChunkId], level: u8) -> Result<Vec<ChunkId>> {
        let mut children = Vec::new();
        for id in nodes {
            match self.node(id)? {
                Node::Inner(inner) if inner.level == level => {
                    children.extend(inner.children.into_iter().map(|(_, child)| child));
                }
                _ => return Err(contradiction(id)),
            }
        }
        Ok(children)
    }

    fn leaf(&mut self, id: &ChunkId) -> Result<Leaf> {
        match self.node(id)? {
            Node::Leaf(leaf) => Ok(leaf),
            Node::Inner(_) => Err(contradiction(id)),
        }
    }

    fn node(&mut self, id: &ChunkId) -> Result<Node> {
        self.cx.check()?;
        self.nodes += 1;
        let bytes = self.chunks.read(&mut self.scratch, ChunkKind::Tree, id)?;
        let node = Node::decode(&bytes).map_err(|malformed| malformed.of(tree(id)))?;
        self.scratch.recycle(bytes);
        self.scratch.touched.clear();
        Ok(node)
    }
}

fn forget_common(old: &mut Vec<ChunkId>, new: &mut Vec<ChunkId>) {
    let olds: HashSet<ChunkId> = old.iter().copied().collect();
    let common: HashSet<ChunkId> = new.iter().filter(|id| olds.contains(id)).copied().collect();
    old.retain(|id| !common.contains(id));
    new.retain(|id| !common.contains(id));
}

/// The entries of some leaves, one after the other.
struct Entries {
    leaves: std::vec::IntoIter<ChunkId>,
    current: Option<(Rc<ReadLeaf>, usize)>,
    last_path: Option<Vec<u8>>,
}

impl Entries {
    fn new(leaves: Vec<ChunkId>) -> Entries {
        Entries {
            leaves: leaves.into_iter(),
            current: None,
            last_path: None,
        }
    }

    fn peek(&mut self, reader: &mut Reader<'_>) -> Result<Option<At>> {
        loop {
            if let Some((leaf, index)) = &self.current
                && *index < leaf.leaf.entries.len()
            {
                let (leaf, index) = (Rc::clone(leaf), *index);
                return Ok(Some(At { leaf, index }));
            }
            let Some(id) = self.leaves.next() else {
                return Ok(None);
            };
            let leaf = reader.leaf(&id)?;
            // Within a leaf the decoder looks; out of order, the same path could come twice.
            let first = leaf.entries.first().map(|entry| &entry.path);
            if let (Some(last), Some(first)) = (&self.last_path, first)
                && path_order(last, first) != Ordering::Less
            {
                return Err(Error::corrupt(tree(&id), "its paths are not in order"));
            }
            if let Some(last) = leaf.entries.last() {
                self.last_path = Some(last.path.clone());
            }
            self.current = Some((Rc::new(ReadLeaf::new(id, leaf)), 0));
        }
    }

    fn step(&mut self, is_taken: bool) {
        if let (true, Some((_, index))) = (is_taken, &mut self.current) {
            *index += 1;
        }
    }
}

fn contradiction(id: &ChunkId) -> Error {
    Error::corrupt(tree(id), "its level contradicts its parent")
}

fn tree(id: &ChunkId) -> String {
    format!("tree node {id}")
}
