//! Captures a redb database (format 3: redb 2.6 to 4.x) that another process is writing, without
//! its help and without a lock.
//!
//! The file is a tree of checksums: every page holds those of the pages below it. Reading begins
//! at the newest commit; where a page does not match, the commit is gone, and reading begins again
//! at the one that is newest now. What was verified is kept in a spool and not read again, so each
//! attempt reads what changed since the one before and is soon faster than the writer.
//!
//! What is captured is the *canonical image*: every page that the user tree, the system tree and
//! the tree of each persistent savepoint lead to, at its place; zeroes elsewhere; the commit in
//! both slots. Opening it, redb rebuilds the allocator. Only durable commits are in the file.

mod check;
mod hold;
mod layout;
mod load;
mod page;
mod pages;
mod refusal;
mod spool;
mod tracked;
mod walk;

pub use check::check_integrity;
pub use check::prove;
pub use hold::Hold;
pub use layout::MAGIC;
pub use pages::Pages;
pub use pages::Piece;
pub use refusal::Damage;
pub use refusal::Refusal;
pub use refusal::Unknown;
pub use tracked::Tracked;
pub use tracked::Tracker;

use crate::safeguard::Safeguard;
use layout::Candidate;
use layout::HEADER_BYTES;
use layout::Header;
use layout::PAGE_BYTES;
use spool::Peek;
use spool::Spool;
use std::fs::File;
use std::io;
use std::time::Duration;
use walk::Outcome;
use walk::Torn;
use walk::Trust;
use walk::Walk;

/// Readings of the header until two in a row agree. One takes a microsecond, and a commit more.
const HEADER_READS_MAX: u32 = 1000;
/// Attempts that fail while the header stays before the file is called damaged. Two are enough if
/// writes appear in the order they were made; see `Database::settle`.
const QUIET_PASSES: u32 = 4;
/// Before another attempt at a file that stays: what is being flushed may need a moment.
const QUIET_PAUSE: Duration = Duration::from_millis(5);

/// What is known of a captured commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Facts {
    pub page_bytes: u32,
    /// Pages of the image, whatever their size, without the header.
    pub pages: u64,
    /// Length of the image.
    pub file_bytes: u64,
    /// Format version of the commit.
    pub version: u8,
    pub transaction: u64,
    /// Attempts that the last capture took.
    pub passes: u32,
}

/// A database and the spool that its pages are captured into.
#[derive(Debug)]
pub struct Database {
    file: File,
    spool: Spool,
    captured: Option<Captured>,
    facts: Facts,
    read_bytes: u64,
    is_held: bool,
}

#[derive(Debug)]
struct Captured {
    header: Header,
    commit: Candidate,
    /// The page that spoke against a newer commit, which may have been on its way.
    torn: Option<Torn>,
}

impl Database {
    /// Looks at a database. The spool is an empty file that no one else uses.
    pub fn open(file: File, spool: File) -> Result<Database, Refusal> {
        let mut database = Database {
            file,
            spool: Spool::new(spool),
            captured: None,
            facts: Facts::default(),
            read_bytes: 0,
            is_held: false,
        };
        database.read_header()?.candidates()?;
        Ok(database)
    }

    /// Brings the newest commit into the spool. Every commit is in it that was acknowledged
    /// before the call. `check` is asked now and then whether to go on.
    ///
    /// The spool takes up to `spool_bytes_max`, and up to the length of the database if it is
    /// captured again and again.
    pub fn capture(
        &mut self,
        passes_max: u32,
        spool_bytes_max: u64,
        check: &mut dyn FnMut() -> bool,
    ) -> Result<(), Refusal> {
        self.spool.bytes_max = spool_bytes_max;
        if self.is_newest()? {
            self.facts.passes = 0;
            return Ok(());
        }
        self.captured = None;
        let (mut passes, mut quiet_passes) = (0, 0);
        while passes < passes_max.max(1) || quiet_passes > 0 {
            passes += 1;
            let header = self.read_header()?;
            let torn = match self.settle(&header, check)? {
                Ok((captured, pages)) => {
                    self.facts = facts(&captured.commit, pages, passes);
                    self.captured = Some(captured);
                    return Ok(());
                }
                Err(torn) => torn,
            };
            if !self.read_header()?.same_commits(&header) {
                quiet_passes = 0;
                continue;
            }
            quiet_passes += 1;
            if quiet_passes == QUIET_PASSES {
                return Refusal::corrupt(match torn {
                    Torn::Outside { number } => Damage::Number { number },
                    Torn::Page { place, .. } => Damage::Page {
                        offset: place.offset,
                    },
                });
            }
            std::thread::sleep(QUIET_PAUSE);
        }
        Err(Refusal::Busy { passes })
    }

