//! One run: a seed's nodes, clients and faults, one step at a time.
//!
//! A core's turn has two halves, as in the run of a single server: in the first it submits and falls asleep, and what it waits
//! for ends its sleep. Whoever has something to do may be next; when nobody has, time goes on to the next thing that happens.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use duva_net::io::Wait;
use duva_server::{
    cluster::join::JoinAnswer,
    config::{ClusterRouting, Consistency, RaftDurability},
};

use super::{
    Sabotage, Summary,
    boot::{self, SHARDS, SimNode},
    client::Client,
    faults::{DRIFT_PPM_MAX, Fault, Happening, Target, Weights},
    manner::Manner,
    network::{End, News},
    operator::Operator,
    session::{Causes, SessionClient},
    upgrade::Upgrade,
    world::World,
};
use crate::sim::{
    Failure,
    faults::Faults,
    random::Random,
    resp::{self, Reply},
    trace,
    world::{Crash, Dying},
};

/// How long a completion waits for others when a core waits for several, in nanoseconds.
const BATCH_WAIT_NS: u64 = 50_000;

/// How long the cluster may take to form, in nanoseconds.
const FORM_NS: u64 = 60_000_000_000;

/// Steps of a run at most, many times what the longest takes.
const STEPS_MAX: u64 = 20_000_000;

/// How long after it was doomed a node ends at the latest that ends in the middle of a write, in nanoseconds.
const DOOM_NS: u64 = 100_000_000;

/// How many links break at once, at most.
const BREAKS_MAX: u64 = 4;

/// A run.
pub(super) struct Run {
    pub(super) world: Rc<RefCell<World>>,
    pub(super) nodes: Vec<SimNode>,
    pub(super) clients: Vec<Client>,
    pub(super) sessions: Vec<SessionClient>,
    /// What clients ask for besides the ordinary.
    pub(super) manner: Manner,
    /// Who lets nodes in and has them forgotten once the cluster is formed.
    pub(super) operator: Operator,
    /// The node that was lost for good, if one was: no other one may be.
    pub(super) lost: Option<[u8; 16]>,
    /// How many nodes the cluster has.
    pub(super) count: usize,
    replication_factor: u8,
    /// How doomed nodes end.
    dooms: Vec<Option<Crash>>,
    pub(super) weights: Weights,
    /// What is to happen, and when.
    pub(super) happenings: Vec<(u64, Happening)>,
    runnable: Vec<Next>,
    sabotage: Option<Sabotage>,
    /// How its nodes are upgraded, if they are.
    pub(super) upgrade: Option<Upgrade>,
    began_ns: u64,
    /// What keys have come to in the end.
    pub(super) finals: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) summary: Summary,
}

/// Who is next.
#[derive(Clone, Copy)]
enum Next {
    Core(usize, usize),
    Client(usize),
    Session(usize),
    Operator,
}

/// Runs `seed`, with something done wrong on purpose if `sabotage` says so.
///
/// # Errors
/// What went wrong.
pub(crate) fn run(seed: u64, sabotage: Option<Sabotage>) -> Result<Summary, Failure> {
    let mut run = Run::new(seed, sabotage, Manner::choose(seed, sabotage));
    let played = run.form().and_then(|()| run.play()).and_then(|()| run.settle()).and_then(|()| run.judge());
    match played {
        Ok(()) => Ok(run.summary),
        Err(reason) => Err(Failure { seed, reason, trace: trace::take() }),
    }
}

