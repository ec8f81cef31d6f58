//! Clients that write and read all the time and record what they were answered.
//!
//! Invariants:
//! - Each client has one connection and one request under way at a time.
//! - What was sent and not answered is of unknown fate; so is what was answered with UNCERTAIN. What was refused with
//!   CLUSTERDOWN, or could not be sent because nobody accepted the connection, was not executed and is not recorded.
//! - No request is ever sent again: every SET has a value of its own, every APPEND a token of its own.
//! - Any other error fails the test.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::wait_for;
use crate::linearizability::{self, Action, Answer, Operation};
use crate::support::connection::{Address, Connection};
use crate::support::random::Random;
use crate::support::resp::Reply;

/// How long a client waits for a reply, or to be accepted, before it goes to another node.
const PATIENCE: Duration = Duration::from_secs(3);

/// Between two requests of a client: histories are for checking, not for measuring.
const PAUSE: Duration = Duration::from_micros(500);

/// Keys of all clients.
pub const KEYS: usize = 48;

/// What all clients share.
struct Shared {
    start: Instant,
    addresses: Mutex<Vec<SocketAddr>>,
    ends: AtomicBool,
    /// For each key, when the latest of the acknowledged writes was sent; 0: none.
    written_ns: Vec<AtomicU64>,
    acknowledged: AtomicU64,
    refused: AtomicU64,
    uncertain: AtomicU64,
}

/// Clients at work. Dropping it without [`Load::finish`] ends them as well.
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Vec<Operation>>>,
}

/// A moment of a load.
#[derive(Clone, Copy, Debug)]
pub struct Moment(u64);

impl Load {
    /// Starts `clients` clients, each of which uses one of the nodes at a time.
    pub fn start(seed: u64, clients: usize, addresses: &[SocketAddr]) -> Self {
        let shared = Arc::new(Shared {
            start: Instant::now(),
            addresses: Mutex::new(addresses.to_vec()),
            ends: AtomicBool::new(false),
            written_ns: (0..KEYS).map(|_| AtomicU64::new(0)).collect(),
            acknowledged: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            uncertain: AtomicU64::new(0),
        });
        let mut random = Random::new(seed);
        let start_client = |number| {
            let client = Client {
                number,
                shared: Arc::clone(&shared),
                random: Random::new(random.bits()),
                connection: None,
                history: Vec::new(),
                next_token: 0,
            };
            thread::spawn(move || client.run())
        };
        let clients = (0..clients).map(start_client).collect();
        Self { shared, clients }
    }

    /// The nodes that clients choose from, from now on.
    pub fn use_nodes(&self, addresses: &[SocketAddr]) {
        *self.shared.addresses.lock().expect("no client panics with it") = addresses.to_vec();
    }

    /// This moment.
    pub fn now(&self) -> Moment {
        Moment(self.shared.now_ns())
    }

    /// Waits until `count` more writes are acknowledged.
    pub fn wait_for_writes(&self, count: u64) {
        let before = self.shared.acknowledged.load(Ordering::Relaxed);
        wait_for("writes", || {
            self.fail_early();
            let more = self.shared.acknowledged.load(Ordering::Relaxed) - before;
            if more >= count { Ok(()) } else { Err(format!("{more} of {count} {}", self.counts())) }
        });
    }

    /// Waits until a write that was sent after `moment` is acknowledged for every key, hence in every shard that has one.
    /// Returns how long after `moment` that was.
    pub fn wait_for_every_key(&self, moment: Moment) -> Duration {
        wait_for("a write of every key", || {
            self.fail_early();
            let is_behind = |written: &&AtomicU64| written.load(Ordering::Relaxed) <= moment.0;
            match self.shared.written_ns.iter().filter(is_behind).count() {
                0 => Ok(()),
                count => Err(format!("{count} keys cannot be written {}", self.counts())),
            }
        });
        Duration::from_nanos(self.shared.now_ns() - moment.0)
    }

