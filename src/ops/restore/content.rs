//! What the worker threads do: bundles of small files, large files piece by piece, other nodes.

use crate::disk::jail::NewFile;
use crate::disk::node;
use crate::disk::node::Problem;
use crate::error::Error;
use crate::error::Result;
use crate::format::list::HOLE;
use crate::format::list::Stream;
use crate::format::pack::CHUNK_BYTES_MAX;
use crate::format::pack::ChunkKind;
use crate::format::tree::BUNDLE_BYTES_MAX;
use crate::format::tree::Content;
use crate::format::tree::Entry;
use crate::format::tree::Kind;
use crate::format::tree::Place;
use crate::id::ChunkId;
use crate::ops::inspect;
use crate::ops::restore::Sparse;
use crate::ops::restore::queue::Queue;
use crate::ops::restore::run::Run;
use crate::ops::restore::target::State;
use crate::ops::restore::target::Target;
use crate::ops::restore::target::node_attributes;
use crate::repo::chunks::Chunks;
use crate::repo::chunks::Scratch;
use crate::repo::stream::Piece;
use crate::repo::stream::Pieces;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::OnceLock;

/// A thread hands pieces of a large file on in runs of about so many bytes.
const RUN_BYTES: u64 = 2 << 20;
const RUN_PIECES: usize = 64;
/// Longer buffers are not kept for the next chunk.
const KEPT_BYTES: usize = 2 << 20;
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// Something for a worker to do.
pub(super) enum Job<'r> {
    /// Small files that lie in one bundle.
    Bundle {
        id: ChunkId,
        files: Vec<(Entry, Place)>,
    },
    /// A large file.
    Stream(Box<Entry>),
    /// Some pieces of one.
    Pieces(Arc<LargeFile<'r>>, Vec<Piece>),
    /// Neither a file nor a directory nor a hard link.
    Node(Box<Entry>),
}

/// A large file that several threads write to. Whoever lets go of it last gives it its name.
pub(super) struct LargeFile<'r> {
    entry: Entry,
    size_bytes: u64,
    file: NewFile<'r>,
    failed: OnceLock<Error>,
}

/// Works until there is nothing more, or until everybody has to stop.
pub(super) fn work<'r>(run: &'r Run<'r>, queue: &Queue<Job<'r>>) {
    let mut scratch = Scratch::default();
    while let Some((job, _busy)) = queue.take() {
        let done = run
            .check()
            .and_then(|()| dispatch(run, queue, &mut scratch, job));
        scratch.touched.clear();
        if done.is_err() {
            queue.clear();
        }
    }
}

fn dispatch<'r>(
    run: &'r Run<'r>,
    queue: &Queue<Job<'r>>,
    scratch: &mut Scratch,
    job: Job<'r>,
) -> Result<()> {
    match job {
        Job::Bundle { id, files } => write_bundle(run, scratch, &id, files),
        Job::Stream(entry) => begin_stream(run, queue, scratch, *entry),
        Job::Pieces(file, pieces) => {
            write_pieces(run, scratch, &file, &pieces)?;
            release(run, file)
        }
        Job::Node(entry) => or_fail(run, &entry.path, make_node(run, &entry)),
    }
}

