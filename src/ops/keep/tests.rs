//! The policy against a naive one, clocks that jump, and days that are not 24 hours long.

use super::*;
use crate::format::manifest::Manifest;
use proptest::prelude::*;
use std::collections::BTreeSet;

const HOUR: i64 = 3600 * 1_000_000_000;
const DAY: i64 = 24 * HOUR;

fn at(text: &str) -> Timestamp {
    let instant: jiff::Timestamp = text.parse().unwrap();
    Timestamp(i64::try_from(instant.as_nanosecond()).unwrap())
}

fn snapshot(number: u16, started_at: Timestamp) -> Snapshot {
    let mut id = [0; 32];
    id[..2].copy_from_slice(&number.to_be_bytes());
    Snapshot {
        id: SnapshotId(id),
        manifest: Manifest {
            started_at,
            host: "host".into(),
            profile: "app".into(),
            ..Manifest::default()
        },
        tags: vec![],
        hold: None,
        proof: None,
        replaced: None,
    }
}

fn series(times: impl IntoIterator<Item = Timestamp>) -> Vec<Snapshot> {
    let numbered = (0..).zip(times);
    numbered
        .map(|(number, time)| snapshot(number, time))
        .collect()
}

fn last(count: u32) -> Policy {
    Policy {
        last: count,
        ..Policy::default()
    }
}

fn kept(snapshots: &[Snapshot], policy: &Policy, zone: &TimeZone, now: Timestamp) -> Vec<usize> {
    let verdicts = judge(snapshots, policy, zone, now).unwrap();
    let is_kept = |(at, verdict): (usize, &Verdict)| verdict.is_kept().then_some(at);
    verdicts.iter().enumerate().filter_map(is_kept).collect()
}

fn rules(snapshots: &[Snapshot], policy: &Policy, now: Timestamp, index: usize) -> Vec<Rule> {
    judge(snapshots, policy, &TimeZone::UTC, now).unwrap()[index]
        .rules
        .clone()
}

#[test]
fn a_policy_that_keeps_nothing_is_refused() {
    let snapshots = series([Timestamp(0)]);
    let nothing = Policy::default();

    let refused = judge(&snapshots, &nothing, &TimeZone::UTC, Timestamp(0));

    assert!(matches!(refused, Err(Error::Refused { .. })));
}

#[test]
fn a_misspelt_tag_does_not_empty_a_series() {
    let mut snapshots = series((0..5).map(|day| Timestamp(day * DAY)));
    snapshots[2].tags = vec!["daily".into()];
    let policy = |tag: &str| Policy {
        tags: vec![tag.into()],
        ..Policy::default()
    };
    let now = Timestamp(5 * DAY);

    let misspelt = judge(&snapshots, &policy("dialy"), &TimeZone::UTC, now);

    assert!(misspelt.unwrap_err().to_string().contains("app on host"));
    assert_eq!(
        kept(&snapshots, &policy("daily"), &TimeZone::UTC, now),
        [2, 4]
    );
}

#[test]
fn series_are_profiles_and_hosts_and_roots_of_what_has_no_profile() {
    let mut snapshots = series((0..8).map(|day| Timestamp(day * DAY)));
    snapshots[0].manifest.host = "other".into();
    snapshots[1].manifest.profile = "other".into();
    // Other paths, same profile: the same series.
    snapshots[2].manifest.root_path = b"/srv".to_vec();
    for (index, root) in [(4, "/a"), (5, "/a"), (6, "/b")] {
        snapshots[index].manifest.profile = String::new();
        snapshots[index].manifest.root_path = root.into();
    }

    let kept = kept(&snapshots, &last(1), &TimeZone::UTC, Timestamp(9 * DAY));

    assert_eq!(kept, [0, 1, 5, 6, 7]);
}

#[test]
fn what_must_never_go_stays_under_any_policy() {
    let mut snapshots = series((0..40).map(|day| Timestamp(day * DAY)));
    let now = Timestamp(40 * DAY);
    snapshots[3].hold = Some(HoldUntil::Released);
    snapshots[4].hold = Some(HoldUntil::Time(Timestamp(now.0 + 1)));
    snapshots[5].hold = Some(HoldUntil::Time(now));
    for (index, result) in [(6, "ok"), (7, "ok"), (8, "failed")] {
        let result = result.into();
        snapshots[index].proof = Some(Proof { at: now, result });
    }
    // Safety copies go once the newest complete one, of day 38, is 30 days younger.
    for (index, tag) in [
        (2, "pre-restore"),
        (20, "pre-restore"),
        (21, "pre-migration-7"),
    ] {
        snapshots[index].tags = vec![tag.into()];
    }
    snapshots[39].manifest.partial = true;
    snapshots[30].manifest.partial = true;

    let kept = kept(&snapshots, &last(1), &TimeZone::UTC, now);

    assert_eq!(kept, [3, 4, 7, 20, 21, 38, 39]);
    assert_eq!(
        rules(&snapshots, &last(1), now, 38),
        [Rule::Last, Rule::Latest]
    );
    assert_eq!(rules(&snapshots, &last(1), now, 39), [Rule::PartialLatest]);
    let goes = judge(&snapshots, &last(1), &TimeZone::UTC, now).unwrap();
    assert_eq!(goes[30].goes, Some(Goes::Partial));
}

