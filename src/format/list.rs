//! Nodes that list the chunks of a stream, and the reference by which an entry names its stream.
//!
//! `docs/format.md`, section "List". Three flavours: `cut` for streams cut by content (a length
//! with each id), `marked` for streams cut by keys of their source (a mark too) and `even` for
//! streams cut at a fixed distance (ids only, child by division).

use crate::format::wire;
use crate::format::wire::Decoded;
use crate::format::wire::Malformed;
use crate::format::wire::Reader;
use crate::id::ChunkId;

const VERSION: u8 = 1;
/// No stream has more levels of lists above its chunks.
pub const LEVEL_MAX: u8 = 8;
/// Children of a full node of the even flavour.
pub const EVEN_CHILDREN: usize = 1024;
/// A node of the cut flavour ends at the first id with eight zero bits after so many children.
pub const CUT_CHILDREN_MIN: usize = 64;
/// A node of the cut flavour never has more.
pub const CUT_CHILDREN_MAX: usize = 2048;

/// The id that stands for a hole: so many zero bytes, stored nowhere.
pub const HOLE: ChunkId = ChunkId([0; 32]);

/// How a stream was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// By content; every child carries its length.
    Cut,
    /// By keys of the source; every child carries its length and a mark by which the chunk that
    /// took its place is found again.
    Marked,
    /// Every so many bytes; only the last chunk may be shorter.
    Even { unit_bytes: u32 },
}

/// What kind of source a stream was captured from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// A plain file.
    File,
    /// A SQLite database.
    Sqlite,
    /// A redb database: chunks of extents, so many bytes of them (`format::extents`).
    Redb { extents_bytes: u64 },
    /// A sled database.
    Sled,
}

/// How an entry names the content of a large file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    /// The chunk itself at level zero, else a list node.
    pub root: ChunkId,
    /// Levels of list nodes above the chunks.
    pub level: u8,
    /// How it was cut.
    pub flavour: Flavour,
    /// What it was captured from.
    pub kind: StreamKind,
}

impl Stream {
    /// Appends the reference.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.root.as_bytes());
        out.push(self.level);
        let kind = match self.kind {
            StreamKind::File => 0,
            StreamKind::Sqlite => 1,
            StreamKind::Redb { .. } => 2,
            StreamKind::Sled => 3,
        };
        match self.flavour {
            Flavour::Cut => out.push(kind << 4),
            Flavour::Even { unit_bytes } => {
                out.push(kind << 4 | 1);
                wire::put_varint(out, u64::from(unit_bytes));
            }
            Flavour::Marked => out.push(kind << 4 | 2),
        }
        if let StreamKind::Redb { extents_bytes } = self.kind {
            wire::put_varint(out, extents_bytes);
        }
    }

    /// Returns how long the stream is, given how long the file is.
    pub fn plain_bytes(&self, size_bytes: u64) -> u64 {
        match self.kind {
            StreamKind::Redb { extents_bytes } => extents_bytes,
            _ => size_bytes,
        }
    }

    /// Reads a reference.
    pub fn take(reader: &mut Reader<'_>) -> Decoded<Stream> {
        let root = ChunkId(reader.array()?);
        let level = reader.byte()?;
        if level > LEVEL_MAX {
            return Err(Malformed::Bytes("a stream has too many levels"));
        }
        let byte = reader.byte()?;
        let flavour = match byte & 15 {
            0 => Flavour::Cut,
            1 => Flavour::Even {
                unit_bytes: unit(reader.varint_u32()?)?,
            },
            2 => Flavour::Marked,
            other => return Err(Malformed::Unknown("list flavour", u64::from(other))),
        };
        let kind = match byte >> 4 {
            0 => StreamKind::File,
            1 => StreamKind::Sqlite,
            2 => StreamKind::Redb {
                extents_bytes: reader.varint()?,
            },
            3 => StreamKind::Sled,
            other => return Err(Malformed::Unknown("stream kind", u64::from(other))),
        };
        Ok(Stream {
            root,
            level,
            flavour,
            kind,
        })
    }
}

fn unit(unit_bytes: u32) -> Decoded<u32> {
    match unit_bytes {
        0 => Err(Malformed::Bytes("a list has no unit")),
        unit_bytes => Ok(unit_bytes),
    }
}

/// One child of a node of the cut or the marked flavour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Child {
    /// Bytes of the stream below this child.
    pub plain_bytes: u64,
    /// A chunk at level one, a node above. `HOLE` for zeroes.
    pub id: ChunkId,
    /// Where the source was cut before it, by its key; zero where that has no meaning.
    pub mark: u32,
}

/// The children of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Children {
    /// With lengths.
    Cut(Vec<Child>),
    /// With lengths and marks.
    Marked(Vec<Child>),
    /// At a fixed distance.
    Even { unit_bytes: u32, ids: Vec<ChunkId> },
}

/// A list node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListNode {
    /// One above chunks.
    pub level: u8,
    /// What it lists.
    pub children: Children,
}

