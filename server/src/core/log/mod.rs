//! One core's log: its journal, and the work that waits for it.
//!
//! Writes become records here. In most turns a write is applied at once, its record joins the turn's block, and the block
//! is written before any reply of the turn leaves (`appendfsync everysec` and `no`): nobody outside sees a
//! write that a killed process would lose. When a write must wait (`appendfsync always`, a slow disk, a segment that
//! is not ready) it is kept with its record's block and applied, in order, when that block counts as committed.
//!
//! Invariants:
//!
//! - **Order.** Records lie in the journal in the order in which they take effect. While anything waits, every later
//!   write of the core waits behind it.
//! - **Room first.** A record is appended only where a segment is ready for it, so that a turn's write never waits for
//!   a file. What does not fit yet waits as it came (`deferred`); without hope for room it is refused. Only what is larger
//!   than any room that is sure to come is appended before, alone, and never applied at once.
//! - **Nothing told.** While a write is applied whose record is not written ([`Log::is_ahead`]), nothing leaves the core.
//! - **Nothing early.** A write that waits is seen by nobody before its block is committed; a read behind a write of
//!   its own connection waits with it, other reads see what is committed.
//! - **Prefix.** A block is committed only when every earlier one is.
//! - **No second try.** After a failed write or fsync nothing is journalled any more: writes are refused, and
//!   those that wait get an error, never a false acknowledgement. A write that only lacked room has not failed: the same
//!   bytes go to the same place later.

mod committed;
mod deferred;
pub mod payload;
mod pump;
pub(super) mod replicated;
mod retired;
mod segments;
mod stream;

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
};

use duva_engine::{KeyHash, Settings, Shards, command::Handler};
use duva_net::io::{File, Io};
use duva_persist::{
    format::{Kind, Position, record_flag},
    journal::{Journal, Sync},
    record::{Record, record_room_bytes},
};

use super::{
    batch::{Batch, Packed, Work},
    locks::TransactionId,
    node::Origin,
    persistence_report::PersistenceReport,
    request::{Large, OwnedRequest, Request},
};
use crate::config::AppendFsync;
pub(super) use deferred::{Admission, Deferred, room_bytes_max};
use payload::Selection;
use pump::Stuck;
use segments::Segments;
pub(super) use stream::Stream;

/// Room in prepared segments below which no write is applied at once: what the log may still have to append.
const ROOM_RESERVE_BYTES: u64 = 256 << 10;

/// Bytes that wait to be written, or appended, past which connections wait, on all cores; they go on below the second
/// bound.
const KEPT_BYTES_MAX: usize = 16 << 20;
const KEPT_BYTES_LOW: usize = 8 << 20;

/// Bytes of the payload that says that a prepared part is applied.
const FINISH_BYTES: usize = size_of::<u64>() + 1;

/// Longer commands are journalled over several turns.
const WHOLE_BYTES_MAX: usize = 256 << 10;

/// Why writes are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A write or fsync failed with errno: for good.
    Poisoned(i32),
    /// There is no room on the disk, or no segment could be prepared, with errno: until there is.
    NoRoom(i32),
}

impl Refusal {
    /// Whether it holds until the server is started anew.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Poisoned(_))
    }

    /// The reply to a write, as Redis words it.
    pub fn reply(self) -> String {
        let (Self::Poisoned(errno) | Self::NoRoom(errno)) = self;
        let error = std::io::Error::from_raw_os_error(errno);
        format!("-MISCONF Errors writing to the AOF file: {error}\r\n")
    }
}

/// What an entry's effect depends on besides its command.
#[derive(Clone, Copy)]
pub struct Proposal {
    /// The entry's timestamp.
    pub timestamp_ms: u64,
    /// The entry's randomness.
    pub seed: u64,
    /// The settings that hold for it, whatever is in force when it is applied.
    pub settings: Settings,
}

/// As what a command's records are appended.
#[derive(Clone, Copy)]
pub(super) enum AppendAs {
    /// Entries.
    Entry,
    /// Parts of this transaction, to be applied if it happens.
    Prepare(u64),
    /// That prepared parts of this transaction are applied.
    Finish(u64),
}

