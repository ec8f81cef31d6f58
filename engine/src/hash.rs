//! The keyspace's hash: fixed when data is created, equal on every node.
//!
//! SCAN cursors, the order of keys and the wheel's records depend on these values, so they may never change, neither
//! between processes nor between builds. The algorithm is ahash's portable one, at a pinned version; its
//! `with_seeds` takes all keys from its arguments and draws none, neither at run time nor at compile time. The golden values in the
//! test pin all of it. What would replace the algorithm does not compile: ahash has another one for
//! x86-64 processors with AES instructions known at compile time, and reads words in the machine's byte order.

use std::hash::{BuildHasher, Hasher as _};

use crate::crc16::key_slot;

#[cfg(all(any(target_arch = "x86", target_arch = "x86_64"), target_feature = "aes"))]
compile_error!(
    "build without the `aes` target feature (such as -C target-cpu=native sets): it changes the keyspace's hash"
);

#[cfg(not(all(target_endian = "little", target_pointer_width = "64")))]
compile_error!("the keyspace's hash is defined for 64-bit little-endian machines");

/// A key's place: its cluster slot and its 64-bit hash, each computed once a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyHash {
    /// The slot: CRC16 of the hash tag or key, modulo 16,384.
    pub slot: u16,
    /// The hash of the whole key.
    pub hash: u64,
}

/// Hashes keys with the data's seed.
#[derive(Clone)]
pub struct Hasher {
    state: ahash::RandomState,
}

impl Hasher {
    /// A hasher for data created with `seed`.
    pub fn new(seed: u64) -> Self {
        let [a, b, c, d] = [1, 2, 3, 4].map(|round: u64| (seed ^ round).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        Self { state: ahash::RandomState::with_seeds(a, b, c, d) }
    }

    /// The slot and hash of `key`.
    #[inline]
    pub fn key(&self, key: &[u8]) -> KeyHash {
        KeyHash { slot: key_slot(key), hash: self.hash(key) }
    }

    /// The hash of `key`.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = self.state.build_hasher();
        hasher.write(key);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These values pin the algorithm: whoever has to change them makes existing data unreadable.
    #[test]
    fn the_hash_is_fixed() {
        let key = |length: usize| (0..length).map(|index| (index * 7 + 1) as u8).collect::<Vec<u8>>();
        let lengths = [0, 1, 3, 8, 9, 16, 17, 40, 1000];
        let hashes = |seed| lengths.map(|length| Hasher::new(seed).hash(&key(length)));
        assert_eq!(
            hashes(0),
            [
                0x6187_C4FF_D582_0DF0,
                0xB7F5_1F79_F9D0_BB49,
                0x39E4_EA41_8130_1D28,
                0xC61D_C8AF_43B8_2366,
                0x5BB9_88DD_8462_3942,
                0x3849_3A8D_8714_038E,
                0x9A09_EBB2_A505_C7BD,
                0x954F_ED36_BBAF_5BFC,
                0x5453_0322_9ABD_8AA3
            ]
        );
        assert_eq!(
            hashes(0x0123_4567_89AB_CDEF),
            [
                0xDA75_920E_06CE_FFBE,
                0x0319_FEE6_90EA_3B0D,
                0x1CBC_1C01_2BB0_75B1,
                0xD6E5_3A06_6DC0_CA51,
                0x7E80_83F4_1BA0_4156,
                0xA8BD_ABA4_9B97_44A5,
                0x09CC_0EFC_B636_353B,
                0xB8EE_825D_9EC1_84B8,
                0xFDF1_6F9A_3764_DF2D
            ]
        );
    }

    #[test]
    fn seeds_and_keys_make_a_difference() {
        let hasher = Hasher::new(0);
        assert_ne!(hasher.hash(b"foo"), hasher.hash(b"bar"));
        assert_ne!(hasher.hash(b"foo"), Hasher::new(1).hash(b"foo"));
        assert_eq!(hasher.key(b"foo"), KeyHash { slot: 12_182, hash: hasher.hash(b"foo") });
    }
}
