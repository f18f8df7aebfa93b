//! The snapshots of a repository, and finding the one that somebody means.
//!
//! Resolving is pure: it sees the snapshots, the words, the time and the zone. A day means the last
//! snapshot of that day; a moment means the state then, so the last snapshot before it. Neither
//! means what a restore in place saved before it replaced it (decision 0081). Nothing is guessed:
//! what fits nothing, or several ids, is an error that names what comes close.

use crate::context::Context;
use crate::context::Timestamp;
use crate::error::Error;
use crate::error::Result;
use crate::format::manifest::Manifest;
use crate::format::note::HoldUntil;
use crate::format::note::Proof;
use crate::format::note::Replaced;
use crate::id::SnapshotId;
use crate::id::hex;
use crate::repo::Repo;
use crate::repo::log::State;
use jiff::Span;
use jiff::Zoned;
use jiff::civil::Date;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Fewer digits of an id are too likely to mean another snapshot tomorrow.
pub const PREFIX_DIGITS_MIN: usize = 4;
const CANDIDATES_MAX: usize = 5;

/// The tag of what an in-place restore found before it: a state that somebody wanted to be rid of.
pub const SAFETY_TAG: &str = "pre-restore";

/// A snapshot as the log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name for ever.
    pub id: SnapshotId,
    /// What it is.
    pub manifest: Manifest,
    /// Names given by people, at the backup or later, sorted.
    pub tags: Vec<String>,
    /// Until when it may not be removed.
    pub hold: Option<HoldUntil>,
    /// When it was last restored and checked, and what came out.
    pub proof: Option<Proof>,
    /// What it was made for, if it was made right before a restore in place.
    pub replaced: Option<Replaced>,
}

impl Snapshot {
    /// Returns whether it is what an in-place restore found before it. Such a copy is there for
    /// `undo`; it is no backup to go back to, so neither `latest` nor a date means it, and no
    /// policy counts it.
    pub fn is_safety_copy(&self) -> bool {
        self.tags.iter().any(|tag| tag == SAFETY_TAG)
    }
}

/// Returns the state of the repository and its snapshots, oldest first.
pub fn list(cx: &Context, repo: &Repo) -> Result<(Arc<State>, Vec<Snapshot>)> {
    let state = repo.read_state(cx)?;
    let snapshots = of_state(&state)?;
    Ok((state, snapshots))
}

/// Returns the snapshots of a state of the repository, oldest first.
pub fn of_state(state: &State) -> Result<Vec<Snapshot>> {
    let mut snapshots = Vec::with_capacity(state.snapshots.len());
    for (id, bytes) in &state.snapshots {
        let manifest = Manifest::decode(bytes)
            .map_err(|malformed| malformed.of(format!("the manifest of {}", id.short())))?;
        let mut tags: BTreeSet<String> = manifest.tags.iter().cloned().collect();
        for ((of, tag), is_given) in &state.notes.tags {
            match (of == id, is_given) {
                (true, true) => drop(tags.insert(tag.clone())),
                (true, false) => drop(tags.remove(tag)),
                (false, _) => {}
            }
        }
        let tags = tags.into_iter().collect();
        snapshots.push(Snapshot {
            id: *id,
            manifest,
            tags,
            hold: state.notes.holds.get(id).copied(),
            proof: state.notes.proofs.get(id).cloned(),
            replaced: state.notes.replaced.get(id).cloned(),
        });
    }
    snapshots.sort_by_key(age_order);
    Ok(snapshots)
}

/// Splits `REF:path`. The colons of a time and of `tag:NAME` belong to the reference; a path may
/// be any bytes and loses the slashes around it.
pub fn split_path(argument: &[u8]) -> (&[u8], Option<&[u8]>) {
    // Names of imports have a colon of their own.
    let tags = [&b"tag:import:"[..], b"tag:"];
    let tag = tags.into_iter().find(|tag| argument.starts_with(tag));
    let skip = tag.map_or_else(|| time_len(argument), <[u8]>::len);
    match argument[skip..].iter().position(|&byte| byte == b':') {
        None => (argument, None),
        Some(at) => {
            let (reference, path) = argument.split_at(skip + at);
            (reference, Some(trim_slashes(&path[1..])))
        }
    }
}