/// What this core has prepared of a transaction.
struct Prepared {
    origin: Origin,
    transaction: TransactionId,
    writes: Vec<OwnedRequest>,
    /// The journal from here on is needed until the transaction is over everywhere.
    start: Position,
    /// Durable once the journal is synced to here; `None`: the block is open.
    end: Option<Position>,
    is_answered: bool,
}

/// A piece of work that waits for a block.
pub(super) struct Item {
    pub(super) origin: Origin,
    pub(super) packed: Packed,
    pub(super) what: What,
}

pub(super) enum What {
    /// A write whose record is in the block.
    Write(Handler, Proposal),
    /// A read behind writes, which sees what is due at this time: that of its request, so that it agrees with the writes
    /// before it and behind it.
    Read(Handler, u64),
    /// A part of a gather, behind writes.
    Part(Work),
    /// Writes whose records are in the block, with arguments of their own.
    Writes(Vec<OwnedRequest>, Proposal),
}

/// What waits for one block.
#[derive(Default)]
pub(super) struct Group {
    /// Committed once the journal is up to here.
    end: Position,
    /// Where its first record lies, at the earliest.
    start: Position,
    pub(super) batch: Batch,
    pub(super) items: VecDeque<Item>,
    /// Shards with entries in the block, and the last index of each.
    indexes: Vec<(u16, u64)>,
    /// The first timestamp.
    first_ms: u64,
}

/// One core's log.
pub struct Log {
    journal: Journal,
    segments: Segments,
    fsync: AppendFsync,
    /// Blocks that are closed and not committed, and what waits for them.
    closed: VecDeque<Group>,
    /// The open block's.
    open: Group,
    spare: Vec<Group>,
    streams: VecDeque<Stream>,
    /// Complete but for keys that somebody else holds, by number: [`crate::core::locks`] says when they go on.
    parked_streams: BTreeMap<u64, Stream>,
    parked_streams_total: u64,
    /// What gathers have sent of their writes, of each by shard.
    staged: Vec<(TransactionId, BTreeMap<u16, OwnedRequest>)>,
    prepared: Vec<Prepared>,
    /// The fsync under way, and when it began, in monotonic nanoseconds.
    syncing: Option<(Sync, u64)>,
    /// Whether it goes before the turn's replies: in `always`, without a cluster.
    syncs_first: bool,
    /// Whether commits wait for an fsync that takes too long.
    is_held: bool,
    /// The write that the disk had no room for.
    stuck: Option<Stuck>,
    refusal: Option<Refusal>,
    /// Whether something was refused for want of room since there was some.
    is_short: bool,
    /// Whether the open block has a snapshot's mark, and where the last closed block with one ends.
    has_open_mark: bool,
    marks_end: Position,
    /// Whether somebody waits for [`Log::is_settled`].
    is_settling: bool,
    /// Whether the open block is to be synced whatever the policy says, and up to where the closed ones are.
    wants_open_sync: bool,
    wants_sync_to: Position,
    /// Whether the open block has records of writes that were applied at once, and where the last closed block with any ends.
    has_open_applied: bool,
    applied_end: Position,
    /// Whether a write may be applied at once, as of this turn.
    is_direct: bool,
    /// Bytes that may still be appended to segments that are ready.
    room_bytes: u64,
    /// What waits for room, in order.
    deferred: VecDeque<Deferred>,
    /// Bytes of it.
    deferred_bytes: usize,
    /// Whether so much waits that connections should.
    is_full: bool,
    /// Index of the last applied entry, by shard number, and whether later ones of the first closed group are applied.
    applied: Vec<u64>,
    is_partly_applied: bool,
    /// Keys of a command by shard; kept for its allocation.
    parts: Vec<(u16, u32)>,
    scratch: Vec<u8>,
    report: PersistenceReport,
    /// What Raft's groups have written.
    replicated: replicated::Replicated,
    /// Whether entries of Raft are to be synced as soon as they are appended.
    syncs_entries: bool,
    /// Whether the journal is the log of Raft groups.
    is_replicated: bool,
}

