//! Spans of time as people write them: `90s`, `5m`, `12h`, `30d`, `2w`, `1y`, `1h30m`.
//!
//! A day has 24 hours and a year 365 days: what is kept must not depend on a time zone.

use std::time::Duration;

const UNITS: [(char, u64); 6] = [
    ('y', 365 * 86_400),
    ('w', 7 * 86_400),
    ('d', 86_400),
    ('h', 3600),
    ('m', 60),
    ('s', 1),
];

/// What a span is to look like.
pub(super) const EXPECTED: &str =
    "a span of time like \"90s\", \"5m\", \"12h\", \"30d\", \"2w\" or \"1y\"";

/// Reads a span of time, which is never none at all.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not {EXPECTED}");
    let mut rest = text.trim();
    let (mut seconds, mut last_unit) = (0_u64, u64::MAX);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let count: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit = rest[digits..].chars().next().ok_or_else(wrong)?;
        let (_, unit_seconds) = UNITS.iter().find(|(c, _)| *c == unit).ok_or_else(wrong)?;
        if last_unit <= *unit_seconds {
            return Err(wrong());
        }
        last_unit = *unit_seconds;
        let part = count.checked_mul(*unit_seconds);
        let sum = part.and_then(|part| seconds.checked_add(part));
        seconds = sum
            .filter(|&sum| sum <= 1000 * UNITS[0].1)
            .ok_or_else(wrong)?;
        rest = rest[digits + unit.len_utf8()..].trim_start();
    }
    match seconds {
        0 => Err(wrong()),
        _ => Ok(Duration::from_secs(seconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_a_number_with_a_unit_and_larger_units_come_first() {
        let table = [
            ("90s", 90),
            ("5m", 300),
            ("12h", 43_200),
            ("30d", 2_592_000),
            ("2w", 1_209_600),
            ("1y", 31_536_000),
            ("1h30m", 5400),
            (" 1d 12h ", 129_600),
        ];
        for (text, seconds) in table {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "", "0s", "30", "d", "1x", "-1d", "1.5h", "5m1h", "1h1h", "1001y", "1ü",
        ] {
            assert!(parse(text).unwrap_err().contains("span of time"), "{text}");
        }
        assert!(parse("99999999999999999999y").is_err());
    }
}
