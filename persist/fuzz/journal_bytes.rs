//! What the bytes of segments say, as docs/format.md tells it: headers, blocks and records, each by itself.
//!
//! It shares no code with the reader, and decides nothing about what comes to count.

use duva_persist::format::Position;

/// The largest segment, and the largest block, in bytes.
const SEGMENT_LEN_MAX: usize = 1 << 30;
const BLOCK_LEN_MAX: usize = 1 << 20;

pub(crate) fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    bytes[at..at + len].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    number(bytes, at, 2) as u16
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    number(bytes, at, 4) as u32
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    number(bytes, at, 8)
}

/// The checksum of `bytes` with the four bytes at `crc_at` as zero.
pub(crate) fn checksum(bytes: &[u8], crc_at: usize) -> u32 {
    let mut copy = bytes.to_vec();
    copy[crc_at..crc_at + 4].fill(0);
    crc32c::crc32c(&copy)
}

pub(crate) fn up(len: usize, align: usize) -> usize {
    len.div_ceil(align) * align
}

/// What a file begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    Whole(Header),
    Newer(u16),
    Invalid,
    /// The header is longer than what is there.
    Longer(usize),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) core: u16,
    pub(crate) epoch: u64,
    pub(crate) sequence: u32,
    pub(crate) segment_len: usize,
    pub(crate) cluster: [u8; 16],
    pub(crate) node: [u8; 16],
    pub(crate) states: Vec<State>,
    /// Where the first block begins.
    pub(crate) blocks_from: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) shard: u16,
    pub(crate) ownership: u32,
    pub(crate) term: u64,
    pub(crate) vote: u64,
    pub(crate) last: (u64, u64),
    pub(crate) snapshot: (u64, u64),
    pub(crate) time_ms: u64,
}

pub(crate) fn read_state(bytes: &[u8]) -> State {
    State {
        shard: u16_at(bytes, 0),
        ownership: u32_at(bytes, 4),
        term: u64_at(bytes, 8),
        vote: u64_at(bytes, 16),
        last: (u64_at(bytes, 24), u64_at(bytes, 32)),
        snapshot: (u64_at(bytes, 40), u64_at(bytes, 48)),
        time_ms: u64_at(bytes, 56),
    }
}

pub(crate) fn head(bytes: &[u8]) -> Head {
    if bytes.len() < 104 || &bytes[..8] != b"DUVASEG\n" {
        return Head::Invalid;
    }
    let header_len = u32_at(bytes, 16) as usize;
    if header_len < 104 {
        return Head::Invalid;
    }
    if header_len > bytes.len() {
        return Head::Longer(header_len);
    }
    if checksum(&bytes[..header_len], 12) != u32_at(bytes, 12) {
        return Head::Invalid;
    }
    if u16_at(bytes, 10) > 2 {
        return Head::Newer(u16_at(bytes, 10));
    }
    let count = usize::from(u16_at(bytes, 26));
    let segment_len = u32_at(bytes, 20) as usize;
    if header_len != 104 + 64 * count + u32_at(bytes, 28) as usize || segment_len > SEGMENT_LEN_MAX {
        return Head::Invalid;
    }
    Head::Whole(Header {
        core: u16_at(bytes, 24),
        epoch: u64_at(bytes, 32),
        sequence: u32_at(bytes, 40),
        segment_len,
        cluster: *bytes[56..].first_chunk().expect("a header"),
        node: *bytes[72..].first_chunk().expect("a header"),
        states: (0..count).map(|place| read_state(&bytes[104 + 64 * place..])).collect(),
        blocks_from: up(header_len, 64),
    })
}

/// A block's header, which is sound and in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) epoch: u64,
    pub(crate) offset: usize,
    pub(crate) number: u64,
    pub(crate) synced_to: Position,
    /// Bytes of records.
    pub(crate) len: usize,
    pub(crate) records: u64,
    pub(crate) sealed: bool,
    pub(crate) salt: u32,
}

impl Block {
    pub(crate) fn records_end(&self) -> usize {
        self.offset + 64 + self.len
    }

    pub(crate) fn end(&self) -> usize {
        up(self.records_end(), 64)
    }
}

pub(crate) fn block(file: &[u8], offset: usize, core: u16, sequence: u32) -> Option<Block> {
    let bytes = file.get(offset..offset + 64)?;
    let in_place = &bytes[..4] == b"DBLK"
        && u32_at(bytes, 4) == checksum(bytes, 4)
        && u32_at(bytes, 16) == sequence
        && u32_at(bytes, 20) as usize == offset
        && u16_at(bytes, 58) == core;
    let block = Block {
        epoch: u64_at(bytes, 8),
        offset,
        number: u64_at(bytes, 24),
        synced_to: Position(u64_at(bytes, 32)),
        len: u32_at(bytes, 40) as usize,
        records: number(bytes, 44, 4),
        sealed: u16_at(bytes, 56) & 1 == 1,
        salt: crc32c::crc32c(&[&bytes[8..32], &bytes[58..60]].concat()),
    };
    // Nothing behind a block was durable when it was closed.
    let possible =
        block.synced_to <= Position::new(sequence, offset as u32) && 64 + block.len <= BLOCK_LEN_MAX;
    (in_place && possible).then_some(block)
}

/// Sound blocks wherever they may begin, but none inside another.
pub(crate) fn search(file: &[u8], from: usize, core: u16, sequence: u32) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for offset in (up(from, 64)..file.len()).step_by(64) {
        if blocks.last().is_none_or(|last| offset >= last.end()) {
            blocks.extend(block(file, offset, core, sequence));
        }
    }
    blocks
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
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

impl Record {
    pub(crate) fn is_in_log(&self) -> bool {
        self.index > 0 && ![3, 8, 9].contains(&self.kind)
    }

    pub(crate) fn is_fragmented(&self) -> bool {
        self.flags & 2 == 2
    }
}

/// The record at an offset and whether its checksum fits, if it ends before `end`.
pub(crate) fn record(file: &[u8], offset: usize, end: usize, salt: u32) -> Option<(Record, bool)> {
    let bytes = file.get(offset..end)?;
    let len = u32_at(bytes.get(..48)?, 0) as usize;
    let bytes = bytes.get(..48 + len)?;
    let whole = u32_at(bytes, 4) == crc32c::crc32c(&bytes[8..]) ^ salt;
    let record = Record {
        index: u64_at(bytes, 8),
        term: u64_at(bytes, 16),
        timestamp_ms: u64_at(bytes, 24),
        seed: u64_at(bytes, 32),
        shard: u16_at(bytes, 40),
        kind: bytes[42],
        flags: bytes[43],
        fragments: u32_at(bytes, 44),
        payload: bytes[48..].to_vec(),
    };
    Some((record, whole))
}
