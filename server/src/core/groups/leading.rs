//! What leaders say of their shards to all nodes: that they lead, and who votes.
//!
//! ```text
//! Leaders       term (8), voters (8 each)
//! Leaders       with flags: see [`super::departed`]
//! ```
//!
//! Integers are little-endian; the frame's group is the shard. Nodes need it that have no replica of the shard, and none that
//! has one knows by itself which entries are committed.

use duva_raft::{Raft, ReplicaId};

use super::forward::number;
use crate::core::peer::{frame::Kind, links::Peers};

/// Who votes by the last membership that is committed: in both of its halves, as long as it is joint. With these alone the
/// shard does without any one of them, if there are three.
pub(super) fn who_votes(raft: &Raft) -> Vec<ReplicaId> {
    let membership = raft.membership_at(raft.commit_index());
    let votes = |replica: &&ReplicaId| !membership.is_joint() || membership.outgoing.contains(replica);
    membership.voters.iter().filter(votes).copied().collect()
}

/// Tells a node that this one leads a shard.
pub(super) fn tell(peers: &mut Peers, node: u32, shard: u16, term: u64, voters: &[ReplicaId]) {
    let _ = peers.push(node, Kind::Leaders, 0, shard, |out| {
        out.extend_from_slice(&term.to_le_bytes());
        for voter in voters {
            out.extend_from_slice(&voter.0.to_le_bytes());
        }
    });
}

/// Tells all nodes.
pub(super) fn tell_all(peers: &mut Peers, shard: u16, term: u64, voters: &[ReplicaId]) {
    let nodes: Vec<u32> = peers.nodes().collect();
    for node in nodes {
        tell(peers, node, shard, term, voters);
    }
}

/// Reads a term, and who votes if that is said.
pub(super) fn read(flags: u8, payload: &[u8]) -> Option<(u64, Vec<ReplicaId>)> {
    let (term, rest) = payload.split_first_chunk()?;
    let voters =
        if flags == 0 { rest.chunks_exact(size_of::<u64>()) } else { [].chunks_exact(size_of::<u64>()) };
    Some((u64::from_le_bytes(*term), voters.filter_map(number).map(ReplicaId).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voters_are_read_where_they_are_said() {
        let bytes = [7_u64, 1 << 32, 2 << 32].map(u64::to_le_bytes).concat();
        assert_eq!(read(0, &bytes), Some((7, vec![ReplicaId(1 << 32), ReplicaId(2 << 32)])));
        assert_eq!(read(0, &bytes[..8]), Some((7, vec![])));
        assert_eq!(read(2, &bytes[..16]), Some((7, vec![])), "that is no voter");
        assert_eq!(read(0, &bytes[..7]), None);
    }
}
