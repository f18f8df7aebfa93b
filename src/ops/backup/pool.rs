//! The threads of a backup: chunks and bundles go in by ticket, what became of them comes out.
//!
//! One thread walks and cuts; the others hash, encode, verify and append; one more makes finished
//! packs durable. Queues are short, so memory stays bounded by their lengths.

use crate::error::Error;
use crate::error::Result;
use crate::format::pack::ChunkKind;
use crate::id::ChunkId;
use crate::ops::backup::bundle;
use crate::ops::backup::bundle::BundleDone;
use crate::ops::backup::bundle::BundleJob;
use crate::repo::chunks::Chunks;
use crate::repo::writer::Effort;
use crate::repo::writer::Stored;
use crate::repo::writer::Writer;
use crate::repo::writer::WriterScratch;
use crate::source::files::Tree;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::SendError;
use std::sync::mpsc::Sender;
use std::sync::mpsc::SyncSender;

/// Jobs that wait for a thread.
pub(super) const QUEUE_LEN: usize = 8;

/// Something to store.
pub(super) enum Job {
    /// A chunk at hand.
    Chunk {
        kind: ChunkKind,
        plain: Vec<u8>,
        predecessor: Option<ChunkId>,
    },
    /// Small files to be read and stored together.
    Bundle(BundleJob),
}

/// What became of a job.
pub(super) enum Outcome {
    Chunk(Stored),
    Bundle(BundleDone),
}

/// A claim on the outcome of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Ticket(u64);

/// What a thread sends back.
pub(super) struct Done {
    ticket: Ticket,
    outcome: Result<Outcome>,
    buffer: Option<Vec<u8>>,
}

/// What a job thread is given.
pub(super) struct Worker<'s, 'c, 'r> {
    pub jobs: &'s Mutex<Receiver<(Ticket, Job)>>,
    pub done: Sender<Done>,
    pub writer: &'s Writer<'c, 'r>,
    pub chunks: &'s Chunks<'r>,
    pub tree: &'s Tree,
    pub effort: &'s Effort,
}

impl Worker<'_, '_, '_> {
    /// Works until there is nothing more. Returns what its work relies on, and the error of a job
    /// whose outcome nobody waited for: others may lean on the chunk it failed to store.
    pub(super) fn run(self) -> (WriterScratch, Result<()>) {
        let mut scratch = WriterScratch::new(self.effort);
        loop {
            let job = self
                .jobs
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .recv();
            let Ok((ticket, job)) = job else {
                return (scratch, Ok(()));
            };
            let alarm = Alarm(&self.done, ticket);
            let (outcome, buffer) = match job {
                Job::Chunk {
                    kind,
                    plain,
                    predecessor,
                } => {
                    let stored =
                        self.writer
                            .store(&mut scratch, kind, &plain, predecessor.as_ref());
                    (stored.map(Outcome::Chunk), Some(plain))
                }
                Job::Bundle(job) => {
                    let done = bundle::run(self.writer, self.chunks, self.tree, &mut scratch, job);
                    (done.map(Outcome::Bundle), None)
                }
            };
            drop(alarm);
            let done = Done {
                ticket,
                outcome,
                buffer,
            };
            // Nobody listens any more: the scan has ended, one way or the other.
            if let Err(SendError(done)) = self.done.send(done) {
                return (scratch, done.outcome.map(drop));
            }
        }
    }
}

/// Answers for a job that panicked: whoever waits for it would wait for ever.
struct Alarm<'s>(&'s Sender<Done>, Ticket);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.send(Done {
                ticket: self.1,
                outcome: Err(stopped()),
                buffer: None,
            });
        }
    }
}

/// The side of the thread that hands out the jobs.
pub(super) struct Pool {
    jobs: SyncSender<(Ticket, Job)>,
    done: Receiver<Done>,
    next: u64,
    resolved: HashMap<Ticket, Outcome>,
    buffers: Vec<Vec<u8>>,
}

impl Pool {
    pub(super) fn new(jobs: SyncSender<(Ticket, Job)>, done: Receiver<Done>) -> Pool {
        Pool {
            jobs,
            done,
            next: 0,
            resolved: HashMap::new(),
            buffers: Vec::new(),
        }
    }

    /// Hands out a job; waits while too many are queued.
    pub(super) fn submit(&mut self, job: Job) -> Result<Ticket> {
        let ticket = Ticket(self.next);
        self.next += 1;
        while let Ok(done) = self.done.try_recv() {
            self.resolve(done)?;
        }
        match self.jobs.send((ticket, job)) {
            Ok(()) => Ok(ticket),
            Err(_) => Err(stopped()),
        }
    }

    /// Stores a chunk.
    pub(super) fn submit_chunk(
        &mut self,
        kind: ChunkKind,
        plain: Vec<u8>,
        predecessor: Option<ChunkId>,
    ) -> Result<Ticket> {
        self.submit(Job::Chunk {
            kind,
            plain,
            predecessor,
        })
    }

    /// Waits for a chunk.
    pub(super) fn wait_chunk(&mut self, ticket: Ticket) -> Result<Stored> {
        match self.wait(ticket)? {
            Outcome::Chunk(stored) => Ok(stored),
            Outcome::Bundle(_) => Err(stopped()),
        }
    }

    /// Waits for a bundle.
    pub(super) fn wait_bundle(&mut self, ticket: Ticket) -> Result<BundleDone> {
        match self.wait(ticket)? {
            Outcome::Bundle(done) => Ok(done),
            Outcome::Chunk(_) => Err(stopped()),
        }
    }

    fn wait(&mut self, ticket: Ticket) -> Result<Outcome> {
        loop {
            if let Some(outcome) = self.resolved.remove(&ticket) {
                return Ok(outcome);
            }
            let done = self.done.recv().map_err(|_| stopped())?;
            self.resolve(done)?;
        }
    }

    fn resolve(&mut self, done: Done) -> Result<()> {
        if let Some(buffer) = done.buffer
            && self.buffers.len() < 2 * QUEUE_LEN
        {
            self.buffers.push(buffer);
        }
        self.resolved.insert(done.ticket, done.outcome?);
        Ok(())
    }

    /// Returns an empty buffer, one that was used before if there is any.
    pub(super) fn buffer(&mut self) -> Vec<u8> {
        let mut buffer = self.buffers.pop().unwrap_or_default();
        buffer.clear();
        buffer
    }
}

fn stopped() -> Error {
    Error::Refused {
        reason: "a thread of the backup stopped early".to_string(),
    }
}
