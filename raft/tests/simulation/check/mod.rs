//! The checkers. They see what happened, as events, and nothing else: neither replicas nor nodes.
//!
//! | rule | where |
//! | --- | --- |
//! | election safety, leader append-only, log matching, leader completeness | [`logs`] |
//! | state machine safety, exactly once, acknowledged durability | [`machines`] |
//! | linearizability of reads and writes | [`history`] |
//! | persist before send, one vote a term | [`promises`] |
//!
//! Liveness is the world's: it knows when the faults ended.

mod history;
mod logs;
mod machines;
mod promises;

use std::fmt;

use duva_raft::{Entry, EntryKind, HardState, Index, Message, ReplicaId, Term};

use self::{history::History, logs::Logs, machines::Machines, promises::Promises};
use super::{
    Summary,
    machine::{Command, Reply, Seen},
    random::mix,
};

/// Something that the checkers should know.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event<'a> {
    /// A replica started with what it found.
    Started { group: usize, replica: ReplicaId, snapshot: (Index, Term), entries: &'a [Entry] },
    /// A replica's log got these entries, in place of all at the first one's index and after. It leads since before.
    Wrote { group: usize, replica: ReplicaId, leads: bool, entries: &'a [Entry] },
    /// A replica's log became what a snapshot says, or kept what follows it; its state did if `digest` is there.
    Installed { group: usize, replica: ReplicaId, snapshot: (Index, Term), digest: Option<u64> },
    /// A replica's log ends like this, as the replica has it.
    Ends { replica: ReplicaId, last: (Index, Term) },
    /// A replica leads.
    Led { group: usize, replica: ReplicaId, term: Term },
    /// A replica in this term applied an entry, after which its state has this digest.
    Applied { group: usize, replica: ReplicaId, term: Term, entry: &'a Entry, digest: u64 },
    /// A write took effect in a replica.
    Executed { group: usize, index: Index, command: Command, reply: Reply },
    /// A message left, while so much was durable at its sender.
    Sent { message: &'a Message, hard_state: HardState, durable: Index },
    /// A client began something.
    Invoked { operation: Operation, now_ns: u64 },
    /// A client was answered.
    Returned { client: u64, request: u64, result: Outcome, now_ns: u64 },
}

/// What a client wants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    pub(crate) client: u64,
    pub(crate) request: u64,
    pub(crate) group: usize,
    pub(crate) key: u64,
    pub(crate) write: Option<Command>,
}

/// What it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Read(Seen),
    Wrote(Reply),
}

/// A rule that does not hold.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) rule: &'static str,
    pub(crate) what: String,
}

impl Violation {
    pub(crate) fn new(rule: &'static str, what: String) -> Self {
        Self { rule, what }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.rule, self.what)
    }
}

/// All checkers, and the first violation that they found.
pub(crate) struct Checks {
    logs: Logs,
    machines: Machines,
    history: History,
    promises: Option<Promises>,
    violation: Option<Violation>,
}

impl Checks {
    /// Without `promises` a broken promise is not found by itself, only what becomes of it.
    pub(crate) fn new(groups: usize, promises: bool) -> Self {
        Self {
            logs: Logs::new(groups),
            machines: Machines::new(groups),
            history: History::default(),
            promises: promises.then(Promises::default),
            violation: None,
        }
    }

    pub(crate) fn see(&mut self, event: Event<'_>) {
        if self.violation.is_some() {
            return;
        }
        let mut result = self.logs.see(event).and_then(|()| self.machines.see(event));
        if let (Ok(()), Some(promises)) = (&result, &mut self.promises) {
            result = promises.see(event);
        }
        self.history.see(event);
        self.violation = result.err();
    }

    /// Somebody else found something.
    pub(crate) fn report(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    pub(crate) fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// When everything is over: a replica of the group has applied so much, and is in this state.
    pub(crate) fn see_end(&mut self, group: usize, replica: ReplicaId, applied: Index, digest: u64) {
        if let Err(violation) = self.machines.see_end(group, replica, applied, digest) {
            self.report(violation);
        }
    }

    /// What can only be told from the whole history.
    pub(crate) fn finish(&mut self) {
        if let Err(violation) = self.history.check() {
            self.report(violation);
        }
    }

    /// What was seen.
    pub(crate) fn count(&self, summary: &mut Summary) {
        self.logs.count(summary);
        summary.operations += self.history.answered();
    }
}

/// Entries with the same digest are the same.
fn digest(entry: &Entry) -> u64 {
    let kind = match entry.kind {
        EntryKind::Empty => 1 << 8,
        EntryKind::Membership => 2 << 8,
        EntryKind::Data(tag) => (3 << 8) | u64::from(tag),
    };
    let mut digest = 0;
    for word in [entry.index, entry.term, entry.timestamp_ms, entry.seed, kind, entry.payload.len() as u64] {
        digest = mix(digest ^ word);
    }
    let mut chunks = entry.payload.chunks_exact(8);
    for chunk in &mut chunks {
        digest = mix(digest ^ chunk.iter().fold(0, |word, &byte| (word << 8) | u64::from(byte)));
    }
    chunks.remainder().iter().fold(digest, |digest, &byte| mix(digest ^ u64::from(byte)))
}
