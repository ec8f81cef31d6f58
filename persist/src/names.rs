//! What the files of a data directory are called.
//!
//! Every name has one form: a file whose name is written otherwise (`00-1.segment`) is none of ours, and no two names
//! mean the same.

/// The manifest's file.
pub const MANIFEST: &str = "manifest";

/// The file that the running server holds locked.
pub const LOCK: &str = "lock";

const SEGMENT_SUFFIX: &str = ".segment";
const SNAPSHOT_SUFFIX: &str = ".snapshot.rdb";

/// Digits of a segment's sequence, and of a snapshot's index.
const SEQUENCE_DIGITS: usize = 10;
const INDEX_DIGITS: usize = 20;

/// The file of a core's segment.
pub fn segment(core: u16, sequence: u32) -> String {
    format!("{core}-{sequence:0SEQUENCE_DIGITS$}{SEGMENT_SUFFIX}")
}

/// The core and sequence of the segment whose file has this name.
pub fn parse_segment(name: &str) -> Option<(u16, u32)> {
    let (core, sequence) = name.strip_suffix(SEGMENT_SUFFIX)?.split_once('-')?;
    Some((number(core)?, padded(sequence, SEQUENCE_DIGITS)?))
}

/// The file of a shard's snapshot that covers everything up to `index`.
pub fn snapshot(shard: u16, index: u64) -> String {
    format!("{shard}-{index:0INDEX_DIGITS$}{SNAPSHOT_SUFFIX}")
}

/// The shard and index of the snapshot whose file has this name.
pub fn parse_snapshot(name: &str) -> Option<(u16, u64)> {
    let (shard, index) = name.strip_suffix(SNAPSHOT_SUFFIX)?.split_once('-')?;
    Some((number(shard)?, padded(index, INDEX_DIGITS)?))
}

/// A decimal number without padding or sign.
fn number(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// A decimal number of so many digits, zeros in front.
fn padded<T: std::str::FromStr>(text: &str, digits: usize) -> Option<T> {
    let plain = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_form() {
        assert_eq!(segment(0, 1), "0-0000000001.segment");
        assert_eq!(snapshot(63, 77), "63-00000000000000000077.snapshot.rdb");
        for name in [
            "",
            "manifest",
            "0-1.segment",
            "00-0000000001.segment",
            "+0-0000000001.segment",
            "-0000000001.segment",
            "0-+000000001.segment",
            "0-4294967296.segment",
            "65536-0000000001.segment",
            "0-00000000001.segment",
            "0-0000000001.segment.tmp",
            "0-0000000001",
            "٣-0000000001.segment",
        ] {
            assert_eq!(parse_segment(name), None, "{name}");
        }
        for name in [
            "1-7.snapshot.rdb",
            "1-99999999999999999999.snapshot.rdb",
            "01-00000000000000000077.snapshot.rdb",
        ] {
            assert_eq!(parse_snapshot(name), None, "{name}");
        }
    }

    #[test]
    fn names_read_back() {
        for (core, sequence) in [(0, 0), (0, 1), (7, 4_000_000_000), (u16::MAX, u32::MAX)] {
            assert_eq!(parse_segment(&segment(core, sequence)), Some((core, sequence)));
        }
        for (shard, index) in [(0, 0), (63, 1), (u16::MAX, u64::MAX)] {
            assert_eq!(parse_snapshot(&snapshot(shard, index)), Some((shard, index)));
        }
    }
}
