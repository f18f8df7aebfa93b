//! What an image holds, in every mode and shape a database may have.

use super::*;
use rusqlite::params;
use std::os::unix::fs::MetadataExt;

const DIGEST: &str = "select (select sum(length(b) + v) from t)
    + (select sum(length(k) + n) from w)
    + (select count(*) from f where f match 'word7')";

/// A database with ordinary tables, overflow pages, an index, a table without row ids, a full
/// text index, and several trunks of free pages at small page sizes.
fn filled(place: &Place, page_bytes: u32, vacuum: &str, mode: &str) -> Connection {
    let connection = place.application();
    connection
        .execute_batch(&format!(
            "pragma page_size={page_bytes}; pragma auto_vacuum={vacuum};
             pragma journal_mode={mode}; pragma secure_delete=0;
             pragma user_version=-7; pragma application_id=99;
             create table t(id integer primary key, v int, b blob);
             create index i on t(v);
             create table w(k text primary key, n int) without rowid;
             create virtual table f using fts5(body);
             begin;
             with recursive c(x) as (select 1 union all select x + 1 from c where x < 600)
               insert into t select x, x * 7919 % 1000, randomblob(x * 37 % 2000) from c;
             insert into w select 'key' || id, v from t;
             insert into f select 'word' || (id % 40) || ' more words' from t;
             commit;
             delete from t where id % 3 = 0 or id between 200 and 400;"
        ))
        .unwrap();
    connection
}

#[test]
fn every_shape_and_mode_is_captured() {
    for page_bytes in [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536] {
        for (vacuum, mode) in [
            ("none", "delete"),
            ("none", "wal"),
            ("full", "truncate"),
            ("full", "wal"),
            ("incremental", "persist"),
            ("incremental", "wal"),
        ] {
            let what = format!("{page_bytes} {vacuum} {mode}");
            let place = Place::new();
            let application = filled(&place, page_bytes, vacuum, mode);
            let expected = number(&application, DIGEST);
            let pages = number(&application, "pragma page_count");
            let mut source = place.source();

            let exact = capture(&mut source, FreeLeaves::Exact);
            let zeroed = capture(&mut source, FreeLeaves::Zeroed);

            for image in [&exact, &zeroed] {
                let (_directory, copy) = opened(image);
                assert_eq!(number(&copy, DIGEST), expected, "{what}");
                assert_eq!(quick_check(image.clone()), Health::Sound, "{what}");
            }
            let facts = source.facts().clone();
            assert_eq!(facts.page_bytes, page_bytes, "{what}");
            assert_eq!(facts.pages, pages as u64, "{what}");
            assert_eq!(facts.wal, mode == "wal", "{what}");
            assert_eq!(facts.user_version, -7i32 as u32, "{what}");
            assert_eq!(facts.application_id, 99, "{what}");
            assert_eq!(facts.version, rusqlite::version_number() as u32, "{what}");
            assert!(!facts.free_list_damaged, "{what}");
            assert_eq!(
                i64::from(facts.free_pages),
                number(&application, "pragma freelist_count"),
                "{what}"
            );
            if facts.zeroed_pages != 0 {
                assert_ne!(exact, zeroed, "{what}");
            }
            if mode == "wal" {
                application
                    .query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(()))
                    .unwrap();
            }
            assert_eq!(exact, place.bytes(), "{what}: exact means exact");
            assert_eq!(capture(&mut source, FreeLeaves::Exact), exact, "{what}");
        }
    }
}

#[test]
fn zeroed_free_pages_hold_nothing_deleted_and_can_be_used_again() {
    for vacuum in ["none", "incremental"] {
        let place = Place::new();
        let application = filled(&place, 512, vacuum, "wal");
        application
            .execute_batch(
                "insert into t select null, 1, cast(replace(hex(zeroblob(900)), '00', 'secret')
                   as blob) from t limit 200;
                 delete from t where b like '%secretsecret%';",
            )
            .unwrap();
        let mut source = place.source();

        let exact = capture(&mut source, FreeLeaves::Exact);
        let zeroed = capture(&mut source, FreeLeaves::Zeroed);

        // More leaves than one trunk of 512 bytes can list.
        assert!(200 < source.facts().zeroed_pages);
        let occurrences = |image: &[u8]| {
            image
                .windows(12)
                .filter(|&window| window == b"secretsecret")
                .count()
        };
        assert!(1000 < occurrences(&exact));
        let (_directory, copy) = opened(&zeroed);
        assert!(occurrences(&zeroed) < 200, "pages in use may keep some");
        copy.execute_batch(
            "begin; insert into t select null, 3, randomblob(900) from t limit 300; commit;",
        )
        .unwrap();
        copy.execute_batch("pragma incremental_vacuum; vacuum")
            .unwrap();
        let verdict: String = copy
            .query_row("pragma integrity_check", [], |row| row.get(0))
            .unwrap();
        assert_eq!(verdict, "ok");
    }
}

