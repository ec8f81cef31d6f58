//! The simulator's command line: runs seeds and says what failed.
//!
//! ```text
//! duva-sim --seeds 1000 --first 0     # many seeds
//! duva-sim --seed 17 --verbose        # one, with everything that happens
//! duva-sim --cluster --seeds 1000     # the same, of clusters
//! duva-sim --upgrade --seeds 1000     # the same, of clusters whose nodes are upgraded meanwhile
//! ```

#[path = "../sim/mod.rs"]
mod sim;

use std::{
    panic::PanicHookInfo,
    process::{self, Command, ExitCode},
    time::Instant,
};

const USAGE: &str =
    "usage: duva-sim [--cluster | --upgrade] [--seeds COUNT] [--first SEED] [--seed SEED [--verbose]]";

/// What the command line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Options {
    first: u64,
    count: u64,
    /// Whether clusters are simulated, rather than single servers.
    is_cluster: bool,
    /// Whether their nodes are upgraded.
    is_upgrade: bool,
    /// Whether notes are kept, and whether they are printed as they are made.
    is_traced: bool,
    is_verbose: bool,
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let began = Instant::now();
    let mut total = sim::Summary::default();
    let mut total_of_clusters = sim::cluster::Summary::default();
    for seed in options.first..options.first.saturating_add(options.count) {
        sim::trace::begin(options.is_traced, options.is_verbose);
        let Options { is_traced, is_cluster, is_upgrade, .. } = options;
        let hook = move |panic: &PanicHookInfo<'_>| report_panic(seed, &options, &panic.to_string());
        std::panic::set_hook(Box::new(hook));
        let played = if is_upgrade {
            sim::cluster::upgrade(seed, sim::cluster::Upgrade::Careful)
                .map(|summary| total_of_clusters.add(&summary))
        } else if is_cluster {
            sim::cluster::run(seed, None).map(|summary| total_of_clusters.add(&summary))
        } else {
            sim::run(seed, None).map(|summary| total.add(&summary))
        };
        match played {
            Ok(()) => {}
            Err(failure) if is_traced => {
                print_trace(&failure.trace);
                println!("seed {} failed: {}", failure.seed, failure.reason);
                return ExitCode::FAILURE;
            }
            Err(_) => return replay(seed, &options),
        }
    }
    let did = if options.is_cluster { format!("{total_of_clusters:?}") } else { format!("{total:?}") };
    println!("{} seeds passed in {:.1} s: {did}", options.count, began.elapsed().as_secs_f64());
    ExitCode::SUCCESS
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        first: 0,
        count: 100,
        is_cluster: false,
        is_upgrade: false,
        is_traced: false,
        is_verbose: false,
    };
    let mut arguments = arguments.peekable();
    while let Some(name) = arguments.next() {
        let mut number = || {
            let text = arguments.next().ok_or_else(|| format!("{name} needs a number"))?;
            text.parse::<u64>().map_err(|_| format!("{name}: not a number: {text}"))
        };
        match name.as_str() {
            "--seeds" => options.count = number()?,
            "--cluster" => options.is_cluster = true,
            "--upgrade" => (options.is_cluster, options.is_upgrade) = (true, true),
            "--first" => options.first = number()?,
            "--seed" => {
                options.first = number()?;
                options.count = 1;
                options.is_traced = true;
            }
            "--verbose" => {
                options.is_traced = true;
                options.is_verbose = true;
            }
            _ => return Err(format!("unknown argument {name}")),
        }
    }
    Ok(options)
}

/// Runs a seed that failed once more, in a process of its own, for the trace that the first run did not keep.
fn replay(seed: u64, options: &Options) -> ExitCode {
    let seed_text = seed.to_string();
    let cluster: &[&str] = match options {
        Options { is_upgrade: true, .. } => &["--upgrade"],
        Options { is_cluster: true, .. } => &["--cluster"],
        _ => &[],
    };
    let status = std::env::current_exe()
        .and_then(|program| Command::new(program).args(cluster).args(["--seed", &seed_text]).status());
    match status {
        Ok(status) if !status.success() => {}
        Ok(_) => println!("seed {seed} failed, but not when it was replayed: something is not from the seed"),
        Err(error) => println!("seed {seed} failed, and could not be replayed: {error}"),
    }
    ExitCode::FAILURE
}

/// A core that breaks an invariant panics, which is a failure like any other.
fn report_panic(seed: u64, options: &Options, panic: &str) {
    if options.is_traced {
        print_trace(&sim::trace::take());
        println!("seed {seed} failed: {panic}");
    } else {
        replay(seed, options);
    }
    process::exit(1);
}

fn print_trace(notes: &[String]) {
    for note in notes {
        println!("{note}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read() {
        let parse = |text: &str| parse(text.split_whitespace().map(str::to_owned));
        let many = parse("--seeds 7 --first 3").unwrap();
        assert_eq!((many.first, many.count, many.is_traced), (3, 7, false));
        let one = parse("--seed 5 --verbose").unwrap();
        assert_eq!((one.first, one.count, one.is_traced, one.is_verbose), (5, 1, true, true));
        let clusters = parse("--cluster --seeds 2").unwrap();
        assert_eq!((clusters.count, clusters.is_cluster, many.is_cluster), (2, true, false));
        let upgrades = parse("--upgrade").unwrap();
        assert!(upgrades.is_cluster && upgrades.is_upgrade && !clusters.is_upgrade);
        assert!(parse("--seed").is_err() && parse("--seed x").is_err() && parse("--other").is_err());
    }
}
