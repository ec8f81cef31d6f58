//! Directories that are refused, and the sentences that say why.

use super::{
    super::*,
    build::{Built, Records, dir, manifest, segment, starting, with_cuts},
};

const FIRST: &str = "0-0000000001.segment";

fn three_segments() -> Built {
    dir([
        segment(0, 1, 1).shards([0]).block(0, Records::new().entry(0, 1, "a")).sealed(),
        segment(0, 1, 2)
            .state(0, |state| state.last(1))
            .number(1)
            .block(0, Records::new().entry(0, 2, "b"))
            .sealed(),
        segment(0, 1, 3).state(0, |state| state.last(2)).number(2).block(0, Records::new().entry(0, 3, "c")),
    ])
}

#[test]
fn gap_in_sequences_is_refused() {
    let mut built = three_segments();
    built.files.remove("0-0000000002.segment");
    let refusal = built.refusal(&manifest(1));
    assert!(
        refusal.starts_with("0-0000000002.segment is missing although 0-0000000003.segment is there"),
        "{refusal}"
    );
    let scan = built.truncate(&manifest(1)).unwrap();
    assert_eq!(built.visited(&scan), ["0/1 a"]);
    let lost = scan.lost().unwrap();
    assert_eq!(lost.places[0].0, FIRST);
    assert!(lost.sentence.contains("0-0000000002.segment is missing"), "{}", lost.sentence);
    assert_eq!(built.visited(&built.scan(&scan.next_manifest(&manifest(1))).unwrap()), ["0/1 a"]);
}

#[test]
fn missing_segment_behind_a_sealed_one_is_refused() {
    let mut built = three_segments();
    built.files.remove("0-0000000003.segment");
    let refusal = built.refusal(&manifest(1));
    assert!(
        refusal.starts_with(
            "0-0000000003.segment is missing: 0-0000000002.segment says that the journal goes on there"
        ),
        "{refusal}"
    );
    assert_eq!(built.visited(&built.truncate(&manifest(1)).unwrap()), ["0/1 a", "0/2 b"]);
    // A spare is enough.
    built.files.insert("0-0000000003.segment".to_owned(), vec![0; 64]);
    assert_eq!(built.visited(&built.scan(&manifest(1)).unwrap()), ["0/1 a", "0/2 b"]);
}

#[test]
fn missing_last_segment_of_an_earlier_epoch_is_refused() {
    let mut built = three_segments();
    let cut = Position::new(3, built.end("0-0000000003.segment") as u32);
    let manifest = with_cuts(2, &[(1, 0, cut)]);
    built.files.remove("0-0000000003.segment");
    let refusal = built.refusal(&manifest);
    assert!(refusal.starts_with("0-0000000003.segment is missing: "), "{refusal}");
    assert_eq!(built.visited(&built.truncate(&manifest).unwrap()), ["0/1 a", "0/2 b"]);
}

#[test]
fn missing_beginning_is_refused_unless_a_snapshot_covers_it() {
    let mut built = three_segments();
    built.files.remove(FIRST);
    let refusal = built.refusal(&manifest(1));
    assert!(
        refusal.starts_with("entries 1 to 1 of shard 0 are missing, which 0-0000000002.segment counts on"),
        "{refusal}"
    );
    let scan = built.truncate(&manifest(1)).unwrap();
    assert_eq!(built.visited(&scan), [""; 0]);
    assert_eq!(scan.states()[0].last_index.get(), 0);
    assert!(scan.lost().unwrap().sentence.contains("entries 1 to 3 of shard 0 were dropped"));

    built.files.insert(names::snapshot(0, 1), vec![]);
    let scan = built.scan(&manifest(1)).unwrap();
    assert_eq!(built.visited_above(&scan, |_| Some(1)), ["0/2 b", "0/3 c"]);
}

#[test]
fn missing_entries_of_an_idle_shard_are_refused() {
    // Only the header of a later segment tells that shard 1 ever had entries.
    let build = || {
        dir([segment(0, 1, 2)
            .shards([0])
            .state(1, |state| state.last(9))
            .number(4)
            .block(0, Records::new().entry(0, 1, "a"))])
    };
    let refusal = build().refusal(&manifest(1));
    assert!(refusal.starts_with("entries 1 to 9 of shard 1 are missing"), "{refusal}");
    let mut built = build();
    built.files.insert(names::snapshot(1, 9), vec![]);
    assert_eq!(built.scan(&manifest(1)).unwrap().states()[1].last_index.get(), 9);
}

