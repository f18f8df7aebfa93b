//! What is wrong with an archive: each thing by its path, in bounded memory.

/// Findings kept. An archive may have millions of files, and all of them may be wrong.
const KEPT_MAX: usize = 10_000;

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The member; empty for the archive itself.
    pub path: Vec<u8>,
    /// What is wrong with it.
    pub message: String,
}

/// All that is wrong.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// How many there are.
    pub count: u64,
    /// The first of them, in the order they were found.
    pub first: Vec<Finding>,
}

impl Findings {
    pub(in crate::ops) fn add(&mut self, path: &[u8], message: impl Into<String>) {
        self.count += 1;
        if self.first.len() < KEPT_MAX {
            self.first.push(Finding {
                path: path.to_vec(),
                message: message.into(),
            });
        }
    }
}
