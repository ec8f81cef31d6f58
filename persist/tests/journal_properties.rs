//! The journal under random turns, completions in any order and failing segments, against a model.

mod reader;

use std::collections::BTreeMap;

use duva_persist::{
    format::{Kind, Position, ShardState, record_flag},
    journal::{Fragments, Journal, JournalOptions, SEGMENT_BYTES_MIN, Sync, Write},
    record::{Record, record_room_bytes},
};
use proptest::prelude::*;

use crate::reader::{Disk, Held, State};

const OPTIONS: JournalOptions = JournalOptions {
    core: 0,
    epoch: 1,
    segment_len: SEGMENT_BYTES_MIN,
    cluster: [0; 16],
    node: [0; 16],
    kernel_boot: [0; 16],
};
const SHARDS: u16 = 3;
const FIRST_SEQUENCE: u32 = 5;

#[derive(Clone, Debug)]
enum Step {
    /// A record with so many bytes of payload.
    Append {
        shard: u16,
        kind: Kind,
        group: bool,
        payload_bytes: usize,
    },
    /// A fragmented record in pieces of so many bytes.
    AppendLarge {
        shard: u16,
        pieces: usize,
        piece_bytes: usize,
    },
    Close,
    Roll,
    Write,
    /// One of the writes under way completes.
    Written(usize),
    Sync,
    Synced,
    /// One of the segments asked for is there, or is not.
    Prepared {
        place: usize,
        ready: bool,
    },
    Retry,
    Trim,
}

fn payload_bytes() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 0..300_usize, 2 => 0..20_000_usize, 1 => 0..=262_032_usize, 1 => Just(262_032_usize)]
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop::sample::select(vec![
        Kind::Entry,
        Kind::Entry,
        Kind::Tick,
        Kind::HardState,
        Kind::Prepare,
        Kind::Decision,
        Kind::Finish,
        Kind::SnapshotMark,
    ]);
    prop_oneof![
        12 => (0..SHARDS, kind, any::<bool>(), payload_bytes())
            .prop_map(|(shard, kind, group, payload_bytes)| Step::Append { shard, kind, group, payload_bytes }),
        1 => (0..SHARDS, 0..4_usize, 1..200_000_usize)
            .prop_map(|(shard, pieces, piece_bytes)| Step::AppendLarge { shard, pieces, piece_bytes }),
        6 => Just(Step::Close),
        1 => Just(Step::Roll),
        5 => Just(Step::Write),
        5 => any::<usize>().prop_map(Step::Written),
        3 => Just(Step::Sync),
        3 => Just(Step::Synced),
        4 => (any::<usize>(), prop::bool::weighted(0.8)).prop_map(|(place, ready)| Step::Prepared { place, ready }),
        1 => Just(Step::Retry),
        1 => Just(Step::Trim),
    ]
}

/// A write that was handed out, as the model has it.
struct Flight {
    write: Option<Write>,
    end: Position,
}

/// The journal, and what it should have done.
struct World {
    journal: Journal,
    disk: Disk,
    now_ms: u64,
    /// Every record, in order.
    records: Vec<Held>,
    /// What the shards' states are before each record, and at the end.
    states: Vec<Vec<State>>,
    /// Records that are not closed, counted from the end.
    unclosed: usize,
    /// `synced_to` at the time of each close.
    synced_at: BTreeMap<u64, u64>,
    asked: Vec<u32>,
    ready: Vec<u32>,
    flights: Vec<Flight>,
    handed_to: Position,
    sync: Option<Sync>,
    trimmed_to: u32,
}

impl World {
    fn new() -> Self {
        let state = |shard: u16| ShardState { shard: shard.into(), ..ShardState::default() };
        Self {
            journal: Journal::new(OPTIONS, FIRST_SEQUENCE, (0..SHARDS).map(state).collect()),
            disk: Disk::new(SEGMENT_BYTES_MIN as usize),
            now_ms: 1_000,
            records: Vec::new(),
            states: vec![(0..SHARDS).map(|shard| State { shard, ..State::default() }).collect()],
            unclosed: 0,
            synced_at: BTreeMap::new(),
            asked: Vec::new(),
            ready: Vec::new(),
            flights: Vec::new(),
            handed_to: Position::new(FIRST_SEQUENCE, 0),
            sync: None,
            trimmed_to: FIRST_SEQUENCE,
        }
    }

