//! Reading one large file: again if it changed meanwhile, and then as it is, with a warning.

use crate::context::Context;
use crate::error::Result;
use crate::format::list::Stream;
use crate::ops::backup::Totals;
use crate::ops::backup::databases;
use crate::ops::backup::databases::Unknown;
use crate::ops::backup::pending::PendingStream;
use crate::ops::backup::pool::Pool;
use crate::ops::backup::predecessors::Predecessors;
use crate::ops::backup::read;
use crate::ops::backup::stream::StreamReader;
use crate::repo::chunks::Chunks;
use crate::safeguard::Safeguard;
use crate::source::files::Problem;
use crate::source::files::Stat;
use crate::source::files::Tree;
use crate::source::files::Xattrs;

/// A file that changes while it is read is read so often.
const READS_MAX: u32 = 2;

/// So many of its first bytes tell what a file is.
const SNIFFED_BYTES: usize = 128;

/// What a large file was while it was read.
pub(super) struct LargeFile<'a> {
    pub stat: Stat,
    pub xattrs: Xattrs,
    pub stream: PendingStream<'a>,
}

/// What a file may turn out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expect {
    /// Whatever it is, it is read as it is.
    Anything,
    /// A database should have been captured before; meeting one ends the scan.
    NoDatabase,
}

/// Reads large files, one at a time.
pub(super) struct LargeFiles<'a> {
    cx: &'a Context,
    unknown: Unknown,
    tree: &'a Tree,
    chunks: &'a Chunks<'a>,
    reader: StreamReader,
}

impl<'a> LargeFiles<'a> {
    pub(super) fn new(
        cx: &'a Context,
        tree: &'a Tree,
        chunks: &'a Chunks<'a>,
        cut_key: &[u8; 32],
        unknown: Unknown,
    ) -> LargeFiles<'a> {
        LargeFiles {
            cx,
            unknown,
            tree,
            chunks,
            reader: StreamReader::new(cut_key),
        }
    }

    /// Reads a file; `old` is the version to lean on, with its length. `None` if it could not be
    /// read, which is among the warnings then.
    pub(super) fn read(
        &mut self,
        pool: &mut Pool,
        totals: &mut Totals,
        path: &[u8],
        old: Option<(&Stream, u64)>,
        expect: Expect,
    ) -> Result<Option<LargeFile<'a>>> {
        let mut tries = 0;
        if expect == Expect::NoDatabase && self.is_database(path) {
            match self.unknown {
                Unknown::LookAgain => {
                    totals.found_database = true;
                    return Ok(None);
                }
                Unknown::CopyPlainly => totals.warnings.push(unknown_problem(path)),
            }
        }
        loop {
            tries += 1;
            match self.read_once(pool, totals, path, old)? {
                Ok((file, false)) => return Ok(Some(file)),
                Ok((file, true)) if tries == READS_MAX => {
                    totals.warnings.push(read::changed_problem(path));
                    return Ok(Some(file));
                }
                Ok((file, true)) => file.stream.discard(pool, totals)?,
                Err(problem) => {
                    totals.warnings.push(problem);
                    return Ok(None);
                }
            }
        }
    }

    /// Looks at the first bytes. What cannot be read is reported by whoever reads on.
    pub(super) fn is_database(&self, path: &[u8]) -> bool {
        let mut first = [0; SNIFFED_BYTES];
        let looked = self.tree.open_file(path).and_then(|file| {
            let len = file.read_at(0, &mut first)?;
            Ok((file.stat().size_bytes, len))
        });
        looked.is_ok_and(|(size, len)| databases::is_database(path, size, &first[..len]))
    }

    fn read_once(
        &mut self,
        pool: &mut Pool,
        totals: &mut Totals,
        path: &[u8],
        old: Option<(&Stream, u64)>,
    ) -> Result<Result<(LargeFile<'a>, bool), Problem>> {
        let opened = self.tree.open_file(path).and_then(|file| {
            let xattrs = file.xattrs()?;
            Ok((file, xattrs))
        });
        let (file, xattrs) = match opened {
            Ok(opened) => opened,
            Err(problem) => return Ok(Err(problem)),
        };
        let predecessors = match old {
            Some((stream, size_bytes)) => Predecessors::of(self.chunks, stream, size_bytes),
            None => Predecessors::none(),
        };
        let stream = match self
            .reader
            .read(self.cx, pool, totals, &file, predecessors)?
        {
            Ok(stream) => stream,
            Err(problem) => return Ok(Err(problem)),
        };
        let changed = match file.stat_again() {
            Ok(stat) => !file.stat().same_content(&stat) && Safeguard::ChangeNoticed.holds(),
            Err(problem) => return Ok(Err(problem)),
        };
        let stat = *file.stat();
        Ok(Ok((
            LargeFile {
                stat,
                xattrs,
                stream,
            },
            changed,
        )))
    }
}

fn unknown_problem(path: &[u8]) -> Problem {
    Problem {
        path: path.to_vec(),
        code: "database",
        message: "belongs to a database that came while the source was read; copied as a plain \
                  file, which may not be consistent"
            .to_string(),
    }
}