#[test]
fn missing_snapshot_is_refused() {
    let mut built = dir([segment(0, 1, 1)
        .shards([0])
        .block(0, Records::new().entry(0, 1, "a").entry(0, 2, "b").mark(0, 2))]);
    built.files.insert(names::snapshot(0, 1), vec![]);
    for result in [built.scan(&manifest(1)), built.truncate(&manifest(1))] {
        let refusal = result.err().unwrap().to_string();
        assert!(refusal.starts_with("0-00000000000000000002.snapshot.rdb is missing: "), "{refusal}");
    }
    built.files.insert(names::snapshot(0, 2), vec![]);
    assert!(built.scan(&manifest(1)).is_ok());
}

#[test]
fn a_snapshot_that_was_let_go_is_not_demanded_and_serves() {
    // A replica left, and another one begins: in the same journal, or in that of a later start.
    let left = Records::new().entry(0, 1, "a").entry(0, 2, "b").mark(0, 2).entry(0, 3, "c");
    let anew = Records::new().term(3).entry(0, 1, "x");
    let first = || segment(0, 1, 1).shards([0, 1]).block(0, left.clone());
    let second = |epoch, number| segment(0, epoch, 2).shards([0]).number(number).block(0, anew.clone());
    let cut = Position::new(1, dir([first()]).end(FIRST) as u32);
    for (mut built, manifest) in [
        (dir([first().sealed(), second(1, 1)]), manifest(1)),
        (dir([first(), second(2, 0)]), with_cuts(2, &[(1, 0, cut)])),
    ] {
        let scan = built.scan(&manifest).unwrap();
        assert_eq!((built.visited(&scan), scan.snapshots()[0].clone()), (vec!["0/1 x".to_owned()], None));
        // As a crash leaves it: what it covers was committed, so it is more than the log has.
        built.files.insert(names::snapshot(0, 2), vec![]);
        let scan = built.scan(&manifest).unwrap();
        assert_eq!(scan.snapshots()[0].as_ref().map(|snapshot| snapshot.index), Some(2));
        assert_eq!(scan.states()[0].last_index.get(), 2);
    }
    // The first segment is needed no more.
    let mut built = dir([first().sealed(), second(1, 1)]);
    built.files.remove(FIRST);
    assert_eq!(built.visited(&built.scan(&manifest(1)).unwrap()), ["0/1 x"]);
    // Another snapshot is demanded again.
    let marked = segment(0, 1, 2).shards([0]).number(1).block(0, anew.mark(0, 1));
    let refusal = dir([first().sealed(), marked]).refusal(&manifest(1));
    assert!(refusal.starts_with("0-00000000000000000001.snapshot.rdb is missing: "), "{refusal}");
}

#[test]
fn epochs_must_be_known() {
    let built = three_segments();
    let refusal = built.refusal(&manifest(2));
    assert!(
        refusal.starts_with("0-0000000001.segment is of epoch 1, but the manifest does not say where"),
        "{refusal}"
    );
    let built = dir([segment(0, 3, 1).shards([0]).block(0, Records::new().entry(0, 1, "a"))]);
    let refusal = built.refusal(&manifest(2));
    assert!(
        refusal.starts_with("0-0000000001.segment is of epoch 3, but the manifest knows only earlier"),
        "{refusal}"
    );
    let built = dir([segment(0, 2, 1).shards([0]), segment(0, 1, 2).shards([0])]);
    let refusal = built.refusal(&with_cuts(2, &[(1, 0, Position::new(2, 192))]));
    assert!(refusal.starts_with("0-0000000002.segment is of epoch 1, but it comes after"), "{refusal}");
    // The manifest's starts must be of its epoch.
    let built = dir([segment(0, 1, 1).shards([0]), segment(0, 2, 2).shards([0])]);
    let cuts = with_cuts(2, &[(1, 0, Position::new(1, 192))]);
    let refusal = built.refusal(&starting(cuts.clone(), 0, 1));
    assert!(
        refusal.starts_with("0-0000000001.segment is of epoch 1, but the manifest says that a later"),
        "{refusal}"
    );
    let refusal = built.refusal(&starting(cuts.clone(), 0, 3));
    assert!(
        refusal.starts_with("0-0000000002.segment is of epoch 2, but that epoch's journal began with"),
        "{refusal}"
    );
    let refusal = built.refusal(&starting(cuts, 1, 1));
    assert!(
        refusal
            .starts_with("0-0000000002.segment is of epoch 2, but the manifest has no journal of this core"),
        "{refusal}"
    );
}

