//! Machines that do everything at once, and whose own allocations do not count.
//!
//! The cores are the real ones, in one thread. Their network is in memory; their disks take everything and keep nothing
//! but what the start has written, which is all that anybody reads.

use std::{
    cell::RefCell,
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
};

use duva_net::{
    io::{Clock, Event, File, FileTask, Io, ReceiveEnd, Socket, Token, Wait},
    mesh::mesh,
};
use duva_raft::Role;
use duva_server::{
    cluster::{self, join::JoinAnswer},
    config::Config,
    core::{Core, admin::Shared},
    launch::{self, ClusterStart},
    storage::{Birth, Store},
};

use crate::{
    counting,
    support::{
        process::TemporaryDirectory,
        resp::{self, Reply},
    },
};

/// Steps in which the cores come to rest, however much they have to do.
const STEPS_MAX: usize = 200_000;

const CLIENT_LISTENER: u32 = 0;
const PEER_LISTENER: u32 = 1;
const PEER_PORT: u16 = 17_000;

/// The wall clock at the beginning, in milliseconds since the Unix epoch, and how long the machines have been up.
const START_MS: u64 = 1_800_000_000_000;
const UPTIME_NS: u64 = 1_000_000_000_000_000;

/// Simulated time in which a cluster has formed, in milliseconds.
const FORM_MS: u64 = 60_000;

/// One core's kernel.
#[derive(Default)]
struct Kernel {
    events: VecDeque<Event<Vec<u8>>>,
    accepts: [bool; 2],
}

/// An end of a connection. Its number is its socket.
struct End {
    other: usize,
    /// `None`: a client's.
    kernel: Option<usize>,
    /// What has arrived and was not taken.
    arrived: Vec<u8>,
    /// Whether nothing more arrives.
    is_over: bool,
    receive: Option<Token>,
    receive_into: Option<(Token, Vec<u8>, usize)>,
}

/// What all cores run on.
struct World {
    now_ns: u64,
    draws: u64,
    cores: usize,
    kernels: Vec<Kernel>,
    ends: Vec<End>,
}

/// A core's way to it.
struct Door {
    kernel: usize,
    world: Rc<RefCell<World>>,
}

/// A client's connection.
#[derive(Clone, Copy)]
pub(crate) struct Client(usize);

struct Member {
    cores: Vec<(Core<Door>, Option<Wait>)>,
    _directory: TemporaryDirectory,
}

/// The nodes of a cluster, or one server alone.
pub(crate) struct Nodes {
    world: Rc<RefCell<World>>,
    members: Vec<Member>,
}

fn address_of(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, node as u8 + 1)
}

impl Nodes {
    fn new(cores: u16) -> Self {
        let cores = usize::from(cores);
        let world = World { now_ns: UPTIME_NS, draws: 0, cores, kernels: Vec::new(), ends: Vec::new() };
        Self { world: Rc::new(RefCell::new(world)), members: Vec::new() }
    }

    /// A server alone.
    pub(crate) fn alone(config: &Config) -> Self {
        let mut this = Self::new(config.cores);
        this.start(config, None);
        this.settle();
        this
    }

    /// A cluster of so many nodes, in which every shard has a replica on three and every node leads some.
    pub(crate) fn cluster(config: &Config, count: usize) -> Self {
        let mut this = Self::new(config.cores);
        let config = |node: usize| Config {
            is_cluster_enabled: true,
            cluster: node == 0,
            announce_host: Some(address_of(node).to_string()),
            peer_port: PEER_PORT,
            port: 7000,
            ..config.clone()
        };
        this.start(&config(0), None);
        for node in 1..count {
            let client = this.connect(0);
            let id = format!("{:032x}", node + 1);
            let (host, port) = (address_of(node).to_string(), PEER_PORT.to_string());
            let words = vec!["CLUSTER", "JOIN", &id, &host, "7000", &port];
            let answer = this.until("a node is let in", |this| {
                this.send(client, std::slice::from_ref(&words));
                this.settle();
                this.replies(client).pop().and_then(|reply| match reply {
                    Reply::Text(b'$', bytes) => Some(JoinAnswer::decode(&bytes).expect("an answer")),
                    _ => None,
                })
            });
            this.start(&config(node), Some(answer));
        }
        this.until("the cluster forms", |this| this.is_formed().then_some(()));
        // What follows from that is over.
        (0..300).for_each(|_| this.pass_ms(10));
        assert!(this.is_formed(), "a cluster that has formed stays so");
        this
    }

