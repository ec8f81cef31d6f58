//! One journal, read from its oldest segment to where it ends: what it holds, and the first thing that is wrong with it.
//!
//! Invariants:
//!
//! - Nothing is taken in before its checksum was found right, and nothing behind a place that is damaged.
//! - What is kept of a record is of constant size, and nothing at all is kept of one whose index and term follow those of
//!   the record before it in its shard.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use zerocopy::{FromBytes, little_endian::U64};

use super::{
    error::RecoveryError,
    files::File,
    segment::{self, BLOCK_HEADER_BYTES, Head},
};
use crate::{
    format::{Fragmented, Kind, Position, RecordHeader, SegmentHeader, ShardState, block_flag, record_flag},
    manifest::Manifest,
    names,
};

/// What a journal holds, up to its end.
pub(super) struct JournalScan {
    pub(super) epoch: u64,
    pub(super) core: u16,
    /// Everything before this was durable once.
    pub(super) synced_to: Position,
    /// It is cut where something that was durable is damaged or missing.
    pub(super) lossy: bool,
    pub(super) segments: Vec<SegmentScan>,
    pub(super) parts: Vec<Part>,
    /// The streams of fragments that a record completes.
    pub(super) streams: HashMap<u64, CompleteStream>,
    /// Transactions that are to be committed.
    pub(super) decisions: Vec<Decision>,
}

pub(super) struct SegmentScan {
    pub(super) sequence: u32,
    /// Where the first block begins.
    pub(super) blocks_from: u32,
    /// What lies here or behind is dropped; 0: all of it.
    pub(super) end: u32,
    pub(super) shards: Vec<InSegment>,
}

/// What a segment holds of a shard.
pub(super) struct InSegment {
    pub(super) shard: u16,
    /// Which of the journal's parts.
    pub(super) part: u32,
    /// The highest index of a record of its log; 0: none.
    pub(super) last_index: u64,
    /// There are records that matter to later ones, whatever the index: of transactions, or fragments.
    pub(super) matters: bool,
}

/// What a journal holds of a shard, as long as the shard stays on the core.
pub(super) struct Part {
    pub(super) shard: u16,
    pub(super) ownership: u32,
    pub(super) runs: Vec<Run>,
    /// What the part comes to.
    pub(super) state: ShardState,
    /// The newest snapshot that the part knows to be durable: index and term.
    pub(super) snapshot: (u64, u64),
    /// Whether a header lets go of all that was known before: `snapshot` is what came behind it.
    pub(super) begins_anew: bool,
    /// What the part says to be committed, as far as none of it was replaced later.
    pub(super) committed: u64,
    /// Records whose first fragments are gone, and their indexes: a snapshot must cover those that count.
    pub(super) incomplete: Vec<(Position, u64)>,
}

/// Records of a shard's log with successive indexes and one term. The first run of a part comes from a segment's
/// header and may be empty: it says what the log's last index was.
pub(super) struct Run {
    /// Where it begins.
    pub(super) at: Position,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) term: u64,
    /// The last index that no later record replaces; 0: all are replaced.
    pub(super) live_to: u64,
}

#[derive(Clone, Copy)]
pub(super) struct CompleteStream {
    pub(super) shard: u16,
    pub(super) bytes: usize,
    /// The index of the record that completes it.
    pub(super) index: u64,
    pub(super) prepares: bool,
}

pub(super) struct Decision {
    pub(super) transaction: u64,
    pub(super) index: u64,
    pub(super) part: u32,
    pub(super) at: Position,
}

/// Fragments that no record has completed yet.
struct Stream {
    part: u32,
    first: u32,
    next: u32,
    bytes: u64,
    crc: u32,
    /// They do not follow one another.
    broken: bool,
}

