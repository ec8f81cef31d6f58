//! What is committed, and when: paper, sections 5.3, 5.4.2 and figure 8; thesis, section 10.2.1.

use duva_raft::{Body, Durability, ReplicaId, Role, mutation::Mutation};

use crate::network::{Network, Start, entry, start};

/// Paper, section 5.3: an entry is committed when it is on a majority, and not before.
#[test]
fn a_majority_commits() {
    for (count, majority) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)] {
        for reached in 1..=count {
            let mut network = Network::new(count);
            network.elect(1);
            let (index, _) = network.propose(1, "a").expect("a leader takes proposals");
            network.settle_if(|message| message.to.0 <= reached);
            let is_committed = network.raft(1).commit_index() == index;
            assert_eq!(is_committed, reached >= majority, "{reached} of {count}");
        }
    }
}

/// The servers of figure 8 between (b) and (c): 1 and 2 have entry 2 of term 2, 5 has another of term 3, and all
/// know of term 3.
fn figure_8() -> Network {
    Network::of(vec![
        start(3, &[1, 2]),
        start(3, &[1, 2]),
        start(3, &[1]),
        start(3, &[1]),
        Start { vote: Some(5), ..start(3, &[1, 3]) },
    ])
}

/// Figure 8 (c): server 1 leads in term 4 and brings entry 2 to server 3, and nothing of its own term to anyone.
fn figure_8_c(network: &mut Network) {
    network.campaign(1);
    network.settle_if(|message| message.to.0 != 5 && !matches!(message.body, Body::Append { .. }));
    assert_eq!((network.raft(1).role(), network.raft(1).term()), (Role::Leader, 4));
    let append = |prev_index, prev_term, entries| Body::Append { prev_index, prev_term, commit: 0, entries };
    network.arrives(1, 2, 4, append(2, 2, vec![]));
    network.arrives(1, 3, 4, append(1, 1, vec![entry(2, 2)]));
    network.settle_if(|message| matches!(message.body, Body::AppendReply { .. }));
    assert_eq!((network.log(1), network.log(2), network.log(3)), (vec![1, 2, 4], vec![1, 2], vec![1, 2]));
}

/// Paper, section 5.4.2, figure 8 (c) and (d): an entry of an earlier term on a majority is not committed, and may
/// still be replaced.
#[test]
fn figure_8_an_entry_of_an_earlier_term_is_not_committed_by_counting() {
    let mut network = figure_8();
    figure_8_c(&mut network);
    assert_eq!(network.raft(1).commit_index(), 0, "three of five have entry 2, of term 2");

    // (d) Server 5 is elected by 2, 3 and 4, and replaces it.
    network.crash(1);
    network.lose_messages();
    network.skip(300);
    network.campaign(5);
    network.settle();
    network.campaign(5);
    network.settle();
    assert_eq!(network.leaders(), [(5, 5)]);
    for id in 2..=5 {
        assert_eq!(network.log(id), [1, 3, 5]);
    }
}

/// The same with the rule broken, which shows that the test above can fail.
#[test]
fn figure_8_counting_an_earlier_term_would_commit_what_is_replaced() {
    let mut network = figure_8();
    network.tell(1, |raft, _| raft.set_mutation(Some(Mutation::CommitEarlierTerm)));
    figure_8_c(&mut network);
    assert_eq!(network.raft(1).commit_index(), 2);
}

/// Figure 8 (e): with an entry of the leader's own term on a majority, everything before it is committed too, and
/// server 5 cannot be elected.
#[test]
fn figure_8_an_entry_of_the_own_term_commits_what_is_before_it() {
    let mut network = figure_8();
    network.part(&[4, 5], &[1, 2, 3]);
    network.campaign(1);
    network.settle();
    assert_eq!((network.log(3), network.raft(1).commit_index()), (vec![1, 2, 4], 3));
    network.crash(1);
    network.heal();
    for _ in 0..3 {
        network.skip(300);
        network.campaign(5);
        network.settle();
        assert_ne!(network.raft(5).role(), Role::Leader);
    }
}

