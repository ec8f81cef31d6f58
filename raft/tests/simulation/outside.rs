//! What all nodes share: time, what is going to happen, chance, the network, and who watches.

use duva_raft::{Index, Membership, Message, ReplicaId};

use super::{
    check::Checks,
    check::Outcome,
    client::{Answer, Refusal, Request},
    clock::{RATE_EXACT, RATE_MAX, RATE_MIN},
    flaw::Flaw,
    network::Network,
    queue::{Event, Queue},
    random::Random,
    setup::Setup,
    trace::Trace,
};

/// Everything outside of a node.
pub(crate) struct Outside {
    pub(crate) setup: Setup,
    pub(crate) flaw: Option<Flaw>,
    pub(crate) now_ns: u64,
    pub(crate) queue: Queue,
    pub(crate) random: Random,
    pub(crate) network: Network,
    pub(crate) trace: Trace,
    pub(crate) checks: Checks,
    /// The node of every replica that there ever was, by its id.
    pub(crate) homes: Vec<usize>,
    /// Clients begin nothing any more.
    pub(crate) is_over: bool,
    /// Memberships that were found to be committed, with group and index.
    pub(crate) memberships: Vec<(usize, Index, Membership)>,
    /// Nodes that lead since this event.
    pub(crate) new_leaders: Vec<usize>,
}

impl Outside {
    pub(crate) fn later(&mut self, delay_ns: u64, event: Event) {
        self.queue.add(self.now_ns + delay_ns, event);
    }

    pub(crate) fn send(&mut self, from: usize, group: usize, message: Message) {
        let Some(&to) = self.homes.get(message.to.0 as usize) else { return };
        let arrivals = self.network.send(&mut self.random, self.now_ns, from, to);
        let generation = arrivals.generation;
        if let Some(at_ns) = arrivals.second_ns {
            let message = message.clone();
            self.queue.add(at_ns, Event::Deliver { from, to, generation, group, message });
        }
        if let Some(at_ns) = arrivals.first_ns {
            self.queue.add(at_ns, Event::Deliver { from, to, generation, group, message });
        }
    }

    pub(crate) fn answer(&mut self, request: Request, result: Result<Outcome, Refusal>) {
        let delay_ns = self.random.between(20_000, 100_000);
        self.later(delay_ns, Event::Answer(Answer { request, result }));
    }

    /// A name that no replica ever had.
    pub(crate) fn new_replica(&mut self, node: usize) -> ReplicaId {
        self.homes.push(node);
        ReplicaId(self.homes.len() as u64 - 1)
    }

    /// How fast a clock runs.
    pub(crate) fn random_rate(&mut self) -> u64 {
        match self.is(Flaw::ClocksBeyondMargin) {
            true => self.random.pick(&[RATE_EXACT * 55 / 100, RATE_EXACT * 135 / 100]),
            false => self.random.pick(&[RATE_MIN, RATE_EXACT, RATE_MAX]),
        }
    }

    pub(crate) fn is(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }
}