/// Returns the snapshot that is meant by: the start of an id, `latest`, `latest~2`, a day, a
/// moment, `today`, `yesterday`, `2 days ago`, `tag:NAME` (the latest of that name).
pub fn resolve<'s>(
    snapshots: &'s [Snapshot],
    reference: &str,
    now: Timestamp,
    zone: &TimeZone,
) -> Result<&'s Snapshot> {
    let mut ordered: Vec<&Snapshot> = snapshots.iter().collect();
    ordered.sort_by_key(|snapshot| age_order(snapshot));
    let mut search = Search {
        ordered,
        reference,
        zone,
    };
    let reference = reference.trim();
    if let Some(tag) = reference.strip_prefix("tag:") {
        let tagged = |s: &&&Snapshot| s.tags.iter().any(|name| name == tag);
        let found = search.ordered.iter().rfind(tagged).copied();
        return found.ok_or_else(|| search.not_found(search.ordered.last().copied()));
    }
    let by_prefix = search.by_prefix(reference);
    let is_backup = |s: &&Snapshot| !s.is_safety_copy();
    if search.ordered.iter().any(is_backup) {
        search.ordered.retain(is_backup);
    }
    if let Some(back) = steps_back(reference) {
        let index = search.ordered.len().checked_sub(back.saturating_add(1));
        let found = index.map(|index| search.ordered[index]);
        return found.ok_or_else(|| search.not_found(search.ordered.first().copied()));
    }
    let now = instant(now).to_zoned(zone.clone());
    if let Some(day) = day(reference, &now) {
        return search.on(day);
    }
    if let Some(moment) = moment(reference, &now) {
        return search.as_of(moment);
    }
    by_prefix
}

struct Search<'s, 'r> {
    /// Oldest first.
    ordered: Vec<&'s Snapshot>,
    reference: &'r str,
    zone: &'r TimeZone,
}

impl<'s> Search<'s, '_> {
    fn by_prefix(&self, text: &str) -> Result<&'s Snapshot> {
        let prefix = text.to_ascii_lowercase();
        let is_hex = prefix.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hex || prefix.len() > 2 * SnapshotId::LEN {
            return Err(self.not_found(self.ordered.last().copied()));
        }
        if prefix.len() < PREFIX_DIGITS_MIN {
            return Err(Error::Refused {
                reason: format!("{text:?} is too short: give {PREFIX_DIGITS_MIN} digits of an id"),
            });
        }
        let starts = |s: &&&Snapshot| s.id.to_string().starts_with(&prefix);
        let found: Vec<&'s Snapshot> = self.ordered.iter().filter(starts).copied().collect();
        match found[..] {
            [] => Err(self.not_found(self.ordered.last().copied())),
            [one] => Ok(one),
            _ => {
                // Enough digits to tell them apart, and a few more.
                let bytes = (prefix.len() / 2 + 4).min(SnapshotId::LEN);
                let newest = found.iter().rev().take(CANDIDATES_MAX);
                let mut names: Vec<String> = newest.map(|s| self.describe(s, bytes)).collect();
                if let Some(more) = found.len().checked_sub(CANDIDATES_MAX + 1) {
                    names.push(format!("{} more", more + 1));
                }
                Err(Error::Ambiguous {
                    what: format!("snapshot {text}"),
                    candidates: names.join(", "),
                })
            }
        }
    }

    fn on(&self, day: Date) -> Result<&'s Snapshot> {
        let date = |s: &Snapshot| {
            let zoned = instant(s.manifest.started_at).to_zoned(self.zone.clone());
            zoned.date()
        };
        let found = self.ordered.iter().rfind(|s| date(s) == day);
        found.copied().ok_or_else(|| {
            let before = self.ordered.iter().rfind(|s| date(s) < day);
            let after = self.ordered.iter().find(|s| date(s) > day);
            self.not_found([before, after].into_iter().flatten().copied())
        })
    }

    fn as_of(&self, moment: Timestamp) -> Result<&'s Snapshot> {
        let before = |s: &&&Snapshot| s.manifest.started_at <= moment;
        let found = self.ordered.iter().rfind(before).copied();
        found.ok_or_else(|| self.not_found(self.ordered.first().copied()))
    }

    fn not_found(&self, near: impl IntoIterator<Item = &'s Snapshot>) -> Error {
        let near: Vec<String> = near.into_iter().map(|s| self.describe(s, 4)).collect();
        let known = match (self.ordered.len(), near.len()) {
            (0, _) => "there is no snapshot at all".to_string(),
            (count, 0) => format!("there are {count} others"),
            (count, _) => format!("of {count}, nearest is {}", near.join(" and ")),
        };
        Error::NotFound {
            what: format!("snapshot {:?} ({known})", self.reference),
        }
    }

    fn describe(&self, snapshot: &Snapshot, id_bytes: usize) -> String {
        let zoned = instant(snapshot.manifest.started_at).to_zoned(self.zone.clone());
        let id = hex(&snapshot.id.0[..id_bytes]);
        format!("{id} of {}", zoned.strftime("%Y-%m-%d %H:%M"))
    }
}

