//! The demo: a sample application writes, is backed up meanwhile, and what comes back is judged by
//! the application's own ledger. Beside each backup a `tar.gz` of the same directory is written.
//!
//! Everything happens below one directory of the caller's, with a repository, key and cache of its
//! own. The application and the judge are processes of their own: nothing they hold open can help
//! the backup, and a database that is damaged can bring down nobody else.

pub mod application;
mod archive;
mod judge;
mod process;

use crate::context::Context;
use crate::context::Silent;
use crate::disk;
use crate::disk::Published;
use crate::disk::RealDisk;
use crate::error::Error;
use crate::error::Result;
use crate::format::key::Credential;
use crate::format::key::Derivation;
use crate::format::keyfile::KeyFile;
use crate::format::manifest::Manifest;
use crate::id::RepoId;
use crate::id::SnapshotId;
use crate::ops::backup;
use crate::ops::backup::BackupOptions;
use crate::ops::demo::process::Beside;
use crate::ops::demo::process::Process;
use crate::repo::Access;
use crate::repo::NewKey;
use crate::repo::Repo;
use crate::source::files::Problem;
use crate::store::DirStore;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use zeroize::Zeroizing;

/// The application is left alone for so long before each backup.
const PAUSE: Duration = Duration::from_millis(900);

/// What the sample application is started as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `application::serve`, with its input and output as pipes.
    Serve,
    /// `application::judge`.
    Judge,
}

/// How to show it.
pub struct DemoOptions<'a> {
    /// An empty directory.
    pub dir: &'a Path,
    /// How many backups are made.
    pub backups: u64,
    /// The machine.
    pub host: String,
    /// Returns what runs the sample application below a directory.
    pub application: &'a dyn Fn(Role, &Path) -> Command,
}

/// Where things are below the directory.
#[derive(Debug, Clone)]
pub struct Places {
    /// The application.
    pub app: PathBuf,
    /// The repository.
    pub repo: PathBuf,
    /// Its key file.
    pub key_file: PathBuf,
    /// Disposable files about the repository.
    pub cache: PathBuf,
    archives: PathBuf,
    restored: PathBuf,
}

impl Places {
    /// Returns the places below a directory.
    pub fn below(dir: &Path) -> Places {
        Places {
            app: dir.join("app"),
            repo: dir.join("repo"),
            key_file: dir.join("key"),
            cache: dir.join("cache"),
            archives: dir.join("archives"),
            restored: dir.join("restored"),
        }
    }
}

/// What happened, as soon as it did.
#[derive(Debug)]
pub enum Step<'r> {
    /// The application is there and begins to write.
    Ready(&'r Sizes),
    /// A backup and an archive were made.
    Round(&'r Round),
    /// All backups were made.
    Written {
        /// What they came to.
        together: &'r Together,
        /// What the application noticed.
        latencies: &'r Latencies,
    },
    /// What came back was judged.
    Judged(&'r Judged),
}

/// How large the application is at first.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sizes {
    /// The SQLite database.
    pub history_bytes: u64,
    /// The redb database.
    pub devices_bytes: u64,
    /// Files of its configuration.
    pub rules: u64,
}

/// One backup, and the archive beside it.
#[derive(Debug, Clone)]
pub struct Round {
    /// From 1.
    pub number: u64,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The last commit that was acknowledged before the backup began.
    pub acked: u64,
    /// Bytes of the application's directory.
    pub app_bytes: u64,
    /// Plain bytes of chunks that the backup found new.
    pub new_bytes: u64,
    /// Bytes by which the repository grew, all of its overhead counted.
    pub stored_bytes: u64,
    /// How long the backup took.
    pub backup_time: Duration,
    /// Bytes of the archive.
    pub archive_bytes: u64,
    /// How long the archive took.
    pub archive_time: Duration,
    /// What the backup could not read as it should.
    pub warnings: Vec<Problem>,
    manifest: Manifest,
}

/// Where a judged directory came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A snapshot.
    Snapshot,
    /// An archive.
    Archive,
}

/// What came back from one round.
#[derive(Debug, Clone)]
pub struct Judged {
    /// Where from.
    pub origin: Origin,
    /// The number of the round.
    pub round: u64,
    /// The last commit that was acknowledged before the backup began.
    pub acked: u64,
    /// The last commit in SQLite.
    pub history: u64,
    /// The last commit in redb.
    pub devices: u64,
    /// How long it took to get everything back.
    pub time: Duration,
    /// What is wrong with it; empty is what a backup is for.
    pub faults: Vec<String>,
}

/// How long commits took, in microseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Latency {
    /// How many there were.
    pub commits: u64,
    /// Half of them took no longer.
    pub p50_us: u64,
    /// Of a hundred, 99 took no longer.
    pub p99_us: u64,
}

/// How long commits took, by what happened beside them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Latencies {
    /// Nothing.
    pub alone: Latency,
    /// A backup.
    pub during_backups: Latency,
    /// An archive was written.
    pub during_archives: Latency,
}

/// What all rounds came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Together {
    /// How long all backups took.
    pub backup_time: Duration,
    /// Bytes by which the repository grew.
    pub stored_bytes: u64,
    /// Without the first backup.
    pub later_stored_bytes: u64,
    /// How long all archives took.
    pub archive_time: Duration,
    /// Bytes of all archives.
    pub archive_bytes: u64,
    /// Without the first archive.
    pub later_archive_bytes: u64,
}

/// What the demo came to.
#[derive(Debug, Clone)]
pub struct DemoReport {
    /// All backups.
    pub rounds: Vec<Round>,
    /// What the application noticed of them.
    pub latencies: Latencies,
    /// What came back.
    pub judged: Vec<Judged>,
}

