//! The checksum of RDB files and DUMP payloads: CRC-64 with Jones' polynomial, reflected, beginning at zero.

use std::fmt;

use crc::{CRC_64_REDIS, Crc, Digest, Table};

static ALGORITHM: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_REDIS);

/// A checksum of bytes that come in pieces.
#[derive(Clone)]
pub struct Checksum(Digest<'static, u64, Table<16>>);

impl Checksum {
    /// The checksum of nothing.
    pub fn new() -> Self {
        Self(ALGORITHM.digest())
    }

    /// The checksum of `bytes`.
    pub fn of(bytes: &[u8]) -> u64 {
        ALGORITHM.checksum(bytes)
    }

    /// Appends the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all bytes so far. A file ends with it, the lowest byte first.
    pub fn value(&self) -> u64 {
        self.0.clone().finalize()
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checksum({:#018x})", self.value())
    }
}

impl Default for Checksum {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_polynomial_is_redis_own() {
        // The check value in Redis's crc64.c.
        assert_eq!(Checksum::of(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        assert_eq!(Checksum::of(b""), 0);
    }

    #[test]
    fn pieces_add_up() {
        let bytes: Vec<u8> = (0..1000u32).map(|number| (number * number / 8) as u8).collect();
        for cut in [0, 1, 15, 16, 17, 500, 1000] {
            let mut checksum = Checksum::new();
            checksum.update(&bytes[..cut]);
            checksum.update(&bytes[cut..]);
            assert_eq!(checksum.value(), Checksum::of(&bytes), "{cut}");
        }
    }
}
