//! DUMP's payload: one value that stands alone.
//!
//! ```text
//! type, value                       as in a file
//! version                           two bytes, the lowest first
//! checksum                          of everything before it, eight bytes, the lowest first
//! ```

use super::input::Input;
use super::{Checksum, LoadedValue, READ_VERSION_MAX, RdbOptions, WRITTEN_VERSION, value};
use crate::Value;

/// Appends the payload of `value`.
pub fn dump_payload(value: Value<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    out.push(value::kind_of(value));
    value::write(out, value, RdbOptions { compress: true });
    out.extend_from_slice(&WRITTEN_VERSION.to_le_bytes());
    let checksum = Checksum::of(&out[start..]);
    out.extend_from_slice(&checksum.to_le_bytes());
}

/// The value in a payload; no string in it may be longer than `string_bytes_max`.
///
/// # Errors
/// If the payload was damaged or made by a later version, or what is in it is no value that this server has.
pub fn restore_payload(payload: &[u8], string_bytes_max: u64) -> Result<LoadedValue<'static>, PayloadError> {
    let (content, stored) = payload.split_last_chunk().ok_or(PayloadError::Footer)?;
    let (content, version) = content.split_last_chunk().ok_or(PayloadError::Footer)?;
    if u16::from_le_bytes(*version) > READ_VERSION_MAX
        || u64::from_le_bytes(*stored) != Checksum::of(&payload[..payload.len() - stored.len()])
    {
        return Err(PayloadError::Footer);
    }
    let mut input = Input::new(content);
    let kind = input.byte().map_err(|_| PayloadError::Data)?;
    if !value::is_known(kind) {
        return Err(PayloadError::Data);
    }
    let mut scratch = Vec::new();
    match value::read(kind, &mut input, &mut scratch, string_bytes_max) {
        // As for Redis, what follows the value does not matter.
        Ok(value) => Ok(value.into_owned()),
        Err(_) => Err(PayloadError::Data),
    }
}

/// Why a payload was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadError {
    /// Its last ten bytes are of a later version, or do not fit the rest.
    Footer,
    /// What is in it is no value that this server has.
    Data,
}
