//! Writes a segment from entries that arrive in order; its layout is described in `segment.rs`.
//!
//! The file appears under its name only when complete. It is not synced: after a power loss it may
//! be damaged, which readers notice, and it can always be made again.

use super::block::Block;
use super::block::checksum;
use super::filter::Filter;
use super::record::Entry;
use super::record::id;
use super::record::leading;
use super::segment::FOOTER_BYTES;
use super::segment::MAGIC;
use super::segment::SAMPLE_BLOCKS;
use super::segment::Segment;
use super::segment::TEMP_SUFFIX;
use super::segment::path_of;
use crate::id::PackId;
use std::fs;
use std::fs::DirBuilder;
use std::fs::OpenOptions;
use std::io;
use std::io::BufWriter;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;

const BUFFER_BYTES: usize = 256 * 1024;

/// A segment in the making.
pub(super) struct Writer {
    file: BufWriter<fs::File>,
    path: PathBuf,
    temp: Temp,
    name: u64,
    block: Block,
    block_count: u64,
    entry_count: u64,
    samples: Vec<u64>,
    filter: Filter,
}

impl Writer {
    /// Begins a segment of so many entries at most.
    pub(super) fn create(dir: &Path, entry_count_max: u64) -> io::Result<Writer> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let name = getrandom::u64()?;
        let path = path_of(dir, name);
        let temp = path.with_extension(&TEMP_SUFFIX[1..]);
        let file = (OpenOptions::new().read(true).write(true).create_new(true))
            .mode(0o600)
            .open(&temp)?;
        Ok(Writer {
            file: BufWriter::with_capacity(BUFFER_BYTES, file),
            path,
            temp: Temp(temp),
            name,
            block: Block::new(),
            block_count: 0,
            entry_count: 0,
            samples: Vec::new(),
            filter: Filter::new(entry_count_max),
        })
    }

    /// Adds an entry, not below the one before.
    pub(super) fn push(&mut self, entry: &Entry) -> io::Result<()> {
        if self.block.is_full() {
            self.write_block()?;
        }
        if self.block.entries().is_empty() && self.block_count.is_multiple_of(SAMPLE_BLOCKS) {
            self.samples.push(leading(id(entry)));
        }
        self.filter.add(leading(id(entry)));
        self.block.push(entry);
        self.entry_count += 1;
        Ok(())
    }

    /// Publishes the segment. The packs are those that the ordinals of the entries mean.
    pub(super) fn finish(mut self, packs: Vec<PackId>) -> io::Result<Segment> {
        if !self.block.entries().is_empty() {
            self.write_block()?;
        }
        let mut tail = Vec::new();
        for pack in &packs {
            tail.extend_from_slice(pack.as_bytes());
        }
        for number in self.samples.iter().chain(&self.filter.words) {
            tail.extend_from_slice(&number.to_le_bytes());
        }
        tail.extend_from_slice(MAGIC);
        let word_count = self.filter.words.len() as u64;
        for field in [self.name, self.entry_count, packs.len() as u64, word_count] {
            tail.extend_from_slice(&field.to_le_bytes());
        }
        tail.extend_from_slice(&[0; FOOTER_BYTES - 48]);
        tail.extend_from_slice(&checksum(&tail));
        self.file.write_all(&tail)?;
        let file = self.file.into_inner()?;
        fs::rename(&self.temp.0, &self.path)?;
        Ok(Segment {
            path: self.path,
            file,
            name: self.name,
            entry_count: self.entry_count,
            packs,
            samples: self.samples,
            filter: self.filter,
            read_count: AtomicU64::new(0),
        })
    }

    fn write_block(&mut self) -> io::Result<()> {
        self.block.seal(self.name, self.block_count);
        self.file.write_all(&self.block.bytes)?;
        self.block_count += 1;
        self.block = Block::new();
        Ok(())
    }
}

/// Removes the temporary file, unless it was renamed meanwhile.
struct Temp(PathBuf);

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
