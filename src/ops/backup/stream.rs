//! Large files: read and cut by content, holes left out.

use crate::chunker;
use crate::chunker::Cutter;
use crate::context::Context;
use crate::context::Event;
use crate::error::Result;
use crate::format::list::Flavour;
use crate::ops::backup::Totals;
use crate::ops::backup::pending::PendingStream;
use crate::ops::backup::pool::Pool;
use crate::ops::backup::predecessors::Predecessors;
use crate::source::files::FileReader;
use crate::source::files::Problem;
use std::ops::Range;

/// Bytes read at once.
const READ_BYTES: usize = 2 * chunker::MAX_BYTES;

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
        let mut stream = PendingStream::begin(Flavour::Cut, predecessors);
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
                totals.told_bytes += read as u64;
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
            stream.push_chunk(pool, totals, plain, 0)?;
            used += len;
        }
    }
}
