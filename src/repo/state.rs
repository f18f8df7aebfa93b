//! The state of a repository, remembered locally between runs.
//!
//! The memory saves reading the log again, and it notices a store that went back in time. It is a
//! cache: sealed like a checkpoint, written without syncs, and ignored when it cannot be read.

use crate::context::Context;
use crate::disk;
use crate::disk::RealDisk;
use crate::error::Error;
use crate::error::Result;
use crate::format::container;
use crate::format::container::ObjectKind;
use crate::repo::Repo;
use crate::repo::log;
use crate::repo::log::Draft;
use crate::repo::log::LogKeys;
use crate::repo::log::Outcome;
use crate::repo::log::State;
use crate::store::Key;
use std::path::PathBuf;
use std::sync::Arc;

impl Repo {
    /// Returns what opens and seals the log.
    pub fn log_keys(&self) -> LogKeys {
        let data = self.secrets().data_keys().clone();
        LogKeys {
            data,
            manifest: *self.secrets().manifest_key(),
        }
    }

    /// Reads the state of the repository now.
    pub fn read_state(&self, cx: &Context) -> Result<Arc<State>> {
        let remembered = self.remembered_state();
        let known = remembered.as_ref().map(|state| state.position);
        let read = |remembered| log::read_state(cx, self.store(), &self.log_keys(), remembered);
        let state = match (read(remembered.clone()), remembered) {
            // The slot to compare with cannot be read any more. If a checkpoint stands for it, its
            // hash says the same.
            (Err(Error::Corrupt { object, .. }), Some(seen))
                if object == Key::slot(seen.position).to_string() =>
            {
                let state = read(None)?;
                match state.hash_at(seen.position) {
                    Some(hash) if hash != seen.log_hash() => {
                        let reason = format!("{object} is not the one this machine has seen");
                        return Err(Error::RolledBack { reason });
                    }
                    _ => state,
                }
            }
            (state, _) => state?,
        };
        if known != Some(state.position) {
            self.remember_state(cx, &state);
        }
        Ok(state)
    }

    /// Appends an entry to the log.
    pub fn append(&self, cx: &Context, state: Arc<State>, draft: Draft) -> Result<Outcome> {
        let outcome = log::append(cx, self.store(), &self.log_keys(), state, draft)?;
        if let Outcome::Committed(state) = &outcome {
            self.remember_state(cx, state);
        }
        Ok(outcome)
    }

    /// Returns the state this machine remembers from its last run, if it can be read. It says what
    /// the log was then.
    pub fn remembered_state(&self) -> Option<Arc<State>> {
        let object = std::fs::read(self.state_path()?).ok()?;
        let keys = self.log_keys();
        let plain = container::unseal(&keys.data, ObjectKind::Checkpoint, &object).ok()?;
        State::decode(&keys.manifest, &plain).ok().map(Arc::new)
    }

    /// Failing to remember costs time at the next run, and nothing else.
    fn remember_state(&self, cx: &Context, state: &State) {
        let (Some(path), Ok(salt)) = (self.state_path(), cx.random_bytes()) else {
            return;
        };
        let plain = state.encode();
        let keys = self.secrets().data_keys();
        let object = container::seal(keys, ObjectKind::Checkpoint, salt, &plain);
        let _ = disk::replace_cache(&RealDisk, &path, &object);
    }

    /// Forgets what the local index holds. The next run reads the tables of all packs.
    pub fn forget_index(&self) {
        if let Some(dir) = self.cache_dir() {
            let _ = std::fs::remove_dir_all(dir.join("index"));
        }
    }

    fn state_path(&self) -> Option<PathBuf> {
        self.cache_dir().map(|dir| dir.join("state"))
    }
}
