//! Memory: of keys, and of connections that do nothing.

use std::time::Duration;

use crate::{
    Settings,
    failure::Result,
    process::pass,
    report::{Report, Table},
    server::{Kind, Server},
    statistics::short,
};

const KEY_LEN_BYTES: u64 = 16;
const VALUE_LEN_BYTES: u64 = 32;

/// How long a server may tidy up (finish a resize, return memory) before it is looked at.
const SETTLE: Duration = Duration::from_secs(2);

/// How long idle connections are watched.
const IDLE: Duration = Duration::from_secs(5);

/// Bytes that a key takes beyond its own and its value's.
pub(crate) fn keys(settings: &Settings, report: &mut Report, kinds: &[Kind]) -> Result<()> {
    let mut table = Table::new(
        1,
        ["server", "keys", "RSS grown, bytes/key", "over payload", "used_memory grown, over payload"],
    );
    for count in [1_000_000, 10_000_000] {
        for kind in kinds {
            match fill(settings, kind, settings.scaled(count)) {
                Ok(cells) => table.line(cells),
                Err(failure) => report.failed(&mut table, &kind.name, &failure),
            }
        }
    }
    let remark = "Growth of resident memory (VmRSS) from the empty but warm server on, by keys of 16 bytes with values of 32 \
                  bytes, set once each; two seconds after the last one.";
    report.table("Memory a key", remark, &table)
}

fn fill(settings: &Settings, kind: &Kind, count: u64) -> Result<[String; 5]> {
    let server = Server::start(kind, settings)?;
    let mut connection = server.connect()?;
    // What a server keeps for I/O is not what a key costs.
    settings.clients.duva_load(&server, "--op get --requests 100000 --connections 4 --pipeline 64")?;
    let (resident_before, used_before) =
        (server.resident_bytes()?, connection.info("memory", "used_memory")?);
    let options = format!("--fill {count} --value-bytes {VALUE_LEN_BYTES} --connections 4 --pipeline 64");
    settings.clients.duva_load(&server, &options)?;
    pass(SETTLE);
    let (resident, used) = (server.resident_bytes()?, connection.info("memory", "used_memory")?);
    let payload = (KEY_LEN_BYTES + VALUE_LEN_BYTES) as f64;
    let a_key = |before: u64, after: u64| (after as f64 - before as f64) / count as f64;
    let grown = a_key(resident_before, resident);
    let used = used_before.zip(used).map(|(before, after)| a_key(before, after) - payload);
    eprintln!("memory {} with {count} keys: {:.1} bytes/key over payload", kind.name, grown - payload);
    Ok([
        kind.name.clone(),
        short(count as f64),
        format!("{grown:.1}"),
        format!("{:.1}", grown - payload),
        used.map_or_else(|| "-".into(), |used| format!("{used:.1}")),
    ])
}

/// What connections cost that do nothing.
pub(crate) fn idle(settings: &Settings, report: &mut Report, kinds: &[Kind]) -> Result<()> {
    let mut table = Table::new(
        1,
        ["server", "connections", "RSS grown, bytes/connection", "idle CPU, % of a core", "sleeps/s"],
    );
    for kind in kinds {
        match hold(settings, kind, settings.scaled(10_000)) {
            Ok(cells) => table.line(cells),
            Err(failure) => report.failed(&mut table, &kind.name, &failure),
        }
    }
    let remark = "Each connection had one PING answered. Growth of resident memory (VmRSS; the kernel's sockets are \
                  not in it), and CPU time over the five seconds from two seconds after the last connection on.";
    report.table("Idle connections", remark, &table)
}

fn hold(settings: &Settings, kind: &Kind, count: u64) -> Result<[String; 5]> {
    let server = Server::start(kind, settings)?;
    let resident_before = server.resident_bytes()?;
    let mut client = settings.clients.duva_load_in_background(&server, &format!("--idle {count}"))?;
    client.first_line()?;
    pass(SETTLE);
    let before = server.usage()?;
    pass(IDLE);
    let usage = server.usage()?.since(before);
    let resident = server.resident_bytes()?;
    client.finish().map(drop)?;
    let grown = (resident as f64 - resident_before as f64) / count as f64;
    let percent = usage.cpu_ns as f64 / IDLE.as_nanos() as f64 * 100.0;
    eprintln!("idle {}: {grown:.0} bytes/connection, {percent:.3} % CPU", kind.name);
    Ok([
        kind.name.clone(),
        count.to_string(),
        format!("{grown:.0}"),
        format!("{percent:.3}"),
        short(usage.sleeps as f64 / IDLE.as_secs_f64()),
    ])
}
