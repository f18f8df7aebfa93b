//! Files encrypted by a passphrase in the age format, which `age` and `rage` open.
//!
//! The key comes from the passphrase through scrypt with a fresh salt: the same bytes never give
//! the same file twice. How much work that is, is written in the file, and is bounded: whoever made
//! it may mean harm.

use age::DecryptError;
use age::Decryptor;
use age::Encryptor;
use age::Identity;
use age::scrypt;
use age::secrecy::SecretString;
use std::io;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::io::Write;
use std::iter;

/// How every such file begins.
pub const MAGIC: &[u8] = b"age-encryption.org/v1\n";

/// The work that `age` itself takes: 256 MiB, about a second. The library would measure this
/// machine, and take less while it is busy.
const WORK_LOG: u8 = 18;
/// More than this is not done: a gigabyte of memory, some seconds.
const WORK_LOG_MAX: u8 = 20;

/// Encrypts what is written to it. What was not finished does not decrypt.
pub struct Sealer<W: Write>(age::stream::StreamWriter<W>);

/// Begins a file.
pub fn seal<W: Write>(passphrase: &str, out: W) -> io::Result<Sealer<W>> {
    let mut recipient = scrypt::Recipient::new(SecretString::from(passphrase.to_string()));
    recipient.set_work_factor(WORK_LOG);
    let encryptor = Encryptor::with_recipients(iter::once(&recipient as &dyn age::Recipient));
    let encryptor = encryptor.expect("invariant: one recipient is given");
    encryptor.wrap_output(out).map(Sealer)
}

/// Why a file does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The passphrase is another one.
    #[error("the passphrase does not open it")]
    WrongPassphrase,
    /// It is encrypted for keys, not by a passphrase.
    #[error("it is encrypted for a key, and not by a passphrase")]
    NoPassphrase,
    /// It asks for more work than is done.
    #[error("opening it takes more than a gigabyte of memory (work factor {0})")]
    TooMuchWork(u8),
    /// It is not what was written.
    #[error("{0}")]
    Damaged(String),
    /// It cannot be read.
    #[error(transparent)]
    Io(io::Error),
}

/// Reads what a file holds, from any place of it. Bytes are verified before they are given.
pub struct Opened<R> {
    stream: age::stream::StreamReader<R>,
    offset: u64,
    plain_bytes: u64,
}

/// Opens a file. The last bytes of it are verified, so its length is what was written.
pub fn open<R: Read + Seek>(passphrase: &str, sealed: R) -> Result<Opened<R>, OpenError> {
    let mut identity = scrypt::Identity::new(SecretString::from(passphrase.to_string()));
    identity.set_max_work_factor(WORK_LOG_MAX);
    let decryptor = Decryptor::new(sealed).map_err(failed)?;
    let stream = decryptor.decrypt(iter::once(&identity as &dyn Identity));
    let mut stream = stream.map_err(failed)?;
    let of_stream = |error| failed(DecryptError::Io(error));
    let plain_bytes = stream.seek(SeekFrom::End(0)).map_err(of_stream)?;
    stream.seek(SeekFrom::Start(0)).map_err(of_stream)?;
    Ok(Opened {
        stream,
        offset: 0,
        plain_bytes,
    })
}

fn failed(error: DecryptError) -> OpenError {
    match error {
        DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed => {
            OpenError::WrongPassphrase
        }
        DecryptError::NoMatchingKeys => OpenError::NoPassphrase,
        DecryptError::ExcessiveWork { required, .. } => OpenError::TooMuchWork(required),
        DecryptError::Io(error) if error.raw_os_error().is_some() => OpenError::Io(error),
        DecryptError::Io(error) => match error.kind() {
            ErrorKind::UnexpectedEof => OpenError::Damaged("it ends too early".to_string()),
            _ => OpenError::Damaged(error.to_string()),
        },
        error => OpenError::Damaged(error.to_string()),
    }
}

impl<R> Opened<R> {
    /// Returns how many bytes it holds.
    pub fn plain_bytes(&self) -> u64 {
        self.plain_bytes
    }
}

