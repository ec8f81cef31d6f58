//! A client's connection to a node, as far as bytes go: requests out, replies in.

use std::collections::VecDeque;

use super::{
    network::{End, News},
    world::World,
};
use crate::sim::{
    resp::{self, Reply},
    trace,
};

/// How long a client waits for replies before it goes to another node, in nanoseconds.
const PATIENCE_NS: u64 = 8_000_000_000;

/// How long a client waits after it found nobody listening, or has left, at most, in nanoseconds.
const REDIAL_NS: u64 = 200_000_000;

/// A connection, with what was asked on it, each a `T`.
pub(super) struct Wire<T> {
    client: usize,
    end: End,
    /// The node, from 0.
    pub(super) node: usize,
    /// What was asked and not answered, in order.
    pub(super) pending: VecDeque<T>,
    unsent: Vec<u8>,
    partial: Vec<u8>,
    deadline_ns: u64,
}

/// What came of looking at a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    Nothing,
    Bytes,
    /// Nothing comes any more.
    Ended,
}

impl<T> Wire<T> {
    /// Connects a client to a node; or, if nobody listens there, when it may try again.
    pub(super) fn connect(client: usize, node: usize, world: &mut World) -> Result<Self, u64> {
        let (now_ns, end) = (world.now_ns, world.connect(node));
        let end = end.ok_or_else(|| now_ns + world.random.between(REDIAL_NS / 10, REDIAL_NS))?;
        let deadline_ns = now_ns + PATIENCE_NS;
        let (unsent, partial) = (Vec::new(), Vec::new());
        Ok(Self { client, end, node, pending: VecDeque::new(), unsent, partial, deadline_ns })
    }

    /// Whether replies have been waited for too long.
    pub(super) fn is_late(&self, now_ns: u64) -> bool {
        !self.pending.is_empty() && self.deadline_ns <= now_ns
    }

    /// When something happens next; `idle_ns`: when the client does something by itself, if it waits for no reply.
    pub(super) fn next_ns(&self, world: &World, idle_ns: u64) -> Option<u64> {
        let news_ns = world.network.next_ns(self.end);
        let room_ns = if self.unsent.is_empty() { None } else { world.network.room_ns(self.end) };
        let own_ns = if self.pending.is_empty() { idle_ns } else { self.deadline_ns };
        news_ns.into_iter().chain(room_ns).chain([own_ns]).min()
    }

    /// A request is to leave; replies are waited for anew.
    pub(super) fn ask(&mut self, request: T, words: &[Vec<u8>], now_ns: u64) {
        let Self { client, node, .. } = *self;
        trace::note(|| {
            let shown: Vec<String> = words.iter().map(|word| trace::shown(word)).collect();
            format!("{now_ns} client {client} asks node {}: {}", node + 1, shown.join(" "))
        });
        resp::write_request(words, &mut self.unsent);
        self.pending.push_back(request);
        self.deadline_ns = now_ns + PATIENCE_NS;
    }

    /// Sends and receives what can be now.
    pub(super) fn exchange(&mut self, world: &mut World) -> Came {
        let now_ns = world.now_ns;
        if !self.unsent.is_empty() {
            let room = world.network.room(self.end, now_ns).unwrap_or(0).min(self.unsent.len());
            if room > 0 {
                world.network.send(self.end, &self.unsent[..room], now_ns);
                self.unsent.drain(..room);
            }
        }
        match world.network.news(self.end, now_ns) {
            Some(News::Bytes(count)) => {
                self.partial.extend(world.network.receive(self.end, count));
                Came::Bytes
            }
            Some(News::Ended(_) | News::Broken(_)) => Came::Ended,
            None => Came::Nothing,
        }
    }

    /// The next reply, if a whole one is there, and what was asked for it.
    ///
    /// # Errors
    /// It is none, or nothing was asked.
    pub(super) fn reply(&mut self, now_ns: u64) -> Result<Option<(T, Reply)>, String> {
        let Some((reply, length)) = resp::read_reply(&self.partial)? else { return Ok(None) };
        self.partial.drain(..length);
        let client = self.client;
        let Some(request) = self.pending.pop_front() else {
            return Err(format!("client {client} is answered what it never asked: {}", reply.shown()));
        };
        trace::note(|| format!("{now_ns} client {client} gets {}", reply.shown()));
        Ok(Some((request, reply)))
    }

    /// Gives it up. Returns what was not answered, and when the client may go elsewhere.
    pub(super) fn leave(self, world: &mut World) -> (VecDeque<T>, u64) {
        let Self { client, end, node, pending, .. } = self;
        let now_ns = world.now_ns;
        world.network.close(end, true, now_ns);
        trace::note(|| {
            format!("{now_ns} client {client} leaves node {}, without {} replies", node + 1, pending.len())
        });
        (pending, now_ns + world.random.below(REDIAL_NS))
    }
}
