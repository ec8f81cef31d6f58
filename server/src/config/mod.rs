//! The configuration: what can be set, from where, and what CONFIG GET and CONFIG SET make of it.
//!
//! Invariants:
//! - **One table.** `options::OPTIONS` is the only place that knows an option's name, text form and meaning. The
//!   command line, `--help`, the environment, the file, CONFIG GET and CONFIG SET are all read off it, so they
//!   cannot disagree.
//! - **One parser an option.** A value means the same and is refused with the same words wherever it comes from.
//! - **Precedence** is flag over environment variable over file over default.
//! - **No effects.** Nothing here touches sockets, limits or logs: [`Config::set`] returns a new value or an error
//!   and leaves the old one as it was. Only [`Config::load`] reads a file, the one named by `--config`.

mod command_line;
mod file;
mod load;
mod options;
mod run_time;
mod types;
mod value;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use load::Surroundings;
pub use run_time::SetError;
pub use types::{BindAddress, LogFormat, LogLevel, OutputBufferLimit, OutputBufferLimits, Password};

/// The most cores one server runs on: with four shards a core, still far below the number of slots.
pub const CORE_COUNT_MAX: u16 = 1024;

/// The most shards: one for each hash slot.
pub const SHARD_COUNT_MAX: u16 = 16_384;

/// The fewest shards for each core, so that moving some of them can even out load.
pub const SHARDS_PER_CORE_MIN: u16 = 4;

/// The shards of a server whose configuration does not say, unless it has more than sixteen cores.
pub const SHARD_COUNT_DEFAULT: u16 = 64;

/// Every setting, checked and ready to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Threads that serve data, one a core (`cores`).
    pub cores: u16,
    /// The CPU that each core is pinned to, by core (`cpus`); empty, or at least as many as `cores`.
    pub cpus: Vec<u32>,
    /// Shards, a power of two (`shards`).
    pub shards: u16,
    /// The directory that relative paths start from, once [`crate::startup::enter_directory`] entered it (`dir`).
    pub directory: PathBuf,
    /// The TCP port; 0: none (`port`).
    pub port: u16,
    /// The addresses to listen on; empty: none (`bind`).
    pub bind: Vec<BindAddress>,
    /// The Unix socket to listen on (`unixsocket`).
    pub unix_socket: Option<PathBuf>,
    /// The Unix socket's permission bits; 0: as the umask leaves them (`unixsocketperm`).
    pub unix_socket_mode: u32,
    /// Idle seconds before the kernel probes a TCP connection; 0: never (`tcp-keepalive`).
    pub tcp_keepalive_seconds: u32,
    /// Idle seconds before a client is closed; 0: never (`timeout`).
    pub idle_timeout_seconds: u32,
    /// Clients served at the same time (`maxclients`).
    pub clients_max: u32,
    /// The most that `maxclients` may be raised to at run time: what the descriptors allow. Not an option; the
    /// start-up checks lower it.
    pub clients_ceiling: u32,
    /// Bytes of unprocessed requests that one client may have (`client-query-buffer-limit`).
    pub query_buffer_bytes_max: u64,
    /// When a client that does not read its replies is closed (`client-output-buffer-limit`).
    pub output_buffer_limits: OutputBufferLimits,
    /// The longest single argument, in bytes (`proto-max-bulk-len`).
    pub bulk_len_bytes_max: u64,
    /// What clients must present; empty: nothing (`requirepass`).
    pub password: Password,
    /// What is logged (`loglevel`).
    pub log_level: LogLevel,
    /// How it is written (`log-format`).
    pub log_format: LogFormat,
    /// Where it goes; none is the standard output (`logfile`).
    pub log_file: Option<PathBuf>,
}

impl Default for Config {
    /// The defaults for a machine with one CPU.
    fn default() -> Self {
        Self {
            cores: 1,
            cpus: Vec::new(),
            shards: SHARD_COUNT_DEFAULT,
            directory: PathBuf::from("."),
            port: 6379,
            bind: BindAddress::loopback(),
            unix_socket: None,
            unix_socket_mode: 0,
            tcp_keepalive_seconds: 300,
            idle_timeout_seconds: 0,
            clients_max: 10_000,
            clients_ceiling: u32::MAX,
            query_buffer_bytes_max: 1 << 30,
            output_buffer_limits: OutputBufferLimits::default(),
            bulk_len_bytes_max: 512 << 20,
            password: Password::default(),
            log_level: LogLevel::Notice,
            log_format: LogFormat::Text,
            log_file: None,
        }
    }
}
