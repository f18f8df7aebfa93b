//! Completing an entry with what its file was when it was read, and how much room it then takes.

use crate::error::Result;
use crate::format::tree::Attributes;
use crate::format::tree::Class;
use crate::format::tree::Content;
use crate::format::tree::Entry;
use crate::format::tree::Kind;
use crate::ops::backup::Totals;
use crate::ops::backup::builder::NewContent;
use crate::ops::backup::builder::NewEntry;
use crate::ops::backup::large::Expect;
use crate::ops::backup::large::LargeFiles;
use crate::ops::backup::pool::Pool;
use crate::ops::backup::read::SmallFile;
use crate::ops::backup::scan;
use crate::ops::backup::seen::Fingerprint;
use crate::source::files::Stat;
use crate::source::files::Xattrs;
use std::collections::HashSet;
use std::sync::Arc;

/// What became of a file.
pub(super) enum Completed {
    /// Its content is in the bundle.
    InBundle,
    /// Its content needs no bundle.
    Elsewhere,
    /// It could not be read.
    Gone,
}

/// Completes a small file whose bundle was made.
pub(super) fn small<'a>(
    pool: &mut Pool,
    totals: &mut Totals,
    large: &mut LargeFiles<'a>,
    new: &mut NewEntry<'a>,
    file: Option<SmallFile>,
) -> Result<Completed> {
    match file {
        None => Ok(Completed::InBundle),
        Some(SmallFile::Read {
            stat,
            xattrs,
            size_bytes,
            problem,
        }) => {
            totals.warnings.extend(problem);
            enter(new, &stat, xattrs);
            if let Kind::File {
                size_bytes: entered,
                ..
            } = &mut new.entry.kind
            {
                *entered = size_bytes;
            }
            Ok(Completed::InBundle)
        }
        // Reading it again as a stream, it is told what it is.
        Some(SmallFile::Grown | SmallFile::Database) => stream(pool, totals, large, new),
        Some(SmallFile::Failed(problem)) => {
            totals.warnings.push(problem);
            Ok(Completed::Gone)
        }
    }
}

/// Completes a file by reading it as a stream of its own, however small it is.
pub(super) fn stream<'a>(
    pool: &mut Pool,
    totals: &mut Totals,
    large: &mut LargeFiles<'a>,
    new: &mut NewEntry<'a>,
) -> Result<Completed> {
    let Some(file) = large.read(pool, totals, &new.entry.path, None, Expect::NoDatabase)? else {
        return Ok(Completed::Gone);
    };
    enter(new, &file.stat, file.xattrs);
    // A placeholder until the last chunk is stored.
    new.entry.kind = Kind::File {
        size_bytes: 0,
        content: Content::Bundled(Class::Ordinary),
    };
    new.content = NewContent::Stream(Box::new(file.stream));
    Ok(Completed::Elsewhere)
}

fn enter(new: &mut NewEntry<'_>, stat: &Stat, xattrs: Xattrs) {
    let (mode, uid, gid) = (stat.mode, stat.uid, stat.gid);
    let attributes = Attributes {
        mode,
        uid,
        gid,
        xattrs,
    };
    if *new.entry.attributes != attributes {
        new.entry.attributes = Arc::new(attributes);
    }
    new.entry.modified = scan::file_time(stat);
    new.fingerprint = Fingerprint::of(stat);
}

/// Returns about what the row of an entry takes in a leaf; the exact length is not needed to cut
/// where names say so.
pub(super) fn row_bytes(entry: &Entry) -> usize {
    let more = match &entry.kind {
        Kind::Symlink { target } => target.len(),
        Kind::HardLink { path } => path.len(),
        _ => 0,
    };
    entry.path.len() / 2 + 24 + more
}

/// Returns the same with the extended attributes that each entry brings into the leaf.
pub(super) fn weights<'e>(entries: impl Iterator<Item = &'e Entry>) -> Vec<usize> {
    let mut known: HashSet<&Xattrs> = HashSet::new();
    let weight = |entry: &'e Entry| {
        let xattrs = &entry.attributes.xattrs;
        let is_new = !xattrs.is_empty() && known.insert(xattrs);
        let brought = xattrs.iter().filter(|_| is_new);
        let xattr_bytes = brought.map(|(name, value)| name.len() + value.len() + 8);
        row_bytes(entry) + xattr_bytes.sum::<usize>()
    };
    entries.map(weight).collect()
}
