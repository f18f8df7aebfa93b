//! Copies from one state of each repository until all is copied, or one of the states is outdated.
//!
//! Each snapshot is a commit of its own: packs, then the entry that names them and the snapshot
//! (I2), so whatever cuts a copy off, what was copied stays. Whatever the ids in a snapshot lean on
//! without looking, the copies of earlier snapshots, is named in the draft (I4).

use crate::context::Context;
use crate::context::Event;
use crate::error::Error;
use crate::error::Result;
use crate::format::entry::AddedPack;
use crate::format::entry::AddedSnapshot;
use crate::format::entry::PackBytes;
use crate::format::manifest::Manifest;
use crate::format::note::CopiedFrom;
use crate::format::note::Note;
use crate::id::ChunkId;
use crate::id::PackId;
use crate::id::SnapshotId;
use crate::ops::copy::CopiedSnapshot;
use crate::ops::copy::Fault;
use crate::ops::copy::Faulty;
use crate::ops::copy::assemble;
use crate::ops::copy::assemble::Assembler;
use crate::ops::copy::assemble::Worker;
use crate::ops::copy::choose;
use crate::ops::copy::choose::Copies;
use crate::ops::copy::choose::Earlier;
use crate::ops::copy::walk::Twin;
use crate::ops::copy::walk::Walk;
use crate::ops::notes;
use crate::ops::thread_count;
use crate::ops::unfinished::Unfinished;
use crate::repo::Repo;
use crate::repo::chunks::Chunks;
use crate::repo::log;
use crate::repo::log::Draft;
use crate::repo::log::Outcome;
use crate::repo::log::Outdated;
use crate::repo::log::State;
use crate::repo::writer::FinishedPack;
use crate::repo::writer::Trust;
use crate::repo::writer::Writer;
use crate::store::Key;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::mpsc;
use std::thread;

/// What a session starts from.
pub(super) struct Start<'a> {
    pub cx: &'a Context,
    pub source: &'a Repo,
    pub target: &'a Repo,
    /// The state of the source.
    pub from: &'a State,
    /// The state of the target.
    pub to: Arc<State>,
    /// Packs of the target that are known to be damaged: as good as absent.
    pub suspect_packs: &'a BTreeSet<PackId>,
    /// Whether what earlier copies name can be taken to be there.
    pub trust: Trust,
}

/// How a session ended.
pub(super) enum Ended {
    /// Nothing is left to copy.
    Done,
    /// The first snapshot that is left could not be read.
    Unreadable(Error),
    /// The target is another one by now.
    Outdated(Arc<State>),
    /// Something of the target that was taken to be there is damaged: these packs, if they are
    /// known.
    Doubt(BTreeSet<PackId>),
}

/// Copies what is left, the first of it first, and takes away what was copied.
pub(super) fn run(
    start: Start<'_>,
    own: &Mutex<Unfinished>,
    left: &mut VecDeque<SnapshotId>,
    copied: &mut Vec<CopiedSnapshot>,
) -> Faulty<Ended> {
    let (cx, target) = (start.cx, start.target);
    let source_chunks = Chunks::open(start.source, &start.from.packs).map_err(Fault::Source)?;
    let (chunks, trust) = open_target(&start, own).map_err(Fault::Target)?;
    let spent: Mutex<Vec<FinishedPack>> = Mutex::default();
    let publish = |pack: FinishedPack| {
        // `Taken` is our own earlier attempt: the name is the hash of salted content.
        target.store().put_new(&Key::pack(&pack.id), &pack.object)?;
        lock(own).add(pack.id, pack.bytes);
        chunks.add_pack(pack.id, pack.bytes, &pack.rows);
        lock(&spent).push(pack);
        Ok(())
    };
    let writer = Writer::begin(cx, &chunks, &publish, trust);
    let (jobs, job_queue) = mpsc::sync_channel(assemble::QUEUE_LEN);
    let job_queue = Mutex::new(job_queue);
    let (done, outcomes) = mpsc::channel();
    let read = |bytes| cx.progress.event(Event::Done { files: 0, bytes });
    let ended = thread::scope(|scope| {
        for _ in 0..thread_count().max(2) {
            let worker = Worker {
                jobs: &job_queue,
                done: done.clone(),
                source: &source_chunks,
                writer: &writer,
            };
            scope.spawn(move || worker.run());
        }
        drop(done);
        let copies = Copies::of(target.id(), &start.to);
        let earlier = match trust {
            Trust::Parent => Earlier::of(start.source.id(), start.from, &copies),
            Trust::Nothing => Earlier::default(),
        };
        Session {
            to: Arc::clone(&start.to),
            start,
            own,
            chunks: &chunks,
            writer: &writer,
            spent: &spent,
            walk: Walk::begin(cx, &source_chunks, &chunks),
            assembler: Assembler::begin(jobs, outcomes, &read),
            copies,
            earlier,
            leant_on: BTreeSet::new(),
        }
        .run(left, copied)
    });
    // What is stored by now is found again by whoever goes on.
    let kept = match ended {
        Err(Fault::Target(_)) => Ok(()),
        _ => writer.finish(),
    };
    source_chunks.save_index();
    chunks.save_index();
    let ended = ended?;
    kept.map_err(Fault::Target)?;
    Ok(ended)
}

