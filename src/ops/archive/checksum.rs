//! The line that `sha256sum -c` reads: a sum and the name of a file.

use crate::codec::sha256::Sha256Sum;
use crate::error::Error;
use crate::error::Result;
use crate::ops::archive::members::damaged;
use crate::safeguard::Safeguard;
use std::ffi::OsString;
use std::fs::File;
use std::io::ErrorKind;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;

/// What the name of a file with a sum ends with.
pub const SUM_SUFFIX: &str = ".sha256";
/// A longer one is no file of sums.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Returns where the sum of a file is.
pub fn sum_path(path: &Path) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_os_string();
    name.push(SUM_SUFFIX);
    PathBuf::from(name)
}

/// Compares a file's sum with the one that is kept beside it. Returns whether there is one.
pub fn check_beside(path: &Path, sum: &Sha256Sum) -> Result<bool> {
    let sum_path = sum_path(path);
    let file = match File::open(&sum_path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        file => file.map_err(Error::io("open", &sum_path))?,
    };
    let mut text = Vec::new();
    let read = file.take(FILE_BYTES_MAX).read_to_end(&mut text);
    read.map_err(Error::io("read", &sum_path))?;
    let name = path.file_name().unwrap_or_default().as_bytes();
    match find(&text, name) {
        Some(said) if said == *sum || !Safeguard::SumTrue.holds() => Ok(true),
        Some(said) => {
            let reason = format!(
                "its SHA-256 is {sum}, and {} says {said}",
                sum_path.display()
            );
            Err(damaged(&path.display().to_string(), &reason))
        }
        None => {
            let reason = "it has no SHA-256 for the file beside it";
            Err(damaged(&sum_path.display().to_string(), reason))
        }
    }
}

/// Returns the line for a file. A name with a line end or a backslash is escaped, and a backslash
/// before the sum says so.
pub(in crate::ops) fn line(sum: &Sha256Sum, name: &[u8]) -> Vec<u8> {
    let mut line = Vec::new();
    if name.iter().any(|byte| b"\\\n\r".contains(byte)) {
        line.push(b'\\');
    }
    line.extend_from_slice(sum.to_string().as_bytes());
    line.extend_from_slice(b"  ");
    for byte in name {
        match byte {
            b'\\' => line.extend_from_slice(b"\\\\"),
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            byte => line.push(*byte),
        }
    }
    line.push(b'\n');
    line
}

/// Returns the sum that a checksum file has for a file of this name: the sum of its only line, or
/// of the line that names the file.
fn find(text: &[u8], name: &[u8]) -> Option<Sha256Sum> {
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    let lines = lines.iter().filter(|line| !line.trim_ascii().is_empty());
    let parsed: Vec<(Sha256Sum, &[u8])> = lines.filter_map(|line| parse(line)).collect();
    match parsed[..] {
        [(sum, _)] => Some(sum),
        _ => {
            let escaped = line(&Sha256Sum([0; 32]), name);
            let wanted = parse(escaped.strip_suffix(b"\n")?)?.1.to_vec();
            let mut of_name = parsed.iter().filter(|(_, found)| *found == wanted);
            of_name.next().map(|(sum, _)| *sum)
        }
    }
}

fn parse(line: &[u8]) -> Option<(Sha256Sum, &[u8])> {
    let line = line.strip_prefix(b"\\").unwrap_or(line);
    let line = line.strip_prefix(b"sha256:").unwrap_or(line);
    let (digits, rest) = line.split_at_checked(64)?;
    let sum = Sha256Sum::parse(std::str::from_utf8(digits).ok()?)?;
    // A space, and another or an asterisk.
    let name = match rest {
        [b' ', b' ' | b'*', name @ ..] => name,
        rest if rest.trim_ascii().is_empty() => b"",
        _ => return None,
    };
    Some((sum, name.strip_suffix(b"\r").unwrap_or(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_again_whatever_the_name() {
        let (one, two) = (Sha256Sum([1; 32]), Sha256Sum([2; 32]));
        for name in [&b"a.tar.gz"[..], b"a b", b"a\\b\nc", b"\xff"] {
            let file = [line(&one, name), line(&two, b"other")].concat();

            assert_eq!(find(&file, name), Some(one));
            assert_eq!(find(&file, b"other"), Some(two));
            assert_eq!(find(&file, b"unknown"), None);
        }
        assert_eq!(find(one.to_string().as_bytes(), b"x"), Some(one));
        assert_eq!(find(&line(&one, b"old name"), b"new name"), Some(one));
        assert_eq!(find(b"no sum at all\n", b"x"), None);
        assert_eq!(find(b"", b"x"), None);
    }
}