/// What is wrong with a journal.
pub(super) struct Problem {
    /// Where.
    pub(super) at: Position,
    /// Everything before this is right.
    pub(super) keep_to: Position,
    /// No crash explains it, wherever it lies.
    pub(super) certain: bool,
    /// What to say if it is corruption.
    pub(super) error: RecoveryError,
    /// Where blocks may begin that lie behind it.
    pub(super) search_from: Position,
}

/// Why a walk stopped.
pub(super) enum Stop {
    /// The limit was reached.
    Limit,
    /// Something is wrong, or the journal simply ends here.
    Problem(Box<Problem>),
}

type Step = Result<Option<Stop>, RecoveryError>;

pub(super) struct Walk<'a> {
    files: &'a [File],
    pub(super) scan: JournalScan,
    /// The segment that it begins with.
    first: u32,
    limit: Option<Position>,
    /// The shard's place in the segment's `shards`, by shard, plus one.
    places: Vec<u16>,
    /// The shard's latest part, by shard, plus one.
    latest: Vec<u32>,
    streams: HashMap<u64, Stream>,
    /// Streams that a record has completed.
    completed: HashSet<u64>,
    /// The number of the next block, once one was read.
    pub(super) next_number: Option<u64>,
    /// The oldest segments were trimmed.
    trimmed: bool,
    /// The unfinished group's first record.
    pub(super) group: Option<Position>,
    /// Everything before this was taken in.
    pub(super) taken_to: Position,
    /// The name of the segment's file.
    name: String,
}

impl<'a> Walk<'a> {
    /// A walk of the journal of `core` and `epoch` from segment `first` up to `limit`. `files` are all of the core's.
    pub(super) fn new(
        manifest: &Manifest,
        files: &'a [File],
        (core, epoch): (u16, u64),
        first: u32,
        limit: Option<Position>,
    ) -> Self {
        Self {
            files,
            scan: JournalScan {
                epoch,
                core,
                synced_to: Position::default(),
                lossy: false,
                segments: Vec::new(),
                parts: Vec::new(),
                streams: HashMap::new(),
                decisions: Vec::new(),
            },
            first,
            limit,
            places: vec![0; usize::from(manifest.shards)],
            latest: vec![0; usize::from(manifest.shards)],
            streams: HashMap::new(),
            completed: HashSet::new(),
            next_number: None,
            trimmed: false,
            group: None,
            taken_to: Position::default(),
            name: String::new(),
        }
    }

    /// Walks. `load` reads a segment's file into the vector, which holds the last one read.
    pub(super) fn run(
        &mut self,
        bytes: &mut Vec<u8>,
        mut load: impl FnMut(&str, &mut Vec<u8>) -> Result<(), RecoveryError>,
    ) -> Result<Stop, RecoveryError> {
        let epoch = self.scan.epoch;
        let mut sequence = self.first;
        let own = self.files.iter().rev().find(|file| file.epoch == Some(epoch));
        let last = own.map_or(0, |file| file.sequence);
        self.taken_to = Position::new(sequence, 0);
        let mut sealed_by = None;
        loop {
            let start = Position::new(sequence, 0);
            if self.limit.is_some_and(|limit| start >= limit) {
                return Ok(self.limit_reached());
            }
            self.name = names::segment(self.scan.core, sequence);
            let place = self.files.binary_search_by_key(&sequence, |file| file.sequence);
            match place.map(|place| &self.files[place]) {
                Ok(file) if file.whole && file.epoch == Some(epoch) => {}
                Ok(_) => {
                    let what = "a segment of this journal should begin here, and its header is damaged";
                    return Ok(self.damage(start, self.taken_to, start, what));
                }
                Err(_) => return Ok(self.missing(sequence, last, sealed_by)),
            }
            load(&self.name, bytes)?;
            let Head::Whole(header) = segment::head(bytes, true) else { return Err(self.changed(0)) };
            if header.sequence.get() != sequence || header.epoch.get() != epoch {
                return Err(self.changed(0));
            }
            self.open_segment(&header, segment::states(bytes, &header))?;
            if let Some(stop) = self.walk_blocks(bytes, &header)? {
                return Ok(stop);
            }
            sealed_by = Some(sequence);
            let Some(next) = sequence.checked_add(1) else { return Err(self.changed(0)) };
            sequence = next;
        }
    }

