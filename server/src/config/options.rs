//! The table of options.
//!
//! A row is all there is to know about an option. To add one: a field in [`Config`], a row here, and a row in
//! `docs/configuration.md` (a test compares the two).

use std::{borrow::Cow, ops::RangeInclusive};

use super::{
    AppendFsync, CORE_COUNT_MAX, ClusterRouting, Config, Consistency, ForceNewCluster, LogFormat, LogLevel,
    Password, RaftDurability, RaftReadMode, Recovery, SEGMENT_SIZE_BYTES_MAX, SEGMENT_SIZE_BYTES_MIN,
    SHARD_COUNT_MAX,
    value::{self, Reason},
};
use crate::cluster::meta::REPLICATION_FACTOR_MAX;

/// One option.
pub(super) struct ConfigOption {
    /// Its name everywhere: the flag without dashes, the key in a file, the name in CONFIG GET.
    pub(super) name: &'static str,
    /// The heading it stands under in the help.
    pub(super) section: &'static str,
    /// What stands for its value in the help.
    pub(super) placeholder: &'static str,
    /// Its default, as text that `parse` accepts unless it stands in parentheses.
    pub(super) default: &'static str,
    /// One sentence with units.
    pub(super) meaning: &'static str,
    /// What a file's value must be, to end the sentence "must be ...".
    pub(super) expects: &'static str,
    /// What forms a value has in a file.
    pub(super) form: Form,
    /// Where it can be set.
    pub(super) change: Change,
    /// Reads a value into the configuration, which is left as it was on a refusal.
    pub(super) parse: fn(&mut Config, &[u8]) -> Result<(), Reason>,
    /// Writes the value as CONFIG GET shows it.
    pub(super) print: fn(&Config) -> Vec<u8>,
}

/// The forms of a value in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// An integer.
    Integer,
    /// A string with a unit, or an integer of bytes.
    Bytes,
    /// A string.
    Text,
    /// A string of octal digits, or an octal integer: a decimal one would not mean what it seems to.
    Octal,
    /// A boolean, or a string.
    YesNo,
    /// A boolean, or a string; a flag without a value is yes.
    Switch,
    /// A string, or an array whose elements are joined with this separator.
    List(&'static str),
}

/// Where an option can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// At the start and by CONFIG SET.
    RunTime,
    /// At the start only.
    Start,
    /// At the start only; CONFIG SET words the refusal as Redis does for settings that reach beyond the server.
    StartProtected,
    /// At one start only, by flag or variable: a file would keep for every start what is meant for one.
    OneStart,
    /// Nowhere: it is there to be read.
    Never,
}

