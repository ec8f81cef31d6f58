//! Leadership transfer: thesis, section 3.10.

use duva_raft::{Body, ProposeError, ReplicaId, Role};

use crate::network::Network;

fn transfer(network: &mut Network, from: u64, to: u64) -> Result<(), ProposeError> {
    network.tell(from, |raft, now_ns| raft.transfer_leadership(now_ns, ReplicaId(to)))
}

/// Steps 1 to 3: no more proposals, the target's log is brought up to date, and it holds an election at once.
#[test]
fn leadership_goes_to_the_target() {
    let mut network = Network::new(3);
    network.elect(1);
    network.run(100);
    network.sent.clear();
    transfer(&mut network, 1, 3).expect("3 is a voter");
    assert_eq!(network.propose(1, "a"), Err(ProposeError::Transferring { to: ReplicaId(3) }));
    network.settle();
    assert_eq!(network.leaders(), [(3, 2)]);
    assert_eq!(network.raft(1).leader(), Some(ReplicaId(3)));
    assert!(!network.sent.iter().any(|message| matches!(message.body, Body::PreVote { .. })), "at once");
    network.propose(3, "a").expect("the new leader takes proposals");
}

/// Step 2: a target that is behind is told only when it has everything, as it could not win before.
#[test]
fn the_target_is_caught_up_first() {
    let mut network = Network::new(3);
    network.elect(1);
    network.part(&[3], &[1, 2]);
    network.propose(1, "a").expect("a leader takes proposals");
    network.settle();
    network.sent.clear();
    transfer(&mut network, 1, 3).expect("3 is a voter");
    network.settle();
    let told = |network: &Network| network.sent.iter().any(|message| message.body == Body::TimeoutNow);
    assert!(!told(&network), "it lacks an entry");
    network.heal();
    network.run(100);
    assert!(told(&network));
    assert_eq!(network.leaders(), [(3, 2)]);
    assert_eq!(network.applied(3).len(), 3);
}

/// "If leadership transfer does not complete after about an election timeout, the prior leader aborts the transfer
/// and resumes accepting client requests."
#[test]
fn a_transfer_that_fails_is_given_up() {
    let mut network = Network::new(3);
    network.elect(1);
    network.part(&[3], &[1, 2]);
    transfer(&mut network, 1, 3).expect("3 is a voter");
    network.run(290);
    assert!(network.propose(1, "a").is_err());
    network.run(20);
    network.propose(1, "b").expect("the transfer was given up");
    network.settle();
    assert_eq!(network.raft(1).commit_index(), 2);
}

/// The target may be told, and be heard only later: meanwhile the old leader must not read by a lease that the
/// election does not wait for (section 6.4.1), nor for the rest of its term.
#[test]
fn a_transfer_ends_the_lease() {
    let mut network = Network::new(3);
    network.elect(1);
    network.run(100);
    assert!(network.raft(1).lease_until_ns() > Some(network.now_ns));
    network.part(&[3], &[1, 2]);
    transfer(&mut network, 1, 3).expect("3 is a voter");
    network.run(1_000);
    assert_eq!((network.raft(1).role(), network.raft(1).term()), (Role::Leader, 1));
    assert!(network.raft(1).lease_until_ns().is_none_or(|until_ns| until_ns <= network.now_ns));
}

/// Only a voter may lead, and only the leader may hand over.
#[test]
fn a_transfer_needs_a_leader_and_a_voter() {
    let mut network = Network::new(3);
    network.elect(1);
    network.settle();
    network.run(60);
    assert_eq!(transfer(&mut network, 1, 9), Err(ProposeError::NotVoter));
    assert_eq!(transfer(&mut network, 2, 3), Err(ProposeError::NotLeader { leader: Some(ReplicaId(1)) }));
}

/// Being told counts in the leader's term only: a message of an earlier term holds no election.
#[test]
fn a_late_order_to_hold_an_election_is_ignored() {
    let mut network = Network::new(3);
    network.elect(1);
    network.part(&[1], &[2, 3]);
    network.run(1_000);
    let (leader, term) = network.leaders()[0];
    let follower = 5 - leader;
    network.arrives(1, follower, 1, Body::TimeoutNow);
    assert_eq!((network.raft(follower).role(), network.raft(follower).term()), (Role::Follower, term));
}