#[test]
fn what_a_restore_found_before_it_takes_the_place_of_no_backup() {
    let mut snapshots = series((0..6).map(|hour| Timestamp(hour * HOUR)));
    for index in [2, 4, 5] {
        snapshots[index].tags = vec![SAFETY_TAG.into()];
    }
    let now = Timestamp(6 * HOUR);

    assert_eq!(
        kept(&snapshots, &last(2), &TimeZone::UTC, now),
        [1, 2, 3, 4, 5]
    );
    assert_eq!(rules(&snapshots, &last(2), now, 5), [Rule::Safety]);
    assert_eq!(
        rules(&snapshots, &last(2), now, 3),
        [Rule::Last, Rule::Latest]
    );
}

#[test]
fn partial_snapshots_never_take_the_place_of_complete_ones() {
    let mut snapshots = series((0..10).map(|hour| Timestamp(hour * HOUR)));
    for index in [5, 7, 9] {
        snapshots[index].manifest.partial = true;
    }
    let policy = Policy {
        hourly: 3,
        ..Policy::default()
    };

    let kept = kept(&snapshots, &policy, &TimeZone::UTC, Timestamp(10 * HOUR));

    assert_eq!(kept, [4, 6, 8, 9]);
}

#[test]
fn a_clock_that_jumps_ahead_expires_nothing() {
    let snapshots = series((0..10).map(|day| Timestamp(day * DAY)));
    let policy = Policy {
        within: Some("3d".parse().unwrap()),
        ..Policy::default()
    };
    let (today, in_a_year) = (Timestamp(9 * DAY), Timestamp(400 * DAY));

    let now = kept(&snapshots, &policy, &TimeZone::UTC, today);
    let then = kept(&snapshots, &policy, &TimeZone::UTC, in_a_year);

    assert_eq!(now, [6, 7, 8, 9]);
    assert_eq!(then, now);
}

#[test]
fn a_clock_that_jumps_back_a_year_keeps_what_was_made_before_and_what_is_made_then() {
    let mut snapshots = series((360..370).map(|day| Timestamp(day * DAY)));
    // The clock goes back; three more backups, each after the newest by date.
    for (number, day) in [(10, 5), (11, 6), (12, 7)] {
        let mut made = snapshot(number, Timestamp(day * DAY));
        made.manifest.parent = Some(snapshots[9].id);
        snapshots.push(made);
    }

    let wrong = kept(&snapshots, &last(1), &TimeZone::UTC, Timestamp(8 * DAY));
    let right = kept(&snapshots, &last(1), &TimeZone::UTC, Timestamp(371 * DAY));

    assert_eq!(wrong, (0..13).collect::<Vec<_>>(), "nothing is trusted");
    assert_eq!(
        right,
        [9, 10, 11, 12],
        "dates before their parent are not trusted"
    );
    let rule = rules(&snapshots, &last(1), Timestamp(8 * DAY), 0);
    assert_eq!(rule, [Rule::Future]);
    let rule = rules(&snapshots, &last(1), Timestamp(371 * DAY), 12);
    assert_eq!(rule, [Rule::BeforeParent]);
}

#[test]
fn a_snapshot_of_the_future_takes_no_slot() {
    let mut snapshots = series((0..5).map(|hour| Timestamp(hour * HOUR)));
    snapshots[0].manifest.started_at = Timestamp(1000 * DAY);

    let kept = kept(&snapshots, &last(2), &TimeZone::UTC, Timestamp(5 * HOUR));

    assert_eq!(kept, [0, 3, 4]);
}

/// Hourly snapshots over a change of clocks, in UTC, and how many local days and hours they fill.
#[test]
fn days_and_hours_are_those_of_the_zone() {
    let table = [
        // Zone, first, hours, hours kept, of each local day the last one's UTC hour.
        ("Europe/Madrid", "2026-03-28T00:30:00Z", 72, [22, 21, 21]),
        ("Europe/Madrid", "2026-10-24T00:30:00Z", 72, [21, 22, 22]),
        ("America/New_York", "2026-03-07T12:30:00Z", 72, [4, 3, 3]),
        ("America/New_York", "2026-10-31T12:30:00Z", 72, [3, 4, 4]),
        (
            "Australia/Lord_Howe",
            "2026-04-04T00:15:00Z",
            72,
            [12, 13, 13],
        ),
        (
            "Australia/Lord_Howe",
            "2026-10-03T00:15:00Z",
            72,
            [13, 12, 12],
        ),
    ];
    for (name, first, hours, ends) in table {
        let zone = TimeZone::get(name).unwrap();
        let first = at(first);
        let snapshots = series((0..hours).map(|hour| Timestamp(first.0 + hour * HOUR)));
        let now = Timestamp(first.0 + hours * HOUR);
        let policy = |hourly, daily| Policy {
            hourly,
            daily,
            ..Policy::default()
        };

        let all_hours = kept(&snapshots, &policy(100, 0), &zone, now);
        let days = kept(&snapshots, &policy(0, 10), &zone, now);

        assert_eq!(
            all_hours.len() as i64,
            hours,
            "{name}: every hour is one, repeated or not"
        );
        let utc_hour = |index: &usize| {
            let ns = snapshots[*index].manifest.started_at.0;
            ns.rem_euclid(DAY) / HOUR
        };
        let kept: Vec<i64> = days.iter().take(3).map(utc_hour).collect();
        assert_eq!(kept, ends, "{name}");
    }
}

