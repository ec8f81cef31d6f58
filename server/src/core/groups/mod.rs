//! The shards' Raft groups: what this core's replicas do, from requests to replies.
//!
//! ```text
//! request -> leads? propose : forward to who does        peers' frames -> step
//!                    \________________ ready ________________/
//!                       messages out, entries to the journal
//!                       committed entries -> apply -> reply
//! ```
//!
//! Invariants:
//!
//! - **One way.** Every write of a shard is an entry of its group's log and takes effect when it is applied, on every
//!   replica from the same bytes, timestamp and seed.
//! - **Answered once.** A proposed write is answered when its entry is applied here, whoever leads by then; told from another
//!   entry in its place by the term; or, when this replica cannot learn what became of it in time, with `UNCERTAIN`. It
//!   is proposed again only if another entry has taken its place.
//! - **In order.** A connection's requests for one shard reach its leader in order: while some are on their way to who led
//!   before, later ones wait.
//! - **Time** that reads see never passes a deadline that the shard's log has not passed: a key that was seen to be gone
//!   never comes back, whoever leads.
//! - What waits is bounded in bytes, past which the core takes no more requests, and in time.
//! - What is committed and cannot be applied, because a save must catch up first, is bounded in bytes, past which the core
//!   proposes nothing more and takes no more entries of a group that has such. Applying needs neither.

mod absence;
mod apply;
mod departed;
mod failover;
mod fanout;
mod feature;
mod fetch;
mod forward;
mod leading;
mod leave;
mod locked;
pub mod meta;
mod near;
mod pace;
mod placement;
mod propose;
mod report;
mod restore;
mod run;
mod snapshots;
mod starts;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use duva_engine::{TransactionName, command::Handler};
use duva_raft::{
    AppliedLog, Config, Durability, Entry, HardState, Membership, Payload, Payloads, Raft, ReadMode, Ready,
    ReplicaId, Restored, SnapshotMeta,
};

use super::{
    log::{payload::Decoder, replicated::TAG_COMMAND},
    node::Origin,
    request::{Mode, OwnedRequest, SpareRequests},
};
use crate::cluster::GENESIS_REPLICA;
use absence::Absence;
use departed::Returning;
pub use failover::{Failover, FailoverRefusal};
use fanout::Fanout;
pub(super) use fanout::Verdict;
use fetch::{Fetched, Fetching, JournalPass};
use forward::Forwards;
use leave::{Leavers, Leaving};
use locked::Locked;
use near::NearRead;
use pace::Pace;
pub use report::{ClusterReport, FollowerReport, MetaReport, ShardReport};
pub use restore::{expected_nodes, final_state, own_replicas};
pub(super) use snapshots::INCOMING_MAX;
use snapshots::{Incoming, Outgoing};

/// How long a request waits for a leader, or to learn what became of it, in nanoseconds.
const PATIENCE_NS: u64 = 5_000_000_000;

/// Bytes of requests that wait past which the core takes no more.
const WAITING_BYTES_MAX: usize = 16 << 20;

/// The longest command in a log, in bytes.
const COMMAND_BYTES_MAX: usize = 64 << 20;

/// Bytes of applied entries that a core keeps in memory for followers, all its groups together.
const CACHE_BYTES_A_CORE: usize = 128 << 20;

/// Bytes of committed entries that wait to be applied on a core, because of a save, past which it takes no more.
const COMMITTED_BYTES_MAX: usize = 16 << 20;

/// Bytes of entries that a core applies at once, twice a turn, unless so many times as many wait; and those that each group applies
/// all the same. It has others to serve.
const APPLIED_BYTES_A_TURN: usize = 64 << 10;
const APPLIED_TURNS: usize = 8;
const APPLIED_BYTES_A_GROUP: usize = 8 << 10;

/// What all groups of a node have in common.
#[derive(Clone, Debug)]
pub struct GroupOptions {
    /// This node's number.
    pub number: u32,
    /// The shortest election timeout, in milliseconds; the longest is twice that.
    pub election_timeout_ms: u64,
    /// How reads are let through.
    pub read_mode: ReadMode,
    /// When a copy counts.
    pub durability: Durability,
}

