//! Whoever administers the groups: replaces what was lost, grows a group to its size, and now and then changes something
//! for no reason.
//!
//! - A replica that lost something never comes back: its node gets a new one, under a new id, as a learner.
//! - A node may lose its data only while a minority of every membership that may be in force has.
//! - A replica is forgotten once a committed membership that is later than all that named it does not.

use std::collections::BTreeMap;

use duva_raft::{Index, Membership, ReplicaId, Role};

use super::{actions::Action, node::Node, outside::Outside, queue::Event, random::Random};

/// What is known of a group.
#[derive(Default)]
pub(crate) struct Group {
    /// The last committed membership that any replica applied.
    committed: (Index, Membership),
    /// The last committed membership that named a replica.
    named: BTreeMap<ReplicaId, Index>,
    /// Replicas that no committed membership has named yet.
    joining: Vec<ReplicaId>,
    /// Replicas that lost something and are still members.
    lost: Vec<ReplicaId>,
}

impl Group {
    pub(crate) fn new(membership: Membership) -> Self {
        let mut group = Self::default();
        group.see_committed(0, membership);
        group
    }

    /// A replica applied a membership.
    pub(crate) fn see_committed(&mut self, index: Index, membership: Membership) {
        if index < self.committed.0 {
            return;
        }
        for &id in members(&membership) {
            self.named.insert(id, index);
        }
        self.joining.retain(|id| !self.named.contains_key(id));
        self.committed = (index, membership);
    }

    /// A replica's disk is gone.
    pub(crate) fn lose(&mut self, id: ReplicaId) {
        self.joining.retain(|&joining| joining != id);
        self.lost.push(id);
    }

    fn is_named(&self, id: ReplicaId) -> bool {
        members(&self.committed.1).any(|&member| member == id)
    }

    /// Nothing is to be done: all members are there, and as many as there should be.
    pub(crate) fn is_settled(&self, voters_wanted: usize) -> bool {
        let (_, membership) = &self.committed;
        self.joining.is_empty()
            && membership.outgoing.is_empty()
            && membership.voters.len() >= voters_wanted
            && !self.lost.iter().any(|&id| self.is_named(id))
    }

    pub(crate) fn committed(&self) -> &Membership {
        &self.committed.1
    }
}

/// The node whose replica leads, in the highest term.
pub(crate) fn leader_of(nodes: &[Node], group: usize) -> Option<usize> {
    let leading = nodes.iter().filter(|node| node.is_up && !node.is_paused).filter_map(|node| {
        let replica = node.replicas[group].as_ref().filter(|replica| replica.raft.role() == Role::Leader)?;
        Some((replica.raft.term(), node.id))
    });
    leading.max().map(|(_, node)| node)
}

/// Whether the groups can do without what is on this node.
pub(crate) fn may_lose(nodes: &[Node], groups: &[Group], node: usize) -> bool {
    groups.iter().enumerate().all(|(group, known)| {
        let Some(id) = nodes[node].replica_id(group) else { return true };
        let is_minority = |voters: &[ReplicaId]| {
            let lost = voters.iter().filter(|&&voter| voter == id || known.lost.contains(&voter)).count();
            voters.is_empty() || 2 * lost < voters.len()
        };
        let is_fine =
            |membership: &Membership| is_minority(&membership.voters) && is_minority(&membership.outgoing);
        let on_disks = nodes.iter().filter_map(|node| node.disk.written[group].as_ref());
        let in_memory = nodes.iter().filter_map(|node| node.replicas[group].as_ref());
        is_fine(&known.committed.1)
            && on_disks.flat_map(|image| image.memberships()).all(|membership| is_fine(&membership))
            && in_memory.map(|replica| replica.raft.membership()).all(is_fine)
    })
}

/// Looks after a group.
pub(crate) fn look(nodes: &mut [Node], group: &mut Group, number: usize, outside: &mut Outside) {
    forget(nodes, group, number, outside);
    let Some(leader) = leader_of(nodes, number) else { return };
    add_replica(nodes, group, number, outside);
    let Some(replica) = &mut nodes[leader].replicas[number] else { return };
    let present = replica.raft.membership().clone();
    if present != group.committed.1 || !present.outgoing.is_empty() {
        return;
    }
    let raft = &replica.raft;
    let commit = raft.commit_index();
    let is_ready =
        |id: ReplicaId| raft.progress(id).is_some_and(|progress| progress.match_index() + 10 >= commit);
    let is_churning = !outside.is_over && outside.random.permille(outside.setup.churn_permille);
    let ready: Vec<ReplicaId> = present.learners.iter().copied().filter(|&id| is_ready(id)).collect();
    let wanted = outside.setup.voters_wanted;
    let Some(next) = plan(&mut outside.random, group, &present, &ready, wanted, is_churning) else { return };
    let local_ns = nodes[leader].clock.local_ns(outside.now_ns);
    let Some(replica) = &mut nodes[leader].replicas[number] else { return };
    let result = replica.raft.propose_membership(local_ns, &next.voters, &next.learners);
    outside.trace.note(outside.now_ns, [8, number as u64, u64::from(result.is_ok())], || {
        format!("operator wants {next:?} of group {number} at node {leader}: {result:?}")
    });
    nodes[leader].wake(outside);
    if result.is_ok() && !outside.is_over && outside.random.permille(outside.setup.change_cut_permille) {
        split(outside, leader, &present, &next);
    }
}

fn members(membership: &Membership) -> impl Iterator<Item = &ReplicaId> {
    membership.voters.iter().chain(&membership.outgoing).chain(&membership.learners)
}