impl Run {
    pub(super) fn new(seed: u64, sabotage: Option<Sabotage>, manner: Manner) -> Self {
        let mut random = Random::new(seed ^ 0x636C_7573_7465_7200);
        let mut common = boot::choose_config(&mut random);
        match sabotage {
            Some(Sabotage::LyingDisks) => common.raft_durability = RaftDurability::Fsync,
            Some(Sabotage::StaleReads) => common.consistency = Consistency::Sequential,
            Some(_) | None => {}
        }
        if manner.redirects {
            common.cluster_routing = ClusterRouting::Redirect;
        }
        let count = random.pick(&[3, 3, 3, 5]);
        // There is a machine more for a node that takes the place of another.
        let machines = count + 1;
        let weights = Weights::choose(&mut random, common.raft_durability == RaftDurability::Fsync);
        let offset_ms_max = random.pick(&[0, 20, 3_000]);
        let mut world = World::new(Random::new(random.bits()), machines, offset_ms_max);
        let drift_ppm_max = random.pick(&[0, 300, DRIFT_PPM_MAX]);
        for machine in &mut world.machines {
            machine.set_drift(random.below(2 * drift_ppm_max + 1) as i64 - drift_ppm_max as i64, 0);
        }
        world.syncs_lie = sabotage == Some(Sabotage::LyingDisks);
        let nodes: Vec<SimNode> =
            (0..machines).map(|number| SimNode::new(number, &common, &mut random)).collect();
        trace::note(|| format!("seed {seed}: {weights:?}, {:?}, {manner:?}", world.faults));
        Self {
            began_ns: world.now_ns,
            world: Rc::new(RefCell::new(world)),
            nodes,
            clients: Vec::new(),
            sessions: Vec::new(),
            manner,
            operator: Operator::default(),
            lost: None,
            dooms: vec![None; machines],
            count,
            replication_factor: common.replication_factor,
            weights,
            happenings: Vec::new(),
            runnable: Vec::new(),
            sabotage,
            upgrade: None,
            finals: BTreeMap::new(),
            summary: Summary::default(),
        }
    }

    /// The time.
    pub(super) fn now_ns(&self) -> u64 {
        self.world.borrow().now_ns
    }

    /// The first node makes the cluster, the others are let in, and all of them get their replicas.
    pub(super) fn form(&mut self) -> Result<(), String> {
        self.nodes[0].begin(&self.world, None)?;
        for node in 1..self.count {
            let answer = self.ask_in(node)?;
            self.nodes[node].begin(&self.world, Some(answer))?;
        }
        self.until(FORM_NS, "the cluster forms", |run| run.is_formed())
    }

    /// Asks those that are there to let another one in.
    fn ask_in(&mut self, node: usize) -> Result<JoinAnswer, String> {
        let id = format!("{:032x}", u128::from_be_bytes(self.nodes[node].id));
        let host = super::io::address_of(node).to_string();
        let peer_port = super::world::PEER_PORT.to_string();
        let words = ["CLUSTER", "JOIN", &id, &host, "7000", &peer_port];
        let words: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        let until_ns = self.now_ns() + FORM_NS;
        while self.now_ns() < until_ns {
            let asked = self.world.borrow_mut().random.index(node);
            let end = self.world.borrow_mut().connect(asked).ok_or("a node does not listen")?;
            match self.ask(end, &words)? {
                Reply::Bulk(bytes) => return JoinAnswer::decode(&bytes).map_err(|error| error.to_string()),
                other => trace::note(|| format!("node {} is answered {}", node + 1, other.shown())),
            }
            let again_ns = self.now_ns() + 100_000_000;
            self.until(u64::MAX, "time goes on", |run| run.now_ns() >= again_ns)?;
        }
        Err(format!("node {} is not let in", node + 1))
    }

    /// Asks on a connection, which is closed then.
    pub(super) fn ask(&mut self, end: End, words: &[Vec<u8>]) -> Result<Reply, String> {
        let mut bytes = Vec::new();
        resp::write_request(words, &mut bytes);
        let now_ns = self.now_ns();
        self.world.borrow_mut().network.send(end, &bytes, now_ns);
        let mut answer = Vec::new();
        loop {
            self.step()?;
            let mut world = self.world.borrow_mut();
            let now_ns = world.now_ns;
            match world.network.news(end, now_ns) {
                Some(News::Bytes(count)) => answer.extend(world.network.receive(end, count)),
                Some(_) => return Err("a node closes a connection without an answer".to_owned()),
                None => continue,
            }
            if let Some((reply, _)) = resp::read_reply(&answer)? {
                world.network.close(end, true, now_ns);
                return Ok(reply);
            }
        }
    }

    /// The nodes of the cluster, down or not.
    pub(super) fn members(&self) -> impl Iterator<Item = &SimNode> {
        self.nodes.iter().filter(|node| node.is_member)
    }

    /// How many replicas every shard should have.
    pub(super) fn replicas_wanted(&self) -> usize {
        self.count.min(usize::from(self.replication_factor))
    }

