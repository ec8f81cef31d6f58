//! A node that stops hands over what it leads, and nobody waits for answers that it will not give.
//!
//! ```text
//! who stops                                   every other node
//! Leaving(shard)  ------------------------->  sends it no more requests for the shard, and does not let it lead
//!    transfer, answers to what was sent       until nothing of the shard is on its way to who stops:
//!                 <-------------------------  Leaving(shard), confirmed
//! ```
//!
//! Invariants:
//!
//! - A confirmation is sent behind the last request for that shard, and once all of them are answered: a link that breaks
//!   after it takes nothing along.
//! - Who has said that it leaves is believed for a bounded time, or until a link to it breaks or is made anew: the node
//!   that comes back on the same directory is as good as any.
//! - Nothing here is needed for safety: what is lost on the way costs the time until the bound.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use duva_raft::{Raft, ReplicaId, Role};

use super::{Group, GroupOptions, Groups, placement::LACKING_MAX};
use crate::{
    cluster::node_of,
    core::{
        node::Node,
        peer::frame::{Kind, META_GROUP},
    },
};

/// How long a node that stops tries at least to lead nothing any more, in nanoseconds.
const LEAVE_NS_MIN: u64 = 1_000_000_000;

/// The flag of a frame that answers another.
const CONFIRMED: u8 = 1;

/// Nodes that leave a shard, and until when that is believed.
pub(super) type Leavers = BTreeMap<(u32, u16), u64>;

/// Whether a node leaves a shard.
#[inline]
pub(super) fn is_leaving(leavers: &Leavers, node: u32, shard: u16, now_ns: u64) -> bool {
    !leavers.is_empty() && leavers.get(&(node, shard)).is_some_and(|&until_ns| now_ns < until_ns)
}

/// How far this core is with leading nothing any more.
pub(super) struct Leaving {
    /// When it stops all the same.
    until_ns: u64,
    handed: Handed,
    /// Shards of which the others were told.
    told: BTreeSet<u16>,
    /// Who has not confirmed that.
    unconfirmed: BTreeSet<(u32, u16)>,
}

impl Leaving {
    /// When the core stops all the same.
    pub(super) fn until_ns(&self) -> u64 {
        self.until_ns
    }
}

impl GroupOptions {
    /// How long a node that stops tries to lead nothing any more: one transfer may fail.
    fn leave_ns(&self) -> u64 {
        LEAVE_NS_MIN.max(4 * self.election_timeout_ms * Self::MS)
    }
}

/// Who was handed what by this core.
#[derive(Default)]
struct Handed {
    /// By group, to whom its leadership was handed.
    by_group: BTreeMap<u16, Vec<ReplicaId>>,
    /// By node, how often.
    by_node: BTreeMap<u32, usize>,
}

impl Handed {
    /// Who should lead a group instead of `raft`: a voter that can be reached, was not asked before, answers, has as good as
    /// everything, and was given the least so far. `None`: there is nobody.
    fn successor(
        &self,
        group: u16,
        raft: &Raft,
        is_up: impl Fn(u32) -> bool,
        now_ns: u64,
    ) -> Option<ReplicaId> {
        let heard_ns = now_ns.saturating_sub(2 * raft.config().heartbeat_interval_ns);
        let earlier = self.by_group.get(&group).map_or(&[][..], Vec::as_slice);
        let voters = raft.membership().voters.iter().copied();
        let others = voters.filter(|&voter| voter != raft.id() && is_up(node_of(voter)));
        others.max_by_key(|&voter| {
            let times = earlier.iter().filter(|&&other| other == voter).count();
            let progress = raft.progress(voter);
            let answers = progress.is_some_and(|progress| progress.heard_ns() >= heard_ns);
            let held = progress.map_or(0, |progress| progress.match_index());
            let is_caught_up = held + LACKING_MAX >= raft.last_index();
            let given = self.by_node.get(&node_of(voter)).copied().unwrap_or(0);
            (Reverse(times), answers, is_caught_up, Reverse(given), held, Reverse(voter))
        })
    }

    /// Has another replica lead if this one does and there is one; returns whether it leads and somebody could.
    fn hand_over(&mut self, group: u16, raft: &mut Raft, is_up: impl Fn(u32) -> bool, now_ns: u64) -> bool {
        if raft.role() != Role::Leader {
            return false;
        }
        if raft.transfer_target().is_some() {
            return true;
        }
        let Some(to) = self.successor(group, raft, is_up, now_ns) else { return false };
        if raft.transfer_leadership(now_ns, to).is_ok() {
            self.by_group.entry(group).or_default().push(to);
            *self.by_node.entry(node_of(to)).or_default() += 1;
        }
        true
    }
}

