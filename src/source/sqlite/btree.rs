//! Decodes pages of SQLite databases: what a b-tree page holds, what a record says.
//!
//! Pure: bytes in, facts out. Reading pages and following their links is left to others, who have
//! to see to it that they come to an end. <https://www.sqlite.org/fileformat2.html>
//!
//! Invariant: nothing here panics, whatever the bytes are, and nothing that is returned lies
//! outside them.

use super::header::HEADER_BYTES;
use super::header::Header;
use super::header::lock_page;

const INTERIOR_INDEX: u8 = 2;
const INTERIOR_TABLE: u8 = 5;
const LEAF_INDEX: u8 = 10;
const LEAF_TABLE: u8 = 13;
/// No varint is longer.
const VARINT_BYTES_MAX: usize = 9;
/// Records longer than this cannot be.
const PAYLOAD_BYTES_MAX: u64 = i32::MAX as u64;

/// What is wrong with a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage(pub &'static str);

/// What a decoder has to know of a database, from its first page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of a page.
    pub page_bytes: u32,
    /// Bytes of it that hold anything.
    pub usable_bytes: u32,
    /// The application's own version.
    pub user_version: i32,
    /// The page that lists free pages first, zero for none.
    pub first_trunk: u32,
    /// Whether pages tell who refers to them, so that they can be moved.
    pub has_pointer_maps: bool,
    /// How text is encoded.
    pub encoding: Encoding,
}

/// How text is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Utf8,
    Utf16Little,
    Utf16Big,
}

impl Layout {
    /// Reads the first bytes of a database.
    pub fn parse(first: &[u8]) -> Result<Layout, Damage> {
        let bytes = first.first_chunk::<HEADER_BYTES>();
        let bytes = bytes.ok_or(Damage("it is shorter than its header"))?;
        let header = Header::parse(bytes).map_err(Damage)?;
        let encoding = match word(bytes, 56).unwrap_or(0) {
            0 | 1 => Encoding::Utf8,
            2 => Encoding::Utf16Little,
            3 => Encoding::Utf16Big,
            _ => return Err(Damage("its text has an unknown encoding")),
        };
        Ok(Layout {
            page_bytes: header.page_bytes,
            usable_bytes: header.page_bytes - header.reserved_bytes,
            user_version: header.user_version.cast_signed(),
            first_trunk: header.first_trunk,
            has_pointer_maps: word(bytes, 52) != Some(0),
            encoding,
        })
    }

    /// Returns whether a page holds neither content nor a node of a tree, wherever it is: the one
    /// that locks lie on, and those that say who refers to whom.
    pub fn is_reserved(&self, number: u32) -> bool {
        if u64::from(number) == lock_page(self.page_bytes) {
            return true;
        }
        if !self.has_pointer_maps || number < 2 {
            return false;
        }
        let group = self.usable_bytes / 5 + 1;
        let mut map = (number - 2) / group * group + 2;
        if u64::from(map) == lock_page(self.page_bytes) {
            map += 1;
        }
        number == map
    }

    /// Returns the text of a value, with what is no text replaced.
    pub fn text(&self, bytes: &[u8]) -> String {
        let units = |of: fn([u8; 2]) -> u16| {
            let units = bytes.chunks_exact(2).map(|pair| of([pair[0], pair[1]]));
            String::from_utf16_lossy(&units.collect::<Vec<u16>>())
        };
        match self.encoding {
            Encoding::Utf8 => String::from_utf8_lossy(bytes).into_owned(),
            Encoding::Utf16Little => units(u16::from_le_bytes),
            Encoding::Utf16Big => units(u16::from_be_bytes),
        }
    }
}

/// What kind of tree a page belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TreeKind {
    /// Rows by number.
    Table,
    /// Records in their own order: indexes, and tables without row numbers.
    Index,
}

/// A page of a tree.
#[derive(Debug, Clone, Copy)]
pub struct Page<'p> {
    /// What kind of tree it belongs to.
    pub kind: TreeKind,
    /// Whether nothing is below it.
    pub is_leaf: bool,
    bytes: &'p [u8],
    usable_bytes: u32,
    /// Where the pointers to the cells begin.
    cells_at: usize,
    cell_count: usize,
    right: u32,
}

/// A row, or an entry of an index, as far as it lies on its page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell<'p> {
    /// The number of the row; zero in an index.
    pub rowid: i64,
    /// How long the record is.
    pub payload_bytes: u64,
    /// What of the record lies on the page.
    pub local: &'p [u8],
    /// The page where the record goes on, zero if it does not.
    pub overflow: u32,
}

