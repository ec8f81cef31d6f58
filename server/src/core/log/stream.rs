//! Large entries: journalled in fragments, over several turns.
//!
//! Invariants: the fragments say nothing of order; an entry takes its place in the log with the record behind its last
//! fragment, so that other writes pass it meanwhile, except those that wait for room: it takes its place behind them.
//! Requests of its connection that must not pass it follow it.

use std::{collections::VecDeque, ops::Range};

use duva_engine::{KeyHash, Settings, Shards};
use duva_net::io::Token;
use duva_persist::{
    format::{Fragmented, Kind, record_flag},
    journal::{Fragments, Journal},
    record::{Record, record_room_bytes},
};

use super::{
    AppendAs, Log, Proposal, ROOM_RESERVE_BYTES, Refusal, only_shard,
    payload::{self, Selection},
    split,
};
use crate::core::{
    node::Origin,
    request::{OwnedRequest, Request},
};

/// Bytes of one fragment, and of all fragments in a turn: what one write may hold other connections up for.
const FRAGMENT_BYTES_MAX: usize = 256 << 10;

/// Room for one fragment with its headers.
const FRAGMENT_ROOM_BYTES: u64 = FRAGMENT_BYTES_MAX as u64 + 1024;

/// Bytes that wait to be written past which no fragment is appended: what other writes have to wait behind.
const UNWRITTEN_BYTES_MAX: usize = 1 << 20;

/// One entry on its way into the journal in fragments.
struct Part {
    /// Which of the stream's writes it is of.
    write: usize,
    shard: u16,
    /// Its keys among the stream's; `None`: all of its write's.
    keys: Option<Range<usize>>,
    /// `None` once all is said.
    fragments: Option<Fragments>,
    pieces: payload::Pieces,
}

impl Part {
    /// Appends the next fragment; false: it was the last.
    fn append(
        &mut self,
        journal: &mut Journal,
        scratch: &mut Vec<u8>,
        request: &Request<'_>,
        selection: Selection<'_>,
        settings: &Settings,
    ) -> bool {
        scratch.clear();
        let len_bytes_max = journal.payload_bytes_max().min(FRAGMENT_BYTES_MAX);
        let more = self.pieces.write(request, selection, settings, len_bytes_max, scratch);
        self.fragments.as_mut().expect("a part is finished once").push(journal, scratch);
        more
    }

    /// Appends the record that makes an entry of the fragments.
    fn finish(&mut self, journal: &mut Journal, record: &Record) {
        self.fragments.take().expect("a part is finished once").finish(journal, record, &[]);
    }

    /// The fragments will never be an entry.
    fn abandon(&mut self, journal: &mut Journal) {
        if let Some(fragments) = self.fragments.take() {
            fragments.abandon(journal);
        }
    }
}

/// Writes, of a client or of a gather, whose entries are being journalled in fragments, as one group.
pub(in crate::core) struct Stream {
    pub(in crate::core) origin: Origin,
    pub(in crate::core) how: AppendAs,
    pub(in crate::core) writes: Vec<OwnedRequest>,
    /// The settings that its entries say.
    pub(in crate::core) settings: Settings,
    /// Requests of the same connection that came later, and bytes of them.
    pub(in crate::core) followers: Vec<(Origin, Box<OwnedRequest>)>,
    pub(super) follower_bytes: usize,
    /// The keys of its writes, of each by shard.
    keys: Vec<(u16, u32)>,
    /// One for each write and shard, begun one after the other.
    parts: Vec<Part>,
    /// How many parts are complete.
    complete: usize,
}

impl Stream {
    /// Whether all fragments are in the journal.
    pub(in crate::core) fn is_complete(&self) -> bool {
        self.complete == self.parts.len()
    }

    /// The keys of all writes.
    pub(in crate::core) fn keys(&self) -> Vec<KeyHash> {
        self.writes.iter().flat_map(|write| write.keys.iter().copied()).collect()
    }

    /// The room that the records behind the fragments take.
    pub(in crate::core) fn end_room_bytes(&self) -> u64 {
        self.parts.len() as u64 * record_room_bytes(size_of::<Fragmented>())
    }

    /// Keeps a request that must not pass it.
    fn follow(&mut self, origin: Origin, request: &mut Request<'_>) {
        let request = Box::new(request.to_owned());
        self.follower_bytes += request.kept_bytes();
        self.followers.push((origin, request));
    }

    /// Whether a request of that connection must follow this one.
    fn is_before(&self, core: usize, token: Token) -> bool {
        matches!(self.origin, Origin::Core { core: other, token: own, .. } if (other, own) == (core, token))
    }
}

