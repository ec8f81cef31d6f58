//! What the three servers share: finding requests in bytes, and answering them without looking further.
//!
//! Crude on purpose. It must cost the same, and little, whatever carries the bytes, so that the carriers are what is
//! compared. It trusts its client.

/// The value of every key.
const VALUE: &[u8] = b"$64\r\n0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r\n";

/// Answers all requests that are whole and returns how many bytes they were. `None`: these are no requests.
#[inline]
pub(crate) fn answer(input: &[u8], output: &mut Vec<u8>) -> Option<usize> {
    let mut start = 0;
    while let Some(request) = Request::first_of(&input[start..])? {
        output.extend_from_slice(match request.name {
            [b'G' | b'g', ..] => VALUE,
            [b'P' | b'p', ..] => b"+PONG\r\n",
            // redis-benchmark asks for two settings before it begins.
            [b'C' | b'c', ..] => b"*2\r\n$4\r\nsave\r\n$0\r\n\r\n",
            _ => b"+OK\r\n",
        });
        start += request.len_bytes;
    }
    Some(start)
}

struct Request<'a> {
    name: &'a [u8],
    len_bytes: usize,
}

impl<'a> Request<'a> {
    /// The first request in `bytes`: `Some(None)` if it is not whole, `None` if there is none.
    #[inline]
    fn first_of(bytes: &'a [u8]) -> Option<Option<Self>> {
        let mut name: Option<&[u8]> = None;
        let Some((count, mut position)) = header(bytes, b'*')? else { return Some(None) };
        for _ in 0..count {
            let Some((length, header_len_bytes)) = header(&bytes[position..], b'$')? else {
                return Some(None);
            };
            let start = position + header_len_bytes;
            position = start + length + 2;
            if position > bytes.len() {
                return Some(None);
            }
            name.get_or_insert(&bytes[start..start + length]);
        }
        Some(Some(Self { name: name.unwrap_or_default(), len_bytes: position }))
    }
}

/// The number after `marker` and the length of its line: `Some(None)` if it is not whole, `None` if it is none.
#[inline]
fn header(bytes: &[u8], marker: u8) -> Option<Option<(usize, usize)>> {
    let Some((&first, rest)) = bytes.split_first() else { return Some(None) };
    if first != marker {
        return None;
    }
    let mut number = 0_usize;
    for (index, &byte) in rest.iter().enumerate() {
        match byte {
            b'0'..=b'9' if number < 1 << 30 => number = number * 10 + usize::from(byte - b'0'),
            b'\r' => return Some((rest.len() > index + 1).then_some((number, index + 3))),
            _ => return None,
        }
    }
    Some(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_split_gives_the_same_replies() {
        let stream =
            b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1\r\n$4\r\nPING\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\n\r\n\r\n";
        let expected = [VALUE, b"+PONG\r\n", b"+OK\r\n"].concat();
        for split in 0..=stream.len() {
            let mut output = Vec::new();
            let consumed = answer(&stream[..split], &mut output).unwrap();
            assert_eq!(answer(&stream[consumed..], &mut output), Some(stream.len() - consumed));
            assert_eq!(output, expected, "split at {split}");
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for bytes in [&b"GET k\r\n"[..], b"*x\r\n", b"*1\r\n+OK\r\n", b"*99999999999999999999\r\n"] {
            assert_eq!(answer(bytes, &mut Vec::new()), None);
        }
    }
}
