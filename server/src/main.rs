//! `duva-server`.

use std::process::ExitCode;

use duva_server::{cluster::recover::check_directory, config::Config, launch, logging::Logging};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The status of who asks for what cannot be, as for options that are not accepted.
const USAGE_STATUS: u8 = 2;

fn main() -> ExitCode {
    refuse_huge_pages();
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
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            tracing::error!("{sentence}");
            refuse(&sentence)
        }
    }
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
