//! One scan from one state of the log: threads, packs, and what came of it.

use crate::context::Context;
use crate::context::Event;
use crate::context::Timestamp;
use crate::error::Error;
use crate::error::Result;
use crate::format::database::DatabaseRecord;
use crate::format::entry::PackBytes;
use crate::format::manifest::Figures;
use crate::format::manifest::Manifest;
use crate::format::tree::TreeRoot;
use crate::id::PackId;
use crate::id::SnapshotId;
use crate::ops::backup::BackupOptions;
use crate::ops::backup::FreePages;
use crate::ops::backup::Totals;
use crate::ops::backup::builder::Builder;
use crate::ops::backup::databases;
use crate::ops::backup::databases::Before;
use crate::ops::backup::databases::Databases;
use crate::ops::backup::databases::Io;
use crate::ops::backup::databases::Look;
use crate::ops::backup::large::LargeFiles;
use crate::ops::backup::limits::Limits;
use crate::ops::backup::parent::Parent;
use crate::ops::backup::pool;
use crate::ops::backup::pool::Pool;
use crate::ops::backup::pool::Worker;
use crate::ops::backup::scan::Scan;
use crate::ops::backup::seen::SeenWriter;
use crate::ops::backup::source::Source;
use crate::ops::unfinished::Unfinished;
use crate::repo::Repo;
use crate::repo::chunks::Chunks;
use crate::repo::log::State;
use crate::repo::writer::FinishedPack;
use crate::repo::writer::Trust;
use crate::repo::writer::Writer;
use crate::repo::writer::WriterScratch;
use crate::safeguard::Safeguard;
use crate::store::Key;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::thread::ScopedJoinHandle;

/// What a scan came to.
pub(super) struct Run {
    pub tree: TreeRoot,
    pub totals: Totals,
    pub relied_packs: BTreeSet<PackId>,
    /// Packs that turned out to be damaged: nothing of this run may be committed.
    pub suspect_packs: BTreeSet<PackId>,
    pub databases: Databases,
    seen: Option<SeenWriter>,
    gate_path: Option<PathBuf>,
    scan_began: Timestamp,
}

impl Run {
    /// Keeps what was seen for the next backup, now that the snapshot exists. Returns the databases
    /// in it.
    pub(super) fn finish(self) -> Vec<DatabaseRecord> {
        if let Some(seen) = self.seen {
            let _ = seen.finish(&self.tree, self.scan_began);
        }
        if let Some(path) = &self.gate_path {
            self.databases.remember(path, &self.tree, self.scan_began);
        }
        self.databases.into_records()
    }
}

/// What a scan starts from.
#[derive(Clone, Copy)]
pub(super) struct Base<'a> {
    pub state: &'a State,
    pub parent: Option<&'a (SnapshotId, Manifest)>,
    /// Packs that are known to be damaged: as good as absent.
    pub suspect_packs: &'a BTreeSet<PackId>,
    /// Where databases are looked for.
    pub look: Look,
}

/// Scans the source and stores what is new.
pub(super) fn run(
    cx: &Context,
    repo: &Repo,
    options: &BackupOptions,
    source: &Source,
    base: Base<'_>,
    own: &mut Unfinished,
) -> Result<Run> {
    let parent = base.parent;
    let (chunks, trust) = open_chunks(repo, base, own)?;
    let (finished, to_publish) = mpsc::sync_channel::<FinishedPack>(0);
    let hand_over = |pack| finished.send(pack).map_err(|_| stopped());
    let discard = |_| Ok(());
    let Limits { threads, effort } = Limits::of(options.effort, options.memory_bytes);
    let writer = match options.dry_run {
        true => Writer::begin(cx, &chunks, &discard, trust),
        false => Writer::begin(cx, &chunks, &hand_over, trust),
    }
    .with_effort(effort);
    let (jobs, job_queue) = mpsc::sync_channel(pool::QUEUE_LEN);
    let job_queue = Mutex::new(job_queue);
    let (done, outcomes) = mpsc::channel();
    cx.progress.event(Event::Phase("read"));
    let result = thread::scope(|scope| {
        let end_of_packs = EndOfPacks(&finished);
        let publisher = scope.spawn(|| {
            options.priority.apply();
            publish(repo, &chunks, &writer, own, to_publish)
        });
        let workers = (0..threads).map(|_| {
            let worker = Worker {
                jobs: &job_queue,
                done: done.clone(),
                writer: &writer,
                chunks: &chunks,
                tree: &source.tree,
                effort: &effort,
            };
            scope.spawn(move || {
                options.priority.apply();
                worker.run()
            })
        });
        let workers: Vec<_> = workers.collect();
        drop(done);
        let compared = (parent, trust, base.look);
        let chunks = &chunks;
        // A thread of its own, for it may become idle, and a caller could not go back.
        let scanner = scope.spawn(move || {
            let mut pool = Pool::new(jobs, outcomes);
            scan(cx, repo, options, source, compared, chunks, &mut pool)
        });
        // Then there are no more jobs: the workers end, and with them whoever could finish a pack.
        let scanned = scanner.join().map_err(|_| stopped())?;
        let (relied_packs, worked) = join(workers)?;
        let finished_all = if scanned.is_ok() {
            writer.finish()
        } else {
            Ok(())
        };
        drop(end_of_packs);
        // The publisher knows the true cause if the others only found it gone.
        let published = publisher.join().map_err(|_| stopped())?;
        published?;
        finished_all?;
        let mut run = scanned?;
        worked?;
        run.relied_packs = relied_packs;
        run.suspect_packs = chunks.suspect_packs();
        Ok(run)
    });
    chunks.save_index();
    result
}

