//! Times of expiry among a command's arguments.
//!
//! Whatever form a client writes, what is stored and replicated is an absolute time: milliseconds since the Unix
//! epoch, computed from the entry's timestamp.

use crate::{Args, Deadline};

use super::failure::{Failure, NOT_AN_INTEGER, SYNTAX, is_word};
use crate::parse_i64;

/// What a number that names a time means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    /// Seconds rather than milliseconds.
    pub(super) seconds: bool,
    /// Counted from the Unix epoch rather than from now.
    pub(super) absolute: bool,
}

impl Unit {
    pub(super) const EX: Self = Self { seconds: true, absolute: false };
    pub(super) const PX: Self = Self { seconds: false, absolute: false };
    pub(super) const EXAT: Self = Self { seconds: true, absolute: true };
    pub(super) const PXAT: Self = Self { seconds: false, absolute: true };

    /// The time in milliseconds since the Unix epoch that `number` names at `now_ms`; `None` if it does not fit 64 bits.
    pub(super) fn time_ms(self, number: i64, now_ms: u64) -> Option<i64> {
        let ms = if self.seconds { number.checked_mul(1000)? } else { number };
        if self.absolute { Some(ms) } else { ms.checked_add(now_ms.cast_signed()) }
    }
}

/// An expiry among the options of SET or GETEX, not yet read as a number.
#[derive(Clone, Copy)]
pub(super) struct Expiration {
    unit: Unit,
    /// The argument with the number.
    position: usize,
}

impl Expiration {
    /// An expiry at argument `position`.
    pub(super) const fn new(unit: Unit, position: usize) -> Self {
        Self { unit, position }
    }

    /// The deadline that it means at `now_ms`; the command called `name` wants a positive one.
    #[inline]
    pub(super) fn deadline(
        self,
        args: &Args<'_>,
        now_ms: u64,
        name: &'static str,
    ) -> Result<Deadline, Failure> {
        let number = parse_i64(args.get(self.position)).ok_or(NOT_AN_INTEGER)?;
        let time_ms = (number > 0).then(|| self.unit.time_ms(number, now_ms)).flatten();
        Ok(Deadline::At(time_ms.ok_or(Failure::ExpireTime(name))?.cast_unsigned()))
    }
}

/// What the options of SET and GETEX say of the expiry.
#[derive(Clone, Copy, Default)]
pub(super) enum Expiry {
    /// Nothing.
    #[default]
    Unsaid,
    /// EX, PX, EXAT or PXAT.
    Given(Expiration),
    /// KEEPTTL.
    Keep,
    /// PERSIST.
    Persist,
}

impl Expiry {
    /// Reads EX, PX, EXAT or PXAT and its number at argument `index`. A unit may come again and then counts anew, but
    /// never beside another one: everything else is a syntax error.
    pub(super) fn take(&mut self, args: &Args<'_>, index: usize) -> Result<(), &'static str> {
        const WORDS: [(&str, Unit); 4] =
            [("ex", Unit::EX), ("px", Unit::PX), ("exat", Unit::EXAT), ("pxat", Unit::PXAT)];
        let unit = WORDS.iter().find(|(word, _)| is_word(args, index, word)).ok_or(SYNTAX)?.1;
        let may_follow = match self {
            Self::Unsaid => true,
            Self::Given(given) => given.unit == unit,
            Self::Keep | Self::Persist => false,
        };
        if !may_follow || index + 1 >= args.len() {
            return Err(SYNTAX);
        }
        *self = Self::Given(Expiration::new(unit, index + 1));
        Ok(())
    }
}
