//! Making the groups what the cluster's state says: which replicas there are, who votes, who leads.
//!
//! Invariants:
//!
//! - A replica that is to come is a learner first, and votes once it has what its leader has.
//! - A state of the cluster that is older than the group's membership changes nothing: it does not know who is in it.
//! - One change of a group at a time; who is to go goes after who is to come has come.
//! - A leader that is to go hands the shard over first: once it is out of the group it does not learn what became of writes that
//!   it proposed.
//! - A leader hands no shard over to a node that it still brings up to date in another: that node has enough to do.
//! - Nothing is handed to a node whose journal has failed, and no replica there begins to count: it can keep nothing.
//! - A node's replica under an earlier id takes part, and is counted on, until the group does without it: its leader sees to
//!   that first. Then it leaves, and the one under the later id begins with what the disk holds.

use std::{net::SocketAddr, sync::Arc};

use duva_raft::{Membership, ProgressState, ReplicaId, Restored, Role, SnapshotMeta};

use super::{Group, Groups, genesis_membership, leading, leave, with_heartbeats};
use crate::{
    cluster::{incarnation_of, meta::MetaState, node_of},
    core::{
        cluster_shared::ShardStatus,
        node::Node,
        peer::frame::{Kind, META_GROUP},
    },
};

/// How often groups are compared with the cluster's state, in nanoseconds.
const COMPARE_NS: u64 = 100_000_000;

/// How often leaders say who votes, in nanoseconds.
const REPORT_NS: u64 = 1_000_000_000;

/// How long after handing leadership over, or getting it, it may be handed over again, at first, in nanoseconds, and how often that doubles.
pub(super) const TRANSFER_NS: u64 = 500_000_000;
const TRANSFER_DOUBLINGS: u32 = 7;

/// Entries that a learner may lack when it gets its vote: they are on their way.
pub(super) const LACKING_MAX: u64 = 64;

/// Entries that a follower lacks of a shard at most if it is not being brought up to date: more than are on their way under load.
const BEHIND_MAX: u64 = 8192;

impl Node {
    /// The groups' clock, in nanoseconds.
    pub fn now_ns(&self) -> u64 {
        self.groups.as_ref().map_or(0, |groups| groups.now_ns)
    }

    /// Takes note of a new state of the cluster, if there is one.
    #[inline]
    pub(in crate::core) fn look_at_cluster(&mut self) {
        if let Some(cluster) = &self.cluster
            && cluster.version() != self.cluster_version
        {
            self.take_cluster_view();
        }
    }

    #[cold]
    fn take_cluster_view(&mut self) {
        let Some(cluster) = self.cluster.clone() else { return };
        self.cluster_version = cluster.version();
        self.answer_meeting();
        let view = cluster.view();
        let has_other_topology =
            self.cluster_view.as_ref().is_some_and(|known| known.has_other_topology(&view));
        self.topology_has_changed |= has_other_topology && self.has_topology_watchers;
        let is_other = self.cluster_view.as_ref().is_none_or(|known| known.state != view.state);
        self.cluster_view = Some(Arc::clone(&view));
        if !is_other {
            return;
        }
        self.take_level(&cluster, view.state.level);
        let mut addresses: Vec<(u32, SocketAddr)> = Vec::new();
        for (&number, node) in &cluster.nodes_to_reach(&view.state) {
            match node.host.parse() {
                Ok(host) => addresses.push((number, SocketAddr::new(host, node.peer_port))),
                Err(_) => tracing::warn!(node = number, host = node.host, "the node's host is no IP address"),
            }
        }
        if view.state.level > self.features.own() {
            addresses.clear();
        }
        self.peers.set_nodes(&addresses);
        let Some(mut groups) = self.groups.take() else { return };
        self.found_replicas(&mut groups, &view.state);
        groups.compare_ns = 0;
        self.groups = Some(groups);
    }

    /// Makes sure that this core has the replicas that it should have.
    fn found_replicas(&mut self, groups: &mut Groups, state: &MetaState) {
        let own = groups.options.number;
        for (shard, replicas) in state.placement.iter().enumerate() {
            if usize::from(self.owners[shard]) != self.core {
                continue;
            }
            let placed = replicas.iter().find(|&&replica| node_of(replica) == own);
            if let Some(&replica) = placed {
                self.found_replica(groups, (shard as u16, replica), state.epoch);
            }
            if let Some(group) = &mut groups.by_shard[shard] {
                let is_placed = placed.is_some_and(|&replica| replica == group.raft.id());
                if group.is_placed != is_placed {
                    group.is_placed = is_placed;
                    groups.mark_dirty(shard as u16);
                }
            }
        }
    }

