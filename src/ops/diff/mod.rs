//! How two snapshots differ, or a snapshot and what is there now: files, and tables of databases.
//!
//! What both share is not looked at: nodes of trees (`trees`), bundles and streams (`content`),
//! pages of databases (`sqlite`). What is there now is read by the rules of a backup into a
//! repository that goes with the comparison (`ops::backup::stage`), so that there is one way to
//! read it and one to compare.

mod content;
mod live;
mod sqlite;
mod trees;

pub use live::Live;
pub use live::LiveOptions;
pub use sqlite::DatabaseDiff;
pub use sqlite::RowChange;
pub use sqlite::RowDiff;
pub use sqlite::RowKey;
pub use sqlite::SchemaChange;
pub use sqlite::TableDiff;
pub use sqlite::TableDiffs;

pub(super) use content::Contents;
pub(super) use trees::At;
pub(super) use trees::Pair;
pub(super) use trees::walk;

use crate::context::Context;
use crate::disk::beneath;
use crate::error::Error;
use crate::error::Result;
use crate::format::list::StreamKind;
use crate::format::manifest::Manifest;
use crate::format::tree::Attributes;
use crate::format::tree::Content;
use crate::format::tree::Entry;
use crate::format::tree::Kind;
use crate::format::tree::TreeRoot;
use crate::ops::diff::sqlite::Stored;
use crate::ops::inspect;
use crate::ops::restore::select::Only;
use crate::repo::chunks::Chunks;
use std::path::PathBuf;

/// What to compare.
#[derive(Debug, Clone, Default)]
pub struct DiffOptions {
    /// Only these paths and what is below them; everything without any.
    pub paths: Vec<Vec<u8>>,
    /// Only what fits these patterns, if there are any.
    pub only: Vec<String>,
    /// How many rows of each table are named.
    pub rows_max: usize,
    /// Where temporary files may be.
    pub temp_dir: PathBuf,
}

/// A path that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub path: Vec<u8>,
    pub change: Change,
    /// What was there before.
    pub before: Option<Entry>,
    /// What is there after.
    pub after: Option<Entry>,
    /// How a database differs that is one on both sides.
    pub database: Option<DatabaseDiff>,
}

/// What became of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Added,
    Removed,
    /// It has other content.
    Content,
    /// Only its mode, owner or extended attributes are others.
    Attributes,
    /// It is another kind of thing.
    Type,
}

/// What was found in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiffReport {
    pub added: u64,
    pub removed: u64,
    pub changed: u64,
    pub attributes: u64,
    pub types: u64,
    /// Files of which only the time is another: no difference.
    pub touched: u64,
    /// Bytes of files that were added, and of those that were removed.
    pub added_bytes: u64,
    pub removed_bytes: u64,
    /// Tree nodes that were read.
    pub nodes: u64,
    /// Bytes of chunks of databases that were read.
    pub database_bytes: u64,
}

impl DiffReport {
    /// Returns how many paths differ.
    pub fn differences(&self) -> u64 {
        self.added + self.removed + self.changed + self.attributes + self.types
    }
}

/// Compares two snapshots and calls `visit` for every difference, in the order of paths.
pub fn diff(
    cx: &Context,
    chunks: &Chunks<'_>,
    before: &Manifest,
    after: &Manifest,
    options: &DiffOptions,
    visit: &mut dyn FnMut(&Difference) -> Result<()>,
) -> Result<DiffReport> {
    let only = Only::parse(&options.only)?;
    for path in &options.paths {
        let is_there = inspect::find_entry(chunks, before, path)?.is_some()
            || inspect::find_entry(chunks, after, path)?.is_some();
        if !is_there {
            let path = String::from_utf8_lossy(path);
            let what = format!("\"{path}\", on either side,");
            return Err(Error::NotFound { what });
        }
    }
    let room = chunks.repo().cache_dir().unwrap_or(&options.temp_dir);
    let mut comparison = Comparison {
        cx,
        chunks,
        roots: [&before.tree, &after.tree],
        contents: Contents::new(cx, chunks, room),
        options,
        report: DiffReport::default(),
    };
    let nodes = walk(
        cx,
        chunks,
        Some(&before.tree),
        Some(&after.tree),
        &mut |pair| {
            let entry = pair.after.as_ref().or(pair.before.as_ref());
            let is_wanted = entry.is_some_and(|at| options.takes(&only, at.entry()));
            match is_wanted {
                true => comparison.pair(&pair, visit),
                false => Ok(()),
            }
        },
    )?;
    Ok(DiffReport {
        nodes,
        ..comparison.report
    })
}

impl DiffOptions {
    fn takes(&self, only: &Only, entry: &Entry) -> bool {
        let is_within = |path: &Vec<u8>| beneath::is_within(&entry.path, path);
        (self.paths.is_empty() || self.paths.iter().any(is_within))
            && only.wants(&entry.path, &entry.kind)
    }
}

struct Comparison<'c> {
    cx: &'c Context,
    chunks: &'c Chunks<'c>,
    roots: [&'c TreeRoot; 2],
    contents: Contents<'c>,
    options: &'c DiffOptions,
    report: DiffReport,
}

