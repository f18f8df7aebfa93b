//! Finding the files of a database and connecting to it, without opening anything by hand: closing
//! it would drop the locks that this process holds.

use super::Refusal;
use crate::safeguard::Safeguard;
use rusqlite::Connection;
use rusqlite::OpenFlags;
use rusqlite::config::DbConfig;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

/// Returns the path of a file that belongs to a database.
pub(super) fn sidecar(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Returns the real path of a database: its sidecars lie next to that. Opens nothing, because
/// the close would drop locks, and a pipe would block.
pub(super) fn locate(path: &Path) -> Result<PathBuf, Refusal> {
    let unreadable = |error: std::io::Error| Refusal::Unreadable {
        reason: error.to_string(),
    };
    let path = fs::canonicalize(path).map_err(unreadable)?;
    if !fs::metadata(&path).map_err(unreadable)?.is_file() {
        return Err(Refusal::Unreadable {
            reason: "it is no regular file".into(),
        });
    }
    Ok(path)
}

/// Refuses a database with something else than a file as its log or journal: SQLite would open a
/// pipe, and wait.
pub(super) fn check_sidecars(path: &Path) -> Result<(), Refusal> {
    for suffix in ["-wal", "-journal"] {
        if is_no_file(&sidecar(path, suffix)) && Safeguard::LogIsFile.holds() {
            return Err(Refusal::Unreadable {
                reason: format!("its {suffix} file is no regular file"),
            });
        }
    }
    Ok(())
}

/// Returns true if something is there and is no file.
pub(super) fn is_no_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_file())
}

pub(super) fn connect(
    path: &Path,
    access: OpenFlags,
    patience: Duration,
) -> Result<Connection, Refusal> {
    // A cache that the rest of the process shares would mean shared transactions too.
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_PRIVATE_CACHE;
    let open = || {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(patience)?;
        // The last connection that closes copies the log back and deletes it. With a descriptor
        // that cannot write it would fail to, but it should not even try.
        let is_kept = Safeguard::NeverCheckpointed.holds();
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, is_kept)?;
        // A mapped file that somebody truncates would end the process.
        connection.execute_batch("PRAGMA mmap_size=0")?;
        Ok(connection)
    };
    open().map_err(|error: rusqlite::Error| Refusal::Unreadable {
        reason: match rustix::fs::access(path, rustix::fs::Access::READ_OK) {
            Ok(()) => error.to_string(),
            Err(errno) => errno.to_string(),
        },
    })
}
