//! Clients that do everything wrong: the server stays up, stays bounded, serves others, and forgets them.
//!
//! Every test starts a server, notes what it looks like at rest (`Calm`), lets hostile clients loose while
//! a good one works, and ends when the server is at rest again. Amounts are fixed; times are not measured.

mod support;

#[path = "hostile/buffers.rs"]
mod buffers;
#[path = "hostile/connections.rs"]
mod connections;
#[path = "hostile/requests.rs"]
mod requests;

use support::connection::Connection;
use support::process::Server;
use support::resp::Reply;

/// Memory in use may differ by this much after a storm: buffers kept for the next clients.
const USED_MEMORY_SLACK_BYTES: u64 = 4 << 20;

/// A server at rest, and the good client that watches it.
struct Calm<'a> {
    server: &'a Server,
    client: Connection,
    clients: u64,
    used_memory: u64,
    descriptors: usize,
    resident_bytes: u64,
}

impl<'a> Calm<'a> {
    /// Looks at a server that nobody else uses.
    fn before(server: &'a Server) -> Self {
        let mut client = server.connect();
        // Where there is one place, the connection that found the server started may still have it.
        server.wait_until("there is room for a client", || {
            let is_served = client.try_call(&["PING"]).is_ok_and(|reply| reply.is_status("PONG"));
            if !is_served {
                client = server.connect();
            }
            is_served
        });
        // What the first request allocates is part of being at rest.
        for _ in 0..100 {
            assert!(client.words("SET calm value").is_status("OK"));
            assert!(client.words("DEL calm").integer().is_some());
        }
        server.wait_until("start-up connections are gone", || info(&mut client, "connected_clients") == 1);
        let (clients, used_memory) = (1, info(&mut client, "used_memory"));
        let (descriptors, resident_bytes) = (server.descriptors(), server.resident_bytes());
        Self { server, client, clients, used_memory, descriptors, resident_bytes }
    }

    /// The good client works: replies are right, and come.
    fn works(&mut self, rounds: usize) {
        for round in 0..rounds {
            let (key, value) = (format!("good:{}", round % 50), round.to_string());
            assert!(self.client.call(&["SET", &key, &value]).is_status("OK"));
            assert_eq!(self.client.call(&["GET", &key]).bytes(), Some(value.as_bytes()));
            let both = self.client.call(&["MGET", &key, "good:missing"]);
            assert_eq!(both.items().map(<[Reply]>::len), Some(2), "{both}");
        }
        for number in 0..50.min(rounds) {
            assert_eq!(self.client.call(&["DEL", &format!("good:{number}")]).integer(), Some(1));
        }
    }

    /// How much the process has grown.
    fn grown_bytes(&self) -> u64 {
        self.server.resident_bytes().saturating_sub(self.resident_bytes)
    }

    /// The server has forgotten everybody, and still works.
    fn returns(mut self) {
        self.works(60);
        let Self { server, mut client, clients, used_memory, descriptors, .. } = self;
        let (mut clients_now, mut used_memory_now) = (0, 0);
        let at_rest = || {
            (clients_now, used_memory_now) =
                (info(&mut client, "connected_clients"), info(&mut client, "used_memory"));
            clients_now == clients
                && server.descriptors() == descriptors
                && used_memory_now <= used_memory + USED_MEMORY_SLACK_BYTES
        };
        server.wait_until(
            &format!("{clients} client, {descriptors} descriptors and {used_memory} bytes in use, as before"),
            at_rest,
        );
        assert!(client.words("PING").is_status("PONG"));
    }
}

/// A number that INFO gives.
fn info(client: &mut Connection, field: &str) -> u64 {
    let reply = client.words("INFO");
    let text = String::from_utf8_lossy(reply.bytes().expect("INFO is text")).into_owned();
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let value = value.unwrap_or_else(|| panic!("INFO has no {field}:\n{text}"));
    value.trim().parse().unwrap_or_else(|error| panic!("{field}: {error}: {value}"))
}

/// Lets this process open so many descriptors.
fn raise_descriptors(count: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live local, which the call fills.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
    assert!(
        limit.rlim_max >= count,
        "this test needs {count} descriptors; the hard limit (ulimit -Hn) is {}",
        limit.rlim_max
    );
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the pointer is to a live local, which the call only reads.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
}
