//! What is wrong with a configuration, where, and what was probably meant.

use std::fmt;
use std::path::Path;
use std::path::PathBuf;

/// Names further apart than this are not a typing error.
const SIMILARITY_MIN: f64 = 0.75;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub path: PathBuf,
    /// The line in it, from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { line, message, .. } = self;
        write!(f, "{}:{line}: {message}", self.path.display())
    }
}

/// Collects faults of one file.
pub(super) struct Faults<'t> {
    path: &'t Path,
    text: &'t str,
    found: Vec<Fault>,
}

impl<'t> Faults<'t> {
    pub(super) fn new(path: &'t Path, text: &'t str) -> Faults<'t> {
        Faults {
            path,
            text,
            found: Vec::new(),
        }
    }

    /// Returns the line of a byte of the file.
    pub(super) fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().iter().take(offset);
        1 + before.filter(|&&byte| byte == b'\n').count()
    }

    pub(super) fn add(&mut self, offset: usize, message: impl Into<String>, hint: Option<String>) {
        let (path, line) = (self.path.to_path_buf(), self.line(offset));
        let message = message.into();
        self.found.push(Fault {
            path,
            line,
            message,
            hint,
        });
    }

    /// Returns true if there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Returns them from the top of the file down.
    pub(super) fn finish(mut self) -> Vec<Fault> {
        self.found.sort_by_key(|fault| fault.line);
        self.found
    }
}

/// Returns the name that was probably meant.
pub fn nearest<'n>(name: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let name = name.to_lowercase();
    if name.is_empty() {
        return None;
    }
    let scored = names.into_iter().map(|other| {
        let of_other = other.to_lowercase();
        let starts = name.starts_with(&of_other) || of_other.starts_with(&name);
        let score = strsim::jaro_winkler(&name, &of_other).max(match starts {
            true => SIMILARITY_MIN,
            false => 0.0,
        });
        (score, other)
    });
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= SIMILARITY_MIN).then_some(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_is_told_from_another_word() {
        let names = ["keep", "schedule", "files", "databases", "exclude-caches"];
        let table = [
            ("shedule", Some("schedule")),
            ("database", Some("databases")),
            ("Files", Some("files")),
            ("exclude_caches", Some("exclude-caches")),
            ("keep-dayly", Some("keep")),
            ("colour", None),
            ("", None),
            ("x", None),
        ];
        for (name, meant) in table {
            assert_eq!(nearest(name, names), meant, "{name}");
        }
    }
}
