//! Every entry of a core's shards that counts and that no snapshot covers, once more and in order.
//!
//! The scan has found every checksum right, which records count, and that none is missing; here is only looked for where
//! they lie. Bytes that changed since give an error or a wrong entry, but nothing worse.

use std::collections::{BTreeMap, HashMap};

use zerocopy::{FromBytes, little_endian::U64};

use super::{
    Directory, Scan,
    error::{RecoveryError, ReplayError},
    place,
    segment::{self, BLOCK_HEADER_BYTES},
    walk::{JournalScan, Part, SegmentScan, TRANSACTION_BYTES, transaction},
};
use crate::{
    format::{Fragmented, Kind, Position, RecordHeader, block_flag, record_flag},
    names,
};

/// An entry to apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The shard.
    pub shard: u16,
    /// Its index in the shard's log.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Its timestamp, in milliseconds since the Unix epoch.
    pub timestamp_ms: u64,
    /// Its randomness.
    pub seed: u64,
    /// What is to be done.
    pub kind: EntryKind,
    /// The command, of a transaction's prepared part without the transaction's id, or the membership. Empty for a tick.
    pub payload: &'a [u8],
}

/// What an entry asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// The payload is a command.
    Entry,
    /// Shard time moves on.
    Tick,
    /// The payload says who replicates the shard. Only [`Scan::replay_log`] visits these.
    Membership,
}

/// A transaction's part that was prepared and never finished. The caller journals a finish for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// The transaction.
    pub transaction: u64,
    /// The shard.
    pub shard: u16,
    /// The prepared part's index.
    pub index: u64,
    /// Some journal holds the decision to commit; otherwise nobody has been told that it would be.
    pub commit: bool,
    /// The command, without the transaction's id.
    pub payload: Vec<u8>,
}

/// What a replay came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// How many entries were visited.
    pub entries: u64,
    /// In order of shard and index.
    pub unfinished: Vec<Unfinished>,
}

/// What the replay knows of a shard.
#[derive(Clone)]
struct Cursor {
    /// Entries up to this index are not visited.
    above: u64,
    /// The segment's records of this shard belong to the part that is being replayed.
    active: bool,
    /// Which of the journal's parts that is.
    part: u32,
    /// Where its current run ends.
    run_end: Position,
    /// Records of the run up to this index count.
    live_to: u64,
}

/// A prepared part that waits for its finish.
struct Held {
    index: u64,
    payload: Vec<u8>,
}

