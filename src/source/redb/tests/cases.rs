//! Databases at rest: tables of every kind, every way to commit, damage.

use super::*;
use crate::source::redb::Damage;
use crate::source::redb::MAGIC;
use ::redb::Durability;
use std::collections::HashSet;
use std::fs;

#[test]
fn image_holds_tables_of_every_kind() {
    let scratch = Scratch::new();
    let database = scratch.create();
    fill(&database, 3_000, 1);

    assert_eq!(scratch.capture_contents(), contents_of(&database));
}

#[test]
fn image_of_a_closed_database_is_that_of_the_open_one() {
    let scratch = Scratch::new();
    let database = scratch.create();
    fill(&database, 500, 1);
    let expected = contents_of(&database);
    drop(database);

    assert_eq!(scratch.capture_contents(), expected);
}

#[test]
fn empty_databases_are_captured() {
    let scratch = Scratch::new();
    let database = scratch.create();
    assert_eq!(scratch.capture_contents(), "");

    commit(&database, |write| {
        write.open_table(NUMBERS).unwrap();
    });

    assert_eq!(scratch.capture_contents(), "NUMBERS\n");
}

#[test]
fn values_of_many_sizes_are_captured() {
    let scratch = Scratch::new();
    let database = scratch.create();
    commit(&database, |write| {
        let mut rows = write.open_table(ROWS).unwrap();
        for (i, shift) in (8..24).enumerate() {
            let value = bytes(i as u64, (1 << shift) + 13 * i);
            rows.insert(i as u64, &value[..]).unwrap();
        }
        let mut words = write.open_multimap_table(WORDS).unwrap();
        let long = "long ".repeat(300_000);
        words.insert("a", "short").unwrap();
        words.insert("a", &long[..]).unwrap();
        words.insert(&long[..], "b").unwrap();
        let mut texts = write.open_table(TEXTS).unwrap();
        texts.insert(&long[..], &long[..]).unwrap();
        texts.insert("short", "value").unwrap();
    });

    assert_eq!(scratch.capture_contents(), contents_of(&database));
}

#[test]
fn savepoints_can_be_restored_from_an_image() {
    let scratch = Scratch::new();
    let database = scratch.create();
    fill(&database, 2_000, 1);
    let (old, mut savepoint) = (contents_of(&database), 0);
    commit(&database, |write| {
        savepoint = write.persistent_savepoint().unwrap();
    });
    for seed in 2..5 {
        fill(&database, 1_500, seed);
    }
    assert_eq!(scratch.capture_contents(), contents_of(&database));

    let image = ::redb::Database::open(scratch.path("image.redb")).unwrap();
    let mut write = image.begin_write().unwrap();
    let savepoint = write.get_persistent_savepoint(savepoint).unwrap();
    write.restore_savepoint(&savepoint).unwrap();
    write.commit().unwrap();

    assert_eq!(contents_of(&image), old);
}

#[test]
fn deleted_tables_are_not_in_the_image() {
    let scratch = Scratch::new();
    let database = scratch.create();
    fill(&database, 2_000, 1);
    let before = {
        let mut capture = scratch.open().unwrap();
        capture_now(&mut capture).unwrap().pages
    };
    commit(&database, |write| {
        write.delete_table(ROWS).unwrap();
        write.delete_multimap_table(LISTS).unwrap();
    });

    let mut capture = scratch.open().unwrap();
    let after = capture_now(&mut capture).unwrap().pages;

    assert!(after < before / 2);
    assert_eq!(scratch.restore(&capture), contents_of(&database));
}

#[test]
fn every_way_to_commit_is_captured() {
    for (quick_repair, two_phase) in [(false, false), (false, true), (true, true)] {
        let scratch = Scratch::new();
        let database = scratch.create();
        for seed in 0..4 {
            fill(&database, 300, seed);
            let mut write = database.begin_write().unwrap();
            write.set_two_phase_commit(two_phase);
            write.set_quick_repair(quick_repair);
            write.open_table(NUMBERS).unwrap().insert(seed, 77).unwrap();
            write.commit().unwrap();

            assert_eq!(scratch.capture_contents(), contents_of(&database));
        }
    }
}

