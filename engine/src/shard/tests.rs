//! The keyspace against a model: ordered maps that do everything the slow way.

mod changes;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use snapshot::{Content, SnapshotStep, any_snapshot_step};

const FIRST_SLOT: u16 = 100;
const START_MS: u64 = 1_700_000_000_000;

/// A shard of four slots; keys' slots are chosen freely, as hash tags would allow.
struct Keyspace {
    shard: Shard,
    hasher: Hasher,
    /// Whose value the snapshot goes on with: database and key.
    emitting: Option<(u8, Vec<u8>)>,
}

impl Keyspace {
    fn new() -> Self {
        let hasher = Hasher::new(7);
        Self { shard: Shard::new(FIRST_SLOT..FIRST_SLOT + 4, hasher.clone()), hasher, emitting: None }
    }

    fn name(number: u32) -> Vec<u8> {
        format!("key:{number}").into_bytes()
    }

    /// Three quarters of the keys are in one slot, so that it splits.
    fn key(&self, name: &[u8]) -> KeyHash {
        let hash = self.hasher.hash(name);
        let slot = if name.last().is_some_and(|last| last % 4 == 0) { hash as u16 % 4 } else { 2 };
        KeyHash { slot: FIRST_SLOT + slot, hash }
    }

    fn set(&mut self, database: u8, number: u32, value: &[u8], deadline: Deadline, now_ms: u64) {
        let name = Self::name(number);
        let key = self.key(&name);
        self.shard.set_string(database, &name, key, value, deadline, now_ms);
    }

    fn get(&mut self, database: u8, number: u32, now_ms: u64) -> Option<Vec<u8>> {
        let name = Self::name(number);
        let key = self.key(&name);
        self.shard.prefetch_table(database, key);
        self.shard.prefetch_entry(database, key);
        self.shard.get(database, &name, key, now_ms).map(|entry| {
            assert_eq!(entry.key(), name);
            bytes_of(entry)
        })
    }

    fn remove(&mut self, database: u8, number: u32, now_ms: u64) -> bool {
        let name = Self::name(number);
        let key = self.key(&name);
        self.shard.remove(database, &name, key, now_ms)
    }

    /// All keys of a database, by scans of `count`.
    fn scan_all(&mut self, database: u8, count: usize, now_ms: u64) -> Vec<Vec<u8>> {
        let mut keys = Vec::new();
        let mut cursor = Some(Cursor(0));
        while let Some(from) = cursor {
            cursor = self
                .shard
                .scan(database, from, count, 5_000, now_ms, |entry| keys.push(entry.key().to_vec()));
            assert!(cursor.is_none_or(|next| next > from), "a scan makes progress");
        }
        keys
    }
}

fn bytes_of(entry: EntryRef<'_>) -> Vec<u8> {
    let Value::String(value) = entry.value();
    value.to_vec()
}

/// What a key should hold.
#[derive(Clone, Debug, PartialEq)]
struct Expected {
    value: Vec<u8>,
    deadline_ms: Option<u64>,
    edited: bool,
}

