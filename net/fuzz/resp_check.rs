//! What holds for the request parser on any input; shared by the fuzz target and the crate's own tests, which both
//! have the parser's items in the parent module.
//!
//! Two programs read a stream: [`Receiver`] drives the parser piece by piece as a connection does, large bulks
//! included; [`model`] is written independently of it, for whole streams, as plainly as the rules can be put. They
//! must agree on every request, every argument, where each request ends, and the error, however the stream is cut.

use super::{ArgumentRange, LARGE_ARGUMENT, Limits, Parser, Progress, ProtocolError};

/// One thing a stream holds, and the offset in the stream where it ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// A request's arguments.
    Request(Vec<Vec<u8>>, usize),
    /// A request without arguments.
    Empty(usize),
    /// Why nothing after the last request could be read.
    Error(ProtocolError),
}

/// Checks one fuzz input: a byte that chooses limits, a byte that chooses cuts, and the stream.
pub(crate) fn check(data: &[u8]) {
    let [limits, cuts, stream @ ..] = data else { return };
    let limits = Limits {
        bulk_len_bytes_max: if limits & 1 == 0 { 64 } else { 1 << 20 },
        multibulk_len_max: if limits & 2 == 0 { 12 } else { i32::MAX as u32 },
        inline_len_bytes_max: if limits & 4 == 0 { 24 } else { 200 },
        large_bulk_bytes_min: [0, 3, 20, usize::MAX][usize::from(limits >> 3 & 3)],
        authenticated: limits & 32 == 0,
    };
    check_stream(stream, &limits, u64::from(*cuts));
}

/// Checks that the parser agrees with the model on `stream`, whole, byte by byte, and cut at random.
pub(crate) fn check_stream(stream: &[u8], limits: &Limits, seed: u64) {
    let expected = model(stream, limits);
    assert_eq!(receive([stream], limits), expected, "whole");
    assert_eq!(receive(stream.chunks(1), limits), expected, "byte by byte");
    let in_place = Limits { large_bulk_bytes_min: usize::MAX, ..*limits };
    assert_eq!(receive(Cuts::new(stream, seed), &in_place), expected, "cut, in place");
    for seed in [seed, !seed] {
        assert_eq!(receive(Cuts::new(stream, seed), limits), expected, "cut by seed {seed}");
    }
}

/// What a connection makes of a stream that arrives in these pieces.
pub(crate) fn receive<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: &Limits) -> Vec<Outcome> {
    let mut receiver = Receiver::default();
    for piece in pieces {
        if !receiver.receive(piece, limits) {
            break;
        }
    }
    receiver.outcomes
}

/// A connection's part in parsing.
#[derive(Default)]
struct Receiver {
    parser: Parser,
    /// The unfinished request.
    input: Vec<u8>,
    ranges: Vec<ArgumentRange>,
    large: Vec<Vec<u8>>,
    /// The large bulk under way, and its length without the two bytes after it.
    receiving: Option<(Vec<u8>, usize)>,
    /// Bytes of the stream before `input`, or cut out of it.
    taken: usize,
    outcomes: Vec<Outcome>,
}

