//! The state machine of the meta group: who belongs to the cluster, and where every shard's replicas should be.
//!
//! Invariants:
//! - Every node has the same state after the same commands: [`MetaState::apply`] depends on nothing else.
//! - A command that is refused or changes nothing leaves the state and its epoch alone; every other one adds 1 to the epoch.
//! - Adding or removing a node twice, because the proposer did not learn what came of it, is as good as once. A placement
//!   that brings a new replica takes effect once at most: the second time its incarnation is not new.
//! - Numbers of nodes and incarnations of replicas are never given twice. A replica that is placed is one that was
//!   placed there before, or one with an incarnation that no replica had.
//! - No shard is without a replica.
//! - The cluster's feature level never falls, and every node speaks it: see [`super::feature_level`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use duva_raft::ReplicaId;

use super::{
    DecodeError, GENESIS_REPLICA,
    bytes::{Reader, length_of},
    feature_level::{self, FIRST},
    incarnation_of, node_of,
};
use crate::config::SHARD_COUNT_MAX;

/// The most nodes of a cluster.
pub const NODES_MAX: usize = 1024;

/// The most replicas that a shard is meant to have.
pub const REPLICATION_FACTOR_MAX: u8 = 7;

/// The longest list of replicas: two whole sets, one that comes and one that goes.
pub const PLACED_MAX: usize = 2 * REPLICATION_FACTOR_MAX as usize;

/// The longest host name in bytes.
pub const HOST_BYTES_MAX: usize = 253;

/// Of commands, and of states without a favoured node; states with one have the next. Where not every feature level is the
/// first, states have the last.
const VERSION: u8 = 1;
const VERSION_FAVOURED: u8 = 2;
const VERSION_LEVELS: u8 = 3;

/// What the cluster knows of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its id, which its directory keeps.
    pub id: [u8; 16],
    /// Where it can be reached: an address or a name, see [`is_host`].
    pub host: String,
    /// Its port for clients.
    pub port: u16,
    /// Its port for other nodes.
    pub peer_port: u16,
    /// The feature level that it speaks, as it has said.
    pub level: u16,
}

#[cfg(test)]
impl NodeInfo {
    /// A node for tests: each number's is another one.
    pub(crate) fn example(number: u8) -> Self {
        Self { id: [number; 16], host: format!("10.0.0.{number}"), port: 7000, peer_port: 17000, level: 1 }
    }
}

/// What the meta group agrees on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaState {
    /// Names the cluster.
    pub cluster: [u8; 16],
    /// How many shards there are, a power of two.
    pub shards: u16,
    /// The seed of the hash that orders keys.
    pub hash_seed: u64,
    /// How many replicas a shard is meant to have, if there are as many nodes.
    pub replication_factor: u8,
    /// How often the state has changed, and 1 for its beginning.
    pub epoch: u64,
    /// The nodes by their numbers; never none.
    pub nodes: BTreeMap<u32, NodeInfo>,
    /// By shard the replicas that should hold it, on different nodes; the first is its preferred leader. A node that
    /// is gone may still be there.
    pub placement: Vec<Vec<ReplicaId>>,
    /// The number of the next node.
    pub next_node: u32,
    /// The least incarnation that no replica has had.
    pub next_incarnation: u32,
    /// The node that should lead all that it has replicas of; `None`: leaders are spread. A node that joins, or is
    /// forgotten, ends it.
    pub favoured: Option<u32>,
    /// The feature level that is agreed on: nothing of a later one is proposed or sent.
    pub level: u16,
}

/// A change of the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetaCommand {
    /// Adds a node. One that is known by its id keeps its number and may come with a new address.
    AddNode(NodeInfo),
    /// Forgets the node of this number. Its replicas stay placed until others took their places.
    RemoveNode(u32),
    /// Places a shard's replicas.
    Place {
        /// The shard.
        shard: u16,
        /// Who should hold it, as in [`MetaState::placement`].
        replicas: Vec<ReplicaId>,
    },
    /// Places every shard's replicas.
    PlaceAll(Vec<Vec<ReplicaId>>),
    /// Sets how many replicas a shard is meant to have.
    SetReplicationFactor(u8),
    /// Has the node of this number lead all that it has replicas of; `None`: leaders are spread again.
    Favour(Option<u32>),
    /// The node of this number speaks this feature level from now on.
    SetNodeLevel {
        /// The node.
        number: u32,
        /// What it speaks.
        level: u16,
    },
    /// All nodes speak this feature level: what belongs to it may be used.
    RaiseLevel(u16),
}

