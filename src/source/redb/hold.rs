//! What an application that embeds this library may lend: its own handle of a database.
//!
//! A read transaction of the application keeps redb from taking again any page of the newest
//! commit or a later one. So a walk under it comes to its end at the first attempt, however busy
//! the writers are. Commits that are not durable are only in memory and are not captured.

use std::any::Any;
use std::fmt::Debug;
use std::io;

/// Keeps the pages of a database where they are for a while.
pub trait Hold: Debug {
    /// Begins to hold. It ends when what is returned is dropped.
    fn hold(&self) -> io::Result<Box<dyn Any>>;
}

impl Hold for ::redb::Database {
    fn hold(&self) -> io::Result<Box<dyn Any>> {
        use ::redb::ReadableDatabase;
        let transaction = self.begin_read().map_err(io::Error::other)?;
        Ok(Box::new(transaction))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::redb::TableDefinition;
    use std::fs::File;
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering;

    const ROWS: TableDefinition<u64, u64> = TableDefinition::new("rows");

    #[test]
    fn a_held_database_is_captured_in_one_pass_beside_a_writer_without_pause() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.redb");
        let database = ::redb::Database::create(&path).unwrap();
        let (commits, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let write = || {
            while !stop.load(Ordering::Relaxed) {
                let seq = commits.load(Ordering::Relaxed) + 1;
                let transaction = database.begin_write().unwrap();
                let mut rows = transaction.open_table(ROWS).unwrap();
                for key in 0..50 {
                    rows.insert(seq.wrapping_mul(0x9e37_79b9 + key) % 20_000, seq)
                        .unwrap();
                }
                drop(rows);
                transaction.commit().unwrap();
                commits.store(seq, Ordering::Relaxed);
            }
        };

        let mut passes = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(write);
            while passes.len() < 50 {
                let spool = crate::disk::unnamed_file(dir.path()).unwrap();
                let file = File::open(&path).unwrap();
                let mut capture = super::super::Database::open(file, spool).unwrap();
                let held = database.hold().unwrap();
                capture.capture(9, u64::MAX, &mut || true).unwrap();
                drop(held);
                passes.push(capture.facts().passes);
            }
            stop.store(true, Ordering::Relaxed);
        });

        assert_eq!(passes, [1; 50]);
        assert!(commits.load(Ordering::Relaxed) > 50);
    }
}
