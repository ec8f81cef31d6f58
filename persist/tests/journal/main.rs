//! The journal's rules, one by one.

mod blocks;
mod progress;
#[path = "../reader/mod.rs"]
mod reader;
mod segments;
mod states;

use duva_persist::{
    format::{Kind, Position, ShardState},
    journal::{Fragments, Journal, JournalOptions, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN},
    record::{Record, record_room_bytes},
};

use crate::reader::{Disk, Held, Segment, sync_all};

const OPTIONS: JournalOptions = JournalOptions {
    core: 3,
    epoch: 9,
    segment_len: SEGMENT_BYTES_MIN,
    cluster: [1; 16],
    node: [2; 16],
    kernel_boot: [3; 16],
};
const SEGMENT_BYTES: usize = SEGMENT_BYTES_MIN as usize;

/// Bytes of the header of a segment with two shards, padded.
const HEADER_BYTES: u32 = 256;

fn state(shard: u16) -> ShardState {
    ShardState { shard: shard.into(), ..ShardState::default() }
}

fn journal() -> Journal {
    Journal::new(OPTIONS, 1, vec![state(4), state(5)])
}

fn ready_journal() -> Journal {
    let mut journal = journal();
    ready_all(&mut journal);
    journal
}

fn ready_all(journal: &mut Journal) {
    while let Some(sequence) = journal.wants_segment() {
        journal.segment_ready(sequence);
    }
}

fn entry(index: u64) -> Record {
    Record { index, term: 1, timestamp_ms: 1_000 + index, ..Record::new(Kind::Entry, 4) }
}

fn append_entry(journal: &mut Journal, index: u64, payload_bytes: usize) {
    journal.append(&entry(index), |buffer| buffer.resize(buffer.len() + payload_bytes, index as u8));
}

/// Writes all and reads it again.
fn read(journal: &mut Journal) -> Vec<Segment> {
    let mut disk = Disk::new(SEGMENT_BYTES);
    disk.drain(journal, 0);
    disk.read()
}

fn indexes(segments: &[Segment]) -> Vec<u64> {
    let blocks = segments.iter().flat_map(|segment| &segment.blocks);
    blocks.flat_map(|block| &block.records).map(|record| record.index).collect()
}
