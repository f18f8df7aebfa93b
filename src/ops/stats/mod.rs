//! Counts what a repository holds and what costs it: in all, by series, snapshot, file, database
//! and table. Reads only.
//!
//! What somebody *alone* needs is counted by walking all trees (`ops::marks`): the stored bytes of
//! records, with all they lean on, that nobody else needs. That is what forgetting a snapshot frees
//! once the packs are tidied, to the byte of records; tables of packs come on top.

mod files;
mod growth;
mod tables;

pub use files::FileKind;
pub use files::FileStats;
pub use growth::Growth;
pub use growth::growth;
pub use tables::TableStats;

use crate::context::Context;
use crate::context::Event;
use crate::context::Timestamp;
use crate::error::Result;
use crate::format::history::History;
use crate::format::history::SeriesName;
use crate::format::manifest::Manifest;
use crate::format::pack::ChunkKind;
use crate::format::pack::Codec;
use crate::id::SnapshotId;
use crate::ops::check::Usage;
use crate::ops::marks::Marks;
use crate::ops::marks::Owner;
use crate::repo::Repo;
use crate::repo::chunks::Chunks;
use crate::repo::log::State;
use std::collections::BTreeMap;
use std::path::Path;

/// What is counted beside the totals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StatsOptions {
    /// What each file and database alone costs.
    pub files: Detail,
    /// The tables of the databases in the newest snapshots, which are put together to be looked at.
    pub tables: Detail,
}

/// Whether something is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Detail {
    /// Not.
    #[default]
    Skip,
    /// It is.
    Count,
}

/// What was counted.
#[derive(Debug, Clone, Default)]
pub struct StatsReport {
    /// The whole repository.
    pub totals: Totals,
    /// Needed records by how they are stored: raw, zstd, delta.
    pub codecs: [CodecStats; 3],
    /// How many needed records have each height.
    pub heights: BTreeMap<u8, u64>,
    /// The series, the largest first.
    pub series: Vec<SeriesStats>,
    /// The snapshots, oldest first.
    pub snapshots: Vec<SnapshotStats>,
    /// Files of all series, the most costly first; files in bundles are one.
    pub files: Vec<FileStats>,
    /// Tables, the most costly first.
    pub tables: Vec<TableStats>,
    /// Databases whose tables could not be told, and why.
    pub not_understood: Vec<(Vec<u8>, String)>,
    /// What was stored over time.
    pub growth: Growth,
    /// Nodes that could not be read: with any, all figures are too low.
    pub unreadable: u64,
}

/// The whole repository.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Snapshots.
    pub snapshots: u64,
    /// Packs.
    pub packs: u64,
    /// Bytes of all packs.
    pub pack_bytes: u64,
    /// Bytes of all files in all snapshots.
    pub total_bytes: u64,
    /// Different bytes of content among them: plain bytes of needed records of data.
    pub unique_bytes: u64,
    /// Who needs how much.
    pub usage: Usage,
}

impl Totals {
    /// Returns how many times a byte of content is used.
    pub fn dedup_factor(&self) -> f64 {
        ratio(self.total_bytes, self.unique_bytes)
    }

    /// Returns how much smaller than the files the repository is.
    pub fn factor(&self) -> f64 {
        ratio(self.total_bytes, self.pack_bytes)
    }
}

/// Needed records of one encoding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CodecStats {
    /// How many.
    pub records: u64,
    /// Their chunks' bytes.
    pub plain_bytes: u64,
    /// Their bytes.
    pub stored_bytes: u64,
}

impl CodecStats {
    /// Returns how much smaller than their chunks the records are.
    pub fn factor(&self) -> f64 {
        ratio(self.plain_bytes, self.stored_bytes)
    }
}

/// One series.
#[derive(Debug, Clone, Default)]
pub struct SeriesStats {
    /// Which.
    pub name: SeriesName,
    /// Snapshots that are there.
    pub snapshots: u64,
    /// Backups that were made, those included whose snapshots are gone.
    pub backups: u64,
    /// Bytes of all files in the newest snapshot.
    pub newest_bytes: u64,
    /// What all backups counted as new.
    pub new_bytes: u64,
    /// What all backups stored.
    pub stored_bytes: u64,
    /// Stored bytes that no other series needs.
    pub alone_bytes: u64,
    /// What was stored over time.
    pub growth: Growth,
}

/// One snapshot.
#[derive(Debug, Clone)]
pub struct SnapshotStats {
    /// Which.
    pub id: SnapshotId,
    /// When it began.
    pub started_at: Timestamp,
    /// Its series.
    pub series: SeriesName,
    /// Bytes of all files.
    pub total_bytes: u64,
    /// What was new.
    pub new_bytes: u64,
    /// What its backup stored.
    pub stored_bytes: u64,
    /// Stored bytes that no other snapshot needs: what forgetting it frees.
    pub alone_bytes: u64,
}

