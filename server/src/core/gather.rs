//! Commands whose keys, or shards, lie on several cores.
//!
//! The connection's core coordinates. Participants take the locks of their keys, the coordinator reads under them, and
//! each part of the change is an ordinary command on one core. Invariants:
//!
//! - **Isolation.** Every lock of a gather is held at one moment, before the first part changes anything; nobody else
//!   reads or writes a locked key. So no reader sees half of a change.
//! - **No deadlock.** See [`super::locks`]: a refused gather gives everything back and asks again, older by then.
//! - **Order.** A connection executes nothing while a gather of its own is under way, and a gather begins only when
//!   nothing earlier of its connection is unfinished. Once it is answered, only its locks may be left to give back.
//! - **Bounded pieces.** A part of very many keys is worked on piece by piece, in the order of its keys: the next piece is
//!   sent when the one before it was answered, so that every core returns to its loop in between.

mod merged;
mod walk;

use std::ops::Range;

use duva_engine::{
    DetachedEntry, KeyHash, Protocol, Reply,
    command::{self, Command, Flags, Merge, Plan, Run},
    rdb,
};
use duva_net::io::Token;

use super::{
    admin::{AdminPurpose, AdminReply},
    batch::{Answer, GatherKey, Locking, Message, PIECE_BYTES_MAX, PIECE_KEYS_MAX, Work},
    locks::TransactionId,
    node::{Node, Origin},
    replies::Sequence,
    request::{Large, Mode, OwnedRequest},
    save::Cut,
};

/// Refusals in a row after which a gather rests before it asks again: its keys may be locked for as long as an fsync takes.
const REFUSALS_MAX: u32 = 8;

/// How long it rests then, in milliseconds.
const REST_MS: u64 = 1;

/// The gathers that a core coordinates.
#[derive(Default)]
pub struct Gathers {
    places: Vec<Option<Box<Gather>>>,
    free: Vec<u32>,
    /// Refused gathers, and from which time on they ask again, in milliseconds since the Unix epoch.
    retries: Vec<(u32, u64)>,
    last_transaction: u64,
}

impl Gathers {
    /// When the next refused one asks again, in milliseconds since the Unix epoch.
    pub fn next_retry_ms(&self) -> Option<u64> {
        self.retries.iter().map(|&(_, at_ms)| at_ms).min()
    }

    /// How many are under way.
    pub fn count(&self) -> usize {
        self.places.len() - self.free.len()
    }
}

struct Gather {
    key: GatherKey,
    token: Token,
    sequence: Sequence,
    request: Box<OwnedRequest>,
    phase: Phase,
    parts: Vec<Part>,
    /// Answers that are still to come.
    waiting: usize,
    refused: bool,
    /// How often in a row it was refused.
    refusals: u32,
    /// A part's error, which becomes the reply.
    error: Option<Vec<u8>>,
    /// What is tried again once the locks are given back.
    refused_phase: Option<Phase>,
}

struct Part {
    core: usize,
    /// Ordinal numbers of its keys.
    keys: Vec<usize>,
    /// How many of them the present phase has been sent with.
    sent: usize,
    /// The present phase's replies, of one piece after the other.
    reply: Vec<u8>,
    /// Up to which key, and to where in `reply`, each piece that was answered goes.
    pieces: Vec<(usize, usize)>,
    /// Whether it holds its locks.
    is_locked: bool,
    entry: Option<Box<DetachedEntry>>,
    admin: Option<AdminReply>,
    walked: Option<(Option<u64>, usize, usize)>,
    /// What it is to write, with a journal.
    writes: Vec<OwnedRequest>,
    has_prepared: bool,
}

