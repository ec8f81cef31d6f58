//! One replica: its state, its clock, and who does what with a message.

mod election;
mod following;
mod membership;
mod persist;
mod read;
mod replication;
mod snapshot;
mod transfer;

use std::ops::Range;

use self::{
    election::Election, following::Following, persist::Disk, read::Reads, replication::Leading,
    snapshot::Incoming,
};
use crate::{
    AppliedLog, Body, Config, Entry, EntryKind, HardState, Index, Membership, Message, Progress, Proposal,
    ProposeError, Ready, ReplicaId, Restored, Role, SnapshotMeta, SnapshotWrite, Term,
    log::Log,
    membership::majority_value,
    mutation::{self, Mutation},
    random::Random,
};

/// One replica of one group; the [crate] says how to drive it.
#[derive(Debug)]
pub struct Raft {
    config: Config,
    mutation: Option<Mutation>,
    /// The latest time that the driver told.
    now_ns: u64,
    random: Random,
    term: Term,
    vote: Option<ReplicaId>,
    role: Role,
    /// Whom this replica follows, or itself.
    leader: Option<ReplicaId>,
    /// Who leads or led in this term, as far as this replica heard.
    leader_of_term: Option<ReplicaId>,
    log: Log,
    commit_index: Index,
    /// The last entry handed out to be applied.
    handed_commit: Index,
    disk: Disk,
    election: Election,
    following: Following,
    leading: Leading,
    reads: Reads,
    /// The snapshot that comes.
    incoming: Option<Incoming>,
    /// The sender of the snapshot that the driver has no room for, its index and term.
    refused: Option<(ReplicaId, Index, Term)>,
    /// Its pieces, to be handed out.
    snapshot_writes: Vec<SnapshotWrite>,
    /// Messages to be handed out.
    outbox: Vec<Message>,
}

/// Set-up.
impl Raft {
    /// A replica as its disk left it. `seed` is its randomness, and ought to differ between replicas and between starts.
    ///
    /// One that was ever in a term gives no vote, and holds no election, for [`Config::election_timeout_max_ns`]: it
    /// may have acknowledged a leader's heartbeat just before it stopped. A sole voter that gave its last vote to itself
    /// need not wait, and becomes leader at the first [`Self::tick`] and as soon as its vote is synced.
    ///
    /// # Panics
    ///
    /// Panics if the configuration contradicts itself ([`Config::check`]), or if what is restored does: entries that
    /// do not follow the snapshot, terms that fall, a membership that cannot be read.
    pub fn new(config: Config, restored: Restored, now_ns: u64, seed: u64) -> Self {
        Self::with_applied(config, restored, AppliedLog::default(), now_ns, seed)
    }

    /// As [`Self::new`], with a state machine that is ahead of the snapshot: entries behind that are applied, because they are known
    /// to be committed, and not handed out again.
    ///
    /// # Panics
    ///
    /// As [`Self::new`], and if what is applied is not there, or the terms of what was dropped are not known.
    pub fn with_applied(
        config: Config,
        restored: Restored,
        applied: AppliedLog,
        now_ns: u64,
        seed: u64,
    ) -> Self {
        if let Err(reason) = config.check() {
            panic!("{reason}");
        }
        let HardState { term, vote } = restored.hard_state;
        let mut random = Random::new(seed);
        let reads = Reads::new(random.next());
        let log = Log::new(restored, applied, config.cache_bytes_max);
        let applied_index = log.applied_index();
        let mut raft = Self {
            mutation: None,
            now_ns,
            random,
            term,
            vote,
            role: Role::Follower,
            leader: None,
            leader_of_term: None,
            commit_index: applied_index,
            handed_commit: applied_index,
            disk: Disk::new(log.last_index()),
            log,
            election: Election::default(),
            following: Following::default(),
            leading: Leading::default(),
            reads,
            incoming: None,
            refused: None,
            snapshot_writes: Vec::new(),
            outbox: Vec::new(),
            config,
        };
        // A snapshot may have been installed before the term was synced in which it came. No vote of that term can
        // have left.
        if raft.log.last_term() > raft.term {
            raft.set_term(raft.log.last_term());
        }
        raft.start_election_clock();
        raft
    }

    /// Breaks a rule from now on, or none.
    #[cfg(feature = "mutations")]
    pub fn set_mutation(&mut self, mutation: Option<Mutation>) {
        self.mutation = mutation;
    }

