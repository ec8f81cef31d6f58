//! One run: a seed's world, cores and clients, one step at a time, and the judgement after it.
//!
//! A core's turn has two halves. In the first it plans its wait and submits; then it is asleep, as far as the mesh
//! knows, until what it waits for is there, and only then has its second half. Whoever has something to do may be next;
//! when nobody has, time goes on to the next thing that happens. So a core that was not woken sleeps on, with mail, and
//! that is found at once: [`Run::check_sleepers`].

use std::{cell::RefCell, rc::Rc, sync::Arc};

use duva_net::{io::Wait, mesh::mesh};
use duva_server::{
    config::Config,
    core::{Core, admin::Shared},
    launch,
};

use super::{
    Failure, Summary,
    check::{
        counter::{self, CounterOperation},
        register::{self, RegisterAction, RegisterOperation, Verdict},
    },
    client::{Client, Session},
    io::SimIo,
    random::Random,
    resp::Reply,
    script::{Plan, Purpose, answered},
    trace,
    world::{Faults, Sabotage, ServerEnd, World},
};

/// How long a completion waits for others when a core waits for several, in nanoseconds.
const BATCH_WAIT_NS: u64 = 50_000;

/// A connection to which the server owes something and that does not move for so long is stuck, in nanoseconds.
const STUCK_NS: u64 = 700_000_000;

/// The same where clients pause the server.
const STUCK_PAUSED_NS: u64 = 4_000_000_000;

/// Steps of a run at most, many times what the longest takes.
const STEPS_MAX: u64 = 1_000_000;

/// How often connections are looked at, in steps.
const STUCK_CHECK_STEPS: u64 = 1 << 14;

struct SimCore {
    core: Core<SimIo>,
    /// What it waits for, and since when.
    wait: Option<(Wait, u64)>,
}

struct Run {
    world: Rc<RefCell<World>>,
    shared: Arc<Shared>,
    cores: Vec<SimCore>,
    clients: Vec<Client>,
    plan: Plan,
    summary: Summary,
}

/// Who is next.
#[derive(Clone, Copy)]
enum Next {
    Core(usize),
    Client(usize),
}

/// Runs `seed`, with something broken on purpose if `sabotage` says so.
///
/// # Errors
/// What went wrong.
pub(crate) fn run(seed: u64, sabotage: Option<Sabotage>) -> Result<Summary, Failure> {
    let mut run = Run::new(seed, sabotage);
    let result = run.play().and_then(|()| run.settle()).and_then(|()| run.judge());
    match result {
        Ok(()) => Ok(run.summary),
        Err(reason) => Err(Failure { seed, reason, trace: trace::take() }),
    }
}

impl Run {
    fn new(seed: u64, sabotage: Option<Sabotage>) -> Self {
        let mut random = Random::new(seed);
        let core_count = random.pick(&[1, 2, 2, 2, 2, 3, 3]);
        let config = Config { cores: core_count, shards: 16, ..Config::default() };
        let core_count = usize::from(core_count);
        let mesh_capacity = random.pick(&[1, 2, 8]);
        let hash_seed = random.bits();
        let mut world = World::new(Random::new(random.bits()), core_count);
        world.sabotage = sabotage;
        let started_ms = world.wall_ms() as u64;
        let plan = Plan::choose(&mut random, world.piece_bytes_max);
        trace::note(|| format!("seed {seed}: {core_count} cores, {:?}, {plan:?}", world.faults));
        let shared = Arc::new(Shared::new(config.clone(), None, config.port, started_ms, "0".repeat(40)));
        let config = Arc::new(config);
        let world = Rc::new(RefCell::new(world));
        let cores = mesh(core_count, mesh_capacity)
            .into_iter()
            .enumerate()
            .map(|(core, endpoint)| {
                let node = launch::node(core, Arc::clone(&config), Arc::clone(&shared), endpoint, hash_seed);
                let io = SimIo { core, world: Rc::clone(&world) };
                SimCore { core: Core::new(io, node, 1), wait: None }
            })
            .collect();
        let client_count = random.between(1, 8) as usize;
        let clients = (0..client_count).map(|number| Client::choose(&mut random, &plan, number)).collect();
        Self { world, shared, cores, clients, plan, summary: Summary::default() }
    }

