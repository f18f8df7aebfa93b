//! SHA-256, for what people verify with tools of their own. Inside of repositories BLAKE3 is used.

use sha2::Digest;
use sha2::Sha256;
use std::fmt;
use std::io;
use std::io::Read;
use std::io::Write;

/// Bytes read at once.
const BUFFER_BYTES: usize = 256 << 10;

/// The SHA-256 of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256Sum(pub [u8; 32]);

impl Sha256Sum {
    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Sha256Sum> {
        let digits = text.as_bytes();
        let mut sum = [0; 32];
        if digits.len() != 2 * sum.len() {
            return None;
        }
        for (byte, pair) in sum.iter_mut().zip(digits.chunks(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16);
            *byte = u8::try_from(digit(0)? << 4 | digit(1)?).ok()?;
        }
        Some(Sha256Sum(sum))
    }

    /// Reads everything there is and returns its sum.
    pub fn of_reader(mut reader: impl Read) -> io::Result<Sha256Sum> {
        let mut hasher = Sha256Hasher::new();
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(hasher.sum()),
                Ok(len) => hasher.update(&buffer[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl fmt::Display for Sha256Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Sums up bytes as they come.
#[derive(Debug, Clone, Default)]
pub struct Sha256Hasher(Sha256);

impl Sha256Hasher {
    /// Returns the hasher of nothing so far.
    pub fn new() -> Sha256Hasher {
        Sha256Hasher::default()
    }

    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the sum of all bytes.
    pub fn sum(self) -> Sha256Sum {
        Sha256Sum(self.0.finalize().into())
    }
}

/// Passes bytes on, and knows how many they were and what they sum up to.
pub struct Summing<W> {
    /// Where they go.
    pub inner: W,
    /// How many they were.
    pub bytes: u64,
    hasher: Sha256Hasher,
}

impl<W> Summing<W> {
    /// Returns one that passes bytes on to `inner`.
    pub fn new(inner: W) -> Summing<W> {
        Summing {
            inner,
            bytes: 0,
            hasher: Sha256Hasher::new(),
        }
    }

    /// Returns the sum of what went through.
    pub fn sum(&self) -> Sha256Sum {
        self.hasher.clone().sum()
    }
}

impl<W: Write> Write for Summing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..len]);
        self.bytes += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Summing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..len]);
        self.bytes += len as u64;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn sums_are_those_of_the_standard_and_read_back() {
        let mut summing = Summing::new(Vec::new());
        summing.write_all(b"ab").unwrap();
        summing.write_all(b"c").unwrap();

        assert_eq!(summing.sum().to_string(), OF_ABC);
        assert_eq!((summing.bytes, &summing.inner[..]), (3, &b"abc"[..]));
        assert_eq!(
            Sha256Sum::of_reader(&b"abc"[..]).unwrap(),
            Sha256Sum::parse(OF_ABC).unwrap()
        );
        for bad in ["", "ba78", &OF_ABC.replace('b', "g"), &format!("{OF_ABC}0")] {
            assert_eq!(Sha256Sum::parse(bad), None);
        }
    }
}
