//! Work that waits until a segment is ready for its records.
//!
//! Invariants:
//!
//! - What waits here has no record, no timestamp and no place in the log; it gets them in the order in which it came,
//!   and everything that must not pass it waits behind it.
//! - It never waits for room that does not come: once a segment could not be prepared, what does not fit is refused, and so
//!   is every later write until there is room again.

use std::collections::VecDeque;

use duva_engine::{Shards, command::Handler};
use duva_persist::record::record_room_bytes;

use super::{
    Log, ROOM_RESERVE_BYTES, Refusal, WHOLE_BYTES_MAX,
    payload::{self, Selection},
};
use crate::core::{
    batch::{GatherKey, Work},
    node::Origin,
    request::{OwnedRequest, Request},
};

/// Room that comes sooner or later, as long as segments can be prepared: what an empty segment of the smallest size has
/// behind the largest header, less the reserve.
const SURE_ROOM_BYTES: u64 = 512 << 10;

/// Unwritten bytes past which nothing is resumed in this turn: its one write is to be short.
const RESUMED_BYTES_MAX: usize = 1 << 20;

/// What is to be done with a write whose records take so much room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::core) enum Admission {
    /// It can be appended, and applied at once.
    Direct,
    /// It can be appended, and waits for its commit.
    Waiting,
    /// It waits for room.
    Deferred,
    /// There will be none soon.
    Refused(Refusal),
}

/// Work that waits for room.
pub(in crate::core) enum Deferred {
    /// A request, and how much room its records take: 0 for a read, which must not pass writes.
    Request(Origin, Handler, Box<OwnedRequest>, u64),
    /// A part of a gather that reads.
    Part(Origin, Work, Box<OwnedRequest>),
    /// What a gather writes: its coordinator, the work, and how much room that takes.
    Writes(usize, GatherKey, Work, u64),
}

impl Deferred {
    fn room_bytes(&self) -> u64 {
        match self {
            Self::Request(.., room_bytes) | Self::Writes(.., room_bytes) => *room_bytes,
            Self::Part(..) => 0,
        }
    }

    /// Bytes that it keeps, about.
    fn kept_bytes(&self) -> usize {
        match self {
            Self::Request(_, _, request, _) | Self::Part(_, _, request) => request.kept_bytes(),
            Self::Writes(_, _, Work::Apply(writes) | Work::Prepare(writes), _) => {
                writes.iter().map(OwnedRequest::kept_bytes).sum()
            }
            Self::Writes(..) => 0,
        }
    }
}

impl Log {
    /// The longest payload that is appended in one piece, in bytes.
    #[inline]
    pub(in crate::core) fn whole_bytes_max(&self) -> usize {
        // A prepared part says of which transaction it is.
        WHOLE_BYTES_MAX.min(self.journal.payload_bytes_max() - size_of::<u64>())
    }

    /// What is to be done with a write whose records take `room_bytes` at most.
    #[inline]
    pub(in crate::core) fn admit(&mut self, room_bytes: u64) -> Admission {
        if !self.fits(room_bytes) {
            return self.admit_without_room(room_bytes);
        }
        if self.is_direct { Admission::Direct } else { Admission::Waiting }
    }

    /// Whether there is room, with the reserve left, and nobody waits for it.
    #[inline]
    fn fits(&self, room_bytes: u64) -> bool {
        room_bytes + ROOM_RESERVE_BYTES <= self.room_bytes && self.deferred.is_empty()
    }

    /// Whether it will never fit, and can be appended now: nothing else waits to be written with it.
    fn overdraws(&self, room_bytes: u64) -> bool {
        room_bytes > SURE_ROOM_BYTES && self.deferred.is_empty() && self.journal.unwritten_bytes() == 0
    }

    #[cold]
    fn admit_without_room(&mut self, room_bytes: u64) -> Admission {
        let has_room = room_bytes + ROOM_RESERVE_BYTES <= self.room_bytes;
        if let Some(errno) = self.segments.failure().filter(|_| !has_room) {
            let refusal = Refusal::NoRoom(errno);
            self.is_short = true;
            self.refusal.get_or_insert(refusal);
            self.is_direct = false;
            return Admission::Refused(refusal);
        }
        if self.overdraws(room_bytes) { Admission::Waiting } else { Admission::Deferred }
    }

    /// Whether a write would be appended now, at once or waiting.
    pub(super) fn admits(&self, room_bytes: u64) -> bool {
        self.fits(room_bytes) || self.overdraws(room_bytes)
    }

    /// Keeps work until there is room for it.
    pub(in crate::core) fn defer(&mut self, work: Deferred) {
        self.is_direct = false;
        self.deferred_bytes += work.kept_bytes();
        self.deferred.push_back(work);
    }

    #[inline]
    pub(in crate::core) fn has_deferred(&self) -> bool {
        !self.deferred.is_empty()
    }

    /// Whether the first that waits for room need not wait any longer.
    pub(super) fn can_resume(&self) -> bool {
        self.deferred.front().is_some_and(|work| self.is_over(work))
    }

    /// Whether the wait of the first in line is over: it is admitted, or refused.
    fn is_over(&self, first: &Deferred) -> bool {
        let room_bytes = first.room_bytes();
        let is_decided = room_bytes == 0 || self.refusal.is_some() || self.segments.failure().is_some();
        let unwritten_bytes = self.journal.unwritten_bytes();
        let has_room = room_bytes + ROOM_RESERVE_BYTES <= self.room_bytes;
        let overdraws = room_bytes > SURE_ROOM_BYTES && unwritten_bytes == 0;
        is_decided || ((has_room || overdraws) && unwritten_bytes < RESUMED_BYTES_MAX)
    }

    /// Takes all that waits for room: see [`Self::next_deferred`].
    pub(in crate::core) fn take_deferred(&mut self) -> VecDeque<Deferred> {
        self.room_bytes = self.journal.ready_room_bytes();
        self.deferred_bytes = 0;
        std::mem::take(&mut self.deferred)
    }

    /// The next of `queue` that need not wait any longer: as if it had come just now, it is admitted, or refused.
    pub(in crate::core) fn next_deferred(&mut self, queue: &mut VecDeque<Deferred>) -> Option<Deferred> {
        // What the last one set free may have to wait as well, behind the others.
        queue.append(&mut self.deferred);
        if self.is_over(queue.front()?) { queue.pop_front() } else { None }
    }

    /// Puts back what still has to wait.
    pub(in crate::core) fn put_deferred_back(&mut self, queue: VecDeque<Deferred>) {
        self.deferred_bytes = queue.iter().map(Deferred::kept_bytes).sum();
        self.deferred = queue;
    }
}

/// The most room that the records of `request` take, whose payload as a whole has `len_bytes` at most.
#[inline]
pub(in crate::core) fn room_bytes_max(request: &Request<'_>, len_bytes: usize, shards: &Shards) -> u64 {
    match request.keys {
        [_] => record_room_bytes(len_bytes),
        [] => record_room_bytes(len_bytes) * shards.iter().count() as u64,
        keys => {
            // An entry for each shard, which says the command's name again.
            let name_bytes = payload::len_bytes_max(request, Selection::Keys(&[]));
            let parts = keys.len().min(shards.iter().count()) as u64;
            len_bytes as u64 + parts * record_room_bytes(name_bytes + BLOCK_PADDING_BYTES)
        }
    }
}

/// What alignment adds to a record at most.
const BLOCK_PADDING_BYTES: usize = 64;
