//! Large entries: journalled in fragments, over several turns.
//!
//! Invariants: the fragments say nothing of order; an entry takes its place in the log with the record behind its last
//! fragment, so that other writes pass it meanwhile. Requests of its connection that must not pass it follow it.

use std::collections::VecDeque;

use duva_engine::{Settings, command::Handler};
use duva_net::io::Token;
use duva_persist::{
    format::{Kind, record_flag},
    journal::{Fragments, Journal},
    record::Record,
};

use super::{
    Log, Proposal, ROOM_RESERVE_BYTES, Refusal,
    payload::{self, Selection},
    split,
};
use crate::core::{
    commit::Executor,
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
pub(super) struct Part {
    shard: u16,
    /// `None` once all is said.
    fragments: Option<Fragments>,
    pieces: payload::Pieces,
}

impl Part {
    pub(super) fn new(journal: &mut Journal, shard: u16, transaction: Option<u64>) -> Self {
        let mut fragments = Fragments::begin(journal, shard);
        if let Some(transaction) = transaction {
            fragments.push(journal, &transaction.to_le_bytes());
        }
        Self { shard, fragments: Some(fragments), pieces: payload::Pieces::default() }
    }

    /// Appends the next fragment; false: it was the last.
    pub(super) fn append(
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
    pub(super) fn finish(&mut self, journal: &mut Journal, record: &Record) {
        self.fragments.take().expect("a part is finished once").finish(journal, record, &[]);
    }

    /// The fragments will never be an entry.
    fn abandon(&mut self, journal: &mut Journal) {
        if let Some(fragments) = self.fragments.take() {
            fragments.abandon(journal);
        }
    }
}

/// A request whose entries are being journalled in fragments.
pub(in crate::core) struct Stream {
    pub(in crate::core) origin: Origin,
    pub(in crate::core) handler: Handler,
    pub(in crate::core) request: Box<OwnedRequest>,
    /// Requests of the same connection that came later.
    pub(in crate::core) followers: Vec<(Origin, Box<OwnedRequest>)>,
    /// Its keys by shard.
    keys: Vec<(u16, u32)>,
    /// One for each shard, begun one after the other.
    parts: Vec<Part>,
    /// How many parts are complete.
    complete: usize,
}

impl Stream {
    /// Whether all fragments are in the journal.
    pub(in crate::core) fn is_complete(&self) -> bool {
        self.complete == self.parts.len()
    }

    /// Whether a request of that connection must follow this one.
    pub(in crate::core) fn is_before(&self, core: usize, token: Token) -> bool {
        matches!(self.origin, Origin::Core { core: other, token: own, .. } if (other, own) == (core, token))
    }
}

/// The arguments of part `index`.
fn selection<'a>(keys: &'a [(u16, u32)], parts: &[Part], index: usize) -> Selection<'a> {
    if parts.len() == 1 {
        return Selection::All;
    }
    let shard = parts[index].shard;
    let start = keys.partition_point(|&(other, _)| other < shard);
    let end = keys.partition_point(|&(other, _)| other <= shard);
    Selection::Keys(&keys[start..end])
}

impl Log {
    /// Begins to journal a large request in fragments.
    pub(in crate::core) fn begin_stream(
        &mut self,
        origin: Origin,
        handler: Handler,
        request: &mut Request<'_>,
        executor: &Executor,
    ) {
        let mut keys = Vec::new();
        split(request, &executor.shards, &mut keys);
        let mut parts: Vec<Part> = Vec::new();
        for &(shard, _) in &keys {
            if parts.last().is_none_or(|part| part.shard != shard) {
                parts.push(Part::new(&mut self.journal, shard, None));
            }
        }
        self.streams.push_back(Stream {
            origin: origin.later(),
            handler,
            request: Box::new(request.to_owned()),
            followers: Vec::new(),
            keys,
            parts,
            complete: 0,
        });
    }

    /// The stream that a request of that connection must follow.
    pub(in crate::core) fn stream_before(&mut self, core: usize, token: Token) -> Option<&mut Stream> {
        self.streams.iter_mut().rev().find(|stream| stream.is_before(core, token))
    }

    /// Takes the stream whose turn it is, a fragment further on.
    pub(in crate::core) fn next_stream_step(&mut self, settings: &Settings) -> Option<Stream> {
        if !self.can_stream() {
            return None;
        }
        let mut stream = self.streams.pop_front()?;
        if !stream.is_complete() {
            let index = stream.complete;
            let selection = selection(&stream.keys, &stream.parts, index);
            let request = stream.request.view();
            let part = &mut stream.parts[index];
            let more = part.append(&mut self.journal, &mut self.scratch, &request, selection, settings);
            stream.complete += usize::from(!more);
        }
        Some(stream)
    }

    /// Whether the stream whose turn it is can go on.
    pub(in crate::core) fn can_stream(&self) -> bool {
        self.streams.front().is_some_and(|stream| stream.is_complete() || self.has_fragment_room())
    }

    /// Why streams will not be finished.
    pub(in crate::core) fn stream_refusal(&self) -> Option<Refusal> {
        let failure = self.segments.failure().filter(|_| !self.has_fragment_room());
        self.refusal.or(failure.map(Refusal::NoSegment))
    }

    /// Whether one more fragment can be written at once, with room left for what others append: they must not wait until
    /// segments are prepared for this.
    fn has_fragment_room(&self) -> bool {
        self.journal.unwritten_bytes() <= UNWRITTEN_BYTES_MAX
            && self.journal.ready_room_bytes() >= FRAGMENT_ROOM_BYTES + ROOM_RESERVE_BYTES
    }

    /// Puts a stream back behind the others.
    pub(in crate::core) fn put_back(&mut self, stream: Stream) {
        self.streams.push_back(stream);
    }

    /// Takes every stream: none will be finished.
    pub(in crate::core) fn take_streams(&mut self) -> VecDeque<Stream> {
        let mut streams = std::mem::take(&mut self.streams);
        let parts = streams.iter_mut().flat_map(|stream| &mut stream.parts);
        parts.for_each(|part| part.abandon(&mut self.journal));
        streams
    }

    /// Appends the records that make entries of a complete stream, applied at once or waiting.
    pub(in crate::core) fn append_stream(
        &mut self,
        stream: &mut Stream,
        proposal: Proposal,
        is_applied: bool,
    ) {
        if !is_applied {
            self.begin_waiting(proposal.timestamp_ms);
        }
        let count = stream.parts.len();
        for (index, part) in stream.parts.iter_mut().enumerate() {
            let flags = if index + 1 == count { 0 } else { record_flag::GROUP };
            let record = self.record(part.shard, Kind::Entry, flags, proposal);
            self.note_appended(part.shard, record.index, 0, is_applied);
            part.finish(&mut self.journal, &record);
        }
        if !is_applied {
            let mut request = stream.request.view();
            let (origin, handler) = (stream.origin, stream.handler);
            self.keep(origin, &mut request, super::What::Write(handler, proposal));
        }
    }
}
