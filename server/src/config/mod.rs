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

mod cluster;
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

use duva_engine::Settings;

use crate::cluster::feature_level;

pub use cluster::ClusterConflict;
pub use load::Surroundings;
pub use run_time::SetError;
pub use types::{
    AppendFsync, BindAddress, ClusterRouting, Consistency, ForceNewCluster, LogFormat, LogLevel,
    OutputBufferLimit, OutputBufferLimits, Password, RaftDurability, RaftReadMode, Recovery, SavePoint,
};

/// The most cores one server runs on: with four shards a core, still far below the number of slots.
pub const CORE_COUNT_MAX: u16 = 1024;

/// The most shards: one for each hash slot.
pub const SHARD_COUNT_MAX: u16 = 16_384;

/// The fewest shards for each core, so that moving some of them can even out load.
pub const SHARDS_PER_CORE_MIN: u16 = 4;

/// The shards of a server whose configuration does not say, unless it has more than sixteen cores.
pub const SHARD_COUNT_DEFAULT: u16 = 64;

/// The smallest segment of a journal, in bytes.
pub const SEGMENT_SIZE_BYTES_MIN: u32 = 1 << 20;

/// The largest segment of a journal, in bytes.
pub const SEGMENT_SIZE_BYTES_MAX: u32 = 1 << 30;

/// The port for other nodes is so far above the one for clients, unless it is set.
pub const PEER_PORT_OFFSET: u16 = 10_000;

/// Every setting, checked and ready to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Threads that serve data, one a core (`cores`).
    pub cores: u16,
    /// The CPU that each core is pinned to, by core (`cpus`); empty, or at least as many as `cores`.
    pub cpus: Vec<u32>,
    /// Shards, a power of two (`shards`).
    pub shards: u16,
    /// Whether `shards` was given, rather than left to the default. Not an option.
    pub is_shard_count_given: bool,
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
    /// Whether writes are journalled (`appendonly`).
    pub append_only: bool,
    /// When the journal is forced to the disk (`appendfsync`).
    pub append_fsync: AppendFsync,
    /// The journal's directory, a name in `directory` (`appenddirname`).
    pub append_directory_name: String,
    /// The length of the journal's segments, a multiple of 4096 (`segment-size`).
    pub segment_size_bytes: u32,
    /// How far the journal outgrows the last rewrite before it is rewritten by itself; 0: never
    /// (`auto-aof-rewrite-percentage`).
    pub rewrite_growth_percent: u32,
    /// The smallest journal that is rewritten by itself (`auto-aof-rewrite-min-size`).
    pub rewrite_size_bytes_min: u64,
    /// When snapshots are saved by themselves; empty: never (`save`).
    pub save_points: Vec<SavePoint>,
    /// The snapshot that SAVE and BGSAVE write, a name in `directory` (`dbfilename`).
    pub snapshot_file_name: String,
    /// Whether strings in snapshots are compressed (`rdbcompression`).
    pub snapshot_is_compressed: bool,
    /// Whether snapshots have a checksum, written and verified (`rdbchecksum`).
    pub snapshot_has_checksum: bool,
    /// How long the reply to a request of ONCE is recorded, in seconds (`dedup-ttl`).
    pub dedup_ttl_seconds: u32,
    /// Whether writes are refused while there are save points and the last snapshot in the background failed
    /// (`stop-writes-on-bgsave-error`).
    pub stop_writes_on_save_error: bool,
    /// What this start does with a damaged journal (`recover`).
    pub recovery: Recovery,
    /// Whether this start makes the first node of a cluster (`cluster`).
    pub cluster: bool,
    /// The node whose cluster this start joins, `host:port` (`join`).
    pub join: Option<String>,
    /// Whether this start makes its node the only one of a new cluster (`force-new-cluster`).
    pub force_new_cluster: ForceNewCluster,
    /// Whether the server is a node of a cluster (`cluster-enabled`). It is if `cluster` or `join` says so; the start sets it
    /// as well where the directory belongs to a cluster already.
    pub is_cluster_enabled: bool,
    /// The feature level that the node speaks, and commands that are taken to be of a later one than they are. Not options: for
    /// tests of nodes of different versions.
    pub feature_level: u16,
    /// See [`Self::feature_level`].
    pub newer_commands: &'static [(&'static str, u16)],
    /// How many replicas a shard is meant to have (`replication-factor`).
    pub replication_factor: u8,
    /// The port for other nodes; 0: there is none, because `port` is too large for the default (`peer-port`).
    pub peer_port: u16,
    /// The host that others and clients are told; `None`: see [`Config::host_to_announce`] (`announce-host`).
    pub announce_host: Option<String>,
    /// What happens to requests for keys that another node leads (`cluster-routing`).
    pub cluster_routing: ClusterRouting,
    /// What reads of new connections promise (`consistency`).
    pub consistency: Consistency,
    /// How long a read may wait for a replica that lags, in milliseconds (`session-wait`).
    pub session_wait_ms: u32,
    /// When a copy of a write counts (`raft-durability`).
    pub raft_durability: RaftDurability,
    /// How a leader makes sure that it still leads before it answers a read (`read-mode`).
    pub raft_read_mode: RaftReadMode,
    /// The shortest election timeout, in milliseconds; the longest is twice that (`election-timeout`).
    pub election_timeout_min_ms: u32,
    /// How often nodes ask one another whether they are there, in milliseconds (`hf`).
    pub gossip_interval_ms: u32,
    /// How long a node may be silent before it is taken to be down, in milliseconds (`ttl`).
    pub gossip_timeout_ms: u32,
    /// How far a node's clock may be ahead of most others', in milliseconds (`max-clock-offset`).
    pub clock_offset_max_ms: u32,
    /// How long a node may be down before its replicas are placed elsewhere, in seconds (`replace-after`).
    pub replace_after_seconds: u32,
    /// What is logged (`loglevel`).
    pub log_level: LogLevel,
    /// How it is written (`log-format`).
    pub log_format: LogFormat,
    /// Where it goes; none is the standard output (`logfile`).
    pub log_file: Option<PathBuf>,
}

