//! Rows of the commands about connections. The server executes them: a connection is nothing that the engine knows.

use super::{
    Argument, Categories, Command, Docs, Flags, Run, ServerCommand,
    docs::{block, integer, one_of, string, word},
    object::{container, help},
};

pub(super) const COMMANDS: &[Command] = &[
    row("ping", -1, ServerCommand::Ping, "1.0.0", "Answers PONG, or what it was given.")
        .arguments(&[string("message").optional()])
        .flags(&[Flags::FAST])
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"]),
    row("echo", 2, ServerCommand::Echo, "1.0.0", "Answers what it was given.")
        .arguments(&[string("message")])
        .flags(&[Flags::LOADING, Flags::STALE, Flags::FAST]),
    row(
        "hello",
        -1,
        ServerCommand::Hello,
        "6.0.0",
        "Agrees on a protocol version, and says what the server is.",
    )
    .arguments(&[block(
        "arguments",
        &[
            integer("protover"),
            block("username_password", &[string("username"), string("password")]).after("AUTH").optional(),
            string("clientname").after("SETNAME").optional(),
        ],
    )
    .optional()])
    .history(&[("6.2.0", "The version may be left out: then it only says what the connection is.")])
    .flags(HANDSHAKE),
    row("select", 2, ServerCommand::Select, "1.0.0", "Selects the connection's database.")
        .arguments(&[integer("index")])
        .flags(&[Flags::LOADING, Flags::STALE, Flags::FAST]),
    row("quit", -1, ServerCommand::Quit, "1.0.0", "Closes the connection.").flags(HANDSHAKE),
    row("reset", 1, ServerCommand::Reset, "6.2.0", "Makes the connection as new.").flags(HANDSHAKE),
    row("auth", -2, ServerCommand::Auth, "1.0.0", "Authenticates the connection.")
        .arguments(&[string("username").since("6.0.0").optional(), string("password")])
        .history(&[("6.0.0", "Takes a user's name.")])
        .flags(HANDSHAKE),
    container("client", "connection", "2.4.0", "About connections.").subcommands(CLIENT),
    channels(
        "subscribe",
        -2,
        ServerCommand::Subscribe,
        "Sends the connection what is published on channels.",
    )
    .arguments(&[string("channel").multiple()]),
    channels("unsubscribe", -1, ServerCommand::Unsubscribe, "Ends that, for some channels or for all.")
        .arguments(&[string("channel").multiple().optional()]),
];

const HANDSHAKE: &[Flags] =
    &[Flags::NOSCRIPT, Flags::LOADING, Flags::STALE, Flags::FAST, Flags::NO_AUTH, Flags::ALLOW_BUSY];

