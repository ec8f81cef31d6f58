//! From bytes to requests.
//!
//! Requests are parsed where they arrived, a batch at a time, and prefetched together before the first is executed.
//! Invariants: only the tail of an unfinished request, or input that must wait, is copied to the connection's own
//! memory; what one connection executes and keeps in a turn is bounded.

use std::ops::Range;

use duva_engine::{
    Args, ArgumentRange, KeyHash, LARGE_ARGUMENT, Reply,
    command::{self, Command, Flags},
};
use duva_net::{
    io::{Io, ReceiveEnd, Token},
    resp::{Limits, Parser, Progress, ProtocolError},
};

use super::{
    Core,
    batch::PIECE_KEYS_MAX,
    connection::{Connection, Connections, Receiving, State, Unfinished},
    node::Node,
    request::Request,
    route::{Flow, Lack, route},
};

/// Requests that are parsed and prefetched together.
const BATCH_REQUESTS: usize = 32;

/// Arguments that the arrays of parsed requests have room for between uses.
const KEPT_RANGES: usize = 4096;

/// Longer input prefetches in its own batches.
const GLANCE_BYTES_MAX: usize = 512;

/// Requests that one connection executes in a turn.
const TURN_REQUESTS: usize = 1024;

/// Waiting input past which a connection's receive is cancelled.
const WAITING_INPUT_BYTES_MAX: usize = 1 << 20;

/// Bulks of at least this length are received into an allocation of their own.
const LARGE_BULK_BYTES: usize = 64 << 10;

/// What a large bulk's allocation begins with at most; it doubles as bytes arrive, until a good part of the bulk is here.
const LARGE_FIRST_BYTES: usize = 64 << 10;

/// A large bulk's allocation gets its final size once one part in so many has arrived.
const LARGE_LAST_STEP: usize = 32;

/// Parsed requests; reused for every connection.
#[derive(Default)]
pub(super) struct Parsed {
    requests: Vec<Place>,
    ranges: Vec<ArgumentRange>,
    keys: Vec<KeyHash>,
    /// Large arguments; only a batch's first request has any.
    large: Vec<Vec<u8>>,
    /// Inline lines with quotes, without them.
    unquoted: Vec<Vec<u8>>,
    /// First keys of what arrived on all connections, with their databases.
    glances: Vec<(u8, KeyHash)>,
    /// The error behind the last request.
    error: Option<ProtocolError>,
}

/// One request's place among the parsed.
struct Place {
    /// `None`: no such command.
    command: Option<&'static Command>,
    /// Whether the command takes that many arguments.
    is_accepted: bool,
    /// Its first byte.
    start: usize,
    /// The byte behind it.
    end: usize,
    ranges: Range<usize>,
    keys: Range<usize>,
    /// The line its ranges point into, if that is not the input.
    unquoted: Option<usize>,
}

/// Why processing stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stop {
    /// More bytes are needed.
    Hungry,
    /// The turn's budget is used up.
    Budget,
    /// The connection must wait for something.
    Waits,
    /// Something has no room for the next request.
    NoRoom(Lack),
}

impl Stop {
    /// After a request that let its connection not go on.
    fn of(flow: Flow) -> Self {
        if let Flow::NoRoom(lack) = flow { Self::NoRoom(lack) } else { Self::Waits }
    }
}

impl Connection {
    /// Whether its requests may be executed now.
    pub(super) fn can_execute(&self) -> bool {
        !self.state.any(State::FENCED.and(State::PAUSED).and(State::CLOSING).and(State::CLOSE_AFTER_REPLY))
    }
}

