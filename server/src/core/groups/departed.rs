//! Replicas that are not wanted here any more: when they may end, what goes with them, and what comes back.
//!
//! ```text
//! Leaders, ASKS_TO_LEAVE   replica (8): from a node whose replica has lost its place
//! Leaders, MAY_LEAVE       term (8), replica (8): from the leader, whose group does without it
//! ```
//!
//! Invariants:
//!
//! - A replica ends here once the cluster's state names it no more, for good; once the group's leader says that neither the
//!   membership in force nor one that may come back has it, so that nobody counts on it; and once no start of this
//!   node takes up its id again, since the meta group's file begins with such a state and does not keep it. Until then the file does,
//!   whatever state it begins with: another shard's replica may end earlier. Under that id nothing is promised
//!   after that, so all that it knew may go.
//! - Its keys leave memory piece by piece, and never while a save walks them.
//! - On disk its newest snapshot stays until the next rewrite, which the journal names, and its term and vote. What the journal has
//!   behind that is needed no more. A start finds the same, and holds none of it in memory.
//! - The replica that comes back under a new id before that begins with that snapshot, loaded anew, so that memory and disk
//!   agree. It is a state of the shard that was committed. Later it begins with nothing, as a first one does.
//! - A rewrite lets the snapshot go in this order: no replica is placed here, nor coming back; the journal's next header says that
//!   there is nothing of the shard; that header is durable; the file is removed. A start that finds the file
//!   in between has the snapshot again: whatever a newer replica has promised, it is committed, or behind the snapshot and in the log.

use duva_engine::Shard;
use duva_net::io::{FileTask, Io};
use duva_persist::names;
use duva_raft::{Raft, ReplicaId, Restored, Role, SnapshotMeta};

use super::{Groups, Hearsay, forward::number, genesis_membership};
use crate::{
    cluster::{incarnation_of, meta::MetaState, node_of},
    core::{node::Node, peer::frame::Kind, tickets::Ticket},
    storage::SnapshotLoader,
};

/// A frame about leaders whose sender has a replica that is not wanted, and asks whether it may end.
pub(super) const ASKS_TO_LEAVE: u8 = 1;

/// A frame about leaders whose sender leads, and whose receiver's replica may end.
const MAY_LEAVE: u8 = 1 << 1;

/// How often a leader is asked, and how long a snapshot that cannot be read rests, in nanoseconds.
const AGAIN_NS: u64 = 500_000_000;

/// Bytes of a snapshot that are read at once.
const PIECE_BYTES: usize = 256 << 10;

/// A shard whose snapshot is being loaded, because a replica of it comes back.
pub(super) struct Returning {
    shard: u16,
    /// The read that is under way.
    number: Option<u32>,
    loader: Option<SnapshotLoader>,
    offset: u64,
    /// Once all of it was read.
    loaded: Option<(SnapshotMeta, Box<Shard>)>,
    /// When it is begun.
    at_ns: u64,
}

impl Returning {
    /// Whether it waits for this read.
    pub(super) fn is_read(&self, number: u32) -> bool {
        self.number == Some(number)
    }
}

impl Node {
    /// Before the core serves: what the disk holds of shards that no replica of this node has is not kept in memory.
    pub fn empty_idle_shards(&mut self) {
        let Some(groups) = self.groups.take() else { return };
        for (shard, idle) in groups.idle.iter().enumerate() {
            if let Some((_, snapshot)) = idle {
                self.empty_shard(shard as u16, snapshot);
            }
        }
        self.groups = Some(groups);
    }

    /// Lets go of a shard but for what the disk holds of it up to its newest snapshot.
    fn empty_shard(&mut self, shard: u16, snapshot: &SnapshotMeta) {
        let number = usize::from(shard);
        let slots = self.executor.shards.slots_of(number);
        self.replace_shard(number, Box::new(Shard::new(slots, self.executor.hasher.clone())));
        if let Some(log) = &mut self.log {
            log.forget_behind(shard, snapshot.index, snapshot.term);
        }
    }

    /// A rewrite begins: the snapshots of shards that have their places elsewhere are worth their room no longer.
    pub(in crate::core) fn let_idle_snapshots_go(&mut self) {
        let Some(view) = self.cluster_view.clone() else { return };
        let Some(mut groups) = self.groups.take() else { return };
        let own = groups.options.number;
        for (shard, replicas) in (0..).zip(&view.state.placement) {
            let is_wanted = replicas.iter().any(|&replica| node_of(replica) == own);
            let is_returning = groups.returning.iter().any(|returning| returning.shard == shard);
            let is_busy = is_wanted || is_returning || groups.by_shard[usize::from(shard)].is_some();
            let idle = groups.idle[usize::from(shard)].as_mut().filter(|_| !is_busy);
            if let (Some((_, snapshot)), Some(log)) = (idle, &mut self.log)
                && snapshot.index > 0
            {
                tracing::info!(
                    shard,
                    index = snapshot.index,
                    "the snapshot of a shard that has left is let go"
                );
                *snapshot = SnapshotMeta { membership: genesis_membership(), ..SnapshotMeta::default() };
                log.forget_all(shard);
                self.saver.let_go(shard);
            }
        }
        self.groups = Some(groups);
    }

