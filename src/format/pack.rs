//! The table of a pack: one row for each record, stored by columns.
//!
//! `docs/format.md`, section "Pack". The plain stream of a pack is `records | table | tail`.
//! Records have no headers of their own; row i begins where row i - 1 ends.
//! Invariant I13: a row's height is zero without bases, else above that of every base it resolves
//! to; readers look for bases only among lower heights, so chains end whatever a pack claims.

use crate::codec::zstd::Decoder;
use crate::codec::zstd::Encoder;
use crate::format::wire;
use crate::format::wire::Decoded;
use crate::format::wire::Malformed;
use crate::format::wire::Reader;
use crate::id::ChunkId;
use crate::safeguard::Safeguard;

/// No chunk is longer.
pub const CHUNK_BYTES_MAX: u32 = 16 << 20;
/// No record leans on more bases.
pub const BASES_MAX: usize = 16;
/// The bases of a record together are no longer.
pub const PREFIX_BYTES_MAX: usize = 64 << 20;
/// Bytes of the tail: table offset, bytes of the table, plain bytes of its compressed columns.
pub const TAIL_BYTES: usize = 16;

/// Most bytes of a row in the compressed columns: encoding, height, bases, two lengths.
const COLUMNS_BYTES_MAX: usize = 13;
/// Room for columns of later versions. More is a bomb.
const LATER_COLUMNS_BYTES_MAX: usize = 1 << 20;
/// The records of a pack together are no longer: offsets into them are kept in 32 bits.
const RECORDS_BYTES_MAX: u64 = u32::MAX as u64;
const TABLE_LEVEL: i32 = 3;

/// The first bytes of an id, by which a record names its base.
pub type BaseId = [u8; 8];

/// What a chunk is. The kind enters the key of its id, so that a chunk is never taken for another
/// kind. The numbers are format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChunkKind {
    /// Content of files.
    Data,
    /// A node that lists chunks of a stream.
    List,
    /// A leaf or an inner node of a tree.
    Tree,
}

impl ChunkKind {
    /// All kinds.
    pub const ALL: [ChunkKind; 3] = [ChunkKind::Data, ChunkKind::List, ChunkKind::Tree];

    fn number(self) -> u8 {
        match self {
            ChunkKind::Data => 0,
            ChunkKind::List => 1,
            ChunkKind::Tree => 2,
        }
    }
}

/// How a record is stored. The numbers are format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// As it is.
    Raw,
    /// One zstd frame.
    Zstd,
    /// One zstd frame whose prefix is the plain bytes of the bases, in order.
    Delta,
}

/// Everything about a record that is neither its name nor its place, in one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoding {
    /// How it is stored.
    pub codec: Codec,
    /// What kind of chunk it is.
    pub kind: ChunkKind,
    /// Whether it is the first of a run of deltas. A hint for whoever writes the next one.
    pub run_head: bool,
}

impl Encoding {
    /// Returns the byte: codec in bits 0-2, run head in bit 3, kind in bits 4-6.
    pub fn byte(self) -> u8 {
        let codec = match self.codec {
            Codec::Raw => 0,
            Codec::Zstd => 1,
            Codec::Delta => 2,
        };
        codec | u8::from(self.run_head) << 3 | self.kind.number() << 4
    }

    /// Reads the byte.
    pub fn from_byte(byte: u8) -> Decoded<Encoding> {
        let codec = match byte & 7 {
            0 => Codec::Raw,
            1 => Codec::Zstd,
            2 => Codec::Delta,
            other => return Err(Malformed::Unknown("codec", u64::from(other))),
        };
        let kind = ChunkKind::ALL
            .into_iter()
            .find(|kind| kind.number() == byte >> 4);
        let kind = kind.ok_or(Malformed::Unknown("chunk kind", u64::from(byte >> 4)))?;
        Ok(Encoding {
            codec,
            kind,
            run_head: byte & 8 != 0,
        })
    }
}

