//! What a core reports of its journal and of its part of a snapshot, for INFO.
//!
//! Plain numbers that one core writes and a report copies. [`PersistenceReport::merge`] makes one report of several
//! cores': counts add up, and a trouble of one core is a trouble of all.

use hdrhistogram::Histogram;

/// The longest time that a histogram tells apart from longer ones: about a minute, in microseconds.
const SYNC_TIME_US_MAX: u64 = (1 << 26) - 1;

/// Decimal digits that hold of a time: it is read back at most a hundredth too high.
const SYNC_TIME_DIGITS: u8 = 2;

/// One core's journal, and its part of the snapshot that is being taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PersistenceReport {
    /// Changes of data since the server's start, as save points count them.
    pub changes: u64,
    /// Segments of the journal that hold something.
    pub segments: u64,
    /// Segments that are ready to be written.
    pub spare_segments: u64,
    /// Bytes of the journal that are written.
    pub journal_bytes: u64,
    /// Bytes that it had after its last rewrite, or at the start.
    pub journal_base_bytes: u64,
    /// Bytes of the snapshots that the journal goes on from.
    pub snapshot_file_bytes: u64,
    /// Bytes of the journal that are not written yet.
    pub buffer_bytes: u64,
    /// Forcings to the disk that are under way.
    pub syncs_under_way: u64,
    /// Times that writes were held back because the disk was more than a second behind.
    pub syncs_delayed: u64,
    /// How long it took to force the journal to the disk.
    pub sync_times: SyncTimes,
    /// The last write of the journal failed.
    pub has_write_failed: bool,
    /// Forcing the journal to the disk failed: what is on the disk is unknown, and nothing more is acknowledged.
    pub is_poisoned: bool,
    /// Keys that the snapshot under way holds already; 0 when none is.
    pub snapshot_keys_done: u64,
    /// Keys that it holds in the end, as far as is known; 0 when none is under way.
    pub snapshot_keys_total: u64,
    /// Memory that the snapshot under way takes, in bytes; 0 when none is.
    pub snapshot_bytes: u64,
    /// The most that it took.
    pub snapshot_bytes_peak: u64,
}

impl PersistenceReport {
    /// Adds another core's report.
    pub fn merge(&mut self, other: &Self) {
        // Taken apart, so that a new field cannot be forgotten here.
        let Self {
            changes,
            segments,
            spare_segments,
            journal_bytes,
            journal_base_bytes,
            snapshot_file_bytes,
            buffer_bytes,
            syncs_under_way,
            syncs_delayed,
            sync_times,
            has_write_failed,
            is_poisoned,
            snapshot_keys_done,
            snapshot_keys_total,
            snapshot_bytes,
            snapshot_bytes_peak,
        } = other;
        self.changes += changes;
        self.segments += segments;
        self.spare_segments += spare_segments;
        self.journal_bytes += journal_bytes;
        self.journal_base_bytes += journal_base_bytes;
        self.snapshot_file_bytes += snapshot_file_bytes;
        self.buffer_bytes += buffer_bytes;
        self.syncs_under_way += syncs_under_way;
        self.syncs_delayed += syncs_delayed;
        self.sync_times.merge(sync_times);
        self.has_write_failed |= has_write_failed;
        self.is_poisoned |= is_poisoned;
        self.snapshot_keys_done += snapshot_keys_done;
        self.snapshot_keys_total += snapshot_keys_total;
        self.snapshot_bytes += snapshot_bytes;
        self.snapshot_bytes_peak += snapshot_bytes_peak;
    }
}

/// How long it took to force a journal to the disk: a log-linear histogram of 20 KiB. Recording allocates nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct SyncTimes(Histogram<u64>);

impl Default for SyncTimes {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, SYNC_TIME_US_MAX, SYNC_TIME_DIGITS);
        Self(histogram.expect("the bounds are constants that the library accepts"))
    }
}

impl SyncTimes {
    /// Records one time. What is longer than about a minute counts as that long.
    pub fn record(&mut self, micros: u64) {
        self.0.saturating_record(micros.min(SYNC_TIME_US_MAX));
    }

