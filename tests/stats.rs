//! The figures of a repository: exact where they say so, and kept when snapshots go.

use crate::repair::World;
use crate::repair::two_backups;
use crate::support::Seeded;
use crate::support::context;
use statekeep::format::manifest::Manifest;
use statekeep::id::SnapshotId;
use statekeep::ops::snapshots;
use statekeep::ops::stats;
use statekeep::ops::stats::Detail;
use statekeep::ops::stats::StatsOptions;
use statekeep::repo::log as repo_log;
use std::fs;

/// What forgetting each snapshot frees is the difference it makes to what is needed.
#[test]
fn what_a_snapshot_alone_costs_is_exactly_what_forgetting_it_frees() {
    let (world, ..) = two_backups(true);
    let mut random = Seeded::new(3);
    for round in 0..4 {
        world.write("large", &random.bytes(300_000 + round * 1000));
        world.write(&format!("d/{round}"), &random.text(9000));
        world.backup();
    }
    let repo = world.repo();
    let (state, snapshots) = snapshots::list(&context(), &repo).unwrap();
    let all: Vec<_> = snapshots.into_iter().map(|s| (s.id, s.manifest)).collect();
    let count = |snapshots: &[(SnapshotId, Manifest)]| {
        let options = StatsOptions {
            files: Detail::Count,
            ..StatsOptions::default()
        };
        let temp_dir = world.scratch.path();
        stats::stats(&context(), &repo, &state, snapshots, options, temp_dir).unwrap()
    };

    let report = count(&all);

    assert_eq!(report.totals.usage.unneeded_bytes, 0);
    assert!(
        report
            .snapshots
            .iter()
            .filter(|one| one.alone_bytes > 0)
            .count()
            > 2
    );
    for (number, one) in report.snapshots.iter().enumerate() {
        let mut others = all.clone();
        others.remove(number);
        let usage = count(&others).totals.usage;
        assert_eq!(usage.unneeded_bytes, one.alone_bytes, "snapshot {number}");
    }
    let alone: u64 = report.files.iter().map(|file| file.alone_bytes).sum();
    assert!(alone <= report.totals.usage.needed_bytes);
    assert_eq!(report.files[0].path, b"large");
    assert_eq!(report.files[0].versions, 6);
}

#[test]
fn figures_outlive_the_snapshots_they_are_about() {
    let (world, reports, _) = two_backups(true);
    let repo = world.repo();
    let state = repo.read_state(&context()).unwrap();
    let draft = repo_log::Draft {
        change: statekeep::format::entry::Change {
            remove_snapshots: vec![reports[0].snapshot.unwrap()],
            ..Default::default()
        },
        ..Default::default()
    };
    let before = growth(&world);

    repo.append(&context(), state, draft).unwrap();

    assert_eq!(world.state().snapshots.len(), 1);
    assert_eq!(growth(&world), before);
    // A reader without memory adds up the same from the slots.
    let history = world.state().notes.history.clone();
    fs::remove_dir_all(world.cache()).unwrap();
    assert_eq!(world.state().notes.history, history);
}

fn growth(world: &World) -> (u64, u64) {
    let repo = world.repo();
    let (state, snapshots) = snapshots::list(&context(), &repo).unwrap();
    let all: Vec<_> = snapshots.into_iter().map(|s| (s.id, s.manifest)).collect();
    let (options, temp_dir) = (StatsOptions::default(), world.scratch.path());
    let report = stats::stats(&context(), &repo, &state, &all, options, temp_dir).unwrap();
    let spans = report.growth.spans.iter();
    spans.fold((0, 0), |(backups, stored), (_, span)| {
        (backups + span.backups, stored + span.stored_bytes)
    })
}
