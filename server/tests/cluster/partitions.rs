//! Networks that are cut. Where the system allows no network namespaces, these tests say so and are skipped.

use crate::cluster_support::load::Load;
use crate::cluster_support::network::with_network;
use crate::faults::{ERRORS_MAX, FAILOVER_MAX};
use crate::{CLIENTS, Cluster, WRITES};

#[test]
fn a_leader_that_is_cut_off_serves_nothing_stale() {
    with_network(3, |network| {
        let cluster = Cluster::start_in(network);
        // Clients reach both sides all the time.
        let load = Load::start(31, CLIENTS, &cluster.addresses());
        for _ in 0..2 {
            load.wait_for_writes(WRITES);
            let leader = cluster.first_leader();
            let moment = load.now();
            network.isolate(leader);
            let away = load.wait_for_every_key(moment);
            eprintln!("every key could be written {} ms after the cut", away.as_millis());
            assert!(away < FAILOVER_MAX, "{away:?}");
            network.rejoin(leader);
            cluster.wait_until_whole(3);
            load.wait_for_every_key(load.now());
        }
        load.finish_and_check(&cluster.addresses());
    });
}

#[test]
fn a_minority_that_is_cut_off_is_not_missed_and_comes_back() {
    with_network(3, |network| {
        let cluster = Cluster::start_in(network);
        let load = Load::start(32, CLIENTS, &cluster.addresses());
        load.wait_for_writes(WRITES);
        let follower = cluster.last_leader();
        load.use_nodes(&cluster.others(follower));
        let before = load.errors();
        network.isolate(follower);
        load.wait_for_every_key(load.now());
        load.wait_for_writes(3 * WRITES);
        let errors = load.errors() - before;
        assert!(errors <= ERRORS_MAX, "{errors} errors reach clients");
        // It comes back without disturbing those that went on.
        network.rejoin(follower);
        cluster.wait_until_whole(3);
        load.use_nodes(&cluster.addresses());
        load.wait_for_every_key(load.now());
        load.finish_and_check(&cluster.addresses());
    });
}

#[test]
fn loss_in_one_direction_is_survived() {
    with_network(3, |network| {
        let cluster = Cluster::start_in(network);
        let load = Load::start(33, CLIENTS, &cluster.addresses());
        for is_deaf in [false, true] {
            load.wait_for_writes(WRITES);
            let leader = cluster.first_leader();
            let others: Vec<usize> = (0..3).filter(|&node| node != leader).collect();
            // A leader whom nobody hears, then one that hears nobody.
            let pairs = others.iter().map(|&other| if is_deaf { (other, leader) } else { (leader, other) });
            let pairs: Vec<(usize, usize)> = pairs.collect();
            let moment = load.now();
            pairs.iter().for_each(|&(from, to)| network.cut_one_way(from, to));
            load.wait_for_every_key(moment);
            pairs.iter().for_each(|&(from, to)| network.heal_one_way(from, to));
            cluster.wait_until_whole(3);
            load.wait_for_every_key(load.now());
        }
        load.finish_and_check(&cluster.addresses());
    });
}

#[test]
fn two_that_cannot_talk_to_each_other_are_served_by_the_third() {
    with_network(3, |network| {
        let cluster = Cluster::start_in(network);
        let load = Load::start(34, CLIENTS, &cluster.addresses());
        load.wait_for_writes(WRITES);
        let leader = cluster.first_leader();
        let other = (leader + 1) % 3;
        let third = cluster.addresses()[(leader + 2) % 3];
        network.cut_one_way(leader, other);
        network.cut_one_way(other, leader);
        // Each of the two still has a majority with the third, so no key is without a leader for long.
        load.use_nodes(&[third]);
        load.wait_for_every_key(load.now());
        load.wait_for_writes(WRITES);
        network.heal_one_way(leader, other);
        network.heal_one_way(other, leader);
        cluster.wait_until_whole(3);
        load.use_nodes(&cluster.addresses());
        load.wait_for_every_key(load.now());
        load.finish_and_check(&cluster.addresses());
    });
}
