//! The deadline word: when an entry expires, and by when the timing wheel will look at it.
//!
//! The wheel's records are lazy: nothing removes one when its key's deadline changes. A second record is
//! needed only when the deadline moves before the earliest one, so the word remembers that one's time: the
//! low 48 bits are the deadline (milliseconds since the Unix epoch), the high 16 bits how far before it the record
//! lies, as a small floating-point number of five exponent and eleven mantissa bits.
//!
//! Invariants:
//!
//! - While an entry has a word, the wheel holds a record for it at or before `record_ms`.
//! - A distance of zero with an exponent of zero is exact: there is a record at the deadline itself. Other distances err to the
//!   late side, so `record_ms` is never before the record that it stands for.
//! - A record's time lies on the grid of its exponent, so moving a deadline back and forth does not accumulate errors.
//! - An entry whose deadline was cleared keeps its word, with the record's time, until the record comes due: setting
//!   deadlines and clearing them again and again costs no further records.

/// The latest deadline that the keyspace can hold (the year 10,889); later ones are treated as this one.
pub(crate) const DEADLINE_MS_MAX: u64 = (1 << 48) - 1;

const MANTISSA_BITS: u32 = 11;
const MANTISSA_MAX: u64 = (1 << MANTISSA_BITS) - 1;
/// The largest exponent of a distance; the one above marks a cleared deadline.
const EXPONENT_MAX: u32 = 30;
const CLEARED: u64 = 31;

/// See the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeadlineWord(pub(crate) u64);

impl DeadlineWord {
    /// A deadline with a record at `record_ms` or before, which is not after the deadline.
    pub(crate) fn new(deadline_ms: u64, record_ms: u64) -> Self {
        debug_assert!(record_ms <= deadline_ms && deadline_ms <= DEADLINE_MS_MAX);
        let mut exponent = 0;
        let mut mantissa = deadline_ms - record_ms;
        while mantissa > MANTISSA_MAX && exponent < EXPONENT_MAX {
            exponent += 1;
            mantissa = (deadline_ms >> exponent) - (record_ms.div_ceil(1 << exponent));
        }
        let code = (u64::from(exponent) << MANTISSA_BITS) | mantissa.min(MANTISSA_MAX);
        Self((code << 48) | deadline_ms)
    }

    /// A deadline with a record at that time or before.
    fn at_or_before(deadline_ms: u64) -> Self {
        Self((1 << (48 + MANTISSA_BITS)) | deadline_ms)
    }

    /// No deadline, but a record at `record_ms` or before.
    fn cleared(record_ms: u64) -> Self {
        Self((CLEARED << (48 + MANTISSA_BITS)) | record_ms)
    }

    /// The deadline, in milliseconds since the Unix epoch.
    #[inline]
    pub(crate) fn deadline_ms(self) -> Option<u64> {
        (self.0 >> (48 + MANTISSA_BITS) != CLEARED).then_some(self.0 & DEADLINE_MS_MAX)
    }

    /// The time by which the wheel looks at the entry.
    pub(crate) fn record_ms(self) -> u64 {
        let time_ms = self.0 & DEADLINE_MS_MAX;
        let exponent = self.0 >> (48 + MANTISSA_BITS);
        if exponent == CLEARED {
            return time_ms;
        }
        let mantissa = (self.0 >> 48) & MANTISSA_MAX;
        if mantissa == 0 { time_ms } else { ((time_ms >> exponent) - mantissa) << exponent }
    }

    /// Whether there is a record at the deadline itself.
    pub(crate) fn is_exact(self) -> bool {
        self.0 >> 48 == 0
    }

    /// The word after the deadline became `deadline_ms` (`None`: cleared) at `now_ms`, and the time of the record that the
    /// wheel needs for it, if it needs one.
    pub(crate) fn change(
        old: Option<Self>,
        deadline_ms: Option<u64>,
        now_ms: u64,
    ) -> (Option<Self>, Option<u64>) {
        let deadline_ms = deadline_ms.map(|deadline_ms| deadline_ms.min(DEADLINE_MS_MAX));
        match (old, deadline_ms) {
            (None, None) => (None, None),
            (None, Some(deadline_ms)) => (Some(Self::new(deadline_ms, deadline_ms)), Some(deadline_ms)),
            (Some(old), None) => (Some(Self::cleared(old.record_ms())), None),
            // What is known of its record may be too late by some.
            (Some(old), Some(deadline_ms)) if old.record_ms() == deadline_ms && !old.is_exact() => {
                (Some(Self::at_or_before(deadline_ms)), None)
            }
            (Some(old), Some(deadline_ms)) if old.record_ms() <= deadline_ms => {
                (Some(Self::new(deadline_ms, old.record_ms())), None)
            }
            (Some(old), Some(deadline_ms)) => {
                let record_ms =
                    lowered_record(old.deadline_ms().unwrap_or(old.record_ms()), deadline_ms, now_ms);
                (Some(Self::new(deadline_ms, record_ms)), Some(record_ms))
            }
        }
    }
}