impl Expected {
    fn is_due(&self, now_ms: u64) -> bool {
        self.deadline_ms.is_some_and(|deadline_ms| deadline_ms <= now_ms)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Set {
        key: u32,
        length: usize,
        deadline: Option<Option<u64>>,
        owned: bool,
    },
    /// Many keys at once, so that tables split.
    Fill {
        from: u32,
        count: u32,
        expire_in_ms: Option<u64>,
    },
    RemoveMany {
        from: u32,
        count: u32,
    },
    Edit {
        key: u32,
        length: usize,
        /// In 255ths of the length.
        range: (u8, u8),
    },
    SetDeadline {
        key: u32,
        expire_in_ms: Option<u64>,
    },
    Remove {
        key: u32,
    },
    Move {
        from: u32,
        to: u32,
        to_database: u8,
        copy: bool,
    },
    Pass {
        elapsed_ms: u64,
    },
    Tick {
        budget: usize,
    },
    Flush {
        everything: bool,
    },
    Swap {
        other: u8,
    },
    Random {
        seed: u64,
    },
    Scan {
        count: usize,
    },
    Snapshot(SnapshotStep),
}

fn any_key() -> impl Strategy<Value = u32> {
    prop_oneof![0..12_u32, 0..3_000_u32]
}

fn any_duration() -> impl Strategy<Value = u64> {
    (0..42_u32, any::<u64>()).prop_map(|(shift, low)| 1 + (low & ((1 << shift) - 1)))
}

fn any_length() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 0..60_usize, 2 => 0..2_000_usize, 1 => 15_000..40_000_usize, 1 => 200_000..600_000_usize]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (any_key(), any_length(), prop::option::of(prop::option::of(any_duration())), any::<bool>())
            .prop_map(|(key, length, deadline, owned)| Step::Set { key, length, deadline, owned }),
        2 => (0..3_000_u32, 0..1_500_u32, prop::option::of(any_duration()))
            .prop_map(|(from, count, expire_in_ms)| Step::Fill { from, count, expire_in_ms }),
        1 => (0..3_000_u32, 0..1_500_u32).prop_map(|(from, count)| Step::RemoveMany { from, count }),
        6 => (any_key(), any_length(), any::<(u8, u8)>())
            .prop_map(|(key, length, range)| Step::Edit { key, length, range }),
        8 => (any_key(), prop::option::weighted(0.8, any_duration()))
            .prop_map(|(key, expire_in_ms)| Step::SetDeadline { key, expire_in_ms }),
        4 => any_key().prop_map(|key| Step::Remove { key }),
        3 => (any_key(), any_key(), 0..3_u8, any::<bool>())
            .prop_map(|(from, to, to_database, copy)| Step::Move { from, to, to_database, copy }),
        6 => any_duration().prop_map(|elapsed_ms| Step::Pass { elapsed_ms: elapsed_ms >> 4 }),
        6 => (0..2_000_usize).prop_map(|budget| Step::Tick { budget }),
        1 => any::<bool>().prop_map(|everything| Step::Flush { everything }),
        1 => (0..3_u8).prop_map(|other| Step::Swap { other }),
        2 => any::<u64>().prop_map(|seed| Step::Random { seed }),
        2 => (1..2_000_usize).prop_map(|count| Step::Scan { count }),
        12 => any_snapshot_step().prop_map(Step::Snapshot),
    ]
}

/// The shard, its model, and the database at work.
struct Check {
    keyspace: Keyspace,
    model: [BTreeMap<u32, Expected>; 3],
    now_ms: u64,
    marks: u8,
    to_emit: Content,
}

impl Check {
    fn new() -> Self {
        Self {
            keyspace: Keyspace::new(),
            model: Default::default(),
            now_ms: START_MS,
            marks: 0,
            to_emit: Content::new(),
        }
    }

    fn live(&self, database: u8, key: u32) -> Option<&Expected> {
        self.model[usize::from(database)].get(&key).filter(|expected| !expected.is_due(self.now_ms))
    }

    fn value(&mut self, length: usize) -> Vec<u8> {
        self.marks = self.marks.wrapping_add(1);
        vec![self.marks; length]
    }

