//! A fourth node joins three that are full and under load.
//!
//! Four nodes and not two: from three replicas to three replicas a write waits for as many syncs before as during, so what is
//! compared is the transfer's doing. The new node gets three quarters of all replicas. The load is an open loop at the first
//! node, which forwards what others lead.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{Cluster, is_whole};
use crate::{
    Settings,
    beside::wait_for_clients,
    client::Measured,
    failure::{Failure, Result},
    process,
    report::{Report, Table},
    server::{Kind, Server},
    sockets::links_to,
    statistics::short,
};

/// The load, times `--scale`: as much as `--expire` has beside it.
const RATE: f64 = 20_000.0;
const CONNECTIONS: u64 = 50;

/// Between the filling and the load.
const SETTLE: Duration = Duration::from_secs(3);

/// How long the load is measured before, in seconds.
const WINDOW_S: u64 = 30;

/// How long a node may take until it has all that it is meant to have.
const JOIN_TIMEOUT: Duration = Duration::from_secs(900);

/// Between two looks at the new node, and between two at its connections, which takes a process.
const LOOK: Duration = Duration::from_millis(100);
const LOOKS_A_COUNT: usize = 10;

/// A join.
struct Joined {
    before: Measured,
    during: Measured,
    /// While it was filled, before, and during.
    errors: [u64; 3],
    first_error: Option<String>,
    /// Until it was a voter of all its shards.
    voter_after: Duration,
    /// Until leaders were spread, too.
    whole_after: Duration,
    replicas: usize,
    snapshots: u64,
    /// All that came to it from other nodes until it was a voter.
    received_bytes: u64,
}

fn traffic(settings: &Settings) -> String {
    let rate = (RATE * settings.scale).round();
    format!("--op mixed --reads 0.9 --rate {rate} --connections {CONNECTIONS} --pipeline 16 --value-bytes 32")
}

pub(super) fn run(settings: &Settings, report: &mut Report, kind: &Kind) -> Result<()> {
    let traffic = traffic(settings);
    let keys = settings.many_keys();
    let joined = join(settings, kind, keys)?;
    let mut latencies = Table::new(1, ["", "requests/s", "p50 us", "p99 us", "p99.9 us", "max us"]);
    for (name, measured) in [("before", &joined.before), ("during", &joined.during)] {
        let figures = [
            measured.requests_per_second,
            measured.p50_us,
            measured.p99_us,
            measured.p999_us,
            measured.max_us,
        ];
        latencies.line([vec![name.to_owned()], figures.map(short).into()].concat());
    }
    let ratios = [
        joined.during.requests_per_second / joined.before.requests_per_second,
        joined.during.p50_us / joined.before.p50_us,
        joined.during.p99_us / joined.before.p99_us,
        joined.during.p999_us / joined.before.p999_us,
        joined.during.max_us / joined.before.max_us,
    ];
    latencies.line([vec!["ratio".to_owned()], ratios.map(|ratio| format!("{ratio:.2}")).into()].concat());
    let remark = format!(
        "{} keys of 16 bytes with values of 32 bytes on three nodes. `duva-load {traffic}` at one of them, {WINDOW_S} s before \
         and from before the start of a fourth node until it has its place. All four nodes on CPU {}, the client on CPU {}. One \
         round. Errors while it was filled: {}, before: {}, during: {}{}.",
        short(keys as f64),
        settings.server_cpu,
        settings.client_cpu,
        joined.errors[0],
        joined.errors[1],
        joined.errors[2],
        joined.first_error.map_or_else(String::new, |error| format!(", the first one `{error}`"))
    );
    report.table("A node joins: other traffic", &remark, &latencies)?;
    let mut table = Table::new(
        1,
        [
            "voter of all its shards after s",
            "leaders spread after s",
            "replicas",
            "snapshots installed",
            "received, MB",
            "MB/s",
        ],
    );
    let seconds = joined.voter_after.as_secs_f64();
    table.line([
        format!("{seconds:.1}"),
        format!("{:.1}", joined.whole_after.as_secs_f64()),
        joined.replicas.to_string(),
        joined.snapshots.to_string(),
        short(joined.received_bytes as f64 / 1e6),
        short(joined.received_bytes as f64 / 1e6 / seconds),
    ]);
    let remark = "Times run from the start of the process. Received is what other nodes sent to it until it was a voter of all its \
                  shards (`bytes_sent` of their connections, `ss -ti`): snapshots or, of shards whose leaders still have all entries, \
                  these, and the writes and heartbeats meanwhile.";
    report.table("A node joins: the transfer", remark, &table)
}

