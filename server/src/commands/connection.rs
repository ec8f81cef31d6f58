//! Commands about the connection itself: PING, HELLO, AUTH, SELECT, RESET and their kin.

use duva_engine::{DATABASE_COUNT, Protocol, command, parse_i64};

use super::{Flow, error, reply};
use crate::core::{
    connection::{Connection, Identity, State},
    node::Node,
    request::Request,
};

pub(super) fn ping(connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    let args = request.args();
    match args.len() {
        length @ (1 | 2) if connection.takes_only_messages() => {
            let message: &[u8] = if length == 2 { args.get(1) } else { b"" };
            reply(connection, |reply| {
                reply.array(2);
                reply.bulk(b"pong");
                reply.bulk(message);
            })
        }
        1 => reply(connection, |reply| reply.simple("PONG")),
        2 => reply(connection, |reply| reply.bulk(args.get(1))),
        _ => error(connection, "ERR wrong number of arguments for 'ping' command"),
    }
}

pub(super) fn echo(connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    let args = request.args();
    reply(connection, |reply| reply.bulk(args.get(1)))
}

pub(super) fn select(connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    match parse_i64(request.args().get(1)) {
        None => error(connection, "ERR value is not an integer or out of range"),
        Some(number) if i32::try_from(number).is_err() => {
            error(connection, "ERR value is out of range, value must between -2147483648 and 2147483647")
        }
        Some(number) if (0..i64::from(DATABASE_COUNT)).contains(&number) => {
            connection.database = number as u8;
            reply(connection, |reply| reply.ok())
        }
        Some(_) => error(connection, "ERR DB index is out of range"),
    }
}

pub(super) fn quit(connection: &mut Connection) -> Flow {
    reply(connection, |reply| reply.ok());
    connection.state.insert(State::CLOSE_AFTER_REPLY);
    Flow::Stop
}

pub(super) fn reset(node: &Node, connection: &mut Connection) -> Flow {
    connection.database = 0;
    connection.protocol = Protocol::Resp2;
    let modes = State::NO_EVICT.and(State::NO_TOUCH).and(State::READ_ONLY).and(State::TRACKED);
    let modes = modes.and(State::TOPOLOGY).and(State::SUBSCRIBED);
    connection.state.remove(modes.and(State::REPLY_OFF));
    connection.state.set_consistency(node.config.consistency);
    connection.state.set(State::AUTHENTICATED, node.config.password.is_empty());
    if let Some(identity) = &mut connection.identity {
        identity.name.clear();
        identity.session = Default::default();
    }
    reply(connection, |reply| reply.simple("RESET"))
}

pub(super) fn auth(node: &Node, connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    let args = request.args();
    let (user, password) = match args.len() {
        2 => (&b"default"[..], args.get(1)),
        3 => (args.get(1), args.get(2)),
        _ => return error(connection, "ERR syntax error"),
    };
    if args.len() == 2 && node.config.password.is_empty() {
        return error(
            connection,
            "ERR AUTH <password> called without any password configured for the default user. \
             Are you sure your configuration is correct?",
        );
    }
    if authenticate(node, connection, user, password) {
        reply(connection, |reply| reply.ok())
    } else {
        error(connection, WRONG_PASSWORD)
    }
}

const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";

fn authenticate(node: &Node, connection: &mut Connection, user: &[u8], password: &[u8]) -> bool {
    let accepted =
        user == b"default" && (node.config.password.is_empty() || node.config.password.matches(password));
    if accepted {
        connection.state.insert(State::AUTHENTICATED);
    }
    accepted
}

pub(super) fn hello(node: &Node, connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    let args = request.args();
    let mut protocol = None;
    if args.len() > 1 {
        match parse_i64(args.get(1)) {
            None => {
                return error(connection, "ERR Protocol version is not an integer or out of range");
            }
            Some(2) => protocol = Some(Protocol::Resp2),
            Some(3) => protocol = Some(Protocol::Resp3),
            Some(_) => return error(connection, "NOPROTO unsupported protocol version"),
        }
    }
    let mut index = 2;
    while index < args.len() {
        let left = args.len() - index - 1;
        let option = args.get(index);
        if option.eq_ignore_ascii_case(b"auth") && left >= 2 {
            if !authenticate(node, connection, args.get(index + 1), args.get(index + 2)) {
                return error(connection, WRONG_PASSWORD);
            }
            index += 3;
        } else if option.eq_ignore_ascii_case(b"setname") && left >= 1 {
            if !is_printable(args.get(index + 1)) {
                return error(connection, super::client::BAD_NAME);
            }
            // It stays, as in Redis, even if what follows is refused.
            identity(connection).name = args.get(index + 1).to_vec();
            index += 2;
        } else {
            let mut text = b"ERR Syntax error in HELLO option '".to_vec();
            text.extend_from_slice(option);
            text.push(b'\'');
            return super::error_bytes(connection, &text);
        }
    }
    if !connection.state.any(State::AUTHENTICATED) {
        return error(
            connection,
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> \
             <pass> option can be used to authenticate the client and select the RESP protocol version at the same time",
        );
    }
    if let Some(protocol) = protocol {
        connection.protocol = protocol;
    }
    let id = connection.id as i64;
    let version = if connection.protocol == Protocol::Resp3 { 3 } else { 2 };
    let mode = if node.cluster_view.is_some() { "cluster" } else { "standalone" };
    reply(connection, |reply| {
        reply.map(7);
        for (name, value) in [("server", "redis"), ("version", super::REDIS_VERSION)] {
            reply.bulk(name.as_bytes());
            reply.bulk(value.as_bytes());
        }
        reply.bulk(b"proto");
        reply.integer(version);
        reply.bulk(b"id");
        reply.integer(id);
        for (name, value) in [("mode", mode), ("role", "master")] {
            reply.bulk(name.as_bytes());
            reply.bulk(value.as_bytes());
        }
        reply.bulk(b"modules");
        reply.array(0);
    })
}

pub(super) fn command(connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    let args = request.args();
    reply(connection, |reply| command::introspect::command_command(&args, reply))
}

/// The names that a connection gave itself.
pub(super) fn identity(connection: &mut Connection) -> &mut Identity {
    connection.identity.get_or_insert_default()
}

/// Whether a name has no spaces, line breaks or other bytes that would garble CLIENT LIST.
pub(super) fn is_printable(name: &[u8]) -> bool {
    name.iter().all(|byte| (b'!'..=b'~').contains(byte))
}
