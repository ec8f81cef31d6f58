//! Replies, checked as they arrive.
//!
//! A reply may come in any pieces, and a large value is compared piece by piece: nothing of it is kept.

use crate::workload::{Key, Request, Workload};

/// The most of an unfinished line that is kept. Only an error is longer than a few bytes, and of it this much is
/// enough to quote.
const LINE_KEPT_LEN_BYTES_MAX: usize = 256;

/// What a whole reply was.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    /// What the request asks for.
    Right,
    /// The key has no value.
    Missing,
    /// An error, or not what the request asks for.
    Wrong(String),
}

/// Bytes after which replies and requests can no longer be told to belong together.
#[derive(Debug, PartialEq)]
pub(crate) struct Nonsense(pub(crate) String);

/// Reads the replies of one connection.
#[derive(Default)]
pub(crate) struct ReplyReader {
    /// The beginning of an unfinished line.
    line: Vec<u8>,
    /// The bulk string under way.
    body: Option<Body>,
    any_value: bool,
}

struct Body {
    length: usize,
    /// How much of it, and of the `\r\n` after it, has arrived.
    arrived: usize,
    verdict: Verdict,
}

impl ReplyReader {
    /// A reader that compares values, or with `any_value` takes every one for right.
    pub(crate) fn new(any_value: bool) -> Self {
        Self { any_value, ..Self::default() }
    }

