//! CLIENT LIST and CLIENT INFO: which clients, in which order, and what a client sees of its own request.

mod support;

#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "turns/machine.rs"]
mod machine;

use duva_server::config::AppendFsync;
use machine::{Bench, Client};

fn ask(bench: &mut Bench, client: Client, request: &str) -> String {
    String::from_utf8(bench.call(client, request).encode()).expect("text")
}

/// The value of `field` in every line.
fn values<'a>(text: &'a str, field: &str) -> Vec<&'a str> {
    let words = text.split(['\n', ' ']);
    words.filter_map(|word| word.strip_prefix(field)?.strip_prefix('=')).collect()
}

#[test]
fn clients_are_listed_in_the_order_in_which_their_numbers_were_given() {
    for cores in [1, 2, 3] {
        let mut bench = Bench::new(cores, AppendFsync::EverySecond);
        let clients: Vec<Client> = (0..4).map(|_| bench.connect()).collect();
        let ids: Vec<String> = clients
            .iter()
            .map(|&client| ask(&mut bench, client, "CLIENT ID")[1..].trim_end().to_owned())
            .collect();
        let [a, b, c, d] = [0, 1, 2, 3].map(|number| ids[number].as_str());
        let text = ask(&mut bench, clients[1], &format!("CLIENT LIST ID {c} {a} 999999 {d} {c}"));
        assert_eq!(values(&text, "id"), [c, a, d, c], "{cores} cores: {text}");
        let text = ask(&mut bench, clients[1], "CLIENT LIST");
        assert_eq!(values(&text, "id"), [a, b, c, d], "{cores} cores: {text}");
        let text = ask(&mut bench, clients[1], "CLIENT LIST TYPE normal");
        assert_eq!(values(&text, "id"), [a, b, c, d], "{cores} cores: {text}");
    }
}

#[test]
fn a_client_sees_its_own_request_in_its_query_buffer() {
    for cores in [1, 2] {
        let mut bench = Bench::new(cores, AppendFsync::EverySecond);
        let (client, _other) = (bench.connect(), bench.connect());
        let text = ask(&mut bench, client, "CLIENT INFO");
        assert_eq!(values(&text, "qbuf"), ["26"], "{text}");
        let text = ask(&mut bench, client, "CLIENT LIST");
        assert_eq!(values(&text, "qbuf"), ["26", "0"], "{text}");
        let text = ask(&mut bench, client, "CLIENT LIST TYPE NORMAL");
        assert_eq!(values(&text, "qbuf"), ["48", "0"], "{text}");
    }
}
