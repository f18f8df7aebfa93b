//! A repository: creating and opening it, its keys, its log, its chunks.
//!
//! `Repo` is the small part that never changes while a repository is open. What it holds at a
//! moment is a `log::State`; reading and writing chunks goes through `chunks` and `writer`.

pub mod chunks;
pub mod index;
pub mod keys;
pub mod log;
pub mod reach;
pub mod reserve;
pub mod secrets;
mod segments;
mod state;
pub mod stream;
pub mod tree;
pub mod writer;

use crate::codec::cipher::Suite;
use crate::context::Context;
use crate::error::Error;
use crate::error::Result;
use crate::format::config::Config;
use crate::format::key::Credential;
use crate::format::key::Derivation;
use crate::format::key::Keyring;
use crate::id::RepoId;
use crate::repo::secrets::Secrets;
use crate::safeguard::Safeguard;
use crate::store::Key;
use crate::store::Put;
use crate::store::StagedStore;
use crate::store::Store;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

/// No configuration is longer.
const CONFIG_BYTES_MAX: u64 = 64 << 10;

/// An open repository.
pub struct Repo {
    store: Arc<dyn Store>,
    config: Config,
    config_bytes: Vec<u8>,
    /// `None` for a plain repository.
    keyring: Option<Keyring>,
    secrets: Secrets,
    cache_dir: Option<PathBuf>,
}

/// Who may read a new repository.
pub enum Access {
    /// Everyone who can read the store.
    Plain,
    /// Whoever holds one of these.
    Encrypted(Vec<NewKey>),
}

/// A key slot to be made.
pub struct NewKey {
    /// What opens it.
    pub credential: Credential,
    /// How its key is made from the credential.
    pub derivation: Derivation,
    /// What a person calls it.
    pub label: String,
}

impl Repo {
    /// Makes a repository with this id and opens it. Of several who try at once one succeeds, and
    /// the others get `RepoExists`.
    pub fn create(
        cx: &Context,
        store: Arc<dyn Store>,
        repo: RepoId,
        access: Access,
        cache_dir: Option<&Path>,
    ) -> Result<Repo> {
        if matches!(&access, Access::Encrypted(new_keys) if new_keys.is_empty()) {
            return Err(Error::Refused {
                reason: "without a key nobody could read what is stored".to_string(),
            });
        }
        let created_at = cx.clock.now();
        let (suite, public_secret) = match &access {
            Access::Plain => (Suite::Plain, Some(cx.random_bytes()?)),
            Access::Encrypted(_) => (preferred_suite(), None),
        };
        let config = Config {
            repo,
            created_at,
            suite,
            public_secret,
        };
        let config_bytes = config.encode();
        let mut repo = Repo::assemble(store, config, config_bytes, None, cache_dir)?;
        let mut slots = Vec::new();
        if let Access::Encrypted(new_keys) = &access {
            let keyring = Keyring {
                id_secret: cx.random_bytes()?,
                generations: vec![(1, cx.random_bytes()?)],
            };
            repo.secrets = Secrets::new(suite, &keyring)?;
            repo.keyring = Some(keyring);
            if !Safeguard::KeysBeforeConfig.holds() {
                repo.store.put_new(&Key::config(), &repo.config_bytes)?;
            }
            for new_key in new_keys {
                slots.push(repo.add_key(cx, new_key)?);
            }
        }
        // Order: the key slots before the config that makes them count. A crash in between leaves
        // slots that open nothing; the reverse would leave a repository that nobody can open.
        match repo.store.put_new(&Key::config(), &repo.config_bytes) {
            Ok(Put::Created) => Ok(repo),
            // A lost reply to an earlier attempt of our own store layer looks like `Taken`.
            Ok(Put::Taken)
                if repo.store.get(&Key::config())? == Some(repo.config_bytes.clone()) =>
            {
                Ok(repo)
            }
            Ok(Put::Taken) => {
                for slot in &slots {
                    repo.store.delete(slot)?;
                }
                Err(Error::RepoExists {
                    location: repo.store.location(),
                })
            }
            Err(error) => Err(error),
        }
    }

