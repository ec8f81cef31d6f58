//! The logs as they stand: every record that takes an index.

use super::{
    super::*,
    build::{Built, Records, dir, manifest, segment, time_ms},
};
use crate::format::Kind;

/// What is visited of shard 0 above an index: index, kind, timestamp and payload.
fn log(built: &Built, scan: &Scan, above: u64) -> Vec<(u64, EntryKind, u64, String)> {
    let mut visited = Vec::new();
    scan.replay_log(
        built,
        |shard| (shard == 0).then_some(above),
        |entry| {
            let payload = String::from_utf8_lossy(entry.payload).into_owned();
            visited.push((entry.index, entry.kind, entry.timestamp_ms, payload));
            Ok::<_, ()>(())
        },
    )
    .unwrap();
    visited
}

fn entry(index: u64, payload: &str) -> (u64, EntryKind, u64, String) {
    (index, EntryKind::Entry, time_ms(index), payload.to_owned())
}

fn idle(index: u64) -> (u64, EntryKind, u64, String) {
    (index, EntryKind::Tick, 0, String::new())
}

#[test]
fn every_index_is_visited_once_and_in_order() {
    let records = Records::new()
        .entry(0, 1, "a")
        .log(Kind::Membership, 0, 2, b"one voter")
        .vote(0, 2, 1)
        .entry(1, 1, "another shard's")
        .tick(0, 3)
        .prepare(0, 4, 70, "part of 70")
        .prepare(0, 5, 71, "part of 71")
        .decide(Kind::Decision, 0, 6, 70, true)
        .decide(Kind::Finish, 0, 7, 70, true)
        .decide(Kind::Finish, 0, 8, 71, false)
        .entry(0, 9, "replaced")
        .log(Kind::Membership, 0, 10, b"replaced")
        .term(2)
        .log(Kind::Membership, 0, 9, b"three voters");
    let built = dir([segment(0, 1, 1).shards([0, 1]).block(0, records)]);
    let scan = built.scan(&manifest(1)).unwrap();
    let membership =
        |index, payload: &str| (index, EntryKind::Membership, time_ms(index), payload.to_owned());
    let expected = [
        entry(1, "a"),
        membership(2, "one voter"),
        (3, EntryKind::Tick, time_ms(3), String::new()),
        idle(4),
        idle(5),
        idle(6),
        entry(7, "part of 70"),
        idle(8),
        membership(9, "three voters"),
    ];
    assert_eq!(log(&built, &scan, 0), expected);
    // A part that was prepared before comes where it is finished all the same.
    assert_eq!(log(&built, &scan, 5), expected[5..]);
    assert_eq!(log(&built, &scan, 9), []);
    // What is to be applied is another matter.
    assert_eq!(
        built.visited_above(&scan, |shard| (shard == 0).then_some(0)),
        ["0/1 a", "0/3 ", "0/7 part of 70"]
    );
    let state = scan.states()[0];
    assert_eq!((state.last_index.get(), state.last_term.get()), (9, 2));
    assert_eq!((state.term.get(), state.vote.get()), (2, 1));
}

#[test]
fn unfinished_parts_are_returned_and_their_indexes_visited() {
    let built = dir([segment(0, 1, 1)
        .shards([0])
        .block(0, Records::new().entry(0, 1, "a").prepare(0, 2, 70, "part").entry(0, 3, "b"))]);
    let scan = built.scan(&manifest(1)).unwrap();
    assert_eq!(log(&built, &scan, 0), [entry(1, "a"), idle(2), entry(3, "b")]);
    let replayed = scan.replay_log(&built, |_| Some(0), |_| Ok::<_, ()>(())).unwrap();
    let unfinished =
        Unfinished { transaction: 70, shard: 0, index: 2, commit: false, payload: b"part".to_vec() };
    assert_eq!(replayed, Replayed { entries: 3, unfinished: vec![unfinished] });
}

#[test]
fn memberships_in_fragments_are_put_together() {
    let whole = b"a membership in three pieces";
    let records = Records::new()
        .fragment(0, 7, 0, &whole[..10])
        .entry(0, 1, "between")
        .fragment(0, 7, 1, &whole[10..20])
        .completed(0, 2, 7, 2, (whole, &whole[20..]))
        .of_kind(Kind::Membership);
    let built = dir([segment(0, 1, 1).shards([0]).block(0, records)]);
    let scan = built.scan(&manifest(1)).unwrap();
    let membership = (2, EntryKind::Membership, time_ms(2), String::from_utf8(whole.to_vec()).unwrap());
    assert_eq!(log(&built, &scan, 0), [entry(1, "between"), membership.clone()]);
    assert_eq!(log(&built, &scan, 1), [membership]);
}