enum Phase {
    /// Locks taken, command read under them.
    Read(Merge),
    /// Locks asked for, then [`Phase::Write`].
    Lock(Merge),
    /// The command's parts change their keys.
    Write(Merge),
    /// Parts run without locks.
    Free(Merge),
    /// Locks asked for, and whether the keys exist.
    Probe(Plan),
    /// MSETNX: none exists.
    SetAll,
    /// The value is taken out, or copied.
    Fetch(Plan),
    /// The value is put under the other key.
    Store(Plan),
    /// LCS: both strings are read under locks.
    ReadStrings,
    /// With a journal: the parts' shares go to their cores, piece by piece.
    Stage(Outcome),
    /// The locks are given back, piece by piece.
    GiveBack,
    /// With a journal: all writes are on one core, as one group.
    Apply(Outcome),
    /// With journals: every part is made durable.
    Prepare(Outcome),
    /// Every part is applied.
    Finish(Outcome),
    /// SCAN, step after step.
    Walk(Walk),
    /// Every lock asked for, then [`Phase::Cut`].
    LockAll(Cut),
    /// Something begins at one moment.
    Cut(Cut),
    /// About the cores themselves.
    Admin(AdminPurpose),
}

/// What the reply is once everything is written.
#[derive(Clone, Copy)]
enum Outcome {
    /// The parts' replies, merged.
    Merged(Merge),
    /// This.
    Fixed(&'static [u8]),
}

struct Walk {
    cursor: u64,
    remaining: usize,
    emitted: usize,
    bytes: Vec<u8>,
}

impl Node {
    /// Begins the gather of `request` for the reply slot of a connection, which is fenced.
    pub fn begin_gather(&mut self, token: Token, sequence: Sequence, mut request: Box<OwnedRequest>) {
        let command = request.command;
        let is_write = command.flags.contains(Flags::WRITE);
        let phase = match command.run {
            // In a cluster each shard's log has an entry of its own.
            Run::Everywhere(_, merge) if is_write && self.groups.is_some() => Phase::Free(merge),
            Run::Split(_, merge) | Run::Everywhere(_, merge) if is_write => Phase::Lock(merge),
            Run::Split(_, merge) => Phase::Read(merge),
            Run::Everywhere(_, Merge::Sum) => Phase::Read(Merge::Sum),
            Run::Everywhere(_, merge) => Phase::Free(merge),
            Run::Staged(_, Plan::LongestCommonSubsequence) => Phase::ReadStrings,
            Run::Staged(_, plan) => Phase::Probe(plan),
            Run::Walk(_) => match command::scan::parse(&request.view().args()) {
                Ok(scan) => Phase::Walk(Walk {
                    cursor: scan.cursor().0,
                    remaining: scan.count(),
                    emitted: 0,
                    bytes: Vec::new(),
                }),
                Err(error) => return self.fail(token, sequence, command, error),
            },
            Run::Single(_) | Run::Server(_) => panic!("{} needs no gather", command.name),
        };
        if let Run::Staged(_, Plan::Copy) = command.run {
            let database = request.mode.database;
            if let Err(error) = command::keys::parse_copy(&request.view().args(), database) {
                return self.fail(token, sequence, command, error);
            }
        }
        let parts = match command.run {
            Run::Everywhere(..) => (0..self.cores).map(|core| Part::new(core, Vec::new())).collect(),
            Run::Walk(_) => Vec::new(),
            // Two keys, whose roles differ.
            Run::Staged(_, Plan::Rename | Plan::Copy) => {
                let keys = request.keys.iter().enumerate();
                keys.map(|(ordinal, key)| Part::new(self.owner_of(key.slot), vec![ordinal])).collect()
            }
            _ => self.parts_by_owner(&request.keys),
        };
        self.launch(token, sequence, request, phase, parts);
    }

    /// Begins a question or an order to every core.
    pub fn begin_admin(
        &mut self,
        token: Token,
        sequence: Sequence,
        request: Box<OwnedRequest>,
        purpose: AdminPurpose,
    ) {
        let parts = (0..self.cores).map(|core| Part::new(core, Vec::new())).collect();
        self.launch(token, sequence, request, Phase::Admin(purpose), parts);
    }

    /// Lets something begin under all locks, on every core at one moment or on this one.
    pub(super) fn begin_cut(&mut self, cut: Cut) {
        let cores = match cut {
            Cut::Dump { .. } => 0..self.cores,
            Cut::Shard => self.core..self.core + 1,
        };
        let parts = cores.map(|core| Part::new(core, Vec::new())).collect();
        self.launch(Token::default(), 0, Box::new(OwnedRequest::empty()), Phase::LockAll(cut), parts);
    }

