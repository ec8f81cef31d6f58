//! Rows of the commands about the server, and the name of everything that the server executes itself.

use super::{
    Categories, Command, Docs, Flags, Run,
    docs::{block, integer, one_of, string, word},
    object::{container, help},
};

/// What the server executes: one variant a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerCommand {
    /// PING.
    Ping,
    /// ECHO.
    Echo,
    /// HELLO.
    Hello,
    /// SELECT.
    Select,
    /// QUIT.
    Quit,
    /// RESET.
    Reset,
    /// AUTH.
    Auth,
    /// CLIENT ID.
    ClientId,
    /// CLIENT GETNAME.
    ClientGetName,
    /// CLIENT SETNAME.
    ClientSetName,
    /// CLIENT SETINFO.
    ClientSetInfo,
    /// CLIENT INFO.
    ClientInfo,
    /// CLIENT LIST.
    ClientList,
    /// CLIENT KILL.
    ClientKill,
    /// CLIENT REPLY.
    ClientReply,
    /// CLIENT PAUSE.
    ClientPause,
    /// CLIENT UNPAUSE.
    ClientUnpause,
    /// CLIENT NO-EVICT.
    ClientNoEvict,
    /// CLIENT NO-TOUCH.
    ClientNoTouch,
    /// CLIENT TOPOLOGY.
    ClientTopology,
    /// SUBSCRIBE.
    Subscribe,
    /// UNSUBSCRIBE.
    Unsubscribe,
    /// CLIENT CONSISTENCY.
    ClientConsistency,
    /// CLIENT TOKEN.
    ClientToken,
    /// COMMAND and its subcommands but HELP: [`introspect::command_command`](super::introspect::command_command).
    Command,
    /// CONFIG GET.
    ConfigGet,
    /// CONFIG SET.
    ConfigSet,
    /// CONFIG RESETSTAT.
    ConfigResetStat,
    /// INFO.
    Info,
    /// TIME.
    Time,
    /// LOLWUT.
    Lolwut,
    /// WAIT.
    Wait,
    /// SHUTDOWN.
    Shutdown,
    /// SAVE.
    Save,
    /// BGSAVE.
    BackgroundSave,
    /// LASTSAVE.
    LastSave,
    /// BGREWRITEAOF.
    BackgroundRewrite,
    /// CLUSTER KEYSLOT.
    ClusterKeySlot,
    /// What a node knows of its cluster: CLUSTER SLOTS, SHARDS, NODES, INFO, MYID, MYSHARDID, REPLICAS, SLAVES.
    ClusterView,
    /// CLUSTER COUNTKEYSINSLOT and GETKEYSINSLOT.
    ClusterSlotKeys,
    /// What changes a cluster: CLUSTER FORGET, JOIN, FAILOVER, MEET and ENTER.
    ClusterChange,
    /// READONLY and READWRITE.
    ReadMode,
    /// ASKING.
    Asking,
    /// Any container's HELP: [`help::write`](super::help::write). Also the row of a container that does
    /// nothing alone; its arity refuses that before.
    Help,
}

