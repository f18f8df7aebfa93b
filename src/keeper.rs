//! What an application embeds: a repository in a directory, and one method for each thing to do.
//!
//! A thin front of `ops`: every method opens what it needs, calls one operation and lets go. Who
//! needs more (a plan before a prune, a restore in place, another store) takes `Keeper::repo` and
//! calls `ops` itself. Nothing is kept between two calls but the open repository, and nothing is
//! shared between two keepers.
//!
//! Order: the key file is durable under a name of its own before the repository exists, and gets
//! its final name after. So one under its final name says that there was a repository: if that is
//! gone, as when a disk is not mounted, nothing new is made in its place.

use crate::context::Context;
use crate::disk;
use crate::disk::Disk;
use crate::disk::RealDisk;
use crate::error::Error;
use crate::error::Result;
use crate::format::key::Credential;
use crate::format::key::Derivation;
use crate::format::keyfile::KEY_FILE_BYTES_MAX;
use crate::format::keyfile::KeyFile;
use crate::id::RepoId;
use crate::ops::backup;
use crate::ops::backup::BackupOptions;
use crate::ops::backup::BackupReport;
use crate::ops::check;
use crate::ops::check::CheckReport;
use crate::ops::check::ReadData;
use crate::ops::drill;
use crate::ops::drill::DrillOptions;
use crate::ops::drill::DrillReport;
use crate::ops::keep::Policy;
use crate::ops::prune;
use crate::ops::prune::Limits;
use crate::ops::prune::PruneOptions;
use crate::ops::prune::PruneReport;
use crate::ops::restore;
use crate::ops::restore::RestoreOptions;
use crate::ops::restore::RestoreReport;
use crate::ops::snapshots;
use crate::ops::snapshots::Snapshot;
use crate::repo;
use crate::repo::Access;
use crate::repo::NewKey;
use crate::repo::Repo;
use crate::repo::chunks::Chunks;
use crate::repo::keys::PASSPHRASE;
use crate::repo::reserve;
use crate::store::DirStore;
use jiff::tz::TimeZone;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use zeroize::Zeroizing;

/// The end of the name of a key file whose repository is not known to exist.
const PENDING: &str = "new";

/// Where a repository is and what opens it.
pub struct Place {
    /// The directory of the repository.
    pub repo: PathBuf,
    /// What opens it.
    pub protection: Protection,
    /// A directory for what makes the next backup fast and tells when a repository went back in
    /// time. It may be deleted at any time; without it every file is read again.
    pub cache: Option<PathBuf>,
}

impl Place {
    /// Returns a place without a cache.
    pub fn new(repo: impl Into<PathBuf>, protection: Protection) -> Place {
        Place {
            repo: repo.into(),
            protection,
            cache: None,
        }
    }

    /// Returns the same place with a cache in this directory.
    pub fn with_cache(self, dir: impl Into<PathBuf>) -> Place {
        Place {
            cache: Some(dir.into()),
            ..self
        }
    }
}

/// What keeps others from reading a repository.
pub enum Protection {
    /// A random key in this file, made with the repository, readable by its owner only. It is text
    /// that can be printed. Without a copy elsewhere, the backups are lost with the machine.
    KeyFile(PathBuf),
    /// A passphrase.
    Passphrase(Zeroizing<Vec<u8>>),
    /// Nothing: whoever can read the directory can read every backup.
    Plain,
}

impl Protection {
    /// Returns the protection by a passphrase.
    pub fn passphrase(text: &str) -> Protection {
        Protection::Passphrase(Zeroizing::new(text.as_bytes().to_vec()))
    }
}

/// An open repository, as an application sees it that embeds this.
///
/// ```
/// use statekeep::{BackupOptions, Context, Keeper, Place, Policy, Protection, RestoreOptions};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let scratch = tempfile::tempdir()?;
/// # let dir = scratch.path();
/// # std::fs::create_dir(dir.join("app"))?;
/// # std::fs::write(dir.join("app/settings.toml"), "port = 8080")?;
/// let cx = Context::new();
/// let place = Place::new(dir.join("backups"), Protection::KeyFile(dir.join("backup.key")));
/// let keeper = Keeper::open_or_create(&cx, &place)?;
/// let saved = keeper.backup(&cx, &BackupOptions::of(dir.join("app")))?;
/// assert!(saved.warnings.is_empty());
/// assert_eq!(keeper.list(&cx)?.len(), 1);
/// assert!(keeper.drill(&cx, "latest", dir)?.passed());
/// keeper.restore(&cx, "latest", &RestoreOptions::new(dir.join("restored")))?;
/// keeper.prune(&cx, &Policy::last(7))?;
/// # assert_eq!(std::fs::read(dir.join("restored/settings.toml"))?, b"port = 8080");
/// # Ok(())
/// # }
/// ```
pub struct Keeper {
    repo: Repo,
}

