//! Databases that sled made: told, copied, opened again.

use super::*;
use crate::source::files::Tree;
use crate::source::files::Walk;
use crate::source::files::WalkOptions;
use std::path::Path;

fn open(path: &Path) -> ::sled::Db {
    let config = ::sled::Config::new().path(path).flush_every_ms(None);
    config.open().unwrap()
}

/// Fills a few trees; some values are so large that they become blobs.
fn fill(db: &::sled::Db, seed: u64) {
    for tree in ["", "other", "third"] {
        let tree = db.open_tree(tree).unwrap();
        for key in 0..700_u64 {
            let len = if key % 350 == 7 {
                600_000
            } else {
                key as usize
            };
            let value = vec![(seed + key) as u8; len];
            tree.insert(key.to_be_bytes(), value).unwrap();
        }
    }
    db.flush().unwrap();
}

fn copy_of(path: &Path, room: &Path, bytes_max: u64) -> Result<PrivateCopy, Refusal> {
    let tree = Tree::open(path).unwrap();
    let list = || {
        let walk = Walk::open(&tree, WalkOptions::default()).unwrap();
        let items = walk.map(|item| item.unwrap());
        let of_sled = items.filter(|item| Part::of(&item.path).is_some());
        Ok(of_sled.map(|item| (item.path, item.stat)).collect())
    };
    let original = Original {
        tree: &tree,
        prefix: b"",
        list: &list,
        check: &|| true,
    };
    PrivateCopy::create(&original, room, bytes_max)
}

#[test]
fn an_exact_copy_of_an_open_database_holds_what_was_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let (app, room) = (dir.path().join("app"), dir.path().join("room"));
    std::fs::create_dir(&room).unwrap();
    let db = open(&app);
    fill(&db, 1);

    let copy = copy_of(&app, &room, u64::MAX).unwrap();

    assert!(copy.is_exact());
    assert!(copy.files().keys().any(|name| name.starts_with(b"blobs/")));
    let content = std::fs::read(copy.directory().join("conf")).unwrap();
    assert_eq!(Conf::parse(&content).unwrap().version, (0, 34));
    let twin = copy.twin(&room).unwrap();
    let log = |copy: &PrivateCopy| std::fs::read(copy.directory().join("db")).unwrap();
    let before = log(&copy);
    assert_eq!(check(twin.directory()), Health::Sound);
    assert!(log(&copy) == before);
    let found = open(copy.directory());
    assert_eq!(found.checksum().unwrap(), db.checksum().unwrap());
    drop((found, copy, twin));
    assert_eq!(std::fs::read_dir(&room).unwrap().count(), 0);
}

#[test]
fn a_damaged_copy_and_a_small_room_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let (app, room) = (dir.path().join("app"), dir.path().join("room"));
    std::fs::create_dir(&room).unwrap();
    fill(&open(&app), 2);
    // A snapshot is written when a log is found.
    drop(open(&app));

    let refused = copy_of(&app, &room, 100_000);
    let copy = copy_of(&app, &room, u64::MAX).unwrap();
    let is_snapshot = |name: &&Vec<u8>| Part::of(name) == Some(Part::Snapshot);
    for name in copy.files().keys().filter(is_snapshot) {
        let name = std::str::from_utf8(name).unwrap();
        std::fs::write(copy.directory().join(name), b"of another database").unwrap();
    }

    assert!(matches!(refused, Err(Refusal::NoRoom { .. })));
    assert!(matches!(check(copy.directory()), Health::Damaged(_)));
}

/// Why a copy counts only if nothing changed: sled opens one that lacks the end of its log, and
/// says nothing.
#[test]
fn opening_does_not_find_what_recovery_hides() {
    let dir = tempfile::tempdir().unwrap();
    let (app, room) = (dir.path().join("app"), dir.path().join("room"));
    std::fs::create_dir(&room).unwrap();
    let db = open(&app);
    for key in 0..600_u64 {
        db.insert(key.to_be_bytes(), vec![key as u8; 70]).unwrap();
        db.flush().unwrap();
    }
    let copy = copy_of(&app, &room, u64::MAX).unwrap();
    let log = copy.directory().join("db");

    let log = std::fs::File::options().write(true).open(log).unwrap();
    log.set_len(log.metadata().unwrap().len() - 1).unwrap();

    assert_eq!(check(copy.directory()), Health::Sound);
    let found = open(copy.directory());
    assert!(!found.contains_key(599_u64.to_be_bytes()).unwrap());
    assert_eq!(found.len() + 1, db.len());
}

#[test]
fn an_export_comes_back_by_import() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir.path().join("from"));
    fill(&db, 3);
    let mut bytes = Vec::new();

    let rows = export(&db, &mut bytes).unwrap();
    let other = open(&dir.path().join("to"));
    assert_eq!(import(&other, &bytes[..]).unwrap(), rows);

    assert_eq!(rows, 2100);
    assert_eq!(other.checksum().unwrap(), db.checksum().unwrap());
    // Not into a database that has rows, not cut short, not with another byte.
    assert!(import(&other, &bytes[..]).is_err());
    let empty = |name: &str| open(&dir.path().join(name));
    let at = bytes.len() / 2;
    assert!(import(&empty("short"), &bytes[..at]).is_err());
    bytes[at] ^= 1;
    assert!(import(&empty("changed"), &bytes[..]).is_err());
}
