//! A node whose journal has failed: it cannot keep anything, so it leads nothing, and nobody waits for it.

use crate::cluster_support::node::{Node, Role};
use crate::cluster_support::shards::Shards;
use crate::cluster_support::wait_for;
use crate::{Cluster, node};

/// Keys in all shards.
const KEYS: usize = 64;

/// A value's length: a few rounds of them fill what a broken node may still write.
const VALUE_BYTES: usize = 20_000;

/// What it may still write to each segment of its journal.
const LIMIT_BYTES: u64 = 256 << 10;

fn value(mark: usize, key: usize) -> Vec<u8> {
    format!("{mark}:{key}:").into_bytes().repeat(VALUE_BYTES / 8)
}

/// Writes every key through a node, each as often as it is refused; how often that was.
fn write(node: &Node, mark: usize) -> usize {
    let mut refused = 0;
    for key in 0..KEYS {
        wait_for("a write", || {
            let name = format!("key:{key}");
            let reply = node.connect().call(&[&b"SET"[..], name.as_bytes(), &value(mark, key)]);
            let text = String::from_utf8_lossy(reply.bytes().unwrap_or_default()).into_owned();
            match reply.is_error() {
                false => Ok(()),
                // Written again it is the same.
                true if text.starts_with("MISCONF") || text.starts_with("UNCERTAIN") => {
                    refused += 1;
                    Err(text)
                }
                true => panic!("{reply}"),
            }
        });
    }
    refused
}

/// Lets the node that leads the most lose its disk, and writes through another one until it leads nothing any more; both nodes,
/// and what was written last.
fn break_a_leader(cluster: &Cluster) -> (usize, usize, usize) {
    let broken = cluster.first_leader();
    let other = (broken + 1) % cluster.nodes.len();
    cluster.nodes[broken].limit_files(LIMIT_BYTES);
    let mut rounds = 0;
    wait_for("another leader of everything", || {
        rounds += 1;
        write(&cluster.nodes[other], rounds);
        let led = cluster.nodes[other].shards()?.led_slots();
        match led.get(&cluster.nodes[broken].address()) {
            None => Ok(()),
            Some(slots) => Err(format!("it leads {slots} slots")),
        }
    });
    assert!(cluster.nodes[broken].has_logged("no write is accepted until the server is started anew"));
    (broken, other, rounds)
}

fn check(node: &Node, mark: usize) {
    for key in 0..KEYS {
        let reply = node.connect().words(&format!("GET key:{key}"));
        assert!(reply.bytes() == Some(&value(mark, key)[..]), "key:{key} is not what was written last");
    }
}

#[test]
fn a_node_whose_journal_fails_hands_its_shards_over_and_comes_back() {
    let mut cluster = Cluster::start();
    write(&cluster.nodes[0], 0);
    cluster.wait_until_settled();
    let (broken, other, mut rounds) = break_a_leader(&cluster);
    // It is of use to its clients all the same, and is led by the others for good.
    rounds += 1;
    assert_eq!(write(&cluster.nodes[broken], rounds), 0, "nothing is refused any more");
    cluster.nodes.iter().for_each(|node| check(node, rounds));
    let led = wait_for("leaders", || cluster.nodes[other].shards()).led_slots();
    assert_eq!(led.get(&cluster.nodes[broken].address()), None);

    cluster.nodes[broken].kill();
    check(&cluster.nodes[other], rounds);
    cluster.nodes[broken].start();
    cluster.wait_until_settled();
    rounds += 1;
    assert_eq!(write(&cluster.nodes[broken], rounds), 0);
    // With it, two are a majority again.
    cluster.nodes[other].kill();
    check(&cluster.nodes[broken], rounds);
    cluster.nodes[other].start();
    cluster.wait_until_settled();
    check(&cluster.nodes[other], rounds);
}

#[test]
fn replicas_move_away_from_a_node_whose_journal_fails() {
    let node = |name: &str, role| node(name, role).option("replace-after", "1");
    let mut cluster = Cluster { nodes: vec![node("node 0", Role::First)] };
    cluster.nodes[0].start();
    let seed = cluster.nodes[0].address();
    for number in 1..4 {
        let mut next = node(&format!("node {number}"), Role::Joins(seed));
        next.start();
        cluster.nodes.push(next);
    }
    cluster.wait_until_whole(3);
    write(&cluster.nodes[0], 0);
    let (broken, other, rounds) = break_a_leader(&cluster);
    let address = cluster.nodes[broken].address();
    // It answers, and is linked: that it can keep nothing it has to say itself.
    wait_for("three copies elsewhere", || {
        let shards = cluster.nodes[other].shards()?.0.into_iter().filter(|shard| shard.slots > 0).collect();
        let shards = Shards(shards);
        shards.is_whole(3)?;
        match shards.0.iter().flat_map(|shard| &shard.replicas).filter(|it| it.address == address).count() {
            0 => Ok(()),
            count => Err(format!("{count} replicas are still there")),
        }
    });
    for (number, node) in cluster.nodes.iter().enumerate().filter(|&(number, _)| number != broken) {
        assert!(node.has_logged("a node's journal has failed"), "node {number}");
        check(node, rounds);
    }
    let reply = cluster.nodes[broken].connect().words("CLUSTER FAILOVER");
    assert!(reply.is_error() && reply.to_string().contains("journal has failed"), "{reply}");
    // Started anew it takes its part again.
    cluster.nodes[broken].kill();
    cluster.nodes[broken].start();
    wait_for("its part", || {
        let led = cluster.nodes[other].shards()?.led_slots();
        if led.len() == 4 { Ok(()) } else { Err(format!("{led:?}")) }
    });
    check(&cluster.nodes[broken], rounds);
}
