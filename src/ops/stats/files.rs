//! What each file costs over all its versions: the stored bytes that nothing else needs.
//!
//! Small files share bundles with others, so each series has one sum for all of them.

use crate::error::Result;
use crate::format::history::SeriesName;
use crate::format::list::StreamKind;
use crate::format::manifest::Manifest;
use crate::format::tree::Content;
use crate::format::tree::Kind;
use crate::id::SnapshotId;
use crate::ops::marks::Marks;
use crate::ops::marks::Owner;
use crate::ops::stats::SeriesStats;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::collections::HashSet;

/// Files that are told.
const FILES_MAX: usize = 1000;

/// One file, over all snapshots of its series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStats {
    /// Its series.
    pub series: SeriesName,
    /// Its path; empty for all small files together.
    pub path: Vec<u8>,
    /// What it was captured as.
    pub kind: FileKind,
    /// How long its longest version is; of small files, all versions together.
    pub size_bytes: u64,
    /// Different versions of it.
    pub versions: u64,
    /// Stored bytes that nothing else needs.
    pub alone_bytes: u64,
}

/// What a file was captured as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A plain file.
    File,
    /// A SQLite database.
    Sqlite,
    /// A redb database.
    Redb,
    /// Small files that lie together.
    Small,
}

impl FileKind {
    /// Returns whether it is a database.
    pub fn is_database(self) -> bool {
        matches!(self, FileKind::Sqlite | FileKind::Redb)
    }
}

/// Counts the files of all series.
pub(super) fn count(
    snapshots: &[(SnapshotId, Manifest)],
    series: &[SeriesStats],
    marks: &mut Marks<'_>,
) -> Result<Vec<FileStats>> {
    marks.clear();
    let mut files: Vec<FileStats> = Vec::new();
    for SeriesStats { name, .. } in series {
        let mut by_path: HashMap<Vec<u8>, u32> = HashMap::new();
        let mut versions = HashSet::new();
        let mut seen = HashSet::new();
        let small = files.len() as u32;
        files.push(FileStats {
            series: name.clone(),
            path: Vec::new(),
            kind: FileKind::Small,
            size_bytes: 0,
            versions: 0,
            alone_bytes: 0,
        });
        let of_series = snapshots.iter().filter(|(_, m)| SeriesName::of(m) == *name);
        for (_, manifest) in of_series {
            marks.leaves(manifest, &mut seen, &mut |marks, leaf| {
                for bundle in &leaf.bundles {
                    marks.chunk(&bundle.id, Owner::One(small));
                    if versions.insert((small, bundle.id)) {
                        files[small as usize].versions += 1;
                    }
                }
                for entry in &leaf.entries {
                    let Kind::File {
                        size_bytes,
                        content: Content::Stream(stream),
                    } = &entry.kind
                    else {
                        continue;
                    };
                    let number = *by_path.entry(entry.path.clone()).or_insert_with(|| {
                        files.push(FileStats {
                            series: name.clone(),
                            path: entry.path.clone(),
                            kind: kind(stream.kind),
                            size_bytes: 0,
                            versions: 0,
                            alone_bytes: 0,
                        });
                        files.len() as u32 - 1
                    });
                    let file = &mut files[number as usize];
                    file.size_bytes = file.size_bytes.max(*size_bytes);
                    file.versions += u64::from(versions.insert((number, stream.root)));
                    file.kind = kind(stream.kind);
                    marks.stream(stream, Owner::One(number))?;
                }
                Ok(())
            })?;
        }
    }
    let alone = marks.alone(files.len());
    for (file, alone_bytes) in files.iter_mut().zip(alone) {
        file.alone_bytes = alone_bytes;
    }
    files.retain(|file| file.versions > 0);
    files.sort_by_key(|file| (Reverse(file.alone_bytes), file.path.clone()));
    let mut rank = 0;
    files.retain(|file| {
        rank += 1;
        rank <= FILES_MAX || file.kind.is_database()
    });
    Ok(files)
}

fn kind(kind: StreamKind) -> FileKind {
    match kind {
        StreamKind::Sqlite => FileKind::Sqlite,
        StreamKind::Redb { .. } => FileKind::Redb,
        StreamKind::File | StreamKind::Sled => FileKind::File,
    }
}
