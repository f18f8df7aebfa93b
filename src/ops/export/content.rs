//! The content of one file of a snapshot after the other, through the verified reader (I3), in
//! memory that does not depend on how long they are.

use crate::context::Context;
use crate::context::Event;
use crate::error::Error;
use crate::error::Result;
use crate::format::list::Stream;
use crate::format::pack::ChunkKind;
use crate::format::tree::Place;
use crate::id::ChunkId;
use crate::ops::inspect;
use crate::repo::chunks::Chunks;
use crate::repo::chunks::Scratch;
use std::fs::File;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

/// Bundles kept: those of ordinary files and of secrets take turns in a leaf.
const BUNDLES_KEPT: usize = 2;
const BUFFER_BYTES: usize = 256 << 10;

/// Where the content of a file is.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// In a bundle.
    Bundle(ChunkId, Place),
    /// In chunks of its own; the file has this length.
    Stream(Stream, u64),
    /// In a compacted copy on the disk.
    Copy(PathBuf),
    /// There is none.
    Empty,
}

/// Reads contents.
pub(super) struct Contents<'a> {
    cx: &'a Context,
    chunks: &'a Chunks<'a>,
    temp_dir: &'a Path,
    scratch: Scratch,
    bundles: Vec<(ChunkId, Vec<u8>)>,
}

impl<'a> Contents<'a> {
    pub(super) fn new(cx: &'a Context, chunks: &'a Chunks<'a>, temp_dir: &'a Path) -> Self {
        Contents {
            cx,
            chunks,
            temp_dir,
            scratch: Scratch::default(),
            bundles: Vec::new(),
        }
    }

    /// Writes a content, each byte only after the chunk it is in was verified. `name` is that of
    /// the output, for errors.
    pub(super) fn write(&mut self, source: &Source, name: &str, out: &mut dyn Write) -> Result<()> {
        let cx = self.cx;
        let mut write = |bytes: &[u8]| {
            out.write_all(bytes).map_err(Error::io("write", name))?;
            let bytes = bytes.len() as u64;
            cx.progress.event(Event::Done { files: 0, bytes });
            cx.check()
        };
        match source {
            Source::Empty => Ok(()),
            Source::Bundle(_, place) if place.size_bytes == 0 => Ok(()),
            Source::Bundle(id, place) => {
                let bundle = self.bundle(*id)?;
                let range = inspect::within(bundle, place.offset, place.size_bytes);
                let range = range
                    .ok_or_else(|| Error::corrupt(format!("bundle {id}"), "it is too short"))?;
                write(&bundle[range])
            }
            Source::Stream(stream, size_bytes) => inspect::write_stream(
                self.chunks,
                &mut self.scratch,
                stream,
                *size_bytes,
                self.temp_dir,
                &mut write,
            ),
            Source::Copy(path) => copy(path, &mut write),
        }
    }

    /// Returns a bundle, the last ones without reading them again.
    fn bundle(&mut self, id: ChunkId) -> Result<&[u8]> {
        let kept = self.bundles.iter().position(|(kept, _)| *kept == id);
        let at = match kept {
            Some(at) => at,
            None => {
                let plain = self.chunks.read(&mut self.scratch, ChunkKind::Data, &id)?;
                if self.bundles.len() == BUNDLES_KEPT {
                    let (_, old) = self.bundles.remove(0);
                    inspect::recycle(&mut self.scratch, old);
                }
                self.bundles.push((id, plain));
                self.bundles.len() - 1
            }
        };
        Ok(&self.bundles[at].1)
    }
}

fn copy(path: &Path, write: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => write(&buffer[..len])?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("read", path)(error)),
        }
    }
}