/// What came of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaOutcome {
    /// The node has this number, now or already.
    Node(u32),
    /// The state has changed.
    Changed,
    /// It was so already.
    Unchanged,
    /// Nothing has changed.
    Refused(MetaRefusal),
}

/// Why a command is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaRefusal {
    /// There are as many nodes as there can be, or numbers for nodes have run out.
    TooManyNodes,
    /// The node's id or address is none that a node can have.
    InvalidNode,
    /// It is the last node.
    LastNode,
    /// A shard has no replica anywhere else.
    HoldsOnlyReplica {
        /// The shard.
        shard: u16,
    },
    /// There is no such shard, or not a list for each.
    UnknownShard,
    /// The list is empty or too long, or names a node twice, or one that is not there and had no replica.
    InvalidReplicas,
    /// A replica is new but its incarnation is not: the command was made for an earlier state.
    Outdated,
    /// The replication factor is not from 1 to [`REPLICATION_FACTOR_MAX`].
    InvalidReplicationFactor,
    /// There is no such node.
    UnknownNode,
    /// The node does not speak the feature level that the cluster has agreed on.
    LevelTooLow {
        /// What the cluster has agreed on.
        agreed: u16,
    },
    /// Not every node speaks that feature level.
    LevelTooHigh,
}

impl fmt::Display for MetaRefusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyNodes => {
                write!(formatter, "the cluster has as many nodes as it can have, {NODES_MAX}")
            }
            Self::InvalidNode => {
                formatter.write_str("the node's id, host or ports are none that a node can have")
            }
            Self::LastNode => formatter.write_str("it is the cluster's last node"),
            Self::HoldsOnlyReplica { shard } => {
                write!(formatter, "the node holds the only replica of shard {shard}")
            }
            Self::UnknownShard => formatter.write_str("there are no such shards"),
            Self::InvalidReplicas => {
                formatter.write_str("a shard needs a few replicas on different nodes of the cluster")
            }
            Self::Outdated => formatter.write_str("it was decided for an earlier state of the cluster"),
            Self::InvalidReplicationFactor => {
                write!(formatter, "the replication factor must be from 1 to {REPLICATION_FACTOR_MAX}")
            }
            Self::UnknownNode => formatter.write_str("the cluster has no such node"),
            Self::LevelTooLow { agreed } => {
                write!(
                    formatter,
                    "the cluster has agreed on feature level {agreed}, which the node does not speak"
                )
            }
            Self::LevelTooHigh => {
                formatter.write_str("not every node of the cluster speaks that feature level")
            }
        }
    }
}

impl std::error::Error for MetaRefusal {}

/// Whether a text can be a node's host: an IP address or a name, without what would garble CLUSTER NODES.
pub fn is_host(host: &str) -> bool {
    (1..=HOST_BYTES_MAX).contains(&host.len())
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".:-_%".contains(&byte))
}

impl NodeInfo {
    /// Whether a node can be so.
    pub fn is_valid(&self) -> bool {
        self.id != [0; 16]
            && is_host(&self.host)
            && self.port > 0
            && self.peer_port > 0
            && self.level >= FIRST
    }

    /// Whether nothing but what it speaks is different.
    pub fn is_same_but_for_level(&self, other: &Self) -> bool {
        (self.id, &self.host, self.port, self.peer_port)
            == (other.id, &other.host, other.port, other.peer_port)
    }

