//! One shard's keyspace: a range of slots, for every database.
//!
//! Nothing here reads a clock: every call brings `now_ms`, milliseconds since the Unix epoch. Invariants:
//!
//! - **A due key is missing.** A key whose deadline is not after `now_ms` does not exist for that call. A call that says
//!   so moves shard time to its `now_ms`, so that no later entry's timestamp can bring the key back. Memory
//!   returns when a write meets the key or a tick finds it through the wheel.
//! - **Bounded steps.** A call touches at most one table (`table`), except those that take a budget.
//! - **Every byte is counted** as it is allocated: entries, large values, tables, wheel, and what waits to be
//!   freed (`used_bytes`).
//! - An entry never leaves its shard: its memory belongs to the shard's heap.

mod expire;
mod scan;
mod snapshot;

use std::ops::Range;

use crate::entry::{DeadlineWord, Entry, Form, Heap, NewEntry, NewValue, clock_at, prefetch};
use crate::once::{BadOnceRecords, OncePair, OnceRecords, OnceSnapshot, OnceTotals};
use crate::table::Slot;
use crate::transaction::{BadTransaction, Transactions, Versions};
use crate::wheel::{Record, Wheel};
use crate::{DATABASE_COUNT, DetachedEntry, EntryRef, Hasher, KeyHash, SLOT_COUNT, Value};
use expire::Garbage;
use snapshot::{Position, Snapshot};

pub use snapshot::{Saved, SavedEntry};

/// What a write does to a key's deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// The key never expires.
    Clear,
    /// The deadline stays as it is.
    Keep,
    /// The key expires then: milliseconds since the Unix epoch, at most 2^48 - 1 (later ones are treated as that).
    At(u64),
}

/// A SCAN cursor: the slot in the top 14 bits, the top 50 bits of the hash below. 0 begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor(pub u64);

/// One database's part of the shard.
struct Database {
    /// Empty until the first write.
    slots: Box<[Slot]>,
    /// The database's name in the wheel's records, which stays when databases are exchanged.
    record_number: u8,
    counts: Counts,
    /// Where the snapshot's walk goes on; `None`: no entry here is unsaved.
    walk: Option<Position>,
}

/// How many keys a database's part of the shard has.
#[derive(Clone, Copy, Default)]
struct Counts {
    keys: usize,
    /// Keys with a deadline.
    expiring: usize,
    /// Keys with a deadline word, cleared ones included: those that records stand for.
    words: usize,
    /// The sum of all deadlines, in milliseconds since the Unix epoch.
    deadlines_ms: u128,
}

/// One shard: a range of slots, for every database.
///
/// Methods panic if a database's number is not below [`DATABASE_COUNT`](crate::DATABASE_COUNT), and those that write
/// if another shard holds the key's slot.
pub struct Shard {
    first_slot: u16,
    slot_count: u16,
    time_ms: u64,
    hasher: Hasher,
    databases: [Database; DATABASE_COUNT as usize],
    /// By a record's database number: the index in `databases`.
    database_of_record: [u8; DATABASE_COUNT as usize],
    heap: Heap,
    wheel: Wheel,
    /// Bytes of slots, directories and tables, those that wait to be freed included.
    table_bytes: usize,
    garbage: Garbage,
    snapshot: Snapshot,
    changes_total: u64,
    expired_total: u64,
    /// Reads that found their key, and all of them.
    hits_total: u64,
    reads_total: u64,
    /// Candidates of a scan, kept for its allocation.
    scratch: Vec<(u64, u32)>,
    once: OnceRecords,
    transactions: Transactions,
    /// Made when they are asked for first.
    versions: Option<Versions>,
}

impl Shard {
    /// An empty shard for `slots`.
    ///
    /// # Panics
    /// If the range is empty or exceeds the 16,384 slots.
    pub fn new(slots: Range<u16>, hasher: Hasher) -> Self {
        assert!(!slots.is_empty() && slots.end <= SLOT_COUNT);
        Self {
            first_slot: slots.start,
            slot_count: slots.end - slots.start,
            time_ms: 0,
            hasher,
            databases: std::array::from_fn(|number| Database::new(number as u8)),
            database_of_record: std::array::from_fn(|number| number as u8),
            heap: Heap::new(),
            wheel: Wheel::new(),
            table_bytes: 0,
            garbage: Garbage::default(),
            snapshot: Snapshot::default(),
            changes_total: 0,
            expired_total: 0,
            hits_total: 0,
            reads_total: 0,
            scratch: Vec::new(),
            once: OnceRecords::default(),
            transactions: Transactions::default(),
            versions: None,
        }
    }

