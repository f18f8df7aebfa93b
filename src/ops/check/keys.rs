//! Key slots: is each what it was named after? A damaged one opens for nobody, and who has nothing
//! else than what opened it would learn so only on the day it is needed.

use crate::error::Result;
use crate::ops::Tally;
use crate::ops::check::CheckProblem;
use crate::repo::Repo;
use crate::store::Folder;
use crate::store::Key;

/// Returns what is wrong with the key slots. No snapshot is hurt while another one opens.
pub(super) fn problems(repo: &Repo) -> Result<Vec<CheckProblem>> {
    let damaged = repo.keys()?.into_iter().filter_map(|key| {
        let object = Key::new(Folder::Keys, key.name.clone())?.to_string();
        let message = format!(
            "the key opens nothing any more: {}; `key remove {}` and `key add` make a new one",
            key.damage?,
            key.name.get(..8).unwrap_or(&key.name)
        );
        Some(CheckProblem {
            object,
            message,
            snapshots: Vec::new(),
            paths: Tally::default(),
        })
    });
    Ok(damaged.collect())
}
