//! What is not captured in place, and what becomes of it.

use super::*;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;

const SUM: &str = "select sum(v) from t";

fn small(place: &Place, mode: &str) -> Connection {
    let connection = place.application();
    connection
        .execute_batch(&format!(
            "pragma page_size=1024; pragma journal_mode={mode}; create table t(v int, b blob);
             with recursive c(x) as (select 1 union all select x + 1 from c where x < 300)
               insert into t select x, randomblob(500) from c;"
        ))
        .unwrap();
    connection
}

fn refusal(place: &Place) -> Refusal {
    let patience = Duration::from_millis(50);
    match Database::open(&place.path, patience).and_then(|mut source| source.pin()) {
        Ok(()) => panic!("not refused"),
        Err(refusal) => refusal,
    }
}

/// A database whose writer died after part of a transaction had reached the file.
fn torn() -> Place {
    let place = Place::new();
    let application = small(&place, "delete");
    application
        .execute_batch(
            "pragma synchronous=full; pragma cache_size=5; begin;
             update t set v = v + 1000, b = randomblob(500)",
        )
        .unwrap();
    place.crashed()
}

/// The names, modes and bytes of everything next to a database.
fn surroundings(place: &Place) -> Vec<(PathBuf, u32, Vec<u8>)> {
    let mut all: Vec<_> = fs::read_dir(place.directory.path())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| {
            let mode = entry.metadata().unwrap().permissions().mode();
            (entry.path(), mode, fs::read(entry.path()).unwrap())
        })
        .collect();
    all.sort();
    all
}

#[test]
fn what_is_no_database_is_told_from_a_damaged_one() {
    let place = Place::new();
    drop(small(&place, "delete"));
    let sound = place.bytes();
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = sound.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        fs::write(&place.path, changed).unwrap();
        refusal(&place).code()
    };

    assert_eq!(with(0, &[0x5a; 1024]), "not-a-database");
    assert_eq!(with(16, &[3, 0]), "corrupt", "page size");
    assert_eq!(with(16, &[2, 0, 1, 1, 255]), "corrupt", "room in a page");
    assert_eq!(
        with(28, &[0, 1, 0, 0]),
        "corrupt",
        "more pages than the file has"
    );
    assert_eq!(with(21, &[1, 2, 3]), "corrupt", "payload fractions");
    fs::write(&place.path, "just text").unwrap();
    assert_eq!(refusal(&place).code(), "not-a-database");
    fs::write(&place.path, &sound[..700]).unwrap();
    assert_eq!(refusal(&place).code(), "corrupt");
    fs::remove_file(&place.path).unwrap();
    assert_eq!(refusal(&place).code(), "unreadable");
    fs::create_dir(&place.path).unwrap();
    assert_eq!(refusal(&place).code(), "unreadable");
}

#[test]
fn exclusive_locks_make_it_busy() {
    for mode in ["delete", "wal"] {
        let place = Place::new();
        let application = small(&place, mode);
        application
            .execute_batch("pragma locking_mode=exclusive; begin exclusive; update t set v = 0")
            .unwrap();
        if mode == "wal" {
            // A log that is in use must be left before it can be had alone.
            application
                .execute_batch(
                    "commit; pragma journal_mode=delete; pragma journal_mode=wal;
                                begin immediate; update t set v = 1",
                )
                .unwrap();
        }

        let refusal = refusal(&place);

        assert_eq!(refusal.code(), "busy", "{mode}");
        assert!(refusal.to_string().contains("50 ms"), "{refusal}");
    }
}

#[test]
fn transaction_of_a_live_writer_is_neither_waited_for_nor_seen() {
    for mode in ["delete", "truncate", "persist", "wal"] {
        let place = Place::new();
        let application = small(&place, mode);
        let expected = number(&application, SUM);
        application
            .execute_batch("begin immediate; update t set v = 0 where v < 10")
            .unwrap();
        assert_eq!(
            sidecar(&place.path, "-journal").exists(),
            mode != "wal",
            "{mode}"
        );
        let mut source = place.source();

        let image = capture(&mut source, FreeLeaves::Zeroed);

        assert_eq!(number(&opened(&image).1, SUM), expected, "{mode}");
        application.execute_batch("commit").unwrap();
    }
}

#[test]
fn held_state_keeps_commits_out_without_a_log() {
    let place = Place::new();
    let application = small(&place, "delete");
    application.busy_timeout(Duration::ZERO).unwrap();
    let mut source = place.source();

    source.pin().unwrap();
    assert!(application.execute_batch("update t set v = 0").is_err());
    assert!(source.is_newest());
    source.unpin();
    application.execute_batch("update t set v = 0").unwrap();

    let image = capture(&mut source, FreeLeaves::Zeroed);
    assert_eq!(number(&opened(&image).1, SUM), 0);
}