    /// Walks a segment's blocks up to the seal, or to why it stops before.
    fn walk_blocks(&mut self, bytes: &[u8], header: &SegmentHeader) -> Step {
        let (core, sequence) = (self.scan.core, header.sequence.get());
        let segment_len = header.segment_len.get() as usize;
        let mut offset = segment::blocks_from(header);
        loop {
            let at = Position::new(sequence, offset as u32);
            self.take_to(at);
            if self.limit.is_some_and(|limit| at >= limit) {
                return Ok(Some(self.limit_reached()));
            }
            let block = segment::block(bytes, offset, core, sequence);
            let Some(block) = block.filter(|block| block.epoch.get() == self.scan.epoch) else {
                return Ok(Some(self.damage(at, at, at, "no block begins where one should")));
            };
            let (end, number) = (segment::block_end(block), block.number.get());
            let behind = Position::new(sequence, end as u32);
            if self.next_number.is_some_and(|next| next != number) || end > segment_len {
                let what = "the block here is not the one that follows";
                return Ok(Some(self.damage(at, at, behind, what)));
            }
            self.scan.synced_to = self.scan.synced_to.max(Position(block.synced_to.get()));
            self.trimmed |= self.next_number.is_none() && number > 0;
            self.next_number = Some(number.wrapping_add(1));
            let records_end = offset + BLOCK_HEADER_BYTES + block.len.get() as usize;
            let salt = block.salt();
            // Behind a cut the file may end within a block.
            let file_end = records_end.min(bytes.len());
            let group = self.group;
            let mut records = 0;
            let mut next = offset + BLOCK_HEADER_BYTES;
            while next < records_end {
                let at = Position::new(sequence, next as u32);
                self.take_to(at);
                if self.limit.is_some_and(|limit| at >= limit) {
                    return Ok(Some(self.limit_reached()));
                }
                let Some((record, payload, record_end)) = segment::record(bytes, next, file_end) else {
                    let what = "a record does not fit into its block";
                    return Ok(Some(self.damage(at, at, behind, what)));
                };
                if !segment::record_is_whole(bytes, next, record, salt) {
                    let what = "a record does not match its checksum";
                    return Ok(Some(self.damage(at, at, behind, what)));
                }
                if let Some(stop) = self.take(at, behind, record, payload)? {
                    return Ok(Some(stop));
                }
                records += 1;
                next = record_end;
            }
            if records != block.records.get() {
                // None of it counts, the end of a group as little as the rest.
                self.group = group;
                let what = "the block here has not as many records as it says";
                return Ok(Some(self.damage(at, at, behind, what)));
            }
            offset = end;
            if block.flags.get() & block_flag::SEALED != 0 {
                self.take_to(behind);
                return Ok(None);
            }
        }
    }

