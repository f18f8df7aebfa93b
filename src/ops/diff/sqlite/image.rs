//! The pages of a database in a snapshot, read where they are needed.

use crate::context::Context;
use crate::disk::unnamed_file;
use crate::error::Error;
use crate::error::Result;
use crate::format::list::HOLE;
use crate::format::pack::CHUNK_BYTES_MAX;
use crate::id::ChunkId;
use crate::ops::diff::sqlite::Fault;
use crate::ops::diff::sqlite::Stored;
use crate::ops::inspect;
use crate::repo::chunks::Chunks;
use crate::repo::chunks::Scratch;
use crate::repo::stream::Piece;
use crate::repo::stream::Pieces;
use crate::source::sqlite::btree::Damage;
use crate::source::sqlite::btree::Encoding;
use crate::source::sqlite::btree::Layout;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of chunks that are kept for the pages around.
const CACHE_BYTES: usize = 12 << 20;

/// What its files are called in errors.
const NAMELESS: &str = "(a file without a name)";

/// A run of bytes of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub start: u64,
    pub end: u64,
    pub id: ChunkId,
}

/// A database in a snapshot.
pub(super) struct Image<'a> {
    cx: &'a Context,
    chunks: &'a Chunks<'a>,
    scratch: Scratch,
    /// In order and without gaps.
    pub runs: Vec<Run>,
    pub layout: Layout,
    pub page_count: u32,
    /// The chunks used last, the newest at the end.
    cache: VecDeque<(usize, Vec<u8>)>,
    cached_bytes: usize,
    room: &'a Path,
    /// Everything, once it was put together.
    file: Option<File>,
    /// Pages that are needed again, one after the other, and where each is.
    kept: Option<File>,
    kept_at: HashMap<u32, u64>,
    /// Bytes of chunks that were read.
    pub read_bytes: u64,
}

