//! Looking for paths in many snapshots.

use crate::repair::World;
use crate::support::context;
use statekeep::error::Error;
use statekeep::ops::find;
use statekeep::ops::find::FindReport;
use statekeep::ops::snapshots;
use statekeep::ops::snapshots::Snapshot;
use statekeep::repo::chunks::Chunks;
use std::fs;

fn find_in(world: &World, patterns: &[&str]) -> Result<FindReport, Error> {
    let repo = world.repo();
    let (state, snapshots) = snapshots::list(&context(), &repo).unwrap();
    let chunks = Chunks::open(&repo, &state.packs).unwrap();
    let all: Vec<&Snapshot> = snapshots.iter().collect();
    let patterns: Vec<String> = patterns.iter().map(ToString::to_string).collect();
    find::find(&context(), &chunks, &all, &patterns, world.scratch.path())
}

/// Sizes and numbers of snapshots of each version, newest first.
fn versions(report: &FindReport, path: &str) -> Vec<(u64, u64)> {
    let paths = report.series.iter().flat_map(|series| &series.paths);
    let mut found = paths.filter(|found| found.path == path.as_bytes());
    let runs = found
        .next()
        .map(|found| &found.runs[..])
        .unwrap_or_default();
    runs.iter()
        .map(|run| (run.size_bytes, run.snapshots))
        .collect()
}

#[test]
fn versions_are_runs_of_snapshots_with_the_same_content() {
    let world = World::new(true);
    world.write("d/app.toml", b"1");
    world.write("other", b"other");
    let first = world.backup();
    world.backup();
    world.write("d/app.toml", b"22");
    world.backup();
    fs::remove_file(world.source().join("d/app.toml")).unwrap();
    world.backup();
    // The same bytes at another time are the same version.
    world.write("other", b"other");
    world.write("d/app.toml", b"22");
    let last = world.backup();

    let report = find_in(&world, &["app.toml", "oth*"]).unwrap();

    assert_eq!(versions(&report, "d/app.toml"), [(2, 1), (2, 1), (1, 2)]);
    assert_eq!(versions(&report, "other"), [(5, 5)]);
    let run = &report.series[0].paths[1].runs[0];
    assert_eq!(Some(run.oldest.id), first.snapshot);
    assert_eq!(Some(run.newest.id), last.snapshot);
    assert_eq!(find_in(&world, &["/app.toml"]).unwrap().series, []);
    let report = find_in(&world, &["/d/**"]).unwrap();
    assert_eq!(versions(&report, "d/app.toml").len(), 3);
    let error = find_in(&world, &["[a"]).unwrap_err().to_string();
    assert!(error.starts_with("pattern \"[a\""), "{error}");
}

#[test]
fn looking_through_many_snapshots_costs_what_differs() {
    let world = World::new(true);
    for dir in 0..30 {
        fs::create_dir(world.source().join(format!("d{dir}"))).unwrap();
        for file in 0..100 {
            let name = format!("d{dir}/a-rather-long-name-of-a-file-{file}");
            world.write(&name, b"x");
        }
    }
    world.backup();
    let alone = find_in(&world, &["*-7"]).unwrap();
    for step in 0..10 {
        world.write(
            "d3/a-rather-long-name-of-a-file-7",
            format!("{step}").as_bytes(),
        );
        world.backup();
        world.backup();
    }

    let report = find_in(&world, &["*-7"]).unwrap();

    assert_eq!(report.series[0].paths.len(), 30);
    assert_eq!(
        versions(&report, "d3/a-rather-long-name-of-a-file-7").len(),
        11
    );
    assert_eq!(
        versions(&report, "d4/a-rather-long-name-of-a-file-7"),
        [(1, 21)]
    );
    // For each step a root and a leaf on either side.
    let most = alone.nodes + 10 * 4;
    assert!(
        report.nodes <= most,
        "{} nodes, {} alone",
        report.nodes,
        alone.nodes
    );
}