    fn step(&mut self, database: u8, step: Step) {
        let now_ms = self.keyspace.shard.advance(self.now_ms);
        assert_eq!(now_ms, self.now_ms);
        let model = usize::from(database);
        match step {
            Step::Set { key, length, deadline, owned } => {
                let value = self.value(length);
                let kept = self.live(database, key).and_then(|expected| expected.deadline_ms);
                let (deadline, deadline_ms) = match deadline {
                    None => (Deadline::Keep, kept),
                    Some(None) => (Deadline::Clear, None),
                    Some(Some(after)) => (Deadline::At(now_ms + after), Some(now_ms + after)),
                };
                if owned {
                    let name = Keyspace::name(key);
                    let hash = self.keyspace.key(&name);
                    self.keyspace.shard.set_string_owned(
                        database,
                        &name,
                        hash,
                        value.clone(),
                        deadline,
                        now_ms,
                    );
                } else {
                    self.keyspace.set(database, key, &value, deadline, now_ms);
                }
                self.model[model].insert(key, Expected { value, deadline_ms, edited: false });
            }
            Step::Fill { from, count, expire_in_ms } => {
                let deadline_ms = expire_in_ms.map(|after| now_ms + after);
                let deadline = deadline_ms.map_or(Deadline::Clear, Deadline::At);
                for key in from..from + count {
                    self.keyspace.set(database, key, b"filled", deadline, now_ms);
                    self.model[model]
                        .insert(key, Expected { value: b"filled".to_vec(), deadline_ms, edited: false });
                }
            }
            Step::RemoveMany { from, count } => {
                for key in from..from + count {
                    let was_live = self.live(database, key).is_some();
                    assert_eq!(self.keyspace.remove(database, key, now_ms), was_live);
                    self.model[model].remove(&key);
                }
            }
            Step::Edit { key, length, range } => {
                let place = |part: u8| length * usize::from(part) / 255;
                let range = place(range.0.min(range.1))..place(range.0.max(range.1));
                let old = self.live(database, key).cloned();
                let mut expected =
                    old.unwrap_or(Expected { value: Vec::new(), deadline_ms: None, edited: true });
                expected.value.resize(length, 0);
                expected.edited = true;
                let mark = self.value(1)[0];
                let name = Keyspace::name(key);
                let hash = self.keyspace.key(&name);
                let shard = &mut self.keyspace.shard;
                let seen = shard.edit_string(database, &name, hash, length, range.clone(), now_ms, |value| {
                    let seen = value.to_vec();
                    value.iter_mut().step_by(5).for_each(|byte| *byte = mark);
                    seen
                });
                assert_eq!(seen, expected.value[range.clone()]);
                expected.value[range].iter_mut().step_by(5).for_each(|byte| *byte = mark);
                self.model[model].insert(key, expected);
            }
            Step::SetDeadline { key, expire_in_ms } => {
                let deadline_ms = expire_in_ms.map(|after| now_ms + after);
                let deadline = deadline_ms.map_or(Deadline::Clear, Deadline::At);
                let name = Keyspace::name(key);
                let hash = self.keyspace.key(&name);
                let done = self.keyspace.shard.set_deadline(database, &name, hash, deadline, now_ms);
                assert_eq!(done, self.live(database, key).is_some());
                if done {
                    self.model[model].get_mut(&key).expect("is live").deadline_ms = deadline_ms;
                }
            }
            Step::Remove { key } => {
                let was_live = self.live(database, key).is_some();
                assert_eq!(self.keyspace.remove(database, key, now_ms), was_live);
                self.model[model].remove(&key);
            }
            Step::Move { from, to, to_database, copy } => {
                let (from_name, to_name) = (Keyspace::name(from), Keyspace::name(to));
                let (from_key, to_key) = (self.keyspace.key(&from_name), self.keyspace.key(&to_name));
                let expected = self.live(database, from).cloned();
                let shard = &mut self.keyspace.shard;
                let entry = if copy {
                    shard.duplicate(database, &from_name, from_key, now_ms)
                } else {
                    self.model[model].remove(&from);
                    shard.detach(database, &from_name, from_key, now_ms)
                };
                assert_eq!(entry.is_some(), expected.is_some());
                if let (Some(entry), Some(expected)) = (entry, expected) {
                    assert_eq!(entry.deadline_ms(), expected.deadline_ms);
                    shard.attach(to_database, &to_name, to_key, entry, now_ms);
                    self.model[usize::from(to_database)].insert(to, expected);
                }
            }
            Step::Pass { elapsed_ms } => self.now_ms += elapsed_ms,
            Step::Tick { budget } => self.tick(budget),
            Step::Flush { everything } => {
                self.keyspace.shard.flush((!everything).then_some(database));
                let range = if everything { 0..3 } else { model..model + 1 };
                self.model[range].iter_mut().for_each(BTreeMap::clear);
            }
            Step::Swap { other } => {
                self.keyspace.shard.swap_databases(database, other);
                self.model.swap(model, usize::from(other));
            }
            Step::Random { seed } => {
                let name =
                    self.keyspace.shard.random_key(database, seed, now_ms).map(|entry| entry.key().to_vec());
                let live: BTreeSet<Vec<u8>> = self.live_names(database);
                match name {
                    Some(name) => assert!(live.contains(&name)),
                    None => assert!(live.is_empty()),
                }
            }
            Step::Scan { count } => {
                let names = self.keyspace.scan_all(database, count, now_ms);
                assert_eq!(names.iter().cloned().collect::<BTreeSet<_>>(), self.live_names(database));
                assert_eq!(names.len(), self.live_names(database).len(), "no key twice");
            }
            Step::Snapshot(step) => self.snapshot_step(step),
        }
    }

