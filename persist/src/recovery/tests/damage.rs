//! Tails, which are dropped, and corruption, which is refused.

use super::{
    super::*,
    build::{Built, Records, dir, manifest, segment, starting, with_cuts},
};
use crate::format::Kind;

const FIRST: &str = "0-0000000001.segment";
const SECOND: &str = "0-0000000002.segment";

/// Three blocks with an entry each; `synced_to` of the last as given.
fn three_blocks(synced_to: Position) -> Built {
    dir([segment(0, 1, 1)
        .shards([0])
        .block(0, Records::new().entry(0, 1, "a"))
        .block(0, Records::new().entry(0, 2, "b"))
        .block(synced_to, Records::new().entry(0, 3, "c"))])
}

fn place(built: &Built, block: usize) -> Position {
    Position::new(1, built.block(FIRST, block) as u32)
}

#[test]
fn first_damage_above_what_was_synced_is_the_tail() {
    let plain = three_blocks(Position(0));
    for offset in [0, 4, 17, 60, 64, 70, 64 + 41] {
        let mut built = three_blocks(place(&plain, 1));
        let second = built.block(FIRST, 1);
        built.flip(FIRST, second + offset);
        let scan = built.scan(&manifest(1)).unwrap();
        // The third block is intact, and dropped all the same.
        assert_eq!(built.visited(&scan), ["0/1 a"], "offset {offset}");
        assert!(scan.lost().is_none());
        assert_eq!(scan.states()[0].last_index.get(), 1);
        let end = if offset < 64 { second } else { second + 64 };
        assert_eq!(scan.cuts()[0].end, Position::new(1, end as u32), "offset {offset}");
    }
}

#[test]
fn damage_below_what_was_synced_is_refused() {
    let plain = three_blocks(Position(0));
    for (offset, at) in [(4, 0), (64 + 41, 64)] {
        let mut built = three_blocks(place(&plain, 2));
        let second = built.block(FIRST, 1);
        built.flip(FIRST, second + offset);
        let refusal = built.refusal(&manifest(1));
        assert!(refusal.starts_with(&format!("{FIRST} is damaged at offset {}: ", second + at)), "{refusal}");
        assert!(refusal.contains("--recover truncate"), "{refusal}");

        let scan = built.truncate(&manifest(1)).unwrap();
        assert_eq!(built.visited(&scan), ["0/1 a"]);
        let lost = scan.lost().unwrap();
        assert_eq!(lost.places, [(FIRST.to_owned(), (second + at) as u32)]);
        assert!(
            lost.sentence.starts_with(&format!("everything of core 0 from {FIRST}")),
            "{}",
            lost.sentence
        );
        let next = scan.next_manifest(&manifest(1));
        assert!(next.must_not_vote);
        // What was cut stays cut, without a word.
        let again = built.scan(&next).unwrap();
        assert_eq!(built.visited(&again), ["0/1 a"]);
        assert!(again.lost().is_none());
    }
}

#[test]
fn later_segments_tell_what_was_synced() {
    let mut built = dir([
        segment(0, 1, 1)
            .shards([0])
            .block(0, Records::new().entry(0, 1, "a"))
            .block(0, Records::new().entry(0, 2, "b"))
            .sealed(),
        segment(0, 1, 2)
            .state(0, |state| state.last(2))
            .number(2)
            .block(Position::new(2, 0), Records::new().entry(0, 3, "c")),
    ]);
    let second = built.block(FIRST, 1);
    built.flip(FIRST, second + 70);
    assert!(built.refusal(&manifest(1)).contains("offset"));
    // The later segment's header may be torn at that.
    built.flip(SECOND, 40);
    assert!(built.refusal(&manifest(1)).starts_with(FIRST));
    // Its block as well: nothing tells any longer.
    let block = built.block(SECOND, 0);
    built.flip(SECOND, block + 5);
    assert_eq!(built.visited(&built.scan(&manifest(1)).unwrap()), ["0/1 a"]);
}