    /// Tells whether the pages of the user's trees are kept where they are, see `Hold`. Then they
    /// are read once, and only the small system tree may have to be read again.
    pub fn set_held(&mut self, is_held: bool) {
        self.is_held = is_held;
    }

    /// Returns true if a capture would come to the commit that was captured last.
    pub fn is_newest(&mut self) -> Result<bool, Refusal> {
        let header = self.read_header()?;
        let Some(captured) = &self.captured else {
            return Ok(false);
        };
        let has_arrived = match captured.torn {
            Some(Torn::Page { place, link }) => {
                let mut file = Peek(&self.file);
                load::load(&mut file, place, &link, &mut Vec::new())?.is_some()
            }
            _ => false,
        };
        Ok(captured.header.same_commits(&header) && !has_arrived)
    }

    /// Returns what is known of the captured commit; all zero before the first capture.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Returns how much of the database was read so far.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// Returns the pieces of the captured commit, or `None` if none is captured.
    pub fn pages(&self) -> Option<Pages<'_>> {
        let captured = self.captured.as_ref()?;
        Some(Pages::new(&self.spool, &captured.commit))
    }

    /// Tries the commits of a header in the order in which redb would recover them.
    ///
    /// While redb flushes a commit, the header may be there before the pages are, as after a
    /// crash; then the commit before is whole, since only the one after this one may take its
    /// pages. If that has begun, this commit has arrived. So of two attempts one succeeds.
    fn settle(
        &mut self,
        header: &Header,
        check: &mut dyn FnMut() -> bool,
    ) -> Result<Result<(Captured, u64), Torn>, Refusal> {
        let mut first_torn = None;
        for commit in header.candidates()? {
            match self.bring(&commit, check)? {
                Outcome::Whole { pages } => {
                    let captured = Captured {
                        header: header.clone(),
                        commit,
                        torn: first_torn,
                    };
                    return Ok(Ok((captured, pages)));
                }
                Outcome::Torn(torn) => first_torn = first_torn.or(Some(torn)),
            }
            // A newer commit is worth more than the other slot, unless that one cannot go away.
            if !self.is_held && !self.read_header()?.same_commits(header) {
                break;
            }
        }
        Ok(Err(first_torn.unwrap_or(Torn::Outside { number: 0 })))
    }

    /// Brings a commit into the spool: first what seems to be missing, while it is there, then
    /// all of it is compared.
    fn bring(
        &mut self,
        commit: &Candidate,
        check: &mut dyn FnMut() -> bool,
    ) -> Result<Outcome, Refusal> {
        let mut walk = Walk {
            file: &self.file,
            spool: &mut self.spool,
            geometry: commit.geometry,
            read_bytes: &mut self.read_bytes,
            check,
        };
        let mut roots: Vec<_> = commit.slot.roots().collect();
        if self.is_held {
            // The system tree comes first: it is small, and no reader keeps its pages.
            roots.reverse();
        }
        match walk.run(roots.iter().copied(), Trust::Seals)? {
            Outcome::Whole { .. } if Safeguard::SpoolProved.holds() => {
                walk.run(roots.into_iter(), Trust::Nothing)
            }
            outcome => Ok(outcome),
        }
    }

    /// Reads the header until it was the same twice, with a length of the file from between.
    fn read_header(&mut self) -> Result<Header, Refusal> {
        let unreadable = |cause: io::Error| Refusal::Unreadable { cause };
        let mut last = None;
        for _ in 0..HEADER_READS_MAX {
            let file_bytes = self.file.metadata().map_err(unreadable)?.len();
            let mut bytes = [0; HEADER_BYTES];
            let len = load::read_at(&self.file, &mut bytes, 0).map_err(unreadable)?;
            self.read_bytes += len as u64;
            if len < HEADER_BYTES {
                return Err(Refusal::NotADatabase);
            }
            let header = Header::new(bytes, file_bytes);
            if last.as_ref().is_some_and(|last| header.same_commits(last)) {
                return Ok(header);
            }
            last = Some(header);
        }
        let passes = HEADER_READS_MAX;
        Err(Refusal::Busy { passes })
    }
}

fn facts(commit: &Candidate, pages: u64, passes: u32) -> Facts {
    Facts {
        page_bytes: PAGE_BYTES,
        pages,
        file_bytes: commit.geometry.file_bytes(),
        version: commit.slot.version(),
        transaction: commit.slot.transaction(),
        passes,
    }
}

#[cfg(test)]
mod tests;
