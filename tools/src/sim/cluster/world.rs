//! The machines of a simulated cluster: each has cores' kernels, a disk and clocks of its own; the network joins them.
//!
//! What a core may ask of a kernel is asserted, as in the world of a single server: a socket is closed once and with nothing
//! under way, a connection has one send and one receive under way at most, and a leased buffer is returned within its turn.

use std::collections::VecDeque;

use duva_net::io::{Clock, Event, File, FileTask, ReceiveEnd, Socket, Token};

use super::faults::DiskFault;
use super::network::{CONNECTION_RESET, End, Ending, Host, Network, News, TIMED_OUT};
use crate::sim::{
    disk::{CoreFiles, Disk},
    faults::{DiskPace, Faults},
    random::Random,
    trace,
    world::{Crash, Dying, Leased, Operation, describe},
};

/// The first descriptor that connections get.
const DESCRIPTOR_MIN: usize = 10;

/// EIO, ENOSPC and ECONNREFUSED, as Linux numbers them.
const INPUT_OUTPUT: i32 = 5;
const NO_SPACE: i32 = 28;
const CONNECTION_REFUSED: i32 = 111;

/// How long dialling goes on without an answer, and how long until it is tried again, in nanoseconds.
const DIAL_NS: u64 = 7_000_000_000;
const REDIAL_NS: u64 = 1_000_000_000;

/// The wall clock at the beginning, in milliseconds since the Unix epoch.
const WALL_START_MS: i64 = 1_800_000_000_000;

/// The port that other nodes dial, and its listener; the other one is for clients.
pub(super) const PEER_PORT: u16 = 17_000;
pub(super) const CLIENT_LISTENER: u32 = 0;
pub(super) const PEER_LISTENER: u32 = 1;
const LISTENERS: usize = 2;

/// A receive under way.
struct Receive {
    token: Token,
    socket: Socket,
    at_ns: u64,
    is_cancelled: bool,
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

/// An attempt to connect.
struct Dial {
    ticket: u64,
    to: usize,
    at_ns: u64,
    until_ns: u64,
}

/// The kernel's side of one core's ring.
#[derive(Default)]
pub(super) struct Kernel {
    pub(super) queued: Vec<Operation>,
    pub(super) taken: VecDeque<Event<Leased>>,
    ready: VecDeque<Event<Leased>>,
    ready_since_ns: u64,
    receives: Vec<Receive>,
    sends: Vec<Send>,
    dials: Vec<Dial>,
    wakes: Vec<u64>,
    pub(super) files: CoreFiles,
    /// Since when each listener accepts; `None`: it does not.
    accepts_ns: [Option<u64>; LISTENERS],
    backlogs: [VecDeque<End>; LISTENERS],
    free_buffers: usize,
    leased_buffers: usize,
    recycled_buffers: usize,
}

/// One node's machine.
pub(super) struct Machine {
    pub(super) disk: Disk,
    /// None while no process runs.
    pub(super) kernels: Vec<Kernel>,
    /// Which end of which connection each descriptor is, and whether it was shut down.
    descriptors: Vec<Option<(End, bool)>>,
    pub(super) dying: Dying,
    /// Until when its process is stopped.
    pub(super) stopped_until_ns: u64,
    /// How far its wall clock is off, in milliseconds.
    pub(super) wall_offset_ms: i64,
    /// When its monotonic clock was at 0, which may be before the simulation's.
    booted_ns: i64,
    /// By how many millionths its clocks run too fast, since when, and how far they were ahead then, in nanoseconds.
    drift: (i64, u64, i64),
    /// What is wrong with its disk.
    pub(super) disk_fault: Option<DiskFault>,
}

impl Machine {
    /// How far its clocks have run ahead, in nanoseconds.
    fn drifted_ns(&self, now_ns: u64) -> i64 {
        let (drift_ppm, since_ns, before_ns) = self.drift;
        before_ns + (now_ns - since_ns) as i64 * drift_ppm / 1_000_000
    }

