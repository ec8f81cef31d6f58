//! One core's loop.
//!
//! ```text
//! completions -> connection -> parse -> route -> { execute | propose | forward | gather }
//!             -> journal write -> commit -> apply -> replies -> sends
//! ```
//!
//! A turn reaps completions, serves them, takes the other cores' batches, lets long work go on for a budget, and
//! queues one send a connection and one batch a core; the next turn's single kernel entry submits them. Invariants:
//!
//! - A leased receive buffer goes back in the turn that it came in.
//! - The turn's records are written before anything that tells of them leaves: sends and batches come last, and as long
//!   as they cannot be written nothing leaves at all.
//! - Nothing runs longer than a budget without returning here.
//! - Whatever makes work for the next turn without a completion (ready connections, jobs, retries, unpublished
//!   batches) keeps the loop from sleeping.

pub mod admin;
pub mod batch;
pub mod clocks;
pub mod cluster_shared;
pub mod commit;
pub mod connection;
pub mod gather;
pub mod gossip;
pub mod groups;
mod input;
pub mod leave;
pub mod levels;
pub mod locks;
pub mod log;
mod mail;
pub mod meeting;
pub mod node;
mod output;
pub mod peer;
pub mod persistence_report;
mod propose;
pub mod replies;
pub mod request;
pub mod route;
pub mod save;
pub mod save_status;
pub mod spread;
pub mod stats;
mod tickets;
mod timers;
mod topology;
mod transact;

use std::{cmp::Ordering, collections::VecDeque, time::Duration};

use duva_net::io::{Clock, Event, Io, ReceiveEnd, Socket, Token, Wait};

use connection::{Connection, Connections, State};
use input::Parsed;
use node::Node;
use route::Lack;
use tickets::Ticket;
use timers::{Timer, Timers};

/// The most completions worth waiting for in one turn.
const BATCH_MAX: u32 = 16;

/// How often an empty inbox is looked at before the core sleeps, while other cores owe it replies.
const SPIN_ROUNDS: u32 = 2_000;

/// Entries that expiry and freeing look at in one turn.
const EXPIRE_BUDGET: usize = 512;

/// How long the last turns wait for the disk before they look again.
const FINISH_WAIT: Duration = Duration::from_millis(100);

/// How long a listener rests after the process ran out of descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A receive's completion.
struct Arrival<B> {
    connection: Token,
    result: Result<B, ReceiveEnd>,
    armed: bool,
}

/// One core.
pub struct Core<I: Io> {
    io: I,
    node: Node,
    connections: Connections,
    timers: Timers,
    /// Connections with input to go on with.
    ready: Vec<Token>,
    /// Connections with output to send, or that are to close.
    dirty: Vec<Token>,
    /// Others, whose replies a commit has let go, and which leave a few a turn.
    late: VecDeque<Token>,
    /// Connections that wait for room, and where.
    held_back: Vec<(Token, Lack)>,
    /// Connections whose receive found no buffer.
    starved: Vec<Token>,
    /// Empty output buffers.
    spare_outputs: Vec<Vec<u8>>,
    /// Unread replies of all connections, in bytes, as of their last flush.
    unread_bytes: usize,
    /// The smallest limit of unread replies in force.
    output_limit_bytes: u64,
    parsed: Parsed,
    arrivals: Vec<Arrival<I::Buffer>>,
    mail: mail::Mail,
    clock: Clock,
    /// Completions of recent turns, which the next wait hopes for.
    batch_target: u32,
    /// When connections may be told of a change of leaders or nodes again, in monotonic nanoseconds.
    topology_due_ns: u64,
    /// Whether a timer for that is set.
    has_topology_timer: bool,
    /// Whether a timer for [`Core::cron`] is set.
    has_cron: bool,
    /// Whether a timer for [`Node::save_cron`] is set.
    has_save_cron: bool,
    /// Listeners that are not served yet: not before it is known whether the journal can be written.
    closed_listeners: u32,
    /// Whether the last turn could not write its records, so that nothing may leave.
    is_ahead: bool,
    /// Whether writes had to wait for a save, when it was looked at last.
    was_save_gate_closed: bool,
    is_stopping: bool,
}

