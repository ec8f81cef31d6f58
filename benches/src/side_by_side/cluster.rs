//! Clusters: three nodes beside one node of the same server, beside three nodes of etcd, and with a node less or more.
//!
//! All nodes of a cluster share the servers' CPU, so what they use together is what a request costs. Everything is
//! durable: a write is answered when a majority has synced it, and on one node when that has. A cluster is not stopped
//! while another server is measured, or it would elect leaders when it goes on; an idle one takes next to nothing.

mod away;
mod beside_etcd;
mod budget;
mod idle;
mod join;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    Settings,
    client::Measured,
    connection::Connection,
    directory::Directory,
    failure::{Failure, Result},
    process::{self, Usage},
    report::{Report, Table},
    server::{Kind, Persistence, Server, free_port},
    statistics::{Spread, short},
};

/// Nodes of a cluster.
const NODES: usize = 3;

/// Replicas of a shard, as many as by default.
const REPLICAS: usize = 3;

/// How long a cluster may take until every shard has all its replicas, or until it serves again.
const WHOLE_TIMEOUT: Duration = Duration::from_secs(120);

/// Between two looks at a cluster.
const LOOK: Duration = Duration::from_millis(10);

const NODE_ARGUMENTS: &str = "--port {port} --bind 127.0.0.1 --cores {cores} --cpus {cpus} --dir {dir} --appendonly yes \
                              --save \"\" --maxclients 15000";

/// A key for the rows that concern one leader.
const LONE_KEY: &str = "lone";

/// Threads that write while a leader is killed, and keys of each.
const WRITERS: usize = 8;
const KEYS_OF_WRITER: usize = 8;

/// One workload.
struct Row {
    name: &'static str,
    requests: u64,
    /// The options of `redis-benchmark` before and after the number of requests.
    options: String,
    /// Whether the client goes to the leader of [`LONE_KEY`]; else it knows the cluster and goes to all.
    is_lone: bool,
}

fn rows() -> Vec<Row> {
    let value = "x".repeat(64);
    let row =
        |name, requests, options: &str, is_lone| Row { name, requests, options: options.into(), is_lone };
    vec![
        row("cluster-set-1k-c1000", 200_000, "-t set -c 1000 -P 1 -d 1024 -r 100000", false),
        row("cluster-set-p16", 1_000_000, "-t set -c 50 -P 16 -d 64 -r 1000000", false),
        row("cluster-lone-set", 10_000, &format!("-c 1 -P 1 SET {LONE_KEY} {value}"), true),
        row("leader-get-p1", 450_000, &format!("-c 50 -P 1 GET {LONE_KEY}"), true),
        row("leader-get-p16", 2_500_000, &format!("-c 50 -P 16 GET {LONE_KEY}"), true),
    ]
}

impl Row {
    /// The client's options: those that begin with a dash come first, then the command, if any.
    fn options(&self, scale: f64, is_cluster: bool) -> String {
        let requests = ((self.requests as f64 * scale) as u64).max(100);
        let mode = if is_cluster && !self.is_lone { "--cluster " } else { "" };
        format!("{mode}-n {requests} {}", self.options)
    }
}

/// One round of one row.
struct Round {
    client: Measured,
    usage: Usage,
}

type Figure = (&'static str, fn(&Round) -> f64);

const FIGURES: [Figure; 5] = [
    ("requests/s", |round| round.client.requests_per_second),
    ("CPU us/request", |round| round.usage.cpu_ns as f64 / 1e3 / round.client.requests as f64),
    ("p50 us", |round| round.client.p50_us),
    ("p99 us", |round| round.client.p99_us),
    ("max us", |round| round.client.max_us),
];

/// What is measured of three nodes in a way of its own: its name for `--rows`, and the way.
type Part = (&'static str, fn(&Settings, &mut Report, &mut Cluster<'_>) -> Result<()>);

const PARTS: [Part; 5] = [
    ("failover", fail_over),
    ("follower-killed", away::killed),
    ("follower-stopped", away::stopped),
    ("etcd-set-1k", beside_etcd::of_1k),
    ("etcd-set-64", beside_etcd::of_64),
];

