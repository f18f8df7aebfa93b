//! Judges a redb file that nobody else has, such as one that was just restored.

use super::Database;
use super::Refusal;
use redb::MultimapTableHandle;
use redb::ReadableDatabase;
use redb::ReadableTableMetadata;
use redb::TableHandle;
use std::fs::File;
use std::path::Path;

/// Attempts to read a file that nobody writes: more than one could only be a disk that lies.
const PASSES: u32 = 1;

/// Proves every page that the newest commit leads to against its checksum, without changing the
/// file. The spool is an empty file that no one else uses.
pub fn prove(file: File, spool: File, check: &mut dyn FnMut() -> bool) -> Result<(), Refusal> {
    let mut database = Database::open(file, spool)?;
    database.capture(PASSES, u64::MAX, check)
}

/// Lets redb itself open the file and check everything in it. Returns the tables and how many rows
/// each has, or what is wrong. It repairs what it can, so this is for files that are thrown away.
pub fn check_integrity(path: &Path) -> Result<Vec<(String, u64)>, String> {
    let mut database = redb::Database::open(path).map_err(|error| error.to_string())?;
    // Whether its own bookkeeping had to be rebuilt says nothing: a capture leaves it out.
    database
        .check_integrity()
        .map_err(|error| error.to_string())?;
    rows(&database).map_err(|error| error.to_string())
}

fn rows(database: &redb::Database) -> Result<Vec<(String, u64)>, redb::Error> {
    let read = database.begin_read()?;
    let mut rows = Vec::new();
    for table in read.list_tables()? {
        let name = table.name().to_string();
        rows.push((name, read.open_untyped_table(table)?.len()?));
    }
    for table in read.list_multimap_tables()? {
        let name = table.name().to_string();
        rows.push((name, read.open_untyped_multimap_table(table)?.len()?));
    }
    rows.sort();
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use redb::TableDefinition;

    const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("t");

    #[test]
    fn a_sound_file_passes_and_a_changed_byte_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.redb");
        let database = redb::Database::create(&path).unwrap();
        let write = database.begin_write().unwrap();
        let value = [7; 1000];
        for key in 0..200 {
            write
                .open_table(TABLE)
                .unwrap()
                .insert(key, &value[..])
                .unwrap();
        }
        write.commit().unwrap();
        drop(database);
        let prove = || {
            let spool = tempfile::tempfile().unwrap();
            super::prove(File::open(&path).unwrap(), spool, &mut || true)
        };

        assert!(prove().is_ok());
        assert_eq!(check_integrity(&path), Ok(vec![("t".to_string(), 200)]));

        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes
            .windows(100)
            .position(|part| part == &value[..100])
            .unwrap();
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(prove(), Err(Refusal::Corrupt { .. })));
        assert!(check_integrity(&path).is_err());
    }
}
