//! Reading a shard's entries back from what a journal has written.

mod reader;

use std::ops::ControlFlow;

use duva_persist::{
    entry_index::EntryIndex,
    format::{Kind, Position, ShardState},
    journal::{Fragments, Journal, JournalOptions, SEGMENT_BYTES_MIN},
    reader::{LogReader, ReadOutcome},
    record::Record,
};

use crate::reader::Disk;

const SEGMENT_BYTES: usize = SEGMENT_BYTES_MIN as usize;
const SHARD: u16 = 4;
const OPTIONS: JournalOptions = JournalOptions {
    core: 3,
    epoch: 9,
    segment_len: SEGMENT_BYTES_MIN,
    cluster: [1; 16],
    node: [2; 16],
    kernel_boot: [3; 16],
};

fn record(kind: Kind, shard: u16, index: u64, term: u64) -> Record {
    Record { index, term, timestamp_ms: 1000 + index, seed: 7 * index, ..Record::new(kind, shard) }
}

fn payload(index: u64, term: u64, bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|place| (place * 31 + index * 7 + term) as u8).collect()
}

/// A journal, what it has written, and where its shard's entries are.
struct Written {
    journal: Journal,
    disk: Disk,
    index: EntryIndex,
}

impl Written {
    fn new() -> Self {
        let state = |shard: u16| ShardState { shard: shard.into(), ..ShardState::default() };
        let journal = Journal::new(OPTIONS, 1, vec![state(SHARD), state(5)]);
        Self { journal, disk: Disk::new(SEGMENT_BYTES), index: EntryIndex::new() }
    }

    fn append(&mut self, index: u64, term: u64, bytes: usize) {
        self.index.note(index, self.journal.block_position());
        let payload = payload(index, term, bytes);
        self.journal
            .append(&record(Kind::Entry, SHARD, index, term), |buffer| buffer.extend_from_slice(&payload));
    }

    /// Makes a block of what was appended, and writes it.
    fn write(&mut self) {
        self.journal.close_block(1);
        self.disk.drain(&mut self.journal, 1);
    }

    fn reader(&self, from: Position) -> LogReader {
        LogReader::new(OPTIONS.core, OPTIONS.epoch, SHARD, from, 4 << 20)
    }

    /// Reads on from a reader's position to the end, in pieces of so many bytes, or as many more as it needs; returns index,
    /// term and payload of what it visits of [`SHARD`], stopping at each record, and why it ended.
    fn read(&self, reader: &mut LogReader, piece_bytes: usize) -> (Vec<Seen>, ReadOutcome) {
        let mut seen = Vec::new();
        let mut bytes = piece_bytes;
        loop {
            let at = reader.position();
            let Some(file) = self.disk.files.get(&at.sequence()) else { return (seen, ReadOutcome::Gone) };
            let rest = &file[at.offset() as usize..];
            let piece = &rest[..bytes.min(rest.len())];
            let outcome = reader.read(piece, self.journal.written_to(), |record| {
                if record.record.shard != SHARD {
                    return ControlFlow::Continue(());
                }
                let payload = record.payload.map(<[u8]>::to_vec);
                seen.push((record.record.kind, record.record.index, record.record.term, payload));
                assert_eq!(record.record.timestamp_ms, 1000 + record.record.index);
                assert_eq!(record.record.seed, 7 * record.record.index);
                ControlFlow::Break(())
            });
            match outcome {
                ReadOutcome::NeedMore(needed) if needed > rest.len() && at == reader.position() => {
                    return (seen, ReadOutcome::Gone);
                }
                ReadOutcome::NeedMore(needed) => bytes = needed.max(piece_bytes),
                ReadOutcome::Stopped => {}
                ReadOutcome::End | ReadOutcome::Gone => return (seen, outcome),
            }
        }
    }
}

type Seen = (Kind, u64, u64, Option<Vec<u8>>);

fn entry(index: u64, term: u64, bytes: usize) -> Seen {
    (Kind::Entry, index, term, Some(payload(index, term, bytes)))
}

/// Ten thousand entries over several segments, blocks of all sizes, those of another shard between.
fn filled() -> (Written, Vec<Seen>) {
    let mut written = Written::new();
    let mut expected = Vec::new();
    for index in 1..=10_000 {
        let bytes = (index as usize * 37) % 700;
        written.append(index, 1 + index / 1000, bytes);
        expected.push(entry(index, 1 + index / 1000, bytes));
        written
            .journal
            .append(&record(Kind::Entry, 5, index, 1), |buffer| buffer.extend_from_slice(b"other"));
        if index % 41 == 0 || index % 17 == 3 {
            written.write();
        }
    }
    written.write();
    (written, expected)
}