    fn step(&mut self, step: Step) {
        self.now_ms += 1;
        match step {
            Step::Append { shard, kind, group, payload_bytes } => {
                let payload_bytes = if kind == Kind::HardState { 8 } else { payload_bytes };
                let flags = if group { record_flag::GROUP } else { 0 };
                let record = Record { flags, ..self.record(shard, kind) };
                let payload = self.payload(payload_bytes);
                self.journal.append(&record, |buffer| buffer.extend_from_slice(&payload));
                self.expect(&record, payload);
            }
            Step::AppendLarge { shard, pieces, piece_bytes } => self.append_large(shard, pieces, piece_bytes),
            Step::Close => {
                self.note_close();
                self.journal.close_block(self.now_ms);
            }
            Step::Roll => {
                self.note_close();
                self.journal.roll(self.now_ms);
            }
            Step::Write => self.write(),
            Step::Written(place) => self.written(place),
            Step::Sync => self.begin_sync(),
            Step::Synced => self.synced(),
            Step::Prepared { place, ready } => self.prepared(place, ready),
            Step::Retry => self.journal.retry_segments(),
            Step::Trim => self.trim(),
        }
        self.check();
    }

    fn record(&self, shard: u16, kind: Kind) -> Record {
        let number = self.records.len() as u64 + 1;
        let record = Record { term: number / 7, ..Record::new(kind, shard) };
        match kind {
            Kind::HardState => record,
            Kind::SnapshotMark => Record { index: number / 2, ..record },
            _ => Record { index: number, timestamp_ms: 10_000 - number % 5, seed: number * 3, ..record },
        }
    }

    fn payload(&self, payload_bytes: usize) -> Vec<u8> {
        let seed = self.records.len();
        (0..payload_bytes).map(|at| (at * 31 + seed * 7 + at / 251) as u8).collect()
    }

    /// The record is in the journal from now on.
    fn expect(&mut self, record: &Record, payload: Vec<u8>) {
        let mut states = self.states.last().unwrap().clone();
        let state = &mut states[usize::from(record.shard)];
        match record.kind {
            Kind::HardState => {
                state.term = record.term;
                state.vote = u64::from_le_bytes(payload[..].try_into().unwrap());
            }
            Kind::SnapshotMark => {
                state.snapshot_index = record.index;
                state.snapshot_term = record.term;
            }
            Kind::Fragment => {}
            _ => {
                state.last_index = record.index;
                state.last_term = record.term;
                state.time_ms = state.time_ms.max(record.timestamp_ms);
            }
        }
        self.states.push(states);
        self.records.push(Held {
            shard: record.shard,
            kind: record.kind as u8,
            flags: record.flags,
            index: record.index,
            term: record.term,
            timestamp_ms: record.timestamp_ms,
            seed: record.seed,
            fragments: record.fragments,
            payload,
        });
        self.unclosed += 1;
    }

    fn append_large(&mut self, shard: u16, pieces: usize, piece_bytes: usize) {
        let piece = self.payload(piece_bytes);
        let mut fragments = Fragments::begin(&mut self.journal, shard);
        let mut whole = Vec::new();
        let stream = self.journal.new_stream() - 1;
        for ordinal in 0..pieces {
            fragments.push(&mut self.journal, &piece);
            let record =
                Record { index: stream, fragments: ordinal as u32, ..Record::new(Kind::Fragment, shard) };
            self.expect(&record, piece.clone());
            whole.extend_from_slice(&piece);
        }
        let record = self.record(shard, Kind::Entry);
        fragments.finish(&mut self.journal, &record, &piece[..piece_bytes / 2]);
        whole.extend_from_slice(&piece[..piece_bytes / 2]);
        let numbers = [stream, whole.len() as u64, u64::from(crc32c::crc32c(&whole))];
        let payload = [&numbers.map(u64::to_le_bytes).concat()[..], &piece[..piece_bytes / 2]].concat();
        let record = Record { flags: record_flag::FRAGMENTED, fragments: pieces as u32, ..record };
        self.expect(&record, payload);
    }

