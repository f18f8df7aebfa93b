//! Hours, days, weeks, months and years of the calendar, and the newest snapshot in each.
//!
//! A bucket is what the calendar of the zone calls one, so days may have 23 or 25 hours. The hour
//! that is repeated when clocks are put back is two: it has two offsets.

use crate::context::Timestamp;
use crate::ops::keep::Policy;
use crate::safeguard::Safeguard;
use jiff::Zoned;
use jiff::tz::TimeZone;

/// A unit of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A week, from Monday.
    Week,
    /// A month.
    Month,
    /// A year.
    Year,
}

impl Unit {
    /// All units, the shortest first.
    pub const ALL: [Unit; 5] = [Unit::Hour, Unit::Day, Unit::Week, Unit::Month, Unit::Year];

    /// Returns the name of the rule that keeps one of each.
    pub(super) fn rule(self) -> &'static str {
        match self {
            Unit::Hour => "hourly",
            Unit::Day => "daily",
            Unit::Week => "weekly",
            Unit::Month => "monthly",
            Unit::Year => "yearly",
        }
    }

    /// Returns what it is called.
    pub(super) fn noun(self) -> &'static str {
        match self {
            Unit::Hour => "hour",
            Unit::Day => "day",
            Unit::Week => "week",
            Unit::Month => "month",
            Unit::Year => "year",
        }
    }

    /// Returns numbers that are the same for all times of one bucket.
    fn bucket(self, at: &Zoned) -> [i32; 5] {
        let (year, month) = (i32::from(at.year()), i32::from(at.month()));
        match self {
            Unit::Hour => {
                let (day, hour) = (i32::from(at.day()), i32::from(at.hour()));
                [year, month, day, hour, at.offset().seconds()]
            }
            Unit::Day => [year, month, i32::from(at.day()), 0, 0],
            Unit::Week => {
                let week = at.date().iso_week_date();
                [i32::from(week.year()), i32::from(week.week()), 0, 0, 0]
            }
            Unit::Month => [year, month, 0, 0, 0],
            Unit::Year => [year, 0, 0, 0, 0],
        }
    }
}

/// Snapshots by their place, the newest first, put into the buckets of a policy.
pub(super) struct Buckets {
    kept: Vec<(usize, Unit)>,
    replaced: Vec<(Option<Unit>, usize)>,
}

impl Buckets {
    /// Puts times, the newest first, into buckets.
    pub(super) fn new(newest_first: &[Timestamp], policy: &Policy, zone: &TimeZone) -> Buckets {
        let instant = |time: &Timestamp| {
            let instant = jiff::Timestamp::from_nanosecond(i128::from(time.0));
            let zone = match Safeguard::ZoneDays.holds() {
                true => zone.clone(),
                false => TimeZone::UTC,
            };
            instant.unwrap_or_default().to_zoned(zone)
        };
        let times: Vec<Zoned> = newest_first.iter().map(instant).collect();
        let mut buckets = Buckets {
            kept: Vec::new(),
            replaced: vec![(None, 0); times.len()],
        };
        for unit in Unit::ALL {
            let mut newest: Option<([i32; 5], usize)> = None;
            let mut count = 0;
            for (place, time) in times.iter().enumerate() {
                let bucket = unit.bucket(time);
                match newest {
                    Some((same, by)) if same == bucket => {
                        let replaced = &mut buckets.replaced[place];
                        if replaced.0.is_none() {
                            *replaced = (Some(unit), by);
                        }
                    }
                    _ if count == policy.count(unit) => break,
                    _ => {
                        count += 1;
                        newest = Some((bucket, place));
                        buckets.kept.push((place, unit));
                    }
                }
            }
        }
        buckets
    }

    /// Returns the places that are kept, and for which unit.
    pub(super) fn kept(&self) -> impl Iterator<Item = (usize, Unit)> {
        self.kept.iter().copied()
    }

    /// Returns for every place the shortest unit for which another place stands, and that place.
    pub(super) fn replaced(&self) -> Vec<(Option<Unit>, usize)> {
        self.replaced.clone()
    }
}
