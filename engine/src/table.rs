//! A slot's keys: one bounded hash table, or a directory of them.
//!
//! Most slots hold few keys, in one table that sits in the slot itself. A table that would grow past
//! [`TABLE_BUCKETS_MAX`] is split in two by the next bit of the hash, as extendible hashing does (Fagin, Nievergelt,
//! Pippenger and Strong, 1979), so that no insertion touches more than one such table and a copy of the
//! directory.
//!
//! Which bits of a key's hash decide what:
//!
//! ```text
//! 63 .. 42   directory, from the top
//! 41 .. 32   bucket
//! 31 .. 25   tag: the seven bits that hashbrown compares before it looks at an element
//! ```
//!
//! hashbrown takes the bucket from a hash's low bits and the tag from its top ones, so it is given the hash
//! rotated by half its width. Tables keep the order of the hash's top bits: all keys of one table have smaller hashes
//! than all keys of the next.
//!
//! Invariants:
//!
//! - A directory entry leads to the one table whose keys begin with the entry's bits; a table of depth `d` is named
//!   by `2^(bits - d)` neighbouring entries.
//! - A table outgrows the bound only if its keys' hashes agree in so many bits that splitting would not help or the
//!   directory would outgrow its tables.

use hashbrown::HashTable;

use crate::Hasher;
use crate::entry::{Entry, prefetch};

/// The most buckets of a table that can be split: room for 896 keys.
pub(crate) const TABLE_BUCKETS_MAX: usize = 1024;

/// The most bits of the hash that the directory may use: the rest are for buckets and tags.
const DIRECTORY_BITS_MAX: u32 = 22;

/// The directory may have so many entries a table before it stops growing: hashes that agree in many bits are then
/// an accident or an attack.
const DIRECTORY_ENTRIES_A_TABLE_MAX: usize = 64;

/// A table at most an eighth full shrinks, unless it is this small.
const SHRINK_BUCKETS_MIN: usize = 32;

/// The keys of one slot in one database.
pub(crate) enum Slot {
    /// The usual form.
    Table(HashTable<Entry>),
    /// More keys than one table may hold.
    Directory(Box<Directory>),
}

const _: () = assert!(size_of::<Slot>() == 32, "a slot is as large as a table's header");

/// Tables by the top bits of the hash.
pub(crate) struct Directory {
    /// How many bits select an entry of `index`.
    bits: u32,
    /// Numbers in `tables`, `2^bits` of them.
    index: Vec<u32>,
    tables: Vec<Table>,
    key_count: usize,
}

struct Table {
    entries: HashTable<Entry>,
    /// How many top bits of the hash all keys of the table have in common.
    depth: u32,
}

/// hashbrown's form of a hash.
#[inline]
fn rotated(hash: u64) -> u64 {
    hash.rotate_left(32)
}

impl Slot {
    /// A slot without keys, which holds no memory.
    pub(crate) const fn new() -> Self {
        Self::Table(HashTable::new())
    }

