//! Import: archives and copies of databases that exist already, as snapshots of their own date.
//!
//! An archive is judged as a whole before anything of it is used, then unpacked into a directory
//! that nobody else may enter, and backed up from there like any source: so databases in it are
//! captured as databases, and what two archives share is stored once. The log remembers the SHA-256
//! of what was imported; the same file is not imported twice.

mod candidates;
mod date;
mod single;

pub use candidates::Candidate;
pub use candidates::Candidates;
pub use candidates::find;
pub use date::DateSource;

use crate::codec::sha256::Sha256Sum;
use crate::context::Context;
use crate::context::Event;
use crate::context::Timestamp;
use crate::disk::jail::Jail;
use crate::disk::jail::Replace;
use crate::disk::node::Attributes;
use crate::disk::node::FileTime;
use crate::disk::node::Problem;
use crate::error::Error;
use crate::error::Result;
use crate::id::SnapshotId;
use crate::ops::archive::Archive;
use crate::ops::archive::bytes::Bytes;
use crate::ops::archive::bytes::Passphrase;
use crate::ops::archive::checksum;
use crate::ops::archive::listing;
use crate::ops::archive::listing::Limits;
use crate::ops::archive::listing::Sums;
use crate::ops::archive::manifest::ArchiveManifest;
use crate::ops::archive::manifest::path_bytes;
use crate::ops::archive::place;
use crate::ops::archive::unpack;
use crate::ops::backup;
use crate::ops::backup::BackupOptions;
use crate::ops::backup::FreePages;
use crate::ops::backup::Origin;
use crate::ops::export::PrivateDir;
use crate::repo::Repo;
use std::path::Path;
use std::path::PathBuf;

/// What tags of imported snapshots begin with; the name of the file follows.
pub const TAG_PREFIX: &str = "import:";
/// Where content is unpacked, below a directory that is private whatever this one's mode is.
const TREE: &str = "tree";

/// As what to import.
#[derive(Clone, Default)]
pub struct ImportOptions {
    /// The profile; `None` for what the archive says.
    pub profile: Option<String>,
    /// The machine; `None` for what the archive says.
    pub host: Option<String>,
    /// The machine if nobody says it.
    pub this_host: String,
    /// The directory that all paths were in; `None` for what the archive says.
    pub root_path: Option<Vec<u8>>,
    /// More names for the snapshot.
    pub tags: Vec<String>,
    /// What is refused.
    pub limits: Limits,
    /// What encrypted files open with.
    pub passphrase: Option<Passphrase>,
    /// Where content may be unpacked, if the repository has no cache.
    pub temp_dir: PathBuf,
    /// Whether to say what would be done, and do nothing.
    pub dry_run: bool,
}

/// What became of a file.
#[derive(Debug, Clone)]
pub struct ImportReport {
    /// Its sum.
    pub sha256: Sha256Sum,
    /// The snapshot that was made of it.
    pub outcome: Outcome,
    /// The time of the snapshot.
    pub created_at: Timestamp,
    /// Where that comes from.
    pub date_source: DateSource,
    /// Files in it.
    pub files: u64,
    /// Their bytes.
    pub plain_bytes: u64,
    /// Bytes that the repository grew by.
    pub stored_bytes: u64,
    /// Whether there was a sum beside it.
    pub has_sum: bool,
    /// What could not be kept.
    pub warnings: Vec<Problem>,
}

/// The snapshot of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was made.
    Imported(SnapshotId),
    /// It was there already.
    Known(SnapshotId),
    /// It would be made.
    Planned,
}

/// Imports one file. An archive that is refused leaves nothing behind.
pub fn import(
    cx: &Context,
    repo: &Repo,
    candidate: &Candidate,
    options: &ImportOptions,
) -> Result<ImportReport> {
    let path = &candidate.path;
    cx.progress.event(Event::Phase("verify"));
    let bytes = Bytes::open(path, options.passphrase.as_ref())?;
    let sha256 = bytes.sha256()?;
    let has_sum = match options.limits.sums {
        Sums::Verified => checksum::check_beside(path, &sha256)?,
        Sums::Ignored => false,
    };
    let dated = date::of_file(candidate)?;
    let mut report = ImportReport {
        sha256,
        outcome: Outcome::Planned,
        created_at: dated.at,
        date_source: dated.source,
        files: 0,
        plain_bytes: 0,
        stored_bytes: 0,
        has_sum,
        warnings: Vec::new(),
    };
    if let Some((id, created_at)) = known(cx, repo, &sha256)? {
        report.outcome = Outcome::Known(id);
        report.created_at = created_at;
        return Ok(report);
    }
    let room = repo.cache_dir().unwrap_or(&options.temp_dir);
    match Archive::of_bytes(bytes)? {
        Ok(archive) => import_archive(cx, repo, &archive, path, room, options, &mut report)?,
        Err(bytes) => {
            let tree = (!options.dry_run).then(|| Tree::create(room)).transpose()?;
            let copied = single::copy(&bytes, tree.as_ref().map(|tree| &tree.jail))?;
            report.files = 1;
            report.plain_bytes = copied.bytes;
            report.warnings = copied.problems;
            if let Some(tree) = tree {
                tree.finish(None, dated.at)?;
                save(cx, repo, path, &tree, None, options, &mut report)?;
            }
        }
    }
    Ok(report)
}

