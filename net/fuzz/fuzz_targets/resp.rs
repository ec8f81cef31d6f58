//! Requests: see `resp_check.rs` for what is checked.
//!
//! From `net/`, with cargo-fuzz installed; what is found goes to the first folder, the kept inputs are the second:
//!
//! ```text
//! mkdir -p /tmp/resp-corpus
//! cargo +nightly fuzz run resp /tmp/resp-corpus fuzz/corpus/resp -- -max_len=512 -max_total_time=300
//! ```
#![no_main]

use duva_net::resp::{ArgumentRange, LARGE_ARGUMENT, Limits, Parser, Progress, ProtocolError};
use libfuzzer_sys::fuzz_target;

#[path = "../resp_check.rs"]
mod resp_check;

fuzz_target!(|data: &[u8]| resp_check::check(data));
