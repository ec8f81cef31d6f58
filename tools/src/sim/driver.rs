//! One run: a seed's world, cores and clients, one step at a time, and the judgement after it.
//!
//! A core's turn has two halves. In the first it plans its wait and submits; then it is asleep, as far as the mesh
//! knows, until what it waits for is there, and only then has its second half. Whoever has something to do may be next;
//! when nobody has, time goes on to the next thing that happens. So a core that was not woken sleeps on, with mail, and
//! that is found at once: [`Run::check_sleepers`].

mod aftermath;
mod judge;

use std::{cell::RefCell, rc::Rc};

use duva_net::io::Wait;
use duva_server::config::{AppendFsync, Config};

use super::{
    Failure, Summary,
    client::{Client, Session},
    faults::{Faults, Sabotage},
    random::Random,
    script::Plan,
    start::{self, Place, Server, SimCore},
    trace,
    world::{Dying, ServerEnd, World},
};
use judge::Bases;

/// How long a completion waits for others when a core waits for several, in nanoseconds.
const BATCH_WAIT_NS: u64 = 50_000;

/// A connection to which the server owes something and that does not move for so long is stuck, in nanoseconds.
const STUCK_NS: u64 = 700_000_000;

/// The same where clients pause the server.
const STUCK_PAUSED_NS: u64 = 4_000_000_000;

/// More of that where a sync may take seconds, or the disk is full for seconds, in nanoseconds.
const STUCK_DISK_NS: u64 = 40_000_000_000;

/// The smallest segment, so that there are many.
const SEGMENT_BYTES: u32 = 1 << 20;

/// Steps of a run at most, many times what the longest takes.
const STEPS_MAX: u64 = 3_000_000;

/// How often connections are looked at, in steps.
const STUCK_CHECK_STEPS: u64 = 1 << 14;

struct Run {
    world: Rc<RefCell<World>>,
    server: Server,
    config: Config,
    /// Where starts find what is on the disk.
    place: Place,
    clients: Vec<Client>,
    plan: Plan,
    /// Keys of the plan's preparations, where they were made last.
    prepared: Vec<Vec<u8>>,
    /// Connections of this start of the server that are no client's any more.
    sessions: Vec<Session>,
    /// What was there when this start began.
    bases: Bases,
    /// How often the server is still to end early, about, and at one in how many turns.
    crashes_left: u32,
    crash_rate: u64,
    /// Whether it may end now, and whether it is to.
    may_crash: bool,
    is_crash_due: bool,
    /// Since when nothing goes wrong any more: when that was decided, or the last crash was over, in nanoseconds.
    quiet_since_ns: u64,
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
    let played = Run::new(seed, sabotage).and_then(|mut run| {
        run.play()?;
        run.settle()?;
        run.end()?;
        Ok(run.summary)
    });
    played.map_err(|reason| Failure { seed, reason, trace: trace::take() })
}

/// How data is kept in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Persistence {
    /// Not at all.
    None,
    /// In journals that are synced like this.
    Journal(AppendFsync),
}

impl Run {
    fn new(seed: u64, sabotage: Option<Sabotage>) -> Result<Self, String> {
        let mut random = Random::new(seed);
        let persistence = random.pick(&[
            Persistence::None,
            Persistence::Journal(AppendFsync::EverySecond),
            Persistence::Journal(AppendFsync::EverySecond),
            Persistence::Journal(AppendFsync::Always),
            Persistence::Journal(AppendFsync::Always),
            Persistence::Journal(AppendFsync::No),
        ]);
        let core_count = random.pick(&[1, 2, 2, 2, 2, 3, 3]);
        let place = Place::new();
        let mut config = Config {
            cores: core_count,
            shards: 16,
            directory: place.path().to_owned(),
            append_only: false,
            segment_size_bytes: SEGMENT_BYTES,
            ..Config::default()
        };
        if let Persistence::Journal(fsync) = persistence {
            config.append_only = true;
            config.append_fsync = fsync;
            config.snapshot_is_compressed = random.one_in(2);
            config.rewrite_size_bytes_min = random.pick(&[64 << 10, 1 << 20, 64 << 20]);
        }
        let mut world = World::new(Random::new(random.bits()), usize::from(core_count));
        world.sabotage = sabotage;
        world.disk.replace_all(start::first_files(&mut random, &config));
        let commit_ms_max = config.append_only.then(|| world.commit_ms_max());
        let plan = Plan::choose(&mut random, world.piece_bytes_max, commit_ms_max);
        trace::note(|| {
            format!("seed {seed}: {persistence:?}, {core_count} cores, {:?}, {plan:?}", world.faults)
        });
        let world = Rc::new(RefCell::new(world));
        let server = start::start(&world, &config, &place)?;
        let client_count = random.between(1, 8) as usize;
        let clients = (0..client_count).map(|number| Client::choose(&mut random, &plan, number)).collect();
        let crashes_left = if config.append_only { random.pick(&[0, 1, 1, 2, 4]) } else { 0 };
        if crashes_left == 0 {
            world.borrow_mut().faults.sync_error = 0;
        }
        Ok(Self {
            server,
            config,
            place,
            clients,
            prepared: plan.preparations().into_iter().map(|planned| planned.arguments[1].clone()).collect(),
            sessions: Vec::new(),
            bases: Bases::new(&plan),
            plan,
            crashes_left,
            crash_rate: random.pick(&[100, 1000, 5000]),
            may_crash: false,
            is_crash_due: false,
            quiet_since_ns: 0,
            summary: Summary::default(),
            world,
        })
    }

