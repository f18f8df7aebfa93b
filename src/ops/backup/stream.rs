//! Large files: cut by content, stored chunk by chunk, listed.

use crate::chunker;
use crate::chunker::Cutter;
use crate::context::Context;
use crate::context::Event;
use crate::error::Result;
use crate::format::list;
use crate::format::list::Child;
use crate::format::list::Children;
use crate::format::list::Flavour;
use crate::format::list::HOLE;
use crate::format::list::ListNode;
use crate::format::list::Stream;
use crate::format::list::StreamKind;
use crate::format::pack::ChunkKind;
use crate::id::ChunkId;
use crate::ops::backup::Totals;
use crate::ops::backup::pool::Pool;
use crate::ops::backup::pool::Ticket;
use crate::ops::backup::predecessors::Predecessors;
use crate::source::files::FileReader;
use crate::source::files::Problem;
use std::collections::VecDeque;
use std::ops::Range;

/// Chunks that may be on their way before the list waits for the first of them.
const AHEAD_MAX: usize = 32;
/// Bytes read at once.
const READ_BYTES: usize = 2 * chunker::MAX_BYTES;

/// A stream whose last chunks may still be on their way.
pub(super) struct PendingStream<'a> {
    ahead: VecDeque<(u64, u64, Option<Ticket>)>,
    levels: Vec<Level>,
    predecessors: Predecessors<'a>,
    /// Bytes taken in so far.
    pub size_bytes: u64,
}

/// The node that is being filled above the chunks, or above nodes.
#[derive(Default)]
struct Level {
    children: Vec<Child>,
    /// Where in the stream it begins.
    offset: u64,
}

/// What cutting a file needs and keeps from file to file.
pub(super) struct StreamReader {
    cutter: Cutter,
    buffer: Vec<u8>,
}

impl StreamReader {
    pub(super) fn new(cut_key: &[u8; 32]) -> StreamReader {
        StreamReader {
            cutter: Cutter::new(cut_key),
            buffer: Vec::new(),
        }
    }

    /// Reads a file to its end and hands out its chunks. The outer result is the store's, the inner
    /// one the source's.
    pub(super) fn read<'a>(
        &mut self,
        cx: &Context,
        pool: &mut Pool,
        totals: &mut Totals,
        file: &FileReader,
        predecessors: Predecessors<'a>,
    ) -> Result<Result<PendingStream<'a>, Problem>> {
        let mut stream = PendingStream {
            ahead: VecDeque::new(),
            levels: vec![Level::default()],
            predecessors,
            size_bytes: 0,
        };
        loop {
            let data = match file.next_data(stream.size_bytes) {
                Ok(data) => data,
                Err(problem) => return Ok(Err(problem)),
            };
            let end = data
                .as_ref()
                .map_or(file.stat().size_bytes, |data| data.start);
            if end > stream.size_bytes {
                stream.push_hole(pool, totals, end - stream.size_bytes)?;
            }
            let Some(data) = data else {
                return Ok(Ok(stream));
            };
            match self.read_range(cx, pool, totals, file, &mut stream, &data)? {
                // The file became shorter while it was read; the caller will notice.
                Ok(()) if stream.size_bytes < data.end => return Ok(Ok(stream)),
                Ok(()) => {}
                Err(problem) => return Ok(Err(problem)),
            }
        }
    }

    fn read_range(
        &mut self,
        cx: &Context,
        pool: &mut Pool,
        totals: &mut Totals,
        file: &FileReader,
        stream: &mut PendingStream<'_>,
        range: &Range<u64>,
    ) -> Result<Result<(), Problem>> {
        let (mut filled, mut used, mut offset) = (0, 0, range.start);
        self.buffer.resize(READ_BYTES, 0);
        loop {
            if filled - used < chunker::MAX_BYTES && offset < range.end {
                self.buffer.copy_within(used..filled, 0);
                filled -= used;
                used = 0;
                let room = (READ_BYTES - filled) as u64;
                let wanted = room.min(range.end - offset) as usize;
                let read = match file.read_at(offset, &mut self.buffer[filled..filled + wanted]) {
                    Ok(read) => read,
                    Err(problem) => return Ok(Err(problem)),
                };
                cx.check()?;
                cx.progress.event(Event::Done {
                    files: 0,
                    bytes: read as u64,
                });
                totals.figures.read_bytes += read as u64;
                filled += read;
                // An end before the expected one ends the stream there.
                offset = if read < wanted {
                    range.end
                } else {
                    offset + read as u64
                };
            }
            if used == filled {
                return Ok(Ok(()));
            }
            let len = self.cutter.cut(&self.buffer[used..filled]);
            let mut plain = pool.buffer();
            plain.extend_from_slice(&self.buffer[used..used + len]);
            stream.push_chunk(pool, totals, plain)?;
            used += len;
        }
    }
}