    /// Whether all nodes know one another, and every shard has as many replicas that vote as it should have, and a leader.
    pub(super) fn is_formed(&self) -> bool {
        let (count, wanted) = (self.count, self.replicas_wanted());
        let metas = self.members().filter_map(|node| node.cores.first()?.core.node().meta.as_ref());
        let is_known = metas.filter(|meta| meta.state().nodes.len() == count).count() == count;
        let replicas =
            self.members().flat_map(|node| &node.cores).filter_map(|core| core.core.node().groups.as_ref());
        let voting = replicas.flat_map(|groups| groups.replicas()).filter(|(_, raft)| {
            raft.leader().is_some()
                && raft.membership().voters.len() == wanted
                && !raft.membership().is_joint()
        });
        is_known && voting.count() == wanted * usize::from(SHARDS)
    }

    /// The token is put where it is first, by a request to `node`, or to where that one sends it.
    fn take_token(&mut self, mut node: usize) -> Result<(), String> {
        let mut reply = Reply::Nil;
        for _ in 0..=self.count {
            let end = self.world.borrow_mut().connect(node).ok_or("a node does not listen")?;
            reply = self.ask(end, &super::several::first_request())?;
            let Reply::Error(text) = &reply else { break };
            node = super::shelves::moved(text)?.filter(|_| self.manner.redirects).map_or(node, |it| it.to);
        }
        if reply == Reply::ok() {
            return Ok(());
        }
        Err(format!("the token is not taken: {}", reply.shown()))
    }

    /// Clients do what they like while things go wrong.
    pub(super) fn play(&mut self) -> Result<(), String> {
        self.take_token(0)?;
        let now_ns = self.now_ns();
        let until_ns = {
            let mut world = self.world.borrow_mut();
            let until_ns = now_ns + world.random.between(3_000_000_000, 10_000_000_000);
            let count = world.random.between(2, 6) as usize;
            let random = &mut world.random;
            let manner = self.manner;
            let client = |number| Client::new(number, manner, random, now_ns, until_ns);
            self.clients = (0..count).map(client).collect();
            // Their counters and lists only grow.
            let count = random.below(4) as usize * usize::from(!manner.flushes);
            let causes = Causes::default();
            let session = |number| SessionClient::new(number, &causes, random, now_ns, until_ns);
            self.sessions = (0..count).map(session).collect();
            until_ns
        };
        self.clients[0].history.push(super::several::first_operation(now_ns));
        if self.sabotage == Some(Sabotage::RepeatedWrites) {
            self.clients.iter_mut().for_each(Client::repeat_writes);
        }
        if self.sabotage == Some(Sabotage::StaleSessions) {
            self.sessions.iter_mut().for_each(SessionClient::read_stale);
        }
        if matches!(self.sabotage, Some(Sabotage::StaleReads)) {
            self.clients.iter_mut().for_each(Client::keep_to_one_shard);
        }
        if matches!(self.sabotage, Some(Sabotage::HalfWrites | Sabotage::HalfPlaces)) {
            self.clients.iter_mut().for_each(Client::halve_writes);
        }
        if self.sabotage == Some(Sabotage::NoFlushes) {
            self.clients.iter_mut().for_each(Client::flush_nothing);
        }
        if self.manner.redirects {
            self.sessions.iter_mut().for_each(SessionClient::be_redirected);
        }
        trace::note(|| format!("{now_ns} faults begin"));
        self.happenings.push((now_ns, Happening::Choose));
        self.plan_upgrade(now_ns, until_ns);
        self.until(u64::MAX, "time goes on", |run| run.now_ns() >= until_ns)
    }

    /// Nothing goes wrong any more: who is down comes back. One node whose journal has failed goes on: the others must do without
    /// it.
    pub(super) fn calm(&mut self) -> Result<(), String> {
        let is_lost = |happening: &Happening| matches!(happening, Happening::Replace(_));
        let lost = self.happenings.iter().position(|(_, happening)| is_lost(happening));
        let lost = lost.map(|place| self.happenings[place].1);
        self.happenings.clear();
        if let Some(happening) = lost {
            self.let_happen(happening)?;
        }
        let mut is_one_left = self.lost.is_none();
        for node in 0..self.nodes.len() {
            if is_one_left && self.nodes[node].has_lost_journal() {
                is_one_left = false;
            } else {
                self.mend(node)?;
            }
        }
        let mut world = self.world.borrow_mut();
        let now_ns = world.now_ns;
        world.network.heal(now_ns);
        world.network.calm();
        world.faults = Faults::none();
        for machine in &mut world.machines {
            machine.stopped_until_ns = 0;
            machine.disk_fault = None;
            machine.disk.make_room();
        }
        trace::note(|| format!("{now_ns} faults are over"));
        Ok(())
    }

