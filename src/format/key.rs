//! Key slots: the secrets of a repository, sealed under a key file or a passphrase.
//!
//! `docs/format.md`, section "Keys". A slot is bound to the bytes of `config`, so that a store that
//! alters the one makes the other fail. Slots of one repository hold the same keyring.

use crate::codec::cipher::SegmentKey;
use crate::codec::cipher::Suite;
use crate::codec::cipher::TAG_BYTES;
use crate::context::Timestamp;
use crate::format::wire;
use crate::format::wire::Decoded;
use crate::format::wire::Malformed;
use crate::format::wire::Reader;
use zeroize::Zeroize;
use zeroize::Zeroizing;

const MAGIC: [u8; 8] = *b"stkeys\r\n";
const VERSION: u64 = 1;
/// Bytes of the salt of a slot.
pub const SALT_BYTES: usize = 32;
/// More memory than this is refused, whatever a slot asks for.
const MEMORY_KIB_MAX: u32 = 1 << 20;
const PASSES_MAX: u32 = 64;

/// What makes the key of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Derivation {
    /// 256 random bits, kept in a key file: nothing to slow down.
    Secret,
    /// A passphrase, through Argon2id.
    Passphrase { memory_kib: u32, passes: u32 },
}

/// What a person holds.
pub enum Credential {
    /// The content of a key file.
    Secret(Zeroizing<[u8; 32]>),
    /// A passphrase.
    Passphrase(Zeroizing<Vec<u8>>),
}

/// The secrets of a repository.
#[derive(Clone, PartialEq, Eq)]
pub struct Keyring {
    /// From which the keys of ids, cuts and names come. Never changes.
    pub id_secret: [u8; 32],
    /// Data keys by generation; the highest seals.
    pub generations: Vec<(u32, [u8; 32])>,
}

impl Drop for Keyring {
    fn drop(&mut self) {
        self.id_secret.zeroize();
        self.generations
            .iter_mut()
            .for_each(|(_, key)| key.zeroize());
    }
}

impl Keyring {
    fn encode(&self) -> Zeroizing<Vec<u8>> {
        // Reserved in one go, so that no copy is left behind by growing.
        let mut out = Zeroizing::new(Vec::with_capacity(64 + self.generations.len() * 48));
        wire::put_field(&mut out, 1, &self.id_secret);
        for (generation, key) in &self.generations {
            let mut field = Zeroizing::new(generation.to_le_bytes().to_vec());
            field.extend_from_slice(key);
            wire::put_field(&mut out, 3, &field);
        }
        out
    }

    fn decode(bytes: &[u8]) -> Decoded<Keyring> {
        let mut keyring = Keyring {
            id_secret: [0; 32],
            generations: Vec::new(),
        };
        let mut reader = Reader::new(bytes);
        while let Some((number, field)) = reader.field()? {
            match number {
                1 => keyring.id_secret = wire::array(field)?,
                3 => {
                    let mut field = Reader::new(field);
                    keyring.generations.push((field.u32()?, field.array()?));
                }
                other => wire::unknown_field(other)?,
            }
        }
        Ok(keyring)
    }
}

/// A key slot as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// What opens it.
    pub derivation: Derivation,
    /// When it was made.
    pub created_at: Timestamp,
    /// What a person calls it.
    pub label: String,
    salt: [u8; SALT_BYTES],
    sealed: Vec<u8>,
}

/// What a slot is sealed with besides the credential.
#[derive(Clone, Copy)]
pub struct Binding<'a> {
    /// The stored bytes of the repository's configuration.
    pub config: &'a [u8],
    /// The suite of the repository, which must encrypt.
    pub suite: Suite,
}

impl Slot {
    /// Seals a keyring. The salt must be fresh randomness.
    pub fn seal(
        keyring: &Keyring,
        credential: &Credential,
        derivation: Derivation,
        label: (String, Timestamp),
        salt: [u8; SALT_BYTES],
        binding: Binding<'_>,
    ) -> Decoded<Slot> {
        let (label, created_at) = label;
        let mut slot = Slot {
            derivation,
            created_at,
            label,
            salt,
            sealed: Vec::new(),
        };
        let key = slot.slot_key(credential, binding)?;
        let mut sealed = keyring.encode();
        let tag = key.seal([0; 12], &slot.head(), &mut sealed);
        slot.sealed = sealed.to_vec();
        slot.sealed.extend_from_slice(&tag);
        Ok(slot)
    }

    /// Opens the slot; `None` if this is not its credential.
    pub fn unseal(
        &self,
        credential: &Credential,
        binding: Binding<'_>,
    ) -> Decoded<Option<Keyring>> {
        let fits = matches!(
            (credential, self.derivation),
            (Credential::Secret(_), Derivation::Secret)
                | (Credential::Passphrase(_), Derivation::Passphrase { .. })
        );
        if !fits || self.sealed.len() < TAG_BYTES {
            return Ok(None);
        }
        let key = self.slot_key(credential, binding)?;
        let mut sealed = Zeroizing::new(self.sealed.clone());
        match key.unseal([0; 12], &self.head(), &mut sealed) {
            Some(plain) => Keyring::decode(plain).map(Some),
            None => Ok(None),
        }
    }

