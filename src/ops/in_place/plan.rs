//! Says what a restore in place would do, by reading only.

use crate::context::Context;
use crate::error::Error;
use crate::error::Result;
use crate::format::database::DatabaseRecord;
use crate::format::database::Engine;
use crate::format::manifest::Manifest;
use crate::format::tree::Kind;
use crate::id::SnapshotId;
use crate::ops::Tally;
use crate::ops::in_place::InPlaceOptions;
use crate::ops::in_place::Surplus;
use crate::ops::in_place::journal;
use crate::ops::in_place::running;
use crate::ops::in_place::running::User;
use crate::ops::inspect;
use crate::ops::restore;
use crate::ops::restore::RestorePlan;
use crate::ops::restore::select::Only;
use crate::ops::restore::surplus as restore_surplus;
use crate::ops::snapshots::Snapshot;
use crate::repo::chunks::Chunks;
use crate::source::files::CacheDirs;
use crate::source::files::FileSystems;
use crate::source::files::Patterns;
use crate::source::files::Rules;
use crate::source::files::Tree;
use crate::source::files::WalkOptions;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

/// Where the header of a SQLite database has the application's own version.
const USER_VERSION_OFFSET: u64 = 60;

/// What a restore in place would do.
#[derive(Debug, Clone)]
pub struct InPlacePlan {
    /// What is created, replaced and kept. Logs it counts as removed are merged first.
    pub restore: RestorePlan,
    /// What goes because the snapshot lacks it.
    pub removes: Tally,
    /// Who has files there open.
    pub users: Vec<User>,
    /// Whether the application's own command says that it runs.
    pub says_it_runs: bool,
    /// Whether a part was asked for that has no database in it: the application may go on running.
    pub spares_databases: bool,
    /// Databases that the application has brought to another version since.
    pub schemas: Vec<SchemaChange>,
    /// The snapshot of a restore in place that was interrupted there. It is finished first.
    pub unfinished: Option<SnapshotId>,
}

impl InPlacePlan {
    /// Returns whether the application is in the way: it has a database open or says that it runs.
    pub fn is_running(&self) -> bool {
        !self.spares_databases && self.is_in_use()
    }

    fn is_in_use(&self) -> bool {
        self.says_it_runs || self.users.iter().any(|user| user.is_database)
    }
}

/// A database whose `user_version` differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaChange {
    /// The database.
    pub path: Vec<u8>,
    /// What is there now.
    pub now: u32,
    /// What the snapshot has.
    pub then: u32,
}

/// Says what restoring a snapshot in place would do. Changes nothing.
pub fn plan(
    cx: &Context,
    chunks: &Chunks<'_>,
    snapshot: &Snapshot,
    options: &InPlaceOptions,
) -> Result<InPlacePlan> {
    let manifest = &snapshot.manifest;
    let only = Only::parse(&options.only)?;
    let mut restore = restore::plan(cx, chunks, manifest, &options.restore_options())?;
    let mut removes = Tally::default();
    if options.surplus == Surplus::Removed && options.root.is_dir() {
        let surplus = surplus(cx, chunks, manifest, options, &only)?;
        surplus.iter().for_each(|path| removes.add(path, 0));
        let kept = &mut restore.kept;
        kept.count = kept.count.saturating_sub(removes.count);
        kept.sample.retain(|path| !surplus.contains(path));
    }
    let databases = wanted_databases(chunks, manifest, &only)?;
    let paths: Vec<Vec<u8>> = databases.iter().map(|record| record.path.clone()).collect();
    Ok(InPlacePlan {
        restore,
        removes,
        users: running::users(&options.root, &paths),
        says_it_runs: options.application.says_it_runs(cx)?,
        spares_databases: spares_databases(chunks, manifest, options)?,
        schemas: schemas(options, &databases),
        unfinished: journal::unfinished(&options.root)?,
    })
}

