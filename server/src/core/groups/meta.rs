//! The meta group's replica of this node, which core 0 drives.
//!
//! Its log is short, so all of it is one small file, replaced as a whole whenever something is to be made durable.
//! Invariants:
//!
//! - What Raft hands out counts as synced once a file that holds it is durable; one file at a time is under way.
//! - All cores see the state that is applied here, as it is published; none of them waits for that.
//! - Changes are asked for without an answer: who asks looks at what is published, and asks again.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use duva_net::io::{FileTask, Io};
use duva_raft::{
    Body, EntryKind, Index, Proposal, Raft, Ready, ReplicaId, Restored, Role, SnapshotMeta, SnapshotWrite,
    codec,
};

use super::{GroupOptions, starts::StartsFile, with_heartbeats};
use crate::{
    cluster::{
        balance, file::ClusterFile, meta::MetaCommand, meta::MetaState, node_of, replica,
        starts::STARTS_FILE_NAME,
    },
    core::{
        cluster_shared::ClusterShared,
        node::Node,
        peer::frame::{Kind, META_GROUP},
        tickets::Ticket,
    },
};

/// Entries behind the snapshot past which a new one is taken.
const ENTRIES_MAX: u64 = 64;

/// How long after a failure the file is written again, in nanoseconds.
const RETRY_NS: u64 = 500_000_000;

/// How often it is looked at whether replicas should move, in nanoseconds.
const PLAN_NS: u64 = 250_000_000;

/// How often a node says which feature level it speaks, until the cluster knows, in nanoseconds.
const TELL_NS: u64 = 500_000_000;

/// How long a favoured node may be away before leaders are spread again, in nanoseconds.
const FAVOUR_NS: u64 = 5_000_000_000;

/// The replica of the meta group on this node.
pub struct MetaGroup {
    raft: Raft,
    /// As of the last applied entry.
    state: MetaState,
    /// As of the log's beginning.
    snapshot_state: MetaState,
    number: u32,
    path: PathBuf,
    ready: Ready,
    /// Whether the state has changed since it was published, and the leader that was.
    has_news: bool,
    published_leader: Option<u32>,
    /// The last write that was handed out, and the one that a file under way will hold.
    handed_number: u64,
    writing_number: Option<u64>,
    /// The epoch of the state that the file under way begins with.
    writing_epoch: u64,
    /// How many of this node's replicas it lets go.
    writing_let_go: u64,
    synced_number: u64,
    /// When a file that could not be written is written again.
    retry_ns: u64,
    incoming: Vec<u8>,
    /// A snapshot that came whole, until it is durable.
    installing: Option<(SnapshotMeta, MetaState)>,
    /// Whether the file under way has it.
    is_written_with_snapshot: bool,
    plan_ns: u64,
    /// When the node says again which feature level it speaks; `u64::MAX`: the cluster knows.
    tell_ns: u64,
    heartbeat_ns: u64,
    /// Since when nodes cannot be reached, or keep nothing, in nanoseconds.
    lost_since_ns: BTreeMap<u32, u64>,
    replace_after_ns: u64,
    /// The other file that core 0 keeps.
    pub(super) starts: StartsFile,
}

impl MetaGroup {
    /// The replica that `file` describes.
    pub fn new(
        file: ClusterFile,
        path: PathBuf,
        options: &GroupOptions,
        replace_after_ns: u64,
        (now_ns, seed): (u64, u64),
    ) -> Self {
        let ClusterFile { number, hard_state, snapshot, state, entries, .. } = file;
        let mut config = options.config(replica(number, 1), 1);
        // No entries are ever asked for: all are in memory.
        config.cache_bytes_max = usize::MAX;
        config.paced_entries_min = u64::MAX;
        let restored = Restored { hard_state, snapshot, entries };
        Self {
            raft: Raft::new(config, restored, now_ns, seed),
            snapshot_state: state.clone(),
            state,
            number,
            starts: StartsFile::new(path.with_file_name(STARTS_FILE_NAME)),
            path,
            ready: Ready::default(),
            has_news: true,
            published_leader: None,
            handed_number: 0,
            writing_number: None,
            writing_epoch: 0,
            writing_let_go: 0,
            synced_number: 0,
            retry_ns: 0,
            incoming: Vec::new(),
            installing: None,
            is_written_with_snapshot: false,
            plan_ns: 0,
            tell_ns: u64::MAX,
            heartbeat_ns: options.heartbeat_ns(),
            lost_since_ns: BTreeMap::new(),
            replace_after_ns,
        }
    }