    /// Makes sure that this core has this replica of a shard. One under an earlier id leaves first: others may count on it.
    fn found_replica(&mut self, groups: &mut Groups, (shard, replica): (u16, ReplicaId), epoch: u64) {
        // Its log would be nobody's after a crash, unless the file of the meta group names it by then.
        if groups.by_shard[usize::from(shard)].is_some()
            || !self.cluster.as_ref().is_some_and(|cluster| cluster.settle(epoch))
        {
            return;
        }
        let idle = &mut groups.idle[usize::from(shard)];
        if idle.as_ref().is_some_and(|(_, snapshot)| snapshot.index > 0) {
            return groups.return_to(shard);
        }
        if !self.cluster.as_ref().is_some_and(|cluster| cluster.begin_replica(shard, replica, epoch)) {
            return;
        }
        let restored = match idle.take() {
            Some((hard_state, snapshot)) => Restored { hard_state, snapshot, entries: Vec::new() },
            None => Restored {
                snapshot: SnapshotMeta { membership: genesis_membership(), ..SnapshotMeta::default() },
                ..Restored::default()
            },
        };
        tracing::info!(shard, replica = replica.0, "a replica of the shard begins here");
        groups.add(shard, replica, restored, groups.now_ns, self.executor.next_seed());
    }

    /// A replica ends: what was asked of it is answered, or goes on elsewhere.
    pub(super) fn end_group(&mut self, groups: &mut Groups, mut group: Group) {
        Groups::drop_committed(&mut groups.committed_bytes, &mut group);
        groups.give_near_reads_of(&mut group);
        self.give_locked_of(groups, &mut group);
        for pending in group.pending {
            self.end_uncertain(groups, group.shard, &pending.asked);
        }
        for read in group.reads {
            self.ask_elsewhere(groups, group.shard, read);
        }
    }

    /// Brings the groups that this core leads closer to what the cluster's state says.
    pub(super) fn compare_groups(&mut self, groups: &mut Groups) {
        if groups.compare_ns > groups.now_ns {
            return;
        }
        groups.compare_ns = with_heartbeats(groups.now_ns, COMPARE_NS, groups.options.heartbeat_ns());
        let (Some(view), Some(cluster)) = (self.cluster_view.clone(), self.cluster.clone()) else { return };
        self.found_replicas(groups, &view.state);
        self.leave_groups(groups, &view.state);
        let (now_ns, is_lost) = (groups.now_ns, self.is_journal_lost());
        let catching_up = catching_up(groups, &view.state, |node| self.peers.is_up(node));
        if is_lost {
            cluster.set_broken(groups.options.number, true);
        }
        let broken = cluster.broken();
        let mut statuses = Vec::new();
        for (shard, replicas) in view.state.placement.iter().enumerate() {
            let (leader, term) = (groups.routes[shard].leader, groups.routes[shard].term);
            if let Some(group) = &mut groups.by_shard[shard]
                && group.raft.role() == Role::Leader
            {
                if knows_all(&view.state, group.raft.membership()) {
                    let is_leaving = |node| leave::is_leaving(&groups.leavers, node, shard as u16, now_ns);
                    compare(group, replicas, (now_ns, is_lost), &catching_up, |node| {
                        self.peers.is_up(node) && !is_leaving(node) && !broken.contains(&node)
                    });
                }
                let voters = leading::who_votes(&group.raft);
                if group.told_voters != voters {
                    leading::tell_all(&mut self.peers, shard as u16, group.raft.term(), &voters);
                    group.told_voters.clone_from(&voters);
                }
                let leader = Some((groups.options.number, term));
                statuses.push((shard as u16, ShardStatus { leader, voters }));
                groups.mark_dirty(shard as u16);
            } else if usize::from(self.owners[shard]) == self.core {
                let said = groups.routes[shard].hearsay.as_ref();
                let said = said.filter(|said| (Some(said.node), said.term) == (leader, term));
                let voters = said.map_or_else(Vec::new, |said| said.voters.clone());
                let leader = leader.map(|node| (node, term));
                statuses.push((shard as u16, ShardStatus { leader, voters }));
            }
        }
        let own = groups.options.number;
        let is_led = |status: &ShardStatus| status.leader.is_some_and(|(leader, _)| leader == own);
        let led: Vec<(u16, ShardStatus)> =
            statuses.iter().filter(|(_, status)| is_led(status)).cloned().collect();
        cluster.update(statuses);
        if groups.report_ns > now_ns {
            return;
        }
        groups.report_ns = now_ns + REPORT_NS;
        let wanted = usize::from(view.state.replication_factor).min(view.state.nodes.len());
        let is_moving = view.state.placement.iter().any(|list| {
            list.len() > wanted || list.iter().any(|it| !view.state.nodes.contains_key(&node_of(*it)))
        });
        if let Some(to) = cluster.meta_leader().filter(|&to| is_moving && to != groups.options.number) {
            let _ = self.peers.push(to, Kind::Leaders, 0, META_GROUP, |out| write_report(out, &led));
        }
    }

