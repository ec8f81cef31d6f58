//! Where segments begin and end, how they are prepared and when they go.

use super::*;

#[test]
fn an_open_block_is_sealed_when_the_next_record_needs_the_next_segment() {
    let mut journal = ready_journal();
    for index in 1..=5 {
        append_entry(&mut journal, index, 250_000);
    }
    journal.close_block(1);
    let segments = read(&mut journal);
    assert_eq!(segments.len(), 2);
    assert_eq!(indexes(&segments), [1, 2, 3, 4, 5]);
    assert_eq!(
        segments[0].blocks.iter().map(|block| block.sealed).collect::<Vec<_>>(),
        [false, false, false, true]
    );
    assert_eq!(segments[1].blocks[0].number, 4);
    // The header knows what came before, and nothing of what it precedes.
    assert_eq!(segments[1].states[0].last_index, 4);
    assert_eq!(segments[1].states[0].time_ms, 1_004);
}

#[test]
fn a_closed_segment_without_room_is_sealed_by_a_block_of_its_own() {
    let mut journal = ready_journal();
    for index in 1..=4 {
        append_entry(&mut journal, index, 250_000);
        journal.close_block(index);
    }
    append_entry(&mut journal, 5, 250_000);
    journal.close_block(5);
    let segments = read(&mut journal);
    let last = segments[0].blocks.last().unwrap();
    assert!(last.sealed);
    assert_eq!((last.number, last.time_ms, last.records.len()), (4, 5, 0));
    assert_eq!(segments[1].blocks[0].number, 5);
    assert_eq!(indexes(&segments), [1, 2, 3, 4, 5]);
}

#[test]
fn a_block_that_fills_its_segment_is_sealed() {
    let mut journal = journal();
    assert_eq!(journal.wants_segment(), Some(1));
    journal.segment_ready(1);
    let quarter = SEGMENT_BYTES / 4;
    for index in 1..=3 {
        append_entry(&mut journal, index, quarter - 112);
    }
    append_entry(&mut journal, 4, quarter - HEADER_BYTES as usize - 112);
    journal.close_block(1);
    assert_eq!(journal.appended_to(), Position::new(1, SEGMENT_BYTES_MIN));
    assert_eq!(journal.next_write(), None, "the next segment is not there");
    append_entry(&mut journal, 5, 1);
    journal.close_block(2);
    let segments = read(&mut journal);
    assert_eq!(segments[0].end, SEGMENT_BYTES);
    let sealed: Vec<_> = segments[0].blocks.iter().map(|block| block.sealed).collect();
    assert_eq!(sealed, [false, false, false, true]);
    assert_eq!((segments[1].sequence, segments[1].blocks[0].number), (2, 4));
}

#[test]
fn a_journal_that_was_begun_goes_on_behind_its_first_block() {
    let mut journal = journal();
    let first = journal.begin(7);
    assert_eq!((first.sequence, first.offset), (1, 0));
    assert_eq!(first.end(), Position::new(1, HEADER_BYTES + 64));
    assert_eq!([journal.appended_to(), journal.written_to(), journal.synced_to()], [first.end(); 3]);
    assert_eq!(
        (journal.next_sync(), journal.oldest_unsynced_ms(), journal.unwritten_bytes()),
        (None, None, 0)
    );
    append_entry(&mut journal, 1, 10);
    journal.close_block(8);
    assert_eq!(journal.next_write(), None, "its file is not prepared");
    assert_eq!(journal.wants_segment(), Some(1));
    journal.segment_ready(1);
    let write = journal.next_write().unwrap();
    assert_eq!(Position::new(write.sequence, write.offset), first.end());
    let mut disk = Disk::new(SEGMENT_BYTES);
    disk.apply(&first);
    disk.apply(&write);
    journal.written(write, 9);
    journal.roll(10);
    disk.drain(&mut journal, 11);
    let segments = disk.read();
    assert_eq!(segments[0].opened_ms, 7);
    let blocks: Vec<_> = segments[0]
        .blocks
        .iter()
        .map(|block| (block.number, block.synced_to, block.records.len(), block.sealed))
        .collect();
    let synced_to = first.end().0;
    assert_eq!(
        blocks,
        [(0, Position::new(1, 0).0, 0, false), (1, synced_to, 1, false), (2, synced_to, 0, true)]
    );
    assert_eq!(segments[1].states[0].last_index, 1);
    sync_all(&mut journal);
    assert_eq!(journal.trim(Position(u64::MAX)), [1]);
}

#[test]
fn a_journal_can_be_begun_with_records() {
    let mut journal = journal();
    let first = journal.begin_with(7, |journal| append_entry(journal, 1, 10));
    assert_eq!([journal.appended_to(), journal.written_to(), journal.synced_to()], [first.end(); 3]);
    let mut disk = Disk::new(SEGMENT_BYTES);
    disk.apply(&first);
    let segments = disk.read();
    assert_eq!(segments[0].states[0].last_index, 0, "the header tells of what came before");
    assert_eq!(segments[0].blocks.len(), 1);
    assert_eq!(segments[0].blocks[0].records.len(), 1);
    journal.roll(8);
    disk.drain(&mut journal, 9);
    assert_eq!(disk.read()[1].states[0].last_index, 1);
}

#[test]
#[should_panic(expected = "a journal begins once")]
fn a_journal_is_begun_before_anything_is_appended() {
    let mut journal = journal();
    append_entry(&mut journal, 1, 10);
    journal.begin(1);
}