#[test]
fn only_durable_commits_are_captured() {
    let scratch = Scratch::new();
    let database = scratch.create();
    fill(&database, 300, 1);
    let durable = contents_of(&database);
    let mut write = database.begin_write().unwrap();
    write.set_durability(Durability::None).unwrap();
    write.open_table(NUMBERS).unwrap().insert(9_999, 1).unwrap();
    write.commit().unwrap();
    assert_eq!(scratch.capture_contents(), durable);

    commit(&database, |write| {
        write.open_table(NUMBERS).unwrap().insert(9_998, 1).unwrap();
    });

    assert_eq!(scratch.capture_contents(), contents_of(&database));
}

#[test]
fn an_uncommitted_transaction_is_not_captured() {
    let scratch = Scratch::new();
    let mut builder = ::redb::Builder::new();
    // With little memory, what is not committed is written early.
    let database = builder.set_cache_size(1 << 20).create(scratch.database());
    let database = database.unwrap();
    fill(&database, 2_000, 1);
    let committed = contents_of(&database);
    let write = database.begin_write().unwrap();
    let mut rows = write.open_table(ROWS).unwrap();
    for i in 0..20_000 {
        rows.insert(i, &bytes(i, 600)[..]).unwrap();
    }

    assert_eq!(scratch.capture_contents(), committed);
}

/// Returns where the pages are that only the second of two images has.
fn new_pages(old: &Database, new: &Database) -> Vec<u64> {
    let offsets = |capture: &Database| {
        let (mut buffer, mut offsets) = (Vec::new(), Vec::new());
        let mut pages = capture.pages().unwrap();
        while let Some(piece) = pages.next(&mut buffer).unwrap() {
            offsets.push(piece.offset);
        }
        offsets
    };
    let old: HashSet<u64> = offsets(old).into_iter().collect();
    let new = offsets(new).into_iter();
    new.filter(|offset| !old.contains(offset)).collect()
}

/// What a writer leaves that was killed before all of its last commit was written.
fn break_last_commit(two_phase: bool) -> (Scratch, String, String) {
    let scratch = Scratch::new();
    let database = scratch.create();
    fill(&database, 2_000, 1);
    let mut before = scratch.open().unwrap();
    capture_now(&mut before).unwrap();
    let old = contents_of(&database);
    let mut write = database.begin_write().unwrap();
    write.set_two_phase_commit(two_phase);
    write.open_table(NUMBERS).unwrap().insert(1, 77).unwrap();
    write.commit().unwrap();
    let mut after = scratch.open().unwrap();
    capture_now(&mut after).unwrap();
    let new = contents_of(&database);

    let changed = new_pages(&before, &after);
    let copy = scratch.path("copy");
    fs::copy(scratch.database(), &copy).unwrap();
    drop(database);
    let file = File::options().write(true).open(&copy).unwrap();
    file.write_all_at(&[0; 64], *changed.last().unwrap())
        .unwrap();
    fs::rename(&copy, scratch.database()).unwrap();
    (scratch, old, new)
}

#[test]
fn after_a_torn_commit_the_one_before_is_captured() {
    let (scratch, old, new) = break_last_commit(false);
    let mut capture = scratch.open().unwrap();

    capture_now(&mut capture).unwrap();

    assert_ne!(old, new);
    assert_eq!(scratch.restore(&capture), old);
    assert!(capture.is_newest().unwrap());
    let recovered = ::redb::Database::open(scratch.database()).unwrap();
    assert_eq!(contents_of(&recovered), old);
}

#[test]
fn after_a_torn_two_phase_commit_nothing_is_believed() {
    let (scratch, ..) = break_last_commit(true);

    let refusal = capture_now(&mut scratch.open().unwrap()).unwrap_err();

    assert_eq!(refusal.code(), "corrupt");
    let reason = Damage::Page { offset: 0 };
    let Refusal::Corrupt { reason: found } = refusal else {
        panic!("{refusal}");
    };
    assert_eq!(
        std::mem::discriminant(&found),
        std::mem::discriminant(&reason)
    );
}

