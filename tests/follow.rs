//! Readers beside a prune that rewrites packs: they look where the records are now.

use crate::copy::prune_to;
use crate::interrupted::Hook;
use crate::interrupted::Interrupted;
use crate::support;
use crate::support::Seeded;
use statekeep::error::Error;
use statekeep::format::manifest::Manifest;
use statekeep::ops::restore;
use statekeep::ops::restore::RestoreOptions;
use statekeep::repo::chunks::Chunks;
use statekeep::store::Folder;
use statekeep::store::Key;
use statekeep::store::MemoryStore;
use statekeep::store::Store;
use std::fs;
use std::sync::Arc;
use tempfile::TempDir;

/// Six snapshots of files that change; the pack of each has what later ones need.
fn repository() -> (Arc<MemoryStore>, TempDir) {
    let store = Arc::new(MemoryStore::new());
    let repo = support::create(store.clone(), false, None);
    let (dir, mut random) = (TempDir::new().unwrap(), Seeded::new(1));
    for _ in 0..6 {
        for number in 0..3 {
            let name = format!("file-{}", random.below(8) + number);
            let content = random.bytes(90_000);
            fs::write(dir.path().join(name), content).unwrap();
        }
        support::backup(&repo, dir.path()).unwrap();
    }
    (store, dir)
}

#[test]
fn a_restore_goes_on_when_a_prune_rewrites_packs_between_any_two_calls() {
    let (store, dir) = repository();
    let wanted = support::model_of(dir.path());
    let mut moments = 0;
    for number in 1.. {
        let inner = support::copy_of(&*store);
        let interrupted = Arc::new(Interrupted::new(inner.clone()));
        let repo = support::open(interrupted.clone(), None).unwrap();
        let cx = support::context();
        let state = repo.read_state(&cx).unwrap();
        let newest = state
            .snapshots
            .values()
            .map(|raw| Manifest::decode(raw).unwrap());
        let newest = newest.max_by_key(|manifest| manifest.started_at).unwrap();
        let hook: Hook = Box::new(move || {
            prune_to(&support::open(inner, None).unwrap(), 1).unwrap();
        });
        interrupted.before_call(number, hook);
        let out = TempDir::new().unwrap();
        let target = out.path().join("out");

        let chunks = Chunks::open_following(&cx, &repo, &state.packs).unwrap();
        let options = RestoreOptions::new(&target);
        let plan = restore::plan(&cx, &chunks, &newest, &options).unwrap();
        restore::apply(&cx, &chunks, &newest, &options, &plan).unwrap();

        assert!(support::model_of(&target) == wanted, "call {number}");
        moments += 1;
        if !interrupted.disarm() {
            break;
        }
    }
    assert!(moments > 10, "{moments}");
}

/// What is not moved but gone is told as before, and the log is not read for every chunk of it.
#[test]
fn a_pack_that_is_lost_is_missing_after_one_look() {
    let (store, _dir) = repository();
    let repo = support::open(store.clone(), None).unwrap();
    let cx = support::context();
    let state = repo.read_state(&cx).unwrap();
    let chunks = Chunks::open_following(&cx, &repo, &state.packs).unwrap();
    for row in store.list(Folder::Packs).unwrap() {
        let key = Key::new(Folder::Packs, row.name).unwrap();
        store.delete(&key).unwrap();
    }
    let manifest = Manifest::decode(state.snapshots.values().next().unwrap()).unwrap();
    let mut scratch = statekeep::repo::chunks::Scratch::default();
    let kind = statekeep::format::pack::ChunkKind::Tree;

    let read = chunks.read(&mut scratch, kind, &manifest.tree.id);

    assert!(matches!(read, Err(Error::Missing { .. })), "{read:?}");
}
