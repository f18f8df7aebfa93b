//! Judges the databases of an application: whether each is sound, what it holds, and whether what
//! somebody claims of it is true. What follows from the verdict is for others.

use crate::context::Context;
use crate::disk::unnamed_file;
use crate::error::Error;
use crate::error::Result;
use crate::format::database::DatabaseRecord;
use crate::format::database::Engine;
use crate::source::redb::check_integrity;
use crate::source::redb::prove;
use crate::source::sled::Health as SledHealth;
use crate::source::sled::check as check_sled;
use crate::source::sqlite;
use crate::source::sqlite::Depth;
use crate::source::sqlite::Health;
use crate::source::sqlite::Image;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A query and what it must answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assertion {
    /// The path of the database below the root.
    pub database: String,
    /// A query that yields one value.
    pub sql: String,
    /// The value, as text.
    pub expect: String,
}

/// Whose the databases are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Restored copies that are thrown away: engines may repair them, and are seen to.
    Ours,
    /// The application's, in place: they are read with their logs, and nothing is changed.
    Theirs,
}

/// What was found out about one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// Its path below the root.
    pub path: Vec<u8>,
    /// Its engine.
    pub engine: Engine,
    /// Whether it is sound.
    pub verdict: Verdict,
    /// Its tables, and how many rows each has, as far as they can be counted.
    pub rows: Vec<(String, u64)>,
    /// Rows that refer to rows that are not there. An application may mean that, so it is no
    /// damage by itself.
    pub dangling_rows: u64,
    /// SQLite: the application's own version.
    pub user_version: Option<u32>,
}

/// Whether a database is sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Sound,
    /// It is not, or not there.
    Damaged(String),
    /// That cannot be told here, for example for want of the application's own collations.
    Unknown(String),
}

impl Judged {
    /// Returns the sum of all rows.
    pub fn row_count(&self) -> u64 {
        self.rows.iter().map(|(_, rows)| rows).sum()
    }
}

/// Judges all databases below a root.
pub fn judge(
    cx: &Context,
    root: &Path,
    records: &[DatabaseRecord],
    whose: Whose,
) -> Result<Vec<Judged>> {
    let mut all = Vec::with_capacity(records.len());
    for record in records {
        cx.check()?;
        let path = root.join(OsStr::from_bytes(&record.path));
        let mut judged = Judged {
            path: record.path.clone(),
            engine: record.engine,
            verdict: Verdict::Sound,
            rows: Vec::new(),
            dangling_rows: 0,
            user_version: None,
        };
        judged.verdict = match (path.exists(), record.engine) {
            (false, _) => Verdict::Damaged("it is not there".to_string()),
            (true, Engine::Sqlite) => of_sqlite(&path, whose, &mut judged),
            (true, Engine::Redb) => of_redb(cx, &path, whose, &mut judged)?,
            (true, Engine::Sled) => of_sled(&path, whose),
        };
        all.push(judged);
    }
    Ok(all)
}

/// Returns which assertions do not hold, and why.
pub fn broken(root: &Path, assertions: &[Assertion], whose: Whose) -> Vec<String> {
    let broken = assertions.iter().filter_map(|assertion| {
        let Assertion {
            database,
            sql,
            expect,
        } = assertion;
        let path = root.join(database);
        let found = match path.is_file() {
            false => "there is no such file".to_string(),
            true => match open(&path, whose).map(|image| image.value(sql)) {
                Ok(Ok(Some(value))) if value == *expect => return None,
                Ok(Ok(Some(value))) => format!("it is {value:?}"),
                Ok(Ok(None)) => "there is no row".to_string(),
                Ok(Err(error)) => error,
                Err(refusal) => refusal.to_string(),
            },
        };
        Some(format!(
            "assertion on {database}: `{sql}` must be {expect:?}: {found}"
        ))
    });
    broken.collect()
}

fn open(path: &Path, whose: Whose) -> Result<Image, sqlite::Refusal> {
    match whose {
        Whose::Ours => Image::open(path),
        Whose::Theirs => Image::open_in_place(path),
    }
}

fn of_sqlite(path: &Path, whose: Whose, judged: &mut Judged) -> Verdict {
    if whose == Whose::Ours {
        // What was copied as plain files has its log beside it.
        match sqlite::merge_log(path) {
            Ok(_) => {}
            Err(refusal) => return Verdict::Damaged(refusal.to_string()),
        }
    }
    let image = match open(path, whose) {
        Ok(image) => image,
        Err(refusal) => return Verdict::Damaged(refusal.to_string()),
    };
    let version = image.value("PRAGMA user_version").ok().flatten();
    // SQLite shows it as signed.
    let version = version.and_then(|version| version.parse::<i32>().ok());
    judged.user_version = version.map(i32::cast_unsigned);
    match image.check(Depth::Full) {
        Health::Damaged(reason) => return Verdict::Damaged(reason),
        Health::Unknown(reason) => return Verdict::Unknown(reason),
        Health::Sound => {}
    }
    match image.rows() {
        Ok(rows) => judged.rows = rows,
        Err(reason) => return Verdict::Unknown(reason),
    }
    // A foreign key may name a table that is not there: that is no row that dangles.
    judged.dangling_rows = image.dangling_rows().unwrap_or(0);
    Verdict::Sound
}

fn of_redb(cx: &Context, path: &Path, whose: Whose, judged: &mut Judged) -> Result<Verdict> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let spool = unnamed_file(path.parent().unwrap_or(Path::new(".")))?;
    let proved = prove(file, spool, &mut || cx.check().is_ok());
    cx.check()?;
    if let Err(refusal) = proved {
        return Ok(Verdict::Damaged(refusal.to_string()));
    }
    if whose == Whose::Theirs {
        return Ok(Verdict::Sound);
    }
    Ok(match check_integrity(path) {
        Ok(rows) => {
            judged.rows = rows;
            Verdict::Sound
        }
        Err(reason) => Verdict::Damaged(reason),
    })
}

fn of_sled(path: &Path, whose: Whose) -> Verdict {
    if whose == Whose::Theirs {
        return Verdict::Unknown("sled can be opened only by changing it".to_string());
    }
    match check_sled(path) {
        SledHealth::Sound => Verdict::Sound,
        SledHealth::Damaged(reason) => Verdict::Damaged(reason),
        SledHealth::Unknown(reason) => Verdict::Unknown(reason),
    }
}