impl<I: Io> Core<I> {
    /// A core with `listener_count` listeners, which it begins to serve.
    pub fn new(mut io: I, node: Node, listener_count: u32) -> Self {
        // From here on elapsed time counts: not that of the machine's start.
        let clock = io.clock();
        let mut this = Self {
            io,
            node,
            connections: Connections::default(),
            timers: Timers::default(),
            ready: Vec::new(),
            dirty: Vec::new(),
            late: VecDeque::new(),
            held_back: Vec::new(),
            starved: Vec::new(),
            spare_outputs: Vec::new(),
            unread_bytes: 0,
            output_limit_bytes: u64::MAX,
            parsed: Parsed::default(),
            arrivals: Vec::new(),
            mail: mail::Mail::default(),
            clock,
            batch_target: 1,
            topology_due_ns: 0,
            has_topology_timer: false,
            has_cron: false,
            has_save_cron: false,
            closed_listeners: listener_count,
            is_ahead: false,
            was_save_gate_closed: false,
            is_stopping: false,
        };
        this.read_clock();
        this.node.begin_saver();
        this.set_output_limit();
        // Asks for the first segment, so that the first turn waits for nothing but that.
        this.run_log();
        this.open_listeners();
        this.arm_cron();
        this.arm_save_cron();
        this
    }

    /// Serves until the server stops.
    pub fn run(&mut self) {
        while !self.is_stopping {
            self.turn();
        }
        self.finish_log();
        self.node.note_keys_left();
    }

    /// Whether the server has been told to stop.
    pub fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    /// The world that this core lives in.
    pub fn io(&mut self) -> &mut I {
        &mut self.io
    }

    /// What the core knows.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The same, for a simulator that looks at the keys between turns.
    pub fn node_mut(&mut self) -> &mut Node {
        &mut self.node
    }

    /// One turn.
    pub fn turn(&mut self) {
        let wait = self.begin_turn(SPIN_ROUNDS);
        self.end_turn(wait);
    }

    /// Submits what is queued and waits. An empty inbox that other cores owe replies to is looked at `spin_rounds`
    /// times before. A simulator lets the other cores run between this and [`Core::end_turn`].
    pub fn begin_turn(&mut self, spin_rounds: u32) -> Wait {
        let wait = self.plan_wait(spin_rounds);
        self.io.turn(wait);
        wait
    }

    /// Serves everything there is after a wait.
    pub fn end_turn(&mut self, wait: Wait) {
        self.node.mesh.awake();
        self.read_clock();
        self.node.stats.turns += 1;
        if let Some(log) = &mut self.node.log {
            log.begin_turn(self.node.executor.now_ms);
        }
        self.node.look_at_cluster();
        let events = self.take_events();
        self.adapt(wait, events);
        self.tell_of_links();
        self.take_mail();
        // A link that was adopted there took the place of one whose answers are lost: before it brings any, that is known.
        self.tell_of_links();
        self.run_timers();
        self.go_on();
        self.node.run_saver(&mut self.io, self.clock.monotonic_ns);
        self.tell_of_relief();
        let prompt = self.dirty.len();
        self.run_log();
        self.node.tell_of_journal();
        self.is_ahead = self.node.is_ahead();
        if self.node.topology_has_changed {
            self.push_topology();
        }
        self.dial_peers();
        self.node.peers.hurry(self.clock.monotonic_ns);
        self.is_stopping = self.node.is_to_stop();
        if !self.is_ahead {
            self.flush_peers();
            self.flush(prompt);
            self.send_mail();
        }
    }

    /// Tells of links that broke, and of those that came up.
    fn tell_of_links(&mut self) {
        for node in self.node.peers.take_broken() {
            self.node.link_has_changed(node, false, self.clock.monotonic_ns);
            self.node.peer_is_lost(node);
        }
        for node in self.node.peers.take_silenced() {
            for core in (0..self.node.cores).filter(|&core| core != self.node.core) {
                self.node.mesh.outgoing(core).messages.push(batch::Message::PeerSilenced { node });
            }
        }
        for node in self.node.peers.take_raised() {
            self.node.link_has_changed(node, true, self.clock.monotonic_ns);
            self.node.peer_is_up(node);
            self.node.tell_clock_soon();
        }
    }