#[test]
fn claims_to_have_synced_what_comes_later_are_no_blocks() {
    let plain = three_blocks(Position(0));
    let built = three_blocks(place(&plain, 2));
    assert!(built.scan(&manifest(1)).is_ok());
    let built = three_blocks(Position::new(1, built.block(FIRST, 2) as u32 + 1));
    assert_eq!(built.visited(&built.scan(&manifest(1)).unwrap()), ["0/1 a", "0/2 b"]);
}

#[test]
fn damage_at_the_very_edge_of_what_was_synced_is_a_tail() {
    let plain = three_blocks(Position(0));
    let mut built = three_blocks(place(&plain, 1));
    let second = built.block(FIRST, 1);
    built.flip(FIRST, second);
    assert_eq!(built.visited(&built.scan(&manifest(1)).unwrap()), ["0/1 a"]);
    let mut built = three_blocks(Position(place(&plain, 1).0 + 1));
    built.flip(FIRST, second);
    assert!(built.scan(&manifest(1)).is_err());
}

#[test]
fn shorter_file_is_a_tail_or_damage() {
    let plain = three_blocks(Position(0));
    let mut built = three_blocks(place(&plain, 2));
    let third = built.block(FIRST, 2);
    built.files.get_mut(FIRST).unwrap().truncate(third + 64 + 30);
    assert_eq!(built.visited(&built.scan(&manifest(1)).unwrap()), ["0/1 a", "0/2 b"]);
}

#[test]
fn records_that_a_block_does_not_count_are_a_tail() {
    for more in [-1, 1] {
        let built = dir([segment(0, 1, 1)
            .shards([0])
            .block(0, Records::new().entry(0, 1, "a"))
            .miscounted_block(0, more, Records::new().entry(0, 2, "b").entry(0, 3, "c"))]);
        let scan = built.scan(&manifest(1)).unwrap();
        // Whole blocks go, with what was taken in already.
        assert_eq!(built.visited(&scan), ["0/1 a"]);
        assert_eq!(scan.states()[0].last_index.get(), 1);
        assert_eq!(scan.segments()[0].shards, [(0, 1)]);
    }
}

#[test]
fn blocks_of_another_number_epoch_or_place_are_no_successors() {
    let wrong = [
        segment(0, 1, 1).number(7),
        segment(0, 2, 1).number(1),
        segment(0, 1, 2).number(1),
        segment(1, 1, 1).number(1),
    ];
    for (place, wrong) in wrong.into_iter().enumerate() {
        let mut built = dir([segment(0, 1, 1).shards([0]).block(0, Records::new().entry(0, 1, "a"))]);
        // The same place in a segment of the same shape, which is the second block there.
        let (bytes, starts) = wrong
            .shards([0])
            .block(0, Records::new().entry(0, 1, "a"))
            .block(0, Records::new().entry(0, 2, "b"))
            .bytes();
        let range = starts[1]..starts[2];
        built.files.get_mut(FIRST).unwrap()[range.clone()].copy_from_slice(&bytes[range]);
        let scan = built.scan(&manifest(2)).or_else(|_| built.scan(&manifest(1)));
        assert_eq!(built.visited(&scan.unwrap()), ["0/1 a"], "case {place}");
    }
}

#[test]
fn malformed_records_with_right_checksums_are_no_tail() {
    let records = [
        Records::new().record(77, 0, (1, 1), 0, 0, b""),
        Records::new().entry(0, 0, "no index"),
        Records::new().record(Kind::HardState as u8, 0, (0, 1), 0, 0, b"short"),
        Records::new().record(Kind::Prepare as u8, 0, (1, 1), 0, 0, b"short"),
        Records::new().record(Kind::Finish as u8, 0, (1, 1), 0, 0, &[0; 8]),
        Records::new().record(Kind::Finish as u8, 0, (1, 1), 0, 0, &[2; 9]),
        Records::new().record(Kind::Decision as u8, 0, (0, 1), 0, 0, b""),
    ];
    for (place, records) in records.into_iter().enumerate() {
        let built = dir([segment(0, 1, 1).shards([0]).block(0, records)]);
        let refusal = built.refusal(&manifest(1));
        assert!(refusal.contains("damaged at offset 256"), "case {place}: {refusal}");
        assert_eq!(built.visited(&built.truncate(&manifest(1)).unwrap()), [""; 0]);
    }
}

