//! One replica, driven by hand: what waits to be applied is bounded.

use std::sync::Arc;

use duva_engine::{Protocol, command};
use duva_net::mesh::mesh;
use duva_raft::{
    Body, Durability, Entry, EntryKind, HardState, Message, ReadMode, Ready, ReplicaId, Restored, Role,
    SnapshotMeta, codec,
};

use super::{COMMITTED_BYTES_MAX, GroupOptions, Groups, genesis_membership};
use crate::{
    cluster::{GENESIS_REPLICA, node_of, replica},
    config::Config,
    core::{
        admin::Shared,
        log::replicated::TAG_COMMAND,
        node::{Node, Origin, Submitted},
        peer::frame::{FrameHeader, Kind},
        request::{Mode, OwnedRequest, Reading},
    },
    launch,
};

const SECOND_NS: u64 = 1_000_000_000;

/// A node of one core with a replica of shard 0, which is the only voter if it is the first one.
fn node(own: ReplicaId) -> Node {
    let config = Config { cores: 1, shards: 8, append_only: false, ..Config::default() };
    let shared = Arc::new(Shared::new(config.clone(), None, 0, 0, "0".repeat(40)));
    let endpoint = mesh(1, 4).remove(0);
    let mut node = launch::node(0, Arc::new(config), shared, endpoint, 7);
    let options = GroupOptions {
        number: node_of(own),
        election_timeout_ms: 150,
        read_mode: ReadMode::Lease,
        durability: Durability::Fsync,
    };
    let mut groups = Groups::new(options, 8, 1);
    let snapshot = SnapshotMeta { membership: genesis_membership(), ..SnapshotMeta::default() };
    let restored = Restored { hard_state: HardState::default(), snapshot, entries: Vec::new() };
    groups.add(0, own, restored, 0, 1);
    groups.set_clock(SECOND_NS);
    node.groups = Some(Box::new(groups));
    node
}

fn groups(node: &mut Node) -> &mut Groups {
    node.groups.as_mut().expect("it has some")
}

fn last_index(node: &Node) -> u64 {
    node.groups.as_ref().and_then(|groups| groups.raft(0)).expect("there is a replica").last_index()
}

/// Lets the replica go on as if its disk took everything at once.
fn settle(node: &mut Node) {
    let raft = &mut groups(node).by_shard[0].as_mut().expect("there is a replica").raft;
    raft.tick(SECOND_NS);
    let mut ready = Ready::default();
    while raft.has_ready() {
        raft.take_ready(SECOND_NS, &mut ready);
        if let Some(write) = &ready.write {
            raft.synced(write.number);
        }
    }
}

/// A key of shard 0.
fn key(node: &Node) -> String {
    let is_in = |key: &String| {
        let slot = node.executor.hasher.key(key.as_bytes()).slot;
        node.executor.shards.number_of(slot) == 0
    };
    (0..).map(|number| format!("key:{number}")).find(is_in).expect("there are many")
}

#[test]
fn a_leader_that_cannot_apply_proposes_nothing_more_and_keeps_what_comes_in_order() {
    let mut node = node(GENESIS_REPLICA);
    settle(&mut node);
    assert_eq!(groups(&mut node).raft(0).map(duva_raft::Raft::role), Some(Role::Leader));
    let command = command::lookup(b"set").expect("there is such a command");
    let command::Run::Single(handler) = command.run else { panic!("SET has one key") };
    let mode = Mode { database: 0, protocol: Protocol::Resp2, touch: true, reading: Reading::Leader };
    let key = key(&node);
    let request = |node: &mut Node, id: u64| {
        let origin = Origin::Fanout { id, command };
        let mut request =
            OwnedRequest::new(command, &[b"SET", key.as_bytes(), b"1"], &node.executor.hasher.clone(), mode);
        let submitted = node.group_first(origin, handler, &mut request.view(), &mut Vec::new(), true);
        assert!(submitted == Some(Submitted::Waiting));
    };
    let before = last_index(&node);
    request(&mut node, 1);
    assert_eq!(last_index(&node), before + 1);
    groups(&mut node).committed_bytes = COMMITTED_BYTES_MAX + 1;
    request(&mut node, 2);
    // What comes behind it does not pass it, whatever has been applied meanwhile.
    groups(&mut node).committed_bytes = 0;
    request(&mut node, 3);
    assert_eq!(last_index(&node), before + 1);
    let mut taken = node.groups.take().expect("it has some");
    assert_eq!(taken.routes[0].waiting.len(), 2);
    assert!(taken.waiting_bytes > 0 && taken.retry_ns <= taken.now_ns + SECOND_NS);
    node.serve_waiting(&mut taken, 0);
    assert_eq!((taken.routes[0].waiting.len(), taken.waiting_bytes), (0, 0));
    let pending = &taken.by_shard[0].as_ref().expect("there is a replica").pending;
    let order: Vec<u64> = pending
        .iter()
        .map(|pending| match pending.asked.origin {
            Origin::Fanout { id, .. } => id,
            _ => panic!("nobody else asked"),
        })
        .collect();
    assert_eq!(order, [1, 2, 3]);
}

#[test]
fn a_follower_that_cannot_apply_takes_no_entries_of_that_group() {
    let (leader, own) = (replica(2, 7), replica(1, 8));
    let mut node = node(own);
    let entry = |index| Entry {
        index,
        term: 1,
        timestamp_ms: 1,
        seed: 0,
        kind: EntryKind::Data(TAG_COMMAND),
        payload: vec![0; 100].as_slice().into(),
    };
    let append = |node: &mut Node, index: u64, entries: Vec<Entry>| {
        let prev_term = u64::from(index > 1);
        let body = Body::Append { prev_index: index - 1, prev_term, commit: 1, entries };
        let message = Message { from: leader, to: own, term: 1, body };
        let mut bytes = Vec::new();
        codec::encode(&message, &mut bytes);
        let header = FrameHeader { kind: Kind::Raft, flags: 0, group: 0 };
        node.take_group_frame(node_of(leader), header, &bytes);
    };
    append(&mut node, 1, vec![entry(1)]);
    assert_eq!(last_index(&node), 1);
    // The first is committed, and a save keeps it from being applied; others of the core's have filled the bound.
    let mut taken = node.groups.take().expect("it has some");
    let mut group = taken.by_shard[0].take().expect("there is a replica");
    let mut ready = Ready::default();
    group.raft.take_ready(SECOND_NS, &mut ready);
    assert_eq!(ready.committed.len(), 1);
    taken.add_committed(&mut group, ready.committed.drain(..));
    assert_eq!(taken.committed_bytes, entry(1).cost_bytes());
    taken.committed_bytes += COMMITTED_BYTES_MAX;
    taken.by_shard[0] = Some(group);
    node.groups = Some(taken);
    append(&mut node, 2, vec![entry(2)]);
    assert_eq!(last_index(&node), 1);
    // What brings no entries is heard.
    append(&mut node, 2, Vec::new());
    let mut taken = node.groups.take().expect("it has some");
    taken.committed_bytes -= COMMITTED_BYTES_MAX;
    node.groups = Some(taken);
    append(&mut node, 2, vec![entry(2)]);
    assert_eq!(last_index(&node), 2);
}
