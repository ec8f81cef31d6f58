//! What a shard does over time: expiring keys that are due, and freeing what was flushed, both within budgets.

use hashbrown::hash_table::IntoIter;

use super::snapshot::SetAside;
use super::{Counts, Shard};
use crate::entry::{DeadlineWord, Entry};
use crate::table::Slot;
use crate::wheel::{RECORD_HASH_SHIFT, Record, Wheel};

/// So many records are looked up together: their cache misses overlap.
const EXPIRE_BATCH: usize = 16;

/// What was flushed and is still to be freed.
#[derive(Default)]
pub(super) struct Garbage {
    /// The slots of flushed databases, freed from the end.
    pub(super) databases: Vec<Vec<Slot>>,
    /// The rest of the table being freed, and the bytes of the table.
    table: Option<(IntoIter<Entry>, usize)>,
    /// Wheels whose records mean nothing any more.
    wheels: Vec<Wheel>,
    /// Entries that an abandoned snapshot had set aside.
    pub(super) set_aside: Vec<Vec<SetAside>>,
}

impl Garbage {
    /// Bytes besides those that heap and tables count.
    pub(super) fn used_bytes(&self) -> usize {
        let set_aside = self.set_aside.iter().map(|entries| entries.capacity() * size_of::<SetAside>());
        self.wheels.iter().map(Wheel::used_bytes).chain(set_aside).sum()
    }

    fn is_empty(&self) -> bool {
        self.databases.is_empty()
            && self.table.is_none()
            && self.wheels.is_empty()
            && self.set_aside.is_empty()
    }
}

impl Shard {
    /// Empties a database (all databases: `None`) at once; memory returns through `reclaim`.
    pub fn flush(&mut self, database: Option<u8>) {
        let keys: usize = self.databases.iter().map(|database| database.counts.keys).sum();
        let bytes_a_key = self.heap.used_bytes().saturating_sub(self.saved_early_bytes()) / keys.max(1);
        for (number, content) in self.databases.iter_mut().enumerate() {
            if database.is_none_or(|database| usize::from(database) == number) && !content.slots.is_empty() {
                let slots = std::mem::take(&mut content.slots).into_vec();
                let walk = content.walk.take();
                let bytes = bytes_a_key * content.counts.keys;
                let slots = self.snapshot.keep_flushed(slots, walk, content.record_number, bytes);
                self.garbage.databases.extend(slots);
                self.changes_total += content.counts.keys as u64;
                content.counts = Counts::default();
            }
        }
        self.discard_idle_wheel();
    }

    /// The earliest time at which the wheel may have something due.
    #[inline]
    pub fn next_due_ms(&self) -> Option<u64> {
        self.wheel.next_due_ms()
    }

    /// Applies a tick: shard time moves to `now_ms`; removes due keys and frees detached memory, looking at no more
    /// than `budget` entries. Returns true while more is left.
    pub fn tick(&mut self, now_ms: u64, budget: usize) -> bool {
        let now_ms = self.advance(now_ms);
        self.once.expire(&self.hasher, now_ms);
        let mut left = budget;
        while left > 0 {
            let mut batch = [(Record::new(0, 0, 0), 0); EXPIRE_BATCH];
            let mut count = 0;
            while count < EXPIRE_BATCH.min(left)
                && let Some(due) = self.wheel.take_due(now_ms)
            {
                batch[count] = due;
                count += 1;
            }
            if count == 0 {
                break;
            }
            left -= count;
            let batch = &batch[..count];
            batch
                .iter()
                .filter_map(|&(record, _)| self.record_slot(record))
                .for_each(|(slot, hash)| slot.prefetch_bucket(hash));
            batch
                .iter()
                .filter_map(|&(record, _)| self.record_slot(record))
                .for_each(|(slot, hash)| slot.prefetch_entry(hash));
            batch.iter().for_each(|&(record, until_ms)| self.expire(record, until_ms, now_ms));
        }
        self.discard_idle_wheel();
        let more = self.reclaim(left);
        more || self.wheel.next_due_ms().is_some_and(|next_ms| next_ms <= now_ms)
    }