    fn note_close(&mut self) {
        self.synced_at.insert(self.now_ms, self.journal.synced_to().0);
        self.unclosed = 0;
    }

    fn write(&mut self) {
        let Some(write) = self.journal.next_write() else { return };
        let start = Position::new(write.sequence, write.offset);
        assert!(self.ready.contains(&write.sequence), "only into ready segments");
        if start.sequence() == self.handed_to.sequence() {
            assert_eq!(start, self.handed_to, "in order");
        } else {
            assert_eq!(start, Position::new(self.handed_to.sequence() + 1, 0), "in order");
        }
        assert!(!write.bytes.is_empty() && write.end().offset() <= SEGMENT_BYTES_MIN);
        self.handed_to = write.end();
        self.flights.push(Flight { end: write.end(), write: Some(write) });
    }

    fn written(&mut self, place: usize) {
        let mut open: Vec<&mut Flight> =
            self.flights.iter_mut().filter(|flight| flight.write.is_some()).collect();
        if open.is_empty() {
            return;
        }
        let place = place % open.len();
        let write = open[place].write.take().unwrap();
        self.disk.apply(&write);
        self.journal.written(write, self.now_ms);
    }

    fn begin_sync(&mut self) {
        let sync = self.journal.next_sync();
        let waiting = self.journal.synced_to() < self.journal.written_to();
        assert_eq!(sync.is_some(), self.sync.is_none() && waiting);
        if let Some(sync) = sync {
            assert_eq!(sync.sequence, sync.to.sequence());
            assert!(sync.to <= self.journal.written_to());
            let behind = self.journal.synced_to();
            assert!(sync.sequence == behind.sequence() || sync.sequence == behind.sequence() + 1);
            self.sync = Some(sync);
        }
    }

    fn synced(&mut self) {
        if let Some(sync) = self.sync.take() {
            self.journal.synced(sync);
            assert_eq!(self.journal.synced_to(), sync.to);
        }
    }

    fn prepared(&mut self, place: usize, ready: bool) {
        while let Some(sequence) = self.journal.wants_segment() {
            assert!(!self.asked.contains(&sequence) && !self.ready.contains(&sequence), "asked for once");
            self.asked.push(sequence);
        }
        if self.asked.is_empty() {
            return;
        }
        let sequence = self.asked.swap_remove(place % self.asked.len());
        if ready {
            self.journal.segment_ready(sequence);
            self.ready.push(sequence);
        } else {
            self.journal.segment_failed(sequence);
        }
    }

    fn trim(&mut self) {
        let keep_from = self.journal.mark_position();
        let bound = keep_from.sequence().min(self.journal.synced_to().sequence());
        assert_eq!(self.journal.trim(keep_from), (self.trimmed_to..bound).collect::<Vec<_>>());
        self.trimmed_to = self.trimmed_to.max(bound);
    }

    /// What holds after every step.
    fn check(&self) {
        let journal = &self.journal;
        let done = self.flights.iter().take_while(|flight| flight.write.is_none()).last();
        assert_eq!(
            journal.written_to(),
            done.map_or(Position::new(FIRST_SEQUENCE, 0), |flight| flight.end),
            "written is what all completed writes from the start on hold"
        );
        assert!(journal.synced_to() <= journal.written_to() && journal.written_to() <= journal.appended_to());
        assert!(self.handed_to <= journal.appended_to());
        assert!(journal.appended_to() <= journal.mark_position());
        assert_eq!(journal.unwritten_bytes() == 0, {
            self.unclosed == 0 && journal.written_to() == journal.appended_to()
        });
        if journal.synced_to() == journal.written_to() {
            assert_eq!(journal.oldest_unsynced_ms(), None);
        } else {
            assert!(journal.oldest_unsynced_ms().is_some_and(|written_ms| written_ms <= self.now_ms));
        }
        assert_eq!(journal.segments().next().unwrap_or(self.trimmed_to), self.trimmed_to);
    }

