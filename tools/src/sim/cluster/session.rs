//! Clients whose reads promise less than linearizability, and the judgement of what they see.
//!
//! Their keys only grow, counters by one and lists by tokens, so that what was seen of a key is one number: the counter, or
//! the length of the list. Invariants:
//!
//! - Writes, and reads of the level linearizable, are operations of the common history. Other reads are judged here.
//! - What a connection knows is what it was answered once it kept account of it, and what the token that it was given stands
//!   for. A session read sees no less of its key; a sequential one sees no less than what was known to whoever wrote what it has
//!   seen, either.
//! - What any read sees was there once: of lists it is the beginning of what they come to in the end, and of all of them no more
//!   than what had been asked for by then.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use duva_tools::linearizability::{Action, Answer, Operation};

use super::{
    client::{Heard, hear},
    wire::{Came, Wire},
    world::World,
};
use crate::sim::{random::Random, resp::Reply, trace};

/// The number of the first of them among all clients.
const NUMBER_MIN: usize = 100;

/// The keys: counters, which other clients use as well, and lists.
const KEYS: [&str; 6] = ["counter:1", "counter:4", "counter:7", "tail:0", "tail:1", "tail:2"];

/// How much of each key is known.
type Known = BTreeMap<&'static str, i64>;

/// By key and how far it had come by a write: what its writer knew when it asked for it, if its level was sequential.
pub(super) type Causes = Rc<RefCell<BTreeMap<&'static str, BTreeMap<i64, Known>>>>;

/// What reads promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Stale,
    Session,
    Sequential,
    Linearizable,
}

/// What is asked.
enum What {
    Level(Level),
    /// The token of an earlier connection, and what it stands for.
    Token(Vec<u8>, Known),
    AskToken,
    ReadOnly,
    Action(&'static str, Action),
}

/// A request.
struct Request {
    what: What,
    /// The level of its connection, and whether that keeps account of what it sees.
    level: Level,
    is_tracked: bool,
    /// What was known when it was sent.
    known: Known,
    invoked_ns: u64,
}

/// A connection.
struct Open {
    wire: Wire<Request>,
    level: Level,
    is_tracked: bool,
    /// What it has written or read itself, and what it knows of others' writes.
    seen: Known,
    causal: Known,
}

/// What a read saw that is in no history.
struct Sight {
    key: &'static str,
    at_ns: u64,
    /// What it saw of the key, and the value.
    came_to: i64,
    value: Vec<u8>,
}

/// A client.
pub(super) struct SessionClient {
    number: usize,
    pause_ns: u64,
    burst_max: u64,
    until_ns: u64,
    at_ns: u64,
    open: Option<Open>,
    /// The last token, and what it stands for.
    token: Option<(Vec<u8>, Known)>,
    causes: Causes,
    /// Lists that it still has to read in the end.
    last_reads: Vec<&'static str>,
    /// Whether nodes send clients to leaders: it goes wherever it likes, until it is there.
    redirects: bool,
    /// Whether it asks for stale reads whatever it expects.
    reads_stale: bool,
    named: u64,
    sights: Vec<Sight>,
    history: Vec<Operation>,
    pub(super) requests: u64,
}

fn is_list(key: &str) -> bool {
    key.starts_with("tail")
}

/// How much a write adds to its key.
fn added(action: &Action) -> i64 {
    match action {
        Action::Increment => 1,
        Action::Append(token) => token.len() as i64,
        _ => 0,
    }
}

fn raise(known: &mut Known, key: &'static str, to: i64) {
    let came_to = known.entry(key).or_default();
    *came_to = to.max(*came_to);
}

impl SessionClient {
    /// One that does as it likes until a moment, and reads all lists then.
    pub(super) fn new(
        number: usize,
        causes: &Causes,
        random: &mut Random,
        now_ns: u64,
        until_ns: u64,
    ) -> Self {
        Self {
            number: NUMBER_MIN + number,
            pause_ns: random.pick(&[3_000_000, 30_000_000]),
            burst_max: random.pick(&[1, 2, 6]),
            until_ns,
            at_ns: now_ns + random.below(50_000_000),
            open: None,
            token: None,
            causes: Rc::clone(causes),
            last_reads: KEYS.into_iter().filter(|key| is_list(key)).collect(),
            redirects: false,
            reads_stale: false,
            named: 0,
            sights: Vec::new(),
            history: Vec::new(),
            requests: 0,
        }
    }

