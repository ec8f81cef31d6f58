//! The simulator over many seeds, from the command line; see `tests/simulation`.
//!
//! ```text
//! simulate --seeds 1000 --first 0        # many seeds, of all kinds
//! simulate --seeds 1 --first 17 --trace  # one, with everything that happens
//! simulate --mutation vote-twice         # until that is found
//! simulate --seeds 1000 --keep-going     # past failures, without their traces
//! ```

#[path = "../tests/simulation/mod.rs"]
mod simulation;

use std::{process::ExitCode, time::Instant};

use simulation::{
    Options, Summary,
    flaw::{HUNTS, Hunt},
    run, run_once,
    trace::Detail,
};

const USAGE: &str =
    "usage: simulate [--seeds COUNT] [--first SEED] [--mutation NAME] [--trace] [--keep-going]";

/// Seeds, if nothing is said about their number.
const SEEDS: u64 = 1000;

/// Seeds between two lines of progress.
const PROGRESS_EVERY: u64 = 1000;

/// What the command line asks for.
struct Arguments {
    first: u64,
    count: Option<u64>,
    hunt: Option<&'static Hunt>,
    is_traced: bool,
    keeps_going: bool,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let began = Instant::now();
    let mut total = Summary::default();
    let mut failed = 0;
    let count = arguments.count.unwrap_or(arguments.hunt.map_or(SEEDS, |hunt| hunt.seeds_max));
    for seed in arguments.first..arguments.first.saturating_add(count) {
        let mut options = Options::new(seed);
        if let Some(hunt) = arguments.hunt {
            options = hunt.options(seed);
        }
        if arguments.is_traced {
            options.detail = Detail::Print;
        }
        let result = if arguments.keeps_going { run_once(options) } else { run(options) };
        match result {
            Ok(summary) => total.add(&summary),
            Err(failure) => {
                println!("{failure}");
                failed += 1;
                if !arguments.keeps_going {
                    return ExitCode::FAILURE;
                }
            }
        }
        let done = seed - arguments.first + 1;
        if done.is_multiple_of(PROGRESS_EVERY) {
            println!("{done} seeds in {:.1} s", began.elapsed().as_secs_f64());
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{count} seeds in {seconds:.1} s, {failed} failed: {total:?}");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut parsed = Arguments { first: 0, count: None, hunt: None, is_traced: false, keeps_going: false };
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value"));
        let number = |text: String| text.parse().map_err(|_| format!("not a number: {text}"));
        match name.as_str() {
            "--seeds" => parsed.count = Some(number(value()?)?),
            "--first" => parsed.first = number(value()?)?,
            "--mutation" => {
                let wanted = value()?;
                let names: Vec<&str> = HUNTS.iter().map(|hunt| hunt.name).collect();
                let hunt = HUNTS.iter().find(|hunt| hunt.name == wanted);
                parsed.hunt = Some(hunt.ok_or_else(|| format!("mutations are: {}", names.join(", ")))?);
            }
            "--keep-going" => parsed.keeps_going = true,
            "--trace" => parsed.is_traced = true,
            _ => return Err(format!("unknown argument {name}")),
        }
    }
    Ok(parsed)
}