impl<I: Io> Core<I> {
    /// Takes bytes that arrived on a connection.
    pub(super) fn take_input(&mut self, token: Token, mut bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.state.any(State::CLOSING.and(State::CLOSE_AFTER_REPLY)) {
            return;
        }
        connection.active_ms = self.node.executor.now_ms;
        if let Some(receiving) = receiving_mut(connection) {
            // The receive of the large bulk's beginning was not cancelled yet.
            let missing = receiving.length - receiving.buffer.len();
            let (part, rest) = bytes.split_at(missing.min(bytes.len()));
            receiving.buffer.extend_from_slice(part);
            receiving.arrived = receiving.buffer.len();
            bytes = rest;
            self.finish_large(token);
            self.check_input_limit(token);
            let Some(connection) = self.connections.get_mut(token) else { return };
            if bytes.is_empty() || receiving_mut(connection).is_some() {
                return;
            }
            connection.input.extend_from_slice(bytes);
            self.check_input_limit(token);
            return self.process_waiting_input(token);
        }
        if !connection.can_execute() || connection.state.any(State::READY) || self.is_choked(token) {
            return self.keep_input(token, bytes);
        }
        let connection = self.connections.get_mut(token).expect("it was here above");
        if !connection.input.is_empty() {
            connection.input.extend_from_slice(bytes);
            self.check_input_limit(token);
            return self.process_waiting_input(token);
        }
        let (keep, stop) = self.process(token, bytes);
        self.keep_input(token, &bytes[keep]);
        self.after_processing(token, stop);
    }

    /// Goes on with input that waits in the connection's own memory.
    pub(super) fn process_waiting_input(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.state.remove(State::READY);
        if connection.is_peer() {
            return self.resume_peer(token);
        }
        let has_work =
            !connection.input.is_empty() || connection.unfinished.is_some() || connection.stalled.is_some();
        if !connection.can_execute() || !has_work || receiving_mut(connection).is_some() {
            // It may have been kept from closing.
            Self::mark_dirty(connection, &mut self.dirty);
            return self.arrange_receive(token);
        }
        if self.is_choked(token) {
            return;
        }
        let connection = self.connections.get_mut(token).expect("it was here above");
        let mut input = std::mem::take(&mut connection.input);
        let (keep, stop) = self.process(token, &input);
        if let Some(connection) = self.connections.get_mut(token) {
            if keep.is_empty() {
                // An idle connection holds no buffers.
                input = Vec::new();
            } else {
                input.truncate(keep.end);
                input.drain(..keep.start);
            }
            connection.input = input;
        }
        self.after_processing(token, stop);
        self.arrange_receive(token);
    }

