//! Large files: pieces that several threads write, and the name once the last one is written.

use crate::disk::jail::NewFile;
use crate::error::Error;
use crate::error::Result;
use crate::format::list::HOLE;
use crate::format::list::Stream;
use crate::format::tree::Content;
use crate::format::tree::Entry;
use crate::format::tree::Kind;
use crate::ops::inspect;
use crate::ops::restore::Sparse;
use crate::ops::restore::compare;
use crate::ops::restore::content;
use crate::ops::restore::content::Job;
use crate::ops::restore::content::or_fail;
use crate::ops::restore::queue::Queue;
use crate::ops::restore::run;
use crate::ops::restore::run::Run;
use crate::ops::scatter::Covered;
use crate::repo::chunks::Scratch;
use crate::repo::stream::Piece;
use crate::repo::stream::Pieces;
use std::ops::Range;
use std::sync::Arc;
use std::sync::OnceLock;

/// A thread hands pieces of a large file on in runs of about so many bytes.
const RUN_BYTES: u64 = 2 << 20;
const RUN_PIECES: usize = 64;
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// A large file that several threads write to. Whoever lets go of it last gives it its name.
pub(super) struct LargeFile<'r> {
    entry: Entry,
    size_bytes: u64,
    file: NewFile<'r>,
    failed: OnceLock<Error>,
    /// For a stream of extents.
    covered: Option<Covered>,
}

/// Begins a large file. Runs of pieces that other threads have room for go to them.
pub(super) fn begin_stream<'r>(
    run: &'r Run<'r>,
    queue: &Queue<Job<'r>>,
    scratch: &mut Scratch,
    entry: Entry,
) -> Result<()> {
    let path = entry.path.clone();
    match try_stream(run, queue, scratch, entry) {
        Ok(Some(file)) => release(run, file),
        Ok(None) => {
            run.progress(1, 0);
            Ok(())
        }
        Err(error) => {
            run.progress(1, 0);
            run.fail(&path, error)
        }
    }
}

fn try_stream<'r>(
    run: &'r Run<'r>,
    queue: &Queue<Job<'r>>,
    scratch: &mut Scratch,
    entry: Entry,
) -> Result<Option<Arc<LargeFile<'r>>>> {
    let Kind::File {
        size_bytes,
        content: Content::Stream(stream),
    } = entry.kind
    else {
        return Ok(None);
    };
    inspect::check_layout(&stream)?;
    let state = run.state(&entry)?;
    if content::has_content(state)
        && (!run.compares_content(&entry.kind)
            || compare::stream_matches(run.chunks, scratch, run.compared(), &entry)?)
    {
        content::settle(run, &entry, state)?;
        return Ok(None);
    }
    let file = Arc::new(LargeFile {
        file: run.target.jail.begin_file(&entry.path)?,
        entry,
        size_bytes,
        failed: OnceLock::new(),
        covered: Covered::of(&stream, size_bytes),
    });

    match hand_out(run, queue, scratch, &file, &stream) {
        Err(error) if run::is_fatal(&error) => Err(error),
        // Reported once, by whoever lets go last.
        Err(error) => {
            let _ = file.failed.set(error);
            Ok(Some(file))
        }
        Ok(()) => Ok(Some(file)),
    }
}

fn hand_out<'r>(
    run: &'r Run<'r>,
    queue: &Queue<Job<'r>>,
    scratch: &mut Scratch,
    file: &Arc<LargeFile<'r>>,
    stream: &Stream,
) -> Result<()> {
    if file.covered.is_some() {
        // What lies between extents is known last, so all of it is zero first.
        write_zeroes(run, file, 0..file.size_bytes)?;
    }
    let mut pieces = Pieces::begin(run.chunks, stream, file.size_bytes);
    let (mut batch, mut batch_bytes) = (Vec::new(), 0_u64);
    while let Some(piece) = pieces.next(scratch)? {
        pieces.nodes.clear();
        if piece.id != HOLE {
            batch_bytes = batch_bytes.saturating_add(piece.plain_bytes);
        }
        batch.push(piece);
        if batch_bytes < RUN_BYTES && batch.len() < RUN_PIECES {
            continue;
        }
        batch_bytes = 0;
        let job = Job::Pieces(Arc::clone(file), std::mem::take(&mut batch));
        if let Some(Job::Pieces(file, batch)) = queue.offer(job) {
            write_pieces(run, scratch, &file, &batch)?;
        }
        if file.failed.get().is_some() {
            return Ok(());
        }
    }
    write_pieces(run, scratch, file, &batch)
}