    fn is_on(&self, mutation: Mutation) -> bool {
        mutation::is_on(self.mutation, mutation)
    }
}

/// What it is.
impl Raft {
    /// This replica.
    pub fn id(&self) -> ReplicaId {
        self.config.id
    }

    /// How it is set up.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What it does in its group.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The term it is in.
    pub fn term(&self) -> Term {
        self.term
    }

    /// Whom it gave its vote in this term. It may not be durable yet.
    pub fn vote(&self) -> Option<ReplicaId> {
        self.vote
    }

    /// Term and vote. They may not be durable yet.
    pub fn hard_state(&self) -> HardState {
        HardState { term: self.term, vote: self.vote }
    }

    /// Who leads, as far as it knows: whom it follows, or itself.
    pub fn leader(&self) -> Option<ReplicaId> {
        self.leader
    }

    /// The last entry that it knows to be committed.
    pub fn commit_index(&self) -> Index {
        self.commit_index
    }

    /// The last entry that the driver applied.
    pub fn applied_index(&self) -> Index {
        self.log.applied_index()
    }

    /// The last entry of the log; the snapshot's last one if the log is empty.
    pub fn last_index(&self) -> Index {
        self.log.last_index()
    }

    /// The first entry behind the snapshot, whether there is one or not.
    pub fn first_index(&self) -> Index {
        self.log.snapshot().index + 1
    }

    /// The membership in force: the last one in the log, committed or not.
    pub fn membership(&self) -> &Membership {
        self.log.membership().1
    }

    /// The membership in force once `index` is applied, an index from the snapshot's on: what a snapshot there says.
    pub fn membership_at(&self, index: Index) -> &Membership {
        self.log.membership_at(index)
    }

    /// Whether this replica has a vote.
    pub fn is_voter(&self) -> bool {
        self.membership().is_voter(self.config.id)
    }

    /// Where the log begins: what it was compacted to, or what was installed.
    pub fn snapshot(&self) -> &SnapshotMeta {
        self.log.snapshot()
    }

    /// What the leader knows about a peer. `None` at others.
    pub fn progress(&self, peer: ReplicaId) -> Option<&Progress> {
        self.leading.peer(peer)
    }

    /// What the leader knows about its peers, in order of id. Nothing at others.
    pub fn peers(&self) -> impl Iterator<Item = (ReplicaId, &Progress)> {
        self.leading.peers.iter().map(|peer| (peer.id, &peer.progress))
    }

    /// The term of an entry, in memory or not. `None` in front of the snapshot's last one, and behind the last one.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.log.term_at(index)
    }

    /// Entries from `from` on, if that is in memory: the first, and more as long as their cost together stays within `bytes_max`.
    pub fn batch(&self, from: Index, bytes_max: usize) -> Vec<Entry> {
        let mut entries = Vec::new();
        if self.is_cached(from) {
            self.log.batch(from, bytes_max, &mut entries);
        }
        entries
    }

    /// Whether an entry is in memory.
    pub fn is_cached(&self, index: Index) -> bool {
        (self.log.first_cached()..=self.log.last_index()).contains(&index)
    }

    /// Those of some entries that are in memory.
    pub fn entries(&self, range: Range<Index>) -> Vec<Entry> {
        self.log.cached_range(range.start, range.end).cloned().collect()
    }
}

/// Time.
impl Raft {
    /// Runs the timers that are due. May be called at any time.
    pub fn tick(&mut self, now_ns: u64) {
        self.advance_clock(now_ns);
        match self.role {
            Role::Leader => self.tick_leader(),
            Role::Follower | Role::PreCandidate | Role::Candidate => self.tick_election(),
        }
        self.expire_forwarded_reads();
    }

    /// The driver could not run until now, so that nobody was heard, whoever spoke. Instead of standing for election, or of leading no
    /// more, a replica waits for the others anew: once, until it has heard them again, so that a driver that is away again and
    /// again notices all the same who is gone. All promises and leases go on to count by the clock.
    pub fn was_away(&mut self, now_ns: u64) {
        self.advance_clock(now_ns);
        if self.role == Role::Leader {
            self.excuse_peers();
        } else {
            self.excuse_leader();
        }
    }

    /// When [`Self::tick`] has something to do; `u64::MAX` if nothing is planned.
    pub fn next_deadline_ns(&self) -> u64 {
        let role = match self.role {
            Role::Leader => self.leader_deadline_ns(),
            Role::Follower | Role::PreCandidate | Role::Candidate => self.election.deadline_ns,
        };
        role.min(self.reads.deadline_ns())
    }

