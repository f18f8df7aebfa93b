//! Looks into a snapshot without restoring it: `ls`, `cat`, and finding one entry.

use crate::context::Context;
use crate::context::Event;
use crate::disk;
use crate::disk::beneath;
use crate::error::Error;
use crate::error::Result;
use crate::format::database;
use crate::format::database::DatabaseRecord;
use crate::format::list::HOLE;
use crate::format::list::Stream;
use crate::format::list::StreamKind;
use crate::format::manifest::Manifest;
use crate::format::pack::CHUNK_BYTES_MAX;
use crate::format::pack::ChunkKind;
use crate::format::tree::Content;
use crate::format::tree::Entry;
use crate::format::tree::Kind;
use crate::format::tree::Leaf;
use crate::format::tree::TreeRoot;
use crate::format::tree::path_order;
use crate::id::ChunkId;
use crate::ops::scatter::Covered;
use crate::repo::chunks::Chunks;
use crate::repo::chunks::Scratch;
use crate::repo::stream::Piece;
use crate::repo::stream::Pieces;
use crate::repo::tree::LeafAt;
use crate::repo::tree::Leaves;
use std::cmp::Ordering;
use std::io::ErrorKind;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Longer buffers are not kept for the next chunk.
const KEPT_BYTES: usize = 2 << 20;
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// Calls `visit` with every entry at or below a path, in order. The empty path is everything.
pub fn ls(
    cx: &Context,
    chunks: &Chunks<'_>,
    manifest: &Manifest,
    path: &[u8],
    visit: &mut dyn FnMut(&Entry) -> Result<()>,
) -> Result<()> {
    let path = trimmed(path);
    let mut scratch = Scratch::default();
    let mut leaves = Leaves::begin_at(chunks, &manifest.tree, path);
    let mut found = path.is_empty();
    while let Some(LeafAt { leaf, .. }) = leaves.next(&mut scratch)? {
        cx.check()?;
        for entry in &leaf.entries {
            if beneath::is_within(&entry.path, path) {
                found = true;
                visit(entry)?;
            } else if path_order(path, &entry.path) == Ordering::Less {
                return found_or(found, path);
            }
        }
    }
    found_or(found, path)
}

/// Writes the content of a file, each byte only after the chunk it is in was verified. Returns
/// how many there were. A hard link has the content of the file it links to. What lies anywhere in
/// its file is put together in the cache directory or, without one, in `temp_dir`.
pub fn cat(
    cx: &Context,
    chunks: &Chunks<'_>,
    manifest: &Manifest,
    path: &[u8],
    temp_dir: &Path,
    out: &mut dyn Write,
) -> Result<u64> {
    let path = trimmed(path);
    let (at, index) = existing(chunks, manifest, path)?;
    let (at, index) = match &at.leaf.entries[index].kind {
        Kind::HardLink { path } => existing(chunks, manifest, path)?,
        _ => (at, index),
    };
    let mut scratch = Scratch::default();
    let entry = &at.leaf.entries[index];
    let mut write = |bytes: &[u8]| {
        let written = out.write_all(bytes);
        written.map_err(Error::io("write", "the output"))?;
        let bytes = bytes.len() as u64;
        cx.progress.event(Event::Done { files: 0, bytes });
        cx.check()
    };
    match &entry.kind {
        Kind::File {
            size_bytes,
            content,
        } => {
            match content {
                Content::Bundled(_) => write(&small_content(chunks, &mut scratch, &at, index)?)?,
                Content::Stream(stream) => {
                    let size_bytes = *size_bytes;
                    write_stream(
                        chunks,
                        &mut scratch,
                        stream,
                        size_bytes,
                        temp_dir,
                        &mut write,
                    )?;
                }
            }
            Ok(*size_bytes)
        }
        other => Err(Error::Refused {
            reason: format!("{} is {}, not a file", named(path), kind_name(other)),
        }),
    }
}