/// The membership that every group begins with.
pub fn genesis_membership() -> Membership {
    Membership::new(&[GENESIS_REPLICA], &[]).expect("one voter is a membership")
}

impl GroupOptions {
    const MS: u64 = 1_000_000;

    /// How often a leader says that it is there, in nanoseconds. All of a node's leaders do so at once.
    pub fn heartbeat_ns(&self) -> u64 {
        self.election_timeout_ms * Self::MS / 3
    }

    fn config(&self, replica: ReplicaId, groups: usize) -> Config {
        let election_ns = self.election_timeout_ms * Self::MS;
        Config {
            election_timeout_min_ns: election_ns,
            election_timeout_max_ns: 2 * election_ns,
            // A little less, so that a heartbeat that is due a moment late is sent with the others all the same.
            heartbeat_interval_ns: self.heartbeat_ns() * 4 / 5,
            lease_ns: election_ns * 4 / 5,
            read_mode: self.read_mode,
            durability: self.durability,
            cache_bytes_max: CACHE_BYTES_A_CORE / groups.max(1),
            append_bytes_max: 128 << 10,
            snapshot_chunk_bytes: 64 << 10,
            ..Config::new(replica)
        }
    }
}

/// When what is due about `period_ns` after `now_ns` is done: at a multiple of `heartbeat_ns`, so that an idle core wakes once for
/// all of it.
pub(in crate::core) fn with_heartbeats(now_ns: u64, period_ns: u64, heartbeat_ns: u64) -> u64 {
    (now_ns + period_ns.saturating_sub(heartbeat_ns / 2).max(1)).next_multiple_of(heartbeat_ns)
}

/// Who asked for what.
#[derive(Clone, Copy)]
struct Asked {
    origin: Origin,
    handler: Handler,
    /// Whether its connection has unfinished writes, which it must not pass.
    is_ordered: bool,
    /// When it came, among all requests: what waits does so in this order, wherever it has been meanwhile.
    order: u64,
    /// When its patience ends, wherever it waits.
    deadline_ns: u64,
    /// When it ends for locked keys; `u64::MAX`: it has not waited for any.
    lock_until_ns: u64,
}

/// A write that was proposed here and is not applied.
struct Pending {
    index: u64,
    term: u64,
    asked: Asked,
    mode: Mode,
    payload: Payload,
    /// When its patience ends, once this replica does not lead any more.
    deadline_ns: u64,
}

/// A read that waits until it may be served.
struct WaitingRead {
    /// Raft's name for it; `None`: its index is known.
    context: Option<u64>,
    index: u64,
    /// The last entry when it came: nothing behind that is applied before it is known where the read may be served.
    limit: u64,
    /// The term of that entry, if its connection wrote before: once another entry is in its place, what was written may come
    /// later.
    limit_term: Option<u64>,
    asked: Asked,
    request: Box<OwnedRequest>,
}