    /// A node runs, and nothing is wrong with it.
    pub(super) fn mend(&mut self, node: usize) -> Result<(), String> {
        if self.dooms[node].is_some() && self.nodes[node].is_running() {
            self.end(node);
        }
        self.dooms[node] = None;
        if self.nodes[node].is_member && !self.nodes[node].is_running() {
            self.start(node)?;
        }
        Ok(())
    }

    /// Steps until `is_over`, for so long at most.
    pub(super) fn until(
        &mut self,
        limit_ns: u64,
        what: &str,
        mut is_over: impl FnMut(&mut Self) -> bool,
    ) -> Result<(), String> {
        let began_ns = self.now_ns();
        while !is_over(self) {
            if self.now_ns() - began_ns > limit_ns {
                return Err(format!("in vain, for {} ms: {what}", limit_ns / 1_000_000));
            }
            // What is waited for is looked at now and then.
            for _ in 0..16 {
                self.step()?;
            }
        }
        Ok(())
    }

    /// Lets somebody do something, or time go on.
    fn step(&mut self) -> Result<(), String> {
        self.summary.steps += 1;
        if self.summary.steps > STEPS_MAX {
            return Err("the run does not end".to_owned());
        }
        let now_ns = self.now_ns();
        self.summary.simulated_ms = (now_ns - self.began_ns) / 1_000_000;
        if let Some(place) = self.happenings.iter().position(|(at_ns, _)| *at_ns <= now_ns) {
            let (_, happening) = self.happenings.swap_remove(place);
            return self.let_happen(happening);
        }
        self.find_runnable();
        if self.runnable.is_empty() {
            self.wait_for_next();
            return Ok(());
        }
        let next = self.runnable[self.world.borrow_mut().random.index(self.runnable.len())];
        match next {
            Next::Core(node, core) => self.step_core(node, core),
            Next::Client(client) => {
                let mut world = self.world.borrow_mut();
                world.now_ns += world.random.below(1000);
                self.clients[client].step(&mut world)
            }
            Next::Session(session) => {
                let mut world = self.world.borrow_mut();
                world.now_ns += world.random.below(1000);
                self.sessions[session].step(&mut world)
            }
            Next::Operator => {
                let answer = self.operator.step(&mut self.world.borrow_mut())?;
                answer.map_or(Ok(()), |(node, answer)| self.nodes[node].begin(&self.world, Some(answer)))
            }
        }
    }

    fn find_runnable(&mut self) {
        self.runnable.clear();
        let mut world = self.world.borrow_mut();
        let now_ns = world.now_ns;
        for (node, running) in self.nodes.iter().enumerate() {
            if world.machines[node].stopped_until_ns > now_ns {
                continue;
            }
            for (number, core) in running.cores.iter().enumerate() {
                let is_due = match core.wait {
                    None | Some((Wait::Poll | Wait::Yield, _)) => true,
                    Some((Wait::Block { events, timeout }, since_ns)) => {
                        if world.next_ns(node, number).is_some_and(|at_ns| at_ns <= now_ns) {
                            world.advance(node, number);
                        }
                        let (ready, ready_since_ns) = world.ready(node, number);
                        ready >= events as usize
                            || (ready > 0 && now_ns >= ready_since_ns + BATCH_WAIT_NS)
                            || timeout.is_some_and(|timeout| {
                                now_ns >= since_ns + world.lasting_ns(node, timeout.as_nanos() as u64)
                            })
                    }
                };
                if is_due {
                    self.runnable.push(Next::Core(node, number));
                }
            }
        }
        for (number, client) in self.clients.iter().enumerate() {
            if client.next_ns(&world).is_some_and(|at_ns| at_ns <= now_ns) {
                self.runnable.push(Next::Client(number));
            }
        }
        for (number, session) in self.sessions.iter().enumerate() {
            if session.next_ns(&world).is_some_and(|at_ns| at_ns <= now_ns) {
                self.runnable.push(Next::Session(number));
            }
        }
        if self.operator.next_ns(&world).is_some_and(|at_ns| at_ns <= now_ns) {
            self.runnable.push(Next::Operator);
        }
    }

