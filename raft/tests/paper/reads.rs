//! Reads that see everything acknowledged: paper, section 8; thesis, sections 6.4 and 6.4.1.

use duva_raft::{Body, ProposeError, ReadMode, ReadOutcome, ReplicaId, Role, mutation::Mutation};

use crate::network::{MS, Network, Start};

/// Voters that read by rounds of heartbeats.
fn by_rounds(count: usize) -> Network {
    Network::configured(vec![Start::default(); count], |config| config.read_mode = ReadMode::ReadIndex)
}

fn rounds(network: &Network) -> usize {
    let round_of = |body: &Body| match *body {
        Body::Heartbeat { read_round, .. } => Some(read_round),
        _ => None,
    };
    let mut seen: Vec<u64> = network
        .sent
        .iter()
        .filter_map(|message| round_of(&message.body))
        .filter(|&round| round > 0)
        .collect();
    seen.dedup();
    seen.len()
}

/// Thesis, section 6.4, step 1 (paper, section 8): a leader does not know what is committed before an entry of its
/// own term is.
#[test]
fn nothing_is_read_before_an_entry_of_the_term_is_committed() {
    for mode in [ReadMode::Lease, ReadMode::ReadIndex] {
        let mut network = Network::configured(vec![Start::default(); 3], |config| config.read_mode = mode);
        network.campaign(1);
        network.settle_if(|message| !matches!(message.body, Body::Append { .. }));
        assert_eq!(network.raft(1).role(), Role::Leader);
        assert_eq!(network.read(1, 7), Ok(ReadOutcome::Pending));
        network.settle_if(|message| !matches!(message.body, Body::Append { .. }));
        assert_eq!(network.reads(1), []);
        network.run(60);
        assert_eq!(network.reads(1), [(7, 1)]);
    }
}

/// Steps 2 and 3: the read's index is what was committed when it began, and a round of heartbeats that began later
/// confirms that nobody else led.
#[test]
fn a_read_waits_for_a_majority_to_confirm_leadership() {
    let mut network = by_rounds(5);
    network.elect(1);
    let (index, _) = network.propose(1, "a").expect("a leader takes proposals");
    network.settle();
    assert_eq!(network.read(1, 7), Ok(ReadOutcome::Pending));
    network.settle_if(|message| message.to.0 <= 2);
    assert_eq!(network.reads(1), [], "two of five");
    network.part(&[4, 5], &[1]);
    network.run(60);
    assert_eq!(network.reads(1), [(7, index)], "three of five");
}

/// The same with the rule broken, which shows that the test above can fail.
#[test]
fn a_read_confirmed_by_one_replica_would_pass() {
    let mut network = by_rounds(5);
    network.tell(1, |raft, _| raft.set_mutation(Some(Mutation::ReadByOne)));
    network.elect(1);
    assert_eq!(network.read(1, 7), Ok(ReadOutcome::Pending));
    network.settle_if(|message| message.to.0 <= 2);
    assert_eq!(network.reads(1).len(), 1);
}

/// "The leader can ... use a single round of heartbeats for any number of read-only queries that it has
/// accumulated."
#[test]
fn one_round_serves_all_reads_that_wait() {
    let mut network = by_rounds(3);
    network.elect(1);
    network.sent.clear();
    network.tell(1, |raft, now_ns| {
        for context in 0..100 {
            assert_eq!(raft.read(now_ns, context), Ok(ReadOutcome::Pending));
        }
    });
    assert_eq!(rounds(&network), 1);
    network.settle();
    assert_eq!(network.reads(1).len(), 100);
}

/// A round that began before a read says nothing about the time since.
#[test]
fn an_earlier_round_does_not_confirm_a_later_read() {
    let mut network = by_rounds(3);
    network.elect(1);
    network.read(1, 1).expect("the leader reads");
    // The acknowledgements of the first round are made, then a second read begins.
    network.settle_if(|message| matches!(message.body, Body::Heartbeat { .. }) && message.to != ReplicaId(1));
    let acknowledged: Vec<_> =
        network.sent.iter().filter(|message| message.to == ReplicaId(1)).cloned().collect();
    network.read(1, 2).expect("the leader reads");
    network.lose_messages();
    for message in acknowledged {
        network.arrives(message.from.0, 1, message.term, message.body);
    }
    assert_eq!(network.reads(1).iter().map(|read| read.0).collect::<Vec<_>>(), [1]);
}

/// Thesis, section 6.4: "a leader ... may have been deposed" and must not answer from what it has.
#[test]
fn a_deposed_leader_reads_nothing() {
    for mode in [ReadMode::Lease, ReadMode::ReadIndex] {
        let mut network = Network::configured(vec![Start::default(); 3], |config| config.read_mode = mode);
        network.elect(1);
        network.run(100);
        network.part(&[1], &[2, 3]);
        // The old leader's clock is read only when it is asked: it sleeps through the other's election.
        network.crash(1);
        network.run(1_000);
        let (leader, _) = network.leaders()[0];
        network.propose(leader, "new").expect("a leader takes proposals");
        network.settle();
        network.wake(1);
        assert_eq!(network.raft(1).role(), Role::Leader, "it does not know");
        let outcome = network.read(1, 7);
        assert_eq!(outcome, Ok(ReadOutcome::Pending), "its lease is over, too");
        network.heal();
        network.settle();
        network.run(500);
        assert_eq!((network.reads(1), network.failed_reads(1)), (&[][..], &[7][..]));
    }
}

