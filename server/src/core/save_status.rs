//! How saving goes: what was saved last, what is under way, and when the next snapshot or rewrite is due.
//!
//! One for the whole server, behind a lock that is taken when a save or rewrite begins and ends, about once a second
//! to see whether one is due, and by INFO and LASTSAVE; never by a request for data. Times are the wall clock's, in
//! milliseconds since the Unix epoch; a clock that is set back makes a duration zero and delays what is due.
//!
//! Invariants:
//! - At most one save and at most one rewrite is under way.
//! - A failed save or rewrite changes neither the time of the last snapshot nor what it holds.

use crate::config::{Config, SavePoint};

/// How long after a failed save the save points do not start another, as in Redis.
const SAVE_RETRY_MS: u64 = 5_000;

/// Failed rewrites in a row after which the next one that starts by itself waits, as in Redis.
const REWRITE_FAILURES_MAX: u64 = 3;

/// The first such wait; each failure more doubles it.
const REWRITE_RETRY_MS: u64 = 60_000;

/// The longest such wait.
const REWRITE_RETRY_MS_MAX: u64 = 3_600_000;

/// How saving goes.
#[derive(Clone, Debug)]
pub struct SaveStatus {
    /// Snapshots by SAVE, BGSAVE, save points and SHUTDOWN.
    pub save: Activity,
    /// Rewrites of the journal by BGREWRITEAOF and by its size.
    pub rewrite: Activity,
    /// When the last snapshot was finished, or the server started.
    last_save_ms: u64,
    /// Changes since the server's start that the last snapshot holds.
    changes_saved: u64,
    /// Changes that the save under way will hold.
    changes_begun: u64,
    /// Keys that the start read.
    pub keys_loaded: u64,
    /// Keys that it skipped because they were due.
    pub keys_expired: u64,
}

/// How a save or a rewrite ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Well.
    Done,
    /// Not well.
    Failed,
    /// Not well, which says nothing of the next: whoever waited for it knows, or nobody wanted it any more.
    GivenUp,
}

/// What is known of all saves, or of all rewrites.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// When the one under way began; none is under way.
    started_ms: Option<u64>,
    /// How long the last one took; none was finished yet.
    last_duration_ms: Option<u64>,
    /// When the last one was finished, well or not.
    last_finished_ms: u64,
    /// Those begun since the start or CONFIG RESETSTAT.
    count: u64,
    /// How often in a row the last ones failed.
    failures: u64,
    /// Whether the last one failed. Unlike `failures`, CONFIG RESETSTAT leaves it.
    has_failed: bool,
    /// The most memory that the last one took.
    last_bytes_peak: u64,
    /// Whether one is to begin as soon as it can.
    is_scheduled: bool,
}

impl Activity {
    /// Whether one is under way.
    pub fn is_under_way(&self) -> bool {
        self.started_ms.is_some()
    }

    /// Seconds since the one under way began; none is.
    pub fn seconds(&self, now_ms: u64) -> Option<u64> {
        self.started_ms.map(|started_ms| now_ms.saturating_sub(started_ms) / 1000)
    }

    /// Seconds that the last one took; there was none.
    pub fn last_seconds(&self) -> Option<u64> {
        self.last_duration_ms.map(|duration_ms| duration_ms / 1000)
    }

    /// Whether the last one went well, or there was none.
    pub fn is_last_ok(&self) -> bool {
        !self.has_failed
    }

    /// Those begun since the start or CONFIG RESETSTAT.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How often in a row the last ones failed, since CONFIG RESETSTAT.
    pub fn failures(&self) -> u64 {
        self.failures
    }

    /// The most memory that the last one took, in bytes.
    pub fn last_bytes_peak(&self) -> u64 {
        self.last_bytes_peak
    }

    /// Whether one is to begin as soon as it can.
    pub fn is_scheduled(&self) -> bool {
        self.is_scheduled
    }

    /// One is to begin as soon as it can.
    pub fn schedule(&mut self) {
        self.is_scheduled = true;
    }

    /// One begins, and with it the one that was scheduled.
    fn start(&mut self, now_ms: u64) {
        assert!(self.started_ms.is_none(), "two saves, or two rewrites, at the same time");
        self.started_ms = Some(now_ms);
        self.count += 1;
        self.is_scheduled = false;
    }