    /// How many keys there are.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Table(table) => table.len(),
            Self::Directory(directory) => directory.key_count,
        }
    }

    /// The table where keys of this hash belong.
    #[inline]
    pub(crate) fn table(&self, hash: u64) -> &HashTable<Entry> {
        match self {
            Self::Table(table) => table,
            Self::Directory(directory) => &directory.tables[directory.number(hash)].entries,
        }
    }

    #[inline]
    fn table_mut(&mut self, hash: u64) -> &mut HashTable<Entry> {
        match self {
            Self::Table(table) => table,
            Self::Directory(directory) => {
                let number = directory.number(hash);
                &mut directory.tables[number].entries
            }
        }
    }

    /// The entry with this key.
    #[inline]
    pub(crate) fn find(&self, hash: u64, name: &[u8]) -> Option<&Entry> {
        self.table(hash).find(rotated(hash), |entry| entry.key() == name)
    }

    /// The entry with this key, to be changed or exchanged for another with the same key.
    #[inline]
    pub(crate) fn find_mut(&mut self, hash: u64, name: &[u8]) -> Option<&mut Entry> {
        self.table_mut(hash).find_mut(rotated(hash), |entry| entry.key() == name)
    }

    /// The entries that hashes like this one may belong to: all whose hash agrees in the bits from 18 up, and
    /// perhaps others.
    pub(crate) fn candidates_mut(&mut self, hash: u64) -> impl Iterator<Item = &mut Entry> {
        self.table_mut(hash).iter_hash_mut(rotated(hash))
    }

    /// Asks for the bucket of the first key whose tag matches, or where a new key would go: the first of two steps.
    #[inline]
    pub(crate) fn prefetch_bucket(&self, hash: u64) {
        let table = self.table(hash);
        let found = table.find(rotated(hash), |entry| {
            prefetch(entry);
            true
        });
        if found.is_none() {
            prefetch_vacancy(table, hash);
        }
    }

    /// Asks for the entry in that bucket: the second step.
    #[inline]
    pub(crate) fn prefetch_entry(&self, hash: u64) {
        self.table(hash).find(rotated(hash), |entry| {
            entry.prefetch();
            true
        });
    }

    /// Adds an entry whose key is not here yet. `table_bytes` follows the tables' memory.
    #[inline]
    pub(crate) fn insert(&mut self, hash: u64, entry: Entry, hasher: &Hasher, table_bytes: &mut usize) {
        let table = self.table_mut(hash);
        if table.len() == table.capacity() {
            self.make_room(hash, hasher, table_bytes);
        }
        self.table_mut(hash).insert_unique(rotated(hash), entry, |entry| rotated(hasher.hash(entry.key())));
        if let Self::Directory(directory) = self {
            directory.key_count += 1;
        }
    }

    /// Removes the first entry of this hash that matches.
    #[inline]
    pub(crate) fn remove(
        &mut self,
        hash: u64,
        matches: impl FnMut(&Entry) -> bool,
        hasher: &Hasher,
        table_bytes: &mut usize,
    ) -> Option<Entry> {
        let table = self.table_mut(hash);
        let (entry, _) = table.find_entry(rotated(hash), matches).ok()?.remove();
        let sparse = table.len() * 8 <= table.num_buckets() && table.num_buckets() >= SHRINK_BUCKETS_MIN;
        if sparse || table.is_empty() {
            shrink(table, hasher, table_bytes);
        }
        if let Self::Directory(directory) = self {
            directory.key_count -= 1;
            if directory.key_count == 0 {
                *table_bytes -= directory.bytes();
                *self = Self::new();
            }
        }
        Some(entry)
    }

    /// Makes room for one more key of this hash.
    #[cold]
    fn make_room(&mut self, hash: u64, hasher: &Hasher, table_bytes: &mut usize) {
        loop {
            let table = self.table_mut(hash);
            // Tables with many tombstones are tidied up by hashbrown, in place.
            let must_grow =
                table.num_buckets() >= TABLE_BUCKETS_MAX && table.len() >= TABLE_BUCKETS_MAX * 7 / 16;
            if must_grow && self.split(hash, hasher, table_bytes) {
                let table = self.table_mut(hash);
                if table.len() < table.capacity() {
                    return;
                }
                continue;
            }
            let table = self.table_mut(hash);
            table.iter().for_each(Entry::prefetch);
            let before = table.allocation_size();
            table.reserve(1, |entry| rotated(hasher.hash(entry.key())));
            *table_bytes += table.allocation_size();
            *table_bytes -= before;
            return;
        }
    }

    /// Splits the table where keys of this hash belong; false if that would not help.
    fn split(&mut self, hash: u64, hasher: &Hasher, table_bytes: &mut usize) -> bool {
        if let Self::Table(table) = self {
            let table = Table { entries: std::mem::take(table), depth: 0 };
            let key_count = table.entries.len();
            let directory = Box::new(Directory { bits: 0, index: vec![0], tables: vec![table], key_count });
            *table_bytes += directory.bytes();
            *self = Self::Directory(directory);
        }
        let Self::Directory(directory) = self else { unreachable!("made above") };
        let before = directory.bytes();
        let split = directory.split(hash, hasher, table_bytes);
        *table_bytes += directory.bytes();
        *table_bytes -= before;
        split
    }

    /// The slot's tables in the order of the hash's top bits, from the one where keys of `hash` belong on, each with
    /// the smallest hash behind it (`None`: it is the last one).
    pub(crate) fn table_from(&self, hash: u64) -> (&HashTable<Entry>, Option<u64>) {
        match self {
            Self::Table(table) => (table, None),
            Self::Directory(directory) => {
                let table = &directory.tables[directory.number(hash)];
                if table.depth == 0 {
                    return (&table.entries, None);
                }
                let width = u64::BITS - table.depth;
                let prefix = (hash >> width) + 1;
                let next = (prefix < 1 << table.depth).then(|| prefix << width);
                (&table.entries, next)
            }
        }
    }

    /// As `table_from`, to change entries in place.
    pub(crate) fn table_from_mut(&mut self, hash: u64) -> (&mut HashTable<Entry>, Option<u64>) {
        let (_, next) = self.table_from(hash);
        (self.table_mut(hash), next)
    }

    /// Bytes of the slot's tables and directory.
    #[cfg(test)]
    pub(crate) fn table_bytes(&self) -> usize {
        match self {
            Self::Table(table) => table.allocation_size(),
            Self::Directory(directory) => {
                let tables = directory.tables.iter().map(|table| table.entries.allocation_size());
                directory.bytes() + tables.sum::<usize>()
            }
        }
    }

    /// Takes the tables out, one a call, in no particular order; `None` once there is none left.
    pub(crate) fn take_table(&mut self, table_bytes: &mut usize) -> Option<HashTable<Entry>> {
        match self {
            Self::Table(table) => {
                let table = std::mem::take(table);
                (!table.is_empty()).then_some(table)
            }
            Self::Directory(directory) => {
                let before = directory.bytes();
                let table = directory.tables.pop();
                *table_bytes += directory.bytes();
                *table_bytes -= before;
                if table.is_none() {
                    *table_bytes -= directory.bytes();
                    *self = Self::new();
                }
                table.map(|table| table.entries)
            }
        }
    }
}

