//! Requests allocate nothing once a server is warm: what they need is kept and used again.
//!
//! The cores are driven here, on machines that do everything at once; what the machines allocate does not count. With
//! `DUVA_ALLOCATION_TRACE` set a test says where allocations come from.

mod support;

#[path = "allocations/counting.rs"]
mod counting;
#[path = "allocations/machine.rs"]
mod machine;

use duva_server::config::{AppendFsync, Config, RaftDurability, RaftReadMode};
use machine::{Client, Nodes};
use support::resp::Reply;

/// Requests before anything is counted, and those that count.
const WARM: usize = 4_000;
const COUNTED: usize = 2_000;

/// How many clients ask at once, and how many requests each sends at once.
const LOADS: [(usize, usize); 3] = [(1, 1), (20, 1), (4, 16)];

/// What a request may allocate at a node of a cluster on average: memory for entries' payloads comes in blocks, and there is what
/// nodes tell one another from time to time.
const ALLOCATIONS_MAX: f64 = 0.1;

const SHARDS: usize = 16;

fn config(cores: u16) -> Config {
    Config {
        cores,
        shards: SHARDS as u16,
        segment_size_bytes: 16 << 20,
        rewrite_growth_percent: 0,
        save_points: Vec::new(),
        ..Config::default()
    }
}

fn set(key: &str) -> Vec<String> {
    vec!["SET".to_owned(), key.to_owned(), "v".repeat(64)]
}

fn get(key: &str) -> Vec<String> {
    vec!["GET".to_owned(), key.to_owned()]
}

/// Who asks for what.
struct Load {
    clients: Vec<Client>,
    /// Requests that each client sends at once.
    depth: usize,
    keys: Vec<String>,
}

impl Load {
    /// At one node, for keys of some shards.
    fn new(nodes: &mut Nodes, node: usize, shards: &[usize], (clients, depth): (usize, usize)) -> Self {
        let clients = (0..clients).map(|_| nodes.connect(node)).collect();
        Self { clients, depth, keys: nodes.keys_of(shards, 500) }
    }

    /// Sends requests and waits for the replies; between them a little time passes.
    fn ask(&self, nodes: &mut Nodes, count: usize, request: impl Fn(&str) -> Vec<String>) {
        let mut keys = self.keys.iter().cycle();
        let mut round = 0;
        while round * self.clients.len() * self.depth < count {
            for &client in &self.clients {
                let requests: Vec<Vec<String>> =
                    keys.by_ref().take(self.depth).map(|key| request(key)).collect();
                nodes.send(client, &requests);
            }
            nodes.settle();
            for &client in &self.clients {
                let replies = nodes.replies(client);
                assert!(
                    replies.len() == self.depth && !replies.iter().any(Reply::is_error),
                    "{} of {}: {replies:?}",
                    replies.len(),
                    self.depth
                );
            }
            round += 1;
            if round.is_multiple_of(20) {
                nodes.pass_ms(1);
            }
        }
    }

    /// Allocations a request, of each node, once all is warm.
    fn measure(&self, nodes: &mut Nodes, request: impl Fn(&str) -> Vec<String>) -> [f64; counting::NODES] {
        self.ask(nodes, WARM, &request);
        let counts = counting::during(|| self.ask(nodes, COUNTED, &request));
        counts.map(|count| count as f64 / COUNTED as f64)
    }
}

/// What a server alone allocates.
fn check_alone(append_fsync: Option<AppendFsync>) {
    for cores in [1, 2] {
        let mut nodes = Nodes::alone(&Config {
            append_only: append_fsync.is_some(),
            append_fsync: append_fsync.unwrap_or(AppendFsync::No),
            ..config(cores)
        });
        for size in LOADS {
            let all: Vec<usize> = (0..SHARDS).collect();
            let load = Load::new(&mut nodes, 0, &all, size);
            let [sets, ..] = load.measure(&mut nodes, set);
            let [gets, ..] = load.measure(&mut nodes, get);
            assert_eq!(
                (sets, gets),
                (0.0, 0.0),
                "SET and GET, {append_fsync:?}, {cores} cores, {size:?} at once"
            );
        }
    }
}

#[test]
fn a_server_without_a_journal_allocates_nothing() {
    check_alone(None);
}

#[test]
fn a_server_with_a_journal_allocates_nothing() {
    [AppendFsync::No, AppendFsync::EverySecond, AppendFsync::Always]
        .map(Some)
        .into_iter()
        .for_each(check_alone);
}

/// What the nodes of a cluster allocate, for requests at the node that leads the keys' shards, and at another one.
fn check_cluster(config: &Config) {
    const LEADER: usize = 0;
    const OTHER: usize = 1;
    let mut nodes = Nodes::cluster(config, 3);
    for size in LOADS {
        let shards = nodes.shards_led_by(LEADER);
        for asked in [LEADER, OTHER] {
            let load = Load::new(&mut nodes, asked, &shards, size);
            for (name, request) in [("SET", set as fn(&str) -> Vec<String>), ("GET", get)] {
                let counts = load.measure(&mut nodes, request);
                if std::env::var_os("DUVA_ALLOCATION_TRACE").is_some() {
                    eprintln!("{name} at node {asked}, {size:?} at once: {counts:?}");
                }
                assert!(
                    counts.iter().all(|&count| count < ALLOCATIONS_MAX),
                    "{name} at node {asked}, {} cores, {size:?} at once: {counts:?}, where node {LEADER} leads",
                    config.cores
                );
            }
        }
    }
}

#[test]
fn leaders_followers_and_those_who_forward_allocate_next_to_nothing() {
    let (raft_durability, raft_read_mode) = (RaftDurability::Fsync, RaftReadMode::Lease);
    check_cluster(&Config { raft_durability, raft_read_mode, ..config(1) });
    check_cluster(&Config { raft_durability, raft_read_mode, ..config(2) });
}

#[test]
fn nor_do_they_where_nothing_is_synced_and_reads_take_a_round() {
    let (raft_durability, raft_read_mode) = (RaftDurability::Memory, RaftReadMode::ReadIndex);
    check_cluster(&Config { raft_durability, raft_read_mode, ..config(1) });
    check_cluster(&Config { raft_durability, raft_read_mode, ..config(2) });
}
