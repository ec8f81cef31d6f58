//! Clients that send without reading, and read without haste.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::Calm;
use crate::support::connection::{self, Connection};
use crate::support::process::ServerOptions;
use crate::support::resp;

/// What the server may hold for one client that does not read, beyond what the kernel holds.
const UNREAD_GROWN_BYTES_MAX: u64 = 192 << 20;

#[test]
fn a_million_commands_without_reading_a_reply() {
    const COMMANDS: usize = 1_000_000;
    const VALUE_BYTES: usize = 1000;
    let server = ServerOptions::duva(2).tcp().start();
    let calm = Calm::before(&server);
    for mut client in [server.connect(), server.connect_tcp()] {
        assert!(client.call(&["SET", "value", &"v".repeat(VALUE_BYTES)]).is_status("OK"));
        let mut pair = Vec::new();
        resp::encode_request(&["INCR", "counter"], &mut pair);
        resp::encode_request(&["GET", "value"], &mut pair);
        let pairs_a_write = 500;
        let block = pair.repeat(pairs_a_write);
        let writes = COMMANDS / 2 / pairs_a_write;
        let written = AtomicUsize::new(0);
        let mut writer = client.try_clone_writer().expect("a second handle of a socket");
        thread::scope(|scope| {
            let written = &written;
            scope.spawn(move || {
                for _ in 0..writes {
                    writer.write_all(&block).expect("the server takes the commands, soon or late");
                    written.fetch_add(1, Ordering::Relaxed);
                }
            });
            // Either the server takes all of it, or it has stopped reading: the writer gets no further.
            let mut before = usize::MAX;
            server.wait_until("the writer is done or held up", || {
                let now = written.load(Ordering::Relaxed);
                let still = now == before && !writable(&client);
                before = now;
                now == writes || still
            });
            let grown = calm.grown_bytes();
            assert!(grown <= UNREAD_GROWN_BYTES_MAX, "{grown} bytes for a client that does not read");
            for number in 1..=(COMMANDS / 2) as i64 {
                let count = client.receive().expect("a reply to every INCR");
                assert_eq!(count.integer(), Some(number));
                let value = client.receive().expect("a reply to every GET");
                assert_eq!(value.bytes().map(<[u8]>::len), Some(VALUE_BYTES));
            }
        });
        assert_eq!(client.words("DEL counter value").integer(), Some(2));
    }
    calm.returns();
}

/// Whether the kernel would take more for the other side within a tenth of a second.
fn writable(client: &Connection) -> bool {
    let mut poll = libc::pollfd { fd: client.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: the pointer is to one live pollfd, as the count says.
    unsafe { libc::poll(&raw mut poll, 1, 100) == 1 }
}

#[test]
fn many_slow_readers_cost_bounded_memory_and_hold_nobody_up() {
    const CLIENTS: usize = 50;
    const GETS: usize = 400;
    const VALUE_BYTES: usize = 100_000;
    const GROWN_BYTES_MAX: u64 = 256 << 20;
    let server =
        ServerOptions::duva(2).option("client-output-buffer-limit", &["normal", "2mb", "0", "0"]).start();
    let mut calm = Calm::before(&server);
    assert!(calm.client.call(&["SET", "value", &"v".repeat(VALUE_BYTES)]).is_status("OK"));
    let mut bytes = Vec::new();
    for _ in 0..GETS {
        resp::encode_request(&["GET", "value"], &mut bytes);
    }
    // 2 GB of replies that nobody reads: each client is paused or cut off, as the server likes.
    let slow: Vec<Connection> = (0..CLIENTS)
        .map(|_| {
            let mut client = server.connect();
            match client.send(&bytes) {
                Err(error) if !connection::is_end(&error) => panic!("{error}"),
                _ => client,
            }
        })
        .collect();
    calm.works(300);
    let grown = calm.grown_bytes();
    assert!(grown <= GROWN_BYTES_MAX, "{grown} bytes for {CLIENTS} clients that do not read");
    drop(slow);
    assert_eq!(calm.client.words("DEL value").integer(), Some(1));
    calm.returns();
}

#[test]
fn a_reply_beyond_the_hard_limit_ends_the_connection() {
    const VALUE_BYTES: usize = 24 << 20;
    let server = ServerOptions::duva(2)
        .tcp()
        .option("client-output-buffer-limit", &["normal", "1mb", "0", "0"])
        .start();
    let mut calm = Calm::before(&server);
    let mut request = Vec::new();
    resp::encode_request(&["SET", "value", &"v".repeat(VALUE_BYTES)], &mut request);
    assert!(calm.client.exchange(&request, 1).expect("the server takes the value")[0].is_status("OK"));
    for mut client in [server.connect(), server.connect_tcp()] {
        client.send_request(&["GET", "value"]).expect("the server takes the request");
        let error = client.receive().expect_err("the reply is beyond the limit");
        assert!(connection::is_end(&error), "{error}");
    }
    // Just below it a reply passes.
    assert!(calm.client.call(&["SET", "value", &"v".repeat(500_000)]).is_status("OK"));
    assert_eq!(calm.client.words("GET value").bytes().map(<[u8]>::len), Some(500_000));
    assert_eq!(calm.client.words("DEL value").integer(), Some(1));
    calm.returns();
}

#[test]
fn a_slow_reader_gets_everything_when_there_is_no_limit() {
    const GETS: usize = 300;
    const VALUE_BYTES: usize = 200_000;
    let server = ServerOptions::duva(2).tcp().start();
    let mut calm = Calm::before(&server);
    assert!(calm.client.call(&["SET", "value", &"v".repeat(VALUE_BYTES)]).is_status("OK"));
    let mut bytes = Vec::new();
    for number in 0..GETS {
        resp::encode_request(&["GET", "value"], &mut bytes);
        resp::encode_request(&["ECHO", &number.to_string()], &mut bytes);
    }
    for mut client in [server.connect(), server.connect_tcp()] {
        client.send(&bytes).expect("the server takes the requests");
        calm.works(100);
        for number in 0..GETS {
            let reply = client.receive().expect("a reply to every GET");
            assert_eq!(reply.bytes().map(<[u8]>::len), Some(VALUE_BYTES));
            let reply = client.receive().expect("a reply to every ECHO");
            assert_eq!(reply.bytes(), Some(number.to_string().as_bytes()));
        }
    }
    assert_eq!(calm.client.words("DEL value").integer(), Some(1));
    calm.returns();
}

#[test]
fn a_request_beyond_the_query_buffer_limit_ends_the_connection() {
    let server = ServerOptions::duva(2).option("client-query-buffer-limit", &["1mb"]).start();
    let mut calm = Calm::before(&server);
    let mut client = server.connect();
    // One bulk below the limit of a bulk and above that of a client's memory.
    let mut request = Vec::new();
    resp::encode_request(&["ECHO", &"x".repeat(16 << 20)], &mut request);
    let end = client.exchange(&request, 1).expect_err("the connection ends");
    assert!(connection::is_end(&end), "{end}");
    drop(client);
    calm.works(50);
    calm.returns();
}
