//! Nodes that give away what they lead because somebody wants that, under load.
//!
//! Clients never talk to the node that stops, and must not notice that it does: every request is answered, without an error.

use crate::cluster_support::load::Load;
use crate::cluster_support::node::{Node, Role};
use crate::cluster_support::wait_for;
use crate::{CLIENTS, Cluster, WRITES, linearizability};

/// So long that nobody takes over what was not handed over while a test looks.
const ELECTION_TIMEOUT_MS: &str = "500";

/// All slots.
const SLOTS: i64 = 16_384;

fn start() -> Cluster {
    start_with(ELECTION_TIMEOUT_MS)
}

fn start_with(election_timeout_ms: &str) -> Cluster {
    let node = |name: String, role| crate::node(&name, role).option("election-timeout", election_timeout_ms);
    let mut first = node("node 0".to_owned(), Role::First);
    first.start();
    let seed = first.address();
    let mut cluster = Cluster { nodes: vec![first] };
    for number in 1..3 {
        let mut other = node(format!("node {number}"), Role::Joins(seed));
        other.start();
        cluster.nodes.push(other);
    }
    cluster.wait_until_whole(3);
    cluster
}

/// A number that INFO says.
fn info(node: &Node, section: &str, field: &str) -> u64 {
    let reply = node.connect().words(&format!("INFO {section}"));
    let text = String::from_utf8_lossy(reply.bytes().expect("a text")).into_owned();
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("no {field} in {text}"))
}

/// How many elections a node won, and how many it held because a leader handed over to it.
fn elections(node: &Node) -> (u64, u64) {
    (info(node, "raft", "raft_elections_won"), info(node, "raft", "raft_taken_over"))
}

/// Waits until leaders are spread as they should be: a node that came back takes part again.
fn wait_until_spread(cluster: &Cluster) {
    for node in &cluster.nodes {
        wait_for("leaders to be spread", || {
            let led = node.shards()?.led_slots();
            let is_spread = led.len() == 3 && led.values().all(|slots| (5 * 1024..=6 * 1024).contains(slots));
            if is_spread { Ok(()) } else { Err(format!("{led:?}")) }
        });
    }
}

/// Waits until a node leads so many slots, as itself says.
fn wait_until_leads(node: &Node, slots: i64) {
    wait_for("another leader of everything", || {
        let led = node.shards()?.led_slots();
        if led.get(&node.address()) == Some(&slots) { Ok(()) } else { Err(format!("{led:?}")) }
    });
}

/// Waits until nobody but the one who asks is connected to a node.
fn wait_until_alone(node: &Node) {
    wait_for("clients to go elsewhere", || match info(node, "clients", "connected_clients") {
        1 => Ok(()),
        count => Err(format!("{count} clients are connected")),
    });
}

/// Ends the load: everything was answered, and by one register a key.
fn finish(load: Load, cluster: &Cluster) {
    assert_eq!(load.errors(), 0, "errors reach clients");
    let history = load.finish(&cluster.addresses());
    let unanswered = history.iter().filter(|operation| operation.returned.is_none()).count();
    assert_eq!(unanswered, 0, "requests of {} got no answer", history.len());
    if let Err(violation) = linearizability::check(&history) {
        panic!("{violation}");
    }
}

#[test]
fn a_node_that_stops_hands_over_what_it_leads() {
    let mut cluster = start();
    let load = Load::start(61, CLIENTS, &cluster.addresses());
    for round in 0..4 {
        wait_until_spread(&cluster);
        let leader = if round == 0 { cluster.first_leader() } else { round - 1 };
        load.use_nodes(&cluster.others(leader));
        wait_until_alone(&cluster.nodes[leader]);
        load.wait_for_writes(WRITES);
        let others: Vec<usize> = (0..3).filter(|&node| node != leader).collect();
        let before: Vec<(u64, u64)> = others.iter().map(|&node| elections(&cluster.nodes[node])).collect();
        let moment = load.now();
        cluster.nodes[leader].stop();
        let away = load.wait_for_every_key(moment);
        eprintln!("every key could be written {} ms after the signal", away.as_millis());
        assert!(!cluster.nodes[leader].has_logged("not everything was handed over"));
        let mut taken_over = 0;
        for (&node, before) in others.iter().zip(before) {
            let (won, taken) = elections(&cluster.nodes[node]);
            assert!(won - before.0 <= taken - before.1, "an election timed out: {won} {taken} {before:?}");
            taken_over += won - before.0;
        }
        assert!(taken_over >= 5, "{taken_over} shards were handed over");
        assert_eq!(load.errors(), 0, "errors reach clients");
        cluster.nodes[leader].start();
        cluster.wait_until_whole(3);
    }
    finish(load, &cluster);
}

