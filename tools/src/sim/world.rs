//! The simulated machine: sockets, kernel buffers, clocks, and the operations that cores have under way.
//!
//! Nothing here knows what the bytes mean. Invariants, which are asserted because a core that breaks them would
//! break a real kernel's rules too:
//!
//! - a socket is closed once, with no operation under way, and never used again;
//! - a connection has at most one send and one receive under way;
//! - a leased buffer is returned within the turn that it came in.

use std::{cmp::Ordering, collections::VecDeque};

use duva_net::io::{Event, ReceiveEnd, Socket, Token};

use super::{random::Random, trace};

/// The first descriptor that connections get.
const DESCRIPTOR_MIN: usize = 10;

/// EMFILE, EPIPE and ECONNRESET, as Linux numbers them.
const TOO_MANY_FILES: i32 = 24;
const BROKEN_PIPE: i32 = 32;
const CONNECTION_RESET: i32 = 104;

/// What the world breaks on purpose, to show that the checkers notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// A wake between two cores is lost.
    LoseWake,
    /// Two replies of one send change places.
    SwapReplies,
    /// A client's MSET is sent as two, and one of the replies swallowed.
    SplitSets,
    /// The last byte of a reply never arrives.
    LoseByte,
}

/// How often things go wrong: one in so many times; 0: never.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    /// A multishot receive ends with the bytes it delivers.
    pub(crate) unarmed: u64,
    /// A receive finds no buffer though there is one.
    pub(crate) no_buffers: u64,
    /// A send completes before all of it has left.
    pub(crate) short_send: u64,
    /// An operation takes long.
    pub(crate) slow: u64,
    /// Accepting fails for want of descriptors.
    pub(crate) accept: u64,
    /// The wall clock jumps.
    pub(crate) clock_jump: u64,
    /// A core stands still for a while.
    pub(crate) stall: u64,
}

impl Faults {
    /// How often this seed's world fails.
    pub(crate) fn choose(random: &mut Random) -> Self {
        let mut rate = |rates: &[u64]| random.pick(rates);
        Self {
            unarmed: rate(&[0, 3, 20, 100]),
            no_buffers: rate(&[0, 5, 50]),
            short_send: rate(&[0, 2, 10]),
            slow: rate(&[0, 10, 50]),
            accept: rate(&[0, 4, 20]),
            clock_jump: rate(&[0, 20, 200]),
            stall: rate(&[0, 100, 1000]),
        }
    }

    /// Nothing goes wrong any more.
    pub(crate) fn none() -> Self {
        Self { unarmed: 0, no_buffers: 0, short_send: 0, slow: 0, accept: 0, clock_jump: 0, stall: 0 }
    }
}

/// What the server has done with its end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerEnd {
    /// It waits to be accepted.
    Pending,
    /// It was accepted as this descriptor.
    Open(i32),
    /// It was closed.
    Closed,
}

/// One connection, as the kernel knows it.
#[derive(Debug)]
pub(crate) struct Link {
    /// What the client has sent and the server has not received.
    pub(crate) inbound: VecDeque<u8>,
    /// How much of that the kernel holds.
    pub(crate) inbound_max: usize,
    /// The client sends nothing more.
    pub(crate) inbound_end: bool,
    /// Bytes that the server has sent and the client has not read.
    pub(crate) outbound: usize,
    /// How many of them the kernel holds.
    pub(crate) outbound_max: usize,
    /// What was sent since the checkers looked last.
    pub(crate) tap: Vec<u8>,
    /// The client is gone: sends fail.
    pub(crate) is_client_gone: bool,
    /// The client is gone without a word: receives fail too.
    pub(crate) is_reset: bool,
    /// The server shut both directions down.
    pub(crate) is_shut: bool,
    /// The server's end.
    pub(crate) server: ServerEnd,
    /// When the server last received something, in nanoseconds.
    pub(crate) received_ns: u64,
}

/// A receive under way.
struct Receive {
    token: Token,
    socket: Socket,
    /// When it may go on, in nanoseconds.
    at_ns: u64,
    cancel_at_ns: Option<u64>,
    /// The connection's own memory and how much may be added; `None`: leased buffers.
    into: Option<(Vec<u8>, usize)>,
}