    /// Time does not go back.
    fn advance_clock(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
    }
}

/// Messages.
impl Raft {
    /// Takes a message from another replica: of its group or not, in any order, as often as it comes. The list of entries that
    /// it brought comes back to be used again.
    ///
    /// # Panics
    ///
    /// Panics if the message shows that a promise was broken: two leaders in one term, a leader that contradicts what
    /// is committed, a peer that lost what it acknowledged.
    pub fn step(&mut self, now_ns: u64, message: Message) -> Vec<Entry> {
        self.advance_clock(now_ns);
        let Message { from, to, term, body } = message;
        if to != self.config.id || from == self.config.id {
            return Vec::new();
        }
        if term < self.term {
            self.answer_lower_term(from, &body);
            return Vec::new();
        }
        if term > self.term {
            match body {
                // The term is only asked for.
                Body::PreVote { .. } | Body::PreVoteReply { granted: true } => {}
                Body::Vote { is_transfer, .. } if self.ignores_elections(is_transfer) => return Vec::new(),
                _ => self.enter_term(term),
            }
        }
        match body {
            Body::PreVote { last_index, last_term } => {
                self.handle_pre_vote(from, term, last_index, last_term)
            }
            Body::PreVoteReply { granted } => self.handle_pre_vote_reply(from, term, granted),
            Body::Vote { last_index, last_term, is_transfer } => {
                self.handle_vote(from, last_index, last_term, is_transfer);
            }
            Body::VoteReply { granted } => self.handle_vote_reply(from, granted),
            Body::Append { prev_index, prev_term, commit, mut entries } => {
                self.follow(from);
                self.handle_append(from, prev_index, prev_term, commit, &mut entries);
                return entries;
            }
            Body::AppendReply { match_index } => self.handle_append_reply(from, match_index),
            Body::AppendReject { prev_index, hint_index, hint_term } => {
                self.handle_append_reject(from, prev_index, hint_index, hint_term);
            }
            Body::Heartbeat { commit, sent_ns, read_round } => {
                self.follow(from);
                self.handle_heartbeat(commit, sent_ns, read_round);
            }
            Body::HeartbeatReply { sent_ns, read_round } => {
                self.handle_heartbeat_reply(from, sent_ns, read_round);
            }
            Body::Snapshot { meta, offset, bytes, is_last } => {
                self.follow(from);
                self.handle_snapshot(from, SnapshotWrite { meta, offset, bytes, is_last });
            }
            Body::SnapshotReply { index, term, next_offset } => {
                self.handle_snapshot_reply(from, index, term, next_offset);
            }
            // It brought a higher term, or came late.
            Body::Stale => {}
            Body::TimeoutNow => self.handle_timeout_now(from),
            Body::ReadIndex { context } => self.handle_read_index(from, context),
            Body::ReadIndexReply { context, index } => self.handle_read_index_reply(from, context, index),
        }
        Vec::new()
    }

    /// The sender is behind. Leaders are told, so that they step down, and so are those who ask for an election.
    fn answer_lower_term(&mut self, from: ReplicaId, body: &Body) {
        match body {
            Body::Append { .. } | Body::Heartbeat { .. } | Body::Snapshot { .. } => {
                self.send(from, Body::Stale)
            }
            Body::PreVote { .. } => self.send(from, Body::PreVoteReply { granted: false }),
            _ => {}
        }
    }

    fn send(&mut self, to: ReplicaId, body: Body) {
        self.send_in_term(to, self.term, body);
    }

    fn send_in_term(&mut self, to: ReplicaId, term: Term, body: Body) {
        self.outbox.push(Message { from: self.config.id, to, term, body });
    }
}

/// Proposals.
impl Raft {
    /// Puts a payload into the log, and says where: [`Ready::committed`] brings it once it is committed.
    ///
    /// If this replica's [`Self::term`] changes before that, then another entry may take its place, or this one may
    /// still be committed: whoever waits for it watches what is committed at this index. Another term there means
    /// that it is lost.
    ///
    /// # Errors
    ///
    /// It does not lead, hands leadership over, or has too much uncommitted already ([`Config::uncommitted_bytes_max`];
    /// with nothing uncommitted any size is taken). Nothing has changed then.
    pub fn propose(&mut self, now_ns: u64, proposal: Proposal) -> Result<(Index, Term), ProposeError> {
        self.advance_clock(now_ns);
        self.check_accepts_proposals()?;
        let Proposal { timestamp_ms, seed, tag, payload } = proposal;
        let entry = Entry {
            index: self.log.last_index() + 1,
            term: self.term,
            timestamp_ms,
            seed,
            kind: EntryKind::Data(tag),
            payload,
        };
        let index = entry.index;
        let bytes = entry.cost_bytes();
        let uncommitted = self.leading.uncommitted_bytes;
        if uncommitted > 0 && uncommitted + bytes > self.config.uncommitted_bytes_max {
            return Err(ProposeError::Busy);
        }
        self.leading.uncommitted_bytes += bytes;
        self.log.append(entry);
        Ok((index, self.term))
    }

