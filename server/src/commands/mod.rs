//! Commands that concern connections and the server rather than keys.
//!
//! Those that need only their connection answer at once. What needs every core (CLIENT LIST, CLIENT KILL, CLIENT PAUSE,
//! CONFIG SET, INFO) asks each of them through the mesh, and [`finish`] makes one reply of the answers.

mod client;
mod cluster;
mod connection;
mod info;
mod meet;
mod persistence;
mod server;
mod subscription;

use std::time::Instant;

pub(crate) use subscription::{CHANNEL, is_for_subscribers};

use duva_engine::{Reply, command::ServerCommand};

use crate::core::{
    admin::{AdminPurpose, AdminReply, Report},
    connection::{Connection, State},
    node::Node,
    request::{OwnedRequest, Request},
    route::Flow,
};

/// The Redis version whose behaviour clients can count on.
pub(crate) const REDIS_VERSION: &str = "7.0.15";

/// Asks every core; the reply comes when all have answered.
fn ask(
    node: &mut Node,
    connection: &mut Connection,
    request: &mut Request<'_>,
    purpose: AdminPurpose,
) -> Flow {
    if !connection.replies.is_empty() {
        return Flow::Hold;
    }
    let sequence = connection.wait_for_reply();
    connection.state.insert(State::FENCED);
    node.stats.commands.handle_later(request.command);
    node.begin_admin(connection.token, sequence, Box::new(request.to_owned()), purpose);
    Flow::Stop
}

/// Makes one reply of all cores' answers.
pub fn finish(
    purpose: &AdminPurpose,
    node: &mut Node,
    request: &mut OwnedRequest,
    replies: Vec<AdminReply>,
    output: &mut Vec<u8>,
) {
    let began = Instant::now();
    let mut reply = Reply::new(output, request.mode.protocol);
    match purpose {
        AdminPurpose::ClusterInfo => cluster::show_info(node, &reports(replies), &mut reply),
        AdminPurpose::Info => {
            let reports = reports(replies);
            let names: Vec<String> = (1..request.argument_count())
                .map(|index| String::from_utf8_lossy(request.argument(index)).to_lowercase())
                .collect();
            reply.verbatim(&info::text(node, &reports, &names));
        }
        AdminPurpose::ClientList { filter, own_id } => {
            let mut rows: Vec<_> = replies
                .into_iter()
                .flat_map(|reply| match reply {
                    AdminReply::Clients(rows) => rows,
                    _ => Vec::new(),
                })
                .collect();
            rows.sort_by_key(|row| row.id);
            // The request itself has not been executed yet.
            for row in rows.iter_mut().filter(|row| row.id == *own_id) {
                row.input_bytes += request.encoded_bytes();
            }
            reply.verbatim(&client::lines(filter, &rows));
        }
        AdminPurpose::ClientKill { is_old_form, .. } => {
            let killed: usize = replies
                .iter()
                .map(|reply| if let AdminReply::Killed(count) = reply { *count } else { 0 })
                .sum();
            match (is_old_form, killed) {
                (false, killed) => reply.integer(killed as i64),
                (true, 0) => reply.error("ERR No such client"),
                (true, _) => reply.ok(),
            }
        }
        AdminPurpose::Order(_) => reply.ok(),
        AdminPurpose::CountKeysInSlot(_) => cluster::count_keys(&replies, &mut reply),
        AdminPurpose::GetKeysInSlot(..) => cluster::list_keys(&replies, &mut reply),
        AdminPurpose::Enter { seed, is_own } => {
            meet::finish_enter(node, (seed, *is_own), &reports(replies), &mut reply);
        }
    }
    node.stats.commands.handle(request.command);
    node.executor.times.add_step(request.command, began);
}

fn reports(replies: Vec<AdminReply>) -> Vec<Report> {
    let report = |reply| if let AdminReply::Report(report) = reply { Some(*report) } else { None };
    replies.into_iter().filter_map(report).collect()
}

