//! Requests of the Redis protocol, parsed in place.
//!
//! A request is an array of bulk strings (`*2\r\n$3\r\nGET\r\n$1\r\nk\r\n`), as every RESP2 and RESP3 client sends it,
//! or an inline line (`GET k\r\n`), as a person types it. [`Parser`] turns the bytes of one into ranges of the
//! caller's buffer; it does no I/O, and it copies and allocates nothing for a request of bulk strings.
//!
//! Invariants:
//!
//! - **Splits do not matter.** Whatever pieces a stream arrives in, the same requests, with the same arguments, and
//!   the same error come out, at the same bytes of the stream.
//! - **No byte is looked at twice** (but for the one header or bulk a call stopped at, a constant amount a call): a
//!   request that trickles in costs time linear in its size.
//! - **Memory follows arrival, never announcement.** A count or length that a client announces reserves nothing.
//! - **Positions are relative to the request's first byte**, so the caller may move an unfinished request.
//!
//! # How a caller drives it
//!
//! ```
//! use duva_net::resp::{Limits, Parser, Progress};
//!
//! let (mut input, mut ranges, mut parser) = (&b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\nPING\r\n"[..], Vec::new(), Parser::default());
//! let mut requests = Vec::new();
//! while let Progress::Complete { consumed } = parser.parse(input, &mut ranges, &Limits::default()) {
//!     requests.push(ranges.iter().map(|&(at, len)| &input[at as usize..][..len as usize]).collect::<Vec<_>>());
//!     input = &input[consumed..];
//!     ranges.clear();
//! }
//! assert_eq!(requests, [vec![&b"GET"[..], b"k"], vec![b"PING"]]);
//! ```
//!
//! On [`Progress::Incomplete`] the caller keeps the bytes from the request's first on, the ranges and the parser, and
//! calls again once more bytes follow them. On [`Progress::Large`] it receives one bulk into an allocation of its
//! own, as described there. What an unfinished request holds is: the bytes kept, 8 bytes for each range (of the
//! vector's capacity), and the capacity of its large bulks; the parser itself holds none.
//!
//! # Where Redis 7.0 reads on blindly
//!
//! Behaviour was compared with redis-server 7.0.15.
//!
//! - Followed: a header ends at its first `\r`, and the byte after that is skipped unseen, as are the two bytes after
//!   a bulk. Counts and lengths are strict decimals (no `+`, leading zero, space or `-0`). A negative count is an
//!   empty request.
//! - Earlier: a header that does not begin with `$` is refused at its first byte; Redis waits for its `\r`.
//! - Steadier: Redis accepts a header or an inline line beyond 64 KiB when its end happens to arrive in the same
//!   read. Here one beyond the limit is always refused, as Redis does when it comes byte by byte.
//! - Sounder: at a zero byte in a header or an inline line Redis stops looking and waits for ever. Here it is a byte
//!   as any other: wrong in a header, part of an argument in a line.

mod error;
mod inline;
mod parser;
#[cfg(test)]
mod tests;

pub use error::ProtocolError;
pub use parser::Parser;

/// Offset and length of an argument, in bytes, relative to the request's first byte. An offset of [`LARGE_ARGUMENT`]
/// means that the second number is the index the caller gave to [`Parser::large_received`].
pub type ArgumentRange = (u32, u32);

/// The offset that marks an argument received outside of the request's buffer.
pub const LARGE_ARGUMENT: u32 = u32::MAX;

/// The most arguments an unauthenticated client may announce.
pub const UNAUTHENTICATED_MULTIBULK_LEN_MAX: u32 = 10;

/// The longest bulk an unauthenticated client may announce.
pub const UNAUTHENTICATED_BULK_LEN_BYTES_MAX: u64 = 16_384;

/// What a client may ask for. The default is that of an authenticated client of Redis 7.0 without configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The longest bulk (`proto-max-bulk-len`).
    pub bulk_len_bytes_max: u64,
    /// The most arguments of a request.
    pub multibulk_len_max: u32,
    /// The longest inline line, and the longest header: the bytes before the end of either, that is `\n` of a line
    /// and `\r` of a header. Headers of up to eight bytes pass whatever the limit.
    pub inline_len_bytes_max: usize,
    /// From this length on a bulk that has not arrived whole is reported as [`Progress::Large`].
    pub large_bulk_bytes_min: usize,
    /// Whether the client has authenticated or needs not: if false, [`UNAUTHENTICATED_MULTIBULK_LEN_MAX`] and
    /// [`UNAUTHENTICATED_BULK_LEN_BYTES_MAX`] apply too.
    pub authenticated: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bulk_len_bytes_max: 512 * 1024 * 1024,
            multibulk_len_max: i32::MAX as u32,
            inline_len_bytes_max: 64 * 1024,
            large_bulk_bytes_min: 64 * 1024,
            authenticated: true,
        }
    }
}

/// What [`Parser::parse`] came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Progress {
    /// The request is whole: the appended ranges are its arguments, at least one. The parser is at the start of the
    /// next request.
    Complete {
        /// The length of the request in the buffer, from its first byte on.
        consumed: usize,
    },
    /// As `Complete`, for an inline line with quotes: its arguments differ from the bytes received, so the ranges are
    /// into `bytes` instead of the caller's buffer.
    Unquoted {
        /// The length of the request in the buffer, from its first byte on.
        consumed: usize,
        /// The arguments, no longer than the line.
        bytes: Vec<u8>,
    },
    /// A request without arguments (an empty line, `*0`, `*-1`): nothing to execute or to answer. No range was
    /// appended; the parser is at the start of the next request.
    Empty {
        /// The length of the request in the buffer, from its first byte on.
        consumed: usize,
    },
    /// The request has not arrived whole. Call again with the same ranges and its bytes, more following them.
    Incomplete,
    /// The request goes on with a bulk of at least [`Limits::large_bulk_bytes_min`] bytes that has not arrived whole.
    ///
    /// The caller moves the last `available` bytes of the buffer, which are the bulk's first (and, if there are more
    /// than `length`, one of the two after it), to an allocation of its own, so that the buffer ends where the bulk
    /// began, at [`Parser::position`]. It receives there until it has `length + 2` bytes, drops the last two
    /// (they stand for `\r\n` and are not checked, as in Redis), and calls [`Parser::large_received`]. Bytes after
    /// these follow the buffer's as if the bulk had never been in between. It must not trust `length` for how much
    /// to allocate.
    ///
    /// Appending to the buffer and calling again instead is allowed, too.
    Large {
        /// The bulk's length in bytes, without the two bytes after it.
        length: u64,
        /// How many bytes at the end of the buffer belong to the bulk; less than `length + 2`.
        available: usize,
    },
    /// The stream makes no sense from here on. The connection is answered with the error's text, after the replies
    /// to earlier requests, and closed. Ranges appended for this request mean nothing.
    Error(ProtocolError),
}
