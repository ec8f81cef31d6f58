//! What a start makes of what the disk holds of a core's shards.
//!
//! Invariants:
//!
//! - A replica starts under the id that it had: the first that the file of the meta group names for this node, since
//!   replicas change their ids by later entries of that log alone.
//! - What no id is known for stays on disk, for the id that may come, and is not in memory.

use std::collections::BTreeMap;

use duva_raft::{Entry, EntryKind, HardState, Membership, ReplicaId, Restored, SnapshotMeta};

use super::{Groups, fetch::kind_of, genesis_membership};
use crate::cluster::node_of;
use crate::{
    cluster::{file::ClusterFile, meta::MetaCommand, meta::MetaState, meta::NodeInfo},
    storage::ShardLog,
};

/// The nodes that the file's log names, committed or not, and the epoch of its end. Nobody else may know where they are: a
/// node must reach them to learn what is committed.
pub fn expected_nodes(file: &ClusterFile) -> (u64, BTreeMap<u32, NodeInfo>) {
    let mut nodes = file.state.nodes.clone();
    let state = replay(file, |state| nodes.extend(state.nodes.clone()));
    (state.epoch, nodes)
}

/// The state at the end of the file's log, committed or not.
pub fn final_state(file: &ClusterFile) -> MetaState {
    replay(file, |_| {})
}

/// By shard, the id under which this node's replica starts: the first one that may not have ended.
pub fn own_replicas(file: &ClusterFile) -> Vec<Option<ReplicaId>> {
    let mut found = vec![None; usize::from(file.state.shards)];
    for &(shard, replica) in &file.kept {
        found[usize::from(shard)] = Some(replica);
    }
    replay(file, |state| {
        for (found, replicas) in found.iter_mut().zip(&state.placement) {
            let own = replicas.iter().find(|&&replica| node_of(replica) == file.number);
            *found = found.or(own.copied());
        }
    });
    found
}

/// Shows all states from the file's own to the one at the end of its log, which is returned.
fn replay(file: &ClusterFile, mut note: impl FnMut(&MetaState)) -> MetaState {
    let mut state = file.state.clone();
    note(&state);
    for entry in &file.entries {
        if let EntryKind::Data(_) = entry.kind
            && let Ok(command) = MetaCommand::decode(&entry.payload)
        {
            state.apply(&command);
            note(&state);
        }
    }
    state
}

impl Groups {
    /// Adds what the disk holds of a shard, under `replica`, or for one that may come.
    ///
    /// # Errors
    /// A sentence that names the shard.
    pub fn restore(
        &mut self,
        log: ShardLog,
        replica: Option<ReplicaId>,
        now_ns: u64,
        seed: u64,
    ) -> Result<(), String> {
        let shard = log.shard;
        let membership = if log.membership.is_empty() {
            genesis_membership()
        } else {
            Membership::decode(&log.membership).map_err(|error| {
                format!("the snapshot of shard {shard} names replicas that cannot be read: {error:?}")
            })?
        };
        let vote = (log.vote != 0).then_some(ReplicaId(log.vote));
        let restored = Restored {
            hard_state: HardState { term: log.term, vote },
            snapshot: SnapshotMeta { index: log.snapshot_index, term: log.snapshot_term, membership },
            entries: log.entries.into_iter().map(entry_of).collect(),
        };
        match replica {
            Some(replica) => {
                self.add_applied(shard, replica, (restored, log.applied), now_ns, seed);
            }
            None => self.idle[usize::from(shard)] = Some((restored.hard_state, restored.snapshot)),
        }
        Ok(())
    }
}

fn entry_of(entry: crate::storage::LogEntry) -> Entry {
    let kind = kind_of(entry.kind, entry.timestamp_ms);
    Entry {
        index: entry.index,
        term: entry.term,
        timestamp_ms: entry.timestamp_ms,
        seed: entry.seed,
        kind,
        payload: entry.payload,
    }
}
