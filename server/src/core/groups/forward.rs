//! Requests that go to the node that leads their shard, and come from others.
//!
//! ```text
//! Forward       id (8), term (8), flags (1), command as in an entry
//! ForwardReply  id (8), status (1), index (8) and term (8) if the forward asked for them, reply
//! ```
//!
//! Integers are little-endian; the frame's group is the shard. A forward says under which term its receiver is
//! believed to lead: under another it is refused, so that what was sent to who led before is never executed between
//! what is sent to who leads now. Once one is refused, so is all that its sender sent behind it: the sender waits for its
//! replies, and begins anew with one that says that it is the first.

use duva_engine::{Protocol, Settings};
use hashbrown::HashMap;

use super::Asked;
use crate::cluster::session::Position;
use crate::core::{
    log::payload::{self, Selection},
    request::{Mode, OwnedRequest, Reading, Request},
};

/// Bytes of a forward in front of its command.
const FORWARD_HEAD_BYTES: usize = 17;

/// Bytes of a forward's reply in front of the reply.
const REPLY_HEAD_BYTES: usize = 9;

mod flag {
    pub(super) const ORDERED: u8 = 1;
    pub(super) const RESP3: u8 = 1 << 1;
    pub(super) const TOUCH: u8 = 1 << 2;
    /// The reply is to say where in the shard's log the request was.
    pub(super) const TRACKED: u8 = 1 << 3;
    /// The sender awaits no reply about this shard: whatever was refused comes again, in order, from here on.
    pub(super) const FIRST: u8 = 1 << 4;
}

/// What became of a forwarded request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// It was executed; the reply follows.
    Done,
    /// It was not executed: the receiver does not lead in that term.
    NotLeader,
    /// It was executed at this place of the shard's log; the reply follows.
    DoneAt(Position),
}

const DONE: u8 = 0;
const NOT_LEADER: u8 = 1;
const DONE_AT: u8 = 2;

/// A forward's fields.
pub(super) struct ForwardHead<'a> {
    pub(super) id: u64,
    pub(super) term: u64,
    pub(super) is_ordered: bool,
    pub(super) is_first: bool,
    pub(super) protocol: Protocol,
    pub(super) touch: bool,
    pub(super) reading: Reading,
    pub(super) command: &'a [u8],
}

/// Writes a forward.
pub(super) fn write_forward(
    out: &mut Vec<u8>,
    (id, term): (u64, u64),
    (is_ordered, is_first): (bool, bool),
    request: &Request<'_>,
    settings: &Settings,
) {
    let Mode { protocol, touch, reading, .. } = request.mode;
    let mut flags = 0;
    for (is_set, bit) in [
        (is_ordered, flag::ORDERED),
        (is_first, flag::FIRST),
        (protocol == Protocol::Resp3, flag::RESP3),
        (touch, flag::TOUCH),
        (reading.is_tracked(), flag::TRACKED),
    ] {
        flags |= if is_set { bit } else { 0 };
    }
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(&term.to_le_bytes());
    out.push(flags);
    payload::write(request, Selection::All, settings, out);
}

/// Reads a forward; `None`: it is none.
pub(super) fn read_forward(bytes: &[u8]) -> Option<ForwardHead<'_>> {
    let (head, command) = bytes.split_at_checked(FORWARD_HEAD_BYTES)?;
    let flags = head[16];
    Some(ForwardHead {
        id: number(&head[..8])?,
        term: number(&head[8..16])?,
        is_ordered: flags & flag::ORDERED != 0,
        is_first: flags & flag::FIRST != 0,
        protocol: if flags & flag::RESP3 != 0 { Protocol::Resp3 } else { Protocol::Resp2 },
        touch: flags & flag::TOUCH != 0,
        reading: if flags & flag::TRACKED != 0 { Reading::LeaderTracked } else { Reading::Leader },
        command,
    })
}

/// Writes the reply to a forward.
pub(super) fn write_reply(out: &mut Vec<u8>, id: u64, status: Status, reply: &[u8]) {
    out.extend_from_slice(&id.to_le_bytes());
    match status {
        Status::Done => out.push(DONE),
        Status::NotLeader => out.push(NOT_LEADER),
        Status::DoneAt(Position { index, term }) => {
            out.push(DONE_AT);
            out.extend_from_slice(&index.to_le_bytes());
            out.extend_from_slice(&term.to_le_bytes());
        }
    }
    out.extend_from_slice(reply);
}

