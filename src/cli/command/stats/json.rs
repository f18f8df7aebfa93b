//! `stats` for programs.

use crate::cli::json::PathField;
use crate::cli::text;
use crate::format::history::SeriesName;
use crate::ops::stats::FileKind;
use crate::ops::stats::Growth;
use crate::ops::stats::StatsReport;
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct Body {
    /// Whether only some snapshots were counted.
    partial: bool,
    snapshot_count: u64,
    pack_count: u64,
    record_count: u64,
    total_bytes: u64,
    unique_bytes: u64,
    pack_bytes: u64,
    needed_bytes: u64,
    unneeded_bytes: u64,
    dedup_factor: f64,
    compression_factor: f64,
    delta_factor: f64,
    codecs: Vec<CodecBody>,
    heights: Vec<HeightBody>,
    growth: GrowthBody,
    profiles: Vec<ProfileBody>,
    snapshots: Vec<SnapshotBody>,
    files: Vec<FileBody>,
    tables: Vec<TableBody>,
    not_understood: Vec<NotUnderstoodBody>,
    unreadable_nodes: u64,
    exit: u8,
}

#[derive(Serialize)]
struct CodecBody {
    codec: &'static str,
    records: u64,
    plain_bytes: u64,
    stored_bytes: u64,
}

#[derive(Serialize)]
struct HeightBody {
    height: u8,
    records: u64,
}

#[derive(Serialize)]
struct GrowthBody {
    day_bytes: Option<u64>,
    days: u64,
    forecast_30_days_bytes: Option<u64>,
    forecast_365_days_bytes: Option<u64>,
    history: Vec<SpanBody>,
}

#[derive(Serialize)]
struct SpanBody {
    /// Days since 1970 in UTC.
    first_day: u64,
    last_day: u64,
    backups: u64,
    total_bytes: u64,
    read_bytes: u64,
    new_bytes: u64,
    stored_bytes: u64,
}

#[derive(Serialize)]
struct SeriesBody {
    host: String,
    profile: String,
    #[serde(flatten)]
    root: PathField,
}

#[derive(Serialize)]
struct ProfileBody {
    series: SeriesBody,
    snapshots: u64,
    backups: u64,
    newest_bytes: u64,
    new_bytes: u64,
    stored_bytes: u64,
    alone_bytes: u64,
    growth: GrowthBody,
}

#[derive(Serialize)]
struct SnapshotBody {
    id: String,
    created_at: String,
    total_bytes: u64,
    new_bytes: u64,
    stored_bytes: u64,
    alone_bytes: u64,
}

#[derive(Serialize)]
struct FileBody {
    series: SeriesBody,
    kind: &'static str,
    #[serde(flatten)]
    path: PathField,
    size_bytes: u64,
    versions: u64,
    alone_bytes: u64,
}

#[derive(Serialize)]
struct TableBody {
    series: SeriesBody,
    database: PathField,
    table: String,
    table_bytes: u64,
    index_bytes: u64,
    new_bytes: u64,
    stored_bytes: u64,
}

#[derive(Serialize)]
struct NotUnderstoodBody {
    #[serde(flatten)]
    path: PathField,
    reason: String,
}

/// Returns the document.
pub(super) fn body(report: &StatsReport, partial: bool, exit: u8) -> Body {
    let totals = &report.totals;
    let names = ["raw", "zstd", "delta"];
    let codecs = names.iter().zip(&report.codecs);
    let heights = report.heights.iter();
    let reasons = report.not_understood.iter();
    Body {
        partial,
        snapshot_count: totals.snapshots,
        pack_count: totals.packs,
        record_count: totals.usage.records,
        total_bytes: totals.total_bytes,
        unique_bytes: totals.unique_bytes,
        pack_bytes: totals.pack_bytes,
        needed_bytes: totals.usage.needed_bytes,
        unneeded_bytes: totals.usage.unneeded_bytes,
        dedup_factor: totals.dedup_factor(),
        compression_factor: report.codecs[1].factor(),
        delta_factor: report.codecs[2].factor(),
        codecs: codecs
            .map(|(codec, stats)| CodecBody {
                codec,
                records: stats.records,
                plain_bytes: stats.plain_bytes,
                stored_bytes: stats.stored_bytes,
            })
            .collect(),
        heights: heights
            .map(|(&height, &records)| HeightBody { height, records })
            .collect(),
        growth: growth(&report.growth),
        profiles: profiles(report),
        snapshots: snapshots(report),
        files: files(report),
        tables: tables(report),
        not_understood: reasons
            .map(|(path, reason)| NotUnderstoodBody {
                path: PathField::new(path),
                reason: reason.clone(),
            })
            .collect(),
        unreadable_nodes: report.unreadable,
        exit,
    }
}

fn growth(growth: &Growth) -> GrowthBody {
    let span = |(first, span): &(u64, crate::format::history::Span)| SpanBody {
        first_day: *first,
        last_day: span.last_day,
        backups: span.backups,
        total_bytes: span.total_bytes,
        read_bytes: span.read_bytes,
        new_bytes: span.new_bytes,
        stored_bytes: span.stored_bytes,
    };
    GrowthBody {
        day_bytes: growth.day_bytes,
        days: growth.days,
        forecast_30_days_bytes: growth.forecast(30),
        forecast_365_days_bytes: growth.forecast(365),
        history: growth.spans.iter().map(span).collect(),
    }
}

fn series(name: &SeriesName) -> SeriesBody {
    SeriesBody {
        host: name.host.clone(),
        profile: name.profile.clone(),
        root: PathField::new(&name.root_path),
    }
}

fn profiles(report: &StatsReport) -> Vec<ProfileBody> {
    let body = |one: &crate::ops::stats::SeriesStats| ProfileBody {
        series: series(&one.name),
        snapshots: one.snapshots,
        backups: one.backups,
        newest_bytes: one.newest_bytes,
        new_bytes: one.new_bytes,
        stored_bytes: one.stored_bytes,
        alone_bytes: one.alone_bytes,
        growth: growth(&one.growth),
    };
    report.series.iter().map(body).collect()
}

fn snapshots(report: &StatsReport) -> Vec<SnapshotBody> {
    let body = |one: &crate::ops::stats::SnapshotStats| SnapshotBody {
        id: one.id.to_string(),
        created_at: text::rfc3339(one.started_at),
        total_bytes: one.total_bytes,
        new_bytes: one.new_bytes,
        stored_bytes: one.stored_bytes,
        alone_bytes: one.alone_bytes,
    };
    report.snapshots.iter().map(body).collect()
}

fn files(report: &StatsReport) -> Vec<FileBody> {
    let body = |file: &crate::ops::stats::FileStats| FileBody {
        series: series(&file.series),
        kind: match file.kind {
            FileKind::File => "file",
            FileKind::Sqlite => "sqlite",
            FileKind::Redb => "redb",
            FileKind::Small => "small-files",
        },
        path: PathField::new(&file.path),
        size_bytes: file.size_bytes,
        versions: file.versions,
        alone_bytes: file.alone_bytes,
    };
    report.files.iter().map(body).collect()
}

fn tables(report: &StatsReport) -> Vec<TableBody> {
    let body = |table: &crate::ops::stats::TableStats| TableBody {
        series: series(&table.series),
        database: PathField::new(&table.database),
        table: table.name.clone(),
        table_bytes: table.table_bytes,
        index_bytes: table.index_bytes,
        new_bytes: table.new_bytes,
        stored_bytes: table.stored_bytes,
    };
    report.tables.iter().map(body).collect()
}