    /// The shard's slots.
    pub fn slots(&self) -> Range<u16> {
        self.first_slot..self.first_slot + self.slot_count
    }

    /// Shard time: the timestamp of the last applied entry, or the latest clock by which a read called a due key missing.
    pub fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// The timestamp for an entry proposed at `now_ms`: never below shard time, which moves to it.
    #[inline]
    pub fn advance(&mut self, now_ms: u64) -> u64 {
        self.time_ms = self.time_ms.max(now_ms);
        self.time_ms
    }

    /// Before the first prefetch, as soon as the slot is known: the head of its table.
    #[inline]
    pub fn prefetch_slot(&self, database: u8, slot: u16) {
        if let Some(slot) = self.slot(database, slot) {
            prefetch(slot);
        }
    }

    /// First prefetch: where the key's entry is found. Prefetches of several keys overlap, also those that have to look
    /// at the tables' tags.
    #[inline]
    pub fn prefetch_table(&self, database: u8, key: KeyHash) {
        if let Some(slot) = self.slot(database, key.slot) {
            slot.prefetch_bucket(key.hash);
        }
    }

    /// Second prefetch, after the first ones of a batch: the key's entry.
    #[inline]
    pub fn prefetch_entry(&self, database: u8, key: KeyHash) {
        if let Some(slot) = self.slot(database, key.slot) {
            slot.prefetch_entry(key.hash);
        }
    }

