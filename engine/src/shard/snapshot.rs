//! Snapshots without fork: all entries of a shard as they were at one point in time, while the shard goes on changing.
//!
//! A snapshot begins by flipping the heap's epoch bit, so that every entry there is counts as unsaved. A walk in slot
//! order emits unsaved entries within a budget a step. Before a change takes an unsaved entry away, or alters what
//! is to be saved of it, the entry is set aside for output. Invariants:
//!
//! - What steps and [`Shard::drain_saved_early`] emit together is the shard's content at the begin, each entry once,
//!   with its database's number as of then. Entries that were due at shard time then are left out.
//! - Outside of a snapshot all entries in databases have the heap's bit. Within one, unsaved entries are only in
//!   databases with a walk, at or behind its position in slot order, and in `detached`.
//! - An entry that its table gives up (replaced, removed or expired) is not copied: the entry itself waits, its memory
//!   still counted by the heap. Changes in place, changes of the deadline and `detach` leave a copy.
//! - Memory of entries flushed during the snapshot is kept for the walk, and goes to the garbage behind it.

use hashbrown::HashTable;

use super::{Database, Shard};
use crate::entry::{Entry, EntryRef, Heap};
use crate::table::Slot;
use crate::{DATABASE_COUNT, Value};

/// A step emits at most this many bytes of values for each entry of its budget, and one value more.
const VALUE_BYTES_AN_ENTRY: usize = 4 << 10;

/// An entry as it was when the snapshot began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved<'a> {
    /// The number that the entry's database had.
    pub database: u8,
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: Value<'a>,
    /// When it expires: milliseconds since the Unix epoch.
    pub deadline_ms: Option<u64>,
}

/// What a snapshot knows besides the bits in the entries.
#[derive(Default)]
pub(super) struct Snapshot {
    phase: Phase,
    /// Shard time at the begin.
    began_ms: u64,
    /// By a record's database number: the database's number at the begin.
    number_of_record: [u8; DATABASE_COUNT as usize],
    /// Databases flushed before they were walked to the end.
    detached: Vec<Detached>,
    early: Vec<SetAside>,
    /// Memory of what `early` holds.
    early_bytes: usize,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    /// No entry is unsaved.
    #[default]
    Idle,
    /// Unsaved entries are to be emitted.
    Saving,
    /// Unsaved entries are to be marked only.
    Abandoned,
}

/// Where a walk goes on: the table of `slot` where keys of `hash` belong.
#[derive(Clone, Copy, Default)]
pub(super) struct Position {
    slot: usize,
    hash: u64,
}

/// The slots of a flushed database, and where their walk goes on.
struct Detached {
    slots: Vec<Slot>,
    number: u8,
    position: Position,
}

/// An entry that no table holds any more, or the copy of one from before its change.
pub(super) struct SetAside {
    pub(super) entry: Entry,
    number: u8,
}

/// What is left of a step's budget.
struct Left {
    entries: usize,
    value_bytes: usize,
}

impl Shard {
    /// Begins a snapshot of all databases as they are now.
    ///
    /// # Panics
    /// If [`Self::is_saving`].
    pub fn begin_snapshot(&mut self) {
        assert!(!self.is_saving(), "one snapshot of a shard at a time");
        self.snapshot.phase = Phase::Saving;
        self.snapshot.began_ms = self.time_ms;
        self.snapshot.number_of_record = self.database_of_record;
        self.heap.flip_epoch();
        for database in &mut self.databases {
            database.walk = (database.counts.keys > 0).then(Position::default);
        }
    }