    /// From now on it asks for stale reads, and expects what it would have asked for.
    pub(super) fn read_stale(&mut self) {
        self.reads_stale = true;
    }

    /// From now on it may be sent to another node.
    pub(super) fn be_redirected(&mut self) {
        self.redirects = true;
    }

    /// Whether it has nothing more to ask, and knows all that it will.
    pub(super) fn is_done(&self) -> bool {
        self.last_reads.is_empty() && self.open.is_none()
    }

    /// Its operations.
    pub(super) fn take_history(&mut self) -> Vec<Operation> {
        std::mem::take(&mut self.history)
    }

    /// When it does something next; it may be in the past.
    pub(super) fn next_ns(&self, world: &World) -> Option<u64> {
        let Some(open) = &self.open else { return (!self.is_done()).then_some(self.at_ns) };
        open.wire.next_ns(world, self.at_ns)
    }

    /// Does what it can do now.
    ///
    /// # Errors
    /// What is wrong with what it was answered.
    pub(super) fn step(&mut self, world: &mut World) -> Result<(), String> {
        let now_ns = world.now_ns;
        let Some(mut open) = self.open.take() else {
            self.connect(world);
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
            let is_over = self.last_reads.is_empty();
            if is_over || (self.at_ns <= now_ns && world.random.one_in(20)) {
                self.leave(open, world);
                return Ok(());
            }
            if self.at_ns <= now_ns {
                self.ask(&mut open, world);
            }
        } else if open.wire.is_late(now_ns) {
            self.leave(open, world);
            return Ok(());
        }
        self.open = Some(open);
        Ok(())
    }

    /// Goes to any node, with a level and perhaps with what was known before.
    fn connect(&mut self, world: &mut World) {
        let (now_ns, node) = (world.now_ns, world.random.index(world.machines.len()));
        let wire = match Wire::connect(self.number, node, world) {
            Ok(wire) => wire,
            Err(again_ns) => {
                self.at_ns = again_ns;
                return;
            }
        };
        let mut open = Open {
            wire,
            level: Level::Linearizable,
            is_tracked: false,
            seen: Known::new(),
            causal: Known::new(),
        };
        if let Some((token, known)) = self.token.take().filter(|_| world.random.one_in(2)) {
            self.send(&mut open, What::Token(token, known), now_ns);
        }
        let level = any_level(&mut world.random);
        self.send(&mut open, What::Level(level), now_ns);
        self.open = Some(open);
    }

    /// Gives a connection up, with what was not answered on it.
    fn leave(&mut self, open: Open, world: &mut World) {
        let (unanswered, again_ns) = open.wire.leave(world);
        self.at_ns = again_ns;
        for request in unanswered {
            self.record(request, None);
        }
    }

    /// An operation's fate: unknown, or what it was answered and when.
    fn record(&mut self, request: Request, returned: Option<(u64, Answer)>) {
        let Request { what: What::Action(key, action), invoked_ns, .. } = request else { return };
        if action == Action::Get && returned.is_none() {
            return;
        }
        let key = key.as_bytes().to_vec();
        self.history.push(Operation { client: self.number, key, invoked_ns, action, returned });
    }