fn age_order(snapshot: &Snapshot) -> (Timestamp, SnapshotId) {
    (snapshot.manifest.started_at, snapshot.id)
}

fn instant(time: Timestamp) -> jiff::Timestamp {
    // Every i64 of nanoseconds lies within jiff's range of years.
    jiff::Timestamp::from_nanosecond(i128::from(time.0)).unwrap_or_default()
}

fn timestamp(instant: jiff::Timestamp) -> Timestamp {
    let ns = instant.as_nanosecond();
    let clamped = ns.clamp(i128::from(i64::MIN), i128::from(i64::MAX));
    Timestamp(i64::try_from(clamped).unwrap_or(i64::MAX))
}

/// `latest` is 0, `latest~2` is 2, and anything else nothing.
fn steps_back(reference: &str) -> Option<usize> {
    match reference.strip_prefix("latest")? {
        "" => Some(0),
        rest => digits_only(rest.strip_prefix('~')?)?.parse().ok(),
    }
}

fn digits_only(text: &str) -> Option<&str> {
    let all = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    all.then_some(text)
}

fn day(reference: &str, now: &Zoned) -> Option<Date> {
    match reference {
        "today" => Some(now.date()),
        "yesterday" => now.date().yesterday().ok(),
        text if is_date(text.as_bytes()) && text.len() == DATE_LEN => text.parse().ok(),
        _ => None,
    }
}

/// The end of what is named: `14:30` means all of that minute.
fn moment(reference: &str, now: &Zoned) -> Option<Timestamp> {
    if let Some(words) = reference.strip_suffix(" ago") {
        let then = now.checked_sub(span(words.trim())?).ok()?;
        return Some(timestamp(then.timestamp()));
    }
    let len = time_len(reference.as_bytes());
    if len == 0 || len != reference.len() {
        return None;
    }
    let civil_len = reference.len().min(match reference.as_bytes().get(16) {
        Some(b':') => 19,
        _ => 16,
    });
    let (civil, offset) = reference.split_at(civil_len);
    let civil: DateTime = civil.replacen(' ', "T", 1).parse().ok()?;
    let zoned = match offset {
        "" => civil.to_zoned(now.time_zone().clone()).ok()?,
        _ => {
            let text = format!("{civil}{offset}");
            let instant: jiff::Timestamp = text.parse().ok()?;
            instant.to_zoned(TimeZone::UTC)
        }
    };
    let width = match civil_len {
        16 => Span::new().minutes(1),
        _ => Span::new().seconds(1),
    };
    let end = zoned.timestamp().checked_add(width).ok()?;
    Some(Timestamp(timestamp(end).0.saturating_sub(1)))
}

fn span(words: &str) -> Option<Span> {
    let split = words.find(|c: char| !c.is_ascii_digit())?;
    let (count, unit) = words.split_at(split);
    let count: i64 = match (count, unit) {
        ("", unit) if unit.starts_with("a ") || unit.starts_with("an ") => 1,
        (count, _) => count.parse().ok()?,
    };
    let unit = unit.trim_start_matches("an ").trim_start_matches("a ");
    let unit = unit.trim();
    let singular = match unit.len() {
        1 => unit,
        _ => unit.strip_suffix('s').unwrap_or(unit),
    };
    let span = Span::new();
    match singular {
        "s" | "sec" | "second" => span.try_seconds(count),
        "min" | "minute" => span.try_minutes(count),
        "h" | "hour" => span.try_hours(count),
        "d" | "day" => span.try_days(count),
        "w" | "week" => span.try_weeks(count),
        "month" => span.try_months(count),
        "y" | "year" => span.try_years(count),
        _ => return None,
    }
    .ok()
}

const DATE_LEN: usize = 10;

fn is_date(text: &[u8]) -> bool {
    fits(text, b"0000-00-00")
}

/// Returns whether the text begins with this shape, in which `0` stands for any digit.
fn fits(text: &[u8], shape: &[u8]) -> bool {
    shape.len() <= text.len()
        && text.iter().zip(shape).all(|(&byte, &shape)| match shape {
            b'0' => byte.is_ascii_digit(),
            other => byte == other,
        })
}