    /// Takes what the leaders of some shards say.
    pub(in crate::core) fn take_report(&mut self, from: u32, payload: &[u8]) {
        let Some(cluster) = &self.cluster else { return };
        match read_report(payload) {
            Some(report) => cluster.update(
                report
                    .into_iter()
                    .map(|(shard, term, voters)| (shard, ShardStatus { leader: Some((from, term)), voters })),
            ),
            None => tracing::warn!(node = from, "a report of another node cannot be read"),
        }
    }
}

/// Whether a state of the cluster is as new as a group's membership. A node that starts again knows an earlier one until it has
/// heard from the others.
fn knows_all(state: &MetaState, membership: &Membership) -> bool {
    membership.members().all(|replica| incarnation_of(replica) < state.next_incarnation)
}

/// The nodes that can be reached and are being brought up to date in a shard that this core leads, or have no vote in it yet.
fn catching_up(groups: &Groups, state: &MetaState, is_up: impl Fn(u32) -> bool) -> Vec<u32> {
    let mut nodes = Vec::new();
    for (replicas, group) in state.placement.iter().zip(&groups.by_shard) {
        let Some(raft) = group.as_ref().map(|group| &group.raft).filter(|raft| raft.role() == Role::Leader)
        else {
            continue;
        };
        for &replica in replicas.iter().filter(|&&replica| replica != raft.id()) {
            let node = node_of(replica);
            let is_brought_on = raft.progress(replica).is_some_and(|progress| {
                progress.state() == ProgressState::Snapshot
                    || progress.match_index() + BEHIND_MAX < raft.last_index()
            });
            let is_there = raft.membership().voters.contains(&replica) && !is_brought_on;
            if !is_there && !nodes.contains(&node) && is_up(node) {
                nodes.push(node);
            }
        }
    }
    nodes
}

/// Proposes the next step from a group's membership to `wanted`, whose first is to lead.
fn compare(
    group: &mut Group,
    wanted: &[ReplicaId],
    (now_ns, is_lost): (u64, bool),
    catching_up: &[u32],
    is_up: impl Fn(u32) -> bool,
) {
    if is_lost {
        // What it proposes it cannot keep itself: others change the group.
        return hand_over(group, wanted, (now_ns, is_lost), &[], is_up);
    }
    let raft = &mut group.raft;
    let membership = raft.membership();
    if membership.is_joint() || raft.transfer_target().is_some() {
        return;
    }
    let commit = raft.commit_index();
    // One that has nothing may not have begun, and a vote that nobody casts may be the one that is lacking.
    let is_caught_up = |replica: ReplicaId| {
        let held = raft.progress(replica).map_or(0, |progress| progress.match_index());
        held > 0 && held + LACKING_MAX >= commit
    };
    let mut voters = membership.voters.clone();
    let mut learners: Vec<ReplicaId> = Vec::new();
    for &replica in wanted.iter().filter(|replica| !membership.voters.contains(replica)) {
        if membership.learners.contains(&replica) && is_caught_up(replica) && is_up(node_of(replica)) {
            voters.push(replica);
        } else {
            learners.push(replica);
        }
    }
    // Whose node is to have it under another id goes at once: it comes back once nobody counts on this one.
    let has_other = |voter: &ReplicaId| {
        !wanted.contains(voter) && wanted.iter().any(|&other| node_of(other) == node_of(*voter))
    };
    let is_other_left = voters.iter().any(|voter| !has_other(voter));
    voters.retain(|voter| !is_other_left || !has_other(voter));
    // Who is to go goes when everybody is there.
    if learners.is_empty() && voters.len() == membership.voters.len() {
        voters.retain(|replica| wanted.contains(replica));
    }
    // Others go first.
    if !voters.contains(&raft.id()) && membership.voters.contains(&raft.id()) {
        voters.push(raft.id());
    }
    voters.sort_unstable();
    learners.sort_unstable();
    if !voters.is_empty() && (voters != membership.voters || learners != membership.learners) {
        match raft.propose_membership(now_ns, &voters, &learners) {
            Ok(_) => tracing::info!(shard = group.shard, ?voters, ?learners, "the shard's replicas change"),
            Err(error) => {
                tracing::debug!(shard = group.shard, ?error, "the shard's replicas cannot change now")
            }
        }
        return;
    }
    hand_over(group, wanted, (now_ns, is_lost), catching_up, is_up);
}

