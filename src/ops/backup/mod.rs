//! Backing up a tree: scan, store what changed, commit one snapshot.
//!
//! ```text
//! walk ─┬─ unchanged: taken from the parent
//!       ├─ small: bundles ────────┬─ hash, known?, encode, verify (all cores) ── packs ── slot
//!       └─ large: cut by content ─┘
//! ```
//! Order (I2, I6): packs are durable before the slot that names them; the slot is the snapshot.
//! If the log moved on in a way that matters, the scan is repeated from the new state; what is
//! stored already is found again. An interrupted run leaves packs that the next one takes over.

mod builder;
mod bundle;
mod complete;
mod databases;
mod large;
mod limits;
mod parent;
mod pending;
mod pool;
mod predecessors;
mod read;
mod run;
mod scan;
mod seen;
mod source;
mod stage;
mod stream;

pub(super) use databases::Finder;
pub(super) use databases::Sniffed;
pub use limits::MEMORY_BYTES_MIN;
pub use limits::Priority;
pub(super) use source::Source;
pub(super) use stage::again;
pub(super) use stage::stage;

use crate::codec::sha256::Sha256Sum;
use crate::context::Context;
use crate::context::Timestamp;
use crate::error::Error;
use crate::error::Result;
use crate::format::database::DatabaseRecord;
use crate::format::entry::AddedPack;
use crate::format::entry::AddedSnapshot;
use crate::format::entry::PackBytes;
use crate::format::manifest::Figures;
use crate::format::manifest::Manifest;
use crate::format::manifest::Rules;
use crate::format::note::HoldUntil;
use crate::format::note::Note;
use crate::format::note::Replaced;
use crate::format::tree::Entry;
use crate::format::tree::Kind;
use crate::id::PackId;
use crate::id::SnapshotId;
use crate::ops::backup::builder::Known;
use crate::ops::backup::databases::Look;
use crate::ops::backup::run::Base;
use crate::ops::backup::run::Run;
use crate::ops::notes;
use crate::ops::unfinished::Unfinished;
use crate::repo::Repo;
use crate::repo::log::Draft;
use crate::repo::log::Outcome;
use crate::repo::log::Outdated;
use crate::repo::log::State;
use crate::repo::writer::Effort;
use crate::safeguard::Safeguard;
use crate::source::files::Problem;
use crate::source::redb::Hold;
use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

/// Scans that may be overtaken before a backup gives up.
const ATTEMPTS_MAX: usize = 10;

/// What to back up, as what, and at what pace.
#[derive(Debug, Clone, Default)]
pub struct BackupOptions {
    /// Files and directories; what is stored is relative to what they have in common.
    pub paths: Vec<PathBuf>,
    /// What stored paths are relative to, if not what the paths have in common.
    pub root: Option<PathBuf>,
    /// Patterns of what is taken below the one directory in `paths`; `None` for all of it. What is
    /// named without wildcards has to be there, or the snapshot is partial.
    pub files: Option<Vec<String>>,
    /// Patterns of databases, which are taken as well. What is named without wildcards has to be
    /// one.
    pub databases: Vec<String>,
    /// The profile; empty for paths given by hand.
    pub profile: String,
    /// The part of the profile; empty for all of it.
    pub scope: String,
    /// The machine.
    pub host: String,
    /// Patterns of what is left out.
    pub exclude: Vec<String>,
    /// Patterns of files and directories whose content is never compressed together with others.
    pub secrets: Vec<String>,
    /// Whether to stay on the file system of the root.
    pub one_file_system: bool,
    /// Whether to leave out directories marked by a `CACHEDIR.TAG`.
    pub skip_cache_dirs: bool,
    /// What is kept of the free pages of SQLite databases.
    pub free_pages: FreePages,
    /// Where SQLite databases are cut into chunks.
    pub database_cuts: DatabaseCuts,
    /// How hard to compress, and how far deltas lean on each other.
    pub effort: Effort,
    /// Whether others go first.
    pub priority: Priority,
    /// What it may take of the memory, about; `None` for as much as all cores need.
    pub memory_bytes: Option<u64>,
    /// Names for the snapshot.
    pub tags: Vec<String>,
    /// The version of the application; empty if it is not known.
    pub app_version: String,
    /// What it is made for, if it is made right before a restore in place: it is held.
    pub replaced: Option<Replaced>,
    /// Whether to say what would be done, and do nothing.
    pub dry_run: bool,
    /// redb databases that this very process has open, each with the handle it has. The pages are
    /// held while they are read, so that no writer can get in the way.
    pub holders: Vec<(PathBuf, Holder)>,
    /// Where the content comes from, if the paths are only where it was unpacked.
    pub origin: Option<Origin>,
}

impl BackupOptions {
    /// Returns the options of a backup of this file or directory on this machine.
    pub fn of(path: impl Into<PathBuf>) -> BackupOptions {
        let name = rustix::system::uname();
        BackupOptions {
            paths: vec![path.into()],
            host: name.nodename().to_string_lossy().into_owned(),
            ..BackupOptions::default()
        }
    }
}

