//! The sections about replicas: `replication`, `raft` and `cluster`.

use std::{collections::BTreeMap, fmt::Write};

use super::line;
use crate::{
    cluster::view::{ClusterView, node_id_text},
    core::{
        groups::{ClusterReport, Counts, ShardReport},
        peer::links::LinkReport,
    },
};

/// What a node's leaders know of another node.
#[derive(Default)]
struct Follower {
    /// The sum of the entries that it holds.
    held: u64,
    /// How long ago it was heard by any of them, in nanoseconds.
    silent_ns: u64,
}

fn shards<'a>(reports: &'a [&ClusterReport]) -> Vec<&'a ShardReport> {
    let mut shards: Vec<&ShardReport> = reports.iter().flat_map(|report| &report.shards).collect();
    shards.sort_unstable_by_key(|shard| shard.shard);
    shards
}

/// Redis's section: whoever takes writes is a master there, which every node does. Its replicas are the other nodes that have what
/// it leads; an offset is a sum of entries over the shards that are led here.
pub(super) fn replication(
    run_id: &str,
    view: Option<&ClusterView>,
    reports: &[&ClusterReport],
    text: &mut String,
) {
    let mut followers: BTreeMap<u32, Follower> = BTreeMap::new();
    let mut offset = 0;
    for shard in shards(reports).into_iter().filter(|shard| shard.role == duva_raft::Role::Leader) {
        offset += shard.last;
        for it in &shard.followers {
            let first = Follower { held: 0, silent_ns: u64::MAX };
            let follower = followers.entry(it.node).or_insert(first);
            follower.held += it.held;
            follower.silent_ns = follower.silent_ns.min(it.silent_ns);
        }
    }
    line(text, format_args!("role:master"));
    let known = |node: &u32| view?.state.nodes.get(node);
    let nodes: Vec<_> =
        followers.iter().filter_map(|(node, follower)| Some((known(node)?, *node, follower))).collect();
    line(text, format_args!("connected_slaves:{}", nodes.len()));
    for (number, (info, node, follower)) in nodes.into_iter().enumerate() {
        let is_online = view.is_some_and(|view| view.is_alive(node));
        let state = if is_online { "online" } else { "offline" };
        let (host, port, held) = (&info.host, info.port, follower.held);
        let lag_seconds = follower.silent_ns / 1_000_000_000;
        line(
            text,
            format_args!("slave{number}:ip={host},port={port},state={state},offset={held},lag={lag_seconds}"),
        );
    }
    // What has the same history has the same id: all nodes of a cluster, or one run of a server that stands alone.
    let id = view.map_or_else(|| run_id.to_owned(), |view| node_id_text(&view.state.cluster));
    for (name, value) in [
        ("master_failover_state", "no-failover"),
        ("master_replid", &*id),
        ("master_replid2", &*"0".repeat(40)),
        ("master_repl_offset", &*offset.to_string()),
        ("second_repl_offset", "-1"),
        ("repl_backlog_active", "0"),
        ("repl_backlog_size", "0"),
        ("repl_backlog_first_byte_offset", "0"),
        ("repl_backlog_histlen", "0"),
    ] {
        line(text, format_args!("{name}:{value}"));
    }
}