#[test]
fn all_entries_come_back_whatever_the_pieces() {
    let (written, expected) = filled();
    assert!(written.disk.files.len() > 3);
    for piece_bytes in [1, 4096, 100_000, 2 * SEGMENT_BYTES] {
        let mut reader = written.reader(Position::new(1, 0));
        let (seen, outcome) = written.read(&mut reader, piece_bytes);
        assert_eq!(outcome, ReadOutcome::End);
        assert!(seen == expected, "{} entries in pieces of {piece_bytes} bytes", seen.len());
        assert_eq!(reader.position(), written.journal.written_to());
    }
}

#[test]
fn every_entry_is_found_from_its_mark() {
    let (written, expected) = filled();
    for index in (1..=10_000).step_by(97) {
        let mut reader = written.reader(written.index.position_of(index).unwrap());
        let (seen, _) = written.read(&mut reader, 64 << 10);
        let place = seen.iter().position(|seen| seen.1 == index).expect("it lies behind its mark");
        assert!(place < 600, "a mark is near: {place} entries are between");
        assert!(seen[place..] == expected[index as usize - 1..]);
    }
    assert_eq!(written.index.position_of(10_001), None);
}

#[test]
fn reading_goes_on_where_the_journal_grew() {
    let mut written = Written::new();
    written.append(1, 1, 10);
    written.write();
    let mut reader = written.reader(written.index.position_of(1).unwrap());
    assert_eq!(written.read(&mut reader, 4096), (vec![entry(1, 1, 10)], ReadOutcome::End));
    assert_eq!(written.read(&mut reader, 4096), (vec![], ReadOutcome::End));
    written.append(2, 1, 20);
    assert_eq!(written.read(&mut reader, 4096), (vec![], ReadOutcome::End), "it is not written");
    written.write();
    assert_eq!(written.read(&mut reader, 4096), (vec![entry(2, 1, 20)], ReadOutcome::End));
}

#[test]
fn replaced_entries_are_told_by_their_terms() {
    let mut written = Written::new();
    for (index, term) in [(1, 1), (2, 1), (3, 1), (2, 2), (3, 3)] {
        written.append(index, term, 8);
    }
    written.write();
    let mut reader = written.reader(written.index.position_of(2).unwrap());
    let (seen, _) = written.read(&mut reader, 4096);
    let wanted: Vec<_> =
        seen.into_iter().filter(|seen| [(2, 2), (3, 3)].contains(&(seen.1, seen.2))).collect();
    assert_eq!(wanted, [entry(2, 2, 8), entry(3, 3, 8)]);
}

#[test]
fn only_records_of_the_log_are_visited() {
    let mut written = Written::new();
    let append = |written: &mut Written, record: Record, payload: &[u8]| {
        written.journal.append(&record, |buffer| buffer.extend_from_slice(payload));
    };
    append(&mut written, record(Kind::Tick, SHARD, 1, 1), b"");
    append(&mut written, record(Kind::HardState, SHARD, 0, 2), &[0; 8]);
    append(&mut written, record(Kind::SnapshotMark, SHARD, 1, 1), b"");
    append(&mut written, record(Kind::Membership, SHARD, 2, 2), b"voters");
    written.write();
    let (seen, _) = written.read(&mut written.reader(Position::new(1, 0)), 4096);
    assert_eq!(seen, [(Kind::Tick, 1, 1, Some(vec![])), (Kind::Membership, 2, 2, Some(b"voters".to_vec()))]);
}

/// An entry of three fragments, one of another stream and an entry between them.
fn fragmented() -> (Written, Vec<u8>) {
    let mut written = Written::new();
    written.append(1, 1, 10);
    written.write();
    let whole = payload(3, 1, 700_000);
    let begin = written.journal.block_position();
    let mut fragments = Fragments::begin(&mut written.journal, SHARD);
    let mut other = Fragments::begin(&mut written.journal, SHARD);
    fragments.push(&mut written.journal, &whole[..200_000]);
    other.push(&mut written.journal, b"never completed");
    written.write();
    written.append(2, 1, 10);
    fragments.push(&mut written.journal, &whole[200_000..400_000]);
    written.write();
    written.index.note(3, begin);
    let last = whole[400_000..].chunks(Fragments::last_bytes_max(&written.journal)).collect::<Vec<_>>();
    let (last, more) = last.split_last().unwrap();
    more.iter().for_each(|piece| fragments.push(&mut written.journal, piece));
    fragments.finish(&mut written.journal, &record(Kind::Entry, SHARD, 3, 1), last);
    written.append(4, 1, 10);
    written.write();
    (written, whole)
}

#[test]
fn fragments_are_put_together() {
    let (written, whole) = fragmented();
    let expected = [entry(1, 1, 10), entry(2, 1, 10), (Kind::Entry, 3, 1, Some(whole)), entry(4, 1, 10)];
    let (seen, outcome) = written.read(&mut written.reader(Position::new(1, 0)), 4096);
    assert!(seen == expected && outcome == ReadOutcome::End);
    // From its mark as well.
    let (seen, _) = written.read(&mut written.reader(written.index.position_of(3).unwrap()), 4096);
    assert!(seen.ends_with(&expected[1..]));
}

