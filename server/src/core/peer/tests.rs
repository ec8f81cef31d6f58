//! Nodes that dial each other, on real rings and in one thread: what each core does next is the test's to say, what the kernel
//! does is waited for.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use duva_net::{
    Listener,
    files::Storage,
    mesh::mesh,
    ring::{Ring, RingOptions, WakeHandle},
};

use super::{
    frame::{self, FrameHeader, HEADER_BYTES, Kind, LINK_GROUP, META_GROUP},
    hello::{self, PeerIdentity},
    links::{Pushed, UNSENT_BYTES_MAX},
};
use crate::{
    config::Config,
    core::{
        Core,
        admin::{AdminReply, AdminRequest, Shared},
        connection::State,
    },
    launch,
};

/// How long a condition may take to come about: far longer than it does.
const PATIENCE: Duration = Duration::from_secs(30);

const CLUSTER: [u8; 16] = [0xC1; 16];

/// One node.
struct Site {
    number: u32,
    cores: Vec<Core<Ring>>,
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl Site {
    /// A node on so many cores, of which the last one accepts all links.
    fn new(number: u32, core_count: u16) -> Self {
        let config = Config { cores: core_count, shards: 8, append_only: false, ..Config::default() };
        let shared = Arc::new(Shared::new(config.clone(), None, 0, 0, "0".repeat(40)));
        shared.set_peer_listeners(0..1);
        let config = Arc::new(config);
        let mut address = None;
        let mut rings = Vec::new();
        for core in 0..usize::from(core_count) {
            let is_last = core + 1 == usize::from(core_count);
            let listener = is_last.then(|| Listener::tcp(SocketAddr::from(([127, 0, 0, 1], 0)), 0).unwrap());
            if let Some(listener) = &listener {
                address = Some(listener.local_address().unwrap());
            }
            let wake = WakeHandle::new().unwrap();
            let ring = Ring::new(RingOptions {
                submission_entries: 64,
                completion_entries: 256,
                buffer_count: 16,
                buffer_size_bytes: 16 << 10,
                listeners: listener.into_iter().collect(),
                storage: Storage::start(core, wake.clone()).unwrap(),
                wake,
                worker_cpus: None,
            });
            rings.push(ring.unwrap());
        }
        let wakes: Vec<WakeHandle> = rings.iter().map(Ring::wake_handle).collect();
        let endpoints = mesh(usize::from(core_count), 4);
        let cores = rings.into_iter().zip(endpoints).enumerate().map(|(core, (mut ring, endpoint))| {
            ring.set_wakes(wakes.clone());
            let node = launch::node(core, Arc::clone(&config), Arc::clone(&shared), endpoint, 7);
            let is_last = core + 1 == usize::from(core_count);
            let mut core = Core::new(ring, node, u32::from(is_last));
            let identity = Self::identity(number, core.node.core as u16, core_count);
            core.node.peers.configure(identity);
            core
        });
        Self { number, cores: cores.collect(), shared, address: address.expect("there is a core") }
    }

    fn identity(number: u32, core: u16, cores: u16) -> PeerIdentity {
        let node = [number as u8; 16];
        PeerIdentity { cluster: CLUSTER, node, number, core, cores, life: 1, epoch: 1, level: 2, agreed: 2 }
    }

    fn knows(&mut self, nodes: &[(u32, SocketAddr)]) {
        for core in &mut self.cores {
            core.node.peers.set_nodes(nodes);
        }
    }

    /// Whether all links to a node are up.
    fn is_linked_to(&self, number: u32) -> bool {
        self.cores.iter().all(|core| core.node.peers.is_up(number))
    }

    fn inbound_counts(&self) -> Vec<usize> {
        self.cores.iter().map(|core| core.node.peers.inbound.len()).collect()
    }

    fn turn(&mut self) {
        self.cores.iter_mut().for_each(turn);
    }

    /// The numbers in the payloads that a core has taken, of one group.
    fn numbers(&self, core: usize, group: u16) -> Vec<u32> {
        let taken = self.cores[core].node.peers.taken.iter().filter(|(_, header, _)| header.group == group);
        taken.map(|(_, _, payload)| u32::from_le_bytes(*payload.first_chunk().expect("a number"))).collect()
    }
}

/// One turn, which something is there to end.
fn turn(core: &mut Core<Ring>) {
    core.io().wake_handle().wake();
    core.turn();
}

/// Lets nodes run until something has come about.
fn run_until<const COUNT: usize>(
    what: &str,
    mut sites: [&mut Site; COUNT],
    mut has_come: impl FnMut(&mut [&mut Site; COUNT]) -> bool,
) {
    let end = Instant::now() + PATIENCE;
    while !has_come(&mut sites) {
        assert!(Instant::now() < end, "in vain: {what}");
        sites.iter_mut().for_each(|site| site.turn());
    }
}

/// Two nodes whose links are up, and belong to the cores that they are to.
fn pair(core_counts: [u16; 2]) -> (Site, Site) {
    let (mut a, mut b) = (Site::new(1, core_counts[0]), Site::new(2, core_counts[1]));
    let nodes = [(1, a.address), (2, b.address)];
    a.knows(&nodes);
    b.knows(&nodes);
    let total = |site: &Site| site.inbound_counts().iter().sum::<usize>();
    run_until("links come up", [&mut a, &mut b], |[a, b]| {
        a.is_linked_to(2) && b.is_linked_to(1) && total(b) == a.cores.len() && total(a) == b.cores.len()
    });
    (a, b)
}

fn push(site: &mut Site, core: usize, to: u32, group: u16, number: u32, length: usize) -> Pushed {
    let kind = if number.is_multiple_of(2) { Kind::Raft } else { Kind::Gossip };
    site.cores[core].node.peers.push(to, kind, number as u8, group, |out| {
        let start = out.len();
        out.extend_from_slice(&number.to_le_bytes());
        out.resize(start + length.max(4), number as u8);
    })
}

/// A connection that is no node's.
struct Stranger(TcpStream);

impl Stranger {
    fn new(site: &Site, bytes: &[u8]) -> Self {
        let mut stream = TcpStream::connect(site.address).unwrap();
        stream.write_all(bytes).unwrap();
        stream.set_nonblocking(true).unwrap();
        Self(stream)
    }

