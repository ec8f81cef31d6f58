//! GETs at a fixed rate, alone and beside a stream of SETs: what readers notice of writers that wait for the disk.
//!
//! The GETs are an open loop, so a stall is charged to every GET that was due during it. The client that sets runs only
//! while the one that gets has nothing to do: both share a CPU, and the GETs' latencies are not to contain the other
//! client's work.

use std::time::{Duration, Instant};

use crate::{
    Settings,
    client::Measured,
    failure::{Failure, Result},
    process::pass,
    report::{Report, Table},
    rows::Row,
    server::Server,
    statistics::{Spread, short},
    throughput::prepare,
};

/// Connections that set, without pipelines.
const WRITERS: u64 = 50;

/// How long the writers' connections may take to be there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// How long writers are at work before GETs are measured.
const WARM_UP: Duration = Duration::from_millis(500);

/// One round on one server.
struct Round {
    quiet: Measured,
    beside: Measured,
    sets: Measured,
}

impl Round {
    fn ratio(&self) -> f64 {
        self.beside.p99_us / self.quiet.p99_us
    }
}

/// Measures `rows`, all of which are of that kind, on paused servers, and leaves them paused.
pub(crate) fn run(
    settings: &Settings,
    report: &mut Report,
    title: &str,
    servers: &[Server],
    rows: &[Row],
) -> Result<()> {
    let mut table = Table::new(
        2,
        [
            "row",
            "server",
            "quiet p50 us",
            "p99 us",
            "p99.9 us",
            "beside SETs p50 us",
            "p99 us",
            "p99.9 us",
            "max us",
            "p99 beside / quiet",
            "SETs/s",
            "SET p99 us",
        ],
    );
    let mut filled = None;
    for row in rows {
        prepare(settings, servers, row, &mut filled)?;
        let mut rounds: Vec<Vec<Round>> = servers.iter().map(|_| Vec::new()).collect();
        for number in 1..=settings.rounds {
            for (server, rounds) in servers.iter().zip(&mut rounds) {
                server.resume()?;
                let round = measure(settings, server, row)?;
                server.rest()?;
                eprintln!(
                    "{} {number}/{} {}: p99 {:.1} us, beside {} SETs/s {:.1} us",
                    row.name,
                    settings.rounds,
                    server.name,
                    round.quiet.p99_us,
                    short(round.sets.requests_per_second),
                    round.beside.p99_us
                );
                rounds.push(round);
            }
        }
        for (server, rounds) in servers.iter().zip(&rounds) {
            let figures: [fn(&Round) -> f64; 10] = [
                |round| round.quiet.p50_us,
                |round| round.quiet.p99_us,
                |round| round.quiet.p999_us,
                |round| round.beside.p50_us,
                |round| round.beside.p99_us,
                |round| round.beside.p999_us,
                |round| round.beside.max_us,
                Round::ratio,
                |round| round.sets.requests_per_second,
                |round| round.sets.p99_us,
            ];
            let cells = figures.map(|figure| Spread::of(rounds.iter().map(figure)).write(short));
            table.line([vec![row.name.clone(), server.name.clone()], cells.into()].concat());
        }
    }
    let remark = format!(
        "Median (range) of {} alternating rounds. `duva-load {}`, first alone, then beside {WRITERS} connections that set \
         as fast as they are answered. Both clients on CPU {}, the second under SCHED_IDLE; the server on CPU {}.",
        settings.rounds,
        rows[0].options(settings.scale),
        settings.client_cpu,
        settings.server_cpu
    );
    report.table(&format!("{title}: reads beside writes"), &remark, &table)
}

fn measure(settings: &Settings, server: &Server, row: &Row) -> Result<Round> {
    let gets = row.options(settings.scale);
    let Row { keys, value_len_bytes, .. } = row;
    let sets = format!(
        "--op set --connections {WRITERS} --pipeline 1 --keys {keys} --value-bytes {value_len_bytes} --until-input-ends"
    );
    let quiet = settings.clients.duva_load(server, &gets)?;
    let writers = settings.clients.duva_load_in_leisure(server, &sets)?;
    wait_for_clients(server, |count| count > WRITERS)?;
    pass(WARM_UP);
    let beside = settings.clients.duva_load(server, &gets)?;
    let sets = writers.measured()?;
    match quiet.missing.max(beside.missing) {
        Some(1..) => Err(Failure::new(format!("{}: keys are missing in {}", server.name, row.name))),
        _ => Ok(Round { quiet, beside, sets }),
    }
}

/// Waits until the number of clients, this one included, is as `is_enough` says.
pub(crate) fn wait_for_clients(server: &Server, is_enough: impl Fn(u64) -> bool) -> Result<()> {
    let mut connection = server.connect()?;
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    while connection.info("clients", "connected_clients")?.is_some_and(|count| !is_enough(count)) {
        if Instant::now() > deadline {
            return Err(Failure::new(format!("{}: the load does not begin or end", server.name)));
        }
        pass(Duration::from_millis(1));
    }
    Ok(())
}
