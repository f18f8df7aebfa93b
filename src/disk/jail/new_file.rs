//! A file on its way to its name below a jail.

use crate::disk::attributes;
use crate::disk::attributes::Handle;
use crate::disk::beneath;
use crate::disk::jail::Replace;
use crate::disk::jail::Temp;
use crate::disk::node::Attributes;
use crate::disk::node::Problem;
use crate::error::Error;
use crate::error::Result;
use crate::safeguard::Safeguard;
use rustix::fd::AsFd;
use rustix::fd::OwnedFd;
use rustix::fs::Advice;
use rustix::io::Errno;
use std::num::NonZeroU64;
use std::ops::Range;

/// A file that is being written and has no name of its own yet. Dropped unfinished it disappears.
#[derive(Debug)]
pub struct NewFile<'a> {
    pub(super) temp: Temp<'a>,
    pub(super) fd: OwnedFd,
}

impl NewFile<'_> {
    /// Writes at an offset. What is skipped becomes a hole.
    pub fn write_at(&self, mut offset: u64, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match rustix::io::pwrite(&self.fd, bytes, offset) {
                Err(Errno::INTR) => {}
                Ok(0) => return Err(self.error("write", Errno::IO)),
                Ok(len) => {
                    bytes = &bytes[len..];
                    offset += len as u64;
                }
                Err(errno) => return Err(self.error("write", errno)),
            }
        }
        Ok(())
    }

    /// Lets the kernel begin to write back what was written, so that the sync at the end finds
    /// less to do. A hint: it promises nothing and cannot fail.
    pub fn begin_writeback(&self, range: Range<u64>) {
        let len = NonZeroU64::new(range.end.saturating_sub(range.start));
        // The kernel starts with the dirty pages of a range that is said to be needed no more.
        // Those stay in memory until they are written, and mostly after.
        let _ = rustix::fs::fadvise(&self.fd, range.start, len, Advice::DontNeed);
    }

    /// Sets the length, which a hole at the end needs.
    pub fn set_len(&self, len: u64) -> Result<()> {
        if !Safeguard::EndHoleKept.holds() {
            return Ok(());
        }
        rustix::fs::ftruncate(&self.fd, len).map_err(|errno| self.error("write", errno))
    }

    /// Sets the attributes and gives the file its name; returns what could not be set.
    pub fn finish(mut self, attributes: &Attributes, replace: Replace) -> Result<Vec<Problem>> {
        let stat = beneath::fstat(&self.fd).map_err(|errno| self.error("read", errno))?;
        let handle = Handle::open(self.fd.as_fd());
        let problems = attributes::apply(&handle, &stat, &self.temp.path, attributes);
        self.temp.publish(replace)?;
        Ok(problems)
    }

    fn error(&self, action: &'static str, errno: Errno) -> Error {
        self.temp.jail.error(action, &self.temp.path, errno)
    }
}
