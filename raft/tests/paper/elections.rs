//! Elections: paper, sections 5.2, 5.4.1 and 5.6; thesis, sections 3.8, 4.2.3, 6.2 and 9.6.

use std::collections::BTreeSet;

use duva_raft::{Body, Config, Message, Raft, ReadOutcome, ReplicaId, Restored, Role, SnapshotMeta};

use crate::network::{MS, Network, Start, entry, members, start};

/// Paper, section 5.2: a leader has the votes of a majority, so not without one.
#[test]
fn a_leader_needs_a_majority() {
    for (count, votes) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)] {
        // One vote less than is needed, besides its own; the others are cut off.
        for missing in 0..=1 {
            let mut network = Network::new(count);
            let reached = 1 + votes - missing.min(votes);
            let (one, other): (Vec<u64>, Vec<u64>) = (1..=count).partition(|&id| id <= reached);
            network.part(&one, &other);
            network.campaign(1);
            network.settle();
            let expected = missing == 0 || votes == 0;
            assert_eq!(network.raft(1).role() == Role::Leader, expected, "{reached} of {count}");
        }
    }
}

/// Paper, figure 3, election safety: "at most one leader can be elected in a given term". Two candidates of one
/// term, in every order in which three voters hear of them.
#[test]
fn a_term_has_one_leader() {
    for order in 0..8_u32 {
        let mut network = Network::new(5);
        let ask = Body::Vote { last_index: 0, last_term: 0, is_transfer: false };
        network.campaign(1);
        network.campaign(2);
        network.settle_if(|message| matches!(message.body, Body::PreVote { .. } | Body::PreVoteReply { .. }));
        for voter in 3..=5 {
            let (first, second) = if order & (1 << (voter - 3)) == 0 { (1, 2) } else { (2, 1) };
            network.arrives(first, voter, 1, ask.clone());
            network.arrives(second, voter, 1, ask.clone());
        }
        network.settle_if(|message| matches!(message.body, Body::VoteReply { .. }));
        assert_eq!(network.leaders().len(), 1, "two candidates share three votes: one of them has two");
    }
}

/// Paper, section 5.2: a candidate that sees a leader of its own term gives way.
#[test]
fn a_candidate_follows_a_leader_of_its_term() {
    let mut network = Network::new(3);
    network.campaign(1);
    network.settle_if(|message| message.to == ReplicaId(1) || matches!(message.body, Body::PreVote { .. }));
    assert_eq!((network.raft(1).role(), network.raft(1).term()), (Role::Candidate, 1));
    network.arrives(2, 1, 1, Body::Heartbeat { commit: 0, sent_ns: 0, read_round: 0 });
    assert_eq!((network.raft(1).role(), network.raft(1).leader()), (Role::Follower, Some(ReplicaId(2))));
    assert_eq!(network.raft(1).vote(), Some(ReplicaId(1)), "its vote of this term remains");
}

/// Three replicas that this one has led for a while.
fn led_by(id: u64) -> Network {
    let mut network = Network::new(3);
    network.elect(id);
    network.run(100);
    network
}

/// For so long these do not run, and they notice.
fn stand_still(network: &mut Network, ids: impl IntoIterator<Item = u64>, duration_ms: u64) {
    network.skip(duration_ms);
    for id in ids {
        network.tell(id, Raft::was_away);
    }
}

/// After a time in which no replica ran, nobody is given up for his silence, and no promise is longer than it was: a lease is over.
#[test]
fn replicas_that_were_away_wait_for_one_another_anew() {
    for notice in [true, false] {
        let mut network = led_by(1);
        let term = network.raft(1).term();
        if notice {
            stand_still(&mut network, 1..=3, 400);
            assert_eq!(network.read(1, 7), Ok(ReadOutcome::Pending));
        } else {
            network.skip(400);
        }
        network.run(1_000);
        let is_same = network.leaders().contains(&(1, term)) && network.raft(1).term() == term;
        assert_eq!(is_same, notice);
    }
}

/// Who was away, once or again and again, gives up who is gone all the same, and an election that was asked for does not wait.
#[test]
fn silence_is_excused_once() {
    // Again and again, there is less time in between than an election timeout.
    let cases = [(1, 1_000), (2, 100)].map(|times| [(times, &[1][..]), (times, &[2, 3])]);
    for ((pauses, run_ms), gone) in cases.into_iter().flatten() {
        let mut network = led_by(1);
        gone.iter().for_each(|&id| network.crash(id));
        for _ in 0..pauses {
            stand_still(&mut network, (1..=3).filter(|id| !gone.contains(id)), 600);
            network.run(run_ms);
        }
        let leaders = network.leaders();
        assert!(leaders.iter().all(|(leader, _)| !gone.contains(leader)), "{leaders:?}");
        assert_eq!(leaders.is_empty(), gone.len() > 1, "{leaders:?}");
    }

    let mut network = led_by(1);
    network.crash(1);
    network.campaign(2);
    stand_still(&mut network, [2], 400);
    network.run(1);
    assert_eq!(network.raft(2).role(), Role::Leader);
}