    /// Ends the first of the replicas that are not wanted here any more and may end: with each goes what memory holds of its log. The
    /// others are for the next turns.
    pub(super) fn leave_groups(&mut self, groups: &mut Groups, state: &MetaState) {
        for shard in 0..groups.by_shard.len() {
            let Some(group) = &mut groups.by_shard[shard] else { continue };
            let id = group.raft.id();
            // A state that does not know its incarnation yet is an earlier one than that which brought it.
            let is_over = !group.is_placed && incarnation_of(id) < state.next_incarnation;
            if !is_over || group.raft.role() == Role::Leader {
                continue;
            }
            if !group.is_dispensable {
                if groups.now_ns >= group.leave_ns {
                    group.leave_ns = groups.now_ns + AGAIN_NS;
                    // Its leader is one of those.
                    for to in state.placement[shard].iter().map(|&replica| node_of(replica)) {
                        let write = |out: &mut Vec<u8>| out.extend_from_slice(&id.0.to_le_bytes());
                        let _ = self.peers.push(to, Kind::Leaders, ASKS_TO_LEAVE, shard as u16, write);
                    }
                }
                continue;
            }
            let is_busy = group.synced_number < group.handed_number
                || group.raft.has_ready()
                || group.incoming.is_some()
                || self.saver.is_walking();
            let Some(cluster) = self.cluster.as_ref().filter(|_| !is_busy) else { continue };
            if cluster.let_replica_go(shard as u16, state.epoch) {
                self.leave_group(groups, shard as u16);
                groups.compare_ns = 0;
                return;
            }
        }
    }

    fn leave_group(&mut self, groups: &mut Groups, shard: u16) {
        let place = usize::from(shard);
        let index = self.saver.newest(shard).index;
        let Some(raft) = groups.raft(place) else { return };
        let Some(term) = raft.term_at(index) else { return };
        let snapshot = SnapshotMeta { index, term, membership: raft.membership_at(index).clone() };
        let Some(group) = groups.by_shard[place].take() else { return };
        tracing::info!(shard, replica = group.raft.id().0, "a replica of the shard ends here");
        groups.idle[place] = Some((group.raft.hard_state(), snapshot.clone()));
        self.end_group(groups, *group);
        self.empty_shard(shard, &snapshot);
        if let Some(&Hearsay { node, term, .. }) = groups.routes[place].hearsay.as_ref() {
            groups.set_route(shard, Some(node), term);
        }
        // Who watches clients sees that they go elsewhere from now on.
        groups.retry_ns = 0;
    }

    /// Another node's replica has lost its place: its leader says whether the group does without it.
    pub(super) fn take_wish_to_leave(&mut self, groups: &Groups, from: u32, shard: u16, payload: &[u8]) {
        let (Some(raft), Some(id)) = (groups.raft(usize::from(shard)), number(payload)) else { return };
        if !does_without(raft, ReplicaId(id)) {
            return;
        }
        let term = raft.term();
        let _ = self.peers.push(from, Kind::Leaders, MAY_LEAVE, shard, |out| {
            out.extend_from_slice(&term.to_le_bytes());
            out.extend_from_slice(&id.to_le_bytes());
        });
    }

    /// Goes on with the shards whose replicas come back.
    pub(super) fn run_returning(&mut self, groups: &mut Groups, io: &mut impl Io) {
        if groups.returning.is_empty() {
            return;
        }
        for mut returning in std::mem::take(&mut groups.returning) {
            if let Some((snapshot, shard)) = returning.loaded.take() {
                // If it is not wanted any more, it stays on disk.
                let Some((replica, epoch)) = self.replica_to_begin(groups, returning.shard) else { continue };
                let (cluster, number) =
                    (self.cluster.as_ref().filter(|_| !self.saver.is_walking()), returning.shard);
                if !cluster.is_some_and(|cluster| cluster.begin_replica(number, replica, epoch)) {
                    // The save is let finish; and a start must know of the replica by its new id.
                    returning.loaded = Some((snapshot, shard));
                    groups.returning.push(returning);
                } else {
                    self.come_back(groups, (number, replica), snapshot, shard);
                }
                continue;
            }
            if returning.number.is_none() && groups.now_ns >= returning.at_ns {
                let shard = returning.shard;
                let slots = self.executor.shards.slots_of(usize::from(shard));
                let hasher = self.executor.hasher.clone();
                returning.loader.get_or_insert_with(|| SnapshotLoader::new(shard, slots, hasher));
                groups.next_read = groups.next_read.wrapping_add(1);
                returning.number = Some(groups.next_read);
                let name = names::snapshot(shard, self.saver.newest(shard).index);
                let path = self.journal_directory().join(name);
                let task = FileTask::Read { path, offset_bytes: returning.offset, length_bytes: PIECE_BYTES };
                io.file_task(Ticket::GroupRead(groups.next_read).number(), task);
            }
            groups.returning.push(returning);
        }
    }

