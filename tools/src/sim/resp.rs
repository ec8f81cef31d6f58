//! The clients' side of the protocol: requests written, replies read.
//!
//! Written apart from the server's parser and writer, so that a misunderstanding cannot hide in both.

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// A status.
    Simple(Vec<u8>),
    /// An error.
    Error(Vec<u8>),
    /// A number.
    Integer(i64),
    /// A string.
    Bulk(Vec<u8>),
    /// Nothing, in any form.
    Nil,
    /// A list; of a map, keys and values by turns.
    Array(Vec<Reply>),
}

impl Reply {
    /// The status OK.
    pub(crate) fn ok() -> Self {
        Self::Simple(b"OK".to_vec())
    }

    /// The reply as a trace shows it.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Simple(text) => format!("+{}", super::trace::shown(text)),
            Self::Error(text) => format!("-{}", super::trace::shown(text)),
            Self::Integer(number) => format!(":{number}"),
            Self::Bulk(bytes) => format!("\"{}\"", super::trace::shown(bytes)),
            Self::Nil => "nil".to_owned(),
            Self::Array(items) => {
                let items: Vec<String> = items.iter().take(8).map(Self::shown).collect();
                format!("[{}]", items.join(", "))
            }
        }
    }
}

/// Appends a request in the array form.
pub(crate) fn write_request(arguments: &[Vec<u8>], bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(format!("*{}\r\n", arguments.len()).as_bytes());
    for argument in arguments {
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
}

/// Appends a request in the inline form, if its arguments need no quotes; says whether they do not.
pub(crate) fn write_inline(arguments: &[Vec<u8>], bytes: &mut Vec<u8>) -> bool {
    let is_plain = |argument: &Vec<u8>| {
        (1..100).contains(&argument.len())
            && argument.iter().all(|byte| byte.is_ascii_alphanumeric() || b":-".contains(byte))
    };
    if !arguments.iter().all(is_plain) {
        return false;
    }
    bytes.extend_from_slice(&arguments.join(&b' '));
    bytes.extend_from_slice(b"\r\n");
    true
}

/// The first reply in `bytes` and its length; `None` if it has not arrived whole.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn read_reply(bytes: &[u8]) -> Result<Option<(Reply, usize)>, String> {
    let Some(line_end) = bytes.iter().position(|&byte| byte == b'\n') else {
        if bytes.len() > 4096 && !bytes.starts_with(b"+") && !bytes.starts_with(b"-") {
            return Err(format!("no line ends in {}", super::trace::shown(bytes)));
        }
        return Ok(None);
    };
    let refuse = || format!("malformed reply {}", super::trace::shown(bytes));
    let line = bytes[..line_end].strip_suffix(b"\r").ok_or_else(refuse)?;
    let (&kind, text) = line.split_first().ok_or_else(refuse)?;
    let behind = line_end + 1;
    let number =
        || std::str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok()).ok_or_else(refuse);
    let reply = match kind {
        b'+' => Reply::Simple(text.to_vec()),
        b'-' => Reply::Error(text.to_vec()),
        b':' => Reply::Integer(number()?),
        b'_' if text.is_empty() => Reply::Nil,
        b'$' | b'*' if text == b"-1" => Reply::Nil,
        b'$' | b'=' => {
            let length = usize::try_from(number()?).map_err(|_| refuse())?;
            let Some(body) = bytes.get(behind..behind + length + 2) else { return Ok(None) };
            let body = body.strip_suffix(b"\r\n").ok_or_else(refuse)?;
            let body = if kind == b'=' { body.get(4..).ok_or_else(refuse)? } else { body };
            return Ok(Some((Reply::Bulk(body.to_vec()), behind + length + 2)));
        }
        b'*' | b'%' | b'~' => {
            let count = usize::try_from(number()?).map_err(|_| refuse())?;
            let count = if kind == b'%' { 2 * count } else { count };
            let mut items = Vec::new();
            let mut at = behind;
            for _ in 0..count {
                let Some((item, length)) = read_reply(&bytes[at..])? else { return Ok(None) };
                items.push(item);
                at += length;
            }
            return Ok(Some((Reply::Array(items), at)));
        }
        _ => return Err(refuse()),
    };
    Ok(Some((reply, behind)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_whole_or_not_at_all() {
        let bytes = b"*4\r\n$2\r\na\n\r\n:-7\r\n$-1\r\n%1\r\n+k\r\n=5\r\ntxt:v\r\n+rest\r\n";
        let whole = bytes.len() - b"+rest\r\n".len();
        for length in 0..whole {
            assert_eq!(read_reply(&bytes[..length]), Ok(None), "{length}");
        }
        let items = vec![
            Reply::Bulk(b"a\n".to_vec()),
            Reply::Integer(-7),
            Reply::Nil,
            Reply::Array(vec![Reply::Simple(b"k".to_vec()), Reply::Bulk(b"v".to_vec())]),
        ];
        assert_eq!(read_reply(bytes), Ok(Some((Reply::Array(items), whole))));
    }

    #[test]
    fn malformed_replies_are_errors() {
        for bytes in [&b"hello\r\n"[..], b":x\r\n", b"+no return\n", b"$2\r\nabc\r\n", b"$-2\r\n", b"\r\n"] {
            assert!(read_reply(bytes).is_err(), "{}", bytes.escape_ascii());
        }
    }
}
