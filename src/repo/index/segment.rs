//! An immutable file of sorted entries, read one block at a time.
//!
//! ```text
//! segment   blocks | packs, 32 each, ascending | samples, u64 each
//!           | filter, words of u64 | footer 64
//! footer    magic 8 | segment name 8 | entries u64 | packs u64 | filter words u64
//!           | 0 × 16 | checksum 8
//! ```
//! A sample is the leading 8 bytes of the first id of every 16th block. Packs, samples and filter
//! are all that stays in memory. The footer's checksum covers them and itself; every block has its
//! own. Which packs are live is the caller's matter, and so is removing a damaged file.
//!
//! Invariant: a segment that lists a pack holds all records of that pack.

use super::block::BLOCK_BYTES;
use super::block::BLOCK_ENTRIES;
use super::block::Block;
use super::block::checksum;
use super::filter::Filter;
use super::record::Entry;
use super::record::array;
use super::record::id;
use super::record::leading;
use crate::id::PackId;
use std::cmp::Reverse;
use std::fs;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Blocks per sample: 8 bytes of memory per 1,000 entries. Without filters, a look-up among 10⁶
/// entries was measured to read 3.06 blocks, and 3.40 with 64 blocks per sample.
pub(super) const SAMPLE_BLOCKS: u64 = 16;

pub(super) const MAGIC: &[u8; 8] = b"skindex1";
pub(super) const FOOTER_BYTES: usize = 64;
pub(super) const TEMP_SUFFIX: &str = ".tmp";

const NAME_PREFIX: &str = "index-";

/// No writer takes this long: a temporary file of this age was left by a crash.
const TEMP_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// How often a directory is listed again because a merge elsewhere removed what was listed.
const LIST_ATTEMPTS: u32 = 5;

/// An open segment file.
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) name: u64,
    pub(super) entry_count: u64,
    /// Ascending; the place in here is the pack's ordinal.
    pub(super) packs: Vec<PackId>,
    pub(super) samples: Vec<u64>,
    pub(super) filter: Filter,
    /// Blocks read by look-ups, for statistics.
    pub(super) read_count: AtomicU64,
}