/// One record as its pack's table describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The chunk.
    pub id: ChunkId,
    /// How it is stored.
    pub encoding: Encoding,
    /// Above the heights of its bases; zero without.
    pub height: u8,
    /// Length of the chunk.
    pub plain_bytes: u32,
    /// Length of the record.
    pub stored_bytes: u32,
    /// What it leans on.
    pub bases: Vec<BaseId>,
}

/// Returns the bytes behind the records: the table and the tail. Ids cannot be compressed, and
/// would spoil the statistics of what can; so only the other columns are in the frame.
pub fn encode_table(rows: &[Row]) -> Vec<u8> {
    let mut out = Vec::with_capacity(rows.len() * 48 + 64);
    let bases: usize = rows.iter().map(|row| row.bases.len()).sum();
    wire::put_varint(&mut out, rows.len() as u64);
    wire::put_varint(&mut out, bases as u64);
    rows.iter()
        .for_each(|row| out.extend_from_slice(row.id.as_bytes()));
    rows.iter()
        .flat_map(|row| &row.bases)
        .for_each(|base| out.extend_from_slice(base));

    let mut columns = Vec::with_capacity(rows.len() * 8);
    rows.iter()
        .for_each(|row| columns.push(row.encoding.byte()));
    rows.iter().for_each(|row| columns.push(row.height));
    rows.iter()
        .for_each(|row| columns.push(row.bases.len() as u8));
    rows.iter()
        .for_each(|row| wire::put_varint(&mut columns, u64::from(row.plain_bytes)));
    rows.iter()
        .for_each(|row| wire::put_varint(&mut columns, u64::from(row.stored_bytes)));
    out.extend_from_slice(Encoder::new(TABLE_LEVEL).whole(&columns));

    let table_bytes = out.len() as u32;
    let records: u64 = rows.iter().map(|row| u64::from(row.stored_bytes)).sum();
    out.extend_from_slice(&records.to_le_bytes());
    out.extend_from_slice(&table_bytes.to_le_bytes());
    out.extend_from_slice(&(columns.len() as u32).to_le_bytes());
    out
}

/// Returns how many bytes at the end of a pack's plain stream hold its table, from its tail.
pub fn table_bytes(tail: &[u8; TAIL_BYTES], pack_plain_bytes: u64) -> Decoded<u64> {
    let mut reader = Reader::new(tail);
    let (offset, table) = (reader.u64()?, u64::from(reader.u32()?));
    match offset.checked_add(table + TAIL_BYTES as u64) == Some(pack_plain_bytes) {
        true => Ok(table + TAIL_BYTES as u64),
        false => Err(Malformed::Bytes(
            "the tail of the pack contradicts its length",
        )),
    }
}

/// Reads the rows from the end of a pack's plain stream: the table and the tail.
pub fn decode_table(bytes: &[u8]) -> Decoded<Vec<Row>> {
    let split = bytes
        .len()
        .checked_sub(TAIL_BYTES)
        .ok_or(Malformed::Bytes("cut short"))?;
    let (table, tail) = bytes.split_at(split);
    let mut tail = Reader::new(tail);
    let (records, table_bytes, columns_bytes) = (tail.u64()?, tail.u32()?, tail.u32()?);
    if table_bytes as usize != table.len() {
        return Err(Malformed::Bytes(
            "the tail of the pack contradicts its table",
        ));
    }
    let mut reader = Reader::new(table);
    let count = reader.count(ChunkId::LEN)?;
    let base_count = reader.count(8)?;
    let columns_max = count.saturating_mul(COLUMNS_BYTES_MAX) + LATER_COLUMNS_BYTES_MAX;
    if columns_bytes as usize > columns_max {
        return Err(Malformed::Bytes("the columns of the table are too long"));
    }
    let ids = reader.take(count * ChunkId::LEN)?;
    let bases = Reader::new(reader.take(base_count.saturating_mul(8))?);
    let mut columns = Vec::new();
    let decoded = Decoder::new().decode(reader.rest(), &[], columns_bytes as usize, &mut columns);
    decoded.map_err(|_| Malformed::Bytes("the table does not decompress"))?;
    let rows = decode_rows(ids, bases, &columns)?;
    let sum: u64 = rows.iter().map(|row| u64::from(row.stored_bytes)).sum();
    match sum == records && sum <= RECORDS_BYTES_MAX || !Safeguard::TableAddsUp.holds() {
        true => Ok(rows),
        false => Err(Malformed::Bytes("the records do not add up")),
    }
}

