//! Requests that are malformed, never finished, or only announced.

use crate::support::connection::{self, Connection};
use crate::support::process::{Server, ServerOptions};
use crate::support::random::Random;
use crate::support::resp;
use crate::{Calm, raise_descriptors};

/// A connection that holds half a request may cost the server this much.
const HELD_BYTES_MAX: u64 = 24 << 10;

#[test]
fn ten_thousand_clients_hold_half_a_command_open() {
    const CLIENTS: usize = 10_000;
    raise_descriptors(CLIENTS as u64 + 1000);
    let server = ServerOptions::duva(2).option("maxclients", &["11000"]).start();
    let mut calm = Calm::before(&server);
    assert!(calm.client.words("SET key value").is_status("OK"));
    let mut held: Vec<Connection> = Vec::with_capacity(CLIENTS);
    for number in 0..CLIENTS {
        let mut client = server.connect();
        // Torn in the count, in a length, in a bulk.
        let half: &[u8] =
            [b"*2\r\n$3\r\nGET\r\n$3\r\nke".as_slice(), b"*2\r\n$3\r\nGET\r\n$", b"*", b"GET k"][number % 4];
        client.send(half).expect("the server takes half a command");
        held.push(client);
        if number % 1000 == 0 {
            calm.works(20);
        }
    }
    calm.works(500);
    let grown = calm.grown_bytes();
    assert!(grown <= CLIENTS as u64 * HELD_BYTES_MAX, "{grown} bytes for {CLIENTS} half commands");
    for (number, client) in held.iter_mut().enumerate() {
        let rest: &[u8] =
            [b"y\r\n".as_slice(), b"3\r\nkey\r\n", b"2\r\n$3\r\nGET\r\n$3\r\nkey\r\n", b"ey\r\n"][number % 4];
        let reply = client.exchange(rest, 1).expect("the other half completes it");
        assert_eq!(reply[0].bytes(), Some(b"value".as_slice()), "client {number}");
    }
    drop(held);
    assert_eq!(calm.client.words("DEL key").integer(), Some(1));
    calm.returns();
}

#[test]
fn an_announced_bulk_costs_nothing_until_it_arrives() {
    const CLIENTS: usize = 200;
    const GROWN_BYTES_MAX: u64 = 48 << 20;
    let server = ServerOptions::duva(2).start();
    let mut calm = Calm::before(&server);
    let mut held: Vec<Connection> = (0..CLIENTS).map(|_| server.connect()).collect();
    for (number, client) in held.iter_mut().enumerate() {
        // 512 MiB of value, of key, of a command's name, and a million arguments.
        let announced: &[u8] = [
            b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$536870912\r\n".as_slice(),
            b"*2\r\n$3\r\nGET\r\n$536870912\r\n",
            b"*1\r\n$536870912\r\n",
            b"*1048576\r\n$4\r\nMSET\r\n",
        ][number % 4];
        client.send(announced).expect("the server takes the announcement");
        client.send(&[b'x'; 1000]).expect("the server takes some of the bulk");
    }
    calm.works(300);
    let grown = calm.grown_bytes();
    assert!(grown <= GROWN_BYTES_MAX, "{grown} bytes for {CLIENTS} announcements");
    drop(held);
    calm.returns();
}

#[test]
fn the_largest_bulks_and_longest_commands_arrive_whole() {
    const BULK_BYTES: usize = 96 << 20;
    const PAIRS: usize = 200_000;
    let server = ServerOptions::duva(2).start();
    let calm = Calm::before(&server);
    let mut client = server.connect();
    let bulk: Vec<u8> = (0..BULK_BYTES).map(|index| (index / 251) as u8).collect();
    let mut request = Vec::new();
    resp::encode_request(&[b"SET".as_slice(), b"bulk", &bulk], &mut request);
    assert!(client.exchange(&request, 1).expect("the server takes the bulk")[0].is_status("OK"));
    let reply = client.words("GET bulk");
    assert!(reply.bytes() == Some(&bulk[..]), "the bulk came back otherwise");
    assert_eq!(client.words("DEL bulk").integer(), Some(1));

    let mut words = vec!["MSET".to_owned()];
    words.extend((0..PAIRS).flat_map(|number| [format!("key:{number}"), number.to_string()]));
    request.clear();
    resp::encode_request(&words, &mut request);
    assert!(client.exchange(&request, 1).expect("the server takes the command")[0].is_status("OK"));
    let mut words = vec!["MGET".to_owned()];
    words.extend((0..PAIRS).map(|number| format!("key:{number}")));
    request.clear();
    resp::encode_request(&words, &mut request);
    let reply = client.exchange(&request, 1).expect("the server takes the command");
    let values = reply[0].items().expect("MGET is an array");
    assert_eq!(values.len(), PAIRS);
    for (number, value) in values.iter().enumerate() {
        assert_eq!(value.bytes(), Some(number.to_string().as_bytes()));
    }
    assert!(client.words("FLUSHALL").is_status("OK"));
    drop(client);
    calm.returns();
}