/// Thesis, section 10.2.1: the leader may write its own disk in parallel, and an entry may be committed before the
/// leader has it durably: its copy is one of the majority's, not a condition.
#[test]
fn a_leaders_disk_is_one_vote() {
    let mut network = Network::new(3);
    network.elect(1);
    network.stall(1, true);
    let (index, _) = network.propose(1, "a").expect("a leader takes proposals");
    network.settle();
    assert_eq!(network.raft(1).commit_index(), index, "2 and 3 have it");
    assert_eq!(network.applied(1).last().map(|entry| entry.index), Some(index));

    // With one follower, the leader's own copy is needed.
    network.part(&[3], &[1, 2]);
    let (second, _) = network.propose(1, "b").expect("a leader takes proposals");
    network.settle();
    assert_eq!(network.raft(1).commit_index(), index);
    network.stall(1, false);
    assert_eq!(network.raft(1).commit_index(), second);
}

/// Paper, figure 2: a follower's answer says that the entries are durable.
#[test]
fn a_follower_acknowledges_what_is_durable() {
    let mut network = Network::new(3);
    network.elect(1);
    network.part(&[3], &[1, 2]);
    network.stall(2, true);
    let (index, _) = network.propose(1, "a").expect("a leader takes proposals");
    network.settle();
    assert_eq!(network.raft(2).last_index(), index, "it has it");
    assert!(network.raft(1).commit_index() < index, "and has not said so");
    network.stall(2, false);
    network.settle();
    assert_eq!(network.raft(1).commit_index(), index);
}

/// In memory mode, what is written counts, terms and votes excepted.
#[test]
fn memory_durability_counts_what_is_written() {
    let mut network = Network::configured(vec![Start::default(); 3], |config| {
        config.durability = Durability::Memory;
    });
    network.elect(1);
    network.part(&[3], &[1, 2]);
    network.stall(2, true);
    let (index, _) = network.propose(1, "a").expect("a leader takes proposals");
    network.settle();
    assert!(network.raft(1).commit_index() < index);
    network.write(2);
    network.settle();
    assert_eq!(network.raft(1).commit_index(), index);

    // A vote is not given for that.
    network.skip(300);
    network.sent.clear();
    network.arrives(3, 2, 9, Body::Vote { last_index: 9, last_term: 1, is_transfer: false });
    network.write(2);
    assert_eq!(network.sent, []);
    network.stall(2, false);
    assert!(network.sent.iter().any(|message| message.to == ReplicaId(3)));
}

/// Paper, figure 2, follower: "If leaderCommit > commitIndex, set commitIndex = min(leaderCommit, index of last
/// new entry)". What lies behind the last new entry need not agree with the leader.
#[test]
fn a_follower_commits_no_more_than_agrees() {
    let mut network = Network::of(vec![start(4, &[1, 1, 1, 1]), start(4, &[]), start(4, &[])]);
    network.arrives(
        2,
        1,
        4,
        Body::Append { prev_index: 1, prev_term: 1, commit: 4, entries: vec![entry(2, 1)] },
    );
    assert_eq!(network.raft(1).commit_index(), 2);
    assert_eq!(network.raft(1).last_index(), 4, "nothing contradicts the rest");
}

/// Paper, figure 3, state machine safety: a committed entry is never replaced. Who tries breaks an invariant, and
/// the replica stops rather than go on.
#[test]
#[should_panic(expected = "committed")]
fn replacing_a_committed_entry_stops_the_replica() {
    let mut network = Network::new(3);
    network.elect(1);
    network.propose(1, "a").expect("a leader takes proposals");
    network.settle();
    network.run(60);
    assert_eq!(network.raft(2).commit_index(), 2);
    network.arrives(
        3,
        2,
        7,
        Body::Append { prev_index: 1, prev_term: 1, commit: 0, entries: vec![entry(2, 6)] },
    );
}
