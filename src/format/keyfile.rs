//! Key files: the secret of one key slot as text that a person can read, copy and type.
//!
//! `docs/format.md`, section "Key files". A key file and a recovery kit are the same lines, and
//! everything else in the file is prose for people, so one decoder reads both. Each line of the
//! secret ends in a checksum of its own: a typing mistake is found and its line named.

use crate::id::RepoId;
use crate::id::from_hex;
use crate::id::hex;
use zeroize::Zeroizing;

const LINES: usize = 4;
const LINE_BYTES: usize = 8;
const LINE_SUM_BYTES: usize = 2;
const SUM_BYTES: usize = 4;
/// A key file is never longer, prose included.
pub const KEY_FILE_BYTES_MAX: u64 = 64 << 10;

/// What a key file holds.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyFile {
    /// The repository it was made for.
    pub repo: RepoId,
    /// Where that repository was at that time, in words; empty if unknown. Not checksummed.
    pub location: String,
    /// The secret.
    pub secret: Zeroizing<[u8; 32]>,
}

/// Why a text is no key file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKeyFile {
    /// There is nothing of a key in it.
    #[error("it holds no key")]
    NoKey,
    /// A line is not there.
    #[error("the line `{0}` is missing")]
    LineMissing(String),
    /// A line is there more than once.
    #[error("the line `{0}` stands in it twice")]
    LineTwice(String),
    /// A line is not what was written.
    #[error("the line `{0}` is not what was written: a mistyped or missing digit?")]
    LineWrong(String),
    /// Each line is fine, but they do not belong together.
    #[error("its lines do not belong together: from two different keys?")]
    Mixed,
}

impl KeyFile {
    /// Returns the lines of a key file.
    pub fn encode(&self) -> Zeroizing<String> {
        // Reserved in one go, so that no copy of the secret is left behind by growing.
        let mut text = Zeroizing::new(String::with_capacity(512 + self.location.len()));
        text.push_str("repository: ");
        push_groups(&mut text, self.repo.as_bytes(), 4);
        if !self.location.is_empty() {
            text.push_str("\nlocation: ");
            text.extend(self.location.chars().filter(|c| !c.is_control()));
        }
        for (index, part) in self.secret.chunks(LINE_BYTES).enumerate() {
            text.push('\n');
            text.push_str(&line_name(index));
            text.push_str(": ");
            push_groups(&mut text, part, 2);
            text.push_str("  ");
            text.push_str(&hex(&line_sum(index, part)));
        }
        text.push_str("\ncheck: ");
        push_groups(&mut text, &sum(&self.repo, &self.secret), 2);
        text.push('\n');
        text
    }

    /// Reads a key file or a recovery kit, however it was copied: case, spaces and dashes do not
    /// matter, and `o`, `i` and `l` count as the digits they look like.
    pub fn decode(text: &str) -> Result<KeyFile, BadKeyFile> {
        let names: Vec<String> = (0..LINES).map(line_name).collect();
        let is_missing = |name: &String| value(text, name) == Err(missing(name));
        if names.iter().all(is_missing) {
            return Err(BadKeyFile::NoKey);
        }
        let wrong = |name: &str| BadKeyFile::LineWrong(name.to_string());
        let repo = digits(value(text, "repository")?);
        let repo = repo.and_then(|bytes| RepoId::from_slice(&bytes));
        let repo = repo.ok_or_else(|| wrong("repository"))?;
        let mut secret = Zeroizing::new([0; 32]);
        for (index, part) in secret.chunks_mut(LINE_BYTES).enumerate() {
            let name = &names[index];
            let bytes = digits(value(text, name)?).ok_or_else(|| wrong(name))?;
            if bytes.len() != LINE_BYTES + LINE_SUM_BYTES {
                return Err(wrong(name));
            }
            part.copy_from_slice(&bytes[..LINE_BYTES]);
            if bytes[LINE_BYTES..] != line_sum(index, part) {
                return Err(wrong(name));
            }
        }
        let check = digits(value(text, "check")?).ok_or_else(|| wrong("check"))?;
        if check[..] != sum(&repo, &secret) {
            return Err(BadKeyFile::Mixed);
        }
        Ok(KeyFile {
            repo,
            location: value(text, "location").unwrap_or_default().to_string(),
            secret,
        })
    }
}

fn line_name(index: usize) -> String {
    format!("key-{}", index + 1)
}

fn push_groups(text: &mut String, bytes: &[u8], group_bytes: usize) {
    for (index, group) in bytes.chunks(group_bytes).enumerate() {
        if index > 0 {
            text.push('-');
        }
        text.push_str(&Zeroizing::new(hex(group)));
    }
}