    fn live_names(&self, database: u8) -> BTreeSet<Vec<u8>> {
        let model = self.model[usize::from(database)].iter();
        model
            .filter(|(_, expected)| !expected.is_due(self.now_ms))
            .map(|(&key, _)| Keyspace::name(key))
            .collect()
    }

    fn tick(&mut self, budget: usize) {
        let more = self.keyspace.shard.tick(self.now_ms, budget);
        if more {
            return;
        }
        for (database, model) in self.model.iter_mut().enumerate() {
            model.retain(|_, expected| !expected.is_due(self.now_ms));
            let shard = &self.keyspace.shard;
            assert_eq!(shard.key_count(database as u8), model.len(), "a finished tick leaves no due key");
            let deadlines: Vec<_> = model.values().filter_map(|expected| expected.deadline_ms).collect();
            assert_eq!(shard.expiring_count(database as u8), deadlines.len());
            assert_eq!(shard.deadlines_ms(database as u8), deadlines.into_iter().map(u128::from).sum());
        }
        assert!(self.keyspace.shard.next_due_ms().is_none_or(|next_ms| next_ms > self.now_ms));
    }

    fn compare(&mut self) {
        for database in 0..3_u8 {
            for (&key, expected) in &self.model[usize::from(database)] {
                let name = Keyspace::name(key);
                let hash = self.keyspace.key(&name);
                let entry = self.keyspace.shard.get(database, &name, hash, self.now_ms);
                assert_eq!(entry.is_none(), expected.is_due(self.now_ms));
                if let Some(entry) = entry {
                    assert_eq!(entry.deadline_ms(), expected.deadline_ms);
                    assert_eq!(entry.form() == Form::Edited, expected.edited);
                    assert!(bytes_of(entry) == expected.value, "another value");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 96 }))]

    #[test]
    fn behaves_as_its_model(steps in prop::collection::vec((0..3_u8, any_step()), 1..80)) {
        let mut check = Check::new();
        for (database, step) in steps {
            check.counted_step(database, step);
        }
        check.finish_snapshot(50);
        check.compare();
        // Time runs out for every deadline; then everything goes.
        check.now_ms += 1 << 43;
        while check.keyspace.shard.tick(check.now_ms, 100) {}
        check.tick(100);
        check.compare();
        check.keyspace.shard.flush(None);
        while check.keyspace.shard.reclaim(50) {}
        // What may be left: levels of the wheel that hold no record.
        prop_assert!(check.keyspace.shard.used_bytes() <= 6 * (2 << 10) + 256, "{}", check.keyspace.shard.used_bytes());
        prop_assert_eq!(check.keyspace.shard.next_due_ms(), None);
    }

    /// SCAN's promise: a key that is there all the time is returned exactly once, whatever happens to others.
    #[test]
    fn a_scan_returns_what_stays(
        staying in 1..3_000_u32,
        count in 1..400_usize,
        changes in prop::collection::vec((any::<bool>(), 0..6_000_u32), 1..60),
    ) {
        let mut keyspace = Keyspace::new();
        (0..staying).for_each(|number| keyspace.set(0, number, b"stays", Deadline::Clear, START_MS));
        let mut seen: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        let mut changes = changes.into_iter();
        let mut cursor = Some(Cursor(0));
        while let Some(from) = cursor {
            cursor = keyspace.shard.scan(0, from, count, 5_000, START_MS, |entry| {
                *seen.entry(entry.key().to_vec()).or_default() += 1;
            });
            // Hundreds of other keys come or go, and tables split or shrink.
            if let Some((add, first)) = changes.next() {
                for number in (10_000 + first)..(10_000 + first + 700) {
                    if add {
                        keyspace.set(0, number, b"comes", Deadline::Clear, START_MS);
                    } else {
                        keyspace.remove(0, number, START_MS);
                    }
                }
            }
        }
        for number in 0..staying {
            prop_assert_eq!(seen.get(&Keyspace::name(number)), Some(&1));
        }
    }
}

