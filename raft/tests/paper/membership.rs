//! Changes of membership: thesis, chapter 4; paper, section 6.

use duva_raft::{Body, Entry, EntryKind, ProgressState, ProposeError, ReplicaId, Role, mutation::Mutation};

use crate::network::{Network, Start, entry, members, start};

/// Three voters led by 1, and learners 4 and 5 with everything.
fn three_and_two() -> Network {
    let mut network = Network::new(3);
    network.join(4);
    network.join(5);
    network.elect(1);
    network.change(1, &[1, 2, 3], &[4, 5]).expect("a leader takes changes");
    network.settle();
    assert_eq!(network.raft(5).membership(), &members(&[1, 2, 3], &[4, 5]));
    network
}

/// Section 4.1: "The new configuration takes effect on each server as soon as it is added to that server's log".
#[test]
fn a_membership_is_in_force_when_it_is_in_the_log() {
    let mut network = Network::new(3);
    network.join(4);
    network.elect(1);
    network.change(1, &[1, 2, 3], &[4]).expect("a leader takes changes");
    assert_eq!(network.raft(1).membership(), &members(&[1, 2, 3], &[4]));
    assert_eq!(network.raft(1).commit_index(), 1, "it is not committed");
    assert_eq!(network.raft(2).membership(), &members(&[1, 2, 3], &[]));
    network.settle_if(|message| message.to == ReplicaId(2));
    assert_eq!(network.raft(2).membership(), &members(&[1, 2, 3], &[4]));
}

/// Section 4.1: a server falls back to the previous configuration if the entry is removed from its log.
#[test]
fn a_membership_that_is_replaced_is_in_force_no_more() {
    let mut network = Network::new(3);
    network.elect(1);
    network.part(&[1], &[2, 3]);
    network.change(1, &[1, 2, 3], &[4]).expect("a leader takes changes");
    network.settle();
    network.run(1_000);
    network.heal();
    network.run(200);
    assert_eq!(network.raft(1).membership(), &members(&[1, 2, 3], &[]));
    assert_eq!(network.entries(1), network.entries(2));
}

/// Section 4.1: one change at a time.
#[test]
fn one_change_at_a_time() {
    let mut network = three_and_two();
    network.change(1, &[1, 2, 3, 4], &[5]).expect("a leader takes changes");
    assert_eq!(network.change(1, &[1, 2, 3], &[]), Err(ProposeError::ChangePending));
    network.settle();
    assert!(network.raft(1).membership().outgoing.is_empty(), "the leader left the joint membership");
    network.change(1, &[1, 2, 3], &[]).expect("the earlier one is done");
}

/// The flaw of single-server changes that was found after the thesis (raft-dev, July 2015): a leader must not
/// change the membership before an entry of its own term is committed.
#[test]
fn no_change_before_an_entry_of_the_term_is_committed() {
    let mut network = Network::new(3);
    network.campaign(1);
    network.settle_if(|message| !matches!(message.body, Body::Append { .. }));
    assert_eq!(network.raft(1).role(), Role::Leader);
    assert_eq!(network.change(1, &[1, 2], &[]), Err(ProposeError::ChangePending));
    network.run(60);
    network.change(1, &[1, 2], &[]).expect("now there is one");
}

/// Section 4.2.1, figure 4.4: a new server is caught up before it counts; until then it does not stand in the way.
#[test]
fn a_learner_is_caught_up_and_counts_in_no_majority() {
    let mut network = Network::new(3);
    network.elect(1);
    for payload in ["a", "b", "c"] {
        network.propose(1, payload).expect("a leader takes proposals");
    }
    network.settle();
    network.join(4);
    network.change(1, &[1, 2, 3], &[4]).expect("a leader takes changes");
    network.settle();
    assert_eq!(network.entries(4), network.entries(1));

    network.part(&[1, 4], &[2, 3]);
    let (index, _) = network.propose(1, "d").expect("a leader takes proposals");
    network.settle();
    assert_eq!(network.raft(1).progress(ReplicaId(4)).expect("a peer").match_index(), index);
    assert!(network.raft(1).commit_index() < index, "1 and a learner are no majority of three voters");
    network.run(1_000);
    assert_ne!(network.raft(1).role(), Role::Leader, "nor do they hold a quorum");
    assert_eq!(network.raft(4).role(), Role::Follower, "a learner does not campaign");
}