impl Segment {
    /// Opens a segment. `InvalidData` or `UnexpectedEof`: the file is damaged.
    pub(super) fn open(path: &Path) -> io::Result<Segment> {
        let file = File::open(path)?;
        let file_bytes = file.metadata()?.len();
        let footer_at = file_bytes
            .checked_sub(FOOTER_BYTES as u64)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut footer = [0; FOOTER_BYTES];
        file.read_exact_at(&mut footer, footer_at)?;
        let field = |at| u64::from_le_bytes(array(&footer, at));
        let (entry_count, pack_count, word_count) = (field(16), field(24), field(32));
        let blocks_bytes = block_count(entry_count).checked_mul(BLOCK_BYTES as u64);
        let tail_bytes = blocks_bytes.and_then(|bytes| file_bytes.checked_sub(bytes));
        let sample_count = block_count(entry_count).div_ceil(SAMPLE_BLOCKS);
        let sample_bytes = sample_count * 8;
        let word_bytes = word_count.checked_mul(8);
        let expected = (pack_count.checked_mul(PackId::LEN as u64))
            .and_then(|bytes| bytes.checked_add(word_bytes?))
            .and_then(|bytes| bytes.checked_add(sample_bytes + FOOTER_BYTES as u64));
        if footer[..8] != *MAGIC || tail_bytes.is_none() || tail_bytes != expected {
            return Err(io::ErrorKind::InvalidData.into());
        }

        let tail_bytes = tail_bytes.and_then(|bytes| usize::try_from(bytes).ok());
        let mut tail = vec![0; tail_bytes.ok_or(io::ErrorKind::InvalidData)?];
        file.read_exact_at(&mut tail, blocks_bytes.unwrap_or_default())?;
        let (covered, sum) = tail.split_at(tail.len() - 8);
        if checksum(covered) != sum {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let rest = &covered[..tail.len() - FOOTER_BYTES];
        let (packs, rest) = rest.split_at(pack_count as usize * PackId::LEN);
        let (samples, words) = rest.split_at(sample_bytes as usize);
        Ok(Segment {
            path: path.to_path_buf(),
            file,
            name: field(8),
            entry_count,
            packs: packs.as_chunks().0.iter().copied().map(PackId).collect(),
            samples: numbers(samples),
            filter: Filter {
                words: numbers(words),
            },
            read_count: AtomicU64::new(0),
        })
    }

    pub(super) fn block_count(&self) -> u64 {
        block_count(self.entry_count)
    }

    /// Returns the memory held for packs, samples and filter.
    pub(super) fn memory_bytes(&self) -> u64 {
        let numbers = self.samples.capacity() + self.filter.words.capacity();
        (self.packs.capacity() * PackId::LEN + numbers * 8) as u64
    }

    /// Passes on every entry whose id begins with the prefix (8 bytes or more). Any error means
    /// that the segment cannot be relied on.
    pub(super) fn find(&self, prefix: &[u8], visit: &mut dyn FnMut(&Entry)) -> io::Result<()> {
        let mut block = Block::new();
        let Some(mut number) = self.seek(prefix, &mut block)? else {
            return Ok(());
        };
        loop {
            let entries = block.entries();
            let start = entries.partition_point(|entry| id(entry) < prefix);
            for entry in &entries[start..] {
                if !id(entry).starts_with(prefix) {
                    return Ok(());
                }
                visit(entry);
            }
            number += 1;
            if number == self.block_count() {
                return Ok(());
            }
            self.read_counted(number, &mut block)?;
        }
    }

    /// Reads the first block whose last id is not below the prefix and returns its number;
    /// nothing if no block can have the prefix.
    fn seek(&self, prefix: &[u8], block: &mut Block) -> io::Result<Option<u64>> {
        let key = leading(prefix);
        if !self.filter.may_have(key) {
            return Ok(None);
        }
        let below = self.samples.partition_point(|sample| *sample < key);
        let above = self.samples.partition_point(|sample| *sample <= key);
        // Invariant: blocks before `low` end below the prefix, block `high` does not begin below.
        let mut low = (below as u64).saturating_sub(1) * SAMPLE_BLOCKS;
        let end = (above as u64 * SAMPLE_BLOCKS).min(self.block_count());
        let mut high = end;

        // Ids are uniform, so the first guess is right or next to it. If they are not, bisect.
        let start_key = below.checked_sub(1).map_or(key, |at| self.samples[at]);
        let end_key = self.samples.get(above).copied().unwrap_or(u64::MAX);
        let part = u128::from(key - start_key) * u128::from(high - low);
        let skipped = part / (u128::from(end_key - start_key) + 1);
        let mut probe = low + u64::try_from(skipped).unwrap_or_default();
        let mut attempt = 0;
        while low < high {
            self.read_counted(probe, block)?;
            let entries = block.entries();
            let ends_below = entries.last().is_none_or(|entry| id(entry) < prefix);
            let begins_below = entries.first().is_some_and(|entry| id(entry) < prefix);
            if !ends_below && (begins_below || probe == low) {
                return Ok(Some(probe));
            }
            attempt += 1;
            if ends_below {
                low = probe + 1;
            } else {
                high = probe;
            }
            probe = match (attempt, ends_below) {
                (1, true) => low,
                (1, false) => high - 1,
                _ => low.midpoint(high),
            };
        }
        if high == end {
            return Ok(None);
        }
        self.read_counted(high, block)?;
        Ok(Some(high))
    }

    fn read_counted(&self, number: u64, block: &mut Block) -> io::Result<()> {
        self.read_count.fetch_add(1, Ordering::Relaxed);
        self.read(number, block)
    }

    /// Reads and verifies a block.
    pub(super) fn read(&self, number: u64, block: &mut Block) -> io::Result<()> {
        let at = number * BLOCK_BYTES as u64;
        self.file.read_exact_at(&mut block.bytes, at)?;
        let before = number * BLOCK_ENTRIES as u64;
        let len = (self.entry_count - before).min(BLOCK_ENTRIES as u64) as usize;
        match block.unseal(self.name, number, len) {
            true => Ok(()),
            false => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Removes the file; whoever has it open can go on reading.
    pub(super) fn unlink(&self) {
        // Somebody else may have been quicker, and a file that stays is only a duplicate.
        let _ = fs::remove_file(&self.path);
    }
}

/// Returns where a segment of this name is kept.
pub(super) fn path_of(dir: &Path, name: u64) -> PathBuf {
    dir.join(format!("{NAME_PREFIX}{name:016x}"))
}

/// Opens what can be used in the directory, the largest first, and removes what cannot.
pub(super) fn open_all(dir: &Path) -> Vec<Segment> {
    let mut segments = Vec::new();
    for _ in 0..LIST_ATTEMPTS {
        segments.clear();
        let mut has_vanished = false;
        for path in list(dir) {
            match Segment::open(&path) {
                Ok(segment) => segments.push(segment),
                Err(error) => match error.kind() {
                    io::ErrorKind::NotFound => has_vanished = true,
                    io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                        let _ = fs::remove_file(&path);
                    }
                    _ => {}
                },
            }
        }
        if !has_vanished {
            break;
        }
    }
    segments.sort_by_key(|segment| Reverse((segment.entry_count, segment.name)));
    segments
}

/// Returns the segment files of the directory; removes temporary ones left by a crash.
fn list(dir: &Path) -> Vec<PathBuf> {
    let Ok(listing) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut paths = Vec::new();
    for entry in listing.flatten() {
        let name = entry.file_name();
        let Some(rest) = name
            .to_str()
            .and_then(|name| name.strip_prefix(NAME_PREFIX))
        else {
            continue;
        };
        let stem = rest.strip_suffix(TEMP_SUFFIX).unwrap_or(rest);
        let is_hex = stem.len() == 16 && stem.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hex || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        if stem == rest {
            paths.push(entry.path());
        } else if is_old(&entry) {
            let _ = fs::remove_file(entry.path());
        }
    }
    paths
}

fn is_old(entry: &fs::DirEntry) -> bool {
    let modified = entry.metadata().and_then(|metadata| metadata.modified());
    modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| TEMP_AGE_MAX < age))
}

fn numbers(bytes: &[u8]) -> Vec<u64> {
    let numbers = bytes.as_chunks().0.iter();
    numbers.map(|bytes| u64::from_le_bytes(*bytes)).collect()
}

fn block_count(entry_count: u64) -> u64 {
    entry_count.div_ceil(BLOCK_ENTRIES as u64)
}
