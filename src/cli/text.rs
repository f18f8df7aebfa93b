//! Numbers, times and tables in words for people, and arguments quoted for a shell.

use crate::context::Timestamp;
use crate::format::note::Loss;
use jiff::tz::TimeZone;
use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// Returns a size as `17 B`, `212 KiB`, `482.1 MiB`.
pub(super) fn size(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // In tenths of the unit, rounded; carries over so that 1024 of a unit is never shown.
    let mut unit = 0;
    let mut scale: u128 = 1024;
    let tenths = |scale: u128| (u128::from(bytes) * 10 + scale / 2) / scale;
    let is_too_many = |unit: usize, scale: u128| match unit {
        0 => u128::from(bytes) + scale / 2 >= 1024 * scale,
        _ => tenths(scale) >= 10_240,
    };
    while is_too_many(unit, scale) && unit + 1 < UNITS.len() {
        unit += 1;
        scale *= 1024;
    }
    let tenths = tenths(scale);
    match unit {
        0 => format!("{} KiB", (bytes + 512) / 1024),
        _ => format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]),
    }
}

/// Returns `part` of `whole` as `0.7 %`.
pub(super) fn percent(part: u64, whole: u64) -> String {
    match whole {
        0 => "0 %".to_string(),
        _ => {
            let tenths = (u128::from(part) * 1000 + u128::from(whole) / 2) / u128::from(whole);
            format!("{}.{} %", tenths / 10, tenths % 10)
        }
    }
}

/// Returns `1 file`, `2 files`.
pub(super) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Returns a span of time as `6 h`: one number, one unit.
pub(super) fn age(seconds: i64) -> String {
    let (sign, seconds) = match seconds {
        ..0 => ("in ", seconds.unsigned_abs()),
        _ => ("", seconds.unsigned_abs()),
    };
    const HOUR: u64 = 3600;
    const DAY: u64 = 24 * HOUR;
    let text = match seconds {
        0..60 => format!("{seconds} s"),
        60..HOUR => format!("{} min", seconds / 60),
        HOUR..172_800 => format!("{} h", seconds / HOUR),
        _ => match seconds / DAY {
            days @ 0..=90 => format!("{days} d"),
            days @ 91..=730 => format!("{} months", days * 12 / 365),
            days => format!("{} y", days / 365),
        },
    };
    format!("{sign}{text}")
}

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

/// Returns a time in UTC as JSON has it.
pub(super) fn rfc3339(time: Timestamp) -> String {
    instant(time).to_string()
}

/// Returns a time in a zone, for tables that name the zone in their head.
pub(super) fn local(time: Timestamp, zone: &TimeZone) -> String {
    let zoned = instant(time).to_zoned(zone.clone());
    zoned.strftime("%Y-%m-%d %H:%M").to_string()
}

/// Returns a time in a zone, with the zone.
pub(super) fn local_with_zone(time: Timestamp, zone: &TimeZone) -> String {
    let zoned = instant(time).to_zoned(zone.clone());
    zoned.strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

/// Returns the name of the zone at this time.
pub(super) fn zone_name(time: Timestamp, zone: &TimeZone) -> String {
    let zoned = instant(time).to_zoned(zone.clone());
    zoned.strftime("%Z").to_string()
}

/// Returns the point in time as the calendar library has it.
pub(super) fn instant(time: Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_nanosecond(i128::from(time.0)).unwrap_or_default()
}

/// Returns a path for people: control characters, which could fool a terminal, are escaped.
pub(super) fn path(bytes: &[u8]) -> String {
    safe(&String::from_utf8_lossy(bytes))
}

/// Returns text for people with control characters escaped.
pub(super) fn safe(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() || is_direction(c) {
            true => out.extend(c.escape_unicode()),
            false => out.push(c),
        }
    }
    out
}

/// Returns text of several lines for people, each as `safe` has it.
pub(super) fn safe_lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(safe).collect();
    lines.join("\n")
}

/// Characters that make a terminal show text in another order than it has.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
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
    fn sizes_have_one_unit_and_never_1024_of_it() {
        let table = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1535, "1 KiB"),
            (217_088, "212 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (1 << 20, "1.0 MiB"),
            (505_518_490, "482.1 MiB"),
            ((1 << 30) - 1, "1.0 GiB"),
            (15_247_143_731, "14.2 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (bytes, text) in table {
            assert_eq!(size(bytes), text, "{bytes}");
        }
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
    fn times_name_their_zone() {
        let zone = TimeZone::posix("CET-1").unwrap();
        let time = Timestamp(1_795_139_999_500_000_000);

        assert_eq!(rfc3339(time), "2026-11-20T01:59:59.5Z");
        assert_eq!(local_with_zone(time, &zone), "2026-11-20 02:59:59 CET");
        assert_eq!(
            rfc3339(Timestamp(i64::MIN)),
            "1677-09-21T00:12:43.145224192Z"
        );
    }

    #[test]
    fn what_could_fool_a_terminal_is_escaped() {
        assert_eq!(path(b"a\x1b[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(safe("x\u{202e}y"), "x\\u{202e}y");
        assert_eq!(path("grün".as_bytes()), "grün");
    }
}
