//! The parser: one request at a time, resumable at any byte.

use super::{
    ArgumentRange, LARGE_ARGUMENT, Limits, Progress, ProtocolError, UNAUTHENTICATED_BULK_LEN_BYTES_MAX,
    UNAUTHENTICATED_MULTIBULK_LEN_MAX,
    inline::{self, Split},
};

/// The most bytes of a request in the buffer, so that no offset is [`LARGE_ARGUMENT`].
const REQUEST_LEN_BYTES_MAX: usize = LARGE_ARGUMENT as usize - 1;

/// The longest header, without its two last bytes, that is read on the short way: a marker and seven digits.
const SHORT_HEADER_LEN_BYTES_MAX: usize = 8;

/// Where a request stands that has not arrived whole. The default is the start of a request.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Parser {
    /// Everything before this is parsed: it is the first byte of a header, or of the bulk whose length is known.
    position: u32,
    /// The header or line at `position` has no end among this many of its bytes.
    scanned: u32,
    /// Arguments to come. Meaningless before the first header is parsed, that is while `position` is 0.
    arguments_left: u32,
    /// The length of the bulk at `position`, if its header is parsed.
    bulk_len_bytes: Option<u64>,
}

impl Parser {
    /// Goes on with the request whose first byte is `bytes[0]`, of which everything that has arrived is given: at
    /// least the bytes of the last call, unless a [`Progress::Large`] was answered with
    /// [`large_received`](Self::large_received). What follows the request is not looked at.
    ///
    /// Arguments found are appended to `ranges`, which the parser never reads: ranges of earlier requests may stand
    /// before them. A changed limit takes effect at the next header.
    ///
    /// # Panics
    /// If bytes that were parsed before are missing.
    #[inline]
    pub fn parse(&mut self, bytes: &[u8], ranges: &mut Vec<ArgumentRange>, limits: &Limits) -> Progress {
        self.parse_within(REQUEST_LEN_BYTES_MAX, bytes, ranges, limits)
    }

    /// Tells that the bulk of the last [`Progress::Large`] is whole, in the caller's hands, and cut out of the
    /// buffer, which ends at [`position`](Self::position). Appends its argument, `(LARGE_ARGUMENT, index)`, to
    /// `ranges`. The caller then calls [`parse`](Self::parse), even when nothing more has arrived: the bulk may have
    /// been the last.
    ///
    /// # Panics
    /// If no bulk is under way.
    pub fn large_received(&mut self, index: u32, ranges: &mut Vec<ArgumentRange>) {
        assert!(self.bulk_len_bytes.is_some() && self.arguments_left > 0, "a large bulk without its header");
        ranges.push((LARGE_ARGUMENT, index));
        self.bulk_len_bytes = None;
        self.arguments_left -= 1;
    }

    /// How many bytes of the unfinished request are parsed. After [`Progress::Large`]: where the bulk begins.
    pub fn position(&self) -> usize {
        self.position as usize
    }

    /// Whether the parser is at the start of a request and has seen nothing of it.
    pub fn is_at_start(&self) -> bool {
        self.position == 0 && self.scanned == 0
    }

    /// [`parse`](Self::parse) with the greatest length of a request as an argument, which tests make small.
    #[inline(always)]
    pub(super) fn parse_within(
        &mut self,
        request_len_bytes_max: usize,
        bytes: &[u8],
        ranges: &mut Vec<ArgumentRange>,
        limits: &Limits,
    ) -> Progress {
        // What cannot be addressed is hidden, so that every position below fits a range.
        match self.advance(&bytes[..bytes.len().min(request_len_bytes_max)], ranges, limits) {
            Ok(consumed) => {
                *self = Self::default();
                Progress::Complete { consumed }
            }
            Err(progress) => self.stop(progress, bytes.len(), request_len_bytes_max),
        }
    }

