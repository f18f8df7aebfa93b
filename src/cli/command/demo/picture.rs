//! What `demo` shows to people: a table that grows, and what came back.

use crate::cli::text;
use crate::ops::demo::Judged;
use crate::ops::demo::Latencies;
use crate::ops::demo::Origin;
use crate::ops::demo::Places;
use crate::ops::demo::Round;
use crate::ops::demo::Sizes;
use crate::ops::demo::Step;
use crate::ops::demo::Together;
use std::path::Path;
use std::time::Duration;

/// What is said while there is nothing to show.
pub(super) const FIRST_LINE: &str = "Setting up a sample application …";

/// What is judged.
const JUDGE_LINES: [&str; 3] = [
    "Put into empty directories and judged by the application itself: both engines must find",
    "their database sound, no acknowledged commit may be missing and none be there in part,",
    "redb may not be ahead of SQLite, which commits first, and all rules must parse.",
];

/// Cells of the bar of all archives together.
const BAR_CELLS: u128 = 32;

/// The table, and what it needs to know of the rows before.
pub(super) struct Picture {
    backups: u64,
    stored_bytes: u64,
    archive_bytes: u64,
    /// All archives together, as far as can be known after the first.
    expected_bytes: u64,
    is_judging: bool,
}

impl Picture {
    /// Returns a picture of so many backups.
    pub(super) fn new(backups: u64) -> Picture {
        Picture {
            backups,
            stored_bytes: 0,
            archive_bytes: 0,
            expected_bytes: 0,
            is_judging: false,
        }
    }

    /// Returns what a step adds to it.
    pub(super) fn lines(&mut self, step: &Step<'_>) -> Vec<String> {
        match step {
            Step::Ready(sizes) => head_lines(sizes),
            Step::Round(round) => vec![self.row(round)],
            Step::Written {
                together,
                latencies,
            } => end_lines(together, latencies),
            Step::Judged(judged) => {
                let mut lines = Vec::new();
                if !self.is_judging {
                    self.is_judging = true;
                    lines.push(String::new());
                    lines.extend(JUDGE_LINES.map(String::from));
                }
                lines.extend(judged_lines(judged));
                lines
            }
        }
    }

    fn row(&mut self, round: &Round) -> String {
        self.stored_bytes += round.stored_bytes;
        self.archive_bytes += round.archive_bytes;
        self.expected_bytes = (self.expected_bytes).max(round.archive_bytes * self.backups);
        row(
            &round.number.to_string(),
            &grouped(round.acked),
            (round.backup_time, round.stored_bytes),
            (round.archive_time, round.archive_bytes),
            &bar(self.stored_bytes, self.archive_bytes, self.expected_bytes),
        )
    }
}

fn head_lines(sizes: &Sizes) -> Vec<String> {
    let (history, devices) = (sizes.history_bytes, sizes.devices_bytes);
    let head = [
        "                    statekeep              tar.gz",
        "BACKUP  COMMITS    TIME     STORED    TIME       SIZE   ALL SO FAR, █ statekeep ░ tar.gz",
    ];
    let mut lines = vec![
        format!(
            "It holds {} in SQLite, {} in redb and {} rules in TOML, and writes up to",
            text::size(history),
            text::size(devices),
            sizes.rules
        ),
        "250 commits a second to both databases while backups and, for comparison, tar.gz".into(),
        "archives of the same directory are made.".into(),
        String::new(),
    ];
    lines.extend(head.map(String::from));
    lines
}

fn end_lines(together: &Together, latencies: &Latencies) -> Vec<String> {
    let (backups, archives) = (together.backup_time, together.archive_time);
    let smaller = ratio(together.archive_bytes, together.stored_bytes);
    let later = ratio(together.later_archive_bytes, together.later_stored_bytes);
    let faster = ratio(
        archives.as_micros().try_into().unwrap_or(u64::MAX),
        backups.as_micros().try_into().unwrap_or(u64::MAX),
    );
    let sum = row(
        "all",
        "",
        (backups, together.stored_bytes),
        (archives, together.archive_bytes),
        &format!("{smaller} times less, {faster} times faster"),
    );
    let three = [
        latencies.alone,
        latencies.during_backups,
        latencies.during_archives,
    ];
    let [p50_alone, p50_backup, p50_archive] = three.map(|one| milliseconds(one.p50_us));
    let [p99_alone, p99_backup, p99_archive] = three.map(|one| milliseconds(one.p99_us));
    let mut lines = vec![sum, String::new()];
    if together.later_stored_bytes > 0 {
        lines.push(format!(
            "After the first, a backup took {later} times less room than an archive."
        ));
    }
    lines.push(format!(
        "Half of the commits took at most {p50_alone} alone, {p50_backup} during backups, \
         {p50_archive} during tar.gz;"
    ));
    lines.push(format!(
        "99 of 100 took at most {p99_alone}, {p99_backup} and {p99_archive}."
    ));
    lines
}

