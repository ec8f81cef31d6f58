//! A small reader of segments for tests, written from docs/format.md with plain offsets: it shares no code with the
//! writer, so a mistake in the structures is seen.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;

use duva_persist::journal::{Journal, Write};

/// Segment files, by sequence.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) segment_len: usize,
    pub(crate) files: BTreeMap<u32, Vec<u8>>,
}

impl Disk {
    pub(crate) fn new(segment_len: usize) -> Self {
        Self { segment_len, files: BTreeMap::new() }
    }

    pub(crate) fn apply(&mut self, write: &Write) {
        let file = self.files.entry(write.sequence).or_insert_with(|| vec![0; self.segment_len]);
        let at = write.offset as usize;
        file[at..at + write.bytes.len()].copy_from_slice(&write.bytes);
    }

    /// Prepares all segments and makes all writes that the journal has.
    pub(crate) fn drain(&mut self, journal: &mut Journal, now_ms: u64) {
        journal.retry_segments();
        loop {
            while let Some(sequence) = journal.wants_segment() {
                journal.segment_ready(sequence);
            }
            let Some(write) = journal.next_write() else { break };
            self.apply(&write);
            journal.written(write, now_ms);
        }
    }

    pub(crate) fn read(&self) -> Vec<Segment> {
        self.files.values().map(|file| read_segment(file)).collect()
    }
}

/// Syncs all that is written.
pub(crate) fn sync_all(journal: &mut Journal) {
    while let Some(sync) = journal.next_sync() {
        journal.synced(sync);
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) core: u16,
    pub(crate) epoch: u64,
    pub(crate) sequence: u32,
    pub(crate) segment_len: u32,
    pub(crate) opened_ms: u64,
    pub(crate) names: [[u8; 16]; 3],
    pub(crate) states: Vec<State>,
    pub(crate) memberships: Vec<(u16, Vec<u8>)>,
    pub(crate) blocks: Vec<Block>,
    /// Where the last block ends.
    pub(crate) end: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) shard: u16,
    pub(crate) ownership: u32,
    pub(crate) term: u64,
    pub(crate) vote: u64,
    pub(crate) last_index: u64,
    pub(crate) last_term: u64,
    pub(crate) snapshot_index: u64,
    pub(crate) snapshot_term: u64,
    pub(crate) time_ms: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) offset: usize,
    pub(crate) number: u64,
    pub(crate) synced_to: u64,
    pub(crate) time_ms: u64,
    pub(crate) sealed: bool,
    pub(crate) records: Vec<Held>,
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) shard: u16,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) timestamp_ms: u64,
    pub(crate) seed: u64,
    pub(crate) fragments: u32,
    pub(crate) payload: Vec<u8>,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The checksum of `bytes` with the four bytes at `crc_at` as zero.
fn checksum(bytes: &[u8], crc_at: usize) -> u32 {
    let mut copy = bytes.to_vec();
    copy[crc_at..crc_at + 4].fill(0);
    crc32c::crc32c(&copy)
}

fn up(len: usize, align: usize) -> usize {
    len.div_ceil(align) * align
}

