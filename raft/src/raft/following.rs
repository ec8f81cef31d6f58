//! The follower's side of replication: taking the leader's entries, and answering (paper, figure 2 and section 5.3).
//!
//! # Invariants
//!
//! - What is acknowledged is what an append of this term proved to agree with the leader's log, as far as it is
//!   durable here.
//! - Only what contradicts the leader's log is removed, and nothing that is committed, or that this leader sent.
//! - Nothing answers the leader in a term that this replica could forget.

use super::Raft;
use crate::{Body, Entry, Index, ReplicaId, Role, Term, mutation::Mutation};

/// What a follower owes its leader in this term.
#[derive(Debug, Default)]
pub(super) struct Following {
    /// The last entry that is known to agree with the leader's log.
    agreed: Index,
    /// The last entry that was acknowledged.
    acknowledged: Index,
    /// An append up to here waits for its answer.
    answer_owed: Option<Index>,
    /// A heartbeat waits for its answer.
    heartbeat: Option<Heartbeat>,
}

#[derive(Clone, Copy, Debug)]
struct Heartbeat {
    sent_ns: u64,
    read_round: u64,
}

impl Following {
    /// Another term has begun.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// The logs agree up to `index`, and the leader wants to know.
    pub(super) fn agree(&mut self, index: Index) {
        self.agreed = self.agreed.max(index);
        self.answer_owed = self.answer_owed.max(Some(index));
    }
}

/// Following.
impl Raft {
    pub(super) fn handle_heartbeat(&mut self, commit: Index, sent_ns: u64, read_round: u64) {
        // The leader tells no more than this replica acknowledged to it.
        self.commit_to(commit);
        let heartbeat = self.following.heartbeat.get_or_insert(Heartbeat { sent_ns, read_round });
        heartbeat.sent_ns = heartbeat.sent_ns.max(sent_ns);
        heartbeat.read_round = heartbeat.read_round.max(read_round);
    }

    pub(super) fn handle_append(
        &mut self,
        from: ReplicaId,
        prev_index: Index,
        prev_term: Term,
        commit: Index,
        entries: &mut Vec<Entry>,
    ) {
        // What is being installed takes the place of the log: it stays as it is until then.
        if self.is_installing() {
            return;
        }
        let compacted = self.log.snapshot().index;
        if prev_index >= compacted && self.log.term_at(prev_index) != Some(prev_term) {
            self.reject(from, prev_index, prev_term);
            return;
        }
        let last_new = prev_index + entries.len() as u64;
        // What only tells what is committed needs no answer: the leader has one about all in front of it. Leaders of earlier versions
        // tell it when they ask, too, even what lies behind, which a follower does not learn by being asked again.
        let is_news = (self.commit_index + 1..=last_new).contains(&commit);
        let only_tells = entries.is_empty() && is_news && last_new <= self.following.acknowledged;
        self.take_entries(entries);
        if !only_tells {
            self.following.agree(last_new);
        }
        let agrees_to = if self.is_on(Mutation::CommitUnmatched) { self.log.last_index() } else { last_new };
        self.commit_to(commit.min(agrees_to));
    }

    /// The logs do not agree at `prev_index`. Says where they may: the leader has nothing of a term above its own there.
    fn reject(&mut self, leader: ReplicaId, prev_index: Index, prev_term: Term) {
        assert!(
            prev_index > self.commit_index,
            "the leader contradicts entry {prev_index}, which is committed"
        );
        let hint = self.log.last_not_above(prev_index - 1, prev_term);
        let hint_index = hint.unwrap_or(self.log.snapshot().index);
        let hint_term = self.log.term_at(hint_index).unwrap_or(0);
        self.send(leader, Body::AppendReject { prev_index, hint_index, hint_term });
    }

    /// Takes what the log does not have, in place of what contradicts it.
    fn take_entries(&mut self, entries: &mut Vec<Entry>) {
        let compacted = self.log.snapshot().index;
        for entry in entries.drain(..) {
            if entry.index <= compacted || self.log.term_at(entry.index) == Some(entry.term) {
                continue;
            }
            if entry.index <= self.log.last_index() {
                if self.is_on(Mutation::KeepConflict) {
                    continue;
                }
                self.truncate(entry.index);
            }
            self.log.append(entry);
        }
    }

    fn truncate(&mut self, from: Index) {
        assert!(from > self.commit_index, "entry {from} is committed and cannot be removed");
        assert!(from > self.following.agreed, "the leader takes back entry {from}");
        self.log.truncate(from);
        self.disk.truncated(from - 1);
    }

    /// What may be acknowledged now, if that is news or asked for.
    fn due_acknowledgement(&self) -> Option<Index> {
        let durable_index = self.durable_index();
        let counts_to = if self.is_on(Mutation::AcknowledgeBeforeDurable) {
            self.log.last_index()
        } else {
            durable_index
        };
        let index = self.following.agreed.min(counts_to);
        let answers = self.following.answer_owed.is_some_and(|owed| owed <= index);
        (index > self.following.acknowledged || answers).then_some(index)
    }

    /// Whether this replica may answer its leader: in a term that it will not forget.
    fn answers_leader(&self) -> bool {
        self.role == Role::Follower && self.leader.is_some() && self.disk.is_hard_state_synced()
    }

    pub(super) fn has_acknowledgement(&self) -> bool {
        self.answers_leader() && (self.following.heartbeat.is_some() || self.due_acknowledgement().is_some())
    }

    /// Tells the leader what is durable here, and that this replica follows it.
    pub(super) fn acknowledge(&mut self) {
        let Some(leader) = self.leader.filter(|_| self.answers_leader()) else { return };
        if let Some(match_index) = self.due_acknowledgement() {
            self.following.acknowledged = self.following.acknowledged.max(match_index);
            self.following.answer_owed = self.following.answer_owed.filter(|&owed| owed > match_index);
            self.send(leader, Body::AppendReply { match_index });
        }
        if let Some(Heartbeat { sent_ns, read_round }) = self.following.heartbeat.take() {
            self.send(leader, Body::HeartbeatReply { sent_ns, read_round });
        }
    }
}
