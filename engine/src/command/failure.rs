//! Errors that several families share, in Redis's words, and the way from a handler's error to its reply.

use crate::{Args, Call, Reply, Step, parse_i64};

pub(super) const SYNTAX: &str = "ERR syntax error";
pub(super) const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
pub(super) const NO_SUCH_KEY: &str = "ERR no such key";
pub(super) const SAME_OBJECT: &str = "ERR source and destination objects are the same";
pub(super) const DATABASE_OUT_OF_RANGE: &str = "ERR DB index is out of range";
pub(super) const NOT_AN_INT: &str =
    "ERR value is out of range, value must between -2147483648 and 2147483647";

/// Why a command was refused.
pub(super) enum Failure {
    /// An error without variable parts.
    Text(&'static str),
    /// The command of this name got an expiry that is not positive or too far away.
    ExpireTime(&'static str),
    /// EXPIRE and its like got a word that they do not know.
    UnsupportedOption(Vec<u8>),
}

impl From<&'static str> for Failure {
    fn from(text: &'static str) -> Self {
        Self::Text(text)
    }
}

impl Failure {
    #[cold]
    fn write(&self, reply: &mut Reply<'_>) {
        match self {
            Self::Text(text) => reply.error(text),
            Self::ExpireTime(name) => reply.error(&format!("ERR invalid expire time in '{name}' command")),
            Self::UnsupportedOption(option) => {
                reply.error_bytes(&[b"ERR Unsupported option ", super::quoted(option, usize::MAX)].concat());
            }
        }
    }
}

/// Runs the body of a handler; the failure it returns becomes the reply, so the body must not have written one.
#[inline]
pub(super) fn attempt<'a>(
    call: &mut Call<'a>,
    body: impl FnOnce(&mut Call<'a>) -> Result<(), Failure>,
) -> Step {
    let position = call.reply.position();
    if let Err(failure) = body(call) {
        debug_assert!(call.reply.position() == position, "a failure after a reply");
        failure.write(&mut call.reply);
    }
    Step::Done
}

/// Argument `index` as an integer.
#[inline]
pub(super) fn integer(args: &Args<'_>, index: usize) -> Result<i64, &'static str> {
    parse_i64(args.get(index)).ok_or(NOT_AN_INTEGER)
}

/// A database's number, as Redis reads one: first a 64-bit integer, then a C `int`, then a database.
pub(super) fn database(text: &[u8]) -> Result<u8, &'static str> {
    let number = i32::try_from(parse_i64(text).ok_or(NOT_AN_INTEGER)?).map_err(|_| NOT_AN_INT)?;
    database_numbered(number)
}

/// The database `number`, if there is one.
pub(super) fn database_numbered(number: i32) -> Result<u8, &'static str> {
    u8::try_from(number).ok().filter(|&number| number < crate::DATABASE_COUNT).ok_or(DATABASE_OUT_OF_RANGE)
}

/// Whether argument `index` is this word, whatever its case.
#[inline]
pub(super) fn is_word(args: &Args<'_>, index: usize, word: &str) -> bool {
    args.get(index).eq_ignore_ascii_case(word.as_bytes())
}
