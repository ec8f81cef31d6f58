//! How a node begins: as the first of a cluster, as one that joins, or as what its directory says.
//!
//! Invariants:
//!
//! - A directory belongs to a cluster once the file `cluster` is in it, durably; from then on the options that create or
//!   join one are ignored.
//! - A node that joins learns its number before it makes its directory, and the cluster's shards and hash with it: a
//!   directory is the cluster's from birth.
//! - Who may have lost something acknowledged does not start under its old replicas' names: only as the one node of a new
//!   cluster, which somebody has to ask for.
//! - A directory that is marked to be given up is so, before anything else is done with it: see [`super::meet`]. As long as it is
//!   whole it is not waited for ever for the cluster to join: nothing would be lost with what the node was.

use std::{path::PathBuf, time::Duration};

use duva_raft::{HardState, SnapshotMeta};

use super::{
    feature_level,
    file::{CLUSTER_FILE_NAME, ClusterFile},
    join::{self, JoinError, JoinRequest},
    meet::{MARK_NAME, Mark},
    meta::{MetaState, NodeInfo},
    recover::{self, Foundation},
    starts::{self, STARTS_FILE_NAME, Starts},
    view::node_id_text,
};
use crate::{
    config::{Config, ForceNewCluster, RaftDurability},
    core::groups::{expected_nodes, final_state, own_replicas},
    storage::{Birth, Store},
};

/// For how long nobody of a cluster may answer before a node that has one of its own goes back to that.
const VANISHED: Duration = Duration::from_secs(10);

/// Makes the node of `file` the only one of a new cluster, by the file that is returned, which is durable; `None`: it is
/// the only one already. [`super::recover`] has the rest of it.
fn found_anew(
    config: &Config,
    store: &Store,
    file: &ClusterFile,
    may_have_lost: bool,
) -> Result<Option<ClusterFile>, String> {
    let (_, mut known) = expected_nodes(file);
    let own = match known.remove(&file.number) {
        Some(own) => NodeInfo { level: config.feature_level, ..own },
        // Its cluster has forgotten it.
        None => own_node(config, store)?,
    };
    let may_discard = config.force_new_cluster == ForceNewCluster::DiscardMissing;
    let choices = (may_have_lost, may_discard);
    let plan = recover::plan(file, own, &store.summaries()?, Store::new_id()?, choices);
    let Some(Foundation { file: founded, shards }) = plan.map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    tracing::warn!(
        node = founded.number,
        "force-new-cluster: this node becomes the only one of a new cluster; other nodes of the old one are refused from now \
         on, and what was acknowledged without this node is lost"
    );
    if may_have_lost {
        tracing::warn!("this directory may itself have lost what it had acknowledged, which is accepted");
    }
    shards.iter().for_each(|fate| tracing::warn!("{fate}"));
    store.write_small(CLUSTER_FILE_NAME, &founded.encode())?;
    Ok(Some(founded))
}

/// Where this node is reached, as its configuration says it.
fn own_node(config: &Config, store: &Store) -> Result<NodeInfo, String> {
    let host = config
        .host_to_announce()
        .ok_or("announce-host is needed, because bind does not say where others reach this node")?;
    let id = store.node_id().expect("a directory has an id");
    let (port, peer_port, level) = (config.port, config.peer_port, config.feature_level);
    Ok(NodeInfo { id, host, port, peer_port, level })
}

/// What a node begins with.
pub struct Start {
    /// The file, as it is on disk.
    pub file: ClusterFile,
    /// Where it is.
    pub path: PathBuf,
    /// What was seen of other nodes' starts.
    pub starts: Starts,
}

impl Start {
    /// The start is durable: so is what `force-new-cluster` asked for.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn finish(&self, store: &Store) -> Result<(), String> {
        if !self.file.is_recovering {
            return Ok(());
        }
        let file = ClusterFile { is_recovering: false, ..self.file.clone() };
        store.write_small(CLUSTER_FILE_NAME, &file.encode())?;
        tracing::warn!(
            "this node is the only one of a new cluster now: start it without force-new-cluster from now on, and let others \
             join with empty directories"
        );
        Ok(())
    }
}

/// Whether the server is a node of a cluster: the configuration says so, or the directory. What cannot be looked at is
/// refused when it is opened.
pub fn belongs_to_cluster(config: &Config) -> bool {
    let directory = config.directory.join(&config.append_directory_name);
    let is_there = |name: &str| directory.join(name).exists();
    is_there(CLUSTER_FILE_NAME) || is_there(MARK_NAME) || config.cluster || config.join.is_some()
}

/// Joins a cluster if the configuration says so and there is no directory yet.
///
/// # Errors
/// A sentence that says what the cluster has against it.
pub fn join_first(config: &Config) -> Result<Option<(Birth, ClusterFile)>, String> {
    if let Some(mark) = Store::peek(config, MARK_NAME)? {
        return join_instead(config, &mark);
    }
    let Some(seed) = &config.join else { return Ok(None) };
    if Store::exists(config)? {
        return Ok(None);
    }
    let node = Store::new_id()?;
    join_as(config, seed, node, None).map(Some).map_err(|error| error.to_string())
}

