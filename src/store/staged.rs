//! A store over another one that takes what is new for itself: what is put here is seen here, and
//! is gone with it. The store below is only read.

use super::Folder;
use super::Key;
use super::Listed;
use super::Put;
use super::Store;
use crate::disk::unnamed_file;
use crate::error::Error;
use crate::error::Result;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// The store above.
pub struct StagedStore {
    below: Arc<dyn Store>,
    /// All objects, one after the other; nobody else sees it, and no crash leaves it.
    file: File,
    room: PathBuf,
    objects: Mutex<Objects>,
}

#[derive(Default)]
struct Objects {
    places: BTreeMap<Key, Range<u64>>,
    end: u64,
}

impl StagedStore {
    /// Begins with what is below, and room for more in this directory.
    pub fn over(below: Arc<dyn Store>, room: &Path) -> Result<StagedStore> {
        Ok(StagedStore {
            below,
            file: unnamed_file(room)?,
            room: room.to_path_buf(),
            objects: Mutex::default(),
        })
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, key: &Key) -> Option<Range<u64>> {
        self.objects().places.get(key).cloned()
    }

    fn read(&self, place: Range<u64>) -> Result<Vec<u8>> {
        let mut bytes = vec![0; (place.end - place.start) as usize];
        let read = self.file.read_exact_at(&mut bytes, place.start);
        read.map_err(Error::io("read", self.room.join("(a file without a name)")))?;
        Ok(bytes)
    }
}

impl Store for StagedStore {
    fn put_new(&self, key: &Key, bytes: &[u8]) -> Result<Put> {
        let mut objects = self.objects();
        if objects.places.contains_key(key) || self.below.stored_bytes(key)?.is_some() {
            return Ok(Put::Taken);
        }
        let place = objects.end..objects.end + bytes.len() as u64;
        let written = self.file.write_all_at(bytes, place.start);
        written.map_err(Error::io(
            "write",
            self.room.join("(a file without a name)"),
        ))?;
        objects.end = place.end;
        objects.places.insert(key.clone(), place);
        Ok(Put::Created)
    }

    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>> {
        match self.place(key) {
            Some(place) => self.read(place).map(Some),
            None => self.below.get(key),
        }
    }

    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Vec<u8>>> {
        match self.place(key) {
            Some(place) => {
                let at = |offset: u64| place.start.saturating_add(offset).min(place.end);
                let (start, end) = (at(range.start), at(range.end));
                self.read(start..end.max(start)).map(Some)
            }
            None => self.below.get_range(key, range),
        }
    }

    fn stored_bytes(&self, key: &Key) -> Result<Option<u64>> {
        match self.place(key) {
            Some(place) => Ok(Some(place.end - place.start)),
            None => self.below.stored_bytes(key),
        }
    }

    fn list(&self, folder: Folder) -> Result<Vec<Listed>> {
        let mut listed = self.below.list(folder)?;
        let objects = self.objects();
        let of_folder = objects
            .places
            .iter()
            .filter(|(key, _)| key.folder() == folder);
        listed.extend(of_folder.map(|(key, place)| Listed {
            name: key.name().to_string(),
            stored_bytes: place.end - place.start,
            // Newer than anything: nobody may take it for a leftover.
            modified_ns: i64::MAX,
        }));
        Ok(listed)
    }

    /// What is below stays.
    fn delete(&self, key: &Key) -> Result<()> {
        if self.objects().places.remove(key).is_some() || self.below.stored_bytes(key)?.is_none() {
            return Ok(());
        }
        Err(Error::Refused {
            reason: format!("{key} is below what is staged, and is only read"),
        })
    }

    fn sync(&self, _folder: Folder) -> Result<()> {
        Ok(())
    }

    fn location(&self) -> String {
        self.below.location()
    }
}
