//! Linearizable reads without log entries (thesis, sections 6.4 and 6.4.1).
//!
//! # Invariants
//!
//! - Before an entry of its own term is committed a leader does not know what is, and answers nothing.
//! - A round of heartbeats confirms the reads that waited when it was sent, once a majority has answered it or a
//!   later one.
//! - A lease runs from the sending of heartbeats that a majority has answered in this term. It ends before any of
//!   them may vote.
//! - Every read that was accepted is answered or fails.

use std::collections::VecDeque;

use super::Raft;
use crate::{
    Body, Index, ProposeError, ReadMode, ReadOutcome, ReadState, ReplicaId, Role, mutation::Mutation,
};

#[derive(Debug)]
pub(super) struct Reads {
    /// At the leader: reads that wait, those with a round first.
    waiting: VecDeque<WaitingRead>,
    /// At the leader: the last round, of this term.
    round: u64,
    /// At a follower: reads that the leader was asked about, oldest first.
    forwarded: VecDeque<ForwardedRead>,
    /// A number that names the next one to the leader. It begins at random, so that an answer to an earlier life of
    /// this replica is not taken for one to this.
    next_number: u64,
    /// To be handed out.
    pub(super) ready: Vec<ReadState>,
    /// To be handed out.
    pub(super) failed: Vec<u64>,
}

#[derive(Debug)]
struct WaitingRead {
    /// The follower that asks, or this replica's own driver.
    from: Option<ReplicaId>,
    context: u64,
    round: Option<Round>,
}

/// What a read waits for, and where it may be served then.
#[derive(Clone, Copy, Debug)]
struct Round {
    number: u64,
    index: Index,
}

#[derive(Debug)]
struct ForwardedRead {
    number: u64,
    context: u64,
    deadline_ns: u64,
}

impl Reads {
    pub(super) fn new(next_number: u64) -> Self {
        Self {
            waiting: VecDeque::new(),
            round: 0,
            forwarded: VecDeque::new(),
            next_number,
            ready: Vec::new(),
            failed: Vec::new(),
        }
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty() || !self.failed.is_empty()
    }

    pub(super) fn deadline_ns(&self) -> u64 {
        self.forwarded.front().map_or(u64::MAX, |read| read.deadline_ns)
    }

    pub(super) fn round(&self) -> u64 {
        self.round
    }

    /// A term as leader begins.
    pub(super) fn restart_rounds(&mut self) {
        self.round = 0;
    }

    fn has_waiting_for_round(&self) -> bool {
        self.waiting.back().is_some_and(|read| read.round.is_none())
    }
}

/// Asking.
impl Raft {
    /// Asks where a linearizable read may be served. A follower or learner asks its leader. `context` names the read in
    /// [`crate::Ready::reads`] or [`crate::Ready::failed_reads`], unless the answer is there at once.
    ///
    /// # Errors
    ///
    /// No leader is known, or as many reads wait as may ([`crate::Config::pending_reads_max`]).
    pub fn read(&mut self, now_ns: u64, context: u64) -> Result<ReadOutcome, ProposeError> {
        self.advance_clock(now_ns);
        if self.role == Role::Leader {
            if self.may_read_now() {
                return Ok(ReadOutcome::At(self.commit_index));
            }
            self.wait_for_round(None, context)?;
        } else {
            self.forward_read(context)?;
        }
        Ok(ReadOutcome::Pending)
    }

    /// Until when a leader may serve reads without asking anyone, at its present commit index. `None` if it may not:
    /// it has no lease, gave it up in this term, or has nothing of its own term committed. A sole voter's has no end:
    /// `u64::MAX`.
    ///
    /// It says nothing about [`ReadMode`], and may be over.
    pub fn lease_until_ns(&self) -> Option<u64> {
        if self.role != Role::Leader || self.leading.lease_is_dropped || !self.knows_commit() {
            return None;
        }
        // 0 stands for never.
        let sent = self.majority_reached(|voter| {
            self.value_of(voter, |peer| peer.acknowledged_ns.map_or(0, |sent_ns| sent_ns.saturating_add(1)))
        });
        Some(sent.checked_sub(1)?.saturating_add(self.config.lease_ns))
    }

    /// Whether the leader knows all that was committed before its term.
    fn knows_commit(&self) -> bool {
        self.has_committed_in_term() || self.is_on(Mutation::ReadBeforeCommit)
    }

    /// Whether a leader need not ask anyone.
    fn may_read_now(&self) -> bool {
        let has_lease = || self.lease_until_ns().is_some_and(|until_ns| self.now_ns < until_ns);
        // A sole voter has nobody to ask.
        self.membership().is_sole_voter(self.config.id) && self.knows_commit()
            || self.config.read_mode == ReadMode::Lease && has_lease()
    }

