//! The simulated network: connections, what is on its way on them, and which ways are cut.
//!
//! Invariants, as TCP keeps them:
//!
//! - Bytes of one direction of a connection arrive in order and without gaps, up to its end. Those of different connections know
//!   nothing of one another.
//! - Where the way is cut, nothing arrives, nor is lost: it is sent again once the way is free. A link's dialler gives up when
//!   what it has sent is not acknowledged for some seconds, for want of either way; the other end need not learn of that.
//! - A process that is killed ends its connections; a machine that loses its power says nothing until it is back.

use std::collections::VecDeque;

use crate::sim::random::Random;

/// ECONNRESET, ETIMEDOUT and EPIPE, as Linux numbers them.
pub(super) const CONNECTION_RESET: i32 = 104;
pub(super) const TIMED_OUT: i32 = 110;
pub(super) const BROKEN_PIPE: i32 = 32;

/// How long what a link's dialler has sent may be unacknowledged, in nanoseconds.
const UNACKNOWLEDGED_NS_MAX: u64 = 5_000_000_000;

/// How long after a way is free again what was sent meanwhile is sent anew at the latest, in nanoseconds.
const RESEND_NS_MAX: u64 = 400_000_000;

/// Who is at an end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// A client, which every node can reach.
    Client,
    /// This node.
    Node(usize),
}

/// How a direction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Nothing more is sent.
    Finish,
    /// The connection is gone.
    Reset,
}

/// An end of a connection: 0 is the dialler's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) connection: usize,
    pub(super) side: usize,
}

/// What an end has to say to its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// So many bytes have arrived.
    Bytes(usize),
    /// Nothing more will.
    Ended(Ending),
    /// It gave up, with this errno.
    Broken(i32),
}

/// How an end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Closed,
    /// Its machine has lost its power, and knows nothing of it.
    Vanished,
    Broken(i32),
}

/// Bytes on their way.
struct Segment {
    at_ns: u64,
    sent_ns: u64,
    bytes: Vec<u8>,
}

/// One direction.
#[derive(Default)]
struct Lane {
    flight: VecDeque<Segment>,
    flight_bytes: usize,
    /// What has arrived and was not received.
    arrived: VecDeque<u8>,
    /// When the last of what was sent arrives.
    last_ns: u64,
    /// Its end, on its way, and there.
    ending: Option<(u64, Ending)>,
    ended: Option<Ending>,
    /// When that was sent which has arrived and could not be acknowledged.
    unacknowledged_ns: Option<u64>,
}

struct Connection {
    hosts: [Host; 2],
    states: [State; 2],
    /// What side 0 sends, and what side 1 sends.
    lanes: [Lane; 2],
    /// How much of a direction the kernels hold.
    window_bytes: usize,
}

/// All connections there ever were.
pub(super) struct Network {
    random: Random,
    connections: Vec<Connection>,
    /// Whether nothing gets from a node to another, by both.
    blocked: Vec<Vec<bool>>,
    /// Whether a node's machine has power.
    is_up: Vec<bool>,
    /// How long bytes take, at most, but for those that are late, one time in so many.
    delay_ns: u64,
    slow: u64,
}

impl Network {
    pub(super) fn new(mut random: Random, nodes: usize) -> Self {
        Self {
            delay_ns: random.pick(&[50_000, 500_000, 4_000_000]),
            slow: random.pick(&[0, 20, 200]),
            random,
            connections: Vec::new(),
            blocked: vec![vec![false; nodes]; nodes],
            is_up: vec![true; nodes],
        }
    }

    /// How long something takes to arrive.
    pub(super) fn delay_ns(&mut self) -> u64 {
        if self.random.one_in(self.slow) {
            self.random.between(10_000_000, 80_000_000)
        } else {
            self.random.between(self.delay_ns / 4, self.delay_ns)
        }
    }

    /// Nothing is late any more.
    pub(super) fn calm(&mut self) {
        self.slow = 0;
    }

