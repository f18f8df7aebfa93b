//! SQLite databases cut into groups or by content: what comes back, and what it costs.

use crate::support;
use crate::support::Seeded;
use rusqlite::Connection;
use statekeep::format::pack::ChunkKind;
use statekeep::format::pack::Row;
use statekeep::ops::backup;
use statekeep::ops::backup::BackupOptions;
use statekeep::ops::backup::DatabaseCuts;
use statekeep::ops::backup::FreePages;
use statekeep::repo::Repo;
use statekeep::repo::chunks::Chunks;
use statekeep::store::MemoryStore;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

const CUTS: [DatabaseCuts; 2] = [DatabaseCuts::Groups, DatabaseCuts::Content];

/// One database, backed up into a repository of its own.
struct Series {
    dir: TempDir,
    /// Goes with the repository.
    _cache: TempDir,
    repo: Repo,
}

impl Series {
    fn new(pragmas: &str) -> Series {
        let (dir, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let repo = support::create(Arc::new(MemoryStore::new()), false, Some(cache.path()));
        let series = Series {
            dir,
            _cache: cache,
            repo,
        };
        series.change(&format!(
            "{pragmas}; CREATE TABLE a (id INTEGER PRIMARY KEY, body TEXT);
             CREATE TABLE b (id INTEGER PRIMARY KEY, body TEXT)"
        ));
        series.fill("a", 2 << 20);
        series.fill("b", 8 << 20);
        series
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("app.db")
    }

    fn change(&self, sql: &str) {
        let conn = Connection::open(self.path()).unwrap();
        conn.execute_batch(sql).unwrap();
    }

    fn fill(&self, table: &str, bytes: usize) {
        let mut random = Seeded::new(bytes as u64);
        let mut conn = Connection::open(self.path()).unwrap();
        let all = conn.transaction().unwrap();
        let sql = format!("INSERT INTO {table} (body) VALUES (?)");
        (0..bytes / 200).for_each(|_| {
            let body = String::from_utf8(random.text(190)).unwrap();
            all.execute(&sql, [body]).unwrap();
        });
        all.commit().unwrap();
    }

    /// Backs up, compares what the snapshot holds, and returns the bytes stored.
    fn backup(&self, database_cuts: DatabaseCuts) -> u64 {
        let options = BackupOptions {
            database_cuts,
            free_pages: FreePages::Exact,
            ..support::options(self.dir.path())
        };
        let report = backup::backup(&support::context(), &self.repo, &options).unwrap();
        assert!(report.warnings.is_empty(), "{:?}", report.warnings);
        let stored = support::model_in(&self.repo, &report.snapshot.unwrap()).unwrap();
        let (_, _, bytes) = &stored[&b"app.db"[..]];
        assert!(
            *bytes == fs::read(self.path()).unwrap(),
            "{database_cuts:?}"
        );
        report.manifest.figures.stored_bytes
    }

    /// Returns all chunks of data that are longer than what is known of databases.
    fn chunks(&self) -> Vec<Row> {
        let state = self.repo.read_state(&support::context()).unwrap();
        let chunks = Chunks::open(&self.repo, &state.packs).unwrap();
        let tables = state.packs.keys().map(|pack| chunks.table(pack).unwrap());
        let is_data = |row: &Row| row.encoding.kind == ChunkKind::Data && row.plain_bytes > 512;
        tables.flatten().filter(is_data).collect()
    }
}

/// In rollback mode what is read goes through a spool, with a log it does not.
#[test]
fn every_version_comes_back_while_the_cuts_change_from_backup_to_backup() {
    for pragmas in [
        "PRAGMA page_size = 4096; PRAGMA journal_mode = wal",
        "PRAGMA page_size = 65536; PRAGMA journal_mode = delete",
    ] {
        for first in [0, 1] {
            let series = Series::new(pragmas);
            let whole = series.backup(CUTS[first]);

            for step in 1..7_usize {
                series.change(&format!(
                    "UPDATE b SET body = 'step {step} ' || body WHERE id % 97 = {step}"
                ));
                let stored = series.backup(CUTS[(first + step.div_ceil(2)) % 2]);
                assert!(stored < whole, "{pragmas}: step {step} stored {stored}");
            }
            series.change("DELETE FROM a; VACUUM");
            CUTS.iter().for_each(|&cuts| {
                series.backup(cuts);
            });
        }
    }
}

#[test]
fn content_cuts_lie_between_pages() {
    let series = Series::new("PRAGMA page_size = 8192");

    series.backup(DatabaseCuts::Content);

    let lengths: Vec<_> = series.chunks().iter().map(|row| row.plain_bytes).collect();
    assert!(lengths.len() > 10);
    assert!(lengths.iter().all(|bytes| bytes % 8192 == 0), "{lengths:?}");
    assert!(lengths.iter().any(|&bytes| bytes != lengths[0]));
}

/// Table leaves hold no page numbers: VACUUM moves those of `b` to the front as they are.
#[test]
fn pages_that_move_together_keep_their_chunks_if_cut_by_content() {
    let stored = CUTS.map(|cuts| {
        let series = Series::new("PRAGMA page_size = 4096");
        let whole = series.backup(cuts);
        series.change("DROP TABLE a; VACUUM");
        (whole, series.backup(cuts))
    });

    let [(_, in_groups), (whole, by_content)] = stored;
    assert!(by_content < whole / 3, "{stored:?}");
    assert!(by_content < in_groups / 2, "{stored:?}");
}

/// Later runs would lean on what was there before, and pay for it again.
#[test]
fn a_chunk_that_kept_little_of_what_it_was_is_stored_whole() {
    for (replaced, deltas_expected) in [(4, true), (9, false)] {
        let series = Series::new("PRAGMA page_size = 4096");
        series.backup(DatabaseCuts::Groups);

        series.change(&format!(
            "UPDATE b SET body = hex(randomblob(95)) WHERE id % 10 < {replaced}"
        ));
        series.backup(DatabaseCuts::Groups);

        let (whole, deltas): (Vec<_>, Vec<_>) =
            series.chunks().into_iter().partition(|row| row.height == 0);
        let is_expected = match deltas_expected {
            true => deltas.len() > 25,
            false => whole.len() > 60 && deltas.len() < 5,
        };
        assert!(
            is_expected,
            "{} whole, {} deltas",
            whole.len(),
            deltas.len()
        );
    }
}
