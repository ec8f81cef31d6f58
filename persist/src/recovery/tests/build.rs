//! Segments made by hand.

use std::{collections::BTreeMap, io, mem::offset_of, sync::Mutex};

use zerocopy::{
    IntoBytes,
    little_endian::{U16, U32, U64},
};

use super::super::{Directory, RecoveryError, Replayed, Scan, ScanOptions, scan};
use crate::{
    format::*,
    manifest::{Cut, Manifest, Start},
    names,
};

pub(super) const SHARDS: u16 = 4;
pub(super) const SEGMENT_LEN: usize = 8192;
pub(super) const CLUSTER: [u8; 16] = *b"cluster 89abcdef";
pub(super) const NODE: [u8; 16] = *b"node 56789abcdef";

pub(super) fn manifest(epoch: u64) -> Manifest {
    Manifest {
        cluster: CLUSTER,
        node: NODE,
        kernel_boot: [0; 16],
        hash_seed: 0,
        hash_algorithm: 0,
        shards: SHARDS,
        epoch,
        must_not_vote: false,
        starts: Vec::new(),
        cuts: Vec::new(),
        truncations: Vec::new(),
    }
}

/// A manifest of `epoch` with a cut for every one of these.
pub(super) fn with_cuts(epoch: u64, cuts: &[(u64, u16, Position)]) -> Manifest {
    let cuts = cuts.iter().map(|&(epoch, core, end)| Cut { epoch, core, end }).collect();
    Manifest { cuts, ..manifest(epoch) }
}

/// The same manifest, its epoch begun: the journal of a core begins with this segment.
pub(super) fn starting(mut manifest: Manifest, core: u16, sequence: u32) -> Manifest {
    manifest.starts.push(Start { core, sequence });
    manifest
}

pub(super) fn time_ms(index: u64) -> u64 {
    1_000_000 + index
}

pub(super) fn seed(index: u64) -> u64 {
    index * 31
}

/// The records of one block.
#[derive(Clone, Default)]
pub(super) struct Records {
    bytes: Vec<u8>,
    starts: Vec<usize>,
    term: u64,
}

impl Records {
    pub(super) fn new() -> Self {
        Self { term: 1, ..Self::default() }
    }

    /// The term of the records that follow.
    pub(super) fn term(mut self, term: u64) -> Self {
        self.term = term;
        self
    }

    pub(super) fn entry(self, shard: u16, index: u64, payload: &str) -> Self {
        self.log(Kind::Entry, shard, index, payload.as_bytes())
    }

    pub(super) fn tick(self, shard: u16, index: u64) -> Self {
        self.log(Kind::Tick, shard, index, b"")
    }

    pub(super) fn log(self, kind: Kind, shard: u16, index: u64, payload: &[u8]) -> Self {
        let term = self.term;
        self.record(kind as u8, shard, (index, term), 0, 0, payload)
    }

    pub(super) fn vote(self, shard: u16, term: u64, vote: u64) -> Self {
        self.record(Kind::HardState as u8, shard, (0, term), 0, 0, &vote.to_le_bytes())
    }

    pub(super) fn committed(self, shard: u16, index: u64) -> Self {
        self.record(Kind::HardState as u8, shard, (index, 1), 0, 0, &[0; 8])
    }

    pub(super) fn mark(self, shard: u16, index: u64) -> Self {
        self.log(Kind::SnapshotMark, shard, index, b"")
    }

    pub(super) fn prepare(self, shard: u16, index: u64, transaction: u64, command: &str) -> Self {
        let payload = [&transaction.to_le_bytes(), command.as_bytes()].concat();
        self.log(Kind::Prepare, shard, index, &payload)
    }

    pub(super) fn decide(self, kind: Kind, shard: u16, index: u64, transaction: u64, commit: bool) -> Self {
        let payload = [&transaction.to_le_bytes()[..], &[u8::from(commit)]].concat();
        self.log(kind, shard, index, &payload)
    }

    /// The last record and the next one belong to one group.
    pub(super) fn grouped(mut self) -> Self {
        let start = *self.starts.last().unwrap();
        self.bytes[start + offset_of!(RecordHeader, flags)] |= record_flag::GROUP;
        self
    }

    /// The last record is of another kind.
    pub(super) fn of_kind(mut self, kind: Kind) -> Self {
        let start = *self.starts.last().unwrap();
        self.bytes[start + offset_of!(RecordHeader, kind)] = kind as u8;
        self
    }

    pub(super) fn fragment(self, shard: u16, stream: u64, ordinal: u32, payload: &[u8]) -> Self {
        self.record(Kind::Fragment as u8, shard, (stream, 0), 0, ordinal, payload)
    }

