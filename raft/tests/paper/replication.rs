//! Replication: paper, sections 5.3 and 5.5, figures 3, 6 and 7.

use duva_raft::{Body, EntryKind, Message, ProgressState, ReplicaId, Role, Term};

use crate::network::{Network, entry, start};

/// The log of figure 7's leader for term 8.
const LEADER: &[Term] = &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6];

/// The followers of figure 7, with the term that each must have been in.
const FOLLOWERS: [(&str, Term, &[Term]); 6] = [
    ("(a) lacks an entry", 6, &[1, 1, 1, 4, 4, 5, 5, 6, 6]),
    ("(b) lacks many", 4, &[1, 1, 1, 4]),
    ("(c) has one more", 6, &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6]),
    ("(d) has more of a later term", 7, &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7]),
    ("(e) lacks some and has others", 4, &[1, 1, 1, 4, 4, 4, 4]),
    ("(f) lacks many and has others of two terms", 3, &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3]),
];

/// Paper, figure 7 and section 5.3: whatever a follower's log is, it becomes the leader's. The hint of a rejection
/// makes it a matter of terms, not of entries.
#[test]
fn figure_7_every_follower_becomes_as_the_leader_is() {
    for (which, term, log) in FOLLOWERS {
        let mut network = Network::of(vec![start(7, LEADER), start(term, log), start(7, LEADER)]);
        network.elect(1);
        let expected: Vec<Term> = LEADER.iter().copied().chain([8]).collect();
        assert_eq!(network.log(1), expected, "{which}");
        assert_eq!(network.log(2), expected, "{which}");
        assert_eq!(network.entries(2), network.entries(1), "{which}");
        let rejections = network.sent.iter().filter(|message| {
            message.from == ReplicaId(2) && matches!(message.body, Body::AppendReject { .. })
        });
        assert!(rejections.count() <= 2, "{which}");
    }
}

/// Paper, figure 7: all of them at once.
#[test]
fn figure_7_all_followers_at_once() {
    let mut starts = vec![start(7, LEADER)];
    starts.extend(FOLLOWERS.iter().map(|&(_, term, log)| start(term, log)));
    let mut network = Network::of(starts);
    network.elect(1);
    for id in 2..=7 {
        assert_eq!(network.entries(id), network.entries(1), "replica {id}");
        assert_eq!(network.raft(1).progress(ReplicaId(id)).expect("a peer").match_index(), 11);
    }
}

/// Paper, section 5.3: finding where two logs agree takes one rejection a term at the most, however long they are.
#[test]
fn back_off_goes_by_terms() {
    let shared = [1; 5];
    let alternate = |first: Term| (0..200).map(move |index: u64| first + 2 * (index / 50));
    let leader: Vec<Term> = shared.into_iter().chain(alternate(3)).collect();
    let follower: Vec<Term> = shared.into_iter().chain(alternate(2)).collect();
    let mut network = Network::of(vec![start(9, &leader), start(8, &follower), start(9, &leader)]);
    network.elect(1);
    assert_eq!(network.entries(2), network.entries(1));
    let rejections =
        network.sent.iter().filter(|message| matches!(message.body, Body::AppendReject { .. })).count();
    assert!(rejections <= 5, "{rejections} rejections for four terms");
}

/// Paper, section 5.3, the consistency check: entries are taken only if the one before them agrees.
#[test]
fn entries_are_taken_only_if_the_one_before_agrees() {
    for (prev_index, prev_term, agrees) in
        [(0, 0, true), (2, 1, true), (3, 2, true), (3, 1, false), (4, 2, false)]
    {
        let mut network = Network::of(vec![start(5, &[1, 1, 2]), start(5, &[]), start(5, &[])]);
        let entries = vec![entry(prev_index + 1, 5)];
        network.arrives(2, 1, 5, Body::Append { prev_index, prev_term, commit: 0, entries });
        let last = (network.raft(1).last_index(), network.raft(1).term_at(network.raft(1).last_index()));
        assert_eq!(last == (prev_index + 1, Some(5)), agrees, "after {prev_index}/{prev_term}");
        if !agrees {
            assert_eq!(network.log(1), [1, 1, 2], "what was rejected changed nothing");
        }
    }
}

/// Paper, figure 2: "If an existing entry conflicts with a new one (same index but different terms), delete the
/// existing entry and all that follow it" - and only then.
#[test]
fn only_what_contradicts_is_removed() {
    for (entries, expected) in [
        (vec![], vec![1, 1, 2, 2]),
        (vec![entry(2, 1)], vec![1, 1, 2, 2]),
        (vec![entry(2, 1), entry(3, 2)], vec![1, 1, 2, 2]),
        (vec![entry(2, 1), entry(3, 4)], vec![1, 1, 4]),
        (vec![entry(2, 4)], vec![1, 4]),
    ] {
        let mut network = Network::of(vec![start(5, &[1, 1, 2, 2]), start(5, &[]), start(5, &[])]);
        let append = Body::Append { prev_index: 1, prev_term: 1, commit: 0, entries };
        network.arrives(2, 1, 5, append.clone());
        assert_eq!(network.log(1), expected);
        // Paper, section 5.5: requests may come twice; the second time changes nothing.
        network.arrives(2, 1, 5, append);
        assert_eq!(network.log(1), expected);
    }
}