    /// Returns the bytes of the object.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.head();
        wire::put_field(&mut out, 7, &self.sealed);
        out
    }

    /// Everything before the sealed part; authenticated with it.
    fn head(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        wire::put_varint(&mut out, VERSION);
        match self.derivation {
            Derivation::Secret => {}
            Derivation::Passphrase { memory_kib, passes } => {
                let mut field = memory_kib.to_le_bytes().to_vec();
                field.extend_from_slice(&passes.to_le_bytes());
                wire::put_field(&mut out, 1, &field);
            }
        }
        wire::put_field(&mut out, 3, &self.salt);
        wire::put_field(&mut out, 4, &self.created_at.0.to_le_bytes());
        wire::put_field(&mut out, 6, self.label.as_bytes());
        out
    }

    /// Reads the object.
    pub fn decode(bytes: &[u8]) -> Decoded<Slot> {
        let mut reader = Reader::new(bytes);
        if reader.take(MAGIC.len()) != Ok(&MAGIC) {
            return Err(Malformed::Bytes("it is not a key slot"));
        }
        match reader.varint()? {
            VERSION => {}
            other => return Err(Malformed::Unknown("key version", other)),
        }
        let mut slot = Slot {
            derivation: Derivation::Secret,
            created_at: Timestamp(0),
            label: String::new(),
            salt: [0; SALT_BYTES],
            sealed: Vec::new(),
        };
        while let Some((number, field)) = reader.field()? {
            match number {
                1 => {
                    let mut field = Reader::new(field);
                    let (memory_kib, passes) = (field.u32()?, field.u32()?);
                    slot.derivation = Derivation::Passphrase { memory_kib, passes };
                }
                3 => slot.salt = wire::array(field)?,
                4 => slot.created_at = Timestamp(i64::from_le_bytes(wire::array(field)?)),
                6 => slot.label = wire::text(field)?,
                7 => slot.sealed = field.to_vec(),
                other => wire::unknown_field(other)?,
            }
        }
        Ok(slot)
    }

    fn slot_key(&self, credential: &Credential, binding: Binding<'_>) -> Decoded<SegmentKey> {
        let mut material = Zeroizing::new([0; 32]);
        match (credential, self.derivation) {
            (Credential::Secret(secret), _) => *material = **secret,
            (Credential::Passphrase(passphrase), Derivation::Passphrase { memory_kib, passes }) => {
                stretch(passphrase, &self.salt, memory_kib, passes, &mut material)?;
            }
            (Credential::Passphrase(_), Derivation::Secret) => {
                return Err(Malformed::Bytes("a passphrase needs parameters"));
            }
        }
        let mut hasher = blake3::Hasher::new_derive_key("statekeep 2026-11 key slot");
        hasher
            .update(material.as_ref())
            .update(&self.salt)
            .update(binding.config);
        let key = Zeroizing::new(*hasher.finalize().as_bytes());
        Ok(SegmentKey::new(binding.suite, &key))
    }
}

fn stretch(
    passphrase: &[u8],
    salt: &[u8],
    memory_kib: u32,
    passes: u32,
    out: &mut [u8; 32],
) -> Decoded<()> {
    if memory_kib > MEMORY_KIB_MAX || passes > PASSES_MAX {
        return Err(Malformed::Bytes(
            "a key slot asks for too much memory or time",
        ));
    }
    let parameters = argon2::Params::new(memory_kib, passes, 1, Some(32));
    let parameters = parameters.map_err(|_| Malformed::Bytes("impossible key parameters"))?;
    argon2::Argon2::new(
        argon2::Algorithm::Argon2id,
        argon2::Version::V0x13,
        parameters,
    )
    .hash_password_into(passphrase, salt, out)
    .map_err(|_| Malformed::Bytes("impossible key parameters"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BINDING: Binding<'_> = Binding {
        config: b"config",
        suite: Suite::Aes256Gcm,
    };

    fn keyring() -> Keyring {
        Keyring {
            id_secret: [1; 32],
            generations: vec![(1, [2; 32]), (2, [3; 32])],
        }
    }

    fn slot(credential: &Credential, derivation: Derivation) -> Slot {
        let label = ("desk".to_string(), Timestamp(9));
        Slot::seal(&keyring(), credential, derivation, label, [4; 32], BINDING).unwrap()
    }

    #[test]
    fn a_slot_opens_with_its_credential_its_config_and_nothing_else() {
        let secret = Credential::Secret(Zeroizing::new([5; 32]));
        let other = Credential::Secret(Zeroizing::new([6; 32]));
        let passphrase = Credential::Passphrase(Zeroizing::new(b"correct".to_vec()));
        let slow = Derivation::Passphrase {
            memory_kib: 64,
            passes: 1,
        };

        for (credential, derivation) in [(&secret, Derivation::Secret), (&passphrase, slow)] {
            let slot = Slot::decode(&slot(credential, derivation).encode()).unwrap();
            assert!(slot.unseal(credential, BINDING).unwrap() == Some(keyring()));
            assert!(slot.unseal(&other, BINDING).unwrap().is_none());
            let moved = Binding {
                config: b"altered",
                ..BINDING
            };
            assert!(slot.unseal(credential, moved).unwrap().is_none());
        }
    }

    #[test]
    fn every_flipped_bit_closes_a_slot() {
        let secret = Credential::Secret(Zeroizing::new([5; 32]));
        let bytes = slot(&secret, Derivation::Secret).encode();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let opened = Slot::decode(&bad).and_then(|slot| slot.unseal(&secret, BINDING));
            assert!(!matches!(opened, Ok(Some(_))), "bit {bit}");
        }
    }

    #[test]
    fn a_slot_cannot_ask_for_the_whole_memory() {
        let passphrase = Credential::Passphrase(Zeroizing::new(b"x".to_vec()));
        let mut greedy = slot(
            &passphrase,
            Derivation::Passphrase {
                memory_kib: 64,
                passes: 1,
            },
        );
        greedy.derivation = Derivation::Passphrase {
            memory_kib: u32::MAX,
            passes: 1,
        };

        assert!(greedy.unseal(&passphrase, BINDING).is_err());
    }
}