    /// Its clocks run too fast from now on, by so many millionths.
    pub(super) fn set_drift(&mut self, drift_ppm: i64, now_ns: u64) {
        self.drift = (drift_ppm, now_ns, self.drifted_ns(now_ns));
    }
}

/// All of it.
pub(super) struct World {
    pub(super) random: Random,
    pub(super) now_ns: u64,
    pub(super) network: Network,
    pub(super) machines: Vec<Machine>,
    pub(super) faults: Faults,
    pace: DiskPace,
    buffer_size_bytes: usize,
    buffer_count: usize,
    piece_bytes_max: usize,
    pub(super) can_batch: bool,
    /// Whether a full disk has no room for writes to segments either.
    is_thin: bool,
    /// Whether syncs say that they are done and do nothing.
    pub(super) syncs_lie: bool,
}

impl World {
    pub(super) fn new(mut random: Random, nodes: usize, offset_ms_max: u64) -> Self {
        let network = Network::new(Random::new(random.bits()), nodes);
        let machines = (0..nodes).map(|_| Machine {
            disk: Disk::default(),
            kernels: Vec::new(),
            descriptors: Vec::new(),
            dying: Dying::No,
            stopped_until_ns: 0,
            wall_offset_ms: random.below(2 * offset_ms_max + 1) as i64 - offset_ms_max as i64,
            booted_ns: -(random.below(100_000_000_000) as i64),
            drift: (0, 0, 0),
            disk_fault: None,
        });
        let machines = machines.collect();
        let faults = Faults {
            unarmed: random.pick(&[0, 20, 100]),
            no_buffers: random.pick(&[0, 50]),
            short_send: random.pick(&[0, 10]),
            slow: random.pick(&[0, 50]),
            stuck_sync: random.pick(&[0, 0, 400]),
            ..Faults::none()
        };
        Self {
            now_ns: 1_000_000_000 + random.below(1_000_000_000),
            network,
            machines,
            faults,
            pace: DiskPace::choose_quick(&mut random),
            buffer_size_bytes: random.pick(&[512, 4096, 32 << 10]),
            buffer_count: random.pick(&[2, 4, 16]),
            piece_bytes_max: random.pick(&[200, 4096, 64 << 10, 64 << 10]),
            can_batch: random.one_in(2),
            is_thin: random.one_in(2),
            syncs_lie: false,
            random,
        }
    }

    /// The clocks of a node's machine.
    pub(super) fn clock(&self, node: usize) -> Clock {
        Clock { wall_ms: self.wall_ms(node), monotonic_ns: self.monotonic_ns(node) }
    }

    /// A node's wall clock, in milliseconds since the Unix epoch.
    pub(super) fn wall_ms(&self, node: usize) -> u64 {
        let machine = &self.machines[node];
        let shown_ns = self.now_ns as i64 + machine.drifted_ns(self.now_ns);
        (WALL_START_MS + shown_ns / 1_000_000 + machine.wall_offset_ms) as u64
    }

    /// A node's monotonic clock.
    pub(super) fn monotonic_ns(&self, node: usize) -> u64 {
        let machine = &self.machines[node];
        (self.now_ns as i64 + machine.drifted_ns(self.now_ns) - machine.booted_ns) as u64
    }

    /// How long something takes that lasts so long by a node's clocks, in nanoseconds.
    pub(super) fn lasting_ns(&self, node: usize, shown_ns: u64) -> u64 {
        let (drift_ppm, ..) = self.machines[node].drift;
        match drift_ppm {
            0 => shown_ns,
            _ => (u128::from(shown_ns) * 1_000_000).div_ceil((1_000_000 + drift_ppm) as u128) as u64,
        }
    }

    fn delay_ns(&mut self) -> u64 {
        if self.random.one_in(self.faults.slow) {
            self.random.between(200_000, 5_000_000)
        } else {
            self.random.below(20_000)
        }
    }

    fn piece(&mut self, length: usize) -> usize {
        let length = length.min(self.piece_bytes_max);
        if self.random.one_in(2) { length } else { 1 + self.random.index(length) }
    }

    /// A node's process begins, with so many cores.
    pub(super) fn begin(&mut self, node: usize, cores: usize) {
        let free_buffers = self.buffer_count;
        self.network.restore_power(node, self.now_ns);
        let machine = &mut self.machines[node];
        machine.dying = Dying::No;
        machine.disk_fault = None;
        machine.descriptors.clear();
        machine.kernels = (0..cores).map(|_| Kernel { free_buffers, ..Kernel::default() }).collect();
    }