#[test]
fn free_list_that_contradicts_itself_clears_nothing() {
    let place = Place::new();
    drop(filled(&place, 512, "none", "delete"));
    let sound = place.bytes();
    let word = |at: usize| u32::from_be_bytes(sound[at..at + 4].try_into().unwrap());
    let trunk = word(32);
    let trunk_at = (trunk as usize - 1) * 512;
    let leaf = word(trunk_at + 8);
    let pages = (sound.len() / 512) as u32;

    for (what, at, value) in [
        ("a cycle", trunk_at, trunk),
        ("a trunk that is a leaf", trunk_at, leaf),
        ("a trunk behind the end", trunk_at, pages + 1),
        ("far too many entries", trunk_at + 4, u32::MAX),
        ("too many entries", trunk_at + 4, 127),
        ("a leaf behind the end", trunk_at + 8, u32::MAX),
        ("the first page as a leaf", trunk_at + 8, 1),
        ("no page as a leaf", trunk_at + 8, 0),
        ("a trunk as its own leaf", trunk_at + 8, trunk),
        ("another length", 36, word(36) + 1),
        ("no length", 36, 0),
        ("an impossible length", 36, u32::MAX),
        ("no list", 32, 0),
        ("the first page as a trunk", 32, 1),
    ] {
        let mut hostile = sound.clone();
        hostile[at..at + 4].copy_from_slice(&value.to_be_bytes());
        fs::write(&place.path, &hostile).unwrap();

        let mut source = place.source();
        let image = capture(&mut source, FreeLeaves::Zeroed);

        assert!(source.facts().free_list_damaged, "{what}");
        assert_eq!(source.facts().zeroed_pages, 0, "{what}");
        assert_eq!(image, hostile, "{what}");
    }
}

#[test]
fn log_of_a_dead_writer_is_in_the_image_and_stays_as_it_is() {
    let place = Place::new();
    let application = filled(&place, 4096, "none", "wal");
    let expected = number(&application, DIGEST);
    let crashed = place.crashed();
    drop(application);
    let log = sidecar(&crashed.path, "-wal");
    let look = || {
        [&crashed.path, &log].map(|path| {
            let metadata = fs::metadata(path).unwrap();
            let times = (metadata.mtime(), metadata.mtime_nsec());
            (fs::read(path).unwrap(), times, metadata.ino())
        })
    };
    let before = look();

    let mut source = crashed.source();
    let image = capture(&mut source, FreeLeaves::Zeroed);
    assert_eq!(source.wal_bytes(), before[1].0.len() as u64);
    assert!(0 < source.facts().log_frames);
    drop(source);

    assert!(before[0].0.len() < image.len());
    assert_eq!(number(&opened(&image).1, DIGEST), expected);
    assert!(look() == before, "the database or its log has changed");
}

#[test]
fn log_that_lost_committed_frames_is_damage() {
    let place = Place::new();
    let _application = filled(&place, 1024, "none", "wal");
    let log = fs::OpenOptions::new()
        .write(true)
        .open(sidecar(&place.path, "-wal"))
        .unwrap();
    let mut source = place.source();
    source.pin().unwrap();
    let bytes = 32 + u64::from(source.facts().log_frames) * (24 + 1024);
    assert!(bytes <= source.wal_bytes());

    for len in [bytes - 1, 40, 0] {
        log.set_len(len).unwrap();
        let refusal = source.prepare(FreeLeaves::Zeroed).unwrap_err();
        assert_eq!(refusal.code(), "corrupt", "{len}");
    }
}

