//! `duva-server`.

use std::process::ExitCode;

use duva_server::{config::Config, launch, logging::Logging};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
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

fn refuse(sentence: &str) -> ExitCode {
    eprintln!("duva-server: {sentence}");
    ExitCode::FAILURE
}