    /// What is agreed on, as far as this node knows.
    pub fn state(&self) -> &MetaState {
        &self.state
    }

    /// The group's replica here.
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    pub(super) fn raft_mut(&mut self) -> &mut Raft {
        &mut self.raft
    }

    /// The node whose replica leads, as far as is known.
    pub fn leader(&self) -> Option<u32> {
        self.raft.leader().map(node_of)
    }

    /// When there is something to do if nothing happens before.
    pub fn next_ns(&self) -> u64 {
        let is_owed = self.writing_number.is_none() && self.handed_number > self.synced_number;
        let raft_ns = if is_owed { self.deadline_ns().min(self.retry_ns) } else { self.deadline_ns() };
        let raft_ns = raft_ns.min(self.tell_ns);
        if self.raft.role() == Role::Leader { raft_ns.min(self.plan_ns) } else { raft_ns }
    }

    fn deadline_ns(&self) -> u64 {
        let at_ns = self.raft.next_deadline_ns();
        if self.raft.role() == Role::Leader && at_ns != u64::MAX {
            at_ns.next_multiple_of(self.heartbeat_ns)
        } else {
            at_ns
        }
    }

    /// The file as it is to be, and how many of this node's replicas it lets go.
    fn file(&self, cluster: &ClusterShared) -> (ClusterFile, u64) {
        if let Some((meta, state)) = &self.installing {
            let keeps_log = self.raft.keeps_log(meta.index, meta.term);
            let entries = if keeps_log { meta.index + 1..self.raft.last_index() + 1 } else { 0..0 };
            let (kept, let_go) = cluster.kept_replicas(state);
            let file = ClusterFile {
                number: self.number,
                is_recovering: false,
                cluster: state.cluster,
                hard_state: self.raft.hard_state(),
                snapshot: meta.clone(),
                state: state.clone(),
                entries: self.raft.entries(entries),
                kept,
            };
            return (file, let_go);
        }
        let (kept, let_go) = cluster.kept_replicas(&self.snapshot_state);
        let file = ClusterFile {
            number: self.number,
            is_recovering: false,
            cluster: self.state.cluster,
            hard_state: self.raft.hard_state(),
            snapshot: self.raft.snapshot().clone(),
            state: self.snapshot_state.clone(),
            entries: self.raft.entries(self.raft.first_index()..self.raft.last_index() + 1),
            kept,
        };
        (file, let_go)
    }

    /// Where the state that is applied is in the log.
    fn applied(&self) -> SnapshotMeta {
        let index = self.raft.applied_index();
        SnapshotMeta {
            index,
            term: self.raft.term_at(index).unwrap_or(0),
            membership: self.raft.membership_at(index).clone(),
        }
    }

    fn propose(&mut self, now_ns: u64, command: &MetaCommand) -> bool {
        if command.feature_level() > self.state.level {
            tracing::warn!(?command, "not all nodes understand this change of the cluster: it is not made");
            return false;
        }
        let proposal =
            Proposal { timestamp_ms: 0, seed: 0, tag: 1, payload: command.encode().as_slice().into() };
        self.raft.propose(now_ns, proposal).is_ok()
    }
}