/// A send under way.
struct Send {
    token: Token,
    socket: Socket,
    at_ns: u64,
    buffer: Vec<u8>,
    offset: usize,
    sent: usize,
}

/// What a core has asked for since its last turn.
pub(crate) enum Operation {
    /// Accept.
    Accept,
    /// Receive into leased buffers.
    Receive(Token, Socket),
    /// Receive into this memory, at most so much.
    ReceiveInto(Token, Socket, Vec<u8>, usize),
    /// End the receive.
    Cancel(Token),
    /// Send, from this offset on.
    Send(Token, Socket, Vec<u8>, usize),
    /// End both directions.
    Shutdown(Socket),
    /// Close.
    Close(Socket),
    /// Wake that core.
    Wake(usize),
}

/// The kernel's side of one core's ring.
#[derive(Default)]
pub(crate) struct Kernel {
    /// Operations that the next turn submits.
    pub(crate) queued: Vec<Operation>,
    /// Completions of the present turn.
    pub(crate) taken: VecDeque<Event<Leased>>,
    /// Completions that wait to be reaped, and since when there are any.
    ready: VecDeque<Event<Leased>>,
    ready_since_ns: u64,
    receives: Vec<Receive>,
    sends: Vec<Send>,
    /// When wakes arrive.
    wakes: Vec<u64>,
    is_accepting: bool,
    accept_at_ns: u64,
    /// Whether the last accept failed: two in a row do not, so that a wait for one is bounded.
    has_failed_accept: bool,
    backlog: VecDeque<usize>,
    /// Buffers that a receive can take; that completions or the core hold; that come back with the next turn.
    free_buffers: usize,
    leased_buffers: usize,
    recycled_buffers: usize,
    /// Until when the core stands still.
    pub(crate) stalled_until_ns: u64,
}

/// A leased receive buffer.
#[derive(Debug)]
pub(crate) struct Leased(Vec<u8>);

impl std::ops::Deref for Leased {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// The machine.
pub(crate) struct World {
    /// Every choice.
    pub(crate) random: Random,
    /// The monotonic clock, in nanoseconds.
    pub(crate) now_ns: u64,
    /// How far the wall clock is off, in milliseconds.
    wall_offset_ms: i64,
    /// Numbers everything that clients can observe, in order.
    pub(crate) stamp: u64,
    /// What goes wrong.
    pub(crate) faults: Faults,
    /// What is broken on purpose.
    pub(crate) sabotage: Option<Sabotage>,
    /// Every connection there ever was.
    pub(crate) links: Vec<Link>,
    /// Connections with something new in their taps.
    pub(crate) tapped: Vec<usize>,
    /// The cores' kernels.
    pub(crate) kernels: Vec<Kernel>,
    /// Bytes of a receive buffer.
    buffer_size_bytes: usize,
    /// Buffers of each core.
    buffer_count: usize,
    /// The most bytes that move at once.
    pub(crate) piece_bytes_max: usize,
    /// Which connection each descriptor is.
    descriptors: Vec<Option<usize>>,
    /// The answer to [`duva_net::io::Io::can_batch`].
    pub(crate) can_batch: bool,
    /// Wakes that were sent.
    pub(crate) wake_count: u64,
}

/// The wall clock at the beginning, in milliseconds since the Unix epoch.
const WALL_START_MS: i64 = 1_800_000_000_000;

/// How far the wall clock may be off, in milliseconds.
pub(crate) const WALL_OFFSET_MS_MAX: i64 = 12;

impl World {
    /// A machine with `cores` cores.
    pub(crate) fn new(mut random: Random, cores: usize) -> Self {
        let buffer_count = random.pick(&[1, 2, 4, 16]);
        let faults = Faults::choose(&mut random);
        Self {
            now_ns: 1_000_000_000 + random.below(1_000_000_000),
            wall_offset_ms: 0,
            stamp: 0,
            faults,
            sabotage: None,
            links: Vec::new(),
            tapped: Vec::new(),
            kernels: (0..cores).map(|_| Kernel { free_buffers: buffer_count, ..Kernel::default() }).collect(),
            buffer_size_bytes: random.pick(&[64, 512, 4096, 32 << 10]),
            buffer_count,
            piece_bytes_max: random.pick(&[16, 200, 4096, 64 << 10, 64 << 10]),
            descriptors: Vec::new(),
            can_batch: random.one_in(2),
            wake_count: 0,
            random,
        }
    }

