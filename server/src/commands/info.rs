//! INFO: the sections and fields that monitoring tools read.

use std::fmt::Write;

use duva_engine::{OnceTotals, command};

use crate::core::{
    admin::{DatabaseReport, Report},
    groups::ClusterReport,
    node::Node,
    persistence_report::PersistenceReport,
    stats::{CommandReport, ErrorCounts},
};

macro_rules! lines {
    ($text:expr, $($name:literal => $value:expr),+ $(,)?) => {
        $( line($text, format_args!(concat!($name, ":{}"), $value)); )+
    };
}

mod cluster;
mod persistence;

/// The sections, in order, and whether INFO without arguments shows them.
const SECTIONS: [(&str, Section, bool); 15] = [
    ("server", server, true),
    ("clients", clients, true),
    ("memory", memory, true),
    ("persistence", persistence, true),
    ("stats", stats, true),
    ("replication", replication, true),
    ("cpu", cpu, true),
    ("modules", nothing, true),
    ("commandstats", command_stats, false),
    ("errorstats", error_stats, true),
    // No latencies are tracked: that would take two readings of the clock a request.
    ("latencystats", nothing, false),
    ("raft", raft, false),
    ("cluster", cluster, true),
    ("dedup", dedup, false),
    ("keyspace", keyspace, true),
];

type Section = fn(&Node, &[Report], &mut String);

/// The text of INFO for the sections named; none: the default ones.
pub(super) fn text(node: &Node, reports: &[Report], names: &[String]) -> String {
    let everything = ["all", "everything"];
    let wants = |section: &str, by_default: bool| {
        if names.is_empty() {
            return by_default;
        }
        // What Redis does not have is shown to those who name it.
        names.iter().any(|name| {
            name == section
                || (everything.contains(&&**name) && section != "dedup")
                || (name == "default" && by_default)
        })
    };
    let mut text = String::new();
    for (name, write_section, by_default) in SECTIONS {
        // Redis has no such section.
        let is_there = name != "raft" || node.cluster_view.is_some();
        if is_there && wants(name, by_default) {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            let (initial, rest) = name.split_at(1);
            let title = if name == "cpu" { "CPU".to_owned() } else { initial.to_uppercase() + rest };
            line(&mut text, format_args!("# {title}"));
            write_section(node, reports, &mut text);
        }
    }
    text
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = text.write_fmt(arguments);
    text.push_str("\r\n");
}

fn total(reports: &[Report], of: impl Fn(&Report) -> u64) -> u64 {
    reports.iter().map(of).sum()
}

fn server(node: &Node, _: &[Report], text: &mut String) {
    let uptime_seconds = node.executor.now_ms.saturating_sub(node.shared.started_ms) / 1000;
    let executable = std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_default();
    lines!(text,
        "redis_version" => super::REDIS_VERSION,
        "duva_version" => env!("CARGO_PKG_VERSION"),
        "redis_mode" => if node.cluster_view.is_some() { "cluster" } else { "standalone" },
        "os" => operating_system(),
        "arch_bits" => usize::BITS,
        "multiplexing_api" => "io_uring",
        "process_id" => std::process::id(),
        "run_id" => node.shared.run_id,
        "tcp_port" => node.shared.port,
        "server_time_usec" => node.executor.now_ms * 1000,
        "uptime_in_seconds" => uptime_seconds,
        "uptime_in_days" => uptime_seconds / 86_400,
        "executable" => executable,
        "cores" => node.cores,
        "shards" => node.owners.len(),
    );
}

fn operating_system() -> String {
    let read =
        |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let release = read("/proc/sys/kernel/osrelease");
    format!("{} {release} {}", read("/proc/sys/kernel/ostype"), std::env::consts::ARCH)
}