    /// Completes everything, and reads it again.
    fn finish(mut self) {
        self.now_ms += 1;
        self.note_close();
        self.journal.close_block(self.now_ms);
        self.journal.retry_segments();
        loop {
            self.prepared(0, true);
            self.write();
            self.written(0);
            self.begin_sync();
            self.synced();
            self.check();
            if self.asked.is_empty() && self.journal.synced_to() == self.journal.appended_to() {
                break;
            }
        }
        self.check_disk();
    }

    fn check_disk(&self) {
        let segments = self.disk.read();
        let (mut records, mut number, mut synced_to) = (Vec::new(), 0, 0);
        for (place, segment) in segments.iter().enumerate() {
            assert_eq!(segment.sequence, FIRST_SEQUENCE + place as u32, "no segment is left out");
            assert!(
                self.states[records.len()] == segment.states,
                "a header has the states before its segment"
            );
            let last = place + 1 == segments.len();
            for (block_place, block) in segment.blocks.iter().enumerate() {
                let block_last = block_place + 1 == segment.blocks.len();
                assert_eq!(block.number, number);
                number += 1;
                assert_eq!(self.synced_at.get(&block.time_ms), Some(&block.synced_to));
                assert!(block.synced_to >= synced_to);
                synced_to = block.synced_to;
                let full = segment.end == SEGMENT_BYTES_MIN as usize;
                assert!(!block.sealed || block_last, "only a segment's last block is sealed");
                assert_eq!(block.sealed, block_last && (!last || full), "and it is, if anything may follow");
                records.extend_from_slice(&block.records);
            }
            assert!(!segment.blocks.is_empty());
        }
        assert_eq!(records.len(), self.records.len());
        for (place, (read, appended)) in records.iter().zip(&self.records).enumerate() {
            assert!(read == appended, "record {place} of {} bytes differs", appended.payload.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_is_appended_is_read_and_positions_never_promise_more(steps in prop::collection::vec(step(), 1..250)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.finish();
    }

    #[test]
    fn what_fits_the_ready_room_can_be_written(
        prepared in 1..6_u32,
        begun in 0..400_000_usize,
        payloads in prop::collection::vec((payload_bytes(), any::<bool>()), 1..120),
    ) {
        let mut journal = Journal::new(OPTIONS, 1, vec![ShardState::default()]);
        // Segments beyond those that a journal asks for at first are asked for as others are begun.
        while let Some(sequence) = journal.wants_segment() {
            if sequence <= prepared {
                journal.segment_ready(sequence);
            }
        }
        let entry = Record { index: 1, ..Record::new(Kind::Entry, 0) };
        let append = |journal: &mut Journal, payload_bytes: usize| {
            journal.append(&entry, |buffer| buffer.resize(buffer.len() + payload_bytes, 7));
        };
        for _ in 0..begun / 50_000 {
            append(&mut journal, 49_999);
        }
        let mut room_bytes = journal.ready_room_bytes();
        for (payload_bytes, close) in payloads {
            if record_room_bytes(payload_bytes) > room_bytes {
                continue;
            }
            room_bytes -= record_room_bytes(payload_bytes);
            append(&mut journal, payload_bytes);
            prop_assert!(journal.ready_room_bytes() >= room_bytes);
            if close {
                journal.close_block(1);
            }
        }
        journal.close_block(2);
        while let Some(write) = journal.next_write() {
            journal.written(write, 3);
        }
        prop_assert_eq!(journal.unwritten_bytes(), 0);
        prop_assert_eq!(journal.written_to(), journal.appended_to());
    }
}
