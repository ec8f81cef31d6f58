//! What reads promise at each level, seen from outside: three nodes, of which each connection knows one.

mod cluster_support;
#[path = "../../tools/src/linearizability.rs"]
#[allow(dead_code, unreachable_pub, reason = "a module of test programs has no outside")]
mod linearizability;
mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cluster_support::node::{Node, Role};
use cluster_support::wait_for;
use duva_engine::key_slot;
use duva_server::cluster::session::{Position, Session};
use support::connection::Connection;
use support::resp;

const SHARDS: u16 = 16;

/// Three nodes with a replica of every shard each.
fn cluster(options: &[(&str, &str)]) -> Vec<Node> {
    cluster_of_cores("2", options)
}

fn cluster_of_cores(cores: &str, options: &[(&str, &str)]) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    for number in 0..3 {
        let role = nodes.first().map_or(Role::First, |first| Role::Joins(first.address()));
        let node = Node::new(&format!("node {number}"), role).option("cores", cores);
        let node = node.option("shards", &SHARDS.to_string());
        let mut node = options.iter().fold(node, |node, (name, value)| node.option(name, value));
        node.start();
        nodes.push(node);
    }
    for node in &nodes {
        wait_for("the whole cluster", || node.shards()?.is_whole(3));
    }
    nodes
}

/// A connection at a level.
fn at(node: &Node, level: &str) -> Connection {
    let mut connection = node.connect();
    let reply = connection.call(&["CLIENT", "CONSISTENCY", level]);
    assert!(reply.is_status("OK"), "{reply}");
    assert_eq!(connection.words("CLIENT CONSISTENCY").bytes(), Some(level.as_bytes()));
    connection
}

fn token(connection: &mut Connection) -> String {
    let reply = connection.words("CLIENT TOKEN");
    String::from_utf8(reply.bytes().unwrap_or_else(|| panic!("{reply}")).to_vec()).expect("digits")
}

fn take_token(connection: &mut Connection, token: &str) {
    let reply = connection.call(&["CLIENT", "TOKEN", token]);
    assert!(reply.is_status("OK"), "{reply}");
}

fn number(connection: &mut Connection, key: &str) -> u64 {
    let reply = connection.call(&["GET", key]);
    assert!(!reply.is_error(), "{reply}");
    let text = reply.bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    text.map_or(0, |text| text.parse().expect("a number"))
}

/// The cluster's id, and what a token says of each shard.
fn read_token(token: &str) -> ([u8; 16], BTreeMap<u16, Position>) {
    let byte =
        |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("digits"), 16).expect("digits");
    let bytes: Vec<u8> = token.as_bytes().chunks(2).map(byte).collect();
    let places = bytes[20..bytes.len() - 4].chunks(18).map(|place| {
        let number = |from: usize| u64::from_le_bytes(place[from..from + 8].try_into().expect("eight bytes"));
        (u16::from_le_bytes([place[0], place[1]]), Position { index: number(2), term: number(10) })
    });
    (bytes[2..18].try_into().expect("sixteen bytes"), places.collect())
}

fn shard_of(key: &str) -> u16 {
    key_slot(key.as_bytes()) / (16_384 / SHARDS)
}

/// Which node leads most slots, and which two others there are.
fn first_leader(nodes: &[Node]) -> (usize, [usize; 2]) {
    let led = wait_for("leaders", || nodes[0].shards()).led_slots();
    let slots = |node: &usize| led.get(&nodes[*node].address()).copied().unwrap_or(0);
    let leader = (0..3).max_by_key(slots).expect("three nodes");
    let mut others = (0..3).filter(|&node| node != leader);
    (leader, [others.next().expect("three nodes"), others.next().expect("three nodes")])
}

#[test]
fn a_connection_reads_its_own_writes_through_any_node() {
    let nodes = cluster(&[]);
    for (writer, node) in nodes.iter().enumerate() {
        for level in ["session", "sequential", "linearizable"] {
            let mut connection = at(node, level);
            for round in 0..200_u64 {
                let key = format!("own:{}", round % 40);
                assert!(connection.call(&["SET", &key, &round.to_string()]).is_status("OK"));
                assert_eq!(number(&mut connection, &key), round, "node {writer}, {level}");
            }
            // The same without waiting for replies.
            let mut bytes = Vec::new();
            for round in 0..300_u64 {
                let key = format!("own:{}", round % 7);
                resp::encode_request(&["SET", &key, &round.to_string()], &mut bytes);
                resp::encode_request(&["GET", &key], &mut bytes);
                resp::encode_request(&["GET", &key], &mut bytes);
            }
            let replies = connection.exchange(&bytes, 900).expect("a reply each");
            for (round, replies) in replies.chunks(3).enumerate() {
                for reply in &replies[1..] {
                    assert_eq!(reply.bytes(), Some(round.to_string().as_bytes()), "node {writer}, {level}");
                }
            }
        }
    }
}

