//! Numbers, times and tables in words for people, and arguments quoted for a shell.

pub(super) use crate::ops::words::age;
pub(super) use crate::ops::words::ago;
pub(super) use crate::ops::words::count;
pub(super) use crate::ops::words::instant;
pub(super) use crate::ops::words::local;
pub(super) use crate::ops::words::local_with_zone;
pub(super) use crate::ops::words::path;
pub(super) use crate::ops::words::percent;
pub(super) use crate::ops::words::rfc3339;
pub(super) use crate::ops::words::safe;
pub(super) use crate::ops::words::size;
pub(super) use crate::ops::words::zone_name;

use crate::format::note::Loss;
use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Returns milliseconds as `2.1 s` or `3 min 5 s`.
pub(super) fn duration(ms: u64) -> String {
    match ms {
        0..100 => format!("{ms} ms"),
        100..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => {
            let seconds = ms / 1000;
            match seconds / 3600 {
                0 => format!("{} min {} s", seconds / 60, seconds % 60),
                hours => format!("{hours} h {} min", seconds % 3600 / 60),
            }
        }
    }
}

/// Returns text of several lines for people, each as `safe` has it.
pub(super) fn safe_lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(safe).collect();
    lines.join("\n")
}

/// Returns an argument as a shell would take it.
pub(super) fn quote(argument: &OsStr) -> Cow<'_, str> {
    let text = argument.to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,~".contains(c);
    let is_safe = !text.is_empty() && !text.starts_with('~') && text.chars().all(is_plain);
    match (is_safe, std::str::from_utf8(argument.as_bytes())) {
        (true, Ok(_)) => text,
        (false, Ok(text)) if !text.chars().any(char::is_control) => {
            format!("'{}'", text.replace('\'', r"'\''")).into()
        }
        // ANSI-C quoting can say any byte.
        _ => {
            let mut out = String::from("$'");
            for &byte in argument.as_bytes() {
                match byte {
                    b'\'' | b'\\' => out.extend(['\\', char::from(byte)]),
                    b' '..=b'~' => out.push(char::from(byte)),
                    _ => out.push_str(&format!("\\x{byte:02x}")),
                }
            }
            out.push('\'');
            out.into()
        }
    }
}

/// Returns what of a snapshot is lost, with the first paths.
pub(super) fn loss(loss: &Loss) -> String {
    const EXAMPLES: usize = 3;
    let mut paths: Vec<String> = loss.paths.iter().take(EXAMPLES).map(|p| path(p)).collect();
    if let Some(more @ 1..) = loss.count.checked_sub(paths.len() as u64) {
        paths.push(format!("{more} more"));
    }
    let number = count(loss.count, "path", "paths");
    format!("{number} cannot be restored: {}", paths.join(", "))
}

/// Where a column stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    /// To the left.
    Left,
    /// To the right, for numbers.
    Right,
}

/// Returns rows as lines with aligned columns; the first row is the head.
pub(super) fn table(align: &[Align], rows: &[Vec<String>]) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..align.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let mut line = String::new();
        for ((cell, &width), align) in row.iter().zip(&widths).zip(align) {
            match align {
                Align::Left => line.push_str(&format!("{cell:<width$}  ")),
                Align::Right => line.push_str(&format!("{cell:>width$}  ")),
            }
        }
        line.truncate(line.trim_end().len());
        line
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_arguments_mean_the_same_to_a_shell() {
        for (plain, quoted) in [
            ("latest~2", "latest~2"),
            ("", "''"),
            ("2 days ago", "'2 days ago'"),
            ("it's", r"'it'\''s'"),
            ("~/x", "'~/x'"),
            ("$(rm)", "'$(rm)'"),
            ("a\nb", r"$'a\x0ab'"),
        ] {
            assert_eq!(quote(OsStr::new(plain)), quoted);
        }
        assert_eq!(quote(OsStr::from_bytes(b"a\xff'")), r"$'a\xff\''");
    }

    #[test]
    fn ages_and_durations_have_few_digits() {
        assert_eq!(age(5), "5 s");
        assert_eq!(age(6 * 3600 + 59), "6 h");
        assert_eq!(age(30 * 3600), "30 h");
        assert_eq!(age(3 * 86_400), "3 d");
        assert_eq!(age(400 * 86_400), "13 months");
        assert_eq!(age(-7200), "in 2 h");
        assert_eq!(duration(99), "99 ms");
        assert_eq!(duration(2149), "2.1 s");
        assert_eq!(duration(185_000), "3 min 5 s");
        assert_eq!(duration(7_384_000), "2 h 3 min");
        assert_eq!(percent(39, 5437), "0.7 %");
        assert_eq!(percent(1, 0), "0 %");
    }
}