/// Counters of all groups, a line for each shard with a replica here, and one for each other node.
pub(super) fn raft(reports: &[&ClusterReport], text: &mut String) {
    let shards = shards(reports);
    let mut sum = Counts::default();
    for Counts {
        elections_won,
        forwarded,
        served,
        uncertain,
        snapshots_sent,
        snapshots_installed,
        fetches,
        near,
        taken_over,
    } in reports.iter().map(|report| report.counts)
    {
        sum.elections_won += elections_won;
        sum.forwarded += forwarded;
        sum.served += served;
        sum.uncertain += uncertain;
        sum.snapshots_sent += snapshots_sent;
        sum.snapshots_installed += snapshots_installed;
        sum.fetches += fetches;
        sum.near += near;
        sum.taken_over += taken_over;
    }
    let led = shards.iter().filter(|shard| shard.role == duva_raft::Role::Leader).count();
    let waiting_bytes: usize = reports.iter().map(|report| report.waiting_bytes).sum();
    for (name, value) in [
        ("groups", shards.len() as u64),
        ("led", led as u64),
        ("term_max", shards.iter().map(|shard| shard.term).max().unwrap_or(0)),
        ("elections_won", sum.elections_won),
        ("forwarded", sum.forwarded),
        ("served", sum.served),
        ("uncertain", sum.uncertain),
        ("waiting_bytes", waiting_bytes as u64),
        ("snapshots_sent", sum.snapshots_sent),
        ("snapshots_installed", sum.snapshots_installed),
        ("fetches", sum.fetches),
        ("near_reads", sum.near),
        ("taken_over", sum.taken_over),
    ] {
        line(text, format_args!("raft_{name}:{value}"));
    }
    for shard in shards {
        line(text, format_args!("shard{}:{}", shard.shard, shard_fields(shard)));
    }
    // A node's links are one for each core here.
    let mut links: BTreeMap<u32, Vec<LinkReport>> = BTreeMap::new();
    for link in reports.iter().flat_map(|report| &report.links) {
        links.entry(link.node).or_default().push(*link);
    }
    for (node, links) in links {
        let up = links.iter().filter(|link| link.is_up).count();
        let unsent_bytes: usize = links.iter().map(|link| link.unsent_bytes).sum();
        let dropped: u64 = links.iter().map(|link| link.frames_dropped).sum();
        let count = links.len();
        line(
            text,
            format_args!(
                "link{node}:links={count},up={up},unsent_bytes={unsent_bytes},frames_dropped={dropped}"
            ),
        );
    }
}

fn shard_fields(shard: &ShardReport) -> String {
    let ShardReport { term, commit, applied, last, replicas, snapshot, state, .. } = shard;
    let role = shard.role_name();
    // No node has the number 0.
    let leader = shard.leader.unwrap_or(0);
    let mut fields = format!(
        "role={role},term={term},leader={leader},commit={commit},applied={applied},last={last},replicas={replicas},lag="
    );
    for (number, follower) in shard.followers.iter().enumerate() {
        let separator = if number == 0 { "" } else { ";" };
        // Writing to a String cannot fail.
        let _ = write!(fields, "{separator}{}:{}", follower.node, follower.lag);
    }
    let _ = write!(fields, ",snapshot={snapshot},state={state}");
    fields
}

/// Whether there is a cluster, and the group that agrees on it.
pub(super) fn cluster(view: Option<&ClusterView>, reports: &[&ClusterReport], text: &mut String) {
    line(text, format_args!("cluster_enabled:{}", i32::from(view.is_some())));
    let Some(view) = view else { return };
    line(text, format_args!("cluster_node:{}", view.number));
    line(text, format_args!("cluster_known_nodes:{}", view.state.nodes.len()));
    line(text, format_args!("cluster_epoch:{}", view.state.epoch));
    line(text, format_args!("cluster_feature_level:{}", view.state.level));
    let levels: Vec<String> =
        view.state.nodes.iter().map(|(number, node)| format!("{number}={}", node.level)).collect();
    line(text, format_args!("cluster_feature_levels:{}", levels.join(",")));
    if let Some(meta) = reports.iter().find_map(|report| report.meta) {
        line(text, format_args!("cluster_meta_leader:{}", meta.leader.unwrap_or(0)));
        line(text, format_args!("cluster_meta_term:{}", meta.term));
        line(text, format_args!("cluster_meta_applied:{}", meta.applied));
    }
}

#[cfg(test)]
mod tests {
    use duva_raft::Role;

    use super::*;
    use crate::{
        cluster::meta::{MetaCommand, MetaState, NodeInfo},
        core::groups::{FollowerReport, MetaReport},
    };

    fn view() -> ClusterView {
        let mut state = MetaState::genesis([9; 16], 4, 77, 3, NodeInfo::example(1));
        state.apply(&MetaCommand::AddNode(NodeInfo::example(2)));
        state.apply(&MetaCommand::AddNode(NodeInfo::example(3)));
        ClusterView::new(state, 1)
    }