#[test]
fn a_token_carries_what_was_seen_to_another_node() {
    let nodes = cluster(&[]);
    let mut last_token = String::new();
    for round in 1..200_u64 {
        let key = format!("carried:{}", round % 5);
        let mut writer = at(&nodes[round as usize % 3], "session");
        assert!(writer.call(&["SET", &key, &round.to_string()]).is_status("OK"));
        let token = token(&mut writer);
        let mut reader = at(&nodes[(round as usize + 1) % 3], "session");
        take_token(&mut reader, &token);
        assert_eq!(number(&mut reader, &key), round);
        // An earlier token takes nothing back.
        if !last_token.is_empty() {
            take_token(&mut reader, &last_token);
        }
        assert_eq!(number(&mut reader, &key), round);
        last_token = token;
    }
}

#[test]
fn reads_never_go_back_when_a_client_moves_with_its_token() {
    let nodes = cluster(&[]);
    let is_over = AtomicBool::new(false);
    // The leader's node has something to be seen, however late the writer begins.
    assert!(!nodes[0].connect().words("INCR counted").is_error());
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut connection = nodes[0].connect();
            while !is_over.load(Ordering::Relaxed) {
                assert!(!connection.words("INCR counted").is_error());
            }
        });
        let mut last = 0;
        let mut carried: Option<String> = None;
        for round in 0..300 {
            let mut reader = at(&nodes[round % 3], "session");
            if let Some(token) = &carried {
                take_token(&mut reader, token);
            }
            for _ in 0..3 {
                let seen = number(&mut reader, "counted");
                assert!(seen >= last, "{seen} after {last} in round {round}");
                last = seen;
            }
            carried = Some(token(&mut reader));
        }
        is_over.store(true, Ordering::Relaxed);
        writer.join().expect("it wrote");
        assert!(last > 0, "something was written and seen");
    });
}

#[test]
fn a_sequential_connection_sees_no_effect_before_its_cause() {
    let nodes = cluster(&[]);
    let (cause, effect) = ("cause", "effect");
    assert_ne!(shard_of(cause), shard_of(effect));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut connection = nodes[1].connect();
            let mut round = 0_u64;
            while !is_over.load(Ordering::Relaxed) {
                round += 1;
                for key in [cause, effect] {
                    assert!(connection.call(&["SET", key, &round.to_string()]).is_status("OK"));
                }
            }
        });
        let readers: Vec<_> = nodes
            .iter()
            .map(|node| {
                scope.spawn(|| {
                    let mut connection = at(node, "sequential");
                    let mut bytes = Vec::new();
                    let (mut last, mut seen_last) = (0, 0);
                    for key in [effect, cause] {
                        resp::encode_request(&["GET", key], &mut bytes);
                    }
                    for _ in 0..300 {
                        let replies = connection.exchange(&bytes, 2).expect("two replies");
                        let value = |reply: &resp::Reply| {
                            let text = String::from_utf8_lossy(reply.bytes().unwrap_or(b"0")).into_owned();
                            text.parse::<u64>().unwrap_or_else(|_| panic!("{reply}"))
                        };
                        let (seen, caused) = (value(&replies[0]), value(&replies[1]));
                        assert!(caused >= seen, "effect {seen} was seen before cause {caused}");
                        assert!(seen >= last && caused >= seen_last, "neither goes back");
                        (last, seen_last) = (seen, caused);
                    }
                })
            })
            .collect();
        let results: Vec<_> = readers.into_iter().map(|reader| reader.join()).collect();
        is_over.store(true, Ordering::Relaxed);
        writer.join().expect("it wrote");
        results.into_iter().for_each(|result| result.expect("nothing was seen out of order"));
    });
}