    fn finish(&mut self, outcome: Outcome, bytes_peak: u64, now_ms: u64) {
        let started_ms = self.started_ms.take().expect("what ends has begun");
        self.last_duration_ms = Some(now_ms.saturating_sub(started_ms));
        self.last_finished_ms = now_ms;
        self.last_bytes_peak = bytes_peak;
        (self.has_failed, self.failures) = match outcome {
            Outcome::Done => (false, 0),
            Outcome::Failed => (true, self.failures + 1),
            Outcome::GivenUp => (self.has_failed, self.failures),
        };
    }

    fn reset_counts(&mut self) {
        self.count = 0;
        self.failures = 0;
    }
}

impl SaveStatus {
    /// The status of a server that starts now: it counts as saved.
    pub fn new(now_ms: u64) -> Self {
        Self {
            save: Activity::default(),
            rewrite: Activity::default(),
            last_save_ms: now_ms,
            changes_saved: 0,
            changes_begun: 0,
            keys_loaded: 0,
            keys_expired: 0,
        }
    }

    /// A save begins, of all `changes` that there were since the server's start.
    ///
    /// # Panics
    /// When one is under way.
    pub fn save_started(&mut self, changes: u64, now_ms: u64) {
        self.save.start(now_ms);
        self.changes_begun = changes;
    }

    /// The save under way has found its moment: it will hold all `changes` that there were since the server's start.
    pub fn save_cut(&mut self, changes: u64) {
        self.changes_begun = changes;
    }

    /// The save is over, and took at most so much memory.
    ///
    /// # Panics
    /// When none is under way.
    pub fn save_finished(&mut self, outcome: Outcome, bytes_peak: u64, now_ms: u64) {
        self.save.finish(outcome, bytes_peak, now_ms);
        if outcome == Outcome::Done {
            self.last_save_ms = now_ms;
            self.changes_saved = self.changes_begun;
        }
    }

    /// A rewrite of the journal begins.
    ///
    /// # Panics
    /// When one is under way.
    pub fn rewrite_started(&mut self, now_ms: u64) {
        self.rewrite.start(now_ms);
    }

    /// The rewrite is over, and took at most so much memory.
    ///
    /// # Panics
    /// When none is under way.
    pub fn rewrite_finished(&mut self, is_ok: bool, bytes_peak: u64, now_ms: u64) {
        let outcome = if is_ok { Outcome::Done } else { Outcome::Failed };
        self.rewrite.finish(outcome, bytes_peak, now_ms);
    }

    /// The start has read so many keys, and skipped so many that were due.
    pub fn loaded(&mut self, keys_loaded: u64, keys_expired: u64) {
        self.keys_loaded = keys_loaded;
        self.keys_expired = keys_expired;
    }

    /// CONFIG RESETSTAT.
    pub fn reset_counts(&mut self) {
        self.save.reset_counts();
        self.rewrite.reset_counts();
    }

    /// LASTSAVE: when the last snapshot was finished, or the server started, in seconds since the Unix epoch.
    pub fn last_save_seconds(&self) -> u64 {
        self.last_save_ms / 1000
    }

    /// Changes that no snapshot holds, of all `changes` since the server's start.
    pub fn changes_unsaved(&self, changes: u64) -> u64 {
        changes.saturating_sub(self.changes_saved)
    }

    /// Whether a snapshot is to be saved now: it is scheduled, or a save point is reached, of all `changes` since the
    /// server's start. Never while one is under way, and for five seconds after a failure only if it is scheduled.
    pub fn is_save_due(&self, points: &[SavePoint], changes: u64, now_ms: u64) -> bool {
        if self.save.is_under_way() {
            return false;
        }
        let is_reached = |point: &SavePoint| {
            self.changes_unsaved(changes) >= point.changes
                && now_ms.saturating_sub(self.last_save_ms) > point.seconds.saturating_mul(1000)
        };
        let rests =
            self.save.has_failed && now_ms.saturating_sub(self.save.last_finished_ms) <= SAVE_RETRY_MS;
        self.save.is_scheduled || (!rests && points.iter().any(is_reached))
    }

