//! Recovery of journals that are made by hand, byte by byte.

mod build;
mod committed;
mod damage;
mod log;
mod missing;
mod order;
mod refusals;
mod transactions;

use build::{Built, Records, SHARDS, dir, manifest, segment, starting};

use super::*;
use crate::manifest::Cut;

#[test]
fn empty_directory_is_a_beginning() {
    let built = dir([]);
    let scan = built.scan(&manifest(1)).unwrap();
    assert_eq!(scan.cuts(), []);
    assert_eq!(scan.next_sequence(0), 1);
    assert_eq!(scan.states().len(), usize::from(SHARDS));
    assert_eq!(scan.states()[2].shard.get(), 2);
    assert!(scan.segments().is_empty() && scan.empty().is_empty() && scan.lost().is_none());
    assert_eq!(built.visited(&scan), [""; 0]);
}

#[test]
fn entries_come_back_as_they_were_written() {
    let built = dir([segment(0, 1, 1)
        .shards([0, 1])
        .block(0, Records::new().entry(0, 1, "a").tick(1, 1).entry(1, 2, "b").entry(0, 2, ""))]);
    let scan = built.scan(&manifest(1)).unwrap();
    let mut entries = Vec::new();
    let replayed = scan
        .replay(
            &built,
            |_| Some(0),
            |entry| {
                entries.push((entry.shard, entry.index, entry.kind, entry.payload.to_vec()));
                assert_eq!(entry.term, 1);
                assert_eq!(entry.timestamp_ms, build::time_ms(entry.index));
                assert_eq!(entry.seed, build::seed(entry.index));
                Ok::<_, ()>(())
            },
        )
        .unwrap();
    let expected = [
        (0, 1, EntryKind::Entry, b"a".to_vec()),
        (1, 1, EntryKind::Tick, vec![]),
        (1, 2, EntryKind::Entry, b"b".to_vec()),
        (0, 2, EntryKind::Entry, vec![]),
    ];
    assert_eq!(entries, expected);
    assert_eq!(replayed, Replayed { entries: 4, unfinished: vec![] });

    let state = scan.states()[1];
    assert_eq!((state.last_index.get(), state.last_term.get()), (2, 1));
    assert_eq!(state.time_ms.get(), build::time_ms(2));
    let segments = scan.segments();
    assert_eq!((segments.len(), segments[0].name.as_str()), (1, "0-0000000001.segment"));
    assert_eq!((segments[0].core, segments[0].epoch, segments[0].sequence), (0, 1, 1));
    assert_eq!(segments[0].shards, [(0, 2), (1, 2)]);
    assert_eq!(scan.cuts(), [Cut { epoch: 1, core: 0, end: Position::new(1, segments[0].end) }]);
    assert_eq!(segments[0].end as usize, built.end("0-0000000001.segment"));
}

#[test]
fn only_wanted_shards_and_indexes_are_visited() {
    let built = dir([
        segment(0, 1, 1)
            .shards([0, 1])
            .block(0, Records::new().entry(0, 1, "a").entry(1, 1, "b").entry(0, 2, "c"))
            .sealed(),
        segment(0, 1, 2)
            .state(0, |state| state.last(2))
            .state(1, |state| state.last(1))
            .number(1)
            .block(0, Records::new().entry(0, 3, "d").entry(1, 2, "e")),
    ]);
    let scan = built.scan(&manifest(1)).unwrap();
    assert_eq!(built.visited_above(&scan, |shard| (shard == 0).then_some(1)), ["0/2 c", "0/3 d"]);
    assert_eq!(built.visited_above(&scan, |shard| (shard == 1).then_some(1)), ["1/2 e"]);
    assert_eq!(built.visited_above(&scan, |_| None), [""; 0]);
    // The first segment holds nothing that is wanted, and is not read.
    built.reads.lock().unwrap().clear();
    assert_eq!(built.visited_above(&scan, |shard| (shard == 0).then_some(2)), ["0/3 d"]);
    assert_eq!(*built.reads.lock().unwrap(), ["0-0000000002.segment"]);
}

#[test]
fn visitors_error_ends_the_replay() {
    let built =
        dir([segment(0, 1, 1).shards([0]).block(0, Records::new().entry(0, 1, "a").entry(0, 2, "b"))]);
    let scan = built.scan(&manifest(1)).unwrap();
    let mut visits = 0;
    let result = scan.replay(
        &built,
        |_| Some(0),
        |_| {
            visits += 1;
            Err("full")
        },
    );
    assert!(matches!(result, Err(ReplayError::Visit("full"))));
    assert_eq!(visits, 1);
}

#[test]
fn files_that_are_none_of_the_journals_are_left_alone() {
    let mut built = dir([segment(0, 1, 1).shards([0]).block(0, Records::new().entry(0, 1, "a"))]);
    for name in ["manifest", "lock", "0-1.segment", "notes.txt", "9-0000000001.segment.tmp"] {
        built.files.insert(name.to_owned(), b"anything".to_vec());
    }
    let scan = built.scan(&manifest(1)).unwrap();
    assert_eq!(built.visited(&scan), ["0/1 a"]);
    assert_eq!(scan.segments().len(), 1);
}

