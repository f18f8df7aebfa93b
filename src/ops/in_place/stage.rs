//! Writes what differs beside what is there, and judges the databases among it.

use crate::context::Context;
use crate::disk::node;
use crate::disk::unnamed_file;
use crate::error::Error;
use crate::error::Result;
use crate::format::database::DatabaseRecord;
use crate::format::database::Engine;
use crate::format::database::Method;
use crate::format::manifest::Manifest;
use crate::format::tree::Kind;
use crate::ops::in_place::InPlaceOptions;
use crate::ops::in_place::Surplus;
use crate::ops::in_place::journal::PathBytes;
use crate::ops::in_place::journal::Stage;
use crate::ops::in_place::journal::Staged;
use crate::ops::in_place::plan;
use crate::ops::in_place::safety::Safety;
use crate::ops::inspect;
use crate::ops::restore;
use crate::ops::restore::Compare;
use crate::ops::restore::RestoreOptions;
use crate::ops::restore::RestoreReport;
use crate::ops::restore::Sync;
use crate::ops::restore::select::Only;
use crate::repo::chunks::Chunks;
use crate::safeguard::Safeguard;
use crate::source::files::CacheDirs;
use crate::source::files::FileSystems;
use crate::source::files::Rules;
use crate::source::files::Tree;
use crate::source::files::Walk;
use crate::source::files::WalkOptions;
use crate::source::redb::prove;
use crate::source::sqlite;
use crate::source::sqlite::Depth;
use crate::source::sqlite::Health;
use crate::source::sqlite::Image;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;

const LOG_SUFFIXES: [&[u8]; 3] = [b"-wal", b"-journal", b"-shm"];

/// What waits for its name.
pub(super) struct Staging {
    pub files: Vec<Staged>,
    pub removes: Vec<PathBytes>,
    pub logs: Vec<PathBytes>,
    pub report: RestoreReport,
    pub checked_databases: u64,
    /// The paths of databases: merging changed what their files look like.
    databases: Vec<Vec<u8>>,
}

/// Stages everything that differs from what is there. Fails if any of it is not sound.
pub(super) fn stage(
    cx: &Context,
    chunks: &Chunks<'_>,
    manifest: &Manifest,
    options: &InPlaceOptions,
    only: &Only,
    stage: &Stage,
) -> Result<Staging> {
    let root = &options.root;
    let records = plan::wanted_databases(chunks, manifest, only)?;
    merge_logs(root, &records)?;
    let mut staged = RestoreOptions::new(stage.new_dir());
    staged.only.clone_from(&options.only);
    staged.compare = Compare::Stat;
    staged.sync = Sync::Never;
    let report = restore::stage(cx, chunks, manifest, &staged, root)?;
    if let Some(failure) = report.failures.sample.first() {
        let path = String::from_utf8_lossy(&failure.path);
        let count = report.failures.count;
        let reason = format!(
            "{count} files of the snapshot cannot be restored, so nothing was replaced; the first: \
             {path}: {}",
            failure.message
        );
        return Err(Error::corrupt("the snapshot", reason));
    }
    let checked_databases = check_databases(cx, &stage.new_dir(), &records)?;
    let files = staged_files(root, &stage.new_dir())?;
    let logs = logs(chunks, manifest, root, &records, &files)?;
    let mut removes = in_the_way(root, &files)?;
    if options.surplus == Surplus::Removed {
        let surplus = plan::surplus(cx, chunks, manifest, options, only)?;
        removes.extend(surplus.into_iter().rev().map(PathBytes));
    }
    refuse_other_file_systems(root, &files, &removes)?;
    Ok(Staging {
        files,
        removes,
        logs,
        report,
        checked_databases,
        databases: records.into_iter().map(|record| record.path).collect(),
    })
}

/// Lets SQLite bring into each database what lies in its log, so that the file alone is all of it
/// and can be replaced by one rename.
fn merge_logs(root: &Path, records: &[DatabaseRecord]) -> Result<()> {
    for record in records
        .iter()
        .filter(|record| record.engine == Engine::Sqlite)
    {
        let path = root.join(OsStr::from_bytes(&record.path));
        if !path.symlink_metadata().is_ok_and(|stat| stat.is_file()) {
            continue;
        }
        // What SQLite cannot read it cannot merge; the log is set aside with it.
        if let Err(sqlite::Refusal::Busy { .. }) = sqlite::merge_log(&path) {
            return Err(Error::Running {
                what: "somebody".to_string(),
                reason: format!("{} is locked", path.display()),
            });
        }
    }
    Ok(())
}

/// Returns how many databases were found sound; fails at the first that is not.
fn check_databases(cx: &Context, new_dir: &Path, records: &[DatabaseRecord]) -> Result<u64> {
    let mut checked = 0;
    for record in records
        .iter()
        .filter(|record| record.method != Method::PlainFiles)
    {
        cx.check()?;
        let path = new_dir.join(OsStr::from_bytes(&record.path));
        if !path.is_file() {
            continue;
        }
        if let Err(damage) = check_database(cx, record.engine, &path)?
            && Safeguard::StagedChecked.holds()
        {
            let name = String::from_utf8_lossy(&record.path);
            let reason = format!("{damage}; nothing was replaced");
            return Err(Error::corrupt(format!("the database {name}"), reason));
        }
        checked += 1;
    }
    Ok(checked)
}