/// A replica of one of this core's shards.
pub(super) struct Group {
    shard: u16,
    raft: Raft,
    /// Makes its entries' payloads.
    payloads: Payloads,
    is_dirty: bool,
    /// When somebody asked for something that is its leader's, in monotonic nanoseconds.
    asked_ns: u64,
    /// Whether its leader need not be answered at once.
    is_unhurried: bool,
    /// Whether the shard should have this replica: who is left out is told nothing more by its leader.
    is_placed: bool,
    /// Who votes, as other nodes were told last, while it leads.
    told_voters: Vec<ReplicaId>,
    /// Whether its leader has said that the group does without it.
    is_dispensable: bool,
    /// When its leader is asked for that again.
    leave_ns: u64,
    /// The last write that was handed out, and the last one that is synced.
    handed_number: u64,
    synced_number: u64,
    /// Proposed here, in order of index.
    pending: VecDeque<Pending>,
    reads: VecDeque<WaitingRead>,
    near_reads: Vec<NearRead>,
    /// What waits for keys that are locked, in order, and how often keys had been unlocked when it was looked at last.
    locked: VecDeque<Locked>,
    seen_unlocks: u64,
    /// Since when this leader has known each transaction that has not ended, in monotonic nanoseconds.
    ages: BTreeMap<TransactionName, u64>,
    /// Committed and not applied, because a save must catch up first.
    committed: VecDeque<Entry>,
    /// Bytes of entries that were applied in this turn.
    applied_bytes: usize,
    /// The last timestamp that was proposed.
    proposed_ms: u64,
    /// The tick that is under way.
    tick_index: u64,
    incoming: Option<Incoming>,
    /// What followers lack that is not in memory, or is much.
    fetching: Vec<Fetching>,
    /// Where reading goes on for followers that were brought on lately.
    fetched: Vec<Fetched>,
    /// When leadership may be handed over again, and how often that came to nothing in a row.
    transfer_ns: u64,
    transfer_failures: u32,
}

/// A request that waits for a leader.
struct Waiting {
    asked: Asked,
    request: Box<OwnedRequest>,
}

/// What a node says of a shard that it leads: for who has no replica here that knows better.
struct Hearsay {
    node: u32,
    term: u64,
    /// Who votes.
    voters: Vec<ReplicaId>,
}

/// Where a shard's requests go.
#[derive(Default)]
struct Route {
    /// Who leads, as far as is known, and in which term.
    leader: Option<u32>,
    term: u64,
    /// Requests that are on their way to other nodes.
    in_flight: u32,
    /// Whether nothing more is sent before those are answered: some went to another than is known to lead now, or were refused.
    is_stale: bool,
    /// Who said last that it leads.
    hearsay: Option<Hearsay>,
    waiting: VecDeque<Waiting>,
}

/// All groups with a replica on this core, and the way to the others.
pub struct Groups {
    options: GroupOptions,
    /// By shard number.
    by_shard: Vec<Option<Box<Group>>>,
    routes: Vec<Route>,
    /// What the disk holds of shards of which this node has no replica now, by shard number: not what memory does.
    idle: Vec<Option<(HardState, SnapshotMeta)>>,
    /// Groups that have something ready.
    dirty: Vec<u16>,
    /// Groups whose committed entries wait for a save: looked at in every turn.
    paused: Vec<u16>,
    /// Whether one of them only waits for the next turn.
    has_backlog: bool,
    /// Bytes of entries that all groups may still apply in this run.
    to_apply_bytes: usize,
    ready: Ready,
    /// The turn's clock.
    now_ns: u64,
    /// When a group has something to do if nothing happens before.
    deadline_ns: u64,
    absence: Absence,
    /// When patience ends next.
    patience_ns: u64,
    /// When what waits for a leader is looked at again.
    retry_ns: u64,
    /// When groups are compared with the cluster's state again, and the meta group's leader is told of them.
    compare_ns: u64,
    report_ns: u64,
    /// When transactions are looked at that may be too old.
    transactions_ns: u64,
    /// What waited for keys and goes on in this turn.
    unlocked: Vec<(u16, Locked)>,
    /// Commands for all shards that wait for some of them.
    fanouts: BTreeMap<u64, Fanout>,
    next_context: u64,
    next_order: u64,
    forwards: Forwards,
    /// Nodes and shards of which a request was refused, and all that follows until the node begins anew.
    refused: BTreeSet<(u32, u16)>,
    /// Memory of requests that waited here.
    requests: SpareRequests,
    waiting_bytes: usize,
    /// Bytes of entries of all groups that are committed and not applied.
    committed_bytes: usize,
    decoder: Decoder,
    outgoing: Vec<Outgoing>,
    /// Whether followers may wait for entries, how those are being read that are not in memory, and what is on its way.
    has_fetches: bool,
    pass: Option<JournalPass>,
    pace: Pace,
    returning: Vec<Returning>,
    next_read: u32,
    /// Which places of snapshots that come are taken: a bit each.
    incoming_places: u32,
    /// Shards whose snapshots found no place, and when the next of them may be asked for.
    refused_snapshots: VecDeque<u16>,
    invite_ns: u64,
    /// When the next piece of a snapshot may be asked for.
    rest_ns: u64,
    /// How many times as long as a piece takes a rest is.
    rests: u64,
    /// Shards whose snapshots wait for a save.
    installs: Vec<u16>,
    /// Shards whose groups are to forget what their newest snapshots hold.
    to_compact: Vec<u16>,
    /// Once the server is to stop: how far it is with leading nothing any more.
    leaving: Option<Box<Leaving>>,
    /// Nodes that stop.
    leavers: Leavers,
    counts: Counts,
}