    fn fail(&mut self, token: Token, sequence: Sequence, command: &Command, error: &str) {
        let mut reply = Vec::new();
        Reply::new(&mut reply, Protocol::Resp2).error(error);
        self.note_error(command, &reply);
        self.deliver(token, sequence, &reply, true);
    }

    fn parts_by_owner(&self, keys: &[KeyHash]) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        for (ordinal, key) in keys.iter().enumerate() {
            let core = self.owner_of(key.slot);
            match parts.iter_mut().find(|part| part.core == core) {
                Some(part) => part.keys.push(ordinal),
                None => parts.push(Part::new(core, vec![ordinal])),
            }
        }
        parts
    }

    fn launch(
        &mut self,
        token: Token,
        sequence: Sequence,
        request: Box<OwnedRequest>,
        phase: Phase,
        parts: Vec<Part>,
    ) {
        let gathers = &mut self.gathers;
        // Ages compare between cores by time; the core's number makes them unique.
        gathers.last_transaction = (gathers.last_transaction + 1).max(self.executor.now_ms << 8);
        let transaction = TransactionId(gathers.last_transaction << 12 | self.core as u64);
        let index = gathers.free.pop().unwrap_or_else(|| {
            gathers.places.push(None);
            gathers.places.len() as u32 - 1
        });
        let key = GatherKey { index, transaction, part: 0 };
        let mut gather = Box::new(Gather {
            key,
            token,
            sequence,
            request,
            phase,
            parts,
            waiting: 0,
            refused: false,
            refusals: 0,
            error: None,
            refused_phase: None,
        });
        gather.send(self);
        self.gathers.places[index as usize] = Some(gather);
        self.stats.gathers += 1;
    }

    /// Lets refused gathers ask again whose time has come.
    pub fn retry_gathers(&mut self) {
        let now_ms = self.executor.now_ms;
        if self.gathers.next_retry_ms().is_none_or(|at_ms| at_ms > now_ms) {
            return;
        }
        let (due, later) = self.gathers.retries.iter().partition(|&&(_, at_ms)| at_ms <= now_ms);
        self.gathers.retries = later;
        let due: Vec<(u32, u64)> = due;
        for (index, _) in due {
            let mut gather =
                self.gathers.places[index as usize].take().expect("a refused gather is under way");
            self.stats.gather_retries += 1;
            gather.send(self);
            self.gathers.places[index as usize] = Some(gather);
        }
    }

    /// Takes the answer of core `core` to a part of one of this core's gathers.
    pub fn take_answer(&mut self, key: GatherKey, answer: Answer, reply: &[u8]) {
        if key.is_of_shards() {
            return self.take_shards_answer(key, answer, reply);
        }
        let index = key.index as usize;
        let mut gather = self.gathers.places[index].take().expect("an answer to a gather that is under way");
        assert!(gather.key.transaction == key.transaction, "an answer to a gather that ended");
        gather.take_answer(key.part, answer, reply);
        if gather.goes_on(usize::from(key.part)) {
            gather.waiting += 1;
            gather.send_part(self, usize::from(key.part));
        }
        if gather.waiting > 0 {
            self.gathers.places[index] = Some(gather);
            return;
        }
        let advance = if std::mem::take(&mut gather.refused) {
            gather.refusals += 1;
            gather.release(self);
            gather.give_back(self, true)
        } else {
            gather.advance(self)
        };
        match advance {
            Advance::Sent => self.gathers.places[index] = Some(gather),
            Advance::Retry => {
                let rest_ms = if gather.refusals > REFUSALS_MAX { REST_MS } else { 0 };
                self.gathers.retries.push((key.index, self.executor.now_ms + rest_ms));
                self.gathers.places[index] = Some(gather);
            }
            Advance::Finished => self.gathers.free.push(key.index),
        }
    }
}

enum Advance {
    /// Another phase is under way.
    Sent,
    /// It holds no lock, and is to ask again.
    Retry,
    /// The reply was delivered, and no lock is held.
    Finished,
}

impl Phase {
    /// Whether parts of very many keys go through it piece by piece.
    fn is_in_pieces(&self) -> bool {
        matches!(
            self,
            Self::Read(_) | Self::Lock(_) | Self::Write(_) | Self::Probe(_) | Self::SetAll | Self::Stage(_)
        )
    }