    fn hello(identity: PeerIdentity) -> Vec<u8> {
        Self::hello_to(identity, 1)
    }

    fn hello_to(identity: PeerIdentity, to: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        hello::push(&mut bytes, &identity, to);
        bytes
    }

    /// Whether the node has closed it. Nothing is ever sent on it.
    fn is_closed(&mut self) -> bool {
        match self.0.read(&mut [0; 10]) {
            Ok(count) => {
                assert_eq!(count, 0, "an accepted link is only received from");
                true
            }
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    }
}

#[test]
fn frames_arrive_in_order_at_the_core_of_their_group() {
    const COUNT: u32 = 2_000;
    let (mut a, mut b) = pair([2, 2]);
    // The second core accepts all; each link belongs to the core with its dialler's number.
    assert_eq!((a.inbound_counts(), b.inbound_counts()), (vec![1, 1], vec![1, 1]));
    let groups = [0, 3, 4, 7, META_GROUP, LINK_GROUP];
    let mut expected = vec![Vec::new(); groups.len()];
    for number in 0..COUNT {
        let place = number as usize % groups.len();
        let length = match number {
            700 => 3 << 20,
            _ => number as usize * 37 % 3000,
        };
        assert_eq!(push(&mut a, 1, 2, groups[place], number, length), Pushed::Queued);
        expected[place].push(number);
        if number % 100 == 0 {
            turn(&mut a.cores[1]);
        }
    }
    assert_eq!(push(&mut a, 1, 2, 8, 1, 10), Pushed::Queued);
    let taken = |site: &Site| site.cores.iter().map(|core| core.node.peers.taken.len()).sum::<usize>();
    run_until("all frames arrive", [&mut a, &mut b], |[_, b]| {
        taken(b) == COUNT as usize && b.cores[1].node.peers.counts.frames_misdirected == 1
    });
    for (group, expected) in groups.into_iter().zip(expected) {
        let core = match group {
            META_GROUP => 0,
            LINK_GROUP => 1,
            shard => usize::from(b.cores[0].node.owners[usize::from(shard)]),
        };
        assert_eq!(b.numbers(core, group), expected, "group {group}");
    }
    for (from, header, payload) in b.cores.iter().flat_map(|core| &core.node.peers.taken) {
        let number = u32::from_le_bytes(*payload.first_chunk().unwrap());
        let kind = if number.is_multiple_of(2) { Kind::Raft } else { Kind::Gossip };
        assert_eq!((*from, header.kind, header.flags), (1, kind, number as u8));
        assert!(payload[4..].iter().all(|&byte| byte == number as u8));
    }
    // None of it concerns clients.
    for site in [&mut a, &mut b] {
        assert_eq!((site.shared.client_count(), site.shared.next_client_id()), (0, 1));
        for core in &mut site.cores {
            let AdminReply::Report(report) = core.administer(AdminRequest::Report) else {
                panic!("a report is asked for")
            };
            assert_eq!((report.clients, core.node.stats.connections_received), (0, 0));
            assert_eq!(core.unread_bytes, 0);
            assert_eq!(core.node.peers.greeting_count, 0);
        }
    }
}

#[test]
fn a_broken_link_is_reported_and_comes_back() {
    let (mut a, mut b) = pair([1, 1]);
    assert!(a.cores[0].node.peers.broken_seen.is_empty());
    for round in 0..3 {
        let token = b.cores[0].node.peers.inbound[0].token;
        b.cores[0].close(token);
        let mut broken = Vec::new();
        run_until("the break is reported", [&mut a, &mut b], |[a, _]| {
            broken.append(&mut a.cores[0].node.peers.broken_seen);
            !broken.is_empty()
        });
        assert_eq!(broken, [2]);
        run_until("the link comes back", [&mut a, &mut b], |[a, b]| {
            a.is_linked_to(2) && b.inbound_counts() == [1]
        });
        assert_eq!(push(&mut a, 0, 2, 5, round, 100), Pushed::Queued);
        run_until("a frame arrives", [&mut a, &mut b], |[_, b]| b.numbers(0, 5).len() as u32 == round + 1);
        // What was to come on it is lost for the other node, whose own link is not concerned.
        assert_eq!(std::mem::take(&mut b.cores[0].node.peers.broken_seen), [1]);
    }
    assert_eq!(b.numbers(0, 5), [0, 1, 2]);
}

#[test]
fn all_cores_learn_of_a_broken_link_that_brought_their_answers() {
    // What b's cores ask is answered on the one link that a has to b.
    let (mut a, mut b) = pair([1, 2]);
    assert_eq!(b.inbound_counts(), [1, 0]);
    let token = b.cores[0].node.peers.inbound[0].token;
    b.cores[0].close(token);
    run_until("both cores are told", [&mut a, &mut b], |[_, b]| {
        b.cores.iter().all(|core| core.node.peers.broken_seen == [1])
    });
    // Their own links are not concerned.
    assert!(b.is_linked_to(1));
    run_until("the link comes back", [&mut a, &mut b], |[a, b]| {
        a.is_linked_to(2) && b.inbound_counts() == [1, 0]
    });
    assert!(b.cores.iter().all(|core| core.node.peers.broken_seen == [1]), "once is enough");
}

#[test]
fn a_node_that_does_not_listen_is_reported_and_a_node_that_moves_is_dialled_anew() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (mut a, mut b) = (Site::new(1, 1), Site::new(2, 1));
    a.knows(&[(2, closed)]);
    for _ in 0..2 {
        run_until("the failure is reported", [&mut a], |[a]| {
            std::mem::take(&mut a.cores[0].node.peers.broken_seen) == [2]
        });
        assert!(!a.is_linked_to(2));
        assert_eq!(push(&mut a, 0, 2, 5, 1, 10), Pushed::Dropped);
    }
    a.knows(&[(2, b.address)]);
    run_until("the link comes up", [&mut a, &mut b], |[a, b]| a.is_linked_to(2) && b.inbound_counts() == [1]);
    a.knows(&[]);
    run_until("the link is closed", [&mut a, &mut b], |[a, b]| {
        !a.is_linked_to(2) && a.cores[0].connections.count() == 0 && b.inbound_counts() == [0]
    });
}

#[test]
fn a_node_is_one_process_at_a_time() {
    let mut site = Site::new(1, 1);
    site.knows(&[(2, "127.0.0.1:1".parse().unwrap())]);
    let dial = |site: &Site, (life, epoch), core| {
        Stranger::new(site, &Stranger::hello(PeerIdentity { life, epoch, ..Site::identity(2, core, 2) }))
    };
    let mut first = dial(&site, (7, 5), 0);
    run_until("the first is accepted", [&mut site], |[site]| site.inbound_counts() == [1]);
    let mut other = dial(&site, (8, 6), 1);
    run_until("the other is closed", [&mut site], |_| other.is_closed());
    // More links of the same process are welcome.
    let mut second = dial(&site, (7, 5), 1);
    run_until("the second link is accepted", [&mut site], |[site]| site.inbound_counts() == [2]);
    assert!(!first.is_closed() && !second.is_closed());
    // Once they have been silent a later start of the directory may be the node, but no earlier one.
    for inbound in &mut site.cores[0].node.peers.inbound {
        inbound.heard_ns = 0;
    }
    for epoch in [4, 5] {
        let mut other = dial(&site, (8, epoch), 0);
        run_until("an older one is closed", [&mut site], |_| other.is_closed());
    }
    let mut other = dial(&site, (8, 6), 0);
    run_until("the other takes the place of the first", [&mut site], |_| first.is_closed());
    assert!(!other.is_closed() && !second.is_closed());
}

#[test]
fn whoever_is_no_node_of_the_cluster_is_closed() {
    let mut site = Site::new(1, 2);
    let foreign = PeerIdentity { cluster: [0xC2; 16], ..Site::identity(2, 0, 1) };
    let garbage: Vec<u8> = b"*1\r\n$4\r\nPING\r\n".repeat(20);
    let mut second = Stranger::hello(Site::identity(4, 0, 1));
    second.extend_from_within(..);
    let mut damaged = Stranger::hello(Site::identity(5, 0, 1));
    frame::push(&mut damaged, Kind::Raft, 0, 1, |out| out.extend_from_slice(b"damaged"));
    *damaged.last_mut().unwrap() ^= 1;
    let own = Stranger::hello(Site::identity(1, 0, 2));
    let outdated = Stranger::hello(PeerIdentity { level: 1, agreed: 1, ..Site::identity(2, 0, 1) });
    let ahead = Stranger::hello(PeerIdentity { level: 3, agreed: 3, ..Site::identity(2, 0, 1) });
    for bytes in [Stranger::hello(foreign), garbage, second, damaged, own, outdated, ahead] {
        let mut stranger = Stranger::new(&site, &bytes);
        run_until("a stranger is closed", [&mut site], |_| stranger.is_closed());
    }
    // One that is gone before it says anything is not worth a word.
    let refused =
        |site: &Site| site.cores.iter().map(|core| core.node.peers.counts.links_refused).sum::<u64>();
    assert_eq!(refused(&site), 7);
    drop(Stranger::new(&site, b""));
    // One that says nothing has its time.
    let mut silent = Stranger::new(&site, &Stranger::hello(foreign)[..20]);
    run_until("all are gone but one", [&mut site], |[site]| {
        site.cores[1].connections.count() == 1 && site.cores[1].node.peers.greeting_count == 1
    });
    assert!(!silent.is_closed());
    let token = site.cores[1].connections.iter().next().map(|connection| connection.token).unwrap();
    site.cores[1].end_greeting(token);
    run_until("the silent one is closed", [&mut site], |_| silent.is_closed());
    run_until("nothing is left", [&mut site], |[site]| {
        site.cores.iter().all(|core| core.connections.count() == 0)
    });
    assert_eq!(refused(&site), 8);
    assert!(site.cores.iter().all(|core| core.node.peers.greeting_count == 0));
    assert!(site.cores.iter().all(|core| core.node.peers.taken.is_empty()));
}

#[test]
fn no_link_is_accepted_outside_of_a_cluster() {
    let mut site = Site::new(1, 1);
    site.cores[0].node.peers = Default::default();
    let mut stranger = Stranger::new(&site, &Stranger::hello(Site::identity(2, 0, 1)));
    run_until("the stranger is closed", [&mut site], |_| stranger.is_closed());
    assert_eq!(site.cores[0].connections.count(), 0);
}

#[test]
fn a_newer_link_of_the_same_core_takes_the_place_of_the_older() {
    let mut site = Site::new(1, 2);
    let mut older = Stranger::new(&site, &Stranger::hello(Site::identity(2, 2, 4)));
    run_until("the older is there", [&mut site], |[site]| site.inbound_counts() == [1, 0]);
    let mut other = Stranger::new(&site, &Stranger::hello(Site::identity(2, 0, 4)));
    run_until("that of another core is there", [&mut site], |[site]| site.inbound_counts() == [2, 0]);
    let mut bytes = Stranger::hello(Site::identity(2, 2, 4));
    frame::push(&mut bytes, Kind::Gossip, 3, LINK_GROUP, |out| out.extend_from_slice(b"new"));
    let mut newer = Stranger::new(&site, &bytes);
    run_until("the older is closed", [&mut site], |[site]| {
        older.is_closed() && !site.cores[0].node.peers.taken.is_empty()
    });
    assert_eq!(site.inbound_counts(), [2, 0]);
    assert!(!newer.is_closed() && !other.is_closed());
    let header = FrameHeader { kind: Kind::Gossip, flags: 3, group: LINK_GROUP };
    assert_eq!(site.cores[0].node.peers.taken, [(2, header, b"new".to_vec())]);
}

#[test]
fn a_link_is_not_sent_on_by_the_node_that_accepts_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut site = Site::new(1, 1);
    site.knows(&[(2, listener.local_addr().unwrap())]);
    listener.set_nonblocking(true).unwrap();
    let mut accepted = None;
    run_until("the node dials", [&mut site], |_| {
        accepted = accepted.take().or_else(|| listener.accept().ok());
        accepted.is_some()
    });
    let (mut accepted, _) = accepted.unwrap();
    accepted.set_nonblocking(true).unwrap();
    let mut bytes = Vec::new();
    run_until("the Hello comes", [&mut site], |_| {
        let mut piece = [0; 100];
        if let Ok(count) = accepted.read(&mut piece) {
            bytes.extend_from_slice(&piece[..count]);
        }
        bytes.len() >= hello::HELLO_BYTES
    });
    assert_eq!(bytes, Stranger::hello_to(Site::identity(1, 0, 1), 2));
    accepted.write_all(b"what").unwrap();
    run_until("the link is closed", [&mut site], |[site]| {
        std::mem::take(&mut site.cores[0].node.peers.broken_seen) == [2]
    });
}

