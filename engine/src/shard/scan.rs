//! Visiting keys: SCAN's order, and drawing one at random.
//!
//! SCAN visits keys in the order of (slot, top 50 bits of the hash). That order does not depend on how tables are
//! split or sized, so a key that is there from the scan's begin to its end is visited exactly once, whatever else happens.

use hashbrown::HashTable;

use super::{Cursor, Database, Shard};
use crate::EntryRef;
use crate::entry::Entry;

/// How many low bits of the hash a cursor leaves out.
const CURSOR_HASH_SHIFT: u32 = 14;

/// Draws before `random_key` walks.
const RANDOM_ATTEMPTS: usize = 64;

/// The most entries that `random_key` walks over.
const RANDOM_WALK_MAX: usize = 1 << 16;

impl Cursor {
    /// The first cursor of `slot`.
    pub fn of_slot(slot: u16) -> Self {
        Self::new(slot, 0)
    }

    fn new(slot: u16, hash_bits: u64) -> Self {
        Self((u64::from(slot) << (64 - CURSOR_HASH_SHIFT)) | hash_bits)
    }

    /// The slot where the scan goes on.
    pub fn slot(self) -> u16 {
        (self.0 >> (64 - CURSOR_HASH_SHIFT)) as u16
    }

    fn hash_bits(self) -> u64 {
        self.0 & (u64::MAX >> CURSOR_HASH_SHIFT)
    }
}

impl Shard {
    /// Visits live keys of a database in cursor order, from `from` on within this shard, until at least `count` live keys
    /// were visited or about `budget` entries were looked at; never stops between keys of equal cursor. Returns where to go on; `None` at
    /// the end of the shard.
    pub fn scan(
        &mut self,
        database: u8,
        from: Cursor,
        count: usize,
        budget: usize,
        now_ms: u64,
        mut visit: impl FnMut(EntryRef<'_>),
    ) -> Option<Cursor> {
        let (count, budget) = (count.max(1), budget.max(1));
        let slots = self.slots();
        let from = from.max(Cursor::of_slot(slots.start));
        let (mut slot_number, mut hash_bits) = (from.slot(), from.hash_bits());
        let (mut visited, mut looked_at) = (0, 0);
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut met_due = false;

        let next = loop {
            let Some(slot) = self.slot(database, slot_number) else { break None };
            if visited >= count || looked_at >= budget {
                break Some(Cursor::new(slot_number, hash_bits));
            }
            let (table, next_hash) = slot.table_from(hash_bits << CURSOR_HASH_SHIFT);
            looked_at += 1 + table.len();
            self.collect(table, hash_bits, &mut scratch);
            let mut order = Ordered::new(&mut scratch, (count - visited) * 2);
            let mut last = None;
            let mut stop = None;
            while let Some((bits, bucket)) = order.next() {
                if visited >= count && last != Some(bits) {
                    stop = Some(Cursor::new(slot_number, bits));
                    break;
                }
                last = Some(bits);
                let entry = table.get_bucket(bucket as usize).expect("collected from this table");
                if entry.is_due(now_ms) {
                    met_due = true;
                } else {
                    visited += 1;
                    visit(entry.as_ref());
                }
            }
            if stop.is_some() {
                break stop;
            }
            match next_hash {
                Some(hash) => hash_bits = hash >> CURSOR_HASH_SHIFT,
                None => (slot_number, hash_bits) = (slot_number + 1, 0),
            }
        };
        self.scratch = scratch;
        if met_due {
            self.time_ms = self.time_ms.max(now_ms);
        }
        next
    }

    /// A live key drawn with `seed`, near enough to uniformly. If draws keep meeting due keys, the first
    /// live one among some ten thousands; `None` if there is none.
    pub fn random_key(&mut self, database: u8, seed: u64, now_ms: u64) -> Option<EntryRef<'_>> {
        let database = &self.databases[usize::from(database)];
        let mut random = seed;
        let mut found = None;
        let mut met_due = false;
        for _ in 0..RANDOM_ATTEMPTS {
            let Some(entry) = database.draw(&mut random) else { break };
            if !entry.is_due(now_ms) {
                found = Some(entry);
                break;
            }
            met_due = true;
        }
        if found.is_none() {
            found = database.walk_to_live(next_random(&mut random), now_ms);
        }
        if met_due {
            self.time_ms = self.time_ms.max(now_ms);
        }
        found.map(Entry::as_ref)
    }