impl<'p> Page<'p> {
    /// Reads a page. The first one of a database begins behind the header.
    pub fn parse(layout: &Layout, number: u32, bytes: &'p [u8]) -> Result<Page<'p>, Damage> {
        let bytes = bytes.get(..layout.usable_bytes as usize);
        let bytes = bytes.ok_or(Damage("a page is too short"))?;
        let at = if number == 1 { HEADER_BYTES } else { 0 };
        let (kind, is_leaf) = match bytes.get(at) {
            Some(&INTERIOR_INDEX) => (TreeKind::Index, false),
            Some(&INTERIOR_TABLE) => (TreeKind::Table, false),
            Some(&LEAF_INDEX) => (TreeKind::Index, true),
            Some(&LEAF_TABLE) => (TreeKind::Table, true),
            _ => return Err(Damage("a page of a tree is none")),
        };
        let cell_count = usize::from(half(bytes, at + 3).ok_or(OUTSIDE)?);
        let (cells_at, right) = match is_leaf {
            true => (at + 8, 0),
            false => (at + 12, word(bytes, at + 8).ok_or(OUTSIDE)?),
        };
        if bytes.len() < cells_at + 2 * cell_count {
            return Err(Damage("a page has more cells than room"));
        }
        Ok(Page {
            kind,
            is_leaf,
            bytes,
            usable_bytes: layout.usable_bytes,
            cells_at,
            cell_count,
            right,
        })
    }

    /// Returns how many cells it has.
    pub fn cell_count(&self) -> usize {
        self.cell_count
    }

    /// Returns the pages below, each with the greatest row number it can hold. That of the last is
    /// not known here, and none are in an index.
    pub fn children(&self) -> Result<Vec<(u32, Option<i64>)>, Damage> {
        if self.is_leaf {
            return Ok(Vec::new());
        }
        let mut children = Vec::with_capacity(self.cell_count + 1);
        for index in 0..self.cell_count {
            let cell = self.cell_bytes(index)?;
            let child = word(cell, 0).ok_or(OUTSIDE)?;
            let most = match self.kind {
                TreeKind::Table => Some(varint(&cell[4..])?.0.cast_signed()),
                TreeKind::Index => None,
            };
            children.push((child, most));
        }
        children.push((self.right, None));
        Ok(children)
    }

    /// Returns the first row number on it, `None` if there is none.
    pub fn first_rowid(&self) -> Option<i64> {
        if self.kind == TreeKind::Index || self.cell_count == 0 {
            return None;
        }
        match self.is_leaf {
            true => Some(self.cell(0).ok()?.rowid),
            false => Some(
                varint(self.cell_bytes(0).ok()?.get(4..)?)
                    .ok()?
                    .0
                    .cast_signed(),
            ),
        }
    }

    /// Returns a cell that has a record: any but those of the inner pages of a table.
    pub fn cell(&self, index: usize) -> Result<Cell<'p>, Damage> {
        let mut bytes = self.cell_bytes(index)?;
        if !self.is_leaf {
            bytes = bytes.get(4..).ok_or(OUTSIDE)?;
        }
        let (payload_bytes, len) = varint(bytes)?;
        bytes = &bytes[len..];
        let mut rowid = 0;
        if self.kind == TreeKind::Table {
            let (number, len) = varint(bytes)?;
            (rowid, bytes) = (number.cast_signed(), &bytes[len..]);
        }
        if payload_bytes > PAYLOAD_BYTES_MAX {
            return Err(Damage("a record is impossibly long"));
        }
        let local_bytes = self.local_bytes(payload_bytes);
        let local = bytes.get(..local_bytes).ok_or(OUTSIDE)?;
        let overflow = match local_bytes as u64 == payload_bytes {
            true => 0,
            false => word(bytes, local_bytes).ok_or(OUTSIDE)?,
        };
        Ok(Cell {
            rowid,
            payload_bytes,
            local,
            overflow,
        })
    }

    fn cell_bytes(&self, index: usize) -> Result<&'p [u8], Damage> {
        let at = half(self.bytes, self.cells_at + 2 * index).ok_or(OUTSIDE)?;
        let bytes = self.bytes.get(usize::from(at)..);
        let is_behind = usize::from(at) >= self.cells_at;
        let bytes = bytes.filter(|bytes| is_behind && bytes.len() >= 4);
        bytes.ok_or(OUTSIDE)
    }

    /// How much of a record stays on its page.
    fn local_bytes(&self, payload_bytes: u64) -> usize {
        let usable = u64::from(self.usable_bytes);
        let most = match self.kind {
            TreeKind::Table => usable - 35,
            TreeKind::Index => (usable - 12) * 64 / 255 - 23,
        };
        let least = (usable - 12) * 32 / 255 - 23;
        let local = match payload_bytes <= most {
            true => payload_bytes,
            false => match least + (payload_bytes - least) % (usable - 4) {
                fitting if fitting <= most => fitting,
                _ => least,
            },
        };
        local as usize
    }
}

