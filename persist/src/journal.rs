//! The writer of a core's journal, without I/O: it says what is to be written and synced, and is told what was.
//!
//! A turn appends its records; [`Journal::close_block`] makes a block of them; [`Journal::next_write`] hands out one
//! write for all that is closed. Completions come back through [`Journal::written`] and [`Journal::synced`].
//!
//! Invariants:
//!
//! - [`Journal::written_to`] and [`Journal::synced_to`] are prefixes: a position counts only when everything before
//!   it does, whatever the order of completions.
//! - A segment's header holds the state of every shard as all records before the segment leave it.
//! - No block is written before its own segment's file exists, and no sealed block before the next segment's does.
//! - The last block of a segment is sealed, whether it leaves room or not: nothing but a seal ends a segment.
//! - Once poisoned, the journal hands out nothing and no position moves.

mod fragments;
mod plan;
mod progress;
mod segments;
mod states;

pub use fragments::Fragments;

use zerocopy::{FromBytes, IntoBytes};

use self::{
    plan::{BLOCK_HEADER_BYTES, Plan},
    progress::Progress,
    segments::Segments,
    states::States,
};
use crate::{
    format::{
        BLOCK_ALIGN, BLOCK_BYTES_MAX, Fragmented, Kind, Position, SegmentHeader, ShardState, align_up,
        record_flag,
    },
    record::{RECORD_HEADER_BYTES, Record},
};

/// The smallest segment, in bytes.
pub const SEGMENT_BYTES_MIN: u32 = 1 << 20;

/// The largest segment, in bytes.
pub const SEGMENT_BYTES_MAX: u32 = 1 << 30;

/// Segments are multiples of so many bytes.
pub const SEGMENT_ALIGN: u32 = 4096;

/// Segments below so many bytes are prepared two ahead, others one.
const TWO_SPARES_BELOW_BYTES: u32 = 16 << 20;

/// What a journal is told when it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalOptions {
    /// The core.
    pub core: u16,
    /// The number of this server start.
    pub epoch: u64,
    /// Bytes of a segment: [`SEGMENT_BYTES_MIN`] to [`SEGMENT_BYTES_MAX`], a multiple of [`SEGMENT_ALIGN`].
    pub segment_len: u32,
    /// Names the cluster.
    pub cluster: [u8; 16],
    /// Names the node.
    pub node: [u8; 16],
    /// The kernel's boot id.
    pub kernel_boot: [u8; 16],
}

impl JournalOptions {
    /// Whether a journal with so many shards can be written like this.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong with the segments' size.
    pub fn check(&self, shards: usize) -> Result<(), String> {
        let bytes = self.segment_len;
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&bytes) {
            return Err(format!(
                "a segment of {bytes} bytes is not between {SEGMENT_BYTES_MIN} and {SEGMENT_BYTES_MAX} bytes"
            ));
        }
        if !bytes.is_multiple_of(SEGMENT_ALIGN) {
            return Err(format!("a segment of {bytes} bytes is not a multiple of {SEGMENT_ALIGN} bytes"));
        }
        let header_bytes = size_of::<SegmentHeader>() + shards * size_of::<ShardState>();
        if align_up(header_bytes, BLOCK_ALIGN) > self.header_bytes_max() {
            return Err(format!(
                "a segment of {bytes} bytes is too small for {shards} shards on one core: their states may take a \
                 quarter of it, and need {header_bytes} bytes"
            ));
        }
        Ok(())
    }

    /// The largest block, in bytes.
    fn block_bytes_max(&self) -> usize {
        BLOCK_BYTES_MAX.min(self.segment_len as usize / 4)
    }

    /// The largest segment header, in bytes with padding.
    fn header_bytes_max(&self) -> usize {
        self.segment_len as usize / 4
    }

    /// How many segments are prepared ahead of the one being filled.
    fn spare_segments(&self) -> u32 {
        if self.segment_len < TWO_SPARES_BELOW_BYTES { 2 } else { 1 }
    }
}

