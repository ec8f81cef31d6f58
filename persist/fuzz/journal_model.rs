//! Recovery as docs/format.md tells it, in plain offsets and lists, for directories that fit into memory several times.
//!
//! It shares no code with the reader, and reads everything before it decides anything.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use duva_persist::{
    format::Position,
    manifest::{Cut, Manifest, Truncation},
    names,
    recovery::{Segment, Unfinished},
};

use super::journal_bytes::{Head, Header, Record, State, block, head, record, search, u32_at, u64_at, up};

/// The directory is refused.
#[derive(Debug)]
pub(crate) struct Refused;

/// What recovery comes to.
pub(crate) struct Model {
    pub(crate) cuts: Vec<Cut>,
    /// Files that hold nothing.
    pub(crate) empty: Vec<String>,
    pub(crate) segments: Vec<Segment>,
    /// Something that was durable is dropped.
    pub(crate) lost: bool,
    /// By shard.
    pub(crate) states: Vec<State>,
    /// By shard: the index of the snapshot that there is.
    pub(crate) snapshots: Vec<Option<u64>>,
    /// By shard, then index.
    logs: Vec<BTreeMap<u64, Entry>>,
    committed: BTreeSet<u64>,
}

/// A record of a log, and its payload from all fragments; none: the first of them are gone.
#[derive(Clone)]
struct Entry {
    record: Record,
    payload: Option<Vec<u8>>,
}

/// An entry that is visited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Visit {
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) timestamp_ms: u64,
    pub(crate) seed: u64,
    /// None: a tick.
    pub(crate) payload: Option<Vec<u8>>,
}

/// A file of a core.
struct File<'a> {
    bytes: &'a [u8],
    header: Option<Header>,
    epoch: Option<u64>,
}

/// What is kept of the journal of a core and epoch.
struct Journal {
    epoch: u64,
    core: u16,
    end: Position,
    lossy: bool,
    events: Vec<Event>,
    segments: Vec<Segment>,
}

/// A segment's header, or a record.
struct Event {
    at: Position,
    what: What,
}

enum What {
    Header(Vec<State>),
    Record(Entry),
}

/// Recovers.
pub(crate) fn recover(
    files: &BTreeMap<String, Vec<u8>>,
    manifest: &Manifest,
    truncate: bool,
) -> Result<Model, Refused> {
    let mut cores: BTreeMap<u16, BTreeMap<u32, File<'_>>> = BTreeMap::new();
    for (name, bytes) in files {
        let Some((core, sequence)) = names::parse_segment(name) else { continue };
        let file = classify(bytes, core, sequence, manifest)?;
        cores.entry(core).or_default().insert(sequence, file);
    }
    // Journals that have files whatever was trimmed. One of which nothing is kept ends where its first segment begins.
    let mut demanded: BTreeSet<(u16, u64)> = BTreeSet::new();
    if manifest.starts.is_empty() {
        let kept = manifest.cuts.iter().filter(|cut| cut.end.offset() > 0);
        demanded.extend(kept.map(|cut| (cut.core, cut.epoch)));
    } else {
        demanded.extend(manifest.starts.iter().map(|start| (start.core, manifest.epoch)));
    }
    for (core, _) in &demanded {
        cores.entry(*core).or_default();
    }
    let mut journals = Vec::new();
    let mut empty = Vec::new();
    for (core, files) in &cores {
        // Too few sequences are left.
        if files.range(u32::MAX - (1 << 20) + 1..).next().is_some() {
            return Err(Refused);
        }
        let nothing = files.iter().filter(|(_, file)| file.epoch.is_none());
        empty.extend(nothing.map(|(sequence, _)| names::segment(*core, *sequence)));
        let epochs: Vec<u64> = files.values().filter_map(|file| file.epoch).collect();
        if !epochs.is_sorted() {
            return Err(Refused);
        }
        let demanded = demanded.iter().filter(|journal| journal.0 == *core).map(|journal| journal.1);
        for epoch in epochs.into_iter().chain(demanded).collect::<BTreeSet<_>>() {
            journals.push(journal(manifest, files, *core, epoch, truncate)?);
        }
    }
    journals.sort_by_key(|journal| (journal.epoch, journal.core));
    let mut model = Model {
        cuts: journals
            .iter()
            .map(|journal| Cut { epoch: journal.epoch, core: journal.core, end: journal.end })
            .collect(),
        empty,
        segments: journals.iter().flat_map(|journal| journal.segments.clone()).collect(),
        lost: journals.iter().any(|journal| journal.lossy),
        states: Vec::new(),
        snapshots: vec![None; usize::from(manifest.shards)],
        logs: Vec::new(),
        committed: BTreeSet::new(),
    };
    for (shard, index) in files.keys().filter_map(|name| names::parse_snapshot(name)) {
        if let Some(newest) = model.snapshots.get_mut(usize::from(shard)) {
            *newest = (*newest).max(Some(index));
        }
    }
    for shard in 0..manifest.shards {
        let log = shard_log(manifest, &journals, shard, model.snapshots[usize::from(shard)], truncate)?;
        model.lost |= log.lost;
        model.states.push(log.state);
        model.logs.push(log.entries);
        model.committed.extend(log.committed);
    }
    Ok(model)
}

