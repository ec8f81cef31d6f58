//! Integers of any size, as far as reading and printing extended precision needs them. The slow path: numbers of more
//! than 19 digits or with exponents beyond 27.

/// A non-negative integer: 32-bit limbs, the lowest first, none of them a leading zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Big {
    limbs: Vec<u32>,
}

impl From<u128> for Big {
    fn from(mut value: u128) -> Self {
        let mut limbs = Vec::new();
        while value != 0 {
            limbs.push(value as u32);
            value >>= 32;
        }
        Self { limbs }
    }
}

impl Big {
    /// How many bits it has.
    pub(super) fn bit_length(&self) -> u32 {
        self.limbs.last().map_or(0, |top| self.limbs.len() as u32 * 32 - top.leading_zeros())
    }

    /// Multiplies by `factor` and adds `summand`.
    pub(super) fn multiply_add(&mut self, factor: u32, summand: u32) {
        let mut carry = u64::from(summand);
        for limb in &mut self.limbs {
            carry += u64::from(*limb) * u64::from(factor);
            *limb = carry as u32;
            carry >>= 32;
        }
        if carry != 0 {
            self.limbs.push(carry as u32);
        }
    }

    /// Multiplies by ten to the power `exponent`.
    pub(super) fn multiply_by_ten_to(&mut self, mut exponent: u32) {
        while exponent > 0 {
            let digits = exponent.min(9);
            self.multiply_add(10_u32.pow(digits), 0);
            exponent -= digits;
        }
    }

    /// Multiplies by two to the power `exponent`.
    pub(super) fn shift_left(&mut self, exponent: u32) {
        let bits = exponent % 32;
        if bits > 0 {
            self.multiply_add(1 << bits, 0);
        }
        if !self.limbs.is_empty() {
            self.limbs.splice(0..0, std::iter::repeat_n(0, (exponent / 32) as usize));
        }
    }

    /// The top `width` bits (at most 128), how many bits lie below them, and whether one of those is set.
    pub(super) fn top_bits(&self, width: u32) -> (u128, u32, bool) {
        let below = self.bit_length().saturating_sub(width);
        let (skipped, shift) = ((below / 32) as usize, below % 32);
        let mut top = 0_u128;
        for (index, &limb) in self.limbs[skipped.min(self.limbs.len())..].iter().enumerate() {
            let place = index as u32 * 32;
            let limb = u128::from(limb);
            top |= if place >= shift { limb << (place - shift) } else { limb >> shift };
        }
        let lost_limb = self.limbs.get(skipped).is_some_and(|limb| limb & ((1 << shift) - 1) != 0);
        let lost = lost_limb || self.limbs.iter().take(skipped).any(|&limb| limb != 0);
        (top, below, lost)
    }

    /// Divides by `divisor` where the quotient is known to have at most 128 bits; returns it and whether a rest remains.
    pub(super) fn divide(&self, divisor: &Self) -> (u128, bool) {
        let mut rest = self.clone();
        let mut quotient = 0_u128;
        let mut shift = self.bit_length().saturating_sub(divisor.bit_length());
        let mut shifted = divisor.clone();
        shifted.shift_left(shift);
        loop {
            quotient <<= 1;
            if !rest.is_less_than(&shifted) {
                rest.subtract(&shifted);
                quotient |= 1;
            }
            if shift == 0 {
                return (quotient, !rest.limbs.is_empty());
            }
            shifted.halve();
            shift -= 1;
        }
    }

    /// Appends its decimal digits.
    pub(super) fn write_decimal(mut self, text: &mut Vec<u8>) {
        let mut groups = Vec::new();
        while !self.limbs.is_empty() {
            let mut rest = 0_u64;
            for limb in self.limbs.iter_mut().rev() {
                rest = rest << 32 | u64::from(*limb);
                *limb = (rest / 1_000_000_000) as u32;
                rest %= 1_000_000_000;
            }
            self.trim();
            groups.push(rest);
        }
        let Some((first, rest)) = groups.split_last() else {
            text.push(b'0');
            return;
        };
        text.extend_from_slice(first.to_string().as_bytes());
        for group in rest.iter().rev() {
            text.extend_from_slice(format!("{group:09}").as_bytes());
        }
    }

    fn is_less_than(&self, other: &Self) -> bool {
        let by_length = self.limbs.len().cmp(&other.limbs.len());
        by_length.then_with(|| self.limbs.iter().rev().cmp(other.limbs.iter().rev())).is_lt()
    }

    fn subtract(&mut self, other: &Self) {
        let mut borrow = false;
        for (index, limb) in self.limbs.iter_mut().enumerate() {
            let (less, first) = limb.overflowing_sub(other.limbs.get(index).copied().unwrap_or(0));
            let (less, second) = less.overflowing_sub(u32::from(borrow));
            *limb = less;
            borrow = first || second;
        }
        assert!(!borrow, "the smaller number is subtracted");
        self.trim();
    }

    fn halve(&mut self) {
        let mut carry = 0;
        for limb in self.limbs.iter_mut().rev() {
            let low = *limb & 1;
            *limb = *limb >> 1 | carry << 31;
            carry = low;
        }
        self.trim();
    }

    fn trim(&mut self) {
        let used = self.limbs.iter().rposition(|&limb| limb != 0).map_or(0, |top| top + 1);
        self.limbs.truncate(used);
    }
}