impl<'a> PendingStream<'a> {
    fn push_chunk(&mut self, pool: &mut Pool, totals: &mut Totals, plain: Vec<u8>) -> Result<()> {
        let len = plain.len() as u64;
        let predecessor = self.predecessors.at(self.size_bytes, len);
        let ticket = pool.submit_chunk(ChunkKind::Data, plain, predecessor)?;
        self.ahead.push_back((self.size_bytes, len, Some(ticket)));
        self.size_bytes += len;
        self.settle(pool, totals, AHEAD_MAX)
    }

    fn push_hole(&mut self, pool: &mut Pool, totals: &mut Totals, len: u64) -> Result<()> {
        self.ahead.push_back((self.size_bytes, len, None));
        self.size_bytes += len;
        self.settle(pool, totals, AHEAD_MAX)
    }

    /// Waits until no more than so many chunks are on their way.
    fn settle(&mut self, pool: &mut Pool, totals: &mut Totals, most: usize) -> Result<()> {
        while self.ahead.len() > most {
            let Some((offset, plain_bytes, ticket)) = self.ahead.pop_front() else {
                break;
            };
            let id = match ticket {
                None => HOLE,
                Some(ticket) => {
                    let stored = pool.wait_chunk(ticket)?;
                    totals.count_stored(plain_bytes, stored.stored_bytes);
                    self.predecessors.observe(offset, &stored.id);
                    stored.id
                }
            };
            self.push_child(pool, totals, 0, Child { plain_bytes, id })?;
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
        match list::ends_after(self.levels[below].children.len(), &child.id) {
            true => self.end_node(pool, totals, below),
            false => Ok(()),
        }
    }

    fn end_node(&mut self, pool: &mut Pool, totals: &mut Totals, below: usize) -> Result<()> {
        let Level { children, offset } = &mut self.levels[below];
        let children = std::mem::take(children);
        let plain_bytes = children.iter().map(|child| child.plain_bytes).sum();
        let start = std::mem::replace(offset, *offset + plain_bytes);
        let level = below as u8 + 1;
        let node = ListNode {
            level,
            children: Children::Cut(children),
        }
        .encode();
        let node_bytes = node.len() as u64;
        let predecessor = self.predecessors.node(level, start);
        let ticket = pool.submit_chunk(ChunkKind::List, node, predecessor)?;
        let stored = pool.wait_chunk(ticket)?;
        totals.count_stored(node_bytes, stored.stored_bytes);
        self.push_child(
            pool,
            totals,
            below + 1,
            Child {
                plain_bytes,
                id: stored.id,
            },
        )
    }

    /// Waits for the rest and returns what an entry holds.
    pub(super) fn finish(mut self, pool: &mut Pool, totals: &mut Totals) -> Result<Stream> {
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

fn stream(root: ChunkId, level: u8) -> Stream {
    Stream {
        root,
        level,
        flavour: Flavour::Cut,
        kind: StreamKind::File,
    }
}
