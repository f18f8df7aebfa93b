//! Files that older versions of redb wrote: captured if their format can be, else said and copied.

use crate::support;
use statekeep::ops::restore;
use statekeep::ops::restore::RestoreOptions;
use statekeep::repo::Repo;
use statekeep::repo::chunks::Chunks;
use statekeep::store::MemoryStore;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

/// Writes, reads back and checks a table by a version of redb; each has types of its own.
macro_rules! version {
    ($name:ident, $redb:ident, [$($also:ident),*]) => {
        mod $name {
            use $redb::*;
            use std::path::Path;

            const ROWS: TableDefinition<u64, &str> = TableDefinition::new("rows");
            const LISTS: MultimapTableDefinition<&str, u64> = MultimapTableDefinition::new("lists");

            pub(super) fn fill(database: &Database) {
                for commit in 0..5 {
                    let write = database.begin_write().unwrap();
                    for row in 0..400 {
                        let (row, text) = (row * 7 + commit, "text ".repeat(row as usize % 40));
                        write.open_table(ROWS).unwrap().insert(row, &*text).unwrap();
                    }
                    for value in 0..900 {
                        let mut lists = write.open_multimap_table(LISTS).unwrap();
                        lists.insert("one", value * commit).unwrap();
                    }
                    write.commit().unwrap();
                }
            }

            /// Returns the number of rows and of values, and checks the whole file.
            pub(super) fn read(path: &Path) -> (u64, u64) {
                let mut database = Database::open(path).unwrap();
                assert!(database.check_integrity().unwrap());
                let read = database.begin_read().unwrap();
                let rows = read.open_table(ROWS).unwrap().len().unwrap();
                let lists = read.open_multimap_table(LISTS).unwrap().len().unwrap();
                (rows, lists)
            }

            $(use $redb::$also;)*
        }
    };
}

version!(two, redb_2, [ReadableTableMetadata]);
version!(three, redb_3, [ReadableDatabase, ReadableTableMetadata]);
version!(four, redb, [ReadableDatabase, ReadableTableMetadata]);

struct Place {
    dir: TempDir,
    repo: Repo,
}

impl Place {
    fn new() -> Place {
        Place {
            dir: TempDir::new().unwrap(),
            repo: support::create(Arc::new(MemoryStore::new()), true, None),
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("app.redb")
    }

    /// Backs up and restores; returns the codes of warnings and the restored file.
    fn through(&self) -> (Vec<&'static str>, TempDir) {
        let report = support::backup(&self.repo, self.dir.path()).unwrap();
        let target = TempDir::new().unwrap();
        let state = self.repo.read_state(&support::context()).unwrap();
        let chunks = Chunks::open(&self.repo, &state.packs).unwrap();
        let options = RestoreOptions::new(target.path());
        let (cx, manifest) = (support::context(), &report.manifest);
        let plan = restore::plan(&cx, &chunks, manifest, &options).unwrap();
        restore::apply(&cx, &chunks, manifest, &options, &plan).unwrap();
        let codes = report.warnings.iter().map(|warning| warning.code);
        (codes.collect(), target)
    }
}

fn restored(target: &TempDir) -> PathBuf {
    target.path().join("app.redb")
}

#[test]
fn files_of_every_version_that_writes_the_present_format_are_captured() {
    type Case = (fn(&Path), fn(&Path) -> (u64, u64));
    let cases: [Case; 3] = [
        (
            |path| {
                let mut builder = redb_2::Builder::new();
                let builder = builder.create_with_file_format_v3(true);
                two::fill(&builder.create(path).unwrap());
            },
            two::read,
        ),
        (
            |path| three::fill(&redb_3::Database::create(path).unwrap()),
            three::read,
        ),
        (
            |path| four::fill(&redb::Database::create(path).unwrap()),
            four::read,
        ),
    ];
    for (make, read) in cases {
        let place = Place::new();
        make(&place.path());

        let (warnings, target) = place.through();

        assert!(warnings.is_empty(), "{warnings:?}");
        let counts = read(&restored(&target));
        assert_eq!(counts, read(&place.path()));
        assert_eq!(
            counts,
            four::read(&restored(&target)),
            "by the newest version too"
        );
    }
}

#[test]
fn a_file_of_an_older_format_is_said_to_be_one_and_comes_back_byte_by_byte() {
    let place = Place::new();
    two::fill(&redb_2::Database::create(place.path()).unwrap());

    let (warnings, target) = place.through();

    assert_eq!(warnings, ["old-format"]);
    let (live, copy) = (fs::read(place.path()), fs::read(restored(&target)));
    assert_eq!(live.unwrap(), copy.unwrap());
    assert_eq!(two::read(&restored(&target)), two::read(&place.path()));
}