    /// Parses until the request is whole (its length is returned) or something else is to be reported, for which
    /// the state is kept.
    #[inline(always)]
    fn advance(
        &mut self,
        bytes: &[u8],
        ranges: &mut Vec<ArgumentRange>,
        limits: &Limits,
    ) -> Result<usize, Progress> {
        let (mut position, mut arguments_left) = if self.position > 0 {
            (self.position as usize, self.arguments_left)
        } else {
            match bytes.first() {
                Some(b'*') => self.begin(bytes, limits)?,
                Some(_) => return self.inline(bytes, ranges, limits),
                None => return Err(Progress::Incomplete),
            }
        };
        assert!(position <= bytes.len(), "bytes of an unfinished request are missing");
        let mut known_len_bytes = self.bulk_len_bytes;
        while arguments_left > 0 {
            let length = match known_len_bytes.take() {
                Some(length) => length,
                None => {
                    let (length, start) = match short_header(bytes, position, b'$') {
                        Some(header) => header,
                        None => self.bulk_header(bytes, position, arguments_left, limits)?,
                    };
                    if length > limits.bulk_len_bytes_max {
                        return Err(Progress::Error(ProtocolError::BulkLength));
                    }
                    if !limits.authenticated && length > UNAUTHENTICATED_BULK_LEN_BYTES_MAX {
                        return Err(Progress::Error(ProtocolError::UnauthenticatedBulkLength));
                    }
                    position = start;
                    length
                }
            };
            let available = bytes.len() - position;
            // Headers keep a length below 2^63, so nothing overflows.
            if (available as u64) < length + 2 {
                self.keep(position, 0, arguments_left, Some(length));
                let large = length >= limits.large_bulk_bytes_min as u64;
                return Err(if large { Progress::Large { length, available } } else { Progress::Incomplete });
            }
            ranges.push((position as u32, length as u32));
            position += length as usize + 2;
            arguments_left -= 1;
        }
        Ok(position)
    }

    /// Parses the request's first header. Returns where it ends and how many arguments follow, at least one.
    #[inline(always)]
    fn begin(&mut self, bytes: &[u8], limits: &Limits) -> Result<(usize, u32), Progress> {
        let (count, end) = match short_header(bytes, 0, b'*') {
            Some((count, end)) => (count as i64, end),
            None => self.count_header(bytes, limits)?,
        };
        if count > i64::from(limits.multibulk_len_max) {
            return Err(Progress::Error(ProtocolError::MultibulkLength));
        }
        if !limits.authenticated && count > i64::from(UNAUTHENTICATED_MULTIBULK_LEN_MAX) {
            return Err(Progress::Error(ProtocolError::UnauthenticatedMultibulkLength));
        }
        if count <= 0 {
            return Err(Progress::Empty { consumed: end });
        }
        Ok((end, count as u32))
    }

    /// Any first header: its number and where it ends.
    #[inline(never)]
    fn count_header(&mut self, bytes: &[u8], limits: &Limits) -> Result<(i64, usize), Progress> {
        match header(bytes, self.scanned as usize, limits) {
            Header::Whole { number: Some(count), len_bytes } => Ok((count, len_bytes)),
            Header::Whole { number: None, .. } => Err(Progress::Error(ProtocolError::MultibulkLength)),
            Header::TooBig => Err(Progress::Error(ProtocolError::MultibulkHeaderTooBig)),
            Header::Incomplete { scanned } => {
                self.keep(0, scanned, 0, None);
                Err(Progress::Incomplete)
            }
        }
    }

    /// Any bulk's header, at `position`: the bulk's length and where it begins.
    #[inline(never)]
    fn bulk_header(
        &mut self,
        bytes: &[u8],
        position: usize,
        arguments_left: u32,
        limits: &Limits,
    ) -> Result<(u64, usize), Progress> {
        match bytes.get(position) {
            None => {
                self.keep(position, 0, arguments_left, None);
                return Err(Progress::Incomplete);
            }
            Some(b'$') => {}
            Some(&found) => return Err(Progress::Error(ProtocolError::ExpectedBulk(found))),
        }
        // What is known of the header the last call stopped at says nothing about later ones.
        let scanned = if self.position as usize == position { self.scanned as usize } else { 0 };
        match header(&bytes[position..], scanned, limits) {
            Header::Whole { number: Some(length @ 0..), len_bytes } => {
                Ok((length as u64, position + len_bytes))
            }
            Header::Whole { .. } => Err(Progress::Error(ProtocolError::BulkLength)),
            Header::TooBig => Err(Progress::Error(ProtocolError::BulkHeaderTooBig)),
            Header::Incomplete { scanned } => {
                self.keep(position, scanned, arguments_left, None);
                Err(Progress::Incomplete)
            }
        }
    }

    /// An inline line, with the same results as [`advance`](Self::advance).
    #[inline(never)]
    fn inline(
        &mut self,
        bytes: &[u8],
        ranges: &mut Vec<ArgumentRange>,
        limits: &Limits,
    ) -> Result<usize, Progress> {
        let length = match find_end(bytes, b'\n', self.scanned as usize, limits.inline_len_bytes_max) {
            End::At(length) => length,
            End::TooFar => return Err(Progress::Error(ProtocolError::InlineTooBig)),
            End::Unknown { scanned } => {
                self.keep(0, scanned, 0, None);
                return Err(Progress::Incomplete);
            }
        };
        let (line, consumed) = (&bytes[..length], length + 1);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let first = ranges.len();
        let Some(split) = inline::split(line, ranges) else {
            return Err(Progress::Error(ProtocolError::UnbalancedQuotes));
        };
        if ranges.len() == first {
            return Err(Progress::Empty { consumed });
        }
        match split {
            Split::InPlace => Ok(consumed),
            Split::Unquoted(bytes) => Err(Progress::Unquoted { consumed, bytes }),
        }
    }

