//! Entries for followers that lack many: read back from the journal, where they are not in memory any more.
//!
//! All shards of a core lie in one journal, and a follower that was away lacks entries of many of them, from about the same
//! time on. So the journal is read for all at once: whoever has waited longest, or lacks most, is looked for, from a little before
//! its place on, and what others lack of what is passed on the way goes to them.
//!
//! Invariants:
//!
//! - An entry is told by its index and term; whatever else lies at those places is passed over.
//! - What this start has not written, or what was trimmed, is not found: then the follower gets a snapshot.
//! - One piece is read at a time. Each pass brings the follower that it is for on, by an entry at least or to a snapshot.
//! - Only so much is on its way, whether it was in memory or read: see [`super::pace`].
//! - What is found of a piece leaves in the turn in which it was read: no more of it is in memory here.

use std::ops::ControlFlow;

use duva_net::io::{FileTask, Io};
use duva_persist::{
    format::{Kind, Position},
    reader::{LogReader, LogRecord, ReadOutcome},
};
use duva_raft::{ENTRY_OVERHEAD_BYTES, Entry, EntryKind, Fetch, ProgressState, ReplicaId};

use super::{
    COMMAND_BYTES_MAX, Group, Groups,
    pace::{Fate, LastSent},
};
use crate::core::{
    log::replicated::{TAG_COMMAND, TAG_TICK},
    node::Node,
    tickets::Ticket,
};

/// Bytes of the journal that are read at once: the core looks at them, and sends what is in them, in one turn.
const PIECE_BYTES: usize = 256 << 10;

/// How far before the place of who has waited longest a pass begins if another one waits for that.
const EARLIER_BYTES: u32 = PIECE_BYTES as u32;

/// What a follower waits for, and what was found of it in the last piece.
pub(super) struct Fetching {
    fetch: Fetch,
    /// When it was asked for, among all.
    order: u64,
    /// Nothing of it lies before this, fragments aside; `None`: the journal's marks say from where on it is looked for.
    after: Option<Position>,
    entries: Vec<Entry>,
    bytes: usize,
    /// Whether the pass has seen its next entry, and not all fragments of that.
    is_missed: bool,
}

/// Where a follower's next entry is looked for if it goes on where it was left: marks may lie far apart.
pub(super) struct Fetched {
    peer: ReplicaId,
    next: u64,
    after: Position,
}

/// A pass over the journal.
pub(super) struct JournalPass {
    /// The read that is under way.
    number: u32,
    /// Whom it is for.
    order: u64,
    reader: LogReader,
}

/// An order that nobody has.
const NOBODY: u64 = u64::MAX;

/// Bytes of entries in memory that are sent to such followers in one turn.
const MEMORY_BYTES_A_TURN: usize = 64 << 10;

/// What followers were sent of a piece, or of what is in memory.
#[derive(Default)]
struct Sent {
    bytes: usize,
    last: Vec<LastSent>,
    /// Shards whose groups were told something.
    told: Vec<u16>,
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

impl Group {
    /// Takes a record of the journal along for the followers that lack it.
    fn collect(&mut self, LogRecord { record, payload }: LogRecord<'_>) {
        for fetching in &mut self.fetching {
            let next = fetching.next();
            if record.index != next || fetching.is_enough() || self.raft.term_at(next) != Some(record.term) {
                continue;
            }
            let Some(payload) = payload else {
                fetching.is_missed = true;
                continue;
            };
            fetching.bytes += payload.len() + ENTRY_OVERHEAD_BYTES;
            fetching.entries.push(Entry {
                index: record.index,
                term: record.term,
                timestamp_ms: record.timestamp_ms,
                seed: record.seed,
                kind: kind_of(record.kind, record.timestamp_ms),
                payload: payload.into(),
            });
        }
    }

    /// Gives Raft what was found in a pass that has come to `end`, and nothing to the one of this order if that was looked for
    /// in vain, or, without an end, is not in the journal. Adds to `sent` whom it gave something.
    fn hand_over(&mut self, order: u64, end: Option<Position>, sent: &mut Sent) {
        let is_done = |fetching: &mut Fetching| {
            let was_in_vain = fetching.order == order && fetching.entries.is_empty();
            // It may lie behind its mark still.
            let is_looked_for_again = was_in_vain && end.is_some() && fetching.after.take().is_some();
            !fetching.entries.is_empty() || was_in_vain && !is_looked_for_again
        };
        for fetching in self.fetching.extract_if(.., is_done) {
            let (peer, next) = (fetching.fetch.peer, fetching.next());
            self.fetched.retain(|fetched| fetched.peer != peer);
            // An entry that was missed has its first fragments before that.
            if let Some(after) = end.filter(|_| !fetching.is_enough() && !fetching.is_missed) {
                self.fetched.push(Fetched { peer, next, after });
            }
            let entries = (!fetching.entries.is_empty()).then_some(fetching.entries);
            sent.told.push(self.shard);
            if self.raft.fetched(peer, fetching.fetch.from, entries) {
                sent.last.push((self.shard, peer, next - 1));
                sent.bytes += fetching.bytes;
            }
        }
        self.fetching.iter_mut().for_each(|fetching| fetching.is_missed = false);
    }
}

impl Fetching {
    /// The next entry.
    fn next(&self) -> u64 {
        self.fetch.from + self.entries.len() as u64
    }