/// What a core's log begins with.
pub struct LogOptions {
    /// The journal.
    pub journal: Journal,
    /// The folder of segments.
    pub directory: PathBuf,
    /// Bytes of a segment.
    pub segment_len_bytes: u32,
    /// When the journal is synced.
    pub fsync: AppendFsync,
    /// Index of the last applied entry, by shard number.
    pub applied: Vec<u64>,
    /// Shards whose entry of this index the journal has begun with, which is not applied.
    pub begun: Vec<(u16, u64)>,
    /// Bytes of entries that the start has found and not applied.
    pub kept_bytes: u64,
    /// Segments of earlier starts that may serve again, and bytes in all of them that count as journal.
    pub earlier_bytes: u64,
}

impl Log {
    /// A log over `options.journal`.
    pub fn new(core: usize, options: LogOptions) -> Self {
        let LogOptions { journal, directory, segment_len_bytes, fsync, applied, begun, .. } = options;
        let LogOptions { kept_bytes, earlier_bytes, .. } = options;
        let first = journal.segments().next();
        let committed = committed::Committed::new(kept_bytes, segment_len_bytes, journal.states().len());
        let replicated = replicated::Replicated::begun_with(&begun, first.unwrap_or(0), committed);
        Self {
            journal,
            segments: Segments::new(core, directory, segment_len_bytes, first, earlier_bytes),
            fsync,
            closed: VecDeque::new(),
            open: Group::default(),
            spare: Vec::new(),
            streams: VecDeque::new(),
            parked_streams: BTreeMap::new(),
            parked_streams_total: 0,
            staged: Vec::new(),
            prepared: Vec::new(),
            syncing: None,
            syncs_first: false,
            is_held: false,
            stuck: None,
            refusal: None,
            is_short: false,
            has_open_mark: false,
            marks_end: Position::default(),
            is_settling: false,
            wants_open_sync: false,
            wants_sync_to: Position::default(),
            has_open_applied: false,
            applied_end: Position::default(),
            is_direct: false,
            room_bytes: 0,
            deferred: VecDeque::new(),
            deferred_bytes: 0,
            is_full: false,
            applied,
            is_partly_applied: false,
            parts: Vec::new(),
            scratch: Vec::new(),
            report: PersistenceReport::default(),
            replicated,
            syncs_entries: true,
            is_replicated: false,
        }
    }

    /// Uses another policy from the next turn on.
    ///
    /// What Raft counts as durable depends on its own setting, and nothing else commits in a cluster.
    pub fn set_fsync(&mut self, fsync: AppendFsync) {
        self.fsync = match (self.is_replicated, self.syncs_entries) {
            (true, true) => AppendFsync::Always,
            (true, false) => AppendFsync::EverySecond,
            (false, _) => fsync,
        };
        self.is_direct = false;
    }

    /// Why writes are refused now, if they are.
    #[inline]
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// Whether writes are applied whose records are not written: nothing may leave the core that tells of them.
    #[inline]
    pub fn is_ahead(&self) -> bool {
        self.has_open_applied || self.journal.written_to() < self.applied_end
    }

    /// Whether it is known if writes can be journalled: the first segment is there, or could not be prepared.
    pub fn is_decided(&self) -> bool {
        self.refusal.is_some() || self.journal.ready_room_bytes() > 0
    }

    /// Whether anything waits for room, or for a commit.
    #[inline]
    pub fn has_waiting(&self) -> bool {
        self.has_uncommitted() || !self.deferred.is_empty()
    }

    fn has_uncommitted(&self) -> bool {
        !self.open.items.is_empty() || !self.closed.is_empty()
    }

    /// Whether so much waits that connections should: there is hope for what they want to write, and not yet memory.
    #[inline]
    pub fn is_full(&self) -> bool {
        (self.is_full || self.kept_bytes() > KEPT_BYTES_MAX) && self.refusal.is_none()
    }

