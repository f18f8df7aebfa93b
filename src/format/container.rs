//! The one shape of every sealed object: a 64-byte header, then segments of 64 KiB plain + tag.
//!
//! `docs/format.md`, section "Container". Byte x of the plain stream stands at a computed offset,
//! so any range is one ranged read. The key of an object comes from the data key of its generation,
//! its kind and its salt; segments count up, and the last one says that it is the last, so a
//! segment can be neither moved, dropped nor appended. The header is associated data of each.

use crate::codec::cipher::NONCE_BYTES;
use crate::codec::cipher::SegmentKey;
use crate::codec::cipher::Suite;
use crate::codec::cipher::TAG_BYTES;
use crate::format::wire::Decoded;
use crate::format::wire::Malformed;
use crate::safeguard::Safeguard;
use std::ops::Range;
use zeroize::Zeroize;
use zeroize::Zeroizing;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 64;
/// Plain bytes of every segment but the last, which may be shorter.
pub const SEGMENT_BYTES: usize = 64 * 1024;
/// Bytes of the salt.
pub const SALT_BYTES: usize = 24;

/// No object is longer, so that no arithmetic on offsets can overflow.
pub const OBJECT_BYTES_MAX: u64 = 1 << 48;

const MAGIC: [u8; 8] = *b"stkeep\r\n";
const VERSION: u8 = 1;
/// The object's key comes from the data key of its generation. Other ways are reserved.
const WRAP_DATA_KEY: u8 = 0;
const SEALED_SEGMENT_BYTES: u64 = (SEGMENT_BYTES + TAG_BYTES) as u64;

/// What an object is. The numbers are format; the kind enters the key, so that an authentic object
/// cannot be shown in the place of one of another kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    /// Records and their table.
    Pack,
    /// An entry of the log.
    Slot,
    /// A stored fold of the log.
    Checkpoint,
}

impl ObjectKind {
    fn number(self) -> u8 {
        match self {
            ObjectKind::Pack => 1,
            ObjectKind::Slot => 2,
            ObjectKind::Checkpoint => 3,
        }
    }
}

/// The data keys of a repository by generation; the last one seals.
#[derive(Clone)]
pub struct DataKeys {
    suite: Suite,
    generations: Vec<(u32, Zeroizing<[u8; 32]>)>,
}

impl DataKeys {
    /// Returns the keys; the highest generation seals. Fails without any.
    pub fn new(suite: Suite, mut generations: Vec<(u32, [u8; 32])>) -> Decoded<DataKeys> {
        generations.sort_by_key(|(generation, _)| *generation);
        if generations.is_empty() {
            return Err(Malformed::Bytes("there is no data key"));
        }
        let kept = generations
            .iter()
            .map(|(g, key)| (*g, Zeroizing::new(*key)));
        let kept = kept.collect();
        // What was handed over is a copy, and would be freed as it is.
        generations.iter_mut().for_each(|(_, key)| key.zeroize());
        Ok(DataKeys {
            suite,
            generations: kept,
        })
    }

    /// Returns the suite that seals.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    fn newest(&self) -> &(u32, Zeroizing<[u8; 32]>) {
        self.generations.last().expect("invariant: checked by new")
    }

    fn segment_key(&self, header: &Header) -> Decoded<SegmentKey> {
        let found = self
            .generations
            .iter()
            .find(|(g, _)| *g == header.generation);
        let (_, key) = found.ok_or(Malformed::Bytes("sealed with a key of another generation"))?;
        // An encrypted repository accepts no plain object: whoever holds the store could forge it.
        if (header.suite == Suite::Plain) != (self.suite == Suite::Plain) {
            return Err(Malformed::Bytes("the suite is not that of the repository"));
        }
        let mut hasher = blake3::Hasher::new_derive_key("statekeep 2026-11 object key");
        hasher.update(key.as_ref()).update(&header.encode());
        let object_key = Zeroizing::new(*hasher.finalize().as_bytes());
        Ok(SegmentKey::new(header.suite, &object_key))
    }
}

/// The first 64 bytes of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Header {
    kind: ObjectKind,
    suite: Suite,
    generation: u32,
    salt: [u8; SALT_BYTES],
}

