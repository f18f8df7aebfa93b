//! Reads one page from the database or from the spool and compares it with its checksum.
//!
//! Pages are of any size up to 4 GiB. Only what must be parsed is held in memory whole: branches
//! and leaves that hold roots. The values of other leaves pass through in pieces.

use super::layout::Place;
use super::page;
use super::page::Link;
use super::page::Summary;
use super::refusal::Refusal;
use super::refusal::Unknown;
use crate::safeguard::Safeguard;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use xxhash_rust::xxh3::Xxh3Default;
use xxhash_rust::xxh3::xxh3_128;

/// What is read at once, and the most that is held of a page that leads nowhere.
pub(super) const PIECE_BYTES: usize = 1 << 20;
/// A page of routes or tables beyond this has keys of a size that no one has.
const WHOLE_BYTES_MAX: usize = 64 << 20;

/// Reads until the buffer is full or the file ends; returns how much was read.
pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match file.read_at(&mut buffer[len..], offset + len as u64) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

/// Where a page is read from and where it goes.
pub(super) trait Medium {
    /// Reads until the buffer is full or the file ends; returns how much was read.
    fn read(&mut self, buffer: &mut [u8], offset: u64) -> Result<usize, Refusal>;

    /// Takes a piece of a page that is not held whole, before it is known to be right.
    fn pass(&mut self, offset: u64, piece: &[u8]) -> Result<(), Refusal>;
}

/// A page that matches its checksum.
#[derive(Debug, Clone, Copy)]
pub(super) struct Page {
    pub(super) summary: Summary,
    /// True if the buffer holds the used bytes; else it holds the first piece, and all went
    /// through `Medium::pass`.
    pub(super) is_held: bool,
}

/// Reads a page. `None`: it does not match its checksum.
pub(super) fn load(
    medium: &mut dyn Medium,
    place: Place,
    link: &Link,
    buffer: &mut Vec<u8>,
) -> Result<Option<Page>, Refusal> {
    let page_bytes = usize::try_from(place.bytes).unwrap_or(usize::MAX);
    buffer.clear();
    extend(medium, place, buffer, page_bytes.min(PIECE_BYTES))?;
    let mut summary = page::summarize(buffer, &link.shape);
    let must_hold = page::is_branch(buffer) || !link.shape.is_plain();
    if summary.is_none() && must_hold {
        // The table of a branch with many children may itself be longer than a piece.
        extend(medium, place, buffer, page_bytes.min(WHOLE_BYTES_MAX))?;
        summary = page::summarize(buffer, &link.shape);
    }
    let fits = |summary: &Summary| summary.used_bytes <= place.bytes;
    let Some(summary) = summary.filter(fits) else {
        return Ok(None);
    };
    let used_bytes = usize::try_from(summary.used_bytes).unwrap_or(usize::MAX);

    let is_held = used_bytes <= PIECE_BYTES || (must_hold && used_bytes <= WHOLE_BYTES_MAX);
    if is_held {
        extend(medium, place, buffer, used_bytes)?;
        if buffer.len() < used_bytes {
            return Ok(None);
        }
        buffer.truncate(used_bytes);
        let matches = xxh3_128(buffer) == link.checksum || !Safeguard::PageChecked.holds();
        return Ok(matches.then_some(Page { summary, is_held }));
    }
    if !stream(medium, place, link, buffer, used_bytes)? {
        return Ok(None);
    }
    if must_hold {
        let used_bytes = summary.used_bytes;
        return Refusal::unsupported(Unknown::Page { used_bytes });
    }
    Ok(Some(Page { summary, is_held }))
}

/// Reads on until the buffer has a length, unless the file ends.
fn extend(
    medium: &mut dyn Medium,
    place: Place,
    buffer: &mut Vec<u8>,
    len: usize,
) -> Result<(), Refusal> {
    let start = buffer.len();
    if start < len {
        buffer.resize(len, 0);
        let more = medium.read(&mut buffer[start..], place.offset + start as u64)?;
        buffer.truncate(start + more);
    }
    Ok(())
}

/// Passes a page on in pieces; returns whether it matches. Keeps the first in the buffer.
fn stream(
    medium: &mut dyn Medium,
    place: Place,
    link: &Link,
    buffer: &mut Vec<u8>,
    used_bytes: usize,
) -> Result<bool, Refusal> {
    let mut hasher = Xxh3Default::new();
    // What was parsed is what is hashed, not a second reading of it.
    buffer.truncate(PIECE_BYTES);
    if buffer.len() < PIECE_BYTES {
        return Ok(false);
    }
    hasher.update(buffer);
    medium.pass(place.offset, buffer)?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut done = PIECE_BYTES;
    while done < used_bytes {
        let piece = &mut piece[..PIECE_BYTES.min(used_bytes - done)];
        let offset = place.offset + done as u64;
        if medium.read(piece, offset)? < piece.len() {
            return Ok(false);
        }
        hasher.update(piece);
        medium.pass(offset, piece)?;
        done += piece.len();
    }
    Ok(hasher.digest128() == link.checksum)
}
