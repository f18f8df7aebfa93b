//! The members of an archive, one after the other, whatever it is packed by.

use crate::codec::age_file;
use crate::codec::gzip;
use crate::codec::sha256::Sha256Sum;
use crate::codec::zstd;
use crate::error::Error;
use crate::error::Result;
use crate::ops::archive::Format;
use crate::ops::archive::Member;
use crate::ops::archive::tar_reader;
use crate::ops::archive::zip_reader;
use std::fs::File;
use std::io;
use std::io::BufReader;
use std::io::ErrorKind;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;

const BUFFER_BYTES: usize = 256 << 10;
/// Where the magic of a tar is, and how far its first header goes.
const TAR_MAGIC: std::ops::Range<usize> = 257..262;
const HEAD_BYTES: usize = 512;

/// Takes a member and its content. What it leaves of the content is skipped. Paths are as the
/// archive has them, and may be anything.
pub(in crate::ops) type Visit<'v> = dyn FnMut(Member, &mut dyn Read) -> Result<()> + 'v;

/// An archive that is open.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    file: File,
    /// How it is packed.
    pub format: Format,
    /// How long it is.
    pub archive_bytes: u64,
}

impl Archive {
    /// Opens a file; `None` if it is no archive.
    pub fn open(path: &Path) -> Result<Option<Archive>> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        Archive::of_file(file, path)
    }

    /// Returns an open file as an archive; `None` if it is none. The path is for errors.
    pub fn of_file(file: File, path: &Path) -> Result<Option<Archive>> {
        let metadata = file.metadata().map_err(Error::io("read", path))?;
        if !metadata.is_file() {
            let reason = format!("{} is no regular file", path.display());
            return Err(Error::Refused { reason });
        }
        let mut head = Vec::new();
        let read = At::new(&file)
            .take(HEAD_BYTES as u64)
            .read_to_end(&mut head);
        read.map_err(Error::io("read", path))?;
        if head.starts_with(age_file::MAGIC) {
            let reason = format!("{} is encrypted with age", path.display());
            return Err(Error::Refused { reason });
        }
        let format = match head[..] {
            [0x1f, 0x8b, ..] => Format::TarGz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Format::TarZst,
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Format::Zip,
            _ if head.get(TAR_MAGIC) == Some(b"ustar") => Format::Tar,
            _ => return Ok(None),
        };
        Ok(Some(Archive {
            path: path.to_path_buf(),
            file,
            format,
            archive_bytes: metadata.len(),
        }))
    }

    /// Returns what it is called in errors.
    pub(in crate::ops) fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Returns the sum of the file.
    pub fn sha256(&self) -> Result<Sha256Sum> {
        let sum = Sha256Sum::of_reader(At::new(&self.file));
        sum.map_err(Error::io("read", &self.path))
    }

    /// Calls `visit` with every member.
    pub(in crate::ops) fn read(&self, visit: &mut Visit<'_>) -> Result<()> {
        let name = &self.name();
        let packed = BufReader::with_capacity(BUFFER_BYTES, At::new(&self.file));
        match self.format {
            Format::Zip => {
                let file = self
                    .file
                    .try_clone()
                    .map_err(Error::io("open", &self.path))?;
                zip_reader::read(name, file, self.archive_bytes, visit)
            }
            Format::Tar => tar_reader::read(name, &mut { packed }, visit),
            Format::TarGz => {
                let plain = gzip::members(packed);
                tar_reader::read(
                    name,
                    &mut BufReader::with_capacity(BUFFER_BYTES, plain),
                    visit,
                )
            }
            Format::TarZst => {
                let plain = zstd::FrameReader::new(packed);
                tar_reader::read(
                    name,
                    &mut BufReader::with_capacity(BUFFER_BYTES, plain),
                    visit,
                )
            }
        }
    }
}

/// Reads a file from its beginning on, wherever others read it.
struct At<'f> {
    file: &'f File,
    offset: u64,
}

impl At<'_> {
    fn new(file: &File) -> At<'_> {
        At { file, offset: 0 }
    }
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.file.read_at(buffer, self.offset)?;
        self.offset += len as u64;
        Ok(len)
    }
}

/// Returns the error of an archive whose bytes are wrong.
pub(in crate::ops) fn damaged(name: &str, reason: &str) -> Error {
    Error::corrupt(name, reason)
}

/// Returns the error of an archive that is not unpacked, because of what it says.
pub(in crate::ops) fn refused(name: &str, reason: &str) -> Error {
    let reason = format!("{name} is refused as a whole: {reason}");
    Error::Refused { reason }
}

/// Tells an archive that is wrong from a disk that fails.
pub(in crate::ops) fn read_error(name: &str) -> impl Fn(io::Error) -> Error + '_ {
    move |error| match (error.raw_os_error(), error.kind()) {
        (Some(_), _) => Error::io("read", name)(error),
        (None, ErrorKind::UnexpectedEof) => damaged(name, "it ends too early"),
        (None, _) => damaged(name, &error.to_string()),
    }
}