#[test]
fn records_of_every_size_meet_the_segments_end() {
    // An open block that ends at any multiple of eight, and behind it a record that fits, or just does not.
    for (filler_bytes, payload_bytes) in
        (0..64).step_by(8).flat_map(|filler| (0..256).map(move |size| (filler, size)))
    {
        let mut journal = journal();
        assert_eq!(journal.wants_segment(), Some(1));
        journal.segment_ready(1);
        let quarter = SEGMENT_BYTES / 4;
        for index in 1..=3 {
            append_entry(&mut journal, index, quarter - 112);
        }
        append_entry(&mut journal, 4, quarter - HEADER_BYTES as usize - 112 - 256 + filler_bytes);
        let room_bytes = journal.ready_room_bytes();
        append_entry(&mut journal, 5, payload_bytes);
        journal.close_block(1);
        let in_segment = journal.appended_to().sequence() == 1;
        assert!(in_segment || record_room_bytes(payload_bytes) > room_bytes, "room was promised");
        assert_eq!(in_segment, filler_bytes + 48 + payload_bytes.next_multiple_of(8) <= 256);
        assert_eq!(indexes(&read(&mut journal)), [1, 2, 3, 4, 5]);
    }
}

#[test]
fn segments_are_asked_for_ahead_once_each() {
    let mut journal = journal();
    assert_eq!([(); 4].map(|()| journal.wants_segment()), [Some(1), Some(2), Some(3), None]);
    journal.segment_ready(1);
    journal.segment_failed(2);
    assert_eq!(journal.wants_segment(), None);
    journal.retry_segments();
    assert_eq!([(); 2].map(|()| journal.wants_segment()), [Some(2), None]);
    journal.roll(1);
    assert_eq!(journal.wants_segment(), None);
    journal.roll(2);
    assert_eq!([(); 2].map(|()| journal.wants_segment()), [Some(4), None]);
    let mut large = Journal::new(JournalOptions { segment_len: 64 << 20, ..OPTIONS }, 7, vec![state(0)]);
    assert_eq!([(); 3].map(|()| large.wants_segment()), [Some(7), Some(8), None]);
}

#[test]
fn nothing_is_written_to_a_segment_that_is_not_ready() {
    let mut journal = journal();
    append_entry(&mut journal, 1, 10);
    journal.close_block(1);
    assert_eq!(journal.next_write(), None);
    assert_eq!(journal.unwritten_bytes(), journal.appended_to().offset() as usize);
    assert_eq!(journal.wants_segment(), Some(1));
    assert_eq!(journal.next_write(), None);
    journal.segment_ready(1);
    assert!(journal.next_write().is_some());
}

#[test]
fn a_seal_is_not_written_before_the_next_segment_is_ready() {
    let mut journal = journal();
    assert_eq!(journal.wants_segment(), Some(1));
    journal.segment_ready(1);
    append_entry(&mut journal, 1, 10);
    journal.close_block(1);
    let write = journal.next_write().unwrap();
    journal.written(write, 1);
    let unsealed_to = journal.written_to();
    append_entry(&mut journal, 2, 10);
    journal.roll(2);
    assert_eq!(journal.next_write(), None);
    assert_eq!(journal.wants_segment(), Some(2));
    assert_eq!(journal.next_write(), None);
    journal.segment_ready(2);
    let write = journal.next_write().unwrap();
    assert_eq!(Position::new(write.sequence, write.offset), unsealed_to);
    assert_eq!(journal.next_write().unwrap().sequence, 2);
}

#[test]
fn trimming_takes_whole_segments_whose_successor_is_durable() {
    let mut journal = ready_journal();
    let mut disk = Disk::new(SEGMENT_BYTES);
    for index in 1..=3 {
        append_entry(&mut journal, index, 10);
        journal.roll(index);
    }
    disk.drain(&mut journal, 1);
    let mark = journal.mark_position();
    assert_eq!(mark.sequence(), 4);
    assert_eq!(journal.trim(mark), [0; 0], "nothing is synced");
    let sync = journal.next_sync().unwrap();
    journal.synced(sync);
    assert_eq!(journal.trim(mark), [0; 0], "the next header, which carries the states on, is not synced");
    let sync = journal.next_sync().unwrap();
    journal.synced(sync);
    assert_eq!(journal.trim(Position::new(1, u32::MAX)), [0; 0]);
    assert_eq!(journal.trim(mark), [1]);
    assert_eq!(journal.segments().collect::<Vec<_>>(), [2, 3, 4]);
    sync_all(&mut journal);
    assert_eq!(journal.trim(Position::new(3, 64)), [2]);
    assert_eq!(journal.trim(Position(u64::MAX)), [3]);
    assert_eq!(journal.trim(Position(u64::MAX)), [0; 0]);
    append_entry(&mut journal, 4, 10);
    journal.close_block(9);
    disk.drain(&mut journal, 2);
    assert_eq!(journal.written_to(), journal.appended_to());
}

#[test]
fn ready_room_counts_prepared_segments() {
    let mut journal = journal();
    assert_eq!(journal.ready_room_bytes(), 0);
    assert_eq!(journal.wants_segment(), Some(1));
    journal.segment_ready(1);
    // Less the last 64 bytes: what fills them takes the next segment.
    let one_bytes = (SEGMENT_BYTES_MIN - HEADER_BYTES - 64) as u64;
    assert_eq!(journal.ready_room_bytes(), one_bytes);
    append_entry(&mut journal, 1, 1_000);
    assert!(journal.ready_room_bytes() >= one_bytes - record_room_bytes(1_000));
    journal.close_block(1);
    let room_bytes = journal.ready_room_bytes();
    assert_eq!(room_bytes, (SEGMENT_BYTES_MIN - journal.appended_to().offset() - 64) as u64);
    assert_eq!(journal.wants_segment(), Some(2));
    journal.segment_ready(2);
    assert_eq!(journal.ready_room_bytes(), room_bytes + 64 - SEGMENT_BYTES as u64 / 4 + one_bytes);
}
