//! When snapshots were made at the latest, whatever clocks said. Pure.
//!
//! A clock that runs ahead makes a backup look younger than it is, and an old one look like
//! safety. So a snapshot counts as no younger than any that was made after it: the log knows that
//! by parents. A clock that runs behind makes backups look old, until the next one with a right
//! clock; that is a false alarm and no false comfort. Imports are dated by somebody else.

use crate::codec::sha256::Sha256Sum;
use crate::context::Timestamp;
use crate::id::SnapshotId;
use crate::ops::snapshots::Snapshot;
use std::collections::BTreeMap;
use std::collections::HashMap;

/// Returns for each snapshot the latest time at which it can have been made.
pub(super) fn made_at(
    snapshots: &[Snapshot],
    imports: &BTreeMap<SnapshotId, Sha256Sum>,
) -> HashMap<SnapshotId, Timestamp> {
    let dates = snapshots
        .iter()
        .map(|one| (one.id, one.manifest.started_at));
    let parents: HashMap<SnapshotId, SnapshotId> = snapshots
        .iter()
        .filter(|one| !imports.contains_key(&one.id))
        .filter_map(|one| Some((one.id, one.manifest.parent?)))
        .collect();
    let mut made: HashMap<SnapshotId, Timestamp> = dates.collect();
    let mut oldest_first: Vec<&Snapshot> = snapshots.iter().collect();
    oldest_first.sort_by_key(|one| (one.manifest.started_at, one.id));
    for snapshot in oldest_first {
        let at = snapshot.manifest.started_at;
        let mut child = snapshot.id;
        // Whoever is lowered once has the oldest date there is, so each is lowered at most once.
        while let Some(parent) = parents.get(&child)
            && let Some(made) = made.get_mut(parent)
            && at < *made
        {
            *made = at;
            child = *parent;
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::manifest::Manifest;

    /// Snapshots by date, each made after the one before it.
    fn chain(dates: &[i64]) -> Vec<Snapshot> {
        let id = |number: usize| SnapshotId([number as u8 + 1; 32]);
        let snapshot = |(number, date): (usize, &i64)| Snapshot {
            id: id(number),
            manifest: Manifest {
                started_at: Timestamp(*date),
                parent: number.checked_sub(1).map(id),
                ..Manifest::default()
            },
            tags: Vec::new(),
            hold: None,
            proof: None,
            replaced: None,
        };
        dates.iter().enumerate().map(snapshot).collect()
    }

    fn made(dates: &[i64]) -> Vec<i64> {
        let snapshots = chain(dates);
        let made = made_at(&snapshots, &BTreeMap::new());
        snapshots.iter().map(|one| made[&one.id].0).collect()
    }

    #[test]
    fn a_snapshot_is_no_younger_than_what_was_made_after_it() {
        assert_eq!(made(&[1, 2, 3]), [1, 2, 3]);
        assert_eq!(made(&[1, 90, 3]), [1, 3, 3]);
        assert_eq!(made(&[1, 90, 80, 3, 4]), [1, 3, 3, 3, 4]);
        assert_eq!(made(&[9, 8, 7, 1]), [1, 1, 1, 1]);
    }

    #[test]
    fn the_date_of_an_import_says_nothing_about_others() {
        let snapshots = chain(&[5, 1]);
        let imports = [(snapshots[1].id, Sha256Sum([0; 32]))].into();

        let made = made_at(&snapshots, &imports);

        assert_eq!(made[&snapshots[0].id], Timestamp(5));
    }
}