    /// Goes on with the snapshot: emits what waits to be drained, then unsaved entries in slot order. Looks at no more
    /// than `budget` entries and one table more, and emits no more than 4 KiB of values for each entry of the budget,
    /// and one value more. True: everything has been emitted and the snapshot is over, or there was none.
    ///
    /// After [`Self::abandon_snapshot`] nothing is emitted, and true says that the next snapshot may begin.
    ///
    /// Memory that only the snapshot kept becomes garbage: see [`Self::has_garbage`].
    pub fn snapshot_step(&mut self, budget: usize, mut visit: impl FnMut(Saved<'_>)) -> bool {
        let budget = budget.max(1);
        let mut left = Left { entries: budget, value_bytes: budget.saturating_mul(VALUE_BYTES_AN_ENTRY) };
        let saving = self.snapshot.phase == Phase::Saving;
        let began_ms = self.snapshot.began_ms;
        loop {
            let Self { snapshot, databases, heap, garbage, .. } = self;
            let walked = databases.iter_mut().find(|database| database.walk.is_some());
            if snapshot.early.is_empty() && snapshot.detached.is_empty() && walked.is_none() {
                *snapshot = Snapshot::default();
                return true;
            }
            if left.is_spent() {
                return false;
            }
            if let Some(SetAside { entry, number }) = snapshot.early.pop() {
                snapshot.early_bytes -= entry.as_ref().block_bytes();
                left.take_entries(1);
                left.take_value(entry.as_ref());
                visit(Saved::new(number, entry.as_ref()));
                // SAFETY: a shard's entries are made on its heap.
                unsafe { entry.destroy(heap) };
                continue;
            }
            let mut emit = |number, entry: EntryRef<'_>, left: &mut Left| {
                if saving && !entry.is_due(began_ms) {
                    left.take_value(entry);
                    visit(Saved::new(number, entry));
                }
            };
            if let Some(Detached { slots, number, position }) = snapshot.detached.last_mut() {
                if walk(slots, position, heap, &mut left, |entry, left| emit(*number, entry, left))
                    && let Some(Detached { slots, .. }) = snapshot.detached.pop()
                {
                    garbage.databases.push(slots);
                }
            } else if let Some(Database { slots, walk: position, record_number, .. }) = walked {
                let number = snapshot.number_of_record[usize::from(*record_number)];
                if let Some(from) = position
                    && walk(slots, from, heap, &mut left, |entry, left| emit(number, entry, left))
                {
                    *position = None;
                }
            }
        }
    }

    /// Whether a snapshot is under way, or an abandoned one has entries left to mark: until
    /// [`Self::snapshot_step`] returns true.
    #[inline]
    pub fn is_saving(&self) -> bool {
        self.snapshot.phase != Phase::Idle
    }

    /// Emits the entries that changes have forced out since the last call, or step. They belong to the same output as
    /// those of [`Self::snapshot_step`], in any order.
    pub fn drain_saved_early(&mut self, mut visit: impl FnMut(Saved<'_>)) {
        for SetAside { entry, number } in self.snapshot.early.drain(..) {
            visit(Saved::new(number, entry.as_ref()));
            // SAFETY: a shard's entries are made on its heap.
            unsafe { entry.destroy(&mut self.heap) };
        }
        self.snapshot.early_bytes = 0;
    }

    /// Memory of the entries that wait for [`Self::drain_saved_early`], in bytes. [`Self::used_bytes`] counts it too.
    #[inline]
    pub fn saved_early_bytes(&self) -> usize {
        self.snapshot.early_bytes
    }

    /// Gives the snapshot up, if one is under way: nothing more is emitted. Entries not saved yet are marked by further
    /// calls of [`Self::snapshot_step`], which is due until it returns true; [`Self::is_saving`] holds until then.
    pub fn abandon_snapshot(&mut self) {
        let snapshot = &mut self.snapshot;
        if snapshot.phase != Phase::Saving {
            return;
        }
        snapshot.phase = Phase::Abandoned;
        snapshot.early_bytes = 0;
        if snapshot.early.capacity() > 0 {
            self.garbage.set_aside.push(std::mem::take(&mut snapshot.early));
        }
        self.garbage.databases.extend(snapshot.detached.drain(..).map(|detached| detached.slots));
    }
}

impl Snapshot {
    /// Bytes besides those that the heap counts.
    #[inline]
    pub(super) fn used_bytes(&self) -> usize {
        self.early.capacity() * size_of::<SetAside>()
    }

