//! Where a request goes: the one function that decides it.

use duva_engine::{
    Reply,
    command::{Flags, Handler, Merge, Run},
};

use super::{
    connection::{Connection, State},
    node::{Node, Origin, Submitted},
    request::Request,
};
use crate::commands;

/// How a connection goes on after a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// With the next request.
    Next,
    /// Not before something that the request began has finished.
    Stop,
    /// The request was not executed: earlier ones of the connection must finish first.
    Hold,
    /// The request was not executed: there is no room towards another core.
    NoRoom,
}

/// Executes, forwards or begins `request` of `connection`.
#[inline]
pub fn route(node: &mut Node, connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    let command = request.command;
    if node.has_gate
        && let Some(flow) = gate(node, connection, request)
    {
        return flow;
    }
    match command.run {
        Run::Single(handler) => {
            let owner = if node.cores == 1 { node.core } else { node.owner_of(request.keys[0].slot) };
            to_owner(node, connection, request, handler, owner)
        }
        Run::Split(handler, _) => match node.single_owner(request.keys) {
            Some(owner) => to_owner(node, connection, request, handler, owner),
            None => gather(node, connection, request),
        },
        // What such a command writes depends on what it reads: in a log its shards' entries say only what it came to.
        Run::Staged(handler, _) => match node.single_owner(request.keys) {
            Some(owner)
                if node.log.is_none()
                    || !command.flags.contains(Flags::WRITE)
                    || node.is_one_shard(request.keys) =>
            {
                to_owner(node, connection, request, handler, owner)
            }
            _ => gather(node, connection, request),
        },
        // One core's part is the whole, unless a reply must be drawn from it.
        Run::Everywhere(handler, merge) if node.cores == 1 && merge != Merge::Draw => {
            execute(node, connection, request, handler)
        }
        Run::Everywhere(..) | Run::Walk(_) => gather(node, connection, request),
        Run::Server(server_command) => commands::run(node, connection, request, server_command),
    }
}

/// What stands before execution when the server has a password, clients are paused, or saving is in the way.
#[cold]
fn gate(node: &mut Node, connection: &mut Connection, request: &Request<'_>) -> Option<Flow> {
    let command = request.command;
    if !connection.state.any(State::AUTHENTICATED) && !command.flags.contains(Flags::NO_AUTH) {
        node.stats.errors += 1;
        let protocol = connection.protocol;
        connection.reply_with(|output| Reply::new(output, protocol).error("NOAUTH Authentication required."));
        return Some(Flow::Next);
    }
    if node.pause.covers(command, node.executor.now_ms) {
        connection.state.insert(State::PAUSED);
        return Some(Flow::Hold);
    }
    match node.saving_gate(command) {
        None => None,
        Some(Ok(())) => Some(Flow::NoRoom),
        Some(Err(error)) => {
            node.stats.errors += 1;
            let protocol = connection.protocol;
            connection.reply_with(|output| Reply::new(output, protocol).error(error));
            Some(Flow::Next)
        }
    }
}

#[inline]
fn to_owner(
    node: &mut Node,
    connection: &mut Connection,
    request: &mut Request<'_>,
    handler: Handler,
    owner: usize,
) -> Flow {
    if owner == node.core {
        return execute(node, connection, request, handler);
    }
    if !node.has_room(owner) {
        return Flow::NoRoom;
    }
    node.stats.forwarded += 1;
    let is_ordered = connection.has_unfinished_write();
    let sequence = connection.wait_for(request.command.flags.contains(Flags::WRITE));
    node.forward(owner, request, connection.token, sequence, is_ordered);
    Flow::Next
}

/// Executes a request whose keys are all on this core.
#[inline]
fn execute(
    node: &mut Node,
    connection: &mut Connection,
    request: &mut Request<'_>,
    handler: Handler,
) -> Flow {
    if node.log.as_ref().is_some_and(|log| log.is_full() && log.refusal().is_none())
        && request.command.flags.contains(Flags::WRITE)
    {
        return Flow::NoRoom;
    }
    let sequence = connection.replies.next_sequence();
    let origin = Origin::Connection { token: connection.token, sequence, ends_fence: false };
    let is_ordered = connection.has_unfinished_write();
    let is_direct = connection.replies.is_empty();
    let is_silent = connection.is_silent();
    let output = if is_direct { &mut connection.output } else { connection.replies.held() };
    let start = output.len();
    let submitted = node.submit(origin, handler, request, output, is_ordered);
    if submitted != Submitted::Done {
        connection.wait_for(request.command.flags.contains(Flags::WRITE));
        if submitted == Submitted::Waiting {
            return Flow::Next;
        }
        connection.state.insert(State::FENCED);
        return Flow::Stop;
    }
    if output[start] == b'-' {
        node.stats.errors += 1;
    }
    if is_silent {
        output.truncate(start);
    }
    if !is_direct {
        connection.replies.held_from(start);
    }
    Flow::Next
}

fn gather(node: &mut Node, connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    if !connection.replies.is_empty() {
        return Flow::Hold;
    }
    let sequence = connection.wait_for(request.command.flags.contains(Flags::WRITE));
    connection.state.insert(State::FENCED);
    node.begin_gather(connection.token, sequence, Box::new(request.to_owned()));
    Flow::Stop
}
