//! Clients are told of changes of leaders and nodes: what they may ask for and send meanwhile, and when they are told.

mod support;

#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "turns/machine.rs"]
mod machine;

use std::sync::Arc;

use duva_server::{
    cluster::meta::{MetaState, NodeInfo},
    core::cluster_shared::{ClusterShared, ShardStatus},
};
use machine::{Bench, Client};
use support::resp::Reply;

const CHANNEL: &str = "__duva__:topology";

const SHARDS: u16 = 16;

fn node(number: u8) -> NodeInfo {
    NodeInfo { id: [number; 16], host: format!("10.0.0.{number}"), port: 7000, peer_port: 17000, level: 1 }
}

/// Node 1 of two, of which it leads everything.
fn bench(cores: u16) -> (Bench, Arc<ClusterShared>) {
    let mut state = MetaState::genesis([9; 16], SHARDS, 77, 3, node(1));
    state.nodes.insert(2, node(2));
    let (mut bench, cluster) = Bench::with_shared_cluster(cores, state, 1);
    lead(&mut bench, &cluster, 0..SHARDS, (1, 1));
    (bench, cluster)
}

/// From now on this node leads those shards in this term, as far as is known.
fn lead(bench: &mut Bench, cluster: &ClusterShared, shards: std::ops::Range<u16>, leader: (u32, u64)) {
    cluster.update(shards.map(|shard| (shard, ShardStatus { leader: Some(leader), voters: Vec::new() })));
    bench.wake_all();
    bench.settle();
}

/// A reply as it came, without its last line break.
fn text(reply: &Reply) -> String {
    let text = String::from_utf8(reply.encode()).expect("text");
    text.strip_suffix("\r\n").expect("a whole reply").replace("\r\n", " ")
}

fn ask(bench: &mut Bench, client: Client, request: &str) -> String {
    text(&bench.call(client, request))
}

fn connect(bench: &mut Bench, greeting: &str) -> Client {
    let client = bench.connect();
    if !greeting.is_empty() {
        bench.call(client, greeting);
    }
    client
}

#[test]
fn a_subscriber_in_resp2_may_send_what_redis_lets_it() {
    let (mut bench, _) = bench(1);
    let client = bench.connect();
    let confirmed = |kind: &str, count| format!("*3 ${} {kind} $17 {CHANNEL} :{count}", kind.len());
    assert_eq!(ask(&mut bench, client, "UNSUBSCRIBE"), "*3 $11 unsubscribe $-1 :0");
    assert_eq!(ask(&mut bench, client, "SUBSCRIBE news"), format!("-ERR There is no channel but {CHANNEL}"));
    assert_eq!(ask(&mut bench, client, &format!("SUBSCRIBE {CHANNEL} news")).as_bytes()[0], b'-');
    assert_eq!(ask(&mut bench, client, "GET a"), "$-1", "it has not subscribed");
    assert_eq!(ask(&mut bench, client, &format!("SUBSCRIBE {CHANNEL}")), confirmed("subscribe", 1));
    for name in ["get", "client|info", "hello"] {
        let request = name.replace('|', " ") + if name == "get" { " a" } else { "" };
        let expected = format!(
            "-ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in \
             this context"
        );
        assert_eq!(ask(&mut bench, client, &request), expected);
    }
    assert_eq!(ask(&mut bench, client, "PING"), "*2 $4 pong $0 ");
    assert_eq!(ask(&mut bench, client, "PING hi"), "*2 $4 pong $2 hi");
    let other = bench.connect();
    assert!(ask(&mut bench, other, "CLIENT LIST TYPE pubsub").contains(" flags=P db=0 sub=1 "));
    assert_eq!(ask(&mut bench, client, "UNSUBSCRIBE news"), "*3 $11 unsubscribe $4 news :1");
    assert_eq!(ask(&mut bench, client, "UNSUBSCRIBE"), confirmed("unsubscribe", 0));
    assert_eq!(ask(&mut bench, client, "PING"), "+PONG");
    ask(&mut bench, client, &format!("SUBSCRIBE {CHANNEL}"));
    assert_eq!(ask(&mut bench, client, "RESET"), "+RESET");
    assert_eq!(ask(&mut bench, client, "GET a"), "$-1");
    // In RESP3 messages are told from replies.
    let client = connect(&mut bench, "HELLO 3");
    assert!(ask(&mut bench, client, &format!("SUBSCRIBE {CHANNEL}")).starts_with(">3 $9 subscribe"));
    assert_eq!(ask(&mut bench, client, "GET a"), "_");
    assert_eq!(ask(&mut bench, client, "PING"), "+PONG");
}