/// Paper, section 5.2: split votes are resolved by time, as timeouts are random.
#[test]
fn split_votes_end() {
    let mut network = Network::new(4);
    network.campaign(1);
    network.campaign(4);
    // Each gets the vote of one other.
    network.settle_if(|message| match message.body {
        Body::Vote { .. } => [(1, 2), (4, 3)].contains(&(message.from.0, message.to.0)),
        _ => true,
    });
    assert_eq!(network.leaders(), [], "nobody has three votes of four");
    network.run(2_000);
    assert_eq!(network.leaders().len(), 1);
}

/// Paper, section 5.2: election timeouts are random, from a fixed interval, and drawn anew.
#[test]
fn election_timeouts_are_spread_over_their_interval() {
    let mut timeouts = BTreeSet::new();
    for seed in 0..100 {
        let membership = members(&[1, 2, 3], &[]);
        let snapshot = SnapshotMeta { membership, ..SnapshotMeta::default() };
        let restored = Restored { snapshot, ..Restored::default() };
        let raft = Raft::new(Config::new(ReplicaId(1)), restored, 0, seed);
        let timeout_ns = raft.next_deadline_ns();
        assert!((150 * MS..=300 * MS).contains(&timeout_ns), "{timeout_ns}");
        timeouts.insert(timeout_ns / (15 * MS));
    }
    assert!(timeouts.len() >= 10, "the tenths of the interval are all met: {timeouts:?}");
}

/// Paper, section 5.6: broadcast time << election timeout. A leader that is there keeps everyone else quiet.
#[test]
fn heartbeats_prevent_elections() {
    let mut network = Network::new(5);
    network.elect(3);
    network.sent.clear();
    network.run(10_000);
    assert_eq!(network.leaders(), [(3, 1)]);
    let asks = |message: &&Message| matches!(message.body, Body::PreVote { .. } | Body::Vote { .. });
    assert_eq!(network.sent.iter().filter(asks).count(), 0);
}

/// Paper, section 5.4.1: the voter denies its vote if its own log is more up-to-date: later last term, or the same
/// and longer.
#[test]
fn a_vote_goes_to_a_log_that_is_not_behind() {
    for (candidate, voter, granted) in [
        (&[][..], &[][..], true),
        (&[1], &[], true),
        (&[], &[1], false),
        (&[1], &[1], true),
        (&[1, 1], &[1], true),
        (&[1], &[1, 1], false),
        (&[1, 2], &[1, 1, 1, 1], true),
        (&[1, 1, 1, 1], &[1, 2], false),
        (&[1, 1, 3], &[1, 2, 2, 2], true),
        (&[2, 2], &[1, 3], false),
    ] {
        let (last_index, last_term) = (candidate.len() as u64, candidate.last().copied().unwrap_or(0));
        for is_pre_vote in [true, false] {
            let mut network = Network::of(vec![Start::default(), start(4, voter), Start::default()]);
            let ask = match is_pre_vote {
                true => Body::PreVote { last_index, last_term },
                false => Body::Vote { last_index, last_term, is_transfer: false },
            };
            network.arrives(1, 2, 5, ask);
            let answers = network.sent.iter().filter(|message| message.to == ReplicaId(1));
            let yes = answers.filter(|message| {
                matches!(
                    message.body,
                    Body::PreVoteReply { granted: true } | Body::VoteReply { granted: true }
                )
            });
            assert_eq!(yes.count() == 1, granted, "{candidate:?} asks {voter:?}, pre-vote: {is_pre_vote}");
        }
    }
}

/// Paper, section 5.4: a candidate that lacks a committed entry is not elected, whoever it asks first.
#[test]
fn a_leader_has_every_committed_entry() {
    let mut network = Network::new(5);
    network.elect(1);
    network.part(&[1, 2, 3], &[4, 5]);
    network.propose(1, "a").expect("a leader takes proposals");
    network.settle();
    let committed = network.raft(1).commit_index();
    network.crash(1);
    network.heal();
    network.skip(300);
    for behind in [4, 5] {
        network.campaign(behind);
        network.settle();
        assert_ne!(network.raft(behind).role(), Role::Leader);
    }
    network.run(3_000);
    let (leader, _) = network.leaders()[0];
    assert!([2, 3].contains(&leader));
    assert!(network.entries(leader).iter().any(|entry| &*entry.payload == b"a" && entry.index == committed));
}

/// Thesis, section 4.2.3: a server that hears from a leader within the minimum election timeout neither votes nor
/// takes the term of one who asks; neither does a leader that holds its quorum.
#[test]
fn disruptive_servers_are_ignored() {
    let mut network = Network::new(3);
    network.elect(1);
    network.run(500);
    network.sent.clear();
    for voter in [1, 2] {
        for ask in [
            Body::Vote { last_index: 99, last_term: 99, is_transfer: false },
            Body::PreVote { last_index: 99, last_term: 99 },
        ] {
            network.arrives(3, voter, 100, ask);
            assert_eq!(network.raft(voter).term(), 1);
        }
    }
    assert_eq!(network.sent, [], "they do not even answer");
    assert_eq!(network.raft(1).role(), Role::Leader);
}

