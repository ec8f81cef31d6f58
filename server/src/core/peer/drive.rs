//! How a core's loop serves its links: dialling, greeting, sending, receiving.
//!
//! Links are connections of the core's table, told by their state: [`State::PEER_OUT`] was dialled, and is only sent on;
//! [`State::PEER_IN`] was accepted, and is only received from. An accepted one is received from by itself until its Hello is
//! whole, and by no more than that, so that the core it then belongs to receives all the rest. Frames for groups of another core
//! go there in its batch; while that has no room, nothing more is received on the link. When an accepted link breaks, all
//! cores learn of it: with other numbers of cores on both sides it brought answers to several of them.

use std::{fmt, ops::ControlFlow};

use duva_net::io::{Io, ReceiveEnd, Socket, Token};

use super::{
    frame::{FrameHeader, Kind, LINK_GROUP, META_GROUP},
    hello::{self, HELLO_BYTES},
    links::{Inbound, PeerIdentity},
};
use crate::core::{
    Core,
    batch::Message,
    connection::State,
    node::{BATCH_BYTES_MAX, Node},
    route::Lack,
    timers::Timer,
};

/// How long an accepted connection may take for its Hello, in nanoseconds.
const HELLO_WAIT_NS: u64 = 5_000_000_000;

/// How many accepted connections may be without their Hello at a time.
const GREETING_MAX: usize = 256;

/// Why frames are not taken any more.
enum Stop {
    /// That core's batch has no room.
    NoRoom(usize),
    /// One is a Hello, and not the first.
    Hello,
}

impl Node {
    /// The core that takes frames for `group`; `None`: there is no such group.
    pub fn core_of_group(&self, group: u16) -> Option<usize> {
        match group {
            META_GROUP => Some(0),
            LINK_GROUP => Some(self.core),
            shard => self.owners.get(usize::from(shard)).map(|&owner| usize::from(owner)),
        }
    }

    /// Passes a frame to the core that it is for.
    fn pass_frame(&mut self, from: u32, header: FrameHeader, payload: &[u8]) -> ControlFlow<Stop> {
        if header.kind == Kind::Hello {
            return ControlFlow::Break(Stop::Hello);
        }
        match self.core_of_group(header.group) {
            None => self.peers.counts.frames_misdirected += 1,
            Some(core) if core == self.core => self.accept_frame(from, header, payload),
            Some(core) => {
                let batch = self.mesh.outgoing(core);
                if batch.argument_bytes() >= BATCH_BYTES_MAX {
                    return ControlFlow::Break(Stop::NoRoom(core));
                }
                let start = batch.bytes.len();
                batch.bytes.extend_from_slice(payload);
                let bytes = start..batch.bytes.len();
                batch.messages.push(Message::Peer { from, header, bytes });
            }
        }
        ControlFlow::Continue(())
    }

    /// A link from a node broke that another core received on: answers to this core's requests may have been on it.
    pub(in crate::core) fn peer_is_silenced(&mut self, number: u32) {
        #[cfg(test)]
        self.peers.broken_seen.push(number);
        self.peer_is_lost(number);
    }

    /// Takes a frame that is for this core.
    pub(in crate::core) fn accept_frame(&mut self, from: u32, header: FrameHeader, payload: &[u8]) {
        #[cfg(test)]
        self.peers.taken.push((from, header, payload.to_vec()));
        self.take_frame(from, header, payload);
    }
}

impl<I: Io> Core<I> {
    /// Dials the links that are due, and closes those that are not wanted.
    #[inline]
    pub(in crate::core) fn dial_peers(&mut self) {
        if !self.node.peers.needs_attention() {
            return;
        }
        for token in self.node.peers.take_obsolete() {
            self.close(token);
        }
        for (ticket, address) in self.node.peers.begin_dials(self.clock.monotonic_ns) {
            self.io.connect(ticket, address);
        }
    }

    /// Hands what is pending to the connections, one send a link.
    #[inline]
    pub(in crate::core) fn flush_peers(&mut self) {
        if !self.node.peers.has_unflushed() {
            return;
        }
        let dirty = self.node.peers.take_dirty();
        for &number in &dirty {
            let Some(token) = self.node.peers.begin_flush(number) else { continue };
            let Some(connection) = self.connections.get_mut(token) else { continue };
            let spare = self.spare_outputs.pop().unwrap_or_default();
            connection.output = self.node.peers.take_pending(number, spare);
            Self::mark_dirty(connection, &mut self.dirty);
        }
        self.node.peers.keep_dirty(dirty);
    }

    /// An attempt to dial has ended.
    pub(in crate::core) fn on_connected(&mut self, ticket: u64, result: Result<Socket, i32>) {
        let number = self.node.peers.dialled(ticket);
        match (number, result) {
            (Some(number), Ok(socket)) => {
                let token = self.insert_connection(socket, State::PEER_OUT.and(State::RECEIVING), 0);
                self.node.peers.raise(number, token, self.clock.monotonic_ns);
                // Only its end is to come.
                self.io.receive(token, socket);
                tracing::debug!(node = number, "the link to a node is up");
            }
            (None, Ok(socket)) => self.io.close(socket),
            (Some(number), Err(errno)) => {
                tracing::debug!(node = number, errno, "dialling a node failed");
                self.redial_later(number);
            }
            (None, Err(_)) => {}
        }
    }