#[test]
fn a_node_that_stops_reading_costs_bounded_memory() {
    const FRAME_BYTES: usize = 64 << 10;
    let (mut a, mut b) = pair([1, 1]);
    // The other node does nothing any more; what its kernel takes is bounded.
    let mut queued = 0;
    let mut dropped_in_a_row = 0;
    while dropped_in_a_row < 100 {
        match push(&mut a, 0, 2, 5, 2, FRAME_BYTES) {
            Pushed::Queued => (queued, dropped_in_a_row) = (queued + 1, 0),
            Pushed::Dropped => dropped_in_a_row += 1,
        }
        turn(&mut a.cores[0]);
        let held: usize = a.cores[0].connections.iter().map(|connection| connection.output_bytes()).sum();
        assert!(held < UNSENT_BYTES_MAX + 2 * FRAME_BYTES, "{held} bytes");
        assert!(queued < 4096, "the kernel takes whatever it is given");
    }
    assert!(a.is_linked_to(2) && !a.cores[0].node.peers.has_room(2));
    // What is not Raft's is its sender's to hold back.
    assert_eq!(push(&mut a, 0, 2, 6, 1, 10), Pushed::Queued);
    run_until("what was taken arrives", [&mut a, &mut b], |[_, b]| b.numbers(0, 6) == [1]);
    assert_eq!(b.numbers(0, 5).len(), queued);
    assert!(a.cores[0].node.peers.has_room(2));
}

