//! Commands about the cluster: CLUSTER and its subcommands, READONLY, READWRITE, ASKING.
//!
//! A server that stands alone refuses all of them, as Redis does, but CLUSTER KEYSLOT, which asks nothing of a cluster.

use duva_engine::{Reply, SLOT_COUNT, key_slot, parse_i64};

use super::{Flow, ask, error, reply};
use crate::{
    cluster::{
        feature_level::{self, FIRST},
        join::JoinAnswer,
        meta::{MetaCommand, NODES_MAX, NodeInfo},
        view::{LinkTotals, parse_node_id},
    },
    core::{
        admin::{AdminPurpose, AdminReply, AdminRequest, Report},
        connection::{Connection, State},
        groups::Failover,
        node::Node,
        request::Request,
    },
};

pub(super) const DISABLED: &str = "ERR This instance has cluster support disabled";

pub(super) fn key_slot_of(connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    let slot = key_slot(request.args().get(2));
    reply(connection, |reply| reply.integer(i64::from(slot)))
}

/// What this node's view of the cluster answers.
pub(super) fn show(node: &mut Node, connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    let name = request.command.own_name();
    if name == "info" && node.cluster_view.is_some() {
        return ask(node, connection, request, AdminPurpose::ClusterInfo);
    }
    let Some(view) = &node.cluster_view else { return error(connection, DISABLED) };
    let args = request.args();
    reply(connection, |reply| match name {
        "slots" => view.write_slots(reply),
        "shards" => view.write_shards(reply),
        "nodes" => view.write_nodes(reply),
        "replicas" | "slaves" => view.write_replicas(args.get(2), reply),
        // A node is the master of one of Redis's shards at most, so its id can be that shard's as well.
        "myid" | "myshardid" => view.write_my_id(reply),
        _ => unreachable!("the table has no other subcommand that shows the cluster"),
    })
}

/// CLUSTER INFO, of all cores' reports.
pub(super) fn show_info(node: &Node, reports: &[Report], reply: &mut Reply<'_>) {
    let Some(view) = &node.cluster_view else { return reply.error(DISABLED) };
    let mut links = LinkTotals::default();
    for report in reports.iter().filter_map(|report| report.cluster.as_ref()) {
        links.sent += report.peers.frames_sent;
        links.received += report.peers.frames_received;
        links.dropped += report.peers.frames_dropped;
    }
    view.write_info(links, reply);
}

/// COUNTKEYSINSLOT and GETKEYSINSLOT: of database 0, and of the replicas that this node has.
pub(super) fn slot_keys(node: &mut Node, connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    if node.cluster_view.is_none() {
        return error(connection, DISABLED);
    }
    let args = request.args();
    let is_count = args.len() == 3;
    let (slot, keys_max) = (parse_i64(args.get(2)), if is_count { Some(0) } else { parse_i64(args.get(3)) });
    let (Some(slot), Some(keys_max)) = (slot, keys_max) else {
        return error(connection, "ERR value is not an integer or out of range");
    };
    let slot = u16::try_from(slot).ok().filter(|slot| *slot < SLOT_COUNT);
    let purpose = match (slot, usize::try_from(keys_max)) {
        (Some(slot), _) if is_count => AdminPurpose::CountKeysInSlot(slot),
        (Some(slot), Ok(keys_max)) => AdminPurpose::GetKeysInSlot(slot, keys_max),
        _ if is_count => return error(connection, "ERR Invalid slot"),
        _ => return error(connection, "ERR Invalid slot or number of keys"),
    };
    ask(node, connection, request, purpose)
}

/// COUNTKEYSINSLOT, of all cores' answers: one core has the slot, if any.
pub(super) fn count_keys(replies: &[AdminReply], reply: &mut Reply<'_>) {
    let counts =
        replies.iter().map(|it| if let AdminReply::SlotKeys { count, .. } = it { *count } else { 0 });
    reply.integer(counts.sum::<usize>() as i64);
}

/// GETKEYSINSLOT, of all cores' answers.
pub(super) fn list_keys(replies: &[AdminReply], reply: &mut Reply<'_>) {
    let keys: Vec<&[u8]> = replies
        .iter()
        .flat_map(|it| if let AdminReply::SlotKeys { keys, .. } = it { &keys[..] } else { &[] })
        .map(|key| &key[..])
        .collect();
    reply.array(keys.len());
    keys.iter().for_each(|key| reply.bulk(key));
}

/// FORGET, JOIN, FAILOVER, MEET and ENTER.
pub(super) fn change(node: &mut Node, connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    if node.cluster_view.is_none() {
        return error(connection, DISABLED);
    }
    if let Some(refusal) = node.refusal_by_level(request) {
        return error(connection, &refusal);
    }
    administer_cluster(node, connection, request)
}

/// What changes the cluster is proposed to its meta group by the node that leads it.
fn administer_cluster(node: &mut Node, connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    match request.command.own_name() {
        "forget" => forget(node, connection, request),
        "join" => let_join(node, connection, request),
        "failover" => fail_over(node, connection, request),
        "meet" => super::meet::meet(node, connection, request),
        "enter" => super::meet::enter(node, connection, request),
        _ => unreachable!("the table has no other subcommand that changes the cluster"),
    }
}