    /// Whether bytes get from one host to another now.
    pub(super) fn is_open(&self, from: Host, to: Host) -> bool {
        let is_up = |host| match host {
            Host::Client => true,
            Host::Node(node) => self.is_up[node],
        };
        let is_cut = match (from, to) {
            (Host::Node(from), Host::Node(to)) => self.blocked[from][to],
            _ => false,
        };
        is_up(from) && is_up(to) && !is_cut
    }

    /// Cuts the way from one node to another, or frees it.
    pub(super) fn set_blocked(&mut self, from: usize, to: usize, is_blocked: bool, now_ns: u64) {
        if std::mem::replace(&mut self.blocked[from][to], is_blocked) && !is_blocked {
            self.resend(
                |from_host, to_host| (from_host, to_host) == (Host::Node(from), Host::Node(to)),
                now_ns,
            );
        }
    }

    /// Every way is free.
    pub(super) fn heal(&mut self, now_ns: u64) {
        for from in 0..self.blocked.len() {
            for to in 0..self.blocked.len() {
                self.set_blocked(from, to, false, now_ns);
            }
        }
    }

    /// What waits on these ways is sent again.
    fn resend(&mut self, is_meant: impl Fn(Host, Host) -> bool, now_ns: u64) {
        for connection in &mut self.connections {
            for side in 0..2 {
                if !is_meant(connection.hosts[side], connection.hosts[1 - side]) {
                    continue;
                }
                let lane = &mut connection.lanes[side];
                let at_ns = now_ns + self.random.below(RESEND_NS_MAX);
                for segment in &mut lane.flight {
                    segment.at_ns = segment.at_ns.max(at_ns);
                }
                if let Some((ending_ns, _)) = &mut lane.ending {
                    *ending_ns = (*ending_ns).max(at_ns);
                }
                lane.last_ns = lane.last_ns.max(at_ns);
            }
        }
    }

    /// A new connection between hosts that can reach one another; the ends are open.
    pub(super) fn connect(&mut self, from: Host, to: Host) -> usize {
        let window_bytes = self.random.pick(&[4_000, 64 << 10, 256 << 10]);
        self.connections.push(Connection {
            hosts: [from, to],
            states: [State::Open; 2],
            lanes: Default::default(),
            window_bytes,
        });
        self.connections.len() - 1
    }

    /// How much may be sent; the errno if nothing ever may.
    pub(super) fn room(&mut self, end: End, now_ns: u64) -> Result<usize, i32> {
        self.deliver(end.connection, now_ns);
        let connection = &self.connections[end.connection];
        match connection.states[end.side] {
            State::Open => {}
            State::Broken(errno) => return Err(errno),
            State::Closed | State::Vanished => return Err(BROKEN_PIPE),
        }
        if connection.lanes[1 - end.side].ended == Some(Ending::Reset) {
            return Err(BROKEN_PIPE);
        }
        let lane = &connection.lanes[end.side];
        let held = lane.flight_bytes + lane.arrived.len();
        Ok(connection.window_bytes.saturating_sub(held))
    }

    /// Sends, within [`Self::room`]; in vain where somebody between has broken the connection.
    pub(super) fn send(&mut self, end: End, bytes: &[u8], now_ns: u64) {
        let arrives_ns = now_ns + self.delay_ns();
        let lane = &mut self.connections[end.connection].lanes[end.side];
        if lane.ending.is_some() || lane.ended.is_some() {
            return;
        }
        lane.last_ns = lane.last_ns.max(arrives_ns);
        lane.flight_bytes += bytes.len();
        lane.flight.push_back(Segment { at_ns: lane.last_ns, sent_ns: now_ns, bytes: bytes.to_vec() });
    }

    /// What there is for an end; `None`: nothing yet.
    pub(super) fn news(&mut self, end: End, now_ns: u64) -> Option<News> {
        self.deliver(end.connection, now_ns);
        let connection = &self.connections[end.connection];
        if let State::Broken(errno) = connection.states[end.side] {
            return Some(News::Broken(errno));
        }
        let lane = &connection.lanes[1 - end.side];
        if !lane.arrived.is_empty() {
            return Some(News::Bytes(lane.arrived.len()));
        }
        lane.ended.map(News::Ended)
    }

