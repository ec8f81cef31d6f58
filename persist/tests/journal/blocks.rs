//! Records become blocks, and blocks writes.

use super::*;

#[test]
fn a_turns_records_become_one_block_in_one_write_with_the_segments_header() {
    let mut journal = ready_journal();
    append_entry(&mut journal, 1, 5);
    append_entry(&mut journal, 2, 0);
    journal.close_block(77);
    let write = journal.next_write().unwrap();
    assert_eq!((write.sequence, write.offset), (1, 0));
    assert_eq!(journal.next_write(), None);
    assert_eq!(write.end(), journal.appended_to());
    let mut disk = Disk::new(SEGMENT_BYTES);
    disk.apply(&write);
    let segments = disk.read();
    let [segment] = &segments[..] else { panic!("one segment") };
    assert_eq!((segment.core, segment.epoch, segment.sequence), (3, 9, 1));
    assert_eq!((segment.segment_len, segment.opened_ms), (SEGMENT_BYTES_MIN, 77));
    assert_eq!(segment.names, [[1; 16], [2; 16], [3; 16]]);
    assert_eq!(
        segment.states.iter().map(|state| (state.shard, state.last_index)).collect::<Vec<_>>(),
        [(4, 0), (5, 0)]
    );
    let [block] = &segment.blocks[..] else { panic!("one block") };
    assert_eq!((block.number, block.time_ms, block.sealed), (0, 77, false));
    assert_eq!(
        block.records[0],
        Held {
            shard: 4,
            kind: 1,
            flags: 0,
            index: 1,
            term: 1,
            timestamp_ms: 1_001,
            seed: 0,
            fragments: 0,
            payload: vec![1; 5],
        }
    );
    assert_eq!(block.records[1].payload, b"");
    assert_eq!(segment.end, write.bytes.len());
}

#[test]
fn without_records_there_is_no_block() {
    let mut journal = ready_journal();
    journal.close_block(1);
    assert_eq!(journal.next_write(), None);
    assert_eq!(journal.appended_to(), Position::new(1, 0));
    assert_eq!(journal.segments().count(), 0);
}

#[test]
fn blocks_of_several_turns_that_lie_together_are_one_write() {
    let mut journal = ready_journal();
    for index in 1..=3 {
        append_entry(&mut journal, index, 100);
        journal.close_block(index);
    }
    let write = journal.next_write().unwrap();
    assert_eq!(write.end(), journal.appended_to());
    assert_eq!(journal.next_write(), None);
    journal.written(write, 4);
    append_entry(&mut journal, 4, 100);
    journal.close_block(5);
    let write = journal.next_write().unwrap();
    assert_eq!(Position::new(write.sequence, write.offset), journal.written_to());
    assert_eq!(write.bytes.len() % 64, 0);
}

#[test]
fn a_block_that_is_not_closed_is_not_written_with_those_that_are() {
    let mut journal = ready_journal();
    append_entry(&mut journal, 1, 10);
    journal.close_block(1);
    let closed_to = journal.appended_to();
    append_entry(&mut journal, 2, 10);
    let write = journal.next_write().unwrap();
    assert_eq!(write.end(), closed_to);
    assert_eq!(journal.next_write(), None);
    append_entry(&mut journal, 3, 10);
    journal.close_block(2);
    let later = journal.next_write().unwrap();
    assert_eq!(Position::new(later.sequence, later.offset), closed_to);
    let mut disk = Disk::new(SEGMENT_BYTES);
    disk.apply(&write);
    disk.apply(&later);
    assert_eq!(indexes(&disk.read()), [1, 2, 3]);
}

