//! One seed's world: what happens next, until everything is well again.

use std::collections::VecDeque;

use duva_raft::{Membership, ReplicaId};

use super::{
    Options, Summary,
    actions::Action,
    check::{Checks, Violation},
    client::Client,
    clock::Clock,
    disk::Speed,
    network::{Network, Quality},
    node::{Finished, Node},
    operator::{self, Group},
    outside::Outside,
    queue::{Event, Queue},
    random::Random,
    setup::{FOCUSES, Setup},
    trace::Trace,
};

const MS: u64 = 1_000_000;

/// After the last fault there is a leader within this time,
const LEADER_WITHIN_NS: u64 = 3_000 * MS;
/// and all is well within this.
const WELL_WITHIN_NS: u64 = 10_000 * MS;
/// How often a group's membership is looked at.
const LOOK_EVERY_NS: u64 = 30 * MS;
/// The busiest seeds need half as many: more are a storm of messages.
const EVENTS_MAX: u64 = 1_500_000;

/// Everything there is.
pub(crate) struct World {
    pub(crate) outside: Outside,
    pub(crate) nodes: Vec<Node>,
    pub(crate) groups: Vec<Group>,
    clients: Vec<Client>,
    /// The leader that was cut off last.
    pub(crate) isolated: Option<usize>,
    /// How soon the next leaders are to be cut off.
    pub(crate) cuts: VecDeque<u64>,
    /// Disks that were lost.
    pub(crate) losses: usize,
}

