//! What an application that embeds this library may lend: its own handle of a database.
//!
//! A read transaction of the application keeps redb from taking again any page of the user's trees
//! of the newest commit or a later one. So a walk under it reads them once, however busy the
//! writers are. The pages of the system tree, a few, are kept by nobody: a walk that finds one of
//! them taken begins again at the newest commit. Commits that are not durable are only in memory
//! and are not captured.

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
    fn a_held_database_is_read_once_beside_a_writer_without_pause() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.redb");
        let database = ::redb::Database::create(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        let mut rows = transaction.open_table(ROWS).unwrap();
        (0..100_000).for_each(|key| drop(rows.insert(key, 0).unwrap()));
        drop(rows);
        transaction.commit().unwrap();
        let (commits, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let write = || {
            while !stop.load(Ordering::Relaxed) {
                let seq = commits.load(Ordering::Relaxed) + 1;
                let transaction = database.begin_write().unwrap();
                let mut rows = transaction.open_table(ROWS).unwrap();
                for key in 0..50 {
                    rows.insert(seq.wrapping_mul(0x9e37_79b9 + key) % 100_000, seq)
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
            while passes.len() < 50 || commits.load(Ordering::Relaxed) < 200 {
                let spool = crate::disk::unnamed_file(dir.path()).unwrap();
                let file = File::open(&path).unwrap();
                let mut capture = super::super::Database::open(file, spool).unwrap();
                let held = database.hold().unwrap();
                capture.set_held(true);
                capture.capture(99, u64::MAX, &mut || true).unwrap();
                drop(held);
                let (facts, read_bytes) = (capture.facts(), capture.read_bytes());
                let image_bytes = facts.pages * u64::from(facts.page_bytes);
                assert!(
                    read_bytes < image_bytes + (128 << 10),
                    "{read_bytes} {image_bytes}"
                );
                passes.push(facts.passes);
            }
            stop.store(true, Ordering::Relaxed);
        });

        let at_once = passes.iter().filter(|&&passes| passes == 1).count();
        assert!(passes.len() * 9 < at_once * 10, "{passes:?}");
    }
}