    fn after_processing(&mut self, token: Token, stop: Stop) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        match stop {
            Stop::Hungry | Stop::Waits => {}
            Stop::Budget => Self::mark_ready(connection, &mut self.ready),
            Stop::NoRoom(_) if connection.state.any(State::HELD_BACK) => {}
            Stop::NoRoom(lack) => {
                connection.state.insert(State::HELD_BACK);
                self.held_back.push((token, lack));
            }
        }
        Self::mark_dirty(connection, &mut self.dirty);
    }

    /// Puts a connection among those that go on in the next turn.
    pub(super) fn mark_ready(connection: &mut Connection, ready: &mut Vec<Token>) {
        if !connection.state.any(State::READY) {
            connection.state.insert(State::READY);
            ready.push(connection.token);
        }
    }

    fn keep_input(&mut self, token: Token, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.input.extend_from_slice(bytes);
        self.check_input_limit(token);
    }

    /// Closes a connection that has more unexecuted input than it may.
    fn check_input_limit(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.input_bytes() as u64 > self.node.config.request_bytes_max() {
            tracing::warn!(id = connection.id, "closing a client past client-query-buffer-limit");
            self.node.stats.input_limit_closed += 1;
            self.close(token);
        }
    }

    /// Parses and executes requests from `bytes`; returns which bytes are still needed, and why it stopped.
    fn process(&mut self, token: Token, bytes: &[u8]) -> (Range<usize>, Stop) {
        let Some(connection) = self.connections.get_mut(token) else { return (0..0, Stop::Waits) };
        let node = &mut self.node;
        let parsed = &mut self.parsed;
        Self::provide_output(connection, &mut self.spare_outputs);
        if let Some(mut stalled) = connection.stalled.take() {
            match execute(node, connection, &mut stalled.view()) {
                Flow::Next => {}
                Flow::Stop => return (0..bytes.len(), Stop::Waits),
                flow => {
                    connection.stalled = Some(stalled);
                    return (0..bytes.len(), Stop::of(flow));
                }
            }
        }
        let mut limits = Limits {
            bulk_len_bytes_max: node.config.argument_bytes_max(),
            large_bulk_bytes_min: LARGE_BULK_BYTES,
            ..Limits::default()
        };
        let mut position = 0;
        let mut executed = 0;
        loop {
            limits.authenticated = connection.state.any(State::AUTHENTICATED);
            let (next, keep_to, is_hungry) = parsed.parse(connection, node, bytes, position, &limits);
            parsed.prefetch(connection, node);
            let count = parsed.requests.len();
            for index in 0..count {
                let flow = parsed.execute(index, connection, node, bytes);
                if flow == Flow::Next {
                    continue;
                }
                // What was parsed behind it is parsed again later.
                connection.parser = Parser::default();
                connection.unfinished = None;
                let place = &parsed.requests[index];
                let is_used = flow == Flow::Stop || connection.stalled.is_some();
                let from = if is_used { place.end } else { place.start };
                return (from..bytes.len(), Stop::of(flow));
            }
            position = next;
            executed += count;
            if let Some(error) = parsed.error.take() {
                fail(node, connection, error);
                return (0..0, Stop::Waits);
            }
            if is_hungry {
                return (position..keep_to, Stop::Hungry);
            }
            if !connection.can_execute() {
                return (position..bytes.len(), Stop::Waits);
            }
            if connection.replies.len() >= connection.remote_window {
                return (position..bytes.len(), Stop::Waits);
            }
            if executed >= TURN_REQUESTS || connection.output_bytes() > super::output::CHOKE_BYTES_MIN {
                return (position..bytes.len(), Stop::Budget);
            }
        }
    }

    /// A receive into private memory completed.
    pub(super) fn on_received_into(
        &mut self,
        token: Token,
        buffer: Vec<u8>,
        result: Result<usize, ReceiveEnd>,
    ) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.is_peer() {
            return self.on_hello_received(token, buffer, result);
        }
        connection.state.remove(State::RECEIVING_INTO.and(State::CANCELLING));
        connection.active_ms = self.node.executor.now_ms;
        if let Some(receiving) = receiving_mut(connection) {
            receiving.arrived = buffer.len();
            receiving.buffer = buffer;
        }
        match result {
            Ok(count) => {
                self.node.stats.input_bytes += count as u64;
                self.finish_large(token);
                self.check_input_limit(token);
            }
            Err(ReceiveEnd::Cancelled | ReceiveEnd::NoBuffers) => {}
            Err(ReceiveEnd::Closed) => {
                // The request can never become whole; earlier ones are still answered.
                connection.state.insert(State::END_OF_INPUT);
                Self::mark_dirty(connection, &mut self.dirty);
            }
            Err(ReceiveEnd::Failed(_)) => return self.close(token),
        }
        self.arrange_receive(token);
    }

    /// If the large bulk has arrived whole, the request goes on behind it.
    fn finish_large(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let parser = &mut connection.parser;
        let Some(unfinished) = &mut connection.unfinished else { return };
        let Some(receiving) =
            unfinished.receiving.take_if(|receiving| receiving.buffer.len() == receiving.length)
        else {
            return;
        };
        let mut buffer = receiving.buffer;
        // Redis does not look at the two bytes behind a bulk either.
        buffer.truncate(receiving.length - 2);
        unfinished.large_bytes += buffer.len();
        parser.large_received(unfinished.large.len() as u32, &mut unfinished.ranges);
        unfinished.large.push(buffer);
        Self::mark_ready(connection, &mut self.ready);
    }

    /// Makes the socket's receive what the connection's state asks for.
    pub(super) fn arrange_receive(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.state.any(State::CLOSING) {
            return self.finish_closing(token);
        }
        if connection.is_peer() {
            return self.arrange_peer_receive(token);
        }
        let socket = connection.socket;
        let is_armed = connection.state.any(State::RECEIVING.and(State::RECEIVING_INTO));
        let is_over = connection.state.any(State::END_OF_INPUT.and(State::CLOSE_AFTER_REPLY));
        let backlog = connection.input.len();
        // While WAIT is under way only the end of the input tells that the client has gone.
        let waits = !connection.state.any(State::WAITING)
            && (backlog > WAITING_INPUT_BYTES_MAX
                || (!connection.can_execute() && backlog > WAITING_INPUT_BYTES_MAX / 16));
        let wants_private =
            connection.unfinished.as_ref().is_some_and(|unfinished| unfinished.receiving.is_some());
        let is_receiving = connection.state.any(State::RECEIVING);
        if is_receiving && (wants_private || (waits && !self.needs_bytes(token))) {
            let connection = self.connections.get_mut(token).expect("it was here above");
            if !connection.state.any(State::CANCELLING) {
                connection.state.insert(State::CANCELLING);
                self.io.cancel_receive(token);
            }
            return;
        }
        if is_armed || is_over {
            return;
        }
        let connection = self.connections.get_mut(token).expect("it was here above");
        if let Some(receiving) = receiving_mut(connection) {
            let mut buffer = std::mem::take(&mut receiving.buffer);
            let receiving_length = receiving.length;
            let missing = receiving_length - buffer.len();
            if buffer.len() == buffer.capacity() {
                // Grown as bytes arrive, never as announced; the last step is long, so that little is copied.
                let is_near = buffer.len() >= receiving_length / LARGE_LAST_STEP;
                buffer.reserve_exact(if is_near {
                    missing
                } else {
                    missing.min(buffer.len().max(LARGE_FIRST_BYTES))
                });
            }
            connection.state.insert(State::RECEIVING_INTO);
            self.io.receive_into(token, socket, buffer, missing);
        } else if !waits || self.needs_bytes(token) {
            let connection = self.connections.get_mut(token).expect("it was here above");
            connection.state.insert(State::RECEIVING);
            self.io.receive(token, socket);
        }
    }

    /// Whether a long input is one request that has not arrived whole, rather than requests that must wait.
    fn needs_bytes(&mut self, token: Token) -> bool {
        !self.is_choked(token)
            && self.connections.get_mut(token).is_some_and(|connection| {
                (connection.unfinished.is_some() || !connection.parser.is_at_start())
                    && connection.can_execute()
                    && !connection.state.any(State::READY)
            })
    }
}

