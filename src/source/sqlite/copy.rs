//! A private copy of a database with what it needs to be recovered, for the cases in which
//! reading it in place would change something.
//!
//! The copy is made without a lock, so it counts only if nothing changed meanwhile. SQLite then
//! does on it what it would do in place: roll back a hot journal, rebuild an index.
//!
//! Invariant: nothing that the application owns is written, and the copy is as private as can be:
//! a directory of mode 0700 with files of mode 0600.

use super::Refusal;
use super::handle;
use super::handle::Part;
use super::sidecar;
use crate::disk::node::Stat;
use crate::safeguard::Safeguard;
use crate::source::private;
use rusqlite::Connection;
use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// How often the files are copied before they count as always changing.
const TRIES: u32 = 5;

const BLOCK_BYTES: usize = 1 << 20;

/// The name of the copied database in its directory.
const NAME: &str = "copy.db";

/// A journal that belongs to a transaction over several files ends with the name of another
/// journal; this is the end of that end (`aJournalMagic` in SQLite's source).
const JOURNAL_MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];

/// A directory with a copy; it goes when this is dropped.
#[derive(Debug)]
pub(super) struct PrivateCopy {
    directory: PathBuf,
}

impl PrivateCopy {
    /// Copies a database below a directory. `connect` opens the original for reading.
    pub(super) fn create(
        path: &Path,
        room: &Path,
        connect: &dyn Fn() -> Result<Connection, Refusal>,
    ) -> Result<PrivateCopy, Refusal> {
        for _ in 0..TRIES {
            super::check_sidecars(path)?;
            let before = stats(path)?;
            if before.iter().flatten().any(private::is_racy) {
                thread::sleep(private::RACY);
                continue;
            }
            let bytes = before.iter().flatten().map(|stat| stat.size_bytes).sum();
            has_room(room, bytes)?;
            let copy = PrivateCopy {
                directory: private::create_directory(room).map_err(|error| no_room(&error))?,
            };
            let original = connect()?;
            copy.copy_database(&original)?;
            copy.copy_log(path)?;
            let journal = copy.copy_journal(path)?;
            // Order: everything is read before it is looked at again.
            let is_same = stats(path)? == before && !handle::has_moved(&original);
            if is_same || !Safeguard::CopyUnchanged.holds() {
                if let Some(journal) = journal {
                    copy.settle_journal(journal, path)
                        .map_err(|error| no_room(&error))?;
                }
                return Ok(copy);
            }
        }
        Err(Refusal::Changed)
    }

    /// Returns the path of the copied database.
    pub(super) fn database(&self) -> PathBuf {
        self.directory.join(NAME)
    }

    /// The database is read through SQLite's handle, see `handle`.
    fn copy_database(&self, original: &Connection) -> Result<(), Refusal> {
        let unreadable = |code| Refusal::from_code(code, Duration::ZERO);
        let bytes = handle::file_bytes(original, Part::Database).map_err(unreadable)?;
        let mut out = self.new_file("").map_err(|error| no_room(&error))?;
        let mut block = vec![0; BLOCK_BYTES];
        let mut at = 0;
        while at < bytes {
            let len = (bytes - at).min(BLOCK_BYTES as u64) as usize;
            handle::read(original, Part::Database, &mut block[..len], at).map_err(unreadable)?;
            out.write_all(&block[..len])
                .map_err(|error| no_room(&error))?;
            at += len as u64;
        }
        Ok(())
    }

    /// No locks lie on a log, so it may be opened and closed.
    fn copy_log(&self, path: &Path) -> Result<(), Refusal> {
        self.copy_plainly(path, "-wal").map(drop)
    }

    /// Nor on a journal.
    fn copy_journal(&self, path: &Path) -> Result<Option<File>, Refusal> {
        self.copy_plainly(path, "-journal")
    }