#[test]
fn shutdown_hands_over_and_ends_its_connection_with_the_server() {
    let mut cluster = start();
    wait_until_spread(&cluster);
    let before = [0, 1].map(|node| elections(&cluster.nodes[node]));
    let reply = cluster.nodes[2].connect().try_call(&["SHUTDOWN"]);
    assert!(reply.is_err(), "{reply:?}");
    cluster.nodes[2].wait_for_end();
    for (node, before) in before.into_iter().enumerate() {
        let (won, taken) = elections(&cluster.nodes[node]);
        assert!(won > before.0 && won - before.0 <= taken - before.1, "{won} {taken} {before:?}");
    }
}

#[test]
fn a_second_signal_ends_a_hand_over_that_comes_to_nothing() {
    // Four times that is what the first signal alone would take.
    let mut cluster = start_with("1500");
    let leader = cluster.first_leader();
    let others: Vec<usize> = (0..3).filter(|&node| node != leader).collect();
    others.iter().for_each(|&node| cluster.nodes[node].pause());
    cluster.nodes[leader].terminate();
    cluster.nodes[leader].wait_until_logged("handing over what this node leads", 0);
    cluster.nodes[leader].terminate();
    cluster.nodes[leader].wait_for_end();
    assert!(
        !cluster.nodes[leader].has_logged("not everything was handed over in time"),
        "it waited all the same"
    );
    others.iter().for_each(|&node| cluster.nodes[node].resume());
    cluster.nodes[leader].start();
    cluster.wait_until_whole(3);
}

#[test]
fn all_nodes_stop_at_once() {
    let mut cluster = start();
    for node in &cluster.nodes {
        node.terminate();
    }
    cluster.nodes.iter_mut().for_each(Node::wait_for_end);
    cluster.nodes.iter_mut().for_each(Node::begin);
    for node in &cluster.nodes {
        wait_for("an answer", || node.cluster_info("cluster_state").map(drop));
    }
    cluster.wait_until_whole(3);
}

#[test]
fn a_node_is_made_to_lead_and_goes_on() {
    let mut cluster = start();
    wait_until_spread(&cluster);
    let load = Load::start(62, CLIENTS, &cluster.addresses());
    for target in [2, 0] {
        load.wait_for_writes(WRITES);
        let mut connection = cluster.nodes[target].connect();
        for wrong in ["CLUSTER FAILOVER NOW", "CLUSTER FAILOVER FORCE FORCE", "CLUSTER FAILOVER TAKEOVER"] {
            let reply = connection.words(wrong);
            assert!(reply.is_error(), "{reply}");
        }
        let reply = connection.words("CLUSTER FAILOVER");
        assert!(reply.is_status("OK"), "{reply}");
        wait_until_leads(&cluster.nodes[target], SLOTS);
        // The balance has had its say more than once when so much was written.
        let epoch = cluster.nodes[target].cluster_info("cluster_current_epoch");
        load.wait_for_writes(5 * WRITES);
        wait_until_leads(&cluster.nodes[target], SLOTS);
        assert_eq!(cluster.nodes[target].cluster_info("cluster_current_epoch"), epoch);
    }
    // A node that has everything handed to it hands all of it over in turn.
    load.use_nodes(&cluster.others(0));
    wait_until_alone(&cluster.nodes[0]);
    cluster.nodes[0].stop();
    load.wait_for_every_key(load.now());
    cluster.nodes[0].start();
    cluster.wait_until_whole(3);
    finish(load, &cluster);
}

#[test]
fn a_node_is_forced_to_lead_when_the_leader_is_lost() {
    let mut cluster = Cluster::start();
    assert!(cluster.nodes[2].connect().words("CLUSTER FAILOVER").is_status("OK"));
    wait_until_leads(&cluster.nodes[2], SLOTS);
    let load = Load::start(63, CLIENTS, &cluster.others(2));
    load.wait_for_writes(WRITES);
    cluster.nodes[2].kill();
    let mut connection = cluster.nodes[1].connect();
    let reply = connection.words("CLUSTER FAILOVER FORCE");
    assert!(reply.is_status("OK"), "{reply}");
    wait_until_leads(&cluster.nodes[1], SLOTS);
    load.wait_for_every_key(load.now());
    cluster.nodes[2].start();
    cluster.wait_until_whole(3);
    wait_until_leads(&cluster.nodes[1], SLOTS);
    load.finish_and_check(&cluster.addresses());
}