    fn until<T>(&mut self, what: &str, mut attempt: impl FnMut(&mut Self) -> Option<T>) -> T {
        for _ in 0..FORM_MS / 10 {
            if let Some(outcome) = attempt(self) {
                return outcome;
            }
            self.pass_ms(10);
        }
        panic!("in vain: {what}")
    }

    /// Whether every shard has a replica that votes on each of three nodes, and every node leads about as many as the others.
    fn is_formed(&self) -> bool {
        let replicas = self.members.iter().flat_map(|member| &member.cores);
        let replicas = replicas.filter_map(|(core, _)| core.node().groups.as_ref());
        let voters = replicas.flat_map(|groups| groups.replicas()).filter(|(_, raft)| {
            raft.is_voter() && raft.leader().is_some() && raft.membership().voters.len() == 3
        });
        let shards = usize::from(self.members[0].cores[0].0.node().config.shards);
        let least = shards / self.members.len();
        voters.count() == 3 * shards
            && (0..self.members.len()).all(|node| self.shards_led_by(node).len() >= least)
    }

    /// The shards that a node leads.
    pub(crate) fn shards_led_by(&self, node: usize) -> Vec<usize> {
        let groups = self.members[node].cores.iter().filter_map(|(core, _)| core.node().groups.as_ref());
        let replicas = groups.flat_map(|groups| groups.replicas());
        replicas
            .filter(|(_, raft)| raft.role() == Role::Leader)
            .map(|(shard, _)| usize::from(shard))
            .collect()
    }

    /// So many keys of some shards.
    pub(crate) fn keys_of(&self, shards: &[usize], count: usize) -> Vec<String> {
        let executor = &self.members[0].cores[0].0.node().executor;
        let is_there = |key: &String| {
            let slot = executor.hasher.key(key.as_bytes()).slot;
            shards.contains(&executor.shards.number_of(slot))
        };
        (0..).map(|number| format!("key:{number}")).filter(is_there).take(count).collect()
    }

    fn start(&mut self, config: &Config, joined: Option<JoinAnswer>) {
        let node = self.members.len();
        let directory = TemporaryDirectory::new();
        let config = Config { directory: directory.path().to_owned(), ..config.clone() };
        let birth = Birth {
            cluster: joined.as_ref().map_or([9; 16], |answer| answer.state.cluster),
            node: (node as u128 + 1).to_be_bytes(),
            shards: config.shards,
            hash_seed: 7,
        };
        let mut store = Store::open(&config, Some(&birth)).unwrap_or_else(|error| panic!("{error}"));
        let file = joined.map(JoinAnswer::into_file);
        let begun = config.is_cluster_enabled.then(|| {
            let start =
                cluster::start::open(&config, &mut store, file).unwrap_or_else(|error| panic!("{error}"));
            store.set_cluster();
            let start = start.expect("it belongs to a cluster");
            ClusterStart::new(start, &config).begun_at(self.world.borrow().now_ns)
        });
        let shared = Arc::new(Shared::new(config.clone(), None, config.port, START_MS, "0".repeat(40)));
        shared.set_peer_listeners(PEER_LISTENER..PEER_LISTENER + 1);
        if let Some(earlier) = store.earlier() {
            shared.set_earlier_segments(Arc::clone(earlier));
        }
        let count = usize::from(config.cores);
        let config = Arc::new(config);
        let loaded = mesh(count, 4).into_iter().enumerate().map(|(core, endpoint)| {
            let (config, shared, seed) =
                (Arc::clone(&config), Arc::clone(&shared), (node * count + core) as u64);
            launch::load(core, config, shared, endpoint, &store, begun.as_ref(), seed + 1)
                .unwrap_or_else(|error| panic!("{error}"))
        });
        let loaded: Vec<_> = loaded.collect();
        store.commit().unwrap_or_else(|error| panic!("{error}"));
        let cores = loaded.into_iter().map(|loaded| {
            let mut world = self.world.borrow_mut();
            world.kernels.push(Kernel::default());
            let kernel = world.kernels.len() - 1;
            drop(world);
            let door = Door { kernel, world: Rc::clone(&self.world) };
            (Core::new(door, loaded, PEER_LISTENER + 1), None)
        });
        let cores = cores.collect();
        self.members.push(Member { cores, _directory: directory });
        self.settle();
    }

    /// Time passes, and everybody looks what is due.
    pub(crate) fn pass_ms(&mut self, ms: u64) {
        let mut world = self.world.borrow_mut();
        world.now_ns += ms * 1_000_000;
        world.kernels.iter_mut().for_each(|kernel| kernel.events.push_back(Event::Woken));
        drop(world);
        self.settle();
    }

