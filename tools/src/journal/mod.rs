//! What lies in a data directory, told to people.
//!
//! Invariants:
//!
//! - Nothing is opened for writing, made or removed: a directory is as it was, also when it is damaged.
//! - What is read is not trusted: whatever the bytes say, the answer is a sentence, and memory follows what was
//!   read, not what was announced.
//! - What is printed is plain text: bytes of keys, values and file names that are not printable are escaped.

mod command_line;
mod dump;
mod folder;
mod list;
mod payload;
mod snapshot;
mod stat;
mod text;
mod verify;
mod walk;

use std::{
    io::{self, BufWriter, ErrorKind, Write},
    process::ExitCode,
};

use clap::ArgMatches;

pub(crate) use command_line::{NAME, command};

/// The exit status for a journal that is damaged.
const STATUS_DAMAGED: u8 = 1;

/// The exit status for wrong arguments, and for what cannot be read.
const STATUS_UNUSABLE: u8 = 2;

/// Why nothing, or nothing more, is told.
#[derive(Debug)]
enum Failure {
    /// The journal is damaged, as was printed.
    Damaged,
    /// The directory cannot be read, and why.
    Unusable(String),
    /// The output cannot be written.
    Output(io::Error),
}

impl From<io::Error> for Failure {
    /// Only writing the output gives bare errors: those of reading become sentences where they occur.
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Does what the command line says; returns the exit status.
pub(crate) fn run(matches: &ArgMatches) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    let done = dispatch(matches, &mut out).and_then(|()| Ok(out.flush()?));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Damaged) => match out.flush() {
            Ok(()) => ExitCode::from(STATUS_DAMAGED),
            Err(_) => ExitCode::from(STATUS_UNUSABLE),
        },
        Err(Failure::Unusable(sentence)) => {
            // What was told before the trouble is worth reading; if it cannot be written, the status says enough.
            let _ = out.flush();
            eprintln!("duva-tools: {sentence}");
            ExitCode::from(STATUS_UNUSABLE)
        }
        Err(Failure::Output(error)) => {
            // Whoever reads the output has seen enough.
            if error.kind() != ErrorKind::BrokenPipe {
                eprintln!("duva-tools: the output cannot be written: {error}");
            }
            ExitCode::from(STATUS_UNUSABLE)
        }
    }
}

fn dispatch(matches: &ArgMatches, out: &mut impl Write) -> Result<(), Failure> {
    let (name, matches) = matches.subcommand().expect("a subcommand is required");
    let folder = command_line::folder(matches)?;
    if let Some(note) = folder.lock_note() {
        eprintln!("duva-tools: {note}");
    }
    match name {
        command_line::LIST => list::list(&folder, out),
        command_line::VERIFY => verify::verify(&folder, out),
        command_line::DUMP => dump::dump(&folder, &command_line::selection(matches), out),
        command_line::STAT => stat::stat(&folder, out),
        _ => unreachable!("the command line knows no other"),
    }
}
