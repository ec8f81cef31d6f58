//! Files that are not there, in every layout: refused if anything in them was needed.

use super::{
    super::*,
    build::{Built, Records, dir, manifest, segment, starting, with_cuts},
};

/// A directory that a server of two cores left after its second start: core 0 has written since, core 1 has not. Spares
/// are as they were prepared.
fn two_lives() -> (Built, Manifest) {
    let mut built = dir([
        segment(0, 1, 1).shards([0, 1]).block(0, Records::new()).block(0, Records::new().entry(0, 1, "a")),
        segment(1, 1, 1).shards([2]).block(0, Records::new()).block(0, Records::new().entry(2, 1, "x")),
        segment(0, 2, 4)
            .state(0, |state| state.last(1))
            .shards([1])
            .block(0, Records::new())
            .block(0, Records::new().entry(0, 2, "b")),
        segment(1, 2, 4).state(2, |state| state.last(1)).block(0, Records::new()),
    ]);
    for name in [names::segment(0, 5), names::segment(0, 6), names::segment(1, 5)] {
        built.files.insert(name, vec![0; 4096]);
    }
    let cut = |core| (1, core, Position::new(1, built.end(&names::segment(core, 1)) as u32));
    let cuts = with_cuts(2, &[cut(0), cut(1)]);
    (built, starting(starting(cuts, 0, 4), 1, 4))
}

fn segments(built: &Built) -> Vec<String> {
    built.files.keys().filter(|name| names::parse_segment(name).is_some()).cloned().collect()
}

#[test]
fn every_segment_that_holds_something_is_missed() {
    let (mut built, manifest) = two_lives();
    let whole = built.scan(&manifest).unwrap();
    let expected = ["0/1 a", "2/1 x", "0/2 b"];
    assert_eq!(built.visited(&whole), expected);
    for name in segments(&built) {
        let bytes = built.files.remove(&name).unwrap();
        if whole.empty().contains(&name) {
            assert_eq!(built.visited(&built.scan(&manifest).unwrap()), expected, "{name} is a spare");
        } else {
            let refusal = built.refusal(&manifest);
            assert!(refusal.contains("missing"), "{name}: {refusal}");
        }
        built.files.insert(name, bytes);
    }
}

#[test]
fn a_journal_without_any_file_is_missed() {
    for core in [0, 1] {
        let (mut built, manifest) = two_lives();
        built.files.retain(|name, _| names::parse_segment(name).is_some_and(|(other, _)| other != core));
        let refusal = built.refusal(&manifest);
        let first = names::segment(core, 4);
        assert!(
            refusal.starts_with(&format!("{first} is missing: the manifest says that a journal has it. ")),
            "{refusal}"
        );
        let scan = built.truncate(&manifest).unwrap();
        assert_eq!(built.visited(&scan), if core == 0 { vec!["2/1 x"] } else { vec!["0/1 a", "0/2 b"] });
        let lost = scan.lost().unwrap();
        assert!(lost.sentence.contains(&format!("{first} is missing")), "{}", lost.sentence);
        let next = scan.next_manifest(&manifest);
        assert!(next.must_not_vote);
        // That is accepted from then on, before the next epoch is begun as well as after.
        assert_eq!(built.visited(&built.scan(&next).unwrap()), built.visited(&scan));
    }
    let (mut built, manifest) = two_lives();
    built.files.clear();
    assert!(built.refusal(&manifest).contains("is missing"));
}

#[test]
fn spares_do_not_stand_for_the_segment_before_them() {
    // The first was trimmed; the second is the one that was written to.
    let mut built = dir([segment(0, 1, 2)
        .state(0, |state| state.last(1))
        .number(3)
        .block(Position::new(2, 0), Records::new().entry(0, 2, "b"))]);
    built.files.insert(names::snapshot(0, 1), vec![]);
    for sequence in [3, 4] {
        built.files.insert(names::segment(0, sequence), vec![0; 4096]);
    }
    let manifest = starting(manifest(1), 0, 1);
    assert_eq!(built.visited_above(&built.scan(&manifest).unwrap(), |_| Some(1)), ["0/2 b"]);
    let second = names::segment(0, 2);
    let bytes = built.files.remove(&second).unwrap();
    let refusal = built.refusal(&manifest);
    assert!(refusal.starts_with(&format!("{second} is missing: ")), "{refusal}");
    // Emptied, it is no better.
    built.files.insert(second, vec![0; bytes.len()]);
    assert!(built.scan(&manifest).is_err());
}

#[test]
fn before_an_epoch_is_begun_the_earlier_journals_are_demanded() {
    let (mut built, begun) = two_lives();
    let manifest = Manifest { starts: vec![], ..begun };
    // What the start had made of its own journals means nothing yet.
    for name in [names::segment(0, 4), names::segment(1, 4), names::segment(1, 5)] {
        built.files.remove(&name);
    }
    assert_eq!(built.visited(&built.scan(&manifest).unwrap()), ["0/1 a", "2/1 x"]);
    for core in [0, 1] {
        let name = names::segment(core, 1);
        let bytes = built.files.remove(&name).unwrap();
        let refusal = built.refusal(&manifest);
        assert!(
            refusal.starts_with(&format!("{name} is missing: the manifest says that a journal has it. ")),
            "{refusal}"
        );
        let scan = built.truncate(&manifest).unwrap();
        assert_eq!(built.visited(&scan).len(), 1);
        let next = scan.next_manifest(&manifest);
        assert_eq!(built.visited(&built.scan(&next).unwrap()), built.visited(&scan));
        built.files.insert(name, bytes);
    }
    // Something behind the cut does not stand for what is before it.
    let first = names::segment(0, 1);
    built.files.remove(&first);
    let (bytes, _) = segment(0, 1, 2).state(0, |state| state.last(1)).number(2).bytes();
    built.files.insert(names::segment(0, 2), bytes);
    assert!(built.refusal(&manifest).contains(&format!("{first} is missing")));
    // A journal of which nothing is kept needs no file.
    let nothing = with_cuts(2, &[(1, 3, Position::new(7, 0))]);
    assert_eq!(dir([]).visited(&dir([]).scan(&nothing).unwrap()), [""; 0]);
}

#[test]
fn journals_without_entries_are_idle() {
    let built = dir([
        segment(0, 1, 1).shards([0]).block(0, Records::new()).block(0, Records::new().vote(0, 4, 2)),
        segment(1, 1, 1).shards([1]).block(0, Records::new()).sealed(),
        segment(1, 1, 2).shards([1]).number(1).block(0, Records::new().tick(1, 1)),
        segment(2, 1, 1).shards([2]).block(0, Records::new()).sealed(),
        segment(2, 1, 2).shards([2]).number(1).block(0, Records::new()),
    ]);
    let scan = built.scan(&manifest(1)).unwrap();
    let idle: Vec<_> = scan.idle_segments().map(|segment| (segment.core, segment.sequence)).collect();
    assert_eq!(idle, [(0, 1), (2, 1), (2, 2)]);
    assert_eq!(scan.states()[0].vote.get(), 2, "which the next header carries on");
}
