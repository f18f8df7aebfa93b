//! Directories of sled: what becomes of them in a backup.
//!
//! What only sled can make is tested if it is built in: `cargo test --features sled sled::`.

use crate::support;
use statekeep::format::database::DatabaseRecord;
use statekeep::format::database::Engine;
use statekeep::format::database::Method;
use statekeep::ops::backup::BackupReport;
use statekeep::repo::Repo;
use statekeep::store::MemoryStore;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

struct Place {
    dir: TempDir,
    repo: Repo,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("cache");
        fs::create_dir(&cache).unwrap();
        fs::create_dir(dir.path().join("app")).unwrap();
        let repo = support::create(Arc::new(MemoryStore::default()), true, Some(&cache));
        Place { dir, repo }
    }

    fn app(&self) -> PathBuf {
        self.dir.path().join("app")
    }

    /// Backs up; nothing private is left behind.
    fn backup(&self) -> BackupReport {
        let report = support::backup(&self.repo, &self.app()).unwrap();
        for entry in fs::read_dir(self.dir.path().join("cache")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(!name.starts_with("statekeep-copy-"), "{name}");
        }
        report
    }

    fn backup_without_warnings(&self) -> BackupReport {
        let report = self.backup();
        assert!(report.warnings.is_empty(), "{:?}", report.warnings);
        report
    }
}

fn only(report: &BackupReport) -> &DatabaseRecord {
    assert_eq!(report.databases.len(), 1, "{:?}", report.databases);
    assert_eq!(report.databases[0].engine, Engine::Sled);
    &report.databases[0]
}

/// What sled 1.0 has in its directory.
fn make_alpha(dir: &Path) {
    fs::create_dir_all(dir.join("slabs")).unwrap();
    let mut cookie = [0; 64];
    (cookie[0], cookie[3], cookie[61]) = (1, 4, 0xaf);
    fs::write(dir.join("durability_cookie"), cookie).unwrap();
    fs::write(dir.join("slabs").join("64"), [7; 640]).unwrap();
}

#[test]
fn a_database_of_sled_1_is_copied_plainly_and_said() {
    let place = Place::new();
    fs::write(place.app().join("first"), b"x").unwrap();
    place.backup_without_warnings();
    make_alpha(&place.app().join("state"));

    for _ in 0..2 {
        let report = place.backup();

        assert_eq!(only(&report).method, Method::PlainFiles);
        assert_eq!(report.warnings.len(), 1, "{:?}", report.warnings);
        assert_eq!(report.warnings[0].path, b"state");
        assert!(report.manifest.partial);
        let model = support::model_in(&place.repo, &report.snapshot.unwrap()).unwrap();
        assert_eq!(model, support::model_of(&place.app()));
    }
}

/// Nothing opens these, so that they need not be of sled. They are when sled is built in.
#[cfg(not(feature = "sled"))]
mod without {
    use super::*;
    use statekeep::format::database::Verdict;

    fn make(dir: &Path) {
        fs::create_dir_all(dir.join("blobs")).unwrap();
        let conf = b"segment_size: 4096\nuse_compression: false\nversion: 0.34\n1234";
        fs::write(dir.join("conf"), conf).unwrap();
        fs::write(dir.join("db"), [3; 10_000]).unwrap();
        fs::write(dir.join("snap.00000000000000A0"), b"snapshot").unwrap();
        fs::write(dir.join("blobs").join("77"), [4; 5000]).unwrap();
    }

    #[test]
    fn a_directory_at_rest_is_exact_though_nothing_could_open_it() {
        for below in ["state", ""] {
            let place = Place::new();
            make(&place.app().join(below));
            fs::write(place.app().join("readme"), b"not of sled").unwrap();

            let report = place.backup_without_warnings();

            let record = only(&report);
            assert_eq!(record.path, below.as_bytes());
            assert_eq!(record.method, Method::PrivateCopy);
            assert_eq!(record.verdict, Verdict::Unchecked);
            assert_eq!((record.page_bytes, record.pages), (4096, 3));
            assert!(!report.manifest.partial);
            let model = support::model_in(&place.repo, &report.snapshot.unwrap()).unwrap();
            assert_eq!(model, support::model_of(&place.app()));
        }
    }

