//! Yields the canonical image of the captured commit from the spool, page by page in key order.
//!
//! The database is not read. Every page is compared with its checksum once more, because a spool
//! lies on a disk like any other file.

use super::Refusal;
use super::layout::Candidate;
use super::layout::Place;
use super::load;
use super::load::Medium;
use super::load::PIECE_BYTES;
use super::page::Link;
use super::refusal::Damage;
use super::spool::Spool;
use super::walk;
use super::walk::Claims;

/// Where some bytes of the image lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Where they begin.
    pub offset: u64,
    /// Hash of the tree and the first key of a leaf: it stays when the page moves. `None` for
    /// branches, the header, and the rest of a page that is longer than a piece.
    pub identity: Option<u64>,
}

/// The pieces of the image that are not zero: the header, then pages, parents before children and
/// children in the order of their keys.
#[derive(Debug)]
pub struct Pages<'a> {
    spool: &'a Spool,
    commit: &'a Candidate,
    waiting: Vec<Link>,
    links: Vec<Link>,
    claims: Claims,
    is_started: bool,
    /// What is left of the page that the last piece began.
    rest: Option<Place>,
}

impl<'a> Pages<'a> {
    pub(super) fn new(spool: &'a Spool, commit: &'a Candidate) -> Pages<'a> {
        let mut waiting: Vec<Link> = commit.slot.roots().collect();
        waiting.reverse();
        Pages {
            spool,
            commit,
            waiting,
            links: Vec::new(),
            claims: Claims::default(),
            is_started: false,
            rest: None,
        }
    }

    /// Puts the next piece into the buffer, at most a MiB and never nothing, and returns where it
    /// belongs; `None` after the last one.
    pub fn next(&mut self, buffer: &mut Vec<u8>) -> Result<Option<Piece>, Refusal> {
        buffer.clear();
        if !self.is_started {
            self.is_started = true;
            buffer.extend_from_slice(&self.commit.header());
            let (offset, identity) = (0, None);
            return Ok(Some(Piece { offset, identity }));
        }
        if let Some(rest) = self.rest.take() {
            return self.read_on(rest, buffer).map(Some);
        }
        while let Some(link) = self.waiting.pop() {
            let place = self.commit.geometry.place(link.number);
            let place = place.ok_or(Refusal::Corrupt {
                reason: Damage::Number {
                    number: link.number,
                },
            })?;
            if !self.claims.claim(place)? {
                continue;
            }
            let page = load::load(&mut &*self.spool, place, &link, buffer)?;
            let page = page.ok_or(damaged(place))?;
            walk::follow(place, &link, buffer, &mut self.links)?;
            self.waiting.extend(self.links.drain(..).rev());
            buffer.truncate(PIECE_BYTES);
            let len = buffer.len() as u64;
            self.rest = (len < page.summary.used_bytes).then_some(Place {
                offset: place.offset + len,
                bytes: page.summary.used_bytes - len,
            });
            let (offset, identity) = (place.offset, page.summary.identity);
            return Ok(Some(Piece { offset, identity }));
        }
        Ok(None)
    }

    fn read_on(&mut self, rest: Place, buffer: &mut Vec<u8>) -> Result<Piece, Refusal> {
        let len = rest.bytes.min(PIECE_BYTES as u64);
        buffer.resize(len as usize, 0);
        if self.spool.read(buffer, rest.offset)? < buffer.len() {
            return Err(damaged(rest));
        }
        self.rest = (len < rest.bytes).then_some(Place {
            offset: rest.offset + len,
            bytes: rest.bytes - len,
        });
        let (offset, identity) = (rest.offset, None);
        Ok(Piece { offset, identity })
    }
}

fn damaged(place: Place) -> Refusal {
    let offset = place.offset;
    Refusal::Corrupt {
        reason: Damage::Page { offset },
    }
}
