//! The simulator: real cores, on a machine that exists only in numbers drawn from a seed.
//!
//! Sockets, kernel buffers, clocks, wakes and scheduling are simulated; the core loop, the mesh and the engine are the
//! real ones, in one thread. A seed decides everything, so a failure replays exactly.
//!
//! ```text
//! random -> world (machine) <- io (a core's door to it) <- driver (who is next) -> client -> script (what to ask)
//!                                                                                        \-> check (what is right)
//! ```
//!
//! Whole clusters are simulated by [`cluster`].
//!
//! The checkers in [`check`] judge histories only: see there. What a run ends with is checked too: no connection, lock,
//! request, gather, buffer or socket is left.

mod check;
mod client;
pub(crate) mod cluster;
mod disk;
mod driver;
mod faults;
mod io;
mod random;
mod resp;
mod script;
mod start;
pub(crate) mod trace;
mod world;

pub(crate) use driver::run;

/// What a run, or several, did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Steps of cores and clients.
    pub(crate) steps: u64,
    /// Turns of cores.
    pub(crate) turns: u64,
    /// Completions.
    pub(crate) events: u64,
    /// Wakes between cores.
    pub(crate) wakes: u64,
    /// Connections.
    pub(crate) connections: u64,
    /// Requests made.
    pub(crate) requests: u64,
    /// Replies received.
    pub(crate) replies: u64,
    /// Commands over several cores.
    pub(crate) gathers: u64,
    /// Times such a command was refused its locks.
    pub(crate) gather_retries: u64,
    /// Operations whose linearizability was checked.
    pub(crate) register_operations: u64,
    /// Registers with too many possible orders to decide.
    pub(crate) undecided: u64,
    /// Replies to writes that say that the disk is full.
    pub(crate) refused: u64,
    /// Times that the server was killed, or lost its power.
    pub(crate) crashes: u64,
    /// Answered writes that power losses have taken, as far as that is certain.
    pub(crate) lost: u64,
}

impl Summary {
    /// Adds what the cores of a server have counted.
    fn add_server(&mut self, server: &start::Server) {
        for core in &server.cores {
            let stats = &core.core.node().stats;
            self.gathers += stats.gathers;
            self.gather_retries += stats.gather_retries;
        }
    }

    /// Adds what another run did.
    pub(crate) fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.turns += other.turns;
        self.events += other.events;
        self.wakes += other.wakes;
        self.connections += other.connections;
        self.requests += other.requests;
        self.replies += other.replies;
        self.gathers += other.gathers;
        self.gather_retries += other.gather_retries;
        self.register_operations += other.register_operations;
        self.undecided += other.undecided;
        self.refused += other.refused;
        self.crashes += other.crashes;
        self.lost += other.lost;
    }
}

/// A run that went wrong.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Its seed.
    pub(crate) seed: u64,
    /// What went wrong.
    pub(crate) reason: String,
    /// What happened last, if it was traced.
    pub(crate) trace: Vec<String>,
}

#[cfg(test)]
mod tests;
