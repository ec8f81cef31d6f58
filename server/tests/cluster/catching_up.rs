//! A follower that lacks what its leaders have in their journals, and not in memory any more.

use crate::cluster_support::node::{Node, Role};
use crate::cluster_support::wait_for;
use crate::support::connection::Connection;
use crate::{Cluster, node};

/// Keys, of several shards, and how often each is written: more than leaders keep in memory of a shard's entries, 8 MiB.
const KEYS: usize = 5;
const TIMES: usize = 110;

/// Bytes of a value, and of one that is longer than a segment of the journal.
const VALUE_BYTES: usize = 100_000;
const LONG_VALUE_BYTES: usize = 3_000_000;

fn value(time: usize, key: usize) -> String {
    let bytes = if time == 40 && key == 1 { LONG_VALUE_BYTES } else { VALUE_BYTES };
    char::from(b'a' + (time % 26) as u8).to_string().repeat(bytes)
}

fn write(connection: &mut Connection, times: std::ops::Range<usize>) {
    for time in times {
        for key in 0..KEYS {
            let reply = connection.call(&["APPEND", &format!("log:{key}"), &time.to_string()]);
            assert!(!reply.is_error(), "{reply}");
            let reply = connection.call(&["SET", &format!("behind:{key}"), &value(time, key)]);
            assert!(reply.is_status("OK"), "{reply}");
        }
    }
}

fn fetches(node: &Node) -> u64 {
    let reply = node.connect().words("INFO raft");
    let text = String::from_utf8_lossy(reply.bytes().unwrap_or_default()).into_owned();
    let count = text.lines().find_map(|line| line.strip_prefix("raft_fetches:"));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

#[test]
fn entries_come_from_the_journals_of_leaders() {
    let mut nodes: Vec<Node> = Vec::new();
    for number in 0..3 {
        let role = nodes.first().map_or(Role::First, |first| Role::Joins(first.address()));
        let mut node = node(&format!("node {number}"), role)
            .option("segment-size", "1mb")
            .option("auto-aof-rewrite-percentage", "0");
        node.start();
        nodes.push(node);
    }
    let mut cluster = Cluster { nodes };
    cluster.wait_until_whole(3);
    cluster.nodes[2].kill();
    let mut connection = cluster.nodes[0].connect();
    // Who led with the third node gone is elected first.
    for key in 0..KEYS {
        wait_for("leaders", || match connection.words(&format!("SET behind:{key} 0")) {
            reply if reply.is_error() => Err(reply.to_string()),
            _ => Ok(()),
        });
    }
    write(&mut connection, 0..TIMES);
    cluster.nodes[2].start();
    // While it gets what it lacks more is written.
    write(&mut connection, TIMES..TIMES + 5);
    let times: String = (0..TIMES + 5).map(|time| time.to_string()).collect();
    let mut third = cluster.nodes[2].connect();
    assert!(third.words("CLIENT CONSISTENCY stale").is_status("OK"));
    for key in 0..KEYS {
        let expected = value(TIMES + 4, key);
        wait_for("the entries", || {
            let written = third.words(&format!("GET log:{key}"));
            if written.bytes() != Some(times.as_bytes()) {
                return Err(format!("the third node has {written}"));
            }
            let last = third.words(&format!("GET behind:{key}"));
            if last.bytes() == Some(expected.as_bytes()) {
                Ok(())
            } else {
                Err("not the last value".to_owned())
            }
        });
    }
    assert!(cluster.nodes[..2].iter().map(fetches).sum::<u64>() > 0, "everything was in memory");
    assert!(!cluster.nodes[2].has_logged(super::members::INSTALLED), "a snapshot came instead");
    // It has a vote's worth of it: with one of the others it is a majority.
    cluster.wait_until_whole(3);
    cluster.nodes[0].kill();
    let mut connection = cluster.nodes[1].connect();
    for key in 0..KEYS {
        wait_for("the last value", || {
            let reply = connection.words(&format!("GET log:{key}"));
            if reply.bytes() == Some(times.as_bytes()) { Ok(()) } else { Err(reply.to_string()) }
        });
    }
}
