//! What the page shows, as plain data. Pure: the same state, time and zone give the same.
//!
//! Bounded: at most so many bars, rows and names, whatever the repository holds.

use crate::context::Timestamp;
use crate::format::history::SeriesName;
use crate::format::history::day_of;
use crate::id::SnapshotId;
use crate::ops::keep::Policy;
use crate::ops::report::kept;
use crate::ops::report::kept::Calendar;
use crate::ops::report::kept::Reason;
use crate::ops::snapshots::Snapshot;
use crate::ops::stats::FileKind;
use crate::ops::stats::StatsReport;
use crate::ops::status;
use crate::ops::status::RepoStatus;
use crate::ops::status::Verdict;
use crate::ops::words;
use jiff::tz::TimeZone;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;

/// Bars of a chart: more are too thin for a phone.
pub(super) const BARS_MAX: usize = 60;
/// Applications with a colour of their own.
pub(super) const COLORS: usize = 5;
/// Rows of the chart of what costs most.
const SOURCES_MAX: usize = 10;
/// Rows of the tables of snapshots and drills.
pub(super) const ROWS_MAX: usize = 40;
/// What is beside the figures.
#[derive(Debug, Clone, Default)]
pub struct ReportOptions {
    /// What the repository is called.
    pub name: String,
    /// What is kept of each profile.
    pub policies: BTreeMap<String, Policy>,
}

/// What the page shows.
#[derive(Debug)]
pub struct Report {
    pub(super) name: String,
    pub(super) now: Timestamp,
    pub(super) zone: TimeZone,
    pub(super) verdict: Verdict,
    pub(super) headline: String,
    pub(super) status: RepoStatus,
    pub(super) stats: StatsReport,
    /// Names of applications by colour; the last is for all others, if there are any.
    pub(super) colors: Vec<String>,
    pub(super) backups: Vec<Bar>,
    pub(super) days: Days,
    pub(super) factors: Vec<Factors>,
    pub(super) files: Vec<Source>,
    pub(super) tables: Vec<Source>,
    pub(super) calendar: Calendar,
    pub(super) rules: Vec<(String, u64)>,
    pub(super) snapshots: Vec<SnapshotRow>,
    pub(super) proofs: Vec<ProofRow>,
}

/// One bar: what it is about, and bytes by colour.
#[derive(Debug, Clone)]
pub(super) struct Bar {
    pub label: String,
    pub parts: Vec<(usize, u64)>,
}

impl Bar {
    /// Returns how high it is.
    pub(super) fn sum(&self) -> u64 {
        self.parts.iter().map(|(_, bytes)| bytes).sum()
    }
}

/// What was stored over time.
#[derive(Debug)]
pub(super) struct Days {
    /// How many days are one bar.
    pub bar_days: u64,
    pub bars: Vec<Bar>,
}

/// Factors over all backups up to a time.
#[derive(Debug, Clone)]
pub(super) struct Factors {
    pub label: String,
    pub dedup: f64,
    pub encoding: f64,
    pub all: f64,
}

/// Something that costs.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub name: String,
    pub what: String,
    pub bytes: u64,
}

/// A snapshot in the table.
#[derive(Debug, Clone)]
pub(super) struct SnapshotRow {
    pub id: SnapshotId,
    pub at: Timestamp,
    pub what: String,
    pub size_bytes: u64,
    pub stored_bytes: u64,
    pub alone_bytes: u64,
    pub why: String,
}

/// A drill in the table.
#[derive(Debug, Clone)]
pub(super) struct ProofRow {
    pub at: Timestamp,
    pub id: SnapshotId,
    pub what: String,
    pub passed: bool,
    pub result: String,
}

/// Gathers what the page shows. The snapshots are those that were counted, oldest first.
pub fn gather(
    status: RepoStatus,
    stats: StatsReport,
    snapshots: &[Snapshot],
    options: &ReportOptions,
    zone: &TimeZone,
    now: Timestamp,
) -> Report {
    let verdict = Verdict::of(std::slice::from_ref(&status), &[]);
    let headline = status::headline(std::slice::from_ref(&status), &[], now);
    let colors = Colors::of(&stats);
    let why = kept::reasons(snapshots, options, zone, now);
    let mut report = Report {
        name: options.name.clone(),
        now,
        zone: zone.clone(),
        verdict,
        headline,
        backups: backups(snapshots, &colors, zone),
        days: days(&stats, &colors),
        factors: factors(snapshots, zone),
        files: files(&stats),
        tables: tables(&stats),
        calendar: kept::calendar(snapshots, &why, zone, now),
        rules: kept::rules(&why),
        snapshots: Vec::new(),
        proofs: proofs(snapshots),
        colors: colors.names,
        status,
        stats,
    };
    report.snapshots = rows(snapshots, &report.stats, &why);
    report
}

