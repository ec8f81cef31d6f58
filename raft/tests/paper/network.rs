//! Replicas, their disks and a network between them, in memory, for the tests of the paper.
//!
//! Messages wait in one queue, and are delivered in order by [`Network::settle`]. Disks sync at once unless they
//! are stalled. The clock moves only when a test says so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use duva_raft::{
    Body, Config, Entry, EntryKind, HardState, Index, Membership, Message, Proposal, ProposeError, Raft,
    ReadOutcome, Ready, ReplicaId, Restored, Role, SnapshotMeta, Term,
};

/// A millisecond.
pub const MS: u64 = 1_000_000;

/// Messages after which a cluster must have come to rest.
const MESSAGES_MAX: usize = 10_000;

/// Replicas and a network.
#[derive(Default)]
pub struct Network {
    /// The clock of all replicas.
    pub now_ns: u64,
    nodes: BTreeMap<u64, Node>,
    queue: VecDeque<Message>,
    cut: BTreeSet<(u64, u64)>,
    /// Every message that was sent, delivered or not.
    pub sent: Vec<Message>,
}

/// A replica with its disk and state machine.
struct Node {
    config: Config,
    raft: Raft,
    is_running: bool,
    is_stalled: bool,
    hard_state: HardState,
    snapshot: SnapshotMeta,
    log: Vec<Entry>,
    unsynced: Vec<duva_raft::Write>,
    applied: Vec<Entry>,
    reads: Vec<(u64, Index)>,
    failed_reads: Vec<u64>,
}

/// What a replica has on its disk at the start.
#[derive(Clone, Default)]
pub struct Start {
    /// Its term.
    pub term: Term,
    /// Its vote.
    pub vote: Option<u64>,
    /// The term of each of its entries.
    pub log: Vec<Term>,
}

/// A start with a log, in the term of its last entry or a later one.
pub fn start(term: Term, log: &[Term]) -> Start {
    Start { term, vote: None, log: log.to_vec() }
}

impl Network {
    /// Voters 1 to `count`, all empty.
    pub fn new(count: u64) -> Self {
        Self::of((0..count).map(|_| Start::default()).collect())
    }

    /// Voters 1, 2, ... with these disks. Who restarts says nothing for a while, so a longest election timeout has
    /// passed.
    pub fn of(starts: Vec<Start>) -> Self {
        Self::configured(starts, |_| {})
    }

    /// The same, with other settings.
    pub fn configured(starts: Vec<Start>, configure: impl Fn(&mut Config)) -> Self {
        let mut network = Self::default();
        let voters: Vec<u64> = (1..=starts.len() as u64).collect();
        for (&id, start) in voters.iter().zip(&starts) {
            let mut config = Config::new(ReplicaId(id));
            configure(&mut config);
            let log: Vec<Entry> = (1..).zip(&start.log).map(|(index, &term)| entry(index, term)).collect();
            let hard_state = HardState { term: start.term, vote: start.vote.map(ReplicaId) };
            let snapshot = SnapshotMeta { membership: members(&voters, &[]), ..SnapshotMeta::default() };
            network.insert(config, hard_state, snapshot, log);
        }
        if starts.iter().any(|start| start.term > 0) {
            network.now_ns += 300 * MS;
        }
        network
    }

    /// Starts an empty replica that knows no membership.
    pub fn join(&mut self, id: u64) {
        let config = Config::new(ReplicaId(id));
        self.insert(config, HardState::default(), SnapshotMeta::default(), Vec::new());
    }

    fn insert(&mut self, config: Config, hard_state: HardState, snapshot: SnapshotMeta, log: Vec<Entry>) {
        let id = config.id.0;
        let restored = Restored { hard_state, snapshot: snapshot.clone(), entries: log.clone() };
        let node = Node {
            raft: Raft::new(config.clone(), restored, self.now_ns, id),
            config,
            is_running: true,
            is_stalled: false,
            hard_state,
            snapshot,
            log,
            unsynced: Vec::new(),
            applied: Vec::new(),
            reads: Vec::new(),
            failed_reads: Vec::new(),
        };
        assert!(self.nodes.insert(id, node).is_none(), "replica {id} is there already");
        self.pump(id);
    }

    /// A replica.
    pub fn raft(&self, id: u64) -> &Raft {
        &self.nodes[&id].raft
    }

    /// The terms of a replica's log.
    pub fn log(&self, id: u64) -> Vec<Term> {
        let raft = self.raft(id);
        raft.entries(raft.first_index()..raft.last_index() + 1).iter().map(|entry| entry.term).collect()
    }

    /// The entries of a replica's log.
    pub fn entries(&self, id: u64) -> Vec<Entry> {
        let raft = self.raft(id);
        raft.entries(raft.first_index()..raft.last_index() + 1)
    }

    /// What a replica applied.
    pub fn applied(&self, id: u64) -> &[Entry] {
        &self.nodes[&id].applied
    }

