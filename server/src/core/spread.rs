//! Commands whose keys lie in several shards of a cluster, as their coordinator sees them.
//!
//! The connection's core coordinates. Every step is an ordinary request for one shard, which finds its leader wherever that is:
//! the shards' logs keep what is prepared and decided ([`duva_engine::Transactions`]), the coordinator keeps nothing that matters.
//!
//! ```text
//! read    read all -> read all ... until two rounds in a row have seen the same: that held between them
//! write   prepare the first -> prepare the others -> first: decide -> the client is answered
//!                                                                  -> others: commit -> first: forget
//! ```
//!
//! Invariants:
//!
//! - **All or nothing.** Only the coordinator asks the first participant to commit, once, when every part is prepared. Its log decides:
//!   whoever else wants to know has it log an abort, unless it was committed by then.
//! - **Isolation.** Keys of a part are locked from its preparation to its end. A reader that has seen one part finds the
//!   others ended or locked. Reads of several shards compare what two rounds have seen; where writes are so many that
//!   no two rounds agree, they lock their keys as a write does, read what is locked, and abort.
//! - **No deadlock.** Who is prepared anywhere waits for long only for younger ones: see [`super::groups`]; others are refused after a moment,
//!   give everything back and begin again, at their old age.
//! - **Nothing is sent again** that may take effect twice: an order to prepare of unknown fate is aborted, under its name; the next
//!   attempt has another one. If the decision's fate is unknown the client is told so, and the participants find out by
//!   themselves.

mod recovery;

use std::collections::HashSet;

use duva_engine::{
    Reply, TransactionName,
    command::{
        self, Command, Flags, Merge, Plan, Run,
        transaction::{Asked, Order, prepare_head, read_command, transaction_command},
    },
    key_slot,
};
use duva_net::io::Token;

use super::{
    batch::{Answer, GatherKey, Locking, Message, Work},
    gather::{bulk, missing_source},
    locks::TransactionId,
    node::{Node, Origin},
    replies::Sequence,
    request::{Large, Mode, OwnedRequest},
};
pub(super) use recovery::Recovery;

/// Rounds of a read after which it locks its keys.
const ROUNDS_MAX: u32 = 6;

/// How long a command is tried, in nanoseconds.
const PATIENCE_NS: u64 = 4_000_000_000;

/// How long a refused one rests at most before it begins again, in milliseconds; it grows up to that.
const REST_MS_MAX: u64 = 32;

/// What a command gets that did not come to an end in time.
const GIVEN_UP: &[u8] =
    b"-CLUSTERDOWN Other commands held the keys, or a shard had no leader, for too long; nothing was executed\r\n";

/// The commands over several shards that a core coordinates.
#[derive(Default)]
pub struct Spreads {
    places: Vec<Option<Box<Spread>>>,
    free: Vec<u32>,
    /// Which of them rest, and until when, in milliseconds since the Unix epoch.
    resting: Vec<(u32, u64)>,
    last_number: u64,
    last_age: u64,
    /// By shard: a key of it, once it was needed.
    routes: Vec<Option<Vec<u8>>>,
}

impl Spreads {
    /// How many are under way.
    pub fn count(&self) -> u32 {
        (self.places.len() - self.free.len()) as u32
    }
}

/// What a command comes to.
#[derive(Clone, Copy)]
enum Task {
    /// A read whose replies are merged.
    Read(Merge),
    /// LCS.
    Compare,
    /// MSET.
    Set,
    /// MSETNX.
    SetIfNone,
    /// DEL and UNLINK.
    Delete,
    /// RENAME, RENAMENX and COPY.
    Move(Plan),
    /// No client's: what a participant finds out by itself.
    Recover,
}

/// What is under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// All parts are read, for the so manieth time.
    Read(u32),
    /// The first part is being prepared.
    First,
    /// So are the others.
    Others,
    /// The first participant is asked to commit.
    Decide,
    /// The others are told.
    Commit,
    /// The first one is told that all know.
    Forget,
    /// Whoever may be prepared is told to abort; whether it begins again then.
    Abort { again: bool },
    /// Nothing, for a while.
    Rest,
    /// A participant asks the first one, whose shard is the first part's; the second part is its own.
    Ask,
    /// It ends its own part.
    EndOwn,
}