/// Returns the next page of a record that goes on here, and the bytes of it on this one.
pub fn overflow<'p>(layout: &Layout, bytes: &'p [u8]) -> Result<(u32, &'p [u8]), Damage> {
    let bytes = bytes.get(..layout.usable_bytes as usize).ok_or(OUTSIDE)?;
    Ok((word(bytes, 0).ok_or(OUTSIDE)?, &bytes[4..]))
}

/// Returns the next page that lists free pages, and those this one lists.
pub fn trunk(layout: &Layout, bytes: &[u8]) -> Result<(u32, Vec<u32>), Damage> {
    let bytes = bytes.get(..layout.usable_bytes as usize).ok_or(OUTSIDE)?;
    let count = word(bytes, 4).ok_or(OUTSIDE)? as usize;
    let leaves = bytes[8..].chunks_exact(4);
    if leaves.len() < count {
        return Err(Damage("its free list contradicts itself"));
    }
    let number = |leaf: &[u8]| u32::from_be_bytes([leaf[0], leaf[1], leaf[2], leaf[3]]);
    let next = word(bytes, 0).ok_or(OUTSIDE)?;
    Ok((next, leaves.take(count).map(number).collect()))
}

/// A value in a record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'p> {
    Null,
    Integer(i64),
    Real(f64),
    Text(&'p [u8]),
    Blob(&'p [u8]),
}

/// Returns the first values of a record, at most so many; fewer if it has no more.
pub fn values(record: &[u8], most: usize) -> Result<Vec<Value<'_>>, Damage> {
    let (header_bytes, mut at) = varint(record)?;
    let header_bytes = usize::try_from(header_bytes).map_err(|_| OUTSIDE)?;
    let header = record.get(..header_bytes).ok_or(OUTSIDE)?;
    let mut content = &record[header_bytes..];
    let mut values = Vec::new();
    while at < header_bytes && values.len() < most {
        let (code, len) = varint(&header[at..])?;
        at += len;
        let (value, rest) = content
            .split_at_checked(value_bytes(code)?)
            .ok_or(OUTSIDE)?;
        content = rest;
        values.push(match code {
            0 => Value::Null,
            8 => Value::Integer(0),
            9 => Value::Integer(1),
            1..=6 => Value::Integer(integer(value)),
            7 => Value::Real(f64::from_bits(integer(value).cast_unsigned())),
            code if code % 2 == 0 => Value::Blob(value),
            _ => Value::Text(value),
        });
    }
    Ok(values)
}

/// Returns a record of nothing but the first values of a record. Fails if it has fewer, or if they
/// are not all in what is there of it.
pub fn first_values(record: &[u8], count: usize) -> Result<Vec<u8>, Damage> {
    let (header_bytes, codes_at) = varint(record)?;
    let header_bytes = usize::try_from(header_bytes).map_err(|_| OUTSIDE)?;
    let header = record.get(..header_bytes).ok_or(OUTSIDE)?;
    let (mut at, mut content_bytes) = (codes_at, 0_usize);
    for _ in 0..count {
        let (code, len) = varint(header.get(at..).ok_or(OUTSIDE)?)?;
        at += len;
        content_bytes = content_bytes.saturating_add(value_bytes(code)?);
    }
    let end = header_bytes.checked_add(content_bytes).ok_or(OUTSIDE)?;
    let content = record.get(header_bytes..end).ok_or(OUTSIDE)?;
    let codes = header.get(codes_at..at).ok_or(OUTSIDE)?;
    let mut first = Vec::with_capacity(VARINT_BYTES_MAX + codes.len() + content.len());
    // The length of the header counts itself.
    let len = if codes.len() < 127 { 1 } else { 2 };
    let header_bytes = codes.len() + len;
    match len {
        1 => first.push(header_bytes as u8),
        // Long keys are only compared, never read again: any number of two bytes will do.
        _ => first.extend([0x80 | (header_bytes >> 7) as u8, header_bytes as u8 & 0x7f]),
    }
    first.extend_from_slice(codes);
    first.extend_from_slice(content);
    Ok(first)
}

/// Returns how many bytes a value of this kind takes.
fn value_bytes(code: u64) -> Result<usize, Damage> {
    let bytes = match code {
        0 | 8 | 9 => 0,
        1..=4 => code,
        5 => 6,
        6 | 7 => 8,
        10 | 11 => return Err(Damage("a value is of an unknown kind")),
        _ => (code - 12) / 2,
    };
    usize::try_from(bytes).map_err(|_| OUTSIDE)
}