    /// Whether what it sends has the values that are to be written.
    fn brings_values(&self) -> bool {
        matches!(self, Self::Write(_) | Self::SetAll | Self::Stage(_))
    }
}

impl Part {
    fn new(core: usize, keys: Vec<usize>) -> Self {
        Self {
            core,
            keys,
            sent: 0,
            reply: Vec::new(),
            pieces: Vec::new(),
            is_locked: false,
            entry: None,
            admin: None,
            walked: None,
            writes: Vec::new(),
            has_prepared: false,
        }
    }

    /// Whether it has more keys than one piece: its locks are given back as they were taken.
    fn is_long(&self) -> bool {
        self.keys.len() > PIECE_KEYS_MAX
    }

    /// Takes the keys that are sent next.
    fn next_piece(&mut self, request: &OwnedRequest, phase: &Phase) -> Range<usize> {
        let start = self.sent;
        let mut end = self.keys.len();
        if phase.is_in_pieces() {
            end = end.min(start + PIECE_KEYS_MAX);
        }
        if phase.brings_values() {
            let (mut rest_bytes, keys) = (PIECE_BYTES_MAX, start..end);
            for position in keys {
                rest_bytes = rest_bytes.saturating_sub(request.key_bytes(self.keys[position]));
                if rest_bytes == 0 {
                    end = position + 1;
                    break;
                }
            }
        }
        self.sent = end;
        start..end
    }
}

impl Gather {
    /// Sends the parts of the present phase.
    fn send(&mut self, node: &mut Node) {
        if let Phase::Walk(walk) = &self.phase {
            let slot = (walk.cursor >> 50) as u16;
            let core = node.owner_of(slot);
            self.parts = vec![Part::new(core, Vec::new())];
        }
        self.waiting = self.parts.len();
        for index in 0..self.parts.len() {
            self.begin_part(node, index);
        }
    }

    /// Sends the first, or only, piece of a part of the present phase.
    fn begin_part(&mut self, node: &mut Node, index: usize) {
        let part = &mut self.parts[index];
        part.sent = 0;
        part.reply.clear();
        part.pieces.clear();
        self.send_part(node, index);
    }

    /// Whether the part that was just answered has another piece.
    fn goes_on(&self, index: usize) -> bool {
        let part = &self.parts[index];
        match self.phase {
            // The answer says so.
            Phase::GiveBack => part.is_locked,
            _ => part.sent < part.keys.len() && !self.refused && self.error.is_none(),
        }
    }

