//! Noticing that this core did not run for a while: its process or its machine was stopped, or the CPU was somebody else's.
//!
//! Nobody can have been heard meanwhile, so nobody's silence means anything. Were all nodes of a machine stopped, each of them would
//! otherwise give its leaders up the moment it goes on, and hold elections for all shards at once.
//!
//! A core means to run once in a heartbeat's interval, when its leaders have something to say anyway. If it is late by another
//! one, it was away. Heartbeats are three to the shortest election timeout, so whoever was away for less has heard from its leader
//! within that.

/// How often that is logged, in nanoseconds.
const LOG_NS: u64 = 1_000_000_000;

/// When a core means to run, and whether it did.
pub(in crate::core) struct Absence {
    interval_ns: u64,
    /// When it runs again at the latest; `u64::MAX` before its first turn.
    due_ns: u64,
    is_noticed: bool,
    log_ns: u64,
}

impl Absence {
    pub(super) fn new(interval_ns: u64) -> Self {
        Self { interval_ns, due_ns: u64::MAX, is_noticed: false, log_ns: 0 }
    }

    /// When the core runs again at the latest.
    pub(super) fn due_ns(&self) -> u64 {
        self.due_ns
    }

    /// The core runs.
    pub(super) fn runs(&mut self, now_ns: u64) {
        if now_ns < self.due_ns && self.due_ns != u64::MAX {
            return;
        }
        let late_ns = now_ns.saturating_sub(self.due_ns);
        self.due_ns = (now_ns + 1).next_multiple_of(self.interval_ns);
        if late_ns <= self.interval_ns {
            return;
        }
        self.is_noticed = true;
        if now_ns >= self.log_ns {
            self.log_ns = now_ns + LOG_NS;
            let late_ms = late_ns / 1_000_000;
            tracing::warn!(late_ms, "this core did not run for a while, and waits for its leaders anew");
        }
    }

    /// Whether the core was away, and nothing was made of that yet.
    pub(super) fn is_noticed(&self) -> bool {
        self.is_noticed
    }

    pub(super) fn take(&mut self) -> bool {
        std::mem::take(&mut self.is_noticed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_late_by_an_interval_was_away() {
        let mut absence = Absence::new(50);
        let mut runs = |now_ns| {
            absence.runs(now_ns);
            (absence.take(), absence.due_ns())
        };
        assert_eq!(runs(1_003), (false, 1_050), "its first turn");
        assert_eq!(runs(1_049), (false, 1_050));
        assert_eq!(runs(1_050), (false, 1_100));
        assert_eq!(runs(1_150), (false, 1_200), "late, and not by enough");
        assert_eq!(runs(1_251), (true, 1_300));
        assert_eq!(runs(1_252), (false, 1_300));
        assert_eq!(runs(5_000), (true, 5_050));
    }
}