    /// Lets all cores run until they sleep.
    pub(crate) fn settle(&mut self) {
        for _ in 0..STEPS_MAX {
            let mut is_busy = false;
            for node in 0..self.members.len() {
                for core in 0..self.members[node].cores.len() {
                    is_busy |= self.step(node, core);
                }
            }
            if !is_busy {
                return;
            }
        }
        panic!("the cores do not come to rest");
    }

    /// One turn of a core, or the half of one that is left; false: it sleeps.
    fn step(&mut self, node: usize, number: usize) -> bool {
        let count = self.members[node].cores.len();
        let (core, waiting) = &mut self.members[node].cores[number];
        let Some(wait) = waiting.take() else {
            *waiting = Some(counting::of(node, || core.begin_turn(1)));
            return true;
        };
        let has_events = !self.world.borrow().kernels[node * count + number].events.is_empty();
        if matches!(wait, Wait::Block { .. }) && !has_events {
            *waiting = Some(wait);
            return false;
        }
        counting::of(node, || core.end_turn(wait));
        true
    }

    /// Connects to a node.
    pub(crate) fn connect(&mut self, node: usize) -> Client {
        let (client, server) = self.world.borrow_mut().pair(None, node, CLIENT_LISTENER);
        assert!(server.is_some(), "a node listens");
        self.settle();
        Client(client)
    }

    /// Sends requests. Nothing is served before the cores run.
    pub(crate) fn send<W: AsRef<[u8]>>(&mut self, client: Client, requests: &[Vec<W>]) {
        let mut bytes = Vec::new();
        requests.iter().for_each(|words| resp::encode_request(words, &mut bytes));
        let mut world = self.world.borrow_mut();
        let other = world.ends[client.0].other;
        world.ends[other].arrived.extend_from_slice(&bytes);
        world.deliver(other);
    }

    /// The replies that have come since this was asked last.
    pub(crate) fn replies(&mut self, client: Client) -> Vec<Reply> {
        let bytes = std::mem::take(&mut self.world.borrow_mut().ends[client.0].arrived);
        let mut replies = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (reply, length) = resp::parse(rest).expect("a reply").expect("replies leave whole");
            replies.push(reply);
            rest = &rest[length..];
        }
        replies
    }
}

impl World {
    /// Connects somebody to a node: both ends, if the node listens.
    fn pair(&mut self, kernel: Option<usize>, node: usize, listener: u32) -> (usize, Option<usize>) {
        let place = node * self.cores;
        let (here, there) = (self.ends.len(), self.ends.len() + 1);
        let is_heard = self.kernels.get(place).is_some_and(|kernel| kernel.accepts[listener as usize]);
        for (other, kernel) in [(there, kernel), (here, Some(place))] {
            self.ends.push(End {
                other,
                kernel,
                arrived: Vec::new(),
                is_over: false,
                receive: None,
                receive_into: None,
            });
        }
        if is_heard {
            let result = Ok(Socket(there as i32));
            self.kernels[place].events.push_back(Event::Accepted { listener, result, armed: true });
        }
        (here, is_heard.then_some(there))
    }

    /// Gives what has arrived to whoever receives.
    fn deliver(&mut self, number: usize) {
        let end = &mut self.ends[number];
        let Some(kernel) = end.kernel else { return };
        let events = &mut self.kernels[kernel].events;
        if let Some(connection) = end.receive {
            // What a buffer of the ring holds.
            for piece in std::mem::take(&mut end.arrived).chunks(32 << 10) {
                let result = Ok(piece.to_vec());
                events.push_back(Event::Received { connection, result, armed: true });
            }
            if end.is_over {
                end.receive = None;
                let result = Err(ReceiveEnd::Closed);
                events.push_back(Event::Received { connection, result, armed: false });
            }
        } else if let Some((connection, mut buffer, length_max)) =
            end.receive_into.take_if(|_| end.is_over || !end.arrived.is_empty())
        {
            let room = length_max.min(buffer.capacity() - buffer.len());
            let count = end.arrived.len().min(room);
            buffer.extend(end.arrived.drain(..count));
            let result = if count > 0 { Ok(count) } else { Err(ReceiveEnd::Closed) };
            events.push_back(Event::ReceivedInto { connection, buffer, result });
        }
    }
}

impl Door {
    fn with<T>(&self, work: impl FnOnce(&mut World) -> T) -> T {
        counting::not(|| work(&mut self.world.borrow_mut()))
    }

