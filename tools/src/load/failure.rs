//! Why a run ended early.

use std::{fmt, io, time::Duration};

/// An end before the work was done. What was measured until then is worth nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The system refused an operation.
    Io { operation: &'static str, error: io::Error },
    /// The server closed a connection.
    Closed,
    /// Bytes came on a connection with no request outstanding.
    Unasked,
    /// Bytes came that are no reply to any request of ours.
    Nonsense(String),
    /// No reply came for so long.
    Silence(Duration),
}

impl Failure {
    pub(crate) fn io(operation: &'static str, error: io::Error) -> Self {
        Self::Io { operation, error }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { operation, error } => write!(formatter, "{operation}: {error}"),
            Self::Closed => write!(formatter, "the server closed a connection"),
            Self::Unasked => write!(formatter, "the server sent more replies than there were requests"),
            Self::Nonsense(text) => write!(formatter, "the server sent {text}"),
            Self::Silence(duration) => write!(formatter, "no reply for {} s", duration.as_secs_f64()),
        }
    }
}

impl std::error::Error for Failure {}
