//! Files encrypted by a passphrase in the age format, which `age` and `rage` open.
//!
//! The key comes from the passphrase through scrypt with a fresh salt: the same bytes never give
//! the same file twice.

use age::Encryptor;
use age::secrecy::SecretString;
use std::io;
use std::io::Write;

/// How every such file begins.
pub const MAGIC: &[u8] = b"age-encryption.org/v1\n";

/// Encrypts what is written to it. What was not finished does not decrypt.
pub struct Sealer<W: Write>(age::stream::StreamWriter<W>);

/// Begins a file.
pub fn seal<W: Write>(passphrase: &str, out: W) -> io::Result<Sealer<W>> {
    let secret = SecretString::from(passphrase.to_string());
    let encryptor = Encryptor::with_user_passphrase(secret);
    encryptor.wrap_output(out).map(Sealer)
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
    use std::io::Read;

    #[test]
    fn a_file_opens_with_its_passphrase_and_no_other_and_not_in_part() {
        let mut file = Vec::new();
        let mut sealer = seal("correct horse", &mut file).unwrap();
        sealer.write_all(&[7; 100_000]).unwrap();
        sealer.finish().unwrap();

        let read = |passphrase: &str, file: &[u8]| {
            let secret = SecretString::from(passphrase.to_string());
            let identity = age::scrypt::Identity::new(secret);
            let decryptor = age::Decryptor::new(file).unwrap();
            let mut reader = decryptor
                .decrypt(std::iter::once(&identity as &dyn age::Identity))
                .map_err(|error| error.to_string())?;
            let mut plain = Vec::new();
            let read = reader.read_to_end(&mut plain);
            read.map(|_| plain).map_err(|error| error.to_string())
        };
        assert!(file.starts_with(MAGIC));
        assert_eq!(read("correct horse", &file).unwrap(), vec![7; 100_000]);
        assert!(read("correct horse", &file[..file.len() - 1]).is_err());
        assert!(read("wrong", &file).is_err());
    }
}
