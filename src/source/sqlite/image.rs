//! A database file that nobody else has, such as one that was just restored: SQLite is asked about
//! it, and nothing beside it is made or read.

use super::Health;
use super::Refusal;
use super::check;
use super::check_sidecars;
use super::connect;
use super::locate;
use rusqlite::Connection;
use rusqlite::OpenFlags;
use rusqlite::types::ValueRef;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// How thoroughly a database is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The structure of all pages.
    Quick,
    /// That all indexes fit their tables, too.
    Full,
}

/// How long somebody who writes may be in the way.
const PATIENCE: Duration = Duration::from_secs(10);

/// An open image. It must not change while it is open.
pub struct Image {
    connection: Connection,
}

impl Image {
    /// Opens a file as it is: a log beside it is no part of it.
    pub fn open(path: &Path) -> Result<Image, Refusal> {
        let uri = immutable_uri(path);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        Image::begin(connect(Path::new(&uri), flags, Duration::ZERO)?)
    }

    /// Opens the database of an application where it is, log included. Nothing of it is changed,
    /// and no log is merged; a shared memory file may appear beside it.
    pub fn open_in_place(path: &Path) -> Result<Image, Refusal> {
        let path = locate(path)?;
        check_sidecars(&path)?;
        Image::begin(connect(&path, OpenFlags::SQLITE_OPEN_READ_ONLY, PATIENCE)?)
    }

    fn begin(connection: Connection) -> Result<Image, Refusal> {
        // The schema is data like the rest: nothing it names may have side effects.
        let settings = "PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON";
        let set = connection.execute_batch(settings);
        set.map_err(|error| Refusal::from_error(&error, Duration::ZERO))?;
        Ok(Image { connection })
    }

    /// Asks SQLite whether the database is sound.
    pub fn check(&self, depth: Depth) -> Health {
        check::health(&self.connection, depth)
    }

    /// Returns how many rows refer to rows that are not there, as declared by foreign keys.
    pub fn dangling_rows(&self) -> Result<u64, String> {
        let sql = "SELECT count(*) FROM pragma_foreign_key_check";
        let count = self
            .connection
            .query_row(sql, [], |row| row.get::<_, i64>(0));
        count
            .map(i64::cast_unsigned)
            .map_err(|error| error.to_string())
    }

    /// Returns the tables and how many rows each has. What cannot be counted, such as a virtual
    /// table of an extension that is not here, is left out.
    pub fn rows(&self) -> Result<Vec<(String, u64)>, String> {
        let said = |error: rusqlite::Error| error.to_string();
        let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name";
        let mut statement = self.connection.prepare(sql).map_err(said)?;
        let names = statement.query_map([], |row| row.get::<_, String>(0));
        let names: Vec<String> = names.map_err(said)?.flatten().collect();
        let count = |name: String| {
            let sql = format!("SELECT count(*) FROM \"{}\"", name.replace('"', "\"\""));
            let count = self
                .connection
                .query_row(&sql, [], |row| row.get::<_, i64>(0));
            Some((name, count.ok()?.cast_unsigned()))
        };
        Ok(names.into_iter().filter_map(count).collect())
    }

    /// Returns the first value of the first row of a query, as text; `None` if there is no row.
    pub fn value(&self, sql: &str) -> Result<Option<String>, String> {
        let mut statement = self
            .connection
            .prepare(sql)
            .map_err(|error| error.to_string())?;
        let value = statement.query_row([], |row| {
            Ok(match row.get_ref(0)? {
                ValueRef::Null => "null".to_string(),
                ValueRef::Integer(number) => number.to_string(),
                ValueRef::Real(number) => number.to_string(),
                ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
                ValueRef::Blob(bytes) => crate::id::hex(bytes),
            })
        });
        match value {
            Ok(value) => Ok(Some(value)),
            Err(rusqlite::Error::QueryReturnedNoRows) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Returns the name by which SQLite opens a file without locks, logs and shared memory.
fn immutable_uri(path: &Path) -> OsString {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                uri.push(char::from(*byte));
            }
            _ => uri.push_str(&format!("%{byte:02x}")),
        }
    }
    uri.push_str("?immutable=1");
    uri.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_a_strange_name_is_asked_and_nothing_appears_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a b?c#d%e ü.db");
        let db = Connection::open(&path).unwrap();
        let sql = "PRAGMA journal_mode = wal; CREATE TABLE \"t\"\"1\" (x);
            INSERT INTO \"t\"\"1\" VALUES (1), (2)";
        db.execute_batch(sql).unwrap();
        drop(db);

        let image = Image::open(&path).unwrap();

        assert_eq!(image.check(Depth::Full), Health::Sound);
        assert_eq!(image.rows().unwrap(), [("t\"1".to_string(), 2)]);
        assert_eq!(image.dangling_rows(), Ok(0));
        let sql = "SELECT sum(x) FROM \"t\"\"1\"";
        assert_eq!(image.value(sql), Ok(Some("3".to_string())));
        assert_eq!(image.value("SELECT 1 WHERE 0"), Ok(None));
        assert!(image.value("DELETE FROM \"t\"\"1\"").is_err());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_database_in_place_is_read_with_its_log_which_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.db");
        let db = Connection::open(&path).unwrap();
        let sql = "PRAGMA journal_mode = wal; CREATE TABLE t (x); INSERT INTO t VALUES (1);
            PRAGMA user_version = 7";
        db.execute_batch(sql).unwrap();
        let log = super::super::sidecar(&path, "-wal");
        let before = std::fs::read(&log).unwrap();

        let image = Image::open_in_place(&path).unwrap();

        assert_eq!(image.check(Depth::Full), Health::Sound);
        assert_eq!(image.value("PRAGMA user_version"), Ok(Some("7".into())));
        assert!(image.value("INSERT INTO t VALUES (2) RETURNING x").is_err());
        drop(image);
        assert_eq!(std::fs::read(&log).unwrap(), before);
    }

    #[test]
    fn damage_and_dangling_rows_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.db");
        let db = Connection::open(&path).unwrap();
        let sql = "PRAGMA foreign_keys = off; CREATE TABLE p (id INTEGER PRIMARY KEY);
            CREATE TABLE c (p REFERENCES p (id), t); INSERT INTO c VALUES (7, 'x');
            CREATE INDEX i ON c (t)";
        db.execute_batch(sql).unwrap();
        drop(db);

        assert_eq!(Image::open(&path).unwrap().dangling_rows(), Ok(1));
        let mut bytes = std::fs::read(&path).unwrap();
        // The only entry of the index, at the end of the last page.
        let at = bytes.len() - 1;
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let image = Image::open(&path).unwrap();
        assert!(matches!(image.check(Depth::Full), Health::Damaged(_)));
    }
}
