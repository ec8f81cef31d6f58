//! What counts as written and synced.

use super::*;

#[test]
fn a_mark_lies_between_the_records_before_and_after() {
    let mut journal = ready_journal();
    append_entry(&mut journal, 1, 8);
    let mark = journal.mark_position();
    assert_eq!(mark, Position::new(1, HEADER_BYTES + 64 + 48 + 8));
    append_entry(&mut journal, 2, 8);
    journal.close_block(1);
    assert_eq!(journal.mark_position(), journal.appended_to());
}

#[test]
fn positions_are_prefixes_whatever_the_order_of_completions() {
    let mut journal = ready_journal();
    let mut writes = Vec::new();
    let mut ends = Vec::new();
    for index in 1..=3 {
        append_entry(&mut journal, index, 10);
        journal.close_block(index);
        writes.push(journal.next_write().unwrap());
        ends.push(journal.appended_to());
    }
    assert_eq!(journal.unwritten_bytes(), ends[2].offset() as usize);
    journal.written(writes.pop().unwrap(), 10);
    assert_eq!(journal.written_to(), Position::new(1, 0));
    assert_eq!(journal.next_sync(), None);
    assert_eq!(journal.oldest_unsynced_ms(), None);
    journal.written(writes.remove(0), 11);
    assert_eq!(journal.written_to(), ends[0]);
    journal.written(writes.remove(0), 12);
    assert_eq!(journal.written_to(), ends[2]);
    assert_eq!(journal.oldest_unsynced_ms(), Some(10));
    assert_eq!(journal.unwritten_bytes(), 0);
}

#[test]
fn a_sync_covers_what_was_written_when_it_began() {
    let mut journal = ready_journal();
    let mut disk = Disk::new(SEGMENT_BYTES);
    append_entry(&mut journal, 1, 10);
    journal.close_block(1);
    disk.drain(&mut journal, 20);
    let first_to = journal.written_to();
    let sync = journal.next_sync().unwrap();
    assert_eq!((sync.sequence, sync.to), (1, first_to));
    append_entry(&mut journal, 2, 10);
    journal.close_block(2);
    disk.drain(&mut journal, 30);
    assert_eq!(journal.next_sync(), None, "one at a time");
    assert_eq!(journal.oldest_unsynced_ms(), Some(20));
    journal.synced(sync);
    assert_eq!(journal.synced_to(), first_to);
    assert_eq!(journal.oldest_unsynced_ms(), Some(30));
    let sync = journal.next_sync().unwrap();
    journal.synced(sync);
    assert_eq!(journal.synced_to(), journal.appended_to());
    assert_eq!((journal.oldest_unsynced_ms(), journal.next_sync()), (None, None));
}

#[test]
fn older_segments_are_synced_first() {
    let mut journal = ready_journal();
    let mut disk = Disk::new(SEGMENT_BYTES);
    for index in 1..=2 {
        append_entry(&mut journal, index, 10);
        journal.roll(index);
        disk.drain(&mut journal, 100 * index);
    }
    let mut synced = Vec::new();
    let mut waits = vec![journal.oldest_unsynced_ms()];
    while let Some(sync) = journal.next_sync() {
        journal.synced(sync);
        synced.push((sync.sequence, journal.synced_to().sequence()));
        waits.push(journal.oldest_unsynced_ms());
    }
    assert_eq!(synced, [(1, 1), (2, 2), (3, 3)]);
    assert_eq!(waits, [Some(100), Some(100), Some(200), None]);
    assert_eq!(journal.synced_to(), journal.appended_to());
}

#[test]
fn a_poisoned_journal_does_nothing() {
    let mut journal = ready_journal();
    let mut disk = Disk::new(SEGMENT_BYTES);
    append_entry(&mut journal, 1, 10);
    journal.roll(1);
    disk.drain(&mut journal, 1);
    sync_all(&mut journal);
    append_entry(&mut journal, 2, 10);
    journal.close_block(2);
    disk.drain(&mut journal, 2);
    let sync = journal.next_sync().unwrap();
    append_entry(&mut journal, 3, 10);
    journal.close_block(3);
    let write = journal.next_write().unwrap();
    append_entry(&mut journal, 4, 10);
    journal.close_block(4);
    let positions = |journal: &Journal| (journal.appended_to(), journal.written_to(), journal.synced_to());
    let before = positions(&journal);
    assert!(!journal.is_poisoned());
    journal.poison();
    assert!(journal.is_poisoned());
    journal.written(write, 5);
    journal.synced(sync);
    assert_eq!((journal.next_write(), journal.next_sync(), journal.wants_segment()), (None, None, None));
    append_entry(&mut journal, 5, 10);
    journal.append_fragment(1, 0, 4, b"piece");
    journal.close_block(6);
    journal.roll(7);
    assert_eq!(journal.trim(Position(u64::MAX)), [0; 0]);
    assert_eq!(positions(&journal), before);
    assert_eq!(journal.ready_room_bytes(), 0);
}