    /// The table's entries from `hash_bits` on: their hash bits and bucket numbers.
    fn collect(&self, table: &HashTable<Entry>, hash_bits: u64, candidates: &mut Vec<(u64, u32)>) {
        candidates.clear();
        table.iter().for_each(Entry::prefetch);
        for bucket in 0..table.num_buckets() {
            let Some(entry) = table.get_bucket(bucket) else { continue };
            let bits = self.hasher.hash(entry.key()) >> CURSOR_HASH_SHIFT;
            if bits >= hash_bits {
                candidates.push((bits, bucket as u32));
            }
        }
    }
}

/// Candidates in order, sorted no further than they are likely to be wanted.
struct Ordered<'a> {
    candidates: &'a mut [(u64, u32)],
    sorted: usize,
    next: usize,
}

impl<'a> Ordered<'a> {
    fn new(candidates: &'a mut [(u64, u32)], wanted: usize) -> Self {
        let sorted = if wanted < candidates.len() {
            candidates.select_nth_unstable(wanted);
            wanted
        } else {
            candidates.len()
        };
        candidates[..sorted].sort_unstable();
        Self { candidates, sorted, next: 0 }
    }

    fn next(&mut self) -> Option<(u64, u32)> {
        if self.next == self.sorted {
            self.candidates[self.sorted..].sort_unstable();
            self.sorted = self.candidates.len();
        }
        let candidate = self.candidates.get(self.next).copied();
        self.next += 1;
        candidate
    }
}

impl Database {
    /// An entry, due or not: each slot weighs as much as it has keys.
    fn draw(&self, random: &mut u64) -> Option<&Entry> {
        if self.counts.keys == 0 {
            return None;
        }
        let mut rank = below(next_random(random), self.counts.keys);
        let slot = self.slots.iter().find(|slot| {
            let here = rank < slot.len();
            rank = rank.wrapping_sub(if here { 0 } else { slot.len() });
            here
        })?;
        // Tables take part by their share of the hashes, which are uniform. An empty one leads to its neighbours.
        let mut hash = next_random(random);
        let (mut table, mut next_hash) = slot.table_from(hash);
        while table.is_empty() {
            hash = next_hash.unwrap_or(0);
            (table, next_hash) = slot.table_from(hash);
        }
        let buckets = table.num_buckets();
        let first = below(next_random(random), buckets);
        (first..buckets).chain(0..first).find_map(|bucket| table.get_bucket(bucket))
    }

    /// The first live entry from a drawn slot on.
    fn walk_to_live(&self, random: u64, now_ms: u64) -> Option<&Entry> {
        let first = below(random, self.slots.len());
        let (before, after) = self.slots.split_at(first);
        let mut looked_at = 0;
        for slot in after.iter().chain(before) {
            let mut next_hash = Some(0);
            while let Some(hash) = next_hash
                && looked_at < RANDOM_WALK_MAX
            {
                let (table, next) = slot.table_from(hash);
                if let Some(entry) = table.iter().find(|entry| !entry.is_due(now_ms)) {
                    return Some(entry);
                }
                looked_at += table.len();
                next_hash = next;
            }
        }
        None
    }
}

/// A number below `bound` (0 for a bound of 0) from 64 random bits.
fn below(random: u64, bound: usize) -> usize {
    ((u128::from(random) * bound as u128) >> 64) as usize
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