    /// Lets everybody do what they have to do until every client is done.
    fn play(&mut self) -> Result<(), String> {
        let preparations = self.plan.preparations();
        if !preparations.is_empty() {
            let session = self.let_make(preparations)?;
            self.sessions.push(session);
        }
        self.may_crash = true;
        self.until(|run| run.clients.iter().all(Client::is_done))
    }

    /// The last judgement.
    fn end(&mut self) -> Result<(), String> {
        let has_journal = self.config.append_only;
        if has_journal && self.world.borrow_mut().random.one_in(2) {
            self.crash()?;
            self.may_crash = false;
            self.settle()?;
        }
        let mut sessions = std::mem::take(&mut self.sessions);
        sessions.extend(self.clients.iter_mut().flat_map(|client| client.finished.drain(..)));
        self.judge(&sessions, None)?;
        self.summary.add_server(&self.server);
        self.summary.wakes += self.world.borrow().wake_count;
        Ok(())
    }

    /// Nothing goes wrong any more: every connection ends.
    fn settle(&mut self) -> Result<(), String> {
        self.world.borrow_mut().faults = Faults::none();
        self.quiet_since_ns = self.world.borrow().now_ns;
        let mut timed_out = false;
        self.until(|run| {
            let world = run.world.borrow();
            timed_out = world.now_ns > run.quiet_since_ns + run.stuck_ns(true);
            let is_closed = world.links.iter().all(|link| link.server == ServerEnd::Closed);
            let sleeps = |core: &SimCore| matches!(core.wait, Some((Wait::Block { .. }, _)));
            let is_quiet = run.server.cores.iter().enumerate().all(|(number, core)| {
                let node = core.core.node();
                let is_idle = world.kernels[number].files.is_idle()
                    && node.gathers.count() == 0
                    && node.outstanding.iter().all(|&count| count == 0);
                sleeps(core) && is_idle && !core.core.node().mesh.has_mail() && !world.is_waking(number)
            });
            let status = run.server.shared.save_status();
            let is_saving = status.save.is_under_way() || status.rewrite.is_under_way();
            timed_out || (is_closed && is_quiet && !is_saving)
        })?;
        let world = self.world.borrow();
        world.check_rest()?;
        if self.server.shared.client_count() > 0 {
            return Err(format!("{} clients are counted, none is left", self.server.shared.client_count()));
        }
        for (number, core) in self.server.cores.iter().enumerate() {
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
        if timed_out { Err("the cores do not come to rest".to_owned()) } else { Ok(()) }
    }

    /// Steps until `is_over`.
    fn until(&mut self, mut is_over: impl FnMut(&Self) -> bool) -> Result<(), String> {
        let mut runnable = Vec::new();
        while !is_over(self) {
            if self.is_crash_due {
                self.crash()?;
                continue;
            }
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
        for (number, core) in self.server.cores.iter().enumerate() {
            if world.kernels[number].stalled_until_ns > now_ns {
                continue;
            }
            let is_due = match core.wait {
                None => true,
                Some((wait, since_ns)) => {
                    world.advance(number);
                    let (ready, ready_since_ns) = world.ready(number);
                    match wait {
                        Wait::Poll | Wait::Yield => true,
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
        for (number, core) in self.server.cores.iter().enumerate() {
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
        let core = &mut self.server.cores[number];
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
        if self.may_crash && self.crashes_left > 0 {
            let mut world = self.world.borrow_mut();
            if world.random.one_in(self.crash_rate) {
                // In the middle of this turn, or of the next one that writes, or between two turns.
                if world.random.one_in(2) {
                    world.dying = Dying::AtNextWrite;
                } else {
                    self.is_crash_due = true;
                }
            }
        }
        let core = &mut self.server.cores[number];
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
        let log = core.core.node().log.as_ref();
        let is_poisoned = log.is_some_and(|log| log.refusal().is_some_and(|refusal| refusal.is_final()));
        self.is_crash_due |= is_poisoned || self.world.borrow().dying == Dying::Dead;
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
        for (number, core) in self.server.cores.iter().enumerate() {
            // One that may not answer need not know of it.
            let is_asleep =
                matches!(core.wait, Some((Wait::Block { .. }, _))) && !core.core.node().is_ahead();
            if is_asleep && core.core.node().mesh.has_mail() && !world.is_waking(number) {
                return Err(format!("core {number} sleeps, has mail, and nobody wakes it"));
            }
        }
        Ok(())
    }

    /// What is stuck does not move for so long, in nanoseconds.
    fn stuck_ns(&self, has_pauses: bool) -> u64 {
        let stuck_ns = if has_pauses { STUCK_PAUSED_NS } else { STUCK_NS };
        if self.plan.has_journal() { stuck_ns + STUCK_DISK_NS } else { stuck_ns }
    }

    /// No connection waits for long.
    fn check_progress(&self) -> Result<(), String> {
        let world = self.world.borrow();
        let since_ns = world.now_ns.saturating_sub(self.stuck_ns(self.plan.has_pauses));
        match self.clients.iter().find_map(|client| client.is_stuck(&world, since_ns)) {
            Some(reason) => Err(reason),
            None => Ok(()),
        }
    }
}
