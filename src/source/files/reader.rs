//! Reads the content of one regular file and tells whether it changed meanwhile.
//!
//! Reading again after a change is the caller's decision.

use crate::disk::attributes::Handle;
use crate::disk::beneath;
use crate::disk::beneath::Beneath;
use crate::disk::node::Kind;
use crate::disk::node::Problem;
use crate::disk::node::Stat;
use crate::disk::node::Xattrs;
use rustix::fd::AsFd;
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use std::fs::File;
use std::ops::Range;

/// An open regular file.
#[derive(Debug)]
pub struct FileReader {
    fd: OwnedFd,
    path: Vec<u8>,
    stat: Stat,
    offset: u64,
}

impl FileReader {
    pub(super) fn open(beneath: &Beneath, path: &[u8]) -> Result<FileReader, Problem> {
        let error = |errno| Problem::read(path, "open", errno);
        // NONBLOCK: should a fifo have taken the place of the file, opening it must not hang.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let opened = beneath::quietly(|flags| beneath.open(path, flags), flags);
        let fd = opened.map_err(error)?;
        let stat = beneath::fstat(&fd).map_err(error)?;
        if stat.kind != Kind::File {
            return Err(Problem::new(path, "changed", "not a file any more".into()));
        }
        Ok(FileReader {
            fd,
            path: path.to_vec(),
            stat,
            offset: 0,
        })
    }

    /// Returns what the file was when it was opened.
    pub fn stat(&self) -> &Stat {
        &self.stat
    }

    /// Returns what the file is now; compare with `Stat::same_content`.
    pub fn stat_again(&self) -> Result<Stat, Problem> {
        beneath::fstat(&self.fd).map_err(|errno| self.problem(errno))
    }

    /// Reads on, filling the buffer unless the file ends; returns how much was read.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Problem> {
        let len = self.read_at(self.offset, buffer)?;
        self.offset += len as u64;
        Ok(len)
    }

    /// Reads at an offset, filling the buffer unless the file ends; returns how much was read.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Problem> {
        let mut len = 0;
        while len < buffer.len() {
            match rustix::io::pread(&self.fd, &mut buffer[len..], offset + len as u64) {
                Ok(0) => break,
                Ok(more) => len += more,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.problem(errno)),
            }
        }
        Ok(len)
    }

    /// Returns the whole content, or `None` if there is more of it than the limit.
    pub fn read_all(&self, limit_bytes: usize) -> Result<Option<Vec<u8>>, Problem> {
        let expected = usize::try_from(self.stat.size_bytes).unwrap_or(usize::MAX);
        if limit_bytes < expected {
            return Ok(None);
        }
        // One byte more than expected: a file that did not grow shows its end by the same call.
        let mut content = vec![0; expected.saturating_add(1)];
        let mut len = 0;
        loop {
            match rustix::io::pread(&self.fd, &mut content[len..], len as u64) {
                Ok(0) => break,
                Ok(more) => len += more,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.problem(errno)),
            }
            if len == expected {
                break;
            }
            if limit_bytes < len {
                return Ok(None);
            }
            if len == content.len() {
                content.resize(len.saturating_mul(2).min(limit_bytes.saturating_add(1)), 0);
            }
        }
        content.truncate(len);
        Ok(Some(content))
    }

    /// Returns the next range at or after the offset that is not a hole, within the size the file
    /// had when it was opened; `None` if only a hole is left.
    pub fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, Problem> {
        let size = self.stat.size_bytes;
        if size <= offset {
            return Ok(None);
        }
        let is_sparse = self.stat.blocks.saturating_mul(512) < size;
        if !is_sparse {
            return Ok(Some(offset..size));
        }
        let start = match rustix::fs::seek(&self.fd, SeekFrom::Data(offset)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(None),
            // The file system does not know; zeroes are as good as holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some(offset..size)),
            Err(errno) => return Err(self.problem(errno)),
        };
        let end = match rustix::fs::seek(&self.fd, SeekFrom::Hole(start)) {
            Ok(end) => end.min(size),
            // It was cut short since; reading will tell.
            Err(Errno::NXIO) => size,
            Err(errno) => return Err(self.problem(errno)),
        };
        Ok((start < end).then_some(start..end))
    }

    /// Returns the open file, for readers of another kind.
    pub fn into_file(self) -> File {
        File::from(self.fd)
    }

    /// Returns the extended attributes.
    pub fn xattrs(&self) -> Result<Xattrs, Problem> {
        let xattrs = Handle::open(self.fd.as_fd()).xattrs();
        xattrs.map_err(|errno| self.problem(errno))
    }

    fn problem(&self, errno: Errno) -> Problem {
        Problem::read(&self.path, "read", errno)
    }
}