    /// A node's process ends.
    pub(super) fn crash(&mut self, node: usize, crash: Crash) {
        self.network.end_node(node, crash == Crash::Kill, self.now_ns);
        let Self { machines, random, now_ns, .. } = self;
        let machine = &mut machines[node];
        for kernel in machine.kernels.drain(..) {
            kernel.files.cut(&mut machine.disk, *now_ns, random);
        }
        machine.stopped_until_ns = 0;
        machine.descriptors.clear();
        if crash == Crash::PowerLoss {
            machine.disk.lose_power(random);
            let shown_ns = *now_ns as i64 + machine.drifted_ns(*now_ns);
            machine.booted_ns = shown_ns - random.below(10_000_000_000) as i64;
        }
    }

    /// A client connects to a node; `None`: nobody listens.
    pub(super) fn connect(&mut self, node: usize) -> Option<End> {
        if self.machines[node].kernels.is_empty() {
            return None;
        }
        let connection = self.network.connect(Host::Client, Host::Node(node));
        self.await_accept(node, connection, CLIENT_LISTENER as usize);
        Some(End { connection, side: 0 })
    }

    /// Lets some core of a node accept a connection.
    fn await_accept(&mut self, node: usize, connection: usize, listener: usize) {
        let core = self.random.index(self.machines[node].kernels.len());
        self.machines[node].kernels[core].backlogs[listener].push_back(End { connection, side: 1 });
    }

    /// Takes a queued operation of a core under way.
    fn submit(&mut self, node: usize, core: usize, operation: Operation) {
        let at_ns = self.now_ns + self.delay_ns();
        match operation {
            Operation::Accept(listener) => {
                let accepts_ns = &mut self.machines[node].kernels[core].accepts_ns[listener];
                assert!(accepts_ns.is_none(), "a listener that accepts is armed again");
                *accepts_ns = Some(at_ns);
            }
            Operation::Connect(ticket, to) => {
                let at_ns = at_ns + self.network.delay_ns();
                let until_ns = self.now_ns + DIAL_NS;
                self.machines[node].kernels[core].dials.push(Dial { ticket, to, at_ns, until_ns });
            }
            Operation::Receive(token, socket) => self.begin_receive(node, core, token, socket, at_ns, None),
            Operation::ReceiveInto(token, socket, buffer, length_max) => {
                assert!(length_max > 0 && buffer.capacity() > buffer.len(), "a receive needs room");
                self.begin_receive(node, core, token, socket, at_ns, Some((buffer, length_max)));
            }
            Operation::Cancel(token) => {
                let receives = &mut self.machines[node].kernels[core].receives;
                if let Some(receive) = receives.iter_mut().find(|receive| receive.token == token) {
                    receive.is_cancelled = true;
                    receive.at_ns = at_ns;
                }
            }
            Operation::Send(token, socket, buffer, offset) => {
                assert!(offset < buffer.len(), "an empty send never completes with progress");
                self.end_of(node, socket);
                let sends = &mut self.machines[node].kernels[core].sends;
                assert!(sends.iter().all(|send| send.token != token), "two sends on one connection");
                sends.push(Send { token, socket, at_ns, buffer, offset, sent: 0 });
            }
            Operation::Shutdown(socket) => {
                let place = socket.0 as usize - DESCRIPTOR_MIN;
                let (end, is_shut) = self.machines[node].descriptors[place].as_mut().expect("it is open");
                *is_shut = true;
                let end = *end;
                self.network.close(end, false, self.now_ns);
            }
            Operation::Close(socket) => self.close(node, socket),
            Operation::Wake(target) => self.machines[node].kernels[target].wakes.push(at_ns),
        }
    }

    fn begin_receive(
        &mut self,
        node: usize,
        core: usize,
        token: Token,
        socket: Socket,
        at_ns: u64,
        into: Option<(Vec<u8>, usize)>,
    ) {
        self.end_of(node, socket);
        let receives = &mut self.machines[node].kernels[core].receives;
        assert!(receives.iter().all(|receive| receive.token != token), "two receives on one connection");
        receives.push(Receive { token, socket, at_ns, is_cancelled: false, into });
    }

    fn close(&mut self, node: usize, socket: Socket) {
        for kernel in &self.machines[node].kernels {
            let receives = kernel.receives.iter().all(|receive| receive.socket != socket);
            assert!(receives, "closed while it receives");
            assert!(kernel.sends.iter().all(|send| send.socket != socket), "closed while it sends");
        }
        let (end, _) = self.end_of(node, socket);
        self.network.close(end, true, self.now_ns);
        self.machines[node].descriptors[socket.0 as usize - DESCRIPTOR_MIN] = None;
    }