struct Part {
    shard: u16,
    /// Ordinal numbers of its keys.
    keys: Vec<usize>,
    reply: Vec<u8>,
    /// What the round before has read.
    before: Vec<u8>,
    /// Whether it is prepared, or may be.
    may_be_prepared: bool,
}

impl Part {
    fn new(shard: u16, keys: Vec<usize>) -> Self {
        Self { shard, keys, reply: Vec::new(), before: Vec::new(), may_be_prepared: false }
    }

    fn is_prepared(&self) -> bool {
        self.reply.first() == Some(&b'$')
    }

    /// Whether its answer may be that a reply was too long, of something that was prepared.
    fn is_error(&self) -> bool {
        self.reply.starts_with(b"-ERR")
    }

    fn is_uncertain(&self) -> bool {
        self.reply.starts_with(b"-UNCERTAIN")
    }

    fn is_refused(&self) -> bool {
        self.reply.starts_with(b"-REFUSED")
    }
}

struct Spread {
    key: GatherKey,
    token: Token,
    sequence: Sequence,
    request: Box<OwnedRequest>,
    task: Task,
    name: TransactionName,
    stage: Stage,
    /// The first participant's comes first.
    parts: Vec<Part>,
    /// Answers that are still to come.
    waiting: usize,
    began_ns: u64,
    is_answered: bool,
    /// RENAME and COPY: the value, with its deadline in front.
    value: Vec<u8>,
}

/// How it goes on.
enum Next {
    /// Answers are awaited.
    Waits,
    /// It rests.
    Rests,
    /// It is over.
    Ends,
}

impl Node {
    /// Begins a command over several shards for the reply slot of a connection, which is fenced.
    pub(super) fn begin_spread(&mut self, token: Token, sequence: Sequence, mut request: Box<OwnedRequest>) {
        let command = request.command;
        let task = match command.run {
            Run::Split(_, merge) if !command.flags.contains(Flags::WRITE) => Task::Read(merge),
            Run::Staged(_, Plan::LongestCommonSubsequence) => Task::Compare,
            Run::Split(_, Merge::Status) => Task::Set,
            Run::Split(..) => Task::Delete,
            Run::Staged(_, Plan::SetIfNone) => Task::SetIfNone,
            Run::Staged(_, plan) => Task::Move(plan),
            _ => panic!("{} has no keys in several shards", command.name),
        };
        if let Task::Move(Plan::Copy) = task {
            let database = request.mode.database;
            if let Err(error) = command::keys::parse_copy(&request.view().args(), database) {
                let mut reply = Vec::new();
                Reply::new(&mut reply, request.mode.protocol).error(error);
                self.note_error(command, &reply);
                return self.deliver(token, sequence, &reply, true);
            }
        }
        let mut parts: Vec<Part> = Vec::new();
        for (ordinal, key) in request.keys.iter().enumerate() {
            let shard = self.executor.shards.number_of(key.slot) as u16;
            match parts.iter_mut().find(|part| part.shard == shard) {
                Some(part) => part.keys.push(ordinal),
                None => parts.push(Part::new(shard, vec![ordinal])),
            }
        }
        self.stats.gathers += 1;
        let mut spread = self.new_spread(task, parts);
        (spread.token, spread.sequence, spread.request) = (token, sequence, request);
        spread.is_answered = false;
        match task {
            Task::Read(_) | Task::Compare => spread.read(self, 0),
            _ => spread.begin(self),
        }
        self.put_spread(spread);
    }

    /// One that is nobody's yet, with a place and a name.
    fn new_spread(&mut self, task: Task, parts: Vec<Part>) -> Box<Spread> {
        let tie = self.executor.next_seed();
        let spreads = &mut self.spreads;
        spreads.last_number += 1;
        // Ages compare between nodes by time.
        spreads.last_age = (spreads.last_age + 1).max(self.executor.now_ms << 8);
        let place = spreads.free.pop().unwrap_or_else(|| {
            spreads.places.push(None);
            spreads.places.len() as u32 - 1
        });
        let transaction = TransactionId(spreads.last_number);
        Box::new(Spread {
            key: GatherKey { index: place | GatherKey::OF_SHARDS, transaction, part: 0 },
            token: Token::default(),
            sequence: 0,
            request: Box::new(OwnedRequest::empty()),
            task,
            name: TransactionName { age: spreads.last_age, tie, attempt: 0 },
            stage: Stage::Rest,
            parts,
            waiting: 0,
            began_ns: self.groups.as_ref().map_or(0, |groups| groups.now_ns()),
            is_answered: true,
            value: Vec::new(),
        })
    }

