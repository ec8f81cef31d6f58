//! Commands whose keys lie in several shards.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::cluster_support::node::Role;
use crate::cluster_support::wait_for;
use crate::linearizability::{self, Action, Answer, Operation};
use crate::support::connection::{Address, Connection};
use crate::support::random::Random;
use crate::support::resp::Reply;
use crate::{Cluster, node};

/// Keys that are only written together: in most of the shards.
const KEYS: usize = 12;

/// How long a client waits for a reply before it goes to another node.
const PATIENCE: Duration = Duration::from_secs(3);

fn key(number: usize) -> Vec<u8> {
    format!("several:{number}").into_bytes()
}

/// A reply as it came, without line breaks.
fn text(reply: &Reply) -> String {
    String::from_utf8_lossy(&reply.encode()).replace("\r\n", " ").trim_end().to_owned()
}

#[test]
fn every_command_is_served_by_every_node() {
    let cluster = Cluster::start();
    for (number, node) in cluster.nodes.iter().enumerate() {
        let mut connection = node.connect();
        let mut next = cluster.nodes[(number + 1) % 3].connect();
        let n = format!("n{number}");
        for (line, expected) in [
            ("MSET a@ 1 b@ 2 c@ 3 d@ 4 a@ 5", "+OK"),
            ("MGET a@ b@ c@ none@ d@ a@", "*6 $1 5 $1 2 $1 3 $-1 $1 4 $1 5"),
            ("EXISTS a@ b@ a@ none@", ":3"),
            ("TOUCH a@ b@ none@ c@", ":3"),
            ("MSETNX e@ 1 f@ 2 g@ 3 a@ 4", ":0"),
            ("EXISTS e@ f@ g@", ":0"),
            ("MSETNX e@ 1 f@ 2 g@ 3", ":1"),
            ("DEL e@ f@ e@ none@ g@", ":3"),
            ("UNLINK e@ f@ d@", ":1"),
            ("EXPIRE a@ 1000", ":1"),
            ("RENAME a@ z@", "+OK"),
            ("MGET a@ z@", "*2 $-1 $1 5"),
            ("TTL z@", ":1000"),
            ("RENAME a@ y@", "-ERR no such key"),
            ("RENAMENX z@ b@", ":0"),
            ("RENAMENX z@ x@", ":1"),
            ("COPY x@ b@", ":0"),
            ("COPY x@ b@ REPLACE", ":1"),
            ("MGET x@ b@ z@", "*3 $1 5 $1 5 $-1"),
            ("COPY none@ b@", ":0"),
            ("COPY x@ w@ DB 3", ":1"),
            ("EXISTS w@", ":0"),
            ("COPY x@ w@ BOGUS", "-ERR syntax error"),
            ("MSET l@ ohmytext m@ mynewtext", "+OK"),
            ("LCS l@ m@", "$6 mytext"),
            ("LCS l@ none@ LEN", ":0"),
            ("OBJECT ENCODING x@", "$3 int"),
            ("OBJECT ENCODING l@", "$6 embstr"),
            ("OBJECT REFCOUNT l@", ":1"),
            ("OBJECT IDLETIME none@", "$-1"),
            ("OBJECT FREQ none@", "$-1"),
            ("MEMORY USAGE none@", "$-1"),
            ("MEMORY USAGE l@ SAMPLES x", "-ERR value is not an integer or out of range"),
        ] {
            let line = line.replace('@', &n);
            // TTL is a second less if a second has passed.
            let reply = text(&connection.words(&line));
            assert!(reply == expected || (expected == ":1000" && reply == ":999"), "{line}: {reply}");
        }
        // Another node sees the same at once.
        let reply = next.words(&format!("MGET x{n} b{n} c{n} l{n}"));
        assert_eq!(text(&reply), "*4 $1 5 $1 5 $1 3 $8 ohmytext");
        next.words("SELECT 3");
        assert_eq!(text(&next.words(&format!("MGET w{n} x{n}"))), "*2 $1 5 $-1");
        let mut resp3 = cluster.nodes[number].connect();
        resp3.words("HELLO 3");
        assert_eq!(text(&resp3.words(&format!("MGET none{n} b{n}"))), "*2 _ $1 5");
    }
    let once = cluster.nodes[0].connect().words("ONCE c 1 MSET a 1 b 2");
    assert!(text(&once).starts_with("-CROSSSLOT"), "{once}");
}

