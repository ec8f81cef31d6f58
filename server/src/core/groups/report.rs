//! What a core says of its groups and links, for INFO.

use duva_raft::{Raft, Role};

use super::Counts;
use crate::cluster::node_of;
use crate::core::{
    node::Node,
    peer::links::{LinkReport, PeerCounts},
};

/// What one core reports of its part in a cluster.
#[derive(Clone, Debug, Default)]
pub struct ClusterReport {
    /// Its replicas, by shard.
    pub shards: Vec<ShardReport>,
    /// Its counters.
    pub counts: Counts,
    /// Bytes of requests that wait for a leader, an entry or another node.
    pub waiting_bytes: usize,
    /// Its links to other nodes.
    pub links: Vec<LinkReport>,
    /// Counters of those.
    pub peers: PeerCounts,
    /// On core 0: the meta group.
    pub meta: Option<MetaReport>,
}

/// What is known of the meta group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetaReport {
    /// The node that leads it, if one is known to.
    pub leader: Option<u32>,
    /// The term of this node's replica.
    pub term: u64,
    /// Its last applied entry.
    pub applied: u64,
    /// The state's epoch.
    pub epoch: u64,
}

/// One replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardReport {
    /// Its shard.
    pub shard: u16,
    /// What it does in its group.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// The node that leads, if one is known to.
    pub leader: Option<u32>,
    /// The last entry that is known to be committed.
    pub commit: u64,
    /// The last entry that is applied.
    pub applied: u64,
    /// The last entry of its log.
    pub last: u64,
    /// The last entry of the snapshot that its log begins behind.
    pub snapshot: u64,
    /// How many replicas the group has.
    pub replicas: usize,
    /// What goes on with it.
    pub state: &'static str,
    /// What the leader knows of the others; empty elsewhere.
    pub followers: Vec<FollowerReport>,
}

/// Another replica of a group that is led here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerReport {
    /// Its node.
    pub node: u32,
    /// The last entry that it is known to hold.
    pub held: u64,
    /// How many entries it is not known to hold.
    pub lag: u64,
    /// How long ago it was heard, in nanoseconds.
    pub silent_ns: u64,
}

impl ShardReport {
    fn of(shard: u16, raft: &Raft, is_installing: bool, now_ns: u64) -> Self {
        let membership = raft.membership();
        let last = raft.last_index();
        let leads = raft.role() == Role::Leader;
        let state = if is_installing {
            "installing"
        } else if raft.transfer_target().is_some() {
            "handing-over"
        } else if membership.is_joint() {
            "changing"
        } else if raft.is_voter() {
            "voter"
        } else if membership.is_member(raft.id()) {
            "learner"
        } else {
            "outside"
        };
        let followers =
            membership.members().filter(|&replica| leads && replica != raft.id()).filter_map(|replica| {
                let progress = raft.progress(replica)?;
                let held = progress.match_index();
                Some(FollowerReport {
                    node: node_of(replica),
                    held,
                    lag: last.saturating_sub(held),
                    silent_ns: now_ns.saturating_sub(progress.heard_ns()),
                })
            });
        Self {
            shard,
            role: raft.role(),
            term: raft.term(),
            leader: raft.leader().map(node_of),
            commit: raft.commit_index(),
            applied: raft.applied_index(),
            last,
            snapshot: raft.snapshot().index,
            replicas: membership.members().count(),
            state,
            followers: followers.collect(),
        }
    }

    /// Its role, as INFO says it.
    pub fn role_name(&self) -> &'static str {
        match self.role {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::Candidate => "candidate",
            Role::PreCandidate => "pre-candidate",
        }
    }
}

impl Node {
    /// This core's groups and links; `None`: the server is no node of a cluster.
    pub(in crate::core) fn cluster_report(&self) -> Option<Box<ClusterReport>> {
        self.cluster_view.as_ref()?;
        let mut report = ClusterReport {
            links: self.peers.link_reports().collect(),
            peers: self.peers.counts,
            ..ClusterReport::default()
        };
        if let Some(groups) = &self.groups {
            report.counts = groups.counts;
            report.waiting_bytes = groups.waiting_bytes;
            let groups_here = groups.by_shard.iter().flatten();
            let shard_reports = groups_here.map(|group| {
                ShardReport::of(group.shard, &group.raft, group.incoming.is_some(), groups.now_ns)
            });
            report.shards = shard_reports.collect();
        }
        report.meta = self.meta.as_ref().map(|meta| MetaReport {
            leader: meta.leader(),
            term: meta.raft().term(),
            applied: meta.raft().applied_index(),
            epoch: meta.state().epoch,
        });
        Some(Box::new(report))
    }
}