    /// All but the level.
    pub(super) fn encode_into(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.id);
        bytes.extend_from_slice(&self.port.to_le_bytes());
        bytes.extend_from_slice(&self.peer_port.to_le_bytes());
        bytes.push(u8::try_from(self.host.len()).expect("a host is no longer than HOST_BYTES_MAX"));
        bytes.extend_from_slice(self.host.as_bytes());
    }

    pub(super) fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        const INVALID: DecodeError =
            DecodeError::Invalid("a node's id, host or ports are none that a node can have");
        let (id, port, peer_port) = (reader.array()?, reader.u16()?, reader.u16()?);
        let length = usize::from(reader.u8()?);
        let host = std::str::from_utf8(reader.take(length)?).map_err(|_| INVALID)?.to_owned();
        let node = Self { id, host, port, peer_port, level: FIRST };
        if node.is_valid() { Ok(node) } else { Err(INVALID) }
    }
}

impl MetaState {
    /// The state of a cluster that begins: `node` is its first, with number 1, and holds every shard. What it speaks is agreed on.
    ///
    /// # Panics
    ///
    /// Panics if the node is not valid, `shards` is no power of two up to 16,384, or the replication factor is not from 1 to
    /// [`REPLICATION_FACTOR_MAX`]: the configuration has checked all that.
    pub fn genesis(
        cluster: [u8; 16],
        shards: u16,
        hash_seed: u64,
        replication_factor: u8,
        node: NodeInfo,
    ) -> Self {
        assert!(node.is_valid(), "the first node can be reached");
        assert!(shards.is_power_of_two() && shards <= SHARD_COUNT_MAX, "a power of two of shards");
        assert!((1..=REPLICATION_FACTOR_MAX).contains(&replication_factor), "a possible replication factor");
        let level = node.level;
        Self {
            cluster,
            shards,
            hash_seed,
            replication_factor,
            epoch: 1,
            nodes: BTreeMap::from([(1, node)]),
            placement: vec![vec![GENESIS_REPLICA]; usize::from(shards)],
            next_node: 2,
            next_incarnation: incarnation_of(GENESIS_REPLICA) + 1,
            favoured: None,
            level,
        }
    }

    /// The number of the node with this id.
    pub fn number_of(&self, id: &[u8; 16]) -> Option<u32> {
        self.nodes.iter().find(|(_, node)| node.id == *id).map(|(number, _)| *number)
    }

    /// Changes the state by a command of the group's log.
    pub fn apply(&mut self, command: &MetaCommand) -> MetaOutcome {
        match self.change(command) {
            Ok((outcome, has_changed)) => {
                self.epoch += u64::from(has_changed);
                outcome
            }
            Err(refusal) => MetaOutcome::Refused(refusal),
        }
    }

    /// The outcome, and whether anything has changed.
    fn change(&mut self, command: &MetaCommand) -> Result<(MetaOutcome, bool), MetaRefusal> {
        let has_changed = match command {
            MetaCommand::AddNode(node) => return self.add_node(node),
            MetaCommand::RemoveNode(number) => self.remove_node(*number)?,
            MetaCommand::Place { shard, replicas } => {
                let current = self.placement.get(usize::from(*shard)).ok_or(MetaRefusal::UnknownShard)?;
                self.check_replicas(current, replicas)?;
                self.place(usize::from(*shard), replicas)
            }
            MetaCommand::PlaceAll(lists) => {
                if lists.len() != self.placement.len() {
                    return Err(MetaRefusal::UnknownShard);
                }
                for (current, replicas) in self.placement.iter().zip(lists) {
                    self.check_replicas(current, replicas)?;
                }
                lists
                    .iter()
                    .enumerate()
                    .fold(false, |changed, (shard, list)| self.place(shard, list) || changed)
            }
            MetaCommand::SetReplicationFactor(factor) => {
                if !(1..=REPLICATION_FACTOR_MAX).contains(factor) {
                    return Err(MetaRefusal::InvalidReplicationFactor);
                }
                std::mem::replace(&mut self.replication_factor, *factor) != *factor
            }
            MetaCommand::Favour(node) => self.favour(*node)?,
            MetaCommand::SetNodeLevel { number, level } => self.set_node_level(*number, *level)?,
            MetaCommand::RaiseLevel(level) => self.raise_level(*level)?,
        };
        Ok((if has_changed { MetaOutcome::Changed } else { MetaOutcome::Unchanged }, has_changed))
    }