    fn copy_plainly(&self, path: &Path, suffix: &str) -> Result<Option<File>, Refusal> {
        let unreadable = |error: io::Error| Refusal::Unreadable {
            reason: format!("its {suffix} file: {error}"),
        };
        // Neither a link nor a pipe that nobody writes to is waited for or followed.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits() as i32)
            .open(sidecar(path, suffix));
        let mut original = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        };
        let mut out = self.new_file(suffix).map_err(|error| no_room(&error))?;
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            let len = original.read(&mut block).map_err(unreadable)?;
            if len == 0 {
                return Ok(Some(out));
            }
            out.write_all(&block[..len])
                .map_err(|error| no_room(&error))?;
        }
    }

    /// Decides what a journal means that is part of a transaction over several files, and makes
    /// it an ordinary one.
    ///
    /// SQLite rolls such a journal back only while the other journal, the super-journal, exists,
    /// and deletes the super-journal once no journal names it any more. On the copy it would look
    /// for the application's own super-journal and might delete it: so its name is cut off here.
    fn settle_journal(&self, mut journal: File, path: &Path) -> io::Result<()> {
        let found = super_journal(&mut journal)?;
        let Some((name, start)) = found.filter(|_| Safeguard::SuperJournalRead.holds()) else {
            return Ok(());
        };
        // Seen from another mount namespace the directory may have another name. A super-journal
        // lies next to the main database of its transaction.
        let sibling = name
            .file_name()
            .and_then(|file_name| path.parent().map(|parent| parent.join(file_name)));
        if name.exists() || sibling.is_some_and(|sibling| sibling.exists()) {
            return journal.set_len(start);
        }
        // The transaction was committed.
        fs::remove_file(sidecar(&self.database(), "-journal"))
    }

    fn new_file(&self, suffix: &str) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(Safeguard::CopyPrivate.mode(0o600))
            .open(sidecar(&self.database(), suffix))
    }
}

impl Drop for PrivateCopy {
    fn drop(&mut self) {
        // What cannot be removed now is in a place that its owner clears.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Returns the name of a super-journal and where in the journal its record begins: the number of
/// the lock page, the name, its length, a sum of its bytes, and the magic, all but the name and
/// the magic in four bytes.
fn super_journal(journal: &mut File) -> io::Result<Option<(PathBuf, u64)>> {
    let bytes = journal.seek(SeekFrom::End(0))?;
    let mut tail = [0; 16];
    if bytes < 20 {
        return Ok(None);
    }
    journal.seek(SeekFrom::Start(bytes - 16))?;
    journal.read_exact(&mut tail)?;
    let word = |at: usize| u32::from_be_bytes([tail[at], tail[at + 1], tail[at + 2], tail[at + 3]]);
    let (len, sum) = (u64::from(word(0)), word(4));
    if tail[8..] != JOURNAL_MAGIC || len == 0 || 4096 < len || bytes - 20 < len {
        return Ok(None);
    }
    let mut name = vec![0; len as usize];
    journal.seek(SeekFrom::Start(bytes - 16 - len))?;
    journal.read_exact(&mut name)?;
    // The sum is over signed characters.
    let found = name
        .iter()
        .fold(0u32, |sum, &byte| sum.wrapping_add(byte as i8 as u32));
    if found != sum {
        return Ok(None);
    }
    let name = PathBuf::from(std::ffi::OsString::from_vec(name));
    Ok(Some((name, bytes - 20 - len)))
}

/// Returns what is known of the database, its log and its journal, without opening any.
fn stats(path: &Path) -> Result<[Option<Stat>; 3], Refusal> {
    let stat = |suffix| match rustix::fs::stat(sidecar(path, suffix)) {
        Ok(stat) => Ok(Some(Stat::from(stat))),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(errno) => Err(Refusal::Unreadable {
            reason: errno.to_string(),
        }),
    };
    Ok([stat("")?, stat("-wal")?, stat("-journal")?])
}

/// Others need the place too: a copy takes half of what is free at most.
fn has_room(room: &Path, bytes: u64) -> Result<(), Refusal> {
    let free = rustix::fs::statvfs(room).map_err(|errno| no_room(&errno.into()))?;
    let free_bytes = free.f_bavail.saturating_mul(free.f_frsize);
    match bytes <= free_bytes / 2 {
        true => Ok(()),
        false => Err(Refusal::NoRoom {
            reason: format!("it needs {bytes} bytes, and {free_bytes} are free"),
        }),
    }
}

fn no_room(error: &io::Error) -> Refusal {
    Refusal::NoRoom {
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_copy_of_what_changed_meanwhile_does_not_count() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("app.db");
        let application = Connection::open(&path).expect("open");
        let changed = application.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)");
        changed.expect("create");
        let looks = Cell::new(0);
        let connect = || {
            looks.set(looks.get() + 1);
            // The files were looked at, and are about to be copied.
            if looks.get() == 1 {
                application
                    .execute_batch("INSERT INTO t VALUES (2)")
                    .expect("insert");
            }
            super::super::open::connect(
                &path,
                rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY,
                Duration::ZERO,
            )
        };

        let copy = PrivateCopy::create(&path, directory.path(), &connect).expect("copy");

        assert_eq!(looks.get(), 2);
        assert!(fs::read(copy.database()).expect("read") == fs::read(&path).expect("read"));
    }
}