#[test]
fn commits_after_the_pin_are_not_in_the_image() {
    let place = Place::new();
    let application = filled(&place, 1024, "none", "wal");
    let expected = number(&application, DIGEST);
    let mut source = place.source();

    source.pin().unwrap();
    assert!(source.is_newest());
    application
        .execute_batch("update t set v = v + 1; pragma wal_checkpoint(passive)")
        .unwrap();
    assert!(!source.is_newest());
    let image = image_of(&mut source, FreeLeaves::Zeroed);
    source.pin().unwrap();
    assert!(source.is_newest());
    let next = image_of(&mut source, FreeLeaves::Zeroed);

    assert_eq!(number(&opened(&image).1, DIGEST), expected);
    assert_eq!(
        number(&opened(&next).1, DIGEST),
        number(&application, DIGEST)
    );
    source.unpin();
    assert!(!source.is_newest());
}

#[test]
fn log_that_begins_anew_while_the_file_is_read_does_no_harm() {
    for prepared in [false, true] {
        let place = Place::new();
        let application = filled(&place, 1024, "none", "wal");
        let expected = number(&application, DIGEST);
        // Everything is copied back, so the reader ignores the log and the next writer restarts it.
        application
            .query_row("pragma wal_checkpoint(passive)", [], |_| Ok(()))
            .unwrap();
        let mut source = place.source();

        source.pin().unwrap();
        assert!(0 < source.facts().log_frames);
        let mut group = vec![0; 8192];
        if prepared {
            source.prepare(FreeLeaves::Exact).unwrap();
            source.read_at(0, &mut group).unwrap();
        }
        let salts = source.facts().log_salts;
        application
            .execute_batch("update t set v = v + 1, b = randomblob(600)")
            .unwrap();
        assert_ne!(
            salts,
            Mark::read(&source.connection, PATIENCE).unwrap().salts,
            "the log did not begin anew"
        );
        let image = image_of(&mut source, FreeLeaves::Zeroed);

        assert!(!source.is_newest());
        assert!(!prepared || image[..8192] == group);
        assert_eq!(number(&opened(&image).1, DIGEST), expected);
        assert!(source.held.as_ref().unwrap().overlay.is_none());
    }
}

#[test]
fn page_size_may_change_between_pins() {
    let place = Place::new();
    let application = filled(&place, 1024, "none", "delete");
    let expected = number(&application, DIGEST);
    let mut source = place.source();

    // An open source, like any connection, keeps a database from leaving its log behind, so the
    // log comes last.
    for (page_bytes, mode) in [(512, "delete"), (8192, "truncate"), (65536, "wal")] {
        application
            .execute_batch(&format!(
                "pragma page_size={page_bytes}; vacuum; pragma journal_mode={mode};
                 update t set v = v + 0"
            ))
            .unwrap();

        let image = capture(&mut source, FreeLeaves::Zeroed);

        assert_eq!(source.facts().page_bytes, page_bytes);
        assert_eq!(source.facts().wal, mode == "wal");
        assert_eq!(number(&opened(&image).1, DIGEST), expected);
    }
}

#[test]
fn empty_file_is_an_empty_database_until_it_is_none() {
    let place = Place::new();
    fs::write(&place.path, b"").unwrap();
    let mut source = place.source();

    assert!(capture(&mut source, FreeLeaves::Zeroed).is_empty());
    assert_eq!(source.facts().pages, 0);
    fs::write(sidecar(&place.path, "-journal"), b"left over").unwrap();
    assert!(capture(&mut source, FreeLeaves::Zeroed).is_empty());
    assert!(sidecar(&place.path, "-journal").exists());
    fs::remove_file(sidecar(&place.path, "-journal")).unwrap();
    let application = filled(&place, 4096, "none", "wal");
    let image = capture(&mut source, FreeLeaves::Zeroed);

    assert_eq!(
        number(&opened(&image).1, DIGEST),
        number(&application, DIGEST)
    );
}

#[test]
fn size_of_files_from_old_versions_is_that_of_the_file() {
    let place = Place::new();
    drop(filled(&place, 1024, "none", "delete"));
    let mut old = place.bytes();
    // A version before 3.7.0 writes the change counter, but neither its copy nor the size.
    old[27] = old[27].wrapping_add(1);
    old[28..32].copy_from_slice(&3u32.to_be_bytes());
    fs::write(&place.path, &old).unwrap();

    let image = capture(&mut place.source(), FreeLeaves::Exact);

    assert_eq!(image, old);
}

