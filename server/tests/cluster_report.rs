//! What three nodes say of their cluster, before one of them is killed, while it is away, and when it is back.

mod cluster_support;
#[path = "../../tools/src/linearizability.rs"]
#[allow(dead_code, unreachable_pub, reason = "a module of test programs, of which this one needs nothing")]
mod linearizability;
mod support;

use cluster_support::{
    node::{Node, Role},
    wait_for,
};
use support::connection::Connection;
use support::resp::Reply;

const SHARDS: u64 = 16;

fn start() -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    for number in 0..3 {
        let role = nodes.first().map_or(Role::First, |first| Role::Joins(first.address()));
        let node = Node::new(&format!("node {number}"), role).option("cores", "2").option("shards", "16");
        // Tests run beside others: an election, or a suspicion, only because of that would be no use.
        let mut node = node.option("election-timeout", "1000").option("ttl", "3000");
        node.start();
        nodes.push(node);
    }
    for node in &nodes {
        wait_for("the whole cluster", || node.shards()?.is_whole(3));
    }
    nodes
}

fn text(reply: &Reply) -> String {
    String::from_utf8(reply.bytes().expect("a text").to_vec()).expect("UTF-8")
}

fn ask(node: &Node, request: &str) -> String {
    text(&node.connect().words(request))
}

fn number(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} in\n{text}"))
}

/// The line of CLUSTER NODES for a node.
fn line_of(text: &str, node: &Node) -> String {
    let address = format!(" {}@", node.address());
    text.lines()
        .find(|line| line.contains(&address))
        .unwrap_or_else(|| panic!("{address} in\n{text}"))
        .to_owned()
}

fn wait_for_line(node: &Node, of: &Node, what: &str, fits: impl Fn(&str) -> bool) {
    wait_for(what, || {
        let line = line_of(&ask(node, "CLUSTER NODES"), of);
        if fits(&line) { Ok(()) } else { Err(line) }
    });
}

/// The next message in which a node leads nothing.
fn wait_for_message(connection: &mut Connection, of: &Node) -> Reply {
    wait_for("a message", || {
        let message = connection.receive().map_err(|error| error.to_string())?;
        let items = message.items().expect("a message is a list");
        let line = line_of(&text(&items[2]), of);
        if line.ends_with("connected") { Ok(message) } else { Err(line) }
    })
}

