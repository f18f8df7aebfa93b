//! The members of an archive, one after the other, whatever it is packed by.

use crate::codec::gzip;
use crate::codec::sha256::Sha256Sum;
use crate::codec::zstd;
use crate::error::Error;
use crate::error::Result;
use crate::ops::archive::Format;
use crate::ops::archive::Member;
use crate::ops::archive::bytes::Bytes;
use crate::ops::archive::bytes::Passphrase;
use crate::ops::archive::tar_reader;
use crate::ops::archive::zip_reader;
use std::fs::File;
use std::io;
use std::io::BufReader;
use std::io::ErrorKind;
use std::io::Read;
use std::path::Path;

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
    bytes: Bytes,
    /// How it is packed.
    pub format: Format,
    /// How long it is; of an encrypted one, what was encrypted.
    pub archive_bytes: u64,
}

impl Archive {
    /// Opens a file, with a passphrase if it is encrypted; `None` if it is no archive.
    pub fn open(path: &Path, passphrase: Option<&Passphrase>) -> Result<Option<Archive>> {
        Archive::of_bytes(Bytes::open(path, passphrase)?).map(Result::ok)
    }

    /// Returns an open file as an archive; `None` if it is none. The path is for errors.
    pub fn of_file(file: File, path: &Path) -> Result<Option<Archive>> {
        Archive::of_bytes(Bytes::of_file(file, path, None)?).map(Result::ok)
    }

    /// Takes bytes for an archive, or gives them back if they are none.
    pub fn of_bytes(bytes: Bytes) -> Result<Result<Archive, Bytes>> {
        let mut head = Vec::new();
        let read = bytes
            .reader()
            .take(HEAD_BYTES as u64)
            .read_to_end(&mut head);
        read.map_err(|error| read_error(&bytes.path().display().to_string())(error))?;
        let format = match head[..] {
            [0x1f, 0x8b, ..] => Format::TarGz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Format::TarZst,
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Format::Zip,
            _ if head.get(TAR_MAGIC) == Some(b"ustar") => Format::Tar,
            _ => return Ok(Err(bytes)),
        };
        Ok(Ok(Archive {
            archive_bytes: bytes.len(),
            bytes,
            format,
        }))
    }

    /// Returns the file.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Returns what it is called in errors.
    pub(in crate::ops) fn name(&self) -> String {
        self.bytes.path().display().to_string()
    }

    /// Returns the sum of the file.
    pub fn sha256(&self) -> Result<Sha256Sum> {
        self.bytes.sha256()
    }

    /// Calls `visit` with every member.
    pub(in crate::ops) fn read(&self, visit: &mut Visit<'_>) -> Result<()> {
        let name = &self.name();
        let packed = BufReader::with_capacity(BUFFER_BYTES, self.bytes.reader());
        let mut plain: Box<dyn Read + '_> = match self.format {
            Format::Zip => return zip_reader::read(name, &self.bytes, visit),
            Format::Tar => Box::new(packed),
            Format::TarGz => Box::new(gzip::members(packed)),
            Format::TarZst => Box::new(zstd::FrameReader::new(packed)),
        };
        let mut plain = BufReader::with_capacity(BUFFER_BYTES, &mut plain);
        tar_reader::read(name, &mut plain, visit)
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
