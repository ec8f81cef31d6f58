//! `duva-server`.

use std::{
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, ExitCode},
};

use duva_server::{
    cluster::recover::check_directory,
    config::Config,
    launch::{self, Ending},
    logging::Logging,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The status of who asks for what cannot be, as for options that are not accepted.
const USAGE_STATUS: u8 = 2;

fn main() -> ExitCode {
    refuse_huge_pages();
    // Serving enters the data directory.
    let directory = std::env::current_dir().ok();
    let config = Config::of_process().unwrap_or_else(|error| error.exit());
    let logging = match Logging::start(&config) {
        Ok(logging) => logging,
        Err(error) => return refuse(&error.to_string()),
    };
    if let Err(sentence) = check_directory(&config) {
        tracing::error!("{sentence}");
        refuse(&sentence);
        return ExitCode::from(USAGE_STATUS);
    }
    match launch::serve(config, logging) {
        Ok(Ending::Stopped) => ExitCode::SUCCESS,
        Ok(Ending::Again) => begin_again(directory),
        Err(sentence) => {
            tracing::error!("{sentence}");
            refuse(&sentence)
        }
    }
}

/// Begins again with the same options, as the same process.
fn begin_again(directory: Option<PathBuf>) -> ExitCode {
    let mut arguments = std::env::args_os();
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    if let Some(directory) = directory {
        command.current_dir(directory);
    }
    launch::unblock_signals();
    let error = command.args(arguments).exec();
    refuse(&format!("beginning again: {error}"))
}

/// Keeps the allocator's arenas on small pages. Huge ones made the server slower and a small database larger; see
/// docs/adr/0005-small-pages.md.
fn refuse_huge_pages() {
    // SAFETY: the call takes no pointers. A kernel that does not know it changes nothing.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

fn refuse(sentence: &str) -> ExitCode {
    eprintln!("duva-server: {sentence}");
    ExitCode::FAILURE
}
