//! Puts a copy together: chunks are read and stored on all cores, nodes get the ids of the target.
//!
//! Steps come in postfix order and are taken in that order, but chunks are handed out as they come:
//! while the first of them are on their way, the walk goes on. Queues are short, so memory stays
//! bounded.

use crate::error::Error;
use crate::format::list::Children;
use crate::format::list::ListNode;
use crate::format::pack::ChunkKind;
use crate::format::tree::Content;
use crate::format::tree::Kind;
use crate::format::tree::Leaf;
use crate::id::ChunkId;
use crate::id::PackId;
use crate::ops::copy::Fault;
use crate::ops::copy::Faulty;
use crate::ops::copy::walk::Op;
use crate::ops::copy::walk::Sink;
use crate::ops::copy::walk::Template;
use crate::repo::chunks::Chunks;
use crate::repo::chunks::Scratch;
use crate::repo::writer::Writer;
use crate::repo::writer::WriterScratch;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::mem;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::Sender;
use std::sync::mpsc::SyncSender;

/// Jobs that wait for a thread.
pub(super) const QUEUE_LEN: usize = 8;
/// Chunks that may be on their way before the walk waits for the first of them.
const CHUNKS_AHEAD_MAX: usize = 32;
/// Nodes that may wait for their chunks.
const NODES_AHEAD_MAX: usize = 8;
/// Copies of nodes that are remembered. A node forgotten is read again, and found known.
const COPIES_MAX: usize = 200_000;

/// Something to store.
pub(super) enum Job {
    /// A chunk of data of the source.
    Copy {
        id: ChunkId,
        predecessor: Option<ChunkId>,
    },
    /// A node of the copy.
    Node {
        kind: ChunkKind,
        plain: Vec<u8>,
        predecessor: Option<ChunkId>,
    },
}

/// What became of a job.
struct Copied {
    id: ChunkId,
    read_bytes: u64,
    stored_bytes: u64,
}

/// What a thread sends back.
pub(super) struct Done {
    ticket: u64,
    outcome: Faulty<Copied>,
    /// Packs of the target in which chunks were found.
    relied_packs: BTreeSet<PackId>,
}

/// A thread that reads from one repository and stores into the other.
pub(super) struct Worker<'s, 'c, 'r> {
    pub jobs: &'s Mutex<Receiver<(u64, Job)>>,
    pub done: Sender<Done>,
    pub source: &'s Chunks<'s>,
    pub writer: &'s Writer<'c, 'r>,
}

impl Worker<'_, '_, '_> {
    /// Works until there is nothing more.
    pub(super) fn run(self) {
        let (mut read, mut write) = (Scratch::default(), WriterScratch::default());
        loop {
            let jobs = self.jobs.lock();
            let job = jobs.unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((ticket, job)) = job else {
                return;
            };
            let alarm = Alarm(&self.done, ticket);
            let outcome = self.take(&mut read, &mut write, job);
            drop(alarm);
            read.touched.clear();
            let done = Done {
                ticket,
                outcome,
                relied_packs: mem::take(&mut write.read.touched),
            };
            // Nobody listens any more: the copy has ended, one way or the other.
            if self.done.send(done).is_err() {
                return;
            }
        }
    }

    fn take(&self, read: &mut Scratch, write: &mut WriterScratch, job: Job) -> Faulty<Copied> {
        let (kind, plain, predecessor, is_read) = match job {
            Job::Copy { id, predecessor } => {
                let plain = self.source.read(read, ChunkKind::Data, &id);
                let plain = plain.map_err(Fault::Source)?;
                (ChunkKind::Data, plain, predecessor, true)
            }
            Job::Node {
                kind,
                plain,
                predecessor,
            } => (kind, plain, predecessor, false),
        };
        let stored = self.writer.store(write, kind, &plain, predecessor.as_ref());
        let stored = stored.map_err(Fault::Target)?;
        let plain_bytes = plain.len() as u64;
        read.recycle(plain);
        Ok(Copied {
            id: stored.id,
            read_bytes: if is_read { plain_bytes } else { 0 },
            stored_bytes: u64::from(stored.stored_bytes.unwrap_or(0)),
        })
    }
}