impl<'a> Image<'a> {
    /// Opens a file that is said to be a database.
    pub(super) fn open(
        cx: &'a Context,
        chunks: &'a Chunks<'a>,
        room: &'a Path,
        stored: &Stored,
    ) -> Result<Image<'a>, Fault> {
        let Stored { stream, size_bytes } = *stored;
        let mut scratch = Scratch::default();
        let mut pieces = Pieces::begin(chunks, &stream, size_bytes);
        let mut runs = Vec::new();
        while let Some(piece) = pieces.next(&mut scratch)? {
            pieces.nodes.clear();
            if piece.plain_bytes > u64::from(CHUNK_BYTES_MAX) && piece.id != HOLE {
                return Err(Fault::Store(Error::corrupt(
                    "a list",
                    "a chunk is too long",
                )));
            }
            runs.push(Run {
                start: piece.offset,
                end: piece.offset + piece.plain_bytes,
                id: piece.id,
            });
        }
        let mut image = Image {
            cx,
            chunks,
            scratch,
            runs,
            layout: EMPTY,
            page_count: 0,
            cache: VecDeque::new(),
            cached_bytes: 0,
            room,
            file: None,
            kept: None,
            kept_at: HashMap::new(),
            read_bytes: 0,
        };
        // What was only ever opened has no page yet.
        if size_bytes == 0 {
            return Ok(image);
        }
        let mut first = vec![0; size_bytes.min(512) as usize];
        image.read_at(0, &mut first)?;
        image.layout = Layout::parse(&first)?;
        let pages = size_bytes / u64::from(image.layout.page_bytes);
        image.page_count = u32::try_from(pages).map_err(|_| Damage("it has too many pages"))?;
        Ok(image)
    }

    /// Replaces `page` by a page; they count from one.
    pub(super) fn read(&mut self, number: u32, page: &mut Vec<u8>) -> Result<(), Fault> {
        if number == 0 || number > self.page_count {
            return Err(Damage("a page lies behind the end").into());
        }
        let page_bytes = self.layout.page_bytes;
        page.resize(page_bytes as usize, 0);
        let offset = u64::from(number - 1) * u64::from(page_bytes);
        let at = match (&self.file, self.kept_at.get(&number)) {
            (Some(file), _) => Some((file, offset)),
            (None, Some(at)) => self.kept.as_ref().map(|kept| (kept, *at)),
            (None, None) => None,
        };
        match at {
            Some((file, at)) => {
                let read = file.read_exact_at(page, at);
                Ok(read.map_err(Error::io("read", self.room.join(NAMELESS)))?)
            }
            None => self.read_at(offset, page),
        }
    }

    /// Keeps a page at hand, so that its chunk is not decoded again.
    pub(super) fn keep(&mut self, number: u32, page: &[u8]) -> Result<(), Fault> {
        let file = match self.kept.take() {
            Some(file) => file,
            None => unnamed_file(self.room)?,
        };
        let at = self.kept_at.len() as u64 * u64::from(self.layout.page_bytes);
        let written = file.write_all_at(page, at);
        written.map_err(Error::io("write", self.room.join(NAMELESS)))?;
        self.kept = Some(file);
        self.kept_at.insert(number, at);
        Ok(())
    }

    /// Puts all of it into a file, so that pages can be read in any order.
    pub(super) fn put_together(&mut self) -> Result<(), Fault> {
        if self.file.is_some() {
            return Ok(());
        }
        let file = unnamed_file(self.room)?;
        for index in 0..self.runs.len() {
            let run = self.runs[index];
            if run.id != HOLE {
                self.fetch(index)?;
                let bytes = self.cache.back().map_or(&[][..], |(_, bytes)| &bytes[..]);
                let written = file.write_all_at(bytes, run.start);
                written.map_err(Error::io("write", self.room.join(NAMELESS)))?;
            }
        }
        let end = self.runs.last().map_or(0, |run| run.end);
        file.set_len(end).map_err(Error::io("extend", self.room))?;
        self.cache.clear();
        self.cached_bytes = 0;
        self.file = Some(file);
        Ok(())
    }

    fn read_at(&mut self, mut offset: u64, mut out: &mut [u8]) -> Result<(), Fault> {
        while !out.is_empty() {
            let index = self.runs.partition_point(|run| run.end <= offset);
            let run = self.runs.get(index).copied();
            let run = run.ok_or(Damage("it ends too early"))?;
            let len = out.len().min((run.end - offset) as usize);
            let (now, rest) = out.split_at_mut(len);
            if run.id == HOLE {
                now.fill(0);
            } else {
                self.fetch(index)?;
                let bytes = self.cache.back().map_or(&[][..], |(_, bytes)| &bytes[..]);
                let start = (offset - run.start) as usize;
                let found = bytes.get(start..start + len);
                now.copy_from_slice(found.ok_or(Damage("it ends too early"))?);
            }
            (offset, out) = (offset + len as u64, rest);
        }
        Ok(())
    }

    /// Makes this run the newest in the cache.
    fn fetch(&mut self, index: usize) -> Result<(), Fault> {
        let found = self.cache.iter().rposition(|(of, _)| *of == index);
        if let Some(entry) = found.and_then(|at| self.cache.remove(at)) {
            self.cache.push_back(entry);
            return Ok(());
        }
        self.cx.check()?;
        let run = self.runs[index];
        let piece = Piece {
            offset: run.start,
            plain_bytes: run.end - run.start,
            id: run.id,
            mark: 0,
        };
        let plain = inspect::read_piece(self.chunks, &mut self.scratch, &piece)?;
        self.scratch.touched.clear();
        self.read_bytes += plain.len() as u64;
        self.cached_bytes += plain.len();
        self.cache.push_back((index, plain));
        while self.cached_bytes > CACHE_BYTES && self.cache.len() > 1 {
            if let Some((_, old)) = self.cache.pop_front() {
                self.cached_bytes -= old.len();
                inspect::recycle(&mut self.scratch, old);
            }
        }
        Ok(())
    }
}

/// Until the header is read.
const EMPTY: Layout = Layout {
    page_bytes: 512,
    usable_bytes: 512,
    user_version: 0,
    first_trunk: 0,
    has_pointer_maps: false,
    encoding: Encoding::Utf8,
};
