//! Segment headers, block headers and records, wherever they may lie: see `journal_check.rs` for what is checked.
//!
//! From `persist/`, with cargo-fuzz installed; what is found goes to the first folder, the kept inputs are the second:
//!
//! ```text
//! mkdir -p /tmp/record-corpus
//! cargo +nightly fuzz run record /tmp/record-corpus fuzz/corpus/record -- -max_len=512 -max_total_time=300
//! ```
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../journal_check.rs"]
mod journal_check;

fuzz_target!(|data: &[u8]| journal_check::check_records(data));