impl Header {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8] = self.kind.number();
        bytes[9] = VERSION;
        bytes[10] = self.suite.number();
        bytes[11] = WRAP_DATA_KEY;
        bytes[12..16].copy_from_slice(&self.generation.to_le_bytes());
        bytes[16..40].copy_from_slice(&self.salt);
        bytes
    }

    fn decode(bytes: &[u8], kind: ObjectKind) -> Decoded<Header> {
        if bytes.len() < HEADER_BYTES || bytes[..8] != MAGIC {
            return Err(Malformed::Bytes("it is not an object of a repository"));
        }
        if bytes[9] != VERSION {
            return Err(Malformed::Unknown("container version", u64::from(bytes[9])));
        }
        let kind = match bytes[8] {
            number if number == kind.number() || Safeguard::KindBound.holds() => kind,
            1 => ObjectKind::Pack,
            2 => ObjectKind::Slot,
            _ => ObjectKind::Checkpoint,
        };
        if bytes[8] != kind.number() {
            return Err(Malformed::Bytes("it is an object of another kind"));
        }
        let suite = Suite::from_number(bytes[10])
            .ok_or(Malformed::Unknown("cipher suite", u64::from(bytes[10])))?;
        if bytes[11] != WRAP_DATA_KEY {
            return Err(Malformed::Unknown("key wrap", u64::from(bytes[11])));
        }
        if bytes[40..HEADER_BYTES] != [0; HEADER_BYTES - 40] {
            return Err(Malformed::Bytes("reserved bytes of the header are set"));
        }
        let generation = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
        let mut salt = [0; SALT_BYTES];
        salt.copy_from_slice(&bytes[16..40]);
        Ok(Header {
            kind,
            suite,
            generation,
            salt,
        })
    }
}

/// Returns the nonce of a segment: a counter and whether it is the last.
fn nonce(segment: u64, last: bool) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    let segment = if Safeguard::NonceCounts.holds() {
        segment
    } else {
        0
    };
    nonce[3..11].copy_from_slice(&segment.to_be_bytes());
    nonce[11] = u8::from(last);
    nonce
}

/// Returns how many plain bytes an object of this length holds, unless no object has this length.
pub fn plain_bytes(stored_bytes: u64) -> Option<u64> {
    if stored_bytes > OBJECT_BYTES_MAX {
        return None;
    }
    let body = stored_bytes.checked_sub(HEADER_BYTES as u64)?;
    let whole = body / SEALED_SEGMENT_BYTES;
    let rest = body % SEALED_SEGMENT_BYTES;
    let tags = if rest > 0 { whole + 1 } else { whole } * TAG_BYTES as u64;
    // A last segment without content exists only in an object without content.
    let possible = match rest {
        0 => whole > 0,
        rest => rest > TAG_BYTES as u64 || (rest == TAG_BYTES as u64 && whole == 0),
    };
    possible.then(|| body - tags)
}

/// Returns how long the object with so many plain bytes is.
pub fn stored_bytes(plain_bytes: u64) -> u64 {
    let segments = plain_bytes.div_ceil(SEGMENT_BYTES as u64).max(1);
    HEADER_BYTES as u64 + plain_bytes + segments * TAG_BYTES as u64
}

/// Builds an object segment by segment, so that sealing never needs a second copy.
pub struct Sealer {
    key: SegmentKey,
    header: [u8; HEADER_BYTES],
    sealed: Vec<u8>,
    segment: u64,
    segment_start: usize,
}

impl Sealer {
    /// Begins an object. Invariant: the salt is fresh randomness, never used before.
    /// `expected_bytes` of plain saves growing; more or less is fine.
    pub fn begin(
        keys: &DataKeys,
        kind: ObjectKind,
        salt: [u8; SALT_BYTES],
        expected_bytes: u64,
    ) -> Sealer {
        let sealed = Vec::with_capacity(stored_bytes(expected_bytes) as usize);
        Sealer::begin_in(keys, kind, salt, sealed)
    }

    /// Begins an object in the room of one that is not needed any more.
    pub fn begin_in(
        keys: &DataKeys,
        kind: ObjectKind,
        salt: [u8; SALT_BYTES],
        mut sealed: Vec<u8>,
    ) -> Sealer {
        let header = Header {
            kind,
            suite: keys.suite,
            generation: keys.newest().0,
            salt: match Safeguard::FreshSalt.holds() {
                true => salt,
                false => [0; SALT_BYTES],
            },
        };
        let key = keys
            .segment_key(&header)
            .expect("invariant: the newest key seals");
        let header = header.encode();
        sealed.clear();
        sealed.extend_from_slice(&header);
        Sealer {
            key,
            header,
            sealed,
            segment: 0,
            segment_start: HEADER_BYTES,
        }
    }

