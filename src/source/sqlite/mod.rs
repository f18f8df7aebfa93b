//! One live SQLite database as a consistent image, read while its application writes. What
//! becomes of the bytes is left to others.
//!
//! A read transaction holds one state; the image is the database file with the committed frames
//! of the write-ahead log over it, read through SQLite's own file handles, without a temporary
//! copy and in bounded memory.
//!
//! Invariant (I11): the image is a committed state that holds every commit acknowledged before
//! `pin` began.
//! Invariant (I12): the database file and the frames of its log are never changed, nothing is
//! checkpointed, and no exclusive lock is taken. At most an `-shm` or an empty `-wal` file
//! appears, with the owner and the mode of the database.
//!
//! While a state is held, no one in this process may open and close the database or its `-shm`
//! file, not even to look at it: POSIX locks belong to the process, and the first close drops
//! them all.

pub mod btree;
mod check;
mod copy;
mod facts;
mod free;
mod handle;
mod header;
mod image;
mod keys;
mod merge;
mod open;
mod overlay;
mod peek;
mod refusal;
mod tables;
mod vacuum;

pub use check::Health;
pub use check::quick_check;
pub use facts::Facts;
pub use header::MAGIC;
pub use image::Depth;
pub use image::Image;
pub use keys::key_columns;
pub use merge::merge_log;
pub use peek::first_bytes;
pub use refusal::Obstacle;
pub use refusal::Refusal;
pub use tables::PageOf;
pub use tables::visit_pages;
pub use vacuum::vacuum_into;

use crate::safeguard::Safeguard;
use copy::PrivateCopy;
use free::FreePages;
use handle::Part;
use header::HEADER_BYTES;
use header::Header;
use open::check_sidecars;
use open::connect;
use open::is_no_file;
use open::locate;
use open::sidecar;
use overlay::Mark;
use overlay::Overlay;
use rusqlite::Connection;
use rusqlite::OpenFlags;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// Versions before this may damage a database when a checkpoint and a restart of the log meet.
/// <https://www.sqlite.org/wal.html#walresetbug>
const SAFE_VERSION: i32 = 3_051_003;

/// The size of the pages of an empty database, which has none yet.
const DEFAULT_PAGE_BYTES: u32 = 4096;

/// A journal that is just being deleted may look like one that nobody owns: SQLite sees the file,
/// then no lock, then no file. Whoever is still there after this many looks is dead.
const HOT_TRIES: u32 = 5;

/// What a capture makes of the parts of the free list that SQLite never reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreeLeaves {
    /// They read as zeroes. What was deleted is not captured.
    Zeroed,
    /// They read as they are.
    Exact,
}

/// A database of which states can be held and read, one at a time.
///
/// As long as this exists, the application can neither leave the write-ahead log mode nor clear
/// the log away as it closes, like with any other connection. It should be dropped soon.
pub struct Database {
    // Order: the connection is closed before the copy it reads is removed.
    connection: Connection,
    path: PathBuf,
    /// The real path of what is read or was copied.
    origin: PathBuf,
    patience: Duration,
    facts: Facts,
    held: Option<Held>,
    copy: Option<PrivateCopy>,
}

/// A state while its transaction is open.
#[derive(Debug)]
struct Held {
    /// None if there is no write-ahead log.
    mark: Option<Mark>,
    /// Whether the overlay has been read, if any is needed.
    is_prepared: bool,
    overlay: Option<Overlay>,
    free: Option<FreePages>,
}

/// Says what is wrong with the SQLite library that runs, if it is too old.
pub fn library_version_is_safe() -> Result<(), String> {
    if SAFE_VERSION <= rusqlite::version_number() {
        return Ok(());
    }
    Err(format!(
        "SQLite {} is too old: 3.51.3 or newer is needed",
        rusqlite::version()
    ))
}

impl Database {
    /// Opens a database for reading. Nothing is locked yet. Locks of others are waited for as
    /// long as the patience lasts.
    pub fn open(path: &Path, patience: Duration) -> Result<Database, Refusal> {
        let path = locate(path)?;
        let access = match Safeguard::NeverCheckpointed.holds() {
            true => OpenFlags::SQLITE_OPEN_READ_ONLY,
            false => OpenFlags::SQLITE_OPEN_READ_WRITE,
        };
        let connection = connect(&path, access, patience)?;
        Ok(Database::new(
            connection,
            path.clone(),
            path,
            patience,
            None,
        ))
    }