impl DemoReport {
    /// Returns what all rounds came to.
    pub fn together(&self) -> Together {
        together(&self.rounds)
    }
}

/// Shows a sample application being backed up and restored. Each step is told as it is taken.
pub fn demo(
    cx: &Context,
    options: &DemoOptions<'_>,
    tell: &mut dyn FnMut(Step<'_>) -> Result<()>,
) -> Result<DemoReport> {
    // The steps are told; bars of what each is made of would only flicker.
    let cx = &Context {
        progress: Arc::new(Silent),
        ..cx.clone()
    };
    let places = Places::below(options.dir);
    for dir in [&places.app, &places.archives, &places.restored] {
        fs::create_dir(dir).map_err(Error::io("create", dir))?;
    }
    let repo = create_repo(cx, &places)?;
    let command = (options.application)(Role::Serve, &places.app);
    let mut process = Process::start(cx, command)?;
    tell(Step::Ready(&Sizes {
        history_bytes: file_bytes(&places.app.join(application::HISTORY_FILE)),
        devices_bytes: file_bytes(&places.app.join(application::DEVICES_FILE)),
        rules: application::RULES,
    }))?;
    let mut rounds = Vec::new();
    for number in 1..=options.backups {
        process.beside(Beside::Nothing);
        process.wait(cx, PAUSE)?;
        let round = round(cx, options, &places, &repo, &process, number)?;
        tell(Step::Round(&round))?;
        rounds.push(round);
    }
    let latency = |beside| latency(&process.latencies_us(beside));
    let latencies = Latencies {
        alone: latency(Beside::Nothing),
        during_backups: latency(Beside::Backup),
        during_archives: latency(Beside::Archive),
    };
    process.stop();
    tell(Step::Written {
        together: &together(&rounds),
        latencies: &latencies,
    })?;
    let judged = judge::judge_some(cx, options, &places, &repo, &rounds, tell)?;
    Ok(DemoReport {
        rounds,
        latencies,
        judged,
    })
}

fn together(rounds: &[Round]) -> Together {
    let mut all = Together::default();
    for round in rounds {
        all.backup_time += round.backup_time;
        all.stored_bytes += round.stored_bytes;
        all.archive_time += round.archive_time;
        all.archive_bytes += round.archive_bytes;
        if round.number > 1 {
            all.later_stored_bytes += round.stored_bytes;
            all.later_archive_bytes += round.archive_bytes;
        }
    }
    all
}

fn create_repo(cx: &Context, places: &Places) -> Result<Repo> {
    let store = Arc::new(DirStore::create(Arc::new(RealDisk), &places.repo)?);
    let key_file = KeyFile {
        repo: RepoId(cx.random_bytes()?),
        location: places.repo.display().to_string(),
        secret: Zeroizing::new(cx.random_bytes()?),
    };
    let (dir, name) = (places.key_file.parent(), places.key_file.file_name());
    let (dir, name) = dir
        .zip(name.and_then(|name| name.to_str()))
        .ok_or_else(|| {
            let source = io::Error::from(io::ErrorKind::InvalidFilename);
            Error::io("create", &places.key_file)(source)
        })?;
    let text = key_file.encode();
    if disk::publish_new(&RealDisk, dir, name, text.as_bytes())? == Published::Taken {
        let source = io::Error::from(io::ErrorKind::AlreadyExists);
        return Err(Error::io("create", &places.key_file)(source));
    }
    let access = Access::Encrypted(vec![NewKey {
        credential: Credential::Secret(key_file.secret),
        derivation: Derivation::Secret,
        label: "key file".to_string(),
    }]);
    Repo::create(cx, store, key_file.repo, access, Some(&places.cache))
}

fn round(
    cx: &Context,
    options: &DemoOptions<'_>,
    places: &Places,
    repo: &Repo,
    process: &Process,
    number: u64,
) -> Result<Round> {
    let before_bytes = tree_bytes(&places.repo)?;
    let backup_options = BackupOptions {
        paths: vec![places.app.clone()],
        host: options.host.clone(),
        // What an editor writes beside a rule may go away under the scan, and be missed.
        exclude: vec!["*.new".to_string()],
        ..BackupOptions::default()
    };
    process.beside(Beside::Backup);
    let acked = process.acked();
    let began = Instant::now();
    let report = backup::backup(cx, repo, &backup_options)?;
    let backup_time = began.elapsed();
    let snapshot = report.snapshot.ok_or(Error::Cancelled)?;
    process.beside(Beside::Archive);
    let archive = places.archives.join(format!("{number}.tar.gz"));
    let began = Instant::now();
    let archive_bytes = archive::write(cx, &places.app, &archive)?;
    Ok(Round {
        number,
        snapshot,
        acked,
        app_bytes: tree_bytes(&places.app)?,
        new_bytes: report.manifest.figures.new_bytes,
        stored_bytes: tree_bytes(&places.repo)?.saturating_sub(before_bytes),
        backup_time,
        archive_bytes,
        archive_time: began.elapsed(),
        warnings: report.warnings,
        manifest: report.manifest,
    })
}

fn latency(sorted_us: &[u64]) -> Latency {
    let at = |percent: usize| {
        let index = (sorted_us.len() * percent / 100).min(sorted_us.len().saturating_sub(1));
        sorted_us.get(index).copied().unwrap_or(0)
    };
    Latency {
        commits: sorted_us.len() as u64,
        p50_us: at(50),
        p99_us: at(99),
    }
}

fn file_bytes(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Returns the length of all files below a directory. What goes away meanwhile does not count.
fn tree_bytes(dir: &Path) -> Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let entry = entry.map_err(Error::io("list", dir))?;
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => total += tree_bytes(&entry.path())?,
            Ok(metadata) => total += metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("read", entry.path())(error)),
        }
    }
    Ok(total)
}