impl Comparison<'_> {
    fn pair(
        &mut self,
        pair: &Pair,
        visit: &mut dyn FnMut(&Difference) -> Result<()>,
    ) -> Result<()> {
        let (change, database) = match (&pair.before, &pair.after) {
            (Some(before), Some(after)) => match self.both(before, after)? {
                Some(found) => found,
                None => return Ok(()),
            },
            (Some(_), None) => (Change::Removed, None),
            (None, _) => (Change::Added, None),
        };
        let entry = |at: &Option<At>| at.as_ref().map(|at| at.entry().clone());
        let (before, after) = (entry(&pair.before), entry(&pair.after));
        let path = before
            .as_ref()
            .or(after.as_ref())
            .map(|entry| entry.path.clone());
        let difference = Difference {
            path: path.unwrap_or_default(),
            change,
            before,
            after,
            database,
        };
        self.report.count(&difference);
        visit(&difference)
    }

    fn both(&mut self, before: &At, after: &At) -> Result<Option<(Change, Option<DatabaseDiff>)>> {
        let (old, new) = (before.entry(), after.entry());
        if type_of(&old.kind) != type_of(&new.kind) {
            return Ok(Some((Change::Type, None)));
        }
        if !self.have_same_content(before, after)? {
            let stored = (stored_database(old), stored_database(new));
            let database = match stored {
                (Some(old), Some(new)) => Some(self.database(&old, &new)?),
                _ if is_redb(old) && is_redb(new) => Some(DatabaseDiff::NotUnderstood(
                    "its engine is redb".to_string(),
                )),
                _ => None,
            };
            return Ok(Some((Change::Content, database)));
        }
        if old.attributes != new.attributes {
            return Ok(Some((Change::Attributes, None)));
        }
        if old.modified != new.modified && type_of(&old.kind) == "file" {
            self.report.touched += 1;
        }
        Ok(None)
    }

    fn have_same_content(&mut self, before: &At, after: &At) -> Result<bool> {
        let is_link = |at: &At| matches!(at.entry().kind, Kind::HardLink { .. });
        match is_link(before) || is_link(after) {
            false => self.contents.are_same(before, after),
            // Which name comes first says nothing about the content.
            true => {
                let old = self.contents.file(before, self.roots[0])?;
                let new = self.contents.file(after, self.roots[1])?;
                match (old, new) {
                    (Some(old), Some(new)) => self.contents.are_same(&old, &new),
                    _ => Ok(false),
                }
            }
        }
    }

    fn database(&mut self, old: &Stored, new: &Stored) -> Result<DatabaseDiff> {
        let room = self
            .chunks
            .repo()
            .cache_dir()
            .unwrap_or(&self.options.temp_dir);
        let rows_max = self.options.rows_max;
        let diff = sqlite::compare(self.cx, self.chunks, old, new, room, rows_max)?;
        if let DatabaseDiff::Understood(tables) = &diff {
            self.report.database_bytes += tables.read_bytes;
        }
        Ok(diff)
    }
}

impl DiffReport {
    fn count(&mut self, difference: &Difference) {
        let bytes = |entry: &Option<Entry>| match entry.as_ref().map(|entry| &entry.kind) {
            Some(Kind::File { size_bytes, .. }) => *size_bytes,
            _ => 0,
        };
        match difference.change {
            Change::Added => {
                self.added += 1;
                self.added_bytes += bytes(&difference.after);
            }
            Change::Removed => {
                self.removed += 1;
                self.removed_bytes += bytes(&difference.before);
            }
            Change::Content => self.changed += 1,
            Change::Attributes => self.attributes += 1,
            Change::Type => self.types += 1,
        }
    }
}

fn is_redb(entry: &Entry) -> bool {
    match &entry.kind {
        Kind::File {
            content: Content::Stream(stream),
            ..
        } => matches!(stream.kind, StreamKind::Redb { .. }),
        _ => false,
    }
}

fn stored_database(entry: &Entry) -> Option<Stored> {
    match &entry.kind {
        Kind::File {
            size_bytes,
            content: Content::Stream(stream),
        } if stream.kind == StreamKind::Sqlite => Some(Stored {
            stream: *stream,
            size_bytes: *size_bytes,
        }),
        _ => None,
    }
}

/// Returns what an entry is, in a word. Names of one file are all files.
pub fn type_of(kind: &Kind) -> &'static str {
    match kind {
        Kind::Directory => "directory",
        Kind::File { .. } | Kind::HardLink { .. } => "file",
        Kind::Symlink { .. } => "symlink",
        Kind::Fifo => "fifo",
        Kind::Socket => "socket",
        Kind::CharDevice { .. } => "char-device",
        Kind::BlockDevice { .. } => "block-device",
    }
}

/// Returns which attributes differ, in words.
pub fn attributes_that_differ(before: &Attributes, after: &Attributes) -> Vec<&'static str> {
    let differ = [
        ("mode", before.mode != after.mode),
        ("owner", before.uid != after.uid),
        ("group", before.gid != after.gid),
        ("xattrs", before.xattrs != after.xattrs),
    ];
    let names = differ.into_iter().filter(|(_, differs)| *differs);
    names.map(|(name, _)| name).collect()
}
