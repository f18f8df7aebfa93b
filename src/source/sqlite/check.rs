//! Asks SQLite whether captured bytes are a sound database.

use super::Depth;
use super::handle::Memory;
use rusqlite::Connection;

/// What SQLite says about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Nothing is wrong with it.
    Sound,
    /// Something is: the first thing it found.
    Damaged(String),
    /// It cannot tell, for example for want of the application's own functions or collations.
    Unknown(String),
}

/// Where the header says whether the database has a write-ahead log: for writers, for readers.
pub(super) const FORMAT_VERSIONS: std::ops::Range<usize> = 18..20;

/// Runs `PRAGMA quick_check` on an image in memory.
pub fn quick_check(mut image: Vec<u8>) -> Health {
    if image.is_empty() {
        return Health::Sound;
    }
    // An image has no log next to it, and a database in memory cannot have one.
    if let Some(versions) = image.get_mut(FORMAT_VERSIONS) {
        versions.fill(1);
    }
    match Memory::open(image) {
        Ok(memory) => health(memory.connection(), Depth::Quick),
        Err(error) => Health::Unknown(error.to_string()),
    }
}

/// Asks about the database of a connection.
pub(super) fn health(connection: &Connection, depth: Depth) -> Health {
    let sql = match depth {
        Depth::Quick => "PRAGMA quick_check(1)",
        Depth::Full => "PRAGMA integrity_check(1)",
    };
    // The schema is data like the rest: nothing it names may have side effects. Rows that break a
    // constraint are for the application to judge, and its expressions are for it to compute:
    // whoever may write a database could have them take for ever.
    let settings = "PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON;
        PRAGMA ignore_check_constraints=ON";
    let result = connection
        .execute_batch(settings)
        .and_then(|()| connection.query_row(sql, [], |row| row.get::<_, String>(0)));
    match result {
        Ok(line) if line == "ok" => Health::Sound,
        Ok(line) => Health::Damaged(line),
        Err(error) => match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
                Health::Damaged(error.to_string())
            }
            _ => Health::Unknown(error.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_break_a_constraint_are_no_damage_and_its_expressions_are_not_computed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.db");
        let conn = rusqlite::Connection::open(&path).unwrap();
        let sql = "CREATE TABLE t (x CHECK (x > 1)); PRAGMA ignore_check_constraints = ON;
            INSERT INTO t VALUES (0)";
        conn.execute_batch(sql).unwrap();
        drop(conn);

        assert_eq!(quick_check(std::fs::read(&path).unwrap()), Health::Sound);
    }
}
