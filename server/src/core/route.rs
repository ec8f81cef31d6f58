//! Where a request goes: the one function that decides it.

use duva_engine::{
    Reply,
    command::{Command, Flags, Handler, Merge, Run},
};

use super::{
    batch::PIECE_KEYS_MAX,
    connection::{Connection, State},
    levels::{Observed, level_gate},
    node::{Node, Origin, Submitted},
    request::{Reading, Request},
};
use crate::{commands, config::ClusterRouting};

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
    if node.cluster_view.is_some()
        && let Some(flow) = cluster_gate(node, connection, request)
    {
        return flow;
    }
    match command.run {
        Run::Single(handler) => {
            let owner = if node.cores == 1 { node.core } else { node.owner_of(request.keys[0].slot) };
            to_owner(node, connection, request, handler, owner)
        }
        // In a cluster every shard has a log of its own.
        Run::Split(handler, _) | Run::Staged(handler, _) if node.groups.is_some() => {
            if !node.is_one_shard(request.keys) {
                return spread(node, connection, request);
            }
            let owner = node.owner_of(request.keys[0].slot);
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

const CROSS_SLOT: &str = "CROSSSLOT Keys in request don't hash to the same slot";

/// What stands before execution on a cluster's node: subscriptions, and, if clients are to be told of that, keys of
/// several slots, and slots that another node leads.
fn cluster_gate(node: &mut Node, connection: &mut Connection, request: &mut Request<'_>) -> Option<Flow> {
    if connection.takes_only_messages() && !commands::is_for_subscribers(request.command) {
        let name = request.command.name;
        let error = format!(
            "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed \
             in this context"
        );
        return Some(refuse(node, connection, request.command, &error));
    }
    if connection.state.any(State::LEVELLED)
        && let Some(flow) = level_gate(node, connection, request)
    {
        return Some(flow);
    }
    let (first, rest) = request.keys.split_first()?;
    if node.config.cluster_routing != ClusterRouting::Redirect {
        return None;
    }
    let error = if rest.iter().any(|key| key.slot != first.slot) {
        CROSS_SLOT.to_owned()
    } else {
        let view = node.cluster_view.as_ref()?;
        if request.mode.reading.is_near() && view.has_replica(first.slot) {
            return None;
        }
        view.moved(first.slot)?
    };
    Some(refuse(node, connection, request.command, &error))
}

fn refuse(node: &mut Node, connection: &mut Connection, command: &'static Command, error: &str) -> Flow {
    node.stats.reject(command, error.as_bytes());
    let protocol = connection.protocol;
    connection.reply_with(|output| Reply::new(output, protocol).error(error));
    Flow::Next
}

#[inline(always)]
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
    if request.mode.reading == Reading::Session {
        connection.state.insert(State::READING_NEAR);
    }
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
    if node.log.is_some()
        && (request.command.flags.contains(Flags::WRITE) || node.groups.is_some())
        && node.is_journal_full(node.core)
    {
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
        if request.mode.reading == Reading::Session {
            connection.state.insert(State::READING_NEAR);
        }
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
    if connection.state.any(State::TRACKED)
        && let Some(Observed { shard, position }) = node.observed.take()
    {
        connection.session_mut().observe(shard, position);
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

/// Begins a command whose keys lie in several shards of a cluster.
fn spread(node: &mut Node, connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    if !connection.replies.is_empty() {
        return Flow::Hold;
    }
    if node.is_journal_full(node.core) {
        return Flow::NoRoom(Lack::Journal(node.core));
    }
    // A floor is of one shard: it is read where the leaders are.
    node.floor = None;
    request.mode.reading = request.mode.reading.at_leader();
    let sequence = connection.wait_for(request.command.flags.contains(Flags::WRITE));
    connection.state.insert(State::FENCED);
    node.begin_spread(connection.token, sequence, Box::new(request.to_owned()));
    Flow::Stop
}