    /// Takes in a segment's header, which is whole.
    fn open_segment(&mut self, header: &SegmentHeader, states: &[ShardState]) -> Result<(), RecoveryError> {
        let at = Position::new(header.sequence.get(), 0);
        self.places.fill(0);
        let mut shards = Vec::with_capacity(states.len());
        for state in states {
            let shard = state.shard.get();
            let Some(place) = self.places.get_mut(usize::from(shard)).filter(|place| **place == 0) else {
                return Err(RecoveryError::WrongShard { file: self.name.clone(), shard });
            };
            // There are no more places than shards, each in it once.
            *place = shards.len() as u16 + 1;
            let latest = &mut self.latest[usize::from(shard)];
            let known = (*latest as usize).checked_sub(1).filter(|part| {
                let part = &self.scan.parts[*part];
                part.ownership == state.ownership.get()
            });
            let part = known.unwrap_or_else(|| {
                self.scan.parts.push(Part {
                    shard,
                    ownership: state.ownership.get(),
                    runs: Vec::new(),
                    state: *state,
                    snapshot: (0, 0),
                    begins_anew: false,
                    committed: 0,
                    incomplete: Vec::new(),
                });
                *latest = self.scan.parts.len() as u32;
                self.scan.parts.len() - 1
            });
            let entry = &mut self.scan.parts[part];
            let last = state.last_index.get();
            if entry.runs.is_empty() || entry.state.last_index.get() != last {
                entry.runs.push(Run {
                    at,
                    first: last.saturating_add(1),
                    last,
                    term: state.last_term.get(),
                    live_to: 0,
                });
            }
            entry.state = *state;
            if last == 0 && state.snapshot_index.get() == 0 {
                (entry.snapshot, entry.begins_anew) = ((0, 0), true);
            }
            entry.committed = entry.committed.min(last);
            entry.snapshot = entry.snapshot.max((state.snapshot_index.get(), state.snapshot_term.get()));
            shards.push(InSegment { shard, part: part as u32, last_index: 0, matters: false });
        }
        self.scan.segments.push(SegmentScan {
            sequence: header.sequence.get(),
            blocks_from: segment::blocks_from(header) as u32,
            end: segment::blocks_from(header) as u32,
            shards,
        });
        Ok(())
    }

    /// Takes in a record, whose checksum fits.
    #[inline]
    fn take(&mut self, at: Position, behind: Position, record: &RecordHeader, payload: &[u8]) -> Step {
        let shard = record.shard.get();
        let place = match self.places.get(usize::from(shard)) {
            Some(&place) if place > 0 => usize::from(place) - 1,
            _ => return Err(RecoveryError::WrongShard { file: self.name.clone(), shard }),
        };
        let Some(kind) = Kind::from_number(record.kind) else {
            return Ok(Some(self.malformed(at, behind, "a record is of an unknown kind")));
        };
        if kind == Kind::Fragment {
            let in_segment = &mut self.segment_mut().shards[place];
            in_segment.matters = true;
            let part = in_segment.part;
            self.take_fragment(part, record, payload);
            return Ok(None);
        }
        let grouped = record.flags & record_flag::GROUP != 0;
        if grouped && self.group.is_none() {
            self.group = Some(at);
        }
        if record.flags & record_flag::FRAGMENTED != 0 {
            let part = self.segment_mut().shards[place].part;
            match self.complete(part, record, payload) {
                Completion::Whole => {}
                Completion::Trimmed => {
                    let part = &mut self.scan.parts[part as usize];
                    part.incomplete.push((at, record.index.get()));
                }
                Completion::Broken => {
                    let what = "a record is incomplete: its earlier fragments are missing or damaged";
                    return Ok(Some(self.damage(at, at, behind, what)));
                }
                Completion::Repeated => {
                    let what = "a record's fragments are those of an earlier one";
                    return Ok(Some(self.malformed(at, behind, what)));
                }
            }
        }
        if let Err(what) = well_formed(kind, record, payload) {
            return Ok(Some(self.malformed(at, behind, what)));
        }
        let in_segment = &mut self.scan.segments.last_mut().expect("a segment is open").shards[place];
        let part = &mut self.scan.parts[in_segment.part as usize];
        let (index, term) = (record.index.get(), record.term.get());
        match kind {
            Kind::HardState => {
                part.state.term = record.term;
                part.state.vote = U64::read_from_bytes(payload).unwrap_or_default();
                part.committed = part.committed.max(index.min(part.state.last_index.get()));
            }
            Kind::SnapshotMark => {
                part.state.snapshot_index = record.index;
                part.state.snapshot_term = record.term;
                part.snapshot = part.snapshot.max((index, term));
            }
            // A part that was finished says as much as a decision: no part is finished before all are prepared.
            Kind::Decision | Kind::Finish if payload[8] == 1 => {
                in_segment.matters |= kind == Kind::Finish;
                self.scan.decisions.push(Decision {
                    transaction: transaction(payload),
                    index,
                    part: in_segment.part,
                    at,
                });
            }
            Kind::Prepare | Kind::Finish => in_segment.matters = true,
            _ => {}
        }
        if index > 0 && !matches!(kind, Kind::HardState | Kind::SnapshotMark) {
            in_segment.last_index = in_segment.last_index.max(index);
            part.note(at, record);
        }
        if !grouped {
            self.group = None;
        }
        Ok(None)
    }

