//! Nothing acknowledged is lost when the server is killed, whatever it was doing.
//!
//! Clients write all the time; at some moment the server gets SIGKILL, and is started again in the same directory with
//! other settings, sometimes to be killed once more before it serves. Then everything must be there that was
//! acknowledged or seen, and nothing that was never written. What happens when is left to the machine; the rest comes
//! from a seed.
//!
//! `DUVA_CRASH_CYCLES` sets how often the server is killed, `DUVA_CRASH_SEED` where the seeds begin; with `DUVA_TEST_KEEP`
//! the directory of a failure stays.

mod support;

#[path = "crash/checker.rs"]
mod checker;

use std::thread;
use std::time::Duration;

use support::process::{Server, ServerOptions, TemporaryDirectory};
use support::random::Random;
use support::workload::Workload;

/// How often a server is killed under its clients.
const CYCLES: usize = 50;
/// How often it is, in the same directory.
const CYCLES_OF_DIRECTORY: usize = 10;

/// The longest life of a server that is killed while it starts: some are killed before they have read anything, some serve.
const START_MS_MAX: usize = 150;

fn setting(name: &str, default: usize) -> usize {
    let value = std::env::var(name).ok();
    value.map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is a number: {value}")))
}

#[test]
fn kills_lose_nothing_that_was_acknowledged() {
    let cycles = setting("DUVA_CRASH_CYCLES", CYCLES);
    let first_seed = setting("DUVA_CRASH_SEED", 1);
    for (number, start) in (0..cycles).step_by(CYCLES_OF_DIRECTORY).enumerate() {
        Story::new((first_seed + number) as u64).tell(CYCLES_OF_DIRECTORY.min(cycles - start));
    }
}

/// What happens in one directory.
struct Story {
    random: Random,
    directory: TemporaryDirectory,
    workload: Workload,
    shards: &'static str,
}

impl Story {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let writers = 6 + random.below(5);
        let workload = Workload::new(random.bits(), writers);
        let shards = random.pick(&["16", "64", "256"]);
        eprintln!("seed {seed}: {writers} writers, {shards} shards");
        Self { random, directory: TemporaryDirectory::new(), workload, shards }
    }

    fn tell(mut self, cycles: usize) {
        for cycle in 0..cycles {
            self.kill_starts();
            let server = self.options().start();
            self.workload.verify(&server);
            self.cycle(cycle, server);
        }
        let server = self.options().start();
        self.workload.verify(&server);
    }

    fn options(&mut self) -> ServerOptions {
        let random = &mut self.random;
        let cores = 1 + random.below(3);
        let fsync = random.pick(&["always", "everysec", "no"]);
        let segment_size = random.pick(&["1mb", "1mb", "2mb"]);
        // The journal soon outgrows the first of these.
        let rewrite_size = random.pick(&["1mb", "64mb"]);
        eprintln!(
            "  {cores} cores, appendfsync {fsync}, segments of {segment_size}, rewritten at {rewrite_size}"
        );
        ServerOptions::duva(cores)
            .journal(self.directory.path())
            .option("shards", &[self.shards])
            .option("appendfsync", &[fsync])
            .option("segment-size", &[segment_size])
            .option("auto-aof-rewrite-min-size", &[rewrite_size])
    }

    /// Kills servers while they start, or soon after.
    #[expect(clippy::disallowed_methods, reason = "a moment in the middle of a start is wanted, no event")]
    fn kill_starts(&mut self) {
        while self.random.one_in(4) {
            let server = self.options().begin();
            let lifetime_ms = self.random.below(START_MS_MAX) as u64;
            eprintln!("  killed {lifetime_ms} ms after its start");
            thread::sleep(Duration::from_millis(lifetime_ms));
            server.kill();
        }
    }

    /// Lets the clients write until the server's end.
    fn cycle(&mut self, cycle: usize, server: Server) {
        let writes = 20 + self.random.below(1500) as u64;
        let rewrite_at = self.random.one_in(2).then(|| self.random.below(writes as usize) as u64);
        let is_told = self.random.one_in(6);
        let end = if is_told { "ended" } else { "killed" };
        eprintln!("  cycle {cycle}: {end} after {writes} writes, rewrite after {rewrite_at:?}");
        self.workload.run(&server, |progress| {
            if let Some(writes) = rewrite_at {
                progress.wait_for(writes);
                rewrite(&server);
            }
            progress.wait_for(writes);
            progress.expect_end();
            server.signal(if is_told { libc::SIGTERM } else { libc::SIGKILL });
        });
        let (status, _directory) = server.wait_for_exit();
        assert_eq!(status.success(), is_told, "{status}");
    }
}

/// Lets the server replace its journal by snapshots; one that it has begun by itself is as good.
fn rewrite(server: &Server) {
    let reply = server.connect().words("BGREWRITEAOF");
    let is_under_way = reply.is_error() && reply.to_string().contains("already in progress");
    assert!(is_under_way || reply.is_status("Background append only file rewriting started"), "{reply}");
}