fn decode_rows(ids: &[u8], mut bases: Reader<'_>, columns: &[u8]) -> Decoded<Vec<Row>> {
    let count = ids.len() / ChunkId::LEN;
    let mut columns = Reader::new(columns);
    let encodings = columns.take(count)?;
    let heights = columns.take(count)?;
    let base_counts = columns.take(count)?;
    let mut rows = Vec::with_capacity(count);
    for (i, id) in ids.chunks_exact(ChunkId::LEN).enumerate() {
        let mut row = Row {
            id: ChunkId::from_slice(id).expect("invariant: the length of an id"),
            encoding: Encoding::from_byte(encodings[i])?,
            height: heights[i],
            plain_bytes: columns.varint_u32()?,
            stored_bytes: 0,
            bases: Vec::with_capacity(usize::from(base_counts[i]).min(BASES_MAX)),
        };
        for _ in 0..base_counts[i] {
            row.bases.push(bases.array()?);
        }
        rows.push(row);
    }
    for row in &mut rows {
        row.stored_bytes = columns.varint_u32()?;
        check_row(row)?;
    }
    // Later versions may append columns as fields.
    while let Some((number, _)) = columns.field()? {
        wire::unknown_field(number)?;
    }
    bases.finish()?;
    Ok(rows)
}