/// Returns the databases of a snapshot that are asked for.
pub(super) fn wanted_databases(
    chunks: &Chunks<'_>,
    manifest: &Manifest,
    only: &Only,
) -> Result<Vec<DatabaseRecord>> {
    let mut records = inspect::databases(chunks, manifest)?;
    records.retain(|record| {
        let kind = match record.engine {
            Engine::Sled => Kind::Directory,
            // Whatever is no directory is matched alike.
            Engine::Sqlite | Engine::Redb => Kind::Fifo,
        };
        only.wants(&record.path, &kind)
    });
    Ok(records)
}

/// Returns whether a part is asked for, and neither the snapshot has a database in it nor has
/// somebody one open there now. Decision 0080.
pub(super) fn spares_databases(
    chunks: &Chunks<'_>,
    manifest: &Manifest,
    options: &InPlaceOptions,
) -> Result<bool> {
    let only = Only::parse(&options.only)?;
    if only.is_everything() || !wanted_databases(chunks, manifest, &only)?.is_empty() {
        return Ok(false);
    }
    let users = running::users(&options.root, &[]);
    let mut databases = users.iter().filter(|user| user.is_database);
    // Whatever is no directory is matched alike.
    Ok(!databases.any(|user| only.wants(&user.path, &Kind::Fifo)))
}

/// Returns the paths of all databases in a snapshot.
pub(super) fn database_paths(chunks: &Chunks<'_>, manifest: &Manifest) -> Result<Vec<Vec<u8>>> {
    let records = inspect::databases(chunks, manifest)?.into_iter();
    Ok(records.map(|record| record.path).collect())
}

/// Returns what is there, would have been backed up, and is not in the snapshot; what lies in a
/// directory after it.
pub(super) fn surplus(
    cx: &Context,
    chunks: &Chunks<'_>,
    manifest: &Manifest,
    options: &InPlaceOptions,
    only: &Only,
) -> Result<Vec<Vec<u8>>> {
    let rules = &manifest.rules;
    let taken = rules.taken.as_ref();
    let walk = WalkOptions {
        include: manifest.included.clone(),
        patterns: taken.map(|taken| Patterns::parse(taken)).transpose()?,
        exclude: Rules::parse(&rules.exclude)?,
        cache_dirs: match rules.skip_cache_dirs {
            true => CacheDirs::Skip,
            false => CacheDirs::Enter,
        },
        file_systems: match rules.one_file_system {
            true => FileSystems::One,
            false => FileSystems::All,
        },
    };
    let databases = database_paths(chunks, manifest)?;
    let tree = Tree::open(&options.root)?;
    let mut paths = Vec::new();
    let is_whole = restore_surplus::visit(cx, chunks, manifest, &tree, walk, &mut |item| {
        let kind = match item.stat.is_dir() {
            true => Kind::Directory,
            false => Kind::Fifo,
        };
        let is_log = |database: &Vec<u8>| {
            let rest = item.path.strip_prefix(&database[..]);
            rest.is_some_and(|rest| matches!(rest, b"-wal" | b"-shm" | b"-journal"))
        };
        if only.wants(&item.path, &kind) && !databases.iter().any(is_log) {
            paths.push(item.path);
        }
    })?;
    match is_whole {
        true => Ok(paths),
        false => Err(Error::corrupt(
            "the snapshot",
            "a part of its tree cannot be read, so nothing can be removed for want of being in it",
        )),
    }
}

fn schemas(options: &InPlaceOptions, databases: &[DatabaseRecord]) -> Vec<SchemaChange> {
    let sqlite = databases
        .iter()
        .filter(|record| record.engine == Engine::Sqlite);
    let changes = sqlite.filter_map(|record| {
        let mut bytes = [0; 4];
        let path = options.root.join(OsStr::from_bytes(&record.path));
        // Nothing in this process holds a lock on it that closing would drop.
        let file = File::open(path).ok()?;
        file.read_exact_at(&mut bytes, USER_VERSION_OFFSET).ok()?;
        let change = SchemaChange {
            path: record.path.clone(),
            now: u32::from_be_bytes(bytes),
            then: record.user_version,
        };
        (change.now != change.then).then_some(change)
    });
    changes.collect()
}