    fn kept_bytes(&self) -> usize {
        let streams = self.streams.iter().chain(self.parked_streams.values());
        let followers: usize = streams.map(|stream| stream.follower_bytes).sum();
        self.journal.unwritten_bytes() + self.deferred_bytes + followers + self.replicated.held_bytes()
    }

    /// The clock by which reads and ticks see what is due: entries that wait may have earlier timestamps, and must find what
    /// was there then.
    #[inline]
    pub fn visible_ms(&self, now_ms: u64) -> u64 {
        if !self.has_waiting() {
            return now_ms;
        }
        let first = self.closed.iter().chain([&self.open]).find(|group| !group.items.is_empty());
        first.map_or(now_ms, |group| group.first_ms.min(now_ms))
    }

    /// No record of an entry that is not applied, nor a fragment of one, lies before this.
    pub fn applied_to(&self) -> Position {
        if self.is_forgetting() {
            return Position::default();
        }
        let waiting = self.closed.iter().chain([&self.open]).find(|group| !group.items.is_empty());
        let next = self.journal.mark_position();
        let waiting = waiting.map_or(next, |group| group.start.min(next));
        let waiting = self.replicated.unapplied_from().map_or(waiting, |start| start.min(waiting));
        self.prepared.iter().map(|prepared| prepared.start).fold(waiting, Position::min)
    }

    /// Appends that a snapshot of `shard` up to `index`, an entry of `term`, is durable.
    pub fn append_mark(&mut self, shard: u16, index: u64, term: u64) {
        let mark = Record { index, term, ..Record::new(Kind::SnapshotMark, shard) };
        self.journal.append(&mark, |_| {});
        self.take_room(record_room_bytes(0));
        self.has_open_mark = true;
    }

    /// Ends the segment that is written, if the next one is ready: what comes from now on is there.
    pub fn roll(&mut self, now_ms: u64) {
        if self.journal.ready_room_bytes() >= self.segments.len_bytes() {
            self.journal.roll(now_ms);
            self.room_bytes = self.room_bytes.min(self.journal.ready_room_bytes());
        }
    }

    /// The term of a shard's last entry.
    pub fn last_term(&mut self, shard: u16) -> u64 {
        self.journal.state_mut(shard).last_term.get()
    }

    /// Lets everything appended so far be synced soon, whatever the policy: see [`Self::is_settled`].
    pub fn settle(&mut self) {
        self.has_open_mark = true;
        self.wants_open_sync = true;
        self.is_settling = true;
    }

    /// Whether every mark, and everything before the last call of [`Self::settle`], is durable.
    pub fn is_settled(&self) -> bool {
        !self.has_open_mark && self.journal.synced_to() >= self.marks_end
    }

    /// Lets go of segments wholly before `keep_from`.
    pub fn trim(&mut self, keep_from: Position, io: &mut impl Io) {
        self.forget_places(keep_from);
        self.segments.trim(&mut self.journal, keep_from, io);
    }

    /// Bytes of the journal, those of earlier starts included.
    pub fn journal_bytes(&self) -> u64 {
        self.segments.journal_bytes(&self.journal)
    }

    /// Segments of earlier starts are gone.
    pub fn forget_earlier(&mut self) {
        self.segments.forget_earlier();
    }

    /// Index of the last applied entry of a shard.
    pub fn applied(&self, shard: usize) -> u64 {
        self.applied[shard]
    }

    /// Appends the records of a command that is applied at once, which take `room_bytes` at most: nothing waits before it.
    #[inline]
    pub fn append_applied(
        &mut self,
        request: &Request<'_>,
        shards: &Shards,
        proposal: Proposal,
        room_bytes: u64,
    ) {
        debug_assert!(!self.has_waiting());
        self.append(request, shards, proposal, AppendAs::Entry, (true, true));
        self.take_room(room_bytes);
    }

