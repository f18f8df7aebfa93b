//! Compares the content of files in the target with that of the snapshot.

use crate::error::Result;
use crate::format::extents::EXTENT_BLOCK_BYTES;
use crate::format::list::HOLE;
use crate::format::pack::CHUNK_BYTES_MAX;
use crate::format::pack::ChunkKind;
use crate::format::tree::Content;
use crate::format::tree::Entry;
use crate::format::tree::Kind;
use crate::ops::restore::target::Target;
use crate::ops::scatter;
use crate::ops::scatter::Covered;
use crate::repo::chunks::Chunks;
use crate::repo::chunks::Scratch;
use crate::repo::stream::Pieces;
use std::fs::File;
use std::os::unix::fs::FileExt;

static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// Returns whether the content of a large file in the target is that of the snapshot. Where chunks
/// are runs of the file nothing is decoded: the bytes on the disk are hashed as they were.
pub(super) fn stream_matches(
    chunks: &Chunks<'_>,
    scratch: &mut Scratch,
    target: &Target,
    entry: &Entry,
) -> Result<bool> {
    let Kind::File {
        size_bytes,
        content: Content::Stream(stream),
    } = entry.kind
    else {
        return Ok(false);
    };
    let Some(now) = target.jail.read_file(&entry.path)? else {
        return Ok(false);
    };
    if let Some(covered) = Covered::of(&stream, size_bytes) {
        let pieces = Pieces::begin(chunks, &stream, size_bytes);
        return extents_match(chunks, scratch, &now, pieces, &covered);
    }
    let mut pieces = Pieces::begin(chunks, &stream, size_bytes);
    let mut buffer = Vec::new();
    while let Some(piece) = pieces.next(scratch)? {
        pieces.nodes.clear();
        if piece.id == HOLE {
            if !reads_as_zeroes(&now, piece.offset, piece.plain_bytes) {
                return Ok(false);
            }
            continue;
        }
        if piece.plain_bytes > u64::from(CHUNK_BYTES_MAX) {
            return Ok(false);
        }
        buffer.resize(piece.plain_bytes as usize, 0);
        let is_read = now.read_exact_at(&mut buffer, piece.offset).is_ok();
        let id = chunks.repo().secrets().chunk_id(ChunkKind::Data, &buffer);
        if !is_read || id != piece.id {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Compares every extent, and that there are zeroes between them.
fn extents_match(
    chunks: &Chunks<'_>,
    scratch: &mut Scratch,
    now: &File,
    mut pieces: Pieces<'_>,
    covered: &Covered,
) -> Result<bool> {
    let mut same = true;
    while let Some(piece) = pieces.next(scratch)? {
        pieces.nodes.clear();
        covered.read(chunks, scratch, &piece, &mut |extent| {
            // The rest of the last block belongs to no extent, and to no gap of whole blocks.
            let end = scatter::end(extent);
            let block_end = end
                .next_multiple_of(EXTENT_BLOCK_BYTES)
                .min(covered.size_bytes());
            same = same
                && reads_as(now, extent.offset, extent.bytes)
                && reads_as_zeroes(now, end, block_end - end);
            Ok(())
        })?;
        if !same {
            return Ok(false);
        }
    }
    Ok(covered.gaps(|gap| reads_as_zeroes(now, gap.start, gap.end - gap.start)))
}

/// Returns whether a file has these bytes from an offset on.
pub(super) fn reads_as(file: &File, offset: u64, bytes: &[u8]) -> bool {
    let mut now = vec![0; bytes.len()];
    file.read_exact_at(&mut now, offset).is_ok() && now == bytes
}

fn reads_as_zeroes(file: &File, start: u64, len: u64) -> bool {
    let end = start.saturating_add(len);
    let mut offset = start;
    while offset < end {
        let now = (end - offset).min(ZEROES.len() as u64);
        if !reads_as(file, offset, &ZEROES[..now as usize]) {
            return false;
        }
        offset += now;
    }
    true
}