impl Node {
    /// Goes on with leading nothing any more; returns whether there is nothing left to do, or no time.
    pub(in crate::core) fn hand_all_over(&mut self) -> bool {
        let Some(mut groups) = self.groups.take() else { return true };
        let now_ns = groups.now_ns;
        let mut leaving = groups.leaving.take().unwrap_or_else(|| {
            let led = groups.replicas().filter(|(_, raft)| raft.role() == Role::Leader).count();
            tracing::info!(led, "handing over what this node leads");
            Box::new(Leaving {
                until_ns: now_ns + groups.options.leave_ns(),
                handed: Handed::default(),
                told: BTreeSet::new(),
                unconfirmed: BTreeSet::new(),
            })
        });
        let broken = self.cluster.as_ref().map(|cluster| cluster.broken()).unwrap_or_default();
        let mut is_done = !self.hand_meta_over(&mut leaving, &groups.leavers, now_ns);
        for place in 0..groups.by_shard.len() {
            let Some(group) = &mut groups.by_shard[place] else { continue };
            is_done &= !self.hand_group_over(group, &mut leaving, (&groups.leavers, &broken), now_ns);
            if group.raft.has_ready() {
                groups.mark_dirty(place as u16);
            }
        }
        // What the meta group has to say leaves with the next turn.
        groups.has_backlog |= self.meta.as_ref().is_some_and(|meta| meta.raft().has_ready());
        leaving.unconfirmed.retain(|&(node, _)| self.peers.is_up(node));
        is_done &= leaving.unconfirmed.is_empty();
        let is_late = leaving.until_ns <= now_ns;
        if is_late && !is_done {
            let led = groups.replicas().filter(|(_, raft)| raft.role() == Role::Leader).count();
            tracing::warn!(led, "not everything was handed over in time");
        }
        groups.leaving = (!is_done && !is_late).then_some(leaving);
        self.groups = Some(groups);
        is_done || is_late
    }

    /// Returns whether there is something to wait for.
    fn hand_group_over(
        &mut self,
        group: &mut Group,
        leaving: &mut Leaving,
        (leavers, broken): (&Leavers, &BTreeSet<u32>),
        now_ns: u64,
    ) -> bool {
        let shard = group.shard;
        let is_up = |node: u32| {
            self.peers.is_up(node) && !is_leaving(leavers, node, shard, now_ns) && !broken.contains(&node)
        };
        let leads = leaving.handed.hand_over(shard, &mut group.raft, is_up, now_ns);
        if group.raft.role() == Role::Leader && !leads {
            // Nobody takes it over.
            return false;
        }
        if leaving.told.insert(shard) {
            let nodes: Vec<u32> = self.peers.nodes().filter(|&node| self.peers.is_up(node)).collect();
            for node in nodes {
                let _ = self.peers.push(node, Kind::Leaving, 0, shard, |_| {});
                leaving.unconfirmed.insert((node, shard));
            }
        }
        leads || !group.pending.is_empty()
    }

    /// The same for the meta group, on the core that has it.
    fn hand_meta_over(&mut self, leaving: &mut Leaving, leavers: &Leavers, now_ns: u64) -> bool {
        let Some(meta) = &mut self.meta else { return false };
        // A node leaves all shards, or none.
        let is_up = |node| {
            let leaves = leavers.iter().any(|(&(other, _), &until_ns)| other == node && now_ns < until_ns);
            self.peers.is_up(node) && !leaves
        };
        leaving.handed.hand_over(META_GROUP, meta.raft_mut(), is_up, now_ns)
    }

    /// A node says that it leaves a shard, or confirms that it knows that this one does.
    pub(super) fn take_leaving(&mut self, groups: &mut Groups, from: u32, shard: u16, flags: u8) {
        if flags & CONFIRMED != 0 {
            if let Some(leaving) = &mut groups.leaving {
                leaving.unconfirmed.remove(&(from, shard));
            }
            return;
        }
        let until_ns = groups.now_ns + 2 * groups.options.leave_ns();
        groups.leavers.insert((from, shard), until_ns);
        self.confirm_leaving(groups, from, shard);
    }

    /// Confirms that a node leaves a shard, once it has nothing of the shard to answer.
    pub(super) fn confirm_leaving(&mut self, groups: &Groups, node: u32, shard: u16) {
        if is_leaving(&groups.leavers, node, shard, groups.now_ns) && !groups.forwards.has_some(node, shard) {
            let _ = self.peers.push(node, Kind::Leaving, CONFIRMED, shard, |_| {});
        }
    }
}

impl Groups {
    /// What a node has said of its leaving is of no meaning any more: it is gone, or new.
    pub(super) fn forget_leaver(&mut self, node: u32) {
        self.leavers.retain(|&(other, _), _| other != node);
    }
}
