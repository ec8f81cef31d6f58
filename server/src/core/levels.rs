//! What a connection's reads promise, and what its requests are given on their way for that.
//!
//! Levels concern reads alone: writes of every connection take the one way through their shard's leader. What a read
//! promises, from the strongest level on:
//!
//! - **linearizable**: it sees every write that was answered before it was sent, by whomever.
//! - **sequential**: there is one order of all requests of all sequential connections and of all writes, the same for
//!   all shards, in which each connection's requests are in the order that it sent them; what a read answers is what
//!   the writes before it in that order came to. It may lie in the past, but no connection sees one shard's write
//!   without what it could know of in any other shard. The connection's requests are executed one after another.
//! - **session**: shard by shard, it sees what its own connection wrote, and nothing older than what its connection saw.
//!   Between shards nothing is promised: of two writes to two shards the later may be seen without the earlier.
//! - **stale**: it sees what was committed once.
//!
//! How: a connection keeps of each shard the last position, index and term, that it wrote or saw ([`Session`]). A session
//! read takes the position of its shard along as its *floor*, and is served by this node's replica once that has applied
//! it. Session and sequential differ in when there is a floor: in a sequential connection each shard that is seen to
//! go on takes the floors of all others away, until their leaders have confirmed, or moved, what was seen of them. Without a
//! floor, without a replica here, or when the replica lags for too long, the read goes to the leader.
//!
//! Invariants:
//!
//! - A read with a floor is sent only while nothing of its connection is under way, and nothing is sent behind it before
//!   it is answered: so what a connection sees goes forward in the order of its requests.
//! - A connection at the level linearizable, which never had another and no token, is asked for nothing: neither do its
//!   requests say, nor their replies bring, where in a log they were.
//! - A write whose fate is unknown is in no promise; it is not in the token either.
//! - FLUSHALL and FLUSHDB come to an entry in every shard, of which the connection learns no position: each shard is
//!   read from its leader once afterwards.
//! - Requests with keys in several shards are served where the leaders are, at every level. The connection learns where each part of a
//!   write was prepared: a replica that has come so far finds its keys as they were written, or locked, and then the leader serves them.
//! - Commands without keys show what this node's replicas hold, at every level.

use duva_engine::command::Flags;
use duva_net::io::{Io, Token};

use super::{
    Core,
    connection::{Connection, State},
    node::{Node, Origin},
    request::{Reading, Request},
    route::Flow,
};
use crate::{
    cluster::session::{Position, Session},
    config::{ClusterRouting, Consistency},
};

/// Where in its shard's log a request was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The shard.
    pub shard: u16,
    /// The entry that the write is, or the last one that the read has seen.
    pub position: Position,
}

impl Connection {
    /// What its reads promise.
    pub fn consistency(&self) -> Consistency {
        if self.state.any(State::SEQUENTIAL) {
            Consistency::Sequential
        } else if self.state.any(State::SESSION) {
            Consistency::Session
        } else if self.state.any(State::STALE) {
            Consistency::Stale
        } else {
            Consistency::Linearizable
        }
    }

    /// Changes what its reads promise.
    pub fn set_consistency(&mut self, level: Consistency) {
        if level == Consistency::Sequential && !self.state.any(State::SEQUENTIAL) {
            self.session_mut().forget_moments();
        }
        self.state.set_consistency(level);
    }

    /// What it has seen, to be changed.
    pub fn session_mut(&mut self) -> &mut Session {
        &mut self.identity.get_or_insert_default().session
    }
}

impl State {
    /// Sets the bits of a level. What was asked for once is kept track of from then on.
    pub fn set_consistency(&mut self, level: Consistency) {
        self.set(Self::SEQUENTIAL, level == Consistency::Sequential);
        self.set(Self::SESSION, level == Consistency::Session);
        self.set(Self::STALE, level == Consistency::Stale);
        if matches!(level, Consistency::Sequential | Consistency::Session) {
            self.insert(Self::TRACKED);
        }
    }
}

/// What stands before a request of a connection whose level is not the strongest, or which has a token: says how the
/// request is to be read; `Some`: it has to wait.
#[cold]
pub(super) fn level_gate(
    node: &mut Node,
    connection: &mut Connection,
    request: &mut Request<'_>,
) -> Option<Flow> {
    let state = connection.state;
    let is_write = request.command.flags.contains(Flags::WRITE);
    let is_under_way = !connection.replies.is_empty();
    let Some(key) = request.keys.first() else {
        if is_write && state.any(State::TRACKED) {
            if is_under_way {
                return Some(Flow::Hold);
            }
            connection.session_mut().flush();
        }
        return None;
    };
    if is_under_way && state.any(State::SEQUENTIAL.and(State::READING_NEAR)) {
        return Some(Flow::Hold);
    }
    let at_leader = if state.any(State::TRACKED) { Reading::LeaderTracked } else { Reading::Leader };
    request.mode.reading = if is_write {
        at_leader
    } else if state.any(State::SEQUENTIAL.and(State::SESSION)) {
        let shard = node.executor.shards.number_of(key.slot) as u16;
        let session = connection.session_mut();
        let floor = match () {
            () if is_under_way => None,
            () if state.any(State::SEQUENTIAL) => session.sequential_floor(shard),
            () => session.floor(shard),
        };
        node.floor = floor;
        if floor.is_some() { Reading::Session } else { at_leader }
    } else if state.any(State::STALE)
        || (state.any(State::READ_ONLY) && node.config.cluster_routing == ClusterRouting::Redirect)
    {
        Reading::Stale
    } else {
        at_leader
    };
    None
}

impl Node {
    /// Sends where a request was ahead of its reply.
    #[cold]
    pub(super) fn pass_on_observed(&mut self, origin: Origin) {
        // To another node, and to a command of several parts, it goes with the reply itself.
        if let Origin::Peer { .. } | Origin::Gather { .. } = origin {
            return;
        }
        let Some(observed) = self.observed.take() else { return };
        match origin {
            Origin::Connection { token, .. } => self.deliveries.observed.push((token, observed)),
            Origin::Core { core, token, .. } => {
                let message = super::batch::Message::Observed { token, observed };
                self.mesh.outgoing(core).messages.push(message);
            }
            Origin::Peer { .. } | Origin::Fanout { .. } | Origin::Gather { .. } => {}
        }
    }
}

impl<I: Io> Core<I> {
    /// A request of a connection was at this place of its shard's log.
    #[cold]
    pub(super) fn note_observed(&mut self, token: Token, Observed { shard, position }: Observed) {
        if let Some(connection) = self.connections.get_mut(token) {
            connection.session_mut().observe(shard, position);
        }
    }
}