    /// Appends the records of a write that waits for its block, which take `room_bytes` at most, and keeps it.
    pub(super) fn append_waiting(
        &mut self,
        origin: Origin,
        handler: Handler,
        request: &mut Request<'_>,
        shards: &Shards,
        proposal: Proposal,
        room_bytes: u64,
    ) {
        self.begin_waiting(proposal.timestamp_ms);
        self.append(request, shards, proposal, AppendAs::Entry, (false, true));
        self.take_room(room_bytes);
        self.keep(origin, request, What::Write(handler, proposal));
    }

    /// Keeps a part of a gather that reads until everything before it is applied.
    pub(super) fn wait_with_part(
        &mut self,
        origin: Origin,
        request: &mut Request<'_>,
        work: Work,
        now_ms: u64,
    ) {
        if self.has_deferred() {
            return self.defer(Deferred::Part(origin, work, Box::new(request.to_owned())));
        }
        self.wait(origin, request, What::Part(work), now_ms);
    }

    /// Keeps a read until everything before it is applied.
    pub(super) fn wait_to_read(
        &mut self,
        origin: Origin,
        handler: Handler,
        request: &mut Request<'_>,
        now_ms: u64,
    ) {
        if self.has_deferred() {
            return self.defer(Deferred::Request(origin, handler, Box::new(request.to_owned()), 0));
        }
        self.wait(origin, request, What::Read(handler, now_ms), now_ms);
    }

    fn wait(&mut self, origin: Origin, request: &mut Request<'_>, what: What, now_ms: u64) {
        let visible_ms = self.visible_ms(now_ms);
        self.begin_waiting(visible_ms);
        self.keep(origin, request, what);
    }

    /// What comes next waits, from this timestamp on; before its record is appended.
    pub(super) fn begin_waiting(&mut self, timestamp_ms: u64) {
        self.is_direct = false;
        if self.open.items.is_empty() {
            self.open.first_ms = timestamp_ms;
            self.open.start = self.journal.mark_position();
        }
    }

    fn keep(&mut self, origin: Origin, request: &mut Request<'_>, what: What) {
        let packed = self.open.batch.pack(request, Large::Move);
        // Its connection goes on meanwhile, unless it was stopped before: then the origin says so.
        self.open.items.push_back(Item { origin, packed, what });
    }

    fn append(
        &mut self,
        request: &Request<'_>,
        shards: &Shards,
        proposal: Proposal,
        how: AppendAs,
        (is_applied, ends_group): (bool, bool),
    ) {
        let last_flags = if ends_group { 0 } else { record_flag::GROUP };
        if let [key] = request.keys {
            let shard = shards.number_of(key.slot) as u16;
            let part = (shard, Selection::All, last_flags);
            return self.append_part(request, part, proposal, how, is_applied);
        }
        if request.keys.is_empty() {
            // Every shard of the core, whole.
            let last = shards.iter().count() - 1;
            for (ordinal, shard) in shards.iter().enumerate() {
                let number = shards.number_of(shard.slots().start) as u16;
                let flags = if ordinal == last { last_flags } else { record_flag::GROUP };
                let part = (number, Selection::All, flags);
                self.append_part(request, part, proposal, how, is_applied);
            }
            return;
        }
        if let Some(shard) = only_shard(request.keys, shards) {
            return self.append_part(request, (shard, Selection::All, last_flags), proposal, how, is_applied);
        }
        let mut parts = std::mem::take(&mut self.parts);
        split(request, shards, &mut parts);
        let mut rest = &parts[..];
        while let Some(&(shard, _)) = rest.first() {
            let count = rest.iter().take_while(|&&(other, _)| other == shard).count();
            let (part, others) = rest.split_at(count);
            rest = others;
            let selection =
                if part.len() == request.keys.len() { Selection::All } else { Selection::Keys(part) };
            let flags = if rest.is_empty() { last_flags } else { record_flag::GROUP };
            let part = (shard, selection, flags);
            self.append_part(request, part, proposal, how, is_applied);
        }
        self.parts = parts;
    }

