//! What histories are made of: hosts with sources that change, jobs, and what was promised.

use crate::model::naive::Files;
use crate::support;
use crate::support::Seeded;
use jiff::tz::TimeZone;
use statekeep::context::Clock;
use statekeep::context::Context;
use statekeep::context::Timestamp;
use statekeep::error::Error;
use statekeep::error::Result;
use statekeep::format::note::HoldUntil;
use statekeep::format::note::Note;
use statekeep::id::SnapshotId;
use statekeep::ops::backup;
use statekeep::ops::backup::BackupOptions;
use statekeep::ops::check;
use statekeep::ops::check::ReadData;
use statekeep::ops::check::repair;
use statekeep::ops::keep::Policy;
use statekeep::ops::notes;
use statekeep::ops::prune;
use statekeep::ops::prune::Limits;
use statekeep::ops::prune::PruneOptions;
use statekeep::ops::snapshots;
use statekeep::repo::Repo;
use statekeep::store::Store;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

/// Makes the tail of the log worth a checkpoint.
const LONG_NOTE_BYTES: usize = 70_000;
const HOUR_NS: i64 = 3600 * 1_000_000_000;

/// A clock that all hosts and the store go by.
pub(crate) struct ModelClock(AtomicI64);

impl ModelClock {
    pub(crate) fn new() -> Arc<ModelClock> {
        let now = Context::new().clock.now().0 + 10_000_000_000;
        Arc::new(ModelClock(AtomicI64::new(now)))
    }

    pub(crate) fn advance_hours(&self, hours: i64) {
        self.0.fetch_add(hours * HOUR_NS, Ordering::Relaxed);
    }
}

impl Clock for ModelClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.fetch_add(1_000_000, Ordering::Relaxed))
    }
}

/// What a host does in one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Job {
    Backup,
    Forget,
    Hold,
    Release,
    Prune(u32, Zeal),
    Collect(Zeal),
    Check,
    Repair,
    Remark,
}

/// How far a prune goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Zeal {
    /// Only what takes no rewriting.
    Lazy,
    /// As by default.
    Plain,
    /// A little rewriting at a time.
    Little,
    /// Not a byte unused.
    All,
}

impl Zeal {
    fn limits(self) -> Limits {
        let (unused_permille, repack_bytes_max) = match self {
            Zeal::Lazy => (0, 0),
            Zeal::Plain => (100, u64::MAX),
            Zeal::Little => (0, 100_000),
            Zeal::All => (0, u64::MAX),
        };
        Limits {
            unused_permille,
            repack_bytes_max,
        }
    }

    fn any(random: &mut Seeded) -> Zeal {
        [Zeal::Lazy, Zeal::Plain, Zeal::Little, Zeal::All][random.below(4) as usize]
    }
}

impl Job {
    pub(crate) fn any(random: &mut Seeded) -> Job {
        match random.below(20) {
            0..10 => Job::Backup,
            10 => Job::Forget,
            11 => Job::Hold,
            12 => Job::Release,
            13..16 => Job::Prune(1 + random.below(4) as u32, Zeal::any(random)),
            16 => Job::Collect(Zeal::any(random)),
            17 => Job::Check,
            18 => Job::Repair,
            _ => Job::Remark,
        }
    }
}

/// What clients were told, and what they asked for.
#[derive(Default)]
pub(crate) struct Promises {
    /// Snapshots that were reported as saved, and what was in the source.
    pub(crate) saved: BTreeMap<SnapshotId, Files>,
    /// What was in the source at any backup that began.
    pub(crate) attempted: BTreeSet<Files>,
    /// Snapshots that somebody asked to remove: they may be there or not.
    pub(crate) going: BTreeSet<SnapshotId>,
    /// Snapshots that were reported as held.
    pub(crate) held: BTreeSet<SnapshotId>,
}

/// Promises that several hosts write down.
#[derive(Clone, Default)]
pub(crate) struct Shared(Arc<Mutex<Promises>>);

impl Shared {
    pub(crate) fn get(&self) -> MutexGuard<'_, Promises> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A machine with a source that changes.
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) source: PathBuf,
    pub(crate) cache: Option<PathBuf>,
    pub(crate) cx: Context,
    pub(crate) promises: Shared,
    random: Seeded,
    /// Contents that hosts have in common, and return to.
    common: Arc<Vec<Vec<u8>>>,
    touched: u64,
}