/// The others: before anything else has been done, beside one node, and with a cluster of its own.
const IDLE: &str = "idle-cluster";
const BUDGET: &str = "set-budget";
const JOIN: &str = "join";

/// The names that `--rows` takes for clusters.
pub(crate) fn names() -> Vec<&'static str> {
    let rows = rows().into_iter().map(|row| row.name);
    let parts = PARTS.iter().map(|&(name, _)| name);
    [IDLE].into_iter().chain(rows).chain([BUDGET]).chain(parts).chain([JOIN]).collect()
}

/// Measures the first of `kinds` as a cluster, in all the ways that are named; the other servers are of no meaning here.
pub(crate) fn run(settings: &Settings, report: &mut Report, kinds: &[Kind], named: &[String]) -> Result<()> {
    let kind = &kinds[0];
    let is_named = |name: &str| named.iter().any(|other| other == name);
    if named.iter().any(|name| name != JOIN) {
        let mut cluster = Cluster::start(kind, settings)?;
        if is_named(IDLE) {
            idle::run(settings, report, &cluster)?;
        }
        let rows: Vec<Row> = rows().into_iter().filter(|row| is_named(row.name)).collect();
        if !rows.is_empty() || is_named(BUDGET) {
            let one = start_one(kind, settings)?;
            cluster.node(0).connect()?.command(&["SET", LONE_KEY, "x"])?;
            if !rows.is_empty() {
                compare(settings, report, &cluster, &one, &rows)?;
            }
            if is_named(BUDGET) {
                budget::run(settings, report, &cluster, &one)?;
            }
        }
        for (_, measure) in PARTS.iter().filter(|(name, _)| is_named(name)) {
            measure(settings, report, &mut cluster)?;
        }
    }
    if is_named(JOIN) {
        join::run(settings, report, kind)?;
    }
    Ok(())
}

/// One node that syncs every write, stopped.
fn start_one(kind: &Kind, settings: &Settings) -> Result<Server> {
    let kind = kind.keeping(Persistence::Always).ok_or_else(|| {
        Failure::new(format!("{} cannot be told to keep its data: see {{persistence}} in --help", kind.name))
    })?;
    let one = Server::start(&kind, settings)?;
    one.connect()?.command(&["SET", LONE_KEY, "x"])?;
    one.pause()?;
    Ok(one)
}

/// Measures the rows.
fn compare(
    settings: &Settings,
    report: &mut Report,
    cluster: &Cluster<'_>,
    one: &Server,
    rows: &[Row],
) -> Result<()> {
    let mut figures = Table::new(
        2,
        ["row", "servers", FIGURES[0].0, FIGURES[1].0, FIGURES[2].0, FIGURES[3].0, FIGURES[4].0],
    );
    let mut ratios =
        Table::new(1, ["row, three nodes / one", "requests/s", "CPU us/request", "p50 us", "p99 us"]);
    for row in rows {
        let (mut of_three, mut of_one) = (Vec::new(), Vec::new());
        for number in 1..=settings.rounds {
            of_three.push(cluster.round(row)?);
            of_one.push(round_of_one(settings, one, row)?);
            eprintln!(
                "{} {number}/{}: {} requests/s on three nodes, {} on one",
                row.name,
                settings.rounds,
                short(of_three[number - 1].client.requests_per_second),
                short(of_one[number - 1].client.requests_per_second)
            );
        }
        for (servers, rounds) in [("three nodes", &of_three), ("one node", &of_one)] {
            let cells = FIGURES.map(|(_, figure)| Spread::of(rounds.iter().map(figure)).write(short));
            figures.line([vec![row.name.to_owned(), servers.to_owned()], cells.into()].concat());
        }
        let ratio = |&(_, figure): &Figure| {
            let [three, one] =
                [&of_three, &of_one].map(|rounds| rounds.iter().map(figure).collect::<Vec<_>>());
            Spread::of_ratios(&three, &one).write(|ratio| format!("{ratio:.2}"))
        };
        let cells: Vec<String> = FIGURES[..4].iter().map(ratio).collect();
        ratios.line([vec![row.name.to_owned()], cells].concat());
    }
    let remark = format!(
        "Median (range) of {} alternating rounds; requests x {}. All nodes on CPU {}, client on CPU {}; CPU time is that of \
         all nodes. Writes are durable on a majority, on one node with appendfsync always. The rows lone and leader \
         go to the leader of one key, the others to all nodes as leaders are spread.",
        settings.rounds, settings.scale, settings.server_cpu, settings.client_cpu
    );
    report.table("Cluster of three nodes", &remark, &figures)?;
    report.table("Cluster of three nodes: ratios", "Ratios of the rounds of a pair, median (range).", &ratios)
}