fn classify<'a>(bytes: &'a [u8], core: u16, sequence: u32, manifest: &Manifest) -> Result<File<'a>, Refused> {
    let header = match head(bytes) {
        Head::Newer(_) => return Err(Refused),
        Head::Whole(header) if header.sequence >= sequence => header,
        _ => {
            let epoch = search(bytes, 0, core, sequence).into_iter().map(|block| block.epoch).max();
            if epoch.is_some_and(|epoch| epoch > manifest.epoch) {
                return Err(Refused);
            }
            return Ok(File { bytes, header: None, epoch });
        }
    };
    let own = (header.sequence, header.core, header.cluster, header.node)
        == (sequence, core, manifest.cluster, manifest.node);
    if !own || header.epoch > manifest.epoch {
        return Err(Refused);
    }
    let epoch = Some(header.epoch);
    Ok(File { bytes, header: Some(header), epoch })
}

/// Reads a journal and decides where it ends.
fn journal(
    manifest: &Manifest,
    files: &BTreeMap<u32, File<'_>>,
    core: u16,
    epoch: u64,
    truncate: bool,
) -> Result<Journal, Refused> {
    let cut = manifest.cuts.iter().find(|cut| (cut.epoch, cut.core) == (epoch, core)).map(|cut| cut.end);
    let own = || files.iter().filter(|(_, file)| file.epoch == Some(epoch)).map(|(sequence, _)| *sequence);
    let begun = !manifest.starts.is_empty();
    let start = manifest.starts.iter().find(|start| start.core == core).map(|start| start.sequence);
    let oldest = own().next();
    let first = match (cut, start) {
        (None, _) if epoch < manifest.epoch => return Err(Refused),
        (Some(end), _) => {
            let last_kept = (!begun && end.offset() > 0).then_some(end.sequence());
            oldest.into_iter().chain(last_kept).min().unwrap_or(end.sequence())
        }
        // Before they are begun, the epoch's journals are what there is of them.
        (None, None) if begun => return Err(Refused),
        (None, None) => oldest.expect("the journal has a file"),
        (None, Some(start)) => {
            if oldest.is_some_and(|oldest| oldest < start) {
                return Err(Refused);
            }
            match files.range(start..).next() {
                None => start,
                Some((_, file)) if file.epoch.is_some_and(|other| other != epoch) => return Err(Refused),
                // What was trimmed is followed by a segment with a header, not by a spare.
                Some((sequence, file)) if file.epoch.is_none() && *sequence > start => sequence - 1,
                Some((sequence, _)) => *sequence,
            }
        }
    };
    let mut walk = Walk {
        files,
        core,
        epoch,
        limit: cut,
        shards: manifest.shards,
        events: Vec::new(),
        blocks: Vec::new(),
        opened: Vec::new(),
        streams: HashMap::new(),
        completed: BTreeSet::new(),
        owners: BTreeMap::new(),
        next_number: None,
        trimmed: false,
        group: None,
        reached: Position::new(first, 0),
    };
    let stop = walk.run(first);
    // Header and first block of the first segment were durable before the journal was begun.
    let begun_to = match (walk.opened.first(), start.filter(|_| cut.is_none())) {
        (_, None) => Position(0),
        (None, _) => Position::new(first, 1),
        (Some(opened), Some(start)) => {
            let block = if opened.sequence == start { 64 } else { 0 };
            Position::new(opened.sequence, opened.blocks_from + block)
        }
    };
    let (end, lossy) = match stop {
        Stop::Refused => return Err(Refused),
        Stop::Limit => (cut.expect("only a cut is a limit"), false),
        Stop::Wrong { at, keep_to, certain, behind } => {
            let corrupt = cut.is_some() || certain || begun_to > at || walk.synced_to(behind) > at;
            if corrupt && !truncate {
                return Err(Refused);
            }
            (walk.group.map_or(keep_to, |group| group.min(keep_to)), corrupt)
        }
    };
    // A journal of which nothing is kept ends where it would begin.
    let nothing = walk.opened.first().is_none_or(|opened| Position::new(opened.sequence, 0) >= end);
    let end = if nothing { Position::new(first, 0) } else { end };
    walk.events.retain(|event| event.at < end);
    // What a block says counts even if its records are not as many as it says.
    let kept = walk.blocks.iter().filter(|block| block.0 < end || walk.reached == end);
    let synced_to = kept.map(|block| block.1).chain([begun_to.min(end)]).max().unwrap_or_default();
    let synced_to = if cut.is_some() { end } else { synced_to };
    let mut segments = Vec::new();
    for opened in walk.opened.iter().filter(|opened| Position::new(opened.sequence, 0) < end) {
        // A record that a cut goes through is kept whole.
        let ends_here = opened.sequence == end.sequence() && cut != Some(end);
        let to = if ends_here { end.offset() } else { opened.to };
        segments.push(walk.segment(opened.sequence, to, synced_to));
    }
    let last = segments.last().map(|segment| segment.sequence);
    let later = own().filter(|sequence| last.is_none_or(|last| *sequence > last));
    let later: Vec<_> = later
        .map(|sequence| Segment {
            name: names::segment(core, sequence),
            core,
            epoch,
            sequence,
            end: 0,
            synced_to: 0,
            shards: Vec::new(),
        })
        .collect();
    segments.extend(later);
    Ok(Journal { epoch, core, end, lossy, events: walk.events, segments })
}