impl Parsed {
    /// Parses a batch of requests from `bytes[position..]`. Returns where it stopped, up to where the bytes from there on
    /// are still needed, and whether it stopped for want of bytes.
    fn parse(
        &mut self,
        connection: &mut Connection,
        node: &mut Node,
        bytes: &[u8],
        mut position: usize,
        limits: &Limits,
    ) -> (usize, usize, bool) {
        self.requests.clear();
        self.ranges.clear();
        self.keys.clear();
        self.large.clear();
        self.unquoted.clear();
        // A batch that stopped before its error leaves it to be found again.
        self.error = None;
        if let Some(unfinished) = connection.unfinished.take() {
            self.ranges = unfinished.ranges;
            self.keys = unfinished.keys;
            self.large.extend(unfinished.large);
        } else {
            self.ranges.shrink_to(KEPT_RANGES);
            self.keys.shrink_to(KEPT_RANGES);
        }
        let database = connection.database;
        let mut first_range = 0;
        // Before AUTH other limits hold, which the next request may lift.
        let count_max = if limits.authenticated { BATCH_REQUESTS } else { 1 };
        while self.requests.len() < count_max {
            if position == bytes.len() && connection.parser.is_at_start() {
                return (position, position, true);
            }
            match connection.parser.parse(&bytes[position..], &mut self.ranges, limits) {
                Progress::Complete { consumed } => {
                    self.push(
                        node,
                        database,
                        &bytes[position..],
                        first_range,
                        position..position + consumed,
                        None,
                    );
                    position += consumed;
                }
                Progress::Unquoted { consumed, bytes: line } => {
                    let number = self.unquoted.len();
                    self.push(
                        node,
                        database,
                        &line,
                        first_range,
                        position..position + consumed,
                        Some(number),
                    );
                    self.unquoted.push(line);
                    position += consumed;
                }
                Progress::Empty { consumed } => position += consumed,
                Progress::Incomplete => {
                    self.keep_unfinished(connection, node, &bytes[position..], first_range);
                    return (position, bytes.len(), true);
                }
                Progress::Large { length, available } => {
                    let start = bytes.len() - available;
                    let length = length as usize + 2;
                    let mut buffer = Vec::with_capacity(length.min(LARGE_FIRST_BYTES));
                    buffer.extend_from_slice(&bytes[start..]);
                    self.keep_unfinished(connection, node, &bytes[position..], first_range);
                    let unfinished = connection.unfinished.get_or_insert_default();
                    unfinished.receiving = Some(Receiving { arrived: buffer.len(), buffer, length });
                    return (position, start, true);
                }
                Progress::Error(error) => {
                    self.error = Some(error);
                    return (position, position, true);
                }
            }
            first_range = self.ranges.len();
        }
        (position, bytes.len(), false)
    }