/// Answers for a job that panicked: whoever waits for it would wait for ever.
struct Alarm<'s>(&'s Sender<Done>, u64);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.send(Done {
                ticket: self.1,
                outcome: Err(stopped()),
                relied_packs: BTreeSet::new(),
            });
        }
    }
}

/// A step that waits for its turn.
enum Ahead {
    Known(ChunkId),
    Chunk(u64),
    Node {
        id: ChunkId,
        node: Template,
        predecessor: Option<ChunkId>,
    },
}

/// The side of the thread that walks.
pub(super) struct Assembler<'e> {
    jobs: SyncSender<(u64, Job)>,
    done: Receiver<Done>,
    next: u64,
    resolved: HashMap<u64, Copied>,
    ahead: VecDeque<Ahead>,
    chunks_ahead: usize,
    nodes_ahead: usize,
    stack: Vec<ChunkId>,
    copies: HashMap<ChunkId, ChunkId>,
    /// Is told of bytes that were read.
    event: &'e dyn Fn(u64),
    pub(super) relied_packs: BTreeSet<PackId>,
    pub(super) read_bytes: u64,
    pub(super) stored_bytes: u64,
}

impl<'e> Assembler<'e> {
    pub(super) fn begin(
        jobs: SyncSender<(u64, Job)>,
        done: Receiver<Done>,
        event: &'e dyn Fn(u64),
    ) -> Assembler<'e> {
        Assembler {
            jobs,
            done,
            next: 0,
            resolved: HashMap::new(),
            ahead: VecDeque::new(),
            chunks_ahead: 0,
            nodes_ahead: 0,
            stack: Vec::new(),
            copies: HashMap::new(),
            event,
            relied_packs: BTreeSet::new(),
            read_bytes: 0,
            stored_bytes: 0,
        }
    }

    /// Waits for everything and returns what is left on the stack.
    pub(super) fn finish(&mut self) -> Faulty<Vec<ChunkId>> {
        self.settle(0, 0)?;
        while let Some(step) = self.ahead.pop_front() {
            self.take(step)?;
        }
        Ok(mem::take(&mut self.stack))
    }

    fn submit(&mut self, job: Job) -> Faulty<u64> {
        let ticket = self.next;
        self.next += 1;
        while let Ok(done) = self.done.try_recv() {
            self.resolve(done)?;
        }
        match self.jobs.send((ticket, job)) {
            Ok(()) => Ok(ticket),
            Err(_) => Err(stopped()),
        }
    }

    fn wait(&mut self, ticket: u64) -> Faulty<ChunkId> {
        loop {
            if let Some(copied) = self.resolved.remove(&ticket) {
                return Ok(copied.id);
            }
            let done = self.done.recv().map_err(|_| stopped())?;
            self.resolve(done)?;
        }
    }

    fn resolve(&mut self, done: Done) -> Faulty<()> {
        let copied = done.outcome?;
        self.relied_packs.extend(done.relied_packs);
        self.read_bytes += copied.read_bytes;
        self.stored_bytes += copied.stored_bytes;
        (self.event)(copied.read_bytes);
        self.resolved.insert(done.ticket, copied);
        Ok(())
    }

    fn settle(&mut self, chunks: usize, nodes: usize) -> Faulty<()> {
        while self.chunks_ahead > chunks || self.nodes_ahead > nodes {
            let Some(step) = self.ahead.pop_front() else {
                break;
            };
            self.take(step)?;
        }
        Ok(())
    }

    fn take(&mut self, step: Ahead) -> Faulty<()> {
        let id = match step {
            Ahead::Known(id) => id,
            Ahead::Chunk(ticket) => {
                self.chunks_ahead -= 1;
                self.wait(ticket)?
            }
            Ahead::Node {
                id,
                node,
                predecessor,
            } => {
                self.nodes_ahead -= 1;
                let (kind, plain) = self.complete(node)?;
                let ticket = self.submit(Job::Node {
                    kind,
                    plain,
                    predecessor,
                })?;
                let copy = self.wait(ticket)?;
                self.learn(id, copy);
                copy
            }
        };
        self.stack.push(id);
        Ok(())
    }

    /// Puts the ids of the copies into a node.
    fn complete(&mut self, node: Template) -> Faulty<(ChunkKind, Vec<u8>)> {
        Ok(match node {
            Template::List(mut node) => {
                let ids = self.pop(list_ids(&mut node).len())?;
                for (id, copy) in list_ids(&mut node).into_iter().zip(ids) {
                    *id = copy;
                }
                (ChunkKind::List, node.encode())
            }
            Template::Leaf(mut leaf) => {
                let ids = self.pop(leaf_ids(&mut leaf).len())?;
                for (id, copy) in leaf_ids(&mut leaf).into_iter().zip(ids) {
                    *id = copy;
                }
                (ChunkKind::Tree, leaf.encode())
            }
            Template::Inner(mut inner) => {
                let ids = self.pop(inner.children.len())?;
                for ((_, id), copy) in inner.children.iter_mut().zip(ids) {
                    *id = copy;
                }
                (ChunkKind::Tree, inner.encode())
            }
        })
    }

    fn pop(&mut self, count: usize) -> Faulty<Vec<ChunkId>> {
        match self.stack.len().checked_sub(count) {
            Some(at) => Ok(self.stack.split_off(at)),
            None => Err(stopped()),
        }
    }
}