impl Receiver {
    /// Takes the next bytes of the stream; false after an error.
    fn receive(&mut self, mut piece: &[u8], limits: &Limits) -> bool {
        if let Some((mut bytes, length)) = self.receiving.take() {
            let (more, rest) = piece.split_at(piece.len().min(length + 2 - bytes.len()));
            bytes.extend_from_slice(more);
            if bytes.len() < length + 2 {
                self.receiving = Some((bytes, length));
                return true;
            }
            self.taken += bytes.len();
            bytes.truncate(length);
            self.parser.large_received(self.large.len() as u32, &mut self.ranges);
            self.large.push(bytes);
            piece = rest;
        }
        self.input.extend_from_slice(piece);
        loop {
            let before = self.ranges.clone();
            let progress = self.parser.parse(&self.input, &mut self.ranges, limits);
            assert!(self.ranges.starts_with(&before), "ranges found before were changed");
            match progress {
                Progress::Complete { consumed } => {
                    let arguments = self.arguments(&self.input[..consumed]);
                    self.finish(consumed, Outcome::Request(arguments, self.taken + consumed));
                }
                Progress::Unquoted { consumed, bytes } => {
                    assert!(bytes.len() <= consumed, "unquoting made a line longer");
                    let arguments = self.arguments(&bytes);
                    self.finish(consumed, Outcome::Request(arguments, self.taken + consumed));
                }
                Progress::Empty { consumed } => {
                    assert!(
                        self.ranges.is_empty() && self.large.is_empty(),
                        "an empty request has arguments"
                    );
                    self.finish(consumed, Outcome::Empty(self.taken + consumed));
                }
                Progress::Incomplete => {
                    assert!(self.parser.position() <= self.input.len());
                    return true;
                }
                Progress::Large { length, available } => {
                    assert!(length >= limits.large_bulk_bytes_min as u64 && (available as u64) < length + 2);
                    let bytes = self.input.split_off(self.input.len() - available);
                    assert_eq!(self.parser.position(), self.input.len());
                    self.receiving = Some((bytes, length as usize));
                    return true;
                }
                Progress::Error(error) => {
                    self.outcomes.push(Outcome::Error(error));
                    return false;
                }
            }
        }
    }

    fn arguments(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let argument = |&(offset, length): &ArgumentRange| match offset {
            LARGE_ARGUMENT => self.large[length as usize].clone(),
            _ => bytes[offset as usize..][..length as usize].to_vec(),
        };
        self.ranges.iter().map(argument).collect()
    }

    fn finish(&mut self, consumed: usize, outcome: Outcome) {
        assert!(consumed > 0, "no progress");
        assert!(self.parser.is_at_start(), "state is left from a finished request");
        self.outcomes.push(outcome);
        self.input.drain(..consumed);
        self.taken += consumed;
        self.ranges.clear();
        self.large.clear();
    }
}

/// A stream cut into pieces of lengths that a seed determines.
struct Cuts<'a> {
    rest: &'a [u8],
    state: u64,
}

impl<'a> Cuts<'a> {
    fn new(rest: &'a [u8], seed: u64) -> Self {
        Self { rest, state: seed }
    }
}

impl<'a> Iterator for Cuts<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        // A linear congruential generator; its high bits are good enough to cut with.
        self.state =
            self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let length_max = [2, 5, 17, 4096][(self.state >> 62) as usize];
        let length = 1 + (self.state >> 33) as usize % length_max;
        let (piece, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.rest = rest;
        Some(piece)
    }
}

/// Why the model stops: the stream ends within a request, or cannot be read on.
enum Stop {
    Pending,
    Error(ProtocolError),
}

/// What a whole stream holds.
pub(crate) fn model(stream: &[u8], limits: &Limits) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let mut at = 0;
    while at < stream.len() {
        let request = match stream[at] {
            b'*' => model_multibulk(stream, &mut at, limits),
            _ => model_line(stream, &mut at, limits),
        };
        match request {
            Ok(arguments) if arguments.is_empty() => outcomes.push(Outcome::Empty(at)),
            Ok(arguments) => outcomes.push(Outcome::Request(arguments, at)),
            Err(Stop::Pending) => break,
            Err(Stop::Error(error)) => {
                outcomes.push(Outcome::Error(error));
                break;
            }
        }
    }
    outcomes
}

fn model_multibulk(stream: &[u8], at: &mut usize, limits: &Limits) -> Result<Vec<Vec<u8>>, Stop> {
    let count = model_header(stream, at, limits, ProtocolError::MultibulkHeaderTooBig)?;
    let count = count.filter(|&count| count <= i128::from(limits.multibulk_len_max));
    let count = count.ok_or(Stop::Error(ProtocolError::MultibulkLength))?;
    if count > 10 && !limits.authenticated {
        return Err(Stop::Error(ProtocolError::UnauthenticatedMultibulkLength));
    }
    let mut arguments = Vec::new();
    for _ in 0..count {
        match stream.get(*at) {
            None => return Err(Stop::Pending),
            Some(b'$') => {}
            Some(&other) => return Err(Stop::Error(ProtocolError::ExpectedBulk(other))),
        }
        let length = model_header(stream, at, limits, ProtocolError::BulkHeaderTooBig)?;
        let length = length.filter(|length| (0..=i128::from(limits.bulk_len_bytes_max)).contains(length));
        let length = length.ok_or(Stop::Error(ProtocolError::BulkLength))? as usize;
        if length > 16_384 && !limits.authenticated {
            return Err(Stop::Error(ProtocolError::UnauthenticatedBulkLength));
        }
        if stream.len() < *at + length + 2 {
            return Err(Stop::Pending);
        }
        arguments.push(stream[*at..*at + length].to_vec());
        *at += length + 2;
    }
    Ok(arguments)
}

