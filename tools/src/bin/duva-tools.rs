//! Looks at what a server left on disk.
//!
//! ```text
//! duva-tools journal list DIR
//! duva-tools journal verify DIR
//! duva-tools journal dump DIR --core 0 --from 3:4096 --limit 20
//! duva-tools journal stat DIR
//! ```

#[path = "../journal/mod.rs"]
mod journal;

use std::process::ExitCode;

use clap::Command;

fn main() -> ExitCode {
    let command = Command::new("duva-tools")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Looks at what a Duva server left on disk, without changing it")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(journal::command());
    match command.get_matches().subcommand() {
        Some((journal::NAME, matches)) => journal::run(matches),
        _ => unreachable!("a subcommand is required, and there is no other"),
    }
}
