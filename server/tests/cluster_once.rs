//! ONCE in a cluster: clients that send every request again until it is acknowledged, through deaths of leaders.

mod cluster_support;
#[path = "../../tools/src/linearizability.rs"]
#[allow(unreachable_pub, reason = "a module of test programs has no outside")]
mod linearizability;
mod support;

use std::fs;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cluster_support::node::{Node, Role};
use cluster_support::wait_for;
use support::connection::{Address, Connection};
use support::random::Random;

/// Clients, each with a counter of its own beside those of all.
const CLIENTS: usize = 6;

/// Counters of all clients.
const SHARED: usize = 8;

/// Shards of the cluster.
const SHARDS: usize = 16;

/// How often the leader of most shards is killed.
const KILLS: usize = 3;

/// Requests that are acknowledged between two kills.
const REQUESTS_BETWEEN: usize = 300;

/// How long a client waits for a reply before it asks another node.
const PATIENCE: Duration = Duration::from_millis(700);

fn node(name: &str, role: Role) -> Node {
    Node::new(name, role).option("cores", "2").option("shards", &SHARDS.to_string())
}

fn start() -> Vec<Node> {
    let mut nodes = vec![node("node 0", Role::First)];
    nodes[0].start();
    for number in 1..3 {
        let mut next = node(&format!("node {number}"), Role::Joins(nodes[0].address()));
        next.start();
        nodes.push(next);
    }
    wait_until_whole(&nodes);
    wait_until_all_vote(&nodes);
    nodes
}

/// Waits until every shard has three voters, of which only logs tell: those that have just come learn first.
fn wait_until_all_vote(nodes: &[Node]) {
    wait_for("three voters of every shard", || {
        let logs = nodes.iter().map(|node| fs::read_to_string(node.data().with_file_name("log")));
        let logs: String = logs.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        let has_voters = |shard: &usize| {
            let changed = format!("the shard's replicas change shard={shard} ");
            let mut lines = logs.lines().filter(|line| line.contains(&changed));
            lines.any(|line| line.ends_with("learners=[]") && line.matches("ReplicaId").count() == 3)
        };
        match (0..SHARDS).filter(has_voters).count() {
            SHARDS => Ok(()),
            count => Err(format!("{count} shards have them")),
        }
    });
}

fn wait_until_whole(nodes: &[Node]) {
    for node in nodes {
        wait_for("the whole cluster", || node.shards()?.is_whole(3));
    }
}

/// Which node leads the most slots.
fn first_leader(nodes: &[Node]) -> usize {
    let led = wait_for("leaders", || nodes[0].shards()).led_slots();
    let (address, _) = led.into_iter().max_by_key(|&(_, slots)| slots).expect("every shard has a leader");
    nodes.iter().position(|node| node.address() == address).expect("it is one of the nodes")
}

/// A request that was acknowledged.
struct Done {
    client: usize,
    number: usize,
    key: String,
    value: i64,
}

/// Sends a request until it is acknowledged, to one node after the other; returns the reply, and how often it was sent.
fn insist(
    addresses: &[SocketAddr],
    random: &mut Random,
    connection: &mut Option<Connection>,
    arguments: &[&str],
) -> (i64, usize) {
    let mut sent = 0;
    let value = wait_for("an acknowledgement", || {
        if connection.is_none() {
            let address = random.pick(addresses);
            let fresh = Connection::open(&Address::Tcp(address)).map_err(|error| error.to_string())?;
            fresh.set_patience(PATIENCE).map_err(|error| error.to_string())?;
            *connection = Some(fresh);
        }
        let Some(current) = connection else { return Err("no connection".to_owned()) };
        sent += 1;
        match current.try_call(arguments) {
            Ok(reply) => {
                if let Some(value) = reply.integer() {
                    return Ok(value);
                }
                let text = String::from_utf8_lossy(reply.bytes().unwrap_or_default()).into_owned();
                let is_expected = text.starts_with("CLUSTERDOWN") || text.starts_with("UNCERTAIN");
                assert!(is_expected, "{arguments:?}: {reply}");
                Err(text)
            }
            Err(error) => {
                *connection = None;
                Err(error.to_string())
            }
        }
    });
    (value, sent)
}

