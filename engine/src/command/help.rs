//! The HELP subcommands' texts.

use crate::Reply;

use super::Command;

/// Writes the HELP of the container that `command` is, or is a subcommand of.
///
/// # Panics
/// If it is no container's: the table has HELP rows for those alone that have a text.
pub fn write(command: &Command, reply: &mut Reply<'_>) {
    let container = command.name.split('|').next().unwrap_or(command.name);
    let (_, lines) = TEXTS.iter().find(|(name, _)| *name == container).expect("every container has its help");
    reply.array(lines.len() + 3);
    let name = container.to_ascii_uppercase();
    reply.simple(&format!("{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    for line in lines.iter().chain(&["HELP", "    This text."]) {
        reply.simple(line);
    }
}

/// A subcommand's line, then indented what it does.
const TEXTS: &[(&str, &[&str])] = &[
    (
        "object",
        &[
            "ENCODING <key>",
            "    The form of the key's value, by the name that Redis",
            "    has for it.",
            "FREQ <key>",
            "    How often the key is accessed, on a logarithmic scale, where the",
            "    eviction policy counts that.",
            "IDLETIME <key>",
            "    The seconds since the key was last",
            "    accessed.",
            "REFCOUNT <key>",
            "    How many references to the key's value",
            "    there are.",
        ],
    ),
    ("memory", &["USAGE <key> [SAMPLES <count>]", "    The bytes that the key and its value take."]),
    (
        "client",
        &[
            "CONSISTENCY [LINEARIZABLE|SEQUENTIAL|SESSION|STALE]",
            "    What the connection's reads promise in a cluster; without an argument, says it.",
            "GETNAME",
            "    The connection's name.",
            "ID",
            "    The connection's number.",
            "INFO",
            "    A line that describes the connection.",
            "KILL <ip:port>",
            "    Closes the connection from this address.",
            "KILL <option> <value> [<option> <value> [...]]",
            "    Closes every connection that fits all options:",
            "    * ID <client-id>",
            "    * ADDR (<ip:port>|<unixsocket>:0), LADDR for the server's side",
            "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
            "    * USER <username>",
            "    * SKIPME (YES|NO): whether this connection is spared (default: yes)",
            "LIST [TYPE (NORMAL|MASTER|REPLICA|PUBSUB)] [ID <client-id> [...]]",
            "    A line for each connection, or for each that fits.",
            "NO-EVICT (ON|OFF)",
            "    Whether the connection is spared when memory for clients runs short.",
            "NO-TOUCH (ON|OFF)",
            "    Whether the connection's reads leave the keys' idle times alone.",
            "PAUSE <timeout> [WRITE|ALL]",
            "    Lets all clients, or those that write, wait for so many milliseconds.",
            "REPLY (ON|OFF|SKIP)",
            "    Whether the connection gets replies; SKIP leaves out the next one.",
            "SETINFO <option> <value>",
            "    Notes the client library's LIB-NAME or LIB-VER.",
            "SETNAME <name>",
            "    Names the connection.",
            "TOPOLOGY (ON|OFF)",
            "    Whether the connection is told when shards' leaders or the cluster's nodes change.",
            "TOKEN [<token>]",
            "    What the connection has seen of each shard; or takes what another one has seen.",
            "UNPAUSE",
            "    Ends a pause.",
        ],
    ),
    (
        "command",
        &[
            "(no subcommand)",
            "    What there is to know about every command.",
            "COUNT",
            "    How many commands there are.",
            "DOCS [<command-name> ...]",
            "    The documentation of some commands, or of all.",
            "GETKEYS <full-command>",
            "    The keys among a command's arguments.",
            "GETKEYSANDFLAGS <full-command>",
            "    The keys among a command's arguments, and what it does with them.",
            "INFO [<command-name> ...]",
            "    What there is to know about some commands, or about all.",
            "LIST [FILTERBY (MODULE <name>|ACLCAT <category>|PATTERN <pattern>)]",
            "    The names of all commands, or of those that fit.",
        ],
    ),
    (
        "config",
        &[
            "GET <pattern> [<pattern> ...]",
            "    The settings whose names match, with their values.",
            "SET <directive> <value> [<directive> <value> ...]",
            "    Changes settings, all of them or none.",
            "RESETSTAT",
            "    Sets the counters of INFO back.",
        ],
    ),
    (
        "cluster",
        &[
            "COUNTKEYSINSLOT <slot>",
            "    How many keys of the slot this node has.",
            "ENTER <cluster-id> <host:port>",
            "    What a node that is met is told by the one that meets it.",
            "FAILOVER [FORCE|TAKEOVER]",
            "    Has this node lead all that it has replicas of. FORCE: although their leaders are lost.",
            "FORGET <node-id>",
            "    Takes the node out of the cluster.",
            "GETKEYSINSLOT <slot> <count>",
            "    Some keys of the slot that this node has.",
            "INFO",
            "    The cluster's state.",
            "JOIN <node-id> <host> <port> <peer-port> [<feature-level>]",
            "    What a node that starts asks of the cluster it joins.",
            "KEYSLOT <key>",
            "    The slot that the key belongs to.",
            "MEET <ip> <port> [<bus-port>]",
            "    Brings the node, with no keys and alone in its cluster, into this one's, or this one into its.",
            "MYID",
            "    This node's id.",
            "MYSHARDID",
            "    The id of the shard that this node is the master of.",
            "NODES",
            "    A line for each node:",
            "    <id> <ip:port> <flags> <master> <pings> <pongs> <epoch> <link> <slot> ...",
            "REPLICAS <node-id>",
            "    The nodes with replicas of what the node leads.",
            "SHARDS",
            "    The nodes with the slots that they have in common.",
            "SLAVES <node-id>",
            "    The older name of REPLICAS.",
            "SLOTS",
            "    Who has which slots: ranges with the leader and the replicas.",
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Protocol, command::all};

    #[test]
    fn every_container_has_help_that_names_its_subcommands() {
        for container in all().iter().filter(|command| !command.subcommands.is_empty()) {
            let mut output = Vec::new();
            let row = container.subcommand(b"HELP").expect("a HELP row");
            write(row, &mut Reply::new(&mut output, Protocol::Resp2));
            let text = String::from_utf8(output).expect("text");
            for subcommand in container.subcommands {
                let name = subcommand.own_name().to_ascii_uppercase();
                assert!(text.contains(&format!("\r\n+{name}")), "{}", subcommand.name);
            }
        }
    }
}