/// Places in a request are 32 bits wide, here and in the journal, so neither an argument nor a whole request may be longer than
/// this, whatever is set.
const ARGUMENT_BYTES_MAX: u64 = 2 << 30;
const REQUEST_BYTES_MAX: u64 = 3 << 30;

impl Config {
    /// Bytes of the longest argument and string: [`Self::bulk_len_bytes_max`], bounded.
    pub fn argument_bytes_max(&self) -> u64 {
        self.bulk_len_bytes_max.min(ARGUMENT_BYTES_MAX)
    }

    /// What can change a command's result.
    pub fn engine_settings(&self) -> Settings {
        Settings {
            bulk_len_bytes_max: self.argument_bytes_max(),
            once_ttl_ms: u64::from(self.dedup_ttl_seconds) * 1000,
        }
    }

    /// Bytes of unprocessed requests that one client may have: [`Self::query_buffer_bytes_max`], bounded.
    pub fn request_bytes_max(&self) -> u64 {
        self.query_buffer_bytes_max.min(REQUEST_BYTES_MAX)
    }
}

impl Default for Config {
    /// The defaults for a machine with one CPU.
    fn default() -> Self {
        Self {
            cores: 1,
            cpus: Vec::new(),
            shards: SHARD_COUNT_DEFAULT,
            is_shard_count_given: false,
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
            append_only: true,
            append_fsync: AppendFsync::EverySecond,
            append_directory_name: "appendonlydir".to_owned(),
            segment_size_bytes: 64 << 20,
            rewrite_growth_percent: 100,
            rewrite_size_bytes_min: 64 << 20,
            save_points: Vec::new(),
            snapshot_file_name: "dump.rdb".to_owned(),
            snapshot_is_compressed: true,
            snapshot_has_checksum: true,
            dedup_ttl_seconds: 3600,
            stop_writes_on_save_error: true,
            recovery: Recovery::None,
            cluster: false,
            join: None,
            force_new_cluster: ForceNewCluster::No,
            is_cluster_enabled: false,
            feature_level: feature_level::CURRENT,
            newer_commands: &[],
            replication_factor: 3,
            peer_port: 6379 + PEER_PORT_OFFSET,
            announce_host: None,
            cluster_routing: ClusterRouting::Forward,
            consistency: Consistency::Linearizable,
            session_wait_ms: 1000,
            raft_durability: RaftDurability::Fsync,
            raft_read_mode: RaftReadMode::Lease,
            election_timeout_min_ms: 150,
            gossip_interval_ms: 100,
            gossip_timeout_ms: 1500,
            clock_offset_max_ms: 500,
            replace_after_seconds: 300,
            log_level: LogLevel::Notice,
            log_format: LogFormat::Text,
            log_file: None,
        }
    }
}
