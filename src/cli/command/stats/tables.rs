//! The tables of `stats`, with a bar in each row. They fit into 80 columns.

use crate::cli::args::StatsBy;
use crate::cli::text;
use crate::cli::text::Align;
use crate::format::history::SeriesName;
use crate::ops::stats::FileKind;
use crate::ops::stats::FileStats;
use crate::ops::stats::StatsReport;
use jiff::tz::TimeZone;

/// Columns of a bar.
const BAR: u64 = 8;
/// Columns of a name; a longer one loses its beginning.
const NAME: usize = 24;

/// Returns the table that was asked for, at most so many rows of it.
pub(super) fn lines(
    report: &StatsReport,
    by: StatsBy,
    limit: usize,
    zone: &TimeZone,
) -> Vec<String> {
    let (head, rows, align) = match by {
        StatsBy::Profile => profiles(report),
        StatsBy::Snapshot => snapshots(report, zone),
        StatsBy::File => files(report, &|_| true),
        StatsBy::Database => files(report, &|file| file.kind.is_database()),
        StatsBy::Table => tables(report),
        StatsBy::Day => days(report),
    };
    let count = rows.len();
    let most = rows.iter().map(|(bytes, _)| *bytes).max().unwrap_or(0);
    let mut all = vec![head.iter().map(ToString::to_string).collect::<Vec<_>>()];
    for (bytes, mut row) in rows.into_iter().take(limit) {
        row.push(bar(bytes, most));
        all.push(row);
    }
    let mut lines = match count {
        0 => vec!["Nothing of that kind.".to_string()],
        _ => text::table(&align, &all),
    };
    if let Some(more @ 1..) = count.checked_sub(limit) {
        lines.push(format!("… {more} more (--limit 0)"));
    }
    if by == StatsBy::Table {
        for (path, why) in &report.not_understood {
            lines.push(format!("{}: {}", text::path(path), text::safe(why)));
        }
    }
    lines
}

/// A head, rows with the bytes their bars show, and how columns stand.
type Table = (&'static [&'static str], Vec<(u64, Vec<String>)>, Vec<Align>);

fn profiles(report: &StatsReport) -> Table {
    let rows = report.series.iter().map(|series| {
        let row = vec![
            name(series_name(&series.name).as_bytes()),
            series.backups.to_string(),
            text::size(series.newest_bytes),
            text::size(series.stored_bytes),
            text::size(series.alone_bytes),
        ];
        (series.alone_bytes, row)
    });
    let head = &["PROFILE", "BACKUPS", "SIZE", "STORED", "ALONE", ""];
    (head, rows.collect(), columns(1, 4))
}

fn snapshots(report: &StatsReport, zone: &TimeZone) -> Table {
    let newest_first = report.snapshots.iter().rev();
    let rows = newest_first.map(|snapshot| {
        let row = vec![
            snapshot.id.short(),
            text::local(snapshot.started_at, zone),
            text::size(snapshot.total_bytes),
            text::size(snapshot.new_bytes),
            text::size(snapshot.stored_bytes),
            text::size(snapshot.alone_bytes),
        ];
        (snapshot.alone_bytes, row)
    });
    let head = &["ID", "CREATED", "SIZE", "NEW", "STORED", "ALONE", ""];
    (head, rows.collect(), columns(2, 4))
}

fn files(report: &StatsReport, is_wanted: &dyn Fn(&FileStats) -> bool) -> Table {
    let wanted = report.files.iter().filter(|file| is_wanted(file));
    let rows = wanted.map(|file| {
        let path = match file.kind {
            FileKind::Small => format!("(small files of {})", series_name(&file.series)),
            _ => text::path(&file.path),
        };
        let size = match file.kind {
            FileKind::Small => "-".to_string(),
            _ => text::size(file.size_bytes),
        };
        let row = vec![
            name(path.as_bytes()),
            size,
            file.versions.to_string(),
            text::size(file.alone_bytes),
        ];
        (file.alone_bytes, row)
    });
    let head = &["FILE", "SIZE", "VERSIONS", "ALONE", ""];
    (head, rows.collect(), columns(1, 3))
}

fn tables(report: &StatsReport) -> Table {
    let rows = report.tables.iter().map(|table| {
        let database = text::path(&table.database);
        let row = vec![
            name(format!("{database} {}", text::safe(&table.name)).as_bytes()),
            text::size(table.table_bytes),
            text::size(table.index_bytes),
            text::size(table.new_bytes),
            text::size(table.stored_bytes),
        ];
        (table.stored_bytes, row)
    });
    let head = &["TABLE", "SIZE", "INDEXES", "NEW", "STORED", ""];
    (head, rows.collect(), columns(1, 4))
}

fn days(report: &StatsReport) -> Table {
    let newest_first = report.growth.spans.iter().rev();
    let rows = newest_first.map(|(first, span)| {
        let day = |number: u64| {
            let seconds = i64::try_from(number).unwrap_or(0).saturating_mul(86_400);
            let at = jiff::Timestamp::from_second(seconds).unwrap_or_default();
            at.strftime("%Y-%m-%d").to_string()
        };
        let days = match span.last_day == *first {
            true => day(*first),
            false => format!("{} to {}", day(*first), day(span.last_day)),
        };
        let row = vec![
            days,
            span.backups.to_string(),
            text::size(span.new_bytes),
            text::size(span.stored_bytes),
        ];
        (span.stored_bytes, row)
    });
    let head = &["DAY (UTC)", "BACKUPS", "NEW", "STORED", ""];
    (head, rows.collect(), columns(1, 3))
}

/// So many columns to the left, so many to the right, and the bar.
fn columns(left: usize, right: usize) -> Vec<Align> {
    let mut align = vec![Align::Left; left];
    align.extend(vec![Align::Right; right]);
    align.push(Align::Left);
    align
}

fn series_name(series: &SeriesName) -> String {
    match series.profile.is_empty() {
        true => text::path(&series.root_path),
        false => text::safe(&series.profile),
    }
}

/// Returns a name that fits into its column, with its end.
fn name(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    match text.chars().count().checked_sub(NAME) {
        None | Some(0) => text.into_owned(),
        Some(over) => {
            let end: String = text.chars().skip(over + 1).collect();
            format!("…{end}")
        }
    }
}

/// Returns a bar in eighths of a column.
fn bar(bytes: u64, most: u64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let most = most.max(1);
    let eighths = (u128::from(bytes) * u128::from(BAR) * 8).div_ceil(u128::from(most));
    let eighths = usize::try_from(eighths).unwrap_or(0);
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::stats::TableStats;

    #[test]
    fn bars_are_as_long_as_they_stand_for() {
        assert_eq!(bar(0, 0), "");
        assert_eq!(bar(1, 1_000_000), "▏");
        assert_eq!(bar(50, 100), "████");
        assert_eq!(bar(u64::MAX, u64::MAX), "█".repeat(BAR as usize));
    }

    #[test]
    fn every_row_fits_into_eighty_columns() {
        let report = StatsReport {
            tables: vec![TableStats {
                database: b"data/very/long/path/to/some/database/of/an/application.db".to_vec(),
                name: "a_table_with_a_name".into(),
                table_bytes: 999 << 20,
                index_bytes: 999 << 20,
                new_bytes: 999 << 20,
                stored_bytes: 999 << 20,
                ..TableStats::default()
            }],
            ..StatsReport::default()
        };

        let lines = lines(&report, StatsBy::Table, 20, &TimeZone::UTC);

        assert!(
            lines.iter().all(|line| line.chars().count() <= 80),
            "{lines:?}"
        );
        assert!(lines[1].contains("a_table_with_a_name"));
    }
}