pub(super) const COMMANDS: &[Command] = &[
    row("info", -1, ServerCommand::Info, "1.0.0", "O(1)", "Describes the server's state.")
        .arguments(&[string("section").multiple().optional()])
        .history(&[("7.0.0", "Takes several sections.")])
        .flags(&[Flags::LOADING, Flags::STALE])
        .categories(Categories::DANGEROUS)
        .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"]),
    row("time", 1, ServerCommand::Time, "2.6.0", "O(1)", "Returns the server's clock.")
        .flags(&[Flags::LOADING, Flags::STALE, Flags::FAST])
        .tips(&["nondeterministic_output"]),
    row("lolwut", -1, ServerCommand::Lolwut, "5.0.0", "", "Draws something, and names the version.")
        .arguments(&[integer("version").after("VERSION").optional()])
        .flags(&[Flags::READONLY, Flags::FAST]),
    Command::new(
        "wait",
        3,
        Run::Server(ServerCommand::Wait),
        Docs::new("generic", "3.0.0", "O(1)", "Waits until replicas have the connection's writes.")
            .with(&[integer("numreplicas"), integer("timeout")]),
    )
    .flags(&[Flags::NOSCRIPT])
    .categories(Categories::CONNECTION)
    .tips(&["request_policy:all_shards", "response_policy:agg_min"]),
    row(
        "shutdown",
        -1,
        ServerCommand::Shutdown,
        "1.0.0",
        "O(N) when it saves, where N is the number of keys; else O(1)",
        "Ends the server.",
    )
    .arguments(&[
        one_of("nosave_save", &[word("nosave", "NOSAVE"), word("save", "SAVE")]).optional(),
        word("now", "NOW").since("7.0.0").optional(),
        word("force", "FORCE").since("7.0.0").optional(),
        word("abort", "ABORT").since("7.0.0").optional(),
    ])
    .history(&[("7.0.0", "Takes `NOW`, `FORCE` and `ABORT`.")])
    .flags(&[
        Flags::ADMIN,
        Flags::NOSCRIPT,
        Flags::LOADING,
        Flags::STALE,
        Flags::NO_MULTI,
        Flags::ALLOW_BUSY,
    ]),
    row(
        "save",
        1,
        ServerCommand::Save,
        "1.0.0",
        "O(N) where N is the number of keys",
        "Saves a snapshot, and replies when it is saved.",
    )
    .flags(&[Flags::ADMIN, Flags::NOSCRIPT, Flags::NO_ASYNC_LOADING, Flags::NO_MULTI]),
    row("bgsave", -1, ServerCommand::BackgroundSave, "1.0.0", "O(1)", "Begins to save a snapshot.")
        .arguments(&[word("schedule", "SCHEDULE").since("3.2.2").optional()])
        .history(&[("3.2.2", "Takes `SCHEDULE`.")])
        .flags(&[Flags::ADMIN, Flags::NOSCRIPT, Flags::NO_ASYNC_LOADING]),
    row("lastsave", 1, ServerCommand::LastSave, "1.0.0", "O(1)", "Returns when the last snapshot was saved.")
        .flags(&[Flags::LOADING, Flags::STALE, Flags::FAST])
        .categories(Categories::ADMIN.and(Categories::DANGEROUS))
        .tips(&["nondeterministic_output"]),
    row(
        "bgrewriteaof",
        1,
        ServerCommand::BackgroundRewrite,
        "1.0.0",
        "O(1)",
        "Begins to rewrite the journal.",
    )
    .flags(&[Flags::ADMIN, Flags::NOSCRIPT, Flags::NO_ASYNC_LOADING]),
    container("config", "server", "2.0.0", "The server's settings.").subcommands(CONFIG),
    container("cluster", "cluster", "3.0.0", "The cluster's slots and nodes.").subcommands(CLUSTER),
    cluster(
        "readonly",
        1,
        ServerCommand::ReadMode,
        "3.0.0",
        "O(1)",
        "Lets the connection read from replicas.",
    )
    .flags(READ_MODE)
    .categories(Categories::CONNECTION),
    cluster(
        "readwrite",
        1,
        ServerCommand::ReadMode,
        "3.0.0",
        "O(1)",
        "Lets the connection read from leaders alone, as at first.",
    )
    .flags(READ_MODE)
    .categories(Categories::CONNECTION),
    cluster(
        "asking",
        1,
        ServerCommand::Asking,
        "3.0.0",
        "O(1)",
        "Says that the next command was sent on by an ASK error; no node answers one.",
    )
    .flags(&[Flags::FAST])
    .categories(Categories::CONNECTION),
];

const READ_MODE: &[Flags] = &[Flags::LOADING, Flags::STALE, Flags::FAST];

const CONFIG: &[Command] = &[
    config(
        "config|get",
        -3,
        ServerCommand::ConfigGet,
        "O(N) where N is the number of patterns",
        "Returns the settings that match patterns.",
    )
    .arguments(&[block("parameter", &[string("parameter")]).multiple()])
    .history(&[("7.0.0", "Takes several patterns.")]),
    config(
        "config|set",
        -4,
        ServerCommand::ConfigSet,
        "O(N) where N is the number of settings",
        "Changes settings, all of them or none.",
    )
    .arguments(&[block("parameter_value", &[string("parameter"), string("value")]).multiple()])
    .history(&[("7.0.0", "Takes several settings.")])
    .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
    config("config|resetstat", 2, ServerCommand::ConfigResetStat, "O(1)", "Sets the counters of INFO back."),
    help("config|help", "server", "5.0.0"),
];

