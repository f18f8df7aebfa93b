//! The `config` object: what a repository is, readable without a key.
//!
//! `docs/format.md`, section "Config". It is created once and never changes, and the key slots are
//! bound to its bytes: whoever alters it in the store makes every key fail.

use crate::codec::cipher::Suite;
use crate::context::Timestamp;
use crate::format::wire;
use crate::format::wire::Decoded;
use crate::format::wire::Malformed;
use crate::format::wire::Reader;
use crate::id::RepoId;

const MAGIC: [u8; 8] = *b"stconf\r\n";
const VERSION: u64 = 1;
const CHECKSUM_BYTES: usize = 16;

/// What a repository is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Its name for ever.
    pub repo: RepoId,
    /// When it was made.
    pub created_at: Timestamp,
    /// How objects are sealed.
    pub suite: Suite,
    /// The key material of a plain repository, which is public; `None` if it is encrypted.
    pub public_secret: Option<[u8; 32]>,
}

impl Config {
    /// Returns the bytes of the object.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        wire::put_varint(&mut out, VERSION);
        wire::put_field(&mut out, 1, self.repo.as_bytes());
        wire::put_field(&mut out, 3, &[self.suite.number()]);
        wire::put_field(&mut out, 4, &self.created_at.0.to_le_bytes());
        if let Some(secret) = &self.public_secret {
            wire::put_field(&mut out, 5, secret);
        }
        let checksum = checksum(&out);
        out.extend_from_slice(&checksum);
        out
    }

    /// Reads the object. Fields with odd numbers are the features a reader must have.
    pub fn decode(bytes: &[u8]) -> Decoded<Config> {
        let split = bytes
            .len()
            .checked_sub(CHECKSUM_BYTES)
            .ok_or(Malformed::Bytes("cut short"))?;
        let (body, sum) = bytes.split_at(split);
        let mut reader = Reader::new(body);
        if reader.take(MAGIC.len()) != Ok(&MAGIC) {
            return Err(Malformed::Bytes(
                "it is not the configuration of a repository",
            ));
        }
        if checksum(body) != *sum {
            return Err(Malformed::Bytes("its checksum is wrong"));
        }
        match reader.varint()? {
            VERSION => {}
            other => return Err(Malformed::Unknown("repository version", other)),
        }
        let (mut repo, mut suite, mut created_at) = (None, None, Timestamp(0));
        let mut public_secret = None;
        while let Some((number, field)) = reader.field()? {
            match number {
                1 => repo = Some(RepoId(wire::array(field)?)),
                3 => {
                    let [number] = wire::array(field)?;
                    let unknown = Malformed::Unknown("cipher suite", u64::from(number));
                    suite = Some(Suite::from_number(number).ok_or(unknown)?);
                }
                4 => created_at = Timestamp(i64::from_le_bytes(wire::array(field)?)),
                5 => public_secret = Some(wire::array(field)?),
                other => wire::unknown_field(other)?,
            }
        }
        let (Some(repo), Some(suite)) = (repo, suite) else {
            return Err(Malformed::Bytes("it names no repository"));
        };
        if public_secret.is_some() != (suite == Suite::Plain) {
            return Err(Malformed::Bytes("it is both plain and encrypted"));
        }
        Ok(Config {
            repo,
            created_at,
            suite,
            public_secret,
        })
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut checksum = [0; CHECKSUM_BYTES];
    checksum.copy_from_slice(&blake3::hash(bytes).as_bytes()[..CHECKSUM_BYTES]);
    checksum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configs_round_trip_and_notice_every_flipped_bit() {
        let config = Config {
            repo: RepoId([7; 16]),
            created_at: Timestamp(5),
            suite: Suite::Plain,
            public_secret: Some([1; 32]),
        };
        let bytes = config.encode();

        assert_eq!(Config::decode(&bytes), Ok(config));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Config::decode(&bad).is_err(), "bit {bit}");
        }
        (0..bytes.len()).for_each(|len| assert!(Config::decode(&bytes[..len]).is_err()));
    }
}