    #[test]
    fn an_unchanged_directory_is_not_read_again_and_a_changed_one_is() {
        let place = Place::new();
        make(&place.app().join("state"));
        let first = place.backup_without_warnings();

        let second = place.backup_without_warnings();
        fs::write(place.app().join("state/blobs/88"), [5; 3000]).unwrap();
        fs::remove_file(place.app().join("state/blobs/77")).unwrap();
        let third = place.backup_without_warnings();

        assert_eq!(second.manifest.figures.read_bytes, 0);
        assert_eq!(second.manifest.tree, first.manifest.tree);
        assert_eq!(second.manifest.databases, first.manifest.databases);
        assert!(third.manifest.figures.read_bytes > 10_000);
        let model = support::model_in(&place.repo, &third.snapshot.unwrap()).unwrap();
        assert_eq!(model, support::model_of(&place.app()));
    }

    #[test]
    fn a_directory_that_comes_later_is_noticed() {
        let place = Place::new();
        fs::write(place.app().join("readme"), b"not of sled").unwrap();
        place.backup_without_warnings();
        make(&place.app().join("state"));

        let report = place.backup_without_warnings();

        assert_eq!(only(&report).method, Method::PrivateCopy);
    }

    #[test]
    fn a_file_that_is_named_conf_is_a_file() {
        let place = Place::new();
        fs::write(place.app().join("conf"), b"segment_size: 12\n").unwrap();

        let report = place.backup_without_warnings();

        assert!(report.databases.is_empty());
    }
}

#[cfg(feature = "sled")]
mod with {
    use super::*;
    use statekeep::format::database::Verdict;
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    fn open(path: &Path) -> sled::Db {
        let config = sled::Config::new().path(path).flush_every_ms(None);
        config.open().unwrap()
    }

    /// A large value is a blob.
    fn write(db: &sled::Db, seq: u64) {
        let len = if seq % 40 == 3 { 600_000 } else { 300 };
        db.insert(seq.to_be_bytes(), vec![seq as u8; len]).unwrap();
        db.insert(b"newest", &seq.to_be_bytes()).unwrap();
    }

    #[test]
    fn an_open_database_at_rest_comes_back_with_what_was_flushed() {
        let place = Place::new();
        let db = open(&place.app().join("state"));
        (0..2000).for_each(|seq| write(&db, seq));
        db.flush().unwrap();

        let report = place.backup_without_warnings();

        let record = only(&report);
        assert_eq!(record.method, Method::PrivateCopy);
        assert_eq!(record.verdict, Verdict::Passed);
        let target = place.dir.path().join("restored");
        support::restore(&place.repo, &report, &target);
        let restored = open(&target.join("state"));
        assert_eq!(restored.checksum().unwrap(), db.checksum().unwrap());
        drop(restored);
        let second = place.backup_without_warnings();
        assert_eq!(second.manifest.figures.read_bytes, 0);
        (2000..2100).for_each(|seq| write(&db, seq));
        db.flush().unwrap();
        let third = place.backup_without_warnings();
        assert_eq!(only(&third).verdict, Verdict::Passed);
    }

    /// A writer that flushes now and then leaves room for an exact copy; one that never rests does
    /// not, and then it is said.
    #[test]
    fn what_is_not_said_to_be_partial_holds_every_flushed_row() {
        for (rest_ms, rounds) in [(200, 6), (0, 2)] {
            let place = Place::new();
            let db = open(&place.app().join("state"));
            let (flushed, stop) = (AtomicU64::new(0), AtomicBool::new(false));
            let keep_writing = || {
                while !stop.load(Ordering::Relaxed) {
                    let start = flushed.load(Ordering::Relaxed);
                    (start..start + 50).for_each(|seq| write(&db, seq));
                    db.flush().unwrap();
                    flushed.store(start + 50, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(rest_ms));
                }
            };
            let mut complete = 0;

            std::thread::scope(|scope| {
                scope.spawn(keep_writing);
                for round in 0..rounds {
                    let floor = flushed.load(Ordering::Relaxed);
                    let report = place.backup();
                    let record = only(&report).clone();

                    assert_eq!(report.manifest.partial, record.method == Method::PlainFiles);
                    if report.manifest.partial {
                        assert_eq!(report.warnings[0].path, b"state");
                        continue;
                    }
                    complete += 1;
                    assert_eq!(record.verdict, Verdict::Passed);
                    let target = place.dir.path().join(format!("restored-{round}"));
                    support::restore(&place.repo, &report, &target);
                    let restored = open(&target.join("state"));
                    for seq in 0..floor {
                        assert!(restored.contains_key(seq.to_be_bytes()).unwrap(), "{seq}");
                    }
                }
                stop.store(true, Ordering::Relaxed);
            });

            assert!(complete > 0 || rest_ms == 0, "no exact copy in a pause");
        }
    }
}