/// Returns what follows `name:` on the one line that begins so.
fn value<'t>(text: &'t str, name: &str) -> Result<&'t str, BadKeyFile> {
    let mut values = text.lines().filter_map(|line| {
        let (start, value) = line.split_once(':')?;
        let start = start.trim_start_matches('\u{feff}').trim();
        start.eq_ignore_ascii_case(name).then_some(value.trim())
    });
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value),
        (None, _) => Err(missing(name)),
        (Some(_), Some(_)) => Err(BadKeyFile::LineTwice(name.to_string())),
    }
}

fn missing(name: &str) -> BadKeyFile {
    BadKeyFile::LineMissing(name.to_string())
}

fn digits(value: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut plain = Zeroizing::new(String::with_capacity(value.len()));
    for c in value.chars() {
        match c.to_ascii_lowercase() {
            ' ' | '\t' | '-' => {}
            'o' => plain.push('0'),
            'i' | 'l' => plain.push('1'),
            other => plain.push(other),
        }
    }
    from_hex(&plain).map(Zeroizing::new)
}

fn line_sum(index: usize, part: &[u8]) -> [u8; LINE_SUM_BYTES] {
    let mut hasher = blake3::Hasher::new_derive_key("statekeep 2026-11 line of a key file");
    hasher.update(&[u8::try_from(index).unwrap_or(u8::MAX)]);
    first_bytes(hasher.update(part))
}

fn sum(repo: &RepoId, secret: &[u8; 32]) -> [u8; SUM_BYTES] {
    let mut hasher = blake3::Hasher::new_derive_key("statekeep 2026-11 key file");
    first_bytes(hasher.update(repo.as_bytes()).update(secret))
}

fn first_bytes<const N: usize>(hasher: &blake3::Hasher) -> [u8; N] {
    let mut out = [0; N];
    hasher.finalize_xof().fill(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> KeyFile {
        let mut secret = Zeroizing::new([0; 32]);
        for (index, byte) in secret.iter_mut().enumerate() {
            *byte = index as u8 * 7;
        }
        KeyFile {
            repo: RepoId([0x3f; 16]),
            location: "/srv/backups".into(),
            secret,
        }
    }

    fn failure(text: &str) -> BadKeyFile {
        KeyFile::decode(text).err().unwrap()
    }

    #[test]
    fn a_key_file_round_trips_among_prose() {
        let text = format!("Keep this safe.\n\n{}\nUse it: so.\n", *example().encode());

        assert!(KeyFile::decode(&text).unwrap() == example());
    }

    #[test]
    fn a_key_file_survives_how_people_copy() {
        let text = example().encode().to_uppercase().replace('-', " ");
        let text = text.replace("KEY ", "KEY-").replace('\n', "\r\n  ");
        let text = format!("\u{feff}{}", text.replace('0', "O").replace('1', "l"));
        // The names of the lines hold a digit, which nobody mistypes that way.
        let text = text.replace("KEY-l", "KEY-1");

        let read = KeyFile::decode(&text).unwrap();

        assert!(read.secret == example().secret && read.repo == example().repo);
    }

    #[test]
    fn a_wrong_digit_is_found_and_its_line_named() {
        let text = example().encode().to_string();
        for (at, c) in text.char_indices().filter(|(_, c)| c.is_ascii_hexdigit()) {
            let line = text[..at].matches('\n').count();
            let line = text.lines().nth(line).unwrap();
            let (name, _) = line.split_once(':').unwrap();
            if name == "location" || at < text.find(line).unwrap() + name.len() {
                continue;
            }
            let other = if c == 'a' { "b" } else { "a" };
            let mut bad = text.clone();
            bad.replace_range(at..=at, other);

            match (name, failure(&bad)) {
                ("repository" | "check", BadKeyFile::Mixed) => {}
                (name, BadKeyFile::LineWrong(found)) => assert_eq!(name, found),
                (name, other) => panic!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn cut_doubled_and_foreign_files_say_what_they_lack() {
        let text = example().encode().to_string();
        let without = |name: &str| -> String {
            let keep = |line: &&str| !line.starts_with(name);
            text.lines().filter(keep).flat_map(|l| [l, "\n"]).collect()
        };

        assert_eq!(failure(""), BadKeyFile::NoKey);
        assert_eq!(failure("hunter2\n"), BadKeyFile::NoKey);
        assert_eq!(
            failure(&without("key-3")),
            BadKeyFile::LineMissing("key-3".into())
        );
        assert_eq!(
            failure(&without("check")),
            BadKeyFile::LineMissing("check".into())
        );
        assert_eq!(
            failure(&format!("{text}{text}")),
            BadKeyFile::LineTwice("repository".into())
        );
    }

    #[test]
    fn swapped_lines_do_not_pass() {
        let text = example().encode();
        let text = text.replace("key-1:", "x:").replace("key-2:", "key-1:");

        assert_eq!(
            failure(&text.replace("x:", "key-2:")),
            BadKeyFile::LineWrong("key-1".into())
        );
    }
}