    /// The reads that a replica may serve, and where.
    pub fn reads(&self, id: u64) -> &[(u64, Index)] {
        &self.nodes[&id].reads
    }

    /// The reads that a replica gave up.
    pub fn failed_reads(&self, id: u64) -> &[u64] {
        &self.nodes[&id].failed_reads
    }

    /// A replica's term and vote on its disk.
    pub fn disk(&self, id: u64) -> HardState {
        self.nodes[&id].hard_state
    }

    /// Who leads, with whom in what term, by every replica's own account.
    pub fn leaders(&self) -> Vec<(u64, Term)> {
        let leads = |node: &&Node| node.is_running && node.raft.role() == Role::Leader;
        self.nodes.values().filter(leads).map(|node| (node.raft.id().0, node.raft.term())).collect()
    }

    fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&id).unwrap_or_else(|| panic!("there is no replica {id}"))
    }

    /// Tells a replica something, and does what follows from it at the replica.
    pub fn tell<T>(&mut self, id: u64, tell: impl FnOnce(&mut Raft, u64) -> T) -> T {
        let now_ns = self.now_ns;
        let result = tell(&mut self.node(id).raft, now_ns);
        self.pump(id);
        result
    }

    /// Has a message arrive that nobody sent.
    pub fn arrives(&mut self, from: u64, to: u64, term: Term, body: Body) {
        let message = Message { from: ReplicaId(from), to: ReplicaId(to), term, body };
        self.tell(to, |raft, now_ns| raft.step(now_ns, message));
    }

    /// Has a replica campaign.
    pub fn campaign(&mut self, id: u64) {
        self.tell(id, |raft, now_ns| raft.campaign(now_ns));
    }

    /// Has a replica campaign and win.
    pub fn elect(&mut self, id: u64) {
        self.campaign(id);
        self.settle();
        assert_eq!(self.raft(id).role(), Role::Leader, "replica {id} is elected");
    }

    /// Proposes a payload.
    pub fn propose(&mut self, id: u64, payload: &str) -> Result<(Index, Term), ProposeError> {
        let proposal = Proposal { timestamp_ms: 0, seed: 0, tag: 0, payload: payload.as_bytes().into() };
        self.tell(id, |raft, now_ns| raft.propose(now_ns, proposal))
    }

    /// Proposes a membership.
    pub fn change(&mut self, id: u64, voters: &[u64], learners: &[u64]) -> Result<Index, ProposeError> {
        let membership = members(voters, learners);
        self.tell(id, |raft, now_ns| {
            raft.propose_membership(now_ns, &membership.voters, &membership.learners)
        })
    }

    /// Begins a read.
    pub fn read(&mut self, id: u64, context: u64) -> Result<ReadOutcome, ProposeError> {
        self.tell(id, |raft, now_ns| raft.read(now_ns, context))
    }

    /// Delivers messages until there are none.
    pub fn settle(&mut self) {
        self.settle_if(|_| true);
    }

    /// Delivers what passes a filter until there are no messages; the rest is lost.
    pub fn settle_if(&mut self, passes: impl Fn(&Message) -> bool) {
        for _ in 0..MESSAGES_MAX {
            let Some(message) = self.queue.pop_front() else { return };
            let (from, to) = (message.from.0, message.to.0);
            let is_up = self.nodes.get(&to).is_some_and(|node| node.is_running);
            if is_up && !self.cut.contains(&(from, to)) && passes(&message) {
                self.tell(to, |raft, now_ns| raft.step(now_ns, message));
            }
        }
        panic!("the cluster does not come to rest");
    }

    /// Loses everything that is on its way.
    pub fn lose_messages(&mut self) {
        self.queue.clear();
    }

    /// Lets time pass with every timer, and delivers everything.
    pub fn run(&mut self, duration_ms: u64) {
        let end_ns = self.now_ns + duration_ms * MS;
        loop {
            let running = self.nodes.iter().filter(|(_, node)| node.is_running);
            let next = running.map(|(&id, node)| (node.raft.next_deadline_ns(), id)).min();
            let Some((deadline_ns, id)) = next.filter(|(deadline_ns, _)| *deadline_ns <= end_ns) else {
                break;
            };
            self.now_ns = self.now_ns.max(deadline_ns);
            self.tell(id, |raft, now_ns| raft.tick(now_ns));
            self.settle();
        }
        self.now_ns = end_ns;
    }

    /// Lets time pass that nobody notices until something happens to him.
    pub fn skip(&mut self, duration_ms: u64) {
        self.now_ns += duration_ms * MS;
    }

    /// Loses what these two sides say to one another from now on.
    pub fn part(&mut self, one: &[u64], other: &[u64]) {
        for &a in one {
            for &b in other {
                self.cut.extend([(a, b), (b, a)]);
            }
        }
    }

    /// Everything arrives again.
    pub fn heal(&mut self) {
        self.cut.clear();
    }

    /// A replica loses power.
    pub fn crash(&mut self, id: u64) {
        let node = self.node(id);
        node.is_running = false;
        node.unsynced.clear();
    }

    /// A replica that seemed to have lost power goes on as if nothing had been.
    pub fn wake(&mut self, id: u64) {
        self.node(id).is_running = true;
    }

    /// A replica starts again, with what its disk has.
    pub fn restart(&mut self, id: u64) {
        let now_ns = self.now_ns;
        let node = self.node(id);
        let restored = Restored {
            hard_state: node.hard_state,
            snapshot: node.snapshot.clone(),
            entries: node.log.iter().filter(|entry| entry.index > node.snapshot.index).cloned().collect(),
        };
        node.raft = Raft::new(node.config.clone(), restored, now_ns, id + 100);
        node.is_running = true;
        node.is_stalled = false;
        node.applied.clear();
        self.pump(id);
    }

    /// A replica's disk syncs nothing, or does again.
    pub fn stall(&mut self, id: u64, is_stalled: bool) {
        self.node(id).is_stalled = is_stalled;
        self.pump(id);
    }

    /// What a replica handed to its stalled disk is written, not synced.
    pub fn write(&mut self, id: u64) {
        let node = self.node(id);
        if let Some(write) = node.unsynced.last() {
            node.raft.written(write.number);
        }
        self.pump(id);
    }

    /// A replica stores a snapshot of what it applied, and forgets its log up to there.
    pub fn snapshot(&mut self, id: u64) {
        let node = self.node(id);
        let index = node.raft.applied_index();
        let term = node.raft.term_at(index).expect("an applied entry's term is known");
        node.snapshot = SnapshotMeta { index, term, membership: node.raft.membership().clone() };
        node.log.retain(|entry| entry.index > index);
        self.tell(id, |raft, _| raft.compact(index));
    }

    /// Does what a replica has ready.
    fn pump(&mut self, id: u64) {
        let now_ns = self.now_ns;
        let node = self.nodes.get_mut(&id).unwrap_or_else(|| panic!("there is no replica {id}"));
        let mut ready = Ready::default();
        loop {
            if !node.is_stalled {
                node.sync();
            }
            if !node.raft.has_ready() {
                return;
            }
            node.raft.take_ready(now_ns, &mut ready);
            self.sent.extend(ready.messages.iter().cloned());
            self.queue.extend(ready.messages.drain(..));
            node.unsynced.extend(ready.write.take());
            node.reads.extend(ready.reads.iter().map(|read| (read.context, read.index)));
            node.failed_reads.extend(&ready.failed_reads);
            if let Some(last) = ready.committed.last() {
                node.applied.extend(ready.committed.iter().cloned());
                node.raft.applied(last.index);
            }
            node.serve(&ready);
        }
    }
}

