//! How many values at the front of a record are the key of a table without row numbers. Only the
//! SQL of the table says so, and SQLite itself reads it: as a schema, so that nothing of it runs.

use rusqlite::Connection;

/// Returns the number, `None` if SQLite does not understand the table, or not as such a table.
pub fn key_columns(name: &str, sql: &str) -> Option<usize> {
    let connection = Connection::open_in_memory().ok()?;
    let place = "PRAGMA trusted_schema=OFF;
        CREATE TABLE place (k PRIMARY KEY) WITHOUT ROWID; PRAGMA writable_schema=ON";
    connection.execute_batch(place).ok()?;
    let change = "UPDATE sqlite_schema SET name = ?1, tbl_name = ?1, sql = ?2";
    connection.execute(change, [name, sql]).ok()?;
    connection
        .execute_batch("PRAGMA writable_schema=RESET")
        .ok()?;
    let count = "SELECT count(*) FROM pragma_table_xinfo(?1) WHERE pk > 0";
    let count: i64 = connection.query_row(count, [name], |row| row.get(0)).ok()?;
    usize::try_from(count).ok().filter(|&count| count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_what_sqlite_makes_of_the_declaration() {
        let table = [
            (
                "t",
                "CREATE TABLE t (a PRIMARY KEY, b) WITHOUT ROWID",
                Some(1),
            ),
            (
                "T x",
                "CREATE TABLE \"T x\" (a, b, c, PRIMARY KEY (c, a)) WITHOUT ROWID",
                Some(2),
            ),
            (
                "t",
                "CREATE TABLE t (a, b, PRIMARY KEY (a COLLATE own DESC, b)) WITHOUT ROWID",
                Some(2),
            ),
            ("t", "CREATE TABLE t (a, b)", None),
            ("t", "CREATE TABLE t AS SELECT 1", None),
            ("t", "DROP TABLE t", None),
            ("t", "", None),
        ];
        for (name, sql, columns) in table {
            assert_eq!(key_columns(name, sql), columns, "{sql}");
        }
    }
}
