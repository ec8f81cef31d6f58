//! The logs of a core's Raft groups, as a start finds them: what is known to be committed is applied while it is read, the
//! rest is kept for the groups.
//!
//! Invariants:
//!
//! - Only what the journals say to be committed is applied here, in the order of each log and as its group would have: the
//!   leader's first entry of a term does nothing, and a membership is Raft's.
//! - Of what is applied a few entries stay in memory for followers, the newest, within a bound for all of the core's shards. All
//!   others leave their terms and memberships.

use std::collections::{BTreeMap, VecDeque};

use duva_persist::{
    format::Kind,
    recovery::{Entry, EntryKind},
};
use duva_raft::{ENTRY_OVERHEAD_BYTES, Membership};

use super::{LogEntry, ShardLog, replay::Replayer};
use crate::core::commit::Executor;

/// The most bytes of applied entries that are kept for followers, of all of a core's shards.
const TAIL_BYTES_MAX: u32 = 4 << 20;

/// The part of a segment's length that they may have.
const TAILS_A_SEGMENT: u32 = 16;

/// The logs of a core's shards while they are read.
pub(super) struct ReplicatedLogs<'a> {
    replayer: Replayer<'a>,
    logs: BTreeMap<u16, Reading>,
    /// Bytes of applied entries that are kept of each.
    tail_bytes_max: usize,
    applied: u64,
}

/// A shard's log while it is read.
struct Reading {
    log: ShardLog,
    /// Entries up to here are committed.
    committed_to: u64,
    /// The newest.
    entries: VecDeque<LogEntry>,
    /// Bytes of those that are applied.
    tail_bytes: usize,
}

/// What was read.
pub(super) struct Found {
    /// In order of shard.
    pub(super) logs: Vec<ShardLog>,
    /// How many entries were applied, how many were not, and the bytes of those.
    pub(super) applied: u64,
    pub(super) kept: u64,
    pub(super) kept_bytes: u64,
}

impl<'a> ReplicatedLogs<'a> {
    /// Logs of which nothing was read yet, each with the index up to which it is known to be committed. Segments have this
    /// length.
    pub(super) fn new(
        executor: &'a mut Executor,
        logs: Vec<(ShardLog, u64)>,
        segment_len_bytes: u32,
    ) -> Self {
        let tail_bytes = (segment_len_bytes / TAILS_A_SEGMENT).min(TAIL_BYTES_MAX);
        let reading = |(log, committed_to): (ShardLog, u64)| {
            (log.shard, Reading { log, committed_to, entries: VecDeque::new(), tail_bytes: 0 })
        };
        Self {
            tail_bytes_max: tail_bytes as usize / logs.len().max(1),
            replayer: Replayer::new(executor),
            logs: logs.into_iter().map(reading).collect(),
            applied: 0,
        }
    }

    /// The index behind which entries of a shard are wanted; `None`: it is another core's.
    pub(super) fn wants(&self) -> BTreeMap<u16, u64> {
        self.logs.iter().map(|(&shard, reading)| (shard, reading.log.snapshot_index)).collect()
    }

    /// Takes the next entry of one of the shards.
    ///
    /// # Errors
    /// A sentence that names shard and index of an entry that cannot be applied.
    pub(super) fn take(&mut self, entry: &Entry<'_>) -> Result<(), String> {
        let Some(reading) = self.logs.get_mut(&entry.shard) else {
            return Err(format!("shard {} is another core's", entry.shard));
        };
        let is_committed = entry.index <= reading.committed_to;
        if is_committed {
            match entry.kind {
                EntryKind::Membership => {}
                EntryKind::Tick if entry.timestamp_ms == 0 => {}
                EntryKind::Entry | EntryKind::Tick => self.replayer.take(entry)?,
            }
            reading.log.applied.index = entry.index;
            self.applied += 1;
        }
        let kept = LogEntry {
            index: entry.index,
            term: entry.term,
            timestamp_ms: entry.timestamp_ms,
            seed: entry.seed,
            kind: match entry.kind {
                EntryKind::Entry => Kind::Entry,
                EntryKind::Tick => Kind::Tick,
                EntryKind::Membership => Kind::Membership,
            },
            payload: entry.payload.into(),
        };
        if is_committed {
            reading.tail_bytes += cost_bytes(&kept);
        }
        reading.entries.push_back(kept);
        // Until the first that is not applied, all that are there are.
        while is_committed && reading.tail_bytes > self.tail_bytes_max {
            let Some(oldest) = reading.entries.pop_front() else { break };
            reading.tail_bytes -= cost_bytes(&oldest);
            drop_applied(&mut reading.log, &oldest)?;
        }
        Ok(())
    }

    /// All was read.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub(super) fn finish(mut self) -> Result<Found, String> {
        self.replayer.flush()?;
        let (mut kept, mut kept_bytes) = (0, 0);
        let mut end = |reading: Reading| {
            let Reading { mut log, entries, .. } = reading;
            for entry in entries.iter().filter(|entry| entry.index > log.applied.index) {
                kept += 1;
                kept_bytes += cost_bytes(entry) as u64;
            }
            log.entries = entries.into();
            log
        };
        let logs = self.logs.into_values().map(&mut end).collect();
        Ok(Found { logs, applied: self.applied, kept, kept_bytes })
    }
}

fn cost_bytes(entry: &LogEntry) -> usize {
    entry.payload.len() + ENTRY_OVERHEAD_BYTES
}

/// An applied entry, the oldest that is there, leaves memory.
fn drop_applied(log: &mut ShardLog, entry: &LogEntry) -> Result<(), String> {
    let applied = &mut log.applied;
    if applied.terms.last().is_none_or(|(_, term)| *term != entry.term) {
        applied.terms.push((entry.index, entry.term));
    }
    if entry.kind == Kind::Membership {
        let membership = Membership::decode(&entry.payload).map_err(|error| {
            format!(
                "entry {} of shard {} names replicas that cannot be read: {error:?}",
                entry.index, log.shard
            )
        })?;
        applied.memberships.push((entry.index, membership));
    }
    applied.dropped_to = entry.index;
    Ok(())
}
