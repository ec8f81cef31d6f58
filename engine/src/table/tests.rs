//! Slots: splitting, shrinking, order and accounting, with keys that collide as no hash function would let them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::entry::{Form, Heap, NewEntry, NewValue};

/// A slot and what it should hold.
struct Model {
    slot: Slot,
    heap: Heap,
    hasher: Hasher,
    table_bytes: usize,
    keys: BTreeMap<Vec<u8>, u64>,
}

impl Model {
    fn new() -> Self {
        Self {
            slot: Slot::new(),
            heap: Heap::new(),
            hasher: Hasher::new(42),
            table_bytes: 0,
            keys: BTreeMap::new(),
        }
    }

    fn insert(&mut self, name: &[u8]) {
        let hash = self.hasher.hash(name);
        let new = NewEntry { name, value: NewValue::Inline(b"", 0), word: None, form: Form::Given, clock: 0 };
        let entry = Entry::new(&mut self.heap, new);
        self.slot.insert(hash, entry, &self.hasher, &mut self.table_bytes);
        assert!(self.keys.insert(name.to_vec(), hash).is_none());
    }

    fn remove(&mut self, name: &[u8]) {
        let hash = self.keys.remove(name).expect("is there");
        let matches = |entry: &Entry| entry.key() == name;
        let entry = self.slot.remove(hash, matches, &self.hasher, &mut self.table_bytes).expect("is there");
        // SAFETY: it was made on this heap.
        unsafe { entry.destroy(&mut self.heap) };
    }

    fn tables(&self) -> Vec<&HashTable<Entry>> {
        let mut tables = Vec::new();
        let mut next = Some(0);
        while let Some(hash) = next {
            let (table, next_hash) = self.slot.table_from(hash);
            tables.push(table);
            next = next_hash;
        }
        tables
    }

    fn check(&self) {
        assert_eq!(self.slot.len(), self.keys.len());
        assert_eq!(self.slot.table_bytes(), self.table_bytes);
        let mut previous = None;
        let mut count = 0;
        for table in self.tables() {
            assert!(table.num_buckets() <= TABLE_BUCKETS_MAX);
            let hashes = || table.iter().map(|entry| self.hasher.hash(entry.key()));
            if let (Some(previous), Some(first)) = (previous, hashes().min()) {
                assert!(previous < first, "tables are in the order of hashes");
            }
            previous = hashes().max().or(previous);
            count += table.len();
        }
        assert_eq!(count, self.keys.len());
        for (name, &hash) in &self.keys {
            assert_eq!(self.slot.find(hash, name).expect("is there").key(), name);
        }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        while let Some(table) = self.slot.take_table(&mut self.table_bytes) {
            self.table_bytes -= table.allocation_size();
            // SAFETY: they were made on this heap.
            table.into_iter().for_each(|entry| unsafe { entry.destroy(&mut self.heap) });
        }
        if !std::thread::panicking() {
            assert_eq!((self.table_bytes, self.heap.used_bytes()), (0, 0));
        }
    }
}

fn name(number: u32) -> Vec<u8> {
    number.to_string().into_bytes()
}

#[test]
fn a_slot_of_many_keys_stays_in_bounded_tables() {
    let mut model = Model::new();
    for number in 0..20_000 {
        model.insert(&name(number));
    }
    model.check();
    assert!(model.tables().len() >= 20_000 / 896);
    assert!(model.table_bytes / 20_000 < 24, "{} bytes a key", model.table_bytes / 20_000);
    for number in 0..19_900 {
        model.remove(&name(number));
    }
    model.check();
    assert!(model.table_bytes < 32 << 10, "sparse tables shrink");
    for number in 19_900..20_000 {
        model.remove(&name(number));
    }
    model.check();
    assert_eq!(model.table_bytes, 0, "the directory goes with the last key");
}

#[test]
fn churn_at_a_constant_size_does_not_split_on() {
    let mut model = Model::new();
    (0..600).for_each(|number| model.insert(&name(number)));
    for number in 600..50_000 {
        model.remove(&name(number - 600));
        model.insert(&name(number));
    }
    model.check();
    assert!(model.tables().len() <= 4);
}

/// Keys whose hashes agree in their top bits: the directory must not grow without bound.
#[test]
fn clustered_hashes_make_a_large_table_instead_of_a_large_directory() {
    let mut model = Model::new();
    let clustered = (0..u32::MAX).filter(|&number| Hasher::new(42).hash(&name(number)) >> 52 == 0x5A5);
    clustered.take(1_000).for_each(|number| model.insert(&name(number)));
    let Slot::Directory(directory) = &model.slot else { panic!("more keys than one table holds") };
    assert!(directory.index.len() <= directory.tables.len() * DIRECTORY_ENTRIES_A_TABLE_MAX);
    assert_eq!(model.slot.table_bytes(), model.table_bytes);
    assert_eq!(model.slot.len(), 1_000);
}

/// Where the directory is deeper than a table needs, several of its entries lead to that table.
#[test]
fn tables_of_different_depths_split_alike() {
    let hasher = Hasher::new(42);
    let mut model = Model::new();
    let starts_with =
        |number: u32, bits: u32, prefix: u64| hasher.hash(&name(number)) >> (64 - bits) == prefix;
    (0..u32::MAX).filter(|&number| starts_with(number, 4, 0b1011)).take(3_000).for_each(|number| {
        model.insert(&name(number));
    });
    let Slot::Directory(directory) = &model.slot else { panic!("more keys than one table holds") };
    assert!(directory.bits >= directory.tables.iter().map(|table| table.depth).min().unwrap() + 3);
    model.check();
    (0..u32::MAX).filter(|&number| !starts_with(number, 4, 0b1011)).take(10_000).for_each(|number| {
        model.insert(&name(number));
    });
    model.check();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 24 }))]

    #[test]
    fn any_mixture_of_insertions_and_removals(phases in prop::collection::vec((0..4_000_u32, 0..4_000_u32, any::<bool>()), 1..8)) {
        let mut model = Model::new();
        for (from, count, add) in phases {
            for number in from..from + count {
                let name = name(number);
                match (add, model.keys.contains_key(&name)) {
                    (true, false) => model.insert(&name),
                    (false, true) => model.remove(&name),
                    _ => {}
                }
            }
            model.check();
        }
    }
}