    /// Serves the turn's completions; returns how many of them brought something new. What arrived on all connections
    /// is prefetched before the first request is executed.
    fn take_events(&mut self) -> u32 {
        let mut events = 0;
        let mut arrivals = std::mem::take(&mut self.arrivals);
        while let Some(event) = self.io.next_event() {
            match event {
                Event::Received { connection, result, armed } => {
                    events += 1;
                    arrivals.push(Arrival { connection, result, armed });
                }
                event => {
                    events += u32::from(matches!(event, Event::Accepted { .. }));
                    self.on_event(event);
                }
            }
        }
        self.read_group_clock();
        if arrivals.len() > 1 {
            let bytes = arrivals.iter().filter_map(|arrival| {
                let buffer = arrival.result.as_ref().ok()?;
                Some((arrival.connection, &**buffer))
            });
            self.parsed.prefetch_first(&mut self.connections, &self.node, bytes);
        }
        for Arrival { connection, result, armed } in arrivals.drain(..) {
            self.on_received(connection, result, armed);
        }
        self.arrivals = arrivals;
        events
    }

    fn read_clock(&mut self) {
        let clock = self.io.clock();
        // While the wall clock lags what was already used, time goes on with the monotonic clock.
        let elapsed_ms = (clock.monotonic_ns.saturating_sub(self.clock.monotonic_ns)) / 1_000_000;
        let used_ms = self.node.executor.now_ms;
        if clock.wall_ms >= used_ms {
            self.node.executor.now_ms = clock.wall_ms;
            self.clock = clock;
        } else if elapsed_ms > 0 {
            self.node.executor.now_ms = used_ms + elapsed_ms;
            self.clock = Clock { monotonic_ns: self.clock.monotonic_ns + elapsed_ms * 1_000_000, ..clock };
        }
        self.node.executor.read_ms = self.node.visible_ms();
        if let Some(cluster) = &self.node.cluster {
            let own = Clock { wall_ms: self.node.executor.now_ms, ..self.clock };
            self.node.shard_now_ms = cluster.held_ms(own);
        }
        if let Some(groups) = &mut self.node.groups {
            groups.set_clock(self.clock.monotonic_ns);
        }
    }

    /// Reads the groups' clock once more, behind the coming of what is about to be served: if the process was stopped
    /// before that, a lease that ended meanwhile must not serve it.
    #[inline]
    pub(in crate::core) fn read_group_clock(&mut self) {
        if let Some(groups) = &mut self.node.groups {
            groups.set_clock(self.io.clock().monotonic_ns);
        }
    }