    /// Lets everybody do what they have to do until every client is done.
    fn play(&mut self) -> Result<(), String> {
        let clients = std::mem::replace(&mut self.clients, vec![Client::preparing()]);
        self.until(|run| run.clients.iter().all(Client::is_done))?;
        let prepared = std::mem::replace(&mut self.clients, clients);
        self.until(|run| run.clients.iter().all(Client::is_done))?;
        self.clients.extend(prepared);
        Ok(())
    }

    /// Nothing goes wrong any more: every connection ends.
    fn settle(&mut self) -> Result<(), String> {
        let since_ns = {
            let mut world = self.world.borrow_mut();
            world.faults = Faults::none();
            world.now_ns
        };
        let mut timed_out = false;
        self.until(|run| {
            let world = run.world.borrow();
            timed_out = world.now_ns > since_ns + STUCK_PAUSED_NS;
            let is_closed = world.links.iter().all(|link| link.server == ServerEnd::Closed);
            let sleeps = |core: &SimCore| matches!(core.wait, Some((Wait::Block { .. }, _)));
            let is_quiet = run.cores.iter().enumerate().all(|(number, core)| {
                sleeps(core) && !core.core.node().mesh.has_mail() && !world.is_waking(number)
            });
            timed_out || (is_closed && is_quiet)
        })?;
        let world = self.world.borrow();
        world.check_rest()?;
        if timed_out {
            return Err("the cores do not come to rest".to_owned());
        }
        if self.shared.client_count() > 0 {
            return Err(format!("{} clients are counted, none is left", self.shared.client_count()));
        }
        for (number, core) in self.cores.iter().enumerate() {
            let node = core.core.node();
            let outstanding: u32 = node.outstanding.iter().sum();
            let (held, waiting) = node.locks.counts();
            let left = [outstanding as usize, held, waiting, node.gathers.count(), node.jobs.len()];
            if left != [0; 5] || !node.deliveries.list.is_empty() {
                return Err(format!(
                    "core {number} is left with (outstanding requests, locks, waiters, gathers, jobs) {left:?}"
                ));
            }
        }
        Ok(())
    }

    /// Steps until `is_over`.
    fn until(&mut self, mut is_over: impl FnMut(&Self) -> bool) -> Result<(), String> {
        let mut runnable = Vec::new();
        while !is_over(self) {
            self.summary.steps += 1;
            if self.summary.steps > STEPS_MAX {
                let clients: Vec<String> = self.clients.iter().filter_map(Client::describe).collect();
                return Err(format!("the run does not end: {}", clients.join("; ")));
            }
            if self.summary.steps.is_multiple_of(STUCK_CHECK_STEPS) {
                self.check_progress()?;
            }
            runnable.clear();
            self.find_runnable(&mut runnable);
            if runnable.is_empty() {
                self.check_sleepers()?;
                self.check_progress()?;
                self.wait_for_next()?;
                continue;
            }
            let next = runnable[self.world.borrow_mut().random.index(runnable.len())];
            match next {
                Next::Core(core) => self.step_core(core)?,
                Next::Client(client) => {
                    let mut world = self.world.borrow_mut();
                    world.now_ns += world.random.below(1000);
                    self.clients[client].step(&mut world, &self.plan)?;
                }
            }
        }
        Ok(())
    }