/// Bytes to be written to one place.
#[derive(Debug, PartialEq, Eq)]
pub struct Write {
    /// The segment.
    pub sequence: u32,
    /// Where in it, in bytes.
    pub offset: u32,
    /// What.
    pub bytes: Vec<u8>,
}

impl Write {
    /// The place behind the last byte.
    pub fn end(&self) -> Position {
        Position::new(self.sequence, self.offset + self.bytes.len() as u32)
    }
}

/// A segment to be synced: all of it that was written when this was handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sync {
    /// The segment.
    pub sequence: u32,
    /// Where [`Journal::synced_to`] stands once it is done.
    pub to: Position,
}

/// The journal of one core in one epoch.
pub struct Journal {
    options: JournalOptions,
    states: States,
    segments: Segments,
    plan: Plan,
    progress: Progress,
    appended_to: Position,
    /// The streams of fragments that no record has completed yet, and where each begins.
    streams: Vec<(u64, Position)>,
    next_stream: u64,
    poisoned: bool,
}

/// Set-up, shards and segments.
impl Journal {
    /// A journal whose first segment will be `first_sequence`, for the shards of `states`.
    ///
    /// # Panics
    ///
    /// Panics if [`JournalOptions::check`] fails, or a shard occurs twice.
    pub fn new(options: JournalOptions, first_sequence: u32, states: Vec<ShardState>) -> Self {
        if let Err(reason) = options.check(states.len()) {
            panic!("{reason}");
        }
        let start = Position::new(first_sequence, 0);
        let mut segments = Segments::new(first_sequence);
        let ahead = 1 + options.spare_segments();
        segments.extend_to(first_sequence.checked_add(ahead).expect("sequences do not run out"));
        Self {
            options,
            states: States::new(states),
            segments,
            plan: Plan::new(options, first_sequence),
            progress: Progress::new(start),
            appended_to: start,
            streams: Vec::new(),
            next_stream: 0,
            poisoned: false,
        }
    }

    /// Begins the first segment with a block without records. The caller makes the bytes durable, in the first segment's
    /// file, before it lets the journal do anything else: they count as synced from now on. That file is asked for like any
    /// other, and what it holds is to stay.
    ///
    /// # Panics
    ///
    /// Panics if anything was appended before.
    pub fn begin(&mut self, now_ms: u64) -> Write {
        self.begin_with(now_ms, |_| {})
    }

    /// As [`Self::begin`], with the records that `append` appends: they are as durable as the header from the beginning.
    ///
    /// # Panics
    ///
    /// Panics if anything was appended before, or the records do not fit the first segment.
    pub fn begin_with(&mut self, now_ms: u64, append: impl FnOnce(&mut Self)) -> Write {
        let start = Position::new(self.segments.first(), 0);
        assert!(self.plan.next() == start && self.plan.planned_bytes() == 0, "a journal begins once");
        self.plan.begin(&self.states, &mut self.segments);
        append(self);
        self.close_block(now_ms);
        let write = self.plan.take_first();
        self.progress.begin(write.end());
        write
    }

    /// The states of the core's shards, in order of shard, as all records so far leave them.
    pub fn states(&self) -> &[ShardState] {
        self.states.all()
    }

    /// The state of a shard. What [`Journal::append`] keeps need not be set here.
    ///
    /// # Panics
    ///
    /// Panics if the shard is not on this core.
    pub fn state_mut(&mut self, shard: u16) -> &mut ShardState {
        self.states.state_mut(shard)
    }

    /// Who replicates a shard: every segment's header carries it on. [`Journal::append`] does not set it.
    ///
    /// # Errors
    ///
    /// A sentence, and nothing is changed, if the headers would become too large for the segments.
    ///
    /// # Panics
    ///
    /// Panics if the shard is not on this core.
    pub fn set_membership(&mut self, shard: u16, membership: &[u8]) -> Result<(), String> {
        let earlier = std::mem::replace(self.states.membership_mut(shard), membership.to_vec());
        self.check_header().inspect_err(|_| *self.states.membership_mut(shard) = earlier)
    }