#[test]
fn a_later_capture_reads_what_changed() {
    let scratch = Scratch::new();
    let database = scratch.create();
    fill(&database, 20_000, 1);
    let mut capture = scratch.open().unwrap();
    capture_now(&mut capture).unwrap();
    let first_bytes = capture.read_bytes();
    commit(&database, |write| {
        write.open_table(NUMBERS).unwrap().insert(1, 77).unwrap();
    });
    assert!(!capture.is_newest().unwrap());

    let facts = capture_now(&mut capture).unwrap();

    let read_bytes = capture.read_bytes() - first_bytes;
    assert!(read_bytes < 64 << 10, "{read_bytes} of {first_bytes} bytes");
    assert!(capture.is_newest().unwrap());
    assert_eq!(facts.passes, 1);
    assert_eq!(scratch.restore(&capture), contents_of(&database));
    capture_now(&mut capture).unwrap();
    assert!(capture.read_bytes() - first_bytes - read_bytes < 4 << 10);
}

/// Puts other bytes where the spool has a leaf in the middle, as a page of a later commit that
/// took its place would.
fn take_place(capture: &mut Database) {
    let (mut buffer, mut leaves) = (Vec::new(), Vec::new());
    let mut pages = capture.pages().unwrap();
    while let Some(piece) = pages.next(&mut buffer).unwrap() {
        leaves.extend(piece.identity.map(|_| piece.offset));
    }
    let offset = leaves[leaves.len() / 2];
    capture.spool.write(offset, &[1; 64]).unwrap();
    capture.spool.seal(offset, 1);
}

#[test]
fn a_page_whose_place_was_taken_is_read_again() {
    let scratch = Scratch::new();
    let database = scratch.create();
    fill(&database, 3_000, 1);
    let mut capture = scratch.open().unwrap();
    capture_now(&mut capture).unwrap();
    take_place(&mut capture);
    commit(&database, |write| {
        write.open_table(NUMBERS).unwrap().insert(1, 77).unwrap();
    });

    capture_now(&mut capture).unwrap();

    assert_eq!(scratch.restore(&capture), contents_of(&database));
}

#[test]
fn a_damaged_spool_is_noticed() {
    let scratch = Scratch::new();
    let database = scratch.create();
    fill(&database, 3_000, 1);
    let mut capture = scratch.open().unwrap();
    capture_now(&mut capture).unwrap();
    take_place(&mut capture);

    let mut buffer = Vec::new();
    let mut pages = capture.pages().unwrap();
    let refusal = loop {
        match pages.next(&mut buffer) {
            Ok(piece) => assert!(piece.is_some()),
            Err(refusal) => break refusal,
        }
    };

    assert_eq!(refusal.code(), "corrupt");
}

#[test]
fn a_capture_survives_compaction() {
    let scratch = Scratch::new();
    let mut database = scratch.create();
    fill(&database, 20_000, 1);
    commit(&database, |write| {
        write
            .open_table(ROWS)
            .unwrap()
            .retain(|key, _| key % 4 == 0)
            .unwrap();
        write.delete_table(TEXTS).unwrap();
    });
    let mut capture = scratch.open().unwrap();
    let before = capture_now(&mut capture).unwrap();

    database.compact().unwrap();
    let after = capture_now(&mut capture).unwrap();

    assert!(after.file_bytes < before.file_bytes);
    assert_eq!(
        after.file_bytes,
        fs::metadata(scratch.database()).unwrap().len()
    );
    assert_eq!(scratch.restore(&capture), contents_of(&database));
}

#[test]
fn reading_does_not_drop_the_locks_of_the_application() {
    let scratch = Scratch::new();
    let database = scratch.create();
    fill(&database, 100, 1);

    scratch.capture_contents();

    let second = ::redb::Database::open(scratch.database());
    assert!(matches!(
        second,
        Err(::redb::DatabaseError::DatabaseAlreadyOpen)
    ));
}