/// Writes the small files of one bundle; reads it once, and not at all if nothing is to be done.
fn write_bundle(
    run: &Run<'_>,
    scratch: &mut Scratch,
    id: &ChunkId,
    files: Vec<(Entry, Place)>,
) -> Result<()> {
    let mut due = Vec::with_capacity(files.len());
    for (entry, place) in files {
        match run.target.compare(&entry) {
            Ok(state) if run.is_done(state) && !run.compares_content() => {
                run.count(|report| report.equal += 1);
                run.progress(1, 0);
            }
            Ok(state) => due.push((entry, place, state)),
            Err(error) => run.fail(&entry.path, error)?,
        }
    }
    let is_needed = |(_, place, state): &(Entry, Place, State)| {
        place.size_bytes > 0 && (*state != State::Attributes || run.compares_content())
    };
    let _share = run.budget.take(BUNDLE_BYTES_MAX);
    let bundle = match due.iter().any(is_needed) {
        true => run.chunks.read(scratch, ChunkKind::Data, id),
        false => Ok(Vec::new()),
    };
    for (entry, place, state) in due {
        let content = match (&bundle, place.size_bytes) {
            (_, 0) => Ok(&[][..]),
            (Ok(bundle), size) => inspect::within(bundle, place.offset, size)
                .map(|range| &bundle[range])
                .ok_or_else(|| Error::corrupt(format!("bundle {id}"), "it is too short")),
            (Err(error), _) => Err(again(error)),
        };
        let done = match state {
            State::Attributes | State::Xattrs if !run.compares_content() => {
                set_attributes(run, &entry)
            }
            _ => content.and_then(|content| write_small(run, &entry, content, state)),
        };
        or_fail(run, &entry.path, done)?;
        run.progress(1, 0);
    }
    if let Ok(bundle) = bundle {
        scratch.recycle(bundle);
    }
    run.check()
}

fn write_small(run: &Run<'_>, entry: &Entry, content: &[u8], state: State) -> Result<()> {
    if has_content(state) && run.compares_content() {
        let now = run.target.jail.read_file(&entry.path)?;
        if now.is_some_and(|now| reads_as(&now, 0, content)) {
            return settle(run, entry, state);
        }
    }
    let file = run.target.jail.begin_file(&entry.path)?;
    file.write_at(0, content)?;
    publish(run, file, entry, content.len() as u64)?;
    run.progress(0, content.len() as u64);
    Ok(())
}

/// Begins a large file. Runs of pieces that other threads have room for go to them.
fn begin_stream<'r>(
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
    let state = run.target.compare(&entry)?;
    if has_content(state)
        && (!run.compares_content() || stream_matches(run.chunks, scratch, run.target, &entry)?)
    {
        settle(run, &entry, state)?;
        return Ok(None);
    }
    let file = Arc::new(LargeFile {
        file: run.target.jail.begin_file(&entry.path)?,
        entry,
        size_bytes,
        failed: OnceLock::new(),
    });
    match hand_out(run, queue, scratch, &file, &stream) {
        Err(error) if super::run::is_fatal(&error) => Err(error),
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
fn write_pieces(
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
            Ok(()) => run.progress(0, piece.plain_bytes),
            Err(error) if super::run::is_fatal(&error) => return run.fail(&file.entry.path, error),
            Err(error) => {
                let _ = file.failed.set(error);
            }
        }
    }
    Ok(())
}

fn write_piece(
    run: &Run<'_>,
    scratch: &mut Scratch,
    file: &LargeFile<'_>,
    piece: &Piece,
) -> Result<()> {
    let keeps_holes = run.options.sparse == Sparse::Holes;
    if piece.id == HOLE {
        let end = piece.offset + piece.plain_bytes;
        let mut offset = if keeps_holes { end } else { piece.offset };
        while offset < end {
            run.check()?;
            let len = (end - offset).min(ZEROES.len() as u64);
            file.file.write_at(offset, &ZEROES[..len as usize])?;
            offset += len;
        }
        return Ok(());
    }
    let _share = run.budget.take(piece.plain_bytes);
    let plain = inspect::read_piece(run.chunks, scratch, piece)?;
    if !(keeps_holes && is_zero(&plain)) {
        file.file.write_at(piece.offset, &plain)?;
    }
    if plain.capacity() <= KEPT_BYTES {
        scratch.recycle(plain);
    }
    Ok(())
}

/// Lets go of a large file; the last one to do so publishes it.
fn release(run: &Run<'_>, file: Arc<LargeFile<'_>>) -> Result<()> {
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
    } = file;
    let done = match failed.into_inner() {
        Some(error) => Err(error),
        // A hole at the end was not written.
        None => file
            .set_len(size_bytes)
            .and_then(|()| publish(run, file, &entry, size_bytes)),
    };
    or_fail(run, &entry.path, done)
}