/// What INFO shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Elections that replicas of this core won.
    pub elections_won: u64,
    /// Requests sent to other nodes.
    pub forwarded: u64,
    /// Requests of other nodes.
    pub served: u64,
    /// Writes whose fate is unknown.
    pub uncertain: u64,
    /// Snapshots that followers were sent whole.
    pub snapshots_sent: u64,
    /// Snapshots of leaders that took the place of what was here.
    pub snapshots_installed: u64,
    /// Reads of the journal for followers that lack what is not in memory.
    pub fetches: u64,
    /// Reads served here because their level did not ask for the leader.
    pub near: u64,
    /// Elections that replicas of this core held because their leader handed over to them.
    pub taken_over: u64,
}

impl Groups {
    /// No group yet, of `shards` shards. `seed` is another one in every start.
    pub fn new(options: GroupOptions, shards: usize, seed: u64) -> Self {
        Self {
            absence: Absence::new(options.heartbeat_ns()),
            options,
            by_shard: (0..shards).map(|_| None).collect(),
            routes: (0..shards).map(|_| Route::default()).collect(),
            idle: (0..shards).map(|_| None).collect(),
            dirty: Vec::new(),
            paused: Vec::new(),
            has_backlog: false,
            to_apply_bytes: 0,
            ready: Ready::default(),
            now_ns: 0,
            deadline_ns: 0,
            patience_ns: u64::MAX,
            retry_ns: u64::MAX,
            compare_ns: 0,
            report_ns: 0,
            transactions_ns: u64::MAX,
            unlocked: Vec::new(),
            fanouts: BTreeMap::new(),
            next_context: 0,
            next_order: 0,
            forwards: Forwards::new(seed),
            refused: BTreeSet::new(),
            requests: SpareRequests::default(),
            waiting_bytes: 0,
            committed_bytes: 0,
            decoder: Decoder::default(),
            outgoing: Vec::new(),
            has_fetches: false,
            pass: None,
            pace: Pace::default(),
            returning: Vec::new(),
            next_read: 0,
            incoming_places: 0,
            refused_snapshots: VecDeque::new(),
            invite_ns: 0,
            rest_ns: u64::MAX,
            rests: snapshots::RESTS_MIN,
            installs: Vec::new(),
            to_compact: Vec::new(),
            leaving: None,
            leavers: Leavers::new(),
            counts: Counts::default(),
        }
    }

    /// Adds this node's replica of a shard, as its disk left it.
    pub fn add(&mut self, shard: u16, replica: ReplicaId, restored: Restored, now_ns: u64, seed: u64) {
        self.add_applied(shard, replica, (restored, AppliedLog::default()), now_ns, seed);
    }

