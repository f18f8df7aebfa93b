//! Sealing one segment: AES-256-GCM, ChaCha20-Poly1305, or a keyed checksum for plain repositories.
//!
//! Invariant: a key seals each nonce once. Callers get that by a fresh key per object (salted) and
//! a counter per segment; this file only does the single step.

use crate::safeguard::Safeguard;
use aws_lc_rs::aead;
use zeroize::Zeroizing;

/// Bytes of the tag behind each segment.
pub const TAG_BYTES: usize = 16;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 12;

/// How segments are sealed. The numbers are format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// Not encrypted; the tag is a keyed BLAKE3, and the key is public.
    Plain,
    /// AES-256-GCM, for processors with AES instructions.
    Aes256Gcm,
    /// ChaCha20-Poly1305, for the others.
    ChaCha20Poly1305,
}

impl Suite {
    /// Returns the number in object headers.
    pub fn number(self) -> u8 {
        match self {
            Suite::Plain => 0,
            Suite::Aes256Gcm => 1,
            Suite::ChaCha20Poly1305 => 2,
        }
    }

    /// Returns the suite with this number.
    pub fn from_number(number: u8) -> Option<Suite> {
        [Suite::Plain, Suite::Aes256Gcm, Suite::ChaCha20Poly1305]
            .into_iter()
            .find(|suite| suite.number() == number)
    }
}

/// The key of one object.
pub struct SegmentKey(Inner);

enum Inner {
    Plain(Zeroizing<[u8; 32]>),
    Aead(aead::LessSafeKey),
}

impl SegmentKey {
    /// Returns the key in the form its suite wants.
    pub fn new(suite: Suite, key: &[u8; 32]) -> SegmentKey {
        let algorithm = match suite {
            Suite::Plain => return SegmentKey(Inner::Plain(Zeroizing::new(*key))),
            Suite::Aes256Gcm => &aead::AES_256_GCM,
            Suite::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        };
        let key = aead::UnboundKey::new(algorithm, key).expect("invariant: 32 bytes fit");
        SegmentKey(Inner::Aead(aead::LessSafeKey::new(key)))
    }

    /// Encrypts the segment in place and returns its tag.
    pub fn seal(
        &self,
        nonce: [u8; NONCE_BYTES],
        associated: &[u8],
        segment: &mut [u8],
    ) -> [u8; TAG_BYTES] {
        match &self.0 {
            Inner::Plain(key) => checksum(key, nonce, associated, segment),
            Inner::Aead(key) => {
                let nonce = aead::Nonce::assume_unique_for_key(nonce);
                let tag = key
                    .seal_in_place_separate_tag(nonce, aead::Aad::from(associated), segment)
                    .expect("invariant: a segment is far below the limit of the cipher");
                tag.as_ref()
                    .try_into()
                    .expect("invariant: both ciphers have 16-byte tags")
            }
        }
    }

    /// Decrypts `segment | tag` in place. Returns the plain part, or `None` if it is not authentic.
    pub fn unseal<'a>(
        &self,
        nonce: [u8; NONCE_BYTES],
        associated: &[u8],
        sealed: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        let plain_bytes = sealed.len().checked_sub(TAG_BYTES)?;
        match &self.0 {
            Inner::Plain(key) => {
                let (segment, tag) = sealed.split_at_mut(plain_bytes);
                let is_right = checksum(key, nonce, associated, segment) == *tag;
                (is_right || !Safeguard::TagChecked.holds()).then_some(segment)
            }
            Inner::Aead(key) => {
                let nonce = aead::Nonce::assume_unique_for_key(nonce);
                key.open_in_place(nonce, aead::Aad::from(associated), sealed)
                    .ok()
            }
        }
    }
}

fn checksum(
    key: &[u8; 32],
    nonce: [u8; NONCE_BYTES],
    associated: &[u8],
    segment: &[u8],
) -> [u8; TAG_BYTES] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&nonce).update(associated).update(segment);
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(&hasher.finalize().as_bytes()[..TAG_BYTES]);
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_opens_what_it_sealed_and_nothing_else() {
        for suite in [Suite::Plain, Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            let key = SegmentKey::new(suite, &[7; 32]);
            let mut sealed = b"hello".to_vec();
            let tag = key.seal([1; 12], b"header", &mut sealed);
            sealed.extend(tag);

            assert_eq!(
                key.unseal([1; 12], b"header", &mut sealed.clone()).unwrap(),
                b"hello"
            );
            assert!(
                key.unseal([2; 12], b"header", &mut sealed.clone())
                    .is_none()
            );
            assert!(
                key.unseal([1; 12], b"another", &mut sealed.clone())
                    .is_none()
            );
            for bit in 0..sealed.len() * 8 {
                let mut bad = sealed.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(
                    key.unseal([1; 12], b"header", &mut bad).is_none(),
                    "{suite:?} bit {bit}"
                );
            }
        }
    }

    #[test]
    fn aes_256_gcm_is_the_published_one() {
        // Test case 13 of the GCM specification: all-zero key and nonce, nothing sealed.
        let key = SegmentKey::new(Suite::Aes256Gcm, &[0; 32]);
        let tag = key.seal([0; 12], b"", &mut []);
        assert_eq!(crate::id::hex(&tag), "530f8afbc74536b9a963b4f1c4cb738b");
    }
}