/// Measures one node, which is stopped before and after.
fn round_of_one(settings: &Settings, one: &Server, row: &Row) -> Result<Round> {
    one.resume()?;
    let before = one.usage()?;
    let client = settings.clients.redis_benchmark(one, &row.options(settings.scale, false))?;
    let usage = one.usage()?.since(before);
    one.pause()?;
    Ok(Round { client, usage })
}

/// Kills the node that leads most shards, again and again, and measures until keys of all shards can be written.
fn fail_over(settings: &Settings, report: &mut Report, cluster: &mut Cluster<'_>) -> Result<()> {
    let (mut first_ms, mut last_ms) = (Vec::new(), Vec::new());
    for number in 1..=settings.kills {
        let leader = cluster.first_leader()?;
        let ports: Vec<u16> =
            (0..NODES).filter(|&node| node != leader).map(|node| cluster.ports[node].0).collect();
        let led = cluster.keys_led_by(leader)?;
        let writers = Writers::start(&ports);
        writers.wait_until_written(0, |_| true)?;
        let killed_ns = writers.now_ns();
        cluster.kill(leader);
        let is_led = |key: usize| led.contains(&key);
        let first = writers.wait_for_first(killed_ns, is_led)?;
        let last = writers.wait_until_written(killed_ns, is_led)?;
        drop(writers);
        let ms = |time_ns: u64| (time_ns - killed_ns) as f64 / 1e6;
        eprintln!("failover {number}/{}: {:.0} to {:.0} ms", settings.kills, ms(first), ms(last));
        first_ms.push(ms(first));
        last_ms.push(ms(last));
        cluster.start_again(leader)?;
        cluster.wait_until_whole()?;
    }
    let mut table = Table::new(1, ["from kill -9 of a leader until", "ms"]);
    for (what, ms) in
        [("the next write of one of its keys", first_ms), ("a write of each of its keys", last_ms)]
    {
        table.line([what.to_owned(), Spread::of(ms).write(short)]);
    }
    let remark = format!(
        "Median (range) of {} kills. The node that leads most shards is killed while {WRITERS} clients write {} keys through \
         the other two nodes, one request at a time each. Times run to the acknowledgement of a write that was sent after \
         the kill.",
        settings.kills,
        WRITERS * KEYS_OF_WRITER
    );
    report.table("Failover", &remark, &table)
}

/// Three nodes, or more once others have joined.
struct Cluster<'a> {
    kind: Kind,
    settings: &'a Settings,
    /// Ports of clients and of peers.
    ports: Vec<(u16, u16)>,
    directories: Vec<Arc<Directory>>,
    nodes: Vec<Option<Server>>,
}

impl<'a> Cluster<'a> {
    fn start(kind: &Kind, settings: &'a Settings) -> Result<Self> {
        let mut cluster = Self {
            kind: Kind { arguments: NODE_ARGUMENTS.into(), ..kind.with_cores(1) },
            settings,
            ports: Vec::new(),
            directories: Vec::new(),
            nodes: Vec::new(),
        };
        for _ in 0..NODES {
            cluster.start_another()?;
        }
        cluster.wait_until_whole()?;
        if settings.follower_cpu.is_some() {
            cluster.node(0).connect()?.command(&["CLUSTER", "FAILOVER"])?;
            let start = Instant::now();
            while cluster.leader_of(LONE_KEY)?.port != cluster.node(0).port {
                if start.elapsed() > WHOLE_TIMEOUT {
                    return Err(Failure::new("the first node does not lead".to_owned()));
                }
                process::pass(LOOK);
            }
        }
        Ok(cluster)
    }