#[test]
fn groups_are_kept_or_dropped_whole() {
    let records = Records::new()
        .entry(0, 1, "a")
        .entry(0, 2, "b")
        .grouped()
        .entry(1, 1, "c")
        .grouped()
        .entry(0, 3, "d");
    let built = dir([segment(0, 1, 1).shards([0, 1]).block(0, records.clone())]);
    assert_eq!(built.visited(&built.scan(&manifest(1)).unwrap()), ["0/1 a", "0/2 b", "1/1 c", "0/3 d"]);

    let mut built = dir([segment(0, 1, 1).shards([0, 1]).block(0, records)]);
    let block = built.block(FIRST, 0);
    built.flip(FIRST, block + 64 + 3 * 56 + 8);
    let scan = built.scan(&manifest(1)).unwrap();
    assert_eq!(built.visited(&scan), ["0/1 a"]);
    assert_eq!(scan.states()[0].last_index.get(), 1);
    assert_eq!(scan.states()[1].last_index.get(), 0);
    // The cut lies before the group's first record.
    assert_eq!(scan.cuts()[0].end, Position::new(1, (block + 64 + 56) as u32));
    let next = scan.next_manifest(&manifest(1));
    assert_eq!(built.visited(&built.scan(&next).unwrap()), ["0/1 a"]);
}

#[test]
fn group_over_segments_is_dropped_from_its_first_record_on() {
    let built = |last| {
        dir([
            segment(0, 1, 1)
                .shards([0])
                .block(0, Records::new().entry(0, 1, "a").entry(0, 2, "b").grouped())
                .sealed(),
            segment(0, 1, 2)
                .state(0, |state| state.last(2))
                .number(1)
                // Synced in the middle of the group, which nobody was told of.
                .block(Position::new(2, 0), Records::new().fragment(0, 1, 0, b"x").entry(0, 3, "c").grouped())
                .block(0, last),
        ])
    };
    let whole = built(Records::new().entry(0, 4, "d"));
    assert_eq!(whole.visited(&whole.scan(&manifest(1)).unwrap()), ["0/1 a", "0/2 b", "0/3 c", "0/4 d"]);

    let torn = built(Records::new());
    let scan = torn.scan(&manifest(1)).unwrap();
    assert_eq!(torn.visited(&scan), ["0/1 a"]);
    assert_eq!(scan.states()[0].last_index.get(), 1);
    assert_eq!(scan.segments()[1].end, 0);
    assert_eq!(scan.cuts()[0].end.sequence(), 1);
    assert_eq!(torn.visited(&torn.scan(&scan.next_manifest(&manifest(1))).unwrap()), ["0/1 a"]);
}

#[test]
fn fragments_make_one_payload() {
    let whole = b"one two three four";
    let built = dir([
        segment(0, 1, 1)
            .shards([0, 1])
            .block(
                0,
                Records::new().fragment(0, 9, 0, b"one ").entry(1, 1, "x").fragment(1, 5, 0, b"given up"),
            )
            .sealed(),
        segment(0, 1, 2)
            .shards([0])
            .state(1, |state| state.last(1))
            .number(1)
            .block(
                0,
                Records::new().fragment(0, 9, 1, b"two ").fragment(0, 9, 2, b"three ").entry(0, 1, "before"),
            )
            .block(0, Records::new().completed(0, 2, 9, 3, (whole, b"four")).entry(0, 3, "after"))
            .block(0, Records::new().completed(0, 4, 10, 0, (b"alone", b"alone"))),
    ]);
    let scan = built.scan(&manifest(1)).unwrap();
    let expected = ["1/1 x", "0/1 before", "0/2 one two three four", "0/3 after", "0/4 alone"];
    assert_eq!(built.visited(&scan), expected);
    assert_eq!(built.visited_above(&scan, |shard| (shard == 0).then_some(2)), ["0/3 after", "0/4 alone"]);
}