/// The number of a header, `None` for a wrong one. The model reads a number by writing it again.
fn model_header(
    stream: &[u8],
    at: &mut usize,
    limits: &Limits,
    too_big: ProtocolError,
) -> Result<Option<i128>, Stop> {
    let header = stream[*at..].split(|&byte| byte == b'\r').next().unwrap_or_default();
    if header.len() > limits.inline_len_bytes_max {
        return Err(Stop::Error(too_big));
    }
    if stream.len() < *at + header.len() + 2 {
        return Err(Stop::Pending);
    }
    *at += header.len() + 2;
    let text = str::from_utf8(&header[1..]).unwrap_or_default();
    Ok(text.parse::<i64>().ok().filter(|number| number.to_string() == text).map(i128::from))
}

fn model_line(stream: &[u8], at: &mut usize, limits: &Limits) -> Result<Vec<Vec<u8>>, Stop> {
    let rest = &stream[*at..];
    let length = rest.iter().take_while(|&&byte| byte != b'\n').count();
    if length > limits.inline_len_bytes_max {
        return Err(Stop::Error(ProtocolError::InlineTooBig));
    }
    if length == rest.len() {
        return Err(Stop::Pending);
    }
    *at += length + 1;
    let mut line = rest[..length].to_vec();
    // A space at the end changes nothing outside of quotes; within them the line is wrong either way.
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    line.push(b' ');
    model_arguments(&line).ok_or(Stop::Error(ProtocolError::UnbalancedQuotes))
}

/// The quoting rules as a state machine over single bytes; `None` if quotes are unbalanced.
fn model_arguments(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    #[derive(Clone, Copy)]
    enum At {
        Space,
        Bare,
        Single,
        Double,
        Closed,
    }
    let mut arguments: Vec<Vec<u8>> = Vec::new();
    let mut argument = Vec::new();
    let mut at = At::Space;
    let mut bytes = line.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let space = byte == b' ' || (9..=13).contains(&byte);
        at = match (at, byte) {
            (At::Space, _) if space => At::Space,
            (At::Bare, b' ' | b'\t' | b'\r') => {
                arguments.push(std::mem::take(&mut argument));
                At::Space
            }
            (At::Closed, _) if space => {
                arguments.push(std::mem::take(&mut argument));
                At::Space
            }
            (At::Closed, _) => return None,
            (At::Space | At::Bare, b'\'') => At::Single,
            (At::Space | At::Bare, b'"') => At::Double,
            (At::Single, b'\'') | (At::Double, b'"') => At::Closed,
            (At::Single, b'\\') if bytes.peek() == Some(&b'\'') => {
                argument.extend(bytes.next());
                At::Single
            }
            (At::Double, b'\\') => {
                let escaped = bytes.next()?;
                let digits: Vec<u8> = bytes.clone().take(2).collect();
                let digits =
                    str::from_utf8(&digits).ok().filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
                match (escaped, digits) {
                    (b'x', Some(digits)) if digits.len() == 2 => {
                        argument.push(u8::from_str_radix(digits, 16).ok()?);
                        bytes.nth(1);
                    }
                    (b'n', _) => argument.push(b'\n'),
                    (b'r', _) => argument.push(b'\r'),
                    (b't', _) => argument.push(b'\t'),
                    (b'b', _) => argument.push(8),
                    (b'a', _) => argument.push(7),
                    (other, _) => argument.push(other),
                }
                At::Double
            }
            (At::Space | At::Bare, _) => {
                argument.push(byte);
                At::Bare
            }
            (At::Single | At::Double, _) => {
                argument.push(byte);
                at
            }
        };
    }
    matches!(at, At::Space).then_some(arguments)
}