#[test]
fn a_node_that_is_left_alone_still_serves_what_it_has() {
    let nodes = cluster(&[("session-wait", "300")]);
    let (leader, [follower, third]) = first_leader(&nodes);
    let mut writer = at(&nodes[leader], "session");
    let keys: Vec<String> = (0..8).map(|number| format!("left:{number}")).collect();
    for key in &keys {
        assert!(writer.call(&["SET", key, "1"]).is_status("OK"));
    }
    let (cluster, places) = read_token(&token(&mut writer));
    for key in &keys {
        // A read waits for what never comes only where there is a replica that votes.
        let Position { index, term } = places[&shard_of(key)];
        let mut future = Session::default();
        future.observe(shard_of(key), Position { index: index + 1_000_000, term });
        wait_for("a replica that votes", || {
            let mut reader = at(&nodes[follower], "session");
            take_token(&mut reader, &future.export(&cluster));
            let began = Instant::now();
            assert_eq!(number(&mut reader, key), 1);
            if began.elapsed() >= Duration::from_millis(300) {
                Ok(())
            } else {
                Err("it did not wait".to_owned())
            }
        });
    }
    let mut stale = at(&nodes[follower], "stale");
    for key in &keys {
        wait_for("the replica", || match number(&mut stale, key) {
            1 => Ok(()),
            other => Err(format!("{key} is {other}")),
        });
    }
    let mut session = at(&nodes[follower], "session");
    take_token(&mut session, &token(&mut writer));
    nodes[leader].pause();
    nodes[third].pause();
    for key in &keys {
        assert_eq!(number(&mut stale, key), 1);
        assert_eq!(number(&mut session, key), 1);
    }
    // A read for which a leader is needed is not served from a replica: this node may lead no more than a third.
    let mut linearizable = nodes[follower].connect();
    for key in &keys {
        linearizable.send_request(&["GET", key]).expect("it is there");
    }
    let replies: Vec<_> = keys.iter().map(|_| linearizable.receive().expect("a reply each")).collect();
    assert!(replies.iter().all(|reply| reply.is_error() || reply.bytes() == Some(b"1")));
    let is_down = |reply: &resp::Reply| reply.bytes().is_some_and(|text| text.starts_with(b"CLUSTERDOWN"));
    assert!(replies.iter().any(is_down), "most keys are led elsewhere");
    nodes[leader].resume();
    nodes[third].resume();
}

#[test]
fn a_session_read_waits_until_its_replica_has_what_was_seen() {
    const AHEAD: u64 = 20;
    let nodes = cluster(&[("session-wait", "5000")]);
    let key = "awaited";
    for node in &nodes {
        // Until this node's replica votes, the leader serves at once; and leaders may change between the two tokens, so that
        // the floor is of no entry. Once a read has waited, all do.
        let mut waited = 0;
        wait_for("reads that wait", || {
            let mut writer = at(&nodes[0], "session");
            assert!(writer.call(&["SET", key, "0"]).is_status("OK"));
            let (cluster, places) = read_token(&token(&mut writer));
            let Position { index, term } = places[&shard_of(key)];
            let mut future = Session::default();
            future.observe(shard_of(key), Position { index: index + AHEAD, term });
            let mut reader = at(node, "session");
            take_token(&mut reader, &future.export(&cluster));
            reader.send_request(&["GET", key]).expect("it is there");
            for value in 1..=AHEAD {
                assert!(writer.call(&["SET", key, &value.to_string()]).is_status("OK"));
            }
            let seen = reader.receive().expect("a reply");
            let (_, places) = read_token(&token(&mut writer));
            if places[&shard_of(key)] != (Position { index: index + AHEAD, term }) {
                return Err("something else is in the log as well".to_owned());
            }
            let has_waited = seen.bytes() == Some(AHEAD.to_string().as_bytes());
            assert!(has_waited || waited == 0, "{seen}: it was served too early");
            waited += u32::from(has_waited);
            if waited == 5 { Ok(()) } else { Err(format!("{waited} have waited, the last saw {seen}")) }
        });
    }
}

#[test]
fn a_session_read_that_has_waited_long_enough_goes_to_the_leader() {
    const WAIT: Duration = Duration::from_millis(300);
    let nodes = cluster(&[("session-wait", "300")]);
    let mut writer = at(&nodes[0], "session");
    assert!(writer.words("SET late 7").is_status("OK"));
    let (cluster, places) = read_token(&token(&mut writer));
    let Position { index, term } = places[&shard_of("late")];
    let mut future = Session::default();
    future.observe(shard_of("late"), Position { index: index + 1_000_000, term });
    for node in &nodes {
        // Until this node's replica votes there is nothing to wait for.
        wait_for("a read that waits", || {
            let mut reader = at(node, "session");
            take_token(&mut reader, &future.export(&cluster));
            let began = Instant::now();
            // Two in a pipeline: the second one waits for the first, and then for itself.
            let mut bytes = Vec::new();
            for _ in 0..2 {
                resp::encode_request(&["GET", "late"], &mut bytes);
            }
            let replies = reader.exchange(&bytes, 2).expect("two replies");
            assert!(replies.iter().all(|reply| reply.bytes() == Some(b"7")), "{replies:?}");
            if began.elapsed() >= WAIT { Ok(()) } else { Err("it did not wait".to_owned()) }
        });
    }
}