    /// Starts a node that joins, or the first one. Returns its number.
    fn start_another(&mut self) -> Result<usize> {
        let node = self.nodes.len();
        self.ports.push((free_port()?, free_port()?));
        self.directories.push(Arc::new(Directory::new(&self.settings.directory)?));
        self.nodes.push(None);
        self.start_again(node)?;
        Ok(node)
    }

    fn start_again(&mut self, node: usize) -> Result<()> {
        let (port, peer_port) = self.ports[node];
        let how = match node {
            0 => "--cluster".to_owned(),
            _ => format!("--join 127.0.0.1:{}", self.ports[0].0),
        };
        let kind = Kind {
            name: format!("{}, node {node}", self.kind.name),
            first_cpu: self.settings.follower_cpu.filter(|_| node > 0),
            ..self.kind.with_arguments(&format!("--peer-port {peer_port} {how}"))
        };
        self.nodes[node] = Some(Server::start_at(&kind, self.settings, &self.directories[node], port)?);
        Ok(())
    }

    /// kill -9.
    fn kill(&mut self, node: usize) {
        // Servers are killed when they are dropped.
        self.nodes[node] = None;
    }

    fn node(&self, node: usize) -> &Server {
        self.nodes[node].as_ref().expect("only nodes that run are asked for")
    }

    fn running(&self) -> impl Iterator<Item = &Server> {
        self.nodes.iter().flatten()
    }

    /// What all nodes have used together.
    fn usage(&self) -> Result<Usage> {
        self.running().try_fold(Usage::default(), |sum, node| Ok(sum + node.usage()?))
    }

    /// Measures a row.
    fn round(&self, row: &Row) -> Result<Round> {
        let target = if row.is_lone { self.leader_of(LONE_KEY)? } else { self.node(0) };
        let before = self.usage()?;
        let options = row.options(self.settings.scale, true);
        let client = self.settings.clients.redis_benchmark(target, &options)?;
        Ok(Round { client, usage: self.usage()?.since(before) })
    }

    fn shards(&self, node: &Server) -> Result<Vec<Shard>> {
        let words = node.connect()?.words(&["CLUSTER", "SHARDS"])?;
        shards(&words)
            .ok_or_else(|| Failure::new(format!("{}: CLUSTER SHARDS answered {words:?}", node.name)))
    }

    fn wait_until_whole(&self) -> Result<()> {
        let start = Instant::now();
        for node in self.running() {
            loop {
                let seen = self.shards(node);
                if seen.as_ref().is_ok_and(|shards| is_whole(shards, self.nodes.len())) {
                    break;
                }
                if start.elapsed() > WHOLE_TIMEOUT {
                    return Err(Failure::new(format!("{} sees no whole cluster: {seen:?}", node.name)));
                }
                process::pass(LOOK);
            }
        }
        Ok(())
    }

    /// The node that leads the most slots.
    fn first_leader(&self) -> Result<usize> {
        let mut led: BTreeMap<u16, u64> = BTreeMap::new();
        for shard in self.shards(self.node(0))? {
            *led.entry(shard.leader_port).or_default() += shard.slots();
        }
        let (port, _) = led.into_iter().max_by_key(|&(_, slots)| slots).unwrap_or_default();
        self.node_at(port)
    }

    fn node_at(&self, port: u16) -> Result<usize> {
        let place = self.ports.iter().position(|&(own, _)| own == port);
        place.ok_or_else(|| Failure::new(format!("no node has port {port}")))
    }

    fn leader_of(&self, key: &str) -> Result<&Server> {
        let node = self.node(0);
        let slot = slot_of(&mut node.connect()?, key)?;
        let shards = self.shards(node)?;
        let shard = shards.iter().find(|shard| shard.has(slot));
        let shard = shard.ok_or_else(|| Failure::new(format!("nobody leads slot {slot}")))?;
        Ok(self.node(self.node_at(shard.leader_port)?))
    }

    /// Which of the writers' keys a node leads.
    fn keys_led_by(&self, node: usize) -> Result<Vec<usize>> {
        let shards = self.shards(self.node(0))?;
        let mut connection = self.node(0).connect()?;
        let mut led = Vec::new();
        for key in 0..WRITERS * KEYS_OF_WRITER {
            let slot = slot_of(&mut connection, &key_name(key))?;
            if shards.iter().any(|shard| shard.has(slot) && shard.leader_port == self.ports[node].0) {
                led.push(key);
            }
        }
        if led.is_empty() { Err(Failure::new("the first leader leads none of the keys")) } else { Ok(led) }
    }
}