/// The archive that a snapshot is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// When it was made: the time of the snapshot.
    pub created_at: Timestamp,
    /// The directory that all paths were in; empty if nobody knows.
    pub root_path: Vec<u8>,
    /// Its sum.
    pub sha256: Sha256Sum,
    /// Whether it lacks something.
    pub is_partial: bool,
}

/// The handle of an open database, see `Hold`.
pub type Holder = Arc<dyn Hold + Send + Sync>;

/// Pages of a SQLite database that hold nothing but what was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FreePages {
    /// They are zeroes in the backup: less to store, and what was deleted is gone.
    #[default]
    Zeroed,
    /// Every byte is kept.
    Exact,
}

/// Where the pages of a SQLite database are cut into chunks. It may differ from backup to backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DatabaseCuts {
    /// Every 256 KiB: least for each step, as long as pages stay where they are.
    #[default]
    Groups,
    /// Every 64 KiB.
    SmallGroups,
    /// Every MiB.
    LargeGroups,
    /// By content, between pages: less where pages move together, as VACUUM moves them.
    Content,
}

/// What a backup did.
#[derive(Debug, Clone)]
pub struct BackupReport {
    /// The snapshot; `None` for a dry run.
    pub snapshot: Option<SnapshotId>,
    /// What it is.
    pub manifest: Manifest,
    /// What is wrong with the source. Any makes the snapshot partial (I8).
    pub warnings: Vec<Problem>,
    /// Packs that were written.
    pub packs: u64,
    /// The databases in it, and how each was captured.
    pub databases: Vec<DatabaseRecord>,
}

/// What is counted while a backup runs.
#[derive(Default)]
struct Totals {
    figures: Figures,
    warnings: Vec<Problem>,
    /// Bytes that progress was told of already.
    told_bytes: u64,
    /// Whether the scan met a database that was not captured: nothing of it may be committed.
    found_database: bool,
}

impl Totals {
    /// Counts a chunk of content.
    fn count_stored(&mut self, plain_bytes: u64, stored_bytes: Option<u32>) {
        if stored_bytes.is_some() {
            self.figures.new_bytes += plain_bytes;
        }
        self.count_record(stored_bytes);
    }

    /// Counts a record.
    fn count_record(&mut self, stored_bytes: Option<u32>) {
        self.figures.stored_bytes += u64::from(stored_bytes.unwrap_or(0));
    }

    fn count_entry(&mut self, entry: &Entry, known: Known) {
        let figures = &mut self.figures;
        match &entry.kind {
            Kind::File { size_bytes, .. } => {
                figures.files += 1;
                figures.total_bytes += size_bytes;
                figures.new_files += u64::from(known == Known::New);
                figures.changed_files += u64::from(known == Known::Changed);
            }
            Kind::HardLink { .. } => figures.files += 1,
            Kind::Directory => figures.directories += 1,
            _ => {}
        }
    }
}

/// Backs up.
pub fn backup(cx: &Context, repo: &Repo, options: &BackupOptions) -> Result<BackupReport> {
    let source = Source::open(options)?;
    let started_at = cx.clock.now();
    let mut state = repo.read_state(cx)?;
    let mut own = Unfinished::begin(cx, repo, &state)?;
    let mut suspect_packs = BTreeSet::new();
    let mut look = Look::AtKnown;
    for _ in 0..ATTEMPTS_MAX {
        let parent = newest_of_series(&state, options, &source);
        let base = Base {
            state: &state,
            parent: parent.as_ref(),
            suspect_packs: &suspect_packs,
            look,
        };
        let mut run = run::run(cx, repo, options, &source, base, &mut own)?;
        if !run.suspect_packs.is_empty() && Safeguard::DamageRetried.holds() {
            // What the parent lost must not be named again as if it were there: read everything,
            // and store again what lay in these packs. They may also just have been dropped.
            suspect_packs.append(&mut run.suspect_packs);
            state = repo.read_state(cx)?;
            continue;
        }
        if run.totals.found_database {
            look = look.again();
            continue;
        }
        let mut manifest = manifest(cx, options, &source, &run, started_at, parent.as_ref());
        manifest.without = state.notes.lost.digest();
        let warnings = std::mem::take(&mut run.totals.warnings);
        if options.dry_run {
            own.finish();
            let databases = run.databases.into_records();
            return Ok(report(None, manifest, warnings, databases, 0));
        }
        let added = AddedSnapshot::new(repo.secrets().manifest_key(), manifest.encode());
        let snapshot = added.id;
        let draft = draft(options, added, &run, &own, parent.as_ref());
        match repo.append(cx, Arc::clone(&state), draft)? {
            Outcome::Committed(state) => {
                let packs = own.packs().len() as u64;
                own.finish();
                let databases = run.finish();
                // Whoever finds the log long shortens it; failing to is no reason to fail.
                let _ = crate::repo::log::checkpoint(cx, repo.store(), &repo.log_keys(), state);
                return Ok(report(Some(snapshot), manifest, warnings, databases, packs));
            }
            Outcome::Outdated(now, _) if now.snapshots.contains_key(&snapshot) => {
                own.finish();
                let databases = run.databases.into_records();
                return Ok(report(Some(snapshot), manifest, warnings, databases, 0));
            }
            Outcome::Outdated(now, why) => {
                if matches!(why, Outdated::OwnPackDropped | Outdated::Skipped) {
                    own.forget(&now);
                }
                state = now;
            }
            Outcome::Unsettled => return Err(notes::unsettled(repo)),
        }
    }
    Err(Error::Busy {
        what: format!("repository {}", repo.id().short()),
        reason: "others kept removing what this backup relied on; try again".to_string(),
    })
}