    /// Notes the request whose ranges begin at `first_range`, and hashes its keys.
    #[inline(always)]
    fn push(
        &mut self,
        node: &Node,
        database: u8,
        bytes: &[u8],
        first_range: usize,
        place: Range<usize>,
        unquoted: Option<usize>,
    ) {
        let ranges = first_range..self.ranges.len();
        let own = &self.ranges[ranges.clone()];
        let argument = |index: usize| {
            let (offset, length) = own[index];
            if offset == LARGE_ARGUMENT {
                &self.large[length as usize][..]
            } else {
                &bytes[offset as usize..offset as usize + length as usize]
            }
        };
        let command = command::resolve(own.len(), argument);
        let first_key = self.first_key();
        let is_accepted = command.is_some_and(|command| command.accepts(own.len()));
        if let Some(command) = command
            && is_accepted
        {
            let executor = &node.executor;
            let hash = |position| {
                let key = executor.hasher.key(argument(position));
                if let Some(shard) = executor.shards.get(key.slot) {
                    shard.prefetch_slot(database, key.slot);
                }
                key
            };
            let known = self.keys.len() - first_key;
            if command.has_first_key_alone() && known == 0 {
                self.keys.push(hash(1));
            } else if known > 0 {
                let rest = command.keys.positions(own.len()).skip(known);
                self.keys.extend(rest.map(|position| executor.hasher.key(argument(position))));
            } else {
                self.keys.extend(command.key_positions(own.len(), argument).map(hash));
            }
        }
        self.requests.push(Place {
            command,
            is_accepted,
            start: place.start,
            end: place.end,
            ranges,
            keys: first_key..self.keys.len(),
            unquoted,
        });
    }

    /// Where the keys of the request begin that is parsed now. The first one's may be known in part.
    #[inline]
    fn first_key(&self) -> usize {
        if self.requests.is_empty() { 0 } else { self.keys.len() }
    }