fn slot_of(connection: &mut Connection, key: &str) -> Result<u64> {
    let reply = connection.command(&["CLUSTER", "KEYSLOT", key])?;
    reply.parse().map_err(|_| Failure::new(format!("CLUSTER KEYSLOT answered {reply}")))
}

fn key_name(key: usize) -> String {
    format!("failover:{key}")
}

/// Threads that write all the time, through nodes that stay.
struct Writers {
    shared: Arc<Shared>,
    threads: Vec<thread::JoinHandle<()>>,
}

struct Shared {
    start: Instant,
    ends: AtomicBool,
    /// When the last acknowledged write of each key was sent.
    sent_ns: Vec<AtomicU64>,
    /// What the last failed write was answered.
    last_error: Mutex<String>,
}

impl Writers {
    fn start(ports: &[u16]) -> Self {
        let shared = Arc::new(Shared {
            start: Instant::now(),
            ends: AtomicBool::new(false),
            sent_ns: (0..WRITERS * KEYS_OF_WRITER).map(|_| AtomicU64::new(0)).collect(),
            last_error: Mutex::new(String::new()),
        });
        let begin = |writer: usize| {
            let (shared, port) = (Arc::clone(&shared), ports[writer % ports.len()]);
            thread::spawn(move || shared.write(writer, port))
        };
        let threads = (0..WRITERS).map(begin).collect();
        Self { shared, threads }
    }

    fn now_ns(&self) -> u64 {
        self.shared.now_ns()
    }

    /// Waits until a write of each of the keys that was sent after `since_ns` is acknowledged. Returns when that was.
    fn wait_until_written(&self, since_ns: u64, is_meant: impl Fn(usize) -> bool) -> Result<u64> {
        self.wait(|written| written.iter().enumerate().all(|(key, &sent)| !is_meant(key) || sent > since_ns))
    }

    /// Waits until a write of one of the keys that was sent after `since_ns` is acknowledged. Returns when that was.
    fn wait_for_first(&self, since_ns: u64, is_meant: impl Fn(usize) -> bool) -> Result<u64> {
        self.wait(|written| written.iter().enumerate().any(|(key, &sent)| is_meant(key) && sent > since_ns))
    }

    fn wait(&self, is_there: impl Fn(&[u64]) -> bool) -> Result<u64> {
        let start = Instant::now();
        loop {
            let sent = self.shared.sent_ns.iter().map(|sent| sent.load(Ordering::Relaxed));
            if is_there(&sent.collect::<Vec<_>>()) {
                return Ok(self.now_ns());
            }
            if start.elapsed() > WHOLE_TIMEOUT {
                let error = self.shared.last_error.lock().map(|error| error.clone()).unwrap_or_default();
                return Err(Failure::new(format!("keys cannot be written; the last error: {error}")));
            }
            process::pass(Duration::from_millis(1));
        }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // Writers do not panic, and have nothing to say.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn write(&self, writer: usize, port: u16) {
        let mut connection = None;
        let mut number = 0;
        while !self.ends.load(Ordering::Relaxed) {
            let key = writer * KEYS_OF_WRITER + number % KEYS_OF_WRITER;
            number += 1;
            let name = key_name(key);
            let sent_ns = self.now_ns();
            let written = connection
                .take()
                .map_or_else(|| Connection::open(port), Ok)
                .and_then(|mut open| open.command(&["SET", &name, "x"]).map(|_| open));
            match written {
                Ok(open) => {
                    connection = Some(open);
                    self.sent_ns[key].fetch_max(sent_ns.max(1), Ordering::Relaxed);
                }
                Err(failure) => {
                    if let Ok(mut last_error) = self.last_error.lock() {
                        *last_error = failure.to_string();
                    }
                    process::pass(Duration::from_millis(1));
                }
            }
        }
    }
}

/// Slots that have the same replicas.
#[derive(Debug, Default, PartialEq)]
struct Shard {
    /// First and last slots.
    ranges: Vec<(u64, u64)>,
    leader_port: u16,
    replicas: usize,
    online: usize,
}