#[test]
fn next_manifest_carries_what_was_found() {
    let built = dir([
        segment(1, 1, 4).shards([0]).block(0, Records::new().entry(0, 1, "a")),
        segment(0, 2, 9).shards([1]).block(0, Records::new().entry(1, 1, "b")),
    ]);
    let end = built.end("1-0000000004.segment") as u32;
    let mut now = starting(manifest(2), 0, 9);
    // The second journal of epoch 1 was trimmed, and has no file left: its cut goes.
    now.cuts = vec![
        Cut { epoch: 1, core: 1, end: Position::new(4, end) },
        Cut { epoch: 1, core: 0, end: Position::new(3, 64) },
    ];
    let scan = built.scan(&now).unwrap();
    let next = scan.next_manifest(&now);
    let own = Cut { epoch: 2, core: 0, end: Position::new(9, built.end("0-0000000009.segment") as u32) };
    assert_eq!(next, Manifest { epoch: 3, starts: vec![], cuts: vec![now.cuts[0], own], ..now });
    assert_eq!((scan.next_sequence(0), scan.next_sequence(1), scan.next_sequence(2)), (10, 5, 1));
    let start = |core| Start { core, sequence: scan.next_sequence(core) };
    let begun = scan.begun_manifest(&next, 3);
    assert_eq!(begun, Manifest { starts: vec![start(0), start(1), start(2)], ..next.clone() });
    // Crashed before anything was written to a journal of the new epoch, and even before the manifest was recorded.
    for manifest in [next, now_again(&scan, &built)] {
        let scan = built.scan(&manifest).unwrap();
        assert_eq!(built.visited(&scan), ["0/1 a", "1/1 b"]);
    }
}

fn now_again(scan: &Scan, built: &Built) -> Manifest {
    let next = scan.next_manifest(&manifest(2));
    let cuts = next.cuts.into_iter().filter(|cut| cut.epoch < 2).collect();
    let manifest = Manifest { cuts, ..manifest(2) };
    assert!(built.scan(&manifest).is_ok());
    manifest
}

#[test]
fn every_core_may_be_scanned_at_once() {
    let segments = (0..SHARDS)
        .map(|core| segment(core, 1, 1).shards([core]).block(0, Records::new().entry(core, 1, "x")));
    let built = dir(segments);
    let options = ScanOptions { truncate: false, threads: 3 };
    let scan = scan(&built, &manifest(1), options).unwrap();
    assert_eq!(built.visited(&scan).len(), usize::from(SHARDS));
    assert_eq!(scan.cuts().len(), usize::from(SHARDS));
}

#[test]
fn headers_alone_carry_votes_and_memories() {
    // The segment in which the vote was cast is gone; the shard did nothing since.
    let built = dir([segment(0, 3, 7).state(0, |state| {
        state.last(5);
        state.term = 9.into();
        state.vote = 3.into();
        state.snapshot_index = 5.into();
        state.snapshot_term = 2.into();
        state.time_ms = 1234.into();
    })]);
    let mut built = built;
    built.files.insert(names::snapshot(0, 5), vec![]);
    let scan = built.scan(&manifest(3)).unwrap();
    let state = scan.states()[0];
    assert_eq!((state.term.get(), state.vote.get()), (9, 3));
    assert_eq!((state.last_index.get(), state.snapshot_index.get()), (5, 5));
    assert_eq!(state.time_ms.get(), 1234);
}

#[test]
fn votes_in_records_count() {
    let built = dir([segment(0, 1, 1)
        .shards([0, 1])
        .block(0, Records::new().vote(0, 4, 2).vote(1, 5, 1).vote(0, 6, 0).entry(0, 1, "a"))]);
    let states = built.scan(&manifest(1)).unwrap().states();
    assert_eq!((states[0].term.get(), states[0].vote.get()), (6, 0));
    assert_eq!((states[1].term.get(), states[1].vote.get()), (5, 1));
}

#[test]
fn replay_begins_at_the_newest_snapshot_that_is_there() {
    let mut built = dir([segment(0, 1, 1)
        .shards([0, 1])
        .block(0, Records::new().entry(0, 1, "a").entry(0, 2, "b").mark(0, 1).entry(0, 3, "c"))]);
    built.files.insert(names::snapshot(0, 1), vec![]);
    let scan = built.scan(&manifest(1)).unwrap();
    assert_eq!(scan.snapshots()[0], Some(Snapshot { name: names::snapshot(0, 1), index: 1 }));
    assert_eq!(scan.snapshots()[1], None);
    assert_eq!(scan.states()[0].snapshot_index.get(), 1);
    assert_eq!(scan.states()[0].snapshot_term.get(), 1);
    // A newer one whose mark was not written yet serves as well.
    built.files.insert(names::snapshot(0, 2), vec![]);
    built.files.insert(names::snapshot(SHARDS + 1, 2), vec![]);
    let scan = built.scan(&manifest(1)).unwrap();
    assert_eq!(scan.snapshots()[0], Some(Snapshot { name: names::snapshot(0, 2), index: 2 }));
    let above =
        |shard: u16| Some(scan.snapshots()[usize::from(shard)].as_ref().map_or(0, |chosen| chosen.index));
    assert_eq!(built.visited_above(&scan, above), ["0/3 c"]);
    // It alone, too.
    built.files.remove(&names::snapshot(0, 1));
    assert!(built.scan(&manifest(1)).is_ok());
}