    /// Adds another core's times.
    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all histograms have the same bounds");
    }

    /// Forgets everything, for CONFIG RESETSTAT.
    pub fn reset(&mut self) {
        self.0.reset();
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time that this share of all did not exceed, in microseconds; 0 of none.
    pub fn quantile_us(&self, share: f64) -> u64 {
        if self.0.is_empty() { 0 } else { self.0.value_at_quantile(share) }
    }

    /// The longest, in microseconds; 0 of none.
    pub fn max_us(&self) -> u64 {
        self.0.max()
    }

    /// Powers of two, ascending, and how many times were shorter than so many microseconds. Only powers that some time
    /// lies directly below.
    pub fn shorter_than(&self) -> Vec<(u64, u64)> {
        let mut found: Vec<(u64, u64)> = Vec::new();
        let mut count = 0;
        for step in self.0.iter_recorded() {
            count += step.count_since_last_iteration();
            // A step is a range of times whose last one this is; no range reaches over a power of two.
            let bound = (step.value_iterated_to() + 1).next_power_of_two();
            match found.last_mut() {
                Some(last) if last.0 == bound => last.1 = count,
                _ => found.push((bound, count)),
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(micros: &[u64]) -> SyncTimes {
        let mut times = SyncTimes::default();
        micros.iter().for_each(|&micros| times.record(micros));
        times
    }

    /// A report whose numbers all differ.
    fn report(start: u64) -> PersistenceReport {
        PersistenceReport {
            changes: start,
            segments: start + 1,
            spare_segments: start + 2,
            journal_bytes: start + 3,
            journal_base_bytes: start + 4,
            snapshot_file_bytes: start + 12,
            buffer_bytes: start + 5,
            syncs_under_way: start + 6,
            syncs_delayed: start + 7,
            sync_times: times(&[start]),
            has_write_failed: false,
            is_poisoned: false,
            snapshot_keys_done: start + 8,
            snapshot_keys_total: start + 9,
            snapshot_bytes: start + 10,
            snapshot_bytes_peak: start + 11,
        }
    }

    #[test]
    fn counts_of_cores_add_up() {
        let mut merged = PersistenceReport::default();
        merged.merge(&report(100));
        assert_eq!(merged, report(100), "nothing and a report is the report");
        merged.merge(&report(1000));
        let expected = PersistenceReport {
            changes: 1100,
            segments: 1102,
            spare_segments: 1104,
            journal_bytes: 1106,
            journal_base_bytes: 1108,
            snapshot_file_bytes: 1124,
            buffer_bytes: 1110,
            syncs_under_way: 1112,
            syncs_delayed: 1114,
            sync_times: times(&[100, 1000]),
            has_write_failed: false,
            is_poisoned: false,
            snapshot_keys_done: 1116,
            snapshot_keys_total: 1118,
            snapshot_bytes: 1120,
            snapshot_bytes_peak: 1122,
        };
        assert_eq!(merged, expected);
    }

    #[test]
    fn trouble_of_one_core_is_trouble_of_all() {
        let troubles = [
            PersistenceReport { has_write_failed: true, ..PersistenceReport::default() },
            PersistenceReport { is_poisoned: true, ..PersistenceReport::default() },
        ];
        for trouble in troubles {
            let mut after = trouble.clone();
            after.merge(&PersistenceReport::default());
            assert_eq!(after, trouble);
            let mut before = PersistenceReport::default();
            before.merge(&trouble);
            assert_eq!(before, trouble);
        }
    }

    #[test]
    fn quantiles_are_at_most_a_hundredth_too_high() {
        assert_eq!((times(&[]).quantile_us(0.99), times(&[]).max_us(), times(&[]).count()), (0, 0, 0));
        let all: Vec<u64> = (1..=10_000).collect();
        let times = times(&all);
        assert_eq!(times.count(), 10_000);
        for (share, exact) in [(0.5, 5_000), (0.99, 9_900), (1.0, 10_000)] {
            let found = times.quantile_us(share);
            assert!((exact..=exact + exact / 100).contains(&found), "{share}: {found}");
        }
        assert!((10_000..=10_100).contains(&times.max_us()));
    }

    #[test]
    fn every_time_counts_below_the_next_power_of_two() {
        let cases: [(u64, u64); 9] = [
            (0, 1),
            (1, 2),
            (2, 4),
            (255, 256),
            (256, 512),
            (511, 512),
            (65_535, 65_536),
            (65_536, 131_072),
            (u64::MAX, 1 << 26),
        ];
        for (micros, bound) in cases {
            assert_eq!(times(&[micros]).shorter_than(), [(bound, 1)], "{micros}");
        }
        assert_eq!(times(&[300, 5, 5, 400, 6, 3]).shorter_than(), [(4, 1), (8, 4), (512, 6)]);
        let mut reset = times(&[7]);
        reset.reset();
        assert_eq!(reset.shorter_than(), []);
    }
}