#[test]
fn a_core_that_takes_no_mail_presses_back_on_the_links() {
    const COUNT: u32 = 80;
    const FRAME_BYTES: usize = 1 << 20;
    let (mut a, mut b) = pair([2, 2]);
    let group = (0..8).find(|&shard| b.cores[0].node.owners[usize::from(shard)] == 0).unwrap();
    let is_held_back = |core: &mut Core<Ring>| {
        let token = core.node.peers.inbound[0].token;
        core.connections.get_mut(token).unwrap().state.any(State::HELD_BACK)
    };
    for number in 0..COUNT {
        // Odd numbers are not Raft's, and never dropped.
        assert_eq!(push(&mut a, 1, 2, group, 2 * number + 1, FRAME_BYTES), Pushed::Queued);
    }
    let end = Instant::now() + PATIENCE;
    while !is_held_back(&mut b.cores[1]) {
        assert!(Instant::now() < end, "nothing is held back");
        turn(&mut a.cores[1]);
        turn(&mut b.cores[1]);
    }
    // It comes to rest: the receive that was armed ends.
    for _ in 0..100 {
        turn(&mut a.cores[1]);
        turn(&mut b.cores[1]);
    }
    let core = &mut b.cores[1];
    let kept = core.node.peers.inbound[0].frames.kept_bytes();
    assert!(kept < 2 * FRAME_BYTES + HEADER_BYTES, "{kept} bytes are kept");
    assert!(core.node.mesh.outgoing(0).argument_bytes() < (4 << 20) + FRAME_BYTES);
    assert!(is_held_back(core));
    run_until("all arrive", [&mut a, &mut b], |[_, b]| b.numbers(0, group).len() == COUNT as usize);
    assert!(b.numbers(0, group).into_iter().eq((0..COUNT).map(|number| 2 * number + 1)));
    assert_eq!(b.number, 2);
}
