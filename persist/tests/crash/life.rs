//! A server from its start to its end: random steps, each as small as a crash can tell apart.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
};

use duva_persist::{
    format::{Kind, Position, ShardState, record_flag},
    journal::{Fragments, Journal, JournalOptions, SEGMENT_BYTES_MIN, Sync, Write},
    manifest::Manifest,
    names,
    record::Record,
    recovery::{Scan, Segment},
};

use crate::{
    Mutation,
    disk::{Disk, Ticket},
    model::{Item, Log, Op, OpKind, What},
    random::Random,
};

pub(crate) struct Life<'a> {
    pub(crate) disk: &'a mut Disk,
    pub(crate) random: &'a mut Random,
    mutation: Option<Mutation>,
    pub(crate) cores: Vec<Core>,
    shards: Vec<Shard>,
    /// The logs as the journals have them, and as they were at the start.
    pub(crate) logs: Vec<Log>,
    base: Vec<Log>,
    transactions: Vec<Transaction>,
    used: &'a mut Used,
    /// Earlier journals' segments that are still there, by epoch and core, oldest first.
    old: Vec<VecDeque<Segment>>,
    now_ms: u64,
    pub(crate) recycled: u64,
    /// Snapshots may cover prepared parts that are not finished.
    pub(crate) snapshots_hold_parts: bool,
}

/// What may not be used twice.
#[derive(Default)]
pub(crate) struct Used {
    /// Transactions up to this number.
    pub(crate) transactions: u64,
    /// Shard, index and term of every entry that there ever was.
    pub(crate) terms: BTreeSet<(u16, u64, u64)>,
}

pub(crate) struct Core {
    number: u16,
    pub(crate) journal: Journal,
    pub(crate) ops: Vec<Op>,
    flights: Vec<Write>,
    sync: Option<(Sync, Ticket)>,
    /// Segments whose files are there, but not durably.
    prepared: Vec<u32>,
    /// Files that nobody needs, oldest first.
    free: VecDeque<String>,
    stream: Option<Stream>,
}

/// A large entry on its way.
struct Stream {
    fragments: Fragments,
    shard: u16,
    start: Position,
    payload: Rc<[u8]>,
    pushed: usize,
}

struct Shard {
    core: usize,
    /// Entries up to here stay.
    committed: u64,
    /// Entries up to here are covered by a snapshot whose mark is durable.
    covered: u64,
    snapshot: Option<Snapshot>,
}

struct Snapshot {
    index: u64,
    content: Vec<u8>,
    /// So many of the core's ops must be durable before the file gets its name.
    ops: usize,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Begun,
    Written,
    Synced,
    Named,
    Durable,
    /// The mark is the core's op of this number.
    Marked(usize),
}

struct Transaction {
    id: u64,
    parts: Vec<u16>,
    /// The core and number of each op that must be durable before the transaction goes on.
    awaited: Vec<(usize, usize)>,
    decision: Option<bool>,
    /// Parts to finish.
    unfinished: Vec<u16>,
}

impl Core {
    /// So many ops lie before the position, all groups among them whole.
    pub(crate) fn ops_before(&self, position: Position) -> usize {
        let before = self.ops.iter().take_while(|op| op.end.is_some_and(|end| end <= position)).count();
        (0..=before).rev().find(|count| *count == 0 || !self.ops[count - 1].grouped).unwrap_or(0)
    }

    fn synced_ops(&self) -> usize {
        self.ops_before(self.journal.synced_to())
    }
}