#[test]
fn fragments_without_their_record_are_dropped() {
    let built = dir([segment(0, 1, 1)
        .shards([0])
        .block(0, Records::new().entry(0, 1, "a").fragment(0, 9, 0, b"one ").fragment(0, 9, 1, b"two "))]);
    let scan = built.scan(&manifest(1)).unwrap();
    assert_eq!(built.visited(&scan), ["0/1 a"]);
    assert_eq!(scan.states()[0].last_index.get(), 1);
}

#[test]
fn record_with_an_incomplete_set_of_fragments_is_a_tail_or_damage() {
    let whole = b"one two three four";
    let sets: [fn(Records) -> Records; 6] = [
        |records| records.fragment(0, 9, 0, b"one ").fragment(0, 9, 2, b"three "),
        |records| records.fragment(0, 9, 1, b"two ").fragment(0, 9, 2, b"three "),
        |records| records.fragment(0, 9, 0, b"one ").fragment(0, 9, 1, b"two "),
        |records| records.fragment(0, 9, 0, b"one ").fragment(1, 9, 1, b"two ").fragment(0, 9, 2, b"three "),
        |records| records.fragment(0, 9, 0, b"one ").fragment(0, 9, 1, b"TWO ").fragment(0, 9, 2, b"three "),
        |records| records.fragment(0, 9, 0, b"one ").fragment(0, 9, 1, b"").fragment(0, 9, 2, b"three "),
    ];
    for (place, set) in sets.into_iter().enumerate() {
        let records = set(Records::new().entry(0, 1, "a")).completed(0, 2, 9, 3, (whole, b"four"));
        let built = dir([segment(0, 1, 1).shards([0, 1]).block(0, records.clone())]);
        assert_eq!(built.visited(&built.scan(&manifest(1)).unwrap()), ["0/1 a"], "case {place}");
        let synced_to = Position::new(1, built.end(FIRST) as u32);
        let built = dir([segment(0, 1, 1)
            .shards([0, 1])
            .block(0, records)
            .block(synced_to, Records::new().entry(0, 3, "c"))]);
        assert!(built.refusal(&manifest(1)).contains("fragments"), "case {place}");
    }
}

#[test]
fn fragments_that_were_trimmed_must_be_covered_by_a_snapshot() {
    let whole = b"one two three four";
    let mut built = dir([segment(0, 1, 2).shards([0, 1]).state(2, |state| state.last(0)).number(5).block(
        0,
        Records::new()
            .fragment(0, 9, 1, b"two ")
            .entry(1, 1, "x")
            .fragment(0, 9, 2, b"three ")
            .completed(0, 1, 9, 3, (whole, b"four"))
            .completed(0, 2, 8, 1, (whole, b"four"))
            .entry(0, 3, "c"),
    )]);
    let refusal = built.refusal(&manifest(1));
    assert!(refusal.starts_with("entries 1 to 2 of shard 0 are missing"), "{refusal}");
    built.files.insert(names::snapshot(0, 2), vec![]);
    let scan = built.scan(&manifest(1)).unwrap();
    let above = |shard: u16| Some(if shard == 0 { 2 } else { 0 });
    assert_eq!(built.visited_above(&scan, above), ["1/1 x", "0/3 c"]);
}

