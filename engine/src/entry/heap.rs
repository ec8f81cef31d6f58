//! Where a shard's entries and large values live, and the count of their bytes.

use std::collections::VecDeque;

use crate::slab::Slab;

/// Large values of at least this many bytes are freed step by step instead of at once: returning
/// their pages to the system takes tens of microseconds.
const DEFERRED_BYTES_MIN: usize = 256 << 10;

/// What freeing this many bytes counts against a budget of entries: one.
const BYTES_A_STEP: usize = 16 << 10;

/// The memory of one shard's entries.
pub(crate) struct Heap {
    pub(crate) slab: Slab,
    /// Capacity of all large values, those that wait to be freed included.
    pub(crate) external_bytes: usize,
    /// Large values in entries.
    pub(crate) external_count: usize,
    garbage: VecDeque<Vec<u8>>,
    /// The epoch bit of new entries, where the header has it (`epoch`).
    pub(super) epoch: u8,
}

impl Heap {
    pub(crate) fn new() -> Self {
        Self { slab: Slab::new(), external_bytes: 0, external_count: 0, garbage: VecDeque::new(), epoch: 0 }
    }

    /// Bytes in entries and large values.
    pub(crate) fn used_bytes(&self) -> usize {
        self.slab.used_bytes() + self.external_bytes
    }

    /// Whether dropping the slab alone would leak: something belongs to the global allocator.
    pub(crate) fn needs_walk(&self) -> bool {
        self.slab.large_blocks() > 0 || self.external_count > 0
    }

    /// Whether large values wait to be freed.
    pub(crate) fn has_garbage(&self) -> bool {
        !self.garbage.is_empty()
    }

    /// Frees the value of a removed entry, now or in a later step.
    pub(crate) fn discard(&mut self, value: Vec<u8>) {
        if value.capacity() >= DEFERRED_BYTES_MIN {
            self.garbage.push_back(value);
        } else {
            self.external_bytes -= value.capacity();
        }
    }

    /// Frees waiting values; returns what is left of the budget.
    pub(crate) fn reclaim(&mut self, mut budget: usize) -> usize {
        while budget > 0
            && let Some(value) = self.garbage.pop_front()
        {
            self.external_bytes -= value.capacity();
            budget = budget.saturating_sub(1 + value.capacity() / BYTES_A_STEP);
        }
        budget
    }
}