impl Shard {
    fn slots(&self) -> u64 {
        self.ranges.iter().map(|&(first, last)| last + 1 - first).sum()
    }

    fn has(&self, slot: u64) -> bool {
        self.ranges.iter().any(|&(first, last)| (first..=last).contains(&slot))
    }
}

/// Whether all slots have a leader and all replicas, and every one of so many nodes leads its share of them, or all but so.
fn is_whole(shards: &[Shard], nodes: usize) -> bool {
    let mut led: BTreeMap<u16, u64> = BTreeMap::new();
    for shard in shards {
        *led.entry(shard.leader_port).or_default() += shard.slots();
    }
    // Leadership is spread last.
    let is_share = |&slots: &u64| slots * nodes as u64 * 20 >= 16_384 * 19;
    led.len() == nodes
        && led.values().all(is_share)
        && led.values().sum::<u64>() == 16_384
        && shards
            .iter()
            .all(|shard| (shard.replicas, shard.online) == (REPLICAS, REPLICAS) && shard.leader_port > 0)
}

/// Reads a reply of CLUSTER SHARDS whose arrays have been joined; `None` if it is something else.
fn shards(words: &[String]) -> Option<Vec<Shard>> {
    let mut shards: Vec<Shard> = Vec::new();
    let mut words = words.iter().map(String::as_str).peekable();
    let mut port = 0;
    while let Some(name) = words.next() {
        if name == "slots" {
            let mut shard = Shard::default();
            while let Some(first) = words.next_if(|word| *word != "nodes") {
                shard.ranges.push((first.parse().ok()?, words.next()?.parse().ok()?));
            }
            words.next()?;
            shards.push(shard);
            continue;
        }
        let (value, shard) = (words.next()?, shards.last_mut()?);
        match name {
            "id" => shard.replicas += 1,
            "port" => port = value.parse().ok()?,
            "role" if value == "master" => shard.leader_port = port,
            "health" if value == "online" => shard.online += 1,
            _ => {}
        }
    }
    Some(shards)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn shards_are_read_from_joined_arrays() {
        let node = |port: u16, role: &str| {
            format!(
                "id x{port} port {port} ip 127.0.0.1 endpoint 127.0.0.1 role {role} replication-offset 7 health online "
            )
        };
        let whole = format!(
            "slots 0 5375 nodes {}{}{} slots 5376 9000 9001 10751 nodes {}{}{} slots 10752 16383 nodes {}{}{}",
            node(7001, "replica"),
            node(7002, "master"),
            node(7003, "replica"),
            node(7001, "master"),
            node(7002, "replica"),
            node(7003, "replica"),
            node(7001, "replica"),
            node(7002, "replica"),
            node(7003, "master"),
        );
        let read = shards(&words(&whole)).unwrap();
        assert!(is_whole(&read, 3) && !is_whole(&read, 4));
        let leaders: Vec<(u16, u64)> = read.iter().map(|shard| (shard.leader_port, shard.slots())).collect();
        assert_eq!(leaders, [(7002, 5376), (7001, 5376), (7003, 5632)]);
        assert!(read[1].has(9001) && !read[1].has(5375));
        assert!(!is_whole(&shards(&words(&whole.replacen("online", "loading", 1))).unwrap(), 3));
        assert!(!is_whole(&shards(&words(&whole.replacen("5375", "4000", 1))).unwrap(), 3));
        assert!(!is_whole(&shards(&words(&whole.replacen("master", "replica", 1))).unwrap(), 3));
        assert_eq!(shards(&words("role master")), None);
        assert_eq!(shards(&words("slots 0 x nodes")), None);
    }

    #[test]
    fn options_go_before_the_command() {
        let rows = rows();
        let options: Vec<String> = rows.iter().map(|row| row.options(0.1, true)).collect();
        assert_eq!(options[0], "--cluster -n 20000 -t set -c 1000 -P 1 -d 1024 -r 100000");
        assert_eq!(options[3], "-n 45000 -c 50 -P 1 GET lone");
        assert!(!rows[0].options(1.0, false).contains("--cluster"));
    }
}
