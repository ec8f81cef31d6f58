//! What the segments' headers carry on.

use super::*;

#[test]
fn states_follow_the_records_and_the_next_header_has_them() {
    let mut journal = ready_journal();
    let log =
        |kind, index, timestamp_ms| Record { index, term: 6, timestamp_ms, seed: 1, ..Record::new(kind, 5) };
    let mut expected = reader::State { shard: 5, last_term: 6, ..Default::default() };
    let kinds = [Kind::Entry, Kind::Tick, Kind::Membership, Kind::Prepare, Kind::Decision, Kind::Finish];
    for (place, kind) in kinds.into_iter().enumerate() {
        let index = place as u64 + 1;
        journal.append(&log(kind, index, 50 + index), |_| {});
        expected.last_index = index;
        expected.time_ms = 50 + index;
        journal.roll(1);
    }
    // An overwritten entry takes the index back; time stays.
    journal.append(&log(Kind::Entry, 3, 10), |_| {});
    let hard_state = Record { term: 8, ..Record::new(Kind::HardState, 5) };
    journal.append(&hard_state, |buffer| buffer.extend_from_slice(&77_u64.to_le_bytes()));
    journal.append(&Record { index: 2, term: 5, ..Record::new(Kind::SnapshotMark, 5) }, |_| {});
    journal.append_fragment(99, 0, 5, b"piece");
    journal.roll(2);
    let segments = read(&mut journal);
    for (segment, last_index) in segments.iter().zip(0..7) {
        assert_eq!(segment.states[1].last_index, last_index);
    }
    expected =
        reader::State { last_index: 3, term: 8, vote: 77, snapshot_index: 2, snapshot_term: 5, ..expected };
    assert_eq!(segments.last().unwrap().states, [reader::State { shard: 4, ..Default::default() }, expected]);
    assert_eq!(journal.states()[1].vote.get(), 77);
}

#[test]
fn shards_come_and_go_with_their_memberships() {
    let mut journal = Journal::new(OPTIONS, 1, vec![state(9), state(4)]);
    let moved = ShardState { ownership: 3.into(), last_index: 8.into(), ..state(7) };
    journal.add_shard(moved, b"three voters").unwrap();
    journal.set_membership(4, b"one voter").unwrap();
    journal.roll(1);
    assert_eq!(journal.remove_shard(7), (moved, b"three voters".to_vec()));
    journal.state_mut(9).time_ms = 5.into();
    journal.roll(2);
    let segments = read(&mut journal);
    let shards = |segment: &Segment| segment.states.iter().map(|state| state.shard).collect::<Vec<_>>();
    assert_eq!(shards(&segments[0]), [4, 7, 9]);
    assert_eq!((segments[0].states[1].ownership, segments[0].states[1].last_index), (3, 8));
    assert_eq!(segments[0].memberships, [(4, b"one voter".to_vec()), (7, b"three voters".to_vec())]);
    assert_eq!(shards(&segments[1]), [4, 9]);
    assert_eq!(segments[1].states[1].time_ms, 5);
    assert_eq!(segments[1].memberships, [(4, b"one voter".to_vec())]);
}

#[test]
fn a_header_that_would_not_fit_is_refused_and_changes_nothing() {
    let mut journal = ready_journal();
    journal.set_membership(4, b"small").unwrap();
    let refused = journal.set_membership(4, &vec![0; SEGMENT_BYTES / 4]).unwrap_err();
    assert!(refused.contains("too small"), "{refused}");
    assert!(journal.add_shard(state(6), &vec![0; SEGMENT_BYTES / 4]).is_err());
    journal.roll(1);
    let segments = read(&mut journal);
    assert_eq!(segments[0].memberships, [(4, b"small".to_vec())]);
    assert_eq!(segments[0].states.len(), 2);
}

#[test]
fn options_have_limits() {
    let check = |segment_len, shards| JournalOptions { segment_len, ..OPTIONS }.check(shards);
    assert_eq!(check(SEGMENT_BYTES_MIN, 64), Ok(()));
    assert_eq!(check(SEGMENT_BYTES_MAX, 64), Ok(()));
    assert!(check(SEGMENT_BYTES_MIN - 4096, 1).unwrap_err().contains("not between"));
    assert!(check(SEGMENT_BYTES_MAX + 4096, 1).unwrap_err().contains("not between"));
    assert!(check(SEGMENT_BYTES_MIN + 64, 1).unwrap_err().contains("multiple of 4096"));
    assert_eq!(check(SEGMENT_BYTES_MIN, 4094), Ok(()));
    assert!(check(SEGMENT_BYTES_MIN, 4095).unwrap_err().contains("4095 shards"));
    let most = (0..4094).map(state).collect();
    let mut journal = Journal::new(OPTIONS, 1, most);
    let payload_bytes_max = journal.payload_bytes_max();
    append_entry(&mut journal, 1, payload_bytes_max);
    journal.close_block(1);
    assert_eq!(read(&mut journal)[0].states.len(), 4094);
}
