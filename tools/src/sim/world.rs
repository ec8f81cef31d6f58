//! The simulated machine: sockets, kernel buffers, clocks, and the operations that cores have under way.
//!
//! Nothing here knows what the bytes mean. Invariants, which are asserted because a core that breaks them would
//! break a real kernel's rules too:
//!
//! - a socket is closed once, with no operation under way, and never used again;
//! - a connection has at most one send and one receive under way;
//! - a leased buffer is returned within the turn that it came in.

use std::{cmp::Ordering, collections::VecDeque};

use duva_net::io::{Event, File, FileTask, ReceiveEnd, Socket, Token};

use super::{
    disk::{CoreFiles, Disk},
    faults::{DiskPace, Faults, Sabotage},
    random::Random,
    trace,
};

/// The first descriptor that connections get.
const DESCRIPTOR_MIN: usize = 10;

/// EMFILE, ENOSPC, EPIPE, ECONNRESET and ECONNREFUSED, as Linux numbers them.
const TOO_MANY_FILES: i32 = 24;
const NO_SPACE: i32 = 28;
const BROKEN_PIPE: i32 = 32;
const CONNECTION_RESET: i32 = 104;
const CONNECTION_REFUSED: i32 = 111;

/// How a server ends that is not told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    /// It is killed; the machine goes on.
    Kill,
    /// The machine loses its power.
    PowerLoss,
}

/// Whether the server is killed in the middle of a turn. What it does after that has no effect; nothing that it sends
/// has left before the turn is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dying {
    /// It is not.
    No,
    /// With its next write to a file.
    AtNextWrite,
    /// It was.
    Dead,
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
    /// Accept on this listener.
    Accept(usize),
    /// Connect to that node, where there are nodes.
    Connect(u64, usize),
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
    /// Attempts to connect, with the times at which they fail.
    connects: Vec<(u64, u64)>,
    /// Its files.
    pub(crate) files: CoreFiles,
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
pub(crate) struct Leased(pub(crate) Vec<u8>);

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
    /// What all cores' files are on.
    pub(crate) disk: Disk,
    /// How fast it is.
    disk_pace: DiskPace,
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
    /// Whether the server is about to be killed in the middle of a turn.
    pub(crate) dying: Dying,
    /// Whether a sync of the running server has failed, or will.
    pub(crate) has_sync_failed: bool,
}

/// A disk that was full is not again for so long, in nanoseconds.
const FULL_PAUSE_NS: u64 = 3_000_000_000;

/// The shortest time that a server is down, in nanoseconds: longer than the wall clock goes back by.
const DOWN_NS_MIN: u64 = 60_000_000;

/// The wall clock at the beginning, in milliseconds since the Unix epoch.
const WALL_START_MS: i64 = 1_800_000_000_000;

/// How far the wall clock may be off, in milliseconds.
pub(crate) const WALL_OFFSET_MS_MAX: i64 = 12;

/// Kernels with nothing under way.
fn kernels(cores: usize, buffer_count: usize) -> Vec<Kernel> {
    (0..cores).map(|_| Kernel { free_buffers: buffer_count, ..Kernel::default() }).collect()
}

