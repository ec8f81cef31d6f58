//! As much of gRPC as a put to etcd takes: what `etcdctl check perf` does, with other numbers of clients and lengths.
//!
//! One call at a time on each connection, over HTTP/2 without TLS. No header of an answer is read: of a call that went well the
//! answer has a message, and of one that did not it has none. Neither is the server's window counted, because it gives back what
//! it has read long before one request at a time can use it up; it would say so with an error.

use crate::{
    closed_loop::{Dialogue, Heard, random},
    failure::{Failure, Result},
};

const HEAD_LEN_BYTES: usize = 9;

/// Longer frames than a server may send without being told that it may.
const FRAME_LEN_BYTES_MAX: usize = 16 << 10;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

/// Of DATA and HEADERS: the last frame of its stream. Of SETTINGS and PING: an acknowledgement.
const LAST: u8 = 1;
const END_HEADERS: u8 = 4;

/// What brings the window for all answers from 65,535 bytes to as many as there can be.
const WINDOW_BYTES_MORE: u32 = 0x7fff_0000;

/// Puts of random keys.
pub(crate) struct Puts {
    keys: u64,
    value: Vec<u8>,
    random: u64,
    headers: Vec<u8>,
    stream: u32,
    /// Whether the present call's answer has a message.
    has_message: bool,
}

impl Puts {
    /// Values of `value_len_bytes` for so many keys; `seed` tells connections apart.
    pub(crate) fn new(keys: u64, value_len_bytes: usize, seed: u64) -> Self {
        // Indices and prefixes of HPACK (RFC 7541): POST, http, then literals that no table remembers.
        let mut headers = vec![0x83, 0x86];
        let mut literal = |name: &[u8], value: &str| {
            headers.extend_from_slice(name);
            headers.push(value.len() as u8);
            headers.extend_from_slice(value.as_bytes());
        };
        literal(&[0x04], "/etcdserverpb.KV/Put");
        literal(&[0x01], "127.0.0.1");
        // content-type
        literal(&[0x0f, 0x10], "application/grpc");
        literal(b"\x00\x02te", "trailers");
        Self {
            keys,
            value: vec![b'x'; value_len_bytes],
            random: seed,
            headers,
            stream: 1,
            has_message: false,
        }
    }
}

impl Dialogue for Puts {
    fn greet(&mut self, output: &mut Vec<u8>) {
        output.extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        frame(output, SETTINGS, 0, 0, &[]);
        frame(output, WINDOW_UPDATE, 0, 0, &WINDOW_BYTES_MORE.to_be_bytes());
    }

    fn ask(&mut self, output: &mut Vec<u8>) {
        let key = format!("key:{:012}", random(&mut self.random) % self.keys);
        let mut message = Vec::with_capacity(self.value.len() + 32);
        // Fields 1 and 2 of PutRequest.
        for (tag, bytes) in [(0x0a, key.as_bytes()), (0x12, &self.value[..])] {
            message.push(tag);
            let mut len = bytes.len();
            while len >= 0x80 {
                message.push(len as u8 | 0x80);
                len >>= 7;
            }
            message.push(len as u8);
            message.extend_from_slice(bytes);
        }
        // A message that is not compressed, and its length.
        let mut data = vec![0];
        data.extend_from_slice(&(message.len() as u32).to_be_bytes());
        data.extend_from_slice(&message);
        frame(output, HEADERS, END_HEADERS, self.stream, &self.headers);
        frame(output, DATA, LAST, self.stream, &data);
    }

    fn hear(&mut self, input: &[u8], output: &mut Vec<u8>, heard: &mut Heard) -> Result<usize> {
        let mut consumed = 0;
        while let Some((head, rest)) = input[consumed..].split_at_checked(HEAD_LEN_BYTES) {
            let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            if len > FRAME_LEN_BYTES_MAX {
                return Err(Failure::new(format!("a frame of {len} bytes came")));
            }
            let Some(payload) = rest.get(..len) else { break };
            let (kind, is_last) = (head[3], head[4] & LAST != 0);
            consumed += HEAD_LEN_BYTES + len;
            match kind {
                SETTINGS if !is_last => frame(output, SETTINGS, LAST, 0, &[]),
                PING if !is_last => frame(output, PING, LAST, 0, payload),
                DATA => self.has_message |= len > 0,
                HEADERS if is_last => self.end(heard, "a put was refused"),
                RST_STREAM => {
                    self.has_message = false;
                    self.end(heard, "a put was cut off");
                }
                GOAWAY => {
                    let text = String::from_utf8_lossy(payload.get(8..).unwrap_or_default()).into_owned();
                    return Err(Failure::new(format!("etcd says goodbye: {}", text.escape_debug())));
                }
                _ => {}
            }
        }
        Ok(consumed)
    }
}

impl Puts {
    fn end(&mut self, heard: &mut Heard, otherwise: &str) {
        if std::mem::take(&mut self.has_message) {
            heard.answers += 1;
        } else {
            heard.error(otherwise);
        }
        self.stream = (self.stream + 2) & (u32::MAX >> 1);
    }
}

fn frame(output: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    output.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    output.extend_from_slice(&[kind, flags]);
    output.extend_from_slice(&stream.to_be_bytes());
    output.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_is_a_message_in_two_frames() {
        let mut puts = Puts::new(1, 200, 1);
        let mut output = Vec::new();
        puts.ask(&mut output);
        let (headers, data) = output.split_at(HEAD_LEN_BYTES + puts.headers.len());
        assert_eq!(headers[3..9], [HEADERS, END_HEADERS, 0, 0, 0, 1]);
        assert_eq!(data[..9], [0, 0, 226, DATA, LAST, 0, 0, 0, 1]);
        assert_eq!(data[9..16], [0, 0, 0, 0, 221, 0x0a, 16]);
        assert_eq!(&data[16..32], b"key:000000000000");
        assert_eq!(data[32..36], [0x12, 0xc8, 1, b'x']);
        assert_eq!(data.len(), 9 + 226);
    }

    #[test]
    fn an_answer_without_a_message_is_an_error() {
        let mut puts = Puts::new(1, 1, 1);
        let (mut input, mut output, mut heard) = (Vec::new(), Vec::new(), Heard::default());
        frame(&mut input, SETTINGS, 0, 0, &[0; 6]);
        frame(&mut input, PING, 0, 0, &[7; 8]);
        frame(&mut input, HEADERS, END_HEADERS, 1, &[0x88]);
        frame(&mut input, DATA, 0, 1, &[0; 20]);
        frame(&mut input, HEADERS, END_HEADERS | LAST, 1, &[0x88]);
        frame(&mut input, HEADERS, END_HEADERS | LAST, 3, &[0x88]);
        let whole = input.len();
        input.extend_from_slice(&[0, 0, 4, DATA]);
        assert_eq!(puts.hear(&input, &mut output, &mut heard).unwrap(), whole);
        assert_eq!((heard.answers, heard.errors, puts.stream), (1, 1, 5));
        let mut expected = Vec::new();
        frame(&mut expected, SETTINGS, LAST, 0, &[]);
        frame(&mut expected, PING, LAST, 0, &[7; 8]);
        assert_eq!(output, expected);
        assert!(puts.hear(&[1, 0, 0, 0, 0, 0, 0, 0, 0], &mut output, &mut heard).is_err());
        let mut goodbye = Vec::new();
        frame(&mut goodbye, GOAWAY, 0, 0, b"12345678too_many_pings");
        let error = puts.hear(&goodbye, &mut output, &mut heard).unwrap_err();
        assert!(error.to_string().contains("too_many_pings"));
    }
}