#[test]
fn earlier_journals_end_at_their_cuts() {
    let built = dir([
        segment(0, 1, 1)
            .shards([0])
            .block(0, Records::new().entry(0, 1, "a").entry(0, 2, "dropped"))
            .block(0, Records::new().entry(0, 3, "dropped"))
            .sealed(),
        // Dropped in the same go.
        segment(0, 1, 2)
            .state(0, |state| state.last(3))
            .number(2)
            .block(0, Records::new().entry(0, 4, "too")),
        segment(0, 2, 4).state(0, |state| state.last(1)).block(0, Records::new().entry(0, 2, "b")),
    ]);
    let cut = Position::new(1, (built.block(FIRST, 0) + 64 + 56) as u32);
    let manifest = starting(with_cuts(2, &[(1, 0, cut)]), 0, 4);
    let scan = built.scan(&manifest).unwrap();
    assert_eq!(built.visited(&scan), ["0/1 a", "0/2 b"]);
    assert_eq!(scan.cuts()[0].end, cut);
    assert_eq!(
        scan.segments().iter().map(|segment| segment.end > 0).collect::<Vec<_>>(),
        [true, false, true]
    );
    // Behind the cut, anything may be.
    let mut built = built;
    let block = built.block(FIRST, 0);
    for offset in block + 64 + 56..super::build::SEGMENT_LEN {
        built.flip(FIRST, offset);
    }
    built.flip(SECOND, 9);
    assert_eq!(built.visited(&built.scan(&manifest).unwrap()), ["0/1 a", "0/2 b"]);
    built.files.remove(SECOND);
    assert_eq!(built.visited(&built.scan(&manifest).unwrap()), ["0/1 a", "0/2 b"]);
    // Nor need the file be there behind it.
    built.files.get_mut(FIRST).unwrap().truncate(cut.offset() as usize);
    assert_eq!(built.visited(&built.scan(&manifest).unwrap()), ["0/1 a", "0/2 b"]);
    // Before it, nothing may.
    built.flip(FIRST, block + 64 + 45);
    assert!(built.refusal(&manifest).starts_with(&format!("{FIRST} is damaged at offset {}", block + 64)));
}

#[test]
fn damage_to_an_earlier_journal_gives_up_what_builds_on_it() {
    let mut built = dir([
        segment(0, 1, 1)
            .shards([0, 1])
            .block(0, Records::new().entry(0, 1, "a").entry(1, 1, "x").entry(0, 2, "b"))
            .block(0, Records::new().entry(0, 3, "c")),
        segment(0, 2, 2)
            .state(0, |state| state.last(3))
            .state(1, |state| state.last(1))
            .block(0, Records::new().entry(0, 4, "d").entry(1, 2, "y").entry(0, 5, "e")),
    ]);
    let cut = Position::new(1, built.end(FIRST) as u32);
    let manifest = starting(with_cuts(2, &[(1, 0, cut)]), 0, 2);
    assert_eq!(built.visited(&built.scan(&manifest).unwrap()).len(), 7);
    let second = built.block(FIRST, 1);
    built.flip(FIRST, second + 80);
    assert!(built.refusal(&manifest).starts_with(FIRST));

    let scan = built.truncate(&manifest).unwrap();
    assert_eq!(built.visited(&scan), ["0/1 a", "1/1 x", "0/2 b", "1/2 y"]);
    let state = scan.states()[0];
    assert_eq!((state.last_index.get(), state.last_term.get()), (2, 1));
    let lost = scan.lost().unwrap();
    assert_eq!(lost.places.len(), 2);
    assert!(lost.sentence.contains("entries 3 to 5 of shard 0 were dropped"), "{}", lost.sentence);

    // From then on the manifest knows, and what comes next builds on what was kept.
    let next = scan.next_manifest(&manifest);
    let given_up =
        Truncation { shard: 0, from_epoch: 2, from_ownership: 0, from: Position::new(2, 0), to_epoch: 2 };
    assert_eq!(next.truncations, [given_up]);
    let next = Manifest::decode(&next.encode()).unwrap();
    let scan = built.scan(&next).unwrap();
    assert_eq!(built.visited(&scan), ["0/1 a", "1/1 x", "0/2 b", "1/2 y"]);
    assert!(scan.lost().is_none());
    let (bytes, _) = segment(0, 3, 3)
        .state(0, |state| state.last(2))
        .state(1, |state| state.last(2))
        .block(0, Records::new().entry(0, 3, "C"))
        .bytes();
    built.files.insert(names::segment(0, 3), bytes);
    let scan = built.scan(&next).unwrap();
    assert_eq!(built.visited(&scan), ["0/1 a", "1/1 x", "0/2 b", "1/2 y", "0/3 C"]);
    assert_eq!(scan.next_manifest(&next).truncations, next.truncations);
}

