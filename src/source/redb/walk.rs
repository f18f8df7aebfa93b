//! Brings the pages of one commit into the spool, or finds the page that does not fit.
//!
//! A page that does not match its checksum is the usual thing in a file that is being written: the
//! commit it belongs to is gone. What to do then is for the caller to decide.

use super::layout::Geometry;
use super::layout::Place;
use super::load;
use super::page;
use super::page::Link;
use super::page::Unread;
use super::refusal::Damage;
use super::refusal::Refusal;
use super::spool::Copy;
use super::spool::Pages;
use super::spool::Spool;
use std::fs::File;

/// No real tree comes near: redb gives up at 128, and a tree of tables holds three others at most.
const DEPTH_MAX: u8 = 250;
/// Links that wait while the first of them is followed.
const WAITING_MAX: usize = 1 << 20;
/// How many pages are read between two questions whether to go on.
const CHECK_PAGES: u64 = 128;

/// How much of the spool a walk believes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// A sealed page stands for all below it: quick, and proves nothing.
    Seals,
    /// Every page is compared: proves that the spool holds the commit.
    Nothing,
}

/// What came of a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All pages of the commit are in the spool; how many were looked at.
    Whole { pages: u64 },
    /// A page is not what its parent says; why.
    Torn(Torn),
}

/// A page that is not what its parent says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Torn {
    /// It does not lie within the file.
    Outside { number: u64 },
    /// It does not match its checksum.
    Page { place: Place, link: Link },
}

enum Task {
    Visit(Link),
    Seal(Place, u128),
}

/// What a walk works with.
pub(super) struct Walk<'a> {
    pub(super) file: &'a File,
    pub(super) spool: &'a mut Spool,
    pub(super) geometry: Geometry,
    /// Counts what is read from the database.
    pub(super) read_bytes: &'a mut u64,
    /// Asked now and then whether to go on.
    pub(super) check: &'a mut dyn FnMut() -> bool,
}

impl Walk<'_> {
    /// Walks the trees below some roots.
    pub(super) fn run(
        &mut self,
        roots: impl Iterator<Item = Link>,
        trust: Trust,
    ) -> Result<Outcome, Refusal> {
        let mut tasks: Vec<Task> = roots.map(Task::Visit).collect();
        tasks.reverse();
        let mut claims = Claims::default();
        let (mut buffer, mut links) = (Vec::new(), Vec::new());
        let (mut pages, mut steps) = (0, 0u64);
        // A commit has each page once. Links that go round in a file made to trap us would not end.
        let mut read_bytes_left = 2 * self.geometry.file_bytes() + (1 << 20);
        while let Some(task) = tasks.pop() {
            let link = match task {
                Task::Visit(link) => link,
                Task::Seal(place, checksum) => {
                    self.spool.seal(place.offset, checksum);
                    continue;
                }
            };
            steps += 1;
            if steps % CHECK_PAGES == 1 && !(self.check)() {
                return Err(Refusal::Stopped);
            }
            let Some(place) = self.geometry.place(link.number) else {
                let number = link.number;
                return Ok(Outcome::Torn(Torn::Outside { number }));
            };
            if trust == Trust::Seals && self.spool.is_recent(place, link.checksum) {
                continue;
            }
            let is_new = trust == Trust::Seals || claims.claim(place)?;
            let is_spooled = self.spool.is_sealed(place)
                && load::load(&mut &*self.spool, place, &link, &mut buffer)?.is_some();
            if is_spooled && (trust == Trust::Seals || !is_new) {
                self.spool.remember(place.offset, link.checksum);
                continue;
            }
            if !is_new {
                // The place holds another page of the same commit.
                let offset = place.offset;
                return Refusal::corrupt(Damage::Overlap { offset });
            }
            pages += 1;
            if !is_spooled {
                let left = read_bytes_left.checked_sub(place.bytes);
                read_bytes_left = left.ok_or(endless(place))?;
                if !self.fetch(place, &link, &mut buffer)? {
                    return Ok(Outcome::Torn(Torn::Page { place, link }));
                }
            }
            tasks.push(Task::Seal(place, link.checksum));
            follow(place, &link, &buffer, &mut links)?;
            tasks.extend(links.drain(..).rev().map(Task::Visit));
            if WAITING_MAX < tasks.len() {
                return Err(endless(place));
            }
        }
        Ok(Outcome::Whole { pages })
    }

    /// Copies a page to the spool; false if it does not match. If it is true, the buffer holds
    /// the page, or the first piece of one that leads nowhere.
    fn fetch(&mut self, place: Place, link: &Link, buffer: &mut Vec<u8>) -> Result<bool, Refusal> {
        let mut copy = Copy {
            file: self.file,
            spool: self.spool,
            read_bytes: self.read_bytes,
        };
        let Some(page) = load::load(&mut copy, place, link, buffer)? else {
            return Ok(false);
        };
        if page.is_held {
            self.spool.write(place.offset, buffer)?;
        }
        Ok(true)
    }
}

/// Reads the links of a page that matched its checksum.
pub(super) fn follow(
    place: Place,
    link: &Link,
    page: &[u8],
    links: &mut Vec<Link>,
) -> Result<(), Refusal> {
    links.clear();
    if DEPTH_MAX < link.depth {
        return Err(endless(place));
    }
    let offset = place.offset;
    page::follow(page, link, links).map_err(|unread| match unread {
        Unread::Malformed => Refusal::Corrupt {
            reason: Damage::Malformed { offset },
        },
        Unread::Unknown(what) => Refusal::Unsupported { what },
    })
}

fn endless(place: Place) -> Refusal {
    let offset = place.offset;
    Refusal::Corrupt {
        reason: Damage::Endless { offset },
    }
}

/// The places that the pages of one commit take.
#[derive(Debug, Default)]
pub(super) struct Claims {
    starts: Pages,
    covered: Pages,
}

impl Claims {
    /// Returns false if a page that starts there is known. A savepoint shares pages with the
    /// current trees, hence it is then the same page unless its checksum says otherwise.
    pub(super) fn claim(&mut self, place: Place) -> Result<bool, Refusal> {
        let offset = place.offset;
        if self.starts.holds(offset) {
            return Ok(false);
        }
        if self.covered.holds_any(offset, place.bytes) {
            return Refusal::corrupt(Damage::Overlap { offset });
        }
        self.starts.insert(offset, 1);
        self.covered.insert(offset, place.bytes);
        Ok(true)
    }
}
