//! How far reading is: counted by the threads that read, and logged by one of them about once a second.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

/// So often a long load says how far it is, in milliseconds.
const LOG_EVERY_MS: u64 = 1000;

/// What all threads have read so far.
#[derive(Debug)]
pub(super) struct Progress {
    /// What is being done.
    what: &'static str,
    began: Instant,
    bytes_total: AtomicU64,
    bytes_done: AtomicU64,
    /// When the next line is due, in milliseconds since `began`.
    next_line_ms: AtomicU64,
}

impl Progress {
    pub(super) fn new(what: &'static str) -> Self {
        Self {
            what,
            began: Instant::now(),
            bytes_total: AtomicU64::new(0),
            bytes_done: AtomicU64::new(0),
            next_line_ms: AtomicU64::new(LOG_EVERY_MS),
        }
    }

    /// There are so many more bytes to read.
    pub(super) fn expect_bytes(&self, bytes: u64) {
        self.bytes_total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A thread has read so many more bytes.
    pub(super) fn add_bytes(&self, bytes: u64) {
        let done = self.bytes_done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let elapsed_ms = self.began.elapsed().as_millis() as u64;
        let due_ms = self.next_line_ms.load(Ordering::Relaxed);
        // Whoever moves the time on writes the line.
        let next_ms = elapsed_ms + LOG_EVERY_MS;
        if elapsed_ms < due_ms
            || self
                .next_line_ms
                .compare_exchange(due_ms, next_ms, Ordering::Relaxed, Ordering::Relaxed)
                .is_err()
        {
            return;
        }
        // A part may be read twice, or files may have grown.
        let total = self.bytes_total.load(Ordering::Relaxed).max(done);
        let percent = done * 100 / total.max(1);
        tracing::info!("{}: {} of {} MiB ({percent} %)", self.what, done >> 20, total >> 20);
    }

    /// Bytes read so far.
    pub(super) fn bytes_done(&self) -> u64 {
        self.bytes_done.load(Ordering::Relaxed)
    }

    /// Seconds since the beginning.
    pub(super) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }
}