    /// The wall clock, in milliseconds since the Unix epoch.
    pub(crate) fn wall_ms(&self) -> i64 {
        WALL_START_MS + (self.now_ns / 1_000_000) as i64 + self.wall_offset_ms
    }

    /// The next number in the order of observable things.
    pub(crate) fn next_stamp(&mut self) -> u64 {
        self.stamp += 1;
        self.stamp
    }

    /// Lets the wall clock jump now and then.
    pub(crate) fn disturb_clock(&mut self) {
        if self.random.one_in(self.faults.clock_jump) {
            self.wall_offset_ms =
                self.random.below(2 * WALL_OFFSET_MS_MAX as u64 + 1) as i64 - WALL_OFFSET_MS_MAX;
        }
    }

    /// How long something takes, in nanoseconds.
    fn delay_ns(&mut self) -> u64 {
        if self.random.one_in(self.faults.slow) {
            self.random.between(200_000, 5_000_000)
        } else {
            self.random.below(20_000)
        }
    }

    /// How many of `length` bytes move at once; `length` must not be 0.
    pub(crate) fn piece(&mut self, length: usize) -> usize {
        let length = length.min(self.piece_bytes_max);
        if self.random.one_in(2) { length } else { 1 + self.random.index(length) }
    }

    /// A client connects; returns its connection.
    pub(crate) fn connect(&mut self) -> usize {
        let limits: &[usize] =
            if self.piece_bytes_max < 4096 { &[100, 2000, 20_000] } else { &[4000, 64 << 10, 256 << 10] };
        let inbound_max = self.random.pick(limits);
        let outbound_max = self.random.pick(limits);
        self.links.push(Link {
            inbound: VecDeque::new(),
            inbound_max,
            inbound_end: false,
            outbound: 0,
            outbound_max,
            tap: Vec::new(),
            is_client_gone: false,
            is_reset: false,
            is_shut: false,
            server: ServerEnd::Pending,
            received_ns: 0,
        });
        let core = self.random.index(self.kernels.len());
        let link = self.links.len() - 1;
        self.kernels[core].backlog.push_back(link);
        link
    }

    /// Takes a queued operation of core `core` under way.
    pub(crate) fn submit(&mut self, core: usize, operation: Operation) {
        let at_ns = self.now_ns + self.delay_ns();
        match operation {
            Operation::Accept => {
                let kernel = &mut self.kernels[core];
                assert!(!kernel.is_accepting, "a listener that accepts is armed again");
                kernel.is_accepting = true;
                kernel.accept_at_ns = at_ns;
            }
            Operation::Receive(token, socket) => self.begin_receive(core, token, socket, at_ns, None),
            Operation::ReceiveInto(token, socket, buffer, length_max) => {
                assert!(length_max > 0 && buffer.capacity() > buffer.len(), "a receive needs room");
                self.begin_receive(core, token, socket, at_ns, Some((buffer, length_max)));
            }
            Operation::Cancel(token) => {
                let receives = &mut self.kernels[core].receives;
                if let Some(receive) = receives.iter_mut().find(|receive| receive.token == token) {
                    receive.cancel_at_ns = Some(at_ns);
                }
            }
            Operation::Send(token, socket, buffer, offset) => {
                assert!(offset < buffer.len(), "an empty send never completes with progress");
                self.link_of(socket);
                let sends = &mut self.kernels[core].sends;
                assert!(sends.iter().all(|send| send.token != token), "two sends on one connection");
                sends.push(Send { token, socket, at_ns, buffer, offset, sent: 0 });
            }
            Operation::Shutdown(socket) => self.link_of(socket).is_shut = true,
            Operation::Close(socket) => self.close(socket),
            Operation::Wake(target) => {
                self.wake_count += 1;
                if self.sabotage == Some(Sabotage::LoseWake) && self.random.one_in(10) {
                    return;
                }
                self.kernels[target].wakes.push(at_ns);
            }
        }
    }

