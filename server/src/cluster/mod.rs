//! What a cluster is, apart from I/O: its state, the balance of its shards, what clients are told of it, and the file
//! and the first steps of a node.
//!
//! Everything here but [`join`] and [`start`] is pure: the same calls give the same results on every node.

pub mod balance;
mod bytes;
pub mod detector;
pub mod feature_level;
pub mod file;
pub mod join;
pub mod meet;
pub mod meta;
pub mod recover;
pub mod session;
pub mod start;
pub mod starts;
pub mod view;

use duva_raft::ReplicaId;

pub use bytes::DecodeError;

/// The only voter of every group at birth: the first replica of the first node.
pub const GENESIS_REPLICA: ReplicaId = replica(1, 1);

/// The replica of a node with an incarnation. Both count from 1.
pub const fn replica(node: u32, incarnation: u32) -> ReplicaId {
    ReplicaId((node as u64) << 32 | incarnation as u64)
}

/// The number of the node that a replica lives on.
pub const fn node_of(replica: ReplicaId) -> u32 {
    (replica.0 >> 32) as u32
}

/// Which of its node's replicas in the group a replica is.
pub const fn incarnation_of(replica: ReplicaId) -> u32 {
    replica.0 as u32
}