fn forget(node: &mut Node, connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    let (Some(view), Some(cluster)) = (&node.cluster_view, &node.cluster) else {
        return error(connection, DISABLED);
    };
    // Who knows no leader may know an earlier state, without the node.
    if cluster.meta_leader().is_none() {
        return error(connection, "TRYAGAIN The cluster has no leader now");
    }
    let args = request.args();
    let shown = args.get(2);
    let number = parse_node_id(shown).and_then(|id| view.state.number_of(&id));
    let Some(number) = number else {
        return error(connection, &format!("ERR Unknown node {}", shown.escape_ascii()));
    };
    if number == view.number {
        return error(connection, "ERR I tried hard but I can't forget myself...");
    }
    if node.peers.is_steady(number, node.now_ns()) {
        return error(connection, "ERR The node is up: stop it before the cluster forgets it");
    }
    if !cluster.ask(MetaCommand::RemoveNode(number)) {
        return error(connection, "TRYAGAIN Too many changes of the cluster wait");
    }
    node.shared.wake();
    reply(connection, |reply| reply.ok())
}

/// This node is to lead what it has replicas of.
fn fail_over(node: &mut Node, connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    let args = request.args();
    let failover = match args.len() {
        2 => Failover::Agreed,
        3 if args.get(2).eq_ignore_ascii_case(b"force") => Failover::Forced,
        3 if args.get(2).eq_ignore_ascii_case(b"takeover") => {
            let sentence =
                "ERR TAKEOVER is not possible: nobody leads without the agreement of a majority; use FORCE";
            return error(connection, sentence);
        }
        _ => return error(connection, "ERR syntax error"),
    };
    if failover == Failover::Forced && !connection.replies.is_empty() {
        return Flow::Hold;
    }
    if let Err(refusal) = node.ask_to_lead(failover) {
        return error(connection, refusal.sentence());
    }
    tracing::info!(id = connection.id, ?failover, "this node is to lead: a client asked for it");
    match failover {
        Failover::Agreed => reply(connection, |reply| reply.ok()),
        Failover::Forced => ask(node, connection, request, AdminPurpose::Order(AdminRequest::Campaign)),
    }
}

/// A node that starts asks to be let in, again and again until the state knows it.
fn let_join(node: &mut Node, connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    let Some(cluster) = node.cluster.clone() else { return error(connection, DISABLED) };
    let args = request.args();
    let text = |index: usize| std::str::from_utf8(args.get(index)).unwrap_or_default();
    let id = u128::from_str_radix(text(2), 16).ok().filter(|_| text(2).len() == 32);
    let (port, peer_port) = (text(4).parse().ok(), text(5).parse().ok());
    let level = if args.len() > 6 { text(6).parse().ok().filter(|level| *level > 0) } else { Some(FIRST) };
    let (Some(id), Some(port), Some(peer_port), Some(level)) = (id, port, peer_port, level) else {
        let sentence =
            "ERR a node's id is 32 hexadecimal digits, its ports are numbers, and so is its feature level";
        return error(connection, sentence);
    };
    if args.len() > 7 {
        return error(connection, "ERR syntax error");
    }
    let info = NodeInfo { id: id.to_be_bytes(), host: text(3).to_owned(), port, peer_port, level };
    let Some((state, snapshot)) = cluster.beginning() else {
        return error(connection, "TRYAGAIN This node does not know the cluster yet");
    };
    let own = node.cluster_view.as_ref().map(|view| view.number);
    match cluster.meta_leader() {
        None => return error(connection, "TRYAGAIN The cluster has no leader now"),
        Some(leader) if Some(leader) != own => {
            let Some(leader) = state.nodes.get(&leader) else {
                return error(connection, "TRYAGAIN The cluster has no leader now");
            };
            let host =
                if leader.host.contains(':') { format!("[{}]", leader.host) } else { leader.host.clone() };
            return error(connection, &format!("NOTMETALEADER {host}:{}", leader.port));
        }
        Some(_) => {}
    }
    if level < state.level {
        return error(connection, &format!("ERR {}", feature_level::too_old(state.level, level)));
    }
    if let Some(number) = state.number_of(&info.id)
        && state.nodes.get(&number) == Some(&info)
    {
        let answer = JoinAnswer { number, state, snapshot };
        return reply(connection, |reply| reply.bulk(&answer.encode()));
    }
    if info.host.parse::<std::net::IpAddr>().is_err() {
        return error(connection, "ERR a node's host must be an IP address");
    }
    if state.nodes.len() >= NODES_MAX {
        return error(connection, &format!("ERR the cluster has as many nodes as it can have, {NODES_MAX}"));
    }
    cluster.ask(MetaCommand::AddNode(info));
    node.shared.wake();
    error(connection, "TRYAGAIN The node is being let in")
}

/// READONLY and READWRITE.
pub(super) fn read_mode(node: &Node, connection: &mut Connection, request: &mut Request<'_>) -> Flow {
    if node.cluster_view.is_none() {
        return error(connection, DISABLED);
    }
    connection.state.set(State::READ_ONLY, request.command.own_name() == "readonly");
    reply(connection, |reply| reply.ok())
}

/// ASKING: slots do not migrate one by one, so no node ever answers ASK, and there is nothing to remember.
pub(super) fn asking(node: &Node, connection: &mut Connection) -> Flow {
    if node.cluster_view.is_none() {
        return error(connection, DISABLED);
    }
    reply(connection, |reply| reply.ok())
}
