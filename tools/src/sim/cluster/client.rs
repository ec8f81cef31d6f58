//! Clients of the cluster: each uses one node at a time, and records what it was answered.
//!
//! Invariants:
//!
//! - What was sent and not answered is of unknown fate, and so is what was answered with UNCERTAIN. What was refused, or never
//!   left because nobody listened, was not executed, and is no operation.
//! - Only requests of ONCE are sent again, under the same name, until they are answered: one operation, from the first time that
//!   it was sent.
//! - A client that is sent to another node asks there, and there only, what it was not answered. What needs several slots then is
//!   refused, and is no operation.
//! - Every value of SET is another one, and so is every token of APPEND.
//! - Along a connection writes, and reads behind them, see a counter grow. Reads are not compared with one another, nor writes with
//!   reads in front of them: a read whose leader, or whose reply, was lost is made again, and what came behind it may be answered
//!   already.

use std::collections::{BTreeMap, VecDeque};

use duva_tools::linearizability::{Action, Answer, Operation};

use super::{
    manner::Manner,
    several::{self, Several},
    shelves::{self, Moved, Shelf},
    wire::{Came, Wire},
    world::World,
};
use crate::sim::{random::Random, resp::Reply};

/// Keys of all clients: registers, counters, and lists of tokens by turns.
const KEYS: usize = 9;

/// One request in so many removes everything, if any does.
const FLUSH_EVERY: u64 = 60;

/// How long it takes a client to go to another node, at most, in nanoseconds.
const MOVE_NS: u64 = 1_000_000;

/// How often a request is sent to another node before it counts as refused.
const MOVES_MAX: u32 = 16;

/// What a client asks for.
#[derive(Clone)]
struct Request {
    /// None: that the journals be rewritten, or something that is no operation.
    action: Option<Action>,
    /// That several shards take part in it.
    several: Option<Several>,
    key: Vec<u8>,
    /// Its name, if it takes effect once.
    once: Option<u64>,
    /// Whether it was sent before, and may have been executed then.
    is_retry: bool,
    invoked_ns: u64,
    /// The slot of its first key, once it was sent; the node to which it is to go, and how often it was sent to another one.
    slot: u16,
    goes_to: Option<usize>,
    moves: u32,
}

impl Request {
    fn new(action: Option<Action>, key: Vec<u8>) -> Self {
        let (several, once, goes_to) = (None, None, None);
        Self { action, several, key, once, is_retry: false, invoked_ns: 0, slot: 0, goes_to, moves: 0 }
    }

    fn of_several(several: Several, (action, key): (Option<Action>, Vec<u8>)) -> Self {
        Self { several: Some(several), ..Self::new(action, key) }
    }

    fn of_shelf((shelf, action): (Shelf, Action)) -> Self {
        Self::of_several(Several::Shelve(shelf), (Some(action), shelf.name()))
    }
}

/// A client's connection.
struct Open {
    wire: Wire<Request>,
    /// What the last write of each counter has made of it.
    counters: BTreeMap<Vec<u8>, i64>,
}

/// What clients were answered, in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) requests: u64,
    pub(super) replies: u64,
    pub(super) refused: u64,
    pub(super) early: u64,
    /// Of those: because a leader had no room.
    pub(super) without_room: u64,
    pub(super) uncertain: u64,
    pub(super) lost: u64,
    pub(super) retried: u64,
    /// Those that another node is to get, those that were refused because of their slots, those of shelves, and those for which
    /// everything was removed.
    pub(super) moved: u64,
    pub(super) crossed: u64,
    pub(super) shelved: u64,
    pub(super) flushes: u64,
}

