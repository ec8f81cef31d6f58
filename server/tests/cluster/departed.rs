//! Replicas that move away: nothing of them is left behind, and they come back.

use duva_persist::names;

use crate::Cluster;
use crate::cluster_support::node::Node;
use crate::cluster_support::wait_for;
use crate::support::resp;

/// Keys in all shards.
const KEYS: usize = 500;

/// What a node logs when a replica begins with the snapshot that it left behind.
const BACK: &str = "a replica of the shard comes back";

fn write(node: &Node, mark: &str) {
    let mut bytes = Vec::new();
    for number in 0..KEYS {
        resp::encode_request(&["SET", &format!("key:{number}"), mark], &mut bytes);
    }
    let replies = node.connect().exchange(&bytes, KEYS).expect("a reply each");
    assert!(replies.iter().all(|reply| reply.is_status("OK")));
}

fn check(node: &Node, mark: &str) {
    let mut connection = node.connect();
    for number in 0..KEYS {
        let reply = connection.words(&format!("GET key:{number}"));
        assert_eq!(reply.bytes(), Some(mark.as_bytes()), "key:{number}: {reply}");
    }
}

/// Waits until every key is on three nodes, and on no more.
fn wait_until_nothing_is_left_over(cluster: &Cluster) {
    let nodes = || cluster.nodes.iter().filter(|node| node.is_started());
    wait_for("three copies of each key", || {
        let counts: Vec<i64> =
            nodes().map(|node| node.connect().words("DBSIZE").integer().expect("a number")).collect();
        let expected = i64::try_from(3 * KEYS).expect("few");
        if counts.iter().sum::<i64>() == expected { Ok(()) } else { Err(format!("{counts:?}")) }
    });
    // The commands that walk tell the same.
    for node in nodes() {
        let mut connection = node.connect();
        let count = connection.words("DBSIZE").integer().expect("a number");
        let keys = connection.words("KEYS *");
        assert_eq!(keys.items().map(<[_]>::len), usize::try_from(count).ok());
    }
}

fn restart_all(cluster: &mut Cluster) {
    let nodes = || 0..cluster.nodes.len();
    for node in nodes() {
        if cluster.nodes[node].is_started() {
            cluster.nodes[node].kill();
            cluster.nodes[node].begin();
        }
    }
    for node in cluster.nodes.iter().filter(|node| node.is_started()) {
        wait_for("an answer", || node.cluster_info("cluster_state").map(drop));
    }
    cluster.wait_until_settled();
}

/// Waits until no node has a snapshot of a shard that it has no replica of.
fn wait_until_no_file_is_left_over(cluster: &Cluster) {
    for node in cluster.nodes.iter().filter(|node| node.is_started()) {
        wait_for("no snapshot of shards that have left", || {
            let reply = node.connect().words("INFO raft");
            let text = String::from_utf8_lossy(reply.bytes().unwrap_or_default()).into_owned();
            let files = std::fs::read_dir(node.data().join("appendonlydir")).expect("ours");
            let names = files.map(|file| file.expect("ours").file_name().to_string_lossy().into_owned());
            let left = names.filter(|name| {
                let shard = names::parse_snapshot(name).map(|(shard, _)| shard);
                shard.is_some_and(|shard| !text.contains(&format!("shard{shard}:role=")))
            });
            let left: Vec<String> = left.collect();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
    }
}

/// A cluster of four nodes, with replicas on the fourth that were on the others, which have snapshots.
fn start_and_move() -> Cluster {
    let mut cluster = Cluster::start();
    write(&cluster.nodes[0], "first");
    // So that some of it is in snapshots, and some in the journal.
    cluster.nodes.iter().for_each(Node::rewrite);
    write(&cluster.nodes[1], "second");
    let mut fourth = cluster.next_node();
    fourth.start();
    cluster.nodes.push(fourth);
    wait_for("replicas on the fourth node", || match cluster.nodes[3].connect().words("DBSIZE").integer() {
        Some(0) | None => Err("it has no key".to_owned()),
        Some(_) => Ok(()),
    });
    cluster.wait_until_settled();
    wait_until_nothing_is_left_over(&cluster);
    cluster.nodes.iter().for_each(|node| check(node, "second"));
    cluster
}

/// The fourth node goes for good: the shards come back to where they were.
fn lose_the_fourth(cluster: &mut Cluster) {
    let reply = cluster.nodes[3].connect().words("CLUSTER MYID");
    let id = String::from_utf8_lossy(reply.bytes().expect("an id")).into_owned();
    cluster.nodes[3].kill();
    wait_for("the others to forget it", || {
        let reply = cluster.nodes[0].connect().call(&["CLUSTER", "FORGET", &id]);
        // Not before they see that it is down; and what is asked of a leader that is gone is asked again.
        match cluster.nodes[0].cluster_info("cluster_known_nodes")?.as_str() {
            "3" => Ok(()),
            count => Err(format!("{count} nodes are known, {reply}")),
        }
    });
    cluster.wait_until_settled();
    wait_until_nothing_is_left_over(cluster);
}

#[test]
fn replicas_that_come_back_soon_begin_with_their_snapshots() {
    let mut cluster = start_and_move();
    lose_the_fourth(&mut cluster);
    assert!(cluster.nodes.iter().any(|node| node.has_logged(BACK)), "none began with its snapshot");
    cluster.nodes[..3].iter().for_each(|node| check(node, "second"));
}

#[test]
fn replicas_that_move_leave_nothing_behind_and_come_back_with_all_of_it() {
    let mut cluster = start_and_move();

    // No start brings anything back, before and after the journals have been trimmed.
    restart_all(&mut cluster);
    wait_until_nothing_is_left_over(&cluster);
    for mark in ["third", "fourth"] {
        write(&cluster.nodes[2], mark);
        cluster.nodes.iter().for_each(Node::rewrite);
        // Killed while files go, and then again when all that is to go has gone.
        restart_all(&mut cluster);
        cluster.nodes.iter().for_each(Node::rewrite);
        wait_until_no_file_is_left_over(&cluster);
        restart_all(&mut cluster);
        wait_until_no_file_is_left_over(&cluster);
        wait_until_nothing_is_left_over(&cluster);
        cluster.nodes.iter().for_each(|node| check(node, mark));
    }

    lose_the_fourth(&mut cluster);
    write(&cluster.nodes[0], "last");
    // Each of them has everything: any two are a majority.
    for node in 0..3 {
        cluster.nodes[node].kill();
        check(&cluster.nodes[(node + 1) % 3], "last");
        cluster.nodes[node].start();
        cluster.wait_until_settled();
    }
    restart_all(&mut cluster);
    cluster.nodes[..3].iter().for_each(|node| check(node, "last"));
    wait_until_nothing_is_left_over(&cluster);
    wait_until_no_file_is_left_over(&cluster);
}
