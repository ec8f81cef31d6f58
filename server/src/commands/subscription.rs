//! SUBSCRIBE, UNSUBSCRIBE and CLIENT TOPOLOGY: being told of changes of leaders and nodes.
//!
//! There is one channel. Confirmations are messages, as in Redis: RESP3 pushes, which CLIENT REPLY does not suppress.

use duva_engine::{Protocol, Reply, command::Command};

use super::{Flow, cluster::DISABLED, error, reply};
use crate::core::{
    connection::{Connection, State},
    node::Node,
    request::Request,
};

/// The channel about leaders and nodes.
pub(crate) const CHANNEL: &[u8] = b"__duva__:topology";

/// Whether a connection may send this that has subscribed in RESP2.
pub(crate) fn is_for_subscribers(command: &Command) -> bool {
    matches!(command.name, "subscribe" | "unsubscribe" | "ping" | "quit" | "reset")
}

pub(super) fn subscribe(node: &mut Node, connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    if node.cluster_view.is_none() {
        return error(connection, DISABLED);
    }
    let args = request.args();
    if (1..args.len()).any(|index| args.get(index) != CHANNEL) {
        return error(connection, "ERR There is no channel but __duva__:topology");
    }
    connection.state.insert(State::SUBSCRIBED);
    node.has_topology_watchers = true;
    for _ in 1..args.len() {
        confirm(connection, b"subscribe", Some(CHANNEL));
    }
    Flow::Next
}

pub(super) fn unsubscribe(connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    let args = request.args();
    if args.len() == 1 {
        let channel = connection.state.any(State::SUBSCRIBED).then_some(CHANNEL);
        connection.state.remove(State::SUBSCRIBED);
        confirm(connection, b"unsubscribe", channel);
    }
    for index in 1..args.len() {
        if args.get(index) == CHANNEL {
            connection.state.remove(State::SUBSCRIBED);
        }
        confirm(connection, b"unsubscribe", Some(args.get(index)));
    }
    Flow::Next
}

fn confirm(connection: &mut Connection, kind: &[u8], channel: Option<&[u8]>) {
    let protocol = connection.protocol;
    let count = i64::from(connection.state.any(State::SUBSCRIBED));
    connection.push_with(|output| {
        let mut reply = Reply::new(output, protocol);
        reply.push(3);
        reply.bulk(kind);
        match channel {
            Some(channel) => reply.bulk(channel),
            None => reply.null(),
        }
        reply.integer(count);
    });
}

/// CLIENT TOPOLOGY: ON or OFF.
pub(super) fn set_topology(node: &mut Node, connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    let args = request.args();
    let value = args.get(2);
    let is_on = value.eq_ignore_ascii_case(b"on");
    if !is_on && !value.eq_ignore_ascii_case(b"off") {
        return error(connection, "ERR syntax error");
    }
    if is_on && node.cluster_view.is_none() {
        return error(connection, DISABLED);
    }
    if is_on && connection.protocol != Protocol::Resp3 {
        return error(
            connection,
            "ERR Pushes need RESP3: send HELLO 3 before, or SUBSCRIBE to __duva__:topology",
        );
    }
    connection.state.set(State::TOPOLOGY, is_on);
    node.has_topology_watchers |= is_on;
    reply(connection, |reply| reply.ok())
}
