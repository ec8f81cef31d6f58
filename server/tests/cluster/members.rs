//! How clusters come to be and change.

use duva_persist::{manifest::Manifest, names};
use duva_server::cluster::file::{CLUSTER_FILE_NAME, ClusterFile};
use duva_server::cluster::starts::{self, STARTS_FILE_NAME};

use crate::cluster_support::load::Load;
use crate::cluster_support::node::{Node, Role};
use crate::cluster_support::wait_for;
use crate::support::resp;
use crate::{CLIENTS, Cluster, SHARDS, WRITES, node};

#[test]
fn three_nodes_serve_every_key_and_pipelines() {
    let cluster = Cluster::start();
    for (writer, node) in cluster.nodes.iter().enumerate() {
        // Keys of all shards in one pipeline, each twice: replies come in the order of requests.
        let mut bytes = Vec::new();
        for number in 0..500 {
            let (key, value) = (format!("key:{number}"), format!("{writer}:{number}"));
            resp::encode_request(&["SET", &key, &value], &mut bytes);
            resp::encode_request(&["GET", &key], &mut bytes);
        }
        let replies = node.connect().exchange(&bytes, 1000).expect("a reply each");
        for (number, pair) in replies.chunks(2).enumerate() {
            assert!(pair[0].is_status("OK"), "{}", pair[0]);
            assert_eq!(pair[1].bytes(), Some(format!("{writer}:{number}").as_bytes()));
        }
        for reader in &cluster.nodes {
            let mut connection = reader.connect();
            for number in 0..500 {
                let reply = connection.words(&format!("GET key:{number}"));
                assert_eq!(reply.bytes(), Some(format!("{writer}:{number}").as_bytes()));
            }
        }
    }
    let known = |node: &Node| node.cluster_info("cluster_known_nodes");
    assert!(cluster.nodes.iter().all(|node| known(node).is_ok_and(|count| count == "3")));
}

#[test]
fn nodes_are_started_in_any_order() {
    // Joiners that are there before anybody whom they can join.
    let mut first = node("node 0", Role::First);
    let mut others: Vec<Node> =
        (1..3).map(|number| node(&format!("node {number}"), Role::Joins(first.address()))).collect();
    others.iter_mut().for_each(Node::begin);
    first.start();
    others.insert(0, first);
    let cluster = Cluster { nodes: others };
    for node in &cluster.nodes {
        wait_for("an answer", || node.cluster_info("cluster_state").map(drop));
    }
    cluster.wait_until_whole(3);
}

#[test]
fn a_joiner_may_ask_any_node_of_the_cluster() {
    let mut cluster = Cluster::founded();
    for _ in 1..3 {
        let last = cluster.nodes.last().expect("there is the first").address();
        let mut next = node(&format!("node {}", cluster.nodes.len()), Role::Joins(last));
        next.start();
        cluster.nodes.push(next);
    }
    cluster.wait_until_whole(3);
}

#[test]
fn data_from_before_the_cluster_is_kept() {
    let mut first = node("node 0", Role::Alone).option("appendonly", "yes");
    first.start();
    assert!(first.connect().words("SET before 1").is_status("OK"));
    first.stop();
    first.turn(Role::First);
    first.start();
    let mut cluster = Cluster { nodes: vec![first] };
    for _ in 1..3 {
        let mut node = cluster.next_node();
        node.start();
        cluster.nodes.push(node);
    }
    cluster.wait_until_whole(3);
    for node in &cluster.nodes {
        assert_eq!(node.connect().words("GET before").bytes(), Some(&b"1"[..]));
    }
}

/// What a node logs when it goes on from a snapshot of its leader.
pub(crate) const INSTALLED: &str = "the shard goes on from the leader's snapshot";