impl Node {
    /// Takes a frame for the meta group.
    pub(in crate::core) fn take_meta_frame(&mut self, from: u32, kind: Kind, payload: &[u8]) {
        let Some(now_ns) = self.groups.as_ref().map(|groups| groups.now_ns) else { return };
        let Some(meta) = &mut self.meta else { return };
        match kind {
            Kind::Raft => match codec::decode(payload) {
                Ok((message, length)) if length == payload.len() && node_of(message.from) == from => {
                    meta.raft.step(now_ns, message);
                }
                _ => tracing::warn!(node = from, "a message of another node's replica cannot be read"),
            },
            // Changes go to who leads; who does not does not pass them on.
            Kind::Forward => match MetaCommand::decode(payload) {
                Ok(command) if meta.raft.role() == Role::Leader => {
                    meta.propose(now_ns, &command);
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(node = from, "a change of the cluster cannot be read: {error}"),
            },
            Kind::Leaders => self.take_report(from, payload),
            Kind::Hello | Kind::ForwardReply | Kind::Gossip | Kind::Clock | Kind::Leaving => {}
        }
    }

    /// Lets the meta group go on.
    pub(in crate::core) fn run_meta(&mut self, io: &mut impl Io, now_ns: u64) {
        let Some(mut meta) = self.meta.take() else { return };
        let cluster = Arc::clone(self.cluster.as_ref().expect("a meta group has a cluster"));
        meta.tell_level(&cluster, self.features.own(), now_ns);
        // Without a leader they wait for one.
        let commands = if meta.leader().is_some() { cluster.take_commands() } else { Vec::new() };
        for command in commands {
            if meta.raft.role() == Role::Leader {
                meta.propose(now_ns, &command);
            } else if let Some(leader) = meta.leader() {
                let bytes = command.encode();
                let _ = self
                    .peers
                    .push(leader, Kind::Forward, 0, META_GROUP, |out| out.extend_from_slice(&bytes));
            }
        }
        if self.groups.as_ref().is_some_and(|groups| groups.was_away()) {
            meta.raft.was_away(now_ns);
        }
        if meta.deadline_ns() <= now_ns {
            meta.raft.tick(now_ns);
        }
        if meta.raft.role() == Role::Leader && meta.plan_ns <= now_ns {
            meta.plan_ns = with_heartbeats(now_ns, PLAN_NS, meta.heartbeat_ns);
            self.plan_cluster(&mut meta, now_ns);
        }
        let mut ready = std::mem::take(&mut meta.ready);
        while meta.raft.has_ready() {
            meta.raft.take_ready(now_ns, &mut ready);
            for message in ready.messages.drain(..) {
                let (to, encode) = (node_of(message.to), |out: &mut Vec<u8>| codec::encode(&message, out));
                // Nobody reads under its lease.
                let _ = if matches!(message.body, Body::HeartbeatReply { .. }) {
                    let until_ns = now_ns.next_multiple_of(meta.heartbeat_ns);
                    self.peers.push_unhurried((to, until_ns), Kind::Raft, 0, META_GROUP, encode)
                } else {
                    self.peers.push(to, Kind::Raft, 0, META_GROUP, encode)
                };
            }
            if let Some(write) = ready.write.take() {
                meta.handed_number = write.number;
            }
            for entry in ready.committed.drain(..) {
                meta.apply(entry.index, entry.kind, &entry.payload);
            }
            for read in ready.snapshot_reads.drain(..) {
                let snapshot = meta.raft.snapshot().clone();
                let bytes = meta.snapshot_state.encode();
                meta.raft.snapshot_read(read.peer, snapshot, 0, bytes.as_slice().into(), true);
            }
            for fetch in ready.fetches.drain(..) {
                meta.raft.fetched(fetch.peer, fetch.from, None);
            }
            for piece in ready.snapshot_writes.drain(..) {
                meta.take_piece(piece);
            }
        }
        meta.ready = ready;
        let to_settle = cluster.to_settle();
        let applied = meta.raft.applied_index();
        let is_due = applied >= meta.raft.snapshot().index + ENTRIES_MAX
            || to_settle.is_some_and(|epoch| epoch > meta.snapshot_state.epoch);
        if is_due && meta.handed_number == meta.synced_number {
            meta.take_snapshot(applied);
        }
        if meta.writing_number.is_none()
            && meta.retry_ns <= now_ns
            && (meta.handed_number > meta.synced_number
                || meta.installing.is_some()
                || to_settle.is_some()
                || cluster.has_let_go())
        {
            meta.writing_number = Some(meta.handed_number);
            meta.is_written_with_snapshot = meta.installing.is_some();
            let (file, let_go) = meta.file(&cluster);
            (meta.writing_epoch, meta.writing_let_go) = (file.state.epoch, let_go);
            let bytes = file.encode();
            io.file_task(Ticket::MetaFile.number(), FileTask::Replace { path: meta.path.clone(), bytes });
        }
        if meta.leader() != meta.published_leader || std::mem::take(&mut meta.has_news) {
            meta.published_leader = meta.leader();
            cluster.publish(&meta.state, meta.leader(), meta.applied());
        }
        self.meta = Some(meta);
        self.run_starts(io, now_ns);
    }

    /// The meta group's file is durable, or could not be written.
    pub(in crate::core) fn meta_file_written(&mut self, result: Result<(), i32>, now_ns: u64) {
        let Some(meta) = &mut self.meta else { return };
        let Some(number) = meta.writing_number.take() else { return };
        if let Err(errno) = result {
            // What the disk holds is an earlier file, whole: writing it again later is safe.
            let error = std::io::Error::from_raw_os_error(errno);
            tracing::error!(%error, "{} cannot be written: trying again", meta.path.display());
            meta.retry_ns = now_ns + RETRY_NS;
            return;
        }
        if let Some(cluster) = &self.cluster {
            cluster.note_settled(meta.writing_epoch, meta.writing_let_go);
        }
        if std::mem::take(&mut meta.is_written_with_snapshot)
            && let Some((snapshot, state)) = meta.installing.take()
        {
            meta.raft.snapshot_installed(snapshot.index, snapshot.term);
            meta.state = state.clone();
            meta.snapshot_state = state;
            meta.has_news = true;
        }
        meta.synced_number = number;
        if number > 0 {
            meta.raft.synced(number);
        }
    }

    /// What the leader of the meta group does about nodes and replicas.
    fn plan_cluster(&mut self, meta: &mut MetaGroup, now_ns: u64) {
        let broken = self.cluster.as_ref().map(|cluster| cluster.broken()).unwrap_or_default();
        let is_alive = |number: u32| {
            let is_there = number == meta.number || self.peers.is_steady(number, now_ns);
            is_there && !broken.contains(&number)
        };
        let nodes = meta.state.nodes.keys().copied();
        let living: BTreeSet<u32> = nodes.filter(|&number| is_alive(number)).collect();
        let alive = |number: u32| living.contains(&number);
        for &number in meta.state.nodes.keys() {
            if alive(number) {
                meta.lost_since_ns.remove(&number);
            } else {
                meta.lost_since_ns.entry(number).or_insert(now_ns);
            }
        }
        self.match_meta_members(meta, now_ns);
        if meta.raft.applied_index() < meta.raft.last_index() {
            // One change after the other.
            return;
        }
        let favoured_since_ns = meta.state.favoured.and_then(|number| meta.lost_since_ns.get(&number));
        if favoured_since_ns.is_some_and(|since_ns| now_ns.saturating_sub(*since_ns) >= FAVOUR_NS) {
            tracing::info!("the node that was to lead is away: leaders are spread again");
            meta.propose(now_ns, &MetaCommand::Favour(None));
            return;
        }
        if let Some(level) = self.level_to_agree_on(meta) {
            meta.propose(now_ns, &MetaCommand::RaiseLevel(level));
            return;
        }
        let dead: Vec<u32> = meta
            .lost_since_ns
            .iter()
            .filter(|(_, since_ns)| now_ns.saturating_sub(**since_ns) >= meta.replace_after_ns)
            .map(|(number, _)| *number)
            .collect();
        let voters = self.cluster.as_ref().map(|cluster| cluster.voters()).unwrap_or_default();
        let is_caught_up = |shard: u16, replica: ReplicaId| {
            voters.get(usize::from(shard)).is_some_and(|voters| voters.contains(&replica))
        };
        if let Some(command) = balance::plan(&meta.state, &alive, &dead, &is_caught_up) {
            tracing::info!(epoch = meta.state.epoch, "replicas are placed anew");
            meta.propose(now_ns, &command);
        }
    }

    /// The feature level that all nodes speak, if it is above what is agreed on. What they have said is not enough: one may be about
    /// to come back with an earlier version, and has not said so yet.
    fn level_to_agree_on(&self, meta: &MetaGroup) -> Option<u16> {
        let level = meta.state.level_of_all();
        if level <= meta.state.level {
            return None;
        }
        let cluster = self.cluster.as_ref()?;
        let speaks = |number: u32| {
            let own = (number == meta.number).then(|| self.features.own());
            own.or_else(|| cluster.linked_level(number)).is_some_and(|spoken| spoken >= level)
        };
        meta.state.nodes.keys().all(|&number| speaks(number)).then_some(level)
    }

    /// Every node is in the meta group: the first few vote, and the others learn.
    fn match_meta_members(&mut self, meta: &mut MetaGroup, now_ns: u64) {
        const VOTERS_MAX: usize = 5;
        let wanted: Vec<ReplicaId> = meta.state.nodes.keys().map(|&number| replica(number, 1)).collect();
        let membership = meta.raft.membership().clone();
        if membership.is_joint() {
            return;
        }
        let last = meta.raft.last_index();
        let is_caught_up =
            |it: ReplicaId| meta.raft.progress(it).is_some_and(|progress| progress.match_index() >= last);
        let mut voters: Vec<ReplicaId> =
            membership.voters.iter().copied().filter(|it| wanted.contains(it)).collect();
        for &it in &wanted {
            // One at a time, so that a majority is never made of newcomers.
            let has_changed = voters.len() > membership.voters.len();
            if !has_changed
                && voters.len() < VOTERS_MAX
                && !voters.contains(&it)
                && membership.learners.contains(&it)
                && is_caught_up(it)
            {
                voters.push(it);
            }
        }
        let learners: Vec<ReplicaId> = wanted.iter().copied().filter(|it| !voters.contains(it)).collect();
        voters.sort_unstable();
        if voters != membership.voters || learners != membership.learners {
            let _ = meta.raft.propose_membership(now_ns, &voters, &learners);
        }
    }
}

impl MetaGroup {
    fn apply(&mut self, index: Index, kind: EntryKind, payload: &[u8]) {
        if let EntryKind::Data(_) = kind {
            match MetaCommand::decode(payload) {
                Ok(command) => {
                    let outcome = self.state.apply(&command);
                    tracing::info!(epoch = self.state.epoch, ?outcome, "the cluster's state has changed");
                    self.has_news = true;
                }
                Err(error) => panic!("a change of the cluster is committed and cannot be read: {error}"),
            }
        }
        self.raft.applied(index);
    }