    /// How many requests were refused, and how many were answered as uncertain.
    pub fn refused_and_uncertain(&self) -> (u64, u64) {
        (self.shared.refused.load(Ordering::Relaxed), self.shared.uncertain.load(Ordering::Relaxed))
    }

    /// How many requests were refused or answered as uncertain.
    pub fn errors(&self) -> u64 {
        let (refused, uncertain) = self.refused_and_uncertain();
        refused + uncertain
    }

    /// Ends the clients, then reads every key at each of the nodes: what was seen, all in all.
    ///
    /// # Panics
    /// When a key cannot be read, or a client was answered what nobody should be.
    pub fn finish(mut self, nodes: &[SocketAddr]) -> Vec<Operation> {
        self.shared.ends.store(true, Ordering::Relaxed);
        let mut history = Vec::new();
        for client in self.clients.drain(..) {
            history.extend(client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        for (number, &node) in nodes.iter().enumerate() {
            for key in 0..KEYS {
                history.push(wait_for("a last read", || self.read(1000 + number, node, key)));
            }
        }
        history
    }

    /// As [`Self::finish`], and checks that one register a key can have answered all of it.
    ///
    /// # Panics
    /// With the history of a key that none can have.
    pub fn finish_and_check(self, nodes: &[SocketAddr]) {
        let counts = self.counts();
        let history = self.finish(nodes);
        if let Err(violation) = linearizability::check(&history) {
            panic!("{violation}\n{counts}");
        }
        let unknown = history.iter().filter(|one| one.returned.is_none()).count();
        eprintln!("{} operations are linearizable, {unknown} of them unknown {counts}", history.len());
    }

    fn read(&self, client: usize, node: SocketAddr, key: usize) -> Result<Operation, String> {
        let name = key_name(key);
        let invoked_ns = self.shared.now_ns();
        let mut connection =
            Connection::open(&Address::Tcp(node)).map_err(|error| format!("{node}: {error}"))?;
        let reply = connection.try_call(&[b"GET", name.as_slice()]);
        let reply = reply.map_err(|error| format!("{node}: {error}"))?;
        let Heard::Answer(answer) = hear(&Action::Get, &reply)? else {
            return Err(format!("{node}: {reply}"));
        };
        let returned = Some((self.shared.now_ns(), answer));
        Ok(Operation { client, key: name, invoked_ns, action: Action::Get, returned })
    }

    /// A client that failed will not make the progress that is waited for.
    fn fail_early(&self) {
        assert!(self.clients.iter().all(|client| !client.is_finished()), "a client failed; see above");
    }

    fn counts(&self) -> String {
        let (refused, uncertain) = self.refused_and_uncertain();
        let acknowledged = self.shared.acknowledged.load(Ordering::Relaxed);
        format!("({acknowledged} writes acknowledged, {refused} refused, {uncertain} uncertain)")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            // What it has to say is of no interest any more.
            let _ = client.join();
        }
    }
}

impl Shared {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).expect("tests end within 500 years")
    }
}

struct Client {
    number: usize,
    shared: Arc<Shared>,
    random: Random,
    connection: Option<Connection>,
    history: Vec<Operation>,
    next_token: u64,
}

impl Client {
    fn run(mut self) -> Vec<Operation> {
        while !self.shared.ends.load(Ordering::Relaxed) {
            if self.connection.is_none() {
                self.connection = self.connect();
            }
            if self.connection.is_some() {
                self.request();
            }
            thread::park_timeout(PAUSE);
        }
        self.history
    }

    fn connect(&mut self) -> Option<Connection> {
        let address = {
            let addresses = self.shared.addresses.lock().expect("nobody panics with it");
            self.random.pick(&addresses)
        };
        // Nothing was sent to a node that does not accept.
        TcpStream::connect_timeout(&address, PATIENCE).ok()?;
        let connection = Connection::open(&Address::Tcp(address)).ok()?;
        connection.set_patience(PATIENCE).ok()?;
        Some(connection)
    }