/// Values of some size in every shard: a shard's snapshot takes several messages.
fn fill(node: &Node, mark: u8) {
    let mut bytes = Vec::new();
    for number in 0..BIG_KEYS {
        resp::encode_request(
            &[&b"SET"[..], format!("big:{number}").as_bytes(), &vec![mark; BIG_BYTES]],
            &mut bytes,
        );
    }
    let replies = node.connect().exchange(&bytes, BIG_KEYS).expect("a reply each");
    assert!(replies.iter().all(|reply| reply.is_status("OK")));
}

fn check_filled(node: &Node, mark: u8) {
    let mut connection = node.connect();
    for number in 0..BIG_KEYS {
        let reply = connection.words(&format!("GET big:{number}"));
        let is_whole = reply.bytes().is_some_and(|value| value == vec![mark; BIG_BYTES]);
        assert!(is_whole, "big:{number} has {:?} bytes", reply.bytes().map(<[u8]>::len));
    }
}

const BIG_KEYS: usize = 128;
const BIG_BYTES: usize = 100_000;

#[test]
fn a_node_that_was_away_for_long_gets_snapshots() {
    let mut cluster = Cluster::start();
    fill(&cluster.nodes[0], b'a');
    let load = Load::start(45, CLIENTS, &cluster.addresses());
    load.wait_for_writes(WRITES);
    cluster.nodes[2].kill();
    load.use_nodes(&cluster.others(2));
    load.wait_for_every_key(load.now());
    fill(&cluster.nodes[0], b'b');
    // What it lacks is in no log any more.
    cluster.nodes[..2].iter().for_each(Node::rewrite);
    cluster.nodes[2].start();
    wait_for("a snapshot", || {
        if cluster.nodes[2].has_logged(INSTALLED) { Ok(()) } else { Err("none was installed".to_owned()) }
    });
    cluster.wait_until_whole(3);
    load.use_nodes(&cluster.addresses());
    load.wait_for_every_key(load.now());
    // It has everything: with one of the others it is a majority.
    cluster.nodes[0].kill();
    load.use_nodes(&cluster.others(0));
    load.wait_for_every_key(load.now());
    check_filled(&cluster.nodes[2], b'b');
    cluster.nodes[0].start();
    // It starts from those snapshots, too.
    cluster.nodes[2].kill();
    cluster.nodes[2].start();
    cluster.wait_until_whole(3);
    load.use_nodes(&cluster.addresses());
    load.wait_for_every_key(load.now());
    check_filled(&cluster.nodes[2], b'b');
    load.finish_and_check(&cluster.addresses());
}

#[test]
fn a_fourth_node_joins_under_load() {
    let mut cluster = Cluster::start();
    fill(&cluster.nodes[0], b'a');
    let load = Load::start(41, CLIENTS, &cluster.addresses());
    load.wait_for_writes(WRITES);
    // So that it gets snapshots, which are the only copies of what was first.
    cluster.nodes.iter().for_each(Node::rewrite);
    let mut fourth = cluster.next_node();
    fourth.start();
    cluster.nodes.push(fourth);
    load.use_nodes(&cluster.addresses());
    for node in &cluster.nodes {
        wait_for("four nodes", || match node.cluster_info("cluster_known_nodes")?.as_str() {
            "4" => Ok(()),
            count => Err(format!("{count} nodes are known")),
        });
    }
    // Replicas move to where there are fewer; all the time there are three.
    let newcomer = cluster.nodes[3].address();
    wait_for("replicas on the fourth node", || {
        let shards = cluster.nodes[0].shards()?;
        let has = |shard: &crate::cluster_support::shards::Shard| {
            shard.replicas.iter().any(|replica| replica.address == newcomer && replica.is_online)
        };
        if shards.0.iter().any(has) { Ok(()) } else { Err("it has none".to_owned()) }
    });
    cluster.wait_until_whole(3);
    wait_for("a snapshot", || {
        if cluster.nodes[3].has_logged(INSTALLED) { Ok(()) } else { Err("none was installed".to_owned()) }
    });
    load.wait_for_every_key(load.now());
    cluster.nodes.iter().for_each(|node| check_filled(node, b'a'));
    load.finish_and_check(&cluster.addresses());
}