    /// Receives what has arrived, `count` bytes of it.
    pub(super) fn receive(&mut self, end: End, count: usize) -> Vec<u8> {
        self.connections[end.connection].lanes[1 - end.side].arrived.drain(..count).collect()
    }

    /// When there is something new for an end, if nothing happens before; it may be in the past.
    pub(super) fn next_ns(&self, end: End) -> Option<u64> {
        let connection = &self.connections[end.connection];
        let [own, other] = [connection.hosts[end.side], connection.hosts[1 - end.side]];
        let lane = &connection.lanes[1 - end.side];
        if !lane.arrived.is_empty() || lane.ended.is_some() || connection.states[end.side] != State::Open {
            return Some(0);
        }
        let is_open = self.is_open(other, own);
        let arrival_ns =
            lane.flight.front().map(|segment| segment.at_ns).or(lane.ending.map(|(at_ns, _)| at_ns));
        let given_up_ns = connection.gives_up_ns(end.side).filter(|_| !is_open || !self.is_open(own, other));
        arrival_ns.filter(|_| is_open).into_iter().chain(given_up_ns).min()
    }

    /// When there may be room to send, if there is none now.
    pub(super) fn room_ns(&self, end: End) -> Option<u64> {
        let connection = &self.connections[end.connection];
        let lane = &connection.lanes[end.side];
        let is_full = lane.flight_bytes + lane.arrived.len() >= connection.window_bytes;
        let is_over = connection.states[end.side] != State::Open
            || connection.lanes[1 - end.side].ended == Some(Ending::Reset);
        if !is_full || is_over { Some(0) } else { self.next_ns(end) }
    }

    /// A process closes its end, or ends what it sends.
    pub(super) fn close(&mut self, end: End, is_whole: bool, now_ns: u64) {
        self.deliver(end.connection, now_ns);
        let at_ns = now_ns + self.delay_ns();
        let connection = &mut self.connections[end.connection];
        let has_unread = !connection.lanes[1 - end.side].arrived.is_empty();
        if is_whole {
            if connection.states[end.side] == State::Vanished {
                return;
            }
            connection.states[end.side] = State::Closed;
            connection.lanes[1 - end.side].arrived.clear();
        }
        let ending = if is_whole && has_unread { Ending::Reset } else { Ending::Finish };
        connection.lanes[end.side].end(ending, at_ns);
    }

    /// Whoever is between breaks a connection: both ends learn of it.
    pub(super) fn break_up(&mut self, connection: usize, now_ns: u64) {
        for side in 0..2 {
            let at_ns = now_ns + self.delay_ns();
            let lane = &mut self.connections[connection].lanes[side];
            lane.lose();
            lane.ending = None;
            lane.end(Ending::Reset, at_ns);
        }
    }

    /// Connections between two nodes that both use.
    pub(super) fn links(&self) -> Vec<usize> {
        let is_link = |connection: &Connection| {
            connection.hosts.iter().all(|host| *host != Host::Client)
                && connection.states == [State::Open; 2]
                && connection.lanes.iter().all(|lane| lane.ended.is_none())
        };
        (0..self.connections.len()).filter(|&number| is_link(&self.connections[number])).collect()
    }

    /// A node's process ends, with all its connections; without power nobody says so.
    pub(super) fn end_node(&mut self, node: usize, has_power: bool, now_ns: u64) {
        for number in 0..self.connections.len() {
            self.deliver(number, now_ns);
            for side in 0..2 {
                let connection = &self.connections[number];
                if connection.hosts[side] != Host::Node(node) || connection.states[side] == State::Vanished {
                    continue;
                }
                let is_closed = connection.states[side] == State::Closed;
                let at_ns = now_ns + self.delay_ns();
                let is_cut_short = self.random.one_in(2);
                let connection = &mut self.connections[number];
                connection.lanes[1 - side].arrived.clear();
                let lane = &mut connection.lanes[side];
                if !has_power {
                    connection.states[side] = State::Vanished;
                    lane.lose();
                    lane.ending = None;
                } else if !is_closed {
                    connection.states[side] = State::Closed;
                    if is_cut_short {
                        lane.lose();
                    }
                    lane.end(if is_cut_short { Ending::Reset } else { Ending::Finish }, at_ns);
                }
            }
        }
        self.is_up[node] = has_power;
    }

