//! The arguments of an inline line, by the quoting rules of Redis (its function `sdssplitargs`).
//!
//! Arguments are separated by white space. Within double quotes `\n`, `\r`, `\t`, `\b`, `\a` and `\xHH` have their
//! meaning in C, and a backslash before any other byte stands for that byte; within single quotes only `\'` is
//! special. Quotes may begin in the middle of an argument, but end it: white space or the line's end must follow.

use super::ArgumentRange;

/// How the arguments of a line relate to its bytes.
pub(super) enum Split {
    /// The ranges are into the line.
    InPlace,
    /// The ranges are into these bytes.
    Unquoted(Vec<u8>),
}

/// Appends the arguments of `line`, which has no line end of its own any more, to `ranges`. `None` if quotes are
/// unbalanced.
///
/// The caller keeps `line` below 4 GiB.
pub(super) fn split(line: &[u8], ranges: &mut Vec<ArgumentRange>) -> Option<Split> {
    if line.iter().any(|byte| matches!(byte, b'"' | b'\'')) {
        return unquote(line, ranges).map(Split::Unquoted);
    }
    let mut position = skip_space(line, 0);
    while position < line.len() {
        let end = line[position..]
            .iter()
            .position(|&byte| ends_argument(byte))
            .map_or(line.len(), |at| position + at);
        ranges.push((position as u32, (end - position) as u32));
        position = skip_space(line, end);
    }
    Some(Split::InPlace)
}

fn unquote(line: &[u8], ranges: &mut Vec<ArgumentRange>) -> Option<Vec<u8>> {
    // No argument is longer than what it was written as, so this never grows.
    let mut bytes = Vec::with_capacity(line.len());
    let mut position = skip_space(line, 0);
    while position < line.len() {
        let start = bytes.len();
        position = loop {
            match line.get(position) {
                Some(b'"') => break closed(line, double_quoted(line, position + 1, &mut bytes)?)?,
                Some(b'\'') => break closed(line, single_quoted(line, position + 1, &mut bytes)?)?,
                Some(&byte) if !ends_argument(byte) => bytes.push(byte),
                _ => break position,
            }
            position += 1;
        };
        ranges.push((start as u32, (bytes.len() - start) as u32));
        position = skip_space(line, position);
    }
    Some(bytes)
}

/// Appends what stands between `position` and the closing double quote; returns the position behind it.
fn double_quoted(line: &[u8], mut position: usize, bytes: &mut Vec<u8>) -> Option<usize> {
    loop {
        match line[position..] {
            [] => return None,
            [b'"', ..] => return Some(position + 1),
            [b'\\', b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                bytes.push(hex_digit(high) << 4 | hex_digit(low));
                position += 4;
            }
            [b'\\', escaped, ..] => {
                bytes.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => other,
                });
                position += 2;
            }
            [byte, ..] => {
                bytes.push(byte);
                position += 1;
            }
        }
    }
}

/// Appends what stands between `position` and the closing single quote; returns the position behind it.
fn single_quoted(line: &[u8], mut position: usize, bytes: &mut Vec<u8>) -> Option<usize> {
    loop {
        match line[position..] {
            [] => return None,
            [b'\'', ..] => return Some(position + 1),
            [b'\\', b'\'', ..] => {
                bytes.push(b'\'');
                position += 2;
            }
            [byte, ..] => {
                bytes.push(byte);
                position += 1;
            }
        }
    }
}

/// `position`, if an argument may end there behind a closing quote.
fn closed(line: &[u8], position: usize) -> Option<usize> {
    line.get(position).is_none_or(|&byte| is_space(byte)).then_some(position)
}

fn skip_space(line: &[u8], position: usize) -> usize {
    line[position..].iter().position(|&byte| !is_space(byte)).map_or(line.len(), |at| position + at)
}

/// White space as C's `isspace`; `u8::is_ascii_whitespace` knows no vertical tab.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// Whether an argument without quotes ends before `byte`: vertical tab and form feed separate arguments, but do not
/// end one.
fn ends_argument(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}