#[test]
fn a_due_key_is_missing_and_moves_shard_time() {
    let mut keyspace = Keyspace::new();
    keyspace.set(0, 1, b"value", Deadline::At(START_MS + 10), START_MS);
    assert_eq!(keyspace.get(0, 1, START_MS + 9), Some(b"value".to_vec()));
    assert_eq!(keyspace.shard.time_ms(), 0, "a read that finds its key moves nothing");
    assert_eq!(keyspace.get(0, 1, START_MS + 10), None);
    assert_eq!(keyspace.shard.time_ms(), START_MS + 10);
    assert_eq!(keyspace.shard.advance(START_MS), START_MS + 10, "no later entry is before that read");
    assert_eq!(keyspace.shard.key_count(0), 1, "a read removes nothing");
    assert!(!keyspace.remove(0, 1, START_MS + 10));
    assert_eq!((keyspace.shard.key_count(0), keyspace.shard.expired_total()), (0, 1));
}

#[test]
fn a_tick_removes_at_the_deadline() {
    let mut keyspace = Keyspace::new();
    keyspace.set(0, 1, b"value", Deadline::At(START_MS + 90_000), START_MS);
    let mut ticks = 0;
    while let Some(next_ms) = keyspace.shard.next_due_ms() {
        assert!(next_ms <= START_MS + 90_000);
        assert!(!keyspace.shard.tick(next_ms - 1, 100));
        assert_eq!(keyspace.shard.key_count(0), 1);
        keyspace.shard.tick(next_ms, 100);
        ticks += 1;
    }
    assert_eq!((keyspace.shard.key_count(0), keyspace.shard.expired_total()), (0, 1));
    assert!(ticks <= 3, "{ticks} looks at the key");
}

#[test]
fn a_deadline_in_the_past_is_due_at_the_next_tick() {
    let mut keyspace = Keyspace::new();
    keyspace.set(0, 1, b"value", Deadline::At(START_MS + 100_000), START_MS);
    assert!(!keyspace.shard.tick(START_MS + 50_000, 100));
    keyspace.set(0, 2, b"value", Deadline::At(START_MS), START_MS + 50_000);
    keyspace.set(0, 3, b"value", Deadline::At(0), START_MS + 50_000);
    assert_eq!(keyspace.get(0, 2, START_MS + 50_000), None);
    assert!(keyspace.shard.next_due_ms().is_some_and(|next_ms| next_ms <= START_MS + 50_000));
    assert!(!keyspace.shard.tick(START_MS + 50_000, 100));
    assert_eq!((keyspace.shard.key_count(0), keyspace.shard.expired_total()), (1, 2));
}

#[test]
fn a_scan_in_small_steps_stops_at_its_count_and_its_budget() {
    let mut keyspace = Keyspace::new();
    (0..5_000).for_each(|number| keyspace.set(0, number, b"value", Deadline::At(START_MS + 1), START_MS));
    let mut visited = 0;
    let next = keyspace.shard.scan(0, Cursor(0), 10, usize::MAX, START_MS, |_| visited += 1);
    assert!(visited == 10 && next.is_some());
    // Due keys are looked at, not visited: only the budget stops here.
    let (mut calls, mut cursor) = (0, Some(Cursor(0)));
    while let Some(from) = cursor {
        cursor = keyspace.shard.scan(0, from, 10, 500, START_MS + 1, |_| panic!("all keys are due"));
        calls += 1;
    }
    assert!(calls >= 5, "{calls} calls");
    assert_eq!(keyspace.shard.time_ms(), START_MS + 1);
}

#[test]
fn a_million_keys_due_together_go_within_budgets() {
    let hasher = Hasher::new(3);
    let mut shard = Shard::new(0..SLOT_COUNT, hasher.clone());
    let empty_bytes = size_of::<Slot>() * usize::from(SLOT_COUNT);
    for number in 0..1_000_000_u32 {
        let name = Keyspace::name(number);
        let deadline = Deadline::At(START_MS + 60_000 + u64::from(number % 1000));
        shard.set_string(0, &name, hasher.key(&name), b"value", deadline, START_MS);
    }
    let mut rounds = 0;
    while shard.tick(START_MS + 61_000, 1_000) {
        rounds += 1;
        assert!(shard.expired_total() <= 1_000 * (rounds + 1));
    }
    assert!(rounds < 3_000, "each record is looked at a few times: {rounds} rounds");
    assert_eq!((shard.key_count(0), shard.expiring_count(0), shard.expired_total()), (0, 0, 1_000_000));
    assert!(shard.used_bytes() <= empty_bytes + (6 << 11) + 256, "{} bytes are left", shard.used_bytes());
}