    fn begin_receive(
        &mut self,
        core: usize,
        token: Token,
        socket: Socket,
        at_ns: u64,
        into: Option<(Vec<u8>, usize)>,
    ) {
        self.link_of(socket);
        let receives = &mut self.kernels[core].receives;
        assert!(receives.iter().all(|receive| receive.token != token), "two receives on one connection");
        receives.push(Receive { token, socket, at_ns, cancel_at_ns: None, into });
    }

    fn close(&mut self, socket: Socket) {
        for kernel in &self.kernels {
            assert!(
                kernel.receives.iter().all(|receive| receive.socket != socket),
                "closed while it receives"
            );
            assert!(kernel.sends.iter().all(|send| send.socket != socket), "closed while it sends");
        }
        let link = self.link_of(socket);
        link.server = ServerEnd::Closed;
        link.inbound.clear();
        self.descriptors[socket.0 as usize - DESCRIPTOR_MIN] = None;
        trace::note(|| format!("    descriptor {} closed", socket.0));
    }

    fn number_of(&self, socket: Socket) -> usize {
        let place = self.descriptors.get((socket.0 as usize).wrapping_sub(DESCRIPTOR_MIN));
        place.copied().flatten().unwrap_or_else(|| panic!("descriptor {} is not open", socket.0))
    }

    fn link_of(&mut self, socket: Socket) -> &mut Link {
        let number = self.number_of(socket);
        &mut self.links[number]
    }

    /// Returns a leased buffer of core `core`.
    pub(crate) fn recycle(&mut self, core: usize, _buffer: Leased) {
        let kernel = &mut self.kernels[core];
        assert!(kernel.leased_buffers > 0, "a buffer was returned twice");
        kernel.leased_buffers -= 1;
        kernel.recycled_buffers += 1;
    }

    /// Begins a turn of core `core`: submits everything queued.
    pub(crate) fn enter(&mut self, core: usize) {
        let kernel = &mut self.kernels[core];
        assert!(kernel.taken.is_empty(), "a turn left completions unread");
        let held = kernel
            .ready
            .iter()
            .filter(|event| matches!(event, Event::Received { result: Ok(_), .. }))
            .count();
        assert!(kernel.leased_buffers == held, "a leased buffer was kept past its turn");
        kernel.free_buffers += std::mem::take(&mut kernel.recycled_buffers);
        for operation in std::mem::take(&mut kernel.queued) {
            self.submit(core, operation);
        }
    }

    /// Hands core `core` the completions that are there.
    pub(crate) fn reap(&mut self, core: usize) -> usize {
        let kernel = &mut self.kernels[core];
        kernel.taken = std::mem::take(&mut kernel.ready);
        kernel.taken.len()
    }

    /// How many completions wait for core `core`, and since when.
    pub(crate) fn ready(&self, core: usize) -> (usize, u64) {
        (self.kernels[core].ready.len(), self.kernels[core].ready_since_ns)
    }

    /// Whether a wake is on its way to core `core`.
    pub(crate) fn is_waking(&self, core: usize) -> bool {
        let kernel = &self.kernels[core];
        let is_queued =
            |operation: &Operation| matches!(operation, Operation::Wake(target) if *target == core);
        !kernel.wakes.is_empty()
            || !kernel.ready.is_empty()
            || self.kernels.iter().any(|kernel| kernel.queued.iter().any(is_queued))
    }

    /// Completes what can complete by now for core `core`.
    pub(crate) fn advance(&mut self, core: usize) {
        let mut kernel = std::mem::take(&mut self.kernels[core]);
        let before = kernel.ready.len();
        let now_ns = self.now_ns;
        kernel.wakes.retain(|&at_ns| {
            let is_due = at_ns <= now_ns;
            if is_due {
                kernel.ready.push_back(Event::Woken);
            }
            !is_due
        });
        self.advance_accept(&mut kernel);
        for receive in std::mem::take(&mut kernel.receives) {
            if let Some(receive) = self.advance_receive(&mut kernel, receive) {
                kernel.receives.push(receive);
            }
        }
        for send in std::mem::take(&mut kernel.sends) {
            if let Some(send) = self.advance_send(&mut kernel, send) {
                kernel.sends.push(send);
            }
        }
        if before == 0 {
            kernel.ready_since_ns = now_ns;
        }
        for event in kernel.ready.iter().skip(before) {
            trace::note(|| format!("    core {core} gets {}", describe(event)));
        }
        self.kernels[core] = kernel;
    }

