//! Making a surviving node the only one of a new cluster (`force-new-cluster`), after a majority was lost for good.
//!
//! ```text
//! look at the logs   refused here, nothing is changed
//! cluster file       a new cluster of this node alone, and the flag that its logs may not say so yet
//! the start commits  each log that does not end with this node's replica as the only member gets that as its next entry
//! cluster file       without the flag
//! ```
//!
//! Invariants:
//!
//! - The first file decides: before it is durable the directory is the old cluster's, unchanged. From then on it is the new
//!   one's, and a start that finds the flag goes on, whether it is told to or not.
//! - The new cluster has an id of its own, so nodes of the old one are refused wherever they dial; and replicas have ids that
//!   they never had. Nothing that was promised under the old names counts in the new cluster, nor the other way round.
//! - No entry that the disk holds is dropped: all of every log counts as committed, of a learner's and of a left-over one too.
//! - What is appended follows from a log alone, and once it is there nothing more is.

use std::{collections::BTreeMap, fmt, path::Path};

use duva_persist::format::Kind;
use duva_raft::{EntryKind, HardState, Membership, ReplicaId, SnapshotMeta};

use super::{
    file::{CLUSTER_FILE_NAME, ClusterFile},
    incarnation_of,
    meta::{MetaState, NodeInfo},
    node_of, replica,
};
use crate::{
    config::{Config, ForceNewCluster},
    core::groups::{final_state, genesis_membership},
    storage::{LogEntry, ShardLog},
};

/// How many shards a refusal names.
const NAMED_MAX: usize = 32;

/// What the disk holds of a shard's log, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSummary {
    /// The last entry, or the snapshot's; 0: there is none.
    pub last_index: u64,
    /// Its term.
    pub last_term: u64,
    /// The last membership, committed or not.
    pub membership: Membership,
}

/// What a node has of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// A replica that voted.
    Voter,
    /// One that was still catching up when the majority was lost.
    Learner,
    /// What is left of a replica that was to be elsewhere. Nobody knows how long ago.
    LeftOver,
    /// Nothing.
    Nothing,
}

/// What becomes of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardFate {
    /// The shard.
    pub shard: u16,
    /// What this node has of it.
    pub holding: Holding,
    /// The last entry that is there; 0: none.
    pub last_index: u64,
    /// Its term.
    pub last_term: u64,
}

impl fmt::Display for ShardFate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shard, last_index, last_term, .. } = self;
        let what = match self.holding {
            Holding::Voter => "what this node's replica has is kept",
            Holding::Learner => {
                "this node's replica was not a voter yet: what it has is kept, and much may be missing"
            }
            Holding::LeftOver => {
                "this node was not to have it any more: what is left of its replica is kept, and may be old"
            }
            Holding::Nothing => {
                return write!(formatter, "shard {shard}: this node has nothing of it: it begins empty");
            }
        };
        write!(
            formatter,
            "shard {shard}: {what}: up to entry {last_index} of term {last_term}; whatever others had behind it is lost"
        )
    }
}

/// A new cluster that is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foundation {
    /// The file that makes it so.
    pub file: ClusterFile,
    /// What becomes of each shard.
    pub shards: Vec<ShardFate>,
}

/// Why there can be no new cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundationError {
    /// Nothing, or nothing that must have been recent, is here of these shards.
    MissingShards(Vec<u16>),
    /// Numbers of nodes or incarnations, or the meta group's indexes or terms, have run out.
    NumbersRanOut,
}

impl fmt::Display for FoundationError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingShards(shards) => {
                let named: Vec<String> = shards.iter().take(NAMED_MAX).map(u16::to_string).collect();
                let more = shards.len().saturating_sub(NAMED_MAX);
                let rest = if more > 0 { format!(", and {more} more") } else { String::new() };
                write!(
                    formatter,
                    "this node has no replica of {} shards ({}{rest}): their data would be gone. Look for a node that has \
                     them, or give force-new-cluster the value discard-missing to begin them with what is left here, if \
                     anything is",
                    shards.len(),
                    named.join(", ")
                )
            }
            Self::NumbersRanOut => {
                formatter.write_str("the cluster's numbers have run out: no higher ones can be given")
            }
        }
    }
}

impl std::error::Error for FoundationError {}

/// Refuses `force-new-cluster` where there is no cluster to be left.
///
/// # Errors
/// A sentence that names the directory.
pub fn check_directory(config: &Config) -> Result<(), String> {
    if config.force_new_cluster == ForceNewCluster::No {
        return Ok(());
    }
    let directory = config.directory.join(&config.append_directory_name);
    if Path::exists(&directory.join(CLUSTER_FILE_NAME)) {
        return Ok(());
    }
    Err(format!(
        "{} belongs to no cluster, so force-new-cluster has nothing to start from: leave it away",
        directory.display()
    ))
}