/// Writes the content of a file that has chunks of its own, as `cat` does.
pub(super) fn write_stream(
    chunks: &Chunks<'_>,
    scratch: &mut Scratch,
    stream: &Stream,
    size_bytes: u64,
    temp_dir: &Path,
    write: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    check_layout(stream)?;
    let mut pieces = Pieces::begin(chunks, stream, size_bytes);
    if let Some(covered) = Covered::of(stream, size_bytes) {
        return write_scattered(chunks, scratch, &covered, pieces, temp_dir, write);
    }
    while let Some(piece) = pieces.next(scratch)? {
        pieces.nodes.clear();
        write_piece(chunks, scratch, &piece, write)?;
    }
    Ok(())
}

/// Finds the entry with this path: the leaf that holds it and its place there.
pub fn find_entry(
    chunks: &Chunks<'_>,
    manifest: &Manifest,
    path: &[u8],
) -> Result<Option<(LeafAt, usize)>> {
    find_in(chunks, &mut Scratch::default(), &manifest.tree, path)
}

pub(super) fn find_in(
    chunks: &Chunks<'_>,
    scratch: &mut Scratch,
    root: &TreeRoot,
    path: &[u8],
) -> Result<Option<(LeafAt, usize)>> {
    let mut leaves = Leaves::begin_at(chunks, root, path);
    let Some(at) = leaves.next(scratch)? else {
        return Ok(None);
    };
    Ok(index_of(&at.leaf, path).map(|index| (at, index)))
}

/// Returns the place of a path in a leaf.
pub(super) fn index_of(leaf: &Leaf, path: &[u8]) -> Option<usize> {
    let search = leaf
        .entries
        .binary_search_by(|entry| path_order(&entry.path, path));
    search.ok()
}

/// Returns what is known of the databases in a snapshot.
pub fn databases(chunks: &Chunks<'_>, manifest: &Manifest) -> Result<Vec<DatabaseRecord>> {
    match &manifest.databases {
        Some(id) => databases_at(chunks, id),
        None => Ok(Vec::new()),
    }
}

pub(super) fn databases_at(chunks: &Chunks<'_>, id: &ChunkId) -> Result<Vec<DatabaseRecord>> {
    let plain = chunks.read(&mut Scratch::default(), ChunkKind::Data, id)?;
    let records = database::decode(&plain);
    records.map_err(|malformed| malformed.of(format!("the database records {id}")))
}

/// Reads the content of a file that lies in a bundle.
pub(super) fn small_content(
    chunks: &Chunks<'_>,
    scratch: &mut Scratch,
    at: &LeafAt,
    index: usize,
) -> Result<Vec<u8>> {
    let place = at.leaf.places().get(index).copied().flatten();
    let place = place.ok_or_else(|| {
        let reason = "a small file lies in no bundle";
        Error::corrupt(format!("tree node {}", at.id), reason)
    })?;
    if place.size_bytes == 0 {
        return Ok(Vec::new());
    }
    let id = at.leaf.bundles[place.bundle].id;
    let mut bundle = chunks.read(scratch, ChunkKind::Data, &id)?;
    let range = within(&bundle, place.offset, place.size_bytes);
    let range = range.ok_or_else(|| Error::corrupt(format!("bundle {id}"), "it is too short"))?;
    bundle.truncate(range.end);
    bundle.drain(..range.start);
    Ok(bundle)
}

/// Returns where in `bytes` so many from an offset on are, if they all are there.
pub(super) fn within(bytes: &[u8], offset: u64, len: u64) -> Option<std::ops::Range<usize>> {
    let start = usize::try_from(offset).ok()?;
    let end = start.checked_add(usize::try_from(len).ok()?)?;
    (end <= bytes.len()).then_some(start..end)
}

/// Reads the chunk of a piece that is no hole and checks that it is as long as its list says.
pub(super) fn read_piece(
    chunks: &Chunks<'_>,
    scratch: &mut Scratch,
    piece: &Piece,
) -> Result<Vec<u8>> {
    let contradiction = || {
        let reason = "its length is not what its list says";
        Error::corrupt(format!("chunk {}", piece.id), reason)
    };
    if piece.plain_bytes > u64::from(CHUNK_BYTES_MAX) {
        return Err(contradiction());
    }
    let plain = chunks.read(scratch, ChunkKind::Data, &piece.id)?;
    match plain.len() as u64 == piece.plain_bytes {
        true => Ok(plain),
        false => Err(contradiction()),
    }
}