#[test]
fn a_cluster_is_seen_from_outside() {
    let mut nodes = start();
    // Leaders are spread over the nodes, and everybody has what there is.
    wait_for("all of the reports", || {
        let reports: Vec<String> = nodes.iter().map(|node| ask(node, "INFO raft")).collect();
        let sum = |name: &str| reports.iter().map(|report| number(report, name)).sum::<u64>();
        let is_done = sum("raft_led") == SHARDS
            && reports.iter().all(|report| number(report, "raft_led") > 0)
            && reports
                .iter()
                .all(|report| report.lines().filter(|line| line.contains(",state=voter")).count() == 16);
        if is_done { Ok(()) } else { Err(reports.join("\n")) }
    });
    for (place, node) in nodes.iter().enumerate() {
        let report = ask(node, "INFO raft");
        assert_eq!(number(&report, "raft_groups"), SHARDS);
        assert_eq!(
            report.lines().filter(|line| line.contains("role=leader")).count() as u64,
            number(&report, "raft_led")
        );
        assert!(number(&report, "raft_term_max") > 0);
        let links: Vec<&str> = report.lines().filter(|line| line.starts_with("link")).collect();
        assert_eq!(links.len(), 2, "{report}");
        assert!(links.iter().all(|link| link.contains("links=2,up=2,unsent_bytes=")), "{report}");
        let replication = ask(node, "INFO replication");
        assert_eq!(number(&replication, "connected_slaves"), 2, "{replication}");
        for other in nodes.iter().filter(|other| other.address() != node.address()) {
            let address = other.address();
            let line = format!("ip={},port={},state=online,offset=", address.ip(), address.port());
            assert!(replication.contains(&line), "{replication}");
        }
        let cluster = ask(node, "INFO cluster");
        assert_eq!(number(&cluster, "cluster_node"), place as u64 + 1);
        assert!((1..=3).contains(&number(&cluster, "cluster_meta_leader")), "{cluster}");
        assert!(number(&cluster, "cluster_meta_term") > 0);
        assert_eq!(number(&cluster, "cluster_feature_level"), 1);
        assert!(cluster.contains("cluster_feature_levels:1=1,2=1,3=1\r\n"), "{cluster}");
        let info = ask(node, "CLUSTER INFO");
        assert!(number(&info, "cluster_stats_messages_sent") > 100, "{info}");
        assert!(number(&info, "cluster_stats_messages_received") > 100, "{info}");
        assert_eq!(number(&info, "total_cluster_links_buffer_limit_exceeded"), 0);
        assert!(!ask(node, "INFO").contains("# Raft"), "only who asks for it gets it");
        wait_for("everybody up", || {
            let text = ask(node, "CLUSTER NODES");
            let is_up = !text.contains("fail") && text.matches(" connected").count() == 3;
            if is_up { Ok(()) } else { Err(text) }
        });
    }

    let mut subscriber = nodes[0].connect();
    let confirmed = subscriber.words("SUBSCRIBE __duva__:topology");
    assert_eq!(confirmed.items().and_then(|items| items[2].integer()), Some(1), "{confirmed}");
    let mut watcher = nodes[1].connect();
    watcher.words("HELLO 3");
    assert!(watcher.words("CLIENT TOPOLOGY ON").is_status("OK"));
    nodes[2].kill();
    // Others lead what it led: a message says so.
    for (connection, kind) in [(&mut subscriber, b'*'), (&mut watcher, b'>')] {
        let message = wait_for_message(connection, &nodes[2]);
        assert_eq!(message.kind(), kind, "{message}");
    }
    for node in &nodes[..2] {
        // A link that breaks makes it suspected at once; nothing is heard of it for `ttl` after that.
        wait_for_line(node, &nodes[2], "the killed node to be down", |line| {
            line.contains(",fail ") && line.contains(" disconnected")
        });
        let report = ask(node, "INFO raft");
        assert!(report.contains("link3:links=2,up=0,"), "{report}");
        wait_for("the state ok", || match node.cluster_info("cluster_state")?.as_str() {
            "ok" => Ok(()),
            state => Err(state.to_owned()),
        });
    }
    nodes[2].start();
    for node in &nodes {
        wait_for_line(node, &nodes[2], "the node to be back", |line| {
            !line.contains("fail") && line.contains(" connected")
        });
    }
}

#[test]
fn a_node_that_is_stopped_is_down_although_its_links_are_not() {
    let nodes = start();
    nodes[1].pause();
    wait_for_line(&nodes[0], &nodes[1], "the stopped node to be suspected", |line| line.contains(",fail? "));
    wait_for_line(&nodes[0], &nodes[1], "the stopped node to be down", |line| line.contains(",fail "));
    nodes[1].resume();
    for node in &nodes {
        wait_for_line(node, &nodes[1], "the node to be back", |line| {
            !line.contains("fail") && line.contains(" connected")
        });
    }
}

#[test]
fn a_node_of_a_later_version_is_let_in_and_nothing_is_agreed_on() {
    let mut node = Node::new("the node", Role::First).option("cores", "1").option("shards", "4");
    node.start();
    let mut client = node.connect();
    let mut ask_in = |rest: &str| client.words(&format!("CLUSTER JOIN {} 127.0.0.1 {rest}", "ab".repeat(16)));
    for wrong in ["7001 17001 0", "7001 17001 x", "7001 17001 65536", "7001 17001 2 2"] {
        assert_eq!(ask_in(wrong).kind(), b'-', "{wrong}");
    }
    wait_for("the node of the later version", || {
        let answer = ask_in("7001 17001 2");
        if answer.kind() == b'$' { Ok(()) } else { Err(answer.to_string()) }
    });
    let cluster = ask(&node, "INFO cluster");
    assert!(cluster.contains("cluster_feature_levels:1=1,2=2\r\n"), "{cluster}");
    assert_eq!(number(&cluster, "cluster_feature_level"), 1);
    // It says so itself when it comes back with an earlier one.
    wait_for("the node of the earlier version", || {
        let answer = ask_in("7001 17001");
        if answer.kind() == b'$' { Ok(()) } else { Err(answer.to_string()) }
    });
    let cluster = ask(&node, "INFO cluster");
    assert!(cluster.contains("cluster_feature_levels:1=1,2=1\r\n"), "{cluster}");
}