    /// A shard comes to this core, with its membership (empty: none).
    ///
    /// # Errors
    ///
    /// A sentence, and nothing is changed, if the headers would become too large for the segments.
    ///
    /// # Panics
    ///
    /// Panics if the shard is on this core already.
    pub fn add_shard(&mut self, state: ShardState, membership: &[u8]) -> Result<(), String> {
        self.states.add(state, membership.to_vec());
        self.check_header().inspect_err(|_| {
            self.states.remove(state.shard.get());
        })
    }

    /// A shard leaves this core: returns its state and membership. What was appended of it must be synced before
    /// another core's journal takes it.
    ///
    /// # Panics
    ///
    /// Panics if the shard is not on this core.
    pub fn remove_shard(&mut self, shard: u16) -> (ShardState, Vec<u8>) {
        self.states.remove(shard)
    }

    fn check_header(&self) -> Result<(), String> {
        let header_bytes = Plan::segment_header_bytes(&self.states);
        if header_bytes <= self.options.header_bytes_max() {
            return Ok(());
        }
        let bytes = self.options.segment_len;
        Err(format!(
            "a segment of {bytes} bytes is too small: the shards' states and memberships need {header_bytes} bytes"
        ))
    }

    /// A segment whose file is to be prepared now: there, of full length and zero, or with what another segment of
    /// this node once held. Each is returned once, and again only after it failed.
    pub fn wants_segment(&mut self) -> Option<u32> {
        if self.poisoned { None } else { self.segments.take_wanted() }
    }

    /// The segment's file is there, and will be after a power loss.
    pub fn segment_ready(&mut self, sequence: u32) {
        self.segments.prepared(sequence, true);
    }

    /// The segment's file could not be prepared. It is asked for again after [`Journal::retry_segments`].
    pub fn segment_failed(&mut self, sequence: u32) {
        self.segments.prepared(sequence, false);
    }

    /// Asks for all segments again that could not be prepared.
    pub fn retry_segments(&mut self) {
        self.segments.retry();
    }

    /// So many more bytes can be appended and written without a further segment, each record counted by
    /// [`crate::record::record_room_bytes`]. It is a lower bound: what may be lost at a segment's end is taken off.
    pub fn ready_room_bytes(&self) -> u64 {
        let position = self.plan.position();
        let mut sequence = position.sequence();
        if self.poisoned || !self.segments.is_ready(sequence) {
            return 0;
        }
        let fresh_bytes = self.options.segment_len as usize - Plan::segment_header_bytes(&self.states);
        let mut last_bytes = if position.offset() == 0 { fresh_bytes } else { self.plan.block_room_bytes() };
        let mut bytes = 0;
        while self.segments.is_ready(sequence + 1) {
            bytes += last_bytes.saturating_sub(self.options.block_bytes_max()) as u64;
            last_bytes = fresh_bytes;
            sequence += 1;
        }
        // What fills the last one seals it, which takes the next.
        bytes + last_bytes.saturating_sub(BLOCK_ALIGN) as u64
    }

    /// The number of the server start that writes it.
    pub fn epoch(&self) -> u64 {
        self.options.epoch
    }

    /// The segments with blocks of this epoch, oldest first; some may not be written yet.
    pub fn segments(&self) -> impl Iterator<Item = u32> {
        let next = self.plan.next();
        let opened_to = if next.offset() == 0 { next.sequence() } else { next.sequence() + 1 };
        self.segments.first()..opened_to
    }

    /// Forgets the segments wholly before `keep_from` that are synced and followed by a segment whose header is:
    /// that carries their states on. Returns them, oldest first; the caller removes or recycles the files.
    pub fn trim(&mut self, keep_from: Position) -> Vec<u32> {
        if self.poisoned {
            return Vec::new();
        }
        self.segments.forget_before(keep_from.sequence().min(self.progress.synced_to.sequence()))
    }
}