    /// The entry that completes a stream of so many fragments, with the rest of its payload.
    pub(super) fn completed(
        self,
        shard: u16,
        index: u64,
        stream: u64,
        fragments: u32,
        (whole, rest): (&[u8], &[u8]),
    ) -> Self {
        let fragmented = Fragmented {
            stream: stream.into(),
            len: (whole.len() as u64).into(),
            crc: crc32c::crc32c(whole).into(),
            reserved: U32::ZERO,
        };
        let payload = [fragmented.as_bytes(), rest].concat();
        let kind = Kind::Entry as u8;
        let term = self.term;
        self.record(kind, shard, (index, term), record_flag::FRAGMENTED, fragments, &payload)
    }

    pub(super) fn record(
        mut self,
        kind: u8,
        shard: u16,
        (index, term): (u64, u64),
        flags: u8,
        fragments: u32,
        payload: &[u8],
    ) -> Self {
        self.starts.push(self.bytes.len());
        let header = RecordHeader {
            len: U32::new(payload.len() as u32),
            crc: U32::ZERO,
            index: index.into(),
            term: term.into(),
            timestamp_ms: time_ms(index).into(),
            seed: index.wrapping_mul(31).into(),
            shard: shard.into(),
            kind,
            flags,
            fragments: fragments.into(),
        };
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(payload);
        self.bytes.resize(align_up(self.bytes.len(), RECORD_ALIGN), 0);
        self
    }
}

/// A segment file.
#[derive(Clone)]
pub(super) struct Segment {
    pub(super) header: SegmentHeader,
    pub(super) states: Vec<ShardState>,
    number: u64,
    /// Each with its `synced_to`, flags and how many records it says it has beyond those it has.
    blocks: Vec<(Position, u16, i32, Records)>,
}

pub(super) fn segment(core: u16, epoch: u64, sequence: u32) -> Segment {
    let header = SegmentHeader {
        magic: SEGMENT_MAGIC,
        format_version: U16::new(FORMAT_VERSION),
        reader_version: U16::new(READER_VERSION),
        crc: U32::ZERO,
        header_len: U32::ZERO,
        segment_len: U32::new(SEGMENT_LEN as u32),
        core: core.into(),
        states: U16::ZERO,
        membership_len: U32::ZERO,
        epoch: epoch.into(),
        sequence: sequence.into(),
        reserved: U32::ZERO,
        opened_ms: U64::ZERO,
        cluster: CLUSTER,
        node: NODE,
        kernel_boot: [0; 16],
    };
    Segment { header, states: Vec::new(), number: 0, blocks: Vec::new() }
}

impl ShardState {
    /// The log ends with an entry of this index and term 1.
    pub(super) fn last(&mut self, index: u64) {
        self.last_index = index.into();
        self.last_term = 1.into();
    }
}

impl Segment {
    /// The shards, with nothing in their past.
    pub(super) fn shards(mut self, shards: impl IntoIterator<Item = u16>) -> Self {
        for shard in shards {
            self = self.state(shard, |_| {});
        }
        self
    }

    pub(super) fn state(mut self, shard: u16, change: impl FnOnce(&mut ShardState)) -> Self {
        let mut state = ShardState { shard: shard.into(), ..ShardState::default() };
        change(&mut state);
        self.states.push(state);
        self
    }

    /// The number of the first block.
    pub(super) fn number(mut self, number: u64) -> Self {
        self.number = number;
        self
    }

    pub(super) fn block(self, synced_to: impl Into<Position>, records: Records) -> Self {
        self.miscounted_block(synced_to, 0, records)
    }

    pub(super) fn miscounted_block(
        mut self,
        synced_to: impl Into<Position>,
        more: i32,
        records: Records,
    ) -> Self {
        self.blocks.push((synced_to.into(), 0, more, records));
        self
    }

    /// The last block is the segment's last.
    pub(super) fn sealed(mut self) -> Self {
        self.blocks.last_mut().unwrap().1 = block_flag::SEALED;
        self
    }

    pub(super) fn name(&self) -> String {
        names::segment(self.header.core.get(), self.header.sequence.get())
    }