/// Which application has which colour: those that stored most have their own.
struct Colors {
    by_series: HashMap<SeriesName, usize>,
    names: Vec<String>,
}

impl Colors {
    fn of(stats: &StatsReport) -> Colors {
        let mut series: Vec<_> = stats.series.iter().collect();
        series.sort_by_key(|one| (std::cmp::Reverse(one.stored_bytes), one.name.clone()));
        let numbered = series.iter().enumerate();
        let by_series = numbered.map(|(at, one)| (one.name.clone(), at.min(COLORS)));
        let mut names: Vec<String> = series.iter().map(|one| label(&one.name)).collect();
        if names.len() > COLORS {
            names.truncate(COLORS);
            names.push("others".to_string());
        }
        Colors {
            by_series: by_series.collect(),
            names,
        }
    }

    fn of_series(&self, name: &SeriesName) -> usize {
        self.by_series.get(name).copied().unwrap_or(COLORS)
    }
}

fn label(name: &SeriesName) -> String {
    match name.profile.is_empty() {
        true => words::path(&name.root_path),
        false => words::safe(&name.profile),
    }
}

fn backups(snapshots: &[Snapshot], colors: &Colors, zone: &TimeZone) -> Vec<Bar> {
    let newest = &snapshots[snapshots.len().saturating_sub(BARS_MAX)..];
    let bars = newest.iter().map(|one| {
        let color = colors.of_series(&SeriesName::of(&one.manifest));
        Bar {
            label: words::local(one.manifest.started_at, zone),
            parts: vec![(color, one.manifest.figures.stored_bytes)],
        }
    });
    bars.collect()
}

fn days(stats: &StatsReport, colors: &Colors) -> Days {
    let mut by_day: BTreeMap<(u64, usize), u64> = BTreeMap::new();
    for one in &stats.series {
        let color = colors.of_series(&one.name);
        for (_, span) in &one.growth.spans {
            *by_day.entry((span.last_day, color)).or_default() += span.stored_bytes;
        }
    }
    let first = by_day.first_key_value().map_or(0, |((day, _), _)| *day);
    let last = by_day.last_key_value().map_or(0, |((day, _), _)| *day);
    let widths = [1, 7, 28, 91, 364];
    let fits = |days: &&u64| (last - first) / **days < BARS_MAX as u64;
    let bar_days = widths.iter().find(fits).copied().unwrap_or(364);
    // A date far off, of a clock that was wrong, must not make a million bars.
    let count = ((last - first) / bar_days + 1).min(BARS_MAX as u64);
    let begin = last - (count * bar_days - 1).min(last);
    let mut bars: Vec<Bar> = (0..count)
        .map(|number| Bar {
            label: date_of(begin + number * bar_days),
            parts: Vec::new(),
        })
        .collect();
    let spans = stats.series.iter().flat_map(|one| &one.growth.spans);
    let merged = spans.filter(|(first, span)| span.last_day.saturating_sub(*first) >= bar_days);
    // What was added up long ago stands where it ended, and says that it is no single bar.
    let merged = merged.map(|(_, span)| span.last_day.saturating_sub(begin) / bar_days);
    for at in merged.collect::<BTreeSet<u64>>() {
        let bar = usize::try_from(at).ok().and_then(|at| bars.get_mut(at));
        if let Some(bar) = bar {
            bar.label = format!("until {}", date_of(begin + (at + 1) * bar_days - 1));
        }
    }
    for ((day, color), bytes) in by_day {
        let at = day.saturating_sub(begin) / bar_days;
        let Some(bar) = usize::try_from(at).ok().and_then(|at| bars.get_mut(at)) else {
            continue;
        };
        match bar.parts.iter_mut().find(|(other, _)| *other == color) {
            Some((_, sum)) => *sum += bytes,
            None => bar.parts.push((color, bytes)),
        }
    }
    bars.iter_mut().for_each(|bar| bar.parts.sort_unstable());
    Days { bar_days, bars }
}

/// Days of figures are those of UTC.
fn date_of(day: u64) -> String {
    let ns = i64::try_from(day)
        .unwrap_or(0)
        .saturating_mul(86_400_000_000_000);
    let date = words::zoned(Timestamp(ns), &TimeZone::UTC);
    date.strftime("%Y-%m-%d").to_string()
}

