//! A database as one stream of its rows: for applications that embed this library and have the
//! database open, or want to take it to another version of sled.
//!
//! ```text
//! "stsled1\n" | per tree: 1, name | per row: 2, key, value | 0, BLAKE3 of all before it
//! ```
//! Names, keys and values are a length of 4 bytes, little-endian, and so many bytes.
//!
//! sled has no view of several rows at one instant: what others write meanwhile may or may not be
//! in the stream, row by row. Who needs one instant stops its writers for as long.

use std::io;
use std::io::Read;
use std::io::Write;

const MAGIC: [u8; 8] = *b"stsled1\n";
const END: u8 = 0;
const TREE: u8 = 1;
const ROW: u8 = 2;

/// Writes all trees of a database to a stream, and returns how many rows there were. Unlike
/// `Db::export`, what cannot be read is an error.
pub fn export(db: &::sled::Db, out: impl Write) -> io::Result<u64> {
    let mut out = Hashed::new(out);
    let mut rows = 0;
    out.write_all(&MAGIC)?;
    let mut names = db.tree_names();
    names.sort();
    for name in names {
        out.write_all(&[TREE])?;
        put(&mut out, &name)?;
        for row in db.open_tree(&name)?.iter() {
            let (key, value) = row?;
            out.write_all(&[ROW])?;
            put(&mut out, &key)?;
            put(&mut out, &value)?;
            rows += 1;
        }
    }
    out.write_all(&[END])?;
    let hash = *out.hasher.finalize().as_bytes();
    out.inner.write_all(&hash)?;
    out.inner.flush()?;
    Ok(rows)
}

/// Puts the rows of a stream into an empty database, flushes it, and returns how many there were.
/// After an error the database holds a part of them, and is to be removed.
pub fn import(db: &::sled::Db, input: impl Read) -> io::Result<u64> {
    for name in db.tree_names() {
        if !db.open_tree(name)?.is_empty() {
            return Err(malformed("the database to import into is not empty"));
        }
    }
    let mut input = Hashed::new(input);
    if array::<8>(&mut input)? != MAGIC {
        return Err(malformed("it is no export of a sled database"));
    }
    let (mut tree, mut rows) = (None, 0);
    loop {
        match (array::<1>(&mut input)?, &tree) {
            ([TREE], _) => tree = Some(db.open_tree(take(&mut input)?)?),
            ([ROW], Some(tree)) => {
                let (key, value) = (take(&mut input)?, take(&mut input)?);
                if tree.insert(key, value)?.is_some() {
                    return Err(malformed("the export has a row twice"));
                }
                rows += 1;
            }
            ([END], _) => break,
            _ => return Err(malformed("the export is damaged")),
        }
    }
    let hash = *input.hasher.finalize().as_bytes();
    if array::<32>(&mut input)? != hash {
        return Err(malformed("the export is damaged"));
    }
    db.flush()?;
    Ok(rows)
}

fn put(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let len = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    out.write_all(&len.to_le_bytes())?;
    out.write_all(bytes)
}

fn take(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let len = u32::from_le_bytes(array(input)?);
    // Not more is held than there is, whatever the length says.
    let mut bytes = Vec::new();
    input.take(u64::from(len)).read_to_end(&mut bytes)?;
    match bytes.len() == len as usize {
        true => Ok(bytes),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn array<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn malformed(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// Hashes what passes.
struct Hashed<T> {
    inner: T,
    hasher: blake3::Hasher,
}

impl<T> Hashed<T> {
    fn new(inner: T) -> Hashed<T> {
        Hashed {
            inner,
            hasher: blake3::Hasher::new(),
        }
    }
}

impl<T: Write> Write for Hashed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Hashed<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..len]);
        Ok(len)
    }
}