/// A segment that was read.
struct Opened {
    sequence: u32,
    /// Where its first block begins.
    blocks_from: u32,
    /// How far it was read.
    to: u32,
}

/// A fragment: its shard's ownership where it lay, and its record.
type Piece = ((u32, u32), Record);

/// Reads a journal in its order, up to the first thing that is wrong.
struct Walk<'a> {
    files: &'a BTreeMap<u32, File<'a>>,
    core: u16,
    epoch: u64,
    limit: Option<Position>,
    shards: u16,
    events: Vec<Event>,
    /// Where each block lies, and its `synced_to`.
    blocks: Vec<(Position, Position)>,
    opened: Vec<Opened>,
    /// Fragments that no record has completed, by stream.
    streams: HashMap<u64, Vec<Piece>>,
    /// Streams that a record has completed.
    completed: BTreeSet<u64>,
    /// Each shard's ownership, and how often it has changed in the journal.
    owners: BTreeMap<u16, (u32, u32)>,
    next_number: Option<u64>,
    trimmed: bool,
    /// Where the unfinished group begins.
    group: Option<Position>,
    reached: Position,
}

enum Stop {
    Refused,
    Limit,
    Wrong {
        at: Position,
        keep_to: Position,
        /// No crash does that.
        certain: bool,
        /// Where the next block may begin.
        behind: Position,
    },
}

fn wrong(at: Position, certain: bool, behind: Position) -> Stop {
    Stop::Wrong { at, keep_to: at, certain, behind }
}

