//! Which table or index each page of a database belongs to, as SQLite itself counts them.
//!
//! The bytes come from wherever the caller has them and lie in a private directory meanwhile, which
//! goes when this returns. What a run that is killed leaves there is removed by the next backup.

use super::MAGIC;
use super::check::FORMAT_VERSIONS;
use crate::error::Error;
use crate::error::Result;
use crate::source::private;
use rusqlite::Connection;
use rusqlite::OpenFlags;
use std::collections::HashMap;
use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

/// A page in use.
#[derive(Debug, Clone, Copy)]
pub struct PageOf<'a> {
    /// The table or index it holds.
    pub name: &'a str,
    /// The table: itself, or the one that is indexed.
    pub table: &'a str,
    /// Its number, from 1.
    pub number: u64,
    /// How long it is.
    pub page_bytes: u64,
}

/// Has `fill` write a database into a private file below `room`, and visits every page that a table
/// or an index uses. Fails if the database makes no sense to SQLite.
pub fn visit_pages(
    room: &Path,
    fill: &mut dyn FnMut(&mut File) -> Result<()>,
    visit: &mut dyn FnMut(PageOf<'_>) -> Result<()>,
) -> Result<()> {
    let made = private::create_directory(room).map_err(Error::io("create a directory in", room))?;
    let directory = Directory(made);
    let path = directory.0.join("image.db");
    let failed = |action| Error::io(action, &path);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    let mut file = options.open(&path).map_err(failed("create"))?;
    fill(&mut file)?;
    let mut magic = [0; MAGIC.len()];
    let is_long_enough = file.read_exact_at(&mut magic, 0).is_ok();
    if !is_long_enough || magic != *MAGIC {
        return Ok(());
    }
    // An image has no log: SQLite must not look for one.
    let versions = file.write_all_at(&[1, 1], FORMAT_VERSIONS.start as u64);
    versions.map_err(failed("write"))?;
    drop(file);
    let mut stopped = Ok(());
    let read = read_pages(&path, &mut |page| {
        stopped = visit(page);
        stopped.is_ok()
    });
    stopped?;
    read.map_err(|error| Error::Refused {
        reason: format!("SQLite makes no sense of it: {error}"),
    })
}

fn read_pages(path: &Path, visit: &mut dyn FnMut(PageOf<'_>) -> bool) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    // The schema is data like the rest: nothing it names may have side effects.
    connection.execute_batch("PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON")?;
    let mut tables: HashMap<String, String> = HashMap::new();
    let mut schema = connection.prepare("SELECT name, tbl_name FROM sqlite_schema")?;
    let mut rows = schema.query([])?;
    while let Some(row) = rows.next()? {
        if let (Ok(name), Ok(table)) = (row.get(0), row.get(1)) {
            tables.insert(name, table);
        }
    }
    let mut pages = connection.prepare("SELECT name, pageno, pgsize FROM dbstat")?;
    let mut rows = pages.query([])?;
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let (number, page_bytes): (i64, i64) = (row.get(1)?, row.get(2)?);
        let page = PageOf {
            table: tables.get(&name).unwrap_or(&name),
            name: &name,
            number: u64::try_from(number).unwrap_or(0),
            page_bytes: u64::try_from(page_bytes).unwrap_or(0),
        };
        if !visit(page) {
            break;
        }
    }
    Ok(())
}

/// A directory that goes with everything in it.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::io::Write;

    #[test]
    fn every_page_in_use_belongs_to_a_table_or_an_index() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("app.db");
        let conn = Connection::open(&path).unwrap();
        let sql = "PRAGMA journal_mode = WAL; CREATE TABLE big (x, y); CREATE INDEX i ON big (x);
            CREATE TABLE small (x);
            WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
            INSERT INTO big SELECT i, randomblob(50) FROM n; INSERT INTO small VALUES (1)";
        conn.execute_batch(sql).unwrap();
        drop(conn);
        let image = fs::read(&path).unwrap();
        let mut fill = |file: &mut File| {
            let written = file.write_all(&image);
            written.map_err(Error::io("write", "the image"))
        };
        let mut seen: BTreeMap<(String, String), u64> = BTreeMap::new();

        visit_pages(room.path(), &mut fill, &mut |page| {
            let name = (page.table.to_string(), page.name.to_string());
            *seen.entry(name).or_default() += page.page_bytes;
            Ok(())
        })
        .unwrap();

        assert_eq!(seen.values().sum::<u64>(), image.len() as u64);
        let name = |table: &str, name: &str| (table.to_string(), name.to_string());
        assert!(seen[&name("big", "big")] > seen[&name("big", "i")]);
        assert_eq!(seen[&name("small", "small")], 4096);
        assert_eq!(
            fs::read_dir(room.path()).unwrap().count(),
            1,
            "and nothing is left"
        );
    }

    #[test]
    fn what_is_no_database_has_no_pages() {
        let room = tempfile::tempdir().unwrap();
        let mut fill = |file: &mut File| {
            let written = file.write_all(b"text");
            written.map_err(Error::io("write", "the image"))
        };

        let visited = visit_pages(room.path(), &mut fill, &mut |_| panic!("a page"));

        assert!(visited.is_ok());
    }
}