    fn redial_later(&mut self, number: u32) {
        let random = self.io.random();
        if let Some(due_ns) = self.node.peers.fail(number, self.clock.monotonic_ns, random) {
            self.timers.insert(due_ns, Timer::PeerDial);
        }
    }

    /// Waits for the Hello of a connection that a listener for nodes has accepted.
    pub(in crate::core) fn accept_peer(&mut self, socket: Socket) {
        let peers = &mut self.node.peers;
        let refusal = if peers.identity().is_none() {
            Some("this node belongs to no cluster")
        } else if peers.greeting_count >= GREETING_MAX {
            Some("too many others have not said who they are")
        } else {
            None
        };
        if let Some(reason) = refusal {
            self.note_refusal(socket, &reason);
            return self.io.close(socket);
        }
        peers.greeting_count += 1;
        let token = self.insert_connection(socket, State::PEER_IN.and(State::RECEIVING_INTO), 0);
        self.io.receive_into(token, socket, Vec::with_capacity(HELLO_BYTES), HELLO_BYTES);
        let Token { index, generation } = token;
        self.timers.insert(self.clock.monotonic_ns + HELLO_WAIT_NS, Timer::PeerHello { index, generation });
    }

    /// A connection should have sent its Hello by now.
    pub(in crate::core) fn end_greeting(&mut self, token: Token) {
        // Its place may be another's by now; only who is without a Hello receives into memory of its own.
        let is_late = self.connections.get_mut(token).is_some_and(|connection| {
            connection.state.any(State::PEER_IN)
                && connection.state.any(State::RECEIVING_INTO)
                && !connection.state.any(State::CLOSING)
        });
        if is_late {
            self.refuse(token, &"it has not said in time who it is");
        }
    }

