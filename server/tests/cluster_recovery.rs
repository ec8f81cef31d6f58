//! A majority that is lost for good: a surviving node becomes the only one of a new cluster, by `--force-new-cluster`.

mod cluster_support;
#[path = "../../tools/src/linearizability.rs"]
#[allow(dead_code, unreachable_pub, reason = "a module of test programs, of which this one needs nothing")]
mod linearizability;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cluster_support::{
    node::{Node, Role},
    wait_for,
};
use duva_server::cluster::file::ClusterFile;
use support::connection::Connection;

/// Shards of each cluster.
const SHARDS: u64 = 16;

/// Hash slots of a shard.
const SHARD_SLOTS: i64 = 16_384 / SHARDS as i64;

/// Keys that are written before the majority is lost.
const KEYS: usize = 400;

/// The option, and with the word that gives shards up.
const FORCE: &str = "--force-new-cluster";
const FORCE_AND_DISCARD: &str = "--force-new-cluster=discard-missing";

fn node(name: &str, role: Role) -> Node {
    Node::new(name, role).option("cores", "2").option("shards", &SHARDS.to_string())
}

/// A cluster of so many nodes.
fn start(count: usize) -> Vec<Node> {
    let mut nodes = vec![node("node 0", Role::First)];
    nodes[0].start();
    for number in 1..count {
        let mut next = node(&format!("node {number}"), Role::Joins(nodes[0].address()));
        next.start();
        nodes.push(next);
    }
    nodes
}

/// The fields of every shard's replica that a node tells of.
fn replicas(node: &Node) -> Vec<(String, BTreeMap<String, String>)> {
    let reply = node.connect().words("INFO raft");
    let text = String::from_utf8_lossy(reply.bytes().expect("a text")).into_owned();
    let replica = |line: &str| {
        let (shard, fields) = line.strip_prefix("shard")?.split_once(':')?;
        let fields = fields.split(',').filter_map(|field| field.split_once('='));
        Some((shard.to_owned(), fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()))
    };
    text.lines().filter_map(replica).collect()
}

/// Waits until each shard has `copies` voters that all have the same log and have applied it.
fn wait_until_settled(nodes: &[Node], copies: usize) {
    wait_for("settled shards", || {
        let mut logs: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for node in nodes.iter().filter(|node| node.is_started()) {
            for (shard, fields) in replicas(node) {
                if fields["state"] == "voter" && fields["replicas"] == copies.to_string() {
                    let log = format!("last {} applied {}", fields["last"], fields["applied"]);
                    logs.entry(shard).or_default().push(log);
                }
            }
        }
        let is_settled = |logs: &Vec<String>| {
            let last = logs[0].split(' ').nth(1).expect("it says the last");
            logs.len() == copies && logs.iter().all(|log| *log == format!("last {last} applied {last}"))
        };
        let unsettled = logs.iter().find(|(_, logs)| !is_settled(logs));
        match unsettled {
            None if logs.len() as u64 == SHARDS => Ok(()),
            _ => Err(format!("{} shards, {unsettled:?}", logs.len())),
        }
    });
}

fn key(number: usize) -> String {
    format!("key:{number}")
}

fn value(number: usize) -> String {
    format!("value {number}").repeat(1 + number % 50)
}

/// Writes all keys, each tenth with a deadline that is far away, and sends some requests of ONCE.
fn fill(node: &Node) {
    let mut connection = node.connect();
    for number in 0..KEYS {
        let (key, value) = (key(number), value(number));
        let reply = match number % 10 {
            0 => connection.call(&["SET", &key, &value, "EX", "3600"]),
            _ => connection.call(&["SET", &key, &value]),
        };
        assert!(reply.is_status("OK"), "{reply}");
    }
    once(&mut connection, "a first time");
}

/// Sends requests of ONCE, which take effect the first time alone.
fn once(connection: &mut Connection, when: &str) {
    for number in 0..32 {
        let (request, counter) = (number.to_string(), format!("counter:{number}"));
        let reply = connection.call(&["ONCE", "client", &request, "INCR", &counter]);
        assert_eq!(reply.integer(), Some(1), "{when}: {reply}");
    }
}

/// Asserts that a key is there, with its deadline if it was given one.
fn expect_key(connection: &mut Connection, number: usize) {
    let (key, value) = (key(number), value(number));
    let reply = connection.call(&["GET", &key]);
    assert_eq!(reply.bytes(), Some(value.as_bytes()), "{key}: {reply}");
    let seconds = connection.call(&["TTL", &key]).integer().expect("a number");
    let is_expected = if number.is_multiple_of(10) { (1..=3600).contains(&seconds) } else { seconds == -1 };
    assert!(is_expected, "{key}: {seconds}");
}

/// Asserts that a node serves all that was written.
fn expect_all(node: &Node, when: &str) {
    let mut connection = node.connect();
    (0..KEYS).for_each(|number| expect_key(&mut connection, number));
    once(&mut connection, when);
    for number in 0..32 {
        assert_eq!(
            connection.call(&["INCRBY", &format!("counter:{number}"), "0"]).integer(),
            Some(1),
            "{when}"
        );
    }
}