/// Section 4.3, figure 4.8: during the change neither majority decides alone.
#[test]
fn joint_consensus_needs_both_majorities_to_commit() {
    for (reached, is_enough) in [(&[4, 5][..], false), (&[2, 3], false), (&[2], false), (&[2, 4], true)] {
        let mut network = three_and_two();
        let joint = network.change(1, &[1, 4, 5], &[]).expect("a leader takes changes");
        assert_eq!(network.raft(1).membership().outgoing, members(&[1, 2, 3], &[]).voters);
        network.settle_if(|message| message.to == ReplicaId(1) || reached.contains(&message.to.0));
        assert_eq!(network.raft(1).commit_index() >= joint, is_enough, "1 and {reached:?}");
    }
}

/// The same with the rule broken, which shows that the test above can fail.
#[test]
fn the_new_majority_alone_would_commit() {
    let mut network = three_and_two();
    network.tell(1, |raft, _| raft.set_mutation(Some(Mutation::JointByNewAlone)));
    let joint = network.change(1, &[1, 4, 5], &[]).expect("a leader takes changes");
    network.settle_if(|message| [1, 4, 5].contains(&message.to.0));
    assert!(network.raft(1).commit_index() >= joint);
}

/// Section 4.3, for elections.
#[test]
fn joint_consensus_needs_both_majorities_to_elect() {
    for (reached, is_enough) in [(&[5][..], false), (&[2, 3], false), (&[5, 2], false), (&[5, 2, 3], true)] {
        let mut network = three_and_two();
        network.change(1, &[1, 4, 5], &[]).expect("a leader takes changes");
        network.settle_if(|message| message.to != ReplicaId(1));
        network.crash(1);
        network.skip(300);
        network.campaign(4);
        network.settle_if(|message| message.to == ReplicaId(4) || reached.contains(&message.to.0));
        assert_eq!(network.raft(4).role() == Role::Leader, is_enough, "4 and {reached:?}");
    }
}

/// Section 4.3: once the joint configuration is committed, the leader proposes the new one, and the change is done
/// when that is committed.
#[test]
fn a_leader_leaves_a_joint_membership() {
    let mut network = three_and_two();
    network.change(1, &[1, 4, 5], &[]).expect("a leader takes changes");
    network.settle();
    network.run(60);
    for id in [1, 4, 5] {
        assert_eq!(network.raft(id).membership(), &members(&[1, 4, 5], &[]), "replica {id}");
    }
    network.part(&[2, 3], &[1, 4, 5]);
    let (index, _) = network.propose(1, "a").expect("a leader takes proposals");
    network.settle();
    assert_eq!(network.raft(1).commit_index(), index, "the old ones are not needed any more");
    assert!(network.raft(1).progress(ReplicaId(2)).is_none());
}

/// Section 4.3: a leader that dies during the change does not leave the cluster in it.
#[test]
fn the_next_leader_leaves_a_joint_membership() {
    let mut network = three_and_two();
    network.change(1, &[1, 4, 5], &[]).expect("a leader takes changes");
    network.settle_if(|message| message.to != ReplicaId(1));
    network.crash(1);
    network.lose_messages();
    network.run(3_000);
    let (leader, _) = network.leaders()[0];
    assert_eq!(network.raft(leader).membership(), &members(&[1, 4, 5], &[]));
    assert!([4, 5].contains(&leader), "one that is in the new membership leads");
}

/// Section 4.2.2: a leader that removes itself replicates the change without counting itself, and steps down when
/// it is committed.
#[test]
fn a_removed_leader_steps_down_when_that_is_committed() {
    let mut network = Network::new(3);
    network.elect(1);
    network.change(1, &[2, 3], &[]).expect("a leader takes changes");
    network.settle_if(|message| message.to != ReplicaId(3));
    assert_eq!(network.raft(1).role(), Role::Leader, "2 alone is no majority of 2 and 3");
    network.run(1_000);
    let (leader, _) = network.leaders()[0];
    assert!([2, 3].contains(&leader));
    assert_eq!(network.raft(leader).membership(), &members(&[2, 3], &[]));
    network.propose(leader, "a").expect("the new leader takes proposals");
}

/// Section 4.2.2: "a server accepts requests from a leader that is not part of the server's latest configuration",
/// and votes for such a candidate.
#[test]
fn strangers_are_served() {
    let mut network = Network::of(vec![start(2, &[1]), start(2, &[1]), start(2, &[1])]);
    network.arrives(9, 1, 3, Body::Vote { last_index: 5, last_term: 2, is_transfer: false });
    assert_eq!(network.raft(1).vote(), Some(ReplicaId(9)));
    let entries = vec![entry(2, 3)];
    network.arrives(9, 1, 3, Body::Append { prev_index: 1, prev_term: 1, commit: 1, entries });
    assert_eq!((network.log(1), network.raft(1).commit_index()), (vec![1, 3], 1));
}