fn check_row(row: &Row) -> Decoded<()> {
    if !Safeguard::RowsPossible.holds() {
        return Ok(());
    }
    let is_delta = row.encoding.codec == Codec::Delta;
    if row.plain_bytes > CHUNK_BYTES_MAX || row.stored_bytes > CHUNK_BYTES_MAX + 1024 {
        return Err(Malformed::Bytes("a record is too long"));
    }
    if row.bases.len() > BASES_MAX || row.bases.is_empty() == is_delta {
        return Err(Malformed::Bytes(
            "a record has an impossible number of bases",
        ));
    }
    if (row.height > 0) != is_delta {
        return Err(Malformed::Bytes("a record's height contradicts its bases"));
    }
    if row.encoding.codec == Codec::Raw && row.plain_bytes != row.stored_bytes {
        return Err(Malformed::Bytes("a raw record has two lengths"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rows() -> Vec<Row> {
        let delta = Encoding {
            codec: Codec::Delta,
            kind: ChunkKind::List,
            run_head: true,
        };
        let whole = Encoding {
            codec: Codec::Raw,
            kind: ChunkKind::Data,
            run_head: false,
        };
        vec![
            Row {
                id: ChunkId([1; 32]),
                encoding: delta,
                height: 63,
                plain_bytes: 300_000,
                stored_bytes: 77,
                bases: vec![[5; 8], [6; 8]],
            },
            Row {
                id: ChunkId([2; 32]),
                encoding: whole,
                height: 0,
                plain_bytes: 9,
                stored_bytes: 9,
                bases: vec![],
            },
        ]
    }

    #[test]
    fn tables_round_trip() {
        for rows in [rows(), vec![]] {
            let bytes = encode_table(&rows);
            let tail = bytes[bytes.len() - TAIL_BYTES..].try_into().unwrap();
            let records: u64 = rows.iter().map(|row| u64::from(row.stored_bytes)).sum();

            assert_eq!(decode_table(&bytes), Ok(rows));
            let plain_bytes = records + bytes.len() as u64;
            assert_eq!(table_bytes(&tail, plain_bytes), Ok(bytes.len() as u64));
            assert!(table_bytes(&tail, plain_bytes + 1).is_err());
        }
    }

    #[test]
    fn records_that_do_not_add_up_to_the_pack_are_refused() {
        let mut bytes = encode_table(&rows());
        let tail = bytes.len() - TAIL_BYTES;
        bytes[tail] ^= 1;
        assert!(decode_table(&bytes).is_err());
    }

    #[test]
    fn impossible_rows_are_refused() {
        let spoiled: [fn(&mut Row); 5] = [
            |row| row.height = 0,
            |row| row.bases.clear(),
            |row| row.bases = vec![[1; 8]; 17],
            |row| row.plain_bytes = CHUNK_BYTES_MAX + 1,
            |row| row.encoding.codec = Codec::Raw,
        ];
        for spoil in spoiled {
            let mut rows = rows();
            spoil(&mut rows[0]);
            assert!(decode_table(&encode_table(&rows)).is_err());
        }
    }

    /// A table without rows, with these columns.
    fn sealed(columns: &[u8]) -> Vec<u8> {
        let mut out = vec![0, 0];
        out.extend_from_slice(Encoder::new(1).whole(columns));
        let table_bytes = out.len() as u32;
        out.extend_from_slice(&0_u64.to_le_bytes());
        out.extend_from_slice(&table_bytes.to_le_bytes());
        out.extend_from_slice(&(columns.len() as u32).to_le_bytes());
        out
    }

    #[test]
    fn columns_from_the_future_are_skipped_or_refused_by_their_number() {
        let mut columns = Vec::new();
        wire::put_field(&mut columns, 100, b"from the future");

        assert_eq!(decode_table(&sealed(&columns)), Ok(vec![]));

        wire::put_field(&mut columns, 101, b"that must be understood");
        let unknown = Malformed::Unknown("field", 101);
        assert_eq!(decode_table(&sealed(&columns)), Err(unknown));
    }

    #[test]
    fn a_bomb_of_a_table_is_refused() {
        let small = sealed(&vec![0; 70 << 20]);

        assert!(small.len() < 1 << 20);
        assert!(decode_table(&small).is_err());
    }

    #[test]
    fn records_beyond_32_bits_are_refused() {
        let mut row = rows().remove(0);
        row.stored_bytes = CHUNK_BYTES_MAX;
        let fits = vec![row.clone(); 255];
        let too_many = vec![row; 256];

        assert!(decode_table(&encode_table(&fits)).is_ok());
        assert!(decode_table(&encode_table(&too_many)).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(bytes: Vec<u8>) {
            let _ = decode_table(&bytes);
            let mut table = bytes.clone();
            table.extend_from_slice(&[0; 8]);
            table.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            table.extend_from_slice(&100_u32.to_le_bytes());
            let _ = decode_table(&table);
        }
    }

    /// The budget of the design: at most 80 bytes of bookkeeping for a changed chunk, of which the
    /// list takes 32 to 36.
    #[test]
    fn a_row_of_a_delta_costs_at_most_44_bytes() {
        let rows: Vec<Row> = (0..1000_u64)
            .map(|i| {
                let id = blake3::hash(&i.to_le_bytes());
                let base = blake3::hash(&(i + 1000).to_le_bytes());
                Row {
                    id: ChunkId(*id.as_bytes()),
                    encoding: rows()[0].encoding,
                    height: 1,
                    plain_bytes: 200_000 + u32::from(id.as_bytes()[1]) * 500,
                    stored_bytes: 300 + u32::from(id.as_bytes()[0]),
                    bases: vec![base.as_bytes()[..8].try_into().unwrap()],
                }
            })
            .collect();

        let bytes = encode_table(&rows).len();

        assert!(bytes < 44 * rows.len(), "{bytes}");
    }
}
