//! The leader's side of replication: appends, heartbeats, what their answers commit (paper, figure 2 and section 5.3).
//!
//! # Invariants
//!
//! - A leader only appends.
//! - It commits what a majority holds, and only up to an entry of its own term (paper, section 5.4.2).
//! - It leads while a majority answers: it steps down once it has not heard one for the longest election timeout.
//! - What one append carries, and what is on its way to one peer, is bounded.

use super::{Raft, transfer::Transfer};
use crate::{
    Body, Config, Entry, EntryKind, Fetch, Index, Lists, Message, Progress, ProgressState, Ready, ReplicaId,
    Role, Term, log::Log, mutation::Mutation,
};

/// What a leader needs in its term. Of no meaning at others, and without peers there.
#[derive(Debug, Default)]
pub(super) struct Leading {
    /// In order of id.
    pub(super) peers: Vec<Peer>,
    pub(super) heartbeat_is_owed: bool,
    heartbeat_due_ns: u64,
    /// When peers' silence was excused last.
    excused_ns: u64,
    /// The first entry of the term.
    first_index: Index,
    /// Of the driver's entries that are not committed, as [`Entry::cost_bytes`] counts.
    pub(super) uncommitted_bytes: usize,
    pub(super) lease_is_dropped: bool,
    pub(super) transfer: Option<Transfer>,
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: ReplicaId,
    pub(super) progress: Progress,
}

impl Leading {
    pub(super) fn peer(&self, id: ReplicaId) -> Option<&Progress> {
        let nth = self.peers.binary_search_by_key(&id, |peer| peer.id).ok()?;
        Some(&self.peers[nth].progress)
    }

    pub(super) fn peer_mut(&mut self, id: ReplicaId) -> Option<&mut Progress> {
        let nth = self.peers.binary_search_by_key(&id, |peer| peer.id).ok()?;
        Some(&mut self.peers[nth].progress)
    }
}

/// Leading.
impl Raft {
    pub(super) fn become_leader(&mut self) {
        assert_eq!(self.role, Role::Candidate, "a leader was elected");
        self.become_follower(None);
        self.role = Role::Leader;
        self.set_own_leadership();
        self.incoming = None;
        self.reads.restart_rounds();
        let last_index = self.log.last_index();
        let uncommitted = self.log.cached_range(self.commit_index + 1, last_index + 1);
        let uncommitted_bytes = uncommitted.map(counted_bytes).sum();
        self.leading.uncommitted_bytes = uncommitted_bytes;
        self.leading.lease_is_dropped = false;
        self.leading.first_index = last_index + 1;
        self.leading.heartbeat_due_ns = u64::MAX;
        self.match_peers_to_membership();
        self.append_own(EntryKind::Empty, &[]);
    }

    pub(super) fn stop_leading(&mut self) {
        self.leading.peers.clear();
        self.leading.transfer = None;
        self.leading.heartbeat_is_owed = false;
        self.fail_waiting_reads();
    }

    /// Whether the leader has committed something of its own term.
    pub(super) fn has_committed_in_term(&self) -> bool {
        self.commit_index >= self.leading.first_index
    }

    /// Forgets peers that are no members any more, and begins to ask new ones where their logs agree.
    pub(super) fn match_peers_to_membership(&mut self) {
        let membership = self.log.membership().1;
        let (next_index, now_ns) = (self.log.last_index() + 1, self.now_ns);
        self.leading.peers.retain(|peer| membership.is_member(peer.id));
        for id in membership.members().filter(|&id| id != self.config.id) {
            if let Err(nth) = self.leading.peers.binary_search_by_key(&id, |peer| peer.id) {
                self.leading.peers.insert(nth, Peer { id, progress: Progress::new(next_index, now_ns) });
                self.leading.heartbeat_is_owed = true;
            }
        }
    }

    /// What a voter has reached, as the leader knows it; the leader itself has always reached everything.
    pub(super) fn value_of(&self, voter: ReplicaId, of_peer: impl Fn(&Progress) -> u64) -> u64 {
        if voter == self.config.id { u64::MAX } else { self.leading.peer(voter).map_or(0, of_peer) }
    }

    /// When the last voter was heard of those that make a majority.
    fn quorum_heard_ns(&self) -> u64 {
        self.majority_reached(|voter| self.value_of(voter, |peer| peer.heard_ns))
    }

