//! A small journal, byte by byte: a change of the format changes `golden/journal.hex`, which
//! `DUVA_GOLDEN=write cargo test -p duva-persist --test golden` writes anew.

mod reader;

use std::{fmt::Write as _, fs, path::Path};

use duva_persist::{
    format::{Kind, ShardState, record_flag},
    journal::{Fragments, Journal, JournalOptions, SEGMENT_BYTES_MIN},
    record::Record,
};

use crate::reader::{Disk, read_segment, sync_all};

const OPTIONS: JournalOptions = JournalOptions {
    core: 2,
    epoch: 7,
    segment_len: SEGMENT_BYTES_MIN,
    cluster: *b"golden cluster 1",
    node: *b"golden node ID 1",
    kernel_boot: *b"golden kernel ID",
};

/// Two segments with every kind of record, a group, fragments, a membership and a seal.
fn golden_disk() -> Disk {
    let mut disk = Disk::new(SEGMENT_BYTES_MIN as usize);
    let first = ShardState { shard: 1.into(), term: 3.into(), vote: 11.into(), ..ShardState::default() };
    let second = ShardState {
        shard: 6.into(),
        ownership: 2.into(),
        term: 4.into(),
        last_index: 40.into(),
        last_term: 4.into(),
        snapshot_index: 30.into(),
        snapshot_term: 2.into(),
        time_ms: 1_699_999_999_000.into(),
        ..ShardState::default()
    };
    let mut journal = Journal::new(OPTIONS, 21, vec![first, second]);
    journal.set_membership(1, b"voters: 11, 12, 13").unwrap();
    disk.apply(&journal.begin(1_700_000_000_000));
    let log = |shard, kind, index| Record {
        index,
        term: 4,
        timestamp_ms: 1_700_000_000_000 + index,
        seed: 0x0123_4567_89AB_CDEF,
        ..Record::new(kind, shard)
    };
    let append = |journal: &mut Journal, record: Record, payload: &[u8]| {
        journal.append(&record, |buffer| buffer.extend_from_slice(payload));
    };

    append(&mut journal, log(1, Kind::Entry, 1), b"\x00\x03\x03SET\x01k\x05value");
    append(
        &mut journal,
        Record { flags: record_flag::GROUP, ..log(1, Kind::Entry, 2) },
        b"\x00\x02\x03DEL\x01k",
    );
    append(&mut journal, log(6, Kind::Tick, 41), b"");
    journal.close_block(1_700_000_000_100);
    disk.drain(&mut journal, 1_700_000_000_101);
    sync_all(&mut journal);

    append(&mut journal, Record { term: 5, ..Record::new(Kind::HardState, 1) }, &11_u64.to_le_bytes());
    journal.append_committed(1, 2);
    append(&mut journal, log(1, Kind::Membership, 3), b"voters: 11, 12, 13");
    let transaction = 0x77_u64.to_le_bytes();
    append(&mut journal, log(6, Kind::Prepare, 42), &[&transaction[..], b"\x00\x02\x03DEL\x01k"].concat());
    append(&mut journal, log(1, Kind::Decision, 4), &[&transaction[..], &[1]].concat());
    append(&mut journal, log(6, Kind::Finish, 43), &[&transaction[..], &[1]].concat());
    let mut fragments = Fragments::begin(&mut journal, 6);
    fragments.push(&mut journal, b"\x00\x03\x03SET\x01k\x07lar");
    fragments.push(&mut journal, b"ge");
    fragments.finish(&mut journal, &log(6, Kind::Entry, 44), b"st");
    journal.roll(1_700_000_000_200);

    append(&mut journal, Record { index: 41, term: 4, ..Record::new(Kind::SnapshotMark, 6) }, b"");
    journal.close_block(1_700_000_000_300);
    disk.drain(&mut journal, 1_700_000_000_301);
    disk
}

/// Each segment up to its end, sixteen bytes a line.
fn hex(disk: &Disk) -> String {
    let mut text = String::new();
    for (sequence, file) in &disk.files {
        let end = read_segment(file).end;
        writeln!(text, "segment {sequence}").unwrap();
        for (line, bytes) in file[..end].chunks(16).enumerate() {
            write!(text, "{:06x}", line * 16).unwrap();
            for byte in bytes {
                write!(text, " {byte:02x}").unwrap();
            }
            text.push('\n');
        }
    }
    text
}

#[test]
fn the_format_is_the_golden_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/journal.hex");
    let written = hex(&golden_disk());
    if std::env::var_os("DUVA_GOLDEN").is_some_and(|value| value == "write") {
        fs::write(&path, &written).unwrap();
    }
    let golden = fs::read_to_string(&path).expect("the golden file is in the repository");
    for (place, (written, golden)) in written.lines().zip(golden.lines()).enumerate() {
        assert_eq!(written, golden, "line {}", place + 1);
    }
    assert_eq!(written.lines().count(), golden.lines().count());
}

#[test]
fn the_golden_journal_holds_every_kind() {
    let segments = golden_disk().read();
    let blocks: Vec<_> = segments.iter().flat_map(|segment| &segment.blocks).collect();
    let kinds: Vec<_> = blocks.iter().flat_map(|block| &block.records).map(|record| record.kind).collect();
    assert_eq!(kinds, [1, 1, 2, 3, 3, 4, 5, 6, 7, 9, 9, 1, 8]);
    assert_eq!(
        blocks.iter().map(|block| block.sealed).collect::<Vec<_>>(),
        [false, false, true, false, false]
    );
}