    fn send_part(&mut self, node: &mut Node, index: usize) {
        let everywhere = matches!(self.request.command.run, Run::Everywhere(..));
        let lock = if everywhere { Locking::All } else { Locking::Keys };
        let command = self.request.command;
        let mut database = self.request.mode.database;
        let part = &mut self.parts[index];
        let piece = part.next_piece(&self.request, &self.phase);
        let is_over = piece.end == part.keys.len() && !part.is_long();
        let release = if is_over { Locking::Release } else { Locking::None };
        let (locking, work, command) = match &self.phase {
            Phase::Read(_) => (lock, Work::Command, command),
            Phase::Lock(_) => (lock, Work::Nothing, command),
            Phase::Write(_) => (release, Work::Command, command),
            // It was decided: a piece must not ask again.
            Phase::SetAll => (release, Work::Command, named("mset")),
            Phase::Stage(_) => (Locking::None, Work::Stage, staged_as(command)),
            Phase::GiveBack => (Locking::None, Work::GiveBack, command),
            Phase::Free(_) => (Locking::None, Work::Command, command),
            Phase::Probe(plan) => {
                database = self.database_of(*plan, self.parts[index].keys[0]);
                (Locking::Keys, Work::Exists, command)
            }
            Phase::Fetch(_) if node.log.is_some() => (Locking::None, Work::Duplicate, command),
            Phase::Fetch(Plan::Rename) => (Locking::Release, Work::Detach, command),
            Phase::Fetch(_) => (Locking::Release, Work::Duplicate, command),
            Phase::Store(plan) => {
                database = self.database_of(*plan, 1);
                let entry = self.parts[index].entry.take().expect("a store follows a fetch");
                (Locking::Release, Work::Attach(entry), command)
            }
            Phase::ReadStrings => (Locking::Keys, Work::Command, named("get")),
            Phase::Apply(_) => (Locking::None, Work::Apply(self.take_writes(index)), command),
            Phase::Prepare(_) => (Locking::None, Work::Prepare(self.take_writes(index)), command),
            Phase::Finish(_) => (Locking::None, Work::Finish, command),
            Phase::Walk(walk) => {
                (Locking::None, Work::Walk { cursor: walk.cursor, count: walk.remaining }, command)
            }
            Phase::LockAll(_) => (Locking::All, Work::Nothing, command),
            Phase::Cut(cut) => {
                let locking = if cut.keeps_locks() { Locking::None } else { Locking::Release };
                (locking, Work::Cut, command)
            }
            Phase::Admin(purpose) => (Locking::None, Work::Admin(purpose.request()), command),
        };
        let whole = everywhere || matches!(self.phase, Phase::Walk(_) | Phase::LockAll(_) | Phase::Cut(_));
        // Such work has requests of its own, or none.
        let is_bare = matches!(
            work,
            Work::Admin(_) | Work::Apply(_) | Work::Prepare(_) | Work::Finish | Work::GiveBack
        );
        let keys_only = matches!(self.phase, Phase::Lock(_));
        // Any other phase may be sent again, or goes to several cores whole.
        let is_last = self.phase.brings_values() && !whole;
        let large = if is_last { Large::Move } else { Large::Copy };
        let part = &self.parts[index];
        let mut request = self.request.view();
        request.mode.database = database;
        let batch = node.mesh.outgoing(part.core);
        let packed = if is_bare {
            None
        } else if whole {
            Some(batch.pack(&mut request, large))
        } else {
            let keys = command_keys(request.command);
            // Probing asks for the keys alone; values stay for the phase that sets them.
            let width = if matches!(self.phase, Phase::Probe(_)) { 1 } else { keys.1 };
            let ordinals = &part.keys[piece];
            let arguments = ordinals
                .iter()
                .filter(|_| !keys_only)
                .flat_map(|&ordinal| (0..width).map(move |offset| keys.0 + ordinal * keys.1 + offset));
            let arguments = std::iter::once(0).chain(arguments);
            Some(batch.pack_some(&mut request, arguments, ordinals.iter().copied(), large))
        };
        let packed = packed.map(|packed| packed.with_command(command));
        let gather = GatherKey { part: index as u16, ..self.key };
        batch.messages.push(Message::Part { gather, locking, work, packed });
    }

    fn take_writes(&mut self, index: usize) -> Vec<OwnedRequest> {
        std::mem::take(&mut self.parts[index].writes)
    }

    /// With a journal, under all locks: every part's share of the request is its write.
    fn write_shares(&mut self, node: &mut Node, outcome: Outcome) -> Advance {
        if self.parts.iter().any(Part::is_long) {
            self.phase = Phase::Stage(outcome);
            return self.send_next(node);
        }
        let (first, width) = command_keys(self.request.command);
        let is_whole = matches!(self.request.command.run, Run::Everywhere(..));
        for part in &mut self.parts {
            let mut request = self.request.view();
            let write = if is_whole {
                let count = request.ranges.len();
                OwnedRequest::select(&mut request, 0..count, std::iter::empty(), Large::Copy)
            } else {
                let positions = part.keys.iter();
                let arguments = positions
                    .flat_map(|ordinal| (0..width).map(move |offset| first + ordinal * width + offset));
                let arguments = std::iter::once(0).chain(arguments);
                OwnedRequest::select(&mut request, arguments, part.keys.iter().copied(), Large::Move)
            };
            part.writes.push(write);
        }
        self.write(node, outcome)
    }