fn reply(connection: &mut Connection, write: impl FnOnce(&mut Reply<'_>)) -> Flow {
    let protocol = connection.protocol;
    connection.reply_with(|output| write(&mut Reply::new(output, protocol)));
    Flow::Next
}

fn error(connection: &mut Connection, text: &str) -> Flow {
    reply(connection, |reply| reply.error(text))
}

fn error_bytes(connection: &mut Connection, text: &[u8]) -> Flow {
    reply(connection, |reply| reply.error_bytes(text))
}

/// Executes a command that the server answers.
pub fn run(
    node: &mut Node,
    connection: &mut Connection,
    request: &mut Request<'_>,
    command: ServerCommand,
) -> Flow {
    let row = request.command;
    let is_direct = connection.replies.is_empty();
    let output = if is_direct { &mut connection.output } else { connection.replies.held() };
    let start = output.len();
    let timing = node.executor.times.begin(row);
    let flow = dispatch(node, connection, request, command);
    node.executor.times.end(row, timing);
    let output = if is_direct { &mut connection.output } else { connection.replies.held() };
    if output.get(start) == Some(&b'-') {
        node.stats.fail(row, &output[start..]);
    }
    flow
}

fn dispatch(
    node: &mut Node,
    connection: &mut Connection,
    request: &mut Request<'_>,
    command: ServerCommand,
) -> Flow {
    match command {
        ServerCommand::Ping => connection::ping(connection, request),
        ServerCommand::Echo => connection::echo(connection, request),
        ServerCommand::Hello => connection::hello(node, connection, request),
        ServerCommand::Select => connection::select(connection, request),
        ServerCommand::Quit => connection::quit(connection),
        ServerCommand::Reset => connection::reset(node, connection),
        ServerCommand::Auth => connection::auth(node, connection, request),
        ServerCommand::Command => connection::command(connection, request),
        ServerCommand::ClientId => client::id(connection),
        ServerCommand::ClientGetName => client::get_name(connection),
        ServerCommand::ClientSetName => client::set_name(connection, request),
        ServerCommand::ClientSetInfo => client::set_info(connection, request),
        ServerCommand::ClientInfo => client::info(node, connection, request),
        ServerCommand::ClientList => client::list(node, connection, request),
        ServerCommand::ClientKill => client::kill(node, connection, request),
        ServerCommand::ClientReply => client::reply_mode(connection, request),
        ServerCommand::ClientPause => client::pause(node, connection, request),
        ServerCommand::ClientUnpause => client::unpause(node, connection, request),
        ServerCommand::ClientNoEvict => client::set_flag(connection, request, State::NO_EVICT),
        ServerCommand::ClientNoTouch => client::set_flag(connection, request, State::NO_TOUCH),
        ServerCommand::ClientTopology => subscription::set_topology(node, connection, request),
        ServerCommand::Subscribe => subscription::subscribe(node, connection, request),
        ServerCommand::Unsubscribe => subscription::unsubscribe(connection, request),
        ServerCommand::ClientConsistency => client::consistency(connection, request),
        ServerCommand::ClientToken => client::token(node, connection, request),
        ServerCommand::ConfigGet => server::config_get(node, connection, request),
        ServerCommand::ConfigSet => server::config_set(node, connection, request),
        ServerCommand::ConfigResetStat => {
            let purpose = AdminPurpose::Order(crate::core::admin::AdminRequest::ResetStats);
            ask(node, connection, request, purpose)
        }
        ServerCommand::Info => ask(node, connection, request, AdminPurpose::Info),
        ServerCommand::Time => server::time(node, connection),
        ServerCommand::Lolwut => server::lolwut(connection, request),
        ServerCommand::Wait => server::wait(node, connection, request),
        ServerCommand::Shutdown => server::shutdown(node, connection, request),
        ServerCommand::Save => persistence::save(node, connection, request),
        ServerCommand::BackgroundSave => persistence::save_in_background(node, connection, request),
        ServerCommand::LastSave => persistence::last_save(node, connection),
        ServerCommand::BackgroundRewrite => persistence::rewrite(node, connection, request),
        ServerCommand::Help => server::help(connection, request),
        ServerCommand::ClusterKeySlot => cluster::key_slot_of(connection, request),
        ServerCommand::ClusterView => cluster::show(node, connection, request),
        ServerCommand::ClusterSlotKeys => cluster::slot_keys(node, connection, request),
        ServerCommand::ClusterChange => cluster::change(node, connection, request),
        ServerCommand::ReadMode => cluster::read_mode(node, connection, request),
        ServerCommand::Asking => cluster::asking(node, connection),
    }
}