#[test]
fn refreshing_a_deadline_adds_no_records() {
    let mut keyspace = Keyspace::new();
    for now_ms in START_MS..START_MS + 100_000 {
        keyspace.set(0, 1, b"value", Deadline::At(now_ms + 60_000), now_ms);
        if now_ms % 100 == 0 {
            keyspace.shard.tick(now_ms, 10);
        }
    }
    assert!(keyspace.shard.wheel.len() <= 2, "{} records", keyspace.shard.wheel.len());
}

#[test]
fn records_of_persistent_keys_go() {
    let mut keyspace = Keyspace::new();
    let name = Keyspace::name(1);
    let key = keyspace.key(&name);
    keyspace.set(0, 1, b"value", Deadline::At(START_MS + 1_000), START_MS);
    let with_word = keyspace.shard.heap.used_bytes();
    assert!(keyspace.shard.set_deadline(0, &name, key, Deadline::Clear, START_MS));
    assert_eq!(keyspace.shard.expiring_count(0), 0);
    while keyspace.shard.tick(START_MS + 2_000, 10) {}
    assert_eq!(keyspace.get(0, 1, START_MS + 5_000), Some(b"value".to_vec()));
    assert_eq!(keyspace.shard.heap.used_bytes(), with_word - 8, "the word goes with the record");
    assert_eq!(keyspace.shard.next_due_ms(), None);
}

#[test]
fn random_keys_are_spread_over_a_lopsided_keyspace() {
    let mut keyspace = Keyspace::new();
    (0..2_000).for_each(|number| keyspace.set(0, number, b"value", Deadline::Clear, START_MS));
    let mut drawn = BTreeSet::new();
    for seed in 0..4_000 {
        drawn.insert(keyspace.shard.random_key(0, seed, START_MS).unwrap().key().to_vec());
    }
    // Uniform draws would meet 86 % of the keys.
    assert!(drawn.len() > 1_400, "{} different keys", drawn.len());
    assert!(keyspace.shard.random_key(1, 0, START_MS).is_none());
}

#[test]
fn random_finds_the_last_live_key() {
    let mut keyspace = Keyspace::new();
    (0..5_000).for_each(|number| keyspace.set(0, number, b"value", Deadline::At(START_MS + 1), START_MS));
    keyspace.set(0, 2_500, b"value", Deadline::Clear, START_MS);
    let found = keyspace.shard.random_key(0, 1, START_MS + 1).map(|entry| entry.key().to_vec());
    assert_eq!(found, Some(Keyspace::name(2_500)));
}

#[test]
fn a_flush_hides_everything_at_once() {
    let mut keyspace = Keyspace::new();
    let before = keyspace.shard.used_bytes();
    (0..5_000)
        .for_each(|number| keyspace.set(0, number, &[7; 100], Deadline::At(START_MS + 1_000), START_MS));
    keyspace.set(1, 1, b"other", Deadline::Clear, START_MS);
    let full = keyspace.shard.used_bytes();
    keyspace.shard.flush(Some(0));
    assert_eq!((keyspace.shard.key_count(0), keyspace.shard.key_count(1)), (0, 1));
    assert_eq!(keyspace.get(0, 1, START_MS), None);
    assert!(keyspace.shard.used_bytes() >= full - 100, "memory counts until it is freed");
    assert_eq!(keyspace.shard.next_due_ms(), None, "records of flushed keys are gone");
    let mut rounds = 1;
    while keyspace.shard.reclaim(100) {
        rounds += 1;
    }
    assert!(rounds >= 50, "within budgets");
    keyspace.set(0, 1, b"new", Deadline::Clear, START_MS);
    assert_eq!(keyspace.get(0, 1, START_MS), Some(b"new".to_vec()));
    keyspace.shard.flush(None);
    while keyspace.shard.reclaim(100) {}
    assert_eq!(keyspace.shard.used_bytes(), before);
}

#[test]
fn a_shard_may_move_to_another_thread() {
    let mut keyspace = Keyspace::new();
    keyspace.set(0, 1, b"value", Deadline::Clear, START_MS);
    let moved = std::thread::spawn(move || {
        let mut keyspace = keyspace;
        keyspace.get(0, 1, START_MS)
    });
    assert_eq!(moved.join().unwrap(), Some(b"value".to_vec()));
}
