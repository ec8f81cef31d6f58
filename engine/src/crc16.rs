//! The slot of a key, as Redis Cluster defines it: CRC16 of the hash tag or of the whole key, modulo 16,384.
//!
//! The checksum is CRC16-CCITT in its XMODEM form (polynomial 0x1021, initial value 0, nothing reflected), computed
//! sixteen bytes at a time by the slicing method (Kounavis and Berry, "A Systematic Approach to Building High
//! Performance Software-Based CRC Generators", 2005). Two invariants make it short:
//!
//! - The initial value is 0, so zero bytes in front change nothing: a key whose length is not a multiple of
//!   sixteen is extended *in front*, and no byte-wise tail is left.
//! - The tables are built at compile time from the bit-wise definition.

use crate::SLOT_COUNT;

/// The polynomial x^16 + x^12 + x^5 + 1, its leading bit dropped.
const POLYNOMIAL: u16 = 0x1021;

/// `TABLES[k][b]` is the checksum of byte `b` followed by `k` zero bytes.
static TABLES: [[u16; 256]; 16] = tables();

/// The slot of a key: CRC16 of its hash tag, or of all of it, modulo 16,384.
///
/// The hash tag is what lies between the first `{` and the first `}` behind it, unless that is nothing.
#[inline]
pub fn key_slot(key: &[u8]) -> u16 {
    let hashed = if contains_brace(key) { hash_tag(key) } else { key };
    crc16(hashed) % SLOT_COUNT
}

/// CRC16-CCITT (XMODEM) of `bytes`.
#[inline(always)]
fn crc16(bytes: &[u8]) -> u16 {
    let (head, blocks) = bytes.split_at(bytes.len() % 16);
    let mut crc = match head.split_last_chunk() {
        Some((first, last)) => step::<8>(short_word(first)) ^ step::<0>(u64::from_be_bytes(*last)),
        None if head.is_empty() => 0,
        None => step::<0>(short_word(head)),
    };
    for block in blocks.chunks_exact(16) {
        let block: [u8; 16] = block.try_into().expect("chunks_exact yields sixteen bytes");
        let word = u128::from_be_bytes(block) ^ (u128::from(crc) << 112);
        crc = step::<8>((word >> 64) as u64) ^ step::<0>(word as u64);
    }
    crc
}

/// The checksum of eight bytes, the first one in the top bits of `word`, followed by `ZEROS` zero bytes.
#[inline]
fn step<const ZEROS: usize>(word: u64) -> u16 {
    let [a, b, c, d, e, f, g, h] = word.to_be_bytes().map(usize::from);
    TABLES[ZEROS + 7][a]
        ^ TABLES[ZEROS + 6][b]
        ^ TABLES[ZEROS + 5][c]
        ^ TABLES[ZEROS + 4][d]
        ^ TABLES[ZEROS + 3][e]
        ^ TABLES[ZEROS + 2][f]
        ^ TABLES[ZEROS + 1][g]
        ^ TABLES[ZEROS][h]
}

/// Up to eight bytes as a big-endian number: zeros in front. Two overlapping reads, no loop.
#[inline]
fn short_word(bytes: &[u8]) -> u64 {
    let length = bytes.len();
    debug_assert!(length <= 8);
    if length >= 4 {
        let first = bytes.first_chunk::<4>().map_or(0, |chunk| u64::from(u32::from_be_bytes(*chunk)));
        let last = bytes.last_chunk::<4>().map_or(0, |chunk| u64::from(u32::from_be_bytes(*chunk)));
        (first << (8 * (length - 4))) | last
    } else if length >= 2 {
        let first = bytes.first_chunk::<2>().map_or(0, |chunk| u64::from(u16::from_be_bytes(*chunk)));
        let last = bytes.last_chunk::<2>().map_or(0, |chunk| u64::from(u16::from_be_bytes(*chunk)));
        (first << (8 * (length - 2))) | last
    } else {
        bytes.first().map_or(0, |&byte| u64::from(byte))
    }
}

