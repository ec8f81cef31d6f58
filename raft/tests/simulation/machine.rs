//! The state machine: a few registers, some of which expire, and for every client the last request with its reply.
//!
//! - What an entry does depends on the state and the entry alone. A register expires when the timestamp of an applied entry
//!   says so.
//! - A request takes effect once: its id is compared when it is applied. A client has one request at a time, so that its last
//!   one says all.

use std::sync::Arc;

use duva_raft::{Entry, EntryKind, Index};

use super::random::mix;

/// An entry that does nothing but tell the time.
pub(crate) const TAG_TICK: u8 = 0;
/// An entry that holds a [`Command`].
pub(crate) const TAG_COMMAND: u8 = 1;

/// A write, under the name by which it is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) client: u64,
    pub(crate) request: u64,
    pub(crate) key: u64,
    /// Never 0, and never the same in two writes.
    pub(crate) value: u64,
    /// Write only if the register holds this and is not expired.
    pub(crate) expected: Option<u64>,
    /// 0: forever.
    pub(crate) lifetime_ms: u64,
}

const WORD: usize = 8;
const COMMAND_WORDS: usize = 7;

impl Command {
    /// The command, and bytes that mean nothing.
    pub(crate) fn encode(&self, padding_bytes: usize) -> Arc<[u8]> {
        let words = [
            self.client,
            self.request,
            self.key,
            self.value,
            u64::from(self.expected.is_some()),
            self.expected.unwrap_or(0),
            self.lifetime_ms,
        ];
        let mut bytes = Vec::with_capacity(COMMAND_WORDS * WORD + padding_bytes);
        for word in words {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.resize(bytes.len() + padding_bytes, 0);
        bytes.into()
    }

    /// # Panics
    ///
    /// If it was not encoded by [`Command::encode`].
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        let mut words = Words(bytes);
        let [client, request, key, value] = [words.next(), words.next(), words.next(), words.next()];
        let [is_conditional, expected, lifetime_ms] = [words.next(), words.next(), words.next()];
        let expected = (is_conditional != 0).then_some(expected);
        Self { client, request, key, value, expected, lifetime_ms }
    }
}

/// What a register was seen to hold: the last value written, 0 before the first, and whether it had expired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) value: u64,
    pub(crate) is_expired: bool,
}

/// What a write is told: what it found, and whether it took place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) before: Seen,
    pub(crate) is_written: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Register {
    seen: Seen,
    /// 0: never.
    expires_ms: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct LastRequest {
    request: u64,
    reply: Reply,
}

/// What an entry did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing to tell anybody.
    None,
    /// A request took effect, with this reply.
    Executed(Command, Reply),
    /// A request was there before, with this reply.
    Repeated(Command, Reply),
    /// A request that its client gave up long ago.
    Outdated(Command),
}

/// How the machine is broken on purpose.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MachineFlaws {
    /// Expire by this wall clock rather than by the entry's timestamp.
    pub(crate) wall_ms: Option<u64>,
    /// Do not compare requests when they are applied.
    pub(crate) repeats: bool,
}

/// The state after the entry `applied`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) applied: Index,
    time_ms: u64,
    registers: Vec<Register>,
    requests: Vec<LastRequest>,
}

impl Machine {
    pub(crate) fn new(keys: usize, clients: usize) -> Self {
        Self {
            applied: 0,
            time_ms: 0,
            registers: vec![Register::default(); keys],
            requests: vec![LastRequest::default(); clients],
        }
    }

    /// # Panics
    ///
    /// If the entry does not follow the last one.
    pub(crate) fn apply(&mut self, entry: &Entry, flaws: MachineFlaws) -> Effect {
        assert_eq!(entry.index, self.applied + 1, "entries are applied one after another");
        self.applied = entry.index;
        self.time_ms = self.time_ms.max(flaws.wall_ms.unwrap_or(entry.timestamp_ms));
        for register in &mut self.registers {
            if register.expires_ms != 0 && register.expires_ms <= self.time_ms {
                register.expires_ms = 0;
                register.seen.is_expired = true;
            }
        }
        match entry.kind {
            EntryKind::Data(TAG_COMMAND) => self.command(Command::decode(&entry.payload), flaws.repeats),
            _ => Effect::None,
        }
    }