    fn tell(&self, event: Event<Vec<u8>>) {
        self.with(|world| world.kernels[self.kernel].events.push_back(event));
    }
}

impl Io for Door {
    type Buffer = Vec<u8>;

    fn clock(&mut self) -> Clock {
        self.with(|world| Clock {
            wall_ms: START_MS + (world.now_ns - UPTIME_NS) / 1_000_000,
            monotonic_ns: world.now_ns,
        })
    }

    fn random(&mut self) -> u64 {
        self.with(|world| {
            world.draws += 1;
            world.draws.wrapping_mul(0x9E37_79B9_7F4A_7C15)
        })
    }

    fn accept(&mut self, listener: u32) {
        self.with(|world| world.kernels[self.kernel].accepts[listener as usize] = true);
    }

    fn connect(&mut self, ticket: u64, address: SocketAddr) {
        let IpAddr::V4(host) = address.ip() else { panic!("{address} is no node's") };
        let node = usize::from(host.octets()[3]) - 1;
        let (here, there) = self.with(|world| world.pair(Some(self.kernel), node, PEER_LISTENER));
        let result = there.map(|_| Socket(here as i32)).ok_or(libc::ECONNREFUSED);
        self.tell(Event::Connected { ticket, result });
    }

    fn receive(&mut self, connection: Token, socket: Socket) {
        self.with(|world| {
            let number = socket.0 as usize;
            world.ends[number].receive = Some(connection);
            world.ends[number].kernel = Some(self.kernel);
            world.deliver(number);
        });
    }

    fn receive_into(&mut self, connection: Token, socket: Socket, buffer: Vec<u8>, length_max: usize) {
        self.with(|world| {
            let number = socket.0 as usize;
            world.ends[number].receive_into = Some((connection, buffer, length_max));
            world.ends[number].kernel = Some(self.kernel);
            world.deliver(number);
        });
    }

    fn cancel_receive(&mut self, connection: Token) {
        self.with(|world| {
            let kernel = Some(self.kernel);
            let mut ends = world.ends.iter_mut().filter(|end| end.kernel == kernel);
            if let Some(end) = ends.find(|end| end.receive == Some(connection)) {
                end.receive = None;
                let result = Err(ReceiveEnd::Cancelled);
                let event = Event::Received { connection, result, armed: false };
                world.kernels[self.kernel].events.push_back(event);
            }
        });
    }

    fn recycle(&mut self, _buffer: Vec<u8>) {}

    fn send(&mut self, connection: Token, socket: Socket, buffer: Vec<u8>, offset: usize) {
        self.with(|world| {
            let other = world.ends[socket.0 as usize].other;
            let count = buffer.len() - offset;
            world.ends[other].arrived.extend_from_slice(&buffer[offset..]);
            world.deliver(other);
            let event = Event::Sent { connection, buffer, result: Ok(count) };
            world.kernels[self.kernel].events.push_back(event);
        });
    }

    fn shutdown(&mut self, socket: Socket) {
        self.with(|world| {
            let number = socket.0 as usize;
            for number in [number, world.ends[number].other] {
                world.ends[number].is_over = true;
                world.deliver(number);
            }
        });
    }

    fn close(&mut self, socket: Socket) {
        self.shutdown(socket);
    }

    fn addresses(&mut self, _socket: Socket) -> (String, String) {
        (String::new(), String::new())
    }

    fn set_keepalive(&mut self, _seconds: u32) {}

    fn file_task(&mut self, ticket: u64, task: FileTask) {
        counting::not(|| {
            assert!(!task.is_output(), "nobody saves, and nobody lacks what is not in memory: {task:?}");
            drop(task);
        });
        self.tell(Event::FileDone { ticket, buffer: Vec::new(), result: Ok(()) });
    }

    fn write_file(&mut self, _file: File, _bytes: &[u8], _offset_bytes: u64) -> Result<(), i32> {
        Ok(())
    }

    fn sync_file(&mut self, ticket: u64, _file: File, _is_first: bool) {
        self.tell(Event::Synced { ticket, result: Ok(()) });
    }

    fn wake(&mut self, core: usize) {
        self.with(|world| {
            let first = self.kernel / world.cores * world.cores;
            world.kernels[first + core].events.push_back(Event::Woken);
        });
    }

    fn turn(&mut self, _wait: Wait) {}

    fn next_event(&mut self) -> Option<Event<Vec<u8>>> {
        self.with(|world| world.kernels[self.kernel].events.pop_front())
    }

    fn can_batch(&self) -> bool {
        false
    }
}