/// Forgets replicas that are not members any more.
fn forget(nodes: &mut [Node], group: &mut Group, number: usize, outside: &mut Outside) {
    for node in nodes {
        let Some(id) = node.replica_id(number) else { continue };
        let is_member = group.is_named(id) || !group.named.contains_key(&id);
        if !is_member && (outside.is_over || outside.random.permille(300)) {
            outside
                .trace
                .note(outside.now_ns, [9, number as u64, id.0], || format!("forget {number} {}", id.0));
            node.forget(number);
        }
    }
    let committed = &group.committed.1;
    group.lost.retain(|id| !group.named.contains_key(id) || members(committed).any(|member| member == id));
}

/// Makes a new replica where there is none, if the group is too small.
fn add_replica(nodes: &mut [Node], group: &mut Group, number: usize, outside: &mut Outside) {
    let (_, membership) = &group.committed;
    let alive = members(membership).filter(|id| !group.lost.contains(id)).count() + group.joining.len();
    let is_small = alive < outside.setup.voters_wanted;
    let is_churning = !outside.is_over && outside.random.permille(outside.setup.churn_permille / 2);
    if !is_small && !is_churning {
        return;
    }
    let empty: Vec<usize> = nodes
        .iter()
        .filter(|node| node.is_up && node.replica_id(number).is_none())
        .map(|node| node.id)
        .collect();
    if empty.is_empty() {
        return;
    }
    let node = outside.random.pick(&empty);
    let id = outside.new_replica(node);
    group.joining.push(id);
    nodes[node].create(outside, number, id, Membership::default());
}

/// The next membership, if there should be another. It can do without those who are lost.
fn plan(
    random: &mut Random,
    group: &Group,
    present: &Membership,
    ready: &[ReplicaId],
    wanted: usize,
    is_churning: bool,
) -> Option<Membership> {
    let mut next = present.clone();
    next.learners.retain(|id| !group.lost.contains(id));
    // A lost voter is replaced in one change, or goes at once.
    let voters_lost = next.voters.iter().any(|id| group.lost.contains(id));
    if voters_lost && (!ready.is_empty() || random.permille(300)) {
        next.voters.retain(|id| !group.lost.contains(id));
    }
    let alive = next.voters.iter().filter(|id| !group.lost.contains(id)).count();
    for &id in &present.learners {
        let is_ready = ready.contains(&id) || random.permille(50);
        if is_ready
            && next.learners.contains(&id)
            && (next.voters.len() < wanted || alive < wanted && random.coin())
        {
            next.learners.retain(|&learner| learner != id);
            next.voters.push(id);
        }
    }
    for &id in &group.joining {
        if random.permille(100) { next.voters.push(id) } else { next.learners.push(id) }
    }
    if is_churning {
        churn(random, &mut next, ready);
    }
    let lost = next.voters.iter().filter(|id| group.lost.contains(id)).count();
    if 2 * lost >= next.voters.len() {
        return None;
    }
    next.voters.sort_unstable();
    next.learners.sort_unstable();
    (next != *present).then_some(next)
}

fn churn(random: &mut Random, next: &mut Membership, ready: &[ReplicaId]) {
    if ready.len() > 1 && random.coin() {
        // As many as there are take the place of others, of the leader too.
        let stay = next.voters.len().saturating_sub(ready.len());
        next.voters.drain(stay..);
        next.voters.extend_from_slice(ready);
        next.learners.retain(|id| !next.voters.contains(id));
        return;
    }
    let changes = random.between(1, 2);
    for _ in 0..changes {
        let place = random.index(next.voters.len().max(1));
        match random.below(3) {
            0 if next.voters.len() > 1 => {
                next.voters.remove(place);
            }
            1 if next.voters.len() > 1 => {
                let id = next.voters.remove(place);
                next.learners.push(id);
            }
            _ => {
                // Whoever is ready takes the place of others, up to all of them.
                let new: Vec<ReplicaId> =
                    ready.iter().copied().filter(|id| next.learners.contains(id)).collect();
                for id in new {
                    next.learners.retain(|&learner| learner != id);
                    if random.coin() && next.voters.len() > 1 {
                        next.voters.remove(0);
                    }
                    next.voters.push(id);
                }
            }
        }
    }
}

/// The leader and the new voters on one side, the old ones on the other.
fn split(outside: &mut Outside, leader: usize, present: &Membership, next: &Membership) {
    let is_new = |id: &ReplicaId| !present.voters.contains(id);
    let mut side = vec![leader];
    side.extend(next.voters.iter().filter(|id| is_new(id)).map(|id| outside.homes[id.0 as usize]));
    let others: Vec<usize> = (0..outside.setup.nodes).filter(|node| !side.contains(node)).collect();
    let is_late = outside.random.coin();
    let delay_ns = if is_late { outside.random.below(1_500_000) } else { 0 };
    let length_ns = outside.random.between(200, 700) * 1_000_000;
    for &one in &side {
        for &other in &others {
            for (from, to) in [(one, other), (other, one)] {
                outside.later(delay_ns, Event::Action(Action::Block { from, to }));
                outside.later(delay_ns + length_ns, Event::Action(Action::Unblock { from, to }));
            }
        }
    }
}

/// A node's replicas are lost: they never come back. What stays to be done is [`look`]'s.
pub(crate) fn lose(nodes: &mut [Node], groups: &mut [Group], node: usize) {
    for (number, group) in groups.iter_mut().enumerate() {
        let Some(id) = nodes[node].replica_id(number) else { continue };
        group.lose(id);
        nodes[node].forget(number);
    }
}
