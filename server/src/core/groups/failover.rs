//! CLUSTER FAILOVER: this node is to lead all that it has replicas of.
//!
//! That is a change of the cluster's state, which prefers this node from then on: leaders hand over to it as they do when
//! the placement changes, and none of them is asked to give back what it was just given. Invariant: nothing here breaks
//! what an elected leader relies on; FORCE only ends the waiting for one that is silent.

use duva_raft::Role;

use crate::core::node::Node;

/// How a node is to come to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failover {
    /// Those who lead hand over.
    Agreed,
    /// Where nobody leads any more, this node does not wait for the others to notice.
    Forced,
}

/// Why a node cannot come to lead what it has replicas of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailoverRefusal {
    /// The server stands alone.
    NoCluster,
    /// It has no replica.
    NoReplica,
    /// It can keep nothing.
    JournalHasFailed,
    /// A leader cannot be reached, or there is none.
    LeaderIsAway,
    /// Nobody leads the group that would have to agree.
    NoMetaLeader,
    /// Too much waits for that one.
    Busy,
}

impl FailoverRefusal {
    /// The error's line.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::NoCluster => "ERR This instance has cluster support disabled",
            Self::NoReplica => "ERR You should send CLUSTER FAILOVER to a replica",
            Self::JournalHasFailed => {
                "ERR This node's journal has failed: it leads nothing until it is started anew"
            }
            Self::LeaderIsAway => "ERR Master is down or failed, please use CLUSTER FAILOVER FORCE",
            Self::NoMetaLeader => "TRYAGAIN The cluster has no leader now",
            Self::Busy => "TRYAGAIN Too many changes of the cluster wait",
        }
    }
}

impl Node {
    /// Asks the cluster to have this node lead what it has replicas of.
    ///
    /// # Errors
    /// Why it is not asked.
    pub fn ask_to_lead(&self, failover: Failover) -> Result<(), FailoverRefusal> {
        use crate::cluster::{meta::MetaCommand, node_of};
        let (Some(view), Some(cluster)) = (&self.cluster_view, &self.cluster) else {
            return Err(FailoverRefusal::NoCluster);
        };
        let own = view.number;
        if cluster.broken().contains(&own) {
            return Err(FailoverRefusal::JournalHasFailed);
        }
        let has_replica = |shard: usize| view.state.placement[shard].iter().any(|it| node_of(*it) == own);
        let mut shards = (0..view.state.placement.len()).filter(|&shard| has_replica(shard)).peekable();
        if shards.peek().is_none() {
            return Err(FailoverRefusal::NoReplica);
        }
        let is_there = |leader: u32| leader == own || self.peers.is_up(leader);
        let is_led = |shard: usize| {
            let leader = view.leaders.get(shard).copied().flatten();
            leader.is_some_and(|(leader, _)| is_there(leader))
        };
        if failover == Failover::Agreed {
            if !shards.all(is_led) {
                return Err(FailoverRefusal::LeaderIsAway);
            }
            if cluster.meta_leader().is_none() {
                return Err(FailoverRefusal::NoMetaLeader);
            }
        }
        if !cluster.ask(MetaCommand::Favour(Some(own))) {
            return Err(FailoverRefusal::Busy);
        }
        self.shared.wake();
        Ok(())
    }

    /// Stands for election wherever a replica of this core follows, as soon as it may: not before what it heard from a leader binds
    /// it no more, and with a pre-vote, so that a leader that is there is not disturbed.
    pub(in crate::core) fn campaign(&mut self) {
        let Some(groups) = &mut self.groups else { return };
        let now_ns = groups.now_ns;
        for place in 0..groups.by_shard.len() {
            let Some(group) = &mut groups.by_shard[place] else { continue };
            if group.raft.is_voter() && group.raft.role() == Role::Follower {
                group.raft.campaign(now_ns);
                groups.mark_dirty(place as u16);
            }
        }
        groups.deadline_ns = 0;
    }
}