    fn wait_for_round(&mut self, from: Option<ReplicaId>, context: u64) -> Result<(), ProposeError> {
        if self.reads.waiting.len() >= self.config.pending_reads_max {
            return Err(ProposeError::Busy);
        }
        self.reads.waiting.push_back(WaitingRead { from, context, round: None });
        Ok(())
    }

    pub(super) fn handle_read_index(&mut self, from: ReplicaId, context: u64) {
        let index = (self.role == Role::Leader && self.may_read_now()).then_some(self.commit_index);
        let waits =
            index.is_none() && self.role == Role::Leader && self.wait_for_round(Some(from), context).is_ok();
        if !waits {
            self.send(from, Body::ReadIndexReply { context, index });
        }
    }
}

/// Rounds.
impl Raft {
    pub(super) fn wants_read_round(&self) -> bool {
        self.reads.has_waiting_for_round() && self.knows_commit()
    }

    /// One round serves all reads that wait, unless the lease does.
    pub(super) fn start_read_round(&mut self) {
        if !self.wants_read_round() {
            return;
        }
        let index = self.commit_index;
        if self.may_read_now() {
            while let Some(read) = self.reads.waiting.pop_front() {
                self.answer_read(&read, Some(read.round.map_or(index, |round| round.index)));
            }
            return;
        }
        self.reads.round += 1;
        let round = Round { number: self.reads.round, index };
        for read in self.reads.waiting.iter_mut().rev().take_while(|read| read.round.is_none()) {
            read.round = Some(round);
        }
        self.leading.heartbeat_is_owed = true;
        self.confirm_reads();
    }

    /// Answers reads whose round a majority has answered.
    pub(super) fn confirm_reads(&mut self) {
        let confirmed = if self.is_on(Mutation::ReadByOne) {
            self.peers().map(|(_, peer)| peer.read_round).max().unwrap_or(u64::MAX)
        } else {
            self.majority_reached(|voter| self.value_of(voter, |peer| peer.read_round))
        };
        while let Some(read) = self.reads.waiting.front()
            && let Some(round) = read.round.filter(|round| round.number <= confirmed)
            && let Some(read) = self.reads.waiting.pop_front()
        {
            self.answer_read(&read, Some(round.index));
        }
    }

    fn answer_read(&mut self, read: &WaitingRead, index: Option<Index>) {
        match (read.from, index) {
            (Some(follower), index) => {
                self.send(follower, Body::ReadIndexReply { context: read.context, index });
            }
            (None, Some(index)) => self.reads.ready.push(ReadState { context: read.context, index }),
            (None, None) => self.reads.failed.push(read.context),
        }
    }

    /// Leadership is lost.
    pub(super) fn fail_waiting_reads(&mut self) {
        while let Some(read) = self.reads.waiting.pop_front() {
            self.answer_read(&read, None);
        }
    }
}

/// Asking the leader.
impl Raft {
    fn forward_read(&mut self, context: u64) -> Result<(), ProposeError> {
        let leader = self.leader.ok_or(ProposeError::NotLeader { leader: None })?;
        if self.reads.forwarded.len() >= self.config.pending_reads_max {
            return Err(ProposeError::Busy);
        }
        let number = self.reads.next_number;
        self.reads.next_number = number.wrapping_add(1);
        let deadline_ns = self.now_ns.saturating_add(self.config.election_timeout_max_ns);
        self.reads.forwarded.push_back(ForwardedRead { number, context, deadline_ns });
        self.send(leader, Body::ReadIndex { context: number });
        Ok(())
    }

    pub(super) fn handle_read_index_reply(&mut self, from: ReplicaId, number: u64, index: Option<Index>) {
        if self.leader != Some(from) {
            return;
        }
        let Some(nth) = self.reads.forwarded.iter().position(|read| read.number == number) else { return };
        let Some(read) = self.reads.forwarded.remove(nth) else { return };
        match index {
            Some(index) => self.reads.ready.push(ReadState { context: read.context, index }),
            None => self.reads.failed.push(read.context),
        }
    }

    pub(super) fn expire_forwarded_reads(&mut self) {
        while self.reads.deadline_ns() <= self.now_ns
            && let Some(read) = self.reads.forwarded.pop_front()
        {
            self.reads.failed.push(read.context);
        }
    }

    /// Whom it asked does not lead any more.
    pub(super) fn fail_forwarded_reads(&mut self) {
        self.reads.failed.extend(self.reads.forwarded.drain(..).map(|read| read.context));
    }
}