#[test]
fn clients_that_follow_redirections_are_told() {
    let mut only = node("node 0", Role::First).option("cluster-routing", "redirect");
    only.start();
    wait_for("the state ok", || match only.cluster_info("cluster_state")?.as_str() {
        "ok" => Ok(()),
        state => Err(state.to_owned()),
    });
    let reply = text(&only.connect().words("MSET a 1 b 2"));
    assert_eq!(reply, "-CROSSSLOT Keys in request don't hash to the same slot");
    assert_eq!(text(&only.connect().words("MSET {a}1 1 {a}2 2")), "+OK");
}

#[test]
fn sessions_see_what_they_have_written_from_their_own_replicas() {
    let cluster = Cluster::start();
    for level in ["session", "sequential"] {
        for node in &cluster.nodes {
            let mut connection = node.connect();
            assert_eq!(text(&connection.words(&format!("CLIENT CONSISTENCY {level}"))), "+OK");
            for round in 0..30 {
                let value = format!("{level}{round}").into_bytes();
                let pairs = (0..KEYS).flat_map(|number| [key(number), value.clone()]);
                let words: Vec<Vec<u8>> = std::iter::once(b"MSET".to_vec()).chain(pairs).collect();
                assert!(connection.call(&words).is_status("OK"));
                for number in 0..KEYS {
                    let reply = connection.call(&[b"GET".to_vec(), key(number)]);
                    assert_eq!(reply.bytes(), Some(&*value), "{level} {number}: {reply}");
                }
            }
        }
    }
}

/// A client of a family of keys, which are one register.
struct Client<'a> {
    number: usize,
    random: Random,
    nodes: &'a [SocketAddr],
    start: Instant,
    acknowledged: &'a AtomicU64,
    history: Vec<Operation>,
}

impl Client<'_> {
    fn run(mut self, ends: &AtomicBool) -> Vec<Operation> {
        let mut connection = None;
        while !ends.load(Ordering::Relaxed) {
            let place = self.random.below(self.nodes.len());
            if connection.is_none() {
                connection = Connection::open(&Address::Tcp(self.nodes[place])).ok();
            }
            match &mut connection {
                None => thread::park_timeout(Duration::from_millis(5)),
                Some(open) => {
                    let _ = open.set_patience(PATIENCE);
                    if !self.ask(open) || self.random.one_in(40) {
                        connection = None;
                    }
                }
            }
        }
        self.history
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).expect("tests end within 500 years")
    }

    /// Asks once; false: the connection is of no use any more.
    fn ask(&mut self, connection: &mut Connection) -> bool {
        let keys = (0..KEYS).map(key);
        let value = format!("{}-{}", self.number, self.history.len()).into_bytes();
        let (action, words): (Action, Vec<Vec<u8>>) = match self.random.below(9) {
            0..=3 => {
                let pairs = keys.flat_map(|key| [key, value.clone()]);
                (Action::Set(value.clone()), std::iter::once(b"MSET".to_vec()).chain(pairs).collect())
            }
            4 => (Action::Delete, std::iter::once(b"DEL".to_vec()).chain(keys).collect()),
            5 | 6 => (Action::Get, vec![b"GET".to_vec(), key(self.random.below(KEYS))]),
            _ => (Action::Get, std::iter::once(b"MGET".to_vec()).chain(keys).collect()),
        };
        let invoked_ns = self.now_ns();
        let reply = connection.try_call(&words);
        let returned_ns = self.now_ns();
        let is_usable = reply.is_ok();
        let answer = match reply.ok() {
            None => None,
            Some(reply) if reply.is_error() => {
                let text = text(&reply);
                if text.starts_with("-CLUSTERDOWN") {
                    return true;
                }
                assert!(text.starts_with("-UNCERTAIN"), "{text}");
                None
            }
            Some(reply) => {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
                Some(self.hear(&action, &reply))
            }
        };
        let returned = answer.map(|answer| (returned_ns, answer));
        let key = b"family".to_vec();
        self.history.push(Operation { client: self.number, key, invoked_ns, action, returned });
        is_usable
    }

    fn hear(&self, action: &Action, reply: &Reply) -> Answer {
        match (action, reply.items()) {
            (Action::Get, Some(items)) => {
                assert!(
                    items.len() == KEYS && items.iter().all(|item| item.encode() == items[0].encode()),
                    "{reply}"
                );
                Answer::Value(items[0].bytes().map(<[u8]>::to_vec))
            }
            (Action::Get, None) => Answer::Value(reply.bytes().map(<[u8]>::to_vec)),
            (Action::Delete, _) => {
                let count = reply.integer().expect("a count");
                assert!(count == 0 || count == KEYS as i64, "{reply}");
                Answer::Integer(i64::from(count > 0))
            }
            _ => {
                assert!(reply.is_status("OK"), "{reply}");
                Answer::Done
            }
        }
    }
}

