//! `duva-io-comparison METHOD --port PORT`: the same minimal server on a raw io_uring (`ring`), on `epoll` and on
//! `glommio`. It answers GET with a constant and everything else with OK, so nothing but the transport costs.
//!
//! `docs/adr/0001-own-reactor-on-the-io-uring-crate.md` rests on it; `benches/README.md` says how to run it beside
//! other servers.

mod answer;
mod epoll;
mod on_glommio;
mod raw_ring;

use std::{net::TcpListener, process::ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (method, port) = match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [method @ ("ring" | "epoll" | "glommio"), "--port", port] => (*method, port.parse::<u16>()),
        _ => return usage(),
    };
    let Ok(port) = port else { return usage() };
    let listen = || TcpListener::bind(("127.0.0.1", port)).map_err(|error| error.to_string());
    let ended = match method {
        "ring" => listen().and_then(|listener| raw_ring::serve(&listener).map_err(|error| error.to_string())),
        "epoll" => listen().and_then(|listener| epoll::serve(&listener).map_err(|error| error.to_string())),
        _ => on_glommio::serve(port),
    };
    if let Err(error) = ended {
        eprintln!("duva-io-comparison: {error}");
    }
    ExitCode::FAILURE
}

fn usage() -> ExitCode {
    eprintln!("usage: duva-io-comparison ring|epoll|glommio --port PORT");
    ExitCode::from(2)
}
