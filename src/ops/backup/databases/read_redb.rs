//! Reading a captured redb database into a stream of extents.
//!
//! Pages move at every commit, so their order in the file says nothing. They go out in the order of
//! their keys and are cut where the first key of a page hashes to zero bits: what was written to
//! one part of the key space changes the chunks of that part.

use crate::context::Event;
use crate::error::Result;
use crate::format::extents;
use crate::format::extents::Extent;
use crate::format::list::Flavour;
use crate::format::list::Stream;
use crate::format::list::StreamKind;
use crate::ops::backup::databases::Io;
use crate::ops::backup::databases::group::Refusal;
use crate::ops::backup::pending::PendingStream;
use crate::source;

/// A chunk is cut at the first key that says so after this many bytes,
const CUT_BYTES_MIN: usize = 32 << 10;
/// and anywhere after this many.
const CUT_BYTES_MAX: usize = 512 << 10;
/// A key says so if these bits of its hash are zero.
const CUT_MASK: u64 = 31;

/// Stores what was captured.
pub(super) fn store<'a>(
    io: &mut Io<'_, 'a>,
    database: &source::redb::Database,
    old: Option<(Stream, u64)>,
) -> Result<Result<Stream, Refusal>> {
    let mut stream = PendingStream::begin(Flavour::Marked, io.predecessors(old));
    let Some(mut pages) = database.pages() else {
        return Ok(Err(Refusal::Redb(source::redb::Refusal::Stopped)));
    };
    let mut piece_bytes = Vec::new();
    let mut chunk = Chunk::default();
    loop {
        io.cx.check()?;
        let piece = match pages.next(&mut piece_bytes) {
            Ok(Some(piece)) => piece,
            Ok(None) => break,
            Err(refusal) => {
                stream.discard(io.pool, io.totals)?;
                return Ok(Err(Refusal::Redb(refusal)));
            }
        };
        let may_cut = piece.identity.is_some_and(|hash| hash & CUT_MASK == 0);
        if may_cut && chunk.bytes.len() >= CUT_BYTES_MIN
            || chunk.bytes.len() + piece_bytes.len() > CUT_BYTES_MAX
        {
            chunk.end(io, &mut stream)?;
        }
        chunk.push(&piece, &piece_bytes);
    }
    chunk.end(io, &mut stream)?;
    let extents_bytes = stream.size_bytes;
    stream.kind = StreamKind::Redb { extents_bytes };
    Ok(Ok(stream.finish(io.pool, io.totals)?))
}

/// The pages between two cuts.
#[derive(Default)]
struct Chunk {
    /// Where each piece lies in the file, and its length.
    places: Vec<(u64, usize)>,
    bytes: Vec<u8>,
    mark: u32,
}

impl Chunk {
    fn push(&mut self, piece: &source::redb::Piece, bytes: &[u8]) {
        if self.places.is_empty() {
            // The low bits are zero at every cut; zero altogether would mean no mark.
            let mark = piece.identity.map(|hash| (hash >> 32) as u32 | 1);
            self.mark = mark.unwrap_or(0);
        }
        self.places.push((piece.offset, bytes.len()));
        self.bytes.extend_from_slice(bytes);
    }

    fn end(&mut self, io: &mut Io<'_, '_>, stream: &mut PendingStream<'_>) -> Result<()> {
        if self.places.is_empty() {
            return Ok(());
        }
        let mut rest = &self.bytes[..];
        let extent = |(offset, len): &(u64, usize)| {
            let (bytes, after) = rest.split_at(*len);
            rest = after;
            Extent {
                offset: *offset,
                bytes,
            }
        };
        let all: Vec<Extent<'_>> = self.places.iter().map(extent).collect();
        let mut plain = io.pool.buffer();
        extents::put(&all, &mut plain);
        let bytes = self.bytes.len() as u64;
        io.totals.figures.read_bytes += bytes;
        io.totals.told_bytes += bytes;
        io.cx.progress.event(Event::Done { files: 0, bytes });
        let mark = self.mark;
        self.places.clear();
        self.bytes.clear();
        stream.push_chunk(io.pool, io.totals, plain, mark)
    }
}
