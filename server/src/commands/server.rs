//! Commands about the server: CONFIG, INFO, TIME, WAIT, SHUTDOWN and their kin.

use duva_engine::{command, parse_i64};

use super::{Flow, error, error_bytes, reply};
use crate::core::{
    admin::{AdminPurpose, AdminRequest},
    connection::{Connection, State},
    leave::StopStage,
    node::Node,
    request::Request,
    save,
};

pub(super) fn config_get(node: &Node, connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    let args = request.args();
    let patterns: Vec<&[u8]> = (2..args.len()).map(|index| args.get(index)).collect();
    let found = node.config.get(&patterns);
    reply(connection, |reply| {
        reply.map(found.len());
        for (name, value) in &found {
            reply.bulk(name.as_bytes());
            reply.bulk(value);
        }
    })
}

pub(super) fn config_set(node: &mut Node, connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    let args = request.args();
    if !args.len().is_multiple_of(2) {
        return error(connection, "ERR syntax error");
    }
    let pairs: Vec<(&[u8], &[u8])> =
        (2..args.len()).step_by(2).map(|index| (args.get(index), args.get(index + 1))).collect();
    match node.shared.change_config(|config| config.set(&pairs)) {
        Err(refused) => error_bytes(connection, &refused.reply()),
        Ok(()) => {
            let purpose = AdminPurpose::Order(AdminRequest::Configure);
            super::ask(node, connection, request, purpose)
        }
    }
}

pub(super) fn time(node: &Node, connection: &mut Connection) -> Flow {
    // The turn's clock has milliseconds; TIME promises microseconds.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let micros = now.map_or(node.executor.now_ms * 1000, |now| now.as_micros() as u64);
    reply(connection, |reply| {
        reply.array(2);
        reply.bulk_integer((micros / 1_000_000) as i64);
        reply.bulk_integer((micros % 1_000_000) as i64);
    })
}

/// WAIT: without replicas none ever acknowledges, so it answers 0 at once, or after its timeout if it is to wait for some.
pub(super) fn wait(node: &mut Node, connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    let args = request.args();
    let Some(replicas) = parse_i64(args.get(1)) else {
        return error(connection, "ERR value is not an integer or out of range");
    };
    let Some(timeout_ms) = parse_i64(args.get(2)) else {
        return error(connection, "ERR timeout is not an integer or out of range");
    };
    if timeout_ms < 0 {
        return error(connection, "ERR timeout is negative");
    }
    // Nobody would notice that a client that has gone no longer waits.
    if replicas <= 0 || connection.state.any(State::END_OF_INPUT) {
        return reply(connection, |reply| reply.integer(0));
    }
    if !connection.replies.is_empty() {
        return Flow::Hold;
    }
    let sequence = connection.wait_for_reply();
    connection.state.insert(State::FENCED.and(State::WAITING));
    if timeout_ms > 0 {
        node.waits.push((connection.token, sequence, timeout_ms as u64));
    }
    Flow::Stop
}

pub(super) fn shutdown(node: &mut Node, connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    let args = request.args();
    const OPTIONS: [&str; 5] = ["save", "nosave", "force", "abort", "now"];
    let mut given = [false; OPTIONS.len()];
    for index in 1..args.len() {
        let option = args.get(index);
        let known = OPTIONS.iter().position(|name| option.eq_ignore_ascii_case(name.as_bytes()));
        let Some(place) = known else { return error(connection, "ERR syntax error") };
        given[place] = true;
    }
    let [saves, does_not, is_forced, aborts, is_now] = given;
    if (aborts && (saves || does_not || is_forced || is_now)) || (saves && does_not) {
        return error(connection, "ERR syntax error");
    }
    if aborts {
        node.shared.set_stop_is_urgent(false);
        return save::abort_stop(node, connection);
    }
    node.shared.meetings.forget_seed();
    if is_now {
        node.shared.set_stop_is_urgent(true);
    }
    let is_serving = node.shared.stop_stage() == StopStage::Serving;
    if is_serving && (saves || (!does_not && !node.config.save_points.is_empty())) {
        tracing::info!(id = connection.id, "saving a snapshot to stop: a client asked for it");
        return save::begin_stop(node, connection, is_forced);
    }
    tracing::info!(id = connection.id, "stopping: a client asked for it");
    node.shared.stop();
    if node.groups.is_some() {
        // The connection ends with the server, which may serve others for a moment.
        connection.wait_for_reply();
        connection.state.insert(State::FENCED);
        return Flow::Stop;
    }
    // As Redis: no reply, the connection just ends.
    connection.state.insert(State::CLOSE_AFTER_REPLY);
    Flow::Stop
}

/// LOLWUT: its arguments are checked as Redis checks them, and change nothing.
pub(super) fn lolwut(connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    let args = request.args();
    if args.len() >= 3 && args.get(1).eq_ignore_ascii_case(b"version") {
        // The drawings of these versions take so many sizes.
        let count = match parse_i64(args.get(2)) {
            Some(5) => 3,
            Some(6) => 2,
            _ => 0,
        };
        if (2..args.len().min(3 + count)).any(|index| parse_i64(args.get(index)).is_none()) {
            return error(connection, "ERR value is not an integer or out of range");
        }
    }
    let art = concat!(
        "   .--.\n",
        "  (o  o)   duva\n",
        "  |)  (|   a key, a value,\n",
        "  '----'   and nothing lost between.\n",
    );
    let text = format!("{art}\nRedis ver. {}\n", super::REDIS_VERSION);
    reply(connection, |reply| reply.verbatim(&text))
}

pub(super) fn help(connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    let command = request.command;
    reply(connection, |reply| command::help::write(command, reply))
}
