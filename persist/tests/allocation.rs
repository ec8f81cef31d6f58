//! A journal that is warm allocates nothing.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

use duva_persist::{
    format::{Kind, ShardState},
    journal::{Journal, JournalOptions, SEGMENT_BYTES_MIN},
    record::Record,
};

/// The system's allocator, with its calls counted.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract, which is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from the system's allocator with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_bytes: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the pointer came from the system's allocator with this layout.
        unsafe { System.realloc(pointer, layout, new_bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One turn: some records, a block, a write, now and then a sync. A larger value goes over the block's end sometimes.
fn turn(journal: &mut Journal, number: u64) {
    while let Some(sequence) = journal.wants_segment() {
        journal.segment_ready(sequence);
    }
    for index in 0..20 {
        let record =
            Record { index: number * 20 + index + 1, ..Record::new(Kind::Entry, (index % 4) as u16) };
        let payload_bytes = if index == 19 { 20_000 } else { 64 };
        journal.append(&record, |buffer| buffer.resize(buffer.len() + payload_bytes, 1));
    }
    journal.close_block(number);
    while let Some(write) = journal.next_write() {
        journal.written(write, number);
    }
    if number.is_multiple_of(10) {
        while let Some(sync) = journal.next_sync() {
            journal.synced(sync);
        }
    }
}

#[test]
fn a_warm_journal_allocates_nothing() {
    let options = JournalOptions {
        core: 0,
        epoch: 1,
        segment_len: SEGMENT_BYTES_MIN,
        cluster: [0; 16],
        node: [0; 16],
        kernel_boot: [0; 16],
    };
    let state = |shard: u16| ShardState { shard: shard.into(), ..ShardState::default() };
    let mut journal = Journal::new(options, 1, (0..4).map(state).collect());
    for number in 0..1_000 {
        turn(&mut journal, number);
    }
    journal.trim(journal.mark_position());
    let segments_before = journal.segments().last();
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for number in 1_000..1_300 {
        turn(&mut journal, number);
    }
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0);
    assert!(journal.segments().last() > segments_before, "segments' ends were met too");
}