    /// Returns how many plain bytes went in.
    pub fn plain_bytes(&self) -> u64 {
        let open_segment = (self.sealed.len() - self.segment_start) as u64;
        self.segment * SEGMENT_BYTES as u64 + open_segment
    }

    /// Appends plain bytes.
    pub fn push(&mut self, mut plain: &[u8]) {
        while !plain.is_empty() {
            let open_segment = self.sealed.len() - self.segment_start;
            if open_segment == SEGMENT_BYTES {
                self.seal_segment(false);
                continue;
            }
            let (now, later) = plain.split_at(plain.len().min(SEGMENT_BYTES - open_segment));
            self.sealed.extend_from_slice(now);
            plain = later;
        }
    }

    /// Returns the finished object.
    pub fn finish(mut self) -> Vec<u8> {
        self.seal_segment(true);
        self.sealed
    }

    fn seal_segment(&mut self, last: bool) {
        let segment = &mut self.sealed[self.segment_start..];
        let tag = self
            .key
            .seal(nonce(self.segment, last), &self.header, segment);
        self.sealed.extend_from_slice(&tag);
        self.segment += 1;
        self.segment_start = self.sealed.len();
    }
}

/// Seals a small object in one go.
pub fn seal(keys: &DataKeys, kind: ObjectKind, salt: [u8; SALT_BYTES], plain: &[u8]) -> Vec<u8> {
    let mut sealer = Sealer::begin(keys, kind, salt, plain.len() as u64);
    sealer.push(plain);
    sealer.finish()
}

/// Opens a whole object. One that seems to be of a later version and opens as one of this is
/// damaged: nothing but the tags covers the header.
pub fn unseal(keys: &DataKeys, kind: ObjectKind, object: &[u8]) -> Decoded<Vec<u8>> {
    match unseal_as_it_is(keys, kind, object) {
        Err(Malformed::Unknown(..)) if opens_as_ours(keys, kind, object) => {
            Err(Malformed::Bytes("its header was changed"))
        }
        result => result,
    }
}

fn opens_as_ours(keys: &DataKeys, kind: ObjectKind, object: &[u8]) -> bool {
    let mut object = object.to_vec();
    object[9] = VERSION;
    object[11] = WRAP_DATA_KEY;
    let suites = (0..=u8::MAX).filter(|number| Suite::from_number(*number).is_some());
    suites.into_iter().any(|suite| {
        object[10] = suite;
        unseal_as_it_is(keys, kind, &object).is_ok()
    })
}

fn unseal_as_it_is(keys: &DataKeys, kind: ObjectKind, object: &[u8]) -> Decoded<Vec<u8>> {
    let opener = Opener::begin(keys, kind, object, object.len() as u64)?;
    let mut body = object[HEADER_BYTES..].to_vec();
    opener.unseal_segments(0, &mut body)?;
    Ok(body)
}

/// Opens ranges of one object.
pub struct Opener {
    key: SegmentKey,
    header: [u8; HEADER_BYTES],
    plain_bytes: u64,
}

impl Opener {
    /// Takes the header (the first 64 bytes; more is ignored) and the length of the whole object.
    pub fn begin(
        keys: &DataKeys,
        kind: ObjectKind,
        head: &[u8],
        stored_bytes: u64,
    ) -> Decoded<Opener> {
        let header = Header::decode(head, kind)?;
        let plain_bytes =
            plain_bytes(stored_bytes).ok_or(Malformed::Bytes("its length is impossible"))?;
        let key = keys.segment_key(&header)?;
        Ok(Opener {
            key,
            header: header.encode(),
            plain_bytes,
        })
    }

    /// Returns how many plain bytes the object holds.
    pub fn plain_bytes(&self) -> u64 {
        self.plain_bytes
    }

    /// Returns which stored bytes hold this plain range, widened to whole segments. An empty range
    /// and one that reaches past the end are refused.
    pub fn stored_range(&self, plain: &Range<u64>) -> Decoded<Range<u64>> {
        if plain.start >= plain.end || plain.end > self.plain_bytes {
            return Err(Malformed::Bytes("a range lies outside its object"));
        }
        let first = plain.start / SEGMENT_BYTES as u64;
        let last = (plain.end - 1) / SEGMENT_BYTES as u64;
        let offset = |segment: u64| HEADER_BYTES as u64 + segment * SEALED_SEGMENT_BYTES;
        Ok(offset(first)..offset(last + 1).min(stored_bytes(self.plain_bytes)))
    }

