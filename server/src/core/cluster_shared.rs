//! What the cores of a node share about their cluster.
//!
//! Touched when the cluster changes, and by questions about it, never by a data request. Invariants:
//!
//! - The view is replaced whole; whoever has one keeps it. The version grows with every new one.
//! - What is asked of the meta group waits here for core 0, and is not answered: who asked looks at the view.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use duva_net::io::Clock;
use duva_raft::{ReplicaId, SnapshotMeta};

use super::peer::hello::PeerIdentity;
use crate::cluster::{
    meta::{MetaCommand, MetaState, NodeInfo},
    node_of,
    starts::{self, LastStart, Starts},
    view::ClusterView,
};

/// Changes that may wait for core 0; more are not taken.
const COMMANDS_MAX: usize = 1024;

/// What is known of one shard's group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardStatus {
    /// The node that leads, and in which term.
    pub leader: Option<(u32, u64)>,
    /// Who votes, as its leader has said: by the last membership that is committed.
    pub voters: Vec<ReplicaId>,
}

/// Which nodes can be reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Liveness {
    /// Whether a node is up.
    pub alive: BTreeMap<u32, bool>,
    /// Nodes that are up as far as is known, and have not answered lately.
    pub suspected: BTreeSet<u32>,
    /// Nodes that this one has no link to.
    pub unlinked: BTreeSet<u32>,
}

/// Links from one node.
#[derive(Default)]
struct Links {
    /// How many cores it has.
    cores: usize,
    /// How many of them there are, on all cores of this node.
    count: usize,
    /// The feature level that its process speaks.
    level: u16,
}

struct Inner {
    view: Arc<ClusterView>,
    meta_leader: Option<u32>,
    /// Where in the meta group's log the view's state is.
    snapshot: Option<SnapshotMeta>,
    shards: Vec<ShardStatus>,
    liveness: Liveness,
    /// Links from other nodes, by number.
    links: BTreeMap<u32, Links>,
    /// Nodes that can keep nothing: a journal of theirs has failed.
    broken: BTreeSet<u32>,
    /// The last start that was seen of each other node.
    starts: Starts,
    commands: Vec<MetaCommand>,
    own: OwnReplicas,
}

/// This node's replicas, which its next start is to take up.
struct OwnReplicas {
    /// By shard, the one that has begun, or that a start has taken up, and is not let go.
    kept: Vec<Option<ReplicaId>>,
    /// By shard, how many had been let go when its last one was.
    let_go_as: Vec<u64>,
    /// The epoch of the state with which the last file of the meta group begins that was made, written or not.
    begins_with: u64,
}

/// What the cores of a node share about their cluster.
pub struct ClusterShared {
    version: AtomicU64,
    /// The time that shards may be given at the most, at monotonic time 0, in milliseconds; `i64::MAX`: any.
    ceiling_ms: AtomicI64,
    inner: Mutex<Inner>,
    /// Epochs: of the state that the meta group's file begins with, durably, and of that which it should.
    settled: AtomicU64,
    to_settle: AtomicU64,
    /// How many of this node's replicas were let go: in all, and by the meta group's file, durably.
    let_go: AtomicU64,
    let_go_settled: AtomicU64,
    /// How often something was noted of other nodes' starts.
    noted_starts: AtomicU64,
    /// Nodes that are dialled until the state has this epoch, whether it knows them or not.
    expected: (u64, BTreeMap<u32, NodeInfo>),
}

