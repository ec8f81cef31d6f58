//! Rounds of writes that alternate with those of three nodes of etcd.
//!
//! etcd is started anew for each round, so that it is not there while the cluster of ours is measured, and its history begins
//! empty; the idle cluster of ours stays. Its own load, `etcdctl check perf`, has four sizes, all of which take a minute; what they
//! do not cover is put by a loop of ours that makes the same calls, and to show what that one is worth it does what etcdctl's does
//! as well.

use std::env;

use super::{Cluster, Round, Row, rows};
use crate::{
    Settings,
    etcd::Etcd,
    failure::{Failure, Result},
    report::{Report, Table},
    statistics::{Spread, short},
};

/// Seconds of our loop before it counts, and while it does.
const WARM_UP_S: usize = 2;
const WINDOW_S: u64 = 10;

/// What our loop measured of etcd.
struct Put {
    writes_per_second: f64,
    cpu_us: f64,
    p50_us: f64,
}

/// Values of 1 KiB from 1,000 clients.
pub(super) fn of_1k(settings: &Settings, report: &mut Report, cluster: &mut Cluster<'_>) -> Result<()> {
    let Some(program) = program() else { return Ok(()) };
    let row = row("cluster-set-1k-c1000")?;
    let (mut ours, mut perf, mut puts) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=settings.rounds {
        ours.push(cluster.round(&row)?);
        let etcd = Etcd::start(program.clone(), settings)?;
        perf.push(etcd.writes_per_second(settings)?);
        puts.push(put(settings, &etcd, 1_000, 1_024)?);
        eprintln!(
            "etcd-set-1k {number}/{}: {} writes/s, etcd {} by etcdctl and {} by our loop",
            settings.rounds,
            short(ours[number - 1].client.requests_per_second),
            short(perf[number - 1]),
            short(puts[number - 1].writes_per_second)
        );
    }
    let mut table = table();
    line_of_ours(&mut table, &row, &ours);
    let ratio = ratio(&ours, &perf);
    let none = || "-".to_owned();
    table.line([
        "etcd, `etcdctl check perf --load=xl`".to_owned(),
        Spread::of(perf.iter().copied()).write(short),
        none(),
        none(),
        ratio,
    ]);
    line_of_puts(&mut table, "etcd, our loop", &ours, &puts);
    let remark = format!(
        "Values of 1 KiB from 1,000 clients, one request at a time each. {} `etcdctl check perf` asks for no more than 15,000 \
         writes a second and takes a minute, our loop {} s.",
        remark(settings),
        window_s(settings)
    );
    report.table("Beside etcd: 1 KiB, 1,000 clients", &remark, &table)
}

/// Values of 64 bytes, 800 of them under way at any time.
pub(super) fn of_64(settings: &Settings, report: &mut Report, cluster: &mut Cluster<'_>) -> Result<()> {
    let Some(program) = program() else { return Ok(()) };
    let row = row("cluster-set-p16")?;
    let (mut ours, mut puts) = (Vec::new(), Vec::new());
    for number in 1..=settings.rounds {
        ours.push(cluster.round(&row)?);
        puts.push(put(settings, &Etcd::start(program.clone(), settings)?, 800, 64)?);
        eprintln!(
            "etcd-set-64 {number}/{}: {} writes/s, etcd {}",
            settings.rounds,
            short(ours[number - 1].client.requests_per_second),
            short(puts[number - 1].writes_per_second)
        );
    }
    let mut table = table();
    line_of_ours(&mut table, &row, &ours);
    line_of_puts(&mut table, "etcd, 800 clients, our loop", &ours, &puts);
    let remark = format!(
        "Values of 64 bytes, 800 requests under way: 16 on each of 50 connections, and one on each of etcd's 800, which \
         knows no pipelines. {} Our loop takes {} s. p50 is that of a whole pipeline, or of a put.",
        remark(settings),
        window_s(settings)
    );
    report.table("Beside etcd: 64 bytes, 800 requests under way", &remark, &table)
}

fn program() -> Option<std::ffi::OsString> {
    let program = env::var_os("PEER_ETCD");
    if program.is_none() {
        eprintln!("side-by-side: etcd has no part in this: PEER_ETCD does not name its program");
    }
    program
}

fn row(name: &str) -> Result<Row> {
    let row = rows().into_iter().find(|row| row.name == name);
    row.ok_or_else(|| Failure::new(format!("there is no row {name}")))
}

fn window_s(settings: &Settings) -> usize {
    settings.scaled(WINDOW_S).max(2) as usize
}

fn put(settings: &Settings, etcd: &Etcd, clients: usize, value_len_bytes: usize) -> Result<Put> {
    let seconds = window_s(settings);
    let before = etcd.usage()?;
    // A second more, of which something is there when the one before it is whole.
    let mut tally = etcd.put(clients, value_len_bytes, WARM_UP_S + seconds + 1)?;
    let used = etcd.usage()?.since(before);
    if let Some(first) = tally.first_error {
        return Err(Failure::new(format!("etcd refused {} puts, the first: {first}", tally.errors_at.len())));
    }
    let answers: u64 = tally.seconds(WARM_UP_S, seconds)?.iter().sum();
    let all: u64 = tally.by_second.iter().sum();
    Ok(Put {
        writes_per_second: answers as f64 / seconds as f64,
        cpu_us: used.cpu_ns as f64 / 1e3 / all as f64,
        p50_us: tally.quantile_us(0.5),
    })
}

fn table() -> Table {
    Table::new(
        1,
        ["servers, three nodes", "writes/s", "CPU us/write", "p50 us", "Duva's writes/s over these"],
    )
}

fn line_of_ours(table: &mut Table, row: &Row, ours: &[Round]) {
    let figure = |figure: fn(&Round) -> f64| Spread::of(ours.iter().map(figure)).write(short);
    table.line([
        format!("Duva, {}", row.name),
        figure(|round| round.client.requests_per_second),
        figure(|round| round.usage.cpu_ns as f64 / 1e3 / round.client.requests as f64),
        figure(|round| round.client.p50_us),
        "1".to_owned(),
    ]);
}

fn line_of_puts(table: &mut Table, name: &str, ours: &[Round], puts: &[Put]) {
    let figure = |figure: fn(&Put) -> f64| Spread::of(puts.iter().map(figure)).write(short);
    let rates: Vec<f64> = puts.iter().map(|put| put.writes_per_second).collect();
    table.line([
        name.to_owned(),
        figure(|put| put.writes_per_second),
        figure(|put| put.cpu_us),
        figure(|put| put.p50_us),
        ratio(ours, &rates),
    ]);
}

fn ratio(ours: &[Round], theirs: &[f64]) -> String {
    let ours: Vec<f64> = ours.iter().map(|round| round.client.requests_per_second).collect();
    Spread::of_ratios(&ours, theirs).write(|ratio| format!("{ratio:.2}"))
}

fn remark(settings: &Settings) -> String {
    format!(
        "Median (range) of {} alternating rounds, and of the ratios of pairs. All nodes on CPU {}, clients on CPU {}; etcd is \
         started anew for each round, and Duva's cluster stays, idle. Our loop makes the calls that etcdctl makes (gRPC without \
         TLS), each client on a connection of its own.",
        settings.rounds, settings.server_cpu, settings.client_cpu
    )
}