    /// The end that a descriptor is, and whether it was shut down.
    fn end_of(&self, node: usize, socket: Socket) -> (End, bool) {
        let descriptors = &self.machines[node].descriptors;
        let place = descriptors.get((socket.0 as usize).wrapping_sub(DESCRIPTOR_MIN));
        place.copied().flatten().unwrap_or_else(|| panic!("descriptor {} is not open", socket.0))
    }

    /// Gives an end the lowest descriptor that is free, as kernels do.
    fn open(&mut self, node: usize, end: End) -> Socket {
        let descriptors = &mut self.machines[node].descriptors;
        let place = descriptors.iter().position(Option::is_none).unwrap_or_else(|| {
            descriptors.push(None);
            descriptors.len() - 1
        });
        descriptors[place] = Some((end, false));
        Socket((DESCRIPTOR_MIN + place) as i32)
    }

    /// Gives a task to a core's storage threads.
    pub(super) fn give_task(&mut self, node: usize, core: usize, ticket: u64, task: FileTask) {
        if self.machines[node].dying == Dying::Dead {
            return;
        }
        let end_ns = self.now_ns + self.pace.task_ns(&mut self.random, &self.faults);
        self.machines[node].kernels[core].files.give(ticket, task, end_ns);
    }

    /// Begins a sync.
    pub(super) fn begin_sync(&mut self, node: usize, core: usize, ticket: u64, file: File) {
        if self.machines[node].dying == Dying::Dead {
            return;
        }
        let end_ns = self.now_ns + self.pace.sync_ns(&mut self.random, &self.faults);
        let lies = self.syncs_lie;
        let fails = matches!(self.machines[node].disk_fault, Some(DiskFault::Sync | DiskFault::Syncs));
        if self.machines[node].disk_fault == Some(DiskFault::Sync) {
            self.machines[node].disk_fault = None;
        }
        let files = &mut self.machines[node].kernels[core].files;
        if lies {
            files.pretend_sync(ticket, file, end_ns);
        } else {
            files.begin_sync(ticket, file, end_ns, fails);
        }
    }

    /// Writes to a file; or a part of it, and the process is killed, the disk fails, or there is no room.
    pub(super) fn write_file(
        &mut self,
        node: usize,
        core: usize,
        file: File,
        bytes: &[u8],
        offset_bytes: u64,
    ) -> Result<(), i32> {
        let machine = &mut self.machines[node];
        let files = &machine.kernels[core].files;
        let is_full = self.is_thin && self.now_ns < machine.disk.full_until_ns;
        let errno = match (machine.dying, machine.disk_fault) {
            (Dying::Dead, _) => return Ok(()),
            (Dying::AtNextWrite, _) => {
                machine.dying = Dying::Dead;
                None
            }
            (Dying::No, Some(DiskFault::Write)) => {
                machine.disk_fault = None;
                Some(INPUT_OUTPUT)
            }
            (Dying::No, _) if is_full => Some(NO_SPACE),
            (Dying::No, _) => {
                files.write(file, bytes, offset_bytes);
                return Ok(());
            }
        };
        let length = self.random.index(bytes.len() + 1);
        files.write(file, &bytes[..length], offset_bytes);
        errno.map_or(Ok(()), Err)
    }

    /// Returns a leased buffer.
    pub(super) fn recycle(&mut self, node: usize, core: usize) {
        let kernel = &mut self.machines[node].kernels[core];
        assert!(kernel.leased_buffers > 0, "a buffer was returned twice");
        kernel.leased_buffers -= 1;
        kernel.recycled_buffers += 1;
    }

    /// Begins a turn of a core: submits everything queued.
    pub(super) fn enter(&mut self, node: usize, core: usize) {
        let kernel = &mut self.machines[node].kernels[core];
        assert!(kernel.taken.is_empty(), "a turn left completions unread");
        let is_buffer = |event: &&Event<Leased>| matches!(event, Event::Received { result: Ok(_), .. });
        let held = kernel.ready.iter().filter(is_buffer).count();
        assert!(kernel.leased_buffers == held, "a leased buffer was kept past its turn");
        kernel.free_buffers += std::mem::take(&mut kernel.recycled_buffers);
        for operation in std::mem::take(&mut kernel.queued) {
            self.submit(node, core, operation);
        }
    }

