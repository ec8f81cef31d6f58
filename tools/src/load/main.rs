//! `duva-load`: a load generator for servers of the Redis protocol that trusts nobody's word.
//!
//! One thread, one epoll instance, nanoseconds. Invariants:
//!
//! - Every reply is checked against its request; a wrong one is counted and makes the exit code 1.
//! - A latency runs from the moment the request was due, so an open loop charges a stall to every request that was
//!   due during it, sent or not (what is known as coordinated omission does not occur).
//! - Nothing is allocated for a request or a reply once buffers have grown to the pipeline's size.

mod connection;
mod failure;
mod histogram;
mod idle;
mod options;
mod reply;
mod run;
mod socket;
mod tally;
mod workload;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use options::{HELP, Mode, Options};

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => return print(HELP, ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("duva-load: {error}");
            return ExitCode::from(2);
        }
    };
    socket::raise_descriptor_limit();
    let ended = match options.mode {
        Mode::Idle(count) => idle::hold(&options, count).map(|()| ExitCode::SUCCESS),
        Mode::Load(_) | Mode::Fill(_) => run::run(&options).map(|tally| {
            let code = if tally.errors() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE };
            print(&if options.json { tally.json() } else { tally.text() }, code)
        }),
    };
    ended.unwrap_or_else(|failure| {
        eprintln!("duva-load: {failure}");
        ExitCode::FAILURE
    })
}

/// Prints a result, and returns `code`, or that of a failure where nobody could read it.
fn print(text: &str, code: ExitCode) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}
