//! Where a request goes: the one function that decides it.

use duva_engine::{
    Reply,
    command::{Flags, Handler, Merge, Run},
};

use super::{
    batch::PIECE_KEYS_MAX,
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
    /// The request was not executed: something has no room for it.
    NoRoom(Lack),
}

/// What has no room for a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lack {
    /// The way to this core.
    Mesh(usize),
    /// The journal of this core.
    Journal(usize),
    /// Saving: what changes force out has to reach the disk first.
    Saving,
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
        // So many keys would keep a core from its loop: a gather takes them piece by piece.
        Run::Split(..) | Run::Staged(..) if request.keys.len() > PIECE_KEYS_MAX => {
            gather(node, connection, request)
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

const NOT_AUTHENTICATED: &str = "NOAUTH Authentication required.";

/// What stands before execution when the server has a password, clients are paused, or saving is in the way.
#[cold]
fn gate(node: &mut Node, connection: &mut Connection, request: &Request<'_>) -> Option<Flow> {
    let command = request.command;
    if !connection.state.any(State::AUTHENTICATED) && !command.flags.contains(Flags::NO_AUTH) {
        node.stats.reject(command, NOT_AUTHENTICATED.as_bytes());
        let protocol = connection.protocol;
        connection.reply_with(|output| Reply::new(output, protocol).error(NOT_AUTHENTICATED));
        return Some(Flow::Next);
    }
    if node.pause.covers(command, node.executor.now_ms) {
        connection.state.insert(State::PAUSED);
        return Some(Flow::Hold);
    }
    match node.saving_gate(command, request.keys) {
        None => None,
        Some(Ok(())) => Some(Flow::NoRoom(Lack::Saving)),
        Some(Err(error)) => {
            node.stats.reject(command, error.as_bytes());
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
    let is_write = request.command.flags.contains(Flags::WRITE);
    if is_write && node.is_journal_full(owner) {
        return Flow::NoRoom(Lack::Journal(owner));
    }
    if !node.has_room(owner) {
        return Flow::NoRoom(Lack::Mesh(owner));
    }
    // Large ones are journalled over several turns: one of a connection at a time, as on its own core.
    if is_write && !request.large.is_empty() && node.log.is_some() && !connection.replies.is_empty() {
        return Flow::Hold;
    }
    node.stats.forwarded += 1;
    let is_ordered = connection.has_unfinished_write();
    let sequence = connection.wait_for(is_write);
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
    if node.log.is_some() && request.command.flags.contains(Flags::WRITE) && node.is_journal_full(node.core) {
        return Flow::NoRoom(Lack::Journal(node.core));
    }
    let sequence = connection.replies.next_sequence();
    let command = request.command;
    let origin = Origin::Connection { token: connection.token, sequence, ends_fence: false, command };
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
        node.stats.fail(request.command, &output[start..]);
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