    /// A node's machine has power again: what others believe to be connected is not.
    pub(super) fn restore_power(&mut self, node: usize, now_ns: u64) {
        if std::mem::replace(&mut self.is_up[node], true) {
            return;
        }
        for connection in &mut self.connections {
            for side in 0..2 {
                if connection.hosts[side] == Host::Node(node) && connection.states[side] == State::Vanished {
                    connection.states[side] = State::Closed;
                    connection.lanes[1 - side].lose();
                    let at_ns = now_ns + self.random.below(RESEND_NS_MAX);
                    connection.lanes[side].end(Ending::Reset, at_ns);
                }
            }
        }
        self.resend(|from, to| from == Host::Node(node) || to == Host::Node(node), now_ns);
    }

    /// Lets arrive on a connection what has by now.
    fn deliver(&mut self, number: usize, now_ns: u64) {
        for side in 0..2 {
            let connection = &self.connections[number];
            let (from, to) = (connection.hosts[side], connection.hosts[1 - side]);
            let (is_open, is_answered) = (self.is_open(from, to), self.is_open(to, from));
            let connection = &mut self.connections[number];
            let is_taken = connection.states[1 - side] == State::Open;
            let lane = &mut connection.lanes[side];
            let mut meets_nobody = false;
            if is_answered {
                lane.unacknowledged_ns = None;
            }
            while is_open
                && lane.flight.front().is_some_and(|segment| segment.at_ns <= now_ns)
                && let Some(segment) = lane.flight.pop_front()
            {
                lane.flight_bytes -= segment.bytes.len();
                if !is_answered {
                    lane.unacknowledged_ns.get_or_insert(segment.sent_ns);
                }
                if is_taken {
                    lane.arrived.extend(segment.bytes);
                } else {
                    meets_nobody = true;
                }
            }
            if is_open
                && lane.flight.is_empty()
                && let Some((at_ns, ending)) = lane.ending
                && at_ns <= now_ns
            {
                lane.ended.get_or_insert(ending);
                if ending == Ending::Reset {
                    lane.ended = Some(ending);
                }
                lane.ending = None;
            }
            let back_ns = now_ns + self.delay_ns();
            let connection = &mut self.connections[number];
            if meets_nobody {
                connection.lanes[1 - side].end(Ending::Reset, back_ns);
            }
            let gives_up = connection.gives_up_ns(side).is_some_and(|at_ns| at_ns <= now_ns);
            if gives_up && !(is_open && is_answered) && connection.states[side] == State::Open {
                connection.states[side] = State::Broken(TIMED_OUT);
                let lane = &mut connection.lanes[side];
                lane.lose();
                if self.random.one_in(2) {
                    lane.end(Ending::Reset, back_ns);
                }
            }
        }
    }
}

impl Connection {
    /// When an end gives up, unless what it has sent is acknowledged before. Only diallers of links do.
    fn gives_up_ns(&self, side: usize) -> Option<u64> {
        if side != 0 || self.hosts[0] == Host::Client {
            return None;
        }
        let lane = &self.lanes[0];
        let sent_ns = lane.flight.front().map(|segment| segment.sent_ns);
        let first_ns = sent_ns.into_iter().chain(lane.unacknowledged_ns).min();
        first_ns.map(|at_ns| at_ns + UNACKNOWLEDGED_NS_MAX)
    }
}

impl Lane {
    /// It ends like this once all of it has arrived. Nothing undoes a reset.
    fn end(&mut self, ending: Ending, at_ns: u64) {
        if self.ended == Some(Ending::Reset) || (self.ended.is_some() && ending == Ending::Finish) {
            return;
        }
        let at_ns = at_ns.max(self.last_ns);
        match self.ending {
            Some((_, Ending::Reset)) => {}
            Some(_) if ending == Ending::Finish => {}
            _ => self.ending = Some((at_ns, ending)),
        }
    }

    /// What is on its way does not arrive.
    fn lose(&mut self) {
        self.flight.clear();
        self.flight_bytes = 0;
        self.unacknowledged_ns = None;
    }
}