impl World {
    /// A machine with `cores` cores.
    pub(crate) fn new(mut random: Random, cores: usize) -> Self {
        let buffer_count = random.pick(&[1, 2, 4, 16]);
        let faults = Faults::choose(&mut random);
        let disk_pace = DiskPace::choose(&mut random);
        Self {
            now_ns: 1_000_000_000 + random.below(1_000_000_000),
            wall_offset_ms: 0,
            stamp: 0,
            faults,
            sabotage: None,
            links: Vec::new(),
            tapped: Vec::new(),
            disk: Disk::default(),
            disk_pace,
            kernels: kernels(cores, buffer_count),
            buffer_size_bytes: random.pick(&[64, 512, 4096, 32 << 10]),
            buffer_count,
            piece_bytes_max: random.pick(&[16, 200, 4096, 64 << 10, 64 << 10]),
            descriptors: Vec::new(),
            can_batch: random.one_in(2),
            wake_count: 0,
            dying: Dying::No,
            has_sync_failed: false,
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
            Operation::Accept(_) => {
                let kernel = &mut self.kernels[core];
                assert!(!kernel.is_accepting, "a listener that accepts is armed again");
                kernel.is_accepting = true;
                kernel.accept_at_ns = at_ns;
            }
            Operation::Connect(ticket, _) => self.kernels[core].connects.push((ticket, at_ns)),
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

    /// Gives a task to core `core`'s storage thread.
    pub(crate) fn give_task(&mut self, core: usize, ticket: u64, task: FileTask) {
        let has_recovered = self.now_ns >= self.disk.full_until_ns + FULL_PAUSE_NS;
        if has_recovered && self.random.one_in(self.faults.no_space) {
            self.disk.full_until_ns = self.now_ns + DiskPace::no_space_ns(&mut self.random);
        }
        let end_ns = self.now_ns + self.disk_pace.task_ns(&mut self.random, &self.faults);
        self.kernels[core].files.give(ticket, task, end_ns);
    }

    /// The longest that a commit takes, about, in milliseconds.
    pub(crate) fn commit_ms_max(&self) -> i64 {
        self.disk_pace.commit_ms_max(&self.faults) as i64
    }

    /// When a sync ends that begins now, and whether it fails then.
    pub(crate) fn sync_end(&mut self) -> (u64, bool) {
        let end_ns = self.now_ns + self.disk_pace.sync_ns(&mut self.random, &self.faults);
        let fails = self.random.one_in(self.faults.sync_error);
        if fails {
            self.has_sync_failed = true;
        }
        (end_ns, fails)
    }

    /// Writes to a file of core `core`; or a part of it, and the server is killed, or there is no room.
    pub(crate) fn write_file(
        &mut self,
        core: usize,
        file: File,
        bytes: &[u8],
        offset_bytes: u64,
    ) -> Result<(), i32> {
        let files = &self.kernels[core].files;
        match self.dying {
            Dying::No if self.faults.is_thin && self.now_ns < self.disk.full_until_ns => {
                let length = self.random.index(bytes.len() + 1);
                files.write(file, &bytes[..length], offset_bytes);
                return Err(NO_SPACE);
            }
            Dying::No => files.write(file, bytes, offset_bytes),
            Dying::AtNextWrite => {
                let length = self.random.index(bytes.len() + 1);
                files.write(file, &bytes[..length], offset_bytes);
                self.dying = Dying::Dead;
            }
            Dying::Dead => {}
        }
        Ok(())
    }

    /// The server is killed, or the power fails: connections break, and what it had under way is done or not. After it
    /// the machine has `cores` cores with nothing under way.
    pub(crate) fn crash(&mut self, crash: Crash, cores: usize) {
        let Self { disk, random, now_ns, .. } = self;
        for kernel in self.kernels.drain(..) {
            kernel.files.cut(disk, *now_ns, random);
        }
        if crash == Crash::PowerLoss {
            disk.lose_power(random);
        }
        for link in self.links.iter_mut().filter(|link| link.server != ServerEnd::Closed) {
            link.server = ServerEnd::Closed;
            link.inbound.clear();
        }
        self.descriptors.clear();
        self.dying = Dying::No;
        self.has_sync_failed = false;
        self.kernels = kernels(cores, self.buffer_count);
        self.now_ns += self.random.between(DOWN_NS_MIN, 10 * DOWN_NS_MIN);
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
        for (ticket, _) in kernel.connects.extract_if(.., |&mut (_, at_ns)| at_ns <= now_ns) {
            kernel.ready.push_back(Event::Connected { ticket, result: Err(CONNECTION_REFUSED) });
        }
        kernel.files.advance(&mut self.disk, now_ns, &mut kernel.ready);
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
        let files = kernel.files.next_ns();
        let connects = kernel.connects.iter().map(|&(_, at_ns)| at_ns);
        let wakes = kernel.wakes.iter().copied();
        accept.into_iter().chain(wakes).chain(connects).chain(files).chain(receives).chain(sends).min()
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

/// A completion, for the trace.
pub(crate) fn describe(event: &Event<Leased>) -> String {
    match event {
        Event::Accepted { result, armed, .. } => format!("accepted {result:?}, armed: {armed}"),
        Event::Connected { ticket, result } => format!("connected {ticket:#x}: {result:?}"),
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
        Event::FileDone { ticket, result, .. } => format!("file task {ticket:#x}: {result:?}"),
        Event::Synced { ticket, result } => format!("sync {ticket:#x}: {result:?}"),
        Event::Woken => "a wake".to_owned(),
    }
}
