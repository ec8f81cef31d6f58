//! The journal as the log of the shards' Raft groups.
//!
//! A group hands out one write after another; its entries become records here, in that order, and the group is told how
//! far the disk is. Invariants:
//!
//! - Writes are appended in the order in which they came, whatever their group; what has no room waits, with everything
//!   behind it.
//! - A group is told that a write is written, or synced, once all of its records are, and all before them.
//! - An entry's place in the journal is kept until it is applied: the journal is never trimmed beyond it.
//! - Of a shard that has left, nothing is needed behind its newest snapshot. The next segment's header says that its log
//!   ends there; the journal is not trimmed before that.

use std::collections::VecDeque;

use duva_persist::{
    entry_index::EntryIndex,
    format::{Kind, Position},
    journal::Fragments,
    record::{Record, record_room_bytes},
};
use duva_raft::{Durability, Entry, EntryKind, HardState, Write};

use super::{KEPT_BYTES_MAX, Log, ROOM_RESERVE_BYTES, Refusal, committed::Committed};

/// The tag of a raft entry that holds a command.
pub(in crate::core) const TAG_COMMAND: u8 = 1;

/// The tag of a raft entry that moves shard time on.
pub(in crate::core) const TAG_TICK: u8 = 2;

/// The number that stands for a snapshot that takes a shard's place, among those of writes.
pub(in crate::core) const INSTALLED: u64 = u64::MAX;

/// Bytes of fragments appended in one turn: its one write is to be short.
const FRAGMENT_BYTES_A_TURN: usize = 4 << 20;

/// A write that is not appended as a whole.
struct Held {
    shard: u16,
    write: Write,
    /// How many of its entries are appended.
    entries: usize,
    /// The entry that is appended in pieces, and how many of its bytes are.
    pieces: Option<(Fragments, usize)>,
    /// The snapshot that is recorded instead of entries: index and term.
    installed: Option<(u64, u64)>,
}

/// A block in which the last records of some writes are.
struct Closed {
    end: Position,
    writes: usize,
}

/// Where entries lie that are not applied.
#[derive(Clone, Copy)]
struct Unapplied {
    /// The last entry of a write.
    index: u64,
    /// None of its records lies before this.
    start: Position,
}

/// What the log knows of Raft's writes.
#[derive(Default)]
pub(super) struct Replicated {
    held: VecDeque<Held>,
    held_bytes: usize,
    /// Shard and number of writes that are appended and not synced, in order.
    appended: VecDeque<(u16, u64)>,
    /// How many of them are in the open block, at the end, and which closed blocks hold the others.
    open: usize,
    closed: VecDeque<Closed>,
    /// Of how many blocks the groups know that they are written, and how many writes those hold.
    written: usize,
    written_writes: usize,
    /// The list of the last arrival.
    spare: Vec<(u16, u64)>,
    /// By shard.
    unapplied: Vec<VecDeque<Unapplied>>,
    /// By shard: where its entries lie.
    places: Vec<EntryIndex>,
    /// The segment that was open when a shard left last: later ones say so.
    forgotten_in: Option<u32>,
    /// What the journal says to be committed.
    pub(super) committed: Committed,
}

impl Replicated {
    /// The journal has begun with these entries, in segment `first`: shard and index of each.
    pub(super) fn begun_with(entries: &[(u16, u64)], first: u32, committed: Committed) -> Self {
        let mut replicated = Self { committed, ..Self::default() };
        for &(shard, index) in entries {
            replicated.make_place(shard);
            let start = Position::new(first, 0);
            replicated.unapplied[usize::from(shard)].push_back(Unapplied { index, start });
        }
        replicated
    }

    /// Makes room for what is known of a shard.
    fn make_place(&mut self, shard: u16) {
        let place = usize::from(shard);
        if self.unapplied.len() <= place {
            self.unapplied.resize_with(place + 1, VecDeque::new);
            self.places.resize_with(place + 1, EntryIndex::new);
        }
    }

    /// A block was closed that ends at `end`.
    pub(super) fn close(&mut self, end: Position) {
        if self.open > 0 {
            self.closed.push_back(Closed { end, writes: std::mem::take(&mut self.open) });
        }
    }