impl Directory {
    #[inline]
    fn number(&self, hash: u64) -> usize {
        // With no bits, a shift by 64 would be one by 0.
        let entry = if self.bits == 0 { 0 } else { hash >> (u64::BITS - self.bits) };
        self.index[entry as usize] as usize
    }

    fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.index.capacity() * size_of::<u32>()
            + self.tables.capacity() * size_of::<Table>()
    }

    fn split(&mut self, hash: u64, hasher: &Hasher, table_bytes: &mut usize) -> bool {
        let number = self.number(hash);
        let depth = self.tables[number].depth;
        if depth == self.bits {
            let allowed = self.tables.len() * DIRECTORY_ENTRIES_A_TABLE_MAX;
            if self.bits == DIRECTORY_BITS_MAX || self.index.len() * 2 > allowed {
                return false;
            }
            let mut index = Vec::with_capacity(self.index.len() * 2);
            self.index.iter().for_each(|&number| index.extend([number, number]));
            self.index = index;
            self.bits += 1;
        }

        let entries = std::mem::take(&mut self.tables[number].entries);
        *table_bytes -= entries.allocation_size();
        entries.iter().for_each(Entry::prefetch);
        // Half the keys each, and some more for what chance adds.
        let half = entries.len() / 2 + entries.len() / 8;
        let mut halves = [HashTable::with_capacity(half), HashTable::with_capacity(half)];
        for entry in entries {
            let hash = hasher.hash(entry.key());
            let side = (hash >> (u64::BITS - 1 - depth)) & 1;
            halves[side as usize]
                .insert_unique(rotated(hash), entry, |entry| rotated(hasher.hash(entry.key())));
        }
        for half in &mut halves {
            if half.is_empty() {
                *half = HashTable::new();
            }
        }
        *table_bytes += halves.iter().map(HashTable::allocation_size).sum::<usize>();

        let [low, high] = halves;
        self.tables[number] = Table { entries: low, depth: depth + 1 };
        let high_number = u32::try_from(self.tables.len()).expect("the directory's bits are bounded");
        self.tables.push(Table { entries: high, depth: depth + 1 });
        // The entries that begin with the table's bits and a one.
        let width = self.bits - depth - 1;
        let prefix = ((hash >> (u64::BITS - 1 - depth)) | 1) as usize;
        self.index[prefix << width..(prefix + 1) << width].fill(high_number);
        true
    }
}

/// Asks for the bucket where a new key of this hash goes, or one close to it. An insertion that has to wait for it makes all
/// that follow wait.
#[inline]
fn prefetch_vacancy(table: &HashTable<Entry>, hash: u64) {
    /// Buckets that are looked at for a key beside which the new one will be.
    const DISTANCE_MAX: usize = 8;
    let mask = table.num_buckets().wrapping_sub(1);
    let first = rotated(hash) as usize;
    for distance in 0..DISTANCE_MAX {
        if let Some(entry) = table.get_bucket(first.wrapping_add(distance) & mask) {
            // Buckets lie in descending order, and the free one is usually among the next few.
            let bucket = std::ptr::from_ref(entry).wrapping_add(distance);
            prefetch(bucket);
            prefetch(bucket.wrapping_sub(DISTANCE_MAX));
            return;
        }
    }
}

/// Fits a table to its keys, with room for as many again.
#[cold]
fn shrink(table: &mut HashTable<Entry>, hasher: &Hasher, table_bytes: &mut usize) {
    *table_bytes -= table.allocation_size();
    if table.is_empty() {
        *table = HashTable::new();
    } else {
        table.iter().for_each(Entry::prefetch);
        table.shrink_to(table.len() * 2, |entry| rotated(hasher.hash(entry.key())));
    }
    *table_bytes += table.allocation_size();
}

#[cfg(test)]
mod tests;
