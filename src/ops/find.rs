//! In which snapshots there are paths that fit patterns, and where their content changed.
//!
//! Series by series, from the newest snapshot back. Of each snapshot only what lies in other nodes
//! than in the one after it is looked at, so looking through many costs about what differs.

use crate::context::Context;
use crate::context::Timestamp;
use crate::disk::node;
use crate::error::Error;
use crate::error::Result;
use crate::format::history::SeriesName;
use crate::format::tree::Entry;
use crate::format::tree::FileTime;
use crate::format::tree::Kind;
use crate::format::tree::path_order;
use crate::id::SnapshotId;
use crate::ops::diff;
use crate::ops::diff::Contents;
use crate::ops::diff::Pair;
use crate::ops::snapshots::Snapshot;
use crate::repo::chunks::Chunks;
use crate::source::files::Rules;
use std::collections::BTreeMap;
use std::path::Path;

/// What is remembered at most: more would not help anybody who looks for something.
pub const RUNS_MAX: usize = 1_000_000;

/// A path that was found in a series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundPath {
    pub path: Vec<u8>,
    /// Snapshots in a row in which it has the same content, the newest first.
    pub runs: Vec<Run>,
}

/// Snapshots in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What it is: `file`, `directory` and so on.
    pub kind: &'static str,
    pub size_bytes: u64,
    /// When it was changed, as the newest of these snapshots has it.
    pub modified: FileTime,
    pub newest: Place,
    pub oldest: Place,
    pub snapshots: u64,
}

/// A snapshot in which something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub id: SnapshotId,
    pub created_at: Timestamp,
}

/// What was found in one series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundSeries {
    pub series: SeriesName,
    /// Snapshots that were looked through.
    pub snapshots: u64,
    /// In the order of paths.
    pub paths: Vec<FoundPath>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FindReport {
    pub series: Vec<FoundSeries>,
    /// Tree nodes that were read.
    pub nodes: u64,
}

/// Looks for paths in these snapshots. Patterns mean what they mean for `exclude`.
pub fn find(
    cx: &Context,
    chunks: &Chunks<'_>,
    snapshots: &[&Snapshot],
    patterns: &[String],
    temp_dir: &Path,
) -> Result<FindReport> {
    let rules = Rules::parse(patterns).map_err(|error| match error {
        Error::Refused { reason } => Error::Refused {
            reason: reason.replacen("exclude pattern", "pattern", 1),
        },
        other => other,
    })?;
    let mut all: BTreeMap<SeriesName, Vec<&Snapshot>> = BTreeMap::new();
    for snapshot in snapshots {
        let series = all.entry(SeriesName::of(&snapshot.manifest)).or_default();
        series.push(snapshot);
    }
    let room = chunks.repo().cache_dir().unwrap_or(temp_dir);
    let mut report = FindReport::default();
    for (series, mut of_series) in all {
        of_series.sort_by_key(|s| (s.manifest.started_at, s.id));
        of_series.reverse();
        let mut search = Search {
            rules: &rules,
            contents: Contents::new(cx, chunks, room),
            found: BTreeMap::new(),
            runs: 0,
        };
        report.nodes += search.series(cx, chunks, &of_series)?;
        let mut paths: Vec<FoundPath> = search.found.into_values().collect();
        paths.sort_by(|a, b| path_order(&a.path, &b.path));
        if !paths.is_empty() {
            report.series.push(FoundSeries {
                series,
                snapshots: of_series.len() as u64,
                paths,
            });
        }
    }
    Ok(report)
}

struct Search<'s> {
    rules: &'s Rules,
    contents: Contents<'s>,
    found: BTreeMap<Vec<u8>, FoundPath>,
    runs: usize,
}

impl Search<'_> {
    /// Goes from each snapshot to the one before it, the first from nothing.
    fn series(&mut self, cx: &Context, chunks: &Chunks<'_>, newest: &[&Snapshot]) -> Result<u64> {
        let mut nodes = 0;
        // Where the open run of each path began.
        let mut begun_at: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        for (index, snapshot) in newest.iter().enumerate() {
            cx.check()?;
            let later = index.checked_sub(1).map(|index| newest[index]);
            let (new, old) = (
                later.map(|later| &later.manifest.tree),
                &snapshot.manifest.tree,
            );
            nodes += diff::walk(cx, chunks, Some(old), new, &mut |pair| {
                let at = pair.before.as_ref().or(pair.after.as_ref());
                let Some(entry) = at.map(|at| at.entry()).filter(|entry| self.fits(entry)) else {
                    return Ok(());
                };
                let path = entry.path.clone();
                let is_same = match (&pair, later) {
                    (
                        Pair {
                            before: Some(old),
                            after: Some(new),
                        },
                        Some(later),
                    ) => {
                        let roots = (&snapshot.manifest.tree, &later.manifest.tree);
                        let old = self.contents.file(old, roots.0)?;
                        let new = self.contents.file(new, roots.1)?;
                        match (old, new) {
                            (Some(old), Some(new)) => self.contents.are_same(&old, &new)?,
                            _ => false,
                        }
                    }
                    _ => false,
                };
                if is_same {
                    return Ok(());
                }
                if let Some(begun) = begun_at.remove(&path) {
                    self.end(&path, begun, &newest[..index]);
                }
                if let Some(at) = &pair.before {
                    begun_at.insert(path, index);
                    self.begin(at.entry(), snapshot)?;
                }
                Ok(())
            })?;
        }
        for (path, begun) in begun_at {
            self.end(&path, begun, newest);
        }
        Ok(nodes)
    }

    fn fits(&self, entry: &Entry) -> bool {
        let kind = match entry.kind {
            Kind::Directory => node::Kind::Directory,
            _ => node::Kind::File,
        };
        !entry.path.is_empty() && self.rules.exclude(&entry.path, kind)
    }

    fn begin(&mut self, entry: &Entry, snapshot: &Snapshot) -> Result<()> {
        self.runs += 1;
        if self.runs > RUNS_MAX {
            let reason =
                format!("more than {RUNS_MAX} versions fit; name less, or fewer snapshots");
            return Err(Error::Refused { reason });
        }
        let place = place(snapshot);
        let run = Run {
            kind: diff::type_of(&entry.kind),
            size_bytes: match entry.kind {
                Kind::File { size_bytes, .. } => size_bytes,
                _ => 0,
            },
            modified: entry.modified,
            newest: place,
            oldest: place,
            snapshots: 1,
        };
        let found = self.found.entry(entry.path.clone());
        let found = found.or_insert_with(|| FoundPath {
            path: entry.path.clone(),
            runs: Vec::new(),
        });
        found.runs.push(run);
        Ok(())
    }

    /// The run that began at this snapshot ends with the last of these.
    fn end(&mut self, path: &[u8], begun: usize, newest: &[&Snapshot]) {
        let run = self
            .found
            .get_mut(path)
            .and_then(|found| found.runs.last_mut());
        if let (Some(run), Some(last)) = (run, newest.last()) {
            run.oldest = place(last);
            run.snapshots = (newest.len() - begun) as u64;
        }
    }
}

fn place(snapshot: &Snapshot) -> Place {
    Place {
        id: snapshot.id,
        created_at: snapshot.manifest.started_at,
    }
}