    /// Reads on in the reply to `request`. Returns how many of `bytes` belong to it, and what it was once it is whole.
    #[inline]
    pub(crate) fn read(
        &mut self,
        bytes: &[u8],
        request: &Request,
        workload: &Workload,
    ) -> Result<(usize, Option<Verdict>), Nonsense> {
        if self.body.is_some() {
            return Ok(self.read_body(bytes, request, workload));
        }
        let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
            self.keep(bytes);
            return Ok((bytes.len(), None));
        };
        let consumed = end + 1;
        let first = if self.line.is_empty() {
            self.read_line(&bytes[..end], request, workload)
        } else {
            self.keep(&bytes[..end]);
            let mut line = std::mem::take(&mut self.line);
            let first = self.read_line(&line, request, workload);
            line.clear();
            self.line = line;
            first
        };
        match first? {
            Some(verdict) => Ok((consumed, Some(verdict))),
            None => {
                let (of_body, verdict) = self.read_body(&bytes[consumed..], request, workload);
                Ok((consumed + of_body, verdict))
            }
        }
    }

    /// Reads a whole line without its `\n`. `None`: a bulk string follows.
    #[inline]
    fn read_line(
        &mut self,
        line: &[u8],
        request: &Request,
        workload: &Workload,
    ) -> Result<Option<Verdict>, Nonsense> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match (line.first(), request) {
            (Some(b'+'), Request::Set) if line == b"+OK" => Ok(Some(Verdict::Right)),
            (Some(b':'), Request::Increment) => Ok(Some(Verdict::Right)),
            (Some(b':'), Request::Expire) if line == b":1" => Ok(Some(Verdict::Right)),
            (Some(b':'), Request::Expire) if line == b":0" => Ok(Some(Verdict::Missing)),
            (Some(b'$' | b'_'), Request::Get(_)) if line == b"$-1" || line == b"_" => {
                Ok(Some(Verdict::Missing))
            }
            (Some(b'$'), _) if line != b"$-1" => {
                let length = std::str::from_utf8(&line[1..]).ok().and_then(|digits| digits.parse().ok());
                let length = length.ok_or_else(|| Nonsense(format!("a reply of length {}", quoted(line))))?;
                let verdict = match request {
                    Request::Get(_) if self.any_value || length == workload.value_len_bytes() => {
                        Verdict::Right
                    }
                    Request::Get(_) => Verdict::Wrong(format!("a value of {length} bytes")),
                    Request::Set | Request::Increment | Request::Expire => {
                        Verdict::Wrong("an unexpected bulk string".into())
                    }
                };
                self.body = Some(Body { length, arrived: 0, verdict });
                Ok(None)
            }
            (Some(b'-'), _) => Ok(Some(Verdict::Wrong(quoted(&line[1..])))),
            (Some(b'+' | b':' | b'_' | b'$'), _) => Ok(Some(Verdict::Wrong(quoted(line)))),
            _ => Err(Nonsense(format!("a reply that begins with {}", quoted(line)))),
        }
    }

    #[inline]
    fn read_body(
        &mut self,
        bytes: &[u8],
        request: &Request,
        workload: &Workload,
    ) -> (usize, Option<Verdict>) {
        let body = self.body.as_mut().expect("called for a body only");
        let consumed = bytes.len().min(body.length + 2 - body.arrived);
        if let (Request::Get(key), Verdict::Right, false) = (request, &body.verdict, self.any_value) {
            let piece = &bytes[..consumed.min(body.length.saturating_sub(body.arrived))];
            if !workload.value_has(key, body.arrived.min(body.length), piece) {
                body.verdict = Verdict::Wrong(wrong_value(key));
            }
        }
        body.arrived += consumed;
        if body.arrived < body.length + 2 {
            return (consumed, None);
        }
        (consumed, self.body.take().map(|body| body.verdict))
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = LINE_KEPT_LEN_BYTES_MAX.saturating_sub(self.line.len());
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

#[cold]
fn wrong_value(key: &Key) -> String {
    format!("another value than was set for {}", quoted(key))
}

#[cold]
fn quoted(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(LINE_KEPT_LEN_BYTES_MAX)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Operation;

    const GET: Request = Request::Get(*b"key:000000000001");

    /// Reads `stream` as replies to `requests`, in two pieces for every place to split it, and byte by byte.
    fn verdicts(stream: &str, requests: &[Request]) -> Result<Vec<Verdict>, Nonsense> {
        let workload = Workload::new(Operation::Get, 1000, true, "key:", 20, None, 1);
        let stream = stream.as_bytes();
        let read = |pieces: &[&[u8]]| {
            let mut reader = ReplyReader::default();
            let mut verdicts = Vec::new();
            for piece in pieces {
                let mut rest = *piece;
                while !rest.is_empty() {
                    let request = requests.get(verdicts.len()).unwrap_or(&Request::Set);
                    let (consumed, verdict) = reader.read(rest, request, &workload)?;
                    assert!(consumed > 0, "no progress");
                    verdicts.extend(verdict);
                    rest = &rest[consumed..];
                }
            }
            Ok(verdicts)
        };
        let whole = read(&[stream]);
        for split in 0..stream.len() {
            assert_eq!(read(&[&stream[..split], &stream[split..]]), whole, "split at {split}");
        }
        assert_eq!(read(&stream.chunks(1).collect::<Vec<_>>()), whole);
        whole
    }

    #[test]
    fn right_replies_are_right() {
        let stream = "+OK\r\n$20\r\nkey:000000000001qrst\r\n:-12\r\n:1\r\n$-1\r\n_\r\n:0\r\n";
        let requests = [Request::Set, GET, Request::Increment, Request::Expire, GET, GET, Request::Expire];
        use Verdict::{Missing, Right};
        assert_eq!(
            verdicts(stream, &requests),
            Ok(vec![Right, Right, Right, Right, Missing, Missing, Missing])
        );
    }

    #[test]
    fn wrong_replies_are_told_apart_and_do_not_disturb_the_next() {
        let wrong = |text: &str| Verdict::Wrong(text.into());
        for (reply, request, verdict) in [
            ("-ERR no\r\n", GET, wrong("ERR no")),
            ("+QUEUED\r\n", Request::Set, wrong("+QUEUED")),
            ("+OK\r\n", GET, wrong("+OK")),
            (":1\r\n", Request::Set, wrong(":1")),
            (":2\r\n", Request::Expire, wrong(":2")),
            ("$-1\r\n", Request::Set, wrong("$-1")),
            ("$2\r\nOK\r\n", Request::Set, wrong("an unexpected bulk string")),
            ("$0\r\n\r\n", GET, wrong("a value of 0 bytes")),
            (
                "$20\r\nkey:000000000002qrst\r\n",
                GET,
                wrong("another value than was set for key:000000000001"),
            ),
            (
                "$20\r\nkey:000000000001qrsT\r\n",
                GET,
                wrong("another value than was set for key:000000000001"),
            ),
        ] {
            let expected = Ok(vec![verdict, Verdict::Right]);
            assert_eq!(verdicts(&format!("{reply}+OK\r\n"), &[request, Request::Set]), expected);
        }
    }

    #[test]
    fn nonsense_ends_the_run() {
        for stream in ["HTTP/1.1 400\r\n", "*1\r\n:1\r\n", "$twelve\r\n", "\r\n"] {
            assert!(verdicts(stream, &[GET]).is_err(), "{stream:?}");
        }
    }
}