/// An empty database whose regions are small, which redb takes from the header.
fn create_with_regions(path: &Path, header_pages: u32, data_pages: u32) -> ::redb::Database {
    let mut header = MAGIC.to_vec();
    header.extend([4, 0, 0]);
    for number in [4096, header_pages, data_pages, 0, 8] {
        header.extend(number.to_le_bytes());
    }
    header.resize(64, 0);
    let mut slot = vec![0; 112];
    slot[0] = 3;
    slot.extend(xxhash_rust::xxh3::xxh3_128(&slot).to_le_bytes());
    header.extend(slot.repeat(2));
    header.resize(4096 * (1 + header_pages as usize + 8), 0);
    fs::write(path, header).unwrap();
    ::redb::Database::open(path).unwrap()
}

#[test]
fn files_of_many_regions_are_captured() {
    for (header_pages, data_pages) in [(0, 32), (0, 64), (3, 32)] {
        let scratch = Scratch::new();
        let database = create_with_regions(&scratch.database(), header_pages, data_pages);
        for seed in 0..4 {
            fill(&database, 1_000, seed);
            commit(&database, |write| {
                let mut rows = write.open_table(ROWS).unwrap();
                rows.insert(1, &bytes(seed, 50_000)[..]).unwrap();
            });
            assert_eq!(scratch.capture_contents(), contents_of(&database));
        }
    }
}

#[test]
fn other_files_are_refused() {
    let scratch = Scratch::new();
    let mut old = vec![0; 8192];
    old[..9].copy_from_slice(MAGIC);
    old[13] = 16;
    old[20] = 64;
    (old[64], old[192]) = (2, 2);
    for (content, code) in [
        (Vec::new(), "not-a-database"),
        (vec![7; 8192], "not-a-database"),
        (MAGIC.to_vec(), "not-a-database"),
        (old, "old-format"),
    ] {
        fs::write(scratch.database(), content).unwrap();

        assert_eq!(scratch.open().unwrap_err().code(), code);
    }
}

#[test]
fn limits_and_the_caller_stop_a_capture() {
    let scratch = Scratch::new();
    let database = scratch.create();
    fill(&database, 5_000, 1);
    let mut capture = scratch.open().unwrap();

    let full = capture.capture(PASSES, 1 << 20, &mut || true).unwrap_err();
    let stopped = capture
        .capture(PASSES, u64::MAX, &mut || false)
        .unwrap_err();

    assert_eq!((full.code(), stopped.code()), ("no-spool", "stopped"));
    assert!(capture.pages().is_none());
    capture_now(&mut capture).unwrap();
    assert_eq!(scratch.restore(&capture), contents_of(&database));
}

#[test]
fn damage_is_refused_or_does_not_matter() {
    let scratch = Scratch::new();
    let database = scratch.create();
    fill(&database, 100, 1);
    commit(&database, |write| {
        write.persistent_savepoint().unwrap();
    });
    fill(&database, 100, 2);
    drop(database);
    let whole = fs::read(scratch.database()).unwrap();
    let expected = scratch.capture_contents();
    let used: Vec<usize> = (0..whole.len()).filter(|&i| whole[i] != 0).collect();

    let mut state = 1;
    for round in 0..120 {
        let mut damaged = whole.clone();
        let mut pick = |below: usize| random(&mut state) as usize % below;
        let at = match round % 4 {
            0 => pick(320),
            _ => used[pick(used.len())],
        };
        match round % 5 {
            0 => damaged.truncate(at),
            _ => damaged[at] ^= 1 << pick(8),
        }
        fs::write(scratch.database(), damaged).unwrap();
        let outcome = scratch.open().and_then(|mut capture| {
            capture_now(&mut capture)?;
            Ok(scratch.restore(&capture))
        });

        assert!(outcome.is_err() || outcome.unwrap() == expected, "{at}");
    }
}