const CLIENT: &[Command] = &[
    client("client|id", 2, ServerCommand::ClientId, "5.0.0", "Returns the connection's number."),
    client("client|getname", 2, ServerCommand::ClientGetName, "2.6.9", "Returns the connection's name."),
    client("client|setname", 3, ServerCommand::ClientSetName, "2.6.9", "Names the connection.")
        .arguments(&[string("connection-name")]),
    client(
        "client|setinfo",
        4,
        ServerCommand::ClientSetInfo,
        "7.2.0",
        "Notes the client library's name or version.",
    )
    .arguments(&[one_of("attr", &[string("libname").after("LIB-NAME"), string("libver").after("LIB-VER")])])
    .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
    client("client|info", 2, ServerCommand::ClientInfo, "6.2.0", "Describes the connection.")
        .tips(&["nondeterministic_output"]),
    client("client|list", -2, ServerCommand::ClientList, "2.4.0", "Describes every connection, or some.")
        .arguments(&[
            one_of(
                "normal_master_replica_pubsub",
                &[
                    word("normal", "NORMAL"),
                    word("master", "MASTER"),
                    word("replica", "REPLICA"),
                    word("pubsub", "PUBSUB"),
                ],
            )
            .after("TYPE")
            .since("5.0.0")
            .optional(),
            block("id", &[integer("client-id").multiple()]).after("ID").since("6.2.0").optional(),
        ])
        .history(&[
            ("2.8.12", "Says `id`."),
            ("5.0.0", "Takes `TYPE`."),
            ("6.0.0", "Says `user`."),
            ("6.2.0", "Says `argv-mem`, `tot-mem`, `laddr` and `redir`, and takes `ID`."),
            ("7.0.0", "Says `resp`, `multi-mem`, `rbs` and `rbp`."),
            ("7.0.3", "Says `ssub`."),
        ])
        .flags(&[Flags::ADMIN])
        .tips(&["nondeterministic_output"]),
    client("client|kill", -3, ServerCommand::ClientKill, "2.4.0", "Closes connections.")
        .arguments(&[one_of(
            "filter",
            &[
                string("ip:port").deprecated_since("2.8.12"),
                one_of(
                    "new-format",
                    &[
                        integer("client-id").after("ID").since("2.8.12").optional(),
                        one_of(
                            "normal_master_slave_pubsub",
                            &[
                                word("normal", "NORMAL"),
                                word("master", "MASTER").since("3.2.0"),
                                word("slave", "SLAVE"),
                                word("replica", "REPLICA").since("5.0.0"),
                                word("pubsub", "PUBSUB"),
                            ],
                        )
                        .after("TYPE")
                        .since("2.8.12")
                        .optional(),
                        string("username").after("USER").optional(),
                        string("ip:port").after("ADDR").optional(),
                        string("ip:port").after("LADDR").since("6.2.0").optional(),
                        string("yes/no").after("SKIPME").optional(),
                    ],
                )
                .multiple(),
            ],
        )])
        .history(&[
            ("2.8.12", "Takes options."),
            ("2.8.12", "Takes `ID`."),
            ("3.2.0", "`TYPE` may be `MASTER`."),
            ("5.0.0", "`TYPE` may be `REPLICA`, which `SLAVE` still means."),
            ("6.2.0", "Takes `LADDR`."),
        ])
        .flags(&[Flags::ADMIN]),
    client(
        "client|reply",
        3,
        ServerCommand::ClientReply,
        "3.2.0",
        "Says whether the connection wants replies.",
    )
    .arguments(&[one_of("on_off_skip", &[word("on", "ON"), word("off", "OFF"), word("skip", "SKIP")])]),
    client("client|pause", -3, ServerCommand::ClientPause, "2.9.50", "Lets clients wait for a while.")
        .arguments(&[
            integer("timeout"),
            one_of("mode", &[word("write", "WRITE"), word("all", "ALL")]).since("6.2.0").optional(),
        ])
        .history(&[("6.2.0", "Takes `WRITE` and `ALL`.")])
        .flags(&[Flags::ADMIN]),
    client("client|unpause", 2, ServerCommand::ClientUnpause, "6.2.0", "Ends a pause.")
        .flags(&[Flags::ADMIN]),
    client(
        "client|no-evict",
        3,
        ServerCommand::ClientNoEvict,
        "7.0.0",
        "Keeps the connection from being evicted.",
    )
    .arguments(ON_OFF)
    .flags(&[Flags::ADMIN]),
    client(
        "client|no-touch",
        3,
        ServerCommand::ClientNoTouch,
        "7.2.0",
        "Keeps reads from counting as accesses.",
    )
    .arguments(ON_OFF),
    client(
        "client|topology",
        3,
        ServerCommand::ClientTopology,
        "7.0.0",
        "Sends the connection a push whenever shards' leaders or the cluster's nodes change.",
    )
    .arguments(ON_OFF),
    client(
        "client|consistency",
        -2,
        ServerCommand::ClientConsistency,
        "7.2.0",
        "Says or changes what the connection's reads promise.",
    )
    .arguments(&[one_of(
        "level",
        &[
            word("linearizable", "LINEARIZABLE"),
            word("sequential", "SEQUENTIAL"),
            word("session", "SESSION"),
            word("stale", "STALE"),
        ],
    )
    .optional()]),
    client(
        "client|token",
        -2,
        ServerCommand::ClientToken,
        "7.2.0",
        "Gives or takes what a connection has seen of each shard.",
    )
    .arguments(&[string("token").optional()]),
    help("client|help", "connection", "5.0.0").categories(Categories::CONNECTION),
];

const ON_OFF: &[Argument] = &[one_of("enabled", &[word("on", "ON"), word("off", "OFF")])];

const fn row(
    name: &'static str,
    arity: i16,
    command: ServerCommand,
    since: &'static str,
    summary: &'static str,
) -> Command {
    Command::new(name, arity, Run::Server(command), Docs::new("connection", since, "O(1)", summary))
        .categories(Categories::CONNECTION)
}

/// A command about the one channel that there is.
const fn channels(name: &'static str, arity: i16, command: ServerCommand, summary: &'static str) -> Command {
    let docs = Docs::new("pubsub", "2.0.0", "O(N) where N is the number of channels", summary);
    Command::new(name, arity, Run::Server(command), docs).categories(Categories::PUBSUB).flags(&[
        Flags::PUBSUB,
        Flags::NOSCRIPT,
        Flags::LOADING,
        Flags::STALE,
    ])
}

const fn client(
    name: &'static str,
    arity: i16,
    command: ServerCommand,
    since: &'static str,
    summary: &'static str,
) -> Command {
    row(name, arity, command, since, summary).flags(&[Flags::NOSCRIPT, Flags::LOADING, Flags::STALE])
}