    /// How long the next turn may wait, given what is left to do.
    fn plan_wait(&mut self, spin_rounds: u32) -> Wait {
        let may_leave = self.mail.has_work() || !self.late.is_empty() || self.node.peers.has_unflushed();
        if !self.ready.is_empty() || self.node.has_work() || (may_leave && !self.is_ahead) {
            return Wait::Poll;
        }
        let node = &mut self.node;
        if node.has_background_work() {
            return Wait::Yield;
        }
        let owed: u32 =
            node.outstanding.iter().sum::<u32>() + node.gathers.count() as u32 + node.spreads.count();
        // As long as nothing may leave, mail waits: nobody need wake the core for it.
        if !self.is_ahead {
            if owed > 0 {
                for _ in 0..spin_rounds {
                    if node.mesh.has_mail() {
                        return Wait::Poll;
                    }
                    std::hint::spin_loop();
                }
            }
            if !node.mesh.prepare_sleep() {
                return Wait::Poll;
            }
        }
        let visible_ms = node.visible_ms();
        let due_ns = node.executor.due_ms.checked_sub(visible_ms).map(|ms| ms.saturating_mul(1_000_000));
        let timer_ns = self.timers.next_ns().map(|at| at.saturating_sub(self.clock.monotonic_ns));
        let timeout_ns = match (due_ns.filter(|_| node.executor.due_ms != u64::MAX), timer_ns) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        if node.executor.due_ms <= visible_ms {
            // What is due and waits for a commit, or for room, needs no attention before that comes.
            if visible_ms == node.executor.now_ms && node.can_tick() {
                return Wait::Poll;
            }
        }
        let log_ns = node.log.as_ref().and_then(|log| log.next_ns(self.clock, node.executor.now_ms));
        let log_ns = log_ns.map(|at_ns| at_ns.saturating_sub(self.clock.monotonic_ns));
        let retry_ms = node.next_retry_ms().map(|at_ms| at_ms.saturating_sub(node.executor.now_ms));
        let retry_ns = retry_ms.map(|ms| ms * 1_000_000);
        let cluster_ns = node.groups.as_ref().map(|groups| groups.next_ns());
        let meta_ns = node.meta.as_ref().map(|meta| meta.next_ns());
        let gossip_ns = node.gossip.as_ref().map(|gossip| gossip.next_ns());
        let clocks_ns = node.clocks.as_ref().map(|clocks| clocks.next_ns());
        let cluster_ns = [cluster_ns, meta_ns, gossip_ns, clocks_ns, node.peers.next_ns()];
        let cluster_ns = cluster_ns.into_iter().flatten().min();
        let cluster_ns = cluster_ns.map(|at_ns| at_ns.saturating_sub(self.clock.monotonic_ns));
        let timeout_ns = [timeout_ns, log_ns, retry_ns, cluster_ns].into_iter().flatten().min();
        let timeout = timeout_ns.map(Duration::from_nanos);
        let events = if owed == 0 && self.io.can_batch() { self.batch_target } else { 1 };
        Wait::Block { events, timeout }
    }

    /// Learns from a turn how many completions to wait for in the next one.
    fn adapt(&mut self, wait: Wait, events: u32) {
        if let Wait::Block { events: wanted, .. } = wait {
            self.batch_target = match events.cmp(&wanted) {
                Ordering::Greater => (wanted + 1).min(BATCH_MAX),
                Ordering::Equal => wanted,
                // Half of the shortfall, so that one slow round does not undo what many have shown, and a lone
                // client is waited for alone after a few.
                Ordering::Less => (wanted + events) / 2,
            }
            .max(1);
        }
    }

    fn on_event(&mut self, event: Event<I::Buffer>) {
        match event {
            Event::Received { .. } => unreachable!("receives are taken together"),
            Event::Sent { connection, buffer, result } => self.on_sent(connection, buffer, result),
            Event::ReceivedInto { connection, buffer, result } => {
                self.on_received_into(connection, buffer, result);
            }
            Event::Accepted { listener, result, armed } => self.on_accepted(listener, result, armed),
            Event::Connected { ticket, result } => self.on_connected(ticket, result),
            Event::Synced { ticket, result } => self.on_synced(ticket, result),
            Event::FileDone { ticket, buffer, result } => self.on_file_done(ticket, buffer, result),
            Event::Woken => {}
        }
    }

    fn on_accepted(&mut self, listener: u32, result: Result<Socket, i32>, armed: bool) {
        let mut rest = false;
        match result {
            Ok(socket) if self.node.shared.is_peer_listener(listener) => self.accept_peer(socket),
            Ok(socket) => {
                let is_unix = self.node.shared.is_unix_listener(listener);
                let core = self.node.shared.least_loaded(self.node.core);
                if core == self.node.core {
                    self.adopt(socket, is_unix);
                } else {
                    let message = batch::Message::Connection { socket, is_unix };
                    self.node.mesh.outgoing(core).messages.push(message);
                }
            }
            Err(errno) => {
                tracing::warn!("accepting a connection: {}", std::io::Error::from_raw_os_error(errno));
                // Out of descriptors or memory: trying again at once would only burn time.
                rest = matches!(errno, libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM);
            }
        }
        if !armed && !self.is_stopping {
            if rest {
                let at = self.clock.monotonic_ns + ACCEPT_RETRY.as_nanos() as u64;
                self.timers.insert(at, Timer::Accept(listener));
            } else {
                self.io.accept(listener);
            }
        }
    }