/// Section 4.2.2: a server that does not know that it votes still gives its vote.
#[test]
fn a_replica_without_a_membership_votes() {
    let mut network = Network::new(1);
    network.join(2);
    network.arrives(1, 2, 1, Body::PreVote { last_index: 0, last_term: 0 });
    network.arrives(1, 2, 1, Body::Vote { last_index: 0, last_term: 0, is_transfer: false });
    assert_eq!(network.raft(2).vote(), Some(ReplicaId(1)));
    assert!(network.sent.iter().any(|message| message.body == Body::PreVoteReply { granted: true }));
}

/// Section 4.2.3: a removed server that does not know campaigns again and again, and nobody is disturbed.
#[test]
fn a_removed_server_disturbs_nobody() {
    let mut network = Network::new(3);
    network.elect(1);
    network.part(&[3], &[1, 2]);
    network.change(1, &[1, 2], &[]).expect("a leader takes changes");
    network.settle();
    network.run(100);
    network.heal();
    network.run(5_000);
    assert_eq!(network.leaders(), [(1, 1)]);
    assert_eq!(network.raft(3).membership(), &members(&[1, 2, 3], &[]), "nobody told it");
    assert_eq!(network.raft(3).term(), 1);
}

/// A new peer is asked where its log ends before anything is pipelined to it.
#[test]
fn a_new_peer_is_probed() {
    let mut network = Network::new(3);
    network.elect(1);
    network.change(1, &[1, 2, 3], &[4]).expect("a leader takes changes");
    let progress = network.raft(1).progress(ReplicaId(4)).expect("a peer");
    assert_eq!((progress.state(), progress.match_index()), (ProgressState::Probe, 0));
}

/// Memberships that make no sense are refused, and change nothing.
#[test]
fn impossible_memberships_are_refused() {
    let mut network = Network::new(3);
    network.elect(1);
    for (voters, learners) in [
        (&[][..], &[][..]),
        (&[], &[1, 2, 3]),
        (&[1, 1, 2], &[]),
        (&[1, 2], &[2]),
        (&[1, 2, 3], &[4, 4]),
        (&[3, 2, 1], &[]),
    ] {
        let result = network.change(1, voters, learners);
        assert_eq!(result, Err(ProposeError::InvalidMembership), "{voters:?} {learners:?}");
    }
    assert_eq!(network.raft(1).last_index(), 1);
}

/// Section 4.1: a membership is restored with the log, or with the snapshot.
#[test]
fn a_membership_survives_a_restart() {
    let mut network = three_and_two();
    network.run(60);
    network.crash(2);
    network.restart(2);
    assert_eq!(network.raft(2).membership(), &members(&[1, 2, 3], &[4, 5]));
    network.run(400);
    network.snapshot(2);
    network.crash(2);
    network.restart(2);
    assert_eq!(network.raft(2).membership(), &members(&[1, 2, 3], &[4, 5]));
    assert_eq!(network.entries(2), [], "it came from the snapshot");
}

/// Section 4.1: a restored log may hold several; the last one is in force, committed or not.
#[test]
fn the_last_membership_of_a_log_is_in_force() {
    let mut network = Network::of(vec![start(2, &[1]), start(2, &[1]), Start::default()]);
    let change = |index, membership: &duva_raft::Membership| Entry {
        kind: EntryKind::Membership,
        payload: membership.encode().into(),
        ..entry(index, 2)
    };
    let entries = vec![change(2, &members(&[1, 2], &[])), change(3, &members(&[1, 2], &[4]))];
    network.arrives(2, 1, 2, Body::Append { prev_index: 1, prev_term: 1, commit: 0, entries });
    assert_eq!(network.raft(1).membership(), &members(&[1, 2], &[4]));
    network.crash(1);
    network.restart(1);
    assert_eq!(network.raft(1).membership(), &members(&[1, 2], &[4]));
    // The next leader replaces the last one: the one before it is in force again.
    network.arrives(
        3,
        1,
        3,
        Body::Append { prev_index: 2, prev_term: 2, commit: 0, entries: vec![entry(3, 3)] },
    );
    assert_eq!(network.raft(1).membership(), &members(&[1, 2], &[]));
}
