//! What a node of a cluster answers about it, given a view of the cluster, on one core and on several.

mod support;

#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "turns/machine.rs"]
mod machine;

use duva_engine::key_slot;
use duva_server::cluster::{
    meta::{MetaCommand, MetaState, NodeInfo},
    view::{ClusterView, node_id_text},
};
use machine::{Bench, Client};

fn node(number: u8) -> NodeInfo {
    NodeInfo { id: [number; 16], host: format!("10.0.0.{number}"), port: 7000, peer_port: 17000, level: 1 }
}

/// Node 1 of two, which leads everything.
fn bench(cores: u16) -> (Bench, Client) {
    let mut state = MetaState::genesis([9; 16], 16, 77, 3, node(1));
    state.apply(&MetaCommand::AddNode(node(2)));
    let mut view = ClusterView::new(state, 1);
    view.leaders.fill(Some((1, 1)));
    let mut bench = Bench::with_cluster(cores, view);
    let client = bench.connect();
    (bench, client)
}

/// A reply as it came, without its last line break.
fn ask(bench: &mut Bench, client: Client, request: &str) -> String {
    let text = String::from_utf8(bench.call(client, request).encode()).expect("text");
    text.strip_suffix("\r\n").expect("a whole reply").to_owned()
}

fn answers(bench: &mut Bench, client: Client, cases: &[(&str, String)]) {
    for (request, expected) in cases {
        assert_eq!(ask(bench, client, request), *expected, "{request}");
    }
}

#[test]
fn the_view_is_what_clients_see() {
    for cores in [1, 2] {
        let (mut bench, client) = bench(cores);
        let text = |bench: &mut Bench, request: &str| ask(bench, client, request);
        for request in ["CLUSTER MYID", "CLUSTER MYSHARDID"] {
            assert!(text(&mut bench, request).contains(&node_id_text(&[1; 16])), "{request}");
        }
        let slots = text(&mut bench, "CLUSTER SLOTS");
        assert!(
            slots.contains("16383") && slots.contains("10.0.0.1") && !slots.contains("10.0.0.2"),
            "{slots}"
        );
        assert!(text(&mut bench, "CLUSTER SHARDS").contains("replication-offset"));
        let nodes = text(&mut bench, "CLUSTER NODES");
        assert!(nodes.contains("10.0.0.1:7000@17000 myself,master - 0 0 2 connected 0-16383"), "{nodes}");
        assert!(text(&mut bench, "CLUSTER INFO").contains("cluster_state:ok"));
        assert!(text(&mut bench, "INFO cluster").contains("cluster_enabled:1"));
        assert!(text(&mut bench, "INFO server").contains("redis_mode:cluster"));
        assert!(text(&mut bench, "HELLO 3").contains("cluster"));
        for name in ["REPLICAS", "SLAVES"] {
            let request = format!("CLUSTER {name} abc");
            assert!(text(&mut bench, &request).starts_with("-ERR Unknown node abc"), "{request}");
        }
    }
}

#[test]
fn the_keys_of_a_slot_are_found_whichever_core_has_them() {
    for cores in [1, 2, 4] {
        let (mut bench, client) = bench(cores);
        for slot_name in ["a", "b", "c", "d", "e"] {
            let slot = key_slot(slot_name.as_bytes());
            answers(&mut bench, client, &[(&format!("CLUSTER COUNTKEYSINSLOT {slot}"), ":0".to_owned())]);
            for number in 0..20 {
                assert!(bench.call(client, &format!("SET {{{slot_name}}}{number} v")).is_status("OK"));
            }
            // Another slot of the same shard, and another database.
            bench.call(client, "SELECT 1");
            bench.call(client, &format!("SET {{{slot_name}}}elsewhere v"));
            bench.call(client, "SELECT 0");
            answers(
                &mut bench,
                client,
                &[
                    (&format!("CLUSTER COUNTKEYSINSLOT {slot}"), ":20".to_owned()),
                    (&format!("CLUSTER GETKEYSINSLOT {slot} 0"), "*0".to_owned()),
                ],
            );
            let some = ask(&mut bench, client, &format!("CLUSTER GETKEYSINSLOT {slot} 7"));
            assert_eq!(some.matches(&format!("{{{slot_name}}}")).count(), 7, "{some}");
            let all = ask(&mut bench, client, &format!("CLUSTER GETKEYSINSLOT {slot} 9223372036854775807"));
            for number in 0..20 {
                assert!(all.contains(&format!("{{{slot_name}}}{number}")), "{all}");
            }
            assert!(!all.contains("elsewhere"), "{all}");
        }
    }
}

#[test]
fn slots_that_are_none_are_refused_as_in_redis() {
    let (mut bench, client) = bench(2);
    let not_integer = "-ERR value is not an integer or out of range".to_owned();
    let invalid = "-ERR Invalid slot or number of keys".to_owned();
    answers(
        &mut bench,
        client,
        &[
            ("CLUSTER COUNTKEYSINSLOT x", not_integer.clone()),
            ("CLUSTER COUNTKEYSINSLOT 16384", "-ERR Invalid slot".to_owned()),
            ("CLUSTER COUNTKEYSINSLOT -1", "-ERR Invalid slot".to_owned()),
            ("CLUSTER GETKEYSINSLOT 1 x", not_integer),
            ("CLUSTER GETKEYSINSLOT 1 -1", invalid.clone()),
            ("CLUSTER GETKEYSINSLOT 17000 1", invalid),
        ],
    );
}

#[test]
fn read_modes_are_the_connections_own() {
    let (mut bench, client) = bench(1);
    let other = bench.connect();
    let flags = |bench: &mut Bench, client: Client| {
        let text = ask(bench, client, "CLIENT INFO");
        text.split_once("flags=").unwrap().1.split(' ').next().unwrap().to_owned()
    };
    assert_eq!(flags(&mut bench, client), "N");
    assert!(bench.call(client, "READONLY").is_status("OK"));
    assert_eq!((flags(&mut bench, client), flags(&mut bench, other)), ("r".to_owned(), "N".to_owned()));
    assert!(bench.call(client, "READWRITE").is_status("OK"));
    assert_eq!(flags(&mut bench, client), "N");
    bench.call(client, "READONLY");
    bench.call(client, "RESET");
    assert_eq!(flags(&mut bench, client), "N");
    assert!(bench.call(client, "ASKING").is_status("OK"));
}
