//! What a node of a cluster keeps in memory when it starts: what its journal says to be committed is applied at once, and only
//! little is not.

mod cluster_support;
#[path = "../../tools/src/linearizability.rs"]
#[allow(dead_code, unreachable_pub, reason = "a module of test programs, of which this one needs nothing")]
mod linearizability;
mod support;

use std::collections::BTreeMap;
use std::fs;

use cluster_support::{
    node::{Node, Role},
    wait_for,
};

/// Shards of each cluster.
const SHARDS: usize = 16;

/// Bytes of a core's entries after which its journal says again what is committed.
const BYTES_BETWEEN: u64 = SHARDS as u64 * (4 << 10);

/// Bytes of a value.
const VALUE_BYTES: usize = 1000;

fn node(name: &str, role: Role) -> Node {
    let shards = SHARDS.to_string();
    Node::new(name, role).option("cores", "1").option("shards", &shards).option("segment-size", "1048576")
}

/// Writes keys of these numbers.
fn fill(node: &Node, numbers: std::ops::Range<usize>) {
    for number in numbers {
        write(node, &format!("key:{number}"), &value(number));
    }
}

/// Writes a key, again until it is known to be written: a leader may be gone.
fn write(node: &Node, key: &str, value: &str) {
    wait_for("a write", || {
        let reply = node.connect().call(&["SET", key, value]);
        if reply.is_status("OK") { Ok(()) } else { Err(reply.to_string()) }
    });
}

fn value(number: usize) -> String {
    let mut value = format!("value {number} ");
    value.extend(std::iter::repeat_n('x', VALUE_BYTES - value.len()));
    value
}

/// Asserts that all keys up to a number are there.
fn expect_keys(node: &Node, count: usize) {
    let mut connection = node.connect();
    for number in 0..count {
        let reply = connection.call(&["GET", &format!("key:{number}")]);
        assert_eq!(reply.bytes(), Some(value(number).as_bytes()), "key {number}: {reply}");
    }
}

/// What the last start says of what it found: entries applied, entries kept, and the bytes of those.
fn found(node: &Node) -> (u64, u64, u64) {
    let path = node.data().parent().expect("it lies in the node's directory").join("log");
    let log = fs::read_to_string(path).expect("it was written to");
    let line = log.lines().rev().find(|line| line.contains("applied what is known to be committed"));
    let line = line.unwrap_or_else(|| panic!("nothing was found by the last start: {log}"));
    let field = |name: &str| {
        let value = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {line}"))
    };
    (field("applied"), field("kept"), field("kept_bytes"))
}

/// Waits until each shard has `copies` voters that all have the same log and have applied it.
fn wait_until_settled(nodes: &[Node], copies: usize) {
    wait_for("settled shards", || {
        let mut logs: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
        for node in nodes.iter().filter(|node| node.is_started()) {
            let reply = node.connect().words("INFO raft");
            let text = String::from_utf8_lossy(reply.bytes().unwrap_or_default()).into_owned();
            for line in text.lines() {
                let Some((shard, fields)) = line.strip_prefix("shard").and_then(|line| line.split_once(':'))
                else {
                    continue;
                };
                let fields: BTreeMap<_, _> =
                    fields.split(',').filter_map(|field| field.split_once('=')).collect();
                if fields.get("state") == Some(&"voter") {
                    let place = (fields["last"].to_owned(), fields["applied"].to_owned());
                    logs.entry(shard.to_owned()).or_default().push(place);
                }
            }
        }
        let is_settled = |logs: &Vec<(String, String)>| {
            logs.len() == copies && logs.iter().all(|(last, applied)| last == applied && *last == logs[0].0)
        };
        let unsettled = logs.iter().find(|(_, logs)| !is_settled(logs));
        match unsettled {
            None if logs.len() == SHARDS => Ok(()),
            _ => Err(format!("{} shards, {unsettled:?}", logs.len())),
        }
    });
}

#[test]
fn little_is_kept_whatever_the_number_of_starts() {
    let mut only = node("the node", Role::First);
    only.start();
    fill(&only, 0..3000);
    only.kill();
    only.start();
    let (applied, _, kept_bytes) = found(&only);
    assert!(applied > 2500, "{applied} entries were applied");
    assert!(kept_bytes < 2 * BYTES_BETWEEN, "{kept_bytes} bytes were kept");
    expect_keys(&only, 3000);
    // What is written between starts is less than what the journal would say something after.
    let mut count = 3000;
    for _ in 0..6 {
        fill(&only, count..count + 60);
        count += 60;
        only.kill();
        only.start();
        let (_, kept, kept_bytes) = found(&only);
        assert!(kept_bytes < 2 * BYTES_BETWEEN, "{kept} entries, {kept_bytes} bytes were kept");
    }
    expect_keys(&only, count);
    only.stop();
}

#[test]
fn what_was_applied_at_the_start_serves_a_cluster() {
    let mut nodes = vec![node("node 0", Role::First)];
    nodes[0].start();
    for number in 1..3 {
        let mut next = node(&format!("node {number}"), Role::Joins(nodes[0].address()));
        next.start();
        nodes.push(next);
    }
    wait_until_settled(&nodes, 3);
    fill(&nodes[0], 0..1500);
    wait_until_settled(&nodes, 3);
    // One is away and lacks what the others do not have in memory any more when they start.
    nodes[2].kill();
    fill(&nodes[1], 1500..3000);
    nodes[0].kill();
    nodes[1].kill();
    for node in &mut nodes {
        node.begin();
    }
    for node in &nodes {
        wait_for("an answer", || node.shards().map(|_| ()));
    }
    wait_until_settled(&nodes, 3);
    for node in &nodes[..2] {
        let (applied, kept, kept_bytes) = found(node);
        assert!(applied > 2000, "{applied} entries were applied");
        // Followers learn of what is committed a little later.
        assert!(kept_bytes < 3 * BYTES_BETWEEN, "{kept} entries, {kept_bytes} bytes were kept");
    }
    for node in &nodes {
        expect_keys(node, 3000);
    }
    // Each alone has all of it.
    for number in 0..3 {
        nodes[number].kill();
        write(&nodes[(number + 1) % 3], "after", "a failure");
        nodes[number].start();
        wait_until_settled(&nodes, 3);
    }
    expect_keys(&nodes[0], 3000);
}