/// Clients at work until `meanwhile` is over; what they saw must be what one register can have answered.
fn under_load(seed: u64, nodes: &[SocketAddr], meanwhile: impl FnOnce(&dyn Fn(u64))) {
    let (ends, acknowledged, start) = (AtomicBool::new(false), AtomicU64::new(0), Instant::now());
    let mut random = Random::new(seed);
    let history: Vec<Operation> = thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|number| {
                let random = Random::new(random.bits());
                let acknowledged = &acknowledged;
                let client = Client { number, random, nodes, start, acknowledged, history: Vec::new() };
                scope.spawn(|| client.run(&ends))
            })
            .collect();
        let wait = |count: u64| {
            let before = acknowledged.load(Ordering::Relaxed);
            wait_for("answers", || match acknowledged.load(Ordering::Relaxed) - before {
                more if more >= count => Ok(()),
                more if clients.iter().any(|client| client.is_finished()) => {
                    Err(format!("{more}, a client failed"))
                }
                more => Err(format!("{more} of {count}")),
            });
        };
        meanwhile(&wait);
        ends.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().expect("no client fails")).collect()
    });
    let unknown = history.iter().filter(|one| one.returned.is_none()).count();
    eprintln!("{} operations, {unknown} of unknown fate", history.len());
    if let Err(violation) = linearizability::check(&history) {
        assert!(violation.is_undecided, "{violation}");
    }
}

#[test]
fn nobody_sees_half_while_leaders_are_killed() {
    let mut cluster = Cluster::start();
    let addresses = cluster.addresses();
    under_load(31, &addresses, |wait| {
        for _ in 0..3 {
            wait(300);
            let leader = cluster.first_leader();
            cluster.nodes[leader].kill();
            wait(300);
            cluster.nodes[leader].start();
            cluster.wait_until_whole(3);
        }
        wait(300);
    });
    assert_free(&cluster, 0);
}

#[test]
fn a_coordinator_that_is_killed_leaves_no_key_locked() {
    let mut cluster = Cluster::start();
    for round in 0..3 {
        let victim = cluster.nodes[2].address();
        // All that it is asked to do is under way when it dies.
        under_load(40 + round, &[victim], |wait| {
            wait(100);
            cluster.nodes[2].kill();
        });
        assert_free(&cluster, round as usize % 2);
        cluster.nodes[2].start();
        cluster.wait_until_whole(3);
    }
}

/// Every key can be read and written, alone and together, and all hold the same.
fn assert_free(cluster: &Cluster, node: usize) {
    let values = wait_for("all keys", || {
        let words: Vec<Vec<u8>> = std::iter::once(b"MGET".to_vec()).chain((0..KEYS).map(key)).collect();
        let reply = cluster.nodes[node].connect().call(&words);
        if reply.is_error() { Err(text(&reply)) } else { Ok(reply) }
    });
    let items = values.items().expect("an array");
    assert!(items.iter().all(|item| item.encode() == items[0].encode()), "{values}");
    for number in 0..KEYS {
        wait_for("a write of every key", || {
            let reply = cluster.nodes[node].connect().call(&[b"APPEND".to_vec(), key(number), b"x".to_vec()]);
            if reply.integer().is_some() { Ok(()) } else { Err(text(&reply)) }
        });
    }
    // They are a register again.
    let words: Vec<Vec<u8>> = std::iter::once(b"DEL".to_vec()).chain((0..KEYS).map(key)).collect();
    wait_for("the removal of all keys", || {
        let reply = cluster.nodes[node].connect().call(&words);
        if reply.integer() == Some(KEYS as i64) { Ok(()) } else { Err(text(&reply)) }
    });
}
