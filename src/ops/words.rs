//! Numbers, times and names in words for people.
//!
//! Names come from file systems and other machines: what could fool a terminal is escaped here,
//! what could fool a browser where pages are made.

use crate::context::Timestamp;
use jiff::Zoned;
use jiff::tz::TimeZone;

const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// Returns a size as `17 B`, `212 KiB`, `482.1 MiB`.
pub fn size(bytes: u64) -> String {
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
pub fn percent(part: u64, whole: u64) -> String {
    match whole {
        0 => "0 %".to_string(),
        _ => {
            let tenths = (u128::from(part) * 1000 + u128::from(whole) / 2) / u128::from(whole);
            format!("{}.{} %", tenths / 10, tenths % 10)
        }
    }
}

/// Returns `1 file`, `2 files`.
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Returns a span of time as `6 h`: one number, one unit.
pub fn age(seconds: i64) -> String {
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

/// Returns how long ago something was, for a sentence: `4 minutes ago`, `in 2 hours`.
pub fn ago(seconds: i64) -> String {
    let text = long_span(seconds.unsigned_abs());
    match seconds {
        ..0 => format!("in {text}"),
        0..10 => "just now".to_string(),
        _ => format!("{text} ago"),
    }
}

/// Returns a span of time for a sentence: `4 minutes`.
pub fn long_span(seconds: u64) -> String {
    const HOUR: u64 = 3600;
    const DAY: u64 = 24 * HOUR;
    match seconds {
        0..60 => count(seconds, "second", "seconds"),
        60..HOUR => count(seconds / 60, "minute", "minutes"),
        HOUR..172_800 => count(seconds / HOUR, "hour", "hours"),
        _ => match seconds / DAY {
            days @ 0..=90 => count(days, "day", "days"),
            days @ 91..=730 => count(days * 12 / 365, "month", "months"),
            days => count(days / 365, "year", "years"),
        },
    }
}

/// Returns a time in UTC as JSON has it.
pub fn rfc3339(time: Timestamp) -> String {
    instant(time).to_string()
}

/// Returns a time in a zone, for tables that name the zone in their head.
pub fn local(time: Timestamp, zone: &TimeZone) -> String {
    let zoned = instant(time).to_zoned(zone.clone());
    zoned.strftime("%Y-%m-%d %H:%M").to_string()
}

/// Returns a time in a zone, with the zone.
pub fn local_with_zone(time: Timestamp, zone: &TimeZone) -> String {
    let zoned = instant(time).to_zoned(zone.clone());
    zoned.strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

/// Returns the name of the zone at this time.
pub fn zone_name(time: Timestamp, zone: &TimeZone) -> String {
    let zoned = instant(time).to_zoned(zone.clone());
    zoned.strftime("%Z").to_string()
}

/// Returns a time in a zone as the calendar library has it.
pub fn zoned(time: Timestamp, zone: &TimeZone) -> Zoned {
    instant(time).to_zoned(zone.clone())
}

/// Returns the point in time as the calendar library has it.
pub fn instant(time: Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_nanosecond(i128::from(time.0)).unwrap_or_default()
}

/// Returns a path for people: control characters, which could fool a terminal, are escaped.
pub fn path(bytes: &[u8]) -> String {
    safe(&String::from_utf8_lossy(bytes))
}

/// Returns text for people with control characters escaped.
pub fn safe(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() || is_direction(c) {
            true => out.extend(c.escape_unicode()),
            false => out.push(c),
        }
    }
    out
}

/// Characters that make a terminal show text in another order than it has.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
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
    fn spans_of_sentences_are_in_full_words() {
        assert_eq!(ago(0), "just now");
        assert_eq!(ago(60), "1 minute ago");
        assert_eq!(ago(250), "4 minutes ago");
        assert_eq!(ago(30 * 3600), "30 hours ago");
        assert_eq!(ago(-7200), "in 2 hours");
        assert_eq!(long_span(400 * 86_400), "13 months");
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