/// Appending.
impl Journal {
    /// The largest payload of one record, in bytes: what fits one block. Larger ones need [`Fragments`].
    pub fn payload_bytes_max(&self) -> usize {
        self.options.block_bytes_max() - BLOCK_HEADER_BYTES - RECORD_HEADER_BYTES
    }

    /// Appends a record, whose payload `payload` adds to the vector that it is given, without touching what that holds.
    /// It belongs to the journal once [`Journal::close_block`] was called.
    ///
    /// The shard's state follows: last index and term and shard time with every record of the log, term and vote with a
    /// hard state, the snapshot with a snapshot's mark. A poisoned journal takes nothing.
    ///
    /// # Panics
    ///
    /// Panics if the payload is larger than [`Journal::payload_bytes_max`], if a hard state's is not a vote of eight
    /// bytes, or if the shard is not on this core.
    #[inline]
    pub fn append(&mut self, record: &Record, payload: impl FnOnce(&mut Vec<u8>)) {
        if self.poisoned {
            return;
        }
        self.plan.begin(&self.states, &mut self.segments);
        self.append_to_block(record, payload);
    }

    /// Appends that a shard's log is committed up to `index`, for good. Its term and vote stay what they are.
    ///
    /// # Panics
    ///
    /// Panics if the log ends before that, or if the shard is not on this core.
    pub fn append_committed(&mut self, shard: u16, index: u64) {
        let state = *self.states.state_mut(shard);
        assert!(index <= state.last_index.get(), "only what is in the journal is said to be committed");
        let record = Record { index, term: state.term.get(), ..Record::new(Kind::HardState, shard) };
        self.append(&record, |out| out.extend_from_slice(state.vote.as_bytes()));
    }

    /// Appends a piece of a large payload. See [`Fragments`], which numbers them.
    ///
    /// # Panics
    ///
    /// Panics if there are more than [`Journal::payload_bytes_max`] bytes.
    pub fn append_fragment(&mut self, stream: u64, ordinal: u32, shard: u16, bytes: &[u8]) {
        if self.poisoned {
            return;
        }
        let record_bytes = RECORD_HEADER_BYTES + bytes.len();
        assert!(bytes.len() <= self.payload_bytes_max(), "a fragment fits a block");
        self.plan.begin_for(record_bytes, &self.states, &mut self.segments);
        if !self.streams.iter().any(|(known, _)| *known == stream) {
            self.streams.push((stream, self.plan.position()));
        }
        let record = Record { index: stream, fragments: ordinal, ..Record::new(Kind::Fragment, shard) };
        self.append_to_block(&record, |buffer| buffer.extend_from_slice(bytes));
    }

    /// A number for a stream of fragments that no other in this epoch and core has.
    pub fn new_stream(&mut self) -> u64 {
        self.next_stream += 1;
        self.next_stream
    }

    /// No record will complete the stream: its fragments mean nothing and are not kept for one.
    pub fn abandon_stream(&mut self, stream: u64) {
        self.streams.retain(|(known, _)| *known != stream);
    }

    /// The block that the next record or fragment goes to begins here, or one of the next ones: what is appended from now on
    /// is found by reading from here. A segment's beginning stands for its first block.
    pub fn block_position(&self) -> Position {
        let next = self.plan.next();
        if next.offset() < self.options.segment_len {
            return next;
        }
        Position::new(next.sequence().checked_add(1).expect("sequences do not run out"), 0)
    }

    /// No record that is appended from now on, and no fragment of one, lies before this.
    pub fn mark_position(&self) -> Position {
        let streams = self.streams.iter().map(|(_, begin)| *begin);
        streams.fold(self.plan.position(), Position::min)
    }