impl Scan {
    /// Visits the entries of some shards, each shard's in order: `wants` returns the index above which those of a shard are
    /// visited, that of its snapshot, or nothing if the shard's are not. A transaction's prepared part is visited where it
    /// is committed; parts behind that index that are not finished are returned.
    ///
    /// # Errors
    ///
    /// The visitor's error, which ends the replay, or why the journals cannot be read.
    pub fn replay<D: Directory, E>(
        &self,
        directory: &D,
        wants: impl Fn(u16) -> Option<u64>,
        visit: impl FnMut(Entry<'_>) -> Result<(), E>,
    ) -> Result<Replayed, ReplayError<E>> {
        self.replay_as(false, directory, wants, visit)
    }

    /// Visits the logs of some shards as they finally stand, every index behind `wants` once and in order, so that a replica can
    /// go on from them. It is like [`Scan::replay`], but visits memberships, and, so that no index is missing, a tick of
    /// timestamp 0 for what does nothing where it lies: a transaction's prepared part, a decision, and a finish of what is
    /// dropped.
    ///
    /// # Errors
    ///
    /// The visitor's error, which ends the replay, or why the journals cannot be read.
    pub fn replay_log<D: Directory, E>(
        &self,
        directory: &D,
        wants: impl Fn(u16) -> Option<u64>,
        visit: impl FnMut(Entry<'_>) -> Result<(), E>,
    ) -> Result<Replayed, ReplayError<E>> {
        self.replay_as(true, directory, wants, visit)
    }

    fn replay_as<D: Directory, E>(
        &self,
        whole: bool,
        directory: &D,
        wants: impl Fn(u16) -> Option<u64>,
        visit: impl FnMut(Entry<'_>) -> Result<(), E>,
    ) -> Result<Replayed, ReplayError<E>> {
        let cursor = |above| Cursor { above, active: false, part: 0, run_end: Position(0), live_to: 0 };
        let shards = 0..u16::try_from(self.states.len()).unwrap_or(u16::MAX);
        let mut replay = Replay {
            cursors: shards.map(|shard| wants(shard).map(cursor)).collect(),
            streams: HashMap::new(),
            held: BTreeMap::new(),
            entries: 0,
            whole,
            visit,
            name: String::new(),
        };
        let mut bytes = Vec::new();
        for journals in self.journals.chunk_by(|one, other| one.epoch == other.epoch) {
            // A shard that moved between cores has parts in several journals: all first parts, then all second ones.
            let wanted = |part: &&Part| replay.cursors[usize::from(part.shard)].is_some();
            let parts = journals.iter().flat_map(|journal| &journal.parts);
            let mut ownerships: Vec<u32> = parts.filter(wanted).map(|part| part.ownership).collect();
            ownerships.sort_unstable();
            ownerships.dedup();
            for ownership in ownerships {
                for journal in journals {
                    replay.streams.clear();
                    for segment in &journal.segments {
                        if !replay.activate(journal, segment, ownership) {
                            continue;
                        }
                        replay.name = names::segment(journal.core, segment.sequence);
                        directory
                            .read(&replay.name, &mut bytes)
                            .map_err(|error| RecoveryError::Read { file: replay.name.clone(), error })?;
                        replay.segment(&bytes, journal, segment)?;
                        replay.deactivate(segment);
                    }
                }
            }
        }
        // What became of a part that the snapshot covers is the snapshot's to know: the finish may have been trimmed.
        let covered = |shard: u16, index| {
            replay.cursors[usize::from(shard)].as_ref().is_none_or(|cursor| index <= cursor.above)
        };
        let open = replay.held.into_iter().filter(|((shard, _), held)| !covered(*shard, held.index));
        let unfinished = open.map(|((shard, transaction), held)| Unfinished {
            transaction,
            shard,
            index: held.index,
            commit: self.committed.binary_search(&transaction).is_ok(),
            payload: held.payload,
        });
        let mut unfinished: Vec<_> = unfinished.collect();
        unfinished.sort_by_key(|part| (part.shard, part.index));
        Ok(Replayed { entries: replay.entries, unfinished })
    }
}

struct Replay<V> {
    /// By shard; none: not wanted.
    cursors: Vec<Option<Cursor>>,
    /// The fragments so far of payloads that will be complete.
    streams: HashMap<u64, Vec<u8>>,
    /// By shard and transaction.
    held: BTreeMap<(u16, u64), Held>,
    entries: u64,
    /// Every record of the log is visited, not only what is applied.
    whole: bool,
    visit: V,
    /// The segment's file.
    name: String,
}

impl<V, E> Replay<V>
where
    V: FnMut(Entry<'_>) -> Result<(), E>,
{
    /// Prepares the cursors for a segment; returns whether it holds anything that is wanted.
    fn activate(&mut self, journal: &JournalScan, segment: &SegmentScan, ownership: u32) -> bool {
        let start = place(segment.sequence, 0);
        let mut any = false;
        for shard in &segment.shards {
            let Some(cursor) = &mut self.cursors[usize::from(shard.shard)] else { continue };
            let part = &journal.parts[shard.part as usize];
            if part.ownership == ownership {
                any |= shard.last_index > cursor.above || shard.matters;
                cursor.active = true;
                cursor.part = shard.part;
                cursor.select(part, part.run_at(start));
            }
        }
        if !any {
            self.deactivate(segment);
        }
        any
    }

    fn deactivate(&mut self, segment: &SegmentScan) {
        for shard in &segment.shards {
            if let Some(cursor) = &mut self.cursors[usize::from(shard.shard)] {
                cursor.active = false;
            }
        }
    }

    fn segment(
        &mut self,
        bytes: &[u8],
        journal: &JournalScan,
        segment: &SegmentScan,
    ) -> Result<(), ReplayError<E>> {
        let end = segment.end as usize;
        let mut offset = segment.blocks_from as usize;
        // A segment ends where no header fits behind the last block, if it is not sealed.
        while offset < end {
            let block = segment::block(bytes, offset, journal.core, segment.sequence);
            let Some(block) = block else { return Err(self.changed(offset)) };
            let records_end = (offset + BLOCK_HEADER_BYTES + block.len.get() as usize).min(end);
            let file_end = records_end.min(bytes.len());
            let mut next = offset + BLOCK_HEADER_BYTES;
            while next < records_end {
                let Some((record, payload, record_end)) = segment::record(bytes, next, file_end) else {
                    return Err(self.changed(next));
                };
                if let Some(Some(cursor)) = self.cursors.get_mut(usize::from(record.shard.get()))
                    && cursor.active
                {
                    self.record(journal, place(segment.sequence, next), record, payload)?;
                }
                next = record_end;
            }
            if block.flags.get() & block_flag::SEALED != 0 {
                break;
            }
            offset = segment::block_end(block);
        }
        Ok(())
    }

    /// A record of a shard that is wanted.
    #[inline]
    fn record(
        &mut self,
        journal: &JournalScan,
        at: Position,
        record: &RecordHeader,
        payload: &[u8],
    ) -> Result<(), ReplayError<E>> {
        let (shard, index) = (record.shard.get(), record.index.get());
        let Some(Some(cursor)) = self.cursors.get_mut(usize::from(shard)) else { return Ok(()) };
        let kind = match Kind::from_number(record.kind) {
            Some(kind @ (Kind::Entry | Kind::Tick | Kind::Prepare | Kind::Finish)) => kind,
            Some(kind @ (Kind::Membership | Kind::Decision)) if self.whole && index > 0 => kind,
            Some(Kind::Fragment) => {
                self.fragment(journal, shard, index, payload);
                return Ok(());
            }
            _ => return Ok(()),
        };
        if at >= cursor.run_end {
            let part = &journal.parts[cursor.part as usize];
            cursor.select(part, part.run_at(at));
        }
        let wanted = index > cursor.above;
        if index > cursor.live_to || !wanted && !matches!(kind, Kind::Prepare | Kind::Finish) {
            return Ok(());
        }
        let assembled;
        let payload = if record.flags & record_flag::FRAGMENTED == 0 {
            payload
        } else {
            let Ok((fragmented, rest)) = Fragmented::ref_from_prefix(payload) else {
                return Err(self.changed(at.offset() as usize));
            };
            let stream = fragmented.stream.get();
            if !journal.streams.contains_key(&stream) {
                // A snapshot covers it, and its first fragments are gone.
                return Ok(());
            }
            let mut whole = self.streams.remove(&stream).unwrap_or_default();
            whole.extend_from_slice(rest);
            assembled = whole;
            &assembled
        };
        match kind {
            Kind::Prepare => {
                let command = payload.get(TRANSACTION_BYTES..).unwrap_or_default().to_vec();
                self.held.insert((shard, transaction(payload)), Held { index, payload: command });
                self.visit_idle(record, wanted)
            }
            Kind::Finish => {
                let transaction = transaction(payload);
                let held = self.held.remove(&(shard, transaction));
                if !wanted || payload.get(TRANSACTION_BYTES) != Some(&1) {
                    return self.visit_idle(record, wanted);
                }
                let Some(held) = held else {
                    let (file, offset) = (self.name.clone(), at.offset());
                    return Err(RecoveryError::MissingPrepare { file, offset, shard, transaction }.into());
                };
                self.visit(record, EntryKind::Entry, &held.payload)
            }
            Kind::Tick => self.visit(record, EntryKind::Tick, &[]),
            Kind::Membership => self.visit(record, EntryKind::Membership, payload),
            Kind::Decision => self.visit_idle(record, wanted),
            _ => self.visit(record, EntryKind::Entry, payload),
        }
    }

    #[inline]
    fn visit(
        &mut self,
        record: &RecordHeader,
        kind: EntryKind,
        payload: &[u8],
    ) -> Result<(), ReplayError<E>> {
        self.entries += 1;
        let entry = Entry {
            shard: record.shard.get(),
            index: record.index.get(),
            term: record.term.get(),
            timestamp_ms: record.timestamp_ms.get(),
            seed: record.seed.get(),
            kind,
            payload,
        };
        (self.visit)(entry).map_err(ReplayError::Visit)
    }

    /// A record that does nothing where it lies, but takes an index of the log.
    fn visit_idle(&mut self, record: &RecordHeader, wanted: bool) -> Result<(), ReplayError<E>> {
        if !self.whole || !wanted {
            return Ok(());
        }
        let idle = RecordHeader { timestamp_ms: U64::ZERO, seed: U64::ZERO, ..*record };
        self.visit(&idle, EntryKind::Tick, &[])
    }

    #[cold]
    fn fragment(&mut self, journal: &JournalScan, shard: u16, stream: u64, payload: &[u8]) {
        let Some(complete) = journal.streams.get(&stream).filter(|complete| complete.shard == shard) else {
            return;
        };
        let above = self.cursors[usize::from(shard)].as_ref().map_or(u64::MAX, |cursor| cursor.above);
        if complete.index > above || complete.prepares {
            let whole = self.streams.entry(stream).or_insert_with(|| Vec::with_capacity(complete.bytes));
            whole.extend_from_slice(payload);
        }
    }

    fn changed(&self, offset: usize) -> ReplayError<E> {
        RecoveryError::Changed { file: self.name.clone(), offset: offset as u32 }.into()
    }
}

impl Cursor {
    /// The records that follow belong to a part's run.
    fn select(&mut self, part: &Part, run: usize) {
        self.live_to = part.runs.get(run).map_or(0, |run| run.live_to);
        self.run_end = part.runs.get(run + 1).map_or(Position(u64::MAX), |next| next.at);
    }
}
