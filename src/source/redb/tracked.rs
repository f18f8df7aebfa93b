//! A storage backend for applications that embed this library: passes everything on to another
//! one, and keeps in a bitmap which pages were written since somebody asked.
//!
//! Invariant: whoever takes the changes and then reads the file finds each page either as it was
//! written before, or among the changes taken next. Hence a write is noted after it was made.

use ::redb::BackendError;
use ::redb::StorageBackend;
use std::io;
use std::ops::Bound;
use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

/// Bytes that one bit stands for: the smallest page of redb.
const PAGE_BYTES: u64 = 4096;

/// A backend whose writes are noted.
#[derive(Debug)]
pub struct Tracked<B> {
    inner: B,
    tracker: Tracker,
}

/// What was written through one backend. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Tracker {
    pages: Arc<Mutex<Vec<u64>>>,
}

impl<B> Tracked<B> {
    /// Wraps a backend. redb takes the backend away, so what tells the changes comes beside it.
    pub fn new(inner: B) -> (Tracked<B>, Tracker) {
        let tracker = Tracker::default();
        let tracked = Tracked {
            inner,
            tracker: tracker.clone(),
        };
        (tracked, tracker)
    }
}

impl Tracker {
    /// Returns the ranges written since the last call, whole pages in ascending order, and forgets
    /// them. All bytes that were ever written count, whether or not redb made them a commit.
    pub fn take_changes(&self) -> Vec<Range<u64>> {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let words = std::mem::take(&mut *pages);
        drop(pages);
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for (at, word) in words.into_iter().enumerate() {
            for bit in (0..64).filter(|bit| word & 1 << bit != 0) {
                let start = (at as u64 * 64 + bit) * PAGE_BYTES;
                match ranges.last_mut() {
                    Some(last) if last.end == start => last.end += PAGE_BYTES,
                    _ => ranges.push(start..start + PAGE_BYTES),
                }
            }
        }
        ranges
    }

    /// Returns true if nothing was written since the changes were taken.
    pub fn is_clean(&self) -> bool {
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.is_empty()
    }

    fn note(&self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        for page in range.start / PAGE_BYTES..=(range.end - 1) / PAGE_BYTES {
            let word = (page / 64) as usize;
            if pages.len() <= word {
                pages.resize(word + 1, 0);
            }
            pages[word] |= 1 << (page % 64);
        }
    }
}

/// The lock methods are passed on too: without them redb would take the file for one that cannot
/// be locked.
impl<B: StorageBackend> StorageBackend for Tracked<B> {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let before = self.inner.len()?;
        let result = self.inner.set_len(len);
        self.tracker.note(before.min(len)..before.max(len));
        result
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        // Half of it may be there although it failed.
        let result = self.inner.write(offset, data);
        self.tracker.note(offset..offset + data.len() as u64);
        result
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::redb::ReadableDatabase;
    use ::redb::TableDefinition;
    use ::redb::backends::FileBackend;
    use std::fs::OpenOptions;
    use std::path::Path;

    const ROWS: TableDefinition<u64, &[u8]> = TableDefinition::new("rows");

    fn open(path: &Path) -> (Result<::redb::Database, ::redb::DatabaseError>, Tracker) {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let backend = FileBackend::new(options.open(path).unwrap()).unwrap();
        let (tracked, tracker) = Tracked::new(backend);
        let opened = ::redb::Database::builder().create_with_backend(tracked);
        (opened, tracker)
    }

    fn write(database: &::redb::Database, key: u64) {
        let transaction = database.begin_write().unwrap();
        let mut rows = transaction.open_table(ROWS).unwrap();
        rows.insert(key, &[key as u8; 600][..]).unwrap();
        drop(rows);
        transaction.commit().unwrap();
    }

    #[test]
    fn only_the_changes_since_the_last_call_make_an_old_copy_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.redb");
        let (database, tracker) = open(&path);
        let database = database.unwrap();
        (0..3000).for_each(|key| write(&database, key));

        assert!(!tracker.is_clean());
        tracker.take_changes();
        let mut copy = std::fs::read(&path).unwrap();
        for round in 0..20 {
            assert!(tracker.is_clean());
            (0..5).for_each(|key| write(&database, round * 100 + key));
            let now = std::fs::read(&path).unwrap();
            let changes = tracker.take_changes();
            copy.resize(now.len(), 0);
            let mut changed_bytes = 0;
            for range in changes {
                let range = range.start as usize..(range.end as usize).min(now.len());
                changed_bytes += range.len();
                copy[range.clone()].copy_from_slice(&now[range]);
            }

            assert!(copy == now);
            assert!(changed_bytes < now.len() / 4, "{changed_bytes}");
        }
        let read = database.begin_read().unwrap();
        assert!(read.open_table(ROWS).unwrap().get(1901).unwrap().is_some());
        assert!(tracker.is_clean());
    }

    #[test]
    fn a_tracked_file_is_locked_like_any_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.redb");

        let first = open(&path).0.unwrap();
        let second = open(&path).0;
        let plain = ::redb::Database::open(&path);

        assert!(matches!(
            second,
            Err(::redb::DatabaseError::DatabaseAlreadyOpen)
        ));
        assert!(matches!(
            plain,
            Err(::redb::DatabaseError::DatabaseAlreadyOpen)
        ));
        drop(first);
        open(&path).0.unwrap();
    }
}
