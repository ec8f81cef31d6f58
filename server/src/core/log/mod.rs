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
//! - **Nothing early.** A write that waits is seen by nobody before its block is committed; a read behind a write of
//!   its own connection waits with it, other reads see what is committed.
//! - **Prefix.** A block is committed only when every earlier one is.
//! - **No second try.** After a failed write or fsync nothing is journalled any more: writes are refused, and
//!   those that wait get an error, never a false acknowledgement.

pub mod payload;
mod pump;
mod segments;
mod stream;

use std::{collections::VecDeque, path::PathBuf};

use duva_engine::{Settings, Shards, command::Handler};
use duva_net::io::{File, Io};
use duva_persist::{
    format::{Kind, Position, record_flag},
    journal::{Journal, Sync},
    record::{Record, record_room_bytes},
};

use super::{
    batch::{Batch, Packed, Work},
    commit::Executor,
    locks::TransactionId,
    node::Origin,
    persistence_report::PersistenceReport,
    request::{OwnedRequest, Request},
};
use crate::config::AppendFsync;
use payload::Selection;
use segments::Segments;
pub(super) use stream::Stream;

/// Room in prepared segments below which no write is applied at once: what the log may still have to append.
const ROOM_RESERVE_BYTES: u64 = 256 << 10;

/// Bytes that wait to be written past which connections wait.
const UNWRITTEN_BYTES_MAX: usize = 16 << 20;

/// Bytes of the payload that says that a prepared part is applied.
const FINISH_BYTES: usize = size_of::<u64>() + 1;

/// Large arguments of so many bytes in one request are journalled over several turns.
pub(super) const STREAM_BYTES_MIN: usize = 256 << 10;

/// Why writes are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A write or fsync failed with errno: for good.
    Poisoned(i32),
    /// No segment could be prepared, with errno: until one can.
    NoSegment(i32),
}

impl Refusal {
    /// Whether it holds until the server is started anew.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Poisoned(_))
    }

    /// The reply to a write, as Redis words it.
    pub fn reply(self) -> String {
        let (Self::Poisoned(errno) | Self::NoSegment(errno)) = self;
        let error = std::io::Error::from_raw_os_error(errno);
        format!("-MISCONF Errors writing to the AOF file: {error}\r\n")
    }
}

/// What a record is about.
#[derive(Clone, Copy)]
pub struct Proposal {
    /// The entry's timestamp.
    pub timestamp_ms: u64,
    /// The entry's randomness.
    pub seed: u64,
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
    pub(super) items: Vec<Item>,
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
    prepared: Vec<Prepared>,
    /// The fsync under way, and when it began, in monotonic nanoseconds.
    syncing: Option<(Sync, u64)>,
    /// Whether commits wait for an fsync that takes too long.
    is_held: bool,
    refusal: Option<Refusal>,
    /// Whether the open block has a snapshot's mark, and where the last closed block with one ends.
    has_open_mark: bool,
    marks_end: Position,
    /// Whether a sync is wanted whatever the policy says.
    wants_sync: bool,
    /// Whether writes were applied whose records are not written.
    has_unwritten_applied: bool,
    /// Whether a write may be applied at once, as of this turn.
    is_direct: bool,
    /// Bytes that may still be appended by writes that are applied at once.
    direct_room_bytes: u64,
    /// Index of the last applied entry, by shard number.
    applied: Vec<u64>,
    /// Keys of a command by shard; kept for its allocation.
    parts: Vec<(u16, u32)>,
    scratch: Vec<u8>,
    report: PersistenceReport,
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
    /// Segments of earlier starts that may serve again, and bytes in all of them that count as journal.
    pub earlier_bytes: u64,
}

