//! Lengths: one, two, five or nine bytes, and the mark that a string follows in another encoding.
//!
//! ```text
//! 00 + 6 bits                       the length
//! 01 + 6 bits, a byte               the length in 14 bits, the highest first
//! 10000000, four bytes              the length in 32 bits, the highest byte first
//! 10000001, eight bytes             the length in 64 bits, the highest byte first
//! 11 + 6 bits                       no length: a string in the encoding of this number
//! ```

use super::Fault;
use super::input::{Input, Stop};

/// What a length byte says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// A length.
    Plain(u64),
    /// The number of a string's encoding.
    Encoding(u8),
}

/// The two top bits that mark a string's encoding.
pub(super) const ENCODED: u8 = 0xC0;

const BITS_14: u8 = 0x40;
const BITS_32: u8 = 0x80;
const BITS_64: u8 = 0x81;

/// The longest form of a length, in bytes.
pub(super) const BYTES_MAX: usize = 9;

/// Appends a length.
#[inline]
pub(super) fn write(out: &mut Vec<u8>, length: u64) {
    let mut buffer = [0; BYTES_MAX];
    let bytes = encode(length, &mut buffer);
    out.extend_from_slice(&buffer[..bytes]);
}

/// Writes a length to the start of `buffer`, which is long enough, and says how many bytes it took.
#[inline]
pub(super) fn encode(length: u64, buffer: &mut [u8]) -> usize {
    match length {
        0..0x40 => {
            buffer[0] = length as u8;
            1
        }
        0x40..0x4000 => {
            buffer[..2].copy_from_slice(&[BITS_14 | (length >> 8) as u8, length as u8]);
            2
        }
        0x4000..=0xFFFF_FFFF => {
            buffer[0] = BITS_32;
            buffer[1..5].copy_from_slice(&(length as u32).to_be_bytes());
            5
        }
        _ => {
            buffer[0] = BITS_64;
            buffer[1..9].copy_from_slice(&length.to_be_bytes());
            9
        }
    }
}

/// Reads a length, or the mark of an encoding.
#[inline]
pub(super) fn read(input: &mut Input<'_>) -> Result<Length, Stop> {
    let first = input.byte()?;
    let low_bits = first & 0x3F;
    Ok(match first & ENCODED {
        0 => Length::Plain(u64::from(low_bits)),
        BITS_14 => Length::Plain(u64::from(low_bits) << 8 | u64::from(input.byte()?)),
        ENCODED => Length::Encoding(low_bits),
        _ if first == BITS_32 => Length::Plain(u64::from(u32::from_be_bytes(input.array()?))),
        _ if first == BITS_64 => Length::Plain(u64::from_be_bytes(input.array()?)),
        _ => return Err(Fault::Length(first).into()),
    })
}

/// Reads a length where no encoding may stand.
#[inline]
pub(super) fn read_plain(input: &mut Input<'_>) -> Result<u64, Stop> {
    match read(input)? {
        Length::Plain(length) => Ok(length),
        Length::Encoding(number) => Err(Fault::Length(ENCODED | number).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_the_shortest_form() {
        for (length, bytes) in [
            (0, &[0][..]),
            (63, &[63]),
            (64, &[0x40, 64]),
            (16_383, &[0x7F, 0xFF]),
            (16_384, &[0x80, 0, 0, 0x40, 0]),
            (u64::from(u32::MAX), &[0x80, 255, 255, 255, 255]),
            (1 << 32, &[0x81, 0, 0, 0, 1, 0, 0, 0, 0]),
            (u64::MAX, &[0x81, 255, 255, 255, 255, 255, 255, 255, 255]),
        ] {
            let mut out = Vec::new();
            write(&mut out, length);
            assert_eq!(out, bytes, "{length}");
            assert_eq!(read_plain(&mut Input::new(&out)), Ok(length));
            for end in 0..out.len() {
                let stop = read(&mut Input::new(&out[..end]));
                assert!(matches!(stop, Err(Stop::More(more)) if more as usize <= out.len()), "{length}");
            }
        }
    }

    #[test]
    fn other_bytes_are_no_lengths() {
        for byte in 0x82..=0xBF {
            assert_eq!(read(&mut Input::new(&[byte])), Err(Fault::Length(byte).into()));
        }
        for byte in 0xC0..=0xFF {
            assert_eq!(read(&mut Input::new(&[byte])), Ok(Length::Encoding(byte & 0x3F)));
            assert_eq!(read_plain(&mut Input::new(&[byte])), Err(Fault::Length(byte).into()));
        }
    }
}
