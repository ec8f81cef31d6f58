//! How a node begins: as the first of a cluster, as one that joins, or as what its directory says.
//!
//! Invariants:
//!
//! - A directory belongs to a cluster once the file `cluster` is in it, durably; from then on the options that create or
//!   join one are ignored.
//! - A node that joins learns its number before it makes its directory, and the cluster's shards and hash with it: a
//!   directory is the cluster's from birth.
//! - Who may have lost something acknowledged does not start under its old replicas' names.

use std::path::PathBuf;

use duva_raft::{HardState, SnapshotMeta};

use super::{
    file::{CLUSTER_FILE_NAME, ClusterFile},
    join::{self, JoinAnswer, JoinRequest},
    meta::{MetaState, NodeInfo},
};
use crate::{
    config::{Config, RaftDurability},
    storage::{Birth, Store},
};

/// What a node begins with.
pub struct Start {
    /// The file, as it is on disk.
    pub file: ClusterFile,
    /// Where it is.
    pub path: PathBuf,
}

/// Whether the server is a node of a cluster: the configuration says so, or the directory. What cannot be looked at is
/// refused when it is opened.
pub fn belongs_to_cluster(config: &Config) -> bool {
    let path = config.directory.join(&config.append_directory_name).join(CLUSTER_FILE_NAME);
    path.exists() || config.cluster || config.join.is_some()
}

/// Joins a cluster if the configuration says so and there is no directory yet.
///
/// # Errors
/// A sentence that says what the cluster has against it.
pub fn join_first(config: &Config) -> Result<Option<(Birth, ClusterFile)>, String> {
    let Some(seed) = &config.join else { return Ok(None) };
    if Store::exists(config)? {
        return Ok(None);
    }
    let node = Store::new_node_id()?;
    let request = JoinRequest {
        id: node,
        host: config.host_to_announce(),
        port: config.port,
        peer_port: config.peer_port,
    };
    let password = (!config.password.is_empty()).then(|| config.password.reveal());
    let answer = join::join(seed, &request, password, None).map_err(|error| error.to_string())?;
    let JoinAnswer { number, state, snapshot } = answer;
    let birth = Birth { cluster: state.cluster, node, shards: state.shards, hash_seed: state.hash_seed };
    let file = ClusterFile {
        number,
        cluster: state.cluster,
        hard_state: HardState::default(),
        snapshot,
        state,
        entries: Vec::new(),
    };
    tracing::info!(number = file.number, "joined the cluster");
    Ok(Some((birth, file)))
}

/// What the directory is to its cluster; `None`: it belongs to none.
///
/// # Errors
/// A sentence that names the file, or says why the directory cannot be a node.
pub fn open(config: &Config, store: &Store, joined: Option<ClusterFile>) -> Result<Option<Start>, String> {
    let Some(directory) = store.directory() else {
        return if config.cluster || config.join.is_some() {
            Err("a node of a cluster needs a journal: leave appendonly away, or set it to yes".to_owned())
        } else {
            Ok(None)
        };
    };
    let path = directory.join(CLUSTER_FILE_NAME);
    if let Some(bytes) = store.read_small(CLUSTER_FILE_NAME)? {
        let file = ClusterFile::decode(&bytes)
            .map_err(|error| format!("{} cannot be read: {error}; restore it from a copy", path.display()))?;
        // Replicas whose copies count in the page cache have lost them with the machine.
        let was_in_memory = config.raft_durability == RaftDurability::Memory && store.has_other_boot();
        if store.must_not_vote() || was_in_memory {
            return Err(format!(
                "{} may have lost what it had acknowledged, so it must not take part as the node that it was: move it \
                 away, start with join, and let the cluster forget the old node",
                directory.display()
            ));
        }
        return Ok(Some(Start { file, path }));
    }
    let file = match joined {
        Some(file) => file,
        None if config.cluster => {
            let host = config
                .host_to_announce()
                .ok_or("announce-host is needed, because bind does not say where others reach this node")?;
            let node = NodeInfo {
                id: store.node_id().expect("a directory has an id"),
                host,
                port: config.port,
                peer_port: config.peer_port,
            };
            let cluster = store.cluster_id().expect("a directory has an id");
            let factor = config.replication_factor;
            let state = MetaState::genesis(cluster, store.shards(), store.hash_seed(), factor, node);
            ClusterFile {
                number: 1,
                cluster,
                hard_state: HardState::default(),
                snapshot: SnapshotMeta {
                    membership: crate::core::groups::genesis_membership(),
                    ..SnapshotMeta::default()
                },
                state,
                entries: Vec::new(),
            }
        }
        None if config.join.is_some() => {
            return Err(format!(
                "{} holds data that belongs to no cluster: a node joins with an empty directory",
                directory.display()
            ));
        }
        None => return Ok(None),
    };
    store.write_small(CLUSTER_FILE_NAME, &file.encode())?;
    Ok(Some(Start { file, path }))
}
