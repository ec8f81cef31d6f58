//! Values: for each type a function that writes it and one that reads it.

use std::borrow::Cow;

use super::input::{Input, Stop};
use super::{RdbOptions, string};
use crate::entry::{Form, clock_at};
use crate::{DetachedEntry, Value};

/// The type bytes of the values that this server has.
pub(super) mod kind {
    pub(in crate::rdb) const STRING: u8 = 0;
}

/// The longest time since an access that an entry's clock can tell, in seconds.
const IDLE_SECONDS_MAX: u64 = (1 << 24) - 1;

/// A value as it was read: borrowed from the bytes at hand where it could be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadedValue<'a> {
    /// A string. A large one that did not lie whole in the bytes at hand has an allocation of its own.
    String(Cow<'a, [u8]>),
}

impl LoadedValue<'_> {
    /// The value.
    pub fn as_value(&self) -> Value<'_> {
        match self {
            Self::String(bytes) => Value::String(bytes),
        }
    }

    /// The value on its way into a shard, last accessed `idle_seconds` before `now_ms`.
    pub fn into_detached(self, deadline_ms: Option<u64>, idle_seconds: u64, now_ms: u64) -> DetachedEntry {
        let Self::String(value) = self;
        let accessed_ms = now_ms.saturating_sub(idle_seconds.min(IDLE_SECONDS_MAX) * 1000);
        DetachedEntry {
            value: value.into_owned(),
            deadline_ms,
            form: Form::Given,
            clock: clock_at(accessed_ms),
        }
    }

    /// The same value with allocations of its own.
    pub fn into_owned(self) -> LoadedValue<'static> {
        match self {
            Self::String(bytes) => LoadedValue::String(Cow::Owned(bytes.into_owned())),
        }
    }
}

/// The type byte of a value.
pub(super) fn kind_of(value: Value<'_>) -> u8 {
    match value {
        Value::String(_) => kind::STRING,
    }
}

/// Appends a value without its type byte.
pub(super) fn write(out: &mut Vec<u8>, value: Value<'_>, options: RdbOptions) {
    match value {
        Value::String(bytes) => string::write(out, bytes, options.compress),
    }
}

/// Whether values with this type byte can be read.
#[inline]
pub(super) fn is_known(kind: u8) -> bool {
    kind == kind::STRING
}

/// Reads a value whose type byte is `kind`, which is known. No string in it may be longer than `string_bytes_max`.
#[inline]
pub(super) fn read<'a, 'b: 'a>(
    kind: u8,
    input: &mut Input<'b>,
    scratch: &'a mut Vec<u8>,
    string_bytes_max: u64,
) -> Result<LoadedValue<'a>, Stop> {
    match kind {
        kind::STRING => read_string(input, scratch, string_bytes_max),
        _ => unreachable!("callers ask whether the type is known"),
    }
}

#[inline]
fn read_string<'a, 'b: 'a>(
    input: &mut Input<'b>,
    scratch: &'a mut Vec<u8>,
    string_bytes_max: u64,
) -> Result<LoadedValue<'a>, Stop> {
    Ok(LoadedValue::String(string::read(input)?.decode(scratch, string_bytes_max)?))
}

/// What values with this type byte are called; `None` if no version has them.
pub(super) fn name(kind: u8) -> Option<&'static str> {
    Some(match kind {
        0 => "string",
        1 | 10 | 14 | 18 => "list",
        2 | 11 | 20 => "set",
        3 | 5 | 12 | 17 => "sorted set",
        4 | 9 | 13 | 16 => "hash",
        22..=25 => "hash with expiring fields",
        6 | 7 => "module value",
        15 | 19 | 21 => "stream",
        _ => return None,
    })
}