/// Reads a segment up to where no block begins; panics on anything that is there and wrong.
pub(crate) fn read_segment(file: &[u8]) -> Segment {
    assert_eq!(&file[..8], b"DUVASEG\n");
    assert_eq!((u16_at(file, 8), u16_at(file, 10)), (2, 1), "versions");
    let header_len = u32_at(file, 16) as usize;
    assert_eq!(u32_at(file, 12), checksum(&file[..header_len], 12), "the segment header's checksum");
    assert_eq!(u32_at(file, 44), 0);
    let count = usize::from(u16_at(file, 26));
    let membership_len = u32_at(file, 28) as usize;
    assert_eq!(header_len, 104 + 64 * count + membership_len);
    let states = (0..count).map(|place| read_state(&file[104 + 64 * place..])).collect();
    let mut memberships = Vec::new();
    let mut at = 104 + 64 * count;
    while at < header_len {
        let len = u32_at(file, at + 4) as usize;
        memberships.push((u16_at(file, at), file[at + 8..at + 8 + len].to_vec()));
        at += 8 + len;
    }
    assert_eq!(at, header_len);
    at = up(header_len, 64);
    assert!(file[header_len..at].iter().all(|byte| *byte == 0), "padding is zero");
    let mut segment = Segment {
        core: u16_at(file, 24),
        epoch: u64_at(file, 32),
        sequence: u32_at(file, 40),
        segment_len: u32_at(file, 20),
        opened_ms: u64_at(file, 48),
        names: [56, 72, 88].map(|at| file[at..at + 16].try_into().unwrap()),
        states,
        memberships,
        blocks: Vec::new(),
        end: at,
    };
    while at + 64 <= file.len() && &file[at..at + 4] == b"DBLK" {
        let len = u32_at(file, at + 40) as usize;
        let block = read_block(&file[at..at + 64 + len], at, &segment);
        let end = up(at + 64 + len, 64);
        assert!(file[at + 64 + len..end].iter().all(|byte| *byte == 0), "padding is zero");
        segment.blocks.push(block);
        at = end;
    }
    assert!(file[at..].iter().all(|byte| *byte == 0), "nothing lies behind the last block");
    segment.end = at;
    segment
}

fn read_state(bytes: &[u8]) -> State {
    assert_eq!(u16_at(bytes, 2), 0);
    State {
        shard: u16_at(bytes, 0),
        ownership: u32_at(bytes, 4),
        term: u64_at(bytes, 8),
        vote: u64_at(bytes, 16),
        last_index: u64_at(bytes, 24),
        last_term: u64_at(bytes, 32),
        snapshot_index: u64_at(bytes, 40),
        snapshot_term: u64_at(bytes, 48),
        time_ms: u64_at(bytes, 56),
    }
}

fn read_block(bytes: &[u8], offset: usize, segment: &Segment) -> Block {
    assert_eq!(u32_at(bytes, 4), checksum(&bytes[..64], 4), "the block header's checksum");
    assert_eq!(u64_at(bytes, 8), segment.epoch);
    assert_eq!(u32_at(bytes, 16), segment.sequence);
    assert_eq!(u32_at(bytes, 20) as usize, offset);
    assert_eq!(u16_at(bytes, 58), segment.core);
    assert_eq!(u32_at(bytes, 60), 0);
    let salt = crc32c::crc32c(&[&bytes[8..32], &bytes[58..60]].concat());
    let mut records = Vec::new();
    let mut at = 64;
    while at < bytes.len() {
        let len = u32_at(bytes, at) as usize;
        let end = at + 48 + len;
        assert_eq!(
            u32_at(bytes, at + 4),
            crc32c::crc32c(&bytes[at + 8..end]) ^ salt,
            "the record's checksum"
        );
        records.push(Held {
            index: u64_at(bytes, at + 8),
            term: u64_at(bytes, at + 16),
            timestamp_ms: u64_at(bytes, at + 24),
            seed: u64_at(bytes, at + 32),
            shard: u16_at(bytes, at + 40),
            kind: bytes[at + 42],
            flags: bytes[at + 43],
            fragments: u32_at(bytes, at + 44),
            payload: bytes[at + 48..end].to_vec(),
        });
        at = up(end, 8);
        assert!(bytes[end..at].iter().all(|byte| *byte == 0), "padding is zero");
    }
    assert_eq!(at, bytes.len());
    assert_eq!(u32_at(bytes, 44) as usize, records.len());
    let flags = u16_at(bytes, 56);
    assert!(flags <= 1);
    Block {
        offset,
        number: u64_at(bytes, 24),
        synced_to: u64_at(bytes, 32),
        time_ms: u64_at(bytes, 48),
        sealed: flags == 1,
        records,
    }
}