    /// Moves what was parsed of an unfinished request to the connection.
    fn keep_unfinished(
        &mut self,
        connection: &mut Connection,
        node: &Node,
        bytes: &[u8],
        first_range: usize,
    ) {
        let first_key = self.first_key();
        if self.ranges.len() - first_range > PIECE_KEYS_MAX {
            self.hash_early(node, bytes, first_range, first_key);
        }
        // Only a batch's first request can have large arguments.
        let large = if self.requests.is_empty() { std::mem::take(&mut self.large) } else { Vec::new() };
        if first_range < self.ranges.len() || !large.is_empty() {
            // A long request keeps its array, so that it is not copied each time more of it arrives.
            let ranges = if first_range == 0 {
                std::mem::take(&mut self.ranges)
            } else {
                self.ranges[first_range..].to_vec()
            };
            let keys = match first_key {
                0 if !self.keys.is_empty() => std::mem::take(&mut self.keys),
                _ => self.keys[first_key..].to_vec(),
            };
            let large_bytes = large.iter().map(Vec::len).sum();
            connection.unfinished =
                Some(Box::new(Unfinished { ranges, keys, large, large_bytes, receiving: None }));
        }
    }

    /// Hashes those keys of a long unfinished request that have arrived, if every further argument may be a key.
    #[cold]
    fn hash_early(&mut self, node: &Node, bytes: &[u8], first_range: usize, first_key: usize) {
        let own = &self.ranges[first_range..];
        let argument = |index: usize| {
            let (offset, length) = own[index];
            if offset == LARGE_ARGUMENT {
                &self.large[length as usize][..]
            } else {
                &bytes[offset as usize..offset as usize + length as usize]
            }
        };
        let command = command::lookup(argument(0));
        let Some(command) = command.filter(|command| command.keys.last == -1) else { return };
        let known = self.keys.len() - first_key;
        let rest = command.keys.positions(own.len()).skip(known);
        self.keys.extend(rest.map(|position| node.executor.hasher.key(argument(position))));
    }

    /// Prefetches the tables, then the entries, of the first keys of all requests.
    #[inline]
    fn prefetch(&self, connection: &Connection, node: &Node) {
        if self.requests.len() < 2 {
            return;
        }
        let database = connection.database;
        let shards = &node.executor.shards;
        for key in &self.keys {
            if let Some(shard) = shards.get(key.slot) {
                shard.prefetch_table(database, *key);
            }
        }
        for key in &self.keys {
            if let Some(shard) = shards.get(key.slot) {
                shard.prefetch_entry(database, *key);
            }
        }
    }

    /// Prefetches for the first request of each connection's bytes, as far as a glance finds its first key. Requests
    /// are parsed in earnest later; those in a pipeline prefetch together then.
    pub(super) fn prefetch_first<'a>(
        &mut self,
        connections: &mut Connections,
        node: &Node,
        arrivals: impl Iterator<Item = (Token, &'a [u8])>,
    ) {
        self.glances.clear();
        let shards = &node.executor.shards;
        for (token, bytes) in arrivals {
            let Some(connection) = connections.get_mut(token) else { continue };
            if bytes.len() > GLANCE_BYTES_MAX || !connection.input.is_empty() || connection.is_peer() {
                continue;
            }
            self.ranges.clear();
            let progress = Parser::default().parse(bytes, &mut self.ranges, &Limits::default());
            let (Progress::Complete { .. }, Some(&(offset, length))) = (progress, self.ranges.get(1)) else {
                continue;
            };
            let key = node.executor.hasher.key(&bytes[offset as usize..(offset + length) as usize]);
            if let Some(shard) = shards.get(key.slot) {
                shard.prefetch_slot(connection.database, key.slot);
                self.glances.push((connection.database, key));
            }
        }
        for &(database, key) in &self.glances {
            if let Some(shard) = shards.get(key.slot) {
                shard.prefetch_table(database, key);
            }
        }
        for &(database, key) in &self.glances {
            if let Some(shard) = shards.get(key.slot) {
                shard.prefetch_entry(database, key);
            }
        }
    }

