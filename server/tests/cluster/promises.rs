//! What clients are promised whichever node they ask: order, time, and commands for the whole keyspace.

use std::thread;

use crate::Cluster;
use crate::cluster_support::node::Node;
use crate::cluster_support::wait_for;
use crate::support::resp;

/// Keys in all shards.
const KEYS: usize = 64;

/// Requests for a key in one pipeline.
const TIMES: i64 = 20;

#[test]
fn a_pipeline_sees_its_own_writes_and_none_of_its_later_ones() {
    let cluster = Cluster::start();
    let count = |node: &Node, name: &str| {
        let mut bytes = Vec::new();
        for _ in 0..TIMES {
            for key in 0..KEYS {
                let key = format!("{name}:{key}");
                resp::encode_request(&["INCR", &key], &mut bytes);
                resp::encode_request(&["GET", &key], &mut bytes);
            }
        }
        let replies = usize::try_from(TIMES).expect("few") * KEYS * 2;
        node.connect().exchange(&bytes, replies).expect("a reply each")
    };
    thread::scope(|scope| {
        for (number, node) in cluster.nodes.iter().enumerate() {
            scope.spawn(move || {
                let replies = count(node, &format!("own{number}"));
                for (place, pair) in replies.chunks(2).enumerate() {
                    let expected = i64::try_from(place / KEYS).expect("few") + 1;
                    assert_eq!(pair[0].integer(), Some(expected), "{}", pair[0]);
                    let seen = pair[1].bytes();
                    assert_eq!(seen, Some(expected.to_string().as_bytes()), "{}", pair[1]);
                }
            });
        }
    });
    // All nodes at once, for the same keys: each sees its own counts rise.
    thread::scope(|scope| {
        for node in &cluster.nodes {
            scope.spawn(move || {
                let replies = count(node, "shared");
                for key in 0..KEYS {
                    let counts: Vec<i64> = replies
                        .chunks(2)
                        .skip(key)
                        .step_by(KEYS)
                        .filter_map(|pair| pair[0].integer())
                        .collect();
                    assert_eq!(counts.len(), usize::try_from(TIMES).expect("few"));
                    assert!(counts.is_sorted_by(|one, next| one < next), "{counts:?}");
                }
            });
        }
    });
    let mut connection = cluster.nodes[0].connect();
    for key in 0..KEYS {
        let reply = connection.words(&format!("GET shared:{key}"));
        assert_eq!(reply.bytes(), Some((3 * TIMES).to_string().as_bytes()), "{reply}");
    }
}

#[test]
fn what_has_expired_stays_so_whoever_leads() {
    let mut cluster = Cluster::start();
    let mut connection = cluster.nodes[0].connect();
    for key in 0..KEYS {
        // They expire one after the other, before and after the leader is killed.
        let reply = connection.words(&format!("SET short:{key} 1 PX {}", 200 + 20 * key));
        assert!(reply.is_status("OK"), "{reply}");
    }
    let leader = cluster.first_leader();
    let mut is_gone = [false; KEYS];
    let mut is_killed = false;
    wait_for("all keys to expire", || {
        for node in cluster.nodes.iter().filter(|node| node.is_started()) {
            let mut connection = node.connect();
            for (key, is_gone) in is_gone.iter_mut().enumerate() {
                let reply = connection.words(&format!("GET short:{key}"));
                if reply.is_error() {
                    continue;
                }
                let is_missing = reply.bytes().is_none();
                assert!(is_missing || !*is_gone, "short:{key} came back");
                *is_gone = is_missing;
            }
        }
        let gone = is_gone.iter().filter(|&&gone| gone).count();
        if gone > 0 && !is_killed {
            is_killed = true;
            cluster.nodes[leader].kill();
        }
        if gone == KEYS { Ok(()) } else { Err(format!("{gone} are gone")) }
    });
    cluster.nodes[leader].start();
    cluster.wait_until_whole(3);
    let mut connection = cluster.nodes[leader].connect();
    for key in 0..KEYS {
        let reply = connection.words(&format!("GET short:{key}"));
        assert!(reply.bytes().is_none() && !reply.is_error(), "{reply}");
    }
}

#[test]
fn everything_is_flushed_everywhere() {
    let mut cluster = Cluster::start();
    let fill = |node: &Node| {
        let mut connection = node.connect();
        for key in 0..KEYS {
            assert!(connection.words(&format!("SET flushed:{key} 1")).is_status("OK"));
        }
    };
    for flusher in 0..3 {
        fill(&cluster.nodes[0]);
        let reply = cluster.nodes[flusher].connect().words("FLUSHALL");
        assert!(reply.is_status("OK"), "{reply}");
        for node in &cluster.nodes {
            let mut connection = node.connect();
            for key in 0..KEYS {
                let reply = connection.words(&format!("GET flushed:{key}"));
                assert!(reply.bytes().is_none() && !reply.is_error(), "{reply}");
            }
        }
    }
    // What came after it is kept.
    fill(&cluster.nodes[1]);
    cluster.nodes.iter_mut().for_each(Node::kill);
    cluster.nodes.iter_mut().for_each(Node::begin);
    for node in &cluster.nodes {
        wait_for("an answer", || node.cluster_info("cluster_state").map(drop));
    }
    cluster.wait_until_whole(3);
    for node in &cluster.nodes {
        let mut connection = node.connect();
        for key in 0..KEYS {
            let reply = connection.words(&format!("GET flushed:{key}"));
            assert_eq!(reply.bytes(), Some(&b"1"[..]), "{reply}");
        }
    }
}