    /// Has the cluster know which feature level this node speaks.
    fn tell_level(&mut self, cluster: &ClusterShared, own: u16, now_ns: u64) {
        let known = self.state.nodes.get(&self.number).map(|node| node.level);
        // Who speaks less than what is agreed on has no say.
        if known.is_none_or(|known| known == own) || own < self.state.level {
            self.tell_ns = u64::MAX;
        } else if self.tell_ns == u64::MAX || self.tell_ns <= now_ns {
            self.tell_ns = with_heartbeats(now_ns, TELL_NS, self.heartbeat_ns);
            cluster.ask(MetaCommand::SetNodeLevel { number: self.number, level: own });
        }
    }

    /// The file begins with the state as it is now, which is that of entry `index`. A durable file has that entry: to Raft, what a
    /// snapshot covers is as good as synced.
    fn take_snapshot(&mut self, index: Index) {
        self.raft.compact(index);
        self.snapshot_state = self.state.clone();
    }

    fn take_piece(&mut self, piece: SnapshotWrite) {
        let SnapshotWrite { meta, offset, bytes, is_last } = piece;
        if offset == 0 {
            self.incoming.clear();
        }
        self.incoming.extend_from_slice(&bytes);
        self.raft.snapshot_stored(meta.index, meta.term, offset + bytes.len() as u64);
        if !is_last {
            return;
        }
        match MetaState::decode(&self.incoming) {
            Ok(state) => self.installing = Some((meta, state)),
            Err(error) => {
                tracing::warn!("the cluster's state cannot be read: {error}");
                self.raft.snapshot_failed(meta.index, meta.term);
            }
        }
        self.incoming = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use duva_net::mesh::mesh;
    use duva_raft::{Durability, HardState, ReadMode};

    use super::*;
    use crate::{
        cluster::meta::NodeInfo,
        config::Config,
        core::{admin::Shared, groups::genesis_membership, peer::hello::PeerIdentity},
        launch,
    };

    /// Node 1 of three, whose process speaks level 2.
    fn node() -> (Node, MetaGroup) {
        let config = Config { cores: 1, append_only: false, feature_level: 2, ..Config::default() };
        let shared = Arc::new(Shared::new(config.clone(), None, 0, 0, "0".repeat(40)));
        let mut node = launch::node(0, Arc::new(config), shared, mesh(1, 4).remove(0), 7);
        let mut state = MetaState::genesis([9; 16], 4, 77, 3, NodeInfo::example(1));
        for number in [2, 3] {
            state.apply(&MetaCommand::AddNode(NodeInfo::example(number)));
        }
        let cluster = ClusterShared::new(state.clone(), 1, (0, BTreeMap::new()));
        node.cluster = Some(Arc::new(cluster));
        let options = GroupOptions {
            number: 1,
            election_timeout_ms: 150,
            read_mode: ReadMode::Lease,
            durability: Durability::Fsync,
        };
        let file = ClusterFile {
            number: 1,
            is_recovering: false,
            cluster: state.cluster,
            hard_state: HardState::default(),
            snapshot: SnapshotMeta { membership: genesis_membership(), ..SnapshotMeta::default() },
            state,
            entries: Vec::new(),
            kept: Vec::new(),
        };
        (node, MetaGroup::new(file, PathBuf::new(), &options, 0, (0, 1)))
    }

    fn link(node: &Node, number: u32, level: u16) {
        let identity = PeerIdentity {
            cluster: [9; 16],
            node: [number as u8; 16],
            number,
            core: 0,
            cores: 1,
            life: 1,
            epoch: 1,
            level,
            agreed: 1,
        };
        node.cluster.as_ref().expect("there is one").note_link(&identity);
    }

    #[test]
    fn what_nodes_have_said_is_not_enough_while_one_may_come_back_as_it_was() {
        let (node, mut meta) = node();
        link(&node, 2, 2);
        link(&node, 3, 2);
        assert_eq!(node.level_to_agree_on(&meta), None, "nobody has said it");
        for number in 1..=3 {
            meta.state.apply(&MetaCommand::SetNodeLevel { number, level: 2 });
        }
        assert_eq!(node.level_to_agree_on(&meta), Some(2));
        let cluster = node.cluster.as_ref().expect("there is one");
        cluster.note_link_lost(3);
        assert_eq!(node.level_to_agree_on(&meta), None, "it is down");
        link(&node, 3, 1);
        assert_eq!(node.level_to_agree_on(&meta), None, "it came back with an earlier version");
        cluster.note_link_lost(3);
        link(&node, 3, 3);
        assert_eq!(node.level_to_agree_on(&meta), Some(2));
        meta.state.apply(&MetaCommand::RaiseLevel(2));
        assert_eq!(node.level_to_agree_on(&meta), None, "it is agreed on");
    }

    #[test]
    fn a_node_says_what_it_speaks_until_the_cluster_knows() {
        let (node, mut meta) = node();
        let cluster = node.cluster.as_ref().expect("there is one");
        let says = [MetaCommand::SetNodeLevel { number: 1, level: 2 }];
        meta.tell_level(cluster, 2, 0);
        assert_eq!(cluster.take_commands(), says);
        let again_ns = meta.tell_ns;
        assert_eq!(meta.next_ns(), meta.deadline_ns().min(again_ns));
        meta.tell_level(cluster, 2, again_ns - 1);
        assert_eq!(cluster.take_commands(), []);
        meta.tell_level(cluster, 2, again_ns);
        assert_eq!(cluster.take_commands(), says);
        meta.state.apply(&says[0]);
        meta.tell_level(cluster, 2, 2 * again_ns);
        assert_eq!((cluster.take_commands(), meta.tell_ns), (Vec::new(), u64::MAX));
        // It goes back, which it may until that is agreed on.
        meta.tell_level(cluster, 1, 3 * again_ns);
        assert_eq!(cluster.take_commands(), [MetaCommand::SetNodeLevel { number: 1, level: 1 }]);
        for number in 2..=3 {
            meta.state.apply(&MetaCommand::SetNodeLevel { number, level: 2 });
        }
        meta.state.apply(&MetaCommand::RaiseLevel(2));
        meta.tell_level(cluster, 1, 9 * again_ns);
        assert_eq!((cluster.take_commands(), meta.tell_ns), (Vec::new(), u64::MAX));
    }

    #[test]
    fn changes_that_not_all_nodes_understand_are_not_proposed() {
        let (_, mut meta) = node();
        // As if the first level were later than what is agreed on.
        meta.state.level = 0;
        assert!(!meta.propose(0, &MetaCommand::RaiseLevel(1)));
    }
}
