//! What a core counts. Plain numbers: one core writes them, and a report copies them.
//!
//! Everything here begins at zero again after CONFIG RESETSTAT; so do a core's [`ExecutionTimes`].

mod commands;
mod errors;

pub use commands::{CommandCounts, CommandReport, ExecutionTimes, command_reports};
pub use errors::ErrorCounts;

use duva_engine::{OnceTotals, Shards, command::Command};

/// One core's counters since its start, or since CONFIG RESETSTAT.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Connections accepted.
    pub connections_received: u64,
    /// Connections refused past `maxclients`.
    pub connections_rejected: u64,
    /// Requests of this core's connections, by command.
    pub commands: CommandCounts,
    /// Error replies to this core's connections.
    pub errors: ErrorCounts,
    /// What the shards had counted at CONFIG RESETSTAT.
    pub keyspace_before: KeyspaceTotals,
    /// Bytes received.
    pub input_bytes: u64,
    /// Bytes sent.
    pub output_bytes: u64,
    /// Turns of the loop.
    pub turns: u64,
    /// Times another core was woken.
    pub wakes: u64,
    /// Requests sent to other cores.
    pub forwarded: u64,
    /// Commands over several cores.
    pub gathers: u64,
    /// Times such a command asked for its locks again.
    pub gather_retries: u64,
    /// Connections closed because their output was not read.
    pub output_limit_closed: u64,
    /// Connections closed because their unprocessed input was too large.
    pub input_limit_closed: u64,
    /// Receives that found no free buffer.
    pub buffer_shortages: u64,
}

impl Stats {
    /// A request of `command` was executed and got this error.
    #[cold]
    pub fn fail(&mut self, command: &Command, error: &[u8]) {
        self.errors.count(error);
        self.commands.fail(command, error);
    }

    /// A request of `command`, which counts as handled, got this error instead of being executed.
    #[cold]
    pub fn reject(&mut self, command: &Command, error: &[u8]) {
        self.errors.count(error);
        self.commands.reject(command);
    }
}

/// What shards count from their making on.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyspaceTotals {
    /// Keys removed because they were due.
    pub expired: u64,
    /// Reads that found their key.
    pub hits: u64,
    /// Reads that found none.
    pub misses: u64,
    /// Requests of ONCE; what is recorded of them is as it is now.
    pub once: OnceTotals,
}

impl KeyspaceTotals {
    /// The sums over `shards`.
    pub fn of(shards: &Shards) -> Self {
        let mut totals = Self::default();
        for shard in shards.iter() {
            let (hits, reads) = shard.read_totals();
            totals.expired += shard.expired_total();
            totals.hits += hits;
            totals.misses += reads - hits;
            let OnceTotals { cached, unique, duplicates, evicted } = shard.once_totals();
            totals.once.cached += cached;
            totals.once.unique += unique;
            totals.once.duplicates += duplicates;
            totals.once.evicted += evicted;
        }
        totals
    }

    /// What came since `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            expired: self.expired - before.expired,
            hits: self.hits - before.hits,
            misses: self.misses - before.misses,
            once: OnceTotals {
                cached: self.once.cached,
                unique: self.once.unique.saturating_sub(before.once.unique),
                duplicates: self.once.duplicates.saturating_sub(before.once.duplicates),
                evicted: self.once.evicted.saturating_sub(before.once.evicted),
            },
        }
    }
}