    /// The entry of a live key: one that is there and not due at `now_ms`.
    #[inline]
    pub fn get(&mut self, database: u8, name: &[u8], key: KeyHash, now_ms: u64) -> Option<EntryRef<'_>> {
        let index = self.index(key.slot);
        let entry = self.databases[usize::from(database)].slots.get(index)?.find(key.hash, name)?;
        if entry.is_due(now_ms) {
            self.time_ms = self.time_ms.max(now_ms);
            return None;
        }
        Some(entry.as_ref())
    }

    /// As `get`, and counts among the reads that found their key or did not.
    #[inline]
    pub fn read(&mut self, database: u8, name: &[u8], key: KeyHash, now_ms: u64) -> Option<EntryRef<'_>> {
        self.find::<true, false>(database, name, key, now_ms)
    }

    /// As `get`, and the entry was accessed now.
    #[inline]
    pub fn touch(&mut self, database: u8, name: &[u8], key: KeyHash, now_ms: u64) -> Option<EntryRef<'_>> {
        self.find::<false, true>(database, name, key, now_ms)
    }

    /// As `read` and `touch` together.
    #[inline]
    pub fn access(&mut self, database: u8, name: &[u8], key: KeyHash, now_ms: u64) -> Option<EntryRef<'_>> {
        self.find::<true, true>(database, name, key, now_ms)
    }

    #[inline(always)]
    fn find<const COUNTS: bool, const TOUCHES: bool>(
        &mut self,
        database: u8,
        name: &[u8],
        key: KeyHash,
        now_ms: u64,
    ) -> Option<EntryRef<'_>> {
        let index = self.index(key.slot);
        self.reads_total += u64::from(COUNTS);
        let entry = self.databases[usize::from(database)].slots.get_mut(index)?.find_mut(key.hash, name)?;
        if entry.is_due(now_ms) {
            self.time_ms = self.time_ms.max(now_ms);
            return None;
        }
        self.hits_total += u64::from(COUNTS);
        if TOUCHES {
            entry.set_clock(clock_at(now_ms));
        }
        Some(entry.as_ref())
    }

    /// Sets a key to a string, whatever it held.
    #[inline]
    pub fn set_string(
        &mut self,
        database: u8,
        name: &[u8],
        key: KeyHash,
        value: &[u8],
        deadline: Deadline,
        now_ms: u64,
    ) {
        let value = if value.len() <= crate::entry::INLINE_VALUE_BYTES_MAX {
            NewValue::Inline(value, 0)
        } else {
            NewValue::External(value.to_vec())
        };
        self.put(
            database,
            key,
            Put { name, value, form: Form::Given, clock: clock_at(now_ms), deadline },
            now_ms,
        );
    }

    /// Sets a key to a number's text that INCRBYFLOAT printed, keeping the deadline: short, and even if it has only digits
    /// it is no integer to OBJECT ENCODING.
    pub(crate) fn set_printed(&mut self, database: u8, name: &[u8], key: KeyHash, text: &[u8], now_ms: u64) {
        let value = NewValue::Inline(text, 0);
        let clock = clock_at(now_ms);
        let put = Put { name, value, form: Form::Printed, clock, deadline: Deadline::Keep };
        self.put(database, key, put, now_ms);
    }

    /// Sets a key to a string that has an allocation of its own already: a large one is moved, not copied.
    pub fn set_string_owned(
        &mut self,
        database: u8,
        name: &[u8],
        key: KeyHash,
        mut value: Vec<u8>,
        deadline: Deadline,
        now_ms: u64,
    ) {
        let value = NewValue::from_owned(&mut value);
        self.put(
            database,
            key,
            Put { name, value, form: Form::Given, clock: clock_at(now_ms), deadline },
            now_ms,
        );
    }

    /// Edits a string in place, keeping the deadline: makes it `length` bytes (new bytes are zero; a missing key begins
    /// empty, without deadline), then calls `edit` with those in `range`. Growth is amortised, so that repeated APPENDs cost
    /// O(1) a byte.
    ///
    /// # Panics
    /// If `range` ends behind `length`.
    #[expect(clippy::too_many_arguments, reason = "what an edit is said by")]
    pub fn edit_string<R>(
        &mut self,
        database: u8,
        name: &[u8],
        key: KeyHash,
        length: usize,
        range: Range<usize>,
        now_ms: u64,
        edit: impl FnOnce(&mut [u8]) -> R,
    ) -> R {
        let index = self.index(key.slot);
        let Database { slots, record_number, .. } = &mut self.databases[usize::from(database)];
        if let Some(entry) = slots.get_mut(index).and_then(|slot| slot.find_mut(key.hash, name))
            && !entry.is_due(now_ms)
        {
            self.changes_total += 1;
            let is_minded = self.snapshot.minds(entry, &self.heap);
            if is_minded {
                self.snapshot.keep_bytes(entry, *record_number, &mut self.heap, length, range.clone());
            }
            let before = entry.as_ref().allocation();
            // SAFETY: a shard's entries are made on its heap.
            unsafe { entry.resize(&mut self.heap, length) };
            if is_minded {
                self.snapshot.moved(before, entry);
            }
            entry.mark_edited();
            entry.set_clock(clock_at(now_ms));
            return edit(&mut entry.value_mut()[range]);
        }
        let value = if length <= crate::entry::INLINE_VALUE_BYTES_MAX {
            NewValue::Inline(&[], length)
        } else {
            NewValue::External(vec![0; length])
        };
        let put = Put { name, value, form: Form::Edited, clock: clock_at(now_ms), deadline: Deadline::Clear };
        self.put(database, key, put, now_ms);
        let slot = &mut self.databases[usize::from(database)].slots[index];
        edit(&mut slot.find_mut(key.hash, name).expect("put above").value_mut()[range])
    }

    /// Sets, clears or (Keep) leaves the deadline of a live key; false if there is none.
    pub fn set_deadline(
        &mut self,
        database: u8,
        name: &[u8],
        key: KeyHash,
        deadline: Deadline,
        now_ms: u64,
    ) -> bool {
        let index = self.index(key.slot);
        let database = &mut self.databases[usize::from(database)];
        let Some(slot) = database.slots.get_mut(index) else { return false };
        let Some(entry) = slot.find_mut(key.hash, name) else { return false };
        if entry.is_due(now_ms) {
            self.time_ms = self.time_ms.max(now_ms);
            return false;
        }
        let deadline_ms = match deadline {
            Deadline::Keep => return true,
            Deadline::Clear => None,
            Deadline::At(deadline_ms) => Some(deadline_ms),
        };
        let old = entry.word();
        if deadline_ms.is_none() && old.and_then(DeadlineWord::deadline_ms).is_none() {
            return true;
        }
        self.changes_total += 1;
        if entry.is_unsaved(&self.heap) {
            self.snapshot.keep_deadline(entry, database.record_number, &mut self.heap);
        }
        let (word, record_ms) = DeadlineWord::change(old, deadline_ms, now_ms);
        // SAFETY: a shard's entries are made on its heap.
        unsafe { entry.set_word(&mut self.heap, word) };
        database.counts.change_word(old, word);
        if let Some(record_ms) = record_ms {
            self.wheel.insert(Record::new(database.record_number, key.slot, key.hash), record_ms, now_ms);
        }
        true
    }

    /// Removes a key; false if no live key was there. Large values are freed step by step (`reclaim`).
    #[inline]
    pub fn remove(&mut self, database: u8, name: &[u8], key: KeyHash, now_ms: u64) -> bool {
        let Some((entry, live)) = self.take(database, name, key, now_ms) else { return false };
        let record_number = self.databases[usize::from(database)].record_number;
        // SAFETY: a shard's entries are made on its heap.
        unsafe { self.snapshot.release(entry, record_number, &mut self.heap) };
        live
    }

    /// Takes a live key's value and deadline out.
    pub fn detach(&mut self, database: u8, name: &[u8], key: KeyHash, now_ms: u64) -> Option<DetachedEntry> {
        let (entry, live) = self.take(database, name, key, now_ms)?;
        let reference = entry.as_ref();
        let (deadline_ms, form, clock) = (reference.deadline_ms(), reference.form(), reference.clock());
        if !live || self.snapshot.wants(&entry, &self.heap) {
            let Value::String(value) = reference.value();
            let value = live.then(|| value.to_vec());
            let record_number = self.databases[usize::from(database)].record_number;
            // SAFETY: a shard's entries are made on its heap.
            unsafe { self.snapshot.release(entry, record_number, &mut self.heap) };
            return value.map(|value| DetachedEntry { value, deadline_ms, form, clock });
        }
        // SAFETY: as above.
        let value = unsafe { entry.into_value(&mut self.heap) };
        Some(DetachedEntry { value, deadline_ms, form, clock })
    }

    /// A copy of a live key's value and deadline.
    pub fn duplicate(
        &mut self,
        database: u8,
        name: &[u8],
        key: KeyHash,
        now_ms: u64,
    ) -> Option<DetachedEntry> {
        let entry = self.get(database, name, key, now_ms)?;
        let Value::String(value) = entry.value();
        Some(DetachedEntry {
            value: value.to_vec(),
            deadline_ms: entry.deadline_ms(),
            form: entry.form(),
            clock: clock_at(now_ms),
        })
    }

    /// Puts a detached value under a key, replacing what is there. It keeps its deadline and its last access.
    pub fn attach(&mut self, database: u8, name: &[u8], key: KeyHash, mut entry: DetachedEntry, now_ms: u64) {
        let deadline = entry.deadline_ms.map_or(Deadline::Clear, Deadline::At);
        let value = NewValue::from_owned(&mut entry.value);
        self.put(database, key, Put { name, value, form: entry.form, clock: entry.clock, deadline }, now_ms);
    }

    /// Keys of a database, expired ones that have not been removed included (as Redis counts).
    pub fn key_count(&self, database: u8) -> usize {
        self.databases[usize::from(database)].counts.keys
    }

    /// Keys with a deadline.
    pub fn expiring_count(&self, database: u8) -> usize {
        self.databases[usize::from(database)].counts.expiring
    }

    /// The sum of all deadlines of a database, in milliseconds since the Unix epoch.
    pub fn deadlines_ms(&self, database: u8) -> u128 {
        self.databases[usize::from(database)].counts.deadlines_ms
    }

    /// Keys of one slot of database 0.
    pub fn slot_key_count(&self, slot: u16) -> usize {
        self.slot(0, slot).map_or(0, Slot::len)
    }

    /// Exchanges two databases.
    pub fn swap_databases(&mut self, a: u8, b: u8) {
        self.changes_total += u64::from(a != b);
        self.databases.swap(usize::from(a), usize::from(b));
        for index in [a, b] {
            let record_number = self.databases[usize::from(index)].record_number;
            self.database_of_record[usize::from(record_number)] = index;
        }
    }

    /// Memory held, in bytes: entries, tables, large values, wheel.
    #[inline]
    pub fn used_bytes(&self) -> usize {
        self.heap.used_bytes()
            + self.table_bytes
            + self.wheel.used_bytes()
            + self.garbage.used_bytes()
            + self.snapshot.used_bytes()
            + self.once.used_bytes()
            + self.transactions.used_bytes()
    }

    /// Changes of data since the shard was made. A write of a key counts one, also of what was there already; so do a
    /// change of a deadline, the removal of a live key, and an exchange of databases. A flush counts the keys that
    /// it removes. Reads count nothing, nor does the removal of due keys: time has made them missing already.
    #[inline]
    pub fn changes_total(&self) -> u64 {
        self.changes_total
    }

    /// Keys removed because they were due, since the shard was made.
    pub fn expired_total(&self) -> u64 {
        self.expired_total
    }

    /// Reads that found a live key, and all of them, since the shard was made.
    pub fn read_totals(&self) -> (u64, u64) {
        (self.hits_total, self.reads_total)
    }

    /// The recorded reply to a request of ONCE, in RESP3.
    pub(crate) fn find_once(&mut self, pair: OncePair<'_>, now_ms: u64) -> Option<&[u8]> {
        self.once.find(pair, &self.hasher, now_ms)
    }

    /// Records the reply, in RESP3, to a request of ONCE that was executed when so many changes had been; a change itself
    /// if the request made none.
    pub(crate) fn record_once(
        &mut self,
        pair: OncePair<'_>,
        reply: &[u8],
        deadline_ms: u64,
        now_ms: u64,
        changes_before: u64,
    ) {
        self.once.record(pair, reply, deadline_ms, &self.hasher, now_ms);
        self.changes_total += u64::from(self.changes_total == changes_before);
    }

    /// What is recorded of requests of ONCE, and what became of them, since the shard was made.
    pub fn once_totals(&self) -> OnceTotals {
        self.once.totals()
    }

    /// The recorded replies of ONCE, for a snapshot that begins now.
    pub fn once_snapshot(&self) -> OnceSnapshot {
        self.once.snapshot()
    }

    /// Takes recorded replies of a snapshot, behind those that it took before.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn restore_once(&mut self, records: &[u8]) -> Result<(), BadOnceRecords> {
        self.once.restore(records, &self.hasher)
    }

    /// The commands over several shards that the shard takes part in.
    #[inline]
    pub fn transactions(&self) -> &Transactions {
        &self.transactions
    }

    pub(crate) fn transactions_mut(&mut self) -> &mut Transactions {
        &mut self.transactions
    }

    /// Them as they are now, a record each, for a snapshot.
    pub fn transaction_records(&self) -> Vec<Vec<u8>> {
        self.transactions.records()
    }

    /// Takes a record of a snapshot.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn restore_transaction(&mut self, record: &[u8]) -> Result<(), BadTransaction> {
        let slots = self.slots();
        self.transactions.restore(record, &slots)
    }

    /// An applied entry has changed these keys, or all if there are none; of use to reads of several shards.
    #[inline]
    pub fn note_changed(&mut self, keys: &[KeyHash]) {
        if let Some(versions) = &mut self.versions {
            versions.note(keys);
        }
    }

    /// What tells whether these keys change, from now on at the latest. `seed` names counts that are begun.
    pub(crate) fn versions(&mut self, keys: &[KeyHash], seed: u64) -> (u64, u64) {
        self.versions.get_or_insert_with(|| Versions::new(seed)).of(keys)
    }

    pub(crate) fn hasher(&self) -> &Hasher {
        &self.hasher
    }

    pub(crate) fn key(&self, name: &[u8]) -> KeyHash {
        self.hasher.key(name)
    }

    /// Where a slot is in a database's `slots`; out of range if another shard holds it.
    #[inline]
    fn index(&self, slot: u16) -> usize {
        usize::from(slot.wrapping_sub(self.first_slot))
    }

    #[inline]
    fn slot(&self, database: u8, slot: u16) -> Option<&Slot> {
        self.databases[usize::from(database)].slots.get(self.index(slot))
    }

    /// Puts a value under a key, replacing what is there.
    #[inline]
    fn put(&mut self, database: u8, key: KeyHash, put: Put<'_>, now_ms: u64) {
        let Put { name, value, form, clock, deadline } = put;
        self.changes_total += 1;
        let index = self.index(key.slot);
        let database = &mut self.databases[usize::from(database)];
        if database.slots.is_empty() {
            self.table_bytes += database.open(self.slot_count);
        }
        let slot = &mut database.slots[index];
        let record_ms = if let Some(entry) = slot.find_mut(key.hash, name) {
            let old_word = entry.word();
            let mut old_deadline_ms = old_word.and_then(DeadlineWord::deadline_ms);
            if old_deadline_ms.is_some_and(|deadline_ms| deadline_ms <= now_ms) {
                old_deadline_ms = None;
                self.expired_total += 1;
                self.time_ms = self.time_ms.max(now_ms);
            }
            let (word, record_ms) = DeadlineWord::change(old_word, deadline.resolve(old_deadline_ms), now_ms);
            let in_place = match value {
                NewValue::Inline(value, 0) if form == Form::Given && !entry.is_unsaved(&self.heap) => {
                    entry.overwrite(value, word, clock)
                }
                _ => false,
            };
            if !in_place {
                let new = Entry::new(&mut self.heap, NewEntry { name, value, word, form, clock });
                let old = std::mem::replace(entry, new);
                // SAFETY: a shard's entries are made on its heap.
                unsafe { self.snapshot.release(old, database.record_number, &mut self.heap) };
            }
            database.counts.change_word(old_word, word);
            record_ms
        } else {
            let (word, record_ms) = DeadlineWord::change(None, deadline.resolve(None), now_ms);
            let entry = Entry::new(&mut self.heap, NewEntry { name, value, word, form, clock });
            slot.insert(key.hash, entry, &self.hasher, &mut self.table_bytes);
            database.counts.keys += 1;
            database.counts.change_word(None, word);
            record_ms
        };
        if let Some(record_ms) = record_ms {
            self.wheel.insert(Record::new(database.record_number, key.slot, key.hash), record_ms, now_ms);
        }
    }

    /// Takes an entry out of its table, and says whether it was live.
    #[inline]
    fn take(&mut self, database: u8, name: &[u8], key: KeyHash, now_ms: u64) -> Option<(Entry, bool)> {
        let index = self.index(key.slot);
        let database = &mut self.databases[usize::from(database)];
        let slot = database.slots.get_mut(index)?;
        let matches = |entry: &Entry| entry.key() == name;
        let entry = slot.remove(key.hash, matches, &self.hasher, &mut self.table_bytes)?;
        database.counts.remove(&entry);
        let due = entry.is_due(now_ms);
        if due {
            self.expired_total += 1;
            self.time_ms = self.time_ms.max(now_ms);
        } else {
            self.changes_total += 1;
        }
        Some((entry, !due))
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        // Without large blocks the slab's regions hold everything, and need no walk over millions of keys.
        if self.heap.needs_walk() || cfg!(debug_assertions) {
            self.abandon_snapshot();
            self.flush(None);
            while self.reclaim(usize::MAX) {}
            // A test that fails should show its own panic.
            debug_assert!(
                std::thread::panicking()
                    || (self.heap.slab.live_blocks(), self.heap.external_count) == (0, 0),
                "an entry left its table without being destroyed"
            );
        }
    }
}

