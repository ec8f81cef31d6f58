//! Too many connections: more than allowed, more than there are descriptors, more than one can look at.

use std::thread;

use crate::support::connection::Connection;
use crate::support::process::{Server, ServerOptions};
use crate::{Calm, info};

#[test]
fn a_flood_past_maxclients_is_refused_and_the_rest_served() {
    const CLIENTS_MAX: usize = 50;
    const FLOOD: usize = 200;
    let server = ServerOptions::duva(2).tcp().option("maxclients", &["50"]).start();
    let mut calm = Calm::before(&server);
    let refused_before = info(&mut calm.client, "rejected_connections");
    for _ in 0..3 {
        let mut served = Vec::new();
        let mut refused = 0;
        for number in 0..FLOOD {
            let mut client = if number % 2 == 0 { server.connect() } else { server.connect_tcp() };
            // A refused client is told so without asking.
            match client.try_call(&["PING"]) {
                Ok(reply) if reply.is_status("PONG") => served.push(client),
                Ok(reply) => {
                    assert_eq!(reply.bytes(), Some(b"ERR max number of clients reached".as_slice()));
                    client.wait_for_end().expect("a refused connection is closed");
                    refused += 1;
                }
                // Closed before the request was written: the refusal is lost with the connection.
                Err(error) => {
                    assert!(crate::support::connection::is_end(&error), "client {number}: {error}");
                    refused += 1;
                }
            }
        }
        assert_eq!(
            (served.len(), refused),
            (CLIENTS_MAX - 1, FLOOD - (CLIENTS_MAX - 1)),
            "the watcher is one more"
        );
        calm.works(100);
        for client in &mut served {
            assert!(client.words("PING").is_status("PONG"));
        }
        drop(served);
        server.wait_until("room for new clients", || info(&mut calm.client, "connected_clients") == 1);
    }
    let refused = info(&mut calm.client, "rejected_connections") - refused_before;
    assert_eq!(refused, 3 * (FLOOD - CLIENTS_MAX + 1) as u64);
    calm.returns();
}

#[test]
fn a_refused_client_reads_why() {
    let server = ServerOptions::duva(2).tcp().option("maxclients", &["1"]).start();
    let calm = Calm::before(&server);
    for number in 0..20 {
        // It only listens, so nothing it sends can race with the refusal.
        let mut client = if number % 2 == 0 { server.connect() } else { server.connect_tcp() };
        let reply = client.receive().expect("a refusal");
        assert_eq!(reply.bytes(), Some(b"ERR max number of clients reached".as_slice()));
        client.wait_for_end().expect("a refused connection is closed");
    }
    calm.returns();
}

#[test]
fn maxclients_changes_while_clients_are_connected() {
    let server = ServerOptions::duva(2).option("maxclients", &["20"]).start();
    let mut calm = Calm::before(&server);
    let mut held: Vec<Connection> = (0..15).map(|_| server.connect()).collect();
    for client in &mut held {
        assert!(client.words("PING").is_status("PONG"));
    }
    assert!(calm.client.words("CONFIG SET maxclients 10").is_status("OK"));
    let refusal = server.connect().receive().expect("a refusal");
    assert_eq!(refusal.bytes(), Some(b"ERR max number of clients reached".as_slice()));
    for client in &mut held {
        assert!(client.words("PING").is_status("PONG"), "those inside stay");
    }
    assert!(calm.client.words("CONFIG SET maxclients 30").is_status("OK"));
    assert!(server.connect().words("PING").is_status("PONG"));
    drop(held);
    calm.returns();
}

#[test]
fn few_descriptors_from_the_start_are_enough_for_few_clients() {
    let server = ServerOptions::duva(2).tcp().descriptors_max(160).start();
    let mut calm = Calm::before(&server);
    flood(&server, 400);
    calm.works(50);
    calm.returns();
}

#[test]
fn descriptors_run_out_and_come_back() {
    let server = ServerOptions::duva(2).tcp().start();
    let mut calm = Calm::before(&server);
    for _ in 0..3 {
        // Room for five more, while maxclients allows ten thousand: accepting fails.
        server.limit_descriptors(calm.descriptors as u64 + 5);
        let held = flood(&server, 100);
        calm.works(200);
        drop(held);
        server.wait_until("the flood is gone", || info(&mut calm.client, "connected_clients") == 1);
        // Nobody raised the limit: there is room again because the clients left.
        let mut client = server.connect();
        assert!(client.words("PING").is_status("PONG"));
        let mut client = server.connect_tcp();
        assert!(client.words("PING").is_status("PONG"));
    }
    calm.returns();
}

/// Opens so many connections, which may be served, refused, or left waiting.
fn flood(server: &Server, count: usize) -> Vec<Connection> {
    (0..count)
        .filter_map(|number| {
            let address = if number % 2 == 0 {
                server.address()
            } else {
                crate::support::connection::Address::Tcp(server.tcp_address())
            };
            let mut client = Connection::open(&address).ok()?;
            // What happens to it is the server's choice; only the watcher's replies are promised.
            client.send(b"PING\r\n").ok()?;
            Some(client)
        })
        .collect()
}

#[test]
fn connections_come_and_go() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 1500;
    let server = ServerOptions::duva(2).tcp().start();
    let mut calm = Calm::before(&server);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let server = &server;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let mut client =
                        if (thread + round) % 2 == 0 { server.connect() } else { server.connect_tcp() };
                    match round % 4 {
                        0 => assert!(client.words("PING").is_status("PONG")),
                        1 => client
                            .send(b"PING\r\nGET x\r\nMGET a b c d\r\n")
                            .expect("the server takes a pipeline"),
                        2 => assert!(client.words("QUIT").is_status("OK")),
                        _ => {}
                    }
                }
            });
        }
    });
    calm.works(50);
    calm.returns();
}

#[test]
fn a_paused_server_forgets_clients_that_leave() {
    let server = ServerOptions::duva(2).tcp().start();
    let mut calm = Calm::before(&server);
    assert!(calm.client.words("CLIENT PAUSE 600000 WRITE").is_status("OK"));
    let held: Vec<Connection> = (0..200)
        .map(|number| {
            let mut client = if number % 2 == 0 { server.connect() } else { server.connect_tcp() };
            client.send(b"SET held value\r\nPING\r\n").expect("the server takes a request");
            client
        })
        .collect();
    assert!(calm.client.words("GET held").is_null());
    drop(held);
    server.wait_until("the held clients are gone", || info(&mut calm.client, "connected_clients") == 1);
    assert!(calm.client.words("CLIENT UNPAUSE").is_status("OK"));
    // Whether a write of a client that left in a pause happens is open; that nothing stays held is not.
    assert!(calm.client.words("DEL held").integer().is_some());
    calm.returns();
}

#[test]
fn killed_clients_are_gone_whatever_they_were_doing() {
    let server = ServerOptions::duva(2).tcp().start();
    let mut calm = Calm::before(&server);
    let mut held: Vec<Connection> = (0..300)
        .map(|number| {
            let mut client = if number % 2 == 0 { server.connect() } else { server.connect_tcp() };
            assert!(client.words("PING").is_status("PONG"));
            client
                .send(b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$100000\r\nsome")
                .expect("the server takes half a request");
            client
        })
        .collect();
    let killed = calm.client.words("CLIENT KILL TYPE normal SKIPME yes").integer();
    assert_eq!(killed, Some(300));
    for client in &mut held {
        client.wait_for_end().expect("a killed connection ends");
    }
    drop(held);
    calm.returns();
}