impl Sink for Assembler<'_> {
    fn find(&self, id: &ChunkId) -> Option<ChunkId> {
        self.copies.get(id).copied()
    }

    fn learn(&mut self, id: ChunkId, copy: ChunkId) {
        if self.copies.len() >= COPIES_MAX {
            self.copies.clear();
        }
        self.copies.insert(id, copy);
    }

    fn push(&mut self, op: Op) -> Faulty<()> {
        let step = match op {
            Op::Known(id) => Ahead::Known(id),
            Op::Chunk { id, predecessor } => {
                self.chunks_ahead += 1;
                Ahead::Chunk(self.submit(Job::Copy { id, predecessor })?)
            }
            Op::Node {
                id,
                node,
                predecessor,
            } => {
                self.nodes_ahead += 1;
                Ahead::Node {
                    id,
                    node,
                    predecessor,
                }
            }
        };
        self.ahead.push_back(step);
        self.settle(CHUNKS_AHEAD_MAX, NODES_AHEAD_MAX)
    }
}

fn list_ids(node: &mut ListNode) -> Vec<&mut ChunkId> {
    match &mut node.children {
        Children::Cut(children) | Children::Marked(children) => {
            children.iter_mut().map(|child| &mut child.id).collect()
        }
        Children::Even { ids, .. } => ids.iter_mut().collect(),
    }
}

/// Returns the ids in a leaf in the order of the walk: bundles, then streams.
fn leaf_ids(leaf: &mut Leaf) -> Vec<&mut ChunkId> {
    let streams = leaf.entries.iter_mut();
    let streams = streams.filter_map(|entry| match &mut entry.kind {
        Kind::File {
            content: Content::Stream(stream),
            ..
        } => Some(stream),
        _ => None,
    });
    let bundles = leaf.bundles.iter_mut().map(|bundle| &mut bundle.id);
    bundles
        .chain(streams.map(|stream| &mut stream.root))
        .collect()
}

fn stopped() -> Fault {
    Fault::Source(Error::Refused {
        reason: "a thread of the copy stopped early".to_string(),
    })
}
