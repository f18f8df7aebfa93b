//! Looking into a file that this process may hold locks on.

use super::Refusal;
use super::connect;
use super::handle;
use rusqlite::OpenFlags;
use std::path::Path;
use std::time::Duration;

/// Reads the first bytes of any file through SQLite, which knows how to close a file on which this
/// process holds locks: nobody else may. Returns whether there are that many.
pub fn first_bytes(path: &Path, buffer: &mut [u8]) -> Result<bool, Refusal> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY, Duration::ZERO)?;
    let read = handle::read(&connection, handle::Part::Database, buffer, 0);
    let found = read.map_err(|code| Refusal::from_code(code, Duration::ZERO))?;
    Ok(matches!(found, handle::Found::All))
}