/// A client.
pub(super) struct Client {
    number: usize,
    /// The longest pause between two bursts, in nanoseconds; requests of a burst, at most; bytes of some values.
    pause_ns: u64,
    burst_max: u64,
    value_bytes: usize,
    /// One request in so many is one of several shards; 0: none is.
    several: u64,
    manner: Manner,
    /// The node that it stays with, if it does.
    home: Option<usize>,
    /// The node that it goes to next, if it is sent to one.
    goes_to: Option<usize>,
    /// What it has left to read, if it does nothing else.
    script: Option<VecDeque<Request>>,
    /// When it asks for nothing new any more.
    until_ns: u64,
    /// When it does something next, if it waits for nothing.
    at_ns: u64,
    open: Option<Open>,
    /// Requests of ONCE whose fate is unknown.
    retries: VecDeque<Request>,
    /// Whether it sends all writes again, which it must not.
    repeats_writes: bool,
    /// Whether it writes half of what it should.
    halves_writes: bool,
    /// Whether it removes nothing when it should remove everything.
    flushes_nothing: bool,
    named: u64,
    pub(super) history: Vec<Operation>,
    pub(super) counts: Counts,
}

fn key_name(key: usize) -> Vec<u8> {
    format!("{}:{key}", ["register", "counter", "list"][key % 3]).into_bytes()
}

