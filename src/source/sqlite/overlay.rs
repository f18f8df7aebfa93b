//! The write-ahead log of a held state: how far it reaches, and which of its frames lie over which
//! pages of the database file.
//!
//! Invariant: while any read transaction is held, the database file with frames 1 to `frames` of
//! the live log over it is a committed state, for every `frames` that the header of the
//! wal-index names during that time. If the salts change meanwhile, the transaction is one that
//! ignores the log, all frames had been copied back before it began, nothing can be copied back
//! until it ends, and the file alone is that state.

use super::Refusal;
use super::handle;
use super::handle::Found;
use super::handle::INDEX_BYTES;
use super::handle::Part;
use super::header::is_page_size;
use crate::safeguard::Safeguard;
use rusqlite::Connection;
use std::thread;
use std::time::Duration;

/// Frames for which room is made before any of them is seen.
const FRAMES_RESERVED: u32 = 1 << 16;
const LOG_HEADER_BYTES: u64 = 32;
const FRAME_HEADER_BYTES: u64 = 24;

/// How often two copies of the header are read that differ, or none, before the index counts as
/// out of order. A writer is done with both within microseconds, unless it is stopped in between.
const INDEX_TRIES: u32 = 400;

/// The state of a write-ahead log that the header of its index describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// Bytes of a page, meaningful if there are frames or pages.
    pub(super) page_bytes: u32,
    /// Frames of committed transactions.
    pub(super) frames: u32,
    /// Pages of the database; zero if nothing was committed since the log was created.
    pub(super) pages: u32,
    /// What tells this generation of the log from others.
    pub(super) salts: [u8; 8],
}

impl Mark {
    /// Reads the mark as it is now. To be called under a transaction in WAL mode.
    pub(super) fn read(connection: &Connection, patience: Duration) -> Result<Mark, Refusal> {
        for attempt in 0..INDEX_TRIES {
            let bytes =
                handle::index(connection).map_err(|code| Refusal::from_code(code, patience))?;
            if let Some(mark) = bytes.as_ref().and_then(Mark::parse) {
                return Ok(mark);
            }
            if INDEX_TRIES / 2 < attempt {
                thread::sleep(Duration::from_millis(1));
            }
        }
        Err(Refusal::Busy { patience })
    }

    /// Returns the mark of a header whose copies agree and that is in use.
    fn parse(bytes: &[u8; INDEX_BYTES]) -> Option<Mark> {
        let (first, second) = bytes.split_at(INDEX_BYTES / 2);
        let is_used = first[12] != 0;
        if first != second || !is_used {
            return None;
        }
        // The index is shared memory, so numbers have the byte order of the machine. Salts are
        // copied from the log as they are.
        let word = |at: usize| {
            u32::from_ne_bytes([first[at], first[at + 1], first[at + 2], first[at + 3]])
        };
        let page_bytes = match u32::from(u16::from_ne_bytes([first[14], first[15]])) {
            1 => 65536,
            other => other,
        };
        let mut salts = [0; 8];
        salts.copy_from_slice(&first[32..40]);
        Some(Mark {
            page_bytes,
            frames: word(16),
            pages: word(20),
            salts,
        })
    }
}

/// Which frame holds which page.
#[derive(Debug)]
pub(super) struct Overlay {
    mark: Mark,
    /// Sorted by page, which occurs once.
    frames: Vec<Frame>,
}

/// A frame of the log that holds the newest content of a page. Eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Frame {
    page: u32,
    number: u32,
}