impl Host {
    /// Returns a host that keeps its files below this directory.
    pub(crate) fn new(
        dir: &Path,
        number: u64,
        seed: u64,
        clock: &Arc<ModelClock>,
        promises: &Shared,
        common: &Arc<Vec<Vec<u8>>>,
    ) -> Host {
        let mut random = Seeded::new(seed.wrapping_mul(31) + number + 1);
        let dir = dir.join(format!("host-{number}"));
        let source = dir.join("source");
        fs::create_dir_all(source.join("d")).unwrap();
        let has_cache = random.below(4) > 0;
        let mut host = Host {
            name: format!("host-{number}"),
            source,
            cache: has_cache.then(|| dir.join("cache")),
            cx: Context {
                clock: clock.clone(),
                ..Context::new()
            },
            promises: promises.clone(),
            random,
            common: Arc::clone(common),
            touched: 0,
        };
        host.change();
        host
    }

    pub(crate) fn open(&self, store: Arc<dyn Store>) -> Result<Repo> {
        support::open(store, self.cache.as_deref())
    }

    /// Changes the source a little.
    pub(crate) fn change(&mut self) {
        let large = self.source.join("large");
        let mut content = fs::read(&large).unwrap_or_else(|_| self.common[0].clone());
        match self.random.below(5) {
            0 => content.clone_from(&self.common[self.random.below(4) as usize]),
            1 => content.truncate(content.len() * 3 / 4),
            2 => content.extend(self.random.bytes(5000)),
            _ => {}
        }
        for _ in 0..self.random.below(3) {
            let at = self.random.below(content.len().max(1) as u64) as usize;
            content[at..]
                .iter_mut()
                .take(9)
                .for_each(|byte| *byte ^= 0x55);
        }
        self.write("large", &content);
        for _ in 0..self.random.below(4) {
            let name = format!("d/small-{}", self.random.below(12));
            let len = self.random.below(3000) as usize;
            let text = self.random.text(len);
            self.write(&name, &text);
        }
        match self.random.below(6) {
            0 => self.write("copy", &content),
            1 => drop(fs::remove_file(self.source.join("copy"))),
            2 => drop(fs::remove_file(self.source.join("d/small-3"))),
            3 | 4 => self.change_database(),
            _ => {}
        }
    }

    fn change_database(&mut self) {
        let path = self.source.join("state.db");
        let database = rusqlite::Connection::open(&path).unwrap();
        let value = self.random.bytes(2000);
        let rows = "pragma synchronous = off; create table if not exists t(x);";
        database.execute_batch(rows).unwrap();
        for _ in 0..20 {
            database
                .execute("insert into t values(?1)", [&value])
                .unwrap();
        }
        drop(database);
        self.touch(&path);
    }

    fn write(&mut self, name: &str, content: &[u8]) {
        let path = self.source.join(name);
        fs::write(&path, content).unwrap();
        self.touch(&path);
    }