    /// Executes request `index`.
    #[inline]
    fn execute(&mut self, index: usize, connection: &mut Connection, node: &mut Node, bytes: &[u8]) -> Flow {
        let place = &self.requests[index];
        let source = match place.unquoted {
            None => &bytes[place.start..place.end],
            Some(number) => &self.unquoted[number],
        };
        let ranges = &self.ranges[place.ranges.clone()];
        let large = if index == 0 { &mut self.large[..] } else { &mut [] };
        match place.command {
            // One of ONCE without keys is none.
            Some(command)
                if place.is_accepted
                    && (!command.flags.contains(Flags::MOVABLEKEYS) || !place.keys.is_empty()) =>
            {
                let keys = &self.keys[place.keys.clone()];
                let mode = connection.mode();
                let mut request = Request { command, bytes: source, ranges, keys, large, mode };
                let flow = execute(node, connection, &mut request);
                if matches!(flow, Flow::Hold | Flow::NoRoom(_)) && !request.large.is_empty() {
                    // Its bytes are not where it could be parsed from again.
                    connection.stalled = Some(Box::new(request.to_owned()));
                }
                flow
            }
            command => {
                let flow = refuse(connection, node, command, source, ranges, large);
                finish(connection);
                flow
            }
        }
    }
}

/// Executes a request, unless it must wait.
#[inline(always)]
fn execute(node: &mut Node, connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    connection.last_command = Some(request.command);
    let flow = route(node, connection, request);
    if matches!(flow, Flow::Next | Flow::Stop) {
        node.stats.commands.handle(request.command);
        finish(connection);
    }
    flow
}

/// Lets CLIENT REPLY SKIP reach no further than it may.
#[inline]
fn finish(connection: &mut Connection) {
    if connection.state.any(State::REPLY_SKIP.and(State::REPLY_SKIP_NEXT)) {
        let skips_next = connection.state.any(State::REPLY_SKIP_NEXT);
        connection.state.set(State::REPLY_SKIP, skips_next);
        connection.state.remove(State::REPLY_SKIP_NEXT);
    }
}

/// Answers a request that has no command, or the wrong number of arguments, or of which ONCE makes nothing.
#[cold]
fn refuse(
    connection: &mut Connection,
    node: &mut Node,
    command: Option<&'static Command>,
    bytes: &[u8],
    ranges: &[ArgumentRange],
    large: &mut [Vec<u8>],
) -> Flow {
    const ERROR: &[u8] = b"ERR ";
    let args = Args::new(bytes, ranges, large);
    let name = args.get(0);
    if name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:") {
        // No command of these names will ever be: it looks like HTTP in whatever form it came.
        fail(node, connection, ProtocolError::Http);
        return Flow::Stop;
    }
    let protocol = connection.protocol;
    connection.reply_with(|output| {
        let mut reply = Reply::new(output, protocol);
        match command {
            Some(command) if command.accepts(args.len()) => {
                if let Err(error) = command::once_command(args.len(), |index| args.get(index)) {
                    reply.error(&error.to_string());
                }
            }
            Some(command) => command.write_arity_error(&mut reply),
            None => command::write_unknown_error(&args, &mut reply),
        }
    });
    let Some(command) = command else {
        node.stats.errors.count(ERROR);
        return Flow::Next;
    };
    node.stats.commands.handle(command);
    if command.arity_holds(ranges.len()) {
        node.stats.fail(command, ERROR);
    } else {
        node.stats.reject(command, ERROR);
    }
    Flow::Next
}

/// Answers a violation of the protocol, and ends the connection after it.
#[cold]
fn fail(node: &mut Node, connection: &mut Connection, error: ProtocolError) {
    tracing::debug!(id = connection.id, %error, "protocol error");
    if let Some(text) = error.text() {
        node.stats.errors.count(&text);
        let protocol = connection.protocol;
        connection.reply_with(|output| Reply::new(output, protocol).error_bytes(&text));
    }
    connection.state.insert(State::CLOSE_AFTER_REPLY);
}

fn receiving_mut(connection: &mut Connection) -> Option<&mut Receiving> {
    connection.unfinished.as_mut()?.receiving.as_mut()
}