    /// Whether the entry is yet to be emitted.
    #[inline]
    pub(super) fn wants(&self, entry: &Entry, heap: &Heap) -> bool {
        entry.is_unsaved(heap) && self.phase == Phase::Saving && !entry.is_due(self.began_ms)
    }

    /// Frees an entry that has left its table, or sets it aside.
    ///
    /// # Safety
    /// The entry was made on `heap`, and both are of the snapshot's shard.
    #[inline]
    pub(super) unsafe fn release(&mut self, entry: Entry, record_number: u8, heap: &mut Heap) {
        if self.wants(&entry, heap) {
            self.set_aside(entry, record_number);
        } else {
            // SAFETY: as the caller says.
            unsafe { entry.destroy(heap) };
        }
    }

    /// Before an unsaved entry is changed in its table: sets a copy aside.
    #[cold]
    pub(super) fn save_copy(&mut self, entry: &mut Entry, record_number: u8, heap: &mut Heap) {
        if self.wants(entry, heap) {
            let copy = entry.duplicate(heap);
            self.set_aside(copy, record_number);
        }
        entry.mark_saved(heap);
    }

    /// Keeps a flushed database's slots, if some of their entries are yet to be emitted; otherwise gives them back.
    pub(super) fn keep_flushed(
        &mut self,
        slots: Vec<Slot>,
        walk: Option<Position>,
        record_number: u8,
    ) -> Option<Vec<Slot>> {
        match walk {
            Some(position) if self.phase == Phase::Saving => {
                let number = self.number_of_record[usize::from(record_number)];
                self.detached.push(Detached { slots, number, position });
                None
            }
            _ => Some(slots),
        }
    }

    #[cold]
    fn set_aside(&mut self, entry: Entry, record_number: u8) {
        self.early_bytes += entry.as_ref().block_bytes();
        self.early.push(SetAside { entry, number: self.number_of_record[usize::from(record_number)] });
    }
}

impl<'a> Saved<'a> {
    fn new(database: u8, entry: EntryRef<'a>) -> Self {
        Self { database, key: entry.key(), value: entry.value(), deadline_ms: entry.deadline_ms() }
    }
}

impl Left {
    fn is_spent(&self) -> bool {
        self.entries == 0 || self.value_bytes == 0
    }

    fn take_entries(&mut self, count: usize) {
        self.entries = self.entries.saturating_sub(count);
    }

    fn take_value(&mut self, entry: EntryRef<'_>) {
        let Value::String(value) = entry.value();
        self.value_bytes = self.value_bytes.saturating_sub(value.len());
    }
}

/// Walks on from `position`, marks unsaved entries and hands them to `emit`; true at the end of the slots.
///
/// Positions are beginnings of tables, in the order that splits and resizes do not change. When values use the budget up
/// within a table, the next step looks at it again: the bits tell what is done.
fn walk(
    slots: &mut [Slot],
    position: &mut Position,
    heap: &Heap,
    left: &mut Left,
    mut emit: impl FnMut(EntryRef<'_>, &mut Left),
) -> bool {
    while let Some(slot) = slots.get_mut(position.slot) {
        if left.is_spent() {
            return false;
        }
        let (table, next_hash) = slot.table_from_mut(position.hash);
        left.take_entries(1 + table.len());
        if !walk_table(table, heap, left, &mut emit) {
            return false;
        }
        *position = match next_hash {
            Some(hash) => Position { slot: position.slot, hash },
            None => Position { slot: position.slot + 1, hash: 0 },
        };
    }
    true
}

/// False if values used the budget up before the end of the table.
fn walk_table(
    table: &mut HashTable<Entry>,
    heap: &Heap,
    left: &mut Left,
    emit: &mut impl FnMut(EntryRef<'_>, &mut Left),
) -> bool {
    table.iter().for_each(Entry::prefetch);
    for entry in table.iter_mut().filter(|entry| entry.is_unsaved(heap)) {
        if left.value_bytes == 0 {
            return false;
        }
        entry.mark_saved(heap);
        emit(entry.as_ref(), left);
    }
    true
}