    /// Whether the journal is to be rewritten now: it is scheduled, or a journal of `bytes`, with `base_bytes` after
    /// its last rewrite, has outgrown what the configuration allows. Never while one is under way, and after three
    /// failures in a row for a while only if it is scheduled.
    pub fn is_rewrite_due(&self, config: &Config, bytes: u64, base_bytes: u64, now_ms: u64) -> bool {
        if self.rewrite.is_under_way() {
            return false;
        }
        let growth = u128::from(bytes) * 100;
        let allowed = u128::from(base_bytes.max(1)) * (100 + u128::from(config.rewrite_growth_percent));
        let has_outgrown =
            config.rewrite_growth_percent > 0 && bytes > config.rewrite_size_bytes_min && growth >= allowed;
        let rests = self.rewrite.failures.checked_sub(REWRITE_FAILURES_MAX).is_some_and(|more| {
            let wait_ms = REWRITE_RETRY_MS << more.min(6);
            now_ms.saturating_sub(self.rewrite.last_finished_ms) <= wait_ms.min(REWRITE_RETRY_MS_MAX)
        });
        self.rewrite.is_scheduled || (has_outgrown && !rests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_MS: u64 = 1_000_000_000;

    fn status() -> SaveStatus {
        SaveStatus::new(START_MS)
    }

    fn points(pairs: &[(u64, u64)]) -> Vec<SavePoint> {
        pairs.iter().map(|&(seconds, changes)| SavePoint { seconds, changes }).collect()
    }

    #[test]
    fn a_save_holds_the_changes_from_before_it_began() {
        let mut status = status();
        assert_eq!((status.last_save_seconds(), status.changes_unsaved(7)), (START_MS / 1000, 7));
        status.save_started(7, START_MS + 1000);
        assert!(status.save.is_under_way() && !status.rewrite.is_under_way());
        assert_eq!(status.save.seconds(START_MS + 3999), Some(2));
        assert_eq!(status.changes_unsaved(9), 9, "nothing is saved before the end");
        status.save_finished(Outcome::Done, 55, START_MS + 4000);
        assert_eq!((status.last_save_seconds(), status.changes_unsaved(9)), (START_MS / 1000 + 4, 2));
        assert_eq!((status.save.seconds(START_MS + 5000), status.save.last_seconds()), (None, Some(3)));
        assert!(status.save.is_last_ok());
        assert_eq!((status.save.count(), status.save.last_bytes_peak()), (1, 55));
        assert_eq!(status.rewrite, Activity::default());
    }

    #[test]
    fn a_failed_save_saves_nothing() {
        let mut status = status();
        status.save_started(7, START_MS);
        status.save_finished(Outcome::Failed, 0, START_MS + 1000);
        assert!(!status.save.is_last_ok());
        assert_eq!((status.last_save_seconds(), status.changes_unsaved(7)), (START_MS / 1000, 7));
        assert_eq!((status.save.count(), status.save.failures()), (1, 1));
        status.reset_counts();
        assert_eq!((status.save.count(), status.save.failures()), (0, 0));
        assert!(!status.save.is_last_ok(), "counts are reset, not what is known");
        status.save_started(8, START_MS + 2000);
        status.save_finished(Outcome::Done, 0, START_MS + 3000);
        assert!(status.save.is_last_ok());
        assert_eq!(status.changes_unsaved(8), 0);
    }

    #[test]
    fn a_save_that_was_given_up_has_not_failed_nor_saved_anything() {
        let mut status = status();
        for is_ok in [true, false] {
            status.save_started(7, START_MS);
            status.save_finished(if is_ok { Outcome::Done } else { Outcome::Failed }, 0, START_MS + 1000);
            let failures = status.save.failures();
            status.save_started(9, START_MS + 2000);
            status.save_finished(Outcome::GivenUp, 5, START_MS + 5000);
            assert_eq!((status.save.is_last_ok(), status.save.failures()), (is_ok, failures));
            assert_eq!((status.last_save_seconds(), status.changes_unsaved(9)), (START_MS / 1000 + 1, 2));
            assert_eq!((status.save.last_seconds(), status.save.last_bytes_peak()), (Some(3), 5));
        }
    }

    #[test]
    fn a_save_point_needs_both_its_changes_and_its_seconds() {
        let status = status();
        let points = points(&[(60, 100), (900, 1)]);
        let cases = [
            (99, 61_000, false),
            (100, 60_000, false),
            (100, 60_001, true),
            (0, 901_000, false),
            (1, 900_001, true),
        ];
        for (changes, elapsed_ms, expected) in cases {
            assert_eq!(
                status.is_save_due(&points, changes, START_MS + elapsed_ms),
                expected,
                "{changes} changes, {elapsed_ms} ms"
            );
        }
        assert!(!status.is_save_due(&[], u64::MAX, u64::MAX), "without save points none is due");
        assert!(!status.is_save_due(&points, 1000, START_MS - 1), "a clock set back");
        let never = [SavePoint { seconds: u64::MAX, changes: 0 }];
        assert!(!status.is_save_due(&never, 1, START_MS * 2));
    }

    #[test]
    fn saves_are_not_due_beside_one_nor_right_after_a_failure_unless_scheduled() {
        let mut status = status();
        let points = points(&[(1, 1)]);
        let later = START_MS + 10_000;
        status.save_started(1, later);
        assert!(!status.is_save_due(&points, 1, later));
        status.save.schedule();
        assert!(!status.is_save_due(&points, 1, later), "one at a time");
        status.save_finished(Outcome::Failed, 0, later);
        assert!(status.is_save_due(&points, 1, later), "it was scheduled meanwhile");
        status.save_started(1, later);
        assert!(!status.save.is_scheduled(), "what was scheduled has begun");
        status.save_finished(Outcome::Failed, 0, later);
        assert!(!status.is_save_due(&points, 1, later + SAVE_RETRY_MS));
        assert!(status.is_save_due(&points, 1, later + SAVE_RETRY_MS + 1));
    }

    #[test]
    fn a_rewrite_is_due_when_the_journal_has_outgrown_its_base() {
        let config = |percent, bytes_min| Config {
            rewrite_growth_percent: percent,
            rewrite_size_bytes_min: bytes_min,
            ..Config::default()
        };
        let cases = [
            (config(100, 64), 200, 100, true),
            (config(100, 64), 199, 100, false),
            (config(100, 64), 64, 1, false),
            (config(100, 64), 65, 1, true),
            (config(100, 64), 65, 0, true),
            (config(0, 0), u64::MAX, 0, false),
            (config(10, 0), 110, 100, true),
            (config(10, 0), 109, 100, false),
            (config(u32::MAX >> 1, 0), u64::MAX, u64::MAX, false),
        ];
        for (config, bytes, base_bytes, expected) in cases {
            let percent = config.rewrite_growth_percent;
            assert_eq!(
                status().is_rewrite_due(&config, bytes, base_bytes, START_MS),
                expected,
                "{bytes} of {base_bytes}, {percent} %"
            );
        }
    }

    #[test]
    fn rewrites_that_keep_failing_are_tried_ever_more_rarely() {
        let config = Config { rewrite_size_bytes_min: 0, ..Config::default() };
        let mut status = status();
        for (failures, wait_ms) in
            [(1, 0), (2, 0), (3, 60_000), (4, 120_000), (8, 1_920_000), (9, 3_600_000), (20, 3_600_000)]
        {
            while status.rewrite.failures() < failures {
                status.rewrite_started(START_MS);
                status.rewrite_finished(false, 0, START_MS);
            }
            let is_due = |elapsed_ms| status.is_rewrite_due(&config, 100, 1, START_MS + elapsed_ms);
            assert!(is_due(wait_ms + 1), "{failures} failures");
            assert!(wait_ms == 0 || !is_due(wait_ms), "{failures} failures");
        }
        status.rewrite.schedule();
        assert!(status.is_rewrite_due(&config, 0, 1, START_MS), "unless a client asks for one");
        status.rewrite_started(START_MS);
        assert!(!status.is_rewrite_due(&config, 100, 1, START_MS), "one at a time");
        status.rewrite_finished(true, 0, START_MS);
        assert_eq!((status.rewrite.failures(), status.rewrite.count()), (0, 21));
        assert!(status.is_rewrite_due(&config, 100, 1, START_MS));
        assert!(!status.rewrite.is_scheduled());
    }
}