    fn append_to_block(&mut self, record: &Record, payload: impl FnOnce(&mut Vec<u8>)) {
        let salt = self.plan.salt();
        let bytes = self.plan.bytes_mut();
        let at = bytes.len();
        let payload_bytes = record.write(bytes, salt, payload);
        assert!(payload_bytes <= self.payload_bytes_max(), "a record of {payload_bytes} bytes fits no block");
        let at = self.plan.take_record(at, &self.states, &mut self.segments);
        let payload_at = at + RECORD_HEADER_BYTES;
        let payload = &self.plan.bytes_mut()[payload_at..payload_at + payload_bytes];
        self.states.note(record, payload);
        if record.flags & record_flag::FRAGMENTED != 0 {
            let (fragmented, _) =
                Fragmented::read_from_prefix(payload).expect("a fragmented record says what it is made of");
            self.abandon_stream(fragmented.stream.get());
        }
    }
}

/// Writing and syncing.
impl Journal {
    /// What was appended becomes a block, or the last of several. Does nothing if nothing was appended.
    pub fn close_block(&mut self, now_ms: u64) {
        if self.poisoned {
            return;
        }
        self.plan.end(0, &mut self.segments);
        if self.plan.close(now_ms, self.progress.synced_to) {
            self.appended_to = self.plan.next();
        }
    }

    /// Closes what was appended, ends the segment if it has been begun, and begins the next one with an empty block:
    /// once that is synced, everything earlier can be trimmed. On a new journal, it begins the first.
    pub fn roll(&mut self, now_ms: u64) {
        if self.poisoned {
            return;
        }
        if self.plan.next().offset() > 0 {
            self.plan.seal(&mut self.segments);
        }
        self.plan.begin(&self.states, &mut self.segments);
        self.close_block(now_ms);
    }

    /// The next write, in order: all closed blocks that lie next to one another in the oldest segment that has any.
    /// Nothing while a segment's file is missing that must exist before. Several may be under way at once and
    /// complete in any order.
    pub fn next_write(&mut self) -> Option<Write> {
        if self.poisoned {
            return None;
        }
        let write = self.plan.next_write(&self.segments)?;
        self.progress.take_off(Position::new(write.sequence, write.offset), write.end());
        Some(write)
    }

    /// The write completed, all of it, at `now_ms`. Takes its buffer back.
    ///
    /// # Panics
    ///
    /// Panics if the write is not under way.
    pub fn written(&mut self, write: Write, now_ms: u64) {
        if self.poisoned {
            return;
        }
        let start = Position::new(write.sequence, write.offset);
        self.progress.land(start, now_ms, &mut self.segments);
        self.plan.recycle(write.bytes);
    }

    /// The next sync: of the oldest segment with written bytes that are not synced. One at a time.
    pub fn next_sync(&mut self) -> Option<Sync> {
        if self.poisoned { None } else { self.progress.next_sync(&mut self.segments) }
    }

    /// The sync completed.
    ///
    /// # Panics
    ///
    /// Panics if it is not the one under way.
    pub fn synced(&mut self, sync: Sync) {
        if !self.poisoned {
            self.progress.synced(sync);
        }
    }

    /// The end of what was appended, as of the last [`Journal::close_block`]: all of it is written once
    /// [`Journal::written_to`] is there, and durable once [`Journal::synced_to`] is.
    pub fn appended_to(&self) -> Position {
        self.appended_to
    }

    /// Everything before this is written.
    pub fn written_to(&self) -> Position {
        self.progress.written_to
    }

    /// Everything before this is durable.
    pub fn synced_to(&self) -> Position {
        self.progress.synced_to
    }

    /// When the oldest byte was written that is not synced.
    pub fn oldest_unsynced_ms(&self) -> Option<u64> {
        self.progress.oldest_unsynced_ms(&self.segments)
    }

    /// Bytes that were appended and not written, those of writes under way included.
    pub fn unwritten_bytes(&self) -> usize {
        self.plan.planned_bytes() + self.progress.flight_bytes
    }

    /// A write or sync failed: what the disk holds is unknown, and nothing more is written, synced or promised.
    pub fn poison(&mut self) {
        self.poisoned = true;
    }

    /// Whether a write or sync has failed.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }
}