#[test]
fn a_wiped_node_rejoins_as_another_one() {
    let mut cluster = Cluster::start();
    let load = Load::start(42, CLIENTS, &cluster.addresses());
    load.wait_for_writes(WRITES);
    let before = cluster.nodes[2].connect().words("CLUSTER MYID");
    cluster.nodes[2].kill();
    load.use_nodes(&cluster.others(2));
    load.wait_for_every_key(load.now());
    let seed = cluster.nodes[0].address();
    cluster.nodes[2].wipe(Role::Joins(seed));
    cluster.nodes[2].start();
    let mut connection = cluster.nodes[2].connect();
    assert_ne!(connection.words("CLUSTER MYID"), before, "it forgot its votes, so it is a new voter");
    // The node that is gone for ever is told so; its replicas go to the new one.
    let forgotten = String::from_utf8_lossy(before.bytes().expect("an id")).into_owned();
    // Not before the others see that it is gone, and have a leader.
    wait_for("the others to forget it", || {
        let reply = cluster.nodes[0].connect().call(&["CLUSTER", "FORGET", &forgotten]);
        if reply.is_status("OK") { Ok(()) } else { Err(reply.to_string()) }
    });
    cluster.wait_until_whole(3);
    load.use_nodes(&cluster.addresses());
    load.wait_for_every_key(load.now());
    load.finish_and_check(&cluster.addresses());
}

#[test]
fn a_copy_of_a_node_is_refused_and_harms_nobody() {
    let mut cluster = Cluster::start();
    let load = Load::start(44, 4, &cluster.others(2));
    load.wait_for_writes(WRITES);
    cluster.nodes[2].stop();
    let mut copy = cluster.nodes[2].copy();
    cluster.nodes[2].start();
    cluster.wait_until_whole(3);
    load.use_nodes(&cluster.addresses());
    load.wait_for_every_key(load.now());
    // It has the number, the votes and the entries of a node that is there.
    copy.start();
    for other in &cluster.nodes[..2] {
        wait_for("a node to refuse the copy", || {
            other.has_logged("this one's directory is a copy").then_some(()).ok_or_else(|| other.log())
        });
    }
    let moment = load.now();
    load.wait_for_every_key(moment);
    cluster.wait_until_whole(3);
    load.finish_and_check(&cluster.addresses());
}

