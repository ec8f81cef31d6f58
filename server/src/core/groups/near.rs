//! Reads that this node's replica serves although it need not lead: see [`crate::core::levels`].
//!
//! Invariants:
//!
//! - Only a replica serves them that votes and is where the cluster's state wants it: others may hold nothing yet, or
//!   nothing new any more.
//! - What has applied a floor's index holds the floor's entry, since that was committed. If the log has an entry of
//!   another term there, then the cluster has lost what it had promised, or the floor is none of its own: such a read goes
//!   to the leader, whose answer takes the floor's place if its term is later.
//! - A read waits for a bounded time, and what waits is counted among the bytes that do.

use duva_engine::KeyHash;
use duva_raft::Raft;

use super::{Asked, Group, Groups, propose::Course};
use crate::{
    cluster::session::Position,
    core::{
        levels::Observed,
        node::Node,
        request::{OwnedRequest, Reading, Request},
    },
};

/// A read that waits for this replica to come as far as its connection has seen.
pub(super) struct NearRead {
    floor: Position,
    asked: Asked,
    request: Box<OwnedRequest>,
    deadline_ns: u64,
}

/// Whether a replica may serve a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reach {
    /// It has applied the floor.
    Reached,
    /// It has not.
    Behind,
    /// It has another entry in the floor's place.
    Contradicted,
}

fn reach(raft: &Raft, floor: Position) -> Reach {
    if raft.applied_index() < floor.index {
        return Reach::Behind;
    }
    // What was compacted away is not compared.
    match raft.term_at(floor.index) {
        Some(term) if floor.index > 0 && term != floor.term => Reach::Contradicted,
        _ => Reach::Reached,
    }
}

/// How far a replica has come. What was applied is in the log, or is the snapshot's last.
pub(super) fn applied(shard: u16, raft: &Raft) -> Observed {
    at(shard, raft, raft.applied_index())
}

/// The place of an entry that is applied.
pub(super) fn at(shard: u16, raft: &Raft, index: u64) -> Observed {
    Observed { shard, position: Position { index, term: raft.term_at(index).unwrap_or(0) } }
}

impl Node {
    /// Serves a read here, or lets it wait for that, if its level allows; [`Course::Lost`]: it is the leader's.
    pub(super) fn read_near(
        &mut self,
        groups: &mut Groups,
        shard: u16,
        asked: Asked,
        request: &mut Request<'_>,
    ) -> Course {
        let reading = request.mode.reading;
        // Whatever comes between, the leader serves it.
        request.mode.reading = reading.at_leader();
        let floor = match reading {
            Reading::Stale => Position::default(),
            Reading::Session => match self.floor.take() {
                Some(floor) => floor,
                None => return Course::Lost,
            },
            Reading::Leader | Reading::LeaderTracked => return Course::Lost,
        };
        let Some(group) = &mut groups.by_shard[usize::from(shard)] else { return Course::Lost };
        let is_placed = self.cluster_view.as_ref().is_some_and(|view| {
            view.state.placement.get(usize::from(shard)).is_some_and(|list| list.contains(&group.raft.id()))
        });
        if !is_placed || !group.raft.is_voter() {
            return Course::Lost;
        }
        // Its leader knows when they are free.
        let is_locked = self.finds_locked(shard, request);
        let Some(group) = &mut groups.by_shard[usize::from(shard)] else { return Course::Lost };
        match reach(&group.raft, floor) {
            _ if is_locked => Course::Lost,
            Reach::Reached => {
                groups.counts.near += 1;
                self.observed = (reading == Reading::Session).then(|| applied(shard, &group.raft));
                self.executor.read_ms = self.read_time_ms(shard);
                Course::Execute
            }
            Reach::Behind => {
                let wait_ns = u64::from(self.config.session_wait_ms) * 1_000_000;
                if wait_ns == 0 {
                    return Course::Lost;
                }
                // It is the leader's if this replica does not get there; until then it is told from others by its place.
                let deadline_ns = groups.now_ns + wait_ns;
                groups.patience_ns = groups.patience_ns.min(deadline_ns);
                let mut owned = Box::new(request.to_owned());
                owned.mode.reading = reading.at_leader();
                groups.waiting_bytes += owned.kept_bytes();
                group.near_reads.push(NearRead { floor, asked, request: owned, deadline_ns });
                // So that the connection sends nothing behind it.
                request.mode.reading = reading;
                Course::Waiting
            }
            Reach::Contradicted => Course::Lost,
        }
    }

    /// Takes note of how far the shard of some keys has come, for the reply that comes next.
    #[cold]
    pub(in crate::core) fn observe_applied(&mut self, keys: &[KeyHash]) {
        let (Some(groups), Some(key)) = (&self.groups, keys.first()) else { return };
        let shard = self.executor.shards.number_of(key.slot);
        self.observed = groups.raft(shard).map(|raft| applied(shard as u16, raft));
    }

    /// Serves the reads that this replica has come far enough for.
    pub(super) fn serve_near_reads(&mut self, groups: &mut Groups, group: &mut Group) {
        if group.near_reads.is_empty() {
            return;
        }
        for mut read in std::mem::take(&mut group.near_reads) {
            let reached = reach(&group.raft, read.floor);
            if reached == Reach::Behind {
                group.near_reads.push(read);
                continue;
            }
            groups.waiting_bytes -= read.request.kept_bytes();
            if reached == Reach::Reached && !self.finds_locked(group.shard, &read.request.view()) {
                groups.counts.near += 1;
                self.observed = Some(applied(group.shard, &group.raft));
                self.executor.read_ms = self.read_time_ms(group.shard);
                self.execute_waiting(read.asked, &mut read.request.view());
            } else {
                groups.keep(group.shard, read.asked, &mut read.request.view());
            }
        }
    }
}

impl Groups {
    /// Sends the reads to their leaders whose replicas here have not come far enough in time.
    pub(super) fn give_near_reads_up(&mut self) {
        let now_ns = self.now_ns;
        for place in 0..self.by_shard.len() {
            let Some(group) = &mut self.by_shard[place] else { continue };
            let late: Vec<NearRead> =
                group.near_reads.extract_if(.., |read| read.deadline_ns <= now_ns).collect();
            for mut read in late {
                self.waiting_bytes -= read.request.kept_bytes();
                self.keep(place as u16, read.asked, &mut read.request.view());
                // At once, if there is a leader.
                self.retry_ns = 0;
            }
        }
    }

    /// Sends all of a replica's reads to the leader: it ends.
    pub(super) fn give_near_reads_of(&mut self, group: &mut Group) {
        for mut read in std::mem::take(&mut group.near_reads) {
            self.waiting_bytes -= read.request.kept_bytes();
            self.keep(group.shard, read.asked, &mut read.request.view());
        }
    }

    /// When the first read has waited long enough.
    pub(super) fn near_deadline_ns(&self) -> Option<u64> {
        let reads = self.by_shard.iter().flatten().flat_map(|group| &group.near_reads);
        reads.map(|read| read.deadline_ns).min()
    }
}