/// Paper, figure 3, leader append-only: whatever its followers have, a leader only appends.
#[test]
fn a_leader_only_appends() {
    for (which, term, log) in FOLLOWERS {
        let mut network = Network::of(vec![start(7, LEADER), start(term, log), start(7, LEADER)]);
        let before = network.entries(1);
        network.elect(1);
        network.propose(1, "a").expect("a leader takes proposals");
        network.settle();
        assert_eq!(network.entries(1)[..before.len()], before, "{which}");
    }
}

/// Paper, figure 3: nobody else leads in its term, so a leader that is sent entries of its own term stops rather
/// than go on.
#[test]
#[should_panic(expected = "lead in term")]
fn a_second_leader_of_one_term_stops_the_replica() {
    let mut network = Network::new(3);
    network.elect(1);
    network.arrives(
        2,
        1,
        1,
        Body::Append { prev_index: 0, prev_term: 0, commit: 0, entries: vec![entry(1, 1)] },
    );
}

/// Paper, section 8: a leader begins its term with an entry that says nothing.
#[test]
fn a_leader_begins_its_term_with_an_empty_entry() {
    let mut network = Network::of(vec![start(3, &[1]), start(3, &[1]), start(3, &[1])]);
    network.elect(1);
    let entries = network.entries(1);
    assert_eq!((entries[1].kind, entries[1].term, entries[1].payload.len()), (EntryKind::Empty, 4, 0));
    assert_eq!(network.raft(1).commit_index(), 2);
}

/// Paper, section 5.5: a follower that was down is sent what it missed, again and again until it answers.
#[test]
fn a_follower_that_was_down_catches_up() {
    let mut network = Network::new(3);
    network.elect(1);
    network.crash(3);
    for payload in ["a", "b", "c"] {
        network.propose(1, payload).expect("a leader takes proposals");
        network.settle();
    }
    network.run(1_000);
    network.restart(3);
    network.run(200);
    assert_eq!(network.entries(3), network.entries(1));
    assert_eq!(network.applied(3), network.applied(1));
}

/// Thesis, section 10.2: entries are sent without waiting for earlier answers, and a lost one is noticed.
#[test]
fn appends_are_pipelined_and_losses_repaired() {
    let mut network = Network::new(2);
    network.elect(1);
    network.sent.clear();
    for payload in ["a", "b", "c"] {
        network.propose(1, payload).expect("a leader takes proposals");
    }
    let is_append = |message: &&Message| matches!(message.body, Body::Append { .. });
    assert_eq!(network.sent.iter().filter(is_append).count(), 3, "nothing was answered in between");

    // The first is lost, the others do not fit.
    let first = network.sent[0].clone();
    network.settle_if(|message| *message != first);
    network.run(100);
    assert_eq!(network.entries(2), network.entries(1));
    let progress = network.raft(1).progress(ReplicaId(2)).expect("a peer");
    assert_eq!((progress.state(), progress.match_index()), (ProgressState::Replicate, 4));
}

/// An append that only tells what is committed is not answered; one that tells nothing new is, since its leader may ask.
#[test]
fn a_follower_answers_who_asks_and_not_who_tells() {
    let mut network = Network::new(3);
    network.elect(1);
    network.sent.clear();
    network.propose(1, "a").expect("a leader takes proposals");
    network.settle();
    assert_eq!(network.raft(2).commit_index(), 2);
    let appends = network.sent.iter().filter(|message| matches!(message.body, Body::Append { .. }));
    assert_eq!(appends.count(), 4, "the entry, and that it is committed, for both followers");
    let answers = network.sent.iter().filter(|message| matches!(message.body, Body::AppendReply { .. }));
    assert_eq!(answers.count(), 2, "one from each follower");

    // Leaders of earlier versions tell what is committed when they ask, also of entries that are not there.
    let term = network.raft(1).term();
    for commit in [2, 5, 5] {
        network.sent.clear();
        network.arrives(1, 2, term, Body::Append { prev_index: 2, prev_term: term, commit, entries: vec![] });
        assert!(matches!(network.sent[..], [Message { body: Body::AppendReply { match_index: 2 }, .. }]));
    }
}

/// Paper, figure 6 and section 5.3: a follower applies in order what it knows to be committed, and nothing else.
#[test]
fn only_committed_entries_are_applied() {
    let mut network = Network::new(3);
    network.elect(1);
    network.part(&[1], &[2, 3]);
    network.propose(1, "a").expect("a leader takes proposals");
    network.settle();
    for id in 1..=3 {
        assert!(network.applied(id).iter().all(|entry| entry.kind == EntryKind::Empty), "replica {id}");
    }
    network.heal();
    network.run(100);
    for id in 1..=3 {
        let payloads: Vec<_> = network.applied(id).iter().map(|entry| entry.payload.to_vec()).collect();
        assert_eq!(payloads, [b"".to_vec(), b"a".to_vec()], "replica {id}");
    }
    assert_eq!(network.raft(1).role(), Role::Leader);
}
