//! What clients notice of a snapshot, and how much memory it takes.
//!
//! The load is an open loop, so what a fork or a slow turn delays counts. The loads of saving phases begin just before
//! the command and end with the save.

use std::time::Instant;

use crate::{
    Settings,
    beside::wait_for_clients,
    client::Measured,
    failure::{Failure, Result},
    process,
    report::{Report, Table},
    server::{Kind, Persistence, Server},
    statistics::{Spread, short},
};

const CONNECTIONS: u64 = 50;

const TRAFFIC: &str = "--op mixed --reads 0.5 --rate 50000 --connections 50 --pipeline 16 --value-bytes 32";

/// How long phases are in which nothing is saved, in seconds.
const WINDOW_S: u64 = 5;

/// The phases of a round, and what begins them.
const PHASES: [(&str, Option<&str>); 5] = [
    ("quiet", None),
    ("BGSAVE", Some("BGSAVE")),
    ("after BGSAVE", None),
    ("BGREWRITEAOF", Some("BGREWRITEAOF")),
    ("after BGREWRITEAOF", None),
];

/// One phase of one round.
struct Phase {
    client: Measured,
    seconds: f64,
    memory: Option<Memory>,
}

/// What a save took, in bytes.
struct Memory {
    resident_before: f64,
    /// By how much more of the server was resident at worst.
    resident_grown: f64,
    /// By how much the anonymous memory of the whole machine grew at worst: with what a forked child copied.
    anonymous_grown: f64,
    /// What the server says of it.
    accounted: f64,
}

impl Memory {
    fn percent(&self) -> f64 {
        self.resident_grown.max(self.accounted) / self.resident_before * 100.0
    }
}

pub(crate) fn run(settings: &Settings, report: &mut Report, kinds: &[Kind]) -> Result<()> {
    let keys = settings.many_keys();
    let mut latencies = Table::new(
        2,
        ["server", "phase", "seconds", "requests/s", "p50 us", "p99 us", "p99.9 us", "max us", "p99 / quiet"],
    );
    let mut memory = Table::new(
        2,
        [
            "server",
            "phase",
            "RSS before, MB",
            "RSS grown, MB",
            "machine's anonymous memory grown, MB",
            "the server's own account, MB",
            "extra, % of RSS",
        ],
    );
    let mut servers = Vec::new();
    for kind in kinds {
        match prepare(settings, kind, keys) {
            Ok(server) => servers.push(server),
            Err(failure) => {
                report.failed(&mut latencies, &kind.name, &failure);
            }
        }
    }
    let mut rounds: Vec<Vec<[Phase; 5]>> = servers.iter().map(|_| Vec::new()).collect();
    for number in 1..=settings.rounds {
        for (server, rounds) in servers.iter().zip(&mut rounds) {
            server.resume()?;
            let round = measure(settings, server, keys)?;
            server.rest()?;
            for ((name, _), phase) in PHASES.iter().zip(&round) {
                eprintln!(
                    "bgsave {number}/{} {} {name}: {:.1} s, p99 {:.1} us",
                    settings.rounds, server.name, phase.seconds, phase.client.p99_us
                );
            }
            rounds.push(round);
        }
    }
    for (server, rounds) in servers.iter().zip(&rounds) {
        for (index, (name, _)) in PHASES.iter().enumerate() {
            let figures: [fn(&Phase) -> f64; 6] = [
                |phase| phase.seconds,
                |phase| phase.client.requests_per_second,
                |phase| phase.client.p50_us,
                |phase| phase.client.p99_us,
                |phase| phase.client.p999_us,
                |phase| phase.client.max_us,
            ];
            let names = [server.name.clone(), (*name).to_owned()];
            let cells = figures
                .map(|figure| Spread::of(rounds.iter().map(|round| figure(&round[index]))).write(short));
            let ratio =
                Spread::of(rounds.iter().map(|round| round[index].client.p99_us / round[0].client.p99_us));
            latencies
                .line([names.as_slice(), &cells, &[ratio.write(|ratio| format!("{ratio:.2}"))]].concat());
            let taken: Vec<&Memory> =
                rounds.iter().filter_map(|round| round[index].memory.as_ref()).collect();
            if taken.is_empty() {
                continue;
            }
            let figures: [fn(&Memory) -> f64; 5] = [
                |memory| memory.resident_before / 1e6,
                |memory| memory.resident_grown / 1e6,
                |memory| memory.anonymous_grown / 1e6,
                |memory| memory.accounted / 1e6,
                Memory::percent,
            ];
            let cells =
                figures.map(|figure| Spread::of(taken.iter().map(|memory| figure(memory))).write(short));
            memory.line([names.as_slice(), &cells].concat());
        }
    }
    let remark = format!(
        "{} keys of 16 bytes with values of 32 bytes, appendfsync everysec. `duva-load {TRAFFIC}` throughout: {WINDOW_S} s \
         where nothing is saved, else as long as the save takes. Median (range) of {} alternating rounds. All of a server, \
         what it forks included, on CPU {}, the client on CPU {}.",
        short(keys as f64),
        settings.rounds,
        settings.server_cpu,
        settings.client_cpu
    );
    report.table("Saving under load", &remark, &latencies)?;
    let remark = "Peaks while saving, looked at every 20 ms, over the moment before. A forked child shares its parent's \
                  memory but for what was copied on write, which shows in the machine's anonymous memory and in the \
                  server's own account (`rdb_last_cow_size`, `aof_last_cow_size`); extra is the larger of the RSS grown and \
                  that account.";
    report.table("Saving under load: memory", remark, &memory)
}