/// Returns how many bytes at the start are a date with a time, and perhaps an offset; zero if none.
fn time_len(text: &[u8]) -> usize {
    if !is_date(text) || !matches!(text.get(DATE_LEN), Some(b' ' | b'T' | b't')) {
        return 0;
    }
    let time = &text[DATE_LEN + 1..];
    let len = match (fits(time, b"00:00:00"), fits(time, b"00:00")) {
        (true, _) => DATE_LEN + 1 + 8,
        (false, true) => DATE_LEN + 1 + 5,
        (false, false) => return 0,
    };
    let offset = &text[len..];
    match offset.first() {
        Some(b'Z' | b'z') => len + 1,
        Some(b'+') if fits(offset, b"+00:00") => len + 6,
        Some(b'-') if fits(offset, b"-00:00") => len + 6,
        _ => len,
    }
}

fn trim_slashes(path: &[u8]) -> &[u8] {
    let is_inside = |byte: &u8| *byte != b'/';
    let start = path.iter().position(is_inside).unwrap_or(path.len());
    let end = path.iter().rposition(is_inside).map_or(start, |at| at + 1);
    &path[start..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> TimeZone {
        // Madrid without its summer time: always an hour ahead.
        TimeZone::fixed(jiff::tz::offset(1))
    }

    fn at(text: &str) -> Timestamp {
        let civil: DateTime = text.parse().unwrap();
        timestamp(civil.to_zoned(zone()).unwrap().timestamp())
    }

    fn snapshot(id: &str, started_at: &str, tags: &[&str]) -> Snapshot {
        let mut bytes = [0; 32];
        let given = crate::id::from_hex(id).unwrap();
        bytes[..given.len()].copy_from_slice(&given);
        Snapshot {
            id: SnapshotId(bytes),
            manifest: Manifest {
                started_at: at(started_at),
                ..Manifest::default()
            },
            tags: tags.iter().map(|tag| tag.to_string()).collect(),
            hold: None,
            proof: None,
            replaced: None,
        }
    }

    /// Not in order of time, as nothing promises that.
    fn example() -> Vec<Snapshot> {
        vec![
            snapshot("51d0aa27", "2026-11-19T17:32", &["before-upgrade"]),
            snapshot("7c41e09b", "2026-11-20T02:00", &[]),
            snapshot("e2b7c810", "2026-11-19T02:00", &["before-upgrade"]),
            snapshot("7c41ffff", "2026-11-17T23:59:59", &["a:b"]),
            snapshot("20261116", "2026-11-16T02:00", &[]),
        ]
    }

    fn resolved(reference: &str) -> Result<String> {
        let now = at("2026-11-20T08:00");
        let snapshots = example();
        let found = resolve(&snapshots, reference, now, &zone())?;
        Ok(found.id.short())
    }

    #[test]
    fn references_mean_what_people_expect() {
        let table = [
            ("latest", "7c41e09b"),
            ("latest~0", "7c41e09b"),
            ("latest~1", "51d0aa27"),
            ("latest~4", "20261116"),
            ("51d0", "51d0aa27"),
            ("51D0AA27", "51d0aa27"),
            ("7c41e", "7c41e09b"),
            ("20261116", "20261116"),
            ("today", "7c41e09b"),
            ("yesterday", "51d0aa27"),
            ("2026-11-19", "51d0aa27"),
            ("2026-11-17", "7c41ffff"),
            ("2026-11-19 17:32", "51d0aa27"),
            ("2026-11-19T17:31", "e2b7c810"),
            ("2026-11-19 17:31:59", "e2b7c810"),
            ("2026-11-19T16:32:00Z", "51d0aa27"),
            ("2026-11-19T16:31Z", "e2b7c810"),
            ("2026-11-19T18:31:00+02:00", "e2b7c810"),
            ("2026-11-18 12:00", "7c41ffff"),
            ("1 hour ago", "7c41e09b"),
            ("6 hours ago", "7c41e09b"),
            ("7 hours ago", "51d0aa27"),
            ("7h ago", "51d0aa27"),
            ("1 day ago", "e2b7c810"),
            ("a day ago", "e2b7c810"),
            ("2 days ago", "7c41ffff"),
            ("4d ago", "20261116"),
            ("tag:before-upgrade", "51d0aa27"),
            ("tag:a:b", "7c41ffff"),
            (" latest ", "7c41e09b"),
        ];
        for (reference, expected) in table {
            assert_eq!(resolved(reference).unwrap(), expected, "{reference:?}");
        }
    }

    #[test]
    fn what_a_restore_replaced_is_meant_only_by_its_id_or_tag() {
        let now = at("2026-11-20T08:00");
        let mut snapshots = example();
        snapshots.push(snapshot("5afe0001", "2026-11-20T07:00", &[SAFETY_TAG]));
        let means = |reference: &str, snapshots: &[Snapshot]| {
            let found = resolve(snapshots, reference, now, &zone());
            found.unwrap().id.short()
        };

        for reference in ["latest", "today", "10 minutes ago", "2026-11-20 07:30"] {
            assert_eq!(means(reference, &snapshots), "7c41e09b", "{reference}");
        }
        for reference in ["5afe", "tag:pre-restore"] {
            assert_eq!(means(reference, &snapshots), "5afe0001", "{reference}");
        }
        // Where there is nothing else, it is better than nothing.
        assert_eq!(means("latest", &snapshots[5..]), "5afe0001");
    }

    #[test]
    fn what_fits_nothing_names_what_is_near() {
        let table = [
            ("2026-11-18", "7c41ffff of 2026-11-17 23:59 and e2b7c810"),
            ("2026-11-01", "nearest is 20261116 of 2026-11-16 02:00"),
            ("deadbeef", "of 5, nearest is 7c41e09b"),
            ("latest~5", "nearest is 20261116"),
            ("tag:nope", "nearest is 7c41e09b"),
            ("3 weeks ago", "nearest is 20261116"),
            ("last tuesday", "nearest is 7c41e09b"),
            ("2026-13-45", "nearest is 7c41e09b"),
            ("latest~x", "nearest is 7c41e09b"),
            ("9999999999999999999 days ago", "nearest is 7c41e09b"),
            ("9999999 years ago", "nearest is 7c41e09b"),
            ("éé ago", "nearest is 7c41e09b"),
            ("", "too short"),
        ];
        for (reference, expected) in table {
            let error = resolved(reference).unwrap_err();
            let is_right = match &error {
                Error::Refused { .. } => reference.is_empty(),
                error => matches!(error, Error::NotFound { .. }),
            };
            assert!(is_right, "{reference:?}: {error:?}");
            assert!(
                error.to_string().contains(expected),
                "{reference:?}: {error}"
            );
        }
        let none = resolve(&[], "latest", Timestamp(0), &zone()).unwrap_err();
        assert!(none.to_string().contains("no snapshot at all"), "{none}");
    }

    #[test]
    fn a_prefix_must_be_long_enough_and_mean_one_snapshot() {
        let ambiguous = resolved("7c41").unwrap_err();
        let short = resolved("7c4").unwrap_err();

        assert!(matches!(ambiguous, Error::Ambiguous { .. }), "{ambiguous}");
        assert_eq!(
            ambiguous.to_string(),
            "snapshot 7c41 is ambiguous: 7c41e09b0000 of 2026-11-20 02:00, \
             7c41ffff0000 of 2026-11-17 23:59"
        );
        assert!(matches!(short, Error::Refused { .. }), "{short}");
    }

    #[test]
    fn an_hour_that_happens_twice_or_never_does_not_break_a_reference() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let snapshots = example();
        let now = at("2026-11-20T08:00");

        for reference in ["2026-10-25 02:30", "2026-03-29 02:30", "2026-10-25"] {
            let found = resolve(&snapshots, reference, now, &zone);
            assert!(matches!(found, Err(Error::NotFound { .. })), "{reference}");
        }
    }

    #[test]
    fn the_path_is_split_off_behind_the_colons_of_the_reference() {
        let table: [(&str, &str, Option<&str>); 14] = [
            ("7c41", "7c41", None),
            ("7c41:", "7c41", Some("")),
            ("7c41:/", "7c41", Some("")),
            ("7c41:/data/a:b/", "7c41", Some("data/a:b")),
            ("latest~2:data", "latest~2", Some("data")),
            ("tag:x", "tag:x", None),
            ("tag:x:data", "tag:x", Some("data")),
            ("tag:import:a.zip", "tag:import:a.zip", None),
            ("tag:import:a.zip:data", "tag:import:a.zip", Some("data")),
            ("2026-11-19:data", "2026-11-19", Some("data")),
            ("2026-11-19 17:32", "2026-11-19 17:32", None),
            ("2026-11-19 17:32:data", "2026-11-19 17:32", Some("data")),
            (
                "2026-11-19T17:32:10+02:00:a",
                "2026-11-19T17:32:10+02:00",
                Some("a"),
            ),
            ("2 days ago:a", "2 days ago", Some("a")),
        ];
        for (argument, reference, path) in table {
            let (found, found_path) = split_path(argument.as_bytes());
            assert_eq!(found, reference.as_bytes(), "{argument}");
            assert_eq!(found_path, path.map(str::as_bytes), "{argument}");
        }
    }
}
