//! Snapshots without fork: all entries of a shard as they were at one point in time, while the shard goes on changing.
//!
//! A snapshot begins by flipping the heap's epoch bit, so that every entry there is counts as unsaved. A walk in slot
//! order emits unsaved entries within a budget a step. Before a change takes an unsaved entry away, or alters what
//! is to be saved of it, the entry is set aside for output; of values with an allocation of their own only what changes is
//! (`large`). Invariants:
//!
//! - What steps emit together is the shard's content at the begin, each entry once, with its database's number as of
//!   then. Entries that were due at the time that the snapshot stands for are left out.
//! - Outside of a snapshot all entries in databases have the heap's bit. Within one, unsaved entries are only in
//!   databases with a walk, at or behind its position in slot order, and in `detached`. Of the one whose value is being
//!   emitted in parts the bit says that it is saved; the walk does not pass it before the last part.
//! - An entry that its table gives up (replaced, removed or expired) is not copied: the entry itself waits, its memory
//!   still counted by the heap. Changes in place and changes of the deadline leave a copy of an entry whose value lies
//!   within it. `detach` copies any value.
//! - Memory of entries flushed during the snapshot is kept for the walk, and goes to the garbage behind it.

mod large;

use std::{ops::Range, ptr::NonNull};

use hashbrown::HashTable;

use super::{Database, Shard};
use crate::entry::{Entry, EntryRef, Heap};
use crate::table::Slot;
use crate::{DATABASE_COUNT, Value};
use large::{Large, Part};

/// A step emits at most this many bytes of keys and values for each entry of its budget, and one entry or part more.
const BYTES_AN_ENTRY: usize = 4 << 10;

/// What a snapshot emits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved<'a> {
    /// An entry.
    Entry(SavedEntry<'a>),
    /// The next bytes of the value of the entry before, with which it is whole or more of them follow.
    Part(&'a [u8]),
}

/// An entry as it was when the snapshot began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedEntry<'a> {
    /// The number that the entry's database had.
    pub database: u8,
    /// The key.
    pub key: &'a [u8],
    /// The value; of a large one the first part.
    pub value: Value<'a>,
    /// Bytes of a large value that follow in parts, before anything else is emitted.
    pub rest_bytes: usize,
    /// When it expires: milliseconds since the Unix epoch.
    pub deadline_ms: Option<u64>,
}

/// What a snapshot knows besides the bits in the entries.
#[derive(Default)]
pub(super) struct Snapshot {
    phase: Phase,
    /// The shard time that it stands for.
    began_ms: u64,
    /// By a record's database number: the database's number at the begin.
    number_of_record: [u8; DATABASE_COUNT as usize],
    /// Databases flushed before they were walked to the end.
    detached: Vec<Detached>,
    early: Vec<SetAside>,
    /// Memory of what `early` holds, and of the entry of a large value that is emitted and in no table.
    early_bytes: usize,
    large: Large,
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
    /// Memory of their entries, about.
    bytes: usize,
}

/// An entry that no table holds any more, or the copy of one from before its change.
pub(super) struct SetAside {
    pub(super) entry: Entry,
    number: u8,
}

/// What is left of a step's budget.
struct Left {
    entries: usize,
    bytes: usize,
}

impl Shard {
    /// Begins a snapshot of all databases as they are now, and returns the shard time that it stands for: what is due
    /// then is left out.
    ///
    /// `at_ms` is not above the timestamp of any entry that is applied later. Shard time may be ahead of that already, by
    /// entries that are proposed and not applied; they may still let a key live on whose deadline lies between.
    ///
    /// # Panics
    /// If [`Self::is_saving`].
    pub fn begin_snapshot(&mut self, at_ms: u64) -> u64 {
        assert!(!self.is_saving(), "one snapshot of a shard at a time");
        self.snapshot.phase = Phase::Saving;
        self.snapshot.began_ms = self.time_ms.min(at_ms);
        self.snapshot.number_of_record = self.database_of_record;
        self.heap.flip_epoch();
        for database in &mut self.databases {
            database.walk = (database.counts.keys > 0).then(Position::default);
        }
        self.snapshot.began_ms
    }