fn row(
    number: &str,
    commits: &str,
    (time, stored_bytes): (Duration, u64),
    (archive_time, archive_bytes): (Duration, u64),
    bar: &str,
) -> String {
    format!(
        "{number:>6} {commits:>8} {:>7} {:>10} {:>7} {:>10}   {bar}",
        duration(time),
        text::size(stored_bytes),
        duration(archive_time),
        text::size(archive_bytes),
    )
}

/// Returns a bar whose first part is of what a backup takes, and the rest of what archives do.
fn bar(stored_bytes: u64, archive_bytes: u64, expected_bytes: u64) -> String {
    let cells = |bytes: u64| {
        let expected = u128::from(expected_bytes.max(1));
        (u128::from(bytes) * BAR_CELLS + expected / 2) / expected
    };
    let stored = cells(stored_bytes).max(1) as usize;
    let archived = (cells(archive_bytes) as usize).max(stored);
    format!("{}{}", "█".repeat(stored), "░".repeat(archived - stored))
}

fn judged_lines(judged: &Judged) -> Vec<String> {
    let what = match judged.origin {
        Origin::Snapshot => "backup",
        Origin::Archive => "tar.gz",
    };
    let (number, time) = (judged.round, duration(judged.time));
    let start = format!("  {what} {number:<3} {time:>7}  ");
    if judged.faults.is_empty() {
        return vec![format!(
            "{start} ok: commits 1..{}, of which {} were acknowledged before it began",
            grouped(judged.devices),
            grouped(judged.acked)
        )];
    }
    let faults = judged.faults.iter();
    let lines = faults.map(|fault| format!("      {}", text::safe(fault)));
    std::iter::once(format!("{start} DAMAGED"))
        .chain(lines)
        .collect()
}

/// Returns how to go on with what was kept.
pub(super) fn last_lines(kept_dir: Option<&Path>) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(dir) = kept_dir {
        let places = Places::below(dir);
        let quoted = |path: &Path| text::quote(path.as_os_str()).into_owned();
        lines.push(String::new());
        lines.push(format!("All of it is in {}. To look around:", quoted(dir)));
        lines.push(format!(
            "  statekeep -r {} --key-file {} list",
            quoted(&places.repo),
            quoted(&places.key_file)
        ));
    }
    lines
}

/// Returns how many times one is of the other: `7.8`, or without a fraction from ten on.
fn ratio(one: u64, other: u64) -> String {
    let tenths = u128::from(one) * 10 / u128::from(other.max(1));
    match tenths {
        ..100 => format!("{}.{}", tenths / 10, tenths % 10),
        _ => grouped(u64::try_from(tenths / 10).unwrap_or(u64::MAX)),
    }
}

fn duration(time: Duration) -> String {
    text::duration(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn milliseconds(us: u64) -> String {
    format!("{:.1} ms", us as f64 / 1000.0)
}

/// Returns a number as `8,431`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_easy_to_compare() {
        assert_eq!((grouped(7), grouped(431)), ("7".into(), "431".into()));
        assert_eq!(grouped(1_008_431), "1,008,431");
        assert_eq!(
            (ratio(78, 10), ratio(1234, 10)),
            ("7.8".into(), "123".into())
        );
        assert_eq!(ratio(5, 0), "5.0");
    }

    #[test]
    fn a_bar_ends_where_all_archives_do() {
        assert_eq!(bar(1, 8, 64), format!("█{}", "░".repeat(3)));
        assert_eq!(bar(0, 64, 64).chars().count() as u128, BAR_CELLS);
        assert_eq!(bar(8, 2, 64), "████");
    }
}