    /// Opens a repository with the first credential that fits. A plain one needs none, and is
    /// refused if one is given: its config could be a forgery.
    pub fn open(
        store: Arc<dyn Store>,
        credentials: &[Credential],
        cache_dir: Option<&Path>,
    ) -> Result<Repo> {
        let (config, config_bytes) = read_config(&*store)?;
        if config.public_secret.is_some() {
            // Whoever can write to the store could have put this config in the place of one that
            // asks for a key, and everything after would be stored for them to read.
            if !credentials.is_empty() && Safeguard::PlainRefusesKey.holds() {
                let reason = "a key was given, but the repository says that it is not encrypted";
                return Err(Error::Refused {
                    reason: reason.to_string(),
                });
            }
            return Repo::assemble(store, config, config_bytes, None, cache_dir);
        }
        let keyring = keys::open_any(&*store, &config, &config_bytes, credentials)?;
        Repo::assemble(store, config, config_bytes, Some(keyring), cache_dir)
    }

    fn assemble(
        store: Arc<dyn Store>,
        config: Config,
        config_bytes: Vec<u8>,
        keyring: Option<Keyring>,
        cache_dir: Option<&Path>,
    ) -> Result<Repo> {
        let public = config.public_secret.unwrap_or_default();
        let public = Keyring {
            id_secret: public,
            generations: vec![(1, public)],
        };
        let secrets = Secrets::new(config.suite, keyring.as_ref().unwrap_or(&public))?;
        let cache_dir =
            cache_dir.and_then(|dir| make_cache_dir(&dir.join(config.repo.to_string())));
        Ok(Repo {
            store,
            config,
            config_bytes,
            keyring,
            secrets,
            cache_dir,
        })
    }

    /// Returns the same repository with what is put from now on in a file of its own: it is seen by
    /// who works with what is returned, and by nobody else.
    pub fn staged(&self, room: &Path) -> Result<Repo> {
        let store = StagedStore::over(Arc::clone(&self.store), room)?;
        let (config, config_bytes) = (self.config.clone(), self.config_bytes.clone());
        let public = self.config.public_secret.unwrap_or_default();
        let public = Keyring {
            id_secret: public,
            generations: vec![(1, public)],
        };
        let secrets = Secrets::new(config.suite, self.keyring.as_ref().unwrap_or(&public))?;
        Ok(Repo {
            store: Arc::new(store),
            config,
            config_bytes,
            keyring: self.keyring.clone(),
            secrets,
            cache_dir: self.cache_dir.clone(),
        })
    }

    /// Returns where its objects live.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// Returns its name for ever.
    pub fn id(&self) -> RepoId {
        self.config.repo
    }

    /// Returns what it is.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the working keys.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Returns the directory for disposable local files about this repository.
    pub fn cache_dir(&self) -> Option<&Path> {
        self.cache_dir.as_deref()
    }
}

/// Reads what the repository in a store is, without a key.
pub fn read_config(store: &dyn Store) -> Result<(Config, Vec<u8>)> {
    let bytes = store.get_range(&Key::config(), 0..CONFIG_BYTES_MAX)?;
    let bytes = bytes.ok_or_else(|| Error::NoRepo {
        location: store.location(),
    })?;
    let config = Config::decode(&bytes).map_err(|malformed| malformed.of("config"))?;
    Ok((config, bytes))
}

/// Makes the cache directory readable to its owner only. One that cannot be made is done without.
fn make_cache_dir(dir: &Path) -> Option<PathBuf> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.ok().map(|()| dir.to_path_buf())
}

/// AES where the processor has it: faster there by a third, and several times slower elsewhere.
fn preferred_suite() -> Suite {
    #[cfg(target_arch = "x86_64")]
    let has_aes = std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    let has_aes = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let has_aes = false;
    match has_aes {
        true => Suite::Aes256Gcm,
        false => Suite::ChaCha20Poly1305,
    }
}