    /// Hands a core the completions that are there.
    pub(super) fn reap(&mut self, node: usize, core: usize) -> usize {
        let kernel = &mut self.machines[node].kernels[core];
        kernel.taken = std::mem::take(&mut kernel.ready);
        kernel.taken.len()
    }

    /// How many completions wait for a core, and since when.
    pub(super) fn ready(&self, node: usize, core: usize) -> (usize, u64) {
        let kernel = &self.machines[node].kernels[core];
        (kernel.ready.len(), kernel.ready_since_ns)
    }

    /// Completes what can complete by now for a core.
    pub(super) fn advance(&mut self, node: usize, core: usize) {
        let now_ns = self.now_ns;
        let mut kernel = std::mem::take(&mut self.machines[node].kernels[core]);
        let before = kernel.ready.len();
        let wakes = kernel.wakes.extract_if(.., |at_ns| *at_ns <= now_ns);
        kernel.ready.extend(wakes.map(|_| Event::Woken));
        kernel.files.advance(&mut self.machines[node].disk, now_ns, &mut kernel.ready);
        for dial in std::mem::take(&mut kernel.dials) {
            self.advance_dial(node, &mut kernel, dial);
        }
        for listener in 0..LISTENERS {
            self.advance_accept(node, &mut kernel, listener);
        }
        for receive in std::mem::take(&mut kernel.receives) {
            if let Some(receive) = self.advance_receive(node, &mut kernel, receive) {
                kernel.receives.push(receive);
            }
        }
        for send in std::mem::take(&mut kernel.sends) {
            if let Some(send) = self.advance_send(node, &mut kernel, send) {
                kernel.sends.push(send);
            }
        }
        if before == 0 {
            kernel.ready_since_ns = now_ns;
        }
        for event in kernel.ready.iter().skip(before) {
            trace::note(|| format!("    node {} core {core} gets {}", node + 1, describe(event)));
        }
        self.machines[node].kernels[core] = kernel;
    }

    /// When something next completes for a core by itself; it may be in the past.
    pub(super) fn next_ns(&self, node: usize, core: usize) -> Option<u64> {
        let kernel = &self.machines[node].kernels[core];
        let accepts = kernel.accepts_ns.iter().zip(&kernel.backlogs);
        let accepts = accepts.filter_map(|(accepts_ns, backlog)| accepts_ns.filter(|_| !backlog.is_empty()));
        let receives = kernel.receives.iter().filter_map(|receive| {
            let (end, is_shut) = self.end_of(node, receive.socket);
            let is_over = is_shut || receive.is_cancelled;
            let news_ns = if is_over { Some(0) } else { self.network.next_ns(end) };
            news_ns.map(|at_ns| at_ns.max(receive.at_ns))
        });
        let sends = kernel.sends.iter().filter_map(|send| {
            let (end, is_shut) = self.end_of(node, send.socket);
            let room_ns = if is_shut { Some(0) } else { self.network.room_ns(end) };
            room_ns.map(|at_ns| at_ns.max(send.at_ns))
        });
        let dials = kernel.dials.iter().map(|dial| dial.at_ns);
        let wakes = kernel.wakes.iter().copied().chain(kernel.files.next_ns());
        wakes.chain(accepts).chain(dials).chain(receives).chain(sends).min()
    }

    fn advance_dial(&mut self, node: usize, kernel: &mut Kernel, mut dial: Dial) {
        let now_ns = self.now_ns;
        if dial.at_ns > now_ns {
            return kernel.dials.push(dial);
        }
        let ticket = dial.ticket;
        let (from, to) = (Host::Node(node), Host::Node(dial.to));
        let result = if !self.network.is_open(from, to) || !self.network.is_open(to, from) {
            if now_ns < dial.until_ns {
                dial.at_ns = now_ns + self.random.between(REDIAL_NS / 4, REDIAL_NS);
                return kernel.dials.push(dial);
            }
            Err(TIMED_OUT)
        } else if self.machines[dial.to].kernels.is_empty() {
            Err(CONNECTION_REFUSED)
        } else {
            let connection = self.network.connect(from, to);
            self.await_accept(dial.to, connection, PEER_LISTENER as usize);
            Ok(self.open(node, End { connection, side: 0 }))
        };
        kernel.ready.push_back(Event::Connected { ticket, result });
    }

