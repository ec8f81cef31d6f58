//! Elections: pre-vote, votes, terms (paper, figure 2 and section 5.2; thesis, sections 3.4, 6.4 and 9.6).
//!
//! # Invariants
//!
//! - In one term a replica gives one vote, and it leaves, or counts at home, only once it is synced.
//! - Who heard from a leader within the shortest election timeout neither votes nor holds an election, and stays in
//!   its term: leases rest on it. A transfer is exempt, because the leader gave its lease up.
//! - Who starts again behaves as if it had heard from a leader just before, and for the longest election timeout; no
//!   transfer exempts it. Only a sole voter that was the last to stand for election has promised nothing.
//! - In one term there is one leader.

use super::Raft;
use crate::{Body, Index, ReplicaId, Role, Term, mutation::Mutation};

#[derive(Debug, Default)]
pub(super) struct Election {
    /// When this replica asks for an election unless it hears from a leader.
    pub(super) deadline_ns: u64,
    /// Until when it keeps silent after its start.
    silent_until_ns: u64,
    /// When it heard from a leader last, of whatever term.
    contact_ns: Option<u64>,
    /// When a leader's silence was excused last.
    excused_ns: u64,
    /// Who answered, and what: at most one answer a voter.
    votes: Vec<(ReplicaId, bool)>,
    /// Whether votes are to be asked for once the own one is synced.
    requests_owed: bool,
    /// Whether a leader asked for this election.
    is_transfer: bool,
    /// Who gets the vote once it is synced.
    reply_owed: Option<ReplicaId>,
    /// Whether, since it heard from a leader, this replica refused one whose log is behind.
    was_asked_in_vain: bool,
}

/// Terms.
impl Raft {
    /// Begins another term. Whatever was owed to the last one is dropped.
    pub(super) fn set_term(&mut self, term: Term) {
        assert!(term > self.term, "terms only grow");
        self.term = term;
        self.vote = None;
        self.leader_of_term = None;
        self.disk.hard_state_changed();
        self.election.requests_owed = false;
        self.election.reply_owed = None;
        self.following.forget();
    }

    /// Another replica is in a higher term.
    pub(super) fn enter_term(&mut self, term: Term) {
        self.become_follower(None);
        self.set_term(term);
    }

    /// Follows a leader, or waits for one. The term stays.
    pub(super) fn become_follower(&mut self, leader: Option<ReplicaId>) {
        if self.role == Role::Leader {
            self.stop_leading();
        }
        if self.role != Role::Follower {
            self.role = Role::Follower;
            self.arm_election();
        }
        self.election.requests_owed = false;
        self.set_leader(leader);
    }

    fn set_leader(&mut self, leader: Option<ReplicaId>) {
        if self.leader == leader {
            return;
        }
        self.fail_forwarded_reads();
        self.leader = leader;
        if let Some(leader) = leader {
            self.note_leader_of_term(leader);
        }
    }

    pub(super) fn set_own_leadership(&mut self) {
        self.set_leader(Some(self.config.id));
    }

    fn note_leader_of_term(&mut self, leader: ReplicaId) {
        let known = self.leader_of_term.get_or_insert(leader);
        assert_eq!(*known, leader, "two replicas lead in term {}", self.term);
    }

    /// The leader of this term sent something.
    pub(super) fn follow(&mut self, leader: ReplicaId) {
        self.note_leader_of_term(leader);
        if self.role != Role::Follower || self.leader != Some(leader) {
            self.become_follower(Some(leader));
        }
        self.election.contact_ns = Some(self.now_ns);
        self.election.was_asked_in_vain = false;
        self.arm_election();
    }
}

/// The clock.
impl Raft {
    pub(super) fn start_election_clock(&mut self) {
        let is_sole_voter = self.membership().is_sole_voter(self.config.id);
        // A leader that made this replica the sole voter may still lead without a vote of its own. Not in this term, nor
        // in an earlier one, if this replica stood for election itself.
        let led_last = self.vote == Some(self.config.id);
        if self.term > 0 && !(is_sole_voter && led_last) {
            self.election.silent_until_ns = self.now_ns.saturating_add(self.config.election_timeout_max_ns);
        }
        self.arm_election();
        if is_sole_voter {
            self.election.deadline_ns = self.now_ns.max(self.election.silent_until_ns);
        }
    }

    /// Chooses when to ask for an election, neither before this replica may, nor at the same time as others.
    fn arm_election(&mut self) {
        let (min, max) = (self.config.election_timeout_min_ns, self.config.election_timeout_max_ns);
        let wait_ns = self.random.between(min, max);
        let usual = self.now_ns.saturating_add(wait_ns);
        self.election.deadline_ns = usual.max(self.election.silent_until_ns.saturating_add(wait_ns - min));
    }

