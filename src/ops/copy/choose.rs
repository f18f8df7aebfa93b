//! Which snapshots are to be copied, and which earlier one each is compared with.

use crate::error::Result;
use crate::format::manifest::Manifest;
use crate::format::note::CopiedFrom;
use crate::id::RepoId;
use crate::id::SnapshotId;
use crate::repo::log::State;
use std::collections::HashMap;

/// Returns where a snapshot comes from: the first of all it is a copy of, or itself.
pub(super) fn origin(repo: RepoId, state: &State, id: SnapshotId) -> CopiedFrom {
    let copied = state.notes.copied.get(&id).copied();
    copied.unwrap_or(CopiedFrom { repo, snapshot: id })
}

/// Reads the manifest of a snapshot.
pub(super) fn manifest(state: &State, id: &SnapshotId) -> Result<Option<Manifest>> {
    let Some(bytes) = state.snapshots.get(id) else {
        return Ok(None);
    };
    let object = || format!("the manifest of {}", id.short());
    let manifest = Manifest::decode(bytes).map_err(|malformed| malformed.of(object()))?;
    Ok(Some(manifest))
}

/// The snapshots of the target by where they come from. One that lost something counts as absent,
/// so that it is copied again.
pub(super) struct Copies(HashMap<CopiedFrom, SnapshotId>);

impl Copies {
    pub(super) fn of(repo: RepoId, state: &State) -> Copies {
        let whole = state.snapshots.keys();
        let whole = whole.filter(|id| !state.notes.losses.contains_key(id));
        Copies(whole.map(|id| (origin(repo, state, *id), *id)).collect())
    }

    pub(super) fn find(&self, from: &CopiedFrom) -> Option<SnapshotId> {
        self.0.get(from).copied()
    }

    pub(super) fn add(&mut self, from: CopiedFrom, copy: SnapshotId) {
        self.0.insert(from, copy);
    }
}

/// Snapshots of the source whose copies are there: each can be what a later one is compared with.
#[derive(Default)]
pub(super) struct Earlier(Vec<(Manifest, SnapshotId)>);

impl Earlier {
    pub(super) fn of(repo: RepoId, state: &State, copies: &Copies) -> Earlier {
        let mut earlier = Earlier::default();
        for id in state.snapshots.keys() {
            let copy = copies.find(&origin(repo, state, *id));
            // What is lost of it could be what the other one needs.
            let is_whole = !state.notes.losses.contains_key(id);
            if let (Some(copy), true, Ok(Some(manifest))) = (copy, is_whole, manifest(state, id)) {
                earlier.add(manifest, copy);
            }
        }
        earlier
    }

    pub(super) fn add(&mut self, manifest: Manifest, copy: SnapshotId) {
        self.0.push((manifest, copy));
    }

    /// Returns the one that is probably most like this: of the same series, of the same scope if
    /// there is one, and the nearest in time.
    pub(super) fn nearest(&self, of: &Manifest) -> Option<(&Manifest, SnapshotId)> {
        let series = |manifest: &Manifest| {
            manifest.host == of.host
                && manifest.profile == of.profile
                && manifest.root_path == of.root_path
        };
        let earlier = self.0.iter().filter(|(manifest, _)| series(manifest));
        let nearest = earlier.min_by_key(|(manifest, copy)| {
            let apart = of.started_at.since_ns(manifest.started_at);
            (manifest.scope != of.scope, apart.unsigned_abs(), *copy)
        });
        nearest.map(|(manifest, copy)| (manifest, *copy))
    }
}
