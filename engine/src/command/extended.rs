//! The floating point numbers of INCRBYFLOAT: x87's 80-bit extended precision, in software.
//!
//! Redis on x86-64 computes INCRBYFLOAT in `long double`: a 64-bit significand, an exponent of 15 bits. Clients see
//! its digits, and a replica must compute the same ones whatever its processor, so the type is built here
//! from integers: parsing (`strtold`: decimal and hexadecimal, rounded half to even), addition, and printing
//! (`%.17Lf`, then trailing zeros dropped). Every result equals that of glibc on x86-64, bit for bit.
//!
//! Invariants of a finite value: the significand is 0, or its top bit is set, or the exponent is
//! [`EXPONENT_MIN`]; the exponent lies in `EXPONENT_MIN..=EXPONENT_MAX`.

mod big;
mod parse;

use big::Big;

/// Exponent of the last bit of the smallest numbers: 2^-16445.
const EXPONENT_MIN: i32 = -16_445;

/// Exponent of the last bit of the largest numbers: below 2^16384.
const EXPONENT_MAX: i32 = 16_383 - 63;

/// Digits behind the point that are printed.
const FRACTION_DIGITS: usize = 17;

/// A number of 80-bit extended precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extended {
    /// A number proper.
    Finite(Finite),
    /// Either infinity: a client may write them, but no sum may be one.
    Infinite,
}

/// `significand * 2^exponent`, negated if negative. See the module's invariants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Finite {
    /// Zero has a sign, too.
    negative: bool,
    significand: u64,
    exponent: i32,
}

impl Extended {
    /// Zero.
    pub(super) const ZERO: Self = Self::zero(false);

    const fn zero(negative: bool) -> Self {
        Self::Finite(Finite { negative, significand: 0, exponent: EXPONENT_MIN })
    }

    /// The number that the whole of `text` is; `None` if it is none, is NaN, or is out of range.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        parse::parse(text)
    }

    /// The sum; `None` if it is not finite.
    pub(super) fn add(self, other: Self) -> Option<Self> {
        let (Self::Finite(a), Self::Finite(b)) = (self, other) else { return None };
        // By the invariants, this orders magnitudes.
        let is_ordered = (a.exponent, a.significand) >= (b.exponent, b.significand);
        let (large, small) = if is_ordered { (a, b) } else { (b, a) };
        // The larger significand keeps guard bits below it. What the smaller one loses beyond those is told by its last
        // bit, which is enough: then it is so much smaller that the sum's last bits come from nothing else.
        let larger = u128::from(large.significand) << GUARD_BITS;
        let distance = large.exponent.abs_diff(small.exponent);
        let smaller = shift_right_sticky(u128::from(small.significand) << GUARD_BITS, distance);
        let sum = if a.negative == b.negative { larger + smaller } else { larger - smaller };
        if sum == 0 {
            // Opposite numbers cancel to plus zero; two negative zeros stay one.
            return Some(Self::zero(a.negative && b.negative));
        }
        Self::round(large.negative, sum, large.exponent - GUARD_BITS as i32, false)
    }

    /// The text as Redis prints it: all digits before the point, up to 17 behind it, no trailing zeros.
    ///
    /// # Panics
    /// If the number is infinite: no sum is.
    pub(super) fn format(self) -> Vec<u8> {
        let Self::Finite(Finite { negative, significand, exponent }) = self else {
            panic!("an infinite number has no digits");
        };
        let mut text = Vec::with_capacity(40);
        if negative {
            text.push(b'-');
        }
        let mut fraction = 0;
        if exponent > 64 {
            let mut integer = Big::from(u128::from(significand));
            integer.shift_left(exponent as u32);
            integer.write_decimal(&mut text);
        } else if exponent >= 0 {
            text.extend_from_slice((u128::from(significand) << exponent).to_string().as_bytes());
        } else {
            let integer;
            (integer, fraction) = split(significand, exponent.unsigned_abs());
            text.extend_from_slice(integer.to_string().as_bytes());
        }
        if fraction > 0 {
            text.push(b'.');
            let digits = format!("{fraction:0width$}", width = FRACTION_DIGITS);
            text.extend_from_slice(digits.trim_end_matches('0').as_bytes());
        }
        if text == b"-0" {
            text.remove(0);
        }
        text
    }

    /// The number nearest to `bits * 2^exponent` (and a little more if `sticky`), half to even; `None` if it is too large.
    fn round(negative: bool, bits: u128, exponent: i32, sticky: bool) -> Option<Self> {
        assert!(bits != 0, "zero needs no rounding");
        let width = (u128::BITS - bits.leading_zeros()) as i32;
        // Few enough bits, none of them below the smallest number's.
        let dropped = (width - 64).max(EXPONENT_MIN - exponent);
        let mut significand;
        let mut exponent = exponent + dropped;
        if dropped <= 0 {
            assert!(!sticky, "bits that were not needed were dropped");
            significand = bits << dropped.unsigned_abs();
        } else if dropped > width {
            significand = 0;
        } else {
            significand = bits.checked_shr(dropped as u32).unwrap_or(0);
            let half = 1 << (dropped - 1);
            let rest = bits & (half | (half - 1));
            let is_odd = significand & 1 == 1;
            if rest > half || (rest == half && (sticky || is_odd)) {
                significand += 1;
            }
            if significand >> 64 != 0 {
                significand >>= 1;
                exponent += 1;
            }
        }
        let significand = u64::try_from(significand).expect("at most 64 bits are kept");
        (exponent <= EXPONENT_MAX).then_some(Self::Finite(Finite { negative, significand, exponent }))
    }
}

/// Bits below the larger significand that an addition keeps; one above it is left for the carry.
const GUARD_BITS: u32 = 62;

const TEN_TO_17: u64 = 10_u64.pow(FRACTION_DIGITS as u32);

/// Shifts right; a last bit of one says that ones were lost.
fn shift_right_sticky(bits: u128, distance: u32) -> u128 {
    let kept = bits.checked_shr(distance).unwrap_or(0);
    let is_exact = kept.checked_shl(distance).unwrap_or(0) == bits;
    kept | u128::from(!is_exact)
}

/// Splits `significand * 2^-places` into its integer part and its fraction in units of 10^-17, rounded half to even.
fn split(significand: u64, places: u32) -> (u128, u64) {
    let integer = significand.checked_shr(places).unwrap_or(0);
    let fraction = significand - integer.checked_shl(places).unwrap_or(0);
    // Below 2^64 * 2^57: it fits.
    let scaled = u128::from(fraction) * u128::from(TEN_TO_17);
    let mut units = scaled.checked_shr(places).unwrap_or(0);
    let rest = scaled - units.checked_shl(places).unwrap_or(0);
    // With more than 128 places, the fraction is below half a unit.
    if let Some(half) = 1_u128.checked_shl(places - 1)
        && (rest > half || (rest == half && units & 1 == 1))
    {
        units += 1;
    }
    let carry = units / u128::from(TEN_TO_17);
    (u128::from(integer) + carry, (units % u128::from(TEN_TO_17)) as u64)
}

#[cfg(test)]
mod tests;
