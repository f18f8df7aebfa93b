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
/// The field with the keyring, always the last one.
const SEALED: u64 = 7;
/// Bytes of the salt of a slot.
pub const SALT_BYTES: usize = 32;
/// Bytes by which a slot commits to its key.
const COMMITMENT_BYTES: usize = 16;
/// More memory than this is refused, whatever a slot asks for.
const MEMORY_KIB_MAX: u32 = 256 << 10;
const PASSES_MAX: u32 = 16;

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
    /// Returns the generation that seals.
    pub fn newest_generation(&self) -> u32 {
        let generations = self.generations.iter().map(|(generation, _)| *generation);
        generations.max().unwrap_or(0)
    }

    /// Takes over the generations of another keyring that this one lacks.
    pub fn merge(&mut self, other: &Keyring) {
        for (generation, key) in &other.generations {
            if self
                .generations
                .iter()
                .all(|(known, _)| known != generation)
            {
                self.generations.push((*generation, *key));
            }
        }
    }

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
        let mut has_id_secret = false;
        let mut reader = Reader::new(bytes);
        while let Some((number, field)) = reader.field()? {
            match number {
                1 => {
                    keyring.id_secret = wire::array(field)?;
                    has_id_secret = true;
                }
                3 => {
                    let mut field = Reader::new(field);
                    let (generation, key) = (field.u32()?, field.array()?);
                    field.finish()?;
                    // Which of two keys seals, and which opens, would be a matter of chance.
                    if keyring.generations.iter().any(|(g, _)| *g == generation) {
                        return Err(Malformed::Bytes("a keyring has two keys of a generation"));
                    }
                    keyring.generations.push((generation, key));
                }
                other => wire::unknown_field(other)?,
            }
        }
        match has_id_secret && !keyring.generations.is_empty() {
            true => Ok(keyring),
            false => Err(Malformed::Bytes("a keyring lacks a key")),
        }
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
    /// The newest generation of data keys in it, so that others see a rotation they missed.
    pub generation: u32,
    salt: [u8; SALT_BYTES],
    /// Everything before the sealed part as it is stored, fields from the future included:
    /// authenticated with it.
    head: Vec<u8>,
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
            generation: keyring.newest_generation(),
            salt,
            head: Vec::new(),
            sealed: Vec::new(),
        };
        slot.head = slot.encode_head();
        let (key, commitment) = slot.slot_key(credential, binding)?;
        let mut sealed = keyring.encode();
        let tag = key.seal([0; 12], &slot.head, &mut sealed);
        slot.sealed = commitment.to_vec();
        slot.sealed.extend_from_slice(&sealed);
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
        let Some((committed, sealed)) = self.sealed.split_at_checked(COMMITMENT_BYTES) else {
            return Ok(None);
        };
        if !fits || sealed.len() < TAG_BYTES {
            return Ok(None);
        }
        let (key, commitment) = self.slot_key(credential, binding)?;
        // The ciphers do not commit to their key: without this one slot could be made that opens
        // under many passphrases, and each try would tell many of them apart.
        if commitment != committed {
            return Ok(None);
        }
        let mut sealed = Zeroizing::new(sealed.to_vec());
        match key.unseal([0; 12], &self.head, &mut sealed) {
            Some(plain) => Keyring::decode(plain).map(Some),
            None => Ok(None),
        }
    }

    /// Returns the bytes of the object.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.head.clone();
        wire::put_field(&mut out, SEALED, &self.sealed);
        out
    }

    fn encode_head(&self) -> Vec<u8> {
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
        wire::put_number_field(&mut out, 8, u64::from(self.generation));
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
            generation: 0,
            salt: [0; SALT_BYTES],
            head: Vec::new(),
            sealed: Vec::new(),
        };
        let mut has_salt = false;
        loop {
            let head_bytes = bytes.len() - reader.rest().len();
            let Some((number, field)) = reader.field()? else {
                return Err(Malformed::Bytes("a key slot holds nothing sealed"));
            };
            match number {
                1 => {
                    let mut field = Reader::new(field);
                    let (memory_kib, passes) = (field.u32()?, field.u32()?);
                    field.finish()?;
                    slot.derivation = Derivation::Passphrase { memory_kib, passes };
                }
                3 => {
                    slot.salt = wire::array(field)?;
                    has_salt = true;
                }
                4 => slot.created_at = Timestamp(i64::from_le_bytes(wire::array(field)?)),
                6 => slot.label = wire::text(field)?,
                8 => {
                    let generation = u32::try_from(wire::number(field)?);
                    let too_large = Malformed::Bytes("a generation is too large");
                    slot.generation = generation.map_err(|_| too_large)?;
                }
                SEALED => {
                    slot.head = bytes[..head_bytes].to_vec();
                    slot.sealed = field.to_vec();
                    break;
                }
                other => wire::unknown_field(other)?,
            }
        }
        // What stands behind the sealed part would be authenticated by nothing.
        reader.finish()?;
        match has_salt {
            true => Ok(slot),
            false => Err(Malformed::Bytes("a key slot has no salt")),
        }
    }

    fn slot_key(
        &self,
        credential: &Credential,
        binding: Binding<'_>,
    ) -> Decoded<(SegmentKey, [u8; COMMITMENT_BYTES])> {
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
        let mut derived = Zeroizing::new([0; 32 + COMMITMENT_BYTES]);
        hasher.finalize_xof().fill(derived.as_mut());
        let (mut key, mut commitment) = (Zeroizing::new([0; 32]), [0; COMMITMENT_BYTES]);
        key.copy_from_slice(&derived[..32]);
        commitment.copy_from_slice(&derived[32..]);
        Ok((SegmentKey::new(binding.suite, &key), commitment))
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
    fn a_slot_with_a_field_from_the_future_opens_as_it_was_sealed() {
        let secret = Credential::Secret(Zeroizing::new([5; 32]));
        let mut slot = slot(&secret, Derivation::Secret);
        wire::put_field(&mut slot.head, 100, b"from the future");
        let mut sealed = keyring().encode();
        let (key, commitment) = slot.slot_key(&secret, BINDING).unwrap();
        let tag = key.seal([0; 12], &slot.head, &mut sealed);
        slot.sealed = [&commitment[..], &sealed, &tag].concat();
        let bytes = slot.encode();

        let opened = |bytes: &[u8]| Slot::decode(bytes).and_then(|s| s.unseal(&secret, BINDING));
        assert!(opened(&bytes).unwrap() == Some(keyring()));

        let mut appended = bytes.clone();
        wire::put_field(&mut appended, 100, b"by somebody else");
        assert!(opened(&appended).is_err());
        let mut odd = slot.head.clone();
        wire::put_field(&mut odd, 101, b"");
        wire::put_field(&mut odd, SEALED, &slot.sealed);
        let unknown = Some(Malformed::Unknown("field", 101));
        assert_eq!(Slot::decode(&odd).err(), unknown);
    }

    #[test]
    fn keyrings_that_lack_a_key_or_have_one_twice_are_refused() {
        let decoded = |generations: &[u32], id_secret: &[u8]| {
            let mut bytes = Vec::new();
            if !id_secret.is_empty() {
                wire::put_field(&mut bytes, 1, id_secret);
            }
            for generation in generations {
                let field = [&generation.to_le_bytes()[..], &[7; 32]].concat();
                wire::put_field(&mut bytes, 3, &field);
            }
            Keyring::decode(&bytes).is_ok()
        };

        assert!(decoded(&[1, 2], &[1; 32]));
        assert!(!decoded(&[1, 1], &[1; 32]));
        assert!(!decoded(&[], &[1; 32]));
        assert!(!decoded(&[1], &[]));
    }

    #[test]
    fn a_slot_without_salt_or_keyring_is_refused() {
        let secret = Credential::Secret(Zeroizing::new([5; 32]));
        let slot = slot(&secret, Derivation::Secret);
        let mut no_salt = [&MAGIC[..], &[1]].concat();
        wire::put_field(&mut no_salt, SEALED, &slot.sealed);

        assert!(Slot::decode(&slot.head).is_err());
        assert!(Slot::decode(&no_salt).is_err());
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
