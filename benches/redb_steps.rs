//! Makes and changes the redb database that `databases.py` backs up.
//!
//! `redb_steps FILE create BYTES` fills a new one; `redb_steps FILE step NUMBER` changes 1 % of its
//! rows in 20 commits, one row in ten a new one. The same arguments give the same rows.
#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first error")]

use redb::Database;
use redb::ReadableDatabase;
use redb::ReadableTableMetadata;
use redb::TableDefinition;
use std::path::Path;

const ROWS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("rows");
const COMMITS: u64 = 20;
/// Rows of a commit while the database is filled.
const BATCH_ROWS: u64 = 10_000;
/// What becomes of a row number in the key: neighbours in time are none in the tree.
const SCATTER: u64 = 0x9e37_79b9_7f4a_7c15;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Text of 100 to 400 bytes.
    fn value(&mut self) -> Vec<u8> {
        let words = 12 + self.next() % 36;
        let words = (0..words).map(|_| format!("w{:06x} ", self.next() % 5000 * 3331));
        words.collect::<String>().into_bytes()
    }
}

fn put(db: &Database, numbers: impl Iterator<Item = u64>, random: &mut Random) {
    let write = db.begin_write().unwrap();
    {
        let mut table = write.open_table(ROWS).unwrap();
        for number in numbers {
            let value = random.value();
            table
                .insert(number.wrapping_mul(SCATTER), &value[..])
                .unwrap();
        }
    }
    write.commit().unwrap();
}

fn create(path: &Path, bytes: u64) {
    let db = Database::create(path).unwrap();
    let mut random = Random(1);
    let mut rows = 0;
    while std::fs::metadata(path).unwrap().len() < bytes {
        put(&db, rows..rows + BATCH_ROWS, &mut random);
        rows += BATCH_ROWS;
    }
}

fn step(path: &Path, number: u64) {
    let db = Database::open(path).unwrap();
    let read = db.begin_read().unwrap();
    let mut rows = read.open_table(ROWS).unwrap().len().unwrap();
    drop(read);
    let mut random = Random(number.wrapping_mul(SCATTER) | 1);
    let changes = rows / 100 / COMMITS;
    for _ in 0..COMMITS {
        let mut numbers = Vec::new();
        for change in 0..changes {
            numbers.push(match change % 10 {
                0 => rows,
                _ => random.next() % rows,
            });
            rows += u64::from(change % 10 == 0);
        }
        put(&db, numbers.into_iter(), &mut random);
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |text: &str| text.parse().unwrap();
    match &words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [path, "create", bytes] => create(Path::new(path), number(bytes)),
        [path, "step", at] => step(Path::new(path), number(at)),
        _ => panic!("redb_steps FILE create BYTES | step NUMBER"),
    }
}
