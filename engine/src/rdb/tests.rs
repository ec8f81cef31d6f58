//! LZF; everything else is tested through the public functions, in `tests/rdb.rs`.

use proptest::prelude::*;

use super::lzf;

fn compressed(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = b"before".to_vec();
    let length = lzf::compress(bytes, &mut out);
    assert!(out.starts_with(b"before"));
    assert_eq!(out.len() - 6, length.unwrap_or(0));
    length.map(|_| out.split_off(6))
}

fn decompressed(bytes: &[u8], length: u64) -> Option<Vec<u8>> {
    let mut out = b"before".to_vec();
    let whole = lzf::decompress(bytes, length, &mut out);
    assert!(out.starts_with(b"before") && (whole || out.len() == 6));
    whole.then(|| out.split_off(6))
}

#[track_caller]
fn check(bytes: &[u8]) -> Option<usize> {
    let packed = compressed(bytes)?;
    assert!(packed.len() + 4 <= bytes.len());
    assert_eq!(decompressed(&packed, bytes.len() as u64).as_deref(), Some(bytes));
    assert_eq!(decompressed(&packed, bytes.len() as u64 + 1), None);
    assert_eq!(decompressed(&packed, bytes.len() as u64 - 1), None);
    Some(packed.len())
}

#[test]
fn repetitions_compress_at_every_length() {
    for length in 0..700 {
        let packed = check(&vec![b'x'; length]);
        assert_eq!(packed.is_some(), length > 11, "{length}");
    }
    for period in 1..60 {
        let bytes: Vec<u8> = (0..period).map(|number| number * 3).cycle().take(600).collect();
        let packed = check(&bytes).expect("shorter");
        assert!(packed < usize::from(period) + 20, "{period}: {packed}");
    }
}

#[test]
fn copies_come_from_8192_bytes_back_at_most() {
    let noise: Vec<u8> = (0..8192_u32).map(|number| (number.wrapping_mul(0x9E37_79B1) >> 24) as u8).collect();
    let marked = |distance: usize| {
        let mut bytes = noise.clone();
        bytes.resize(20_000, 0);
        bytes[100..120].copy_from_slice(b"a string of 20 bytes");
        bytes[100 + distance..120 + distance].copy_from_slice(b"a string of 20 bytes");
        check(&bytes).expect("zeros compress")
    };
    assert!(marked(8191) == marked(8192) && marked(8193) > marked(8192));
}

#[test]
fn positions_beyond_16_bits_are_no_obstacle() {
    let mut bytes: Vec<u8> =
        (0..200_000_u32).map(|number| (number.wrapping_mul(number) >> 7) as u8 & 7).collect();
    bytes.extend_from_within(199_000..);
    check(&bytes).expect("shorter");
}

#[test]
fn damaged_bytes_do_not_decompress() {
    for (bytes, length) in [
        (&b"\x00"[..], 1),
        (b"\x01a", 2),
        (b"\x20\x00", 3),
        (b"\x00a\x20", 4),
        (b"\x00a\x20\x01", 4),
        (b"\x00a\xe0\x00", 10),
        (b"\x00a\xe0", 10),
        (b"\x00a\xff\xff\xff", 265),
        (b"\x00a", u64::MAX),
    ] {
        assert_eq!(decompressed(bytes, length), None, "{}", bytes.escape_ascii());
    }
    assert_eq!(decompressed(b"\x00a\x20\x00", 4), Some(b"aaaa".to_vec()));
    assert_eq!(decompressed(b"\x00a\xe0\xff\x00", 265), Some(vec![b'a'; 265]));
    assert_eq!(decompressed(b"", 0), Some(Vec::new()));
}

proptest! {
    #[test]
    fn what_is_compressed_decompresses(
        parts in prop::collection::vec((prop::collection::vec(0..6_u8, 0..300), 0..20_usize), 0..10),
    ) {
        let bytes: Vec<u8> = parts.into_iter().flat_map(|(part, times)| part.repeat(times)).collect();
        check(&bytes);
    }

    #[test]
    fn any_bytes_decompress_or_do_not(bytes in prop::collection::vec(any::<u8>(), 0..200), length in 0..2000_u64) {
        let _ = decompressed(&bytes, length);
    }
}
