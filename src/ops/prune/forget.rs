//! Removes snapshots that somebody names. The space stays taken until it is collected.

use crate::context::Context;
use crate::error::Error;
use crate::error::Result;
use crate::format::entry::Change;
use crate::id::SnapshotId;
use crate::ops::keep;
use crate::ops::notes;
use crate::ops::prune::apply::append_on_full_disk;
use crate::ops::snapshots;
use crate::repo::Repo;
use crate::repo::log::Draft;
use crate::repo::log::Outcome;
use crate::repo::log::State;
use std::collections::BTreeSet;
use std::sync::Arc;

/// How often others may be in the way before this gives up.
const ATTEMPTS_MAX: usize = 100;

/// Removes these snapshots, all or none. One that is held is refused; one that somebody else
/// removes meanwhile is fine. Returns the state without them.
pub fn forget(cx: &Context, repo: &Repo, ids: &BTreeSet<SnapshotId>) -> Result<Arc<State>> {
    let mut state = repo.read_state(cx)?;
    if let Some(id) = ids.iter().find(|id| !state.snapshots.contains_key(id)) {
        let what = format!("snapshot {}", id.short());
        return Err(Error::NotFound { what });
    }
    for _ in 0..ATTEMPTS_MAX {
        let now = cx.clock.now();
        let all = snapshots::of_state(&state)?;
        let named = || all.iter().filter(|snapshot| ids.contains(&snapshot.id));
        if let Some(held) = named().find(|snapshot| keep::is_held(snapshot, now)) {
            let reason = format!("snapshot {} is held; release it first", held.id.short());
            return Err(Error::Refused { reason });
        }
        let remove_snapshots: Vec<SnapshotId> = named().map(|snapshot| snapshot.id).collect();
        if remove_snapshots.is_empty() {
            return Ok(state);
        }
        let draft = Draft {
            change: Change {
                remove_snapshots,
                ..Change::default()
            },
            packs_since: state.position,
            ..Draft::default()
        };
        match append_on_full_disk(cx, repo, &state, &draft)? {
            Outcome::Committed(state) => return Ok(state),
            Outcome::Outdated(now, _) => state = now,
            Outcome::Unsettled => return Err(notes::unsettled(repo)),
        }
    }
    Err(Error::Busy {
        what: format!("repository {}", repo.id().short()),
        reason: "others kept writing to it; try again".to_string(),
    })
}