    /// With a journal, under all locks: does the parts' writes, all or none of them.
    fn write(&mut self, node: &mut Node, outcome: Outcome) -> Advance {
        // Parts of one core write together.
        for index in (1..self.parts.len()).rev() {
            let core = self.parts[index].core;
            if let Some(first) = self.parts[..index].iter().position(|part| part.core == core) {
                let writes = self.take_writes(index);
                self.parts[first].writes.extend(writes);
            }
        }
        let writers = self.writers(|part| !part.writes.is_empty());
        self.send_writes(node, outcome, &writers)
    }

    /// Lets these parts, all that write, do so.
    fn send_writes(&mut self, node: &mut Node, outcome: Outcome, writers: &[usize]) -> Advance {
        let is_one = writers.len() == 1;
        self.phase = if is_one { Phase::Apply(outcome) } else { Phase::Prepare(outcome) };
        self.send_to(node, writers)
    }

    fn writers(&self, writes: impl Fn(&Part) -> bool) -> Vec<usize> {
        (0..self.parts.len()).filter(|&index| writes(&self.parts[index])).collect()
    }

    fn send_to(&mut self, node: &mut Node, parts: &[usize]) -> Advance {
        self.waiting = parts.len();
        for &index in parts {
            self.begin_part(node, index);
        }
        Advance::Sent
    }

    /// The writes of RENAME or COPY, whose value was read under locks.
    fn write_moved(&mut self, node: &mut Node, plan: Plan, entry: &DetachedEntry) -> Advance {
        let hasher = node.executor.hasher.clone();
        let database = self.database_of(plan, 1);
        let mode = self.request.mode;
        if plan == Plan::Rename {
            let source = self.request.argument(1).to_vec();
            self.parts[0].writes.push(OwnedRequest::new(named("del"), &[b"del", &source], &hasher, mode));
        }
        let target = self.request.argument(2).to_vec();
        let mut payload = Vec::new();
        rdb::dump_payload(entry.value(), &mut payload);
        let deadline_ms = entry.deadline_ms().unwrap_or(0).to_string();
        let arguments: [&[u8]; 6] =
            [b"restore", &target, deadline_ms.as_bytes(), &payload, b"REPLACE", b"ABSTTL"];
        let mode = Mode { database, ..mode };
        self.parts[1].writes.push(OwnedRequest::new(named("restore"), &arguments, &hasher, mode));
        self.write(node, Outcome::Fixed(self.moved_reply()))
    }

