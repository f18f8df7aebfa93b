//! The tables of the databases in the newest snapshot of each series.
//!
//! SQLite databases are put together in a private file and SQLite is asked for the owner of each
//! page. What a chunk of several pages costs is shared out evenly among them, so stored bytes of a
//! table are an estimate where tables lie in one chunk, and their sum is exact.

use crate::context::Context;
use crate::error::Error;
use crate::error::Result;
use crate::format::history::SeriesName;
use crate::format::list::HOLE;
use crate::format::list::Stream;
use crate::format::list::StreamKind;
use crate::format::manifest::Manifest;
use crate::format::tree::Content;
use crate::format::tree::Kind;
use crate::id::ChunkId;
use crate::id::SnapshotId;
use crate::ops::inspect;
use crate::ops::marks::Marks;
use crate::ops::stats::StatsReport;
use crate::repo::chunks::Chunks;
use crate::repo::chunks::Scratch;
use crate::repo::stream::Pieces;
use crate::source::sqlite;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::HashSet;
use std::path::Path;

/// One table with its indexes, in the newest snapshot of its series.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableStats {
    /// The series.
    pub series: SeriesName,
    /// The path of the database.
    pub database: Vec<u8>,
    /// The table.
    pub name: String,
    /// Bytes of its pages.
    pub table_bytes: u64,
    /// Bytes of the pages of its indexes.
    pub index_bytes: u64,
    /// Bytes of those in chunks that the snapshot before does not have.
    pub new_bytes: u64,
    /// What its pages take in the repository.
    pub stored_bytes: u64,
}

/// A piece of the file: where it ends, what it costs, whether it is new.
struct Cost {
    end: u64,
    plain_bytes: u64,
    stored_bytes: u64,
    is_new: bool,
}

/// Counts the tables of the newest snapshots.
pub(super) fn count(
    cx: &Context,
    chunks: &Chunks<'_>,
    marks: &Marks<'_>,
    snapshots: &[(SnapshotId, Manifest)],
    room: &Path,
    report: &mut StatsReport,
) -> Result<()> {
    for series in &report.series {
        let is_of = |(_, m): &&(SnapshotId, Manifest)| SeriesName::of(m) == series.name;
        let mut of_it: Vec<_> = snapshots.iter().filter(is_of).collect();
        of_it.sort_by_key(|(id, m)| (Reverse(m.started_at), *id));
        let Some((_, newest)) = of_it.first() else {
            continue;
        };
        let before = of_it.get(1).map(|(_, manifest)| manifest);
        for record in known(inspect::databases(chunks, newest))?.unwrap_or_default() {
            cx.check()?;
            let path = record.path;
            let Some((stream, size_bytes)) = stream_at(chunks, newest, &path)? else {
                continue;
            };
            if stream.kind != StreamKind::Sqlite {
                let why = "its tables cannot be told by its pages yet".to_string();
                report.not_understood.push((path, why));
                continue;
            }
            let old = before
                .map(|before| ids(chunks, before, &path))
                .transpose()?;
            let pieces = costs(chunks, marks, &stream, size_bytes, old.as_ref());
            let counted = pieces.and_then(|pieces| {
                let mut fill = |file: &mut std::fs::File| {
                    inspect::cat(cx, chunks, newest, &path, room, file).map(drop)
                };
                of_database(room, &mut fill, &pieces)
            });
            match counted {
                Ok(tables) => report
                    .tables
                    .extend(tables.into_iter().map(|table| TableStats {
                        series: series.name.clone(),
                        database: path.clone(),
                        ..table
                    })),
                Err(
                    error @ (Error::Refused { .. } | Error::Corrupt { .. } | Error::Missing { .. }),
                ) => {
                    report.not_understood.push((path, error.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
    }
    report.tables.sort_by_key(|table| {
        let bytes = table.table_bytes + table.index_bytes;
        (
            Reverse(table.stored_bytes),
            Reverse(bytes),
            table.name.clone(),
        )
    });
    Ok(())
}

fn known<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(Error::Missing { .. } | Error::Corrupt { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn stream_at(
    chunks: &Chunks<'_>,
    manifest: &Manifest,
    path: &[u8],
) -> Result<Option<(Stream, u64)>> {
    let found = known(inspect::find_entry(chunks, manifest, path))?.flatten();
    Ok(
        found.and_then(|(at, index)| match &at.leaf.entries[index].kind {
            Kind::File {
                size_bytes,
                content: Content::Stream(stream),
            } => Some((*stream, *size_bytes)),
            _ => None,
        }),
    )
}

/// Returns the chunks a file consists of in a snapshot; none if it cannot be read.
fn ids(chunks: &Chunks<'_>, manifest: &Manifest, path: &[u8]) -> Result<HashSet<ChunkId>> {
    let mut found = HashSet::new();
    let mut scratch = Scratch::default();
    if let Some((stream, size_bytes)) = stream_at(chunks, manifest, path)? {
        let mut pieces = Pieces::begin(chunks, &stream, size_bytes);
        while let Some(piece) = known(pieces.next(&mut scratch))?.flatten() {
            pieces.nodes.clear();
            found.insert(piece.id);
        }
    }
    Ok(found)
}

fn costs(
    chunks: &Chunks<'_>,
    marks: &Marks<'_>,
    stream: &Stream,
    size_bytes: u64,
    old: Option<&HashSet<ChunkId>>,
) -> Result<Vec<Cost>> {
    let mut costs = Vec::new();
    let mut scratch = Scratch::default();
    let mut pieces = Pieces::begin(chunks, stream, size_bytes);
    while let Some(piece) = pieces.next(&mut scratch)? {
        pieces.nodes.clear();
        let row = marks.find(&piece.id).map(|at| marks.row(at));
        costs.push(Cost {
            end: piece.offset + piece.plain_bytes,
            plain_bytes: piece.plain_bytes.max(1),
            stored_bytes: row.map_or(0, |row| u64::from(row.stored_bytes)),
            is_new: piece.id != HOLE && old.is_none_or(|old| !old.contains(&piece.id)),
        });
    }
    Ok(costs)
}

fn of_database(
    room: &Path,
    fill: &mut dyn FnMut(&mut std::fs::File) -> Result<()>,
    pieces: &[Cost],
) -> Result<Vec<TableStats>> {
    let mut tables: BTreeMap<String, TableStats> = BTreeMap::new();
    // In millionths, so that many pages of a cheap chunk do not each round down to nothing.
    let mut millionths: BTreeMap<String, u128> = BTreeMap::new();
    sqlite::visit_pages(room, fill, &mut |page| {
        let table = tables.entry(page.table.to_string()).or_default();
        match page.name == page.table {
            true => table.table_bytes += page.page_bytes,
            false => table.index_bytes += page.page_bytes,
        }
        let offset = page
            .number
            .saturating_sub(1)
            .saturating_mul(page.page_bytes);
        let at = pieces.partition_point(|piece| piece.end <= offset);
        if let Some(piece) = pieces.get(at) {
            if piece.is_new {
                table.new_bytes += page.page_bytes;
            }
            let share = u128::from(piece.stored_bytes) * u128::from(page.page_bytes) * 1_000_000
                / u128::from(piece.plain_bytes);
            *millionths.entry(page.table.to_string()).or_default() += share;
        }
        Ok(())
    })?;
    let named = tables.into_iter().map(|(name, table)| TableStats {
        stored_bytes: millionths.get(&name).map_or(0, |share| {
            u64::try_from(share / 1_000_000).unwrap_or(u64::MAX)
        }),
        name,
        ..table
    });
    Ok(named.collect())
}