#[test]
fn last_segment_name_is_refused() {
    let built = dir([segment(0, 1, u32::MAX).shards([0])]);
    assert!(
        built
            .refusal(&manifest(1))
            .starts_with("0-4294967295.segment is one of the last segments that can have a name")
    );
}

#[test]
fn foreign_segments_are_refused() {
    let refusal = |change: fn(&mut crate::format::SegmentHeader)| {
        let mut segment = segment(0, 1, 1).shards([0]).block(0, Records::new().entry(0, 1, "a"));
        change(&mut segment.header);
        let mut built = Built::default();
        built.files.insert(FIRST.to_owned(), segment.bytes().0);
        built.refusal(&manifest(1))
    };
    let text = refusal(|header| header.cluster = [1; 16]);
    assert_eq!(text, format!("{FIRST} belongs to another cluster than the manifest says. Move it away"));
    let text = refusal(|header| header.node = [1; 16]);
    assert_eq!(text, format!("{FIRST} belongs to another node than the manifest says. Move it away"));
    let text = refusal(|header| header.core = 3.into());
    assert!(text.starts_with(&format!("{FIRST} was written by core 3, ")), "{text}");
    let text = refusal(|header| header.sequence = 2.into());
    assert!(text.starts_with(&format!("{FIRST} was written as segment 2, ")), "{text}");
    let text = refusal(|header| header.reader_version = 7.into());
    assert!(text.contains("takes format version 7, and this server knows up to 2"), "{text}");
}

#[test]
fn newer_format_is_read_if_it_says_that_this_version_can() {
    let mut segment = segment(0, 1, 1).shards([0]).block(0, Records::new().entry(0, 1, "a"));
    segment.header.format_version = 7.into();
    let built = dir([segment]);
    assert_eq!(built.visited(&built.scan(&manifest(1)).unwrap()), ["0/1 a"]);
}

#[test]
fn shards_must_be_those_of_the_segment() {
    let text = dir([segment(0, 1, 1).shards([9])]).refusal(&manifest(1));
    assert!(text.starts_with(&format!("{FIRST} has a record or state of shard 9")), "{text}");
    let text = dir([segment(0, 1, 1).shards([2, 2])]).refusal(&manifest(1));
    assert!(text.contains("shard 2"), "{text}");
    let text =
        dir([segment(0, 1, 1).shards([0]).block(0, Records::new().entry(1, 1, "x"))]).refusal(&manifest(1));
    assert!(text.contains("shard 1"), "{text}");
    let text =
        dir([segment(0, 1, 1).shards([0]).block(0, Records::new().entry(77, 1, "x"))]).refusal(&manifest(1));
    assert!(text.contains("shard 77"), "{text}");
}

#[test]
fn two_owners_at_a_time_are_refused() {
    let built = dir([
        segment(0, 1, 1).shards([0]).block(0, Records::new().entry(0, 1, "a")),
        segment(1, 1, 1).shards([0]).block(0, Records::new().entry(0, 2, "b")),
    ]);
    let text = built.refusal(&manifest(1));
    assert_eq!(text, "0-0000000001.segment and 1-0000000001.segment both claim shard 0 at the same time");
}

#[test]
fn unreadable_files_are_named() {
    struct Broken(bool);
    impl Directory for Broken {
        fn list(&self) -> io::Result<Vec<String>> {
            if self.0 { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(vec![FIRST.to_owned()]) }
        }
        fn read(&self, _: &str, _: &mut Vec<u8>) -> io::Result<()> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }
    let options = ScanOptions { truncate: true, threads: 1 };
    let text = |list| scan(&Broken(list), &manifest(1), options).err().unwrap().to_string();
    assert_eq!(text(true), "the data directory cannot be listed: permission denied");
    assert_eq!(text(false), "0-0000000001.segment cannot be read: permission denied");
}

#[test]
fn file_that_changes_during_the_replay_is_an_error() {
    let mut built = three_segments();
    let scan = built.scan(&manifest(1)).unwrap();
    let block = built.block("0-0000000002.segment", 0);
    built.flip("0-0000000002.segment", block);
    let result = scan.replay(&built, |_| Some(0), |_| Ok::<_, ()>(()));
    let Err(ReplayError::Recovery(error)) = result else { panic!("the block is gone") };
    assert_eq!(
        error.to_string(),
        format!("0-0000000002.segment changed at offset {block} while it was read")
    );
}