/// Waits for the threads that store. Returns what their work relies on, and the first error of a
/// job that nobody waited for.
fn join(
    workers: Vec<ScopedJoinHandle<'_, (WriterScratch, Result<()>)>>,
) -> Result<(BTreeSet<PackId>, Result<()>)> {
    let (mut relied_packs, mut worked) = (BTreeSet::new(), Ok(()));
    for worker in workers {
        let (scratch, ended) = worker.join().map_err(|_| stopped())?;
        relied_packs.extend(scratch.relied_packs());
        worked = worked.and(ended);
    }
    Ok((relied_packs, worked))
}

/// Opens the chunks a scan may build on, and says how far the parent can be trusted.
///
/// What the log calls lost is as good as absent, so nothing new leans on it. The parent is trusted
/// if it says that it was made without exactly that: then it needs none of it, and neither does
/// what is taken from it. Any other parent may lack something, whatever the clocks say
/// (`docs/decisions/0060-damage.md`).
fn open_chunks<'r>(
    repo: &'r Repo,
    base: Base<'_>,
    own: &mut Unfinished,
) -> Result<(Chunks<'r>, Trust)> {
    let suspect = base.suspect_packs;
    suspect.iter().for_each(|pack| own.remove(pack));
    let mut packs = base.state.packs.clone();
    packs.extend(own.packs());
    packs.retain(|pack, _| !suspect.contains(pack));
    let lost = &base.state.notes.lost;
    let chunks = Chunks::open_without(repo, &packs, &lost.packs)?;
    let needs_none = |(_, parent): &(SnapshotId, Manifest)| parent.without == lost.digest();
    let is_sound = lost.is_empty() || base.parent.is_none_or(needs_none);
    let unreadable = chunks.unreadable_packs();
    unreadable.iter().for_each(|(pack, _)| own.remove(pack));
    let is_trusted = is_sound && unreadable.is_empty() && suspect.is_empty();
    let trust = match is_trusted || !Safeguard::ParentDistrusted.holds() {
        true => Trust::Parent,
        false => Trust::Nothing,
    };
    Ok((chunks, trust))
}

