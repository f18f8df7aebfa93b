//! Says something about snapshots that exist: a name, a hold, a proof.

use crate::context::Context;
use crate::error::Error;
use crate::error::Result;
use crate::format::entry::Change;
use crate::format::note::Note;
use crate::id::SnapshotId;
use crate::repo::Repo;
use crate::repo::log::Draft;
use crate::repo::log::Outcome;
use crate::repo::log::Outdated;
use crate::repo::log::State;
use std::collections::BTreeSet;
use std::sync::Arc;

/// How often others may be in the way before this gives up.
const ATTEMPTS_MAX: usize = 10;

/// Adds notes about these snapshots to the log, all or none. Fails if one of them is not there, or
/// is removed before the notes are. Returns the state with them.
pub fn add(
    cx: &Context,
    repo: &Repo,
    about: &BTreeSet<SnapshotId>,
    notes: &[Note],
) -> Result<Arc<State>> {
    let mut state = repo.read_state(cx)?;
    for _ in 0..ATTEMPTS_MAX {
        if let Some(id) = about.iter().find(|id| !state.snapshots.contains_key(id)) {
            let what = format!("snapshot {}", id.short());
            return Err(Error::NotFound { what });
        }
        let draft = Draft {
            change: Change {
                notes: notes.to_vec(),
                ..Change::default()
            },
            relies_on_snapshots: about.clone(),
            packs_since: state.position,
            ..Draft::default()
        };
        match repo.append(cx, state, draft)? {
            Outcome::Committed(state) => return Ok(state),
            // Adding the same notes again changes nothing.
            Outcome::Outdated(now, Outdated::SnapshotRemoved | Outdated::Recycled) => state = now,
            Outcome::Outdated(now, why) => {
                debug_assert!(false, "notes rely on no packs: {why:?}");
                state = now;
            }
            Outcome::Unsettled => return Err(unsettled(repo)),
        }
    }
    Err(Error::Busy {
        what: format!("repository {}", repo.id().short()),
        reason: "others kept writing to it; try again".to_string(),
    })
}

/// The error of an append that may or may not have taken effect.
pub(super) fn unsettled(repo: &Repo) -> Error {
    Error::Store {
        action: "append to",
        object: "the log".to_string(),
        reason: format!(
            "{} keeps failing; what was to be saved may or may not be, `list` will tell",
            repo.store().location()
        ),
    }
}