/// The epoch in which a node runs, and the one in which another one has seen it, as their directories say.
fn epochs(node: &Node, (number, other): (u32, &Node)) -> Result<(u64, Option<u64>), String> {
    let read = |node: &Node, name: &str| {
        let path = node.data().join("appendonlydir").join(name);
        std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let manifest = Manifest::decode(&read(node, names::MANIFEST)?).expect("it can be read");
    let file = ClusterFile::decode(&read(other, CLUSTER_FILE_NAME)?).expect("it can be read");
    let starts = starts::decode(&read(other, STARTS_FILE_NAME)?, &file.cluster).expect("it can be read");
    Ok((manifest.epoch, starts.get(&number).map(|start| start.epoch)))
}

#[test]
fn an_outdated_directory_is_refused_by_nodes_that_were_started_anew() {
    let mut cluster = Cluster::start();
    cluster.nodes[2].stop();
    let mut copy = cluster.nodes[2].copy();
    cluster.nodes[2].start();
    cluster.wait_until_whole(3);
    for other in &cluster.nodes[..2] {
        wait_for("a note of its last start", || match epochs(&cluster.nodes[2], (3, other))? {
            (epoch, Some(seen)) if epoch == seen => Ok(()),
            epochs => Err(format!("{epochs:?}")),
        });
    }
    cluster.nodes.iter_mut().for_each(Node::kill);
    cluster.nodes[..2].iter_mut().for_each(Node::begin);
    copy.begin();
    for other in &cluster.nodes[..2] {
        wait_for("a node to refuse the copy", || {
            other.has_logged("has been seen with a later start").then_some(()).ok_or_else(|| other.log())
        });
    }
    copy.kill();
    // The node itself is welcome.
    cluster.nodes[2].start();
    cluster.wait_until_whole(3);
}

#[test]
fn a_node_of_another_cluster_is_refused_and_harms_nobody() {
    let cluster = Cluster::start();
    let mut foreign = Cluster::founded();
    // On a directory with a cluster of its own --join is ignored: it comes back as what it was.
    foreign.nodes[0].stop();
    foreign.nodes[0].turn(Role::Joins(cluster.nodes[0].address()));
    foreign.nodes[0].start();
    assert_eq!(foreign.nodes[0].cluster_info("cluster_known_nodes").as_deref(), Ok("1"));
    let load = Load::start(43, 2, &cluster.addresses());
    load.wait_for_every_key(load.now());
    load.finish_and_check(&cluster.addresses());
    for node in &cluster.nodes {
        assert_eq!(node.cluster_info("cluster_known_nodes").as_deref(), Ok("3"));
    }
}

#[test]
fn the_number_of_shards_is_the_clusters() {
    let mut cluster = Cluster::founded();
    let mut other = Node::new("node 1", Role::Joins(cluster.nodes[0].address()));
    for (argument, times) in [("--shards=32", 1), ("--shards=32", 2), ("--shards=8", 3)] {
        other.add_argument("--cores=2");
        other.add_argument(argument);
        other.start();
        let ignored = format!("the cluster has {SHARDS} shards, which holds for every node: shards, ");
        assert_eq!(other.times_logged(&ignored), times);
        let reply = other.connect().words("CONFIG GET shards");
        assert_eq!(reply.items().and_then(|items| items[1].bytes()), Some(SHARDS.to_string().as_bytes()));
        other.stop();
        other.remove_argument("--cores=2");
        other.remove_argument(argument);
    }
    other.add_argument("--cores=2");
    other.start();
    cluster.nodes.push(other);
    cluster.wait_until_whole(2);
}

#[test]
fn what_was_in_memory_is_not_trusted_after_the_machine_started_anew() {
    let mut node = Node::new("1", Role::First).option("raft-durability", "memory");
    node.start();
    node.stop();
    let path = node.data().join("appendonlydir").join(names::MANIFEST);
    let bytes = std::fs::read(&path).expect("the directory has a manifest");
    let mut manifest = Manifest::decode(&bytes).expect("it can be read");
    manifest.kernel_boot = [0xEE; 16];
    std::fs::write(&path, manifest.encode()).expect("it can be written");
    let (status, log) = node.run_to_its_end();
    assert!(!status.success(), "{status}: {log}");
    assert!(log.contains("must not take part as the node that it was"), "{log}");
}

#[test]
fn a_second_process_on_a_directory_is_refused() {
    let cluster = Cluster::start();
    let (status, log) = cluster.nodes[1].twin().run_to_its_end();
    assert!(!status.success(), "{status}: {log}");
    assert!(log.contains(&cluster.nodes[1].data().display().to_string()), "it names the directory: {log}");
    cluster.wait_until_whole(3);
}

#[test]
fn garbage_at_the_peer_port_harms_nobody() {
    let cluster = Cluster::start();
    let load = Load::start(44, 2, &cluster.addresses());
    let mut random = crate::support::random::Random::new(44);
    for node in &cluster.nodes {
        for length in [1, 15, 16, 17, 4000, 1 << 20] {
            let mut stream = std::net::TcpStream::connect(node.peer_address()).expect("it listens to peers");
            // It may be closed before all of it is sent.
            let _ = std::io::Write::write_all(&mut stream, &random.bytes(length));
        }
    }
    load.wait_for_every_key(load.now());
    load.finish_and_check(&cluster.addresses());
}