fn import_archive(
    cx: &Context,
    repo: &Repo,
    archive: &Archive,
    path: &Path,
    room: &Path,
    options: &ImportOptions,
    report: &mut ImportReport,
) -> Result<()> {
    let mut limits = options.limits;
    std::fs::create_dir_all(room).map_err(Error::io("create", room))?;
    limits.plain_bytes_max = limits.plain_bytes_max.min(place::free_bytes(room)?);
    let listing = listing::list(cx, archive, &limits)?;
    let manifest = listing.manifest.as_ref();
    if let Some(at) = manifest.and_then(|manifest| date::parse(manifest.timestamp.as_deref()?)) {
        report.created_at = at;
        report.date_source = DateSource::Manifest;
    }
    report.files = listing
        .members
        .iter()
        .filter(|listed| listed.sha256.is_some())
        .count() as u64;
    report.plain_bytes = listing.plain_bytes;
    if options.dry_run {
        return Ok(());
    }
    let tree = Tree::create(room)?;
    cx.progress.event(Event::Phase("unpack"));
    let jail = &tree.jail;
    let done = unpack::unpack(cx, archive, &listing, jail, Replace::Never, &|_| true)?;
    report.warnings = done.problems;
    let own = manifest.filter(|manifest| manifest.is_own());
    tree.finish(own, report.created_at)?;
    drop(listing.members);
    save(cx, repo, path, &tree, manifest, options, report)
}

/// A directory that content is unpacked into; removed in the end.
struct Tree {
    jail: Jail,
    path: PathBuf,
    _private: PrivateDir,
}

impl Tree {
    fn create(room: &Path) -> Result<Tree> {
        let private = PrivateDir::create(room)?;
        let path = private.path().join(TREE);
        Ok(Tree {
            jail: Jail::open(&path)?,
            path,
            _private: private,
        })
    }

    /// Gives the root the attributes that it had, as far as somebody knows.
    fn finish(&self, own: Option<&ArchiveManifest>, created_at: Timestamp) -> Result<()> {
        let root = own.and_then(|manifest| manifest.root.as_ref());
        let mode = root.and_then(|root| u32::from_str_radix(root.mode.as_deref()?, 8).ok());
        let modified = root.and_then(|root| date::parse(root.mtime.as_deref()?));
        let modified = modified.unwrap_or(created_at).0;
        let attributes = Attributes {
            mode: mode.unwrap_or(0o755) & 0o7777,
            uid: (root.and_then(|root| root.uid))
                .unwrap_or_else(|| rustix::process::geteuid().as_raw()),
            gid: (root.and_then(|root| root.gid))
                .unwrap_or_else(|| rustix::process::getegid().as_raw()),
            mtime: FileTime {
                secs: modified.div_euclid(1_000_000_000),
                nanos: u32::try_from(modified.rem_euclid(1_000_000_000)).unwrap_or(0),
            },
            xattrs: Vec::new(),
        };
        // Who it belongs to is said for the members already.
        self.jail.set_attributes(&[], &attributes).map(drop)
    }
}

/// Makes the snapshot of what was unpacked.
fn save(
    cx: &Context,
    repo: &Repo,
    path: &Path,
    tree: &Tree,
    manifest: Option<&ArchiveManifest>,
    options: &ImportOptions,
    report: &mut ImportReport,
) -> Result<()> {
    let own = manifest.filter(|manifest| manifest.is_own());
    let said = |of: fn(&ArchiveManifest) -> Option<String>| own.and_then(of);
    let root = own.and_then(|manifest| manifest.root.as_ref());
    let root = root.map(|root| path_bytes(&root.path, root.path_b64.as_deref()));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut tags = vec![format!("{TAG_PREFIX}{name}")];
    tags.extend(options.tags.iter().cloned());
    let backup_options = BackupOptions {
        paths: vec![tree.path.clone()],
        profile: (options.profile.clone())
            .or_else(|| said(|manifest| manifest.application.clone()))
            .unwrap_or_default(),
        host: (options.host.clone())
            .or_else(|| said(|manifest| manifest.host.clone()))
            .unwrap_or_else(|| options.this_host.clone()),
        scope: manifest.map(ArchiveManifest::scope).unwrap_or_default(),
        app_version: manifest.map(ArchiveManifest::version).unwrap_or_default(),
        // Bytes that were exported come in again as they were.
        free_pages: FreePages::Exact,
        tags,
        origin: Some(Origin {
            created_at: report.created_at,
            root_path: match &options.root_path {
                Some(path) => path.clone(),
                None => root.transpose()?.unwrap_or_default(),
            },
            sha256: report.sha256,
            is_partial: own.is_some_and(|manifest| manifest.partial),
        }),
        ..BackupOptions::default()
    };
    cx.progress.event(Event::Phase("import"));
    let saved = backup::backup(cx, repo, &backup_options)?;
    report.stored_bytes = saved.manifest.figures.stored_bytes;
    report.warnings.extend(saved.warnings);
    if let Some(id) = saved.snapshot {
        report.outcome = Outcome::Imported(id);
    }
    Ok(())
}

/// Returns the snapshot that was made of a file with this sum, and its time.
fn known(cx: &Context, repo: &Repo, sum: &Sha256Sum) -> Result<Option<(SnapshotId, Timestamp)>> {
    let (state, snapshots) = crate::ops::snapshots::list(cx, repo)?;
    let found = snapshots
        .iter()
        .find(|snapshot| state.notes.imports.get(&snapshot.id) == Some(sum));
    Ok(found.map(|snapshot| (snapshot.id, snapshot.manifest.started_at)))
}
