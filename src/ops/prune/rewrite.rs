//! Stores what is kept of half-empty packs again, on all cores, and proves it before anything goes.
//!
//! A record is copied as it is, or stored against another base if the plan says so. In the end
//! every record that was written is read back from the store, from the packs that will be left,
//! and has to be the chunk it is named after.

use crate::context::Context;
use crate::context::Event;
use crate::error::Error;
use crate::error::Result;
use crate::format::entry::PackBytes;
use crate::id::PackId;
use crate::ops::prune::PrunePlan;
use crate::ops::prune::records::Entry;
use crate::ops::thread_count;
use crate::repo::Repo;
use crate::repo::chunks;
use crate::repo::chunks::Chunks;
use crate::repo::chunks::Scratch;
use crate::repo::index::Record;
use crate::repo::log::State;
use crate::repo::writer::FinishedPack;
use crate::repo::writer::PlannedBase;
use crate::repo::writer::Trust;
use crate::repo::writer::Writer;
use crate::repo::writer::WriterScratch;
use crate::safeguard::Safeguard;
use crate::store::Key;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;

/// What was stored again.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rewritten {
    pub(super) copied: u64,
    pub(super) reencoded: u64,
}

/// Rewrites what the plan says into packs that are durable and verified, and adds them to `own`.
/// The state is the one after the first entry of the plan, with the packs it added and without
/// those it dropped.
pub(super) fn rewrite(
    cx: &Context,
    repo: &Repo,
    plan: &PrunePlan,
    state: &State,
    own: &mut BTreeMap<PackId, PackBytes>,
) -> Result<Rewritten> {
    let before = &state.packs;
    let chunks = Chunks::open(repo, before)?;
    let written: Mutex<BTreeMap<PackId, PackBytes>> = Mutex::default();
    let finished = |pack: FinishedPack| {
        repo.store().put_new(&Key::pack(&pack.id), &pack.object)?;
        let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
        written.insert(pack.id, pack.bytes);
        chunks.add_pack(pack.id, pack.bytes, &pack.rows);
        Ok(())
    };
    let writer = Writer::begin(cx, &chunks, &finished, Trust::Nothing);
    let job = Job {
        cx,
        plan,
        chunks: &chunks,
        writer: &writer,
        copied: AtomicU64::new(0),
    };
    let done = job.run();
    drop(writer);
    let written = written.into_inner().unwrap_or_else(PoisonError::into_inner);
    // What is stored is known whatever became of the rest: it may have to be deleted.
    own.extend(&written);
    let done = done?;
    let mut after = before.clone();
    for at in &plan.work.rewrite {
        after.remove(&plan.records.packs[*at as usize].id);
    }
    after.extend(&written);
    if Safeguard::RewriteReadBack.holds() {
        verify(cx, repo, &after, &written)?;
    }
    Ok(done)
}

struct Job<'a> {
    cx: &'a Context,
    plan: &'a PrunePlan,
    chunks: &'a Chunks<'a>,
    writer: &'a Writer<'a, 'a>,
    copied: AtomicU64,
}

impl Job<'_> {
    fn run(&self) -> Result<Rewritten> {
        let (records, work) = (&self.plan.records, &self.plan.work);
        self.cx.progress.event(Event::Phase("rewrite"));
        let packs: Vec<u32> = work.rewrite.iter().copied().collect();
        self.cx.progress.event(Event::Total {
            files: (packs.len() + work.reencode.len()) as u64,
            bytes: 0,
        });
        for_each(
            self.cx,
            &packs,
            || (),
            |at, ()| {
                self.copy_pack(*at)?;
                self.cx.progress.event(Event::Done { files: 1, bytes: 0 });
                Ok(())
            },
        )?;
        for_each(
            self.cx,
            &work.reencode,
            WriterScratch::thorough,
            |moved, scratch| {
                let record = self.record(&records.entries()[moved.at])?;
                let base = moved.base.map(|(at, height)| -> Result<_> {
                    let record = self.record(&records.entries()[at])?;
                    Ok(PlannedBase { record, height })
                });
                let kind = chunks::encoding(&record)?.kind;
                let stored =
                    self.writer
                        .store_against(scratch, kind, &record, base.transpose()?.as_ref());
                self.cx.progress.event(Event::Done { files: 1, bytes: 0 });
                stored
            },
        )?;
        self.writer.finish()?;
        Ok(Rewritten {
            copied: self.copied.load(Ordering::Relaxed),
            reencoded: work.reencode.len() as u64,
        })
    }

    fn copy_pack(&self, at: u32) -> Result<()> {
        let id = self.plan.records.packs[at as usize].id;
        let rows = self.chunks.table(&id)?;
        let found = chunks::records(id, &rows);
        let mut stored = Vec::new();
        for (row, record) in rows.into_iter().zip(found) {
            self.cx.check()?;
            let entry = self.plan.records.at(&row.id, at, record.offset);
            if !entry.is_some_and(Entry::is_copied) {
                continue;
            }
            self.chunks.read_stored(&record, &mut stored)?;
            self.writer.copy(row, &stored)?;
            self.copied.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Returns a record by its place.
    fn record(&self, entry: &Entry) -> Result<Record> {
        let pack = self.plan.records.packs[entry.pack as usize].id;
        let candidates = self.chunks.find_base(&entry.start(), u8::MAX);
        let is_meant = |r: &Record| r.pack == pack && r.offset == entry.offset;
        let found = candidates.into_iter().find(is_meant);
        found.ok_or_else(|| Error::Missing {
            object: format!("a record of {}", Key::pack(&pack)),
        })
    }
}

/// Reads every record of the packs that were written, from the packs that will be left.
fn verify(
    cx: &Context,
    repo: &Repo,
    after: &BTreeMap<PackId, PackBytes>,
    written: &BTreeMap<PackId, PackBytes>,
) -> Result<()> {
    cx.progress.event(Event::Phase("verify"));
    let chunks = Chunks::open(repo, after)?;
    let mut records = Vec::new();
    for id in written.keys() {
        records.extend(chunks::records(*id, &chunks.table(id)?));
    }
    cx.progress.event(Event::Total {
        files: records.len() as u64,
        bytes: 0,
    });
    for_each(cx, &records, Scratch::default, |record, scratch| {
        let kind = chunks::encoding(record)?.kind;
        let plain = chunks.read_record(scratch, kind, record)?;
        scratch.recycle(plain);
        scratch.touched.clear();
        cx.progress.event(Event::Done { files: 1, bytes: 0 });
        Ok(())
    })
}

/// Does something to every item on all cores. The first error ends it.
fn for_each<T: Sync, S>(
    cx: &Context,
    items: &[T],
    scratch: impl Fn() -> S + Sync,
    work: impl Fn(&T, &mut S) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Ok(()));
    thread::scope(|scope| {
        for _ in 0..thread_count().min(items.len()) {
            scope.spawn(|| {
                let mut scratch = scratch();
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = cx.check().and_then(|()| work(item, &mut scratch)) {
                        next.store(items.len(), Ordering::Relaxed);
                        *failed.lock().unwrap_or_else(PoisonError::into_inner) = Err(error);
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner)
}
