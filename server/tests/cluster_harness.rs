//! The tests of clusters can be trusted: their clients record what happens, their networks are cut where they should be.
//!
//! One node alone is enough for that.

mod cluster_support;
#[path = "../../tools/src/linearizability.rs"]
#[allow(unreachable_pub, reason = "a module of test programs has no outside")]
mod linearizability;
mod support;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use cluster_support::load::Load;
use cluster_support::network::{Network, with_network};
use cluster_support::node::{Node, Role};
use cluster_support::shards::Shards;
use support::resp;

/// How long a packet that was not cut may take.
const PACKET_PATIENCE: Duration = Duration::from_secs(10);

/// How long one that was cut is waited for.
const CUT_PATIENCE: Duration = Duration::from_millis(300);

fn alone() -> Node {
    Node::new("the node", Role::Alone).option("cores", "2").option("appendonly", "yes")
}

#[test]
fn one_node_that_is_killed_stays_linearizable() {
    let mut node = alone();
    node.start();
    let load = Load::start(1, 8, &[node.address()]);
    for _ in 0..3 {
        load.wait_for_writes(500);
        node.kill();
        node.start();
        load.wait_for_every_key(load.now());
    }
    node.pause();
    node.resume();
    load.wait_for_writes(100);
    load.finish_and_check(&[node.address()]);
}

#[test]
fn a_node_that_forgets_is_found_out() {
    let mut node = alone();
    node.start();
    let load = Load::start(2, 8, &[node.address()]);
    load.wait_for_every_key(load.now());
    node.kill();
    node.wipe(Role::Alone);
    node.start();
    load.wait_for_writes(100);
    let history = load.finish(&[node.address()]);
    let violation = linearizability::check(&history).expect_err("everything was lost");
    assert!(!violation.is_undecided, "{violation}");
}

#[test]
fn a_node_refuses_a_directory_that_is_in_use() {
    let mut node = alone();
    node.start();
    let (status, log) = node.twin().run_to_its_end();
    assert!(!status.success(), "{status}: {log}");
    assert!(log.contains(&node.data().display().to_string()), "it names the directory: {log}");
}

#[test]
fn networks_are_cut_one_way_and_healed() {
    with_network(3, |network| {
        let mut nodes: Vec<Node> = (0..2).map(|number| in_network(network, number)).collect();
        nodes.iter_mut().for_each(Node::start);
        let connects = |from: usize, to: usize, patience| {
            let address = SocketAddr::from((Network::host(to), nodes[to].address().port()));
            network.inside(from, || TcpStream::connect_timeout(&address, patience).is_ok())
        };
        assert!(connects(0, 1, PACKET_PATIENCE) && connects(1, 0, PACKET_PATIENCE));
        // A request without an answer and an answer without a request are no connection either way.
        network.cut_one_way(0, 1);
        assert!(!connects(0, 1, CUT_PATIENCE) && !connects(1, 0, CUT_PATIENCE));
        assert!(connects(2, 0, PACKET_PATIENCE) && connects(2, 1, PACKET_PATIENCE));
        network.heal_one_way(0, 1);
        assert!(connects(0, 1, PACKET_PATIENCE) && connects(1, 0, PACKET_PATIENCE));
        network.isolate(0);
        assert!(!connects(2, 0, CUT_PATIENCE) && connects(2, 1, PACKET_PATIENCE));
        // The test itself is not cut off.
        assert!(nodes[0].connect().words("PING").is_status("PONG"));
        network.rejoin(0);
        assert!(connects(2, 0, PACKET_PATIENCE));
    });
}

#[test]
fn a_one_way_cut_lets_the_other_way_through() {
    with_network(2, |network| {
        let bind = |node: usize| {
            let address = SocketAddr::from((Network::host(node), 0));
            network.inside(node, || std::net::UdpSocket::bind(address).expect("a port of the namespace"))
        };
        let sockets = [bind(0), bind(1)];
        let arrives = |from: usize, to: usize, patience| {
            let target = sockets[to].local_addr().expect("it is bound");
            sockets[to].set_read_timeout(Some(patience)).expect("a time above 0");
            sockets[from].send_to(b"x", target).expect("a cut is not told");
            sockets[to].recv(&mut [0; 8]).is_ok()
        };
        assert!(arrives(0, 1, PACKET_PATIENCE) && arrives(1, 0, PACKET_PATIENCE));
        network.cut_one_way(0, 1);
        assert!(!arrives(0, 1, CUT_PATIENCE) && arrives(1, 0, PACKET_PATIENCE));
        network.heal_one_way(0, 1);
        assert!(arrives(0, 1, PACKET_PATIENCE));
    });
}

#[test]
fn networks_are_apart_from_the_machine() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback interface has a free port");
    let address = listener.local_addr().expect("it is bound");
    let (sender, receiver) = mpsc::channel();
    with_network(1, move |network| {
        let reached = network.inside(0, || TcpStream::connect_timeout(&address, CUT_PATIENCE).is_ok());
        sender.send(reached).expect("the test waits");
    });
    // Nothing was sent if networks are not to be had here.
    assert!(receiver.try_recv().is_ok_and(|reached| !reached) || receiver.try_recv().is_err());
    assert!(TcpStream::connect(address).is_ok(), "this thread is where it was");
}

#[test]
fn shards_are_read_as_redis_writes_them() {
    let node = |port: u16, role: &str, health: &str| {
        format!(
            "*12\r\n$2\r\nid\r\n$1\r\nx\r\n$4\r\nport\r\n:{port}\r\n$2\r\nip\r\n$9\r\n127.0.0.1\r\n$4\r\nrole\r\n\
             ${}\r\n{role}\r\n$18\r\nreplication-offset\r\n:7\r\n$6\r\nhealth\r\n${}\r\n{health}\r\n",
            role.len(),
            health.len()
        )
    };
    let text = |health: &str| {
        format!(
            "*1\r\n*4\r\n$5\r\nslots\r\n*4\r\n:0\r\n:9999\r\n:10000\r\n:16383\r\n$5\r\nnodes\r\n*2\r\n{}{}",
            node(7001, "master", "online"),
            node(7002, "replica", health)
        )
    };
    let parse = |text: &str| {
        let (reply, _) = resp::parse(text.as_bytes()).expect("a reply").expect("a whole one");
        Shards::parse(&reply)
    };
    let shards = parse(&text("online")).expect("all fields");
    assert_eq!(shards.is_whole(2), Ok(()));
    assert!(shards.is_whole(3).is_err());
    let led: Vec<_> = shards.led_slots().into_iter().map(|(node, slots)| (node.port(), slots)).collect();
    assert_eq!(led, [(7001, 16_384)]);
    assert!(parse(&text("loading")).expect("all fields").is_whole(2).is_err());
    assert!(parse("*1\r\n*0\r\n").is_err());
}

fn in_network(network: &Network, number: usize) -> Node {
    let node = Node::new(&format!("node {number}"), Role::Alone).option("cores", "1");
    node.inside(network.namespace(number), Network::host(number))
}
