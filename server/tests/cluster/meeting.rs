//! Clusters that are brought together while they run.

use duva_server::cluster::meet::{MARK_NAME, Mark};
use duva_server::cluster::view::parse_node_id;

use crate::cluster_support::load::Load;
use crate::cluster_support::node::{Node, Role};
use crate::cluster_support::wait_for;
use crate::support::resp::Reply;
use crate::{Cluster, node};

fn started(name: &str, role: Role) -> Node {
    let mut node = node(name, role);
    node.start();
    node
}

fn meet(node: &Node, other: &Node) -> Reply {
    let (ip, port) = (other.address().ip(), other.address().port());
    node.connect().words(&format!("CLUSTER MEET {ip} {port}"))
}

fn check_is_alone(node: &Node) {
    knows(node, "1");
}

fn knows(node: &Node, expected: &str) {
    wait_for("other nodes", || {
        let count = node.cluster_info("cluster_known_nodes")?;
        if count == expected { Ok(()) } else { Err(format!("it knows {count} nodes")) }
    });
}

fn id_of(node: &Node) -> Option<[u8; 16]> {
    node.connect().words("CLUSTER MYID").bytes().and_then(parse_node_id)
}

/// What a node logs that looks for somebody of the cluster to join.
const WAITS: &str = "still waiting to be let into the cluster of";

#[track_caller]
fn check_refused(reply: &Reply, why: &str) {
    let text = String::from_utf8_lossy(reply.bytes().unwrap_or_default()).into_owned();
    assert!(reply.is_error() && text.contains(why), "{reply}");
}

#[test]
fn nodes_that_made_a_cluster_each_meet_in_one() {
    let nodes: Vec<Node> = (0..3).map(|number| started(&format!("node {number}"), Role::First)).collect();
    assert!(nodes[0].connect().words("SET before 1").is_status("OK"));
    let load = Load::start(71, 4, &[nodes[0].address()]);
    load.wait_for_every_key(load.now());
    // One that is told to come, and one that asks to be let in, because it is the one without keys.
    let reply = meet(&nodes[0], &nodes[1]);
    assert!(reply.is_status("OK"), "{reply}");
    let reply = meet(&nodes[2], &nodes[0]);
    assert!(reply.is_status("OK"), "{reply}");
    let cluster = Cluster { nodes };
    cluster.wait_until_whole(3);
    for node in &cluster.nodes {
        assert_eq!(node.cluster_info("cluster_known_nodes").as_deref(), Ok("3"));
        assert_eq!(node.connect().words("GET before").bytes(), Some(&b"1"[..]));
        assert!(!node.data().join("appendonlydir").join(MARK_NAME).exists());
    }
    // Who has met meets again.
    let reply = meet(&cluster.nodes[1], &cluster.nodes[2]);
    assert!(reply.is_status("OK"), "{reply}");
    load.use_nodes(&cluster.addresses());
    load.wait_for_every_key(load.now());
    load.finish_and_check(&cluster.addresses());
}

#[test]
fn who_has_something_to_lose_is_not_taken() {
    let (one, two) = (started("node 0", Role::First), started("node 1", Role::First));
    let alone = started("a server", Role::Alone);
    check_refused(&meet(&one, &alone), "cluster support disabled");
    check_refused(&meet(&alone, &one), "cluster support disabled");
    assert!(meet(&one, &one).is_status("OK"), "as in Redis");
    for node in [&one, &two] {
        let mut connection = node.connect();
        assert!(connection.words("SET key 1").is_status("OK"));
        check_refused(&connection.words("CLUSTER MEET localhost 7000"), "Invalid node address");
        check_refused(&connection.words("CLUSTER MEET 127.0.0.1 0"), "Invalid base port");
        check_refused(&connection.words("CLUSTER MEET 127.0.0.1 7000 x"), "Invalid bus port");
        check_refused(&connection.words("CLUSTER MEET 127.0.0.1 1"), "cannot be met");
        check_refused(&connection.words("CLUSTER ENTER x 127.0.0.1:7000"), "it holds keys");
    }
    check_refused(&meet(&one, &two), "it holds keys");
    let three = Cluster::start();
    check_refused(&meet(&one, &three.nodes[1]), "a cluster of 3 nodes");
    for node in [&one, &two] {
        check_is_alone(node);
        assert_eq!(node.connect().words("GET key").bytes(), Some(&b"1"[..]));
    }
}

#[test]
fn what_is_written_until_the_last_moment_is_kept() {
    let (one, two) = (started("node 0", Role::First), started("node 1", Role::First));
    let mut connection = two.connect();
    let reply = meet(&one, &two);
    assert!(reply.is_status("OK"), "{reply}");
    let is_kept = connection.try_call(&["SET", "late", "1"]).is_ok_and(|reply| reply.is_status("OK"));
    wait_for("a decision", || {
        let stays = two.has_logged("keeps its own cluster after all");
        if stays || two.has_logged("joined the cluster") { Ok(()) } else { Err("none yet".to_owned()) }
    });
    if is_kept {
        check_is_alone(&two);
        assert_eq!(two.connect().words("GET late").bytes(), Some(&b"1"[..]));
        check_is_alone(&one);
    }
}