impl Log {
    /// A log over `options.journal`.
    pub fn new(core: usize, options: LogOptions) -> Self {
        let LogOptions { journal, directory, segment_len_bytes, fsync, applied, earlier_bytes } = options;
        Self {
            journal,
            segments: Segments::new(core, directory, segment_len_bytes, earlier_bytes),
            fsync,
            closed: VecDeque::new(),
            open: Group::default(),
            spare: Vec::new(),
            streams: VecDeque::new(),
            prepared: Vec::new(),
            syncing: None,
            is_held: false,
            refusal: None,
            has_open_mark: false,
            marks_end: Position::default(),
            wants_sync: false,
            has_unwritten_applied: false,
            is_direct: false,
            direct_room_bytes: 0,
            applied,
            parts: Vec::new(),
            scratch: Vec::new(),
            report: PersistenceReport::default(),
        }
    }

    /// Uses another policy from the next turn on.
    pub fn set_fsync(&mut self, fsync: AppendFsync) {
        self.fsync = fsync;
        self.is_direct = false;
    }

    /// Why writes are refused now, if they are.
    #[inline]
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// Whether a write may be applied at once.
    #[inline]
    pub fn is_direct(&self) -> bool {
        self.is_direct
    }

    /// Whether it is known if writes can be journalled: the first segment is there, or could not be prepared.
    pub fn is_decided(&self) -> bool {
        self.refusal.is_some() || self.journal.ready_room_bytes() > 0
    }

    /// Whether anything waits for a commit.
    #[inline]
    pub fn has_waiting(&self) -> bool {
        !self.open.items.is_empty() || !self.closed.is_empty()
    }

