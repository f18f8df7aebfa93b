//! Damage of every kind to every kind of object: it is found and named, marked, healed by the next
//! backup, and what is undamaged can be restored before, between and after.

use crate::support;
use crate::support::Model;
use crate::support::Seeded;
use crate::support::context;
use crate::support::model_in;
use crate::support::model_of;
use statekeep::error::Error;
use statekeep::format::manifest::Manifest;
use statekeep::format::pack::ChunkKind;
use statekeep::id::PackId;
use statekeep::id::SnapshotId;
use statekeep::ops::backup::BackupReport;
use statekeep::ops::check::ReadData;
use statekeep::ops::check::log;
use statekeep::ops::check::repair;
use statekeep::ops::check::repair::RepairPlan;
use statekeep::ops::check::repair::Waiting;
use statekeep::ops::prune;
use statekeep::ops::restore;
use statekeep::ops::restore::RestoreOptions;
use statekeep::ops::snapshots;
use statekeep::repo::Repo;
use statekeep::repo::chunks::Chunks;
use statekeep::repo::log as repo_log;
use statekeep::store::FaultyStore;
use statekeep::store::Folder;
use statekeep::store::Key;
use statekeep::store::MemoryStore;
use statekeep::store::Put;
use statekeep::store::Repeat;
use statekeep::store::Store;
use statekeep::store::StoreFault;
use statekeep::store::When;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

/// A source, a repository in memory and the cache of one machine.
pub(crate) struct World {
    pub(crate) scratch: TempDir,
    pub(crate) store: Arc<MemoryStore>,
}

impl World {
    pub(crate) fn new(plain: bool) -> World {
        let world = World {
            scratch: tempfile::tempdir().unwrap(),
            store: Arc::new(MemoryStore::new()),
        };
        fs::create_dir_all(world.source().join("d")).unwrap();
        let cache = world.cache();
        support::create(world.store.clone(), plain, Some(&cache));
        world
    }

    pub(crate) fn source(&self) -> PathBuf {
        self.scratch.path().join("source")
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.scratch.path().join("cache")
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.source().join(name), bytes).unwrap();
    }

    pub(crate) fn repo(&self) -> Repo {
        support::open(self.store.clone(), Some(&self.cache())).unwrap()
    }

    pub(crate) fn backup(&self) -> BackupReport {
        support::backup(&self.repo(), &self.source()).unwrap()
    }

    fn plan(&self, read_data: ReadData) -> RepairPlan {
        let repo = self.repo();
        let (state, snapshots) = snapshots::list(&context(), &repo).unwrap();
        let snapshots: Vec<(SnapshotId, Manifest)> =
            snapshots.into_iter().map(|s| (s.id, s.manifest)).collect();
        repair::plan(&context(), &repo, &state, &snapshots, read_data).unwrap()
    }

    fn repair(&self, read_data: ReadData) -> RepairPlan {
        let plan = self.plan(read_data);
        let repo = self.repo();
        let state = repo.read_state(&context()).unwrap();
        repair::apply(&context(), &repo, &state, &plan).unwrap();
        plan
    }

    pub(crate) fn state(&self) -> Arc<repo_log::State> {
        self.repo().read_state(&context()).unwrap()
    }

    /// Restores a snapshot as far as possible and returns what came.
    fn restored(&self, snapshot: &SnapshotId) -> Model {
        let (repo, cx) = (self.repo(), context());
        let state = repo.read_state(&cx).unwrap();
        let chunks = Chunks::open(&repo, &state.packs).unwrap();
        let manifest = Manifest::decode(&state.snapshots[snapshot]).unwrap();
        let target = tempfile::tempdir_in(self.scratch.path()).unwrap();
        let options = RestoreOptions::new(target.path().join("t"));
        let plan = restore::plan(&cx, &chunks, &manifest, &options).unwrap();
        restore::apply(&cx, &chunks, &manifest, &options, &plan).unwrap();
        model_of(&target.path().join("t"))
    }

    /// Whatever is there has to be right; returns the files that are not there.
    fn lacks(&self, snapshot: &SnapshotId, truth: &Model) -> Vec<String> {
        let restored = self.restored(snapshot);
        let mut lacks = Vec::new();
        for (path, node) in truth {
            let name = String::from_utf8(path.clone()).unwrap();
            match restored.get(path) {
                Some(found) if node.1 == "file" => assert_eq!(found, node, "{name}"),
                Some(_) => {}
                None => lacks.push(name),
            }
        }
        lacks
    }

    fn pack_of(&self, kind: ChunkKind, snapshot: &BackupReport, path: &str) -> PackId {
        let repo = self.repo();
        let state = repo.read_state(&context()).unwrap();
        let chunks = Chunks::open(&repo, &state.packs).unwrap();
        let manifest = &snapshot.manifest;
        let id = match kind {
            ChunkKind::Tree => manifest.tree.id,
            _ => {
                let path = path.as_bytes();
                let found = statekeep::ops::inspect::find_entry(&chunks, manifest, path);
                let (at, index) = found.unwrap().unwrap();
                match &at.leaf.entries[index].kind {
                    statekeep::format::tree::Kind::File {
                        content: statekeep::format::tree::Content::Stream(stream),
                        ..
                    } => stream.root,
                    _ => at.leaf.bundles[at.leaf.places()[index].unwrap().bundle].id,
                }
            }
        };
        chunks.find(&id)[0].pack
    }

    fn harm(&self, key: &Key, harm: Harm) {
        let mut bytes = self.store.get(key).unwrap().unwrap();
        self.store.delete(key).unwrap();
        let middle = bytes.len() / 2;
        match harm {
            Harm::Delete => return,
            Harm::Truncate => bytes.truncate(middle),
            Harm::Flip => bytes[middle] ^= 0x10,
            Harm::Zero => {
                let end = bytes.len().min(middle + 512);
                bytes[middle..end].fill(0);
            }
        }
        assert_eq!(self.store.put_new(key, &bytes).unwrap(), Put::Created);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    Delete,
    Truncate,
    Flip,
    Zero,
}

