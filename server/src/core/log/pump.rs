//! What the log does in every turn: segments, the turn's write, fsyncs, and the commits that follow.

use duva_net::io::{Clock, Io};
use duva_persist::{format::Position, journal::Write};

use super::{Group, KEPT_BYTES_LOW, KEPT_BYTES_MAX, Log, ROOM_RESERVE_BYTES, Refusal};
use crate::{config::AppendFsync, core::tickets::Ticket};

/// How old the oldest unsynced byte may be before an fsync starts (everysec).
const SYNC_AFTER_MS: u64 = 500;

/// Writes end where a page of the page cache does.
const PAGE_BYTES: usize = 4096;

/// How long the disk is left alone after a write for which it had no room, in nanoseconds.
const RETRY_NS: u64 = 500_000_000;

/// How old it may be before commits wait for that fsync (everysec).
const HOLD_AFTER_MS: u64 = 1_000;

/// A write for which the disk had no room. Segments have theirs, but where a file system copies what is written, or keeps
/// quotas.
pub(super) struct Stuck {
    write: Write,
    errno: i32,
    /// When it is tried again, in monotonic nanoseconds.
    retry_ns: u64,
}

impl Log {
    /// At the begin of a turn: whether its writes may be applied at once depends on the time that has passed.
    pub fn begin_turn(&mut self, now_ms: u64) {
        self.update_hold(now_ms);
        self.is_direct &= !self.is_held;
        // Whoever waits for it sees it in this turn.
        self.is_settling &= !self.is_settled();
    }

    fn update_hold(&mut self, now_ms: u64) {
        let is_held = self.fsync == AppendFsync::EverySecond
            && self.journal.oldest_unsynced_ms().is_some_and(|oldest_ms| now_ms >= oldest_ms + HOLD_AFTER_MS);
        if is_held && !self.is_held {
            self.report.syncs_delayed += 1;
            tracing::warn!("the disk is slow: an fsync takes more than half a second, commits wait for it");
        }
        self.is_held = is_held;
    }

    /// Up to where the journal is committed.
    pub(super) fn committed_to(&self) -> Position {
        match self.fsync {
            AppendFsync::Always => self.journal.synced_to(),
            AppendFsync::EverySecond if self.is_held => self.journal.synced_to(),
            AppendFsync::EverySecond | AppendFsync::No => self.journal.written_to(),
        }
    }

    /// Writes what this turn has appended, and starts the fsync that is due. With `is_replicated` this turn's messages ask other nodes
    /// for what is synced here meanwhile.
    pub fn pump(&mut self, io: &mut impl Io, clock: Clock, now_ms: u64, is_replicated: bool) {
        let is_written = self.fsync == AppendFsync::Always;
        self.segments.prepare(&mut self.journal, io, clock.monotonic_ns, is_written);
        // In `always` the next write waits for the fsync under way: one block then serves everything that came meanwhile.
        if self.fsync != AppendFsync::Always || self.syncing.is_none() {
            self.write(io, clock.monotonic_ns, now_ms);
        }
        self.start_sync(io, clock.monotonic_ns, now_ms, is_replicated);
        // Writing may have used up a prepared segment.
        self.segments.prepare(&mut self.journal, io, clock.monotonic_ns, is_written);
    }

    /// After the commits of a turn: what the next turn's writes may do.
    pub fn end_turn(&mut self, now_ms: u64) {
        self.update_hold(now_ms);
        self.room_bytes = self.journal.ready_room_bytes();
        let failure = self.segments.failure();
        self.is_short &= failure.is_some();
        let is_short = self.is_short || self.room_bytes <= ROOM_RESERVE_BYTES;
        let stuck = self.stuck.as_ref().map(|stuck| stuck.errno);
        self.refusal = match self.refusal {
            Some(Refusal::Poisoned(errno)) => Some(Refusal::Poisoned(errno)),
            _ => stuck.or(failure.filter(|_| is_short)).map(Refusal::NoRoom),
        };
        self.is_direct = self.fsync != AppendFsync::Always
            && self.refusal.is_none()
            && !self.is_held
            && self.journal.unwritten_bytes() == 0
            && !self.has_waiting();
        let bound = if self.is_full { KEPT_BYTES_LOW } else { KEPT_BYTES_MAX };
        self.is_full = self.kept_bytes() > bound;
    }

    fn write(&mut self, io: &mut impl Io, now_ns: u64, now_ms: u64) {
        if self.journal.is_poisoned() || self.stuck.as_ref().is_some_and(|stuck| stuck.retry_ns > now_ns) {
            return;
        }
        self.close_block(now_ms);
        let mut stuck = self.stuck.take().map(|stuck| stuck.write);
        let was_stuck = stuck.is_some();
        while let Some(mut write) = stuck.take().or_else(|| self.journal.next_write()) {
            let file = self.file_of(write.sequence);
            let len = write.bytes.len();
            // Zeros up to the end of the page, where the next write goes: the kernel need not read what a recycled segment
            // held there.
            let padding = (write.offset as usize + len).next_multiple_of(PAGE_BYTES) - write.offset as usize;
            write.bytes.resize(padding, 0);
            let result = io.write_file(file, &write.bytes, u64::from(write.offset));
            write.bytes.truncate(len);
            match result {
                Ok(()) => self.journal.written(write, now_ms),
                Err(errno @ (libc::ENOSPC | libc::EDQUOT)) => {
                    if !was_stuck {
                        let error = std::io::Error::from_raw_os_error(errno);
                        tracing::error!(%error, "the disk has no room for the journal; trying again");
                    }
                    self.stuck = Some(Stuck { write, errno, retry_ns: now_ns + RETRY_NS });
                    return;
                }
                Err(errno) => return self.fail("writing", errno),
            }
        }
        if was_stuck {
            tracing::info!("the disk has room for the journal again");
        }
    }