#[test]
fn random_bytes_break_nothing() {
    const CLIENTS: usize = 400;
    let server = ServerOptions::duva(2).tcp().start();
    let mut calm = Calm::before(&server);
    let mut random = Random::new(1);
    for number in 0..CLIENTS {
        let mut client = if number % 2 == 0 { server.connect() } else { server.connect_tcp() };
        let length = 1 + random.below(6000);
        let bytes = match number % 3 {
            0 => random.bytes(length),
            1 => from_alphabet(&mut random, length),
            _ => mutated(&mut random),
        };
        // The server may close before it has taken everything, and owes no reply to what it understood.
        match client.send(&bytes) {
            Err(error) if !connection::is_end(&error) => panic!("client {number}: {error}"),
            _ => {}
        }
        if number % 50 == 0 {
            calm.works(5);
        }
    }
    // Mutated commands may have hit anything but what only an administrator says.
    assert!(calm.client.words("FLUSHALL").is_status("OK"));
    calm.returns();
}

/// Bytes that a parser cares about.
fn from_alphabet(random: &mut Random, length: usize) -> Vec<u8> {
    (0..length).map(|_| random.pick(b"*$\r\n\r\n0123456789-+ \"'\\xGESTgest")).collect()
}

/// Good requests with a few bytes changed, removed or doubled.
fn mutated(random: &mut Random) -> Vec<u8> {
    let (mut bytes, _) = stream();
    for _ in 0..1 + random.below(8) {
        let position = random.below(bytes.len());
        match random.below(3) {
            0 => bytes[position] = random.bits() as u8,
            1 => drop(bytes.remove(position)),
            _ => bytes.insert(position, bytes[position]),
        }
    }
    bytes
}

/// Requests of every shape, and where each ends.
fn stream() -> (Vec<u8>, Vec<usize>) {
    let large = "v".repeat(200);
    let requests: [&[&str]; 8] = [
        &["PING"],
        &["SET", "key", &large],
        &["MSET", "a", "1", "b", "2", "c", "3", "d", "4", "e", "5"],
        &["MGET", "a", "b", "c", "d", "e", "missing"],
        &["GET", "key"],
        &["RENAME", "a", "b"],
        &["ECHO", ""],
        &["EXISTS", "a", "b", "c"],
    ];
    let (mut bytes, mut ends) = (Vec::new(), Vec::new());
    for request in requests {
        resp::encode_request(request, &mut bytes);
        ends.push(bytes.len());
    }
    bytes.extend_from_slice(b"SET inline \"quoted value\"\r\n");
    ends.push(bytes.len());
    bytes.extend_from_slice(b"GET inline\r\n");
    ends.push(bytes.len());
    (bytes, ends)
}

#[test]
fn clients_disconnect_at_every_point_of_a_stream() {
    let server = ServerOptions::duva(2).tcp().start();
    let mut calm = Calm::before(&server);
    let (bytes, _) = stream();
    for length in 0..=bytes.len() {
        let mut client = connect(&server, length);
        client.send(&bytes[..length]).expect("the server takes the stream");
        if length % 3 == 0 {
            client.shut_down();
        }
        drop(client);
        if length % 100 == 0 {
            calm.works(2);
        }
    }
    assert!(calm.client.words("FLUSHALL").is_status("OK"));
    calm.returns();
}

#[test]
fn whole_requests_are_answered_although_the_client_has_finished_sending() {
    let server = ServerOptions::duva(2).tcp().start();
    let calm = Calm::before(&server);
    let (bytes, ends) = stream();
    for length in 0..=bytes.len() {
        let mut client = connect(&server, length);
        client.send(&bytes[..length]).expect("the server takes the stream");
        client.finish_sending();
        for request in 0..ends.iter().filter(|end| **end <= length).count() {
            let reply =
                client.receive().unwrap_or_else(|error| panic!("reply {request} of {length} bytes: {error}"));
            assert!(!reply.is_error(), "reply {request} of {length} bytes: {reply}");
        }
        client.wait_for_end().unwrap_or_else(|error| panic!("after {length} bytes: {error}"));
    }
    let mut client = server.connect();
    assert!(client.words("FLUSHALL").is_status("OK"));
    drop(client);
    calm.returns();
}

fn connect(server: &Server, number: usize) -> Connection {
    if number.is_multiple_of(2) { server.connect() } else { server.connect_tcp() }
}
