//! When a backup is due, and from when on it is overdue. Pure.
//!
//! With a schedule: due is what the schedule says after the last backup, and overdue is what is
//! late by more than a quarter of the interval, at least ten minutes, at most six hours. Without
//! one: twice the longest of the last ten gaps between backups, at least 26 hours, at most 35 days;
//! with fewer than three gaps there is no rhythm to judge by, and two days are the limit.

use crate::context::Timestamp;

/// Says when something is due next after a moment.
pub type NextAfter<'a> = dyn Fn(Timestamp) -> Option<Timestamp> + 'a;

const MINUTE_NS: i64 = 60 * 1_000_000_000;
const HOUR_NS: i64 = 60 * MINUTE_NS;
const DAY_NS: i64 = 24 * HOUR_NS;

/// Timers and clocks are early by less: what was made so shortly before a due time was made for it.
const EARLY_NS: i64 = MINUTE_NS;
const GRACE_NS: (i64, i64) = (10 * MINUTE_NS, 6 * HOUR_NS);
const GAPS_MIN: usize = 3;
const GAPS_MAX: usize = 10;
const HABIT_NS: (i64, i64) = (26 * HOUR_NS, 35 * DAY_NS);
const DEFAULT_NS: i64 = 2 * DAY_NS;

/// Who says how often there is a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rhythm {
    /// The configuration.
    Schedule,
    /// The backups so far.
    Habit,
    /// Nobody yet.
    Default,
}

/// When the next one is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Who says so.
    pub rhythm: Rhythm,
    /// When it is due. Without a schedule, the same as `late_at`.
    pub at: Timestamp,
    /// From when on it is overdue.
    pub late_at: Timestamp,
}

/// Returns when the next one is due after the last of these times, oldest first; `None` without
/// any, or if the schedule never comes.
pub(super) fn due(times: &[Timestamp], schedule: Option<&NextAfter<'_>>) -> Option<Due> {
    let last = *times.last()?;
    if let Some(next_after) = schedule {
        let at = next_after(later(last, EARLY_NS))?;
        let interval_ns = next_after(at).map_or(GRACE_NS.1, |following| following.since_ns(at));
        let grace_ns = (interval_ns / 4).clamp(GRACE_NS.0, GRACE_NS.1);
        return Some(Due {
            rhythm: Rhythm::Schedule,
            at,
            late_at: later(at, grace_ns),
        });
    }
    let gaps = times.windows(2).rev().take(GAPS_MAX);
    let gaps: Vec<i64> = gaps.map(|pair| pair[1].since_ns(pair[0])).collect();
    let (rhythm, limit_ns) = match gaps.iter().max() {
        Some(longest) if GAPS_MIN <= gaps.len() => {
            let limit_ns = longest.saturating_mul(2).clamp(HABIT_NS.0, HABIT_NS.1);
            (Rhythm::Habit, limit_ns)
        }
        _ => (Rhythm::Default, DEFAULT_NS),
    };
    let late_at = later(last, limit_ns);
    Some(Due {
        rhythm,
        at: late_at,
        late_at,
    })
}

fn later(time: Timestamp, by_ns: i64) -> Timestamp {
    Timestamp(time.0.saturating_add(by_ns))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn every(interval_ns: i64) -> impl Fn(Timestamp) -> Option<Timestamp> {
        move |after| {
            let count = after.0.div_euclid(interval_ns).checked_add(1)?;
            let next = count.checked_mul(interval_ns)?;
            Some(Timestamp(next))
        }
    }

    fn hours(times: &[i64]) -> Vec<Timestamp> {
        times.iter().map(|hour| Timestamp(hour * HOUR_NS)).collect()
    }

    #[test]
    fn a_schedule_gives_a_grace_that_fits_its_interval() {
        let table = [
            (5 * MINUTE_NS, 10 * MINUTE_NS),
            (HOUR_NS, 15 * MINUTE_NS),
            (DAY_NS, 6 * HOUR_NS),
            (7 * DAY_NS, 6 * HOUR_NS),
        ];
        for (interval_ns, grace_ns) in table {
            let due = due(&[Timestamp(1)], Some(&every(interval_ns))).unwrap();

            assert_eq!(due.rhythm, Rhythm::Schedule);
            assert_eq!(due.at, Timestamp(interval_ns));
            assert_eq!(due.late_at.since_ns(due.at), grace_ns);
        }
    }

    #[test]
    fn a_timer_that_is_a_little_early_counts() {
        let two_seconds_early = Timestamp(DAY_NS - 2_000_000_000);

        let due = due(&[two_seconds_early], Some(&every(DAY_NS))).unwrap();

        assert_eq!(due.at, Timestamp(2 * DAY_NS));
    }

    #[test]
    fn without_a_schedule_the_longest_of_the_last_gaps_is_the_habit() {
        let limit = |times: &[i64]| {
            let times = hours(times);
            let due = due(&times, None).unwrap();
            let limit_ns = due.late_at.since_ns(*times.last().unwrap());
            (due.rhythm, limit_ns / HOUR_NS)
        };

        assert_eq!(limit(&[0]), (Rhythm::Default, 48));
        assert_eq!(limit(&[0, 1, 2]), (Rhythm::Default, 48));
        assert_eq!(limit(&[0, 1, 2, 3]), (Rhythm::Habit, 26));
        assert_eq!(limit(&[0, 24, 48, 120]), (Rhythm::Habit, 144));
        assert_eq!(limit(&[0, 9000, 18_000, 27_000]), (Rhythm::Habit, 35 * 24));
        // What was long ago says nothing.
        let mut times = vec![0];
        times.extend((0..=10).map(|hour| 5000 + hour));
        assert_eq!(limit(&times), (Rhythm::Habit, 26));
        assert_eq!(due(&[], None), None);
    }

    proptest! {
        #[test]
        fn no_times_overflow_and_nothing_is_late_before_it_is_due(
            mut times in proptest::collection::vec(any::<i64>(), 1..20),
            interval_ns in 1..i64::MAX,
        ) {
            times.sort_unstable();
            let times: Vec<Timestamp> = times.into_iter().map(Timestamp).collect();
            let schedule = every(interval_ns);
            let schedule: &NextAfter = &schedule;
            for schedule in [None, Some(schedule)] {
                if let Some(due) = due(&times, schedule) {
                    prop_assert!(due.at <= due.late_at);
                    prop_assert!(due.at >= *times.last().unwrap());
                }
            }
        }
    }
}
