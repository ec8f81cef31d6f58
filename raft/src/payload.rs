//! Payloads of entries: bytes that never change, and that many hold at once without a copy.
//!
//! # Invariants
//!
//! - Short payloads that one [`Payloads`] made lie behind one another in blocks; a longer one is alone. So an entry costs a small
//!   part of an allocation.
//! - A block is freed with the last payload in it. A replica has a [`Payloads`] of its own, and lets go of its entries in order, so
//!   that what it still holds keeps little more than a block in memory that it does not hold.

use std::{fmt, ops::Deref};

use bytes::{Bytes, BytesMut};

/// Bytes of a block: of the first one, and of all once there were a few. A replica that seldom gets an entry needs no large one.
const BLOCK_BYTES_MIN: usize = 1 << 10;
const BLOCK_BYTES_MAX: usize = 16 << 10;

/// The bytes of one payload.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Payload(Bytes);

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, formatter)
    }
}

impl From<&[u8]> for Payload {
    fn from(bytes: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(bytes))
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

/// Makes payloads.
#[derive(Debug)]
pub struct Payloads {
    /// What is left of the last block.
    rest: BytesMut,
    /// How long that was, and may be.
    block_bytes: usize,
    block_bytes_max: usize,
}

impl Default for Payloads {
    fn default() -> Self {
        Self::new(BLOCK_BYTES_MAX)
    }
}

impl Payloads {
    /// With blocks of at most so many bytes, 1 to 16 KiB: a replica keeps one, and what is left of another.
    pub fn new(block_bytes_max: usize) -> Self {
        let block_bytes_max = block_bytes_max.clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX);
        Self { rest: BytesMut::new(), block_bytes: 0, block_bytes_max }
    }

    /// A payload of these bytes.
    pub fn copy(&mut self, bytes: &[u8]) -> Payload {
        if bytes.is_empty() {
            return Payload::default();
        }
        if bytes.len() > self.block_bytes_max / 4 {
            return bytes.into();
        }
        if self.rest.capacity() < bytes.len() {
            self.block_bytes = (2 * self.block_bytes).clamp(BLOCK_BYTES_MIN, self.block_bytes_max);
            self.rest = BytesMut::with_capacity(self.block_bytes.max(bytes.len()));
        }
        self.rest.extend_from_slice(bytes);
        Payload(self.rest.split().freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The longest payload that shares its block, in bytes.
    const SHARED_BYTES_MAX: usize = BLOCK_BYTES_MAX / 4;

    fn is_behind(payload: &Payload, before: &Payload) -> bool {
        payload.as_ptr() == before.as_ptr_range().end
    }

    #[test]
    fn short_ones_lie_behind_one_another_and_stay_as_they_are() {
        let mut payloads = Payloads::default();
        let bytes = |number: usize| vec![number as u8; 100 + number % 7];
        let made: Vec<Payload> = (0..1_000).map(|number| payloads.copy(&bytes(number))).collect();
        let blocks = 1 + made.windows(2).filter(|pair| !is_behind(&pair[1], &pair[0])).count();
        let needed = 1_000 * 103 / BLOCK_BYTES_MAX;
        assert!((needed..needed + 6).contains(&blocks), "{blocks} blocks");
        // One that is held does not change when others are gone, and more are made.
        let held = made[500].clone();
        drop(made);
        (0..1_000).for_each(|_| drop(payloads.copy(&[7; 100])));
        assert_eq!(*held, *bytes(500));
    }

    #[test]
    fn a_long_one_is_alone() {
        let mut payloads = Payloads::default();
        (0..1_000).for_each(|_| drop(payloads.copy(&[1; 100])));
        let first = payloads.copy(&[1; 100]);
        let long = payloads.copy(&[2; SHARED_BYTES_MAX + 1]);
        assert_eq!(*long, [2; SHARED_BYTES_MAX + 1]);
        // It takes nothing from the others' block.
        assert!(is_behind(&payloads.copy(&[3; 100]), &first));
    }

    #[test]
    fn blocks_are_no_longer_than_told() {
        let mut payloads = Payloads::new(2 << 10);
        (0..1_000).for_each(|_| drop(payloads.copy(&[1; 100])));
        assert_eq!(payloads.block_bytes, 2 << 10);
    }

    #[test]
    fn the_first_block_is_small_whatever_comes_first() {
        for length in [0, 1, BLOCK_BYTES_MIN, BLOCK_BYTES_MIN + 1, SHARED_BYTES_MAX] {
            let mut payloads = Payloads::default();
            assert_eq!(*payloads.copy(&vec![1; length]), vec![1; length]);
            assert!(payloads.rest.capacity() <= BLOCK_BYTES_MIN);
        }
        assert_eq!(Payload::default(), Payloads::default().copy(&[]));
    }
}