    fn add_node(&mut self, node: &NodeInfo) -> Result<(MetaOutcome, bool), MetaRefusal> {
        if !node.is_valid() {
            return Err(MetaRefusal::InvalidNode);
        }
        self.check_level(node.level)?;
        if let Some((&number, known)) = self.nodes.iter_mut().find(|(_, known)| known.id == node.id) {
            let has_moved = known != node;
            known.clone_from(node);
            return Ok((MetaOutcome::Node(number), has_moved));
        }
        let number = self.next_node;
        let next = number.checked_add(1).ok_or(MetaRefusal::TooManyNodes)?;
        if self.nodes.len() >= NODES_MAX {
            return Err(MetaRefusal::TooManyNodes);
        }
        self.next_node = next;
        self.favoured = None;
        self.nodes.insert(number, node.clone());
        Ok((MetaOutcome::Node(number), true))
    }

    fn remove_node(&mut self, number: u32) -> Result<bool, MetaRefusal> {
        if !self.nodes.contains_key(&number) {
            return Ok(false);
        }
        if self.nodes.len() == 1 {
            return Err(MetaRefusal::LastNode);
        }
        let stays =
            |replica: &ReplicaId| node_of(*replica) != number && self.nodes.contains_key(&node_of(*replica));
        for (shard, replicas) in (0..).zip(&self.placement) {
            if !replicas.iter().any(stays) {
                return Err(MetaRefusal::HoldsOnlyReplica { shard });
            }
        }
        self.nodes.remove(&number);
        self.favoured = None;
        Ok(true)
    }

    /// Whether a node may speak this level and no later one.
    fn check_level(&self, level: u16) -> Result<(), MetaRefusal> {
        if level < self.level { Err(MetaRefusal::LevelTooLow { agreed: self.level }) } else { Ok(()) }
    }

    fn set_node_level(&mut self, number: u32, level: u16) -> Result<bool, MetaRefusal> {
        self.check_level(level)?;
        let node = self.nodes.get_mut(&number).ok_or(MetaRefusal::UnknownNode)?;
        Ok(std::mem::replace(&mut node.level, level) != level)
    }

    fn raise_level(&mut self, level: u16) -> Result<bool, MetaRefusal> {
        if level <= self.level {
            return Ok(false);
        }
        if level > self.level_of_all() {
            return Err(MetaRefusal::LevelTooHigh);
        }
        self.level = level;
        Ok(true)
    }

    /// The feature level that every node has said it speaks.
    pub fn level_of_all(&self) -> u16 {
        self.nodes.values().map(|node| node.level).min().unwrap_or(FIRST)
    }

    fn favour(&mut self, node: Option<u32>) -> Result<bool, MetaRefusal> {
        if node.is_some_and(|number| !self.nodes.contains_key(&number)) {
            return Err(MetaRefusal::UnknownNode);
        }
        let mut has_changed = std::mem::replace(&mut self.favoured, node) != node;
        for list in &mut self.placement {
            let place = list.iter().position(|replica| Some(node_of(*replica)) == node);
            if let Some(place) = place.filter(|place| *place > 0) {
                list[..=place].rotate_right(1);
                has_changed = true;
            }
        }
        Ok(has_changed)
    }

    /// Whether a shard's list may take the place of `current`.
    fn check_replicas(&self, current: &[ReplicaId], replicas: &[ReplicaId]) -> Result<(), MetaRefusal> {
        if !are_distinct(replicas) {
            return Err(MetaRefusal::InvalidReplicas);
        }
        for replica in replicas.iter().filter(|replica| !current.contains(replica)) {
            if !self.nodes.contains_key(&node_of(*replica)) {
                return Err(MetaRefusal::InvalidReplicas);
            }
            if incarnation_of(*replica) < self.next_incarnation || incarnation_of(*replica) == u32::MAX {
                return Err(MetaRefusal::Outdated);
            }
        }
        Ok(())
    }

