//! The part of the walk that goes through the lists of a stream.

use crate::error::Error;
use crate::error::Result;
use crate::format::list::Children;
use crate::format::list::Flavour;
use crate::format::list::HOLE;
use crate::format::list::ListNode;
use crate::format::list::Stream;
use crate::format::pack::ChunkKind;
use crate::id::ChunkId;
use crate::ops::copy::Fault;
use crate::ops::copy::Faulty;
use crate::ops::copy::walk::Op;
use crate::ops::copy::walk::Sink;
use crate::ops::copy::walk::Template;
use crate::ops::copy::walk::Walk;
use crate::repo::stream::even_child_bytes;
use std::collections::HashMap;

/// A stream of the earlier snapshot, and its copy.
pub(super) struct OldStream {
    pub original: Stream,
    pub copy: ChunkId,
    pub size_bytes: u64,
}

/// A node of a list, or a chunk at level zero.
#[derive(Clone, Copy)]
struct Part {
    level: u8,
    id: ChunkId,
    offset: u64,
    plain_bytes: u64,
    mark: u32,
}

/// A part of the earlier stream, and its copy.
#[derive(Clone, Copy)]
struct OldPart {
    part: Part,
    copy: ChunkId,
}

impl Walk<'_> {
    /// Walks a stream.
    pub(super) fn stream(
        &mut self,
        sink: &mut dyn Sink,
        stream: &Stream,
        size_bytes: u64,
        old: Option<&OldStream>,
    ) -> Faulty<()> {
        let part = |stream: &Stream, size_bytes| Part {
            level: stream.level,
            id: stream.root,
            offset: 0,
            plain_bytes: stream.plain_bytes(size_bytes),
            mark: 0,
        };
        let root = part(stream, size_bytes);
        if root.plain_bytes == 0 {
            // Nothing of it is ever read.
            return sink.push(Op::Known(HOLE));
        }
        let old = old.filter(|old| old.original.flavour == stream.flavour);
        let old = old.map(|old| OldPart {
            part: part(&old.original, old.size_bytes),
            copy: old.copy,
        });
        if let Some(old) = old.filter(|old| old.part.level > 0) {
            sink.learn(old.part.id, old.copy);
        }
        self.part(sink, stream.flavour, root, old.as_slice())
    }

    fn part(
        &mut self,
        sink: &mut dyn Sink,
        flavour: Flavour,
        part: Part,
        olds: &[OldPart],
    ) -> Faulty<()> {
        if part.id == HOLE {
            return sink.push(Op::Known(HOLE));
        }
        if part.level == 0 {
            let olds = self.lower_parts(sink, flavour, olds, 0)?;
            return self.chunks(sink, flavour, &[part], &olds);
        }
        if let Some(copy) = sink.find(&part.id) {
            return sink.push(Op::Known(copy));
        }
        self.cx.check().map_err(Fault::Source)?;
        let node = self.read_list(&part).map_err(Fault::Source)?;
        let children = children(&node, &part, flavour).map_err(Fault::Source)?;
        let below = self.lower_parts(sink, flavour, olds, part.level - 1)?;
        match part.level {
            1 => self.chunks(sink, flavour, &children, &below)?,
            _ => {
                for child in children {
                    self.part(sink, flavour, child, overlapping(&below, &child))?;
                }
            }
        }
        let is_here = |old: &&OldPart| old.part.level == part.level;
        sink.push(Op::Node {
            id: part.id,
            node: Template::List(node),
            predecessor: olds.iter().find(is_here).map(|old| old.copy),
        })
    }

    /// Walks the chunks of one node.
    fn chunks(
        &mut self,
        sink: &mut dyn Sink,
        flavour: Flavour,
        chunks: &[Part],
        olds: &[OldPart],
    ) -> Faulty<()> {
        let stored = || olds.iter().enumerate().filter(|(_, old)| old.copy != HOLE);
        let by_id: HashMap<ChunkId, usize> = stored().map(|(at, old)| (old.part.id, at)).collect();
        let by_mark: HashMap<u32, ChunkId> = match flavour {
            Flavour::Marked => stored().map(|(_, old)| (old.part.mark, old.copy)).collect(),
            Flavour::Cut | Flavour::Even { .. } => HashMap::new(),
        };
        // Where the last chunk that is the same was: what follows it there stood here.
        let mut next = None;
        for chunk in chunks {
            let id = chunk.id;
            if let Some(&at) = by_id.get(&id) {
                next = Some(at + 1);
                sink.push(Op::Known(olds[at].copy))?;
                continue;
            }
            if id == HOLE {
                sink.push(Op::Known(HOLE))?;
                continue;
            }
            let at_place = || {
                let after = olds.partition_point(|old| old.part.offset <= chunk.offset);
                after.checked_sub(1)
            };
            let follower = match flavour {
                Flavour::Even { .. } => at_place(),
                Flavour::Cut | Flavour::Marked => next.or_else(at_place),
            };
            let follower = follower.and_then(|at| olds.get(at)).map(|old| old.copy);
            let predecessor = by_mark.get(&chunk.mark).copied().or(follower);
            next = next.map(|at| at + 1);
            sink.push(Op::Chunk {
                id,
                predecessor: predecessor.filter(|id| *id != HOLE),
            })?;
        }
        Ok(())
    }

    /// Opens lists of the earlier stream until none is above this level.
    fn lower_parts(
        &mut self,
        sink: &mut dyn Sink,
        flavour: Flavour,
        olds: &[OldPart],
        level: u8,
    ) -> Faulty<Vec<OldPart>> {
        let mut ahead: Vec<OldPart> = olds.iter().rev().copied().collect();
        let mut lowered = Vec::new();
        while let Some(old) = ahead.pop() {
            if old.part.level <= level || old.part.id == HOLE {
                lowered.push(old);
                continue;
            }
            let Some((originals, copies)) = self.read_old_list(&old, flavour)? else {
                continue;
            };
            for (part, copy) in originals.into_iter().zip(copies).rev() {
                if part.level > 0 && part.id != HOLE {
                    sink.learn(part.id, copy.id);
                }
                ahead.push(OldPart {
                    part,
                    copy: copy.id,
                });
            }
        }
        Ok(lowered)
    }

    fn read_list(&mut self, part: &Part) -> Result<ListNode> {
        let source = self.source;
        let bytes = source.read(&mut self.scratch, ChunkKind::List, &part.id)?;
        self.read_bytes += bytes.len() as u64;
        let node = decode_list(&bytes, part);
        self.scratch.recycle(bytes);
        self.scratch.touched.clear();
        node
    }

    /// Reads the children of a list and of its copy; `None` if one of them is not as it should be.
    fn read_old_list(
        &mut self,
        old: &OldPart,
        flavour: Flavour,
    ) -> Faulty<Option<(Vec<Part>, Vec<Part>)>> {
        let original = self.read_list(&old.part);
        let original = original.and_then(|node| children(&node, &old.part, flavour));
        let Some(originals) = self.unless_damaged(original).map_err(Fault::Source)? else {
            return Ok(None);
        };
        let copy = Part {
            id: old.copy,
            ..old.part
        };
        let target = self.target;
        let read = target.read(&mut self.target_scratch, ChunkKind::List, &copy.id);
        let node = read.and_then(|bytes| decode_list(&bytes, &copy));
        self.target_scratch.touched.clear();
        let copies = node.and_then(|node| children(&node, &copy, flavour));
        let Some(copies) = self.unless_damaged(copies).map_err(Fault::Target)? else {
            return Ok(None);
        };
        let ends = |parts: &[Part]| -> Vec<u64> { parts.iter().map(|part| part.offset).collect() };
        match ends(&originals) == ends(&copies) {
            true => Ok(Some((originals, copies))),
            false => {
                self.doubt = true;
                Ok(None)
            }
        }
    }
}

