//! Opening what has to be captured, in place or as a private copy.

use crate::disk::unnamed_file;
use crate::format::database::Method;
use crate::ops::backup::databases::Io;
use crate::ops::backup::databases::find::Sniffed;
use crate::ops::backup::databases::gate::Looks;
use crate::ops::backup::databases::group::Handle;
use crate::ops::backup::databases::group::Refusal;
use crate::ops::backup::databases::names::Due;
use crate::ops::backup::source::Source;
use crate::source;
use crate::source::files::Stat;
use std::time::Duration;

/// How long one try to open or pin a database waits for a lock.
const PATIENCE: Duration = Duration::from_millis(200);
/// How often a database is opened that is replaced all the time.
const OPENS_MAX: u32 = 5;

/// Opens what is at the path; again if that was replaced since it was looked at.
pub(super) fn open(
    source: &Source,
    io: &Io<'_, '_>,
    due: &mut Due,
    has_other: bool,
) -> Result<(Handle, Method), Refusal> {
    let mut tries = 0;
    loop {
        tries += 1;
        let opened = match due.sniffed {
            Sniffed::Redb => open_redb(source, io, &due.path),
            // Another name of a file that is open, with logs of its own.
            _ if has_other => copy_sqlite(source, io, &due.path, &due.stat),
            _ => open_sqlite(source, io, &due.path, &due.stat),
        };
        let is_replaced = opened.as_ref().is_err_and(Refusal::is_changed);
        let now = Looks::of(&source.tree, &due.path);
        match now {
            Ok(Some((looks, stat))) if is_replaced && tries < OPENS_MAX => {
                (due.looks, due.stat) = (looks, stat);
            }
            _ => return opened,
        }
    }
}

fn open_sqlite(
    source: &Source,
    io: &Io<'_, '_>,
    path: &[u8],
    stat: &Stat,
) -> Result<(Handle, Method), Refusal> {
    let absolute = source.absolute(path);
    let opened = source::sqlite::Database::open(&absolute, PATIENCE);
    // A first pin tells whether it can be read where it is.
    let tried = opened.and_then(|mut database| {
        match database.pin() {
            Ok(()) | Err(source::sqlite::Refusal::Busy { .. }) => database.unpin(),
            Err(refusal) => return Err(refusal),
        }
        Ok((database, Method::Transaction))
    });
    let opened = match tried {
        Err(source::sqlite::Refusal::NeedsCopy { .. }) => {
            return copy_sqlite(source, io, path, stat);
        }
        other => other,
    };
    let (database, method) = opened.map_err(Refusal::Sqlite)?;
    same_file(&database, stat)?;
    Ok((Handle::Sqlite(Box::new(database)), method))
}

pub(super) fn copy_sqlite(
    source: &Source,
    io: &Io<'_, '_>,
    path: &[u8],
    stat: &Stat,
) -> Result<(Handle, Method), Refusal> {
    let absolute = source.absolute(path);
    let copied = source::sqlite::Database::open_copy(&absolute, io.room, PATIENCE);
    let pinned = copied.and_then(|mut database| {
        database.pin()?;
        Ok(database)
    });
    let database = pinned.map_err(Refusal::Sqlite)?;
    same_file(&database, stat)?;
    Ok((Handle::Sqlite(Box::new(database)), Method::PrivateCopy))
}

fn open_redb(source: &Source, io: &Io<'_, '_>, path: &[u8]) -> Result<(Handle, Method), Refusal> {
    let file = source.tree.open_file(path);
    let file = file.map_err(|problem| {
        let cause = std::io::Error::other(problem.message);
        Refusal::Redb(source::redb::Refusal::Unreadable { cause })
    })?;
    let spool = unnamed_file(io.room).map_err(|error| {
        let cause = std::io::Error::other(error.to_string());
        Refusal::Redb(source::redb::Refusal::NoSpool { cause })
    })?;
    let file = file.into_file();
    let opened = source::redb::Database::open(file, spool).map_err(Refusal::Redb)?;
    Ok((Handle::Redb(Box::new(opened)), Method::Walk))
}

/// SQLite opens by path, and whoever may write to the source may make a path lead elsewhere.
fn same_file(database: &source::sqlite::Database, stat: &Stat) -> Result<(), Refusal> {
    match database.is_file(stat.device, stat.inode) {
        true => Ok(()),
        false => Err(Refusal::Sqlite(source::sqlite::Refusal::Changed)),
    }
}