    fn place(&mut self, shard: usize, replicas: &[ReplicaId]) -> bool {
        if self.placement[shard] == replicas {
            return false;
        }
        let newest = replicas.iter().map(|replica| incarnation_of(*replica)).max().unwrap_or(0);
        self.next_incarnation = self.next_incarnation.max(newest + 1);
        self.placement[shard] = replicas.to_vec();
        true
    }

    /// The state as bytes, little-endian:
    ///
    /// ```text
    /// version u8 (1, or 2 if a node is favoured, or 3 if a feature level is not the first), cluster [16], shards u16, hash seed u64,
    /// replication factor u8, epoch u64, next node u32, next incarnation u32, number of nodes u32, nodes in ascending order,
    /// for every shard a list; in version 2 the number of the favoured node u32; in version 3 that number or 0, the level
    /// agreed on u16, and for every node the level that it speaks u16
    /// node: number u32, id [16], port u16, peer port u16, length u8, host
    /// list: length u8, replica ids u64
    /// ```
    pub fn encode(&self) -> Vec<u8> {
        let has_levels = self.has_levels();
        let mut bytes = vec![match self.favoured {
            _ if has_levels => VERSION_LEVELS,
            Some(_) => VERSION_FAVOURED,
            None => VERSION,
        }];
        bytes.extend_from_slice(&self.cluster);
        bytes.extend_from_slice(&self.shards.to_le_bytes());
        bytes.extend_from_slice(&self.hash_seed.to_le_bytes());
        bytes.push(self.replication_factor);
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        bytes.extend_from_slice(&self.next_node.to_le_bytes());
        bytes.extend_from_slice(&self.next_incarnation.to_le_bytes());
        bytes.extend_from_slice(&length_of(self.nodes.len()).to_le_bytes());
        for (number, node) in &self.nodes {
            bytes.extend_from_slice(&number.to_le_bytes());
            node.encode_into(&mut bytes);
        }
        self.placement.iter().for_each(|replicas| encode_replicas(replicas, &mut bytes));
        if has_levels || self.favoured.is_some() {
            bytes.extend_from_slice(&self.favoured.unwrap_or(0).to_le_bytes());
        }
        if has_levels {
            let levels = std::iter::once(self.level).chain(self.nodes.values().map(|node| node.level));
            levels.for_each(|level| bytes.extend_from_slice(&level.to_le_bytes()));
        }
        bytes
    }

    /// Whether anything but the first feature level is spoken, or agreed on.
    fn has_levels(&self) -> bool {
        self.level != FIRST || self.nodes.values().any(|node| node.level != FIRST)
    }