#[test]
fn torn_database_is_recovered_on_a_copy_only() {
    let place = torn();
    let before = surroundings(&place);

    assert_eq!(
        refusal(&place),
        Refusal::NeedsCopy {
            why: Obstacle::HotJournal
        }
    );
    let mut source = Database::open_copy(&place.path, &place.room(), PATIENCE).unwrap();
    let copies: Vec<_> = fs::read_dir(place.room()).unwrap().collect();
    let copy = copies[0].as_ref().unwrap();
    assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    for file in fs::read_dir(copy.path()).unwrap() {
        let mode = file.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let image = capture(&mut source, FreeLeaves::Zeroed);
    assert!(source.is_copy());
    drop(source);

    assert_eq!(number(&opened(&image).1, SUM), 300 * 301 / 2);
    assert_eq!(surroundings(&place), before);
    assert_eq!(fs::read_dir(place.room()).unwrap().count(), 0);
}

#[test]
fn journal_of_many_files_counts_while_its_super_journal_is_there() {
    for exists in [false, true] {
        let place = torn();
        let name = sidecar(&place.path, "-mj0123456789");
        if exists {
            fs::write(&name, b"another.db-journal\0").unwrap();
        }
        let bytes = name.as_os_str().as_encoded_bytes();
        let sum = bytes.iter().map(|&byte| u32::from(byte)).sum::<u32>();
        let mut journal = fs::OpenOptions::new()
            .append(true)
            .open(sidecar(&place.path, "-journal"))
            .unwrap();
        let mut record = ((1u32 << 30) / 1024 + 1).to_be_bytes().to_vec();
        record.extend(bytes);
        record.extend((bytes.len() as u32).to_be_bytes());
        record.extend(sum.to_be_bytes());
        record.extend([0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7]);
        journal.write_all(&record).unwrap();
        let before = surroundings(&place);

        let mut source = Database::open_copy(&place.path, &place.room(), PATIENCE).unwrap();
        let image = capture(&mut source, FreeLeaves::Exact);
        drop(source);

        assert_eq!(surroundings(&place), before);
        if exists {
            assert_eq!(number(&opened(&image).1, SUM), 300 * 301 / 2);
        } else {
            // As SQLite sees it, the transaction was committed: the file is what it is.
            assert_eq!(image, place.bytes());
        }
    }
}

#[test]
fn log_without_shared_memory_needs_a_copy() {
    let place = Place::new();
    let application = small(&place, "wal");
    let expected = number(&application, SUM);
    let crashed = place.crashed();
    fs::create_dir(sidecar(&crashed.path, "-shm")).unwrap();

    assert_eq!(
        refusal(&crashed),
        Refusal::NeedsCopy {
            why: Obstacle::NoSharedMemory
        }
    );
    let mut source = Database::open_copy(&crashed.path, &crashed.room(), PATIENCE).unwrap();
    let image = capture(&mut source, FreeLeaves::Zeroed);

    assert!(source.facts().wal);
    assert_eq!(number(&opened(&image).1, SUM), expected);
}

#[test]
fn log_of_an_empty_file_is_not_deleted() {
    let place = Place::new();
    drop(small(&place, "wal"));
    fs::write(&place.path, b"").unwrap();
    let log = fs::read(sidecar(&place.path, "-wal")).unwrap();

    assert_eq!(
        refusal(&place),
        Refusal::NeedsCopy {
            why: Obstacle::OrphanedLog
        }
    );
    let mut source = Database::open_copy(&place.path, &place.room(), PATIENCE).unwrap();
    assert!(capture(&mut source, FreeLeaves::Zeroed).is_empty());
    assert_eq!(fs::read(sidecar(&place.path, "-wal")).unwrap(), log);
}

/// Nothing is denied to the superuser, so these need another one.
fn is_superuser() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn log_in_a_directory_that_cannot_be_written_needs_a_copy() {
    if is_superuser() {
        return;
    }
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    for (what, suffixes) in [
        ("no log", &[][..]),
        ("no index", &["-wal"]),
        ("an index nobody keeps", &["-wal", "-shm"]),
    ] {
        let place = Place::new();
        let application = small(&place, "wal");
        let expected = number(&application, SUM);
        if suffixes.is_empty() {
            application
                .query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(()))
                .unwrap();
        }
        let room = TempDir::new().unwrap();
        let crashed = place.crashed();
        for suffix in ["-wal", "-shm"] {
            if !suffixes.contains(&suffix) {
                let _ = fs::remove_file(sidecar(&crashed.path, suffix));
            } else if suffix == "-shm" {
                fs::copy(sidecar(&place.path, "-shm"), sidecar(&crashed.path, "-shm")).unwrap();
                mode(&sidecar(&crashed.path, "-shm"), 0o444);
            }
        }
        mode(crashed.directory.path(), 0o555);

        let refusal = refusal(&crashed);
        let copy = Database::open_copy(&crashed.path, room.path(), PATIENCE);

        mode(crashed.directory.path(), 0o755);
        assert_eq!(refusal.code(), "needs-copy", "{what}: {refusal}");
        let image = capture(&mut copy.unwrap(), FreeLeaves::Zeroed);
        assert_eq!(number(&opened(&image).1, SUM), expected, "{what}");
    }
}

