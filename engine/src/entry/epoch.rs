//! The epoch bit: whether the snapshot under way has still to save an entry.
//!
//! The heap has a bit too, which new entries carry. A snapshot begins by flipping the heap's: every entry that was there
//! differs from it now, in one step. Saving an entry gives it the heap's bit; once all are saved, none differs.

use super::{Entry, Heap, INLINE_VALUE_BYTES_MAX, NewEntry, NewValue, Value, flag};

impl Heap {
    /// Makes all entries on the heap unsaved.
    pub(crate) fn flip_epoch(&mut self) {
        self.epoch ^= flag::EPOCH;
    }
}

impl Entry {
    /// Whether the entry differs from its heap in the epoch bit.
    #[inline]
    pub(crate) fn is_unsaved(&self, heap: &Heap) -> bool {
        self.header().flags & flag::EPOCH != heap.epoch
    }

    /// Gives the entry its heap's epoch bit.
    #[inline]
    pub(crate) fn mark_saved(&mut self, heap: &Heap) {
        let mut header = self.header();
        header.set_flag(flag::EPOCH, heap.epoch != 0);
        self.set_header(header);
    }

    /// A copy of the entry on `heap`.
    pub(crate) fn duplicate(&self, heap: &mut Heap) -> Self {
        let entry = self.as_ref();
        let Value::String(value) = entry.value();
        let value = if value.len() <= INLINE_VALUE_BYTES_MAX {
            NewValue::Inline(value, 0)
        } else {
            NewValue::External(value.to_vec())
        };
        let (word, form, clock) = (entry.word(), entry.form(), entry.clock());
        Self::new(heap, NewEntry { name: entry.key(), value, word, form, clock })
    }
}
