//! `side-by-side`: the same work on Duva and its peers, on the same machine in the same minutes.
//!
//! How it measures: servers on one CPU and clients on another; rounds that alternate between the servers; the server's
//! CPU time from the kernel's scheduler statistics, because a client is saturated before a fast server is; medians with
//! their range, and ratios of paired rounds, because absolute rates move from run to run. `benches/README.md` says what
//! each mode shows.

mod background_save;
mod beside;
mod client;
mod closed_loop;
mod cluster;
mod connection;
mod directory;
mod etcd;
mod expire;
mod failure;
mod growth;
mod grpc;
mod journal_sync;
mod memory;
mod options;
mod process;
mod report;
mod restart;
mod rows;
mod server;
mod sockets;
mod statistics;
mod throughput;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use client::Clients;
use failure::{During, Result};
use options::{Asked, HELP, Mode, Options};
use report::Report;
use server::Kind;

/// What holds for every mode.
struct Settings {
    rounds: usize,
    /// How many leaders are killed to see who follows.
    kills: usize,
    scale: f64,
    server_cpu: usize,
    follower_cpu: Option<usize>,
    client_cpu: usize,
    clients: Clients,
    /// Where servers have their directories.
    directory: PathBuf,
    /// Keys that `--restart`, `--bgsave` and a join use, if not the usual number.
    keys: Option<u64>,
}

impl Settings {
    /// The usual `count` by the scale asked for.
    fn scaled(&self, count: u64) -> u64 {
        ((count as f64 * self.scale) as u64).max(1)
    }

    /// How many keys are loaded by the modes that need many.
    fn many_keys(&self) -> u64 {
        self.keys.unwrap_or_else(|| self.scaled(10_000_000))
    }
}

fn main() -> ExitCode {
    let known = Kind::all();
    let asked = match Asked::parse(std::env::args().skip(1), &known) {
        Ok(asked) => asked,
        Err(failure) => {
            eprintln!("side-by-side: {failure}");
            return ExitCode::from(2);
        }
    };
    let done = match asked {
        Asked::Help => print(&format!(
            "{HELP}{}\nROWS OF CLUSTERS:\n    {}\n",
            rows::names(),
            cluster::names().join(" ")
        )),
        Asked::List => print(&list(&known)),
        Asked::Measure(options) => measure(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("side-by-side: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Result<()> {
    process::raise_descriptor_limit();
    process::stay_on(options.client_cpu)?;
    let settings = Settings {
        rounds: options.rounds,
        kills: options.kills,
        scale: options.scale,
        server_cpu: options.server_cpu,
        follower_cpu: options.follower_cpu,
        client_cpu: options.client_cpu,
        clients: Clients::on_cpu(options.client_cpu),
        directory: directory::root(&options.directory, options.needs_disk())?,
        keys: options.keys,
    };
    let mut report = Report::new(options.output.as_deref())?;
    let (settings, kinds) = (&settings, options.servers.as_slice());
    for mode in &options.modes {
        let report = &mut report;
        match *mode {
            Mode::Rows => throughput::run(settings, report, "Side by side", kinds, &options.rows)?,
            Mode::Cores(cores) => {
                let kinds = [kinds[0].with_cores(cores), kinds[0].with_cores(1)];
                throughput::run(settings, report, "Several cores", &kinds, &options.rows)?;
            }
            Mode::Memory => memory::keys(settings, report, kinds)?,
            Mode::Idle => memory::idle(settings, report, kinds)?,
            Mode::Growth { one_slot } => growth::run(settings, report, kinds, one_slot)?,
            Mode::Expire => expire::run(settings, report, kinds)?,
            Mode::Restart => restart::run(settings, report, kinds)?,
            Mode::BackgroundSave => background_save::run(settings, report, kinds)?,
            Mode::JournalSync => journal_sync::run(settings, report)?,
            Mode::Cluster => cluster::run(settings, report, kinds, &options.cluster_rows)?,
        }
    }
    report.finish()
}

fn list(kinds: &[Kind]) -> String {
    let rows = rows::all();
    let row = |row: &rows::Row| {
        format!("{:23} {:11} {:30} {}\n", row.name, row.group, row.field.to_string(), row.options(1.0))
    };
    let server = |kind: &Kind| format!("{:10} {} {}\n", kind.name, kind.program.display(), kind.arguments);
    let rows: String = rows.iter().map(row).collect();
    let servers: String = kinds.iter().map(server).collect();
    let of_clusters = cluster::names().join("\n");
    format!(
        "ROWS (name, group, servers, the client's options):\n{rows}\nROWS OF CLUSTERS:\n{of_clusters}\n\nSERVERS:\n{servers}"
    )
}

fn print(text: &str) -> Result<()> {
    io::stdout().write_all(text.as_bytes()).during(|| "writing to standard output".into())
}
