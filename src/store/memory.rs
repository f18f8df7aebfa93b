//! A store in memory: the reference for what a store does, and a fast one for tests.

use super::Folder;
use super::Key;
use super::Listed;
use super::Put;
use super::Store;
use crate::context::Clock;
use crate::context::SystemClock;
use crate::error::Result;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// A store in memory.
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    objects: Mutex<BTreeMap<Key, Object>>,
}

struct Object {
    bytes: Vec<u8>,
    modified_ns: i64,
}

impl MemoryStore {
    /// Returns an empty store that goes by the system's clock.
    pub fn new() -> MemoryStore {
        MemoryStore::with_clock(Arc::new(SystemClock))
    }

    /// Returns an empty store that stamps its objects by this clock.
    pub fn with_clock(clock: Arc<dyn Clock>) -> MemoryStore {
        MemoryStore {
            clock,
            objects: Mutex::default(),
        }
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<Key, Object>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryStore {
    fn default() -> MemoryStore {
        MemoryStore::new()
    }
}

impl Store for MemoryStore {
    fn put_new(&self, key: &Key, bytes: &[u8]) -> Result<Put> {
        match self.objects().entry(key.clone()) {
            Entry::Occupied(_) => Ok(Put::Taken),
            Entry::Vacant(vacant) => {
                vacant.insert(Object {
                    bytes: bytes.to_vec(),
                    modified_ns: self.clock.now().0,
                });
                Ok(Put::Created)
            }
        }
    }

    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>> {
        Ok(self.objects().get(key).map(|object| object.bytes.clone()))
    }

    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Vec<u8>>> {
        let at = |offset| usize::try_from(offset).unwrap_or(usize::MAX);
        Ok(self.objects().get(key).map(|object| {
            let end = at(range.end).min(object.bytes.len());
            let start = at(range.start).min(end);
            object.bytes[start..end].to_vec()
        }))
    }

    fn stored_bytes(&self, key: &Key) -> Result<Option<u64>> {
        let objects = self.objects();
        Ok(objects.get(key).map(|object| object.bytes.len() as u64))
    }

    fn list(&self, folder: Folder) -> Result<Vec<Listed>> {
        let objects = self.objects();
        let in_folder = objects.iter().filter(|(key, _)| key.folder == folder);
        let rows = in_folder.map(|(key, object)| Listed {
            name: key.name.clone(),
            stored_bytes: object.bytes.len() as u64,
            modified_ns: object.modified_ns,
        });
        Ok(rows.collect())
    }

    fn delete(&self, key: &Key) -> Result<()> {
        self.objects().remove(key);
        Ok(())
    }

    fn sync(&self, _: Folder) -> Result<()> {
        Ok(())
    }

    fn location(&self) -> String {
        "memory".into()
    }
}