    /// Serves a new connection on this core, which [`admin::Shared::least_loaded`] has counted already.
    fn adopt(&mut self, socket: Socket, is_unix: bool) {
        let node = &mut self.node;
        node.stats.connections_received += 1;
        let is_over = node.shared.client_count() > node.config.clients_max as usize;
        let mut state = State::default();
        state.set(State::UNIX, is_unix);
        state.set(State::AUTHENTICATED, node.config.password.is_empty());
        state.set_consistency(node.config.consistency);
        let id = node.shared.next_client_id();
        let token = self.insert_connection(socket, state, id);
        let connection = self.connections.get_mut(token).expect("it was just added");
        if is_over {
            self.node.stats.connections_rejected += 1;
            connection.output.extend_from_slice(b"-ERR max number of clients reached\r\n");
            connection.state.insert(State::CLOSE_AFTER_REPLY);
            Self::mark_dirty(connection, &mut self.dirty);
        } else {
            connection.state.insert(State::RECEIVING);
            self.io.receive(token, socket);
        }
    }

    /// Adds a connection to the table; its operations are the caller's to begin.
    fn insert_connection(&mut self, socket: Socket, state: State, id: u64) -> Token {
        let now_ms = self.node.executor.now_ms;
        self.connections.insert(|token| Connection {
            socket,
            token,
            state,
            protocol: Default::default(),
            database: 0,
            id,
            input: Vec::new(),
            parser: Default::default(),
            unfinished: None,
            stalled: None,
            output: Vec::new(),
            replies: Default::default(),
            sending_bytes: 0,
            counted_bytes: 0,
            remote_window: connection::REMOTE_WINDOW_FIRST,
            soft_limit_since_ns: None,
            created_ms: now_ms,
            active_ms: now_ms,
            last_command: None,
            identity: None,
        })
    }

    fn on_received(&mut self, token: Token, result: Result<I::Buffer, ReceiveEnd>, armed: bool) {
        let Some(connection) = self.connections.get_mut(token) else {
            if let Ok(buffer) = result {
                self.io.recycle(buffer);
            }
            return;
        };
        if connection.is_peer() {
            return self.on_peer_received(token, result, armed);
        }
        if !armed {
            connection.state.remove(State::RECEIVING.and(State::CANCELLING));
        }
        match result {
            Ok(buffer) => {
                self.node.stats.input_bytes += buffer.len() as u64;
                self.take_input(token, &buffer);
                self.io.recycle(buffer);
            }
            Err(ReceiveEnd::NoBuffers) => {
                self.node.stats.buffer_shortages += 1;
                self.starved.push(token);
                return;
            }
            Err(ReceiveEnd::Cancelled) => {}
            Err(ReceiveEnd::Closed) => {
                connection.state.insert(State::END_OF_INPUT);
                if connection.state.any(State::WAITING.and(State::PAUSED)) {
                    // Nobody is left to wait for what may never come.
                    return self.close(token);
                }
                Self::mark_dirty(connection, &mut self.dirty);
            }
            Err(ReceiveEnd::Failed(errno)) => {
                tracing::debug!(id = connection.id, errno, "receiving failed");
                self.close(token);
                return;
            }
        }
        self.arrange_receive(token);
    }

    /// Connections that waited go on; long work goes on for one budget.
    fn go_on(&mut self) {
        if !self.starved.is_empty() {
            for token in std::mem::take(&mut self.starved) {
                self.arrange_receive(token);
            }
        }
        let mut ready = std::mem::take(&mut self.ready);
        for token in ready.drain(..) {
            self.process_waiting_input(token);
        }
        if self.ready.is_empty() {
            self.ready = ready;
        }
        self.node.retry_gathers();
        self.node.retry_spreads();
        self.node.run_job();
        self.node.run_streams();
        self.node.apply_more();
        self.take_deliveries();
    }