impl<'a> Life<'a> {
    /// What the server is once its start is durable: `manifest` is recorded and the journals are begun. `logs` are what `scan`
    /// found.
    pub(crate) fn new(
        disk: &'a mut Disk,
        random: &'a mut Random,
        used: &'a mut Used,
        mutation: Option<Mutation>,
        (manifest, scan): (&Manifest, &Scan),
        journals: Vec<Journal>,
        logs: Vec<Log>,
    ) -> Self {
        let count = journals.len() as u16;
        let shards = (0..).zip(&logs).map(|(shard, log)| Shard {
            core: usize::from(home(shard, manifest.epoch, count)),
            committed: log.last_index(),
            covered: log.marked,
            snapshot: None,
        });
        let cores = (0..).zip(journals).map(|(number, journal)| {
            let own = |name: &&String| names::parse_segment(name).is_some_and(|(core, _)| core == number);
            Core {
                number,
                journal,
                ops: Vec::new(),
                flights: Vec::new(),
                sync: None,
                prepared: Vec::new(),
                free: scan.empty().iter().filter(own).cloned().collect(),
                stream: None,
            }
        });
        let mut old: BTreeMap<_, VecDeque<Segment>> = BTreeMap::new();
        for segment in scan.segments().iter().filter(|segment| disk.exists(&segment.name)) {
            old.entry((segment.epoch, segment.core)).or_default().push_back(segment.clone());
        }
        let open: BTreeSet<u64> = logs.iter().flat_map(|log| log.open()).map(|part| part.0).collect();
        let transactions = open.into_iter().map(|id| {
            let unfinished = (0..).zip(&logs).filter(|(_, log)| log.open().iter().any(|part| part.0 == id));
            Transaction {
                id,
                parts: Vec::new(),
                awaited: Vec::new(),
                decision: Some(logs.iter().any(|log| log.decided(id) == Some(true))),
                unfinished: unfinished.map(|(shard, _)| shard).collect(),
            }
        });
        Self {
            cores: cores.collect(),
            transactions: transactions.collect(),
            old: old.into_values().collect(),
            shards: shards.collect(),
            base: logs.clone(),
            logs,
            disk,
            random,
            mutation,
            used,
            now_ms: 1_000_000 * manifest.epoch,
            recycled: 0,
            snapshots_hold_parts: false,
        }
    }