/// Up to eight bytes, the greatest first, with a sign.
fn integer(bytes: &[u8]) -> i64 {
    let sign = bytes
        .first()
        .map_or(0, |byte| i64::from(byte.cast_signed() >> 7));
    let push = |number: i64, byte: &u8| number << 8 | i64::from(*byte);
    bytes.iter().fold(sign, push)
}

const OUTSIDE: Damage = Damage("something lies outside its page");

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*bytes))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*bytes))
}

/// Returns a number and how many bytes it has.
fn varint(bytes: &[u8]) -> Result<(u64, usize), Damage> {
    let mut number = 0_u64;
    for (index, byte) in bytes.iter().take(VARINT_BYTES_MAX).enumerate() {
        if index == VARINT_BYTES_MAX - 1 {
            return Ok((number << 8 | u64::from(*byte), VARINT_BYTES_MAX));
        }
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Ok((number, index + 1));
        }
    }
    Err(OUTSIDE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rusqlite::Connection;

    fn read_everything(bytes: &[u8]) {
        let Ok(layout) = Layout::parse(bytes) else {
            return;
        };
        let page_bytes = layout.page_bytes as usize;
        for (index, page) in bytes.chunks(page_bytes).enumerate() {
            let _ = overflow(&layout, page);
            let _ = trunk(&layout, page);
            let Ok(page) = Page::parse(&layout, index as u32 + 1, page) else {
                continue;
            };
            let _ = (page.children(), page.first_rowid());
            for cell in 0..page.cell_count() {
                if let Ok(cell) = page.cell(cell) {
                    assert!(cell.local.len() as u64 <= cell.payload_bytes);
                    let _ = values(cell.local, 100);
                }
            }
        }
    }

    fn sample() -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let db = Connection::open(&path).unwrap();
        let sql = "PRAGMA page_size = 512; CREATE TABLE t (a, b);
            CREATE TABLE w (k TEXT PRIMARY KEY, v) WITHOUT ROWID; CREATE INDEX i ON t (b);
            WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
            INSERT INTO t SELECT i * 1.5, zeroblob(i * 7) FROM n;
            INSERT INTO w SELECT a, b FROM t; DELETE FROM t WHERE rowid % 3 = 0";
        db.execute_batch(sql).unwrap();
        drop(db);
        std::fs::read(path).unwrap()
    }

    #[test]
    fn values_are_those_that_were_stored() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let db = Connection::open(&path).unwrap();
        let sql = "CREATE TABLE t (a, b, c, d, e, f, g, h, i);
            INSERT INTO t (rowid, a, b, c, d, e, f, g, h, i) VALUES
            (-5, NULL, 0, 1, -2, 70000, -5000000000, 9007199254740993, 'x', x'0102')";
        db.execute_batch(sql).unwrap();
        drop(db);
        let bytes = std::fs::read(path).unwrap();
        let layout = Layout::parse(&bytes).unwrap();

        let page = Page::parse(&layout, 2, &bytes[4096..8192]).unwrap();
        let cell = page.cell(0).unwrap();

        assert_eq!((page.cell_count(), cell.rowid, cell.overflow), (1, -5, 0));
        let numbers = [0, 1, -2, 70000, -5_000_000_000, 9_007_199_254_740_993];
        let mut expected = vec![Value::Null];
        expected.extend(numbers.map(Value::Integer));
        expected.extend([Value::Text(b"x"), Value::Blob(&[1, 2])]);
        assert_eq!(values(cell.local, 100), Ok(expected));
        assert_eq!(values(cell.local, 2).unwrap().len(), 2);
    }

    #[test]
    fn pages_that_hold_nothing_are_where_sqlite_has_them() {
        let layout = Layout {
            page_bytes: 512,
            usable_bytes: 512,
            user_version: 0,
            first_trunk: 0,
            has_pointer_maps: true,
            encoding: Encoding::Utf8,
        };

        let reserved: Vec<u32> = (1..300).filter(|n| layout.is_reserved(*n)).collect();

        assert_eq!(reserved, [2, 105, 208]);
        assert!(layout.is_reserved((1 << 21) + 1));
    }

    proptest! {
        #[test]
        fn any_change_to_a_database_is_refused_or_read(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40)
        ) {
            static SAMPLE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
            let mut bytes = SAMPLE.get_or_init(sample).clone();
            for (at, value) in changes {
                let at = at.index(bytes.len());
                // The header is for others to judge.
                if at >= 100 {
                    bytes[at] = value;
                }
            }
            read_everything(&bytes);
        }

        #[test]
        fn any_record_is_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = values(&bytes, 50);
            for count in [0, 1, 3] {
                if let Ok(first) = first_values(&bytes, count) {
                    let said = format!("{:?}", values(&bytes, count));
                    assert_eq!(format!("{:?}", values(&first, 50)), said);
                }
            }
        }
    }
}
