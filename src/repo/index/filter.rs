//! Says of most ids that a segment does not have them, without reading it.
//!
//! A Bloom filter of one byte per entry whose four bits for an id are all in one word. It knows
//! ids by their leading 8 bytes, which are uniform (they are of a hash), so it serves bases too.
//! Only segments up to a bound have one, so that memory does not grow with the repository.

/// Larger segments, of which there are few, are always read. All smaller ones together have half
/// as many entries as the largest of them: about 6 MB once what is due is merged.
const ENTRIES_MAX: u64 = 4 << 20;

const ENTRIES_PER_WORD: u64 = 8;

/// Four bits per entry, or nothing, which has everything.
pub(super) struct Filter {
    pub(super) words: Vec<u64>,
}

impl Filter {
    pub(super) fn new(entry_count: u64) -> Filter {
        let word_count = match entry_count <= ENTRIES_MAX {
            true => entry_count.div_ceil(ENTRIES_PER_WORD) as usize,
            false => 0,
        };
        Filter {
            words: vec![0; word_count],
        }
    }

    pub(super) fn add(&mut self, key: u64) {
        let (at, bits) = self.place(key);
        if let Some(word) = self.words.get_mut(at) {
            *word |= bits;
        }
    }

    /// Returns false if the key was not added.
    pub(super) fn may_have(&self, key: u64) -> bool {
        let (at, bits) = self.place(key);
        self.words.get(at).is_none_or(|word| word & bits == bits)
    }

    fn place(&self, key: u64) -> (usize, u64) {
        // The golden ratio: keys of one segment differ in their low bits, words in their high.
        let mixed = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let at = (u128::from(mixed) * self.words.len() as u128) >> 64;
        let bits = (0..4).fold(0, |bits, turn| bits | 1 << (key >> (6 * turn) & 63));
        (at as usize, bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_has_what_was_added_and_little_else() {
        let key = |number: u64| {
            let hash = blake3::hash(&number.to_le_bytes());
            crate::repo::index::record::leading(hash.as_bytes())
        };
        let mut filter = Filter::new(10_000);

        (0..10_000).for_each(|number| filter.add(key(number)));

        let wrong = (10_000..20_000).filter(|number| filter.may_have(key(*number)));
        assert!((0..10_000).all(|number| filter.may_have(key(number))));
        assert!(wrong.count() < 600);
    }

    #[test]
    fn filter_of_a_large_segment_takes_no_memory_and_denies_nothing() {
        let mut filter = Filter::new(ENTRIES_MAX + 1);
        filter.add(1);

        assert!(filter.words.is_empty() && filter.may_have(2));
    }
}