    fn put_spread(&mut self, spread: Box<Spread>) {
        let place = spread.place();
        self.spreads.places[place] = Some(spread);
    }

    /// Takes the answer to a part of a command over several shards.
    pub(super) fn take_shards_answer(&mut self, key: GatherKey, answer: Answer, reply: &[u8]) {
        let place = (key.index & !GatherKey::OF_SHARDS) as usize;
        let mut spread = self.spreads.places[place].take().expect("an answer to one that is under way");
        assert!(spread.key.transaction == key.transaction, "an answer to one that has ended");
        if let Answer::Observed(observed) = answer
            && !spread.is_answered
        {
            self.deliveries.observed.push((spread.token, observed));
        }
        let part = &mut spread.parts[usize::from(key.part)];
        part.reply.clear();
        part.reply.extend_from_slice(reply);
        spread.waiting -= 1;
        if spread.waiting > 0 {
            return self.put_spread(spread);
        }
        match spread.advance(self) {
            Next::Waits => self.put_spread(spread),
            Next::Rests => {
                let longest_ms = REST_MS_MAX.min(1 << spread.name.attempt.min(10));
                let random = self.executor.next_seed() >> 32;
                let until_ms = self.executor.now_ms + 1 + random % longest_ms;
                self.spreads.resting.push((spread.place() as u32, until_ms));
                self.put_spread(spread);
            }
            Next::Ends => self.spreads.free.push(spread.place() as u32),
        }
    }

    /// When a refused command, over several cores or shards, asks again next, in milliseconds since the Unix epoch.
    pub(super) fn next_retry_ms(&self) -> Option<u64> {
        let resting = self.spreads.resting.iter().map(|&(_, until_ms)| until_ms).min();
        resting.into_iter().chain(self.gathers.next_retry_ms()).min()
    }

    /// Lets those begin again that have rested.
    pub(super) fn retry_spreads(&mut self) {
        if self.spreads.resting.is_empty() {
            return;
        }
        let now_ms = self.executor.now_ms;
        let (due, later) = self.spreads.resting.iter().partition(|&&(_, until_ms)| until_ms <= now_ms);
        self.spreads.resting = later;
        let due: Vec<(u32, u64)> = due;
        for (place, _) in due {
            let mut spread = self.spreads.places[place as usize].take().expect("one that rests is there");
            self.stats.gather_retries += 1;
            spread.begin(self);
            self.put_spread(spread);
        }
    }

    /// A key of a shard.
    fn route_of(&mut self, shard: u16) -> Vec<u8> {
        let shards = &self.executor.shards;
        let routes = &mut self.spreads.routes;
        routes.resize(routes.len().max(usize::from(shard) + 1), None);
        let is_of_shard = |name: &Vec<u8>| shards.number_of(key_slot(name)) == usize::from(shard);
        let find = || (0_u32..).map(|number| number.to_string().into_bytes()).find(is_of_shard);
        routes[usize::from(shard)].get_or_insert_with(|| find().expect("every slot has keys")).clone()
    }
}

impl Spread {
    fn place(&self) -> usize {
        (self.key.index & !GatherKey::OF_SHARDS) as usize
    }

    /// Sends a request of nodes to the shard of a part.
    fn send(
        &mut self,
        node: &mut Node,
        part: usize,
        command: &'static Command,
        arguments: &[&[u8]],
        mode: Mode,
    ) {
        let shard = self.parts[part].shard;
        let route = node.route_of(shard);
        let words = [&[command.name.as_bytes(), &route], arguments].concat();
        let mut request = OwnedRequest::new(command, &words, &node.executor.hasher, mode);
        let core = usize::from(node.owners[usize::from(shard)]);
        let batch = node.mesh.outgoing(core);
        let packed = Some(batch.pack(&mut request.view(), Large::Move));
        let gather = GatherKey { part: part as u16, ..self.key };
        batch.messages.push(Message::Part { gather, locking: Locking::None, work: Work::Command, packed });
        self.waiting += 1;
    }

    /// Gives an order about the transaction, but not to prepare it, to some parts; returns whether there are any.
    fn order(&mut self, node: &mut Node, order: Order, to: impl Fn(usize, &Part) -> bool) -> bool {
        let name = self.name.encode();
        let mode = self.request.mode;
        for part in 0..self.parts.len() {
            if to(part, &self.parts[part]) {
                self.send(node, part, transaction_command(), &[order.word(), &name], mode);
            }
        }
        self.waiting > 0
    }