    fn command(&mut self, command: Command, repeats: bool) -> Effect {
        let last = &mut self.requests[command.client as usize];
        if !repeats && command.request == last.request {
            return Effect::Repeated(command, last.reply);
        }
        if command.request < last.request {
            return Effect::Outdated(command);
        }
        let register = &mut self.registers[command.key as usize];
        let before = register.seen;
        let is_written = match command.expected {
            Some(expected) => before == Seen { value: expected, is_expired: false },
            None => true,
        };
        if is_written {
            register.seen = Seen { value: command.value, is_expired: false };
            register.expires_ms =
                if command.lifetime_ms == 0 { 0 } else { self.time_ms + command.lifetime_ms };
        }
        let reply = Reply { before, is_written };
        *last = LastRequest { request: command.request, reply };
        Effect::Executed(command, reply)
    }

    /// Whether the request took effect already.
    pub(crate) fn reply_to(&self, client: u64, request: u64) -> Option<Reply> {
        let last = &self.requests[client as usize];
        (last.request == request).then_some(last.reply)
    }

    pub(crate) fn read(&self, key: u64) -> Seen {
        self.registers[key as usize].seen
    }

    /// When the next register expires.
    pub(crate) fn next_expiry_ms(&self) -> Option<u64> {
        self.registers.iter().map(|register| register.expires_ms).filter(|&expires_ms| expires_ms != 0).min()
    }

    pub(crate) fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// Two states with the same digest are the same.
    pub(crate) fn digest(&self) -> u64 {
        let mut digest = 0;
        self.for_each_word(|word| digest = mix(digest ^ word));
        digest
    }

    pub(crate) fn encode(&self) -> Arc<[u8]> {
        let mut bytes = Vec::new();
        self.for_each_word(|word| bytes.extend_from_slice(&word.to_le_bytes()));
        bytes.into()
    }

    /// # Panics
    ///
    /// If it is not the whole of what [`Machine::encode`] made of a machine of this size.
    pub(crate) fn decode(bytes: &[u8], keys: usize, clients: usize) -> Self {
        let mut machine = Self::new(keys, clients);
        let mut words = Words(bytes);
        machine.applied = words.next();
        machine.time_ms = words.next();
        let seen = |words: &mut Words<'_>| Seen { value: words.next(), is_expired: words.next() != 0 };
        for register in &mut machine.registers {
            *register = Register { seen: seen(&mut words), expires_ms: words.next() };
        }
        for last in &mut machine.requests {
            let request = words.next();
            let reply = Reply { before: seen(&mut words), is_written: words.next() != 0 };
            *last = LastRequest { request, reply };
        }
        assert!(words.0.is_empty(), "a snapshot has an end");
        machine
    }

    /// The machine as if no request had ever been made.
    pub(crate) fn without_requests(&self) -> Self {
        let requests = vec![LastRequest::default(); self.requests.len()];
        Self { requests, ..self.clone() }
    }

    fn for_each_word(&self, mut visit: impl FnMut(u64)) {
        visit(self.applied);
        visit(self.time_ms);
        for register in &self.registers {
            visit(register.seen.value);
            visit(u64::from(register.seen.is_expired));
            visit(register.expires_ms);
        }
        for last in &self.requests {
            visit(last.request);
            visit(last.reply.before.value);
            visit(u64::from(last.reply.before.is_expired));
            visit(u64::from(last.reply.is_written));
        }
    }
}

struct Words<'a>(&'a [u8]);

impl Words<'_> {
    fn next(&mut self) -> u64 {
        let (word, rest) = self.0.split_first_chunk::<WORD>().expect("words are whole");
        self.0 = rest;
        u64::from_le_bytes(*word)
    }
}