/// Makes a folder what another one is.
fn copy_folder(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).expect("the folder is ours");
    }
    fs::create_dir(to).expect("the folder is ours");
    for file in fs::read_dir(from).expect("it is there") {
        let path = file.expect("a file").path();
        fs::copy(&path, to.join(path.file_name().expect("it has a name"))).expect("the files are ours");
    }
}

fn wait_until_served(node: &Node) {
    wait_for("a leader of every shard", || node.shards()?.is_whole(1));
}

#[test]
fn a_survivor_goes_on_alone_and_others_join() {
    let mut nodes = start(3);
    wait_until_settled(&nodes, 3);
    fill(&nodes[0]);
    wait_until_settled(&nodes, 3);
    nodes.iter_mut().for_each(Node::kill);
    let (mut survivor, mut lost) = (nodes.pop().expect("three nodes"), nodes);

    let before = survivor.data().with_file_name("before");
    copy_folder(&survivor.data().join("appendonlydir"), &before);
    // It is no place to join from.
    survivor.add_argument(FORCE);
    let (status, log) = survivor.run_to_its_end();
    assert_eq!(status.code(), Some(2), "{log}");
    assert!(log.contains("force-new-cluster (by flag) makes this node a cluster of its own"), "{log}");
    survivor.turn(Role::First);
    // Whenever it is killed, the option finishes what it has begun.
    survivor.begin();
    wait_for("the first of its words", || {
        match survivor.has_logged("becomes the only one of a new cluster") {
            true => Ok(()),
            false => Err("not yet".to_owned()),
        }
    });
    survivor.kill();
    survivor.start();
    wait_until_served(&survivor);
    assert!(
        survivor.has_logged("shard 15: what this node's replica has is kept: up to entry "),
        "{}",
        survivor.log()
    );
    expect_all(&survivor, "alone");
    survivor.kill();
    // Once it is done the option does nothing, and nothing is missing without it.
    survivor.start();
    assert!(survivor.has_logged("force-new-cluster has nothing to do"), "{}", survivor.log());
    wait_until_served(&survivor);
    expect_all(&survivor, "with the option once more");
    survivor.stop();
    survivor.remove_argument(FORCE);
    survivor.start();
    wait_until_served(&survivor);
    expect_all(&survivor, "without the option");
    assert_eq!(survivor.cluster_info("cluster_known_nodes").as_deref(), Ok("1"));

    // A crash before the last step, when the journal is written and the file still has its flag, is gone on from.
    survivor.kill();
    let file = survivor.data().join("appendonlydir/cluster");
    let mut cluster = ClusterFile::decode(&fs::read(&file).expect("it is there")).expect("it is whole");
    assert!(!cluster.is_recovering);
    cluster.is_recovering = true;
    fs::write(&file, cluster.encode()).expect("the file is ours");
    survivor.start();
    assert!(survivor.has_logged("this one goes on with it"), "{}", survivor.log());
    wait_until_served(&survivor);
    expect_all(&survivor, "after a crash at the end");
    // So is one before any of the journal was written: the old cluster's journals, and the new file.
    survivor.kill();
    copy_folder(&before, &survivor.data().join("appendonlydir"));
    fs::write(&file, cluster.encode()).expect("the file is ours");
    survivor.start();
    wait_until_served(&survivor);
    expect_all(&survivor, "after a crash at the beginning");

    // A node of the old cluster is refused, and serves nothing.
    lost[0].start();
    let reply = lost[0].connect().words("SET key:1 other");
    assert!(reply.is_error() && format!("{reply}").contains("CLUSTERDOWN"), "{reply}");
    wait_for("the refusal", || match survivor.has_logged("it belongs to another cluster") {
        true => Ok(()),
        false => Err(survivor.log()),
    });
    assert_eq!(survivor.cluster_info("cluster_known_nodes").as_deref(), Ok("1"));
    assert!(survivor.connect().words("SET after recovery").is_status("OK"));
    lost[0].kill();

    for node in &mut lost {
        node.wipe(Role::Joins(survivor.address()));
        node.start();
    }
    let mut nodes = lost;
    nodes.push(survivor);
    wait_until_settled(&nodes, 3);
    for node in &nodes {
        expect_all(node, "with two new nodes");
    }
    // What only the survivor had is the new nodes' as well.
    nodes[2].kill();
    wait_for("other leaders", || {
        let reply = nodes[0].connect().words("SET after everything");
        if reply.is_status("OK") { Ok(()) } else { Err(format!("{reply}")) }
    });
    expect_all(&nodes[0], "without the survivor");
}

