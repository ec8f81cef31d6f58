//! Requests and replies as a client sees them: bytes on the wire.
//!
//! Invariants:
//! - A reply keeps everything that distinguishes it on the wire: its type byte and which of the three
//!   nulls it is. Two equal replies were equal bytes.
//! - The parser refuses what RESP2 and RESP3 do not allow, so a malformed reply never passes as a reply.

use std::fmt::{self, Write as _};

/// Aggregates nested deeper than this are not a reply any command gives.
const DEPTH_MAX: usize = 16;

/// One complete reply.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reply {
    /// A type whose whole value is one line: `+ - : , # (`.
    Line(u8, Vec<u8>),
    /// A type with a length in front: `$ =`.
    Text(u8, Vec<u8>),
    /// `$-1`, `*-1` or `_`, told apart by the type byte.
    Null(u8),
    /// An aggregate: `* ~ > %`; a map's keys and values follow one another.
    Items(u8, Vec<Self>),
}

impl Reply {
    /// The type byte.
    pub fn kind(&self) -> u8 {
        match self {
            Self::Line(kind, _) | Self::Text(kind, _) | Self::Null(kind) | Self::Items(kind, _) => *kind,
        }
    }

    /// Whether this is an error.
    pub fn is_error(&self) -> bool {
        self.kind() == b'-'
    }

    /// Whether this is one of the nulls.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null(_))
    }

    /// Whether this is the status `text`.
    pub fn is_status(&self, text: &str) -> bool {
        matches!(self, Self::Line(b'+', bytes) if bytes == text.as_bytes())
    }

    /// An integer's value.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Line(b':', digits) => std::str::from_utf8(digits).ok()?.parse().ok(),
            _ => None,
        }
    }

    /// The bytes of a status, error, number or string.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Line(_, bytes) | Self::Text(_, bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The elements of an aggregate.
    pub fn items(&self) -> Option<&[Self]> {
        match self {
            Self::Items(_, items) => Some(items),
            _ => None,
        }
    }

    /// The reply with its elements in sorted order; a map's keys stay with their values.
    pub fn sorted(self) -> Self {
        match self {
            Self::Items(b'%', items) => {
                let mut pairs: Vec<_> = items.chunks(2).map(<[Self]>::to_vec).collect();
                pairs.sort();
                Self::Items(b'%', pairs.concat())
            }
            Self::Items(kind, mut items) => {
                items.sort();
                Self::Items(kind, items)
            }
            other => other,
        }
    }

    /// As [`Self::sorted`], on every level.
    pub fn sorted_deeply(self) -> Self {
        match self {
            Self::Items(kind, items) => {
                Self::Items(kind, items.into_iter().map(Self::sorted_deeply).collect()).sorted()
            }
            other => other,
        }
    }

    /// Types and lengths only: every value is dropped, nested ones too.
    pub fn shape(self) -> Self {
        match self {
            Self::Line(kind, _) => Self::Line(kind, Vec::new()),
            Self::Text(kind, _) => Self::Text(kind, Vec::new()),
            Self::Null(kind) => Self::Null(kind),
            Self::Items(kind, items) => Self::Items(kind, items.into_iter().map(Self::shape).collect()),
        }
    }

    /// The bytes of the reply on the wire.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_into(&mut out);
        out
    }

    fn encode_into(&self, out: &mut Vec<u8>) {
        let length_line = |out: &mut Vec<u8>, length: usize| {
            out.extend_from_slice(length.to_string().as_bytes());
            out.extend_from_slice(b"\r\n");
        };
        out.push(self.kind());
        match self {
            Self::Line(_, text) => {
                out.extend_from_slice(text);
                out.extend_from_slice(b"\r\n");
            }
            Self::Text(_, bytes) => {
                length_line(out, bytes.len());
                out.extend_from_slice(bytes);
                out.extend_from_slice(b"\r\n");
            }
            Self::Null(b'_') => out.extend_from_slice(b"\r\n"),
            Self::Null(_) => out.extend_from_slice(b"-1\r\n"),
            Self::Items(kind, items) => {
                length_line(out, if *kind == b'%' { items.len() / 2 } else { items.len() });
                items.iter().for_each(|item| item.encode_into(out));
            }
        }
    }
}

/// Escaped for a terminal, cut after some hundred characters.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encoded = self.encode();
        let shown = encoded.len().min(600);
        write!(f, "{}", encoded[..shown].escape_ascii())?;
        if shown < encoded.len() { write!(f, "... ({} bytes)", encoded.len()) } else { Ok(()) }
    }
}