    /// Peers that were there before may be there still.
    pub(super) fn excuse_peers(&mut self) {
        if self.quorum_heard_ns() > self.leading.excused_ns {
            self.leading.excused_ns = self.now_ns;
        }
    }

    pub(super) fn holds_quorum(&self) -> bool {
        self.now_ns < self.quorum_heard_ns().saturating_add(self.config.election_timeout_min_ns)
    }

    fn quorum_deadline_ns(&self) -> u64 {
        let waits_from_ns = self.quorum_heard_ns().max(self.leading.excused_ns);
        waits_from_ns.saturating_add(self.config.election_timeout_max_ns)
    }

    pub(super) fn leader_deadline_ns(&self) -> u64 {
        let answer_ns = self.config.election_timeout_max_ns;
        let snapshots = self.leading.peers.iter().filter_map(|peer| peer.progress.outgoing.as_ref());
        let snapshots = snapshots.filter_map(|outgoing| outgoing.deadline_ns(answer_ns)).min();
        self.leading
            .heartbeat_due_ns
            .min(self.quorum_deadline_ns())
            .min(self.leading.transfer.as_ref().map_or(u64::MAX, |transfer| transfer.deadline_ns))
            .min(snapshots.unwrap_or(u64::MAX))
    }

    pub(super) fn tick_leader(&mut self) {
        if self.now_ns >= self.quorum_deadline_ns() {
            self.become_follower(None);
            return;
        }
        if self.now_ns >= self.leading.heartbeat_due_ns {
            self.leading.heartbeat_is_owed = true;
            self.leading.heartbeat_due_ns = self.next_heartbeat_ns();
        }
        self.tick_transfer();
        let (answer_ns, compacted) = (self.config.election_timeout_max_ns, self.log.snapshot().index);
        for peer in &mut self.leading.peers {
            peer.progress.tick_snapshot(self.now_ns, answer_ns, compacted);
        }
    }

    fn next_heartbeat_ns(&self) -> u64 {
        if self.leading.peers.is_empty() {
            return u64::MAX;
        }
        self.now_ns.saturating_add(self.config.heartbeat_interval_ns)
    }

    /// Commits what a majority holds.
    pub(super) fn advance_commit(&mut self) {
        if self.role != Role::Leader {
            return;
        }
        let own_match = self.own_match();
        let reached = self.majority_reached(|voter| {
            if voter == self.config.id { own_match } else { self.value_of(voter, Progress::match_index) }
        });
        let is_of_this_term = self.log.term_at(reached) == Some(self.term);
        if reached <= self.commit_index || !(is_of_this_term || self.is_on(Mutation::CommitEarlierTerm)) {
            return;
        }
        let committed = self.log.cached_range(self.commit_index + 1, reached + 1);
        let committed_bytes: usize = committed.map(counted_bytes).sum();
        self.leading.uncommitted_bytes -= committed_bytes;
        self.commit_to(reached);
        self.go_on_with_membership();
    }
}

/// What an entry counts among those that are not committed: only the driver's do.
fn counted_bytes(entry: &Entry) -> usize {
    if matches!(entry.kind, EntryKind::Data(_)) { entry.cost_bytes() } else { 0 }
}

/// Sending.
impl Raft {
    /// Tells all peers that the leader is there, if it is time.
    pub(super) fn send_heartbeats(&mut self) {
        if !std::mem::take(&mut self.leading.heartbeat_is_owed) {
            return;
        }
        self.leading.heartbeat_due_ns = self.next_heartbeat_ns();
        let (from, term, sent_ns, read_round) = (self.config.id, self.term, self.now_ns, self.reads.round());
        for Peer { id, progress } in &mut self.leading.peers {
            let commit = self.commit_index.min(progress.match_index());
            progress.told(commit);
            self.outbox.push(Message {
                from,
                to: *id,
                term,
                body: Body::Heartbeat { commit, sent_ns, read_round },
            });
        }
    }

    /// Whether [`Self::send_heartbeats`] or [`Self::send_to_peers`] would do something.
    pub(super) fn has_for_peers(&self) -> bool {
        self.leading.heartbeat_is_owed || self.leading.peers.iter().any(|peer| self.has_for(&peer.progress))
    }