#[test]
fn weeks_begin_on_monday_also_across_a_year() {
    // 2026-12-31 is a Thursday, 2027-01-03 a Sunday: one week.
    let days = [
        "2026-12-27",
        "2026-12-28",
        "2026-12-31",
        "2027-01-03",
        "2027-01-04",
    ];
    let snapshots = series(days.map(|day| at(&format!("{day}T12:00:00Z"))));
    let policy = Policy {
        weekly: 10,
        ..Policy::default()
    };

    let kept = kept(
        &snapshots,
        &policy,
        &TimeZone::UTC,
        at("2027-01-05T00:00:00Z"),
    );

    assert_eq!(kept, [0, 3, 4]);
}

#[test]
fn spans_are_read_and_nonsense_is_not() {
    let now = at("2026-03-31T12:00:00Z");
    let before = |text: &str| text.parse::<Within>().unwrap().before(now, &TimeZone::UTC);

    assert_eq!(before("36h"), at("2026-03-30T00:00:00Z"));
    assert_eq!(before("1m"), at("2026-02-28T12:00:00Z"));
    assert_eq!(before("1y2w"), at("2025-03-17T12:00:00Z"));
    assert_eq!(before("99999y"), Timestamp(i64::MIN));
    for bad in [
        "",
        "0d",
        "d",
        "30",
        "30 d",
        "30x",
        "-1d",
        "1d2",
        "9999999999d",
        "3ü",
    ] {
        assert!(bad.parse::<Within>().is_err(), "{bad}");
    }
}

/// What the policy says, in the slowest and plainest way.
fn naive(snapshots: &[Snapshot], policy: &Policy, now: Timestamp) -> BTreeSet<usize> {
    let time = |at: &usize| snapshots[*at].manifest.started_at;
    let date = |at: &usize| {
        let instant = jiff::Timestamp::from_nanosecond(i128::from(time(at).0)).unwrap();
        instant.to_zoned(TimeZone::UTC)
    };
    let mut kept: BTreeSet<usize> = (0..snapshots.len())
        .filter(|at| time(at).0 > now.0 + SKEW_NS)
        .collect();
    let mut order: Vec<usize> = (0..snapshots.len())
        .filter(|at| !kept.contains(at))
        .collect();
    order.sort_by_key(|at| (time(at), snapshots[*at].id));
    let is_partial = |at: &usize| snapshots[*at].manifest.partial;
    while order.last().is_some_and(is_partial) {
        kept.extend(order.pop());
    }
    order.retain(|at| !is_partial(at));
    kept.extend(order.last());
    kept.extend(order.iter().rev().take(policy.last as usize));
    for unit in ["%Y-%m-%d %H", "%Y-%m-%d", "%G-%V", "%Y-%m", "%Y"] {
        let count = match unit {
            "%Y-%m-%d %H" => policy.hourly,
            "%Y-%m-%d" => policy.daily,
            "%G-%V" => policy.weekly,
            "%Y-%m" => policy.monthly,
            _ => policy.yearly,
        };
        let mut newest: std::collections::BTreeMap<String, usize> = Default::default();
        for at in &order {
            newest.insert(date(at).strftime(unit).to_string(), *at);
        }
        kept.extend(newest.values().rev().take(count as usize));
    }
    kept
}

proptest! {
    #[test]
    fn the_policy_agrees_with_a_naive_one(
        made in prop::collection::vec((0_i64..20_000, any::<bool>(), 0_u8..5), 1..60),
        counts in prop::array::uniform6(0_u32..5),
        now in 0_i64..24_000,
    ) {
        let [last, hourly, daily, weekly, monthly, yearly] = counts;
        let policy = Policy { last, hourly, daily, weekly, monthly, yearly, ..Policy::default() };
        let mut snapshots = series(made.iter().map(|(hour, ..)| Timestamp(hour * HOUR / 2)));
        for (snapshot, (_, partial, one)) in snapshots.iter_mut().zip(&made) {
            snapshot.manifest.partial = *partial && *one == 0;
        }
        let now = Timestamp(now * HOUR / 2);
        match judge(&snapshots, &policy, &TimeZone::UTC, now) {
            Ok(_) => {
                let kept: BTreeSet<usize> =
                    kept(&snapshots, &policy, &TimeZone::UTC, now).into_iter().collect();
                prop_assert_eq!(kept, naive(&snapshots, &policy, now));
            }
            Err(_) => prop_assert!(counts.iter().all(|count| *count == 0)),
        }
    }
}
