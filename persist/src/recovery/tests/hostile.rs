//! Bytes that nobody wrote: an error or a tail, never a panic.

use std::mem::offset_of;

use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes, little_endian::U32};

use super::{
    super::{segment::Head, *},
    build::{Built, Records, dir, segment, sign_record, with_cuts},
};
use crate::format::{BLOCK_ALIGN, BlockHeader, Kind, RecordHeader, SegmentHeader, align_up};

/// A directory with some of everything, and its manifest.
fn sample() -> (Built, Manifest) {
    let whole = b"one two";
    let mut built = dir([
        segment(0, 1, 1)
            .shards([0, 1])
            .block(
                0,
                Records::new()
                    .entry(0, 1, "a")
                    .prepare(1, 1, 7, "part")
                    .entry(0, 2, "b")
                    .grouped()
                    .tick(0, 3),
            )
            .block(Position::new(1, 256), Records::new().fragment(0, 1, 0, b"one ").vote(0, 2, 1))
            .sealed(),
        segment(0, 1, 2)
            .state(0, |state| state.last(3))
            .state(1, |state| state.last(1))
            .number(2)
            .block(Position::new(2, 0), Records::new().completed(0, 4, 1, 1, (whole, b"two")).mark(0, 1)),
        segment(1, 2, 1)
            .state(0, |state| state.last(4))
            .state(1, |state| state.last(1))
            .block(
                0,
                Records::new().decide(Kind::Decision, 0, 5, 7, true).decide(Kind::Finish, 1, 2, 7, true),
            )
            .block(0, Records::new().term(2).entry(0, 5, "again").entry(0, 3, "earlier")),
    ]);
    built.files.insert(names::snapshot(0, 1), vec![]);
    let cut = Position::new(2, built.end("0-0000000002.segment") as u32);
    (built, with_cuts(2, &[(1, 0, cut)]))
}

/// Gives every header and record that can be found its right checksum.
fn sign(bytes: &mut [u8]) {
    let Ok((header, _)) = SegmentHeader::read_from_prefix(bytes) else { return };
    let header_len = header.header_len.get() as usize;
    if let Some(checked) = bytes.get_mut(..header_len)
        && header_len >= size_of::<SegmentHeader>()
    {
        let crc_at = offset_of!(SegmentHeader, crc);
        checked[crc_at..crc_at + 4].fill(0);
        let crc = crc32c::crc32c(checked);
        checked[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
    }
    for offset in (0..bytes.len()).step_by(BLOCK_ALIGN) {
        let Ok((mut block, _)) = BlockHeader::read_from_prefix(&bytes[offset..]) else { break };
        if block.magic != crate::format::BLOCK_MAGIC {
            continue;
        }
        block.crc = U32::ZERO;
        block.crc = crc32c::crc32c(block.as_bytes()).into();
        bytes[offset..offset + size_of::<BlockHeader>()].copy_from_slice(block.as_bytes());
        let mut at = offset + size_of::<BlockHeader>();
        for _ in 0..block.records.get().min(16) {
            let Some(Ok((record, _))) = bytes.get(at..).map(RecordHeader::read_from_prefix) else { break };
            let end = at + size_of::<RecordHeader>() + record.len.get() as usize;
            if end > bytes.len() {
                break;
            }
            sign_record(&mut bytes[at..], block.salt());
            at = align_up(end, 8);
        }
    }
}

/// Recovers in every way; whatever comes out is consistent.
fn recover(built: &Built, manifest: &Manifest) {
    for truncate in [false, true] {
        let Ok(scan) = scan(built, manifest, ScanOptions { truncate, threads: 1 }) else { continue };
        let above =
            |shard: u16| scan.snapshots()[usize::from(shard)].as_ref().map_or(0, |chosen| chosen.index);
        let mut last = vec![0; usize::from(manifest.shards)];
        let replayed = scan.replay(
            built,
            |shard| Some(above(shard)),
            |entry| {
                assert!(entry.index > above(entry.shard), "what a snapshot covers is not visited");
                let last = &mut last[usize::from(entry.shard)];
                assert!(entry.index > *last, "indexes grow");
                *last = entry.index;
                Ok::<_, ()>(())
            },
        );
        for (state, last) in scan.states().iter().zip(last) {
            assert!(state.last_index.get() >= last);
        }
        match replayed {
            Err(ReplayError::Recovery(RecoveryError::MissingPrepare { .. })) => {}
            replayed => drop(replayed.unwrap()),
        }
        // The same once more, as the next start finds it.
        let next = scan.next_manifest(manifest);
        let next = Manifest::decode(&next.encode()).unwrap();
        let again = built.scan(&next).unwrap();
        assert_eq!(again.states(), scan.states());
    }
}

#[test]
fn sample_is_whole() {
    let (mut built, manifest) = sample();
    let before = built.files.clone();
    built.files.values_mut().for_each(|bytes| sign(bytes));
    assert_eq!(built.files, before, "signing changes nothing");
    recover(&built, &manifest);
    let scan = built.scan(&manifest).unwrap();
    assert_eq!(
        built.visited_above(&scan, |shard| Some(u64::from(shard == 0))),
        ["0/2 b", "1/2 part", "0/3 earlier"]
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn changed_bytes_do_no_harm(
        changes in prop::collection::vec((0..3_usize, 0..1200_usize, any::<u8>()), 1..6),
        signed in any::<bool>(),
    ) {
        let (mut built, manifest) = sample();
        for (file, offset, byte) in changes {
            let bytes = built.files.values_mut().filter(|bytes| !bytes.is_empty()).nth(file).unwrap();
            bytes[offset] = byte;
        }
        if signed {
            built.files.values_mut().for_each(|bytes| sign(bytes));
        }
        recover(&built, &manifest);
    }

    #[test]
    fn changed_numbers_do_no_harm(
        changes in prop::collection::vec(
            (0..3_usize, 0..150_usize, prop_oneof![0..9_u64, Just(u64::MAX), Just(1 << 32), any::<u64>()]),
            1..4,
        ),
    ) {
        let (mut built, manifest) = sample();
        for (file, word, number) in changes {
            let bytes = built.files.values_mut().filter(|bytes| !bytes.is_empty()).nth(file).unwrap();
            bytes[word * 8..word * 8 + 8].copy_from_slice(&number.to_le_bytes());
        }
        built.files.values_mut().for_each(|bytes| sign(bytes));
        recover(&built, &manifest);
    }

    #[test]
    fn moved_and_missing_files_do_no_harm(names in prop::collection::vec((0..3_usize, 0..3_u16, 0..5_u32), 1..4)) {
        let (mut built, manifest) = sample();
        for (file, core, sequence) in names {
            let name = built.files.keys().nth(file % built.files.len()).unwrap().clone();
            let bytes = built.files.remove(&name).unwrap();
            if sequence > 0 {
                built.files.insert(names::segment(core, sequence), bytes);
            }
            if built.files.is_empty() {
                break;
            }
        }
        recover(&built, &manifest);
    }

    #[test]
    fn heads_of_any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..400), complete: bool) {
        let mut bytes = bytes;
        if bytes.len() > 24 {
            bytes[..8].copy_from_slice(&crate::format::SEGMENT_MAGIC);
        }
        sign(&mut bytes);
        if let Head::Whole(header) = segment::head(&bytes, complete) {
            prop_assert_eq!(segment::states(&bytes, &header).len(), usize::from(header.states.get()));
        }
    }
}
