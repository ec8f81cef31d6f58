//! Terms: paper, section 5.1 and figure 2 (rules for all servers); thesis, section 3.8 (what is persisted).

use duva_raft::{Body, HardState, ReplicaId, Role};

use crate::network::{Network, start};

/// Every message that carries a leader's or a candidate's business.
fn messages() -> Vec<Body> {
    vec![
        Body::Vote { last_index: 0, last_term: 0, is_transfer: true },
        Body::VoteReply { granted: false },
        Body::Append { prev_index: 0, prev_term: 0, commit: 0, entries: Vec::new() },
        Body::AppendReply { match_index: 0 },
        Body::AppendReject { prev_index: 1, hint_index: 0, hint_term: 0 },
        Body::Heartbeat { commit: 0, sent_ns: 0, read_round: 0 },
        Body::HeartbeatReply { sent_ns: 0, read_round: 0 },
        Body::PreVoteReply { granted: false },
        Body::Stale,
    ]
}

/// Paper, figure 2: "If RPC request or response contains term T > currentTerm: set currentTerm = T, convert to
/// follower."
#[test]
fn a_higher_term_in_any_message_makes_a_follower_of_a_leader() {
    for body in messages() {
        let mut network = Network::new(3);
        network.elect(1);
        network.arrives(2, 1, 5, body.clone());
        assert_eq!(network.raft(1).role(), Role::Follower, "{body:?}");
        assert_eq!(network.raft(1).term(), 5, "{body:?}");
    }
}

/// The same for a candidate.
#[test]
fn a_higher_term_in_any_message_makes_a_follower_of_a_candidate() {
    for body in messages() {
        let mut network = Network::new(3);
        network.campaign(1);
        network
            .settle_if(|message| message.to == ReplicaId(1) || matches!(message.body, Body::PreVote { .. }));
        assert_eq!(network.raft(1).role(), Role::Candidate);
        network.arrives(2, 1, 5, body.clone());
        assert_eq!(network.raft(1).role(), Role::Follower, "{body:?}");
        assert_eq!(network.raft(1).term(), 5, "{body:?}");
    }
}

/// Paper, section 5.1: "If a server receives a request with a stale term number, it rejects the request." A leader
/// learns from the answer that there is a later term.
#[test]
fn a_leader_of_an_earlier_term_is_told() {
    for body in [
        Body::Append { prev_index: 0, prev_term: 0, commit: 0, entries: Vec::new() },
        Body::Heartbeat { commit: 0, sent_ns: 0, read_round: 0 },
    ] {
        let mut network = Network::of(vec![start(5, &[1, 1]), start(5, &[1, 1]), start(5, &[1, 1])]);
        network.arrives(2, 1, 4, body);
        let answer = network.sent.pop().expect("an answer");
        assert_eq!((answer.to, answer.term, answer.body), (ReplicaId(2), 5, Body::Stale));
        assert_eq!(network.raft(1).leader(), None, "no leader of an earlier term is followed");
    }
}

/// Answers of an earlier term say nothing about this one (paper, section 5.1). Term confusion: a vote of the last
/// term must not elect in this one.
#[test]
fn a_vote_of_an_earlier_term_does_not_count() {
    let mut network = Network::of(vec![start(5, &[]), start(5, &[]), start(5, &[])]);
    network.campaign(1);
    network.settle_if(|message| message.to == ReplicaId(1) || matches!(message.body, Body::PreVote { .. }));
    assert_eq!((network.raft(1).role(), network.raft(1).term()), (Role::Candidate, 6));
    network.arrives(2, 1, 5, Body::VoteReply { granted: true });
    network.arrives(3, 1, 5, Body::VoteReply { granted: true });
    assert_eq!(network.raft(1).role(), Role::Candidate);
    network.arrives(2, 1, 6, Body::VoteReply { granted: true });
    assert_eq!(network.raft(1).role(), Role::Leader);
}

/// Term confusion: an acknowledgement of an earlier term may speak of entries that were replaced since.
#[test]
fn an_acknowledgement_of_an_earlier_term_commits_nothing() {
    let mut network = Network::of(vec![start(5, &[5]), start(5, &[5]), start(5, &[5])]);
    network.elect(1);
    network.propose(1, "a").expect("a leader takes proposals");
    network.lose_messages();
    assert_eq!(network.raft(1).last_index(), 3);
    network.arrives(2, 1, 5, Body::AppendReply { match_index: 3 });
    assert_eq!(network.raft(1).commit_index(), 2);
    network.arrives(2, 1, 6, Body::AppendReply { match_index: 3 });
    assert_eq!(network.raft(1).commit_index(), 3);
}

/// Paper, figure 2: current term and vote are updated on stable storage before responding.
#[test]
fn a_vote_is_durable_before_it_is_sent() {
    let mut network = Network::new(3);
    network.stall(2, true);
    network.arrives(1, 2, 1, Body::Vote { last_index: 0, last_term: 0, is_transfer: false });
    assert_eq!(network.sent, [], "nothing is durable yet");
    assert_eq!(network.disk(2), HardState::default());
    network.stall(2, false);
    assert_eq!(network.disk(2), HardState { term: 1, vote: Some(ReplicaId(1)) });
    assert!(matches!(network.sent[..], [ref vote] if vote.body == Body::VoteReply { granted: true }));
}

/// Paper, figure 2, the candidate's side: its own vote, too.
#[test]
fn a_candidates_own_vote_is_durable_before_it_asks_for_others() {
    let mut network = Network::new(3);
    network.stall(1, true);
    network.campaign(1);
    network.settle();
    let asks = |network: &Network| {
        network.sent.iter().filter(|message| matches!(message.body, Body::Vote { .. })).count()
    };
    assert_eq!((network.raft(1).role(), asks(&network)), (Role::Candidate, 0));
    network.stall(1, false);
    assert_eq!(asks(&network), 2);
    network.settle();
    assert_eq!(network.raft(1).role(), Role::Leader);
}

/// Thesis, section 3.8: a server that forgot its vote could vote twice in a term.
#[test]
fn a_vote_survives_a_restart() {
    let mut network = Network::new(3);
    network.arrives(1, 2, 1, Body::Vote { last_index: 0, last_term: 0, is_transfer: false });
    network.crash(2);
    network.restart(2);
    network.skip(300);
    network.sent.clear();
    network.arrives(3, 2, 1, Body::Vote { last_index: 0, last_term: 0, is_transfer: false });
    assert_eq!(network.raft(2).vote(), Some(ReplicaId(1)));
    let granted = |body: &Body| matches!(body, Body::VoteReply { granted: true });
    assert!(!network.sent.iter().any(|message| granted(&message.body)));

    // The candidate that has the vote may ask again: its answer may have been lost.
    network.arrives(1, 2, 1, Body::Vote { last_index: 0, last_term: 0, is_transfer: false });
    assert!(network.sent.iter().any(|message| message.to == ReplicaId(1) && granted(&message.body)));
}

/// Thesis, section 3.8: "a server that loses any of its persistent state cannot safely rejoin the cluster with its
/// prior identity." A replica is addressed by its id, and one with a new id ignores what is meant for the old one.
#[test]
fn messages_to_another_id_are_ignored() {
    let mut network = Network::new(3);
    let message = duva_raft::Message {
        from: ReplicaId(1),
        to: ReplicaId(9),
        term: 7,
        body: Body::Vote { last_index: 9, last_term: 7, is_transfer: true },
    };
    network.tell(2, |raft, now_ns| raft.step(now_ns, message));
    assert_eq!((network.raft(2).term(), network.sent.len()), (0, 0));
}
