//! Reading entries back from the journal, for followers that lack what is not in memory any more.
//!
//! Invariants:
//!
//! - An entry is told by its index and term; whatever else lies at those places is passed over.
//! - What this start has not written, or what was trimmed, is not found: then the follower gets a snapshot.

use std::ops::ControlFlow;

use duva_net::io::{FileTask, Io};
use duva_persist::{
    format::Kind,
    reader::{LogReader, ReadOutcome},
};
use duva_raft::{ENTRY_OVERHEAD_BYTES, Entry, EntryKind, Fetch};

use super::{COMMAND_BYTES_MAX, Group, Groups};
use crate::core::{
    log::replicated::{TAG_COMMAND, TAG_TICK},
    node::Node,
    tickets::Ticket,
};

/// Bytes of the journal that are read at once.
const PIECE_BYTES: usize = 1 << 20;

/// Entries that are being read.
pub(super) struct Fetching {
    number: u32,
    shard: u16,
    fetch: Fetch,
    reader: LogReader,
    entries: Vec<Entry>,
    bytes: usize,
}

/// What an entry is to Raft that has a record of this kind and timestamp.
pub(super) fn kind_of(kind: Kind, timestamp_ms: u64) -> EntryKind {
    match kind {
        Kind::Membership => EntryKind::Membership,
        Kind::Tick if timestamp_ms == 0 => EntryKind::Empty,
        Kind::Tick => EntryKind::Data(TAG_TICK),
        _ => EntryKind::Data(TAG_COMMAND),
    }
}

impl Node {
    /// Begins to read what a follower lacks.
    pub(super) fn fetch(&mut self, groups: &mut Groups, group: &mut Group, fetch: Fetch, io: &mut impl Io) {
        let place = self.log.as_ref().and_then(|log| log.entry_position(group.shard, fetch.from));
        let Some((position, epoch)) = place else {
            return group.raft.fetched(fetch.peer, fetch.from, None);
        };
        groups.counts.fetches += 1;
        groups.next_read = groups.next_read.wrapping_add(1);
        let reader = LogReader::new(self.core as u16, epoch, group.shard, position, 2 * COMMAND_BYTES_MAX);
        let fetching = Fetching {
            number: groups.next_read,
            shard: group.shard,
            fetch,
            reader,
            entries: Vec::new(),
            bytes: 0,
        };
        self.read_journal(&fetching, PIECE_BYTES, io);
        groups.fetching.push(fetching);
    }

    fn read_journal(&self, fetching: &Fetching, length_bytes: usize, io: &mut impl Io) {
        let position = fetching.reader.position();
        let name = duva_persist::names::segment(self.core as u16, position.sequence());
        let path = self.journal_directory().join(name);
        let task = FileTask::Read { path, offset_bytes: position.offset().into(), length_bytes };
        io.file_task(Ticket::GroupRead(fetching.number).number(), task);
    }

    /// A piece of the journal was read, or could not be.
    pub(super) fn fetch_done(
        &mut self,
        groups: &mut Groups,
        number: u32,
        bytes: &[u8],
        result: Result<(), i32>,
        io: &mut impl Io,
    ) {
        let Some(place) = groups.fetching.iter().position(|fetching| fetching.number == number) else {
            return;
        };
        let mut fetching = groups.fetching.swap_remove(place);
        let shard = usize::from(fetching.shard);
        let (Some(log), Some(group)) = (&self.log, &mut groups.by_shard[shard]) else { return };
        let Fetching { fetch, reader, entries, bytes: taken, .. } = &mut fetching;
        let before = reader.position();
        let outcome = match result {
            Ok(()) => reader.read(bytes, log.written_to(), |found| {
                let (record, next) = (found.record, fetch.from + entries.len() as u64);
                if record.index != next || group.raft.term_at(next) != Some(record.term) {
                    return ControlFlow::Continue(());
                }
                let Some(payload) = found.payload else { return ControlFlow::Break(()) };
                *taken += payload.len() + ENTRY_OVERHEAD_BYTES;
                entries.push(Entry {
                    index: record.index,
                    term: record.term,
                    timestamp_ms: record.timestamp_ms,
                    seed: record.seed,
                    kind: kind_of(record.kind, record.timestamp_ms),
                    payload: payload.into(),
                });
                let is_enough = *taken >= fetch.bytes_max || next + 1 >= fetch.to;
                if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            }),
            Err(_) => ReadOutcome::Gone,
        };
        if let ReadOutcome::NeedMore(needed_bytes) = outcome
            && (reader.position() != before || needed_bytes > bytes.len())
        {
            self.read_journal(&fetching, needed_bytes.max(PIECE_BYTES), io);
            return groups.fetching.push(fetching);
        }
        let Fetching { fetch, entries, shard, .. } = fetching;
        let entries = (!entries.is_empty()).then_some(entries);
        group.raft.fetched(fetch.peer, fetch.from, entries);
        groups.mark_dirty(shard);
    }
}