impl ListNode {
    /// Returns the plain bytes of the chunk that holds this node.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, self.level];
        match &self.children {
            Children::Cut(children) => {
                out.push(0);
                put_lengths(&mut out, children);
                put_ids(&mut out, children);
            }
            Children::Marked(children) => {
                out.push(2);
                put_lengths(&mut out, children);
                for child in children {
                    out.extend_from_slice(&child.mark.to_le_bytes());
                }
                put_ids(&mut out, children);
            }
            Children::Even { unit_bytes, ids } => {
                out.push(1);
                out.extend_from_slice(&unit_bytes.to_le_bytes());
                ids.iter()
                    .for_each(|id| out.extend_from_slice(id.as_bytes()));
            }
        }
        out
    }

    /// Reads a node.
    pub fn decode(bytes: &[u8]) -> Decoded<ListNode> {
        let mut reader = Reader::new(bytes);
        match reader.byte()? {
            VERSION => {}
            other => return Err(Malformed::Unknown("list version", u64::from(other))),
        }
        let level = reader.byte()?;
        if level == 0 || level > LEVEL_MAX {
            return Err(Malformed::Bytes("a list has an impossible level"));
        }
        let children = match reader.byte()? {
            0 => Children::Cut(take_children(&mut reader, Flavour::Cut)?),
            2 => Children::Marked(take_children(&mut reader, Flavour::Marked)?),
            1 => {
                let unit_bytes = unit(reader.u32()?)?;
                let ids = reader.rest().chunks(ChunkId::LEN).map(ChunkId::from_slice);
                let ids: Option<Vec<ChunkId>> = ids.collect();
                let ids = ids.ok_or(Malformed::Bytes("a list ends within an id"))?;
                // A place is found by division, which a longer node would contradict.
                if ids.len() > EVEN_CHILDREN {
                    return Err(Malformed::Bytes("a list has too many children"));
                }
                return Ok(ListNode {
                    level,
                    children: Children::Even { unit_bytes, ids },
                });
            }
            other => return Err(Malformed::Unknown("list flavour", u64::from(other))),
        };
        reader.finish()?;
        Ok(ListNode { level, children })
    }
}

fn put_lengths(out: &mut Vec<u8>, children: &[Child]) {
    wire::put_varint(out, children.len() as u64);
    for child in children {
        wire::put_varint(out, child.plain_bytes);
    }
}

fn put_ids(out: &mut Vec<u8>, children: &[Child]) {
    for child in children {
        out.extend_from_slice(child.id.as_bytes());
    }
}

fn take_children(reader: &mut Reader<'_>, flavour: Flavour) -> Decoded<Vec<Child>> {
    let count = reader.count(1 + ChunkId::LEN)?;
    let mut children = Vec::with_capacity(count);
    for _ in 0..count {
        children.push(Child {
            plain_bytes: reader.varint()?,
            id: HOLE,
            mark: 0,
        });
    }
    if flavour == Flavour::Marked {
        for child in &mut children {
            child.mark = reader.u32()?;
        }
    }
    for child in &mut children {
        child.id = ChunkId(reader.array()?);
    }
    Ok(children)
}

/// Returns whether a node of the cut or the marked flavour ends after this child.
pub fn ends_after(children: usize, id: &ChunkId) -> bool {
    children >= CUT_CHILDREN_MAX || (children >= CUT_CHILDREN_MIN && id.0[31] == 0 && *id != HOLE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nodes_and_streams_round_trip() {
        let child = |i: u8| Child {
            plain_bytes: 1 << (i % 40),
            id: ChunkId([i; 32]),
            mark: 0,
        };
        let marked = |i: u8| Child {
            mark: u32::from(i) << 13,
            ..child(i)
        };
        let marked = Children::Marked((0..100).map(marked).collect());
        let cut = Children::Cut((0..100).map(child).collect());
        let ids = (0..7).map(|i| ChunkId([i; 32])).collect();
        let even = Children::Even {
            unit_bytes: 262_144,
            ids,
        };
        for children in [cut, even, marked, Children::Cut(vec![])] {
            let node = ListNode { level: 2, children };
            assert_eq!(ListNode::decode(&node.encode()), Ok(node));
        }
        let even = Flavour::Even { unit_bytes: 4096 };
        for flavour in [Flavour::Cut, Flavour::Marked, even] {
            let stream = Stream {
                root: HOLE,
                level: 3,
                flavour,
                kind: StreamKind::Redb { extents_bytes: 77 },
            };
            let mut out = Vec::new();
            stream.put(&mut out);
            assert_eq!(Stream::take(&mut Reader::new(&out)), Ok(stream));
        }
    }

    #[test]
    fn an_even_node_has_at_most_its_number_of_children() {
        let decoded = |count: usize| {
            let children = Children::Even {
                unit_bytes: 1,
                ids: vec![ChunkId([1; 32]); count],
            };
            ListNode::decode(&ListNode { level: 1, children }.encode()).is_ok()
        };

        assert!(decoded(EVEN_CHILDREN));
        assert!(!decoded(EVEN_CHILDREN + 1));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read_back_alike(bytes: Vec<u8>) {
            if let Ok(node) = ListNode::decode(&bytes) {
                prop_assert_eq!(node.encode(), bytes);
            }
        }
    }
}