    fn check_leads(&self) -> Result<(), ProposeError> {
        if self.role == Role::Leader { Ok(()) } else { Err(ProposeError::NotLeader { leader: self.leader }) }
    }

    fn check_accepts_proposals(&self) -> Result<(), ProposeError> {
        self.check_leads()?;
        self.transfer_target().map_or(Ok(()), |to| Err(ProposeError::Transferring { to }))
    }
}

/// What is to be done.
impl Raft {
    /// Fills `ready` with all that is to be done since the last call, and forgets what it held.
    pub fn take_ready(&mut self, now_ns: u64, ready: &mut Ready) {
        self.advance_clock(now_ns);
        ready.fetches.clear();
        ready.snapshot_reads.clear();
        if self.role == Role::Leader {
            self.start_read_round();
            self.send_heartbeats();
            self.send_to_peers(ready);
        } else {
            self.release_votes();
            self.acknowledge();
        }
        self.take_write(ready);
        self.take_committed(ready);
        hand_over(&mut self.outbox, &mut ready.messages);
        hand_over(&mut self.reads.ready, &mut ready.reads);
        hand_over(&mut self.reads.failed, &mut ready.failed_reads);
        hand_over(&mut self.snapshot_writes, &mut ready.snapshot_writes);
    }

    /// Whether [`Self::take_ready`] would have something to be done.
    pub fn has_ready(&self) -> bool {
        !self.outbox.is_empty()
            || self.disk.has_write(self.log.last_index())
            || self.has_committed()
            || self.reads.has_ready()
            || !self.snapshot_writes.is_empty()
            || match self.role {
                Role::Leader => self.wants_read_round() || self.has_for_peers(),
                Role::Follower => self.has_acknowledgement(),
                Role::PreCandidate | Role::Candidate => false,
            }
    }

    /// The driver applied everything up to `index`, in order. Applied entries leave
    /// memory when it gets tight and they are written.
    ///
    /// # Panics
    ///
    /// Panics if they were not handed out as committed.
    pub fn applied(&mut self, index: Index) {
        assert!(index <= self.handed_commit, "entry {index} was never handed out as committed");
        // A snapshot may have overtaken it.
        if index > self.log.applied_index() {
            self.log.applied(index);
            self.log.evict(self.disk.written_index());
        }
    }

    fn has_committed(&self) -> bool {
        self.handed_commit < self.commit_index && !self.is_installing()
    }

    fn take_committed(&mut self, ready: &mut Ready) {
        ready.committed.clear();
        if !self.has_committed() {
            return;
        }
        let entries = self.log.cached_range(self.handed_commit + 1, self.commit_index + 1);
        ready.committed.extend(entries.cloned());
        let count = self.commit_index - self.handed_commit;
        assert_eq!(ready.committed.len() as u64, count, "what is not applied is in memory");
        self.handed_commit = self.commit_index;
    }

    /// Knows that everything up to `index` is committed.
    fn commit_to(&mut self, index: Index) {
        assert!(index <= self.log.last_index(), "entry {index} is committed, and this replica lost it");
        self.commit_index = self.commit_index.max(index);
    }

    /// The largest value that a majority has reached, of both halves while the membership is joint.
    fn majority_reached(&self, value_of: impl Fn(ReplicaId) -> u64) -> u64 {
        let membership = self.membership();
        let new = majority_value(&membership.voters, &value_of);
        if !membership.is_joint() || self.is_on(Mutation::JointByNewAlone) {
            return new;
        }
        new.min(majority_value(&membership.outgoing, &value_of))
    }
}

/// Moves everything over, and keeps both allocations for the next time.
fn hand_over<T>(from: &mut Vec<T>, to: &mut Vec<T>) {
    to.clear();
    std::mem::swap(from, to);
}