    /// Runs for some steps, or until the disk fails.
    pub(crate) fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            self.now_ms += self.random.below(20);
            match self.random.below(64) {
                0..14 => self.append_entries(),
                14..16 => self.append_other(),
                16..18 => self.overwrite(),
                18..20 => self.stream(),
                20..28 => self.close(),
                28..40 => self.write(),
                40..48 => self.sync(),
                48..50 => self.prepare_segments(),
                50..52 => self.sync_names(),
                52 => self.roll(),
                53..58 => self.snapshot(),
                58..60 => self.trim(),
                _ => self.transact(),
            }
            self.settle();
            if self.cores.iter().any(|core| core.journal.is_poisoned()) {
                return;
            }
        }
    }

    /// The process ends, in the middle of its writes.
    pub(crate) fn end(&mut self) {
        for core in &mut self.cores {
            for write in std::mem::take(&mut core.flights) {
                if self.random.once_in(2) {
                    let name = names::segment(core.number, write.sequence);
                    self.disk.tear(&name, write.offset as usize, &write.bytes, self.random);
                }
            }
        }
    }

    fn pick_shard(&mut self) -> u16 {
        self.random.below(self.shards.len() as u64) as u16
    }

    fn pick_core(&mut self) -> usize {
        self.random.below(self.cores.len() as u64) as usize
    }

    fn payload(&mut self) -> Rc<[u8]> {
        let bytes = match self.random.below(80) {
            0 => self.random.below(200_000),
            1..6 => self.random.below(5_000),
            _ => self.random.below(200),
        };
        fill(bytes as usize, self.random.next())
    }

    /// An entry with this term, or another if an entry of the shard with this index had that before: two entries of the same
    /// index and term are the same.
    fn item(&mut self, shard: u16, index: u64, mut term: u64, what: What) -> Item {
        while !self.used.terms.insert((shard, index, term)) {
            term = 1 + self.random.below(1000);
        }
        Item { term, time_ms: self.now_ms, seed: self.random.next(), what }
    }

    fn append_entries(&mut self) {
        for _ in 0..=self.random.below(3) {
            let shard = self.pick_shard();
            let payload = self.payload();
            let grouped = self.random.once_in(8);
            self.append_next(shard, What::Entry(payload), grouped);
        }
    }

    fn append_other(&mut self) {
        let shard = self.pick_shard();
        let kind = self.random.below(6);
        if kind < 2 {
            self.append_next(shard, What::Tick, false);
        } else if kind < 4 {
            self.tell_committed(shard);
        } else {
            let term = self.logs[usize::from(shard)].term + self.random.below(3);
            let vote = self.random.below(5);
            self.append(shard, OpKind::Vote(term, vote), false);
        }
    }

    /// Appends up to where a shard's log is committed, unless this journal has nothing else of the shard: it may go as a whole then.
    fn tell_committed(&mut self, shard: u16) {
        let (state, log) = (&self.shards[usize::from(shard)], &self.logs[usize::from(shard)]);
        let is_entry = |op: &Op| op.shard == shard && matches!(op.what, OpKind::Append(..));
        if self.cores[state.core].ops.iter().any(is_entry) {
            let op = OpKind::Commit(state.committed, (log.term, log.vote));
            self.append(shard, op, false);
        }
    }

    /// Appends behind the last entry.
    fn append_next(&mut self, shard: u16, what: What, grouped: bool) -> (usize, usize) {
        let log = &self.logs[usize::from(shard)];
        let (index, term) = (log.last_index() + 1, log.items.last().map_or(1, |item| item.term));
        let term = term + u64::from(self.random.once_in(6));
        let item = self.item(shard, index, term, what);
        self.append(shard, OpKind::Append(index, item), grouped)
    }

    /// Replaces entries that are not committed, by one of any term.
    fn overwrite(&mut self) {
        let shard = self.pick_shard();
        let log = &self.logs[usize::from(shard)];
        let committed = self.shards[usize::from(shard)].committed;
        let plain = |item: &Item| matches!(item.what, What::Entry(_) | What::Tick);
        if log.last_index() <= committed || !log.items[committed as usize..].iter().all(plain) {
            return;
        }
        let index = committed + 1 + self.random.below(log.last_index() - committed);
        let term = 1 + self.random.below(4);
        let payload = self.payload();
        let item = self.item(shard, index, term, What::Entry(payload));
        self.append(shard, OpKind::Append(index, item), false);
    }

    /// Appends; returns the core and the op's number.
    fn append(&mut self, shard: u16, what: OpKind, grouped: bool) -> (usize, usize) {
        let number = self.shards[usize::from(shard)].core;
        let core = &mut self.cores[number];
        let start = core.journal.mark_position();
        let (record, payload) = record(shard, &what, grouped);
        core.journal.append(&record, |buffer| buffer.extend_from_slice(&payload));
        self.note(shard, what, start, grouped)
    }

    fn note(&mut self, shard: u16, what: OpKind, start: Position, grouped: bool) -> (usize, usize) {
        self.logs[usize::from(shard)].apply(&what);
        let core = self.shards[usize::from(shard)].core;
        self.cores[core].ops.push(Op { shard, what, start, end: None, grouped });
        (core, self.cores[core].ops.len() - 1)
    }

    /// Begins a large entry, goes on with it, completes it or gives it up.
    fn stream(&mut self) {
        let number = self.pick_core();
        let Some(mut stream) = self.cores[number].stream.take() else {
            let shard = self.pick_shard();
            let bytes = self.random.below(60_000) as usize;
            let payload = fill(bytes, self.random.next());
            let number = self.shards[usize::from(shard)].core;
            let core = &mut self.cores[number];
            if core.stream.is_none() {
                core.stream = Some(Stream {
                    fragments: Fragments::begin(&mut core.journal, shard),
                    shard,
                    start: core.journal.mark_position(),
                    payload,
                    pushed: 0,
                });
            }
            return;
        };
        let journal = &mut self.cores[number].journal;
        match self.random.below(8) {
            0 => stream.fragments.abandon(journal),
            1..6 => {
                let bytes = self.random.below((stream.payload.len() - stream.pushed) as u64 + 1) as usize;
                stream.fragments.push(journal, &stream.payload[stream.pushed..stream.pushed + bytes]);
                stream.pushed += bytes;
                self.cores[number].stream = Some(stream);
            }
            _ => {
                let log = &self.logs[usize::from(stream.shard)];
                let (index, term) = (log.last_index() + 1, log.items.last().map_or(1, |item| item.term));
                let item = self.item(stream.shard, index, term, What::Entry(stream.payload));
                let op = OpKind::Append(index, item);
                let (header, payload) = record(stream.shard, &op, false);
                let journal = &mut self.cores[number].journal;
                stream.fragments.finish(journal, &header, &payload[stream.pushed..]);
                self.note(stream.shard, op, stream.start, false);
            }
        }
    }

    fn close(&mut self) {
        let core = self.pick_core();
        self.close_core(core);
    }

    fn close_core(&mut self, number: usize) {
        let core = &mut self.cores[number];
        core.journal.close_block(self.now_ms);
        let end = core.journal.appended_to();
        core.ops.iter_mut().rev().take_while(|op| op.end.is_none()).for_each(|op| op.end = Some(end));
    }

    fn roll(&mut self) {
        let number = self.pick_core();
        let core = &mut self.cores[number];
        if core.journal.unwritten_bytes() < 1 << 20 {
            core.journal.roll(self.now_ms);
            self.close_core(number);
        }
    }

    /// Begins a write, or completes one of those under way.
    fn write(&mut self) {
        let number = self.pick_core();
        let core = &mut self.cores[number];
        if core.flights.is_empty() || self.random.once_in(3) {
            core.flights.extend(core.journal.next_write());
        } else {
            let write = core.flights.swap_remove(self.random.below(core.flights.len() as u64) as usize);
            let name = names::segment(core.number, write.sequence);
            match self.disk.write(&name, write.offset as usize, &write.bytes, self.random) {
                Ok(()) => core.journal.written(write, self.now_ms),
                Err(_) => core.journal.poison(),
            }
        }
    }

    fn sync(&mut self) {
        let number = self.pick_core();
        let core = &mut self.cores[number];
        if let Some((sync, ticket)) = core.sync.take() {
            match self.disk.end_sync(&ticket) {
                Ok(()) => core.journal.synced(sync),
                Err(_) => core.journal.poison(),
            }
        } else if let Some(sync) = core.journal.next_sync() {
            let ticket = self.disk.begin_sync(&names::segment(core.number, sync.sequence));
            core.sync = Some((sync, ticket));
        }
    }

    fn prepare_segments(&mut self) {
        let number = self.pick_core();
        let core = &mut self.cores[number];
        if self.random.once_in(8) {
            core.journal.retry_segments();
        }
        while let Some(sequence) = core.journal.wants_segment() {
            let name = names::segment(core.number, sequence);
            if self.random.once_in(16) {
                core.journal.segment_failed(sequence);
            } else if self.disk.exists(&name) {
                assert_eq!(Some(sequence), core.journal.segments().next(), "only the first is there already");
                core.journal.segment_ready(sequence);
            } else {
                match core.free.pop_front() {
                    Some(free) => {
                        self.disk.rename(&free, &name);
                        self.recycled += 1;
                    }
                    None => self.disk.create(&name),
                }
                if self.mutation == Some(Mutation::UseSegmentsEarly) {
                    core.journal.segment_ready(sequence);
                } else {
                    core.prepared.push(sequence);
                }
            }
        }
    }

    fn sync_names(&mut self) {
        self.disk.sync_names();
        for core in &mut self.cores {
            core.prepared.drain(..).for_each(|sequence| core.journal.segment_ready(sequence));
        }
        for snapshot in self.shards.iter_mut().filter_map(|shard| shard.snapshot.as_mut()) {
            if snapshot.stage == Stage::Named {
                snapshot.stage = Stage::Durable;
            }
        }
    }

    /// Begins a shard's snapshot, or takes it a step further.
    fn snapshot(&mut self) {
        let shard = self.pick_shard();
        let state = &mut self.shards[usize::from(shard)];
        let core = &self.cores[state.core];
        let log = &self.logs[usize::from(shard)];
        let Some(mut snapshot) = state.snapshot.take() else {
            if state.committed > state.covered.max(log.marked) {
                let index = state.committed;
                if !self.snapshots_hold_parts && log.open_at(index) {
                    return;
                }
                let (content, ops) = (log.snapshot(index), core.ops.len());
                state.snapshot = Some(Snapshot { index, content, ops, stage: Stage::Begun });
            }
            return;
        };
        let name = names::snapshot(shard, snapshot.index);
        let partial = format!("{name}.tmp");
        let early = self.mutation == Some(Mutation::NameSnapshotsEarly);
        match snapshot.stage {
            Stage::Begun => {
                self.disk.create(&partial);
                if self.disk.write(&partial, 0, &snapshot.content, self.random).is_err() {
                    return;
                }
                snapshot.stage = Stage::Written;
            }
            Stage::Written => {
                let skipped = self.mutation == Some(Mutation::LeaveSnapshotsUnsynced);
                if !skipped && self.disk.sync(&partial).is_err() {
                    return;
                }
                snapshot.stage = Stage::Synced;
            }
            Stage::Synced if early || core.synced_ops() >= snapshot.ops => {
                self.disk.rename(&partial, &name);
                snapshot.stage = Stage::Named;
            }
            Stage::Durable => {
                let index = snapshot.index;
                let (_, op) = self.append(shard, OpKind::Mark(index), false);
                snapshot.stage = Stage::Marked(op);
            }
            Stage::Marked(op) if core.synced_ops() > op => {
                state.covered = snapshot.index;
                self.remove_snapshots(shard);
                return;
            }
            Stage::Synced | Stage::Named | Stage::Marked(_) => {}
        }
        self.shards[usize::from(shard)].snapshot = Some(snapshot);
    }

    /// Removes the snapshots that newer ones replace.
    fn remove_snapshots(&mut self, shard: u16) {
        let covered = self.shards[usize::from(shard)].covered;
        for name in snapshots(self.disk, shard).filter(|snapshot| snapshot.1 < covered).collect::<Vec<_>>() {
            self.disk.remove(&name.0);
        }
    }

    /// Lets segments go that nothing needs.
    fn trim(&mut self) {
        let open = self.unsettled();
        let needed = |op: &&Op| match &op.what {
            OpKind::Append(index, item) => {
                *index > self.shards[usize::from(op.shard)].covered
                    || transaction(item).is_some_and(|id| open.contains(&id))
            }
            OpKind::Vote(..) | OpKind::Mark(_) | OpKind::Commit(..) => false,
        };
        for core in &mut self.cores {
            let starts = core.ops.iter().filter(needed).map(|op| op.start);
            let keep_from = starts.fold(core.journal.mark_position(), Position::min);
            for sequence in core.journal.trim(keep_from) {
                let name = names::segment(core.number, sequence);
                if core.free.is_empty() && self.random.once_in(3) {
                    self.disk.remove(&name);
                } else {
                    core.free.push_back(name);
                }
            }
        }
        let mut of_old = self.base.iter().flat_map(|log| &log.items).filter_map(transaction);
        if of_old.any(|id| open.contains(&id)) {
            return;
        }
        let covered = |segment: &Segment| {
            segment.shards.iter().all(|(shard, last)| *last <= self.shards[usize::from(*shard)].covered)
        };
        for journal in &mut self.old {
            while let Some(segment) = journal.front().filter(|segment| covered(segment)).cloned() {
                journal.pop_front();
                match self.cores.get_mut(usize::from(segment.core)) {
                    Some(core) if !core.free.is_empty() || self.random.once_in(3) => {
                        core.free.push_back(segment.name);
                    }
                    _ => self.disk.remove(&segment.name),
                }
            }
        }
    }

    /// Transactions of which some part is not finished, or not covered as such by a snapshot.
    fn unsettled(&self) -> BTreeSet<u64> {
        let mut unsettled: BTreeSet<u64> =
            self.transactions.iter().filter(|open| open.decision.is_none()).map(|open| open.id).collect();
        for (log, shard) in self.logs.iter().zip(&self.shards) {
            for item in &log.items {
                if let What::Prepare(id, _) = item.what
                    && log.finished(id).is_none_or(|(index, _)| index > shard.covered)
                {
                    unsettled.insert(id);
                }
            }
        }
        unsettled
    }

    /// Begins a transaction over two shards, or takes one further.
    fn transact(&mut self) {
        let ready =
            |open: &Transaction| open.awaited.iter().all(|(core, op)| self.cores[*core].synced_ops() > *op);
        let Some(place) = self.transactions.iter().position(ready).filter(|_| !self.random.once_in(4)) else {
            if self.transactions.len() < 3 {
                self.used.transactions += 1;
                let id = self.used.transactions;
                let first = self.pick_shard();
                let parts = vec![first, (first + 1) % self.shards.len() as u16];
                let mut awaited = Vec::new();
                for shard in &parts {
                    let payload = self.payload();
                    awaited.push(self.append_next(*shard, What::Prepare(id, payload), false));
                }
                self.transactions.push(Transaction {
                    id,
                    unfinished: parts.clone(),
                    parts,
                    awaited,
                    decision: None,
                });
            }
            return;
        };
        let mut open = self.transactions.swap_remove(place);
        match open.decision {
            None => {
                let commit = !self.random.once_in(4);
                open.awaited = vec![self.append_next(open.parts[0], What::Decision(open.id, commit), false)];
                open.decision = Some(commit);
            }
            Some(commit) => {
                if let Some(shard) = open.unfinished.pop() {
                    let grouped = self.random.once_in(8);
                    self.append_next(shard, What::Finish(open.id, commit), grouped);
                }
            }
        }
        if !open.unfinished.is_empty() {
            self.transactions.push(open);
        }
    }

    /// Takes note of what is committed by now.
    fn settle(&mut self) {
        for core in &self.cores {
            let written = core.ops_before(core.journal.written_to());
            let mut last = vec![0; self.shards.len()];
            for (place, op) in core.ops.iter().enumerate() {
                if let OpKind::Append(index, _) = op.what {
                    let last = &mut last[usize::from(op.shard)];
                    *last = if place < written { index } else { index.saturating_sub(1).min(*last) };
                }
            }
            for (shard, last) in self.shards.iter_mut().zip(last) {
                shard.committed = shard.committed.max(last);
            }
        }
    }
}

