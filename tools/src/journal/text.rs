//! How things are written for people.

use std::fmt::{self, Write as _};

/// An id as it is shown: 32 hexadecimal digits.
pub(super) struct Id<'a>(pub(super) &'a [u8; 16]);

impl fmt::Display for Id<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// A time in milliseconds since the Unix epoch, as UTC.
pub(super) struct Time(pub(super) u64);

impl fmt::Display for Time {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAY_MS: u64 = 86_400_000;
        let (year, month, day) = date(self.0 / DAY_MS);
        let ms = self.0 % DAY_MS;
        let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
        let text =
            format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1000);
        formatter.pad(&text)
    }
}

/// Year, month and day of the Gregorian calendar, so many days after 1970-01-01. Years are counted from March on, so that
/// the day that may be missing is the last one: Howard Hinnant's `civil_from_days`.
fn date(days: u64) -> (u64, u64, u64) {
    const DAYS_TO_1970: u64 = 719_468;
    const ERA_DAYS: u64 = 146_097;
    let days = days + DAYS_TO_1970;
    let (era, day) = (days / ERA_DAYS, days % ERA_DAYS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next_year, month, day_of_month)
}

/// Appends arguments, quoted as redis-cli quotes them, up to `width` columns or little more. What is left out is counted.
pub(super) fn push_arguments<'a>(
    text: &mut String,
    arguments: impl ExactSizeIterator<Item = &'a [u8]>,
    width: usize,
) {
    let end = text.len().saturating_add(width);
    let count = arguments.len();
    for (number, argument) in arguments.enumerate() {
        if number > 0 {
            text.push(' ');
        }
        if text.len() >= end {
            write!(text, "... {} more arguments", count - number).expect("a string takes everything");
            return;
        }
        push_quoted(text, argument, end);
    }
}

/// Appends an argument in quotes; where the text has `end` bytes, it is cut.
fn push_quoted(text: &mut String, argument: &[u8], end: usize) {
    text.push('"');
    for (place, byte) in argument.iter().enumerate() {
        if text.len() >= end && place > 0 {
            write!(text, "\"... {} more bytes", argument.len() - place).expect("a string takes everything");
            return;
        }
        match byte {
            b'\\' | b'"' => text.extend(['\\', char::from(*byte)]),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            0x07 => text.push_str("\\a"),
            0x08 => text.push_str("\\b"),
            b' '..=b'~' => text.push(char::from(*byte)),
            _ => write!(text, "\\x{byte:02x}").expect("a string takes everything"),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_200_001, "2024-03-01T00:00:00.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(Time(ms).to_string(), text);
        }
        assert!(!Time(u64::MAX).to_string().is_empty());
    }

    fn quoted(arguments: &[&[u8]], width: usize) -> String {
        let mut text = String::new();
        push_arguments(&mut text, arguments.iter().copied(), width);
        text
    }

    #[test]
    fn arguments_are_quoted_as_redis_cli_does() {
        let hostile = b"a \"b\" \\ \n\r\t\x07\x08\x1b[31m\xff";
        let expected = r#""SET" "a \"b\" \\ \n\r\t\a\b\x1b[31m\xff" """#;
        assert_eq!(quoted(&[b"SET", hostile, b""], 100), expected);
    }

    #[test]
    fn what_is_too_wide_is_cut_and_counted() {
        assert_eq!(
            quoted(&[b"SET", b"key", &[b'x'; 1000]], 20),
            r#""SET" "key" "xxxxxxx"... 993 more bytes"#
        );
        assert_eq!(quoted(&[b"DEL", b"a", b"b", b"c"], 8), r#""DEL" "a" ... 2 more arguments"#);
        assert_eq!(quoted(&[b"DEL", b"a"], 0), "... 2 more arguments");
        assert_eq!(quoted(&[], 0), "");
    }
}