fn join(settings: &Settings, kind: &Kind, keys: u64) -> Result<Joined> {
    let (clients, traffic) = (&settings.clients, traffic(settings));
    let mut cluster = Cluster::start(kind, settings)?;
    let fill = format!("--fill {keys} --value-bytes 32 --connections 50 --pipeline 64");
    let load =
        |options: &str| clients.duva_load_in_background(cluster.node(0), options)?.measured_with_errors();
    let (_, errors_filling, first_filling) = load(&fill)?;
    // What the filling left behind is over: rewrites of journals, and pages that are not on the disk.
    for node in cluster.running() {
        node.wait_until_saved(|| Ok(()))?;
    }
    cluster.directories[0].sync()?;
    process::pass(SETTLE);
    let (before, errors_before, first_before) =
        load(&format!("{traffic} --keys {keys} --duration {WINDOW_S}"))?;
    eprintln!(
        "join: filled with {errors_filling} errors, p99 {:.0} us before, {errors_before} errors",
        before.p99_us
    );
    wait_for_clients(cluster.node(0), |count| count <= 1)?;
    let load = clients
        .duva_load_in_background(cluster.node(0), &format!("{traffic} --keys {keys} --until-input-ends"))?;
    wait_for_clients(cluster.node(0), |count| count > CONNECTIONS)?;
    let start = Instant::now();
    let node = cluster.start_another()?;
    let mut connections = BTreeMap::new();
    // The last thing that changed of its replicas, and when.
    let (mut seen, mut voter_after, mut received_bytes) = ((0, false), Duration::ZERO, 0);
    for look in 0.. {
        let now = replicas(cluster.node(node))?;
        let has_changed = now != seen;
        if has_changed {
            (seen, voter_after) = (now, start.elapsed());
        }
        if has_changed || look % LOOKS_A_COUNT == 0 {
            let links = links_to(cluster.ports[node].1)?;
            connections.extend(links.into_iter().map(|(port, link)| (port, link.sent_bytes)));
            if has_changed {
                received_bytes = connections.values().sum();
            }
        }
        if seen.1 && is_whole(&cluster.shards(cluster.node(node))?, cluster.nodes.len()) {
            break;
        }
        if start.elapsed() > JOIN_TIMEOUT {
            return Err(Failure::new(format!("the new node has {seen:?} replicas, and not all of its own")));
        }
        process::pass(LOOK);
    }
    let whole_after = start.elapsed();
    let (during, errors_during, first_during) = load.measured_with_errors()?;
    eprintln!(
        "join: voter of {} shards after {:.1} s, p99 {:.0} us during, {errors_during} errors",
        seen.0,
        voter_after.as_secs_f64(),
        during.p99_us
    );
    let snapshots = cluster.node(node).connect()?.info("raft", "raft_snapshots_installed")?;
    Ok(Joined {
        before,
        during,
        errors: [errors_filling, errors_before, errors_during],
        first_error: first_filling.or(first_before).or(first_during),
        voter_after,
        whole_after,
        replicas: seen.0,
        snapshots: snapshots.unwrap_or_default(),
        received_bytes,
    })
}

/// How many replicas a node has, and whether all are voters.
fn replicas(node: &Server) -> Result<(usize, bool)> {
    let text = node.connect()?.command(&["INFO", "raft"])?;
    Ok(states(&text))
}

fn states(text: &str) -> (usize, bool) {
    let states: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("shard"))
        .filter_map(|line| line.trim_end().split_once("state=").map(|(_, state)| state))
        .collect();
    // One that hands its leadership over votes as well.
    let votes = |state: &&str| matches!(*state, "voter" | "handing-over");
    (states.len(), !states.is_empty() && states.iter().all(votes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_counted_by_their_states() {
        let line = |state: &str| format!("shard7:role=follower,lag=,snapshot=0,state={state}\r\n");
        let text = |states: &[&str]| states.iter().map(|state| line(state)).collect::<String>();
        assert_eq!(states("# Raft\r\nraft_groups:0\r\n"), (0, false));
        assert_eq!(states(&text(&["voter", "learner"])), (2, false));
        assert_eq!(states(&text(&["voter", "handing-over"])), (2, true));
    }
}