const CLUSTER: &[Command] = &[
    cluster(
        "cluster|keyslot",
        3,
        ServerCommand::ClusterKeySlot,
        "3.0.0",
        "O(N) where N is the length of the key",
        "Returns the slot that a key belongs to.",
    )
    .arguments(&[string("key")])
    .flags(&[Flags::STALE]),
    cluster(
        "cluster|countkeysinslot",
        3,
        ServerCommand::ClusterSlotKeys,
        "3.0.0",
        "O(1)",
        "Counts the keys of a slot that this node has.",
    )
    .arguments(&[integer("slot")])
    .flags(&[Flags::STALE]),
    cluster(
        "cluster|getkeysinslot",
        4,
        ServerCommand::ClusterSlotKeys,
        "3.0.0",
        "O(N) where N is the number of keys asked for",
        "Returns keys of a slot that this node has.",
    )
    .arguments(&[integer("slot"), integer("count")])
    .flags(&[Flags::STALE])
    .tips(&["nondeterministic_output"]),
    cluster_view("cluster|slots", 2, "3.0.0", "Returns who has which slots.")
        .deprecated("7.0.0", "`CLUSTER SHARDS`")
        .history(&[
            ("4.0.0", "Names the nodes by their ids, too."),
            ("7.0.0", "Has room for more about networks."),
        ]),
    cluster_view("cluster|shards", 2, "7.0.0", "Returns the nodes with the slots that they have in common."),
    cluster_view("cluster|nodes", 2, "3.0.0", "Describes every node in a line."),
    cluster_view("cluster|info", 2, "3.0.0", "Describes the cluster's state."),
    cluster("cluster|myid", 2, ServerCommand::ClusterView, "3.0.0", "O(1)", "Returns this node's id.")
        .flags(&[Flags::STALE]),
    cluster(
        "cluster|myshardid",
        2,
        ServerCommand::ClusterView,
        "7.2.0",
        "O(1)",
        "Returns the id of the shard that this node is the master of.",
    )
    .flags(&[Flags::STALE]),
    cluster_view("cluster|replicas", 3, "5.0.0", "Describes the nodes with replicas of what a node leads.")
        .arguments(&[string("node-id")])
        .flags(&[Flags::ADMIN, Flags::STALE]),
    cluster_view("cluster|slaves", 3, "3.0.0", "The older name of REPLICAS.")
        .arguments(&[string("node-id")])
        .flags(&[Flags::ADMIN, Flags::STALE])
        .deprecated("5.0.0", "`CLUSTER REPLICAS`"),
    cluster_change("cluster|meet", -4, "3.0.0", "Brings another node, with no keys, into the cluster.")
        .arguments(&[string("ip"), integer("port"), integer("cluster-bus-port").since("4.0.0").optional()])
        .history(&[("4.0.0", "Takes the port of the node's bus, too.")]),
    cluster_change(
        "cluster|enter",
        4,
        "7.0.0",
        "Has a node without keys give up its own cluster for another.",
    )
    .arguments(&[string("cluster-id"), string("address")]),
    cluster_change("cluster|failover", -2, "3.0.0", "Has this node lead all that it has replicas of.")
        .arguments(&[one_of("options", &[word("force", "FORCE"), word("takeover", "TAKEOVER")]).optional()]),
    cluster_change("cluster|forget", 3, "3.0.0", "Takes a node out of the cluster.")
        .arguments(&[string("node-id")]),
    cluster_change("cluster|join", -6, "7.0.0", "Lets a node that starts into the cluster.").arguments(&[
        string("node-id"),
        string("host"),
        integer("port"),
        integer("peer-port"),
        integer("feature-level").optional(),
    ]),
    help("cluster|help", "cluster", "5.0.0"),
];

const fn cluster(
    name: &'static str,
    arity: i16,
    command: ServerCommand,
    since: &'static str,
    complexity: &'static str,
    summary: &'static str,
) -> Command {
    Command::new(name, arity, Run::Server(command), Docs::new("cluster", since, complexity, summary))
}

const fn cluster_view(name: &'static str, arity: i16, since: &'static str, summary: &'static str) -> Command {
    let complexity = "O(N) where N is the number of shards, or of nodes";
    cluster(name, arity, ServerCommand::ClusterView, since, complexity, summary)
        .flags(&[Flags::STALE])
        .tips(&["nondeterministic_output"])
}

const fn cluster_change(
    name: &'static str,
    arity: i16,
    since: &'static str,
    summary: &'static str,
) -> Command {
    cluster(name, arity, ServerCommand::ClusterChange, since, "O(1)", summary).flags(&[
        Flags::ADMIN,
        Flags::STALE,
        Flags::NO_ASYNC_LOADING,
    ])
}

const fn row(
    name: &'static str,
    arity: i16,
    command: ServerCommand,
    since: &'static str,
    complexity: &'static str,
    summary: &'static str,
) -> Command {
    Command::new(name, arity, Run::Server(command), Docs::new("server", since, complexity, summary))
}

const fn config(
    name: &'static str,
    arity: i16,
    command: ServerCommand,
    complexity: &'static str,
    summary: &'static str,
) -> Command {
    row(name, arity, command, "2.0.0", complexity, summary).flags(&[
        Flags::ADMIN,
        Flags::NOSCRIPT,
        Flags::LOADING,
        Flags::STALE,
    ])
}