    /// Lets time go on to the next thing that happens.
    fn wait_for_next(&mut self) {
        let mut world = self.world.borrow_mut();
        let mut next_ns = u64::MAX;
        for (node, running) in self.nodes.iter().enumerate() {
            let stopped_until_ns = world.machines[node].stopped_until_ns;
            if stopped_until_ns > world.now_ns {
                next_ns = next_ns.min(stopped_until_ns);
                continue;
            }
            for (number, core) in running.cores.iter().enumerate() {
                let (ready, ready_since_ns) = world.ready(node, number);
                if ready > 0 {
                    next_ns = next_ns.min(ready_since_ns + BATCH_WAIT_NS);
                }
                if let Some((Wait::Block { timeout: Some(timeout), .. }, since_ns)) = core.wait {
                    next_ns = next_ns.min(since_ns + world.lasting_ns(node, timeout.as_nanos() as u64));
                }
                next_ns = next_ns.min(world.next_ns(node, number).unwrap_or(u64::MAX));
            }
        }
        let clients = self.clients.iter().filter_map(|client| client.next_ns(&world));
        let sessions = self.sessions.iter().filter_map(|session| session.next_ns(&world));
        let clients = clients.chain(sessions).chain(self.operator.next_ns(&world));
        let happenings = self.happenings.iter().map(|(at_ns, _)| *at_ns);
        next_ns = clients.chain(happenings).fold(next_ns, u64::min);
        assert!(next_ns < u64::MAX, "everything waits for something else");
        world.now_ns = next_ns.max(world.now_ns + 1);
    }

    fn step_core(&mut self, node: usize, number: usize) -> Result<(), String> {
        let core = &mut self.nodes[node].cores[number];
        {
            let mut world = self.world.borrow_mut();
            world.now_ns += world.random.between(200, 8_000);
        }
        let Some((wait, _)) = core.wait.take() else {
            let wait = core.core.begin_turn(1);
            core.wait = Some((wait, self.world.borrow().now_ns));
            return Ok(());
        };
        {
            let mut world = self.world.borrow_mut();
            world.advance(node, number);
            let events = world.reap(node, number);
            trace::note(|| {
                format!("{} node {} core {number} turns with {events} completions", world.now_ns, node + 1)
            });
        }
        self.summary.turns += 1;
        core.core.end_turn(wait);
        if self.world.borrow().machines[node].dying == Dying::Dead {
            self.end(node);
        }
        Ok(())
    }

    fn let_happen(&mut self, happening: Happening) -> Result<(), String> {
        let now_ns = self.now_ns();
        match happening {
            Happening::Choose => {
                let members = (0..self.nodes.len()).filter(|&node| self.nodes[node].is_member);
                let targets: Vec<Target> = members
                    .map(|node| {
                        let is_whole = self.nodes[node].is_running() && self.dooms[node].is_none();
                        Target { node, is_whole }
                    })
                    .collect();
                let (fault, next_ns) = {
                    let random = &mut self.world.borrow_mut().random;
                    let fault =
                        self.weights.next(random, &targets, self.lost.is_none() && self.upgrade.is_none());
                    (fault, now_ns + self.weights.pause_ns(random))
                };
                self.happenings.push((next_ns, Happening::Choose));
                if let Some(fault) = fault {
                    trace::note(|| format!("{now_ns} {fault:?}, nodes from 0"));
                    self.begin_fault(fault, now_ns);
                }
            }
            Happening::Free(from, to) => {
                trace::note(|| format!("{now_ns} the way from node {} to node {} is free", from + 1, to + 1));
                self.world.borrow_mut().network.set_blocked(from, to, false, now_ns);
            }
            Happening::Change(node, level) => self.change(node, level)?,
            Happening::End(node) => {
                if self.nodes[node].is_running() {
                    self.end(node);
                }
            }
            Happening::Start(node) => {
                self.dooms[node] = None;
                if self.nodes[node].is_member && !self.nodes[node].is_running() {
                    self.start(node)?;
                }
            }
            Happening::Replace(node) => {
                self.dooms[node] = None;
                self.operator.let_in(node, self.nodes[node].id);
            }
        }
        Ok(())
    }