impl ConfigOption {
    /// The environment variable that sets it.
    pub(super) fn variable(&self) -> String {
        format!("DUVA_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }

    /// Whether flags and variables can set it, and but for [`Change::OneStart`] files.
    pub(super) fn is_settable_at_start(&self) -> bool {
        self.change != Change::Never
    }

    /// Whether its value may be several words of the command line.
    pub(super) fn takes_words(&self) -> bool {
        self.form == Form::List(" ")
    }

    /// The option of that name, in any case.
    pub(super) fn find(name: &[u8]) -> Option<&'static Self> {
        OPTIONS.iter().find(|option| option.name.as_bytes().eq_ignore_ascii_case(name))
    }
}

const CORES: &str = "Cores and shards";
const NETWORK: &str = "Network";
const CLIENTS: &str = "Clients";
const DATA: &str = "Data";
const PERSISTENCE: &str = "Persistence";
const CLUSTER: &str = "Cluster";
const LOG: &str = "Logging";

const MIB: u64 = 1 << 20;
/// Redis's largest number of bytes.
const BYTES_MAX: u64 = i64::MAX as u64;
/// A segment is whole pages of the kernel.
const SEGMENT_SIZE_UNIT_BYTES: u64 = 4096;
/// The largest percentage that Redis accepts.
const PERCENT_MAX: u32 = i32::MAX as u32;
/// The election timeouts that make sense, in milliseconds.
const ELECTION_TIMEOUT_MS: RangeInclusive<u32> = 50..=10_000;
/// The longest time that a read waits for a replica, in milliseconds: so long requests wait at most for a leader.
const SESSION_WAIT_MS_MAX: u32 = 5_000;
/// The longest time of gossip, in milliseconds.
const GOSSIP_MS_MAX: u32 = 600_000;
/// The longest time in seconds that Redis accepts.
const SECONDS_MAX: u32 = i32::MAX as u32;

/// Every option, in the order of the help and of CONFIG GET.
pub(super) static OPTIONS: &[ConfigOption] = &[
    ConfigOption {
        name: "cores",
        section: CORES,
        placeholder: "COUNT",
        default: "(the available CPUs)",
        meaning: "Threads that serve data, each on a CPU of its own",
        expects: "an integer from 1 to 1024",
        form: Form::Integer,
        change: Change::Start,
        parse: |config, text| value::short(text, 1..=CORE_COUNT_MAX).map(|cores| config.cores = cores),
        print: |config| config.cores.to_string().into(),
    },
    ConfigOption {
        name: "cpus",
        section: CORES,
        placeholder: "LIST",
        default: "",
        meaning: "CPUs to pin the cores to in this order, such as 0,2-5; empty leaves the choice to the server",
        expects: "a list of CPU numbers and ranges such as \"0,2-5\"",
        form: Form::List(","),
        change: Change::Start,
        parse: |config, text| value::cpu_list(text).map(|cpus| config.cpus = cpus),
        print: |config| value::print_cpu_list(&config.cpus).into(),
    },
    ConfigOption {
        name: "shards",
        section: CORES,
        placeholder: "COUNT",
        default: "64",
        meaning: "Shards the keys are split into: a power of two, four or more a core, at most 16384; the default grows \
                  with more than 16 cores; in a cluster its first node decides",
        expects: "a power of two from 4 to 16384",
        form: Form::Integer,
        change: Change::Start,
        parse: |config, text| {
            let shards = value::short(text, 1..=SHARD_COUNT_MAX)?;
            if !shards.is_power_of_two() {
                return Err(Cow::Borrowed("argument must be a power of two"));
            }
            config.shards = shards;
            Ok(())
        },
        print: |config| config.shards.to_string().into(),
    },
    ConfigOption {
        name: "port",
        section: NETWORK,
        placeholder: "PORT",
        default: "6379",
        meaning: "TCP port to listen on; 0 listens on none",
        expects: "an integer from 0 to 65535",
        form: Form::Integer,
        change: Change::Start,
        parse: |config, text| value::short(text, 0..=u16::MAX).map(|port| config.port = port),
        print: |config| config.port.to_string().into(),
    },
    ConfigOption {
        name: "bind",
        section: NETWORK,
        placeholder: "ADDRESSES",
        default: "127.0.0.1 -::1",
        meaning: "IP addresses to listen on, separated by spaces; * and ::* are all interfaces, and a leading - skips \
                  an address that the machine does not have",
        expects: "a list of IP addresses, * or ::*",
        form: Form::List(" "),
        change: Change::Start,
        parse: |config, text| value::addresses(text).map(|addresses| config.bind = addresses),
        print: |config| value::print_addresses(&config.bind).into(),
    },
    ConfigOption {
        name: "unixsocket",
        section: NETWORK,
        placeholder: "PATH",
        default: "",
        meaning: "Unix socket to listen on, a relative path starting from dir; empty listens on none",
        expects: "a path",
        form: Form::Text,
        change: Change::Start,
        parse: |config, text| value::path(text).map(|path| config.unix_socket = path),
        print: |config| print_path(config.unix_socket.as_deref()),
    },
    ConfigOption {
        name: "unixsocketperm",
        section: NETWORK,
        placeholder: "MODE",
        default: "0",
        meaning: "Permission bits of the Unix socket in octal, such as 700; 0 leaves them to the umask",
        expects: "octal digits in a string, such as \"700\", or an octal integer, such as 0o700",
        form: Form::Octal,
        change: Change::Start,
        parse: |config, text| value::permissions(text).map(|mode| config.unix_socket_mode = mode),
        print: |config| format!("{:o}", config.unix_socket_mode).into(),
    },
    ConfigOption {
        name: "tcp-keepalive",
        section: NETWORK,
        placeholder: "SECONDS",
        default: "300",
        meaning: "Idle seconds before the kernel probes whether a TCP client is still there; 0 never does",
        expects: "an integer from 0 to 2147483647",
        form: Form::Integer,
        change: Change::RunTime,
        parse: |config, text| {
            value::integer(text, 0..=SECONDS_MAX).map(|seconds| config.tcp_keepalive_seconds = seconds)
        },
        print: |config| config.tcp_keepalive_seconds.to_string().into(),
    },
    ConfigOption {
        name: "maxclients",
        section: CLIENTS,
        placeholder: "COUNT",
        default: "10000",
        meaning: "Clients served at the same time; more are refused",
        expects: "an integer from 1 to 4294967295",
        form: Form::Integer,
        change: Change::RunTime,
        parse: |config, text| value::integer(text, 1..=u32::MAX).map(|count| config.clients_max = count),
        print: |config| config.clients_max.to_string().into(),
    },
    ConfigOption {
        name: "timeout",
        section: CLIENTS,
        placeholder: "SECONDS",
        default: "0",
        meaning: "Idle seconds before a client is closed; 0 never closes one",
        expects: "an integer from 0 to 2147483647",
        form: Form::Integer,
        change: Change::RunTime,
        parse: |config, text| {
            value::integer(text, 0..=SECONDS_MAX).map(|seconds| config.idle_timeout_seconds = seconds)
        },
        print: |config| config.idle_timeout_seconds.to_string().into(),
    },
    ConfigOption {
        name: "requirepass",
        section: CLIENTS,
        placeholder: "PASSWORD",
        default: "",
        meaning: "Password that clients must present with AUTH; empty asks for none (better set in a file or the \
                  environment, because others can see a command line)",
        expects: "a password",
        form: Form::Text,
        change: Change::RunTime,
        parse: |config, text| {
            config.password = Password::new(text);
            Ok(())
        },
        print: |config| config.password.reveal().to_vec(),
    },
    ConfigOption {
        name: "client-query-buffer-limit",
        section: CLIENTS,
        placeholder: "BYTES",
        default: "1gb",
        meaning: "Bytes of unprocessed requests before a client is closed, 1mb or more",
        expects: "a number of bytes such as \"64mb\", 1mb or more",
        form: Form::Bytes,
        change: Change::RunTime,
        parse: |config, text| {
            value::bytes(text, MIB..=BYTES_MAX).map(|bytes| config.query_buffer_bytes_max = bytes)
        },
        print: |config| config.query_buffer_bytes_max.to_string().into(),
    },
    ConfigOption {
        name: "client-output-buffer-limit",
        section: CLIENTS,
        placeholder: "LIMITS",
        default: "normal 0 0 0 replica 256mb 64mb 60 pubsub 32mb 8mb 60",
        meaning: "Unread replies before a client is closed: class (normal, replica or pubsub), hard limit in bytes, \
                  soft limit in bytes, and seconds beyond the soft limit; 0 is no limit, and classes not named stay",
        expects: "groups of four words such as \"pubsub 32mb 8mb 60\"",
        form: Form::List(" "),
        change: Change::RunTime,
        parse: |config, text| value::change_output_limits(&mut config.output_buffer_limits, text),
        print: |config| value::print_output_limits(&config.output_buffer_limits).into(),
    },
    ConfigOption {
        name: "proto-max-bulk-len",
        section: CLIENTS,
        placeholder: "BYTES",
        default: "512mb",
        meaning: "Bytes of the longest single argument of a request, and of the longest string; 1mb or more",
        expects: "a number of bytes such as \"64mb\", 1mb or more",
        form: Form::Bytes,
        change: Change::RunTime,
        parse: |config, text| {
            value::bytes(text, MIB..=BYTES_MAX).map(|bytes| config.bulk_len_bytes_max = bytes)
        },
        print: |config| config.bulk_len_bytes_max.to_string().into(),
    },
    ConfigOption {
        name: "dedup-ttl",
        section: DATA,
        placeholder: "SECONDS",
        default: "3600",
        meaning: "Seconds for which the reply to a request of ONCE is recorded, so that it takes effect once",
        expects: "an integer from 1 to 2147483647",
        form: Form::Integer,
        change: Change::RunTime,
        parse: |config, text| {
            value::integer(text, 1..=SECONDS_MAX).map(|seconds| config.dedup_ttl_seconds = seconds)
        },
        print: |config| config.dedup_ttl_seconds.to_string().into(),
    },
    ConfigOption {
        name: "dir",
        section: DATA,
        placeholder: "PATH",
        default: ".",
        meaning: "Directory that relative paths start from; it must exist",
        expects: "the path of a directory",
        form: Form::Text,
        change: Change::StartProtected,
        parse: |config, text| {
            config.directory = value::path(text)?.ok_or("argument must be the path of a directory")?;
            Ok(())
        },
        print: |config| print_path(Some(&config.directory)),
    },
    ConfigOption {
        name: "databases",
        section: DATA,
        placeholder: "COUNT",
        default: "16",
        meaning: "Databases that clients can SELECT; their number is fixed",
        expects: "left out",
        form: Form::Integer,
        change: Change::Never,
        parse: |_, _| Err(Cow::Borrowed("the number of databases is fixed")),
        print: |_| duva_engine::DATABASE_COUNT.to_string().into(),
    },
    ConfigOption {
        name: "appendonly",
        section: PERSISTENCE,
        placeholder: "YES/NO",
        default: "yes",
        meaning: "Whether every write is journalled, so that a restart loses none that was acknowledged",
        expects: "\"yes\" or \"no\" (or true or false)",
        form: Form::YesNo,
        change: Change::Start,
        parse: |config, text| value::yes_or_no(text).map(|is_on| config.append_only = is_on),
        print: |config| value::print_yes_or_no(config.append_only).into(),
    },
    ConfigOption {
        name: "appendfsync",
        section: PERSISTENCE,
        placeholder: "WHEN",
        default: "everysec",
        meaning: "When the journal is forced to the disk: always (before a write is acknowledged), everysec (a power \
                  loss costs at most a second) or no (when the kernel likes)",
        expects: "always, everysec or no",
        form: Form::Text,
        change: Change::RunTime,
        parse: |config, text| value::choice(text, &AppendFsync::NAMES).map(|when| config.append_fsync = when),
        print: |config| config.append_fsync.name().into(),
    },
    ConfigOption {
        name: "appenddirname",
        section: PERSISTENCE,
        placeholder: "NAME",
        default: "appendonlydir",
        meaning: "Directory of the journal, a plain name in dir",
        expects: "a plain name of a directory",
        form: Form::Text,
        change: Change::Start,
        parse: |config, text| value::directory_name(text).map(|name| config.append_directory_name = name),
        print: |config| config.append_directory_name.clone().into(),
    },
    ConfigOption {
        name: "segment-size",
        section: PERSISTENCE,
        placeholder: "BYTES",
        default: "64mb",
        meaning: "Bytes of one file of the journal: from 1mb to 1gb, a multiple of 4kb",
        expects: "a number of bytes such as \"64mb\", from 1mb to 1gb",
        form: Form::Bytes,
        change: Change::Start,
        parse: |config, text| {
            let bytes = value::bytes(text, SEGMENT_SIZE_BYTES_MIN.into()..=SEGMENT_SIZE_BYTES_MAX.into())?;
            if !bytes.is_multiple_of(SEGMENT_SIZE_UNIT_BYTES) {
                return Err(Cow::Borrowed("argument must be a multiple of 4096"));
            }
            // Lossless: bounded by a `u32`.
            config.segment_size_bytes = bytes as u32;
            Ok(())
        },
        print: |config| config.segment_size_bytes.to_string().into(),
    },
    ConfigOption {
        name: "auto-aof-rewrite-percentage",
        section: PERSISTENCE,
        placeholder: "PERCENT",
        default: "100",
        meaning: "How far the journal may outgrow the last rewrite before it is rewritten; 0 never rewrites it",
        expects: "an integer from 0 to 2147483647",
        form: Form::Integer,
        change: Change::RunTime,
        parse: |config, text| {
            value::integer(text, 0..=PERCENT_MAX).map(|percent| config.rewrite_growth_percent = percent)
        },
        print: |config| config.rewrite_growth_percent.to_string().into(),
    },
    ConfigOption {
        name: "auto-aof-rewrite-min-size",
        section: PERSISTENCE,
        placeholder: "BYTES",
        default: "64mb",
        meaning: "Bytes that the journal must have before it is rewritten by itself",
        expects: "a number of bytes such as \"64mb\"",
        form: Form::Bytes,
        change: Change::RunTime,
        parse: |config, text| {
            value::bytes(text, 0..=BYTES_MAX).map(|bytes| config.rewrite_size_bytes_min = bytes)
        },
        print: |config| config.rewrite_size_bytes_min.to_string().into(),
    },
    ConfigOption {
        name: "save",
        section: PERSISTENCE,
        placeholder: "POINTS",
        default: "",
        meaning: "When to save a snapshot by itself: pairs of seconds and changes, such as 3600 1 300 100; empty never does",
        expects: "pairs of seconds and changes such as \"3600 1 300 100\"",
        form: Form::List(" "),
        change: Change::RunTime,
        parse: |config, text| value::save_points(text).map(|points| config.save_points = points),
        print: |config| value::print_save_points(&config.save_points).into(),
    },
    ConfigOption {
        name: "dbfilename",
        section: PERSISTENCE,
        placeholder: "NAME",
        default: "dump.rdb",
        meaning: "File of the snapshot that SAVE and BGSAVE write, a plain name in dir",
        expects: "a plain name of a file",
        form: Form::Text,
        change: Change::StartProtected,
        parse: |config, text| value::file_name(text).map(|name| config.snapshot_file_name = name),
        print: |config| config.snapshot_file_name.clone().into(),
    },
    ConfigOption {
        name: "rdbcompression",
        section: PERSISTENCE,
        placeholder: "YES/NO",
        default: "yes",
        meaning: "Whether strings in snapshots are compressed",
        expects: "\"yes\" or \"no\" (or true or false)",
        form: Form::YesNo,
        change: Change::RunTime,
        parse: |config, text| value::yes_or_no(text).map(|is_on| config.snapshot_is_compressed = is_on),
        print: |config| value::print_yes_or_no(config.snapshot_is_compressed).into(),
    },
    ConfigOption {
        name: "rdbchecksum",
        section: PERSISTENCE,
        placeholder: "YES/NO",
        default: "yes",
        meaning: "Whether snapshots end with a checksum, and one that is loaded must have the right one",
        expects: "\"yes\" or \"no\" (or true or false)",
        form: Form::YesNo,
        change: Change::Start,
        parse: |config, text| value::yes_or_no(text).map(|is_on| config.snapshot_has_checksum = is_on),
        print: |config| value::print_yes_or_no(config.snapshot_has_checksum).into(),
    },
    ConfigOption {
        name: "stop-writes-on-bgsave-error",
        section: PERSISTENCE,
        placeholder: "YES/NO",
        default: "yes",
        meaning: "Whether writes are refused while save is set and the last snapshot in the background failed",
        expects: "\"yes\" or \"no\" (or true or false)",
        form: Form::YesNo,
        change: Change::RunTime,
        parse: |config, text| value::yes_or_no(text).map(|is_on| config.stop_writes_on_save_error = is_on),
        print: |config| value::print_yes_or_no(config.stop_writes_on_save_error).into(),
    },
    ConfigOption {
        name: "recover",
        section: PERSISTENCE,
        placeholder: "HOW",
        default: "none",
        meaning: "What to do with a damaged journal at this start: none refuses it, truncate drops what follows the damage, \
                  keeps a copy, and says what was lost; not in a file",
        expects: "none or truncate",
        form: Form::Text,
        change: Change::OneStart,
        parse: |config, text| value::choice(text, &Recovery::NAMES).map(|how| config.recovery = how),
        print: |config| config.recovery.name().into(),
    },
    ConfigOption {
        name: "cluster",
        section: CLUSTER,
        placeholder: "YES/NO",
        default: "no",
        meaning: "Whether this start makes the first node of a cluster, of an empty directory or of one with data; a directory that \
                  belongs to a cluster stays in it whatever is said here",
        expects: "\"yes\" or \"no\" (or true or false)",
        form: Form::Switch,
        change: Change::Start,
        parse: |config, text| value::yes_or_no(text).map(|is_on| config.cluster = is_on),
        print: |config| value::print_yes_or_no(config.cluster).into(),
    },
    ConfigOption {
        name: "join",
        section: CLUSTER,
        placeholder: "HOST:PORT",
        default: "",
        meaning: "Node whose cluster this one joins, by its port for clients; a directory that belongs to a cluster stays in it \
                  whatever is said here",
        expects: "a host and a port such as \"10.0.0.1:6379\"",
        form: Form::Text,
        change: Change::Start,
        parse: |config, text| value::address(text).map(|address| config.join = address),
        print: |config| config.join.clone().unwrap_or_default().into(),
    },
    ConfigOption {
        name: "force-new-cluster",
        section: CLUSTER,
        placeholder: "HOW",
        default: "no",
        meaning: "Whether this start makes its node the only one of a new cluster, because most of the old one's nodes are lost for \
                  good: what only they had acknowledged is lost, and discard-missing gives up shards without a replica here; \
                  not in a file",
        expects: "no, yes or discard-missing",
        form: Form::Switch,
        change: Change::OneStart,
        parse: |config, text| {
            value::choice(text, &ForceNewCluster::NAMES).map(|how| config.force_new_cluster = how)
        },
        print: |config| config.force_new_cluster.name().into(),
    },
    ConfigOption {
        name: "cluster-enabled",
        section: CLUSTER,
        placeholder: "YES/NO",
        default: "no",
        meaning: "Whether the server is a node of a cluster; cluster and join make it one",
        expects: "nothing",
        form: Form::YesNo,
        change: Change::Never,
        parse: |_, _| Err(Cow::Borrowed("cluster or join make a node of a cluster")),
        print: |config| value::print_yes_or_no(config.is_cluster_enabled).into(),
    },
    ConfigOption {
        name: "replication-factor",
        section: CLUSTER,
        placeholder: "COUNT",
        default: "3",
        meaning: "Replicas that every shard is meant to have, from 1 to 7, as far as there are nodes; the cluster's first node decides",
        expects: "an integer from 1 to 7",
        form: Form::Integer,
        change: Change::Start,
        parse: |config, text| {
            let factor = value::short(text, 1..=u16::from(REPLICATION_FACTOR_MAX))?;
            // Lossless: it is in the range.
            config.replication_factor = factor as u8;
            Ok(())
        },
        print: |config| config.replication_factor.to_string().into(),
    },
    ConfigOption {
        name: "peer-port",
        section: CLUSTER,
        placeholder: "PORT",
        default: "(port + 10000)",
        meaning: "TCP port for the cluster's other nodes",
        expects: "an integer from 1 to 65535",
        form: Form::Integer,
        change: Change::Start,
        parse: |config, text| value::short(text, 1..=u16::MAX).map(|port| config.peer_port = port),
        print: |config| config.peer_port.to_string().into(),
    },
    ConfigOption {
        name: "announce-host",
        section: CLUSTER,
        placeholder: "HOST",
        default: "",
        meaning: "Address or name that nodes and clients are told to reach this node by; empty is the first address of bind, or, if \
                  that is all interfaces, the one that a joining node connects from",
        expects: "an IP address or a host name",
        form: Form::Text,
        change: Change::Start,
        parse: |config, text| value::host(text).map(|host| config.announce_host = host),
        print: |config| config.announce_host.clone().unwrap_or_default().into(),
    },
    ConfigOption {
        name: "cluster-routing",
        section: CLUSTER,
        placeholder: "HOW",
        default: "forward",
        meaning: "What becomes of requests for keys that another node leads: forward sends them on, redirect answers MOVED",
        expects: "forward or redirect",
        form: Form::Text,
        change: Change::RunTime,
        parse: |config, text| {
            value::choice(text, &ClusterRouting::NAMES).map(|routing| config.cluster_routing = routing)
        },
        print: |config| config.cluster_routing.name().into(),
    },
    ConfigOption {
        name: "consistency",
        section: CLUSTER,
        placeholder: "LEVEL",
        default: "linearizable",
        meaning: "What reads of new connections promise: linearizable, sequential, session or stale",
        expects: "linearizable, sequential, session or stale",
        form: Form::Text,
        change: Change::RunTime,
        parse: |config, text| {
            value::choice(text, &Consistency::NAMES).map(|level| config.consistency = level)
        },
        print: |config| config.consistency.name().into(),
    },
    ConfigOption {
        name: "session-wait",
        section: CLUSTER,
        placeholder: "MILLISECONDS",
        default: "1000",
        meaning: "Time that a sequential or session read may wait for this node's replica before it goes to the leader",
        expects: "an integer from 0 to 5000",
        form: Form::Integer,
        change: Change::RunTime,
        parse: |config, text| {
            value::integer(text, 0..=SESSION_WAIT_MS_MAX).map(|time_ms| config.session_wait_ms = time_ms)
        },
        print: |config| config.session_wait_ms.to_string().into(),
    },
    ConfigOption {
        name: "raft-durability",
        section: CLUSTER,
        placeholder: "WHERE",
        default: "fsync",
        meaning: "Where a node has a write when it counts towards the majority: fsync, on its disk, or memory, in its page cache",
        expects: "fsync or memory",
        form: Form::Text,
        change: Change::Start,
        parse: |config, text| {
            value::choice(text, &RaftDurability::NAMES).map(|durability| config.raft_durability = durability)
        },
        print: |config| config.raft_durability.name().into(),
    },
    ConfigOption {
        name: "read-mode",
        section: CLUSTER,
        placeholder: "HOW",
        default: "lease",
        meaning: "How a leader knows that it still leads before it answers a read: by a lease, or by read-index, asking a majority",
        expects: "lease or read-index",
        form: Form::Text,
        change: Change::Start,
        parse: |config, text| {
            value::choice(text, &RaftReadMode::NAMES).map(|mode| config.raft_read_mode = mode)
        },
        print: |config| config.raft_read_mode.name().into(),
    },
    ConfigOption {
        name: "election-timeout",
        section: CLUSTER,
        placeholder: "MILLISECONDS",
        default: "150",
        meaning: "Shortest time without a leader before replicas elect one, from 50 to 10000 ms, the longest being twice that; the \
                  same on all nodes",
        expects: "an integer from 50 to 10000",
        form: Form::Integer,
        change: Change::Start,
        parse: |config, text| {
            value::integer(text, ELECTION_TIMEOUT_MS).map(|time_ms| config.election_timeout_min_ms = time_ms)
        },
        print: |config| config.election_timeout_min_ms.to_string().into(),
    },
    ConfigOption {
        name: "hf",
        section: CLUSTER,
        placeholder: "MILLISECONDS",
        default: "100",
        meaning: "Time between two heartbeats by which nodes find out which of them are up",
        expects: "an integer from 10 to 600000",
        form: Form::Integer,
        change: Change::Start,
        parse: |config, text| {
            value::integer(text, 10..=GOSSIP_MS_MAX).map(|time_ms| config.gossip_interval_ms = time_ms)
        },
        print: |config| config.gossip_interval_ms.to_string().into(),
    },
    ConfigOption {
        name: "ttl",
        section: CLUSTER,
        placeholder: "MILLISECONDS",
        default: "1500",
        meaning: "Time that a node may be silent before it is taken to be down, more than hf",
        expects: "an integer from 10 to 600000",
        form: Form::Integer,
        change: Change::Start,
        parse: |config, text| {
            value::integer(text, 10..=GOSSIP_MS_MAX).map(|time_ms| config.gossip_timeout_ms = time_ms)
        },
        print: |config| config.gossip_timeout_ms.to_string().into(),
    },
    ConfigOption {
        name: "max-clock-offset",
        section: CLUSTER,
        placeholder: "MILLISECONDS",
        default: "500",
        meaning: "How far time on a node may run ahead of most nodes' clocks",
        expects: "an integer from 10 to 600000",
        form: Form::Integer,
        change: Change::Start,
        parse: |config, text| {
            value::integer(text, 10..=GOSSIP_MS_MAX).map(|time_ms| config.clock_offset_max_ms = time_ms)
        },
        print: |config| config.clock_offset_max_ms.to_string().into(),
    },
    ConfigOption {
        name: "replace-after",
        section: CLUSTER,
        placeholder: "SECONDS",
        default: "300",
        meaning: "Time that a node may be down, or without a journal, before its replicas are placed elsewhere",
        expects: "an integer from 1 to 2147483647",
        form: Form::Integer,
        change: Change::RunTime,
        parse: |config, text| {
            value::integer(text, 1..=SECONDS_MAX).map(|seconds| config.replace_after_seconds = seconds)
        },
        print: |config| config.replace_after_seconds.to_string().into(),
    },
    ConfigOption {
        name: "loglevel",
        section: LOG,
        placeholder: "LEVEL",
        default: "notice",
        meaning: "Least severe messages to log: debug, verbose, notice, warning or nothing",
        expects: "debug, verbose, notice, warning or nothing",
        form: Form::Text,
        change: Change::RunTime,
        parse: |config, text| value::choice(text, &LogLevel::NAMES).map(|level| config.log_level = level),
        print: |config| config.log_level.name().into(),
    },
    ConfigOption {
        name: "log-format",
        section: LOG,
        placeholder: "FORMAT",
        default: "text",
        meaning: "Form of a log line: text or json",
        expects: "text or json",
        form: Form::Text,
        change: Change::Start,
        parse: |config, text| value::choice(text, &LogFormat::NAMES).map(|format| config.log_format = format),
        print: |config| config.log_format.name().into(),
    },
    ConfigOption {
        name: "logfile",
        section: LOG,
        placeholder: "PATH",
        default: "",
        meaning: "File that log lines are added to, a relative path starting from dir; empty is the standard output",
        expects: "a path",
        form: Form::Text,
        change: Change::Start,
        parse: |config, text| value::path(text).map(|path| config.log_file = path),
        print: |config| print_path(config.log_file.as_deref()),
    },
];

fn print_path(path: Option<&std::path::Path>) -> Vec<u8> {
    path.map_or_else(Vec::new, |path| path.as_os_str().as_encoded_bytes().to_vec())
}
