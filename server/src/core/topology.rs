//! Telling clients which nodes there are and who leads what, whenever that changes.
//!
//! Invariants:
//!
//! - Each core tells its own connections, at most once in [`INTERVAL_NS`]: what changes meanwhile is told together.
//! - What is told is the state of that moment, so a message that is left out loses nothing.
//! - A connection that does not read is not told more: it gets the next message once it has read what it has. Messages count
//!   as unread replies do.

use duva_engine::{Protocol, Reply};
use duva_net::io::Io;

use super::{
    Core,
    connection::{Connection, State},
    output::CHOKE_BYTES_MIN,
    timers::Timer,
};
use crate::commands::CHANNEL;

/// How far apart a connection's messages are at least, in nanoseconds.
const INTERVAL_NS: u64 = 50_000_000;

impl<I: Io> Core<I> {
    /// Tells connections of a change, or of one that they have not been told of, now or as soon as they may be told again.
    #[cold]
    pub(super) fn push_topology(&mut self) {
        let now_ns = self.clock.monotonic_ns;
        if now_ns < self.topology_due_ns {
            return self.push_topology_later();
        }
        let Some(view) = self.node.cluster_view.clone() else { return };
        let is_news = std::mem::take(&mut self.node.topology_has_changed);
        self.topology_due_ns = now_ns + INTERVAL_NS;
        let text = view.nodes_text();
        let (mut watchers, mut untold) = (0, 0);
        for connection in self.connections.iter_mut() {
            let is_over = State::CLOSING.and(State::CLOSE_AFTER_REPLY);
            if !connection.state.any(State::TOPOLOGY.and(State::SUBSCRIBED)) || connection.state.any(is_over)
            {
                continue;
            }
            watchers += 1;
            if !is_news && !connection.state.any(State::UNTOLD) {
                continue;
            }
            let has_read = connection.output_bytes() <= CHOKE_BYTES_MIN;
            connection.state.set(State::UNTOLD, !has_read);
            if !has_read {
                untold += 1;
                continue;
            }
            tell(connection, view.state.epoch, &text);
            Self::mark_dirty(connection, &mut self.dirty);
        }
        self.node.has_topology_watchers = watchers > 0;
        if untold > 0 {
            self.push_topology_later();
        }
    }

    fn push_topology_later(&mut self) {
        if !std::mem::replace(&mut self.has_topology_timer, true) {
            self.timers.insert(self.topology_due_ns, Timer::Topology);
        }
    }
}

fn tell(connection: &mut Connection, epoch: u64, text: &str) {
    let protocol = connection.protocol;
    if connection.state.any(State::TOPOLOGY) && protocol == Protocol::Resp3 {
        connection.push_with(|output| {
            let mut reply = Reply::new(output, protocol);
            reply.push(3);
            reply.bulk(b"topology");
            reply.integer(epoch as i64);
            reply.bulk(text.as_bytes());
        });
    }
    if connection.state.any(State::SUBSCRIBED) {
        connection.push_with(|output| {
            let mut reply = Reply::new(output, protocol);
            reply.push(3);
            reply.bulk(b"message");
            reply.bulk(CHANNEL);
            reply.bulk(format!("{epoch}\n{text}").as_bytes());
        });
    }
}
