//! The rows: throughput, latency and server CPU a request, in alternating rounds.
//!
//! All servers run throughout, each with the row's data set; all but the one being measured are stopped (SIGSTOP), so
//! that their timers take nothing from it. Rounds go A B A B ..., and ratios are those of the two rounds of a pair. A
//! server that rewrites its journal at the end of a round finishes that before it is stopped.

use crate::{
    Settings, beside,
    client::Measured,
    failure::{Failure, Result},
    process::Usage,
    report::{Report, Table},
    rows::{Field, Load, Row},
    server::{Kind, Persistence, Server},
    statistics::{Spread, short},
};

/// One round of one row on one server.
struct Round {
    client: Measured,
    usage: Usage,
}

impl Round {
    fn cpu_us(&self) -> f64 {
        self.usage.cpu_ns as f64 / 1e3 / self.client.requests as f64
    }

    fn sleeps_per_second(&self) -> f64 {
        self.usage.sleeps as f64 * self.client.requests_per_second / self.client.requests as f64
    }
}

/// A figure of a round: what its column is called and how it is read.
type Figure = (&'static str, fn(&Round) -> f64);

/// The first [`RATIO_COUNT`] are compared.
const FIGURES: [Figure; 7] = [
    ("requests/s", |round| round.client.requests_per_second),
    ("CPU us/request", Round::cpu_us),
    ("p50 us", |round| round.client.p50_us),
    ("p99 us", |round| round.client.p99_us),
    ("p99.9 us", |round| round.client.p999_us),
    ("max us", |round| round.client.max_us),
    ("sleeps/s", Round::sleeps_per_second),
];

const RATIO_COUNT: usize = 5;

/// Measures `rows` on `kinds`; the first one is compared with the others.
pub(crate) fn run(
    settings: &Settings,
    report: &mut Report,
    title: &str,
    kinds: &[Kind],
    rows: &[Row],
) -> Result<()> {
    let of = |row: &Row| (row.field, row.load == Load::GetBesideSet);
    for rows in rows.chunk_by(|one, next| of(one) == of(next)) {
        let (field, is_beside) = of(&rows[0]);
        let kinds = members(field, kinds)?;
        let title = if field.needs_disk() { format!("{title}, {field}") } else { title.to_owned() };
        let mut servers = Vec::new();
        for kind in &kinds {
            servers.push(Server::start(kind, settings)?);
        }
        for server in &servers {
            server.pause()?;
        }
        if is_beside {
            beside::run(settings, report, &title, &servers, rows)?;
        } else {
            compare(settings, report, &title, &servers, rows)?;
        }
    }
    Ok(())
}

/// The servers of a field, the one that is compared with the others first.
fn members(field: Field, kinds: &[Kind]) -> Result<Vec<Kind>> {
    let keeping = |kind: &Kind, persistence| {
        let kept = kind.keeping(persistence);
        if kept.is_none() {
            eprintln!(
                "side-by-side: {} has no part in rows with {field}: see {{persistence}} in --help",
                kind.name
            );
        }
        kept
    };
    let members: Vec<Kind> = match field {
        Field::All(persistence) => kinds.iter().filter_map(|kind| keeping(kind, persistence)).collect(),
        Field::CostOf(persistence) => keeping(&kinds[0], persistence)
            .into_iter()
            .chain(keeping(&kinds[0], Persistence::None))
            .zip([", with a journal", ", without"])
            .map(|(kind, suffix)| Kind { name: kind.name.clone() + suffix, ..kind })
            .collect(),
    };
    if members.is_empty() {
        return Err(Failure::new(format!("no server can be measured with {field}")));
    }
    Ok(members)
}

fn compare(
    settings: &Settings,
    report: &mut Report,
    title: &str,
    servers: &[Server],
    rows: &[Row],
) -> Result<()> {
    let mut figures = Table::new(
        2,
        [
            "row",
            "server",
            FIGURES[0].0,
            FIGURES[1].0,
            FIGURES[2].0,
            FIGURES[3].0,
            FIGURES[4].0,
            FIGURES[5].0,
            FIGURES[6].0,
        ],
    );
    let mut ratios =
        Table::new(2, ["row", "ratio", FIGURES[0].0, FIGURES[1].0, FIGURES[2].0, FIGURES[3].0, FIGURES[4].0]);
    let mut filled = None;
    let mut ended = Ok(());
    for row in rows {
        // What was measured before a failure is worth printing.
        let rounds = match prepare(settings, servers, row, &mut filled)
            .and_then(|()| measure(settings, servers, row))
        {
            Ok(rounds) => rounds,
            Err(failure) => {
                ended = Err(failure);
                break;
            }
        };
        for (server, rounds) in servers.iter().zip(&rounds) {
            let cells = FIGURES.map(|(_, figure)| Spread::of(rounds.iter().map(figure)).write(short));
            figures.line([vec![row.name.clone(), server.name.clone()], cells.into()].concat());
        }
        for (server, others) in servers.iter().zip(&rounds).skip(1) {
            let ratio = |&(_, figure): &Figure| {
                let [ours, theirs] =
                    [&rounds[0], others].map(|rounds| rounds.iter().map(figure).collect::<Vec<_>>());
                Spread::of_ratios(&ours, &theirs).write(|ratio| format!("{ratio:.2}"))
            };
            let cells: Vec<String> = FIGURES[..RATIO_COUNT].iter().map(ratio).collect();
            let name = format!("{} / {}", servers[0].name, server.name);
            ratios.line([vec![row.name.clone(), name], cells].concat());
        }
    }
    let remark = format!(
        "Median (range) of {} alternating rounds; requests x {}. Server on CPU {}, client on CPU {}. A request of MSET \
         has ten keys; latencies of a pipeline are those of the whole pipeline. Sleeps: how often a thread of the \
         server went to sleep.",
        settings.rounds, settings.scale, settings.server_cpu, settings.client_cpu
    );
    report.table(title, &remark, &figures)?;
    if servers.len() > 1 {
        let remark = "Ratios of the rounds of a pair, median (range). Below 1 is better but for requests/s.";
        report.table(&format!("{title}: ratios"), remark, &ratios)?;
    }
    ended
}

/// A number of keys, and the length of their values, in bytes.
pub(crate) type DataSet = (u64, u64);

/// Gives every server the row's data set, unless the last row had the same.
pub(crate) fn prepare(
    settings: &Settings,
    servers: &[Server],
    row: &Row,
    filled: &mut Option<DataSet>,
) -> Result<()> {
    let data_set = (row.keys, row.value_len_bytes);
    if *filled == Some(data_set) {
        return Ok(());
    }
    for server in servers {
        server.resume()?;
        fill(settings, server, row)?;
        server.rest()?;
    }
    *filled = Some(data_set);
    Ok(())
}

/// Rounds of one row, by server.
fn measure(settings: &Settings, servers: &[Server], row: &Row) -> Result<Vec<Vec<Round>>> {
    let options = row.options(settings.scale);
    let mut rounds: Vec<Vec<Round>> = servers.iter().map(|_| Vec::new()).collect();
    for number in 1..=settings.rounds {
        for (server, rounds) in servers.iter().zip(&mut rounds) {
            server.resume()?;
            let before = server.usage()?;
            let client = match row.load {
                Load::RedisBenchmark { .. } => settings.clients.redis_benchmark(server, &options)?,
                Load::Steady { .. } | Load::GetBesideSet => settings.clients.duva_load(server, &options)?,
            };
            let usage = server.usage()?.since(before);
            server.rest()?;
            if client.missing.is_some_and(|missing| missing > 0) {
                return Err(Failure::new(format!("{}: keys are missing in {}", server.name, row.name)));
            }
            let round = Round { client, usage };
            eprintln!(
                "{} {number}/{} {}: {} requests/s, {:.3} us CPU, p50 {:.1} us, p99 {:.1} us",
                row.name,
                settings.rounds,
                server.name,
                short(client.requests_per_second),
                round.cpu_us(),
                client.p50_us,
                client.p99_us
            );
            rounds.push(round);
        }
    }
    Ok(rounds)
}

/// Empties a server and gives every key of the row a value.
fn fill(settings: &Settings, server: &Server, row: &Row) -> Result<()> {
    server.connect()?.command(&["FLUSHALL"])?;
    let Row { keys, value_len_bytes, .. } = row;
    let pipeline = if *value_len_bytes > 4096 { 1 } else { 16 };
    let options =
        format!("--fill {keys} --value-bytes {value_len_bytes} --connections 10 --pipeline {pipeline}");
    settings.clients.duva_load(server, &options).map(drop)
}