impl World {
    pub(crate) fn new(options: &Options) -> Self {
        let mut random = Random::new(options.seed);
        let focus = options.focus.unwrap_or(FOCUSES[(options.seed % FOCUSES.len() as u64) as usize]);
        let setup = Setup::new(&mut random, focus, options.only);
        let groups = setup.groups;
        let mut outside = Outside {
            flaw: options.flaw,
            now_ns: 0,
            queue: Queue::default(),
            random,
            network: Network::new(setup.nodes, setup.quality),
            trace: Trace::new(options.detail),
            checks: Checks::new(groups, options.checks_promises),
            homes: vec![0],
            is_over: false,
            memberships: Vec::new(),
            new_leaders: Vec::new(),
            setup,
        };
        let nodes = (0..outside.setup.nodes)
            .map(|id| {
                let rate = outside.random_rate();
                let offset_ms = outside.random.below(2000) as i64 - 1000;
                Node::new(id, &mut outside, Clock::new(0, rate, offset_ms))
            })
            .collect();
        let mut world = Self {
            outside,
            nodes,
            groups: Vec::new(),
            clients: Vec::new(),
            isolated: None,
            cuts: VecDeque::new(),
            losses: 0,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        let outside = &mut self.outside;
        for group in 0..outside.setup.groups {
            let first = outside.random.index(outside.setup.nodes);
            let homes: Vec<usize> =
                (0..outside.setup.voters_first).map(|place| (first + place) % outside.setup.nodes).collect();
            let voters: Vec<ReplicaId> = homes.iter().map(|&node| outside.new_replica(node)).collect();
            let membership = Membership { voters: voters.clone(), ..Membership::default() };
            for (&node, &id) in homes.iter().zip(&voters) {
                self.nodes[node].create(outside, group, id, membership.clone());
            }
            self.groups.push(Group::new(membership));
            let delay_ns = outside.random.below(LOOK_EVERY_NS);
            outside.later(delay_ns, Event::Operator { group });
        }
        for id in 0..outside.setup.clients {
            let home = (id >= 2).then_some(id % outside.setup.nodes);
            self.clients.push(Client::new(id, home, outside.setup.groups, outside.setup.keys));
            outside.later(0, Event::Client { client: id, attempt: 0 });
        }
        outside.later(300 * MS, Event::Fault);
        outside.later(outside.setup.heal_ns, Event::Heal);
    }

    /// Lets everything happen.
    ///
    /// # Errors
    ///
    /// The first rule that did not hold.
    pub(crate) fn run(&mut self) -> Result<(), Violation> {
        while let Some((at_ns, event)) = self.outside.queue.next() {
            self.outside.now_ns = at_ns;
            let is_settled = matches!(event, Event::Settled);
            self.happen(event);
            while let Some(node) = self.outside.new_leaders.pop() {
                self.unsettle(node);
            }
            while let Some((group, index, membership)) = self.outside.memberships.pop() {
                self.groups[group].see_committed(index, membership);
            }
            if let Some(violation) = self.outside.checks.violation() {
                return Err(violation.clone());
            }
            if is_settled && self.is_well() {
                return self.end();
            }
            if self.outside.queue.added() > EVENTS_MAX {
                return Err(Violation::new("liveness", format!("{EVENTS_MAX} events are not enough")));
            }
        }
        Err(Violation::new("liveness", "nothing happens any more".to_owned()))
    }

    fn happen(&mut self, event: Event) {
        let outside = &mut self.outside;
        match event {
            Event::Deliver { from, to, generation, group, message } => {
                if outside.network.is_current(from, to, generation) {
                    self.nodes[to].deliver(outside, group, message);
                }
            }
            Event::Request { node, request } => self.nodes[node].request(outside, request),
            Event::Answer(answer) => {
                self.clients[answer.request.operation.client as usize].answered(outside, answer);
            }
            Event::Client { client, attempt } => self.clients[client].turn(outside, attempt),
            Event::Turn { node } => self.nodes[node].turn(outside),
            Event::Written { node, life } => self.nodes[node].disk_finished(outside, life, false),
            Event::Synced { node, life } => self.nodes[node].disk_finished(outside, life, true),
            Event::PieceStored { file, next_offset, whole } => {
                let (node, life) = (file.node, file.life);
                self.nodes[node].finish(outside, life, Finished::PieceStored { file, next_offset, whole });
            }
            Event::SnapshotRoom { file } => {
                let (node, life) = (file.node, file.life);
                self.nodes[node].finish(outside, life, Finished::SnapshotRoom { file });
            }
            Event::SnapshotSaved { file, bytes } => {
                let (node, life) = (file.node, file.life);
                self.nodes[node].finish(outside, life, Finished::SnapshotSaved { file, bytes });
            }
            Event::Read { node, life, group, replica, read } => {
                self.nodes[node].finish(outside, life, Finished::Read { group, replica, read });
            }
            Event::Fault if !outside.is_over => self.fault(),
            Event::Action(action) if !outside.is_over || matches!(action, Action::Start(_)) => {
                self.act(action)
            }
            Event::Fault | Event::Action(_) => {}
            Event::Operator { group } => {
                operator::look(&mut self.nodes, &mut self.groups[group], group, outside);
                outside.later(LOOK_EVERY_NS, Event::Operator { group });
            }
            Event::Heal => self.heal(),
            Event::Settled => {
                self.check_leaders();
                self.outside.later(20 * MS, Event::Settled);
            }
        }
    }

    /// Nothing is broken any more, but clocks.
    fn heal(&mut self) {
        self.outside.is_over = true;
        self.outside.trace.note(self.outside.now_ns, [12, 0, 0], || "HEAL".to_owned());
        self.outside.network.heal();
        self.outside.network.set_all(Quality::GOOD);
        for node in &mut self.nodes {
            node.disk.speed = Speed::Normal;
            node.resume(&mut self.outside);
            let delay_ns = self.outside.random.below(50 * MS);
            let action = Action::Start(node.id);
            self.outside.later(delay_ns, Event::Action(action));
        }
        self.outside.later(100 * MS, Event::Settled);
    }

    fn check_leaders(&mut self) {
        let since_ns = self.outside.now_ns - self.outside.setup.heal_ns;
        for group in 0..self.groups.len() {
            if since_ns > LEADER_WITHIN_NS && operator::leader_of(&self.nodes, group).is_none() {
                let states: Vec<String> = self.nodes.iter().map(|node| node.describe(group)).collect();
                let what =
                    format!("group {group} has no leader after {} ms: {}", since_ns / MS, states.join("; "));
                self.outside.checks.report(Violation::new("liveness", what));
            }
        }
        if since_ns > WELL_WITHIN_NS {
            let what = format!("after {} ms: {}", since_ns / MS, self.complaints().join("; "));
            self.outside.checks.report(Violation::new("liveness", what));
        }
    }

    fn is_well(&self) -> bool {
        self.complaints().is_empty()
    }

    /// What is not as it should be when nothing is broken.
    fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        for (number, client) in self.clients.iter().enumerate() {
            if !client.is_idle() {
                complaints.push(format!("client {number} waits"));
            }
        }
        for (number, group) in self.groups.iter().enumerate() {
            if !group.is_settled(self.outside.setup.voters_wanted) {
                complaints.push(format!("group {number} is not complete: {:?}", group.committed()));
            }
            let Some(leader) = operator::leader_of(&self.nodes, number) else {
                complaints.push(format!("group {number} has no leader"));
                continue;
            };
            let last =
                self.nodes[leader].replicas[number].as_ref().map_or(0, |replica| replica.raft.last_index());
            let membership = group.committed();
            for &id in membership.voters.iter().chain(&membership.learners) {
                let node = &self.nodes[self.outside.homes[id.0 as usize]];
                let replica = node.replicas[number].as_ref().filter(|replica| replica.id == id);
                let (applied, commit) =
                    replica.map_or((0, 0), |replica| (replica.machine.applied, replica.raft.commit_index()));
                if applied != last || commit != last {
                    complaints.push(format!(
                        "replica {} of group {number} applied {applied}, knows {commit} as committed, of {last}",
                        id.0
                    ));
                }
            }
        }
        complaints
    }

    /// What happened.
    pub(crate) fn summary(&self) -> Summary {
        let outside = &self.outside;
        let mut summary = Summary {
            seeds: 1,
            events: outside.queue.added(),
            stops: self.nodes.iter().map(|node| node.life as usize).sum(),
            losses: self.losses,
            simulated_ns: outside.now_ns,
            hash: outside.trace.hash(),
            ..Summary::default()
        };
        outside.checks.count(&mut summary);
        summary
    }

    /// All is well: it can be seen whether it always was.
    fn end(&mut self) -> Result<(), Violation> {
        for (number, group) in self.groups.iter().enumerate() {
            for node in &self.nodes {
                let Some(replica) = &node.replicas[number] else { continue };
                let membership = group.committed();
                if membership.voters.contains(&replica.id) || membership.learners.contains(&replica.id) {
                    let (applied, digest) = (replica.machine.applied, replica.machine.digest());
                    self.outside.checks.see_end(number, replica.id, applied, digest);
                }
            }
        }
        self.outside.checks.finish();
        self.outside.checks.violation().cloned().map_or(Ok(()), Err)
    }
}
