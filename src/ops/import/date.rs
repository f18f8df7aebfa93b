//! When a backup was made: its manifest says it, or the name of its file, or the time of its file.

use crate::context::Timestamp;
use crate::error::Error;
use crate::error::Result;
use crate::ops::import::Candidate;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

/// Where a date comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DateSource {
    /// The manifest in the archive.
    Manifest,
    /// The name of the file, taken for UTC.
    Name,
    /// The time of the last change of the file.
    FileTime,
}

impl DateSource {
    /// Returns a word for it.
    pub fn name(self) -> &'static str {
        match self {
            DateSource::Manifest => "manifest",
            DateSource::Name => "name",
            DateSource::FileTime => "file-time",
        }
    }
}

/// A date and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dated {
    pub at: Timestamp,
    pub source: DateSource,
}

/// Returns what is known without looking into the file.
pub(super) fn of_file(candidate: &Candidate) -> Result<Dated> {
    if let Some(at) = candidate.named_at {
        return Ok(Dated {
            at,
            source: DateSource::Name,
        });
    }
    let path = &candidate.path;
    let metadata = std::fs::metadata(path).map_err(Error::io("read", path))?;
    let modified = metadata.modified().map_err(Error::io("read", path))?;
    Ok(Dated {
        at: timestamp(modified),
        source: DateSource::FileTime,
    })
}

fn timestamp(time: SystemTime) -> Timestamp {
    let ns = |duration: std::time::Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Timestamp(ns(after)),
        Err(before) => Timestamp(-ns(before.duration())),
    }
}

/// Reads a time as RFC 3339 has it.
pub(super) fn parse(text: &str) -> Option<Timestamp> {
    let timestamp: jiff::Timestamp = text.parse().ok()?;
    i64::try_from(timestamp.as_nanosecond()).ok().map(Timestamp)
}

/// Finds a date in a file name: `20260605_020000`, `20260605-020000`, `20260605T020000Z`,
/// `2026-06-05`, `20260605`. The last one counts, for names begin with anything.
pub(super) fn in_name(name: &str) -> Option<Timestamp> {
    let bytes = name.as_bytes();
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let starts = (0..bytes.len()).filter(|&at| is_digit(at) && (at == 0 || !is_digit(at - 1)));
    starts.filter_map(|at| date_at(&bytes[at..])).next_back()
}

fn date_at(bytes: &[u8]) -> Option<Timestamp> {
    let (day, rest) = match take_digits(bytes, &[4, 2, 2], b"")? {
        (parts, rest) if !rest.first().is_some_and(u8::is_ascii_digit) => (parts, rest),
        _ => return None,
    };
    let time = match rest.split_first() {
        Some((b'_' | b'-' | b'T' | b' ', rest)) => take_digits(rest, &[2, 2, 2], b":")
            .filter(|(_, rest)| !rest.first().is_some_and(u8::is_ascii_digit)),
        _ => None,
    };
    let time = time.map_or(vec![0, 0, 0], |(parts, _)| parts);
    let small = |number: i16| i8::try_from(number).ok();
    let civil = DateTime::new(
        day[0],
        small(day[1])?,
        small(day[2])?,
        small(time[0])?,
        small(time[1])?,
        small(time[2])?,
        0,
    );
    let zoned = civil.ok()?.to_zoned(TimeZone::UTC).ok()?;
    let plausible = 1980..=2200;
    let ns = i64::try_from(zoned.timestamp().as_nanosecond()).ok()?;
    plausible.contains(&zoned.year()).then_some(Timestamp(ns))
}

/// Takes groups of digits, with a dash (or one of `also`) between all of them or none.
fn take_digits<'b>(bytes: &'b [u8], lens: &[usize], also: &[u8]) -> Option<(Vec<i16>, &'b [u8])> {
    let mut rest = bytes;
    let mut numbers = Vec::new();
    for (group, &len) in lens.iter().enumerate() {
        if group > 0
            && let Some((byte, after)) = rest.split_first()
            && (*byte == b'-' || also.contains(byte))
        {
            rest = after;
        }
        let (digits, after) = rest.split_at_checked(len)?;
        let text = std::str::from_utf8(digits).ok()?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        numbers.push(text.parse().ok()?);
        rest = after;
    }
    Some((numbers, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_applications_have_their_dates() {
        let date = |name: &str| {
            let at = in_name(name).map(|at| jiff::Timestamp::from_nanosecond(at.0.into()));
            at.map(|at| at.unwrap().to_string())
        };
        for (name, wanted) in [
            (
                "hoziron-backup-20260605_020000.tar.gz",
                "2026-06-05T02:00:00Z",
            ),
            ("app_20260601_143022.db", "2026-06-01T14:30:22Z"),
            (
                "homecore-backup-20260328-143022.zip",
                "2026-03-28T14:30:22Z",
            ),
            ("homecore-20260328.zip", "2026-03-28T00:00:00Z"),
            ("pre-8f3a2b-20260601T143022Z.db", "2026-06-01T14:30:22Z"),
            ("hoziron-backup-2026-06-05.tar.gz", "2026-06-05T00:00:00Z"),
            ("x-2026-06-05T02:03:04.zip", "2026-06-05T02:03:04Z"),
        ] {
            assert_eq!(date(name).as_deref(), Some(wanted), "{name}");
        }
        for none in [
            "app.db",
            "v12345678.zip",
            "x-20261301.zip",
            "202606050.zip",
            "1.2.3.zip",
        ] {
            assert_eq!(date(none), None, "{none}");
        }
    }
}
