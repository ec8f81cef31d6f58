//! The one reply writer.
//!
//! Every reply of every command, in RESP2 and RESP3, is written by [`Reply`] straight into the output that
//! leaves for the client (or for the core that asked). Nothing else formats RESP.

use crate::number::format_i64;

/// The protocol version that a connection speaks, as HELLO set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Protocol {
    /// RESP2, the default.
    #[default]
    Resp2,
    /// RESP3.
    Resp3,
}

/// Writes one reply in the client's protocol version.
pub struct Reply<'a> {
    output: &'a mut Vec<u8>,
    protocol: Protocol,
}

impl<'a> Reply<'a> {
    /// A writer that appends to `output`.
    #[inline]
    pub fn new(output: &'a mut Vec<u8>, protocol: Protocol) -> Self {
        Self { output, protocol }
    }

    /// The protocol version that is written.
    #[inline]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// How many bytes the output holds so far.
    #[inline]
    pub fn position(&self) -> usize {
        self.output.len()
    }

    /// `+OK`.
    #[inline]
    pub fn ok(&mut self) {
        self.output.extend_from_slice(b"+OK\r\n");
    }

    /// A simple string; `text` has no line break.
    pub fn simple(&mut self, text: &str) {
        self.output.push(b'+');
        self.output.extend_from_slice(text.as_bytes());
        self.crlf();
    }

    /// An error. `text` begins with its code (`ERR`, `WRONGTYPE`, ...); line breaks become spaces.
    #[cold]
    pub fn error(&mut self, text: &str) {
        self.error_bytes(text.as_bytes());
    }

    /// An error whose text may quote what a client sent, which need not be UTF-8.
    #[cold]
    pub fn error_bytes(&mut self, text: &[u8]) {
        self.output.push(b'-');
        self.output.extend(text.iter().map(|&byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
        self.crlf();
    }

    /// An integer.
    #[inline]
    pub fn integer(&mut self, value: i64) {
        self.header(b':', value);
    }

    /// A boolean: `#t`/`#f` in RESP3, 1/0 in RESP2.
    pub fn boolean(&mut self, value: bool) {
        match (self.protocol, value) {
            (Protocol::Resp3, true) => self.output.extend_from_slice(b"#t\r\n"),
            (Protocol::Resp3, false) => self.output.extend_from_slice(b"#f\r\n"),
            (Protocol::Resp2, _) => self.integer(i64::from(value)),
        }
    }

    /// A bulk string.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.output.reserve(bytes.len() + 16);
        self.header(b'$', bytes.len() as i64);
        self.output.extend_from_slice(bytes);
        self.crlf();
    }

    /// An integer as a bulk string.
    pub fn bulk_integer(&mut self, value: i64) {
        self.bulk(format_i64(value, &mut [0; 20]));
    }

    /// Text for people: a verbatim string in RESP3, a bulk string in RESP2.
    pub fn verbatim(&mut self, text: &str) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text.as_bytes()),
            Protocol::Resp3 => {
                self.header(b'=', text.len() as i64 + 4);
                self.output.extend_from_slice(b"txt:");
                self.output.extend_from_slice(text.as_bytes());
                self.crlf();
            }
        }
    }

    /// A floating point number: a double in RESP3, a bulk string in RESP2.
    pub fn double(&mut self, text: &str) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text.as_bytes()),
            Protocol::Resp3 => {
                self.output.push(b',');
                self.output.extend_from_slice(text.as_bytes());
                self.crlf();
            }
        }
    }

    /// The absent value: a null bulk string in RESP2, null in RESP3.
    #[inline]
    pub fn null(&mut self) {
        self.output.extend_from_slice(match self.protocol {
            Protocol::Resp2 => b"$-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        });
    }

    /// The absent array: a null array in RESP2, null in RESP3.
    pub fn null_array(&mut self) {
        self.output.extend_from_slice(match self.protocol {
            Protocol::Resp2 => b"*-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        });
    }

    /// Begins an array of `length` elements.
    #[inline]
    pub fn array(&mut self, length: usize) {
        self.header(b'*', length as i64);
    }

    /// Begins a set of `length` elements; an array in RESP2.
    pub fn set(&mut self, length: usize) {
        self.header(if self.protocol == Protocol::Resp3 { b'~' } else { b'*' }, length as i64);
    }

    /// Begins a map of `pairs` keys and values; a flat array in RESP2.
    pub fn map(&mut self, pairs: usize) {
        match self.protocol {
            Protocol::Resp2 => self.header(b'*', pairs as i64 * 2),
            Protocol::Resp3 => self.header(b'%', pairs as i64),
        }
    }

    /// Begins an out-of-band push of `length` elements; an array in RESP2.
    pub fn push(&mut self, length: usize) {
        self.header(if self.protocol == Protocol::Resp3 { b'>' } else { b'*' }, length as i64);
    }

    /// Appends bytes that are a complete reply in this protocol version already.
    #[inline]
    pub fn raw(&mut self, reply: &[u8]) {
        self.output.extend_from_slice(reply);
    }

    /// Drops everything written from `position` on, so that an error can replace it.
    pub fn truncate(&mut self, position: usize) {
        self.output.truncate(position);
    }

    #[inline]
    fn header(&mut self, kind: u8, value: i64) {
        if (0..10).contains(&value) {
            self.output.extend_from_slice(&[kind, b'0' + value as u8, b'\r', b'\n']);
            return;
        }
        if (10..100).contains(&value) {
            let (tens, ones) = (value as u8 / 10, value as u8 % 10);
            self.output.extend_from_slice(&[kind, b'0' + tens, b'0' + ones, b'\r', b'\n']);
            return;
        }
        let mut line = [0; 24];
        let mut digits = [0; 20];
        let text = format_i64(value, &mut digits);
        line[0] = kind;
        line[1..=text.len()].copy_from_slice(text);
        line[text.len() + 1] = b'\r';
        line[text.len() + 2] = b'\n';
        self.output.extend_from_slice(&line[..text.len() + 3]);
    }

    #[inline]
    fn crlf(&mut self) {
        self.output.extend_from_slice(b"\r\n");
    }
}
