//! Lets SQLite finish what an application that has ended left in a log or a journal.
//!
//! This changes the database in place, as the next start of the application would. It is no part
//! of a capture (I12 holds for those) and is done only before a database is replaced.

use super::Refusal;
use super::check_sidecars;
use super::locate;
use super::sidecar;
use rusqlite::Connection;
use rusqlite::OpenFlags;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Brings everything that was committed into the file itself, so that nothing beside it matters.
/// SQLite does it in an order that a crash cannot harm. Returns whether there was anything to do.
pub fn merge_log(path: &Path) -> Result<bool, Refusal> {
    let path = locate(path)?;
    check_sidecars(&path)?;
    let left = |suffix| fs::metadata(sidecar(&path, suffix)).is_ok_and(|left| left.len() > 0);
    if !left("-wal") && !left("-journal") {
        return Ok(false);
    }
    let merge = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags)?;
        connection.busy_timeout(Duration::ZERO)?;
        connection.execute_batch("PRAGMA trusted_schema=OFF; PRAGMA mmap_size=0")?;
        // Reading rolls a journal back; the checkpoint does nothing without a log.
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| {
            row.get::<_, i64>(0)
        })?;
        let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
        let busy = connection.query_row(sql, [], |row| row.get::<_, i64>(0))?;
        // Closing as the last one, SQLite removes the log, too.
        connection.close().map_err(|(_, error)| error)?;
        Ok(busy != 0)
    };
    match merge() {
        Ok(false) => Ok(true),
        Ok(true) => Err(Refusal::Busy {
            patience: Duration::ZERO,
        }),
        Err(error) => Err(Refusal::from_error(&error, Duration::ZERO)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_writer_committed_comes_into_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let (live, left) = (directory.path().join("live"), directory.path().join("left"));
        let writer = Connection::open(&live).unwrap();
        let sql = "PRAGMA journal_mode = wal; CREATE TABLE t (x); INSERT INTO t VALUES (1)";
        writer.execute_batch(sql).unwrap();
        for suffix in ["", "-wal"] {
            fs::copy(sidecar(&live, suffix), sidecar(&left, suffix)).unwrap();
        }

        assert_eq!(merge_log(&left), Ok(true));
        assert_eq!(merge_log(&left), Ok(false));

        assert!(!sidecar(&left, "-wal").exists() && !sidecar(&left, "-shm").exists());
        let image = super::super::Image::open(&left).unwrap();
        assert_eq!(image.rows().unwrap(), [("t".to_string(), 1)]);
        // The live one is in use.
        writer.execute_batch("BEGIN; SELECT * FROM t").unwrap();
        assert!(matches!(merge_log(&live), Err(Refusal::Busy { .. })));
    }
}
