//! Decimal integers as Redis reads and writes them.

/// Parses a canonical decimal `i64`: no plus sign, no leading zeros, no spaces, no `-0`.
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let mut magnitude: u64 = 0;
    for &digit in digits {
        let value = digit.wrapping_sub(b'0');
        if value > 9 {
            return None;
        }
        // Nineteen digits never overflow a u64.
        magnitude = magnitude * 10 + u64::from(value);
    }
    if negative {
        (magnitude <= 1 << 63).then(|| (magnitude as i64).wrapping_neg())
    } else {
        i64::try_from(magnitude).ok()
    }
}

/// Writes `value` in decimal into `buffer` and returns the text.
pub fn format_i64(value: i64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut position = buffer.len();
    let mut rest = value.unsigned_abs();
    loop {
        position -= 1;
        buffer[position] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        position -= 1;
        buffer[position] = b'-';
    }
    &buffer[position..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_integers_round_trip() {
        let mut buffer = [0; 20];
        for value in [0, 1, -1, 9, 10, 99, 100, i64::MAX, i64::MIN, 1234567890123] {
            let text = format_i64(value, &mut buffer).to_vec();
            assert_eq!(text, value.to_string().as_bytes());
            assert_eq!(parse_i64(&text), Some(value));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in
            ["", "-", "+1", "01", "-0", " 1", "1 ", "1a", "9223372036854775808", "-9223372036854775809"]
        {
            assert_eq!(parse_i64(text.as_bytes()), None, "{text}");
        }
    }
}