    #[cold]
    fn take_fragment(&mut self, part: u32, record: &RecordHeader, payload: &[u8]) {
        let ordinal = record.fragments.get();
        match self.streams.entry(record.index.get()) {
            Entry::Vacant(entry) => {
                entry.insert(Stream {
                    part,
                    first: ordinal,
                    next: ordinal.wrapping_add(1),
                    bytes: payload.len() as u64,
                    crc: crc32c::crc32c(payload),
                    broken: false,
                });
            }
            Entry::Occupied(mut entry) => {
                let stream = entry.get_mut();
                stream.broken |= stream.part != part || stream.next != ordinal;
                stream.next = ordinal.wrapping_add(1);
                stream.bytes += payload.len() as u64;
                stream.crc = crc32c::crc32c_append(stream.crc, payload);
            }
        }
    }

    /// Whether all fragments of the record are there.
    #[cold]
    fn complete(&mut self, part: u32, record: &RecordHeader, payload: &[u8]) -> Completion {
        let Ok((fragmented, rest)) = Fragmented::ref_from_prefix(payload) else { return Completion::Broken };
        let (id, fragments) = (fragmented.stream.get(), record.fragments.get());
        if !self.completed.insert(id) {
            return Completion::Repeated;
        }
        let stream = self.streams.remove(&id).unwrap_or(Stream {
            part,
            first: fragments,
            next: fragments,
            bytes: 0,
            crc: 0,
            broken: false,
        });
        if stream.broken || stream.part != part || stream.next != fragments {
            return Completion::Broken;
        }
        if stream.first > 0 {
            // Only a snapshot that covers the record lets the segments with its first fragments go.
            return if self.trimmed && record.index.get() > 0 {
                Completion::Trimmed
            } else {
                Completion::Broken
            };
        }
        let crc = crc32c::crc32c_append(stream.crc, rest);
        if crc != fragmented.crc.get() || stream.bytes + rest.len() as u64 != fragmented.len.get() {
            return Completion::Broken;
        }
        let complete = CompleteStream {
            shard: record.shard.get(),
            bytes: (stream.bytes + rest.len() as u64) as usize,
            index: record.index.get(),
            prepares: record.kind == Kind::Prepare as u8,
        };
        self.scan.streams.insert(id, complete);
        Completion::Whole
    }

    /// A segment's file is missing that a sealed one, or the manifest if none did, says is there.
    fn missing(&self, sequence: u32, last: u32, sealed_by: Option<u32>) -> Stop {
        let missing = self.name.clone();
        let core = self.scan.core;
        let at = Position::new(sequence, 0);
        let error = if last > sequence {
            let later = self.files.iter().find(|file| file.sequence > sequence);
            let later = names::segment(core, later.map_or(last, |file| file.sequence));
            RecoveryError::SequenceGap { missing, later }
        } else {
            let demanded_by = sealed_by.map(|sequence| names::segment(core, sequence));
            RecoveryError::MissingSegment { missing, demanded_by }
        };
        Stop::Problem(Box::new(Problem { at, keep_to: self.taken_to, certain: true, error, search_from: at }))
    }

    fn limit_reached(&self) -> Stop {
        match self.group {
            None => Stop::Limit,
            Some(group) => {
                let what = "a group of records is incomplete where an earlier recovery ended the journal";
                self.damage(group, group, self.taken_to, what)
            }
        }
    }