/// Writes pieces of a file. What concerns only this file is noted in it.
pub(super) fn write_pieces(
    run: &Run<'_>,
    scratch: &mut Scratch,
    file: &LargeFile<'_>,
    pieces: &[Piece],
) -> Result<()> {
    for piece in pieces {
        run.check()?;
        if file.failed.get().is_some() {
            return Ok(());
        }
        match write_piece(run, scratch, file, piece) {
            Ok(bytes) => run.progress(0, bytes),
            Err(error) if run::is_fatal(&error) => return run.fail(&file.entry.path, error),
            Err(error) => {
                let _ = file.failed.set(error);
            }
        }
    }
    if let (Some(first), Some(last), None) = (pieces.first(), pieces.last(), &file.covered) {
        let end = last.offset.saturating_add(last.plain_bytes);
        file.file.begin_writeback(first.offset..end);
    }
    Ok(())
}

/// Returns how many bytes of the file it brought, holes included.
fn write_piece(
    run: &Run<'_>,
    scratch: &mut Scratch,
    file: &LargeFile<'_>,
    piece: &Piece,
) -> Result<u64> {
    if let Some(covered) = &file.covered {
        let _share = run.budget.take(piece.plain_bytes);
        return covered.read(run.chunks, scratch, piece, &mut |extent| {
            write_plain(run, file, extent.offset, extent.bytes)
        });
    }
    if piece.id == HOLE {
        write_zeroes(run, file, piece.offset..piece.offset + piece.plain_bytes)?;
        return Ok(piece.plain_bytes);
    }
    let _share = run.budget.take(piece.plain_bytes);
    let plain = inspect::read_piece(run.chunks, scratch, piece)?;
    write_plain(run, file, piece.offset, &plain)?;
    inspect::recycle(scratch, plain);
    Ok(piece.plain_bytes)
}

fn write_plain(run: &Run<'_>, file: &LargeFile<'_>, offset: u64, plain: &[u8]) -> Result<()> {
    match run.options.sparse == Sparse::Holes && is_zero(plain) {
        true => Ok(()),
        false => file.file.write_at(offset, plain),
    }
}

/// Writes zeroes where holes are not wanted.
fn write_zeroes(run: &Run<'_>, file: &LargeFile<'_>, range: Range<u64>) -> Result<()> {
    let mut offset = range.start;
    while offset < range.end && run.options.sparse == Sparse::Filled {
        run.check()?;
        let len = (range.end - offset).min(ZEROES.len() as u64);
        file.file.write_at(offset, &ZEROES[..len as usize])?;
        offset += len;
    }
    Ok(())
}

/// Lets go of a large file; the last one to do so publishes it.
pub(super) fn release(run: &Run<'_>, file: Arc<LargeFile<'_>>) -> Result<()> {
    let Some(file) = Arc::into_inner(file) else {
        return Ok(());
    };
    run.check()?;
    run.progress(1, 0);
    let LargeFile {
        entry,
        size_bytes,
        file,
        failed,
        covered,
    } = file;
    if let Some(covered) = covered {
        // Nobody has written what lies between extents.
        run.progress(0, size_bytes.saturating_sub(covered.bytes()));
    }
    let done = match failed.into_inner() {
        Some(error) => Err(error),
        // A hole at the end was not written.
        None => file
            .set_len(size_bytes)
            .and_then(|()| content::publish(run, file, &entry, size_bytes)),
    };
    or_fail(run, &entry.path, done)
}

fn is_zero(bytes: &[u8]) -> bool {
    let mut parts = bytes.chunks(ZEROES.len());
    parts.all(|part| *part == ZEROES[..part.len()])
}
