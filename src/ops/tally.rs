//! Counts things that have paths and remembers the first of them, in bounded memory.

/// Paths kept as examples.
const SAMPLE_MAX: usize = 100;

/// How many there are, how many bytes they hold, and the first of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// Their bytes together.
    pub bytes: u64,
    /// The first ones, in the order they were found.
    pub sample: Vec<Vec<u8>>,
}

impl Tally {
    /// Counts one more.
    pub(super) fn add(&mut self, path: &[u8], bytes: u64) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        if self.sample.len() < SAMPLE_MAX {
            self.sample.push(path.to_vec());
        }
    }

    /// Adds what another one counted.
    pub(super) fn merge(&mut self, other: Tally) {
        self.count += other.count;
        self.bytes = self.bytes.saturating_add(other.bytes);
        let room = SAMPLE_MAX.saturating_sub(self.sample.len());
        self.sample.extend(other.sample.into_iter().take(room));
    }
}