impl Walk<'_> {
    fn run(&mut self, first: u32) -> Stop {
        for sequence in first..=u32::MAX {
            let start = Position::new(sequence, 0);
            if self.limit.is_some_and(|limit| start >= limit) {
                return self.at_limit();
            }
            let keep_to = self.reached;
            let Some(file) = self.files.get(&sequence) else {
                return Stop::Wrong { at: start, keep_to, certain: true, behind: start };
            };
            let (bytes, header) = match &file.header {
                Some(header) if file.epoch == Some(self.epoch) => (file.bytes, header.clone()),
                _ => return Stop::Wrong { at: start, keep_to, certain: false, behind: start },
            };
            let listed: BTreeSet<u16> = header.states.iter().map(|state| state.shard).collect();
            if listed.len() < header.states.len() || listed.last().is_some_and(|last| *last >= self.shards) {
                return Stop::Refused;
            }
            for state in &header.states {
                let owner = self.owners.entry(state.shard).or_insert((state.ownership, 0));
                if owner.0 != state.ownership {
                    *owner = (state.ownership, owner.1 + 1);
                }
            }
            self.events.push(Event { at: start, what: What::Header(header.states.clone()) });
            self.opened.push(Opened { sequence, blocks_from: header.blocks_from as u32, to: 0 });
            if let Err(stop) = self.blocks(bytes, sequence, &header) {
                return stop;
            }
        }
        unreachable!("there is no file with the last sequence")
    }

    /// Reads a segment up to its seal.
    fn blocks(&mut self, bytes: &[u8], sequence: u32, header: &Header) -> Result<(), Stop> {
        let mut offset = header.blocks_from;
        loop {
            let at = self.reach(sequence, offset)?;
            let block = block(bytes, offset, self.core, sequence).filter(|block| block.epoch == self.epoch);
            let Some(block) = block else { return Err(wrong(at, false, at)) };
            let behind = Position::new(sequence, block.end() as u32);
            if self.next_number.is_some_and(|next| next != block.number) || block.end() > header.segment_len {
                return Err(wrong(at, false, behind));
            }
            self.blocks.push((at, block.synced_to));
            self.trimmed |= self.next_number.is_none() && block.number > 0;
            self.next_number = Some(block.number.wrapping_add(1));
            let group = self.group;
            let mut records = 0;
            let mut next = offset + 64;
            while next < block.records_end() {
                let at = self.reach(sequence, next)?;
                // Padding may be missing.
                let found = record(bytes, next, block.records_end().min(bytes.len()), block.salt);
                let Some((record, true)) = found else { return Err(wrong(at, false, behind)) };
                records += 1;
                next = up(next + 48 + record.payload.len(), 8);
                self.record(at, record).map_err(|stop| match stop {
                    Stop::Wrong { at, certain, .. } => wrong(at, certain, behind),
                    stop => stop,
                })?;
            }
            if records != block.records {
                self.group = group;
                return Err(wrong(at, false, behind));
            }
            offset = block.end();
            if block.sealed {
                self.reached = behind;
                self.opened.last_mut().expect("a segment is open").to = behind.offset();
                return Ok(());
            }
        }
    }

    /// The next block or record lies here.
    fn reach(&mut self, sequence: u32, offset: usize) -> Result<Position, Stop> {
        self.reached = Position::new(sequence, offset as u32);
        self.opened.last_mut().expect("a segment is open").to = offset as u32;
        if self.limit.is_some_and(|limit| self.reached >= limit) {
            return Err(self.at_limit());
        }
        Ok(self.reached)
    }

    fn at_limit(&self) -> Stop {
        self.group.map_or(Stop::Limit, |group| wrong(group, false, self.reached))
    }

    fn record(&mut self, at: Position, record: Record) -> Result<(), Stop> {
        let shards = self.events.iter().rev().find_map(|event| match &event.what {
            What::Header(states) => Some(states),
            What::Record(_) => None,
        });
        if shards.expect("a segment is open").iter().all(|state| state.shard != record.shard) {
            return Err(Stop::Refused);
        }
        let malformed = || wrong(at, true, at);
        if !(1..=9).contains(&record.kind) {
            return Err(malformed());
        }
        if record.kind == 9 {
            let owner = self.owners[&record.shard];
            self.streams.entry(record.index).or_default().push((owner, record));
            return Ok(());
        }
        if record.flags & 1 == 1 {
            self.group.get_or_insert(at);
        }
        let mut payload = Some(record.payload.clone());
        if record.is_fragmented() {
            payload = self.complete(&record).map_err(|certain| wrong(at, certain, at))?;
        }
        let whole_len = match record.is_fragmented() {
            true => u64_at(&record.payload, 8),
            false => record.payload.len() as u64,
        };
        let fine = match record.kind {
            1 | 2 => record.index > 0,
            3 => whole_len == 8 && !record.is_fragmented(),
            5 => record.index > 0 && whole_len >= 8,
            6 | 7 => {
                (record.kind == 6 || record.index > 0)
                    && !record.is_fragmented()
                    && whole_len >= 9
                    && record.payload[8] <= 1
            }
            _ => true,
        };
        if !fine {
            return Err(malformed());
        }
        if record.flags & 1 == 0 {
            self.group = None;
        }
        self.events.push(Event { at, what: What::Record(Entry { record, payload }) });
        Ok(())
    }

    /// The whole payload of a record with fragments, none if the first of them were trimmed away; or whether no crash
    /// explains what is wrong.
    fn complete(&mut self, record: &Record) -> Result<Option<Vec<u8>>, bool> {
        if record.payload.len() < 24 {
            return Err(false);
        }
        let stream = u64_at(&record.payload, 0);
        // A stream is of one record, and of a shard that stays on its core meanwhile.
        if !self.completed.insert(stream) {
            return Err(true);
        }
        let owner = self.owners[&record.shard];
        let pieces = self.streams.remove(&stream).unwrap_or_default();
        let stays = pieces.iter().all(|piece| piece.0 == owner);
        let pieces: Vec<Record> = pieces.into_iter().map(|piece| piece.1).collect();
        let first = pieces.first().map_or(record.fragments, |piece| piece.fragments);
        let follow = pieces.iter().enumerate().all(|(place, piece)| {
            piece.shard == record.shard && piece.fragments == first.wrapping_add(place as u32)
        });
        if !follow || !stays || first.wrapping_add(pieces.len() as u32) != record.fragments {
            return Err(false);
        }
        if first > 0 {
            return if self.trimmed && record.index > 0 { Ok(None) } else { Err(false) };
        }
        let pieces = pieces.iter().map(|piece| &piece.payload[..]).chain([&record.payload[24..]]);
        let whole = pieces.collect::<Vec<_>>().concat();
        let fits = whole.len() as u64 == u64_at(&record.payload, 8)
            && crc32c::crc32c(&whole) == u32_at(&record.payload, 16);
        if fits { Ok(Some(whole)) } else { Err(false) }
    }

    /// Everything before this was durable, as far as any block of the journal tells.
    fn synced_to(&self, behind: Position) -> Position {
        let mut synced_to = self.blocks.iter().map(|block| block.1).max().unwrap_or_default();
        for (sequence, file) in self.files.range(behind.sequence()..) {
            let from = if *sequence == behind.sequence() { behind.offset() as usize } else { 0 };
            for block in search(file.bytes, from, self.core, *sequence) {
                let follows = self.next_number.is_none_or(|next| block.number >= next);
                if block.epoch == self.epoch && follows && file.epoch.is_some() {
                    synced_to = synced_to.max(block.synced_to);
                }
            }
        }
        synced_to
    }

    fn segment(&self, sequence: u32, end: u32, synced_to: Position) -> Segment {
        let within = |event: &&Event| event.at.sequence() == sequence;
        let mut shards: Vec<(u16, u64)> = Vec::new();
        for event in self.events.iter().filter(within) {
            match &event.what {
                What::Header(states) => shards = states.iter().map(|state| (state.shard, 0)).collect(),
                What::Record(Entry { record, .. }) if record.is_in_log() => {
                    let place = shards.iter_mut().find(|place| place.0 == record.shard);
                    let last = &mut place.expect("a shard that is listed").1;
                    *last = record.index.max(*last);
                }
                What::Record(_) => {}
            }
        }
        let synced_to = if synced_to < Position::new(sequence, 0) {
            0
        } else if synced_to.sequence() == sequence {
            synced_to.offset().min(end)
        } else {
            end
        };
        let name = names::segment(self.core, sequence);
        Segment { name, core: self.core, epoch: self.epoch, sequence, end, synced_to, shards }
    }
}