/// Fails if nobody knows how a file is made of the bytes of a stream.
pub(super) fn check_layout(stream: &Stream) -> Result<()> {
    match stream.kind {
        StreamKind::File | StreamKind::Sqlite | StreamKind::Redb { .. } => Ok(()),
        // Reserved: whoever adds its captures says here how they are put together.
        StreamKind::Sled => Err(Error::Refused {
            reason: format!("a {:?} stream cannot be put together yet", stream.kind),
        }),
    }
}

/// Gives the buffer of a chunk back, unless it is too long to be kept.
pub(super) fn recycle(scratch: &mut Scratch, plain: Vec<u8>) {
    if plain.capacity() <= KEPT_BYTES {
        scratch.recycle(plain);
    }
}

/// Writes a file whose chunks lie anywhere in it: to a file without a name first, in which they
/// find their places, and from there in order.
fn write_scattered(
    chunks: &Chunks<'_>,
    scratch: &mut Scratch,
    covered: &Covered,
    mut pieces: Pieces<'_>,
    temp_dir: &Path,
    write: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let dir = chunks.repo().cache_dir().unwrap_or(temp_dir);
    let file = disk::unnamed_file(dir)?;
    let failed = |action| Error::io(action, dir.join("(a file without a name)"));
    while let Some(piece) = pieces.next(scratch)? {
        pieces.nodes.clear();
        covered.read(chunks, scratch, &piece, &mut |extent| {
            let written = file.write_all_at(extent.bytes, extent.offset);
            written.map_err(failed("write"))
        })?;
    }
    let mut buffer = vec![0; ZEROES.len()];
    let (mut offset, size_bytes) = (0, covered.size_bytes());
    while offset < size_bytes {
        let most = (size_bytes - offset).min(buffer.len() as u64) as usize;
        match file.read_at(&mut buffer[..most], offset) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed("read")(error)),
            // Behind the last extent.
            Ok(0) => return write_zeroes(size_bytes - offset, write),
            Ok(len) => {
                write(&buffer[..len])?;
                offset += len as u64;
            }
        }
    }
    Ok(())
}

fn write_zeroes(mut left: u64, write: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    while left > 0 {
        let now = left.min(ZEROES.len() as u64);
        write(&ZEROES[..now as usize])?;
        left -= now;
    }
    Ok(())
}

fn write_piece(
    chunks: &Chunks<'_>,
    scratch: &mut Scratch,
    piece: &Piece,
    write: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    if piece.id != HOLE {
        let plain = read_piece(chunks, scratch, piece)?;
        write(&plain)?;
        recycle(scratch, plain);
        return Ok(());
    }
    write_zeroes(piece.plain_bytes, write)
}

fn existing(chunks: &Chunks<'_>, manifest: &Manifest, path: &[u8]) -> Result<(LeafAt, usize)> {
    let found = find_entry(chunks, manifest, path)?;
    found.ok_or_else(|| Error::NotFound { what: named(path) })
}

fn found_or(found: bool, path: &[u8]) -> Result<()> {
    match found {
        true => Ok(()),
        false => Err(Error::NotFound { what: named(path) }),
    }
}

/// People write `/etc/`; in a tree it is `etc`.
fn trimmed(mut path: &[u8]) -> &[u8] {
    while let Some(rest) = path.strip_prefix(b"/") {
        path = rest;
    }
    while let Some(rest) = path.strip_suffix(b"/") {
        path = rest;
    }
    path
}

fn named(path: &[u8]) -> String {
    format!("\"{}\"", String::from_utf8_lossy(path))
}

/// Returns what an entry is, in words.
pub(super) fn kind_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Directory => "a directory",
        Kind::File { .. } => "a file",
        Kind::Symlink { .. } => "a symlink",
        Kind::HardLink { .. } => "a hard link",
        Kind::Fifo => "a named pipe",
        Kind::Socket => "a socket",
        Kind::CharDevice { .. } | Kind::BlockDevice { .. } => "a device",
    }
}