/// Writes one file in this thread; for names of files whose first name is not restored.
pub(super) fn write_alone<'r>(
    run: &'r Run<'r>,
    scratch: &mut Scratch,
    entry: Entry,
    place: Option<(ChunkId, Place)>,
) -> Result<()> {
    match place {
        Some((id, place)) => write_bundle(run, scratch, &id, vec![(entry, place)]),
        // Without room in the queue this thread does everything itself.
        None => begin_stream(run, &Queue::new(0), scratch, entry),
    }
}

fn make_node(run: &Run<'_>, entry: &Entry) -> Result<()> {
    let state = run.target.compare(entry)?;
    run.progress(1, 0);
    if run.is_done(state) {
        run.count(|report| report.equal += 1);
        return Ok(());
    }
    let (jail, path, replace) = (&run.target.jail, &entry.path[..], run.replace());
    let attributes = node_attributes(entry);
    let device = |kind, rdev| jail.make_device(path, kind, rdev, &attributes, replace);
    let problems = match &entry.kind {
        Kind::Symlink { target } => jail.make_symlink(path, target, &attributes, replace),
        Kind::Fifo => jail.make_fifo(path, &attributes, replace),
        Kind::CharDevice { major, minor } => device(node::Kind::CharDevice, (*major, *minor)),
        Kind::BlockDevice { major, minor } => device(node::Kind::BlockDevice, (*major, *minor)),
        Kind::Socket => {
            let message = "a socket is made by the program that listens on it".to_string();
            run.warn(vec![Problem::new(path, "socket", message)]);
            return Ok(());
        }
        Kind::Directory | Kind::File { .. } | Kind::HardLink { .. } => return Ok(()),
    }?;
    if !problems.iter().any(|problem| problem.code == "device") {
        run.count(|report| report.others += 1);
    }
    run.warn(problems);
    Ok(())
}

fn publish(run: &Run<'_>, file: NewFile<'_>, entry: &Entry, size_bytes: u64) -> Result<()> {
    let problems = file.finish(&node_attributes(entry), run.replace())?;
    run.warn(problems);
    run.count(|report| {
        report.files += 1;
        report.bytes += size_bytes;
    });
    Ok(())
}

/// Deals with a file whose content is right.
fn settle(run: &Run<'_>, entry: &Entry, state: State) -> Result<()> {
    if run.is_done(state) {
        run.count(|report| report.equal += 1);
        return Ok(());
    }
    set_attributes(run, entry)
}

fn set_attributes(run: &Run<'_>, entry: &Entry) -> Result<()> {
    if run.replace() == crate::disk::jail::Replace::Never {
        return Err(Error::Refused {
            reason: "it exists with another mode or owner".into(),
        });
    }
    let problems = run
        .target
        .jail
        .set_attributes(&entry.path, &node_attributes(entry))?;
    run.warn(problems);
    run.count(|report| report.equal += 1);
    Ok(())
}

fn has_content(state: State) -> bool {
    matches!(state, State::Equal | State::Attributes | State::Xattrs)
}

fn or_fail(run: &Run<'_>, path: &[u8], done: Result<()>) -> Result<()> {
    done.or_else(|error| run.fail(path, error))
}

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

fn is_zero(bytes: &[u8]) -> bool {
    let mut parts = bytes.chunks(ZEROES.len());
    parts.all(|part| *part == ZEROES[..part.len()])
}

/// Errors are not cloned, but one bundle that is lost concerns all its files.
fn again(error: &Error) -> Error {
    match error {
        Error::Corrupt { object, reason } => Error::corrupt(object.clone(), reason.clone()),
        Error::Missing { object } => Error::Missing {
            object: object.clone(),
        },
        Error::Cancelled => Error::Cancelled,
        Error::Store {
            action,
            object,
            reason,
        } => Error::Store {
            action,
            object: object.clone(),
            reason: reason.clone(),
        },
        other => Error::corrupt("a bundle", other.to_string()),
    }
}
