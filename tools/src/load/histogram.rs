//! A histogram of nanoseconds with a bounded relative error.
//!
//! Log-linear, as HdrHistogram has it (Gil Tene, <https://hdrhistogram.org>): values below 512 ns have a counter
//! each, and every doubling above has 256 counters, so a value read back is at most 0.4 % too high. Recording is one
//! increment and never allocates. The smallest and the largest value are exact.

/// Counters in each doubling: 2 to this power.
const PRECISION_BITS: u32 = 8;

/// One counter for every value below twice 2^[`PRECISION_BITS`], and 2^[`PRECISION_BITS`] for each doubling above.
const COUNTER_COUNT: usize = ((64 - PRECISION_BITS as usize) + 1) << PRECISION_BITS;

/// Counts of nanoseconds.
pub(crate) struct Histogram {
    counters: Box<[u64]>,
    count: u64,
    sum: u128,
    min: u64,
    max: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { counters: vec![0; COUNTER_COUNT].into(), count: 0, sum: 0, min: u64::MAX, max: 0 }
    }

    #[inline]
    pub(crate) fn record(&mut self, value: u64) {
        self.counters[counter_of(value)] += 1;
        self.count += 1;
        self.sum += u128::from(value);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The smallest value; 0 of none.
    pub(crate) fn min(&self) -> u64 {
        if self.count == 0 { 0 } else { self.min }
    }

    /// The largest value; 0 of none.
    pub(crate) fn max(&self) -> u64 {
        self.max
    }

    /// The mean, exact; 0 of none.
    pub(crate) fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }

    /// The smallest recorded value that at least `fraction` of all values do not exceed, rounded up by at most 0.4 %;
    /// 0 of none.
    pub(crate) fn quantile(&self, fraction: f64) -> u64 {
        let rank = ((fraction * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (index, &count) in self.counters.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return highest_of(index).clamp(self.min, self.max);
            }
        }
        0
    }
}

#[inline]
fn counter_of(value: u64) -> usize {
    let shift = value.checked_ilog2().unwrap_or(0).saturating_sub(PRECISION_BITS);
    ((shift as usize) << PRECISION_BITS) + (value >> shift) as usize
}

/// The largest value that counter `index` stands for.
fn highest_of(index: usize) -> u64 {
    let shift = (index >> PRECISION_BITS).saturating_sub(1);
    let leading = (index - (shift << PRECISION_BITS)) as u64;
    (leading << shift) | ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_the_counter_that_claims_it() {
        let values = (0..2000).chain((0..64).flat_map(|bit| {
            let power = 1u64 << bit;
            [power - 1, power, power + power / 3, power + (power - 1)]
        }));
        for value in values.chain([u64::MAX]) {
            let counter = counter_of(value);
            assert!(counter < COUNTER_COUNT);
            let highest = highest_of(counter);
            assert!(highest >= value, "{value} is above its counter's {highest}");
            assert!((highest - value) as f64 <= value as f64 / 256.0, "{value} is read back as {highest}");
            assert!(counter == 0 || highest_of(counter - 1) < value, "{value} belongs one counter lower");
        }
    }

    #[test]
    fn quantiles_are_ranks() {
        let mut histogram = Histogram::new();
        for value in 1..=1000 {
            histogram.record(value * 100);
        }
        assert_eq!((histogram.count(), histogram.min(), histogram.max()), (1000, 100, 100_000));
        assert_eq!(histogram.mean(), 50_050.0);
        for (fraction, exact) in
            [(0.001, 100), (0.5, 50_000), (0.99, 99_000), (0.999, 99_900), (1.0, 100_000)]
        {
            let read = histogram.quantile(fraction);
            assert!((exact..=exact + exact / 256).contains(&read), "{fraction}: {read} for {exact}");
        }
    }

    #[test]
    fn an_empty_histogram_reads_zero() {
        let histogram = Histogram::new();
        assert_eq!(
            (histogram.min(), histogram.max(), histogram.quantile(0.5), histogram.mean()),
            (0, 0, 0, 0.0)
        );
    }
}