#[test]
fn retried_increments_count_once_through_deaths_of_leaders() {
    let mut nodes = start();
    let addresses: Vec<SocketAddr> = nodes.iter().map(Node::address).collect();
    let (acknowledged, again) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let is_over = AtomicBool::new(false);
    let history = Mutex::new(Vec::<Done>::new());
    std::thread::scope(|scope| {
        /// Ends the clients even when the test fails.
        struct End<'a>(&'a AtomicBool);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let end = End(&is_over);
        for client in 0..CLIENTS {
            let (addresses, acknowledged, again, is_over, history) =
                (&addresses, &acknowledged, &again, &is_over, &history);
            scope.spawn(move || {
                let mut random = Random::new(client as u64);
                let (mut connection, mut own) = (None, 0);
                let mut number = 0;
                while !is_over.load(Ordering::Relaxed) {
                    number += 1;
                    let is_own = number % 2 == 0;
                    let key = if is_own {
                        format!("own:{client}")
                    } else {
                        format!("all:{}", random.below(SHARED))
                    };
                    let (id, request) = (format!("client {client}"), number.to_string());
                    let arguments = ["ONCE", &id, &request, "INCR", &key];
                    let (value, sent) = insist(addresses, &mut random, &mut connection, &arguments);
                    if is_own {
                        own += 1;
                        assert_eq!(value, own, "{key}: nobody else increments it");
                    }
                    again.fetch_add(sent - 1, Ordering::Relaxed);
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                    history.lock().expect("no client panics with it").push(Done {
                        client,
                        number,
                        key,
                        value,
                    });
                }
            });
        }
        for _ in 0..KILLS {
            let before = acknowledged.load(Ordering::Relaxed);
            wait_for("progress", || {
                let more = acknowledged.load(Ordering::Relaxed) - before;
                if more >= REQUESTS_BETWEEN { Ok(()) } else { Err(format!("{more} requests")) }
            });
            let leader = first_leader(&nodes);
            nodes[leader].kill();
            let before = acknowledged.load(Ordering::Relaxed);
            wait_for("progress of two nodes", || {
                let more = acknowledged.load(Ordering::Relaxed) - before;
                if more >= REQUESTS_BETWEEN { Ok(()) } else { Err(format!("{more} requests")) }
            });
            nodes[leader].start();
            wait_until_whole(&nodes);
        }
        drop(end);
    });
    let history = history.into_inner().expect("no client panicked");
    eprintln!("{} requests, {} retries", history.len(), again.load(Ordering::Relaxed));
    assert!(again.load(Ordering::Relaxed) > 0, "nothing had to be sent again: the kills hit nobody");
    expect_counted(&addresses, &history);
    // Whoever asks again, now or after everything was restarted, gets the same replies.
    expect_known(&addresses, &history);
    for node in &nodes {
        assert!(!node.connect().words("BGREWRITEAOF").is_error());
    }
    expect_known(&addresses, &history);
    nodes.iter_mut().for_each(Node::kill);
    nodes.iter_mut().for_each(Node::begin);
    wait_until_whole(&nodes);
    expect_known(&addresses, &history);
    expect_counted(&addresses, &history);
}

/// Asserts that each counter is the number of its requests, and that no value was given to two of them.
fn expect_counted(addresses: &[SocketAddr], history: &[Done]) {
    let mut keys: Vec<&str> = history.iter().map(|done| &*done.key).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut random = Random::new(77);
    for key in keys {
        let mut values: Vec<i64> =
            history.iter().filter(|done| done.key == key).map(|done| done.value).collect();
        values.sort_unstable();
        let count = values.len() as i64;
        assert!(values.into_iter().eq(1..=count), "{key}: {count} requests have the values 1 to {count}");
        let (counted, _) = insist(addresses, &mut random, &mut None, &["INCRBY", key, "0"]);
        assert_eq!(counted, count, "{key}");
    }
}

/// Asserts that every request gets the reply that it got, wherever it is sent.
fn expect_known(addresses: &[SocketAddr], history: &[Done]) {
    let mut random = Random::new(78);
    let mut connections: Vec<Option<Connection>> = addresses.iter().map(|_| None).collect();
    for Done { client, number, key, value } in history {
        let node = random.below(addresses.len());
        let (id, request) = (format!("client {client}"), number.to_string());
        let arguments = ["ONCE", &id, &request, "INCR", key];
        let (again, _) = insist(&addresses[node..=node], &mut random, &mut connections[node], &arguments);
        assert_eq!(again, *value, "request {number} of client {client}");
    }
}
