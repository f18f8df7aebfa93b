//! Captures databases that redb wrote, restores the images, and has redb check them.

mod cases;
mod live;

use super::Database;
use super::Facts;
use super::Refusal;
use ::redb::MultimapTableDefinition;
use ::redb::ReadTransaction;
use ::redb::ReadableDatabase;
use ::redb::ReadableMultimapTable;
use ::redb::ReadableTable;
use ::redb::TableDefinition;
use ::redb::TableError;
use ::redb::WriteTransaction;
use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;
use tempfile::TempDir;

pub(super) const NUMBERS: TableDefinition<u64, u64> = TableDefinition::new("numbers");
pub(super) const ROWS: TableDefinition<u64, &[u8]> = TableDefinition::new("rows");
pub(super) const NAMES: TableDefinition<&str, u32> = TableDefinition::new("names");
pub(super) const TEXTS: TableDefinition<&str, &str> = TableDefinition::new("texts");
pub(super) const LISTS: MultimapTableDefinition<u64, u64> = MultimapTableDefinition::new("lists");
pub(super) const WORDS: MultimapTableDefinition<&str, &str> = MultimapTableDefinition::new("words");

/// Enough for a file at rest.
const PASSES: u32 = 3;

/// A folder with a database in it.
pub(super) struct Scratch {
    folder: TempDir,
}

impl Scratch {
    pub(super) fn new() -> Scratch {
        Scratch {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn database(&self) -> PathBuf {
        self.path("database.redb")
    }

    pub(super) fn create(&self) -> ::redb::Database {
        ::redb::Database::create(self.database()).unwrap()
    }

    pub(super) fn open(&self) -> Result<Database, Refusal> {
        open(&self.database())
    }

    /// Captures the database as it is and returns what redb finds in the image.
    pub(super) fn capture_contents(&self) -> String {
        let mut capture = self.open().unwrap();
        capture_now(&mut capture).unwrap();
        self.restore(&capture)
    }

    /// Restores the image and returns what redb finds in it.
    pub(super) fn restore(&self, capture: &Database) -> String {
        let path = self.path("image.redb");
        write_image(capture, &path);
        let mut image = ::redb::Database::open(&path).unwrap();
        assert!(image.check_integrity().unwrap());
        contents(&image.begin_read().unwrap())
    }
}

pub(super) fn open(path: &Path) -> Result<Database, Refusal> {
    Database::open(File::open(path).unwrap(), tempfile::tempfile().unwrap())
}

pub(super) fn capture_now(capture: &mut Database) -> Result<Facts, Refusal> {
    capture.capture(PASSES, u64::MAX, &mut || true)?;
    Ok(*capture.facts())
}

/// Writes the image, and checks what is promised of its pieces.
pub(super) fn write_image(capture: &Database, path: &Path) {
    let facts = capture.facts();
    let file = File::create(path).unwrap();
    file.set_len(facts.file_bytes).unwrap();
    let mut pages = capture.pages().unwrap();
    let mut buffer = Vec::new();
    let (mut count, mut end) = (0, 0);
    while let Some(piece) = pages.next(&mut buffer).unwrap() {
        assert!((1..=1 << 20).contains(&buffer.len()));
        assert!(piece.offset + buffer.len() as u64 <= facts.file_bytes);
        // The rest of a large page follows at once.
        count += u64::from(piece.offset != end && piece.offset != 0);
        end = match buffer.len() {
            0x10_0000 => piece.offset + 0x10_0000,
            _ => u64::MAX,
        };
        file.write_all_at(&buffer, piece.offset).unwrap();
    }
    assert_eq!(count, facts.pages);
}

/// Writes down all rows of all tables.
pub(super) fn contents(read: &ReadTransaction) -> String {
    let mut text = String::new();
    macro_rules! rows {
        ($open:ident, $table:ident, $show:expr) => {
            match read.$open($table) {
                Ok(table) => {
                    writeln!(text, "{}", stringify!($table)).unwrap();
                    for row in table.iter().unwrap() {
                        let (key, value) = row.unwrap();
                        writeln!(text, "{:?} {}", key.value(), $show(value)).unwrap();
                    }
                }
                Err(TableError::TableDoesNotExist(_)) => {}
                Err(error) => panic!("{error}"),
            }
        };
    }
    rows!(open_table, NUMBERS, |value: ::redb::AccessGuard<
        '_,
        u64,
    >| value.value());
    rows!(open_table, ROWS, |value: ::redb::AccessGuard<'_, &[u8]>| {
        let bytes = value.value();
        format!("{} {:x}", bytes.len(), xxhash_rust::xxh3::xxh3_64(bytes))
    });
    rows!(open_table, NAMES, |value: ::redb::AccessGuard<'_, u32>| {
        value.value()
    });
    rows!(open_table, TEXTS, |value: ::redb::AccessGuard<'_, &str>| {
        value.value().to_string()
    });
    rows!(
        open_multimap_table,
        LISTS,
        |values: ::redb::MultimapValue<'_, u64>| {
            let values: Vec<u64> = values.map(|value| value.unwrap().value()).collect();
            format!("{values:?}")
        }
    );
    rows!(
        open_multimap_table,
        WORDS,
        |values: ::redb::MultimapValue<'_, &str>| {
            let words = values.map(|value| value.unwrap().value().to_string());
            format!("{:?}", words.collect::<Vec<_>>())
        }
    );
    text
}

/// Returns what a database holds that redb has open.
pub(super) fn contents_of(database: &::redb::Database) -> String {
    contents(&database.begin_read().unwrap())
}

/// Does something in a transaction of its own.
pub(super) fn commit(database: &::redb::Database, work: impl FnOnce(&WriteTransaction)) {
    let write = database.begin_write().unwrap();
    work(&write);
    write.commit().unwrap();
}

pub(super) fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    xxhash_rust::xxh3::xxh3_64(&state.to_le_bytes())
}

/// Bytes that depend on a seed.
pub(super) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::new();
    while bytes.len() < len {
        bytes.extend(random(&mut state).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Puts rows into every kind of table, values of many lengths among them.
pub(super) fn fill(database: &::redb::Database, rows: u64, seed: u64) {
    commit(database, |write| {
        let mut numbers = write.open_table(NUMBERS).unwrap();
        let mut blobs = write.open_table(ROWS).unwrap();
        let mut names = write.open_table(NAMES).unwrap();
        let mut texts = write.open_table(TEXTS).unwrap();
        let mut lists = write.open_multimap_table(LISTS).unwrap();
        let mut words = write.open_multimap_table(WORDS).unwrap();
        for i in 0..rows {
            let key = i * 7 % rows;
            numbers.insert(key, seed ^ i).unwrap();
            let len = (100 + i % 50 * 9) as usize;
            blobs.insert(key, &bytes(seed + i, len)[..]).unwrap();
            let name = format!("name {key} {}", "x".repeat((i % 40) as usize));
            names.insert(&name[..], i as u32).unwrap();
            texts.insert(&name[..], &format!("{seed} {i}")[..]).unwrap();
            lists.insert(i % 3, i ^ seed).unwrap();
            lists.insert(100 + i, seed).unwrap();
            words
                .insert(&name[..1 + i as usize % 6], &name[..])
                .unwrap();
        }
    });
}
