//! The simulator of a cluster: three or five real nodes on machines of their own, and a network that fails between them.
//!
//! Every node is the server's own: cores, journals, groups, links, gossip, the file of the meta group. The first makes the cluster,
//! the others are let in by it, and then, while clients write and read at all of them, ways between nodes are cut, in both
//! directions or in one, links break, processes are stopped and go on, are killed or lose their power and start again with
//! what their disk has kept; disks are full, or fail; a node is lost for good, is forgotten, and another one takes its
//! place; no two clocks agree, nor run equally fast. Everything is in one thread, and a seed decides all of it.
//!
//! ```text
//! run (who is next, what fails) -> boot (starts) -> io -> world (machines) -> network
//!                               -> client (what is asked and answered) -> linearizability
//!                               -> session (reads that promise less, and their judgement)
//!                               -> several, shelves (of several shards)
//!                               -> operator (forgets nodes, lets them in)
//! client, session               -> wire (requests out, replies in)
//! ```
//!
//! What is judged: that one order explains all replies ([`duva_tools::linearizability`]), hence that no acknowledged write is lost or
//! done twice; that no command over several shards is seen by half, and that none leaves a key locked; that reads of the other levels
//! see what they promise; that a connection's requests for one shard stay in order; and that some time after the last fault every
//! shard has a leader that all nodes know, none of them on a core whose journal has failed, every client is served, and all replicas
//! hold the same.
//!
//! Runs differ in their manner (`manner`): in some, values are moved between places of several shards, everything is removed now
//! and then, or nodes send clients to leaders.

mod aftermath;
mod boot;
mod client;
mod faults;
mod io;
mod manner;
mod network;
mod operator;
mod run;
mod session;
mod several;
mod shelves;
mod upgrade;
mod wire;
mod world;

pub(crate) use run::run;
pub(crate) use upgrade::{Upgrade, upgrade};

/// What is done wrong on purpose, to show that the checks notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), expect(dead_code, reason = "only tests break things"))]
pub(crate) enum Sabotage {
    /// Disks say that they have synced, and have not.
    LyingDisks,
    /// Nodes answer reads from what they have themselves, whoever leads.
    StaleReads,
    /// Clients send writes of unknown fate once more.
    RepeatedWrites,
    /// Clients whose reads are to see what they know read what is stale.
    StaleSessions,
    /// Clients leave a key out of writes to several shards.
    HalfWrites,
    /// They leave one out of MSETNX.
    HalfPlaces,
    /// They remove nothing when they should remove everything.
    NoFlushes,
}

/// What a run, or several, did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Steps of cores and clients.
    pub(crate) steps: u64,
    /// Turns of cores.
    pub(crate) turns: u64,
    /// Simulated time, in milliseconds.
    pub(crate) simulated_ms: u64,
    /// Requests made, and replies received.
    pub(crate) requests: u64,
    pub(crate) replies: u64,
    /// Replies that say that nothing was executed, those of them that say that a disk is full, and those that nobody knows.
    pub(crate) refused: u64,
    pub(crate) without_room: u64,
    pub(crate) uncertain: u64,
    /// Those of the first that were because not all nodes knew the command yet.
    pub(crate) early: u64,
    /// Requests that were never answered, and requests of ONCE that were sent again.
    pub(crate) lost: u64,
    pub(crate) retried: u64,
    /// Those that were sent to another node, those that were refused because of their slots, those of shelves, and those for which
    /// everything was removed.
    pub(crate) moved: u64,
    pub(crate) crossed: u64,
    pub(crate) shelved: u64,
    pub(crate) flushes: u64,
    /// Requests that nodes sent to one another.
    pub(crate) forwarded: u64,
    /// Elections won, as far as those who won them lived to tell.
    pub(crate) elections: u64,
    /// Snapshots that took the place of what a replica had.
    pub(crate) snapshots: u64,
    /// Ways that were cut, links that broke, processes that were stopped, killed, or lost their power, clocks that jumped.
    pub(crate) cuts: u64,
    pub(crate) breaks: u64,
    pub(crate) stops: u64,
    pub(crate) kills: u64,
    pub(crate) power_losses: u64,
    pub(crate) clock_jumps: u64,
    /// Clocks that began to run at another rate, disks that were full, that failed, and nodes that were lost for good.
    pub(crate) drifts: u64,
    pub(crate) full_disks: u64,
    pub(crate) failing_disks: u64,
    pub(crate) losses: u64,
    /// Reads that a node served itself because of their level.
    pub(crate) near_reads: u64,
    /// Histories with too many possible orders to decide.
    pub(crate) undecided: u64,
}

impl Summary {
    /// Adds what another run did.
    pub(crate) fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.turns += other.turns;
        self.simulated_ms += other.simulated_ms;
        self.requests += other.requests;
        self.replies += other.replies;
        self.refused += other.refused;
        self.early += other.early;
        self.without_room += other.without_room;
        self.uncertain += other.uncertain;
        self.lost += other.lost;
        self.retried += other.retried;
        self.moved += other.moved;
        self.crossed += other.crossed;
        self.shelved += other.shelved;
        self.flushes += other.flushes;
        self.forwarded += other.forwarded;
        self.elections += other.elections;
        self.snapshots += other.snapshots;
        self.cuts += other.cuts;
        self.breaks += other.breaks;
        self.stops += other.stops;
        self.kills += other.kills;
        self.power_losses += other.power_losses;
        self.clock_jumps += other.clock_jumps;
        self.drifts += other.drifts;
        self.full_disks += other.full_disks;
        self.failing_disks += other.failing_disks;
        self.losses += other.losses;
        self.near_reads += other.near_reads;
        self.undecided += other.undecided;
    }
}

#[cfg(test)]
mod tests;