    fn request(&mut self) {
        let key = self.random.below(KEYS);
        let action = self.action(key);
        let name = key_name(key);
        let arguments: Vec<&[u8]> = match &action {
            Action::Get => vec![b"GET", &name],
            Action::Set(value) => vec![b"SET", &name, value],
            Action::Delete => vec![b"DEL", &name],
            Action::Increment => vec![b"INCR", &name],
            Action::Append(token) => vec![b"APPEND", &name, token],
            Action::Clear | Action::Places(_) => panic!("no client of these asks for {action}"),
        };
        let Some(connection) = &mut self.connection else { return };
        let invoked_ns = self.shared.now_ns();
        let reply = connection.try_call(&arguments);
        let returned_ns = self.shared.now_ns();
        let answer = match reply {
            Ok(reply) => match hear(&action, &reply) {
                Ok(Heard::Answer(answer)) => Some(answer),
                Ok(Heard::Uncertain) => {
                    self.shared.uncertain.fetch_add(1, Ordering::Relaxed);
                    None
                }
                Ok(Heard::Refused) => {
                    self.shared.refused.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Err(sentence) => panic!("client {}: {action}: {sentence}", self.number),
            },
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                panic!("client {}: {action}: {error}", self.number)
            }
            Err(_) => {
                self.connection = None;
                None
            }
        };
        if action != Action::Get && answer.is_some() {
            self.shared.written_ns[key].fetch_max(invoked_ns, Ordering::Relaxed);
            self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        let returned = answer.map(|answer| (returned_ns, answer));
        self.history.push(Operation { client: self.number, key: name, invoked_ns, action, returned });
        // Clients change the node now and then, so that all serve all the time.
        if self.random.one_in(50) {
            self.connection = None;
        }
    }

    /// A third of the keys are registers, a third counters, a third lists of tokens.
    fn action(&mut self, key: usize) -> Action {
        if self.random.one_in(3) {
            return Action::Get;
        }
        if self.random.one_in(30) {
            return Action::Delete;
        }
        self.next_token += 1;
        match key % 3 {
            0 => Action::Set(format!("{}-{}", self.number, self.next_token).into()),
            1 => Action::Increment,
            _ => Action::Append(format!("<{}-{}>", self.number, self.next_token).into()),
        }
    }
}

fn key_name(key: usize) -> Vec<u8> {
    format!("{}:{key}", ["register", "counter", "list"][key % 3]).into()
}

/// What a reply says about what was asked.
enum Heard {
    Answer(Answer),
    /// Not executed.
    Refused,
    /// Executed or not, now or later.
    Uncertain,
}

fn hear(action: &Action, reply: &Reply) -> Result<Heard, String> {
    if reply.is_error() {
        let text = String::from_utf8_lossy(reply.bytes().unwrap_or_default());
        return match text.split(' ').next() {
            Some("UNCERTAIN") => Ok(Heard::Uncertain),
            Some("CLUSTERDOWN" | "LOADING") => Ok(Heard::Refused),
            Some("ERR") if *action == Action::Increment && text.contains("integer") => {
                Ok(Heard::Answer(Answer::NotANumber))
            }
            _ => Err(format!("answered with {text}")),
        };
    }
    let answer = match (action, reply) {
        (Action::Get, Reply::Null(_)) => Answer::Value(None),
        (Action::Get, Reply::Text(b'$', value)) => Answer::Value(Some(value.clone())),
        (Action::Set(_), reply) if reply.is_status("OK") => Answer::Done,
        (Action::Delete | Action::Increment | Action::Append(_), reply) => {
            Answer::Integer(reply.integer().ok_or_else(|| format!("answered with {reply}"))?)
        }
        _ => return Err(format!("answered with {reply}")),
    };
    Ok(Heard::Answer(answer))
}