const HARMS: [Harm; 4] = [Harm::Delete, Harm::Truncate, Harm::Flip, Harm::Zero];

/// Two backups; the source still has all of the second.
pub(crate) fn two_backups(plain: bool) -> (World, [BackupReport; 2], [Model; 2]) {
    let world = World::new(plain);
    let mut random = Seeded::new(7);
    let mut large = random.bytes(700_000);
    world.write("large", &large);
    for number in 0..8 {
        world.write(&format!("d/{number}"), &random.text(3000));
    }
    let first = (world.backup(), model_of(&world.source()));
    large[300_000..300_100].fill(9);
    world.write("large", &large);
    world.write("d/3", &random.text(3000));
    world.write("new", &random.bytes(200_000));
    let second = (world.backup(), model_of(&world.source()));
    (world, [first.0, second.0], [first.1, second.1])
}

#[test]
fn any_damage_to_any_pack_is_found_marked_and_healed_by_the_next_backup() {
    for plain in [true, false] {
        let (world, reports, _) = two_backups(plain);
        let packs: Vec<PackId> = world.state().packs.keys().copied().collect();
        assert_eq!(packs.len(), 2);
        drop((world, reports));
        for (number, harm) in (0..packs.len()).flat_map(|n| HARMS.map(|harm| (n, harm))) {
            damage_and_heal(plain, number, harm);
        }
    }
}