/// A server with all keys, stopped.
fn prepare(settings: &Settings, kind: &Kind, keys: u64) -> Result<Server> {
    let kind = kind.keeping(Persistence::EverySecond).ok_or_else(|| {
        Failure::new(format!("{} cannot be told to keep its data: see {{persistence}} in --help", kind.name))
    })?;
    let server = Server::start(&kind.with_arguments("--auto-aof-rewrite-percentage 0"), settings)?;
    let options = format!("--fill {keys} --value-bytes 32 --connections 4 --pipeline 64");
    settings.clients.duva_load(&server, &options)?;
    server.rest()?;
    Ok(server)
}

fn measure(settings: &Settings, server: &Server, keys: u64) -> Result<[Phase; 5]> {
    let mut phases = Vec::new();
    for (_, command) in PHASES {
        phases.push(match command {
            Some(command) => saving(settings, server, keys, command)?,
            None => {
                let options = format!("{TRAFFIC} --keys {keys} --duration {WINDOW_S}");
                let client = settings.clients.duva_load(server, &options)?;
                Phase { client, seconds: WINDOW_S as f64, memory: None }
            }
        });
    }
    Ok(phases.try_into().unwrap_or_else(|_| unreachable!("a phase for each")))
}

fn saving(settings: &Settings, server: &Server, keys: u64, command: &str) -> Result<Phase> {
    let mut connection = server.connect()?;
    // This connection, and the one that asks.
    wait_for_clients(server, |count| count <= 2)?;
    let options = format!("{TRAFFIC} --keys {keys} --until-input-ends");
    let client = settings.clients.duva_load_in_background(server, &options)?;
    wait_for_clients(server, |count| count > CONNECTIONS + 1)?;
    let look = || Ok::<_, Failure>((server.resident_bytes()? as f64, process::anonymous_bytes()? as f64));
    let before = look()?;
    let (mut resident_grown, mut anonymous_grown) = (0_f64, 0_f64);
    let start = Instant::now();
    connection.command(&[command])?;
    server.wait_until_saved(|| {
        let now = look()?;
        resident_grown = resident_grown.max(now.0 - before.0);
        anonymous_grown = anonymous_grown.max(now.1 - before.1);
        Ok(())
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let client = client.measured()?;
    let field = if command == "BGSAVE" { "rdb_last_cow_size" } else { "aof_last_cow_size" };
    let accounted = connection.info("persistence", field)?.unwrap_or(0) as f64;
    let memory = Memory { resident_before: before.0, resident_grown, anonymous_grown, accounted };
    Ok(Phase { client, seconds, memory: Some(memory) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_memory_is_what_grew_or_what_was_copied() {
        let memory = |resident_grown, accounted| Memory {
            resident_before: 200.0,
            resident_grown,
            anonymous_grown: 0.0,
            accounted,
        };
        assert_eq!(memory(10.0, 4.0).percent(), 5.0);
        assert_eq!(memory(0.0, 100.0).percent(), 50.0);
    }
}
