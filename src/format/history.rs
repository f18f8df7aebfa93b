//! What backups counted whose snapshots are no more, by series and day.
//!
//! `docs/format.md`, section "Notes". Manifests carry their own figures; when one is removed they
//! are added up here, so that growth can be told over years whatever is pruned. Bounded: so many
//! spans for each series, the oldest of which grow together, and so many series.
//!
//! Invariant: spans of one series do not overlap. Deterministic, as all of the state is.

use crate::context::Timestamp;
use crate::format::manifest::Manifest;
use crate::format::wire;
use crate::format::wire::Decoded;
use crate::format::wire::Reader;
use std::collections::BTreeMap;

/// Spans kept for a series: a season by days, and one for all before.
const SPANS_MAX: usize = 128;
/// Series kept; the one that ended first goes.
const SERIES_MAX: usize = 256;
const DAY_NS: i64 = 86_400_000_000_000;

/// What makes snapshots a series.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SeriesName {
    /// The machine.
    pub host: String,
    /// The profile; empty for paths given by hand.
    pub profile: String,
    /// The directory all paths are relative to.
    pub root_path: Vec<u8>,
}

/// What backups of a span of days counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Span {
    /// The last day of the span, counted from 1970 in UTC.
    pub last_day: u64,
    /// Backups.
    pub backups: u64,
    /// Bytes of all files in the largest of them.
    pub total_bytes: u64,
    /// Bytes that had to be read.
    pub read_bytes: u64,
    /// Plain bytes of chunks that were new.
    pub new_bytes: u64,
    /// Bytes of the packs written.
    pub stored_bytes: u64,
}

/// The spans of a series by their first day.
pub type Spans = BTreeMap<u64, Span>;

/// What was counted, by series.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// The series.
    pub series: BTreeMap<SeriesName, Spans>,
}

impl SeriesName {
    /// Returns the series a snapshot belongs to.
    pub fn of(manifest: &Manifest) -> SeriesName {
        SeriesName {
            host: manifest.host.clone(),
            profile: manifest.profile.clone(),
            root_path: manifest.root_path.clone(),
        }
    }
}

impl History {
    /// Adds what one backup counted.
    pub fn absorb(&mut self, manifest: &Manifest) {
        let spans = self.series.entry(SeriesName::of(manifest)).or_default();
        let day = day_of(manifest.started_at);
        let figures = &manifest.figures;
        let at = spans.range(..=day).next_back();
        let first = match at {
            Some((first, span)) if day <= span.last_day => *first,
            _ => day,
        };
        let span = spans.entry(first).or_default();
        span.add(&Span {
            last_day: day,
            backups: 1,
            total_bytes: figures.total_bytes,
            read_bytes: figures.read_bytes,
            new_bytes: figures.new_bytes,
            stored_bytes: figures.stored_bytes,
        });
        self.bound();
    }

    fn bound(&mut self) {
        for spans in self.series.values_mut() {
            while spans.len() > SPANS_MAX {
                let Some((first, mut span)) = spans.pop_first() else {
                    break;
                };
                if let Some((_, next)) = spans.pop_first() {
                    span.add(&next);
                }
                spans.insert(first, span);
            }
        }
        while self.series.len() > SERIES_MAX {
            let ended = |spans: &Spans| spans.values().map(|span| span.last_day).max();
            let oldest = self.series.iter().min_by_key(|(_, spans)| ended(spans));
            let Some(oldest) = oldest.map(|(name, _)| name.clone()) else {
                break;
            };
            self.series.remove(&oldest);
        }
    }
}

impl Span {
    /// Adds another span, which may lie anywhere behind the first day of this one.
    pub fn add(&mut self, other: &Span) {
        self.last_day = self.last_day.max(other.last_day);
        self.backups = self.backups.saturating_add(other.backups);
        self.total_bytes = self.total_bytes.max(other.total_bytes);
        self.read_bytes = self.read_bytes.saturating_add(other.read_bytes);
        self.new_bytes = self.new_bytes.saturating_add(other.new_bytes);
        self.stored_bytes = self.stored_bytes.saturating_add(other.stored_bytes);
    }
}

/// Returns the day of a time, counted from 1970 in UTC. There are none before.
pub fn day_of(time: Timestamp) -> u64 {
    u64::try_from(time.0.div_euclid(DAY_NS)).unwrap_or(0)
}

/// Appends the content of a note about one series.
pub(super) fn put(out: &mut Vec<u8>, name: &SeriesName, spans: &Spans) {
    wire::put_bytes(out, name.host.as_bytes());
    wire::put_bytes(out, name.profile.as_bytes());
    wire::put_bytes(out, &name.root_path);
    wire::put_varint(out, spans.len() as u64);
    for (first, span) in spans {
        for value in [
            *first,
            span.last_day.saturating_sub(*first),
            span.backups,
            span.total_bytes,
            span.read_bytes,
            span.new_bytes,
            span.stored_bytes,
        ] {
            wire::put_varint(out, value);
        }
    }
}

/// Reads the content of a note about one series.
pub(super) fn take(reader: &mut Reader<'_>) -> Decoded<(SeriesName, Spans)> {
    let name = SeriesName {
        host: wire::text(reader.bytes()?)?,
        profile: wire::text(reader.bytes()?)?,
        root_path: reader.bytes()?.to_vec(),
    };
    let mut spans = Spans::new();
    for _ in 0..reader.count(7)? {
        let first = reader.varint()?;
        let span = Span {
            last_day: first.saturating_add(reader.varint()?),
            backups: reader.varint()?,
            total_bytes: reader.varint()?,
            read_bytes: reader.varint()?,
            new_bytes: reader.varint()?,
            stored_bytes: reader.varint()?,
        };
        spans.insert(first, span);
    }
    Ok((name, spans))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::manifest::Figures;

    fn manifest(host: &str, day: u64, stored_bytes: u64) -> Manifest {
        Manifest {
            host: host.into(),
            started_at: Timestamp(day as i64 * DAY_NS + 5),
            figures: Figures {
                stored_bytes,
                ..Figures::default()
            },
            ..Manifest::default()
        }
    }

    fn stored(spans: &Spans) -> u64 {
        spans.values().map(|span| span.stored_bytes).sum()
    }

    #[test]
    fn backups_of_a_day_are_added_up() {
        let mut history = History::default();
        history.absorb(&manifest("a", 100, 3));
        history.absorb(&manifest("a", 102, 5));
        history.absorb(&manifest("a", 100, 4));
        history.absorb(&manifest("b", 100, 1));

        let spans = history.series.values().next().unwrap();

        assert_eq!(spans.len(), 2);
        assert_eq!((spans[&100].backups, spans[&100].stored_bytes), (2, 7));
        assert_eq!(history.series.len(), 2);
    }

    #[test]
    fn years_of_days_stay_bounded_and_lose_no_bytes() {
        let mut history = History::default();
        // In no order, as snapshots are removed.
        for step in 0..1000_u64 {
            history.absorb(&manifest("a", 20_000 + step * 7 % 1000, 10));
        }

        let spans = history.series.values().next().unwrap();

        assert_eq!(spans.len(), SPANS_MAX);
        assert_eq!(stored(spans), 10_000);
        let mut ends = 0;
        for (first, span) in spans {
            assert!(ends <= *first && *first <= span.last_day);
            ends = span.last_day + 1;
        }
        for number in 0..2 * SERIES_MAX as u64 {
            history.absorb(&manifest(&format!("host-{number}"), 30_000 + number, 1));
        }
        assert_eq!(history.series.len(), SERIES_MAX);
    }
}
