//! When something is due: the five fields of cron, when that is next and when it was last.
//!
//! Where the clock is set forward, what is skipped is due right after the gap; where it is set
//! back, what comes twice is due once. A schedule for every hour goes by hours that pass, so it
//! runs in both hours of that name. If day and weekday are both said, either will do.

use jiff::ToSpan;
use jiff::Zoned;
use jiff::civil::Date;
use jiff::tz::AmbiguousOffset;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A leap day may be this far away, where a century has none.
const DAYS_MAX: usize = 366 * 9;

const NICKNAMES: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];
const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// When something is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    text: String,
    minutes: Field,
    hours: Field,
    days: Field,
    months: Field,
    weekdays: Field,
}

/// The numbers of one field, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field {
    bits: u64,
    /// Whether it begins with `*`, which restricts nothing where two fields are weighed.
    is_star: bool,
}

impl Field {
    fn has(self, number: i8) -> bool {
        self.bits >> number & 1 == 1
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Schedule, String> {
        let nickname = NICKNAMES.iter().find(|(name, _)| *name == text.trim());
        let fields = nickname.map_or(text, |(_, fields)| fields);
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return Err(match text.trim().strip_prefix('@') {
                Some(_) => format!(
                    "{text:?} is none of {}",
                    NICKNAMES.map(|(n, _)| n).join(", ")
                ),
                None => format!(
                    "{text:?} has {} fields, and a schedule has five: minute, hour, day, month, \
                     weekday, like \"0 2 * * *\" for two o'clock every night",
                    fields.len()
                ),
            });
        };
        let mut weekdays = field("weekday", weekdays, 0..=7, &WEEKDAYS, 0)?;
        // Sunday has two numbers.
        weekdays.bits |= weekdays.bits >> 7;
        let schedule = Schedule {
            text: text.trim().to_string(),
            minutes: field("minute", minutes, 0..=59, &[], 0)?,
            hours: field("hour", hours, 0..=23, &[], 0)?,
            days: field("day", days, 1..=31, &[], 0)?,
            months: field("month", months, 1..=12, &MONTHS, 1)?,
            weekdays,
        };
        let longest = |month: i8| match month {
            2 => 29,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let mut months = (1..=12).filter(|&month| schedule.months.has(month));
        let comes = months.any(|month| (1..=longest(month)).any(|day| schedule.days.has(day)));
        match comes || !schedule.weekdays.is_star {
            true => Ok(schedule),
            false => Err(format!("{text:?} names a day that no such month has")),
        }
    }
}

fn field(
    what: &str,
    text: &str,
    range: RangeInclusive<u64>,
    names: &[&str],
    first_name: u64,
) -> Result<Field, String> {
    let (least, most) = (*range.start(), *range.end());
    let wrong =
        || format!("{text:?} is no {what}: numbers from {least} to {most}, *, 1-5, */2, 1,2");
    let number = |text: &str| {
        let name = names
            .iter()
            .position(|name| text.eq_ignore_ascii_case(name));
        let number = match name {
            Some(index) => Some(index as u64 + first_name),
            None if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
            None => None,
        };
        number
            .filter(|number| range.contains(number))
            .ok_or_else(wrong)
    };
    let mut bits = 0;
    for part in text.split(',') {
        let (span, step) = match part.split_once('/') {
            Some((span, step)) => (span, step.parse::<u64>().map_err(|_| wrong())?),
            None => (part, 1),
        };
        let (from, to) = match (span, span.split_once('-')) {
            ("*", _) => (least, most),
            (_, Some((from, to))) => (number(from)?, number(to)?),
            (_, None) if part.contains('/') => (number(span)?, most),
            (_, None) => (number(span)?, number(span)?),
        };
        if step == 0 || from > to {
            return Err(wrong());
        }
        let steps = (from..=to).step_by(usize::try_from(step).unwrap_or(usize::MAX));
        steps.for_each(|number| bits |= 1 << number);
    }
    Ok(Field {
        bits,
        is_star: text.starts_with('*'),
    })
}

impl Schedule {
    /// Returns when it is due next after this moment, in the time zone of the moment.
    pub fn next_due(&self, now: &Zoned) -> Option<Zoned> {
        // What is skipped at midnight is due on the next day, so the day before counts too.
        let days = now.date().yesterday().ok()?.series(1.day());
        self.nearest(days, now, |due| due > now).into_iter().min()
    }