/// Thesis, section 4.2.3, the exception of section 3.10: who was told by the leader to hold an election is heard.
#[test]
fn a_request_of_a_transfer_is_not_ignored() {
    let mut network = Network::new(3);
    network.elect(1);
    let ask = Body::Vote { last_index: 1, last_term: 1, is_transfer: true };
    network.arrives(3, 2, 2, ask);
    assert_eq!((network.raft(2).term(), network.raft(2).vote()), (2, Some(ReplicaId(3))));
}

/// Thesis, section 6.2: "a leader steps down if an election timeout elapses without a successful round of
/// heartbeats to a majority of its cluster".
#[test]
fn a_leader_without_a_majority_steps_down() {
    let mut network = Network::new(5);
    network.elect(1);
    network.part(&[1, 2], &[3, 4, 5]);
    network.run(600);
    assert_ne!(network.raft(1).role(), Role::Leader);
    assert_eq!(network.leaders().len(), 1, "the others have a leader of their own");
    assert!(network.propose(1, "a").is_err());
}

/// Thesis, section 9.6: a server that cannot win does not raise its term, and so disturbs nobody when it is back.
#[test]
fn pre_vote_keeps_terms_of_a_cut_off_server() {
    let mut network = Network::new(3);
    network.elect(1);
    network.part(&[3], &[1, 2]);
    network.run(5_000);
    assert_eq!((network.raft(3).role(), network.raft(3).term()), (Role::PreCandidate, 1));
    network.heal();
    network.run(200);
    assert_eq!(network.leaders(), [(1, 1)]);
    assert_eq!(network.raft(3).leader(), Some(ReplicaId(1)));
}

/// Thesis, section 9.6: pre-votes bind nobody; any number of candidates may have them at once.
#[test]
fn a_pre_vote_is_given_to_all_who_ask() {
    let mut network = Network::new(5);
    for candidate in [1, 2, 3] {
        network.arrives(candidate, 4, 1, Body::PreVote { last_index: 0, last_term: 0 });
    }
    let granted = network.sent.iter().filter(|message| message.body == Body::PreVoteReply { granted: true });
    assert_eq!(granted.count(), 3);
    assert_eq!((network.raft(4).term(), network.raft(4).vote()), (0, None));
}

/// Thesis, section 6.4.1, what leases need: a restarted server forgot whom it heard from, so it waits as long as
/// any lease may last before it votes or campaigns.
#[test]
fn a_restarted_server_keeps_quiet_for_an_election_timeout() {
    let mut network = Network::new(3);
    network.elect(1);
    network.crash(2);
    network.restart(2);
    network.sent.clear();
    network.skip(299);
    for ask in [
        Body::PreVote { last_index: 9, last_term: 1 },
        Body::Vote { last_index: 9, last_term: 1, is_transfer: false },
        Body::Vote { last_index: 9, last_term: 1, is_transfer: true },
    ] {
        network.arrives(3, 2, 2, ask);
    }
    network.campaign(2);
    let votes = network.sent.iter().filter(|message| {
        matches!(
            message.body,
            Body::PreVote { .. }
                | Body::Vote { .. }
                | Body::PreVoteReply { granted: true }
                | Body::VoteReply { granted: true }
        )
    });
    assert_eq!(votes.count(), 0);
    network.skip(1);
    network.arrives(3, 2, 9, Body::Vote { last_index: 9, last_term: 1, is_transfer: false });
    assert_eq!(network.raft(2).vote(), Some(ReplicaId(3)));
}

/// The exception: nobody's lease can be broken by the only voter, nor by the first start of a group.
#[test]
fn the_only_voter_leads_at_once() {
    let mut network = Network::new(1);
    network.elect(1);
    network.crash(1);
    network.restart(1);
    network.elect(1);
    assert_eq!(network.raft(1).term(), 2);
}

/// A log that is restored is what a candidate shows.
#[test]
fn a_candidate_shows_its_last_entry() {
    let mut network = Network::of(vec![start(3, &[1, 3]), start(3, &[1]), start(3, &[1])]);
    assert_eq!(network.entries(1), [entry(1, 1), entry(2, 3)]);
    network.elect(1);
    let shows = |body: &Body| match *body {
        Body::PreVote { last_index, last_term } => Some((last_index, last_term)),
        Body::Vote { last_index, last_term, .. } => Some((last_index, last_term)),
        _ => None,
    };
    let shown: Vec<_> = network.sent.iter().filter_map(|message| shows(&message.body)).collect();
    assert_eq!(shown, [(2, 3); 4]);
}