/// The journals of a start on so many cores, none of them begun.
pub(crate) fn journals(
    (manifest, scan): (&Manifest, &Scan),
    cores: u16,
    mutation: Option<Mutation>,
) -> Vec<Journal> {
    let mut states: Vec<Vec<ShardState>> = vec![Vec::new(); usize::from(cores)];
    for (shard, mut state) in (0..).zip(scan.states()) {
        if mutation == Some(Mutation::ForgetVotes) {
            state.vote = 0.into();
        }
        states[usize::from(home(shard, manifest.epoch, cores))].push(state);
    }
    let journal = |(core, states)| {
        let options = JournalOptions {
            core,
            epoch: manifest.epoch,
            segment_len: SEGMENT_BYTES_MIN,
            cluster: manifest.cluster,
            node: manifest.node,
            kernel_boot: manifest.kernel_boot,
        };
        Journal::new(options, scan.next_sequence(core), states)
    };
    (0..).zip(states).map(journal).collect()
}

/// A payload of so many bytes that a number tells from others.
fn fill(bytes: usize, number: u64) -> Rc<[u8]> {
    let mut payload = vec![number as u8; bytes];
    let told = bytes.min(8);
    payload[..told].copy_from_slice(&number.to_le_bytes()[..told]);
    payload.into()
}