/// Where to put the record when a deadline moves before all of its key's records: somewhat before the deadline, on a grid
/// that stays representable when the deadline moves back up. So the next lowering is likely to be covered.
fn lowered_record(old_deadline_ms: u64, deadline_ms: u64, now_ms: u64) -> u64 {
    let remaining_ms = deadline_ms.saturating_sub(now_ms);
    let span_ms = old_deadline_ms.saturating_sub(deadline_ms).max(remaining_ms / 16);
    let exponent = (u64::BITS - span_ms.leading_zeros()).saturating_sub(MANTISSA_BITS - 1).min(EXPONENT_MAX);
    let record_ms = ((deadline_ms - remaining_ms / 16) >> exponent) << exponent;
    // On so coarse a grid that the record would come due at once, exactness is cheaper.
    if record_ms < deadline_ms - remaining_ms / 2 { deadline_ms } else { record_ms }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A key, its records, and the steps that a wheel would take.
    #[derive(Default)]
    struct Key {
        word: Option<DeadlineWord>,
        records: Vec<u64>,
    }

    impl Key {
        fn change(&mut self, deadline_ms: Option<u64>, now_ms: u64) {
            let (word, record) = DeadlineWord::change(self.word, deadline_ms, now_ms);
            self.word = word;
            self.records.extend(record);
        }
    }

    proptest! {
        #[test]
        fn distances_err_to_the_late_side(deadline_ms in 0..=DEADLINE_MS_MAX, shift in 0..48_u32, low in any::<u64>()) {
            let distance = (low & ((1 << shift) - 1)).min(deadline_ms);
            let word = DeadlineWord::new(deadline_ms, deadline_ms - distance);
            prop_assert_eq!(word.deadline_ms(), Some(deadline_ms));
            prop_assert!(word.record_ms() >= deadline_ms - distance);
            prop_assert!(word.record_ms() <= deadline_ms);
            prop_assert_eq!(word.is_exact(), distance == 0);
            if distance >> (MANTISSA_BITS + EXPONENT_MAX) == 0 {
                prop_assert!(word.record_ms() - (deadline_ms - distance) <= distance / 512);
            }
        }

        #[test]
        fn a_record_lies_at_or_before_every_deadline(
            changes in prop::collection::vec((prop::option::weighted(0.8, 0..34_u32), any::<u64>(), 0..5_000_u64), 1..100),
        ) {
            let mut key = Key::default();
            let mut now_ms = 1_700_000_000_000;
            for (shift, low, elapsed) in changes {
                now_ms += elapsed;
                key.change(shift.map(|shift| now_ms + (low & ((1 << shift) - 1))), now_ms);
                if let Some(word) = key.word {
                    let earliest = *key.records.iter().min().expect("a word has a record");
                    prop_assert!(earliest <= word.record_ms());
                    if word.is_exact() {
                        prop_assert!(key.records.contains(&word.deadline_ms().unwrap()));
                    }
                }
            }
        }
    }

    #[test]
    fn moving_a_deadline_back_and_forth_adds_few_records() {
        let mut key = Key::default();
        let start_ms = 1_700_000_000_000;
        for step in 0..10_000 {
            let now_ms = start_ms + step / 2;
            key.change(Some(now_ms + 3_600_000), now_ms);
            key.change(Some(now_ms + 10_000), now_ms);
        }
        assert!(key.records.len() <= 4, "{} records", key.records.len());
    }

    #[test]
    fn a_deadline_where_an_inexact_record_seems_to_be_is_not_taken_for_exact() {
        let mut key = Key::default();
        key.change(Some(1_000_001), 0);
        // Too far from the record to remember it exactly.
        key.change(Some(9_000_000), 0);
        let seen_ms = key.word.unwrap().record_ms();
        assert!(seen_ms > 1_000_001);
        key.change(None, 0);
        for _ in 0..100 {
            key.change(Some(seen_ms), 0);
            let word = key.word.unwrap();
            assert_eq!((word.deadline_ms(), word.record_ms()), (Some(seen_ms), seen_ms));
            assert!(!word.is_exact());
            key.change(None, 0);
        }
        assert_eq!(key.records, [1_000_001], "and that costs no record");
        // The same without clearing it first.
        key.change(Some(9_000_000), 0);
        let seen_ms = key.word.unwrap().record_ms();
        key.change(Some(seen_ms), 0);
        assert!(!key.word.unwrap().is_exact());
        assert_eq!(key.records.len(), 1);
    }

    #[test]
    fn clearing_and_setting_adds_no_records() {
        let mut key = Key::default();
        for now_ms in 0..10_000 {
            key.change(Some(now_ms + 60_000), now_ms);
            key.change(None, now_ms);
        }
        assert_eq!(key.records.len(), 1);
    }

    #[test]
    fn lowering_in_small_steps_adds_few_records() {
        let mut key = Key::default();
        for step in 0..59_000 {
            key.change(Some(60_000 - step), 0);
        }
        assert!(key.records.len() <= 100, "{} records", key.records.len());
    }
}
