//! Walks the pieces of a stream in order, reading its list nodes as it comes to them.

use crate::error::Error;
use crate::error::Result;
use crate::format::list::Child;
use crate::format::list::Children;
use crate::format::list::Flavour;
use crate::format::list::HOLE;
use crate::format::list::ListNode;
use crate::format::list::Stream;
use crate::format::pack::ChunkKind;
use crate::id::ChunkId;
use crate::repo::chunks::Chunks;
use crate::repo::chunks::Scratch;
use std::collections::VecDeque;

/// A run of bytes of a stream: a chunk, or a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub plain_bytes: u64,
    /// The chunk; `HOLE` for zeroes that are stored nowhere.
    pub id: ChunkId,
    /// By which key of the source it was cut, zero if by none.
    pub mark: u32,
}

/// A list node of a stream and where it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeAt {
    /// One above chunks.
    pub level: u8,
    /// The first byte it lists.
    pub offset: u64,
    /// The node.
    pub id: ChunkId,
}

/// The pieces of one stream.
pub struct Pieces<'a> {
    chunks: &'a Chunks<'a>,
    stream: Stream,
    size_bytes: u64,
    offset: u64,
    /// What is still to come, the next one last: nodes of their level, chunks of level zero.
    ahead: Vec<(u8, Child)>,
    /// Nodes read since somebody took them.
    pub nodes: VecDeque<NodeAt>,
}

impl<'a> Pieces<'a> {
    /// Begins at the front of the stream of a file of this length.
    pub fn begin(chunks: &'a Chunks<'a>, stream: &Stream, size_bytes: u64) -> Pieces<'a> {
        let size_bytes = stream.plain_bytes(size_bytes);
        let ahead = match size_bytes {
            0 => Vec::new(),
            _ => vec![(stream.level, child(size_bytes, stream.root))],
        };
        Pieces {
            chunks,
            stream: *stream,
            size_bytes,
            offset: 0,
            ahead,
            nodes: VecDeque::new(),
        }
    }

    /// Returns the next piece, `None` at the end. Together they are exactly as long as the stream.
    pub fn next(&mut self, scratch: &mut Scratch) -> Result<Option<Piece>> {
        while let Some((level, child)) = self.ahead.pop() {
            let Child {
                plain_bytes,
                id,
                mark,
            } = child;
            if level == 0 || id == HOLE {
                let piece = Piece {
                    offset: self.offset,
                    plain_bytes,
                    id,
                    mark,
                };
                self.offset += plain_bytes;
                return Ok(Some(piece));
            }
            self.open_node(scratch, level, plain_bytes, id)?;
        }
        match self.offset == self.size_bytes {
            true => Ok(None),
            false => Err(self.contradiction(&self.stream.root)),
        }
    }

    fn open_node(
        &mut self,
        scratch: &mut Scratch,
        level: u8,
        plain_bytes: u64,
        id: ChunkId,
    ) -> Result<()> {
        let bytes = self.chunks.read(scratch, ChunkKind::List, &id)?;
        let node = ListNode::decode(&bytes).map_err(|malformed| malformed.of(list(&id)))?;
        scratch.recycle(bytes);
        if node.level != level {
            return Err(self.contradiction(&id));
        }
        self.nodes.push_back(NodeAt {
            level,
            offset: self.offset,
            id,
        });
        let before = self.ahead.len();
        match (node.children, self.stream.flavour) {
            (Children::Cut(children), Flavour::Cut)
            | (Children::Marked(children), Flavour::Marked) => {
                let children = children.into_iter().rev();
                self.ahead.extend(children.map(|child| (level - 1, child)));
            }
            (Children::Even { unit_bytes, ids }, Flavour::Even { unit_bytes: unit })
                if unit_bytes == unit =>
            {
                let per_child = even_child_bytes(unit, level);
                let mut left = plain_bytes;
                for id in ids {
                    let bytes = left.min(per_child);
                    left -= bytes;
                    self.ahead.push((level - 1, child(bytes, id)));
                }
                self.ahead[before..].reverse();
            }
            _ => return Err(self.contradiction(&id)),
        }
        // A node that lists more or less than its parent says would misplace all that follows.
        let listed = self.ahead[before..]
            .iter()
            .try_fold(0_u64, |sum, (_, child)| {
                (child.plain_bytes > 0).then(|| sum.checked_add(child.plain_bytes))?
            });
        match listed == Some(plain_bytes) {
            true => Ok(()),
            false => Err(self.contradiction(&id)),
        }
    }

    fn contradiction(&self, id: &ChunkId) -> Error {
        Error::corrupt(list(id), "its lengths contradict the stream")
    }
}

fn child(plain_bytes: u64, id: ChunkId) -> Child {
    Child {
        plain_bytes,
        id,
        mark: 0,
    }
}

/// Returns how many bytes of a stream one child of an even node of this level stands for.
pub fn even_child_bytes(unit_bytes: u32, level: u8) -> u64 {
    let children = crate::format::list::EVEN_CHILDREN as u64;
    (1..level).fold(u64::from(unit_bytes), |bytes, _| {
        bytes.saturating_mul(children)
    })
}

fn list(id: &ChunkId) -> String {
    format!("list {id}")
}
