//! What a core counts. Plain numbers: one core writes them, and a report copies them.

/// One core's counters since its start, or since CONFIG RESETSTAT.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Connections accepted.
    pub connections_received: u64,
    /// Connections refused past `maxclients`.
    pub connections_rejected: u64,
    /// Commands executed for this core's connections.
    pub commands: u64,
    /// Error replies.
    pub errors: u64,
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