#[test]
fn a_flush_is_seen_by_its_session_at_once() {
    let nodes = cluster_of_cores("1", &[]);
    for (round, node) in nodes.iter().enumerate() {
        let mut connection = at(node, "session");
        for number in 0..50 {
            assert!(connection.call(&["SET", &format!("flushed:{number}"), "1"]).is_status("OK"));
        }
        let reply = connection.words("FLUSHALL");
        assert!(reply.is_status("OK"), "{reply}");
        for number in 0..50 {
            let reply = connection.call(&["GET", &format!("flushed:{number}")]);
            assert!(reply.is_null(), "round {round}: {reply}");
        }
    }
}

#[test]
fn with_redirection_read_only_connections_read_from_replicas() {
    let nodes = cluster(&[("cluster-routing", "redirect")]);
    let is_moved = |reply: &resp::Reply| reply.bytes().is_some_and(|text| text.starts_with(b"MOVED"));
    let mut served = 0;
    for key in (0..30).map(|number| format!("moved:{number}")) {
        let mut owner = None;
        for node in &nodes {
            let reply = node.connect().call(&["SET", &key, "1"]);
            if reply.is_status("OK") {
                owner = Some(node.address());
            }
        }
        // While leaders move, every node may name another one.
        let Some(owner) = owner else { continue };
        for node in nodes.iter().filter(|node| node.address() != owner) {
            let mut connection = node.connect();
            if !is_moved(&connection.call(&["GET", &key])) {
                continue;
            }
            assert!(connection.words("READONLY").is_status("OK"));
            wait_for("the replica", || match connection.call(&["GET", &key]) {
                reply if reply.bytes() == Some(b"1") => Ok(()),
                reply if reply.is_null() => Err("it is not there yet".to_owned()),
                reply => panic!("{reply}"),
            });
            assert!(connection.words("READWRITE").is_status("OK"));
            served += 1;
        }
    }
    assert!(served > 0, "some key was led elsewhere");
}

#[test]
fn tokens_of_others_are_refused() {
    let nodes = cluster(&[]);
    let mut connection = nodes[0].connect();
    assert_eq!(connection.words("CLIENT CONSISTENCY").bytes(), Some(&b"linearizable"[..]));
    let token = token(&mut connection);
    take_token(&mut connection, &token);
    let foreign = Session::default().export(b"not this cluster");
    let refused = |reply: resp::Reply, text: &str| {
        assert!(reply.is_error(), "{reply}");
        assert_eq!(reply.bytes(), Some(text.as_bytes()));
    };
    let reply = connection.call(&["CLIENT", "TOKEN", &foreign]);
    refused(reply, "ERR the token is of another cluster");
    let reply = connection.call(&["CLIENT", "TOKEN", &token[..token.len() - 2]]);
    refused(reply, "ERR the token cannot be read: the checksum is wrong");
    let reply = connection.words("CLIENT CONSISTENCY eventual");
    refused(reply, "ERR The level must be LINEARIZABLE, SEQUENTIAL, SESSION or STALE");
}

#[test]
fn a_server_alone_takes_every_level_and_has_no_tokens() {
    let mut node = Node::new("the node", Role::Alone).option("consistency", "session");
    node.start();
    let mut connection = node.connect();
    assert_eq!(connection.words("CLIENT CONSISTENCY").bytes(), Some(&b"session"[..]));
    for level in ["linearizable", "sequential", "session", "stale"] {
        let mut connection = at(&node, level);
        assert!(connection.words("SET alone 1").is_status("OK"));
        assert_eq!(number(&mut connection, "alone"), 1);
        assert!(connection.words("CLIENT TOKEN").is_error());
    }
    assert!(connection.words("CLIENT CONSISTENCY stale").is_status("OK"));
    assert!(connection.words("RESET").is_status("RESET"));
    assert_eq!(connection.words("CLIENT CONSISTENCY").bytes(), Some(&b"session"[..]));
}