    /// No record of an entry that is not applied lies before this.
    pub(super) fn unapplied_from(&self) -> Option<Position> {
        self.unapplied.iter().filter_map(|shard| shard.front()).map(|first| first.start).min()
    }

    /// Bytes that wait for room.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }
}

fn cost_bytes(write: &Write) -> usize {
    write.entries.iter().map(Entry::cost_bytes).sum()
}

impl Log {
    /// The journal is the log of Raft groups, whose copies count when `durability` says.
    pub fn set_replicated(&mut self, durability: Durability) {
        self.is_replicated = true;
        self.syncs_entries = durability == Durability::Fsync;
        self.set_fsync(self.fsync);
    }

    /// Takes what a shard's group hands out to be written. An empty list comes back for the write's, if that is not needed any more.
    pub(in crate::core) fn replicate(&mut self, shard: u16, write: Write) -> Vec<Entry> {
        let replicated = &mut self.replicated;
        replicated.make_place(shard);
        replicated.held_bytes += cost_bytes(&write);
        replicated.held.push_back(Held { shard, write, entries: 0, pieces: None, installed: None });
        self.append_replicated()
    }

    /// Takes note that a snapshot up to `index` takes the place of a shard, behind all that was taken before.
    ///
    /// The tick takes the place of whatever the journal has at that index and behind it.
    pub(in crate::core) fn record_installed(&mut self, shard: u16, index: u64, term: u64) {
        let write = Write { number: INSTALLED, hard_state: None, entries: Vec::new() };
        self.replicated.held.push_back(Held {
            shard,
            write,
            entries: 0,
            pieces: None,
            installed: Some((index, term)),
        });
        self.append_replicated();
    }

    /// Appends what waits, as far as there is room. The list of the last write that is appended comes back, emptied.
    pub(in crate::core) fn append_replicated(&mut self) -> Vec<Entry> {
        let mut budget_bytes = FRAGMENT_BYTES_A_TURN;
        let mut list = Vec::new();
        while let Some(mut held) = self.replicated.held.pop_front() {
            if !self.append_held(&mut held, &mut budget_bytes) {
                self.replicated.held.push_front(held);
                return list;
            }
            let Held { shard, write, .. } = held;
            self.replicated.held_bytes -= cost_bytes(&write);
            self.replicated.appended.push_back((shard, write.number));
            self.replicated.open += 1;
            list = write.entries;
            list.clear();
        }
        self.tell_committed();
        list
    }

    /// Appends the rest of a write; false: not all of it has room.
    fn append_held(&mut self, held: &mut Held, budget_bytes: &mut usize) -> bool {
        let shard = held.shard;
        if let Some(state) = held.write.hard_state {
            if !self.has_replicated_room(size_of::<u64>()) {
                return false;
            }
            held.write.hard_state = None;
            self.append_hard_state(shard, state);
        }
        if let Some((index, term)) = held.installed {
            if !self.has_replicated_room(0) {
                return false;
            }
            let tick = Record { index, term, ..Record::new(Kind::Tick, shard) };
            self.journal.append(&tick, |_| {});
            self.take_room(record_room_bytes(0));
            self.append_mark(shard, index, term);
            self.wants_open_sync = true;
        }
        while let Some(entry) = held.write.entries.get(held.entries) {
            let len_bytes = entry.payload.len();
            if held.pieces.is_none() && len_bytes <= self.journal.payload_bytes_max() {
                if !self.has_replicated_room(len_bytes) {
                    return false;
                }
                self.note_unapplied(shard, entry.index);
                let record = record_of(shard, entry);
                self.journal.append(&record, |out| out.extend_from_slice(&entry.payload));
                self.take_room(record_room_bytes(len_bytes));
            } else if !self.append_pieces(shard, entry, &mut held.pieces, budget_bytes) {
                return false;
            }
            self.replicated.committed.note(record_room_bytes(len_bytes));
            held.entries += 1;
        }
        self.wants_open_sync |= self.syncs_entries;
        true
    }