/// What `put` puts.
struct Put<'a> {
    name: &'a [u8],
    value: NewValue<'a>,
    form: Form,
    clock: u32,
    deadline: Deadline,
}

impl Deadline {
    /// The deadline to have after a write to a key that has this one.
    #[inline]
    fn resolve(self, old_ms: Option<u64>) -> Option<u64> {
        match self {
            Self::Clear => None,
            Self::Keep => old_ms,
            Self::At(deadline_ms) => Some(deadline_ms),
        }
    }
}

impl Database {
    fn new(record_number: u8) -> Self {
        Self { slots: Box::default(), record_number, counts: Counts::default(), walk: None }
    }

    /// Allocates the slots; returns their bytes.
    #[cold]
    fn open(&mut self, slot_count: u16) -> usize {
        self.slots = (0..slot_count).map(|_| Slot::new()).collect();
        size_of_val(&*self.slots)
    }
}

impl Counts {
    /// Counts the change of an entry's deadline word.
    #[inline]
    fn change_word(&mut self, old: Option<DeadlineWord>, new: Option<DeadlineWord>) {
        if let Some(word) = new {
            self.words += 1;
            self.expiring += usize::from(word.deadline_ms().is_some());
            self.deadlines_ms += u128::from(word.deadline_ms().unwrap_or(0));
        }
        if let Some(word) = old {
            self.words -= 1;
            self.expiring -= usize::from(word.deadline_ms().is_some());
            self.deadlines_ms -= u128::from(word.deadline_ms().unwrap_or(0));
        }
    }

    #[inline]
    fn remove(&mut self, entry: &Entry) {
        self.keys -= 1;
        self.change_word(entry.word(), None);
    }
}

#[cfg(test)]
mod tests;