/// The new cluster that the node of `file` is to be alone in; `None`: it is alone already, and misses nothing.
///
/// `own` is where the node is reached, `logs` are those of all shards by number, `cluster` is the new cluster's id.
/// `may_have_lost` says that the directory may lack what it had acknowledged, and `may_discard` that shards may be missing.
///
/// # Errors
/// [`FoundationError`].
pub fn plan(
    file: &ClusterFile,
    own: NodeInfo,
    logs: &[LogSummary],
    cluster: [u8; 16],
    (may_have_lost, may_discard): (bool, bool),
) -> Result<Option<Foundation>, FoundationError> {
    let state = final_state(file);
    let number = file.number;
    if !may_have_lost && is_alone(file, &state, logs) {
        return Ok(None);
    }
    let fates: Vec<ShardFate> = (0..)
        .zip(logs)
        .map(|(shard, log)| ShardFate {
            shard,
            holding: holding(number, state.placement.get(usize::from(shard)), log),
            last_index: log.last_index,
            last_term: log.last_term,
        })
        .collect();
    let is_missing = |fate: &&ShardFate| matches!(fate.holding, Holding::LeftOver | Holding::Nothing);
    let missing: Vec<u16> = fates.iter().filter(is_missing).map(|fate| fate.shard).collect();
    if !missing.is_empty() && !may_discard {
        return Err(FoundationError::MissingShards(missing));
    }
    // Logs may name replicas and nodes that this node's meta group has not heard of.
    let named = || logs.iter().flat_map(|log| log.membership.members());
    let above = |least: u32, highest: Option<u32>| {
        let next = highest.map_or(Some(0), |highest| highest.checked_add(1));
        next.map(|next| next.max(least)).ok_or(FoundationError::NumbersRanOut)
    };
    let incarnation = above(state.next_incarnation, named().map(incarnation_of).max())?;
    let next_node = above(state.next_node, named().map(node_of).max())?;
    let next_incarnation = incarnation.checked_add(1).ok_or(FoundationError::NumbersRanOut)?;
    let next = |last: u64| last.checked_add(1).ok_or(FoundationError::NumbersRanOut);
    let (last_index, last_term) = match file.entries.last() {
        Some(entry) => (entry.index, entry.term),
        None => (file.snapshot.index, file.snapshot.term),
    };
    let term = next(file.hard_state.term.max(last_term))?;
    let state = MetaState {
        cluster,
        epoch: next(state.epoch)?,
        nodes: BTreeMap::from([(number, own)]),
        placement: vec![vec![replica(number, incarnation)]; state.placement.len()],
        next_node,
        next_incarnation,
        favoured: None,
        ..state
    };
    let file = ClusterFile {
        number,
        is_recovering: true,
        cluster,
        hard_state: HardState { term, vote: None },
        snapshot: SnapshotMeta { index: next(last_index)?, term, membership: alone(replica(number, 1)) },
        state,
        entries: Vec::new(),
        kept: Vec::new(),
    };
    Ok(Some(Foundation { file, shards: fates }))
}

/// Whether the node is the only one already, of the cluster and of every group.
fn is_alone(file: &ClusterFile, state: &MetaState, logs: &[LogSummary]) -> bool {
    let memberships = file.entries.iter().rev().filter(|entry| entry.kind == EntryKind::Membership);
    let meta = memberships
        .map(|entry| Membership::decode(&entry.payload).unwrap_or_default())
        .next()
        .unwrap_or_else(|| file.snapshot.membership.clone());
    state.nodes.keys().eq([&file.number])
        && meta == alone(replica(file.number, 1))
        && state.placement.len() == logs.len()
        && state
            .placement
            .iter()
            .zip(logs)
            .all(|(placed, log)| matches!(placed[..], [own] if log.membership == alone(own)))
}

fn holding(number: u32, placed: Option<&Vec<ReplicaId>>, log: &LogSummary) -> Holding {
    let is_own = |replica: &ReplicaId| node_of(*replica) == number;
    let own = placed.and_then(|placed| placed.iter().find(|it| is_own(it)));
    let is_first = own.is_some_and(|&own| log.membership == alone(own));
    if log.last_index == 0 && !is_first {
        return Holding::Nothing;
    }
    match own {
        None => Holding::LeftOver,
        Some(_) if log.membership.all_voters().any(|voter| is_own(&voter)) => Holding::Voter,
        Some(_) => Holding::Learner,
    }
}

fn alone(replica: ReplicaId) -> Membership {
    Membership::new(&[replica], &[]).expect("one voter is a membership")
}

/// The last membership of a log that begins with `first`, as a snapshot names it.
///
/// # Errors
/// What cannot be read.
pub fn last_membership<'a>(
    first: &[u8],
    mut entries: impl DoubleEndedIterator<Item = (Kind, &'a [u8])>,
) -> Result<Membership, &'static str> {
    let later = entries.rfind(|(kind, _)| *kind == Kind::Membership).map(|(_, payload)| payload);
    match later.unwrap_or(first) {
        [] => Ok(genesis_membership()),
        bytes => Membership::decode(bytes).map_err(|_| "its last membership cannot be read"),
    }
}

/// Makes `replica` the only member of a shard's group, by an entry behind all others and a term above all that are known.
/// Whether that changed anything: it does so once.
///
/// # Errors
/// A sentence that names the shard.
pub fn make_alone(log: &mut ShardLog, replica: ReplicaId) -> Result<bool, String> {
    let refused = |what: &str| format!("shard {} cannot be made this node's alone: {what}", log.shard);
    let entries = log.entries.iter().map(|entry| (entry.kind, &*entry.payload));
    let membership = last_membership(&log.first_membership(), entries).map_err(refused)?;
    let wanted = alone(replica);
    if membership == wanted {
        return Ok(false);
    }
    let last = log.last();
    let numbers = last.0.checked_add(1).zip(last.1.max(log.term).checked_add(1));
    let (index, term) = numbers.ok_or_else(|| refused("its indexes or terms have run out"))?;
    log.entries.push(LogEntry {
        index,
        term,
        timestamp_ms: 0,
        seed: 0,
        kind: Kind::Membership,
        payload: wanted.encode().into(),
    });
    (log.term, log.vote) = (term, 0);
    Ok(true)
}

#[cfg(test)]
#[path = "recover_tests.rs"]
mod tests;