    /// Returns when it was due last, which may be this very moment.
    pub fn previous_due(&self, now: &Zoned) -> Option<Zoned> {
        // Where midnight comes twice, tomorrow has begun before today is over.
        let days = now.date().tomorrow().ok()?.series(-1.day());
        self.nearest(days, now, |due| due <= now).into_iter().max()
    }

    /// Returns the wanted moments of the first of these days that has some, and of the day behind
    /// it: where a clock is set back over midnight, two days lie in each other.
    fn nearest(
        &self,
        days: impl Iterator<Item = Date>,
        like: &Zoned,
        is_wanted: impl Fn(&Zoned) -> bool,
    ) -> Vec<Zoned> {
        let wanted = |day: Date| -> Vec<Zoned> {
            match self.is_day(day) {
                true => self.moments(day, like).filter(&is_wanted).collect(),
                false => Vec::new(),
            }
        };
        let mut found = days.take(DAYS_MAX).map(wanted);
        let mut nearest: Vec<Zoned> = found
            .find(|moments| !moments.is_empty())
            .unwrap_or_default();
        nearest.extend(found.next().into_iter().flatten());
        nearest
    }

    fn is_day(&self, day: Date) -> bool {
        let weekday = self.weekdays.has(day.weekday().to_sunday_zero_offset());
        let month_day = self.days.has(day.day());
        let is_day = match self.days.is_star || self.weekdays.is_star {
            true => weekday && month_day,
            false => weekday || month_day,
        };
        is_day && self.months.has(day.month())
    }