    /// The replica of a shard that is to be here and has not begun, and the epoch of the state that says so.
    fn replica_to_begin(&self, groups: &Groups, shard: u16) -> Option<(ReplicaId, u64)> {
        let (place, own) = (usize::from(shard), groups.options.number);
        let state = &self.cluster_view.as_ref().filter(|_| groups.by_shard[place].is_none())?.state;
        let placed = state.placement.get(place)?.iter().copied().find(|&replica| node_of(replica) == own)?;
        groups.idle[place].as_ref().map(|_| (placed, state.epoch))
    }

    /// A shard is as its newest snapshot has it: its replica begins.
    fn come_back(
        &mut self,
        groups: &mut Groups,
        (shard, replica): (u16, ReplicaId),
        snapshot: SnapshotMeta,
        loaded: Box<Shard>,
    ) {
        let place = usize::from(shard);
        let Some((hard_state, _)) = groups.idle[place].take() else { return };
        tracing::info!(
            shard,
            replica = replica.0,
            index = snapshot.index,
            "a replica of the shard comes back"
        );
        self.replace_shard(place, loaded);
        let restored = Restored { hard_state, snapshot, entries: Vec::new() };
        groups.add(shard, replica, restored, groups.now_ns, self.executor.next_seed());
        groups.mark_dirty(shard);
    }
}

/// Whether this replica leads a group that has no use for another, whatever comes.
fn does_without(raft: &Raft, other: ReplicaId) -> bool {
    let membership = raft.membership();
    raft.role() == Role::Leader
        && !membership.is_joint()
        && !membership.is_member(other)
        && membership == raft.membership_at(raft.commit_index())
}

impl Groups {
    /// A leader says something about itself, and perhaps that the replica here may end.
    pub(super) fn take_leave(&mut self, shard: u16, flags: u8, payload: &[u8]) {
        let Some(replica) = payload.get(size_of::<u64>()..).and_then(number) else { return };
        let term = payload.get(..size_of::<u64>()).and_then(number).unwrap_or(0);
        if flags & MAY_LEAVE != 0
            && let Some(group) = &mut self.by_shard[usize::from(shard)]
            && group.raft.id() == ReplicaId(replica)
            && !group.is_placed
            // One that led before may not know that it is counted again.
            && term >= group.raft.term()
        {
            group.is_dispensable = true;
        }
    }

    /// A replica comes back to a shard of which the disk holds a snapshot.
    pub(super) fn return_to(&mut self, shard: u16) {
        if self.returning.iter().all(|returning| returning.shard != shard) {
            self.returning.push(Returning {
                shard,
                number: None,
                loader: None,
                offset: 0,
                loaded: None,
                at_ns: 0,
            });
        }
    }

    /// A piece of a snapshot was read, or could not be.
    pub(super) fn take_returned(&mut self, number: u32, bytes: &[u8], result: Result<(), i32>) {
        let Some(returning) = self.returning.iter_mut().find(|returning| returning.is_read(number)) else {
            return;
        };
        let shard = returning.shard;
        let Some((_, snapshot)) = &self.idle[usize::from(shard)] else { return };
        returning.number = None;
        returning.offset += bytes.len() as u64;
        let taken = result.map_err(|errno| std::io::Error::from_raw_os_error(errno).to_string());
        let taken = taken.and_then(|()| {
            let loader = returning.loader.as_mut().ok_or("it is not being loaded")?;
            loader.feed(bytes)?;
            if bytes.len() == PIECE_BYTES {
                return Ok(None);
            }
            let (header, loaded) = returning.loader.take().expect("it was looked at above").finish()?;
            let names = (header.shard, header.index, header.term);
            if names != (shard, snapshot.index, snapshot.term) {
                return Err("it is of another moment than its name says".to_owned());
            }
            Ok(Some(loaded))
        });
        match taken {
            Ok(loaded) => returning.loaded = loaded.map(|loaded| (snapshot.clone(), loaded)),
            Err(error) => {
                tracing::error!(shard, "the shard's snapshot cannot be loaded, and is tried again: {error}");
                (returning.loader, returning.offset) = (None, 0);
                returning.at_ns = self.now_ns + AGAIN_NS;
            }
        }
    }
}