impl Keeper {
    /// Opens the repository, and makes it first if there is none.
    ///
    /// Fails with `Refused` if there is none and the key file says that there was.
    pub fn open_or_create(cx: &Context, place: &Place) -> Result<Keeper> {
        match Keeper::open(place) {
            Err(Error::NoRepo { .. }) => match Keeper::create(cx, place) {
                // Another process was faster, and its repository is as good.
                Err(Error::RepoExists { .. }) => Keeper::open(place),
                made => made,
            },
            opened => opened,
        }
    }

    /// Opens the repository; fails with `NoRepo` if there is none.
    pub fn open(place: &Place) -> Result<Keeper> {
        let store = Arc::new(DirStore::open(Arc::new(RealDisk), &absolute(&place.repo)?)?);
        let cache = place.cache.as_deref();
        let repo = match &place.protection {
            Protection::Plain => Repo::open(store, &[], cache)?,
            Protection::Passphrase(text) => {
                Repo::open(store, &[Credential::Passphrase(text.clone())], cache)?
            }
            Protection::KeyFile(path) => {
                let path = absolute(path)?;
                let key = match read_key(&path)? {
                    Some(key) => key,
                    // Whoever made the repository may have been killed right after.
                    None => read_key(&pending(&path))?.ok_or_else(|| no_key(&path))?,
                };
                let (config, _) = repo::read_config(&*store)?;
                if key.repo != config.repo {
                    let (path, ours) = (path.display(), config.repo.short());
                    let theirs = key.repo.short();
                    return Err(Error::WrongKey {
                        reason: format!("{path} is for repository {theirs}, and this is {ours}"),
                    });
                }
                let repo = Repo::open(store, &[Credential::Secret(key.secret.clone())], cache)?;
                settle(&path, &key)?;
                repo
            }
        };
        Ok(Keeper { repo })
    }

    /// Makes the repository; fails with `RepoExists` if there is one.
    pub fn create(cx: &Context, place: &Place) -> Result<Keeper> {
        let path = absolute(&place.repo)?;
        let new_id = RepoId(cx.random_bytes()?);
        let made_key = match &place.protection {
            Protection::KeyFile(file) => Some(make_key(cx, &absolute(file)?, new_id, &path)?),
            Protection::Passphrase(_) | Protection::Plain => None,
        };
        let (id, access) = match (&place.protection, &made_key) {
            (Protection::Passphrase(text), _) => {
                let credential = Credential::Passphrase(text.clone());
                (new_id, encrypted(credential, PASSPHRASE, "passphrase"))
            }
            (_, Some(key)) => {
                let credential = Credential::Secret(key.secret.clone());
                (
                    key.repo,
                    encrypted(credential, Derivation::Secret, "key file"),
                )
            }
            (_, None) => (new_id, Access::Plain),
        };
        let store = Arc::new(DirStore::create(Arc::new(RealDisk), &path)?);
        let repo = Repo::create(cx, store.clone(), id, access, place.cache.as_deref())?;
        if let (Protection::KeyFile(file), Some(key)) = (&place.protection, &made_key) {
            settle(&absolute(file)?, key)?;
        }
        // Without it, a disk that is full some day has to be given room by hand.
        let _ = reserve::ensure(cx, &*store);
        Ok(Keeper { repo })
    }

    /// Returns the repository, for everything that is not here.
    pub fn repo(&self) -> &Repo {
        &self.repo
    }

    /// Makes a snapshot of what is there now. What is wrong with the source is in its warnings.
    pub fn backup(&self, cx: &Context, options: &BackupOptions) -> Result<BackupReport> {
        backup::backup(cx, &self.repo, options)
    }

    /// Returns the snapshots, oldest first.
    pub fn list(&self, cx: &Context) -> Result<Vec<Snapshot>> {
        Ok(snapshots::list(cx, &self.repo)?.1)
    }

    /// Puts a snapshot, or part of it, into a directory.
    ///
    /// The snapshot is meant by `latest`, `latest~2`, the start of its id, a day, `2 hours ago` or
    /// `tag:NAME`; days are those of UTC. Unless the options say otherwise nothing is replaced, and
    /// nothing is written if something would have to be. Never into the directory of an application
    /// that runs: for that there is `ops::in_place`. What could not be restored is in `failures`.
    pub fn restore(
        &self,
        cx: &Context,
        reference: &str,
        options: &RestoreOptions,
    ) -> Result<RestoreReport> {
        self.with(cx, reference, |chunks, snapshot| {
            let plan = restore::plan(cx, chunks, &snapshot.manifest, options)?;
            restore::apply(cx, chunks, &snapshot.manifest, options, &plan)
        })
    }

