//! RESTORE's payloads: see `rdb_check.rs` for what is checked.
//!
//! From `engine/`, with cargo-fuzz installed; what is found goes to the first folder, the kept inputs are the second.
//! Strings above 16 KiB take a way of their own, so inputs are longer than that:
//!
//! ```text
//! mkdir -p /tmp/restore-corpus
//! cargo +nightly fuzz run restore /tmp/restore-corpus fuzz/corpus/restore -- -max_len=40000 -max_total_time=300
//! ```
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../rdb_check.rs"]
mod rdb_check;

fuzz_target!(|data: &[u8]| rdb_check::check_payload(data));
