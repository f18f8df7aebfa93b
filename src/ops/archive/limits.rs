//! What is refused for its size, and what of it somebody may lift.
//!
//! What stays in memory is bounded by what somebody had to send: by the length of the archive, not
//! by constants alone.

use crate::ops::archive::manifest;

/// Members that any archive may have, and what each more of them takes of its length: the headers
/// of a million empty files take twenty bytes each when they are compressed.
const MEMBERS_FREE: u64 = 10_000;
const MEMBER_BYTES_MIN: u64 = 4;
/// Bytes of names and attributes that any archive may have, that there may be for each byte of its
/// length, and that there may be at all. So it is with the manifest.
const HELD_BYTES_FREE: u64 = 16 << 20;
const HELD_RATIO: u64 = 64;
const HELD_BYTES_MAX: u64 = 1 << 30;
/// What is refused for its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Members.
    pub members_max: usize,
    /// Plain bytes of all files.
    pub plain_bytes_max: u64,
    /// How many plain bytes there may be for each byte of the archive, beyond the first
    /// `FREE_OF_RATIO`.
    pub ratio_max: u64,
    /// What is done about symlinks that lead out of the tree.
    pub outside: OutsideLinks,
    /// Whether the manifest of the archive must be true.
    pub sums: Sums,
}

/// Whether what is said about an archive must be true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sums {
    /// Its manifest, and the sum beside it.
    #[default]
    Verified,
    /// Nobody looks.
    Ignored,
}

/// What is done about symlinks that lead out of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutsideLinks {
    /// The archive is refused.
    #[default]
    Refused,
    /// They are kept as they are. Nothing here follows them, but others might.
    Kept,
}

/// So much may come of any archive.
pub const FREE_OF_RATIO: u64 = 1 << 30;

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            members_max: 2_000_000,
            plain_bytes_max: u64::MAX,
            ratio_max: 200,
            outside: OutsideLinks::Refused,
            sums: Sums::Verified,
        }
    }
}

/// What an archive of some length may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Plain bytes of all files.
    pub plain_bytes_max: u64,
    /// Members.
    pub members_max: usize,
    /// Bytes of paths and attributes, which stay in memory.
    pub held_bytes_max: u64,
    /// Bytes of a manifest. A longer one is a file like others.
    pub manifest_bytes_max: u64,
}

impl Bounds {
    /// Returns the bounds. Whoever lifts the ratio knows better, and lifts all that follow from the
    /// length.
    pub(super) fn of(limits: &Limits, archive_bytes: u64) -> Bounds {
        let is_bounded = limits.ratio_max != u64::MAX;
        let for_bytes = |free: u64, ratio: u64, most: u64| match is_bounded {
            true => free
                .saturating_add(archive_bytes.saturating_mul(ratio))
                .min(most),
            false => most,
        };
        let members_max = MEMBERS_FREE.saturating_add(archive_bytes / MEMBER_BYTES_MIN);
        let members_max = usize::try_from(members_max).unwrap_or(usize::MAX);
        Bounds {
            plain_bytes_max: for_bytes(FREE_OF_RATIO, limits.ratio_max, u64::MAX),
            members_max: match is_bounded {
                true => limits.members_max.min(members_max),
                false => limits.members_max,
            },
            held_bytes_max: for_bytes(HELD_BYTES_FREE, HELD_RATIO, HELD_BYTES_MAX),
            manifest_bytes_max: for_bytes(HELD_BYTES_FREE, HELD_RATIO, manifest::BYTES_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_in_memory_follows_from_the_length_unless_somebody_knows_better() {
        let of = |archive_bytes| Bounds::of(&Limits::default(), archive_bytes);

        assert_eq!(of(40_000).members_max, 20_000);
        assert_eq!(of(0).held_bytes_max, HELD_BYTES_FREE);
        assert_eq!(of(u64::MAX).members_max, Limits::default().members_max);
        assert_eq!(of(u64::MAX).held_bytes_max, HELD_BYTES_MAX);
        assert_eq!(of(u64::MAX).manifest_bytes_max, manifest::BYTES_MAX);
        let any = Limits {
            ratio_max: u64::MAX,
            ..Limits::default()
        };
        assert_eq!(Bounds::of(&any, 0).members_max, any.members_max);
        assert_eq!(Bounds::of(&any, 0).plain_bytes_max, u64::MAX);
    }
}
