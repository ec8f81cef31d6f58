//! CLIENT: what a connection says of itself, and what it asks of others.

use duva_engine::parse_i64;

use super::{
    Flow,
    connection::{identity, is_printable},
    error, error_bytes, reply,
};
use crate::config::Consistency;
use crate::core::{
    admin::{AdminPurpose, AdminRequest, ClientFilter, ClientRow, Pause},
    connection::{Connection, State},
    node::Node,
    request::Request,
};

pub(super) const BAD_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";

const SYNTAX: &str = "ERR syntax error";

pub(super) fn id(connection: &mut Connection) -> Flow {
    let id = connection.id as i64;
    reply(connection, |reply| reply.integer(id))
}

pub(super) fn get_name(connection: &mut Connection) -> Flow {
    let name = connection.identity.as_ref().map(|identity| identity.name.clone()).unwrap_or_default();
    reply(connection, |reply| if name.is_empty() { reply.null() } else { reply.bulk(&name) })
}

pub(super) fn set_name(connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    let args = request.args();
    if !is_printable(args.get(2)) {
        return error(connection, BAD_NAME);
    }
    identity(connection).name = args.get(2).to_vec();
    reply(connection, |reply| reply.ok())
}

pub(super) fn set_info(connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    let args = request.args();
    let (attribute, value) = (args.get(2), args.get(3));
    let (field, shown) = if attribute.eq_ignore_ascii_case(b"lib-name") {
        (&mut identity(connection).library_name, "lib-name")
    } else if attribute.eq_ignore_ascii_case(b"lib-ver") {
        (&mut identity(connection).library_version, "lib-ver")
    } else {
        let mut text = b"ERR Unrecognized option '".to_vec();
        text.extend_from_slice(attribute);
        text.push(b'\'');
        return error_bytes(connection, &text);
    };
    if !is_printable(value) {
        let text = format!("ERR {shown} cannot contain spaces, newlines or special characters.");
        return error(connection, &text);
    }
    *field = value.to_vec();
    reply(connection, |reply| reply.ok())
}

/// CLIENT NO-EVICT, CLIENT NO-TOUCH: ON or OFF.
pub(super) fn set_flag(connection: &mut Connection, request: &mut Request<'_>, flag: State) -> Flow {
    let args = request.args();
    let value = args.get(2);
    let is_on = value.eq_ignore_ascii_case(b"on");
    if !is_on && !value.eq_ignore_ascii_case(b"off") {
        return error(connection, SYNTAX);
    }
    connection.state.set(flag, is_on);
    reply(connection, |reply| reply.ok())
}

/// CLIENT CONSISTENCY: says or changes what the connection's reads promise. Without a cluster all levels read the same.
pub(super) fn consistency(connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    let args = request.args();
    match args.len() {
        2 => {
            let name = connection.consistency().name();
            reply(connection, |reply| reply.bulk(name.as_bytes()))
        }
        3 => {
            let Some(level) = Consistency::of_name(args.get(2)) else {
                return error(connection, "ERR The level must be LINEARIZABLE, SEQUENTIAL, SESSION or STALE");
            };
            // What is under way goes by the level under which it was sent, and is seen before anything under the new one.
            if !connection.replies.is_empty() {
                return Flow::Hold;
            }
            connection.set_consistency(level);
            reply(connection, |reply| reply.ok())
        }
        _ => error(connection, SYNTAX),
    }
}

/// CLIENT TOKEN: gives what the connection has seen of each shard, or takes what another one has. Whoever asks is tracked from
/// then on, at whichever level.
pub(super) fn token(node: &Node, connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    let Some(view) = &node.cluster_view else { return error(connection, super::cluster::DISABLED) };
    let args = request.args();
    if args.len() > 3 {
        return error(connection, SYNTAX);
    }
    // The token is of what the connection sent before.
    if !connection.replies.is_empty() {
        return Flow::Hold;
    }
    let (cluster, shards) = (&view.state.cluster, view.state.shards);
    connection.state.insert(State::TRACKED);
    let session = connection.session_mut();
    if args.len() == 2 {
        let token = session.export(cluster);
        return reply(connection, |reply| reply.bulk(token.as_bytes()));
    }
    match session.import(args.get(2), cluster, shards) {
        Ok(()) => reply(connection, |reply| reply.ok()),
        Err(refusal) => error(connection, &format!("ERR {refusal}")),
    }
}

pub(super) fn reply_mode(connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    let args = request.args();
    let mode = args.get(2);
    if mode.eq_ignore_ascii_case(b"on") {
        connection.state.remove(State::REPLY_OFF.and(State::REPLY_SKIP).and(State::REPLY_SKIP_NEXT));
        reply(connection, |reply| reply.ok())
    } else if mode.eq_ignore_ascii_case(b"off") {
        connection.state.insert(State::REPLY_OFF);
        Flow::Next
    } else if mode.eq_ignore_ascii_case(b"skip") {
        if !connection.state.any(State::REPLY_OFF) {
            connection.state.insert(State::REPLY_SKIP_NEXT);
        }
        Flow::Next
    } else {
        error(connection, SYNTAX)
    }
}

pub(super) fn info(node: &mut Node, connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    let filter = ClientFilter { ids: vec![connection.id], ..ClientFilter::default() };
    let own_id = connection.id;
    super::ask(node, connection, request, AdminPurpose::ClientList { filter, own_id })
}