    /// Frees memory of flushed tables and large removed values within `budget` entries; true while more is left.
    pub fn reclaim(&mut self, budget: usize) -> bool {
        let mut left = self.heap.reclaim(budget);
        while left > 0 && !self.garbage.is_empty() {
            if let Some((entries, bytes)) = &mut self.garbage.table {
                match entries.next() {
                    // SAFETY: a shard's entries are made on its heap.
                    Some(entry) => unsafe { entry.destroy(&mut self.heap) },
                    None => {
                        self.table_bytes -= *bytes;
                        self.garbage.table = None;
                    }
                }
                left -= 1;
            } else if let Some(slots) = self.garbage.databases.last_mut() {
                left -= 1;
                match slots.last_mut().map(|slot| slot.take_table(&mut self.table_bytes)) {
                    Some(Some(table)) => {
                        table.iter().for_each(Entry::prefetch);
                        let bytes = table.allocation_size();
                        self.garbage.table = Some((table.into_iter(), bytes));
                    }
                    Some(None) => drop(slots.pop()),
                    None => {
                        self.table_bytes -= slots.capacity() * size_of::<Slot>();
                        self.garbage.databases.pop();
                    }
                }
            } else if let Some(entries) = self.garbage.set_aside.last_mut() {
                left -= 1;
                match entries.pop() {
                    // SAFETY: as above.
                    Some(SetAside { entry, .. }) => unsafe { entry.destroy(&mut self.heap) },
                    None => drop(self.garbage.set_aside.pop()),
                }
            } else if let Some(wheel) = self.garbage.wheels.last_mut() {
                left = wheel.discard(left);
                if wheel.len() == 0 {
                    self.garbage.wheels.pop();
                }
            }
        }
        self.has_garbage()
    }

    /// Whether memory of flushed tables or large removed values is left for [`Self::reclaim`].
    #[inline]
    pub fn has_garbage(&self) -> bool {
        self.heap.has_garbage() || !self.garbage.is_empty()
    }

    /// Looks at the keys that a record stands for. It came out of a bucket whose time ends at `until_ms`.
    fn expire(&mut self, record: Record, until_ms: u64, now_ms: u64) {
        let index = self.index(record.slot());
        let database =
            &mut self.databases[usize::from(self.database_of_record[usize::from(record.database())])];
        let Some(slot) = database.slots.get_mut(index) else { return };
        let is_meant = |entry: &Entry| {
            self.hasher.hash(entry.key()) >> RECORD_HASH_SHIFT == record.hash() >> RECORD_HASH_SHIFT
        };
        let mut any_due = false;
        for entry in slot.candidates_mut(record.hash()) {
            let Some(old) = entry.word() else { continue };
            if !is_meant(entry) {
                continue;
            }
            let new = match old.deadline_ms() {
                Some(deadline_ms) if deadline_ms <= now_ms => {
                    any_due = true;
                    continue;
                }
                // Another record lies at the deadline itself, outside this bucket: this one is left over.
                Some(deadline_ms) if old.is_exact() && deadline_ms >= until_ms => continue,
                Some(deadline_ms) => {
                    self.wheel.insert(record, deadline_ms, now_ms);
                    Some(DeadlineWord::new(deadline_ms, deadline_ms))
                }
                // The deadline was cleared, and so is now what remembers the record.
                None => None,
            };
            // Deadline and epoch stay as they are, so a snapshot under way need not save the entry first.
            // SAFETY: a shard's entries are made on its heap.
            unsafe { entry.set_word(&mut self.heap, new) };
            database.counts.change_word(Some(old), new);
        }
        if !any_due {
            return;
        }
        let is_due = |entry: &Entry| entry.is_due(now_ms) && is_meant(entry);
        while let Some(entry) = slot.remove(record.hash(), is_due, &self.hasher, &mut self.table_bytes) {
            database.counts.remove(&entry);
            self.expired_total += 1;
            // SAFETY: as above.
            unsafe { self.snapshot.release(entry, database.record_number, &mut self.heap) };
        }
    }

    /// The slot and the partial hash that a record means.
    fn record_slot(&self, record: Record) -> Option<(&Slot, u64)> {
        let database = self.database_of_record[usize::from(record.database())];
        self.slot(database, record.slot()).map(|slot| (slot, record.hash()))
    }

    /// Lets go of a wheel whose records stand for no key.
    fn discard_idle_wheel(&mut self) {
        if self.wheel.len() > 0 && self.databases.iter().all(|database| database.counts.words == 0) {
            self.garbage.wheels.push(std::mem::replace(&mut self.wheel, Wheel::new()));
        }
    }
}