/// Section 6.4.1: with a lease a read needs no round; it runs from the sending of what a majority acknowledged.
#[test]
fn a_lease_runs_from_the_heartbeats_sending() {
    let mut network = Network::new(3);
    network.elect(1);
    network.run(60);
    network.part(&[3], &[1]);
    let before_ns = network.raft(1).lease_until_ns().expect("a lease");

    // The next heartbeat leaves at 100 ms, and its acknowledgement takes 30 ms.
    network.skip(40);
    network.tell(1, |raft, now_ns| raft.tick(now_ns));
    let sent_ns = network.now_ns;
    network.settle_if(|message| message.to == ReplicaId(2));
    assert_eq!(network.raft(1).lease_until_ns(), Some(before_ns));
    network.skip(30);
    network.arrives(2, 1, 1, Body::HeartbeatReply { sent_ns, read_round: 0 });
    assert_eq!(network.raft(1).lease_until_ns(), Some(sent_ns + 120 * MS));

    network.now_ns = sent_ns + 120 * MS - 1;
    assert_eq!(network.read(1, 1), Ok(ReadOutcome::At(1)));
    network.now_ns += 1;
    assert_eq!(network.read(1, 2), Ok(ReadOutcome::Pending));
}

/// Section 6.4.1: a lease is over before anyone else can be elected, wherever the cut falls.
#[test]
fn a_lease_ends_before_another_leader_is_elected() {
    for cut_ms in 60..120 {
        let mut network = Network::new(3);
        network.elect(1);
        network.run(cut_ms);
        network.part(&[1], &[2, 3]);
        let until_ns = network.raft(1).lease_until_ns().expect("a lease");
        while network.leaders().iter().all(|&(id, _)| id == 1) {
            network.run(1);
        }
        assert!(until_ns < network.now_ns, "cut after {cut_ms} ms");
    }
}

/// A follower's acknowledgement of another term extends no lease and confirms no read.
#[test]
fn an_acknowledgement_of_another_term_confirms_nothing() {
    let mut network = by_rounds(3);
    network.elect(1);
    network.skip(300);
    network.elect(2);
    network.skip(300);
    network.elect(1);
    let term = network.raft(1).term();
    network.read(1, 7).expect("the leader reads");
    network.lose_messages();
    let now_ns = network.now_ns;
    network.arrives(3, 1, term - 1, Body::HeartbeatReply { sent_ns: now_ns, read_round: 99 });
    assert_eq!(network.reads(1), []);
}

/// Thesis, section 6.4: a follower asks the leader for an index and reads itself, once it has applied that.
#[test]
fn a_follower_reads_at_the_leaders_index() {
    let mut network = by_rounds(3);
    network.elect(1);
    let (index, _) = network.propose(1, "a").expect("a leader takes proposals");
    network.settle();
    assert_eq!(network.read(3, 7), Ok(ReadOutcome::Pending));
    network.settle();
    assert_eq!(network.reads(3), [(7, index)]);
    assert_eq!(network.reads(1), [], "it was not the leader's own");
}

/// What was accepted is answered or failed: a follower's read does not wait for an answer that was lost.
#[test]
fn a_followers_read_that_is_not_answered_fails() {
    let mut network = Network::new(3);
    network.elect(1);
    assert_eq!(network.read(3, 7), Ok(ReadOutcome::Pending));
    network.lose_messages();
    network.run(600);
    assert_eq!((network.reads(3), network.failed_reads(3)), (&[][..], &[7][..]));
}

/// What was accepted is answered: a read whose round no voter has answered passes when the leader is the only
/// voter left.
#[test]
fn a_read_passes_when_the_others_are_removed() {
    let mut network = by_rounds(2);
    network.elect(1);
    network.change(1, &[1], &[]).expect("a leader takes changes");
    network.read(1, 7).expect("the leader reads");
    network.settle_if(|message| !matches!(message.body, Body::Heartbeat { .. }));
    assert_eq!(network.raft(1).membership().voters, [ReplicaId(1)]);
    assert_eq!(network.reads(1).iter().map(|read| read.0).collect::<Vec<_>>(), [7]);
}

/// Without a leader there is nobody to ask.
#[test]
fn a_read_without_a_leader_is_refused() {
    let mut network = Network::new(3);
    assert_eq!(network.read(1, 7), Err(ProposeError::NotLeader { leader: None }));
}

/// The only voter confirms its own leadership.
#[test]
fn the_only_voter_reads_at_once() {
    for mode in [ReadMode::Lease, ReadMode::ReadIndex] {
        let mut network = Network::configured(vec![Start::default()], |config| config.read_mode = mode);
        network.elect(1);
        assert_eq!(network.read(1, 7), Ok(ReadOutcome::At(1)), "{mode:?}");
    }
}
