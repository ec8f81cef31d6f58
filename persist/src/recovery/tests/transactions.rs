//! Prepared parts, and what becomes of them.

use super::{
    super::*,
    build::{Records, dir, manifest, segment, with_cuts},
};
use crate::format::Kind;

#[test]
fn prepared_part_is_visited_where_it_is_finished() {
    let built = dir([segment(0, 1, 1).shards([0, 1]).block(
        0,
        Records::new()
            .prepare(0, 1, 70, "part of 70")
            .prepare(0, 2, 71, "part of 71")
            .prepare(1, 1, 70, "other part of 70")
            .entry(0, 3, "between")
            .decide(Kind::Decision, 0, 4, 70, true)
            .decide(Kind::Finish, 0, 5, 70, true)
            .decide(Kind::Finish, 0, 6, 71, false)
            .decide(Kind::Finish, 1, 2, 70, true),
    )]);
    let scan = built.scan(&manifest(1)).unwrap();
    let (visited, replayed) = built.replayed(&scan, |_| Some(0));
    assert_eq!(visited, ["0/3 between", "0/5 part of 70", "1/2 other part of 70"]);
    assert_eq!(replayed.unfinished, []);
    assert_eq!(scan.states()[0].last_index.get(), 6);
}

#[test]
fn unfinished_parts_follow_the_decision() {
    let built = dir([
        segment(0, 1, 1).shards([0]).block(
            0,
            Records::new()
                .prepare(0, 1, 70, "to commit")
                .prepare(0, 2, 71, "to abort")
                .prepare(0, 3, 72, "open"),
        ),
        segment(1, 1, 1).shards([1]).block(
            0,
            Records::new()
                .decide(Kind::Decision, 1, 1, 70, true)
                .decide(Kind::Decision, 1, 2, 71, false)
                .decide(Kind::Decision, 1, 0, 73, true),
        ),
    ]);
    let (visited, replayed) = built.replayed(&built.scan(&manifest(1)).unwrap(), |_| Some(0));
    assert_eq!(visited, [""; 0]);
    let part = |transaction, index, commit, payload: &str| Unfinished {
        transaction,
        shard: 0,
        index,
        commit,
        payload: payload.into(),
    };
    let expected =
        [part(70, 1, true, "to commit"), part(71, 2, false, "to abort"), part(72, 3, false, "open")];
    assert_eq!(replayed.unfinished, expected);
    // A core that does not have the shard learns nothing of it.
    let (_, replayed) = built.replayed(&built.scan(&manifest(1)).unwrap(), |shard| (shard == 1).then_some(0));
    assert_eq!(replayed.unfinished, []);
}

#[test]
fn later_epoch_finishes_an_earlier_ones_part() {
    let built = dir([
        segment(0, 1, 1).shards([0]).block(0, Records::new().prepare(0, 1, 70, "part")),
        segment(1, 2, 1)
            .state(0, |state| state.last(1))
            .block(0, Records::new().decide(Kind::Finish, 0, 2, 70, true)),
    ]);
    let cut = Position::new(1, built.end("0-0000000001.segment") as u32);
    let scan = built.scan(&with_cuts(2, &[(1, 0, cut)])).unwrap();
    let (visited, replayed) = built.replayed(&scan, |_| Some(0));
    assert_eq!((visited, replayed.unfinished), (vec!["0/2 part".to_owned()], vec![]));
}

#[test]
fn snapshot_between_part_and_finish_changes_nothing() {
    let mut built = dir([
        segment(0, 1, 1).shards([0]).block(0, Records::new().prepare(0, 1, 70, "part")).sealed(),
        segment(0, 1, 2)
            .state(0, |state| state.last(1))
            .number(1)
            .block(0, Records::new().entry(0, 2, "b"))
            .sealed(),
        segment(0, 1, 3)
            .state(0, |state| state.last(2))
            .number(2)
            .block(0, Records::new().decide(Kind::Finish, 0, 3, 70, true))
            .sealed(),
        segment(0, 1, 4).state(0, |state| state.last(3)).number(3).block(0, Records::new().entry(0, 4, "d")),
    ]);
    built.files.insert(names::snapshot(0, 2), vec![]);
    let scan = built.scan(&manifest(1)).unwrap();
    assert_eq!(built.visited_above(&scan, |_| Some(2)), ["0/3 part", "0/4 d"]);
    // Covered as finished: neither visited nor unfinished, though its segment is read.
    let (visited, replayed) = built.replayed(&scan, |_| Some(3));
    assert_eq!((visited, replayed.unfinished), (vec!["0/4 d".to_owned()], vec![]));
    // Covered, it is the snapshot's to know whether it is unfinished.
    let (visited, replayed) = built.replayed(&scan, |_| Some(1));
    assert_eq!((visited.len(), replayed.unfinished), (3, vec![]));
    let mut open = dir([segment(0, 1, 1).shards([0]).block(0, Records::new().prepare(0, 1, 70, "part"))]);
    open.files.insert(names::snapshot(0, 1), vec![]);
    let scan = open.scan(&manifest(1)).unwrap();
    assert_eq!(open.replayed(&scan, |_| Some(1)).1.unfinished, []);
    assert_eq!(open.replayed(&scan, |_| Some(0)).1.unfinished.len(), 1);
    // The part trimmed away is no loss then, and one before.
    built.files.remove("0-0000000001.segment");
    assert_eq!(built.visited_above(&built.scan(&manifest(1)).unwrap(), |_| Some(3)), ["0/4 d"]);
    let scan = built.scan(&manifest(1)).unwrap();
    let result = scan.replay(&built, |_| Some(2), |_| Ok::<_, ()>(()));
    let Err(ReplayError::Recovery(error)) = result else { panic!("the part is missing") };
    assert!(
        error.to_string().starts_with("0-0000000003.segment applies transaction 70 of shard 0"),
        "{error}"
    );
}

#[test]
fn large_part_comes_in_fragments() {
    let transaction = 70u64.to_le_bytes();
    let whole = [&transaction[..], b"a large command"].concat();
    let records = Records::new()
        .fragment(0, 3, 0, &whole[..10])
        .completed(0, 1, 3, 1, (&whole, &whole[10..]))
        .of_kind(Kind::Prepare)
        .decide(Kind::Finish, 0, 2, 70, true);
    let built = dir([segment(0, 1, 1).shards([0]).block(0, records)]);
    assert_eq!(built.visited(&built.scan(&manifest(1)).unwrap()), ["0/2 a large command"]);
    // One that is too short to name a transaction is no part.
    let records = Records::new()
        .fragment(0, 3, 0, b"sho")
        .completed(0, 1, 3, 1, (b"short", b"rt"))
        .of_kind(Kind::Prepare);
    let built = dir([segment(0, 1, 1).shards([0]).block(0, records)]);
    assert!(built.refusal(&manifest(1)).contains("names no transaction"));
}