    /// When something next completes for core `core` by itself.
    pub(crate) fn next_ns(&self, core: usize) -> Option<u64> {
        let kernel = &self.kernels[core];
        let accept = (kernel.is_accepting && !kernel.backlog.is_empty()).then_some(kernel.accept_at_ns);
        let receives = kernel.receives.iter().filter_map(|receive| {
            let link = &self.links[self.number_of(receive.socket)];
            let has_news = !link.inbound.is_empty() || link.inbound_end || link.is_reset || link.is_shut;
            let at_ns = has_news.then_some(receive.at_ns);
            at_ns.into_iter().chain(receive.cancel_at_ns).min()
        });
        let sends = kernel.sends.iter().filter_map(|send| {
            let link = &self.links[self.number_of(send.socket)];
            (link.outbound < link.outbound_max || link.is_client_gone || link.is_shut).then_some(send.at_ns)
        });
        accept.into_iter().chain(kernel.wakes.iter().copied()).chain(receives).chain(sends).min()
    }

    fn advance_accept(&mut self, kernel: &mut Kernel) {
        while kernel.is_accepting && kernel.accept_at_ns <= self.now_ns && !kernel.backlog.is_empty() {
            let fails = !kernel.has_failed_accept && self.random.one_in(self.faults.accept);
            kernel.has_failed_accept = fails;
            if fails {
                kernel.is_accepting = false;
                kernel.ready.push_back(Event::Accepted {
                    listener: 0,
                    result: Err(TOO_MANY_FILES),
                    armed: false,
                });
                return;
            }
            let link = kernel.backlog.pop_front().expect("it is not empty");
            // The lowest that is free, as kernels do: a number comes back soon after it was closed.
            let place = self.descriptors.iter().position(Option::is_none).unwrap_or_else(|| {
                self.descriptors.push(None);
                self.descriptors.len() - 1
            });
            self.descriptors[place] = Some(link);
            let socket = Socket((DESCRIPTOR_MIN + place) as i32);
            self.links[link].server = ServerEnd::Open(socket.0);
            kernel.is_accepting = !self.random.one_in(self.faults.unarmed);
            let armed = kernel.is_accepting;
            trace::note(|| format!("    connection {link} is descriptor {}", socket.0));
            kernel.ready.push_back(Event::Accepted { listener: 0, result: Ok(socket), armed });
        }
    }

    fn advance_receive(&mut self, kernel: &mut Kernel, receive: Receive) -> Option<Receive> {
        let now_ns = self.now_ns;
        let is_cancelled = receive.cancel_at_ns.is_some_and(|at_ns| at_ns <= now_ns);
        if receive.at_ns > now_ns && !is_cancelled {
            return Some(receive);
        }
        let number = self.number_of(receive.socket);
        let link = &self.links[number];
        let available = link.inbound.len();
        // Bytes may come in just ahead of a cancellation.
        if is_cancelled && (available == 0 || self.random.one_in(2)) {
            finish_receive(kernel, receive, ReceiveEnd::Cancelled);
            return None;
        }
        let link = &self.links[number];
        let end = if link.is_reset {
            ReceiveEnd::Failed(CONNECTION_RESET)
        } else if link.is_shut || (available == 0 && link.inbound_end) {
            ReceiveEnd::Closed
        } else if available == 0 {
            return Some(receive);
        } else if receive.into.is_none()
            && (kernel.free_buffers == 0 || self.random.one_in(self.faults.no_buffers))
        {
            ReceiveEnd::NoBuffers
        } else {
            return self.receive_bytes(kernel, receive, number);
        };
        finish_receive(kernel, receive, end);
        None
    }

