//! What one client's SET may take on three nodes: what it takes on one, a trip to another node and back, and a sync there.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Instant,
};

use super::{Cluster, LONE_KEY, round_of_one, rows};
use crate::{
    Settings,
    failure::{During, Failure, Result},
    journal_sync, process,
    report::{Report, Table},
    server::Server,
    statistics::{Spread, short},
};

/// Trips of the echo; a message is about as long as what a SET takes between nodes.
const TRIPS: u64 = 20_000;
const MESSAGE_LEN_BYTES: usize = 160;

/// GETs of one client at the leader, and by way of another node.
const GETS: u64 = 20_000;

/// One round, in microseconds at the median.
struct Round {
    one: f64,
    three: f64,
    sync: f64,
    /// What the one node says of its own syncs.
    sync_in_server: f64,
    echo: f64,
    get: f64,
    forwarded_get: f64,
}

impl Round {
    fn forward(&self) -> f64 {
        self.forwarded_get - self.get
    }

    fn budget(&self, trip: f64) -> f64 {
        self.one + trip + self.sync
    }
}

type Figure = (&'static str, fn(&Round) -> f64);

pub(super) fn run(
    settings: &Settings,
    report: &mut Report,
    cluster: &Cluster<'_>,
    one: &Server,
) -> Result<()> {
    let mut rounds = Vec::new();
    for number in 1..=settings.rounds {
        let round = measure(settings, cluster, one)?;
        eprintln!(
            "set-budget {number}/{}: {:.0} us on three nodes, {:.0} on one, trip {:.0}, sync {:.0}",
            settings.rounds, round.three, round.one, round.echo, round.sync
        );
        rounds.push(round);
    }
    let mut table = Table::new(1, ["", "us"]);
    let figures: [Figure; 9] = [
        ("SET on one node, `appendfsync always`", |round| round.one),
        ("a trip there and back: echo over TCP", |round| round.echo),
        ("`pwrite` and `fdatasync` of 512 bytes", |round| round.sync),
        ("the same as that node counts it (`journal_fsync_p50_us`)", |round| round.sync_in_server),
        ("**budget: the first three**", |round| round.budget(round.echo)),
        ("**SET on three nodes**", |round| round.three),
        ("GET at the leader", |round| round.get),
        ("GET at another node, which forwards it", |round| round.forwarded_get),
        ("budget with the difference of the GETs as the trip", |round| round.budget(round.forward())),
    ];
    for (name, figure) in figures {
        table.line([name.to_owned(), Spread::of(rounds.iter().map(figure)).write(short)]);
    }
    let ratios: [Figure; 2] = [
        ("SET on three nodes over the budget", |round| round.three / round.budget(round.echo)),
        ("the same with the difference of the GETs", |round| round.three / round.budget(round.forward())),
    ];
    for (name, figure) in ratios {
        let ratio = Spread::of(rounds.iter().map(figure)).write(|ratio| format!("{ratio:.2}"));
        table.line([name.to_owned(), ratio]);
    }
    let remark = format!(
        "One client, one request at a time, at the leader of its key. p50 of each measurement; median (range) of {} rounds, the \
         sums and ratios being those of a round. Servers, both ends of the echo and the loop of syncs on CPU {}, the \
         leader's two followers on CPU {}; the client on CPU {}.",
        settings.rounds,
        settings.server_cpu,
        settings.follower_cpu.unwrap_or(settings.server_cpu),
        settings.client_cpu
    );
    report.table("One client's SET", &remark, &table)
}

fn measure(settings: &Settings, cluster: &Cluster<'_>, one: &Server) -> Result<Round> {
    let row = rows().into_iter().find(|row| row.name == "cluster-lone-set");
    let row = row.ok_or_else(|| Failure::new("there is no row of one client"))?;
    let three = cluster.round(&row)?.client.p50_us;
    one.resume()?;
    one.connect()?.command(&["CONFIG", "RESETSTAT"])?;
    let on_one = round_of_one(settings, one, &row)?.client.p50_us;
    one.resume()?;
    let sync_in_server = one.connect()?.info("persistence", "journal_fsync_p50_us")?;
    one.pause()?;
    let leader = cluster.leader_of(LONE_KEY)?;
    let other = cluster.running().find(|node| node.port != leader.port);
    let other = other.ok_or_else(|| Failure::new("there is no other node"))?;
    let gets = format!("-n {} -c 1 -P 1 GET {LONE_KEY}", settings.scaled(GETS).max(100));
    Ok(Round {
        one: on_one,
        three,
        sync: on_cpu(settings.server_cpu, || journal_sync::usual_p50_us(settings))?,
        sync_in_server: sync_in_server.unwrap_or_default() as f64,
        echo: echo_p50_us(settings)?,
        get: settings.clients.redis_benchmark(leader, &gets)?.p50_us,
        forwarded_get: settings.clients.redis_benchmark(other, &gets)?.p50_us,
    })
}

/// Does it in a thread that stays on a CPU.
fn on_cpu<T: Send>(cpu: usize, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let worker = scope.spawn(|| process::stay_on(cpu).and_then(|()| work()));
        worker.join().map_err(|_| Failure::new("a thread panicked"))?
    })
}

fn echo_p50_us(settings: &Settings) -> Result<f64> {
    let during = || "echoing".to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").during(during)?;
    let address = listener.local_addr().during(during)?;
    let trips = settings.scaled(TRIPS).max(100);
    // Connected before anybody accepts, so neither side can wait for the other in vain.
    let mut stream = TcpStream::connect(address).during(during)?;
    let (mut echo, _) = listener.accept().during(during)?;
    stream.set_nodelay(true).and(echo.set_nodelay(true)).during(during)?;
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut message = [0; MESSAGE_LEN_BYTES];
            // It ends with the connection, and on another CPU it would only be slower.
            let _ = process::stay_on(settings.server_cpu);
            while echo.read_exact(&mut message).and_then(|()| echo.write_all(&message)).is_ok() {}
        });
        on_cpu(settings.server_cpu, move || {
            let mut message = [0; MESSAGE_LEN_BYTES];
            let mut times_us = Vec::new();
            for _ in 0..trips {
                let start = Instant::now();
                stream.write_all(&message).and_then(|()| stream.read_exact(&mut message)).during(during)?;
                times_us.push(start.elapsed().as_secs_f64() * 1e6);
            }
            Ok(Spread::of(times_us).median)
        })
    })
}