fn decode_list(bytes: &[u8], part: &Part) -> Result<ListNode> {
    let object = || format!("list {}", part.id);
    let node = ListNode::decode(bytes).map_err(|malformed| malformed.of(object()))?;
    match node.level == part.level {
        true => Ok(node),
        false => Err(Error::corrupt(object(), "its level contradicts its parent")),
    }
}

/// Returns the children of a node with their places, which have to fill it.
fn children(node: &ListNode, part: &Part, flavour: Flavour) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    let end = part.offset.saturating_add(part.plain_bytes);
    let mut offset = part.offset;
    let mut add = |plain_bytes: u64, id, mark| {
        parts.push(Part {
            level: part.level - 1,
            id,
            offset,
            plain_bytes,
            mark,
        });
        offset = offset.saturating_add(plain_bytes);
        plain_bytes > 0 && offset <= end
    };
    let is_sound = match (&node.children, flavour) {
        (Children::Cut(children), Flavour::Cut) | (Children::Marked(children), Flavour::Marked) => {
            let mut children = children.iter();
            children.all(|child| add(child.plain_bytes, child.id, child.mark))
        }
        (Children::Even { unit_bytes, ids }, Flavour::Even { unit_bytes: unit })
            if *unit_bytes == unit =>
        {
            let per_child = even_child_bytes(unit, part.level);
            let mut left = part.plain_bytes;
            ids.iter().all(|id| {
                let plain_bytes = left.min(per_child);
                left -= plain_bytes;
                add(plain_bytes, *id, 0)
            })
        }
        _ => false,
    };
    match is_sound && offset == end {
        true => Ok(parts),
        false => Err(Error::corrupt(
            format!("list {}", part.id),
            "its lengths contradict the stream",
        )),
    }
}

/// Returns the parts that share bytes with this place.
fn overlapping<'o>(olds: &'o [OldPart], part: &Part) -> &'o [OldPart] {
    let start = olds.partition_point(|old| old.part.offset + old.part.plain_bytes <= part.offset);
    let end = part.offset + part.plain_bytes;
    let end = olds.partition_point(|old| old.part.offset < end);
    &olds[start..end.max(start)]
}