/// Opens the chunks that copies may build on, and says how far earlier copies can be trusted.
/// See `ops::backup::run`: what is lost is as good as absent, and nothing new leans on it.
fn open_target<'r>(start: &Start<'r>, own: &Mutex<Unfinished>) -> Result<(Chunks<'r>, Trust)> {
    let mut own = lock(own);
    start.suspect_packs.iter().for_each(|pack| own.remove(pack));
    let mut packs = start.to.packs.clone();
    packs.extend(own.packs());
    packs.retain(|pack, _| !start.suspect_packs.contains(pack));
    let chunks = Chunks::open_without(start.target, &packs, &start.to.notes.lost.packs)?;
    let unreadable = chunks.unreadable_packs();
    unreadable.iter().for_each(|(pack, _)| own.remove(pack));
    let trust = match unreadable.is_empty() && start.suspect_packs.is_empty() {
        true => start.trust,
        false => Trust::Nothing,
    };
    Ok((chunks, trust))
}

struct Session<'a> {
    start: Start<'a>,
    /// The state of the target, with what was copied.
    to: Arc<State>,
    own: &'a Mutex<Unfinished>,
    chunks: &'a Chunks<'a>,
    writer: &'a Writer<'a, 'a>,
    spent: &'a Mutex<Vec<FinishedPack>>,
    walk: Walk<'a>,
    assembler: Assembler<'a>,
    copies: Copies,
    earlier: Earlier,
    /// Copies whose chunks were taken to be there.
    leant_on: BTreeSet<SnapshotId>,
}