/// Whether `{` occurs: the question that nearly every key answers with no.
#[inline]
fn contains_brace(key: &[u8]) -> bool {
    // The last block overlaps the one before it, so no byte-wise tail is left.
    if let Some(last) = key.last_chunk::<16>() {
        let blocks =
            key.chunks_exact(16).map(|block| block.try_into().expect("chunks_exact yields sixteen bytes"));
        return blocks.fold(block_contains_brace(last), |found, block| found | block_contains_brace(block));
    }
    if let (Some(first), Some(last)) = (key.first_chunk(), key.last_chunk()) {
        let [first, last] = [first, last].map(|word: &[u8; 8]| u64::from_ne_bytes(*word));
        return zero_bytes(first ^ BRACES) | zero_bytes(last ^ BRACES) != 0;
    }
    zero_bytes(short_word(key) ^ BRACES) != 0
}

/// The same for sixteen bytes: a comparison of vectors.
#[inline(always)]
fn block_contains_brace(block: &[u8; 16]) -> bool {
    block.iter().fold(0, |found, &byte| found | u8::from(byte == b'{')) != 0
}

/// `{` in every byte.
const BRACES: u64 = u64::from_ne_bytes([b'{'; 8]);

/// Non-zero exactly if a byte of `word` is zero (Mycroft's test).
#[inline]
fn zero_bytes(word: u64) -> u64 {
    const LOW_BITS: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH_BITS: u64 = u64::from_ne_bytes([0x80; 8]);
    word.wrapping_sub(LOW_BITS) & !word & HIGH_BITS
}

/// What is hashed of a key with a `{` in it.
#[cold]
fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|&byte| byte == b'{') else { return key };
    let inside = &key[open + 1..];
    match inside.iter().position(|&byte| byte == b'}') {
        Some(length) if length > 0 => &inside[..length],
        _ => key,
    }
}

const fn tables() -> [[u16; 256]; 16] {
    let mut tables = [[0; 256]; 16];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ POLYNOMIAL };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut zeros = 1;
    while zeros < 16 {
        let mut byte = 0;
        while byte < 256 {
            let crc: u16 = tables[zeros - 1][byte];
            tables[zeros][byte] = (crc << 8) ^ tables[0][(crc >> 8) as usize];
            byte += 1;
        }
        zeros += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, bit by bit.
    fn reference(bytes: &[u8]) -> u16 {
        bytes.iter().fold(0, |crc, &byte| {
            (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ POLYNOMIAL }
            })
        })
    }

    #[test]
    fn known_checksums() {
        assert_eq!(crc16(b""), 0);
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(crc16(b"A"), 0x58E5);
    }

    #[test]
    fn known_slots() {
        assert_eq!(key_slot(b""), 0);
        assert_eq!(key_slot(b"foo"), 12_182);
        assert_eq!(key_slot(b"bar"), 5_061);
        assert_eq!(key_slot(b"123456789"), 0x31C3);
    }

    #[test]
    fn hash_tags() {
        let same = |key: &[u8], tag: &[u8]| assert_eq!(key_slot(key), reference(tag) % SLOT_COUNT);
        same(b"{user1000}.following", b"user1000");
        same(b"foo{}{bar}", b"foo{}{bar}");
        same(b"foo{{bar}}zap", b"{bar");
        same(b"foo{bar}{zap}", b"bar");
        same(b"foo{bar", b"foo{bar");
        same(b"}foo{bar}", b"bar");
        same(b"{", b"{");
        same(b"a-key-of-some-length-with-a{tag}-inside", b"tag");
    }

    #[test]
    fn a_brace_is_found_at_every_place() {
        for length in 0..40 {
            let mut key = vec![b'z'; length];
            assert!(!contains_brace(&key));
            for place in 0..length {
                key[place] = b'{';
                assert!(contains_brace(&key), "length {length}, place {place}");
                key[place] = b'z';
            }
        }
    }

    proptest! {
        #[test]
        fn equals_the_definition(bytes in prop::collection::vec(any::<u8>(), 0..=64)) {
            for length in 0..=bytes.len() {
                prop_assert_eq!(crc16(&bytes[..length]), reference(&bytes[..length]));
            }
        }
    }
}
