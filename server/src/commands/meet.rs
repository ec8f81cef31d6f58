//! CLUSTER MEET brings two clusters together, one of which is a single node without keys; CLUSTER ENTER is what such a node is told.
//!
//! The node that is asked to meet tells the other to enter its cluster. If that one stays what it is, and the asked one is a single node
//! without keys, then it enters the other's. Conversations block, so a thread has them.

use std::{sync::Arc, thread, time::Duration};

use duva_engine::Reply;

use super::{Flow, ask, cluster::DISABLED, error, reply};
use crate::{
    cluster::{
        join::{self, OrderError, split_address},
        meet::REFUSED,
        meta::NodeInfo,
        view::ClusterView,
    },
    core::{
        admin::{AdminPurpose, Report, Shared},
        cluster_shared::ClusterShared,
        connection::{Connection, State},
        meeting::Asker,
        node::Node,
        request::Request,
    },
};

/// How long a node that gives up its cluster goes on, so that who told it has the answer.
const FAREWELL: Duration = Duration::from_millis(200);

/// Stands for the cluster of a node that asks itself.
const ITSELF: [u8; 16] = [0; 16];

fn address_of(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

pub(super) fn meet(node: &mut Node, connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    let (Some(view), Some(cluster)) = (node.cluster_view.clone(), node.cluster.clone()) else {
        return error(connection, DISABLED);
    };
    let args = request.args();
    if args.len() > 5 {
        return error(connection, "ERR syntax error");
    }
    let text = |index: usize| String::from_utf8_lossy(args.get(index)).into_owned();
    let port = |index: usize| text(index).parse::<u16>().ok().filter(|port| *port > 0);
    let (host, Some(client_port)) = (text(2), port(3)) else {
        return error(connection, &format!("ERR Invalid base port specified: {}", text(3)));
    };
    // The other node says by itself where nodes reach it.
    if args.len() == 5 && port(4).is_none() {
        return error(connection, &format!("ERR Invalid bus port specified: {}", text(4)));
    }
    let other = address_of(&host, client_port);
    if host.parse::<std::net::IpAddr>().is_err() || split_address(&other).is_none() {
        let sentence = format!("ERR Invalid node address specified: {host}:{client_port}");
        return error(connection, &sentence);
    }
    let Some(own) = view.state.nodes.get(&view.number).cloned() else {
        return error(connection, "TRYAGAIN This node does not know the cluster yet");
    };
    if !connection.replies.is_empty() {
        return Flow::Hold;
    }
    if !node.shared.meetings.begin() {
        return error(connection, "TRYAGAIN Another CLUSTER MEET is under way");
    }
    let sequence = connection.wait_for_reply();
    connection.state.insert(State::FENCED);
    let asker = Asker { core: node.core, token: connection.token, sequence };
    let (shared, password) = (Arc::clone(&node.shared), node.config.password.clone());
    let converse = move || {
        let password = (!password.is_empty()).then(|| password.reveal());
        let reply = match bring_together(&other, &own, &view, password) {
            Ok(()) => "+OK\r\n".to_owned(),
            Err(sentence) => format!("-{}\r\n", sentence.replace(['\r', '\n'], " ")),
        };
        answer(&shared, &cluster, asker, reply);
    };
    if let Err(failure) = thread::Builder::new().name("meet".to_owned()).spawn(converse) {
        let reply = format!("-ERR no thread for it can be started: {failure}\r\n");
        if let Some(cluster) = node.cluster.clone() {
            answer(&node.shared, &cluster, asker, reply);
        }
    }
    Flow::Stop
}

fn answer(shared: &Shared, cluster: &ClusterShared, asker: Asker, reply: String) {
    shared.meetings.end(asker, reply);
    cluster.touch();
    shared.wake();
}

/// Has one of the two enter the cluster of the other one.
fn bring_together(
    other: &str,
    own: &NodeInfo,
    view: &ClusterView,
    password: Option<&[u8]>,
) -> Result<(), String> {
    let own_address = address_of(&own.host, own.port);
    let (own_cluster, itself) = (hex(&view.state.cluster), hex(&ITSELF));
    let enter = |target: &str, cluster: &str, seed: &str| {
        let words = ["CLUSTER", "ENTER", cluster, seed];
        join::order(target, password, &words.map(str::as_bytes))
    };
    let why = match enter(other, &own_cluster, &own_address) {
        Ok(()) => return Ok(()),
        Err(OrderError::Answered(answer)) => match answer.split_once(' ') {
            Some((REFUSED, why)) => why.to_owned(),
            _ => return Err(format!("ERR {other} cannot be met: {answer}")),
        },
        Err(OrderError::Failed(reason)) => return Err(format!("ERR {other} cannot be met: {reason}")),
    };
    match enter(&own_address, &itself, other) {
        Ok(()) => Ok(()),
        Err(OrderError::Answered(own)) => {
            let own = own.strip_prefix(REFUSED).unwrap_or(&own).trim();
            Err(format!("ERR Neither node can give up its own cluster: {other} says that {why}; here {own}"))
        }
        Err(OrderError::Failed(reason)) => Err(format!("ERR this node cannot ask itself: {reason}")),
    }
}

fn hex(id: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*id))
}

