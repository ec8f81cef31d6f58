//! What is going to happen, in order. Two events of one moment happen in the order in which they were added.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc};

use duva_raft::{Fetch, Message, ReplicaId, SnapshotMeta, SnapshotRead};

use super::{
    actions::Action,
    client::{Answer, Request},
};

/// Something that happens at a moment.
pub(crate) enum Event {
    /// A message reaches a node, unless its link was reset.
    Deliver {
        from: usize,
        to: usize,
        generation: u32,
        group: usize,
        message: Message,
    },
    /// A client's request reaches a node.
    Request {
        node: usize,
        request: Request,
    },
    /// A node's answer reaches a client.
    Answer(Answer),
    /// A client begins something, or has waited long enough for an answer.
    Client {
        client: usize,
        attempt: u64,
    },
    /// A node does what there is to be done.
    Turn {
        node: usize,
    },
    /// A node's disk finished a write, or a sync, that was started in this life of the node.
    Written {
        node: usize,
        life: u32,
    },
    Synced {
        node: usize,
        life: u32,
    },
    /// A piece of a snapshot that came is in its file.
    PieceStored {
        file: SnapshotFile,
        next_offset: u64,
        whole: Option<Arc<[u8]>>,
    },
    /// There is room for a snapshot that was refused.
    SnapshotRoom {
        file: SnapshotFile,
    },
    /// A node's own snapshot is in its file, durably.
    SnapshotSaved {
        file: SnapshotFile,
        bytes: Arc<[u8]>,
    },
    /// Entries or a piece of a snapshot are read for a follower.
    Read {
        node: usize,
        life: u32,
        group: usize,
        replica: ReplicaId,
        read: Reading,
    },
    /// Something breaks.
    Fault,
    /// A step of something that breaks, or its end.
    Action(Action),
    /// Whoever administers a group looks at it.
    Operator {
        group: usize,
    },
    /// Nothing breaks any more.
    Heal,
    /// After that: is everything well again?
    Settled,
}

/// What is read for a follower.
#[derive(Clone, Debug)]
pub(crate) enum Reading {
    Entries(Fetch),
    Piece(SnapshotRead),
}

/// Whose snapshot it is, and which.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotFile {
    pub(crate) node: usize,
    pub(crate) life: u32,
    pub(crate) group: usize,
    pub(crate) replica: ReplicaId,
    pub(crate) meta: SnapshotMeta,
}

/// A heap of moments; the events wait beside it, so that little moves.
#[derive(Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    events: Vec<Option<Event>>,
    free: Vec<u32>,
    added: u64,
}

impl Queue {
    pub(crate) fn add(&mut self, at_ns: u64, event: Event) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            (self.events.len() - 1) as u32
        });
        self.events[place as usize] = Some(event);
        self.heap.push(Reverse((at_ns, self.added, place)));
        self.added += 1;
    }

    pub(crate) fn next(&mut self) -> Option<(u64, Event)> {
        let Reverse((at_ns, _, place)) = self.heap.pop()?;
        self.free.push(place);
        self.events[place as usize].take().map(|event| (at_ns, event))
    }

    /// Events so far.
    pub(crate) fn added(&self) -> u64 {
        self.added
    }
}