#[test]
fn pushes_need_resp3_and_a_cluster() {
    let (mut bench, _) = bench(1);
    let client = bench.connect();
    assert!(ask(&mut bench, client, "CLIENT TOPOLOGY ON").starts_with("-ERR Pushes need RESP3"));
    assert_eq!(ask(&mut bench, client, "CLIENT TOPOLOGY OFF"), "+OK");
    assert_eq!(ask(&mut bench, client, "CLIENT TOPOLOGY maybe"), "-ERR syntax error");
    let mut alone = Bench::new(1, duva_server::config::AppendFsync::EverySecond);
    let client = connect(&mut alone, "HELLO 3");
    for request in ["CLIENT TOPOLOGY ON".to_owned(), format!("SUBSCRIBE {CHANNEL}")] {
        assert_eq!(ask(&mut alone, client, &request), "-ERR This instance has cluster support disabled");
    }
}

#[test]
fn everybody_who_wants_to_is_told_of_another_leader() {
    for cores in [1, 2] {
        let (mut bench, cluster) = bench(cores);
        let subscribers: Vec<Client> = (0..4).map(|_| bench.connect()).collect();
        let watchers: Vec<Client> = (0..4).map(|_| connect(&mut bench, "HELLO 3")).collect();
        let others = [bench.connect(), connect(&mut bench, "HELLO 3")];
        for &client in &subscribers {
            ask(&mut bench, client, &format!("SUBSCRIBE {CHANNEL}"));
        }
        for &client in &watchers {
            assert_eq!(ask(&mut bench, client, "CLIENT TOPOLOGY ON"), "+OK");
            // Messages are no replies.
            bench.send_words(client, "CLIENT REPLY OFF");
        }
        bench.settle();
        // Another term of the same leader is no news.
        lead(&mut bench, &cluster, 0..SHARDS, (1, 2));
        for &client in subscribers.iter().chain(&watchers) {
            assert_eq!(bench.replies(client), [], "{client:?}");
        }
        lead(&mut bench, &cluster, 0..8, (2, 3));
        let told = |lines: &str| lines.contains("10.0.0.2:7000@17000 master - 0 0 1 connected 0-8191");
        for &client in &subscribers {
            let replies = bench.replies(client);
            let [message] = &replies[..] else { panic!("{replies:?}") };
            let message = text(message);
            assert!(
                message.starts_with(&format!("*3 $7 message $17 {CHANNEL} $")) && told(&message),
                "{message}"
            );
            assert!(message.contains(" 1\n"), "the epoch comes first: {message}");
        }
        for &client in &watchers {
            let replies = bench.replies(client);
            let [push] = &replies[..] else { panic!("{replies:?}") };
            let push = text(push);
            assert!(push.starts_with(">3 $8 topology :1 $") && told(&push), "{push}");
        }
        for client in others {
            assert_eq!(bench.replies(client), []);
        }
    }
}

#[test]
fn what_changes_quickly_is_told_together() {
    let (mut bench, cluster) = bench(2);
    let clients: Vec<Client> = (0..2).map(|_| bench.connect()).collect();
    for &client in &clients {
        ask(&mut bench, client, &format!("SUBSCRIBE {CHANNEL}"));
    }
    lead(&mut bench, &cluster, 0..1, (2, 3));
    for &client in &clients {
        assert_eq!(bench.replies(client).len(), 1);
    }
    for shard in 1..SHARDS {
        lead(&mut bench, &cluster, shard..shard + 1, (2, 3));
        bench.pass_ms(1);
    }
    for &client in &clients {
        assert_eq!(bench.replies(client), [], "50 ms are not over");
    }
    bench.pass_ms(50);
    bench.wake_all();
    bench.settle();
    for &client in &clients {
        let replies = bench.replies(client);
        let [message] = &replies[..] else { panic!("{replies:?}") };
        assert!(text(message).contains("connected 0-16383"), "{message:?}");
    }
    bench.pass_ms(200);
    bench.wake_all();
    bench.settle();
    assert!(clients.iter().all(|&client| bench.replies(client).is_empty()));
}

#[test]
fn messages_do_not_pass_replies_that_are_awaited() {
    let (mut bench, cluster) = bench(2);
    let clients: Vec<Client> = (0..2).map(|_| connect(&mut bench, "HELLO 3")).collect();
    for &client in &clients {
        ask(&mut bench, client, "CLIENT TOPOLOGY ON");
        // Keys of both cores.
        for number in 0..40 {
            bench.send_words(client, &format!("SET key{number} {number}"));
            bench.send_words(client, &format!("GET key{number}"));
        }
    }
    lead(&mut bench, &cluster, 0..1, (2, 3));
    for &client in &clients {
        let mut replies = bench.replies(client);
        replies.retain(|reply| reply.kind() != b'>');
        assert_eq!(replies.len(), 80);
        for (number, pair) in replies.chunks(2).enumerate() {
            assert!(pair[0].is_status("OK"), "{}", pair[0]);
            assert_eq!(pair[1].bytes(), Some(number.to_string().as_bytes()));
        }
    }
}