    fn has_for(&self, progress: &Progress) -> bool {
        match progress.state() {
            ProgressState::Probe => progress.may_probe(),
            ProgressState::Replicate => {
                self.lacks_compacted(progress)
                    || self.may_send_entries(progress)
                    || progress.asks()
                    || progress.lacks_commit(self.commit_index)
            }
            ProgressState::Snapshot => progress.outgoing.as_ref().is_some_and(|outgoing| outgoing.has_step()),
        }
    }

    /// Whether the next entry for a peer is behind a snapshot.
    fn lacks_compacted(&self, progress: &Progress) -> bool {
        progress.next_index() <= self.log.snapshot().index
    }

    fn may_send_entries(&self, progress: &Progress) -> bool {
        progress.next_index() <= self.log.last_index()
            && progress.may_replicate(self.config.inflight_messages_max, self.config.inflight_bytes_max)
    }

    /// Sends each peer what it lacks and may get now.
    pub(super) fn send_to_peers(&mut self, ready: &mut Ready) {
        for nth in 0..self.leading.peers.len() {
            let is_probing = self.leading.peers[nth].progress.may_probe();
            let is_replicating = self.leading.peers[nth].progress.state() == ProgressState::Replicate;
            if (is_probing || is_replicating) && self.lacks_compacted(&self.leading.peers[nth].progress) {
                self.leading.peers[nth].progress.send_snapshot();
            } else if is_probing {
                self.probe(nth, &mut ready.lists);
            } else if is_replicating {
                self.replicate(nth, ready);
            }
            self.send_snapshot_step(nth, &mut ready.snapshot_reads);
        }
    }

    /// Asks where the logs agree. Entries go along if they are in memory and few; none is read for a question.
    fn probe(&mut self, nth: usize, lists: &mut Lists) {
        let progress = &self.leading.peers[nth].progress;
        let next_index = progress.next_index();
        let takes_entries = progress.probes_with_entries()
            && !is_fetched(&self.config, &self.log, self.commit_index, next_index);
        let mut entries = Vec::new();
        if takes_entries {
            entries = lists.take();
            self.log.batch(next_index, self.config.append_bytes_max, &mut entries);
        }
        let commit = if entries.is_empty() { 0 } else { self.commit_index };
        self.send_append(nth, entries, commit);
    }

    /// Sends as many entries as the window takes, or asks the driver for them.
    fn replicate(&mut self, nth: usize, ready: &mut Ready) {
        while self.may_send_entries(&self.leading.peers[nth].progress) {
            let Peer { id, progress } = &mut self.leading.peers[nth];
            let (next_index, first_cached) = (progress.next_index(), self.log.first_cached());
            if is_fetched(&self.config, &self.log, self.commit_index, next_index) {
                progress.fetch();
                let bytes_max = self.config.append_bytes_max;
                let to = if next_index < first_cached { first_cached } else { self.log.last_index() + 1 };
                ready.fetches.push(Fetch { peer: *id, from: next_index, to, bytes_max });
                break;
            }
            let mut entries = ready.lists.take();
            self.log.batch(next_index, self.config.append_bytes_max, &mut entries);
            self.send_append(nth, entries, self.commit_index);
        }
        if self.leading.peers[nth].progress.asks() {
            self.send_append(nth, Vec::new(), 0);
        }
        if self.leading.peers[nth].progress.lacks_commit(self.commit_index) {
            self.send_append(nth, Vec::new(), self.commit_index);
        }
    }

    /// Sends an append with these entries, which begin at the peer's next index. Without any it either asks, and then tells nothing
    /// that is committed, or tells that, and needs no answer.
    fn send_append(&mut self, nth: usize, entries: Vec<Entry>, commit: Index) {
        let Peer { id, progress } = &mut self.leading.peers[nth];
        let prev_index = progress.next_index() - 1;
        let prev_term = self.log.term_at(prev_index).expect("terms are known from the snapshot on");
        let bytes = entries.iter().map(Entry::cost_bytes).sum();
        progress.sent(entries.len() as u64, bytes, commit, self.now_ns);
        let to = *id;
        self.send(to, Body::Append { prev_index, prev_term, commit, entries });
    }