    /// What a part's command is that concerns its keys: its arguments.
    fn share(&self, part: usize, name: &str, width: usize) -> Vec<Vec<u8>> {
        let keys = self.request.command.keys;
        let (first, step) = (usize::from(keys.first), usize::from(keys.step));
        let ordinals = self.parts[part].keys.iter();
        let arguments = ordinals.flat_map(|ordinal| {
            (0..width).map(move |offset| self.request.argument(first + ordinal * step + offset).to_vec())
        });
        std::iter::once(name.as_bytes().to_vec()).chain(arguments).collect()
    }

    fn read_share(&self, part: usize) -> Vec<Vec<u8>> {
        let name = if matches!(self.task, Task::Compare) { "get" } else { self.request.command.name };
        self.share(part, name, 1)
    }

    /// Reads all parts, without locks.
    fn read(&mut self, node: &mut Node, round: u32) {
        self.stage = Stage::Read(round);
        let mode = self.request.mode;
        for part in 0..self.parts.len() {
            let share = self.read_share(part);
            let words: Vec<&[u8]> = share.iter().map(Vec::as_slice).collect();
            self.send(node, part, read_command(), &words, mode);
        }
    }

    /// Begins an attempt under locks.
    fn begin(&mut self, node: &mut Node) {
        self.name.attempt += 1;
        self.stage = Stage::First;
        for part in &mut self.parts {
            part.may_be_prepared = false;
            part.reply.clear();
        }
        self.prepare(node, 0);
    }

    fn prepare(&mut self, node: &mut Node, part: usize) {
        let mut mode = self.request.mode;
        let (asked, takes_effect, share) = match self.task {
            Task::Read(_) | Task::Compare => (Asked::Reply, false, self.read_share(part)),
            Task::Set | Task::SetIfNone => (Asked::Existence, true, self.share(part, "mset", 2)),
            Task::Delete => (Asked::Existence, true, self.share(part, self.request.command.name, 1)),
            Task::Move(Plan::Rename) if part == 0 => (Asked::Value, true, self.share(part, "del", 1)),
            Task::Move(_) if part == 0 => (Asked::Value, false, self.share(part, "exists", 1)),
            Task::Move(plan) => {
                if plan == Plan::Copy {
                    mode.database = self.copy_options().database;
                }
                let (deadline, payload) =
                    self.value.split_first_chunk::<8>().expect("it is only sent when there is a value");
                let deadline = u64::from_le_bytes(*deadline).to_string().into_bytes();
                let target = self.request.argument(2).to_vec();
                let words: [&[u8]; 6] = [b"restore", &target, &deadline, payload, b"REPLACE", b"ABSTTL"];
                (Asked::Existence, true, words.iter().map(|word| word.to_vec()).collect())
            }
            Task::Recover => unreachable!("nothing is prepared to recover"),
        };
        let first = self.parts[0].shard;
        let others: Vec<u16> =
            if part == 0 { self.parts[1..].iter().map(|part| part.shard).collect() } else { Vec::new() };
        let head = prepare_head(asked, takes_effect, first, &others);
        let name = self.name.encode();
        let mut words: Vec<&[u8]> = vec![Order::Prepare.word(), &name, &head];
        words.extend(share.iter().map(Vec::as_slice));
        self.parts[part].may_be_prepared = true;
        self.send(node, part, transaction_command(), &words, mode);
    }

    fn copy_options(&mut self) -> command::keys::CopyOptions {
        let database = self.request.mode.database;
        let options = command::keys::parse_copy(&self.request.view().args(), database);
        options.expect("the options were checked when it began")
    }

