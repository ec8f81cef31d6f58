//! A cluster that nobody asks for anything: what its groups, links and detectors cost by themselves.

use std::{collections::BTreeMap, time::Duration};

use super::{Cluster, NODES};
use crate::{
    Settings,
    failure::{Failure, Result},
    process::{self, Usage},
    report::{Report, Table},
    sockets::{Link, links_to},
    statistics::{Spread, short},
};

/// After the last node has its place, and then watched.
const SETTLE: Duration = Duration::from_secs(5);
const WINDOW: Duration = Duration::from_secs(10);

/// Pairs of nodes, and the number of each.
const PAIRS: [(usize, usize); 3] = [(0, 1), (0, 2), (1, 2)];

/// All connections between nodes: the node that opened it, the one it goes to, and the opener's port.
type Links = BTreeMap<(usize, usize, u16), Link>;

pub(super) fn run(settings: &Settings, report: &mut Report, cluster: &Cluster<'_>) -> Result<()> {
    process::pass(SETTLE);
    let shards = cluster.node(0).connect()?.info("raft", "raft_groups")?.unwrap_or_default();
    let window = WINDOW.mul_f64(settings.scale).max(Duration::from_secs(1));
    let mut cpu: Vec<Vec<f64>> = vec![Vec::new(); NODES];
    let mut sleeps = cpu.clone();
    let mut packets: Vec<Vec<f64>> = vec![Vec::new(); PAIRS.len()];
    for number in 1..=settings.rounds {
        let (links_before, before) = (links(cluster)?, usages(cluster)?);
        process::pass(window);
        let (after, links_after) = (usages(cluster)?, links(cluster)?);
        for (node, (before, after)) in before.iter().zip(&after).enumerate() {
            let usage = after.since(*before);
            cpu[node].push(usage.cpu_ns as f64 / window.as_nanos() as f64 * 100.0);
            sleeps[node].push(usage.sleeps as f64 / window.as_secs_f64());
        }
        for (pair, packets) in PAIRS.iter().zip(&mut packets) {
            packets.push(segments_between(*pair, &links_before, &links_after) as f64 / window.as_secs_f64());
        }
        eprintln!(
            "idle-cluster {number}/{}: {:.2} % CPU, {:.0} packets/s",
            settings.rounds,
            cpu.iter().map(|rounds| rounds[number - 1]).fold(0.0, f64::max),
            packets.iter().map(|rounds| rounds[number - 1]).fold(0.0, f64::max)
        );
    }
    let mut table = Table::new(1, ["node", "CPU, % of a core", "sleeps/s"]);
    for (node, (cpu, sleeps)) in cpu.into_iter().zip(sleeps).enumerate() {
        let cpu = Spread::of(cpu).write(|percent| format!("{percent:.2}"));
        table.line([node.to_string(), cpu, Spread::of(sleeps).write(short)]);
    }
    let remark = format!(
        "Three nodes with {shards} shards, three replicas of each, no clients and no keys. Median (range) of {} times {:.0} s. \
         CPU time is the scheduler's, of all threads.",
        settings.rounds,
        window.as_secs_f64()
    );
    report.table("An idle cluster: CPU", &remark, &table)?;
    let mut table = Table::new(1, ["nodes", "packets/s"]);
    for ((one, other), packets) in PAIRS.into_iter().zip(packets) {
        table.line([format!("{one} and {other}"), Spread::of(packets).write(short)]);
    }
    let remark = "TCP segments on the connections between two nodes, both ways, those that only acknowledge included, as the kernel \
                  counts them for each connection (`ss -ti`).";
    report.table("An idle cluster: packets", remark, &table)
}

fn usages(cluster: &Cluster<'_>) -> Result<Vec<Usage>> {
    (0..NODES).map(|node| cluster.node(node).usage()).collect()
}

fn links(cluster: &Cluster<'_>) -> Result<Links> {
    let mut links = Links::new();
    for (to, &(_, peer_port)) in cluster.ports.iter().enumerate() {
        for (port, link) in links_to(peer_port)? {
            let from = (0..NODES).find(|&node| cluster.node(node).pid() == link.pid);
            let from = from.ok_or_else(|| {
                Failure::new(format!("process {} talks to the nodes and is none", link.pid))
            })?;
            links.insert((from, to, port), link);
        }
    }
    let is_linked = |pair: (usize, usize)| links.keys().any(|&(from, to, _)| (from, to) == pair);
    match PAIRS.into_iter().find(|&(one, other)| !is_linked((one, other)) || !is_linked((other, one))) {
        None => Ok(links),
        Some((one, other)) => Err(Failure::new(format!("nodes {one} and {other} are not connected"))),
    }
}

/// Segments between two nodes that were counted after `before`; a connection that was not there then counts whole.
fn segments_between((one, other): (usize, usize), before: &Links, after: &Links) -> u64 {
    let is_theirs =
        |&(from, to, _): &(usize, usize, u16)| (from, to) == (one, other) || (to, from) == (one, other);
    let grown = |(key, link): (&(usize, usize, u16), &Link)| {
        link.segments.saturating_sub(before.get(key).map_or(0, |link| link.segments))
    };
    after.iter().filter(|(key, _)| is_theirs(key)).map(grown).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_of_a_pair_are_those_of_both_directions() {
        let link = |segments| Link { pid: 1, segments, sent_bytes: 0 };
        let before = Links::from([((0, 1, 7), link(10)), ((1, 0, 8), link(20)), ((0, 2, 9), link(5))]);
        let after = Links::from([
            ((0, 1, 7), link(13)),
            ((1, 0, 8), link(24)),
            ((1, 0, 10), link(5)),
            ((0, 2, 9), link(6)),
        ]);
        assert_eq!(segments_between((0, 1), &before, &after), 12);
        assert_eq!(segments_between((0, 2), &before, &after), 1);
        assert_eq!(segments_between((1, 2), &before, &after), 0);
    }
}