    fn shard(number: u16, role: Role) -> ShardReport {
        let follower = |node, held| FollowerReport { node, held, lag: 10 - held, silent_ns: 2_500_000_000 };
        let followers = if role == Role::Leader { vec![follower(2, 10), follower(3, 4)] } else { Vec::new() };
        ShardReport {
            shard: number,
            role,
            term: 3,
            leader: (role == Role::Leader).then_some(1),
            commit: 9,
            applied: 8,
            last: 10,
            snapshot: 5,
            replicas: 3,
            state: "voter",
            followers,
        }
    }

    /// Two cores.
    fn reports() -> [ClusterReport; 2] {
        let link = |node, is_up| LinkReport { node, is_up, unsent_bytes: 7, frames_dropped: 2 };
        let core = |shards, is_up| ClusterReport {
            shards,
            counts: Counts {
                elections_won: 1,
                forwarded: 2,
                served: 3,
                uncertain: 4,
                fetches: 5,
                near: 7,
                taken_over: 8,
                ..Counts::default()
            },
            waiting_bytes: 100,
            links: vec![link(2, true), link(3, is_up)],
            ..ClusterReport::default()
        };
        let mut first = core(vec![shard(2, Role::Follower)], false);
        first.meta = Some(MetaReport { leader: Some(2), term: 4, applied: 12, epoch: 3 });
        [first, core(vec![shard(1, Role::Leader)], true)]
    }

    fn written(write: impl Fn(&[&ClusterReport], &mut String)) -> Vec<String> {
        let reports = reports();
        let mut text = String::new();
        write(&reports.iter().collect::<Vec<_>>(), &mut text);
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn raft_has_counters_shards_and_links() {
        let lines = written(raft);
        assert_eq!(
            lines[..8],
            [
                "raft_groups:2",
                "raft_led:1",
                "raft_term_max:3",
                "raft_elections_won:2",
                "raft_forwarded:4",
                "raft_served:6",
                "raft_uncertain:8",
                "raft_waiting_bytes:200",
            ]
        );
        assert_eq!(lines[11..13], ["raft_near_reads:14", "raft_taken_over:16"]);
        assert_eq!(
            lines[13..],
            [
                "shard1:role=leader,term=3,leader=1,commit=9,applied=8,last=10,replicas=3,lag=2:0;3:6,snapshot=5,state=voter",
                "shard2:role=follower,term=3,leader=0,commit=9,applied=8,last=10,replicas=3,lag=,snapshot=5,state=voter",
                "link2:links=2,up=2,unsent_bytes=14,frames_dropped=4",
                "link3:links=2,up=1,unsent_bytes=14,frames_dropped=4",
            ]
        );
    }

    #[test]
    fn replication_has_the_fields_of_redis() {
        let view = view();
        let lines = written(|reports, text| replication("run", Some(&view), reports, text));
        assert_eq!(
            lines[..4],
            [
                "role:master",
                "connected_slaves:2",
                "slave0:ip=10.0.0.2,port=7000,state=online,offset=10,lag=2",
                "slave1:ip=10.0.0.3,port=7000,state=online,offset=4,lag=2",
            ]
        );
        assert!(lines.contains(&format!("master_replid:{}", node_id_text(&[9; 16]))), "{lines:?}");
        assert!(lines.contains(&"master_repl_offset:10".to_owned()), "{lines:?}");
        let mut alone = String::new();
        replication("run", None, &[], &mut alone);
        assert!(
            alone.starts_with("role:master\r\nconnected_slaves:0\r\n")
                && alone.contains("master_replid:run\r\n")
        );
    }

    #[test]
    fn cluster_has_the_meta_group() {
        let view = view();
        let lines = written(|reports, text| cluster(Some(&view), reports, text));
        assert_eq!(
            lines,
            [
                "cluster_enabled:1",
                "cluster_node:1",
                "cluster_known_nodes:3",
                "cluster_epoch:3",
                "cluster_feature_level:1",
                "cluster_feature_levels:1=1,2=1,3=1",
                "cluster_meta_leader:2",
                "cluster_meta_term:4",
                "cluster_meta_applied:12",
            ]
        );
        let mut alone = String::new();
        cluster(None, &[], &mut alone);
        assert_eq!(alone, "cluster_enabled:0\r\n");
    }
}
