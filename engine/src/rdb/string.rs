//! Strings: plain, as an integer, or compressed.

use std::borrow::Cow;

use super::input::{Input, Stop};
use super::{Fault, length, lzf};
use crate::{format_i64, parse_i64};
use length::Length;

const INTEGER_8: u8 = 0;
const INTEGER_16: u8 = 1;
const INTEGER_32: u8 = 2;
const COMPRESSED: u8 = 3;

/// The longest text of an integer that is written as one, in bytes: that of the least.
const INTEGER_BYTES_MAX: usize = 11;

/// Strings of so many bytes are worth compressing.
const COMPRESSED_BYTES_MIN: usize = 21;

/// Longer strings are not compressed, in bytes: a core would be kept for more than half a millisecond longer than by copying
/// them.
const COMPRESSED_BYTES_MAX: usize = 256 << 10;

/// A string of so many bytes that has to be put together or decoded gets an allocation of its own, which the keyspace
/// takes over; shorter ones use the reader's buffers.
pub(super) const OWNED_BYTES_MIN: u64 = crate::entry::INLINE_VALUE_BYTES_MAX as u64 + 1;

/// Appends a string in the form in which Redis writes it; `compress`: compressed, if it is neither too short nor too long
/// and that makes it shorter.
pub(super) fn write(out: &mut Vec<u8>, bytes: &[u8], compress: bool) {
    if bytes.len() <= INTEGER_BYTES_MAX
        && let Some(number) = parse_i64(bytes).and_then(|number| i32::try_from(number).ok())
    {
        return write_integer(out, number);
    }
    let is_compressible = (COMPRESSED_BYTES_MIN..=COMPRESSED_BYTES_MAX).contains(&bytes.len());
    if !(compress && is_compressible && write_compressed(out, bytes)) {
        write_head(out, bytes.len());
        out.extend_from_slice(bytes);
    }
}

/// Begins a string that is written as it is: its `length` bytes are to follow.
pub(super) fn write_head(out: &mut Vec<u8>, length: usize) {
    length::write(out, length as u64);
}

fn write_integer(out: &mut Vec<u8>, number: i32) {
    if let Ok(number) = i8::try_from(number) {
        out.extend_from_slice(&[length::ENCODED | INTEGER_8, number.cast_unsigned()]);
    } else if let Ok(number) = i16::try_from(number) {
        out.push(length::ENCODED | INTEGER_16);
        out.extend_from_slice(&number.to_le_bytes());
    } else {
        out.push(length::ENCODED | INTEGER_32);
        out.extend_from_slice(&number.to_le_bytes());
    }
}

/// Appends a string compressed; false, with nothing appended, if that does not make it shorter.
fn write_compressed(out: &mut Vec<u8>, bytes: &[u8]) -> bool {
    out.push(length::ENCODED | COMPRESSED);
    let header = out.len();
    // The compressed length precedes what is compressed. The string's own, which is longer, makes room for it.
    length::write(out, bytes.len() as u64);
    length::write(out, bytes.len() as u64);
    let content = out.len();
    let Some(compressed) = lzf::compress(bytes, out) else {
        out.truncate(header - 1);
        return false;
    };
    let mut lengths = [0; 2 * length::BYTES_MAX];
    let first = length::encode(compressed as u64, &mut lengths);
    let lengths_bytes = first + length::encode(bytes.len() as u64, &mut lengths[first..]);
    out[header..header + lengths_bytes].copy_from_slice(&lengths[..lengths_bytes]);
    if lengths_bytes < content - header {
        out.drain(header + lengths_bytes..content);
    }
    true
}

/// A string as it stands in a record.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stored<'a> {
    /// The bytes themselves.
    Plain(&'a [u8]),
    /// The number whose text is the string.
    Integer(i64),
    /// Compressed bytes, and the announced length of the string.
    Compressed(&'a [u8], u64),
}

/// Where a string's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// How many bytes follow.
    pub(super) stored_bytes: u64,
    /// If they are compressed: the announced length of the string.
    pub(super) compressed_from: Option<u64>,
}

impl Extent {
    /// Reads what precedes the bytes of a string that is no integer.
    #[inline]
    fn read(input: &mut Input<'_>, encoding: Length) -> Result<Self, Stop> {
        match encoding {
            Length::Plain(stored_bytes) => Ok(Self { stored_bytes, compressed_from: None }),
            Length::Encoding(COMPRESSED) => {
                let stored_bytes = length::read_plain(input)?;
                Ok(Self { stored_bytes, compressed_from: Some(length::read_plain(input)?) })
            }
            Length::Encoding(number) => Err(Fault::StringEncoding(number).into()),
        }
    }

    /// What precedes a string's bytes, if that is at hand and sound, and the string is no integer.
    pub(super) fn peek(input: &mut Input<'_>) -> Option<Self> {
        let encoding = length::read(input).ok()?;
        Self::read(input, encoding).ok()
    }

    /// The string whose stored bytes are `bytes`.
    #[inline]
    pub(super) fn with(self, bytes: &[u8]) -> Stored<'_> {
        match self.compressed_from {
            None => Stored::Plain(bytes),
            Some(length) => Stored::Compressed(bytes, length),
        }
    }
}

/// Reads a string as it stands.
#[inline]
pub(super) fn read<'a>(input: &mut Input<'a>) -> Result<Stored<'a>, Stop> {
    let encoding = match length::read(input)? {
        Length::Encoding(INTEGER_8) => return Ok(Stored::Integer(i8::from_le_bytes(input.array()?).into())),
        Length::Encoding(INTEGER_16) => {
            return Ok(Stored::Integer(i16::from_le_bytes(input.array()?).into()));
        }
        Length::Encoding(INTEGER_32) => {
            return Ok(Stored::Integer(i32::from_le_bytes(input.array()?).into()));
        }
        encoding => encoding,
    };
    let extent = Extent::read(input, encoding)?;
    Ok(extent.with(input.take(extent.stored_bytes)?))
}

impl<'a> Stored<'a> {
    /// The string itself, at most `bytes_max` long: where it stands, or decoded into `scratch`, or into an allocation of its
    /// own if it is large.
    #[inline]
    pub(super) fn decode(self, scratch: &'a mut Vec<u8>, bytes_max: u64) -> Result<Cow<'a, [u8]>, Fault> {
        let length = match self {
            Self::Plain(bytes) => bytes.len() as u64,
            Self::Integer(_) => INTEGER_BYTES_MAX as u64,
            Self::Compressed(_, length) => length,
        };
        if length > bytes_max {
            return Err(Fault::TooLong);
        }
        match self {
            Self::Plain(bytes) => return Ok(Cow::Borrowed(bytes)),
            Self::Integer(number) => {
                scratch.clear();
                scratch.extend_from_slice(format_i64(number, &mut [0; 20]));
            }
            Self::Compressed(bytes, length) if length >= OWNED_BYTES_MIN => {
                let mut owned = Vec::new();
                let whole = lzf::decompress(bytes, length, &mut owned);
                return if whole { Ok(Cow::Owned(owned)) } else { Err(Fault::Compressed) };
            }
            Self::Compressed(bytes, length) => {
                scratch.clear();
                if !lzf::decompress(bytes, length, scratch) {
                    return Err(Fault::Compressed);
                }
            }
        }
        Ok(Cow::Borrowed(scratch))
    }
}