/// What a shard's records come to.
struct Log {
    entries: BTreeMap<u64, Entry>,
    state: State,
    committed: Vec<u64>,
    lost: bool,
}

/// What a journal holds of a shard while the shard is on its core.
struct Part<'a> {
    epoch: u64,
    ownership: u32,
    events: Vec<(Position, Step<'a>)>,
}

enum Step<'a> {
    Header(State),
    Record(&'a Entry),
}

fn parts<'a>(journals: &'a [Journal], shard: u16) -> Vec<Part<'a>> {
    let mut parts: Vec<Part<'a>> = Vec::new();
    for journal in journals {
        let others = parts.len();
        for event in &journal.events {
            match &event.what {
                What::Header(states) => {
                    let Some(state) = states.iter().find(|state| state.shard == shard) else { continue };
                    if parts.len() == others || parts[parts.len() - 1].ownership != state.ownership {
                        let (epoch, ownership) = (journal.epoch, state.ownership);
                        parts.push(Part { epoch, ownership, events: Vec::new() });
                    }
                    parts.last_mut().expect("a part").events.push((event.at, Step::Header(*state)));
                }
                What::Record(entry) if entry.record.shard == shard => {
                    parts.last_mut().expect("a part").events.push((event.at, Step::Record(entry)));
                }
                What::Record(_) => {}
            }
        }
    }
    parts.sort_by_key(|part| (part.epoch, part.ownership));
    parts
}

