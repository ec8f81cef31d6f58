//! Starting and ending: signals, SHUTDOWN, a second server on the same addresses, a killed one's remains.

mod support;

use support::connection::{Address, Connection};
use support::process::{Server, ServerOptions, run_to_its_end};

fn duva() -> Server {
    ServerOptions::duva(2).tcp().start()
}

/// What a server does that ends by itself: closes every connection and leaves no address behind.
fn ends_well(server: Server, mut clients: Vec<Connection>) {
    for client in &mut clients {
        client.wait_for_end().expect("the connection is closed");
    }
    let (unix, tcp) = (server.address(), Address::Tcp(server.tcp_address()));
    let (status, _directory) = server.wait_for_exit();
    assert!(status.success(), "{status}");
    assert!(Connection::open(&unix).is_err(), "nobody listens any more");
    assert!(Connection::open(&tcp).is_err(), "nobody listens any more");
    let Address::Unix(path) = unix else { unreachable!("the address of the Unix socket") };
    assert!(!path.exists(), "the Unix socket is removed");
}

fn clients(server: &Server) -> Vec<Connection> {
    let mut clients = vec![server.connect(), server.connect_tcp(), server.connect()];
    for client in &mut clients {
        assert!(client.words("SET key value").is_status("OK"));
    }
    // Half a request does not delay the end.
    clients[2].send(b"*2\r\n$3\r\nGET\r\n$1").expect("the server takes half a request");
    clients
}

#[test]
fn shutdown_ends_the_server() {
    for line in ["SHUTDOWN", "SHUTDOWN NOSAVE", "shutdown nosave now force"] {
        let server = duva();
        let clients = clients(&server);
        let mut last = server.connect();
        last.send_request(&line.split(' ').collect::<Vec<_>>()).expect("the server takes the request");
        // The order to end has no reply.
        last.wait_for_end().expect("the connection is closed");
        ends_well(server, clients);
    }
}

#[test]
fn signals_end_the_server() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let server = duva();
        let clients = clients(&server);
        server.signal(signal);
        ends_well(server, clients);
    }
}

#[test]
fn a_pipe_closed_by_its_reader_is_no_reason_to_end() {
    let server = duva();
    server.signal(libc::SIGPIPE);
    server.signal(libc::SIGHUP);
    assert!(server.connect().words("PING").is_status("PONG"));
    assert!(server.connect_tcp().words("PING").is_status("PONG"));
}

#[test]
fn a_second_server_on_the_same_port_refuses_to_start() {
    let first = duva();
    let port = first.tcp_address().port().to_string();
    let (status, said) = run_to_its_end(&["--cores", "1", "--port", &port]);
    assert!(!status.success(), "it must not serve beside the first");
    assert!(said.contains(&port), "it names the port: {said}");
    assert!(first.connect_tcp().words("PING").is_status("PONG"));
}

#[test]
fn a_killed_server_leaves_its_socket_to_the_next() {
    let first = duva();
    let path = first.socket().to_owned();
    first.signal(libc::SIGKILL);
    let (status, _directory) = first.wait_for_exit();
    assert!(!status.success());
    assert!(path.exists(), "nobody could remove it");
    let second = ServerOptions::duva(1).socket(&path).start();
    assert!(second.connect().words("PING").is_status("PONG"));
}

#[test]
fn a_mistaken_command_line_is_refused_by_name() {
    for (arguments, named) in [
        (["--port", "abc"], "port"),
        (["--cores", "none"], "cores"),
        (["--maxclients", "-5"], "maxclients"),
        (["--no-such-option", "1"], "no-such-option"),
        (["--dir", "/nowhere/at/all"], "/nowhere/at/all"),
    ] {
        // Should one be accepted, the server listens nowhere that others use.
        let nowhere: &[&str] = if named == "port" { &[] } else { &["--port", "0", "--unixsocket", "socket"] };
        let (status, said) = run_to_its_end(&[nowhere, &arguments].concat());
        assert!(!status.success(), "{arguments:?} must be refused");
        assert!(said.contains(named), "{arguments:?}: {said}");
    }
}