fn factors(snapshots: &[Snapshot], zone: &TimeZone) -> Vec<Factors> {
    let ratio = |whole: u64, part: u64| whole.max(1) as f64 / part.max(1) as f64;
    let (mut total, mut new, mut stored) = (0u64, 0u64, 0u64);
    let all = snapshots.iter().map(|one| {
        let figures = &one.manifest.figures;
        total = total.saturating_add(figures.total_bytes);
        new = new.saturating_add(figures.new_bytes);
        stored = stored.saturating_add(figures.stored_bytes);
        Factors {
            label: words::local(one.manifest.started_at, zone),
            dedup: ratio(total, new).max(1.0),
            encoding: ratio(new, stored).max(1.0),
            all: ratio(total, stored).max(1.0),
        }
    });
    let all: Vec<Factors> = all.collect();
    let step = all.len().div_ceil(BARS_MAX).max(1);
    let mut some: Vec<Factors> = all.iter().rev().step_by(step).cloned().collect();
    some.reverse();
    some
}

fn files(stats: &StatsReport) -> Vec<Source> {
    let files = stats.files.iter().filter(|file| file.alone_bytes > 0);
    let sources = files.take(SOURCES_MAX).map(|file| {
        let kind = match file.kind {
            FileKind::File => "file",
            FileKind::Sqlite => "SQLite database",
            FileKind::Redb => "redb database",
            FileKind::Small => "small files",
        };
        Source {
            name: match file.path.is_empty() {
                true => format!("{}: all small files", label(&file.series)),
                false => format!("{}: {}", label(&file.series), words::path(&file.path)),
            },
            what: format!(
                "{kind}, {}",
                words::count(file.versions, "version", "versions")
            ),
            bytes: file.alone_bytes,
        }
    });
    sources.collect()
}

fn tables(stats: &StatsReport) -> Vec<Source> {
    let tables = stats.tables.iter().filter(|table| table.stored_bytes > 0);
    let sources = tables.take(SOURCES_MAX).map(|table| Source {
        name: format!(
            "{}: {}: {}",
            label(&table.series),
            words::path(&table.database),
            words::safe(&table.name)
        ),
        what: format!(
            "{} of pages and indexes",
            words::size(table.table_bytes.saturating_add(table.index_bytes))
        ),
        bytes: table.stored_bytes,
    });
    sources.collect()
}

fn what(one: &Snapshot) -> String {
    let name = label(&SeriesName::of(&one.manifest));
    match one.manifest.scope.is_empty() {
        true => name,
        false => format!("{name}, {}", words::safe(&one.manifest.scope)),
    }
}

fn rows(
    snapshots: &[Snapshot],
    stats: &StatsReport,
    why: &HashMap<SnapshotId, Reason>,
) -> Vec<SnapshotRow> {
    let alone = stats.snapshots.iter().map(|one| (one.id, one.alone_bytes));
    let alone: HashMap<SnapshotId, u64> = alone.collect();
    let newest = snapshots.iter().rev().take(ROWS_MAX);
    let rows = newest.map(|one| SnapshotRow {
        id: one.id,
        at: one.manifest.started_at,
        what: what(one),
        size_bytes: one.manifest.figures.total_bytes,
        stored_bytes: one.manifest.figures.stored_bytes,
        alone_bytes: alone.get(&one.id).copied().unwrap_or(0),
        why: {
            let partial = if one.manifest.partial {
                "partial; "
            } else {
                ""
            };
            let why = why.get(&one.id).map_or("", |reason| &reason.text);
            format!("{partial}{why}")
        },
    });
    rows.collect()
}

fn proofs(snapshots: &[Snapshot]) -> Vec<ProofRow> {
    let proofs = snapshots.iter().filter_map(|one| {
        let proof = one.proof.as_ref()?;
        Some(ProofRow {
            at: proof.at,
            id: one.id,
            what: what(one),
            passed: proof.passed(),
            result: proof.result.clone(),
        })
    });
    let mut proofs: Vec<ProofRow> = proofs.collect();
    proofs.sort_by_key(|proof| std::cmp::Reverse((proof.at, proof.id)));
    proofs.truncate(ROWS_MAX);
    proofs
}

impl Report {
    /// Returns what it comes to.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Returns the days from the first backup to now.
    pub(super) fn first_day(&self) -> Option<u64> {
        let spans = self.stats.growth.spans.first();
        spans.map(|(first, _)| day_of(self.now).saturating_sub(*first))
    }
}