fn scan(
    cx: &Context,
    repo: &Repo,
    options: &BackupOptions,
    source: &Source,
    compared: (Option<&(SnapshotId, Manifest)>, Trust, Look),
    chunks: &Chunks<'_>,
    pool: &mut Pool,
) -> Result<Run> {
    let (parent, trust, look) = compared;
    let scan_began = cx.clock.now();
    let cut_key = repo.secrets().cut_key();
    let own = Remembered::of(repo, options, source, &options.scope);
    let old = parent.map(|(_, parent)| Remembered::of(repo, options, source, &parent.scope));
    // Without fingerprints everything is read, and what is lost is stored again.
    let old = old.filter(|_| trust == Trust::Parent).unwrap_or_default();
    let unique = u64::from_le_bytes(cx.random_bytes()?);
    let seen = match (&own.seen, options.dry_run) {
        (Some(path), false) => SeenWriter::begin(path, unique).ok(),
        _ => None,
    };
    let mut totals = Totals::default();
    totals.warnings.extend(source.problem());
    let tree = parent.map(|(_, manifest)| &manifest.tree);
    if let Some((_, manifest)) = parent {
        let Figures {
            files,
            total_bytes: bytes,
            ..
        } = manifest.figures;
        cx.progress.event(Event::Total { files, bytes });
    }
    let before = Before {
        options,
        source,
        parent: parent.map(|(_, manifest)| manifest),
        gate_path: old.gate.as_deref(),
        // Nobody knows of any databases before the first backup.
        look: if parent.is_none() {
            look.max(Look::Everywhere)
        } else {
            look
        },
    };
    let room = databases::room(repo.cache_dir());
    let priority = options.priority;
    let mut io = Io::new(cx, pool, &mut totals, chunks, cut_key, &room, priority);
    let mut databases = databases::capture(&mut io, before)?;
    // Nobody waits for what is read from here on.
    priority.apply();
    let mut parent = Parent::begin(chunks, tree, old.seen.as_deref());
    let mut builder = Builder::begin(cut_key, seen);
    let mut large = LargeFiles::new(cx, &source.tree, chunks, cut_key, before.look.unknown());
    let walk = source.walk()?;
    Scan {
        cx,
        source,
        databases: &mut databases,
        pool,
        totals: &mut totals,
        parent: &mut parent,
        builder: &mut builder,
        large: &mut large,
        links: HashMap::new(),
    }
    .run(walk)?;
    databases.end_scan(&mut totals, before.look);
    let missing = source.missing(&|path| databases.is_known(path));
    if Safeguard::AbsenceTold.holds() {
        totals.warnings.extend(missing);
    }
    let (tree, seen) = builder.finish(pool, &mut totals, &mut parent, &mut large)?;
    Ok(Run {
        tree,
        totals,
        databases,
        gate_path: own.gate.filter(|_| !options.dry_run),
        relied_packs: BTreeSet::new(),
        suspect_packs: BTreeSet::new(),
        seen,
        scan_began,
    })
}

/// Makes finished packs durable, one after the other, while the others go on encoding.
fn publish(
    repo: &Repo,
    chunks: &Chunks<'_>,
    writer: &Writer<'_, '_>,
    own: &mut Unfinished,
    packs: Receiver<FinishedPack>,
) -> Result<()> {
    for pack in packs {
        if pack.object.is_empty() {
            break;
        }
        // `Taken` is our own earlier attempt: the name is the hash of salted content.
        match repo.store().put_new(&Key::pack(&pack.id), &pack.object) {
            Err(_) if !Safeguard::PutFailureHeeded.holds() => {}
            put => drop(put?),
        }
        own.add(pack.id, pack.bytes);
        chunks.add_pack(pack.id, pack.bytes, &pack.rows);
        writer.forget(pack);
    }
    Ok(())
}

/// Tells the publisher that no more packs come, by one without content: the sender outlives the
/// scope. Whichever way that is left, a publisher that still waits would keep it for ever.
struct EndOfPacks<'a>(&'a SyncSender<FinishedPack>);

impl Drop for EndOfPacks<'_> {
    fn drop(&mut self) {
        let bytes = PackBytes {
            stored_bytes: 0,
            table_bytes: 0,
        };
        let _ = self.0.send(FinishedPack {
            id: PackId([0; 32]),
            object: Vec::new(),
            bytes,
            rows: Vec::new(),
        });
    }
}

/// Where a scope of a series keeps what its last backup saw.
#[derive(Default)]
struct Remembered {
    seen: Option<PathBuf>,
    gate: Option<PathBuf>,
}

impl Remembered {
    fn of(repo: &Repo, options: &BackupOptions, source: &Source, scope: &str) -> Remembered {
        // What was captured with other free pages is no stand-in.
        let gate = match options.free_pages {
            FreePages::Zeroed => "gate",
            FreePages::Exact => "gate-exact",
        };
        Remembered {
            seen: local_path(repo, options, source, scope, "seen"),
            gate: local_path(repo, options, source, scope, gate),
        }
    }
}

/// One file for each scope of each series, by everything that makes it one.
fn local_path(
    repo: &Repo,
    options: &BackupOptions,
    source: &Source,
    scope: &str,
    what: &str,
) -> Option<PathBuf> {
    let dir = repo.cache_dir()?;
    let mut hasher = blake3::Hasher::new();
    for part in [
        options.host.as_bytes(),
        options.profile.as_bytes(),
        source.root_bytes(),
    ] {
        hasher
            .update(&(part.len() as u64).to_le_bytes())
            .update(part);
    }
    if !scope.is_empty() {
        hasher.update(scope.as_bytes());
    }
    let name = crate::id::hex(&hasher.finalize().as_bytes()[..8]);
    Some(dir.join(format!("{what}-{name}")))
}

fn stopped() -> Error {
    Error::Refused {
        reason: "a thread of the backup stopped early".to_string(),
    }
}