    /// Bytes of a Hello have arrived, or their receive has ended.
    pub(in crate::core) fn on_hello_received(
        &mut self,
        token: Token,
        buffer: Vec<u8>,
        result: Result<usize, ReceiveEnd>,
    ) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.state.remove(State::RECEIVING_INTO.and(State::CANCELLING));
        if connection.state.any(State::CLOSING) {
            return self.finish_closing(token);
        }
        match result {
            Ok(_) | Err(ReceiveEnd::NoBuffers | ReceiveEnd::Cancelled) => {}
            // Somebody has looked whether the port is open.
            Err(ReceiveEnd::Closed) if buffer.is_empty() => return self.close(token),
            Err(ReceiveEnd::Closed) => return self.refuse(token, &hello::HelloError::Garbage),
            Err(ReceiveEnd::Failed(_)) => return self.close(token),
        }
        if let Some(bytes) = buffer.first_chunk::<HELLO_BYTES>() {
            return self.greet(token, bytes);
        }
        connection.state.insert(State::RECEIVING_INTO);
        let (socket, missing) = (connection.socket, HELLO_BYTES - buffer.len());
        self.io.receive_into(token, socket, buffer, missing);
    }

    /// Gives a connection that has sent its Hello to the core that it belongs to.
    fn greet(&mut self, token: Token, bytes: &[u8; HELLO_BYTES]) {
        let Some(own) = self.node.peers.identity() else { return self.close(token) };
        let peer = match hello::decode(bytes, own) {
            Ok(peer) => peer,
            Err(error) => return self.refuse(token, &error),
        };
        // Nothing of it is under way here.
        let Some(connection) = self.connections.remove(token) else { return };
        self.node.peers.greeting_count -= 1;
        let (socket, core) = (connection.socket, usize::from(peer.core) % self.node.cores);
        if core == self.node.core {
            self.adopt_peer(socket, peer);
        } else {
            self.node.mesh.outgoing(core).messages.push(Message::PeerConnection { socket, peer });
        }
    }

    /// Receives frames of `peer` on this connection from now on.
    pub(in crate::core) fn adopt_peer(&mut self, socket: Socket, peer: PeerIdentity) {
        let now_ns = self.clock.monotonic_ns;
        let known = self.node.cluster.as_ref().and_then(|cluster| cluster.last_start(peer.number));
        if let Some(start) = known {
            self.node.peers.recall(peer.number, start);
        }
        if let Err(impostor) = self.node.peers.check(&peer, now_ns) {
            self.note_refusal(socket, &impostor);
            return self.io.close(socket);
        }
        if let Some(cluster) = &self.node.cluster {
            if let Some(start) = self.node.peers.last_start(peer.number) {
                cluster.note_start(peer.number, start);
            }
            cluster.note_link(&peer);
        }
        let is_same = |inbound: &Inbound| inbound.peer.node == peer.node && inbound.peer.core == peer.core;
        let earlier = self.node.peers.inbound.iter().find(|inbound| is_same(inbound)).map(|it| it.token);
        if let Some(earlier) = earlier {
            // Its dialler has given it up, or it would not have dialled again.
            self.close(earlier);
        }
        let token = self.insert_connection(socket, State::PEER_IN.and(State::RECEIVING), 0);
        self.node.peers.inbound.push(Inbound { token, peer, frames: Default::default(), heard_ns: now_ns });
        self.io.receive(token, socket);
        tracing::debug!(node = peer.number, core = peer.core, "a node's link is accepted");
    }

    /// Bytes have arrived on a link, or its receive has ended.
    pub(in crate::core) fn on_peer_received(
        &mut self,
        token: Token,
        result: Result<I::Buffer, ReceiveEnd>,
        armed: bool,
    ) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if !armed {
            connection.state.remove(State::RECEIVING.and(State::CANCELLING));
        }
        let is_open = !connection.state.any(State::CLOSING);
        let is_inbound = connection.state.any(State::PEER_IN);
        match result {
            Ok(buffer) => {
                if is_open && is_inbound {
                    self.take_frames(token, &buffer);
                } else if is_open {
                    tracing::debug!("closing a link: the node at its other end sends on it");
                    self.close(token);
                }
                self.io.recycle(buffer);
            }
            Err(ReceiveEnd::NoBuffers) => {
                self.node.stats.buffer_shortages += 1;
                return self.starved.push(token);
            }
            Err(ReceiveEnd::Cancelled) => {}
            Err(ReceiveEnd::Closed | ReceiveEnd::Failed(_)) => return self.close(token),
        }
        self.arrange_peer_receive(token);
    }

    /// Goes on with the frames of a link that had to wait.
    pub(in crate::core) fn resume_peer(&mut self, token: Token) {
        self.take_frames(token, &[]);
        self.arrange_peer_receive(token);
    }

    /// Receives on a link, unless what it has brought has to wait.
    pub(in crate::core) fn arrange_peer_receive(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.state.any(State::CLOSING) {
            return self.finish_closing(token);
        }
        let is_armed = connection.state.any(State::RECEIVING.and(State::RECEIVING_INTO));
        if is_armed || connection.state.any(State::HELD_BACK.and(State::READY)) {
            return;
        }
        connection.state.insert(State::RECEIVING);
        let socket = connection.socket;
        self.io.receive(token, socket);
    }

    /// Passes on the frames that are whole with these bytes.
    fn take_frames(&mut self, token: Token, bytes: &[u8]) {
        let Self { node, .. } = self;
        let Some(inbound) = node.peers.inbound.iter_mut().find(|inbound| inbound.token == token) else {
            return;
        };
        let from = inbound.peer.number;
        inbound.heard_ns = self.clock.monotonic_ns;
        let mut frames = std::mem::take(&mut inbound.frames);
        let result = frames.feed(bytes, |header, payload| node.pass_frame(from, header, payload));
        if let Some(inbound) = node.peers.inbound.iter_mut().find(|inbound| inbound.token == token) {
            inbound.frames = frames;
        }
        match result {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(Stop::NoRoom(core))) => self.hold_peer_back(token, core),
            Ok(ControlFlow::Break(Stop::Hello)) => self.refuse(token, &"it says twice who it is"),
            Err(error) => self.refuse(token, &error),
        }
    }

    /// Receives nothing on a link until there is room towards `core`.
    fn hold_peer_back(&mut self, token: Token, core: usize) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if !connection.state.any(State::HELD_BACK) {
            connection.state.insert(State::HELD_BACK);
            self.held_back.push((token, Lack::Mesh(core)));
        }
        if connection.state.any(State::RECEIVING) && !connection.state.any(State::CANCELLING) {
            connection.state.insert(State::CANCELLING);
            self.io.cancel_receive(token);
        }
    }

    /// Closes an accepted connection because of what it has brought.
    fn refuse(&mut self, token: Token, reason: &dyn fmt::Display) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let socket = connection.socket;
        self.note_refusal(socket, reason);
        self.close(token);
    }

    fn note_refusal(&mut self, socket: Socket, reason: &dyn fmt::Display) {
        if self.node.peers.is_refusal_logged(self.clock.monotonic_ns) {
            let (address, _) = self.io.addresses(socket);
            tracing::warn!(%address, "refusing the link of a node: {reason}");
        }
    }

    /// The send of a link is over.
    pub(in crate::core) fn on_peer_sent(&mut self, token: Token) {
        self.node.peers.sent(token);
    }

    /// A link is about to be closed.
    pub(in crate::core) fn on_peer_closed(&mut self, token: Token, is_outbound: bool) {
        if is_outbound {
            // One that is not wanted any more is no node's.
            if let Some(number) = self.node.peers.number_of(token) {
                tracing::debug!(node = number, "the link to a node broke");
                self.redial_later(number);
            }
            return;
        }
        let inbound = &mut self.node.peers.inbound;
        match inbound.iter().position(|inbound| inbound.token == token) {
            // What it was to bring is lost: answers, too.
            Some(place) => {
                let number = inbound.swap_remove(place).peer.number;
                self.node.peers.note_silenced(number);
                if let Some(cluster) = &self.node.cluster {
                    cluster.note_link_lost(number);
                }
            }
            None => self.node.peers.greeting_count -= 1,
        }
    }
}
