//! Whether the clock of this machine and those of past backups can both be right.

use crate::context::Timestamp;
use crate::id::SnapshotId;
use crate::ops::keep::SKEW_NS;
use crate::ops::snapshots::Snapshot;

/// A snapshot from the future.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ahead {
    /// The one that is furthest ahead.
    pub snapshot: SnapshotId,
    /// Its date.
    pub at: Timestamp,
    /// How many there are.
    pub count: u64,
}

/// Returns the snapshots that are dated after now, if there are any.
pub fn ahead(snapshots: &[Snapshot], now: Timestamp) -> Option<Ahead> {
    let dated = snapshots
        .iter()
        .map(|one| (one.manifest.started_at, one.id));
    let future: Vec<_> = dated.filter(|(at, _)| at.since_ns(now) > SKEW_NS).collect();
    let (at, snapshot) = future.iter().copied().max()?;
    Some(Ahead {
        snapshot,
        at,
        count: future.len() as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::manifest::Manifest;

    #[test]
    fn a_few_minutes_are_no_future() {
        let snapshot = |at: i64| Snapshot {
            id: SnapshotId([1; 32]),
            manifest: Manifest {
                started_at: Timestamp(at),
                ..Manifest::default()
            },
            tags: Vec::new(),
            hold: None,
            proof: None,
            replaced: None,
        };
        let now = Timestamp(1000);

        assert_eq!(ahead(&[snapshot(1000 + SKEW_NS)], now), None);
        let found = ahead(&[snapshot(5), snapshot(1001 + SKEW_NS)], now).unwrap();
        assert_eq!((found.count, found.at), (1, Timestamp(1001 + SKEW_NS)));
    }
}
