//! A stream on its way into the repository: chunks go in, lists grow above them.

use crate::error::Result;
use crate::format::list;
use crate::format::list::Child;
use crate::format::list::Children;
use crate::format::list::EVEN_CHILDREN;
use crate::format::list::Flavour;
use crate::format::list::HOLE;
use crate::format::list::ListNode;
use crate::format::list::Stream;
use crate::format::list::StreamKind;
use crate::format::pack::ChunkKind;
use crate::ops::backup::Totals;
use crate::ops::backup::pool::Pool;
use crate::ops::backup::pool::Ticket;
use crate::ops::backup::predecessors::Predecessors;
use std::collections::VecDeque;

/// Chunks that may be on their way before the list waits for the first of them.
const AHEAD_MAX: usize = 32;

/// A stream whose last chunks may still be on their way.
pub(super) struct PendingStream<'a> {
    flavour: Flavour,
    ahead: VecDeque<Ahead>,
    levels: Vec<Level>,
    predecessors: Predecessors<'a>,
    /// Bytes taken in so far.
    pub size_bytes: u64,
    /// What it was captured from.
    pub kind: StreamKind,
}

/// A chunk or a hole (no ticket) that is not listed yet.
struct Ahead {
    offset: u64,
    plain_bytes: u64,
    ticket: Option<Ticket>,
    mark: u32,
}

/// The node that is being filled above the chunks, or above nodes.
#[derive(Default)]
struct Level {
    children: Vec<Child>,
    /// Where in the stream it begins.
    offset: u64,
}

impl<'a> PendingStream<'a> {
    /// Begins an empty stream.
    pub(super) fn begin(flavour: Flavour, predecessors: Predecessors<'a>) -> PendingStream<'a> {
        PendingStream {
            flavour,
            ahead: VecDeque::new(),
            levels: vec![Level::default()],
            predecessors,
            size_bytes: 0,
            kind: StreamKind::File,
        }
    }

    /// Adds a chunk; `mark` is by which key of the source it was cut, zero if by none.
    pub(super) fn push_chunk(
        &mut self,
        pool: &mut Pool,
        totals: &mut Totals,
        plain: Vec<u8>,
        mark: u32,
    ) -> Result<()> {
        let plain_bytes = plain.len() as u64;
        let predecessor = self.predecessors.at(self.size_bytes, plain_bytes, mark);
        let ticket = pool.submit_chunk(ChunkKind::Data, plain, predecessor)?;
        self.push_ahead(plain_bytes, Some(ticket), mark);
        self.settle(pool, totals, AHEAD_MAX)
    }

    /// Adds zeroes that are stored nowhere. In an even stream they are as long as a chunk.
    pub(super) fn push_hole(
        &mut self,
        pool: &mut Pool,
        totals: &mut Totals,
        plain_bytes: u64,
    ) -> Result<()> {
        self.push_ahead(plain_bytes, None, 0);
        self.settle(pool, totals, AHEAD_MAX)
    }

    fn push_ahead(&mut self, plain_bytes: u64, ticket: Option<Ticket>, mark: u32) {
        self.ahead.push_back(Ahead {
            offset: self.size_bytes,
            plain_bytes,
            ticket,
            mark,
        });
        self.size_bytes += plain_bytes;
    }

    /// Waits until no more than so many chunks are on their way.
    fn settle(&mut self, pool: &mut Pool, totals: &mut Totals, most: usize) -> Result<()> {
        while self.ahead.len() > most {
            let Some(Ahead {
                offset,
                plain_bytes,
                ticket,
                mark,
            }) = self.ahead.pop_front()
            else {
                break;
            };
            let id = match ticket {
                None => HOLE,
                Some(ticket) => {
                    let stored = pool.wait_chunk(ticket)?;
                    totals.count_stored(plain_bytes, stored.stored_bytes);
                    match self.flavour {
                        Flavour::Cut => self.predecessors.observe(offset, &stored.id),
                        // Here everything has its place, wherever its like may be.
                        Flavour::Marked | Flavour::Even { .. } => self.predecessors.pass(offset),
                    }
                    stored.id
                }
            };
            let child = Child {
                plain_bytes,
                id,
                mark,
            };
            self.push_child(pool, totals, 0, child)?;
        }
        Ok(())
    }

    fn push_child(
        &mut self,
        pool: &mut Pool,
        totals: &mut Totals,
        below: usize,
        child: Child,
    ) -> Result<()> {
        if self.levels.len() == below {
            self.levels.push(Level::default());
        }
        self.levels[below].children.push(child);
        let count = self.levels[below].children.len();
        let is_full = match self.flavour {
            Flavour::Even { .. } => count == EVEN_CHILDREN,
            Flavour::Cut | Flavour::Marked => list::ends_after(count, &child.id),
        };
        match is_full {
            true => self.end_node(pool, totals, below),
            false => Ok(()),
        }
    }

    fn end_node(&mut self, pool: &mut Pool, totals: &mut Totals, below: usize) -> Result<()> {
        let Level { children, offset } = &mut self.levels[below];
        let children = std::mem::take(children);
        let plain_bytes = children.iter().map(|child| child.plain_bytes).sum();
        let mark = children.first().map_or(0, |child| child.mark);
        let start = std::mem::replace(offset, *offset + plain_bytes);
        let level = below as u8 + 1;
        let node = ListNode {
            level,
            children: match self.flavour {
                Flavour::Cut => Children::Cut(children),
                Flavour::Marked => Children::Marked(children),
                Flavour::Even { unit_bytes } => Children::Even {
                    unit_bytes,
                    ids: children.iter().map(|child| child.id).collect(),
                },
            },
        }
        .encode();
        let predecessor = self.predecessors.node(level, start);
        let ticket = pool.submit_chunk(ChunkKind::List, node, predecessor)?;
        let stored = pool.wait_chunk(ticket)?;
        totals.count_record(stored.stored_bytes);
        self.push_child(
            pool,
            totals,
            below + 1,
            Child {
                plain_bytes,
                id: stored.id,
                mark,
            },
        )
    }

    /// Waits for the rest and returns what an entry holds.
    pub(super) fn finish(mut self, pool: &mut Pool, totals: &mut Totals) -> Result<Stream> {
        let (flavour, kind) = (self.flavour, self.kind);
        let stream = |root, level| Stream {
            root,
            level,
            flavour,
            kind,
        };
        self.settle(pool, totals, 0)?;
        let mut below = 0;
        loop {
            let is_top = self.levels[below + 1..]
                .iter()
                .all(|level| level.children.is_empty());
            match (is_top, &self.levels[below].children[..]) {
                (true, []) => return Ok(stream(HOLE, 0)),
                (true, [only]) => return Ok(stream(only.id, below as u8)),
                (false, []) => {}
                _ => self.end_node(pool, totals, below)?,
            }
            below += 1;
        }
    }

    /// Waits for the rest and forgets it: the file is read again.
    pub(super) fn discard(mut self, pool: &mut Pool, totals: &mut Totals) -> Result<()> {
        self.settle(pool, totals, 0)
    }
}