fn damage_and_heal(plain: bool, number: usize, harm: Harm) {
    let what = format!("plain {plain}, pack {number}, {harm:?}");
    let (world, reports, truth) = two_backups(plain);
    let ids = reports.each_ref().map(|report| report.snapshot.unwrap());
    let pack = match number {
        0 => world.pack_of(ChunkKind::Data, &reports[0], "d/1"),
        _ => world.pack_of(ChunkKind::Data, &reports[1], "new"),
    };
    world.harm(&Key::pack(&pack), harm);
    let before = [0, 1].map(|i| world.lacks(&ids[i], &truth[i]));

    let plan = world.repair(ReadData::All);

    assert_marked(&world, &plan, &pack, &what);
    for i in [0, 1] {
        let lacks = world.lacks(&ids[i], &truth[i]);
        assert_eq!(lacks, before[i], "{what}: between");
        // Every file that cannot be restored is named, by itself or by the directory it is in.
        let is_marked = world.state().notes.losses.contains_key(&ids[i]);
        assert_eq!(is_marked, !lacks.is_empty(), "{what}: {lacks:?}");
        let problem = &plan.report.problems[0];
        assert_eq!(problem.snapshots.contains(&ids[i]), is_marked, "{what}");
    }
    let third = world.backup();

    assert!(third.manifest.figures.stored_bytes > 0, "{what}");
    let id = third.snapshot.unwrap();
    assert_eq!(world.lacks(&id, &truth[1]), [""; 0], "{what}");
    assert_eq!(
        world.lacks(&ids[1], &truth[1]),
        [""; 0],
        "{what}: the second heals"
    );
    let lost_for_good = world.lacks(&ids[0], &truth[0]);
    assert!(lost_for_good.iter().all(|path| before[0].contains(path)));
    let again = world.backup();
    assert_eq!(
        again.manifest.figures.read_bytes, 0,
        "{what}: trusted again"
    );
    let healed = world.repair(ReadData::All);
    match (lost_for_good.is_empty(), healed.waiting) {
        // The first snapshot reads what was not hurt, and the source does not have any more.
        (true, Some(Waiting::StillRead)) => {
            assert!(
                number == 0 && world.state().notes.losses.is_empty(),
                "{what}"
            );
        }
        (true, _) => {
            assert!(
                healed.heals() && healed.drop.contains(&pack),
                "{what}: {healed:?}"
            );
            assert!(world.state().notes.lost.is_empty() && world.state().notes.losses.is_empty());
            assert!(world.plan(ReadData::All).report.is_clean(), "{what}");
        }
        (false, waiting) => {
            assert_eq!(waiting, Some(Waiting::Needed), "{what}");
            let losses = world.state().notes.losses.clone();
            assert_eq!(losses.keys().collect::<Vec<_>>(), [&ids[0]], "{what}");
        }
    }
    assert_eq!(
        model_in(&world.repo(), &id).unwrap(),
        truth[1],
        "{what}: after"
    );
}

fn assert_marked(world: &World, plan: &RepairPlan, pack: &PackId, what: &str) {
    assert!(plan.mark.packs.contains(pack), "{what}: {plan:?}");
    assert_eq!(plan.waiting, Some(Waiting::Needed), "{what}");
    assert!(!plan.heals());
    let object = format!("packs/{pack}");
    let problems: Vec<&str> = plan.report.problems.iter().map(|p| &p.object[..]).collect();
    assert_eq!(problems, [&object], "{what}: {:?}", plan.report.problems);
    assert!(world.plan(ReadData::All).is_empty(), "{what}: said once");
}

#[test]
fn a_backup_that_did_not_know_of_the_damage_is_not_trusted() {
    let (world, reports, truth) = two_backups(true);
    let pack = world.pack_of(ChunkKind::Data, &reports[1], "new");
    world.harm(&Key::pack(&pack), Harm::Zero);
    let plan = world.plan(ReadData::All);
    let before = world.repo().read_state(&context()).unwrap();
    // It takes over what its parent lost: nobody has told it.
    let unaware = world.backup();
    assert_eq!(unaware.manifest.figures.read_bytes, 0);
    assert_ne!(world.lacks(&unaware.snapshot.unwrap(), &truth[1]), [""; 0]);

    repair::apply(&context(), &world.repo(), &before, &plan).unwrap();
    let next = world.backup();

    assert!(next.manifest.figures.read_bytes > 0 && next.manifest.without.is_some());
    for report in [&unaware, &next] {
        assert_eq!(world.lacks(&report.snapshot.unwrap(), &truth[1]), [""; 0]);
    }
}

#[test]
fn a_mark_is_not_lifted_over_a_backup_that_nobody_walked() {
    let (world, reports, _) = two_backups(true);
    let pack = world.pack_of(ChunkKind::Data, &reports[1], "new");
    world.harm(&Key::pack(&pack), Harm::Flip);
    world.repair(ReadData::All);
    world.backup();
    let plan = world.plan(ReadData::All);
    assert!(plan.heals() && plan.drop.contains(&pack), "{plan:?}");
    let state = world.state();
    world.write("more", b"more");
    world.backup();

    let refused = repair::apply(&context(), &world.repo(), &state, &plan);

    assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
    assert!(world.state().notes.lost.packs.contains(&pack));
    assert!(world.repair(ReadData::All).heals());
    assert!(world.state().notes.lost.is_empty());
}

