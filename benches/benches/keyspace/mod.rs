//! Keys for the benchmarks of the keyspace, in an order in which no cache helps.

/// Keys in the keyspace: far more than fits into any cache.
pub(crate) const KEY_COUNT: usize = 1_000_000;

/// Milliseconds since the Unix epoch, as good as any.
pub(crate) const NOW_MS: u64 = 1_700_000_000_000;

pub(crate) type Name = [u8; 16];

/// The name of every key once, shuffled. They are read in the order they have here, as those in a receive buffer are,
/// so that only the keyspace itself misses caches.
pub(crate) fn shuffled_names() -> Vec<Name> {
    let mut names: Vec<Name> = (0..KEY_COUNT)
        .map(|number| {
            let mut name = *b"key:000000000000";
            name[4..].copy_from_slice(format!("{number:012}").as_bytes());
            name
        })
        .collect();
    // Fisher and Yates' shuffle, driven by a linear congruential generator (Knuth's MMIX constants).
    let mut state = 1_u64;
    for last in (1..names.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        names.swap(last, ((u128::from(state) * (last as u128 + 1)) >> 64) as usize);
    }
    names
}

/// Hands out batches in order, over and over.
pub(crate) struct Batches<T> {
    all: Vec<T>,
    next: usize,
}

impl<T> Batches<T> {
    pub(crate) fn new(all: Vec<T>) -> Self {
        Self { all, next: 0 }
    }

    /// The next `length` of them.
    pub(crate) fn next(&mut self, length: usize) -> &[T] {
        if self.next + length > self.all.len() {
            self.next = 0;
        }
        let start = self.next;
        self.next += length;
        &self.all[start..self.next]
    }
}
