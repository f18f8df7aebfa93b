//! What somebody wants kept.

use crate::context::Timestamp;
use crate::error::Error;
use crate::error::Result;
use crate::ops::keep::buckets::Unit;
use jiff::Span;
use jiff::tz::TimeZone;
use std::str::FromStr;
use std::time::Duration;

/// How many snapshots to keep of each kind. All rules count; what any keeps, stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// The newest so many; `retention = N` is this.
    pub last: u32,
    /// The newest of each of the last so many hours that have one.
    pub hourly: u32,
    /// The same for days.
    pub daily: u32,
    /// The same for weeks, which begin on Monday.
    pub weekly: u32,
    /// The same for months.
    pub monthly: u32,
    /// The same for years.
    pub yearly: u32,
    /// All that are no older than this, counted back from the newest.
    pub within: Option<Within>,
    /// All with one of these tags.
    pub tags: Vec<String>,
}

impl Policy {
    /// Returns the policy that keeps the newest so many.
    pub fn last(count: u32) -> Policy {
        Policy {
            last: count,
            ..Policy::default()
        }
    }

    /// Fails if the policy keeps nothing.
    pub(super) fn check(&self) -> Result<()> {
        let keeps_nothing = self.last == 0
            && Unit::ALL.iter().all(|&unit| self.count(unit) == 0)
            && self.within.is_none_or(Within::is_zero)
            && self.tags.is_empty();
        match keeps_nothing {
            true => Err(Error::Refused {
                reason: "the policy keeps nothing".to_string(),
            }),
            false => Ok(()),
        }
    }

    /// Returns of how many hours, days and so on one is kept.
    pub(super) fn count(&self, unit: Unit) -> u32 {
        match unit {
            Unit::Hour => self.hourly,
            Unit::Day => self.daily,
            Unit::Week => self.weekly,
            Unit::Month => self.monthly,
            Unit::Year => self.yearly,
        }
    }
}

/// A span of the calendar: `30d`, `2w`, `1y6m`, `36h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Within {
    years: u32,
    months: u32,
    days: u32,
    hours: u32,
}

/// No span is longer than the calendar.
const NUMBER_MAX: u32 = 100_000;

impl Within {
    fn is_zero(self) -> bool {
        self == Within::default()
    }

    /// Returns the time so long before another. What is before all calendars is the first time.
    pub(super) fn before(&self, time: Timestamp, zone: &TimeZone) -> Timestamp {
        let span = Span::new()
            .try_years(self.years)
            .and_then(|span| span.try_months(self.months))
            .and_then(|span| span.try_days(self.days))
            .and_then(|span| span.try_hours(self.hours));
        let instant = jiff::Timestamp::from_nanosecond(i128::from(time.0)).unwrap_or_default();
        let before = span.and_then(|span| instant.to_zoned(zone.clone()).checked_sub(span));
        let ns = before.map(|zoned| i64::try_from(zoned.timestamp().as_nanosecond()));
        Timestamp(ns.map_or(i64::MIN, |ns| ns.unwrap_or(i64::MIN)))
    }
}

/// In whole hours, and none too few.
impl From<Duration> for Within {
    fn from(span: Duration) -> Within {
        let hours = u32::try_from(span.as_secs().div_ceil(3600)).unwrap_or(NUMBER_MAX);
        Within {
            hours,
            ..Within::default()
        }
    }
}

impl FromStr for Within {
    type Err = String;

    fn from_str(text: &str) -> Result<Within, String> {
        let wrong = || format!("{text:?} is no span: write it like 30d, 2w, 6m, 1y or 36h");
        let mut within = Within::default();
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let number: u32 = rest[..digits].parse().map_err(|_| wrong())?;
            let unit = rest[digits..].chars().next().ok_or_else(wrong)?;
            let (field, factor) = match unit {
                'y' => (&mut within.years, 1),
                'm' => (&mut within.months, 1),
                'w' => (&mut within.days, 7),
                'd' => (&mut within.days, 1),
                'h' => (&mut within.hours, 1),
                _ => return Err(wrong()),
            };
            let sum = number
                .checked_mul(factor)
                .and_then(|n| n.checked_add(*field));
            *field = sum.filter(|sum| *sum <= NUMBER_MAX).ok_or_else(wrong)?;
            rest = &rest[digits + unit.len_utf8()..];
        }
        match within.is_zero() {
            true => Err(wrong()),
            false => Ok(within),
        }
    }
}