/// Returns what is wrong with a database that nobody has open.
fn check_database(cx: &Context, engine: Engine, path: &Path) -> Result<Result<(), String>> {
    match engine {
        Engine::Sqlite => {
            let health = Image::open(path).map(|image| image.check(Depth::Quick));
            Ok(match health {
                Ok(Health::Sound | Health::Unknown(_)) => Ok(()),
                Ok(Health::Damaged(reason)) => Err(reason),
                Err(refusal) => Err(refusal.to_string()),
            })
        }
        Engine::Redb => {
            let file = File::open(path).map_err(Error::io("open", path))?;
            let spool = unnamed_file(path.parent().unwrap_or(Path::new(".")))?;
            let proved = prove(file, spool, &mut || cx.check().is_ok());
            cx.check()?;
            Ok(proved.map_err(|refusal| refusal.to_string()))
        }
        Engine::Sled => Ok(Ok(())),
    }
}

fn staged_files(root: &Path, new_dir: &Path) -> Result<Vec<Staged>> {
    let mut files = Vec::new();
    let tree = Tree::open(new_dir)?;
    let walk = WalkOptions {
        include: Vec::new(),
        patterns: None,
        exclude: Rules::default(),
        cache_dirs: CacheDirs::Enter,
        file_systems: FileSystems::All,
    };
    for item in Walk::open(&tree, walk)? {
        let item = item.map_err(|problem| Error::Refused {
            reason: format!("what was staged cannot be read: {}", problem.message),
        })?;
        if item.stat.kind == node::Kind::File {
            let is_new = is_absent(root, &item.path);
            let path = PathBytes(item.path);
            files.push(Staged { path, is_new });
        }
    }
    Ok(files)
}

fn is_absent(root: &Path, path: &[u8]) -> bool {
    at(root, path).symlink_metadata().is_err()
}

fn at(root: &Path, path: &[u8]) -> PathBuf {
    root.join(OsStr::from_bytes(path))
}

/// Returns the logs that would reach a database they do not belong to: those that are no part of
/// the snapshot, and those another one takes the place of.
fn logs(
    chunks: &Chunks<'_>,
    manifest: &Manifest,
    root: &Path,
    records: &[DatabaseRecord],
    files: &[Staged],
) -> Result<Vec<PathBytes>> {
    let mut logs = Vec::new();
    for record in records
        .iter()
        .filter(|record| record.engine == Engine::Sqlite)
    {
        for suffix in LOG_SUFFIXES {
            let path = [&record.path[..], suffix].concat();
            if is_absent(root, &path) {
                continue;
            }
            let is_staged = files.iter().any(|file| file.path.0 == path);
            if is_staged || inspect::find_entry(chunks, manifest, &path)?.is_none() {
                logs.push(PathBytes(path));
            }
        }
    }
    Ok(logs)
}

/// Returns what is no directory and stands where a staged file needs one.
fn in_the_way(root: &Path, files: &[Staged]) -> Result<Vec<PathBytes>> {
    let mut found: Vec<PathBytes> = Vec::new();
    for file in files {
        let path = &file.path.0;
        let mut ends = (0..path.len()).filter(|&end| path[end] == b'/');
        let blocked = ends.find(|&end| {
            let stat = at(root, &path[..end]).symlink_metadata();
            stat.is_ok_and(|stat| !stat.is_dir())
        });
        if let Some(end) = blocked
            && found.last().is_none_or(|last| last.0 != path[..end])
        {
            found.push(PathBytes(path[..end].to_vec()));
        }
    }
    Ok(found)
}

/// One rename cannot cross file systems, and without one rename there is no old or new.
fn refuse_other_file_systems(root: &Path, files: &[Staged], removes: &[PathBytes]) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| path.symlink_metadata().map(|stat| stat.dev());
    let own = device(root).map_err(Error::io("look at", root))?;
    let paths = files.iter().map(|file| &file.path.0);
    for path in paths.chain(removes.iter().map(|path| &path.0)) {
        let mut place = at(root, path);
        while place != *root {
            place.pop();
            match device(&place) {
                Ok(found) if found != own => {
                    let reason = format!(
                        "{} is on another file system than {}, so it cannot be replaced in one \
                         step; nothing was replaced: restore it into a directory with --to",
                        place.display(),
                        root.display()
                    );
                    return Err(Error::Refused { reason });
                }
                Ok(_) => break,
                Err(_) => {}
            }
        }
    }
    Ok(())
}

/// Fails unless everything that is about to go was saved, as it is now.
pub(super) fn check_saved(
    safety: Option<&Safety<'_>>,
    options: &InPlaceOptions,
    staging: &Staging,
) -> Result<()> {
    if !Safeguard::SavedCompared.holds() {
        return Ok(());
    }
    let replaced = staging.files.iter().filter(|file| !file.is_new);
    let removed = staging.removes.iter();
    for path in replaced
        .map(|file| &file.path.0)
        .chain(removed.map(|path| &path.0))
    {
        let Some(safety) = safety else {
            return Err(not_saved(path, "it came meanwhile"));
        };
        let Some((at, index)) = inspect::find_entry(&safety.chunks, &safety.manifest, path)? else {
            let known = safety.warnings.iter().find(|problem| problem.path == *path);
            let why = known.map_or("the backups of this place leave it out", |p| &p.message);
            return Err(not_saved(path, why));
        };
        let entry = &at.leaf.entries[index];
        // Merging a log changes what the file of a database looks like.
        let is_compared = matches!(entry.kind, Kind::File { .. })
            && !staging
                .databases
                .iter()
                .any(|database| path.starts_with(database));
        if is_compared && !restore::looks_like(&options.root, entry)? {
            return Err(not_saved(path, "it changed meanwhile: run it again"));
        }
    }
    Ok(())
}

fn not_saved(path: &[u8], why: &str) -> Error {
    Error::Refused {
        reason: format!(
            "\"{}\" would be replaced and is not saved ({why}); nothing was replaced",
            String::from_utf8_lossy(path)
        ),
    }
}