    fn damage(&self, at: Position, keep_to: Position, search_from: Position, what: &'static str) -> Stop {
        let file = names::segment(self.scan.core, at.sequence());
        let error = RecoveryError::Damage { file, offset: at.offset(), what };
        Stop::Problem(Box::new(Problem { at, keep_to, certain: false, error, search_from }))
    }

    /// The bytes are those that were written: it is no tear.
    fn malformed(&self, at: Position, search_from: Position, what: &'static str) -> Stop {
        let error = RecoveryError::Damage { file: self.name.clone(), offset: at.offset(), what };
        Stop::Problem(Box::new(Problem { at, keep_to: at, certain: true, error, search_from }))
    }

    fn changed(&self, offset: u32) -> RecoveryError {
        RecoveryError::Changed { file: self.name.clone(), offset }
    }

    fn take_to(&mut self, at: Position) {
        self.taken_to = at;
        self.segment_mut().end = at.offset();
    }

    fn segment_mut(&mut self) -> &mut SegmentScan {
        self.scan.segments.last_mut().expect("a segment is open")
    }
}

enum Completion {
    Whole,
    /// Its first fragments were trimmed away.
    Trimmed,
    Broken,
    /// Another record has completed the stream.
    Repeated,
}

impl Part {
    /// A record of the log.
    #[inline]
    fn note(&mut self, at: Position, record: &RecordHeader) {
        let (index, term) = (record.index.get(), record.term.get());
        self.state.last_index = record.index;
        self.state.last_term = record.term;
        if record.timestamp_ms.get() > self.state.time_ms.get() {
            self.state.time_ms = record.timestamp_ms;
        }
        self.committed = self.committed.min(index - 1);
        match self.runs.last_mut() {
            Some(run) if run.last.wrapping_add(1) == index && run.term == term => run.last = index,
            _ => self.runs.push(Run { at, first: index, last: index, term, live_to: 0 }),
        }
    }

    /// The run that a record at this place belongs to.
    pub(super) fn run_at(&self, at: Position) -> usize {
        self.runs.partition_point(|run| run.at <= at).saturating_sub(1)
    }
}

/// Whether a record says what one of its kind must say.
#[inline]
fn well_formed(kind: Kind, record: &RecordHeader, payload: &[u8]) -> Result<(), &'static str> {
    let fragmented = record.flags & record_flag::FRAGMENTED != 0;
    match kind {
        Kind::Entry | Kind::Tick | Kind::Prepare | Kind::Finish if record.index.get() == 0 => {
            Err("a record of a log has no index")
        }
        Kind::Prepare if payload_bytes(fragmented, payload) < TRANSACTION_BYTES as u64 => {
            Err("a prepared part names no transaction")
        }
        Kind::Decision | Kind::Finish
            if fragmented || payload.len() < TRANSACTION_BYTES + 1 || payload[TRANSACTION_BYTES] > 1 =>
        {
            Err("a decision on a transaction is neither yes nor no")
        }
        Kind::HardState if fragmented || payload.len() != 8 => Err("a vote is not eight bytes long"),
        _ => Ok(()),
    }
}

/// Bytes of the whole payload of a record.
fn payload_bytes(fragmented: bool, payload: &[u8]) -> u64 {
    let whole = Fragmented::ref_from_prefix(payload).ok().filter(|_| fragmented);
    whole.map_or(payload.len() as u64, |(whole, _)| whole.len.get())
}

/// Bytes of a transaction's id, with which the payloads begin that belong to one.
pub(super) const TRANSACTION_BYTES: usize = 8;

/// The transaction that a payload begins with; it is long enough.
pub(super) fn transaction(payload: &[u8]) -> u64 {
    payload.first_chunk().map_or(0, |id| u64::from_le_bytes(*id))
}
