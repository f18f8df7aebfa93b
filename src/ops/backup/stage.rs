//! What a backup would store, without a snapshot: for whoever compares with what is there now.
//!
//! Everything is read by the rules of a backup, so that nothing is captured in two ways. It is put
//! into a repository over the real one (`Repo::staged`), and is gone with that. What was seen is
//! not remembered: the next backup looks for itself.

use crate::context::Context;
use crate::error::Error;
use crate::error::Result;
use crate::format::entry::PackBytes;
use crate::format::manifest::Manifest;
use crate::id::PackId;
use crate::ops::backup::ATTEMPTS_MAX;
use crate::ops::backup::BackupOptions;
use crate::ops::backup::databases::Look;
use crate::ops::backup::newest_of_series;
use crate::ops::backup::run;
use crate::ops::backup::run::Base;
use crate::ops::backup::source::Source;
use crate::ops::unfinished::Unfinished;
use crate::repo::Repo;
use crate::repo::log::State;
use crate::source::files::Problem;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What is there now, as it would be in a snapshot.
pub(in crate::ops) struct Staged {
    pub manifest: Manifest,
    /// Packs that only the staged repository has.
    pub packs: BTreeMap<PackId, PackBytes>,
    pub warnings: Vec<Problem>,
}

/// Stores what is there now in a staged repository.
pub(in crate::ops) fn stage(
    cx: &Context,
    staged: &Repo,
    state: &State,
    options: &BackupOptions,
) -> Result<Staged> {
    let source = Source::open(options)?;
    let started_at = cx.clock.now();
    let mut own = Unfinished::apart(state);
    let mut suspect_packs = BTreeSet::new();
    let mut look = Look::AtKnown;
    for _ in 0..ATTEMPTS_MAX {
        let parent = newest_of_series(state, options, &source);
        let base = Base {
            state,
            parent: parent.as_ref(),
            suspect_packs: &suspect_packs,
            look,
        };
        let mut run = run::run(cx, staged, options, &source, base, &mut own)?;
        if !run.suspect_packs.is_empty() {
            suspect_packs.append(&mut run.suspect_packs);
            continue;
        }
        if run.totals.found_database {
            look = look.again();
            continue;
        }
        let manifest = super::manifest(cx, options, &source, &run, started_at, parent.as_ref());
        return Ok(Staged {
            manifest,
            packs: own.packs().clone(),
            warnings: std::mem::take(&mut run.totals.warnings),
        });
    }
    Err(Error::Busy {
        what: String::from_utf8_lossy(source.root_bytes()).into_owned(),
        reason: "it kept changing while it was read; try again".to_string(),
    })
}

/// Returns the options of another backup like the one that made a snapshot, of what is below this
/// directory now; `None` if nothing of it is there.
pub(in crate::ops) fn again(
    like: &Manifest,
    root: &Path,
    host: &str,
) -> Result<Option<BackupOptions>> {
    let root = match root.canonicalize() {
        Ok(root) => root,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("find", root)(error)),
    };
    let included = like.included.iter().map(|path| OsStr::from_bytes(path));
    let mut paths: Vec<_> = included.map(|path| root.join(path)).collect();
    if like.included.is_empty() {
        paths.push(root.clone());
    }
    paths.retain(|path| path.symlink_metadata().is_ok());
    if paths.is_empty() {
        return Ok(None);
    }
    Ok(Some(BackupOptions {
        paths,
        root: Some(root),
        files: like.rules.taken.clone(),
        profile: like.profile.clone(),
        scope: like.scope.clone(),
        host: host.to_string(),
        exclude: like.rules.exclude.clone(),
        secrets: like.rules.secrets.clone(),
        one_file_system: like.rules.one_file_system,
        skip_cache_dirs: like.rules.skip_cache_dirs,
        ..BackupOptions::default()
    }))
}
