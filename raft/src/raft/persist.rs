//! What is on its way to the disk, and what has arrived: the watermarks that votes and acknowledgements wait for.
//!
//! # Invariants
//!
//! - A watermark's index is the last entry of the *present* log that is written, or synced, with all before it: a
//!   truncation takes it back, also that of writes still on their way.
//! - The hard state counts only when synced, and only in its newest form.

use std::collections::VecDeque;

use super::Raft;
use crate::{Durability, Index, Ready, Write, mutation::Mutation};

#[derive(Debug)]
pub(super) struct Disk {
    /// The last write handed out.
    number: u64,
    /// The last entry handed out.
    handed_index: Index,
    /// Whether the hard state differs from what was handed out.
    hard_state_changed: bool,
    /// The last write with a hard state.
    hard_state_number: u64,
    written: Watermark,
    synced: Watermark,
    /// Writes that are not synced, oldest first.
    outstanding: VecDeque<Watermark>,
}

/// A write, and the last entry of the log that is there once it and all earlier ones are.
#[derive(Clone, Copy, Debug)]
struct Watermark {
    number: u64,
    index: Index,
}

impl Disk {
    /// Everything up to `last_index` came from the disk.
    pub(super) fn new(last_index: Index) -> Self {
        let all = Watermark { number: 0, index: last_index };
        Self {
            number: 0,
            handed_index: last_index,
            hard_state_changed: false,
            hard_state_number: 0,
            written: all,
            synced: all,
            outstanding: VecDeque::new(),
        }
    }

    pub(super) fn hard_state_changed(&mut self) {
        self.hard_state_changed = true;
    }

    /// Whether the hard state as it is now is synced.
    pub(super) fn is_hard_state_synced(&self) -> bool {
        !self.hard_state_changed && self.hard_state_number <= self.synced.number
    }

    /// The last entry that can be read from the disk.
    pub(super) fn written_index(&self) -> Index {
        self.written.index
    }

    /// Whether there is something to be written.
    pub(super) fn has_write(&self, last_index: Index) -> bool {
        self.hard_state_changed || self.handed_index < last_index
    }

    /// The log was truncated: its last entry is `last_index`.
    pub(super) fn truncated(&mut self, last_index: Index) {
        self.handed_index = self.handed_index.min(last_index);
        self.each_watermark(|watermark| watermark.index = watermark.index.min(last_index));
    }

    /// A durable snapshot stands for everything up to `index`.
    pub(super) fn covered(&mut self, index: Index) {
        self.handed_index = self.handed_index.max(index);
        self.each_watermark(|watermark| watermark.index = watermark.index.max(index));
    }

    fn each_watermark(&mut self, change: impl FnMut(&mut Watermark)) {
        [&mut self.written, &mut self.synced].into_iter().chain(&mut self.outstanding).for_each(change);
    }

    fn hand_out(&mut self, last_index: Index) -> u64 {
        self.number += 1;
        self.handed_index = last_index;
        if std::mem::take(&mut self.hard_state_changed) {
            self.hard_state_number = self.number;
        }
        self.outstanding.push_back(Watermark { number: self.number, index: last_index });
        self.number
    }

    fn written(&mut self, number: u64) {
        assert!(number <= self.number, "write {number} was not handed out");
        let arrived = self.outstanding.iter().take_while(|write| write.number <= number).last();
        if let Some(&write) = arrived.filter(|write| write.number > self.written.number) {
            self.written = write;
        }
    }

    fn synced(&mut self, number: u64) {
        self.written(number);
        while let Some(&write) = self.outstanding.front()
            && write.number <= number
        {
            self.synced = write;
            self.outstanding.pop_front();
        }
    }
}

impl Raft {
    /// The driver wrote everything up to this [`Write::number`]: it survives the process.
    ///
    /// # Panics
    ///
    /// Panics if no such write was handed out.
    pub fn written(&mut self, number: u64) {
        self.disk.written(number);
        self.disk_moved();
    }

