//! Small files that are stored together: which go into one bundle, and making one.
//!
//! A bundle in which nothing changed is never read: its id is used again. One in which something
//! changed is taken from the repository, where it is needed as the base anyway, and only the
//! changed files are read from the source.

use crate::error::Result;
use crate::format::pack::ChunkKind;
use crate::format::tree::BUNDLE_BYTES_MAX;
use crate::format::tree::BUNDLE_BYTES_MIN;
use crate::format::tree::Bundle;
use crate::format::tree::Class;
use crate::format::tree::SMALL_FILE_BYTES_MAX;
use crate::id::ChunkId;
use crate::ops::backup::read;
use crate::ops::backup::read::SmallFile;
use crate::repo::chunks::Chunks;
use crate::repo::writer::Writer;
use crate::repo::writer::WriterScratch;
use crate::source::files::Tree;
use std::ops::Range;

/// A bundle ends before a name whose hash has these bits zero.
const NAME_MASK: u64 = 0x1f << 32;

/// A bundle whose files grew since they were listed takes no more of them beyond this.
const GROWN_BYTES_MAX: u64 = 4 * BUNDLE_BYTES_MAX;

/// Where the content of an unchanged file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OldPlace {
    /// The bundle.
    pub bundle: Bundle,
    /// Where in it.
    pub offset: u64,
}

/// A small file as the scan saw it.
#[derive(Debug, Clone)]
pub(super) struct SmallItem {
    /// Index of its entry in the pending leaf.
    pub entry: usize,
    pub path: Vec<u8>,
    pub size_bytes: u64,
    pub class: Class,
    pub name_hash: u64,
    /// Where the parent snapshot has it, whether it changed or not.
    pub old: Option<OldPlace>,
    /// Whether the old content is the content.
    pub unchanged: bool,
}

/// What a bundle is made of.
pub(super) struct BundleJob {
    pub parts: Vec<Part>,
    /// The bundle that most of the unchanged files come from: also the base.
    pub old: Option<ChunkId>,
    pub class: Class,
}

pub(super) enum Part {
    /// A range of the old bundle. The path serves if that cannot be read any more.
    Old { range: Range<u64>, path: Vec<u8> },
    /// A file to be read.
    Read { path: Vec<u8> },
}

/// What became of a bundle.
pub(super) struct BundleDone {
    pub id: ChunkId,
    pub plain_bytes: u64,
    /// Bytes of its record; `None` if it was there before.
    pub stored_bytes: Option<u32>,
    pub read_bytes: u64,
    /// For each part: what was read, `None` if it was taken over as it was.
    pub files: Vec<Option<SmallFile>>,
}

/// Splits the small files of a leaf into bundles, class by class.
pub(super) fn group(items: Vec<SmallItem>) -> Vec<Vec<SmallItem>> {
    let mut groups: Vec<Vec<SmallItem>> = Vec::new();
    for class in [Class::Ordinary, Class::Secret] {
        let mut group: Vec<SmallItem> = Vec::new();
        let mut bytes = 0;
        for item in items.iter().filter(|item| item.class == class) {
            let by_name = bytes >= BUNDLE_BYTES_MIN && item.name_hash & NAME_MASK == 0;
            if !group.is_empty() && (by_name || bytes + item.size_bytes > BUNDLE_BYTES_MAX) {
                groups.push(std::mem::take(&mut group));
                bytes = 0;
            }
            bytes += item.size_bytes;
            group.push(item.clone());
        }
        if !group.is_empty() {
            groups.push(group);
        }
    }
    groups
}

/// Returns the old bundle if it holds exactly these files and none of them changed.
pub(super) fn reusable(group: &[SmallItem]) -> Option<Bundle> {
    let first = group.first()?.old?;
    let mut offset = 0;
    for item in group {
        let expected = OldPlace {
            bundle: first.bundle,
            offset,
        };
        if !item.unchanged || item.old != Some(expected) {
            return None;
        }
        offset += item.size_bytes;
    }
    (first.bundle.files as usize == group.len()).then_some(first.bundle)
}

/// Plans the making of a bundle.
pub(super) fn job(group: &[SmallItem]) -> BundleJob {
    let old = most_common(group.iter().filter_map(|item| Some(item.old?.bundle.id)));
    let part = |item: &SmallItem| match item.old {
        Some(place) if item.unchanged && Some(place.bundle.id) == old => {
            let range = place.offset..place.offset + item.size_bytes;
            Part::Old {
                range,
                path: item.path.clone(),
            }
        }
        _ => Part::Read {
            path: item.path.clone(),
        },
    };
    let class = group.first().map_or(Class::Ordinary, |item| item.class);
    BundleJob {
        parts: group.iter().map(part).collect(),
        old,
        class,
    }
}

fn most_common(ids: impl Iterator<Item = ChunkId>) -> Option<ChunkId> {
    let mut counts: Vec<(ChunkId, usize)> = Vec::new();
    for id in ids {
        match counts.iter_mut().find(|(known, _)| *known == id) {
            Some((_, count)) => *count += 1,
            None => counts.push((id, 1)),
        }
    }
    counts
        .into_iter()
        .max_by_key(|(_, count)| *count)
        .map(|(id, _)| id)
}

/// Makes a bundle and stores it.
pub(super) fn run(
    writer: &Writer<'_, '_>,
    chunks: &Chunks<'_>,
    tree: &Tree,
    scratch: &mut WriterScratch,
    job: BundleJob,
) -> Result<BundleDone> {
    let needs_old = job
        .parts
        .iter()
        .any(|part| matches!(part, Part::Old { .. }));
    // An old bundle that cannot be read any more is made anew from the source: it heals.
    let old = match job.old {
        Some(id) if needs_old => chunks.read(&mut scratch.read, ChunkKind::Data, &id).ok(),
        _ => None,
    };
    let mut plain = Vec::new();
    let mut files = Vec::with_capacity(job.parts.len());
    let mut read_bytes = 0;
    for part in job.parts {
        let path = match part {
            Part::Read { path } => path,
            Part::Old { range, path } => {
                let kept = old.as_ref().and_then(|old| {
                    old.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
                });
                if let Some(kept) = kept {
                    plain.extend_from_slice(kept);
                    files.push(None);
                    continue;
                }
                path
            }
        };
        let before = plain.len() as u64;
        let room = GROWN_BYTES_MAX.saturating_sub(before);
        let limit_bytes = SMALL_FILE_BYTES_MAX.min(room);
        let file = read::small_file(tree, &path, limit_bytes, &mut plain);
        files.push(Some(file));
        read_bytes += plain.len() as u64 - before;
    }
    // Secrets are never compressed together with other data, an older version included.
    let base = job.old.filter(|_| job.class == Class::Ordinary);
    let stored = writer.store(scratch, ChunkKind::Data, &plain, base.as_ref())?;
    Ok(BundleDone {
        id: stored.id,
        plain_bytes: plain.len() as u64,
        stored_bytes: stored.stored_bytes,
        read_bytes,
        files,
    })
}