    fn find_runnable(&mut self, runnable: &mut Vec<Next>) {
        let mut world = self.world.borrow_mut();
        let now_ns = world.now_ns;
        for (number, core) in self.cores.iter().enumerate() {
            if world.kernels[number].stalled_until_ns > now_ns {
                continue;
            }
            let is_due = match core.wait {
                None => true,
                Some((wait, since_ns)) => {
                    world.advance(number);
                    let (ready, ready_since_ns) = world.ready(number);
                    match wait {
                        Wait::Poll => true,
                        Wait::Block { events, timeout } => {
                            ready >= events as usize
                                || (ready > 0 && now_ns >= ready_since_ns + BATCH_WAIT_NS)
                                || timeout
                                    .is_some_and(|timeout| now_ns >= since_ns + timeout.as_nanos() as u64)
                        }
                    }
                }
            };
            if is_due {
                runnable.push(Next::Core(number));
            }
        }
        for (number, client) in self.clients.iter().enumerate() {
            if client.next_ns(&world).is_some_and(|at_ns| at_ns <= now_ns) {
                runnable.push(Next::Client(number));
            }
        }
    }

    /// Lets time go on to the next thing that happens.
    fn wait_for_next(&mut self) -> Result<(), String> {
        let mut world = self.world.borrow_mut();
        let mut next_ns = None;
        let mut consider = |at_ns: u64| next_ns = Some(next_ns.map_or(at_ns, |next: u64| next.min(at_ns)));
        for (number, core) in self.cores.iter().enumerate() {
            let stalled_until_ns = world.kernels[number].stalled_until_ns;
            if stalled_until_ns > world.now_ns {
                consider(stalled_until_ns);
                continue;
            }
            let (ready, ready_since_ns) = world.ready(number);
            if ready > 0 {
                consider(ready_since_ns + BATCH_WAIT_NS);
            }
            if let Some((Wait::Block { timeout: Some(timeout), .. }, since_ns)) = core.wait {
                consider(since_ns + timeout.as_nanos() as u64);
            }
            if let Some(at_ns) = world.next_ns(number) {
                consider(at_ns);
            }
        }
        for client in &self.clients {
            if let Some(at_ns) = client.next_ns(&world) {
                consider(at_ns);
            }
        }
        let next_ns = next_ns.ok_or("everything waits for something else")?;
        // What can complete already, while the core waits for more of it, completes when it is asked next.
        world.now_ns = next_ns.max(world.now_ns + 1);
        Ok(())
    }

    fn step_core(&mut self, number: usize) -> Result<(), String> {
        let core = &mut self.cores[number];
        {
            let mut world = self.world.borrow_mut();
            world.now_ns += world.random.between(200, 15_000);
            let stall = world.faults.stall;
            if world.random.one_in(stall) {
                let now_ns = world.now_ns;
                world.kernels[number].stalled_until_ns = now_ns + world.random.below(5_000_000);
            }
        }
        let Some((wait, _)) = core.wait.take() else {
            // Looking at an empty inbox again changes nothing here: nobody else runs meanwhile.
            let wait = core.core.begin_turn(1);
            core.wait = Some((wait, self.world.borrow().now_ns));
            return Ok(());
        };
        let events = self.world.borrow_mut().reap(number);
        trace::note(|| {
            format!(
                "{} core {number} turns with {events} completions, waited {wait:?}",
                self.world.borrow().now_ns
            )
        });
        self.summary.turns += 1;
        self.summary.events += events as u64;
        core.core.end_turn(wait);
        self.hand_out_replies()
    }

    /// Gives clients what was sent to them.
    fn hand_out_replies(&mut self) -> Result<(), String> {
        let mut world = self.world.borrow_mut();
        for link in std::mem::take(&mut world.tapped) {
            let bytes = std::mem::take(&mut world.links[link].tap);
            let client = self
                .clients
                .iter_mut()
                .find(|client| client.session.as_ref().is_some_and(|session| session.link == link));
            if let Some(client) = client {
                client.take_replies(&mut world, &self.plan, &bytes)?;
            }
        }
        Ok(())
    }

