//! Up to where logs are known to be committed.

use super::{
    super::*,
    build::{Records, dir, manifest, segment, with_cuts},
};

/// What is known of shard 0 after these records, which come behind a header that says that its log ends with entry 2.
fn known(records: Records) -> u64 {
    let segments = [
        segment(0, 1, 1).shards([0]).block(0, Records::new().entry(0, 1, "a").entry(0, 2, "b")).sealed(),
        segment(0, 1, 2).state(0, |state| state.last(2)).number(1).block(0, records),
    ];
    dir(segments).scan(&manifest(1)).unwrap().committed_to()[0]
}

#[test]
fn records_say_what_is_committed() {
    let entries = || Records::new().entry(0, 3, "c").entry(0, 4, "d");
    assert_eq!(known(entries()), 0);
    assert_eq!(known(entries().committed(0, 3)), 3);
    assert_eq!(known(entries().committed(0, 3).entry(0, 5, "e").committed(0, 5)), 5);
    // Earlier segments' entries count as well, and a vote says nothing of that.
    assert_eq!(known(Records::new().committed(0, 2).vote(0, 3, 1)), 2);
    assert_eq!(known(entries().committed(0, 4).committed(0, 1)), 4);
}

#[test]
fn never_more_is_committed_than_there_is_and_was() {
    let entries = || Records::new().entry(0, 3, "c").entry(0, 4, "d");
    assert_eq!(known(entries().committed(0, 9)), 4);
    // What came later was not meant.
    assert_eq!(known(entries().committed(0, 9).entry(0, 5, "e")), 4);
    // Nor what took a place.
    assert_eq!(known(entries().committed(0, 4).term(2).entry(0, 3, "other").entry(0, 4, "other")), 2);
    assert_eq!(known(entries().committed(0, 4).entry(0, 4, "other").entry(0, 5, "e")), 3);
    assert_eq!(known(entries().committed(0, 4).entry(0, 1, "other")), 0);
}

#[test]
fn headers_that_end_a_log_earlier_end_what_is_committed() {
    let first = || segment(0, 1, 1).shards([0]);
    let records = || Records::new().entry(0, 1, "a").entry(0, 2, "b").entry(0, 3, "c").committed(0, 3);
    let again = |last| segment(0, 1, 2).state(0, |state| state.last(last)).number(1);
    let later = || Records::new().entry(0, 2, "other").entry(0, 3, "other");
    // In the same journal.
    let built = dir([first().block(0, records()).sealed(), again(1).block(0, later())]);
    assert_eq!(built.scan(&manifest(1)).unwrap().committed_to()[0], 1);
    // In the next epoch, perhaps on another core.
    for core in [0, 1] {
        let epoch_2 = |last| segment(core, 2, 2).state(0, |state| state.last(last));
        let cuts = |built: &super::build::Built| {
            with_cuts(2, &[(1, 0, Position::new(1, built.end("0-0000000001.segment") as u32))])
        };
        let built = dir([first().block(0, records()), epoch_2(1).block(0, later())]);
        assert_eq!(built.scan(&cuts(&built)).unwrap().committed_to()[0], 1);
        let built = dir([first().block(0, records()), epoch_2(3).block(0, later())]);
        assert_eq!(built.scan(&cuts(&built)).unwrap().committed_to()[0], 1);
        let built = dir([first().block(0, records()), epoch_2(3).block(0, Records::new().entry(0, 4, "d"))]);
        assert_eq!(built.scan(&cuts(&built)).unwrap().committed_to()[0], 3);
        let more = Records::new().entry(0, 4, "d").committed(0, 4);
        let built = dir([first().block(0, records()), epoch_2(3).block(0, more)]);
        assert_eq!(built.scan(&cuts(&built)).unwrap().committed_to()[0], 4);
    }
}

#[test]
fn each_shard_has_its_own() {
    let records = Records::new()
        .entry(0, 1, "a")
        .entry(1, 1, "b")
        .committed(1, 1)
        .entry(0, 2, "c")
        .entry(1, 2, "d")
        .committed(0, 2);
    let built = dir([segment(0, 1, 1).shards([0, 1]).block(0, records)]);
    assert_eq!(built.scan(&manifest(1)).unwrap().committed_to()[..2], [2, 1]);
}

#[test]
fn what_lost_something_says_nothing() {
    let records = Records::new().entry(0, 1, "a").entry(1, 1, "b").committed(0, 1);
    let mut built = dir([
        segment(0, 1, 1).shards([0, 1]).block(0, records).sealed(),
        segment(0, 1, 2)
            .state(0, |state| state.last(1))
            .state(1, |state| state.last(1))
            .number(1)
            .block(Position::new(2, 0), Records::new().entry(0, 2, "c"))
            .block(Position::new(2, 384), Records::new().entry(0, 3, "d")),
    ]);
    assert_eq!(built.scan(&manifest(1)).unwrap().committed_to()[0], 1);
    let name = "0-0000000002.segment";
    let at = built.starts[name][0] + 70;
    built.files.get_mut(name).unwrap()[at] ^= 1;
    let scan = scan(&built, &manifest(1), ScanOptions { truncate: true, threads: 1 }).unwrap();
    assert!(scan.lost().is_some());
    assert_eq!((scan.states()[0].last_index.get(), scan.committed_to()[0]), (1, 0));
}