    /// Reads what [`Self::encode`] wrote, and nothing else.
    ///
    /// # Errors
    ///
    /// The bytes end early or go on, are of another version, or break an invariant of the state.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if ![VERSION_FAVOURED, VERSION_LEVELS].contains(&version) {
            check_version(version)?;
        }
        let mut state = Self {
            cluster: reader.array()?,
            shards: reader.u16()?,
            hash_seed: reader.u64()?,
            replication_factor: reader.u8()?,
            epoch: reader.u64()?,
            next_node: reader.u32()?,
            next_incarnation: reader.u32()?,
            nodes: BTreeMap::new(),
            placement: Vec::new(),
            favoured: None,
            level: FIRST,
        };
        let count = reader.count(4 + 16 + 2 + 2 + 1)?;
        for _ in 0..count {
            let number = reader.u32()?;
            if state.nodes.last_key_value().is_some_and(|(last, _)| *last >= number) {
                return Err(DecodeError::Invalid("the nodes are not in order"));
            }
            state.nodes.insert(number, NodeInfo::decode_from(&mut reader)?);
        }
        if !state.shards.is_power_of_two() || state.shards > SHARD_COUNT_MAX {
            return Err(DecodeError::Invalid("the number of shards is no power of two up to 16384"));
        }
        for _ in 0..state.shards {
            state.placement.push(decode_replicas(&mut reader)?);
        }
        match version {
            VERSION_FAVOURED => state.favoured = Some(reader.u32()?),
            VERSION_LEVELS => {
                state.favoured = Some(reader.u32()?).filter(|number| *number != 0);
                state.level = reader.u16()?;
                for node in state.nodes.values_mut() {
                    node.level = reader.u16()?;
                }
                if !state.has_levels() {
                    return Err(DecodeError::Invalid("every feature level is the first, which is not said"));
                }
            }
            _ => {}
        }
        reader.end()?;
        state.check()?;
        Ok(state)
    }

    /// Whether what was decoded is a state that commands can lead to.
    fn check(&self) -> Result<(), DecodeError> {
        let invalid = |sentence| Err(DecodeError::Invalid(sentence));
        if !(1..=REPLICATION_FACTOR_MAX).contains(&self.replication_factor) || self.epoch == 0 {
            return invalid("the replication factor or the epoch is impossible");
        }
        let (first, last) = (self.nodes.first_key_value(), self.nodes.last_key_value());
        if first.is_none_or(|(number, _)| *number == 0)
            || last.is_none_or(|(number, _)| *number >= self.next_node)
            || self.nodes.len() > NODES_MAX
        {
            return invalid("the nodes' numbers are impossible");
        }
        if self.favoured.is_some_and(|number| !self.nodes.contains_key(&number)) {
            return invalid("the favoured node is none of the cluster");
        }
        if self.level < FIRST || self.level > self.level_of_all() {
            return invalid("a node does not speak the feature level that the cluster has agreed on");
        }
        let ids: BTreeSet<_> = self.nodes.values().map(|node| node.id).collect();
        if ids.len() < self.nodes.len() {
            return invalid("two nodes have one id");
        }
        let is_given = |replica: &ReplicaId| {
            (1..self.next_node).contains(&node_of(*replica))
                && (1..self.next_incarnation).contains(&incarnation_of(*replica))
        };
        if !self.placement.iter().flatten().all(is_given) {
            return invalid("a shard is placed on a replica that nobody was");
        }
        Ok(())
    }
}