    /// When saving holds writes back no longer, the connections of other cores learn of it only if somebody tells them.
    fn tell_of_relief(&mut self) {
        let is_closed = self.node.is_save_gate_closed();
        if std::mem::replace(&mut self.was_save_gate_closed, is_closed) && !is_closed {
            for core in (0..self.node.cores).filter(|&core| core != self.node.core) {
                self.node.mesh.outgoing(core).messages.push(batch::Message::Relief);
            }
        }
    }

    /// Writes the turn's records, and applies and answers what is committed.
    fn run_log(&mut self) {
        let now_ms = self.node.executor.now_ms;
        self.tick_what_was_read();
        self.node.resume_deferred();
        self.node.run_meta(&mut self.io, self.clock.monotonic_ns);
        self.node.run_groups(&mut self.io);
        self.node.run_gossip(self.clock.monotonic_ns);
        self.node.run_clocks(self.clock);
        let Some(log) = &mut self.node.log else { return };
        log.pump(&mut self.io, self.clock, now_ms, self.node.groups.is_some());
        if self.node.groups.is_some() {
            // What is written counts, and what is synced: acknowledgements need not wait for another turn.
            self.node.run_groups(&mut self.io);
        }
        self.node.apply_committed();
        self.node.answer_prepared();
        self.take_deliveries();
        if let Some(log) = &mut self.node.log {
            log.end_turn(now_ms);
        }
        self.open_listeners();
    }

    /// Begins to serve the listeners once writes are either taken or refused.
    fn open_listeners(&mut self) {
        if self.closed_listeners > 0 && self.node.log.as_ref().is_none_or(|log| log.is_decided()) {
            (0..self.closed_listeners).for_each(|listener| self.io.accept(listener));
            self.closed_listeners = 0;
        }
    }

    /// Makes the journal durable, as the last thing that the core does.
    fn finish_log(&mut self) {
        self.node.stop_saver(&mut self.io);
        loop {
            self.read_clock();
            self.run_log();
            if self.node.log.as_mut().is_none_or(|log| log.finish()) {
                return;
            }
            // Completions of sockets mean nothing any more.
            self.io.turn(Wait::Block { events: 1, timeout: Some(FINISH_WAIT) });
            while let Some(event) = self.io.next_event() {
                match event {
                    Event::Synced { ticket, result } => self.on_synced(ticket, result),
                    Event::FileDone { ticket, buffer, result } => self.on_file_done(ticket, buffer, result),
                    Event::Received { result: Ok(buffer), .. } => self.io.recycle(buffer),
                    _ => {}
                }
            }
        }
    }

    fn on_synced(&mut self, ticket: u64, result: Result<(), i32>) {
        debug_assert!(Ticket::of(ticket) == Ticket::JournalSync);
        if let Some(log) = &mut self.node.log {
            log.synced(result, self.clock.monotonic_ns, self.node.executor.now_ms);
        }
    }

    fn on_file_done(&mut self, ticket: u64, buffer: Vec<u8>, result: Result<(), i32>) {
        match Ticket::of(ticket) {
            Ticket::Segment(sequence) => {
                if let Some(log) = &mut self.node.log {
                    log.segment_prepared(sequence, result, self.clock.monotonic_ns);
                }
            }
            Ticket::Retired => {
                if let Some(log) = &mut self.node.log {
                    log.segment_removed(result, self.clock.monotonic_ns);
                }
            }
            Ticket::Save(number) => self.node.saver_task_done(number, buffer, result),
            Ticket::GroupRead(number) => {
                self.node.group_read_done(number, &buffer, result, &mut self.io);
            }
            Ticket::Install(shard) => self.node.install_step_done(shard as u16, result, &mut self.io),
            Ticket::MetaFile => self.node.meta_file_written(result, self.clock.monotonic_ns),
            Ticket::StartsFile => self.node.starts_file_written(result, self.clock.monotonic_ns),
            Ticket::Ignored | Ticket::JournalSync => {}
        }
    }
}