/// Joins the cluster for which this directory's own is given up, and empties it.
fn join_instead(config: &Config, mark: &[u8]) -> Result<Option<(Birth, ClusterFile)>, String> {
    let path = config.directory.join(&config.append_directory_name).join(MARK_NAME);
    let mark = Mark::decode(mark).ok_or_else(|| {
        format!("{} cannot be read; remove it, and the node stays what it was", path.display())
    })?;
    let file = Store::peek(config, CLUSTER_FILE_NAME)?.and_then(|bytes| ClusterFile::decode(&bytes).ok());
    let has_file = file.is_some();
    if file.and_then(|file| file.state.nodes.get(&file.number).map(|it| it.id)) == Some(mark.node) {
        // It has joined, and ended before the mark was removed.
        return Ok(None);
    }
    match join_as(config, &mark.seed, mark.node, has_file.then_some(VANISHED)) {
        Ok(joined) => {
            Store::empty(config, &[CLUSTER_FILE_NAME])?;
            Ok(Some(joined))
        }
        Err(error) if has_file => {
            // It may have been let in by somebody who could not say so any more.
            tracing::error!(
                "this node stays in its own cluster: {error}; if the cluster of {} knows a node {}, let it forget that one",
                mark.seed,
                node_id_text(&mark.node)
            );
            Ok(None)
        }
        Err(error) => Err(error.to_string()),
    }
}

fn join_as(
    config: &Config,
    seed: &str,
    node: [u8; 16],
    silence_max: Option<Duration>,
) -> Result<(Birth, ClusterFile), JoinError> {
    let request = JoinRequest {
        id: node,
        host: config.host_to_announce(),
        port: config.port,
        peer_port: config.peer_port,
        level: config.feature_level,
    };
    let password = (!config.password.is_empty()).then(|| config.password.reveal());
    let answer = join::join(seed, &request, password, silence_max)?;
    let &MetaState { cluster, shards, hash_seed, .. } = &answer.state;
    let birth = Birth { cluster, node, shards, hash_seed };
    let file = answer.into_file();
    tracing::info!(number = file.number, "joined the cluster");
    Ok((birth, file))
}

/// What the directory is to its cluster; `None`: it belongs to none.
///
/// # Errors
/// A sentence that names the file, or says why the directory cannot be a node.
pub fn open(
    config: &Config,
    store: &mut Store,
    joined: Option<ClusterFile>,
) -> Result<Option<Start>, String> {
    let Some(directory) = store.directory() else {
        return if config.cluster || config.join.is_some() {
            Err("a node of a cluster needs a journal: leave appendonly away, or set it to yes".to_owned())
        } else {
            Ok(None)
        };
    };
    let path = directory.join(CLUSTER_FILE_NAME);
    if let Some(bytes) = store.read_small(CLUSTER_FILE_NAME)? {
        let mut file = ClusterFile::decode(&bytes)
            .map_err(|error| format!("{} cannot be read: {error}; restore it from a copy", path.display()))?;
        // Entries may have come that this version cannot read.
        let (agreed, own) = (final_state(&file).level, config.feature_level);
        if agreed > own {
            return Err(format!("{}: {}", path.display(), feature_level::too_old(agreed, own)));
        }
        // Replicas whose copies count in the page cache have lost them with the machine.
        let was_in_memory = config.raft_durability == RaftDurability::Memory && store.has_other_boot();
        let may_have_lost = store.must_not_vote() || was_in_memory;
        if config.force_new_cluster != ForceNewCluster::No && !file.is_recovering {
            match found_anew(config, store, &file, may_have_lost)? {
                Some(founded) => file = founded,
                None => tracing::warn!(
                    "this node is the only one of its cluster already: force-new-cluster has nothing to do, leave it away"
                ),
            }
        } else if file.is_recovering {
            tracing::warn!(
                "an earlier start was making this node the only one of a new cluster: this one goes on with it"
            );
        }
        if file.is_recovering {
            let replicas = own_replicas(&file);
            store.set_alone(replicas);
        } else if may_have_lost {
            return Err(format!(
                "{} may have lost what it had acknowledged, so it must not take part as the node that it was: move it \
                 away, start with join, and let the cluster forget the old node",
                directory.display()
            ));
        }
        store.remove_small(MARK_NAME)?;
        let starts = seen_starts(store, &file)?;
        return Ok(Some(Start { file, path, starts }));
    }
    let file = match joined {
        Some(mut file) => {
            // Who has a log has seen its terms, and a start refuses what says otherwise.
            file.hard_state.term = file.hard_state.term.max(file.snapshot.term);
            file
        }
        None if config.cluster => {
            let node = own_node(config, store)?;
            let cluster = store.cluster_id().expect("a directory has an id");
            let factor = config.replication_factor;
            let state = MetaState::genesis(cluster, store.shards(), store.hash_seed(), factor, node);
            ClusterFile {
                number: 1,
                is_recovering: false,
                cluster,
                hard_state: HardState::default(),
                snapshot: SnapshotMeta {
                    membership: crate::core::groups::genesis_membership(),
                    ..SnapshotMeta::default()
                },
                state,
                entries: Vec::new(),
                kept: Vec::new(),
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
    store.remove_small(MARK_NAME)?;
    Ok(Some(Start { file, path, starts: Starts::new() }))
}

/// What was seen of other nodes' starts, as far as that can be read.
fn seen_starts(store: &Store, file: &ClusterFile) -> Result<Starts, String> {
    let Some(bytes) = store.read_small(STARTS_FILE_NAME)? else { return Ok(Starts::new()) };
    Ok(starts::decode(&bytes, &file.cluster).unwrap_or_else(|error| {
        tracing::warn!("the file {STARTS_FILE_NAME} cannot be read, and is written anew: {error}");
        Starts::new()
    }))
}