    /// The file, and where each block begins; last, where the next would.
    pub(super) fn bytes(&self) -> (Vec<u8>, Vec<usize>) {
        let mut header = self.header;
        header.states = U16::new(self.states.len() as u16);
        header.header_len = U32::new((size_of::<SegmentHeader>() + size_of_val(&self.states[..])) as u32);
        let mut bytes = [header.as_bytes(), self.states.as_bytes()].concat();
        header.crc = crc32c::crc32c(&bytes).into();
        bytes[..size_of::<SegmentHeader>()].copy_from_slice(header.as_bytes());
        let mut starts = Vec::new();
        for (number, (synced_to, flags, more, records)) in (self.number..).zip(&self.blocks) {
            let offset = align_up(bytes.len(), BLOCK_ALIGN);
            starts.push(offset);
            bytes.resize(offset, 0);
            let mut block = BlockHeader {
                magic: BLOCK_MAGIC,
                crc: U32::ZERO,
                epoch: header.epoch,
                sequence: header.sequence,
                offset: U32::new(offset as u32),
                number: number.into(),
                synced_to: synced_to.0.into(),
                len: U32::new(records.bytes.len() as u32),
                records: U32::new((records.starts.len() as i32 + more) as u32),
                time_ms: U64::ZERO,
                flags: U16::new(*flags),
                core: header.core,
                reserved: U32::ZERO,
            };
            block.crc = crc32c::crc32c(block.as_bytes()).into();
            bytes.extend_from_slice(block.as_bytes());
            let at = bytes.len();
            bytes.extend_from_slice(&records.bytes);
            for start in &records.starts {
                sign_record(&mut bytes[at + start..], block.salt());
            }
        }
        let end = align_up(bytes.len(), BLOCK_ALIGN);
        starts.push(end);
        bytes.resize(SEGMENT_LEN.max(end), 0);
        (bytes, starts)
    }
}

/// Gives the record that `bytes` begin with its checksum.
pub(super) fn sign_record(bytes: &mut [u8], salt: u32) {
    let len = u32::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let crc = crc32c::crc32c(&bytes[8..size_of::<RecordHeader>() + len]) ^ salt;
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
}

impl From<u64> for Position {
    fn from(position: u64) -> Self {
        Self(position)
    }
}

/// A directory in memory.
#[derive(Default)]
pub(super) struct Built {
    pub(super) files: BTreeMap<String, Vec<u8>>,
    /// By name: where each block begins, and where the last ends.
    pub(super) starts: BTreeMap<String, Vec<usize>>,
    /// What was read, in order.
    pub(super) reads: Mutex<Vec<String>>,
}

pub(super) fn dir(segments: impl IntoIterator<Item = Segment>) -> Built {
    let mut built = Built::default();
    for segment in segments {
        let (bytes, starts) = segment.bytes();
        built.files.insert(segment.name(), bytes);
        built.starts.insert(segment.name(), starts);
    }
    built
}

impl Built {
    /// Where the segment's last block ends.
    pub(super) fn end(&self, name: &str) -> usize {
        *self.starts[name].last().unwrap()
    }

    /// Where a block of the segment begins.
    pub(super) fn block(&self, name: &str, number: usize) -> usize {
        self.starts[name][number]
    }

    /// Flips a bit of a file.
    pub(super) fn flip(&mut self, name: &str, offset: usize) {
        self.files.get_mut(name).unwrap()[offset] ^= 0x10;
    }

    pub(super) fn scan(&self, manifest: &Manifest) -> Result<Scan, RecoveryError> {
        scan(self, manifest, ScanOptions { truncate: false, threads: 1 })
    }

    pub(super) fn truncate(&self, manifest: &Manifest) -> Result<Scan, RecoveryError> {
        scan(self, manifest, ScanOptions { truncate: true, threads: 1 })
    }

    /// Why the directory is refused, as one reads it.
    pub(super) fn refusal(&self, manifest: &Manifest) -> String {
        match self.scan(manifest) {
            Ok(scan) => panic!("accepted, with {:?}", self.visited(&scan)),
            Err(error) => error.to_string(),
        }
    }

    pub(super) fn visited(&self, scan: &Scan) -> Vec<String> {
        self.visited_above(scan, |_| Some(0))
    }

    /// What is visited, each as shard, index and payload.
    pub(super) fn visited_above(&self, scan: &Scan, wants: impl Fn(u16) -> Option<u64>) -> Vec<String> {
        self.replayed(scan, wants).0
    }

    pub(super) fn replayed(
        &self,
        scan: &Scan,
        wants: impl Fn(u16) -> Option<u64>,
    ) -> (Vec<String>, Replayed) {
        let mut visited = Vec::new();
        let replayed = scan.replay(self, wants, |entry| {
            let payload = String::from_utf8_lossy(entry.payload);
            visited.push(format!("{}/{} {payload}", entry.shard, entry.index));
            Ok::<_, ()>(())
        });
        (visited, replayed.unwrap())
    }
}

impl Directory for Built {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files.keys().rev().cloned().collect())
    }

    fn read(&self, name: &str, buffer: &mut Vec<u8>) -> io::Result<()> {
        self.reads.lock().unwrap().push(name.to_owned());
        buffer.clear();
        buffer.extend_from_slice(self.files.get(name).ok_or(io::ErrorKind::NotFound)?);
        Ok(())
    }
}