fn shard_log(
    manifest: &Manifest,
    journals: &[Journal],
    shard: u16,
    snapshot: Option<u64>,
    truncate: bool,
) -> Result<Log, Refused> {
    let parts = parts(journals, shard);
    let claims: BTreeSet<(u64, u32)> = parts.iter().map(|part| (part.epoch, part.ownership)).collect();
    if claims.len() < parts.len() {
        return Err(Refused);
    }
    let covered_to = snapshot.unwrap_or(0);
    let mut state = State::default();
    let mut marked = (0, 0);
    let mut time_ms = 0;
    let mut committed = Vec::new();
    for part in &parts {
        let mut part_time_ms = 0;
        for (_, event) in &part.events {
            match event {
                Step::Header(header) => {
                    state = *header;
                    part_time_ms = header.time_ms;
                    if (header.last.0, header.snapshot.0) == (0, 0) {
                        // All that was known before was let go.
                        marked = (0, 0);
                    }
                    marked = marked.max(header.snapshot);
                }
                Step::Record(Entry { record, .. }) => {
                    if record.kind == 3 {
                        (state.term, state.vote) = (record.term, u64_at(&record.payload, 0));
                    }
                    if record.kind == 8 {
                        marked = marked.max((record.index, record.term));
                    }
                    if record.is_in_log() {
                        part_time_ms = part_time_ms.max(record.timestamp_ms);
                    }
                    if record.kind == 6 && record.index == 0 && record.payload[8] == 1 {
                        committed.push(u64_at(&record.payload, 0));
                    }
                }
            }
        }
        time_ms = time_ms.max(part_time_ms);
    }
    if marked.0 > covered_to {
        return Err(Refused);
    }
    let lossy = journals.iter().any(|journal| journal.lossy);
    let known = |part: &Part<'_>, at: Position| {
        manifest.truncations.iter().any(|known| known.shard == shard && is_given_up(known, part, at))
    };
    let mut entries: BTreeMap<u64, Entry> = BTreeMap::new();
    let mut end = (0, 0);
    let mut lost = false;
    // What moves the end of the log: whether it begins a part, the last index before it, the end behind it, and its record.
    let mut moves = Vec::new();
    for part in &parts {
        let mut last = None;
        for (at, event) in &part.events {
            let (before, end, entry) = match event {
                Step::Header(header) if last == Some(header.last.0) => continue,
                Step::Header(header) => (header.last.0, header.last, None),
                Step::Record(entry) if entry.record.is_in_log() => {
                    (entry.record.index - 1, (entry.record.index, entry.record.term), Some(*entry))
                }
                Step::Record(_) => continue,
            };
            last = Some(end.0);
            if !known(part, *at) {
                moves.push((std::ptr::eq(at, &part.events[0].0), before, end, entry));
            }
        }
    }
    for (place, (begins, before, moved_to, entry)) in moves.iter().enumerate() {
        let have = covered_to.max(end.0);
        if *before > have && moves[place..].iter().any(|later| later.1 <= have) {
            // It is replaced, with all that it goes on from.
            continue;
        }
        // Where something was lost, only a log of the same last index and term is the same log.
        let other = *begins && lossy && *before > covered_to && *moved_to != end;
        if *before > have || other {
            if !truncate {
                return Err(Refused);
            }
            lost = true;
            break;
        }
        entries.split_off(&before.saturating_add(1));
        if let Some(entry) = entry {
            entries.insert(moved_to.0, (*entry).clone());
        }
        end = *moved_to;
    }
    if entries.values().any(|entry| entry.payload.is_none() && entry.record.index > covered_to) {
        return Err(Refused);
    }
    for Entry { record, .. } in entries.values() {
        if (record.kind == 6 || record.kind == 7) && record.payload[8] == 1 {
            committed.push(u64_at(&record.payload, 0));
        }
    }
    let snapshot_term = if marked.0 == covered_to { marked.1 } else { 0 };
    let state = State {
        shard,
        ownership: 0,
        last: if end.0 >= covered_to { end } else { (covered_to, snapshot_term) },
        snapshot: (covered_to, snapshot_term),
        time_ms,
        ..state
    };
    Ok(Log { entries, state, committed, lost })
}