/// Counts. `temp_dir` is for databases that are looked into, if there is no cache directory.
pub fn stats(
    cx: &Context,
    repo: &Repo,
    state: &State,
    snapshots: &[(SnapshotId, Manifest)],
    options: StatsOptions,
    temp_dir: &Path,
) -> Result<StatsReport> {
    cx.progress.event(Event::Phase("read tables"));
    let chunks = Chunks::open_without(repo, &state.packs, &state.notes.lost.packs)?;
    chunks.save_index();
    let mut marks = Marks::load(cx, &chunks, &state.packs)?;
    cx.progress.event(Event::Phase("count snapshots"));
    cx.progress.event(Event::Total {
        files: snapshots.len() as u64,
        bytes: 0,
    });
    for (group, (_, manifest)) in (0..).zip(snapshots) {
        marks.snapshot(manifest, Owner::One(group))?;
        cx.progress.event(Event::Done { files: 1, bytes: 0 });
    }
    let history = history_of(state, snapshots);
    let mut report = StatsReport {
        totals: totals(state, snapshots, &marks),
        growth: growth(snapshots.iter().map(|(_, m)| m), &history, &|_| true),
        ..StatsReport::default()
    };
    count_records(&marks, &mut report);
    let alone = marks.alone(snapshots.len());
    report.snapshots = snapshots.iter().zip(alone).map(snapshot_stats).collect();
    report.series = series_stats(&history, snapshots, &mut marks)?;
    if options.files == Detail::Count {
        report.files = files::count(snapshots, &report.series, &mut marks)?;
    }
    report.unreadable = marks.unreadable;
    if options.tables == Detail::Count {
        cx.progress.event(Event::Phase("look into databases"));
        let room = repo.cache_dir().unwrap_or(temp_dir);
        tables::count(cx, &chunks, &marks, snapshots, room, &mut report)?;
    }
    Ok(report)
}

fn totals(state: &State, snapshots: &[(SnapshotId, Manifest)], marks: &Marks<'_>) -> Totals {
    let manifests = snapshots.iter().map(|(_, manifest)| manifest);
    // What is only leaned on is no content of these snapshots.
    let named = marks.rows().filter(|(row, _)| row.is_named);
    let data = named.filter(|(row, _)| row.encoding.kind == ChunkKind::Data);
    Totals {
        snapshots: snapshots.len() as u64,
        packs: state.packs.len() as u64,
        pack_bytes: state.packs.values().map(|pack| pack.stored_bytes).sum(),
        total_bytes: manifests.map(|m| m.figures.total_bytes).sum(),
        unique_bytes: data.map(|(row, _)| u64::from(row.plain_bytes)).sum(),
        usage: marks.usage(&state.packs),
    }
}

fn count_records(marks: &Marks<'_>, report: &mut StatsReport) {
    let needed = marks.rows().filter(|(_, owner)| *owner != Owner::Nobody);
    for (row, _) in needed {
        let codec = &mut report.codecs[match row.encoding.codec {
            Codec::Raw => 0,
            Codec::Zstd => 1,
            Codec::Delta => 2,
        }];
        codec.records += 1;
        codec.plain_bytes += u64::from(row.plain_bytes);
        codec.stored_bytes += u64::from(row.stored_bytes);
        *report.heights.entry(row.height).or_default() += 1;
    }
}

fn snapshot_stats(((id, manifest), alone_bytes): (&(SnapshotId, Manifest), u64)) -> SnapshotStats {
    SnapshotStats {
        id: *id,
        started_at: manifest.started_at,
        series: SeriesName::of(manifest),
        total_bytes: manifest.figures.total_bytes,
        new_bytes: manifest.figures.new_bytes,
        stored_bytes: manifest.figures.stored_bytes,
        alone_bytes,
    }
}

/// Returns what was counted of snapshots that are gone: of all series, or of those looked at.
fn history_of(state: &State, snapshots: &[(SnapshotId, Manifest)]) -> History {
    let mut history = state.notes.history.clone();
    if snapshots.len() < state.snapshots.len() {
        let is_seen = |name: &SeriesName| snapshots.iter().any(|(_, m)| SeriesName::of(m) == *name);
        history.series.retain(|name, _| is_seen(name));
    }
    history
}

fn series_stats(
    history: &History,
    snapshots: &[(SnapshotId, Manifest)],
    marks: &mut Marks<'_>,
) -> Result<Vec<SeriesStats>> {
    let mut names: Vec<SeriesName> = history.series.keys().cloned().collect();
    names.extend(snapshots.iter().map(|(_, m)| SeriesName::of(m)));
    names.sort_unstable();
    names.dedup();
    marks.clear();
    for (_, manifest) in snapshots {
        let group = names.binary_search(&SeriesName::of(manifest));
        let group = group.ok().and_then(|group| u32::try_from(group).ok());
        marks.snapshot(manifest, group.map_or(Owner::Several, Owner::One))?;
    }
    let alone = marks.alone(names.len());
    let mut series: Vec<SeriesStats> = names
        .into_iter()
        .zip(alone)
        .map(|(name, alone_bytes)| {
            let is_of = |(_, m): &&(SnapshotId, Manifest)| SeriesName::of(m) == name;
            let of_it: Vec<_> = snapshots.iter().filter(is_of).collect();
            let newest = of_it.iter().max_by_key(|(_, m)| m.started_at);
            let manifests = of_it.iter().map(|(_, m)| m);
            let growth = growth(manifests, history, &|series| *series == name);
            let sum = |of: fn(&crate::format::history::Span) -> u64| {
                growth.spans.iter().map(|(_, span)| of(span)).sum()
            };
            SeriesStats {
                snapshots: of_it.len() as u64,
                backups: sum(|span| span.backups),
                newest_bytes: newest.map_or(0, |(_, m)| m.figures.total_bytes),
                new_bytes: sum(|span| span.new_bytes),
                stored_bytes: sum(|span| span.stored_bytes),
                alone_bytes,
                growth,
                name,
            }
        })
        .collect();
    series.sort_by_key(|series| std::cmp::Reverse(series.alone_bytes));
    Ok(series)
}

fn ratio(whole: u64, part: u64) -> f64 {
    match part {
        0 => 1.0,
        part => whole as f64 / part as f64,
    }
}
