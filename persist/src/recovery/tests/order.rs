//! Which record counts when several have the same index.

use super::{
    super::*,
    build::{Records, dir, manifest, segment, starting, with_cuts},
};
use crate::format::Kind;

#[test]
fn later_written_record_replaces_all_from_its_index_on() {
    let records = Records::new()
        .term(5)
        .entry(0, 1, "a")
        .entry(0, 2, "b")
        .entry(0, 3, "c")
        .term(3)
        .entry(0, 2, "B")
        .entry(0, 3, "C")
        .entry(0, 4, "D")
        .term(2)
        .entry(0, 4, "d");
    let built = dir([segment(0, 1, 1).shards([0]).block(0, records)]);
    let scan = built.scan(&manifest(1)).unwrap();
    assert_eq!(built.visited(&scan), ["0/1 a", "0/2 B", "0/3 C", "0/4 d"]);
    let state = scan.states()[0];
    assert_eq!((state.last_index.get(), state.last_term.get()), (4, 2));
}

#[test]
fn log_may_become_shorter() {
    let records = Records::new().entry(0, 1, "a").entry(0, 2, "b").entry(0, 3, "c").term(2).entry(0, 2, "B");
    let built = dir([segment(0, 1, 1).shards([0]).block(0, records)]);
    let scan = built.scan(&manifest(1)).unwrap();
    assert_eq!(built.visited(&scan), ["0/1 a", "0/2 B"]);
    assert_eq!(scan.states()[0].last_index.get(), 2);
}

#[test]
fn later_segments_and_epochs_replace_earlier_ones() {
    let built = dir([
        segment(0, 1, 1)
            .shards([0])
            .block(0, Records::new().term(9).entry(0, 1, "a").entry(0, 2, "b").entry(0, 3, "c"))
            .sealed(),
        segment(0, 1, 2)
            .state(0, |state| {
                state.last(3);
                state.last_term = 9.into();
            })
            .number(1)
            .block(0, Records::new().term(8).entry(0, 3, "C").entry(0, 4, "D")),
        segment(1, 2, 1).state(0, |state| state.last(4)).block(0, Records::new().term(7).entry(0, 4, "d")),
    ]);
    let cut = Position::new(2, built.end("0-0000000002.segment") as u32);
    let scan = built.scan(&with_cuts(2, &[(1, 0, cut)])).unwrap();
    assert_eq!(built.visited(&scan), ["0/1 a", "0/2 b", "0/3 C", "0/4 d"]);
}

#[test]
fn header_says_where_the_log_ended() {
    // An earlier recovery with another view kept less of the log than its journal holds.
    let built = dir([
        segment(0, 1, 1)
            .shards([0])
            .block(0, Records::new().entry(0, 1, "a").entry(0, 2, "b").entry(0, 3, "c")),
        segment(0, 2, 2).state(0, |state| state.last(1)).block(0, Records::new()),
    ]);
    let cut = Position::new(1, built.end("0-0000000001.segment") as u32);
    let scan = built.scan(&starting(with_cuts(2, &[(1, 0, cut)]), 0, 2)).unwrap();
    assert_eq!(built.visited(&scan), ["0/1 a"]);
    assert_eq!(scan.states()[0].last_index.get(), 1);
}

#[test]
fn shard_that_moved_between_cores_is_in_order() {
    let built = dir([
        segment(0, 1, 1)
            .shards([0, 1])
            .block(0, Records::new().entry(0, 1, "a").entry(1, 1, "x").entry(0, 2, "b"))
            .sealed(),
        // The shard came back, later than it was on core 1.
        segment(0, 1, 2)
            .state(0, |state| {
                state.last(3);
                state.ownership = 2.into();
            })
            .state(1, |state| state.last(1))
            .number(1)
            .block(0, Records::new().entry(1, 2, "y").entry(0, 4, "d").entry(0, 5, "e")),
        segment(1, 1, 1)
            .state(0, |state| {
                state.last(2);
                state.ownership = 1.into();
            })
            .block(0, Records::new().entry(0, 3, "c").entry(0, 4, "replaced")),
    ]);
    let scan = built.scan(&manifest(1)).unwrap();
    let visited = built.visited_above(&scan, |shard| (shard == 0).then_some(0));
    assert_eq!(visited, ["0/1 a", "0/2 b", "0/3 c", "0/4 d", "0/5 e"]);
    let mut visited = built.visited(&scan);
    visited.sort();
    assert_eq!(visited, ["0/1 a", "0/2 b", "0/3 c", "0/4 d", "0/5 e", "1/1 x", "1/2 y"]);
    let state = scan.states()[0];
    assert_eq!((state.last_index.get(), state.ownership.get()), (5, 0));
}

#[test]
fn replaced_prepared_parts_and_decisions_do_not_count() {
    let built = dir([segment(0, 1, 1).shards([0, 1]).block(
        0,
        Records::new()
            .prepare(0, 1, 70, "replaced")
            .prepare(1, 1, 71, "kept")
            .decide(Kind::Decision, 0, 2, 71, true)
            .entry(0, 1, "a"),
    )]);
    let scan = built.scan(&manifest(1)).unwrap();
    let (visited, replayed) = built.replayed(&scan, |_| Some(0));
    assert_eq!(visited, ["0/1 a"]);
    let unfinished =
        Unfinished { transaction: 71, shard: 1, index: 1, commit: false, payload: b"kept".to_vec() };
    assert_eq!(replayed.unfinished, [unfinished]);
}

#[test]
fn replaced_finish_leaves_its_part_unfinished() {
    let built = dir([segment(0, 1, 1).shards([0]).block(
        0,
        Records::new().prepare(0, 1, 70, "part").decide(Kind::Finish, 0, 2, 70, true).entry(0, 2, "b"),
    )]);
    let (visited, replayed) = built.replayed(&built.scan(&manifest(1)).unwrap(), |_| Some(0));
    assert_eq!(visited, ["0/2 b"]);
    assert_eq!(replayed.unfinished.len(), 1);
}