pub(super) fn list(node: &mut Node, connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    let args = request.args();
    let mut filter = ClientFilter::default();
    match args.len() {
        2 => {}
        4 if args.get(2).eq_ignore_ascii_case(b"type") => match client_kind(args.get(3)) {
            Some(kind) => filter.kind = Some(kind),
            None => return unknown_kind(connection, args.get(3)),
        },
        4.. if args.get(2).eq_ignore_ascii_case(b"id") => {
            for index in 3..args.len() {
                match parse_i64(args.get(index)) {
                    // No client has such a number, which is no error.
                    Some(id) => filter.ids.push(id as u64),
                    None => return error(connection, "ERR Invalid client ID"),
                }
            }
        }
        _ => return error(connection, SYNTAX),
    }
    let own_id = connection.id;
    super::ask(node, connection, request, AdminPurpose::ClientList { filter, own_id })
}

pub(super) fn kill(node: &mut Node, connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    let args = request.args();
    let own_id = connection.id;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut filter = ClientFilter::default();
    let is_old_form = args.len() == 3;
    if is_old_form {
        filter.address = Some(text(args.get(2)));
    } else {
        filter.except = Some(own_id);
        if !args.len().is_multiple_of(2) {
            return error(connection, SYNTAX);
        }
        for index in (2..args.len()).step_by(2) {
            let (option, value) = (args.get(index), args.get(index + 1));
            if option.eq_ignore_ascii_case(b"id") {
                match parse_i64(value) {
                    Some(id) if id > 0 => filter.ids = vec![id as u64],
                    _ => return error(connection, "ERR client-id should be greater than 0"),
                }
            } else if option.eq_ignore_ascii_case(b"type") {
                match client_kind(value) {
                    Some(kind) => filter.kind = Some(kind),
                    None => return unknown_kind(connection, value),
                }
            } else if option.eq_ignore_ascii_case(b"addr") {
                filter.address = Some(text(value));
            } else if option.eq_ignore_ascii_case(b"laddr") {
                filter.local_address = Some(text(value));
            } else if option.eq_ignore_ascii_case(b"user") {
                if value != b"default" {
                    let message = format!("ERR No such user '{}'", text(value));
                    return error(connection, &message);
                }
                filter.user = Some(text(value));
            } else if option.eq_ignore_ascii_case(b"skipme") {
                if value.eq_ignore_ascii_case(b"yes") {
                    filter.except = Some(own_id);
                } else if value.eq_ignore_ascii_case(b"no") {
                    filter.except = None;
                } else {
                    return error(connection, SYNTAX);
                }
            } else {
                return error(connection, SYNTAX);
            }
        }
    }
    super::ask(node, connection, request, AdminPurpose::ClientKill { filter, own_id, is_old_form })
}

pub(super) fn pause(node: &mut Node, connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    let args = request.args();
    let all = match args.len() {
        3 => true,
        4 if args.get(3).eq_ignore_ascii_case(b"all") => true,
        4 if args.get(3).eq_ignore_ascii_case(b"write") => false,
        4 => return error(connection, "ERR CLIENT PAUSE mode must be WRITE or ALL"),
        _ => {
            let mut text = b"ERR unknown subcommand or wrong number of arguments for '".to_vec();
            text.extend_from_slice(args.get(1));
            text.extend_from_slice(b"'. Try CLIENT HELP.");
            return error_bytes(connection, &text);
        }
    };
    let now_ms = node.executor.now_ms;
    let until_ms = match parse_i64(args.get(2)) {
        None => return error(connection, "ERR timeout is not an integer or out of range"),
        Some(timeout) if timeout < 0 => return error(connection, "ERR timeout is negative"),
        Some(timeout) => match now_ms.checked_add(timeout as u64).filter(|&until| until <= i64::MAX as u64) {
            Some(until_ms) => until_ms,
            None => return error(connection, "ERR timeout is out of range"),
        },
    };
    // A pause in force is never weakened, as in Redis.
    let old = node.pause;
    let pause = if now_ms < old.until_ms {
        Pause { until_ms: until_ms.max(old.until_ms), all: all || old.all }
    } else {
        Pause { until_ms, all }
    };
    super::ask(node, connection, request, AdminPurpose::Order(AdminRequest::Pause(pause)))
}

pub(super) fn unpause(node: &mut Node, connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    super::ask(node, connection, request, AdminPurpose::Order(AdminRequest::Pause(Pause::default())))
}

/// The lines of CLIENT LIST: of all rows, or of those with the numbers that were asked for, in that order and as often.
/// The rows are sorted by number.
pub(super) fn lines(filter: &ClientFilter, rows: &[ClientRow]) -> String {
    if filter.ids.is_empty() {
        return rows.iter().map(line).collect();
    }
    let row_of = |id| Some(&rows[rows.binary_search_by_key(id, |row| row.id).ok()?]);
    filter.ids.iter().filter_map(row_of).map(line).collect()
}

/// The line of CLIENT LIST for one client.
fn line(row: &ClientRow) -> String {
    format!(
        "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={} db={} sub={} psub=0 ssub=0 multi=-1 qbuf={} \
         qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll={} omem={} tot-mem={} events=r cmd={} user=default \
         redir=-1 resp={} lib-name={} lib-ver={}\n",
        row.id,
        row.address,
        row.local_address,
        row.descriptor,
        row.name,
        row.age_seconds,
        row.idle_seconds,
        row.flags,
        row.database,
        row.subscriptions,
        row.input_bytes,
        row.output_list_length,
        row.output_bytes,
        row.total_bytes,
        row.last_command,
        row.protocol,
        row.library_name,
        row.library_version,
    )
}

fn client_kind(name: &[u8]) -> Option<String> {
    ["normal", "master", "replica", "slave", "pubsub"]
        .into_iter()
        .find(|kind| name.eq_ignore_ascii_case(kind.as_bytes()))
        .map(str::to_owned)
}

fn unknown_kind(connection: &mut Connection, name: &[u8]) -> Flow {
    let mut text = b"ERR Unknown client type '".to_vec();
    text.extend_from_slice(name);
    text.push(b'\'');
    error_bytes(connection, &text)
}