/// The core that has a shard in an epoch: another one each time.
pub(crate) fn home(shard: u16, epoch: u64, cores: u16) -> u16 {
    (shard + epoch as u16) % cores
}

/// The snapshot files of a shard, with their indexes.
pub(crate) fn snapshots(disk: &Disk, shard: u16) -> impl Iterator<Item = (String, u64)> {
    use duva_persist::recovery::Directory;
    let names = disk.list().expect("this disk can be listed").into_iter();
    names.filter_map(move |name| {
        let (of, index) = names::parse_snapshot(&name)?;
        (of == shard).then_some((name, index))
    })
}

fn transaction(item: &Item) -> Option<u64> {
    match item.what {
        What::Prepare(id, _) | What::Decision(id, _) | What::Finish(id, _) => Some(id),
        What::Entry(_) | What::Tick => None,
    }
}

/// The record that says this.
fn record(shard: u16, what: &OpKind, grouped: bool) -> (Record, Vec<u8>) {
    let flags = if grouped { record_flag::GROUP } else { 0 };
    match what {
        OpKind::Append(index, item) => {
            let decided = |id: u64, commit: bool| [&id.to_le_bytes()[..], &[u8::from(commit)]].concat();
            let (kind, payload) = match &item.what {
                What::Entry(payload) => (Kind::Entry, payload.to_vec()),
                What::Tick => (Kind::Tick, Vec::new()),
                What::Prepare(id, payload) => (Kind::Prepare, [&id.to_le_bytes()[..], payload].concat()),
                What::Decision(id, commit) => (Kind::Decision, decided(*id, *commit)),
                What::Finish(id, commit) => (Kind::Finish, decided(*id, *commit)),
            };
            let record = Record {
                flags,
                index: *index,
                term: item.term,
                timestamp_ms: item.time_ms,
                seed: item.seed,
                ..Record::new(kind, shard)
            };
            (record, payload)
        }
        OpKind::Vote(term, vote) => {
            (Record { term: *term, ..Record::new(Kind::HardState, shard) }, vote.to_le_bytes().to_vec())
        }
        OpKind::Commit(index, (term, vote)) => {
            let record = Record { index: *index, term: *term, ..Record::new(Kind::HardState, shard) };
            (record, vote.to_le_bytes().to_vec())
        }
        OpKind::Mark(index) => {
            (Record { index: *index, term: 1, ..Record::new(Kind::SnapshotMark, shard) }, Vec::new())
        }
    }
}
