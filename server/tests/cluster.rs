//! Clusters from outside: real processes, killed, stopped and cut off under clients whose history must be linearizable.
//!
//! Every test with a load ends the same way: all that the clients saw, and a last read of every key at every node, must be
//! what one register a key can have answered. So nothing acknowledged is lost, nothing is applied twice, no read is stale.

mod cluster_support;
#[path = "../../tools/src/linearizability.rs"]
#[allow(unreachable_pub, reason = "a module of test programs has no outside")]
mod linearizability;
mod support;

#[path = "cluster/broken_disk.rs"]
mod broken_disk;
#[path = "cluster/catching_up.rs"]
mod catching_up;
#[path = "cluster/departed.rs"]
mod departed;
#[path = "cluster/faults.rs"]
mod faults;
#[path = "cluster/five.rs"]
mod five;
#[path = "cluster/leaving.rs"]
mod leaving;
#[path = "cluster/meeting.rs"]
mod meeting;
#[path = "cluster/members.rs"]
mod members;
#[path = "cluster/partitions.rs"]
mod partitions;
#[path = "cluster/programs.rs"]
mod programs;
#[path = "cluster/promises.rs"]
mod promises;
#[path = "cluster/several.rs"]
mod several;

use std::net::SocketAddr;

use cluster_support::network::Network;
use cluster_support::node::{Node, Role};
use cluster_support::wait_for;

/// Clients of a load.
const CLIENTS: usize = 8;

/// Writes before and after a fault: enough for every key to have a history.
const WRITES: u64 = 1000;

/// Shards of all clusters here.
const SHARDS: usize = 16;

/// Some nodes of one cluster; the first one made it.
struct Cluster {
    nodes: Vec<Node>,
}

impl Cluster {
    /// Starts three nodes and waits until each shard has a replica on each of them.
    fn start() -> Self {
        let mut cluster = Self::founded();
        for _ in 1..3 {
            let mut node = cluster.next_node();
            node.start();
            cluster.nodes.push(node);
        }
        cluster.wait_until_whole(3);
        cluster
    }

    /// As [`Self::start`], each node in a namespace of the network.
    fn start_in(network: &Network) -> Self {
        let mut nodes: Vec<Node> = Vec::new();
        for number in 0..3 {
            let role = nodes.first().map_or(Role::First, |first| Role::Joins(first.address()));
            let node = node(&format!("node {number}"), role);
            let mut node = node.inside(network.namespace(number), Network::host(number));
            node.start();
            nodes.push(node);
        }
        let cluster = Self { nodes };
        cluster.wait_until_whole(3);
        cluster
    }

    /// One node that made a cluster.
    fn founded() -> Self {
        let mut first = node("node 0", Role::First);
        first.start();
        Self { nodes: vec![first] }
    }

    /// A node that is to join, not started.
    fn next_node(&self) -> Node {
        node(&format!("node {}", self.nodes.len()), Role::Joins(self.nodes[0].address()))
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(Node::address).collect()
    }

    /// The addresses of all nodes but one.
    fn others(&self, node: usize) -> Vec<SocketAddr> {
        let others = self.nodes.iter().enumerate().filter(|&(number, _)| number != node);
        others.map(|(_, other)| other.address()).collect()
    }

    /// Waits until every started node sees a leader and `replicas` replicas of every shard, all online.
    fn wait_until_whole(&self, replicas: usize) {
        for node in self.nodes.iter().filter(|node| node.is_started()) {
            wait_for("the whole cluster", || node.shards()?.is_whole(replicas));
            wait_for("the state ok", || match node.cluster_info("cluster_state")?.as_str() {
                "ok" => Ok(()),
                state => Err(format!("cluster_state is {state}")),
            });
        }
    }

    /// Waits until no group changes its replicas: each has three that vote, one of which leads, and nobody has another one.
    fn wait_until_settled(&self) {
        self.wait_until_whole(3);
        wait_for("the end of all changes", || {
            let (mut replicas, mut leaders) = (0, 0);
            for node in self.nodes.iter().filter(|node| node.is_started()) {
                let reply = node.connect().words("INFO raft");
                let text = String::from_utf8_lossy(reply.bytes().unwrap_or_default()).into_owned();
                for line in text.lines().filter(|line| line.contains(":role=")) {
                    if !line.contains("replicas=3,") || !line.contains("state=voter") {
                        return Err(line.to_owned());
                    }
                    replicas += 1;
                    leaders += usize::from(line.contains(":role=leader"));
                }
            }
            let is_settled = (replicas, leaders) == (3 * SHARDS, SHARDS);
            if is_settled { Ok(()) } else { Err(format!("{replicas} replicas, {leaders} lead")) }
        });
    }

    /// Which node leads the most slots.
    fn first_leader(&self) -> usize {
        let led = wait_for("leaders", || self.nodes[0].shards()).led_slots();
        let (address, _) = led.into_iter().max_by_key(|&(_, slots)| slots).expect("every shard has a leader");
        self.node_at(address)
    }

    /// Which node leads the fewest slots.
    fn last_leader(&self) -> usize {
        let led = wait_for("leaders", || self.nodes[0].shards()).led_slots();
        let slots = |node: &usize| led.get(&self.nodes[*node].address()).copied().unwrap_or(0);
        (0..self.nodes.len()).min_by_key(slots).expect("a cluster has nodes")
    }

    fn node_at(&self, address: SocketAddr) -> usize {
        let place = self.nodes.iter().position(|node| node.address() == address);
        place.unwrap_or_else(|| panic!("{address} is none of the nodes"))
    }
}

/// A node with the settings that all tests use: more shards than cores, so that leaders are spread.
fn node(name: &str, role: Role) -> Node {
    Node::new(name, role).option("cores", "2").option("shards", &SHARDS.to_string())
}