#[test]
fn missing_shards_are_named_and_can_be_given_up() {
    let mut nodes = start(4);
    wait_until_settled(&nodes, 3);
    fill(&nodes[0]);
    // The logs begin behind snapshots, and go on.
    nodes[3].rewrite();
    fill(&nodes[1]);
    wait_until_settled(&nodes, 3);
    let mut survivor = nodes.pop().expect("four nodes");
    let held: BTreeSet<String> = replicas(&survivor)
        .into_iter()
        .filter(|(_, fields)| fields["state"] == "voter")
        .map(|(shard, _)| shard)
        .collect();
    assert!((1..SHARDS as usize).contains(&held.len()), "{held:?}");
    survivor.kill();
    nodes.iter_mut().for_each(Node::kill);

    survivor.turn(Role::First);
    survivor.add_argument(FORCE);
    let (status, log) = survivor.run_to_its_end();
    assert!(!status.success(), "{log}");
    let missing: Vec<String> =
        (0..SHARDS).map(|shard| shard.to_string()).filter(|shard| !held.contains(shard)).collect();
    let named = format!("this node has no replica of {} shards ({})", missing.len(), missing.join(", "));
    assert!(log.contains(&named) && log.contains("discard-missing"), "{named} in\n{log}");
    // Nothing has changed: it still waits for the others.
    survivor.remove_argument(FORCE);
    survivor.start();
    assert_eq!(survivor.cluster_info("cluster_known_nodes").as_deref(), Ok("4"));
    survivor.kill();

    survivor.add_argument(FORCE_AND_DISCARD);
    survivor.start();
    wait_until_served(&survivor);
    let mut connection = survivor.connect();
    let mut kept = 0;
    for number in 0..KEYS {
        let slot = connection.call(&["CLUSTER", "KEYSLOT", &key(number)]).integer().expect("a slot");
        let shard = (slot / SHARD_SLOTS).to_string();
        if held.contains(&shard) {
            expect_key(&mut connection, number);
            kept += 1;
        } else if survivor.has_logged(&format!("shard {shard}: this node has nothing of it: it begins empty"))
        {
            assert!(connection.call(&["GET", &key(number)]).is_null());
        } else {
            let said = format!("shard {shard}: this node was not to have it any more");
            assert!(survivor.has_logged(&said), "{said} in {}", survivor.log());
        }
        assert!(connection.call(&["SET", &key(number), "new"]).is_status("OK"));
    }
    assert!((1..KEYS).contains(&kept), "{kept} keys");
    drop(connection);
    survivor.kill();
    survivor.remove_argument(FORCE_AND_DISCARD);
    survivor.start();
    wait_until_served(&survivor);
    let mut connection = survivor.connect();
    for number in 0..KEYS {
        assert_eq!(connection.call(&["GET", &key(number)]).bytes(), Some(&b"new"[..]));
    }
}

#[test]
fn there_must_be_a_cluster_to_start_from() {
    let mut alone = node("the node", Role::Alone);
    alone.start();
    assert!(alone.connect().words("SET k v").is_status("OK"));
    alone.kill();
    let mut empty = node("an empty node", Role::First);
    for node in [&mut alone, &mut empty] {
        node.add_argument(FORCE);
        let (status, log) = node.run_to_its_end();
        assert_eq!(status.code(), Some(2), "{log}");
        assert!(
            log.contains("belongs to no cluster, so force-new-cluster has nothing to start from"),
            "{log}"
        );
    }
}

/// The segments of core 0, oldest first.
fn segments(node: &Node) -> Vec<PathBuf> {
    let files = fs::read_dir(node.data().join("appendonlydir")).expect("it was used");
    let files = files.map(|file| file.expect("a file").path());
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "segment");
    let mut segments: Vec<PathBuf> = files.filter(is_segment).collect();
    segments.sort_unstable();
    segments
}

#[test]
fn a_directory_that_lost_something_is_accepted_on_demand() {
    let mut only = node("the node", Role::First).option("cores", "1").option("segment-size", "1048576");
    only.start();
    let mut connection = only.connect();
    for number in 0..3000 {
        assert!(connection.call(&["SET", &key(number), &"v".repeat(1000)]).is_status("OK"));
    }
    drop(connection);
    only.kill();
    let damaged = segments(&only)[1].clone();
    let mut bytes = fs::read(&damaged).expect("the file is there");
    bytes[500_000] ^= 1;
    fs::write(&damaged, bytes).expect("the file is ours");

    for argument in ["--recover", "truncate"] {
        only.add_argument(argument);
    }
    let (status, log) = only.run_to_its_end();
    assert!(!status.success() && log.contains("must not take part as the node that it was"), "{log}");
    only.add_argument(FORCE);
    only.start();
    assert!(
        only.has_logged("may itself have lost what it had acknowledged, which is accepted"),
        "{}",
        only.log()
    );
    for argument in ["--recover", "truncate", FORCE] {
        only.remove_argument(argument);
    }
    wait_until_served(&only);
    assert!(only.connect().words("SET after recovery").is_status("OK"));
    only.kill();
    only.start();
    wait_until_served(&only);
    let mut connection = only.connect();
    assert_eq!(connection.words("GET after").bytes(), Some(&b"recovery"[..]));
    let kept = (0..3000).filter(|&number| !connection.call(&["GET", &key(number)]).is_null()).count();
    assert!((100..3000).contains(&kept), "{kept} keys");
}