    fn advance_accept(&mut self, node: usize, kernel: &mut Kernel, number: usize) {
        let listener = number as u32;
        while kernel.accepts_ns[number].is_some_and(|at_ns| at_ns <= self.now_ns)
            && let Some(end) = kernel.backlogs[number].pop_front()
        {
            let socket = self.open(node, end);
            let armed = !self.random.one_in(self.faults.unarmed);
            if !armed {
                kernel.accepts_ns[number] = None;
            }
            kernel.ready.push_back(Event::Accepted { listener, result: Ok(socket), armed });
        }
    }

    fn advance_receive(&mut self, node: usize, kernel: &mut Kernel, receive: Receive) -> Option<Receive> {
        let now_ns = self.now_ns;
        if receive.at_ns > now_ns {
            return Some(receive);
        }
        let (end, is_shut) = self.end_of(node, receive.socket);
        let news = self.network.news(end, now_ns);
        let has_bytes = matches!(news, Some(News::Bytes(_)));
        // Bytes may come in just ahead of a cancellation.
        let ending = if receive.is_cancelled && (!has_bytes || self.random.one_in(2)) {
            ReceiveEnd::Cancelled
        } else {
            match news {
                _ if is_shut => ReceiveEnd::Closed,
                None => return Some(receive),
                Some(News::Ended(Ending::Finish)) => ReceiveEnd::Closed,
                Some(News::Ended(Ending::Reset)) => ReceiveEnd::Failed(CONNECTION_RESET),
                Some(News::Broken(errno)) => ReceiveEnd::Failed(errno),
                Some(News::Bytes(_))
                    if receive.into.is_none()
                        && (kernel.free_buffers == 0 || self.random.one_in(self.faults.no_buffers)) =>
                {
                    ReceiveEnd::NoBuffers
                }
                Some(News::Bytes(count)) => return self.receive_bytes(kernel, receive, end, count),
            }
        };
        let connection = receive.token;
        kernel.ready.push_back(match receive.into {
            None => Event::Received { connection, result: Err(ending), armed: false },
            Some((buffer, _)) => Event::ReceivedInto { connection, buffer, result: Err(ending) },
        });
        None
    }

    fn receive_bytes(
        &mut self,
        kernel: &mut Kernel,
        mut receive: Receive,
        end: End,
        available: usize,
    ) -> Option<Receive> {
        let connection = receive.token;
        if let Some((mut buffer, length_max)) = receive.into.take() {
            let room = (buffer.capacity() - buffer.len()).min(length_max);
            let count = self.piece(available.min(room));
            buffer.extend(self.network.receive(end, count));
            kernel.ready.push_back(Event::ReceivedInto { connection, buffer, result: Ok(count) });
            return None;
        }
        let count = self.piece(available.min(self.buffer_size_bytes));
        let bytes = self.network.receive(end, count);
        kernel.free_buffers -= 1;
        kernel.leased_buffers += 1;
        let armed = !self.random.one_in(self.faults.unarmed);
        kernel.ready.push_back(Event::Received { connection, result: Ok(Leased(bytes)), armed });
        receive.at_ns = self.now_ns + self.delay_ns();
        armed.then_some(receive)
    }

    fn advance_send(&mut self, node: usize, kernel: &mut Kernel, mut send: Send) -> Option<Send> {
        let now_ns = self.now_ns;
        if send.at_ns > now_ns {
            return Some(send);
        }
        let (end, is_shut) = self.end_of(node, send.socket);
        let room = if is_shut { Err(super::network::BROKEN_PIPE) } else { self.network.room(end, now_ns) };
        let result = match room {
            Ok(0) => return Some(send),
            Ok(room) => {
                let left = send.buffer.len() - send.offset - send.sent;
                let count = self.piece(room.min(left));
                let from = send.offset + send.sent;
                self.network.send(end, &send.buffer[from..from + count], now_ns);
                send.sent += count;
                if count < left && !self.random.one_in(self.faults.short_send) {
                    send.at_ns = now_ns + self.delay_ns();
                    return Some(send);
                }
                Ok(send.sent)
            }
            Err(_) if send.sent > 0 => Ok(send.sent),
            Err(errno) => Err(errno),
        };
        kernel.ready.push_back(Event::Sent { connection: send.token, buffer: send.buffer, result });
        None
    }
}
