//! Log compaction: paper, section 7, figures 12 and 13; thesis, chapter 5.

use duva_raft::{Body, Message, ProgressState, ReplicaId, SnapshotMeta};

use crate::network::{Network, members, start};

fn meta(index: u64, term: u64) -> SnapshotMeta {
    SnapshotMeta { index, term, membership: members(&[1, 2, 3], &[]) }
}

/// The only piece of an empty snapshot.
fn whole(index: u64, term: u64) -> Body {
    Body::Snapshot { meta: meta(index, term), offset: 0, bytes: [].into(), is_last: true }
}

/// Paper, figure 12: a snapshot takes the place of the entries up to an index, and keeps that entry's index and
/// term for the check of the next one.
#[test]
fn figure_12_a_snapshot_replaces_a_prefix_of_the_log() {
    let mut network = Network::new(3);
    network.elect(1);
    for payload in ["a", "b", "c"] {
        network.propose(1, payload).expect("a leader takes proposals");
        network.settle();
    }
    network.run(60);
    network.snapshot(2);
    assert_eq!(network.raft(2).snapshot(), &meta(4, 1));
    assert_eq!((network.raft(2).first_index(), network.raft(2).last_index()), (5, 4));
    assert_eq!(network.raft(2).term_at(4), Some(1));
    network.propose(1, "d").expect("a leader takes proposals");
    network.settle();
    assert_eq!(network.log(2), [1]);

    // It can be elected with it, too.
    network.crash(1);
    network.skip(300);
    network.elect(2);
}

/// Paper, section 7: a follower that lacks entries which the leader discarded gets the snapshot, and then the log.
#[test]
fn a_follower_far_behind_gets_a_snapshot() {
    let mut network = Network::new(3);
    network.elect(1);
    network.part(&[3], &[1, 2]);
    for payload in ["a", "b", "c"] {
        network.propose(1, payload).expect("a leader takes proposals");
        network.settle();
    }
    network.snapshot(1);
    network.propose(1, "d").expect("a leader takes proposals");
    network.settle();
    network.heal();
    network.run(200);
    assert_eq!(network.raft(3).snapshot(), &meta(4, 1));
    assert_eq!(network.entries(3), network.entries(1));
    assert_eq!(network.raft(3).commit_index(), 5);
    let progress = network.raft(1).progress(ReplicaId(3)).expect("a peer");
    assert_eq!((progress.state(), progress.match_index()), (ProgressState::Replicate, 5));
}

/// Paper, figure 13, step 6: "If existing log entry has same index and term as snapshot's last included entry,
/// retain log entries following it."
#[test]
fn figure_13_a_log_that_agrees_stays_behind_the_snapshot() {
    let mut network = Network::of(vec![start(5, &[1, 1, 2, 2, 3]), start(5, &[]), start(5, &[])]);
    network.arrives(2, 1, 5, whole(3, 2));
    assert_eq!((network.raft(1).first_index(), network.log(1)), (4, vec![2, 3]));
    assert_eq!((network.raft(1).commit_index(), network.raft(1).applied_index()), (3, 3));
    let answer = network.sent.last().expect("an answer");
    assert_eq!(
        answer.body,
        Body::AppendReply { match_index: 3 },
        "of the rest it cannot know that it agrees"
    );
}

/// Step 7: otherwise the whole log is discarded.
#[test]
fn figure_13_a_log_that_does_not_agree_goes() {
    for log in [&[1, 1, 1, 1, 1][..], &[1, 1], &[]] {
        let mut network = Network::of(vec![start(5, log), start(5, &[]), start(5, &[])]);
        network.arrives(2, 1, 5, whole(3, 2));
        assert_eq!((network.raft(1).first_index(), network.raft(1).last_index()), (4, 3), "{log:?}");
        assert_eq!(network.raft(1).term_at(3), Some(2), "{log:?}");
        // Nothing of it comes back with a restart.
        network.crash(1);
        network.restart(1);
        assert_eq!((network.raft(1).first_index(), network.raft(1).last_index()), (4, 3), "{log:?}");
    }
}