    /// Gives a file a time no other version of it has: the kernel's clock is coarser than a test.
    fn touch(&mut self, path: &Path) {
        self.touched += 1;
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + self.touched);
        let file = fs::File::options().append(true).open(path).unwrap();
        file.set_modified(time).unwrap();
    }

    fn files(&self) -> Files {
        let model = support::model_of(&self.source);
        let files = model.into_iter().filter(|(_, node)| node.1 == "file");
        files
            .map(|(path, node)| (path, *blake3::hash(&node.2).as_bytes()))
            .collect()
    }

    fn any_snapshot(&mut self, repo: &Repo) -> Result<Option<SnapshotId>> {
        let state = repo.read_state(&self.cx)?;
        let at = self.random.below(state.snapshots.len() as u64) as usize;
        Ok(state.snapshots.keys().nth(at).copied())
    }

    /// Does one job from opening the repository to the end.
    pub(crate) fn run(&mut self, store: Arc<dyn Store>, job: Job) -> Result<()> {
        let repo = self.open(store)?;
        match job {
            Job::Backup => self.back_up(&repo),
            Job::Forget => self.forget(&repo),
            Job::Hold => self.hold(&repo),
            Job::Release => self.release(&repo),
            Job::Prune(last, zeal) => self.prune(&repo, Some(last), zeal),
            Job::Collect(zeal) => self.prune(&repo, None, zeal),
            Job::Check => self.check(&repo),
            Job::Repair => self.repair(&repo),
            Job::Remark => self.remark(&repo),
        }
    }

    fn back_up(&mut self, repo: &Repo) -> Result<()> {
        let files = self.files();
        self.promises.get().attempted.insert(files.clone());
        let options = BackupOptions {
            host: self.name.clone(),
            secrets: vec!["d/small-1*".into()],
            ..support::options(&self.source)
        };
        let report = backup::backup(&self.cx, repo, &options)?;
        assert!(report.warnings.is_empty(), "{:?}", report.warnings);
        self.promises
            .get()
            .saved
            .insert(report.snapshot.unwrap(), files);
        Ok(())
    }

    fn forget(&mut self, repo: &Repo) -> Result<()> {
        let Some(id) = self.any_snapshot(repo)? else {
            return Ok(());
        };
        self.promises.get().going.insert(id);
        prune::forget(&self.cx, repo, &[id].into()).map(drop)
    }

    fn hold(&mut self, repo: &Repo) -> Result<()> {
        let Some(id) = self.any_snapshot(repo)? else {
            return Ok(());
        };
        let note = Note::Hold(id, HoldUntil::Released);
        notes::add(&self.cx, repo, &[id].into(), &[note])?;
        self.promises.get().held.insert(id);
        Ok(())
    }

    fn release(&mut self, repo: &Repo) -> Result<()> {
        let held = self.promises.get().held.pop_first();
        let Some(id) = held else {
            return Ok(());
        };
        notes::add(&self.cx, repo, &[id].into(), &[Note::Release(id)]).map(drop)
    }

    fn prune(&mut self, repo: &Repo, last: Option<u32>, zeal: Zeal) -> Result<()> {
        let options = prune_options(last, zeal);
        let plan = prune::plan(&self.cx, repo, &options)?;
        self.promises.get().going.extend(plan.removed());
        prune::apply(&self.cx, repo, &options, plan).map(drop)
    }

    fn check(&mut self, repo: &Repo) -> Result<()> {
        let (state, snapshots) = snapshots::list(&self.cx, repo)?;
        let manifests: Vec<_> = snapshots.into_iter().map(|s| (s.id, s.manifest)).collect();
        check::check(&self.cx, repo, &state.packs, &manifests, ReadData::All).map(drop)
    }

    fn repair(&mut self, repo: &Repo) -> Result<()> {
        let (state, snapshots) = snapshots::list(&self.cx, repo)?;
        let manifests: Vec<_> = snapshots.into_iter().map(|s| (s.id, s.manifest)).collect();
        let plan = repair::plan(&self.cx, repo, &state, &manifests, ReadData::All)?;
        repair::apply(&self.cx, repo, &state, &plan).map(drop)
    }

    fn remark(&mut self, repo: &Repo) -> Result<()> {
        let note = Note::Unknown(1000, vec![0; LONG_NOTE_BYTES]);
        notes::add(&self.cx, repo, &BTreeSet::new(), &[note]).map(drop)
    }
}

pub(crate) fn prune_options(last: Option<u32>, zeal: Zeal) -> PruneOptions {
    PruneOptions {
        policy: last.map(|last| Policy {
            last,
            ..Policy::default()
        }),
        profile: None,
        host: None,
        zone: TimeZone::UTC,
        limits: zeal.limits(),
        grace_ns: 0,
    }
}

/// Returns whether a job may end like this. Nobody is ever told that the repository is damaged.
pub(crate) fn may_end(result: &Result<()>, has_fault: bool) -> bool {
    match result {
        Ok(()) | Err(Error::NotFound { .. } | Error::Refused { .. } | Error::Busy { .. }) => true,
        Err(Error::Store { .. } | Error::Io { .. }) => has_fault,
        Err(_) => false,
    }
}

/// Contents of one length that differ in a few places: whatever is first may lean on another.
pub(crate) fn common(seed: u64) -> Arc<Vec<Vec<u8>>> {
    let mut random = Seeded::new(seed + 77);
    let len = 66_000 + random.below(120_000) as usize;
    let first = random.bytes(len);
    let mut all = vec![first];
    for _ in 1..4 {
        let mut next = all.last().unwrap().clone();
        let at = random.below(len as u64) as usize;
        next[at] ^= 1;
        all.push(next);
    }
    Arc::new(all)
}
