//! What the SQLite source asks of SQLite's own file handles. All unsafe code of the source stands
//! here; nothing here knows what the bytes mean.
//!
//! The files are read through the handles of the connection because POSIX locks belong to the
//! process and the file: if this process opened the database or its `-shm` a second time and
//! closed it, the lock that holds the state would be gone.
#![allow(unsafe_code)]

use rusqlite::Connection;
use rusqlite::ffi;
use std::ffi::c_int;
use std::ffi::c_void;
use std::ptr;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::sync::atomic::fence;

/// A file of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The database.
    Database,
    /// The write-ahead log, which is open only while the database uses one.
    Log,
}

/// How much of what was asked for a read found; the rest of the buffer is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// All of it.
    All,
    /// The file ended before.
    Part,
}

/// Bytes at the start of the wal-index that hold its header, twice.
pub(super) const INDEX_BYTES: usize = 96;

/// Bytes of the first region of a wal-index (`WALINDEX_PGSZ` in SQLite's source).
const REGION_BYTES: c_int = 32768;

/// Most bytes read by one call; the length is a C int.
const READ_BYTES: usize = 1 << 30;

/// An SQLite result code.
pub(super) type Code = c_int;

/// Returns true if the connection has the file open. A connection that never writes has a log
/// open exactly if the database is in WAL mode: its rollback journal is never opened.
pub(super) fn is_open(connection: &Connection, part: Part) -> bool {
    file(connection, part).is_some()
}

/// Fills the buffer from an offset of the file.
pub(super) fn read(
    connection: &Connection,
    part: Part,
    buffer: &mut [u8],
    offset: u64,
) -> Result<Found, Code> {
    let mut found = Found::All;
    let mut at = i64::try_from(offset).map_err(|_| ffi::SQLITE_IOERR)?;
    for piece in buffer.chunks_mut(READ_BYTES) {
        let (file, methods) = file(connection, part).ok_or(ffi::SQLITE_MISUSE)?;
        let read = methods.xRead.ok_or(ffi::SQLITE_MISUSE)?;
        // Safety: the handle belongs to the connection, which is borrowed and so stays open and
        // on this thread; SQLite writes at most the length of the piece, which fits a C int.
        let code = unsafe {
            read(
                file.as_ptr(),
                piece.as_mut_ptr().cast::<c_void>(),
                piece.len() as c_int,
                at,
            )
        };
        match code {
            ffi::SQLITE_OK => {}
            ffi::SQLITE_IOERR_SHORT_READ => found = Found::Part,
            other => return Err(other),
        }
        at = at.saturating_add(piece.len() as i64);
    }
    Ok(found)
}

/// Returns the present size of the file.
pub(super) fn file_bytes(connection: &Connection, part: Part) -> Result<u64, Code> {
    let (file, methods) = file(connection, part).ok_or(ffi::SQLITE_MISUSE)?;
    let file_size = methods.xFileSize.ok_or(ffi::SQLITE_MISUSE)?;
    let mut bytes: ffi::sqlite3_int64 = 0;
    // Safety: as in `read`; the size goes to a local of the right type.
    match unsafe { file_size(file.as_ptr(), &mut bytes) } {
        ffi::SQLITE_OK => Ok(bytes.max(0) as u64),
        other => Err(other),
    }
}

/// Returns true if the path of the database names another file by now, or none.
pub(super) fn has_moved(connection: &Connection) -> bool {
    let mut moved: c_int = 0;
    // Safety: the connection is open; for this operation SQLite writes one C int.
    let code = unsafe {
        ffi::sqlite3_file_control(
            connection.handle(),
            c"main".as_ptr(),
            ffi::SQLITE_FCNTL_HAS_MOVED,
            ptr::from_mut(&mut moved).cast::<c_void>(),
        )
    };
    code == ffi::SQLITE_OK && moved != 0
}

