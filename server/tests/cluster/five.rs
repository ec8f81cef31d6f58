//! Five nodes, each with a replica of everything or of a part.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::Cluster;
use crate::cluster_support::node::{Node, Role};
use crate::cluster_support::shards::Shards;
use crate::cluster_support::wait_for;
use crate::{SHARDS, node};

/// Keys in all shards.
const KEYS: usize = 64;

fn start(replication_factor: usize) -> Cluster {
    let factor = replication_factor.to_string();
    let node = |name: &str, role| {
        node(name, role).option("replication-factor", &factor).option("replace-after", "1")
    };
    let mut first = node("node 0", Role::First);
    first.start();
    let seed = first.address();
    let mut nodes = vec![first];
    for number in 1..5 {
        let mut next = node(&format!("node {number}"), Role::Joins(seed));
        next.start();
        nodes.push(next);
    }
    let cluster = Cluster { nodes };
    cluster.wait_until_whole(replication_factor);
    cluster
}

/// Writes every key through the nodes in turn; what a lost leader leaves in doubt is written again.
fn write(cluster: &Cluster, mark: &str) {
    let nodes: Vec<&Node> = cluster.nodes.iter().filter(|node| node.is_started()).collect();
    for key in 0..KEYS {
        wait_for("a write", || {
            let reply = nodes[key % nodes.len()].connect().words(&format!("SET key:{key} {mark}"));
            if reply.is_status("OK") { Ok(()) } else { Err(reply.to_string()) }
        });
    }
}

/// Every node that runs serves every key, whether it has a replica of it or not.
fn check(cluster: &Cluster, mark: &str) {
    for node in cluster.nodes.iter().filter(|node| node.is_started()) {
        let mut connection = node.connect();
        for key in 0..KEYS {
            let reply = connection.words(&format!("GET key:{key}"));
            assert_eq!(reply.bytes(), Some(mark.as_bytes()), "key:{key}: {reply}");
        }
    }
}

/// Waits until replicas and leaders of all shards are spread evenly over so many nodes.
fn wait_until_even(node: &Node, replication_factor: usize, count: usize) {
    wait_for("an even spread", || {
        // A node that is gone, and not forgotten, is listed without slots.
        let shards = Shards(node.shards()?.0.into_iter().filter(|shard| shard.slots > 0).collect());
        shards.is_whole(replication_factor)?;
        let slots = 16_384 / i64::try_from(SHARDS).expect("few");
        let mut held: BTreeMap<SocketAddr, i64> = BTreeMap::new();
        for shard in &shards.0 {
            for replica in &shard.replicas {
                *held.entry(replica.address).or_default() += shard.slots / slots;
            }
        }
        let led = shards.led_slots().into_iter().map(|(address, led)| (address, led / slots)).collect();
        let is_even = |counts: &BTreeMap<SocketAddr, i64>| {
            let (least, most) = (counts.values().min(), counts.values().max());
            counts.len() == count && most.zip(least).is_some_and(|(most, least)| most - least <= 1)
        };
        if is_even(&held) && is_even(&led) { Ok(()) } else { Err(format!("{held:?} {led:?}")) }
    });
}

#[test]
fn with_five_copies_any_two_nodes_may_be_lost() {
    let mut cluster = start(5);
    write(&cluster, "first");
    for round in 0..2 {
        wait_until_even(&cluster.nodes[0], 5, 5);
        let mut lost = vec![cluster.first_leader(), cluster.last_leader()];
        lost.iter().for_each(|&node| cluster.nodes[node].kill());
        let mark = format!("round-{round}");
        write(&cluster, &mark);
        check(&cluster, &mark);
        lost.drain(..).for_each(|node| cluster.nodes[node].start());
        cluster.wait_until_whole(5);
        check(&cluster, &mark);
    }
}

#[test]
fn three_copies_are_spread_over_five_nodes_and_made_good() {
    let mut cluster = start(3);
    wait_until_even(&cluster.nodes[0], 3, 5);
    write(&cluster, "first");
    check(&cluster, "first");
    // One after the other is given up, until those that are left have a copy of everything each.
    for (lost, left) in [(4, 4), (1, 3)] {
        cluster.nodes[lost].kill();
        write(&cluster, "second");
        wait_until_even(&cluster.nodes[0], 3, left);
        check(&cluster, "second");
    }
    write(&cluster, "third");
    for lost in [4, 1] {
        cluster.nodes[lost].start();
    }
    wait_until_even(&cluster.nodes[1], 3, 5);
    check(&cluster, "third");
}
