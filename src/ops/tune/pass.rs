//! One pass: a backup by one way into a repository of its own, or the restore of its newest.

use crate::context::Context;
use crate::context::Random;
use crate::disk::RealDisk;
use crate::error::Error;
use crate::error::Result;
use crate::id::RepoId;
use crate::ops::backup;
use crate::ops::backup::BackupOptions;
use crate::ops::restore;
use crate::ops::restore::RestoreOptions;
use crate::ops::restore::Sync;
use crate::ops::snapshots;
use crate::ops::tune::way::Way;
use crate::repo::Access;
use crate::repo::Repo;
use crate::repo::chunks::Chunks;
use crate::store::DirStore;
use crate::store::Folder;
use serde::Deserialize;
use serde::Serialize;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

/// What one pass does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    /// The directory of the way: its repository and its cache.
    pub dir: PathBuf,
    /// The way.
    pub way: Way,
    /// What randomness comes from: the same for all ways of one round and step.
    pub seed: (u64, u64),
    /// What to do.
    pub target: Target,
}

/// What a pass is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// Back these up.
    Backup {
        /// Files and directories.
        paths: Vec<PathBuf>,
        /// Patterns of what is never compressed together with others.
        secrets: Vec<String>,
    },
    /// Restore the newest into this directory, which is not there.
    Restore(PathBuf),
}

/// What it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PassDone {
    /// How long.
    pub duration_ns: u64,
    /// What packs grew by.
    pub stored_bytes: u64,
    /// The most memory the process had, if the system tells.
    pub peak_bytes: Option<u64>,
}

/// Runs a pass in this process.
pub fn run(cx: &Context, pass: &Pass) -> Result<PassDone> {
    let cx = Context {
        random: Arc::new(Seeded::new(pass.seed)),
        ..cx.clone()
    };
    let began = cx.clock.now();
    let repo = open(&cx, pass)?;
    let before = pack_bytes(&repo)?;
    match &pass.target {
        Target::Backup { paths, secrets } => {
            let options = BackupOptions {
                paths: paths.clone(),
                secrets: secrets.clone(),
                host: "tune".to_string(),
                database_cuts: pass.way.cuts,
                effort: pass.way.effort,
                ..BackupOptions::default()
            };
            backup::backup(&cx, &repo, &options)?;
        }
        Target::Restore(to) => restore_newest(&cx, &repo, to)?,
    }
    let duration_ns = cx.clock.now().since_ns(began).max(0).cast_unsigned();
    Ok(PassDone {
        duration_ns,
        stored_bytes: pack_bytes(&repo)?.saturating_sub(before),
        peak_bytes: peak_bytes(),
    })
}

fn open(cx: &Context, pass: &Pass) -> Result<Repo> {
    let dir = pass.dir.join("repo");
    let cache = pass.dir.join("cache");
    let disk = Arc::new(RealDisk);
    match DirStore::open(disk.clone(), &dir) {
        Ok(store) => Repo::open(Arc::new(store), &[], Some(&cache)),
        Err(Error::NoRepo { .. }) => {
            let store = Arc::new(DirStore::create(disk, &dir)?);
            // What is stored lies beside the plain content it was made of, and goes with it.
            Repo::create(cx, store, RepoId([1; 16]), Access::Plain, Some(&cache))
        }
        Err(error) => Err(error),
    }
}

fn pack_bytes(repo: &Repo) -> Result<u64> {
    let packs = repo.store().list(Folder::Packs)?;
    Ok(packs.iter().map(|pack| pack.stored_bytes).sum())
}

fn restore_newest(cx: &Context, repo: &Repo, to: &Path) -> Result<()> {
    let (state, snapshots) = snapshots::list(cx, repo)?;
    let Some(newest) = snapshots.last() else {
        return Ok(());
    };
    let chunks = Chunks::open(repo, &state.packs)?;
    let mut options = RestoreOptions::new(to);
    // How long the disk takes is not what differs.
    options.sync = Sync::Never;
    let plan = restore::plan(cx, &chunks, &newest.manifest, &options)?;
    restore::apply(cx, &chunks, &newest.manifest, &options, &plan)?;
    Ok(())
}

/// Returns the most memory that this process had at once.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// Bytes that a seed determines. For repositories that nobody keeps, and nothing else.
struct Seeded(Mutex<blake3::OutputReader>);

impl Seeded {
    fn new((round, step): (u64, u64)) -> Seeded {
        let mut hasher = blake3::Hasher::new_derive_key("statekeep 2026-11 replay of tune");
        hasher.update(&round.to_le_bytes());
        hasher.update(&step.to_le_bytes());
        Seeded(Mutex::new(hasher.finalize_xof()))
    }
}

impl Random for Seeded {
    fn fill(&self, buffer: &mut [u8]) -> Result<()> {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.fill(buffer);
        Ok(())
    }
}