impl<R: Read + Seek> Opened<R> {
    /// Reads bytes from a place, none at the end.
    pub fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        // Reading nothing at the beginning of a part makes the library forget that part, and give
        // the next one in its place.
        if offset >= self.plain_bytes || buffer.is_empty() {
            return Ok(0);
        }
        if offset != self.offset {
            // What fails leaves the stream anywhere.
            self.offset = u64::MAX;
            self.stream.seek(SeekFrom::Start(offset))?;
            self.offset = offset;
        }
        let len = self.stream.read(buffer)?;
        self.offset += len as u64;
        Ok(len)
    }
}

impl<W: Write> Sealer<W> {
    /// Ends the file.
    pub fn finish(self) -> io::Result<()> {
        self.0.finish().map(drop)
    }
}

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// Seals with little work.
    fn sealed(plain: &[u8], work_log: u8) -> Vec<u8> {
        let mut recipient = scrypt::Recipient::new(SecretString::from("correct horse".to_string()));
        recipient.set_work_factor(work_log);
        let recipients = iter::once(&recipient as &dyn age::Recipient);
        let mut file = Vec::new();
        let out = Encryptor::with_recipients(recipients).unwrap();
        let mut sealer = out.wrap_output(&mut file).unwrap();
        sealer.write_all(plain).unwrap();
        sealer.finish().unwrap();
        file
    }

    fn read(passphrase: &str, file: &[u8]) -> Result<Vec<u8>, OpenError> {
        let mut opened = open(passphrase, Cursor::new(file))?;
        let mut plain = vec![0; opened.plain_bytes() as usize];
        let mut at = 0;
        while at < plain.len() {
            let read = opened.read_at(&mut plain[at..], at as u64);
            at += read.map_err(OpenError::Io)?;
        }
        Ok(plain)
    }

    #[test]
    fn a_file_opens_with_its_passphrase_and_no_other_and_not_in_part() {
        let mut file = Vec::new();
        let mut sealer = seal("correct horse", &mut file).unwrap();
        sealer.write_all(&[7; 100_000]).unwrap();
        sealer.finish().unwrap();

        assert!(file.starts_with(MAGIC));
        assert_eq!(read("correct horse", &file).unwrap(), vec![7; 100_000]);

        let file = sealed(&[7; 200_000], 1);
        assert!(matches!(
            read("wrong", &file),
            Err(OpenError::WrongPassphrase)
        ));
        for len in [10, 60, 150, file.len() - 70_000, file.len() - 1] {
            let cut = read("correct horse", &file[..len]);
            assert!(matches!(cut, Err(OpenError::Damaged(_))), "{len} {cut:?}");
        }
        let longer = [&file[..], b"x"].concat();
        assert!(read("correct horse", &longer).is_err());
    }

    #[test]
    fn any_place_is_read_whatever_the_length_is() {
        const CHUNK: usize = 64 << 10;
        for len in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let plain: Vec<u8> = (0..len).map(|n| (n / 251) as u8 ^ n as u8).collect();
            let file = sealed(&plain, 1);

            assert_eq!(read("correct horse", &file).unwrap(), plain, "{len}");
            let mut opened = open("correct horse", Cursor::new(&file[..])).unwrap();
            for offset in [len, 0, len / 2, CHUNK, len.saturating_sub(1), 0, CHUNK - 1] {
                let mut byte = [0];
                assert_eq!(opened.read_at(&mut [], offset as u64).unwrap(), 0);
                let read = opened.read_at(&mut byte, offset as u64).unwrap();
                assert_eq!(read, usize::from(offset < len), "{len} {offset}");
                if read == 1 {
                    assert_eq!(byte[0], plain[offset], "{len} {offset}");
                }
            }
        }
    }

    #[test]
    fn work_without_end_is_not_begun() {
        let file = sealed(b"x", 1);
        let text = String::from_utf8_lossy(&file).into_owned();
        let line = text.lines().nth(1).unwrap();
        let more = line.trim_end_matches('1').to_string() + "30";
        let file = [MAGIC, more.as_bytes(), &file[MAGIC.len() + line.len()..]].concat();

        let refused = read("correct horse", &file);

        assert!(matches!(refused, Err(OpenError::TooMuchWork(30))));
    }
}
