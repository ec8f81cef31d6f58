//! A seeded simulator of several groups of real [`duva_raft::Raft`] replicas, on simulated nodes.
//!
//! Nodes have a disk ([`disk`]: what is written is not yet synced), clocks ([`clock`]: they drift, wall clocks jump) and links
//! ([`network`]: messages are lost, late, out of order, twice). What breaks when is in [`faults`], how a seed is set up in
//! [`setup`]. Clients ([`client`]) write and read a state machine ([`machine`]) which takes a request once, and expires its
//! registers by the log's time; somebody ([`operator`]) changes memberships meanwhile. Then the faults end, and all
//! must be well again.
//!
//! [`check`] sees what happens, and judges. [`flaw`] breaks something on purpose, so that this can be seen to be found.
//!
//! A seed says everything: running it again is the same run, which is how a failure gets its trace.

mod actions;
mod check;
mod client;
mod clock;
mod disk;
mod faults;
pub(crate) mod flaw;
mod image;
mod machine;
mod network;
mod node;
mod operator;
mod outside;
mod queue;
mod random;
mod replica;
pub(crate) mod setup;
pub(crate) mod trace;
mod world;

use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use self::{check::Violation, faults::Fault, flaw::Flaw, setup::Focus, trace::Detail, world::World};

/// What is to be run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    /// `None`: the seed decides.
    pub(crate) focus: Option<Focus>,
    /// Nothing else breaks.
    pub(crate) only: Option<Fault>,
    pub(crate) flaw: Option<Flaw>,
    /// Whether what replicas promise is compared with their disks. Without, only what becomes of it is found.
    pub(crate) checks_promises: bool,
    pub(crate) detail: Detail,
}

impl Options {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, focus: None, only: None, flaw: None, checks_promises: true, detail: Detail::Hash }
    }
}

/// What happened in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) seeds: usize,
    pub(crate) events: u64,
    /// Operations of clients that were answered.
    pub(crate) operations: usize,
    /// Entries that were committed, and how many of them are memberships.
    pub(crate) entries: usize,
    pub(crate) memberships: usize,
    pub(crate) elections: usize,
    /// Snapshots that replicas got from others.
    pub(crate) snapshots: usize,
    /// Nodes that stopped, and how many of them lost what they had.
    pub(crate) stops: usize,
    pub(crate) losses: usize,
    pub(crate) simulated_ns: u64,
    /// Of everything: two runs with the same are the same.
    pub(crate) hash: u64,
}

impl Summary {
    pub(crate) fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.events += other.events;
        self.operations += other.operations;
        self.entries += other.entries;
        self.memberships += other.memberships;
        self.elections += other.elections;
        self.snapshots += other.snapshots;
        self.stops += other.stops;
        self.losses += other.losses;
        self.simulated_ns += other.simulated_ns;
        self.hash ^= other.hash;
    }
}

/// A rule did not hold.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    seed: u64,
    focus: Focus,
    pub(crate) rule: &'static str,
    what: String,
    /// What happened last.
    trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(formatter, "{line}")?;
        }
        write!(formatter, "seed {} ({:?}): {}: {}", self.seed, self.focus, self.rule, self.what)
    }
}

/// Runs a seed. If it fails it is run again, for the trace.
///
/// # Errors
///
/// The first rule that did not hold.
pub(crate) fn run(options: Options) -> Result<Summary, Failure> {
    match run_once(options) {
        Err(failure) if options.detail == Detail::Hash => {
            let again = run_once(Options { detail: Detail::Tail, ..options });
            Err(again.err().unwrap_or(failure))
        }
        result => result,
    }
}

/// Runs a seed, without a trace of a failure.
///
/// # Errors
///
/// The first rule that did not hold.
pub(crate) fn run_once(options: Options) -> Result<Summary, Failure> {
    let mut world = World::new(&options);
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let violation = match result {
        Ok(Ok(())) => None,
        Ok(Err(violation)) => Some(violation),
        Err(panic) => Some(Violation::new("assertion", message_of(&*panic))),
    };
    let Some(Violation { rule, what }) = violation else { return Ok(world.summary()) };
    let outside = world.outside;
    let focus = outside.setup.focus;
    Err(Failure { seed: options.seed, focus, rule, what, trace: outside.trace.into_lines() })
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
