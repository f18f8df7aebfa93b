//! What was stored day by day, how fast that grows, and where it leads.
//!
//! Days come from the manifests of the snapshots that are there and from the history in the log of
//! those that are not. Growth is the median of what was stored on the last thirty days with
//! backups: a day on which a disk image was added, or everything was read anew, moves it little.
//! The first backup of a series is no growth and does not count. Pruning gives back some of it, so
//! a forecast is what comes in if nothing is pruned.

use crate::format::history::History;
use crate::format::history::SeriesName;
use crate::format::history::Span;
use crate::format::history::Spans;
use crate::format::history::day_of;
use crate::format::manifest::Manifest;
use std::collections::BTreeMap;

/// Days that are looked at.
const DAYS_MAX: usize = 30;
/// Fewer days say nothing.
const DAYS_MIN: usize = 3;

/// What backups stored over time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Growth {
    /// What was counted, oldest first. A span is a day, or older ones together.
    pub spans: Vec<(u64, Span)>,
    /// Bytes stored on a usual day; `None` while there are too few days.
    pub day_bytes: Option<u64>,
    /// Days that this was taken from.
    pub days: u64,
}

impl Growth {
    /// Returns how many bytes come in over so many days.
    pub fn forecast(&self, days: u64) -> Option<u64> {
        self.day_bytes.map(|bytes| bytes.saturating_mul(days))
    }
}

/// Returns the growth of the series that are meant, from the snapshots that are there and what was
/// counted of those that are not.
pub fn growth<'m>(
    manifests: impl IntoIterator<Item = &'m Manifest>,
    history: &History,
    is_meant: &dyn Fn(&SeriesName) -> bool,
) -> Growth {
    let meant = history.series.iter().filter(|(name, _)| is_meant(name));
    let mut counted = History {
        series: meant
            .map(|(name, spans)| (name.clone(), spans.clone()))
            .collect(),
    };
    let mut firsts: BTreeMap<SeriesName, &Manifest> = BTreeMap::new();
    for manifest in manifests {
        let name = SeriesName::of(manifest);
        if !is_meant(&name) {
            continue;
        }
        let first = firsts.entry(name).or_insert(manifest);
        if manifest.started_at < first.started_at {
            *first = manifest;
        }
        counted.absorb(manifest);
    }
    let mut spans = Spans::new();
    let mut days: BTreeMap<u64, u64> = BTreeMap::new();
    for (name, of_one) in &counted.series {
        let has_history = history.series.contains_key(name);
        for (first_day, span) in of_one {
            spans.entry(*first_day).or_default().add(span);
            // A span of several days tells nothing of any of them.
            if span.last_day == *first_day {
                *days.entry(*first_day).or_default() += span.stored_bytes;
            }
        }
        // The first backup of all is not growth; with a history it was long ago.
        if let Some(first) = firsts.get(name).filter(|_| !has_history)
            && let Some(bytes) = days.get_mut(&day_of(first.started_at))
        {
            *bytes = bytes.saturating_sub(first.figures.stored_bytes);
        }
    }
    let last = days.values().rev().take(DAYS_MAX).copied();
    let mut last: Vec<u64> = last.collect();
    last.sort_unstable();
    Growth {
        spans: spans.into_iter().collect(),
        days: last.len() as u64,
        day_bytes: (DAYS_MIN <= last.len()).then(|| last[last.len() / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Timestamp;
    use crate::format::manifest::Figures;

    fn snapshot(day: i64, stored_bytes: u64) -> Manifest {
        Manifest {
            started_at: Timestamp(day * 86_400_000_000_000),
            figures: Figures {
                stored_bytes,
                ..Figures::default()
            },
            ..Manifest::default()
        }
    }

    fn of_all(snapshots: &[Manifest], history: &History) -> Growth {
        growth(snapshots, history, &|_| true)
    }

    #[test]
    fn a_first_backup_and_a_day_out_of_the_ordinary_are_no_growth() {
        let mut snapshots = vec![snapshot(100, 1_000_000)];
        snapshots.extend((101..110).map(|day| snapshot(day, 10)));
        snapshots.push(snapshot(110, 500_000));

        let growth = of_all(&snapshots, &History::default());

        assert_eq!((growth.day_bytes, growth.days), (Some(10), 11));
        assert_eq!(growth.forecast(30), Some(300));
        assert_eq!(growth.spans.len(), 11);
    }

    #[test]
    fn removed_snapshots_still_count() {
        let all: Vec<_> = (100..110).map(|day| snapshot(day, 10)).collect();
        let mut history = History::default();
        all[..8]
            .iter()
            .for_each(|manifest| history.absorb(manifest));

        let growth = of_all(&all[8..], &history);

        assert_eq!((growth.day_bytes, growth.days), (Some(10), 10));
        let name = SeriesName {
            host: "another".into(),
            ..SeriesName::default()
        };
        let of_another = super::growth(&all, &history, &|series: &SeriesName| *series == name);
        assert_eq!(of_another, Growth::default());
    }

    #[test]
    fn two_days_are_too_few() {
        let growth = of_all(&[snapshot(1, 5), snapshot(2, 5)], &History::default());

        assert_eq!((growth.day_bytes, growth.forecast(30)), (None, None));
    }
}