    /// All answers of a stage are in.
    fn advance(&mut self, node: &mut Node) -> Next {
        match self.stage {
            Stage::Read(round) => self.have_read(node, round),
            Stage::First => self.first_is_prepared(node),
            Stage::Others => self.others_are_prepared(node),
            Stage::Decide => self.decided(node),
            Stage::Commit => {
                let mut others = self.parts[1..].iter();
                if !others.all(|part| part.reply == b"+DONE\r\n") {
                    // Whose leader was lost is told again; the first one's leader will see to what is left.
                    let may_go_on = !self.is_late(node);
                    let is_told = self
                        .order(node, Order::Commit, |part, it| part > 0 && may_go_on && it.is_uncertain());
                    return if is_told { Next::Waits } else { Next::Ends };
                }
                self.stage = Stage::Forget;
                self.order(node, Order::Forget, |part, _| part == 0);
                Next::Waits
            }
            Stage::Abort { again: true } => self.rest(node),
            Stage::Forget | Stage::Abort { again: false } | Stage::EndOwn => Next::Ends,
            Stage::Ask => self.have_asked(node),
            Stage::Rest => unreachable!("nothing is answered to one that rests"),
        }
    }

    fn have_read(&mut self, node: &mut Node, round: u32) -> Next {
        if let Some(part) = self.parts.iter().find(|part| part.reply.first() != Some(&b'$')) {
            let reply = part.reply.clone();
            return self.end_with(node, &reply);
        }
        if round > 0 && self.parts.iter().all(|part| part.reply == part.before) {
            let replies =
                self.parts.iter().map(|part| bulk(&part.reply).get(16..).unwrap_or_default().to_vec());
            let replies = replies.collect();
            self.answer_read(node, replies);
            return Next::Ends;
        }
        for part in &mut self.parts {
            part.before = std::mem::take(&mut part.reply);
        }
        if round + 1 < ROUNDS_MAX {
            self.read(node, round + 1);
        } else {
            self.begin(node);
        }
        Next::Waits
    }

    fn first_is_prepared(&mut self, node: &mut Node) -> Next {
        let first = &mut self.parts[0];
        if !first.is_prepared() {
            first.may_be_prepared = first.is_uncertain() || first.is_error();
            if first.is_uncertain() {
                return self.abort(node, true);
            }
            if first.is_refused() {
                return self.rest(node);
            }
            let reply = first.reply.clone();
            return self.answer_and_abort(node, &reply);
        }
        let found = bulk(&first.reply);
        match self.task {
            Task::SetIfNone if found.contains(&b'1') => return self.answer_and_abort(node, b":0\r\n"),
            Task::Move(plan) if found.is_empty() => return self.answer_and_abort(node, missing_source(plan)),
            Task::Move(_) => self.value = found.to_vec(),
            _ => {}
        }
        self.stage = Stage::Others;
        for part in 1..self.parts.len() {
            self.prepare(node, part);
        }
        Next::Waits
    }

    fn others_are_prepared(&mut self, node: &mut Node) -> Next {
        let mut error = None;
        let mut begins_again = false;
        for part in &mut self.parts[1..] {
            if !part.is_prepared() {
                part.may_be_prepared = part.is_uncertain() || part.is_error();
                if part.is_uncertain() || part.is_refused() {
                    begins_again = true;
                } else {
                    error = Some(part.reply.clone());
                }
            }
        }
        if let Some(error) = error {
            return self.answer_and_abort(node, &error);
        }
        if begins_again {
            return self.abort(node, true);
        }
        match self.task {
            Task::Read(_) | Task::Compare => {
                let replies = self.parts.iter().map(|part| bulk(&part.reply).to_vec()).collect();
                self.answer_read(node, replies);
                return self.abort(node, false);
            }
            Task::SetIfNone if self.parts.iter().any(|part| bulk(&part.reply).contains(&b'1')) => {
                return self.answer_and_abort(node, b":0\r\n");
            }
            Task::Move(plan) => {
                let may_replace = match plan {
                    Plan::Copy => self.copy_options().replace,
                    _ => self.request.command.name == "rename",
                };
                if !may_replace && bulk(&self.parts[1].reply) == b"1" {
                    return self.answer_and_abort(node, b":0\r\n");
                }
            }
            _ => {}
        }
        // What the first one found is needed for the reply.
        for part in &mut self.parts {
            part.before = std::mem::take(&mut part.reply);
        }
        self.stage = Stage::Decide;
        self.order(node, Order::Decide, |part, _| part == 0);
        Next::Waits
    }

    fn decided(&mut self, node: &mut Node) -> Next {
        let first = &mut self.parts[0];
        if first.reply == b"+COMMITTED\r\n" {
            // Who keeps track of what it has seen knows where all parts were prepared: a replica that has come so far finds
            // them ended, or locked.
            let reply = self.outcome();
            self.answer(node, &reply);
            self.stage = Stage::Commit;
            self.order(node, Order::Commit, |part, _| part > 0);
            return Next::Waits;
        }
        if first.is_uncertain() {
            let reply = first.reply.clone();
            return self.end_with(node, &reply);
        }
        // It was aborted, or was not asked: nobody will ask again.
        first.may_be_prepared = first.reply != b"+ABORTED\r\n";
        self.abort(node, true)
    }