#[test]
fn whoever_began_to_give_its_cluster_up_ends_in_one_membership() {
    let cluster = Cluster::start();
    let mut node = started("node 3", Role::First);
    let mark = |node: &mut Node, seed: &str, id| {
        node.stop();
        let path = node.data().join("appendonlydir").join(MARK_NAME);
        std::fs::write(&path, Mark { seed: seed.to_owned(), node: id }.encode()).expect("ours");
        node.start();
        assert!(!path.exists(), "the mark is removed");
    };
    // A cluster that refuses: nothing was given up.
    let alone = started("a server", Role::Alone);
    let own = node.connect().words("CLUSTER MYID");
    mark(&mut node, &alone.address().to_string(), [7; 16]);
    assert_eq!(node.connect().words("CLUSTER MYID"), own);
    check_is_alone(&node);
    // As a crash leaves it when the mark is all that there is, and when all but the mark is gone.
    let seed = cluster.nodes[1].address().to_string();
    mark(&mut node, &seed, [8; 16]);
    let id = node.connect().words("CLUSTER MYID");
    assert_eq!(id.bytes().and_then(parse_node_id), Some([8; 16]));
    knows(&node, "4");
    mark(&mut node, &seed, [8; 16]);
    assert_eq!(node.connect().words("CLUSTER MYID"), id, "it had joined");
    // As a crash leaves it when the directory is half emptied.
    let mut last = started("node 4", Role::First);
    last.stop();
    let directory = last.data().join("appendonlydir");
    std::fs::write(directory.join(MARK_NAME), Mark { seed, node: [9; 16] }.encode()).expect("ours");
    std::fs::remove_file(directory.join("cluster")).expect("it belonged to one");
    last.start();
    let id = last.connect().words("CLUSTER MYID");
    assert_eq!(id.bytes().and_then(parse_node_id), Some([9; 16]));
    knows(&last, "5");
}

#[test]
fn a_cluster_that_is_gone_is_not_waited_for_for_ever() {
    let (mut one, mut two) = (started("node 0", Role::First), started("node 1", Role::First));
    let own = id_of(&two);
    one.stop();
    let path = two.data().join("appendonlydir").join(MARK_NAME);
    let begin_marked = |node: &mut Node| {
        node.stop();
        let mark = Mark { seed: one.address().to_string(), node: [7; 16] };
        std::fs::write(&path, mark.encode()).expect("ours");
        let before = node.times_logged(WAITS);
        node.begin();
        node.wait_until_logged(WAITS, before);
    };
    begin_marked(&mut two);
    // Whoever is killed while it waits waits anew.
    two.kill();
    two.start();
    assert_eq!(id_of(&two), own);
    check_is_alone(&two);
    assert!(!path.exists(), "the mark is removed");
    assert!(two.has_logged("this node stays in its own cluster: no node of that cluster has answered for"));
    wait_for("a write", || match two.connect().words("SET key 1") {
        reply if reply.is_status("OK") => Ok(()),
        reply => Err(reply.to_string()),
    });
    // One that is there again in time is joined.
    begin_marked(&mut two);
    one.start();
    knows(&one, "2");
    wait_for("an answer", || two.cluster_info("cluster_state").map(drop));
    assert_eq!(id_of(&two), Some([7; 16]));
    assert!(!path.exists(), "the mark is removed");
}

#[test]
fn who_is_killed_while_it_joins_ends_in_one_membership() {
    let (one, mut two) = (started("node 0", Role::First), started("node 1", Role::First));
    assert!(one.connect().words("SET key 1").is_status("OK"));
    let reply = meet(&one, &two);
    assert!(reply.is_status("OK"), "{reply}");
    // Wherever exactly it is by the time that it is killed.
    two.wait_until_logged("this node's own cluster is given up", 0);
    two.kill();
    let joined = two.times_logged("joined the cluster");
    two.begin();
    if joined == 0 {
        two.wait_until_logged("joined the cluster", 0);
        two.kill();
        two.begin();
    }
    let check = |two: &Node, count: &str| {
        knows(two, count);
        // Who asks twice is let in once.
        knows(&one, count);
        assert!(!two.data().join("appendonlydir").join(MARK_NAME).exists(), "the mark is removed");
        wait_for("a reply", || match two.connect().words("GET key") {
            reply if reply.bytes() == Some(b"1") => Ok(()),
            reply => Err(reply.to_string()),
        });
    };
    check(&two, "2");
    // As a crash leaves it when nothing but the mark is there any more.
    let mut three = started("node 2", Role::First);
    three.stop();
    let directory = three.data().join("appendonlydir");
    std::fs::remove_dir_all(&directory).expect("ours");
    std::fs::create_dir(&directory).expect("ours");
    let mark = Mark { seed: one.address().to_string(), node: [9; 16] };
    std::fs::write(directory.join(MARK_NAME), mark.encode()).expect("ours");
    three.start();
    assert_eq!(id_of(&three), Some([9; 16]));
    check(&three, "3");
}

#[test]
fn clusters_with_one_password_meet_and_others_do_not() {
    let with = |name: &str, password| {
        let mut node = node(name, Role::First).option("requirepass", password);
        node.start();
        node
    };
    let (one, two, three) = (with("node 0", "secret"), with("node 1", "secret"), with("node 2", "other"));
    let open = started("node 3", Role::First);
    for (asked, other) in [(&one, &three), (&three, &two), (&open, &one)] {
        check_refused(&meet(asked, other), "cannot be met");
    }
    let reply = meet(&one, &two);
    assert!(reply.is_status("OK"), "{reply}");
    for node in [&one, &two] {
        knows(node, "2");
    }
    assert!(two.connect().words("SET key 1").is_status("OK"));
    assert_eq!(one.connect().words("GET key").bytes(), Some(&b"1"[..]));
    for node in [&three, &open] {
        check_is_alone(node);
    }
}