fn is_given_up(known: &Truncation, part: &Part<'_>, at: Position) -> bool {
    (part.epoch, part.ownership, at) >= (known.from_epoch, known.from_ownership, known.from)
        && part.epoch <= known.to_epoch
}

impl Model {
    /// What a replay of a shard's entries above an index visits and returns as unfinished; nothing if the replay fails
    /// because a prepared part is missing.
    pub(crate) fn replay(&self, shard: u16, above: u64) -> Option<(Vec<Visit>, Vec<Unfinished>)> {
        let mut visits = Vec::new();
        let mut held: BTreeMap<u64, (u64, Vec<u8>)> = BTreeMap::new();
        for (index, Entry { record, payload }) in &self.logs[usize::from(shard)] {
            let Some(payload) = payload else { continue };
            let command = match record.kind {
                1 => Some(payload.clone()),
                2 => None,
                5 => {
                    held.insert(u64_at(payload, 0), (*index, payload[8..].to_vec()));
                    continue;
                }
                7 => {
                    let part = held.remove(&u64_at(payload, 0));
                    if *index <= above || payload[8] == 0 {
                        continue;
                    }
                    Some(part?.1)
                }
                _ => continue,
            };
            if *index > above {
                visits.push(Visit {
                    index: *index,
                    term: record.term,
                    timestamp_ms: record.timestamp_ms,
                    seed: record.seed,
                    payload: command,
                });
            }
        }
        let open = held.into_iter().filter(|(_, (index, _))| *index > above);
        let mut unfinished: Vec<_> = open
            .map(|(transaction, (index, payload))| Unfinished {
                transaction,
                shard,
                index,
                commit: self.committed.contains(&transaction),
                payload,
            })
            .collect();
        unfinished.sort_by_key(|part| part.index);
        Some((visits, unfinished))
    }
}