impl Session<'_> {
    fn run(
        mut self,
        left: &mut VecDeque<SnapshotId>,
        copied: &mut Vec<CopiedSnapshot>,
    ) -> Faulty<Ended> {
        while let Some(&id) = left.front() {
            let from = choose::origin(self.start.source.id(), self.start.from, id);
            if self.copies.find(&from).is_some() {
                // Somebody else was faster.
                left.pop_front();
                continue;
            }
            match self.snapshot(id, from) {
                Ok(Ok(one)) => copied.push(one),
                Ok(Err(ended)) => return Ok(ended),
                Err(Fault::Source(error @ (Error::Missing { .. } | Error::Corrupt { .. }))) => {
                    return Ok(Ended::Unreadable(error));
                }
                Err(fault) => return Err(fault),
            }
            left.pop_front();
        }
        Ok(Ended::Done)
    }

    /// Copies one snapshot.
    fn snapshot(
        &mut self,
        id: SnapshotId,
        from: CopiedFrom,
    ) -> Faulty<Result<CopiedSnapshot, Ended>> {
        let manifest = choose::manifest(self.start.from, &id).map_err(Fault::Source)?;
        let manifest = manifest.ok_or_else(|| {
            let object = format!("snapshot {}", id.short());
            Fault::Source(Error::Missing { object })
        })?;
        let before = (self.read_bytes(), self.assembler.stored_bytes);
        let ids = match self.content(&manifest)? {
            Some(ids) => ids,
            None => return Ok(Err(Ended::Doubt(self.chunks.suspect_packs()))),
        };
        let added = self.added(&manifest, &ids);
        let copy = added.id;
        if let Some(ended) = self.commit(id, from, added)? {
            return Ok(Err(ended));
        }
        self.copies.add(from, copy);
        let files = manifest.figures.files;
        self.start
            .cx
            .progress
            .event(Event::Done { files, bytes: 0 });
        self.earlier.add(manifest, copy);
        Ok(Ok(CopiedSnapshot {
            snapshot: id,
            copy,
            read_bytes: self.read_bytes() - before.0,
            stored_bytes: self.assembler.stored_bytes - before.1,
        }))
    }

    fn read_bytes(&self) -> u64 {
        self.walk.read_bytes + self.assembler.read_bytes
    }

    /// Stores what a snapshot is made of and returns the ids of the tree and of the records of
    /// databases; `None` if something it was built on is damaged.
    fn content(&mut self, manifest: &Manifest) -> Faulty<Option<Vec<ChunkId>>> {
        let nearest = self.earlier.nearest(manifest);
        let nearest = nearest.and_then(|(original, copy)| {
            let manifest = choose::manifest(&self.to, &copy).ok()??;
            Some((original, copy, manifest))
        });
        // The rule of a backup: a copy that was made without exactly what is lost needs none of it.
        let lost = self.to.notes.lost.digest();
        let nearest = nearest.filter(|(_, _, copy)| lost.is_none() || copy.without == lost);
        let twin = nearest
            .as_ref()
            .map(|(original, _, copy)| Twin { original, copy });
        self.leant_on
            .extend(nearest.as_ref().map(|(_, copy, _)| *copy));
        let assembler = &mut self.assembler;
        self.walk.snapshot(assembler, manifest, twin.as_ref())?;
        let ids = assembler.finish()?;
        self.writer.finish().map_err(Fault::Target)?;
        for pack in mem::take(&mut *lock(self.spent)) {
            self.writer.forget(pack);
        }
        let is_sound = !self.walk.doubt && self.chunks.suspect_packs().is_empty();
        Ok(is_sound.then_some(ids))
    }

    /// Returns the snapshot as the target has it: all of it stays but the ids.
    fn added(&self, original: &Manifest, ids: &[ChunkId]) -> AddedSnapshot {
        let mut manifest = original.clone();
        manifest.tree.id = ids.first().copied().unwrap_or(original.tree.id);
        manifest.databases = ids.get(1).copied();
        manifest.parent = original.parent.and_then(|parent| {
            let (source, from) = (self.start.source.id(), self.start.from);
            self.copies.find(&choose::origin(source, from, parent))
        });
        manifest.without = self.to.notes.lost.digest();
        let key = self.start.target.secrets().manifest_key();
        AddedSnapshot::new(key, manifest.encode())
    }

    /// Commits a snapshot; `Some` if that was not possible.
    fn commit(
        &mut self,
        id: SnapshotId,
        from: CopiedFrom,
        added: AddedSnapshot,
    ) -> Faulty<Option<Ended>> {
        let copy = added.id;
        let draft = self.draft(id, from, added);
        let (cx, target) = (self.start.cx, self.start.target);
        let outcome = target.append(cx, Arc::clone(&self.to), draft);
        match outcome.map_err(Fault::Target)? {
            Outcome::Committed(state) => {
                // What is stored from now on is new to this state.
                lock(self.own).forget(&state);
                self.assembler.relied_packs.clear();
                self.leant_on.insert(copy);
                self.to = Arc::clone(&state);
                // Whoever finds the log long shortens it; failing to is no reason to fail.
                let _ = log::checkpoint(cx, target.store(), &target.log_keys(), state);
                Ok(None)
            }
            Outcome::Outdated(now, why) => {
                if matches!(why, Outdated::OwnPackDropped | Outdated::Skipped) {
                    lock(self.own).forget(&now);
                }
                Ok(Some(Ended::Outdated(now)))
            }
            Outcome::Unsettled => Err(Fault::Target(notes::unsettled(target))),
        }
    }

    fn draft(&self, id: SnapshotId, from: CopiedFrom, added: AddedSnapshot) -> Draft {
        let own = lock(self.own);
        let own_packs: &BTreeMap<PackId, PackBytes> = own.packs();
        let relied = self.assembler.relied_packs.iter();
        let relied = relied.filter(|pack| !own_packs.contains_key(*pack));
        let mut draft = Draft {
            relies_on_packs: relied.copied().collect(),
            relies_on_snapshots: self.leant_on.clone(),
            packs_since: own.since(),
            ..Draft::default()
        };
        draft.change.notes = travelling(&self.start.from.notes, id, added.id);
        draft.change.notes.push(Note::Copied(added.id, from));
        draft.change.add_snapshots = vec![added];
        let packs = own_packs.iter();
        draft.change.add_packs = packs
            .map(|(id, bytes)| AddedPack {
                id: *id,
                bytes: *bytes,
            })
            .collect();
        draft
    }
}

/// Returns what the log of the source says of a snapshot and is as true of its copy.
///
/// What is said of one repository does not travel: that a drill restored it from there, that
/// archives were made of it there, that a restore in place of that machine replaced it. Such a
/// safety copy is held for `undo`, which goes to the first repository; its copy is not held.
fn travelling(notes: &crate::format::note::Notes, id: SnapshotId, copy: SnapshotId) -> Vec<Note> {
    let mut travelling = Vec::new();
    for ((of, name), given) in &notes.tags {
        if *of == id {
            travelling.push(match given {
                true => Note::Tag(copy, name.clone()),
                false => Note::Untag(copy, name.clone()),
            });
        }
    }
    if let (Some(until), false) = (notes.holds.get(&id), notes.replaced.contains_key(&id)) {
        travelling.push(Note::Hold(copy, *until));
    }
    travelling.extend(notes.imports.get(&id).map(|sum| Note::Import(copy, *sum)));
    travelling
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