    /// The driver synced everything up to this [`Write::number`]: it survives a power loss. So it is written, too.
    ///
    /// # Panics
    ///
    /// Panics if no such write was handed out.
    pub fn synced(&mut self, number: u64) {
        self.disk.synced(number);
        self.disk_moved();
    }

    fn disk_moved(&mut self) {
        self.log.evict(self.disk.written_index());
        self.release_votes();
        self.advance_commit();
    }

    /// The last entry of which this replica's copy counts.
    pub(super) fn durable_index(&self) -> Index {
        match self.config.durability {
            Durability::Fsync => self.disk.synced.index,
            Durability::Memory => self.disk.written.index,
        }
    }

    /// The entry up to which the leader's own copy counts.
    pub(super) fn own_match(&self) -> Index {
        if self.is_on(Mutation::LeaderCountsUndurable) { self.log.last_index() } else { self.durable_index() }
    }

    /// Hands out what is to be written.
    pub(super) fn take_write(&mut self, ready: &mut Ready) {
        if let Some(write) = ready.write.take() {
            ready.lists.give(write.entries);
        }
        let last_index = self.log.last_index();
        if !self.disk.has_write(last_index) {
            return;
        }
        let from = self.disk.handed_index + 1;
        let mut entries = ready.lists.take();
        entries.extend(self.log.cached_range(from, last_index + 1).cloned());
        assert_eq!(entries.len() as u64, last_index + 1 - from, "what was not handed out is in memory");
        let hard_state = self.disk.hard_state_changed.then(|| self.hard_state());
        let number = self.disk.hand_out(last_index);
        ready.write = Some(Write { number, hard_state, entries });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watermarks_follow_the_prefix() {
        let mut disk = Disk::new(5);
        assert!(!disk.has_write(5) && disk.has_write(6));
        assert_eq!(disk.hand_out(8), 1);
        assert_eq!(disk.hand_out(9), 2);
        disk.written(1);
        assert_eq!((disk.written.index, disk.synced.index), (8, 5));
        disk.synced(2);
        assert_eq!((disk.written.index, disk.synced.index), (9, 9));
        disk.written(1);
        assert_eq!(disk.written.index, 9);
    }

    #[test]
    fn a_truncation_takes_back_what_is_there_and_what_is_coming() {
        let mut disk = Disk::new(5);
        disk.hand_out(10);
        disk.truncated(6);
        disk.hand_out(8);
        disk.synced(1);
        assert_eq!(disk.synced.index, 6);
        disk.synced(2);
        assert_eq!(disk.synced.index, 8);
        disk.truncated(3);
        assert_eq!((disk.written.index, disk.synced.index, disk.handed_index), (3, 3, 3));
    }

    #[test]
    fn a_hard_state_counts_only_synced_and_in_its_newest_form() {
        let mut disk = Disk::new(0);
        assert!(disk.is_hard_state_synced());
        disk.hard_state_changed();
        assert!(disk.has_write(0) && !disk.is_hard_state_synced());
        disk.hand_out(0);
        disk.written(1);
        assert!(!disk.is_hard_state_synced());
        disk.hard_state_changed();
        disk.synced(1);
        assert!(!disk.is_hard_state_synced());
        disk.hand_out(0);
        disk.synced(2);
        assert!(disk.is_hard_state_synced());
    }

    #[test]
    fn a_snapshot_covers_what_is_on_its_way() {
        let mut disk = Disk::new(0);
        disk.hand_out(4);
        disk.covered(9);
        assert_eq!((disk.synced.index, disk.handed_index), (9, 9));
        disk.synced(1);
        assert_eq!(disk.synced.index, 9);
    }

    #[test]
    #[should_panic(expected = "not handed out")]
    fn a_write_that_was_never_handed_out_cannot_arrive() {
        Disk::new(0).synced(1);
    }
}