    fn receive_bytes(&mut self, kernel: &mut Kernel, mut receive: Receive, number: usize) -> Option<Receive> {
        self.links[number].received_ns = self.now_ns;
        let available = self.links[number].inbound.len();
        if let Some((mut buffer, length_max)) = receive.into.take() {
            let room = (buffer.capacity() - buffer.len()).min(length_max);
            let count = self.piece(available.min(room));
            buffer.extend(self.links[number].inbound.drain(..count));
            kernel.ready.push_back(Event::ReceivedInto {
                connection: receive.token,
                buffer,
                result: Ok(count),
            });
            return None;
        }
        let count = self.piece(available.min(self.buffer_size_bytes));
        let bytes = self.links[number].inbound.drain(..count).collect();
        kernel.free_buffers -= 1;
        kernel.leased_buffers += 1;
        let armed = !self.random.one_in(self.faults.unarmed);
        kernel.ready.push_back(Event::Received {
            connection: receive.token,
            result: Ok(Leased(bytes)),
            armed,
        });
        receive.at_ns = self.now_ns + self.delay_ns();
        armed.then_some(receive)
    }

    fn advance_send(&mut self, kernel: &mut Kernel, mut send: Send) -> Option<Send> {
        if send.at_ns > self.now_ns {
            return Some(send);
        }
        let number = self.number_of(send.socket);
        let link = &self.links[number];
        let is_over = if link.is_client_gone || link.is_shut {
            true
        } else {
            let room = link.outbound_max.saturating_sub(link.outbound);
            let left = send.buffer.len() - send.offset - send.sent;
            if room == 0 {
                return Some(send);
            }
            let count = self.piece(room.min(left));
            let from = send.offset + send.sent;
            let link = &mut self.links[number];
            link.tap.extend_from_slice(&send.buffer[from..from + count]);
            link.outbound += count;
            self.tapped.push(number);
            send.sent += count;
            count == left || self.random.one_in(self.faults.short_send)
        };
        if !is_over {
            send.at_ns = self.now_ns + self.delay_ns();
            return Some(send);
        }
        let result = if send.sent > 0 { Ok(send.sent) } else { Err(BROKEN_PIPE) };
        kernel.ready.push_back(Event::Sent { connection: send.token, buffer: send.buffer, result });
        None
    }

    /// What is wrong with the machine after every client has gone; nothing, if all is as it was.
    pub(crate) fn check_rest(&self) -> Result<(), String> {
        for (number, link) in self.links.iter().enumerate() {
            if link.server != ServerEnd::Closed {
                return Err(format!("connection {number} was never closed: {:?}", link.server));
            }
        }
        for (core, kernel) in self.kernels.iter().enumerate() {
            let buffers = kernel.free_buffers + kernel.recycled_buffers;
            match buffers.cmp(&self.buffer_count) {
                Ordering::Equal => {}
                _ => return Err(format!("core {core} has {buffers} of {} buffers", self.buffer_count)),
            }
            if !kernel.receives.is_empty() || !kernel.sends.is_empty() {
                return Err(format!("core {core} has operations under way on closed sockets"));
            }
            if !kernel.is_accepting {
                return Err(format!("core {core} does not accept any more"));
            }
        }
        Ok(())
    }
}

fn finish_receive(kernel: &mut Kernel, receive: Receive, end: ReceiveEnd) {
    let connection = receive.token;
    kernel.ready.push_back(match receive.into {
        None => Event::Received { connection, result: Err(end), armed: false },
        Some((buffer, _)) => Event::ReceivedInto { connection, buffer, result: Err(end) },
    });
}

fn describe(event: &Event<Leased>) -> String {
    match event {
        Event::Accepted { result, armed, .. } => format!("accepted {result:?}, armed: {armed}"),
        Event::Received { connection, result: Ok(bytes), armed } => {
            format!(
                "received {} bytes on {}, armed: {armed}: {}",
                bytes.len(),
                connection.index,
                trace::shown(bytes)
            )
        }
        Event::Received { connection, result: Err(end), .. } => {
            format!("receive on {}: {end:?}", connection.index)
        }
        Event::ReceivedInto { connection, result, .. } => {
            format!("received into memory of {}: {result:?}", connection.index)
        }
        Event::Sent { connection, result, .. } => format!("sent {result:?} on {}", connection.index),
        Event::Woken => "a wake".to_owned(),
    }
}