    /// A leader that was there before may be there still. An election that is held for other reasons than its silence waits for
    /// nothing.
    pub(super) fn excuse_leader(&mut self) {
        let was_heard = self.leader.is_some() && self.election.contact_ns > Some(self.election.excused_ns);
        if was_heard && self.election.deadline_ns > self.bound_until_ns() {
            self.election.excused_ns = self.now_ns;
            self.arm_election();
        }
    }

    pub(super) fn tick_election(&mut self) {
        if self.now_ns < self.election.deadline_ns {
            return;
        }
        if self.may_campaign() {
            self.become_pre_candidate();
        } else {
            // Whom it followed is silent, and it cannot do anything about it.
            self.become_follower(None);
            self.arm_election();
        }
    }

    /// Whether this replica may hold an election as soon as its promises to a leader end.
    ///
    /// It may if it has a vote, or had one until a membership that is not known to be committed: it may be the only one
    /// with that membership, and nobody behind it can be elected without its vote (thesis, section 4.2.2). It may, too,
    /// if another counts on its vote, of which it does not know, but is too far behind to get it.
    pub(super) fn is_promotable(&self) -> bool {
        let id = self.config.id;
        let has_vote =
            || self.log.possible_memberships(self.commit_index).any(|membership| membership.is_voter(id));
        let has_say = self.election.was_asked_in_vain || has_vote();
        self.role != Role::Leader && !self.is_installing() && has_say
    }

    fn may_campaign(&self) -> bool {
        self.may_take_over() && !self.has_contact()
    }

    /// Whether it may hold an election at once because the leader wants it to.
    pub(super) fn may_take_over(&self) -> bool {
        self.is_promotable() && !self.is_silent()
    }

    /// Whether it keeps silent because it started again.
    fn is_silent(&self) -> bool {
        self.now_ns < self.election.silent_until_ns && !self.is_on(Mutation::VoteAfterRestart)
    }

    /// Until when what it heard from a leader binds it.
    fn bound_until_ns(&self) -> u64 {
        self.election.contact_ns.map_or(0, |at_ns| at_ns.saturating_add(self.config.election_timeout_min_ns))
    }

    fn has_contact(&self) -> bool {
        self.now_ns < self.bound_until_ns()
    }

    /// Whether requests for votes are ignored, whatever their term.
    pub(super) fn ignores_elections(&self, is_transfer: bool) -> bool {
        let leads_or_follows = match self.role {
            Role::Leader => self.holds_quorum(),
            Role::Follower | Role::PreCandidate | Role::Candidate => self.has_contact(),
        };
        self.is_silent() || (leads_or_follows && !is_transfer)
    }
}

/// Asking for votes.
impl Raft {
    /// Holds an election now rather than after a random wait; the pre-vote is held as always. A leader's driver need
    /// not call it, nor a learner's.
    ///
    /// While this replica is bound not to vote, by its start or because it heard from a leader, the election waits for
    /// that to end.
    pub fn campaign(&mut self, now_ns: u64) {
        self.advance_clock(now_ns);
        if self.may_campaign() {
            self.become_pre_candidate();
        } else if self.is_promotable() {
            let allowed = self.bound_until_ns().max(self.election.silent_until_ns);
            self.election.deadline_ns = self.election.deadline_ns.min(allowed);
        }
    }

    fn become_pre_candidate(&mut self) {
        self.become_follower(None);
        self.role = Role::PreCandidate;
        self.begin_votes();
        let (last_index, last_term) = (self.log.last_index(), self.log.last_term());
        let asked = self.term + 1;
        self.ask_voters(asked, || Body::PreVote { last_index, last_term });
        self.record_vote(self.config.id, true);
    }

    /// Asks for votes in the next term: once its own one is synced.
    pub(super) fn become_candidate(&mut self, is_transfer: bool) {
        self.become_follower(None);
        self.set_term(self.term + 1);
        self.role = Role::Candidate;
        self.vote = Some(self.config.id);
        self.begin_votes();
        self.election.requests_owed = true;
        self.election.is_transfer = is_transfer;
    }

    fn begin_votes(&mut self) {
        self.election.votes.clear();
        self.arm_election();
    }