    fn close_block(&mut self, now_ms: u64) {
        self.journal.close_block(now_ms);
        for prepared in self.prepared.iter_mut().filter(|prepared| prepared.end.is_none()) {
            prepared.end = Some(self.journal.appended_to());
        }
        if std::mem::take(&mut self.has_open_mark) {
            self.marks_end = self.journal.appended_to();
        }
        if std::mem::take(&mut self.wants_open_sync) {
            self.wants_sync_to = self.journal.appended_to();
        }
        if std::mem::take(&mut self.has_open_applied) {
            self.applied_end = self.journal.appended_to();
        }
        self.replicated.close(self.journal.appended_to());
        if !self.open.items.is_empty() {
            self.open.end = self.journal.appended_to();
            let fresh = self.spare.pop().unwrap_or_default();
            let group: Group = std::mem::replace(&mut self.open, fresh);
            self.closed.push_back(group);
        }
    }

    fn start_sync(&mut self, io: &mut impl Io, now_ns: u64, now_ms: u64, is_replicated: bool) {
        if self.syncing.is_some() {
            return;
        }
        let Some(oldest_ms) = self.journal.oldest_unsynced_ms() else { return };
        let is_old = now_ms >= oldest_ms + SYNC_AFTER_MS;
        let is_due = match self.fsync {
            AppendFsync::Always => is_old || !self.closed.is_empty(),
            AppendFsync::EverySecond => is_old,
            AppendFsync::No => false,
        };
        let is_wanted = self.journal.synced_to() < self.wants_sync_to;
        if (is_due || is_wanted)
            && let Some(sync) = self.journal.next_sync()
        {
            let file = self.file_of(sync.sequence);
            self.syncs_first = self.fsync == AppendFsync::Always && !is_replicated;
            io.sync_file(Ticket::JournalSync.number(), file, self.syncs_first);
            self.syncing = Some((sync, now_ns));
        }
    }

    /// Whether an fsync is under way that writers wait for, and that goes before the replies to others.
    #[inline]
    pub fn is_first_syncing(&self) -> bool {
        self.syncs_first && self.syncing.is_some()
    }

    /// The fsync under way has ended.
    pub fn synced(&mut self, result: Result<(), i32>, now_ns: u64, now_ms: u64) {
        let (sync, began_ns) = self.syncing.take().expect("an fsync ends that was begun");
        match result {
            Ok(()) => {
                self.report.sync_times.record(now_ns.saturating_sub(began_ns) / 1_000);
                self.journal.synced(sync);
                // What was held back goes on in this turn: nothing else may come.
                self.update_hold(now_ms);
            }
            Err(errno) => self.fail("syncing", errno),
        }
    }

    /// A file of a segment that nothing needs was removed, or not.
    pub fn segment_removed(&mut self, result: Result<(), i32>, now_ns: u64) {
        self.segments.removed(result, now_ns);
    }

    /// A segment was prepared, or not.
    pub fn segment_prepared(&mut self, sequence: u32, result: Result<(), i32>, now_ns: u64) {
        self.segments.prepared(sequence, result, &mut self.journal, now_ns);
    }

    /// Ends journalling for good.
    fn fail(&mut self, what: &str, errno: i32) {
        let error = std::io::Error::from_raw_os_error(errno);
        let is_ahead = self.is_ahead();
        self.journal.poison();
        self.refusal = Some(Refusal::Poisoned(errno));
        self.stuck = None;
        self.is_direct = false;
        if is_ahead {
            // Memory is ahead of what was and can be acknowledged; serving reads of it would show writes that the
            // next start knows nothing of.
            tracing::error!(%error, "{what} the journal failed before this turn's replies left: stopping");
            std::process::exit(1);
        }
        tracing::error!(%error, "{what} the journal failed: no write is accepted until the server is started anew");
    }

    /// Whether something appended can be written in the next turn, so that the core must not sleep.
    pub fn has_unwritten(&self) -> bool {
        !self.journal.is_poisoned()
            && self.stuck.is_none()
            && self.journal.unwritten_bytes() > 0
            && self.journal.ready_room_bytes() > 0
            && (self.fsync != AppendFsync::Always || self.syncing.is_none())
    }

    /// When the log has something to do if nothing happens before: monotonic nanoseconds.
    pub fn next_ns(&self, clock: Clock, now_ms: u64) -> Option<u64> {
        let sync_ns = self.journal.oldest_unsynced_ms().filter(|_| self.syncing.is_none()).map(|oldest_ms| {
            clock.monotonic_ns + (oldest_ms + SYNC_AFTER_MS).saturating_sub(now_ms).max(1) * 1_000_000
        });
        let sync_ns = sync_ns.filter(|_| self.fsync != AppendFsync::No && !self.journal.is_poisoned());
        let retry_ns = self.stuck.as_ref().map(|stuck| stuck.retry_ns);
        [sync_ns, self.segments.retry_ns(), retry_ns].into_iter().flatten().min()
    }

    /// Makes everything durable before the server ends: true once it is, or cannot be.
    pub fn finish(&mut self) -> bool {
        self.wants_open_sync = true;
        // What there is no room for was never answered: nobody is told of what is not written.
        let has_no_room = self.stuck.is_some() || self.segments.failure().is_some();
        let is_quiet = (self.journal.unwritten_bytes() == 0 || has_no_room)
            && self.journal.oldest_unsynced_ms().is_none()
            && self.syncing.is_none();
        is_quiet || self.journal.is_poisoned()
    }
}
