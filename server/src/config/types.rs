//! The types of settings that are more than a number or a path.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// An address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindAddress {
    /// The interface's address.
    pub address: IpAddr,
    /// Whether it is no error that the machine does not have the address (written with a leading `-`).
    pub is_optional: bool,
}

impl BindAddress {
    /// Both loopback addresses; machines without IPv6 do without the second.
    pub fn loopback() -> Vec<Self> {
        vec![
            Self { address: IpAddr::V4(Ipv4Addr::LOCALHOST), is_optional: false },
            Self { address: IpAddr::V6(Ipv6Addr::LOCALHOST), is_optional: true },
        ]
    }
}

impl fmt::Display for BindAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = if self.is_optional { "-" } else { "" };
        write!(formatter, "{prefix}{}", self.address)
    }
}

/// How much output a client of one class may leave unread before it is closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputBufferLimit {
    /// Closed at once beyond so many bytes; 0: no limit.
    pub hard_bytes: u64,
    /// Closed when beyond so many bytes for `soft_seconds` without a break; 0: no limit.
    pub soft_bytes: u64,
    /// See `soft_bytes`.
    pub soft_seconds: u64,
}

/// The limits of each class of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputBufferLimits {
    /// Clients of no other class.
    pub normal: OutputBufferLimit,
    /// Replicas.
    pub replica: OutputBufferLimit,
    /// Clients that are subscribed to a channel or pattern.
    pub pubsub: OutputBufferLimit,
}

impl Default for OutputBufferLimits {
    fn default() -> Self {
        const MIB: u64 = 1 << 20;
        Self {
            normal: OutputBufferLimit::default(),
            replica: OutputBufferLimit { hard_bytes: 256 * MIB, soft_bytes: 64 * MIB, soft_seconds: 60 },
            pubsub: OutputBufferLimit { hard_bytes: 32 * MIB, soft_bytes: 8 * MIB, soft_seconds: 60 },
        }
    }
}

/// When the journal is forced to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendFsync {
    /// Once a second; a power loss costs at most that second.
    EverySecond,
    /// Before a write is acknowledged.
    Always,
    /// Never: the kernel writes when it likes.
    No,
}

