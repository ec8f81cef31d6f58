//! SAVE, BGSAVE, LASTSAVE and BGREWRITEAOF: their arguments. What they begin is [`crate::core::save`]'s.

use super::{Flow, error, reply};
use crate::core::{
    connection::Connection,
    node::Node,
    request::Request,
    save::{SaveKind, begin_save},
};

pub(super) fn save(node: &mut Node, connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    begin_save(node, connection, request, SaveKind::Foreground)
}

pub(super) fn save_in_background(
    node: &mut Node,
    connection: &mut Connection,
    request: &mut Request<'_>,
) -> Flow {
    let args = request.args();
    let schedule = match args.len() {
        1 => false,
        2 if args.get(1).eq_ignore_ascii_case(b"schedule") => true,
        _ => return error(connection, "ERR syntax error"),
    };
    begin_save(node, connection, request, SaveKind::Background { schedule })
}

pub(super) fn rewrite(node: &mut Node, connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    begin_save(node, connection, request, SaveKind::Rewrite)
}

pub(super) fn last_save(node: &Node, connection: &mut Connection) -> Flow {
    let seconds = node.shared.last_save_seconds();
    reply(connection, |reply| reply.integer(i64::try_from(seconds).unwrap_or(i64::MAX)))
}