#[test]
fn what_goes_on_from_another_log_than_is_left_is_given_up() {
    // The second epoch replaced the end of the log, and all of that is lost: the third does not go on from the first.
    let mut built = dir([
        segment(0, 1, 1)
            .shards([0, 1])
            .block(0, Records::new().entry(0, 1, "a").entry(0, 2, "b").entry(0, 3, "c").entry(1, 1, "x")),
        segment(0, 2, 2)
            .state(0, |state| state.last(3))
            .state(1, |state| state.last(1))
            .block(0, Records::new().term(2).entry(0, 2, "B")),
        segment(0, 3, 3)
            .state(0, |state| {
                state.last(2);
                state.last_term = 2.into();
            })
            .state(1, |state| state.last(1))
            .block(0, Records::new().term(3).entry(0, 3, "C").entry(1, 2, "y")),
    ]);
    let cut = |sequence| Position::new(sequence, built.end(&names::segment(0, sequence)) as u32);
    let manifest = starting(with_cuts(3, &[(1, 0, cut(1)), (2, 0, cut(2))]), 0, 3);
    assert_eq!(built.visited(&built.scan(&manifest).unwrap()), ["0/1 a", "1/1 x", "0/2 B", "0/3 C", "1/2 y"]);
    for offset in [9, built.block(SECOND, 0) + 70] {
        built.flip(SECOND, offset);
        let scan = built.truncate(&manifest).unwrap();
        assert_eq!(built.visited(&scan), ["0/1 a", "0/2 b", "0/3 c", "1/1 x", "1/2 y"]);
        let next = scan.next_manifest(&manifest);
        assert_eq!(next.truncations[0].from, Position::new(3, 0));
        assert_eq!(built.visited(&built.scan(&next).unwrap()), built.visited(&scan));
        built.flip(SECOND, offset);
    }
}

#[test]
fn spares_hold_nothing() {
    let mut built = dir([segment(0, 2, 5).shards([0]).block(0, Records::new().entry(0, 1, "a"))]);
    // Never opened, recycled, and recycled from another node's file with a header that is torn by now.
    built.files.insert(names::segment(0, 6), vec![0; 4096]);
    let (mut earlier, _) =
        segment(0, 1, 2).shards([0]).block(0, Records::new().entry(0, 1, "old").entry(0, 2, "older")).bytes();
    built.files.insert(names::segment(0, 7), earlier.clone());
    earlier[33] ^= 1;
    built.files.insert(names::segment(0, 8), earlier);
    built.files.insert(names::segment(0, 9), vec![]);
    let scan = built.scan(&manifest(2)).unwrap();
    assert_eq!(built.visited(&scan), ["0/1 a"]);
    assert_eq!(scan.empty(), [6, 7, 8, 9].map(|sequence| names::segment(0, sequence)));
    assert_eq!(scan.next_sequence(0), 10);
    assert_eq!(scan.segments().len(), 1);
}

