//! `duva-server`.

use std::process::ExitCode;

use duva_server::{config::Config, launch, logging::Logging};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    refuse_huge_pages();
    let config = Config::of_process().unwrap_or_else(|error| error.exit());
    let logging = match Logging::start(&config) {
        Ok(logging) => logging,
        Err(error) => return refuse(&error.to_string()),
    };
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
