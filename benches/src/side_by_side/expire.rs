//! Many keys that expire in the same second: what other traffic notices, and when their memory is back.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::{
    Settings,
    client::Measured,
    failure::{During, Failure, Result},
    process::pass,
    report::{Report, Table},
    server::{Kind, Server},
    statistics::short,
};

/// The other traffic: an open loop, on keys of its own, well below what any server can do.
const TRAFFIC: &str = "--op mixed --reads 0.9 --prefix liv: --keys 100000 --rate 20000 --pipeline 16";

/// How long the traffic is measured while nothing expires, and from the moment of expiry on.
const WINDOW: Duration = Duration::from_secs(2);

/// Memory is back when at most this part of the growth is left.
const REST: f64 = 0.05;

/// How long memory may take to come back before we stop looking.
const PATIENCE: Duration = Duration::from_secs(30);

/// When memory should be back.
const TARGET: Duration = Duration::from_secs(5);

/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(20);

pub(crate) fn run(settings: &Settings, report: &mut Report, kinds: &[Kind]) -> Result<()> {
    let count = settings.scaled(1_000_000);
    let mut table = Table::new(
        1,
        [
            "server",
            "quiet p50 us",
            "p99 us",
            "p99.9 us",
            "max us",
            "expiring p50 us",
            "p99 us",
            "p99.9 us",
            "max us",
            "p99 expiring / quiet",
            "keys gone after s",
            "memory back after s",
            "growth left after 5 s, %",
        ],
    );
    for kind in kinds {
        let Observed { quiet, expiring, gone_after, back_after, left } = match observe(settings, kind, count)
        {
            Ok(observed) => observed,
            Err(failure) => {
                report.failed(&mut table, &kind.name, &failure);
                continue;
            }
        };
        let latencies = |measured: &Measured| {
            [measured.p50_us, measured.p99_us, measured.p999_us, measured.max_us].map(short).to_vec()
        };
        let ratio = expiring.p99_us / quiet.p99_us;
        let [gone, back] = [gone_after, back_after].map(|time| match time {
            Some(time) => format!("{:.2}", time.as_secs_f64()),
            None => format!("> {}", PATIENCE.as_secs()),
        });
        eprintln!("expire {}: p99 {ratio:.2} x quiet, memory back after {back} s", kind.name);
        table.line(
            [
                vec![kind.name.clone()],
                latencies(&quiet),
                latencies(&expiring),
                vec![format!("{ratio:.2}"), gone, back, format!("{:.1}", left * 100.0)],
            ]
            .concat(),
        );
    }
    let remark = format!(
        "{} keys with values of 64 bytes and the same EXPIREAT. Other traffic: `{TRAFFIC}`, for {} s before and for {} s from \
         the moment of expiry on. Keys are gone when DBSIZE is what it was before them, \
         memory is back when used_memory is within {:.0} % of the growth above what it was.",
        short(count as f64),
        WINDOW.as_secs(),
        WINDOW.as_secs(),
        REST * 100.0
    );
    report.table("Keys that expire in the same second", &remark, &table)
}

struct Observed {
    quiet: Measured,
    expiring: Measured,
    /// When DBSIZE was back, from the moment of expiry on; `None`: not within [`PATIENCE`].
    gone_after: Option<Duration>,
    /// When memory was.
    back_after: Option<Duration>,
    /// Which part of the memory's growth was left after [`TARGET`].
    left: f64,
}

fn observe(settings: &Settings, kind: &Kind, count: u64) -> Result<Observed> {
    let clients = &settings.clients;
    let server = Server::start(kind, settings)?;
    let mut connection = server.connect()?;
    clients.duva_load(&server, "--fill 100000 --prefix liv: --pipeline 16")?;
    let mut look = || {
        let used_bytes = match connection.info("memory", "used_memory")? {
            Some(bytes) => bytes,
            None => server.resident_bytes()?,
        };
        let keys = connection.command(&["DBSIZE"])?;
        Ok::<_, Failure>((used_bytes as f64, keys))
    };
    let (used_before, keys_before) = look()?;
    // Late enough for a server that sets and expires 25,000 keys a second, and for the quiet window.
    let expire_at_s = (since_epoch()? + WINDOW + Duration::from_secs(2 + count / 25_000)).as_secs() + 1;
    clients.duva_load(&server, &format!("--fill {count} --pipeline 16"))?;
    // Not every server knows SET with EXAT.
    let expire = format!(
        "--op expire --expire-at {expire_at_s} --keys {count} --sequential --requests {count} --pipeline 16"
    );
    clients.duva_load(&server, &expire)?;
    let (used_full, _) = look()?;
    let traffic = format!("{TRAFFIC} --duration {}", WINDOW.as_secs());
    let quiet = clients.duva_load(&server, &traffic)?;
    let left = Duration::from_secs(expire_at_s).saturating_sub(since_epoch()?);
    if left.is_zero() {
        return Err(Failure::new(format!("{}: the keys expired before the quiet time was over", kind.name)));
    }
    pass(left);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let client = scope.spawn(|| clients.duva_load(&server, &traffic));
        let (mut gone_after, mut back_after, mut left_after_target) = (None, None, None);
        loop {
            let (used, keys) = look()?;
            let elapsed = start.elapsed();
            let left = (used - used_before) / (used_full - used_before);
            if keys == keys_before {
                gone_after.get_or_insert(elapsed);
            }
            if left <= REST {
                back_after.get_or_insert(elapsed);
            }
            if elapsed >= TARGET {
                left_after_target.get_or_insert(left);
                if back_after.is_some() || elapsed >= PATIENCE {
                    break;
                }
            }
            pass(LOOK);
        }
        let expiring = client.join().map_err(|_| Failure::new("the client's thread panicked"))??;
        let left = left_after_target.expect("looked at until then at least");
        Ok(Observed { quiet, expiring, gone_after, back_after, left })
    })
}

fn since_epoch() -> Result<Duration> {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(std::io::Error::other)
        .during(|| "reading the clock".into())
}