    /// Returns all moments of a day, in no order.
    fn moments<'a>(&'a self, day: Date, like: &'a Zoned) -> impl Iterator<Item = Zoned> + 'a {
        let hours = (0..24).filter(|&hour| self.hours.has(hour));
        let minutes = (0..60).filter(|&minute| self.minutes.has(minute));
        let times = hours.flat_map(move |hour| minutes.clone().map(move |m| (hour, m)));
        times.flat_map(move |(hour, minute)| {
            let zone = like.time_zone();
            let found = zone.to_ambiguous_zoned(day.at(hour, minute, 0, 0));
            let moments = match (found.offset(), self.hours.is_star) {
                (AmbiguousOffset::Unambiguous { .. }, _) => [found.compatible().ok(), None],
                (AmbiguousOffset::Gap { .. }, true) => [None, None],
                (AmbiguousOffset::Gap { .. }, false) => {
                    let before = found.earlier().ok();
                    let end = before.and_then(|before| {
                        let transition = zone.following(before.timestamp()).next()?;
                        Some(transition.timestamp().to_zoned(zone.clone()))
                    });
                    [end, None]
                }
                (AmbiguousOffset::Fold { .. }, false) => [found.earlier().ok(), None],
                (AmbiguousOffset::Fold { .. }, true) => {
                    [found.clone().earlier().ok(), found.later().ok()]
                }
            };
            moments.into_iter().flatten()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn next(schedule: &str, after: &str) -> String {
        let schedule: Schedule = schedule.parse().unwrap();
        let after: Zoned = after.parse().unwrap();
        let next = schedule.next_due(&after).unwrap();
        next.strftime("%a %Y-%m-%d %H:%M %z").to_string()
    }

    #[test]
    fn what_is_due_next_follows_the_five_fields() {
        let now = "2026-11-25T08:30:15+00:00[UTC]";
        let table = [
            ("0 2 * * *", "Thu 2026-11-26 02:00 +0000"),
            ("30 8 * * *", "Thu 2026-11-26 08:30 +0000"),
            ("31 8 * * *", "Wed 2026-11-25 08:31 +0000"),
            ("*/15 * * * *", "Wed 2026-11-25 08:45 +0000"),
            ("5-10/5,59 * * * *", "Wed 2026-11-25 08:59 +0000"),
            ("0 0 * * sun", "Sun 2026-11-29 00:00 +0000"),
            ("0 0 * * 7", "Sun 2026-11-29 00:00 +0000"),
            ("0 0 * * MON-fri", "Thu 2026-11-26 00:00 +0000"),
            ("0 0 1 * *", "Tue 2026-12-01 00:00 +0000"),
            ("0 0 1 jan *", "Fri 2027-01-01 00:00 +0000"),
            ("0 0 29 2 *", "Tue 2028-02-29 00:00 +0000"),
            // Either will do.
            ("0 0 1 * fri", "Fri 2026-11-27 00:00 +0000"),
            // The first restricts nothing.
            ("0 0 */2 * fri", "Fri 2026-11-27 00:00 +0000"),
            ("@hourly", "Wed 2026-11-25 09:00 +0000"),
            ("@daily", "Thu 2026-11-26 00:00 +0000"),
            ("@weekly", "Sun 2026-11-29 00:00 +0000"),
            ("@yearly", "Fri 2027-01-01 00:00 +0000"),
        ];
        for (schedule, due) in table {
            assert_eq!(next(schedule, now), due, "{schedule}");
        }
    }

    #[test]
    fn what_was_due_last_may_be_now_or_years_ago() {
        let last = |schedule: &str, now: &str| {
            let schedule: Schedule = schedule.parse().unwrap();
            let previous = schedule.previous_due(&now.parse().unwrap()).unwrap();
            previous.strftime("%Y-%m-%d %H:%M:%S").to_string()
        };

        let two = "2026-11-25T02:00:00+00:00[UTC]";
        assert_eq!(last("0 2 * * *", two), "2026-11-25 02:00:00");
        let before = "2026-11-25T01:59:59+00:00[UTC]";
        assert_eq!(last("0 2 * * *", before), "2026-11-24 02:00:00");
        assert_eq!(last("0 0 29 2 *", two), "2024-02-29 00:00:00");
    }

    #[test]
    fn clocks_that_are_set_lose_nothing_and_repeat_nothing_but_hours() {
        // In this zone clocks go from 02:00 to 03:00 on 28 March and back on 31 October.
        let zone = "CET-1CEST,M3.5.0,M10.5.0/3";
        let zone = jiff::tz::TimeZone::posix(zone).unwrap();
        let due = |schedule: &str, after: &str| {
            let schedule: Schedule = schedule.parse().unwrap();
            let after: jiff::Timestamp = after.parse().unwrap();
            let next = schedule.next_due(&after.to_zoned(zone.clone())).unwrap();
            next.strftime("%d %H:%M %z").to_string()
        };

        assert_eq!(due("30 2 * * *", "2027-03-28T00:00:00Z"), "28 03:00 +0200");
        assert_eq!(due("30 2 * * *", "2027-03-28T01:00:00Z"), "29 02:30 +0200");
        assert_eq!(due("30 * * * *", "2027-03-28T00:30:00Z"), "28 03:30 +0200");
        assert_eq!(due("30 2 * * *", "2027-10-30T23:00:00Z"), "31 02:30 +0200");
        assert_eq!(due("30 2 * * *", "2027-10-31T00:30:00Z"), "01 02:30 +0100");
        assert_eq!(due("30 * * * *", "2027-10-31T00:30:00Z"), "31 02:30 +0100");
    }

    /// Clocks that are set at two, by half an hour, at midnight, and over midnight both ways.
    const ZONES: [&str; 5] = [
        "CET-1CEST,M3.5.0,M10.5.0/3",
        "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0",
        "CST5CDT,M3.2.0/0,M11.1.0/1",
        "NST3:30NDT,M3.2.0/0:01,M11.1.0/0:01",
        "AAA-2BBB,M3.5.0/23:30,M10.5.0/0:30",
    ];

    /// The numbers that a schedule was made of.
    #[derive(Debug)]
    struct Numbers {
        minutes: Vec<i8>,
        /// None is every hour.
        hours: Option<Vec<i8>>,
        weekdays: Vec<i8>,
    }

    impl Numbers {
        fn schedule(&self) -> Schedule {
            let list = |numbers: &[i8]| {
                let numbers: Vec<String> = numbers.iter().map(i8::to_string).collect();
                numbers.join(",")
            };
            let hours = self.hours.as_deref().map_or("*".into(), list);
            let (minutes, weekdays) = (list(&self.minutes), list(&self.weekdays));
            format!("{minutes} {hours} * * {weekdays}").parse().unwrap()
        }

        fn have(&self, time: jiff::civil::DateTime) -> bool {
            self.minutes.contains(&time.minute())
                && self.hours.as_ref().is_none_or(|h| h.contains(&time.hour()))
                && (self.weekdays).contains(&time.weekday().to_sunday_zero_offset())
        }

        /// Watches a clock on the wall for these minutes and notes what is due.
        fn watched(&self, from: &Zoned, minutes: i64) -> Vec<Zoned> {
            let mut due = Vec::new();
            let mut seen = std::collections::HashSet::new();
            let mut before = from.clone();
            for minute in 1..=minutes {
                let now = from.checked_add(minute.minutes()).unwrap();
                let mut shown = before.datetime().checked_add(1.minute()).unwrap();
                let mut is_due = self.have(now.datetime());
                if self.hours.is_some() {
                    is_due &= seen.insert(now.datetime());
                    while shown < now.datetime() {
                        is_due |= self.have(shown);
                        shown = shown.checked_add(1.minute()).unwrap();
                    }
                }
                before = now.clone();
                if is_due {
                    due.push(now);
                }
            }
            due
        }
    }

    fn numbers() -> impl Strategy<Value = Numbers> {
        let some = |most: i8, count: usize| prop::collection::vec(0..=most, 1..=count);
        let hours = prop_oneof![Just(None), some(23, 6).prop_map(Some)];
        (some(59, 3), hours, some(6, 7)).prop_map(|(minutes, hours, weekdays)| Numbers {
            minutes,
            hours,
            weekdays,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]
        #[test]
        fn what_is_due_is_what_a_clock_on_the_wall_shows(
            numbers in numbers(),
            zone in 0..ZONES.len(),
            // Both changes of a year come up often, and so do moments around them.
            change in 0..2usize,
            offset_minutes in -1500..1500i64,
        ) {
            let zone = jiff::tz::TimeZone::posix(ZONES[zone]).unwrap();
            let january: jiff::Timestamp = "2027-01-01T00:00:00Z".parse().unwrap();
            let change = zone.following(january).nth(change).unwrap().timestamp();
            let start = change.checked_sub(72.hours()).unwrap().to_zoned(zone.clone());
            let watched = numbers.watched(&start, 144 * 60);
            let now = change.checked_add(offset_minutes.minutes()).unwrap().to_zoned(zone);
            let schedule = numbers.schedule();
            let end = start.checked_add(144.hours()).unwrap();

            let next = schedule.next_due(&now).unwrap();
            let previous = schedule.previous_due(&now).unwrap();

            match watched.iter().find(|due| **due > now) {
                Some(due) => prop_assert_eq!(&next, due),
                None => prop_assert!(next > end),
            }
            match watched.iter().rev().find(|due| **due <= now) {
                Some(due) => prop_assert_eq!(&previous, due),
                None => prop_assert!(previous <= start),
            }
        }
    }

    #[test]
    fn what_is_no_schedule_says_which_field_is_wrong() {
        let table = [
            ("", "has 0 fields"),
            ("0 2 * *", "has 4 fields"),
            ("0 0 2 * * *", "has 6 fields"),
            ("60 * * * *", "\"60\" is no minute: numbers from 0 to 59"),
            ("0 24 * * *", "is no hour"),
            ("0 0 0 * *", "is no day"),
            ("0 0 * 13 *", "is no month"),
            ("0 0 * * 8", "is no weekday"),
            ("0 0 * * friday", "is no weekday"),
            ("5-1 * * * *", "is no minute"),
            ("*/0 * * * *", "is no minute"),
            ("+1 * * * *", "is no minute"),
            ("0 0 31 2 *", "no such month has"),
            ("@reboot", "is none of @hourly"),
        ];
        for (text, message) in table {
            let error = text.parse::<Schedule>().unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
        }
    }
}