impl Client {
    /// One that does as it likes until a moment.
    pub(super) fn new(
        number: usize,
        manner: Manner,
        random: &mut Random,
        now_ns: u64,
        until_ns: u64,
    ) -> Self {
        Self {
            number,
            pause_ns: random.pick(&[3_000_000, 30_000_000, 100_000_000]),
            burst_max: random.pick(&[1, 1, 3, 12]),
            value_bytes: random.pick(&[0, 0, 1_000, 12_000]),
            several: random.pick(&[0, 2, 2, 6]),
            manner,
            home: None,
            goes_to: None,
            script: None,
            until_ns,
            at_ns: now_ns + random.below(50_000_000),
            open: None,
            retries: VecDeque::new(),
            repeats_writes: false,
            halves_writes: false,
            flushes_nothing: false,
            named: 0,
            history: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// One that reads every key at one node, and nothing else.
    pub(super) fn reader(
        number: usize,
        node: usize,
        manner: Manner,
        random: &mut Random,
        now_ns: u64,
    ) -> Self {
        let read = |key| Request::new(Some(Action::Get), key_name(key));
        let mut script: VecDeque<Request> = (0..KEYS).map(read).collect();
        if !manner.flushes {
            script.extend(several::last_requests().map(|it| Request::of_several(it, it.action(""))));
        }
        if manner.has_shelves {
            script.extend(Shelf::last_reads().map(Request::of_shelf));
        }
        Self {
            home: Some(node),
            burst_max: 1,
            script: Some(script),
            ..Self::new(number, manner, random, now_ns, u64::MAX)
        }
    }

    /// From now on it sends all writes of unknown fate again, as if they took effect once.
    pub(super) fn repeat_writes(&mut self) {
        self.repeats_writes = true;
    }

    /// From now on it leaves a key out of writes to several shards.
    pub(super) fn halve_writes(&mut self) {
        self.halves_writes = true;
    }

    /// From now on it leaves everything where it is, and thinks that it has removed it.
    pub(super) fn flush_nothing(&mut self) {
        self.flushes_nothing = true;
    }

    /// From now on it asks for nothing of several shards, which only leaders answer.
    pub(super) fn keep_to_one_shard(&mut self) {
        self.several = 0;
    }

    /// Whether it has nothing more to ask, and knows all that it will.
    pub(super) fn is_done(&self, now_ns: u64) -> bool {
        self.wants_nothing(now_ns) && self.open.is_none()
    }

    fn wants_nothing(&self, now_ns: u64) -> bool {
        let has_ended = self.script.as_ref().map_or(now_ns >= self.until_ns, VecDeque::is_empty);
        has_ended && self.retries.is_empty()
    }

    /// When it does something next; it may be in the past.
    pub(super) fn next_ns(&self, world: &World) -> Option<u64> {
        let Some(open) = &self.open else {
            return (!self.wants_nothing(world.now_ns)).then_some(self.at_ns);
        };
        open.wire.next_ns(world, self.at_ns)
    }

    /// Does what it can do now.
    ///
    /// # Errors
    /// What is wrong with what it was answered.
    pub(super) fn step(&mut self, world: &mut World) -> Result<(), String> {
        let now_ns = world.now_ns;
        let Some(mut open) = self.open.take() else {
            let sent_to = self.goes_to.take();
            let node = sent_to.or(self.home).unwrap_or_else(|| world.random.index(world.machines.len()));
            match Wire::connect(self.number, node, world) {
                Ok(wire) => self.open = Some(Open { wire, counters: BTreeMap::new() }),
                Err(again_ns) => {
                    self.at_ns = again_ns;
                    // Others know better by then.
                    let requests = self.retries.iter_mut().chain(self.script.iter_mut().flatten());
                    requests.for_each(|request| request.goes_to = None);
                }
            }
            return Ok(());
        };
        match open.wire.exchange(world) {
            Came::Bytes => {
                self.take_replies(&mut open, now_ns)?;
                if open.wire.pending.is_empty() {
                    self.at_ns = now_ns + world.random.below(self.pause_ns);
                }
            }
            Came::Ended => {
                self.leave(open, world);
                return Ok(());
            }
            Came::Nothing => {}
        }
        if open.wire.pending.is_empty() {
            let is_bored = self.home.is_none() && world.random.one_in(40);
            if self.wants_nothing(now_ns) || (self.at_ns <= now_ns && is_bored) {
                self.leave(open, world);
                return Ok(());
            }
            if self.at_ns <= now_ns {
                if let Some(node) = self.elsewhere(open.wire.node) {
                    self.leave(open, world);
                    self.goes_to = Some(node);
                    self.at_ns = now_ns + world.random.below(MOVE_NS);
                    return Ok(());
                }
                self.ask(&mut open, world);
            }
        } else if open.wire.is_late(now_ns) {
            self.leave(open, world);
            return Ok(());
        }
        self.open = Some(open);
        Ok(())
    }

    /// Gives a connection up, with what was not answered on it.
    fn leave(&mut self, open: Open, world: &mut World) {
        let (unanswered, again_ns) = open.wire.leave(world);
        self.at_ns = again_ns;
        for request in unanswered {
            self.counts.lost += 1;
            self.forget(request);
        }
    }

    /// A request's fate is unknown.
    fn forget(&mut self, mut request: Request) {
        request.is_retry = true;
        let is_write = request.action.as_ref().is_some_and(|action| *action != Action::Get);
        if self.script.is_some() || request.once.is_some() || (self.repeats_writes && is_write) {
            match &mut self.script {
                Some(script) => script.push_back(request),
                None => self.retries.push_back(request),
            }
        } else {
            self.record(request, None);
        }
    }

    /// The node that is to get what is to be asked next, if that is not this one.
    fn elsewhere(&self, node: usize) -> Option<usize> {
        let next = self.retries.front().or_else(|| self.script.as_ref()?.front())?;
        next.goes_to.or(self.home).filter(|&other| other != node)
    }

    /// Sends a request that was not executed to another node later, or gives it up.
    fn follow(&mut self, mut request: Request, to: usize) {
        self.counts.moved += 1;
        request.moves += 1;
        if !request.is_retry {
            request.invoked_ns = 0;
        }
        let is_lost = request.moves.is_multiple_of(MOVES_MAX);
        request.goes_to = Some(to).filter(|_| !is_lost);
        match &mut self.script {
            Some(script) => script.push_back(request),
            None if is_lost && request.once.is_none() => self.counts.refused += 1,
            None => self.retries.push_back(request),
        }
    }

    fn record(&mut self, request: Request, returned: Option<(u64, Answer)>) {
        if let Some(Several::Flush(_)) = request.several {
            let (returned_ns, keys) = (returned.map(|(at_ns, _)| at_ns), (0..KEYS).map(key_name));
            let operations = shelves::flush_operations(self.number, request.invoked_ns, returned_ns, keys);
            self.history.extend(operations);
            return;
        }
        let Request { action: Some(action), key, invoked_ns, .. } = request else { return };
        self.history.push(Operation { client: self.number, key, invoked_ns, action, returned });
    }

    /// Sends a burst of requests.
    fn ask(&mut self, open: &mut Open, world: &mut World) {
        let now_ns = world.now_ns;
        let count = 1 + world.random.below(self.burst_max);
        for _ in 0..count {
            if self.elsewhere(open.wire.node).is_some() {
                break;
            }
            let next = self.retries.pop_front().or_else(|| self.script.as_mut()?.pop_front());
            let mut request = match next {
                Some(request) => request,
                None if self.script.is_some() || now_ns >= self.until_ns => break,
                None => self.invent(&mut world.random),
            };
            if request.invoked_ns == 0 || self.script.is_some() {
                request.invoked_ns = now_ns;
            } else {
                self.counts.retried += 1;
            }
            let arguments = self.arguments(&request);
            request.slot = shelves::slot_of(&arguments);
            open.wire.ask(request, &arguments, now_ns);
            self.counts.requests += 1;
        }
    }

    fn invent(&mut self, random: &mut Random) -> Request {
        let key = random.index(KEYS);
        self.named += 1;
        let (client, named) = (self.number, self.named);
        if self.manner.flushes && random.one_in(FLUSH_EVERY) {
            self.counts.flushes += 1;
            return Request::of_several(Several::Flush(random.index(KEYS)), (None, Vec::new()));
        }
        if random.one_in(self.several) {
            let value = format!("{client}-{named}");
            if self.manner.has_shelves && (self.manner.flushes || random.one_in(2)) {
                self.counts.shelved += 1;
                return Request::of_shelf(Shelf::invent(random, &value));
            }
            let several = Several::invent(random);
            return Request::of_several(several, several.action(&value));
        }
        let action = match (random.below(30), key % 3) {
            (0..=9, _) => Some(Action::Get),
            (10, 0 | 2) => Some(Action::Delete),
            (11, _) if random.one_in(4) => None,
            (_, 0) => {
                let mut value = format!("{client}-{named}").into_bytes();
                let length = random.below(self.value_bytes as u64 + 1) as usize;
                value.resize(value.len().max(length), b'.');
                Some(Action::Set(value))
            }
            (_, 1) => Some(Action::Increment),
            _ => Some(Action::Append(format!("<{client}-{named}>").into_bytes())),
        };
        let is_write = action.as_ref().is_some_and(|action| *action != Action::Get);
        let once = (is_write && random.one_in(4)).then_some(named);
        Request { once, ..Request::new(action, key_name(key)) }
    }

    fn arguments(&self, request: &Request) -> Vec<Vec<u8>> {
        if let Some(several) = request.several {
            let mut arguments = several.arguments(request.action.as_ref());
            let is_halved = match (several, arguments[0].as_slice()) {
                (Several::Set(_), _) => !self.manner.has_shelves,
                (Several::Shelve(_), b"MSETNX") => arguments.len() > 3,
                _ => false,
            };
            if self.flushes_nothing && matches!(several, Several::Flush(_)) {
                return vec![b"SELECT".to_vec(), b"0".to_vec()];
            }
            if self.halves_writes && is_halved {
                arguments.truncate(arguments.len() - 2);
            }
            return arguments;
        }
        let mut arguments = Vec::new();
        if let Some(name) = request.once {
            arguments.extend([b"ONCE".to_vec(), format!("client{}", self.number).into_bytes()]);
            arguments.push(name.to_string().into_bytes());
        }
        let Some(action) = &request.action else { return vec![b"BGREWRITEAOF".to_vec()] };
        let (name, argument): (&[u8], Option<&Vec<u8>>) = match action {
            Action::Get => (b"GET", None),
            Action::Set(value) => (b"SET", Some(value)),
            Action::Delete => (b"DEL", None),
            Action::Increment => (b"INCR", None),
            Action::Append(token) => (b"APPEND", Some(token)),
            Action::Clear | Action::Places(_) => panic!("no client asks for {action} of one key"),
        };
        arguments.extend([name.to_vec(), request.key.clone()]);
        arguments.extend(argument.cloned());
        arguments
    }

    fn take_replies(&mut self, open: &mut Open, now_ns: u64) -> Result<(), String> {
        while let Some((request, reply)) = open.wire.reply(now_ns)? {
            self.counts.replies += 1;
            let heard = match (&request.several, &request.action) {
                (Some(several), action) => several.hear(action.as_ref(), &reply, self.manner.redirects)?,
                (None, Some(action)) => hear(action, &reply)?,
                (None, None) => continue,
            };
            match heard {
                Heard::Answer(answer) => {
                    if let (None, Some(action), false) = (request.once, &request.action, self.manner.flushes)
                    {
                        check_order(open, &request.key, action, &answer)?;
                    }
                    self.record(request, Some((now_ns, answer)));
                }
                Heard::Refused => {
                    self.counts.refused += 1;
                    let is_full = |text: &[u8]| text.ends_with(b"has no room for its journal");
                    self.counts.without_room +=
                        u64::from(matches!(&reply, Reply::Error(text) if is_full(text)));
                    // An earlier attempt may have been executed.
                    if self.script.is_some() || request.once.is_some() {
                        self.forget(request);
                    }
                }
                Heard::Early => {
                    self.counts.refused += 1;
                    self.counts.early += 1;
                    if request.is_retry && request.once.is_some() {
                        self.forget(request);
                    }
                }
                Heard::Moved => {
                    let Reply::Error(text) = &reply else { continue };
                    match shelves::moved(text)?.filter(|_| self.manner.redirects) {
                        Some(Moved { to, slot }) if slot == request.slot => self.follow(request, to),
                        _ => return Err(format!("slot {} is answered with {}", request.slot, reply.shown())),
                    }
                }
                Heard::Crossed => self.counts.crossed += 1,
                Heard::Uncertain => {
                    self.counts.uncertain += 1;
                    self.forget(request);
                }
            }
        }
        Ok(())
    }
}

/// A counter only grows, and a connection's requests for it are executed in order.
fn check_order(open: &mut Open, key: &[u8], action: &Action, answer: &Answer) -> Result<(), String> {
    let (seen, is_new) = match (action, answer) {
        (Action::Increment, Answer::Integer(seen)) => (*seen, true),
        (Action::Get, Answer::Value(value)) if key.starts_with(b"counter") => {
            let text = value.as_deref().map_or("0", |bytes| std::str::from_utf8(bytes).unwrap_or("?"));
            (text.parse().map_err(|_| format!("a counter holds {text}"))?, false)
        }
        _ => return Ok(()),
    };
    let known = open.counters.get(key).copied().unwrap_or(0);
    open.counters.insert(key.to_vec(), seen.max(known));
    if seen < known + i64::from(is_new) {
        let name = key.escape_ascii();
        return Err(format!("a connection sees {name} at {seen} after it was at {known}: out of order"));
    }
    Ok(())
}

/// What a reply says about what was asked.
pub(super) enum Heard {
    Answer(Answer),
    /// It was not executed.
    Refused,
    /// Nor was it because not all nodes know the command yet.
    Early,
    /// Nor was it because another node is to be asked, or because its keys are in several slots.
    Moved,
    Crossed,
    /// It was executed or not, now or later.
    Uncertain,
}

pub(super) fn hear(action: &Action, reply: &Reply) -> Result<Heard, String> {
    let answer = match (action, reply) {
        (_, Reply::Error(text)) => {
            let code = text.split(|&byte| byte == b' ').next().unwrap_or_default();
            return match code {
                b"UNCERTAIN" => Ok(Heard::Uncertain),
                b"MOVED" => Ok(Heard::Moved),
                b"CLUSTERDOWN" | b"LOADING" | b"MISCONF" => Ok(Heard::Refused),
                b"ERR" if text.windows(13).any(|it| it == b"feature level") => Ok(Heard::Early),
                _ => Err(format!("{action} is answered with {}", reply.shown())),
            };
        }
        (Action::Get, Reply::Nil) => Answer::Value(None),
        (Action::Get, Reply::Bulk(value)) => Answer::Value(Some(value.clone())),
        (Action::Set(_), Reply::Simple(text)) if text == b"OK" => Answer::Done,
        (Action::Delete | Action::Increment | Action::Append(_), Reply::Integer(number)) => {
            Answer::Integer(*number)
        }
        _ => return Err(format!("{action} is answered with {}", reply.shown())),
    };
    Ok(Heard::Answer(answer))
}
