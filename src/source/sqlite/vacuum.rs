//! A compacted copy of a database that nobody else has open.

use rusqlite::Connection;
use rusqlite::OpenFlags;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Writes a vacuumed copy of a private database. The same database and the same SQLite give the
/// same bytes. The error says what SQLite said.
pub fn vacuum_into(path: &Path, copy: &Path) -> Result<(), String> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let vacuum = || {
        let connection = Connection::open_with_flags(path, flags)?;
        // The schema is data like the rest: nothing it names may have side effects.
        connection.execute_batch("PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON")?;
        let name = String::from_utf8_lossy(copy.as_os_str().as_bytes());
        connection.execute("VACUUM INTO ?1", [&name[..]])
    };
    vacuum().map(drop).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_smaller_and_the_same_every_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.db");
        let connection = Connection::open(&path).unwrap();
        let sql = "PRAGMA journal_mode = WAL; CREATE TABLE t (x PRIMARY KEY, y);
            WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 5000)
            INSERT INTO t SELECT n, hex(zeroblob(50)) FROM n; DELETE FROM t WHERE x % 3 > 0;
            PRAGMA wal_checkpoint(TRUNCATE)";
        connection.execute_batch(sql).unwrap();
        drop(connection);
        let before = std::fs::read(&path).unwrap();

        let copies = ["one.db", "two.db"].map(|name| {
            let copy = dir.path().join(name);
            std::fs::write(&path, &before).unwrap();
            vacuum_into(&path, &copy).unwrap();
            copy
        });

        let bytes = copies.clone().map(|copy| std::fs::read(copy).unwrap());
        assert!(bytes[0] == bytes[1] && bytes[0].len() < before.len() / 2);
        let copied = Connection::open(&copies[0]).unwrap();
        let rows = copied.query_row("SELECT count(*) FROM t", [], |row| row.get(0));
        assert_eq!(rows, Ok(1666));
        std::fs::write(&path, "no database, and long enough to be none").unwrap();
        assert!(vacuum_into(&path, &dir.path().join("three.db")).is_err());
    }
}