    /// Sends a burst of requests.
    fn ask(&mut self, open: &mut Open, world: &mut World) {
        let now_ns = world.now_ns;
        if now_ns >= self.until_ns {
            self.send(open, What::Level(Level::Linearizable), now_ns);
            for key in self.last_reads.clone() {
                self.send(open, What::Action(key, Action::Get), now_ns);
            }
            return;
        }
        for _ in 0..=world.random.below(self.burst_max) {
            let what = self.invent(&mut world.random);
            self.send(open, what, now_ns);
        }
    }

    fn invent(&mut self, random: &mut Random) -> What {
        match random.below(40) {
            0 | 1 => return What::Level(any_level(random)),
            2..=4 => return What::AskToken,
            // There it would make reads stale.
            5 if self.redirects => return What::AskToken,
            5 => return What::ReadOnly,
            _ => {}
        }
        let key = random.pick(&KEYS);
        if random.one_in(2) {
            return What::Action(key, Action::Get);
        }
        self.named += 1;
        let action = if is_list(key) {
            Action::Append(format!("<{}-{}>", self.number, self.named).into_bytes())
        } else {
            Action::Increment
        };
        What::Action(key, action)
    }

    fn send(&mut self, open: &mut Open, what: What, now_ns: u64) {
        match &what {
            What::Level(level) => {
                open.level = *level;
                open.is_tracked |= matches!(level, Level::Session | Level::Sequential);
            }
            What::Token(..) | What::AskToken => open.is_tracked = true,
            What::ReadOnly | What::Action(..) => {}
        }
        let words = self.words(&what);
        let mut known = open.seen.clone();
        open.causal.iter().for_each(|(&key, &came_to)| raise(&mut known, key, came_to));
        let (level, is_tracked) = (open.level, open.is_tracked);
        let request = Request { what, level, is_tracked, known, invoked_ns: now_ns };
        open.wire.ask(request, &words, now_ns);
        self.requests += 1;
    }

    fn words(&self, what: &What) -> Vec<Vec<u8>> {
        let words: &[&[u8]] = match what {
            What::Level(Level::Linearizable) => &[b"CLIENT", b"CONSISTENCY", b"LINEARIZABLE"],
            What::Level(Level::Session) if !self.reads_stale => &[b"CLIENT", b"CONSISTENCY", b"session"],
            What::Level(Level::Sequential) if !self.reads_stale => {
                &[b"CLIENT", b"CONSISTENCY", b"sequential"]
            }
            What::Level(_) => &[b"CLIENT", b"CONSISTENCY", b"stale"],
            What::Token(token, _) => &[b"CLIENT", b"TOKEN", token],
            What::AskToken => &[b"CLIENT", b"TOKEN"],
            What::ReadOnly => &[b"READONLY"],
            What::Action(key, Action::Increment) => &[b"INCR", key.as_bytes()],
            What::Action(key, Action::Append(token)) => &[b"APPEND", key.as_bytes(), token],
            What::Action(key, _) => &[b"GET", key.as_bytes()],
        };
        words.iter().map(|word| word.to_vec()).collect()
    }

    fn take_replies(&mut self, open: &mut Open, now_ns: u64) -> Result<(), String> {
        let number = self.number;
        while let Some((request, reply)) = open.wire.reply(now_ns)? {
            self.take_reply(open, request, reply, now_ns)
                .map_err(|error| format!("client {number} {error}"))?;
        }
        Ok(())
    }

    fn take_reply(
        &mut self,
        open: &mut Open,
        request: Request,
        reply: Reply,
        now_ns: u64,
    ) -> Result<(), String> {
        let (key, action) = match (&request.what, reply) {
            (What::Action(key, action), reply) => match hear(action, &reply)? {
                Heard::Answer(answer) => return self.take_answer(open, request, answer, now_ns),
                Heard::Refused | Heard::Early => return Ok(()),
                Heard::Moved if self.redirects => return Ok(()),
                Heard::Moved | Heard::Crossed => {
                    return Err(format!("is answered {} for {key}", reply.shown()));
                }
                Heard::Uncertain => (*key, action),
            },
            (What::Level(_) | What::ReadOnly, Reply::Simple(text)) if text == b"OK" => return Ok(()),
            (What::Token(_, known), Reply::Simple(text)) if text == b"OK" => {
                known.iter().for_each(|(&key, &came_to)| raise(&mut open.seen, key, came_to));
                return Ok(());
            }
            (What::AskToken, Reply::Bulk(token)) => {
                self.token = Some((token, open.seen.clone()));
                return Ok(());
            }
            (_, reply) => return Err(format!("is answered {}", reply.shown())),
        };
        if *action == Action::Get {
            return Err(format!("is answered that a read of {key} is uncertain"));
        }
        self.record(request, None);
        Ok(())
    }

