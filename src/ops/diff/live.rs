//! What is there now, as if it were a snapshot.

use crate::context::Context;
use crate::error::Error;
use crate::error::Result;
use crate::format::manifest::Manifest;
use crate::ops::backup;
use crate::repo::Repo;
use crate::repo::chunks::Chunks;
use crate::repo::log::State;
use crate::source::files::Problem;
use std::path::Path;
use std::path::PathBuf;

/// Where to look.
#[derive(Debug, Clone)]
pub struct LiveOptions {
    /// The directory that the paths of the snapshot are relative to.
    pub root: PathBuf,
    /// This machine.
    pub host: String,
    /// Where temporary files may be if the repository has no cache.
    pub temp_dir: PathBuf,
}

/// A repository with what is there now.
pub struct Live {
    repo: Repo,
    state: State,
    /// What is there now.
    pub manifest: Manifest,
    /// What of it could not be read.
    pub warnings: Vec<Problem>,
}

impl Live {
    /// Reads what backups like this one would store. What they left out is left out.
    pub fn read(
        cx: &Context,
        repo: &Repo,
        state: &State,
        like: &Manifest,
        options: &LiveOptions,
    ) -> Result<Live> {
        let root = &options.root;
        let again = backup::again(like, root, &options.host)?;
        let again = again.ok_or_else(|| Error::NotFound {
            what: format!("what was backed up at {}", root.display()),
        })?;
        let room: &Path = repo.cache_dir().unwrap_or(&options.temp_dir);
        let staged = repo.staged(room)?;
        let found = backup::stage(cx, &staged, state, &again)?;
        let mut state = state.clone();
        state.packs.extend(found.packs);
        Ok(Live {
            repo: staged,
            state,
            manifest: found.manifest,
            warnings: found.warnings,
        })
    }

    /// Opens the chunks of what is there now, and of every snapshot.
    pub fn chunks(&self) -> Result<Chunks<'_>> {
        Chunks::open(&self.repo, &self.state.packs)
    }
}