    /// A core that sleeps has no mail, or is being woken.
    fn check_sleepers(&self) -> Result<(), String> {
        let world = self.world.borrow();
        for (number, core) in self.cores.iter().enumerate() {
            let is_asleep = matches!(core.wait, Some((Wait::Block { .. }, _)));
            if is_asleep && core.core.node().mesh.has_mail() && !world.is_waking(number) {
                return Err(format!("core {number} sleeps, has mail, and nobody wakes it"));
            }
        }
        Ok(())
    }

    /// No connection waits for long.
    fn check_progress(&self) -> Result<(), String> {
        let world = self.world.borrow();
        let limit_ns = if self.plan.has_pauses { STUCK_PAUSED_NS } else { STUCK_NS };
        let since_ns = world.now_ns.saturating_sub(limit_ns);
        match self.clients.iter().find_map(|client| client.is_stuck(&world, since_ns)) {
            Some(reason) => Err(reason),
            None => Ok(()),
        }
    }

    /// Judges what can be judged only with everything at hand.
    fn judge(&mut self) -> Result<(), String> {
        let sessions: Vec<&Session> = self.clients.iter().flat_map(|client| &client.finished).collect();
        for session in &sessions {
            self.summary.connections += 1;
            self.summary.requests += session.sent.len() as u64;
            self.summary.replies += session.replied as u64;
        }
        for core in &self.cores {
            let stats = &core.core.node().stats;
            self.summary.gathers += stats.gathers;
            self.summary.gather_retries += stats.gather_retries;
        }
        self.summary.wakes += self.world.borrow().wake_count;
        for counter in 0..self.plan.counters.len() {
            judge_counter(&sessions, counter)?;
        }
        for number in 0..self.plan.registers.len() {
            let history = register_history(&sessions, &self.plan, number)?;
            self.summary.register_operations += history.len() as u64;
            match register::check(&history).map_err(|error| format!("register {number}: {error}"))? {
                Verdict::Linearizable => {}
                Verdict::Undecided => self.summary.undecided += 1,
            }
        }
        Ok(())
    }
}

fn judge_counter(sessions: &[&Session], counter: usize) -> Result<(), String> {
    let mut operations = Vec::new();
    let mut unanswered = 0;
    for sent in sessions.iter().flat_map(|session| &session.sent) {
        let Purpose::Counter(number, increments) = sent.purpose else { continue };
        if number != counter {
            continue;
        }
        let (Some(invoked), Some(replied)) = (sent.invoked, sent.replied) else {
            unanswered += u64::from(increments && sent.invoked.is_some());
            continue;
        };
        let value = match &sent.reply {
            Some(Reply::Integer(value)) => *value as u64,
            Some(Reply::Nil) => 0,
            Some(Reply::Bulk(text)) => std::str::from_utf8(text)
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| format!("counter {counter} holds {}", trace::shown(text)))?,
            other => return Err(format!("counter {counter} was answered {other:?}")),
        };
        operations.push(CounterOperation { invoked, replied, increments, value });
    }
    counter::check(&operations, unanswered).map_err(|error| format!("counter {counter}: {error}"))
}

fn register_history(
    sessions: &[&Session],
    plan: &Plan,
    register: usize,
) -> Result<Vec<RegisterOperation>, String> {
    let mut history = Vec::new();
    for session in sessions {
        for sent in &session.sent {
            let Some(invoked) = sent.invoked else { continue };
            let action = match sent.purpose {
                Purpose::Register(number, action) if number == register => action,
                Purpose::Flush => RegisterAction::Clear(None),
                _ => continue,
            };
            let action = match &sent.reply {
                Some(reply) => answered(action, plan, register, reply)?,
                // A read that nobody saw says nothing.
                None if matches!(action, RegisterAction::Read(_) | RegisterAction::Exists(_)) => continue,
                None => action,
            };
            let connection = session.link;
            history.push(RegisterOperation { connection, invoked, replied: sent.replied, action });
        }
    }
    Ok(history)
}
