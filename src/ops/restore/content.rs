//! What the worker threads do: bundles of small files and nodes that are no files; large files are
//! those of `large`.

use crate::disk::jail::NewFile;
use crate::disk::node;
use crate::disk::node::Problem;
use crate::error::Error;
use crate::error::Result;
use crate::format::pack::ChunkKind;
use crate::format::tree::BUNDLE_BYTES_MAX;
use crate::format::tree::Entry;
use crate::format::tree::Kind;
use crate::format::tree::Place;
use crate::id::ChunkId;
use crate::ops::inspect;
use crate::ops::restore::compare;
use crate::ops::restore::large;
use crate::ops::restore::large::LargeFile;
use crate::ops::restore::queue::Queue;
use crate::ops::restore::run::Run;
use crate::ops::restore::sidecars;
use crate::ops::restore::sidecars::SetAside;
use crate::ops::restore::target::State;
use crate::ops::restore::target::node_attributes;
use crate::repo::chunks::Scratch;
use crate::repo::stream::Piece;
use std::sync::Arc;

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
        Job::Stream(entry) => large::begin_stream(run, queue, scratch, *entry),
        Job::Pieces(file, pieces) => {
            large::write_pieces(run, scratch, &file, &pieces)?;
            large::release(run, file)
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
        match run.state(&entry) {
            Ok(state) if run.is_done(state) && !run.compares_content(&entry.kind) => {
                run.count(|report| report.equal += 1);
                run.progress(1, 0);
            }
            Ok(state) => due.push((entry, place, state)),
            Err(error) => run.fail(&entry.path, error)?,
        }
    }
    let is_needed = |(entry, place, state): &(Entry, Place, State)| {
        let is_compared = run.compares_content(&entry.kind);
        place.size_bytes > 0 && (*state != State::Attributes || is_compared)
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
            State::Attributes | State::Xattrs if !run.compares_content(&entry.kind) => {
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
    if has_content(state) && run.compares_content(&entry.kind) {
        let now = run.compared().jail.read_file(&entry.path)?;
        if now.is_some_and(|now| compare::reads_as(&now, 0, content)) {
            return settle(run, entry, state);
        }
    }
    let file = run.target.jail.begin_file(&entry.path)?;
    file.write_at(0, content)?;
    publish(run, file, entry, content.len() as u64)?;
    run.progress(0, content.len() as u64);
    Ok(())
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
        None => large::begin_stream(run, &Queue::new(0), scratch, entry),
    }
}

fn make_node(run: &Run<'_>, entry: &Entry) -> Result<()> {
    let state = run.state(entry)?;
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

pub(super) fn publish(
    run: &Run<'_>,
    file: NewFile<'_>,
    entry: &Entry,
    size_bytes: u64,
) -> Result<()> {
    let aside = match sidecars::is_database(&entry.kind) {
        true => Some(sidecars::set_aside(run, &entry.path)?),
        false => None,
    };
    let problems = file.finish(&node_attributes(entry), run.replace())?;
    aside.map_or(Ok(()), SetAside::discard)?;
    run.warn(problems);
    run.count(|report| {
        report.files += 1;
        report.bytes += size_bytes;
    });
    Ok(())
}

/// Deals with a file whose content is right.
pub(super) fn settle(run: &Run<'_>, entry: &Entry, state: State) -> Result<()> {
    if sidecars::is_database(&entry.kind) && run.against.is_none() {
        sidecars::set_aside(run, &entry.path)?.discard()?;
    }
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

pub(super) fn has_content(state: State) -> bool {
    matches!(state, State::Equal | State::Attributes | State::Xattrs)
}

pub(super) fn or_fail(run: &Run<'_>, path: &[u8], done: Result<()>) -> Result<()> {
    done.or_else(|error| run.fail(path, error))
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