/// Returns the two copies of the wal-index header as they are this instant, or none if there is
/// no index that other processes share. To be called in WAL mode only: in any other it would
/// create the `-shm` file.
pub(super) fn index(connection: &Connection) -> Result<Option<[u8; INDEX_BYTES]>, Code> {
    let (file, methods) = file(connection, Part::Database).ok_or(ffi::SQLITE_MISUSE)?;
    if methods.iVersion < 2 {
        return Err(ffi::SQLITE_MISUSE);
    }
    let map = methods.xShmMap.ok_or(ffi::SQLITE_MISUSE)?;
    let mut region: *mut c_void = ptr::null_mut();
    // Safety: as in `read`. Nothing is extended (the fourth argument), so no file changes; SQLite
    // stores a pointer, or null.
    let code = unsafe { map(file.as_ptr(), 0, REGION_BYTES, 0, &mut region) };
    match code {
        // The second: the index may be read only, and another process keeps it up to date.
        ffi::SQLITE_OK | ffi::SQLITE_READONLY => {}
        other => return Err(other),
    }
    let Some(region) = NonNull::new(region) else {
        return Ok(None);
    };
    let words = region.cast::<u32>();
    let mut header = [0; INDEX_BYTES];
    for (index, bytes) in header.chunks_exact_mut(4).enumerate() {
        if index == INDEX_BYTES / 8 {
            // The writer stores the second copy first, with a barrier before the first one.
            fence(Ordering::SeqCst);
        }
        // Safety: SQLite keeps at least `REGION_BYTES` mapped at an address aligned to a page for
        // as long as the connection has the log open, and the index is below that. Other
        // processes write there, hence atomics; relaxed loads may read memory mapped read-only.
        let word = unsafe { AtomicU32::from_ptr(words.as_ptr().add(index)) };
        bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
    }
    fence(Ordering::SeqCst);
    Ok(Some(header))
}

/// A connection to a database that lies in memory and cannot be written.
pub(super) struct Memory {
    // Invariant: the connection goes before the image it reads.
    connection: Connection,
    _image: Vec<u8>,
}

impl Memory {
    /// Opens an image.
    pub(super) fn open(mut image: Vec<u8>) -> rusqlite::Result<Memory> {
        let connection = Connection::open_in_memory()?;
        let bytes = image.len() as ffi::sqlite3_int64;
        // Safety: the image outlives the connection, is never resized, and SQLite neither writes
        // to it nor frees it with these flags.
        let code = unsafe {
            ffi::sqlite3_deserialize(
                connection.handle(),
                c"main".as_ptr(),
                image.as_mut_ptr(),
                bytes,
                bytes,
                ffi::SQLITE_DESERIALIZE_READONLY,
            )
        };
        if code != ffi::SQLITE_OK {
            return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
        }
        Ok(Memory {
            connection,
            _image: image,
        })
    }

    /// Returns the connection.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }
}

/// Returns the handle of a file and its methods, or none if it is not open. Both are asked for
/// anew each time, so that no pointer outlives what it points to.
fn file(
    connection: &Connection,
    part: Part,
) -> Option<(NonNull<ffi::sqlite3_file>, &ffi::sqlite3_io_methods)> {
    let operation = match part {
        Part::Database => ffi::SQLITE_FCNTL_FILE_POINTER,
        Part::Log => ffi::SQLITE_FCNTL_JOURNAL_POINTER,
    };
    let mut file: *mut ffi::sqlite3_file = ptr::null_mut();
    // Safety: the connection is open; for these operations SQLite stores one pointer.
    let code = unsafe {
        ffi::sqlite3_file_control(
            connection.handle(),
            c"main".as_ptr(),
            operation,
            ptr::from_mut(&mut file).cast::<c_void>(),
        )
    };
    let file = NonNull::new(file).filter(|_| code == ffi::SQLITE_OK)?;
    // Safety: a handle that SQLite hands out starts with a pointer to a static table of methods,
    // which is null while the file is closed.
    let methods = unsafe { file.as_ref().pMethods.as_ref() }?;
    Some((file, methods))
}