    /// Opens what was read at `stored_range(plain)` and leaves exactly the plain range.
    pub fn unseal_range(&self, plain: &Range<u64>, bytes: &mut Vec<u8>) -> Decoded<()> {
        let stored = self.stored_range(plain)?;
        if bytes.len() as u64 != stored.end - stored.start {
            return Err(Malformed::Bytes("cut short"));
        }
        let first = plain.start / SEGMENT_BYTES as u64;
        self.unseal_segments(first, bytes)?;
        let skipped = (plain.start % SEGMENT_BYTES as u64) as usize;
        let kept = (plain.end - plain.start) as usize;
        bytes.copy_within(skipped..skipped + kept, 0);
        bytes.truncate(kept);
        Ok(())
    }

    /// Opens consecutive segments in place and closes the gaps their tags leave.
    fn unseal_segments(&self, first: u64, bytes: &mut Vec<u8>) -> Decoded<()> {
        let last_segment = self.plain_bytes.div_ceil(SEGMENT_BYTES as u64).max(1) - 1;
        let sealed_bytes = SEALED_SEGMENT_BYTES as usize;
        let (mut segment, mut kept) = (first, 0);
        for start in (0..bytes.len()).step_by(sealed_bytes) {
            let end = bytes.len().min(start + sealed_bytes);
            let nonce = nonce(segment, segment == last_segment);
            let plain = self
                .key
                .unseal(nonce, &self.header, &mut bytes[start..end])
                .ok_or(Malformed::Bytes("a segment is not authentic"))?
                .len();
            bytes.copy_within(start..start + plain, kept);
            kept += plain;
            segment += 1;
        }
        bytes.truncate(kept);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(suite: Suite) -> DataKeys {
        DataKeys::new(suite, vec![(1, [1; 32]), (2, [2; 32])]).unwrap()
    }

    fn plain(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
    }

    const LENGTHS: [usize; 9] = [
        0,
        1,
        100,
        SEGMENT_BYTES - 1,
        SEGMENT_BYTES,
        SEGMENT_BYTES + 1,
        2 * SEGMENT_BYTES,
        2 * SEGMENT_BYTES + 17,
        3 * SEGMENT_BYTES,
    ];

    #[test]
    fn objects_of_every_boundary_length_round_trip() {
        for suite in [Suite::Plain, Suite::Aes256Gcm] {
            for len in LENGTHS {
                let object = seal(&keys(suite), ObjectKind::Pack, [9; 24], &plain(len));

                assert_eq!(object.len() as u64, stored_bytes(len as u64));
                assert_eq!(plain_bytes(object.len() as u64), Some(len as u64));
                let opened = unseal(&keys(suite), ObjectKind::Pack, &object).unwrap();
                assert_eq!(opened, plain(len), "{len}");
            }
        }
    }

    #[test]
    fn a_length_no_object_can_have_is_refused_and_overflows_nothing() {
        let keys = keys(Suite::Plain);
        let object = seal(&keys, ObjectKind::Pack, [9; 24], b"");
        for bytes in [u64::MAX, u64::MAX - 64, OBJECT_BYTES_MAX] {
            if let Ok(opener) = Opener::begin(&keys, ObjectKind::Pack, &object, bytes) {
                let end = opener.plain_bytes();
                let stored = opener.stored_range(&(end - 1..end)).unwrap();
                assert!(stored.end <= bytes);
            }
        }
        assert!(Opener::begin(&keys, ObjectKind::Pack, &object, u64::MAX).is_err());
    }

    #[test]
    fn any_range_is_one_ranged_read() {
        let keys = keys(Suite::Aes256Gcm);
        let whole = plain(3 * SEGMENT_BYTES + 5);
        let object = seal(&keys, ObjectKind::Pack, [9; 24], &whole);
        let opener = Opener::begin(&keys, ObjectKind::Pack, &object, object.len() as u64).unwrap();

        for (start, end) in [(0, 1), (65_535, 65_537), (65_536, 131_072), (100, 196_613)] {
            let stored = opener.stored_range(&(start..end)).unwrap();
            let mut bytes = object[stored.start as usize..stored.end as usize].to_vec();
            opener.unseal_range(&(start..end), &mut bytes).unwrap();
            assert_eq!(bytes, whole[start as usize..end as usize]);
        }
        assert!(opener.stored_range(&(0..196_614)).is_err());
    }

    #[test]
    fn any_change_of_an_object_is_refused() {
        for suite in [Suite::Plain, Suite::ChaCha20Poly1305] {
            let keys = keys(suite);
            let object = seal(&keys, ObjectKind::Slot, [9; 24], &plain(100));
            for bit in 0..object.len() * 8 {
                let mut bad = object.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(unseal(&keys, ObjectKind::Slot, &bad).is_err(), "bit {bit}");
            }
            for len in 0..object.len() {
                assert!(
                    unseal(&keys, ObjectKind::Slot, &object[..len]).is_err(),
                    "len {len}"
                );
            }
            assert!(
                unseal(&keys, ObjectKind::Pack, &object).is_err(),
                "another kind"
            );
        }
    }

    #[test]
    fn segments_cannot_be_dropped_swapped_or_appended() {
        let keys = keys(Suite::Aes256Gcm);
        let object = seal(&keys, ObjectKind::Pack, [9; 24], &plain(3 * SEGMENT_BYTES));
        let sealed = SEALED_SEGMENT_BYTES as usize;
        let segment =
            |i: usize| &object[HEADER_BYTES + i * sealed..HEADER_BYTES + (i + 1) * sealed];
        let built = |order: &[usize]| {
            let mut built = object[..HEADER_BYTES].to_vec();
            order
                .iter()
                .for_each(|&i| built.extend_from_slice(segment(i)));
            unseal(&keys, ObjectKind::Pack, &built)
        };

        assert!(built(&[0, 1, 2]).is_ok());
        for order in [&[0, 1][..], &[1, 0, 2], &[0, 2], &[0, 1, 2, 2], &[2]] {
            assert!(built(order).is_err(), "{order:?}");
        }
    }

    /// A repository must not be called too new because a bit flipped.
    #[test]
    fn a_flipped_bit_of_the_header_is_damage_and_no_later_version() {
        for suite in [Suite::Plain, Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            let object = seal(&keys(suite), ObjectKind::Slot, [9; 24], b"content");
            for bit in 0..HEADER_BYTES * 8 {
                let mut flipped = object.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let opened = unseal(&keys(suite), ObjectKind::Slot, &flipped);
                assert!(
                    matches!(opened, Err(Malformed::Bytes(_))),
                    "bit {bit}: {opened:?}"
                );
            }

            // What was really written by another program does not open as ours.
            let mut later = object;
            later[9] = VERSION + 1;
            later[HEADER_BYTES] ^= 1;
            let opened = unseal(&keys(suite), ObjectKind::Slot, &later);
            assert_eq!(opened, Err(Malformed::Unknown("container version", 2)));
        }
    }

    #[test]
    fn an_encrypted_repository_accepts_no_plain_object() {
        let object = seal(&keys(Suite::Plain), ObjectKind::Slot, [9; 24], b"forged");
        assert!(unseal(&keys(Suite::Aes256Gcm), ObjectKind::Slot, &object).is_err());
    }

    /// As numbers they only grow, so that ten million of them are told apart without keeping any.
    #[test]
    fn nonces_of_an_object_never_repeat() {
        let number = |segment, last| {
            let mut wide = [0; 16];
            wide[4..].copy_from_slice(&nonce(segment, last));
            u128::from_be_bytes(wide)
        };
        let mut before = None;
        for segment in (0..10_000_000).chain([u64::from(u32::MAX), u64::MAX - 1, u64::MAX]) {
            for last in [false, true] {
                let now = Some(number(segment, last));
                assert!(before < now, "segment {segment}");
                before = now;
            }
        }
    }

    #[test]
    fn older_generations_still_open() {
        let old = DataKeys::new(Suite::Aes256Gcm, vec![(1, [1; 32])]).unwrap();
        let object = seal(&old, ObjectKind::Slot, [9; 24], b"kept");

        assert_eq!(
            unseal(&keys(Suite::Aes256Gcm), ObjectKind::Slot, &object).unwrap(),
            b"kept"
        );
        let other = DataKeys::new(Suite::Aes256Gcm, vec![(2, [2; 32])]).unwrap();
        assert!(unseal(&other, ObjectKind::Slot, &object).is_err());
    }
}