    /// Copies a database with its log or journal into a directory of its own below `room`, lets
    /// SQLite recover the copy, and opens that. The copy goes when this is dropped.
    pub fn open_copy(path: &Path, room: &Path, patience: Duration) -> Result<Database, Refusal> {
        let path = locate(path)?;
        let copy = PrivateCopy::create(&path, room, &|| {
            connect(&path, OpenFlags::SQLITE_OPEN_READ_ONLY, patience)
        })?;
        let (origin, path) = (path, copy.database());
        let connection = connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE, patience)?;
        Ok(Database::new(
            connection,
            path,
            origin,
            patience,
            Some(copy),
        ))
    }

    fn new(
        connection: Connection,
        path: PathBuf,
        origin: PathBuf,
        patience: Duration,
        copy: Option<PrivateCopy>,
    ) -> Database {
        Database {
            connection,
            path,
            origin,
            patience,
            facts: Facts::default(),
            held: None,
            copy,
        }
    }

    /// Holds the newest state. One that was held before is let go.
    pub fn pin(&mut self) -> Result<(), Refusal> {
        self.unpin();
        check_sidecars(&self.path)?;
        if is_no_file(&sidecar(&self.path, "-shm")) {
            return Err(Refusal::NeedsCopy {
                why: Obstacle::NoSharedMemory,
            });
        }
        if self.copy.is_none() && self.has_orphaned_log() && Safeguard::OrphanedLogLeft.holds() {
            return Err(Refusal::NeedsCopy {
                why: Obstacle::OrphanedLog,
            });
        }
        if self.copy.is_none() && self.would_lock_its_owner_out() {
            return Err(Refusal::NeedsCopy {
                why: Obstacle::OtherOwner,
            });
        }
        let mut result = self.hold();
        for _ in 1..HOT_TRIES {
            let hot = Refusal::NeedsCopy {
                why: Obstacle::HotJournal,
            };
            if result != Err(hot) {
                break;
            }
            thread::sleep(Duration::from_millis(10));
            result = self.hold();
        }
        result
    }

    /// Returns true if nothing was committed since the state was held.
    pub fn is_newest(&self) -> bool {
        match self.held.as_ref().map(|held| held.mark) {
            // The shared lock keeps every commit out.
            Some(None) => true,
            Some(Some(mark)) => Mark::read(&self.connection, self.patience)
                .is_ok_and(|now| now.salts == mark.salts && now.frames == mark.frames),
            None => false,
        }
    }

    /// Returns what is known about the state held last. While there is a write-ahead log, what
    /// comes from the header of the database is right only after `prepare`; the sizes are before.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Returns whether what was opened is the file with this number. SQLite opens by path, and a
    /// path may lead elsewhere than it did when somebody looked.
    pub fn is_file(&self, device: u64, inode: u64) -> bool {
        let stat = fs::symlink_metadata(&self.origin);
        stat.is_ok_and(|stat| (stat.dev(), stat.ino()) == (device, inode))
    }

    /// Returns true if a private copy is read instead of the database.
    pub fn is_copy(&self) -> bool {
        self.copy.is_some()
    }

    /// Returns the present size of the write-ahead log.
    pub fn wal_bytes(&self) -> u64 {
        fs::metadata(sidecar(&self.path, "-wal")).map_or(0, |metadata| metadata.len())
    }

    /// Finds out where the pages of the held state are, and which of them are not used. Holds a
    /// state if none is held.
    pub fn prepare(&mut self, free: FreeLeaves) -> Result<(), Refusal> {
        if self.held.is_none() {
            self.pin()?;
        }
        let Some(held) = &mut self.held else {
            return Err(not_held());
        };
        if !held.is_prepared {
            let has_frames = |mark: &Mark| 0 < mark.frames && Safeguard::LogRead.holds();
            if let Some(mark) = held.mark.filter(has_frames) {
                held.overlay = Overlay::read(&self.connection, mark, self.patience)?;
            }
            held.is_prepared = true;
        }
        held.free = None;
        self.facts.free_list_damaged = false;
        self.facts.zeroed_pages = 0;
        if self.facts.pages == 0 {
            return Ok(());
        }
        let mut bytes = [0; HEADER_BYTES];
        self.read_at(0, &mut bytes)?;
        let header = Header::parse(&bytes).map_err(corrupt)?;
        if header.page_bytes != self.facts.page_bytes {
            return Err(corrupt("its header and its log differ in the page size"));
        }
        self.facts.note(&header);
        // Extensions keep checksums or keys in the reserved bytes, and would miss them.
        if free == FreeLeaves::Exact || header.reserved_bytes != 0 {
            return Ok(());
        }
        let pages = self.facts.pages;
        let list = FreePages::read(&header, pages, &mut |offset, buffer| {
            self.read_at(offset, buffer)
        })?;
        self.facts.free_list_damaged = list.is_none();
        self.facts.zeroed_pages = list.as_ref().map_or(0, FreePages::leaf_count);
        if let Some(held) = &mut self.held {
            held.free = list;
        }
        Ok(())
    }

    /// Reads bytes of the image; what lies behind its end reads as zeroes. Fast if whole pages
    /// are read, and many of them.
    pub fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Refusal> {
        let held = self.held.as_mut().filter(|held| held.is_prepared);
        let held = held.ok_or_else(not_held)?;
        loop {
            handle::read(&self.connection, Part::Database, buffer, offset)
                .map_err(|code| Refusal::from_code(code, self.patience))?;
            let Some(overlay) = &held.overlay else {
                break;
            };
            if overlay.lay(&self.connection, offset, buffer, self.patience)? {
                break;
            }
            held.overlay = None;
        }
        if let Some(free) = &held.free {
            free.clear(offset, buffer);
        }
        // What lies on the page of the lock bytes is never used, so it has no content.
        let page_bytes = u64::from(self.facts.page_bytes);
        let lock_end = header::lock_page(self.facts.page_bytes) * page_bytes;
        zero(buffer, offset, lock_end - page_bytes, lock_end);
        zero(buffer, offset, self.facts.image_bytes(), u64::MAX);
        Ok(())
    }

    /// Lets the state go. Writers that waited go on.
    pub fn unpin(&mut self) {
        self.held = None;
        if !self.connection.is_autocommit() {
            // A read transaction has nothing to lose, and ends even if this fails.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }

    /// Begins a transaction and finds out what it holds.
    fn hold(&mut self) -> Result<(), Refusal> {
        let held = self.begin();
        if held.is_err() {
            self.unpin();
        }
        let (mark, facts) = held?;
        self.facts = facts;
        self.held = Some(Held {
            mark,
            is_prepared: false,
            overlay: None,
            free: None,
        });
        Ok(())
    }

    fn begin(&self) -> Result<(Option<Mark>, Facts), Refusal> {
        // The pragma reads one number from the header. It is enough to begin the transaction, and
        // does not depend on a schema that this library understands.
        self.connection
            .execute_batch(if Safeguard::StateHeld.holds() {
                "BEGIN"
            } else {
                ""
            })
            .and_then(|()| {
                self.connection
                    .query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))
            })
            .map_err(|error| self.explain(&error))?;
        if handle::has_moved(&self.connection) {
            return Err(Refusal::Changed);
        }
        let failed = |code| Refusal::from_code(code, self.patience);
        let file_bytes = handle::file_bytes(&self.connection, Part::Database).map_err(failed)?;
        let mark = if handle::is_open(&self.connection, Part::Log) {
            Some(Mark::read(&self.connection, self.patience)?)
        } else {
            None
        };
        let mut facts = Facts {
            page_bytes: DEFAULT_PAGE_BYTES,
            wal: mark.is_some(),
            ..Facts::default()
        };
        if file_bytes != 0 {
            let mut bytes = [0; HEADER_BYTES];
            handle::read(&self.connection, Part::Database, &mut bytes, 0).map_err(failed)?;
            let header = Header::parse(&bytes).map_err(corrupt)?;
            facts.note(&header);
            facts.page_bytes = header.page_bytes;
            facts.pages = match header.pages {
                Some(pages) => u64::from(pages),
                None => file_bytes.div_ceil(u64::from(header.page_bytes)),
            };
        }
        if let Some(mark) = mark {
            facts.log_frames = mark.frames;
            facts.log_salts = mark.salts;
            if 0 < mark.pages {
                facts.pages = u64::from(mark.pages);
            }
            if 0 < mark.frames {
                facts.page_bytes = mark.page_bytes;
            }
            if !header::is_page_size(facts.page_bytes) {
                return Err(corrupt("its write-ahead log has an impossible page size"));
            }
        }
        Ok((mark, facts))
    }

    /// Returns true if SQLite would delete a log on sight: that of an empty database.
    fn has_orphaned_log(&self) -> bool {
        let is_empty = fs::metadata(&self.path).is_ok_and(|metadata| metadata.len() == 0);
        is_empty && sidecar(&self.path, "-wal").exists()
    }

    /// Returns true if files would appear beside the database that belong to us, and not to its
    /// owner, who could then not write. Only root can give files away, and SQLite does.
    fn would_lock_its_owner_out(&self) -> bool {
        let we = rustix::process::geteuid();
        let is_ours = fs::metadata(&self.path).is_ok_and(|stat| stat.uid() == we.as_raw());
        if we.is_root() || is_ours {
            return false;
        }
        let mut versions = [0; 2];
        let read = handle::read(&self.connection, Part::Database, &mut versions, 18);
        let is_there = |suffix: &&str| sidecar(&self.path, suffix).exists();
        read.is_ok() && versions.contains(&2) && !["-wal", "-shm"].iter().all(is_there)
    }

    /// Returns why the transaction could not begin.
    fn explain(&self, error: &rusqlite::Error) -> Refusal {
        let refusal = Refusal::from_error(error, self.patience);
        if refusal != Refusal::NotADatabase {
            return refusal;
        }
        let mut bytes = [0; HEADER_BYTES];
        let read = handle::read(&self.connection, Part::Database, &mut bytes, 0);
        if read.is_err() || !bytes.starts_with(MAGIC) {
            return Refusal::NotADatabase;
        }
        corrupt(Header::parse(&bytes).err().unwrap_or("its header is wrong"))
    }
}

fn zero(buffer: &mut [u8], offset: u64, from: u64, until: u64) {
    let end = offset + buffer.len() as u64;
    let from = from.clamp(offset, end);
    let until = until.clamp(offset, end);
    if from < until {
        buffer[(from - offset) as usize..(until - offset) as usize].fill(0);
    }
}

fn corrupt(reason: &str) -> Refusal {
    Refusal::Corrupt {
        reason: reason.into(),
    }
}

fn not_held() -> Refusal {
    Refusal::Unreadable {
        reason: "no state of it is held".into(),
    }
}

#[cfg(test)]
mod tests;