    /// Appends what concerns one shard.
    #[inline]
    fn append_part(
        &mut self,
        request: &Request<'_>,
        (shard, selection, flags): (u16, Selection<'_>, u8),
        proposal: Proposal,
        how: AppendAs,
        is_applied: bool,
    ) {
        let (kind, transaction) = match how {
            AppendAs::Entry => (Kind::Entry, None),
            AppendAs::Prepare(transaction) => (Kind::Prepare, Some(transaction)),
            AppendAs::Finish(transaction) => {
                let record = self.record(shard, Kind::Finish, flags, proposal);
                self.note_appended(shard, record.index, is_applied);
                return self.append_outcome(&record, transaction, true);
            }
        };
        let record = self.record(shard, kind, flags, proposal);
        self.note_appended(shard, record.index, is_applied);
        self.journal.append(&record, |out| {
            if let Some(transaction) = transaction {
                out.extend_from_slice(&transaction.to_le_bytes());
            }
            payload::write(request, selection, &proposal.settings, out);
        });
    }

    /// The header of a shard's next entry.
    fn record(&mut self, shard: u16, kind: Kind, flags: u8, proposal: Proposal) -> Record {
        let state = self.journal.state_mut(shard);
        Record {
            shard,
            kind,
            flags,
            index: state.last_index.get() + 1,
            term: state.term.get(),
            timestamp_ms: proposal.timestamp_ms,
            seed: proposal.seed,
            fragments: 0,
        }
    }

    fn note_appended(&mut self, shard: u16, index: u64, is_applied: bool) {
        if is_applied {
            self.has_open_applied = true;
            self.applied[usize::from(shard)] = index;
        } else {
            self.open.indexes.push((shard, index));
        }
    }

    fn take_room(&mut self, room_bytes: u64) {
        self.room_bytes = self.room_bytes.saturating_sub(room_bytes);
    }

    /// Appends what became of a prepared part that an earlier start left, and that is applied if it happened. That is
    /// decided elsewhere: without this record the next start finds the same.
    pub fn append_finish(&mut self, shard: u16, transaction: u64, has_happened: bool, proposal: Proposal) {
        let record = self.record(shard, Kind::Finish, 0, proposal);
        self.applied[usize::from(shard)] = record.index;
        self.append_outcome(&record, transaction, has_happened);
    }

    fn append_outcome(&mut self, record: &Record, transaction: u64, has_happened: bool) {
        self.journal.append(record, |out| {
            out.extend_from_slice(&transaction.to_le_bytes());
            out.push(u8::from(has_happened));
        });
    }

    /// Appends the records of several commands as one group; they take `room_bytes` at most.
    pub(super) fn append_all(
        &mut self,
        writes: &mut [OwnedRequest],
        shards: &Shards,
        proposal: Proposal,
        (how, is_applied): (AppendAs, bool),
        room_bytes: u64,
    ) {
        let count = writes.len();
        for (index, write) in writes.iter_mut().enumerate() {
            let ends_group = index + 1 == count;
            self.append(&write.view(), shards, proposal, how, (is_applied, ends_group));
        }
        self.take_room(room_bytes);
    }

    /// Keeps writes whose records were appended until they are committed.
    pub(super) fn wait_for_commit(&mut self, origin: Origin, what: What) {
        self.keep(origin, &mut OwnedRequest::empty().view(), what);
    }

    /// Keeps what was prepared, to be answered once it is durable.
    pub(super) fn keep_prepared(
        &mut self,
        origin: Origin,
        transaction: TransactionId,
        start: Position,
        writes: Vec<OwnedRequest>,
    ) {
        self.wants_open_sync = true;
        let prepared = Prepared { origin, transaction, writes, start, end: None, is_answered: false };
        self.prepared.push(prepared);
    }

    /// Whether something of `shard` is prepared of which the journal does not say yet whether it happens: a snapshot of it
    /// would lack that.
    pub fn has_prepared(&self, shards: &Shards, shard: usize) -> bool {
        let mut writes = self.prepared.iter().flat_map(|prepared| &prepared.writes);
        // What has no keys concerns every shard.
        writes.any(|write| {
            write.keys.is_empty() || write.keys.iter().any(|key| shards.number_of(key.slot) == shard)
        })
    }

    /// The most room that the records take that say that `writes` happen.
    pub(super) fn finish_room_bytes(&self, writes: &[OwnedRequest]) -> u64 {
        let shards = self.journal.states().len();
        let parts = |write: &OwnedRequest| match write.keys.len() {
            0 => shards,
            keys => keys.min(shards),
        };
        writes.iter().map(parts).sum::<usize>() as u64 * record_room_bytes(FINISH_BYTES)
    }

    /// Whether records that take `room_bytes` at most, of which the reserve may be a part, can be applied at once.
    pub(super) fn is_direct(&self, room_bytes: u64) -> bool {
        self.is_direct && room_bytes <= self.room_bytes
    }

    /// What was prepared of a transaction that happens.
    pub(super) fn take_prepared(&mut self, transaction: TransactionId) -> Vec<OwnedRequest> {
        let prepared = self.prepared.iter_mut().find(|prepared| prepared.transaction == transaction);
        std::mem::take(&mut prepared.expect("only what was prepared is finished").writes)
    }

    /// Keeps a piece of what a transaction is to write here.
    pub(super) fn stage(&mut self, transaction: TransactionId, request: &mut Request<'_>, shards: &Shards) {
        let place = self.staged.iter().position(|&(other, _)| other == transaction).unwrap_or_else(|| {
            self.staged.push((transaction, BTreeMap::new()));
            self.staged.len() - 1
        });
        let writes = &mut self.staged[place].1;
        let mut parts = std::mem::take(&mut self.parts);
        split(request, shards, &mut parts);
        for part in parts.chunk_by(|(shard, _), (other, _)| shard == other) {
            let write = writes.entry(part[0].0).or_insert_with(|| {
                OwnedRequest::select(request, std::iter::once(0), std::iter::empty(), Large::Copy)
            });
            write.add_keys(request, part.iter().map(|&(_, ordinal)| ordinal as usize));
        }
        self.parts = parts;
    }

    /// `writes`, or what was staged if there are none.
    pub(super) fn or_staged(
        &mut self,
        transaction: TransactionId,
        writes: Vec<OwnedRequest>,
    ) -> Vec<OwnedRequest> {
        let place = self.staged.iter().position(|&(other, _)| other == transaction);
        match place.filter(|_| writes.is_empty()) {
            Some(place) => self.staged.swap_remove(place).1.into_values().collect(),
            None => writes,
        }
    }

    /// A transaction is over everywhere, or never happened.
    pub(super) fn forget_prepared(&mut self, transaction: TransactionId) {
        self.staged.retain(|&(staged, _)| staged != transaction);
        self.prepared.retain(|prepared| prepared.transaction != transaction);
    }

    /// The next one to be told that what it prepared is durable, or why it never will be.
    pub(super) fn next_prepared(&mut self) -> Option<(Origin, Option<Refusal>)> {
        let refusal = self.refusal.filter(|refusal| refusal.is_final());
        let synced_to = self.journal.synced_to();
        let prepared = self.prepared.iter_mut().find(|prepared| {
            let is_durable = prepared.end.is_some_and(|end| end <= synced_to);
            !prepared.is_answered && (is_durable || refusal.is_some())
        })?;
        prepared.is_answered = true;
        Some((prepared.origin, refusal))
    }

    /// Whether ticks can be appended: nobody waits for them, so they wait for room. A poisoned journal takes nothing, and
    /// keeps nothing.
    pub fn has_tick_room(&self) -> bool {
        self.room_bytes > ROOM_RESERVE_BYTES / 2 || self.journal.is_poisoned()
    }

    /// Appends a tick that was applied.
    pub fn append_tick(&mut self, shard: u16, timestamp_ms: u64) {
        let proposal = Proposal { timestamp_ms, seed: 0, settings: Settings::default() };
        let record = self.record(shard, Kind::Tick, 0, proposal);
        if self.has_uncommitted() {
            self.open.indexes.push((shard, record.index));
        } else {
            self.applied[usize::from(shard)] = record.index;
        }
        self.journal.append(&record, |_| {});
        self.take_room(record_room_bytes(0));
    }

    /// Shard time as the journal knows it.
    pub fn time_ms(&mut self, shard: u16) -> u64 {
        self.journal.state_mut(shard).time_ms.get()
    }

    /// The next group whose block is committed, to be applied.
    pub(super) fn take_committed(&mut self) -> Option<Group> {
        let committed = self.committed_to();
        self.closed.front().filter(|group| group.end <= committed)?;
        self.is_partly_applied = false;
        self.closed.pop_front()
    }

    /// Takes a group back that was applied.
    pub(super) fn end_committed(&mut self, group: Group) {
        for &(shard, index) in &group.indexes {
            // Ticks and prepared parts of a block that nothing waited for may come here late.
            let applied = &mut self.applied[usize::from(shard)];
            *applied = index.max(*applied);
        }
        self.recycle(group);
    }

    /// Takes a group back of which only the first items were applied.
    pub(super) fn put_committed_back(&mut self, group: Group) {
        self.is_partly_applied = true;
        self.closed.push_front(group);
    }

    /// Whether shards are ahead of [`Self::applied`]: no snapshot for the journal may begin.
    pub fn is_partly_applied(&self) -> bool {
        self.is_partly_applied
    }

    /// After a failure: the next group that will never be committed.
    pub(super) fn take_lost(&mut self) -> Option<(Group, Refusal)> {
        let refusal = self.refusal.filter(|_| self.journal.is_poisoned())?;
        let group = self.closed.pop_front().or_else(|| {
            let is_empty = self.open.items.is_empty();
            (!is_empty).then(|| std::mem::take(&mut self.open))
        });
        Some((group?, refusal))
    }

    /// Takes a served group's memory back.
    fn recycle(&mut self, mut group: Group) {
        const SPARE_GROUPS: usize = 8;
        group.batch.clear();
        group.items.clear();
        group.indexes.clear();
        if self.spare.len() < SPARE_GROUPS {
            self.spare.push(group);
        }
    }

    /// Whether the log needs a turn though nothing completes: large entries to go on with, what has room now, or
    /// somebody who is to learn that the journal is settled.
    pub fn has_work(&self) -> bool {
        (self.can_stream() && self.refusal.is_none())
            || self.can_resume()
            || self.can_append_replicated()
            || (self.is_settling && self.is_settled())
    }

    /// CONFIG RESETSTAT.
    pub fn reset_stats(&mut self) {
        self.report.sync_times.reset();
        self.report.syncs_delayed = 0;
    }

    /// The report, with what is known only now.
    pub fn report(&self) -> PersistenceReport {
        let mut report = self.report.clone();
        self.segments.report(&self.journal, &mut report);
        report.is_poisoned = self.journal.is_poisoned();
        report.buffer_bytes = self.journal.unwritten_bytes() as u64;
        report.syncs_under_way = u64::from(self.syncing.is_some());
        report.has_write_failed = self.refusal.is_some();
        report
    }

    /// The file of a segment.
    fn file_of(&self, sequence: u32) -> File {
        self.segments.file(sequence)
    }
}

/// The shard of all `keys`, if it is one.
fn only_shard(keys: &[KeyHash], shards: &Shards) -> Option<u16> {
    let (first, rest) = keys.split_first()?;
    let shard = shards.number_of(first.slot);
    rest.iter().all(|key| shards.number_of(key.slot) == shard).then_some(shard as u16)
}

/// The ordinal numbers of a request's keys with their shards, in the order of shards and keys.
fn split(request: &Request<'_>, shards: &Shards, parts: &mut Vec<(u16, u32)>) {
    parts.clear();
    let numbered = request.keys.iter().enumerate();
    parts.extend(numbered.map(|(ordinal, key)| (shards.number_of(key.slot) as u16, ordinal as u32)));
    parts.sort_unstable();
}