fn report(
    snapshot: Option<SnapshotId>,
    manifest: Manifest,
    warnings: Vec<Problem>,
    databases: Vec<DatabaseRecord>,
    packs: u64,
) -> BackupReport {
    BackupReport {
        snapshot,
        manifest,
        warnings,
        packs,
        databases,
    }
}

/// Returns the snapshot to compare with: the newest of the same profile or place on this machine,
/// of the same scope if there is one.
fn newest_of_series(
    state: &State,
    options: &BackupOptions,
    source: &Source,
) -> Option<(SnapshotId, Manifest)> {
    let snapshots = state.snapshots.iter();
    let decoded = snapshots.filter_map(|(id, raw)| Some((*id, Manifest::decode(raw).ok()?)));
    let of_series = decoded.filter(|(_, manifest)| {
        manifest.host == options.host
            && manifest.profile == options.profile
            && manifest.root_path == root_path(options, source)
    });
    match &options.origin {
        None => of_series.max_by_key(|(id, manifest)| {
            let is_same_scope = manifest.scope == options.scope;
            (is_same_scope, manifest.started_at, *id)
        }),
        // What was there next to that time is most like it.
        Some(origin) => of_series.min_by_key(|(id, manifest)| {
            let apart = origin.created_at.since_ns(manifest.started_at);
            (apart.unsigned_abs(), *id)
        }),
    }
}

fn root_path<'p>(options: &'p BackupOptions, source: &'p Source) -> &'p [u8] {
    match &options.origin {
        Some(origin) => &origin.root_path,
        None => source.root_bytes(),
    }
}

fn manifest(
    cx: &Context,
    options: &BackupOptions,
    source: &Source,
    run: &Run,
    started_at: Timestamp,
    parent: Option<&(SnapshotId, Manifest)>,
) -> Manifest {
    let mut figures = run.totals.figures;
    figures.warnings = run.totals.warnings.len() as u64;
    let duration_ns = cx.clock.now().since_ns(started_at).max(0);
    Manifest {
        started_at: options
            .origin
            .as_ref()
            .map_or(started_at, |origin| origin.created_at),
        duration_ms: duration_ns.cast_unsigned() / 1_000_000,
        host: options.host.clone(),
        profile: options.profile.clone(),
        scope: options.scope.clone(),
        root_path: root_path(options, source).to_vec(),
        included: source.included().to_vec(),
        rules: Rules {
            taken: source::taken(options),
            exclude: options.exclude.clone(),
            secrets: options.secrets.clone(),
            one_file_system: options.one_file_system,
            skip_cache_dirs: options.skip_cache_dirs,
        },
        partial: figures.warnings > 0 && Safeguard::PartialSaid.holds()
            || options
                .origin
                .as_ref()
                .is_some_and(|origin| origin.is_partial),
        tree: run.tree,
        databases: run.databases.records_id,
        parent: parent.map(|(id, _)| *id),
        without: None,
        figures,
        tags: Vec::new(),
        program: concat!("statekeep ", env!("CARGO_PKG_VERSION")).to_string(),
        app_version: options.app_version.clone(),
    }
}

fn draft(
    options: &BackupOptions,
    added: AddedSnapshot,
    run: &Run,
    own: &Unfinished,
    parent: Option<&(SnapshotId, Manifest)>,
) -> Draft {
    let own_packs: &BTreeMap<PackId, PackBytes> = own.packs();
    let relies_on_packs: BTreeSet<PackId> = run
        .relied_packs
        .iter()
        .filter(|pack| !own_packs.contains_key(*pack))
        .copied()
        .collect();
    let mut draft = Draft {
        relies_on_packs,
        relies_on_snapshots: parent.iter().map(|(id, _)| *id).collect(),
        packs_since: own.since(),
        ..Draft::default()
    };
    let tag = |name: &String| Note::Tag(added.id, name.clone());
    draft.change.notes = options.tags.iter().map(tag).collect();
    if let Some(replaced) = &options.replaced {
        // Order: in the same entry, so that nobody can remove it before it is held.
        draft.change.notes.extend([
            Note::Hold(added.id, HoldUntil::Released),
            Note::Replaced(added.id, replaced.clone()),
        ]);
    }
    let import = |origin: &Origin| Note::Import(added.id, origin.sha256);
    draft
        .change
        .notes
        .extend(options.origin.as_ref().map(import));
    draft.change.add_snapshots = vec![added];
    draft.change.add_packs = own_packs
        .iter()
        .map(|(id, bytes)| AddedPack {
            id: *id,
            bytes: *bytes,
        })
        .collect();
    draft
}
