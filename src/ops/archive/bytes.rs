//! The bytes of a file that may be an archive, from any place of it; of an encrypted one, those
//! that were encrypted. Nothing decrypted is ever written.

use crate::codec::age_file;
use crate::codec::age_file::OpenError;
use crate::codec::age_file::Opened;
use crate::codec::sha256::Sha256Sum;
use crate::error::Error;
use crate::error::Result;
use crate::ops::archive::members::damaged;
use crate::ops::archive::members::refused;
use std::fmt;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use zeroize::Zeroizing;

/// What the name of an encrypted file ends with.
pub const AGE_SUFFIX: &str = ".age";

/// What an archive is encrypted with.
pub type Passphrase = Zeroizing<String>;

/// A file that is open.
pub struct Bytes {
    path: PathBuf,
    file: File,
    /// How long the file is.
    pub file_bytes: u64,
    opened: Option<Mutex<Opened<At>>>,
    len: u64,
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({})", self.path.display())
    }
}

/// Returns whether a file is encrypted.
pub fn is_encrypted(path: &Path) -> Result<bool> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    match file.metadata().map_err(Error::io("read", path))?.is_file() {
        true => begins_encrypted(&file, path),
        false => Ok(false),
    }
}

fn begins_encrypted(file: &File, path: &Path) -> Result<bool> {
    let mut head = Vec::new();
    let head_bytes = age_file::MAGIC.len() as u64;
    let read = At::of(file, path)?.take(head_bytes).read_to_end(&mut head);
    read.map_err(Error::io("read", path))?;
    Ok(head == age_file::MAGIC)
}

impl Bytes {
    /// Opens a file, with a passphrase if it is encrypted.
    pub fn open(path: &Path, passphrase: Option<&Passphrase>) -> Result<Bytes> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        Bytes::of_file(file, path, passphrase)
    }

    /// Takes an open file. The path is for errors.
    pub fn of_file(file: File, path: &Path, passphrase: Option<&Passphrase>) -> Result<Bytes> {
        let metadata = file.metadata().map_err(Error::io("read", path))?;
        if !metadata.is_file() {
            let reason = format!("{} is no regular file", path.display());
            return Err(Error::Refused { reason });
        }
        let opened = match begins_encrypted(&file, path)? {
            true => Some(unseal(&file, path, passphrase)?),
            false => None,
        };
        let file_bytes = metadata.len();
        Ok(Bytes {
            path: path.to_path_buf(),
            file,
            file_bytes,
            len: opened.as_ref().map_or(file_bytes, Opened::plain_bytes),
            opened: opened.map(Mutex::new),
        })
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns how many bytes are to be read.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns whether the file is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.opened.is_some()
    }

    /// Returns the sum of the file as it is.
    pub fn sha256(&self) -> Result<Sha256Sum> {
        let sum = At::of(&self.file, &self.path).map(Sha256Sum::of_reader)?;
        sum.map_err(Error::io("read", &self.path))
    }

    /// Reads from a place on, none at the end.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match &self.opened {
            None => self.file.read_at(buffer, offset),
            Some(opened) => {
                // A reader that panicked left the place it was at, which the next one sets anew.
                let mut opened = opened.lock().unwrap_or_else(PoisonError::into_inner);
                opened.read_at(buffer, offset)
            }
        }
    }

    /// Returns a reader from the beginning on, wherever others read.
    pub fn reader(&self) -> impl Read {
        FromStart {
            bytes: self,
            offset: 0,
        }
    }
}

fn unseal(file: &File, path: &Path, passphrase: Option<&Passphrase>) -> Result<Opened<At>> {
    let name = path.display().to_string();
    let Some(passphrase) = passphrase else {
        let reason = format!("{name} is encrypted with age, and no passphrase for it is given");
        return Err(Error::WrongKey { reason });
    };
    let opened = age_file::open(passphrase, At::of(file, path)?);
    opened.map_err(|error| match error {
        OpenError::WrongPassphrase => Error::WrongKey {
            reason: format!("the passphrase does not open {name}"),
        },
        OpenError::NoPassphrase => Error::WrongKey {
            reason: format!("{name} is encrypted for a key, and not by a passphrase"),
        },
        OpenError::TooMuchWork(_) => refused(&name, &error.to_string()),
        OpenError::Damaged(reason) => damaged(&name, &reason),
        OpenError::Io(source) => Error::io("read", path)(source),
    })
}

/// A file from its beginning on, wherever others read it.
struct At {
    file: File,
    file_bytes: u64,
    offset: u64,
}

impl At {
    fn of(file: &File, path: &Path) -> Result<At> {
        let metadata = file.metadata().map_err(Error::io("read", path))?;
        Ok(At {
            file: file.try_clone().map_err(Error::io("open", path))?,
            file_bytes: metadata.len(),
            offset: 0,
        })
    }
}

impl Read for At {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.file.read_at(buffer, self.offset)?;
        self.offset += len as u64;
        Ok(len)
    }
}

impl Seek for At {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(by) => self.file_bytes.checked_add_signed(by),
            SeekFrom::Current(by) => self.offset.checked_add_signed(by),
        };
        self.offset = to.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.offset)
    }
}

struct FromStart<'b> {
    bytes: &'b Bytes,
    offset: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.bytes.read_at(buffer, self.offset)?;
        self.offset += len as u64;
        Ok(len)
    }
}