    fn append_hard_state(&mut self, shard: u16, state: HardState) {
        let record = Record { term: state.term, ..Record::new(Kind::HardState, shard) };
        let vote = state.vote.map_or(0, |replica| replica.0);
        self.journal.append(&record, |out| out.extend_from_slice(&vote.to_le_bytes()));
        self.take_room(record_room_bytes(size_of::<u64>()));
        self.wants_open_sync = true;
    }

    /// Appends the next pieces of a large entry; false: not all of it has room in this turn.
    fn append_pieces(
        &mut self,
        shard: u16,
        entry: &Entry,
        pieces: &mut Option<(Fragments, usize)>,
        budget_bytes: &mut usize,
    ) -> bool {
        let last_bytes_max = Fragments::last_bytes_max(&self.journal);
        let piece_bytes_max = self.journal.payload_bytes_max();
        loop {
            let offset = pieces.as_ref().map_or(0, |(_, offset)| *offset);
            let rest = &entry.payload[offset..];
            let is_last = rest.len() <= last_bytes_max;
            let length = if is_last { rest.len() } else { rest.len().min(piece_bytes_max) };
            if !self.has_replicated_room(length + size_of::<u64>() * 3) || *budget_bytes == 0 {
                return false;
            }
            *budget_bytes = budget_bytes.saturating_sub(length);
            let (mut fragments, _) = pieces.take().unwrap_or_else(|| {
                self.note_unapplied(shard, entry.index);
                (Fragments::begin(&mut self.journal, shard), 0)
            });
            if is_last {
                fragments.finish(&mut self.journal, &record_of(shard, entry), rest);
                self.take_room(record_room_bytes(length + size_of::<u64>() * 3));
                return true;
            }
            fragments.push(&mut self.journal, &rest[..length]);
            self.take_room(record_room_bytes(length));
            *pieces = Some((fragments, offset + length));
        }
    }

    /// Whether a record with so long a payload has room now.
    pub(super) fn has_replicated_room(&self, len_bytes: usize) -> bool {
        record_room_bytes(len_bytes) + ROOM_RESERVE_BYTES / 2 <= self.room_bytes
    }

    fn note_unapplied(&mut self, shard: u16, index: u64) {
        let start = self.journal.mark_position();
        self.replicated.places[usize::from(shard)].note(index, self.journal.block_position());
        let unapplied = &mut self.replicated.unapplied[usize::from(shard)];
        match unapplied.back_mut() {
            // One place for what lies close together.
            Some(last) if last.start == start && last.index < index => last.index = index,
            _ => unapplied.push_back(Unapplied { index, start }),
        }
    }

    /// The epoch of this start.
    pub fn epoch(&self) -> u64 {
        self.journal.epoch()
    }

    /// Whether nothing is journalled any more, until the next start.
    pub(in crate::core) fn is_lost(&self) -> bool {
        self.journal.is_poisoned()
    }

    /// Whether there is no room on the disk, and nothing more is to be proposed: because what waits for some `is_stuck`, or is as
    /// much as may wait.
    pub(in crate::core) fn has_no_room(&self, is_stuck: bool) -> bool {
        matches!(self.refusal, Some(Refusal::NoRoom(_)))
            && (is_stuck || self.replicated.held_bytes() > KEPT_BYTES_MAX)
    }

    /// Where the entry is read from, and in which epoch; `None`: this start has not written it, or it was trimmed.
    pub(in crate::core) fn entry_position(&self, shard: u16, index: u64) -> Option<(Position, u64)> {
        let places = self.replicated.places.get(usize::from(shard))?;
        Some((places.position_of(index)?, self.journal.epoch()))
    }

    /// Everything before this is written.
    pub(in crate::core) fn written_to(&self) -> Position {
        self.journal.written_to()
    }

    /// The journal goes before this.
    pub(super) fn forget_places(&mut self, keep_from: Position) {
        for places in &mut self.replicated.places {
            places.trim(keep_from);
        }
    }

    /// A group applied its entries up to `index`.
    pub(in crate::core) fn note_applied(&mut self, shard: u16, index: u64) {
        self.applied[usize::from(shard)] = index;
        if let Some(unapplied) = self.replicated.unapplied.get_mut(usize::from(shard)) {
            while unapplied.front().is_some_and(|first| first.index <= index) {
                unapplied.pop_front();
            }
        }
    }