impl Node {
    /// Makes durable what is not yet.
    fn sync(&mut self) {
        for write in std::mem::take(&mut self.unsynced) {
            self.hard_state = write.hard_state.unwrap_or(self.hard_state);
            if let Some(first) = write.entries.first() {
                self.log.retain(|entry| entry.index < first.index);
                self.log.extend(write.entries);
            }
            self.raft.synced(write.number);
        }
    }

    /// Reads and stores entries and snapshots. A snapshot's only piece is empty: its entries are what it stands
    /// for.
    fn serve(&mut self, ready: &Ready) {
        for fetch in &ready.fetches {
            let range = fetch.from..fetch.to;
            let found: Vec<Entry> =
                self.log.iter().filter(|entry| range.contains(&entry.index)).cloned().collect();
            let is_there = found.first().is_some_and(|first| first.index == fetch.from);
            self.raft.fetched(fetch.peer, fetch.from, is_there.then_some(found));
        }
        for read in &ready.snapshot_reads {
            self.raft.snapshot_read(read.peer, self.snapshot.clone(), read.offset, [].into(), true);
        }
        for write in &ready.snapshot_writes {
            let (index, term) = (write.meta.index, write.meta.term);
            self.raft.snapshot_stored(index, term, write.offset + write.bytes.len() as u64);
            if write.is_last {
                self.sync();
                let keeps_log = self.raft.keeps_log(index, term);
                self.log.retain(|entry| keeps_log && entry.index > index);
                self.snapshot = write.meta.clone();
                self.raft.snapshot_installed(index, term);
            }
        }
    }
}

/// A membership that is not joint.
pub fn members(voters: &[u64], learners: &[u64]) -> Membership {
    let ids = |list: &[u64]| list.iter().map(|&id| ReplicaId(id)).collect();
    Membership { voters: ids(voters), outgoing: Vec::new(), learners: ids(learners) }
}

/// An entry as disks have it at the start; logs that agree on its index and term agree on all of it.
pub fn entry(index: Index, term: Term) -> Entry {
    let payload = format!("{index}/{term}").as_bytes().into();
    Entry { index, term, timestamp_ms: 0, seed: 0, kind: EntryKind::Data(0), payload }
}