#[test]
fn a_turn_larger_than_a_block_becomes_several() {
    let mut journal = ready_journal();
    for index in 1..=10 {
        append_entry(&mut journal, index, 60_000);
    }
    journal.close_block(8);
    let segments = read(&mut journal);
    assert_eq!(indexes(&segments), (1..=10).collect::<Vec<_>>());
    let blocks = &segments[0].blocks;
    assert_eq!(blocks.iter().map(|block| block.records.len()).collect::<Vec<_>>(), [4, 4, 2]);
    assert_eq!(blocks.iter().map(|block| block.number).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(blocks.iter().all(|block| block.time_ms == 8 && !block.sealed));
}

#[test]
fn the_largest_payload_fills_a_block_and_a_larger_one_is_refused() {
    let mut journal = ready_journal();
    let payload_bytes_max = journal.payload_bytes_max();
    append_entry(&mut journal, 1, payload_bytes_max);
    append_entry(&mut journal, 2, 1);
    journal.close_block(1);
    let segments = read(&mut journal);
    let offsets: Vec<_> = segments[0].blocks.iter().map(|block| block.offset).collect();
    assert_eq!(offsets[1] - offsets[0], SEGMENT_BYTES / 4);
    let larger = std::panic::AssertUnwindSafe(|| append_entry(&mut journal, 3, payload_bytes_max + 1));
    assert!(std::panic::catch_unwind(larger).is_err());
    let large_segments = JournalOptions { segment_len: 64 << 20, ..OPTIONS };
    assert_eq!(Journal::new(large_segments, 1, vec![]).payload_bytes_max(), (1 << 20) - 112);
}

#[test]
fn a_block_says_what_was_synced_when_it_was_closed() {
    let mut journal = ready_journal();
    let mut disk = Disk::new(SEGMENT_BYTES);
    append_entry(&mut journal, 1, 10);
    journal.close_block(1);
    disk.drain(&mut journal, 1);
    append_entry(&mut journal, 2, 10);
    sync_all(&mut journal);
    let synced_to = journal.synced_to();
    journal.close_block(2);
    disk.drain(&mut journal, 2);
    let blocks = &disk.read()[0].blocks;
    assert_eq!((blocks[0].synced_to, blocks[1].synced_to), (Position::new(1, 0).0, synced_to.0));
}

#[test]
fn a_record_is_valid_only_in_its_own_block() {
    // The same records in another segment, another epoch and another core, as a recycled file may hold them.
    let checksum_in = |options: JournalOptions, sequence| {
        let mut journal = Journal::new(options, sequence, vec![state(4), state(5)]);
        ready_all(&mut journal);
        append_entry(&mut journal, 1, 10);
        journal.close_block(1);
        journal.close_block(2);
        append_entry(&mut journal, 1, 10);
        journal.close_block(3);
        let bytes = journal.next_write().unwrap().bytes;
        let first = HEADER_BYTES as usize + 64;
        assert_eq!(bytes[first + 8..first + 48], bytes[first + 136..first + 176]);
        [first, first + 128].map(|at| u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()))
    };
    let all = [
        checksum_in(OPTIONS, 1),
        checksum_in(OPTIONS, 2),
        checksum_in(JournalOptions { epoch: 10, ..OPTIONS }, 1),
        checksum_in(JournalOptions { core: 4, ..OPTIONS }, 1),
    ];
    let distinct: std::collections::BTreeSet<_> = all.iter().flatten().collect();
    assert_eq!(distinct.len(), 8);
}

#[test]
fn a_large_payload_is_fragments_and_a_last_record() {
    let mut journal = ready_journal();
    let payload: Vec<u8> = (0..3_000_000_u32).map(|at| (at * 7 + at / 256) as u8).collect();
    let mut fragments = Fragments::begin(&mut journal, 4);
    let begin = journal.mark_position();
    let piece_bytes = journal.payload_bytes_max();
    let last = payload.len() - 1_000;
    for piece in payload[..last].chunks(piece_bytes) {
        fragments.push(&mut journal, piece);
        append_entry(&mut journal, 1, 10);
    }
    assert_eq!(journal.mark_position(), Position::new(1, HEADER_BYTES + 64));
    assert!(journal.mark_position() >= begin);
    fragments.finish(&mut journal, &entry(2), &payload[last..]);
    assert_eq!(journal.mark_position().sequence(), *journal.segments().collect::<Vec<_>>().last().unwrap());
    journal.close_block(1);
    let segments = read(&mut journal);
    assert!(segments.len() > 2);
    let blocks = segments.iter().flat_map(|segment| &segment.blocks);
    let records: Vec<_> =
        blocks.flat_map(|block| &block.records).filter(|record| record.payload.len() > 10).collect();
    let (record, pieces) = records.split_last().unwrap();
    for (ordinal, piece) in pieces.iter().enumerate() {
        assert_eq!((piece.kind, piece.index, piece.fragments), (9, 1, ordinal as u32));
    }
    assert_eq!((record.kind, record.flags, record.index), (1, 2, 2));
    assert_eq!(record.fragments as usize, pieces.len());
    let mut joined: Vec<u8> = pieces.iter().flat_map(|piece| piece.payload.clone()).collect();
    joined.extend_from_slice(&record.payload[24..]);
    assert!(joined == payload);
    let head = [1, payload.len() as u64, u64::from(crc32c::crc32c(&payload))].map(u64::to_le_bytes).concat();
    assert_eq!(record.payload[..24], head);
}

#[test]
fn an_abandoned_stream_holds_no_position_back() {
    let mut journal = ready_journal();
    let mut fragments = Fragments::begin(&mut journal, 4);
    fragments.push(&mut journal, b"piece");
    journal.roll(1);
    assert_eq!(journal.mark_position().sequence(), 1);
    fragments.abandon(&mut journal);
    assert_eq!(journal.mark_position(), journal.appended_to());
    assert_ne!(journal.new_stream(), journal.new_stream());
}