    /// Nobody needs what the journal has of a shard behind `index`, an entry of `term` that its newest snapshot ends with.
    /// None of it is on its way.
    pub(in crate::core) fn forget_behind(&mut self, shard: u16, index: u64, term: u64) {
        debug_assert!(self.replicated.held.iter().all(|held| held.shard != shard));
        self.note_applied(shard, index);
        if let Some(unapplied) = self.replicated.unapplied.get_mut(usize::from(shard)) {
            unapplied.clear();
            self.replicated.places[usize::from(shard)] = EntryIndex::new();
        }
        let state = self.journal.state_mut(shard);
        if state.last_index.get() != index {
            state.last_index = index.into();
            state.last_term = term.into();
            self.replicated.committed.forget(shard);
            self.replicated.forgotten_in = self.journal.segments().last();
        }
    }

    /// Nobody needs anything that the disk holds of a shard, its snapshot neither: the next header says that there is nothing, and
    /// only behind that the file may go.
    pub(in crate::core) fn forget_all(&mut self, shard: u16) {
        self.forget_behind(shard, 0, 0);
        let state = self.journal.state_mut(shard);
        (state.snapshot_index, state.snapshot_term) = (0.into(), 0.into());
        self.replicated.forgotten_in = self.journal.segments().last();
    }

    /// Whether a start would not know yet that a shard has left.
    pub(super) fn is_forgetting(&self) -> bool {
        self.replicated.forgotten_in.is_some_and(|open| self.journal.segments().last() <= Some(open))
    }

    /// The next write of which a group is to learn that it is written, or synced.
    pub(in crate::core) fn next_arrived(&mut self) -> Option<Arrived> {
        let (written_to, synced_to) = (self.journal.written_to(), self.journal.synced_to());
        let replicated = &mut self.replicated;
        if replicated.closed.front().is_some_and(|first| first.end <= synced_to) {
            let Closed { writes: count, .. } = replicated.closed.pop_front()?;
            replicated.written = replicated.written.saturating_sub(1);
            replicated.written_writes = replicated.written_writes.saturating_sub(count);
            let mut writes = std::mem::take(&mut replicated.spare);
            writes.extend(replicated.appended.drain(..count));
            return Some(Arrived { writes, is_synced: true });
        }
        let next = replicated.closed.get(replicated.written).filter(|next| next.end <= written_to)?;
        let first = replicated.written_writes;
        replicated.written += 1;
        replicated.written_writes += next.writes;
        let mut writes = std::mem::take(&mut replicated.spare);
        writes.extend(replicated.appended.range(first..replicated.written_writes));
        Some(Arrived { writes, is_synced: false })
    }

    /// Takes the memory of an arrival back.
    pub(in crate::core) fn end_arrival(&mut self, mut arrived: Arrived) {
        arrived.writes.clear();
        self.replicated.spare = arrived.writes;
    }

    /// Whether Raft's writes wait for room that is there.
    pub(super) fn can_append_replicated(&self) -> bool {
        let first = self.replicated.held.front();
        first.is_some() && !self.journal.is_poisoned() && self.room_bytes > 2 * ROOM_RESERVE_BYTES
    }
}

/// Writes that have reached the disk.
pub(in crate::core) struct Arrived {
    /// Shard and number of each.
    pub(in crate::core) writes: Vec<(u16, u64)>,
    /// Whether they are synced, or only written.
    pub(in crate::core) is_synced: bool,
}

/// An entry's record. What begins a leader's term is a tick at time 0, which moves nothing.
fn record_of(shard: u16, entry: &Entry) -> Record {
    let (kind, timestamp_ms) = match entry.kind {
        EntryKind::Empty => (Kind::Tick, 0),
        EntryKind::Membership => (Kind::Membership, 0),
        EntryKind::Data(TAG_TICK) => (Kind::Tick, entry.timestamp_ms),
        EntryKind::Data(_) => (Kind::Entry, entry.timestamp_ms),
    };
    Record {
        index: entry.index,
        term: entry.term,
        timestamp_ms,
        seed: entry.seed,
        ..Record::new(kind, shard)
    }
}
