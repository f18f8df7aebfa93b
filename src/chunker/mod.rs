//! Where to cut: by content where there is nothing else to go by, by the hash of a name for trees.
//!
//! Invariant: same key, same bytes, same cuts, on every platform and in every release. The cuts
//! are pinned by vectors in the tests; the parameters below are format.

use fastcdc::v2020;

/// No chunk of a file is shorter, except the last.
pub const MIN_BYTES: usize = 64 * 1024;
/// What chunks aim at.
pub const AVERAGE_BYTES: usize = 256 * 1024;
/// No chunk of a file is longer.
pub const MAX_BYTES: usize = 1024 * 1024;

/// Cuts a stream by its content. The gear table is derived from the cut key of the repository, so
/// that chunk lengths alone do not tell known files from others.
pub struct Cutter {
    gear: Box<[u64; 256]>,
    gear_shifted: Box<[u64; 256]>,
    masks: [u64; 4],
}

impl Cutter {
    /// Returns a cutter for this key.
    pub fn new(key: &[u8; 32]) -> Cutter {
        let mut bytes = [0; 2048];
        let mut hasher = blake3::Hasher::new_derive_key("statekeep 2026-11 gear table");
        hasher.update(key).finalize_xof().fill(&mut bytes);
        let mut gear = Box::new([0; 256]);
        for (value, bytes) in gear.iter_mut().zip(bytes.chunks_exact(8)) {
            *value = u64::from_le_bytes(bytes.try_into().expect("invariant: chunks of eight"));
        }
        let gear_shifted = Box::new(gear.map(|value| value << 1));
        let (short, long) = v2020::select_masks(AVERAGE_BYTES, v2020::Normalization::Level1);
        Cutter {
            gear,
            gear_shifted,
            masks: [short, long, short << 1, long << 1],
        }
    }

    /// Returns the length of the first chunk of `bytes`, which must hold `MAX_BYTES` unless the
    /// stream ends with them.
    pub fn cut(&self, bytes: &[u8]) -> usize {
        let [short, long, short_shifted, long_shifted] = self.masks;
        let (_, len) = v2020::cut_gear(
            bytes,
            MIN_BYTES,
            AVERAGE_BYTES,
            MAX_BYTES,
            short,
            long,
            short_shifted,
            long_shifted,
            &self.gear[..],
            &self.gear_shifted[..],
        );
        len
    }
}

/// Hashes names, so that trees are cut where a name says so and not where a neighbour changed.
pub struct NameHasher {
    key: [u8; 32],
}

impl NameHasher {
    /// Returns a hasher for this key.
    pub fn new(key: &[u8; 32]) -> NameHasher {
        NameHasher {
            key: blake3::derive_key("statekeep 2026-11 name cuts", key),
        }
    }

    /// Returns the hash of a path.
    pub fn hash(&self, path: &[u8]) -> u64 {
        let hash = blake3::keyed_hash(&self.key, path);
        u64::from_le_bytes(
            hash.as_bytes()[..8]
                .try_into()
                .expect("invariant: eight of 32"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new()
            .update(b"noise")
            .finalize_xof()
            .fill(&mut bytes);
        bytes
    }

    fn cuts(key: u8, mut bytes: &[u8]) -> Vec<usize> {
        let cutter = Cutter::new(&[key; 32]);
        let mut cuts = Vec::new();
        while !bytes.is_empty() {
            let len = cutter.cut(bytes);
            cuts.push(len);
            bytes = &bytes[len..];
        }
        cuts
    }

    /// Golden: these numbers may never change.
    #[test]
    fn cut_points_are_pinned() {
        let cuts = cuts(1, &noise(2_000_000));
        assert_eq!(
            cuts,
            [
                212_554, 102_922, 404_239, 306_996, 467_481, 339_522, 69_943, 96_343
            ]
        );
        assert_eq!(
            NameHasher::new(&[1; 32]).hash(b"rules/a.toml"),
            2_453_951_071_432_451_986
        );
    }

    #[test]
    fn cuts_depend_on_the_key_and_return_after_an_insertion() {
        let bytes = noise(6_000_000);
        let mut shifted = bytes.clone();
        shifted.splice(1000..1000, [1; 77]);

        assert_ne!(cuts(1, &bytes), cuts(2, &bytes));
        let ends = |cuts: &[usize]| cuts.iter().rev().take(8).copied().collect::<Vec<_>>();
        assert_eq!(ends(&cuts(1, &bytes)), ends(&cuts(1, &shifted)));
    }

    #[test]
    fn lengths_stay_within_their_bounds() {
        for bytes in [noise(5_000_000), vec![0; 5_000_000]] {
            let cuts = cuts(3, &bytes);
            let (last, others) = cuts.split_last().unwrap();
            assert!(
                others
                    .iter()
                    .all(|len| (MIN_BYTES..=MAX_BYTES).contains(len))
            );
            assert!(*last <= MAX_BYTES);
            assert_eq!(cuts.iter().sum::<usize>(), bytes.len());
        }
    }
}