#[test]
fn a_pack_that_still_opens_is_dropped_only_when_all_else_was_read() {
    let (world, reports, _) = two_backups(false);
    let pack = world.pack_of(ChunkKind::Data, &reports[1], "new");
    world.harm(&Key::pack(&pack), Harm::Zero);
    world.repair(ReadData::All);
    world.backup();

    let quick = world.repair(ReadData::No);

    assert_eq!(quick.waiting, Some(Waiting::ReadData));
    assert!(!quick.heals() && world.state().packs.contains_key(&pack));
    assert!(world.repair(ReadData::All).heals());
    assert!(
        world
            .store
            .stored_bytes(&Key::pack(&pack))
            .unwrap()
            .is_some()
    );
}

#[test]
fn a_pack_that_is_put_back_is_healed_by_itself() {
    let (world, reports, truth) = two_backups(false);
    let pack = world.pack_of(ChunkKind::Data, &reports[0], "d/1");
    let key = Key::pack(&pack);
    let good = world.store.get(&key).unwrap().unwrap();
    world.harm(&key, Harm::Delete);
    world.repair(ReadData::No);
    assert!(!world.state().notes.losses.is_empty());
    world.store.put_new(&key, &good).unwrap();

    let plan = world.repair(ReadData::All);

    assert!(plan.heals() && plan.drop.is_empty(), "{plan:?}");
    let notes = &world.state().notes;
    assert!(notes.lost.is_empty() && notes.losses.is_empty());
    let first = reports[0].snapshot.unwrap();
    assert_eq!(world.lacks(&first, &truth[0]), [""; 0]);
}

/// Every slot and every checkpoint, harmed in every way, on the machine that remembers.
#[test]
fn any_damage_to_the_log_is_mended_by_a_machine_that_remembers_it() {
    for harm in HARMS {
        for number in 1..=4 {
            let (world, reports, truth) = two_backups(false);
            world.write("third", b"3");
            let third = world.backup();
            world.write("fourth", b"4");
            world.backup();
            let before = world.state();
            world.harm(&Key::slot(number), harm);
            let what = format!("slot {number} {harm:?}");
            let report = log::inspect(&context(), &world.repo()).unwrap();
            assert_eq!(
                report.lost_slots.keys().collect::<Vec<_>>(),
                [&number],
                "{what}"
            );
            let plan = log::plan(&world.repo(), &report).unwrap();
            // A machine that remembers the end and finds it goes on without looking back.
            let is_needed = world.repo().read_state(&context()).is_err();
            assert_eq!(is_needed, number == 4, "{what}");

            log::apply(&context(), &world.repo(), &plan).unwrap();

            // Nobody remembers anything now.
            fs::remove_dir_all(world.cache()).unwrap();
            let after = world.state();
            assert_eq!(after.snapshots, before.snapshots, "{what}");
            assert_eq!(after.log_hash(), before.log_hash(), "{what}");
            let more = world.backup();
            assert_eq!(world.state().position, 5, "{what}");
            assert_eq!(world.lacks(&more.snapshot.unwrap(), &truth[1]), [""; 0]);
            for (report, truth) in reports.iter().zip(&truth) {
                assert_eq!(
                    world.lacks(&report.snapshot.unwrap(), truth),
                    [""; 0],
                    "{what}"
                );
            }
            assert_eq!(world.lacks(&third.snapshot.unwrap(), &truth[1]), [""; 0]);
            assert!(world.plan(ReadData::No).log.problems().is_empty(), "{what}");
        }
    }
}

#[test]
fn a_log_nobody_remembers_is_left_as_it_is() {
    let (world, ..) = two_backups(true);
    fs::remove_dir_all(world.cache()).unwrap();
    world.harm(&Key::slot(1), Harm::Flip);

    let report = log::inspect(&context(), &world.repo()).unwrap();
    let plan = log::plan(&world.repo(), &report).unwrap();

    assert_eq!(
        (plan.unsolved.clone(), plan.checkpoint.is_none()),
        (vec![1], true)
    );
    log::apply(&context(), &world.repo(), &plan).unwrap();
    assert!(world.store.list(Folder::State).unwrap().is_empty());
}

