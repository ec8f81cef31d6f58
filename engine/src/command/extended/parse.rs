//! From text to extended precision, as `strtold` reads it and as Redis then judges it.

use super::{Extended, big::Big};

/// The longest text that Redis looks at, in bytes.
const LEN_BYTES_MAX: usize = 5 * 1024 - 1;

/// Exponents beyond this are all alike: too large or too small for any digits that fit the text.
const EXPONENT_LIMIT: i64 = 100_000;

/// Powers of five up to this one fit 64 bits.
const FIVES_MAX: u32 = 27;

pub(super) fn parse(text: &[u8]) -> Option<Extended> {
    if text.len() > LEN_BYTES_MAX {
        return None;
    }
    let (negative, unsigned) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if [&b"inf"[..], b"infinity"].iter().any(|word| unsigned.eq_ignore_ascii_case(word)) {
        return Some(Extended::Infinite);
    }
    match unsigned {
        [b'0', b'x' | b'X', digits @ ..] => Digits::<16>::read(digits)?.hexadecimal(negative),
        digits => Digits::<10>::read(digits)?.decimal(negative),
    }
}

/// The parts of a number: significant digits, and the exponent of its last digit's place.
struct Digits<'a, const BASE: u32> {
    integer: &'a [u8],
    fraction: &'a [u8],
    /// What `e` or `p` says; 0 without one.
    exponent: i64,
}

impl<'a, const BASE: u32> Digits<'a, BASE> {
    /// Reads digits, a point among them, and an exponent; all of `text` has to be that.
    fn read(text: &'a [u8]) -> Option<Self> {
        let is_digit = |byte: &u8| char::from(*byte).is_digit(BASE);
        let integer_end = text.iter().position(|byte| !is_digit(byte)).unwrap_or(text.len());
        let (integer, rest) = text.split_at(integer_end);
        let (fraction, rest) = match rest {
            [b'.', rest @ ..] => {
                rest.split_at(rest.iter().position(|byte| !is_digit(byte)).unwrap_or(rest.len()))
            }
            rest => (&[][..], rest),
        };
        if integer.is_empty() && fraction.is_empty() {
            return None;
        }
        let exponent = match rest {
            [] => 0,
            [mark, digits @ ..] if mark.eq_ignore_ascii_case(if BASE == 16 { &b'p' } else { &b'e' }) => {
                read_exponent(digits)?
            }
            _ => return None,
        };
        Some(Self { integer, fraction, exponent })
    }

    fn all(&self) -> impl Iterator<Item = u32> {
        let digits = self.integer.iter().chain(self.fraction).skip_while(|&&digit| digit == b'0');
        digits.map(|&digit| char::from(digit).to_digit(BASE).expect("only digits were read"))
    }
}

fn read_exponent(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() {
        return None;
    }
    let mut magnitude = 0_i64;
    for digit in digits {
        let digit = char::from(*digit).to_digit(10)?;
        magnitude = (magnitude * 10 + i64::from(digit)).min(EXPONENT_LIMIT);
    }
    Some(if negative { -magnitude } else { magnitude })
}

impl Digits<'_, 10> {
    fn decimal(self, negative: bool) -> Option<Extended> {
        let places = self.fraction.len() as i64;
        let mut count = self.all().count();
        // Zeros at the end only move the point.
        let trailing = self.fraction.iter().rev().chain(self.integer.iter().rev());
        let zeros = trailing.take_while(|&&digit| digit == b'0').count().min(count);
        count -= zeros;
        if count == 0 {
            return Some(Extended::zero(negative));
        }
        let exponent = self.exponent - places + zeros as i64;
        let leading = exponent + count as i64;
        if leading > 4_934 {
            return None;
        }
        if leading < -4_952 {
            // Below half of the smallest number: it would be zero, which Redis refuses.
            return None;
        }
        let exponent = exponent as i32;
        let digits = self.all().take(count);
        let tens = exponent.unsigned_abs();
        if count <= 19 && tens <= FIVES_MAX {
            return short(negative, digits.fold(0, |value, digit| value * 10 + u64::from(digit)), exponent);
        }
        let mut value = Big::from(0);
        for digit in digits {
            value.multiply_add(10, digit);
        }
        let (bits, binary_exponent, sticky) = if exponent >= 0 {
            value.multiply_by_ten_to(tens);
            let (top, below, lost) = value.top_bits(100);
            (top, below as i32, lost)
        } else {
            let mut divisor = Big::from(1);
            divisor.multiply_by_ten_to(tens);
            // The quotient gets a hundred bits, or one more.
            let up = divisor.bit_length() as i32 + 100 - value.bit_length() as i32;
            let shifted = if up >= 0 { &mut value } else { &mut divisor };
            shifted.shift_left(up.unsigned_abs());
            let (quotient, rest) = value.divide(&divisor);
            (quotient, -up, rest)
        };
        nonzero(Extended::round(negative, bits, binary_exponent, sticky)?)
    }
}

/// `digits * 10^exponent` where both are so small that one operation on integers decides.
fn short(negative: bool, digits: u64, exponent: i32) -> Option<Extended> {
    let fives = 5_u128.pow(exponent.unsigned_abs());
    if exponent >= 0 {
        return Extended::round(negative, u128::from(digits) * fives, exponent, false);
    }
    let up = digits.leading_zeros() + 64;
    let scaled = u128::from(digits) << up;
    let (quotient, rest) = (scaled / fives, scaled % fives);
    // The quotient has at least 65 bits: one more, which is set if there is a rest, rounds it right.
    let bits = quotient << 1 | u128::from(rest != 0);
    Extended::round(negative, bits, exponent - up as i32 - 1, false)
}

impl Digits<'_, 16> {
    fn hexadecimal(self, negative: bool) -> Option<Extended> {
        let mut bits = 0_u128;
        let mut exponent = self.exponent - 4 * self.fraction.len() as i64;
        let mut sticky = false;
        for digit in self.all() {
            if bits >> 120 == 0 {
                bits = bits << 4 | u128::from(digit);
            } else {
                sticky |= digit != 0;
                exponent += 4;
            }
        }
        if bits == 0 {
            return Some(Extended::zero(negative));
        }
        let exponent = exponent.clamp(-2 * EXPONENT_LIMIT, 2 * EXPONENT_LIMIT) as i32;
        nonzero(Extended::round(negative, bits, exponent, sticky)?)
    }
}

/// A number that underflowed to zero is refused, as Redis does.
fn nonzero(number: Extended) -> Option<Extended> {
    (number != Extended::zero(false) && number != Extended::zero(true)).then_some(number)
}
