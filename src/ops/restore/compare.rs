//! Compares the content of files in the target with that of the snapshot.

use crate::error::Result;
use crate::format::list::HOLE;
use crate::format::pack::CHUNK_BYTES_MAX;
use crate::format::pack::ChunkKind;
use crate::format::tree::Content;
use crate::format::tree::Entry;
use crate::format::tree::Kind;
use crate::ops::restore::target::Target;
use crate::repo::chunks::Chunks;
use crate::repo::chunks::Scratch;
use crate::repo::stream::Pieces;
use std::fs::File;
use std::os::unix::fs::FileExt;

static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// Returns whether the content of a large file in the target is that of the snapshot. Nothing is
/// decoded: the bytes on the disk are hashed as the chunks were.
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
