//! What is known of each database in a snapshot: the chunk that a manifest names for it.
//!
//! `docs/format.md`, section "Databases". A record describes the capture its content came from, so
//! it stays as it is for as long as the database does, and the chunk with it.

use crate::context::Timestamp;
use crate::format::wire;
use crate::format::wire::Decoded;
use crate::format::wire::Malformed;
use crate::format::wire::Reader;

const VERSION: u8 = 1;

/// An engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Engine {
    /// SQLite.
    #[default]
    Sqlite,
    /// redb.
    Redb,
    /// sled.
    Sled,
}

/// How a database was captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// Under a read transaction of the engine.
    #[default]
    Transaction,
    /// By a walk that verified every page against its parent.
    Walk,
    /// From a private copy on which the engine did its recovery; sled: of all its files as they
    /// were at one instant.
    PrivateCopy,
    /// As plain files, without any promise of the engine.
    PlainFiles,
}

/// What a check of the captured bytes found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verdict {
    /// There was none.
    #[default]
    Unchecked,
    /// Nothing wrong.
    Passed,
    /// Something wrong.
    Failed,
}

/// One database.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DatabaseRecord {
    /// The path of its entry; sled: of its directory.
    pub path: Vec<u8>,
    /// The engine.
    pub engine: Engine,
    /// How it was captured.
    pub method: Method,
    /// When that began.
    pub captured_at: Timestamp,
    /// How long its state was held or its pages were read.
    pub duration_us: u64,
    /// How far apart the states of databases captured together may be; zero: at one instant.
    pub skew_us: u64,
    /// Bytes of a page; sled: of a segment.
    pub page_bytes: u64,
    /// Pages of the captured state; sled: segments of its log.
    pub pages: u64,
    /// SQLite: the number of the library that wrote last; redb: the version of the file
    /// format; sled: the second number of the version of its files.
    pub version: u64,
    /// SQLite: the application's own version.
    pub user_version: u32,
    /// SQLite: whose file it is.
    pub application_id: u32,
    /// SQLite: whether it has a write-ahead log.
    pub wal: bool,
    /// Bytes by which the write-ahead log grew while its state was held.
    pub wal_growth_bytes: u64,
    /// What a check of the captured bytes found.
    pub verdict: Verdict,
}

/// Returns the plain bytes of the chunk that holds these records, which are sorted by path.
pub fn encode(records: &[DatabaseRecord]) -> Vec<u8> {
    let mut out = vec![VERSION];
    wire::put_varint(&mut out, records.len() as u64);
    for record in records {
        wire::put_bytes(&mut out, &encode_record(record));
    }
    out
}

/// Reads a chunk.
pub fn decode(bytes: &[u8]) -> Decoded<Vec<DatabaseRecord>> {
    let mut reader = Reader::new(bytes);
    match reader.byte()? {
        VERSION => {}
        other => return Err(Malformed::Unknown("databases version", u64::from(other))),
    }
    let count = reader.count(2)?;
    let mut records = Vec::with_capacity(count.min(1 << 10));
    for _ in 0..count {
        records.push(decode_record(reader.bytes()?)?);
    }
    reader.finish()?;
    Ok(records)
}

fn encode_record(record: &DatabaseRecord) -> Vec<u8> {
    let mut out = Vec::with_capacity(96);
    wire::put_field(&mut out, 1, &record.path);
    let numbers = [
        (3, record.engine as u64),
        (4, record.method as u64),
        (8, record.duration_us),
        (10, record.skew_us),
        (12, record.page_bytes),
        (14, record.pages),
        (16, record.version),
        (18, u64::from(record.user_version)),
        (20, u64::from(record.application_id)),
        (22, u64::from(record.wal)),
        (24, record.wal_growth_bytes),
        (26, record.verdict as u64),
    ];
    for (number, value) in numbers {
        wire::put_number_field(&mut out, number, value);
    }
    wire::put_field(&mut out, 6, &record.captured_at.0.to_le_bytes());
    out
}

fn decode_record(bytes: &[u8]) -> Decoded<DatabaseRecord> {
    let mut record = DatabaseRecord::default();
    let mut reader = Reader::new(bytes);
    let small = |field| {
        u32::try_from(wire::number(field)?).map_err(|_| Malformed::Bytes("a number is too large"))
    };
    while let Some((number, field)) = reader.field()? {
        match number {
            1 => record.path = field.to_vec(),
            3 => {
                record.engine = match wire::number(field)? {
                    0 => Engine::Sqlite,
                    1 => Engine::Redb,
                    2 => Engine::Sled,
                    other => return Err(Malformed::Unknown("engine", other)),
                }
            }
            4 => {
                record.method = match wire::number(field)? {
                    0 => Method::Transaction,
                    1 => Method::Walk,
                    2 => Method::PrivateCopy,
                    3 => Method::PlainFiles,
                    other => return Err(Malformed::Unknown("capture method", other)),
                }
            }
            6 => record.captured_at = Timestamp(i64::from_le_bytes(wire::array(field)?)),
            8 => record.duration_us = wire::number(field)?,
            10 => record.skew_us = wire::number(field)?,
            12 => record.page_bytes = wire::number(field)?,
            14 => record.pages = wire::number(field)?,
            16 => record.version = wire::number(field)?,
            18 => record.user_version = small(field)?,
            20 => record.application_id = small(field)?,
            22 => record.wal = wire::number(field)? != 0,
            24 => record.wal_growth_bytes = wire::number(field)?,
            26 => {
                record.verdict = match wire::number(field)? {
                    0 => Verdict::Unchecked,
                    1 => Verdict::Passed,
                    2 => Verdict::Failed,
                    other => return Err(Malformed::Unknown("verdict", other)),
                }
            }
            other => wire::unknown_field(other)?,
        }
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn records_round_trip_and_skip_what_is_new_to_them() {
        let first = DatabaseRecord {
            path: b"data/history.db".to_vec(),
            captured_at: Timestamp(1_763_600_000_000_000_001),
            page_bytes: 4096,
            pages: 70,
            user_version: u32::MAX,
            wal: true,
            verdict: Verdict::Passed,
            ..DatabaseRecord::default()
        };
        let second = DatabaseRecord {
            path: b"data/state.redb".to_vec(),
            engine: Engine::Redb,
            method: Method::Walk,
            skew_us: 12,
            ..DatabaseRecord::default()
        };
        let records = vec![first, second];

        assert_eq!(decode(&encode(&records)), Ok(records.clone()));
        assert_eq!(decode(&encode(&[])), Ok(Vec::new()));

        let mut newer = encode_record(&records[0]);
        wire::put_field(&mut newer, 1000, b"from the future");
        assert_eq!(decode_record(&newer), Ok(records[0].clone()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }
}