impl Log {
    /// Begins to journal large writes in fragments. They all have keys.
    pub(in crate::core) fn begin_stream(
        &mut self,
        origin: Origin,
        how: AppendAs,
        mut writes: Vec<OwnedRequest>,
        settings: Settings,
        shards: &Shards,
    ) {
        let mut keys = Vec::new();
        let mut parts: Vec<Part> = Vec::new();
        let mut own = Vec::new();
        for (write, request) in writes.iter_mut().enumerate() {
            let mut begin = |shard: u16, keys: Option<Range<usize>>| {
                let mut fragments = Fragments::begin(&mut self.journal, shard);
                if let AppendAs::Prepare(transaction) = how {
                    fragments.push(&mut self.journal, &transaction.to_le_bytes());
                    self.take_room(record_room_bytes(size_of::<u64>()));
                }
                let (fragments, pieces) = (Some(fragments), payload::Pieces::default());
                parts.push(Part { write, shard, keys, fragments, pieces });
            };
            if let Some(shard) = only_shard(&request.keys, shards) {
                begin(shard, None);
                continue;
            }
            split(&request.view(), shards, &mut own);
            let mut end = keys.len();
            for part in own.chunk_by(|(shard, _), (other, _)| shard == other) {
                let own = end..end + part.len();
                end = own.end;
                begin(part[0].0, Some(own));
            }
            keys.append(&mut own);
        }
        self.streams.push_back(Stream {
            origin: origin.later(),
            how,
            writes,
            settings,
            followers: Vec::new(),
            follower_bytes: 0,
            keys,
            parts,
            complete: 0,
        });
    }

    /// Lets a request follow the stream of its connection that it must not pass; false: there is none.
    pub(in crate::core) fn follow(
        &mut self,
        (core, token): (usize, Token),
        origin: Origin,
        request: &mut Request<'_>,
    ) -> bool {
        let streams = self.parked_streams.values_mut().chain(&mut self.streams);
        // Of one connection there is one at most: what comes behind it follows it.
        let before = streams.into_iter().find(|stream| stream.is_before(core, token));
        before.map(|stream| stream.follow(origin, request)).is_some()
    }

    /// Takes the stream whose turn it is, a fragment further on.
    pub(in crate::core) fn next_stream_step(&mut self) -> Option<Stream> {
        if !self.can_stream() {
            return None;
        }
        let mut stream = self.streams.pop_front()?;
        if !stream.is_complete() {
            let Stream { writes, settings, keys, parts, complete, .. } = &mut stream;
            let part = &mut parts[*complete];
            let request = writes[part.write].view();
            let selection = part.keys.clone().map_or(Selection::All, |own| Selection::Keys(&keys[own]));
            let more = part.append(&mut self.journal, &mut self.scratch, &request, selection, settings);
            *complete += usize::from(!more);
            self.take_room(FRAGMENT_ROOM_BYTES);
        }
        Some(stream)
    }

    /// Whether the stream whose turn it is can go on.
    pub(in crate::core) fn can_stream(&self) -> bool {
        self.streams.front().is_some_and(|stream| {
            if stream.is_complete() {
                self.admits(stream.end_room_bytes())
            } else {
                self.can_append_fragment()
            }
        })
    }

    /// Why streams will not be finished.
    pub(in crate::core) fn stream_refusal(&self) -> Option<Refusal> {
        let failure = self.segments.failure().filter(|_| !self.has_room_for_fragment());
        self.refusal.or(failure.map(Refusal::NoRoom))
    }

    /// Whether one more fragment can be written at once, with room left for what others append.
    fn can_append_fragment(&self) -> bool {
        self.journal.unwritten_bytes() <= UNWRITTEN_BYTES_MAX && self.has_room_for_fragment()
    }

    fn has_room_for_fragment(&self) -> bool {
        self.journal.ready_room_bytes() >= FRAGMENT_ROOM_BYTES + ROOM_RESERVE_BYTES
    }

    /// Puts a stream back behind the others.
    pub(in crate::core) fn put_back(&mut self, stream: Stream) {
        self.streams.push_back(stream);
    }

    /// Keeps a complete stream until its keys are free; returns the number by which it goes on.
    pub(in crate::core) fn park(&mut self, stream: Stream) -> u64 {
        self.parked_streams_total += 1;
        self.parked_streams.insert(self.parked_streams_total, stream);
        self.parked_streams_total
    }

    /// Takes a stream whose keys are free, unless none will be finished any more.
    pub(in crate::core) fn unpark(&mut self, number: u64) -> Option<Stream> {
        self.parked_streams.remove(&number)
    }

    /// Takes every stream: none will be finished.
    pub(in crate::core) fn take_streams(&mut self) -> VecDeque<Stream> {
        let mut streams = std::mem::take(&mut self.streams);
        streams.extend(std::mem::take(&mut self.parked_streams).into_values());
        let parts = streams.iter_mut().flat_map(|stream| &mut stream.parts);
        parts.for_each(|part| part.abandon(&mut self.journal));
        streams
    }

    /// Appends the records that make entries of a complete stream, for writes that are applied at once or not yet.
    pub(in crate::core) fn append_stream(
        &mut self,
        stream: &mut Stream,
        proposal: Proposal,
        is_applied: bool,
    ) {
        let kind = match stream.how {
            AppendAs::Entry => Kind::Entry,
            AppendAs::Prepare(_) => Kind::Prepare,
            AppendAs::Finish(_) => panic!("what ends a transaction is short"),
        };
        let count = stream.parts.len();
        for (index, part) in stream.parts.iter_mut().enumerate() {
            let flags = if index + 1 == count { 0 } else { record_flag::GROUP };
            let record = self.record(part.shard, kind, flags, proposal);
            self.note_appended(part.shard, record.index, is_applied);
            part.finish(&mut self.journal, &record);
        }
        self.take_room(stream.end_room_bytes());
    }
}