/// Hands leadership to the replica that should have it, or, from one that can journal nothing any more or is to go, to any that can.
fn hand_over(
    group: &mut Group,
    wanted: &[ReplicaId],
    (now_ns, is_lost): (u64, bool),
    busy: &[u32],
    is_up: impl Fn(u32) -> bool,
) {
    let raft = &mut group.raft;
    let (own, last) = (raft.id(), raft.last_index());
    if wanted.first() == Some(&own) && !is_lost {
        group.transfer_failures = 0;
        return;
    }
    if now_ns < group.transfer_ns {
        return;
    }
    let heard_ns = now_ns.saturating_sub(2 * raft.config().heartbeat_interval_ns);
    // Up to where it has everything, if it answers and may lead.
    let held = |replica: ReplicaId| {
        let progress = raft.progress(replica).filter(|it| it.heard_ns() >= heard_ns)?;
        let may_lead =
            replica != own && is_up(node_of(replica)) && raft.membership().voters.contains(&replica);
        may_lead.then(|| progress.match_index())
    };
    let is_free = |replica: &ReplicaId| !busy.contains(&node_of(*replica));
    let target = if is_lost || !wanted.contains(&own) {
        // Whoever is the nearest to having everything, one that is wanted before one that is to go as well.
        let others = raft.membership().voters.iter().copied();
        // One that has to go as well leads only where nobody is on the way.
        let may_take = |replica: &ReplicaId| {
            is_lost || wanted.contains(replica) || raft.membership().learners.is_empty()
        };
        let able = others.filter(may_take).filter_map(|replica| Some((replica, held(replica)?)));
        able.max_by_key(|(replica, held)| (wanted.contains(replica), is_free(replica), *held))
            .map(|(replica, _)| replica)
    } else {
        // It has as good as everything: a transfer to another would only keep writes waiting.
        let is_ready = |replica: &ReplicaId| held(*replica).is_some_and(|held| held + LACKING_MAX >= last);
        wanted.first().copied().filter(is_free).filter(is_ready)
    };
    let Some(target) = target else { return };
    if raft.transfer_leadership(now_ns, target).is_ok() {
        // If it comes to nothing, this replica leads on, and waits longer each time.
        group.transfer_ns = now_ns + (TRANSFER_NS << group.transfer_failures.min(TRANSFER_DOUBLINGS));
        group.transfer_failures += 1;
    }
}

/// For each shard: its number (2), term (8), how many voters (1), voters (8 each).
fn write_report(out: &mut Vec<u8>, led: &[(u16, ShardStatus)]) {
    for (shard, status) in led {
        out.extend_from_slice(&shard.to_le_bytes());
        out.extend_from_slice(&status.leader.map_or(0, |(_, term)| term).to_le_bytes());
        out.push(status.voters.len() as u8);
        for voter in &status.voters {
            out.extend_from_slice(&voter.0.to_le_bytes());
        }
    }
}

type Report = Vec<(u16, u64, Vec<ReplicaId>)>;

fn read_report(mut bytes: &[u8]) -> Option<Report> {
    let mut report = Vec::new();
    while !bytes.is_empty() {
        let (shard, rest) = bytes.split_first_chunk()?;
        let (term, rest) = rest.split_first_chunk()?;
        let (&count, rest) = rest.split_first()?;
        let (voters, rest) = rest.split_at_checked(usize::from(count) * size_of::<u64>())?;
        let voters = voters.chunks_exact(size_of::<u64>());
        let voters = voters.filter_map(super::forward::number).map(ReplicaId).collect();
        report.push((u16::from_le_bytes(*shard), u64::from_le_bytes(*term), voters));
        bytes = rest;
    }
    Some(report)
}