#[test]
fn a_repository_put_back_from_an_older_copy_is_no_damage_to_mend() {
    let (world, reports, _) = two_backups(true);
    let pack = world.pack_of(ChunkKind::Data, &reports[1], "new");
    world.harm(&Key::slot(2), Harm::Delete);
    world.harm(&Key::pack(&pack), Harm::Delete);

    let report = log::inspect(&context(), &world.repo()).unwrap();
    let plan = log::plan(&world.repo(), &report).unwrap();

    assert!(plan.checkpoint.is_none(), "{plan:?}");
    let read = world.repo().read_state(&context());
    assert!(matches!(read, Err(Error::RolledBack { .. })), "{read:?}");
}

#[test]
fn a_damaged_checkpoint_is_written_again() {
    for harm in [Harm::Truncate, Harm::Flip, Harm::Zero] {
        for is_newest in [true, false] {
            let (world, ..) = two_backups(false);
            let repo = world.repo();
            let state = repo.read_state(&context()).unwrap();
            let keys = repo.log_keys();
            let object = statekeep::format::container::seal(
                &keys.data,
                statekeep::format::container::ObjectKind::Checkpoint,
                [1; 24],
                &state.encode(),
            );
            world.store.put_new(&Key::checkpoint(2), &object).unwrap();
            if !is_newest {
                world.write("more", b"more");
                world.backup();
            }
            world.harm(&Key::checkpoint(2), harm);
            assert_eq!(world.plan(ReadData::No).checkpoints, [2].into());
            let before = world.state();

            world.repair(ReadData::No);

            assert!(world.plan(ReadData::No).is_empty(), "{harm:?}");
            fs::remove_dir_all(world.cache()).unwrap();
            assert_eq!(world.state().snapshots, before.snapshots, "{harm:?}");
        }
    }
}

/// Found by `model`: one reply of the store that was lost made a snapshot one that lacks something.
#[test]
fn a_read_that_fails_for_once_is_no_loss() {
    let (world, ..) = two_backups(false);
    let repo = |store: Arc<FaultyStore>| support::open(store, None).unwrap();
    let (state, snapshots) = snapshots::list(&context(), &world.repo()).unwrap();
    let manifests: Vec<_> = snapshots.into_iter().map(|s| (s.id, s.manifest)).collect();
    let counted = Arc::new(FaultyStore::new(world.store.clone()));
    let plan = |repo: &Repo| repair::plan(&context(), repo, &state, &manifests, ReadData::All);
    assert!(plan(&repo(counted.clone())).unwrap().is_empty());

    for after_calls in 0..counted.total_calls() {
        let store = Arc::new(FaultyStore::new(world.store.clone()));
        let opened = repo(store.clone());
        store.fail(StoreFault {
            method: None,
            after_calls,
            when: When::Before,
            repeat: Repeat::Once,
        });

        match plan(&opened) {
            Ok(plan) => assert!(plan.is_empty(), "call {after_calls}: {plan:?}"),
            Err(error) => assert!(
                matches!(error, Error::Store { .. } | Error::Refused { .. }),
                "call {after_calls}: {error}"
            ),
        }
    }
}

/// Found by `model`: what a prune had rewritten and deleted since was marked as lost.
#[test]
fn a_repair_beside_a_prune_marks_nothing() {
    let (world, reports, _) = two_backups(false);
    fs::remove_file(world.source().join("new")).unwrap();
    world.backup();
    let repo = world.repo();
    prune::forget(&context(), &repo, &[reports[1].snapshot.unwrap()].into()).unwrap();
    let (state, snapshots) = snapshots::list(&context(), &repo).unwrap();
    let manifests: Vec<_> = snapshots.into_iter().map(|s| (s.id, s.manifest)).collect();
    let zealous = prune::PruneOptions {
        policy: None,
        profile: None,
        host: None,
        zone: jiff::tz::TimeZone::UTC,
        limits: prune::Limits {
            unused_permille: 0,
            repack_bytes_max: u64::MAX,
        },
        grace_ns: 0,
    };
    let plan = prune::plan(&context(), &repo, &zealous).unwrap();
    prune::apply(&context(), &repo, &zealous, plan).unwrap();

    let plan = repair::plan(&context(), &repo, &state, &manifests, ReadData::All).unwrap();
    let done = repair::apply(&context(), &repo, &state, &plan);

    assert!(!plan.mark.is_empty());
    assert!(matches!(done, Err(Error::Busy { .. })), "{done:?}");
    let notes = &world.state().notes;
    assert!(notes.lost.is_empty() && notes.losses.is_empty());
}