#[test]
fn parts_of_pages_read_like_whole_ones() {
    let place = Place::new();
    let _application = filled(&place, 1024, "none", "wal");
    let mut source = place.source();
    let image = capture(&mut source, FreeLeaves::Zeroed);

    source.prepare(FreeLeaves::Zeroed).unwrap();
    for (start, len) in [(1, 1), (1000, 3000), (1024, 1), (5000, 100_000)] {
        let mut part = vec![0xee; len];
        source.read_at(start as u64, &mut part).unwrap();
        assert_eq!(part, image[start..start + len], "{start} {len}");
    }
    let mut part = vec![0xee; 4096];
    source
        .read_at(image.len() as u64 - 1024, &mut part)
        .unwrap();
    assert_eq!(part[..1024], image[image.len() - 1024..]);
    assert!(part[1024..].iter().all(|&byte| byte == 0));
}

#[test]
fn lock_page_is_zero_and_what_follows_is_read() {
    let place = Place::new();
    let application = place.application();
    // Sparse: nothing but the first pages and those around the lock bytes is on the disk.
    application
        .execute_batch("pragma page_size=65536; create table t(b); insert into t values('x')")
        .unwrap();
    drop(application);
    let mut header = place.bytes();
    let pages = (1 << 30) / 65536 + 3u32;
    header[28..32].copy_from_slice(&pages.to_be_bytes());
    let file = fs::OpenOptions::new()
        .write(true)
        .open(&place.path)
        .unwrap();
    use std::os::unix::fs::FileExt;
    file.write_all_at(&header, 0).unwrap();
    file.set_len(u64::from(pages) * 65536).unwrap();
    file.write_all_at(&[7; 3 * 65536], (1 << 30) - 65536)
        .unwrap();
    drop(file);
    let mut source = place.source();

    source.prepare(FreeLeaves::Exact).unwrap();
    let mut part = vec![0xee; 4 * 65536];
    source.read_at((1 << 30) - 65536, &mut part).unwrap();

    assert_eq!(source.facts().pages, u64::from(pages));
    assert_eq!(part[..65536], [7; 65536]);
    assert_eq!(part[65536..2 * 65536], [0; 65536]);
    assert_eq!(part[2 * 65536..3 * 65536], [7; 65536]);
    assert_eq!(part[3 * 65536..], [0; 65536]);
}

#[test]
#[ignore = "writes more than one gigabyte"]
fn database_of_more_than_a_gigabyte_is_captured() {
    let place = Place::new();
    let application = place.application();
    application
        .execute_batch(
            "pragma page_size=65536; pragma journal_mode=wal; pragma synchronous=off;
             create table t(b)",
        )
        .unwrap();
    for _ in 0..9 {
        application
            .execute("insert into t values(zeroblob(?1))", params![130 << 20])
            .unwrap();
    }
    let image = capture(&mut place.source(), FreeLeaves::Zeroed);

    let lock_page = 1 << 30;
    assert!(lock_page < image.len());
    assert!(
        image[lock_page..lock_page + 65536]
            .iter()
            .all(|&byte| byte == 0)
    );
    let (_directory, copy) = opened(&image);
    assert_eq!(number(&copy, "select count(*) from t"), 9);
}

#[test]
fn check_tells_damage_from_what_it_cannot_know() {
    let place = Place::new();
    let application = filled(&place, 1024, "none", "delete");
    let mut damaged = place.bytes();
    let root = number(
        &application,
        "select rootpage from sqlite_schema where name='i'",
    ) as usize;
    damaged[(root - 1) * 1024 + 3] ^= 0x55;

    assert_eq!(quick_check(place.bytes()), Health::Sound);
    assert!(matches!(quick_check(damaged), Health::Damaged(_)));
    assert!(matches!(quick_check(vec![3; 4096]), Health::Damaged(_)));
    application
        .execute_batch(
            "create table c(a text collate nocase); create index ci on c(a);
             insert into c values('x'), ('y');
             pragma writable_schema=on;
             update sqlite_schema set sql = replace(sql, 'nocase', 'owncase')",
        )
        .unwrap();
    assert!(matches!(quick_check(place.bytes()), Health::Unknown(_)));
    assert_eq!(quick_check(Vec::new()), Health::Sound);
}

#[test]
fn library_is_new_enough() {
    assert_eq!(library_version_is_safe(), Ok(()));
}
