//! Judges of what clients saw. They know requests, replies and when each was sent and answered, and nothing of how the
//! server works.
//!
//! "When" is a number in the order of everything observable: `invoked` is when the last byte of a request was sent,
//! so that it cannot have been executed before, and `replied` is when the last byte of its reply left the server.

pub(crate) mod counter;
pub(crate) mod history;
pub(crate) mod loss;
pub(crate) mod model;
pub(crate) mod register;
pub(crate) mod token;