    /// As [`Self::add`], with a shard that is ahead of the snapshot.
    fn add_applied(
        &mut self,
        shard: u16,
        replica: ReplicaId,
        (restored, applied): (Restored, AppliedLog),
        now_ns: u64,
        seed: u64,
    ) {
        let config = self.options.config(replica, self.by_shard.len());
        let payloads = Payloads::new(config.cache_bytes_max / 8);
        let raft = Raft::with_applied(config, restored, applied, now_ns, seed);
        // They are nobody's under whichever id they wait.
        let near_reads = self.by_shard[usize::from(shard)].take().map_or_else(Vec::new, |old| old.near_reads);
        self.by_shard[usize::from(shard)] = Some(Box::new(Group {
            shard,
            raft,
            payloads,
            is_dirty: false,
            asked_ns: 0,
            is_unhurried: false,
            is_placed: true,
            told_voters: Vec::new(),
            is_dispensable: false,
            leave_ns: 0,
            handed_number: 0,
            synced_number: 0,
            pending: VecDeque::new(),
            reads: VecDeque::new(),
            near_reads,
            locked: VecDeque::new(),
            seen_unlocks: 0,
            ages: BTreeMap::new(),
            committed: VecDeque::new(),
            applied_bytes: 0,
            proposed_ms: 0,
            tick_index: 0,
            incoming: None,
            fetching: Vec::new(),
            fetched: Vec::new(),
            transfer_ns: 0,
            transfer_failures: 0,
        }));
        self.deadline_ns = 0;
    }

    /// What there is to do depends on this clock from now on. It does not go back.
    pub fn set_clock(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        self.absence.runs(self.now_ns);
    }

    /// Whether this core did not run for a while before this turn.
    fn was_away(&self) -> bool {
        self.absence.is_noticed()
    }

    /// The turn's clock, in monotonic nanoseconds.
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// When there is something to do if nothing happens before, in nanoseconds of the same clock.
    pub fn next_ns(&self) -> u64 {
        let leave_ns = self.leaving.as_ref().map_or(u64::MAX, |leaving| leaving.until_ns());
        let own_ns = self.deadline_ns.min(self.patience_ns).min(self.retry_ns).min(self.compare_ns);
        let own_ns = own_ns.min(self.absence.due_ns());
        let follower_ns = self.rest_ns.min(self.next_invitation_ns()).min(self.next_pass_ns());
        own_ns.min(leave_ns).min(self.transactions_ns).min(follower_ns)
    }

    /// Whether the next turn has something to do without a completion.
    pub fn has_work(&self) -> bool {
        !self.dirty.is_empty() || self.has_backlog
    }

    /// Whether the disk holds commands, or shards, that are not in memory.
    pub fn has_more_than_memory(&self) -> bool {
        let is_command = |entry: &Entry| entry.kind == duva_raft::EntryKind::Data(TAG_COMMAND);
        let is_behind = |raft: &Raft| {
            raft.entries(raft.applied_index() + 1..raft.last_index() + 1).iter().any(is_command)
        };
        !self.returning.is_empty()
            || self.idle.iter().flatten().any(|(_, snapshot)| snapshot.index > 0)
            || self.replicas().any(|(_, raft)| is_behind(raft))
    }

    /// Whether so much waits that no more requests are to be taken.
    pub fn is_full(&self) -> bool {
        self.waiting_bytes > WAITING_BYTES_MAX
    }

    /// Whether so much is committed and not applied that it must not become more.
    fn is_behind(&self) -> bool {
        self.committed_bytes > COMMITTED_BYTES_MAX
    }

    /// The replica of a shard, if there is one here.
    pub fn raft(&self, shard: usize) -> Option<&Raft> {
        self.by_shard.get(shard)?.as_ref().map(|group| &group.raft)
    }

    /// The counters.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether no replica of a shard is here.
    pub fn is_idle(&self, shard: usize) -> bool {
        self.by_shard[shard].is_none()
    }

    /// Shards of which a replica is here, with it.
    pub fn replicas(&self) -> impl Iterator<Item = (u16, &Raft)> {
        self.by_shard.iter().flatten().map(|group| (group.shard, &group.raft))
    }

    fn mark_dirty(&mut self, shard: u16) {
        if let Some(group) = &mut self.by_shard[usize::from(shard)]
            && !std::mem::replace(&mut group.is_dirty, true)
        {
            self.dirty.push(shard);
        }
    }
}