    /// Whether this pass need not bring more of it.
    fn is_enough(&self) -> bool {
        self.next() >= self.fetch.to || self.bytes >= self.fetch.bytes_max
    }
}

impl Group {
    /// The link to a follower broke: it will be asked where the logs agree.
    pub(super) fn drop_fetches(&mut self, peer: ReplicaId) {
        for fetching in self.fetching.extract_if(.., |fetching| fetching.fetch.peer == peer) {
            self.raft.fetched(peer, fetching.fetch.from, None);
        }
    }
}

impl Groups {
    /// A follower lacks entries. What it waited for before is of no use any more.
    pub(super) fn fetch(&mut self, group: &mut Group, fetch: Fetch) {
        group.fetching.retain(|earlier| earlier.fetch.peer != fetch.peer);
        let goes_on = |fetched: &&Fetched| (fetched.peer, fetched.next) == (fetch.peer, fetch.from);
        let after = group.fetched.iter().find(goes_on).map(|fetched| fetched.after);
        self.next_order += 1;
        group.fetching.push(Fetching {
            fetch,
            order: self.next_order,
            after,
            entries: Vec::new(),
            bytes: 0,
            is_missed: false,
        });
        self.has_fetches = true;
    }

    /// Gives all groups what was found for them; see [`Group::hand_over`].
    fn hand_over(&mut self, order: u64, end: Option<Position>) {
        let mut sent = Sent::default();
        for group in self.by_shard.iter_mut().flatten() {
            group.hand_over(order, end, &mut sent);
        }
        self.note_sent(sent);
    }

    fn note_sent(&mut self, sent: Sent) {
        for &shard in &sent.told {
            self.mark_dirty(shard);
        }
        if !sent.last.is_empty() {
            self.pace.note_sent(self.now_ns, sent.bytes, sent.last);
        }
    }

    /// Sends what followers wait for and is in memory, who has waited longest first. Says whether more of it waits.
    fn send_from_memory(&mut self) -> bool {
        let mut sent = Sent::default();
        let bytes_max = MEMORY_BYTES_A_TURN.min(self.pace.room_bytes());
        let has_more = loop {
            let groups = self.by_shard.iter_mut().flatten();
            let places = groups.flat_map(|group| {
                let Group { fetching, raft, shard, .. } = &mut **group;
                let is_there = |it: &(usize, &Fetching)| raft.is_cached(it.1.fetch.from);
                let first = fetching.iter().enumerate().filter(is_there).min_by_key(|(_, it)| it.order);
                first.map(|(place, it)| (it.order, *shard, place))
            });
            let Some((_, shard, place)) = places.min() else { break false };
            if sent.bytes >= bytes_max {
                break true;
            }
            let group = self.by_shard[usize::from(shard)].as_mut().expect("it was looked at above");
            let Fetch { peer, from, bytes_max: useful_bytes, .. } = group.fetching.swap_remove(place).fetch;
            let entries = group.raft.batch(from, useful_bytes.min(bytes_max));
            let bytes = entries.iter().map(Entry::cost_bytes).sum::<usize>();
            let last = from + entries.len() as u64 - 1;
            sent.told.push(shard);
            if group.raft.fetched(peer, from, Some(entries)) {
                sent.bytes += bytes;
                sent.last.push((shard, peer, last));
            }
        };
        self.note_sent(sent);
        has_more
    }

    /// Learns what followers have acknowledged.
    fn learn_pace(&mut self) {
        let Self { pace, by_shard, now_ns, .. } = self;
        pace.learn(*now_ns, |&(shard, peer, index)| {
            let group = by_shard[usize::from(shard)].as_ref();
            let progress = group.and_then(|group| group.raft.progress(peer));
            match progress.filter(|progress| progress.state() == ProgressState::Replicate) {
                Some(progress) if progress.match_index() < index => Fate::OnItsWay,
                Some(_) => Fate::Acknowledged,
                None => Fate::Unknown,
            }
        });
    }