    fn take_answer(
        &mut self,
        open: &mut Open,
        request: Request,
        answer: Answer,
        now_ns: u64,
    ) -> Result<(), String> {
        let What::Action(key, action) = &request.what else { return Ok(()) };
        let (key, level, is_read) = (*key, request.level, *action == Action::Get);
        let value = match &answer {
            Answer::Value(value) => value.clone().unwrap_or_default(),
            _ => Vec::new(),
        };
        let came_to = match &answer {
            Answer::Integer(number) => *number,
            _ if is_list(key) => value.len() as i64,
            _ if value.is_empty() => 0,
            _ => std::str::from_utf8(&value)
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or("reads no number")?,
        };
        if level >= Level::Session || !is_read {
            let seen = open.seen.get(key).copied().unwrap_or(0);
            let causal =
                if level >= Level::Sequential { open.causal.get(key).copied().unwrap_or(0) } else { 0 };
            if came_to < seen.max(causal) + added(action) {
                return Err(format!(
                    "sees {key} at {came_to} ({level:?}), when it has seen it at {seen}, and knows that it was at {causal}"
                ));
            }
        }
        if request.is_tracked && (level >= Level::Session || !is_read) {
            raise(&mut open.seen, key, came_to);
        }
        if level == Level::Sequential {
            let mut causes = self.causes.borrow_mut();
            let causes = causes.entry(key).or_default();
            if !is_read {
                causes.insert(came_to, request.known.clone());
            }
            for known in causes.range(..=came_to).map(|(_, known)| known) {
                known.iter().for_each(|(&key, &came_to)| raise(&mut open.causal, key, came_to));
            }
        }
        if is_read && level < Level::Linearizable {
            self.sights.push(Sight { key, at_ns: now_ns, came_to, value });
            return Ok(());
        }
        if is_read && request.invoked_ns >= self.until_ns {
            self.last_reads.retain(|other| *other != key);
        }
        self.record(request, Some((now_ns, answer)));
        Ok(())
    }

    /// Judges what it saw by all that was asked for, and by what keys have come to.
    ///
    /// # Errors
    /// What was seen that was never there.
    pub(super) fn judge(
        &self,
        history: &[Operation],
        finals: &BTreeMap<Vec<u8>, Vec<u8>>,
    ) -> Result<(), String> {
        let nothing = Vec::new();
        for sight in &self.sights {
            let Sight { key, at_ns, came_to, value } = sight;
            let asked = history.iter().filter(|it| it.key == key.as_bytes() && it.invoked_ns <= *at_ns);
            let asked: i64 = asked.map(|it| added(&it.action)).sum();
            let last = finals.get(key.as_bytes()).unwrap_or(&nothing);
            let is_of_it = !is_list(key) || last.starts_with(value);
            if *came_to > asked || !is_of_it {
                return Err(format!(
                    "client {} saw at {at_ns} what {key} never was: {}",
                    self.number,
                    trace::shown(value)
                ));
            }
        }
        Ok(())
    }
}

fn any_level(random: &mut Random) -> Level {
    random.pick(&[
        Level::Stale,
        Level::Session,
        Level::Session,
        Level::Session,
        Level::Sequential,
        Level::Sequential,
        Level::Linearizable,
    ])
}
