//! The SQLite source against the real library. Writers in this process are other connections:
//! SQLite keeps the locks of its own connections apart. Where it matters that the writer is
//! another process, it is one.

mod image;
mod refusals;
mod torture;

use super::*;
use rusqlite::config::DbConfig;
use std::fs;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(5);
const GROUP_BYTES: usize = 256 << 10;

/// A directory with a database in it.
struct Place {
    directory: TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Place {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.db");
        Place { directory, path }
    }

    /// Opens a connection of the application.
    fn application(&self) -> Connection {
        let connection = Connection::open(&self.path).unwrap();
        connection.busy_timeout(PATIENCE).unwrap();
        connection.execute_batch("pragma synchronous=off").unwrap();
        connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
            .unwrap();
        connection
    }

    fn source(&self) -> Database {
        Database::open(&self.path, PATIENCE).unwrap()
    }

    fn room(&self) -> PathBuf {
        let room = self.directory.path().join("room");
        let _ = fs::create_dir(&room);
        room
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()
    }

    /// Copies the files of a database as a crash would leave them.
    fn crashed(&self) -> Place {
        let other = Place::new();
        for suffix in ["", "-wal", "-journal"] {
            if let Ok(bytes) = fs::read(sidecar(&self.path, suffix)) {
                fs::write(sidecar(&other.path, suffix), bytes).unwrap();
            }
        }
        other
    }
}

fn image_of(source: &mut Database, free: FreeLeaves) -> Vec<u8> {
    source.prepare(free).unwrap();
    let mut image = vec![0xee; source.facts().image_bytes() as usize];
    for (index, group) in image.chunks_mut(GROUP_BYTES).enumerate() {
        source.read_at((index * GROUP_BYTES) as u64, group).unwrap();
    }
    image
}

fn capture(source: &mut Database, free: FreeLeaves) -> Vec<u8> {
    source.pin().unwrap();
    let image = image_of(source, free);
    source.unpin();
    image
}

/// Opens an image as a file of its own, after the full check.
fn opened(image: &[u8]) -> (TempDir, Connection) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.db");
    fs::write(&path, image).unwrap();
    let connection = Connection::open(&path).unwrap();
    let verdict: String = connection
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(verdict, "ok");
    (directory, connection)
}

fn number(connection: &Connection, query: &str) -> i64 {
    connection
        .query_row(query, [], |row| row.get(0))
        .unwrap_or_else(|error| panic!("{query}: {error}"))
}