/// Reads the reply to a forward; `None`: it is none.
pub(super) fn read_reply(bytes: &[u8]) -> Option<(u64, Status, &[u8])> {
    let (head, mut reply) = bytes.split_at_checked(REPLY_HEAD_BYTES)?;
    let status = match head[8] {
        DONE => Status::Done,
        NOT_LEADER => Status::NotLeader,
        DONE_AT => {
            let (place, rest) = reply.split_at_checked(16)?;
            reply = rest;
            Status::DoneAt(Position { index: number(&place[..8])?, term: number(&place[8..])? })
        }
        _ => return None,
    };
    Some((number(&head[..8])?, status, reply))
}

/// A number of eight bytes.
pub(super) fn number(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

/// A request that another node has.
pub(super) struct Forwarded {
    pub(super) shard: u16,
    pub(super) to: u32,
    pub(super) asked: Asked,
    pub(super) request: Box<OwnedRequest>,
    pub(super) deadline_ns: u64,
}

/// The requests that other nodes have, by the number that names them there.
pub(super) struct Forwards {
    last: u64,
    by_id: HashMap<u64, Forwarded, ahash::RandomState>,
}

impl Forwards {
    /// None. Numbers are at random in every start, so that the reply to a request of an earlier one, which may come late and on a
    /// new link, is not taken for one to a request of this one.
    pub(super) fn new(seed: u64) -> Self {
        // So many can follow that they never wrap around.
        Self { last: seed >> 1, by_id: HashMap::with_hasher(ahash::RandomState::with_seeds(1, 2, 3, 4)) }
    }

    /// The next number.
    pub(super) fn next_id(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    pub(super) fn insert(&mut self, id: u64, forwarded: Forwarded) {
        self.by_id.insert(id, forwarded);
    }

    /// Takes the request that node `from` answers.
    pub(super) fn take(&mut self, id: u64, from: u32, shard: u16) -> Option<Forwarded> {
        let is_its = self.by_id.get(&id).is_some_and(|it| (it.to, it.shard) == (from, shard));
        if is_its { self.by_id.remove(&id) } else { None }
    }

    /// Whether one for this shard is on its way to node `to`.
    pub(super) fn has_some(&self, to: u32, shard: u16) -> bool {
        self.by_id.values().any(|it| (it.to, it.shard) == (to, shard))
    }

    /// Takes those that meet a condition, in the order in which they were sent.
    pub(super) fn take_if(&mut self, mut condition: impl FnMut(&Forwarded) -> bool) -> Vec<Forwarded> {
        let meets = self.by_id.iter().filter(|(_, forwarded)| condition(forwarded));
        let mut ids: Vec<u64> = meets.map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids.into_iter().filter_map(|id| self.by_id.remove(&id)).collect()
    }

    /// Those of a shard are waited for until then at most.
    pub(super) fn hasten(&mut self, shard: u16, deadline_ns: u64) {
        for forwarded in self.by_id.values_mut().filter(|forwarded| forwarded.shard == shard) {
            forwarded.deadline_ns = forwarded.deadline_ns.min(deadline_ns);
        }
    }

    /// When the first one's patience ends.
    pub(super) fn deadline_ns(&self) -> Option<u64> {
        self.by_id.values().map(|forwarded| forwarded.deadline_ns).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_come_back_as_they_were_written() {
        let position = Position { index: 3, term: u64::MAX };
        for status in [Status::Done, Status::NotLeader, Status::DoneAt(position)] {
            let mut bytes = Vec::new();
            write_reply(&mut bytes, 9, status, b"+OK\r\n");
            assert_eq!(read_reply(&bytes), Some((9, status, &b"+OK\r\n"[..])));
            for length in 0..bytes.len() - 5 {
                assert_eq!(read_reply(&bytes[..length]), None, "{length} bytes of {status:?}");
            }
        }
        assert_eq!(read_reply(&[0, 0, 0, 0, 0, 0, 0, 0, 3]), None);
    }
}