/// Reads one reply from the front of `bytes`: the reply and how many bytes it took, or `None` when
/// more bytes are needed.
///
/// # Errors
/// A sentence, when `bytes` does not begin with a reply.
pub fn parse(bytes: &[u8]) -> Result<Option<(Reply, usize)>, String> {
    let mut position = 0;
    Ok(parse_at(bytes, &mut position, 0)?.map(|reply| (reply, position)))
}

fn parse_at(bytes: &[u8], position: &mut usize, depth: usize) -> Result<Option<Reply>, String> {
    if depth > DEPTH_MAX {
        return Err("a reply nested too deeply".to_owned());
    }
    let rest = &bytes[*position..];
    let Some(&kind) = rest.first() else { return Ok(None) };
    if !b"+-:,#($=_*~>%".contains(&kind) {
        return Err(format!("no reply begins with '{}'", rest[..rest.len().min(80)].escape_ascii()));
    }
    let Some(line_end) = rest.windows(2).position(|pair| pair == b"\r\n") else {
        // Only a line that is a value may be long, and none of them is as long as this.
        return if rest.len() > 1 << 20 { Err("a line without an end".to_owned()) } else { Ok(None) };
    };
    let line = &rest[1..line_end];
    let after_line = *position + line_end + 2;
    match kind {
        b'+' | b'-' | b':' | b',' | b'#' | b'(' => {
            if kind == b':' && number(line).is_none() {
                return Err(format!("not an integer: '{}'", line.escape_ascii()));
            }
            *position = after_line;
            Ok(Some(Reply::Line(kind, line.to_vec())))
        }
        b'_' if line.is_empty() => {
            *position = after_line;
            Ok(Some(Reply::Null(kind)))
        }
        b'$' | b'*' if line == b"-1" => {
            *position = after_line;
            Ok(Some(Reply::Null(kind)))
        }
        _ => {
            let length = number(line).and_then(|length| usize::try_from(length).ok());
            let Some(length) = length else {
                return Err(format!("not a length: '{}{}'", char::from(kind), line.escape_ascii()));
            };
            if matches!(kind, b'$' | b'=') {
                text(bytes, position, kind, after_line, length)
            } else {
                items(bytes, position, kind, after_line, length, depth)
            }
        }
    }
}

fn text(
    bytes: &[u8],
    position: &mut usize,
    kind: u8,
    start: usize,
    length: usize,
) -> Result<Option<Reply>, String> {
    let Some(with_end) = bytes.get(start..start + length + 2) else { return Ok(None) };
    let (value, end) = with_end.split_at(length);
    if end != b"\r\n" {
        return Err(format!("a string of {length} bytes is followed by '{}'", end.escape_ascii()));
    }
    *position = start + length + 2;
    Ok(Some(Reply::Text(kind, value.to_vec())))
}

fn items(
    bytes: &[u8],
    position: &mut usize,
    kind: u8,
    start: usize,
    length: usize,
    depth: usize,
) -> Result<Option<Reply>, String> {
    let count = if kind == b'%' { 2 * length } else { length };
    let mut items = Vec::new();
    let mut next = start;
    for _ in 0..count {
        match parse_at(bytes, &mut next, depth + 1)? {
            Some(item) => items.push(item),
            None => return Ok(None),
        }
    }
    *position = next;
    Ok(Some(Reply::Items(kind, items)))
}

fn number(digits: &[u8]) -> Option<i64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Appends a request: an array of bulk strings.
pub fn encode_request<A: AsRef<[u8]>>(arguments: &[A], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", arguments.len()).as_bytes());
    for argument in arguments {
        let argument = argument.as_ref();
        out.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        out.extend_from_slice(argument);
        out.extend_from_slice(b"\r\n");
    }
}

/// A request as a person would type it, cut after some hundred characters.
pub fn show_request<A: AsRef<[u8]>>(arguments: &[A]) -> String {
    let mut out = String::new();
    for argument in arguments {
        let argument = argument.as_ref();
        let separator = if out.is_empty() { "" } else { " " };
        if argument.len() > 200 {
            let _ = write!(out, "{separator}<{} bytes>", argument.len());
        } else if argument.is_empty()
            || argument.iter().any(|byte| !byte.is_ascii_graphic() || b"\"'\\".contains(byte))
        {
            let _ = write!(out, "{separator}\"{}\"", argument.escape_ascii());
        } else {
            let _ = write!(out, "{separator}{}", argument.escape_ascii());
        }
    }
    out
}