    fn moved_reply(&self) -> &'static [u8] {
        if self.request.command.name == "rename" { b"+OK\r\n" } else { b":1\r\n" }
    }

    /// The database of the key with this ordinal number.
    fn database_of(&mut self, plan: Plan, ordinal: usize) -> u8 {
        let database = self.request.mode.database;
        if plan == Plan::Copy && ordinal == 1 {
            let options = command::keys::parse_copy(&self.request.view().args(), database);
            return options.expect("the options were checked when the gather began").database;
        }
        database
    }

    fn take_answer(&mut self, part: u16, answer: Answer, reply: &[u8]) {
        let part = &mut self.parts[usize::from(part)];
        self.waiting -= 1;
        part.reply.extend_from_slice(reply);
        let is_over = part.sent == part.keys.len();
        part.is_locked = match &self.phase {
            Phase::Read(_) | Phase::Lock(_) | Phase::Probe(_) | Phase::ReadStrings | Phase::LockAll(_) => {
                true
            }
            // With a journal the coordinator gives the locks back, once all has been written.
            Phase::Stage(_) | Phase::Apply(_) | Phase::Prepare(_) | Phase::Finish(_) | Phase::Fetch(_) => {
                part.is_locked
            }
            Phase::GiveBack => !reply.is_empty(),
            // The last piece gave them back, unless there were many.
            _ => part.is_locked && (part.is_long() || !is_over),
        };
        if reply.first() == Some(&b'-') && !matches!(self.phase, Phase::Admin(_)) {
            self.error.get_or_insert_with(|| reply.to_vec());
        }
        part.has_prepared |= matches!(self.phase, Phase::Prepare(_));
        match answer {
            Answer::Reply | Answer::Observed(_) => part.pieces.push((part.sent, part.reply.len())),
            Answer::Refused => {
                // Earlier pieces are held.
                part.is_locked = !part.pieces.is_empty();
                self.refused = true;
            }
            Answer::Entry(entry) => part.entry = entry,
            Answer::Walked { cursor, visited, emitted } => part.walked = Some((cursor, visited, emitted)),
            Answer::Admin(reply) => part.admin = Some(*reply),
        }
    }

    /// Gives back every lock that is held by a part of few.
    fn release(&mut self, node: &mut Node) {
        for part in self.parts.iter_mut().filter(|part| part.is_locked && !part.is_long()) {
            part.is_locked = false;
            node.mesh.outgoing(part.core).messages.push(Message::Release(self.key.transaction));
        }
    }

    /// Gives back the locks that are left; then the present phase is tried again, if it was refused, or all is done.
    fn give_back(&mut self, node: &mut Node, is_refused: bool) -> Advance {
        let holders = self.writers(|part| part.is_locked);
        if holders.is_empty() {
            return if is_refused { Advance::Retry } else { Advance::Finished };
        }
        let phase = std::mem::replace(&mut self.phase, Phase::GiveBack);
        self.refused_phase = is_refused.then_some(phase);
        self.send_to(node, &holders)
    }

    /// All answers of a phase are in, and none was refused: goes on to the next phase, or replies. A part's error ends it.
    fn advance(&mut self, node: &mut Node) -> Advance {
        if let Some(error) = self.error.take() {
            return self.finish(node, &error);
        }
        match &mut self.phase {
            Phase::Read(merge) | Phase::Free(merge) | Phase::Write(merge) => {
                let merge = *merge;
                self.finish_merged(node, merge)
            }
            Phase::Lock(merge) if node.log.is_some() => {
                let outcome = Outcome::Merged(*merge);
                self.write_shares(node, outcome)
            }
            Phase::Lock(merge) => {
                self.phase = Phase::Write(*merge);
                self.send_next(node)
            }
            Phase::Stage(outcome) => {
                let outcome = *outcome;
                let writers = self.writers(|_| true);
                self.send_writes(node, outcome, &writers)
            }
            Phase::GiveBack => match self.refused_phase.take() {
                Some(phase) => {
                    self.phase = phase;
                    Advance::Retry
                }
                None => Advance::Finished,
            },
            Phase::Prepare(outcome) => {
                self.phase = Phase::Finish(*outcome);
                let prepared = self.writers(|part| part.has_prepared);
                self.send_to(node, &prepared)
            }
            Phase::Apply(outcome) | Phase::Finish(outcome) => match *outcome {
                Outcome::Merged(merge) => self.finish_merged(node, merge),
                Outcome::Fixed(reply) => self.finish(node, reply),
            },
            Phase::Probe(plan) => {
                let plan = *plan;
                self.probed(node, plan)
            }
            Phase::SetAll => self.finish(node, b":1\r\n"),
            Phase::Fetch(plan) => {
                let plan = *plan;
                let Some(entry) = self.parts[0].entry.take() else {
                    // It came due between the two steps.
                    return self.finish(node, missing_source(plan));
                };
                if node.log.is_some() {
                    return self.write_moved(node, plan, &entry);
                }
                self.parts.remove(0);
                self.parts[0].entry = Some(entry);
                self.phase = Phase::Store(plan);
                self.send_next(node)
            }
            Phase::Store(_) => {
                let reply = self.moved_reply();
                self.finish(node, reply)
            }
            Phase::ReadStrings => self.compare_strings(node),
            Phase::Walk(_) => self.walked(node),
            Phase::LockAll(cut) => {
                self.phase = Phase::Cut(*cut);
                self.send_next(node)
            }
            Phase::Cut(cut) => {
                node.cut_is_done(*cut, self.key.transaction);
                Advance::Finished
            }
            Phase::Admin(purpose) => {
                let replies = self.parts.iter_mut().filter_map(|part| part.admin.take()).collect();
                let mut reply = Vec::new();
                purpose.finish(node, &mut self.request, replies, &mut reply);
                self.finish(node, &reply)
            }
        }
    }

    fn send_next(&mut self, node: &mut Node) -> Advance {
        self.send(node);
        Advance::Sent
    }

    fn finish(&mut self, node: &mut Node, reply: &[u8]) -> Advance {
        self.release(node);
        node.note_error(self.request.command, reply);
        node.deliver(self.token, self.sequence, reply, true);
        self.give_back(node, false)
    }

    /// Locks are held and it is known which keys exist.
    fn probed(&mut self, node: &mut Node, plan: Plan) -> Advance {
        let exists = |ordinal: usize| {
            self.parts.iter().any(|part| {
                let mut keys = part.keys.iter().zip(&part.reply);
                keys.any(|(&key, &digit)| key == ordinal && digit == b'1')
            })
        };
        match plan {
            Plan::SetIfNone => {
                if self.parts.iter().any(|part| part.reply.contains(&b'1')) {
                    return self.finish(node, b":0\r\n");
                }
                if node.log.is_some() {
                    return self.write_shares(node, Outcome::Fixed(b":1\r\n"));
                }
                self.phase = Phase::SetAll;
                self.send_next(node)
            }
            Plan::Rename | Plan::Copy => {
                let (source, target) = (exists(0), exists(1));
                if !source {
                    return self.finish(node, missing_source(plan));
                }
                let may_replace = match plan {
                    Plan::Copy => {
                        let database = self.request.mode.database;
                        let options = command::keys::parse_copy(&self.request.view().args(), database);
                        options.expect("the options were checked when the gather began").replace
                    }
                    _ => self.request.command.name == "rename",
                };
                if target && !may_replace {
                    return self.finish(node, b":0\r\n");
                }
                // The source's part first; the target keeps its lock until the value is stored.
                self.parts.sort_by_key(|part| part.keys[0]);
                self.phase = Phase::Fetch(plan);
                self.waiting = 1;
                self.begin_part(node, 0);
                Advance::Sent
            }
            Plan::LongestCommonSubsequence => unreachable!("LCS reads its strings instead"),
        }
    }

    fn compare_strings(&mut self, node: &mut Node) -> Advance {
        self.parts.sort_by_key(|part| part.keys[0]);
        if let Some(part) = self.parts.iter_mut().find(|part| part.reply.first() == Some(&b'-')) {
            let reply = std::mem::take(&mut part.reply);
            return self.finish(node, &reply);
        }
        let strings = [0, 1].map(|ordinal| bulk(&self.parts[ordinal].reply).to_vec());
        let [a, b] = strings;
        let mut output = Vec::new();
        let mut view = self.request.view();
        let protocol = view.mode.protocol;
        let settings = &node.executor.settings;
        match command::lcs::begin(&view.args(), a, b, settings, &mut Reply::new(&mut output, protocol)) {
            None => self.finish(node, &output),
            Some(state) => {
                self.release(node);
                let (token, sequence, command) = (self.token, self.sequence, self.request.command);
                let origin = Origin::Connection { token, sequence, ends_fence: true, command };
                let request = Box::new(view_to_owned(&mut self.request));
                node.begin_job(origin, request, state);
                Advance::Finished
            }
        }
    }
}

fn view_to_owned(request: &mut OwnedRequest) -> OwnedRequest {
    request.view().to_owned()
}

/// The reply of RENAME and COPY when there is nothing to move.
pub(super) fn missing_source(plan: Plan) -> &'static [u8] {
    if plan == Plan::Rename { b"-ERR no such key\r\n" } else { b":0\r\n" }
}

/// The first key's position and the step between keys.
fn command_keys(command: &Command) -> (usize, usize) {
    (usize::from(command.keys.first), usize::from(command.keys.step))
}

/// As what the pieces of a command are written that was decided on before.
fn staged_as(command: &'static Command) -> &'static Command {
    if matches!(command.run, Run::Staged(_, Plan::SetIfNone)) { named("mset") } else { command }
}

fn named(name: &str) -> &'static Command {
    command::lookup(name.as_bytes()).expect("the table has it")
}

/// The content of a bulk string reply; nothing for null.
pub(super) fn bulk(reply: &[u8]) -> &[u8] {
    if reply.first() != Some(&b'$') || reply.get(1) == Some(&b'-') {
        return &[];
    }
    let line = reply.iter().position(|&byte| byte == b'\n').expect("a bulk reply has a header");
    &reply[line + 1..reply.len() - 2]
}