    /// The reply of a write that is committed.
    fn outcome(&self) -> Vec<u8> {
        match self.task {
            Task::Delete => {
                let mut removed = HashSet::new();
                for part in &self.parts {
                    for (ordinal, digit) in part.keys.iter().zip(bulk(&part.before)) {
                        if *digit == b'1' {
                            removed.insert(self.request.argument(1 + ordinal));
                        }
                    }
                }
                format!(":{}\r\n", removed.len()).into_bytes()
            }
            Task::SetIfNone => b":1\r\n".to_vec(),
            Task::Move(_) if self.request.command.name != "rename" => b":1\r\n".to_vec(),
            _ => b"+OK\r\n".to_vec(),
        }
    }

    /// Answers a read with what its parts have answered.
    fn answer_read(&mut self, node: &mut Node, replies: Vec<Vec<u8>>) {
        let mut output = Vec::new();
        let protocol = self.request.mode.protocol;
        let Task::Read(merge) = self.task else {
            let strings =
                replies.iter().map(|reply| if reply.is_empty() { Vec::new() } else { bulk(reply).to_vec() });
            let [a, b] = strings.collect::<Vec<_>>().try_into().expect("LCS has two keys");
            let settings = &node.executor.settings;
            let reply = &mut Reply::new(&mut output, protocol);
            if let Some(state) = command::lcs::begin(&self.request.view().args(), a, b, settings, reply) {
                self.is_answered = true;
                let (token, sequence, command) = (self.token, self.sequence, self.request.command);
                let origin = Origin::Connection { token, sequence, ends_fence: true, command };
                let request = Box::new(self.request.view().to_owned());
                return node.begin_job(origin, request, state);
            }
            return self.answer(node, &output);
        };
        let begins_well = |part: &Part, reply: &[u8]| match merge {
            Merge::ByKey => reply.starts_with(format!("*{}\r\n", part.keys.len()).as_bytes()),
            _ => reply.first() == Some(&b':'),
        };
        let mut parts = Vec::new();
        for (part, reply) in self.parts.iter().zip(&replies) {
            if !begins_well(part, reply) {
                let reply = if reply.first() == Some(&b'-') {
                    reply.clone()
                } else {
                    b"-ERR the node that leads the shard does not understand the request\r\n".to_vec()
                };
                return self.answer(node, &reply);
            }
            parts.push(command::merge::Part { reply, positions: &part.keys });
        }
        command::merge::merge(merge, &parts, 0, &mut Reply::new(&mut output, protocol));
        self.answer(node, &output);
    }

    fn answer(&mut self, node: &mut Node, reply: &[u8]) {
        if !std::mem::replace(&mut self.is_answered, true) {
            node.note_error(self.request.command, reply);
            node.deliver(self.token, self.sequence, reply, true);
        }
    }

    fn end_with(&mut self, node: &mut Node, reply: &[u8]) -> Next {
        self.answer(node, reply);
        Next::Ends
    }

    fn answer_and_abort(&mut self, node: &mut Node, reply: &[u8]) -> Next {
        self.answer(node, reply);
        self.abort(node, false)
    }

    /// Gives everything back.
    fn abort(&mut self, node: &mut Node, again: bool) -> Next {
        self.stage = Stage::Abort { again };
        if self.order(node, Order::Abort, |_, part| part.may_be_prepared) {
            return Next::Waits;
        }
        if again { self.rest(node) } else { Next::Ends }
    }

    /// Nothing is held: it begins again in a moment, unless it was tried for long enough.
    fn rest(&mut self, node: &mut Node) -> Next {
        if self.is_late(node) {
            return self.end_with(node, GIVEN_UP);
        }
        self.stage = Stage::Rest;
        Next::Rests
    }

    /// Whether it was tried for long enough.
    fn is_late(&self, node: &Node) -> bool {
        let now_ns = node.groups.as_ref().map_or(u64::MAX, |groups| groups.now_ns());
        now_ns.saturating_sub(self.began_ns) > PATIENCE_NS
    }
}