#[test]
fn first_segment_that_lost_everything_is_refused_once_its_journal_is_begun() {
    let mut built = dir([
        segment(0, 1, 1).shards([0]).block(0, Records::new().entry(0, 1, "a")).sealed(),
        segment(0, 2, 5)
            .state(0, |state| state.last(1))
            .block(0, Records::new())
            .block(0, Records::new().entry(0, 2, "b"))
            .sealed(),
        segment(0, 2, 6).state(0, |state| state.last(2)).number(2).block(0, Records::new().entry(0, 3, "c")),
    ]);
    // A spare of the earlier epoch means nothing.
    built.files.insert(names::segment(0, 4), vec![]);
    let first = names::segment(0, 5);
    let cut = Position::new(1, built.end(FIRST) as u32);
    let manifest = starting(with_cuts(2, &[(1, 0, cut)]), 0, 5);
    let scan = built.scan(&manifest).unwrap();
    assert_eq!(built.visited(&scan), ["0/1 a", "0/2 b", "0/3 c"]);
    // The header and the empty block behind it were durable from the beginning.
    assert_eq!(scan.segments()[1].synced_to as usize, built.block(&first, 1));
    let whole = built.files[&first].clone();
    for lost in [vec![], segment(0, 1, 2).shards([0]).bytes().0, [&[!whole[0]], &whole[1..]].concat()] {
        built.files.insert(first.clone(), lost);
        let refusal = built.refusal(&manifest);
        assert!(refusal.starts_with(&format!("{first} is damaged at offset 0: ")), "{refusal}");
        let scan = built.truncate(&manifest).unwrap();
        assert_eq!(built.visited(&scan), ["0/1 a"]);
        assert_eq!(scan.cuts()[1].end, Position::new(5, 0));
        assert_eq!(scan.next_sequence(0), 7);
        assert_eq!(built.visited(&built.scan(&scan.next_manifest(&manifest)).unwrap()), ["0/1 a"]);
    }
    let mut torn = whole.clone();
    torn[built.block(&first, 0)] ^= 1;
    built.files.insert(first.clone(), torn);
    let refusal = built.refusal(&manifest);
    assert!(
        refusal.starts_with(&format!("{first} is damaged at offset {}: ", built.block(&first, 0))),
        "{refusal}"
    );
    // Trimmed, the file would be gone, and what it held in a snapshot.
    built.files.remove(&first);
    assert!(built.refusal(&manifest).starts_with("entries 2 to 2 of shard 0 are missing"));
    built.files.insert(names::snapshot(0, 2), vec![]);
    let scan = built.scan(&manifest).unwrap();
    assert_eq!(built.visited_above(&scan, |_| Some(2)), ["0/3 c"]);
}

#[test]
fn torn_header_of_a_new_segment_is_a_tail() {
    let build = |synced_to| {
        let mut built = dir([
            segment(0, 1, 1).shards([0]).block(0, Records::new().entry(0, 1, "a")).sealed(),
            segment(0, 1, 2)
                .state(0, |state| state.last(1))
                .number(1)
                .block(0, Records::new().entry(0, 2, "b"))
                .block(synced_to, Records::new().entry(0, 3, "c")),
        ]);
        built.flip(SECOND, 9);
        built
    };
    let built = build(Position::new(2, 0));
    let scan = built.scan(&manifest(1)).unwrap();
    assert_eq!(built.visited(&scan), ["0/1 a"]);
    assert_eq!(scan.cuts()[0].end, Position::new(1, built.end(FIRST) as u32));
    // The segment belongs to the journal still, and is dropped at the next recovery too.
    assert_eq!((scan.segments()[1].end, scan.empty().len()), (0, 0));
    assert_eq!(built.visited(&built.scan(&scan.next_manifest(&manifest(1))).unwrap()), ["0/1 a"]);

    let built = build(Position::new(2, 256));
    let refusal = built.refusal(&manifest(1));
    assert!(refusal.starts_with(&format!("{SECOND} is damaged at offset 0: ")), "{refusal}");
}

#[test]
fn first_segment_with_a_torn_header_is_an_empty_journal() {
    let mut built = dir([segment(0, 2, 3).shards([0]).block(0, Records::new().entry(0, 1, "a"))]);
    built.flip("0-0000000003.segment", 20);
    let scan = built.scan(&manifest(2)).unwrap();
    assert_eq!(built.visited(&scan), [""; 0]);
    assert_eq!(scan.cuts()[0].end, Position::new(3, 0));
    assert!(built.scan(&scan.next_manifest(&manifest(2))).is_ok());
}