impl AppendFsync {
    pub(super) const NAMES: [(Self, &'static str, &'static [&'static str]); 3] =
        [(Self::EverySecond, "everysec", &[]), (Self::Always, "always", &[]), (Self::No, "no", &[])];

    /// The choice's name in Redis.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize].1
    }
}

/// What is done with a journal that is damaged where no crash can have damaged it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// The server does not start.
    None,
    /// What follows the damage is dropped.
    Truncate,
}

impl Recovery {
    pub(super) const NAMES: [(Self, &'static str, &'static [&'static str]); 2] =
        [(Self::None, "none", &[]), (Self::Truncate, "truncate", &[])];

    /// The choice's name.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize].1
    }
}

/// Whether a start makes its node the only one of a new cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForceNewCluster {
    /// The node stays in its cluster.
    No,
    /// It does, if it has a replica of every shard.
    Yes,
    /// It does, and shards of which it has none begin with what is left of them, or empty.
    DiscardMissing,
}

impl ForceNewCluster {
    pub(super) const NAMES: [(Self, &'static str, &'static [&'static str]); 3] =
        [(Self::No, "no", &[]), (Self::Yes, "yes", &[]), (Self::DiscardMissing, "discard-missing", &[])];

    /// The choice's name.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize].1
    }
}

/// What happens to requests for keys that another node leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterRouting {
    /// They are sent on to the leader.
    Forward,
    /// The client is sent there, by MOVED.
    Redirect,
}

impl ClusterRouting {
    pub(super) const NAMES: [(Self, &'static str, &'static [&'static str]); 2] =
        [(Self::Forward, "forward", &[]), (Self::Redirect, "redirect", &[])];

    /// The choice's name.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize].1
    }
}

/// What reads of a connection promise, from the strongest on. See [`crate::core::levels`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// A read sees every write that was answered before, by whomever.
    Linearizable,
    /// Reads and writes of all connections are in one order, in which each connection's own are in theirs.
    Sequential,
    /// A connection sees its own writes, and of no shard anything older than what it saw of it.
    Session,
    /// A read sees what the nearest replica has.
    Stale,
}

impl Consistency {
    pub(super) const NAMES: [(Self, &'static str, &'static [&'static str]); 4] = [
        (Self::Linearizable, "linearizable", &[]),
        (Self::Sequential, "sequential", &[]),
        (Self::Session, "session", &[]),
        (Self::Stale, "stale", &[]),
    ];

    /// The level's name.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize].1
    }

    /// The level of this name, in any case.
    pub fn of_name(text: &[u8]) -> Option<Self> {
        let found = Self::NAMES.iter().find(|(_, name, _)| text.eq_ignore_ascii_case(name.as_bytes()));
        found.map(|(level, ..)| *level)
    }
}

/// When a copy of a write counts on its way to a majority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RaftDurability {
    /// When it survives a power loss.
    Fsync,
    /// When it survives the process.
    Memory,
}

impl RaftDurability {
    pub(super) const NAMES: [(Self, &'static str, &'static [&'static str]); 2] =
        [(Self::Fsync, "fsync", &[]), (Self::Memory, "memory", &[])];

    /// The choice's name.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize].1
    }
}

impl From<RaftDurability> for duva_raft::Durability {
    fn from(durability: RaftDurability) -> Self {
        match durability {
            RaftDurability::Fsync => Self::Fsync,
            RaftDurability::Memory => Self::Memory,
        }
    }
}

/// How a leader makes sure that it still leads before it answers a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RaftReadMode {
    /// By a lease, which relies on clocks that run at about the same speed.
    Lease,
    /// By asking a majority.
    ReadIndex,
}

impl RaftReadMode {
    pub(super) const NAMES: [(Self, &'static str, &'static [&'static str]); 2] =
        [(Self::Lease, "lease", &[]), (Self::ReadIndex, "read-index", &[])];

    /// The choice's name.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize].1
    }
}

impl From<RaftReadMode> for duva_raft::ReadMode {
    fn from(mode: RaftReadMode) -> Self {
        match mode {
            RaftReadMode::Lease => Self::Lease,
            RaftReadMode::ReadIndex => Self::ReadIndex,
        }
    }
}

/// When a snapshot is saved by itself: once so many seconds have passed since the last one with so many changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavePoint {
    /// Seconds since the last snapshot, at least one.
    pub seconds: u64,
    /// Changes since then.
    pub changes: u64,
}

impl fmt::Display for SavePoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.seconds, self.changes)
    }
}

/// What is logged: this and everything more severe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything, down to single operations.
    Debug,
    /// Detail that is rarely useful.
    Verbose,
    /// What an operator wants to know.
    Notice,
    /// What an operator must know.
    Warning,
    /// Nothing at all.
    Nothing,
}

impl LogLevel {
    /// Every level by the name that is shown and the other names that it is known by.
    pub(super) const NAMES: [(Self, &'static str, &'static [&'static str]); 5] = [
        (Self::Debug, "debug", &["trace"]),
        (Self::Verbose, "verbose", &[]),
        (Self::Notice, "notice", &["info"]),
        (Self::Warning, "warning", &["warn", "error"]),
        (Self::Nothing, "nothing", &["off"]),
    ];

    /// The level's name in Redis.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize].1
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    pub(super) const NAMES: [(Self, &'static str, &'static [&'static str]); 2] =
        [(Self::Text, "text", &[]), (Self::Json, "json", &[])];

    /// The format's name.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize].1
    }
}

/// A password; debug output does not show it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Password(Vec<u8>);

impl Password {
    /// A password of these bytes; none asks for no password.
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// Whether clients need no password.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `given` is the password, in a time that depends on the length of `given` alone: how long a refusal
    /// takes says nothing about how much of it was right, nor how long the password is.
    pub fn matches(&self, given: &[u8]) -> bool {
        let mut difference = u8::from(self.0.len() != given.len());
        for (index, byte) in given.iter().enumerate() {
            difference |= byte ^ self.0.get(index).unwrap_or(&0);
        }
        std::hint::black_box(difference) == 0
    }

    /// The password itself, for CONFIG GET and for joining a cluster.
    pub(crate) fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.is_empty() { "(none)" } else { "(hidden)" })
    }
}