    /// Keeps where an unfinished request stands.
    fn keep(&mut self, position: usize, scanned: usize, arguments_left: u32, bulk_len_bytes: Option<u64>) {
        // Both are within the bytes given, which are fewer than `REQUEST_LEN_BYTES_MAX`.
        *self = Self { position: position as u32, scanned: scanned as u32, arguments_left, bulk_len_bytes };
    }

    /// Everything but a whole request in place: what to report, and the state for the next call.
    #[cold]
    fn stop(&mut self, progress: Progress, available: usize, request_len_bytes_max: usize) -> Progress {
        let progress = match progress {
            // All that can be addressed is there, and the request needs more.
            Progress::Incomplete if available >= request_len_bytes_max => {
                Progress::Error(ProtocolError::RequestTooBig)
            }
            Progress::Large { .. } if available > request_len_bytes_max => {
                Progress::Error(ProtocolError::RequestTooBig)
            }
            other => other,
        };
        if !matches!(progress, Progress::Incomplete | Progress::Large { .. }) {
            *self = Self::default();
        }
        progress
    }
}

/// The number and length of a header with one to seven digits, its line end included; `None` for any other header,
/// wrong, unfinished or just longer.
#[inline(always)]
fn short_header(bytes: &[u8], position: usize, marker: u8) -> Option<(u64, usize)> {
    let header = bytes.get(position..)?;
    // The shortest whole bulk with its header (`$0\r\n\r\n`) is longer than this.
    let start = header.first_chunk::<5>()?;
    let (first, second) = (start[1].wrapping_sub(b'0'), start[2].wrapping_sub(b'0'));
    if start[0] != marker || first > 9 {
        return None;
    }
    if start[2] == b'\r' {
        return Some((u64::from(first), position + 4));
    }
    if first == 0 || second > 9 {
        return None;
    }
    let mut number = u64::from(first * 10 + second);
    if start[3] == b'\r' {
        return Some((number, position + 5));
    }
    let mut length = 3;
    while length <= SHORT_HEADER_LEN_BYTES_MAX {
        let byte = *header.get(length)?;
        if byte == b'\r' {
            return (length + 2 <= header.len()).then_some((number, position + length + 2));
        }
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number * 10 + u64::from(digit);
        length += 1;
    }
    None
}

enum Header {
    /// The number, if it is one, and the header's length with its line end.
    Whole { number: Option<i64>, len_bytes: usize },
    /// The line end is not among the first `scanned` bytes.
    Incomplete { scanned: usize },
    /// There is no line end within the limit.
    TooBig,
}

/// The header at the beginning of `bytes`, of which the first `scanned` bytes hold no line end.
fn header(bytes: &[u8], scanned: usize, limits: &Limits) -> Header {
    match find_end(bytes, b'\r', scanned, limits.inline_len_bytes_max.max(SHORT_HEADER_LEN_BYTES_MAX)) {
        End::At(end) if end + 2 <= bytes.len() => {
            Header::Whole { number: decimal(&bytes[1..end]), len_bytes: end + 2 }
        }
        End::At(end) => Header::Incomplete { scanned: end },
        End::Unknown { scanned } => Header::Incomplete { scanned },
        End::TooFar => Header::TooBig,
    }
}

enum End {
    At(usize),
    Unknown { scanned: usize },
    TooFar,
}

/// Where `end` first occurs in `bytes`, after `scanned` bytes without it and after at most `length_max`.
fn find_end(bytes: &[u8], end: u8, scanned: usize, length_max: usize) -> End {
    let window = &bytes[..bytes.len().min(length_max.saturating_add(1))];
    // The limit may be lower than it was when these bytes were scanned.
    let rest = window.get(scanned..).unwrap_or_default();
    match rest.iter().position(|&byte| byte == end) {
        Some(at) => End::At(scanned + at),
        None if window.len() > length_max => End::TooFar,
        None => End::Unknown { scanned: window.len() },
    }
}

/// A number as Redis writes it: an optional minus, and digits without a leading zero. `None` for anything else, and
/// beyond 64 bits.
fn decimal(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        b"0" => return Some(0),
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if !matches!(digits.first(), Some(b'1'..=b'9')) {
        return None;
    }
    // Towards the sign, as the least number has no positive counterpart.
    digits.iter().try_fold(0_i64, |number, &byte| {
        let digit = byte.is_ascii_digit().then(|| i64::from(byte - b'0'))?;
        let number = number.checked_mul(10)?;
        if negative { number.checked_sub(digit) } else { number.checked_add(digit) }
    })
}
