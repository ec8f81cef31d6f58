//! Why a stream of requests cannot be read on.

use std::{borrow::Cow, error, fmt};

/// A violation of the protocol, after which the connection is closed. The texts are those of Redis 7.0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProtocolError {
    /// The number of arguments is no strict decimal or is above its limit.
    MultibulkLength,
    /// The number of arguments is above what an unauthenticated client may send.
    UnauthenticatedMultibulkLength,
    /// The header with the number of arguments has no end within the limit.
    MultibulkHeaderTooBig,
    /// A bulk's header does not begin with `$` but with this byte.
    ExpectedBulk(u8),
    /// A bulk's length is no strict decimal, is negative, or is above its limit.
    BulkLength,
    /// A bulk's length is above what an unauthenticated client may send.
    UnauthenticatedBulkLength,
    /// A bulk's header has no end within the limit.
    BulkHeaderTooBig,
    /// An inline line has no end within the limit.
    InlineTooBig,
    /// An inline line has a quote without end, or an argument that goes on behind its closing quote.
    UnbalancedQuotes,
    /// A request is called `POST` or `Host:`, like a line of an HTTP request, which a web page may have been made to send: someone
    /// may be trying to reach the server through a browser. Closed without an answer, as Redis does; worth a warning in the log.
    /// The parser knows no names: whoever looks the command up finds this.
    Http,
    /// The request's bytes, large bulks not counted, are more than ranges can address (4 GiB). Closed without an
    /// answer, as Redis does at its query buffer limit.
    RequestTooBig,
}

impl ProtocolError {
    /// The error reply's text, without the leading `-` and the final `\r\n`; `None` if the connection is closed
    /// without a reply. It may not be UTF-8: it quotes the client's byte (line ends as spaces, as in Redis).
    pub fn text(self) -> Option<Cow<'static, [u8]>> {
        let text: &'static [u8] = match self {
            Self::MultibulkLength => b"ERR Protocol error: invalid multibulk length",
            Self::UnauthenticatedMultibulkLength => b"ERR Protocol error: unauthenticated multibulk length",
            Self::MultibulkHeaderTooBig => b"ERR Protocol error: too big mbulk count string",
            Self::ExpectedBulk(found) => {
                let shown = if matches!(found, b'\r' | b'\n') { b' ' } else { found };
                let mut text = b"ERR Protocol error: expected '$', got '".to_vec();
                text.extend_from_slice(&[shown, b'\'']);
                return Some(Cow::Owned(text));
            }
            Self::BulkLength => b"ERR Protocol error: invalid bulk length",
            Self::UnauthenticatedBulkLength => b"ERR Protocol error: unauthenticated bulk length",
            Self::BulkHeaderTooBig => b"ERR Protocol error: too big bulk count string",
            Self::InlineTooBig => b"ERR Protocol error: too big inline request",
            Self::UnbalancedQuotes => b"ERR Protocol error: unbalanced quotes in request",
            Self::Http | Self::RequestTooBig => return None,
        };
        Some(Cow::Borrowed(text))
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http => formatter.write_str("an HTTP request, possibly a cross-protocol attack"),
            Self::RequestTooBig => formatter.write_str("a request of more than 4 GiB"),
            _ => {
                let text = self.text().unwrap_or_default();
                let text = text.strip_prefix(b"ERR ").unwrap_or(&text);
                write!(formatter, "{}", text.escape_ascii())
            }
        }
    }
}

impl error::Error for ProtocolError {}