    fn begin_fault(&mut self, fault: Fault, now_ns: u64) {
        let mut world = self.world.borrow_mut();
        match fault {
            Fault::Cut(ways, lasts_ns) => {
                self.summary.cuts += 1;
                for (from, to) in ways {
                    world.network.set_blocked(from, to, true, now_ns);
                    let free = Happening::Free(from, to);
                    self.happenings.retain(|(_, happening)| *happening != free);
                    self.happenings.push((now_ns + lasts_ns, free));
                }
            }
            Fault::Break => {
                let links = world.network.links();
                for _ in 0..world.random.between(1, BREAKS_MAX) {
                    if !links.is_empty() {
                        self.summary.breaks += 1;
                        let link = links[world.random.index(links.len())];
                        world.network.break_up(link, now_ns);
                    }
                }
            }
            Fault::Stop(node, lasts_ns) => {
                self.summary.stops += 1;
                world.machines[node].stopped_until_ns = now_ns + lasts_ns;
            }
            Fault::Crash(node, crash, lasts_ns) => {
                self.dooms[node] = Some(crash);
                let mut end_ns = now_ns;
                if world.random.one_in(2) {
                    // In the middle of its next write, if there is one soon.
                    world.machines[node].dying = Dying::AtNextWrite;
                    end_ns += DOOM_NS;
                }
                self.happenings.push((end_ns, Happening::End(node)));
                self.happenings.push((end_ns + lasts_ns, Happening::Start(node)));
            }
            Fault::FailingDisk(node, fault, crash, lasts_ns) => {
                self.summary.failing_disks += 1;
                self.dooms[node] = Some(crash);
                world.machines[node].disk_fault = Some(fault);
                let start_ns = now_ns + lasts_ns + world.random.below(DOOM_NS);
                self.happenings.push((now_ns + lasts_ns, Happening::End(node)));
                self.happenings.push((start_ns, Happening::Start(node)));
            }
            Fault::FullDisks(nodes, lasts_ns) => {
                for node in nodes {
                    self.summary.full_disks += 1;
                    world.machines[node].disk.full_until_ns = now_ns + lasts_ns;
                }
            }
            Fault::Loss(node, lasts_ns) => {
                self.summary.losses += 1;
                self.lost = Some(self.nodes[node].id);
                self.dooms[node] = Some(Crash::PowerLoss);
                self.operator.forget(self.nodes[node].id);
                let place = if world.random.one_in(2) { node } else { self.count };
                self.happenings.push((now_ns + lasts_ns, Happening::Replace(place)));
                drop(world);
                self.end(node);
                self.nodes[node].lose(&mut self.world.borrow_mut().random);
            }
            Fault::Jump(node, jump_ms) => {
                self.summary.clock_jumps += 1;
                world.machines[node].wall_offset_ms += jump_ms;
            }
            Fault::Drift(node, drift_ppm) => {
                self.summary.drifts += 1;
                world.machines[node].set_drift(drift_ppm, now_ns);
            }
        }
    }

    /// Ends a node now and starts it a little later, unless that is to happen anyway.
    pub(super) fn restart(&mut self, node: usize) {
        if self.nodes[node].is_running() && self.dooms[node].is_none() {
            self.end(node);
            let start_ns = self.now_ns() + self.world.borrow_mut().random.between(20_000_000, 800_000_000);
            self.happenings.push((start_ns, Happening::Start(node)));
        }
    }

    /// A node ends as it is doomed to.
    pub(super) fn end(&mut self, node: usize) {
        let crash = self.dooms[node].unwrap_or(Crash::Kill);
        trace::note(|| format!("{} node {} ends: {crash:?}", self.now_ns(), node + 1));
        match crash {
            Crash::Kill => self.summary.kills += 1,
            Crash::PowerLoss => self.summary.power_losses += 1,
        }
        trace::note(|| self.replicas());
        self.count(node);
        self.nodes[node].cores.clear();
        self.world.borrow_mut().crash(node, crash);
    }

    pub(super) fn start(&mut self, node: usize) -> Result<(), String> {
        trace::note(|| format!("{} node {} starts", self.now_ns(), node + 1));
        let started = self.nodes[node].start(&self.world, None);
        trace::note(|| self.replicas());
        started.map_err(|error| format!("node {}: {error}", node + 1))
    }

    /// Adds what a node has counted.
    pub(super) fn count(&mut self, node: usize) {
        for core in &self.nodes[node].cores {
            if let Some(groups) = &core.core.node().groups {
                let counts = groups.counts();
                self.summary.forwarded += counts.forwarded;
                self.summary.elections += counts.elections_won;
                self.summary.snapshots += counts.snapshots_installed;
                self.summary.near_reads += counts.near;
            }
        }
    }
}
