//! Nodes that are killed, stopped and started again under load.

use std::time::Duration;

use crate::cluster_support::load::Load;
use crate::cluster_support::node::Node;
use crate::{CLIENTS, Cluster, WRITES};

/// How long writes may be away when a leader is lost: an election takes a third of a second, answers of a leader that hangs are
/// waited for half a second more, and tests run beside others. It is less than what a request waits for before it is given up.
pub(crate) const FAILOVER_MAX: Duration = Duration::from_secs(4);

/// Errors that clients may see when one node is lost: those of the requests that it had, one a client, or two if not all of its
/// shards have another leader at once.
pub(crate) const ERRORS_MAX: u64 = 2 * CLIENTS as u64;

#[test]
fn the_leader_of_most_shards_is_killed_under_load() {
    let mut cluster = Cluster::start();
    let load = Load::start(21, CLIENTS, &cluster.addresses());
    for _ in 0..3 {
        load.wait_for_writes(WRITES);
        let leader = cluster.first_leader();
        load.use_nodes(&cluster.addresses());
        let moment = load.now();
        cluster.nodes[leader].kill();
        load.use_nodes(&cluster.others(leader));
        let away = load.wait_for_every_key(moment);
        eprintln!("every key could be written {} ms after the kill", away.as_millis());
        assert!(away < FAILOVER_MAX, "{away:?}");
        cluster.nodes[leader].start();
        cluster.wait_until_whole(3);
    }
    load.use_nodes(&cluster.addresses());
    load.wait_for_every_key(load.now());
    load.finish_and_check(&cluster.addresses());
}

#[test]
fn a_leader_that_is_stopped_and_goes_on_serves_nothing_stale() {
    let cluster = Cluster::start();
    // Clients stay with all nodes: those of the stopped one wait, then see what it does when it wakes up.
    let load = Load::start(22, CLIENTS, &cluster.addresses());
    for _ in 0..2 {
        load.wait_for_writes(WRITES);
        let leader = cluster.first_leader();
        let moment = load.now();
        cluster.nodes[leader].pause();
        let away = load.wait_for_every_key(moment);
        eprintln!("every key could be written {} ms after the stop", away.as_millis());
        assert!(away < FAILOVER_MAX, "{away:?}");
        cluster.nodes[leader].resume();
        load.wait_for_every_key(load.now());
        cluster.wait_until_whole(3);
    }
    load.finish_and_check(&cluster.addresses());
}

#[test]
fn a_stopped_follower_is_not_missed() {
    let cluster = Cluster::start();
    let load = Load::start(23, CLIENTS, &cluster.addresses());
    load.wait_for_writes(WRITES);
    let follower = cluster.last_leader();
    load.use_nodes(&cluster.others(follower));
    let before = load.errors();
    cluster.nodes[follower].pause();
    // What it led itself has another leader from here on.
    load.wait_for_every_key(load.now());
    load.wait_for_writes(3 * WRITES);
    let errors = load.errors() - before;
    assert!(errors <= ERRORS_MAX, "{errors} errors reach clients");
    cluster.nodes[follower].resume();
    cluster.wait_until_whole(3);
    load.use_nodes(&cluster.addresses());
    load.wait_for_every_key(load.now());
    load.finish_and_check(&cluster.addresses());
}

#[test]
fn all_are_killed_and_started_again() {
    let mut cluster = Cluster::start();
    let load = Load::start(24, CLIENTS, &cluster.addresses());
    for round in 0..3 {
        load.wait_for_writes(WRITES);
        cluster.nodes.iter_mut().for_each(Node::kill);
        // The one that made the cluster is not needed for it to come back.
        cluster.nodes.rotate_left(round);
        cluster.nodes.iter_mut().for_each(Node::begin);
        load.wait_for_every_key(load.now());
        cluster.wait_until_whole(3);
    }
    load.finish_and_check(&cluster.addresses());
}

#[test]
fn two_of_three_make_progress_and_one_does_not() {
    let mut cluster = Cluster::start();
    let load = Load::start(25, CLIENTS, &cluster.addresses());
    load.wait_for_writes(WRITES);
    cluster.nodes[0].kill();
    load.use_nodes(&cluster.others(0));
    load.wait_for_every_key(load.now());
    cluster.nodes[1].kill();
    let last = cluster.nodes[2].address();
    load.use_nodes(&[last]);
    // A write that finds no majority is refused or uncertain, and never acknowledged.
    let mut connection = cluster.nodes[2].connect();
    let reply = connection.words("SET alone 1");
    let text = String::from_utf8_lossy(reply.bytes().unwrap_or_default()).into_owned();
    assert!(text.starts_with("CLUSTERDOWN") || text.starts_with("UNCERTAIN"), "{reply}");
    // Nor is a read answered by one that cannot know whether others go on.
    let reply = cluster.nodes[2].connect().words("GET alone");
    assert!(reply.is_error(), "{reply}");
    cluster.nodes[1].begin();
    load.wait_for_every_key(load.now());
    cluster.nodes[0].begin();
    cluster.wait_until_whole(3);
    load.finish_and_check(&cluster.addresses());
}

#[test]
fn nodes_are_restarted_one_after_the_other() {
    let mut cluster = Cluster::start();
    let load = Load::start(26, CLIENTS, &cluster.addresses());
    for number in 0..3 {
        load.wait_for_writes(WRITES);
        load.use_nodes(&cluster.others(number));
        cluster.nodes[number].stop();
        load.wait_for_every_key(load.now());
        cluster.nodes[number].start();
        cluster.wait_until_whole(3);
    }
    load.use_nodes(&cluster.addresses());
    load.wait_for_every_key(load.now());
    load.finish_and_check(&cluster.addresses());
}