impl ClusterShared {
    /// What is known at the start of node `number`, and the nodes that are expected at an epoch to come.
    pub fn new(state: MetaState, number: u32, expected: (u64, BTreeMap<u32, NodeInfo>)) -> Self {
        let count = usize::from(state.shards);
        let shards = vec![ShardStatus::default(); count];
        let settled = AtomicU64::new(state.epoch);
        let inner = Inner {
            view: Arc::new(ClusterView::new(state.clone(), number)),
            meta_leader: None,
            snapshot: None,
            shards,
            liveness: Liveness::default(),
            links: BTreeMap::new(),
            broken: BTreeSet::new(),
            starts: Starts::new(),
            commands: Vec::new(),
            own: OwnReplicas { kept: vec![None; count], let_go_as: vec![0; count], begins_with: state.epoch },
        };
        Self {
            version: AtomicU64::new(1),
            ceiling_ms: AtomicI64::new(i64::MAX),
            inner: Mutex::new(inner),
            settled,
            to_settle: AtomicU64::new(0),
            let_go: AtomicU64::new(0),
            let_go_settled: AtomicU64::new(0),
            noted_starts: AtomicU64::new(0),
            expected,
        }
    }

    /// The same, with what an earlier process has seen of other nodes' starts.
    pub fn with_starts(self, starts: Starts) -> Self {
        self.lock().starts = starts;
        self
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic ends the process.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Grows with every new view.
    #[inline]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// A link from one of a node's cores is there.
    pub fn note_link(&self, peer: &PeerIdentity) {
        let mut inner = self.lock();
        let links = inner.links.entry(peer.number).or_default();
        links.cores = usize::from(peer.cores);
        links.count += 1;
        links.level = peer.level;
    }

    /// The feature level that the process speaks by which a node is linked to this one; `None`: none is.
    pub fn linked_level(&self, node: u32) -> Option<u16> {
        self.lock().links.get(&node).map(|links| links.level)
    }

    /// A link from a node is gone.
    pub fn note_link_lost(&self, node: u32) {
        let mut inner = self.lock();
        if let Some(links) = inner.links.get_mut(&node) {
            links.count -= 1;
            if links.count == 0 {
                inner.links.remove(&node);
            }
        }
    }

    /// Whether all cores of a node are linked to this one, which has another number of cores. Asked by cores without a link of it.
    pub fn hears_all_of(&self, node: u32, own_cores: usize) -> bool {
        self.lock()
            .links
            .get(&node)
            .is_some_and(|links| links.cores != own_cores && links.count >= links.cores)
    }

    /// The last start that was seen of another node.
    pub fn last_start(&self, node: u32) -> Option<LastStart> {
        self.lock().starts.get(&node).copied()
    }

    /// A start of another node was seen. Core 0 sees to it that it is remembered.
    pub fn note_start(&self, node: u32, start: LastStart) {
        let mut inner = self.lock();
        // Cores may have seen different ones: the later counts.
        if inner.starts.get(&node).is_none_or(|known| known.epoch < start.epoch) {
            inner.starts.insert(node, start);
            self.noted_starts.fetch_add(1, Ordering::Release);
        }
    }

    /// How often something was noted of other nodes' starts, if that is more than `written`, and the file with what there is to be
    /// remembered: nothing of nodes that are not there any more.
    pub fn starts_after(&self, written: u64) -> Option<(u64, Vec<u8>)> {
        if self.noted_starts.load(Ordering::Acquire) <= written {
            return None;
        }
        let mut inner = self.lock();
        let view = Arc::clone(&inner.view);
        let nodes = self.nodes_to_reach(&view.state);
        inner.starts.retain(|node, _| nodes.contains_key(node));
        let bytes = starts::encode(&view.state.cluster, inner.starts.iter());
        Some((self.noted_starts.load(Ordering::Acquire), bytes))
    }

    /// A node can keep nothing, because a journal of it has failed, or can again; returns whether that is new.
    pub fn set_broken(&self, node: u32, is_broken: bool) -> bool {
        let broken = &mut self.lock().broken;
        if is_broken { broken.insert(node) } else { broken.remove(&node) }
    }

    /// Nodes that can keep nothing, this one perhaps among them: they are to lead nothing, and their copies count for nothing.
    pub fn broken(&self) -> BTreeSet<u32> {
        self.lock().broken.clone()
    }

    /// What core 0 makes of the nodes' clocks.
    pub fn set_ceiling(&self, ceiling_ms: Option<i64>) {
        self.ceiling_ms.store(ceiling_ms.unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// A time of this node, held back where it is ahead of most nodes' clocks.
    #[inline]
    pub fn held_ms(&self, clock: Clock) -> u64 {
        let ceiling_ms = self.ceiling_ms.load(Ordering::Relaxed);
        clock.wall_ms.min((clock.monotonic_ns / 1_000_000).saturating_add_signed(ceiling_ms))
    }

    /// Has every core look again.
    pub fn touch(&self) {
        self.version.fetch_add(1, Ordering::Release);
    }

    /// The present view.
    pub fn view(&self) -> Arc<ClusterView> {
        Arc::clone(&self.lock().view)
    }

    /// The nodes that are to be reached as long as the state is `state`.
    pub fn nodes_to_reach(&self, state: &MetaState) -> BTreeMap<u32, NodeInfo> {
        let (epoch, expected) = &self.expected;
        let mut nodes = if state.epoch < *epoch { expected.clone() } else { BTreeMap::new() };
        nodes.extend(state.nodes.clone());
        nodes
    }

    /// The node that leads the meta group, as far as is known.
    pub fn meta_leader(&self) -> Option<u32> {
        self.lock().meta_leader
    }

    /// The state, and where in the meta group's log it is: what a node that joins begins with.
    pub fn beginning(&self) -> Option<(MetaState, SnapshotMeta)> {
        let inner = self.lock();
        Some((inner.view.state.clone(), inner.snapshot.clone()?))
    }

    /// The meta group has come so far.
    pub fn publish(&self, state: &MetaState, meta_leader: Option<u32>, snapshot: SnapshotMeta) {
        let mut inner = self.lock();
        inner.meta_leader = meta_leader;
        inner.snapshot = Some(snapshot);
        if inner.view.state != *state {
            let number = inner.view.number;
            inner.view = Arc::new(ClusterView::new(state.clone(), number));
        }
        self.renew(&mut inner);
    }

    /// Some shards' leaders, or voters, are others now.
    pub fn update(&self, shards: impl IntoIterator<Item = (u16, ShardStatus)>) {
        let mut inner = self.lock();
        let mut has_changed = false;
        for (shard, mut status) in shards {
            let Some(known) = inner.shards.get_mut(usize::from(shard)) else { continue };
            // Who led in an earlier term may not have noticed yet.
            let term = |status: &ShardStatus| status.leader.map_or(0, |(_, term)| term);
            if status.leader.is_some() && term(&status) < term(known) {
                continue;
            }
            // Who votes is known from leaders alone.
            if status.voters.is_empty() {
                status.voters.clone_from(&known.voters);
            }
            if *known != status {
                *known = status;
                has_changed = true;
            }
        }
        if has_changed {
            self.renew(&mut inner);
        }
    }

    /// Which nodes can be reached.
    pub fn set_alive(&self, liveness: Liveness) {
        let mut inner = self.lock();
        if inner.liveness != liveness {
            inner.liveness = liveness;
            self.renew(&mut inner);
        }
    }

    fn renew(&self, inner: &mut Inner) {
        let mut view = ClusterView::clone(&inner.view);
        view.leaders = inner.shards.iter().map(|shard| shard.leader).collect();
        view.alive.clone_from(&inner.liveness.alive);
        view.suspected.clone_from(&inner.liveness.suspected);
        view.unlinked.clone_from(&inner.liveness.unlinked);
        let placed = (0..).zip(view.state.placement.iter().zip(&inner.shards));
        let voteless = |(shard, (replicas, status)): (u16, (&Vec<ReplicaId>, &ShardStatus))| {
            let voteless = replicas.iter().filter(|replica| !status.voters.contains(replica));
            voteless.map(|replica| (shard, node_of(*replica))).collect::<Vec<_>>()
        };
        view.catching_up = placed.flat_map(voteless).collect();
        inner.view = Arc::new(view);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// By shard, who votes, as far as leaders have said.
    pub fn voters(&self) -> Vec<Vec<ReplicaId>> {
        self.lock().shards.iter().map(|shard| shard.voters.clone()).collect()
    }

    /// Whether a start knows nothing older than the state of `epoch`. If not, the meta group sees to it.
    pub fn settle(&self, epoch: u64) -> bool {
        self.to_settle.fetch_max(epoch, Ordering::Relaxed);
        self.settled.load(Ordering::Acquire) >= epoch
    }

    /// The epoch of the state that the meta group's file should begin with; `None`: it does.
    pub fn to_settle(&self) -> Option<u64> {
        let epoch = self.to_settle.load(Ordering::Relaxed);
        (epoch > self.settled.load(Ordering::Relaxed)).then_some(epoch)
    }

    /// The meta group's file begins with the state of `epoch`, durably, and lets so many replicas go.
    pub fn note_settled(&self, epoch: u64, let_go: u64) {
        self.let_go_settled.fetch_max(let_go, Ordering::Release);
        self.settled.fetch_max(epoch, Ordering::Release);
    }

    /// A start has taken up this node's replica of a shard.
    pub fn keep_replica(&self, shard: u16, replica: ReplicaId) {
        self.lock().own.kept[usize::from(shard)] = Some(replica);
    }

    /// Whether this node's replica of a shard begins, which the state of `epoch` names: from then on every start takes it up. If not,
    /// the meta group sees to it, or a later state is about to come.
    pub fn begin_replica(&self, shard: u16, replica: ReplicaId, epoch: u64) -> bool {
        if !self.settle(epoch) {
            return false;
        }
        let own = &mut self.lock().own;
        // A file that begins later does not know of it.
        let is_named = own.begins_with <= epoch;
        if is_named {
            own.kept[usize::from(shard)] = Some(replica);
        }
        is_named
    }

    /// Whether no start takes up this node's replica of a shard again, which the state of `epoch` does not name, and on which nobody
    /// counts. If not, the meta group sees to it.
    pub fn let_replica_go(&self, shard: u16, epoch: u64) -> bool {
        let let_go_as = {
            let own = &mut self.lock().own;
            let place = usize::from(shard);
            if own.kept[place].take().is_some() {
                own.let_go_as[place] = self.let_go.fetch_add(1, Ordering::Relaxed) + 1;
            }
            own.let_go_as[place]
        };
        self.settle(epoch) && self.let_go_settled.load(Ordering::Acquire) >= let_go_as
    }

    /// Whether replicas were let go that the meta group's file may still name.
    pub fn has_let_go(&self) -> bool {
        self.let_go.load(Ordering::Relaxed) > self.let_go_settled.load(Ordering::Relaxed)
    }

    /// What a file of the meta group that begins with `state` has to keep of this node's replicas, and how many it lets go.
    pub fn kept_replicas(&self, state: &MetaState) -> (Vec<(u16, ReplicaId)>, u64) {
        let own = &mut self.lock().own;
        own.begins_with = own.begins_with.max(state.epoch);
        let kept = (0..).zip(&own.kept).filter_map(|(shard, kept)| Some((shard, (*kept)?)));
        let is_unnamed = |&(shard, replica): &(u16, ReplicaId)| {
            !state.placement.get(usize::from(shard)).is_some_and(|placed| placed.contains(&replica))
        };
        (kept.filter(is_unnamed).collect(), self.let_go.load(Ordering::Relaxed))
    }

    /// Asks the meta group for a change; false: too many wait.
    pub fn ask(&self, command: MetaCommand) -> bool {
        let mut inner = self.lock();
        if inner.commands.contains(&command) {
            return true;
        }
        let has_room = inner.commands.len() < COMMANDS_MAX;
        if has_room {
            inner.commands.push(command);
        }
        has_room
    }

    /// What is asked for.
    pub fn take_commands(&self) -> Vec<MetaCommand> {
        std::mem::take(&mut self.lock().commands)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::meta::MetaState;

    #[test]
    fn a_wall_clock_is_held_back_and_never_moved_forward() {
        let info = NodeInfo::example(1);
        let state = MetaState::genesis([7; 16], 4, 0, 3, info);
        let shared = ClusterShared::new(state, 1, (0, BTreeMap::new()));
        let held_ms = |wall_ms| shared.held_ms(Clock { wall_ms, monotonic_ns: 5_000_000_000 });
        assert_eq!(held_ms(1 << 62), 1 << 62);
        shared.set_ceiling(Some(1_000_000));
        assert_eq!([held_ms(3), held_ms(1_005_000), held_ms(1_005_001)], [3, 1_005_000, 1_005_000]);
        // Of a machine that runs for longer than its clock shows.
        shared.set_ceiling(Some(-6000));
        assert_eq!(held_ms(3), 0);
    }

    #[test]
    fn replicas_begin_and_end_with_the_file_that_says_so() {
        let one = ReplicaId(1 << 32 | 7);
        let mut named = MetaState::genesis([7; 16], 2, 0, 3, NodeInfo::example(1));
        named.epoch = 5;
        named.placement[1] = vec![one];
        let unnamed = MetaState { epoch: 6, placement: vec![Vec::new(); 2], ..named.clone() };
        let shared = ClusterShared::new(MetaState { epoch: 4, ..unnamed.clone() }, 1, (0, BTreeMap::new()));
        assert!(!shared.begin_replica(1, one, 5), "no file names it");
        assert_eq!((shared.to_settle(), shared.kept_replicas(&named)), (Some(5), (vec![], 0)));
        shared.note_settled(5, 0);
        assert!(shared.begin_replica(1, one, 5));
        // Another shard's may make the file begin later.
        assert_eq!(shared.kept_replicas(&named), (vec![], 0), "the state names it");
        assert_eq!(shared.kept_replicas(&unnamed), (vec![(1, one)], 0));
        shared.note_settled(6, 0);
        assert!(!shared.begin_replica(0, one, 5), "the file begins later, and does not name it");
        assert!(!shared.let_replica_go(1, 6), "the file keeps it");
        assert!(shared.has_let_go() && !shared.let_replica_go(1, 6));
        assert_eq!(shared.kept_replicas(&unnamed), (vec![], 1));
        shared.note_settled(6, 1);
        assert!(!shared.has_let_go() && shared.let_replica_go(1, 6));
    }

    #[test]
    fn replicas_count_once_their_leaders_have_said_that_they_vote() {
        let replicas = [1, 2].map(|node| ReplicaId(node << 32 | 7));
        assert_eq!(node_of(replicas[1]), 2);
        let mut state = MetaState::genesis([7; 16], 2, 0, 3, NodeInfo::example(1));
        state.nodes.insert(2, NodeInfo::example(2));
        state.placement = vec![replicas.to_vec(); 2];
        let shared = ClusterShared::new(
            MetaState { epoch: state.epoch + 1, ..state.clone() },
            1,
            (0, BTreeMap::new()),
        );
        let says = |shard, term, voters: &[ReplicaId]| {
            shared.update([(shard, ShardStatus { leader: Some((1, term)), voters: voters.to_vec() })]);
            shared.view().catching_up.iter().copied().collect::<Vec<_>>()
        };
        shared.publish(&state, None, SnapshotMeta::default());
        assert_eq!(shared.view().catching_up.len(), 4, "nobody has said anything");
        assert_eq!(says(0, 2, &replicas), [(1, 1), (1, 2)]);
        assert_eq!(says(1, 2, &replicas[..1]), [(1, 2)]);
        assert_eq!(says(1, 2, &[]), [(1, 2)], "that says nothing of voters");
        assert_eq!(says(1, 1, &replicas), [(1, 2)], "who led before says it");
        assert_eq!(says(1, 2, &replicas), []);
    }
}