impl Overlay {
    /// Reads the headers of all frames, or returns none if the log began anew meanwhile.
    pub(super) fn read(
        connection: &Connection,
        mark: Mark,
        patience: Duration,
    ) -> Result<Option<Overlay>, Refusal> {
        let mut frames = Vec::new();
        if 0 < mark.frames {
            if !is_page_size(mark.page_bytes) {
                return Err(corrupt("its write-ahead log has an impossible page size"));
            }
            let log_bytes = handle::file_bytes(connection, Part::Log)
                .map_err(|code| Refusal::from_code(code, patience))?;
            if log_bytes < end(mark.page_bytes, mark.frames) {
                return missing_frames(connection, mark, patience);
            }
            // The number comes from shared memory that others may write: believed as far as frames
            // of this log really follow.
            frames.reserve(mark.frames.min(FRAMES_RESERVED) as usize);
        }
        let mut header = [0; FRAME_HEADER_BYTES as usize];
        for number in 1..=mark.frames {
            let at = offset(mark.page_bytes, number);
            let found = handle::read(connection, Part::Log, &mut header, at)
                .map_err(|code| Refusal::from_code(code, patience))?;
            let is_ours = header[8..16] == mark.salts || !Safeguard::FrameSalts.holds();
            if found != Found::All || !is_ours {
                return missing_frames(connection, mark, patience);
            }
            let page = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
            if 0 < page && page <= mark.pages {
                frames.push(Frame { page, number });
            }
        }
        frames.sort_unstable();
        // The last frame of a page wins.
        frames.dedup_by(|next, kept| {
            let same = next.page == kept.page;
            if same {
                kept.number = next.number;
            }
            same
        });
        Ok(Some(Overlay { mark, frames }))
    }

    /// Lays the frames over bytes of the database file. Returns false if the log began anew, in
    /// which case the bytes must be read from the file again, and without the overlay.
    pub(super) fn lay(
        &self,
        connection: &Connection,
        start: u64,
        buffer: &mut [u8],
        patience: Duration,
    ) -> Result<bool, Refusal> {
        let page_bytes = u64::from(self.mark.page_bytes);
        let end = start + buffer.len() as u64;
        let first = self
            .frames
            .partition_point(|frame| u64::from(frame.page) * page_bytes <= start);
        for frame in &self.frames[first..] {
            let page_start = (u64::from(frame.page) - 1) * page_bytes;
            if end <= page_start {
                break;
            }
            let from = page_start.max(start);
            let until = (page_start + page_bytes).min(end);
            let part = &mut buffer[(from - start) as usize..(until - start) as usize];
            let at =
                offset(self.mark.page_bytes, frame.number) + FRAME_HEADER_BYTES + from - page_start;
            let found = handle::read(connection, Part::Log, part, at)
                .map_err(|code| Refusal::from_code(code, patience))?;
            if found != Found::All {
                return missing_frames(connection, self.mark, patience).map(|_| false);
            }
        }
        // Order: the salts are read after the frames. They change before any frame is written
        // over, so salts that are the same prove that the frames were whole.
        let is_sure = self.frames.is_empty() || !Safeguard::SaltsAgain.holds();
        Ok(is_sure || !began_anew(connection, self.mark, patience)?)
    }
}

/// Returns true if the log is of another generation than the mark.
fn began_anew(connection: &Connection, mark: Mark, patience: Duration) -> Result<bool, Refusal> {
    Ok(Mark::read(connection, patience)?.salts != mark.salts)
}

/// Frames that are not there are no damage if the log began anew.
fn missing_frames(
    connection: &Connection,
    mark: Mark,
    patience: Duration,
) -> Result<Option<Overlay>, Refusal> {
    if began_anew(connection, mark, patience)? {
        return Ok(None);
    }
    Err(corrupt("its write-ahead log lacks committed frames"))
}

/// Returns where a frame begins in the log. Frames count from 1.
fn offset(page_bytes: u32, number: u32) -> u64 {
    let frame_bytes = FRAME_HEADER_BYTES + u64::from(page_bytes);
    LOG_HEADER_BYTES + (u64::from(number) - 1) * frame_bytes
}

/// Returns where a frame ends in the log.
fn end(page_bytes: u32, number: u32) -> u64 {
    offset(page_bytes, number) + FRAME_HEADER_BYTES + u64::from(page_bytes)
}

fn corrupt(reason: &str) -> Refusal {
    Refusal::Corrupt {
        reason: reason.into(),
    }
}