#[test]
fn sidecar_that_is_no_file_is_not_opened() {
    for suffix in ["-journal", "-wal"] {
        let place = Place::new();
        drop(small(&place, "delete"));
        let pipe = sidecar(&place.path, suffix);
        let mode = rustix::fs::Mode::RWXU;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();

        assert_eq!(refusal(&place).code(), "unreadable");
        let copy = Database::open_copy(&place.path, &place.room(), PATIENCE);
        assert_eq!(copy.err().unwrap().code(), "unreadable");
    }
}

#[test]
fn replaced_database_is_noticed() {
    let place = Place::new();
    drop(small(&place, "delete"));
    let mut source = place.source();
    let bytes = place.bytes();
    let other = sidecar(&place.path, ".new");
    fs::write(&other, bytes).unwrap();
    fs::rename(&other, &place.path).unwrap();

    assert_eq!(source.pin(), Err(Refusal::Changed));
    assert_eq!(place.source().pin(), Ok(()));
}

#[test]
fn database_that_nobody_has_open_gets_no_leftovers_but_its_own() {
    for mode in ["delete", "wal"] {
        let place = Place::new();
        let application = place.application();
        application
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)
            .unwrap();
        application
            .execute_batch(&format!("pragma journal_mode={mode}; create table t(v)"))
            .unwrap();
        drop(application);
        fs::set_permissions(&place.path, fs::Permissions::from_mode(0o640)).unwrap();
        let before = surroundings(&place);
        assert_eq!(before.len(), 1);

        let image = capture(&mut place.source(), FreeLeaves::Exact);

        let after = surroundings(&place);
        assert_eq!(after[0], before[0], "{mode}");
        assert_eq!(image, before[0].2, "{mode}");
        for (path, mode, bytes) in &after[1..] {
            assert_eq!(mode & 0o777, 0o640, "{}", path.display());
            assert!(bytes.is_empty() || path.to_string_lossy().ends_with("-shm"));
        }
        if mode == "delete" {
            assert_eq!(after.len(), 1);
        }
    }
}

#[test]
fn nothing_is_read_while_no_state_is_held() {
    let place = Place::new();
    drop(small(&place, "delete"));
    let mut source = place.source();

    assert!(source.read_at(0, &mut [0; 512]).is_err());
    source.pin().unwrap();
    assert!(source.read_at(0, &mut [0; 512]).is_err());
    source.prepare(FreeLeaves::Exact).unwrap();
    assert!(source.read_at(0, &mut [0; 512]).is_ok());
    source.unpin();
    assert!(source.read_at(0, &mut [0; 512]).is_err());
}

#[test]
fn a_copy_takes_no_more_than_half_of_what_is_free() {
    let place = torn();
    let journal = fs::OpenOptions::new()
        .write(true)
        .open(sidecar(&place.path, "-journal"))
        .unwrap();
    journal.set_len(1 << 43).unwrap();

    let copied = Database::open_copy(&place.path, &place.room(), PATIENCE).map(drop);

    assert!(matches!(copied, Err(Refusal::NoRoom { .. })), "{copied:?}");
}

#[test]
fn what_a_path_led_to_can_be_told_from_what_it_leads_to() {
    let (place, other) = (Place::new(), Place::new());
    small(&place, "wal");
    small(&other, "wal");
    let inode = |place: &Place| {
        let stat = fs::metadata(&place.path).unwrap();
        (stat.dev(), stat.ino())
    };
    let (device, found) = inode(&place);
    fs::rename(&place.path, place.directory.path().join("aside")).unwrap();
    std::os::unix::fs::symlink(&other.path, &place.path).unwrap();

    let mut source = Database::open(&place.path, PATIENCE).unwrap();
    source.pin().unwrap();

    assert!(!source.is_file(device, found));
    assert!(source.is_file(device, inode(&other).1));
}
