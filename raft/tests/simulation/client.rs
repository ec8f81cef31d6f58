//! Clients: each has one operation at a time, and repeats it under the same name until it is answered.

use duva_raft::ReplicaId;

use super::{
    check::{Event as Happened, Operation, Outcome},
    machine::Command,
    outside::Outside,
    queue::Event,
};

const MS: u64 = 1_000_000;

/// An operation on its way to a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) attempt: u64,
    pub(crate) operation: Operation,
}

/// What a node says to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) request: Request,
    pub(crate) result: Result<Outcome, Refusal>,
}

/// Why an operation was not done, as far as that node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Another replica leads, perhaps this one.
    NotLeader(Option<ReplicaId>),
    /// There is no replica, or it cannot say, or not now.
    Unknown,
}

/// One client.
pub(crate) struct Client {
    id: usize,
    /// Reads there, mostly, if it has one.
    home: Option<usize>,
    present: Option<Operation>,
    /// Counts what was sent; answers to earlier attempts of the present operation count too.
    attempt: u64,
    requests: u64,
    /// The node that it believes to lead, by group.
    leaders: Vec<usize>,
    /// The last value that it saw, by group and key.
    seen: Vec<Vec<u64>>,
}

impl Client {
    pub(crate) fn new(id: usize, home: Option<usize>, groups: usize, keys: usize) -> Self {
        Self {
            id,
            home,
            present: None,
            attempt: 0,
            requests: 0,
            leaders: vec![0; groups],
            seen: vec![vec![0; keys]; groups],
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.present.is_none()
    }

    /// Its time has come: to begin something, or to try again.
    pub(crate) fn turn(&mut self, outside: &mut Outside, attempt: u64) {
        if attempt != self.attempt {
            return;
        }
        let operation = match self.present {
            Some(operation) => {
                self.leaders[operation.group] = outside.random.index(outside.setup.nodes);
                operation
            }
            None if outside.is_over => return,
            None => self.begin(outside),
        };
        self.send(outside, operation);
    }

    fn begin(&mut self, outside: &mut Outside) -> Operation {
        let random = &mut outside.random;
        self.requests += 1;
        let (client, request) = (self.id as u64, self.requests);
        let group = random.index(outside.setup.groups);
        let key = random.below(outside.setup.keys as u64);
        let write = (!random.permille(outside.setup.reads_permille)).then(|| Command {
            client,
            request,
            key,
            value: ((client + 1) << 32) | request,
            expected: random.permille(200).then(|| self.seen[group][key as usize]),
            lifetime_ms: if random.permille(200) { random.between(5, 200) } else { 0 },
        });
        let operation = Operation { client, request, group, key, write };
        self.present = Some(operation);
        outside.checks.see(Happened::Invoked { operation, now_ns: outside.now_ns });
        operation
    }

    fn send(&mut self, outside: &mut Outside, operation: Operation) {
        self.attempt += 1;
        let at_home = self.home.filter(|_| operation.write.is_none() && outside.random.permille(800));
        let node = at_home.unwrap_or(self.leaders[operation.group]);
        let request = Request { attempt: self.attempt, operation };
        let delay_ns = outside.random.between(20_000, 100_000);
        outside.later(delay_ns, Event::Request { node, request });
        let patience_ns = outside.random.between(outside.setup.patience_ns / 2, outside.setup.patience_ns);
        outside.later(patience_ns, Event::Client { client: self.id, attempt: self.attempt });
    }

    pub(crate) fn answered(&mut self, outside: &mut Outside, answer: Answer) {
        let Some(operation) = self.present else { return };
        if answer.request.operation.request != operation.request {
            return;
        }
        match answer.result {
            Ok(outcome) => self.end(outside, operation, outcome),
            // A later attempt is on its way.
            Err(_) if answer.request.attempt != self.attempt => {}
            Err(refusal) => {
                let leader = match refusal {
                    Refusal::NotLeader(leader) => leader.map(|leader| outside.homes[leader.0 as usize]),
                    Refusal::Unknown => None,
                };
                let random = &mut outside.random;
                let by_chance = random.index(outside.setup.nodes);
                self.leaders[operation.group] = leader.filter(|_| random.permille(800)).unwrap_or(by_chance);
                self.attempt += 1;
                let delay_ns = random.between(MS / 2, 8 * MS);
                outside.later(delay_ns, Event::Client { client: self.id, attempt: self.attempt });
            }
        }
    }

    fn end(&mut self, outside: &mut Outside, operation: Operation, outcome: Outcome) {
        let (client, request) = (operation.client, operation.request);
        let now_ns = outside.now_ns;
        outside.checks.see(Happened::Returned { client, request, result: outcome, now_ns });
        outside.trace.note(now_ns, [1, client, request], || {
            format!("client {client} done {operation:?}: {outcome:?}")
        });
        let seen = match outcome {
            Outcome::Read(seen) => seen,
            Outcome::Wrote(reply) => reply.before,
        };
        self.seen[operation.group][operation.key as usize] = match operation.write {
            Some(command) if matches!(outcome, Outcome::Wrote(reply) if reply.is_written) => command.value,
            _ => seen.value,
        };
        self.present = None;
        self.attempt += 1;
        let think_ns = outside.random.below(outside.setup.think_ns);
        outside.later(think_ns, Event::Client { client: self.id, attempt: self.attempt });
    }
}