    /// Restores a snapshot into a directory of its own below this one, has its databases checked by
    /// their engines, removes it all, and has the log say how it went: see `passed`.
    pub fn drill(
        &self,
        cx: &Context,
        reference: &str,
        scratch: impl AsRef<Path>,
    ) -> Result<DrillReport> {
        let options = DrillOptions {
            scratch: absolute(scratch.as_ref())?,
            ..DrillOptions::default()
        };
        self.with(cx, reference, |chunks, snapshot| {
            drill::drill(cx, &self.repo, chunks, snapshot, &options)
        })
    }

    /// Removes the snapshots that a policy does not keep, by the calendar of UTC, and gives their
    /// space back. `ops::prune::plan` says before what that would be.
    pub fn prune(&self, cx: &Context, policy: &Policy) -> Result<PruneReport> {
        let options = PruneOptions {
            policy: Some(policy.clone()),
            profile: None,
            host: None,
            zone: TimeZone::UTC,
            limits: Limits::default(),
            grace_ns: 0,
        };
        let plan = prune::plan(cx, &self.repo, &options)?;
        prune::apply(cx, &self.repo, &options, plan)
    }

    /// Returns all that is wrong with the repository.
    pub fn check(&self, cx: &Context, read_data: ReadData) -> Result<CheckReport> {
        let (state, snapshots) = snapshots::list(cx, &self.repo)?;
        let listed = snapshots.into_iter();
        let snapshots: Vec<_> = listed.map(|one| (one.id, one.manifest)).collect();
        check::check(cx, &self.repo, &state.packs, &snapshots, read_data)
    }

    /// Does something with the chunks of the snapshot that is meant.
    fn with<T>(
        &self,
        cx: &Context,
        reference: &str,
        work: impl FnOnce(&Chunks<'_>, &Snapshot) -> Result<T>,
    ) -> Result<T> {
        let (state, snapshots) = snapshots::list(cx, &self.repo)?;
        let now = cx.clock.now();
        let snapshot = snapshots::resolve(&snapshots, reference, now, &TimeZone::UTC)?;
        let chunks = Chunks::open_following(cx, &self.repo, &state.packs)?;
        let done = work(&chunks, snapshot)?;
        chunks.save_index();
        Ok(done)
    }
}

fn encrypted(credential: Credential, derivation: Derivation, label: &str) -> Access {
    Access::Encrypted(vec![NewKey {
        credential,
        derivation,
        label: label.to_string(),
    }])
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(Error::io("find", path))
}

fn pending(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".");
    name.push(PENDING);
    PathBuf::from(name)
}

fn no_key(path: &Path) -> Error {
    let reason = format!("there is no key file {}", path.display());
    Error::WrongKey { reason }
}

fn read_key(path: &Path) -> Result<Option<KeyFile>> {
    let Some(bytes) = RealDisk.read_range(path, 0..KEY_FILE_BYTES_MAX)? else {
        return Ok(None);
    };
    let bytes = Zeroizing::new(bytes);
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    let key = KeyFile::decode(text).map_err(|error| Error::WrongKey {
        reason: format!("{} is no sound key file: {error}", path.display()),
    })?;
    Ok(Some(key))
}

/// Returns the key of a repository that is about to be made, which is durable: a new one, or the
/// one of somebody who was killed before, or who is at it right now.
fn make_key(cx: &Context, path: &Path, id: RepoId, repo: &Path) -> Result<KeyFile> {
    if RealDisk.exists(path)? {
        let (path, repo) = (path.display(), repo.display());
        return Err(Error::Refused {
            reason: format!(
                "there is no repository at {repo}, but {path} says that there was one: is its disk \
                 mounted? If it is gone for good, move that file away"
            ),
        });
    }
    let new = KeyFile {
        repo: id,
        location: repo.display().to_string(),
        secret: Zeroizing::new(cx.random_bytes()?),
    };
    publish(&pending(path), &new)?;
    read_key(&pending(path))?.ok_or_else(|| no_key(path))
}

/// Gives the key file its name, now that there is a repository it opens.
fn settle(path: &Path, key: &KeyFile) -> Result<()> {
    if !RealDisk.exists(path)? {
        publish(path, key)?;
    }
    // Order: only once the final name is durable. One that stays opens the same repository.
    RealDisk.remove(&pending(path))
}

/// Writes a key file, readable by its owner only, durably, replacing nothing.
fn publish(path: &Path, key: &KeyFile) -> Result<()> {
    let named = path.parent().zip(path.file_name());
    let named = named.and_then(|(dir, name)| Some((dir, name.to_str()?)));
    let (dir, name) = named.ok_or_else(|| Error::Refused {
        reason: format!("{} is no name for a key file", path.display()),
    })?;
    disk::create_dirs(&RealDisk, dir)?;
    disk::publish_new(&RealDisk, dir, name, key.encode().as_bytes())?;
    Ok(())
}