    /// The driver read the entries that [`crate::Ready::fetches`] asked for: at least the first one, more as they
    /// fit. `None`: the log does not have them any more, and the peer needs a snapshot. Says whether entries were sent: the peer may need others by now.
    ///
    /// # Panics
    ///
    /// Panics if they are not the entries of this log.
    pub fn fetched(&mut self, peer: ReplicaId, from: Index, entries: Option<Vec<Entry>>) -> bool {
        let Ok(nth) = self.leading.peers.binary_search_by_key(&peer, |peer| peer.id) else { return false };
        let progress = &mut self.leading.peers[nth].progress;
        if !progress.fetched(from) || from <= self.log.snapshot().index {
            return false;
        }
        let Some(entries) = entries.filter(|entries| !entries.is_empty()) else {
            progress.send_snapshot();
            return false;
        };
        for (index, entry) in (from..).zip(&entries) {
            assert_eq!(entry.index, index, "entries were asked for from {from} on");
            assert_eq!(self.log.term_at(index), Some(entry.term), "entry {index} is another than this log's");
        }
        self.send_append(nth, entries, self.commit_index);
        true
    }

    /// The link to a peer broke: what was on its way is lost, and the leader asks again where the logs agree.
    pub fn unreachable(&mut self, peer: ReplicaId) {
        let now_ns = self.now_ns;
        if let Some(progress) = self.leading.peer_mut(peer) {
            progress.unreachable(now_ns);
        }
    }
}

/// Whether the driver is asked for what a peer lacks from here on: it is on the disk, or much of it was committed without the peer,
/// so that no commit waits for it.
fn is_fetched(config: &Config, log: &Log, commit: Index, next_index: Index) -> bool {
    next_index < log.first_cached() || (commit + 1).saturating_sub(next_index) >= config.paced_entries_min
}

/// What peers answer.
impl Raft {
    /// A peer that follows answered.
    pub(super) fn hear(&mut self, from: ReplicaId) -> Option<&mut Progress> {
        let now_ns = self.now_ns;
        let progress = self.leading.peer_mut(from)?;
        progress.heard_ns = now_ns;
        Some(progress)
    }

    pub(super) fn handle_append_reply(&mut self, from: ReplicaId, match_index: Index) {
        let (compacted, last_index, now_ns) = (self.log.snapshot().index, self.log.last_index(), self.now_ns);
        let retry_at_ns = now_ns.saturating_add(self.config.heartbeat_interval_ns);
        let Some(progress) = self.hear(from) else { return };
        assert!(match_index <= last_index, "replica {} acknowledges what the leader does not have", from.0);
        let is_news = progress.acknowledged(match_index, compacted, now_ns);
        // The log was compacted further while that snapshot was on its way.
        let match_index = progress.match_index();
        if let Some(outgoing) =
            progress.outgoing.as_mut().filter(|outgoing| outgoing.is_obsolete(match_index))
        {
            outgoing.begin_anew(retry_at_ns);
        }
        if is_news {
            self.advance_commit();
            self.go_on_with_transfer();
        }
    }

    pub(super) fn handle_append_reject(
        &mut self,
        from: ReplicaId,
        prev_index: Index,
        hint_index: Index,
        hint_term: Term,
    ) {
        if !self.hear(from).is_some_and(|progress| progress.minds_rejection(prev_index)) {
            return;
        }
        // Nothing behind it agrees either, and nothing of a term above the hint's does.
        let hint_index = hint_index.min(prev_index.saturating_sub(1));
        let agreed = self.log.last_not_above(hint_index, hint_term);
        // `None`: they may agree only in front of the snapshot, and its last entry is as good as any for one who
        // needs it.
        let next_index = agreed.map_or(self.log.snapshot().index, |index| index + 1);
        if let Some(progress) = self.leading.peer_mut(from) {
            progress.rejected(next_index);
        }
    }

    pub(super) fn handle_heartbeat_reply(&mut self, from: ReplicaId, sent_ns: u64, read_round: u64) {
        let counts_from =
            if self.is_on(Mutation::LeaseFromArrival) { self.now_ns } else { sent_ns.min(self.now_ns) };
        let Some(progress) = self.hear(from) else { return };
        progress.acknowledged_ns = progress.acknowledged_ns.max(Some(counts_from));
        progress.read_round = progress.read_round.max(read_round);
        progress.answered_heartbeat(sent_ns);
        self.confirm_reads();
    }
}
