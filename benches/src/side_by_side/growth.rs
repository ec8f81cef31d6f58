//! The slowest replies while a keyspace grows.

use crate::{
    Settings,
    failure::Result,
    report::{Report, Table},
    server::{Kind, Server},
    statistics::short,
};

/// Sets so many keys on an empty server twice: the second pass, in which nothing grows, shows what the machine does to
/// the slowest reply by itself.
pub(crate) fn run(settings: &Settings, report: &mut Report, kinds: &[Kind], one_slot: bool) -> Result<()> {
    let count = settings.scaled(10_000_000);
    let tag = if one_slot { "--tag" } else { "" };
    let options = format!("--fill {count} --value-bytes 32 --connections 50 --pipeline 1 {tag}");
    let mut table = Table::new(
        2,
        [
            "server",
            "pass",
            "requests/s",
            "p50 us",
            "p99 us",
            "p99.9 us",
            "max us",
            "max at s",
            "server waited for its CPU, ms in all",
        ],
    );
    for kind in kinds {
        if let Err(failure) = passes(settings, kind, &options, &mut table) {
            report.failed(&mut table, &kind.name, &failure);
        }
    }
    let title =
        format!("Growing to {} keys{}", short(count as f64), if one_slot { " of one slot" } else { "" });
    let remark = "duva-load sets every key once, in order, on 50 connections without pipelining; then again, when \
                  nothing grows. Values of 32 bytes.";
    report.table(&title, remark, &table)
}

fn passes(settings: &Settings, kind: &Kind, options: &str, table: &mut Table) -> Result<()> {
    let server = Server::start(kind, settings)?;
    for pass in ["growing", "overwriting"] {
        let before = server.usage()?;
        let measured = settings.clients.duva_load(&server, options)?;
        let usage = server.usage()?.since(before);
        eprintln!("growth {} {pass}: max {:.0} us", kind.name, measured.max_us);
        table.line([
            kind.name.clone(),
            pass.into(),
            short(measured.requests_per_second),
            short(measured.p50_us),
            short(measured.p99_us),
            short(measured.p999_us),
            short(measured.max_us),
            measured.max_at_s.map_or_else(|| "-".into(), |seconds| format!("{seconds:.3}")),
            format!("{:.1}", usage.delay_ns as f64 / 1e6),
        ]);
    }
    Ok(())
}