    /// When followers are sent more at the latest.
    pub(super) fn next_pass_ns(&self) -> u64 {
        if self.has_fetches { self.pace.next_ns() } else { u64::MAX }
    }
}

impl Node {
    /// Sends followers what they lack and is in memory, and begins to read the rest, if nothing is being read.
    pub(super) fn begin_pass(&mut self, groups: &mut Groups, io: &mut impl Io) {
        groups.learn_pace();
        if !groups.has_fetches || groups.pace.room_bytes() == 0 {
            return;
        }
        let has_more = groups.send_from_memory();
        groups.has_backlog |= has_more;
        if groups.pass.is_some() {
            return;
        }
        let place_of = |shard: u16, fetching: &Fetching| {
            let (mark, epoch) = self.log.as_ref()?.entry_position(shard, fetching.fetch.from)?;
            Some((fetching.after.map_or(mark, |after| after.max(mark)), epoch))
        };
        let groups_there = groups.by_shard.iter().flatten();
        let waiting: Vec<_> = groups_there
            .flat_map(|group| group.fetching.iter().map(move |fetching| (group, fetching)))
            .filter(|(group, fetching)| !group.raft.is_cached(fetching.fetch.from))
            .map(|(group, fetching)| (group.shard, fetching))
            .map(|(shard, fetching)| (fetching.order, shard, place_of(shard, fetching)))
            .collect();
        // Every other pass is for who lacks most: it brings that one to where others are, and then one pass serves them all.
        let longest = waiting.iter().min_by_key(|(order, ..)| *order);
        let lowest = waiting.iter().min_by_key(|(.., place)| *place);
        let chosen = if groups.counts.fetches.is_multiple_of(2) { longest } else { lowest };
        let Some(&(order, shard, place)) = chosen else {
            groups.has_fetches = has_more;
            return;
        };
        let Some((place, epoch)) = place else { return groups.hand_over(order, None) };
        let is_close = |other: &Position| {
            other.sequence() == place.sequence() && other.offset() + EARLIER_BYTES >= place.offset()
        };
        let places = waiting.iter().filter_map(|(.., place)| place.map(|(place, _)| place));
        let from = places.filter(is_close).min().unwrap_or(place);
        groups.counts.fetches += 1;
        groups.next_read = groups.next_read.wrapping_add(1);
        let reader = LogReader::new(self.core as u16, epoch, shard, from, 2 * COMMAND_BYTES_MAX);
        let pass = JournalPass { number: groups.next_read, order, reader };
        self.read_journal(&pass, PIECE_BYTES, io);
        groups.pass = Some(pass);
    }

    fn read_journal(&self, pass: &JournalPass, length_bytes: usize, io: &mut impl Io) {
        let position = pass.reader.position();
        let name = duva_persist::names::segment(self.core as u16, position.sequence());
        let path = self.journal_directory().join(name);
        let task = FileTask::Read { path, offset_bytes: position.offset().into(), length_bytes };
        io.file_task(Ticket::GroupRead(pass.number).number(), task);
    }

    /// A piece of the journal was read, or could not be.
    pub(super) fn take_piece(
        &mut self,
        groups: &mut Groups,
        number: u32,
        bytes: &[u8],
        result: Result<(), i32>,
        io: &mut impl Io,
    ) {
        let Some(mut pass) = groups.pass.take_if(|pass| pass.number == number) else { return };
        let Some(log) = &self.log else { return };
        let before = pass.reader.position();
        let by_shard = &mut groups.by_shard;
        let outcome = match result {
            Ok(()) => pass.reader.read(bytes, log.written_to(), |found| {
                if let Some(Some(group)) = by_shard.get_mut(usize::from(found.record.shard)) {
                    group.collect(found);
                }
                ControlFlow::Continue(())
            }),
            Err(_) => ReadOutcome::Gone,
        };
        let mut waiting = by_shard.iter().flatten().flat_map(|group| &group.fetching);
        let lacks = |fetching: &Fetching| fetching.entries.is_empty() && !fetching.is_missed;
        if waiting.any(|fetching| fetching.order == pass.order && lacks(fetching))
            && let ReadOutcome::NeedMore(needed_bytes) = outcome
            && (pass.reader.position() != before || needed_bytes > bytes.len())
        {
            groups.hand_over(NOBODY, Some(pass.reader.position()));
            self.read_journal(&pass, needed_bytes.max(PIECE_BYTES), io);
            groups.pass = Some(pass);
            return;
        }
        groups.hand_over(pass.order, Some(pass.reader.position()));
    }
}