impl MetaCommand {
    /// The command as an entry's payload, little-endian: version u8 (1), kind u8, and by kind
    ///
    /// ```text
    /// 1 AddNode               a node as in MetaState::encode, without its number, which speaks feature level 1
    /// 2 RemoveNode            number u32
    /// 3 Place                 shard u16, a list as in MetaState::encode
    /// 4 PlaceAll              number of lists u32, lists
    /// 5 SetReplicationFactor  factor u8
    /// 6 Favour                number u32, 0: none
    /// 7 AddNode               the same as 1, and the feature level that the node speaks u16, which is not 1
    /// 8 SetNodeLevel          number u32, level u16
    /// 9 RaiseLevel            level u16
    /// ```
    ///
    /// # Panics
    ///
    /// Panics if a host or a list of replicas is longer than a state can have.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        match self {
            Self::AddNode(node) => {
                bytes.push(if node.level == FIRST { 1 } else { 7 });
                node.encode_into(&mut bytes);
                if node.level != FIRST {
                    bytes.extend_from_slice(&node.level.to_le_bytes());
                }
            }
            Self::RemoveNode(number) => {
                bytes.push(2);
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            Self::Place { shard, replicas } => {
                bytes.push(3);
                bytes.extend_from_slice(&shard.to_le_bytes());
                encode_replicas(replicas, &mut bytes);
            }
            Self::PlaceAll(lists) => {
                bytes.push(4);
                bytes.extend_from_slice(&length_of(lists.len()).to_le_bytes());
                lists.iter().for_each(|replicas| encode_replicas(replicas, &mut bytes));
            }
            Self::SetReplicationFactor(factor) => bytes.extend_from_slice(&[5, *factor]),
            Self::Favour(node) => {
                bytes.push(6);
                bytes.extend_from_slice(&node.unwrap_or(0).to_le_bytes());
            }
            Self::SetNodeLevel { number, level } => {
                bytes.push(8);
                bytes.extend_from_slice(&number.to_le_bytes());
                bytes.extend_from_slice(&level.to_le_bytes());
            }
            Self::RaiseLevel(level) => {
                bytes.push(9);
                bytes.extend_from_slice(&level.to_le_bytes());
            }
        }
        bytes
    }

    /// The feature level that must be agreed on before it is proposed.
    pub fn feature_level(&self) -> u16 {
        match self {
            Self::AddNode(_)
            | Self::RemoveNode(_)
            | Self::Place { .. }
            | Self::PlaceAll(_)
            | Self::SetReplicationFactor(_)
            | Self::Favour(_)
            | Self::SetNodeLevel { .. }
            | Self::RaiseLevel(_) => FIRST,
        }
    }

    /// Reads what [`Self::encode`] wrote, and nothing else.
    ///
    /// # Errors
    ///
    /// The bytes end early or go on, are of another version, or no command is so.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        check_version(reader.u8()?)?;
        let command = match reader.u8()? {
            1 => Self::AddNode(NodeInfo::decode_from(&mut reader)?),
            2 => Self::RemoveNode(reader.u32()?),
            3 => Self::Place { shard: reader.u16()?, replicas: decode_replicas(&mut reader)? },
            4 => {
                let count = reader.count(1)?;
                if count > usize::from(SHARD_COUNT_MAX) {
                    return Err(DecodeError::Invalid("there are lists for more shards than there can be"));
                }
                let lists: Result<_, _> = (0..count).map(|_| decode_replicas(&mut reader)).collect();
                Self::PlaceAll(lists?)
            }
            5 => Self::SetReplicationFactor(reader.u8()?),
            6 => Self::Favour(Some(reader.u32()?).filter(|number| *number != 0)),
            7 => {
                let node = NodeInfo::decode_from(&mut reader)?;
                let level = feature_level::decode_from(&mut reader)?;
                if level == FIRST {
                    return Err(DecodeError::Invalid("a node of the first feature level does not say so"));
                }
                Self::AddNode(NodeInfo { level, ..node })
            }
            8 => {
                Self::SetNodeLevel { number: reader.u32()?, level: feature_level::decode_from(&mut reader)? }
            }
            9 => Self::RaiseLevel(feature_level::decode_from(&mut reader)?),
            _ => return Err(DecodeError::Invalid("no command is of this kind")),
        };
        reader.end()?;
        Ok(command)
    }
}

fn check_version(version: u8) -> Result<(), DecodeError> {
    if version == VERSION { Ok(()) } else { Err(DecodeError::Version(u16::from(version))) }
}

/// Whether a shard's list can be: not empty, not too long, and no node twice.
fn are_distinct(replicas: &[ReplicaId]) -> bool {
    (1..=PLACED_MAX).contains(&replicas.len())
        && (1..replicas.len())
            .all(|index| replicas[..index].iter().all(|other| node_of(*other) != node_of(replicas[index])))
}

fn encode_replicas(replicas: &[ReplicaId], bytes: &mut Vec<u8>) {
    assert!(replicas.len() <= PLACED_MAX, "a list of replicas is no longer than PLACED_MAX");
    bytes.push(replicas.len() as u8);
    replicas.iter().for_each(|replica| bytes.extend_from_slice(&replica.0.to_le_bytes()));
}

fn decode_replicas(reader: &mut Reader<'_>) -> Result<Vec<ReplicaId>, DecodeError> {
    let count = usize::from(reader.u8()?);
    if count > PLACED_MAX {
        return Err(DecodeError::Invalid("a list of replicas is too long"));
    }
    let replicas: Vec<_> = (0..count).map(|_| reader.u64().map(ReplicaId)).collect::<Result<_, _>>()?;
    if are_distinct(&replicas) {
        Ok(replicas)
    } else {
        Err(DecodeError::Invalid("a list of replicas is empty or names a node twice"))
    }
}

#[cfg(test)]
#[path = "meta_tests.rs"]
mod tests;