fn clients(node: &Node, reports: &[Report], text: &mut String) {
    let largest = |of: fn(&Report) -> usize| reports.iter().map(of).max().unwrap_or(0);
    lines!(text,
        "connected_clients" => total(reports, |report| report.clients as u64),
        "maxclients" => node.config.clients_max,
        "client_recent_max_input_buffer" => largest(|report| report.input_bytes_max),
        "client_recent_max_output_buffer" => largest(|report| report.output_bytes_max),
        "blocked_clients" => total(reports, |report| report.clients_blocked as u64),
    );
}

fn memory(_: &Node, reports: &[Report], text: &mut String) {
    let data = total(reports, |report| report.data_bytes as u64);
    let buffers = total(reports, |report| report.client_bytes as u64);
    let used = data + buffers;
    let (resident, resident_peak) = resident_bytes();
    let machine = machine_bytes();
    lines!(text,
        "used_memory" => used,
        "used_memory_human" => human(used),
        "used_memory_rss" => resident,
        "used_memory_rss_human" => human(resident),
        "used_memory_rss_peak" => resident_peak,
        "used_memory_dataset" => data,
        "mem_clients_normal" => buffers,
        "total_system_memory" => machine,
        "total_system_memory_human" => human(machine),
        "maxmemory" => 0,
        "maxmemory_human" => "0B",
        "maxmemory_policy" => "noeviction",
        "mem_fragmentation_ratio" => format_args!("{:.2}", resident as f64 / used.max(1) as f64),
        "mem_allocator" => "mimalloc",
    );
}

fn persistence(node: &Node, reports: &[Report], text: &mut String) {
    let mut total = PersistenceReport::default();
    reports.iter().for_each(|report| total.merge(&report.persistence));
    let status = node.shared.save_status().clone();
    persistence::write(&node.config, &status, &total, node.executor.now_ms, text);
}

fn stats(_: &Node, reports: &[Report], text: &mut String) {
    lines!(text,
        "total_connections_received" => total(reports, |report| report.stats.connections_received),
        "total_commands_processed" => total(reports, calls),
        "total_net_input_bytes" => total(reports, |report| report.stats.input_bytes),
        "total_net_output_bytes" => total(reports, |report| report.stats.output_bytes),
        "rejected_connections" => total(reports, |report| report.stats.connections_rejected),
        "expired_keys" => total(reports, |report| report.keyspace.expired),
        "evicted_keys" => 0,
        "keyspace_hits" => total(reports, |report| report.keyspace.hits),
        "keyspace_misses" => total(reports, |report| report.keyspace.misses),
        "client_query_buffer_limit_disconnections" => total(reports, |report| report.stats.input_limit_closed),
        "client_output_buffer_limit_disconnections" => total(reports, |report| report.stats.output_limit_closed),
        "unexpected_error_replies" => 0,
        "total_error_replies" => total(reports, |report| report.stats.errors.total()),
        "turns" => total(reports, |report| report.stats.turns),
        "core_wakes" => total(reports, |report| report.stats.wakes),
        "forwarded_requests" => total(reports, |report| report.stats.forwarded),
        "gathers" => total(reports, |report| report.stats.gathers),
        "gather_retries" => total(reports, |report| report.stats.gather_retries),
        "receive_buffer_shortages" => total(reports, |report| report.stats.buffer_shortages),
    );
}

/// All requests that were executed.
fn calls(report: &Report) -> u64 {
    report.commands.iter().map(|command| command.calls).sum()
}

/// A section that has only its title.
fn nothing(_: &Node, _: &[Report], _: &mut String) {}

fn command_stats(_: &Node, reports: &[Report], text: &mut String) {
    for command in command::every() {
        let mut sum = CommandReport::default();
        reports.iter().for_each(|report| sum.merge(&report.commands[usize::from(command.number)]));
        if sum.is_empty() {
            continue;
        }
        let micros = sum.total_ns as f64 / 1e3;
        let CommandReport { calls, rejected, failed, .. } = sum;
        line(
            text,
            format_args!(
                "cmdstat_{}:calls={calls},usec={micros:.0},usec_per_call={:.2},rejected_calls={rejected},\
                 failed_calls={failed}",
                command.name,
                micros / calls.max(1) as f64,
            ),
        );
    }
}

