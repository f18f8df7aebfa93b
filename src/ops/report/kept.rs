//! Which snapshots are kept and why, by day and by hour. Pure.

use crate::context::Timestamp;
use crate::id::SnapshotId;
use crate::ops::keep;
use crate::ops::keep::Verdict as Kept;
use crate::ops::report::ReportOptions;
use crate::ops::report::gather::ROWS_MAX;
use crate::ops::snapshots::Snapshot;
use crate::ops::words;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use std::collections::BTreeMap;
use std::collections::HashMap;

/// Weeks of the calendar.
pub(super) const WEEKS: usize = 53;
/// Days that are shown by hours.
pub(super) const HOUR_DAYS: usize = 7;

/// Which days and hours have snapshots.
#[derive(Debug, Default)]
pub(super) struct Calendar {
    /// The Monday the calendar begins with.
    pub first: Option<Date>,
    /// Today.
    pub last: Option<Date>,
    /// Snapshots by day, and why they are kept.
    pub days: BTreeMap<Date, (u64, String)>,
    /// Snapshots of the last days by hour.
    pub hours: BTreeMap<(Date, i8), u64>,
    /// Snapshots before it begins.
    pub older: u64,
}

/// Why each snapshot stays, or that the next prune removes it.
pub(super) struct Reason {
    /// The names of the rules.
    pub rules: Vec<String>,
    /// All of them, or why it goes.
    pub text: String,
}

/// Returns why each snapshot stays, or that it goes.
pub(super) fn reasons(
    snapshots: &[Snapshot],
    options: &ReportOptions,
    zone: &TimeZone,
    now: Timestamp,
) -> HashMap<SnapshotId, Reason> {
    let mut reasons = HashMap::new();
    for (profile, policy) in &options.policies {
        let is_of = |one: &&Snapshot| one.manifest.profile == *profile;
        let of_profile: Vec<Snapshot> = snapshots.iter().filter(is_of).cloned().collect();
        match keep::judge(&of_profile, policy, zone, now) {
            Ok(judged) => reasons.extend(judged.iter().map(|kept| (kept.id, reason(kept)))),
            // It removes nothing; why it is refused is told by `prune`.
            Err(_) => reasons.extend(of_profile.iter().map(|one| (one.id, refused()))),
        }
    }
    for one in snapshots {
        reasons.entry(one.id).or_insert_with(|| Reason {
            rules: vec!["no policy: kept until forgotten".to_string()],
            text: "no policy".to_string(),
        });
    }
    reasons
}

fn refused() -> Reason {
    Reason {
        rules: vec!["the policy is refused: statekeep prune -n".to_string()],
        text: "policy refused".to_string(),
    }
}

fn reason(kept: &Kept) -> Reason {
    match &kept.goes {
        Some(goes) => Reason {
            rules: vec!["goes with the next prune".to_string()],
            text: format!("goes: {goes}"),
        },
        None => {
            let rules: Vec<String> = kept.rules.iter().map(ToString::to_string).collect();
            Reason {
                text: rules.join(", "),
                rules,
            }
        }
    }
}

/// Returns how many snapshots each rule keeps, the most first.
pub(super) fn rules(reasons: &HashMap<SnapshotId, Reason>) -> Vec<(String, u64)> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for rule in reasons.values().flat_map(|reason| &reason.rules) {
        *counts.entry(rule).or_default() += 1;
    }
    let mut counts: Vec<(String, u64)> = counts
        .into_iter()
        .map(|(rule, n)| (rule.to_string(), n))
        .collect();
    counts.sort_by_key(|(rule, count)| (std::cmp::Reverse(*count), rule.clone()));
    counts.truncate(ROWS_MAX);
    counts
}

/// Returns when there are snapshots.
pub(super) fn calendar(
    snapshots: &[Snapshot],
    why: &HashMap<SnapshotId, Reason>,
    zone: &TimeZone,
    now: Timestamp,
) -> Calendar {
    let today = words::zoned(now, zone).date();
    let weekday = i64::from(today.weekday().to_monday_zero_offset());
    let back = |days: i64| today.checked_sub(jiff::Span::new().days(days)).ok();
    let first = back(weekday + 7 * (WEEKS as i64 - 1));
    let first_by_hour = back(HOUR_DAYS as i64 - 1);
    let mut calendar = Calendar {
        first,
        last: Some(today),
        ..Calendar::default()
    };
    for one in snapshots {
        let at = words::zoned(one.manifest.started_at, zone);
        if Some(at.date()) < first {
            calendar.older += 1;
            continue;
        }
        if at.date() > today {
            continue;
        }
        let day = calendar.days.entry(at.date()).or_default();
        day.0 += 1;
        if let Some(reason) = why.get(&one.id)
            && day.1.len() < 120
            && !day.1.split("; ").any(|other| other == reason.text)
        {
            let between = if day.1.is_empty() { "" } else { "; " };
            day.1.push_str(between);
            day.1.push_str(&reason.text);
        }
        if first_by_hour <= Some(at.date()) {
            *calendar.hours.entry((at.date(), at.hour())).or_default() += 1;
        }
    }
    calendar
}