    fn ask_voters(&mut self, term: Term, body: impl Fn() -> Body) {
        let (outbox, from) = (&mut self.outbox, self.config.id);
        let voters = self.log.membership().1.all_voters().filter(|&voter| voter != from);
        outbox.extend(voters.map(|to| crate::Message { from, to, term, body: body() }));
    }

    /// Lets go what waited for the hard state to be synced.
    pub(super) fn release_votes(&mut self) {
        if !self.disk.is_hard_state_synced() && !self.is_on(Mutation::VoteBeforeDurable) {
            return;
        }
        if let Some(candidate) = self.election.reply_owed.take() {
            self.send(candidate, Body::VoteReply { granted: true });
        }
        if std::mem::take(&mut self.election.requests_owed) {
            let (last_index, last_term) = (self.log.last_index(), self.log.last_term());
            let is_transfer = self.election.is_transfer;
            self.ask_voters(self.term, || Body::Vote { last_index, last_term, is_transfer });
            self.record_vote(self.config.id, true);
        }
    }

    pub(super) fn handle_pre_vote_reply(&mut self, from: ReplicaId, term: Term, granted: bool) {
        // A granting reply names the term that was asked for, a refusing one the sender's.
        if self.role == Role::PreCandidate && term == self.term + u64::from(granted) {
            self.record_vote(from, granted);
        }
    }

    pub(super) fn handle_vote_reply(&mut self, from: ReplicaId, granted: bool) {
        if self.role == Role::Candidate {
            self.record_vote(from, granted);
        }
    }

    fn record_vote(&mut self, from: ReplicaId, granted: bool) {
        if !self.membership().is_voter(from) {
            return;
        }
        let mut voter = from;
        if self.answer_of(from).is_some() {
            if !self.is_on(Mutation::CountVoteTwice) {
                return;
            }
            let Some(other) = self.membership().all_voters().find(|&other| self.answer_of(other).is_none())
            else {
                return;
            };
            voter = other;
        }
        self.election.votes.push((voter, granted));
        self.count_votes();
    }

    fn answer_of(&self, voter: ReplicaId) -> Option<bool> {
        self.election.votes.iter().find(|(who, _)| *who == voter).map(|(_, granted)| *granted)
    }

    fn count_votes(&mut self) {
        let is_won = self.majority_reached(|voter| u64::from(self.answer_of(voter) == Some(true))) > 0;
        let is_lost = self.majority_reached(|voter| u64::from(self.answer_of(voter) != Some(false))) == 0;
        match self.role {
            Role::PreCandidate if is_won => self.become_candidate(false),
            Role::Candidate if is_won => self.become_leader(),
            Role::PreCandidate | Role::Candidate if is_lost => self.become_follower(None),
            _ => {}
        }
    }
}

/// Giving votes.
impl Raft {
    pub(super) fn handle_pre_vote(
        &mut self,
        from: ReplicaId,
        term: Term,
        last_index: Index,
        last_term: Term,
    ) {
        if self.ignores_elections(false) {
            return;
        }
        let is_up_to_date = self.is_up_to_date(last_index, last_term);
        self.election.was_asked_in_vain |= !is_up_to_date;
        if term > self.term && is_up_to_date {
            self.send_in_term(from, term, Body::PreVoteReply { granted: true });
        } else {
            self.send(from, Body::PreVoteReply { granted: false });
        }
    }

    pub(super) fn handle_vote(
        &mut self,
        from: ReplicaId,
        last_index: Index,
        last_term: Term,
        is_transfer: bool,
    ) {
        if self.ignores_elections(is_transfer) {
            return;
        }
        let is_free = match self.vote {
            Some(candidate) => candidate == from || self.is_on(Mutation::VoteTwice),
            // With a leader the term's election is over.
            None => self.leader_of_term.is_none(),
        };
        let is_up_to_date = self.is_up_to_date(last_index, last_term);
        self.election.was_asked_in_vain |= !is_up_to_date;
        if !is_free || !is_up_to_date {
            self.send(from, Body::VoteReply { granted: false });
            return;
        }
        if self.role == Role::PreCandidate {
            self.become_follower(None);
        }
        if self.vote != Some(from) {
            self.vote = Some(from);
            self.disk.hard_state_changed();
        }
        self.election.reply_owed = Some(from);
        self.arm_election();
        self.release_votes();
    }

    /// Whether a log that ends like this has all that this replica's log has, if that is committed (paper, section
    /// 5.4.1).
    fn is_up_to_date(&self, last_index: Index, last_term: Term) -> bool {
        (last_term, last_index) >= (self.log.last_term(), self.log.last_index())
            || self.is_on(Mutation::VoteForShorterLog)
    }
}