fn error_stats(_: &Node, reports: &[Report], text: &mut String) {
    let mut sum = ErrorCounts::default();
    reports.iter().for_each(|report| sum.merge(&report.stats.errors));
    for (code, count) in sum.sorted() {
        line(text, format_args!("errorstat_{code}:count={count}"));
    }
}

fn cluster_reports(reports: &[Report]) -> Vec<&ClusterReport> {
    reports.iter().filter_map(|report| report.cluster.as_deref()).collect()
}

fn replication(node: &Node, reports: &[Report], text: &mut String) {
    cluster::replication(&node.shared.run_id, node.cluster_view.as_deref(), &cluster_reports(reports), text);
}

fn raft(_: &Node, reports: &[Report], text: &mut String) {
    cluster::raft(&cluster_reports(reports), text);
}

fn cpu(_: &Node, _: &[Report], text: &mut String) {
    for (who, system_name, user_name) in [
        (libc::RUSAGE_SELF, "used_cpu_sys", "used_cpu_user"),
        (libc::RUSAGE_CHILDREN, "used_cpu_sys_children", "used_cpu_user_children"),
    ] {
        let (user, system) = cpu_seconds(who);
        line(text, format_args!("{system_name}:{system:.6}"));
        line(text, format_args!("{user_name}:{user:.6}"));
    }
}

fn cluster(node: &Node, reports: &[Report], text: &mut String) {
    cluster::cluster(node.cluster_view.as_deref(), &cluster_reports(reports), text);
}

/// What this node's shards know of requests of ONCE, and applied of them.
fn dedup(_: &Node, reports: &[Report], text: &mut String) {
    let sum = |of: fn(&OnceTotals) -> u64| total(reports, |report| of(&report.keyspace.once));
    lines!(text,
        "dedup_cached" => sum(|once| once.cached),
        "dedup_unique_requests" => sum(|once| once.unique),
        "dedup_duplicate_requests" => sum(|once| once.duplicates),
        "dedup_evicted" => sum(|once| once.evicted),
    );
}

fn keyspace(node: &Node, reports: &[Report], text: &mut String) {
    for number in 0..usize::from(duva_engine::DATABASE_COUNT) {
        let mut sum = DatabaseReport::default();
        for DatabaseReport { keys, expiring, deadlines_ms } in reports.iter().map(|it| it.databases[number]) {
            sum.keys += keys;
            sum.expiring += expiring;
            sum.deadlines_ms += deadlines_ms;
        }
        let DatabaseReport { keys, expiring, .. } = sum;
        if keys > 0 {
            let average_ms = average_ttl_ms(sum, node.executor.now_ms);
            line(text, format_args!("db{number}:keys={keys},expires={expiring},avg_ttl={average_ms}"));
        }
    }
}

/// How long the keys that expire have left on average, in milliseconds; 0 without such keys. Redis estimates it.
fn average_ttl_ms(database: DatabaseReport, now_ms: u64) -> u128 {
    let average_deadline_ms = database.deadlines_ms / database.expiring.max(1) as u128;
    average_deadline_ms.saturating_sub(now_ms.into())
}

fn cpu_seconds(who: i32) -> (f64, f64) {
    // SAFETY: all-zero bytes are a valid rusage, which the call fills.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(who, &mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    (seconds(usage.ru_utime), seconds(usage.ru_stime))
}

/// Resident memory now, and at its peak, in bytes.
fn resident_bytes() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    (kilobytes(&status, "VmRSS:"), kilobytes(&status, "VmHWM:"))
}

fn machine_bytes() -> u64 {
    kilobytes(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemTotal:")
}

fn kilobytes(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix("kB"));
    value.and_then(|value| value.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// A number of bytes as Redis shows it to people.
fn human(bytes: u64) -> String {
    let units = ["B", "K", "M", "G", "T"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes}B") } else { format!("{value:.2}{}", units[unit]) }
}