    /// Goes on with the snapshot: emits the rest of a large value, then what changes have forced out, then unsaved entries
    /// in slot order. Looks at no more than `budget` entries and one table more, and emits no more than 4 KiB of keys
    /// and values for each entry of the budget, and one entry or part more. True: everything has been emitted and the
    /// snapshot is over, or there was none.
    ///
    /// After [`Self::abandon_snapshot`] nothing is emitted, and true says that the next snapshot may begin.
    ///
    /// Memory that only the snapshot kept becomes garbage: see [`Self::has_garbage`].
    pub fn snapshot_step(&mut self, budget: usize, mut visit: impl FnMut(Saved<'_>)) -> bool {
        let budget = budget.max(1);
        let mut left = Left { entries: budget, bytes: budget.saturating_mul(BYTES_AN_ENTRY) };
        let saving = self.snapshot.phase == Phase::Saving;
        let began_ms = self.snapshot.began_ms;
        loop {
            let Self { snapshot, databases, heap, garbage, .. } = self;
            let Snapshot { early, early_bytes, detached, large, .. } = snapshot;
            let walked = databases.iter_mut().find(|database| database.walk.is_some());
            if early.is_empty() && detached.is_empty() && walked.is_none() && !large.is_emitting() {
                assert!(large.is_empty(), "something of a large value was not emitted");
                *snapshot = Snapshot::default();
                return true;
            }
            if left.is_spent() {
                return false;
            }
            if large.is_emitting() {
                let Part { bytes, rest_bytes } = large.next_part();
                left.take(1, bytes.len());
                visit(Saved::Part(bytes));
                if rest_bytes == 0
                    && let Some(entry) = large.end()
                {
                    *early_bytes -= entry.as_ref().block_bytes();
                    // SAFETY: a shard's entries are made on its heap.
                    unsafe { entry.destroy(heap) };
                }
                continue;
            }
            let mut emit = |number, entry: EntryRef<'_>, left: &mut Left| {
                let deadline_ms = large.deadline_ms(entry);
                let is_wanted = saving && deadline_ms.is_none_or(|deadline_ms| deadline_ms > began_ms);
                !is_wanted || emit(large, number, entry, deadline_ms, left, &mut visit)
            };
            if let Some(SetAside { entry, number }) = early.pop() {
                left.take(1, 0);
                if emit(number, entry.as_ref(), &mut left) {
                    *early_bytes -= entry.as_ref().block_bytes();
                    // SAFETY: as above.
                    unsafe { entry.destroy(heap) };
                } else {
                    large.own(entry);
                }
            } else if let Some(Detached { slots, number, position, .. }) = detached.last_mut() {
                if walk(slots, position, heap, &mut left, |entry, left| emit(*number, entry, left))
                    && let Some(Detached { slots, .. }) = detached.pop()
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

    /// Memory that only the snapshot keeps, in bytes: of entries and parts of them that changes have forced out, and, about,
    /// of what was flushed. [`Self::used_bytes`] counts it too.
    #[inline]
    pub fn saved_early_bytes(&self) -> usize {
        self.snapshot.held_bytes()
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
        if let Some(entry) = snapshot.large.end() {
            snapshot.early.push(SetAside { entry, number: 0 });
        }
        snapshot.large = Large::default();
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
        self.early.capacity() * size_of::<SetAside>() + self.large.kept_bytes() + self.large.used_bytes()
    }

    #[inline]
    fn held_bytes(&self) -> usize {
        let detached: usize = self.detached.iter().map(|detached| detached.bytes).sum();
        self.early_bytes + self.large.kept_bytes() + detached
    }

    /// Whether the entry, or a part of it, is yet to be emitted.
    #[inline]
    pub(super) fn wants(&self, entry: &Entry, heap: &Heap) -> bool {
        if entry.is_unsaved(heap) {
            self.phase == Phase::Saving
                && self
                    .large
                    .deadline_ms(entry.as_ref())
                    .is_none_or(|deadline_ms| deadline_ms > self.began_ms)
        } else {
            self.large.emits(entry.as_ref())
        }
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

    /// Before the deadline of an unsaved entry changes in its table.
    #[cold]
    pub(super) fn keep_deadline(&mut self, entry: &mut Entry, record_number: u8, heap: &mut Heap) {
        if !(self.wants(entry, heap) && self.large.keep_deadline(entry.as_ref())) {
            self.keep_copy(entry, record_number, heap);
        }
    }

    /// Whether an entry must not change in its table before [`Self::keep_bytes`].
    #[inline]
    pub(super) fn minds(&self, entry: &Entry, heap: &Heap) -> bool {
        entry.is_unsaved(heap) || self.large.emits(entry.as_ref())
    }

    /// Before the value of an entry for which [`Self::minds`] holds becomes `length` bytes in its table, of which `range`
    /// change. [`Self::moved`] follows.
    #[cold]
    pub(super) fn keep_bytes(
        &mut self,
        entry: &mut Entry,
        record_number: u8,
        heap: &mut Heap,
        length: usize,
        range: Range<usize>,
    ) {
        if !(self.wants(entry, heap) && self.large.keep_bytes(entry.as_ref(), length, range)) {
            self.keep_copy(entry, record_number, heap);
        }
    }

    /// Before an unsaved entry is changed in its table: sets a copy aside.
    fn keep_copy(&mut self, entry: &mut Entry, record_number: u8, heap: &mut Heap) {
        if self.wants(entry, heap) {
            let copy = entry.duplicate(heap);
            self.set_aside(copy, record_number);
        }
        entry.mark_saved(heap);
    }

    /// The value of an entry was changed in its table, where its allocation was `before`.
    #[cold]
    pub(super) fn moved(&mut self, before: Option<NonNull<u8>>, entry: &Entry) {
        self.large.moved(before, entry.as_ref());
    }

    /// Keeps a flushed database's slots, if some of their entries are yet to be emitted; otherwise gives them back. The
    /// entries have about `bytes` of memory.
    pub(super) fn keep_flushed(
        &mut self,
        slots: Vec<Slot>,
        walk: Option<Position>,
        record_number: u8,
        bytes: usize,
    ) -> Option<Vec<Slot>> {
        match walk {
            Some(position) if self.phase == Phase::Saving => {
                let number = self.number_of_record[usize::from(record_number)];
                self.detached.push(Detached { slots, number, position, bytes });
                None
            }
            _ => Some(slots),
        }
    }

    #[cold]
    fn set_aside(&mut self, entry: Entry, record_number: u8) {
        self.early_bytes += entry.as_ref().block_bytes();
        if self.large.emits(entry.as_ref()) {
            self.large.own(entry);
        } else {
            self.early.push(SetAside { entry, number: self.number_of_record[usize::from(record_number)] });
        }
    }
}

/// Emits an entry whole, or only with the first part of its value, and says which: true if it is whole.
fn emit(
    large: &mut Large,
    database: u8,
    entry: EntryRef<'_>,
    deadline_ms: Option<u64>,
    left: &mut Left,
    visit: &mut impl FnMut(Saved<'_>),
) -> bool {
    let key = entry.key();
    if !large.includes(entry) {
        let Value::String(bytes) = entry.value();
        left.take(0, key.len() + bytes.len());
        visit(Saved::Entry(SavedEntry { database, key, value: entry.value(), rest_bytes: 0, deadline_ms }));
        return true;
    }
    large.begin(entry);
    let Part { bytes, rest_bytes } = large.next_part();
    left.take(0, key.len() + bytes.len());
    let value = Value::String(bytes);
    visit(Saved::Entry(SavedEntry { database, key, value, rest_bytes, deadline_ms }));
    let is_whole = rest_bytes == 0;
    if is_whole {
        let owned = large.end();
        assert!(owned.is_none(), "nobody gave it an entry");
    }
    is_whole
}

impl Left {
    fn is_spent(&self) -> bool {
        self.entries == 0 || self.bytes == 0
    }

    fn take(&mut self, entries: usize, bytes: usize) {
        self.entries = self.entries.saturating_sub(entries);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// Walks on from `position`, marks unsaved entries and hands them to `emit`; true at the end of the slots.
///
/// `emit` says whether another entry may follow at once. Positions are beginnings of tables, in the order that splits and
/// resizes do not change. When bytes use the budget up within a table, the next step looks at it again: the bits tell what
/// is done.
fn walk(
    slots: &mut [Slot],
    position: &mut Position,
    heap: &Heap,
    left: &mut Left,
    mut emit: impl FnMut(EntryRef<'_>, &mut Left) -> bool,
) -> bool {
    while let Some(slot) = slots.get_mut(position.slot) {
        if left.is_spent() {
            return false;
        }
        let (table, next_hash) = slot.table_from_mut(position.hash);
        left.take(1 + table.len(), 0);
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

/// False if the walk has to stop before the end of the table.
fn walk_table(
    table: &mut HashTable<Entry>,
    heap: &Heap,
    left: &mut Left,
    emit: &mut impl FnMut(EntryRef<'_>, &mut Left) -> bool,
) -> bool {
    table.iter().for_each(Entry::prefetch);
    for entry in table.iter_mut().filter(|entry| entry.is_unsaved(heap)) {
        if left.bytes == 0 {
            return false;
        }
        entry.mark_saved(heap);
        if !emit(entry.as_ref(), left) {
            return false;
        }
    }
    true
}