/// Why this node does not give up its cluster, whatever keys it holds.
fn objection(node: &Node, view: &ClusterView, seed: &str) -> Option<String> {
    let own = view.state.nodes.get(&view.number);
    let count = view.state.nodes.len();
    let dump = node.config.directory.join(&node.config.snapshot_file_name);
    if own.is_some_and(|own| address_of(&own.host, own.port) == seed) {
        Some("it is that node itself".to_owned())
    } else if count != 1 {
        Some(format!("it belongs to a cluster of {count} nodes"))
    } else if dump.exists() {
        Some(format!("{} is in its directory", node.config.snapshot_file_name))
    } else {
        None
    }
}

/// This node is to give up its own cluster for that of the node at an address.
pub(super) fn enter(node: &mut Node, connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    let Some(view) = node.cluster_view.clone() else { return error(connection, DISABLED) };
    let args = request.args();
    let seed = String::from_utf8_lossy(args.get(3)).into_owned();
    if split_address(&seed).is_none() {
        return error(connection, "ERR that is not the host and port of a node");
    }
    if args.get(2) == hex(&view.state.cluster).as_bytes() {
        // They have met.
        return reply(connection, |reply| reply.ok());
    }
    if let Some(why) = objection(node, &view, &seed) {
        return error(connection, &format!("{REFUSED} {why}"));
    }
    let is_own = args.get(2) == hex(&ITSELF).as_bytes();
    ask(node, connection, request, AdminPurpose::Enter { seed, is_own })
}

/// ENTER, of all cores' reports. What is written from here on is seen before anything is given up.
pub(super) fn finish_enter(
    node: &mut Node,
    (seed, is_own): (&str, bool),
    reports: &[Report],
    reply: &mut Reply<'_>,
) {
    let keys: usize = reports.iter().flat_map(|report| &report.databases).map(|database| database.keys).sum();
    if keys > 0 {
        return reply.error(&format!("{REFUSED} it holds keys"));
    }
    if !node.shared.meetings.set_seed(seed, is_own) {
        return reply.error("TRYAGAIN it is about to join another cluster, or meets others");
    }
    let shared = Arc::clone(&node.shared);
    let stop = move || {
        thread::park_timeout(FAREWELL);
        // It may have been told to stop for another reason meanwhile.
        if shared.meetings.has_seed() {
            shared.stop();
        }
    };
    match thread::Builder::new().name("enter".to_owned()).spawn(stop) {
        Ok(_) => {
            tracing::info!(seed, "giving up this node's own cluster to join another");
            reply.ok();
        }
        Err(failure) => {
            node.shared.meetings.forget_seed();
            reply.error(&format!("ERR no thread for it can be started: {failure}"));
        }
    }
}