    /// Whether so much waits that connections should.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.journal.unwritten_bytes() > UNWRITTEN_BYTES_MAX
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
        let waiting = self.closed.iter().chain([&self.open]).find(|group| !group.items.is_empty());
        let next = self.journal.mark_position();
        let waiting = waiting.map_or(next, |group| group.start.min(next));
        self.prepared.iter().map(|prepared| prepared.start).fold(waiting, Position::min)
    }

    /// Appends that a snapshot of `shard` up to `index` is durable.
    pub fn append_mark(&mut self, shard: u16, index: u64) {
        let term = self.journal.state_mut(shard).last_term.get();
        let mark = Record { index, term, ..Record::new(Kind::SnapshotMark, shard) };
        self.journal.append(&mark, |_| {});
        self.has_open_mark = true;
    }

    /// Ends the segment that is written, if the next one is ready: what comes from now on is there.
    pub fn roll(&mut self, now_ms: u64) {
        if self.journal.ready_room_bytes() >= self.segments.len_bytes() {
            self.journal.roll(now_ms);
        }
    }

    /// The term of a shard's last entry.
    pub fn last_term(&mut self, shard: u16) -> u64 {
        self.journal.state_mut(shard).last_term.get()
    }

    /// Lets everything appended so far be synced soon, whatever the policy: see [`Self::is_settled`].
    pub fn settle(&mut self) {
        self.has_open_mark = true;
        self.wants_sync = true;
    }

    /// Whether every mark, and everything before the last call of [`Self::settle`], is durable.
    pub fn is_settled(&self) -> bool {
        !self.has_open_mark && self.journal.synced_to() >= self.marks_end
    }

    /// Lets go of segments wholly before `keep_from`.
    pub fn trim(&mut self, keep_from: Position, io: &mut impl Io) {
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

    /// Appends the records of a command that is applied at once: nothing waits before it.
    #[inline]
    pub fn append_applied(
        &mut self,
        request: &Request<'_>,
        shards: &Shards,
        settings: &Settings,
        proposal: Proposal,
    ) {
        debug_assert!(!self.has_waiting());
        self.append(request, shards, settings, proposal, AppendAs::Entry, (true, true));
        if self.direct_room_bytes == 0 {
            self.is_direct = false;
        }
    }

    /// Appends the records of a write that waits for its block, and keeps it.
    pub(super) fn append_waiting(
        &mut self,
        origin: Origin,
        handler: Handler,
        request: &mut Request<'_>,
        shards: &Shards,
        settings: &Settings,
        proposal: Proposal,
    ) {
        self.begin_waiting(proposal.timestamp_ms);
        self.append(request, shards, settings, proposal, AppendAs::Entry, (false, true));
        self.keep(origin, request, What::Write(handler, proposal));
    }

    /// Keeps work that reads until everything before it is applied.
    pub(super) fn wait(&mut self, origin: Origin, request: &mut Request<'_>, what: What, now_ms: u64) {
        let visible_ms = self.visible_ms(now_ms);
        self.begin_waiting(visible_ms);
        self.keep(origin, request, what);
    }

    /// What comes next waits, from this timestamp on.
    pub(super) fn begin_waiting(&mut self, timestamp_ms: u64) {
        self.is_direct = false;
        if self.open.items.is_empty() {
            self.open.first_ms = timestamp_ms;
            self.open.start = self.journal.mark_position();
        }
    }

    fn keep(&mut self, origin: Origin, request: &mut Request<'_>, what: What) {
        let packed = self.open.batch.pack(request, super::request::Large::Move);
        // Its connection goes on meanwhile, unless it was stopped before: then the origin says so.
        self.open.items.push(Item { origin, packed, what });
    }

    fn append(
        &mut self,
        request: &Request<'_>,
        shards: &Shards,
        settings: &Settings,
        proposal: Proposal,
        how: AppendAs,
        (is_applied, ends_group): (bool, bool),
    ) {
        let last_flags = if ends_group { 0 } else { record_flag::GROUP };
        if let [key] = request.keys {
            let shard = shards.number_of(key.slot) as u16;
            let part = (shard, Selection::All, last_flags);
            return self.append_part(request, part, settings, proposal, how, is_applied);
        }
        if request.keys.is_empty() {
            // Every shard of the core, whole.
            let last = shards.iter().count() - 1;
            for (ordinal, shard) in shards.iter().enumerate() {
                let number = shards.number_of(shard.slots().start) as u16;
                let flags = if ordinal == last { last_flags } else { record_flag::GROUP };
                let part = (number, Selection::All, flags);
                self.append_part(request, part, settings, proposal, how, is_applied);
            }
            return;
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
            self.append_part(request, part, settings, proposal, how, is_applied);
        }
        self.parts = parts;
    }

    /// Appends what concerns one shard.
    #[inline]
    fn append_part(
        &mut self,
        request: &Request<'_>,
        (shard, selection, flags): (u16, Selection<'_>, u8),
        settings: &Settings,
        proposal: Proposal,
        how: AppendAs,
        is_applied: bool,
    ) {
        let (kind, transaction) = match how {
            AppendAs::Entry => (Kind::Entry, None),
            AppendAs::Prepare(transaction) => (Kind::Prepare, Some(transaction)),
            AppendAs::Finish(transaction) => {
                let record = self.record(shard, Kind::Finish, flags, proposal);
                self.note_appended(shard, record.index, record_room_bytes(FINISH_BYTES), is_applied);
                return self.append_outcome(&record, transaction, true);
            }
        };
        let record = self.record(shard, kind, flags, proposal);
        let len_bytes_max = payload::len_bytes_max(request, selection);
        self.note_appended(shard, record.index, record_room_bytes(len_bytes_max), is_applied);
        if len_bytes_max <= self.journal.payload_bytes_max() {
            self.journal.append(&record, |out| {
                if let Some(transaction) = transaction {
                    out.extend_from_slice(&transaction.to_le_bytes());
                }
                payload::write(request, selection, settings, out);
            });
            return;
        }
        // Long, but of small arguments: it is in memory already, so that its pieces follow one another at once.
        let mut part = stream::Part::new(&mut self.journal, shard, transaction);
        while part.append(&mut self.journal, &mut self.scratch, request, selection, settings) {}
        part.finish(&mut self.journal, &record);
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

    fn note_appended(&mut self, shard: u16, index: u64, len_bytes: u64, is_applied: bool) {
        if is_applied {
            self.has_unwritten_applied = true;
            self.applied[usize::from(shard)] = index;
            self.direct_room_bytes = self.direct_room_bytes.saturating_sub(len_bytes);
        } else {
            self.open.indexes.push((shard, index));
        }
    }

    /// Appends what became of a prepared part that an earlier start left, and that is applied if it happened.
    pub fn append_finish(&mut self, shard: u16, transaction: u64, has_happened: bool, proposal: Proposal) {
        let record = self.record(shard, Kind::Finish, 0, proposal);
        self.note_appended(shard, record.index, record_room_bytes(FINISH_BYTES), true);
        self.append_outcome(&record, transaction, has_happened);
    }

    fn append_outcome(&mut self, record: &Record, transaction: u64, has_happened: bool) {
        self.journal.append(record, |out| {
            out.extend_from_slice(&transaction.to_le_bytes());
            out.push(u8::from(has_happened));
        });
    }

    /// Appends the records of several commands as one group.
    pub(super) fn append_all(
        &mut self,
        writes: &mut [OwnedRequest],
        executor: &Executor,
        proposal: Proposal,
        how: AppendAs,
        is_applied: bool,
    ) {
        let count = writes.len();
        for (index, write) in writes.iter_mut().enumerate() {
            let ends_group = index + 1 == count;
            let (shards, settings) = (&executor.shards, &executor.settings);
            self.append(&write.view(), shards, settings, proposal, how, (is_applied, ends_group));
        }
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
        self.wants_sync = true;
        let prepared = Prepared { origin, transaction, writes, start, end: None, is_answered: false };
        self.prepared.push(prepared);
    }

    /// Whether something of `shard` is prepared: a snapshot of it would lack what the journal may say later.
    pub fn has_prepared(&self, shards: &Shards, shard: usize) -> bool {
        let mut keys =
            self.prepared.iter().flat_map(|prepared| &prepared.writes).flat_map(|write| &write.keys);
        keys.any(|key| shards.number_of(key.slot) == shard)
    }

    /// What was prepared of a transaction that happens.
    pub(super) fn take_prepared(&mut self, transaction: TransactionId) -> Vec<OwnedRequest> {
        let prepared = self.prepared.iter_mut().find(|prepared| prepared.transaction == transaction);
        std::mem::take(&mut prepared.expect("only what was prepared is finished").writes)
    }

    /// A transaction is over everywhere, or never happened.
    pub(super) fn forget_prepared(&mut self, transaction: TransactionId) {
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

    /// Appends a tick that was applied.
    pub fn append_tick(&mut self, shard: u16, timestamp_ms: u64) {
        let record = self.record(shard, Kind::Tick, 0, Proposal { timestamp_ms, seed: 0 });
        if self.has_waiting() {
            self.open.indexes.push((shard, record.index));
        } else {
            self.applied[usize::from(shard)] = record.index;
        }
        self.journal.append(&record, |_| {});
    }

    /// The next group whose block is committed, to be applied.
    pub(super) fn take_committed(&mut self) -> Option<Group> {
        let committed = self.committed_to();
        self.closed.front().filter(|group| group.end <= committed)?;
        let group = self.closed.pop_front()?;
        for &(shard, index) in &group.indexes {
            // Ticks and prepared parts of a block that nothing waited for may come here late.
            let applied = &mut self.applied[usize::from(shard)];
            *applied = index.max(*applied);
        }
        Some(group)
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
    pub(super) fn recycle(&mut self, mut group: Group) {
        const SPARE_GROUPS: usize = 8;
        group.batch.clear();
        group.items.clear();
        group.indexes.clear();
        if self.spare.len() < SPARE_GROUPS {
            self.spare.push(group);
        }
    }

    /// Whether the log needs turns of its own: large entries to go on with.
    pub fn has_work(&self) -> bool {
        self.can_stream() && self.refusal.is_none()
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

/// The ordinal numbers of a request's keys with their shards, in the order of shards and keys.
fn split(request: &Request<'_>, shards: &Shards, parts: &mut Vec<(u16, u32)>) {
    parts.clear();
    let numbered = request.keys.iter().enumerate();
    parts.extend(numbered.map(|(ordinal, key)| (shards.number_of(key.slot) as u16, ordinal as u32)));
    parts.sort_unstable();
}