/// Step 8: the snapshot's configuration is in force.
#[test]
fn figure_13_a_snapshots_membership_is_in_force() {
    let mut network = Network::of(vec![start(5, &[1]), start(5, &[]), start(5, &[])]);
    let other = SnapshotMeta { membership: members(&[1, 2], &[4]), ..meta(3, 2) };
    network.arrives(2, 1, 5, Body::Snapshot { meta: other, offset: 0, bytes: [].into(), is_last: true });
    assert_eq!(network.raft(1).membership(), &members(&[1, 2], &[4]));
}

/// Step 1, and paper, section 7: a snapshot of an earlier term's leader, or one that holds nothing new, is not
/// taken.
#[test]
fn a_snapshot_that_says_nothing_new_is_not_taken() {
    let mut network = Network::new(3);
    network.elect(1);
    network.propose(1, "a").expect("a leader takes proposals");
    network.settle();
    network.run(60);
    assert_eq!(network.raft(2).commit_index(), 2);
    network.arrives(1, 2, 1, whole(1, 1));
    assert_eq!((network.raft(2).snapshot().index, network.raft(2).last_index()), (0, 2));
    let answer = network.sent.last().expect("an answer");
    assert_eq!(answer.body, Body::AppendReply { match_index: 2 }, "the leader goes on behind what it has");

    network.arrives(1, 2, 0, whole(9, 1));
    assert_eq!(network.raft(2).snapshot().index, 0);
    assert_eq!(network.sent.last().expect("an answer").body, Body::Stale);
}

/// Thesis, section 5.3 (figure 13's offset): pieces come in order, and one that does not follow is answered with
/// where to go on.
#[test]
fn pieces_of_a_snapshot_follow_one_another() {
    let mut network = Network::new(3);
    let piece = |index, offset, bytes: &[u8]| Body::Snapshot {
        meta: meta(index, 2),
        offset,
        bytes: bytes.into(),
        is_last: false,
    };
    let next = |network: &Network| match network.sent.last().expect("an answer").body {
        Body::SnapshotReply { index, next_offset, .. } => (index, next_offset),
        ref other => panic!("{other:?}"),
    };
    network.arrives(2, 1, 2, piece(9, 0, b"abc"));
    assert_eq!(next(&network), (9, 3));
    network.arrives(2, 1, 2, piece(9, 3, b"def"));
    assert_eq!(next(&network), (9, 6));
    // Again, and one too early.
    network.arrives(2, 1, 2, piece(9, 3, b"def"));
    assert_eq!(next(&network), (9, 6));
    network.arrives(2, 1, 2, piece(9, 8, b"jkl"));
    assert_eq!(next(&network), (9, 6));
    // How much is there?
    network.arrives(2, 1, 2, piece(9, 0, b""));
    assert_eq!(next(&network), (9, 6));
    // Another snapshot begins at its beginning.
    network.arrives(2, 1, 2, piece(12, 6, b"ghi"));
    assert_eq!(next(&network), (12, 0));
    network.arrives(2, 1, 2, piece(12, 0, b"abc"));
    assert_eq!(next(&network), (12, 3));
}

/// Thesis, section 5.1: what is compacted was applied, so compacting more is a fault of the caller.
#[test]
#[should_panic(expected = "appl")]
fn only_what_is_applied_is_compacted() {
    let mut network = Network::new(3);
    network.elect(1);
    network.part(&[1], &[2, 3]);
    network.propose(1, "a").expect("a leader takes proposals");
    network.tell(1, |raft, _| raft.compact(2));
}

/// A driver whose log has all that a snapshot covers need not take it: what it covers is committed, and the leader learns that
/// it is there.
#[test]
fn a_snapshot_that_the_log_has_is_not_needed() {
    let mut network = Network::of(vec![start(5, &[1, 1, 2, 2, 3]), start(5, &[]), start(5, &[])]);
    network.tell(1, |raft, now_ns| {
        let message = Message { from: ReplicaId(2), to: ReplicaId(1), term: 5, body: whole(3, 2) };
        raft.step(now_ns, message);
        raft.snapshot_needless(3, 2);
    });
    assert_eq!((network.raft(1).first_index(), network.raft(1).commit_index()), (1, 3));
    let answer = network.sent.last().expect("an answer");
    assert_eq!(answer.body, Body::AppendReply { match_index: 3 });
}