#[test]
fn a_payload_that_is_not_there_whole_is_none() {
    let (written, _) = fragmented();
    let missing = (Kind::Entry, 3, 1, None);
    // The first fragment lies before.
    let mut reader = written.reader(Position::new(1, 0));
    let file = &written.disk.files[&1];
    let to_second = reader.read(file, written.journal.written_to(), |record| match record.record.index {
        1 => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    });
    assert_eq!(to_second, ReadOutcome::Stopped);
    let (seen, _) = written.read(&mut written.reader(reader.position()), 4096);
    assert_eq!(seen, [entry(2, 1, 10), missing.clone(), entry(4, 1, 10)]);
    // All fragments together are too large.
    let mut small = LogReader::new(OPTIONS.core, OPTIONS.epoch, SHARD, Position::new(1, 0), 300_000);
    let (seen, _) = written.read(&mut small, 4096);
    assert_eq!(seen[1..], [entry(2, 1, 10), missing, entry(4, 1, 10)]);
}

#[test]
fn other_shards_are_visited_and_their_fragments_left() {
    let mut written = Written::new();
    written.append(1, 1, 10);
    let mut fragments = Fragments::begin(&mut written.journal, 5);
    let whole = payload(1, 1, Fragments::last_bytes_max(&written.journal) + 1);
    let (first, last) = whole.split_at(1000);
    fragments.push(&mut written.journal, first);
    fragments.finish(&mut written.journal, &record(Kind::Entry, 5, 1, 1), last);
    written.journal.append(&record(Kind::Entry, 5, 2, 1), |buffer| buffer.extend_from_slice(b"short"));
    written.append(2, 1, 20);
    written.write();
    let mut seen = Vec::new();
    let outcome = written.reader(Position::new(1, 0)).read(
        &written.disk.files[&1],
        written.journal.written_to(),
        |found| {
            seen.push((found.record.shard, found.record.index, found.payload.map(<[u8]>::len)));
            ControlFlow::Continue(())
        },
    );
    assert_eq!(outcome, ReadOutcome::End);
    assert_eq!(seen, [(SHARD, 1, Some(10)), (5, 1, None), (5, 2, Some(5)), (SHARD, 2, Some(20))]);
}

#[test]
fn recycled_and_damaged_segments_are_gone() {
    let (mut written, expected) = filled();
    let file = written.disk.files[&2].clone();
    let from = Position::new(2, 0);
    // Another epoch's header and blocks; another core's; another place's.
    for reader in [
        LogReader::new(OPTIONS.core, OPTIONS.epoch + 1, SHARD, from, 0),
        LogReader::new(OPTIONS.core + 1, OPTIONS.epoch, SHARD, from, 0),
    ] {
        let mut reader = reader;
        assert_eq!(written.read(&mut reader, 4096), (vec![], ReadOutcome::Gone));
    }
    written.disk.files.insert(2, written.disk.files[&3].clone());
    assert_eq!(written.read(&mut written.reader(from), 4096), (vec![], ReadOutcome::Gone));
    // It was recycled from some place on: what came before is right.
    let mut recycled = file.clone();
    recycled[SEGMENT_BYTES / 2..].fill(0);
    written.disk.files.insert(2, recycled);
    let (seen, outcome) = written.read(&mut written.reader(from), 4096);
    assert_eq!(outcome, ReadOutcome::Gone);
    let first = seen[0].1 as usize - 1;
    assert!(seen.len() > 100 && expected[first..].starts_with(&seen));
    // A flipped bit never gives another entry.
    for at in (0..SEGMENT_BYTES).step_by(7919) {
        let mut damaged = file.clone();
        damaged[at] ^= 4;
        written.disk.files.insert(2, damaged);
        let (seen, _) = written.read(&mut written.reader(from), 256 << 10);
        assert!(seen.is_empty() || expected[first..].starts_with(&seen), "a bit at {at} was flipped");
    }
}

#[test]
fn hostile_bytes_are_gone_or_ask_for_little() {
    let mut state = 1_u64;
    for length in (0..6000).step_by(13) {
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(length)
        .collect();
        for from in [Position::new(1, 0), Position::new(1, 512)] {
            let mut reader = LogReader::new(3, 9, SHARD, from, 0);
            match reader.read(&bytes, Position(u64::MAX), |_| ControlFlow::Continue(())) {
                ReadOutcome::Gone => {}
                ReadOutcome::NeedMore(needed) => assert!(needed > length && needed <= 1 << 28),
                outcome => panic!("{outcome:?}"),
            }
        }
    }
}
